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
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.convex_relu._exact_cells import exact_cells, integer_row, pivot_columns
from theorylab.convex_relu._generic_cells import generic_cells

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
    cells = generic_cells(rows)
    if cells is None:
        cells = exact_cells([integer_row(row) for row in rows])
    if len(lines) == n:
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
        scaled = rows / np.abs(rows).max(axis=1, keepdims=True)
        unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
        values = np.linalg.svd(unit, compute_uv=False)
        # The computed singular values err by at most a small multiple of eps times the largest.
        if values[-1] > 64 * (n + d) * _EPS * values[0]:
            return list(range(d))
    return pivot_columns([integer_row(row) for row in rows])
