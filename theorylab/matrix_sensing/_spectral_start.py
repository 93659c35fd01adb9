"""Factors to start a descent from: of the best approximation of a matrix, or moved to balance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_symmetric

__all__ = ["spectral_factor", "spectral_factors"]

_EPS = float(np.finfo(np.float64).eps)


def spectral_factor(surrogate: ArrayLike, *, search_rank: int) -> FloatArray:
    r"""Return $X_0$ with $X_0X_0^\top$ the best positive semidefinite approximation of rank at most
    $k$.

    The spectral start of sensing is that of $\mathcal A^*(y)$ (``operator.adjoint(y)``), whose mean
    is $M$. Its leading columns do not depend on $k$; columns beyond the positive eigenvalues (above
    ``n * eps`` times the largest absolute one) are 0, and stay 0 under descent.

    Parameters
    ----------
    surrogate
        Symmetric, shape ``(n, n)``.
    search_rank
        $k$, the number of columns; it may exceed $n$.

    Returns
    -------
    FloatArray
        $X_0$, shape ``(n, k)``.

    Raises
    ------
    ValueError
        If an argument is invalid or ``surrogate`` is not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import spectral_factor
    >>> spectral_factor(np.diag([4.0, 1.0, -9.0]), search_rank=1).ravel() ** 2
    array([4., 0., 0.])
    """
    S = as_symmetric(surrogate, "surrogate")
    k = as_count(search_rank, "search_rank")
    values, vectors = np.linalg.eigh(S)
    kept = np.where(values > len(S) * _EPS * np.abs(values).max(), values, 0.0)
    return _columns(vectors[:, ::-1] * np.sqrt(kept[::-1]), k)


def spectral_factors(surrogate: ArrayLike, *, search_rank: int) -> tuple[FloatArray, FloatArray]:
    r"""Return $(F_0,G_0)$ with $F_0G_0^\top$ the best approximation of rank at most $k$ and
    $F_0^\top F_0=G_0^\top G_0$.

    The balanced start of sensing is that of $\mathcal A^*(y)$; scale one factor up and the other
    down for an imbalance, which the linear rate needs.

    Parameters
    ----------
    surrogate
        Shape ``(n_1, n_2)``.
    search_rank
        $k$, the number of columns; those beyond the rank of ``surrogate`` (singular values below
        ``max(n_1, n_2) * eps`` times the largest count as zero) are 0.

    Returns
    -------
    F, G
        Shapes ``(n_1, k)`` and ``(n_2, k)``.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import spectral_factors
    >>> F, G = spectral_factors([[0.0, 4.0], [1.0, 0.0]], search_rank=1)
    >>> np.round(F @ G.T, 12)
    array([[0., 4.],
           [0., 0.]])
    """
    S = as_array(surrogate, "surrogate", ndim=2)
    k = as_count(search_rank, "search_rank")
    U, sigma, Vt = np.linalg.svd(S, full_matrices=False)
    sigma = np.where(sigma > max(S.shape) * _EPS * sigma[0], sigma, 0.0)
    return _columns(U * np.sqrt(sigma), k), _columns(Vt.T * np.sqrt(sigma), k)


def _columns(factor: FloatArray, count: int) -> FloatArray:
    """Return the first columns of the factor, with zeros for those that it lacks."""
    kept = np.zeros((factor.shape[0], count))
    kept[:, : factor.shape[1]] = factor[:, :count]
    return kept
