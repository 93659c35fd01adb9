"""One small valid call of every public function of ADMM."""

import numpy as np

from theorylab.convex_relu import admm_iteration, train_admm

X = np.array([[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1], [0.8, 0.7]])
Y = np.array([1.0, -0.5, 0.8, 0.2])

CALLS = {
    train_admm: lambda: {
        "X": X,
        "y": Y,
        "beta": 0.3,
        "arrangements": "all",
        "cones": True,
        "penalty": 1.0,
        "tol": 1e-3,
        "max_iter": 300,
    },
    admm_iteration: lambda: {
        "result": train_admm(X, Y, 0.3, tol=1e-2),
    },
}

ACCEPTS = {train_admm: {"penalty": {"none"}}}
