"""One small valid call of every public function of
``theorylab.implicit_regularization.neuron_alignment``."""

import numpy as np

from theorylab.implicit_regularization import neuron_alignment as na


def data():
    return {"X": np.array([[1.0, 0.2], [-0.9, 0.5]]), "labels": np.array([1.0, -1.0])}


def network():
    W = np.array([[0.3, 0.1], [-0.2, 0.3], [0.1, -0.4]])
    return {"W": W, "v": np.array([0.3, -0.4, 0.4]), **data()}


CALLS = {
    na.data_separation: data,
    na.alignment_bound: lambda: {"separation": 0.3, "smallest": 1.5},
    na.align_directions: lambda: {
        "U": network()["W"],
        "signs": np.array([1.0, -1.0, 1.0]),
        **data(),
    },
    na.relu_flow: lambda: {**network(), "times": np.array([0.0, 0.5]), "tol": 1e-5},
    na.relu_descent: lambda: {**network(), "step": 0.01, "steps": 3},
    na.aligned_phase: network,
}
