"""Linear estimators under bounded bias: exact means of Wishart matrices, grids."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theorylab import random_features as rf

NORMS = ("frobenius", "nuclear", "spectral")


def design(n=7, p=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, p)) * np.geomspace(2, 0.3, p)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_the_bound_is_attained(norm, share):
    s = np.array([3.0, 1.0, 1.0, 0.01])
    order = {"frobenius": 2, "nuclear": 1, "spectral": np.inf}[norm]
    bound = share * float(np.linalg.norm(np.ones(4), order))
    factors = rf.least_variance_factors(s, bound, norm=norm)
    assert_allclose(np.linalg.norm(factors, order), bound, rtol=1e-10)
    assert (np.diff(factors) >= -1e-15).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bound", [1e-300, 1e-200, 1e-9, 1.0, 2.0])
def test_bounds_of_any_size_on_spectra_of_any_grade(norm, bound):
    order = {"frobenius": 2, "nuclear": 1, "spectral": np.inf}[norm]
    for s in ([1e8, 1.0, 1e-8], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0]):
        size = float(np.linalg.norm(np.ones(3), order))
        factors = rf.least_variance_factors(s, bound, norm=norm)
        if norm == "nuclear":
            # A difference from 1.
            assert_allclose(np.sum(factors), min(bound, size), rtol=1e-9, atol=1e-15)
        else:
            attained = np.linalg.norm(factors / bound, order)
            assert_allclose(attained, min(1.0, size / bound), rtol=1e-9)


def test_families_attain_their_ends():
    s = np.array([3.0, 1.0, 0.2])
    for norm in NORMS:
        assert_allclose(rf.bias_factors(s, 0.0, norm=norm), 0.0)
        assert_allclose(rf.bias_factors(s, np.inf, norm=norm), 1.0)
        assert_allclose(rf.least_variance_factors(s, 0.0, norm=norm), 0.0)
        assert_allclose(rf.least_variance_factors(s, 3.5, norm=norm), 1.0)
    X = design()
    assert_allclose(rf.shrinkage_estimator(X, np.zeros(4)), np.linalg.pinv(X), rtol=1e-9)
    ridge = rf.bias_factors(np.linalg.svd(X, compute_uv=False), 0.7, norm="frobenius")
    plain = np.linalg.solve(X.T @ X + 0.7 * np.eye(4), X.T)
    assert_allclose(rf.shrinkage_estimator(X, ridge), plain, rtol=1e-9, atol=1e-12)
    assert_allclose(rf.bias_factors(s, 3.0, norm="spectral"), 0.75)
    assert_allclose(rf.bias_factors(s, 4.0, norm="nuclear"), [0.0, 0.75, 0.99])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_units(norm, scale):
    s = np.linalg.svd(design(), compute_uv=False)
    assert_allclose(
        rf.least_variance_factors(scale * s, 0.3, norm=norm),
        rf.least_variance_factors(s, 0.3, norm=norm),
        rtol=1e-9,
        atol=1e-12,
    )
    how = {"norm": norm, "noise_variance": 0.4}
    best = rf.best_shrinkage(s, s, **how)
    moved = rf.best_shrinkage(scale * s, s / scale, **how)
    assert_allclose(moved.risk * scale**2, best.risk, rtol=2e-4)


def test_risk_against_simulation():
    X, rng = design(), np.random.default_rng(2)
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    b, beta = np.array([0.1, 0.3, 0.2, 0.6]), np.array([1.0, -0.5, 0.3, 2.0])
    y = X @ beta + np.sqrt(0.3) * rng.standard_normal((40_000, 7))
    errors = np.sum((y @ rf.shrinkage_estimator(X, b).T - beta) ** 2, axis=1)
    risk = rf.shrinkage_risk(s, b, Vt @ beta, noise_variance=0.3)
    assert abs(errors.mean() - risk) < 5 * errors.std() / 200
    assert errors.std() / 200 < 0.01 * risk


@pytest.mark.parametrize("norm", NORMS)
def test_best_strength_against_a_grid(norm):
    s, c = np.array([2.0, 1.0, 0.3]), np.array([0.2, 1.0, -0.4])
    best = rf.best_shrinkage(s, c, norm=norm, noise_variance=0.3, tol=1e-6)
    risks = [
        rf.shrinkage_risk(s, rf.bias_factors(s, t, norm=norm), c, noise_variance=0.3)
        for t in np.geomspace(1e-4, 1e4, 3000)
    ]
    assert best.lower_bound <= min(risks) <= best.risk * (1 + 1e-4)
    assert best.risk <= min(risks) * (1 + 1e-6)
    assert best.risk - best.lower_bound <= 1e-6 * best.risk
    at = rf.bias_factors(s, best.strength, norm=norm)
    assert_allclose(rf.shrinkage_risk(s, at, c, noise_variance=0.3), best.risk, rtol=1e-9)


def test_best_strength_at_the_ends():
    s = np.array([2.0, 1.0])
    nothing = rf.best_shrinkage(s, np.zeros(2), norm="nuclear", noise_variance=1.0)
    assert (nothing.strength, nothing.risk) == (np.inf, 0.0)
    silent = rf.best_shrinkage(s, np.ones(2), norm="frobenius", noise_variance=0.0)
    assert (silent.strength, silent.risk) == (0.0, 0.0)


@pytest.mark.parametrize("where", ["strongest", "weakest"])
def test_equal_bias_costs_ridge_more_variance(where):
    # The proof of the strict gain, instance by instance.
    rng = np.random.default_rng(5)
    for _ in range(30):
        s = np.sort(rng.uniform(0.1, 2.0, 5))[::-1]
        i, norm = (0, "nuclear") if where == "strongest" else (-1, "spectral")
        b = rng.uniform(0.05, 0.95)
        t = s[i] ** 2 / (1 - b) if norm == "nuclear" else b / (1 - b)
        other = rf.bias_factors(s, t, norm=norm)
        ridge = rf.bias_factors(s, s[i] ** 2 * b / (1 - b), norm="frobenius")
        assert_allclose([other[i], ridge[i]], b, rtol=1e-12)
        assert (1 - other <= 1 - ridge + 1e-15).all()
        assert ((1 - other) < (1 - ridge)).sum() >= 4


@pytest.mark.parametrize("q", [0.1, 0.5, 0.8])
def test_spectral_means_of_polynomials_and_inverses(q):
    # E tr S^2 / p and E tr S^-1 / p of Wishart matrices are known at every size.
    limit, term = rf.spectral_mean(lambda x: x**2, aspect=q)
    assert_allclose([limit, term], [1 + q, q], rtol=1e-9)
    limit, term = rf.spectral_mean(lambda x: 1 / x, aspect=q)
    assert_allclose([limit, term], [1 / (1 - q), q / (1 - q) ** 2], rtol=1e-9)
    assert_allclose(rf.spectral_mean(np.ones_like, aspect=q), [1.0, 0.0], atol=1e-12)


@pytest.mark.parametrize(("q", "alpha"), [(0.5, 0.5), (0.3, 0.2), (0.9, 0.5), (0.05, 0.9)])
def test_spectral_means_of_orthogonal_blocks(q, alpha):
    # Means of the first row of a projected projector, and of the inverse of a matrix of beta law.
    def mean(function):
        return rf.spectral_mean(function, aspect=q, block=alpha)

    assert_allclose(mean(np.ones_like), [1.0, 0.0], atol=1e-9)
    assert_allclose(mean(lambda x: x), [1.0, 0.0], atol=1e-9)
    terms = mean(lambda x: x**2), mean(lambda x: 1 / x)
    for scale, rtol in ((1e4, 1e-2), (1e6, 1e-4)):
        n, p, N = (round(scale * v) for v in (1.0, q, 1 / alpha))
        q_n, block = p / n, n / N
        squares = (n + 2 + (p - 1) * (N - n) / (N - 1)) * N / (n * (N + 2))
        inverse = (1 + (N - n) / (n - p - 1)) * block
        for exact, function, (_, term) in zip(
            (squares, inverse), (np.square, np.reciprocal), terms, strict=True
        ):
            limit, _ = rf.spectral_mean(function, aspect=q_n, block=block)
            assert_allclose((exact - limit) * p, term, rtol=rtol + 100 * q / (1 - q) / scale)


def test_supports_at_a_pole_are_refused():
    with pytest.raises(ValueError, match="aspect, block: expected a support off the poles"):
        rf.spectral_mean(np.ones_like, aspect=1 - 1e-9)
    with pytest.raises(ValueError, match="aspect, block: expected a support off the poles"):
        rf.spectral_mean(np.ones_like, aspect=0.5, block=2 / 3 - 1e-10)
    with pytest.raises(ValueError, match="block"):
        rf.spectral_mean(np.ones_like, aspect=0.5, block=0.7)
    near = rf.spectral_mean(np.reciprocal, aspect=0.9999)
    assert_allclose(near, [1e4, 0.9999e8], rtol=1e-6)
    block = 2 / 3 - 1e-4
    near = rf.spectral_mean(lambda x: 1 / (1 - block * x), aspect=0.5, block=block)
    # By symmetry: the other block of the same columns.
    other = rf.spectral_mean(np.reciprocal, aspect=0.5 * block / (1 - block), block=1 - block)
    assert_allclose(near.limit, other.limit / (1 - block), rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_limits_and_corrections_against_simulation(norm):
    n, p, t, noise = 40, 20, 1.4, 0.8
    X = np.random.default_rng(6).standard_normal((6000, n, p))
    x = np.linalg.eigvalsh(np.swapaxes(X, 1, 2) @ X / n)
    b = rf.bias_factors(np.sqrt(x.ravel()), t, norm=norm).reshape(x.shape)
    risks = np.mean(b**2 + noise * 0.5 * (1 - b) ** 2 / x, axis=1)
    limit, term = rf.shrinkage_limit(t, norm=norm, aspect=0.5, noise_variance=noise)
    error = 5 * risks.std() / np.sqrt(6000)
    assert abs(risks.mean() - limit - term / p) < error + 0.15 * abs(term) / p
    assert abs(risks.mean() - limit) > error


def test_bad_designs_are_refused():
    with pytest.raises(ValueError, match="X: expected full column rank"):
        rf.shrinkage_estimator(np.ones((3, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="X: expected full column rank"):
        rf.shrinkage_estimator(np.ones((2, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="X: expected full column rank"):
        rf.shrinkage_estimator(np.diag([1.0, 1e-14]), np.zeros(2))
    found = rf.shrinkage_estimator(np.diag([1.0, 1e-11]), np.zeros(2))
    assert_allclose(np.abs(np.diag(found)), [1.0, 1e11], rtol=1e-9)
