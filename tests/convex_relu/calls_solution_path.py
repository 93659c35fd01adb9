"""One small valid call of every public function of ``theorylab.convex_relu.solution_path``."""

import numpy as np

from theorylab.convex_relu import solution_path as module
from theorylab.convex_relu.optimal_set import find_optimal_set

X = np.array([[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]])
Y = np.array([0.5, -1.0, 0.3])
PATH = module.trace_solution_path(X, Y, min_ratio=0.5, tol=0.1)
FIRST, SECOND = (find_optimal_set(X, Y, beta) for beta in (0.1, 0.12))

CALLS = {
    module.optimal_set_distance: lambda: {
        "X": X,
        "first": FIRST,
        "second": SECOND,
        "max_subsets": 10,
    },
    module.trace_solution_path: lambda: {
        "X": X,
        "y": Y,
        "min_ratio": 0.5,
        "tol": 0.1,
        "loss": "squared",
        "bias": False,
        "max_points": 10,
    },
    module.breakpoints: lambda: {"path": PATH, "tol": 1e-2},
}
