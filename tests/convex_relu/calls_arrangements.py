"""One small valid call per public function."""

import numpy as np

from theorylab.convex_relu import (
    cell_probabilities,
    cover_count,
    enumerate_arrangements,
    sample_arrangements,
    sampled_set_law,
)

X = np.array([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]])

CALLS = {
    enumerate_arrangements: lambda: {"X": X},
    sample_arrangements: lambda: {"X": X, "n_samples": 5, "rng": np.random.default_rng(0)},
    cover_count: lambda: {"n": 5, "rank": 3},
    cell_probabilities: lambda: {"X": X[:, :2], "sector": 1.0},
    sampled_set_law: lambda: {"probabilities": np.array([0.25, 0.75]), "n_samples": 3},
}
