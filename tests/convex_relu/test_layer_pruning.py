"""The pruning program against cvxpy, recovery against exhaustive supports, the statistical
dimension against quadrature."""

import math
from dataclasses import replace
from itertools import combinations

import cvxpy as cp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from theorylab.convex_relu import (
    PrunedLayer,
    PruningStatus,
    basis_pursuit,
    error_propagation_bound,
    layer_outputs,
    layer_pruning,
    mixed_recovery_probability,
    normalize_layers,
    prune_layer,
    prune_network,
    recover_neuron,
    recover_neurons,
    recovery_probabilities,
    samples_for_recovery,
    statistical_dimension,
)
from theorylab.convex_relu.layer_pruning import _dual_value


def reference(X, W, eps):
    """The Net-Trim program written for cvxpy."""
    Y = np.maximum(X @ W, 0)
    on = Y > 0
    U = cp.Variable(W.shape)
    close = cp.norm(cp.multiply(on, X @ U - Y), "fro") <= eps
    problem = cp.Problem(cp.Minimize(cp.sum(cp.abs(U))), [close, cp.multiply(~on, X @ U) <= 0])
    return problem.solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("relative", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("shape", [(30, 6, 4), (15, 20, 3), (40, 8, 1)])
def test_pruned_layer_agrees_with_cvxpy(shape, relative):
    P, N, M = shape
    rng = np.random.default_rng(N)
    X, W = rng.normal(size=(P, N)), rng.normal(size=(N, M))
    Y = np.maximum(X @ W, 0)
    eps = relative * np.linalg.norm(Y)
    layer = prune_layer(X, W, eps, tol=1e-6)
    value = reference(X, W, eps)
    assert layer.status is PruningStatus.SOLVED
    assert layer.objective == pytest.approx(value, rel=3e-6)
    assert layer.dual_objective <= value * (1 + 1e-7)
    assert abs(layer.gap) <= 1e-6
    assert layer.output_error == pytest.approx(np.linalg.norm(np.maximum(X @ layer.weights, 0) - Y))
    assert layer.output_error <= eps + 1e-6 * np.linalg.norm(Y)
    assert layer.objective <= np.abs(W).sum()


def test_pruning_a_neuron_in_other_units_or_order_changes_nothing():
    rng = np.random.default_rng(5)
    X, W = rng.normal(size=(30, 6)), rng.normal(size=(6, 3))
    base = prune_layer(X, W, 1.0, tol=1e-8)
    scaled = prune_layer(100 * X, W, 100.0, tol=1e-8)
    order = rng.permutation(30)
    shuffled = prune_layer(X[order], W[:, ::-1], 1.0, tol=1e-8)
    np.testing.assert_allclose(scaled.weights, base.weights, atol=1e-5)
    np.testing.assert_allclose(shuffled.weights[:, ::-1], base.weights, atol=1e-5)


def test_an_allowed_error_above_the_outputs_empties_the_layer():
    X, W = np.eye(3), np.array([[1.0], [-1.0], [0.5]])
    empty = prune_layer(X, W, 2.0)
    assert empty.density == empty.objective == empty.gap == 0
    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        early = prune_layer(np.random.default_rng(0).normal(size=(20, 3)), W, 0.1, max_iter=1)
    assert early.status is PruningStatus.MAX_ITER


def test_the_default_budget_is_what_takes_a_minute_in_all_layers(minute):
    costs = minute(layer_pruning, 30, 20_000)
    rng = np.random.default_rng(4)
    X, weights = rng.normal(size=(40, 10)), [rng.normal(size=s) for s in ((10, 20), (20, 10))]
    hidden = layer_outputs(X, weights)[0]
    for inputs, W in ((X, weights[0]), (hidden, weights[1])):
        with pytest.warns(RuntimeWarning, match="raise max_iter"):
            layer = prune_layer(inputs, W, 0.01)
        assert (layer.n_iter, layer.status) == (30, PruningStatus.MAX_ITER)
    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        network = prune_network(X, weights, [0.01, 0.01])
    assert [layer.n_iter for layer in network.layers] == [30, 30]
    # The layers of a network share the minute.
    assert costs[2] == pytest.approx(costs[0] + costs[1])
    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        prune_layer(np.tile(X, (20, 20)), np.tile(weights[0], (20, 20)), 0.01)
    assert 100 < costs[3] / costs[0] < 1000


def test_the_density_and_the_threshold_below_which_nothing_is_left():
    X, W = np.diag([1.0, -1.0, 1.0]), np.diag([3.0, -4.0, 0.0])
    # The outputs have the norm 5.
    assert prune_layer(X, W, 1e-3).density == pytest.approx(2 / 9)
    empty, left = prune_layer(X, W, 5.0001), prune_layer(X, W, 4.9999)
    assert (empty.n_iter, empty.density) == (0, 0.0)
    assert left.n_iter > 0
    assert left.output_error == pytest.approx(4.9999, rel=1e-4)


def test_the_gap_allows_for_what_the_constraints_are_violated_by():
    layer = PrunedLayer(np.ones((1, 1)), 0.995, 1.0, 0.0, 1e-3, 1, PruningStatus.SOLVED)
    assert layer.gap == 0.0
    with pytest.raises(ArithmeticError, match="exceeds the upper bound"):
        _ = replace(layer, violation=1e-4).gap


def test_every_multiplier_gives_a_bound():
    rng = np.random.default_rng(6)
    X, W = rng.normal(size=(12, 6)), rng.normal(size=(6, 2))
    Y, value = np.maximum(X @ W, 0), reference(X, W, 0.5)
    on = Y > 0
    # The multipliers of the program with outputs of zero, which costs more, where Y is zero.
    U = cp.Variable(W.shape)
    residual = cp.Variable(Y.shape)
    fits = [cp.multiply(1.0, X @ U - Y) == residual]
    outputs = [cp.multiply(~on, residual) == 0, cp.norm(residual, "fro") <= 0.5]
    dearer = cp.Problem(cp.Minimize(cp.sum(cp.abs(U))), fits + outputs)
    assert dearer.solve(solver=cp.CLARABEL) > 1.01 * value
    for multiplier in (fits[0].dual_value, -fits[0].dual_value):
        assert _dual_value(multiplier, X, Y, on, 0.5) <= value * (1 + 1e-7)
    for _ in range(50):
        assert _dual_value(rng.normal(size=Y.shape), X, Y, on, 0.5) <= value * (1 + 1e-7)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_recovery_does_not_depend_on_units(scale):
    rng = np.random.default_rng(9)
    A, b = rng.normal(size=(4, 8)), rng.normal(size=4)
    u = basis_pursuit(A, b)
    np.testing.assert_allclose(basis_pursuit(A, scale * b), scale * u, atol=1e-9 * scale)
    np.testing.assert_allclose(basis_pursuit(scale * A, b), u / scale, atol=1e-9 / scale)


def test_recovered_neuron_is_the_sparsest_explanation_when_it_is_unique():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(16, 6))
    w = np.zeros(6)
    w[[1, 4]] = 1.0, -0.7
    y = np.maximum(X @ w, 0)
    recovered = recover_neuron(X, w)
    np.testing.assert_allclose(recovered, w, atol=1e-9)
    for support in combinations(range(6), 2):
        fitted = np.zeros(6)
        fitted[list(support)] = np.linalg.lstsq(X[y > 0][:, support], y[y > 0], rcond=None)[0]
        if np.allclose(np.maximum(X @ fitted, 0), y):
            np.testing.assert_allclose(fitted, recovered, atol=1e-9)


def test_many_neurons_at_once_are_recovered_as_one_by_one():
    rng = np.random.default_rng(4)
    X, W = rng.normal(size=(30, 8, 5)), rng.normal(size=(30, 5)) * (rng.random((30, 5)) < 0.4)
    W[0] = 0.0
    X[1] = np.abs(X[1]) * np.where(W[1] < 0, -1.0, 1.0)
    each = [recover_neuron(samples, w) for samples, w in zip(X, W, strict=True)]
    np.testing.assert_allclose(recover_neurons(X, W), each, atol=1e-9)


def test_recovery_needs_the_active_samples_only():
    outcomes = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(20, 15))
        w = np.zeros(15)
        w[:3] = rng.normal(size=3)
        on = X @ w > 0
        by_neuron = np.allclose(recover_neuron(X, w), w, atol=1e-7)
        by_equations = np.allclose(basis_pursuit(X[on], X[on] @ w), w, atol=1e-7)
        assert by_neuron == by_equations
        outcomes.append(by_neuron)
    assert 0 < sum(outcomes) < 40


def test_linear_programs_are_feasible_and_no_longer_than_the_truth():
    rng = np.random.default_rng(8)
    X, w = rng.normal(size=(10, 8)), rng.normal(size=8)
    u = recover_neuron(X, w)
    np.testing.assert_allclose(np.maximum(X @ u, 0), np.maximum(X @ w, 0), atol=1e-8)
    assert np.abs(u).sum() <= np.abs(w).sum() + 1e-9
    least = cp.Variable(8)
    value = cp.Problem(cp.Minimize(cp.norm1(least)), [X[:4] @ least == X[:4] @ w]).solve(
        solver=cp.CLARABEL
    )
    assert np.abs(basis_pursuit(X[:4], X[:4] @ w)).sum() == pytest.approx(value, rel=1e-6)
    assert not recover_neuron(np.ones((2, 1)), [-1.0]).any()
    with pytest.raises(ValueError, match="b: expected a vector in the range of A"):
        basis_pursuit([[1.0], [1.0]], [1.0, 2.0])


@pytest.mark.parametrize(("n_inputs", "sparsity"), [(40, 4), (10, 9), (200, 1)])
def test_statistical_dimension_minimizes_the_expected_squared_distance(n_inputs, sparsity):
    def distance(t):
        tail = 2 * quad(lambda g: (g - t) ** 2 * norm.pdf(g), t, np.inf)[0]
        return sparsity * (1 + t**2) + (n_inputs - sparsity) * tail

    best = minimize_scalar(distance, bounds=(0, 10), method="bounded", options={"xatol": 1e-8})
    assert statistical_dimension(n_inputs, sparsity) == pytest.approx(best.fun, rel=1e-7)


def test_statistical_dimension_limits():
    assert statistical_dimension(7, 7) == 7
    dimensions = [statistical_dimension(60, s) for s in range(1, 61)]
    assert np.all(np.diff(dimensions) > 0)
    assert dimensions[-1] == 60
    for s in (1, 5, 20):
        assert statistical_dimension(60, s) <= 2 * s * np.log(60 / s) + 1.25 * s


def test_mixture_of_recovery_probabilities():
    assert mixed_recovery_probability(np.ones(9)) == pytest.approx(1)
    assert mixed_recovery_probability([0.0, 0.5, 1.0]) == pytest.approx(0.5)
    curve = np.random.default_rng(1).random(8)
    terms = [math.comb(7, m) * 0.3**m * 0.7 ** (7 - m) * curve[m] for m in range(8)]
    assert mixed_recovery_probability(curve, active=0.3) == pytest.approx(sum(terms), rel=1e-12)
    step = np.arange(11) >= 5
    flips = np.random.default_rng(0).integers(0, 2, size=(200000, 10)).sum(axis=1)
    assert mixed_recovery_probability(step.astype(float)) == pytest.approx(
        np.mean(flips >= 5), abs=5e-3
    )


def test_errors_propagate_within_the_bound():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(40, 6))
        weights = [rng.normal(size=shape) for shape in ((6, 8), (8, 5), (5, 4))]
        trained = layer_outputs(X, weights)
        eps = [0.2 * np.linalg.norm(Y) for Y in trained]
        network = prune_network(X, weights, eps, tol=1e-5)
        assert np.all(network.errors <= network.bounds * (1 + 1e-12))
        assert network.errors[0] == pytest.approx(network.layers[0].output_error)
        small = normalize_layers(weights)
        sizes = [np.abs(W).sum() for W in small]
        np.testing.assert_allclose(sizes, 1)
        outputs = layer_outputs(X, small)
        scales = np.cumprod([np.abs(W).sum() for W in weights])
        for scaled, full, factor in zip(outputs, trained, scales, strict=True):
            np.testing.assert_allclose(scaled * factor, full, rtol=1e-9, atol=1e-12)
        pruned = prune_network(X, small, [0.2 * np.linalg.norm(Y) for Y in outputs])
        assert pruned.bounds[-1] <= sum(layer.output_error for layer in pruned.layers) * (1 + 1e-12)


def test_the_bound_is_attained_by_identity_layers():
    np.testing.assert_allclose(error_propagation_bound([np.eye(2)] * 3, [1.0, 2.0, 3.0]), [1, 3, 6])
    np.testing.assert_allclose(
        error_propagation_bound([np.eye(2), 2 * np.eye(2)], [1.0, 0.0]), [1, 2]
    )


def test_errors_grow_by_the_spectral_norm_of_the_layers_after():
    layers = [7 * np.eye(2), [[3.0, 0.0], [4.0, 0.0]], [[2.0], [0.0]]]
    bounds = error_propagation_bound(layers, [0.5, 0.1, 0.3])
    np.testing.assert_allclose(bounds, [0.5, 2.6, 5.5], rtol=1e-15)


def test_the_violation_is_the_distance_from_the_constraints():
    rng = np.random.default_rng(2)
    X, W = 3.0 * rng.normal(size=(30, 6)), rng.normal(size=(6, 4))
    Y = np.maximum(X @ W, 0)
    start = rng.normal(size=W.shape)
    for steps in (1, 5, 20):
        with pytest.warns(RuntimeWarning, match="raise max_iter"):
            layer = prune_layer(X, W, 0.1, max_iter=steps, start=start)
        off = X @ layer.weights - Y
        beyond = max(np.linalg.norm(off[Y > 0]) - 0.1, 0.0)
        distance = np.hypot(beyond, np.linalg.norm(np.maximum(off[Y == 0], 0)))
        assert layer.violation > 1e-3
        assert layer.violation == pytest.approx(distance / np.linalg.norm(Y), rel=1e-12)
        assert layer.objective == pytest.approx(np.abs(layer.weights).sum(), rel=1e-14)
        assert layer.n_iter == steps


def test_layers_are_pruned_on_what_the_trained_network_computes():
    rng = np.random.default_rng(4)
    X, weights = rng.normal(size=(20, 5)), [rng.normal(size=s) for s in ((5, 4), (4, 3), (3, 2))]
    inputs = [X, *layer_outputs(X, weights)]
    eps = [0.2, 0.4, 0.3]
    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        network = prune_network(X, weights, eps, max_iter=30)
    for found, hidden, W, e, output in zip(
        network.layers, inputs[:-1], weights, eps, inputs[1:], strict=True
    ):
        with pytest.warns(RuntimeWarning, match="raise max_iter"):
            alone = prune_layer(hidden, W, e, max_iter=30)
        np.testing.assert_array_equal(found.weights, alone.weights)
        error = np.linalg.norm(np.maximum(hidden @ alone.weights, 0) - output)
        assert found.output_error == pytest.approx(error, rel=1e-13)
        assert found.status is PruningStatus.MAX_ITER


def test_every_start_ends_at_the_same_value():
    rng = np.random.default_rng(7)
    X, W = rng.normal(size=(20, 6)), rng.normal(size=(6, 3))
    value = reference(X, W, 0.5)
    for size in (0.0, 1.0, 100.0):
        layer = prune_layer(X, W, 0.5, tol=1e-7, start=size * rng.normal(size=W.shape))
        assert layer.status is PruningStatus.SOLVED
        assert layer.objective == pytest.approx(value, rel=1e-6)
    started = [prune_layer(X, W, 0.5, tol=1e-7, start=s).n_iter for s in (W, 100 * W)]
    assert started[0] < started[1]


def test_recovery_probabilities_have_their_closed_forms():
    two = 1 - 4 / np.pi * np.arctan(1 / (3 + 2 * np.sqrt(2)))
    np.testing.assert_allclose(recovery_probabilities(3, 1), [0, 1 / 3, two, 1], atol=1e-12)
    np.testing.assert_allclose(recovery_probabilities(2, 1), [0, 1 / 2, 1], atol=1e-12)
    np.testing.assert_allclose(recovery_probabilities(9, 1)[1], 1 / 9, atol=1e-12)
    # All weights different from zero: only a full set of equations recovers them.
    np.testing.assert_allclose(recovery_probabilities(5, 5), [0, 0, 0, 0, 0, 1], atol=1e-12)


@pytest.mark.parametrize(("n_inputs", "sparsity"), [(30, 3), (60, 1), (100, 60)])
def test_recovery_probabilities_sum_to_the_statistical_dimension(n_inputs, sparsity):
    # 1 - p are twice the half-tails of the conic volumes, whose mean is the expected squared
    # distance to the polar cone, here by simulation.
    p = recovery_probabilities(n_inputs, sparsity)
    assert np.all(np.diff(p) > -1e-9)
    mean = np.sum(1 - p) - 0.5
    rng = np.random.default_rng(0)
    g = rng.normal(size=(4000, n_inputs))
    on, off = g[:, :sparsity], np.abs(g[:, sparsity:])
    low, high = np.zeros(4000), np.full(4000, 20.0)
    for _ in range(60):
        t = (low + high) / 2
        slope = sparsity * t - on.sum(axis=1) - np.maximum(off - t[:, None], 0).sum(axis=1)
        low, high = np.where(slope < 0, t, low), np.where(slope < 0, high, t)
    square = ((on - low[:, None]) ** 2).sum(axis=1)
    square += (np.maximum(off - low[:, None], 0) ** 2).sum(axis=1)
    assert abs(square.mean() - mean) < 5 * square.std() / np.sqrt(4000)


def test_recovery_probabilities_are_those_of_basis_pursuit():
    rng = np.random.default_rng(3)
    w = np.array([1.0, 0.4, 0.0, 0.0, 0.0, 0.0])
    found = []
    for A in rng.normal(size=(600, 4, 6)):
        found.append(np.allclose(basis_pursuit(A, A @ w), w, atol=1e-7))
    p = recovery_probabilities(6, 2)[4]
    assert abs(np.mean(found) - p) < 4 * np.sqrt(p * (1 - p) / 600)


def test_samples_for_recovery_are_the_least():
    # All weights of N differ from zero: N of P fair coins must fall well.
    assert [samples_for_recovery(n, n) for n in (1, 4, 10)] == [1, 7, 19]
    for level, active in ((0.5, 0.5), (0.9, 0.3)):
        least = samples_for_recovery(8, 2, level=level, active=active)
        curve = np.append(recovery_probabilities(8, 2), np.ones(least))
        at = [mixed_recovery_probability(curve[: P + 1], active=active) for P in (least - 1, least)]
        assert at[0] < level <= at[1]


def test_a_multiplier_of_the_wrong_sign_proves_nothing():
    # Least |u| with |u - 1| <= eps and -u <= 0 is 1 - eps.
    X, Y, on = np.array([[1.0], [-1.0]]), np.array([[1.0], [0.0]]), np.array([[True], [False]])
    for wrong in (0.0, 1.0, 1.5):
        multiplier = np.array([[2.0], [wrong]])
        assert _dual_value(multiplier, X, Y, on, 0.25) == pytest.approx(0.75, rel=1e-15)
    assert _dual_value(np.array([[2.0], [-1.0]]), X, Y, on, 0.25) == pytest.approx(0.5, rel=1e-15)


def test_pruning_that_is_stopped_says_so_and_leaves_the_other_layers_as_they_are():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(20, 5))
    weights = [rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=(3, 2))]
    trained = layer_outputs(X, weights)
    eps = [0.2 * float(np.linalg.norm(Y)) for Y in trained]
    seen = []
    first = prune_layer(X, weights[0], eps[0], callback=seen.append)
    assert seen[-1].iteration == first.n_iter
    assert seen[-1].objective == first.objective
    assert seen[-1].error == pytest.approx(max(first.violation, first.gap), rel=1e-6)
    records = []
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        network = prune_network(
            X, weights, eps, callback=lambda r: records.append(r) or len(records) > len(seen)
        )
    assert len(records) == len(seen) + 1
    assert [layer.status.name for layer in network.layers] == ["SOLVED", "STOPPED", "STOPPED"]
    np.testing.assert_array_equal(network.weights[0], first.weights)
    middle, last = network.layers[1:]
    assert middle.n_iter == 25
    assert middle.objective == np.abs(middle.weights).sum()
    np.testing.assert_array_equal(last.weights, weights[2])
    assert last.objective == pytest.approx(np.abs(weights[2]).sum(), rel=1e-15)
    assert (last.dual_objective, last.output_error, last.gap) == (0, 0, 1)
    assert np.all(network.errors <= network.bounds * (1 + 1e-12))
