"""One small valid call of every public function of ``theorylab.random_features.sphere_kernels``."""

import numpy as np

from theorylab.random_features import sphere_kernels as sk

ANGLES = np.array([0.3, 1.2])


def pair():
    return [sk.rectified_power(1), sk.linear_activation()]


CALLS = {
    sk.arc_cosine_kernel: lambda: {"angle": ANGLES.copy(), "order": 2},
    sk.rectified_power: lambda: {"order": 2},
    sk.linear_activation: dict,
    sk.output_kernel: lambda: {"angle": ANGLES.copy(), "factors": pair(), "bias": False},
    sk.tangent_kernel: lambda: {"angle": ANGLES.copy(), "factors": pair(), "bias": True},
    sk.sampled_tangent_kernel: lambda: {
        "x": np.array([1.0, 0.5]),
        "y": np.array([0.5, -1.0]),
        "factors": pair(),
        "width": 4,
        "seed": 0,
    },
    sk.linearisation_error: lambda: {
        "W": np.array([[1.0, 0.5], [0.2, -1.0]]),
        "signs": np.array([1.0, -1.0]),
        "step": np.array([[0.1, -2.0], [0.3, 1.5]]),
        "points": np.array([[1.0, 0.3]]),
        "activation": sk.rectified_power(2),
    },
}
