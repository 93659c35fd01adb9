"""Sums over all pairs of two clouds, without a matrix of all pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

from theorylab._validation import FloatArray

__all__ = ["mean_over_pairs"]

_BLOCK = 2**21  # pairs held at a time


def mean_over_pairs(
    X: FloatArray, Y: FloatArray, function: Callable[[FloatArray], FloatArray]
) -> float:
    """Return the mean over all pairs of a function of their distance."""
    total, rows = 0.0, max(1, _BLOCK // len(Y))
    for first in range(0, len(X), rows):
        total += float(np.mean(function(cdist(X[first : first + rows], Y)))) * min(
            rows, len(X) - first
        )
    return total / len(X)
