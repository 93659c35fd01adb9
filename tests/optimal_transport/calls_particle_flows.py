"""One small valid call of every public function of
``theorylab.optimal_transport.particle_flows``."""

import numpy as np

from theorylab.optimal_transport import particle_flows as pf


def x():
    return np.array([0.3, 1.4, -0.2])


def weights():
    return np.array([0.5, 0.2, 0.3])


CALLS = {
    pf.cramer_distance: lambda: {
        "x": x(),
        "y": np.array([0.1, 0.9]),
        "a": weights(),
        "b": np.array([0.25, 0.75]),
    },
    pf.energy_distance: lambda: {
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3]]),
        "Y": np.array([[0.1, 1.1], [1.3, 2.1]]),
    },
    pf.uniform_energy: lambda: {"x": x()},
    pf.uniform_gradient: lambda: {"x": x()},
    pf.particle_descent: lambda: {"x": x(), "step_size": 0.25, "steps": 3},
    pf.step_network: lambda: {
        "angles": x(),
        "inputs": np.array([0.4, 2.0]),
        "weights": weights(),
    },
    pf.step_network_loss: lambda: {
        "angles": x(),
        "targets": np.array([0.4, 2.0]),
        "weights": weights(),
        "target_weights": np.array([0.25, 0.75]),
    },
}
