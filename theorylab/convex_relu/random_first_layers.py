r"""Training with a random first layer: a Lasso, its certificate, and how fast its value falls.

With N unit directions $u_i$ fixed as the first layer, training is
$\min_\alpha\frac12\|\sum_i(Xu_i)_+\alpha_i-y\|^2+\beta\|\alpha\|_1$. Scaled into the dual
constraint over the whole sphere, its residual certifies the network among all networks. In the
plane the value is close to the optimum as soon as every optimal neuron has a direction nearby."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr_delete, qr_insert, solve_triangular

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.convex_relu._network import Network
from theorylab.convex_relu.certificates import Certificate, certify
from theorylab.convex_relu.training import TrainingResult
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.budgets import MINUTE
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "FixedFirstLayer",
    "OutputLayerStatus",
    "displaced_neurons_bound",
    "random_first_layer_bound",
    "train_output_layer",
]


class OutputLayerStatus(StrEnum):
    """Why the Lasso ended."""

    SOLVED = "optimal up to rounding: the relative duality gap is at most 1e-6"
    ROUNDING = (
        "stopped where rounding hides which direction is to enter, with the gap by then; raise "
        "beta, or leave out directions that are all but the same"
    )
    STEPS = (
        "stopped after the largest number of steps, a minute's or 100 min(n, N) + 100, with the "
        "gap by then; raise beta, or give fewer directions"
    )
    STOPPED = "stopped by the callback, with the gap by then"


@result
class FixedFirstLayer:
    """The best network with a given first layer.

    Parameters
    ----------
    X, y, beta
        The problem.
    directions
        Unit directions, shape (N, d).
    coefficients
        Lasso solution, shape (N,).
    network
        The balanced network of the active directions.
    dual
        Residual scaled so that ``|z @ relu(X u_i)| <= beta`` for every given direction, shape (n,).
    objective, dual_objective
        Value of the network, and lower bound over networks with these directions.
    status
        Why the Lasso ended.
    """

    X: FloatArray
    y: FloatArray
    beta: float
    directions: FloatArray
    coefficients: FloatArray
    network: Network
    dual: FloatArray
    objective: float
    dual_objective: float
    status: OutputLayerStatus

    @cached_property
    def certificate(self) -> Certificate:
        """Certificate of the network among all networks: its ``dual_objective`` bounds the optimum
        over free first layers."""
        return certify(self.X, self.y, self.beta, self.network)

    @property
    def gap(self) -> float:
        """Relative duality gap of the Lasso."""
        return relative_gap(self.objective, self.dual_objective)

    @property
    def global_gap(self) -> float:
        """Certified relative gap to the optimum over all first layers."""
        return self.certificate.gap


@refuses_overflow("X", "y", "directions")
def train_output_layer(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    directions: ArrayLike,
    *,
    callback: Callback | None = None,
) -> FixedFirstLayer:
    """Train the output layer over a fixed first layer: a Lasso, solved by an active-set method to
    rounding.

    Parameters
    ----------
    X
        Data, shape (n, d).
    y
        Targets, shape (n,).
    beta
        Penalty, positive; that of ``train``, since neurons may be rescaled at will.
    directions
        First layer, shape (N, d), rows not zero; only their directions matter.
    callback
        Called with a ``Progress`` before each direction that enters; True stops there.

    Returns
    -------
    FixedFirstLayer
        Coefficients, network, and its certificate among all networks.

    Raises
    ------
    ValueError
        For malformed data, a zero direction, or a non-positive ``beta``.

    Notes
    -----
    bai2022-efficient, Section 2 (training with random first layers); the certificate is derived.

    Examples
    --------
    >>> from theorylab.convex_relu import train_output_layer
    >>> fit = train_output_layer([[1.0], [2.0]], [1.0, 2.0], 0.5, [[1.0], [-1.0]])
    >>> fit.objective
    0.475
    """
    X = as_array(X, "X", ndim=2)
    y = as_array(y, "y", shape=(X.shape[0],))
    beta = as_real(beta, "beta", above=0.0)
    directions = as_array(directions, "directions", shape=(None, X.shape[1]))
    lengths = np.linalg.norm(directions, axis=1)
    if lengths.min() == 0.0:
        raise ValueError("directions: expected rows that are not zero, got a zero row")
    unit = directions / lengths[:, None]
    features = np.maximum(X @ unit.T, 0.0)
    alpha, status = _lasso(features, y, beta, watcher(callback))
    residual = y - features @ alpha
    dual = residual * min(1.0, beta / max(float(np.abs(features.T @ residual).max()), 1e-300))
    objective = 0.5 * float(residual @ residual) + beta * float(np.abs(alpha).sum())
    active = np.flatnonzero(alpha)
    root = np.sqrt(np.abs(alpha[active]))
    network = Network(unit[active] * root[:, None], np.sign(alpha[active]) * root)
    lower = float(dual @ y - 0.5 * dual @ dual)
    gap = relative_gap(objective, lower)
    if status is not OutputLayerStatus.STOPPED and gap <= 1e-6:
        status = OutputLayerStatus.SOLVED
    if status in (OutputLayerStatus.STEPS, OutputLayerStatus.ROUNDING):
        warnings.warn(f"relative gap {gap:.1e}: {status.value}", RuntimeWarning, stacklevel=3)
    return FixedFirstLayer(X, y, beta, unit, alpha, network, dual, objective, lower, status)


def random_first_layer_bound(optimum: TrainingResult, *, n_directions: int, xi: float) -> float:
    r"""Bound the suboptimality of N uniform directions in the plane, with probability at least ``1
    - xi``.

    All of the m optimal neurons lie within the angle t of a sampled direction, $m(1-t/\pi)^N
    =\xi$, except with probability ``xi``; then ``displaced_neurons_bound`` holds.

    Parameters
    ----------
    optimum
        Result of ``train`` with squared loss on data of shape (n, 2), without bias or skip
        connection.
    n_directions
        Number N of independent uniform directions.
    xi
        Risk, in (0, 1).

    Returns
    -------
    float
        Bound of p_SCP(N) - p*, infinite where N is too small for any.

    Raises
    ------
    ValueError
        If ``optimum`` is not of that kind, or a number is out of range.

    Notes
    -----
    Derived here: bai2022-efficient bounds the probability of improvement, which says nothing about
    the value.

    Examples
    --------
    >>> from theorylab.convex_relu import random_first_layer_bound, train
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> optimum = train(X, y, 0.1)
    >>> few = random_first_layer_bound(optimum, n_directions=100, xi=0.01)
    >>> random_first_layer_bound(optimum, n_directions=10_000, xi=0.01) < few
    True
    """
    as_instance(optimum, "optimum", TrainingResult)
    n_directions = as_count(n_directions, "n_directions")
    xi = as_real(xi, "xi", above=0.0, below=1.0)
    neurons = max(optimum.network.n_neurons, 1)
    angle = math.pi * (1.0 - (xi / neurons) ** (1.0 / n_directions))
    return displaced_neurons_bound(optimum, angle)


def displaced_neurons_bound(optimum: TrainingResult, angle: float) -> float:
    r"""Bound the suboptimality of the best network over directions in the plane of which one lies
    within the angle t of every optimal neuron.

    Replace each optimal neuron by that direction. The objective grows by at most

    $$\sum_jc_j\max_{|\theta-\theta_j|\le
    t}\big(\beta-s_jz^\top(Xu_\theta)_+\big)+\tfrac12\big(2\sin\tfrac t2\,\|X\|\sum_jc_j\big)^2,$$

    with $c_j$ the norms of the optimal blocks, $s_j$ their signs and z the optimal residual.

    Parameters
    ----------
    optimum
        Result of ``train`` with squared loss on data of shape (n, 2), without bias or skip
        connection.
    angle
        The angle t, in [0, pi].

    Returns
    -------
    float
        Bound of the value over the directions, minus the optimum.

    Examples
    --------
    >>> from theorylab.convex_relu import displaced_neurons_bound
    >>> from theorylab.convex_relu import train
    >>> displaced_neurons_bound(train([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], 0.1), 0.0) < 1e-9
    True
    """
    as_instance(optimum, "optimum", TrainingResult)
    problem = optimum.certificate
    if (
        problem.X.shape[1] != 2
        or problem.bias
        or problem.skip
        or problem.loss.name != "squared"
        or problem.y.ndim != 1
    ):
        raise ValueError(
            "optimum: expected squared loss, data of shape (n, 2), one output, no "
            "bias and no skip connection"
        )
    t = as_real(angle, "angle", minimum=0.0, maximum=math.pi)
    weights = optimum.network.weights
    if len(weights) == 0:
        return 0.0
    sizes = np.linalg.norm(weights, axis=1) * np.abs(optimum.network.output_weights)
    residual = problem.y - optimum.network(problem.X)
    kinks = np.arctan2(problem.X[:, 1], problem.X[:, 0])
    kinks = np.concatenate([kinks + 0.5 * math.pi, kinks - 0.5 * math.pi])
    kinks = np.sort(kinks % (2.0 * math.pi))
    # Between kinks the function is a cosine: its least value is at an end or in its trough.
    middles = 0.5 * (kinks + np.append(kinks[1:], kinks[0] + 2.0 * math.pi))
    active = problem.X @ np.array([np.cos(middles), np.sin(middles)]) > 0.0
    slopes = problem.X.T @ (residual[:, None] * active)
    crests = np.arctan2(slopes[1], slopes[0])
    places = np.concatenate([kinks, crests, crests + math.pi])
    first = 0.0
    for w, a, c in zip(weights, optimum.network.output_weights, sizes, strict=True):
        angle = math.atan2(w[1], w[0])
        offset = (places - angle + math.pi) % (2.0 * math.pi) - math.pi
        near = angle + np.concatenate([offset[np.abs(offset) < t], [-t, t]])
        values = (
            np.sign(a)
            * residual
            @ np.maximum(problem.X @ np.array([np.cos(near), np.sin(near)]), 0.0)
        )
        first += float(c) * max(problem.beta - float(values.min()), 0.0)
    moved = 2.0 * math.sin(0.5 * t) * float(np.linalg.norm(problem.X, 2)) * float(sizes.sum())
    return first + 0.5 * moved**2


def _lasso(
    features: FloatArray, y: FloatArray, beta: float, stops: Callable[..., bool]
) -> tuple[FloatArray, OutputLayerStatus]:
    """Minimise |features @ a - y|^2 / 2 + beta |a|_1 by an active-set method in the manner of
    Lawson and Hanson, as far as rounding, the steps or the callback let it."""
    n, N = features.shape
    support = _Support(n)
    status, work, last = OutputLayerStatus.STEPS, 0.0, (-1, 0.0)
    for step in range(100 + 100 * min(n, N)):
        # Slopes, and updates of the factors.
        work += 0.7 * n * (N + 10 * len(support.active))
        if work > MINUTE and step > 0:
            break
        residual = y - support.columns @ support.sizes
        slope = features.T @ residual
        j = int(np.argmax(np.abs(slope)))
        if j in support.active and not support.fresh:
            support.refactor()
            support.descend(y, beta)
            continue
        # What rounding leaves of a slope.
        if abs(slope[j]) <= beta * (1.0 + 1e-14) or j in support.active:
            status = OutputLayerStatus.ROUNDING
            break
        value = 0.5 * float(residual @ residual) + beta * float(support.sizes.sum())
        if (j, value) == last:  # it left at once
            status = OutputLayerStatus.ROUNDING
            break
        last = j, value
        if stops(step, value, abs(slope[j]) / beta - 1.0):
            status = OutputLayerStatus.STOPPED
            break
        sign = math.copysign(1.0, slope[j])
        if not support.enter(j, sign, sign * features[:, j]):
            status = OutputLayerStatus.ROUNDING
            break
        support.descend(y, beta)
    alpha = np.zeros(N)
    alpha[support.active] = support.signs * support.sizes
    return alpha, status


class _Support:
    """Signed columns at work, their positive sizes, and their QR factors, which are updated."""

    def __init__(self, n: int) -> None:
        self.active: list[int] = []
        self.signs, self.sizes = np.zeros(0), np.zeros(0)
        self.columns: FloatArray = np.zeros((n, 0))
        # Their precision is unknown to type checkers.
        self.Q: Any = np.zeros((n, 0))
        self.R: Any = np.zeros((0, 0))
        self.fresh = True

    def refactor(self) -> None:
        """Factor anew: updates pile up rounding errors."""
        self.Q, self.R = np.linalg.qr(self.columns)
        self.fresh = True

    def enter(self, j: int, sign: float, column: FloatArray) -> bool:
        """Add a column of size zero, or, where it depends on the others, in the place of one;
        return whether it lowers the value by more than rounding."""
        change, size = solve_triangular(self.R, self.Q.T @ column), 0.0
        apart = np.linalg.norm(column - self.columns @ change)
        # As many columns as rows leave nothing but rounding.
        if apart <= 1e-11 * np.linalg.norm(column) or len(self.active) == len(column):
            # Shift weight to the new column at constant fit, which shortens the l1 norm. Twins only
            # take each other's place, for ever.
            if change.sum() <= 1.0 + 1e-12:
                return False
            shrinking = np.flatnonzero(change > 0.0)
            ratios = self.sizes[shrinking] / change[shrinking]
            size = float(ratios.min())
            self.sizes = self.sizes - size * change
            self.drop(int(shrinking[np.argmin(ratios)]))
        self.active.append(j)
        self.columns = np.column_stack([self.columns, column])
        self.signs, self.sizes = np.append(self.signs, sign), np.append(self.sizes, size)
        if len(self.active) == 1:  # which SciPy does not insert in one row
            self.refactor()
        else:
            self.Q, self.R = qr_insert(self.Q, self.R, column, len(self.active) - 1, "col")
            self.fresh = False
        return True

    def drop(self, out: int) -> None:
        del self.active[out]
        Q, R = qr_delete(self.Q, self.R, out, 1, "col")
        # A square Q stays square.
        self.Q, self.R = Q[:, : len(self.active)], R[: len(self.active)]
        self.columns = np.delete(self.columns, out, axis=1)
        self.signs, self.sizes = np.delete(self.signs, out), np.delete(self.sizes, out)

    def descend(self, y: FloatArray, beta: float) -> None:
        """Move to the least value over the columns, dropping those that reach zero."""
        while self.active:
            ones = solve_triangular(self.R, np.ones(len(self.active)), trans="T")
            target = solve_triangular(self.R, self.Q.T @ y - beta * ones)
            negative = np.flatnonzero(target <= 0.0)
            if negative.size == 0:
                self.sizes = target
                return
            ratios = self.sizes[negative] / (self.sizes[negative] - target[negative])
            self.sizes = np.maximum(self.sizes + float(ratios.min()) * (target - self.sizes), 0.0)
            self.drop(int(negative[np.argmin(ratios)]))
