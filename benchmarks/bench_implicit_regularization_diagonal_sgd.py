"""Stochastic gradient descent on a diagonal network against the same loop in NumPy.

Both take the same samples from the same start and must end at the same weights. The loop has its
buffers allocated beforehand, and every NumPy call writes into them. Process time on one thread, the
median over fresh problems and fresh draws."""

from statistics import median
from time import process_time

import numpy as np
from threadpoolctl import threadpool_limits
from timing import row

from theorylab.implicit_regularization import diagonal_network_sgd, sparse_regression


def looped_descent(
    X: np.ndarray, y: np.ndarray, alpha: float, eta: float, steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    n, d = X.shape
    u, v = np.full(d, alpha), np.full(d, alpha)
    beta, square, move = np.empty(d), np.empty(d), np.empty(d)
    for i in np.random.default_rng(seed).integers(n, size=steps):
        x = X[i]
        np.multiply(u, u, out=beta)
        np.multiply(v, v, out=square)
        np.subtract(beta, square, out=beta)
        np.multiply(x, 2 * eta * (x @ beta - y[i]), out=move)
        np.multiply(u, move, out=square)
        np.subtract(u, square, out=u)
        np.multiply(v, move, out=square)
        np.add(v, square, out=v)
    return u, v


def compared(n: int = 100, d: int = 1000, steps: int = 20_000) -> dict[str, object]:
    options = {"start": 0.1, "step_size": 2e-4, "steps": steps}
    ours, theirs = [], []
    for seed in range(6):
        p = sparse_regression(n, d, sparsity=4, signal_norm=2.0, noise_scale=0.1, seed=seed)
        start = process_time()
        run = diagonal_network_sgd(p.X, p.y, seed=seed, **options)
        middle = process_time()
        u, v = looped_descent(p.X, p.y, 0.1, 2e-4, steps, seed)
        end = process_time()
        np.testing.assert_allclose(run.u, u, rtol=1e-9)
        np.testing.assert_allclose(run.v, v, rtol=1e-9)
        if seed:  # the first call compiles
            ours.append(middle - start)
            theirs.append(end - middle)
    task = f"{steps} steps of SGD on a diagonal network, n={n}, d={d}"
    return row(task, median(ours), "NumPy, the same loop in place", median(theirs), 1 / 15)


def rows() -> list[dict[str, object]]:
    with threadpool_limits(1):
        return [compared()]


if __name__ == "__main__":
    for line in rows():
        print(line)
