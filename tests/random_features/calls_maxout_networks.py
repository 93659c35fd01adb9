"""One small valid call of every public function of
``theorylab.random_features.maxout_networks``."""

import numpy as np

from theorylab.random_features import maxout_networks as mn

CALLS = {
    mn.maxout_moments: lambda: {"rank": 3},
    mn.critical_scale: lambda: {"rank": 3},
    mn.directional_gain: lambda: {"rank": 3, "cosine": np.array([0.1, 0.9])},
    mn.maxout_signals: lambda: {"rank": 3, "width": 4, "depth": 5, "scale": 0.8},
    mn.maxout_layer: lambda: {
        "W": np.arange(12.0).reshape(3, 2, 2) % 5 - 2.2,
        "x": np.array([0.3, -1.2]),
        "biases": np.array([[0.1, 0.2], [0.3, -0.1], [0.0, 0.5]]),
    },
    mn.expected_breakpoints: lambda: {"rank": 4},
    mn.count_breakpoints: lambda: {
        "slopes": np.array([[-1.0, 0.2, 1.5], [0.3, 0.1, -0.7]]),
        "intercepts": np.array([[0.1, 0.9, 0.2], [0.3, -0.4, 0.5]]),
    },
}

ACCEPTS = {mn.maxout_layer: {"biases": {"none"}}}
