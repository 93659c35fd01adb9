"""One small valid call of every public function of
``theorylab.implicit_regularization.stability_operator``, and of its instances."""

import numpy as np

from theorylab import implicit_regularization as ir

GRADIENTS = np.array([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.1]])


def family():
    return {
        "hessians": ir.rank_one_hessians(GRADIENTS),
        "batch_size": 2,
        "sampling": "without",
    }


def network():
    return {
        "inputs": np.array([[1.0, -1.0], [1.0, 1.0]]),
        "u": np.array([0.7, 1.1]),
        "v": np.array([0.2, 0.4]),
    }


def two(make):
    return {k: v for k, v in make().items() if k != "sampling"}


CALLS = {
    ir.second_moment_operator: lambda: {**family(), "step_size": 0.3},
    ir.stability_threshold: family,
    ir.moment_bound: family,
    ir.coherence_bound: lambda: two(family),
    ir.curvature_bound: lambda: two(family),
    ir.coherence: lambda: {"hessians": ir.rank_one_hessians(GRADIENTS)},
    ir.trace_bound: lambda: {
        "gradients": GRADIENTS.copy(),
        "batch_size": 2,
        "sampling": "bernoulli",
    },
    ir.noise_alignment: lambda: {"gradients": GRADIENTS.copy()},
    ir.loss_growth_bound: lambda: {"gradients": GRADIENTS.copy(), "step_size": 0.4},
    ir.rank_one_hessians: lambda: {"gradients": GRADIENTS.copy()},
    ir.softmax_hessians: lambda: {
        "inputs": np.array([[1.0, 0.5], [-0.2, 0.3]]),
        "probabilities": np.array([[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]]),
    },
    ir.grouped_hessians: lambda: {"n_groups": 2, "group_size": 3},
    ir.diagonal_net_gradients: network,
    ir.invisible_vertex: lambda: {"inputs": np.array([[1.0, -1.0, 0.5], [1.0, 1.0, 0.2]])},
    ir.rademacher_complexities: lambda: {"inputs": np.array([[1.0, -1.0], [1.0, 1.0]])},
}
