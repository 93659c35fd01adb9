"""Sinkhorn's scaling: other solvers, log-domain iterations written out, bounds at every stop."""

import warnings

import numpy as np
import ot
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp, xlogy

from theorylab.optimal_transport import TransportStatus, newton_plan, sinkhorn_plan
from theorylab.optimal_transport._problem import entropic_bounds


def clouds(n, m, seed):
    rng = np.random.default_rng(seed)
    C = ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2)) - 0.5) ** 2).sum(2)
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m)), C


def in_log_domain(a, b, C, eps, iterations):
    g = np.zeros(b.size)
    for _ in range(iterations):
        f = eps * (np.log(a) - logsumexp((g - C) / eps, axis=1))
        g = eps * (np.log(b) - logsumexp((f[:, None] - C) / eps, axis=0))
    return np.exp((f[:, None] + g - C) / eps)


def objective(P, C, eps):
    return (P * C).sum() + eps * xlogy(P, P).sum()


@pytest.mark.parametrize("weight", [1.0, 0.05, 0.01])
def test_against_pot_and_the_log_domain(weight):
    a, b, C = clouds(40, 30, 0)
    eps = weight * C.max()
    result = sinkhorn_plan(a, b, C, eps, tol=1e-13)
    assert_allclose(result.plan, in_log_domain(a, b, C, eps, 3000), atol=1e-13)
    theirs = ot.sinkhorn(a, b, C, eps, method="sinkhorn_log", numItermax=5000, stopThr=1e-13)
    assert_allclose(result.plan, theirs, atol=1e-11)
    assert_allclose(result.value, objective(result.plan, C, eps), atol=1e-12 * C.max())
    assert_allclose(result.dual_value, result.value, atol=1e-12 * C.max())


def test_two_points_in_closed_form():
    w, eps = np.full(2, 0.5), 0.3
    result = sinkhorn_plan(w, w, [[0, 1], [1, 0]], eps, tol=1e-14)
    on = 0.5 / (1 + np.exp(-1 / eps))
    assert_allclose(result.plan, [[on, 0.5 - on], [0.5 - on, on]], rtol=1e-12)


@pytest.mark.parametrize("weight", [1e-3, 1e-4, 1e-6])
def test_small_weights_stay_finite_and_bounded(weight):
    a, b, C = clouds(30, 25, 1)
    eps = weight * C.max()
    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        result = sinkhorn_plan(a, b, C, eps, max_iter=20)
    assert np.isfinite(result.plan).all()
    assert np.isfinite(result.potentials[0]).all()
    exact = newton_plan(a, b, C, eps, tol=1e-9)
    assert result.dual_value <= exact.value + 1e-12 * C.max()
    assert result.value >= exact.dual_value - 1e-12 * C.max()
    assert_allclose(result.plan.sum(0), b, rtol=1e-12)


def test_potentials_give_the_plan():
    a, b, C = clouds(30, 25, 2)
    a[4] = 0
    a /= a.sum()
    for weight in (0.1, 0.003, 0.001):  # without and with absorption
        result = sinkhorn_plan(a, b, C, weight * C.max(), tol=1e-8)
        f, g = result.potentials
        assert f[4] == -np.inf
        plan = np.exp((f[:, None] + g - C) / (weight * C.max()))
        assert_allclose(plan, result.plan, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_the_two_values_enclose_the_minimum_at_every_stop(iterations):
    a, b, C = clouds(20, 30, 3)
    for weight in (0.5, 0.02, 0.003):
        eps = weight * C.max()
        exact = newton_plan(a, b, C, eps, tol=1e-13)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = sinkhorn_plan(a, b, C, eps, tol=0.0, max_iter=iterations)
        assert result.dual_value <= exact.value + 1e-13
        assert result.value >= exact.value - 1e-13
        # The upper value is near the objective of the plan once it is rounded, not far above.
        excess = result.value - exact.value
        assert excess <= 3 * result.marginal_error * (C.max() + 30 * eps) + 1e-12


def test_upper_bound_is_attained_and_a_lower_number_would_be_false():
    a, b = np.array([0.6, 0.4]), np.array([0.5, 0.5])
    C, eps = np.array([[0.0, 1.0], [2.0, 0.5]]), 0.7
    f, g = np.array([0.1, -0.2]), np.array([-0.9, -0.3])
    P = np.exp((f[:, None] + g - C) / eps)
    upper, lower = entropic_bounds(P, f, g, a, b, C, eps)
    x = np.minimum(1, a / P.sum(1))
    rounded = P * x[:, None]
    rounded = rounded * np.minimum(1, b / rounded.sum(0))
    missing, lacking = a - rounded.sum(1), b - rounded.sum(0)
    full = rounded + np.outer(missing, lacking) / missing.sum()
    assert_allclose(full.sum(1), a)
    value = objective(full, C, eps)
    assert value <= upper <= value + 2.5 * eps * missing.sum()
    optimum = sinkhorn_plan(a, b, C, eps, tol=1e-14)
    assert lower < optimum.value < upper
    assert_allclose(lower, a @ f + b @ g + eps * (1 - P.sum()))
    # At the optimum both are the value, to all digits.
    p, q = optimum.potentials
    bounds = entropic_bounds(optimum.plan, p, q, a, b, C, eps)
    assert_allclose(bounds, objective(optimum.plan, C, eps), rtol=1e-13)


def test_a_start_saves_iterations():
    a, b, C = clouds(60, 60, 4)
    eps = 0.02 * C.max()
    cold = sinkhorn_plan(a, b, C, eps)
    again = sinkhorn_plan(a, b, C, eps, start=cold)
    assert again.n_iterations <= 3
    near = sinkhorn_plan(a, b, C * 1.0001, eps, start=cold)
    assert near.n_iterations < cold.n_iterations
    assert_allclose(near.plan, sinkhorn_plan(a, b, C * 1.0001, eps).plan, atol=1e-9)


def test_rows_that_vanish_are_recovered_in_the_log_domain():
    # The start belongs to a problem in which one row was cheap by 2000 times eps.
    a, b, C = clouds(12, 10, 5)
    eps = 0.1 * C.max()
    start = sinkhorn_plan(a, b, C - 2000 * eps * np.eye(12)[:, :1], eps)
    result = sinkhorn_plan(a, b, C, eps, tol=1e-12, start=start)
    assert result.status is TransportStatus.CONVERGED
    assert_allclose(result.plan, sinkhorn_plan(a, b, C, eps, tol=1e-12).plan, atol=1e-11)
