"""One small valid call of every public function of
``theorylab.optimal_transport.latent_couplings``."""

import numpy as np

from theorylab.optimal_transport import latent_couplings as lc

A, B = np.array([0.25, 0.75]), np.array([0.5, 0.2, 0.3])
OUTPUTS = np.array([[0.5], [1.5], [0.5]])


def penalised():
    return {"a": A.copy(), "b": B.copy(), "C": np.array([[0.5, 1.5, 2.5], [1.0, 0.1, 3.0]])}


def encoder():
    return {"a": A.copy(), "encoder": np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])}


def laws():
    return {"p": B.copy(), "q": np.array([0.1, 0.3, 0.6])}


CALLS = {
    lc.push_forward: lambda: {"b": B.copy(), "outputs": OUTPUTS.copy()},
    lc.encoder_of_plan: lambda: {
        "plan": np.array([[0.25, 0.0], [0.55, 0.2]]),
        "b": B.copy(),
        "outputs": OUTPUTS.copy(),
    },
    lc.penalised_plan: lambda: {**penalised(), "lam": 0.7},
    lc.penalised_value: lambda: {**penalised(), "lam": 0.7, "penalty": "squared"},
    lc.aggregate_law: encoder,
    lc.code_penalties: lambda: {**encoder(), "b": B.copy()},
    lc.jensen_shannon: laws,
    lc.discriminator_value: lambda: {**laws(), "D": np.array([0.5, 0.4, 0.3])},
    lc.unbiased_mmd: lambda: {
        "X": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3]]),
        "Y": np.array([[0.1, 1.1], [1.3, 2.1]]),
        "bandwidth": 0.8,
    },
    lc.gaussian_mmd: lambda: {"variance": 2.5, "bandwidth": 0.8, "dimension": 3},
}
