"""Learning curve of 50 sample sizes on 100,000 eigenvalues: one thread, medians, against one scipy
brentq per size."""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from threadpoolctl import threadpool_limits
from timing import row, seconds

from theorylab.random_features import learning_curve

SIZES = np.unique(np.geomspace(10, 10_000, 50).astype(int))
RIDGE, NOISE, FEATURES = 1e-3, 0.05, 3000


def with_brentq(
    eigenvalues: np.ndarray, coefficients: np.ndarray, n_features: int | None
) -> np.ndarray:
    """Return the test risk by the published equations in log gamma, one bracketed root per size."""
    k = math.inf if n_features is None else n_features
    power = coefficients**2
    risks = []
    for n in SIZES:

        def excess(t: float, n: int = n) -> float:
            gamma = math.exp(t)
            z = float((eigenvalues / (eigenvalues + gamma)).sum())
            # n - z and k - z must be positive: below the root of either the ridge is not reached.
            return math.log(gamma * (n - z) * (1 - z / k) / RIDGE) if z < min(n, k) else -math.inf

        def finite(t: float, excess: Callable[[float], float] = excess) -> float:
            return max(excess(t), -50.0)

        gamma = math.exp(
            brentq(
                finite,
                math.log(RIDGE / n),
                math.log(eigenvalues.sum() * 4 / min(n, k) + RIDGE),
                rtol=1e-13,
            )
        )
        p = eigenvalues / (eigenvalues + gamma)
        z, q = p.sum(), (p**2).sum()
        share = 1.0 if n_features is None else (1 - z / k) * k / (k - q)
        used = q if n_features is None else (q * (k - 2 * z) + z**2) / (k - q)
        bias = power @ ((1 - p) - p * (1 - p) * share)
        risks.append((bias + NOISE) / (1 - used / n))
    return np.array(risks)


def rows() -> list[dict[str, object]]:
    """Measure kernel regression and random features; the two sides must agree before they are
    timed."""
    modes = np.arange(1, 100_001)
    lam, v = modes**-1.5, modes**-0.9
    table = []
    with threadpool_limits(1):
        for name, features in (
            ("kernel regression", None),
            (f"{FEATURES} random features", FEATURES),
        ):

            def ours(features: int | None = features) -> np.ndarray:
                curve = learning_curve(
                    lam, v, n_samples=SIZES, n_features=features, ridge=RIDGE, noise_variance=NOISE
                )
                return curve.test_risk

            np.testing.assert_allclose(ours(), with_brentq(lam, v, features), rtol=1e-8)
            theirs = seconds(lambda features=features: with_brentq(lam, v, features), 3)
            task = f"learning curve, 50 sizes, 1e5 eigenvalues, {name}"
            table.append(
                row(task, seconds(ours, 11), "scipy brentq per size", theirs, "ours < 0.5 s")
            )
    return table


if __name__ == "__main__":
    for line in rows():
        print(line)
