"""Spectra on the sphere: adaptive quadrature, closed forms, traces, asymptotic laws."""

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
    rectified_power,
    singular_eigenvalues,
    sphere_eigenvalues,
    tangent_eigenvalues,
    tangent_kernel,
)

RELU = rectified_power(1)


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
    with pytest.raises(ValueError, match="dimension, n_degrees: expected magnitudes"):
        harmonic_counts(dimension=100, n_degrees=100_000)
