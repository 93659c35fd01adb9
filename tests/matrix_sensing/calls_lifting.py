"""One small valid call of every public function of ``theorylab.matrix_sensing.lifting``."""

import numpy as np

from theorylab.matrix_sensing import lifting as li

PROBLEM = li.perturbed_completion(0.5)
POINT = np.array([0.4, -0.2, 0.3])

CALLS = {
    li.lifted_loss: lambda: {
        "matrices": PROBLEM.matrices,
        "truth": PROBLEM.truth,
        "w": np.multiply.outer(POINT, POINT),
    },
    li.lifted_gradient: lambda: {
        "matrices": PROBLEM.matrices,
        "truth": PROBLEM.truth,
        "w": np.multiply.outer(POINT, POINT),
    },
    li.lifted_hessian: lambda: {
        "matrices": PROBLEM.matrices,
        "truth": PROBLEM.truth,
        "point": POINT,
        "order": 2,
    },
    li.perturbed_completion: lambda: {"eps": 0.5, "diagonal": 0.9},
    li.completion_spectrum: lambda: {"delta": 0.6, "order": 2, "diagonal": 0.9},
    li.completion_threshold: lambda: {"order": 2, "bits": 20},
    li.first_saddle_order: lambda: {"delta": 0.8},
    li.escape_ratio: lambda: {
        "matrices": PROBLEM.matrices,
        "truth": PROBLEM.truth,
        "point": POINT,
        "direction": PROBLEM.truth,
    },
    li.isometry_bounds: lambda: {"matrices": PROBLEM.matrices},
    li.lifting_ratio: lambda: {"truth": PROBLEM.truth, "point": POINT, "lower": 0.25, "upper": 1.0},
    li.saddle_bound: lambda: {"truth": PROBLEM.truth, "point": POINT, "lower": 0.25, "upper": 1.0},
}
