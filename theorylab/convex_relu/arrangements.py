r"""Activation patterns of a ReLU layer: the cells of a central hyperplane arrangement.

The rows $x_1,\dots,x_n$ of $X$ cut $\mathbb R^d$ into open cones on which the
pattern $D(u)=\mathrm{diag}(1[Xu\ge0])$ is constant. With $r=\mathrm{rank}\,X$ and rows
in general position there are

$$P = 2\sum_{k=0}^{r-1}\binom{n-1}{k}$$

of them (Cover). They are generated here from their vertices, at a cost proportional to the output:
slice the cells by a generic affine hyperplane $q^\top u=1$ and let $\eta$ be a generic
functional on the slice. A cell whose slice is bounded below in $\eta$ has exactly one lowest
vertex, a vertex of $r-1$ hyperplanes is the lowest one of exactly one cell, a cell and its
antipode are never both found in this way, and the cells not found, up to sign, are those meeting
the subspace $\{q^\top u=\eta^\top u=0\}$: the same problem in dimension $r-2$. Hence
$P(n,r)=2\binom n{r-1}+P(n,r-2)$. The vertices are visited by sweeping the planes in which
$r-2$ hyperplanes meet.

Every sign comes from a determinant whose rounding error is bounded beforehand; when one is smaller
than its bound the data are treated as possibly degenerate and decided in exact integer arithmetic.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import combinations
from math import comb, gcd

import numpy as np
from flint import fmpq, fmpq_mat
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.numerics.compiled import compiled

__all__ = [
    "cell_probabilities",
    "cover_count",
    "enumerate_arrangements",
    "sample_arrangements",
    "sampled_set_law",
]

BoolArray = NDArray[np.bool_]

_MAX_ENTRIES = 2**33
_EPS = float(np.finfo(np.float64).eps)


def enumerate_arrangements(X: ArrayLike) -> BoolArray:
    """Return every activation pattern of ``X`` that holds on a full-dimensional cell.

    Parameters
    ----------
    X
        Data, shape (n, d). Any rank; zero, repeated, proportional and opposite rows are allowed and
        decided exactly, the entries being taken as the rational numbers they are.

    Returns
    -------
    ndarray of bool, shape (P, n)
        Distinct patterns ``X @ u >= 0``, in no particular order. Zero rows are always active.
        Patterns that occur only on lower-dimensional cells (ties ``x_i @ u = 0``) are left out:
        such a cell is a face of a full-dimensional one, whose pattern gives the same ``relu(X @
        u)`` there.

    Raises
    ------
    ValueError
        If ``X`` is not a finite non-empty matrix, or has more patterns than fit into memory.

    Notes
    -----
    bai2022-efficient, Section 2, gives the count and the enumeration as known; the sweep is
    described in the module's docstring.

    Examples
    --------
    >>> from theorylab.convex_relu import enumerate_arrangements
    >>> enumerate_arrangements([[1.0, 0.0], [0.0, 1.0]]).astype(int)
    array([[0, 0],
           [1, 1],
           [0, 1],
           [1, 0]])
    """
    X = as_array(X, "X", ndim=2)
    lines, index, sign = _distinct_lines(X)
    n = X.shape[0]
    if not lines:
        return np.ones((1, n), dtype=bool)
    columns = _independent_columns(X[lines])
    if cover_count(len(lines), len(columns)) * n > _MAX_ENTRIES:
        raise ValueError(
            "X: expected data whose patterns fit into memory, got up to "
            f"{cover_count(len(lines), len(columns))} patterns"
        )
    rows = X[np.ix_(lines, columns)]
    cells = _generic_cells(rows)
    if cells is None:
        cells = _exact_cells([_integer_row(row) for row in rows])
    if len(lines) == n and np.all(sign == 1):
        return cells
    patterns = cells[:, np.maximum(index, 0)] ^ (sign == -1)
    patterns[:, sign == 0] = True
    return np.ascontiguousarray(patterns)


def sample_arrangements(X: ArrayLike, n_samples: int, *, rng: np.random.Generator) -> BoolArray:
    """Return the distinct activation patterns of Gaussian directions.

    Parameters
    ----------
    X
        Data, shape (n, d).
    n_samples
        Number of directions drawn from N(0, I_d).
    rng
        Random generator.

    Returns
    -------
    ndarray of bool, shape (P, n)
        At most ``n_samples`` distinct patterns ``X @ u >= 0``, in the order in which they were
        first drawn.

    Raises
    ------
    ValueError
        For an ``X`` that is not a finite matrix or a count below one.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import sample_arrangements
    >>> found = sample_arrangements(np.eye(2), 100, rng=np.random.default_rng(0))
    >>> len(found)
    4
    """
    X = as_array(X, "X", ndim=2)
    n_samples = as_count(n_samples, "n_samples")
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    patterns = (rng.standard_normal((n_samples, X.shape[1])) @ X.T) >= 0
    packed = np.packbits(patterns, axis=1)
    _, first = np.unique(packed, axis=0, return_index=True)
    return patterns[np.sort(first)]


def cover_count(n: int, rank: int) -> int:
    """Return 2 sum_{k < rank} C(n - 1, k), the number of cells of n hyperplanes in general
    position.

    Parameters
    ----------
    n
        Number of non-zero, pairwise non-proportional rows.
    rank
        Rank of the data.

    Returns
    -------
    int
        The count, an upper bound when the rows are not in general position.

    Raises
    ------
    ValueError
        If a count is not an integer of at least one.

    Examples
    --------
    >>> from theorylab.convex_relu import cover_count
    >>> cover_count(10, 2), cover_count(10, 3)
    (20, 92)
    """
    n, rank = as_count(n, "n"), as_count(rank, "rank")
    return 2 * sum(comb(n - 1, k) for k in range(rank))


# Reduction to pairwise different lines in a space of full rank.


def _distinct_lines(X: FloatArray) -> tuple[list[int], NDArray[np.intp], NDArray[np.int8]]:
    """Return representative rows, and for each row its representative's position and its sign (0
    for a zero row)."""
    n, d = X.shape
    index = np.full(n, -1, dtype=np.intp)
    sign = np.zeros(n, dtype=np.int8)
    scale = np.abs(X).max(axis=1)
    nonzero = np.flatnonzero(scale)
    scaled = X[nonzero] / scale[nonzero, None]
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    # Proportional rows have equal keys up to rounding; equal keys are only a reason to look.
    keys = np.abs(unit @ np.random.default_rng(0).standard_normal(d))
    order = np.argsort(keys, kind="stable")
    lines: list[int] = []
    run: list[int] = []
    last = -np.inf
    for k in order:
        i = int(nonzero[k])
        if keys[k] - last > 16 * (d + 4) * _EPS * max(1.0, keys[k]):
            run = []
        last = keys[k]
        for j in run:
            s = _proportional(X[lines[j]], X[i])
            if s:
                index[i], sign[i] = j, s
                break
        else:
            run.append(len(lines))
            index[i], sign[i] = len(lines), 1
            lines.append(i)
    # Keep the data's order among the representatives.
    rank = np.argsort(np.argsort(lines)) if lines else np.zeros(0, dtype=np.intp)
    index[index >= 0] = rank[index[index >= 0]]
    return sorted(lines), index, sign


def _proportional(x: FloatArray, y: FloatArray) -> int:
    """Return the sign of c if y = c x exactly, else 0 (x and y are not zero)."""
    p = int(np.argmax(np.abs(x)))
    a, b = Fraction(float(x[p])), Fraction(float(y[p]))
    if b == 0 or any(
        Fraction(float(s)) * b != Fraction(float(t)) * a for s, t in zip(x, y, strict=True)
    ):
        return 0
    return 1 if (a > 0) == (b > 0) else -1


def _independent_columns(rows: FloatArray) -> list[int]:
    """Return columns of the exact rank that span the column space of ``rows``."""
    n, d = rows.shape
    if n >= d:
        unit = (
            rows
            / np.linalg.norm(rows / np.abs(rows).max(), axis=1, keepdims=True)
            / np.abs(rows).max()
        )
        values = np.linalg.svd(unit, compute_uv=False)
        # The computed singular values err by at most a small multiple of eps times the largest.
        if values[-1] > 64 * (n + d) * _EPS * values[0]:
            return list(range(d))
    return _pivot_columns([_integer_row(row) for row in rows])


def _pivot_columns(rows: list[list[int]]) -> list[int]:
    matrix, rank = fmpq_mat(len(rows), len(rows[0]), [fmpq(v) for row in rows for v in row]).rref()
    pivots: list[int] = []
    for i in range(rank):
        j = pivots[-1] + 1 if pivots else 0
        while matrix[i, j] == 0:
            j += 1
        pivots.append(j)
    return pivots


def _integer_row(row: FloatArray) -> list[int]:
    """Return the row times the positive number that makes it integer and primitive."""
    ratios = [float(v).as_integer_ratio() for v in row]
    denominator = max(q for _, q in ratios)
    values = [p * (denominator // q) for p, q in ratios]
    divisor = gcd(*values)
    return [v // divisor for v in values] if divisor > 1 else values


# General position: one cell per vertex, signs certified by a bound on the rounding error.


def _generic_cells(rows: FloatArray) -> BoolArray | None:
    """Return the cells of lines in general position, or None when a sign could not be certified."""
    n, r = rows.shape
    scaled = rows / np.abs(rows).max(axis=1, keepdims=True)
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    if r == 1:
        return np.array([unit[:, 0] > 0, unit[:, 0] < 0])
    if n < r:
        return None
    mixed = unit @ _rotation(r)
    cells = np.empty((cover_count(n, r), n), dtype=np.bool_)
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
    written = 0
    while True:
        for k in range(level, m):
            for a in range(r):
                basis[k, a] = rows[subset[k], a]
            length = _orthonormalise(basis, k)
            volume[k + 1] = volume[k] * length
        if volume[m] <= tolerance:
            return -1
        _complete(basis, m)
        last = subset[m - 1] if m > 0 else -1
        for j in range(n):
            s = 0.0
            t = 0.0
            for a in range(r):
                s += rows[j, a] * basis[m, a]
                t += rows[j, a] * basis[m + 1, a]
            p[j] = s
            q[j] = t
            current[j] = s > 0.0
        for k in range(m):
            p[subset[k]] = np.inf
        for j in range(n):
            key[j] = q[j] / p[j] if p[j] != 0.0 else np.inf
        for k in range(m):
            key[subset[k]] = np.inf
        order = np.argsort(key)
        total = n - m
        for c in range(total):
            j = order[c]
            k = order[(c + 1) % total]
            if total > 1 and abs(p[j] * q[k] - p[k] * q[j]) * volume[m] <= tolerance:
                return -1
        for c in range(total):
            j = order[c]
            if j > last:
                # The vertex is +-(-q_j, p_j) in the plane; at angle in (0, pi) its second
                # coordinate is positive.
                s = -q[j] * basis[m, r - 1] + p[j] * basis[m + 1, r - 1]
                if p[j] < 0.0:
                    s = -s
                determinant = _lowest(rows, subset, j, system, lift, tolerance)
                if determinant == 0.0 or s == 0.0:
                    return -1
                first = out[written]
                second = out[written + 1]
                flip = s < 0.0
                for i in range(n):
                    first[i] = current[i] != flip
                for k in range(m):
                    first[subset[k]] = lift[k] > 0.0
                first[j] = lift[m] > 0.0
                for i in range(n):
                    second[i] = not first[i]
                written += 2
            current[j] = not current[j]
        # Next subset in lexicographic order; only levels from the first changed element are
        # orthonormalised again.
        level = m - 1
        while level >= 0 and subset[level] == n - m + level:
            level -= 1
        if level < 0:
            return written
        subset[level] += 1
        for k in range(level + 1, m):
            subset[k] = subset[k - 1] + 1


@compiled
def _orthonormalise(basis: FloatArray, k: int) -> float:
    """Orthonormalise row k of the basis against the rows before it (twice); return its distance
    from their span."""
    r = basis.shape[1]
    length = 1.0
    for sweep in range(2):
        for i in range(k):
            s = 0.0
            for a in range(r):
                s += basis[i, a] * basis[k, a]
            for a in range(r):
                basis[k, a] -= s * basis[i, a]
        s = 0.0
        for a in range(r):
            s += basis[k, a] * basis[k, a]
        s = np.sqrt(s)
        if s == 0.0:
            return 0.0
        for a in range(r):
            basis[k, a] /= s
        if sweep == 0:
            length = s
    return length


@compiled
def _complete(basis: FloatArray, m: int) -> None:
    """Fill rows m, m + 1 with an orthonormal basis of the complement of rows 0..m-1."""
    r = basis.shape[1]
    for k in range(m, m + 2):
        best = 0
        smallest = 2.0
        for a in range(r):
            s = 0.0
            for i in range(k):
                s += basis[i, a] * basis[i, a]
            if s < smallest:
                smallest = s
                best = a
        for a in range(r):
            basis[k, a] = 0.0
        basis[k, best] = 1.0
        _orthonormalise(basis, k)


@compiled
def _lowest(
    rows: FloatArray,
    subset: NDArray[np.intp],
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


# Degenerate position: every cell is a vertex refined by a cell of the rows through that vertex.


def _exact_cells(rows: list[list[int]]) -> BoolArray:
    """Return the cells of pairwise different lines of full rank, whatever their position."""
    n, r = len(rows), len(rows[0])
    if r == 1:
        positive = np.array([row[0] > 0 for row in rows])
        return np.array([positive, ~positive])
    if n == r:
        return _all_patterns(n)
    floats = np.array([[v / max(map(abs, row)) for v in row] for row in rows])
    floats /= np.linalg.norm(floats, axis=1, keepdims=True)
    covectors = _vertices(rows, floats)
    found: list[NDArray[np.uint8]] = []
    for covector in covectors:
        tight = np.flatnonzero(covector == 0)
        local = _all_patterns(r - 1) if tight.size == r - 1 else _local_cells(rows, tight)
        cells = np.repeat((covector > 0)[None, :], local.shape[0], axis=0)
        cells[:, tight] = local
        found.append(np.packbits(cells, axis=1))
        if len(found) > 4096:
            found = [np.unique(np.concatenate(found), axis=0)]
    packed = np.unique(np.concatenate(found), axis=0)
    half = np.unpackbits(packed, axis=1, count=n).astype(bool)
    packed = np.unique(np.concatenate([packed, np.packbits(~half, axis=1)]), axis=0)
    return np.unpackbits(packed, axis=1, count=n).astype(bool)


def _local_cells(rows: list[list[int]], tight: NDArray[np.intp]) -> BoolArray:
    local = [rows[i] for i in tight]
    columns = _pivot_columns(local)
    reduced = [[row[j] for j in columns] for row in local]
    # Lines through a common vertex stay pairwise different: dropping columns keeps the row
    # relations.
    return _exact_cells(reduced)


@cache
def _all_patterns(n: int) -> BoolArray:
    patterns: BoolArray = (np.arange(2**n)[:, None] >> np.arange(n)) % 2 == 1
    return patterns


def _vertices(rows: list[list[int]], unit: FloatArray) -> NDArray[np.int8]:
    """Return the sign vectors of one ray of every one-dimensional flat."""
    n, r = unit.shape
    tolerance = 64 * r * r * _EPS
    subsets = np.array(list(combinations(range(n), r - 1)))
    result: dict[bytes, NDArray[np.int8]] = {}
    for start in range(0, len(subsets), 8192):
        chunk = subsets[start : start + 8192]
        stacked = unit[chunk]
        null = np.stack(
            [(-1) ** c * np.linalg.det(np.delete(stacked, c, axis=2)) for c in range(r)], axis=1
        )
        values = null @ unit.T
        signs = np.sign(values).astype(np.int8)
        np.put_along_axis(signs, chunk, 0, axis=1)
        uncertain = np.abs(values) <= tolerance
        np.put_along_axis(uncertain, chunk, False, axis=1)
        for k in range(len(chunk)):
            doubtful = np.flatnonzero(uncertain[k])
            if doubtful.size:
                exact = _exact_null(rows, chunk[k])
                if exact is None:
                    continue
                for j in doubtful:
                    value = sum(a * b for a, b in zip(exact, rows[j], strict=True))
                    signs[k, j] = (value > 0) - (value < 0)
            first = signs[k][np.argmax(signs[k] != 0)]
            covector = signs[k] * first
            result[covector.tobytes()] = covector
    return np.array(list(result.values()))


def _exact_null(rows: list[list[int]], subset: NDArray[np.intp]) -> list[int] | None:
    """Return the vector of signed maximal minors of the rows, None if they are dependent."""
    r = len(rows[0])
    minors = [
        int(
            (-1) ** c
            * _integer_determinant([[v for a, v in enumerate(rows[i]) if a != c] for i in subset])
        )
        for c in range(r)
    ]
    return minors if any(minors) else None


def _integer_determinant(matrix: list[list[int]]) -> int:
    """Fraction-free elimination (Bareiss)."""
    a = [row[:] for row in matrix]
    n, sign, previous = len(a), 1, 1
    for k in range(n - 1):
        if a[k][k] == 0:
            for i in range(k + 1, n):
                if a[i][k] != 0:
                    a[k], a[i], sign = a[i], a[k], -sign
                    break
            else:
                return 0
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                a[i][j] = (a[i][j] * a[k][k] - a[i][k] * a[k][j]) // previous
        previous = a[k][k]
    return sign * a[n - 1][n - 1]


# Random directions in the plane.


def cell_probabilities(
    X: ArrayLike, *, sector: float = 2.0 * np.pi
) -> tuple[BoolArray, FloatArray]:
    """Return the activation patterns of data in the plane, and how likely each one is.

    Parameters
    ----------
    X
        Data, shape (n, 2).
    sector
        The direction is uniform over the angles from 0 to ``sector``, in (0, 2 pi].

    Returns
    -------
    patterns : ndarray of bool, shape (P, n)
        Those of ``enumerate_arrangements``, whether or not they meet the sector, by the angle of
        their cells.
    probabilities : ndarray, shape (P,)
        Angle of each cell in the sector, over ``sector``.

    Examples
    --------
    >>> from theorylab.convex_relu import cell_probabilities
    >>> cell_probabilities([[1.0, 0.0], [0.0, 1.0]])[1].tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    X = as_array(X, "X", shape=(None, 2))
    sector = as_real(sector, "sector", above=0.0, maximum=2.0 * np.pi)
    # The cell of the angle 0 is put together from both ends; zero rows are always active.
    used = X[np.any(X != 0.0, axis=1)]
    kinks = np.arctan2(used[:, 0], -used[:, 1])
    ends = np.unique(np.concatenate([kinks % (2.0 * np.pi), (kinks + np.pi) % (2.0 * np.pi)]))
    # Proportional rows differ by rounding: a cell of that width is none.
    ends = np.concatenate([[0.0], ends[(ends > 1e-13) & (ends < 2.0 * np.pi - 1e-13)]])
    ends = np.append(ends[np.append(True, np.diff(ends) > 1e-13)], 2.0 * np.pi)
    middle = 0.5 * (ends[1:] + ends[:-1])
    patterns = np.column_stack([np.cos(middle), np.sin(middle)]) @ X.T >= 0
    inside = np.diff(np.minimum(ends, sector)) / sector
    if len(patterns) > 1 and (patterns[0] == patterns[-1]).all():
        patterns = patterns[:-1]
        inside = np.append(inside[0] + inside[-1], inside[1:-1])
    return np.ascontiguousarray(patterns), inside


def sampled_set_law(probabilities: ArrayLike, n_samples: int) -> FloatArray:
    r"""Return the law of the set of values seen in independent draws.

    Parameters
    ----------
    probabilities
        Probability of each of P <= 20 values, shape (P,), of sum 1.
    n_samples
        Number N of draws.

    Returns
    -------
    ndarray, shape (2^P,)
        Probability that exactly the set S is seen, at the index $\sum_{i\in S}2^i$:
        $\sum_{T\subseteq S}(-1)^{|S\setminus T|}(\sum_{i\in T}q_i)^N$, to some rounding
        errors of one.

    Examples
    --------
    >>> from theorylab.convex_relu import sampled_set_law
    >>> sampled_set_law([0.5, 0.5], 2).tolist()
    [0.0, 0.25, 0.25, 0.5]
    """
    q = as_array(probabilities, "probabilities", ndim=1, nonnegative=True)
    n_samples = as_count(n_samples, "n_samples")
    if q.size > 20 or abs(float(q.sum()) - 1.0) > 1e-9:
        raise ValueError(
            f"probabilities: expected at most 20 of sum 1, got {q.size} of sum {float(q.sum())}"
        )
    mass = np.zeros(1)
    for value in q:
        mass = np.concatenate([mass, mass + value])
    law = mass**n_samples
    for i in range(q.size):
        pairs = law.reshape(-1, 2, 2**i)
        pairs[:, 1] -= pairs[:, 0]
    return law
