"""One small valid call of every public function of ``theorylab.convex_relu.univariate``."""

import numpy as np

from theorylab.convex_relu import univariate as uv

X = np.array([-1.0, 0.2, 1.5])
Y = np.array([0.5, -1.0, 0.3])
WEIGHTS = np.array([[1.0, 2.0], [0.5, -1.0]])
ATOMS = np.array([[1.0, 0.5], [0.0, 2.0], [1.0, 1.0]])

CALLS = {
    uv.fit_penalized_biases: lambda: {"x": X, "y": Y, "beta": 0.3, "tol": 1e-10, "max_iter": 100},
    uv.certificate_knots: lambda: {"x": X, "residual": Y / 10, "beta": 0.3, "tol": 1e-9},
    uv.mean_field_fit: lambda: {
        "x": X,
        "y": Y,
        "beta": 0.3,
        "temperature": 0.1,
        "tol": 1e-10,
        "max_iter": 100,
    },
    uv.sample_particles: lambda: {
        "x": X,
        "y": Y,
        "beta": 0.3,
        "temperature": 0.1,
        "n_particles": 3,
        "n_sweeps": 4,
        "burn_in": 2,
        "step": 0.5,
        "seed": 0,
    },
    uv.descend_particles: lambda: {
        "x": X,
        "y": Y,
        "n_particles": 3,
        "n_steps": 4,
        "step": 0.1,
        "n_networks": 2,
        "exponent": 0.5,
        "seed": 0,
    },
    uv.minimal_path_norm: lambda: {"x": X, "y": Y, "skip": False},
    uv.minimal_path_norm_network: lambda: {"x": X, "y": Y, "skip": False},
    uv.path_norm: lambda: {"hidden_weights": WEIGHTS, "output_weights": np.array([1.0, -2.0])},
    uv.balance: lambda: {"hidden_weights": WEIGHTS, "output_weights": np.array([1.0, -2.0])},
    uv.maurey_mean_squared_error: lambda: {
        "atoms": ATOMS,
        "coefficients": np.array([1.0, -2.0]),
        "n_atoms": 3,
        "probabilities": np.array([0.5, 0.5]),
    },
    uv.maurey_errors: lambda: {
        "atoms": ATOMS,
        "coefficients": np.array([1.0, -2.0]),
        "n_atoms": 3,
        "n_draws": 5,
        "probabilities": np.array([0.5, 0.5]),
        "seed": 0,
    },
}

ACCEPTS = {
    uv.maurey_mean_squared_error: {"probabilities": {"none"}},
    uv.maurey_errors: {"probabilities": {"none"}},
}
