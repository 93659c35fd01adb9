r"""The dual constraint of ReLU training, decided by a covering of the sphere with cones.

For $h_v(u)=v^\top(Xu)_+$ the constraint $\max_{\|u\|\le1}h_v(u)\le\tau$ is split over
simplicial cones. On the cone spanned by rays $r_1,\dots,r_d$ any $t\in[0,1]^n$ and any
$w$ with

$$\sum_{v_i>0}v_i(x_i^\top r_k)_+ + \sum_{v_i<0}t_iv_i\,x_i^\top r_k \;\le\; w^\top
r_k\quad(k\le d),\qquad \|w\|\le\tau$$

prove $h_v\le\tau\|u\|$ there: the first sum is convex, so it lies below its interpolation,
and $v_i(z)_+\le t_iv_iz$ for negative $v_i$. The best $(t,w)$ is a least-distance
problem with bounds. A cone without such a proof is split, near a decision at the kink of a row with
$v_i>0$; on a cone that no such row crosses $h_v$ is concave and the proof is exact, on
cells and on faces. So the covering ends after finitely many splits, visits only the cells near the
maximum, and needs no enumeration of the arrangement and no general position.

All inequalities are checked with a margin that bounds every rounding error made, so that the
covering is a proof for the real numbers the arrays stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.numerics.compiled import compiled

_EPS = float(np.finfo(np.float64).eps)
_DEPTH = 160


@compiled
def cover(
    X: FloatArray,
    v: FloatArray,
    linear: FloatArray,
    threshold: float,
    max_violations: int,
    max_nodes: int,
    directions: FloatArray,
    values: FloatArray,
    tight_rays: FloatArray,
    tight_weights: FloatArray,
    tight_multipliers: FloatArray,
) -> tuple[int, int, int, int]:
    """Cover the sphere with cones on which ``h_v(u) + linear @ u <= threshold`` is proved.

    Directions with a larger value are written to ``directions`` and ``values`` instead of refining
    their cone; at ``max_violations`` of them the search stops. Leaves whose proof has less than
    1e-6 relative slack are written to the ``tight`` arrays.

    Returns
    -------
    tuple
        Number of violations, of nodes, of tight leaves, and 1 if every cone was either proved or
        violated.
    """
    n, d = X.shape
    norms = np.empty(n)
    lipschitz = 0.0
    for i in range(n):
        s = 0.0
        for a in range(d):
            s += X[i, a] * X[i, a]
        norms[i] = np.sqrt(s)
        lipschitz += abs(v[i]) * norms[i]
    lipschitz = (lipschitz + np.sqrt((linear * linear).sum())) * (1.0 + (n + d) * _EPS)
    rays = np.empty((_DEPTH + 1, d, d))
    # Distance of each stored ray from the real one it stands for.
    errors = np.zeros((_DEPTH + 1, d))
    rows = np.empty((_DEPTH + 1, n), dtype=np.int64)
    z = np.empty((_DEPTH + 1, n, d))
    count = np.empty(_DEPTH + 1, dtype=np.int64)
    fixed = np.empty((_DEPTH + 1, d))
    mask = np.zeros((_DEPTH + 1, n), dtype=np.int8)
    t = np.empty(n)
    s_cone = np.empty(d)
    c = np.empty(d)
    w = np.empty(d)
    q = np.empty(d)
    inverse = np.empty((d, d))
    gram = np.empty((d, d + 1))
    free = np.empty(d + n, dtype=np.int64)
    new = np.empty(d)
    n_violations = 0
    n_nodes = 0
    n_tight = 0
    keep_tight = tight_rays.shape[0]
    for orthant in range(2**d):
        level = 0
        for k in range(d):
            for a in range(d):
                rays[0, k, a] = 0.0
            rays[0, k, k] = 1.0 if (orthant >> k) & 1 else -1.0
            errors[0, k] = 0.0
        m = 0
        for a in range(d):
            fixed[0, a] = linear[a]
        for i in range(n):
            if v[i] != 0.0 and norms[i] > 0.0:
                rows[0, m] = i
                for k in range(d):
                    z[0, m, k] = X[i, k] * rays[0, k, k]
                m += 1
        count[0] = m
        if keep_tight > 0:
            for i in range(n):
                mask[0, i] = 0
        while level >= 0:
            n_nodes += 1
            if n_nodes > max_nodes:
                return n_violations, n_nodes, n_tight, 0
            R = rays[level]
            Z = z[level]
            g = fixed[level]
            index = rows[level]
            error = errors[level].max() + 8 * d * _EPS
            margin = lipschitz * (error + (n + 16) * _EPS)
            # Rows of constant sign leave the list; with negative v only when their kink is further
            # away than the cone is wide, because next to a maximiser on that kink the proof needs a
            # slope between 0 and 1.
            m = 0
            for e in range(count[level]):
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
                    if keep_tight > 0:
                        mask[level, i] = 1
                elif high > small:
                    if m != e:
                        index[m] = i
                        for k in range(d):
                            Z[m, k] = Z[e, k]
                    m += 1
            count[level] = m
            # Value at the centre, slopes t at the centre, interpolated values c.
            length = 0.0
            for a in range(d):
                q[a] = 0.0
                for k in range(d):
                    q[a] += R[k, a]
                length += q[a] * q[a]
            length = np.sqrt(length)
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
            for e in range(m):
                i = index[e]
                total = 0.0
                for k in range(d):
                    total += Z[e, k]
                if total > 0.0:
                    centre += v[i] * total
                if v[i] > 0.0:
                    n_positive += 1
                    for k in range(d):
                        if Z[e, k] > 0.0:
                            c[k] += v[i] * Z[e, k]
                else:
                    t[e] = 1.0 if total > 0.0 else 0.0
                    if t[e] == 1.0:
                        for k in range(d):
                            c[k] += v[i] * Z[e, k]
            centre /= length
            proved = False
            violated = centre > threshold
            if violated:
                for a in range(d):
                    new[a] = q[a]
            else:
                bound = -np.inf
                for k in range(d):
                    s = 0.0
                    for a in range(d):
                        s += q[a] * R[k, a]
                    bound = max(bound, (c[k] + margin) / (s - error))
                if bound * (1.0 + 8.0 * d * _EPS) <= threshold:
                    proved = True
                    bound = max(bound, 0.0)
                    for a in range(d):
                        w[a] = bound * q[a]
                elif _invert(R, inverse, gram):
                    for a in range(d):
                        s = 0.0
                        for k in range(d):
                            s += inverse[a, k] * c[k]
                        w[a] = s
                    for k in range(d):
                        s_cone[k] = 0.0
                    outcome = _least_distance(
                        X,
                        v,
                        index,
                        m,
                        t,
                        s_cone,
                        inverse,
                        w,
                        threshold,
                        R,
                        Z,
                        g,
                        q,
                        margin,
                        error,
                        c,
                        gram,
                        free,
                    )
                    proved = outcome == 1
                    if not proved and n_positive == 0:
                        # h is concave here and w / |w| near its maximiser, perhaps just outside.
                        length = 0.0
                        for a in range(d):
                            length += w[a] * w[a]
                        length = np.sqrt(length)
                        for a in range(d):
                            new[a] = w[a] / length
                        violated = True
            if proved:
                if keep_tight > 0:
                    s = 0.0
                    for a in range(d):
                        s += w[a] * w[a]
                    if np.sqrt(s) > (1.0 - 1e-6) * threshold:
                        if n_tight < keep_tight:
                            for i in range(n):
                                tight_multipliers[n_tight, i] = mask[level, i]
                            for e in range(m):
                                tight_multipliers[n_tight, index[e]] = (
                                    t[e] if v[index[e]] < 0.0 else -1.0
                                )
                            for a in range(d):
                                tight_weights[n_tight, a] = w[a]
                                for k in range(d):
                                    tight_rays[n_tight, k, a] = R[k, a]
                        n_tight += 1
                level -= 1
                continue
            if violated:
                value = (linear * new).sum()
                for i in range(n):
                    s = 0.0
                    for a in range(d):
                        s += X[i, a] * new[a]
                    if s > 0.0:
                        value += v[i] * s
                if value > threshold:
                    if n_violations < directions.shape[0]:
                        for a in range(d):
                            directions[n_violations, a] = new[a]
                        values[n_violations] = value
                    n_violations += 1
                    if n_violations >= max_violations:
                        return n_violations, n_nodes, n_tight, 0
                    level -= 1
                    continue
            if level == _DEPTH or d == 1:
                return n_violations, n_nodes, n_tight, 0
            # Split: at a kink of a row with positive v when few are left or the cone is narrow,
            # else halve the longest edge.
            closest = 1.0
            for k in range(d):
                for b in range(k):
                    s = 0.0
                    for a in range(d):
                        s += R[k, a] * R[b, a]
                    closest = min(closest, s)
            first = -1
            second = -1
            weight = 0.5
            if 0 < n_positive <= 2 or d == 2 or closest > 0.98:
                gap = 0.0
                chosen = -1
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
                if chosen >= 0:
                    best = 4.0
                    for k in range(d):
                        for b in range(d):
                            if (
                                Z[chosen, k] > 4.0 * _EPS * norms[index[chosen]]
                                and Z[chosen, b] < -4.0 * _EPS * norms[index[chosen]]
                            ):
                                s = 0.0
                                for a in range(d):
                                    s += R[k, a] * R[b, a]
                                if s < best:
                                    best = s
                                    first = k
                                    second = b
                    if first >= 0:
                        weight = -Z[chosen, second] / (Z[chosen, first] - Z[chosen, second])
            if first < 0:
                best = 4.0
                for k in range(d):
                    for b in range(k):
                        s = 0.0
                        for a in range(d):
                            s += R[k, a] * R[b, a]
                        if s < best:
                            best = s
                            first = k
                            second = b
            length = 0.0
            for a in range(d):
                new[a] = weight * R[first, a] + (1.0 - weight) * R[second, a]
                length += new[a] * new[a]
            length = np.sqrt(length)
            for a in range(d):
                new[a] /= length
            error = (
                weight * errors[level, first] + (1.0 - weight) * errors[level, second]
            ) / length + 8 * d * _EPS
            child = level + 1
            for k in range(d):
                errors[child, k] = errors[level, k]
                for a in range(d):
                    rays[child, k, a] = R[k, a]
            errors[child, first] = error
            errors[level, second] = error
            for a in range(d):
                fixed[child, a] = g[a]
                rays[child, first, a] = new[a]
                R[second, a] = new[a]
            if keep_tight > 0:
                for i in range(n):
                    mask[child, i] = mask[level, i]
            count[child] = m
            for e in range(m):
                i = index[e]
                rows[child, e] = i
                s = 0.0
                for a in range(d):
                    s += X[i, a] * new[a]
                for k in range(d):
                    z[child, e, k] = Z[e, k]
                z[child, e, first] = s
                Z[e, second] = s
            level = child
    return n_violations, n_nodes, n_tight, 1


@compiled
def _invert(R: FloatArray, inverse: FloatArray, work: FloatArray) -> bool:
    """Write the inverse of a small matrix by Gauss-Jordan elimination with pivoting."""
    d = R.shape[0]
    for a in range(d):
        for b in range(d):
            work[a, b] = R[a, b]
            inverse[a, b] = 1.0 if a == b else 0.0
    for k in range(d):
        pivot = k
        for a in range(k + 1, d):
            if abs(work[a, k]) > abs(work[pivot, k]):
                pivot = a
        if abs(work[pivot, k]) < 1e-14:
            return False
        if pivot != k:
            for b in range(d):
                swap = work[k, b]
                work[k, b] = work[pivot, b]
                work[pivot, b] = swap
                swap = inverse[k, b]
                inverse[k, b] = inverse[pivot, b]
                inverse[pivot, b] = swap
        f = 1.0 / work[k, k]
        for b in range(d):
            work[k, b] *= f
            inverse[k, b] *= f
        for a in range(d):
            if a != k:
                f = work[a, k]
                if f != 0.0:
                    for b in range(d):
                        work[a, b] -= f * work[k, b]
                        inverse[a, b] -= f * inverse[k, b]
    return True


@compiled
def _proves(
    v: FloatArray,
    index: NDArray[np.int64],
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
        i = index[e]
        if v[i] > 0.0:
            for k in range(d):
                if Z[e, k] > 0.0:
                    c[k] += v[i] * Z[e, k]
        else:
            f = v[i] * t[e]
            for k in range(d):
                c[k] += f * Z[e, k]
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
    s = 0.0
    for a in range(d):
        s += w[a] * w[a]
    return bool(np.sqrt(s) * (1.0 + (2 * d + 4) * _EPS) <= threshold)


@compiled
def _least_distance(
    X: FloatArray,
    v: FloatArray,
    index: NDArray[np.int64],
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
    free: NDArray[np.int64],
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
    shortest = 1.0
    for k in range(d):
        for e in range(k):
            p = 0.0
            for a in range(d):
                p += R[k, a] * R[e, a]
            shortest = min(shortest, p)
    # The generators of the dual cone of a narrow cone are ill-conditioned, and splitting is better.
    wide = shortest < 0.999
    for sweep in range(60):
        s = 0.0
        for a in range(d):
            s += w[a] * w[a]
        if s <= square * (1.0 + 1e-13):
            for a in range(d):
                gram[a, d] = w[a]
            if _proves(v, index, m, t, w, threshold, R, Z, g, q, margin, error, c):
                return 1
            for a in range(d):
                w[a] = gram[a, d]
        else:
            # Distance to the set is at least its support in the direction of w.
            low = 0.0
            for k in range(d):
                p = 0.0
                size = 0.0
                for a in range(d):
                    p += inverse[a, k] * w[a]
                    size += abs(inverse[a, k])
                if p < -1e-12 * size * np.sqrt(s):
                    low = -np.inf
                    break
                low -= s_cone[k] * p
            if low > -np.inf:
                low += s
                for e in range(m):
                    i = index[e]
                    if v[i] < 0.0:
                        p = 0.0
                        for a in range(d):
                            p += X[i, a] * w[a]
                        p *= v[i]
                        low += -t[e] * p if p > 0.0 else (1.0 - t[e]) * p
                if low > threshold * np.sqrt(s):
                    return 2
        n_free = 0
        moved = 0.0
        for e in range(m):
            i = index[e]
            if v[i] < 0.0:
                p = 0.0
                b = 0.0
                for a in range(d):
                    p += X[i, a] * w[a]
                    b += X[i, a] * X[i, a]
                f = min(max(t[e] - p / (v[i] * b), 0.0), 1.0)
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
            f = max(s_cone[k] - p / b, 0.0)
            step = f - s_cone[k]
            s_cone[k] = f
            if step != 0.0:
                for a in range(d):
                    w[a] += step * inverse[a, k]
                moved = max(moved, abs(step) * np.sqrt(b))
            if f > 0.0:
                free[n_free] = -1 - k
                n_free += 1
        if moved <= 1e-15 * threshold:
            break
        if sweep >= 2 and 0 < n_free <= d:
            _newton(X, v, index, t, s_cone, inverse, w, gram, free, n_free)
    s = 0.0
    for a in range(d):
        s += w[a] * w[a]
    if s <= square * (1.0 + 1e-13) and _proves(
        v, index, m, t, w, threshold, R, Z, g, q, margin, error, c
    ):
        return 1
    return 0


@compiled
def _newton(
    X: FloatArray,
    v: FloatArray,
    index: NDArray[np.int64],
    t: FloatArray,
    s_cone: FloatArray,
    inverse: FloatArray,
    w: FloatArray,
    gram: FloatArray,
    free: NDArray[np.int64],
    n_free: int,
) -> None:
    """Take the exact least-squares step in the coordinates off their bounds, up to the first
    bound."""
    d = w.size
    columns = np.empty((n_free, d))
    for j in range(n_free):
        e = free[j]
        for a in range(d):
            columns[j, a] = v[index[e]] * X[index[e], a] if e >= 0 else inverse[a, -1 - e]
    system = np.empty((n_free, n_free + 1))
    for j in range(n_free):
        for k in range(n_free):
            s = 0.0
            for a in range(d):
                s += columns[j, a] * columns[k, a]
            system[j, k] = s
        s = 0.0
        for a in range(d):
            s -= columns[j, a] * w[a]
        system[j, n_free] = s
    for k in range(n_free):
        pivot = k
        for a in range(k + 1, n_free):
            if abs(system[a, k]) > abs(system[pivot, k]):
                pivot = a
        if system[pivot, k] == 0.0:
            return
        if pivot != k:
            for b in range(n_free + 1):
                swap = system[k, b]
                system[k, b] = system[pivot, b]
                system[pivot, b] = swap
        for a in range(n_free):
            if a != k:
                f = system[a, k] / system[k, k]
                for b in range(k, n_free + 1):
                    system[a, b] -= f * system[k, b]
    step = 1.0
    for j in range(n_free):
        change = system[j, n_free] / system[j, j]
        if not np.isfinite(change):
            return
        e = free[j]
        old = t[e] if e >= 0 else s_cone[-1 - e]
        if change < 0.0 and old + change < 0.0:
            step = min(step, -old / change)
        if e >= 0 and old + change > 1.0:
            step = min(step, (1.0 - old) / change)
    for j in range(n_free):
        change = step * system[j, n_free] / system[j, j]
        e = free[j]
        if e >= 0:
            t[e] = min(max(t[e] + change, 0.0), 1.0)
        else:
            s_cone[-1 - e] = max(s_cone[-1 - e] + change, 0.0)
        for a in range(d):
            w[a] += change * columns[j, a]
