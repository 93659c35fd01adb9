"""One small valid call of every public function of ``theorylab.convex_relu.parallel_networks``."""

import numpy as np

from theorylab.convex_relu import parallel_networks as pn

X = np.array([[1.0, 0.5], [0.0, 2.0], [1.0, 1.0]])
Y = X @ np.array([[1.0, 0.2], [0.3, -1.0]])
LINEAR = ((np.eye(2), np.eye(2), np.array([[1.0, 0.2], [0.3, -1.0]])),)
C = np.array([1.0, -0.5, 2.0])
A = np.array([0.6, 0.8])
RELU = ((np.array([[0.6, -0.6], [0.8, -0.8]]), np.eye(2), np.array([[1.0], [-1.0]])),)

CALLS = {
    pn.linear_minimum_norm: lambda: {
        "X": X,
        "Y": Y,
        "depth": 3,
        "architecture": "parallel",
        "penalty": "power",
    },
    pn.rank_one_relu_minimum_norm: lambda: {
        "c": C,
        "a": A,
        "alpha": 1.0,
        "gamma": -0.5,
        "architecture": "standard",
        "penalty": "squared",
    },
    pn.network_cost: lambda: {"branches": LINEAR, "penalty": "power"},
    pn.network_output: lambda: {"X": X, "branches": LINEAR, "activation": "relu"},
    pn.certify_linear: lambda: {"X": X, "branches": LINEAR, "dual_point": Y, "penalty": "squared"},
    pn.certify_rank_one_relu: lambda: {
        "c": C,
        "a": A,
        "branches": RELU,
        "dual_point": C[:, None],
        "penalty": "squared",
    },
    pn.search_minimum_norm: lambda: {
        "X": X,
        "Y": Y,
        "widths": [2, 2],
        "n_branches": 2,
        "activation": "linear",
        "penalty": "power",
        "n_starts": 1,
        "target": 0.5,
        "tol": 1e-6,
        "seed": 0,
    },
    pn.fit_factored: lambda: {
        "X": X,
        "Y": Y,
        "beta": 0.3,
        "depth": 2,
        "width": 2,
        "relu": False,
        "n_random": 1,
        "seed": 0,
    },
    pn.parallel_relu_minimum_norm: lambda: {"X": X[:2], "y": np.array([1.0, 0.5])},
    pn.branch_dual_norm: lambda: {"X": X[:2], "dual_point": np.array([1.0, -0.5])},
    pn.shrink_singular_values: lambda: {"sigma": np.array([0.5, 2.0]), "beta": 0.3, "depth": 3},
    pn.shrinkage_jump: lambda: {"beta": 0.3, "depth": 3},
}

ACCEPTS = {
    pn.search_minimum_norm: {"target": {"none"}},
    pn.fit_factored: {"width": {"none"}},
}
