"""One small valid call of every public function of
``theorylab.random_features.temporal_difference``."""

import numpy as np

import theorylab.random_features as rf


def data():
    process = rf.random_reward_process(6, dimension=3, seed=0)
    return rf.exact_transitions(process, np.arange(4), discount=0.5)


def draw(rng):
    return rf.random_features(data().process.points, 9, rng=rng)


CALLS = {
    rf.feature_kernel: lambda: {"points": np.array([[1.0, 2.0], [0.5, -1.0]]), "activation": "erf"},
    rf.random_features: lambda: {
        "points": np.array([[1.0, 2.0], [0.5, -1.0]]),
        "n_features": 3,
        "activation": "relu",
        "rng": np.random.default_rng(0),
    },
    rf.lstd_resolvent: lambda: {
        "transitions": data(),
        "features": draw(np.random.default_rng(0)),
        "ridge": 0.1,
    },
    rf.simulate_values: lambda: {
        "transitions": data(),
        "draw_features": draw,
        "ridge": 0.1,
        "n_draws": 2,
        "rng": np.random.default_rng(0),
    },
    rf.bellman_error_limits: lambda: {
        "transitions": data(),
        "kernel": rf.feature_kernel(data().process.points),
        "n_features": 5,
        "ridge": 0.1,
    },
}
