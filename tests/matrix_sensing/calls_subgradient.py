"""One small valid call of every public function of ``theorylab.matrix_sensing.subgradient``."""

import numpy as np

from theorylab.matrix_sensing import subgradient as sg
from theorylab.matrix_sensing.operators import gaussian_operator

TRUTH = np.diag([1.0, 0.5, 0.0])
OPERATOR = gaussian_operator(3, 12, rng=np.random.default_rng(0))
DATA = OPERATOR.forward(TRUTH)

CALLS = {
    sg.sign_scaling: lambda: {"norm": 1.5, "outlier_fraction": 0.3, "mean": 0.5, "spread": 2.0},
    sg.contaminate: lambda: {
        "n_measurements": 5,
        "outlier_fraction": 0.3,
        "mean": 0.5,
        "spread": 2.0,
        "rng": np.random.default_rng(0),
    },
    sg.l1_loss: lambda: {"operator": OPERATOR, "measurements": DATA, "X": np.eye(3)},
    sg.spectral_start: lambda: {
        "operator": OPERATOR,
        "measurements": DATA,
        "search_rank": 2,
        "init_scale": 0.1,
    },
    sg.subgradient_method: lambda: {
        "operator": OPERATOR,
        "measurements": DATA,
        "initial": 0.1 * np.eye(3)[:, :2],
        "step": sg.GeometricSteps(0.2, 0.9),
        "steps": 5,
        "truth": TRUTH,
        "tol": 1e-6,
    },
    sg.best_median_error: lambda: {"noise_spread": 0.5, "n": 5, "rank": 2, "n_measurements": 100},
    sg.first_order_error: lambda: {
        "operator": OPERATOR,
        "noise": np.linspace(-1.0, 1.0, 12),
        "truth": TRUTH,
        "rank": 2,
        "noise_spread": 0.5,
    },
}
