"""Dual points: orthogonality to a skip connection, and scaling into the constraint."""

from __future__ import annotations

import numpy as np
from flint import arb, fmpq, fmpq_mat

from theorylab._validation import FloatArray
from theorylab.convex_relu.losses import Loss
from theorylab.numerics.balls import rational_matrix, rationals

_EPS = float(np.finfo(np.float64).eps)
_GOLDEN = 0.5 * (5.0**0.5 - 1.0)


def scale_dual(loss: Loss, v: FloatArray, y: FloatArray, beta: float, norm: float) -> FloatArray:
    """Return the multiple of v with the best dual value among those whose dual norm is at most
    ``beta``."""
    # The quotient is rounded; the norm allows for the rounding of the entries.
    largest = min(beta / norm, 1e300) * (1.0 - 1e-12) if norm > 0.0 else 1.0
    # Zero is always feasible, and in the domain.
    candidates = [0.0, largest] if largest <= 1.0 else [0.0, 1.0, largest]
    values = [loss.dual(s * v, y) for s in candidates]
    best = candidates[int(np.argmax(values))]
    # Golden sections of a concave function, to the left where both are outside the domain: Brent's
    # method knows no infinite values, and no scale.
    low, high = 0.0, largest
    left, right = (1.0 - _GOLDEN) * largest, _GOLDEN * largest
    at_left, at_right = loss.dual(left * v, y), loss.dual(right * v, y)
    while high - low > 1e-12 * high + 1e-20 * largest:
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss.dual(left * v, y)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss.dual(right * v, y)
    if at_left > max(values):
        best = left
    return best * v if best > 0.0 else np.zeros_like(v)


def project_skip(X: FloatArray, v: FloatArray, y: FloatArray, loss: Loss) -> FloatArray:
    """Move the free entries of v as little as possible so that ``X.T v = 0``, up to rounding; to
    zeros, which are feasible, where that leaves the domain."""
    # Least squares in float64 misses it where the data are ill-conditioned.
    exact, _ = exact_dual(X, loss.at_ends(v, y), y, loss)
    if exact is None or not loss.in_domain(exact, y):
        return np.zeros_like(v)
    return np.array([float(arb(q)) for q in exact])


def exact_dual(
    data: FloatArray, v: FloatArray, y: FloatArray, loss: Loss
) -> tuple[list[fmpq] | None, FloatArray]:
    """Return the rational point nearest to v on its free entries, in the metric of the loss, with
    ``data.T @ point = 0``, and bounds of its change."""
    n, d = data.shape
    free = np.flatnonzero(loss.interior(v, y))
    exact = rational_matrix(data)
    point = rationals(v)
    right = exact.transpose() * fmpq_mat(n, 1, point)
    if all(right[j, 0] == 0 for j in range(d)):
        return point, np.zeros(n)
    rows = exact if len(free) == n else rational_matrix(data[free])
    # Columns that span the column space on the free rows.
    echelon, rank = rows.rref() if len(free) else (rows, 0)
    pivots = [next(j for j in range(d) if echelon[i, j] != 0) for i in range(rank)]
    basis = rows
    if rank < d:
        basis = fmpq_mat(len(free), rank, [rows[i, j] for i in range(len(free)) for j in pivots])
    # An even move would be one of many times their values for the lightest samples.
    spread, widths = basis, loss.widths(y)[free]
    if widths.max(initial=0.0) > widths.min(initial=np.inf):
        entries = zip(rationals(widths), basis.tolist(), strict=True)
        spread = fmpq_mat(len(free), rank, [w * q for w, row in entries for q in row])
    system = basis.transpose() * spread
    step = spread * system.solve(fmpq_mat(rank, 1, [right[j, 0] for j in pivots]))
    moved = np.zeros(n)
    for a, k in enumerate(free):
        point[k] -= step[a, 0]
        moved[k] = float(np.nextafter(abs(float(arb(step[a, 0]))), np.inf))
    residual = exact.transpose() * fmpq_mat(n, 1, point)
    if any(residual[j, 0] != 0 for j in range(d)):
        return None, moved
    return point, moved


def dual_error(dual: FloatArray, y: FloatArray, loss: Loss) -> float:
    """Bound the rounding error of the dual value."""
    return float(8.0 * (dual.size + 4) * _EPS * np.sum(loss.dual_sizes(dual, y)))
