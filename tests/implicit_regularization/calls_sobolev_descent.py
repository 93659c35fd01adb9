"""One small valid call of every public function of
``theorylab.implicit_regularization.sobolev_descent``."""

import numpy as np

from theorylab.implicit_regularization import sobolev_descent as sd


def image():
    return {"kernel": np.array([[0.8, 0.2, 0.1], [0.3, 0.0, -0.1]])}


def data():
    return {**image(), "data": np.array([[1.0, -0.7, 0.3], [0.4, 0.2, -1.1]])}


def spectra():
    return {"order": 0.5, "noise_variance": 0.3, "prior_order": 1.5, "prior_variance": 2.0}


CALLS = {
    sd.convolution_matrix: image,
    sd.sobolev_weights: lambda: {"shape": (3, 4), "order": 0.5},
    sd.spectral_filter: lambda: {**image(), "order": 0.5, "step_size": 0.1, "steps": 4},
    sd.sobolev_iterate: lambda: {**data(), "order": 0.5, "step_size": 0.1, "steps": 4},
    sd.sobolev_tikhonov: lambda: {**data(), **spectra()},
    sd.tikhonov_error: lambda: {**image(), **spectra(), "noise_order": 0.2},
}
