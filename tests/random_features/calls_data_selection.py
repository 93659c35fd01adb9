"""One small valid call of every public function of ``theorylab.random_features.data_selection``."""

import numpy as np

from theorylab.random_features import data_selection as ds


def population():
    return {
        "X": np.array([[1.0, 0.5], [-0.5, 1.0], [0.25, 0.75]]),
        "probabilities": np.array([0.5, 0.25, 0.25]),
        "selection": np.array([0.5, 1.0, 0.75]),
        "noise_variances": np.array([1.0, 2.0, 0.5]),
        "weighted": True,
    }


CALLS = {
    ds.selection_covariance: population,
    ds.simulate_selection: lambda: {
        **population(),
        "n_samples": 60,
        "n_draws": 2,
        "rng": np.random.default_rng(0),
    },
    ds.hard_selection: lambda: {
        "scores": np.array([1.0, 3.0, 2.0]),
        "probabilities": np.array([0.5, 0.25, 0.25]),
        "fraction": 0.375,
    },
    ds.proportional_selection: lambda: {
        "sizes": np.array([1.0, 3.0, 2.0]),
        "probabilities": np.array([0.5, 0.25, 0.25]),
        "fraction": 0.375,
    },
    ds.selection_influence: lambda: {k: v for k, v in population().items() if k != "weighted"},
    ds.quietest_fraction: lambda: {
        "x": np.array([1.0, -0.5, 2.0]),
        "probabilities": np.array([0.5, 0.25, 0.25]),
        "fraction": 0.375,
        "noise_variances": np.array([1.0, 2.0, 0.5]),
    },
    ds.quietest_subset: lambda: {
        "x": np.array([1.0, -0.5, 2.0]),
        "probabilities": np.array([0.5, 0.25, 0.25]),
        "noise_variances": np.array([1.0, 2.0, 0.5]),
    },
}
