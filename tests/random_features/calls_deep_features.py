"""One small valid call of every public function of ``theorylab.random_features.deep_features``."""

import numpy as np

from theorylab import random_features as rf


def weights():
    return [np.array([[1.0, -0.5], [0.3, 2.0], [0.7, 0.1]]), np.array([[0.5, -1.0, 0.25]])]


def network():
    return rf.deep_feature_covariances(np.diag([1.0, 2.0]), weights(), np.tanh)


def three():
    return {
        "covariance": np.array([[2.0, 0.5], [0.5, 1.0]]),
        "cross_covariance": np.array([[1.0], [0.5]]),
        "target_covariance": np.array([[3.0]]),
    }


CALLS = {
    rf.deep_weights: lambda: {"n_inputs": 2, "widths": [3, 1], "rng": np.random.default_rng(0)},
    rf.network_features: lambda: {
        "inputs": np.array([[1.0, 2.0], [0.0, -1.0]]),
        "weights": weights(),
        "activation": np.tanh,
    },
    rf.deep_feature_covariances: lambda: {
        "input_covariance": np.array([[1.0, 0.2], [0.2, 2.0]]),
        "weights": weights(),
        "activation": np.tanh,
    },
    rf.deep_cross_covariance: lambda: {
        "input_covariance": np.array([[1.0, 0.0], [0.0, 2.0]]),
        "learner": network(),
        "teacher": network(),
    },
    rf.feature_ridge_risk: lambda: {
        **three(),
        "n_samples": 3,
        "ridge": 0.5,
        "noise_variance": 0.1,
    },
    rf.resolvent_trace: lambda: {
        "covariance": np.array([[2.0, 0.5], [0.5, 1.0]]),
        "n_samples": np.array([2, 3]),
        "ridge": np.array([0.5, 0.1]),
    },
}
