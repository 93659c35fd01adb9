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
covering is a proof for the real numbers the arrays stand for.

A covering can follow that of a dual point near by: a cone that was divided then, into parts that
were divided too, is divided in the same place, and no proof is sought there but the simplest."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._cone_proof import least_distance, narrowest, square_norm
from theorylab.convex_relu._covering_steps import (
    bound_along,
    divide,
    drop,
    edge,
    interpolate,
    keep,
    largest,
    middle,
    start,
    value_at,
)
from theorylab.convex_relu._elementary import row_norms
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
    before: FloatArray,
    after: FloatArray,
    tight_rays: FloatArray,
    tight_weights: FloatArray,
    tight_multipliers: FloatArray,
) -> tuple[int, int, int, int]:
    """Cover the sphere with cones on which ``h_v(u) + linear @ u <= threshold`` is proved.

    Directions with a larger value are written to ``directions`` and ``values`` instead of refining
    their cone; at ``max_violations`` of them the search stops. Leaves whose proof has less than
    1e-6 relative slack are written to the ``tight`` arrays.

    A node is a row of ``after``, shape (N, 4), as long as there is room: the rays between which its
    cone is divided (-1 if it is not), and the weight of the first in the new one; the part without
    the second ray is the next row, and the last number there is the row of the other part. A
    covering of the same rows that follows has these rows as its ``before``.

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
    # Of every cone its rays, a row each, and the inverse of this matrix.
    rays = np.empty((_DEPTH + 1, d, d))
    inverses = np.empty((_DEPTH + 1, d, d))
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
    gram = np.empty((d, d + 1))
    free = np.empty(d + n, dtype=np.int64)
    new = np.empty(d)
    # Rows of before and after for the cone at hand, and for the first of its level.
    place = np.empty(_DEPTH + 1, dtype=np.int64)
    top = np.empty(_DEPTH + 1, dtype=np.int64)
    place[0] = 0 if len(before) > 0 else -1
    n_violations = 0
    n_nodes = 0
    n_tight = 0
    keep_tight = tight_rays.shape[0]
    for orthant in range(2**d):
        level = np.int64(0)  # a literal would be another type to numba
        count[0] = start(
            X, v, linear, norms, orthant, rays[0], errors[0], fixed[0], rows[0], z[0], mask[0]
        )
        # A diagonal of signs is its own inverse.
        for a in range(d):
            for k in range(d):
                inverses[0, a, k] = rays[0, a, k]
        top[0] = n_nodes
        root = place[0]
        while level >= 0:
            node = n_nodes
            n_nodes += 1
            if n_nodes > max_nodes:
                return n_violations, n_nodes, n_tight, 0
            at = place[level]
            followed = at >= 0 and before[at, 0] >= 0.0
            other = np.int64(before[at + 1, 3]) if followed else np.int64(-1)
            hopeless = followed and (before[at + 1, 0] >= 0.0 or before[other, 0] >= 0.0)
            R = rays[level]
            Z = z[level]
            g = fixed[level]
            index = rows[level]
            error = largest(errors[level]) + 8 * d * _EPS
            margin = lipschitz * (error + (n + 16) * _EPS)
            m = drop(X, v, norms, g, index, Z, count[level], mask[level])
            count[level] = m
            centre, n_positive = interpolate(v, R, g, Z, index, m, q, c, t)
            proved = False
            violated = centre > threshold
            if violated:
                for a in range(d):
                    new[a] = q[a]
            else:
                bound = bound_along(R, q, c, margin, error)
                if bound * (1.0 + 8.0 * d * _EPS) <= threshold:
                    proved = True
                    bound = max(bound, 0.0)
                    for a in range(d):
                        w[a] = bound * q[a]
                # What is exact is tried in any case.
                elif n_positive == 0 or (not hopeless and middle(R, c) <= threshold):
                    inverse = inverses[level]
                    for a in range(d):
                        s_cone[a] = 0.0
                        if n_positive == 0:
                            # The interpolation is the gradient at the centre.
                            w[a] = g[a]
                            for e in range(m):
                                w[a] += t[e] * v[index[e]] * X[index[e], a]
                        else:
                            w[a] = 0.0
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
                        keep(
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
                _close(after, node, top[level])
                level -= 1
                continue
            value = value_at(X, v, linear, new) if violated else -np.inf
            if value <= threshold and narrowest(R) > 0.999:
                # Where h passes the threshold no cone is proved, however narrow.
                best = 0
                for k in range(d):
                    if c[k] > c[best]:
                        best = k
                for a in range(d):
                    new[a] = R[best, a]
                value = value_at(X, v, linear, new)
            if value > threshold:
                if n_violations < directions.shape[0]:
                    for a in range(d):
                        directions[n_violations, a] = new[a]
                    values[n_violations] = value
                n_violations += 1
                if n_violations >= max_violations:
                    return n_violations, n_nodes, n_tight, 0
                _close(after, node, top[level])
                level -= 1
                continue
            if level == _DEPTH or d == 1:
                return n_violations, n_nodes, n_tight, 0
            if followed:
                first, second = np.int64(before[at, 0]), np.int64(before[at, 1])
                weight = before[at, 2]
            else:
                first, second, weight = edge(v, norms, R, Z, index, m, n_positive)
            if node < len(after):
                after[node, 0] = first
                after[node, 1] = second
                after[node, 2] = weight
            child = level + 1
            place[level] = other
            place[child] = at + 1 if followed else -1
            top[child] = n_nodes
            divide(X, level, first, second, weight, m, rays, inverses, errors, rows, z, new)
            count[child] = m
            for a in range(d):
                fixed[child, a] = g[a]
            if keep_tight > 0:
                for i in range(n):
                    mask[child, i] = mask[level, i]
            level = child
        if root >= 0:
            place[0] = np.int64(before[root, 3])
    return n_violations, n_nodes, n_tight, 1


@compiled(borrows=True)
def _close(after: FloatArray, node: int, top: int) -> None:
    """Write that a node is not divided, and that it is the last below a row."""
    if node < len(after):
        after[node, 0] = -1.0
        after[top, 3] = node + 1


class Coverings:
    """The trees of coverings with cones of the same data, by sign and threshold; see ``cover``."""

    def __init__(self) -> None:
        self.room = np.empty((65_536, 4))
        self.kept: dict[int, dict[float, FloatArray]] = {1: {}, -1: {}}

    def nearest(self, sign: int, threshold: float) -> FloatArray:
        """Return the tree for the nearest threshold, or an empty one."""
        kept = self.kept[sign]
        nearest = min(kept, key=lambda other: abs(other - threshold), default=None)
        return self.room[:0] if nearest is None else kept[nearest]

    def add(self, sign: int, threshold: float, tree: FloatArray) -> None:
        """Keep a copy of a tree, and of those before it the last."""
        kept = self.kept[sign]
        kept[threshold] = tree.copy()
        if len(kept) > 100:
            del kept[next(iter(kept))]
