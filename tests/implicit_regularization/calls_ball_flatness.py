"""One small valid call of every public function of
``theorylab.implicit_regularization.ball_flatness``."""

import numpy as np

from theorylab.implicit_regularization import ball_flatness as bf


def bowl(x):
    return np.sum(x**2, axis=1)


def slope(x):
    return 2 * x


def ball():
    return {
        "gradient": slope,
        "at": np.array([0.5, 0.25]),
        "radius": 1.0,
        "curvature": 2.0,
        "tol": 0.05,
        "atol": 0.05,
        "max_cells": 20_000,
    }


def descent():
    return {"target": 1.5, "strength": 0.5, "radius": 0.1, "step_size": 0.05}


CALLS = {
    bf.zeroth_order_flatness: lambda: {"loss": bowl, **ball()},
    bf.first_order_flatness: ball,
    bf.curvature_bounds: lambda: {
        "flatness": 2.5,
        "order": "first",
        "radius": 0.5,
        "hessian_lipschitz": 0.3,
    },
    bf.pair_descent: lambda: {"start": np.array([2.0, 0.5]), **descent(), "steps": 100},
    bf.pair_remainder: descent,
}
