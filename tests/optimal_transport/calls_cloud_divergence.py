"""One small valid call of every public function of
``theorylab.optimal_transport.cloud_divergence``."""

import numpy as np

from theorylab.optimal_transport import cloud_divergence as cd


def cloud():
    return {"X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3], [2.0, 1.0]])}


CALLS = {
    cd.best_witness: lambda: {**cloud(), "quadratic": True},
    cd.gaussian_divergence: lambda: {
        "mean": np.array([0.5, 1.5]),
        "covariance": np.array([[2.0, 0.5], [0.5, 1.0]]),
    },
    cd.variational_divergence: lambda: {
        **cloud(),
        "curvature": np.array([[0.2, 0.1], [0.1, -0.5]]),
        "slope": np.array([0.3, 0.4]),
        "offset": -0.5,
    },
}
