r"""The cells of lines in general position, one for every vertex of a slice.

Signs are certified by a bound on the rounding error of determinants of unit rows."""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_search
from theorylab.convex_relu._elementary import ascending, complete, orthonormalise
from theorylab.convex_relu._problem import BoolArray, IntArray
from theorylab.numerics.compiled import compiled

_EPS = float(np.finfo(np.float64).eps)


def generic_cells(rows: FloatArray) -> BoolArray | None:
    """Return the cells of lines in general position, or None when a sign could not be certified."""
    n, r = rows.shape
    scaled = rows / np.abs(rows).max(axis=1, keepdims=True)
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    if r == 1:
        return np.array([unit[:, 0] > 0, unit[:, 0] < 0])
    if n < r:
        return None
    mixed = unit @ _rotation(r)
    cells = np.empty((2 * sum(comb(n - 1, k) for k in range(r)), n), dtype=np.bool_)
    count, dimension = 0, r
    while dimension > 0:
        work = np.ascontiguousarray(mixed[:, :dimension])
        if dimension == 1:
            if np.abs(work).min() <= 64 * r * r * _EPS:
                return None
            cells[count] = work[:, 0] > 0
            cells[count + 1] = work[:, 0] < 0
            count += 2
        else:
            work /= np.linalg.norm(work, axis=1, keepdims=True)
            written = _sweep(work, cells[count:], 64 * r * r * _EPS)
            if written < 0:
                return None
            count += written
        dimension -= 2
    return cells if count == cells.shape[0] else None


@cache
def _rotation(r: int) -> FloatArray:
    """Return a fixed generic orthogonal matrix: its last two columns are the slicing and the
    sweeping functional."""
    q, _ = np.linalg.qr(np.random.default_rng(20220103).standard_normal((r, r)))
    return np.ascontiguousarray(q)


@compiled
def _sweep(rows: FloatArray, out: BoolArray, tolerance: float) -> int:
    """Write the cells with a lowest vertex and their antipodes; return their number, or -1 for an
    uncertain sign.

    The last coordinate is the slicing functional q, the one before it the functional eta. For every
    set I of r - 2 rows the plane orthogonal to them is swept by angle; at the crossing with row j >
    max(I) the cell above the vertex is written."""
    n, r = rows.shape
    m = r - 2
    subset = np.arange(m)
    basis = np.zeros((r, r))
    volume = np.ones(m + 1)
    p = np.empty(n)
    q = np.empty(n)
    key = np.empty(n)
    current = np.empty(n, dtype=np.bool_)
    system = np.empty((r - 1, r))
    lift = np.empty(r - 1)
    level = 0
    written = np.int64(0)  # a literal would be another type to numba
    while True:
        for k in range(level, m):
            for a in range(r):
                basis[k, a] = rows[subset[k], a]
            length = orthonormalise(basis, k)
            volume[k + 1] = volume[k] * length
        if volume[m] <= tolerance:
            return -1
        complete(basis, m, m + 2)
        last = subset[m - 1] if m > 0 else -1
        _rotate(rows, subset, basis, m, p, q, key, current)
        order = ascending(key)[: n - m]
        if not _certain(p, q, order, volume[m], tolerance):
            return -1
        for j in order:
            if j > last:
                # The vertex is +-(-q_j, p_j) in the plane; at angle in (0, pi) its second
                # coordinate is positive.
                s = -q[j] * basis[m, r - 1] + p[j] * basis[m + 1, r - 1]
                if p[j] < 0.0:
                    s = -s
                determinant = _lowest(rows, subset, j, system, lift, tolerance)
                if determinant == 0.0 or s == 0.0:
                    return -1
                _write(out, written, current, s < 0.0, subset, j, lift)
                written += 2
            current[j] = not current[j]
        # Next subset in lexicographic order; only levels from the first changed element are
        # orthonormalised again.
        level = m - 1
        while level >= 0 and subset[level] == n - m + level:
            level -= 1
        if level < 0:
            return int(written)
        subset[level] += 1
        for k in range(level + 1, m):
            subset[k] = subset[k - 1] + 1


@compiled(borrows=True)
def _rotate(
    rows: FloatArray,
    subset: IntArray,
    basis: FloatArray,
    m: int,
    p: FloatArray,
    q: FloatArray,
    key: FloatArray,
    current: BoolArray,
) -> None:
    """Write the coordinates p, q of the rows in the plane, a key that orders them by angle, the
    subset last, and their signs where the sweep begins."""
    n, r = rows.shape
    for j in range(n):
        s = 0.0
        t = 0.0
        for a in range(r):
            s += rows[j, a] * basis[m, a]
            t += rows[j, a] * basis[m + 1, a]
        p[j] = s
        q[j] = t
        key[j] = t / s if s != 0.0 else np.inf
        current[j] = s > 0.0
    for k in range(m):
        p[subset[k]] = np.inf
        key[subset[k]] = np.inf


@compiled(borrows=True)
def _certain(
    p: FloatArray, q: FloatArray, order: IntArray, volume: float, tolerance: float
) -> bool:
    """Whether the order of neighbours is certain."""
    total = order.size
    for c in range(total if total > 1 else 0):
        j = order[c]
        k = order[(c + 1) % total]
        if abs(p[j] * q[k] - p[k] * q[j]) * volume <= tolerance:
            return False
    return True


@compiled(meanwhile=_meanwhile_search.write, borrows=True)
def _write(
    out: BoolArray,
    written: int,
    current: BoolArray,
    flip: bool,
    subset: IntArray,
    j: int,
    lift: FloatArray,
) -> None:
    """Write the cell above a vertex, and its antipode."""
    m = subset.size
    first = out[written]
    second = out[written + 1]
    for i in range(first.size):
        first[i] = current[i] != flip
    for k in range(m):
        first[subset[k]] = lift[k] > 0.0
    first[j] = lift[m] > 0.0
    for i in range(first.size):
        second[i] = not first[i]


@compiled(borrows=True)
def _lowest(
    rows: FloatArray,
    subset: IntArray,
    j: int,
    system: FloatArray,
    lift: FloatArray,
    tolerance: float,
) -> float:
    """Solve eta = sum_k lift_k x_k modulo q over the rows of a vertex; return the determinant, 0
    where a sign is uncertain.

    On the edge of the vertex that leaves row k, eta increases towards the side given by the sign of
    lift_k."""
    r = rows.shape[1]
    size = r - 1
    if r == 2:
        lift[0] = rows[j, 0]
        return lift[0] if abs(lift[0]) > tolerance else 0.0
    if r == 3:
        i = subset[0]
        determinant = rows[i, 0] * rows[j, 1] - rows[j, 0] * rows[i, 1]
        if min(abs(determinant), abs(rows[i, 0]), abs(rows[j, 0])) <= tolerance:
            return 0.0
        lift[0] = -rows[j, 0] if determinant > 0.0 else rows[j, 0]
        lift[1] = rows[i, 0] if determinant > 0.0 else -rows[i, 0]
        return float(determinant)
    for a in range(size):
        for k in range(size - 1):
            system[a, k] = rows[subset[k], a]
        system[a, size - 1] = rows[j, a]
        system[a, size] = 1.0 if a == size - 1 else 0.0
    determinant = 1.0
    for k in range(size):
        pivot = k
        for a in range(k + 1, size):
            if abs(system[a, k]) > abs(system[pivot, k]):
                pivot = a
        if system[pivot, k] == 0.0:
            return 0.0
        if pivot != k:
            determinant = -determinant
            for b in range(k, size + 1):
                swap = system[k, b]
                system[k, b] = system[pivot, b]
                system[pivot, b] = swap
        determinant *= system[k, k]
        for a in range(k + 1, size):
            f = system[a, k] / system[k, k]
            for b in range(k, size + 1):
                system[a, b] -= f * system[k, b]
    for k in range(size - 1, -1, -1):
        s = system[k, size]
        for b in range(k + 1, size):
            s -= system[k, b] * lift[b]
        lift[k] = s / system[k, k]
    for k in range(size):
        # Cramer: lift_k times the determinant is a minor of unit rows.
        if abs(lift[k] * determinant) <= tolerance:
            return 0.0
    return determinant if abs(determinant) > tolerance else 0.0
