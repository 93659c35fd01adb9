"""One small valid call of every public function of ``theorylab.convex_relu.stationary_points``."""

import numpy as np

from theorylab.convex_relu import Network
from theorylab.convex_relu import stationary_points as module

X = np.array([[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]])
Y = np.array([0.5, -1.0, 0.3])
NETWORK = Network(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1.0, -0.5]))

POINT = {"X": X, "y": Y, "beta": 0.1, "network": NETWORK}

CALLS = {
    module.least_directional_derivative: lambda: dict(POINT),
    module.tie_multipliers: lambda: dict(POINT),
    module.network_objective: lambda: dict(POINT),
    module.gradient_descent: lambda: {
        "X": X,
        "y": Y,
        "beta": 0.1,
        "network": NETWORK,
        "step_size": 0.01,
        "max_steps": 20,
        "tol": 1e-6,
    },
    module.local_minimum: lambda: {
        "X": X,
        "y": Y,
        "beta": 0.1,
        "network": NETWORK,
        "max_steps": 50,
    },
    module.certify_subsampled: lambda: {
        "X": X,
        "y": Y,
        "beta": 0.1,
        "network": NETWORK,
        "cells": "all",
    },
}

ACCEPTS = {module.gradient_descent: {"step_size": {"none"}}}
