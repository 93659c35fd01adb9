"""One small valid call of every public function of
``theorylab.random_features.curve_boundaries``."""

import numpy as np

from theorylab.random_features import curve_boundaries as cb


def curve():
    return {
        "points": np.array([[1.0, 0.1], [0.4, 0.8], [-0.3, 1.1]]),
        "velocities": np.array([[-0.2, 1.0], [-0.9, 0.6], [-0.5, 0.2]]),
        "weight_scale": 1.5,
        "bias_scale": 0.5,
    }


def network():
    return {
        "points": np.array([[1.0, 0.1], [0.4, 0.8], [-0.3, 1.1]]),
        "weights": [np.array([[1.0, -0.7], [0.3, 0.4]]), np.array([[1.0, -1.2]])],
        "biases": [np.array([0.1, -0.3]), np.array([-0.2])],
    }


CALLS = {
    cb.crossing_density: curve,
    cb.crossing_density_bound: curve,
    cb.deep_crossing_bound: lambda: {"width": 8, "bias_scale": 0.5},
    cb.distance_bound: lambda: {"density": 0.5},
    cb.trace_boundaries: network,
    cb.nearest_boundary: lambda: {
        "boundaries": cb.trace_boundaries(**network()),
        "at": 0.5,
        "closed": False,
    },
}
