"""Penalties on weights: brute force, other libraries, finite differences of a network."""

from itertools import permutations

import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.optimal_transport import (
    layer_stack,
    path_conditioning,
    sorted_penalty,
    sorted_penalty_gradient,
)

seeds = st.integers(0, 10**6)


@given(seeds, st.integers(1, 6), st.booleans())
def test_the_penalty_is_the_least_over_permutations(seed, n, ties):
    rng = np.random.default_rng(seed)
    w, w0 = rng.standard_normal((2, n))
    if ties:
        w, w0 = np.round(w), np.round(w0)
    best = min(np.mean((w[list(p)] - w0) ** 2) for p in permutations(range(n)))
    assert_allclose(sorted_penalty(w, w0), best, rtol=1e-12, atol=1e-15)
    assert sorted_penalty(w, w0) <= np.mean((w - w0) ** 2) + 1e-15
    assert sorted_penalty(rng.permutation(w0), w0) == 0
    comonotone = (np.subtract.outer(w, w) * np.subtract.outer(w0, w0) >= 0).all()
    assert comonotone == (np.mean((w - w0) ** 2) - best < 1e-12)


def test_the_penalty_against_pot_and_its_gradient():
    rng = np.random.default_rng(0)
    w, w0, h = rng.standard_normal(30), rng.standard_normal(30), 1e-6
    assert_allclose(sorted_penalty(w, w0), ot.wasserstein_1d(w, w0, p=2), rtol=1e-12)
    differences = [
        (sorted_penalty(w + h * e, w0) - sorted_penalty(w - h * e, w0)) / (2 * h)
        for e in np.eye(30)
    ]
    assert_allclose(sorted_penalty_gradient(w, w0), differences, rtol=1e-6, atol=1e-9)
    assert not sorted_penalty_gradient(rng.permutation(w0), w0).any()


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.9])
def test_singular_values_of_the_stack(spread):
    for aligned in (False, True):
        values = np.linalg.svd(
            layer_stack(4, 5, spread=spread, aligned=aligned, seed=2), compute_uv=False
        )
        assert_allclose(values[:, 0], 1 + spread, rtol=1e-12)
        assert_allclose(values[:, -1], 1 - spread, rtol=1e-12)
    layers = layer_stack(4, 5, spread=spread, seed=2)
    assert not np.allclose(layers[0], layers[1])
    if spread:  # singular vectors on either side
        for product in (layers[0] @ layers[0].T, layers[0].T @ layers[0]):
            assert np.abs(product - np.diag(np.diag(product))).max() > 0.01


def network(layers, x, slope):
    for W in layers:
        x = W @ x
        x = np.where(x > 0, x, slope * x)
    return x


def test_conditioning_against_differences_of_the_network():
    layers, slope = layer_stack(4, 3, spread=0.3, seed=1), 0.4
    x, h = np.random.default_rng(1).standard_normal(3), 1e-6
    found = path_conditioning(layers, x, slope=slope)
    states = [network(layers[:k], x, slope) for k in range(5)]
    for length in range(1, 5):
        quotients = []
        for first in range(5 - length):
            window, at = layers[first : first + length], states[first]
            columns = [
                (network(window, at + h * e, slope) - network(window, at - h * e, slope)) / (2 * h)
                for e in np.eye(3)
            ]
            sigma = np.linalg.svd(np.transpose(columns), compute_uv=False)
            quotients.append(sigma[-1] / sigma[0])
        assert_allclose(found[length - 1], min(quotients), rtol=1e-6)


@given(seeds, st.integers(1, 6), st.integers(2, 6), st.floats(0, 0.8), st.floats(0.1, 1))
def test_the_bound(seed, depth, width, spread, slope):
    layers = layer_stack(depth, width, spread=spread, seed=seed)
    x = np.random.default_rng(seed).standard_normal(width)
    k = np.arange(1, depth + 1)
    bound = ((1 - spread) * slope / (1 + spread)) ** k
    found = path_conditioning(layers, x, slope=slope)
    assert (found >= bound * (1 - 1e-9) - 1e-14).all()
    scaled = path_conditioning(layers * 1e200, 1e-200 * x, slope=slope)
    assert_allclose(scaled, found, rtol=1e-6, atol=1e-13)
    aligned = layer_stack(depth, width, spread=spread, aligned=True, seed=seed)
    ends = np.eye(width)[0] - np.eye(width)[-1]
    attained = path_conditioning(aligned, ends, slope=slope)
    assert_allclose(attained, bound, rtol=1e-9)
    # A quotient a tenth larger is no bound.
    assert attained[-1] < (1.1 * (1 - spread) * slope / (1 + spread)) ** depth


def test_paths_of_any_length_stay_in_range():
    # An identity on negative inputs shrinks everything alike, far below the least double.
    same = np.stack([np.eye(3)] * 400)
    assert_allclose(path_conditioning(same, -np.ones(3), slope=0.01), 1.0, rtol=1e-12)
    # Entries of one sign let the products grow beyond the largest.
    grown = path_conditioning(np.ones((400, 30, 30)) + np.eye(30), np.ones(30), slope=0.5)
    assert_allclose(grown[:8], 31.0 ** -np.arange(1, 9), rtol=1e-3)
    assert (grown >= 0).all()
    assert grown[-1] < 1e-14


def test_relu_and_rank_one_layers_lose_directions():
    layers = layer_stack(3, 4, spread=0.1, seed=0)
    x = np.array([1.0, -2.0, 0.5, 0.3])
    assert path_conditioning(layers, x, slope=0.0)[-1] < 1e-15
    assert path_conditioning(layers, x, slope=1.0)[-1] > 0.5
    layers[1] = np.outer(np.ones(4), np.ones(4)) / 2
    assert (path_conditioning(layers, x, slope=1.0) < 1e-15).all()
    assert (path_conditioning(0 * layers, x, slope=1.0) == 0).all()
    with pytest.raises(ValueError, match="layers: expected square"):
        path_conditioning(np.ones((2, 2, 3)), x[:3], slope=1.0)
    with pytest.raises(ValueError, match="w0: expected shape"):
        sorted_penalty([1.0, 2.0], [1.0])
