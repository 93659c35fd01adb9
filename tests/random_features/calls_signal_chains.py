"""One small valid call of every public function of ``theorylab.random_features.signal_chains``."""

import numpy as np

from theorylab.random_features import signal_chains as sc

CALLS = {
    sc.vertex_growth: lambda: {"width": 5, "leak": 0.3},
    sc.residual_growth: lambda: {"width": 5, "skip": 0.6},
    sc.propagate: lambda: {
        "z": np.array([0.4, -1.1]),
        "W": np.array([[0.2, 1.0], [-0.7, 0.3]]),
        "leak": 0.2,
        "skip": 0.5,
        "branch": 0.8,
    },
    sc.kernel_chain: lambda: {
        "activation": np.tanh,
        "kernel": 0.5,
        "depth": 4,
        "weight_variance": 1.2,
        "bias_variance": 0.1,
    },
}
