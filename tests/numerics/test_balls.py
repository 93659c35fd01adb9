"""Doubles as rationals and balls, against the standard library's fractions."""

import copy
import pickle
from fractions import Fraction

import numpy as np
from flint import arb, ctx, fmpq

from theorylab.numerics.balls import (
    above,
    ball_matrix,
    balls,
    below,
    rational,
    rational_matrix,
    rationals,
    square_sum,
)

VALUES = np.array([[0.1, -3.0, 2.0**-300], [0.0, 1e300, -1 / 3]])


def fractions(values):
    return [Fraction(v) for v in values.ravel().tolist()]


def test_doubles_become_the_numbers_that_they_are():
    # A transposed view is read row by row as it is seen, not as it lies in memory.
    for array in (VALUES, VALUES.T):
        expected = fractions(array)
        assert [Fraction(int(q.p), int(q.q)) for q in rationals(array)] == expected
        rows, columns = array.shape
        exact, enclosed = rational_matrix(array), ball_matrix(array)
        assert (exact.nrows(), exact.ncols()) == (rows, columns)
        assert (enclosed.nrows(), enclosed.ncols()) == (rows, columns)
        for i in range(rows):
            for j in range(columns):
                assert exact[i, j] == rational(array[i, j])
                assert enclosed[i, j] == arb(array[i, j])
        assert balls(array) == [arb(v) for v in array.ravel().tolist()]
    assert rational_matrix(np.zeros((0, 3))).ncols() == 3


def test_bounds_are_strict_and_next_to_the_ball():
    with ctx.workprec(200):
        for value in (fmpq(1, 3), fmpq(-1, 3), fmpq(7), fmpq(0)):
            ball = arb(value)
            exact = Fraction(int(value.p), int(value.q))
            assert Fraction(below(ball)) < exact < Fraction(above(ball))
            assert above(ball) - below(ball) <= 4 * np.spacing(abs(float(exact)))


def test_the_sum_of_squares_is_enclosed():
    small = VALUES[:, :2] / np.array([1.0, 1e300])
    exact = sum(q * q for q in fractions(small))
    total = square_sum(small)
    assert Fraction(below(total)) <= exact <= Fraction(above(total))
    assert above(total) - below(total) <= 1e-12 * float(exact)


def test_copies_are_the_same_numbers():
    for ball in (arb(2).sqrt(), arb(0), arb(10) ** -400, arb("3.5 +/- 0.25"), arb("1 +/- 1e-300")):
        copied = pickle.loads(pickle.dumps(ball))
        assert copied.mid().man_exp() == ball.mid().man_exp()
        assert copied.contains(ball)
        assert copied.rad() <= ball.rad() * (1 + 1e-8)  # python-flint rounds it up
    matrix = rational_matrix(np.array([[0.1, 2.0, -3.0]]))
    assert copy.deepcopy(matrix) == pickle.loads(pickle.dumps(matrix)) == matrix
