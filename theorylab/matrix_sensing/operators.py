r"""Linear measurements of a matrix, stored as one stacked matrix.

A measurement operator maps $M\in\mathbb R^{n_1\times n_2}$ to $\mathcal A(M)=(\langle
A_1,M\rangle,\dots,\langle A_m,M\rangle)$; its adjoint is $\mathcal A^*(y)=\sum_i y_iA_i$. Row $i$
of the stacked matrix holds $A_i$ in orthonormal coordinates, so both maps are single BLAS products.
A symmetric $A_i$ needs only the $n(n+1)/2$ coordinates $(A_{jj},\ \sqrt2A_{jl})_{l<j}$, half the
memory traffic. Gaussian operators have independent $N(0,1/m)$ coordinates, hence $\mathbb
E\,\mathcal A^*\mathcal A=\mathrm{Id}$ on all (or on all symmetric) matrices and $\mathbb
E\|\mathcal A(M)\|^2=\|M\|_F^2$: the population problem is the one in which $\mathcal A^*\mathcal A$
is that identity. The same holds for random rows of an orthonormal basis (entries, Hartley waves,
Pauli strings) times $\sqrt{N/m}$, $N$ the dimension.

How far one draw is from its mean on matrices of rank at most $r$ is measured by
$$\delta_r=\sup_{X}\big|\|\mathcal
A(X)\|^2-1\big|,\qquad\delta_r^{\pm}=\sup_{X,Y}\frac1\varphi\Big|\Big\langle\tfrac1{\sqrt m}\mathcal
A^*\mathrm{sign}(\mathcal A(X)-s)-\varphi X,Y\Big\rangle\Big|,\qquad\|X\|_F=\|Y\|_F=1,$$ restricted
isometry and Sign-RIP; both suprema are bounded from below by local search and from above by
spectra, the second in few dimensions by a covering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse.linalg import LinearOperator

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.matrix_sensing._sign_cover import families, largest_bound
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result

__all__ = [
    "MeasurementOperator",
    "RestrictedDeviation",
    "entry_operator",
    "fourier_operator",
    "gaussian_operator",
    "pauli_operator",
    "rank_one_operator",
    "restricted_isometry",
    "sign_deviation",
]


@dataclass(frozen=True, eq=False, repr=False)
class MeasurementOperator:
    r"""The map $M\mapsto(\langle A_i,M\rangle)_{i\le m}$ and its adjoint.

    Parameters
    ----------
    stacked
        One measurement per row: $A_i$ flattened in C order, shape ``(m, n_rows * n_columns)``, or,
        if ``symmetric``, the lower triangle row by row with off-diagonal entries times $\sqrt2$,
        shape ``(m, n_rows * (n_rows + 1) / 2)``.
    n_rows, n_columns
        Shape of the measured matrices.
    symmetric
        Whether every $A_i$ is symmetric and stored by its lower triangle. Such an operator sees
        $(M+M^\top)/2$ only.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or type, or ``symmetric`` measurements are not square.
    """

    stacked: FloatArray
    n_rows: int
    n_columns: int
    symmetric: bool

    def __repr__(self) -> str:
        of = "symmetric matrices" if self.symmetric else "matrices"
        size = f"{self.n_rows}x{self.n_columns}"
        return f"<MeasurementOperator: {len(self.stacked)} measurements of {size} {of}>"

    def __post_init__(self) -> None:
        n_rows, n_columns = as_count(self.n_rows, "n_rows"), as_count(self.n_columns, "n_columns")
        if as_flag(self.symmetric, "symmetric") and n_rows != n_columns:
            raise ValueError(
                f"n_columns: expected {n_rows}, as symmetric measurements are square, "
                f"got {n_columns}"
            )
        width = n_rows * (n_rows + 1) // 2 if self.symmetric else n_rows * n_columns
        object.__setattr__(self, "stacked", as_array(self.stacked, "stacked", shape=(None, width)))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the measured matrices."""
        return self.n_rows, self.n_columns

    @property
    def n_measurements(self) -> int:
        """The number $m$ of measurements."""
        return int(self.stacked.shape[0])

    @property
    def matrices(self) -> FloatArray:
        """The measurement matrices $A_i$, shape ``(m, n_rows, n_columns)``, as a new array."""
        full = np.empty((self.n_measurements, self.n_rows, self.n_columns))
        for row, matrix in zip(self.stacked, full, strict=True):
            matrix[...] = self._unflatten(row)
        return full

    def forward(self, matrix: ArrayLike) -> FloatArray:
        r"""Return $\mathcal A(M)$.

        Parameters
        ----------
        matrix
            $M$, shape ``(n_rows, n_columns)``.

        Returns
        -------
        FloatArray
            The measurements, shape ``(m,)``.

        Raises
        ------
        ValueError
            If ``matrix`` has another shape or is not finite.
        """
        return self.stacked @ self._flatten(as_array(matrix, "matrix", shape=self.shape))

    def adjoint(self, values: ArrayLike) -> FloatArray:
        r"""Return $\mathcal A^*(y)=\sum_iy_iA_i$.

        Parameters
        ----------
        values
            $y$, shape ``(m,)``.

        Returns
        -------
        FloatArray
            Shape ``(n_rows, n_columns)``.

        Raises
        ------
        ValueError
            If ``values`` has another shape or is not finite.
        """
        return self._unflatten(
            as_array(values, "values", shape=(self.n_measurements,)) @ self.stacked
        )

    def normal(self, matrix: ArrayLike) -> FloatArray:
        r"""Return $\mathcal A^*\mathcal A(M)$, reading the stacked matrix once instead of twice.

        Parameters
        ----------
        matrix
            $M$, shape ``(n_rows, n_columns)``.

        Returns
        -------
        FloatArray
            Shape ``(n_rows, n_columns)``.

        Raises
        ------
        ValueError
            If ``matrix`` has another shape or is not finite.
        """
        flat = self._flatten(as_array(matrix, "matrix", shape=self.shape))
        image = np.empty_like(flat)
        normal_product(self.stacked, flat, image)
        return self._unflatten(image)

    def as_linear_operator(self) -> LinearOperator:
        """Return the operator on matrices flattened in C order, shape ``(m, n_rows * n_columns)``,
        for SciPy's solvers."""
        return LinearOperator(
            shape=(self.n_measurements, self.n_rows * self.n_columns),
            matvec=lambda vector: self.forward(np.asarray(vector).reshape(self.shape)),
            rmatvec=lambda vector: self.adjoint(
                np.asarray(vector).reshape(self.n_measurements)
            ).ravel(),
            dtype=np.float64,
        )

    def _flatten(self, matrix: FloatArray) -> FloatArray:
        if not self.symmetric:
            return matrix.reshape(-1)
        flat = np.empty(self.stacked.shape[1])
        pack_symmetric(matrix, flat)
        return flat

    def _unflatten(self, flat: FloatArray) -> FloatArray:
        if not self.symmetric:
            return flat.reshape(self.shape)
        matrix = np.empty(self.shape)
        unpack_symmetric(flat, matrix)
        return matrix


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
        If a count is not a positive integer, or ``symmetric`` is asked for with ``n_columns != n``.

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
    stacked = rng.standard_normal((m, _width(n, n_columns, symmetric)))
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
    a = rng.standard_normal((m, n))
    if not symmetric:
        b = rng.standard_normal((m, n_columns))
        return MeasurementOperator(
            (a[:, :, None] * b[:, None, :]).reshape(m, -1) / np.sqrt(m), n, n_columns, False
        )
    return MeasurementOperator(
        _pack_rows(a[:, :, None] * a[:, None, :]) / np.sqrt(2 * m), n, n, True
    )


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
    width = _width(n, n_columns, symmetric)
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
        If a count is not a positive integer or ``m`` exceeds the number of waves.

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
    k, p = np.divmod(_choose(n * n_columns, m, rng), n_columns)
    rows, columns = np.outer(k, np.arange(n)) / n, np.outer(p, np.arange(n_columns)) / n_columns
    angle = 2 * np.pi * (rows[:, :, None] + columns[:, None, :]).reshape(m, -1)
    return MeasurementOperator((np.cos(angle) + np.sin(angle)) / np.sqrt(m), n, n_columns, False)


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
    return MeasurementOperator(_pack_rows(matrices) * np.sqrt(width / m / n), n, n, True)


@result
class RestrictedDeviation:
    r"""Two-sided bounds of a supremum over matrices of rank at most $r$.

    Attributes
    ----------
    found
        The value at ``matrix``: the supremum is at least this.
    bound
        The supremum is at most this (up to rounding).
    matrix
        The maximiser that the local search found, of unit Frobenius norm.
    """

    found: float
    bound: float
    matrix: FloatArray


def restricted_isometry(
    operator: MeasurementOperator,
    *,
    rank: int,
    rng: np.random.Generator,
    starts: int = 8,
    iterations: int = 500,
) -> RestrictedDeviation:
    r"""Bound the restricted isometry constant $\delta_r=\sup\{|\|\mathcal
    A(X)\|^2-1|:\mathrm{rank}\,X\le r,\|X\|_F=1\}$.

    With $H=\mathcal A^*\mathcal A-\mathrm{Id}$ and $c$ at least its spectral radius both $c+\langle
    X,HX\rangle$ and $c-\langle X,HX\rangle$ are convex, so that maximising their linearisation,
    $X\leftarrow P_r(cX\pm H(X))$ normalised, never decreases them. From above, $\delta_r\le\|H\|$;
    and since $\|X\|_*^2\le r$, $\delta_r\le r\max|H(u,v,u',v')|$ over unit vectors, at most $r$
    times the norm of any unfolding of the four-way array into a matrix.

    Parameters
    ----------
    operator
        The measurements; symmetric ones are judged on symmetric matrices.
    rank
        $r$, at most the smaller dimension.
    rng
        Draws the starts.
    starts, iterations
        Local searches for each sign, and the most steps of each.

    Returns
    -------
    RestrictedDeviation
        ``found`` $\le\delta_r\le$ ``bound``.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, restricted_isometry
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> deviation = restricted_isometry(operator, rank=1, rng=np.random.default_rng(1))
    >>> deviation.found <= deviation.bound
    True
    """
    operator = as_instance(operator, "operator", MeasurementOperator)
    r = as_count(rank, "rank", maximum=min(operator.shape))
    rng = as_instance(rng, "rng", np.random.Generator)
    starts, iterations = as_count(starts, "starts"), as_count(iterations, "iterations")
    H = operator.stacked.T @ operator.stacked
    H[np.diag_indices_from(H)] -= 1.0
    spectrum = np.linalg.eigvalsh(H)
    radius = float(np.abs(spectrum[[0, -1]]).max())
    found, best = -1.0, np.zeros(operator.shape)
    for sign in (1.0, -1.0):
        # c only has to make the form convex on this side: a smaller one takes longer steps.
        shift = max(0.0, -float((sign * spectrum).min()))
        for _ in range(starts):
            X = _random_low_rank(operator, r, rng)
            value = -np.inf
            for _ in range(iterations):
                image = H @ operator._flatten(X)
                last, value = value, sign * float(operator._flatten(X) @ image)
                if value <= last + 1e-12 * radius:
                    break
                X = _nearest_low_rank(
                    shift * X + sign * operator._unflatten(image), r, operator.symmetric
                )
            if value > found:
                found, best = value, X
    # The four-way array is taken on all matrices, where symmetric measurements see the symmetric
    # part only.
    n, p = operator.shape
    basis = np.array([operator._flatten(unit) for unit in np.eye(n * p).reshape(-1, n, p)])
    four = (basis @ H @ basis.T).reshape(n, p, n, p)
    unfoldings = (
        four.transpose(0, 2, 1, 3).reshape(n * n, p * p),
        four.transpose(0, 3, 2, 1).reshape(n * p, n * p),
    )
    sides = [r * float(np.linalg.norm(matrix, 2)) for matrix in unfoldings]
    return RestrictedDeviation(found, min(radius, *sides), best)


@refuses_overflow("scaling")
def sign_deviation(
    operator: MeasurementOperator,
    noise: ArrayLike,
    *,
    rank: int,
    scaling: float,
    rng: np.random.Generator,
    starts: int = 4,
    iterations: int = 100,
    cells: int = 20_000,
) -> RestrictedDeviation:
    r"""Bound the Sign-RIP deviation $\delta_r^\pm$ over $X,Y$ of rank at most $r$ and unit norm.

    The supremum over $Y$ is the norm of the $r$ largest singular values and is taken exactly. The
    objective is piecewise smooth with jumps in $X$, so $X$ is improved by random low-rank moves
    whose size shrinks when they fail. From above, where the unit matrices of rank at most $r$ have
    at most three dimensions ($r=1$ up to size 4, or 3 by 2; all symmetric matrices of size 2), they
    are covered by cells in which most signs are constant, and the bound tightens with their number.
    Elsewhere every sign vector has $\|\frac1{\sqrt m}\mathcal A^*\epsilon\|_F\le\sigma_1$, the
    largest singular value of the stacked matrix, so $\delta_r^\pm\le1+\sigma_1/\varphi$: rank-free,
    valid and loose, as no better bound at a reasonable cost is known to us.

    Parameters
    ----------
    operator
        Measurements with $\mathbb E\,\mathcal A^*\mathcal A=\mathrm{Id}$.
    noise
        $\sqrt m\,s$, the noise in the unit in which a measurement of $X$ has variance $\|X\|_F^2$,
        shape ``(m,)``.
    rank
        $r$, at most the smaller dimension.
    scaling
        $\varphi>0$ at $\|X\|_F=1$.
    rng
        Draws the starts and moves.
    starts, iterations
        Number of local searches, and moves of each.
    cells
        Largest number of cells of a covering.

    Returns
    -------
    RestrictedDeviation
        ``found`` $\le\delta_r^\pm\le$ ``bound``.

    Notes
    -----
    The definition follows ma2022-global (Sign-RIP, there over ranks up to $2k$; the theorem's text
    was not consulted).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, sign_deviation
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> deviation = sign_deviation(
    ...     operator, np.zeros(60), rank=1, scaling=np.sqrt(2 / np.pi), rng=np.random.default_rng(1)
    ... )
    >>> deviation.found <= deviation.bound
    True
    """
    operator = as_instance(operator, "operator", MeasurementOperator)
    m = operator.n_measurements
    s = as_array(noise, "noise", shape=(m,)) / np.sqrt(m)
    r = as_count(rank, "rank", maximum=min(operator.shape))
    phi = as_real(scaling, "scaling", above=0.0)
    rng = as_instance(rng, "rng", np.random.Generator)
    starts, iterations = as_count(starts, "starts"), as_count(iterations, "iterations")
    cells = as_count(cells, "cells")

    def deviation(X: FloatArray) -> float:
        D = operator.adjoint(np.sign(operator.forward(X) - s)) / np.sqrt(m) - phi * X
        sigma = (
            np.abs(np.linalg.eigvalsh(D))
            if operator.symmetric
            else np.linalg.svd(D, compute_uv=False)
        )
        return float(np.linalg.norm(np.sort(sigma)[-r:])) / phi

    candidates = [_random_low_rank(operator, r, rng) for _ in range(starts)]
    searched = [_climb(deviation, X, operator, r, rng, iterations) for X in candidates]
    found, best = max(searched, key=lambda pair: pair[0])
    stacked = operator.stacked
    gram = stacked.T @ stacked if m >= stacked.shape[1] else stacked @ stacked.T
    spectral = float(np.sqrt(np.linalg.eigvalsh(gram)[-1]))
    sizes = np.linalg.norm(stacked, axis=1)

    def in_balls(X: FloatArray, radius: FloatArray) -> FloatArray:
        flat = np.array([operator._flatten(matrix) for matrix in X])
        residuals = flat @ stacked.T - s
        unknown = np.abs(residuals) <= np.outer(radius, sizes)
        image = np.where(unknown, 0.0, np.sign(residuals)) @ stacked / np.sqrt(m) - phi * flat
        sigma = np.linalg.svd(
            np.array([operator._unflatten(row) for row in image]), compute_uv=False
        )[:, :r]
        flips = np.minimum(unknown @ sizes / np.sqrt(m), spectral * np.sqrt(unknown.mean(axis=1)))
        return np.asarray((np.linalg.norm(sigma, axis=1) + flips) / phi + radius)

    covers = families(operator.shape, r, symmetric=operator.symmetric)
    bounds = [
        largest_bound(family, in_balls, found=found, cells=cells // len(covers))
        for family in covers
    ]
    return RestrictedDeviation(found, min(1.0 + spectral / phi, max(bounds, default=np.inf)), best)


def _climb(
    value: Callable[[FloatArray], float],
    X: FloatArray,
    operator: MeasurementOperator,
    rank: int,
    rng: np.random.Generator,
    iterations: int,
) -> tuple[float, FloatArray]:
    """Maximise by random moves: the size grows by a half after a success and shrinks by a tenth
    after a failure."""
    best, size = value(X), 0.5
    for _ in range(iterations):
        move = X + size * _random_low_rank(operator, rank, rng)
        Z = _nearest_low_rank(move, rank, operator.symmetric)
        now = value(Z)
        if now > best:
            best, X, size = now, Z, min(1.5 * size, 1.0)
        else:
            size *= 0.9
    return best, X


def _random_low_rank(
    operator: MeasurementOperator, rank: int, rng: np.random.Generator
) -> FloatArray:
    n, p = operator.shape
    left = rng.standard_normal((n, rank))
    X = (left * rng.choice([-1.0, 1.0], rank)) @ (
        left if operator.symmetric else rng.standard_normal((p, rank))
    ).T
    return np.asarray(X / np.linalg.norm(X))


def _nearest_low_rank(matrix: FloatArray, rank: int, symmetric: bool) -> FloatArray:
    """Return the maximiser of the inner product with ``matrix`` among those of rank at most
    ``rank`` and unit norm."""
    if symmetric:
        values, vectors = np.linalg.eigh(matrix)
        keep = np.argsort(np.abs(values))[-rank:]
        X = (vectors[:, keep] * values[keep]) @ vectors[:, keep].T
    else:
        U, sigma, Vt = np.linalg.svd(matrix, full_matrices=False)
        X = (U[:, :rank] * sigma[:rank]) @ Vt[:rank]
    norm = np.linalg.norm(X)
    return np.asarray(X / norm) if norm > 0 else X


def _columns(n: int, n_columns: int | None, symmetric: bool) -> int:
    columns = n if n_columns is None else as_count(n_columns, "n_columns")
    if as_flag(symmetric, "symmetric") and columns != n:
        raise ValueError(
            f"n_columns: expected {n}, as symmetric measurements are square, got {columns}"
        )
    return columns


def _width(n: int, n_columns: int, symmetric: bool) -> int:
    return n * (n + 1) // 2 if symmetric else n * n_columns


def _choose(
    available: int, m: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    rng = as_instance(rng, "rng", np.random.Generator)
    if m > available:
        raise ValueError(f"m: expected at most {available} distinct measurements, got {m}")
    return np.asarray(rng.choice(available, m, replace=False), dtype=np.int64)


def _pack_rows(matrices: FloatArray) -> FloatArray:
    stacked = np.empty((len(matrices), _width(matrices.shape[1], matrices.shape[1], True)))
    for matrix, row in zip(matrices, stacked, strict=True):
        pack_symmetric(matrix, row)
    return stacked


@compiled
def pack_symmetric(matrix: FloatArray, flat: FloatArray) -> None:
    """Write the symmetric part of ``matrix`` in orthonormal coordinates to ``flat``."""
    position = 0
    for i in range(matrix.shape[0]):
        for j in range(i):
            flat[position] = (matrix[i, j] + matrix[j, i]) * np.sqrt(0.5)
            position += 1
        flat[position] = matrix[i, i]
        position += 1


@compiled
def unpack_symmetric(flat: FloatArray, matrix: FloatArray) -> None:
    """Write the symmetric matrix with orthonormal coordinates ``flat`` to ``matrix``."""
    position = 0
    for i in range(matrix.shape[0]):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = flat[position] * np.sqrt(0.5)
            position += 1
        matrix[i, i] = flat[position]
        position += 1


@compiled(fastmath={"contract", "reassoc", "nsz"})
def normal_product(stacked: FloatArray, vector: FloatArray, image: FloatArray) -> None:
    """Write ``stacked.T @ (stacked @ vector)`` to ``image`` in one pass over ``stacked``.

    Four rows at a time stay in cache between the inner product and the update, so that the memory
    traffic, which bounds the speed of the two separate products, is halved."""
    m, width = stacked.shape
    image[:] = 0.0
    whole = m - m % 4
    for i in range(0, whole, 4):
        s0 = s1 = s2 = s3 = 0.0
        for j in range(width):
            s0 += stacked[i, j] * vector[j]
            s1 += stacked[i + 1, j] * vector[j]
            s2 += stacked[i + 2, j] * vector[j]
            s3 += stacked[i + 3, j] * vector[j]
        for j in range(width):
            image[j] += (
                s0 * stacked[i, j]
                + s1 * stacked[i + 1, j]
                + s2 * stacked[i + 2, j]
                + s3 * stacked[i + 3, j]
            )
    for i in range(whole, m):
        s0 = 0.0
        for j in range(width):
            s0 += stacked[i, j] * vector[j]
        for j in range(width):
            image[j] += s0 * stacked[i, j]
