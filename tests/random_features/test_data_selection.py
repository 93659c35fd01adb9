"""Data selection: linear programs, grids, exact rationals, simulated least squares."""

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import linprog, minimize

from theorylab import random_features as rf


def law(m=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.3, 3.0, m) * rng.choice([-1, 1], m), rng.dirichlet(np.full(m, 3.0))


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.8, 1.0])
def test_hard_selection_is_the_linear_program(fraction):
    x, w = law()
    pi = rf.hard_selection(np.abs(x), w, fraction)
    found = linprog(-w * x**2, A_eq=w[None], b_eq=[fraction], bounds=(0, 1))
    assert_allclose([w @ pi, w @ (pi * x**2)], [fraction, -found.fun], rtol=1e-9)
    assert ((pi >= 0) & (pi <= 1)).all()


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.8, 1.0])
def test_proportional_selection_is_optimal(fraction):
    x, w = law()
    pi = rf.proportional_selection(np.abs(x), w, fraction)
    assert_allclose(w @ pi, fraction, rtol=1e-12)
    found = minimize(
        lambda v: w @ (x**2 / v),
        np.full(7, fraction),
        method="SLSQP",
        bounds=[(1e-3, 1)] * 7,
        constraints={"type": "eq", "fun": lambda v: w @ v - fraction},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert_allclose(w @ (x**2 / pi), found.fun, rtol=1e-7)
    below = pi < 1
    if below.any():
        assert np.ptp(pi[below] / np.abs(x[below])) < 1e-12
        assert (np.abs(x[~below]) >= np.abs(x[below]).max()).all()


def test_rules_at_ties_and_zero_probabilities():
    w = np.array([0.25, 0.25, 0.5])
    assert_allclose(rf.hard_selection([2.0, 2.0, 1.0], w, 0.375), [1.0, 0.5, 0.0])
    assert_allclose(rf.proportional_selection([2.0, 2.0, 2.0], w, 0.375), 0.375)
    assert_allclose(rf.proportional_selection([1.0, 2.0], [0.0, 1.0], 0.5), [0.25, 0.5])
    assert_allclose(rf.proportional_selection([1.0, 8.0], [1.0, 0.0], 0.5), [0.5, 1.0])


@pytest.mark.parametrize("weighted", [True, False])
def test_covariance_in_one_dimension_by_hand(weighted):
    x, w = law()
    pi, noise = np.linspace(0.2, 1, 7), np.linspace(1, 4, 7)
    found = rf.selection_covariance(x[:, None], w, pi, noise_variances=noise, weighted=weighted)[
        0, 0
    ]
    if weighted:
        expected = np.sum(w * noise * x**2 / pi) / np.sum(w * x**2) ** 2
    else:
        expected = np.sum(w * noise * pi * x**2) / np.sum(w * pi * x**2) ** 2
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("weighted", [True, False])
def test_simulation_is_least_squares_on_kept_samples(weighted):
    rng = np.random.default_rng(1)
    X, w = rng.standard_normal((5, 2)), np.full(5, 0.2)
    pi, noise = np.linspace(0.4, 1.0, 5), np.linspace(0.5, 2.0, 5)
    n, errors = 300, []
    for _ in range(3000):
        at = rng.integers(5, size=n)
        at = at[rng.random(n) < pi[at]]
        y = np.sqrt(noise[at]) * rng.standard_normal(at.size)
        root = np.sqrt(1 / pi[at]) if weighted else np.ones(at.size)
        theta = np.linalg.lstsq(root[:, None] * X[at], root * y, rcond=None)[0]
        errors.append(n * theta @ theta)
    traces = rf.simulate_selection(
        X, w, pi, noise_variances=noise, weighted=weighted, n_samples=n, n_draws=2000, rng=rng
    )
    limit = np.trace(rf.selection_covariance(X, w, pi, noise_variances=noise, weighted=weighted))
    assert abs(np.mean(errors) - traces.mean()) < 5 * np.std(errors) / np.sqrt(3000)
    assert_allclose(traces.mean(), limit, rtol=0.03)


def test_covariance_does_not_depend_on_units_or_coordinates():
    rng = np.random.default_rng(2)
    X, w = rng.standard_normal((6, 3)), np.full(6, 1 / 6)
    how = {"noise_variances": np.linspace(1, 2, 6), "weighted": False}
    pi, A = np.linspace(0.3, 1, 6), rng.standard_normal((3, 3))
    plain = rf.selection_covariance(X, w, pi, **how)
    back = np.linalg.inv(A)
    assert_allclose(rf.selection_covariance(X @ A, w, pi, **how), back @ plain @ back.T, rtol=1e-8)
    assert_allclose(rf.selection_covariance(1e9 * X, w, pi, **how) * 1e18, plain, rtol=1e-9)


def test_quotient_of_the_two_rules():
    x, w = law(30, 3)
    for gamma in (0.05, 0.2, 0.6):
        hard = rf.hard_selection(np.abs(x), w, gamma)
        soft = rf.proportional_selection(np.abs(x), w, gamma)
        quotient = np.sum(w * x**2 / soft) * np.sum(w * hard * x**2) / np.sum(w * x**2) ** 2
        assert 1 <= quotient <= 1 / gamma
    # Two atoms, P(M) = gamma = 1 / M^2: exactly, and of the order of 1 / gamma.
    M, p = 10, Fraction(1, 100)
    rule = rf.proportional_selection([1.0, M], [1 - 1 / 100, 1 / 100], 1 / 100)
    c = p / (1 - p + M * p)
    assert_allclose(rule, [float(c), float(M * c)], rtol=1e-12)
    quotient = M**2 * (1 + Fraction(1, M) - p) ** 2 / (2 - p) ** 2
    assert_allclose((0.99 / rule[0] + 1 / rule[1]) / 1.99**2, float(quotient), rtol=1e-12)
    # At a fixed fraction the quotient of two atoms stays bounded: (1 + gamma)^2 / (4 gamma).
    M = 1e4
    rule = rf.proportional_selection([1.0, M], [1 - M**-2, M**-2], 0.2)
    value = ((1 - M**-2) / rule[0] + 1 / rule[1]) / (2 - M**-2) ** 2 * 1.2
    assert_allclose(value, 1.2**2 / 0.8, rtol=1e-3)


def test_quietest_subset_is_best_among_all_rules():
    rng = np.random.default_rng(4)
    for _ in range(20):
        x, w = law(4, int(rng.integers(1000)))
        noise = np.exp(2 * rng.standard_normal(4))
        found = rf.quietest_subset(x, w, noise_variances=noise)
        values = []
        for pi in product(np.linspace(0, 1, 6), repeat=4):
            information = np.sum(w * pi * x**2)
            if information > 0:
                values.append(np.sum(w * pi * x**2 * noise) / information**2)
        assert_allclose(found.variance, min(values), rtol=1e-12)
        kept = found.selection > 0
        mean = np.sum((w * x**2 * noise)[kept]) / np.sum((w * x**2)[kept])
        assert_allclose(found.cutoff, 2 * mean, rtol=1e-12)
        assert (kept == (noise <= found.cutoff)).all()


def test_quietest_subset_keeps_everything_at_equal_noise_and_ties_together():
    x, w = law()
    found = rf.quietest_subset(x, w, noise_variances=np.full(7, 3.0))
    assert_allclose(found.selection, 1.0)
    assert_allclose(found.variance, 3 / np.sum(w * x**2), rtol=1e-12)
    # Just within twice the weighted mean a value is kept, just beyond it is not: 1 and s at equal
    # weight, kept both where (1 + s) / 4 < 1.
    for s, kept in ((2.99, 1.0), (3.01, 0.0)):
        pair = rf.quietest_subset([1.0, 1.0], [0.5, 0.5], noise_variances=[1.0, s])
        assert pair.selection[1] == kept
    scaled = rf.quietest_subset(1e100 * x, w, noise_variances=np.linspace(1, 50, 7) * 1e-90)
    plain = rf.quietest_subset(x, w, noise_variances=np.linspace(1, 50, 7))
    assert_allclose(scaled.selection, plain.selection)


def test_influence_is_the_derivative_of_the_trace():
    rng = np.random.default_rng(6)
    X, w = rng.standard_normal((6, 3)) * [1.0, 4.0, 0.3], rng.dirichlet(np.full(6, 3.0))
    pi, noise, h = np.linspace(0.3, 0.9, 6), np.exp(rng.standard_normal(6)), 1e-5

    def trace(rule):
        found = rf.selection_covariance(X, w, rule, noise_variances=noise, weighted=False)
        return np.trace(found)

    falls = [(trace(pi - h * e) - trace(pi + h * e)) / (2 * h) for e in np.eye(6)]
    influence = rf.selection_influence(X, w, pi, noise_variances=noise)
    assert_allclose(w * influence, falls, rtol=1e-6)
    moved = rf.selection_influence(1e-8 * X, w, pi, noise_variances=1e6 * noise)
    assert_allclose(moved, influence * 1e22, rtol=1e-9)


def values_of(rule, x, w, noise):
    return np.sum(w * rule * noise * x**2) / np.sum(w * rule * x**2) ** 2


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.8, 1.0])
def test_quietest_fraction_is_best_among_rules(fraction):
    rng = np.random.default_rng(7)
    for seed in range(12):
        x, w = law(6, seed)
        noise = np.exp(2 * rng.standard_normal(6))
        x, noise = np.where(rng.random(6) < 0.3, 1.0, x), np.where(rng.random(6) < 0.3, 2.0, noise)
        found = rf.quietest_fraction(x, w, fraction, noise_variances=noise)
        rule = found.selection
        assert_allclose(w @ rule, fraction, rtol=1e-9)
        assert_allclose(values_of(rule, x, w, noise), found.variance, rtol=1e-12)
        mean = np.sum(w * rule * noise * x**2) / np.sum(w * rule * x**2)
        assert_allclose(found.cutoff, 2 * mean, rtol=1e-12)
        best = np.inf
        for order in permutations(range(6)):
            rank = np.empty(6)
            rank[list(order)] = np.arange(6)
            best = min(best, values_of(rf.hard_selection(rank, w, fraction), x, w, noise))
        assert_allclose(found.variance, best, rtol=1e-12)


def test_quietest_fraction_of_equal_noise_is_the_largest_and_has_no_unit():
    x, w = law(30, 3)
    found = rf.quietest_fraction(x, w, 0.4, noise_variances=np.full(30, 2.0))
    assert_allclose(found.selection, rf.hard_selection(np.abs(x), w, 0.4))
    noise = np.exp(np.random.default_rng(8).standard_normal(30))
    plain = rf.quietest_fraction(x, w, 0.4, noise_variances=noise)
    moved = rf.quietest_fraction(1e8 * x, w, 0.4, noise_variances=1e-8 * noise)
    assert_allclose(moved.selection, plain.selection)
    assert_allclose(
        [moved.variance * 1e24, moved.cutoff * 1e8], [plain.variance, plain.cutoff], rtol=1e-9
    )
    with pytest.raises(ValueError, match="x: expected at most 500"):
        rf.quietest_fraction(np.ones(501), np.full(501, 1 / 501), 0.5, noise_variances=np.ones(501))


def test_units_of_columns_and_single_precision():
    rng = np.random.default_rng(9)
    X, w, units = rng.standard_normal((6, 3)), np.full(6, 1 / 6), np.array([1.0, 1e-8, 1e5])
    pi, noise = np.linspace(0.3, 1, 6), np.linspace(1, 2, 6)
    plain = rf.selection_covariance(X, w, pi, noise_variances=noise, weighted=True)
    found = rf.selection_covariance(X * units, w, pi, noise_variances=noise, weighted=True)
    assert_allclose(found * units * units[:, None], plain, rtol=1e-9)
    influence = rf.selection_influence(X * [1.0, 1.0, 1e9], w, pi, noise_variances=noise)
    falls = [
        -np.trace(
            rf.selection_covariance(
                X[:, :] * [1.0, 1.0, 1e9], w, pi + h * e, noise_variances=noise, weighted=False
            )
        )
        for e in np.eye(6)[:1]
        for h in (1e-6, -1e-6)
    ]
    assert_allclose(w[0] * influence[0], (falls[0] - falls[1]) / 2e-6, rtol=1e-5)
    how = {"noise_variances": noise, "weighted": False, "n_samples": 300, "n_draws": 30}
    runs = [
        rf.simulate_selection(Z, w, pi, rng=np.random.default_rng(0), **how)
        for Z in (X[:, :1], X[:, :1] * 1e-7, np.hstack([X[:, :1], 1e12 * X[:, 1:2]]))
    ]
    assert_allclose(runs[1] * 1e-14, runs[0], rtol=1e-9)
    assert (runs[2] > runs[0]).all()
    near = X.copy()
    near[:, 2] = near[:, 1] + 1e-4 * near[:, 2]
    A = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1e-4]])
    back = np.linalg.inv(A)
    found = rf.selection_covariance(near, w, pi, noise_variances=noise, weighted=True)
    assert_allclose(found, back @ plain @ back.T, rtol=1e-4)
    single = np.full(5, 0.2, dtype=np.float32)
    assert_allclose(rf.hard_selection(np.arange(5.0), single, 0.2), np.eye(5)[4], atol=1e-6)
    with pytest.raises(ValueError, match="probabilities"):
        rf.hard_selection(np.arange(5.0), single * 1.01, 0.2)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="probabilities"):
        rf.hard_selection([1.0, 2.0], [0.5, 0.6], 0.5)
    with pytest.raises(ValueError, match="probabilities"):
        rf.hard_selection([1.0, 2.0], [0.5, 0.5001], 0.5)
    how = {"noise_variances": [1.0, 1.0], "weighted": False}
    with pytest.raises(ValueError, match="selection"):
        rf.selection_covariance([[1.0], [2.0]], [0.5, 0.5], [0.0, 0.0], **how)
    with pytest.raises(ValueError, match="selection"):
        rf.selection_covariance([[1.0], [2.0]], [0.5, 0.5], [0.5, 1.5], **how)
    with pytest.raises(ValueError, match="n_samples"):
        rf.simulate_selection(
            np.eye(2),
            [0.5, 0.5],
            [0.1, 0.1],
            n_samples=3,
            n_draws=50,
            rng=np.random.default_rng(0),
            **how,
        )
    with pytest.raises(ValueError, match="x: expected a value"):
        rf.quietest_subset([0.0, 1.0], [1.0, 0.0], noise_variances=[1.0, 1.0])
