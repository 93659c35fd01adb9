"""The compiled steps of gradient descent on factors."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.matrix_sensing._packing import normal_product, pack_symmetric, unpack_symmetric
from theorylab.numerics.compiled import compiled

__all__ = ["descend_asymmetric", "descend_symmetric"]


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _residual(F: FloatArray, Gt: FloatArray, M: FloatArray, E: FloatArray) -> float:
    np.dot(F, Gt, E)
    total = 0.0
    for i in range(E.shape[0]):
        for j in range(E.shape[1]):
            E[i, j] -= M[i, j]
            total += E[i, j] * E[i, j]
    return float(np.sqrt(total))


@compiled
def _ended(error: float, stop: float, t: int, steps: int) -> int:
    """Return -1 to go on, or the position of the status in `_status`."""
    if not np.isfinite(error):
        return 2
    if error <= stop:
        return 1
    return 0 if t == steps else -1


@compiled
def _take_step(X: FloatArray, change: FloatArray, step_size: float) -> None:
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            X[i, j] -= step_size * change[i, j]


@compiled
def _apply_normal(
    stacked: FloatArray, gram: bool, shift: FloatArray, flat: FloatArray, image: FloatArray
) -> None:
    """Write A*(A(E) - s) to ``image``, in the coordinates of the measurements; ``shift`` is
    A*(s)."""
    if gram:
        np.dot(stacked, flat, image)
    else:
        normal_product(stacked, flat, image)
    for i in range(image.size):
        image[i] -= shift[i]


@compiled
def descend_symmetric(
    X: FloatArray,
    M: FloatArray,
    step_size: float,
    steps: int,
    stop: float,
    stacked: FloatArray,
    gram: bool,
    shift: FloatArray,
) -> tuple[int, int, float]:
    n = X.shape[0]
    E, change = np.empty((n, n)), np.empty_like(X)
    flat, image = np.empty(stacked.shape[1]), np.empty(stacked.shape[1])
    t = 0
    while True:
        error = _residual(X, X.T, M, E)
        code = _ended(error, stop, t, steps)
        if code >= 0:
            return code, t, error
        if stacked.size:
            pack_symmetric(E, flat)
            _apply_normal(stacked, gram, shift, flat, image)
            unpack_symmetric(image, E)
        np.dot(E, X, change)
        _take_step(X, change, step_size)
        t += 1


@compiled
def descend_asymmetric(
    F: FloatArray,
    G: FloatArray,
    M: FloatArray,
    step_size: float,
    steps: int,
    stop: float,
    stacked: FloatArray,
    gram: bool,
    shift: FloatArray,
) -> tuple[int, int, float]:
    E, image = np.empty(M.shape), np.empty(M.shape)
    change_F, change_G = np.empty_like(F), np.empty_like(G)
    gradient = image if stacked.size else E
    flat_E, flat_image = E.reshape(-1), image.reshape(-1)
    t = 0
    while True:
        error = _residual(F, G.T, M, E)
        code = _ended(error, stop, t, steps)
        if code >= 0:
            return code, t, error
        if stacked.size:
            _apply_normal(stacked, gram, shift, flat_E, flat_image)
        np.dot(gradient, G, change_F)
        np.dot(gradient.T, F, change_G)
        _take_step(F, change_F, step_size)
        _take_step(G, change_G, step_size)
        t += 1
