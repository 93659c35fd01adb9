"""One small valid call of every public function of
``theorylab.optimal_transport.sparse_semidual``."""

import numpy as np

from theorylab.optimal_transport import sparse_semidual as ss


def problem():
    return {
        "a": np.array([0.25, 0.75]),
        "b": np.array([0.5, 0.2, 0.3]),
        "C": np.array([[0.5, 1.5, 2.5], [1.0, 0.1, 3.0]]),
        "gamma": 0.5,
    }


def inner():
    return {**{k: v for k, v in problem().items() if k != "a"}, "f": np.array([0.1, 0.2]), "k": 1}


CALLS = {
    ss.quadratic_plan: problem,
    ss.sparse_plan: lambda: {**problem(), "k": 2},
    ss.top_k_plan: inner,
    ss.support_norm: lambda: {"p": np.array([0.5, 0.2, 0.1]), "k": 2},
    ss.conjugate_jump_bound: lambda: {"mass": 0.5, "k": 2},
}
