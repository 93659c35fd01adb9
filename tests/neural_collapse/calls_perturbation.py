"""One small valid call of every public function of ``theorylab.neural_collapse.perturbation``."""

import numpy as np

from theorylab.neural_collapse import perturbation as m

FEATURES = np.array(
    [
        [1.0, 1.25, -1.0, -0.75, 0.5, 0.25],
        [0.0, 0.5, 0.25, -0.25, 1.5, 1.0],
        [0.5, -0.5, 0.75, 0.0, 0.25, -1.0],
    ]
)
CLASSIFIER = np.array([[1.0, 0.0, 0.5], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])

CALLS = {
    m.ridge_classifier: lambda: {"features": FEATURES, "n_classes": 3, "lam_w": 0.1},
    m.central_path_velocity: lambda: {
        "features": FEATURES,
        "n_classes": 3,
        "lam_w": 0.1,
        "lam_h": 0.01,
        "classifier": CLASSIFIER,
    },
    m.central_path: lambda: {
        "features": FEATURES,
        "n_classes": 3,
        "lam_w": 0.1,
        "times": np.array([0.0, 0.1]),
        "lam_h": 0.01,
        "classifier": CLASSIFIER,
        "tol": 1e-6,
    },
    m.trace_rates: lambda: {"features": FEATURES, "n_classes": 3, "lam_w": 0.1},
    m.exact_variability_rate: lambda: {"features": FEATURES, "n_classes": 3, "lam_w": 0.125},
    m.collapsed_response: lambda: {"beta": 0.3, "lam_w": 0.05, "lam_h": 0.02, "length": 1.0},
    m.near_minimizer: lambda: {
        "targets": FEATURES,
        "n_classes": 3,
        "beta": 0.3,
        "lam_w": 0.05,
        "lam_h": 0.02,
    },
}

ACCEPTS = {
    m.central_path_velocity: {"classifier": {"none"}},
    m.central_path: {"classifier": {"none"}},
    m.collapsed_response: {"length": {"none"}},
}
