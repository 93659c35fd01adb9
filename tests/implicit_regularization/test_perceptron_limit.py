"""Perceptrons in integers, descents against gradients, bounds against what attains them."""

import math
import tracemalloc
import warnings
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.implicit_regularization import (
    SeparationStatus,
    _loss_floors,
    batch_perceptron,
    cross_entropy_floor,
    imbalanced_pair,
    imbalanced_steps,
    least_logistic_loss,
    logistic_descent,
    logistic_loss_floor,
    logit_bound,
    max_margin,
    normalized_steps_bound,
    perceptron_steps_bound,
    separable_rows,
)


def in_fractions(Z, normalized, limit):
    """The perceptron by its definition."""
    rows = [[Fraction(int(v)) for v in z] for z in Z]
    n, d = Z.shape
    theta, path = [Fraction(0)] * d, []
    for t in range(limit + 1):
        path.append(theta)
        scores = [sum(a * b for a, b in zip(z, theta, strict=True)) for z in rows]
        missed = [z for z, s in zip(rows, scores, strict=True) if s <= 0]
        if t and not missed:
            break
        half = t == 0 and not normalized
        weight = Fraction(1, 2 * n if half else len(missed) if normalized else n)
        theta = [v + weight * sum(z[j] for z in missed) for j, v in enumerate(theta)]
    return path


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 4), st.booleans())
def test_perceptron_in_fractions(seed, n, d, normalized):
    Z = np.round(3 * separable_rows(n, d, push=0.4, seed=seed, offset=1.0))
    run = batch_perceptron(Z, normalized=normalized, max_iter=40)
    path = in_fractions(Z, normalized, 40)[: len(run.iterates)]
    assert_allclose(run.iterates, np.array(path, dtype=float), atol=1e-12)
    if run.status is SeparationStatus.SEPARATED:
        assert (Z @ run.iterates[-1] > 0).all()
        assert all((Z @ theta <= 0).any() for theta in run.iterates[:-1])


def test_perceptron_from_a_start_by_hand():
    # Half a step over both rows, then (2, 1) / 2, then (1, -3) / 2 whose score is 0.
    Z, start = [[2.0, 1.0], [1.0, -3.0]], [-1.0, 0.25]
    run = batch_perceptron(Z, start=start)
    assert_allclose(run.iterates, [start, [-0.25, -0.25], [0.75, 0.25], [1.25, -1.25]])
    assert_allclose(run.scores, run.iterates @ np.transpose(Z))
    # Both rows are on the wrong side of the start: their mean.
    run = batch_perceptron(Z, start=start, normalized=True)
    assert_allclose(run.iterates, [start, [0.5, -0.75]])


def test_margin_before_is_of_the_iterates_between():
    run = batch_perceptron(imbalanced_pair(4, margin=0.5))
    assert_allclose(run.scores * 8, [[0] * 4, [3, 3, 3, -1], [1.5] * 4])
    assert run.margin_before == 1 / 8
    assert batch_perceptron([[3.0, 4.0]]).margin_before == math.inf


def test_perceptron_that_is_stopped():
    run = batch_perceptron([[1.0], [-1.0]], max_iter=7)
    assert run.status is SeparationStatus.NOT_SEPARATED
    assert run.steps == 7
    # The last step of the budget counts.
    Z = imbalanced_pair(4, margin=0.5)
    for budget, status in ((1, SeparationStatus.NOT_SEPARATED), (2, SeparationStatus.SEPARATED)):
        assert batch_perceptron(Z, max_iter=budget).status is status


@pytest.mark.parametrize("mu", [Fraction(1, 2), Fraction(1, 3), Fraction(7, 10), Fraction(1)])
def test_exact_count_of_the_imbalanced_pair(mu):
    for n in range(2, 60):
        try:
            expected = imbalanced_steps(n, margin=mu)
        except ValueError:
            assert 2 * mu**2 * (n - 1) < 1 - mu**4
            continue
        Z = imbalanced_pair(n, margin=1.0) * [float(mu.denominator), float(mu.numerator)]
        assert batch_perceptron(Z).steps == expected, (n, mu)


def test_the_count_needs_its_condition():
    # Another row gets misclassified, and the steps are more than twice as many.
    n, mu = 15, 0.1531913228714248
    with pytest.raises(ValueError, match="n, margin: expected 2 margin"):
        imbalanced_steps(n, margin=mu)
    count = 2 + math.floor((n * (1 - mu**2) - 2) / (2 * (1 + mu**2)))
    assert batch_perceptron(imbalanced_pair(n, margin=mu)).steps > 2 * count


def test_descent_steps_along_the_gradient():
    rng = np.random.default_rng(0)
    Z, start = rng.standard_normal((7, 3)), rng.standard_normal(3)
    run = logistic_descent(Z, step_size=0.3, steps=2, start=start, ridge=0.2)

    def loss(w):
        return np.log1p(np.exp(-Z @ w)).mean()

    gradient = [(loss(start + h) - loss(start - h)) / 2e-6 for h in 1e-6 * np.eye(3)]
    assert_allclose(run.iterates[1], start - 0.3 * (np.array(gradient) + 0.2 * start), atol=1e-8)
    assert_allclose(run.gradient_norms[0], np.linalg.norm(gradient), rtol=1e-6)
    assert_allclose(run.losses, [loss(w) for w in run.iterates])


def test_normalised_descent_has_weights_of_sum_one():
    Z = np.append(np.ones((5, 1)), np.arange(1.0, 6.0)[:, None], axis=1)
    run = logistic_descent(Z, step_size=700.0, steps=30, normalized=True)
    assert_allclose(np.diff(run.iterates[:, 0]), 700)
    assert (np.diff(run.iterates[:, 1]) >= 700 - 1e-9).all()
    assert run.separated_at == 1


def test_until_separated_and_never():
    Z = imbalanced_pair(20, margin=0.3)
    run = logistic_descent(Z, step_size=1.0, steps=1000, until_separated=True)
    assert run.status is SeparationStatus.SEPARATED
    assert run.steps == run.separated_at
    assert (Z @ run.iterates[-1] > 0).all()
    assert (Z @ run.iterates[-2] <= 0).any()
    never = logistic_descent([[1.0], [-1.0]], step_size=1.0, steps=3)
    assert (never.separated_at, never.status) == (-1, SeparationStatus.NOT_SEPARATED)


def test_large_steps_are_the_perceptron():
    Z = imbalanced_pair(21, margin=0.23)
    exact = batch_perceptron(Z)
    run = logistic_descent(Z, step_size=1e7, steps=exact.steps)
    assert_allclose(run.iterates / 1e7, exact.iterates, atol=1e-9)
    small = logistic_descent(Z, step_size=1.0, steps=exact.steps)
    assert not np.allclose(small.iterates, exact.iterates, atol=0.01)


def test_first_two_iterates_by_symbols():
    g = sp.Symbol("g", positive=True)
    rows = [sp.Matrix([1, -1]), sp.Matrix([1, 4])]
    theta = g * (rows[0] + rows[1]) / 4
    loss = sum(sp.log(1 + sp.exp(-z.dot(theta))) for z in rows) / 2
    pull = (
        rows[0] / (1 + sp.exp(rows[0].dot(theta))) + rows[1] / (1 + sp.exp(rows[1].dot(theta)))
    ) / 2
    assert sp.limit(loss / g, g, sp.oo) == sp.Rational(1, 8)
    assert [sp.limit(v, g, sp.oo) for v in pull] == [sp.Rational(1, 2), -sp.Rational(1, 2)]
    run = logistic_descent([[1.0, -1.0], [1.0, 4.0]], step_size=1e4, steps=2)
    assert_allclose(run.losses / 1e4, [0.0, 0.125, 0.0], atol=1e-4)
    assert_allclose(run.iterates[2] / 1e4, [1.0, 0.25])


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 15), st.integers(1, 4))
def test_bounds_of_steps_hold_and_are_attained_by_one_row(seed, n, d):
    Z = separable_rows(n, d, push=0.1, seed=seed, offset=0.5)
    margin = max_margin(Z, np.ones(n)).margin_bound
    size = {"radius": np.linalg.norm(Z, axis=1).max(), "margin": margin}
    assert batch_perceptron(Z).steps <= perceptron_steps_bound(n, **size) * (1 + 1e-9)
    shared = batch_perceptron(Z, normalized=True).steps
    assert shared <= normalized_steps_bound(n, **size) * (1 + 1e-9)
    if n == 1:
        assert_allclose([shared, perceptron_steps_bound(1, **size)], 1.0)


def test_bounds_in_numbers():
    assert perceptron_steps_bound(7, radius=3.0, margin=0.5) == 7 * 36
    found = normalized_steps_bound(7, radius=3.0, margin=0.5, step_size=2.0)
    assert_allclose(found, 36 + math.log(13) * 4)
    assert_allclose(logistic_loss_floor(5, radius=2.0, margin=0.5), math.log1p(math.exp(-1)) / 5)
    assert logit_bound([2.0, 0.5, 3.0], feature_norm=0.1) == pytest.approx(0.3)
    assert_allclose(cross_entropy_floor(3, logit=0.5), math.log(1 + 2 * math.exp(-1)))


@pytest.mark.parametrize(
    ("n", "d", "radius"), [(1, 1, 2.0), (6, 3, 1.0), (20, 3, 8.0), (4, 9, 3.0)]
)
def test_least_loss_against_cvxpy(n, d, radius):
    Z = np.random.default_rng(n).standard_normal((n, d))
    w, loss, bound = least_logistic_loss(Z, radius=radius)
    v = cp.Variable(d)
    problem = cp.Problem(cp.Minimize(cp.sum(cp.logistic(-Z @ v)) / n), [cp.norm(v) <= radius])
    value = problem.solve(cp.CLARABEL)
    assert_allclose([loss, bound], value, rtol=1e-6)
    assert np.linalg.norm(w) <= radius * (1 + 1e-12)
    assert_allclose(loss, np.logaddexp(0, -Z @ w).mean())
    assert bound <= loss
    for scale in (1e-60, 1e60):
        other = least_logistic_loss(scale * Z, radius=radius / scale)
        assert_allclose(other[1:], [loss, bound], rtol=1e-9)


@pytest.mark.parametrize("radius", [1e-3, 0.3, 5.0, 40.0])
def test_floor_of_the_loss(radius):
    Z = separable_rows(6, 3, push=0.2, seed=3)
    margin = max_margin(Z, np.ones(6))
    floor = logistic_loss_floor(6, radius=radius, margin=margin.margin_bound)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, loss, bound = least_logistic_loss(Z, radius=radius)
    assert floor <= bound <= loss <= 6.1 * np.logaddexp(0, -radius * margin.margin)
    one = logistic_loss_floor(1, radius=radius, margin=5.0)
    assert_allclose(one, least_logistic_loss([[3.0, 4.0]], radius=radius)[1], rtol=1e-8)


def test_least_losses_whose_squares_are_below_float64():
    Z = np.random.default_rng(6).standard_normal((6, 3))
    margin = max_margin(Z, np.ones(6))
    for radius in (1000.0, 1200.0):
        _, loss, bound = least_logistic_loss(Z, radius=radius)
        assert bound <= 6.1 * np.exp(-radius * margin.margin)
        assert_allclose(bound, loss, rtol=2e-9)
    # And where no float64 weight of the ridge is small enough, this is said.
    with pytest.warns(UserWarning, match="the minimum was not enclosed to tol"):
        _, loss, bound = least_logistic_loss(Z, radius=1e4)
    assert bound <= 6.1 * np.exp(-1e4 * margin.margin) < loss


def test_a_tolerance_that_is_not_reached_is_said(monkeypatch):
    Z = separable_rows(6, 3, push=0.2, seed=3)
    monkeypatch.setattr(_loss_floors, "_ridge_minimiser", lambda Z, weight, start: start)
    with pytest.warns(UserWarning, match="the minimum was not enclosed to tol"):
        _, loss, bound = least_logistic_loss(Z, radius=1.0)
    assert_allclose(loss, math.log(2))
    assert_allclose(bound, math.log(2) - np.linalg.norm(Z.mean(axis=0)) / 2)


def test_many_columns_need_no_square_matrix():
    Z = np.random.default_rng(0).standard_normal((3, 1500))
    tracemalloc.start()
    try:
        w, loss, _ = least_logistic_loss(Z, radius=0.1)
        assert tracemalloc.get_traced_memory()[1] < 1500**2  # bytes: an eighth of a matrix
    finally:
        tracemalloc.stop()
    assert_allclose(loss, np.logaddexp(0, -Z @ w).mean())


def test_separable_rows_have_the_margin():
    for n, d in ((1, 1), (30, 2), (5, 8)):
        for offset in (0.0, 2.0):
            Z = separable_rows(n, d, push=0.25, seed=n, offset=offset)
            assert Z.shape == (n, d)
            assert max_margin(Z, np.ones(n)).margin >= 0.25 * (1 - 1e-9)
