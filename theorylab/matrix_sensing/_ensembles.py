r"""Random measurements: Gaussian, of rank one, entries, Hartley waves, Pauli strings."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np

from theorylab._validation import FloatArray, as_count, as_flag, as_instance
from theorylab.matrix_sensing._packing import pack_symmetric
from theorylab.matrix_sensing.operators import MeasurementOperator

__all__ = [
    "entry_operator",
    "fourier_operator",
    "gaussian_operator",
    "pauli_operator",
    "rank_one_operator",
]

_LARGEST = 10**9  # numbers, of eight bytes, that an operator holds


def gaussian_operator(
    n: int,
    m: int,
    *,
    n_columns: int | None = None,
    symmetric: bool = True,
    rng: np.random.Generator,
) -> MeasurementOperator:
    r"""Return $m$ Gaussian measurements scaled so that $\mathbb E\,\mathcal A^*\mathcal
    A=\mathrm{Id}$.

    Parameters
    ----------
    n
        Number of rows of the measured matrices.
    m
        Number of measurements.
    n_columns
        Number of columns, ``n`` by default.
    symmetric
        If true, $A_i=(H_i+H_i^\top)/(2\sqrt m)$ with $H_i$ of independent standard normal entries:
        variance $1/m$ on the diagonal, $1/(2m)$ off it. If false, $A_i$ has independent $N(0,1/m)$
        entries.
    rng
        Source of randomness.

    Returns
    -------
    MeasurementOperator
        The operator; it holds ``m * n * (n + 1) / 2`` or ``m * n * n_columns`` numbers.

    Raises
    ------
    ValueError
        If a count is not a positive integer, ``symmetric`` is asked for with ``n_columns != n``, or
        the operator would hold more than 1e9 numbers (8 GB).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator
    >>> operator = gaussian_operator(4, 10, rng=np.random.default_rng(0))
    >>> operator.forward(np.eye(4)).shape
    (10,)
    """
    n, m = as_count(n, "n"), as_count(m, "m")
    n_columns = _columns(n, n_columns, symmetric)
    rng = as_instance(rng, "rng", np.random.Generator)
    stacked = rng.standard_normal((m, _width(m, n, n_columns, symmetric)))
    stacked /= np.sqrt(m)
    return MeasurementOperator(stacked, n, n_columns, symmetric)


def rank_one_operator(
    n: int,
    m: int,
    *,
    n_columns: int | None = None,
    symmetric: bool = True,
    rng: np.random.Generator,
) -> MeasurementOperator:
    r"""Return $m$ measurements of rank one with independent standard normal vectors.

    Parameters
    ----------
    n
        Number of rows of the measured matrices.
    m
        Number of measurements.
    n_columns
        Number of columns, ``n`` by default.
    symmetric
        If true, $A_i=a_ia_i^\top/\sqrt{2m}$ and $\mathbb E\,\mathcal A^*\mathcal
        A(M)=M+\frac12\mathrm{tr}(M)I$ on symmetric matrices: the trace is seen too well. If false,
        $A_i=a_ib_i^\top/\sqrt m$ and $\mathbb E\,\mathcal A^*\mathcal A=\mathrm{Id}$.
    rng
        Source of randomness.

    Returns
    -------
    MeasurementOperator
        The operator.

    Raises
    ------
    ValueError
        As `gaussian_operator`.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import rank_one_operator
    >>> operator = rank_one_operator(4, 10, rng=np.random.default_rng(0))
    >>> bool((operator.forward(np.eye(4)) > 0).all())
    True
    """
    n, m = as_count(n, "n"), as_count(m, "m")
    n_columns = _columns(n, n_columns, symmetric)
    rng = as_instance(rng, "rng", np.random.Generator)
    _width(m, n, n_columns, symmetric)
    a = rng.standard_normal((m, n))
    if not symmetric:
        b = rng.standard_normal((m, n_columns))
        stacked = (a[:, :, None] * b[:, None, :]).reshape(m, -1)
        stacked /= np.sqrt(m)
        return MeasurementOperator(stacked, n, n_columns, False)
    stacked = _pack_rows((np.outer(v, v) for v in a), m, n)
    stacked /= np.sqrt(2 * m)
    return MeasurementOperator(stacked, n, n, True)


def entry_operator(
    n: int,
    m: int,
    *,
    n_columns: int | None = None,
    symmetric: bool = True,
    rng: np.random.Generator,
) -> MeasurementOperator:
    r"""Return $m$ distinct random entries, scaled by $\sqrt{N/m}$ so that $\mathbb E\,\mathcal
    A^*\mathcal A=\mathrm{Id}$.

    Parameters
    ----------
    n
        Number of rows of the measured matrices.
    m
        Number of measurements, at most $N=n(n+1)/2$ or $N=n\cdot\texttt{n\_columns}$.
    n_columns
        Number of columns, ``n`` by default.
    symmetric
        Whether an off-diagonal measurement is $\sqrt2$ times an entry of a symmetric matrix.
    rng
        Source of randomness.

    Returns
    -------
    MeasurementOperator
        The operator. No restricted isometry holds: a single entry may be missed.

    Raises
    ------
    ValueError
        As `gaussian_operator`, or if ``m`` exceeds the number of entries.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import entry_operator
    >>> operator = entry_operator(2, 4, symmetric=False, rng=np.random.default_rng(0))
    >>> np.sort(operator.forward([[1.0, 2.0], [3.0, 4.0]]))
    array([1., 2., 3., 4.])
    """
    n, m = as_count(n, "n"), as_count(m, "m")
    n_columns = _columns(n, n_columns, symmetric)
    width = _width(m, n, n_columns, symmetric)
    chosen = _choose(width, m, rng)
    stacked = np.zeros((m, width))
    stacked[np.arange(m), chosen] = np.sqrt(width / m)
    return MeasurementOperator(stacked, n, n_columns, symmetric)


def fourier_operator(
    n: int, m: int, *, n_columns: int | None = None, rng: np.random.Generator
) -> MeasurementOperator:
    r"""Return $m$ distinct random two-dimensional Hartley waves, the real Fourier basis, scaled by
    $\sqrt{N/m}$.

    The waves $\mathrm{cas}(2\pi(jk/n_1+lp/n_2))/\sqrt{n_1n_2}$, $\mathrm{cas}=\cos+\sin$, over the
    frequencies $(k,p)$ form an orthonormal basis of the real matrices, so that $\mathbb E\,\mathcal
    A^*\mathcal A=\mathrm{Id}$.

    Parameters
    ----------
    n
        Number of rows of the measured matrices.
    m
        Number of measurements, at most $N=n\cdot\texttt{n\_columns}$.
    n_columns
        Number of columns, ``n`` by default.
    rng
        Source of randomness.

    Returns
    -------
    MeasurementOperator
        The operator, on general matrices.

    Raises
    ------
    ValueError
        As `gaussian_operator`, or if ``m`` exceeds the number of waves.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import fourier_operator
    >>> operator = fourier_operator(3, 9, rng=np.random.default_rng(0))
    >>> bool(np.isclose(np.sum(operator.forward(np.eye(3)) ** 2), 3.0))
    True
    """
    n, m = as_count(n, "n"), as_count(m, "m")
    n_columns = _columns(n, n_columns, False)
    width = _width(m, n, n_columns, False)
    k, p = np.divmod(_choose(width, m, rng), n_columns)
    rows, columns = np.outer(k, np.arange(n)) / n, np.outer(p, np.arange(n_columns)) / n_columns
    stacked = np.empty((m, width))
    # One wave at a time stays in the cache.
    for wave, row, column in zip(stacked, rows, columns, strict=True):
        angle = 2 * np.pi * (row[:, None] + column).ravel()
        wave[:] = (np.cos(angle) + np.sin(angle)) / np.sqrt(m)
    return MeasurementOperator(stacked, n, n_columns, False)


def pauli_operator(n_qubits: int, m: int, *, rng: np.random.Generator) -> MeasurementOperator:
    r"""Return $m$ distinct random real Pauli strings on $q$ qubits, scaled by $\sqrt{N/m}$.

    Tensor products of $I,X,Y,Z$ with an even number of $Y$ are real and symmetric; divided by
    $2^{q/2}$ they are an orthonormal basis of the symmetric matrices of size $n=2^q$, $N=n(n+1)/2$,
    so that $\mathbb E\,\mathcal A^*\mathcal A=\mathrm{Id}$.

    Parameters
    ----------
    n_qubits
        $q$, at most 6.
    m
        Number of measurements, at most $N$.
    rng
        Source of randomness.

    Returns
    -------
    MeasurementOperator
        Symmetric measurements of matrices of size $2^q$.

    Raises
    ------
    ValueError
        If a count is not a positive integer in its range.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import pauli_operator
    >>> operator = pauli_operator(1, 3, rng=np.random.default_rng(0))
    >>> np.sort(np.round(operator.forward(np.eye(2)), 6))
    array([0.      , 0.      , 1.414214])
    """
    q = as_count(n_qubits, "n_qubits", maximum=6)
    n, m = 2**q, as_count(m, "m")
    width = n * (n + 1) // 2
    digits = np.arange(4**q)[:, None] // 4 ** np.arange(q) % 4
    strings = digits[(digits == 2).sum(axis=1) % 2 == 0][_choose(width, m, rng)]
    # i Y is real, and an even number of Y makes i^(number of Y) the sign +1 or -1.
    letters = np.array(
        [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, 1], [-1, 0]], [[1, 0], [0, -1]]], dtype=np.float64
    )
    matrices = np.array([reduce(np.kron, letters[word]) for word in strings])
    return MeasurementOperator(_pack_rows(matrices, m, n) * np.sqrt(width / m / n), n, n, True)


def _columns(n: int, n_columns: int | None, symmetric: bool) -> int:
    columns = n if n_columns is None else as_count(n_columns, "n_columns")
    if as_flag(symmetric, "symmetric") and columns != n:
        raise ValueError(
            f"n_columns: expected {n}, as symmetric measurements are square, got {columns}"
        )
    return columns


def _width(m: int, n: int, n_columns: int, symmetric: bool) -> int:
    width = n * (n + 1) // 2 if symmetric else n * n_columns
    if m * width > _LARGEST:
        raise ValueError(
            f"m: expected measurements of at most {_LARGEST:.0e} numbers, got {m} of matrices of "
            f"{n} x {n_columns}, {m * width:.1e} numbers"
        )
    return width


def _choose(
    available: int, m: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    rng = as_instance(rng, "rng", np.random.Generator)
    if m > available:
        raise ValueError(f"m: expected at most {available} distinct measurements, got {m}")
    return np.asarray(rng.choice(available, m, replace=False), dtype=np.int64)


def _pack_rows(matrices: Iterable[FloatArray], m: int, n: int) -> FloatArray:
    stacked = np.empty((m, _width(m, n, n, True)))
    for matrix, row in zip(matrices, stacked, strict=True):
        pack_symmetric(matrix, row)
    return stacked
