r"""Pruning trained ReLU layers by convex programs.

A trained layer maps samples X (P x N) to ``Y = relu(X W)``. It is replaced by the matrix of least
entrywise l1 norm that reproduces Y:

    min ||U||_1   subject to   ||(X U - Y)_on||_F <= eps,   (X U)_off <= 0,      on = {Y > 0}, off =
    {Y = 0},

which gives ``||relu(X U) - Y||_F <= eps``. If all layers of a network are pruned this way in
parallel, errors propagate as ``sum_l eps_l prod_{k > l} ||U_k||_2``, at most ``sum_l eps_l`` for
layers of l1 norm at most 1. Net-Trim: aghasi2018-fast; the paper's text was not consulted."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.budgets import steps_in_a_minute
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "PrunedLayer",
    "PrunedNetwork",
    "PruningStatus",
    "error_propagation_bound",
    "layer_outputs",
    "normalize_layers",
    "prune_layer",
    "prune_network",
]


class PruningStatus(StrEnum):
    """How the pruning of a layer ended."""

    SOLVED = "solved: relative duality gap and constraint violation are within tol"
    MAX_ITER = (
        "stopped after max_iter iterations above tol; raise max_iter, or eps is too "
        "small for this method"
    )
    STOPPED = "stopped by the callback above tol; layers not reached are the trained ones"


@result
class PrunedLayer:
    """Sparse weights that reproduce the outputs of a layer.

    Attributes
    ----------
    weights
        (N, M) pruned weights, exact zeros included.
    objective
        Their entrywise l1 norm.
    dual_objective
        Lower bound of the least l1 norm, from a feasible dual point.
    output_error
        ``||relu(X U) - Y||_F``.
    violation
        Distance of ``X U`` from the constraints, relative to ``||Y||_F``.
    n_iter
        Iterations used.
    status
        How the solver ended.
    """

    weights: FloatArray
    objective: float
    dual_objective: float
    output_error: float
    violation: float
    n_iter: int
    status: PruningStatus

    @property
    def gap(self) -> float:
        """Relative duality gap; the objective may lie below the bound by as much as the constraints
        are violated."""
        return relative_gap(
            self.objective,
            self.dual_objective,
            rounding=(1e-9 + 10.0 * self.violation) * max(self.objective, self.dual_objective),
        )

    @property
    def density(self) -> float:
        """Fraction of the weights that are not zero."""
        return float(np.mean(self.weights != 0))


@result
class PrunedNetwork:
    """A network all of whose layers were pruned in parallel, each against its own trained inputs
    and outputs.

    Attributes
    ----------
    layers
        The pruned layers.
    errors
        (L,) distance of the outputs of every layer of the pruned network from those of the trained
        one.
    """

    layers: tuple[PrunedLayer, ...]
    errors: FloatArray

    @cached_property
    def weights(self) -> tuple[FloatArray, ...]:
        """Pruned weights of all layers."""
        return tuple(layer.weights for layer in self.layers)

    @cached_property
    def bounds(self) -> FloatArray:
        """(L,) bounds of ``errors`` by :func:`error_propagation_bound` from the layers' own output
        errors."""
        return error_propagation_bound(self.weights, [layer.output_error for layer in self.layers])


@refuses_overflow("X", "W")
def prune_layer(
    X: ArrayLike,
    W: ArrayLike,
    eps: float,
    *,
    tol: float = 1e-5,
    max_iter: int | None = None,
    check_every: int = 25,
    start: ArrayLike | None = None,
    callback: Callback | None = None,
) -> PrunedLayer:
    r"""Prune one trained layer (the Net-Trim program) by the alternating direction method of
    multipliers.

    Splits ``U`` (soft threshold) and ``Z = X U`` (projection on a ball and an orthant) off a
    least-squares step with a factor computed once. The dual value of a multiplier ``Lambda``,
    non-positive off the support of Y and scaled to ``||X^T Lambda||_inf <= 1``, is ``<Lambda, Y> -
    eps ||Lambda_on||_F``.

    Parameters
    ----------
    X
        (P, N) inputs of the layer.
    W
        (N, M) trained weights.
    eps
        Allowed Frobenius error on the active outputs, positive; for 0 see :func:`recover_neuron`.
    tol
        Largest relative duality gap and relative constraint violation.
    max_iter
        Largest number of iterations; by default 20,000, or what takes about a minute.
    check_every
        Iterations between two checks of the stopping rule and of the balance of the two residuals.
    start
        (N, M) weights to start from; the trained ones by default.
    callback
        Called at each check with the iteration, the l1 norm, and the larger of relative gap and
        violation; the solver stops where it returns True.

    Returns
    -------
    PrunedLayer
        Sparse weights, both objectives and the achieved error.

    Notes
    -----
    aghasi2018-fast.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import prune_layer
    >>> X, W = np.eye(3), np.diag([1.0, 0.1, 0.0])
    >>> np.round(prune_layer(X, W, 0.5).weights, 2)
    array([[0.51, 0.  , 0.  ],
           [0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  ]])
    """
    X = as_array(X, "X", ndim=2)
    W = as_array(W, "W", shape=(X.shape[1], None))
    eps = as_real(eps, "eps", above=0)
    tol = as_real(tol, "tol", above=0)
    check_every = as_count(check_every, "check_every")
    max_iter = _budget(len(X), [W], check_every) if max_iter is None else max_iter
    max_iter = as_count(max_iter, "max_iter")
    stops = watcher(callback)
    first = W if start is None else as_array(start, "start", shape=W.shape)
    Y = np.maximum(X @ W, 0)
    on = Y > 0
    size = float(np.linalg.norm(Y))
    if size <= eps:
        zero = np.zeros_like(W)
        return PrunedLayer(zero, 0.0, 0.0, size, 0.0, 0, PruningStatus.SOLVED)
    # Measured: ten times the weight that makes the two splits equal in spectral norm halves or
    # quarters the iterations.
    scale = 10 / float(np.linalg.norm(X, 2))
    inputs: FloatArray = scale * X
    target: FloatArray = scale * Y
    radius = scale * eps
    factor = cho_factor(np.eye(X.shape[1]) + inputs.T @ inputs)
    U = first.copy()
    Z = target.copy() if start is None else inputs @ first
    dual_U, dual_Z = np.zeros_like(U), np.zeros_like(Z)
    penalty = 1 / float(np.abs(W).mean())
    status, n_iter = PruningStatus.MAX_ITER, max_iter
    relaxation = 1.6
    for iteration in range(1, max_iter + 1):
        joint = cho_solve(factor, U - dual_U + inputs.T @ (Z - dual_Z))
        U_last, Z_last = U, Z
        mixed_U = relaxation * joint + (1 - relaxation) * U
        mixed_Z = relaxation * (inputs @ joint) + (1 - relaxation) * Z
        dual_U += mixed_U
        U = np.sign(dual_U) * np.maximum(np.abs(dual_U) - 1 / penalty, 0)
        dual_U -= U
        dual_Z += mixed_Z
        Z = _project(dual_Z, target, on, radius)
        dual_Z -= Z
        if iteration % check_every and iteration < max_iter:
            continue
        product = inputs @ U
        violation = float(np.linalg.norm(product - _project(product, target, on, radius))) / (
            scale * size
        )
        objective = float(np.abs(U).sum())
        dual_objective = _dual_value(-penalty * scale * dual_Z, X, Y, on, eps)
        miss = abs(objective - dual_objective)
        stopped = stops(
            iteration, objective, max(violation, miss / max(objective, dual_objective, 1e-300))
        )
        if violation <= tol and miss <= tol * objective:
            status, n_iter = PruningStatus.SOLVED, iteration
            break
        if stopped:
            status, n_iter = PruningStatus.STOPPED, iteration
            break
        primal = _length(joint - U, inputs @ joint - Z) / _length(U, Z)
        dual = _length(U - U_last, Z - Z_last) / _length(dual_U, dual_Z)
        if iteration <= max_iter // 2 and (primal > 5 * dual or dual > 5 * primal):
            change = 2.0 if primal > dual else 0.5
            penalty *= change
            dual_U /= change
            dual_Z /= change
    if status is not PruningStatus.SOLVED:
        warn(status.value, RuntimeWarning, stacklevel=3)
    error = float(np.linalg.norm(np.maximum(X @ U, 0) - Y))
    return PrunedLayer(U, objective, dual_objective, error, violation, n_iter, status)


@refuses_overflow("X", "weights")
def prune_network(
    X: ArrayLike,
    weights: Sequence[ArrayLike],
    eps: Sequence[float],
    *,
    tol: float = 1e-5,
    max_iter: int | None = None,
    callback: Callback | None = None,
) -> PrunedNetwork:
    """Prune all layers of a ReLU network in parallel, each on the inputs and outputs of the trained
    network.

    Parameters
    ----------
    X
        (P, N) samples.
    weights
        Trained weight matrices.
    eps
        (L,) allowed error of each layer, positive.
    tol, max_iter, callback
        As in :func:`prune_layer`, for each layer; by default the layers share the minute.

    Returns
    -------
    PrunedNetwork
        The pruned layers, and the errors of the pruned network's layers against the trained ones.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import prune_network
    >>> X = np.random.default_rng(0).normal(size=(12, 3))
    >>> weights = [np.diag([1.0, 0.1, -1.0]), np.ones((3, 1))]
    >>> pruned = prune_network(X, weights, [0.5, 0.5])
    >>> len(pruned.layers)
    2
    """
    X = as_array(X, "X", ndim=2)
    layers = _as_layers(weights, X.shape[1])
    allowed = as_array(eps, "eps", shape=(len(layers),), positive=True)
    tol = as_real(tol, "tol", above=0)
    max_iter = _budget(len(X), layers, 25) if max_iter is None else max_iter
    max_iter = as_count(max_iter, "max_iter")
    trained = layer_outputs(X, layers)
    inputs = (X, *trained[:-1])
    pruned: list[PrunedLayer] = []
    for hidden, W, e in zip(inputs, layers, allowed, strict=True):
        if pruned and pruned[-1].status is PruningStatus.STOPPED:
            size = float(np.abs(W).sum())
            pruned.append(PrunedLayer(W, size, 0.0, 0.0, 0.0, 0, PruningStatus.STOPPED))
        else:
            pruned.append(
                prune_layer(hidden, W, float(e), tol=tol, max_iter=max_iter, callback=callback)
            )
    outputs = layer_outputs(X, [layer.weights for layer in pruned])
    errors = np.array([np.linalg.norm(a - b) for a, b in zip(outputs, trained, strict=True)])
    return PrunedNetwork(tuple(pruned), errors)


def layer_outputs(X: ArrayLike, weights: Sequence[ArrayLike]) -> tuple[FloatArray, ...]:
    """Return the outputs of every layer of a network with ReLU after each layer.

    Parameters
    ----------
    X
        (P, N) samples.
    weights
        Weight matrices of the layers, of matching shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import layer_outputs
    >>> layer_outputs([[1.0, -2.0]], [np.eye(2), np.ones((2, 1))])
    (array([[1., 0.]]), array([[1.]]))
    """
    X = as_array(X, "X", ndim=2)
    outputs = []
    hidden = X
    for W in _as_layers(weights, X.shape[1]):
        hidden = np.maximum(hidden @ W, 0)
        outputs.append(hidden)
    return tuple(outputs)


def error_propagation_bound(weights: Sequence[ArrayLike], layer_errors: ArrayLike) -> FloatArray:
    r"""Return the (L,) bounds ``e_l <= sum_{k <= l} eps_k prod_{k < j <= l} ||U_j||_2`` of the
    errors after each pruned layer.

    Parameters
    ----------
    weights
        Pruned weight matrices.
    layer_errors
        (L,) error of each layer alone, on the trained network's inputs.

    Notes
    -----
    aghasi2018-fast states ``sum eps_l`` for layers of entrywise l1 norm at most 1; the product form
    follows from the ReLU being 1-Lipschitz.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import error_propagation_bound
    >>> error_propagation_bound([np.eye(2), 3 * np.eye(2)], [0.5, 0.1])
    array([0.5, 1.6])
    """
    layers = _as_layers(weights, None)
    errors = as_array(layer_errors, "layer_errors", shape=(len(layers),), nonnegative=True)
    bounds = np.empty(len(layers))
    total = 0.0
    for index, (W, error) in enumerate(zip(layers, errors, strict=True)):
        total = total * float(np.linalg.norm(W, 2)) + float(error)
        bounds[index] = total
    return bounds


def normalize_layers(weights: Sequence[ArrayLike]) -> tuple[FloatArray, ...]:
    """Divide every layer by its entrywise l1 norm, which rescales the outputs of a ReLU network by
    a positive factor.

    Parameters
    ----------
    weights
        Weight matrices, none of them zero.

    Examples
    --------
    >>> from theorylab.convex_relu import normalize_layers
    >>> normalize_layers([[[1.0, -3.0]]])
    (array([[ 0.25, -0.75]]),)
    """
    layers = _as_layers(weights, None)
    sizes = [float(np.abs(W).sum()) for W in layers]
    if min(sizes) == 0:
        raise ValueError(f"weights: expected non-zero layers, got l1 norms {sizes}")
    return tuple(W / size for W, size in zip(layers, sizes, strict=True))


def _as_layers(weights: Sequence[ArrayLike], width: int | None) -> tuple[FloatArray, ...]:
    if not isinstance(weights, list | tuple) or not weights:
        raise ValueError(
            f"weights: expected a non-empty sequence of matrices, got {type(weights).__name__}"
        )
    layers = []
    for index, W in enumerate(weights):
        layers.append(as_array(W, f"weights[{index}]", shape=(width, None)))
        width = layers[-1].shape[1]
    return tuple(layers)


def _budget(n_samples: int, layers: Sequence[FloatArray], check_every: int) -> int:
    """Return how many iterations in each of the layers take a minute."""
    cost = 0.0
    for N, M in (W.shape for W in layers):
        # Measured: elementwise steps, and products of matrices, of which narrow ones wait for
        # memory.
        cost += 5e4 + 12 * M * (N + n_samples) + N * (N + 2 * n_samples) * (0.07 * M + 1.5)
    return steps_in_a_minute(cost * (1 + 1 / check_every), most=20_000)


def _project(Z: FloatArray, Y: FloatArray, on: NDArray[np.bool_], radius: float) -> FloatArray:
    """Project on the outputs within ``radius`` of Y where it is active, and non-positive
    elsewhere."""
    deviation = np.where(on, Z - Y, 0)
    length = float(np.linalg.norm(deviation))
    if length > radius:
        deviation *= radius / length
    projected: FloatArray = np.where(on, Y + deviation, np.minimum(Z, 0))
    return projected


def _length(*parts: FloatArray) -> float:
    return float(np.sqrt(sum(np.vdot(part, part) for part in parts)))


def _dual_value(
    multiplier: FloatArray, X: FloatArray, Y: FloatArray, on: NDArray[np.bool_], eps: float
) -> float:
    feasible = np.where(on, multiplier, np.minimum(multiplier, 0))
    value = float(np.sum(feasible * Y)) - eps * float(np.linalg.norm(feasible[on]))
    return max(0.0, value / max(1.0, float(np.abs(X.T @ feasible).max())))
