r"""Margins in exact arithmetic.

Floats are integers times powers of two: scores, norms and combinations of rows are exact rational
numbers. Where no point separates, some $p\ge0$, $p\ne0$, has $Z^\top p=0$
(Farkas); floats hold it only to rounding, and what proves it is one of

- the floats themselves, if their combination vanishes exactly;
- a perturbation: with $A=Z^\top$, any B with $f=\|I-AB\|_\infty<1$, and
  $\varepsilon=A\hat p$, the point $\hat p-B(AB)^{-1}\varepsilon$ is in the kernel of A
  and at least $\hat p-|B|1\,\|\varepsilon\|_\infty/(1-f)$;
- elimination without fractions, for kernels of matrices that lack full rank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from theorylab._validation import FloatArray

LARGEST = 64  # rank up to which integers are eliminated


def integers(values: FloatArray) -> tuple[Any, int]:
    """Return integers and an exponent e: the values are the integers times 2^e, exactly."""
    mantissas, exponents = np.frexp(values)
    low = int(exponents[mantissas != 0].min(initial=0)) - 53
    shifts = np.where(mantissas != 0, exponents - 53 - low, 0)
    whole = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
    return whole << shifts.astype(object), low


def product(A: FloatArray, v: FloatArray) -> tuple[Any, int]:
    """Return integers and an exponent e: Av is the integers times 2^e, exactly.

    Floats are cut into digits so short that no sum of products is rounded, whatever its order."""
    k = (55 - len(v).bit_length()) // 2
    right = list(_digits(v, k))
    columns = np.array([digits for digits, _ in right]).reshape(-1, len(v)).T
    sums: dict[int, Any] = {}
    for digits, unit in _digits(A, k):
        found = (digits @ columns).T.astype(np.int64)
        for part, (_, exponent) in zip(found, right, strict=True):
            sums[unit + exponent] = sums.get(unit + exponent, 0) + part
    total = np.zeros(len(A), object)
    low = min(sums, default=0)
    for exponent in range(max(sums, default=-1), low - 1, -k):
        total = (total << k) + sums[exponent].astype(object)
    return total, low


def _digits(values: FloatArray, k: int) -> Iterator[tuple[FloatArray, int]]:
    """Yield integers of at most 2^(k - 1) and an exponent, which falls by k: times two to it, they
    add up to the values."""
    unit = int(np.frexp(np.abs(values).max())[1]) - k + 1
    while values.any():
        a, b = 2.0 ** (unit // 2), 2.0 ** (unit - unit // 2)  # their product may be no float
        digits = np.rint(values / a / b)
        yield digits, unit
        values = values - digits * a * b
        unit -= k


def attained(X: FloatArray, y: FloatArray, w: FloatArray, b: float) -> Fraction:
    """Return the square of min y (Xw + b) / |w|, or 0 where that is not positive."""
    scale = np.longdouble(np.finfo(np.longdouble).eps) * (len(w) + 4)
    wide, v = X.astype(np.longdouble), w.astype(np.longdouble)
    with np.errstate(all="ignore"):
        found = y * (wide @ v + b)
        error = scale * (np.abs(wide) @ np.abs(v) + abs(b)) + np.finfo(np.longdouble).tiny
        rows = np.flatnonzero(~(found - error > np.min(found + error)))
    if not w.any() or not rows.size:
        return Fraction(0)
    (scores, unit), (u, w_unit) = product(X[rows], w), integers(w)
    offset = Fraction(b) / Fraction(2) ** unit
    labels = y[rows].astype(int)
    least = min(min(s * scores[labels == s]) + s * offset for s in set(labels.tolist()))
    if least <= 0:
        return Fraction(0)
    return Fraction(least**2 * Fraction(4) ** (unit - w_unit) / int(u.dot(u)))


def exceeded_by_none(X: FloatArray, y: FloatArray, a: FloatArray, free: bool) -> Fraction:
    """Return the square of the norm of the combination of the rows yX with weights a over their
    sum; with an intercept, of half the difference of the two classes' means."""
    P = np.flatnonzero(a)
    (weights, low), labels = integers(a[P]), y[P]
    if free:
        ranks = [np.flatnonzero(labels == s) for s in (1, -1)]
        sums = [sum(weights[rank].tolist()) for rank in ranks]
        (v, unit), (other, shift) = (product(X[P[rank]].T, a[P[rank]]) for rank in ranks)
        least, total = min(unit, shift), 2 * sums[0] * sums[1]
        v = (v << unit - least) * sums[1] - (other << shift - least) * sums[0]
    else:
        (v, least), total = product(X[P].T, labels * a[P]), sum(weights.tolist())
    return Fraction(int(v.dot(v)), total**2) * Fraction(4) ** (least - low)


def root(square: Fraction, *, up: bool) -> float:
    """Return the square root, rounded up or down."""
    if not square:
        return 0.0
    p, q = square.as_integer_ratio()
    k = 53 - (p.bit_length() - q.bit_length()) // 2
    p, q = (p << 2 * k, q) if k >= 0 else (p, q << -2 * k)
    value = math.ldexp(math.isqrt(p // q), -k)  # of integers from 2^51 to 2^55: one step from it
    if up and Fraction(value) ** 2 < square:
        return math.nextafter(value, math.inf)
    return value if up or Fraction(value) ** 2 <= square else math.nextafter(value, 0.0)


def vanishes(Z: FloatArray, p: FloatArray) -> bool:
    """Whether a combination of the rows of Z with weights not negative, and not all zero, of the
    support of p or near p, is proved to vanish."""
    P = np.flatnonzero(p > 0)
    if not P.size or (p < 0).any():
        return False
    Z, p = Z[P], p[P]
    return not product(Z.T, p)[0].any() or _near(Z, p) or _by_elimination(Z, p)


def _near(Z: FloatArray, p: FloatArray) -> bool:
    """Whether the perturbed weights are proved to be positive."""
    m, k = Z.shape
    if m <= k:
        return False
    with np.errstate(all="ignore"):
        along = np.frexp(np.abs(Z).max(axis=1))[1]
        S = np.ldexp(Z, -along[:, None])
        across = np.frexp(np.abs(S).max(axis=0))[1]
        S = np.ldexp(S, -across)
        weights = np.ldexp(p, along)
        same = np.ldexp(np.ldexp(S, across), along[:, None])
        same_weights = np.ldexp(weights, -along)
    if not (np.array_equal(same, Z) and np.array_equal(same_weights, p)):
        return False
    if not np.isfinite(weights).all():
        return False
    B = np.linalg.pinv(S.T)
    products = m * float(np.finfo(float).eps) * (np.abs(S.T) @ np.abs(B)) + 1e-290
    f = 1.01 * float((np.abs(np.eye(k) - S.T @ B) + 2 * products).sum(axis=1).max())
    if not f < 0.5:
        return False
    missed, unit = product(S.T, weights)
    worst = max(abs(int(v)) for v in missed) * Fraction(2) ** unit
    reach = worst / (1 - Fraction(f))
    sizes = 1.01 * np.abs(B).sum(axis=1)
    return all(Fraction(v) >= Fraction(s) * reach for v, s in zip(weights, sizes, strict=True))


def _by_elimination(Z: FloatArray, p: FloatArray) -> bool:
    """Whether the kernel has a point with positive weights where p gives the free ones."""
    if min(Z.shape) > LARGEST:
        return False
    (A, _), (q, _) = integers(Z), integers(p)
    common = [math.gcd(*row) or 1 for row in A.tolist()]
    # Of the rows over their divisors: coordinates down, points across.
    M = np.array([[v // g for v in row] for row, g in zip(A.tolist(), common, strict=True)], object)
    M, free = M.T.copy(), [int(v) * g for v, g in zip(q, common, strict=True)]
    pivots: list[int] = []
    last = 1
    for column in range(M.shape[1]):
        rank = len(pivots)
        below = [i for i in range(rank, len(M)) if M[i, column]]
        if not below:
            continue
        M[[rank, below[0]]] = M[[below[0], rank]]
        pivot, row = M[rank, column], M[rank].copy()
        M = (M * pivot - M[:, column][:, None] * row) // last
        M[rank], last = row, pivot
        pivots.append(column)
    rest = [j for j in range(M.shape[1]) if j not in pivots]
    sign = 1 if last > 0 else -1
    return bool(rest) and all(
        -sign * sum(M[i, j] * free[j] for j in rest) >= 0 for i in range(len(pivots))
    )
