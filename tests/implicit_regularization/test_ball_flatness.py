"""Flatness in a ball: closed forms, dense grids, exact runs by hand."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.implicit_regularization import (
    curvature_bounds,
    first_order_flatness,
    pair_descent,
    pair_remainder,
    zeroth_order_flatness,
)


def waves(rng, p):
    c, w, f = rng.standard_normal(3), rng.standard_normal((3, p)), rng.uniform(0, 6, 3)

    def loss(x):
        return np.cos(x @ w.T + f) @ c

    def gradient(x):
        return -(np.sin(x @ w.T + f) * c) @ w

    return loss, gradient, float(np.abs(c) @ np.sum(w**2, axis=1))


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 2), st.floats(0.1, 3.0))
def test_maxima_against_dense_grids(seed, p, radius):
    rng = np.random.default_rng(seed)
    loss, gradient, K = waves(rng, p)
    at = rng.standard_normal(p)
    options = {"radius": radius, "curvature": K, "tol": 0.02, "atol": 1e-3 * K * radius**2}
    rise = zeroth_order_flatness(loss, gradient, at, **options)
    steep = first_order_flatness(gradient, at, **options)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 201)] * p), axis=-1).reshape(-1, p)
    grid /= np.maximum(np.linalg.norm(grid, axis=1, keepdims=True), 1)
    points = at + radius * grid
    best = np.max(loss(points)) - loss(at[None])[0]
    largest = radius * np.max(np.linalg.norm(gradient(points), axis=1))
    for bounds, found in ((rise, best), (steep, largest)):
        assert bounds.lower - 1e-3 * K * radius**2 <= found <= bounds.upper + 1e-12
        assert bounds.upper - bounds.lower <= max(0.021 * bounds.upper, 1.01e-3 * K * radius**2)
    assert rise.lower <= steep.upper


def quadratic(H):
    return (lambda x: np.sum(x @ H * x, axis=1) / 2), (lambda x: x @ H)


def test_quadratics_in_three_dimensions_and_any_units():
    H = np.diag([3.0, 1.0, 0.2])
    for size in (1e-100, 1.0, 1e100):
        loss, gradient = quadratic(H / size**2)
        options = {"radius": 2 * size, "curvature": 3 / size**2, "tol": 0.02}
        rise = zeroth_order_flatness(loss, gradient, np.zeros(3), **options)
        assert rise.lower <= 6 <= rise.upper * (1 + 1e-12)
        steep = first_order_flatness(gradient, np.zeros(3), **options)
        assert steep.lower <= 12 <= steep.upper * (1 + 1e-12)
        assert max(rise.gap, steep.gap) < 0.021


def test_away_from_a_minimum():
    loss, gradient = quadratic(np.eye(1))
    options = {"radius": 1.0, "curvature": 1.0, "tol": 1e-6}
    rise = zeroth_order_flatness(loss, gradient, [3.0], **options)
    assert_allclose([rise.lower, rise.upper], 3.5, rtol=1e-6)
    assert_allclose(first_order_flatness(gradient, [3.0], **options).lower, 4.0, rtol=1e-6)


def test_a_false_curvature_is_not_noticed_but_a_true_one_is_enough():
    # A narrow bump between the points that a flat loss would let the search stop at.
    def loss(x):
        return np.exp(-(((x[:, 0] - 0.3) / 1e-3) ** 2))

    def gradient(x):
        return (-2 * (x[:, 0] - 0.3) / 1e-6 * loss(x))[:, None]

    found = zeroth_order_flatness(loss, gradient, [0.0], radius=1.0, curvature=2e6, tol=1e-3)
    assert_allclose(found.lower, 1.0, rtol=2e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        missed = zeroth_order_flatness(loss, gradient, [0.0], radius=1.0, curvature=0.1, atol=0.1)
    assert missed.upper < 0.5


def test_a_small_budget_warns_and_still_encloses():
    _, gradient = quadratic(np.eye(2))
    with pytest.warns(UserWarning, match="raise max_cells") as caught:
        found = first_order_flatness(
            gradient, np.zeros(2), radius=1.0, curvature=1.0, tol=1e-9, max_cells=500
        )
    assert found.lower <= 1 <= found.upper < 1.5
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="raise max_cells"):
        zeroth_order_flatness(
            lambda x: 0 * x[:, 0], lambda x: 0 * x, [0.0], radius=1.0, curvature=1.0, max_cells=50
        )


def test_boxes_that_were_left_keep_their_bound():
    # The box of 1 is left when 1 is the largest known value and 1.1 the bound there.
    def gradient(x):
        return np.interp(
            x, [-1, -0.75, -0.5, -0.25, 0, 0.5, 1], [0.7, 0.7, 0.75, 0.8, 1, 0.59, 1.09]
        )

    found = first_order_flatness(gradient, [0.0], radius=1.0, curvature=1.0, tol=0.2)
    assert found.lower <= 1.09 <= found.upper <= 1.2 * found.lower


@settings(max_examples=30)
@given(st.floats(0.1, 5.0), st.floats(0.0, 3.0), st.floats(0.1, 3.0), st.booleans())
def test_curvature_bounds_hold_and_are_attained(top, M, radius, sharper):
    sign = 1 if sharper else -1
    x = np.linspace(0, radius, 2001)
    rise = np.max(top * x**2 / 2 + sign * M * x**3 / 6)
    steep = radius * np.max(np.abs(top * x + sign * M * x**2 / 2))
    for size, order in ((rise, "zeroth"), (steep, "first")):
        bounds = curvature_bounds(size, order=order, radius=radius, hessian_lipschitz=M)
        assert bounds.lower <= top * (1 + 1e-9)
        assert bounds.upper >= top * (1 - 1e-9)
        if sharper:
            assert_allclose(bounds.lower, top)
        elif M * radius <= top:
            assert_allclose(bounds.upper, top)
    coarse = curvature_bounds(1.0, order="first", radius=1.0, hessian_lipschitz=3.0)
    assert (coarse.lower, coarse.upper) == (0, 2.5)


def test_one_step_by_hand():
    # At (2, 1), c = 1: gradient (1, 2), Hessian ((1, 3), (3, 4)), product (7, 11).
    step, rho, alpha = 0.01, 0.1, 0.5
    u = np.array([7.0, 11.0]) / math.sqrt(170)
    x, y = np.array([2.0, 1.0]) + rho * u

    def norm(x, y):
        return abs(x * y - 1) * math.hypot(x, y)

    e = 1e-6
    slope = np.array([norm(x + e, y) - norm(x - e, y), norm(x, y + e) - norm(x, y - e)]) / (2 * e)
    expected = np.array([2.0, 1.0]) - step * (np.array([1.0, 2.0]) + alpha * rho * slope)
    run = pair_descent([2, 1], target=1.0, strength=alpha, radius=rho, step_size=step, steps=1)
    assert_allclose(run.end, expected, rtol=1e-8)
    assert_allclose(run.trace, np.sum(expected**2), rtol=1e-8)
    assert_allclose(run.residual, abs(np.prod(expected) - 1), rtol=1e-7)


def test_descent_keeps_the_imbalance_and_the_term_removes_it():
    options = {"target": 1.0, "radius": 0.2}
    plain = pair_descent([3, 0.2], strength=0.0, **options, step_size=1e-3, steps=20_000)
    assert_allclose(plain.trace, math.hypot(9 - 0.04, 2), rtol=1e-3)
    run = pair_descent([3, 0.2], strength=1.0, **options, step_size=0.02, steps=20_000)
    assert_allclose(run.end[0], run.end[1], rtol=1e-9)
    bound = pair_remainder(strength=1.0, **options, step_size=0.02)
    assert 0.9 * bound < run.residual < bound
    still = pair_descent([1, 1], strength=1.0, target=1.0, radius=0.0, step_size=0.1, steps=10)
    assert still.residual == 0


def test_where_descent_with_the_term_does_not_reach_the_flattest_minimum():
    options = {"target": 1.0, "step_size": 0.02, "strength": 1.0}
    stuck = pair_descent([4, 0.25], radius=0.2, steps=100, **options)
    assert_allclose(stuck.end, [4, 0.25])
    saddle = pair_descent([0.1, 0.05], radius=0.2, steps=20_000, **options)
    assert_allclose(saddle.residual, 1, atol=1e-3)
    far = pair_descent([2, 1], radius=0.7, steps=20_000, **options)
    assert far.residual > 0.5
    with pytest.raises(ValueError, match="radius: expected at most"):
        pair_remainder(target=1.0, radius=0.56, step_size=0.02, strength=1.0)
    assert pair_remainder(target=1.0, radius=0.5, step_size=0.02, strength=1.0) < 0.1


def test_remainder_solves_its_equation():
    k, c, rho = 0.02, 0.7, 0.3
    value = pair_remainder(target=c, strength=0.5, radius=rho, step_size=k / (0.5 * rho))
    delta = math.sqrt(2 * c + 2 * value) - math.sqrt(2 * c)
    assert_allclose(delta, k * (1.5 * (math.sqrt(2 * c) + rho + delta) ** 2 - c))
    assert pair_remainder(target=c, strength=0.0, radius=rho, step_size=0.1) == 0


def test_the_largest_radius_keeps_the_ascent_where_the_loss_is_convex():
    c, options = 0.8, {"target": 0.8, "strength": 1.0, "step_size": 0.02}
    low, high = 0.0, 1.0
    for _ in range(40):
        radius = (low + high) / 2
        try:
            value = pair_remainder(radius=radius, **options)
            low = radius
        except ValueError:
            high = radius
    # The lowest late point, less the radius, is the inflection of the loss along x = y.
    delta = math.sqrt(2 * c + 2 * value) - math.sqrt(2 * c)
    assert delta > 0.01
    s = math.sqrt(2 * c) - delta - low
    assert abs(1.5 * s**2 - c) < 1e-9


def test_where_the_last_box_lies_outside_the_ball():
    # A cone at the projection of a box that meets the ball, but none of whose eighths does, and a
    # higher one at a corner of boxes that are left together with all others.
    half, centre, corner = 1 / 32, np.array([17.0, 1.0, 29.0]) / 32, np.array([-0.5, 0.0, 0.0])
    peak, reach = centre / np.linalg.norm(centre), half * math.sqrt(3)
    top = 1 + 0.45 * reach * (1 - 1e-6)

    def gradient(x):
        cones = [
            height - np.linalg.norm(x - at, axis=1) for height, at in ((1, peak), (top, corner))
        ]
        return np.maximum(np.max(cones, axis=0), 0)[:, None] * [1.0, 0.0, 0.0]

    options = {"radius": 1.0, "curvature": 1.0, "tol": 1e-9, "atol": 0.9 * reach}
    found = first_order_flatness(gradient, np.zeros(3), **options)
    assert found.lower <= top <= found.upper <= found.lower + 0.9 * reach


def test_bad_arguments_are_refused_by_name():
    loss, gradient = quadratic(np.eye(1))
    options = {"radius": 1.0, "curvature": 1.0}
    with pytest.raises(ValueError, match=r"gradient\(points\): expected shape"):
        zeroth_order_flatness(loss, loss, [0.0], **options)
    with pytest.raises(ValueError, match=r"loss\(points\): expected shape"):
        zeroth_order_flatness(gradient, gradient, [0.0], **options)
    with pytest.raises(ValueError, match="at: expected at most 4 coordinates"):
        first_order_flatness(gradient, np.zeros(5), **options)
    with pytest.raises(ValueError, match="radius: expected at least 1e-6"):
        first_order_flatness(gradient, [1e9], **options)
    with pytest.raises(ValueError, match="step_size: expected one that no step outgrows"):
        pair_remainder(target=1.0, strength=1.0, radius=1.0, step_size=1.0)
