"""One small valid call of every public function of ``theorylab.convex_relu.admm``."""

import numpy as np

from theorylab.convex_relu import admm
from theorylab.convex_relu.training import train

X = np.array([[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1], [0.8, 0.7]])
Y = np.array([1.0, -0.5, 0.8, 0.2])
U = np.array([[1.0, 0.0], [0.3, -0.7], [-0.5, 0.5]])

CALLS = {
    admm.train_admm: lambda: {
        "X": X,
        "y": Y,
        "beta": 0.3,
        "arrangements": "all",
        "cones": True,
        "penalty": 1.0,
        "tol": 1e-3,
        "max_iter": 300,
    },
    admm.admm_iteration: lambda: {
        "result": admm.train_admm(X, Y, 0.3, tol=1e-2),
    },
    admm.train_output_layer: lambda: {"X": X, "y": Y, "beta": 0.3, "directions": U},
    admm.improvement_probability: lambda: {"X": X, "v": 0.1 * Y, "beta": 0.05, "law": "patterns"},
    admm.improving_patterns: lambda: {
        "X": X,
        "v": 0.1 * Y,
        "beta": 0.05,
        "patterns": (U @ X.T > 0).astype(float),
    },
    admm.improvement_tail_bound: lambda: {"n": 4, "n_samples": 20, "psi": 0.3},
    admm.sufficient_samples: lambda: {"n": 4, "psi": 0.1, "xi": 0.1},
    admm.displaced_neurons_bound: lambda: {"optimum": train(X, Y, 0.3), "angle": 0.1},
    admm.random_first_layer_bound: lambda: {
        "optimum": train(X, Y, 0.3),
        "n_directions": 100,
        "xi": 0.01,
    },
}

ACCEPTS = {admm.train_admm: {"penalty": {"none"}}}
