"""One small valid call of every public function of
``theorylab.optimal_transport.proximal_flows``."""

import numpy as np

from theorylab.optimal_transport import proximal_flows as pf


def particles():
    return {"x": np.array([0.3, 1.4, -0.2]), "potential": pf.quartic_potential(1.5, quartic=0.1)}


CALLS = {
    pf.quartic_potential: lambda: {"curvature": 1.5, "quartic": 0.5},
    pf.flat_potential: lambda: {"curvature": 1.5},
    pf.free_energy: particles,
    pf.free_energy_gradient: particles,
    pf.jko_step: lambda: {**particles(), "step_size": 0.5},
    pf.equilibrium: lambda: {"potential": particles()["potential"], "n": 4},
    pf.gaussian_jko_step: lambda: {
        "mean": 0.5,
        "deviation": 1.5,
        "curvature": 0.7,
        "step_size": 0.3,
    },
}
