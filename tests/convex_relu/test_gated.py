"""Gated training against cvxpy, ridge-like closed forms, and ReLU training."""

import cvxpy as cp
import numpy as np
import pytest

from theorylab.convex_relu import (
    GatedStatus,
    enumerate_arrangements,
    gated,
    sample_arrangements,
    train,
    train_gated,
)


def data(seed, n=30, d=4):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ rng.standard_normal(
        3
    ) + 0.1 * rng.standard_normal(n)
    return X, y, sample_arrangements(X, 25, rng=rng)


def threshold(X, v, gates):
    return np.linalg.norm(gates @ (v[:, None] * X), axis=1).max()


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("factor", [2.0, 20.0])
def test_against_a_conic_solver(loss, factor):
    X, y, gates = data(int(factor))
    if loss == "logistic":
        y = np.sign(y)
    beta = threshold(X, y if loss == "squared" else y / 2, gates) / factor
    result = train_gated(X, y, beta, gates, loss=loss)
    W = cp.Variable((len(gates), X.shape[1]))
    f = cp.sum(cp.multiply(gates.T.astype(float), X @ W.T), axis=1)
    value = (
        0.5 * cp.sum_squares(f - y)
        if loss == "squared"
        else cp.sum(cp.logistic(-cp.multiply(y, f)))
    )
    problem = cp.Problem(cp.Minimize(value + beta * cp.sum(cp.norm(W, axis=1))))
    problem.solve(solver=cp.CLARABEL)
    assert result.gap <= 1e-8
    # Clarabel's default tolerances are 1e-8.
    assert result.objective == pytest.approx(problem.value, rel=1e-7)
    # The bound is valid: the dual point satisfies the constraint, computed here in another order.
    assert threshold(X, result.dual, gates) <= beta * (1 + 1e-12)
    assert result.dual_norm <= beta
    assert result.dual_objective <= result.objective


def test_optimality_conditions():
    X, y, gates = data(5)
    beta = threshold(X, y, gates) / 10
    result = train_gated(X, y, beta, gates, tol=1e-12)
    residual = y - result.predict(X, gates)
    slopes = gates @ (residual[:, None] * X)
    lengths = np.linalg.norm(result.weights, axis=1, keepdims=True)
    active = lengths[:, 0] > 0
    # A gap of 1e-12 leaves errors of its square root in the slopes.
    assert np.allclose(
        slopes[active], beta * result.weights[active] / lengths[active], atol=1e-5 * beta
    )
    assert np.all(np.linalg.norm(slopes[~active], axis=1) <= beta * (1 + 1e-5))


def test_zero_above_the_threshold():
    X, y, gates = data(1)
    result = train_gated(X, y, threshold(X, y, gates) * (1 + 1e-9), gates)
    assert not result.weights.any()
    assert result.objective == pytest.approx(0.5 * y @ y, rel=1e-12)


@pytest.mark.parametrize(("size", "scale"), [(1.0, 1.0), (300.0, 7e-5), (2e-6, 5e3)])
def test_a_result_in_any_units_is_consistent(size, scale):
    X, y, gates = data(4)
    X, y = size * X, scale * y
    beta = threshold(X, y, gates) / 5
    result = train_gated(X, y, beta, gates)
    f = np.einsum("nk,kn->n", X @ result.weights.T, gates * 1.0)
    lengths = np.linalg.norm(result.weights, axis=1)
    value = 0.5 * np.sum((f - y) ** 2) + beta * lengths.sum()
    assert result.objective == pytest.approx(value, rel=1e-12)
    bound = result.dual @ y - 0.5 * result.dual @ result.dual
    assert result.dual_objective == pytest.approx(bound, rel=1e-12)
    assert result.gap == pytest.approx((value - bound) / value, abs=1e-12)
    assert result.gap <= 1e-8
    norm = threshold(X, result.dual, gates)
    assert norm * (1 - 1e-12) <= result.dual_norm <= beta
    assert result.dual_norm <= norm * (1 + 1e-9)


def test_the_dual_norm_counts_its_rounding():
    X, y, gates = data(6)
    result = train_gated(X, y, 2 * threshold(X, y, gates), gates)
    margin = result.dual_norm - threshold(X, result.dual, gates)
    size = np.finfo(float).eps * (np.abs(y) @ np.linalg.norm(X, axis=1))
    assert np.array_equal(result.dual, y)
    assert size <= margin <= 1e3 * size


def test_a_gap_is_relative_to_a_small_objective():
    X, _, gates = data(0, 12, 3)
    W = np.random.default_rng(1).normal(size=(2, 3))
    y = np.einsum("nk,kn->n", X @ W.T, gates[:2] * 1.0)
    result = train_gated(X, y, 1e-8 * threshold(X, y, gates), gates)
    assert result.objective <= 1e-7 * (0.5 * y @ y)
    difference = result.objective - result.dual_objective
    assert result.gap == pytest.approx(difference / result.objective, rel=1e-6)


def test_the_first_block_enters_just_below_the_threshold():
    X, y, gates = data(7)
    result = train_gated(X, y, threshold(X, y, gates) / 1.001, gates)
    assert result.gap <= 1e-8
    assert np.count_nonzero(result.weights.any(axis=1)) == 1


def test_relaxes_relu_training():
    X, y, _ = data(2, n=8, d=2)
    gates = enumerate_arrangements(X)
    exact, gated = train(X, y, 0.3), train_gated(X, y, 0.3, gates)
    assert gated.objective < exact.dual_objective


def test_stopping_early_warns():
    X, y, gates = data(3)
    with pytest.warns(RuntimeWarning, match="max_rounds"):
        result = train_gated(X, y, threshold(X, y, gates) / 50, gates, max_rounds=1)
    assert result.status is GatedStatus.ROUNDS


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_training_without_work_left_says_so_and_bounds_the_optimum(loss, monkeypatch):
    X, y, gates = data(3, n=30, d=4)
    y = np.sign(y) if loss == "logistic" else y
    beta = threshold(X, y / 2 if loss == "logistic" else y, gates) / 100
    full, gaps = train_gated(X, y, beta, gates, loss=loss), []
    for work in (1.0, 1e6, 1e7):
        monkeypatch.setattr(gated, "WORK", work)
        with pytest.warns(RuntimeWarning, match="about a minute"):
            short = train_gated(X, y, beta, gates, loss=loss)
        assert short.status is GatedStatus.WORK
        assert short.dual_objective <= full.objective * (1 + 1e-12)
        assert short.objective >= full.dual_objective * (1 - 1e-12)
        gaps.append(short.gap)
    assert gaps[0] > gaps[-1] > 1e-8


def test_several_outputs_and_hinge_are_refused():
    X, y, gates = data(0)
    with pytest.raises(ValueError, match="loss: expected a smooth loss"):
        train_gated(X, np.sign(y), 1.0, gates, loss="hinge")
    with pytest.raises(ValueError, match="y: expected shape"):
        train_gated(X, np.column_stack([y, y]), 1.0, gates)
