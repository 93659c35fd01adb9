"""One small valid call of every public function of ``theorylab.neural_collapse.deep_linear``."""

import numpy as np

from theorylab.neural_collapse import deep_linear as dl


def point():
    return {
        "features": np.array([[1.0, 1.0, -1.0], [0.5, 0.5, 2.0]]),
        "layers": (np.array([[1.0, 0.0], [-1.0, 0.5]]), np.eye(2)),
        "counts": np.array([2, 1]),
        "lams": np.array([0.1, 0.05, 0.02]),
        "loss": "ce",
        "bias": np.array([0.1, -0.1]),
        "lam_b": 0.1,
    }


def model():
    return {
        "counts": np.array([2, 1]),
        "dimension": 2,
        "lams": np.array([0.1, 0.05, 0.02]),
        "loss": "ce",
        "bias": True,
        "n_starts": 1,
        "seed": 0,
    }


CALLS = {
    dl.jump_threshold: lambda: {"n_layers": 2},
    dl.spinodal: lambda: {"n_layers": 2},
    dl.stationary_ratio: lambda: {"tau": np.array([0.01, 0.1]), "n_layers": 2},
    dl.collapse_ratio: lambda: {"tau": np.array([0.01, 0.1]), "n_layers": 2},
    dl.deep_linear_minimizer: model,
    dl.search_deep_linear: lambda: {**model(), "lam_b": 0.1, "target": 0.2},
    dl.deep_linear_objective: point,
    dl.certified_objective: point,
    dl.von_neumann_radius: lambda: {
        "counts": np.array([2, 1]),
        "lams": np.array([0.1, 0.05, 0.02]),
        "excess": 1e-6,
    },
    dl.von_neumann_bound: lambda: {
        "counts": np.array([2, 1]),
        "dimension": 2,
        "lams": np.array([0.1, 0.05, 0.02]),
        "bias": True,
    },
    dl.simplex_sum_logits: lambda: {"blocks": np.array([2, 3])},
    dl.simplex_sum_price: lambda: {"blocks": np.array([2, 3]), "depth": 3},
    dl.simplex_sum_bound: lambda: {
        "blocks": np.array([2, 1]),
        "n_per_class": 2,
        "lams": np.array([0.01, 0.02, 0.01]),
    },
    dl.pairs_and_one_logits: lambda: {"n_classes": 5},
    dl.polygon_logits: lambda: {"n_classes": 5},
    dl.best_scale: lambda: {
        "logits": np.array([[1.0, -1.0], [-1.0, 1.0]]),
        "counts": np.array([1, 1]),
        "lams": np.array([0.01, 0.02, 0.01]),
    },
    dl.etf_bound: lambda: {"n_classes": 3, "n_per_class": 1, "lams": np.array([0.01, 0.02, 0.01])},
}

ACCEPTS = {
    dl.deep_linear_objective: {"bias": {"none"}},
    dl.certified_objective: {"bias": {"none"}},
    dl.search_deep_linear: {"target": {"none"}},
}
