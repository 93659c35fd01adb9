"""One small valid call of every public function of the rules of the line."""

import numpy as np

from theorylab import optimal_transport as ot


def laws():
    return {
        "class0": ot.NormalMixture([0.6], [-1.0], [1.0]),
        "class1": ot.NormalMixture([0.4], [1.5], [1.0]),
    }


def rule():
    return {**laws(), "rule": ot.LineRule([0.3], 0), "eps": 0.25}


CALLS = {
    ot.line_risk: rule,
    ot.matching_bound: rule,
    ot.stationarity: rule,
    ot.optimal_rule: lambda: {**laws(), "eps": 0.25, "max_boundaries": 3},
    ot.boundary_flow: lambda: {
        **laws(),
        "rule": ot.optimal_rule(**laws(), eps=0.0),
        "budgets": np.array([0.1, 0.2]),
    },
}
