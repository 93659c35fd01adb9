"""One small valid call of every public function of
``theorylab.matrix_sensing.bures_wasserstein``."""

import numpy as np

from theorylab.matrix_sensing import bures_wasserstein as bw

TARGET = np.array([[3.0, 0.5, 0.0], [0.5, 2.0, 0.2], [0.0, 0.2, 1.0]])
WEIGHTS = np.array([[1.0, 0.2], [0.3, 0.9], [-0.2, 0.4]])
OTHER = WEIGHTS @ WEIGHTS.T + np.eye(3)

CALLS = {
    bw.random_covariance: lambda: {
        "eigenvalues": np.array([2.0, 1.0]),
        "rng": np.random.default_rng(0),
    },
    bw.smoothed_rate: lambda: {"target": TARGET, "rank": 2, "smoothing": 0.1},
    bw.bures_wasserstein_distance: lambda: {"first": OTHER, "second": TARGET},
    bw.bures_loss: lambda: {"generator": WEIGHTS, "target": TARGET, "smoothing": 0.1},
    bw.bures_gradient: lambda: {"generator": WEIGHTS, "target": TARGET, "smoothing": 0.1},
    bw.bures_hessian: lambda: {"generator": WEIGHTS, "target": TARGET, "smoothing": 0.1},
    bw.curvature_bounds: lambda: {"generator": WEIGHTS, "target": TARGET},
    bw.spectral_selections: lambda: {"target": TARGET, "rank": 2},
    bw.smoothed_minimum: lambda: {"target": TARGET, "rank": 2, "smoothing": 0.1},
    bw.subspace_tilt: lambda: {"generator": WEIGHTS, "target": TARGET},
    bw.bures_gradient_descent: lambda: {
        "initial": WEIGHTS,
        "target": TARGET,
        "step_size": 0.2,
        "steps": 3,
        "smoothing": 0.1,
    },
    bw.balanced_factors: lambda: {"product": WEIGHTS, "depth": 2, "rng": np.random.default_rng(0)},
    bw.deep_flow: lambda: {
        "factors": [WEIGHTS, np.eye(2)],
        "target": TARGET,
        "times": np.array([0.0, 0.5, 1.0]),
        "smoothing": 0.1,
        "tol": 1e-8,
    },
    bw.deep_gradient_descent: lambda: {
        "factors": [WEIGHTS, np.eye(2)],
        "target": TARGET,
        "step_size": 0.05,
        "steps": 3,
    },
    bw.deep_rate: lambda: {"target": TARGET, "rank": 2, "depth": 2},
    bw.factor_rate: lambda: {"factors": [WEIGHTS, np.eye(2)], "target": TARGET},
}
