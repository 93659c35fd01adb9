"""One small valid call of every public function of
``theorylab.random_features.linear_estimators``."""

import numpy as np

from theorylab.random_features import linear_estimators as le


def reciprocal(x):
    return 1 / x


def spectrum():
    return np.array([2.0, 1.0, 0.5])


CALLS = {
    le.bias_factors: lambda: {
        "singular_values": spectrum(),
        "strength": 0.5,
        "norm": "frobenius",
    },
    le.least_variance_factors: lambda: {
        "singular_values": spectrum(),
        "bias_bound": 0.5,
        "norm": "nuclear",
    },
    le.shrinkage_estimator: lambda: {
        "X": np.array([[2.0, 0.5], [0.25, 1.0], [0.0, 0.5]]),
        "factors": np.array([0.25, 0.5]),
    },
    le.shrinkage_risk: lambda: {
        "singular_values": spectrum(),
        "factors": np.array([0.1, 0.2, 0.3]),
        "coefficients": np.array([1.0, -0.5, 0.25]),
        "noise_variance": 0.5,
    },
    le.best_shrinkage: lambda: {
        "singular_values": spectrum(),
        "coefficients": np.array([1.0, -0.5, 0.25]),
        "norm": "frobenius",
        "noise_variance": 0.5,
        "tol": 0.01,
    },
    le.spectral_mean: lambda: {"function": reciprocal, "aspect": 0.5, "block": 0.25},
    le.shrinkage_limit: lambda: {
        "strength": 0.5,
        "norm": "frobenius",
        "aspect": 0.5,
        "noise_variance": 0.5,
    },
}

# An infinite strength is the zero estimator.
ACCEPTS = {le.bias_factors: {"strength": {"inf"}}, le.shrinkage_limit: {"strength": {"inf"}}}
