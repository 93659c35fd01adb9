"""Companders of unit amplitude and width: increasing functions that bound a weight, or do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_real, one_of

_HALF = math.pi / 2


class Compander(NamedTuple):
    """An odd increasing function, its derivative, and its inverse inside the bound.

    ``metric`` is the square of the derivative as a function of the absolute value, up to 1000, and
    0 from the bound on.
    """

    value: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    inverse: Callable[[FloatArray], FloatArray]
    metric: Callable[[FloatArray], FloatArray]
    bound: float


COMPANDERS = {
    "arctan": Compander(
        np.arctan,
        lambda x: 1 / (1 + x * x),
        np.tan,
        lambda t: np.cos(np.minimum(t, _HALF)) ** 4,
        _HALF,
    ),
    "tanh": Compander(
        np.tanh,
        lambda x: np.cosh(np.clip(x, -350.0, 350.0)) ** -2.0,
        np.arctanh,
        lambda t: np.maximum(1 - t * t, 0.0) ** 2,
        1.0,
    ),
    "softsign": Compander(
        lambda x: x / (1 + np.abs(x)),
        lambda x: (1 + np.abs(x)) ** -2.0,
        lambda t: t / (1 - np.abs(t)),
        lambda t: np.maximum(1 - t, 0.0) ** 4,
        1.0,
    ),
    "asinh": Compander(
        np.arcsinh,
        lambda x: 1 / np.hypot(1.0, x),
        np.sinh,
        lambda t: np.cosh(np.minimum(t, 300.0)) ** -2.0,
        math.inf,
    ),
}


def checked(
    value: ArrayLike, name: str, kind: str, amplitude: float, width: float
) -> tuple[FloatArray, Compander, float, float]:
    """Return an array, a compander, its amplitude and its width."""
    chosen = COMPANDERS[one_of(kind, "kind", tuple(COMPANDERS))]
    a, b = as_real(amplitude, "amplitude", above=0.0), as_real(width, "width", above=0.0)
    return as_array(value, name), chosen, a, b


def inside(x: FloatArray, name: str, kind: str) -> FloatArray:
    """Return weights in units of the amplitude, if all are inside the bound."""
    if not (np.abs(x) < COMPANDERS[kind].bound).all():
        raise ValueError(f"{name}: expected weights inside the bound of {kind}, got one outside")
    return x
