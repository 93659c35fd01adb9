"""One small valid call of every public function of
``theorylab.implicit_regularization.mixed_interpolators``."""

import numpy as np

from theorylab.implicit_regularization import mixed_interpolators as mi

CALLS = {
    mi.sparse_regression: lambda: {
        "n": 4,
        "d": 9,
        "sparsity": 2,
        "signal_norm": 1.5,
        "noise_scale": 0.5,
        "seed": 1,
    },
    mi.min_norm_interpolator: lambda: {
        "X": np.array([[1.0, -0.5, 0.3], [0.2, 0.7, -1.0]]),
        "y": np.array([0.5, -1.0]),
        "p": 1,
    },
    mi.min_l2_risk: lambda: {"n": 4, "d": 9, "signal_norm": 1.5, "noise_scale": 0.5},
    mi.sparse_interpolator_bound: lambda: {"n": 4, "d": 9, "sparsity": 2, "noise_scale": 0.5},
    mi.universal_linear: lambda: {"n": 4, "d": 9, "noise_scale": 0.5, "scale": 1e-3},
}
