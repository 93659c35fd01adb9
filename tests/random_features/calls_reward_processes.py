"""One small valid call of every public function of
``theorylab.random_features.reward_processes``."""

import numpy as np

import theorylab.random_features as rf


def process():
    return rf.random_reward_process(6, dimension=3, seed=0)


CALLS = {
    rf.reward_process: lambda: {
        "points": np.array([[0.0], [1.0]]),
        "transitions": np.array([[0.5, 0.5], [1.0, 0.0]]),
        "rewards": np.array([0.0, 1.0]),
    },
    rf.random_reward_process: lambda: {
        "n_states": 5,
        "dimension": 2,
        "branching": 2,
        "seed": 0,
    },
    rf.repeat_process: lambda: {"process": process(), "copies": 2},
    rf.exact_transitions: lambda: {
        "process": process(),
        "visited": np.array([0, 2, 3]),
        "discount": 0.5,
    },
    rf.sampled_transitions: lambda: {
        "process": process(),
        "n_samples": 7,
        "discount": 0.5,
        "seed": 0,
    },
}
