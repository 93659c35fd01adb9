"""One small valid call of every public function of ``theorylab.random_features.feature_ridge``."""

import numpy as np

from theorylab.random_features import feature_ridge as fr


def network():
    return {
        "W": np.array([[0.5, -0.25], [0.25, 0.75], [-0.5, 0.1]]),
        "a": np.array([1.0, -0.5, 0.25]),
    }


def inputs():
    return np.array([[1.0, 0.5], [-0.5, 0.25], [0.3, 0.8]])


def distillation():
    return {
        "support": np.array([[0.5, 0.2], [-0.1, 0.4]]),
        "labels": np.array([1.0, -0.5]),
        "X": inputs(),
        "y": np.array([0.5, 0.25, -1.0]),
        **network(),
        "ridge": 0.5,
    }


def kernel():
    return {
        "K": np.array([[2.0, 0.5], [0.5, 1.0]]),
        "y": np.array([1.0, -0.5]),
        "prior_variances": np.array([0.5, 2.0]),
        "noise_variance": 0.5,
    }


CALLS = {
    fr.tangent_features: lambda: {"X": inputs(), **network()},
    fr.tangent_pullback: lambda: {
        "X": inputs(),
        **network(),
        "G": np.linspace(-1.0, 1.0, 27).reshape(3, 9),
    },
    fr.distillation_loss: distillation,
    fr.distillation_gradient: lambda: {**distillation(), "shift": np.full(9, 0.1), "steps": 3},
    fr.head_gradient: lambda: {
        "X": inputs(),
        "y": np.array([0.5, 0.25, -1.0]),
        "W": network()["W"],
        "ridge": 0.5,
        "shift": np.full(3, 0.1),
    },
    fr.evidence_objective: kernel,
    fr.emphasized_objective: lambda: {**kernel(), "n_features": 4, "emphasis": 2.0},
    fr.matching_emphasis: lambda: {
        "K": kernel()["K"],
        "prior_variance": 0.5,
        "n_features": 4,
        "noise_variance": 0.5,
    },
}
