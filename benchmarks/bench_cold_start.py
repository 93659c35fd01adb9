"""The first call of every headline function: process time in a fresh interpreter with an empty
cache of machine code, the import of the theme included; the import alone; and beside them, with the
cache filled, and the median of later calls. The target of the first call is 3 s on one core.

`python benchmarks/bench_cold_start.py` prints the whole table."""

import json
import os
import subprocess
import sys
import tempfile
from statistics import median

from timing import row

_DATA = """
rng = np.random.default_rng(0)
X, y = rng.normal(size=({n}, {d})), rng.normal(size={n})
"""
_TRAIN = "train(X, y, beta=zero_threshold(X, y) / 20)"
_RISKS = "\neigenvalues = np.arange(1, 10_001) ** -1.5\n"
_SIZES = "n_samples=300, n_features=1000, noise_variance=0.05"
_SENSING = """
rng = np.random.default_rng(0)
U = rng.normal(size=(30, 2)) / 30**0.5
operator = gaussian_operator(30, 400, rng=rng)
"""
_CLOUDS = """
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(300, 5)), rng.normal(0.5, 1.0, size=(300, 5))
C = ((X[:, None] - Y) ** 2).sum(2)
C, w = C / C.max(), np.full(300, 1 / 300)
"""
THEMES = (
    "convex_relu",
    "implicit_regularization",
    "matrix_sensing",
    "neural_collapse",
    "optimal_transport",
    "optimization",
    "random_features",
)
# Name: theme, imported names, preparation, call.
TASKS = {
    "train n=50 d=3": ("convex_relu", "train, zero_threshold", _DATA.format(n=50, d=3), _TRAIN),
    "train n=200 d=3": ("convex_relu", "train, zero_threshold", _DATA.format(n=200, d=3), _TRAIN),
    "train n=1000 d=2": ("convex_relu", "train, zero_threshold", _DATA.format(n=1000, d=2), _TRAIN),
    "train, 200 sampled cones, n=200 d=10": (
        "convex_relu",
        "sample_arrangements, train",
        _DATA.format(n=200, d=10),
        "train(X, y, 1.0, arrangements=sample_arrangements(X, 200, rng=np.random.default_rng(0)))",
    ),
    "dual_norm n=50 d=3": ("convex_relu", "dual_norm", _DATA.format(n=50, d=3), "dual_norm(X, y)"),
    "enumerate_arrangements n=200 d=3": (
        "convex_relu",
        "enumerate_arrangements",
        _DATA.format(n=200, d=3),
        "enumerate_arrangements(X)",
    ),
    "train_gated, 100 gates, n=100 d=5": (
        "convex_relu",
        "sample_arrangements, train_gated",
        _DATA.format(n=100, d=5),
        "train_gated(X, y, 1.0, sample_arrangements(X, 100, rng=np.random.default_rng(0)))",
    ),
    "train_admm n=30 d=2": (
        "convex_relu",
        "train_admm",
        _DATA.format(n=30, d=2),
        "train_admm(X, y, 1.0)",
    ),
    "find_optimal_set n=50 d=3": (
        "convex_relu",
        "find_optimal_set, zero_threshold",
        _DATA.format(n=50, d=3),
        "find_optimal_set(X, y, zero_threshold(X, y) / 20)",
    ),
    "trace_solution_path n=30 d=2": (
        "convex_relu",
        "trace_solution_path",
        _DATA.format(n=30, d=2),
        "trace_solution_path(X, y)",
    ),
    "gradient_descent, 400 measurements of 30 x 30": (
        "matrix_sensing",
        "gaussian_operator, gradient_descent",
        _SENSING,
        "gradient_descent(U @ U.T, search_rank=2, step_size=0.002, steps=500, operator=operator, "
        "rng=np.random.default_rng(1), init_scale=0.1)",
    ),
    "subgradient_method, 400 measurements of 30 x 30": (
        "matrix_sensing",
        "AdaptiveSteps, gaussian_operator, subgradient_method",
        _SENSING,
        "subgradient_method(operator, operator.forward(U @ U.T), initial=U + 0.1, truth=U @ U.T, "
        "step=AdaptiveSteps(0.1), steps=200)",
    ),
    "exact_plan n=300": (
        "optimal_transport",
        "exact_plan",
        _CLOUDS,
        "exact_plan(w, w, C)",
    ),
    "sinkhorn_plan n=300": (
        "optimal_transport",
        "sinkhorn_plan",
        _CLOUDS,
        "sinkhorn_plan(w, w, C, 0.05)",
    ),
    "newton_plan n=300": (
        "optimal_transport",
        "newton_plan",
        _CLOUDS,
        "newton_plan(w, w, C, 1e-3)",
    ),
    "quadratic_plan n=300": (
        "optimal_transport",
        "quadratic_plan",
        _CLOUDS,
        "quadratic_plan(w, w, C, 0.1)",
    ),
    "sparse_plan n=300": (
        "optimal_transport",
        "sparse_plan",
        _CLOUDS,
        "sparse_plan(w, w, C, 0.1, k=2)",
    ),
    "sliced_distance n=300": (
        "optimal_transport",
        "sliced_distance",
        _CLOUDS,
        "sliced_distance(X, Y, n_projections=100, seed=0)",
    ),
    "cyclic_losses, 10,000 steps": (
        "optimization",
        "cyclic_losses",
        "",
        "cyclic_losses([3.0, -1.0, -1.0], steps=10_000, step_size=0.1, beta2=0.1)",
    ),
    "random_feature_risk, 10,000 modes": (
        "random_features",
        "random_feature_risk",
        _RISKS,
        f"random_feature_risk(eigenvalues, eigenvalues**0.6, ridge=1e-3, {_SIZES})",
    ),
    "optimal_ridge, 10,000 modes": (
        "random_features",
        "optimal_ridge",
        _RISKS,
        f"optimal_ridge(eigenvalues, eigenvalues**0.6, {_SIZES})",
    ),
    "diagonal_network_sgd n=100 d=1000, 20,000 steps": (
        "implicit_regularization",
        "diagonal_network_sgd",
        _DATA.format(n=100, d=1000),
        "diagonal_network_sgd(X, y, start=0.1, step_size=1e-4, steps=20_000, seed=0)",
    ),
    "diagonal_network_flow n=20 d=50": (
        "implicit_regularization",
        "diagonal_network_flow",
        _DATA.format(n=20, d=50),
        "diagonal_network_flow(X, y, scale=0.1)",
    ),
    "max_margin n=200 d=50": (
        "implicit_regularization",
        "max_margin",
        _DATA.format(n=200, d=50),
        "max_margin(X + np.sign(X[:, :1]), np.sign(X[:, 0]))",
    ),
}
_PROGRAM = """
import time
begin = time.process_time()
import json, warnings
import numpy as np
from theorylab.{theme} import {names}
warnings.simplefilter("ignore")
{preparation}
{call}
first = time.process_time() - begin
later = []
for _ in range(5):
    begin = time.process_time()
    {call}
    later.append(time.process_time() - begin)
print(json.dumps([first, sorted(later)[2]]))
"""


def measure(task: str, folder: str, kernels: str = "race") -> tuple[float, float]:
    """Seconds of the first call with this cache folder, and of later calls."""
    theme, names, preparation, call = TASKS[task]
    program = _PROGRAM.format(theme=theme, names=names, preparation=preparation, call=call)
    environment = os.environ | {
        "NUMBA_CACHE_DIR": folder,
        "THEORYLAB_KERNELS": kernels,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    first, later = json.loads(done.stdout)
    return first, later


def cold_and_warm(task: str) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cold, _ = measure(task, folder)
        measure(task, folder, kernels="compiled")  # fills the cache
        warm, later = measure(task, folder, kernels="compiled")
    return cold, warm, later


def first_call(task: str) -> float:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return measure(task, folder)[0]


def importing(theme: str) -> float:
    """Median process time of the import in a fresh interpreter."""
    program = (
        "from time import process_time; begin = process_time(); "
        f"import theorylab.{theme}; print(process_time() - begin)"
    )
    run = [sys.executable, "-c", program]
    return median(
        float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
        for _ in range(5)
    )


def rows() -> list[dict[str, object]]:
    return [
        *(row(f"first call: {task}", first_call(task), "time limit", 3.0, 1.0) for task in TASKS),
        *(
            row(f"import theorylab.{theme}", importing(theme), "time limit", 0.3, 1.0)
            for theme in THEMES
        ),
    ]


if __name__ == "__main__":
    print(f"{'':48} {'cold':>8} {'warm':>8} {'later':>10}")
    for name in TASKS:
        cold, warm, later = cold_and_warm(name)
        print(f"{name:48} {cold:6.2f} s {warm:6.2f} s {1e3 * later:7.2f} ms", flush=True)
