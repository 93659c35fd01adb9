"""Logistic fixed points against other optimisers, high precision, and limits."""

import math
import warnings

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import brentq, minimize
from sklearn.linear_model import LogisticRegression

from theorylab.implicit_regularization import (
    FixedPointStatus,
    coupled_features,
    decoupled_margin,
    logistic_fixed_point,
    starvation_slope,
)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 8), st.floats(-3, 1))
def test_fixed_point_and_duality(seed, n, d, exponent):
    Z = np.random.default_rng(seed).standard_normal((n, d)) * 10**exponent
    K = Z @ Z.T
    fit = logistic_fixed_point(K)
    assert fit.status is FixedPointStatus.CONVERGED
    a = fit.multipliers
    assert ((a > 0) & (a < 1)).all()
    assert_allclose(a, 1 / (1 + np.exp(K @ a)), atol=1e-7)
    assert fit.gap < 1e-8
    # Any other pair of points is further apart.
    other = np.clip(a + 0.01, 1e-9, 1 - 1e-9)
    entropy = -(other * np.log(other) + (1 - other) * np.log(1 - other)).sum()
    assert entropy - other @ K @ other / 2 <= fit.primal + 1e-9


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 4)), rng.choice([-1.0, 1.0], 30)
    ridge = 0.7
    model = LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-10, max_iter=10_000)
    Z = y[:, None] * X
    fit = logistic_fixed_point(Z @ Z.T / ridge)
    assert_allclose(Z.T @ fit.multipliers / ridge, model.fit(X, y).coef_[0], atol=1e-6)
    assert_allclose(fit.margins, Z @ model.coef_[0], atol=1e-6)


def test_a_fixed_point_in_closed_form_and_without_features():
    # sigma(-k a) = a for k a = log 3, a = 1/4.
    fit = logistic_fixed_point([[4 * math.log(3)]])
    assert_allclose(fit.multipliers, 0.25)
    value = math.log(4 / 3) + math.log(3) / 8
    assert_allclose([fit.primal, fit.dual], value, rtol=1e-12)
    quarter = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert_allclose(fit.dual, quarter - 0.25**2 * 4 * math.log(3) / 2, rtol=1e-12)
    early = logistic_fixed_point([[4 * math.log(3)]], tol=0.1)
    assert early.dual < value - 1e-9 < early.primal - 1e-9
    flat = logistic_fixed_point(np.zeros((3, 3)))
    assert_allclose(flat.multipliers, 0.5)
    assert_allclose([flat.primal, flat.dual], 3 * math.log(2))


def test_large_products_are_solved_to_rounding_and_not_to_the_tolerance_for_it():
    for k in np.geomspace(10, 1e9, 40):
        s = brentq(lambda s, k=k: s * (1 + math.exp(s)) - k, 0, 30, xtol=1e-14, rtol=1e-15)
        assert_allclose(logistic_fixed_point([[k]]).multipliers, s / k, rtol=0, atol=2e-12)


def test_duplicates_share_what_one_of_double_weight_has():
    K = np.array([[2.0, 0.3], [0.3, 1.0]])
    double = np.array([0, 0, 1, 1])
    fit = logistic_fixed_point(K[np.ix_(double, double)])
    assert_allclose(fit.multipliers[::2], fit.multipliers[1::2])
    assert_allclose(fit.multipliers[::2], logistic_fixed_point(2 * K).multipliers)


def test_a_budget_that_is_too_small_is_said():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit = logistic_fixed_point([[1e4, 3.0], [3.0, 1.0]], max_iter=1)
    assert fit.status is FixedPointStatus.NOT_CONVERGED
    assert len(seen) == 1
    assert fit.dual <= fit.primal
    assert_allclose(fit.primal, 2 * math.log(2))  # of the start, where it is stopped


@pytest.mark.filterwarnings("ignore:stopped before")
def test_the_tolerance_is_on_the_residual():
    K = [[4.0, 1.0], [1.0, 2.0]]
    residual = logistic_fixed_point(K, max_iter=2).residual
    assert 1e-9 < residual < 0.05
    for factor, status in (
        (0.5, FixedPointStatus.NOT_CONVERGED),
        (1.1, FixedPointStatus.CONVERGED),
    ):
        assert logistic_fixed_point(K, tol=factor * residual, max_iter=2).status is status


def by_hand(s1, s2, delta, ridge):
    """The second response in forty digits."""
    with mp.workdps(40):
        c = mp.sqrt(1 - mp.mpf(delta) ** 2)
        U = mp.matrix([[c, -delta], [delta, c]])
        S = mp.diag([s1, s2])
        K = U * S * U.T / ridge
        a = mp.findroot(
            lambda x, y: [
                x - 1 / (1 + mp.exp(K[0, 0] * x + K[0, 1] * y)),
                y - 1 / (1 + mp.exp(K[1, 0] * x + K[1, 1] * y)),
            ],
            (0.2, 0.2),
        )
        return (U.T * K * a)[1]


@pytest.mark.parametrize(
    ("s1", "s2", "delta", "ridge"),
    [(2.0, 1.0, 0.3, 0.5), (1.0, 2.0, 0.6, 2.0), (3.0, 0.5, -0.4, 0.1)],
)
def test_slopes_against_forty_digits(s1, s2, delta, ridge):
    with mp.workdps(40):
        h = mp.mpf(10) ** -12
        up, down = (by_hand(s1**2 + e, s2**2, delta, ridge) for e in (h, -h))
        slope = float((up - down) / (2 * h))
    found = starvation_slope([s1, s2], coupling=delta, ridge=ridge)
    assert_allclose(found, slope, rtol=1e-7)


def test_no_starvation_without_coupling_or_between_equals():
    assert starvation_slope([2.0, 1.0], coupling=0.0, ridge=1.0) == 0
    assert abs(starvation_slope([2.0, 2.0], coupling=0.4, ridge=1.0)) < 1e-15
    for delta in (0.1, 0.4, 0.7):
        assert starvation_slope([2.0, 1.0], coupling=delta, ridge=1.0) < 0
        assert starvation_slope([1.0, 2.0], coupling=delta, ridge=1.0) > 0


def test_units_of_features_and_ridge():
    one = coupled_features([2.0, 1.0], coupling=0.3, ridge=0.5)
    assert_allclose(coupled_features([2e6, 1e6], coupling=0.3, ridge=0.5e12), one, rtol=1e-13)
    slope = starvation_slope([2.0, 1.0], coupling=0.3, ridge=0.5)
    other = starvation_slope([2e6, 1e6], coupling=0.3, ridge=0.5e12)
    assert_allclose(other * 1e12, slope, rtol=1e-9)


def test_a_penalty_on_predictions_by_another_optimiser():
    rng = np.random.default_rng(3)
    Z = rng.standard_normal((4, 6)) * 10.0 ** np.array([-1, 0, 1, 0, 0, 0])
    for ridge in (0.05, 1.0, 20.0):

        def loss(theta, ridge=ridge):
            s = Z @ theta
            a = 1 / (1 + np.exp(s))
            return np.logaddexp(0, -s).sum() + ridge / 2 * s @ s, Z.T @ (ridge * s - a)

        best = minimize(loss, np.zeros(6), jac=True, method="BFGS", options={"gtol": 1e-10})
        assert_allclose(Z @ best.x, decoupled_margin(ridge), rtol=1e-4)


@pytest.mark.parametrize("ridge", [1e-150, 1e-8, 0.3, 1e8, 1e150])
def test_decoupled_margins_of_any_size(ridge):
    m = decoupled_margin(ridge)
    assert_allclose(math.log(ridge) + math.log(m), -np.logaddexp(0, m), atol=1e-9)


def test_what_is_refused():
    with pytest.raises(ValueError, match="K: expected no negative eigenvalue"):
        logistic_fixed_point([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="coupling: expected"):
        coupled_features([1.0, 1.0], coupling=1.5, ridge=1.0)
