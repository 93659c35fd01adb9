r"""Projection onto the cones of given activation patterns.

For a pattern D the largest value of $g^\top u$, $g=X^\top Dv$, over unit vectors in
$K=\{u:(2D-I)Xu\ge0\}$ is $\|\Pi_K(g)\|=\min_{\lambda\ge0}\|g+X^\top(2D-I)\lambda\|$: a
non-negative least-squares problem, solved by the active-set method of Lawson and Hanson from the
support of the last solution. Any $\lambda\ge0$ gives an upper bound, which is all a
certificate needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_patterns
from theorylab.convex_relu._elementary import solve
from theorylab.convex_relu._problem import BoolArray, IntArray
from theorylab.numerics.compiled import compiled

_EPS = float(np.finfo(np.float64).eps)


@dataclass
class ConeSearch:
    """Projections onto given cones, both signs, warm-started from call to call."""

    X: FloatArray
    patterns: BoolArray

    def __post_init__(self) -> None:
        count, d = self.patterns.shape[0], self.X.shape[1]
        self.weights = self.patterns.astype(np.float64)
        self.norms = np.linalg.norm(self.X, axis=1)
        self.support = {s: np.full((count, d), -1, dtype=np.int64) for s in (1, -1)}
        self.multipliers = {s: np.zeros((count, d)) for s in (1, -1)}
        self.nearest = np.empty((count, d))

    def __call__(self, v: FloatArray, sign: int, threshold: float) -> tuple[FloatArray, FloatArray]:
        """Return upper bounds of the projections' norms, exact above the threshold, and the
        projections, shape (P, d)."""
        g = self.weights @ (sign * v[:, None] * self.X)
        values = np.empty(len(g))
        project(
            self.X,
            self.norms,
            self.patterns,
            g,
            threshold,
            self.support[sign],
            self.multipliers[sign],
            self.nearest,
            values,
        )
        return values, self.nearest


def cone_margin(X: FloatArray, v: FloatArray, search: ConeSearch) -> float:
    """Bound the rounding error of ``g + X.T (2D - I) lambda`` and its norm."""
    n, d = X.shape
    largest = max(
        float(np.max(np.abs(m).sum(axis=1), initial=0.0)) for m in search.multipliers.values()
    )
    total = float(np.abs(v) @ search.norms) + largest * float(search.norms.max(initial=0.0))
    return float(2.0 * (n + 2 * d + 4) * _EPS * total)


@compiled(meanwhile=_meanwhile_patterns.project)
def project(
    X: FloatArray,
    norms: FloatArray,
    patterns: BoolArray,
    g: FloatArray,
    threshold: float,
    support: IntArray,
    multipliers: FloatArray,
    nearest: FloatArray,
    values: FloatArray,
) -> None:
    """Project ``g_i`` onto the cone of pattern i for every i, stopping where the norm is proved to
    be below the threshold.

    Parameters
    ----------
    X, norms
        Data, shape (n, d), and their row norms.
    patterns, g
        Patterns, shape (P, n), and vectors, shape (P, d).
    threshold
        Norm below which the projection need not be completed.
    support, multipliers
        Rows with positive multiplier (-1 where unused) and the multipliers, shape (P, d): a start
        on entry, the solution on exit.
    nearest, values
        Written: ``g + X.T (2D - I) multipliers``, shape (P, d), and its norm, an upper bound of the
        projection's.
    """
    count, d = g.shape
    columns = np.empty((d, d))
    for p in range(count):
        w = nearest[p]
        rows = support[p]
        lam = multipliers[p]
        size = np.int64(0)  # a literal would be another type to numba
        for k in range(d):
            if rows[k] >= 0:
                rows[size] = rows[k]
                size += 1
        for attempt in range(10 * (d + 3)):
            size = _least_squares(X, patterns[p], g[p], rows, lam, size, columns, w, attempt == 0)
            values[p] = _length(w)
            if values[p] <= threshold or size == d:
                break
            which = _most_violated(X, norms, patterns[p], w, 1e-13 * values[p])
            if which < 0 or _listed(rows, size, which):
                break
            rows[size] = which
            lam[size] = 0.0
            size += 1
        for k in range(size, d):
            rows[k] = -1
            lam[k] = 0.0


@compiled(borrows=True)
def _length(w: FloatArray) -> float:
    s = 0.0
    for value in w:
        s += value * value
    return float(np.sqrt(s))


@compiled(borrows=True)
def _listed(rows: IntArray, size: int, which: int) -> bool:
    listed = False
    for k in range(size):
        listed = listed or rows[k] == which
    return listed


@compiled(borrows=True)
def _most_violated(
    X: FloatArray, norms: FloatArray, pattern: BoolArray, w: FloatArray, tolerance: float
) -> int:
    """Return the row whose side is missed by most, or -1 if all are kept up to the tolerance."""
    n, d = X.shape
    worst = -tolerance
    which = -1
    for i in range(n):
        if norms[i] > 0.0:
            t = 0.0
            for a in range(d):
                t += X[i, a] * w[a]
            t /= norms[i]
            if not pattern[i]:
                t = -t
            if t < worst:
                worst = t
                which = i
    return which


@compiled(borrows=True)
def _normal_equations(
    X: FloatArray,
    pattern: BoolArray,
    g: FloatArray,
    rows: IntArray,
    size: int,
    columns: FloatArray,
    system: FloatArray,
    right: FloatArray,
) -> None:
    """Write the listed rows with the signs of their sides, and their normal equations with g."""
    d = g.size
    for k in range(size):
        for a in range(d):
            columns[k, a] = X[rows[k], a] if pattern[rows[k]] else -X[rows[k], a]
    for k in range(size):
        right[k] = 0.0
        for a in range(d):
            right[k] -= columns[k, a] * g[a]
        for e in range(k + 1):
            s = 0.0
            for a in range(d):
                s += columns[k, a] * columns[e, a]
            system[k, e] = s
            system[e, k] = s


@compiled
def _least_squares(
    X: FloatArray,
    pattern: BoolArray,
    g: FloatArray,
    rows: IntArray,
    lam: FloatArray,
    size: int,
    columns: FloatArray,
    w: FloatArray,
    cold: bool,
) -> int:
    """Minimise over the multipliers of the listed rows, dropping those that would become negative;
    return their number."""
    d = g.size
    while size > 0:
        system = np.empty((size, size))
        right = np.empty(size)
        _normal_equations(X, pattern, g, rows, size, columns, system, right)
        solved = solve(system, right, 1e-13)
        step = 1.0
        worst = -1
        if solved:
            for k in range(size):
                if right[k] <= 0.0:
                    if cold:
                        step = 0.0
                        if worst < 0 or right[k] < right[worst]:
                            worst = k
                    else:
                        t = lam[k] / (lam[k] - right[k]) if lam[k] > right[k] else 0.0
                        if t < step or worst < 0:
                            step = t
                            worst = k
        else:
            worst = size - 1
            step = 0.0
        if worst < 0:
            for k in range(size):
                lam[k] = right[k]
            break
        if not cold and solved:
            for k in range(size):
                lam[k] += step * (right[k] - lam[k])
        for k in range(worst, size - 1):
            rows[k] = rows[k + 1]
            lam[k] = lam[k + 1]
        size -= 1
    for a in range(d):
        w[a] = g[a]
    for k in range(size):
        s = lam[k] if pattern[rows[k]] else -lam[k]
        for a in range(d):
            w[a] += s * X[rows[k], a]
    return size
