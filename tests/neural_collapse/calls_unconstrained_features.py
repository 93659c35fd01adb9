"""One small valid call of every public function of
``theorylab.neural_collapse.unconstrained_features``."""

import numpy as np

from theorylab.neural_collapse import unconstrained_features as uf


def point():
    return {
        "features": np.array([[1.0, 1.0, -1.0], [0.5, 0.5, 2.0]]),
        "classifier": np.array([[1.0, 0.0], [-1.0, 0.5]]),
        "counts": np.array([2, 1]),
        "lam_w": 0.1,
        "lam_h": 0.05,
        "loss": "ce",
        "bias": np.array([0.1, -0.1]),
    }


CALLS = {
    uf.ufm_objective: point,
    uf.certify_ufm: point,
    uf.ufm_minimizer: lambda: {
        "counts": np.array([3, 2, 2]),
        "dimension": 3,
        "lam_w": 0.01,
        "lam_h": 0.02,
        "loss": "ce",
        "bias": True,
    },
    uf.collapse_threshold: lambda: {"counts": np.array([3, 2, 2]), "lam_w": 0.01, "lam_h": 0.02},
    uf.cross_entropy_gap: lambda: {"n_classes": 3, "n_per_class": 2, "lam_w": 0.01, "lam_h": 0.02},
}

ACCEPTS = {uf.ufm_objective: {"bias": {"none"}}, uf.certify_ufm: {"bias": {"none"}}}
