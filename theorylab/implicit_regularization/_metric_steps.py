"""Steps of descent in a metric, and the factors of a metric."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_symmetric
from theorylab.numerics.compiled import compiled
from theorylab.numerics.scaling import binary_exponent


def factor(value: ArrayLike | None, name: str, size: int) -> tuple[FloatArray, FloatArray]:
    """Return a positive definite matrix and a factor L, L L' being the matrix."""
    if value is None:
        return np.eye(size), np.eye(size)
    S = as_symmetric(value, name, size=size)
    e = binary_exponent(S)
    e += e % 2
    try:
        return S, np.ldexp(np.linalg.cholesky(np.ldexp(S, -e)), e // 2)
    except np.linalg.LinAlgError:
        raise ValueError(f"{name}: expected a positive definite matrix, got another") from None


@compiled
def descend(
    A: FloatArray,
    g: FloatArray,
    lift: FloatArray,
    w: FloatArray,
    eta: float,
    scale: float,
    steps: int,
    tol: float,
) -> tuple[int, float]:
    """Move w in place; return the steps taken and the length of the next one relative to scale."""
    n, d = A.shape
    r, change = np.empty(n), np.empty(d)
    for t in range(steps + 1):
        for i in range(n):
            r[i] = -g[i]
            for j in range(d):
                r[i] += A[i, j] * w[j]
        size = 0.0
        for j in range(d):
            change[j] = 0.0
            for i in range(n):
                change[j] += lift[j, i] * r[i]
            size += change[j] * change[j]
        ratio = np.sqrt(size) / scale if scale > 0 else 0.0
        if t == steps or ratio <= tol or not ratio < 1e100:
            break
        for j in range(d):
            w[j] -= eta * change[j]
    return t, ratio
