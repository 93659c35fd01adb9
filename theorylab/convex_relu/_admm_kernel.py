r"""The kernel of ADMM, reduced to n rows, and its derivative.

Since $S_i^2=I$, all diagonal blocks of $I+G^\top G$ are $K=I+X^\top X$, and what is left to factor
is $\rho I_n+2(XK^{-1}X^\top)\circ\sum_i d_id_i^\top$: n rows whatever the number of patterns. An
iteration costs $O(Pnd)$, linear in the number of variables.

In $q=(u+\lambda,\,Gu+\nu)$ the iteration is one firmly non-expansive map T
(Douglas-Rachford), so that $\|q^{k+1}-q^k\|$ never increases. T is smooth off the kinks
$\|q_b\|=\beta/\rho$, $q_{bk}=0$."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_patterns
from theorylab.convex_relu._elementary import row_norms
from theorylab.numerics.compiled import compiled

if TYPE_CHECKING:
    from theorylab.convex_relu.admm import ADMMResult

BoolArray = NDArray[np.bool_]

_MAX_JACOBIAN = 4000


def least_squares(X: FloatArray, patterns: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return K^{-1} and A (I + G'G)^{-1} A'."""
    inverse = np.asarray(np.linalg.inv(np.eye(X.shape[1]) + X.T @ X), dtype=np.float64)
    D = patterns.astype(np.float64)
    return inverse, 2.0 * (X @ inverse @ X.T) * (D.T @ D)


@compiled(meanwhile=_meanwhile_patterns.iterate)
def iterate(
    X: FloatArray,
    D: FloatArray,
    inverse: FloatArray,
    system: FloatArray,
    fixed: FloatArray,
    threshold: float,
    rho: float,
    cones: bool,
    floor: float,
    q1: FloatArray,
    q2: FloatArray,
    v: FloatArray,
    residuals: FloatArray,
) -> int:
    """Apply T as often as there are residuals to write; return the last iteration (from 1) that
    changed the piece, or 0."""
    P, n = D.shape
    d = X.shape[1]
    T = np.empty((2 * P, n))
    rhs = np.empty((2 * P, d))
    H = np.empty((2 * P, d))
    HX = np.empty((2 * P, n))
    gathered = np.empty(n)
    E = np.empty((P, n))
    w = np.empty(n)
    shift = np.empty((P, d))
    XK = X @ inverse
    Xt = np.ascontiguousarray(X.T)
    active = np.empty(2 * P, dtype=np.bool_)
    open_ = np.empty((2 * P, n), dtype=np.bool_)
    _piece(q1, q2, threshold, active, open_)
    last = 0
    for k in range(residuals.size):
        _targets(q1, q2, D, threshold, cones, v, T)
        np.dot(T, X, rhs)
        _right_side(q1, v, fixed, rho, rhs)
        np.dot(rhs, inverse, H)
        np.dot(H, Xt, HX)
        _gather(D, HX, gathered)
        np.dot(system, gathered, w)
        _spread(D, w, E)
        np.dot(E, XK, shift)
        for b in range(P):
            for a in range(d):
                H[b, a] -= shift[b, a]
                H[b + P, a] += shift[b, a]
        np.dot(H, Xt, HX)
        total, changed = _step(H, HX, D, v, threshold, cones, q1, q2, active, open_)
        residuals[k] = np.sqrt(total)
        if changed and residuals[k] > floor:
            last = k + 1
    return last


@compiled
def _piece(
    q1: FloatArray, q2: FloatArray, threshold: float, active: BoolArray, open_: BoolArray
) -> None:
    lengths = row_norms(q1)
    for b in range(q1.shape[0]):
        active[b] = lengths[b] > threshold
        for i in range(q2.shape[1]):
            open_[b, i] = q2[b, i] > 0.0


@compiled(borrows=True)
def _targets(
    q1: FloatArray,
    q2: FloatArray,
    D: FloatArray,
    threshold: float,
    cones: bool,
    v: FloatArray,
    T: FloatArray,
) -> None:
    """Write the thresholded blocks, and the reflected slacks with the signs of the patterns."""
    P, n = D.shape
    for b in range(2 * P):
        size = 0.0
        for a in range(v.shape[1]):
            size += q1[b, a] * q1[b, a]
        size = np.sqrt(size)
        shrink = 1.0 - threshold / size if size > threshold else 0.0
        for a in range(v.shape[1]):
            v[b, a] = shrink * q1[b, a]
        row = D[b] if b < P else D[b - P]
        for i in range(n):
            t = abs(q2[b, i]) if cones else q2[b, i]
            T[b, i] = t if row[i] > 0.0 else -t


@compiled(borrows=True)
def _right_side(
    q1: FloatArray, v: FloatArray, fixed: FloatArray, rho: float, rhs: FloatArray
) -> None:
    P, d = fixed.shape
    for b in range(P):
        for a in range(d):
            rhs[b, a] += 2.0 * v[b, a] - q1[b, a] + fixed[b, a] / rho
            rhs[b + P, a] += 2.0 * v[b + P, a] - q1[b + P, a] - fixed[b, a] / rho


@compiled(borrows=True)
def _gather(D: FloatArray, HX: FloatArray, gathered: FloatArray) -> None:
    P, n = D.shape
    for i in range(n):
        gathered[i] = 0.0
    for b in range(P):
        for i in range(n):
            if D[b, i] > 0.0:
                gathered[i] += HX[b, i] - HX[b + P, i]


@compiled(borrows=True)
def _spread(D: FloatArray, w: FloatArray, E: FloatArray) -> None:
    for b in range(D.shape[0]):
        for i in range(D.shape[1]):
            E[b, i] = D[b, i] * w[i]


@compiled(borrows=True)
def _step(
    H: FloatArray,
    HX: FloatArray,
    D: FloatArray,
    v: FloatArray,
    threshold: float,
    cones: bool,
    q1: FloatArray,
    q2: FloatArray,
    active: BoolArray,
    open_: BoolArray,
) -> tuple[float, bool]:
    """Move q to its image; return the squared length of the step, and whether the piece changed."""
    P, n = D.shape
    total = 0.0
    changed = False
    for b in range(2 * P):
        size = 0.0
        for a in range(v.shape[1]):
            step = H[b, a] - v[b, a]
            q1[b, a] += step
            total += step * step
            size += q1[b, a] * q1[b, a]
        state = np.sqrt(size) > threshold
        changed = changed or state != active[b]
        active[b] = state
        row = D[b] if b < P else D[b - P]
        for i in range(n):
            s = q2[b, i]
            if cones and s < 0.0:
                s = 0.0
            step = (HX[b, i] if row[i] > 0.0 else -HX[b, i]) - s
            q2[b, i] += step
            total += step * step
            state = q2[b, i] > 0.0
            changed = changed or (cones and state != open_[b, i])
            open_[b, i] = state
    return total, changed


def jacobian_at(result: ADMMResult) -> FloatArray:
    """Return T'(q), with T = q - prox + B u and u the least-squares solution at 2 prox - q."""
    X, D, rho = result.X / result.unit, result.patterns.astype(np.float64), result.penalty
    P, n = D.shape
    d = X.shape[1]
    size = 2 * P * (d + n)
    if size > _MAX_JACOBIAN:
        raise ValueError(
            f"arrangements: expected at most {_MAX_JACOBIAN} unknowns 2P(d + n) for "
            f"the rate, got {size}"
        )
    inverse, coupling = least_squares(X, result.patterns)
    beta = result.beta / result.unit / result.scale
    sign = np.repeat([1.0, -1.0], P)
    masks = np.vstack([D, D])
    B = np.zeros((2 * P, d + n, 2 * P, d))
    A = np.zeros((n, 2 * P, d))
    threshold = beta / rho
    prox = np.zeros((2 * P, d + n, 2 * P, d + n))
    for b in range(2 * P):
        B[b, :d, b] = np.eye(d)
        B[b, d:, b] = (2.0 * masks[b] - 1.0)[:, None] * X
        A[:, b] = sign[b] * masks[b][:, None] * X
        q = result.state[b, :d]
        length = float(np.linalg.norm(q))
        if length > threshold:
            prox[b, :d, b, :d] = (1.0 - threshold / length) * np.eye(
                d
            ) + threshold / length**3 * np.outer(q, q)
        prox[b, np.arange(d, d + n), b, np.arange(d, d + n)] = (result.state[b, d:] > 0.0) | (
            not result.cones
        )
    flatB, flatA, flatP = B.reshape(size, -1), A.reshape(n, -1), prox.reshape(size, size)
    # (rho B'B + A'A)^{-1} by the same reduction to n rows as in the iteration.
    blocks = np.kron(np.eye(2 * P), inverse) / rho
    middle = blocks @ flatA.T
    solve = blocks - middle @ np.linalg.solve(np.eye(n) + coupling / rho, middle.T)
    projection = flatB @ (rho * solve) @ flatB.T
    result_: FloatArray = np.eye(size) - flatP + projection @ (2.0 * flatP - np.eye(size))
    return result_
