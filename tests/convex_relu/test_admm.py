import math
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from scipy.stats import binom
from sklearn.linear_model import lars_path

from theorylab.convex_relu.admm import (
    ADMMStatus,
    admm_iteration,
    improvement_probability,
    improvement_tail_bound,
    improving_patterns,
    random_first_layer_bound,
    sufficient_samples,
    train_admm,
    train_output_layer,
)
from theorylab.convex_relu.arrangements import enumerate_arrangements, sample_arrangements
from theorylab.convex_relu.certificates import Network
from theorylab.convex_relu.training import train


def data(seed, n=6, d=2):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n)


def dense_step(X, y, beta, rho, patterns, state, cones=True):
    """One iteration with every matrix written out."""
    (P, n), d = patterns.shape, X.shape[1]
    masks = np.vstack([patterns, patterns]).astype(float)
    A = np.hstack(
        [s * m[:, None] * X for s, m in zip(np.repeat([1.0, -1.0], P), masks, strict=True)]
    )
    B = np.zeros((2 * P * (d + n), 2 * P * d))
    for b, mask in enumerate(masks):
        rows = slice(b * (d + n), (b + 1) * (d + n))
        B[rows, b * d : (b + 1) * d] = np.vstack([np.eye(d), (2 * mask - 1)[:, None] * X])
    shrunk = state.copy()
    lengths = np.linalg.norm(state[:, :d], axis=1, keepdims=True)
    shrunk[:, :d] *= np.maximum(1 - beta / rho / np.maximum(lengths, 1e-300), 0)
    if cones:
        shrunk[:, d:] = np.maximum(state[:, d:], 0)
    target = (2 * shrunk - state).ravel()
    u = np.linalg.solve(A.T @ A + rho * B.T @ B, A.T @ y + rho * B.T @ target)
    return state + (B @ u).reshape(state.shape) - shrunk


@pytest.mark.parametrize(("n", "d"), [(6, 2), (5, 3), (4, 5), (5, 1)])
def test_value_is_that_of_exact_training(n, d):
    for seed in range(3):
        X, y = data(seed, n, d)
        found = train_admm(X, y, 0.5)
        exact = train(X, y, 0.5)
        assert found.status is ADMMStatus.SOLVED
        assert exact.dual_objective * (1 - 1e-9) <= found.objective <= exact.objective * (1 + 1e-7)
        assert found.dual_objective <= exact.objective


def test_sampled_patterns_solve_the_restricted_program():
    X, y = data(3, 12, 3)
    patterns = sample_arrangements(X, 8, rng=np.random.default_rng(0))
    found, exact = (
        train_admm(X, y, 0.3, arrangements=patterns),
        train(X, y, 0.3, arrangements=patterns),
    )
    assert found.objective == pytest.approx(exact.objective, rel=1e-7)
    assert found.objective > train(X, y, 0.3).objective * (1 + 1e-3)
    signs = np.where(patterns, 1.0, -1.0)
    assert np.all(signs * (found.blocks[: len(patterns)] @ X.T) >= -1e-6)


def test_without_cones_it_is_the_group_lasso():
    X, y = data(1, 7, 2)
    patterns = enumerate_arrangements(X)
    V = cp.Variable((2 * len(patterns), 2))
    gates = np.vstack([patterns, -1.0 * patterns])
    fit = cp.sum(cp.multiply(gates, V @ X.T), axis=0) - y
    value = cp.Problem(
        cp.Minimize(0.5 * cp.sum_squares(fit) + 0.4 * cp.sum(cp.norm(V, 2, axis=1)))
    ).solve(solver=cp.CLARABEL)
    found = train_admm(X, y, 0.4, cones=False)
    assert found.objective == pytest.approx(value, rel=1e-6)
    assert found.objective < train(X, y, 0.4).objective


@pytest.mark.parametrize("cones", [True, False])
def test_iterates_are_those_of_the_dense_iteration(cones):
    X, y = data(2, 4, 2)
    patterns = enumerate_arrangements(X)
    state = np.zeros((2 * len(patterns), 6))
    with pytest.warns(RuntimeWarning, match="max_iter"):
        found = [
            train_admm(X, y, 0.4, penalty=0.7, cones=cones, max_iter=k, tol=1e-15)
            for k in (1, 2, 30)
        ]
    states = []
    for _ in range(30):
        states.append(
            dense_step(X, y, 0.4, 0.7, patterns, state if not states else states[-1], cones)
        )
    for result, k in zip(found, (1, 2, 30), strict=True):
        np.testing.assert_allclose(result.state, states[k - 1], atol=1e-12)
    steps = [np.linalg.norm(b - a) for a, b in zip([state, *states], states, strict=False)]
    np.testing.assert_allclose(found[-1].residuals, steps, atol=1e-12)


def test_jacobian_is_the_derivative_of_the_dense_iteration():
    X, y = data(2, 4, 2)
    patterns = enumerate_arrangements(X)
    with pytest.warns(RuntimeWarning):
        found = train_admm(X, y, 0.4, penalty=0.7, max_iter=60, tol=1e-15)
    shape, h = found.state.shape, 1e-6

    def step(flat):
        return dense_step(X, y, 0.4, 0.7, patterns, flat.reshape(shape)).ravel()

    flat = found.state.ravel()
    # Coordinates within h of a kink have no two-sided difference.
    smooth = np.flatnonzero(np.abs(flat) > 10 * h)
    numeric = np.array(
        [(step(flat + h * e) - step(flat - h * e)) / (2 * h) for e in np.eye(flat.size)[smooth]]
    ).T
    np.testing.assert_allclose(found.jacobian[:, smooth], numeric, atol=1e-6)


def test_residuals_never_increase_and_shrink_at_the_predicted_rate():
    X, y = data(5, 8, 2)
    with pytest.warns(RuntimeWarning):
        found = train_admm(X, y, 0.5, max_iter=330, tol=1e-15)
    residuals = found.residuals
    assert np.all(np.diff(residuals) <= 1e-14)
    assert found.identified < 200
    measured = (residuals[320] / residuals[220]) ** (1 / 100)
    assert math.log(measured) == pytest.approx(math.log(found.asymptotic_rate), rel=0.05)


def test_scaling_the_targets_and_the_penalty_scales_the_iterates():
    X, y = data(8)
    base, scaled = train_admm(X, y, 0.4, penalty=1.0), train_admm(X, 3 * y, 1.2, penalty=1.0)
    np.testing.assert_allclose(scaled.state, 3 * base.state, atol=1e-10)


def test_large_beta_leaves_nothing():
    X, y = data(0)
    found = train_admm(X, y, 100.0)
    assert found.network.n_neurons == 0
    assert found.objective == pytest.approx(0.5 * y @ y)


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


@pytest.mark.parametrize("cones", [True, False])
def test_the_iteration_written_out_is_that_of_the_solver(cones):
    X, y = data(2, 4, 2)
    with pytest.warns(RuntimeWarning, match="max_iter"):
        found = [
            train_admm(100 * X, y, 30.0, penalty=0.7, cones=cones, max_iter=k, tol=1e-15)
            for k in (1, 25)
        ]
    step = admm_iteration(found[0])
    state = np.zeros_like(found[0].state)
    for _ in range(25):
        state = step.apply(state)
    np.testing.assert_allclose(state, found[1].state, atol=1e-11)


@pytest.mark.parametrize(("n", "d", "sampled"), [(5, 2, 0), (4, 3, 0), (6, 2, 4)])
def test_the_fixed_point_of_an_optimal_network_stays(n, d, sampled):
    X, y = data(4, n, d)
    rng = np.random.default_rng(0)
    patterns = sample_arrangements(X, sampled, rng=rng) if sampled else "all"
    with pytest.warns(RuntimeWarning, match="max_iter"):
        step = admm_iteration(train_admm(X, y, 0.3, arrangements=patterns, max_iter=1))
    best = train(step.X, step.y, step.beta, arrangements=step.patterns, tol=1e-10)
    state = step.fixed_point(best.network)
    np.testing.assert_allclose(step.apply(state), state, atol=1e-8)
    # Neurons 1 % too large are none of an optimum.
    larger = (1.01 * best.network.weights, best.network.output_weights)
    moved = step.fixed_point(Network(*larger))
    assert np.abs(step.apply(moved) - moved).max() > 1e-4
