"""Kernels on the sphere: angular integrals, other quadratures, series, finite differences."""

from math import comb, pi

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import eval_gegenbauer

from theorylab.random_features import (
    arc_cosine_eigenvalues,
    arc_cosine_kernel,
    arc_cosine_singularity,
    harmonic_counts,
    linear_activation,
    linearisation_error,
    output_kernel,
    rectified_power,
    sampled_tangent_kernel,
    singular_eigenvalues,
    sphere_eigenvalues,
    tangent_eigenvalues,
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


def legendre(k, d, u):
    if d == 2:
        return np.cos(k * np.arccos(u))
    return eval_gegenbauer(k, d / 2 - 1, u) / eval_gegenbauer(k, d / 2 - 1, 1.0)


def projected(kernel, k, d):
    """An eigenvalue by adaptive quadrature in the angle."""
    total = quad(lambda t: np.sin(t) ** (d - 2), 0, pi)[0]

    def integrand(t):
        return float(kernel(t)) * legendre(k, d, np.cos(t)) * np.sin(t) ** (d - 2)

    return quad(integrand, 0, pi, epsabs=1e-13, limit=200)[0] / total


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


@pytest.mark.parametrize("d", [2, 3, 6])
def test_eigenvalues_against_adaptive_quadrature(d):
    for factors in ([RELU], [RELU, RELU]):
        found = sphere_eigenvalues(
            lambda t, f=factors: tangent_kernel(t, f), dimension=d, n_degrees=12
        )
        wanted = [projected(lambda t, f=factors: tangent_kernel(t, f), k, d) for k in range(12)]
        assert_allclose(found, wanted, atol=1e-11)


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("d", [2, 3, 5, 8])
def test_closed_forms_against_quadrature(order, d):
    rule = {"dimension": d, "n_degrees": 24}
    closed = arc_cosine_eigenvalues(order=order, **rule)
    assert_allclose(
        closed, sphere_eigenvalues(lambda t: arc_cosine_kernel(t, order=order), **rule), atol=1e-14
    )
    assert (closed >= 0).all()
    assert (closed[order + 2 :: 2] == 0).all()
    assert (closed[order + 1 :: 2] > 0).all()
    if order:
        phi = [rectified_power(order)]
        tangent = tangent_eigenvalues(order=order, **rule)
        assert_allclose(
            tangent, sphere_eigenvalues(lambda t: tangent_kernel(t, phi), **rule), atol=2e-14
        )
    # The trace: the sum over all harmonics is the kernel at angle 0.
    many = {"dimension": d, "n_degrees": 4000}
    total = arc_cosine_eigenvalues(order=order, **many) @ harmonic_counts(**many)
    assert_allclose(total, 1.0, rtol=1e-3 if order == 0 else 1e-6)


@pytest.mark.parametrize("d", [2, 3, 7])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_singularity_decides_the_decay(order, d):
    rule = {"dimension": d, "n_degrees": 3001}
    k = 3000 - (order % 2 == 0)
    power = singular_eigenvalues(order + 0.5, **rule)[k]
    ratio = arc_cosine_eigenvalues(order=order, **rule)[k] / power
    assert_allclose(ratio, 2 * arc_cosine_singularity(order), rtol=1e-6)


def test_singular_eigenvalues_against_quadrature():
    for nu in (0.5, 1.5, 2.0, 0.3):
        for d in (2, 4):
            found = singular_eigenvalues(nu, dimension=d, n_degrees=8)
            wanted = [projected(lambda t, n=nu: (1 - np.cos(t)) ** n, k, d) for k in range(8)]
            assert_allclose(found, wanted, atol=1e-8)


def test_harmonic_counts():
    for d in (2, 3, 4, 9):
        counts = [
            comb(k + d - 1, d - 1) - (comb(k + d - 3, d - 1) if k > 1 else 0) for k in range(9)
        ]
        assert harmonic_counts(dimension=d, n_degrees=9).tolist() == counts


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
        arc_cosine_kernel(3.2, order=1)
    with pytest.raises(ValueError, match="factors: expected a list"):
        tangent_kernel(0.1, [])
    with pytest.raises(ValueError, match="W: expected two axes"):
        linearisation_error([1.0], [1.0], [1.0], [[1.0]], activation=RELU)
    with pytest.raises(ValueError, match="x, y: expected magnitudes"):
        sampled_tangent_kernel([1e300], [1e300], [RELU], width=2, seed=0)
