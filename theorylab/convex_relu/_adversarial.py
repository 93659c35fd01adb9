"""Adversarial training by local search: networks whose neurons need not be stable.

The exact attack is added to the finite set of perturbations met so far, and the network is
minimised against that set, in epigraph form."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, minimize

from theorylab._validation import FloatArray, as_count, as_flag, as_real, refuses_overflow
from theorylab.convex_relu._attacks import attacked, worst_case
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._problem import augment
from theorylab.convex_relu.losses import Hinge, Loss
from theorylab.numerics.progress import Callback, watcher

__all__ = ["improve_adversarially"]


@refuses_overflow("network", "X", "y", "beta", "eps")
def improve_adversarially(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    eps: float,
    loss: str | Loss = "hinge",
    ball: str = "linf",
    bias: bool = False,
    n_rounds: int = 6,
    callback: Callback | None = None,
) -> Network:
    r"""Lower the worst-case loss plus penalty of a network locally, unstable neurons allowed.

    Parameters
    ----------
    network
        Where to start; at least one neuron, no skip connection, biases only with ``bias``.
    X, y, beta, eps, loss, ball, bias
        The problem, as for ``train_robust``.
    n_rounds
        Most rounds of: attack exactly, add the attack to the finite set of perturbations met so
        far, and minimise against that set (by sequential quadratic programming). They end once no
        attack does more harm than those met.
    callback
        Called with a :class:`theorylab.numerics.progress.Progress` of each round, its objective
        that of the best network met; stops by returning True.

    Returns
    -------
    Network
        The best network met, never worse than the given one at its exact worst case.

    Notes
    -----
    The non-convex min-max problem of bai2022-efficient, Section 4, in its local form.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import improve_adversarially, Network
    >>> X, y = [[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1]], [1.0, -1.0, 1.0]
    >>> network = Network(np.array([[1.0, 0.0]]), np.array([1.0]))
    >>> better = improve_adversarially(network, X, y, 0.1, eps=0.1, n_rounds=1)
    >>> better.weights.shape
    (1, 2)
    """
    network, X, y, loss, ball = attacked(network, X, y, loss, ball)
    beta, eps = as_real(beta, "beta", above=0.0), as_real(eps, "eps", minimum=0.0)
    bias = as_flag(bias, "bias")
    n_rounds, stops = as_count(n_rounds, "n_rounds"), watcher(callback)
    if network.n_neurons == 0 or np.any(network.linear) or np.any(network.offset):
        raise ValueError("network: expected at least one neuron and no skip connection")
    if not bias and np.any(network.biases):
        raise ValueError("network: expected no biases without bias=True, got non-zero ones")
    best, current = network, network
    attack = worst_case(network, X, y, eps, loss=loss, ball=ball)
    value = attack.loss + beta * network.penalty
    rows, inputs = np.arange(len(X)), X
    for step in range(1, n_rounds + 1):
        rows, inputs = _distinct(
            np.append(rows, np.arange(len(X))), np.vstack([inputs, X + attack.perturbations])
        )
        current = _against(current, rows, inputs, y, beta, loss, bias)
        attack = worst_case(current, X, y, eps, loss=loss, ball=ball)
        attained = attack.loss + beta * current.penalty
        if attained < value:
            best, value = current, attained
        met = np.zeros(len(X))
        np.maximum.at(met, rows, loss.terms(current(inputs), y[rows]))
        known = attack.loss <= float(met.sum()) * (1.0 + 1e-12)
        if stops(step, value) or known:
            break
    return best


def _distinct(rows: NDArray[np.intp], inputs: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Drop repeated pairs of an index and a point."""
    _, kept = np.unique(np.column_stack([rows, inputs]), axis=0, return_index=True)
    return rows[np.sort(kept)], inputs[np.sort(kept)]


def _against(
    network: Network,
    rows: NDArray[np.intp],
    inputs: FloatArray,
    y: FloatArray,
    beta: float,
    loss: Loss,
    bias: bool,
) -> Network:
    """Minimise the largest loss over given versions of every input plus penalty, in epigraph form.

    Version i, ``inputs[i]``, shape (d,), is one of the input ``rows[i]``.
    """
    n, d = len(y), inputs.shape[1]
    m = network.n_neurons
    width = d + int(bias)
    inputs = augment(inputs, bias)
    targets, hinge = y[rows], isinstance(loss, Hinge)
    epigraph = np.zeros((len(rows), n))
    epigraph[np.arange(len(rows)), rows] = 1.0
    weights = network.weights
    first = np.column_stack([weights, network.biases]) if bias else weights

    def outputs(theta: FloatArray) -> FloatArray:
        W, a = theta[: m * width].reshape(m, width), theta[m * width : m * (width + 1)]
        result: FloatArray = np.maximum(inputs @ W.T, 0.0) @ a
        return result

    def violations(theta: FloatArray) -> FloatArray:
        f = outputs(theta)
        t = theta[m * (width + 1) :][rows]
        return (
            t - 1.0 + targets * f if hinge else np.concatenate([t - f + targets, t + f - targets])
        )

    def slopes(theta: FloatArray) -> FloatArray:
        W, a = theta[: m * width].reshape(m, width), theta[m * width : m * (width + 1)]
        z = inputs @ W.T
        g = np.hstack(
            [
                (((z > 0.0) * a)[:, :, None] * inputs[:, None, :]).reshape(len(rows), -1),
                np.maximum(z, 0.0),
            ]
        )
        if hinge:
            return np.hstack([targets[:, None] * g, epigraph])
        return np.vstack([np.hstack([-g, epigraph]), np.hstack([g, epigraph])])

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        layers, t = theta[: m * (width + 1)], theta[m * (width + 1) :]
        value = 0.5 * beta * float(layers @ layers)
        if hinge:
            return value + float(t.sum()), np.concatenate([beta * layers, np.ones(n)])
        return value + 0.5 * float(t @ t), np.concatenate([beta * layers, t])

    theta = np.concatenate([first.ravel(), network.output_weights, np.zeros(n)])
    f = outputs(theta)
    np.maximum.at(
        theta[m * (width + 1) :],
        rows,
        np.maximum(1.0 - targets * f, 0.0) if hinge else np.abs(f - targets),
    )
    lowest = np.concatenate([np.full(m * (width + 1), -np.inf), np.zeros(n)])
    constraints = [{"type": "ineq", "fun": violations, "jac": slopes}]
    options = {"maxiter": 100, "ftol": 1e-12}
    # SciPy's stubs know no combination of gradient, bounds and dictionaries of constraints.
    search: Any = minimize
    with warnings.catch_warnings():
        # Kinks of the network end the search early; what it found is judged by an exact attack.
        warnings.simplefilter("ignore")
        bounds = Bounds(lowest, np.inf)
        found = search(
            objective,
            theta,
            jac=True,
            method="SLSQP",
            bounds=bounds,
            constraints=constraints,
            options=options,
        )
    W, a = found.x[: m * width].reshape(m, width), found.x[m * width : m * (width + 1)]
    if not np.all(np.isfinite(found.x)):
        return network
    return Network(np.ascontiguousarray(W[:, :d]), a, W[:, d] if bias else np.zeros(m))
