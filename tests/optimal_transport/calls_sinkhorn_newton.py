"""One small valid call of every public function of
``theorylab.optimal_transport.sinkhorn_newton``."""

import numpy as np

from theorylab.optimal_transport import sinkhorn_newton as sn


def problem():
    return {
        "a": np.array([0.25, 0.75]),
        "b": np.array([0.5, 0.2, 0.3]),
        "C": np.array([[0.5, 1.5, 2.5], [1.0, 0.1, 3.0]]),
        "eps": 0.5,
    }


CALLS = {
    sn.newton_plan: problem,
    sn.lyapunov: lambda: {"x": np.array([0.1, 0.2]), "y": np.array([0.3, 0.1, 0.2]), **problem()},
    sn.sparsity_exponent: lambda: {"C": np.array([[0.5, 1.5], [1.0, 0.1]])},
    sn.vertex_gap: lambda: {"C": np.array([[0.5, 1.5], [1.0, 0.1]])},
    sn.plan_distance_bound: lambda: {"n": 3, "gap": 0.5, "eps": 0.1},
}

ACCEPTS = {sn.plan_distance_bound: {"gap": {"inf"}}}
