import math
import warnings

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from theorylab import random_features as rf


@pytest.mark.parametrize(("beta", "r"), [(1.5, 0.5), (2.0, 0.3), (3.0, 0.7)])
def test_power_law_constants_are_integrals(beta, r):
    law = rf.power_law_optimum(beta, r, n_samples=1000, noise=0.3)
    variance = quad(lambda x: (1 + x**beta) ** -2, 0, np.inf)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bias = quad(lambda t: math.exp(beta * (2 - 2 * r) * t) / (1 + math.exp(beta * t)) ** 2,
                    -60, 30, limit=500)[0]  # fmt: skip
    assert law.variance_constant == pytest.approx(variance, rel=1e-7)
    assert law.bias_constant == pytest.approx(bias, rel=1e-7)

    def error(t):
        lam = math.exp(t)
        return bias * lam ** (2 * r) + 0.3 * variance * lam ** (-1 / beta) / 1000

    found = minimize_scalar(error, bracket=(-8.0, -2.0), tol=1e-12)
    assert law.test_risk == pytest.approx(found.fun, rel=1e-7)
    assert law.ridge == pytest.approx(math.exp(found.x), rel=1e-4)


def test_power_law_without_noise_is_the_limit_of_the_prediction():
    beta, r, T = 2.0, 0.4, 2000
    k = np.arange(1.0, 400 * T + 1)
    lam = k**-beta
    truth = k ** (-0.5 - r * beta) / np.sqrt(lam)
    risk = rf.self_training_risk(lam, truth, n_samples=[T]).test_risk[0]
    law = rf.power_law_optimum(beta, r, n_samples=T, noise=0.0)
    assert law.ridge == 0.0
    assert risk == pytest.approx(law.test_risk, rel=0.01)


def test_collapse_noise_is_what_the_generations_add():
    d, T, T0, n = 30_000, 20_000, 70_000, 4
    lam = np.arange(1, d + 1) ** -2.0
    ridge = T * 1e-4
    stages = {
        "n_samples": np.array([T0] * n + [T]),
        "ridge": np.array([0.0] * n + [ridge]),
        "noise_variance": np.array([0.3] * n + [0.1]),
    }
    variance = rf.self_training_risk(lam, np.zeros(d), **stages).test_risk[-1]
    unit = rf.self_training_risk(
        lam, np.zeros(d), n_samples=[T], ridge=ridge, noise_variance=1.0
    ).test_risk[0]
    noise = rf.collapse_noise(
        0.1, synthetic_noise=0.3, generations=n, n_modes=d, n_samples=T, n_synthetic=T0
    )
    assert variance / unit == pytest.approx(noise, rel=0.01)
    assert (
        rf.collapse_noise(
            0.1, synthetic_noise=0.3, generations=0, n_modes=5, n_samples=5, n_synthetic=6
        )
        == 0.1
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spectral_exponent": 1.0}, "spectral_exponent"),
        ({"source_exponent": 1.0}, "source_exponent"),
        ({"n_samples": 0}, "n_samples"),
        ({"noise": -0.1}, "noise"),
    ],
)
def test_exponents_outside_of_the_law_are_refused(change, named):
    call = {"spectral_exponent": 2.0, "source_exponent": 0.4, "n_samples": 10, "noise": 0.1}
    with pytest.raises(ValueError, match=named):
        rf.power_law_optimum(**{**call, **change})


def test_noise_of_generations_needs_more_rows_than_modes():
    with pytest.raises(ValueError, match="n_synthetic"):
        rf.collapse_noise(
            0.1, synthetic_noise=0.3, generations=1, n_modes=5, n_samples=5, n_synthetic=5
        )
