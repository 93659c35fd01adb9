"""One small valid call of every public function of
``theorylab.random_features.spiked_hessians``."""

import numpy as np

import theorylab.random_features as rf

CALLS = {
    rf.batch_noise: lambda: {"sigma": 0.1, "n_parameters": 20, "batch": 2, "n_samples": 5},
    rf.edge_location: lambda: {
        "eigenvalue": np.array([2.0, 0.5, -3.0]),
        "noise": np.array([1.0, 1.0, 2.0]),
    },
    rf.edge_correction: lambda: {
        "eigenvalue": np.array([2.0, 0.5, -3.0]),
        "noise": np.array([1.0, 1.0, 2.0]),
        "n_parameters": 50,
        "others": np.array([0.1, -0.2]),
    },
    rf.maximal_learning_rate: lambda: {
        "eigenvalue": np.array([2.0, 0.5]),
        "noise": np.array([1.0, 1.0]),
    },
    rf.learning_rate_slope: lambda: {"kappa": 20.0, "batch": 3, "n_samples": 9},
    rf.sample_batch_hessian: lambda: {
        "spikes": np.array([2.0, -1.0]),
        "sigma": 0.1,
        "n_parameters": 4,
        "batch": 2,
        "n_samples": 5,
        "noise": "gaussian",
        "rng": np.random.default_rng(0),
    },
    rf.batch_extremes: lambda: {"hessians": np.array([[[1.0, 2.0], [2.0, 0.0]], np.eye(2)])},
}
