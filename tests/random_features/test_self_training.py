import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import chi2
from sklearn.linear_model import LinearRegression, Ridge

from theorylab import random_features as rf

LAM = np.arange(1, 13) ** -0.8
TRUTH = np.cos(np.arange(12.0))


def final(n, T0, T, ridge, own, noise):
    return {
        "n_samples": np.array([T0] * n + [T]),
        "ridge": np.array([0.0] * n + [ridge]),
        "noise_variance": np.array([own] * n + [noise]),
    }


def test_least_squares_then_ridge_is_the_published_formula():
    n, T0, T, ridge, own, noise = 3, 40, 25, 2.0, 0.3, 0.2
    risk = rf.self_training_risk(LAM, TRUTH, **final(n, T0, T, ridge, own, noise))
    d, kappa = LAM.size, risk.kappa[-1]
    assert ridge / T == pytest.approx(kappa * (1 - (LAM / (LAM + kappa)).sum() / T), rel=1e-12)
    df2 = ((LAM / (LAM + kappa)) ** 2).sum()
    u = df2 / T
    clean = (kappa**2 * (TRUTH**2 * LAM / (LAM + kappa) ** 2).sum() + noise * u) / (1 - u)
    rho = (df2 + kappa**2 * (1 / (LAM + kappa) ** 2).sum() * u / (1 - u)) / (T0 - d)
    assert risk.test_risk[-1] == pytest.approx(clean + n * own * rho, rel=1e-12)
    early = own * np.arange(1, n + 1) * d / (T0 - d)
    np.testing.assert_allclose(risk.test_risk[:-1], early, rtol=1e-12)
    np.testing.assert_allclose(risk.test_risk, risk.signal + risk.variance, rtol=1e-14)


def test_one_generation_is_kernel_regression():
    for ridge in (0.0, 0.4, 5.0):
        for T in (5, 30):
            one = rf.self_training_risk(
                LAM, TRUTH, n_samples=[T], ridge=ridge, noise_variance=0.3
            ).test_risk[0]
            other = rf.kernel_ridge_risk(
                LAM, np.sqrt(LAM) * TRUTH, n_samples=T, ridge=ridge, noise_variance=0.3
            ).test_risk
            assert one == pytest.approx(other - 0.3, rel=1e-11)


def test_few_rows_lose_a_share_in_every_generation():
    d, T, sigma2 = 50, 20, 0.1
    m, eta = np.arange(1, 6), T / d
    risk = rf.self_training_risk(
        np.full(d, 3.0), np.ones(d), n_samples=[T] * 5, noise_variance=sigma2
    )
    np.testing.assert_allclose(risk.signal, 3 * d * (1 - eta**m), rtol=1e-12)
    geometric = (1 - eta**m) / (1 - eta)
    np.testing.assert_allclose(risk.variance, sigma2 * T / (d - T) * geometric, rtol=1e-12)
    exact = rf.exact_self_training_risk(
        np.full(d, 3.0), np.ones(d), n_samples=[T] * 5, noise_variance=sigma2
    )
    expected = 3 * d * (1 - eta**m) + sigma2 * T / (d - T - 1) * geometric
    np.testing.assert_allclose(exact, expected, rtol=1e-12)


def test_simulation_is_a_chain_of_library_fits():
    rng = np.random.default_rng(0)
    rows = {6: rng.standard_normal((6, 12)), 30: rng.standard_normal((30, 12))}
    errors = rf.simulate_self_training(
        LAM,
        TRUTH,
        n_samples=[30, 6, 30],
        ridge=[0.0, 0.7, 0.0],
        n_draws=1,
        rng=rng,
        draw_design=lambda _, count: rows[count],
    )[0]
    w, expected = TRUTH, []
    for count, fit in (
        (30, LinearRegression(fit_intercept=False)),
        (6, Ridge(alpha=0.7, fit_intercept=False, solver="cholesky")),
        (30, LinearRegression(fit_intercept=False)),
    ):
        w = fit.fit(rows[count], rows[count] @ w).coef_
        expected.append(LAM @ (w - TRUTH) ** 2)
    np.testing.assert_allclose(errors, expected, rtol=1e-8, atol=1e-12)


def test_simulated_noise_is_averaged_exactly():
    rng = np.random.default_rng(1)
    fixed = {T: rng.standard_normal((T, 12)) * np.sqrt(LAM) for T in (20, 8)}
    stages = {"n_samples": [20, 8], "ridge": [1.0, 0.5], "noise_variance": [0.3, 0.2]}
    exact = rf.simulate_self_training(
        LAM, TRUTH, **stages, n_draws=1, rng=rng, draw_design=lambda _, count: fixed[count]
    )[0]
    found = []
    for _ in range(4000):
        w, row = TRUTH, []
        for T, ridge, noise in zip((20, 8), (1.0, 0.5), (0.3, 0.2), strict=True):
            X = fixed[T]
            y = X @ w + math.sqrt(noise) * rng.standard_normal(T)
            w = np.linalg.solve(X.T @ X + ridge * np.eye(12), X.T @ y)
            row.append(LAM @ (w - TRUTH) ** 2)
        found.append(row)
    error = 5 * np.std(found, axis=0) / math.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - exact) < error).all()
    assert (error < 0.1 * exact).all()


def test_a_ridge_in_every_generation_against_simulation_at_two_sizes():
    gaps = []
    for c in (1, 3):
        lam = (np.arange(1, 12 * c + 1) / (12 * c)) ** -1.0
        truth = np.cos(np.arange(12.0 * c)) / math.sqrt(c)
        stages = {
            "n_samples": np.array([18, 8, 14]) * c,
            "ridge": np.array([2.0, 5.0, 1.0]) * c,
            "noise_variance": np.array([0.5, 0.2, 0.4]),
        }
        runs = rf.simulate_self_training(
            lam, truth, **stages, n_draws=2400 // c**2, rng=np.random.default_rng(c)
        )
        mean = runs.mean(axis=0)
        gaps.append(np.abs(mean / rf.self_training_risk(lam, truth, **stages).test_risk - 1))
        noise = 4 * runs.std(axis=0) / math.sqrt(len(runs)) / mean
        assert (gaps[-1] < 1.3 / (8 * c) + noise).all()
    assert gaps[1].max() < 0.08


@pytest.mark.parametrize("ridge", [0.5, 4.0])
def test_finite_size_term_is_what_is_left(ridge):
    stages = final(2, 30, 18, ridge, 0.4, 0.2)
    runs = rf.simulate_self_training(
        LAM, TRUTH, **stages, n_draws=5000, rng=np.random.default_rng(5)
    )[:, -1]
    predicted = rf.self_training_risk(LAM, TRUTH, **stages).test_risk[-1]
    term = rf.self_training_finite_size_term(
        LAM,
        TRUTH,
        n_samples=stages["n_samples"],
        final_ridge=ridge,
        noise_variance=stages["noise_variance"],
    )
    noise = 5 * runs.std() / math.sqrt(len(runs))
    assert abs(runs.mean() - predicted - term) < noise + term**2 / predicted
    assert noise + term**2 / predicted < 0.6 * abs(term)


def test_finite_size_term_of_a_tiny_ridge_is_that_of_least_squares():
    stages = {"n_samples": [40, 50, 3000], "noise_variance": [0.1, 0.3, 0.5]}
    term = rf.self_training_finite_size_term(LAM, TRUTH, **stages, final_ridge=1e-9)
    exact = rf.exact_self_training_risk(LAM, TRUTH, **stages)[-1]
    plain = rf.self_training_risk(LAM, TRUTH, **stages).test_risk[-1]
    assert term == pytest.approx(exact - plain, rel=1e-5)


@pytest.mark.parametrize(("n", "noise"), [(0, 0.2), (3, 0.2), (3, 0.0)])
def test_best_final_ridge_is_the_minimum_of_the_prediction(n, noise):
    stages = final(n, 40, 25, 0.0, 0.3, noise)
    best = rf.optimal_final_ridge(
        LAM, TRUTH, n_samples=stages["n_samples"], noise_variance=stages["noise_variance"]
    )

    def risk(log_ridge):
        ridge = math.exp(log_ridge)
        return rf.self_training_risk(LAM, TRUTH, **final(n, 40, 25, ridge, 0.3, noise)).test_risk[
            -1
        ]

    found = minimize_scalar(risk, bracket=(-2.0, 2.0), tol=1e-10)
    assert best.test_risk == pytest.approx(found.fun, rel=1e-10)
    assert best.ridge == pytest.approx(math.exp(found.x), rel=1e-5)


def test_best_final_ridge_of_an_isotropic_problem_and_without_noise():
    # d sigma^2 / |w|^2, in units of the covariance.
    best = rf.optimal_final_ridge(
        np.full(40, 5.0), np.full(40, 0.5), n_samples=100, noise_variance=0.5
    )
    assert best.ridge == pytest.approx(0.5 * 40 / 10, rel=1e-5)
    none = rf.optimal_final_ridge(LAM, TRUTH, n_samples=[40])
    assert (none.ridge, none.test_risk) == (0.0, 0.0)


def test_at_as_many_rows_as_modes_the_error_is_infinite():
    risk = rf.self_training_risk(np.ones(3), np.ones(3), n_samples=[5, 3, 5], noise_variance=0.1)
    assert risk.test_risk[0] == pytest.approx(0.15)
    assert np.isinf(risk.test_risk[1:]).all()
    assert rf.self_training_risk(np.ones(3), np.ones(3), n_samples=3).test_risk[0] == 0.0
    for T in (2, 3, 4):
        exact = rf.exact_self_training_risk(np.ones(3), np.ones(3), n_samples=T, noise_variance=1.0)
        assert np.isinf(exact).all()


def test_units_do_not_matter():
    stages = final(2, 30, 18, 1.5, 0.4, 0.2)
    base = rf.self_training_risk(LAM, TRUTH, **stages).test_risk
    for s, t in ((1e-10, 1e6), (1e12, 1e-7)):
        scaled = rf.self_training_risk(
            s * LAM,
            t * TRUTH,
            n_samples=stages["n_samples"],
            ridge=s * stages["ridge"],
            noise_variance=s * t * t * stages["noise_variance"],
        ).test_risk
        np.testing.assert_allclose(scaled, s * t * t * base, rtol=1e-11)


def test_bad_generations_are_refused_by_name():
    with pytest.raises(ValueError, match="noise_variance: expected 2 entries"):
        rf.self_training_risk(LAM, TRUTH, n_samples=[20, 20], noise_variance=[0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="n_samples: expected at least 12 rows"):
        rf.exact_self_training_risk(LAM, TRUTH, n_samples=[5])
    with pytest.raises(ValueError, match="n_samples: expected more than 13"):
        rf.self_training_finite_size_term(LAM, TRUTH, n_samples=[13, 20], final_ridge=1.0)
    with pytest.raises(ValueError, match="draw_design"):
        rf.simulate_self_training(
            LAM,
            TRUTH,
            n_samples=[5],
            n_draws=1,
            rng=np.random.default_rng(0),
            draw_design=lambda rng, n: np.ones((n, 3)),
        )


def test_finite_size_term_of_one_mode_against_its_integral():
    T, ridge = 60, 30.0
    stages = {"n_samples": [20, T], "noise_variance": [1.0, 0.0]}
    plain = rf.self_training_risk([1.0], [0.0], ridge=[0.0, ridge], **stages).test_risk[-1]
    term = rf.self_training_finite_size_term([1.0], [0.0], final_ridge=ridge, **stages)
    kept = chi2(T).expect(lambda g: (g / (g + ridge)) ** 2) / 18
    assert plain + term == pytest.approx(kept, rel=5e-4)
    assert abs(plain / kept - 1) > 0.01


@pytest.mark.parametrize("noise", [1e-9, 1e-3, 10.0, 1e4])
def test_best_final_ridge_over_many_magnitudes(noise):
    # Isotropic: d sigma^2 / |w|^2, whatever the units of the covariance.
    for unit in (1e-6, 1.0, 1e6):
        best = rf.optimal_final_ridge(
            np.full(20, unit), np.full(20, 0.5), n_samples=50, noise_variance=unit * noise
        )
        assert best.ridge == pytest.approx(unit * noise * 20 / 5, rel=1e-2)


def test_without_noise_no_number_of_rows_is_infinite():
    # Least squares finds the truth from d rows; fewer keep the share T / d.
    for T in (1, 2, 3, 4, 5):
        exact = rf.exact_self_training_risk(np.full(3, 2.0), np.ones(3), n_samples=[T, T])
        np.testing.assert_allclose(exact, 6 * (1 - min(T / 3, 1) ** np.array([1, 2])), atol=1e-14)
