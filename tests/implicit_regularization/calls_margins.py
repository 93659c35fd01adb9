"""One small valid call of every public function of
``theorylab.implicit_regularization.margins``."""

import numpy as np

from theorylab.implicit_regularization import margins as mm

CALLS = {
    mm.margin_projection: lambda: {
        "Z": np.array([[1.0, 1.0, 0.5], [0.2, 4.0, -1.0]]),
        "start": np.array([2.0, -3.0, 0.5]),
        "tol": 1e-9,
        "max_iter": 100,
    },
    mm.max_margin: lambda: {
        "X": np.array([[1.0, 0.3], [-0.4, 1.2], [-2.0, -0.5]]),
        "y": np.array([1.0, 1.0, -1.0]),
        "intercept": False,
        "tol": 1e-9,
        "max_iter": 100,
    },
}
