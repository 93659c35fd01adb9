"""Exact arguments."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from numbers import Rational
from typing import Any

import numpy as np

__all__ = ["rationals", "unit_rational"]


def unit_rational(value: Any, name: str, *, zero: bool = True, one: bool) -> Fraction:
    """Return ``value`` as a fraction between 0 and 1, ends included as told."""
    (number,) = rationals([value], name)
    if not (0 <= number <= 1 and (zero or number) and (one or number != 1)):
        ends = ("[" if zero else "(") + "0, 1" + ("]" if one else ")")
        raise ValueError(f"{name}: expected a fraction in {ends}, got {number}")
    return number


def rationals(values: Any, name: str) -> list[Fraction]:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) == 0:
        raise ValueError(
            f"{name}: expected a non-empty sequence of integers or fractions, got {values!r}"
        )
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Rational):
            raise ValueError(
                f"{name}: expected integers or fractions, which are exact, got {value!r}"
            )
    return [Fraction(int(value.numerator), int(value.denominator)) for value in values]
