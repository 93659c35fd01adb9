"""One small valid call of every public function of
``theorylab.random_features.aggregate_responses``."""

import numpy as np

from theorylab.random_features import aggregate_responses as ar


def sizes():
    return {
        "n_bags": 8,
        "n_features": 3,
        "bag_size": 2,
        "noise_variance": 0.5,
        "privacy_variance": 0.25,
    }


CALLS = {
    ar.aggregate_losses: lambda: {
        "predictions": np.array([[1.0, 2.0], [0.5, -1.0]]),
        "responses": np.array([0.5, 0.25]),
    },
    ar.aggregate_operator: lambda: {
        "X": np.array([[[1.0, 0.2], [0.3, 0.9]], [[0.8, 0.1], [-0.2, 1.1]]]),
        "weight": 0.5,
    },
    ar.aggregate_risk: lambda: {
        "aspect": 0.25,
        "bag_size": 2.0,
        "weight": 0.5,
        "noise_variance": 0.5,
        "privacy_variance": 0.25,
    },
    ar.bag_risk: sizes,
    ar.instance_risk: sizes,
    ar.optimal_private_share: lambda: {
        "aspect": 0.25,
        "noise_variance": 0.5,
        "privacy_variance": 1.5,
    },
}
