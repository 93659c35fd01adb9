"""Residual flows: finite differences, matrix exponentials, and bounds that random flows keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.implicit_regularization import (
    depth_increments,
    flow_majorant,
    residual_gradient_flow,
    residual_outputs,
    tied_convergence,
    tied_network,
)


def network(rng, L, q, m, d, out, scale=0.4):
    s = (np.arange(L) + 1)[:, None, None] / L
    V = scale * (rng.standard_normal((q, m)) + 0.5 * s * rng.standard_normal((q, m)))
    W = rng.standard_normal((m, q)) + 0.5 * s * rng.standard_normal((m, q))
    return V, W, rng.standard_normal((q, d)), rng.standard_normal((out, q))


def loss(net, X, Y):
    return np.sum((residual_outputs(*net, X) - Y) ** 2) / len(X)


def test_outputs_against_a_loop_over_single_inputs():
    rng = np.random.default_rng(0)
    V, W, A, B = network(rng, 5, 3, 4, 2, 2)
    for x in rng.standard_normal((3, 2)):
        h = A @ x
        for k in range(5):
            h = h + V[k] @ np.tanh(W[k] @ h / np.sqrt(3)) / (5 * np.sqrt(4))
        assert_allclose(residual_outputs(V, W, A, B, x[None])[0], B @ h)


def test_velocity_against_finite_differences():
    rng = np.random.default_rng(1)
    net = network(rng, 3, 3, 4, 2, 2)
    X, Y = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    t = 1e-6
    end = residual_gradient_flow(*net, X, Y, [t], tol=1e-13)
    for i, (start, moved) in enumerate(zip(net, (end.V, end.W, end.A, end.B), strict=True)):
        speed = (moved[0] - start) / t
        for _ in range(6):
            at = tuple(rng.integers(size) for size in start.shape)
            sides = []
            for h in (1e-5, -1e-5):
                other = [w.copy() for w in net]
                other[i][at] += h
                sides.append(loss(other, X, Y))
            slope = (sides[0] - sides[1]) / 2e-5
            assert_allclose(speed[at], -(3 if i < 2 else 1) * slope, rtol=1e-3, atol=1e-5)


def test_losses_fall_by_the_squared_gradient():
    rng = np.random.default_rng(2)
    net = network(rng, 4, 2, 3, 2, 1)
    X, Y = rng.standard_normal((3, 2)), rng.standard_normal((3, 1))
    flow = residual_gradient_flow(*net, X, Y, [0.0, 1e-5, 2e-5, 1.0], tol=1e-12)
    squares = sum(
        np.sum(((w[1] - w[0]) / 1e-5) ** 2) / speed
        for w, speed in ((flow.V, 4), (flow.W, 4), (flow.A, 1), (flow.B, 1))
    )
    assert_allclose((flow.losses[0] - flow.losses[1]) / 1e-5, squares, rtol=1e-3)
    assert flow.losses[3] < flow.losses[0]
    assert_allclose(flow.losses[3], loss((flow.V[3], flow.W[3], flow.A[3], flow.B[3]), X, Y))


def test_frozen_layers_do_not_move():
    net = tied_network(3, depth=3, hidden=2, inputs=1, outputs=1, seed=0)
    flow = residual_gradient_flow(*net, [[1.0]], [[0.5]], [0.0, 1.0], speed=0.0)
    assert (flow.V[1] == net[0]).all()
    assert (flow.W[1] == net[1]).all()
    assert flow.losses[1] < flow.losses[0]


def test_small_targets_follow_the_tangent_kernel():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((3, 2))
    net = tied_network(6, depth=4, hidden=3, inputs=2, outputs=1, seed=1)
    Y = 1e-6 * rng.standard_normal((3, 1))
    t = 0.7
    flow = residual_gradient_flow(*net, X, Y, [0.0, t], tol=1e-11)
    features = np.tanh(X @ net[1][0][:, :2].T / np.sqrt(3)) / np.sqrt(6)
    values, vectors = np.linalg.eigh(features @ features.T + 2 * X @ X.T)
    left = vectors @ (np.exp(-2 / 3 * values * t)[:, None] * (vectors.T @ Y))
    assert_allclose(Y - flow.outputs[1], left, rtol=1e-4, atol=1e-10)
    bound = flow_majorant(*net, X, Y, [0.0, t])
    assert_allclose(bound.losses[1], np.mean(Y**2) * np.exp(-4 / 3 * values[0] * t), rtol=1e-3)


def test_depth_does_not_change_a_tied_linear_regime():
    X, Y = [[1.0], [0.3]], [[0.2], [-0.1]]
    ends = []
    for depth in (4, 64):
        net = tied_network(5, depth=depth, hidden=2, inputs=1, outputs=1, seed=2)
        ends.append(residual_gradient_flow(*net, X, Y, [2.0]).outputs[0])
    assert_allclose(ends[0], ends[1], atol=2e-3)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 12))
def test_majorant_bounds_random_flows(seed, n, L):
    rng = np.random.default_rng(seed)
    V, W, A, B = network(rng, L, 3, 4, 2, 1, scale=0.2)
    net = (V, W, A / np.linalg.norm(A, 2), B / np.linalg.norm(B, 2))
    X = rng.standard_normal((n, 2))
    X /= np.linalg.norm(X, axis=1)[:, None]
    Y = 0.3 * rng.standard_normal((n, 1))
    times = [0.0, 0.02, 0.05]
    flow, bound = residual_gradient_flow(*net, X, Y, times), flow_majorant(*net, X, Y, times)
    for j in range(3):
        assert (depth_increments(flow.V[j], flow.W[j]) <= bound.increments[j] + 1e-9).all()
        moved = [np.linalg.norm(z[j] - z[0], axis=(1, 2)).max() for z in (flow.V, flow.W)]
        assert (moved <= bound.distances[j] + 1e-9).all()
        assert flow.losses[j] <= bound.losses[j] + 1e-12
    # It says something: not met by layers drawn anew.
    other = depth_increments(rng.standard_normal(V.shape), rng.standard_normal(W.shape))
    assert (other > bound.increments[-1]).any()


def test_majorant_is_nearly_attained_by_one_neuron():
    V, W = np.full((8, 1, 1), 1e-3), np.full((8, 1, 1), 0.1)
    problem = (V, W, [[1.0]], [[1.0]], [[1.0]], [[2.0]], [0.0, 1e-3])
    flow, bound = residual_gradient_flow(*problem), flow_majorant(*problem)
    moved = [abs(z[1] - z[0]).max() for z in (flow.V, flow.W)]
    assert_allclose(moved, bound.distances[1], rtol=2e-2)


def test_majorant_names_what_it_cannot_follow():
    V, W = np.full((3, 1, 1), 1.0), np.full((3, 1, 1), 3.0)
    with pytest.raises(ValueError, match="times: expected a last time"):
        flow_majorant(V, W, [[1.0]], [[1.0]], [[1.0]], [[50.0]], [0.0, 10.0])


def test_increments():
    V = np.zeros((3, 1, 2))
    V[1, 0] = [3.0, 4.0]
    assert depth_increments(V, np.zeros((3, 2, 1))).tolist() == [15.0, 0.0]
    assert depth_increments(V[:1], np.zeros((1, 2, 1))).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="W: expected shape"):
        depth_increments(V, np.zeros((3, 1, 2)))


def test_bad_times_are_refused():
    net = tied_network(1, depth=1, hidden=1, inputs=1, outputs=1, seed=0)
    with pytest.raises(ValueError, match="times: expected increasing"):
        residual_gradient_flow(*net, [[1.0]], [[1.0]], [1.0, 1.0])
    with pytest.raises(ValueError, match="loss"):
        flow_majorant(*net, [[1.0]], [[2.0]], [0.0, 1.0], loss=0.5)


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 2), st.floats(0.05, 1.0))
def test_bounds_by_hand_against_the_integrated_system(seed, n, out, share):
    d = 3
    q = d + out
    rng = np.random.default_rng(seed)
    net = tied_network(2 * n, depth=2, hidden=q, inputs=d, outputs=out, seed=seed)
    X = rng.standard_normal((n, d))
    X *= np.sqrt(q) / np.linalg.norm(X, axis=1)[:, None]
    Y = rng.standard_normal((n, out))
    Y *= 1e-30
    Y *= (1 - 1e-9) * share / tied_convergence(net[1][0], X, Y).excess
    found = tied_convergence(net[1][0], X, Y)
    times = np.array([0.0, 0.5, 1.0, 4.0]) / found.rate
    if times[-1] > 1000:
        return
    system = flow_majorant(*net, X, Y, times)
    assert (system.losses <= system.losses[0] * np.exp(-found.rate * times) * (1 + 1e-6)).all()
    assert (system.increments[-1] <= found.increments + 1e-12).all()


def test_the_condition_of_one_datum_by_hand():
    W, x, y = np.array([[0.6, -0.3]]), 1.1, 0.004
    found = tied_convergence(W, [[x]], [[y]])
    low = np.tanh(0.6 * x / np.sqrt(2)) ** 2 + 2 * x**2
    omega = np.hypot(0.6, 0.3) / np.sqrt(2)
    kappa = 30 * (1 + omega) * 2 * y / low**1.5
    p = (1 + 0.35 * kappa) * y / low / (1 - kappa / 2) ** 2
    assert_allclose(found.eigenvalue, low)
    assert_allclose(found.excess, kappa)
    assert_allclose(found.rate, 4 * low * (1 - kappa / 2) ** 2)
    assert_allclose(found.increments, [(1.02 * omega + 0.03) * p**2, (1.35 * omega + 0.27) * p**3])
    two = tied_convergence(W, [[x], [-x]], [[y], [y]])
    assert (two.rate, two.excess) == (0.0, np.inf)
    assert tied_convergence(W, [[x]], [[1.0]]).rate == 0
    with pytest.raises(ValueError, match="X: expected rows of norm at most"):
        tied_convergence(W, [[1.5]], [[y]])


def scalar_system(net, X, Y, steps, T):
    """Euler steps of the scalar system as its formulas are printed, for any start but the tied."""
    V, W, A, B = net
    q, m = V.shape[1:]
    v, w, b = (np.linalg.norm(z, 2, axis=(-2, -1)).max() for z in (V, W, B))
    lv, lw = depth_increments(V, W)
    reach = np.linalg.norm(X, axis=1).max()
    h0 = np.linalg.norm(X @ A.T, axis=1).max()
    size, root, a = np.sqrt(loss(net, X, Y)), np.sqrt(m * q), 0.0
    for _ in range(steps):
        c = v * w / root
        H = min((h0 + a * reach) * np.exp(c), h0 + a * reach + v)
        S, P = min(1, w * H / root), 2 * b * size * np.exp(c)
        s2 = 4 / np.sqrt(27)
        dlv = 2 * c * S * P + P * H / root * lw
        dlw = H * lv + s2 * v * H**2 / np.sqrt(q) * lw + s2 * v**2 * w * S * H / np.sqrt(q)
        dlw = P / root * (dlw + v * c * H + v**2 * S)
        rates = np.array([P * S, v * P * H / root, P * reach, 2 * size * H, dlv, dlw])
        v, w, a, b, lv, lw = np.array([v, w, a, b, lv, lw]) + T / steps * rates
    return lv, lw


@pytest.mark.parametrize(("width", "size"), [(1, 1.0), (6, 1.0), (6, 0.1)])
def test_majorant_is_the_printed_system(width, size):
    rng = np.random.default_rng(5)
    net = network(rng, 6, 3, width, 2, 2, scale=0.3)
    X, Y = size * rng.standard_normal((3, 2)), rng.standard_normal((3, 2))
    T = 0.02
    bound = flow_majorant(*net, X, Y, [T])
    start = depth_increments(net[0], net[1])
    lo, hi = (np.array(scalar_system(net, X, Y, k, T)) - start for k in (1000, 2000))
    assert_allclose(bound.increments[0] - start, 2 * hi - lo, rtol=1e-4)


def jacobian(net, X):
    """The outputs by all weights, those of layers times the root of L, by differences."""
    rows, h = [], 1e-5
    for i, weights in enumerate(net):
        for at in np.ndindex(weights.shape):
            sides = []
            for sign in (1, -1):
                other = [w.copy() for w in net]
                other[i][at] += sign * h
                sides.append(residual_outputs(*other, X))
            rows.append((sides[0] - sides[1]).ravel() / (2 * h))
            rows[-1] *= np.sqrt(len(net[0])) if i < 2 else 1
    return np.array(rows).T


def tied_system(net, X, Y, low, steps, T):
    """Euler steps of the scalar system from V = 0 and tied W: share of the loss and drift."""
    V, W, A, B = net
    q, m, n = *V.shape[1:], len(X)
    w0, b0 = np.linalg.norm(W[0], 2), np.linalg.norm(B, 2)
    reach = np.linalg.norm(X, axis=1).max()
    h0 = np.linalg.norm(X @ A.T, axis=1).max()
    size, root = np.sqrt(loss(net, X, Y)), np.sqrt(m * q)
    v = dw = a = db = 0.0
    share, drift = 1.0, 0.0
    for _ in range(steps):
        w, b = w0 + dw, b0 + db
        c = v * w / root
        H = min((h0 + a * reach) * np.exp(c), h0 + a * reach + v)
        S, P = min(1, w * H / root), 2 * b * size * np.sqrt(share) * np.exp(c)
        # What lies above a layer, and what lies below it, since the start.
        above, below = b * np.exp(c) - b0, a * reach + v * S
        parts = [above * S + b0 * (w0 * below + dw * H) / root, b * np.exp(c) * v * H / root]
        drift = np.sqrt(n * sum(part**2 for part in (*parts, above * reach, below)))
        rates = np.array([P * S, v * P * H / root, P * reach, 2 * size * np.sqrt(share) * H])
        v, dw, a, db = np.array([v, dw, a, db]) + T / steps * rates
        share *= 1 - T / steps * 4 / n * max(low - drift, 0) ** 2
    return share, drift


@pytest.mark.parametrize("weight", [0.4, 3.0])
def test_majorant_of_tied_layers_is_that_of_the_drift_of_the_jacobian(weight):
    rng = np.random.default_rng(6)
    L, q, m, T = 3, 3, 5, 0.2
    W = np.tile(weight * rng.standard_normal((m, q)), (L, 1, 1))
    net = (np.zeros((L, q, m)), W, rng.standard_normal((q, 2)), rng.standard_normal((2, q)))
    X = np.array([[1.0, 0.2], [0.1, 0.6]])
    first = jacobian(net, X)
    low = np.linalg.svd(first)[1][-1]
    Y = residual_outputs(*net, X) + 0.05 * low**2 * rng.standard_normal((2, 2))
    bound = flow_majorant(*net, X, Y, [0.0, T])
    lo, hi = (tied_system(net, X, Y, low, k, T)[0] for k in (1000, 2000))
    assert_allclose(bound.losses[1] / bound.losses[0], 2 * hi - lo, rtol=1e-5)
    drift = tied_system(net, X, Y, low, 1000, T)[1]
    flow = residual_gradient_flow(*net, X, Y, [T])
    moved = jacobian((flow.V[0], flow.W[0], flow.A[0], flow.B[0]), X) - first
    assert np.linalg.norm(moved, 2) <= drift


def test_the_condition_of_two_orthogonal_data_by_hand():
    W, y = np.array([[0.5, 0.0, 0.2], [0.0, 0.5, 0.3]]), 1e-4
    found = tied_convergence(W, np.eye(2), [[y], [-y]])
    low = np.tanh(0.5 / np.sqrt(3)) ** 2 / 2 + 2
    omega = np.sqrt(0.25 + 0.04 + 0.09) / np.sqrt(6)
    kappa = 30 * (1 + omega) * np.sqrt(8) * 3 * y / low**1.5
    p = (1 + 0.35 * kappa) * 2 * y / low / (1 - kappa / 2) ** 2
    assert_allclose(found.eigenvalue, low)
    assert_allclose(found.excess, kappa)
    assert_allclose(found.rate, 2 * low * (1 - kappa / 2) ** 2)
    assert_allclose(found.increments, [(1.02 * omega + 0.03) * p**2, (1.35 * omega + 0.27) * p**3])


def test_losses_of_layers_that_differ_stay_in_the_bound():
    V, W, A, B = tied_network(4, depth=2, hidden=2, inputs=1, outputs=1, seed=3)
    problem = ([[1.0]], [[0.02]], [0.0, 1.0])
    tied = flow_majorant(V, W, A, B, *problem)
    assert tied.losses[1] < 0.1 * tied.losses[0]
    W[1] = 0.0
    assert_allclose(flow_majorant(V, W, A, B, *problem).losses, 4e-4)
    V[0] += 1e-3
    assert len(set(flow_majorant(V, W, A, B, *problem).losses)) == 1
