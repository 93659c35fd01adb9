"""One small valid call of every public function of
``theorylab.implicit_regularization.logistic_features``."""

import numpy as np

from theorylab.implicit_regularization import logistic_features as lf


def pair():
    return {"strengths": np.array([2.0, 1.0]), "coupling": 0.3, "ridge": 0.5}


CALLS = {
    lf.coupled_features: pair,
    lf.decoupled_margin: lambda: {"ridge": 0.3},
    lf.logistic_fixed_point: lambda: {
        "K": np.array([[2.0, -0.5], [-0.5, 1.0]]),
        "tol": 1e-12,
        "max_iter": 100,
    },
    lf.starvation_slope: pair,
}
