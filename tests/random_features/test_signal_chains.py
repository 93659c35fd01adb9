"""Signals in deep networks: exact moments by cubature, closed Gaussian means, wide networks."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import erf
from scipy.stats import norm

from theorylab.random_features import kernel_chain, propagate, residual_growth, vertex_growth


def exact_growth(n, leak, skip=0.0):
    """E G^2 of one layer, in rationals, over all signs and three-point weights of one column (the
    input is the first unit vector)."""
    nodes = ((-1, Fraction(1, 6)), (0, Fraction(2, 3)), (1, Fraction(1, 6)))  # times sqrt 3
    square = Fraction(0)
    for choice in product(nodes, repeat=n):
        mass = math.prod(m for _, m in choice)
        size = sum(3 * x * x * (1 if x > 0 else leak**2) for x, _ in choice)
        square += mass * (size * 2 / (1 + leak**2) / n) ** 2
    return square


@pytest.mark.parametrize("leak", [Fraction(0), Fraction(1), Fraction(1, 3), Fraction(-1, 2)])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_vertex_growth_in_rationals(n, leak):
    assert_allclose(vertex_growth(n, leak=float(leak)), float(exact_growth(n, leak)), rtol=1e-14)


def test_vertex_growth_of_large_leaks_is_that_of_their_inverse():
    for leak in (1e-3, 0.2, 1.0, -0.7):
        assert_allclose(vertex_growth(3, leak=1 / leak), vertex_growth(3, leak=leak))
    assert vertex_growth(4, leak=1e300) == vertex_growth(4, leak=0.0)


@pytest.mark.parametrize("skip", [-1.0, -0.4, 0.0, 0.6, 1.0])
def test_residual_growth_by_cubature(skip):
    # Two neurons, all four weights on three points: exact for polynomials of degree 5 in each.
    choice = np.indices((3,) * 4).reshape(4, -1).T
    mass = np.prod(np.array([1, 4, 1])[choice] / 6, axis=1)
    W = math.sqrt(3) * (choice - 1.0).reshape(-1, 2, 2) / math.sqrt(2)
    z = np.broadcast_to([0.6, -0.8], (len(W), 2))
    size = np.sum(propagate(z, W, skip=skip, branch=math.sqrt(1 - skip**2)) ** 2, axis=1)
    assert_allclose(mass @ size, 1, rtol=1e-14)
    assert_allclose(mass @ size**2, residual_growth(2, skip=skip), rtol=1e-14)


def test_propagation_of_a_layer():
    rng = np.random.default_rng(0)
    W, z = rng.standard_normal((5, 3, 3)), rng.standard_normal((5, 3))
    h = np.where(z > 0, z, -0.4 * z)
    found = propagate(z, W, leak=-0.4, skip=0.3, branch=2.0)
    assert_allclose(found, 0.3 * z + 2 * np.einsum("aij,aj->ai", W, h))
    assert propagate(z, W[:, :2]).shape == (5, 2)
    with pytest.raises(ValueError, match="W: expected square matrices with a skip"):
        propagate(z, W[:, :2], skip=0.1)


def test_kernels_of_sine_and_error_function_in_closed_form():
    chain = kernel_chain(np.sin, 1.7, depth=3, weight_variance=1.3, bias_variance=0.2)
    K, V = 1.7, 0.0
    for layer in range(4):
        assert_allclose(chain.kernels[layer], K, rtol=1e-12)
        assert_allclose(chain.vertices[layer], V, rtol=1e-11, atol=1e-300)
        # E sin^2 = (1 - e^{-2K}) / 2, E sin^4 = (3 - 4 e^{-2K} + e^{-8K}) / 8.
        second = (1 - math.exp(-2 * K)) / 2
        fourth = (3 - 4 * math.exp(-2 * K) + math.exp(-8 * K)) / 8
        slope = 1.3 * math.exp(-2 * K)
        assert_allclose(chain.susceptibilities[layer], slope, rtol=1e-11)
        K, V = 0.2 + 1.3 * second, slope**2 * V + 1.3**2 * (fourth - second**2)
    chain = kernel_chain(erf, 0.8, depth=1)
    assert_allclose(chain.kernels[1], 2 / math.pi * math.asin(1.6 / 2.6), rtol=1e-12)


def test_kernels_of_tanh_by_adaptive_quadrature_and_of_relu():
    chain = kernel_chain(np.tanh, 6.0, depth=1)
    mass = 1 / math.sqrt(2 * math.pi)

    def at(K, p):
        return quad(
            lambda z: math.tanh(math.sqrt(K) * z) ** p * mass * math.exp(-z * z / 2), -11, 11
        )[0]

    assert_allclose(chain.kernels[1], at(6, 2), rtol=1e-9)
    assert_allclose(chain.vertices[1], at(6, 4) - at(6, 2) ** 2, rtol=1e-8)
    slope = (at(6.001, 2) - at(5.999, 2)) / 0.002
    assert_allclose(chain.susceptibilities[0], slope, rtol=1e-5)
    relu = kernel_chain(lambda x: np.maximum(x, 0), 3.0, depth=20, weight_variance=2.0)
    assert_allclose(relu.kernels, 3, rtol=5e-3)
    assert_allclose(relu.vertices[5] / 9, 5 * 5, rtol=5e-3)  # 5 a layer, as 1 + 5 / n is


def test_the_vertex_is_the_variance_of_wide_networks():
    n, draws, depth = 60, 3000, 3
    rng = np.random.default_rng(2)
    z = np.broadcast_to(np.full(n, math.sqrt(1.5)), (draws, n))
    chain = kernel_chain(np.tanh, 1.5, depth=depth, weight_variance=1.4, bias_variance=0.0)
    sizes = np.full(draws, 1.5)
    for _ in range(depth):
        z = np.sqrt(sizes)[:, None] * rng.standard_normal((draws, n))
        sizes = 1.4 * np.mean(np.tanh(z) ** 2, axis=1)
    noise = 5 / math.sqrt(draws)
    assert abs(sizes.mean() / chain.kernels[-1] - 1) < noise * sizes.std() / sizes.mean() + 1 / n
    assert abs(n * sizes.var() / chain.vertices[-1] - 1) < 1.5 * noise + 3 / n


def test_kernels_that_the_grid_does_not_resolve_are_refused():
    exact = 1 - quad(lambda z: 2 * norm.pdf(z) / math.cosh(math.sqrt(200) * z) ** 2, 0, 4)[0]
    assert_allclose(kernel_chain(np.tanh, 200.0, depth=1).kernels[1], exact, rtol=5e-3)
    for activation, kernel in ((np.tanh, 1e6), (np.sign, 1.0), (lambda x: 1.0 * (x > 0), 1.0)):
        with pytest.raises(ValueError, match=r"smooth on a grid .* K = 1(e\+06)? at layer 0"):
            kernel_chain(activation, kernel, depth=1)


def test_tiny_kernels_keep_their_digits():
    one = kernel_chain(lambda x: x, 1.0, depth=5)
    tiny = kernel_chain(lambda x: x, 1e-200, depth=5)
    assert_allclose(one.kernels, 1, rtol=1e-12)
    assert_allclose(one.vertices, 2 * np.arange(6), rtol=1e-11)
    assert_allclose(tiny.kernels * 1e200, one.kernels, rtol=1e-12)
    assert_allclose(tiny.susceptibilities, 1, rtol=1e-12)
    with pytest.raises(ValueError, match="expected kernels that stay positive"):
        kernel_chain(np.tanh, 1e-300, depth=10, weight_variance=1e-9)
