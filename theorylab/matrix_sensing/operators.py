r"""Linear measurements of a matrix, stored as one stacked matrix.

A measurement operator maps $M\in\mathbb R^{n_1\times n_2}$ to $\mathcal A(M)=(\langle
A_1,M\rangle,\dots,\langle A_m,M\rangle)$; its adjoint is $\mathcal A^*(y)=\sum_i y_iA_i$. Row $i$
of the stacked matrix holds $A_i$ in orthonormal coordinates, so both maps are single BLAS products.
A symmetric $A_i$ needs only the $n(n+1)/2$ coordinates $(A_{jj},\ \sqrt2A_{jl})_{l<j}$, half the
memory traffic. Gaussian operators have independent $N(0,1/m)$ coordinates, hence $\mathbb
E\,\mathcal A^*\mathcal A=\mathrm{Id}$ on all (or on all symmetric) matrices and $\mathbb
E\|\mathcal A(M)\|^2=\|M\|_F^2$: the population problem is the one in which $\mathcal A^*\mathcal A$
is that identity. The same holds for random rows of an orthonormal basis (entries, Hartley waves,
Pauli strings) times $\sqrt{N/m}$, $N$ the dimension. How far one draw is from its mean is bounded
by `restricted_isometry` and `sign_deviation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_flag
from theorylab.matrix_sensing._packing import apply_normal, pack_symmetric, unpack_symmetric

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

__all__ = ["MeasurementOperator"]


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
        apply_normal(self.stacked, flat, image)
        return self._unflatten(image)

    def as_linear_operator(self) -> LinearOperator:
        """Return the operator on matrices flattened in C order, shape ``(m, n_rows * n_columns)``,
        for SciPy's solvers."""
        from scipy.sparse.linalg import LinearOperator  # late: it takes a third of the import

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
