"""One small valid call of every public function of ``theorylab.neural_collapse.long_tail``."""

import numpy as np

from theorylab.neural_collapse import long_tail as m

CENTRES = np.array([[1.0, 0.0], [0.5, 2.0], [-1.0, 0.25]])
SUPPORTS = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])


def model():
    return {"counts": np.array([3, 1, 1]), "dimension": 2, "lam_w": 0.1, "lam_h": 0.1}


CALLS = {
    m.mean_max_cosine: lambda: {"centres": CENTRES, "sharpness": 3.0},
    m.mean_min_angle: lambda: {"centres": CENTRES},
    m.spread_centres: lambda: {
        "n_classes": 3,
        "dimension": 2,
        "rng": np.random.default_rng(0),
        "quantity": "angle",
        "restarts": 1,
    },
    m.regularised_minimizer: lambda: (
        model()
        | {"strength": 0.1, "rng": np.random.default_rng(0), "sharpness": 5.0, "restarts": 1}
    ),
    m.etf_aligned_minimizer: model,
    m.correlation_factor: lambda: {"deviation": 0.4},
    m.cosine_remainder: lambda: {"excess": np.array([0.1, 0.01]), "n_classes": 4, "sharpness": 5.0},
    m.random_supports: lambda: {
        "n_classes": 3,
        "dimension": 4,
        "sparsity": 0.5,
        "rng": np.random.default_rng(0),
    },
    m.disjoint_pairs: lambda: {"supports": SUPPORTS},
    m.sparse_etf: lambda: {"supports": SUPPORTS, "rng": np.random.default_rng(0), "restarts": 1},
    m.von_neumann_entropy: lambda: {"features": CENTRES, "normalise": True},
}

ACCEPTS = {m.mean_max_cosine: {"sharpness": {"none"}}}
