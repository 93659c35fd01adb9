"""One small valid call of every public function of ``theorylab.convex_relu.optimal_set``."""

import numpy as np

from theorylab.convex_relu import Network
from theorylab.convex_relu import optimal_set as module

X = np.array([[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]])
Y = np.array([0.5, -1.0, 0.3])
NETWORK = Network(
    np.array([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0], [2.0, 0.1]]), np.array([1.0, 0.5, -1.0, 0.3])
)
OPTIMAL = module.find_optimal_set(X, Y, 0.1)

CALLS = {
    module.find_optimal_set: lambda: {
        "X": X,
        "y": Y,
        "beta": 0.1,
        "loss": "squared",
        "arrangements": "all",
        "bias": False,
        "tol": 1e-9,
    },
    module.vertices: lambda: {"optimal": OPTIMAL, "max_subsets": 10},
    module.minimal_networks: lambda: {"optimal": OPTIMAL, "max_subsets": 10},
    module.is_minimal: lambda: {"X": X, "network": NETWORK, "bias": False},
    module.optimal_pruning: lambda: {"X": X, "network": NETWORK, "bias": False},
    module.sensitivity: lambda: {
        "X": X,
        "y": Y,
        "beta": 0.1,
        "d_X": X[::-1].copy(),
        "d_y": Y[::-1].copy(),
        "d_beta": 0.5,
        "network": OPTIMAL.training.network,
        "loss": "squared",
        "bias": False,
    },
}

ACCEPTS = {module.sensitivity: {"d_X": {"none"}, "d_y": {"none"}, "network": {"none"}}}
