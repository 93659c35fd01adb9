"""One small valid call of every public function of
``theorylab.optimal_transport.transport_maps``."""

import numpy as np

from theorylab.optimal_transport import L1, SmoothedL0
from theorylab.optimal_transport import transport_maps as tm


def clouds():
    return {
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3]]),
        "Y": np.array([[0.1, 1.1], [1.3, 2.1]]),
    }


CALLS = {
    tm.elastic_map: lambda: {**clouds(), "penalty": SmoothedL0(0.5, 0.1)},
    tm.pareto_curve: lambda: {**clouds(), "penalty": L1(0.0), "weights": np.array([0.1, 0.5])},
    tm.convex_potential: lambda: {**clouds(), "penalty": L1(0.5)},
    tm.proximal_map: lambda: {
        "X": clouds()["X"],
        "curvature": np.array([[1.0, 0.5], [0.5, 2.0]]),
        "penalty": L1(0.2),
    },
}
