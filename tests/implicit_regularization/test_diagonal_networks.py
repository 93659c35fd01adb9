"""Diagonal networks: scipy's Radau, NumPy loops, exact invariants, the map iterated by hand."""

import importlib

import numpy as np
import pytest
import sympy
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp

from theorylab.implicit_regularization import (
    DiagonalStatus,
    diagonal_network_flow,
    diagonal_network_sgd,
    double_well_cycle,
    double_well_descent,
    mirror_interpolator,
    mirror_map,
)


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def objective(theta, X, y, linear, penalty):
    """Penalised loss of (u, v, s), by finite differences of nothing: gradients written out."""
    u, v, s = theta.reshape(3, -1)
    g = X.T @ (X @ (u**2 - v**2 + linear * s) - y) / len(y)
    G = np.concatenate([2 * u * g, -2 * v * g, linear * g])
    loss = np.mean((X @ (u**2 - v**2 + linear * s) - y) ** 2) / 2
    return loss + penalty / 2 * G @ G


@pytest.mark.parametrize(("penalty", "linear"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.5)])
def test_flow_against_an_implicit_method_on_the_penalised_loss(penalty, linear):
    X, y = problem(2, 4)

    def velocity(_, theta):
        h = 1e-5 * np.eye(12)
        return -np.array(
            [
                (
                    objective(theta + e, X, y, linear, penalty)
                    - objective(theta - e, X, y, linear, penalty)
                )
                / 2e-5
                for e in h
            ]
        )

    run = diagonal_network_flow(X, y, scale=0.4, linear=linear, gradient_penalty=penalty)
    start = np.concatenate([np.full(8, 0.4), np.zeros(4)])
    other = solve_ivp(velocity, (0, run.time), start, "Radau", rtol=1e-7, atol=1e-9).y[:, -1]
    assert run.status is DiagonalStatus.FITTED
    assert_allclose(np.concatenate([run.u, run.v, run.s]), other, atol=3e-5)


def test_ascent_tends_to_the_penalty_and_products_keep_their_law():
    X, y = problem(2, 6, 1)
    options = {"scale": 0.3, "gradient_penalty": 0.2}
    exact = diagonal_network_flow(X, y, **options).u
    gaps = [
        np.abs(diagonal_network_flow(X, y, ascent=e, **options).u - exact).max()
        for e in (0.02, 0.01, -0.01)
    ]
    assert_allclose(gaps[0] / gaps[1], 2, rtol=0.1)
    assert_allclose(gaps[2] / gaps[1], 1, rtol=0.1)
    run = diagonal_network_flow(X, y, ascent=0.05, **options)
    assert_allclose(run.u * run.v, 0.09 * np.exp(-8 * 0.2 * run.dissipation), rtol=1e-8)
    scale = np.sqrt(run.u * run.v)
    assert_allclose(mirror_interpolator(X, y, scale=scale).predictor, run.predictor, atol=1e-7)


def test_product_form_is_the_turned_network():
    X, y = problem(2, 5, 2)
    run = diagonal_network_flow(X, y, scale=0.3, form="product")
    assert_allclose(run.u * run.v, run.predictor, atol=1e-14)
    assert_allclose((run.u**2 - run.v**2) / 2, 0.09, rtol=1e-8)
    limit = mirror_interpolator(X, y, scale=0.3 / np.sqrt(2)).predictor
    assert_allclose(run.predictor, limit, atol=1e-7)


def test_tilted_start_shifts_the_mirror_variable():
    X, y = problem(2, 5, 3)
    tilt = np.linspace(-0.5, 0.5, 5)
    run = diagonal_network_flow(X, y, scale=0.3, tilt=tilt)
    rho = np.log(run.u / run.v)
    assert_allclose(run.predictor, mirror_map(rho, scale=0.3), rtol=1e-7)
    rest = (rho - tilt) @ np.linalg.svd(X)[2][2:].T
    assert_allclose(rest, 0, atol=1e-8)


def test_flow_does_not_depend_on_units():
    X, y = problem(2, 5, 4)
    one = diagonal_network_flow(X, y, scale=0.3, gradient_penalty=0.1, ascent=0.05)
    for s in (2.0**-40, 2.0**40):
        run = diagonal_network_flow(
            X / s, y, scale=0.3 * np.sqrt(s), gradient_penalty=0.1 * s, ascent=0.05 * s
        )
        assert_allclose(run.predictor / s, one.predictor, rtol=1e-9)
        assert_allclose(run.time / s, one.time, rtol=1e-9)
        assert_allclose(run.dissipation * s, one.dissipation, rtol=1e-6)


def test_flow_without_an_interpolator_says_so():
    run = diagonal_network_flow([[1.0], [1.0]], [1.0, 2.0], scale=0.3)
    assert run.status is DiagonalStatus.NOT_FITTED
    assert_allclose(run.predictor, 1.5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_descent_against_a_loop(batch):
    X, y = problem(6, 10, 5)
    run = diagonal_network_sgd(X, y, start=0.3, step_size=0.02, steps=200, batch=batch, seed=7)
    rng = np.random.default_rng(7)
    if batch == 1:
        drawn = rng.integers(6, size=200)[:, None]
    else:
        drawn = rng.integers(6, size=(200, 3)) if batch == 3 else np.tile(np.arange(6), (200, 1))
    u, v = np.full(10, 0.3), np.full(10, 0.3)
    for rows in drawn:
        g = X[rows].T @ (X[rows] @ (u * u - v * v) - y[rows]) / len(rows)
        u, v = u - 0.04 * u * g, v + 0.04 * v * g
    assert_allclose(run.u, u, rtol=1e-10)
    assert_allclose(run.v, v, rtol=1e-10)
    assert_allclose(run.loss, np.mean((X @ run.predictor - y) ** 2) / 2)


def test_descent_leaves_its_arguments_and_refuses_divergence():
    X, y = problem(4, 6, 6)
    start = np.full((2, 6), 0.5)
    diagonal_network_sgd(X, y, start=start, step_size=0.01, steps=50)
    assert (start == 0.5).all()
    with pytest.raises(ValueError, match="step_size: expected one whose iterates"):
        diagonal_network_sgd(X, y, start=start, step_size=10.0, steps=500)
    still = diagonal_network_sgd(X, y, start=0.5, step_size=0.1, steps=0)
    assert (still.u == 0.5).all()
    assert still.steps == 0


def test_small_steps_follow_the_flow():
    X, y = problem(2, 5, 7)
    flow = diagonal_network_flow(X, y, scale=0.4)
    gaps = []
    for eta in (4e-3, 2e-3):
        run = diagonal_network_sgd(X, y, start=0.4, step_size=eta, steps=40_000, batch=2)
        gaps.append(np.abs(run.predictor - flow.predictor).max())
    assert_allclose(gaps[0] / gaps[1], 2, rtol=0.1)


def test_cycle_by_sympy():
    gamma, a = sympy.symbols("gamma a", positive=True)

    def step(t):
        return sympy.expand(t - gamma * t * (t**2 - 1))

    quartic = gamma**2 * a**4 - gamma * (gamma + 1) * a**2 + 1
    assert sympy.rem(sympy.expand(step(step(a)) - a), quartic, a) == 0
    product = sympy.rem(sympy.expand(sympy.diff(step(step(a)), a)), quartic, a)
    assert sympy.simplify(product - (9 - 2 * (1 + gamma) ** 2)) == 0
    for c in (1.0, 1.05, 1.2, 2.0):
        points, multiplier = double_well_cycle(step_size=c)
        assert_allclose([float(quartic.subs({gamma: c, a: p})) for p in points], 0, atol=1e-12)
        assert_allclose(multiplier, 9 - 2 * (1 + c) ** 2)


def test_double_well_iterates():
    path = double_well_descent([0.5, -1.0], step_size=1.1, steps=3)
    theta = np.array([0.5, -1.0])
    for t in range(4):
        assert_allclose(path[t], theta)
        theta = theta - 1.1 * theta * (theta**2 - 1)
    with pytest.raises(ValueError, match="start, step_size"):
        double_well_descent(3.0, step_size=1.0, steps=50)


def test_status_is_the_residual_when_the_budget_ends(monkeypatch):
    module = importlib.import_module("theorylab.implicit_regularization.diagonal_networks")
    X, y = problem(2, 5, 8)
    residuals = []
    for budget in range(200, 1000, 50):
        monkeypatch.setattr(module, "_EVALUATIONS", budget)
        run = diagonal_network_flow(X, y, scale=0.3)
        assert (run.status is DiagonalStatus.FITTED) == (run.residual <= 1e-8)
        residuals.append(run.residual)
    assert min(residuals) <= 1e-8
    assert any(1e-8 < r < 1e-5 for r in residuals)


def test_ascent_with_a_linear_part_against_another_integrator():
    X, y = problem(2, 4, 9)

    def gradient(theta):
        u, v, s = theta.reshape(3, -1)
        g = X.T @ (X @ (u**2 - v**2 + 0.5 * s) - y) / 2
        return np.concatenate([2 * u * g, -2 * v * g, 0.5 * g])

    def velocity(_, theta):
        G = gradient(theta)
        return -G - 0.1 * (gradient(theta + 0.2 * G) - G) / 0.2

    run = diagonal_network_flow(X, y, scale=0.4, linear=0.5, gradient_penalty=0.1, ascent=0.2)
    start = np.concatenate([np.full(8, 0.4), np.zeros(4)])
    other = solve_ivp(velocity, (0, run.time), start, rtol=1e-8, atol=1e-10).y[:, -1]
    assert_allclose(np.concatenate([run.u, run.v, run.s]), other, atol=1e-6)


def test_a_batch_of_all_samples_draws_nothing():
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((5, 8)), rng.standard_normal(5)
    runs = [
        diagonal_network_sgd(X, y, start=0.3, step_size=0.01, steps=20, batch=batch, seed=seed)
        for batch, seed in ((5, 0), (5, 1), (9, 2))
    ]
    u = v = np.full(8, 0.3)
    for _ in range(20):
        g = X.T @ (X @ (u**2 - v**2) - y) / 5
        u, v = u * (1 - 0.02 * g), v * (1 + 0.02 * g)
    for run in runs:
        assert_allclose(run.predictor, u**2 - v**2, rtol=1e-12, atol=1e-14)


def test_many_wells_in_portions():
    start = np.linspace(-1.0, 1.0, 2 * 10**6)
    path = double_well_descent(start, step_size=0.5, steps=7)
    assert (path[0] == start).all()
    assert_allclose(path[1:], path[:-1] - 0.5 * path[:-1] * (path[:-1] ** 2 - 1), atol=1e-15)
