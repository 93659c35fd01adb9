"""Ctrl-C ends solvers that can take long, wherever they are."""

import signal
import subprocess
import sys

import pytest

CALLS = {
    "train": "convex_relu.train(X(150, 14), y(150), 1e-3, max_nodes=10**9)",
    "zero_threshold": "convex_relu.zero_threshold(X(400, 40), y(400))",
    "find_optimal_set": "convex_relu.find_optimal_set(X(120, 12), y(120), 1e-2)",
    "trace_solution_path": "convex_relu.trace_solution_path(X(80, 10), y(80))",
    "train_robust": "convex_relu.train_robust(X(45, 3), np.sign(y(45)), 0.01, eps=0.05)",
    "collapse_radius": (
        "convex_relu.collapse_radius(X(50, 3), np.sign(y(50)), 1.0, ball='l2', loss='squared')"
    ),
    "max_margin": (
        "implicit_regularization.max_margin(D := X(20000, 1000), np.sign(D @ np.ones(1000)))"
    ),
    "diagonal_network_sgd": (
        "implicit_regularization.diagonal_network_sgd(X(100, 1000), y(100), "
        "start=np.full((2, 1000), 0.1), step_size=1e-4, steps=10**9)"
    ),
    "network_descent": (
        "convex_relu.gradient_descent(X(300, 100), y(300), 1e-3, (X(500, 100), y(500)), tol=0.0, "
        "max_steps=10**9)"
    ),
    "smoothed_sgd": (
        "neural_collapse.smoothed_sgd(X(50, 200), np.arange(200) % 10, np.zeros((10, 50)), "
        "rng.integers(200, size=10**6), 0.5, step_size=1e-3, switch=0)"
    ),
    "factored_descent": (
        "matrix_sensing.gradient_descent(np.eye(200), search_rank=100, step_size=1e-9, "
        "steps=10**9, init_scale=0.1, rng=rng, record=[10**9])"
    ),
    "staircase": (
        "matrix_sensing.staircase(np.eye(30), matrix_sensing.gaussian_operator(30, 500, rng=rng), "
        "initial=0.1 * X(30, 5), targets=[np.eye(30)], step_size=1e-9, steps=10**8)"
    ),
    "subgradient_method": (
        "matrix_sensing.subgradient_method(matrix_sensing.gaussian_operator(20, 300, rng=rng), "
        "y(300), initial=0.1 * X(20, 5), step=matrix_sensing.AdaptiveSteps(1e-9), "
        "steps=3 * 10**7)"
    ),
    "cyclic_losses": (
        "optimization.cyclic_losses([3.0, -1.0, -1.0], steps=10**10, step_size=0.1, beta2=0.1, "
        "times=[10**10])"
    ),
    "random_losses": (
        "optimization.random_losses(rare=3.0, common=-1.0, probability=0.3, steps=10**10, "
        "chains=1, rng=rng, step_size=0.1, beta2=0.1)"
    ),
    "newton_plan": (
        "optimal_transport.newton_plan(np.full(5000, 1 / 5000), np.full(5000, 1 / 5000), "
        "np.abs(X(5000, 5000)), 1e-5, tol=0.0, max_iter=10**8)"
    ),
    "exact_plan": (
        "optimal_transport.exact_plan((a := rng.random(3000) + 0.1) / a.sum(), "
        "(b := rng.random(3000) + 0.1) / b.sum(), np.abs(X(3000, 3000)))"
    ),
    "convex_potential": (
        "optimal_transport.convex_potential(X(300, 50), X(300, 50), optimal_transport.L1(0.1))"
    ),
    "min_norm_interpolator": (
        "implicit_regularization.min_norm_interpolator(X(1500, 6000), y(1500), p=1)"
    ),
    "class_plan": (
        "optimal_transport.class_plan(np.full(500, 1 / 500), np.full(600, 1 / 600), "
        "np.abs(X(500, 600)), 1e-2)"
    ),
    "metric_descent": (
        "implicit_regularization.metric_descent(X(100, 1000), y(100), step_size=1e-9, tol=0.0, "
        "steps=10**9)"
    ),
    "learning_curve": (
        "random_features.learning_curve(np.arange(1, 10**6 + 1) ** -1.3, np.ones(10**6), "
        "n_samples=np.arange(1, 10**4), ridge=1e-3)"
    ),
    "effective_ridge": (
        "random_features.effective_ridge(np.arange(1, 10**6 + 1) ** -1.3, "
        "n_samples=np.arange(1, 10**4), n_features=500, ridge=1e-3)"
    ),
}
START = """
import numpy as np
from theorylab import convex_relu, implicit_regularization, matrix_sensing, neural_collapse
from theorylab import optimal_transport, optimization, random_features
rng = np.random.default_rng(0)
X, y = lambda n, d: rng.normal(size=(n, d)), lambda n: rng.normal(size=n)
"""


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_ends_a_call(name):
    function = CALLS[name].partition("(")[0]  # lazy: named first, it is imported
    program = f"{START}{function}\nprint('ready', flush=True)\n{CALLS[name]}"
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        process.stdout.readline()
        try:
            with pytest.raises(subprocess.TimeoutExpired):  # it would go on
                process.wait(3)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == -signal.SIGINT
            assert b"KeyboardInterrupt" in process.stderr.read()
        finally:
            process.kill()
