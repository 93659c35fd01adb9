"""One small valid call of every public function of ``theorylab.random_features.neural_tangent``."""

import numpy as np

from theorylab import random_features as rf


def kernel():
    return {
        "X1": np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 0.3]]),
        "X2": np.array([[1.0, 0.0]]),
        "depth": 2,
        "activation": "relu",
        "weight_variance": 1.5,
        "bias_variance": 0.1,
    }


CALLS = {rf.ntk: kernel, rf.nngp: kernel}
