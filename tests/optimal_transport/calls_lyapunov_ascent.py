"""One small valid call of every public function of
``theorylab.optimal_transport.lyapunov_ascent``."""

import numpy as np

from theorylab.optimal_transport import lyapunov_ascent as la


def problem():
    return {
        "x": np.array([0.1, 0.2]),
        "y": np.array([0.3, 0.1, 0.2]),
        "a": np.array([0.25, 0.75]),
        "b": np.array([0.5, 0.2, 0.3]),
        "C": np.array([[0.5, 1.5, 2.5], [1.0, 0.1, 3.0]]),
        "eps": 0.5,
        "steps": 3,
    }


CALLS = {
    la.scaling_ascent: problem,
    la.newton_ascent: lambda: {**problem(), "kept": 4},
    la.ascent_factors: lambda: {"plan": np.array([[0.2, 0.05], [0.3, 0.45]]), "kept": 2},
}
