"""Kernels on the sphere: angular integrals, product rules, finite differences."""

from math import pi

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad

from theorylab.random_features import (
    arc_cosine_kernel,
    linear_activation,
    linearisation_error,
    output_kernel,
    rectified_power,
    sampled_tangent_kernel,
    tangent_kernel,
)

ANGLES = np.array([0.0, 1e-3, 0.4, pi / 2, 2.0, 3.0, pi])
RELU, LINEAR = rectified_power(1), linear_activation()


def angular(order, theta):
    """The dual in polar coordinates."""
    value = quad(
        lambda a: (np.cos(a) * np.cos(a - theta)) ** order, theta - pi / 2, pi / 2, epsabs=1e-13
    )[0]
    return value / quad(lambda a: np.cos(a) ** (2 * order), -pi / 2, pi / 2)[0]


@pytest.mark.parametrize("order", [0, 1, 2, 3, 5])
def test_arc_cosine_kernels_against_angular_integrals(order):
    assert_allclose(
        arc_cosine_kernel(ANGLES, order=order), [angular(order, t) for t in ANGLES], atol=1e-12
    )


@pytest.mark.parametrize("order", [1, 2, 4])
def test_activations_have_unit_square_and_their_slopes(order):
    phi, z = rectified_power(order), np.array([-1.0, 0.5, 2.0])
    step = 1e-6
    difference = (phi.value(z + step) - phi.value(z - step)) / (2 * step)
    assert_allclose(phi.slope(z), difference, rtol=1e-6)
    for f, square in ((phi.value, 1.0), (phi.slope, float(phi.dual_slope(np.array(0.0))))):

        def weighted(t, f=f):
            return float(f(np.array(t))) ** 2 * np.exp(-t * t / 2) / np.sqrt(2 * pi)

        assert_allclose(quad(weighted, -10, 0)[0] + quad(weighted, 0, 20)[0], square, rtol=1e-9)


def test_units_of_two_factors():
    u, zero, one = (
        np.cos(ANGLES),
        arc_cosine_kernel(ANGLES, order=0),
        arc_cosine_kernel(ANGLES, order=1),
    )
    assert_allclose(tangent_kernel(ANGLES, [RELU]), one + u * zero, atol=1e-15)
    assert_allclose(tangent_kernel(ANGLES, [RELU, LINEAR]), 2 * u * one + u * u * zero, atol=1e-15)
    assert_allclose(tangent_kernel(ANGLES, [RELU] * 2), one**2 + 2 * u * one * zero, atol=1e-15)
    assert_allclose(output_kernel(ANGLES, [RELU, LINEAR]), u * one, atol=1e-15)
    moved = np.arccos((1 + u) / 2)
    biased = tangent_kernel(ANGLES, [RELU, RELU], bias=True)
    assert_allclose(biased, tangent_kernel(moved, [RELU, RELU]), atol=1e-7)


def test_gradients_by_finite_differences():
    rng = np.random.default_rng(5)
    W, signs = rng.standard_normal((2, 6, 3)), rng.choice([-1.0, 1.0], 6)
    factors = [rectified_power(2), RELU]
    x, y = np.array([1.0, 0.2, -0.3]), np.array([0.4, 1.0, 0.5])

    def gradient(point):
        def output(flat):
            V, a = flat[:36].reshape(2, 6, 3), flat[36:]
            units = np.prod([f.value(v @ point) for f, v in zip(factors, V, strict=True)], axis=0)
            return a @ units / np.sqrt(6)

        flat = np.append(W.ravel(), signs)
        rows = 1e-6 * np.eye(flat.size)
        return np.array([(output(flat + e) - output(flat - e)) / 2e-6 for e in rows])

    found = sampled_tangent_kernel(x, y, factors, width=6, seed=5)
    assert_allclose(found, gradient(x) @ gradient(y), rtol=1e-6)


def test_wide_networks_have_the_tangent_kernel():
    x, y = np.array([1.0, 0.0]), np.array([np.cos(0.7), np.sin(0.7)])
    for factors in ([RELU], [RELU, LINEAR], [rectified_power(2)]):
        runs = [sampled_tangent_kernel(x, y, factors, width=4000, seed=s) for s in range(20)]
        spread = np.std(runs) / np.sqrt(20)
        assert abs(np.mean(runs) - tangent_kernel(0.7, factors)) < 5 * spread
        assert spread < 0.02 * np.mean(runs)


def test_linearisation_errors():
    rng = np.random.default_rng(1)
    W, a, D = rng.standard_normal((3, 7, 2)), rng.choice([-1.0, 1.0], (3, 7)), rng.random((3, 7, 2))
    X = rng.standard_normal((4, 2))
    batch = linearisation_error(W, a, D, X, activation=rectified_power(2))
    for i in range(3):
        one = linearisation_error(W[i], a[i], D[i], X, activation=rectified_power(2))
        assert_allclose(one, batch[i], rtol=1e-14)

    def output(V, x):
        return np.sqrt(2 / 3) * a[0] @ np.maximum(V @ x, 0) ** 2 / np.sqrt(7)

    for j, x in enumerate(X):
        slope = (output(W[0] + 1e-6 * D[0], x) - output(W[0] - 1e-6 * D[0], x)) / 2e-6
        wanted = output(W[0] + D[0], x) - output(W[0], x) - slope
        assert_allclose(batch[0, j], wanted, atol=1e-8)
    assert_allclose(linearisation_error(W, a, D, X, activation=LINEAR), 0, atol=1e-14)


def test_bad_input():
    with pytest.raises(ValueError, match="angle: expected at most pi"):
        arc_cosine_kernel(3.1417, order=1)
    assert arc_cosine_kernel(np.float32(pi), order=0) == 0.0  # larger than pi
    with pytest.raises(ValueError, match="order: expected an integer >= 1 and <= 20"):
        rectified_power(21)
    with pytest.raises(ValueError, match="factors: expected a list"):
        tangent_kernel(0.1, [])
    with pytest.raises(ValueError, match="W: expected two axes"):
        linearisation_error([1.0], [1.0], [1.0], [[1.0]], activation=RELU)
    with pytest.raises(ValueError, match="x, y: expected magnitudes"):
        sampled_tangent_kernel([1e300], [1e300], [RELU], width=2, seed=0)
