"""One small valid call of every public function of ``theorylab.optimal_transport.sinkhorn``."""

import numpy as np

from theorylab.optimal_transport import sinkhorn

CALLS = {
    sinkhorn.sinkhorn_plan: lambda: {
        "a": np.array([0.25, 0.75]),
        "b": np.array([0.5, 0.2, 0.3]),
        "C": np.array([[0.5, 1.5, 2.5], [1.0, 0.1, 3.0]]),
        "eps": 0.5,
    },
}
