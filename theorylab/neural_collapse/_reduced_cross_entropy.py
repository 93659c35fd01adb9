r"""Cross-entropy with free features and classes of any sizes, reduced to its convex core.

The minimizing logits are invariant under permutations of classes of equal size. With G groups of
$m_h$ classes of size $n_h$ the own logit is $a_{hh}+c_h$, that of other classes
of the same group $a_{hh}$, that of classes of group g $a_{gh}$. The singular values are
$c_h\sqrt{n_h}$, $m_h-1$ times, and those of
$B=(c_g\delta_{gh}+a_{gh}\sqrt{m_gm_h})\,\mathrm{diag}\sqrt{n_h}$. With $c=x^2$ and
$B=UV^\top$ the penalty is smooth and every local minimum is global. The $a_{gh}$ are
smooth functions of the two sizes: where there are many groups, those of neighbouring sizes are
merged first, and splines through that solution start Newton's method, whose steps come from
conjugate gradients: six products of G x G matrices for an iteration, in single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize

from theorylab._validation import FloatArray
from theorylab.neural_collapse._spectra import Groups, Spectrum, expand, groups_of

__all__ = ["solve_cross_entropy"]

# Up to twice this number of groups quasi-Newton steps from the identity are the best start.
_COARSE = 24
_ITERATIONS = 40
_CONJUGATE_STEPS = 60
# Relative decrease that the last Newton step promised, for few groups and for many: the error left
# is far below it.
_DECREASE = 1e-20, 1e-9


def solve_cross_entropy(
    n: NDArray[np.int64], mu: float, bias: bool
) -> tuple[float, Spectrum, FloatArray | None]:
    """Return the minimum, the spectrum of the logits and the bias."""
    groups = groups_of(n)
    problem = _GroupProblem(groups, mu, bias, float(n.sum()))
    theta = _newton(problem, _start(groups, mu, bias, float(n.sum())))
    x, U, V, offset = problem.split(theta)
    within = np.where(groups.multiplicities > 1, x**2 * np.sqrt(groups.sizes), 0.0)
    left, values, right = np.linalg.svd(U @ V.T)
    # What the descent leaves of a singular value that vanishes is far below rounding at the scale
    # of logits of order one.
    negligible = 1e-12 * np.sqrt(groups.sizes.max())
    values[values < negligible] = 0.0
    within[within < negligible] = 0.0
    return (
        float(problem.value_and_gradient(theta)[0]),
        expand(groups, within, left, values, right),
        (offset - offset.mean())[groups.of_class] if bias else None,
    )


def _start(groups: Groups, mu: float, bias: bool, total: float) -> FloatArray:
    problem, G = _GroupProblem(groups, mu, bias, total), groups.sizes.size
    identity = np.concatenate([np.ones(G), np.eye(G).ravel(), np.eye(G).ravel(), np.zeros(G)])
    if G <= 2 * _COARSE:
        options: Any = {
            "maxiter": 5000, "maxfun": 10000, "ftol": 1e-13, "gtol": 1e-7 * mu, "maxcor": 30
        }  # fmt: skip
        value: Any = problem.value_and_gradient
        return minimize(value, identity, jac=True, method="L-BFGS-B", options=options).x
    bins = np.arange(G) * _COARSE // G
    m = np.bincount(bins, weights=groups.multiplicities)
    sizes = np.bincount(bins, weights=groups.multiplicities * groups.sizes) / m
    merged = Groups(sizes, m.astype(np.int64), np.zeros(0, np.int64))
    coarse = _GroupProblem(merged, mu, bias, total)
    c, a, offset = coarse.logits(_newton(coarse, _start(merged, mu, bias, total)))
    at = np.log(np.clip(groups.sizes, sizes[0], sizes[-1]))

    def spread(values: FloatArray, axis: int = 0) -> FloatArray:
        return np.asarray(CubicSpline(np.log(sizes), values, axis=axis)(at))

    own = np.maximum(spread(c), 0.0)
    logits = spread(spread(a), axis=1)
    logits[np.diag_indices(G)] += own / problem.m
    B = logits / problem.to_logits
    one = np.sqrt(problem.m / problem.m.sum())
    left, values, right = np.linalg.svd(B - np.outer(one, one @ B))
    # No direction starts at zero, from which it could not grow.
    root = np.sqrt(np.maximum(values, 1e-4 * values[0]))
    factors = [(left * root).ravel(), (right.T * root).ravel()]
    fine = np.concatenate([np.sqrt(own), *factors, spread(offset)])
    starts = (fine, identity)
    return min(starts, key=lambda theta: float(problem.value_and_gradient(theta)[0]))


class _GroupProblem:
    """Objective, gradient and curvature of the group-invariant problem in ``(x, U, V, bias)``."""

    def __init__(self, groups: Groups, mu: float, bias: bool, total: float) -> None:
        m, sizes = groups.multiplicities.astype(np.float64), groups.sizes
        self.G, self.mu, self.bias, self.m = sizes.size, mu, bias, m
        self.weight = m * sizes / total
        self.to_logits = 1 / np.sqrt(np.outer(m, m * sizes))
        self.within_price = np.where(m > 1, (m - 1) * np.sqrt(sizes), 1.0)
        self.active = (m > 1).astype(np.float64)
        self.diagonal = np.diag_indices(self.G)

    def split(self, theta: NDArray[Any]) -> tuple[Any, Any, Any, Any]:
        G = self.G
        x, U, V, offset = np.split(theta, [G, G + G * G, G + 2 * G * G])
        return x, U.reshape(G, G), V.reshape(G, G), offset

    def logits(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return c, a without the bias, and the bias."""
        x, U, V, offset = self.split(theta)
        c = x**2 * self.active
        a = U @ V.T * self.to_logits
        a[self.diagonal] -= c / self.m
        return c, a, offset

    def probabilities(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return those of the other classes of each group (G, G), of the own class (G,), and the
        losses (G,)."""
        c, a, offset = self.logits(theta)
        if self.bias:
            a = a + offset[:, None]
        own = a[self.diagonal] + c
        top = np.maximum(a.max(axis=0), own)
        mass = np.exp(a - top) * self.m[:, None]
        mass[self.diagonal] *= (self.m - 1) / self.m
        own_mass = np.exp(own - top)
        norm = mass.sum(axis=0) + own_mass
        return mass / norm, own_mass / norm, np.log(norm) + top - own

    def slopes(self, others: FloatArray, own: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the derivatives of the loss in B and c, given its derivatives in the logits."""
        slope = others.copy()
        slope[self.diagonal] += own
        return slope * self.to_logits, (own - slope[self.diagonal] / self.m) * self.active

    def value_and_gradient(self, theta: FloatArray) -> tuple[float, FloatArray]:
        x, U, V, _ = self.split(theta)
        p, own, losses = self.probabilities(theta)
        value = self.weight @ losses + self.mu * self.within_price @ x**2
        value += self.mu / 2 * (np.sum(U**2) + np.sum(V**2))
        slope_own = self.weight * (own - 1)
        slope_B, slope_c = self.slopes(self.weight * p, slope_own)
        gradient = [
            2 * x * (slope_c + self.mu * self.within_price),
            (slope_B @ V + self.mu * U).ravel(),
            (slope_B.T @ U + self.mu * V).ravel(),
            float(self.bias) * (self.weight * p).sum(axis=1) + float(self.bias) * slope_own,
        ]
        return float(value), np.concatenate(gradient)

    def curvature(self, theta: FloatArray) -> _Curvature:
        return _Curvature(self, theta)


class _Curvature:
    """Product of the Hessian with a vector, in units of mu and in single precision."""

    def __init__(self, problem: _GroupProblem, theta: FloatArray) -> None:
        self.problem = problem
        p, own, _ = problem.probabilities(theta)
        slope_B, slope_c = problem.slopes(problem.weight * p, problem.weight * (own - 1))
        x, U, V, _ = problem.split(theta)
        low = np.float32
        self.U, self.V, self.p = U.astype(low), V.astype(low), p.astype(low)
        self.slope_B = (slope_B / problem.mu).astype(low)
        self.to_logits = problem.to_logits.astype(low)
        self.share = (problem.weight / problem.mu).astype(low)
        self.own, self.x = own.astype(low), (x * problem.active).astype(low)
        self.m, self.active = problem.m.astype(low), problem.active.astype(low)
        self.price = (2 * (slope_c / problem.mu + problem.within_price)).astype(low)

    def __call__(self, direction: NDArray[np.float32]) -> NDArray[np.float32]:
        problem, diagonal = self.problem, self.problem.diagonal
        dx, dU, dV, shift = problem.split(direction)
        dc = 2 * self.x * dx
        moved = dU @ self.V.T
        moved += self.U @ dV.T
        moved *= self.to_logits
        moved[diagonal] -= dc / self.m
        if problem.bias:
            moved += shift[:, None]
        own = moved[diagonal] + dc
        moved *= self.p
        mean = moved.sum(axis=0) + self.own * own
        moved -= self.p * mean
        moved *= self.share
        own = self.share * self.own * (own - mean)
        if problem.bias:
            shift = moved.sum(axis=1) + own
        moved[diagonal] += own
        own -= moved[diagonal] / self.m
        moved *= self.to_logits
        return np.concatenate(
            [
                self.price * dx + 2 * self.x * self.active * own,
                (moved @ self.V + self.slope_B @ dV + dU).ravel(),
                (moved.T @ self.U + self.slope_B.T @ dU + dV).ravel(),
                shift if problem.bias else np.zeros_like(shift),
            ]
        )


def _newton(problem: _GroupProblem, theta: FloatArray) -> FloatArray:
    """Take Newton steps until one promises next to nothing; directions without curvature (rotations
    of U and V) are left alone."""
    value, gradient = problem.value_and_gradient(theta)
    enough = _DECREASE[problem.G > 2 * _COARSE]
    for _ in range(_ITERATIONS):
        step = _newton_step(problem, theta, gradient)
        decrease, size = -float(gradient @ step), 1.0
        while True:
            trial, slope = problem.value_and_gradient(theta + size * step)
            # Near the end the decrease is below the rounding of the value.
            if trial <= value - 1e-4 * size * decrease + 1e-14 * abs(value):
                break
            size /= 2
            if size < 1e-6:
                return theta
        theta, value, gradient = theta + size * step, trial, slope
        if decrease <= enough * abs(value):
            break
    return theta


def _newton_step(problem: _GroupProblem, theta: FloatArray, gradient: FloatArray) -> FloatArray:
    """Solve for the Newton step by conjugate gradients, to a hundredth of the residual or up to a
    direction without curvature."""
    product = _Curvature(problem, theta)
    unit = float(np.abs(gradient).max()) or 1.0
    rest = (-gradient / unit).astype(np.float32)
    direction, step = rest.copy(), np.zeros_like(rest)
    size = first = float(rest @ rest)
    for k in range(_CONJUGATE_STEPS):
        image = product(direction)
        curvature = float(direction @ image)
        if curvature <= 1e-6 * float(direction @ direction):
            step = step if k else direction
            break
        step += np.float32(size / curvature) * direction
        rest -= np.float32(size / curvature) * image
        size, last = float(rest @ rest), size
        if size <= 1e-4 * first:
            break
        direction *= np.float32(size / last)
        direction += rest
    return np.asarray(step.astype(np.float64) * (unit / problem.mu))
