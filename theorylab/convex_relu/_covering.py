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
from theorylab.convex_relu import _meanwhile_search
from theorylab.convex_relu._cone_proof import invert, least_distance, narrowest, square_norm
from theorylab.convex_relu._elementary import row_norms
from theorylab.convex_relu._problem import IntArray
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
    norms = row_norms(X)
    lipschitz = np.sqrt(square_norm(linear))
    for i in range(n):
        lipschitz += abs(v[i]) * norms[i]
    lipschitz *= 1.0 + (n + d) * _EPS
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
        level = np.int64(0)  # a literal would be another type to numba
        count[0] = _start(
            X, v, linear, norms, orthant, rays[0], errors[0], fixed[0], rows[0], z[0], mask[0]
        )
        while level >= 0:
            n_nodes += 1
            if n_nodes > max_nodes:
                return n_violations, n_nodes, n_tight, 0
            R = rays[level]
            Z = z[level]
            g = fixed[level]
            index = rows[level]
            error = _largest(errors[level]) + 8 * d * _EPS
            margin = lipschitz * (error + (n + 16) * _EPS)
            m = _drop(X, v, norms, g, index, Z, count[level], mask[level])
            count[level] = m
            centre, n_positive = _interpolate(v, R, g, Z, index, m, q, c, t)
            proved = False
            violated = centre > threshold
            if violated:
                for a in range(d):
                    new[a] = q[a]
            else:
                bound = _bound(R, q, c, margin, error)
                if bound * (1.0 + 8.0 * d * _EPS) <= threshold:
                    proved = True
                    bound = max(bound, 0.0)
                    for a in range(d):
                        w[a] = bound * q[a]
                elif invert(R, inverse, gram):
                    for a in range(d):
                        w[a] = 0.0
                        s_cone[a] = 0.0
                        for k in range(d):
                            w[a] += inverse[a, k] * c[k]
                    outcome = least_distance(
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
                        length = np.sqrt(square_norm(w))
                        for a in range(d):
                            new[a] = w[a] / length
                        violated = True
            if proved:
                if keep_tight > 0 and np.sqrt(square_norm(w)) > (1.0 - 1e-6) * threshold:
                    if n_tight < keep_tight:
                        _keep(
                            v,
                            index,
                            m,
                            t,
                            w,
                            R,
                            mask[level],
                            tight_rays[n_tight],
                            tight_weights[n_tight],
                            tight_multipliers[n_tight],
                        )
                    n_tight += 1
                level -= 1
                continue
            if violated:
                value = _value(X, v, linear, new)
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
            first, second, weight = _edge(v, norms, R, Z, index, m, n_positive)
            child = level + 1
            _divide(X, level, first, second, weight, m, rays, errors, rows, z, new)
            count[child] = m
            for a in range(d):
                fixed[child, a] = g[a]
            if keep_tight > 0:
                for i in range(n):
                    mask[child, i] = mask[level, i]
            level = child
    return n_violations, n_nodes, n_tight, 1


@compiled
def _largest(x: FloatArray) -> float:
    largest = x[0]
    for value in x:
        largest = max(largest, value)
    return float(largest)


@compiled
def _start(
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


@compiled(meanwhile=_meanwhile_search.drop)
def _drop(
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


@compiled(meanwhile=_meanwhile_search.interpolate)
def _interpolate(
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
    return centre / length, n_positive


@compiled
def _bound(R: FloatArray, q: FloatArray, c: FloatArray, margin: float, error: float) -> float:
    """Return how long w must be along the centre."""
    d = q.size
    bound = -np.inf
    for k in range(d):
        s = 0.0
        for a in range(d):
            s += q[a] * R[k, a]
        bound = max(bound, (c[k] + margin) / (s - error))
    return float(bound)


@compiled
def _value(X: FloatArray, v: FloatArray, linear: FloatArray, u: FloatArray) -> float:
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


@compiled
def _keep(
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


@compiled
def _edge(
    v: FloatArray,
    norms: FloatArray,
    R: FloatArray,
    Z: FloatArray,
    index: IntArray,
    m: int,
    n_positive: int,
) -> tuple[int, int, float]:
    """Return the edge to split and where: at a kink of a row with positive v when few are left or
    the cone is narrow, else halfway along the longest."""
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
        small = 4.0 * _EPS * norms[index[chosen]]
        best = 4.0
        for k in range(d):
            for b in range(d):
                if Z[chosen, k] > small and Z[chosen, b] < -small:
                    s = 0.0
                    for a in range(d):
                        s += R[k, a] * R[b, a]
                    if s < best:
                        best = s
                        first = k
                        second = b
        if first >= 0:
            return first, second, -Z[chosen, second] / (Z[chosen, first] - Z[chosen, second])
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
    return first, second, 0.5


@compiled(meanwhile=_meanwhile_search.divide)
def _divide(
    X: FloatArray,
    level: int,
    first: int,
    second: int,
    weight: float,
    m: int,
    rays: FloatArray,
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
