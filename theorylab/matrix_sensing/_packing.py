"""Kernels for symmetric matrices in orthonormal coordinates, and for the product of a stacked
matrix of measurements with itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from theorylab._validation import FloatArray
from theorylab.numerics.compiled import compiled

__all__ = ["FAST", "apply_normal", "normal_product", "pack_symmetric", "unpack_symmetric"]

FAST = {"contract", "reassoc", "nsz"}  # of the rules of IEEE what no sum here depends on


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


def normal_product(stacked: FloatArray, vector: FloatArray, image: FloatArray) -> None:
    """Write ``stacked.T @ (stacked @ vector)`` to ``image``; as machine code in one pass."""
    np.dot(stacked @ vector, stacked, out=image)


def _one_pass(stacked: FloatArray, vector: FloatArray, image: FloatArray) -> Any:
    """Return what `normal_product` compiles to.

    Four rows at a time stay in cache between the inner product and the update, so that the memory
    traffic, which bounds the speed of the two separate products, is halved."""

    def product(stacked: FloatArray, vector: FloatArray, image: FloatArray) -> None:
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

    return product


overload(normal_product, jit_options={"fastmath": FAST})(_one_pass)


@compiled
def apply_normal(stacked: FloatArray, vector: FloatArray, image: FloatArray) -> None:
    """Call `normal_product` from Python."""
    normal_product(stacked, vector, image)
