"""One small valid call of every public function of ``theorylab.optimal_transport.monge_gaps``."""

import numpy as np

from theorylab.optimal_transport import monge_gaps as mg


def mapped():
    return {
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3]]),
        "TX": np.array([[0.1, 1.1], [1.3, 2.1], [-0.2, 0.7]]),
    }


CALLS = {
    mg.monge_gap: lambda: {**mapped(), "cost": "euclidean", "eps": 0.5},
    mg.cycle_excess: lambda: {**mapped(), "cost": "sqeuclidean"},
    mg.gaussian_monge_gap: lambda: {
        "A": np.array([[0.5, 1.5], [1.0, 0.1]]),
        "covariance": np.array([[1.0, 0.5], [0.5, 2.0]]),
    },
    mg.fit_monge_map: lambda: {
        "X": mapped()["X"],
        "Y": mapped()["TX"][:2],
        "weight": 0.5,
        "eps": 0.4,
        "start": np.array([[0.0, 0.1], [1.0, 0.0], [0.2, 1.0]]),
        "max_iter": 5,
    },
}
