"""One small valid call of every public function of
``theorylab.implicit_regularization.diagonal_networks``."""

import numpy as np

from theorylab.implicit_regularization import diagonal_networks as dn


def data():
    return {
        "X": np.array([[1.0, -0.5, 0.3], [0.2, 0.7, -1.0]]),
        "y": np.array([0.5, -1.0]),
    }


CALLS = {
    dn.diagonal_network_flow: lambda: {
        **data(),
        "scale": np.array([0.5, 0.4, 0.6]),
        "form": "difference",
        "linear": 0.3,
        "tilt": np.array([0.1, 0.0, -0.1]),
        "gradient_penalty": 0.05,
        "ascent": 0.02,
        "tol": 1e-4,
        "rtol": 1e-6,
    },
    dn.diagonal_network_sgd: lambda: {
        **data(),
        "start": 0.4,
        "step_size": 0.02,
        "steps": 50,
        "batch": 1,
        "seed": 3,
    },
    dn.double_well_descent: lambda: {
        "start": np.array([0.3, -0.8]),
        "step_size": 1.1,
        "steps": 20,
    },
    dn.double_well_cycle: lambda: {"step_size": 1.1},
}
