import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import minimize

from theorylab.matrix_sensing import (
    PruningStatus,
    autoencoder_objective,
    low_rank_autoencoder,
    nuclear_descent,
    pruning_metric,
    trained_rank_pruning,
    truncate,
    weighted_truncation,
)


def regression(seed, n=30, d=6, q=5, rank=2, noise=0.5):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, d)) * np.geomspace(1, 0.3, d)
    Y = A @ rng.standard_normal((d, rank)) @ rng.standard_normal(
        (rank, q)
    ) + noise * rng.standard_normal((n, q))
    return A, Y, np.linalg.lstsq(A, Y, rcond=None)[0], rng


def test_truncation_keeps_low_rank_and_leaves_the_small_singular_values():
    rng = np.random.default_rng(0)
    M = rng.standard_normal((5, 4))
    T = truncate(M, 2)
    assert np.linalg.matrix_rank(T) == 2
    np.testing.assert_allclose(
        np.linalg.svd(M - T, compute_uv=False)[:2],
        np.linalg.svd(M, compute_uv=False)[2:],
        rtol=1e-12,
    )
    np.testing.assert_allclose(truncate(M, 9), M, atol=1e-14)


def test_reduced_rank_regression_by_search():
    A, Y, least, rng = regression(1)
    best = weighted_truncation(least, A.T @ A, 2)
    assert np.linalg.matrix_rank(best) == 2

    def loss(v):
        P, Q = v[:12].reshape(6, 2), v[12:].reshape(2, 5)
        R = A @ P @ Q - Y
        return np.sum(R**2), np.concatenate(
            [(2 * A.T @ R @ Q.T).ravel(), (2 * P.T @ A.T @ R).ravel()]
        )

    found = min(minimize(loss, rng.standard_normal(22), jac=True, tol=1e-12).fun for _ in range(4))
    np.testing.assert_allclose(np.sum((A @ best - Y) ** 2), found, rtol=1e-10)


def test_the_identity_metric_truncates_and_any_multiple_is_the_same():
    _, _, least, _ = regression(2)
    np.testing.assert_allclose(
        weighted_truncation(least, np.eye(6), 3), truncate(least, 3), atol=1e-13
    )
    np.testing.assert_allclose(
        weighted_truncation(least, 7 * np.eye(6), 3), truncate(least, 3), atol=1e-13
    )


@pytest.mark.parametrize("period", [1, 2, 7, 400])
def test_pruning_metric_is_the_filter_of_the_gradient_steps(period):
    A, _, _, rng = regression(3)
    step = 0.7 / np.linalg.norm(A, 2) ** 2
    V = rng.standard_normal((6, 2))
    W = V
    for _ in range(period):
        W = W - step * A.T @ (A @ W)
    np.testing.assert_allclose(
        pruning_metric(A, step_size=step, period=period) @ V, V - W, atol=1e-12
    )


def test_limits_of_the_period():
    A, Y, least, _ = regression(4)
    step = 1 / np.linalg.norm(A, 2) ** 2
    run = trained_rank_pruning(A, Y, rank=2, step_size=step, period=1)
    assert run.status is PruningStatus.CONVERGED
    np.testing.assert_allclose(run.weights, weighted_truncation(least, A.T @ A, 2), atol=1e-9)
    run = trained_rank_pruning(A, Y, rank=2, step_size=step, period=3000)
    np.testing.assert_allclose(run.weights, truncate(least, 2), atol=1e-9)


def test_every_round_lowers_the_distance_in_the_metric():
    A, Y, least, _ = regression(5)
    step = 1 / np.linalg.norm(A, 2) ** 2
    Q = pruning_metric(A, step_size=step, period=4)
    distances = []
    for rounds in range(1, 12):
        with pytest.warns(RuntimeWarning, match="raise rounds"):
            W = trained_rank_pruning(A, Y, rank=2, step_size=step, period=4, rounds=rounds).weights
        distances.append(np.trace((W - least).T @ Q @ (W - least)))
    assert (np.diff(distances) <= 1e-12).all()
    limit = weighted_truncation(least, Q, 2)
    assert distances[-1] >= np.trace((limit - least).T @ Q @ (limit - least)) * (1 - 1e-12)


def test_an_unsettled_run_says_so():
    A, Y, _, _ = regression(6)
    with pytest.warns(RuntimeWarning, match="raise rounds"):
        run = trained_rank_pruning(A, Y, rank=2, step_size=1e-6, period=1, rounds=3)
    assert run.status is PruningStatus.NOT_CONVERGED
    assert run.losses.size == 3


@pytest.mark.parametrize("penalty", [0.0, 0.4, 1.5])
def test_autoencoder_of_full_width_solves_the_convex_problem(penalty):
    X = np.random.default_rng(7).standard_normal((3, 6))
    stated = low_rank_autoencoder(X, 3, penalty=penalty)
    N = cp.Variable((3, 3))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - N @ X) + penalty * cp.normNuc(N)))
    problem.solve(solver=cp.CLARABEL)
    assert stated.value == pytest.approx(problem.value, abs=1e-6)  # the solver's gap
    np.testing.assert_allclose(stated.decoder @ stated.latent @ stated.encoder, N.value, atol=1e-3)


@pytest.mark.parametrize("width", [1, 2])
def test_a_bottleneck_by_random_orthonormal_search(width):
    rng = np.random.default_rng(8)
    X = rng.standard_normal((3, 5))
    stated = low_rank_autoencoder(X, width, penalty=0.6)
    np.testing.assert_allclose(stated.encoder @ stated.encoder.T, np.eye(width), atol=1e-13)
    np.testing.assert_allclose(stated.decoder.T @ stated.decoder, np.eye(width), atol=1e-13)
    terms = autoencoder_objective(X, stated.encoder, stated.latent, stated.decoder, penalty=0.6)
    np.testing.assert_allclose(sum(terms), stated.value, rtol=1e-12)

    def value(v):  # orthonormal factors from QR: every feasible point is reached
        D = np.linalg.qr(v[: 3 * width].reshape(3, width))[0]
        E = np.linalg.qr(v[3 * width : 6 * width].reshape(3, width))[0].T
        return sum(
            autoencoder_objective(X, E, v[6 * width :].reshape(width, width), D, penalty=0.6)
        )

    found = [
        minimize(
            value,
            rng.standard_normal(6 * width + width**2),
            method="Nelder-Mead",
            options={"maxiter": 2000},
        ).fun
        for _ in range(4)
    ]
    assert min(found) >= stated.value - 1e-12
    if width == 1:
        assert min(found) == pytest.approx(
            stated.value, rel=1e-4
        )  # tolerance of the simplex search


def test_without_penalty_it_is_principal_component_analysis():
    X = np.random.default_rng(9).standard_normal((4, 9))
    stated = low_rank_autoencoder(X, 2, penalty=0.0)
    np.testing.assert_array_equal(stated.gains, [1, 1])
    np.testing.assert_allclose(
        stated.value, np.sum(np.linalg.svd(X, compute_uv=False)[2:] ** 2), rtol=1e-12
    )
    huge = low_rank_autoencoder(X, 2, penalty=1e6)
    np.testing.assert_array_equal(huge.gains, [0, 0])
    np.testing.assert_allclose(huge.value, np.sum(X**2), rtol=1e-12)


def test_bad_arguments():
    A, Y, least, _ = regression(10)
    with pytest.raises(ValueError, match="step_size"):
        trained_rank_pruning(A, Y, rank=2, step_size=3.0 / np.linalg.norm(A, 2) ** 2, period=1)
    with pytest.raises(ValueError, match="metric"):
        weighted_truncation(least, -np.eye(6), 2)
    with pytest.raises(ValueError, match="width"):
        low_rank_autoencoder(np.outer([1.0, 2.0], [1.0, 1.0, 0.0]), 2, penalty=0.1)


def test_nuclear_descent_is_scalar_soft_thresholding_with_jumps():
    # On diagonal data every singular value follows its own scalar recursion, sign included.
    sigma, penalty, step = np.array([2.0, 0.3, 0.1]), 0.5, 0.05
    run = nuclear_descent(
        np.eye(3), np.diag(sigma), np.eye(3), penalty=penalty, step_size=step, steps=400
    )
    v = np.ones(3)
    for record in run.singular_values:
        np.testing.assert_allclose(record, np.sort(np.abs(v))[::-1], atol=1e-12)
        v = v - step * (v - sigma + penalty * np.sign(v))
    dead = run.singular_values[200:, 1:]
    assert dead.max() <= step * (penalty + 0.3)
    assert dead.max() > 0.9 * step * (penalty + 0.3)
    assert dead.min() > 1e-6


def test_nuclear_descent_nears_the_minimum_of_the_convex_program():
    A, Y, least, _ = regression(12)
    run = nuclear_descent(
        A, Y, least, penalty=3.0, step_size=0.3 / np.linalg.norm(A, 2) ** 2, steps=3000
    )
    W = cp.Variable(least.shape)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ W - Y) / 2 + 3 * cp.normNuc(W)))
    problem.solve(solver="CLARABEL")
    found = np.sum((A @ run.weights - Y) ** 2) / 2 + 3 * run.singular_values[-1].sum()
    assert problem.value * (1 - 1e-6) <= found <= problem.value * 1.01


def test_callbacks_are_told_objectives_and_stop():
    rng = np.random.default_rng(0)
    A, Y, W = rng.standard_normal((6, 3)), rng.standard_normal((6, 2)), rng.standard_normal((3, 2))
    told = []

    def watch(progress):
        told.append(progress)
        return progress.iteration == 3

    step = 0.5 / np.linalg.norm(A, 2) ** 2
    run = nuclear_descent(A, Y, W, penalty=0.3, step_size=step, steps=9, callback=watch)
    assert len(run.singular_values) == 4
    objective = np.sum((A @ run.weights - Y) ** 2) / 2 + 0.3 * run.singular_values[-1].sum()
    assert told[-1].objective == pytest.approx(objective)
    told.clear()
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        pruned = trained_rank_pruning(A, Y, rank=1, step_size=step, period=2, callback=watch)
    assert pruned.status is PruningStatus.STOPPED
    assert [p.objective for p in told] == pytest.approx(pruned.losses)
    assert len(pruned.losses) == 3
    assert told[-1].error == pruned.change


def test_steps_up_to_the_largest_are_taken_and_no_others():
    A, Y, least, _ = regression(11)
    most = 1 / np.linalg.norm(A, 2) ** 2
    for period in (1, 3):
        left = np.linalg.matrix_power(np.eye(6) - most * A.T @ A, period)
        found = pruning_metric(A, step_size=most, period=period)
        np.testing.assert_allclose(found, np.eye(6) - left, atol=1e-13)
    beyond = {"step_size": 1.001 * most}
    for refused in (
        lambda: pruning_metric(A, period=1, **beyond),
        lambda: trained_rank_pruning(A, Y, rank=2, period=1, **beyond),
        lambda: nuclear_descent(A, Y, least, penalty=0.1, steps=1, **beyond),
    ):
        with pytest.raises(ValueError, match="step_size"):
            refused()


@pytest.mark.filterwarnings("ignore:relative change")
@pytest.mark.parametrize("unit", [1.0, 1e-6])
def test_a_run_ends_with_the_first_relative_change_below_tol(unit):
    A, Y, _, _ = regression(12)
    call = {"rank": 2, "step_size": 0.5 / np.linalg.norm(A, 2) ** 2, "period": 2}
    run = trained_rank_pruning(A, unit * Y, tol=1e-3, **call)
    assert run.status is PruningStatus.CONVERGED
    size = run.losses.size
    changes, before = [], np.zeros((6, 5))
    for rounds in range(1, size + 1):
        W = trained_rank_pruning(A, unit * Y, rounds=rounds, tol=1e-15, **call).weights
        changes.append(np.linalg.norm(W - before) / np.linalg.norm(W))
        before = W
    assert changes[-1] < 1e-3 < min(changes[:-1])
    assert run.change == pytest.approx(changes[-1], rel=1e-9)
