import math

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import zeta

from theorylab import random_features as rf
from theorylab.random_features._risk_kernels import risk_floors, risks_along

MODES = np.arange(1, 41)
SPECTRUM = MODES**-1.5
TARGET = MODES**-0.9 * np.cos(MODES)
NOISE = 0.05


def published(eigenvalues, coefficients, n, k, ridge, noise, gamma):
    """Both risks and kappa as printed, with 40 digits, from the root nearest to ``gamma``."""
    with mp.workdps(40):
        lam = [mp.mpf(float(x)) for x in eigenvalues]
        power = [mp.mpf(float(v)) ** 2 for v in coefficients]
        delta = mp.mpf(ridge)

        def z_of(g):
            return mp.fsum(x / (x + g) for x in lam)

        g = mp.exp(
            mp.findroot(
                lambda t: mp.exp(t) * (1 - z_of(mp.exp(t)) / k) * (n - z_of(mp.exp(t))) - delta,
                mp.log(gamma),
            )
        )
        z = z_of(g)
        q = mp.fsum((x / (x + g)) ** 2 for x in lam)
        kappa = g * (1 - z / k)
        bias = mp.fsum(
            (g / (x + g) - kappa * x / (x + g) ** 2 * k / (k - q)) * p
            for x, p in zip(lam, power, strict=True)
        )
        test = (bias + noise) / (1 - (q * (k - 2 * z) + z**2) / (n * (k - q)))
        return float(test), float(delta**2 / (n * kappa) ** 2 * test), float(kappa), float(g)


@pytest.mark.parametrize("ridge", [1e-9, 1e-3, 0.5, 20.0])
@pytest.mark.parametrize(("n", "k"), [(15, 25), (25, 15), (20, 20), (10, 200), (200, 10)])
def test_agrees_with_the_printed_formula_in_forty_digits(n, k, ridge):
    risk = rf.random_feature_risk(
        SPECTRUM, TARGET, n_samples=n, n_features=k, ridge=ridge, noise_variance=NOISE
    )
    exact = published(SPECTRUM, TARGET, n, k, ridge, NOISE, risk.gamma)
    for mine, theirs in zip(
        (risk.test_risk, risk.train_risk, risk.kappa, risk.gamma), exact, strict=True
    ):
        assert mine == pytest.approx(theirs, rel=1e-12, abs=0)


def test_the_positive_form_is_the_printed_one_and_has_the_kernel_limit():
    n, k, z, q, gamma, noise = sp.symbols("n k z q gamma sigma2", positive=True)
    lam, power = sp.symbols("lambda v2", positive=True)
    kappa = gamma * (1 - z / k)
    # One mode's share of the bias; z and q stay free, the sums being linear in the modes.
    share = (gamma / (lam + gamma) - kappa * lam / (lam + gamma) ** 2 * k / (k - q)) * power
    printed = (share + noise) / (1 - (q * (k - 2 * z) + z**2) / (n * (k - q)))
    a, b, c, unlearned = n - z, k - z, z - q, gamma / (lam + gamma)
    positive = (
        n
        * (unlearned**2 * power + c / (b + c) * unlearned * (1 - unlearned) * power + noise)
        / (a + b * c / (b + c))
    )
    assert sp.simplify(printed - positive) == 0
    kernel = (unlearned**2 * power + noise) / (1 - q / n)
    assert sp.simplify(sp.limit(printed, k, sp.oo) - kernel) == 0


@pytest.mark.parametrize("ridge", [0.0, 0.05])
def test_kernel_regression_is_the_limit_of_many_features(ridge):
    kernel = rf.kernel_ridge_risk(SPECTRUM, TARGET, n_samples=20, ridge=ridge, noise_variance=NOISE)
    features = rf.random_feature_risk(
        SPECTRUM, TARGET, n_samples=20, n_features=10**9, ridge=ridge, noise_variance=NOISE
    )
    assert features.test_risk == pytest.approx(kernel.test_risk, rel=1e-6)
    assert features.train_risk == pytest.approx(kernel.train_risk, rel=1e-6)
    assert kernel.kappa == kernel.gamma


def action_derivatives(n, k, ridge, corrections):
    """Return both mean risks, or their 1/n terms, as finite differences of the saddle value with 40
    digits.

    An independent route to both formulas: only the two-variable function f of the docstring enters.
    """
    with mp.workdps(40):
        lam = [*(mp.mpf(float(x)) for x in SPECTRUM), mp.mpf(0)]
        power = [*(mp.mpf(float(v)) ** 2 for v in TARGET), mp.mpf(NOISE)]
        delta = mp.mpf(ridge)
        h = mp.mpf(10) ** -8

        def saddle(tau, eps, scale):
            # Feature rows scaled by sqrt(scale): log det's sample field has e^y / scale in place of
            # e^y.
            def modes(x, y):
                e = eps + mp.exp(y)
                return [
                    (tau * delta * p + mp.exp(x) * m) * e + delta
                    for m, p in zip(lam, power, strict=True)
                ]

            def gradient(x, y):
                d, e = modes(x, y), eps + mp.exp(y)
                s = [(tau * delta * p + mp.exp(x) * m) for m, p in zip(lam, power, strict=True)]
                by_x = (
                    k * mp.exp(x)
                    - k
                    + mp.fsum(mp.exp(x) * m * e / v for m, v in zip(lam, d, strict=True))
                )
                by_y = (
                    mp.exp(y) / scale
                    - n
                    + mp.fsum(mp.exp(y) * r / v for r, v in zip(s, d, strict=True))
                )
                return [by_x, by_y]

            x, y = mp.findroot(gradient, (mp.mpf(-1), mp.log(n / mp.mpf(2))), tol=1e-60)
            value = k * mp.exp(x) - k * x + mp.exp(y) / scale - n * y + n * mp.log(scale)
            value += mp.fsum(mp.log(v) for v in modes(x, y))
            if not corrections:
                return value
            t = mp.mpf(10) ** -12
            columns = [
                [
                    (u - v) / (2 * t)
                    for u, v in zip(gradient(x + i, y + j), gradient(x - i, y - j), strict=True)
                ]
                for i, j in ((t, 0), (0, t))
            ]
            return mp.log(columns[0][0] * columns[1][1] - columns[0][1] * columns[1][0]) / 2

        def mixed(along):
            corners = [s * t * saddle(s * h, *along(t * h)) for s in (1, -1) for t in (1, -1)]
            return mp.fsum(corners) / (4 * h**2)

        test = mixed(lambda t: (t, mp.mpf(1)))
        train = mixed(lambda t: (mp.mpf(0), 1 + t)) / n
        return float(test), float(train)


@pytest.mark.parametrize(("n", "k", "ridge"), [(15, 25, 0.1), (25, 15, 0.3)])
def test_both_risks_are_derivatives_of_one_action(n, k, ridge):
    risk = rf.random_feature_risk(
        SPECTRUM, TARGET, n_samples=n, n_features=k, ridge=ridge, noise_variance=NOISE
    )
    test, train = action_derivatives(n, k, ridge, corrections=False)
    # Central differences with step 1e-8 leave a relative error of order 1e-16 / (smallest scale)^2.
    assert risk.test_risk == pytest.approx(test, rel=1e-8)
    assert risk.train_risk == pytest.approx(train, rel=1e-8)


@pytest.mark.parametrize(("n", "k", "ridge"), [(15, 25, 0.1), (25, 15, 0.3)])
def test_the_finite_size_term_is_the_derivative_of_the_determinant(n, k, ridge):
    term = rf.finite_size_term(
        SPECTRUM, TARGET, n_samples=n, n_features=k, ridge=ridge, noise_variance=NOISE
    )
    test, train = action_derivatives(n, k, ridge, corrections=True)
    assert term.test_risk == pytest.approx(test, rel=1e-6)
    assert term.train_risk == pytest.approx(train, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(40, 10), (40, 39), (12, 3)])
def test_isotropic_least_squares_is_exact_to_the_next_order(n, d):
    """The exact mean risk is sigma^2 (n - 1) / (n - d - 1); predicted n / (n - d), first term d /
    (n - d)^2."""
    args = {"n_samples": n, "ridge": 0.0, "noise_variance": 2.0}
    risk = rf.kernel_ridge_risk(np.ones(d), np.ones(d), **args)
    assert risk.test_risk == pytest.approx(2 * n / (n - d), rel=1e-13)
    assert risk.train_risk == pytest.approx(2 * (n - d) / n, rel=1e-13)
    assert rf.finite_size_term(np.ones(d), np.ones(d), **args).test_risk == pytest.approx(
        2 * d / (n - d) ** 2, rel=1e-10
    )


@pytest.mark.parametrize(("n", "d"), [(10, 40), (30, 33)])
def test_isotropic_interpolation_is_exact_to_the_next_order(n, d):
    """The exact mean risk is |v|^2 (1 - n / d) + sigma^2 (1 + n / (d - n - 1))."""
    args = {"n_samples": n, "ridge": 0.0, "noise_variance": 2.0}
    v = np.full(d, 0.3)
    risk = rf.kernel_ridge_risk(np.ones(d), v, **args)
    assert risk.test_risk == pytest.approx((v @ v) * (1 - n / d) + 2 * (1 + n / (d - n)), rel=1e-12)
    assert risk.train_risk == 0.0
    assert rf.finite_size_term(np.ones(d), v, **args).test_risk == pytest.approx(
        2 * n / (d - n) ** 2, rel=1e-6
    )


@pytest.mark.parametrize(("n", "k", "d"), [(40, 10, 50), (40, 30, 35), (40, 10, 10)])
def test_isotropic_underparametrised_features_are_exact_to_the_next_order(n, k, d):
    """Given the features this is least squares with noise sigma^2 + |v|^2 (1 - k / d)."""
    args = {"n_samples": n, "n_features": k, "ridge": 0.0, "noise_variance": 2.0}
    v = np.full(d, 0.3)
    effective = 2 + (v @ v) * (1 - k / d)
    assert rf.random_feature_risk(np.ones(d), v, **args).test_risk == pytest.approx(
        effective * n / (n - k), rel=1e-12
    )
    term = rf.finite_size_term(np.ones(d), v, **args)
    assert term.test_risk == pytest.approx(effective * k / (n - k) ** 2, rel=1e-8)


def test_features_are_kernel_regression_on_their_own_random_covariance():
    """Given the features, the risk is that of kernel regression with the part outside their span as
    noise."""
    n, k, ridge, rng = 30, 45, 0.1, np.random.default_rng(1)
    args = {"n_samples": n, "n_features": k, "ridge": ridge, "noise_variance": NOISE}
    expected = rf.random_feature_risk(SPECTRUM, TARGET, **args).test_risk
    risks = np.empty(1000)
    for i in range(risks.size):
        readout = rng.standard_normal((k, SPECTRUM.size)) * np.sqrt(SPECTRUM / k)
        _, scales, directions = np.linalg.svd(readout, full_matrices=False)
        inside = directions @ TARGET
        outside = max(float(TARGET @ TARGET - inside @ inside), 0.0)
        given = rf.kernel_ridge_risk(
            scales**2, inside, n_samples=n, ridge=ridge, noise_variance=NOISE + outside
        )
        risks[i] = given.test_risk
    # 4.9 standard errors; what averages over the features leave is part of the 1/n term.
    allowed = 4.9 * risks.std() / math.sqrt(risks.size) + abs(
        rf.finite_size_term(SPECTRUM, TARGET, **args).test_risk
    )
    assert allowed < 0.05 * expected
    assert abs(risks.mean() - expected) < allowed


@pytest.mark.parametrize(
    ("n", "k", "ridge"), [(10, 15, 0.1), (15, 10, 0.1), (10, 10, 0.3), (12, None, 0.1)]
)
def test_simulated_means_are_predicted_to_second_order(n, k, ridge):
    args = {"n_samples": n, "n_features": k, "ridge": ridge, "noise_variance": NOISE}
    curve = rf.learning_curve(SPECTRUM, TARGET, **args)
    term = rf.finite_size_term(SPECTRUM, TARGET, **args)
    runs = rf.simulate_risk(SPECTRUM, TARGET, **args, n_draws=15_000, rng=np.random.default_rng(7))
    for samples, base, first in (
        (runs.test_risk, float(curve.test_risk), term.test_risk),
        (runs.train_risk, float(curve.train_risk), term.train_risk),
    ):
        error = samples.std() / math.sqrt(samples.size)
        # 4.9 standard errors, and a second term of an alternating or geometric expansion in the
        # relative first one.
        assert abs(samples.mean() - base - first) < 4.9 * error + 2 * first**2 / base


@pytest.mark.long
@pytest.mark.parametrize(
    ("n", "k", "ridge"), [(10, 15, 0.1), (15, 10, 0.1), (10, 10, 0.3), (12, None, 0.1)]
)
def test_simulated_means_leave_a_remainder_of_second_order(n, k, ridge):
    excess = []
    for repeats, draws in ((1, 400_000), (2, 400_000)):
        lam, v = np.repeat(SPECTRUM, repeats), np.repeat(TARGET, repeats) / math.sqrt(repeats)
        args = {
            "n_samples": n * repeats,
            "n_features": None if k is None else k * repeats,
            "ridge": ridge * repeats,
            "noise_variance": NOISE,
        }
        base = float(rf.learning_curve(lam, v, **args).test_risk)
        first = rf.finite_size_term(lam, v, **args).test_risk
        runs = rf.simulate_risk(
            lam, v, **args, n_draws=draws, rng=np.random.default_rng(repeats)
        ).test_risk
        excess.append(
            (abs(runs.mean() - base - first) / first, 4.9 * runs.std() / math.sqrt(draws) / first)
        )
    assert excess[0][0] < 0.2 + excess[0][1]
    assert excess[1][0] < 0.1 + excess[1][1]


def test_repeating_every_mode_keeps_the_risk_and_divides_its_correction():
    args = {"n_samples": 10, "n_features": 15, "ridge": 0.1, "noise_variance": NOISE}
    twice = {"n_samples": 20, "n_features": 30, "ridge": 0.2, "noise_variance": NOISE}
    lam, v = np.repeat(SPECTRUM, 2), np.repeat(TARGET, 2) / math.sqrt(2)
    one = rf.random_feature_risk(SPECTRUM, TARGET, **args)
    two = rf.random_feature_risk(lam, v, **twice)
    assert two.test_risk == pytest.approx(one.test_risk, rel=1e-12)
    assert two.train_risk == pytest.approx(one.train_risk, rel=1e-12)
    first, second = (
        rf.finite_size_term(SPECTRUM, TARGET, **args),
        rf.finite_size_term(lam, v, **twice),
    )
    assert second.test_risk == pytest.approx(first.test_risk / 2, rel=1e-10)
    assert second.train_risk == pytest.approx(first.train_risk / 2, rel=1e-10)


def test_noise_is_a_mode_that_cannot_be_learned():
    noisy = rf.random_feature_risk(
        SPECTRUM, TARGET, n_samples=9, n_features=14, ridge=0.1, noise_variance=NOISE
    )
    lam, v = np.append(SPECTRUM, 0.0), np.append(TARGET, math.sqrt(NOISE))
    mode = rf.random_feature_risk(lam, v, n_samples=9, n_features=14, ridge=0.1)
    assert vars(mode) == vars(noisy)
    one = rf.finite_size_term(
        SPECTRUM, TARGET, n_samples=9, n_features=14, ridge=0.1, noise_variance=NOISE
    )
    other = rf.finite_size_term(lam, v, n_samples=9, n_features=14, ridge=0.1)
    assert one.test_risk == pytest.approx(other.test_risk, rel=1e-12)


@pytest.mark.parametrize("k", [None, 4, 6, 10])
@pytest.mark.parametrize("n", [4, 6, 10])
@pytest.mark.parametrize("unlearnable", [0.0, 0.7])
def test_ridge_zero_is_the_limit_of_small_ridge(n, k, unlearnable):
    """Six learnable modes: sizes below, at and above their number, with and without something that
    cannot be fitted."""
    lam, v = np.append(np.arange(1, 7) ** -1.0, 0.0), np.append(np.ones(6), unlearnable)
    at_zero = rf.learning_curve(lam, v, n_samples=n, n_features=k, ridge=0.0)
    # Where the smaller of n and k is 6, gamma is of order (ridge k / (n k))^(1/2 or 1/3).
    near = rf.learning_curve(lam, v, n_samples=n, n_features=k, ridge=1e-24)
    if np.isinf(at_zero.test_risk):
        assert near.test_risk > 1e5
        assert at_zero.train_risk == 0.0
        assert n == k or (n == 6 and unlearnable > 0)
    else:
        assert float(at_zero.test_risk) == pytest.approx(float(near.test_risk), rel=1e-6, abs=1e-6)
    assert float(at_zero.train_risk) == pytest.approx(float(near.train_risk), rel=1e-6, abs=1e-6)


def test_a_huge_ridge_predicts_nothing():
    risk = rf.random_feature_risk(
        SPECTRUM, TARGET, n_samples=9, n_features=14, ridge=1e12, noise_variance=NOISE
    )
    zero = TARGET @ TARGET + NOISE
    assert risk.test_risk == pytest.approx(zero, rel=1e-9)
    assert risk.train_risk == pytest.approx(zero, rel=1e-9)


def test_the_curve_is_the_sizes_one_by_one():
    n = np.array([3, 60, 7, 40, 40])
    k = np.array([9, 30, 7, 5, 41])
    ridge = np.array([0.0, 0.1, 1e-9, 0.0, 3.0])
    curve = rf.learning_curve(
        SPECTRUM, TARGET, n_samples=n, n_features=k, ridge=ridge, noise_variance=NOISE
    )
    for j in range(5):
        one = rf.random_feature_risk(
            SPECTRUM,
            TARGET,
            n_samples=int(n[j]),
            n_features=int(k[j]),
            ridge=float(ridge[j]),
            noise_variance=NOISE,
        )
        for name in ("test_risk", "train_risk", "kappa", "gamma"):
            assert getattr(one, name) == pytest.approx(getattr(curve, name)[j], rel=1e-10)


def test_simulation_agrees_with_scikit_learn_draw_by_draw():
    linear_model = pytest.importorskip("sklearn.linear_model")
    n, k, ridge, noise = 12, 9, 0.3, 0.2
    seen = {}

    def recorded(name):
        def law(rng, shape):
            seen[name] = rng.standard_normal(shape)
            return seen[name]

        return law

    rng = np.random.default_rng(3)
    runs = rf.simulate_risk(
        SPECTRUM,
        TARGET,
        n_samples=n,
        n_features=k,
        ridge=ridge,
        noise_variance=noise,
        n_draws=4,
        rng=rng,
        sample_modes=recorded("phi"),
        feature_modes=recorded("zeta"),
    )
    replay = np.random.default_rng(3)
    phi = replay.standard_normal((4, n, SPECTRUM.size))
    labels = phi @ TARGET + math.sqrt(noise) * replay.standard_normal((4, n))
    assert np.array_equal(phi, seen["phi"])
    for i in range(4):
        readout = seen["zeta"][i] * np.sqrt(SPECTRUM / k)
        model = linear_model.Ridge(alpha=ridge, fit_intercept=False, solver="cholesky").fit(
            phi[i] @ readout.T, labels[i]
        )
        error = TARGET - readout.T @ model.coef_
        assert runs.test_risk[i] == pytest.approx(error @ error + noise, rel=1e-9)
        residual = labels[i] - model.predict(phi[i] @ readout.T)
        assert runs.train_risk[i] == pytest.approx(np.mean(residual**2), rel=1e-9)


@pytest.mark.parametrize(
    ("n", "k", "noise"), [(15, 25, 0.05), (25, 15, 0.0), (20, None, 0.5), (20, 20, 0.01)]
)
def test_optimal_ridge_beats_a_scan_and_meets_its_bound(n, k, noise):
    best = rf.optimal_ridge(
        SPECTRUM, TARGET, n_samples=n, n_features=k, noise_variance=noise, tol=1e-8
    )

    def risk(t):
        curve = rf.learning_curve(
            SPECTRUM, TARGET, n_samples=n, n_features=k, ridge=math.exp(t), noise_variance=noise
        )
        return float(curve.test_risk)

    scan = np.linspace(-25, 10, 400)
    start = scan[int(np.argmin([risk(t) for t in scan]))]
    found = minimize_scalar(risk, bounds=(start - 0.1, start + 0.1), method="bounded")
    at_zero = float(
        rf.learning_curve(
            SPECTRUM, TARGET, n_samples=n, n_features=k, ridge=0.0, noise_variance=noise
        ).test_risk
    )
    assert best.test_risk == pytest.approx(min(found.fun, at_zero), rel=1e-7)
    assert best.lower_bound <= min(found.fun, at_zero) * (1 + 1e-12)
    assert 0 <= best.gap <= 1e-8
    again = rf.learning_curve(
        SPECTRUM, TARGET, n_samples=n, n_features=k, ridge=best.ridge, noise_variance=noise
    )
    assert float(again.test_risk) == pytest.approx(best.test_risk, rel=1e-10)
    assert float(again.train_risk) == pytest.approx(best.train_risk, rel=1e-6)


def test_optimal_ridge_knows_its_three_ends():
    status = rf.OptimalRidgeStatus
    assert (
        rf.optimal_ridge(SPECTRUM, TARGET, n_samples=9, noise_variance=0.1).status
        is status.INTERIOR
    )
    # Far below the threshold noise of a power law.
    modes = np.arange(1, 2001)
    interpolating = rf.optimal_ridge(modes**-1.5, modes**-1.25, n_samples=20)
    assert interpolating.status is status.INTERPOLATION
    assert (interpolating.ridge, interpolating.train_risk) == (0.0, 0.0)
    assert rf.optimal_ridge([1.0, 0.5], [1.0, 1.0], n_samples=5).test_risk == 0.0
    nothing = rf.optimal_ridge([1.0, 0.0], [0.0, 2.0], n_samples=5, noise_variance=1.0)
    assert nothing.status is status.NOTHING_LEARNABLE
    assert (nothing.ridge, nothing.test_risk, nothing.gap) == (math.inf, 5.0, 0.0)


@pytest.mark.parametrize(("n", "k"), [(5, None), (5, 3)])
@pytest.mark.parametrize("noise", [1e3, 1e7, 1e10, 1e300])
def test_a_weak_target_does_not_make_the_best_ridge_worse_than_none_learned(n, k, noise):
    best = rf.optimal_ridge(
        [1.0, 0.1], [1.0, 0.1], n_samples=n, n_features=k, noise_variance=noise, tol=1e-8
    )
    assert best.test_risk <= (1.01 + noise) * (1 + 1e-8)
    assert 0 <= best.gap <= 1e-8


@pytest.mark.parametrize("noise", [1e-2, 1e-12, 1e-28])
def test_best_ridge_of_as_many_samples_as_equal_modes(noise):
    # The risk is (V x^2 + noise) / (x (2 - x)), x = gamma / (1 + gamma): stationary at V x^2 +
    # noise x = noise.
    n, v = 10, np.full(10, 0.3)
    power = float(v @ v)
    x = 2 * noise / (noise + math.sqrt(noise**2 + 4 * power * noise))
    best = rf.optimal_ridge(np.ones(n), v, n_samples=n, noise_variance=noise, tol=1e-10)
    least = (power * x**2 + noise) / (x * (2 - x))
    assert best.test_risk == pytest.approx(least, rel=2e-10, abs=0)
    assert least * (1 - 2e-10) <= best.lower_bound <= least * (1 + 1e-13)
    assert best.gamma == pytest.approx(x / (1 - x), rel=1e-4, abs=0)


@pytest.mark.parametrize("noise", [0.0, 1e-24, 1e-12])
@pytest.mark.parametrize("tol", [1e-4, 1e-10])
def test_best_ridge_of_as_many_samples_and_features_as_modes(noise, tol):
    """Bias and free samples vanish together, so that the risk is flat over many decades of the
    ridge."""
    lam, v, n = np.array([1.0, 0.5, 0.2]), np.array([1.0, 1.0, 0.5]), 3
    best = rf.optimal_ridge(lam, v, n_samples=n, n_features=n, noise_variance=noise, tol=tol)
    limit = n / 3 * (v**2 / lam).sum() / (1 / lam).sum()
    ridges = np.geomspace(1e-70, 1e3, 2000)
    scan = rf.learning_curve(
        lam, v, n_samples=n, n_features=n, ridge=ridges, noise_variance=noise
    ).test_risk.min()
    # Without noise the least risk is the limit; else the scan is within its spacing, squared, of
    # the least risk.
    assert best.test_risk == pytest.approx(
        limit if noise == 0 else scan, rel=tol if noise == 0 else tol + 1e-6
    )
    assert best.lower_bound <= scan * (1 + 1e-13)
    assert best.gap <= tol


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, 5, elements=st.floats(-12, 3)),
    # Squares that float64 does not hold are refused.
    arrays(np.float64, 5, elements=st.floats(-2, 2).map(lambda v: v if abs(v) > 1e-150 else 0.0)),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 8)),
    st.sampled_from([0.0, 1e-20, 1e-6, 0.3, 1e8]),
    st.sampled_from([1e-2, 1e-5, 1e-9]),
)
def test_no_ridge_beats_the_lower_bound_and_the_gap_is_closed(
    exponents, coefficients, n, k, noise, tol
):
    lam, sizes = 10.0**exponents, {"n_samples": n, "n_features": k, "noise_variance": noise}
    best = rf.optimal_ridge(lam, coefficients, **sizes, tol=tol)
    ridges = np.concatenate([[0.0], np.geomspace(1e-60, 1e12, 400)])
    scan = rf.learning_curve(lam, coefficients, **sizes, ridge=ridges).test_risk.min()
    assert best.lower_bound <= scan * (1 + 1e-12)
    assert best.test_risk <= scan * (1 + tol) * (1 + 1e-12)
    assert 0 <= best.gap <= tol * (1 + 1e-9)
    if math.isfinite(best.ridge):
        again = rf.learning_curve(lam, coefficients, **sizes, ridge=best.ridge)
        assert float(again.test_risk) == pytest.approx(best.test_risk, rel=1e-9)


def test_curvature_of_the_risk_is_within_the_bound_of_the_lower_bound():
    """Derivatives in log gamma by central differences with 60 digits: B'' <= 15/2 B, 0 <= F' <= 2 c
    and |F''| <= 15/2 c."""
    rng = np.random.default_rng(0)
    with mp.workdps(60):
        h = mp.mpf(10) ** -15
        for _ in range(60):
            lam = [mp.mpf(x) for x in 10 ** rng.uniform(-4, 2, 5)]
            power = [mp.mpf(x) for x in rng.uniform(0, 1, 5) * rng.integers(0, 2, 5)]
            gamma = mp.mpf(10 ** rng.uniform(-5, 3))
            z = sum(x / (x + gamma) for x in lam)
            a, b = (mp.mpf(x) for x in 10 ** rng.uniform(-3, 1, 2))

            def parts(t, lam=lam, power=power, n=z + a, k=z + b):
                g = mp.exp(t)
                p = [x / (x + g) for x in lam]
                free, spread = n - sum(p), sum(x * (1 - x) for x in p)
                share = spread / (k - sum(p) + spread)
                bias = sum(
                    v * ((1 - x) ** 2 + share * x * (1 - x)) for x, v in zip(p, power, strict=True)
                )
                return bias, free + (k - sum(p)) * share, spread

            low, (bias, _, spread), high = (parts(mp.log(gamma) + s * h) for s in (-1, 0, 1))
            first = [(u - v) / (2 * h) for u, v in zip(high, low, strict=True)]
            middle = parts(mp.log(gamma))
            second = [(u - 2 * w + v) / h**2 for u, w, v in zip(high, middle, low, strict=True)]
            assert second[0] <= 7.5 * bias + 1e-20
            assert -1e-20 <= first[1] <= 2 * spread
            assert abs(second[1]) <= 7.5 * spread
            assert abs(first[2]) <= spread


@pytest.mark.parametrize("share", [0.0, 0.3, 5.0])
@pytest.mark.parametrize("width", [1e-3, math.log(2)])
def test_floor_between_two_points_is_the_chord_less_the_bound_of_the_curvature(share, width):
    # Rows: gamma, B + sigma^2, n - D, the spread c, the risk. On the interval c / F is at most
    # share e^width.
    left = np.array([[0.5], [1e-30], [2.0], [2.0 * share], [0.3]])
    right = np.array([[0.5 * math.exp(width)], [1e-30], [3.0], [0.7], [0.4]])
    y = share * math.exp(width)
    expected = -(7.5 * (1 + y) + 4 * y**2) * width**2 / 8
    for ends in ((left, right), (np.vstack([left[:4], [[0.4]]]), np.vstack([right[:4], [[0.3]]]))):
        (floor,) = risk_floors(*ends, 6.0)
        assert math.log(floor / 0.3) == pytest.approx(expected, rel=1e-7)


def test_floor_of_two_far_points_is_the_least_bias_over_the_most_freedom():
    left = np.array(
        [
            [1e-3, 0.0, 1e-3],
            [2.0, 2.0, 0.5],
            [1.0, 0.0, 0.0],
            [0.5, 0.0, 0.0],
            [12.0, np.inf, np.inf],
        ]
    )
    right = np.array(
        [[1e3, 1.0, 1.0], [3.0, 3.0, 0.6], [4.0, 4.0, 0.0], [0.1, 0.1, 0.0], [13.0, 13.0, np.inf]]
    )
    # Also from gamma = 0 on; where nothing is free at the right end no risk is finite.
    assert risk_floors(left, right, 6.0).tolist() == [3.0, 3.0, np.inf]


@pytest.mark.parametrize("k", [None, 4, 9])
def test_floors_are_below_the_risk_in_between(k):
    rng = np.random.default_rng(1)
    tight = 0
    for _ in range(30):
        lam, power = 10.0 ** rng.uniform(-3, 1, 7), rng.uniform(0, 1, 7) ** 4
        n, rest = int(rng.integers(2, 6)), float(rng.choice([0.0, 1e-3, 1.0]))
        problem = lam, power, rest, float(n), math.inf if k is None else float(k)
        least = rf.fixed_points.effective_ridge(lam, n_samples=n, n_features=k, ridge=0.0).gamma
        gammas = float(least) * (1 + 1e-9) + np.geomspace(1e-4, 10, 12)
        ends = risks_along(*problem, gammas)
        floors = risk_floors(ends[:, :-1], ends[:, 1:], float(n))
        for floor, start, end in zip(floors, gammas[:-1], gammas[1:], strict=True):
            between = risks_along(*problem, np.geomspace(start, end, 30))[4].min()
            assert floor <= between * (1 + 1e-12)
            tight += floor > 0.7 * between
    assert tight > 20


def test_counts_that_rounding_makes_negative_are_zero_and_then_risks_may_be_infinite():
    lam, power = SPECTRUM[:9], TARGET[:9] ** 2
    gammas = np.array([0.9]) * rf.effective_ridge(lam, n_samples=4, ridge=0.0).gamma
    learned = float(np.sum(lam / (lam + gammas)))
    assert 4 < learned < 6
    # Rows 2 to 4: n - D, the spread, the risk. With a = 0 all is c, with b = 0 it is a.
    kernel = risks_along(lam, power, 0.0, 4.0, math.inf, gammas)
    assert kernel[2] == kernel[3]
    few = risks_along(lam, power, 0.0, 6.0, 4.0, gammas)
    assert few[2, 0] == pytest.approx(6 - learned, rel=1e-12)
    both = risks_along(lam, power, 0.0, 4.0, 4.0, gammas)
    assert (both[2, 0], both[4, 0]) == (0.0, math.inf)
    assert risks_along(lam, 0 * power, 0.0, 4.0, 4.0, gammas)[4, 0] == 0.0


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_coefficients_whose_squares_leave_float64_are_refused(size):
    with pytest.raises(ValueError, match="coefficients: expected numbers whose squares"):
        rf.kernel_ridge_risk(SPECTRUM, size * TARGET, n_samples=4, ridge=0.1)


spectra = arrays(np.float64, 6, elements=st.floats(1e-4, 10.0))
targets = arrays(np.float64, 6, elements=st.floats(0.01, 3.0))


@settings(max_examples=40, deadline=None)
@given(
    spectra,
    targets,
    st.integers(1, 20),
    st.one_of(st.none(), st.integers(1, 20)),
    st.floats(0.001, 2.0),
)
def test_more_is_better_with_the_best_ridge(eigenvalues, coefficients, n, k, noise):
    args = {"noise_variance": noise, "tol": 1e-7}
    here = rf.optimal_ridge(eigenvalues, coefficients, n_samples=n, n_features=k, **args)
    more_samples = rf.optimal_ridge(
        eigenvalues, coefficients, n_samples=n + 1, n_features=k, **args
    )
    assert more_samples.lower_bound <= here.test_risk * (1 + 1e-12)
    assert more_samples.test_risk <= here.test_risk * (1 + 2e-7)
    if k is not None:
        more_features = rf.optimal_ridge(
            eigenvalues, coefficients, n_samples=n, n_features=k + 1, **args
        )
        assert more_features.test_risk <= here.test_risk * (1 + 2e-7)


@settings(max_examples=40, deadline=None)
@given(
    spectra,
    targets,
    st.integers(1, 20),
    st.integers(1, 20),
    st.floats(-8.0, 3.0),
    st.floats(0.01, 2.0),
)
def test_bias_rises_and_used_degrees_fall_with_gamma(eigenvalues, coefficients, n, k, t, step):
    """The two monotone factors on which the lower bound of the optimal ridge rests."""

    def factors(gamma):
        p = eigenvalues / (eigenvalues + gamma)
        z, q = p.sum(), (p**2).sum()
        share = (k - z) / (k - q)
        return coefficients**2 @ ((1 - p) - p * (1 - p) * share), (q * (k - 2 * z) + z**2) / (k - q)

    low, high = math.exp(t), math.exp(t + step)
    if (eigenvalues / (eigenvalues + low)).sum() >= k:
        return
    (bias, used), (more_bias, less_used) = factors(low), factors(high)
    assert bias <= more_bias * (1 + 1e-9)
    assert less_used <= used * (1 + 1e-9) + 1e-12


def test_population_spectrum_reproduces_kernel_and_target():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((30, 4))
    kernel, targets = points @ points.T, rng.standard_normal(30)
    spectrum = rf.population_spectrum(kernel, targets)
    assert np.all(np.diff(spectrum.eigenvalues) <= 0)
    assert np.count_nonzero(spectrum.eigenvalues) == 4
    assert spectrum.eigenvalues.sum() == pytest.approx(np.trace(kernel) / 30, rel=1e-12)
    # Nonzero eigenvalues are those of the covariance, and the coefficients keep the mean square.
    covariance = np.linalg.eigvalsh(points.T @ points / 30)[::-1]
    assert np.allclose(spectrum.eigenvalues[:4], covariance, rtol=1e-11)
    assert spectrum.coefficients @ spectrum.coefficients == pytest.approx(
        np.mean(targets**2), rel=1e-12
    )
    # At vanishing ridge and n below the rank, population and spectrum describe the same problem.
    learnable = np.linalg.lstsq(points, targets, rcond=None)[1][0] / 30
    assert (spectrum.coefficients[4:] ** 2).sum() == pytest.approx(learnable, rel=1e-9)


def test_circulant_spectrum_is_the_population_spectrum():
    size = 48
    grid = 2 * np.pi * np.arange(size) / size
    profile, targets = (
        np.maximum(np.cos(grid) - 0.2, 0) + 0.1 * np.sin(3 * grid),
        np.sign(np.sin(grid + 0.1)),
    )
    shifts = np.stack([np.roll(profile, j) for j in range(size)])
    dense = rf.population_spectrum(shifts.T @ shifts / size, targets)
    fast = rf.circulant_spectrum(profile, targets)
    assert np.allclose(np.sort(fast.eigenvalues), np.sort(dense.eigenvalues), atol=1e-14)
    for ridge in (0.01, 1.0):
        a = rf.kernel_ridge_risk(fast.eigenvalues, fast.coefficients, n_samples=20, ridge=ridge)
        b = rf.kernel_ridge_risk(dense.eigenvalues, dense.coefficients, n_samples=20, ridge=ridge)
        assert a.test_risk == pytest.approx(b.test_risk, rel=1e-9)


def test_resampling_the_whole_population_is_ridge_regression_on_it():
    rng = np.random.default_rng(0)
    features, targets = rng.standard_normal((8, 3)), rng.standard_normal(8)
    runs = rf.resample_risk(
        lambda _: features, targets, n_samples=6, ridge=0.4, n_draws=3, rng=np.random.default_rng(5)
    )
    replay = np.random.default_rng(5)
    for test, train in zip(runs.test_risk, runs.train_risk, strict=True):
        rows = replay.integers(8, size=6)
        design = features / math.sqrt(3)
        stacked = np.vstack([design[rows], math.sqrt(0.4) * np.eye(3)])
        weights = np.linalg.lstsq(stacked, np.append(targets[rows], np.zeros(3)), rcond=None)[0]
        assert test == pytest.approx(np.mean((targets - design @ weights) ** 2), rel=1e-10)
        assert train == pytest.approx(
            np.mean((targets[rows] - design[rows] @ weights) ** 2), rel=1e-10
        )


def test_fitting_ratio_solves_the_stationarity_of_the_limit_risk():
    alpha, beta, noise, u = sp.symbols("alpha beta s u", positive=True)
    objective = (u ** (1 - beta) + alpha * noise) / (1 - u * (alpha - 1) / alpha)
    stationary = alpha - beta - (alpha - 1) * beta * (1 - u) + alpha * (alpha - 1) * noise * u**beta
    quotient = sp.simplify(
        sp.diff(objective, u) * u**beta * (alpha - u * (alpha - 1)) ** 2 / stationary
    )
    assert sp.simplify(quotient - alpha) == 0
    for a, b, s in [(1.5, 2.0, 1.0), (2.0, 3.0, 0.7), (2.5, 2.0, 0.1), (1.2, 1.1, 0.4)]:
        root = rf.optimal_fitting_ratio(a, b, relative_noise=s)
        found = minimize_scalar(
            lambda x, a=a, b=b, s=s: (x ** (1 - b) + a * s) / (1 - x * (1 - 1 / a)),
            bounds=(1e-3, 1),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert root == pytest.approx((1 - found.x) ** 2, abs=1e-7)
    threshold = rf.interpolation_threshold(1.5, 2.0)
    assert threshold == pytest.approx(2 / 3, rel=1e-15)
    assert rf.optimal_fitting_ratio(1.5, 2.0, relative_noise=threshold * (1 - 1e-9)) == 0.0
    assert rf.optimal_fitting_ratio(1.5, 2.0, relative_noise=threshold * (1 + 1e-6)) > 0.0


def test_power_law_optimum_agrees_with_the_explicit_spectrum():
    # alpha = 3, beta = 4: the tails beyond 2,000 modes change z = 8 by 6e-5.
    modes = np.arange(1, 2_001)
    lam, v, n, relative = modes**-3.0, modes**-2.0, 8, 1.4
    base = rf.kernel_ridge_risk(lam, v, n_samples=n, ridge=0.0).test_risk
    best = rf.optimal_ridge(lam, v, n_samples=n, noise_variance=relative * base, tol=1e-8)
    ratio = rf.power_law_fitting_ratio(3.0, 4.0, relative_noise=relative, n_samples=n)
    assert ratio == pytest.approx(best.train_risk / best.test_risk, rel=1e-3)
    # The threshold is where the risk's slope at ridge 0 changes sign.
    threshold = rf.power_law_threshold(3.0, 4.0, n_samples=n)
    for factor in (0.99, 1.01):
        noise = threshold * factor * base
        risks = [
            rf.kernel_ridge_risk(lam, v, n_samples=n, ridge=r, noise_variance=noise).test_risk
            for r in (0.0, 1e-9)
        ]
        assert (risks[1] < risks[0]) == (factor > 1)


@pytest.mark.parametrize(
    ("alpha", "beta", "relative"),
    [(1.5, 2.0, 1.0), (2.0, 3.0, 1.0), (2.5, 2.0, 0.1), (1.5, 1.3, 0.1)],
)
def test_the_1_over_n_term_of_the_fitting_ratio(alpha, beta, relative):
    r"""With $z=Z-1/2+O(\gamma)$, $Z\propto\gamma^{-1/\alpha}$, the problem at n is that
    of the limit at n + 1/2."""
    for n in (100, 1000):
        shifted = rf.optimal_fitting_ratio(alpha, beta, relative_noise=relative * n / (n + 0.5))
        expected = shifted * (1 + 1 / (2 * n)) ** 2
        ratio = rf.power_law_fitting_ratio(alpha, beta, relative_noise=relative, n_samples=n)
        # Next terms: gamma ~ n^-alpha in z, n^-(2 alpha + 1 - beta) in the bias; constants of order
        # one.
        assert ratio == pytest.approx(expected, abs=n**-alpha + n ** -(2 * alpha + 1 - beta))
        threshold = rf.power_law_threshold(alpha, beta, n_samples=n)
        limit = rf.interpolation_threshold(alpha, beta) * (1 + 1 / (2 * n))
        assert threshold == pytest.approx(limit, abs=n**-alpha + n ** -(2 * alpha + 1 - beta))


@pytest.mark.parametrize(("alpha", "beta", "n"), [(1.5, 2.5, 2), (2.0, 2.0, 10), (3.0, 6.5, 4)])
def test_drowned_in_noise_almost_nothing_is_fitted(alpha, beta, n):
    # Far above all eigenvalues the risk is stationary where gamma = noise zeta(2 alpha) / (n
    # zeta(alpha + beta)).
    relative = 1e9
    ratio = rf.power_law_fitting_ratio(alpha, beta, relative_noise=relative, n_samples=n)
    modes = np.arange(1, 200_001)
    lam, v = modes**-alpha, modes ** (-beta / 2)
    base = rf.kernel_ridge_risk(lam, v, n_samples=n, ridge=0.0).test_risk
    gamma = relative * base * float(zeta(2 * alpha)) / (n * float(zeta(alpha + beta)))
    assert 1 - math.sqrt(ratio) == pytest.approx(float(zeta(alpha)) / gamma / n, rel=0.02, abs=0)


@pytest.mark.parametrize(("alpha", "n"), [(8.0, 10_000), (20.0, 100), (12.0, 1000)])
def test_steep_spectra_have_the_1_over_n_term(alpha, n):
    # gamma = n^-alpha is as small as 1e-40.
    for beta in (alpha - 1, alpha + 1):
        threshold = rf.power_law_threshold(alpha, beta, n_samples=n)
        assert threshold == pytest.approx(
            rf.interpolation_threshold(alpha, beta) * (1 + 1 / (2 * n)), rel=1e-9
        )
        relative = abs(threshold) + 0.1
        expected = (
            rf.optimal_fitting_ratio(alpha, beta, relative_noise=relative * n / (n + 0.5))
            * (1 + 1 / (2 * n)) ** 2
        )
        ratio = rf.power_law_fitting_ratio(alpha, beta, relative_noise=relative, n_samples=n)
        assert ratio == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("alpha", "n"), [(50.0, 10), (50.0, 2), (1.001, 10), (1.0001, 2)])
def test_interpolation_ends_at_the_threshold_of_very_steep_and_very_flat_spectra(alpha, n):
    # A staircase of modes far apart; and gamma = (C / n)^alpha far above every eigenvalue.
    threshold = rf.power_law_threshold(alpha, alpha + 1, n_samples=n)
    for relative in (0.0, 0.99 * abs(threshold), 1.01 * abs(threshold)):
        ratio = rf.power_law_fitting_ratio(alpha, alpha + 1, relative_noise=relative, n_samples=n)
        assert (ratio == 0.0) == (relative <= threshold)


@pytest.mark.parametrize(("alpha", "beta", "n"), [(1.7, 2.1, 6), (1.2, 1.3, 3), (1.05, 1.1, 9)])
def test_power_law_sums_agree_with_mpmath(alpha, beta, n):
    # Through the threshold, which uses all four sums; where they decay slowly most of a sum is its
    # tail.
    with mp.workdps(30):

        def total(gamma, exponent, learned, unlearned):
            # One hundred terms, then the binomial series with Hurwitz tails; lambda / gamma is
            # below 1/2 beyond.
            head = mp.fsum(
                i**-exponent * (x := 1 / (1 + gamma * i**alpha)) ** learned * (1 - x) ** unlearned
                for i in ones
            )
            assert gamma * ones[-1] ** alpha > 2
            orders = [learned + j for j in range(100)]
            signs = [(-1) ** j * mp.binomial(learned + unlearned + j - 1, j) for j in range(100)]
            tails = [
                mp.zeta(exponent + alpha * order, ones[-1] + 1) / gamma**order for order in orders
            ]
            return head + mp.fsum(u * v for u, v in zip(signs, tails, strict=True))

        ones, alpha, beta = [mp.mpf(i) for i in range(1, 101)], mp.mpf(alpha), mp.mpf(beta)
        bracket = (mp.mpf(-4), mp.mpf(3))
        g = mp.exp(
            mp.findroot(
                lambda t: total(mp.exp(t), 0, 1, 0) - n, bracket, solver="anderson", tol=1e-40
            )
        )
        bias, bias_slope = total(g, beta, 0, 2), 2 * total(g, beta, 1, 2)
        free, free_slope = n - total(g, 0, 2, 0), 2 * total(g, 0, 2, 1)
        expected = (bias_slope * free / free_slope - bias) * free / (n * bias)
    threshold = rf.power_law_threshold(float(alpha), float(beta), n_samples=n)
    assert threshold == pytest.approx(float(expected), rel=2e-14)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: rf.kernel_ridge_risk([1.0, 2.0], [1.0], n_samples=3, ridge=0.1), "coefficients"),
        (lambda: rf.kernel_ridge_risk([1.0], [1.0], n_samples=3, ridge=-1.0), "ridge"),
        (
            lambda: rf.random_feature_risk([1.0], [1.0], n_samples=3, n_features=2.0, ridge=0.1),
            "n_features",
        ),
        (
            lambda: rf.random_feature_risk([1.0], [1.0], n_samples=[3], n_features=2, ridge=0.1),
            "n_samples",
        ),
        (lambda: rf.optimal_ridge([1.0], [1.0], n_samples=3, tol=0.0), "tol"),
        (
            lambda: rf.simulate_risk(
                [1.0], [1.0], n_samples=3, ridge=0.0, n_draws=2, rng=np.random.default_rng(0)
            ),
            "ridge",
        ),
        (lambda: rf.simulate_risk([1.0], [1.0], n_samples=3, ridge=0.1, n_draws=2, rng=0), "rng"),
        (lambda: rf.population_spectrum([[1.0, 2.0], [0.0, 1.0]], [1.0, 1.0]), "kernel"),
        (lambda: rf.population_spectrum([[1.0, 2.0], [2.0, 1.0]], [1.0, 1.0]), "kernel"),
        (lambda: rf.optimal_fitting_ratio(1.0, 2.0, relative_noise=0.1), "spectral_exponent"),
        (lambda: rf.power_law_threshold(51.0, 2.0, n_samples=2), "spectral_exponent"),
        (
            lambda: rf.power_law_fitting_ratio(30.0, 2.0, relative_noise=0.1, n_samples=10_000),
            "spectral_exponent",
        ),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()


def test_a_kernel_in_single_precision_has_the_spectrum_of_the_double():
    rng = np.random.default_rng(11)
    points = rng.standard_normal((120, 3))
    squares = np.sum((points[:, None] - points) ** 2, axis=2)
    kernel, targets = np.exp(-squares / 8), np.sin(points[:, 0])
    single = kernel.astype(np.float32)
    assert np.linalg.eigvalsh(single.astype(float) / 120)[0] < -1e-9
    exact, coarse = (rf.population_spectrum(K, targets) for K in (kernel, single))
    # Weyl: eigenvalues move by at most the norm of the rounding.
    rounding = np.linalg.norm(single.astype(float) - kernel, 2) / 120
    assert np.abs(exact.eigenvalues - coarse.eigenvalues).max() <= 2.1 * rounding
    assert (coarse.eigenvalues[coarse.eigenvalues > 0] > rounding / 2).all()
    with pytest.raises(ValueError, match="kernel: expected a positive semi-definite"):
        rf.population_spectrum(single.astype(float), targets)
    with pytest.raises(ValueError, match="kernel: expected a positive semi-definite"):
        rf.population_spectrum(single - np.float32(1e-2) * np.eye(120, dtype=np.float32), targets)


@pytest.mark.parametrize(("n", "k", "noise"), [(20, None, 0.1), (30, 12, 0.0), (15, 15, 1.0)])
def test_a_search_for_the_best_ridge_that_is_stopped_has_true_bounds(n, k, noise):
    lam = np.arange(1, 41) ** -1.3
    v = np.arange(1, 41) ** -0.6
    problem = {"n_samples": n, "n_features": k, "noise_variance": noise}
    told = []
    full = rf.optimal_ridge(lam, v, **problem, tol=1e-10, callback=told.append)
    assert len(told) > 3
    gaps = []
    for last in range(1, 5):
        part = rf.optimal_ridge(
            lam, v, **problem, tol=1e-10, callback=lambda p, last=last: p.iteration == last
        )
        assert part.status is rf.OptimalRidgeStatus.STOPPED
        assert part.lower_bound <= full.test_risk <= part.test_risk
        assert part.gap == pytest.approx(told[last - 1].error, rel=1e-9, abs=1e-13)
        assert part.test_risk == told[last - 1].objective
        gaps.append(part.gap)
    assert gaps[0] > 1e-6
    assert (np.diff(gaps) <= 0).all()
