"""Margins against cvxpy, geometry in the plane, optimality conditions, exact arithmetic."""

import dataclasses
import math
import warnings
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import linprog

from theorylab.implicit_regularization import (
    MarginStatus,
    MarginVerdict,
    margin_projection,
    margins,
    max_margin,
)
from theorylab.implicit_regularization._least_distance import Ending


def separable(seed, n, d, margin=0.1):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(d)
    v /= np.linalg.norm(v)
    X = rng.standard_normal((n, d))
    y = np.where(X @ v > 0, 1.0, -1.0)
    return X + margin * y[:, None] * v, y


def by_cvxpy(Z, start, labels=None):
    w, b = cp.Variable(Z.shape[1]), cp.Variable()
    moved = Z @ w + (0 if labels is None else cp.multiply(labels, b))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w - start)), [moved >= 1])
    problem.solve(cp.CLARABEL, tol_gap_rel=1e-11, tol_gap_abs=1e-11, tol_feas=1e-11)
    return w.value


def check_projection(Z, start, found, accuracy=1e-9):
    """Optimality: feasible, stationary, signs, complementary."""
    assert found.status is MarginStatus.CERTIFIED
    size = 1 + np.abs(Z @ start).max()
    assert (Z @ found.weights >= 1 - accuracy * size).all()
    assert (found.multipliers >= 0).all()
    length = 1e-300 + np.linalg.norm(found.weights - start)
    assert_allclose(found.weights, start + Z.T @ found.multipliers, atol=accuracy * length + 1e-13)
    tight = found.multipliers > 0
    assert_allclose((Z @ found.weights)[tight], 1, atol=accuracy * size)
    assert_allclose(found.distance, found.distance_bound, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize(
    ("n", "d"), [(1, 1), (1, 5), (6, 1), (30, 4), (5, 30), (120, 8), (3, 200), (600, 2)]
)
def test_against_cvxpy(n, d):
    X, y = separable(n + d, n, d)
    Z = y[:, None] * X
    found = max_margin(X, y)
    assert found.status is MarginStatus.CERTIFIED
    assert found.verify().accepted
    assert_allclose(found.weights, by_cvxpy(Z, np.zeros(d)), rtol=1e-6, atol=1e-7)
    start = np.random.default_rng(d).standard_normal(d)
    projected = margin_projection(Z, start)
    check_projection(Z, start, projected)
    assert_allclose(projected.weights, by_cvxpy(Z, start), rtol=1e-5, atol=1e-6)
    if abs(y.sum()) < n:
        free = max_margin(X, y, intercept=True)
        assert free.verify().accepted
        assert_allclose(free.weights, by_cvxpy(Z, np.zeros(d), y), rtol=1e-6, atol=1e-7)
        assert free.margin >= found.margin * (1 - 1e-12)
        assert_allclose(np.min(y * (X @ free.weights + free.intercept)), 1, rtol=1e-9)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 8), st.integers(0, 8))
def test_optimality_on_any_separable_data(seed, n, d, digits):
    X, y = separable(seed, n, d, 10.0**-digits)
    X, y = np.repeat(X, 2, axis=0), np.repeat(y, 2)
    found = max_margin(X, y)
    assert found.status is MarginStatus.CERTIFIED
    assert found.verify().accepted
    start = 3 * np.random.default_rng(seed).standard_normal(d) / found.margin
    check_projection(y[:, None] * X, start, margin_projection(y[:, None] * X, start), 1e-8)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 25), st.integers(1, 5))
def test_no_separator_has_a_certificate(seed, n, d):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.choice([-1.0, 1.0], n)
    Z = y[:, None] * X
    found = max_margin(X, y)
    if found.status is MarginStatus.NOT_SEPARABLE:
        p = found.multipliers
        assert p.min() >= 0
        assert_allclose(p.sum(), 1)
        assert np.linalg.norm(Z.T @ p) < 1e-13 * np.abs(X).max()
        assert found.margin == 0
        assert not found.weights.any()
        assert found.verify().accepted
        other = margin_projection(Z, np.zeros(d))
        assert other.status is MarginStatus.NOT_SEPARABLE
        assert math.isinf(other.distance)
    else:
        assert (Z @ found.weights > 0).all()
        assert found.verify().accepted


def sizes_apart(seed, n, d, digits):
    X, y = separable(seed, n, d, 0.0)
    return X * 10.0 ** np.random.default_rng([seed, 1]).uniform(-digits, digits, (n, 1)), y


@pytest.mark.filterwarnings("ignore:not decided")
@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 11), st.sampled_from([2, 5, 8]))
def test_nothing_false_is_said_of_rows_of_sizes_far_apart(seed, n, d, digits):
    X, y = sizes_apart(seed, n, d, digits)
    Z = y[:, None] * X
    for free in (False, True) if abs(y.sum()) < n else (False,):
        found = max_margin(X, y, intercept=free)
        assert found.status is not MarginStatus.NOT_SEPARABLE
        assert (found.status is MarginStatus.CERTIFIED) == found.verify().accepted
        assert 0 <= found.margin <= found.margin_bound
    assert margin_projection(Z, np.zeros(d)).status is not MarginStatus.NOT_SEPARABLE


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 7), st.booleans(), st.booleans())
def test_small_integers_are_decided(seed, n, d, twice, free):
    # Equal rows, equal means, rows that vanish, flat sets.
    rng = np.random.default_rng(seed)
    X, y = rng.integers(-3, 4, (n, d)).astype(float), rng.choice([-1.0, 1.0], n)
    if twice:
        X, y = np.repeat(X, 2, axis=0), np.repeat(y, 2)
    free = free and abs(y.sum()) < len(y)
    rows = y[:, None] * np.append(X, np.ones((len(X), 1)), axis=1)[:, : d + free]
    program = linprog(
        np.zeros(d + free), A_ub=-rows, b_ub=-np.ones(len(X)), bounds=[(None, None)] * (d + free)
    )
    found, start = max_margin(X, y, intercept=free), rng.standard_normal(d + free)
    expected = MarginStatus.CERTIFIED if program.status == 0 else MarginStatus.NOT_SEPARABLE
    assert found.status is expected
    assert found.verify().accepted
    assert margin_projection(rows, start).status is expected


def test_classes_of_one_mean():
    for X, y in (
        ([[0.1], [0.2], [0.3]], [1, -1, 1]),
        ([[0.1, 0.2]] * 2, [1, -1]),
        (np.zeros((3, 2)), [1, 1, -1]),
    ):
        found = max_margin(X, y, intercept=True)
        assert found.status is MarginStatus.NOT_SEPARABLE
        assert found.verify().accepted


@pytest.mark.parametrize("gap", [1e-3, 1e-8, 1e-10, 1e-12])
def test_classes_of_nearly_one_mean(gap):
    found = max_margin([[-1.0], [1.0 + gap], [0.0]], [1, 1, -1], intercept=True)
    assert found.status is MarginStatus.NOT_SEPARABLE
    assert found.verify().accepted
    assert found.margin_bound < 1e-15


@pytest.mark.filterwarnings("ignore:not decided")
@pytest.mark.parametrize("margin", [1e-15, 1e-17, 1e-20, 1e-100])
def test_margins_below_rounding_are_not_decided(margin):
    Z = [[1.0, margin], [-1.0, margin]]
    found = max_margin(Z, [1, 1])
    assert found.status is MarginStatus.UNDECIDED
    assert found.margin <= margin <= found.margin_bound
    assert margin_projection(Z, [0.0, 0.0]).status is MarginStatus.UNDECIDED
    free = max_margin([*Z, [0.3, 0.0]], [1, 1, -1], intercept=True)
    assert free.status is MarginStatus.UNDECIDED
    assert free.margin <= margin / 2 <= free.margin_bound


def test_a_separator_is_not_proved_away():
    X, y = separable(9, 20, 3)
    for free in (False, True):
        found = max_margin(X, y, intercept=free)
        forged = dataclasses.replace(found, status=MarginStatus.NOT_SEPARABLE)
        assert forged.verify() is MarginVerdict.COMBINATION
    # Only without an intercept does nothing separate these.
    found = max_margin([[1.0], [3.0]], [1, -1], intercept=True)
    weights = np.array([0.75, 0.25])
    forged = dataclasses.replace(found, status=MarginStatus.NOT_SEPARABLE, multipliers=weights)
    assert forged.verify() is MarginVerdict.COMBINATION
    assert max_margin([[1.0], [3.0]], [1, -1]).status is MarginStatus.NOT_SEPARABLE
    found, one_class = max_margin(X, y, intercept=True), np.where(y > 0, 1.0, 0.0)
    assert dataclasses.replace(found, multipliers=one_class).verify() is MarginVerdict.SIGN


def test_the_exact_check_takes_the_tolerance_as_it_is():
    for gap, verdict in ((0.095, MarginVerdict.ACCEPTED), (0.105, MarginVerdict.GAP)):
        X = np.array([[1.0], [1.0 + 2 * gap]])
        found = dataclasses.replace(max_margin(X, [1, 1], tol=0.1), multipliers=np.ones(2))
        assert found.verify() is verdict


def test_bounds_hold_where_one_class_has_no_multiplier(monkeypatch):
    X, y = np.array([[2.0], [3.0], [0.0]]), np.array([1.0, 1.0, -1.0])
    one = np.array([1.0, 0.0, 0.0])
    monkeypatch.setattr(margins, "least_distance", lambda *_, **__: (np.ones(1), one, Ending.DONE))
    found = max_margin(X, y, intercept=True)
    assert found.margin == found.margin_bound == 1.0


def test_bounds_are_rounded_outwards():
    # One row, or two opposite ones: the margin is the root of an integer.
    for row in ([1.0, 1.0], [1.0, 2.0], [2.0, 3.0], [1.0, 3.0], [4.0, 7.0], [5.0, 5.0]):
        square = Fraction(row[0]) ** 2 + Fraction(row[1]) ** 2
        one = max_margin([row], [1])
        two = max_margin([row, [-v for v in row]], [1, -1], intercept=True)
        for found in (one, two):
            assert Fraction(found.margin_bound) ** 2 >= square
            w = [Fraction(v) for v in found.weights.tolist()]
            score = w[0] * Fraction(row[0]) + w[1] * Fraction(row[1]) + Fraction(found.intercept)
            assert Fraction(found.margin) ** 2 <= score**2 / (w[0] ** 2 + w[1] ** 2)


@pytest.mark.filterwarnings("ignore:not decided")
@pytest.mark.parametrize(("part", "certified"), [(0.9, True), (1.1, False)])
def test_tolerances_of_a_projection(monkeypatch, part, certified):
    status = MarginStatus.CERTIFIED if certified else MarginStatus.UNDECIDED
    long, turned = 1 + part * 1e-3, math.acos(1 - part * 1e-3)
    for x in ([long, 0.0], [math.cos(turned), math.sin(turned)]):
        result = 2 * np.array(x), np.full(1, 4.0), Ending.DONE
        monkeypatch.setattr(margins, "least_distance", lambda *_, result=result, **__: result)
        found = margin_projection([[0.5, 0.0]], [0.0, 0.0], tol=1e-3)
        assert found.status is status
        assert_allclose(found.gap + found.violation, part * 1e-3, rtol=2e-3)


def test_multipliers_beyond_float64_are_refused():
    X, y = separable(3, 20, 4)
    for scale in (1e-170, 1e200):
        with pytest.raises(ValueError, match="X: expected magnitudes"):
            max_margin(scale * X, y)
        with pytest.raises(ValueError, match="Z, start: expected magnitudes"):
            margin_projection(scale * y[:, None] * X, np.zeros(4))


def test_a_wedge_in_the_plane():
    for angle in (0.1, 0.7, 1.4, 1.57):
        Z = np.array([[math.cos(angle), math.sin(angle)], [math.cos(angle), -math.sin(angle)]])
        found = max_margin(np.append(Z, [[3.0, 0.0]], axis=0), np.ones(3))
        assert_allclose([found.margin, found.margin_bound], math.cos(angle), rtol=1e-11)
        assert found.support.tolist() == [0, 1]


def test_two_clusters_and_their_bisector():
    X = np.array([[5.0, 2.0], [5.0, 4.0], [9.0, 3.0], [1.0, 3.0], [-2.0, 0.0]])
    found = max_margin(X, [1, 1, 1, -1, -1], intercept=True)
    assert_allclose(found.weights, [0.5, 0.0], atol=1e-14)
    assert_allclose([found.intercept, found.margin], [-1.5, 2.0])
    for shift in (1e3, -1e6):
        moved = max_margin(X + shift, [1, 1, 1, -1, -1], intercept=True)
        assert_allclose(moved.weights, [0.5, 0.0], atol=1e-8)


@pytest.mark.parametrize("scale", [1e-140, 1e-8, 1e8, 1e140, 2.0**40])
def test_units(scale):
    X, y = separable(3, 20, 4)
    for free in (False, True):
        one, other = max_margin(X, y, intercept=free), max_margin(scale * X, y, intercept=free)
        assert_allclose(other.margin, scale * one.margin, rtol=1e-12)
        assert_allclose(other.weights * scale, one.weights, rtol=1e-9)
        assert other.verify().accepted
    Z, start = y[:, None] * X, np.ones(4)
    one = margin_projection(Z, start)
    other = margin_projection(scale * Z, start / scale)
    assert_allclose(other.weights * scale, one.weights, rtol=1e-9)


def test_rows_of_very_different_sizes():
    X, y = separable(4, 20, 3)
    sizes = 10.0 ** np.random.default_rng(0).uniform(-2, 2, 20)
    Z = (sizes * y)[:, None] * X
    check_projection(Z, np.zeros(3), margin_projection(Z, np.zeros(3)))


def test_a_separator_is_its_own_projection():
    X, y = separable(5, 20, 3)
    w = 2 * max_margin(X, y).weights
    found = margin_projection(y[:, None] * X, w)
    assert_allclose(found.weights, w)
    assert found.distance == found.gap == found.violation == 0
    assert found.support.size == 0


def test_many_points_need_a_working_set():
    X, y = separable(6, 4000, 5, 0.02)
    for free in (False, True):
        found = max_margin(X, y, intercept=free)
        assert found.verify().accepted
        order = np.random.default_rng(0).permutation(4000)
        assert_allclose(
            max_margin(X[order], y[order], intercept=free).margin, found.margin, rtol=1e-11
        )


def test_the_exact_check_is_not_fooled():
    X, y = separable(7, 15, 3)
    for free in (False, True):
        found = max_margin(X, y, intercept=free)
        turned = found.weights + 0.1 * np.array([1.0, -1.0, 1.0]) * np.abs(found.weights).max()
        wrong = dataclasses.replace(found, weights=turned)
        assert not wrong.verify().accepted
        wrong = dataclasses.replace(found, weights=-found.weights)
        assert wrong.verify() is MarginVerdict.SEPARATION
        wrong = dataclasses.replace(found, multipliers=-found.multipliers)
        assert wrong.verify() is MarginVerdict.SIGN
        heavier = found.multipliers * np.where(np.arange(15) == found.support[0], 1.001, 1.0)
        assert dataclasses.replace(found, multipliers=heavier).verify() is MarginVerdict.GAP
        near = dataclasses.replace(found, weights=found.weights * (1 + 1e-15))
        assert near.verify().accepted


def test_a_budget_that_is_too_small_is_said():
    X, y = separable(8, 60, 20)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = max_margin(X, y, max_iter=1)
    assert found.status is MarginStatus.UNDECIDED
    assert len(seen) == 1
    assert found.margin <= max_margin(X, y).margin <= found.margin_bound
    assert found.gap > 1e-9


def test_small_margins_are_not_taken_for_none():
    # A wedge whose rows nearly cancel.
    for margin in (1e-3, 1e-7, 1e-10, 1e-13):
        found = max_margin([[1.0, margin], [-1.0, margin]], [1, 1])
        assert found.status is MarginStatus.CERTIFIED
        assert_allclose(found.margin, margin, rtol=1e-9)


def test_what_is_refused():
    with pytest.raises(ValueError, match="y: expected labels -1 and 1, got 0"):
        max_margin([[1.0]], [0])
    with pytest.raises(ValueError, match="y: expected both labels"):
        max_margin([[1.0], [2.0]], [1, 1], intercept=True)
    with pytest.raises(ValueError, match="start: expected shape"):
        margin_projection([[1.0, 2.0]], [1.0])


@pytest.mark.parametrize("free", [False, True])
def test_a_search_that_is_stopped_has_true_bounds(free):
    X, y = separable(6, 4000, 5, 0.02)
    seen = []
    whole = max_margin(X, y, intercept=free, callback=seen.append)
    assert whole.verify().accepted
    assert [p.iteration for p in seen] == [*range(1, len(seen) + 1)]
    assert len(seen) > 2
    assert_allclose(seen[-1].objective, np.linalg.norm(whole.weights), rtol=1e-6)
    assert seen[-1].error <= 1e-10 < seen[0].error
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        some = max_margin(X, y, intercept=free, callback=lambda p: p.iteration == 1)
    assert some.status is MarginStatus.STOPPED
    assert some.margin <= whole.margin <= whole.margin_bound <= some.margin_bound
    Z = y[:, None] * X
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        near = margin_projection(Z, np.zeros(5), callback=lambda _: True)
    assert near.status is MarginStatus.STOPPED
    full = margin_projection(Z, np.zeros(5))
    assert near.distance_bound <= full.distance * (1 + 1e-12)
    assert near.violation > 0


def nearest_in_the_plane(Z, start):
    """The nearest point with Z w >= 1 among the start, its feet on all lines, and their corners."""
    feet = start + (1 - Z @ start)[:, None] * Z / np.sum(Z**2, axis=1)[:, None]
    pairs = [Z[[i, j]] for i in range(len(Z)) for j in range(i)]
    points = np.vstack([start, feet, *(np.linalg.solve(two, np.ones(2)) for two in pairs)])
    points = points[(points @ Z.T >= 1 - 1e-9).all(axis=1)]
    return points[np.argmin(np.linalg.norm(points - start, axis=1))]


@pytest.mark.parametrize("n", [5, 9, 30])
def test_a_start_that_violates_few_of_many_rows_is_projected(n):
    # The rows that are farthest from their side on average need nothing there.
    for seed in range(60):
        rng = np.random.default_rng(seed)
        angle = rng.uniform(-1.2, 1.2, n)
        Z = rng.uniform(0.5, 2.0, n)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        corner = nearest_in_the_plane(Z, np.zeros(2))
        start = corner + rng.choice([0.02, 0.3]) * rng.standard_normal(2)
        found = margin_projection(Z, start)
        assert found.status is MarginStatus.CERTIFIED
        assert_allclose(found.weights, nearest_in_the_plane(Z, start), atol=1e-9)
