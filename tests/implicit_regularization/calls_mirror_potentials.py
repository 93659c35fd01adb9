"""One small valid call of every public function of
``theorylab.implicit_regularization.mirror_potentials``."""

import numpy as np

from theorylab.implicit_regularization import mirror_potentials as mp


def weights():
    return {"scale": np.array([0.5, 0.1, 0.3]), "linear": 0.4}


CALLS = {
    mp.mirror_map: lambda: {"rho": np.array([0.3, -2.0, 0.0]), **weights()},
    mp.mirror_potential: lambda: {"predictor": np.array([0.3, -2.0, 0.0]), **weights()},
    mp.mirror_interpolator: lambda: {
        "X": np.array([[1.0, -0.5, 0.3], [0.2, 0.7, -1.0]]),
        "y": np.array([0.5, -1.0]),
        **weights(),
        "tol": 1e-11,
        "max_iter": 400,
    },
}
