import math

import cvxpy as cp
import numpy as np
import pytest

from theorylab.convex_relu import (
    ADMMStatus,
    Network,
    admm,
    admm_iteration,
    enumerate_arrangements,
    sample_arrangements,
    train,
    train_admm,
)


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


def test_the_history_is_that_of_the_iteration():
    X, y = data(5, 8, 2)
    with pytest.warns(RuntimeWarning):
        found = train_admm(X, y, 0.5, max_iter=330, tol=1e-15)
    assert list(found.gaps[:, 0]) == [50, 75, 112, 168, 252, 330]
    assert found.gaps[-1, 1] == found.gap
    step = admm_iteration(found)
    state, pieces = np.zeros_like(found.state), []
    for _ in range(331):
        pieces.append(
            np.append(np.linalg.norm(state[:, :2], axis=1) > step.threshold, state[:, 2:] > 0)
        )
        state = step.apply(state)
    changed = [k for k in range(1, 331) if (pieces[k] != pieces[k - 1]).any()]
    assert found.identified == changed[-1] > 50


def test_a_piece_that_only_rounding_changes_is_identified():
    X, y = np.array([[-1.0], [1.0], [2.0], [-1.0]]), np.array([-1.0, -2.0, 2.0, 2.0])
    with pytest.warns(RuntimeWarning):
        found = train_admm(X, y, 1.0, max_iter=3000, tol=1e-15)
    assert found.status is ADMMStatus.FIXED
    # Where the dense iteration last changes its piece by more than rounding.
    patterns, last = enumerate_arrangements(X), 0
    state = np.zeros((2 * len(patterns), 5))
    for k in range(1, 60):
        after = dense_step(X, y, 1.0, found.penalty, patterns, state)
        pieces = [
            np.append(np.linalg.norm(s[:, :1], axis=1) > 1.0 / found.penalty, s[:, 1:] > 0)
            for s in (state, after)
        ]
        if np.linalg.norm(after - state) > 1e-9 and (pieces[0] != pieces[1]).any():
            last = k
        state = after
    assert found.identified == last > 1
    assert len(found.residuals) > 100


def test_it_goes_on_while_outside_its_cones():
    X = np.array([[0.8, 0.3], [-1.3, 0.9], [0.4, -0.5], [0.6, 0.4]])
    found = train_admm(X, np.array([0.3, 0.0, 0.5, -0.7]), 0.3, tol=1e-3)
    assert (found.gaps[:, 1] <= 1e-3).tolist() == [False, True, True]
    assert found.violation <= 1e-3
    assert found.status is ADMMStatus.SOLVED


def test_scaling_the_targets_and_the_penalty_scales_the_iterates():
    X, y = data(8)
    base, scaled = train_admm(X, y, 0.4, penalty=1.0), train_admm(X, 3 * y, 1.2, penalty=1.0)
    np.testing.assert_allclose(scaled.state, 3 * base.state, atol=1e-10)


def test_a_result_in_any_units_is_consistent():
    X, y = data(8)
    base = train_admm(X, y, 0.4)
    scaled = train_admm(1e3 * X, 1e-5 * y, 0.4e-2)
    assert scaled.objective == pytest.approx(1e-10 * base.objective, rel=1e-7)
    outputs = 1e-5 * base.network(X)
    np.testing.assert_allclose(scaled.network(1e3 * X), outputs, atol=1e-8)
    assert scaled.asymptotic_rate < 1
    difference = abs(base.objective - base.dual_objective)
    assert base.gap == pytest.approx(difference / base.objective, rel=1e-6)


@pytest.mark.parametrize("tol", [0.1, 1e-2, 1e-4])
def test_what_is_solved_is_near_its_cones(tol):
    for seed in range(8):
        X, y = data(seed, 6, 2 + seed % 2)
        found = train_admm(X, y, 0.3, tol=tol)
        assert found.status is ADMMStatus.SOLVED
        assert found.gap <= tol
        patterns = found.patterns
        signs = np.where(np.vstack([patterns, patterns]), 1.0, -1.0)
        size = np.linalg.norm(found.blocks) * np.linalg.norm(X, axis=1).max()
        missed = max(0.0, -(signs * (found.blocks @ X.T)).min()) / size
        assert found.violation == pytest.approx(missed, rel=1e-9)
        assert found.violation <= tol


def test_a_derivative_too_large_to_write_down_is_refused():
    X, y = data(0, 31, 2)
    with pytest.warns(RuntimeWarning, match="max_iter"):
        found = train_admm(X, y, 1.0, max_iter=1)
    with pytest.raises(ValueError, match=r"at most 4000 unknowns .* got 4092"):
        _ = found.jacobian


def test_large_beta_leaves_nothing():
    X, y = data(0)
    found = train_admm(X, y, 100.0)
    assert found.network.n_neurons == 0
    assert found.objective == pytest.approx(0.5 * y @ y)


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
    # Targets in other units: a power of 64 changes nothing.
    with pytest.warns(RuntimeWarning, match="max_iter"):
        larger = train_admm(100 * X, 4096 * y, 4096 * 30.0, penalty=0.7, cones=cones, max_iter=1)
    other = admm_iteration(larger)
    assert other.threshold == step.threshold
    np.testing.assert_array_equal(other.apply(state), step.apply(state))


def test_fixed_points_of_optima_with_neurons_on_faces():
    tied = near = 0
    for seed in range(10):
        X, y = data(seed)
        with pytest.warns(RuntimeWarning, match="max_iter"):
            step = admm_iteration(train_admm(X, y, 0.3, max_iter=1))
        network = train(step.X, step.y, step.beta, tol=1e-10).network
        state = step.fixed_point(network)
        np.testing.assert_allclose(step.apply(state), state, atol=1e-8)
        unit = network.weights / np.linalg.norm(network.weights, axis=1, keepdims=True)
        z = unit @ (step.X / np.linalg.norm(step.X, axis=1, keepdims=True)).T
        tied += np.sum(np.abs(z) < 1e-9)
        near += np.sum((np.abs(z) < 0.1) & (np.abs(z) > 1e-9))
        # It is off its kinks: blocks and slacks that are not used have room.
        kinks = np.abs(np.linalg.norm(state[:, :2], axis=1) - step.threshold)
        assert min(kinks.min(), np.abs(state[:, 2:]).min()) > 1e-6
    assert tied > 0
    assert near > 0


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


def test_compiled_legs_and_the_default_budget_are_of_bounded_work(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    legs = []

    def recorded(*args):
        legs.append(args[-1].size)
        args[-1][:] = 1.0
        return 0

    monkeypatch.setattr(admm, "iterate", recorded)
    work = len(enumerate_arrangements(X)) * X.size
    with pytest.warns(RuntimeWarning, match="max_iter"):
        found = train_admm(X, y, 1.0)
    assert max(legs) * work <= 5e7 + work  # an interrupt is heard in between
    assert sum(legs) * work <= 3e10 + 100 * work
    assert found.gaps[:, 0].astype(int).tolist()[:3] == [50, 75, 112]
    legs.clear()
    with pytest.warns(RuntimeWarning, match="max_iter"):
        train_admm(X[:5], y[:5], 1.0)
    assert sum(legs) == 100_000
