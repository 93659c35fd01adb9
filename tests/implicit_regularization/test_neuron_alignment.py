"""Alignment of neurons: small steps, networks from tiny starts, and what alignment implies."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.implicit_regularization import (
    Fate,
    align_directions,
    aligned_phase,
    alignment_bound,
    data_separation,
    relu_descent,
    relu_flow,
)


def separated(rng, n, mu):
    angle = math.acos(math.sqrt(mu))
    Z = np.column_stack([np.full(n, math.cos(angle)), math.sin(angle) * np.eye(n)])
    Z *= 1 + rng.random((n, 1))
    labels = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    return labels[:, None] * Z, labels


def small_steps(u, s, X, labels, T, h=1e-3):
    """Euler steps of the direction, and its times of switching."""
    active, last = X @ u > 0, 0.0
    for k in range(round(T / h)):
        S = s * labels[active] @ X[active]
        u = u + h * (S - (u @ S) * u)
        u /= np.linalg.norm(u)
        if ((X @ u > 0) != active).any():
            active, last = X @ u > 0, (k + 1) * h
    return u, last, active


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([-1.0, 1.0]))
def test_directions_against_small_steps(seed, n, s):
    rng = np.random.default_rng(seed)
    X, labels = separated(rng, n, 0.3)
    u = rng.standard_normal(n + 1)
    u /= np.linalg.norm(u)
    found = align_directions(u[None], [s], X, labels)
    end, last, active = small_steps(u, s, X, labels, 6.0)
    assert found.settled[0] == pytest.approx(last, abs=2e-2)
    assert_allclose(found.directions[0], end, atol=8e-3)
    expected = Fate.DEAD if not active.any() else Fate.ALIGNED
    assert found.fates[0] is expected
    assert not active.any() or (active == (s * labels > 0)).all()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 12), st.floats(0.02, 0.9))
def test_times_are_bounded_and_all_align(seed, n, mu):
    rng = np.random.default_rng(seed)
    X, labels = separated(rng, n, mu)
    U, signs = rng.standard_normal((8, n + 1)), np.where(np.arange(8) % 2, -1.0, 1.0)
    found = align_directions(U, signs, X, labels)
    bound = alignment_bound(data_separation(X, labels), np.linalg.norm(X, axis=1).min())
    for rising, settled, fate in zip(found.rising, found.settled, found.fates, strict=True):
        assert fate is not Fate.STUCK
        assert fate is Fate.DEAD or settled - rising <= bound * (1 + 1e-9)


def test_the_bound_is_attained_and_does_not_know_n():
    for mu in (0.01, 0.3, 0.9):
        for copies in (0, 5):
            X = np.array([[1.0, 0.0], [mu, math.sqrt(1 - mu**2)], *copies * [[-1.0, 0.0]]])
            labels = np.append([1.0, 1.0], -np.ones(copies))
            found = align_directions([[1e-12, -1.0]], [1.0], X, labels)
            assert_allclose(found.settled, alignment_bound(mu, 1.0), rtol=1e-6)


def test_units_of_data_and_directions():
    rng = np.random.default_rng(3)
    X, labels = separated(rng, 4, 0.2)
    U = rng.standard_normal((5, 5))
    one = align_directions(U, np.ones(5), X, labels)
    for a in (1e-120, 1e120):
        other = align_directions(U * a, np.ones(5), X * a, labels)
        assert_allclose(other.settled * a, one.settled)
        assert other.fates == one.fates


def test_stuck_directions():
    X, labels = np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([1.0, -1.0])
    # The datum of the other label pushes back where the first one pulls across its switch.
    found = align_directions([[0.0, -1.0], [1.0, -0.5]], [1.0, 1.0], X, labels)
    assert [fate.name for fate in found.fates] == ["DEAD", "STUCK"]
    # Exactly opposite to what pulls.
    far = align_directions([[1.0, 0.0]], [1.0], [[1.0, 0.0]], [-1.0])
    assert far.fates == (Fate.STUCK,)
    assert math.isinf(far.settled[0])


def test_networks_from_a_tiny_start_follow_the_directions():
    rng = np.random.default_rng(5)
    X, labels = separated(rng, 3, 0.4)
    W = 1e-6 * rng.standard_normal((6, 4))
    v = np.linalg.norm(W, axis=1) * np.where(np.arange(6) % 2, -1, 1)
    found = align_directions(W, np.sign(v), X, labels)
    assert Fate.STUCK not in found.fates
    times = np.array([0.0, found.settled.max() + 0.5])
    flow = relu_flow(W, v, X, labels, times, tol=1e-7)
    late = aligned_phase(flow.W[-1], flow.v[-1], X, labels)
    assert late.aligned.all()
    assert_allclose(np.sum(flow.W[-1] ** 2, axis=1), flow.v[-1] ** 2, rtol=1e-4)
    alive = [fate is Fate.ALIGNED for fate in found.fates]
    assert ((flow.W[-1] @ X.T > 0).any(axis=1) == alive).all()


def test_descent_moves_the_balance_by_exactly_the_squares():
    W, v = [[Fraction(1, 2), Fraction(1, 3)]], Fraction(2, 3)
    x, y, h = [Fraction(1), Fraction(1, 4)], 1, Fraction(1, 8)
    pre = sum(a * b for a, b in zip(W[0], x, strict=True))
    g = Fraction(math.exp(-y * float(v * pre)))  # any slope will do
    new_v = v + h * g * pre
    new_W = [a + h * g * v * b for a, b in zip(W[0], x, strict=True)]
    drift = new_v**2 - sum(a * a for a in new_W) - v**2 + sum(a * a for a in W[0])
    assert drift == h**2 * g**2 * (pre**2 - v**2 * sum(b * b for b in x))
    found = relu_descent([[0.5, 1 / 3]], [2 / 3], [[1.0, 0.25]], [1.0], step=0.125, steps=1)
    assert_allclose(found[0], np.array([new_W], float))
    assert_allclose(found[1], float(new_v))


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_later_losses_and_ranks_keep_their_bounds(seed, n):
    rng = np.random.default_rng(seed)
    X, labels = separated(rng, n + 1, 0.3)
    # Aligned by hand: every neuron a positive combination of the data of its label.
    sides = [label for label in (1.0, -1.0) if (labels == label).any()]
    v = np.array(sides * 3)
    W = np.array([rng.random(np.sum(labels == s)) @ X[labels == s] for s in v])
    v = v * np.linalg.norm(W, axis=1) * (1 + 0.3 * rng.random(len(v)))
    phase = aligned_phase(W, v, X, labels)
    assert phase.aligned.all()
    assert phase.alpha > 0
    flow = relu_flow(W, v, X, labels, [0.0, 0.1, 1.0, 10.0], tol=1e-8)
    start = flow.losses[0]
    assert (flow.losses <= start / (1 + phase.alpha * start * flow.times) * (1 + 1e-6)).all()
    assert not (flow.losses <= start / (1 + 20 * phase.alpha * start * flow.times)).all()


def test_unaligned_neurons_are_seen():
    X, labels = np.array([[1.0, 0.0], [0.8, 0.6]]), np.array([1.0, 1.0])
    phase = aligned_phase([[1.0, -5.0], [1.0, 1.0], [-1.0, -1.0]], [1.0, 1.0, 3.0], X, labels)
    assert phase.aligned.tolist() == [False, True, True]


def test_separation_and_bad_input():
    assert data_separation([[2.0, 0.0], [0.0, -1.0]], [1.0, -1.0]) == 0
    assert data_separation([[1e-200, 0.0], [3.0, 4.0]], [1.0, 1.0]) == pytest.approx(0.6)
    with pytest.raises(ValueError, match="labels: expected entries -1 and 1"):
        data_separation([[1.0]], [0.5])
    with pytest.raises(ValueError, match="U: expected directions other than 0"):
        align_directions([[0.0]], [1.0], [[1.0]], [1.0])
    assert alignment_bound(1.0, 3.0) == 0


def test_repeated_data_and_one_dimension():
    X = np.array([[1.0, 0.0], [1.0, 0.0], [-0.8, -0.6], [-0.8, -0.6]])
    labels = np.array([1.0, 1.0, -1.0, -1.0])
    U = np.array([[0.3, -1.0], [-0.3, 1.0], [-1.0, -0.1], [-1.0, 0.1]])
    found = align_directions(np.repeat(U, 2, axis=0), np.tile([1.0, -1.0], 4), X, labels)
    assert Fate.STUCK not in found.fates
    late = (found.settled - found.rising)[np.isfinite(found.rising)]
    assert (late <= alignment_bound(0.8, 1.0) * (1 + 1e-9)).all()
    # In one dimension a neuron cannot turn away from the wrong data.
    line = align_directions([[1.0], [-1.0]], [1.0, 1.0], [[1.0], [-1.0]], [1.0, -1.0])
    assert [fate.name for fate in line.fates] == ["ALIGNED", "STUCK"]


def test_the_remainder_holds_for_unbalanced_weights():
    X, labels = np.eye(5), np.ones(5)
    W, v = np.eye(5) + 0.1, np.full(5, 0.01)
    phase = aligned_phase(W, v, X, labels)
    assert phase.aligned.all()
    flow = relu_flow(W, v, X, labels, [0.0, 1.0, 5.0], tol=1e-8)
    for w in flow.W:
        assert np.sum(w**2) <= 2 * np.linalg.norm(w, 2) ** 2 + phase.remainder
    with pytest.raises(ValueError, match="X: expected data whose products"):
        aligned_phase([[1.0, 0.0]], [1.0], [[1.0, 0.0], [-0.5, 1.0]], [1.0, 1.0])


def test_aligned_phase_by_hand():
    X, labels = np.array([[1.0, 0.0], [1.2, 1.6], [0.0, -3.0]]), np.array([1.0, 1.0, -1.0])
    W = np.array([[2.0, 1.0], [0.1, -1.0], [-3.0, 0.5]])
    v = np.array([2.0, -1.5, 1.0])
    phase = aligned_phase(W, v, X, labels)
    assert phase.aligned.tolist() == [True, False, True]
    W[1, 0] = -1.0
    phase = aligned_phase(W, v, X, labels)
    assert phase.aligned.all()
    plus = (0.6 + 0.4 / 2) * 4.0 + min(2.0, 4.0) ** 2
    minus = 9 * 1.5**2 + 9.0
    assert phase.alpha == pytest.approx(1 / (1 / plus + 1 / minus))
    assert phase.remainder == pytest.approx(2 * (1.0) + (9 + 0.25))


def test_gradients_of_the_flow_against_differences_of_the_loss():
    rng = np.random.default_rng(4)
    W, v, X = rng.standard_normal((3, 2)), rng.standard_normal(3), rng.standard_normal((4, 2))
    labels = np.array([1.0, -1.0, 1.0, -1.0])

    def loss(w, o):
        return np.sum(np.exp(-labels * (np.maximum(X @ w.T, 0) @ o)))

    h = 1e-6
    after, outer = relu_descent(W, v, X, labels, step=h, steps=1)
    for j in range(3):
        e = np.eye(3)[j] * h
        slope = (loss(W, v + e) - loss(W, v - e)) / (2 * h)
        assert (v - outer)[j] / h == pytest.approx(slope, rel=1e-4, abs=1e-6)
        for k in range(2):
            E = np.zeros((3, 2))
            E[j, k] = h
            slope = (loss(W + E, v) - loss(W - E, v)) / (2 * h)
            assert (W - after)[j, k] / h == pytest.approx(slope, rel=1e-4, abs=1e-6)
    run = relu_flow(W, v, X, labels, [0.0, 0.01], tol=1e-9)
    slow = relu_descent(W, v, X, labels, step=1e-6, steps=10_000)
    assert_allclose(run.W[1], slow[0], atol=1e-4)
    assert run.losses[0] == pytest.approx(loss(W, v))


def test_norms_stop_shrinking_where_small_steps_do():
    h, switched = 1e-3, 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X, labels = separated(rng, 4, 0.3)
        # Active on some data that push back, not on others.
        u = 0.6 * rng.standard_normal(5) - 0.5 * (labels @ X) / np.linalg.norm(labels @ X)
        found = align_directions(u[None], [1.0], X, labels)
        u /= np.linalg.norm(u)
        rising, seen = math.inf, 0
        for k in range(3000):
            active = X @ u > 0
            S = labels[active] @ X[active]
            if u @ S >= 0:
                rising = k * h if active.any() else math.inf
                break
            u = u + h * (S - (u @ S) * u)
            u /= np.linalg.norm(u)
            seen += ((X @ u > 0) != active).any()
        assert found.rising[0] == pytest.approx(rising, abs=1e-2)
        switched += seen > 0 and 0 < rising < math.inf
    assert switched >= 2
