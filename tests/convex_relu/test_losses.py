"""Losses against what defines them: derivatives, conjugates and proximal maps by minimisation."""

import numpy as np
import pytest
from flint import arb, ctx, fmpq
from scipy.optimize import minimize_scalar

from theorylab.convex_relu import Hinge, Interpolation, Logistic, Squared
from theorylab.convex_relu.losses import as_loss

SMOOTH = [Squared(), Logistic()]
LOSSES = [*SMOOTH, Hinge()]


def targets(loss, n, rng):
    return rng.standard_normal(n) if loss.name == "squared" else np.sign(rng.standard_normal(n))


def least(function, low=-60.0, high=60.0):
    return minimize_scalar(function, bounds=(low, high), method="bounded", options={"xatol": 1e-11})


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_dual_terms_are_minus_the_conjugate(loss):
    rng = np.random.default_rng(0)
    y = targets(loss, 9, rng)
    v = rng.uniform(0.02, 0.98, 9) * (y if loss.bounded_dual else 3.0)
    for i, found in enumerate(loss.dual_terms(v, y)):
        one = y[i : i + 1]
        best = least(lambda f, i=i, one=one: loss.value(np.array([f]), one) + v[i] * f)
        assert found == pytest.approx(best.fun, rel=1e-7, abs=1e-9)
    # At the ends of the domain, and beyond them.
    if loss.bounded_dual:
        ends = 0.0 if loss.name == "logistic" else 1.0
        np.testing.assert_array_equal(loss.dual_terms(np.array([0.0, 1.0]), np.ones(2)), [0, ends])
        for outside in (-1e-300, 1.0 + 1e-15):
            assert loss.dual(np.array([outside]), np.ones(1)) == -np.inf
            assert loss.dual(np.array([-outside]), -np.ones(1)) == -np.inf


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_values_and_duals_in_balls_are_those_in_float64(loss):
    rng = np.random.default_rng(1)
    y, f = targets(loss, 7, rng), 3.0 * rng.standard_normal(7)
    v = rng.uniform(0.02, 0.98, 7) * (y if loss.bounded_dual else 3.0)
    exact = [[arb(float(a)) for a in values] for values in (f, v, y)]
    assert float(loss.value_ball(exact[0], exact[2])) == pytest.approx(loss.value(f, y), rel=1e-14)
    assert float(loss.dual_ball(exact[1], exact[2])) == pytest.approx(loss.dual(v, y), rel=1e-13)
    ends = loss.dual_ball([arb(0), arb(1)], [arb(1), arb(1)])
    assert float(ends) == pytest.approx(loss.dual(np.array([0.0, 1.0]), np.ones(2)))


@pytest.mark.parametrize("loss", SMOOTH, ids=lambda loss: loss.name)
def test_derivatives_are_slopes_also_where_exponentials_overflow(loss):
    y = np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    f, h = np.array([0.3, 0.3, -2.0, 4.0, 0.0]), 1e-6
    slope = (loss.terms(f + h, y) - loss.terms(f - h, y)) / (2.0 * h)
    np.testing.assert_allclose(loss.gradient(f, y), slope, rtol=1e-8, atol=1e-9)
    bend = (loss.gradient(f + h, y) - loss.gradient(f - h, y)) / (2.0 * h)
    np.testing.assert_allclose(loss.curvature(f, y), bend, rtol=1e-8)
    grid = np.linspace(-30.0, 30.0, 2001)
    top = loss.curvature(grid, np.ones_like(grid)).max()
    assert loss.curvature_bound * (1.0 - 1e-3) <= top <= loss.curvature_bound
    far = np.array([-2e3, 2e3])
    for part in (loss.terms, loss.gradient, loss.curvature):
        assert np.isfinite(part(far, np.ones(2))).all()
    if loss.name == "logistic":
        np.testing.assert_allclose(loss.terms(far, np.ones(2)), [2e3, 0.0])
        np.testing.assert_allclose(loss.gradient(far, np.ones(2)), [-1.0, 0.0])


@pytest.mark.parametrize("step", [0.1, 0.7, 3.0])
def test_the_proximal_map_of_the_hinge_is_a_minimum(step):
    loss, y = Hinge(), np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    f = np.array([-3.0, -0.5, 0.95, 2.0, 1.2])
    point, slope = loss.prox(f, y, step)
    for i in range(5):
        one = y[i : i + 1]
        best = least(
            lambda s, i=i, one=one: loss.value(np.array([s]), one) + (s - f[i]) ** 2 / (2.0 * step),
            -9.0,
            9.0,
        )
        assert point[i] == pytest.approx(best.x, abs=1e-6)
    moved = loss.prox(f + 1e-7, y, step)[0]
    np.testing.assert_allclose(slope, (moved - point) / 1e-7, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_optimality_vanishes_exactly_at_the_negative_slopes(loss):
    rng = np.random.default_rng(3)
    y = targets(loss, 8, rng)
    f = 2.0 * rng.standard_normal(8)
    v = -loss.gradient(f, y)
    assert np.abs(loss.optimality(f, v, y)[0]).max() <= 1e-15
    wrong = v + y * np.where(v == 0.0, 0.1, -0.1)
    assert np.abs(loss.optimality(f, wrong, y)[0]).min() > 0.0
    # At the kink of the hinge every weight between its ends is optimal.
    if loss.name == "hinge":
        assert not loss.optimality(y, rng.uniform(0.1, 0.9, 8) * y, y)[0].any()


def test_the_hinge_has_its_left_slope_at_the_kink():
    y = np.array([1.0, -1.0])
    np.testing.assert_array_equal(Hinge().gradient(y, y), -y)
    np.testing.assert_array_equal(Hinge().gradient(y * (1.0 + 1e-15), y), [0.0, 0.0])


@pytest.mark.parametrize("loss", [Logistic(), Hinge()], ids=lambda loss: loss.name)
def test_points_are_moved_into_the_domain_and_to_its_ends(loss):
    y = np.array([1.0, -1.0, 1.0, -1.0])
    last, v = np.array([0.4, -0.4, 0.4, -0.4]), np.array([-0.2, 0.2, 1.3, -1.3])
    moved = loss.into_domain(v, last, y)
    assert loss.in_domain([fmpq(*float(a).as_integer_ratio()) for a in moved], y)
    if loss.name == "hinge":
        np.testing.assert_array_equal(moved, [0.0, 0.0, 1.0, -1.0])
    else:  # a tenth of the way is left, as the slope of its entropy is infinite at the ends
        np.testing.assert_allclose(moved, [0.04, -0.04, 0.94, -0.94])
    inside = np.array([0.2, -0.7, 0.5, -0.1])
    np.testing.assert_array_equal(loss.into_domain(inside, last, y), inside)
    assert not loss.in_domain([fmpq(11, 10), *[fmpq(0)] * 3], y)
    assert not loss.in_domain([fmpq(-1, 10**30), *[fmpq(0)] * 3], y)
    at = np.array([1e-12, -(1.0 - 1e-12), 0.5, -1e-3])
    np.testing.assert_array_equal(loss.interior(at, y), [False, False, True, True])
    np.testing.assert_array_equal(loss.at_ends(at, y), [0.0, -1.0, 0.5, -1e-3])


def test_rounding_of_dual_values_is_relative_to_their_sizes(monkeypatch):
    monkeypatch.setattr(ctx, "prec", 200)
    rng = np.random.default_rng(5)
    for loss in LOSSES:
        for scale in (1e-9, 1e-4, 0.5):
            y = np.sign(rng.standard_normal(50))
            v = y * scale * rng.uniform(0.2, 1.0, 50)
            exact = loss.dual_ball([arb(float(a)) for a in v], [arb(float(a)) for a in y])
            error = abs(float(exact - arb(loss.dual(v, y))))
            size = loss.dual_sizes(v, y).sum()
            assert error <= 1e-13 * size
            assert size <= 30.0 * abs(float(exact)) + 1e-300


def test_interpolation_is_met_to_a_tolerance_of_the_largest_target():
    loss, y = Interpolation(), np.array([3.0, -1.0])
    for error, met in ((0.9e-10, True), (1.1e-10, False)):
        f = y + np.array([0.0, 3.0 * error])
        value = loss.value_ball([arb(float(a)) for a in f], [arb(float(a)) for a in y])
        assert loss.value(f, y) == (0.0 if met else np.inf)
        assert float(value) == (0.0 if met else np.inf)
    assert loss.dual(np.array([2.0, 5.0]), y) == 1.0
    np.testing.assert_array_equal(loss.prox(np.zeros(2), y, 0.5)[0], y)
    assert np.abs(loss.optimality(y, np.ones(2), y)[0]).max() == 0.0


def test_homogeneous_losses_scale_with_their_degree():
    rng = np.random.default_rng(7)
    f, y = rng.standard_normal(5), rng.standard_normal(5)
    assert Squared().value(4.0 * f, 4.0 * y) == 4.0 ** Squared().degree * Squared().value(f, y)
    assert Logistic().degree is Hinge().degree is None
    assert not Logistic().attained
    assert Hinge().attained
    assert Squared().attained


def test_labels_and_names_are_checked():
    for loss in (Logistic(), Hinge()):
        with pytest.raises(ValueError, match=f"y: expected labels -1 and 1 for the {loss.name}"):
            loss.check_labels(np.array([1.0, 0.0]))
        loss.check_labels(np.array([1.0, -1.0]))
    assert as_loss("hinge").name == "hinge"
    with pytest.raises(ValueError, match="loss: expected one of hinge, squared"):
        as_loss("logistic", Hinge, Squared)
    with pytest.raises(ValueError, match="loss: expected one of hinge, squared"):
        as_loss(Logistic(), Hinge, Squared)


def test_a_logistic_loss_far_beyond_the_exponential_is_enclosed():
    loss, one = as_loss("logistic"), [arb(1)]
    assert float(loss.value_ball([arb(-1e100)], one)) == 1e100
    assert float(loss.value_ball([arb(1e100)], one)) == 0.0
    wide = loss.value_ball([arb(0, 1e-3)], one)
    assert wide.contains(arb(2).log())
    assert float(wide.rad()) < 2e-3
