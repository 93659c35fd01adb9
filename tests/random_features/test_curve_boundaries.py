"""Boundaries along curves: roots of trigonometric polynomials, dense sampling, brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad

from theorylab.random_features import (
    crossing_density,
    crossing_density_bound,
    deep_crossing_bound,
    distance_bound,
    nearest_boundary,
    trace_boundaries,
)


def test_density_on_a_circle_and_on_a_ray():
    t = np.linspace(0, 2 * np.pi, 7)[:-1]
    circle = 3 * np.stack([np.cos(t), np.sin(t)], axis=1)
    turn = 3 * np.stack([-np.sin(t), np.cos(t)], axis=1)
    for w, b in ((1.0, 0.0), (2.0, 5.0), (0.1, 1.0)):
        scales = {"weight_scale": w, "bias_scale": b}
        found = crossing_density(circle, turn, **scales) * 2 * np.pi
        assert_allclose(found, 2 * 3 * w / math.hypot(3 * w, b))
        assert_allclose(crossing_density_bound(circle, turn, **scales) * 2 * np.pi, found)
    # On a ray from the origin a neuron switches where w x = -b: a Cauchy law.
    x = np.array([[0.0], [0.5], [4.0]])
    found = crossing_density(x, np.ones((3, 1)), weight_scale=2.0, bias_scale=3.0)
    assert_allclose(found, 1.5 / (np.pi * (1.5**2 + x[:, 0] ** 2)))
    bound = crossing_density_bound(x, np.ones((3, 1)), weight_scale=2.0, bias_scale=3.0)
    assert_allclose(bound, 1 / (np.pi * np.sqrt(1.5**2 + x[:, 0] ** 2)))


def test_density_against_the_definition():
    # The mean of |f'| where f = 0, f and f' jointly Gaussian.
    c, v, w, b = np.array([0.4, -1.0, 0.3]), np.array([1.2, 0.5, -0.7]), 1.3, 0.6
    variance, covariance = w**2 * (c @ c) + b**2, w**2 * (c @ v)
    spread = math.sqrt(w**2 * (v @ v) - covariance**2 / variance)
    slope = quad(lambda z: abs(z) * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), -12, 12)[0]
    (found,) = crossing_density([c], [v], weight_scale=w, bias_scale=b)
    assert_allclose(found, spread * slope / math.sqrt(2 * math.pi * variance), rtol=1e-9)


def test_density_does_not_depend_on_units_and_refuses_the_origin():
    c, v = np.array([[0.4, -1.0]]), np.array([[1.2, 0.5]])
    one = crossing_density(c, v, weight_scale=1.0, bias_scale=0.7)
    for s in (1e-90, 1e90):
        assert_allclose(crossing_density(c, v, weight_scale=s, bias_scale=0.7 * s), one)
        assert_allclose(crossing_density(s * c, s * v, weight_scale=1 / s, bias_scale=0.7), one)
    with pytest.raises(ValueError, match="points: expected none at the origin"):
        crossing_density([[0.0]], [[1.0]], weight_scale=1.0, bias_scale=0.0)


def he(rng, sizes, bias):
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    weights = [rng.standard_normal(s) * math.sqrt(2 / s[1]) for s in shapes]
    return weights, [bias * rng.standard_normal(s[0]) for s in shapes]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_traces_against_dense_sampling(seed, depth):
    rng = np.random.default_rng(seed)
    weights, biases = he(rng, [3, *[4] * depth], 0.5)
    points = rng.standard_normal((4, 3))
    found = trace_boundaries(points, weights, biases)
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert_allclose(found.length, lengths.sum())
    assert (np.diff(found.positions) >= 0).all()

    def before(at, layer):
        """The preactivations of a layer at arc lengths."""
        ends = np.concatenate([[0], np.cumsum(lengths)])
        piece = np.clip(np.searchsorted(ends, at, side="right") - 1, 0, 2)
        share = ((at - ends[piece]) / lengths[piece])[:, None]
        H = points[piece] * (1 - share) + points[piece + 1] * share
        for k in range(layer + 1):
            Z = H @ weights[k].T + biases[k]
            H = np.maximum(Z, 0)
        return Z

    for at, layer, neuron in zip(found.positions, found.layers, found.neurons, strict=True):
        assert abs(before(np.array([at]), layer)[0, neuron]) < 1e-9 * (1 + found.length)
    # Every change of sign between samples is a boundary that was found.
    t = np.linspace(0, found.length, 4001)
    for layer in range(depth):
        signs = before(t, layer) > 0
        for neuron in range(4):
            mine = found.positions[(found.layers == layer) & (found.neurons == neuron)]
            seen = np.histogram(mine, bins=t)[0] % 2
            changed = signs[:-1, neuron] != signs[1:, neuron]
            # Of those at a sample, rounding may put one into the next interval.
            assert np.sum(seen != changed) <= 2 * len(mine) * (np.abs(seen - changed).sum() > 0)
            if np.diff(mine).min(initial=1.0) > 0.01:
                assert np.sum(changed) == len(mine)


def test_traces_do_not_depend_on_units():
    corner = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    for s in (1e-200, 1e-8, 1.0, 1e8, 1e200):
        found = trace_boundaries(s * corner, [[[1.0, 0.0]]], [[-1.5 * s]])
        assert_allclose(found.positions, [1.5 * math.sqrt(2) * s])
        assert_allclose(found.length, 2 * math.sqrt(2) * s)


def test_deep_bound_is_nearly_attained_and_not_an_identity():
    # With large biases the kernel is constant along a short segment and the speed that of the map.
    n, bias, draws = 30, 3.0, 400
    rng = np.random.default_rng(1)
    ends = np.array([-0.5, 0.5])[:, None] * np.eye(n)[0]
    counts = np.zeros(2)
    for _ in range(draws):
        found = trace_boundaries(ends, *he(rng, [n, n, n], bias))
        counts += np.bincount(found.layers, minlength=2) / n / draws
    bound = deep_crossing_bound(n, bias_scale=bias)
    assert_allclose(bound, math.sqrt(2 / 30) / (3 * math.pi))
    assert 0.9 * bound < counts[0] < 1.1 * bound
    assert counts[1] < 0.9 * bound


def test_nearest_boundaries_and_markov():
    found = trace_boundaries([[0.0], [2.0], [5.0]], [[[1.0], [1.0]]], [[-1.0, -4.0]])
    assert_allclose(found.positions, [1, 4])
    assert nearest_boundary(found, 2.2) == pytest.approx(1.2)
    assert nearest_boundary(found, 4.9) == pytest.approx(0.9)
    assert nearest_boundary(found, 0.2, closed=True) == pytest.approx(0.8)
    assert nearest_boundary(found, 4.8, closed=True) == pytest.approx(0.8)
    assert nearest_boundary(found, 0.1, closed=True) == pytest.approx(0.9)
    none = trace_boundaries([[0.0], [3.0]], [[[1.0]]], [[1.0]])
    assert nearest_boundary(none, 1.0) == 2
    assert nearest_boundary(none, 1.0, closed=True) == 1.5
    # Attained up to rounding: one point, uniform over a window of length 1 / density around.
    u = (np.arange(1000) + 0.5) / 1000
    assert_allclose(np.mean(np.abs(u - 0.5)), distance_bound(1.0), rtol=1e-5)
    assert np.mean(np.abs(u - 0.5)) < distance_bound(0.9)


def test_bad_networks_are_refused_by_name():
    with pytest.raises(ValueError, match="biases: expected 1 layers, got 2"):
        trace_boundaries([[0.0], [1.0]], [[[1.0]]], [[0.0], [1.0]])
    with pytest.raises(ValueError, match="points: expected at least two vertices"):
        trace_boundaries([[0.0]], [[[1.0]]], [[0.0]])
    with pytest.raises(ValueError, match="weights: expected a sequence of arrays"):
        trace_boundaries([[0.0], [1.0]], np.eye(1), [[0.0]])
