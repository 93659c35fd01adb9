"""One small valid call of every public function of ``theorylab.neural_collapse.metrics``."""

import numpy as np

from theorylab.neural_collapse import metrics as m

FEATURES = np.array([[1.0, 1.2, -1.0, -0.9, 0.1], [0.0, 0.1, 0.3, -0.2, 1.5]])

CALLS = {
    m.collapse_metrics: lambda: {
        "features": FEATURES,
        "labels": np.array([0, 0, 1, 1, 2]),
        "classifier": np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]),
        "bias": np.array([0.1, 0.0, -0.1]),
        "layout": "columns",
    },
    m.train_features: lambda: {
        "inputs": FEATURES,
        "labels": np.array([0, 0, 1, 1, 2]),
        "hidden": 5,
        "dimension": 3,
        "lam_w": 0.01,
        "lam_h": 0.01,
        "loss": "ce",
        "bias": True,
        "iterations": 3,
        "target": 0.1,
        "n_records": 2,
        "seed": 0,
    },
    m.simplex_etf: lambda: {"n_classes": 3, "dimension": 4},
    m.general_orthogonal_frame: lambda: {"lengths": np.array([1.0, 0.0, 2.0]), "dimension": 2},
}

ACCEPTS = {m.collapse_metrics: {"bias": {"none"}, "layout": {"none"}}}
