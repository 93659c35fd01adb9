"""One small valid call of every public function of
``theorylab.implicit_regularization.scale_invariance``."""

import numpy as np

from theorylab import implicit_regularization as ir

CALLS = {
    ir.batch_norm_loss: lambda: {
        "neurons": np.array([[1.0, 0.5], [-0.3, 0.8]]),
        "inputs": np.array([[0.2, -1.1], [1.3, 0.4], [-0.6, 0.9]]),
        "targets": np.array([0.5, -0.2, 0.1]),
        "head": np.array([0.7, -0.4]),
    },
    ir.normalised_descent: lambda: {
        "gradient": lambda w, t: np.array([0.3, -0.2]),
        "initial": np.array([1.0, 0.5]),
        "step_size": 0.1,
        "decay": 0.05,
        "steps": 4,
        "method": "adam",
        "beta1": 0.8,
        "beta2": 0.9,
        "eps": 0.1,
    },
    ir.tangential_gradient: lambda: {
        "point": np.array([1.0, 0.5]),
        "size": 0.7,
        "rng": np.random.default_rng(0),
    },
    ir.scale_equilibrium: lambda: {"step_size": 0.1, "decay": 0.3, "gradient_size": 1.5},
}
