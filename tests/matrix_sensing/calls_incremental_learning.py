"""One small valid call of every public function of
``theorylab.matrix_sensing.incremental_learning``."""

import numpy as np

from theorylab.matrix_sensing import incremental_learning as il
from theorylab.matrix_sensing.operators import gaussian_operator

TRUTH = np.diag([3.0, 1.3, 0.5])
OPERATOR = gaussian_operator(3, 60, rng=np.random.default_rng(0))
BEST = il.best_rank_solutions(TRUTH, OPERATOR, max_rank=2, rng=np.random.default_rng(1), starts=2)

CALLS = {
    il.best_rank_solutions: lambda: {
        "truth": TRUTH,
        "operator": OPERATOR,
        "max_rank": 1,
        "rng": np.random.default_rng(1),
        "starts": 1,
    },
    il.global_margin: lambda: {"truth": TRUTH, "operator": OPERATOR, "factor": BEST.factors[0]},
    il.incremental_law: lambda: {
        "truth": TRUTH,
        "operator": OPERATOR,
        "best": BEST,
        "search_rank": 3,
        "step_size": 0.02,
    },
    il.staircase: lambda: {
        "truth": TRUTH,
        "operator": OPERATOR,
        "initial": 1e-3 * np.random.default_rng(2).standard_normal((3, 2)),
        "targets": BEST.solutions,
        "step_size": 0.02,
        "steps": 5,
    },
    il.population_visit: lambda: {
        "eigenvalues": np.array([3.0, 2.0, 1.0]),
        "init_scale": 1e-3,
        "stage": 1,
    },
}
