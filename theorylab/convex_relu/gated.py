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
from scipy.optimize import brentq

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.convex_relu import _meanwhile_patterns
from theorylab.convex_relu._dual_point import scale_dual
from theorylab.convex_relu._problem import as_patterns, as_problem
from theorylab.convex_relu.losses import Loss, Squared
from theorylab.numerics.bounds import power_of_two, relative_gap
from theorylab.numerics.budgets import Work
from theorylab.numerics.compiled import compiled
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = ["GatedResult", "GatedStatus", "train_gated"]

BoolArray = NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)

WORK = 7e11
"""Products of the steps of a training, about a minute."""

_ITERATIONS = 200  # of conjugate gradients, at most


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
        return _output(X, gates, self.weights)


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


def _output(X: FloatArray, gates: FloatArray, weights: FloatArray) -> FloatArray:
    support = np.flatnonzero(weights.any(axis=1))
    result: FloatArray = np.einsum("nk,kn->n", X @ weights[support].T, gates[support])
    return result


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
            f = _output(X, self.gates, self.weights)
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
            trial, g = _weighted_group_lasso(
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


def _weighted_group_lasso(
    X: FloatArray,
    patterns: BoolArray,
    grams: FloatArray,
    b: FloatArray,
    kappa: FloatArray,
    beta: float,
    start: FloatArray,
    f: FloatArray,
    accuracy: float,
    work: Work,
) -> tuple[FloatArray, FloatArray]:
    """Minimise ``sum(kappa f^2) / 2 - b @ f + beta sum |w_i|``; return the blocks and the
    output."""
    blocks = start.copy()
    v = b - kappa * f
    lipschitz = np.maximum(np.linalg.eigvalsh(grams)[:, -1] * kappa.max(), 1e-300)
    Xt, gates = np.ascontiguousarray(X.T), patterns.astype(np.float64)
    for _ in range(100):
        _coordinate_descent(Xt, gates, kappa, lipschitz, beta, blocks, v, 10, accuracy)
        active = np.flatnonzero(blocks.any(axis=1))
        if active.size == 0:
            break
        w = blocks[active]
        chosen = gates[active]
        lengths = np.linalg.norm(w, axis=1, keepdims=True)
        unit = w / lengths
        gradient = beta * unit - chosen @ (v[:, None] * X)
        small = float(np.linalg.norm(gradient, axis=1).max()) <= accuracy * beta
        if small or work.left <= 0.0:
            break
        sweeps = 10 * len(blocks) + _ITERATIONS * active.size
        work.left -= 2.0 * sweeps * (X.size + 2.0 * len(X))
        direction = _newton_direction(
            Xt, chosen, grams[active], kappa, beta, unit, lengths, gradient
        )
        s = np.einsum("nk,kn->n", X @ direction.T, chosen)
        step = _exact_step(v, kappa, s, beta, w, direction)
        blocks[active] = w + step * direction
        v -= step * kappa * s
    f = _output(X, gates, blocks)
    return blocks, f


def _newton_direction(
    Xt: FloatArray,
    gates: FloatArray,
    grams: FloatArray,
    kappa: FloatArray,
    beta: float,
    unit: FloatArray,
    lengths: FloatArray,
    gradient: FloatArray,
) -> FloatArray:
    """Solve the Newton system on the support by conjugate gradients, preconditioned with its
    diagonal blocks."""
    d = Xt.shape[0]
    bend = beta / lengths
    block = kappa.mean() * grams + bend[:, :, None] * (
        np.eye(d) - unit[:, :, None] * unit[:, None, :]
    )
    # The ridge keeps the preconditioner definite where rows are few.
    trace = np.trace(block, axis1=1, axis2=2)
    inverse = np.linalg.inv(block + 1e-10 * trace[:, None, None] * np.eye(d))
    direction = np.zeros_like(gradient)
    _conjugate_gradients(Xt, gates, kappa, bend[:, 0], unit, inverse, gradient, direction)
    return direction


@compiled(meanwhile=_meanwhile_patterns.conjugate_gradients)
def _conjugate_gradients(
    Xt: FloatArray,
    gates: FloatArray,
    kappa: FloatArray,
    bend: FloatArray,
    unit: FloatArray,
    inverse: FloatArray,
    gradient: FloatArray,
    x: FloatArray,
) -> None:
    """Solve ``H x = -gradient`` to a hundredth of the initial residual."""
    d, n = Xt.shape
    X = Xt.T
    blocks = gradient.shape[0]
    r = -gradient
    z = np.empty_like(r)
    p = np.zeros_like(r)
    q = np.empty_like(r)
    s = np.empty(n)
    work = np.empty(n)
    first = 0.0
    previous = 1.0
    for iteration in range(_ITERATIONS):
        rz = 0.0
        for i in range(blocks):
            np.dot(inverse[i], r[i], z[i])
            for a in range(d):
                rz += r[i, a] * z[i, a]
        if iteration == 0:
            first = rz
        elif rz <= 1e-4 * first:
            return
        ratio = rz / previous if iteration > 0 else 0.0
        previous = rz
        for e in range(n):
            s[e] = 0.0
        for i in range(blocks):
            for a in range(d):
                p[i, a] = z[i, a] + ratio * p[i, a]
            np.dot(X, p[i], work)
            _add_product(gates[i], work, s)
        _multiply(kappa, s, s)
        curvature = 0.0
        for i in range(blocks):
            radial = 0.0
            for a in range(d):
                radial += unit[i, a] * p[i, a]
            _multiply(gates[i], s, work)
            np.dot(Xt, work, q[i])
            for a in range(d):
                q[i, a] += bend[i] * (p[i, a] - radial * unit[i, a])
                curvature += p[i, a] * q[i, a]
        if curvature <= 0.0:
            return
        step = rz / curvature
        for i in range(blocks):
            for a in range(d):
                x[i, a] += step * p[i, a]
                r[i, a] -= step * q[i, a]


def _exact_step(
    v: FloatArray,
    kappa: FloatArray,
    s: FloatArray,
    beta: float,
    w: FloatArray,
    direction: FloatArray,
) -> float:
    """Minimise the convex function of one variable along the direction, over [0, 1]."""
    linear, quadratic = -float(v @ s), float(s @ (kappa * s))
    ww, wd, dd = (
        np.einsum("kd,kd->k", a, b) for a, b in ((w, w), (w, direction), (direction, direction))
    )

    def slope(t: float) -> float:
        length = np.sqrt(np.maximum(ww + t * (2.0 * wd + t * dd), 1e-300))
        return linear + t * quadratic + beta * float(np.sum((wd + t * dd) / length))

    if slope(1.0) <= 0.0:
        return 1.0
    return float(brentq(slope, 0.0, 1.0, xtol=1e-14)) if slope(0.0) < 0.0 else 0.0


@compiled
def _coordinate_descent(
    Xt: FloatArray,
    gates: FloatArray,
    kappa: FloatArray,
    lipschitz: FloatArray,
    beta: float,
    blocks: FloatArray,
    v: FloatArray,
    sweeps: int,
    accuracy: float,
) -> None:
    """Proximal steps block by block, ``v = b - kappa f`` kept up to date, until a sweep moves no
    block by much."""
    d, n = Xt.shape
    X = Xt.T
    masked = np.empty(n)
    g = np.empty(d)
    for _ in range(sweeps):
        largest = 0.0
        for i in range(blocks.shape[0]):
            _multiply(gates[i], v, masked)
            np.dot(Xt, masked, g)
            s = 0.0
            for a in range(d):
                g[a] = blocks[i, a] + g[a] / lipschitz[i]
                s += g[a] * g[a]
            s = np.sqrt(s)
            shrink = 1.0 - beta / (lipschitz[i] * s) if s * lipschitz[i] > beta else 0.0
            moved = 0.0
            for a in range(d):
                g[a] = shrink * g[a] - blocks[i, a]
                blocks[i, a] += g[a]
                moved += g[a] * g[a]
            if moved > 0.0:
                largest = max(largest, np.sqrt(moved) * lipschitz[i])
                np.dot(X, g, masked)
                _subtract(kappa, gates[i], masked, v)
        if largest <= accuracy * beta:
            break


@compiled(meanwhile=_meanwhile_patterns.multiply)
def _multiply(a: FloatArray, b: FloatArray, product: FloatArray) -> None:
    for e in range(a.size):
        product[e] = a[e] * b[e]


@compiled
def _add_product(a: FloatArray, b: FloatArray, total: FloatArray) -> None:
    for e in range(a.size):
        total[e] += a[e] * b[e]


@compiled(meanwhile=_meanwhile_patterns.subtract)
def _subtract(kappa: FloatArray, gate: FloatArray, f: FloatArray, v: FloatArray) -> None:
    for e in range(v.size):
        v[e] -= kappa[e] * gate[e] * f[e]
