"""Features of balanced classes, columns ordered by class: means, deviations, ridge classifier."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count

__all__ = ["balanced", "centred_means", "parts", "ridge_fit"]


def balanced(features: ArrayLike, n_classes: int, name: str = "features") -> tuple[FloatArray, int]:
    H = as_array(features, name, ndim=2)
    K = as_count(n_classes, "n_classes", minimum=2)
    if H.shape[1] % K:
        raise ValueError(
            f"{name}: expected a multiple of n_classes = {K} columns, got {H.shape[1]}"
        )
    return H, K


def parts(H: FloatArray, K: int) -> tuple[FloatArray, FloatArray]:
    """Return the class means (d, K) and what the samples deviate from them (d, N)."""
    means: FloatArray = H.reshape(H.shape[0], K, -1).mean(axis=2)
    return means, H - np.repeat(means, H.shape[1] // K, axis=1)


def centred_means(H: FloatArray, K: int) -> FloatArray:
    means = parts(H, K)[0]
    centred: FloatArray = means - means.mean(axis=1, keepdims=True)
    return centred


def ridge_fit(H: FloatArray, K: int, lam_w: float) -> FloatArray:
    n = H.shape[1] // K
    means = H.reshape(H.shape[0], K, n).mean(axis=2)
    W: FloatArray = np.linalg.solve(H @ H.T / n + lam_w * np.eye(H.shape[0]), means).T
    return W
