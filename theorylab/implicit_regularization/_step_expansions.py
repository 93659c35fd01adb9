"""Coefficients of functions that are analytic in the step, from their values, with errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.bounds import power_of_two

__all__ = ["expansion_coefficients", "small_step_coefficient"]


@refuses_overflow("steps", "values", "noise")
def expansion_coefficients(
    steps: ArrayLike, values: ArrayLike, *, noise: ArrayLike = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Return the coefficients, from that of degree 0, of a function that is analytic at 0 and known
    at some steps, shape (n - 2, ...), and their errors in norm, shape (n - 2,).

    They are those of the polynomial through all values. The errors are the sums of the differences
    to the polynomials without the largest step and without the two largest (of a number, one
    difference may vanish by chance), and of what noise amounts to.

    Parameters
    ----------
    steps
        Shape (n,), n >= 4, positive, decreasing.
    values
        Shape (n, ...).
    noise
        Absolute error of the values at each step, shape (n,) or a number, beside their rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import expansion_coefficients
    >>> h = np.linspace(0.5, 0.05, 8)
    >>> found, error = expansion_coefficients(h, np.exp(h))
    >>> found[:3].round(4), bool((error[:3] < 1e-2).all())
    (array([1. , 1. , 0.5]), True)
    """
    h = as_array(steps, "steps", ndim=1, positive=True)
    if len(h) < 4 or (np.diff(h) >= 0).any():
        raise ValueError("steps: expected at least four, decreasing")
    f = as_array(values, "values")
    if not f.ndim or len(f) != len(h):
        raise ValueError(f"values: expected {len(h)} of them, got shape {f.shape}")
    wrong = as_array(noise, "noise", nonnegative=True)
    if wrong.shape not in ((), h.shape):
        raise ValueError(f"noise: expected a number or shape {h.shape}, got {wrong.shape}")
    flat, unit = f.reshape(len(h), -1), power_of_two(h)
    rounding = wrong + 4e-16 * np.abs(flat).max(axis=1)
    fits = []
    for kept in (slice(None), slice(1, None), slice(2, None)):
        powers = np.vander(h[kept] / unit, increasing=True)
        if np.linalg.cond(powers) > 1e14:
            raise ValueError("steps: expected steps that are further apart")
        fits.append(np.linalg.inv(powers)[: len(h) - 2])
    scale = unit ** -np.arange(len(h) - 2.0)
    found = scale[:, None] * (fits[0] @ flat)
    error = scale * (np.abs(fits[0]) @ (rounding * math.sqrt(flat.shape[1])))
    for left, fit in enumerate(fits[1:], 1):
        error += np.linalg.norm(found - scale[:, None] * (fit @ flat[left:]), axis=1)
    return found.reshape((len(h) - 2, *f.shape[1:])), error


@refuses_overflow("function", "width", "noise")
def small_step_coefficient(
    function: Callable[[float], ArrayLike], *, order: int, width: float, noise: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    r"""Return the coefficient of $\eta^q$ in a function that is analytic at 0, and its error:
    the difference to two degrees less, and rounding.

    Parameters
    ----------
    function
        Of one real number, of either sign; its values may be arrays.
    order, width
        q, at most 4, and the h for which a polynomial is fitted on Chebyshev nodes of (-h, h).
    noise
        Absolute error of the function, beside rounding of its values.

    Examples
    --------
    >>> import math
    >>> from theorylab.implicit_regularization import small_step_coefficient
    >>> round(float(small_step_coefficient(math.exp, order=2, width=0.1)[0]), 9)
    0.5
    """
    as_function(function, "function")
    q = as_count(order, "order", minimum=0, maximum=4)
    h = as_real(width, "width", minimum=1e-30, maximum=1e30)
    rounding = as_real(noise, "noise", minimum=0.0)
    found, spread = [], 0.0
    for degree in (10, 8):
        nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
        values = np.array([as_array(function(float(h * t)), "function") for t in nodes])
        row = np.linalg.inv(np.vander(nodes, increasing=True))[q]
        found.append(np.asarray(np.tensordot(row, values, 1) / h**q))
        wrong = rounding + 1e-14 * float(np.abs(values).max())
        spread = max(spread, wrong * float(np.abs(row).sum()) / h**q)
    return found[0], np.abs(found[0] - found[1]) + spread
