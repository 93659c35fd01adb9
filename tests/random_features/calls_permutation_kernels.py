"""One small valid call of every public function of
``theorylab.random_features.permutation_kernels``."""

import numpy as np

from theorylab.random_features import permutation_kernels as pk
from theorylab.random_features import rectified_power


def problem():
    return {
        "inputs": np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]),
        "permutation": np.array([2, 0, 1]),
        "activation": rectified_power(1),
    }


CALLS = {
    pk.output_law: lambda: {"n_bits": 4, "ones": np.array([1, 3])},
    pk.noise_to_margin: lambda: {"n_bits": 4, "ones": np.array([1, 3]), "threshold": "midpoint"},
    pk.cost_limits: dict,
    pk.ensemble_size: lambda: {"n_bits": 4, "failure": 0.1, "inputs": "all"},
    pk.binary_inputs: lambda: {"n_bits": 3},
    pk.trained_mean: lambda: {
        **problem(),
        "training": np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.0, 1.0]]),
    },
    pk.ensemble_outputs: lambda: {**problem(), "n_models": 2, "n_draws": 3, "seed": 0},
}
