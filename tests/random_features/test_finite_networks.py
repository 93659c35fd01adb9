"""Finite networks: Jacobians by finite differences, and laws by other draws."""

from dataclasses import replace

import numpy as np
import pytest

from theorylab import random_features as rf
from theorylab.random_features.finite_networks import forward, gradients_of

LAW = {"weight_variance": 1.4, "bias_variance": 0.3}


def points(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def jacobian(networks, X, step=1e-5):
    """Derivatives of the outputs of one draw in every parameter, shape (n, K, parameters)."""
    columns = []
    for field in ("weights", "biases"):
        for layer, array in enumerate(getattr(networks, field)):
            for index in np.ndindex(array.shape):
                sides = []
                for sign in (1, -1):
                    changed = array.copy()
                    changed[index] += sign * step
                    parts = list(getattr(networks, field))
                    parts[layer] = changed
                    moved = replace(networks, **{field: tuple(parts)})
                    sides.append(rf.network_outputs(moved, X)[0])
                columns.append((sides[0] - sides[1]) / (2 * step))
    return np.stack(columns, axis=2)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("activation", ["erf", rf.LeakyReLU(0.2), rf.Polynomial((0.1, 1.0, 0.3))])
def test_tangent_blocks_are_products_of_jacobians(depth, activation):
    networks = rf.random_networks(
        3, width=4, depth=depth, n_outputs=2, activation=activation, seed=1, **LAW
    )
    X = points(3, 3)
    J = jacobian(networks, X)
    expected = np.einsum("xkp,ylp->xykl", J, J)
    np.testing.assert_allclose(rf.tangent_blocks(networks, X)[0], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("depth", [0, 2])
def test_gradients_are_sums_of_jacobians(depth):
    networks = rf.random_networks(
        3, width=4, depth=depth, n_outputs=2, activation="erf", seed=1, **LAW
    )
    X, signal = points(5, 3), points(5, 2, seed=8)
    found = gradients_of(networks, *forward(networks, X), signal[None])
    flat = np.concatenate([part.ravel() for part in found])
    expected = np.einsum("xk,xkp->p", signal, jacobian(networks, X))
    np.testing.assert_allclose(flat, expected, rtol=1e-6, atol=1e-8)


def test_outputs_of_one_hidden_layer():
    networks = rf.random_networks(2, width=3, depth=1, n_draws=2, seed=4, **LAW)
    X = points(5, 2)
    W, V = networks.weights
    b, c = networks.biases
    for r in range(2):
        hidden = np.sqrt(1.4 / 2) * X @ W[r].T + np.sqrt(0.3) * b[r]
        f = np.sqrt(1.4 / 3) * np.maximum(hidden, 0) @ V[r].T + np.sqrt(0.3) * c[r]
        np.testing.assert_allclose(rf.network_outputs(networks, X)[r], f, rtol=1e-12)


def test_one_hidden_layer_has_the_limit_as_its_mean_at_any_width():
    X = points(2, 3)
    networks = rf.random_networks(3, width=2, depth=1, n_draws=60_000, seed=0, **LAW)
    draws = rf.tangent_blocks(networks, X)[..., 0, 0]
    limit = rf.ntk(X, depth=1, **LAW)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - limit) < 5 * error).all()
    assert (error < 0.02 * limit.max()).all()
    f = rf.network_outputs(networks, X)[..., 0]
    products = f[:, :, None] * f[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(products.mean(axis=0) - rf.nngp(X, depth=1, **LAW)) < 5 * error).all()


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("width", [2, 4])
def test_kernels_without_weights_have_the_law_of_those_with_weights(activation, width):
    X, n = points(3, 2), 30_000
    law = {**LAW, "activation": activation}
    networks = rf.random_networks(2, width=width, depth=3, n_draws=n, seed=1, **law)
    process, tangent = rf.sample_kernels(X, widths=[width] * 3, n_draws=n, seed=2, **law)
    explicit = rf.tangent_blocks(networks, X)[..., 0, 0]
    f = rf.network_outputs(networks, X)[..., 0]
    for first, second in (
        (explicit, tangent),
        (np.sqrt(explicit[:, 0, 1] ** 2), np.sqrt(tangent[:, 0, 1] ** 2)),
        (
            np.minimum(explicit[:, 0, 0], explicit[:, 1, 2]),
            np.minimum(*(tangent[:, 0, 0], tangent[:, 1, 2])),
        ),
        (f[:, :, None] * f[:, None, :], process),
    ):
        error = np.sqrt((first.var(axis=0) + second.var(axis=0)) / n)
        assert (np.abs(first.mean(axis=0) - second.mean(axis=0)) < 5 * error).all()
        assert (error < 0.1 * np.abs(first.mean(axis=0)).max()).all()


def test_weights_are_known_in_the_small_direction_between_close_points():
    # Two linear units, then one: the fields at two points, however close, tell its weights, and
    # these all of the tangent kernel but one factor.
    X, fields = np.array([[1.0, 0.0], [np.cos(0.1), np.sin(0.1)]]), []

    def linear(h):
        fields.append(h.copy())
        return h

    law = rf.GivenDual(lambda c, a, b: (c, np.ones_like(c)), linear, np.ones_like)
    process, tangent = rf.sample_kernels(X, widths=[2, 1], n_draws=50, activation=law, seed=2)
    z, h = fields[0] / np.sqrt(2), fields[1]
    weights = np.linalg.solve(z, h)
    squares = np.sum(weights**2, axis=(1, 2))[:, None, None]
    expected = z @ z.swapaxes(1, 2) + squares / 2 * (X @ X.T / 2)
    factors = (tangent - process) / expected
    np.testing.assert_allclose(process, h @ h.swapaxes(1, 2), rtol=1e-10)
    np.testing.assert_allclose(factors, factors[:, :1, :1] * np.ones((2, 2)), rtol=1e-6)


def test_networks_wider_than_what_is_worked_on_at_a_time():
    wide, X = 140_000, [[1.0]]
    networks = rf.random_networks(1, width=wide, depth=1, n_draws=2, seed=0)
    limit = rf.ntk(X, depth=1)
    np.testing.assert_allclose(rf.tangent_blocks(networks, X)[..., 0, 0], [limit] * 2, rtol=0.02)
    _, tangent = rf.sample_kernels(X, widths=[wide], n_draws=2, seed=0)
    np.testing.assert_allclose(tangent, [limit] * 2, rtol=0.02)
    with pytest.raises(ValueError, match="widths"):
        rf.sample_kernels(X, widths=[2.5], n_draws=2, seed=0)


def test_layers_of_different_width():
    X = points(2, 2)
    process, tangent = rf.sample_kernels(X, widths=[3, 4000], n_draws=4000, seed=0)
    assert process.shape == tangent.shape == (4000, 2, 2)
    limit = rf.ntk(X, depth=2)
    assert abs(tangent.mean(axis=0)[0, 0] / limit[0, 0] - 1) < 0.15
    # The narrow layer keeps it random.
    assert tangent[:, 0, 0].std() > 0.3 * limit[0, 0]


def test_draws_do_not_depend_on_how_many_are_worked_on_at_a_time():
    networks = rf.random_networks(2, width=30, depth=2, n_outputs=3, n_draws=500, seed=2, **LAW)
    X = points(3, 2)
    whole = rf.tangent_blocks(networks, X)
    assert whole.shape == (500, 3, 3, 3, 3)
    for r in (0, 77, 499):
        weights, biases = ([p[r : r + 1] for p in ps] for ps in (networks.weights, networks.biases))
        one = replace(networks, weights=tuple(weights), biases=tuple(biases))
        np.testing.assert_allclose(whole[r], rf.tangent_blocks(one, X)[0], rtol=1e-10)
    process, tangent = rf.sample_kernels(X, widths=[300, 400], n_draws=250, seed=0)
    assert process.shape == tangent.shape == (250, 3, 3)
    assert len(np.unique(tangent[:, 0, 0])) == 250
    with pytest.raises(ValueError, match="networks"):
        rf.network_outputs(replace(networks, biases=networks.biases[:1]), X)


def test_results_are_read_only_and_short():
    networks = rf.random_networks(2, width=3, depth=1, seed=0)
    assert networks.depth == 1
    with pytest.raises(ValueError, match="read-only"):
        networks.weights[0][0, 0, 0] = 1.0
    assert len(repr(networks)) < 120


def test_decay_exponents():
    rng = np.random.default_rng(0)
    squares = [rng.chisquare(3, 40_000 // k) * n**-1.4 for k, n in ((1, 10), (2, 40), (4, 160))]
    found = rf.decay_exponents(squares, factor=4.0, n_batches=10)
    assert found.shape == (2, 10)
    np.testing.assert_allclose(found.mean(axis=1), -0.7, atol=0.01)
    # Batches of unequal size: the logarithm of a mean of ten would be low by a thirtieth.
    unequal = [rng.chisquare(3, 4000 * k) for k in (200, 10)]
    small = rf.decay_exponents(unequal, factor=4.0, n_batches=4000)
    np.testing.assert_allclose(small.mean(), 0.0, atol=0.006)
    np.testing.assert_array_equal(rf.decay_exponents(np.ones((3, 4)), factor=4.0, n_batches=2), 0)
    with pytest.raises(ValueError, match="squares"):
        rf.decay_exponents(squares, factor=4.0, n_batches=7)
    turns = rf.decay_exponents([[1, 1, 16, 16], [1, 1, 1, 1]], factor=2.0, n_batches=2)
    np.testing.assert_allclose(turns, [[0.0, -2.0]], atol=1e-15)
    for refused in ([[0.0], [1.0]], [[3.0, -1.0], [1.0, 1.0]], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="squares"):
            rf.decay_exponents(refused, factor=4.0, n_batches=1)
