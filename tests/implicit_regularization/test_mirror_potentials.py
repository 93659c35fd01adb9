"""Mirror potentials: quadrature, finite differences, cvxpy-free optimality, limits of norms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import brentq, minimize

from theorylab.implicit_regularization import (
    MirrorStatus,
    min_norm_interpolator,
    mirror_interpolator,
    mirror_map,
    mirror_potential,
)


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 0.3, 40.0])
@pytest.mark.parametrize("linear", [0.0, 0.01, 2.0])
def test_gradient_inverts_the_map(scale, linear):
    if scale == linear == 0:
        with pytest.raises(ValueError, match="scale: expected positive"):
            mirror_potential([1.0], scale=scale, linear=linear)
        return
    beta = np.array([0.0, 1e-9, 0.3, -2.0, 1e4])
    rho = mirror_potential(beta, scale=scale, linear=linear).gradient
    assert_allclose(mirror_map(rho, scale=scale, linear=linear), beta, rtol=1e-11, atol=1e-22)
    for b, r in zip(beta[2:4], rho[2:4], strict=True):
        if scale == 0:
            found = 4 * b / linear**2
        elif linear == 0:
            found = np.arcsinh(b / (2 * scale**2))
        else:

            def error(x, c=b):
                return 2 * scale**2 * np.sinh(x) + linear**2 / 4 * x - c

            found = brentq(error, -300, 300, xtol=1e-16)
        assert_allclose(r, found, rtol=1e-9)


def test_value_is_the_integral_of_the_gradient():
    for linear in (0.0, 0.7):
        value = mirror_potential([1.7], scale=0.2, linear=linear).value

        def slope(b, m=linear):
            return mirror_potential([b], scale=0.2, linear=m).gradient[0]

        assert_allclose(value, quad(slope, 0, 1.7)[0], rtol=1e-9)


def test_interpolator_is_the_minimum_by_another_solver():
    X, y = problem(3, 6)
    scale, linear = np.linspace(0.1, 0.6, 6), 0.4
    found = mirror_interpolator(X, y, scale=scale, linear=linear)
    assert found.status is MirrorStatus.CONVERGED
    assert_allclose(X @ found.predictor, y, atol=1e-10)
    rho = X.T @ found.dual
    assert_allclose(mirror_map(rho, scale=scale, linear=linear), found.predictor, rtol=1e-8)
    assert found.gap < 1e-12
    kernel = np.linalg.svd(X)[2][3:]
    start = np.linalg.lstsq(X, y, rcond=None)[0]
    other = minimize(
        lambda z: mirror_potential(start + kernel.T @ z, scale=scale, linear=linear).value,
        np.zeros(3),
        tol=1e-12,
    )
    assert_allclose(found.predictor, start + kernel.T @ other.x, atol=1e-5)
    assert_allclose(found.potential, other.fun, rtol=1e-9)
    worse = found.predictor + 0.01 * kernel[0]
    assert mirror_potential(worse, scale=scale, linear=linear).value > found.lower_bound


def test_limits_are_the_least_norms():
    X, y = problem(4, 11, 1)
    l1, l2 = (min_norm_interpolator(X, y, p=p).predictor for p in (1, 2))
    errors = [
        np.abs(mirror_interpolator(X, y, scale=s).predictor - l1).max() for s in (1e-2, 1e-6, 1e-40)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6
    assert_allclose(mirror_interpolator(X, y, scale=1e4).predictor, l2, atol=1e-7)
    quadratic = mirror_interpolator(X, y, scale=0.0, linear=0.3)
    assert_allclose(quadratic.predictor, l2, atol=1e-10)
    assert quadratic.iterations <= 3  # a Newton step is exact
    assert np.abs(l1 - l2).max() > 0.02


def test_units_and_order_do_not_matter():
    X, y = problem(3, 7, 2)
    one = mirror_interpolator(X, y, scale=0.2, linear=0.3).predictor
    for s in (1e-60, 1e-7, 1e7, 1e60):
        root = np.sqrt(s)
        scaled = mirror_interpolator(X, s * y, scale=0.2 * root, linear=0.3 * root)
        assert_allclose(scaled.predictor / s, one, rtol=1e-8)
        inputs = mirror_interpolator(s * X, y, scale=0.2 / root, linear=0.3 / root)
        assert_allclose(inputs.predictor * s, one, rtol=1e-8)
        rho = s * X.T @ inputs.dual
        turned = mirror_map(rho, scale=0.2 / root, linear=0.3 / root)
        assert_allclose(turned, inputs.predictor, rtol=1e-7)
    order = np.random.default_rng(0).permutation(7)
    turned = mirror_interpolator(X[::-1][:, order], y[::-1], scale=0.2, linear=0.3)
    assert_allclose(turned.predictor, one[order], rtol=1e-9)


def test_dependent_rows_and_budgets_are_reported():
    X = np.array([[1.0, 2.0], [1.0, 2.0]])
    stuck = mirror_interpolator(X, [1.0, 2.0], scale=0.3, max_iter=30)
    assert stuck.status is MirrorStatus.NOT_CONVERGED
    assert stuck.residual > 0.1
    assert mirror_interpolator(X, [1.0, 1.0], scale=0.3).residual < 1e-9
    short = mirror_interpolator(*problem(4, 9), scale=1e-9, max_iter=2)
    assert short.status is MirrorStatus.NOT_CONVERGED


def test_status_is_the_residual():
    X, y = problem(4, 9)
    runs = [mirror_interpolator(X, y, scale=0.1, max_iter=k) for k in range(1, 12)]
    for run in runs:
        assert (run.status is MirrorStatus.CONVERGED) == (run.residual <= 1e-11)
    assert any(1e-11 < run.residual < 1e-5 for run in runs)
