r"""Cross-entropy with free features and classes of any sizes, reduced to its convex core.

The minimizing logits are invariant under permutations of classes of equal size. With G groups of
$m_h$ classes of size $n_h$ the own logit is $a_{hh}+c_h$, that of other classes
of the same group $a_{hh}$, that of classes of group g $a_{gh}$. The singular values are
$s_h=c_h\sqrt{n_h}$, $m_h-1$ times, and those of
$B=(c_g\delta_{gh}+a_{gh}\sqrt{m_gm_h})\,\mathrm{diag}\sqrt{n_h}$; with a free bias, which takes
the multiples of $v=\sqrt{m_hn_h}$ on the right, those of B without them.

A semismooth Newton method solves $\nabla f(B)+\mu Y=0$, $Y\in\partial\|B\|_*$. In the basis of
singular vectors $Y=\mathrm{diag}(g)$, $B=\mathrm{diag}(\sigma)$, a symmetric pair of entries has
curvature $\mu(2-g_i-g_j)/(\sigma_i+\sigma_j)$, a skew one $\mu(g_i+g_j)/(\sigma_i+\sigma_j)$, and
pairs with $\sigma_i=\sigma_j=0$ are left out: there the gradient moves Y alone. The steps come from
conjugate gradients. Their preconditioner takes the same formulas in the basis of the groups, where
the loss is nearly diagonal, and solves the multiples of v exactly. Where there are many groups,
those of neighbouring sizes are merged first, and splines through that solution, on either side of
the threshold of collapse, are the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from theorylab._validation import FloatArray
from theorylab.neural_collapse._spectra import Groups, Spectrum, expand, groups_of

__all__ = ["solve_cross_entropy"]

# Up to twice this number of groups the start is diagonal, and all is done in double precision.
_COARSE = 32
_ITERATIONS = 100
_CONJUGATE_STEPS = 400, 40
# Root mean square of the optimality condition, in units of the penalty, at which the method ends,
# for few groups and for many: relative gaps are of the order of its square.
_RESIDUAL = 1e-12, 1e-6


def solve_cross_entropy(
    n: NDArray[np.int64], mu: float, bias: bool, stops: Callable[..., bool]
) -> tuple[float, Spectrum, FloatArray | None]:
    """Return the minimum, the spectrum of the logits and the bias; or the last point, if ``stops``
    says so of its number, objective and residual."""
    groups = groups_of(n)
    # From sqrt(2 / N) on, a bound of all gradients, nothing depends on the price.
    problem = _GroupProblem(groups, min(mu, 1.0), bias, float(n.sum()))
    point = _solve(problem, _start(groups, problem), stops)
    within = np.where(groups.multiplicities > 1, point.within / problem.copies, 0.0)
    offset = (point.E @ problem.v) / np.sqrt(problem.m * problem.total)
    return (
        point.objective,
        expand(groups, within, point.U, point.sigma, point.Vt),
        (offset - offset.mean())[groups.of_class] if bias else None,
    )


def _start(groups: Groups, problem: _GroupProblem) -> tuple[FloatArray, FloatArray]:
    m, sizes, G, K = problem.m, groups.sizes, problem.G, problem.m.sum()
    if problem.few:
        # The gap of equal classes among others as likely, or, below the threshold of collapse and
        # with a bias, as frequent.
        share = np.minimum(sizes, problem.limit) if problem.bias else np.ones(G)
        t = problem.mu * problem.total / np.sqrt(sizes)
        gap = np.log1p((m @ share) / share * np.maximum(1 - t, 0.0) / t)
        one = np.sqrt(m / K)
        E = np.diag(gap * np.sqrt(sizes))
        E += np.outer(np.log(share) * np.sqrt(m), problem.v * np.sqrt(problem.total))
        return E - np.outer(one, one @ E), gap * np.sqrt(sizes) * problem.copies
    # Classes above the threshold and below it are smooth in their sizes each.
    split = int(np.searchsorted(sizes, problem.limit, side="right"))
    parts = [part for part in (np.arange(split), np.arange(split, G)) if part.size]
    bins, nodes, first = np.zeros(G, np.int64), [], 0
    for part in parts:
        # Two at least, which show their own logit, and narrow at the ends, as Chebyshev's nodes.
        pairs = max(part.size // 2, 1)
        pair = np.minimum(np.arange(part.size) // 2, pairs - 1)
        angle = np.arccos(1 - (2 * pair + 1) / pairs)
        count = min(pairs, _COARSE)
        _, bins[part] = np.unique(np.floor(angle * count / np.pi), return_inverse=True)
        bins[part] += first
        nodes.append(np.arange(first, bins[part[-1]] + 1))
        first = bins[part[-1]] + 1
    merged_m = np.bincount(bins, weights=m)
    merged_sizes = np.bincount(bins, weights=m * sizes) / merged_m
    merged = Groups(merged_sizes, merged_m.astype(np.int64), np.zeros(0, np.int64))
    coarse = _GroupProblem(merged, problem.mu, problem.bias, problem.total)
    point = _solve(coarse, _start(merged, coarse))
    c, a = coarse.logits(point.E, point.within)

    def spread(values: FloatArray) -> FloatArray:
        pieces = []
        for part, at in zip(parts, nodes, strict=True):
            if at.size == 1:
                pieces.append(np.repeat(values[at], part.size, axis=0))
            else:
                known = np.log(merged_sizes[at])
                where = np.log(sizes[part])
                pieces.append(CubicSpline(known, values[at])(where))
        return np.concatenate(pieces)

    own = np.maximum(spread(c), 0.0)
    logits = spread(spread(a).T).T
    logits[problem.diagonal] += own / m
    E, one = logits / problem.to_logits, np.sqrt(m / K)
    return E - np.outer(one, one @ E), own * np.sqrt(sizes) * problem.copies


class _GroupProblem:
    """The group-invariant problem in E, which is B plus the bias, and ``within``, the ``s_h`` times
    the root of ``m_h - 1``."""

    def __init__(self, groups: Groups, mu: float, bias: bool, total: float) -> None:
        m, sizes = groups.multiplicities.astype(np.float64), groups.sizes
        self.few = sizes.size <= 2 * _COARSE
        self.limit = max((mu * total) ** 2, 1e-200)
        self.G, self.mu, self.bias, self.total, self.m = sizes.size, mu, bias, total, m
        self.weight = m * sizes / total
        self.v = np.sqrt(self.weight)
        self.to_logits = 1 / np.sqrt(np.outer(m, m * sizes))
        self.copies = np.sqrt(np.maximum(m - 1, 1.0))
        self.active = (m > 1).astype(np.float64)
        self.to_own = self.active / (self.copies * np.sqrt(sizes))
        self.diagonal = np.diag_indices(self.G)

    def logits(self, E: FloatArray, within: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return c and a."""
        c, a = within * self.to_own, E * self.to_logits
        a[self.diagonal] -= c / self.m
        return c, a

    def loss(
        self, E: FloatArray, within: FloatArray
    ) -> tuple[float, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return the loss, its gradients over mu, and the probabilities of the other classes of
        each group (G, G) and of the own class (G,)."""
        c, a = self.logits(E, within)
        own = a[self.diagonal] + c
        top = np.maximum(a.max(axis=0), own)
        p = np.exp(a - top) * self.m[:, None]
        p[self.diagonal] *= (self.m - 1) / self.m
        own_p = np.exp(own - top)
        others = p.sum(axis=0)
        norm = others + own_p
        # As they stand, small losses keep their digits.
        losses = np.where(own < top, np.log(norm) + top - own, np.log1p(others))
        p, own_p = p / norm, own_p / norm
        share = self.weight / self.mu
        slope, slope_within = self.pull(share * p, -share * (others / norm))
        value = float(self.weight @ losses)
        return value, slope, slope_within, p, own_p

    def pull(self, others: Any, own: Any) -> tuple[Any, Any]:
        """Return derivatives in E and within, given those in the logits."""
        others[self.diagonal] += own
        own = (own - others[self.diagonal] / self.m) * self.to_own
        return others * self.to_logits, own

    def penalised(self, E: FloatArray) -> FloatArray:
        """Return B."""
        return E - np.outer(E @ self.v, self.v) if self.bias else E


@dataclass(frozen=True)
class _Point:
    """A point by the singular values of its B, with its gradients over mu and the values g of Y."""

    E: FloatArray
    within: FloatArray
    U: FloatArray
    sigma: FloatArray
    g: FloatArray
    Vt: FloatArray
    g_within: FloatArray
    objective: float
    slope: FloatArray
    slope_within: FloatArray
    p: FloatArray
    own_p: FloatArray


def _shrink(
    problem: _GroupProblem, Z: FloatArray, offset: FloatArray, z: FloatArray, t: float
) -> _Point:
    """Return the point with ``B + t Y = Z``, ``within + t y = z``, and this coefficient of v."""
    U, values, Vt = np.linalg.svd(Z)
    sigma, g = np.maximum(values - t, 0.0), np.minimum(values / t, 1.0)
    E = (U * sigma) @ Vt
    if problem.bias:
        E += np.outer(offset, problem.v)
    limit = t * problem.copies
    within = np.maximum(z - limit, 0.0) * problem.active
    value, slope, slope_within, p, own_p = problem.loss(E, within)
    value += problem.mu * float(sigma.sum() + within @ problem.copies)
    g_within = np.minimum(z, limit) / t * problem.active
    return _Point(E, within, U, sigma, g, Vt, g_within, value, slope, slope_within, p, own_p)


def _solve(
    problem: _GroupProblem,
    start: tuple[FloatArray, FloatArray],
    stops: Callable[..., bool] = lambda *fields: False,
) -> _Point:
    """Return the point where the residual is below its bound, or the last one."""
    E, within = start
    left, values, right = np.linalg.svd(problem.penalised(E))
    # Rounding may be all there is.
    unit = problem.mu * problem.total
    t = min(max(float(values.mean()), 1e-3 * unit), 10 * unit)
    # Those next to zero start there.
    Z = (left * (values + t * np.minimum(values / (1e-3 * t), 1.0))) @ right
    point = _shrink(problem, Z, E @ problem.v, within + t * problem.copies, t)
    # After a good start the gradient tells better which of them vanish.
    Z = problem.penalised(E - t * point.slope)
    other = _shrink(problem, Z, E @ problem.v, within - t * point.slope_within, t)
    point = min(point, other, key=lambda point: point.objective)
    # Short steps ask for the damping of Levenberg and Marquardt.
    damping = 0.0
    for iteration in range(1, _ITERATIONS + 1):
        Y = (point.U * point.g) @ point.Vt
        rest, rest_within = point.slope + Y, point.slope_within + point.g_within
        square = float(np.sum(rest**2) + np.sum(rest_within**2))
        if square <= _RESIDUAL[not problem.few] ** 2 * problem.G:
            break
        if stops(iteration, point.objective, float(np.sqrt(square / problem.G))):
            break
        step = _NewtonStep(problem, point, t, damping)
        D, d = step.solve(rest, rest_within)
        image, image_within = step.loss_curvature(D, d)
        moved = -problem.penalised(point.slope + image) - Y
        moved_within = -(point.slope_within + image_within) - point.g_within
        B, offset, size = problem.penalised(point.E), point.E @ problem.v, 1.0
        while True:
            trial = _shrink(
                problem,
                B + t * Y + size * (problem.penalised(D) + t * moved),
                offset + size * (D @ problem.v),
                point.within + t * point.g_within + size * (d + t * moved_within),
                t,
            )
            # Near the end the decrease is below the rounding of the value.
            if trial.objective <= point.objective + 1e-13 * abs(point.objective):
                break
            size /= 2
            if size < 1e-3:
                # The curvature of the loss is at most 1 / (2 mu N): a gradient step descends.
                safe = 2 * problem.mu * problem.total
                trial = _shrink(
                    problem,
                    B - safe * problem.penalised(point.slope),
                    offset - safe * (point.slope @ problem.v),
                    point.within - safe * point.slope_within,
                    safe,
                )
                break
        if size < 1e-3 and not trial.objective < point.objective:
            break
        if size < 0.1:
            damping = max(4 * damping, 0.01 / t)
        else:
            damping = damping / 8 if damping > 1e-5 / t else 0.0
        point = trial
    return point


class _NewtonStep:
    """The equation of a step, in units of mu: in single precision where there are many groups."""

    def __init__(
        self, problem: _GroupProblem, point: _Point, t: float, damping: float = 0.0
    ) -> None:
        self.problem, self.damping = problem, damping
        low: Any = np.float64 if problem.few else np.float32
        self.low = low
        U, V, sigma, g = point.U, point.Vt.T, point.sigma, point.g
        self.U, self.V, self.v = U.astype(low), V.astype(low), problem.v.astype(low)
        self.p, self.own_p = point.p.astype(low), point.own_p.astype(low)
        self.m, self.to_own = problem.m.astype(low), problem.to_own.astype(low)
        self.to_logits = problem.to_logits.astype(low)
        self.share = (problem.weight / problem.mu).astype(low)
        self.alive, self.alive_within = sigma > 0, (point.within > 0).astype(low)
        straight, crossed = _penalty_curvature(sigma, g, 0.0)
        self.straight, self.crossed = straight.astype(low), crossed.astype(low)
        self._precondition(point, t)

    def _precondition(self, point: _Point, t: float) -> None:
        problem, low, diagonal = self.problem, self.low, self.problem.diagonal
        V = point.Vt.T
        p, own, share = point.p, point.own_p, problem.weight / problem.mu
        mass = p.copy()
        mass[diagonal] = 0.0
        rest = 1 - mass
        rest[diagonal] = mass.sum(axis=0)  # not as the difference to one, which loses small ones
        mass[diagonal] = p[diagonal] + own
        curvature = mass * rest * share * problem.to_logits**2
        # Own logits that leave those of the other classes of the group behind.
        inside, mean = p[diagonal] / problem.m**2, own * (1 - 1 / problem.m)
        spread = mean * (1 - 1 / problem.m) + inside - (mean - p[diagonal] / problem.m) ** 2
        scale = share * spread * problem.to_own**2 + self.damping
        self.inverse_within = np.divide(1, scale, where=scale > 0, out=np.zeros_like(scale))
        self.inverse_within = self.inverse_within.astype(low)
        # Singular values as each group sees them.
        sigma, g = (V**2) @ point.sigma, (V**2) @ point.g
        straight, crossed = _penalty_curvature(sigma, g, 1e-3 * t)
        straight[diagonal] += crossed[diagonal]
        crossed[diagonal] = 0.0
        straight += curvature + self.damping
        square = straight * straight.T
        determinant = np.maximum(square - crossed**2, 1e-14 * square)
        self.inverse_straight = (straight.T / determinant).astype(low)
        self.inverse_crossed = (-crossed / determinant).astype(low)
        # Multiples of v: the bias, or without one the direction that dead classes share.
        scaled = mass / np.sqrt(problem.m)[:, None]
        weight = problem.weight**2 / problem.mu * problem.to_logits[0] ** 2 * problem.m[0]
        S = np.diag(mass @ weight / problem.m) - (scaled * weight) @ scaled.T
        if not problem.bias:
            share_of = V.T @ problem.v
            within = np.diag(self.straight.astype(float) @ share_of**2)
            within += share_of[:, None] * self.crossed * share_of
            S += point.U @ within @ point.U.T
        one = np.sqrt(problem.m / problem.m.sum())
        unit = np.trace(S) / problem.G
        S += self.damping * np.eye(problem.G) + unit * (
            1e-6 * np.eye(problem.G) + np.outer(one, one)
        )
        self.inverse_along = np.linalg.inv(S).astype(low)
        self.one = one.astype(low)

    def tangent(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return the part in which the singular values that vanish stay zero, and that along v."""
        along = X @ self.v if self.problem.bias else None
        if along is not None:
            X = X - np.outer(along, self.v)
        if 2 * np.count_nonzero(self.alive) > self.alive.size:
            left, right = self.U[:, ~self.alive], self.V[:, ~self.alive]
            X = X - left @ ((left.T @ X) @ right) @ right.T
        else:
            left, right = self.U[:, self.alive], self.V[:, self.alive]
            inside = left @ (left.T @ X)
            X = inside + ((X - inside) @ right) @ right.T
        return X if along is None else X + np.outer(along, self.v)

    def loss_curvature(self, D: NDArray[Any], d: NDArray[Any]) -> tuple[Any, Any]:
        """Return the product of the Hessian of the loss with a direction."""
        diagonal = self.problem.diagonal
        moved, dc = D * self.to_logits, d * self.to_own
        moved[diagonal] -= dc / self.m
        own = moved[diagonal] + dc
        moved *= self.p
        mean = moved.sum(axis=0) + self.own_p * own
        moved -= self.p * mean
        moved *= self.share
        own = self.share * self.own_p * (own - mean)
        moved[diagonal] += own
        own = (own - moved[diagonal] / self.m) * self.to_own
        moved *= self.to_logits
        return moved, own

    def product(self, D: NDArray[Any], d: NDArray[Any]) -> tuple[Any, Any]:
        image, image_within = self.loss_curvature(D, d)
        B = D - np.outer(D @ self.v, self.v) if self.problem.bias else D
        image += self.low(self.damping) * D
        image_within = (image_within + self.low(self.damping) * d) * self.alive_within
        return self.tangent(image) + self.bend(B), image_within

    def bend(self, B: NDArray[Any]) -> Any:
        """Return the product of the curvature of the nuclear norm with a direction."""
        U, V, alive = self.U, self.V, self.alive
        if 3 * np.count_nonzero(alive) > alive.size:
            X = U.T @ B @ V
            return U @ (self.straight * X + self.crossed * X.T) @ V.T
        # Pairs that both vanish have none: rows and columns of the others are all there is.
        left, right, straight, crossed = U[:, alive], V[:, alive], self.straight, self.crossed
        rows, columns = left.T @ B @ V, U.T @ (B @ right)
        across = straight[alive] * rows + crossed[alive] * columns.T
        down = straight[:, alive] * columns + crossed[:, alive] * rows.T
        down[alive] = 0.0  # is in the rows
        return left @ (across @ V.T) + (U @ down) @ right.T

    def preconditioned(self, R: NDArray[Any], r: NDArray[Any]) -> tuple[Any, Any]:
        D = self.inverse_straight * R + self.inverse_crossed * R.T
        along = np.outer(self.inverse_along @ (R @ self.v), self.v)
        D = self.tangent(D) + along if self.problem.bias else self.tangent(D + along)
        return D - np.outer(self.one, self.one @ D), r * self.inverse_within * self.alive_within

    def solve(self, rest: FloatArray, rest_within: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the step, to a tenth of the residual, for these optimality conditions."""
        R, r = self.tangent(-rest.astype(self.low)), -rest_within.astype(self.low)
        r = r * self.alive_within
        unit = max(np.abs(R).max(), np.abs(r).max()) or self.low(1.0)  # none, if all vanish
        R, r = R / unit, r / unit
        P, q = self.preconditioned(R, r)
        D, d = np.zeros_like(R), np.zeros_like(r)
        Z, z = P, q
        size = first = float(np.sum(R * Z) + r @ z)
        for _ in range(_CONJUGATE_STEPS[not self.problem.few]):
            image, image_within = self.product(P, q)
            curvature = float(np.sum(P * image) + q @ image_within)
            if size <= 1e-4 * first or curvature <= 0:
                break
            length = self.low(size / curvature)
            D, d = D + length * P, d + length * q
            R, r = R - length * image, r - length * image_within
            Z, z = self.preconditioned(R, r)
            size, last = float(np.sum(R * Z) + r @ z), size
            P, q = Z + self.low(size / last) * P, z + self.low(size / last) * q
        return (D * unit).astype(np.float64), (d * unit).astype(np.float64)


def _penalty_curvature(
    sigma: FloatArray, g: FloatArray, floor: float
) -> tuple[FloatArray, FloatArray]:
    """Return the coefficients of X and of its transpose in the curvature of the nuclear norm; zero
    where both singular values are."""
    total = sigma[:, None] + sigma + floor
    total = np.where(total > 0, total, np.inf)
    return 1 / total, (1 - g[:, None] - g) / total
