"""Cross-entropy with free features and 500 classes of different sizes: one thread, process time.

The decays make a given share of the classes vanish, those with ``sqrt(n) < mu N``; where it is nine
in ten, many singular values are about to vanish or to appear."""

from collections.abc import Callable

import numpy as np
from timing import row, seconds

from theorylab.neural_collapse import UfmStatus, UnconstrainedFeatures, ufm_minimizer

K, REPETITIONS, LIMIT = 500, 3, 3.0


def geometric(top: float) -> np.ndarray:
    """Return distinct sizes from 1, at equal ratios as far as they are integers."""
    counts = np.round(np.geomspace(1, top, K)).astype(int)
    return np.maximum.accumulate(counts - np.arange(K)) + np.arange(K)


def solve(counts: np.ndarray, vanishing: float, bias: bool) -> Callable[[], None]:
    """Return a run that certifies its minimum to a relative gap of 1e-9."""
    lam = np.sqrt(np.quantile(counts, vanishing)) / counts.sum()
    model = UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias)

    def run() -> None:
        best = ufm_minimizer(model, dimension=K)
        assert best.status is UfmStatus.SOLVED
        assert best.certificate.gap < 1e-9

    return run


def rows() -> list[dict[str, object]]:
    """Measure sizes that are consecutive, geometric and drawn afresh."""
    rng, found = np.random.default_rng(), []
    for name, counts in (
        ("consecutive", np.arange(501, 1001)),
        ("geometric to 1e6", geometric(1e6)),
    ):
        for bias in (False, True):
            for vanishing in (0.1, 0.5, 0.9):
                ours = seconds(solve(counts, vanishing, bias), REPETITIONS)
                free = ", bias" if bias else ""
                task = f"cross-entropy, {K} {name} sizes{free}, {vanishing:.0%} vanish"
                found.append(row(task, ours, "time limit", LIMIT, 1.0))
    for vanishing in (0.1, 0.5, 0.9):
        times = []
        for draw in range(4):
            counts = rng.choice(20000, K, replace=False) + 1
            times.append(seconds(solve(counts, vanishing, bool(draw % 2)), 1))
        task = f"cross-entropy, {K} random sizes, {vanishing:.0%} vanish, worst of 4 draws"
        found.append(row(task, max(times), "time limit", LIMIT, 1.0))
    return found


if __name__ == "__main__":
    for line in rows():
        print(line)
