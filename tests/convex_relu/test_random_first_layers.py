from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import lars_path

from theorylab.convex_relu import (
    enumerate_arrangements,
    improvement_probability,
    improvement_tail_bound,
    improving_patterns,
    random_first_layer_bound,
    sufficient_samples,
    train,
    train_output_layer,
)


def data(seed, n=6, d=2):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n)


@pytest.mark.parametrize(("n", "count"), [(5, 3), (8, 40), (20, 300)])
def test_output_layer_is_the_lasso_solution(n, count):
    for seed in range(4):
        X, y = data(seed, n, 3)
        U = np.random.default_rng(seed + 50).normal(size=(count, 3))
        beta = 0.2
        found = train_output_layer(X, y, beta, U)
        features = np.maximum(X @ (U / np.linalg.norm(U, axis=1, keepdims=True)).T, 0)
        _, _, path = lars_path(features, y, method="lasso", alpha_min=beta / n)
        value = 0.5 * np.sum((y - features @ path[:, -1]) ** 2) + beta * np.abs(path[:, -1]).sum()
        assert found.objective == pytest.approx(value, rel=1e-9)
        assert found.gap < 1e-10
        np.testing.assert_allclose(found.network(X), features @ found.coefficients, atol=1e-12)
        assert 0.5 * np.sum(
            (found.network(X) - y) ** 2
        ) + beta * found.network.penalty == pytest.approx(found.objective)


def test_certificate_of_the_output_layer_bounds_the_true_suboptimality():
    X, y = data(4, 8, 2)
    best = train(X, y, 0.3)
    rng = np.random.default_rng(0)
    U = rng.normal(size=(400, 2))
    values = []
    for count in (5, 40, 400):
        found = train_output_layer(X, y, 0.3, U[:count])
        assert found.certificate.verify()
        assert (
            0
            <= found.objective - best.objective * (1 - 1e-9)
            <= found.objective - found.certificate.dual_objective
        )
        values.append(found.objective)
    assert values == sorted(values, reverse=True)
    with_optimum = train_output_layer(X, y, 0.3, np.vstack([U, best.network.weights]))
    assert with_optimum.objective == pytest.approx(best.objective, rel=1e-9)


def test_improvement_probability_is_what_a_fine_grid_of_directions_says():
    angles = (np.arange(40_000) + 0.5) * 2 * np.pi / 40_000
    U = np.column_stack([np.cos(angles), np.sin(angles)])
    for seed in range(5):
        X, v = data(seed, 7, 2)
        hidden = np.maximum(X @ U.T, 0)
        beta = 0.4 * np.abs(v @ hidden).max()
        violated = np.abs(v @ hidden) > beta
        # Each of at most 4n + 4 ends of an arc is off by at most one grid point.
        assert improvement_probability(X, v, beta) == pytest.approx(
            violated.mean(), abs=40 / 40_000
        )
        cell = 2.0 ** np.arange(7) @ (X @ U.T > 0)
        by_cell = np.isin(cell, np.unique(cell[violated])).mean()
        assert improvement_probability(X, v, beta, law="patterns") == pytest.approx(
            by_cell, abs=40 / 40_000
        )
    assert improvement_probability(X, np.zeros(7), beta) == 0


@pytest.mark.parametrize("d", [2, 4])
def test_a_pattern_improves_exactly_where_it_should(d):
    X, y = data(9, 7, d)
    patterns = enumerate_arrangements(X)
    rng = np.random.default_rng(0)
    chosen = patterns[rng.permutation(len(patterns))[: 2 * d - 3]]
    base = train(X, y, 0.2, arrangements=chosen, tol=1e-10)
    improving = improving_patterns(X, base.certificate.dual, 0.2, patterns)
    assert not improving_patterns(X, base.certificate.dual, 0.2, chosen).any()
    assert 0 < improving.sum() < len(patterns)
    for pattern, improves in zip(patterns[:20], improving, strict=False):
        better = train(X, y, 0.2, arrangements=np.vstack([chosen, pattern]), tol=1e-10)
        assert (better.objective < base.objective * (1 - 1e-8)) == improves


def test_one_more_direction_improves_exactly_where_it_should():
    X, y = data(6, 6, 2)
    rng = np.random.default_rng(1)
    U = rng.normal(size=(12, 2))
    base = train_output_layer(X, y, 0.2, U)
    for new in rng.normal(size=(40, 2)):
        excess = abs(base.dual @ np.maximum(X @ new, 0)) / np.linalg.norm(new) - 0.2
        value = train_output_layer(X, y, 0.2, np.vstack([U, new])).objective
        assert (value < base.objective * (1 - 1e-12)) == (excess > 0)


def test_sample_sizes_and_tail():
    for n, psi, xi in ((4, 0.1, 0.1), (30, 0.05, 0.5), (10, 0.3, 0.01)):
        count = sufficient_samples(n, psi=psi, xi=xi)
        assert count <= Fraction(n + 1) / (Fraction(psi) * Fraction(xi))
        assert improvement_tail_bound(n, n_samples=count, psi=psi) <= xi
        assert improvement_tail_bound(n, n_samples=count, psi=psi) == pytest.approx(
            binom.cdf(n - 1, count, psi)
        )
    assert improvement_tail_bound(5, n_samples=4, psi=0.2) == 1
    assert sufficient_samples(200, psi=0.1, xi=0.1) / sufficient_samples(
        100, psi=0.1, xi=0.1
    ) == pytest.approx(2, rel=0.05)


def test_value_bound_covers_what_happens():
    X, y = data(7, 8, 2)
    best = train(X, y, 0.5)
    rng = np.random.default_rng(2)
    bounds = [
        random_first_layer_bound(best, n_directions=count, xi=0.5) for count in (50, 500, 5000)
    ]
    assert bounds[0] > bounds[1] > bounds[2]
    for count, bound in zip((50, 500), bounds, strict=False):
        excess = [
            train_output_layer(X, y, 0.5, rng.normal(size=(count, 2))).objective - best.objective
            for _ in range(20)
        ]
        # At risk 1/2, all of 20 failing has probability 1e-6.
        assert min(excess) <= bound
    # The argument of the bound itself: neurons moved by the allowed angle.
    weights = best.network.weights
    t = np.pi * (1 - (0.5 / len(weights)) ** (1 / 500))
    for _ in range(50):
        turn = rng.uniform(-t, t, size=len(weights))
        turned = np.column_stack(
            [
                np.cos(turn) * weights[:, 0] - np.sin(turn) * weights[:, 1],
                np.sin(turn) * weights[:, 0] + np.cos(turn) * weights[:, 1],
            ]
        )
        output = np.maximum(X @ turned.T, 0) @ best.network.output_weights
        assert (
            0.5 * np.sum((output - y) ** 2) + 0.5 * best.network.penalty - best.objective
            <= bounds[1] + 1e-12
        )


def test_bad_input_is_named():
    X, y = data(0)
    with pytest.raises(ValueError, match="directions: expected rows that are not zero"):
        train_output_layer(X, y, 0.1, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="optimum: expected squared loss"):
        random_first_layer_bound(train(X, np.sign(y), 0.5, loss="hinge"), n_directions=10, xi=0.1)
    with pytest.raises(ValueError, match=r"X: expected shape \(any, 2\)"):
        improvement_probability(np.ones((3, 3)), np.ones(3), 0.1)
