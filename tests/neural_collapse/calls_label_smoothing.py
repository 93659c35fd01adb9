"""One small valid call of every public function of
``theorylab.neural_collapse.label_smoothing``."""

import numpy as np

from theorylab.neural_collapse import label_smoothing as m

LOGITS = np.array([[1.0, 0.2, -0.3], [0.1, 0.9, 0.4], [-0.5, 0.3, 0.2]])
FEATURES = np.array([[1.0, 0.3, -0.7], [0.2, -0.8, 0.6]])
WEIGHTS = np.array([[0.4, 0.1], [-0.3, 0.7], [0.2, -0.5]])
LABELS = np.array([0, 1, 2])
DECAY = {"lam_w": 0.03, "lam_h": 0.05}

CALLS = {
    m.smoothing_terms: lambda: {"logits": LOGITS, "labels": LABELS},
    m.smoothed_loss: lambda: {"logits": LOGITS, "labels": LABELS, "alpha": 0.1, "loss": "maxsup"},
    m.correction_time: lambda: {
        "n_classes": 4,
        "margin": 1.0,
        "alpha": 0.1,
        "loss": "maxsup",
        "lead": 0.5,
    },
    m.smoothed_gap: lambda: {"n_classes": 4, "n_per_class": 3, "alpha": 0.1} | DECAY,
    m.smoothed_ufm_minimizer: lambda: (
        {"n_classes": 3, "n_per_class": 2, "dimension": 3, "alpha": 0.1} | DECAY
    ),
    m.search_smoothed_ufm: lambda: (
        {
            "counts": np.array([2, 2]),
            "dimension": 2,
            "alpha": 0.1,
            "loss": "maxsup",
            "bias": True,
            "n_starts": 1,
            "seed": 1,
        }
        | DECAY
    ),
    m.certify_smoothed_ufm: lambda: (
        {
            "features": FEATURES,
            "classifier": WEIGHTS,
            "counts": np.array([1, 1, 1]),
            "alpha": 0.1,
            "loss": "maxsup",
        }
        | DECAY
        | {"bias": np.array([0.1, 0.0, -0.1])}
    ),
    m.logit_radius: lambda: {"logits": LOGITS, "minimizer_logits": LOGITS + 0.1, "excess": 0.2},
    m.smoothed_linear_fit: lambda: {
        "features": FEATURES,
        "labels": LABELS,
        "n_classes": 3,
        "alpha": 0.1,
        "loss": "maxsup",
        "ridge": 0.1,
    },
}

ACCEPTS = {m.certify_smoothed_ufm: {"bias": {"none"}}}
