"""One small valid call of every public function of
``theorylab.neural_collapse.smoothed_descent``."""

import numpy as np

from theorylab.neural_collapse import smoothed_descent as m

FEATURES = np.array([[1.0, 0.3, -0.7], [0.2, -0.8, 0.6]])
WEIGHTS = np.array([[0.4, 0.1], [-0.3, 0.7], [0.2, -0.5]])
LABELS = np.array([0, 1, 2])

CALLS = {
    m.label_gradients: lambda: {
        "features": FEATURES,
        "classifier": WEIGHTS,
        "targets": np.full((3, 3), 1 / 3),
    },
    m.gradient_noise: lambda: {"features": FEATURES, "labels": LABELS, "classifier": WEIGHTS},
    m.smoothed_sgd: lambda: {
        "features": FEATURES,
        "labels": LABELS,
        "initial": WEIGHTS,
        "order": np.array([0, 2, 1, 1]),
        "theta": 0.5,
        "step_size": 0.1,
        "switch": 2,
        "every": 2,
    },
    m.quadratic_floor: lambda: {
        "curvature": 1.5,
        "noise": 0.4,
        "step_size": 0.3,
        "theta": 0.5,
        "bias": 0.2,
    },
    m.smoothing_threshold: lambda: {"curvature": 1.5, "noise": 0.4, "theta": 0.5, "bias": 0.2},
}
