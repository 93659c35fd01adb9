"""One small valid call of every public function of
``theorylab.random_features.finite_networks``."""

import numpy as np

from theorylab import random_features as rf

LAW = {"activation": "erf", "weight_variance": 1.5, "bias_variance": 0.1, "seed": 0}


def points():
    return np.array([[1.0, 2.0], [0.5, -1.0]])


def networks(n_outputs=1):
    return rf.random_networks(
        2, width=3, depth=2, n_outputs=n_outputs, n_draws=2, weight_variance=1.5, seed=0
    )


CALLS = {
    rf.decay_exponents: lambda: {
        "squares": [np.array([4.0, 1.0]), np.array([2.0, 0.5])],
        "factor": 2.0,
        "n_batches": 2,
    },
    rf.random_networks: lambda: {
        **LAW,
        "n_inputs": 2,
        "width": 3,
        "depth": 2,
        "n_outputs": 2,
        "n_draws": 2,
    },
    rf.network_outputs: lambda: {"networks": networks(2), "X": points()},
    rf.tangent_blocks: lambda: {"networks": networks(2), "X": points()},
    rf.sample_kernels: lambda: {**LAW, "X": points(), "widths": np.array([3, 4]), "n_draws": 2},
}
