"""One small valid call of every public function of
``theorylab.random_features.batch_norm_isometry``."""

import numpy as np

from theorylab.random_features import batch_norm_isometry as bn


def batch():
    return np.array([[1.0, 0.4], [-0.3, 0.9]])


CALLS = {
    bn.isometry_gap: lambda: {"X": batch()},
    bn.normalise_rows: lambda: {"X": batch()},
    bn.random_rotations: lambda: {"d": 2, "n": 3, "rng": np.random.default_rng(0)},
    bn.batch_norm_signals: lambda: {
        "X": batch(),
        "W": np.array([[[0.6, 0.8], [-0.8, 0.6]], [[0.0, 1.0], [1.0, 0.0]]]),
        "cotangent": np.array([[0.2, -1.0], [0.5, 0.1]]),
    },
    bn.gap_decay_length: lambda: {"d": 3, "gap": 0.4},
    bn.gradient_survival: lambda: {"d": 3, "layers": 2},
}
