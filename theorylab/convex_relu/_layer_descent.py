"""Descent on the layers of parallel networks, which makes no use of closed forms."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise, product
from math import inf
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real, one_of
from theorylab.convex_relu._parallel import (
    ACTIVATIONS,
    PENALTIES,
    Branches,
    network_cost,
    network_output,
)
from theorylab.numerics.budgets import steps_in_a_minute
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = ["FactoredFit", "NormSearch", "StartsStatus", "fit_factored", "search_minimum_norm"]

Layout = list[list[tuple[slice, tuple[int, int]]]]

# A soft start would let the penalty pull the product of three or more layers to the stationary
# point zero.
_FIRST_STIFFNESS = 300.0
_LAST_STIFFNESS = 1e8
_LONGEST = 15_000  # evaluations of one descent


class StartsStatus(StrEnum):
    """Why a search by descent from many starts ended."""

    COMPLETE = "descents from all starts were made"
    TARGET = "a start ended at the target or below"
    EVALUATIONS = (
        "max_evaluations were spent before all starts had ended; raise max_evaluations, or ask "
        "for fewer starts"
    )
    STOPPED = "stopped by the callback, with the best end by then"


@result
class NormSearch:
    """Best exact fit found by local search.

    Attributes
    ----------
    primal
        Its penalty; infinite where no start ended at an exact fit.
    branches
        Its weights; empty where no start ended at an exact fit.
    ends
        Penalty at the end of every start that was made, infinite where the fit is not exact; shape
        (n_starts,), or shorter where the target, the budget or the callback ended the search.
    status
        Whether all starts were made.
    """

    primal: float
    branches: Branches
    ends: FloatArray
    status: StartsStatus


@result
class FactoredFit:
    """Best end of descent on the layers of one network with weight decay.

    Attributes
    ----------
    objective
        Its value.
    layers
        Its weights.
    outputs
        (n, k) its outputs.
    ends
        Value at the end of every start that was made.
    status
        Whether all starts were made.
    """

    objective: float
    layers: tuple[FloatArray, ...]
    outputs: FloatArray
    ends: FloatArray
    status: StartsStatus


def search_minimum_norm(
    X: ArrayLike,
    Y: ArrayLike,
    widths: Sequence[int],
    *,
    n_branches: int = 1,
    activation: str = "linear",
    penalty: str = "squared",
    n_starts: int = 10,
    target: float | None = None,
    tol: float = 1e-9,
    seed: int = 0,
    max_evaluations: int | None = None,
    callback: Callback | None = None,
) -> NormSearch:
    """Look for the network of least norm that fits Y, by an augmented Lagrangian from random
    starts.

    Makes no use of closed forms, and works for architectures without one. What it returns
    bounds the least penalty from above only, up to the residual.

    Parameters
    ----------
    X
        (n, d) inputs.
    Y
        (n, k) outputs.
    widths
        Widths of the hidden layers of a branch, at least one.
    n_branches
        Number of parallel branches of these widths.
    activation
        ``"linear"`` or ``"relu"``.
    penalty
        ``"squared"`` or ``"power"``.
    n_starts
        Number of standard Gaussian initializations.
    target
        Value at which the search is over: once a start ends there or below, no further one is made.
        A certified lower bound, up to the accuracy wanted, is such a value.
    tol
        Largest residual ``||f(X) - Y||_F``, relative to ``||Y||_F``, of an exact fit.
    seed
        Seed of the initializations.
    max_evaluations
        Largest number of evaluations of the objective, over all starts; by default what takes about
        a minute.
    callback
        Called with the iteration, penalty and relative residual after each descent (several of
        growing stiffness to a start); the search stops where it returns True.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import search_minimum_norm
    >>> found = search_minimum_norm(np.eye(1), [[4.0]], [1], n_starts=1, seed=0)
    >>> round(found.primal, 4)
    4.0
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(X.shape[0], None))
    if not isinstance(widths, list | tuple) or not widths:
        raise ValueError(f"widths: expected a non-empty sequence of integers, got {widths!r}")
    sizes = [X.shape[1], *(as_count(width, "widths") for width in widths), Y.shape[1]]
    n_branches = as_count(n_branches, "n_branches")
    relu = one_of(activation, "activation", ACTIVATIONS) == "relu"
    penalty = one_of(penalty, "penalty", PENALTIES)
    n_starts = as_count(n_starts, "n_starts")
    enough = -inf if target is None else as_real(target, "target")
    tol = as_real(tol, "tol", above=0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    stops = watcher(callback)
    shapes = list(pairwise(sizes))
    exponent = 2 if penalty == "squared" else len(shapes)
    layout = _layout(shapes, n_branches)
    left = _budget(max_evaluations, len(X), shapes, n_branches)
    length = float(np.linalg.norm(Y))
    ends: list[float] = []
    best: Branches = ()
    iteration, status = 0, StartsStatus.COMPLETE
    while len(ends) < n_starts and status is StartsStatus.COMPLETE:
        if left <= 0:
            status = StartsStatus.EVALUATIONS
            break
        ends.append(inf)
        weights: FloatArray = rng.normal(size=(layout[-1][-1][0].stop,))
        multiplier, stiffness, last = np.zeros_like(Y), _FIRST_STIFFNESS, inf
        while stiffness <= _LAST_STIFFNESS and status is StartsStatus.COMPLETE:
            if left <= 0:
                status = StartsStatus.EVALUATIONS
                break
            longest = min(left, _LONGEST)
            end: Any = minimize(
                _augmented_lagrangian,
                weights,
                args=(X, Y, layout, relu, exponent, multiplier, stiffness),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": 1000, "maxfun": longest, "ftol": 1e-15, "gtol": 1e-9},
            )
            weights, left, iteration = end.x, left - end.nfev, iteration + 1
            branches = _split(weights, layout)
            residual = network_output(X, branches, activation=activation) - Y
            miss, cost = float(np.linalg.norm(residual)), network_cost(branches, penalty=penalty)
            if stops(iteration, cost, miss / length if length > 0 else miss):
                status = StartsStatus.STOPPED
            if miss <= tol * length:
                ends[-1] = cost
                if cost == min(ends):
                    best = branches
                if cost <= enough and status is StartsStatus.COMPLETE:
                    status = StartsStatus.TARGET
                break
            multiplier = multiplier + stiffness * residual
            if miss > last / 4:
                stiffness *= 4
            last = miss
    _warn(status)
    return NormSearch(primal=min(ends), branches=best, ends=np.array(ends), status=status)


def fit_factored(
    X: ArrayLike,
    Y: ArrayLike,
    beta: float,
    *,
    depth: int,
    width: int | None = None,
    relu: bool = False,
    n_random: int = 2,
    seed: int = 0,
    max_evaluations: int | None = None,
    callback: Callback | None = None,
) -> FactoredFit:
    r"""Look for the least ``1/2 ||f(X) - Y||^2 + beta/2 sum ||W_l||_F^2`` by descent on the layers.

    Weight decay from three layers on has many local minima: zero is one in every singular
    direction. Descent (L-BFGS) therefore starts from balanced layers of each product that keeps
    some of the singular directions of the least-squares solution (up to eight directions, the
    largest), and before that from random layers. Makes no use of closed forms.

    Parameters
    ----------
    X
        (n, d) inputs.
    Y
        (n, k) outputs.
    beta
        Weight decay, ``> 0``.
    depth
        Number of layers ``L >= 2``.
    width
        Width of the hidden layers; ``min(d, k)`` by default.
    relu
        Whether a ReLU follows every layer but the last.
    n_random
        Number of standard Gaussian starts.
    seed
        Seed of the starts.
    max_evaluations
        Largest number of evaluations of the objective, over all starts; by default what takes about
        a minute.
    callback
        Called with the number and the least value of the starts made; the search stops where it
        returns True.

    Returns
    -------
    FactoredFit
        The best end, and the value of every one.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import fit_factored
    >>> fit = fit_factored(np.eye(1), [[2.0]], 0.5, depth=2)
    >>> round(fit.objective, 6), round(float(fit.outputs[0, 0]), 4)
    (0.875, 1.5)
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(X.shape[0], None))
    beta = as_real(beta, "beta", above=0)
    depth = as_count(depth, "depth", minimum=2)
    hidden = min(X.shape[1], Y.shape[1]) if width is None else as_count(width, "width")
    relu = as_flag(relu, "relu")
    n_random = as_count(n_random, "n_random", minimum=0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    stops = watcher(callback)
    shapes = list(pairwise([X.shape[1], *[hidden] * (depth - 1), Y.shape[1]]))
    left = _budget(max_evaluations, len(X), shapes, 1)
    layout = _layout(shapes, 1)
    (places,) = layout
    total = places[-1][0].stop
    U, s, Vt = np.linalg.svd(np.linalg.pinv(X) @ Y, full_matrices=False)
    rank = min(hidden, s.size, 8)
    starts: list[FloatArray] = [rng.normal(size=(total,)) for _ in range(n_random)]
    for kept in product((0.0, 1.0), repeat=rank):
        root = (s[:rank] * kept) ** (1 / depth)
        start: FloatArray = 1e-3 * rng.normal(size=(total,))
        exact = [U[:, :rank] * root, *[np.diag(root)] * (depth - 2), root[:, None] * Vt[:rank]]
        for part, layer in zip(_split(start, layout)[0], exact, strict=True):  # views
            part[: layer.shape[0], : layer.shape[1]] += layer
        starts.append(start)

    # The tolerances of L-BFGS are absolute.
    size = float(np.sum(Y**2)) or 1.0

    def objective(scaled: FloatArray, unit: float) -> tuple[float, FloatArray]:
        value, gradient = _augmented_lagrangian(
            unit * scaled, X, Y, layout, relu, 2, np.zeros_like(Y), 1 / beta
        )
        return beta / size * value, beta / size * unit * gradient

    best: FloatArray = starts[0]
    values: list[float] = []
    status = StartsStatus.COMPLETE
    for start in starts:
        if left <= 0:
            status = StartsStatus.EVALUATIONS
            break
        longest = min(left, _LONGEST)
        # The first step of L-BFGS has length 1: it must not leave the valley of its start.
        unit = 0.02 * float(np.linalg.norm(start))
        end: Any = minimize(
            objective,
            start / unit,
            args=(unit,),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "maxfun": longest, "ftol": 1e-15, "gtol": 1e-11},
        )
        left -= end.nfev
        values.append(size * float(end.fun))
        if values[-1] < min(values[:-1], default=inf):
            best = unit * end.x
        if stops(len(values), min(values)):
            status = StartsStatus.STOPPED
            break
    _warn(status)
    (layers,) = branches = _split(best, layout)
    outputs = network_output(X, branches, activation=ACTIVATIONS[relu])
    return FactoredFit(min(values), layers, outputs, np.array(values), status)


def _budget(
    given: int | None, n_samples: int, shapes: list[tuple[int, int]], n_branches: int
) -> int:
    """Return the number of evaluations of the objective in all."""
    if given is not None:
        return as_count(given, "max_evaluations")
    weights = n_branches * sum(rows * columns for rows, columns in shapes)
    units = n_branches * n_samples * sum(rows + columns for rows, columns in shapes)
    # Measured: three products of matrices a layer, and L-BFGS.
    cost = 3e4 + 2e4 * n_branches + weights * (100 + 0.25 * n_samples) + 3 * units
    return steps_in_a_minute(cost, most=2_000_000)


def _warn(status: StartsStatus) -> None:
    if status in (StartsStatus.EVALUATIONS, StartsStatus.STOPPED):
        warnings.warn(status.value, RuntimeWarning, stacklevel=3)


def _layout(shapes: list[tuple[int, int]], n_branches: int) -> Layout:
    """Return where the weight matrices of every branch lie in one vector, and their shapes."""
    ends = np.cumsum([0, *(rows * columns for rows, columns in shapes * n_branches)]).tolist()
    places = [
        (slice(*end), shape) for end, shape in zip(pairwise(ends), shapes * n_branches, strict=True)
    ]
    depth = len(shapes)
    return [places[j * depth : (j + 1) * depth] for j in range(n_branches)]


def _split(weights: FloatArray, layout: Layout) -> Branches:
    return tuple(
        tuple(weights[place].reshape(shape) for place, shape in branch) for branch in layout
    )


def _augmented_lagrangian(
    weights: FloatArray,
    X: FloatArray,
    Y: FloatArray,
    layout: Layout,
    relu: bool,
    exponent: int,
    multiplier: FloatArray,
    stiffness: float,
) -> tuple[float, FloatArray]:
    gradient = np.empty_like(weights)
    branches = _split(weights, layout)
    residual = -Y
    activations = []
    for branch in branches:
        hidden = [X]
        for W in branch[:-1]:
            product = hidden[-1] @ W
            hidden.append(np.maximum(product, 0) if relu else product)
        activations.append(hidden)
        residual = residual + hidden[-1] @ branch[-1]
    value = float((multiplier * residual).sum() + stiffness / 2 * (residual**2).sum())
    # The parts of the gradient are views, so that writing them fills the vector.
    for branch, hidden, parts in zip(branches, activations, _split(gradient, layout), strict=True):
        back = multiplier + stiffness * residual
        for W, inputs, part in zip(
            reversed(branch), reversed(hidden), reversed(parts), strict=True
        ):
            square = float((W**2).sum())
            value += 0.5 * square ** (exponent / 2)
            part[:] = inputs.T @ back + exponent / 2 * square ** (exponent / 2 - 1) * W
            back = back @ W.T
            if relu:
                back = back * (inputs > 0)
    return value, gradient
