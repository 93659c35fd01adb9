"""One small valid call of every public function of
``theorylab.neural_collapse.unconstrained_features``."""

import numpy as np

from theorylab.neural_collapse import unconstrained_features as uf


def model(counts):
    return uf.UnconstrainedFeatures(counts, lam_w=0.01, lam_h=0.02, loss="ce", bias=True)


def point():
    return {
        "model": model([2, 1]),
        "features": np.array([[1.0, 1.0, -1.0], [0.5, 0.5, 2.0]]),
        "classifier": np.array([[1.0, 0.0], [-1.0, 0.5]]),
        "bias": np.array([0.1, -0.1]),
    }


CALLS = {
    uf.ufm_objective: point,
    uf.certify_ufm: point,
    uf.ufm_minimizer: lambda: {"model": model([3, 2, 2]), "dimension": 3},
    uf.collapse_threshold: lambda: {"model": model([3, 2, 2])},
    uf.cross_entropy_gap: lambda: {"model": model([2, 2, 2])},
}

ACCEPTS = {uf.ufm_objective: {"bias": {"none"}}, uf.certify_ufm: {"bias": {"none"}}}
