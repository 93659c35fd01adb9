r"""Gated ReLU networks: the group lasso left when the cone constraints are dropped.

With fixed gates $D_i=\mathrm{diag}(1[Xg_i\ge0])$ a gated network is
$f(x)=\sum_i1[x^\top g_i\ge0]\,x^\top w_i$, and

$$\min_w\;L\Big(\sum_iD_iXw_i\Big)+\beta\sum_i\|w_i\|$$

is the convex program of ReLU training without $(2D_i-I)Xw_i\ge0$, so over the same patterns
its value is a lower bound of that of training. The dual constraint is $\max_i\|X^\top
D_iv\|\le\beta$.

The features $D_iX$ are never formed: with the gates as a 0-1 matrix, outputs are row sums of
$D\circ(XW^\top)$ and all
gradients are $(D\,\mathrm{diag}(v))X$. Block coordinate descent on a working set finds the
support; Newton steps on it, by preconditioned conjugate gradients, give the accuracy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.convex_relu._dual_point import scale_dual
from theorylab.convex_relu._group_lasso import gated_output, weighted_group_lasso
from theorylab.convex_relu._problem import as_patterns, as_problem
from theorylab.convex_relu.losses import Loss, Squared
from theorylab.numerics.bounds import power_of_two, relative_gap
from theorylab.numerics.budgets import Work
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = ["GatedResult", "GatedStatus", "train_gated"]

BoolArray = NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)

WORK = 7e11
"""Products of the steps of a training, about a minute."""


class GatedStatus(StrEnum):
    """Why training ended."""

    CERTIFIED = "globally optimal: the relative duality gap is at most tol"
    ROUNDS = (
        "stopped after max_rounds rounds with a relative gap above tol; raise "
        "max_rounds, or tol is too small for float64"
    )
    WORK = "stopped after steps that take about a minute, with the bound that was proved by then"
    STOPPED = "stopped by the callback, with the bound that was proved by then"


@result
class GatedResult:
    """A gated network at the optimum of its convex program.

    Parameters
    ----------
    objective, dual_objective
        Value and certified lower bound.
    weights
        Blocks w_i, shape (P, d); most are zero.
    dual
        Feasible dual point, shape (n,).
    dual_norm
        Rigorous upper bound of ``max_i |X.T D_i dual|``, at most beta.
    history
        Relative duality gap after every round.
    status
        Why training ended.
    """

    objective: float
    dual_objective: float
    weights: FloatArray
    dual: FloatArray
    dual_norm: float
    history: tuple[float, ...]
    status: GatedStatus

    @property
    def gap(self) -> float:
        """Relative duality gap; values below the rounding error of the loss at zero count as that
        error."""
        return self.history[-1]

    def predict(self, X: ArrayLike, gates: ArrayLike) -> FloatArray:
        """Return the outputs on data of shape (n, d) with the gates' patterns on them, shape (P,
        n)."""
        X = as_array(X, "X", shape=(None, self.weights.shape[1]))
        gates = as_array(gates, "gates", shape=(self.weights.shape[0], X.shape[0]))
        return gated_output(X, gates, self.weights)


def train_gated(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    gates: ArrayLike,
    *,
    loss: str | Loss = "squared",
    tol: float = 1e-8,
    max_rounds: int = 100,
    callback: Callback | None = None,
) -> GatedResult:
    """Train a gated ReLU network to global optimality.

    Parameters
    ----------
    X
        Data, shape (n, d).
    y
        Targets, shape (n,); labels -1 and 1 for the logistic loss.
    beta
        Penalty, positive.
    gates
        Activation patterns, shape (P, n), for instance from ``sample_arrangements``.
    loss
        "squared", "logistic", or a smooth ``Loss``.
    tol
        Relative duality gap.
    max_rounds
        Largest number of working sets.
    callback
        Called with a ``Progress`` before each working set but the last; True stops there.

    Returns
    -------
    GatedResult
        Objective, bound, weights, dual point, history, status.

    Raises
    ------
    ValueError
        For malformed data or gates, a non-positive ``beta``, several outputs, or a loss that is not
        smooth.

    Notes
    -----
    The relaxation is the control of bai2022-efficient, Section 2: without the cone constraints the
    value falls below that of training.

    Examples
    --------
    >>> from theorylab.convex_relu import train_gated
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> train_gated(X, y, 0.1, [[1, 0, 0], [0, 1, 1]]).gap < 1e-8
    True
    """
    X, y, beta, loss = as_problem(X, y, beta, loss)
    if y.ndim != 1:
        raise ValueError(f"y: expected shape ({X.shape[0]},), got {y.shape}")
    if not loss.smooth:
        raise ValueError(f"loss: expected a smooth loss, got {loss.name}")
    patterns = as_patterns(as_array(gates, "gates"), X.shape[0], "gates")
    assert patterns is not None
    tol, max_rounds = as_real(tol, "tol", above=0.0, below=1.0), as_count(max_rounds, "max_rounds")
    # Exact divisions: the solution does not depend on units.
    unit = power_of_two(np.linalg.norm(X, axis=1))
    scale = power_of_two(y) if loss.degree is not None else 1.0
    degree = loss.degree or 0
    normal = _Solver(X / unit, y / scale, beta / unit * scale ** (1 - degree), loss, patterns)
    stops = watcher(callback)
    result = normal.run(
        tol, max_rounds, lambda done, value, gap: stops(done, scale**degree * value, gap)
    )
    if result.status is not GatedStatus.CERTIFIED:
        warnings.warn(
            f"relative gap {result.gap:.1e}: {result.status.value}", RuntimeWarning, stacklevel=2
        )
    slope = scale ** max(degree - 1, 0)
    return replace(
        result,
        objective=scale**degree * result.objective,
        dual_objective=scale**degree * result.dual_objective,
        weights=scale / unit * result.weights,
        dual=slope * result.dual,
        dual_norm=slope * unit * result.dual_norm,
    )


@dataclass
class _Solver:
    """State of one run: all blocks and the output."""

    X: FloatArray
    y: FloatArray
    beta: float
    loss: Loss
    patterns: BoolArray

    def __post_init__(self) -> None:
        self.gates = self.patterns.astype(np.float64)
        self.weights = np.zeros((len(self.patterns), self.X.shape[1]))
        self.lengths = np.linalg.norm(self.X, axis=1)
        n, d = self.X.shape
        self.products = (self.X[:, :, None] * self.X[:, None, :]).reshape(n, d * d)
        self.known: dict[int, FloatArray] = {}
        self.work = Work(WORK)

    def run(self, tol: float, max_rounds: int, stops: Callable[..., bool]) -> GatedResult:
        X, y, beta, loss = self.X, self.y, self.beta, self.loss
        history: list[float] = []
        lower, dual, dual_norm = -np.inf, np.zeros_like(y), 0.0
        size = max(16, 2 * X.shape[0] // X.shape[1])
        status = GatedStatus.ROUNDS
        floor = _EPS * loss.value(np.zeros_like(y), y)
        for _ in range(max_rounds):
            f = gated_output(X, self.gates, self.weights)
            v = -loss.gradient(f, y)
            norms = np.linalg.norm(self.gates @ (v[:, None] * X), axis=1)
            # The products are rounded.
            bound = (
                float(norms.max())
                + 2.0 * float(np.abs(v) @ self.lengths) * (X.shape[0] + X.shape[1] + 4) * _EPS
            )
            point = scale_dual(loss, v, y, beta, bound)
            if loss.dual(point, y) > lower:
                lower, dual = loss.dual(point, y), point
                dual_norm = min(
                    bound * float(np.abs(point).max() / max(np.abs(v).max(), 1e-300)), beta
                )
            objective = loss.value(f, y) + beta * float(np.linalg.norm(self.weights, axis=1).sum())
            history.append(
                relative_gap(
                    objective,
                    lower,
                    floor=floor,
                    rounding=8.0 * X.shape[0] * _EPS * float(np.abs(v) @ (np.abs(f) + np.abs(y))),
                )
            )
            if history[-1] <= tol:
                status = GatedStatus.CERTIFIED
                break
            if stops(len(history), objective, history[-1]):
                status = GatedStatus.STOPPED
                break
            if self.work.left <= 0.0:
                status = GatedStatus.WORK
                break
            support = np.flatnonzero(self.weights.any(axis=1))
            order = np.argsort(-norms)[: len(support) + size]
            working = np.union1d(support, order[norms[order] > beta])
            self.descend(working, f, max(0.1 * history[-1], 1e-12))
        return GatedResult(objective, lower, self.weights, dual, dual_norm, tuple(history), status)

    def grams(self, working: NDArray[np.intp]) -> FloatArray:
        """Return X.T D_i X for the blocks of the working set, each computed once."""
        d = self.X.shape[1]
        new = [int(i) for i in working if int(i) not in self.known]
        self.known.update(
            zip(new, (self.gates[new] @ self.products).reshape(-1, d, d), strict=True)
        )
        return np.array([self.known[int(i)] for i in working])

    def descend(self, working: NDArray[np.intp], f: FloatArray, accuracy: float) -> None:
        """Minimise over the blocks of the working set by quadratic models of the loss."""
        X, y, beta, loss = self.X, self.y, self.beta, self.loss
        patterns = self.patterns[working]
        grams = self.grams(working)
        blocks = np.ascontiguousarray(self.weights[working])
        for _ in range(50):
            gradient, curvature = loss.gradient(f, y), loss.curvature(f, y)
            curvature = np.maximum(curvature, 1e-6 * loss.curvature_bound)
            trial, g = weighted_group_lasso(
                X,
                patterns,
                grams,
                curvature * f - gradient,
                curvature,
                beta,
                blocks,
                f,
                accuracy,
                self.work,
            )
            change = beta * (
                np.linalg.norm(trial, axis=1).sum() - np.linalg.norm(blocks, axis=1).sum()
            )
            predicted = -(float(gradient @ (g - f)) + change)
            value, step = loss.value(f, y), 1.0
            while (
                loss.value(f + step * (g - f), y) + step * change > value - 1e-4 * step * predicted
                and step > 1e-6
            ):
                step *= 0.5
            blocks = blocks + step * (trial - blocks)
            f = f + step * (g - f)
            done = isinstance(loss, Squared) or predicted <= accuracy * abs(value)
            if done or self.work.left <= 0.0:
                break
        self.weights[working] = blocks
