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


@compiled
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
    shift = np.empty((P, d))
    XK = X @ inverse
    Xt = np.ascontiguousarray(X.T)
    active = np.empty(2 * P, dtype=np.bool_)
    open_ = np.empty((2 * P, n), dtype=np.bool_)
    _piece(q1, q2, threshold, active, open_)
    last = 0
    for k in range(residuals.size):
        for b in range(2 * P):
            size = 0.0
            for a in range(d):
                size += q1[b, a] * q1[b, a]
            size = np.sqrt(size)
            shrink = 1.0 - threshold / size if size > threshold else 0.0
            for a in range(d):
                v[b, a] = shrink * q1[b, a]
            row = D[b] if b < P else D[b - P]
            for i in range(n):
                t = q2[b, i]
                t = abs(t) if cones else t
                T[b, i] = t if row[i] > 0.0 else -t
        np.dot(T, X, rhs)
        for b in range(2 * P):
            for a in range(d):
                rhs[b, a] += 2.0 * v[b, a] - q1[b, a]
                rhs[b, a] += fixed[b, a] / rho if b < P else -fixed[b - P, a] / rho
        np.dot(rhs, inverse, H)
        np.dot(H, Xt, HX)
        gathered[:] = 0.0
        for b in range(P):
            for i in range(n):
                if D[b, i] > 0.0:
                    gathered[i] += HX[b, i] - HX[b + P, i]
        w = system @ gathered
        for b in range(P):
            for i in range(n):
                E[b, i] = D[b, i] * w[i]
        np.dot(E, XK, shift)
        for b in range(P):
            for a in range(d):
                H[b, a] -= shift[b, a]
                H[b + P, a] += shift[b, a]
        np.dot(H, Xt, HX)
        total = 0.0
        changed = False
        for b in range(2 * P):
            size = 0.0
            for a in range(d):
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
        residuals[k] = np.sqrt(total)
        if changed and residuals[k] > floor:
            last = k + 1
    return last


@compiled
def _piece(
    q1: FloatArray, q2: FloatArray, threshold: float, active: BoolArray, open_: BoolArray
) -> None:
    for b in range(q1.shape[0]):
        active[b] = np.sqrt(np.sum(q1[b] ** 2)) > threshold
        for i in range(q2.shape[1]):
            open_[b, i] = q2[b, i] > 0.0


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
