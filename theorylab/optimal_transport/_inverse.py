"""The penalised inverse problem in units of its own (eps = 1): couplings with two fixed marginals,
clouds or Gaussians, and proximal Newton steps with a bound of the distance from the minimum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from scipy import sparse

from theorylab._validation import FloatArray, as_count, as_real
from theorylab.numerics.compiled import compiled
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.optimal_transport.sinkhorn import soft_minimum

__all__ = ["Clouds", "Gaussians", "InverseCost", "InverseStatus", "minimise", "plan_hessian"]

_UNIT = float(np.finfo(np.float64).eps)
_TINY = float(np.finfo(np.float64).tiny)
_NONE = np.zeros(0)
_SWEEPS = 20  # of coordinate descent between two guesses of the support
_ROUNDS = 100
_HALVINGS = 40
_ENTRIES = 10_000  # of the cost matrix, the square of which a Hessian has
_LARGEST = 10**8  # numbers of an array on the way to it


class InverseStatus(StrEnum):
    """How the solver ended."""

    CONVERGED = "the relative gap is below the tolerance"
    ROUNDING = "rounding ended the descent above the tolerance: lam is small for float64"
    NOT_CONVERGED = "the iterations ended above the tolerance: raise max_iter"
    STOPPED = "stopped by the callback, with the bound that was proved by then"


@result
class InverseCost:
    """A cost matrix with a bound of its distance from the minimum.

    Attributes
    ----------
    matrix
        (p, q), the A of the gains x' A y; its zeros are exact.
    moments
        (p, q), E[x y'] under the entropic coupling of ``matrix``, about the means.
    value, lower
        Objective at ``matrix``, and a bound that no matrix passes.
    gap
        value - lower over the size of the objective's terms; 0 where rounding explains it.
    kkt_residual
        Largest violation of the optimality conditions in ``moments``, over lam.
    n_iterations
        Newton steps.
    status
        How the solver ended.
    """

    matrix: FloatArray
    moments: FloatArray
    value: float
    lower: float
    gap: float
    kkt_residual: float
    n_iterations: int
    status: InverseStatus

    def __repr__(self) -> str:
        p, q = self.matrix.shape
        return (
            f"<InverseCost {p}x{q}, {np.count_nonzero(self.matrix)} entries, "
            f"value {self.value:.6g}, gap {self.gap:.1e}, {self.status.name.lower()}>"
        )


class _Point(NamedTuple):
    """W at a matrix: a bound of it from above, E[x y'], its Hessian on demand; of clouds the plan
    and the potential of y."""

    value: float
    moments: FloatArray
    hessian: Callable[[], FloatArray]
    plan: FloatArray = _NONE
    potential: FloatArray = _NONE


class _Couplings(Protocol):
    """The couplings of two fixed marginals, one of them observed."""

    @property
    def target(self) -> FloatArray: ...

    def at(self, B: FloatArray, start: _Point | None = None) -> _Point: ...

    def bound(self, point: _Point, lam: float) -> float: ...


class Clouds:
    """The couplings of two weighted clouds."""

    def __init__(self, P: FloatArray, a: FloatArray, b: FloatArray, X: FloatArray, Y: FloatArray):
        self.P, self.a, self.b, self.X, self.Y = P, a, b, X, Y
        self.target = X.T @ P @ Y
        self.entropies = float(a @ np.log(a) + b @ np.log(b))

    def at(self, B: FloatArray, start: _Point | None = None) -> _Point:
        C = -(self.X @ B @ self.Y.T)
        P, value, g = self.plan(C, self.b * 0 if start is None else start.potential)
        moments = self.X.T @ P @ self.Y
        return _Point(
            self.entropies - value, moments, lambda: plan_hessian(P, self.X, self.Y), P, g
        )

    def plan(self, C: FloatArray, g: FloatArray) -> tuple[FloatArray, float, FloatArray]:
        """Newton steps on the dual as a function of g, f being exact: plan, dual value, g."""
        (P, value), size = self.ascent(C, g), 1 + float(abs(C).max())
        for _ in range(_ROUNDS):
            gradient = self.b - P.sum(axis=0)
            error = abs(gradient).sum()
            if error <= 16 * _UNIT * size:
                break
            curvature = np.diag(P.sum(axis=0)) - P.T @ (P / self.a[:, None])
            curvature[np.diag_indices_from(curvature)] += _UNIT * self.b.max()
            direction = np.linalg.solve(curvature + np.outer(self.b, self.b), gradient)
            step, slope = 1.0, float(gradient @ direction)
            Q, better = self.ascent(C, g + direction)
            if slope > 1e-12 * size:
                while better < value + 1e-4 * step * slope and step > 1e-9:
                    step /= 2
                    Q, better = self.ascent(C, g + step * direction)
            elif abs(self.b - Q.sum(axis=0)).sum() >= error:
                break  # rounding hides the ascent, and the marginals are as good as they get
            P, value, g = Q, better, g + step * direction
        return P, value, g

    def ascent(self, C: FloatArray, g: FloatArray) -> tuple[FloatArray, float]:
        """The plan of exact row sums for g, and its dual value."""
        f = soft_minimum(C.T, g, 1.0, self.a)
        return np.exp(f[:, None] + g - C), float(self.a @ f + self.b @ g)

    def bound(self, point: _Point, lam: float) -> float:
        Q = point.plan * np.minimum(1, self.b / np.maximum(point.plan.sum(axis=0), _TINY))
        lacking = np.maximum(self.a - Q.sum(axis=1), 0), np.maximum(self.b - Q.sum(axis=0), 0)
        if lacking[0].any() and lacking[1].any():
            Q += np.outer(lacking[0], lacking[1] / lacking[1].sum())
        share = _share(self.X.T @ Q @ self.Y - self.target, lam)
        Q = (1 - share) * Q + share * self.P
        mass = Q[Q > 0]
        return self.entropies - float(mass @ np.log(mass))


class Gaussians:
    """The couplings of N(0, L L') and N(0, M M') for triangular roots."""

    def __init__(self, target: FloatArray, L: FloatArray, M: FloatArray):
        self.target, self.L, self.M = target, L, M

    def white(self, S: FloatArray) -> FloatArray:
        whitened: FloatArray = np.linalg.solve(self.M, np.linalg.solve(self.L, S).T).T
        return whitened

    def at(self, B: FloatArray, start: _Point | None = None) -> _Point:
        U, s, Vt = np.linalg.svd(self.L.T @ B @ self.M)
        k = s.size
        g = (1 + np.hypot(1, 2 * s)) / 2
        r = s / g
        left, right = self.L @ U, self.M @ Vt.T
        # 1 - r^2 = 1 / g, and g = 1 + s r: no digits are lost where s is small.
        return _Point(
            float(np.sum(s * r - np.log1p(s * r) / 2)),
            (left[:, :k] * r) @ right[:, :k].T,
            lambda: _gaussian_hessian(g, r, left, right),
        )

    def bound(self, point: _Point, lam: float) -> float:
        share = _share(point.moments - self.target, lam)
        mixed = (1 - share) * point.moments + share * self.target
        r = np.linalg.svd(self.white(mixed), compute_uv=False)
        return float(np.sum(np.log1p(-r * r)) / 2) if r[0] < 1 else -np.inf


def _gaussian_hessian(
    g: FloatArray, r: FloatArray, left: FloatArray, right: FloatArray
) -> FloatArray:
    """The last formula of the module docstring, in the basis of A."""
    p, q, k = len(left), len(right), r.size
    _check_entries("cov_x, cov_y", p, q)
    gp, gq = np.ones(p), np.ones(q)
    gp[:k], gq[:k] = g, g
    weights = 1 / (gp[:, None] + gq - 1)
    i, j = (index.ravel() for index in np.indices((k, k)))
    turned = sparse.csr_array(
        (weights[i, j] * r[i] * r[j], (i * q + j, j * q + i)), shape=(p * q, p * q)
    )
    inner = sparse.diags_array(weights.ravel()) - turned
    basis = (left[:, None, :, None] * right[None, :, None]).reshape(p * q, p * q)
    H: FloatArray = np.asarray(basis @ (inner @ basis.T))
    return (H + H.T) / 2


def plan_hessian(P: FloatArray, X: FloatArray, Y: FloatArray) -> FloatArray:
    """Covariance of x y' under P less its projection on functions of x plus functions of y."""
    (n, p), (m, q) = X.shape, Y.shape
    _check_entries("X, Y", p, q)
    size = max(n * p * max(p, q), m * q * max(p, q))
    if size > _LARGEST:
        raise ValueError(
            f"X, Y: expected at most {_LARGEST:.0e} products of two coordinates of a point, got "
            f"{size:.1e} for {n} points in dimension {p} and {m} in dimension {q}"
        )
    a, b = P.sum(axis=1), P.sum(axis=0)
    X, Y = X - a @ X, Y - b @ Y
    XX = np.einsum("ni,nk->nik", X, X).reshape(n, -1)
    YY = np.einsum("mj,ml->mjl", Y, Y).reshape(m, -1)
    second = (XX.T @ P @ YY).reshape(p, p, q, q).transpose(0, 2, 1, 3).reshape(p * q, p * q)
    rows = np.einsum("ni,nj->nij", X, P @ Y).reshape(n, -1)
    columns = np.einsum("mi,mj->mij", P.T @ X, Y).reshape(m, -1)
    # f + g is least squares for x y': f = (rows - P g) / a, and g solves the Schur complement, in
    # which 1 is in the kernel.
    complement = np.diag(b) - P.T @ (P / a[:, None]) + np.outer(b, b)
    g = np.linalg.solve(complement, columns - P.T @ (rows / a[:, None]))
    f = (rows - P @ g) / a[:, None]
    H: FloatArray = second - rows.T @ f - columns.T @ g
    return (H + H.T) / 2


def _check_entries(names: str, p: int, q: int) -> None:
    if p * q > _ENTRIES:
        raise ValueError(
            f"{names}: expected a cost matrix of at most {_ENTRIES} entries, of which the Hessian "
            f"has the square, got {p} x {q}"
        )


def _share(difference: FloatArray, lam: float) -> float:
    """How much of the observed coupling brings the moments within lam of its own."""
    size = float(np.abs(difference).max())
    return max(0.0, 1 - lam / size) if size > 0 else 0.0


def minimise(
    couplings: _Couplings,
    lam: float,
    eps: float,
    u: float,
    v: float,
    tol: float,
    max_iter: int,
    callback: Callback | None,
) -> InverseCost:
    """Proximal Newton steps in A u v / eps, with the penalty lam / (u v)."""
    lam = as_real(lam, "lam", above=0.0) / u / v
    eps = as_real(eps, "eps", above=0.0)
    tol = as_real(tol, "tol", minimum=0.0)
    max_iter = as_count(max_iter, "max_iter")
    T = couplings.target
    B = np.zeros_like(T)
    point, lower, steps, stuck = couplings.at(B), -np.inf, 0, False
    stops, told = watcher(callback), False
    while True:
        value, size = _objective(point, B, T, lam)
        lower = max(lower, couplings.bound(point, lam))
        difference = value - lower
        # At a zero matrix the terms vanish: the bound is then the scale.
        gap = 0.0 if difference <= 64 * _UNIT * size else difference / max(size, difference)
        told = stops(steps, eps * value, gap)
        if told or gap <= tol or stuck or steps == max_iter:
            break
        steps += 1
        gradient, H = point.moments - T, point.hessian()
        # Semi-definite up to rounding: a ridge of that size keeps coordinates bounded.
        H[np.diag_indices_from(H)] += 8 * _UNIT * H.shape[0] * np.abs(H).max()
        D = _quadratic(H, gradient.ravel(), B.ravel(), lam).reshape(B.shape) - B
        fall = float(np.sum(gradient * D)) + lam * float(np.sum(np.abs(B + D) - np.abs(B)))
        step, stuck = 1.0, True
        for _ in range(_HALVINGS):
            trial = couplings.at(B + step * D, point)
            risen = _objective(trial, B + step * D, T, lam)[0] - value
            if risen <= 1e-4 * step * fall or (step == 1 and abs(risen) <= 4 * _UNIT * size):
                B, point, stuck = B + step * D, trial, fall == 0
                break
            step /= 2
    status = InverseStatus.CONVERGED
    if told or gap > tol:
        status = InverseStatus.ROUNDING if stuck else InverseStatus.NOT_CONVERGED
        status = InverseStatus.STOPPED if told else status
        warnings.warn(f"gap {gap:.1e} after {steps} steps: {status}", RuntimeWarning, stacklevel=4)
    slack = point.moments - T
    violation = np.where(B != 0, np.abs(slack + lam * np.sign(B)), np.abs(slack) - lam)
    arrays = (B * (eps / u / v), point.moments * (u * v))
    for array in arrays:
        array.flags.writeable = False
    residual = max(float(violation.max()), 0.0) / lam
    return InverseCost(*arrays, eps * value, eps * lower, gap, residual, steps, status)


def _objective(point: _Point, B: FloatArray, T: FloatArray, lam: float) -> tuple[float, float]:
    """The objective, and the size of its terms."""
    linear, penalty = float(np.sum(B * T)), lam * float(np.abs(B).sum())
    return point.value - linear + penalty, abs(point.value) + abs(linear) + penalty


def _quadratic(H: FloatArray, gradient: FloatArray, z: FloatArray, lam: float) -> FloatArray:
    """Minimise gradient' (w - z) + (w - z)' H (w - z) / 2 + lam |w|_1: by coordinates until the
    signs are right, then exactly."""
    w: FloatArray = z
    for _ in range(_ROUNDS):
        w = _sweep(H, gradient, z, w, lam, _SWEEPS)
        on, exact = w != 0, np.zeros_like(w)
        part = np.ix_(on, on)
        right = H[on] @ z - gradient[on] - lam * np.sign(w[on])
        exact[on] = np.linalg.solve(H[part], right)
        slope = gradient + H @ (exact - z)
        if (np.sign(exact) == np.sign(w)).all() and (abs(slope[~on]) <= lam).all():
            return exact
    return w


@compiled
def _sweep(
    H: FloatArray, gradient: FloatArray, z: FloatArray, w: FloatArray, lam: float, sweeps: int
) -> FloatArray:
    w, slope = w.copy(), gradient + H @ (w - z)
    for _ in range(sweeps):
        for k in range(w.size):
            free = H[k, k] * w[k] - slope[k]
            new = np.sign(free) * max(abs(free) - lam, 0.0) / H[k, k]
            if new != w[k]:
                slope += (new - w[k]) * H[k]
                w[k] = new
    return w
