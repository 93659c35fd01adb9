"""One small valid call of every public function of
``theorylab.optimal_transport.elastic_costs``."""

import numpy as np

from theorylab.optimal_transport import elastic_costs as ec

CALLS = {
    ec.cost_matrix: lambda: {
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3]]),
        "Y": np.array([[0.1, 1.1], [1.3, 2.1]]),
        "cost": ec.KOverlap(0.5, 1),
    },
}
