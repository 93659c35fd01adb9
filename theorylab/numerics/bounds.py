"""Two-sided bounds of an optimal value, and the one meaning of "gap"."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp, isnan, ldexp

import numpy as np

from theorylab._validation import FloatArray

__all__ = ["Bounds", "power_of_two", "relative_gap"]

# What a sum of a thousand or so float64 terms may be off by, relatively.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Bounds:
    """An optimal value lies between ``lower`` and ``upper``."""

    upper: float
    lower: float

    @property
    def gap(self) -> float:
        """Difference relative to the larger magnitude, as :func:`relative_gap` has it."""
        return relative_gap(self.upper, self.lower)


def relative_gap(upper: float, lower: float, *, floor: float = 0.0, rounding: float = 0.0) -> float:
    """Return ``upper - lower`` over the larger of the two magnitudes and the floor.

    Parameters
    ----------
    upper, lower
        The bounds. Not-a-number and an infinite bound know nothing: the gap is infinite.
    floor
        Smallest scale, where values below it are rounding errors of something larger.
    rounding
        Absolute error of the difference, beside a relative one of 1e-12.

    Returns
    -------
    float
        At least zero; zero if both bounds vanish.

    Raises
    ------
    ArithmeticError
        If the lower bound exceeds the upper one by more than rounding: one of them is wrong.

    Examples
    --------
    >>> relative_gap(2.0, 1.5)
    0.25
    """
    if isnan(upper) or isnan(lower) or np.isinf(upper) or np.isinf(lower):
        return float("inf")
    scale = max(abs(upper), abs(lower), floor)
    if lower - upper > rounding + _ROUNDING * scale:
        raise ArithmeticError(f"the lower bound {lower!r} exceeds the upper bound {upper!r}")
    # The quotients first: the difference of two large numbers may overflow.
    return max(upper / scale - lower / scale, 0.0) if scale > 0.0 else 0.0


def power_of_two(values: FloatArray | float) -> float:
    """Return the power of two next above the largest magnitude, 1 for zeros.

    Dividing by it is exact, and what is left is of unit size.

    Examples
    --------
    >>> power_of_two(3e10)
    34359738368.0
    """
    size = float(np.max(np.abs(values), initial=0.0))
    # The largest of them lies beyond float64.
    return ldexp(1.0, min(frexp(size)[1], 1023)) if size > 0.0 else 1.0
