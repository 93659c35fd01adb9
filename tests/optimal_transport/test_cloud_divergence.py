"""The variational divergence: quadrature, general-purpose maximisers, closed forms, bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm

from theorylab.optimal_transport import (
    best_witness,
    cloud_divergence,
    gaussian_divergence,
    variational_divergence,
)


def cloud(n, d, seed, shift=1.0):
    rng = np.random.default_rng(seed)
    return shift + rng.exponential(size=(n, d)) @ rng.normal(size=(d, d))


def moments(X):
    return X.mean(axis=0), np.atleast_2d(np.cov(X.T, bias=True))


def test_the_objective_by_quadrature():
    X = cloud(20, 2, 0)
    A, b, c = np.array([[0.3, 0.2], [0.2, -1.0]]), np.array([0.4, -0.7]), 0.3
    nodes, weights = hermegauss(80)
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    measure = np.outer(weights, weights).ravel() / (2 * np.pi)

    def h(Z):
        return c + Z @ b + 0.5 * np.sum((Z @ A) * Z, axis=1)

    value = 1 + h(X).mean() - measure @ np.exp(h(grid))
    assert_allclose(variational_divergence(X, A, b, c), value, rtol=1e-9)
    assert variational_divergence(X, np.eye(2), b, c) == -np.inf
    assert variational_divergence(X, np.diag([0.0, 1.5]), b, c) == -np.inf


def test_gaussian_divergence_by_quadrature():
    p = norm(0.7, 0.4)
    value = quad(lambda x: p.pdf(x) * (p.logpdf(x) - norm.logpdf(x)), -4, 5)[0]
    assert_allclose(gaussian_divergence([0.7], [[0.16]]), value, rtol=1e-9)
    m, S = moments(cloud(30, 3, 1))
    sample = np.random.default_rng(0).multivariate_normal(m, S, 200_000)
    ratio = multivariate_normal(m, S).logpdf(sample) - multivariate_normal(np.zeros(3)).logpdf(
        sample
    )
    assert abs(gaussian_divergence(m, S) - ratio.mean()) < 5 * ratio.std() / np.sqrt(len(ratio))
    assert gaussian_divergence(np.zeros(2), np.eye(2)) == 0
    with pytest.raises(ValueError, match="covariance: expected a positive definite"):
        gaussian_divergence([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]])


@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(-3, 3))
def test_the_supremum_is_the_divergence_of_the_moments(seed, d, shift):
    X = cloud(d + 12, d, seed, shift)
    m, S = moments(X)
    if np.linalg.cond(S) > 1e6:
        return
    h = best_witness(X)
    assert_allclose(h.value, gaussian_divergence(m, S), rtol=1e-9, atol=1e-10)
    assert_allclose(h.bound, h.value, rtol=1e-9, atol=1e-12)
    # The witness is the logarithm of the ratio of the two densities.
    points = np.random.default_rng(seed).normal(size=(5, d))
    values = h.offset + points @ h.slope + np.einsum("ij,jk,ik->i", points, h.curvature, points) / 2
    ratio = multivariate_normal(m, S).logpdf(points) - multivariate_normal(np.zeros(d)).logpdf(
        points
    )
    assert_allclose(values, ratio, rtol=1e-6, atol=1e-6 * np.linalg.cond(S))


def test_against_a_general_maximiser_of_all_six_parameters():
    X = cloud(30, 2, 7)

    def objective(z):
        return -variational_divergence(X, [[z[0], z[1]], [z[1], z[2]]], z[3:5], z[5])

    found = minimize(
        objective,
        np.zeros(6),
        method="Nelder-Mead",
        options={"maxiter": 8000, "maxfev": 8000, "xatol": 1e-9, "fatol": 1e-12},
    )
    h = best_witness(X)
    assert_allclose(-found.fun, h.value, rtol=1e-6)
    assert -found.fun <= h.bound * (1 + 1e-12)


@given(st.integers(0, 10**6), st.integers(0, 14))
def test_the_bound_holds_wherever_the_search_stops(seed, rounds):
    X = cloud(10, 2, seed, 0.3)
    m, S = moments(X)
    if np.linalg.cond(S) > 1e4:
        return
    full, best = best_witness(X), gaussian_divergence(m, S)
    if rounds >= full.n_iterations:
        return
    before, cloud_divergence._ROUNDS = cloud_divergence._ROUNDS, rounds
    try:
        with pytest.warns(UserWarning, match="stopped above rounding"):
            h = best_witness(X)
    finally:
        cloud_divergence._ROUNDS = before
    assert h.n_iterations == rounds
    assert h.value <= best * (1 + 1e-10) + 1e-12
    assert h.bound >= best * (1 - 1e-10) - 1e-12


def test_the_bound_is_useful_before_the_end():
    X = cloud(10, 2, 3, 0.3)
    before, cloud_divergence._ROUNDS = cloud_divergence._ROUNDS, best_witness(X).n_iterations - 2
    try:
        with pytest.warns(UserWarning, match="stopped"):
            h = best_witness(X)
    finally:
        cloud_divergence._ROUNDS = before
    assert 1e-9 < h.bound - h.value < 0.1 * h.value


def test_the_bound_is_that_of_the_decrement(monkeypatch):
    """After one step from N(0, r^2 I): squared decrement 2 |m|^2 + |S - I|^2 in units of r."""
    for scale, offset in (
        ([1.0, 1.0], [0.3, 0.0]),
        ([1.2, 0.8], [0.1, -0.2]),
        ([3.0, 0.5], [2, 1]),
    ):
        X = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) * scale + offset
        Z = X / np.sqrt(np.mean(X**2))
        m, E = Z.mean(axis=0), Z.T @ Z / 4 - np.eye(2)
        decrement = np.sqrt(2 * m @ m + np.sum(E**2))
        monkeypatch.setattr(cloud_divergence, "_ROUNDS", 1)
        with pytest.warns(UserWarning, match="stopped"):
            h = best_witness(X)
        if decrement >= 1:
            assert h.bound == np.inf
        else:
            room = (-decrement - np.log(1 - decrement)) / 2
            assert_allclose(h.bound - h.value, room, rtol=1e-9)


def test_the_steps_are_those_of_newton_in_the_coefficients(monkeypatch):
    """In dimension 1, log E_Q exp(h) is b^2 / (2 (1 - A)) - log(1 - A) / 2: its Hessian by hand."""
    X = np.array([[-1.0], [0.5], [4.0]])
    mean, second = X.mean(), np.mean(X**2)
    b, A = 0.0, 1 - 1 / second
    for rounds in range(1, 6):
        p = 1 - A
        slope = np.array([mean - b / p, (second - 1 / p - b**2 / p**2) / 2])
        hessian = np.array([[1 / p, b / p**2], [b / p**2, b**2 / p**3 + 1 / (2 * p**2)]])
        step = np.linalg.solve(hessian, slope)
        decrement = np.sqrt(2 * slope @ step)
        length = 1 if decrement < 0.25 else 1 / (1 + decrement)
        b, A = np.array([b, A]) + length * step
        monkeypatch.setattr(cloud_divergence, "_ROUNDS", rounds)
        with pytest.warns(UserWarning, match="stopped"):
            h = best_witness(X)
        assert_allclose([h.slope[0], h.curvature[0, 0]], [b, A], rtol=1e-9)


def test_blindness_beyond_second_moments_and_affine_functions():
    X = cloud(40, 2, 2)
    m, S = moments(X)
    Z = np.random.default_rng(1).choice([-1.0, 1.0], (60, 2))
    Z = Z - Z.mean(axis=0)
    roots = np.linalg.cholesky(moments(Z)[1]), np.linalg.cholesky(S)
    other = m + np.linalg.solve(roots[0], Z.T).T @ roots[1].T
    assert_allclose(best_witness(other).value, best_witness(X).value, rtol=1e-10)
    affine = best_witness(X, quadratic=False)
    assert_allclose(affine.value, m @ m / 2, rtol=1e-12)
    assert_allclose(affine.slope, m, rtol=1e-12)
    assert not affine.curvature.any()
    assert affine.value < best_witness(X).value
    assert_allclose(best_witness([[1.0, 2.0]], quadratic=False).value, 2.5)


def test_scales_and_what_is_refused():
    X = cloud(30, 2, 4, 0.0)
    for unit in (1e-5, 1e5):
        assert_allclose(
            best_witness(unit * X).value, gaussian_divergence(*moments(unit * X)), rtol=1e-8
        )
        assert best_witness(unit * X).n_iterations < 30
    with pytest.raises(ValueError, match="X: expected magnitudes"):
        best_witness(1e9 * X)
    for flat in (
        X[:1],
        X[:2],
        np.random.default_rng(0).normal(size=(3, 7)),
        np.ones((5, 2)),
        X @ [[1.0, 1.0], [1.0, 1.0]],
    ):
        with pytest.raises(ValueError, match="X: expected points whose covariance"):
            best_witness(flat)
    assert "dimension 2" in repr(best_witness(X))
