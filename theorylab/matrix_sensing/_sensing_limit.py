r"""The law of symmetric sensing with spare columns, where the measurements see all matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve

from theorylab._validation import FloatArray, as_symmetric
from theorylab.matrix_sensing._packing import pack_symmetric, unpack_symmetric
from theorylab.matrix_sensing.operators import MeasurementOperator

_EPS = float(np.finfo(np.float64).eps)

__all__ = ["sensing_limit"]


def sensing_limit(truth: ArrayLike, operator: MeasurementOperator) -> FloatArray:
    r"""Return $\lim_T2\eta T(X_TX_T^\top-M)$ for symmetric sensing with $k\ge n$ and $\mathcal
    A^*\mathcal A$ invertible.

    With $R=\mathcal A^*\mathcal A(XX^\top-M)$ and $P$ the projection on the kernel of $M$, a
    self-similar decay $E=E_\infty/(2\eta T)$ of $X\leftarrow X-\eta RX$ needs $2\eta T\,RX\to X$ on
    the kernel while $R$ vanishes elsewhere, that is $\mathcal A^*\mathcal A(E_\infty)=P$. In the
    population this is $E_\infty=P$, of norm $\sqrt{n-r}$; with finitely many measurements the
    exponent stays and the constant becomes $\|(\mathcal A^*\mathcal A)^{-1}P\|_F$. (Derived here,
    heuristically: that the descent selects this decay is not proved.)

    Parameters
    ----------
    truth
        $M\succeq0$, symmetric, shape ``(n, n)`` (eigenvalues below ``n * eps`` times the largest
        count as zero).
    operator
        Symmetric measurements, at least $n(n+1)/2$ of them.

    Returns
    -------
    FloatArray
        $E_\infty$, shape ``(n, n)``.

    Raises
    ------
    ValueError
        If an argument is invalid, ``truth`` is not positive semidefinite, $\mathcal A^*\mathcal A$
        is singular, or the block of $E_\infty$ on the kernel of $M$ is not positive definite, so
        that no $XX^\top$ follows this decay.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, sensing_limit
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> np.linalg.matrix_rank(sensing_limit(np.diag([1.0, 0.0, 0.0]), operator))
    np.int64(3)
    """
    M = as_symmetric(truth, "truth")
    n = M.shape[0]
    if (
        not isinstance(operator, MeasurementOperator)
        or operator.shape != M.shape
        or not operator.symmetric
    ):
        raise ValueError(
            f"operator: expected a symmetric MeasurementOperator on {M.shape} "
            f"matrices, got {operator!r}"
        )
    if operator.n_measurements < n * (n + 1) // 2:
        raise ValueError(
            f"operator: expected at least {n * (n + 1) // 2} measurements, got "
            f"{operator.n_measurements}"
        )
    values, vectors = np.linalg.eigh(M)
    cut = n * _EPS * np.abs(values).max()
    if values[0] < -cut:
        raise ValueError(
            f"truth: expected a positive semidefinite matrix, got the eigenvalue {values[0]}"
        )
    kernel = vectors[:, values <= cut]
    flat, limit = np.empty(operator.stacked.shape[1]), np.empty((n, n))
    gram = operator.stacked.T @ operator.stacked
    if np.linalg.matrix_rank(gram, hermitian=True) < flat.size:
        raise ValueError(
            "operator: expected measurements that span the symmetric matrices, got some that do not"
        )
    pack_symmetric(kernel @ kernel.T, flat)
    unpack_symmetric(cho_solve(cho_factor(gram), flat), limit)
    block = kernel.T @ limit @ kernel
    if block.size and np.linalg.eigvalsh(block)[0] <= 0:
        raise ValueError(
            "operator: expected measurements whose limit is positive definite on the "
            "kernel of truth, got one that is not"
        )
    return limit
