"""Descent in a metric: exact recursions, constrained minimisers, another integrator."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from theorylab.implicit_regularization import (
    MetricDescentStatus,
    compand,
    compander_bound,
    compander_flow,
    compander_metric,
    expand,
    metric_descent,
    metric_flow,
    metric_interpolator,
    metric_step_limit,
    selecting_metric,
)

KINDS = ("arctan", "tanh", "softsign", "asinh")


def problem(n=3, d=6, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d))
    return rng.standard_normal((n, d)), rng.standard_normal(n), root @ root.T + np.eye(d)


def test_steps_against_exact_arithmetic():
    X, y = [[2, -1, 0], [1, 1, 3]], [1, -2]
    M, W = [[2, 1, 0], [1, 2, 0], [0, 0, 1]], [[1, 0], [0, 3]]
    start, eta = [1, 0, -1], Fraction(1, 64)
    w = [Fraction(v) for v in start]
    for _ in range(7):
        r = [sum(X[i][j] * w[j] for j in range(3)) - y[i] for i in range(2)]
        r = [sum(W[i][k] * r[k] for k in range(2)) for i in range(2)]
        g = [sum(X[i][j] * r[i] for i in range(2)) for j in range(3)]
        w = [w[j] - eta * sum(M[j][k] * g[k] for k in range(3)) for j in range(3)]
    options = {"metric": M, "weight": W, "start": start, "step_size": 1 / 64, "tol": 0.0}
    found = metric_descent(X, y, steps=7, **options)
    assert_allclose(found.weights, [float(v) for v in w], rtol=1e-14)
    assert found.steps == 7
    assert found.status is MetricDescentStatus.NOT_CONVERGED


def test_limit_is_the_constrained_minimiser():
    X, y, M = problem()
    inverse = np.linalg.inv(M)
    run = minimize(
        lambda w: w @ inverse @ w,
        np.zeros(6),
        jac=lambda w: 2 * inverse @ w,
        constraints={"type": "eq", "fun": lambda w: X @ w - y, "jac": lambda w: X},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = metric_descent(X, y, metric=M)
    assert found.status is MetricDescentStatus.CONVERGED
    assert found.residual <= 1e-12
    assert_allclose(found.weights, run.x, atol=1e-6)
    assert_allclose(metric_interpolator(X, y, metric=M), found.weights, atol=1e-9)
    assert_allclose(metric_interpolator(X, y), np.linalg.pinv(X) @ y, atol=1e-12)


def test_least_squares_that_cannot_be_solved_and_a_weight():
    X, y, _ = problem(6, 3)
    weight = np.diag(np.arange(1.0, 7.0))
    expected = np.linalg.lstsq(np.sqrt(weight) @ X, np.sqrt(weight) @ y)[0]
    assert_allclose(metric_descent(X, y, weight=weight).weights, expected, atol=1e-9)


def test_the_step_limit_separates_convergence_from_divergence():
    X, y, M = problem()
    weight = np.array([[1.0, 0.4, -0.3], [0.4, 2.0, 0.9], [-0.3, 0.9, 5.0]])
    limit = metric_step_limit(X, metric=M, weight=weight)
    assert_allclose(limit, 2 / np.linalg.eigvals(M @ X.T @ weight @ X).real.max())
    options = {"metric": M, "weight": weight, "steps": 200_000}
    below = metric_descent(X, y, step_size=0.98 * limit, **options)
    with pytest.warns(RuntimeWarning, match="lower step_size"):
        beyond = metric_descent(X, y, step_size=1.02 * limit, **options)
    assert below.status is MetricDescentStatus.CONVERGED
    assert beyond.status is MetricDescentStatus.DIVERGED
    assert beyond.steps < 200_000


def test_data_of_zeros_are_reached_from_any_start():
    X, _, M = problem()
    end = metric_descent(X, np.zeros(3), metric=M, start=np.ones(6))
    assert end.status is MetricDescentStatus.CONVERGED
    assert np.abs(X @ end.weights).max() < 1e-9
    assert metric_descent(X, np.zeros(3)).steps == 0


def test_a_start_keeps_its_part_outside_the_range():
    X, y, M = problem()
    start = np.arange(6.0)
    end = metric_descent(X, y, metric=M, start=start).weights
    inverse = np.linalg.inv(M)
    # The nearest solution in the metric.
    assert_allclose(end, start + metric_interpolator(X, y - X @ start, metric=M), atol=1e-9)
    assert (end - start) @ inverse @ (end - start) < start @ inverse @ start * 10
    done = metric_descent(X, y, metric=M, start=end, tol=1e-8)
    assert done.steps == 0


@pytest.mark.parametrize("scale", [1e-100, 1e-7, 1e100])
def test_units_of_data_metric_and_weights(scale):
    X, y, M = problem()
    expected = metric_interpolator(X, y, metric=M)
    assert_allclose(metric_interpolator(scale * X, y, metric=M / scale) * scale, expected)
    assert_allclose(metric_descent(scale * X, scale * y, metric=M).weights, expected, rtol=1e-8)
    assert_allclose(metric_descent(X, scale * y, metric=scale * M).weights / scale, expected)
    weight = scale * np.eye(3)
    assert_allclose(metric_descent(X, y, metric=M, weight=weight).weights, expected, rtol=1e-8)


def test_every_solution_is_selected():
    X, _, _ = problem()
    for seed in range(5):
        w = np.random.default_rng(seed).standard_normal(6) * 3
        M = selecting_metric(X, w)
        assert np.linalg.eigvalsh(M).min() > 0
        assert_allclose(np.linalg.det(M), 1, rtol=1e-9)
        assert_allclose(X @ M @ X.T, X @ X.T, atol=1e-9)
        assert_allclose(metric_descent(X, X @ w, metric=M).weights, w, atol=1e-8)
    assert_allclose(selecting_metric(X, np.zeros(6)), np.eye(6))
    null = np.linalg.svd(X)[2][-1]
    with pytest.raises(ValueError, match="w: expected Xw other than 0"):
        selecting_metric(X, null)


def test_bad_problems_are_refused_by_name():
    X, y, M = problem()
    with pytest.raises(ValueError, match="metric: expected a positive definite"):
        metric_descent(X, y, metric=np.diag([1.0, 1, 1, 1, 1, -1]))
    with pytest.raises(ValueError, match="X: expected full row rank"):
        metric_interpolator(np.vstack([X, X[:1]]), [*y, y[0]], metric=M)
    with pytest.raises(ValueError, match="X: expected full row rank"):
        metric_interpolator(X.T, np.zeros(6))
    with pytest.raises(ValueError, match="step_size"):
        metric_descent(X, y, step_size=0.0)
    with pytest.raises(ValueError, match="start: expected weights inside"):
        compander_flow(lambda w: w, [2.0], [1.0])
    with pytest.raises(ValueError, match="w: expected weights inside"):
        expand([-1.0], kind="tanh")


@pytest.mark.parametrize("kind", KINDS)
def test_companders_invert_and_differentiate(kind):
    parameters = {"kind": kind, "amplitude": 1.7, "width": 0.6}
    v = np.linspace(-3, 3, 13)
    w = compand(v, **parameters)
    assert (np.diff(w) > 0).all()
    assert_allclose(expand(w, **parameters), v, rtol=1e-9, atol=1e-12)
    assert_allclose(compand(-v, **parameters), -w)
    h = 1e-6
    slope = (compand(v + h, **parameters) - compand(v - h, **parameters)) / (2 * h)
    assert_allclose(compander_metric(w, **parameters), slope**2, rtol=1e-4)
    far = float(compand(np.array(1e18), **parameters))
    bound = compander_bound(kind=kind, amplitude=1.7)
    assert far <= bound
    assert far > 0.999 * bound or kind == "asinh"


@pytest.mark.parametrize("kind", KINDS)
def test_flows_against_another_integrator(kind):
    H = np.array([[2.0, 0.4], [0.4, 1.0]])
    gradient = lambda w: H @ w - np.array([3.0, -1.0])  # noqa: E731
    parameters = {"kind": kind, "amplitude": 1.3, "width": 0.7}
    times, start = np.array([0.0, 0.3, 1.0, 3.0]), np.array([0.2, -0.5])
    found = compander_flow(gradient, start, times, **parameters)
    run = solve_ivp(
        lambda t, w: -compander_metric(w, **parameters) * gradient(w),
        (0, 3),
        start,
        "LSODA",
        t_eval=times,
        rtol=1e-10,
        atol=1e-12,
    )
    assert_allclose(found, run.y.T, atol=1e-5)
    direct = metric_flow(gradient, lambda w: compander_metric(w, **parameters), start, times)
    assert_allclose(direct, run.y.T, atol=1e-5)


def test_flow_scales_with_its_units():
    gradient = lambda w: w - 4.0  # noqa: E731
    base = compander_flow(gradient, [0.1], [0.5, 2.0], kind="tanh")
    scaled = compander_flow(
        lambda w: 10 * gradient(w / 10), [1.0], [0.5, 2.0], kind="tanh", amplitude=10, width=10
    )
    assert_allclose(scaled, 10 * base, rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-12, 1e9])
def test_flows_in_the_weights_have_no_unit(unit):
    times = [0.0, 1.0, 3.0]
    decay = metric_flow(lambda w: w, np.ones_like, [unit], times)
    assert_allclose(decay.ravel(), unit * np.exp(-np.array(times)), rtol=1e-7)
    growth = metric_flow(lambda w: w - unit, np.ones_like, [0.0], times)
    assert_allclose(growth.ravel(), unit * -np.expm1(-np.array(times)), rtol=1e-7)
    assert not metric_flow(lambda w: w, np.ones_like, [0.0], times).any()


def test_a_descent_in_portions_is_a_descent():
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((300, 500)), rng.standard_normal(300)
    # More steps than the portion of this size, 666.
    whole = metric_descent(X, y, steps=1500, tol=0.0)
    half = metric_descent(X, y, steps=600, tol=0.0)
    rest = metric_descent(X, y, steps=900, tol=0.0, start=half.weights)
    assert whole.steps == 1500
    assert_allclose(whole.weights, rest.weights, rtol=1e-9)
    with pytest.warns(RuntimeWarning, match="raise steps"):
        short = metric_descent(X, y, steps=700)
    assert short.steps == 700
    assert short.status is MetricDescentStatus.NOT_CONVERGED


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_vanishes_from_the_bound_on(kind):
    amplitude = 1.3
    bound = compander_bound(kind=kind, amplitude=amplitude)
    edge = bound if kind != "asinh" else 200 * amplitude
    w = np.outer([1, -1], edge * np.array([1.0, 1.5, 3.0, 1e5]))
    assert (compander_metric(w, kind=kind, amplitude=amplitude) < 1e-60).all()


def test_times_that_do_not_increase_are_refused():
    for times in ([1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(ValueError, match="times: expected increasing"):
            compander_flow(lambda w: w, [0.5], times)
        with pytest.raises(ValueError, match="times: expected increasing"):
            metric_flow(lambda w: w, np.ones_like, [0.5], times)


@pytest.mark.parametrize("scale", [1.0, 3e5])
def test_a_callback_is_told_the_weighted_misfit_and_the_residual_is_relative(scale):
    X, y, M = problem()
    y, weight, start = scale * y, np.diag([1.0, 5.0, 0.2]), 40 * scale * np.ones(6)
    call = {"metric": M, "weight": weight, "start": start, "tol": 0.0}

    def length(w):
        return np.linalg.norm(M @ X.T @ weight @ (X @ w - y))

    for steps in (0, 7):
        told = []
        found = metric_descent(X, y, **call, steps=steps + 1, callback=told.append)
        rest = X @ found.weights - y
        assert told[-1].objective == pytest.approx(rest @ weight @ rest / 2)
        assert told[-1].error == found.residual
        assert found.residual == pytest.approx(length(found.weights) / length(start))
    # From 0 the unit is the same as from a start that is nearer than 0.
    near = metric_interpolator(X, y, metric=M) * 0.9
    found = metric_descent(X, y, **call | {"start": near}, steps=1)
    assert found.residual == pytest.approx(length(found.weights) / length(np.zeros(6)))
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        stopped = metric_descent(X, y, **call, callback=lambda _: True)
    assert stopped.status is MetricDescentStatus.STOPPED
