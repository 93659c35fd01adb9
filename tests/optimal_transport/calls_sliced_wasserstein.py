"""One small valid call of every public function of
``theorylab.optimal_transport.sliced_wasserstein``."""

import numpy as np

from theorylab.optimal_transport import sliced_wasserstein as sw


def pair():
    return {
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3]]),
        "Y": np.array([[0.1, 1.1], [1.3, 2.1]]),
    }


def along():
    return {**pair(), "directions": np.array([[1.0, 0.0], [0.6, 0.8]])}


CALLS = {
    sw.sliced_distance: lambda: {
        **pair(),
        "n_projections": 4,
        "control_variate": "upper",
        "coefficient": 0.5,
        "seed": 0,
    },
    sw.random_directions: lambda: {"d": 2, "n": 3, "seed": 0},
    sw.projected_distances: along,
    sw.gaussian_controls: along,
    sw.control_means: pair,
}
