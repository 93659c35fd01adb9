"""Traces of Hessians: finite differences, SymPy, random searches, linear programs."""

import itertools

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog

from theorylab.implicit_regularization import (
    ReluNetwork,
    balance_neurons,
    flattest_neurons,
    hypercube_memoriser,
    isotropic_hessian_trace,
    layer_norm_outputs,
    layer_norm_trace,
    mix_networks,
    path_norm,
    relu_hessian_trace,
    relu_outputs,
    relu_trace_bound,
    xor_generaliser,
)


def cube(d):
    return np.array(list(itertools.product((1.0, -1.0), repeat=d)))


def draw(seed, d=3, m=4, n=5, biases=True):
    rng = np.random.default_rng(seed)
    network = ReluNetwork(
        rng.standard_normal((m, d)),
        rng.standard_normal(m),
        rng.standard_normal(m) if biases else None,
    )
    return network, rng.standard_normal((n, d))


def flat(network):
    parts = [network.weights.ravel(), network.outputs]
    return np.concatenate(parts if network.biases is None else [*parts, network.biases])


def unflat(v, like):
    m, d = like.weights.shape
    W, a = v[: m * d].reshape(m, d), v[m * d : m * d + m]
    return ReluNetwork(W, a, None if like.biases is None else v[m * d + m :])


def gradient_norms(outputs, network, X):
    """Sum of the squared norms of the gradients of f, by central differences."""
    v, total = flat(network), 0.0
    for k in range(len(v)):
        e = 1e-6 * np.eye(len(v))[k]
        rise = outputs(unflat(v + e, network), X) - outputs(unflat(v - e, network), X)
        total += np.sum((rise / 2e-6) ** 2)
    return total


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.booleans())
def test_traces_against_finite_differences(seed, biases):
    network, X = draw(seed, biases=biases)
    found = relu_hessian_trace(network, X)
    assert_allclose(found, 2 / 5 * gradient_norms(relu_outputs, network, X), rtol=1e-4)
    for eps in (1e-3, 0.5, 20.0):

        def outputs(net, points, eps=eps):
            return layer_norm_outputs(net, points, eps=eps)

        norms = gradient_norms(outputs, network, X)
        assert_allclose(layer_norm_trace(network, X, eps=eps), 2 / 5 * norms, rtol=1e-4, atol=1e-6)


def test_trace_of_the_hessian_by_symbolic_differentiation():
    a, w, b, x, y = sp.symbols("a w b x y", positive=True)
    loss = (a * (w * x + b) - y) ** 2  # the neuron is active
    trace = sum(sp.diff(loss, v, 2) for v in (a, w, b))
    at = {a: 3, w: 2, b: sp.Rational(1, 2), x: 4, y: 7}  # no interpolator
    network = ReluNetwork(np.array([[2.0]]), np.array([3.0]), np.array([0.5]))
    assert relu_hessian_trace(network, [[4.0]]) == float(trace.subs(at))


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_no_interpolator_is_below_the_bound(seed, biases):
    network, X = draw(seed, biases=biases)
    y = relu_outputs(network, X)
    bound = relu_trace_bound(X, y, biases=biases)
    even = balance_neurons(network, X)
    assert_allclose(relu_outputs(even, X), y, atol=1e-12)
    least = relu_hessian_trace(even, X)
    assert bound <= least * (1 + 1e-12) <= relu_hessian_trace(network, X) * (1 + 2e-12)
    for s in (0.9, 1.1):
        shift = None if even.biases is None else s * even.biases
        moved = ReluNetwork(s * even.weights, even.outputs / s, shift)
        assert relu_hessian_trace(moved, X) > least


def test_the_bound_is_attained_by_one_neuron_at_one_point():
    network = ReluNetwork(np.array([[2.0, -1.0]]), np.array([-0.3]), np.array([0.25]))
    X = np.array([[1.0, 0.5]])
    found = relu_hessian_trace(balance_neurons(network, X), X)
    assert_allclose(found, relu_trace_bound(X, relu_outputs(network, X)))
    assert found > 1.01 * relu_trace_bound(X, relu_outputs(network, X), biases=False)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_memoriser_and_generaliser_are_equally_flat(d):
    every = cube(d)
    chosen = np.random.default_rng(d).permutation(len(every))[: 2**d // 2]
    X, y = every[chosen], every[chosen, 0] * every[chosen, 1]
    unseen = np.setdiff1d(np.arange(2**d), chosen)
    pair = hypercube_memoriser(X, y), xor_generaliser(d)
    for network in pair:
        assert_array_equal(relu_outputs(network, X), y)
        even = balance_neurons(network, X)
        assert_allclose(relu_hessian_trace(even, X), 4 * np.sqrt(d + 1))
        assert_allclose(layer_norm_trace(network, X, eps=0.5), 2)
        assert_allclose(layer_norm_outputs(network, X, eps=0.5), y)
    assert_array_equal(relu_outputs(pair[0], every[unseen]), 0)
    assert_array_equal(relu_outputs(pair[1], every), every[:, 0] * every[:, 1])
    mixed = mix_networks(*pair, 0.25)
    assert_allclose(relu_hessian_trace(balance_neurons(mixed, X), X), 4 * np.sqrt(d + 1))
    assert_allclose(relu_outputs(mixed, every[unseen]), 0.75 * np.prod(every[unseen, :2], axis=1))


def test_memoriser_of_any_labels():
    X = cube(3)[:5]
    y = np.array([0.5, -2.0, 3.0, 0.0, 1.0])
    network = hypercube_memoriser(X, y)
    assert_array_equal(relu_outputs(network, X), y)
    even = relu_hessian_trace(balance_neurons(network, X), X)
    # A neuron whose output is 0 keeps its scale, and the trace of its outgoing weight.
    assert_allclose(even, relu_trace_bound(X, y) + 2 / 5)


def test_without_biases_the_convention_decides():
    X = cube(5)
    network = balance_neurons(xor_generaliser(5, biases=False), X)
    assert_allclose(relu_hessian_trace(network, X), 4 * np.sqrt(5))
    rng = np.random.default_rng(0)
    moved = network.weights + 1e-9 * rng.standard_normal((4, 5))
    assert_allclose(
        relu_hessian_trace(ReluNetwork(moved, network.outputs), X), 6 * np.sqrt(5), rtol=1e-6
    )


def test_flattest_neurons_by_brute_force():
    X = cube(3)
    y = X[:, 0] * X[:, 1]
    found = {tuple(w) for w in flattest_neurons(X, y)}
    grid = np.arange(-4, 5) / 4
    brute = set()
    for w in itertools.product(grid, repeat=3):
        z = X @ np.array(w)
        alive = z > 0
        if alive.any() and (z[alive] == 1).all() and len(set(y[alive])) == 1:
            brute.add(w)
    assert found == brute
    assert len(found) == 4


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_flattest_neurons_in_rational_arithmetic(seed, d):
    rng = np.random.default_rng(seed)
    X = np.concatenate([2 * np.tri(d) - 1, rng.choice([-1.0, 1.0], size=(5, d))])[::-1]
    y = rng.choice([-2.0, 0.0, 1.0], size=len(X), p=[0.5, 0.1, 0.4])
    points = sp.Matrix(X.astype(int).tolist())
    rows = list(points.T.rref()[1])
    solve = points.extract(rows, list(range(d))).inv()
    expected = set()
    for pattern in itertools.product((-1, 0, 1), repeat=d):
        w = solve * sp.Matrix(pattern)
        z = list(points * w)
        signs = {np.sign(s) for s, v in zip(y, z, strict=True) if v > 0}
        if len(signs) == 1 and 0 not in signs and all(v == 1 for v in z if v > 0):
            expected.add(tuple(float(v) for v in w))
    found = flattest_neurons(X, y)
    assert {tuple(w) for w in found.tolist()} == expected
    assert len(found) == len(expected)
    assert found.tolist() == sorted(found.tolist())


def test_no_others_on_a_symmetric_set_by_linear_programs():
    # A neuron that is active at one corner for all tails, and 1 there, is unique.
    rng = np.random.default_rng(3)
    tails = rng.choice([-1.0, 1.0], size=(3, 3))
    while np.linalg.matrix_rank(tails) < 3:
        tails = rng.choice([-1.0, 1.0], size=(3, 3))
    for S, unique in ((np.concatenate([tails, -tails]), True), (tails, False)):
        X = np.array([[*p, *s] for p in cube(2) for s in S])
        on = (X[:, 0] > 0) & (X[:, 1] > 0)
        widths = []
        for k in range(5):
            ends = [
                linprog(
                    sign * np.eye(5)[k],
                    A_ub=X[~on],
                    b_ub=np.zeros(np.sum(~on)),
                    A_eq=X[on],
                    b_eq=np.ones(np.sum(on)),
                    bounds=(-10, 10),
                )
                for sign in (1, -1)
            ]
            widths.append(-ends[1].fun - ends[0].fun > 1e-6)
        assert any(widths) != unique
        assert (len(flattest_neurons(X, X[:, 0] * X[:, 1])) == 4) == unique


def test_isotropic_trace_by_sampling_and_path_norm():
    network, _ = draw(1, d=4, m=3, biases=False)
    X = np.random.default_rng(2).standard_normal((200_000, 4))
    sampled = relu_hessian_trace(network, np.concatenate([X, -X])) / 2
    assert_allclose(sampled, isotropic_hessian_trace(network), rtol=0.01)
    assert isotropic_hessian_trace(network) > 2 * path_norm(network)
    sizes = np.linalg.norm(network.weights, axis=1) / 2
    even = ReluNetwork(network.weights, np.sign(network.outputs) * sizes)
    assert_allclose(isotropic_hessian_trace(even), 2 * path_norm(even))


def test_layer_norm_bound_needs_a_small_epsilon():
    X = cube(3)[:4]
    y = np.ones(4)
    root = 2.0
    for ratio, below in ((0.5, False), (1.9, False), (2.5, True), (9.0, True)):
        eps = ratio * root
        s = np.sqrt(eps * root)
        base = hypercube_memoriser(X, y)
        network = ReluNetwork(s * base.weights, y * max(s, eps) / s, s * base.biases)
        assert_allclose(layer_norm_outputs(network, X, eps=eps), 1)
        assert (layer_norm_trace(network, X, eps=eps) < 2) == below


def test_units_and_bad_networks():
    network, X = draw(5)
    for s in (1e-100, 1e100):
        scaled = ReluNetwork(s * network.weights, network.outputs / s, s * network.biases)
        even = balance_neurons(scaled, X)
        least = relu_hessian_trace(balance_neurons(network, X), X)
        assert_allclose(relu_hessian_trace(even, X), least)
    with pytest.raises(ValueError, match=r"network\.outputs: expected shape"):
        relu_outputs(ReluNetwork(np.eye(2), np.ones(3)), np.eye(2))
    with pytest.raises(ValueError, match="points: expected vertices"):
        hypercube_memoriser([[0.5, 1.0]], [1.0])
    with pytest.raises(ValueError, match="points: expected distinct vertices"):
        hypercube_memoriser([[1, 1], [1, 1]], [1.0, 1.0])
    with pytest.raises(ValueError, match="points: expected vertices that span"):
        flattest_neurons([[1, 1], [-1, -1]], [1.0, 1.0])
    with pytest.raises(ValueError, match="second: expected inputs and biases"):
        mix_networks(xor_generaliser(2), xor_generaliser(2, biases=False), 0.5)
    for function in (layer_norm_outputs, layer_norm_trace):
        with pytest.raises(ValueError, match="eps: expected"):
            function(xor_generaliser(2), [[1, 1]], eps=0.0)
    with pytest.raises(ValueError, match="network: expected one without biases"):
        path_norm(network)
