"""One small valid call of the public function of
``theorylab.random_features.bounded_bias``."""

import numpy as np

from theorylab.random_features import minimum_variance

CALLS = {
    minimum_variance: lambda: {
        "X": np.array([[2.0, 0.5], [0.25, 1.0], [0.0, 0.5]]),
        "bias_bound": 0.5,
        "norm": "nuclear",
        "tol": 1e-6,
        "max_iter": 300,
    },
}
