"""One small valid call of every public function of ``theorylab.random_features.self_training``."""

import numpy as np

from theorylab import random_features as rf


def problem():
    return {"eigenvalues": np.array([1.0, 0.5, 0.1]), "coefficients": np.array([1.0, -0.5, 2.0])}


def stages():
    return {"n_samples": np.array([6, 5]), "noise_variance": np.array([0.1, 0.2])}


def design(rng, rows):
    return rng.standard_normal((rows, 3))


CALLS = {
    rf.self_training_risk: lambda: {**problem(), **stages(), "ridge": np.array([0.0, 0.5])},
    rf.exact_self_training_risk: lambda: {**problem(), **stages()},
    rf.self_training_finite_size_term: lambda: {**problem(), **stages(), "final_ridge": 0.5},
    rf.optimal_final_ridge: lambda: {**problem(), **stages()},
    rf.collapse_noise: lambda: {
        "noise_variance": 0.1,
        "synthetic_noise": 0.2,
        "generations": 3,
        "n_modes": 5,
        "n_samples": 6,
        "n_synthetic": 9,
    },
    rf.power_law_optimum: lambda: {
        "spectral_exponent": 1.5,
        "source_exponent": 0.4,
        "n_samples": 50,
        "noise": 0.3,
    },
    rf.simulate_self_training: lambda: {
        **problem(),
        **stages(),
        "ridge": np.array([0.0, 0.5]),
        "n_draws": 2,
        "rng": np.random.default_rng(0),
        "draw_design": design,
    },
}

# No law of the rows is the Gaussian one.
ACCEPTS = {rf.simulate_self_training: {"draw_design": {"none"}}}
