"""Steps of a covering with cones: a cone's rows, its interpolation, where it is divided."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_search
from theorylab.convex_relu._cone_proof import narrowest, square_norm
from theorylab.convex_relu._problem import IntArray
from theorylab.numerics.compiled import compiled

_EPS = float(np.finfo(np.float64).eps)


@compiled(borrows=True)
def largest(x: FloatArray) -> float:
    largest = x[0]
    for value in x:
        largest = max(largest, value)
    return float(largest)


@compiled(borrows=True)
def start(
    X: FloatArray,
    v: FloatArray,
    linear: FloatArray,
    norms: FloatArray,
    orthant: int,
    R: FloatArray,
    errors: FloatArray,
    g: FloatArray,
    index: IntArray,
    Z: FloatArray,
    mask: NDArray[np.int8],
) -> int:
    """Write the cone of an orthant; return the number of its rows."""
    n, d = X.shape
    for k in range(d):
        for a in range(d):
            R[k, a] = 0.0
        R[k, k] = 1.0 if (orthant >> k) & 1 else -1.0
        errors[k] = 0.0
        g[k] = linear[k]
    m = 0
    for i in range(n):
        mask[i] = 0
        if v[i] != 0.0 and norms[i] > 0.0:
            index[m] = i
            for k in range(d):
                Z[m, k] = X[i, k] * R[k, k]
            m += 1
    return m


@compiled(meanwhile=_meanwhile_search.drop, borrows=True)
def drop(
    X: FloatArray,
    v: FloatArray,
    norms: FloatArray,
    g: FloatArray,
    index: IntArray,
    Z: FloatArray,
    count: int,
    mask: NDArray[np.int8],
) -> int:
    """Take rows of constant sign out of the list, and mark those that are positive; return the
    number of the others.

    Those with negative v go only when their kink is further away than the cone is wide, because
    next to a maximiser on that kink the proof needs a slope between 0 and 1."""
    d = g.size
    m = 0
    for e in range(count):
        i = index[e]
        low = Z[e, 0]
        high = Z[e, 0]
        for k in range(1, d):
            low = min(low, Z[e, k])
            high = max(high, Z[e, k])
        small = 4.0 * _EPS * norms[i]
        if v[i] < 0.0:
            small = low - high
        if low >= -small:
            for a in range(d):
                g[a] += v[i] * X[i, a]
            mask[i] = 1
        elif high > small:
            if m != e:
                index[m] = i
                for k in range(d):
                    Z[m, k] = Z[e, k]
            m += 1
    return m


@compiled(meanwhile=_meanwhile_search.interpolate, borrows=True)
def interpolate(
    v: FloatArray,
    R: FloatArray,
    g: FloatArray,
    Z: FloatArray,
    index: IntArray,
    m: int,
    q: FloatArray,
    c: FloatArray,
    t: FloatArray,
) -> tuple[float, int]:
    """Write the centre, the interpolated values c and the slopes t at the centre; return the value
    there, and how many rows have a positive v."""
    d = g.size
    for a in range(d):
        q[a] = 0.0
        for k in range(d):
            q[a] += R[k, a]
    length = np.sqrt(square_norm(q))
    for a in range(d):
        q[a] /= length
    n_positive = 0
    centre = 0.0
    for k in range(d):
        s = 0.0
        for a in range(d):
            s += g[a] * R[k, a]
        c[k] = s
        centre += s
    # Without branches, which nothing predicts.
    for e in range(m):
        weight = v[index[e]]
        total = 0.0
        for k in range(d):
            total += Z[e, k]
        t[e] = 1.0 if total > 0.0 else 0.0
        convex = max(weight, 0.0)
        concave = min(weight, 0.0) * t[e]
        centre += weight * max(total, 0.0)
        n_positive += weight > 0.0
        for k in range(d):
            c[k] += convex * max(Z[e, k], 0.0) + concave * Z[e, k]
    return centre / length, n_positive


@compiled(borrows=True)
def middle(R: FloatArray, c: FloatArray) -> float:
    """Return the interpolated value at the centre, below which no w along it can be."""
    d = c.size
    total = 0.0
    square = 0.0
    for a in range(d):
        s = 0.0
        for k in range(d):
            s += R[k, a]
        square += s * s
        total += c[a]
    return float(total / np.sqrt(square))


@compiled(borrows=True)
def bound_along(R: FloatArray, q: FloatArray, c: FloatArray, margin: float, error: float) -> float:
    """Return how long w must be along the centre."""
    d = q.size
    bound = -np.inf
    for k in range(d):
        s = 0.0
        for a in range(d):
            s += q[a] * R[k, a]
        bound = max(bound, (c[k] + margin) / (s - error))
    return float(bound)


@compiled(borrows=True)
def value_at(X: FloatArray, v: FloatArray, linear: FloatArray, u: FloatArray) -> float:
    n, d = X.shape
    value = 0.0
    for a in range(d):
        value += linear[a] * u[a]
    for i in range(n):
        s = 0.0
        for a in range(d):
            s += X[i, a] * u[a]
        if s > 0.0:
            value += v[i] * s
    return float(value)


@compiled(borrows=True)
def keep(
    v: FloatArray,
    index: IntArray,
    m: int,
    t: FloatArray,
    w: FloatArray,
    R: FloatArray,
    mask: NDArray[np.int8],
    rays: FloatArray,
    weights: FloatArray,
    multipliers: FloatArray,
) -> None:
    """Write the proof of a leaf."""
    d = w.size
    for i in range(mask.size):
        multipliers[i] = mask[i]
    for e in range(m):
        multipliers[index[e]] = t[e] if v[index[e]] < 0.0 else -1.0
    for a in range(d):
        weights[a] = w[a]
        for k in range(d):
            rays[k, a] = R[k, a]


@compiled(borrows=True)
def square_distance(x: FloatArray, y: FloatArray) -> float:
    # From the inner product distances below 1e-8 would be rounding.
    total = 0.0
    for a in range(x.size):
        total += (x[a] - y[a]) ** 2
    return total


@compiled(meanwhile=_meanwhile_search.edge, borrows=True)
def edge(
    v: FloatArray,
    norms: FloatArray,
    R: FloatArray,
    Z: FloatArray,
    index: IntArray,
    m: int,
    n_positive: int,
) -> tuple[int, int, float]:
    """Return the edge to split, and where.

    Between the ends of an edge the interpolation of a row with positive v that changes sign is too
    large by up to ``v_i x y / (x + y)``, at its kink, with sizes x and y at the ends. Few such
    rows, or those of a narrow cone, are taken out by splitting at the worst kink; else the edge
    with the largest sum is split at the mean of the kinks, and the longest halfway where no such
    row is left."""
    d = R.shape[0]
    chosen = -1
    if 0 < n_positive <= 2 or d == 2 or narrowest(R) > 0.98:
        gap = 0.0
        for e in range(m):
            if v[index[e]] > 0.0:
                up = 0.0
                total = 0.0
                for k in range(d):
                    up += max(Z[e, k], 0.0)
                    total += Z[e, k]
                up = v[index[e]] * (up - max(total, 0.0))
                if up > gap:
                    gap = up
                    chosen = e
    first = -1
    second = -1
    if chosen >= 0:
        # The sum: each end is a share of the edge that float64 tells from none.
        small = 4.0 * _EPS * norms[index[chosen]] + 1e-300
        longest = -1.0
        for k in range(d):
            for b in range(d):
                if Z[chosen, k] > small and Z[chosen, b] < -small:
                    square = square_distance(R[k], R[b])
                    if square > longest:
                        longest = square
                        first = k
                        second = b
        if first >= 0:
            return first, second, -Z[chosen, second] / (Z[chosen, first] - Z[chosen, second])
    largest = 0.0
    longest = -1.0
    where = 0.5
    for k in range(d):
        for b in range(k):
            gap = 0.0
            moment = 0.0
            for e in range(m):
                x = Z[e, k]
                y = Z[e, b]
                share = 1.0 / (abs(x - y) + 1e-300)
                part = max(v[index[e]], 0.0) * max(-(x * share) * y, 0.0)
                gap += part
                moment += part * abs(y) * share
            square = square_distance(R[k], R[b]) if largest == 0.0 else -1.0
            if gap > largest or square > longest:
                largest = gap
                longest = square
                first = k
                second = b
                where = min(max(moment / gap, 0.2), 0.8) if gap > 0.0 else 0.5
    return first, second, where


@compiled(meanwhile=_meanwhile_search.divide, borrows=True)
def divide(
    X: FloatArray,
    level: int,
    first: int,
    second: int,
    weight: float,
    m: int,
    rays: FloatArray,
    inverses: FloatArray,
    errors: FloatArray,
    rows: IntArray,
    z: FloatArray,
    new: FloatArray,
) -> None:
    """Put a ray on an edge: the cone loses its second ray for it, the child, one level below, its
    first."""
    d = new.size
    child = level + 1
    for a in range(d):
        new[a] = weight * rays[level, first, a] + (1.0 - weight) * rays[level, second, a]
    length = np.sqrt(square_norm(new))
    for a in range(d):
        new[a] /= length
    # Either matrix of rays changes in one row, and its inverse in two columns.
    for a in range(d):
        for k in range(d):
            inverses[child, a, k] = inverses[level, a, k]
        x = inverses[level, a, first]
        y = inverses[level, a, second]
        inverses[child, a, first] = x * length / weight
        inverses[child, a, second] = y - (1.0 - weight) / weight * x
        inverses[level, a, second] = y * length / (1.0 - weight)
        inverses[level, a, first] = x - weight / (1.0 - weight) * y
    error = weight * errors[level, first] + (1.0 - weight) * errors[level, second]
    error = error / length + 8 * d * _EPS
    for k in range(d):
        errors[child, k] = errors[level, k]
        for a in range(d):
            rays[child, k, a] = rays[level, k, a]
    errors[child, first] = error
    errors[level, second] = error
    for a in range(d):
        rays[child, first, a] = new[a]
        rays[level, second, a] = new[a]
    for e in range(m):
        i = rows[level, e]
        rows[child, e] = i
        s = 0.0
        for a in range(d):
            s += X[i, a] * new[a]
        for k in range(d):
            z[child, e, k] = z[level, e, k]
        z[child, e, first] = s
        z[level, e, second] = s
