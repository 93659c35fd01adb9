"""One small valid call of every public function of
``theorylab.optimal_transport.adversarial_matching``."""

import numpy as np

from theorylab.optimal_transport import adversarial_matching as am


def points():
    return {
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3], [2.0, 1.0]]),
        "labels": np.array([0.0, 1.0, 0.0, 1.0]),
        "eps": 0.6,
    }


CALLS = {
    am.robust_classifier: lambda: {**points(), "weights": np.array([0.1, 0.2, 0.3, 0.4])},
    am.conflict_cost: points,
}
