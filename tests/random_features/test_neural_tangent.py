"""Limit kernels by other routes: quadrature, closed forms, the recursion written plainly."""

import math

import numpy as np
import pytest

from theorylab import random_features as rf

ACTIVATIONS = {
    "relu": rf.LeakyReLU(),
    "leaky": rf.LeakyReLU(0.3),
    "negative leak": rf.LeakyReLU(-1.0),
    "erf": rf.Erf(),
    "sine": rf.Sine(),
    "polynomial": rf.Polynomial((0.3, -1.0, 0.5, 0.2)),
}


def points(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def by_quadrature(phi, covariance, first, second):
    """Moments by midpoints in the angle, and Gauss and Laguerre in half the squared radius."""
    t, weights = np.polynomial.laguerre.laggauss(60)
    angles = (np.arange(20_000) + 0.5) * 2 * np.pi / 20_000
    radius = np.sqrt(2 * t)[:, None]
    x, y = radius * np.cos(angles), radius * np.sin(angles)
    rho = covariance / math.sqrt(first * second)
    u = math.sqrt(first) * x
    v = math.sqrt(second) * (rho * x + math.sqrt(1 - rho**2) * y)
    return [float(weights @ np.mean(f(u) * f(v), axis=1)) for f in (phi.value, phi.slope)]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("pair", [(0.3, 0.8, 0.5), (-0.7, 1.2, 0.6), (0.0, 1.0, 0.4)])
def test_moments_are_those_of_quadrature(name, pair):
    phi = ACTIVATIONS[name]
    found = phi.moments(*(np.array([[v]]) for v in pair))
    expected = by_quadrature(phi, *pair)
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-4, atol=1e-4)
    weighted = phi.moments(*(np.array([[v]]) for v in pair), 1.7)
    np.testing.assert_allclose(weighted, 1.7 * np.array(found), rtol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_diagonal_is_the_limit_of_the_moments(name):
    phi, a = ACTIVATIONS[name], np.array([0.3, 1.0, 2.5])
    np.testing.assert_allclose(phi.diagonal(a), phi.moments(a, a, a), rtol=1e-12)
    z = np.linspace(-2, 2, 9) + 0.01
    numerical = (phi.value(z + 1e-6) - phi.value(z - 1e-6)) / 2e-6
    np.testing.assert_allclose(phi.slope(z), numerical, rtol=1e-8, atol=1e-8)


def test_the_second_moment_is_the_derivative_of_the_first():
    a, b, c, h = np.array([0.9]), np.array([1.4]), np.array([0.4]), 1e-6
    for phi in ACTIVATIONS.values():
        up, down = (phi.moments(c + s, a, b)[0] for s in (h, -h))
        np.testing.assert_allclose((up - down) / (2 * h), phi.moments(c, a, b)[1], rtol=1e-8)


def test_moments_of_high_powers():
    a, b, c = (np.array([v]) for v in (1.3, 0.7, 0.4))
    sixth = rf.Polynomial((0, 0, 0, 0, 0, 0, 1.0))
    value, slope = sixth.diagonal(a)
    np.testing.assert_allclose(value, 10395 * a**6, rtol=1e-13)
    np.testing.assert_allclose(slope, 36 * 945 * a**5, rtol=1e-13)
    value, slope = rf.Polynomial((0, 0, 0, 0, 1.0)).moments(c, a, b)
    # Isserlis: E u^4 v^4 and 16 E u^3 v^3.
    np.testing.assert_allclose(value, 9 * a**2 * b**2 + 72 * a * b * c**2 + 24 * c**4, rtol=1e-13)
    np.testing.assert_allclose(slope, 16 * (9 * a * b * c + 6 * c**3), rtol=1e-13)


def test_the_slope_of_the_error_function_far_out():
    z = np.array([-5.0, 3.5, 20.0, 1e200])
    expected = (
        2 / math.sqrt(math.pi) * np.array([math.exp(-25), math.exp(-12.25), math.exp(-400), 0])
    )
    np.testing.assert_allclose(rf.Erf().slope(z), expected, rtol=1e-13)


def test_the_sine_of_small_and_of_large_covariances():
    one, small = np.ones(1), np.array([1e-12])
    value, slope = rf.Sine().moments(small, one, one)
    np.testing.assert_allclose(value, small / math.e, rtol=1e-13)
    np.testing.assert_allclose(slope, 1 / math.e, rtol=1e-13)
    # A covariance that rounding has put above its variances.
    large = np.array([1e20])
    found = rf.Sine().moments(np.nextafter(large, np.inf), large, large)
    np.testing.assert_allclose(found, [[0.5], [0.5]], rtol=1e-13)


def test_the_leaky_bend_is_at_zero():
    z = np.array([-2.0, -1.0, 1.0, 2.0])
    for phi in (rf.LeakyReLU(), rf.LeakyReLU(0.3)):
        np.testing.assert_allclose(phi.value(1e-9 * z), 1e-9 * phi.value(z), rtol=1e-14)
        np.testing.assert_array_equal(phi.slope(1e-9 * z), phi.slope(z))
        assert phi.slope(np.zeros(1))[0] == phi.negative_slope


def test_polynomials_are_their_coefficients():
    assert rf.Polynomial(np.array([0, 1])) == rf.Polynomial((0.0, 1.0))
    assert hash(rf.Polynomial([0, 1])) == hash(rf.Polynomial((0.0, 1.0)))


def test_the_diagonal_of_large_points_has_no_cancellation():
    X = 1e8 * points(5, 3)
    variance = np.sum(X**2, axis=1) / 3
    expected = 4 / math.pi / np.sqrt(1 + 4 * variance) * variance + 1
    kernel = rf.ntk(X, depth=1, activation="erf")
    np.testing.assert_allclose(np.diag(kernel), expected, rtol=1e-14)


def test_refusals_and_one_row_longer_than_a_block():
    with pytest.raises(ValueError, match="bias_variance"):
        rf.ntk([[1.0]], depth=1, bias_variance=-0.1)
    with pytest.raises(ValueError, match="weight_variance"):
        rf.ntk([[1.0]], depth=1, weight_variance=0.0)
    with pytest.raises(ValueError, match="activation"):
        rf.ntk(points(3, 2), depth=1, activation=rf.GivenDual(lambda c, a, b: (c[0], c[0])))
    Y = np.tile(points(2, 3, seed=1), (35_000, 1))
    long = rf.ntk(points(1, 3), Y, depth=1)
    np.testing.assert_allclose(long[:, -2:], rf.ntk(points(1, 3), Y[:2], depth=1), rtol=1e-13)


def test_closed_forms_of_cho_and_saul_and_of_williams():
    angle = 0.7
    X = np.array([[2.0, 0.0], [3 * math.cos(angle), 3 * math.sin(angle)]])
    first = 3.0 * (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi
    # Weight variance 2 and d = 2: the first layer has the plain inner products.
    assert rf.nngp(X, depth=1, weight_variance=2.0)[0, 1] == pytest.approx(2 * first, rel=1e-14)
    zeroth = (math.pi - angle) / math.pi
    tangent = 2 * first + 6 * math.cos(angle) * zeroth
    assert rf.ntk(X, depth=1, weight_variance=2.0)[0, 1] == pytest.approx(tangent, rel=1e-14)
    K = X @ X.T + 0.5
    sine = 2 * K[0, 1] / math.sqrt((1 + 2 * K[0, 0]) * (1 + 2 * K[1, 1]))
    found = rf.nngp(X, depth=1, activation="erf", weight_variance=2.0, bias_variance=0.5)
    assert found[0, 1] == pytest.approx(4 / math.pi * math.asin(sine) + 0.5, rel=1e-14)


def recursion(X, depth, phi, weight, bias):
    K = weight * X @ X.T / X.shape[1] + bias
    theta = K.copy()
    for _ in range(depth):
        n = len(K)
        new, slopes = np.empty((n, n)), np.empty((n, n))
        for i in range(n):
            for j in range(n):
                pair = [np.array([v]) for v in (K[i, j], K[i, i], K[j, j])]
                new[i, j], slopes[i, j] = (float(m[0]) for m in phi.moments(*pair))
        K = weight * new + bias
        theta = K + weight * slopes * theta
    return K, theta


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_kernels_are_the_recursion(name, depth):
    X, phi = points(9, 4), ACTIVATIONS[name]
    law = {"depth": depth, "activation": phi, "weight_variance": 1.3, "bias_variance": 0.2}
    process, tangent = recursion(X, depth, phi, 1.3, 0.2)
    for kernel, expected in ((rf.nngp, process), (rf.ntk, tangent)):
        alone, both = kernel(X, **law), kernel(X, X[:4], **law)
        np.testing.assert_allclose(alone, expected, rtol=1e-7)
        np.testing.assert_allclose(both, expected[:, :4], rtol=1e-7)
        assert (alone == alone.T).all()


def test_blocks_of_rows_do_not_show():
    X, law = points(150, 3), {"depth": 2, "bias_variance": 0.1}
    whole = rf.ntk(X, **law)
    np.testing.assert_allclose(whole, rf.ntk(X, X, **law), rtol=1e-7)
    np.testing.assert_allclose(whole[40:43], rf.ntk(X[40:43], X, **law), rtol=1e-7)
    np.testing.assert_array_equal(whole, whole.T)


def test_blocks_within_a_panel_do_not_show():
    X, Y = points(130, 3), points(1500, 3, seed=1)
    law = {"depth": 2, "activation": "erf", "bias_variance": 0.1}
    whole = rf.ntk(X, Y, **law)
    np.testing.assert_allclose(whole[:, 100:120], rf.ntk(X, Y[100:120], **law), rtol=1e-11)
    alone = rf.nngp(Y, **law)
    np.testing.assert_allclose(alone[:, 1400:1420], rf.nngp(Y, Y[1400:1420], **law), rtol=1e-11)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_as_many_other_points_are_other_points(name):
    X, Y = points(4, 3), 1.7 * points(4, 3, seed=1)
    law = {"depth": 2, "activation": ACTIVATIONS[name], "weight_variance": 1.3}
    for kernel in (rf.nngp, rf.ntk):
        joint = kernel(np.concatenate([X, Y]), **law)
        np.testing.assert_allclose(kernel(X, Y, **law), joint[:4, 4:], rtol=1e-10)


def test_relu_kernels_are_homogeneous_and_their_diagonal_exact():
    X = points(5, 3)
    kernel = rf.ntk(X, depth=3, weight_variance=2.0)
    squares = 2 * np.sum(X**2, axis=1) / 3
    np.testing.assert_allclose(np.diag(kernel), 4 * squares, rtol=1e-14)
    np.testing.assert_allclose(rf.ntk(X * 1e-100, depth=3, weight_variance=2.0), kernel * 1e-200)
    np.testing.assert_allclose(rf.ntk(X * 2.0, depth=3, weight_variance=2.0), kernel * 4)


@pytest.mark.parametrize("activation", ["relu", "erf", "sine"])
def test_equal_points_have_equal_entries(activation):
    X = points(3, 7)
    law = {"depth": 2, "activation": activation, "bias_variance": 0.1}
    twice = rf.ntk(np.concatenate([X, X]), **law)
    np.testing.assert_allclose(twice[:3, 3:], twice[:3, :3], rtol=1e-12)
    np.testing.assert_allclose(rf.ntk(X, X, **law), twice[:3, :3], rtol=1e-12)


def test_points_at_the_origin():
    X = np.array([[0.0, 0.0], [1.0, 2.0]])
    assert rf.ntk(X, depth=2).tolist()[0] == [0.0, 0.0]
    biased = rf.ntk(X, depth=2, bias_variance=0.5)
    assert np.linalg.eigvalsh(biased)[0] > 0


def test_opposite_points():
    X = np.array([[1.0, 2.0], [-1.0, -2.0]])
    # Of one hidden layer: neither unit sees both.
    np.testing.assert_array_equal(rf.ntk(X, depth=1)[0, 1], 0.0)


def test_single_precision_is_taken_as_the_numbers_it_is():
    X = points(6, 5).astype(np.float32)
    kernel = rf.ntk(X, depth=2)
    assert kernel.dtype == np.float64
    np.testing.assert_array_equal(kernel, rf.ntk(X.astype(np.float64), depth=2))


def test_given_moments():
    def linear(covariance, first, second):
        return covariance, np.ones_like(covariance)

    X = points(4, 3)
    kernel = rf.ntk(X, depth=2, activation=rf.GivenDual(linear))
    np.testing.assert_allclose(kernel, 3 * X @ X.T / 3, rtol=1e-12)
    np.testing.assert_allclose(kernel, rf.ntk(X, depth=2, activation=rf.Polynomial((0, 1))))
    networks = rf.random_networks(3, width=2, depth=1, activation=rf.GivenDual(linear), seed=0)
    with pytest.raises(ValueError, match="activation"):
        rf.network_outputs(networks, X)
    with pytest.raises(ValueError, match="activation"):
        rf.ntk(X, depth=1, activation=rf.GivenDual(lambda c, a, b: c))
    scaled = rf.ntk(X, depth=2, activation=rf.GivenDual(linear), weight_variance=1.5)
    np.testing.assert_allclose(scaled, 1.5**3 * kernel, rtol=1e-12)


def test_overflow_is_refused_by_name():
    with pytest.raises(ValueError, match="activation"):
        rf.ntk([[1.0], [2.0]], depth=1, activation=rf.LeakyReLU(1e200))
    for X, depth in (([[1e200]], 1), ([[1e80]], 2)):
        with pytest.raises(ValueError, match="X1"):
            rf.ntk(X, depth=depth, activation=rf.Polynomial((0.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="X1"):
        # The kernel of the outputs is bounded, the tangent kernel is not.
        rf.ntk([[1.0]], depth=3, activation="sine", weight_variance=1e120)
    for activation in ("erf", "sine"):
        assert np.isfinite(rf.ntk([[1e150], [3.0]], depth=2, activation=activation)).all()


@pytest.mark.parametrize(("depth", "expected"), [(1, 9), (2, 25)])
def test_rank_of_a_quadratic_activation(depth, expected):
    X = points(40, 3)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    square = rf.Polynomial((0.3, 1.0, 0.5))
    kernel = rf.ntk(X, depth=depth, activation=square, weight_variance=2.0, bias_variance=0.3)
    assert np.linalg.matrix_rank(kernel, tol=1e-12 * np.linalg.norm(kernel)) == expected
    relu = rf.ntk(X, depth=depth, bias_variance=0.3)
    assert np.linalg.eigvalsh(relu)[0] > 1e-3 * relu.max() / 40
