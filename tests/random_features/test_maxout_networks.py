"""Maxout networks: closed moments, scipy's hulls and quadrature, brute force, whole networks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.spatial import ConvexHull
from scipy.stats import norm

from theorylab.random_features import (
    count_breakpoints,
    critical_scale,
    directional_gain,
    expected_breakpoints,
    maxout_layer,
    maxout_moments,
    maxout_signals,
)


def test_moments_in_closed_form_and_by_adaptive_quadrature():
    root = math.sqrt(3) / math.pi
    closed = {
        1: (0, 1),
        2: (1 / math.sqrt(math.pi), 1),
        3: (1.5 / math.sqrt(math.pi), 1 + root / 2),
    }
    closed[4] = (3 / math.sqrt(math.pi) * (0.5 + math.asin(1 / 3) / math.pi), 1 + root)
    for rank, (first, second) in closed.items():
        assert_allclose(maxout_moments(rank), (first, second), rtol=1e-13, atol=1e-15)
    for rank in (7, 300, 10**6):
        middle = norm.ppf(0.5 ** (1 / rank))
        for p, moment in zip((1, 2), maxout_moments(rank), strict=True):
            exact = quad(
                lambda x, r=rank, p=p: x**p * r * norm.pdf(x) * math.exp((r - 1) * norm.logcdf(x)),
                *(-2, 12),
                points=[middle],
                epsabs=1e-12,
            )[0]
            assert_allclose(moment, exact, rtol=1e-7)
    assert critical_scale(4) == 1 / maxout_moments(4).square


def test_gain_along_a_direction_is_what_units_have():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((200_000, 4, 2))
    chosen = maxout_layer(W, [0.6, 0.8])[1]
    for angle in (0.0, 0.9, 2.0):
        c, s = math.cos(angle), math.sin(angle)
        found = (chosen @ [0.6 * c - 0.8 * s, 0.8 * c + 0.6 * s]) ** 2
        assert abs(found.mean() - directional_gain(rank=4, cosine=c)) < 5 * found.std() / math.sqrt(
            len(found)
        )
    assert_allclose(directional_gain(rank=2, cosine=[0.0, 0.3, -1.0]), 1)
    with pytest.raises(ValueError, match=r"cosine: expected numbers in \[-1, 1\], got -1.5"):
        directional_gain(rank=2, cosine=[0.5, -1.5])


def test_layers_return_the_largest_and_its_gradient():
    rng = np.random.default_rng(1)
    W, x, b = (rng.standard_normal(s) for s in ((7, 3, 4, 5), (7, 5), (7, 3, 4)))
    values, J = maxout_layer(W, x, b)
    assert_allclose(values, (np.einsum("aikn,an->aik", W, x) + b).max(axis=-1))
    step = 1e-7 * rng.standard_normal((7, 5))
    moved = maxout_layer(W, x + step, b)[0]
    assert_allclose(moved - values, np.einsum("ain,an->ai", J, step), rtol=1e-5)
    with pytest.raises(ValueError, match=r"x: expected shape \(7, 5\), got shape \(5,\)"):
        maxout_layer(W, x[0])


def network(rank, n, depth, c, draws, seed):
    """Squares of values, of a tangent across, of a gradient back, and of weight gradients, each
    from the whole Jacobian."""
    rng = np.random.default_rng(seed)
    h = np.tile(np.eye(n)[0], (draws, 1))
    sizes, layers = [], []
    for _ in range(depth):
        sizes.append(np.sum(h**2, axis=1))
        h, J = maxout_layer(math.sqrt(c / n) * rng.standard_normal((draws, n, rank, n)), h)
        layers.append(J)
    g = rng.standard_normal((draws, n))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    total = np.tile(np.eye(n), (draws, 1, 1))
    kernel = 0
    for size, J in zip(sizes[::-1], layers[::-1], strict=True):
        kernel = kernel + size * np.sum(np.einsum("ai,ain->an", g, total) ** 2, axis=1)
        total = total @ J
    back = np.sum(np.einsum("ai,ain->an", g, total) ** 2, axis=1)
    return np.sum(h**2, axis=1), np.sum(total[:, :, 1] ** 2, axis=1), back, kernel


@pytest.mark.parametrize(("rank", "n", "depth", "c"), [(4, 5, 2, 0.7), (3, 7, 3, 1.1)])
def test_signals_of_whole_networks(rank, n, depth, c):
    signals = maxout_signals(rank, width=n, depth=depth, scale=c)
    names = ("values", "across", "backward", "kernel")
    for name, found in zip(names, network(rank, n, depth, c, 12_000, depth), strict=True):
        error = 5 * found.std() / math.sqrt(len(found))
        assert abs(found.mean() - getattr(signals, name)[-1]) < error, name
        assert error < 0.1 * found.mean()


def test_signals_of_one_layer_and_of_none():
    square = maxout_moments(3).square
    signals = maxout_signals(3, width=10, depth=2, scale=0.9)
    assert_allclose(signals.values, (0.9 * square) ** np.arange(3))
    assert_allclose(signals.across[:2], [1, 0.9])  # exactly c, whatever was chosen
    assert_allclose(signals.backward, signals.values / 10 + 0.9 * signals.across)
    assert_allclose(signals.kernel, [0, 1, signals.backward[1] + signals.values[1]])
    floor = maxout_signals(5, width=50, depth=200, scale=critical_scale(5))
    c = critical_scale(5)
    assert_allclose(floor.across[-1], c / 50 / (1 - c * 0.98), rtol=1e-6)


def test_a_scale_that_overflows_is_refused():
    with pytest.raises(ValueError, match="scale, depth: expected magnitudes"):
        maxout_signals(3, width=4, depth=2000, scale=9.0)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 7), st.booleans())
def test_breakpoints_are_upper_edges_of_the_hull(seed, rank, ties):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 5, rank))
    if ties:
        a, b = np.round(a), np.round(b)
    counts = count_breakpoints(a, b)
    x = np.linspace(-12, 12, 1801)
    for slopes, intercepts, count in zip(a, b, counts, strict=True):
        if ties:  # slopes seen on the line, between half integers and their quotients
            chosen = np.max(np.outer(x, slopes) + intercepts, axis=1)
            slope = np.diff(chosen) / np.diff(x)
            # Twice in a row: not the mean slope of an interval around a breakpoint.
            twice = slope[1:][np.abs(np.diff(slope)) < 1e-6]
            seen = set(np.round(twice).tolist())
            assert count == len(seen) - 1
        elif rank >= 3:
            hull = ConvexHull(np.stack([slopes, intercepts], axis=1))
            assert count == np.sum(hull.equations[:, 1] > 0)
        else:
            assert count == rank - 1


def test_mean_breakpoints_of_random_units_and_of_large_ranks():
    assert_allclose([expected_breakpoints(r) for r in (1, 2, 3)], [0, 1, 1.5], rtol=1e-13)
    rng = np.random.default_rng(2)
    for rank, ratio in ((4, 1e-9), (9, 1.0), (30, 1e9)):
        counts = count_breakpoints(*(rng.standard_normal((2, 20_000, rank)) * [[[1]], [[ratio]]]))
        error = 5 * counts.std() / math.sqrt(len(counts))
        assert abs(counts.mean() - expected_breakpoints(rank)) < error
    # Renyi and Sulanke: the number grows as the root of 2 pi log K.
    large = expected_breakpoints(10**6) / math.sqrt(2 * math.pi * math.log(10**6))
    assert 0.8 < large < 1


def test_breakpoints_at_extreme_scales_and_of_equal_lines():
    a, b = np.array([[-1.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 0.5, 0.0, -3.0]])
    for s, t in ((1e-300, 1.0), (1.0, 1e300), (1e200, 1e-200)):
        assert count_breakpoints(s * a, t * b)[0] == 2
    assert count_breakpoints(np.ones((3, 4)), np.zeros((3, 4))).tolist() == [0, 0, 0]
    # Each unit has units of its own.
    a, b = np.array([[-1.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 0.0]])
    sizes = np.array([[1e-250], [1.0], [1e250]])
    assert count_breakpoints(sizes * a, sizes[::-1] * b).tolist() == [2, 2, 2]
    # Three lines through a point have one breakpoint there.
    assert count_breakpoints([[-1.0, 0.5, 2.0]], [[1.0, 1.0, 1.0]]).tolist() == [1]
