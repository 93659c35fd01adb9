"""One small valid call of every public function of
``theorylab.implicit_regularization.modified_equations``."""

import numpy as np

from theorylab.implicit_regularization import modified_equations as me

GRADIENTS = np.array([[[1.0, 0.2, 0.5], [0.2, 2.0, -1.0]], [[0.5, 0.0, 0.3], [0.0, 0.8, 0.7]]])
LAW = np.array([0.3, 0.7])
POINTS = np.array([[0.5, 1.0], [-1.0, 0.3], [0.2, -0.4]])


def net():
    return {"features": np.array([[0.5, -0.2], [0.1, 0.8]]), "targets": np.array([1.0, -0.5])}


def batches():
    return [lambda x: x - POINTS[0], lambda x: 2 * x - POINTS[1]]


def people():
    return {
        "loss": lambda x: ((x[:, None] - POINTS) ** 2).sum(axis=2) / 2,
        "gradient": lambda x: x[:, None] - POINTS,
        "start": np.array([0.3, -0.7]),
        "n_samples": 2,
        "step_size": 0.1,
    }


CALLS = {
    me.dropout_averaged_loss: lambda: {
        **net(),
        "output_weights": np.array([0.5, 1.5]),
        "keep": 0.8,
    },
    me.dropout_gradients: lambda: {**net(), "keep": 0.8},
    me.recursion_moments: lambda: {
        "gradients": GRADIENTS,
        "probabilities": LAW,
        "start": np.array([1.0, -0.5]),
        "step_size": 0.1,
        "steps": 5,
    },
    me.covariance_operator: lambda: {
        "first": GRADIENTS,
        "second": 2 * GRADIENTS,
        "probabilities": LAW,
    },
    me.second_order_drift: lambda: {"drift": GRADIENTS[0], "step_size": 0.1},
    me.diffusion_moments: lambda: {
        "drift": GRADIENTS[0],
        "covariance": 0.1 * me.covariance_operator(GRADIENTS, GRADIENTS, LAW),
        "start": np.array([1.0, -0.5]),
        "time": 0.5,
    },
    me.epoch_average: lambda: {
        "gradients": batches(),
        "start": np.array([1.0, -0.5]),
        "step_size": 0.1,
    },
    me.epoch_modified_gradient: lambda: {
        "gradients": batches(),
        "hessian_products": [lambda x, v: v, lambda x, v: 2 * v],
        "x": np.array([1.0, -0.5]),
        "step_size": 0.1,
    },
    me.gap_change: lambda: {**people(), "replace": True},
    me.two_step_losses: people,
    me.first_order_error: lambda: {
        "drift": GRADIENTS[0],
        "start": np.array([1.0, -0.5]),
        "time": 0.5,
    },
    me.drift_response: lambda: {
        "drift": GRADIENTS[0],
        "change": GRADIENTS[1],
        "start": np.array([1.0, -0.5]),
        "time": 0.5,
    },
    me.expansion_coefficients: lambda: {
        "steps": np.array([0.4, 0.3, 0.2, 0.1, 0.05]),
        "values": np.array([1.5, 1.35, 1.22, 1.1, 1.05]),
        "noise": 1e-12,
    },
    me.small_step_coefficient: lambda: {
        "function": np.exp,
        "order": 2,
        "width": 0.1,
        "noise": 1e-15,
    },
}
