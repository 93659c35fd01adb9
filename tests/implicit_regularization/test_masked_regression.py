"""Masked regression: enumerated masks, sampled runs, explicit formulas of one entry."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.implicit_regularization import (
    averaged_sgd_bound,
    averaged_sgd_risk,
    best_linear,
    complete_moments,
    imputation_bias,
    imputed_moments,
    linear_risk,
    masked_law,
    tight_frame,
    zero_imputation_risk,
)


def random_law(seed, d=3, m=4, low=0.1):
    rng = np.random.default_rng(seed)
    return masked_law(
        rng.standard_normal((m, d)),
        rng.standard_normal(m),
        observed=rng.uniform(low, 1, d),
        weights=rng.uniform(0.2, 1, m),
    )


def enumerate_masks(rho):
    masks = np.array(list(itertools.product((0.0, 1.0), repeat=len(rho))))
    return masks, np.prod(np.where(masks > 0, rho, 1 - np.asarray(rho)), axis=1)


def averaged_sgd(X, y, step):
    """The mean of the first n iterates from 0; leading axes are runs."""
    theta, iterates = np.zeros((len(X), X.shape[2])), []
    for t in range(X.shape[1]):
        iterates.append(theta)
        residual = y[:, t] - np.sum(theta * X[:, t], axis=1)
        theta = theta + step * residual[:, None] * X[:, t]
    return np.mean(iterates, axis=0)


def enumerated(law):
    """The law of the masked inputs as one of complete inputs, by all masks."""
    masks, chances = enumerate_masks(law.observed)
    return masked_law(
        (masks[:, None] * law.inputs).reshape(-1, law.inputs.shape[1]),
        np.tile(law.outputs, len(masks)),
        observed=1.0,
        weights=np.outer(chances, law.weights).ravel() + 1e-300,
    )


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
def test_moments_risks_and_bias_against_all_masks(seed, d, m):
    law = random_law(seed, d, m)
    whole = complete_moments(enumerated(law))
    closed = imputed_moments(law)
    assert_allclose(closed.inputs, whole.inputs, atol=1e-14)
    assert_allclose(closed.cross, whole.cross, atol=1e-14)
    assert_allclose(closed.output, whole.output)
    theta = np.random.default_rng(seed).standard_normal(d)
    one = enumerated(law)
    direct = one.weights @ (one.outputs - one.inputs @ theta) ** 2
    assert_allclose(zero_imputation_risk(law, theta), direct)
    assert_allclose(linear_risk(closed, theta), direct)
    roots = np.sqrt(one.weights)
    fit = np.linalg.lstsq(roots[:, None] * one.inputs, roots * one.outputs, rcond=None)[0]
    best = best_linear(closed)
    assert_allclose(best.risk, one.weights @ (one.outputs - one.inputs @ fit) ** 2, atol=1e-12)
    complete = best_linear(complete_moments(law))
    assert_allclose(imputation_bias(law), best.risk - complete.risk, atol=1e-11)


def test_ridge_of_the_identity():
    # With unit second moments the imputed optimum is the ridge solution divided by rho.
    X = np.array([[1, 1, 1], [1, -1, 1], [-1, 1, -1], [1, 1, -1]], float)
    y, rho = np.array([1.0, 0.3, -2.0, 0.7]), 0.6
    law = masked_law(X, y, observed=rho)
    ridge = np.linalg.solve(X.T @ X / 4 + (1 - rho) / rho * np.eye(3), X.T @ y / 4)
    assert_allclose(best_linear(imputed_moments(law)).coefficients, ridge / rho)
    assert imputation_bias(law) < (1 - rho) / rho * np.sum(np.linalg.pinv(X).dot(y) ** 2)


def test_nothing_is_lost_where_all_is_seen_and_all_where_nothing():
    law = masked_law([[1.0, 2.0], [1.0, -1.0]], [1.0, 3.0], observed=1.0)
    assert_allclose(imputation_bias(law), 0, atol=1e-29)
    assert_allclose(best_linear(imputed_moments(law)).risk, 0, atol=1e-14)
    blind = masked_law([[1.0, 2.0], [1.0, -1.0]], [1.0, 3.0], observed=1e-9)
    assert_allclose(imputation_bias(blind), 5, rtol=1e-6)


def test_one_entry_by_hand():
    # Y = 2 X, X = 3, seen with probability 1/4: the best coefficient stays 2, the risk 36 (3/4).
    law = masked_law([[3.0]], [6.0], observed=0.25)
    fit = best_linear(imputed_moments(law))
    assert_allclose([fit.coefficients[0], fit.risk, fit.lower], [2, 27, 27])
    assert_allclose(imputation_bias(law), 27)
    # E theta_t = 2 (1 - (1 - 9 gamma / 4)^t), and the step is a contraction of the square by
    # 1 + (81 gamma^2 - 18 gamma) / 4; at sight the residual vanishes, so there is no noise.
    run = averaged_sgd_risk(law, step=0.05, n_steps=6)
    square = 1 + (81 * 0.05**2 - 18 * 0.05) / 4
    assert_allclose(run.last, 9 / 4 * 4 * square ** np.arange(1, 7))
    assert_allclose(run.averaged[0], 9)
    assert_allclose(run.noise, 0, atol=1e-12)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_recursion_with_closed_masks_against_all_masks(seed, d):
    law = random_law(seed, d)
    closed, brute = (averaged_sgd_risk(f, step=0.1, n_steps=9) for f in (law, enumerated(law)))
    assert_allclose(closed.averaged, brute.averaged, rtol=1e-9)
    assert_allclose(closed.last, brute.last, rtol=1e-9)
    assert_allclose(closed.noise, brute.noise, rtol=1e-9, atol=1e-12)


def test_recursion_against_all_sequences():
    law = random_law(3, d=2, m=2)
    one = enumerated(law)
    S, target = imputed_moments(law).inputs, best_linear(imputed_moments(law)).coefficients
    n, k = 3, len(one.outputs)
    at = np.stack(np.meshgrid(*[np.arange(k)] * n, indexing="ij"), axis=-1).reshape(-1, n)
    off = averaged_sgd(one.inputs[at], one.outputs[at], step=0.3) - target
    risk = np.prod(one.weights[at], axis=1) @ np.einsum("ri,ij,rj->r", off, S, off)
    assert_allclose(averaged_sgd_risk(law, step=0.3, n_steps=n).averaged[-1], risk)


def test_noise_level_is_the_least():
    law = random_law(5)
    one, run = enumerated(law), averaged_sgd_risk(law, step=0.1, n_steps=1)
    residuals = one.outputs - one.inputs @ run.target
    T = (one.inputs.T * (one.weights * residuals**2)) @ one.inputs
    S = imputed_moments(law).inputs
    least = np.linalg.eigvalsh(run.noise * S - T).min()
    assert_allclose(least, 0, atol=1e-12)
    assert np.linalg.eigvalsh(0.99 * run.noise * S - T).min() < -1e-4


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 40))
def test_bound_of_averaged_descent(seed, d, n):
    rng = np.random.default_rng(seed)
    law = masked_law(rng.uniform(-1, 1, (6, d)), rng.standard_normal(6), observed=0.6)
    step = 1 / (d * math.sqrt(n))
    run = averaged_sgd_risk(law, step=step, n_steps=n)
    size = float(np.linalg.norm(run.target))
    terms = averaged_sgd_bound(
        n, d=d, radius=math.sqrt(d), step=step, noise=run.noise, distance=size
    )
    assert_allclose(terms[0], math.sqrt(run.noise * d / n) / (1 - n**-0.25))
    assert_allclose(terms[1], math.sqrt(d / math.sqrt(n)) * size)
    assert run.averaged[-1] <= sum(terms) ** 2
    with pytest.raises(ValueError, match="step: expected one below 1 / radius"):
        averaged_sgd_bound(n, d=d, radius=2.0, step=0.25, noise=1.0, distance=1.0)


def test_bound_is_not_far_off_and_half_of_it_is_false():
    # One entry, always seen, X = 1, errors +-1: the stationary law of averaged descent.
    law = masked_law([[1.0], [1.0]], [1.0, -1.0], observed=1.0)
    run = averaged_sgd_risk(law, step=0.01, n_steps=4_000)
    terms = averaged_sgd_bound(4_000, d=1, radius=1.0, step=0.01, noise=run.noise, distance=0.0)
    assert 0.5 * sum(terms) ** 2 < run.averaged[-1] < sum(terms) ** 2


@pytest.mark.parametrize(("d", "r"), [(1, 1), (5, 5), (7, 1), (40, 3), (641, 9)])
def test_tight_frames(d, r):
    A = tight_frame(d, r, seed=d)
    assert_allclose(A.T @ A, d / r * np.eye(r), atol=1e-10)
    assert_allclose(np.sum(A**2, axis=1), 1)
    assert not np.array_equal(A, tight_frame(d, r, seed=d + 1)) or d == 1


def test_units():
    law = random_law(1)
    for s in (1e-40, 1e40):
        scaled = masked_law(s * law.inputs, law.outputs, observed=law.observed, weights=law.weights)
        assert_allclose(imputation_bias(scaled), imputation_bias(law))
        assert_allclose(
            best_linear(imputed_moments(scaled)).coefficients * s,
            best_linear(imputed_moments(law)).coefficients,
        )
        run = averaged_sgd_risk(scaled, step=0.1 / s / s, n_steps=4)
        assert_allclose(run.averaged, averaged_sgd_risk(law, step=0.1, n_steps=4).averaged)


def test_units_of_single_entries():
    law = random_law(2)
    units = np.array([1e-9, 1.0, 1e9])
    scaled = masked_law(units * law.inputs, law.outputs, observed=law.observed, weights=law.weights)
    for moments in (complete_moments, imputed_moments):
        one, other = best_linear(moments(law)), best_linear(moments(scaled))
        assert_allclose(other.coefficients * units, one.coefficients)
        assert_allclose(other.risk, one.risk)
    assert_allclose(imputation_bias(scaled), imputation_bias(law))
    # The noise level does not depend on units, nor do risks after one step in the smallest ones.
    assert_allclose(
        averaged_sgd_risk(scaled, step=1e-30, n_steps=1).noise,
        averaged_sgd_risk(law, step=0.1, n_steps=1).noise,
    )
    with pytest.raises(ValueError, match="law: expected inputs whose squares"):
        complete_moments(masked_law([[1e-200, 1.0]], [1.0], observed=0.5))


def test_the_fit_of_dependent_entries_has_the_least_norm():
    rng = np.random.default_rng(6)
    X, y = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 4)), rng.standard_normal(5)
    X = X * [1.0, 30.0, 0.02, 1.0]
    fit = best_linear(complete_moments(masked_law(X, y, observed=0.5)))
    assert_allclose(fit.coefficients, np.linalg.pinv(X) @ y, rtol=1e-7)
    # Entries that are dependent but for 1e-4 are not taken for dependent.
    X = np.array([[1.0, 1.0001], [1.0, 0.9999], [-1.0, -1.0001]])
    fit = best_linear(complete_moments(masked_law(X, X @ [3.0, -2.0], observed=0.5)))
    assert_allclose(fit.coefficients, [3, -2], rtol=1e-5)
    # One point: theta is along it, whatever the scales.
    fit = best_linear(complete_moments(masked_law([[3.0, 4e3]], [5.0], observed=0.5)))
    assert_allclose(fit.coefficients, np.array([15.0, 2e4]) / (9 + 16e6))
    point = np.array([3.0, 0.1, 4e3, 70.0])
    fit = best_linear(complete_moments(masked_law(point[None], [5.0], observed=0.5)))
    assert_allclose(fit.coefficients, 5 * point / (point @ point), rtol=1e-6)


@pytest.mark.parametrize("decades", [4, 16, 24])
def test_the_fit_of_dependent_entries_in_very_different_units_is_a_best_one(decades):
    # Fewer points than entries, all in general position: nothing is left.
    for seed in range(60):
        rng = np.random.default_rng(seed)
        d = int(rng.integers(2, 5))
        X = rng.standard_normal((int(rng.integers(1, d)), d))
        X = X * 10.0 ** rng.uniform(-decades / 2, decades / 2, d)
        y = rng.standard_normal(len(X))
        law = masked_law(X, y, observed=0.5)
        fit = best_linear(complete_moments(law))
        assert fit.risk <= 1e-9 * np.mean(y**2)


@pytest.mark.parametrize(
    "rho",
    [
        [1.0, 1e-15],
        [1e-15, 1.0],
        [1 - 1e-12, 1.0],
        [1e-6, 1e-12],
        [1.0, 1e-30],
        [1e-90, 0.5],
        [1 - 1e-15, 1e-60],
    ],
)
@pytest.mark.parametrize("second", [[0.5, 2.0, 0.7], [1.0003, -1.0003, 0.29991]])
def test_bias_of_extreme_probabilities(rho, second):
    X, y = np.column_stack([[1.0, -1.0, 0.3], second]), np.array([1.0, -2.0, 0.4])
    law = masked_law(X, y, observed=rho)
    S, b = (np.vectorize(Fraction)(v) for v in (X, y))
    S, b = S.T @ S / 3, S.T @ b / 3
    p = [Fraction(v) for v in law.observed.tolist()]

    def explained(extra):
        a, d, c = S[0, 0] + extra[0], S[1, 1] + extra[1], S[0, 1]
        return (d * b[0] ** 2 - 2 * c * b[0] * b[1] + a * b[1] ** 2) / (a * d - c * c)

    ridge = [(1 - v) / v * S[i, i] for i, v in enumerate(p)]
    exact = float(explained([0, 0]) - explained(ridge))
    assert_allclose(imputation_bias(law), exact, rtol=1e-7)


def test_an_entry_that_is_always_zero_costs_nothing():
    law = masked_law([[1.0, 0.0], [-1.0, 0.0]], [2.0, 1.0], observed=[0.5, 0.3])
    assert_allclose(
        imputation_bias(law), imputation_bias(masked_law([[1.0], [-1.0]], [2.0, 1.0], observed=0.5))
    )
    assert best_linear(imputed_moments(law)).coefficients[1] == 0


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize("linear", [True, False])
def test_bound_at_steps_up_to_the_largest(share, linear):
    worst = 0.0
    for seed in range(12):
        rng = np.random.default_rng([seed, 1])
        d, m = rng.integers(1, 5), rng.integers(1, 6)
        X = rng.uniform(-1, 1, (m, d)) * 10.0 ** rng.uniform(-3, 0, d)
        y = X @ rng.standard_normal(d) if linear else rng.standard_normal(m)
        law = masked_law(X, y, observed=rng.uniform(0.05, 1, d), weights=rng.uniform(0.01, 1, m))
        radius = np.linalg.norm(X, axis=1).max()
        step = share / radius**2
        run = averaged_sgd_risk(law, step=step, n_steps=100)
        size = float(np.linalg.norm(run.target))
        for n in (1, 2, 10, 100):
            terms = averaged_sgd_bound(
                n, d=d, radius=radius, step=step, noise=run.noise, distance=size
            )
            worst = max(worst, run.averaged[n - 1] / sum(terms) ** 2)
    assert worst <= 1 + 1e-9


def test_bound_of_the_start_is_attained():
    # One step's mean is the start, X = R always seen: excess R^2 theta^2 = theta^2 / gamma.
    run = averaged_sgd_risk(masked_law([[2.0]], [6.0], observed=1.0), step=0.2499, n_steps=1)
    terms = averaged_sgd_bound(1, d=1, radius=2.0, step=0.2499, noise=0.0, distance=3.0)
    assert terms[0] == 0
    assert_allclose(run.averaged[0], terms[1] ** 2, rtol=1e-3)


def test_entries_and_points_keep_their_own_probabilities():
    law = masked_law([[1.0, 2.0], [3.0, 1.0]], [0.0, 1.0], observed=[0.25, 0.5], weights=[3, 1])
    assert law.observed.tolist() == [0.25, 0.5]
    assert law.weights.tolist() == [0.75, 0.25]
    assert imputed_moments(law).inputs.tolist() == [[0.75, 2.25 / 8], [2.25 / 8, 3.25 / 2]]
    # Their sum need not be a float64.
    huge = masked_law([[1.0], [2.0]], [0.0, 1.0], observed=0.5, weights=[1.5e308, 0.5e308])
    assert huge.weights.tolist() == [0.75, 0.25]


def test_no_risk_is_negative_or_below_its_bound_by_rounding():
    rng = np.random.default_rng(4)
    for _ in range(200):
        X, theta = rng.standard_normal((4, 3)), rng.standard_normal(3)
        law = masked_law(X, X @ theta, observed=1.0)
        assert 0 <= linear_risk(complete_moments(law), theta) < 1e-13
        fit = best_linear(complete_moments(law))
        assert fit.lower <= fit.risk < 1e-12
        # Outputs that no input tells of.
        off = np.linalg.svd(X)[0][:, 3]
        assert 0 <= imputation_bias(masked_law(X, off, observed=rng.uniform(0.1, 1, 3))) < 1e-24


def test_bad_laws_are_refused():
    with pytest.raises(ValueError, match="distance: expected a magnitude"):
        averaged_sgd_bound(1, d=1, radius=1.0, step=1e-290, noise=0.0, distance=1e300)
    with pytest.raises(ValueError, match="observed: expected one probability, or 2"):
        masked_law([[1.0, 2.0]], [1.0], observed=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="observed"):
        masked_law([[1.0, 2.0]], [1.0], observed=1.5)
    with pytest.raises(ValueError, match="weights: expected positive"):
        masked_law([[1.0, 2.0]], [1.0], observed=0.5, weights=[0.0])
    with pytest.raises(ValueError, match="law, step"):
        averaged_sgd_risk(random_law(0), step=1e3, n_steps=1000)
