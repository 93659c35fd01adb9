"""Training: matrix exponentials, small steps of descent, and plain sums over many units."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import expm

from theorylab import random_features as rf

LAW = {"activation": "erf", "weight_variance": 1.4, "bias_variance": 0.3}


def points(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_linear_dynamics_is_the_matrix_exponential():
    X, X_test = points(4, 3), points(2, 3, seed=1)
    theta, cross = rf.ntk(X, depth=2, **LAW), rf.ntk(X_test, X, depth=2, **LAW)
    y, f, g = points(3, 4, seed=2)
    g = g[:2]
    times = np.array([0.0, 0.3, 5.0])
    found = rf.linear_dynamics(theta, y, initial=f, times=times)
    other = rf.linear_dynamics(
        theta, y, initial=f, times=times, cross_kernel=cross, cross_initial=g
    )
    for k, t in enumerate(times):
        decay = expm(-t * theta)
        np.testing.assert_allclose(found[k], y + decay @ (f - y), rtol=1e-10)
        moved = cross @ np.linalg.solve(theta, (np.eye(4) - decay) @ (y - f))
        np.testing.assert_allclose(other[k], g + moved, rtol=1e-9, atol=1e-12)


def test_linear_dynamics_of_a_singular_kernel():
    kernel, cross = np.ones((2, 2)), np.array([[1.0, -1.0]])
    found = rf.linear_dynamics(kernel, [1.0, -1.0], times=[3.0])
    np.testing.assert_allclose(found, [[0.0, 0.0]], atol=1e-14)
    # The part that the kernel does not see grows linearly where another kernel sees it.
    found = rf.linear_dynamics(kernel, [1.0, -1.0], times=[3.0], cross_kernel=cross)
    np.testing.assert_allclose(found, [[6.0]], rtol=1e-12)
    for least in (-1.0, -1e-4, -1e-5):
        with pytest.raises(ValueError, match="kernel: expected a semidefinite"):
            rf.linear_dynamics(np.diag([1.0, least]), [1.0, 1.0], times=[1.0])
    rounded = rf.linear_dynamics(np.diag([1.0, -1e-8]), [1.0, 1.0], times=[1e9])
    np.testing.assert_allclose(rounded, [[1.0, 0.0]], atol=1e-14)
    with pytest.raises(ValueError, match="cross_initial"):
        rf.linear_dynamics(np.eye(2), [1.0, 1.0], times=[1.0], cross_initial=[1.0])
    with pytest.raises(ValueError, match="cross_initial"):
        rf.linear_dynamics(
            np.eye(2), [1.0, 1.0], times=[1.0], cross_kernel=cross, cross_initial=[[1.0]]
        )
    with pytest.raises(ValueError, match="times"):
        rf.linear_dynamics(np.eye(2), [1.0, 1.0], times=[-1.0])


def test_linear_dynamics_of_a_kernel_that_single_precision_leaves_skew():
    kernel = np.array([[2.0, 1.0], [1.0 + 4e-7, 1.0]], dtype=np.float32)
    assert kernel[0, 1] != kernel[1, 0]
    given, other = (rf.linear_dynamics(K, [1.0, -2.0], times=[0.7]) for K in (kernel, kernel.T))
    np.testing.assert_allclose(given, other, rtol=1e-13)


def test_linear_dynamics_has_no_unit_of_time():
    theta, cross, y = rf.ntk(points(3, 3), depth=1), points(2, 3, seed=1), [1.0, -2.0, 0.5]
    found = rf.linear_dynamics(theta, y, times=[0.7], cross_kernel=cross)
    slow = rf.linear_dynamics(1e-9 * theta, y, times=[0.7e9], cross_kernel=1e-9 * cross)
    np.testing.assert_allclose(slow, found, rtol=1e-10)


def loss_gradient(networks, X, y, step=1e-5):
    found = []
    for field in ("weights", "biases"):
        for layer, array in enumerate(getattr(networks, field)):
            gradient = np.empty_like(array)
            for index in np.ndindex(array.shape):
                losses = []
                for sign in (1, -1):
                    changed = array.copy()
                    changed[index] += sign * step
                    parts = list(getattr(networks, field))
                    parts[layer] = changed
                    f = rf.network_outputs(replace(networks, **{field: tuple(parts)}), X)[0, :, 0]
                    losses.append(np.sum((f - y) ** 2) / 2)
                gradient[index] = (losses[0] - losses[1]) / (2 * step)
            found.append(gradient)
    return found


def test_gradient_flow_starts_along_the_gradient_and_is_of_fourth_order():
    networks = rf.random_networks(2, width=3, depth=2, seed=3, **LAW)
    X, y = points(3, 2), np.array([1.0, -0.5, 0.3])
    gradient = loss_gradient(networks, X, y)
    _, moved = rf.gradient_flow(networks, X, y, time=1e-6, n_steps=1)
    before, after = ((*n.weights, *n.biases) for n in (networks, moved))
    for first, last, slope in zip(before, after, gradient, strict=True):
        np.testing.assert_allclose((first - last) / 1e-6, slope, rtol=1e-4, atol=1e-5)
    ends = [rf.gradient_flow(networks, X, y, time=1.0, n_steps=n)[0][0, -1] for n in (4, 8, 16, 64)]
    errors = [np.linalg.norm(e - ends[3]) for e in ends[:3]]
    assert 10 < errors[0] / errors[1] < 24
    assert 10 < errors[1] / errors[2] < 24


def test_gradient_flow_of_a_linear_network_is_the_linear_dynamics():
    networks = rf.random_networks(3, width=2, depth=0, n_draws=2, seed=0, **LAW)
    X, y = points(4, 3), points(2, 4, seed=1)
    path, _ = rf.gradient_flow(networks, X, y, time=2.0, n_steps=200)
    theta = rf.ntk(X, depth=0, **LAW)
    times = np.linspace(0, 2, 201)
    for r in range(2):
        expected = rf.linear_dynamics(theta, y[r], initial=path[r, 0], times=times)
        np.testing.assert_allclose(path[r], expected, atol=1e-7)


def test_networks_of_two_outputs_are_refused():
    networks = rf.random_networks(2, width=3, depth=1, n_outputs=2, seed=0)
    with pytest.raises(ValueError, match="networks: expected one output, got 2"):
        rf.gradient_flow(networks, np.eye(2), [1.0, 2.0], time=1.0, n_steps=2)
    with pytest.raises(ValueError, match="networks: expected one output, got 2"):
        rf.entrywise_step(networks, np.eye(2), [1.0, 2.0], step_sizes=[0.1, 0.1])


def test_shapes_that_would_broadcast_are_refused():
    networks = rf.random_networks(2, width=3, depth=1, n_draws=2, seed=0)
    with pytest.raises(ValueError, match="targets"):
        rf.gradient_flow(networks, np.eye(2), [[1.0, 2.0]], time=1.0, n_steps=2)
    with pytest.raises(ValueError, match="update"):
        rf.entrywise_step(
            networks, np.eye(2), [1.0, 2.0], step_sizes=[0.1, 0.1], update=lambda g: g[:, :1]
        )


def test_entrywise_step_uses_the_gradient_in_its_own_units():
    networks = rf.random_networks(2, width=3, depth=2, seed=3, **LAW)
    X, y = points(3, 2), np.array([1.0, -0.5, 0.3])
    gradient = loss_gradient(networks, X, y)[:3]
    chi = rf.network_outputs(networks, X)[0, :, 0] - y
    sizes = (0.1, 0.2, 0.3)
    units = (np.sqrt(3), 3, np.sqrt(3))
    for update in (np.sign, lambda g: g, np.tanh):
        moved = rf.entrywise_step(networks, X, chi, step_sizes=sizes, update=update)
        for k in range(3):
            expected = networks.weights[k] - sizes[k] * update(units[k] * gradient[k])
            np.testing.assert_allclose(moved.weights[k], expected, rtol=1e-6, atol=1e-7)
        assert moved.biases is not None
        np.testing.assert_array_equal(moved.biases[0], networks.biases[0])


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_planar_limit_is_a_mean_over_units(batch):
    X, X_test = points(batch, 2, seed=batch), points(3, 2, seed=9)
    chi = points(batch, 1, seed=5)[:, 0]
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((400_000, 2)), rng.standard_normal(400_000)
    fields, on = w @ X_test.T, w @ X.T > 0
    inner = np.sign((v[:, None] * on * chi) @ X) @ X_test.T * v[:, None] * (fields > 0)
    outer = np.maximum(fields, 0) * np.sign(np.maximum(w @ X.T, 0) @ chi)[:, None]
    terms = -0.7 * 1.3 / np.sqrt(2) * (inner + outer)
    limit = rf.planar_sign_limit(X, chi, X_test, step_size=0.7, weight_variance=1.3)
    error = terms.std(axis=0) / np.sqrt(len(terms))
    assert (np.abs(terms.mean(axis=0) - limit) < 5 * error).all()
    assert (error < 0.02).all()


def test_the_planar_limit_of_one_point():
    # E|v| E[relu'] |x|_1 and E relu(w.x), for the point itself.
    x = np.array([3.0, -4.0])
    expected = -(np.sqrt(2 / np.pi) * 7 / 2 + 5 / np.sqrt(2 * np.pi)) / np.sqrt(2)
    found = rf.planar_sign_limit([x], [0.1], [x], step_size=1.0)
    np.testing.assert_allclose(found, [expected], rtol=1e-14)
    np.testing.assert_allclose(rf.planar_sign_limit([x], [-9.0], [x], step_size=1.0), [-expected])
    opposite = rf.planar_sign_limit([x], [1.0], [-x], step_size=1.0)
    np.testing.assert_allclose(opposite, [0.0], atol=1e-14)


def test_the_planar_limit_where_two_active_points_cancel():
    # The second sign is that of w_1 - w_2 in the quadrant: it changes on its diagonal.
    root = np.sqrt(np.pi)
    expected = -(np.sqrt(2 / np.pi) / 2 + 1 / (2 * root)) / np.sqrt(2)
    found = rf.planar_sign_limit(np.eye(2), [1.0, -1.0], [[1.0, 0.0]], step_size=1.0)
    np.testing.assert_allclose(found, [expected], rtol=1e-14)
    mirrored = rf.planar_sign_limit(np.eye(2), [1.0, -1.0], [[0.0, 1.0]], step_size=1.0)
    np.testing.assert_allclose(mirrored, [-expected], rtol=1e-14)


def test_the_planar_limit_has_no_size_in_the_loss_and_no_units():
    X, chi, X_test = points(3, 2), np.array([1.0, -2.0, 0.5]), points(2, 2, seed=1)
    limit = rf.planar_sign_limit(X, chi, X_test, step_size=0.5)
    again = rf.planar_sign_limit(X * 1e100, chi * 1e-150, X_test, step_size=0.5)
    np.testing.assert_allclose(again, limit, rtol=1e-12)
    near = rf.planar_sign_limit(X, chi, X_test * 1e-6, step_size=0.5)
    np.testing.assert_allclose(near, 1e-6 * limit, rtol=1e-12)
    parts = [
        rf.planar_sign_limit(X, c, X_test, step_size=0.5) for c in ((1.0, -2.0, 0), (0, 0, 0.5))
    ]
    assert np.abs(limit - sum(parts)).max() > 0.03
