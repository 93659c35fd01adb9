"""One small valid call of every public function of
``theorylab.implicit_regularization.masked_regression``."""

import numpy as np

from theorylab.implicit_regularization import masked_regression as mr


def law():
    return {
        "inputs": np.array([[1.0, -0.5], [0.4, 0.8], [-0.3, 1.1]]),
        "outputs": np.array([0.5, 1.5, -0.7]),
        "observed": np.array([0.7, 0.4]),
        "weights": np.array([0.5, 0.2, 0.3]),
    }


def made():
    return mr.masked_law(**law())


CALLS = {
    mr.masked_law: law,
    mr.complete_moments: lambda: {"law": made()},
    mr.imputed_moments: lambda: {"law": made()},
    mr.linear_risk: lambda: {
        "moments": mr.imputed_moments(made()),
        "coefficients": np.array([0.3, -0.2]),
    },
    mr.zero_imputation_risk: lambda: {"law": made(), "coefficients": np.array([0.3, -0.2])},
    mr.best_linear: lambda: {"moments": mr.imputed_moments(made())},
    mr.imputation_bias: lambda: {"law": made()},
    mr.tight_frame: lambda: {"d": 5, "r": 2, "seed": 0},
    mr.averaged_sgd_risk: lambda: {"law": made(), "step": 0.25, "n_steps": 5},
    mr.averaged_sgd_bound: lambda: {
        "n": 16,
        "d": 4,
        "radius": 2.0,
        "step": 0.0625,
        "noise": 1.0,
        "distance": 2.0,
    },
}
