"""The proof on one cone: a least-distance problem with bounds, and the check of its solution."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_search
from theorylab.convex_relu._elementary import eliminate
from theorylab.convex_relu._problem import IntArray
from theorylab.numerics.compiled import compiled

_EPS = float(np.finfo(np.float64).eps)


@compiled(borrows=True)
def least_distance(
    X: FloatArray,
    v: FloatArray,
    index: IntArray,
    m: int,
    t: FloatArray,
    s_cone: FloatArray,
    inverse: FloatArray,
    w: FloatArray,
    threshold: float,
    R: FloatArray,
    Z: FloatArray,
    g: FloatArray,
    q: FloatArray,
    margin: float,
    error: float,
    c: FloatArray,
    gram: FloatArray,
    free: IntArray,
) -> int:
    """Shorten w over t in [0, 1] and the generators of the dual cone by coordinate descent with
    Newton steps.

    Returns
    -------
    int
        1 if the cone is proved, 2 if the distance certainly exceeds the threshold, 0 if undecided.
    """
    d = R.shape[0]
    square = threshold * threshold
    # The generators of the dual cone of a narrow cone are ill-conditioned, and splitting is better.
    wide = narrowest(R) < 0.999
    for sweep in range(60):
        s = square_norm(w)
        if s <= square * (1.0 + 1e-13):
            for a in range(d):
                gram[a, d] = w[a]
            if _proves(v, index, m, t, w, threshold, R, Z, g, q, margin, error, c):
                return 1
            for a in range(d):
                w[a] = gram[a, d]
        elif _exceeds(X, v, index, m, t, s_cone, inverse, w, threshold, s):
            return 2
        n_free, moved = _sweep(X, v, index, m, t, s_cone, inverse, w, wide, free)
        if moved <= 1e-15 * threshold:
            break
        if sweep >= 2 and n_free > 0:
            _newton(X, v, index, t, s_cone, inverse, w, free, n_free)
    s = square_norm(w)
    if s <= square * (1.0 + 1e-13) and _proves(
        v, index, m, t, w, threshold, R, Z, g, q, margin, error, c
    ):
        return 1
    return 0


@compiled(borrows=True)
def square_norm(w: FloatArray) -> float:
    s = 0.0
    for value in w:
        s += value * value
    return s


@compiled(borrows=True)
def narrowest(R: FloatArray) -> float:
    """Return the least inner product of two rays."""
    d = R.shape[0]
    least = 1.0
    for k in range(d):
        for b in range(k):
            s = 0.0
            for a in range(d):
                s += R[k, a] * R[b, a]
            least = min(least, s)
    return least


@compiled(meanwhile=_meanwhile_search.exceeds, borrows=True)
def _exceeds(
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
    """Whether the distance certainly exceeds the threshold: it is at least the support of the set
    in the direction of w, whose square is given."""
    d = w.size
    low = square
    for k in range(d):
        p = 0.0
        size = 0.0
        for a in range(d):
            p += inverse[a, k] * w[a]
            size += abs(inverse[a, k])
        if p < -1e-12 * size * np.sqrt(square):
            return False
        low -= s_cone[k] * p
    for e in range(m):
        i = index[e]
        if v[i] < 0.0:
            p = 0.0
            for a in range(d):
                p += X[i, a] * w[a]
            p *= v[i]
            low += -t[e] * p if p > 0.0 else (1.0 - t[e]) * p
    return bool(low > threshold * np.sqrt(square))


@compiled(meanwhile=_meanwhile_search.sweep, borrows=True)
def _sweep(
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
    """Minimise over one coordinate after the other; return how many are off their bounds, written
    to ``free``, and the longest step."""
    d = w.size
    n_free = np.int64(0)
    moved = 0.0
    for e in range(m):
        i = index[e]
        if v[i] < 0.0:
            p = 0.0
            b = 0.0
            for a in range(d):
                p += X[i, a] * w[a]
                b += X[i, a] * X[i, a]
            bend = v[i] * b
            # Where it underflows, so does all that the coordinate moves.
            f = min(max(t[e] - p / bend, 0.0), 1.0) if bend < 0.0 else 0.0
            step = (f - t[e]) * v[i]
            t[e] = f
            if step != 0.0:
                for a in range(d):
                    w[a] += step * X[i, a]
                moved = max(moved, abs(step) * np.sqrt(b))
            if 0.0 < f < 1.0:
                free[n_free] = e
                n_free += 1
    for k in range(d if wide else 0):
        p = 0.0
        b = 0.0
        for a in range(d):
            p += inverse[a, k] * w[a]
            b += inverse[a, k] * inverse[a, k]
        # Where float64 tells two rays from none, rounding may have left nothing of this column.
        f = max(s_cone[k] - p / b, 0.0) if b > 0.0 else 0.0
        step = f - s_cone[k]
        s_cone[k] = f
        if step != 0.0:
            for a in range(d):
                w[a] += step * inverse[a, k]
            moved = max(moved, abs(step) * np.sqrt(b))
        if f > 0.0:
            free[n_free] = -1 - k
            n_free += 1
    return int(n_free), moved


@compiled(meanwhile=_meanwhile_search.proves, borrows=True)
def _proves(
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
    """Check the inequalities of the proof from scratch, lifting w along the centre by what rounding
    took from it."""
    d = R.shape[0]
    lift = 0.0
    for k in range(d):
        s = 0.0
        for a in range(d):
            s += g[a] * R[k, a]
        c[k] = s
    for e in range(m):
        weight = v[index[e]]
        convex = max(weight, 0.0)
        concave = min(weight, 0.0) * t[e]
        for k in range(d):
            c[k] += convex * max(Z[e, k], 0.0) + concave * Z[e, k]
    for k in range(d):
        s = 0.0
        p = 0.0
        for a in range(d):
            s += w[a] * R[k, a]
            p += q[a] * R[k, a]
        if p <= 0.0:
            return False
        lift = max(lift, (c[k] + margin + error * threshold - s) / p)
    if lift > 0.0:
        lift *= 1.0 + 1e-12
        for a in range(d):
            w[a] += lift * q[a]
    return bool(np.sqrt(square_norm(w)) * (1.0 + (2 * d + 4) * _EPS) <= threshold)


@compiled(meanwhile=_meanwhile_search.newton)
def _newton(
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
    """Take exact least-squares steps in the coordinates off their bounds, each up to the first
    bound, where a coordinate stays."""
    d = w.size
    columns = np.empty((n_free, d))
    for j in range(n_free):
        e = free[j]
        for a in range(d):
            columns[j, a] = v[index[e]] * X[index[e], a] if e >= 0 else inverse[a, -1 - e]
    left = free[:n_free].copy()
    system = np.empty((d, d + 1))
    change = np.empty(n_free)
    count = n_free
    while count > 0:
        # The step is (A^T A)^-1 A^T (-w), or A^T (A A^T)^-1 (-w) if there are more than d columns.
        size = min(count, d)
        for a in range(size):
            for b in range(size):
                s = 0.0
                if count <= d:
                    for k in range(d):
                        s += columns[a, k] * columns[b, k]
                else:
                    for j in range(count):
                        s += columns[j, a] * columns[j, b]
                system[a, b] = s
            if count <= d:
                s = 0.0
                for k in range(d):
                    s -= columns[a, k] * w[k]
                system[a, size] = s
            else:
                system[a, size] = -w[a]
        if not eliminate(system, size):
            return
        step = 1.0
        blocking = -1
        for j in range(count):
            if count <= d:
                change[j] = system[j, size] / system[j, j]
            else:
                s = 0.0
                for a in range(d):
                    s += columns[j, a] * system[a, size] / system[a, a]
                change[j] = s
            if not np.isfinite(change[j]):
                return
            e = left[j]
            old = t[e] if e >= 0 else s_cone[-1 - e]
            if change[j] < 0.0 and old + step * change[j] < 0.0:
                step = -old / change[j]
                blocking = j
            if e >= 0 and old + step * change[j] > 1.0:
                step = (1.0 - old) / change[j]
                blocking = j
        for j in range(count):
            e = left[j]
            if e >= 0:
                t[e] = min(max(t[e] + step * change[j], 0.0), 1.0)
            else:
                s_cone[-1 - e] = max(s_cone[-1 - e] + step * change[j], 0.0)
            for a in range(d):
                w[a] += step * change[j] * columns[j, a]
        if blocking < 0:
            return
        e = left[blocking]
        if e >= 0:
            t[e] = 0.0 if change[blocking] < 0.0 else 1.0
        else:
            s_cone[-1 - e] = 0.0
        count -= 1
        left[blocking] = left[count]
        for a in range(d):
            columns[blocking, a] = columns[count, a]
