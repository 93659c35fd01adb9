"""Roots, spectra and polar factors of covariances."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_symmetric, precision_of

_EPS = float(np.finfo(np.float64).eps)

__all__ = ["augmented", "eigen_decomposition", "generator_and_root", "matrix_root", "polar_factor"]


def eigen_decomposition(value: ArrayLike, name: str = "target") -> tuple[FloatArray, FloatArray]:
    """Return eigenvalues, decreasing and non-negative, and eigenvectors."""
    S = as_symmetric(value, name)
    n = S.shape[0]
    values, vectors = np.linalg.eigh(S / 2 + S.T / 2)
    # n times the rounding of a product of n terms
    if values[0] < -8 * n**2 * precision_of(value) * np.abs(S).max():
        raise ValueError(
            f"{name}: expected a positive semi-definite matrix, got the eigenvalue {values[0]}"
        )
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def matrix_root(value: ArrayLike, name: str = "target") -> FloatArray:
    values, vectors = eigen_decomposition(value, name)
    return (vectors * np.sqrt(values)) @ vectors.T


def generator_and_root(
    generator: ArrayLike, target: ArrayLike, *, name: str = "generator"
) -> tuple[FloatArray, FloatArray]:
    R = matrix_root(target)
    return as_array(generator, name, shape=(R.shape[0], None)), R


def augmented(W: FloatArray, smoothing: float) -> FloatArray:
    """Return [W, sqrt(tau) I], whose product with its transpose is W W' + tau I."""
    return np.hstack([W, np.sqrt(smoothing) * np.eye(W.shape[0])]) if smoothing else W


def polar_factor(M: FloatArray) -> FloatArray:
    """Return the polar factor, zero on the kernel (singular values at the level of rounding)."""
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    kept = sigma > max(M.shape) * _EPS * sigma[0]
    return np.asarray(U[:, kept] @ Vt[kept])


def squared_distance(W: FloatArray, R: FloatArray) -> float:
    """Return |W|^2 + |R|^2 - 2 |R W|_* as a sum of squares: no cancellation between two close
    covariances."""
    Q = polar_factor(R @ W)
    image = R @ Q
    return float(np.sum((W - image) ** 2) + np.sum((R - image @ Q.T) ** 2))
