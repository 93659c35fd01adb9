"""One small valid call of every public function of
``theorylab.implicit_regularization.flat_interpolators``."""

import numpy as np

from theorylab.implicit_regularization import flat_interpolators as fi

SQUARE = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
LABELS = np.array([1.0, -1.0, -1.0, 1.0])


def network():
    return fi.ReluNetwork(
        np.array([[1.0, -0.7], [0.3, 0.4]]), np.array([1.5, -0.4]), np.array([0.1, 0.2])
    )


def at_points():
    return {"network": network(), "points": np.array([[1.0, 0.1], [-0.3, 1.1], [0.5, 0.5]])}


def labelled():
    return {"points": SQUARE.copy(), "labels": LABELS.copy()}


CALLS = {
    fi.relu_outputs: at_points,
    fi.relu_hessian_trace: at_points,
    fi.relu_trace_bound: lambda: labelled() | {"biases": True},
    fi.balance_neurons: at_points,
    fi.hypercube_memoriser: labelled,
    fi.xor_generaliser: lambda: {"dimension": 3, "biases": True},
    fi.mix_networks: lambda: {"first": network(), "second": network(), "share": 0.3},
    fi.flattest_neurons: labelled,
    fi.layer_norm_outputs: lambda: at_points() | {"eps": 0.5},
    fi.layer_norm_trace: lambda: at_points() | {"eps": 0.5},
    fi.isotropic_hessian_trace: lambda: {"network": fi.xor_generaliser(3, biases=False)},
    fi.path_norm: lambda: {"network": fi.xor_generaliser(3, biases=False)},
}
