"""Simplex and orthogonal frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count

__all__ = ["general_orthogonal_frame", "simplex_etf"]


def simplex_etf(n_classes: int, dimension: int) -> FloatArray:
    r"""Return unit vectors with the least common cosine, $w_k^\top w_j=-\frac1{K-1}$, as
    rows.

    Parameters
    ----------
    n_classes
        K >= 2.
    dimension
        d >= K - 1.

    Returns
    -------
    numpy.ndarray
        (K, d); row k uses the first min(k + 1, K - 1) coordinates only, and the rows sum to zero.

    Raises
    ------
    ValueError
        On bad input, and where d < K - 1: there is no such frame.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import simplex_etf
    >>> frame = simplex_etf(3, 4)
    >>> np.round(frame @ frame.T, 12)
    array([[ 1. , -0.5, -0.5],
           [-0.5,  1. , -0.5],
           [-0.5, -0.5,  1. ]])
    """
    K = as_count(n_classes, "n_classes", minimum=2)
    d = as_count(dimension, "dimension")
    if d < K - 1:
        raise ValueError(f"dimension: expected at least n_classes - 1 = {K - 1}, got {d}")
    frame = np.zeros((K, d))
    # Helmert's contrasts: column j separates class j from the classes after it.
    after = np.arange(K - 1, 0, -1.0)
    step = np.sqrt(K / (K - 1) / (after * (after + 1)))
    for j in range(K - 1):
        frame[j, j] = step[j] * after[j]
        frame[j + 1 :, j] = -step[j]
    return frame


def general_orthogonal_frame(lengths: ArrayLike, dimension: int) -> FloatArray:
    """Return orthogonal vectors of given lengths as rows; those of length 0 need no dimension.

    Parameters
    ----------
    lengths
        (K,), non-negative.
    dimension
        d, at least the number of positive lengths.

    Returns
    -------
    numpy.ndarray
        (K, d), each non-zero row along its own axis, longest first.

    Raises
    ------
    ValueError
        On bad input, and where the frame does not fit into d dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import general_orthogonal_frame
    >>> frame = general_orthogonal_frame([1.0, 2.0], 3)
    >>> np.round(frame @ frame.T, 12)
    array([[1., 0.],
           [0., 4.]])
    """
    size = as_array(lengths, "lengths", ndim=1, nonnegative=True)
    d = as_count(dimension, "dimension")
    alive = int(np.count_nonzero(size))
    if d < alive:
        raise ValueError(
            f"dimension: expected at least the number {alive} of positive lengths, got {d}"
        )
    frame = np.zeros((size.size, d))
    order = np.argsort(-size, kind="stable")[:alive]
    frame[order, np.arange(alive)] = size[order]
    return frame
