"""One small valid call of every public function of
``theorylab.implicit_regularization.sequential_projections``."""

import numpy as np

from theorylab.implicit_regularization import sequential_projections as sp


def scheduled():
    return {
        "tasks": [np.array([[2.0, 1.0], [1.0, 0.3]]), np.array([[1.0, 3.0]])],
        "order": np.array([1.0, 0.0, 1.0]),
        "start": np.array([0.1, -0.2]),
        "margins": np.array([1.0, 0.5]),
        "metrics": [np.array([[2.0, 0.5], [0.5, 1.0]]), np.eye(2)],
    }


CALLS = {
    sp.sequential_max_margin: lambda: {**scheduled(), "tol": 1e-9},
    sp.weak_regularisation: lambda: {**scheduled(), "log_strength": 50.0},
    sp.task_geometry: lambda: {"tasks": scheduled()["tasks"]},
    sp.random_tasks: lambda: {
        "n_tasks": 2,
        "n_points": 3,
        "d": 4,
        "margin": 0.5,
        "spread": 1.0,
        "seed": 0,
    },
    sp.cyclic_regression_limit: lambda: {
        "tasks": [np.array([[1.0, 0.2, 0.0]]), np.array([[1.0, 1.0, -0.5]])],
        "targets": [np.array([1.0]), np.array([3.0])],
        "order": np.array([0.0, 1.0]),
        "start": np.array([0.1, -0.2, 0.3]),
    },
}
