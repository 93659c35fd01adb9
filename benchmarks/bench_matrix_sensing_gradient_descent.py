"""Gradient descent on factors against the dense products that it cannot do without.

A step of symmetric matrix sensing needs one product with the stacked measurements and one with
their transpose. The peers are these two products alone, by BLAS: with the stacked matrix in full
form (m x n^2, what a straightforward program stores) and in the form that the library stores (m x n
(n + 1) / 2). Without measurements the peers are the two products with the n x k factor."""

from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits
from timing import row, seconds

from theorylab.matrix_sensing import gaussian_operator, gradient_descent


def sensing(
    n: int = 100, k: int = 20, m: int = 5000, rank: int = 5, steps: int = 10
) -> list[dict[str, object]]:
    """Time one step with all its overheads; the run is timed at two lengths, so that the set-up
    cancels."""
    rng = np.random.default_rng(0)
    truth = np.diag(np.r_[np.ones(rank), np.zeros(n - rank)])
    start = 0.1 * rng.standard_normal((n, k))
    operator = gaussian_operator(n, m, rng=rng)

    def descend(length: int) -> Callable[[], object]:
        return lambda: gradient_descent(
            truth,
            search_rank=k,
            step_size=0.05,
            steps=length,
            operator=operator,
            initial=start,
            record=[0],
        )

    ours = (seconds(descend(2 * steps)) - seconds(descend(steps))) / steps
    packed, values = np.empty(operator.stacked.shape[1]), np.empty(m)
    flat = rng.standard_normal(packed.size)
    stored = seconds(
        lambda: (
            np.dot(operator.stacked, flat, out=values),
            np.dot(values, operator.stacked, out=packed),
        )
    )
    full = operator.matrices.reshape(m, -1)
    image, flat = np.empty(n * n), rng.standard_normal(n * n)
    naive = seconds(lambda: (np.dot(full, flat, out=values), np.dot(values, full, out=image)))
    task = f"one sensing step, n={n}, k={k}, m={m}"
    matrices = operator.matrices
    result = [
        row(task, ours, "two BLAS products, m x n^2", naive, 1.3),
        row(task, ours, "two BLAS products, m x n(n+1)/2", stored, 1.3),
        row(
            task,
            ours,
            "NumPy, a loop over measurements",
            seconds(lambda: looped_step(matrices, truth, start), 3),
            0.1,
        ),
    ]
    differentiated = autograd_step(matrices, truth, start)
    if differentiated is not None:
        result.append(row(task, ours, "PyTorch float64, autograd", seconds(differentiated), 1 / 3))
    return result


def looped_step(
    matrices: np.ndarray, truth: np.ndarray, X: np.ndarray, step_size: float = 0.05
) -> np.ndarray:
    """Take one step as the formula reads, a measurement at a time."""
    error, gradient = X @ X.T - truth, np.zeros_like(X)
    for A in matrices:
        gradient += np.sum(A * error) * (A @ X)
    return X - step_size * gradient


def autograd_step(
    matrices: np.ndarray, truth: np.ndarray, start: np.ndarray
) -> Callable[[], object] | None:
    """Return one step by reverse differentiation of the loss; None without PyTorch, which is not
    among the dependencies."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    flat = torch.from_numpy(matrices.reshape(len(matrices), -1))
    M, X = torch.from_numpy(truth), torch.from_numpy(start.copy()).requires_grad_()

    def step() -> None:
        loss = ((flat @ (X @ X.T - M).reshape(-1)) ** 2).sum() / 4
        (gradient,) = torch.autograd.grad(loss, X)
        with torch.no_grad():
            X.sub_(gradient, alpha=0.05)

    return step


def population(n: int, k: int, steps: int) -> dict[str, object]:
    """Time a step of the population descent against its two products issued from Python."""
    rng = np.random.default_rng(0)
    truth = np.diag(np.r_[1.0, 0.5, np.zeros(n - 2)])
    start = 0.1 * rng.standard_normal((n, k))
    ours = (
        seconds(
            lambda: gradient_descent(
                truth, search_rank=k, step_size=0.1, steps=steps, initial=start
            )
        )
        / steps
    )
    E, change = np.empty((n, n)), np.empty((n, k))

    def products() -> None:
        for _ in range(steps):
            np.dot(start, start.T, out=E)
            np.dot(E, start, out=change)

    return row(
        f"one population step, n={n}, k={k}",
        ours,
        "two BLAS products, n x k",
        seconds(products) / steps,
        1.3,
    )


def rows() -> list[dict[str, object]]:
    with threadpool_limits(1):
        return [*sensing(), population(12, 4, 20_000), population(100, 20, 500)]


if __name__ == "__main__":
    for line in rows():
        print(line)
