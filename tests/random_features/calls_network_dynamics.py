"""One small valid call of every public function of
``theorylab.random_features.network_dynamics``."""

import numpy as np

from theorylab import random_features as rf


def points():
    return np.array([[1.0, 2.0], [0.5, -1.0]])


def networks():
    return rf.random_networks(2, width=3, depth=1, n_draws=2, activation="erf", seed=0)


CALLS = {
    rf.gradient_flow: lambda: {
        "networks": networks(),
        "X": points(),
        "targets": np.array([1.0, -1.0]),
        "time": 0.5,
        "n_steps": 3,
    },
    rf.linear_dynamics: lambda: {
        "kernel": np.array([[2.0, 1.0], [1.0, 2.0]]),
        "targets": np.array([1.0, -1.0]),
        "initial": np.array([0.0, 0.5]),
        "times": np.array([0.0, 1.0]),
        "cross_kernel": np.array([[0.5, 0.5]]),
        "cross_initial": np.array([0.1]),
    },
    rf.entrywise_step: lambda: {
        "networks": networks(),
        "X": points(),
        "loss_derivatives": np.array([1.0, -1.0]),
        "step_sizes": np.array([0.1, 0.1]),
    },
    rf.planar_sign_limit: lambda: {
        "X": points(),
        "loss_derivatives": np.array([1.0, -1.0]),
        "X_test": np.array([[1.0, 1.0]]),
        "step_size": 0.5,
        "weight_variance": 1.5,
    },
}
