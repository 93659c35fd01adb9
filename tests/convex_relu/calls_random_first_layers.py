"""One small valid call of every public function around random first layers."""

import numpy as np

from theorylab.convex_relu import (
    displaced_neurons_bound,
    improvement_probability,
    improvement_tail_bound,
    improving_patterns,
    random_first_layer_bound,
    sufficient_samples,
    train,
    train_output_layer,
)

X = np.array([[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1], [0.8, 0.7]])
Y = np.array([1.0, -0.5, 0.8, 0.2])
U = np.array([[1.0, 0.0], [0.3, -0.7], [-0.5, 0.5]])

CALLS = {
    train_output_layer: lambda: {"X": X, "y": Y, "beta": 0.3, "directions": U},
    improvement_probability: lambda: {"X": X, "v": 0.1 * Y, "beta": 0.05, "law": "patterns"},
    improving_patterns: lambda: {
        "X": X,
        "v": 0.1 * Y,
        "beta": 0.05,
        "patterns": (U @ X.T > 0).astype(float),
    },
    improvement_tail_bound: lambda: {"n": 4, "n_samples": 20, "psi": 0.3},
    sufficient_samples: lambda: {"n": 4, "psi": 0.1, "xi": 0.1},
    displaced_neurons_bound: lambda: {"optimum": train(X, Y, 0.3), "angle": 0.1},
    random_first_layer_bound: lambda: {
        "optimum": train(X, Y, 0.3),
        "n_directions": 100,
        "xi": 0.01,
    },
}
