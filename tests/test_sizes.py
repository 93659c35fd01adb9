"""Sizes that people have: what is computed in blocks needs no arrays of three axes and agrees with
one block, and what would not fit into memory is refused before it is made."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theorylab import (
    implicit_regularization,
    matrix_sensing,
    neural_collapse,
    optimal_transport,
    optimization,
    random_features,
)
from theorylab.implicit_regularization import stability_operator
from theorylab.matrix_sensing import bures_wasserstein
from theorylab.neural_collapse import _near_collapse, smoothed_descent
from theorylab.optimal_transport import _class_splitting, _pairs, particle_flows
from theorylab.random_features import spiked_hessians


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def symmetric(*shape):
    H = normal(*shape)
    return H + H.swapaxes(-1, -2)


def definite(n):
    return normal(n, n) @ normal(n, n).T + np.eye(n)


def rng():
    return np.random.default_rng(0)


# A call, and the most megabytes that it may hold at a time.
FRUGAL = {
    "mixing": (
        lambda: optimal_transport.mixing(np.ones((300, 300)), normal(300, 60)),
        10,  # of 300 x 300 x 60 numbers, 43
    ),
    "recovery_window": (
        lambda: optimal_transport.recovery_window(normal(200, 200), labels=np.arange(200) % 2),
        10,  # of 2 x 100 x 100 x 100, 16
    ),
    "step_network": (
        lambda: optimal_transport.step_network(normal(3000), normal(9000)),
        80,  # of 3000 x 9000, 216
    ),
    "deep_prediction": (
        lambda: random_features.deep_prediction(
            np.abs(normal(200, 100)), np.ones(200), np.eye(100), weights=[0, 0.5, 0.5], depth=2
        ),
        16,  # of 200 x 200 x 100, 32
    ),
    "trained_mean": (
        lambda: random_features.trained_mean(
            np.eye(150), np.arange(150), activation=random_features.rectified_power(1)
        ),
        16,  # of 150 x 150 x 150, 27
    ),
    "rank_one_operator": (
        lambda: matrix_sensing.rank_one_operator(100, 500, rng=rng()),
        45,  # of 500 matrices beside the answer, twice, 80
    ),
    "isometry_bounds": (
        lambda: matrix_sensing.isometry_bounds(np.stack([np.eye(60)] * 3)),
        10,  # of 1830 x 1830, 27
    ),
    "cyclic_regression_limit": (
        lambda: implicit_regularization.cyclic_regression_limit(
            [np.eye(4)[:2], np.eye(4)[2:]], [np.ones(2)] * 2, np.arange(2000) % 2
        ),
        10,  # of 4000 x 4000, 128
    ),
    "smoothed_linear_fit": (
        lambda: neural_collapse.smoothed_linear_fit(
            normal(40, 400), np.arange(400) % 5, n_classes=5
        ),
        2.5,  # of 5 x 5 x 40 x 400, 3.1
    ),
    "flow_majorant": (
        lambda: implicit_regularization.flow_majorant(
            *implicit_regularization.tied_network(
                60, depth=2, hidden=40, inputs=20, outputs=20, seed=0
            ),
            normal(100, 20) / 10,
            np.zeros((100, 20)),
            [0.0, 1e-3],
        ),
        16,  # of 2000 x 2000, 32
    ),
}


@pytest.mark.parametrize("name", FRUGAL)
def test_no_array_of_all_pairs_times_all_coordinates(name):
    call, megabytes = FRUGAL[name]
    call()  # what it imports counts for nothing
    tracemalloc.start()
    try:
        call()
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()


# A module with a _BLOCK, one so small that there are several, and a call that returns an array.
BLOCKS = {
    "step_network": (
        particle_flows,
        9,
        lambda: optimal_transport.step_network([0.5, 1.0, 2.0], normal(10), [0.2, 0.3, 0.5]),
    ),
    "class_penalty": (
        _class_splitting,
        8,
        lambda: np.array(
            [
                optimal_transport.class_penalty(
                    (P := np.abs(normal(6, 4))) / P.sum(), labels=labels
                )
                for labels in (None, [0, 0, 1, 1, 1, 2])
            ]
        ),
    ),
    "energy_distance": (
        _pairs,
        20,
        lambda: np.array([optimal_transport.energy_distance(normal(11, 2), 1 + normal(7, 2))]),
    ),
    "unbiased_mmd": (
        _pairs,
        20,
        lambda: np.array([optimal_transport.unbiased_mmd(normal(11, 2), 1 + normal(7, 2), 0.5)]),
    ),
    "bures_hessian": (
        bures_wasserstein,
        30,
        lambda: matrix_sensing.bures_hessian(normal(4, 2), definite(4), smoothing=0.1),
    ),
    "gradient_noise": (
        smoothed_descent,
        40,
        lambda: noise_of(
            neural_collapse.gradient_noise(normal(4, 20), np.arange(20) % 3, normal(3, 4))
        ),
    ),
    "near_minimizer": (
        _near_collapse,
        40,
        lambda: (
            neural_collapse.near_minimizer(
                normal(3, 8) + np.repeat([2.0, -2.0], 4), 2, beta=0.5, lam_w=0.05, lam_h=0.02
            ).features
        ),
    ),
    "noise_alignment": (
        stability_operator,
        40,
        lambda: np.array([implicit_regularization.noise_alignment(normal(20, 3))]),
    ),
    "batch_extremes": (
        spiked_hessians,
        40,
        lambda: random_features.batch_extremes(symmetric(6, 3, 3)),
    ),
}


def noise_of(noise):
    return np.array([noise.label, noise.uniform, noise.covariance])


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_do_not_change_the_result(name, monkeypatch):
    module, size, call = BLOCKS[name]
    whole = call()
    monkeypatch.setattr(module, "_BLOCK", size)
    assert_allclose(call(), whole, rtol=1e-12, atol=1e-13)


# A call of more than fits, and what the message says.
REFUSED = {
    "gaussian_hessian": (
        lambda: optimal_transport.gaussian_hessian(normal(101, 100), np.eye(101), np.eye(100), 1.0),
        "cov_x, cov_y: .*101 x 100",
    ),
    "gaussian_inverse_cost": (
        lambda: optimal_transport.gaussian_inverse_cost(
            np.eye(101) / 2, np.eye(101), np.eye(101), 1e-3, eps=1.0
        ),
        "cov_x, cov_y: .*101 x 101",
    ),
    "gain_hessian": (
        lambda: optimal_transport.gain_hessian(np.eye(2) / 2, normal(2, 101), normal(2, 101), 1.0),
        "X, Y: .*101 x 101",
    ),
    "gain_hessian, points": (
        lambda: optimal_transport.gain_hessian(
            np.full((2000, 2), 1 / 4000), normal(2000, 300), normal(2, 3), 1.0
        ),
        "X, Y: .*2000 points in dimension 300",
    ),
    "convex_potential": (
        lambda: optimal_transport.convex_potential(
            normal(300, 300), normal(300, 300), optimal_transport.L1(1.0)
        ),
        "X, Y: .*300 x 300 points in dimension 300",
    ),
    "restricted_isometry": (
        lambda: matrix_sensing.restricted_isometry(
            matrix_sensing.gaussian_operator(71, 5, rng=rng()), rank=1, rng=rng()
        ),
        "operator: .*71 x 71",
    ),
    "bures_hessian": (
        lambda: matrix_sensing.bures_hessian(normal(101, 100), np.eye(101)),
        "generator: .*101 x 100",
    ),
    "gaussian_operator": (
        lambda: matrix_sensing.gaussian_operator(200, 100_000, rng=rng()),
        "m: .*100000 of matrices of 200 x 200",
    ),
    "rank_one_operator": (
        lambda: matrix_sensing.rank_one_operator(200, 60_000, symmetric=False, rng=rng()),
        "m: .*60000 of matrices of 200 x 200",
    ),
    "recursion_moments": (
        lambda: implicit_regularization.recursion_moments(
            np.ones((1, 61, 62)), [1.0], np.ones(61), step_size=0.1, steps=1
        ),
        "gradients: .*60 coordinates.*61",
    ),
    "covariance_operator": (
        lambda: implicit_regularization.covariance_operator(
            np.ones((1, 200, 201)), np.ones((1, 200, 201)), [1.0]
        ),
        "first: .*200",
    ),
    "diffusion_moments": (
        lambda: implicit_regularization.diffusion_moments(
            np.ones((61, 62)), np.ones((1, 1)), np.ones(61), time=1.0
        ),
        "drift: .*61",
    ),
    "rank_one_hessians": (
        lambda: implicit_regularization.rank_one_hessians(np.ones((1001, 500))),
        "gradients: .*1001 of 500 x 500",
    ),
    "softmax_hessians": (
        lambda: implicit_regularization.softmax_hessians(np.ones((101, 40)), np.eye(50)[[0] * 101]),
        "inputs, probabilities: .*101 of 2000 x 2000",
    ),
    "grouped_hessians": (
        lambda: implicit_regularization.grouped_hessians(1000, group_size=1000),
        "n_groups, group_size: .*1000000 of 1000 x 1000",
    ),
    "exact_variability_rate": (
        lambda: neural_collapse.exact_variability_rate(normal(81, 100), 2, lam_w=0.1),
        "features: .*80 rows, got 81",
    ),
    "distillation_gradient": (
        lambda: random_features.distillation_gradient(
            normal(5, 200),
            normal(5),
            normal(9, 200),
            normal(9),
            W=normal(60, 200),
            a=normal(60),
            ridge=0.1,
        ),
        "W: .*12000 parameters.*12060",
    ),
    "adam": (
        lambda: optimization.adam(lambda x, t: x, np.ones(5000), step_size=0.1, steps=100_000),
        "steps: .*100000 steps of 15000",
    ),
    "particle_descent": (
        lambda: optimal_transport.particle_descent(normal(10**5), step_size=0.1, steps=10_000),
        "steps: .*10000 steps of 100000",
    ),
    "sharpness_aware_descent": (
        lambda: implicit_regularization.sharpness_aware_descent(
            lambda x: x, np.ones(1000), radius=0.1, step_size=0.1, steps=10**6
        ),
        "steps: .*1000000 steps of 1000",
    ),
    "smoothed_linear_fit": (
        lambda: neural_collapse.smoothed_linear_fit(
            normal(101, 100), np.arange(100) % 50, n_classes=50
        ),
        "features: .*50 x 101",
    ),
    "repeat_process": (
        lambda: random_features.repeat_process(
            random_features.random_reward_process(101, dimension=3, seed=0), 100
        ),
        "copies: .*10000 states.*100 copies of 101",
    ),
    "loss_hessian": (
        lambda: random_features.loss_hessian(
            random_features.convolutional_layers(30, [3, 3, 3], channels=60, seed=0),
            np.ones((1, 30)),
            np.ones((1, 1)),
        ),
        "layers: .*5000 weights",
    ),
    "near_minimizer": (
        lambda: neural_collapse.near_minimizer(normal(101, 50), 50, beta=1.0, lam_w=0.1, lam_h=0.1),
        "targets: .*50 x 101",
    ),
    "lifted_loss": (
        lambda: matrix_sensing.lifted_loss(symmetric(30, 5, 5), normal(5), normal(5, 5, 5, 5)),
        r"w: .*\(30 \* 5\)\^4",
    ),
    "LiftedHessian.matrix": (
        lambda: (
            matrix_sensing.lifted_hessian(np.eye(10)[None], normal(10), normal(10), order=5).matrix
        ),
        r"order: .*10\^5",
    ),
    "LiftedHessian.smallest_eigenvalue": (
        lambda: (
            matrix_sensing.lifted_hessian(
                np.eye(10)[None], normal(10), normal(10), order=2000
            ).smallest_eigenvalue
        ),
        r"order: .*10\^2000",
    ),
    "LiftedHessian.apply": (
        lambda: matrix_sensing.lifted_hessian(
            np.eye(10)[None], normal(10), normal(10), order=2000
        ).apply(normal(3)),
        "w: expected shape",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_it_is_made(name):
    call, message = REFUSED[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            call()
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_unseen_matrices_bound_nothing():
    # Of fewer measurements than entries the least eigenvalues are exactly 0.
    operator = matrix_sensing.gaussian_operator(4, 9, rng=rng())
    truth = np.diag([2.0, 1.0, 0.0, 0.0])
    Z = np.eye(4)[:, :2]
    residual = operator.adjoint(operator.forward(Z @ Z.T - truth))
    assert matrix_sensing.global_margin(truth, operator, Z) == pytest.approx(
        -max(np.linalg.eigvalsh(-residual)[-1], 0.0), rel=1e-12
    )
    A = symmetric(3, 4, 4)
    flat = A.reshape(3, -1)
    expected = 0.0, np.linalg.norm(flat, 2) ** 2
    assert matrix_sensing.isometry_bounds(A) == pytest.approx(expected, rel=1e-12)
