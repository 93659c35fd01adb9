"""Exact training of two-layer ReLU networks against the programs that it avoids.

Peers: the full convex program over all cones, and the one over sampled cones, in cvxpy with
Clarabel (time of the whole call, the model included, as a user meets it); celer's group lasso for
gated networks, on the features that it needs written out. Where the target is a time or a rate, the
peer is that limit. Ours includes the certificate. Data: X ~ N(0, I), a planted teacher of five
neurons, noise 0.1, beta a twentieth of the smallest one for which zero is optimal.

The path, from the smallest such beta to a twentieth, is timed against a loop of cold calls on five
instances each, with the teacher and with targets of noise: at the ten to forty penalties that it
solves, gaps 1e-9; and at forty others, with a certificate at every one, gaps 1e-3. Optimal sets are
timed against the training inside them."""

from collections.abc import Callable
from functools import partial
from time import perf_counter

import cvxpy as cp
import numpy as np
from threadpoolctl import threadpool_limits
from timing import row, seconds

from theorylab.convex_relu import (
    OptimalSetStatus,
    enumerate_arrangements,
    find_optimal_set,
    sample_arrangements,
    trace_solution_path,
    train,
    train_gated,
    zero_threshold,
)


def planted(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X, W, a = rng.standard_normal((n, d)), rng.standard_normal((5, d)), rng.standard_normal(5)
    return X, np.maximum(X @ W.T, 0) @ a + 0.1 * rng.standard_normal(n)


def conic_program(
    X: np.ndarray, y: np.ndarray, beta: float, patterns: np.ndarray
) -> tuple[float, float]:
    """Value and time of the convex program over the cones of the patterns."""
    start = perf_counter()
    D = patterns.astype(float)
    V, W = cp.Variable((len(D), X.shape[1])), cp.Variable((len(D), X.shape[1]))
    f = cp.sum(cp.multiply(D.T, X @ (V - W).T), axis=1)
    sides = 2 * D.T - 1
    penalty = cp.sum(cp.norm(V, axis=1)) + cp.sum(cp.norm(W, axis=1))
    constraints = [cp.multiply(sides, X @ V.T) >= 0, cp.multiply(sides, X @ W.T) >= 0]
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(f - y) + beta * penalty), constraints)
    problem.solve(solver=cp.CLARABEL)
    return problem.value, perf_counter() - start


def exact(n: int, d: int, peer: float | None, target: float) -> dict[str, object]:
    X, y = planted(n, d)
    beta = zero_threshold(X, y) / 20
    result = train(X, y, beta)
    assert result.gap <= 1e-8
    assert result.certificate.verify()
    ours = seconds(lambda: train(X, y, beta))
    task = f"exact training n={n}, d={d}, gap {result.gap:.0e}"
    if peer is not None:
        return row(task, ours, "time limit", peer, target)
    value, theirs = conic_program(X, y, beta, enumerate_arrangements(X))
    assert abs(value - result.objective) <= 1e-6 * value
    return row(task, ours, "cvxpy + Clarabel, all cones", theirs, target)


def sampled(n: int = 200, d: int = 10, gates: int = 200) -> dict[str, object]:
    X, y = planted(n, d)
    patterns = sample_arrangements(X, gates, rng=np.random.default_rng(0))
    beta = zero_threshold(X, y, arrangements=patterns) / 20
    result = train(X, y, beta, arrangements=patterns)
    assert result.gap <= 1e-8
    value, theirs = conic_program(X, y, beta, patterns)
    assert abs(value - result.objective) <= 1e-6 * value
    ours = seconds(lambda: train(X, y, beta, arrangements=patterns))
    return row(
        f"{gates} sampled cones n={n}, d={d}, gap {result.gap:.0e}",
        ours,
        "cvxpy + Clarabel, the same cones",
        theirs,
        1 / 20,
    )


def enumeration(n: int = 200, d: int = 3) -> dict[str, object]:
    X, _ = planted(n, d)
    count = len(enumerate_arrangements(X))
    return row(
        f"{count} arrangements n={n}, d={d}",
        seconds(lambda: enumerate_arrangements(X)),
        "1e6 patterns/s",
        count / 1e6,
        1.0,
    )


def gated(n: int = 1000, d: int = 20, gates: int = 1000) -> list[dict[str, object]]:
    try:
        from celer import GroupLasso
    except ImportError:
        print("celer is not installed: the gated row is left out")
        return []
    X, y = planted(n, d)
    patterns = sample_arrangements(X, gates, rng=np.random.default_rng(1))
    D = patterns.astype(float)
    beta = float(np.linalg.norm(D @ (y[:, None] * X), axis=1).max() / 20)
    features = np.asfortranarray((D.T[:, :, None] * X[:, None, :]).reshape(n, -1))

    def peer(tol: float) -> float:
        """Fit and return the relative duality gap reached."""
        model = GroupLasso(
            groups=d, alpha=beta / n, fit_intercept=False, tol=tol, max_iter=200, max_epochs=100_000
        ).fit(features, y)
        residual = y - features @ model.coef_
        blocks = np.linalg.norm(model.coef_.reshape(-1, d), axis=1)
        value = 0.5 * residual @ residual + beta * blocks.sum()
        v = residual * min(1.0, beta / np.linalg.norm(D @ (residual[:, None] * X), axis=1).max())
        return float(value - (y @ v - 0.5 * v @ v)) / value

    # The tolerance of the peer is its own; the loosest one that reaches the gap is timed, else the
    # tightest.
    tol = next((t for t in (1e-4, 1e-6, 1e-8, 1e-10, 1e-12) if peer(t) <= 1e-8), 1e-12)
    theirs = seconds(lambda: peer(tol), repetitions=3)
    result = train_gated(X, y, beta, patterns)
    assert result.gap <= 1e-8
    ours = seconds(lambda: train_gated(X, y, beta, patterns))
    return [
        row(
            f"{gates} gates n={n}, d={d}, gap {result.gap:.0e} (peer {peer(tol):.0e})",
            ours,
            "celer GroupLasso",
            theirs,
            0.5,
        )
    ]


def solved(X: np.ndarray, y: np.ndarray, tol: float) -> tuple[float, float]:
    """Times of the path and of cold calls at the penalties that it solves."""
    path = trace_solution_path(X, y, tol=tol)
    for point in path.points:
        assert point.certificate.gap <= 1e-9
        assert point.certificate.verify()
    return (
        seconds(lambda: trace_solution_path(X, y, tol=tol), repetitions=3),
        seconds(lambda: [train(X, y, b, tol=1e-9) for b in path.betas], repetitions=3),
    )


def between(X: np.ndarray, y: np.ndarray, tol: float) -> tuple[float, float]:
    """Times of the path with certificates at forty given penalties, and of cold calls at these."""
    betas = zero_threshold(X, y) * np.geomspace(0.99, 0.051, 40)

    def gaps() -> list[float]:
        path = trace_solution_path(X, y, tol=tol)
        return [path.certificate(beta).gap for beta in betas]

    assert max(gaps()) <= tol
    return (
        seconds(gaps, repetitions=3),
        seconds(lambda: [train(X, y, b, tol=tol) for b in betas], repetitions=3),
    )


def optimal(X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Times of the optimal set and of the training inside."""
    beta = zero_threshold(X, y) / 20
    assert find_optimal_set(X, y, beta).status is not OptimalSetStatus.UNDECIDED
    return (
        seconds(lambda: find_optimal_set(X, y, beta), repetitions=3),
        seconds(lambda: train(X, y, beta, tol=1e-9), repetitions=3),
    )


def fresh(
    task: str,
    measure: Callable[[np.ndarray, np.ndarray], tuple[float, float]],
    n: int,
    d: int,
    teacher: bool,
    target: float,
) -> dict[str, object]:
    """Times summed over five instances; without the teacher the targets are noise."""
    ours = theirs = 0.0
    for seed in range(100, 105):
        X, y = planted(n, d, seed)
        pair = measure(X, y if teacher else np.random.default_rng(seed + 5).standard_normal(n))
        ours, theirs = ours + pair[0], theirs + pair[1]
    targets = "teacher" if teacher else "noise"
    return row(f"{task} n={n}, d={d}, {targets}", ours, "cold calls of train", theirs, target)


def rows() -> list[dict[str, object]]:
    with threadpool_limits(1):
        return [
            exact(50, 3, None, 1 / 50),
            exact(200, 3, 10.0, 1.0),
            exact(1000, 2, 2.0, 1.0),
            exact(100, 4, 60.0, 1.0),
            enumeration(),
            sampled(),
            *gated(),
            *(
                fresh(task, measure, n, d, teacher, 0.5)
                for n, d, tol in ((50, 3, 1e-4), (100, 3, 1e-4), (200, 2, 5e-5), (40, 4, 1e-4))
                for teacher in (True, False)
                for task, measure in (
                    ("path, at the solved penalties, gap 1e-9,", partial(solved, tol=tol)),
                    ("path, at 40 penalties, gap 1e-3,", partial(between, tol=1e-3)),
                )
            ),
            *(
                fresh("optimal set", optimal, n, d, teacher, 3.0)
                for n, d in ((100, 2), (100, 3), (200, 2))
                for teacher in (True, False)
            ),
        ]


if __name__ == "__main__":
    for line in rows():
        print(line)
