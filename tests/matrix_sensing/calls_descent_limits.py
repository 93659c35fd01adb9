"""One small valid call of every public function of ``theorylab.matrix_sensing.descent_limits``."""

import numpy as np

from theorylab.matrix_sensing import descent_limits as dl
from theorylab.matrix_sensing.operators import gaussian_operator

TRUTH = np.diag([1.0, 0.5, 0.0, 0.0])
START = 0.2 * np.random.default_rng(0).standard_normal((4, 3))
RIGHT = 0.1 * np.random.default_rng(1).standard_normal((4, 3))
NEAR = np.diag([1.0, np.sqrt(0.5), 0.1, 0.05])

CALLS = {
    dl.spurious_bounds: lambda: {"start": np.array([0.1, 0.3]), "step_size": 0.2, "steps": 50},
    dl.error_bounds: lambda: {"truth": TRUTH, "X": NEAR, "step_size": 0.1, "steps": 20},
    dl.error_law: lambda: {
        "truth": TRUTH,
        "X": START,
        "step_size": 0.2,
        "multiples": np.array([2.0, 5.0]),
        "longest": 100_000,
    },
    dl.late_rate: lambda: {
        "truth": TRUTH,
        "F": 2 * START,
        "G": RIGHT,
        "step_size": 0.2,
        "longest": 20_000,
        "window": (1e-3, 1e-5),
        "tol": 1e-6,
    },
    dl.sensing_limit: lambda: {
        "truth": TRUTH,
        "operator": gaussian_operator(4, 60, rng=np.random.default_rng(2)),
    },
    dl.limit_modes: lambda: {"F": START, "G": RIGHT, "rank": 2, "step_size": 0.1},
    dl.small_start_slowest: lambda: {"F": START, "G": RIGHT, "truth": TRUTH},
    dl.rebalanced_slowest_bounds: lambda: {
        "singular_values": np.array([1.0, 0.6]),
        "error": 0.01,
        "scale": 0.7,
        "step_size": 0.1,
    },
}
