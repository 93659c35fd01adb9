"""One small valid call of every public function of ``theorylab.convex_relu.layer_pruning``."""

import numpy as np

from theorylab.convex_relu import layer_pruning as lp

X = np.random.default_rng(0).normal(size=(12, 4))
W = np.array([[1.0, 0.0], [0.0, -0.5], [0.3, 0.0], [0.0, 0.2]])
V = np.array([[1.0, -1.0, 0.5], [0.2, 0.4, -1.0]])

CALLS = {
    lp.prune_layer: lambda: {
        "X": X,
        "W": W,
        "eps": 0.5,
        "tol": 1e-4,
        "max_iter": 2000,
        "check_every": 10,
        "start": np.zeros((4, 2)),
    },
    lp.recover_neuron: lambda: {"X": X, "w": W[:, 0]},
    lp.recover_neurons: lambda: {"X": X.reshape(2, 6, 4), "W": np.ascontiguousarray(W.T)},
    lp.basis_pursuit: lambda: {"A": X[:3], "b": X[:3] @ W[:, 0]},
    lp.statistical_dimension: lambda: {"n_inputs": 20, "sparsity": 3},
    lp.mixed_recovery_probability: lambda: {
        "recovery": np.array([0.0, 0.2, 0.7, 1.0]),
        "active": 0.4,
    },
    lp.recovery_probabilities: lambda: {"n_inputs": 6, "sparsity": 2},
    lp.samples_for_recovery: lambda: {
        "n_inputs": 6,
        "sparsity": 2,
        "level": 0.6,
        "active": 0.4,
    },
    lp.layer_outputs: lambda: {"X": X, "weights": [W, V]},
    lp.prune_network: lambda: {
        "X": X,
        "weights": [W, V],
        "eps": [0.5, 0.4],
        "tol": 1e-4,
        "max_iter": 2000,
    },
    lp.error_propagation_bound: lambda: {"weights": [W, V], "layer_errors": [0.5, 0.4]},
    lp.normalize_layers: lambda: {"weights": [W, V]},
}
