"""Least variance under bounded bias: the closed forms, a conic solver, searches cut short."""

import cvxpy as cp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from theorylab import random_features as rf
from theorylab.random_features import bounded_bias

NORMS = ("frobenius", "nuclear", "spectral")
ORDER = {"frobenius": 2, "nuclear": 1, "spectral": np.inf}


def design(n=7, p=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, p)) * np.geomspace(2, 0.3, p)


def schatten(B, norm):
    return np.linalg.norm(np.linalg.svd(B, compute_uv=False), ORDER[norm])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_closed_form_against_search(norm, share):
    X = design()
    s = np.linalg.svd(X, compute_uv=False)
    bound = share * float(np.linalg.norm(np.ones(4), ORDER[norm]))
    factors = rf.least_variance_factors(s, bound, norm=norm)
    assert_allclose(np.linalg.norm(factors, ORDER[norm]), bound, rtol=1e-10)
    L = rf.shrinkage_estimator(X, factors)
    assert_allclose(schatten(L @ X - np.eye(4), norm), bound, rtol=1e-9)
    found = rf.minimum_variance(X, bound, norm=norm)
    assert found.status is rf.MinimumVarianceStatus.SOLVED
    assert found.gap <= 1e-9
    assert schatten(found.estimator @ X - np.eye(4), norm) <= bound * (1 + 1e-9)
    assert_allclose(np.sum(L**2), found.variance, rtol=1e-8)
    assert_allclose(np.sum(found.estimator**2), found.variance, rtol=1e-10)
    assert found.lower_bound <= np.sum(L**2) * (1 + 1e-10)


@pytest.mark.parametrize("norm", NORMS)
def test_search_against_a_conic_solver(norm):
    X, bound = design(5, 3, 1), 0.4
    L = cp.Variable((3, 5))
    B = L @ X - np.eye(3)
    size = {"frobenius": cp.norm(B, "fro"), "nuclear": cp.normNuc(B), "spectral": cp.sigma_max(B)}
    value = cp.Problem(cp.Minimize(cp.sum_squares(L)), [size[norm] <= bound]).solve(
        solver=cp.CLARABEL
    )
    found = rf.minimum_variance(X, bound, norm=norm)
    assert_allclose(found.variance, value, rtol=1e-5)
    assert found.lower_bound <= value * (1 + 1e-5)


def test_the_default_budget_is_what_takes_a_minute(minute):
    costs = minute(bounded_bias, 3, 20_000)
    for p, norm in ((10, "spectral"), (100, "spectral"), (100, "frobenius")):
        found = rf.minimum_variance(design(2 * p, p), 0.3, norm=norm)
        assert (found.iterations, found.status.name) == (3, "NOT_CONVERGED")
        assert found.lower_bound < found.variance
    small, large, cheap = costs
    assert small < cheap < large
    assert large > 20 * small  # singular values of larger matrices


def test_a_search_cut_short_says_so():
    found = rf.minimum_variance(design(), 0.3, norm="nuclear", max_iter=3)
    assert found.status is rf.MinimumVarianceStatus.NOT_CONVERGED
    assert found.lower_bound < found.variance
    closed = rf.least_variance_factors(
        np.linalg.svd(design(), compute_uv=False), 0.3, norm="nuclear"
    )
    value = np.sum(rf.shrinkage_estimator(design(), closed) ** 2)
    assert found.lower_bound <= value <= found.variance
    for tol in (0.1, 1e-4):
        found = rf.minimum_variance(design(), 0.3, norm="nuclear", tol=tol)
        assert found.status is rf.MinimumVarianceStatus.SOLVED
        assert 0 < found.gap <= tol
        assert_allclose(found.gap, 1 - found.lower_bound / found.variance, rtol=0.2)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units(norm, scale):
    plain = rf.minimum_variance(design(), 0.3, norm=norm)
    found = rf.minimum_variance(scale * design(), 0.3, norm=norm)
    assert_allclose(found.variance * scale**2, plain.variance, rtol=1e-8)
    assert_allclose(found.estimator * scale, plain.estimator, rtol=1e-5, atol=1e-6)


def test_bad_designs_are_refused():
    with pytest.raises(ValueError, match="X: expected full column rank"):
        rf.minimum_variance(np.ones((2, 3)), 0.5, norm="nuclear")


def test_from_the_norm_of_the_identity_on_nothing_is_best():
    for norm, size in zip(NORMS, (2.0, 4.0, 1.0), strict=True):
        found = rf.minimum_variance(design(), 1.01 * size, norm=norm)
        assert found.variance == 0.0 == found.lower_bound
        assert found.gap == 0.0


@pytest.mark.parametrize("norm", NORMS)
def test_a_vanishing_bound_is_least_squares(norm):
    inverse = np.linalg.pinv(design())
    for bound in (1e-9, 1e-300):
        found = rf.minimum_variance(design(), bound, norm=norm)
        assert_allclose(found.estimator, inverse, rtol=1e-6, atol=1e-8)
        assert_allclose(found.variance, np.sum(inverse**2), rtol=1e-7)


def test_a_bound_above_the_variance_is_an_error():
    status = rf.MinimumVarianceStatus.SOLVED
    with pytest.raises(ArithmeticError):
        _ = rf.MinimumVariance(np.eye(2), 1.0, 1.0 + 1e-6, 1, status).gap
