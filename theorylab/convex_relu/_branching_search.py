"""The search of the branching on rows of positive sign: a stack of nodes, depth first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.convex_relu._branching_steps import (
    DECIDED,
    EPS,
    FIXED,
    FREE,
    SideArray,
    length_of,
    range_over_cap,
    range_over_cone,
    shorten,
)
from theorylab.numerics.compiled import compiled

_TIGHT = 1e-6


@compiled(error_model="numpy", borrows=True)
def _compose(
    A: FloatArray,
    B: FloatArray,
    linear: FloatArray,
    lengths: FloatArray,
    side: SideArray,
    low: FloatArray,
    high: FloatArray,
    multiplier: FloatArray,
    w: FloatArray,
) -> tuple[float, float, int]:
    """Write w for the multipliers; return C and a bound of what rounding did to ``|w| + C``, and
    the number of free rows."""
    n_positive, d = A.shape
    n_negative = B.shape[0]
    total = 0.0
    for a in range(d):
        w[a] = linear[a]
        total += abs(linear[a])
    C = 0.0
    free = 0
    for i in range(n_positive):
        f = 0.0
        lam = 0.0
        if side[i] == FREE:
            free += 1
            f = high[i] / (high[i] - low[i])
            C += max(-f * low[i], (1.0 - f) * high[i])
        elif side[i] == DECIDED:
            f = 1.0
            C += max(-low[i], 0.0)
        elif side[i] == -DECIDED:
            C += max(high[i], 0.0)
        else:
            lam = multiplier[n_negative + i]
            f = 1.0 + lam if side[i] > 0 else -lam
        total += (1.0 + lam) * lengths[i]
        if f != 0.0:
            for a in range(d):
                w[a] += f * A[i, a]
    for j in range(n_negative):
        total += lengths[n_positive + j]
        for a in range(d):
            w[a] -= multiplier[j] * B[j, a]
    return C, (n_positive + n_negative + 2 * d + 16) * EPS * (total + C), free


@compiled(error_model="numpy", borrows=True)
def _value(A: FloatArray, B: FloatArray, linear: FloatArray, u: FloatArray) -> float:
    d = u.size
    value = 0.0
    for a in range(d):
        value += linear[a] * u[a]
    for i in range(A.shape[0]):
        s = 0.0
        for a in range(d):
            s += A[i, a] * u[a]
        value += max(s, 0.0)
    for j in range(B.shape[0]):
        s = 0.0
        for a in range(d):
            s += B[j, a] * u[a]
        value -= max(s, 0.0)
    return value


@compiled(error_model="numpy")
def branch(
    A: FloatArray,
    B: FloatArray,
    units: FloatArray,
    cosines: FloatArray,
    linear: FloatArray,
    lengths: FloatArray,
    threshold: float,
    max_nodes: int,
    level: int,
    sides: SideArray,
    lows: FloatArray,
    highs: FloatArray,
    multipliers: FloatArray,
    depths: NDArray[np.int64],
    chains: NDArray[np.int64],
    mus: FloatArray,
    directions: FloatArray,
    leaf_sides: SideArray,
    leaf_ranges: FloatArray,
    leaf_multipliers: FloatArray,
) -> tuple[int, int, int, int, int]:
    """Work on the stack of open nodes ``0 .. level`` until a budget or a buffer is used up.

    Of a node the stack holds the sides and ranges of the positive rows, the multipliers t and
    lambda, the rows fixed by branches in their order, and the multipliers mu of the ranges.

    Directions with a value above the threshold are written to ``directions`` and their node is
    dropped; leaves whose proof has less than 1e-6 relative slack are written to the ``leaf``
    arrays.

    Returns
    -------
    tuple
        The new level (-1 when no node is open), numbers of nodes, directions and leaves written,
        and 1 if the search ended at a leaf that is neither proved nor violated.
    """
    n_positive, d = A.shape
    n_negative = B.shape[0]
    n = n_positive + n_negative
    columns = np.empty((n, d))
    squares = np.empty(n)
    row = np.empty(n, dtype=np.int64)
    y = np.empty(n)
    index = np.empty(n, dtype=np.int64)
    system = np.empty((d, d + 1))
    products = np.empty((chains.shape[1], chains.shape[1]))
    slopes = np.empty(chains.shape[1])
    w = np.empty(d)
    u = np.empty(d)
    nodes = 0
    found = 0
    leaves = 0
    for j in range(n_negative):
        for a in range(d):
            columns[j, a] = -B[j, a]
        squares[j] = lengths[n_positive + j] ** 2
        row[j] = j
    while level >= 0 and nodes < max_nodes:
        nodes += 1
        side = sides[level]
        low = lows[level]
        high = highs[level]
        chain = chains[level]
        count = n_negative + depths[level]
        for k in range(n_negative, count):
            i = chain[k - n_negative]
            for a in range(d):
                columns[k, a] = side[i] * A[i, a]
            squares[k] = lengths[i] ** 2
            row[k] = n_negative + i
        for k in range(count):
            y[k] = multipliers[level, row[k]]
        if count > n_negative:
            range_over_cone(
                units,
                cosines,
                lengths,
                chain[: depths[level]],
                side,
                low,
                high,
                mus[level],
                products,
                slopes,
                w,
            )
        proved = False
        free = 0
        last = np.inf
        # Fewer free rows and smaller ranges bring a smaller C, and that a smaller cap.
        for _ in range(6):
            for i in range(n_positive):
                if side[i] == FREE:
                    # A sign decided up to rounding costs its row's range in C.
                    small = (64 * d + 256) * EPS * lengths[i]
                    if high[i] <= small:
                        side[i] = -DECIDED
                    elif low[i] >= -small:
                        side[i] = DECIDED
            for k in range(count):
                multipliers[level, row[k]] = y[k]
            C, margin, free = _compose(
                A, B, linear, lengths, side, low, high, multipliers[level], w
            )
            if free > 0 and 0.97 * last < C:
                break
            last = C
            sweeps = 8 if free > 0 else 2000
            for attempt in range(2):
                shorten(
                    columns,
                    squares,
                    n_negative,
                    count,
                    y,
                    w,
                    threshold - C - margin,
                    sweeps,
                    index,
                    system,
                )
                for k in range(count):
                    multipliers[level, row[k]] = y[k]
                C, margin, _free = _compose(
                    A, B, linear, lengths, side, low, high, multipliers[level], w
                )
                length = length_of(w)
                proved = length + C + margin <= threshold
                if proved or free > 0 or attempt == 1:
                    break
                # Large multipliers cost accuracy, and a leaf needs none.
                for a in range(d):
                    u[a] = w[a] / length
                if _value(A, B, linear, u) > threshold:
                    break
                for k in range(n_negative, count):
                    y[k] = 0.0
                    multipliers[level, row[k]] = 0.0
                C, margin, _free = _compose(
                    A, B, linear, lengths, side, low, high, multipliers[level], w
                )
            if proved:
                if length + C > (1.0 - _TIGHT) * threshold and leaf_sides.shape[0] > 0:
                    for i in range(n_positive):
                        leaf_sides[leaves, i] = side[i]
                        leaf_ranges[leaves, i] = low[i]
                        leaf_ranges[leaves, n_positive + i] = high[i]
                    for k in range(n):
                        leaf_multipliers[leaves, k] = 0.0
                    for k in range(count):
                        leaf_multipliers[leaves, row[k]] = y[k]
                    leaves += 1
                break
            if free == 0:
                break
            if range_over_cap(A, lengths, w, length, threshold - C - margin, side, low, high):
                proved = True
                break
        if proved:
            level -= 1
            if leaves > 0 and leaves == leaf_sides.shape[0]:
                break
            continue
        length = length_of(w)
        for a in range(d):
            u[a] = w[a] / length
        if _value(A, B, linear, u) > threshold:
            for a in range(d):
                directions[found, a] = u[a]
            found += 1
            level -= 1
            if found == directions.shape[0]:
                break
            continue
        chosen = -1
        largest = 0.0
        for i in range(n_positive):
            if side[i] == FREE:
                s = -low[i] * high[i] / (high[i] - low[i])
                if s > largest:
                    largest = s
                    chosen = i
        if free == 0 or (chosen >= 0 and depths[level] == chains.shape[1]):
            return level, nodes, found, leaves, 1
        if chosen < 0:
            # The last cap decided every row: the same node again, now a leaf.
            continue
        s = 0.0
        for a in range(d):
            s += A[chosen, a] * u[a]
        depth = depths[level]
        for i in range(n_positive):
            sides[level + 1, i] = side[i]
            lows[level + 1, i] = low[i]
            highs[level + 1, i] = high[i]
            if side[i] == FREE:
                for m in range(2 * i, 2 * i + 2):
                    for k in range(depth):
                        mus[level + 1, m, k] = mus[level, m, k]
                    mus[level, m, depth] = 0.0
                    mus[level + 1, m, depth] = 0.0
        for k in range(n):
            multipliers[level + 1, k] = multipliers[level, k]
        for k in range(depth):
            chains[level + 1, k] = chain[k]
        sides[level + 1, chosen] = FIXED if s > 0.0 else -FIXED
        side[chosen] = -sides[level + 1, chosen]
        for k in range(level, level + 2):
            chains[k, depth] = chosen
            depths[k] = depth + 1
        level += 1
    return level, nodes, found, leaves, 0
