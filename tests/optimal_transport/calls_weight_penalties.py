"""One small valid call of every public function of
``theorylab.optimal_transport.weight_penalties``."""

import numpy as np

from theorylab.optimal_transport import weight_penalties as wp


def pair():
    return {"w": np.array([0.3, 1.4, -0.2]), "w0": np.array([1.3, 0.4, 0.2])}


CALLS = {
    wp.sorted_penalty: pair,
    wp.sorted_penalty_gradient: pair,
    wp.layer_stack: lambda: {"depth": 2, "width": 3, "spread": 0.25, "aligned": False, "seed": 0},
    wp.path_conditioning: lambda: {
        "layers": np.array([[[1.0, 0.2], [0.3, 0.9]], [[0.8, 0.1], [-0.2, 1.1]]]),
        "x": np.array([0.5, -1.0]),
        "slope": 0.5,
    },
}
