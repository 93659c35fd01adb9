"""One small valid call of every public function of ``theorylab.random_features.eigenframework``."""

import numpy as np

from theorylab import random_features as rf


def spectrum():
    return {
        "eigenvalues": np.array([1.0, 0.5, 0.1, 0.02]),
        "coefficients": np.array([1.0, -0.5, 0.2, 0.1]),
    }


def sizes():
    return {"n_samples": 3, "n_features": 5, "noise_variance": 0.1}


def gaussian(rng, shape):
    return rng.standard_normal(shape)


def features(rng):
    return rng.standard_normal((6, 4))


CALLS = {
    rf.random_feature_risk: lambda: {**spectrum(), **sizes(), "ridge": 0.1},
    rf.kernel_ridge_risk: lambda: {
        **spectrum(),
        "n_samples": 3,
        "ridge": 0.1,
        "noise_variance": 0.1,
    },
    rf.learning_curve: lambda: {
        **spectrum(),
        "n_samples": np.array([2, 3]),
        "n_features": np.array([4, 5]),
        "ridge": np.array([0.1, 0.2]),
        "noise_variance": 0.1,
    },
    rf.finite_size_term: lambda: {**spectrum(), **sizes(), "ridge": 0.1},
    rf.optimal_ridge: lambda: {**spectrum(), **sizes(), "tol": 1e-6},
    rf.simulate_risk: lambda: {
        **spectrum(),
        **sizes(),
        "ridge": 0.1,
        "n_draws": 3,
        "rng": np.random.default_rng(0),
        "sample_modes": gaussian,
        "feature_modes": gaussian,
    },
    rf.population_spectrum: lambda: {
        "kernel": np.array([[2.0, 1.0], [1.0, 2.0]]),
        "targets": np.array([1.0, -1.0]),
    },
    rf.circulant_spectrum: lambda: {
        "profile": np.array([1.0, 0.5, 0.0, 0.5]),
        "targets": np.array([1.0, 0.0, -1.0, 0.0]),
    },
    rf.resample_risk: lambda: {
        "draw_features": features,
        "targets": np.arange(6.0),
        "n_samples": 3,
        "ridge": 0.1,
        "n_draws": 2,
        "rng": np.random.default_rng(0),
    },
    rf.interpolation_threshold: lambda: {"spectral_exponent": 1.5, "target_exponent": 2.0},
    rf.optimal_fitting_ratio: lambda: {
        "spectral_exponent": 1.5,
        "target_exponent": 2.0,
        "relative_noise": 1.0,
    },
    rf.power_law_fitting_ratio: lambda: {
        "spectral_exponent": 1.5,
        "target_exponent": 2.0,
        "relative_noise": 1.0,
        "n_samples": 10,
    },
    rf.power_law_threshold: lambda: {
        "spectral_exponent": 1.5,
        "target_exponent": 2.0,
        "n_samples": 10,
    },
}

# No number of features is infinitely many; no law of the modes is the Gaussian one.
ACCEPTS = {
    rf.learning_curve: {"n_features": {"none"}},
    rf.finite_size_term: {"n_features": {"none"}},
    rf.optimal_ridge: {"n_features": {"none"}},
    rf.simulate_risk: {"n_features": {"none"}, "sample_modes": {"none"}, "feature_modes": {"none"}},
}
