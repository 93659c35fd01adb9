r"""The cells of lines in any position, in exact integer arithmetic.

Every cell is a vertex refined by a cell of the rows through that vertex."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import gcd

import numpy as np
from flint import fmpq, fmpq_mat
from numpy.typing import NDArray

from theorylab._validation import FloatArray

BoolArray = NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)


def exact_cells(rows: list[list[int]]) -> BoolArray:
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
    columns = pivot_columns(local)
    reduced = [[row[j] for j in columns] for row in local]
    # Lines through a common vertex stay pairwise different: dropping columns keeps the row
    # relations.
    return exact_cells(reduced)


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


def pivot_columns(rows: list[list[int]]) -> list[int]:
    matrix, rank = fmpq_mat(len(rows), len(rows[0]), [fmpq(v) for row in rows for v in row]).rref()
    pivots: list[int] = []
    for i in range(rank):
        j = pivots[-1] + 1 if pivots else 0
        while matrix[i, j] == 0:
            j += 1
        pivots.append(j)
    return pivots


def integer_row(row: FloatArray) -> list[int]:
    """Return the row times the positive number that makes it integer and primitive."""
    ratios = [float(v).as_integer_ratio() for v in row]
    denominator = max(q for _, q in ratios)
    values = [p * (denominator // q) for p, q in ratios]
    divisor = gcd(*values)
    return [v // divisor for v in values] if divisor > 1 else values
