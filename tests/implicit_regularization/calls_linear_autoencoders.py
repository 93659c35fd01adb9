"""One small valid call of every public function of
``theorylab.implicit_regularization.linear_autoencoders``."""

import numpy as np

from theorylab.implicit_regularization import linear_autoencoders as la


def problem():
    return {
        "X": np.array([[1.0, -0.5, 0.3], [0.2, 0.9, 1.1], [0.4, 0.1, -0.2], [1.2, 0.0, 0.3]]),
        "ridge": 0.3,
        "search_rank": 2,
        "penalty": "factors",
    }


def factors():
    return {
        "A": np.array([[1.0, 0.2], [-0.3, 0.4], [0.1, 0.9]]),
        "B": np.array([[0.4, -0.2], [0.3, 0.5], [0.7, 0.1]]),
    }


CALLS = {
    la.autoencoder_objective: lambda: {
        "X": problem()["X"],
        **factors(),
        "ridge": 0.3,
        "penalty": "product",
    },
    la.autoencoder_minimiser: problem,
    la.train_autoencoder: lambda: {**problem(), "seed": 1, "sweeps": 50, "tol": 1e-6},
    la.cosine_similarities: lambda: {"rows": factors()["B"]},
    la.cosine_range: lambda: {
        "first": np.array([0.4, 0.2, 1.1]),
        "second": np.array([0.3, 0.5, 0.2]),
    },
}
