"""One small valid call of every public function of
``theorylab.implicit_regularization.perceptron_limit``."""

import numpy as np

from theorylab.implicit_regularization import perceptron_limit as pl


def rows():
    return np.array([[1.0, 0.3], [-0.4, 1.2], [0.2, 0.5]])


CALLS = {
    pl.batch_perceptron: lambda: {
        "Z": rows(),
        "normalized": False,
        "start": np.array([-1.0, 0.5]),
        "max_iter": 100,
    },
    pl.cross_entropy_floor: lambda: {"classes": 3, "logit": 1.5},
    pl.imbalanced_pair: lambda: {"n": 4, "margin": 0.5},
    pl.imbalanced_steps: lambda: {"n": 10, "margin": 0.5},
    pl.least_logistic_loss: lambda: {"Z": rows(), "radius": 1.5, "tol": 1e-6},
    pl.logistic_descent: lambda: {
        "Z": rows(),
        "step_size": 2.0,
        "steps": 5,
        "normalized": False,
        "ridge": 0.1,
        "start": np.array([-1.0, 0.5]),
        "until_separated": False,
    },
    pl.logistic_loss_floor: lambda: {"n": 3, "radius": 2.0, "margin": 0.5},
    pl.logit_bound: lambda: {"norms": np.array([1.5, 0.5]), "feature_norm": 2.0},
    pl.normalized_steps_bound: lambda: {"n": 5, "radius": 2.0, "margin": 0.5, "step_size": 3.0},
    pl.perceptron_steps_bound: lambda: {"n": 5, "radius": 2.0, "margin": 0.5},
    pl.separable_rows: lambda: {"n": 5, "d": 2, "push": 0.5, "seed": 1, "offset": 0.5},
}
ACCEPTS = {pl.normalized_steps_bound: {"step_size": {"inf"}}}
