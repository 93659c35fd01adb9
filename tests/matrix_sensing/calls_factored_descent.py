"""One small valid call of every public function of
``theorylab.matrix_sensing.factored_descent``."""

import numpy as np

from theorylab.matrix_sensing import factored_descent as fd
from theorylab.matrix_sensing.operators import gaussian_operator

TRUTH = np.diag([1.0, 0.5, 0.0, 0.0])
START = 0.2 * np.random.default_rng(0).standard_normal((4, 3))
RIGHT = 0.1 * np.random.default_rng(1).standard_normal((4, 3))

CALLS = {
    fd.gradient_descent: lambda: {
        "truth": TRUTH,
        "search_rank": 3,
        "step_size": 0.1,
        "steps": 10,
        "operator": gaussian_operator(4, 7, rng=np.random.default_rng(2)),
        "noise": np.linspace(-0.1, 0.2, 7),
        "initial": START,
        "observe": np.linalg.norm,
        "init_scale": 0.5,
        "record": np.array([0, 3, 10]),
        "tol": 1e-3,
    },
    fd.asymmetric_gradient_descent: lambda: {
        "truth": TRUTH,
        "search_rank": 3,
        "step_size": 0.1,
        "steps": 10,
        "operator": gaussian_operator(4, 7, symmetric=False, rng=np.random.default_rng(2)),
        "noise": np.linspace(-0.1, 0.2, 7),
        "observe": lambda F, G: F.shape,
        "init_scale": 0.5,
        "right_ratio": 0.3,
        "rng": np.random.default_rng(0),
        "record": np.array([0, 3, 10]),
        "tol": 1e-3,
    },
    fd.spectral_factor: lambda: {"surrogate": TRUTH, "search_rank": 3},
    fd.spectral_factors: lambda: {"surrogate": np.arange(12.0).reshape(4, 3), "search_rank": 3},
    fd.rebalance: lambda: {"F": START, "G": RIGHT, "scale": 1.0},
}
ACCEPTS = {
    f: {name: {"none"} for name in ("operator", "noise", "record", "observe")}
    for f in (fd.gradient_descent, fd.asymmetric_gradient_descent)
}
