"""One small valid call of every public function of
``theorylab.implicit_regularization.preconditioned_descent``."""

import numpy as np

from theorylab.implicit_regularization import preconditioned_descent as pd


def problem():
    return {
        "X": np.array([[1.0, -0.5, 0.3], [0.2, 0.9, 1.1]]),
        "y": np.array([0.7, -1.2]),
        "metric": np.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.5]]),
    }


def shape():
    return {"kind": "arctan", "amplitude": 1.5, "width": 0.5}


def towards(w):
    return w - np.array([0.4, -3.0])


def flow():
    return {
        "gradient": towards,
        "start": np.array([0.3, -0.2]),
        "times": np.array([0.0, 0.5, 2.0]),
        "rtol": 1e-6,
    }


CALLS = {
    pd.metric_descent: lambda: {
        **problem(),
        "weight": np.array([[1.0, 0.2], [0.2, 2.0]]),
        "start": np.array([0.1, 0.0, -0.3]),
        "step_size": 0.1,
        "steps": 50,
        "tol": 1e-9,
    },
    pd.metric_step_limit: lambda: {
        k: v for k, v in {**problem(), "weight": np.diag([1.0, 2.0])}.items() if k != "y"
    },
    pd.metric_interpolator: problem,
    pd.selecting_metric: lambda: {"X": problem()["X"], "w": np.array([1.0, 0.4, -0.7])},
    pd.compand: lambda: {"v": np.array([0.3, -2.0]), **shape()},
    pd.expand: lambda: {"w": np.array([0.3, -0.4]), **shape()},
    pd.compander_metric: lambda: {"w": np.array([0.3, -0.4]), **shape()},
    pd.compander_bound: lambda: {"kind": "tanh", "amplitude": 1.5},
    pd.compander_flow: lambda: {**flow(), **shape()},
    pd.metric_flow: lambda: {**flow(), "metric": lambda w: 1 / (1 + w * w)},
}
