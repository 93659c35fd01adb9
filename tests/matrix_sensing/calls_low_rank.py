"""One small valid call of every public function of ``theorylab.matrix_sensing.low_rank``."""

import numpy as np

from theorylab.matrix_sensing import low_rank as lr

DESIGN = np.array([[1.0, 0.2], [0.1, 0.8], [0.3, -0.4]])
RESPONSE = np.array([[1.0, 0.5, 0.1], [0.2, -0.3, 0.4], [0.0, 0.6, 0.2]])
DATA = np.array([[2.0, 0.1, 0.3], [0.2, 1.0, -0.4]])

CALLS = {
    lr.truncate: lambda: {"matrix": RESPONSE, "rank": 1},
    lr.weighted_truncation: lambda: {
        "matrix": RESPONSE[:2],
        "metric": DESIGN.T @ DESIGN,
        "rank": 1,
    },
    lr.pruning_metric: lambda: {"design": DESIGN, "step_size": 0.5, "period": 3},
    lr.trained_rank_pruning: lambda: {
        "design": DESIGN,
        "response": RESPONSE,
        "rank": 1,
        "step_size": 0.5,
        "period": 3,
        "rounds": 100,
        "tol": 1e-6,
    },
    lr.nuclear_descent: lambda: {
        "design": DESIGN,
        "response": RESPONSE,
        "initial": RESPONSE[:2],
        "penalty": 0.1,
        "step_size": 0.3,
        "steps": 3,
    },
    lr.autoencoder_objective: lambda: {
        "data": DATA,
        "encoder": np.eye(2)[:1],
        "latent": np.array([[0.5]]),
        "decoder": np.eye(2)[:, :1],
        "penalty": 0.3,
    },
    lr.low_rank_autoencoder: lambda: {"data": DATA, "width": 1, "penalty": 0.3},
}
