"""Steps at one node of the branching on rows of positive sign: shortening w, shrinking ranges.

Sides of the rows: 0 is free, +-1 fixed by a branch (and a constraint of the cone), +-2 decided by
the ranges. Nothing here is trusted: every bound carries a margin for its rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.convex_relu._elementary import eliminate
from theorylab.numerics.compiled import compiled

SideArray = NDArray[np.int8]

EPS = float(np.finfo(np.float64).eps)
FREE, FIXED, DECIDED = 0, 1, 2


@compiled(error_model="numpy", borrows=True)
def length_of(w: FloatArray) -> float:
    square = 0.0
    for a in range(w.size):
        square += w[a] * w[a]
    return float(np.sqrt(square))


@compiled(error_model="numpy", borrows=True)
def _newton(
    columns: FloatArray,
    boxed: int,
    y: FloatArray,
    w: FloatArray,
    index: NDArray[np.int64],
    system: FloatArray,
) -> None:
    """Take the exact least-squares step in the listed coordinates, up to the first bound."""
    d = w.size
    count = index.size
    for j in range(count):
        for k in range(j + 1):
            s = 0.0
            for a in range(d):
                s += columns[index[j], a] * columns[index[k], a]
            system[j, k] = s
            system[k, j] = s
        s = 0.0
        for a in range(d):
            s -= columns[index[j], a] * w[a]
        system[j, count] = s
    if not eliminate(system, count):
        return
    step = 1.0
    for j in range(count):
        change = system[j, count] / system[j, j]
        if not np.isfinite(change):
            return
        old = y[index[j]]
        if old + change < 0.0:
            step = min(step, -old / change)
        if index[j] < boxed and old + change > 1.0:
            step = min(step, (1.0 - old) / change)
    for j in range(count):
        k = index[j]
        s = max(y[k] + step * system[j, count] / system[j, j], 0.0)
        if k < boxed:
            s = min(s, 1.0)
        for a in range(d):
            w[a] += (s - y[k]) * columns[k, a]
        y[k] = s


@compiled(error_model="numpy", borrows=True)
def shorten(
    columns: FloatArray,
    squares: FloatArray,
    boxed: int,
    count: int,
    y: FloatArray,
    w: FloatArray,
    target: float,
    sweeps: int,
    index: NDArray[np.int64],
    system: FloatArray,
) -> None:
    """Shorten ``w = p + y @ columns`` over ``y >= 0``, the first ``boxed`` of them at most 1, until
    its length is below the target or the shortest one is seen to be above."""
    d = w.size
    for sweep in range(sweeps):
        length = length_of(w)
        if length <= target:
            return
        if sweep > 0:
            # The set {w} is at least as far away as its support plane in this direction.
            low = length * length
            for k in range(count):
                s = 0.0
                for a in range(d):
                    s += columns[k, a] * w[a]
                low -= y[k] * s
                if s < 0.0:
                    if k < boxed:
                        low += s
                    elif s < -1e-11 * length * np.sqrt(squares[k]):
                        low = -np.inf
                        break
            if low > target * length:
                return
        inside = 0
        moved = 0.0
        for k in range(count):
            s = 0.0
            for a in range(d):
                s += columns[k, a] * w[a]
            new = max(y[k] - s / squares[k], 0.0)
            if k < boxed:
                new = min(new, 1.0)
            step = new - y[k]
            y[k] = new
            if step != 0.0:
                for a in range(d):
                    w[a] += step * columns[k, a]
                moved = max(moved, step * step * squares[k])
            if new > 0.0 and (k >= boxed or new < 1.0):
                index[inside] = k
                inside += 1
        if moved <= 1e-30 * length * length:
            break
        if sweep > 0 and 0 < inside <= d:
            _newton(columns, boxed, y, w, index[:inside], system)


@compiled(error_model="numpy", borrows=True)
def range_over_cone(
    units: FloatArray,
    cosines: FloatArray,
    lengths: FloatArray,
    chain: NDArray[np.int64],
    side: SideArray,
    low: FloatArray,
    high: FloatArray,
    mu: FloatArray,
    products: FloatArray,
    slopes: FloatArray,
    w: FloatArray,
) -> None:
    """Lower ``high`` and raise ``low`` to what the signs fixed in ``chain``, the last of them new,
    allow the free rows on unit vectors.

    Rows 2i and 2i + 1 of ``mu`` shorten plus and minus the direction of row i by those of the
    fixed rows. The cosines of the directions only lead there, so that a multiplier at rest costs
    nothing; the vector itself is summed once, at the end."""
    count = chain.size
    d = w.size
    for k in range(count):
        for b in range(count):
            s = cosines[chain[k], chain[b]]
            products[k, b] = s if side[chain[k]] == side[chain[b]] else -s
    for i in range(side.size):
        if side[i] != FREE:
            continue
        for m in range(2 * i, 2 * i + 2):
            sign = 1.0 if m == 2 * i else -1.0
            for k in range(count):
                s = sign * cosines[i, chain[k]]
                slopes[k] = s if side[chain[k]] > 0 else -s
            for k in range(count - 1):
                if mu[m, k] > 0.0:
                    for b in range(count):
                        slopes[b] += mu[m, k] * products[k, b]
            # A small gain waits for the next new sign.
            if slopes[count - 1] >= -0.1:
                continue
            for _ in range(8):
                moved = 0.0
                for k in range(count):
                    step = max(-slopes[k], -mu[m, k])
                    if step != 0.0:
                        mu[m, k] += step
                        moved += step * step
                        for b in range(count):
                            slopes[b] += step * products[k, b]
                if moved <= 1e-4:
                    break
            total = 1.0
            for a in range(d):
                w[a] = sign * units[i, a]
            for k in range(count):
                if mu[m, k] > 0.0:
                    total += mu[m, k]
                    s = mu[m, k] if side[chain[k]] > 0 else -mu[m, k]
                    for a in range(d):
                        w[a] += s * units[chain[k], a]
            s = lengths[i] * (length_of(w) + (count + d + 8) * EPS * total)
            if m == 2 * i:
                high[i] = min(high[i], s)
            else:
                low[i] = max(low[i], -s)


@compiled(error_model="numpy", borrows=True)
def range_over_cap(
    A: FloatArray,
    lengths: FloatArray,
    w: FloatArray,
    length: float,
    least: float,
    side: SideArray,
    low: FloatArray,
    high: FloatArray,
) -> bool:
    """Shrink the ranges to those on the unit vectors with ``w @ u > least``; return whether no
    point of the node remains."""
    d = w.size
    rho = least / length
    rho -= (d + 8) * EPS * abs(rho)
    if rho <= -1.0:
        return False
    sine = np.sqrt(max(1.0 - rho * rho, 0.0) + 8.0 * EPS)
    for i in range(side.size):
        norm = lengths[i]
        c = 0.0
        for a in range(d):
            c += A[i, a] * w[a]
        c /= length
        pad = (16 * d + 64) * EPS * norm
        across = np.sqrt(max(norm * norm - c * c, 0.0) + (8 * d + 32) * EPS * norm * norm) * sine
        top = norm if c >= rho * norm - pad else c * rho + across + pad
        bottom = -norm if -c >= rho * norm - pad else c * rho - across - pad
        if side[i] == FREE:
            high[i] = min(high[i], top)
            low[i] = max(low[i], bottom)
            if high[i] < low[i]:
                return True
        elif (side[i] == FIXED and top < 0.0) or (side[i] == -FIXED and bottom > 0.0):
            return True
    return False
