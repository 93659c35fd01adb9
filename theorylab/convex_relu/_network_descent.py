"""Plain gradient descent on the weights of a two-layer ReLU network."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.convex_relu._network import Network, as_network
from theorylab.convex_relu._problem import as_problem
from theorylab.numerics.budgets import steps_in_a_minute
from theorylab.numerics.compiled import compiled
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result


class DescentStatus(StrEnum):
    """Why descent ended."""

    CONVERGED = "the objective fell by less than tol, relatively, over the last thousand steps"
    STEPS = "stopped after max_steps steps while the objective was still falling; raise max_steps"
    DIVERGED = "the objective is not finite; lower the step size"
    STOPPED = "stopped by the callback, with the last iterate"


@result
class Descent:
    """The end of gradient descent.

    Parameters
    ----------
    network
        The last iterate.
    objectives
        Values at the start and after every thousand steps.
    imbalance
        ``|a_j|^2 - |u_j|^2`` of the last iterate, shape (m,).
    n_steps
        Steps taken.
    status
        Why descent ended.
    """

    network: Network
    objectives: FloatArray
    imbalance: FloatArray
    n_steps: int
    status: DescentStatus


def gradient_descent(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    network: Network | tuple[ArrayLike, ArrayLike],
    *,
    step_size: float | None = None,
    max_steps: int | None = None,
    tol: float = 1e-9,
    callback: Callback | None = None,
) -> Descent:
    """Descend ``|f(X) - y|^2 / 2 + beta / 2 * sum_j (|u_j|^2 + a_j^2)`` by plain (sub)gradient
    steps on all weights.

    Parameters
    ----------
    X, y
        Data, shape (n, d), and targets, shape (n,).
    beta
        Penalty, positive.
    network
        The start: a ``Network`` without biases, or the pair of its weights (m, d) and output
        weights (m,).
    step_size
        Constant step; by default ``1 / (8 |X|^2 max(s, 1) + beta)`` with ``s`` the larger of ``|y|
        / |X|`` and the squared norms of the start's layers.
    max_steps
        Largest number of steps; by default 200,000, or what takes about a minute.
    tol
        Relative decrease over a thousand steps at which descent ends.
    callback
        Called with a ``Progress`` after every thousand steps, where ``error`` is the relative
        decrease; True ends the descent.

    Returns
    -------
    Descent
        Last iterate, history, imbalance of the layers.

    Raises
    ------
    ValueError
        For malformed data, a network of the wrong shape, or a step size that is not positive.

    Notes
    -----
    A step multiplies ``a_j^2 - |u_j|^2`` by ``(1 - step * beta)^2`` up to second order in the step,
    so the layers end balanced.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import gradient_descent, Network
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> start = Network(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, -1.0]))
    >>> run = gradient_descent(X, y, 0.1, start, max_steps=2000)
    >>> bool(run.objectives[-1] < run.objectives[0])
    True
    """
    X, y, beta, first, output = as_start(X, y, beta, network)
    largest = float(np.linalg.norm(X, 2))
    scale = max(
        float(np.linalg.norm(y)) / max(largest, 1e-300),
        float(np.sum(first**2)),
        float(output @ output),
        1.0,
    )
    step = (
        1.0 / (8.0 * largest**2 * scale + beta)
        if step_size is None
        else as_real(step_size, "step_size", above=0.0)
    )
    if max_steps is None:
        max_steps = steps_in_a_minute(0.5 * (X.size + 4 * len(X)) * output.size, most=200_000)
    max_steps = as_count(max_steps, "max_steps")
    tol = as_real(tol, "tol", minimum=0.0)
    stops = watcher(callback)
    portion = max(10**8 // (X.size * (1 + output.size)), 1)  # in which Ctrl-C does not get in
    values, taken = [_steps(X, y, beta, first, output, step, 0)], 0
    status = DescentStatus.STEPS
    while taken < max_steps and math.isfinite(values[-1]) and status is DescentStatus.STEPS:
        count = min(1000, max_steps - taken)
        for start in range(0, count, portion):
            value = _steps(X, y, beta, first, output, step, min(portion, count - start))
        values.append(value)
        taken += count
        fall = values[-2] - values[-1]
        if count == 1000 and fall <= tol * values[-1]:
            status = DescentStatus.CONVERGED
        if math.isfinite(values[-1]) and stops(taken, values[-1], fall / max(values[-1], 1e-300)):
            status = DescentStatus.STOPPED
    if not math.isfinite(values[-1]):
        return Descent(
            as_network(network, X, y),
            np.array(values[:-1]),
            np.zeros(output.size),
            taken,
            DescentStatus.DIVERGED,
        )
    imbalance = output**2 - np.sum(first**2, axis=1)
    return Descent(Network(first, output), np.array(values), imbalance, taken, status)


def network_objective(
    X: ArrayLike, y: ArrayLike, beta: float, network: Network | tuple[ArrayLike, ArrayLike]
) -> float:
    """Return ``|f(X) - y|^2 / 2 + beta / 2 * sum_j (|u_j|^2 + a_j^2)`` of a network.

    Parameters
    ----------
    X, y, beta, network
        As for ``gradient_descent``; the layers need not be balanced.

    Examples
    --------
    >>> from theorylab.convex_relu import network_objective
    >>> network_objective([[1.0]], [2.0], 0.5, ([[1.0]], [1.0]))
    1.0
    """
    X, y, beta, first, output = as_start(X, y, beta, network)
    v = y - np.maximum(X @ first.T, 0.0) @ output
    return float(0.5 * v @ v + 0.5 * beta * (np.sum(first**2) + output @ output))


def as_start(
    X: ArrayLike, y: ArrayLike, beta: float, network: Network | tuple[ArrayLike, ArrayLike]
) -> tuple[FloatArray, FloatArray, float, FloatArray, FloatArray]:
    """Validate, and return the data and fresh copies of both layers."""
    X, y, beta, _ = as_problem(X, y, beta, "squared")
    y = as_array(y, "y", shape=(X.shape[0],))
    checked = as_network(network, X, y)
    if np.any(checked.biases) or np.any(checked.linear) or np.any(checked.offset):
        raise ValueError("network: expected no biases and no skip connection, got some")
    return X, y, beta, checked.weights.copy(), checked.output_weights.copy()


@compiled
def _steps(
    X: FloatArray,
    y: FloatArray,
    beta: float,
    first: FloatArray,
    output: FloatArray,
    step: float,
    count: int,
) -> float:
    """Take gradient steps in place; return the objective."""
    n, d = X.shape
    m = output.size
    hidden = np.empty((m, n))
    v = np.empty(n)
    for _ in range(count):
        _forward(X, y, first, output, hidden, v)
        for j in range(m):
            slope = 0.0
            for i in range(n):
                slope += v[i] * hidden[j, i]
            old = output[j]
            output[j] += step * (slope - beta * old)
            for c in range(d):
                first[j, c] *= 1.0 - step * beta
            for i in range(n):
                if hidden[j, i] > 0.0:
                    s = step * old * v[i]
                    for c in range(d):
                        first[j, c] += s * X[i, c]
    _forward(X, y, first, output, hidden, v)
    value = 0.0
    for i in range(n):
        value += 0.5 * v[i] * v[i]
    for j in range(m):
        value += 0.5 * beta * output[j] * output[j]
        for c in range(d):
            value += 0.5 * beta * first[j, c] * first[j, c]
    return value


@compiled
def _forward(
    X: FloatArray,
    y: FloatArray,
    first: FloatArray,
    output: FloatArray,
    hidden: FloatArray,
    v: FloatArray,
) -> None:
    """Fill in the hidden layer and the residuals."""
    n, d = X.shape
    v[:] = y
    for j in range(output.size):
        for i in range(n):
            s = 0.0
            for c in range(d):
                s += X[i, c] * first[j, c]
            hidden[j, i] = s if s > 0.0 else 0.0
            v[i] -= output[j] * hidden[j, i]
