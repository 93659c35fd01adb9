"""Exact margins against fractions by their definitions, and kernels with and without a sign."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theorylab.implicit_regularization import _margin_proofs as proofs


def exact(values):
    return [Fraction(float(v)) for v in values]


def dot(a, b):
    return sum(p * q for p, q in zip(exact(a), exact(b), strict=True))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 4), st.integers(-30, 30))
def test_bounds_in_fractions(seed, n, d, exponent):
    rng = np.random.default_rng(seed)
    w, b = rng.standard_normal(d), float(rng.standard_normal())
    X = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-8, 8, (n, 1)) * 10.0**exponent
    w, y = w * 10.0**-exponent, np.where(X @ (w * 10.0**-exponent) + b > 0, 1.0, -1.0)
    y[0], y[1] = 1.0, -1.0
    least = min(Fraction(s) * (dot(x, w) + Fraction(b)) for s, x in zip(y, X, strict=True))
    assert proofs.attained(X, y, w, b) == (least**2 / dot(w, w) if least > 0 else 0)
    a = rng.random(n)
    rows = [[Fraction(s) * v for v in exact(x)] for s, x in zip(y, X, strict=True)]
    sums = {s: sum(Fraction(v) for v, t in zip(a, y, strict=True) if t == s) for s in (1, -1)}
    for free in (False, True):
        share = [
            Fraction(v) / (2 * sums[t] if free else sum(exact(a)))
            for v, t in zip(a, y, strict=True)
        ]
        v = [sum(p * row[j] for p, row in zip(share, rows, strict=True)) for j in range(d)]
        assert proofs.exceeded_by_none(X, y, a, free) == sum(c**2 for c in v)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 40), st.integers(0, 300))
def test_products_of_any_sizes_in_fractions(seed, n, m, spread):
    rng = np.random.default_rng(seed)
    A, v = (rng.standard_normal(s) * 10.0 ** rng.uniform(-spread, spread, s) for s in ((n, m), m))
    v[rng.random(m) < 0.2] = 0.0
    found, exponent = proofs.product(A, v)
    assert [int(t) * Fraction(2) ** exponent for t in found] == [dot(row, v) for row in A]


@pytest.mark.parametrize("m", [7, 8, 127, 128, 1000])
def test_products_of_the_largest_digits(m):
    # Every mantissa is as large as it can be, and nothing cancels.
    v = np.full(m, np.nextafter(2.0, 1.0))
    found, exponent = proofs.product(v[None], v)
    assert int(found[0]) * Fraction(2) ** exponent == m * Fraction(v[0]) ** 2
    tiny = np.array([[1.7e308, 5e-324, -1.7e308]])
    found, exponent = proofs.product(tiny, np.ones(3))
    assert int(found[0]) * Fraction(2) ** exponent == Fraction(5e-324)


def test_scores_that_agree_to_rounding():
    # Which row is the least is not seen in floats; the margin is 2^-60 of the scores.
    X = np.array([[1.0, -1.0], [1.0, -1.0 + 2.0**-52], [1.0, 2.0**-53]])
    w = np.array([1.0 + 2.0**-52, 1.0])
    size = dot(w, w)
    assert proofs.attained(X, np.ones(3), w, 0.0) == Fraction(2) ** -104 / size
    assert proofs.attained(X, np.ones(3), w, -(2.0**-52)) == 0
    assert proofs.attained(X, np.ones(3), w, -(2.0**-53)) == Fraction(2) ** -106 / size
    assert proofs.attained(X, np.ones(3), -w, 0.0) == 0


def test_scores_that_no_float_holds():
    # Rounded, the first is 1024.
    X = np.array([[2.0**70, 1000.0, -(2.0**70)], [0.0, 1010.0, 0.0]])
    assert proofs.attained(X, np.ones(2), np.ones(3), 0.0) == Fraction(10**6, 3)


@settings(max_examples=60)
@given(st.fractions(min_value=0), st.integers(-900, 900), st.booleans())
def test_roots_are_rounded_outwards(number, exponent, up):
    square = number * Fraction(2) ** exponent
    found = Fraction(proofs.root(square, up=up))
    assert found**2 >= square if up else found**2 <= square
    if square:
        assert abs(found**2 / square - 1) < Fraction(1, 2**50)


@pytest.mark.parametrize("up", [True, False])
def test_roots_of_squares_are_exact(up):
    for value in (0.0, 1.0, 3.0, 0.5, 1e-150 * 2**10, 1e300, 5e-324, math.nextafter(1.0, 2.0)):
        assert proofs.root(Fraction(value) ** 2, up=up) == value


def test_combinations_that_vanish_exactly():
    assert proofs.vanishes(np.array([[1.0, 0.1], [-1.0, -0.1]]), np.array([0.5, 0.5]))
    assert proofs.vanishes(np.zeros((2, 3)), np.array([0.0, 1.0]))
    assert not proofs.vanishes(np.zeros((2, 3)), np.zeros(2))
    assert not proofs.vanishes(np.array([[1.0], [1.0]]), np.array([0.5, -0.5]))
    assert not proofs.vanishes(np.array([[1.0], [-1.0]]), np.array([1.0, 0.0]))
    assert not proofs.vanishes(np.array([[1.0], [-1.0], [2.0]]), np.array([0.5, 0.5, -0.5]))


def test_weights_of_the_kernel_may_be_zero():
    # The first and last rows cancel; the second has no weight in any combination that vanishes.
    Z = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    for small in (1.0, 1e-3, 1e-20, 1e-300):
        assert proofs.vanishes(Z, np.array([1.0, small, 1.0]))
    assert not proofs.vanishes(Z * [[1.0], [1.0], [-1.0]], np.ones(3))


def test_small_margins_do_not_vanish():
    for margin in (1e-10, 1e-17, 1e-30, 1e-300):
        Z = np.array([[1.0, margin], [-1.0, margin]])
        assert not proofs.vanishes(Z, np.array([0.5, 0.5]))
        assert not proofs.vanishes(np.append(Z, [[0.5, margin]], axis=0), np.full(3, 1 / 3))


def test_weights_that_are_wrong_in_the_last_digit_or_more():
    # The kernel of three directions at thirds of a turn, and of thirds, which floats do not hold.
    turn = np.exp(2j * np.pi * np.arange(3) / 3)
    Z = np.column_stack([turn.real, turn.imag])
    for off in (0.0, 1e-15, 1e-3):
        assert proofs.vanishes(Z, np.array([1.0, 1.0 + off, 1.0]) / 3)
    line = np.array([[1.0, 3.0], [1.0, 3.0], [-3.0, -9.0]])
    for p in ([0.3, 0.45, 0.25], [0.1, 0.1, 0.1], [0.0, 0.7, 0.3]):
        assert proofs.vanishes(line, np.array(p))
    assert not proofs.vanishes(line[:2], np.array([0.5, 0.5]))
    # The first weight is 4 - 3 (1.2) whatever it is said to be, and would be negative for 1 - 1.2.
    line = np.array([[1.0, 3.0], [3.0, 9.0], [-4.0, -12.0]])
    for first in (0.4, 0.7):
        assert proofs.vanishes(line, np.array([first, 1.2, 1.0]))
    assert not proofs.vanishes(line, np.array([0.4, 1.4, 1.0]))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 3))
def test_kernels_of_integers_and_their_signs(seed, d, spare):
    # The last row is minus a combination of the others: their weights are its coefficients.
    rng = np.random.default_rng(seed)
    rows = np.rint(rng.uniform(-9, 9, (d, d)))
    if np.linalg.matrix_rank(rows) < d:
        return
    c = rng.integers(1, 6, d).astype(float)
    pad, unit = np.rint(rng.uniform(-3, 3, (d, spare))), 2.0 ** rng.integers(-30, 30, d + 1)
    Z = np.append(rows, [-c @ rows], axis=0)
    Z = np.concatenate([Z, Z @ pad], axis=1) * unit[:, None]
    wrong = Z * np.append(np.ones(d), -1.0)[:, None]
    for weights in (np.append(c, 1.0) / unit, rng.uniform(0.5, 1.5, d + 1)):
        assert proofs.vanishes(Z, weights)
        assert not proofs.vanishes(wrong, weights)


def test_kernels_beyond_elimination():
    rng = np.random.default_rng(0)
    d = 90
    Z = rng.standard_normal((d + 1, d))
    p = rng.uniform(0.5, 1.0, d + 1)
    Z[-1] = -p[:-1] @ Z[:-1] / p[-1]
    assert proofs.vanishes(Z, p)
    assert proofs.vanishes(Z * 10.0 ** rng.uniform(-8, 8, d), p)
    Z[-1] *= -1
    assert not proofs.vanishes(Z, p)
    sizes = 10.0 ** rng.uniform(-8, 8, d + 1)
    Z[-1] *= -1
    assert proofs.vanishes(Z * sizes[:, None], p / sizes)
    assert not proofs.vanishes(Z, p * np.append(np.ones(d), 2.0))
