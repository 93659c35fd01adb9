"""Batch normalisation: finite differences, exact gaps, proved bounds, Haar moments."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.random_features import (
    batch_norm_signals,
    gap_decay_length,
    gradient_survival,
    isometry_gap,
    normalise_rows,
    random_rotations,
)


def test_gaps_of_diagonals_and_invariances():
    values = np.array([0.5, 2.0, 3.0])
    exact = math.log(np.mean(values**2)) - np.mean(np.log(values**2))
    rng = np.random.default_rng(0)
    left, right = random_rotations(3, 2, rng=rng)
    for s in (1e-200, 1e-8, 1.0, 1e200):
        assert_allclose(isometry_gap(s * np.diag(values)), exact, rtol=1e-12)
        assert_allclose(isometry_gap(s * (left * values) @ right), exact, rtol=1e-10)
    assert isometry_gap(left) < 1e-14
    assert isometry_gap([[1.0, 1.0], [1.0, 1.0]]) == np.inf
    with pytest.raises(ValueError, match="X: expected no matrix of zeros"):
        isometry_gap(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="X: expected square matrices"):
        isometry_gap(np.ones((2, 3)))


def test_rows_of_any_size():
    X = np.array([[3e200, 4e200], [-1e-200, 0.0]])
    assert_allclose(normalise_rows(X), [[0.6, 0.8], [-1, 0]])
    with pytest.raises(ValueError, match="X: expected no row of zeros"):
        normalise_rows([[1.0, 0.0], [0.0, 0.0]])


def test_rotations_are_uniform():
    Q = random_rotations(3, 60_000, rng=np.random.default_rng(1))
    assert_allclose(Q @ Q.swapaxes(1, 2), np.broadcast_to(np.eye(3), Q.shape), atol=1e-12)
    moments = np.stack(
        [
            Q[:, 0, 0],
            Q[:, 0, 0] ** 4,
            Q[:, 0, 0] ** 2 * Q[:, 1, 1] ** 2,
            Q[:, 0, 0] * Q[:, 1, 1] * Q[:, 0, 1] * Q[:, 1, 0],
            np.linalg.det(Q),
        ]
    )
    # Weingarten: 3 / (d (d + 2)), (d + 1) / (d (d - 1) (d + 2)), -1 / (d (d - 1) (d + 2)).
    exact = np.array([0, 3 / 15, 4 / 30, -1 / 30, 0])
    error = 5 * moments.std(axis=1) / math.sqrt(Q.shape[0])
    assert (np.abs(moments.mean(axis=1) - exact) < error).all()


def test_rotations_are_the_factors_of_gaussian_matrices_with_positive_diagonals():
    Q = random_rotations(4, 50, rng=np.random.default_rng(5))
    R = Q.swapaxes(1, 2) @ np.random.default_rng(5).standard_normal((50, 4, 4))
    assert_allclose(np.tril(R, -1), 0, atol=1e-12)
    assert (np.diagonal(R, axis1=1, axis2=2) > 0).all()


@pytest.mark.parametrize("n", [2, 4])
def test_gradients_by_finite_differences(n):
    rng = np.random.default_rng(2)
    X, W, C = (rng.standard_normal(s) for s in ((4, n), (3, 4, 4), (4, n)))

    def loss(X, W):
        return np.sum(C * batch_norm_signals(X, W, C).representations[-1])

    run = batch_norm_signals(X, W, C)
    for _ in range(3):
        D = rng.standard_normal(X.shape)
        slope = (loss(X + 1e-6 * D, W) - loss(X - 1e-6 * D, W)) / 2e-6
        assert_allclose(np.sum(run.gradients[0] * D), slope, rtol=1e-6)
    for layer in range(3):
        gradient = np.zeros((4, 4))
        for i, j in np.ndindex(4, 4):
            E = np.zeros((3, 4, 4))
            E[layer, i, j] = 1e-6
            gradient[i, j] = (loss(X, W + E) - loss(X, W - E)) / 2e-6
        assert_allclose(run.weight_gradients[layer], np.linalg.norm(gradient), rtol=1e-6)
    assert_allclose(run.row_norms[0], np.linalg.norm(W[0] @ X, axis=1))
    assert_allclose(run.gradients[-1], C)
    assert_allclose(run.representations[0], X)
    # Repetitions are independent.
    both = batch_norm_signals(np.stack([X, 2 * X]), np.stack([W, W[::-1]]), np.stack([C, C]))
    assert_allclose(both.gradients[0], run.gradients)
    assert_allclose(both.weight_gradients[1], batch_norm_signals(X, W[::-1], C).weight_gradients)


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0.01, 2.5))
def test_each_inequality_of_the_forward_bound(seed, d, spread):
    """The steps of the proof: share of the variance, and the gap by the variance."""
    rng = np.random.default_rng(seed)
    values = np.exp(spread * rng.standard_normal(d))
    values /= values.mean()
    gap = float(isometry_gap(np.diag(np.sqrt(values))))
    spread_of = np.sum((values - 1) ** 2)
    assert gap <= (1.5 + d * gap) * spread_of / d * (1 + 1e-9) + 1e-14
    w = rng.standard_normal((500, d))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    y = w**2 @ values
    assert (y - 1 - np.log(y) >= (y - 1) ** 2 / (2 * np.maximum(y, 1)) - 1e-14).all()
    assert (y <= d * (1 + 1e-12)).all()
    length = gap_decay_length(d, gap)
    assert_allclose(length, d * (d + 2) * (1.5 + d * gap))
    # The mean drop of the proof is at least gap / length.
    assert spread_of / (d * d * (d + 2)) >= gap / length * (1 - 1e-9) - 1e-15


def test_mean_drop_is_at_least_the_bound_and_not_ten_times_it_at_its_worst():
    rng = np.random.default_rng(3)
    ratios = []
    for small in (1e-6, 1e-2, 0.5):
        X = np.diag([1.0, 1.0, small])
        gap = float(isometry_gap(X))
        after = isometry_gap(normalise_rows(random_rotations(3, 4000, rng=rng) @ X))
        drop = gap - after
        error = 5 * drop.std() / math.sqrt(len(drop))
        ratios.append((drop.mean() + error) * gap_decay_length(3, gap) / gap)
        assert drop.mean() + error >= gap / gap_decay_length(3, gap)
    assert min(ratios) < 25


@pytest.mark.parametrize(("d", "layers"), [(2, 3), (5, 1), (5, 4)])
def test_survival_of_gradients_on_isometries(d, layers):
    rng = np.random.default_rng(d)
    draws = 20_000
    X = random_rotations(d, draws, rng=rng)
    W = random_rotations(d, draws * layers, rng=rng).reshape(draws, layers, d, d)
    G = rng.standard_normal((draws, d, d))
    G /= np.linalg.norm(G, axis=(1, 2), keepdims=True)
    run = batch_norm_signals(X, W, G)
    found = np.sum(run.gradients[:, 0] ** 2, axis=(1, 2))
    exact = gradient_survival(d, layers)
    assert abs(found.mean() - exact) < 5 * found.std() / math.sqrt(draws) < 0.05 * exact
    assert isometry_gap(run.representations).max() < 1e-13
    # What is skew with respect to the output passes, in every network.
    S = G - G.swapaxes(1, 2)
    skew = batch_norm_signals(X, W, S @ run.representations[:, -1])
    sizes = np.linalg.norm(skew.gradients, axis=(2, 3))
    assert_allclose(sizes, np.repeat(sizes[:, -1:], layers + 1, axis=1), rtol=1e-10)


def test_survival_is_one_without_layers_and_half_of_almost_all_in_the_end():
    assert gradient_survival(7, 0) == 1
    assert_allclose(gradient_survival(7, 1), 6 / 7)
    assert_allclose(gradient_survival(7, 500), 3 / 7)
    assert gradient_survival(1, 3) == 0
