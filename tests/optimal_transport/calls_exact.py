"""One small valid call of every public function of ``theorylab.optimal_transport.exact``."""

import numpy as np

from theorylab.optimal_transport import exact


def problem():
    return {
        "a": np.array([0.25, 0.75]),
        "b": np.array([0.5, 0.2, 0.3]),
        "C": np.array([[0.5, 1.5, 2.5], [1.0, 0.1, 3.0]]),
    }


CALLS = {
    exact.exact_plan: problem,
    exact.slackness: lambda: {
        "result": exact.exact_plan(**problem()),
        "C": problem()["C"],
    },
    exact.line_plan: lambda: {
        "x": np.array([0.5, -1.0]),
        "y": np.array([2.0, 0.1, 0.3]),
        "a": problem()["a"],
        "b": problem()["b"],
        "p": 1.5,
    },
    exact.gaussian_transport: lambda: {
        "covariance": np.array([[2.0, 0.5], [0.5, 1.0]]),
        "other_covariance": np.array([[1.0, 0.0], [0.0, 0.5]]),
    },
}
