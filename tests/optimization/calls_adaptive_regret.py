"""One small valid call per public function of ``theorylab.optimization.adaptive_regret``."""

from fractions import Fraction

import numpy as np

from theorylab.optimization.adaptive_regret import (
    certified_regret,
    cycle_drift,
    cyclic_losses,
    failing_period,
    linear_regret,
    random_losses,
)

CALLS = {
    linear_regret: lambda: {
        "gradients": np.ones((3, 2)),
        "iterates": np.zeros((3, 2)),
        "lower": -1.0,
        "upper": 1.0,
    },
    cyclic_losses: lambda: {
        "slopes": np.array([3.0, -1.0, -1.0]),
        "steps": 6,
        "method": "adam",
        "step_size": 0.5,
        "beta1": 0.0,
        "beta2": 0.1,
        "bias_correction": False,
        "domain": "projected",
        "radius": 1.0,
        "x0": 1.0,
        "times": np.array([3, 6]),
    },
    random_losses: lambda: {
        "rare": 1010.0,
        "common": -10.0,
        "probability": 0.01,
        "steps": 5,
        "chains": 2,
        "rng": np.random.default_rng(0),
        "method": "adam",
        "step_size": 0.5,
        "beta1": 0.9,
        "beta2": 0.99,
        "radius": 1.0,
        "x0": 0.0,
    },
    cycle_drift: lambda: {"slopes": np.array([3.0, -1.0, -1.0]), "beta1": 0.0, "beta2": 0.1},
    failing_period: lambda: {"beta1": 0.0, "beta2": 0.5, "maximum": 10},
    certified_regret: lambda: {
        "slopes": [3, -1, -1],
        "steps": 3,
        "step_size": Fraction(1, 2),
        "beta1": Fraction(1, 10),
        "beta2": Fraction(1, 10),
        "momentum_decay": Fraction(1, 2),
        "x0": Fraction(9, 10),
        "precision": 64,
    },
}

# None for the default times.
ACCEPTS = {cyclic_losses: {"times": {"none"}}}
