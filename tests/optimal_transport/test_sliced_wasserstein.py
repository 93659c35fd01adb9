"""Sliced distances: other libraries, line plans, closed forms, the sandwich on every direction."""

import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits

from theorylab.optimal_transport import (
    control_means,
    gaussian_controls,
    line_plan,
    projected_distances,
    random_directions,
    sliced_distance,
)


def clouds(n, m, d, seed):
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(n, d)), rng.normal(size=(m, d)) @ rng.normal(size=(d, d)) + 0.4


@pytest.mark.parametrize(("n", "m"), [(30, 30), (12, 18), (7, 1), (5, 13)])
def test_projections_against_line_plans_and_pot(n, m):
    X, Y = clouds(n, m, 3, n)
    D = random_directions(3, 40, seed=1)
    W = projected_distances(X, Y, D)
    assert_allclose(W, [line_plan(X @ t, Y @ t).value for t in D], rtol=1e-10)
    theirs = ot.sliced_wasserstein_distance(X, Y, projections=D.T)
    ours = sliced_distance(X, Y, n_projections=40, seed=1)
    assert_allclose(ours.value, theirs, rtol=1e-10)
    assert_allclose(ours.squared, W.mean(), rtol=1e-12)
    assert_allclose(ours.standard_error, W.std(ddof=1) / np.sqrt(40), rtol=1e-12)


def test_blocks_join():
    X, Y = clouds(3000, 3000, 2, 0)
    D = random_directions(2, 200, seed=0)  # several blocks
    W = projected_distances(X, Y, D)
    for i in (0, 86, 87, 88, 199):
        assert_allclose(W[i], np.mean((np.sort(X @ D[i]) - np.sort(Y @ D[i])) ** 2), rtol=1e-12)


@given(
    st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.booleans()
)
def test_the_sandwich_holds_along_every_direction(seed, d, n, m, heavy):
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) + rng.normal(size=d)
    if heavy:
        X, Y = X**3, Y**3
    D = random_directions(d, 5, seed=seed)
    W = projected_distances(X, Y, D)
    controls = gaussian_controls(X, Y, D)
    lower, gaussian, upper = controls.lower, controls.gaussian, controls.upper
    room = 1e-12 * (1 + upper)
    assert (lower <= gaussian + room).all()
    assert (gaussian <= W + room).all()
    assert (upper + room >= W).all()


def test_each_bound_is_attained():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    D = random_directions(3, 6, seed=0)
    lower = gaussian_controls(X, X + 2.0, D).lower
    W = projected_distances(X, X + 2.0, D)
    assert_allclose(lower, W, rtol=1e-12)
    shrunk = 0.3 * X + 1
    W = projected_distances(X, shrunk, D)
    assert_allclose(gaussian_controls(X, shrunk, D).gaussian, W, rtol=1e-12)
    point = np.ones((4, 3))
    W = projected_distances(X, point, D)
    assert_allclose(gaussian_controls(X, point, D).upper, W, rtol=1e-12)
    # Nearly uncorrelated monotone coupling: W approaches the upper bound.
    spike = np.zeros((10_000, 1))
    spike[0] = 100.0
    coin = np.repeat([[-1.0], [1.0]], 5000, axis=0)
    up = gaussian_controls(spike, coin, [[1.0]]).upper[0]
    assert 0.98 * up <= projected_distances(spike, coin, [[1.0]])[0] <= up
    # With W_1 squared in place of W_2 squared the middle inequality is false.
    x = np.linspace(-1, 1, 101)[:, None]
    assert np.mean(abs(x - 3 * x)) ** 2 < gaussian_controls(x, 3 * x, [[1.0]]).gaussian[0] * 0.8


def test_means_of_the_controls():
    X, Y = clouds(40, 30, 4, 2)
    D = random_directions(4, 400_000, seed=3)
    controls = gaussian_controls(X, Y, D)
    for sample, mean in zip((controls.lower, controls.upper), control_means(X, Y), strict=True):
        assert abs(sample.mean() - mean) <= 5 * sample.std() / np.sqrt(len(D))
        assert sample.std() / np.sqrt(len(D)) < 0.002 * mean


def test_isotropic_gaussians_in_closed_form():
    # SW^2 of N(m, s^2) and N(0, t^2) in dimension d is |m|^2/d + (s - t)^2.
    rng = np.random.default_rng(4)
    X, Y = 2 + 3 * rng.normal(size=(40_000, 3)), rng.normal(size=(40_000, 3))
    result = sliced_distance(
        X, Y, n_projections=60, control_variate="lower", coefficient=1.0, seed=0
    )
    assert_allclose(result.squared, 4 + 4, rtol=0.02)


def test_variance_ratio_is_one_minus_the_squared_correlation():
    X, Y = clouds(60, 80, 5, 5)
    D = random_directions(5, 3000, seed=9)
    W, controls = projected_distances(X, Y, D), gaussian_controls(X, Y, D)
    for name in ("lower", "upper"):
        result = sliced_distance(X, Y, n_projections=3000, control_variate=name, seed=9)
        rho = np.corrcoef(W, getattr(controls, name))[0, 1]
        assert_allclose(result.variance_ratio, 1 - rho**2, rtol=1e-9)
        assert 0.001 < result.variance_ratio < 1
    plain = sliced_distance(X, Y, n_projections=3000, seed=9)
    assert plain.variance_ratio == 1
    none = sliced_distance(
        X, Y, n_projections=3000, control_variate="lower", coefficient=0.0, seed=9
    )
    assert_allclose(none.squared, plain.squared)


def test_controls_halve_the_error_on_digits():
    digits = load_digits()
    X, Y = (digits.data[digits.target == k] / 16 for k in (3, 8))
    reference = sliced_distance(X, Y, n_projections=40_000, control_variate="lower", seed=99)
    errors = {}
    for control in (None, "lower", "upper"):
        values = [
            sliced_distance(X, Y, n_projections=50, control_variate=control, seed=s).squared
            for s in range(60)
        ]
        errors[control] = np.sqrt(np.mean((np.array(values) - reference.squared) ** 2))
    assert errors["lower"] < errors[None] / 5
    assert errors["upper"] < errors[None] / 2


def test_a_fitted_coefficient_can_hurt_with_few_directions():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(200, 8)) * np.linspace(0.3, 3, 8)
    Y = rng.normal(size=(200, 8))
    Y, X = Y - Y.mean(0) + 1e-3, X - X.mean(0)  # means that do not differ: rho near 0
    truth = sliced_distance(X, Y, n_projections=20_000, seed=1).squared

    def mse(control):
        runs = [
            sliced_distance(X, Y, n_projections=4, control_variate=control, seed=s).squared
            for s in range(400)
        ]
        return np.mean((np.array(runs) - truth) ** 2)

    assert mse("lower") > 1.5 * mse(None)
    assert mse("upper") < mse(None)


def test_a_control_that_does_not_vary_is_not_used():
    square = np.vstack([np.eye(2), -np.eye(2)])  # isotropic, but no Gaussian
    turned = 2.2 * square @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2)
    line = np.random.default_rng(0).normal(size=(9, 1))
    for X, Y in ((square, turned), (line, line[:5] ** 2)):
        for seed in range(20):
            plain = sliced_distance(X, Y, n_projections=10, seed=seed)
            other = sliced_distance(X, Y, n_projections=10, control_variate="upper", seed=seed)
            assert other.coefficient == 0
            assert other.squared == plain.squared
            assert other.standard_error == plain.standard_error


def test_means_that_hardly_differ_can_be_all_that_varies():
    # The direction of a small move counts, not its size: along the axis in which the shapes differ
    # the lower control explains nearly everything, across it nearly nothing.
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(80, 5)) * [1, 1, 1, 1, 4], rng.normal(size=(70, 5))
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    for axis, explained in ((0, False), (4, True)):
        for move in (1e-6, 1e-2):
            result = sliced_distance(
                X, Y + move * np.eye(5)[axis], n_projections=2000, control_variate="lower", seed=0
            )
            assert (result.variance_ratio < 0.1) == explained
            assert (result.variance_ratio > 0.8) != explained


def test_translation_scale_and_order():
    X, Y = clouds(20, 30, 3, 7)
    one = sliced_distance(X, Y, n_projections=30, control_variate="upper", seed=0)
    for unit in (1e-8, 1e8):
        other = sliced_distance(
            X * unit, Y * unit, n_projections=30, control_variate="upper", seed=0
        )
        assert_allclose(other.value, one.value * unit, rtol=1e-9)
    other = sliced_distance(Y[::-1] + 5, X + 5, n_projections=30, control_variate="upper", seed=0)
    assert_allclose(other.squared, one.squared, rtol=1e-9)
    assert sliced_distance(X, X, n_projections=5, control_variate="lower", seed=0).value == 0
    moved = sliced_distance(X, X + 3, n_projections=5, control_variate="lower", seed=0)
    assert_allclose(moved.squared, 9.0, rtol=1e-12)
    assert moved.variance_ratio < 1e-20


def test_bad_input():
    X, Y = clouds(5, 6, 3, 8)
    with pytest.raises(ValueError, match="control_variate: expected one of lower, upper"):
        sliced_distance(X, Y, n_projections=3, control_variate="middle", seed=0)
    with pytest.raises(ValueError, match=r"Y: expected shape \(any, 3\)"):
        sliced_distance(X, Y[:, :2], n_projections=3, seed=0)
    with pytest.raises(ValueError, match="n_projections: expected an integer >= 2"):
        sliced_distance(X, Y, n_projections=1, control_variate="lower", seed=0)
