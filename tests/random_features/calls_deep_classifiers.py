"""One small valid call of every public function of
``theorylab.random_features.deep_classifiers``."""

import numpy as np

from theorylab.random_features import deep_classifiers as dc


def weights():
    return np.array([0.0, 0.5, 0.25, 0.25])


CALLS = {
    dc.optimal_weights: lambda: {"dimension": 3},
    dc.singularity_exponent: lambda: {"weights": weights()},
    dc.log_tangent_kernel: lambda: {
        "log_cosine": np.array([-0.1, -2.0]),
        "weights": weights(),
        "depth": 3,
    },
    dc.koenigs_logarithm: lambda: {"log_cosine": np.array([-0.1, -2.0]), "weights": weights()},
    dc.deep_prediction: lambda: {
        "X": np.array([[1.0, 0.2], [0.3, 1.0], [0.8, 0.9]]),
        "y": np.array([1.0, -1.0, 0.5]),
        "Z": np.array([[0.5, 0.6]]),
        "weights": weights(),
        "depth": 2,
    },
    dc.hilbert_average: lambda: {
        "squared_distances": np.array([[1.0, 0.5], [2.0, 0.3]]),
        "labels": np.array([1.0, -1.0]),
        "exponent": 1.5,
    },
    dc.stable_vote_error: lambda: {"index": 0.4, "noise": 0.2},
}
