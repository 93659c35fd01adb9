"""What the descents on factors are given, checked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import (
    FloatArray,
    as_array,
    as_instance,
    as_symmetric,
)
from theorylab.matrix_sensing.operators import MeasurementOperator

IntArray = NDArray[np.int64]

__all__ = ["first_factor", "measured", "misfit_of", "recorded_steps", "target"]


def recorded_steps(record: ArrayLike | None, steps: int) -> IntArray:
    if record is None:
        spaced = np.geomspace(1, max(steps, 1), max(2, int(16 * np.log10(max(steps, 1))) + 2))
        return np.unique(np.append(0, np.minimum(np.rint(spaced).astype(np.int64), steps)))
    given = as_array(record, "record", ndim=1, nonnegative=True)
    schedule = given.astype(np.int64)
    if (schedule != given).any() or (np.diff(schedule) <= 0).any() or schedule[-1] > steps:
        raise ValueError(
            f"record: expected increasing integers between 0 and steps = {steps}, got {given}"
        )
    return schedule


def first_factor(
    given: ArrayLike | None,
    name: str,
    shape: tuple[int, int],
    scale: float,
    rng: np.random.Generator | None,
) -> FloatArray:
    if given is not None:
        if rng is not None:
            raise ValueError(f"{name}, rng: expected a start or a generator, got both")
        return as_array(given, name, shape=shape).copy()
    if rng is None:
        raise ValueError(f"{name}: expected a start, as rng is None, got None")
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    return scale * rng.standard_normal(shape)


def target(
    truth: ArrayLike | None,
    operator: MeasurementOperator | None,
    measurements: ArrayLike | None,
    *,
    symmetric: bool,
) -> FloatArray:
    """Return M, or zeros in its place where it is unknown."""
    if truth is not None:
        return as_symmetric(truth, "truth") if symmetric else as_array(truth, "truth", ndim=2)
    if operator is None or measurements is None:
        raise ValueError("truth: expected a matrix, or operator and measurements, got None")
    return np.zeros(as_instance(operator, "operator", MeasurementOperator).shape)


def misfit_of(
    operator: MeasurementOperator | None,
    measurements: ArrayLike | None,
    noise: ArrayLike | None,
    M: FloatArray,
) -> tuple[Callable[[FloatArray], float], float]:
    """Return the map from a matrix to the norm of its residual, and the norm by which ``tol``
    measures the error: that of M, or of the data where it is unknown."""
    size = float(np.linalg.norm(M))
    if operator is None:
        return lambda matrix: float(np.linalg.norm(matrix - M)), size
    if measurements is not None:
        y = as_array(measurements, "measurements")
        size = size or float(np.linalg.norm(y))
        return lambda matrix: float(np.linalg.norm(operator.forward(matrix) - y)), size
    s = 0.0 if noise is None else as_array(noise, "noise")
    return lambda matrix: float(np.linalg.norm(operator.forward(matrix - M) - s)), size


def measured(
    operator: MeasurementOperator | None,
    measurements: ArrayLike | None,
    noise: ArrayLike | None,
    M: FloatArray,
    *,
    symmetric: bool,
) -> tuple[FloatArray, bool, FloatArray]:
    """Return the matrix a descent applies, whether it is the Gram matrix (else its normal product
    is taken), and A*(s)."""
    shape = M.shape
    if operator is None:
        for name, value in (("noise", noise), ("measurements", measurements)):
            if value is not None:
                raise ValueError(
                    f"{name}: expected None without an operator, as the population problem "
                    "has no measurements"
                )
        return np.empty((0, 0)), False, np.empty(0)
    if not isinstance(operator, MeasurementOperator):
        raise ValueError(
            f"operator: expected a MeasurementOperator or None, got {type(operator).__name__}"
        )
    if operator.shape != shape or operator.symmetric != symmetric:
        kind = "symmetric" if symmetric else "general"
        raise ValueError(
            f"operator: expected {kind} measurements of {shape} matrices, got "
            f"symmetric={operator.symmetric}, {operator.shape}"
        )
    m, width = operator.stacked.shape
    shift = np.zeros(width)
    if measurements is not None:
        if noise is not None:
            raise ValueError("noise: expected None where measurements are given, got both")
        y = as_array(measurements, "measurements", shape=(m,))
        shift = (y - operator.forward(M)) @ operator.stacked
    elif noise is not None:
        shift = as_array(noise, "noise", shape=(m,)) @ operator.stacked
    # One product with the Gram matrix is never dearer than the two with m >= width rows that it
    # replaces.
    return (
        (operator.stacked.T @ operator.stacked, True, shift)
        if m >= width
        else (operator.stacked, False, shift)
    )
