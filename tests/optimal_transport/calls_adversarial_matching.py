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


def laws():
    return {
        "class0": am.NormalMixture([0.6], [-1.0], [1.0]),
        "class1": am.NormalMixture([0.4], [1.5], [1.0]),
    }


def rule():
    return {**laws(), "rule": am.LineRule([0.3], 0), "eps": 0.25}


CALLS = {
    am.robust_classifier: lambda: {**points(), "weights": np.array([0.1, 0.2, 0.3, 0.4])},
    am.conflict_cost: points,
    am.line_risk: rule,
    am.matching_bound: rule,
    am.stationarity: rule,
    am.optimal_rule: lambda: {**laws(), "eps": 0.25, "max_boundaries": 3},
    am.boundary_flow: lambda: {
        **laws(),
        "rule": am.optimal_rule(**laws(), eps=0.0),
        "budgets": np.array([0.1, 0.2]),
    },
}
