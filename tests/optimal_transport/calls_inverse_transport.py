"""One small valid call of every public function of
``theorylab.optimal_transport.inverse_transport``."""

import numpy as np

from theorylab.optimal_transport import inverse_transport as inverse


def clouds():
    return {
        "plan": np.array([[0.3, 0.1], [0.1, 0.2], [0.05, 0.25]]),
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3]]),
        "Y": np.array([[0.1, 1.1], [1.3, 2.1]]),
        "eps": 0.5,
    }


def gaussians():
    return {
        "cov_x": np.array([[1.5, 0.2], [0.2, 0.8]]),
        "cov_y": np.array([[0.9, -0.3], [-0.3, 1.1]]),
        "eps": 0.5,
    }


def gain():
    return {"A": np.array([[0.5, 0.0], [0.2, -0.4]]), **gaussians()}


CALLS = {
    inverse.gain_hessian: clouds,
    inverse.gaussian_coupling: gain,
    inverse.gaussian_gain: gain,
    inverse.gaussian_hessian: gain,
    inverse.gaussian_inverse_cost: lambda: {
        "cross": np.array([[0.3, 0.1], [0.0, -0.2]]),
        "lam": 0.02,
        **gaussians(),
    },
    inverse.inverse_cost: lambda: {**clouds(), "lam": 0.01},
    inverse.irrepresentability: lambda: {
        "hessian": np.array([[2.0, 1.0], [1.0, 3.0]]),
        "A": np.array([0.5, 0.0]),
    },
}
