"""One small valid call of every public function of ``theorylab.optimal_transport.sum_of_norms``."""

import numpy as np

from theorylab.optimal_transport import sum_of_norms as sn

SQUARE = np.array(
    [[0.5, 1.5, 2.0, 2.5], [0.4, 0.1, 3.0, 2.2], [3.1, 2.2, 0.3, 0.2], [2, 3, 0.1, 1]]
)
LABELS = np.array([0, 0, 1, 1])

CALLS = {
    sn.class_plan: lambda: {
        "a": np.array([0.25, 0.35, 0.4]),
        "b": np.array([0.5, 0.5]),
        "C": np.array([[0.5, 1.5], [1.0, 0.1], [0.3, 0.8]]),
        "lam": 0.2,
        "labels": np.array([0, 0, 1]),
    },
    sn.class_penalty: lambda: {
        "plan": np.array([[0.25, 0.25], [0.5, 0.0]]),
        "labels": np.array([0, 0]),
    },
    sn.pair_prox: lambda: {"x": np.array([1.0, 2.0]), "y": np.array([0.5, -1.0]), "step": 0.5},
    sn.marginal_projection: lambda: {
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.3, 0.8]]),
        "rows": np.array([0.2, 0.3, 0.5]),
        "columns": np.array([0.6, 0.4]),
    },
    sn.recovery_window: lambda: {"C": SQUARE, "labels": LABELS},
    sn.recovery_certificate: lambda: {"C": SQUARE, "lam": 0.1, "labels": LABELS},
}
