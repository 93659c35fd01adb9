"""Floats as the rationals and balls of python-flint that they are, and balls rounded outwards.

Results hold such numbers; here is how they are copied and pickled, which python-flint leaves
undone."""

from __future__ import annotations

import copyreg
from fractions import Fraction
from math import inf, nextafter
from typing import Any

from flint import arb, arb_mat, fmpq, fmpq_mat

from theorylab._validation import FloatArray

__all__ = [
    "above",
    "ball",
    "ball_matrix",
    "balls",
    "below",
    "rational",
    "rational_matrix",
    "rationals",
    "square_sum",
]


def _reduce_ball(ball: arb) -> tuple[Any, ...]:
    return arb, (ball.mid().man_exp(), ball.rad().man_exp())


def _reduce_matrix(matrix: fmpq_mat) -> tuple[Any, ...]:
    return fmpq_mat, (matrix.nrows(), matrix.ncols(), matrix.entries())


copyreg.pickle(arb, _reduce_ball)
copyreg.pickle(fmpq_mat, _reduce_matrix)


def rational(value: float) -> fmpq:
    """Return the double as the fraction that it is.

    Examples
    --------
    >>> str(rational(0.75))
    '3/4'
    """
    return fmpq(*float(value).as_integer_ratio())


def rationals(values: FloatArray) -> list[fmpq]:
    """Return the doubles of any array as fractions, row by row."""
    return [rational(v) for v in values.ravel().tolist()]


def rational_matrix(array: FloatArray) -> fmpq_mat:
    """Return the doubles as a matrix of fractions."""
    rows, columns = array.shape
    return fmpq_mat(rows, columns, rationals(array))


def ball(value: Fraction) -> arb:
    """Return the fraction as a ball."""
    return arb(fmpq(value.numerator, value.denominator))


def balls(values: FloatArray) -> list[arb]:
    """Return the doubles of any array as balls of radius zero, row by row."""
    return [arb(v) for v in values.ravel().tolist()]


def ball_matrix(array: FloatArray) -> arb_mat:
    """Return the doubles as a matrix of balls of radius zero."""
    rows, columns = array.shape
    return arb_mat(rows, columns, balls(array))


def above(ball: arb) -> float:
    """Return a double that is not below the ball.

    Examples
    --------
    >>> above(arb(1)) > 1 > below(arb(1))
    True
    """
    return nextafter(float(ball.upper()), inf)


def below(ball: arb) -> float:
    """Return a double that is not above the ball."""
    return nextafter(float(ball.lower()), -inf)


def square_sum(array: FloatArray) -> arb:
    """Enclose the sum of the squares of the entries."""
    total = arb(0)
    for v in balls(array):
        total += v**2
    return total
