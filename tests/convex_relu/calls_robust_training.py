"""One small valid call of every function of adversarial training."""

import numpy as np

from theorylab import convex_relu as cr
from theorylab.convex_relu import Network

X = np.array([[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1], [0.8, 0.7]])
LABELS = np.array([1.0, -1.0, 1.0, -1.0])
NETWORK = Network(np.array([[1.0, 0.3], [-0.4, 0.8]]), np.array([0.5, -0.7]), np.array([0.1, 0.0]))

CALLS = {
    cr.train_robust: lambda: {
        "X": X,
        "y": LABELS,
        "beta": 0.1,
        "eps": 0.05,
        "loss": "hinge",
        "ball": "linf",
        "arrangements": "all",
        "bias": False,
        "tol": 1e-4,
    },
    cr.robust_trainer: lambda: {
        "X": X,
        "y": LABELS,
        "beta": 0.1,
        "loss": "squared",
        "ball": "l2",
        "arrangements": "all",
        "bias": True,
        "tol": 1e-4,
    },
    cr.worst_case: lambda: {
        "network": NETWORK,
        "X": X,
        "y": LABELS,
        "eps": 0.2,
        "loss": "hinge",
        "ball": "l2",
    },
    cr.linearized_loss: lambda: {
        "network": NETWORK,
        "X": X,
        "y": LABELS,
        "eps": 0.2,
        "loss": "squared",
        "ball": "linf",
    },
    cr.stability_radii: lambda: {"network": NETWORK, "X": X, "ball": "l2"},
    cr.corridor_widths: lambda: {"X": X, "ball": "linf", "arrangements": "all"},
    cr.collapse_radius: lambda: {
        "X": X,
        "y": LABELS,
        "beta": 0.1,
        "loss": "hinge",
        "ball": "linf",
        "arrangements": "all",
        "tol": 0.1,
    },
    cr.improve_adversarially: lambda: {
        "network": NETWORK,
        "X": X,
        "y": LABELS,
        "beta": 0.1,
        "eps": 0.1,
        "loss": "hinge",
        "ball": "linf",
        "bias": True,
        "n_rounds": 1,
    },
    cr.random_stable_network: lambda: {
        "X": X,
        "eps": 0.2,
        "n_neurons": 3,
        "ball": "linf",
        "rng": np.random.default_rng(0),
    },
}
