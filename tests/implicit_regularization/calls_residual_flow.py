"""One small valid call of every public function of
``theorylab.implicit_regularization.residual_flow``."""

import numpy as np

from theorylab.implicit_regularization import residual_flow as rf


def weights():
    V, W, A, B = rf.tied_network(3, depth=4, hidden=3, inputs=2, outputs=1, seed=0)
    return {"V": V + 0.05, "W": W, "A": A, "B": B}


def problem():
    X, Y = np.array([[1.0, 0.2], [-0.4, 0.9]]), np.array([[0.1], [-0.2]])
    return {**weights(), "X": X, "Y": Y, "times": np.array([0.0, 0.1])}


CALLS = {
    rf.tied_network: lambda: {
        "width": 3,
        "depth": 4,
        "hidden": 3,
        "inputs": 2,
        "outputs": 1,
        "seed": 0,
    },
    rf.residual_outputs: lambda: {**weights(), "X": np.array([[1.0, 0.2], [-0.4, 0.9]])},
    rf.residual_gradient_flow: lambda: {**problem(), "speed": 2.0, "tol": 1e-6},
    rf.depth_increments: lambda: {k: v for k, v in weights().items() if k in "VW"},
    rf.flow_majorant: lambda: {**problem(), "lipschitz": np.array([0.1, 0.2]), "loss": 1.0},
    rf.tied_convergence: lambda: {
        "W": weights()["W"][0],
        "X": np.array([[1.0, 0.2], [-0.4, 0.9]]),
        "Y": np.array([[1e-4], [-2e-4]]),
    },
}
