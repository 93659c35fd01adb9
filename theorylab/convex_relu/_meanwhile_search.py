"""In NumPy, what runs in place of the kernels of the search over all directions while their machine
code is made: ascent, the covering by cones, the proof on one cone, and the cells around a vertex.

Arguments, effects and results are those of the kernel that names them."""

from __future__ import annotations

from functools import cache
from operator import mul

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from theorylab._validation import FloatArray
from theorylab.convex_relu._problem import BoolArray, IntArray

_EPS = float(np.finfo(np.float64).eps)


def ascend(X: FloatArray, v: FloatArray, u: FloatArray, max_iter: int) -> float:
    trial, g = u.copy(), np.zeros(u.size)
    best, step = -np.inf, 1.0
    for _ in range(max_iter):
        s = X @ trial
        weights = np.where(s > 0.0, v, 0.0)
        value = float(weights @ s)
        if value > best:
            gain, best = value - best, value
            u[:] = trial
            g = weights @ X
            length = np.sqrt(g @ g)
            if length == 0.0 or gain <= 1e-12 * best:
                break
            g /= length
        else:
            step *= 0.25
            if step < 1e-3:
                break
        trial = u + step * (g - u)
        length = np.sqrt(trial @ trial)
        if length == 0.0:
            break
        trial /= length
    return best


def proves(
    v: FloatArray,
    index: IntArray,
    m: int,
    t: FloatArray,
    w: FloatArray,
    threshold: float,
    R: FloatArray,
    Z: FloatArray,
    g: FloatArray,
    q: FloatArray,
    margin: float,
    error: float,
    c: FloatArray,
) -> bool:
    values, weights = Z[:m], v[index[:m]]
    c[:] = R @ g + np.maximum(weights, 0.0) @ np.maximum(values, 0.0)
    c += (np.minimum(weights, 0.0) * t[:m]) @ values
    along = R @ q
    if (along <= 0.0).any():
        return False
    lift = max(float(((c + margin + error * threshold - R @ w) / along).max()), 0.0)
    w += lift * (1.0 + 1e-12) * q
    return bool(np.sqrt(w @ w) * (1.0 + (2 * w.size + 4) * _EPS) <= threshold)


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
    rows, values = index[:count].copy(), Z[:count]
    low, high = values.min(axis=1), values.max(axis=1)
    small = np.where(v[rows] < 0.0, low - high, 4.0 * _EPS * norms[rows])
    above = low >= -small
    g += v[rows[above]] @ X[rows[above]]
    mask[rows[above]] = 1
    kept = ~above & (high > small)
    m = int(np.count_nonzero(kept))
    index[:m] = rows[kept]
    Z[:m] = values[kept]
    return m


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
    q[:] = R.sum(axis=0)
    length = float(np.sqrt(q @ q))
    q /= length
    c[:] = R @ g
    values, weights = Z[:m], v[index[:m]]
    totals, positive = values.sum(axis=1), weights > 0.0
    centre = float(c.sum() + weights @ np.maximum(totals, 0.0))
    t[:m] = totals > 0.0
    c += weights @ np.where(
        positive[:, None], np.maximum(values, 0.0), (totals > 0.0)[:, None] * values
    )
    return centre / length, int(np.count_nonzero(positive))


def edge(
    v: FloatArray,
    norms: FloatArray,
    R: FloatArray,
    Z: FloatArray,
    index: IntArray,
    m: int,
    n_positive: int,
) -> tuple[int, int, float]:
    d = R.shape[0]
    values, weights = Z[:m], np.maximum(v[index[:m]], 0.0)
    one, other = _pairs(d)
    if 0 < n_positive <= 2 or d == 2 or (R @ R.T)[one, other].min() > 0.98:
        sums = np.maximum(values, 0.0).sum(axis=1) - np.maximum(values.sum(axis=1), 0.0)
        gaps = weights * sums
        chosen = int(np.argmax(gaps)) if m else 0
        if m and gaps[chosen] > 0.0:
            z, small = values[chosen], 4.0 * _EPS * norms[index[chosen]] + 1e-300
            ends = (z[:, None] > small) & (z < -small)
            if ends.any():
                apart = ((R[:, None] - R) ** 2).sum(axis=2)
                first, second = divmod(int(np.argmax(np.where(ends, apart, -1.0))), d)
                return first, second, float(-z[second] / (z[first] - z[second]))
    x, y = values[:, one], values[:, other]
    share = 1.0 / (np.abs(x - y) + 1e-300)
    parts = weights[:, None] * np.maximum(-(x * share) * y, 0.0)
    sums = parts.sum(axis=0)
    k, where = int(np.argmax(sums)), 0.5
    if sums[k] > 0.0:
        where = min(max(float(parts[:, k] @ (np.abs(y) * share)[:, k]) / sums[k], 0.2), 0.8)
    else:
        k = int(np.argmax(((R[one] - R[other]) ** 2).sum(axis=1)))
    return int(one[k]), int(other[k]), float(where)


@cache
def _pairs(d: int) -> tuple[IntArray, IntArray]:
    return np.tril_indices(d, -1)


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
    child, weights, both = level + 1, np.array([weight, 1.0 - weight]), [first, second]
    new[:] = weights @ rays[level, both]
    length = np.sqrt(new @ new)
    new /= length
    columns = inverses[level][:, both].T
    inverses[child] = inverses[level]
    for at, which in ((child, 0), (level, 1)):
        own, other = columns[which], columns[1 - which]
        share = weights[which]
        inverses[at, :, both[which]] = own * length / share
        inverses[at, :, both[1 - which]] = other - (1.0 - share) / share * own
    error = weights @ errors[level, both] / length + 8 * new.size * _EPS
    errors[child], rays[child] = errors[level], rays[level]
    errors[child, first] = errors[level, second] = error
    rays[child, first] = rays[level, second] = new
    rows[child, :m] = rows[level, :m]
    z[child, :m] = z[level, :m]
    z[child, :m, first] = z[level, :m, second] = X[rows[level, :m]] @ new


def exceeds(
    X: FloatArray,
    v: FloatArray,
    index: IntArray,
    m: int,
    t: FloatArray,
    s_cone: FloatArray,
    inverse: FloatArray,
    w: FloatArray,
    threshold: float,
    square: float,
) -> bool:
    length = np.sqrt(square)
    p = w @ inverse
    if np.any(p < -1e-12 * length * np.abs(inverse).sum(axis=0)):
        return False
    negative = v[index[:m]] < 0.0  # only these have slopes
    rows = index[:m][negative]
    x = v[rows] * (X[rows] @ w)
    low = square - s_cone @ p + np.minimum(x, 0.0).sum() - t[:m][negative] @ x
    return bool(low > threshold * length)


def sweep(
    X: FloatArray,
    v: FloatArray,
    index: IntArray,
    m: int,
    t: FloatArray,
    s_cone: FloatArray,
    inverse: FloatArray,
    w: FloatArray,
    wide: bool,
    free: IntArray,
) -> tuple[int, float]:
    # One coordinate after the other, of few entries each: lists are faster than arrays.
    at, values, off, moved = w.tolist(), t[:m].tolist(), [], 0.0
    weights, rows = v[index[:m]].tolist(), X[index[:m]].tolist()
    lines = [(e, weights[e], rows[e], 1.0) for e in range(m) if weights[e] < 0.0]
    if wide:
        lines += [(m + k, 1.0, column, np.inf) for k, column in enumerate(inverse.T.tolist())]
        values += s_cone.tolist()
    for e, weight, x, high in lines:
        square = sum(map(mul, x, x))
        bend = weight * square
        f = min(max(values[e] - sum(map(mul, x, at)) / bend, 0.0), high) if bend != 0.0 else 0.0
        step = (f - values[e]) * weight
        values[e] = f
        if step != 0.0:
            at = [a + step * b for a, b in zip(at, x, strict=True)]
            moved = max(moved, abs(step) * square**0.5)
        if 0.0 < f < high:
            off.append(e if e < m else m - 1 - e)
    w[:], t[:m], free[: len(off)] = at, values[:m], off
    if wide:
        s_cone[:] = values[m:]
    return len(off), moved


def newton(
    X: FloatArray,
    v: FloatArray,
    index: IntArray,
    t: FloatArray,
    s_cone: FloatArray,
    inverse: FloatArray,
    w: FloatArray,
    free: IntArray,
    n_free: int,
) -> None:
    slopes = free[:n_free] >= 0
    rows, cones = free[:n_free][slopes], -1 - free[:n_free][~slopes]
    A = np.vstack([v[index[rows], None] * X[index[rows]], inverse.T[cones]])
    values = np.concatenate([t[rows], s_cone[cones]])
    high = np.repeat([1.0, np.inf], [rows.size, cones.size])
    left = np.arange(n_free)
    while left.size:
        B, old = A[left], values[left]
        many = left.size > w.size
        _, change, failed = dposv(B.T @ B if many else B @ B.T, -w if many else -(B @ w))
        if failed:
            break
        if many:
            change = B @ change
        ends = np.where(change < 0.0, 0.0, high[left])
        steps = (ends - old) / (change + 1e-300)
        first = int(steps.argmin())
        step = min(float(steps[first]), 1.0)
        w += step * change @ B
        values[left] = old + step * change
        if step == 1.0:
            break
        values[left[first]] = ends[first]
        left = np.delete(left, first)
    t[rows], s_cone[cones] = values[: rows.size].clip(0.0, 1.0), values[rows.size :].clip(0.0)


def write(
    out: BoolArray,
    written: int,
    current: BoolArray,
    flip: bool,
    subset: IntArray,
    j: int,
    lift: FloatArray,
) -> None:
    first = out[written]
    first[:] = current != flip
    first[subset] = lift[: subset.size] > 0.0
    first[j] = lift[subset.size] > 0.0
    out[written + 1] = ~first
