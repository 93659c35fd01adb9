r"""The robust convex program: its dual, solved as a conic program, and the repair of what the
solver returns.

See ``robust_training`` for the program. Its dual is a game against weighted perturbed data:
maximise $\sum_ka_k$ over $0\le a_k\le1,\ \|\eta_k\|_p\le\epsilon a_k$ such that
$h_b=\sigma_b\sum_kd_{bk}(y_ka_kx_k+\eta_k)$ satisfies $h_b^\top v\le\beta\|v\|_2$ on
the cone of every block (squared loss: $\sum_k(c_ky_k-\frac12a_k^2)$, $|c_k|\le a_k$,
with $c_k$ for $y_ka_k$). Multipliers $\lambda\ge0,\
\|\zeta\|_p\le\epsilon\sum_k\lambda_k$ prove it:
$\|h_b+\sum_k\lambda_ks_kx_k-\zeta\|_2\le\beta$."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.convex_relu._attacks import robust_losses
from theorylab.convex_relu._conic import cvxpy, solve
from theorylab.convex_relu._stability import dual_norms
from theorylab.convex_relu.losses import Hinge, Loss

BoolArray = NDArray[np.bool_]

_TOL = 1e-11


def dual_solver(
    data: FloatArray, y: FloatArray, beta: float, loss: Loss, ball: str, patterns: BoolArray, d: int
) -> Callable[[float, Callable[..., bool]], tuple[float, FloatArray, FloatArray, FloatArray, bool]]:
    """Set up the dual; return a function of the radius that solves it, until it is told to stop.

    It returns a lower bound, the weights and moves of the adversary that attain it, blocks, shape
    (2P, D), the multipliers of the dual's bounds, and whether it was stopped. Where cones are thin
    the multipliers are more accurate than the solution of the program itself."""
    cp = cvxpy()

    P, n = patterns.shape
    width = data.shape[1]
    hinge = isinstance(loss, Hinge)
    p = np.inf if ball == "linf" else 2
    D = np.vstack([patterns, -1.0 * patterns])
    S = np.tile(2.0 * patterns - 1.0, (2, 1))
    embed = np.eye(d, width)
    radius = cp.Parameter(nonneg=True)
    a, eta = cp.Variable(n, nonneg=True), cp.Variable((n, d))
    c = cp.multiply(y, a) if hinge else cp.Variable(n)
    lam, zeta = cp.Variable((2 * P, n), nonneg=True), cp.Variable((2 * P, d))
    h = D @ (cp.diag(c) @ data + eta @ embed)
    bounds = cp.SOC(beta * np.ones(2 * P), h + cp.multiply(S, lam) @ data - zeta @ embed, axis=1)
    constraints = [
        cp.norm(eta, p, axis=1) <= radius * a,
        cp.norm(zeta, p, axis=1) <= radius * cp.sum(lam, axis=1),
        bounds,
        a <= 1.0 if hinge else cp.abs(c) <= a,
    ]
    value = cp.sum(a) if hinge else c @ y - 0.5 * cp.sum_squares(a)
    problem = cp.Problem(cp.Maximize(value), constraints)

    def solved(
        eps: float, stops: Callable[..., bool]
    ) -> tuple[float, FloatArray, FloatArray, FloatArray, bool]:
        radius.value = eps
        stopped = solve(problem, _TOL, stops)
        blocks = -np.asarray(bounds.dual_value[1], dtype=np.float64).reshape(2 * P, width)
        weights = np.clip(np.asarray(a.value), 0.0, 1.0 if hinge else None)
        slope = y * weights if hinge else np.clip(np.asarray(c.value), -weights, weights)
        moves = _shrink(np.asarray(eta.value), eps * weights, p)
        multipliers = np.maximum(np.asarray(lam.value), 0.0)
        corrections = _shrink(np.asarray(zeta.value), eps * multipliers.sum(axis=1), p)
        sums = (
            D @ (slope[:, None] * data + moves @ embed)
            + (S * multipliers) @ data
            - corrections @ embed
        )
        largest = float(np.linalg.norm(sums, axis=1).max())
        # Scaling everything keeps the multipliers valid.
        t = beta / largest if largest > beta else 1.0
        # An input under a negative slope moves the other way.
        moves = np.where(slope < 0.0, -1.0, 1.0)[:, None] * moves
        if hinge:
            return t * float(weights.sum()), t * weights, t * moves, blocks, stopped
        size = float(weights @ weights)
        t = min(beta / max(largest, 1e-300), float(slope @ y) / size) if size > 0.0 else 0.0
        t = max(t, 0.0)
        value = t * float(slope @ y) - 0.5 * t**2 * size
        return value, t * weights, t * moves, blocks, stopped

    return solved


def _shrink(rows: FloatArray, radii: FloatArray, p: float) -> FloatArray:
    """Scale rows into balls of the given radii."""
    lengths = np.linalg.norm(rows, ord=p, axis=1)
    factors = np.minimum(
        1.0, np.divide(radii, lengths, out=np.ones_like(lengths), where=lengths > 0.0)
    )
    result: FloatArray = factors[:, None] * rows
    return result


def least_slope(
    X: FloatArray, y: FloatArray, ball: str, patterns: BoolArray
) -> Callable[[float], float]:
    """Return the least slope of the loss over stable blocks with norms of sum 1 as a function of
    the radius."""
    cp = cvxpy()

    P, n = patterns.shape
    q = 1 if ball == "linf" else 2
    D = np.vstack([patterns, patterns]).astype(np.float64)
    gates = np.repeat([1.0, -1.0], P)[:, None] * D
    radius = cp.Parameter(nonneg=True)
    V = cp.Variable((2 * P, X.shape[1]))
    preactivations = V @ X.T
    outputs = cp.sum(cp.multiply(gates, preactivations), axis=0)
    moves = cp.norm(gates.T @ V, q, axis=1)
    lengths = cp.reshape(cp.norm(V, q, axis=1), (2 * P, 1), order="C")
    slope = -y @ outputs + radius * (np.abs(y) @ moves)
    constraints = [
        cp.multiply(2.0 * D - 1.0, preactivations) >= (radius * lengths) @ np.ones((1, n)),
        cp.sum(cp.norm(V, 2, axis=1)) <= 1.0,
    ]
    problem = cp.Problem(cp.Minimize(slope), constraints)

    def least(eps: float) -> float:
        radius.value = eps
        solve(problem, _TOL)
        return float(problem.value)

    return least


def stabilized(
    V: FloatArray, data: FloatArray, eps: float, ball: str, patterns: BoolArray, d: int
) -> FloatArray:
    """Drop blocks of the size of the solver's error and move the others into their cones, towards a
    point deep inside."""
    V = V.copy()
    lengths = np.linalg.norm(V, axis=1)
    V[lengths <= 1e-7 * max(lengths.max(), 1e-300)] = 0.0
    V[lengths <= 1e-9] = 0.0
    scale = float(np.abs(data).sum(axis=1).max())
    if eps == 0.0:  # points at the origin leave every cone as it is
        moving = np.any(data != 0.0, axis=1)
        data, patterns = data[moving], patterns[:, moving]
    used = np.flatnonzero(np.any(V != 0.0, axis=1))
    signs = np.where(patterns[used % len(patterns)], 1.0, -1.0)
    # Rounding of the cones' inequalities, as they are evaluated by whoever checks them.
    margins = 1e-14 * scale * np.linalg.norm(V[used], axis=1) if eps > 0.0 else np.zeros(len(used))
    missing = margins - _slacks(V[used], data, signs, eps, ball, d)
    outside = missing > 0.0
    if outside.any():
        used, signs, missing = used[outside], signs[outside], missing[outside]
        centres = _centres(data, signs, eps, ball, d)
        depths = _slacks(centres, data, signs, eps, ball, d)
        reached = (depths > 0.0) & (missing <= 0.1 * depths)
        V[used[~reached]] = 0.0
        V[used[reached]] += (missing[reached] / depths[reached])[:, None] * centres[reached]
    return V


def _slacks(
    V: FloatArray, data: FloatArray, signs: FloatArray, eps: float, ball: str, d: int
) -> FloatArray:
    margins = (signs * (V @ data.T)).min(axis=1, initial=np.inf)
    result: FloatArray = margins - eps * dual_norms(V[:, :d], ball)
    return result


def _centres(data: FloatArray, signs: FloatArray, eps: float, ball: str, d: int) -> FloatArray:
    """Return the points of unit size with the largest slack of each cone, all by one program: it is
    separable."""
    cp = cvxpy()

    V = cp.Variable((len(signs), data.shape[1]))
    slacks = cp.min(cp.multiply(signs, V @ data.T), axis=1) - eps * cp.norm(
        V[:, :d], 1 if ball == "linf" else 2, axis=1
    )
    problem = cp.Problem(cp.Maximize(cp.sum(slacks)), [cp.norm(V, 2, axis=1) <= 1.0])
    solve(problem, _TOL)
    return np.asarray(V.value, dtype=np.float64)


def rescaled(
    blocks: FloatArray,
    data: FloatArray,
    y: FloatArray,
    beta: float,
    eps: float,
    loss: Loss,
    ball: str,
    gates: FloatArray,
    d: int,
) -> tuple[FloatArray, float]:
    """Make good for dropped blocks by the best multiple of the others, which stays feasible (or by
    none of them, where the zero network is better); return it and its objective.

    A hinge is met exactly by the optimum and missed by the size of a dropped block, at a cost far
    above that block's."""
    outputs = np.sum(gates * (blocks @ data.T), axis=0)
    moves = eps * dual_norms(gates.T @ blocks[:, :d], ball)
    size = beta * float(np.linalg.norm(blocks, axis=1).sum())
    factors = [1.0, 0.0]
    if isinstance(loss, Hinge):
        margins = y * outputs - moves
        factors += [float(1.0 / m) for m in margins[np.abs(margins - 1.0) < 1e-3]]
    values = [
        float(robust_losses(t * outputs, t * moves, y, loss).sum()) + t * size for t in factors
    ]
    best = int(np.argmin(values))
    return factors[best] * blocks, values[best]
