"""One small valid call of every public function of
``theorylab.random_features.hessian_rank``."""

import numpy as np

import theorylab.random_features as rf


def architecture():
    return {"length": 6, "filters": [2, 2], "channels": 5, "outputs": 1}


CALLS = {
    rf.convolutional_layers: lambda: {**architecture(), "seed": 0},
    rf.end_to_end: lambda: {"layers": [np.ones((2, 1, 2)), np.ones((1, 2, 3))]},
    rf.loss_hessian: lambda: {
        "layers": [np.ones((2, 1, 2)), np.ones((1, 2, 3))],
        "inputs": np.arange(8).reshape(2, 4),
        "targets": np.array([[1], [2]]),
    },
    rf.rank_modulo_prime: lambda: {"matrix": np.array([[1, 2], [3, 4]])},
    rf.rank_bound: lambda: {"length": 6, "filter_size": 2, "channels": 3, "outputs": 1},
    rf.generic_rank: architecture,
}
