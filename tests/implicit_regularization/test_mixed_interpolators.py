"""Interpolators of least norm: KKT conditions, brute force over supports, exact expectations."""

import importlib
from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theorylab.implicit_regularization import (
    InterpolatorStatus,
    min_l2_risk,
    min_norm_interpolator,
    mirror_potential,
    sparse_interpolator_bound,
    sparse_regression,
    universal_linear,
)


@pytest.mark.parametrize("seed", range(4))
def test_least_l1_norm_by_all_supports(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((3, 8)), rng.standard_normal(3)
    found = min_norm_interpolator(X, y, p=1)
    best = min(np.abs(np.linalg.solve(X[:, list(s)], y)).sum() for s in combinations(range(8), 3))
    assert found.status is InterpolatorStatus.OPTIMAL
    assert_allclose(found.norm, best, rtol=1e-10)
    assert np.count_nonzero(found.predictor) <= 3
    assert np.abs(X.T @ found.dual).max() <= 1 + 1e-12
    assert_allclose(y @ found.dual, best, rtol=1e-10)


def test_least_l2_norm_is_the_pseudoinverse():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((4, 9)), rng.standard_normal(4)
    found = min_norm_interpolator(X, y, p=2)
    assert_allclose(found.predictor, np.linalg.pinv(X) @ y)
    assert_allclose(found.lower_bound, found.norm)
    assert_allclose(np.linalg.norm(X.T @ found.dual), 1)


@pytest.mark.parametrize("p", [1, 2])
def test_systems_of_deficient_rank(p):
    X = np.array([[1.0, 2.0, 0.5], [2.0, 4.0, 1.0]])
    found = min_norm_interpolator(X, [1.0, 2.0], p=p)
    assert found.residual < 1e-12
    assert found.gap < 1e-9
    with pytest.raises(ValueError, match="X, y: expected a system"):
        min_norm_interpolator(X, [1.0, 2.1], p=p)
    with pytest.raises(ValueError, match="X, y: expected a system"):
        min_norm_interpolator(np.zeros((2, 3)), [1.0, 2.0], p=p)
    nothing = min_norm_interpolator(X, [0.0, 0.0], p=p)
    assert nothing.norm == 0
    assert nothing.gap == 0


@pytest.mark.parametrize("p", [1, 2])
def test_units(p):
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((3, 7)), rng.standard_normal(3)
    one = min_norm_interpolator(X, y, p=p)
    for s in (1e-120, 1e120):
        scaled = min_norm_interpolator(s * X, y, p=p)
        assert_allclose(scaled.predictor * s, one.predictor, rtol=1e-9, atol=1e-12)
        assert_allclose(scaled.dual * s * (y @ one.dual) / (y @ scaled.dual) / s, one.dual)


def test_risk_of_one_sample():
    # n = 1: E 1 / chi^2_d = 1 / (d - 2).
    assert_allclose(min_l2_risk(1, 12, signal_norm=0.0, noise_scale=2.0), 4 / 10)
    assert_allclose(min_l2_risk(1, 12, signal_norm=3.0, noise_scale=0.0), 9 * 11 / 12)
    with pytest.raises(ValueError, match="d: expected an integer >= 5"):
        min_l2_risk(3, 4, signal_norm=1.0, noise_scale=1.0)


def test_sparse_bound_by_its_parts():
    # The mean sum of the largest squares, simulated, is below the one that the bound has.
    rng = np.random.default_rng(3)
    n, d = 5, 60
    squares = np.sort(rng.standard_normal((5000, d)) ** 2, axis=1)[:, -n:].sum(axis=1)
    largest = (
        np.sqrt(n / sparse_interpolator_bound(n, d, sparsity=0, noise_scale=1.0) - 1) - np.sqrt(n)
    ) ** 2
    assert 0.9 * largest < squares.mean() < largest
    norms = []
    for _ in range(100):
        X = rng.standard_normal((2, 10))
        norms.append(max(np.linalg.norm(X[:, list(s)], 2) for s in combinations(range(10), 2)))
    bound = sparse_interpolator_bound(2, 10, sparsity=0, noise_scale=1.0)
    assert np.mean(np.square(norms)) < 2 / bound
    full = sparse_interpolator_bound(5, 5, sparsity=3, noise_scale=1.0)
    assert_allclose(full, 5 / (1 + 4 * 5))
    assert_allclose(sparse_interpolator_bound(5, 5, sparsity=3, noise_scale=3.0), 9 * full)


def test_sparse_regression_is_what_it_says():
    problem = sparse_regression(200, 50, sparsity=2, signal_norm=3.0, noise_scale=0.5, seed=4)
    assert_allclose(problem.y, problem.X @ problem.signal + problem.noise)
    assert_allclose(np.linalg.norm(problem.signal), 3.0)
    assert np.count_nonzero(problem.signal) == 2
    assert 0.4 < problem.noise.std() < 0.6
    assert not sparse_regression(2, 3, sparsity=0, seed=1).signal.any()


def test_statuses_and_multipliers_of_the_linear_program(monkeypatch):
    module = importlib.import_module("theorylab.implicit_regularization.mixed_interpolators")
    # Fewer entries than rows: least squares on the support gives no multipliers.
    X = np.array([[1.0, 0.9, 0.2], [1.0, -0.2, 0.9]])
    found = min_norm_interpolator(X, [1.0, 1.0], p=1)
    assert_allclose(found.predictor, [1.0, 0.0, 0.0], atol=1e-12)
    assert found.gap < 1e-9
    X = np.array([[1.0, 1.4, -0.9], [1.0, 0.3, 1.3]])
    found = min_norm_interpolator(X, [1.0, 1.0], p=1)
    best = min(np.abs(np.linalg.solve(X[:, list(s)], [1.0, 1.0])).sum() for s in ((0, 1), (1, 2)))
    assert_allclose(found.norm, min(best, 1.0))
    assert found.status is InterpolatorStatus.OPTIMAL
    wrong = np.array([0.0, 0.0, 2.0]), np.array([0.1, 0.1])
    monkeypatch.setattr(module, "_least_sum", lambda *_: wrong)
    assert min_norm_interpolator(X, [1.0, 1.0], p=1).status is InterpolatorStatus.INACCURATE


def test_universal_linear_is_the_lasso():
    linear = universal_linear(50, 400, noise_scale=0.3, scale=1e-6)
    penalty = 400 * linear**2 * np.log(1e6) / 2
    assert_allclose(penalty, 0.3 * np.sqrt(100 * np.log(400)))
    with pytest.raises(ValueError, match="scale: expected a finite real number"):
        universal_linear(5, 9, noise_scale=0.3, scale=1.0)


def test_mixed_potential_is_the_lasso_for_tiny_starts():
    # Slope log(1 / alpha^2) beyond the quadratic part 2 b^2 / lambda^2: the knee, by the potential.
    linear, scale = 0.1, 1e-30
    slopes = mirror_potential([1e-3, 1.0], scale=scale, linear=linear).gradient
    assert_allclose(slopes[0], 4e-3 / linear**2, rtol=1e-9)
    assert_allclose(slopes[1], np.log(1 / scale**2), rtol=0.02)


def test_multipliers_where_the_least_squares_certificate_is_infeasible():
    needed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X, beta = rng.standard_normal((6, 12)), np.zeros(12)
        beta[:3] = rng.standard_normal(3)
        found = min_norm_interpolator(X, X @ beta, p=1)
        kept = np.abs(found.predictor) > 1e-9
        certificate = np.linalg.lstsq(X[:, kept].T, np.sign(found.predictor[kept]), rcond=None)[0]
        needed += np.abs(X.T @ certificate).max() > 1 + 1e-6
        assert found.gap <= 1e-9
        assert np.abs(X.T @ found.dual).max() <= 1 + 1e-9
        assert_allclose(found.dual @ (X @ beta), np.abs(found.predictor).sum(), rtol=1e-9)
    assert needed
