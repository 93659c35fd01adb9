r"""Globally optimal two-layer ReLU networks, with a certificate.

Training solves

$$p^\star=\min_{\{u_j,a_j\}}\;L\Big(\sum_j(Xu_j)_+a_j\Big)+\frac\beta2\sum_j\big(\|u_j\|^2+a_j^2\big)$$

over networks of any width. With $p_j=|a_j|u_j$ the penalty becomes $\beta\sum_j\|p_j\|$
and the problem is convex in the measure of neurons: the value is that of the finite program over
the cones of the activation patterns of $X$ (bai2022-efficient, Section 2, where it is the
base of the paper), and of the dual

$$\max_v\;-L^*(-v)\quad\text{subject to}\quad\max_{\|u\|\le1}|v^\top(Xu)_+|\le\beta .$$

The method never forms that program. It keeps the few neurons that are active, brings them to a
local minimum by active-set Newton steps on the faces of the arrangement, and asks whether
$v=-L'(f)$ is feasible: by a covering of the sphere with cones, or by branching on the
signs of rows, that either proves it or returns the neurons to add (conditional gradients, fully
corrective). The end is exact up to rounding; the dual point is the certificate.

For small $\beta$ the residual is a small difference of large numbers. So neurons and
$z=v/\beta$ are refined together by Newton's method on the optimality conditions, in which
$z$ keeps its own digits. At $\beta=0$ what is left is the interpolating network of
least norm, whose dual is $\max_zz^\top y$ subject to $\max_{\|u\|\le1}|z^\top(Xu)_+|
\le1$. Data and targets are divided by powers of two first, so that units do not matter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lstsq
from scipy.optimize import linprog

from theorylab._validation import FloatArray, as_count, as_flag, as_function, as_real, one_of
from theorylab.convex_relu._cones import ConeSearch
from theorylab.convex_relu._drawing import draw_network
from theorylab.convex_relu._dual_norm import (
    ascend,
    climb,
    node_budget,
    norm_over_cones,
    norm_over_sphere,
    rounding_slack,
    search_sphere,
)
from theorylab.convex_relu._dual_point import project_skip
from theorylab.convex_relu._local import descend
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._problem import as_budget, as_patterns, as_problem, augment
from theorylab.convex_relu._reduction import Reduction, reduce_rows
from theorylab.convex_relu._relaxation import relaxed_dual
from theorylab.convex_relu.certificates import Certificate, certificate_at
from theorylab.convex_relu.losses import Hinge, Interpolation, Loss, Squared
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.results import result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Round", "TrainingResult", "TrainingStatus", "train", "zero_threshold"]

BoolArray = NDArray[np.bool_]

_MAX_NEW = 10


class TrainingStatus(StrEnum):
    """Why training ended."""

    CERTIFIED = "globally optimal: the certified relative duality gap is at most tol"
    ROUNDS = "stopped after max_rounds rounds with a relative gap above tol; raise max_rounds"
    STALLED = (
        "stopped because no neuron lowers the objective in float64 although the relative "
        "gap is above tol; tol is too small"
    )
    UNATTAINED = (
        "the infimum is not attained: an unpenalised linear map separates some labels, and scaling "
        "it up lowers the loss for ever; the network is close to the infimum"
    )
    IMPOSSIBLE = "no network interpolates: rows of the data demand outputs that contradict another"
    BUDGET = (
        "the dual constraint could not be decided within max_nodes nodes, the gap is the best "
        "bound proved; raise max_nodes or tol, or train on a sample of the arrangements"
    )
    STOPPED = "stopped by the callback, with the bound that was proved by then"
    LOCAL = (
        "neurons were sought by local searches only, as bound asked, and the gap is what a "
        "semidefinite relaxation proves"
    )


@dataclass(frozen=True)
class Round:
    """One round of training.

    Parameters
    ----------
    objective
        Value after the round's local minimisation.
    n_neurons
        Active neurons.
    violation
        Largest value found of ``|v @ relu(X u)| / beta - 1`` over unit ``u``; the neurons to add
        come from there.
    exact
        Whether the search for it was exhaustive.
    """

    objective: float
    n_neurons: int
    violation: float
    exact: bool


@result
class TrainingResult:
    """A trained network and the proof of its quality.

    Parameters
    ----------
    objective, dual_objective
        Value of the network, and the certified lower bound for the problem that was solved: over
        all networks, or over those whose neurons lie in the cones of the given patterns.
    network
        The network.
    certificate
        Dual point; ``certificate.verify()`` checks it independently of training.
    history
        The rounds.
    status
        Why training ended.
    """

    objective: float
    dual_objective: float
    network: Network
    certificate: Certificate
    history: tuple[Round, ...]
    status: TrainingStatus

    @property
    def gap(self) -> float:
        """Certified relative duality gap of the problem that was solved."""
        return self.certificate.gap

    @cached_property
    def global_certificate(self) -> Certificate:
        """The certificate over all activation patterns, loose where the dual constraint cannot be
        decided cheaply."""
        return (
            self.certificate
            if self.certificate.patterns is None
            else self.certificate.unrestricted()
        )

    @property
    def global_gap(self) -> float:
        """Certified relative gap to the optimum over all activation patterns."""
        return self.global_certificate.gap

    def summary(self) -> str:
        r"""Return what was solved, how well, and why training ended, in a few lines.

        Examples
        --------
        >>> from theorylab.convex_relu import train
        >>> text = train([[1.0], [2.0]], [1.0, 1.0], 0.1).summary()
        >>> print("\n".join(text.splitlines()[:3]))
        data          2 x 1, squared loss, penalty 0.1
        network       1 neuron
        objective     0.159
        """
        c, m = self.certificate, self.network.n_neurons
        rows = [
            (
                "data",
                f"{' x '.join(map(str, c.X.shape))}, {c.loss.name} loss, penalty {c.beta:.6g}",
            ),
            ("network", f"{m} neuron{'s' * (m != 1)}" + ", skip connection" * c.skip),
            ("objective", f"{self.objective:.10g}"),
            ("lower bound", f"{self.dual_objective:.10g}, relative gap {self.gap:.1e}"),
            ("rounds", f"{len(self.history)}"),
        ]
        return "\n".join([*(f"{name:14}{text}" for name, text in rows), self.status.value])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the network on its data: a curve with its kinks for one input, a map with the lines
        where neurons bend for two (one output).

        Parameters
        ----------
        ax
            Where to draw; a new figure by default.

        Raises
        ------
        ValueError
            With more than two inputs, or several outputs.
        """
        return draw_network(self.network, self.certificate.X, self.certificate.y, ax)


def train(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    loss: str | Loss = "squared",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    skip: bool = False,
    tol: float = 1e-8,
    max_rounds: int = 200,
    max_nodes: int | None = None,
    bound: str = "search",
    callback: Callable[[Round], object] | None = None,
) -> TrainingResult:
    """Train a two-layer ReLU network to certified global optimality.

    Parameters
    ----------
    X, y
        Data, shape (n, d); targets, shape (n,) or (n, K); labels -1 and 1 for logistic and hinge
        losses. Of several outputs the penalty of a neuron is the squared l1 norm of its weights.
    beta
        Penalty: the objective is ``loss + beta / 2 * sum_j (|u_j|^2 + a_j^2)``. At zero (squared
        loss only) the interpolating network of least penalty, which is then the objective.
    loss
        "squared" (half the squared error), "logistic", "hinge", or ``Loss`` (``Weighted``); summed.
    arrangements
        "all", or patterns (P, n), for instance from ``sample_arrangements``, to whose cones ``(2 D
        - I) X u >= 0`` the neurons are confined; ``global_gap`` is then that of the whole problem.
    bias, skip
        Give every neuron a bias, penalised like a weight; add an unpenalised linear map of the
        input (affine with ``bias``), which needs a minimiser (no separable labels).
    tol
        Relative duality gap, certified.
    max_rounds, max_nodes
        Budgets: rounds, and nodes of an exhaustive search per sign, by default a quarter of a
        minute. A node is a cone up to rank four (five for n > 80), else a choice of signs of rows;
        where they do not suffice, the dual point is scaled to the best bound that is proved.
    bound
        How the dual constraint is decided: "search" exhaustively; "root" by a semidefinite bound
        after local searches for neurons; "sdp" with the dual point that is best for that bound.
    callback
        Called with each :class:`Round`; training stops where it returns True.

    Returns
    -------
    TrainingResult
        Objective, certified bound, balanced network, certificate, history, status. (The convex
        program and its dual: bai2022-efficient, Section 2.)

    Examples
    --------
    >>> from theorylab.convex_relu import train
    >>> solution = train([[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3], 0.1)
    >>> round(solution.objective, 6), solution.status.name, solution.certificate.verify().accepted
    (0.137378, 'CERTIFIED', True)
    """
    session = Session(
        X,
        y,
        loss=loss,
        arrangements=arrangements,
        bias=bias,
        skip=skip,
        tol=tol,
        max_rounds=max_rounds,
        max_nodes=max_nodes,
        bound=bound,
        callback=callback,
    )
    result = session.train(beta)
    if result.status not in (TrainingStatus.CERTIFIED, TrainingStatus.LOCAL):
        warnings.warn(
            f"relative gap {result.gap:.1e}: {result.status.value}", RuntimeWarning, stacklevel=2
        )
    return result


class Session:
    """Training on the same data at several penalties, each started from the neighbours solved.

    Parameters
    ----------
    X, y, loss, arrangements, bias, skip, tol, max_rounds, max_nodes, bound, callback
        As for ``train``.
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        loss: str | Loss = "squared",
        arrangements: str | ArrayLike = "all",
        bias: bool = False,
        skip: bool = False,
        tol: float = 1e-8,
        max_rounds: int = 200,
        max_nodes: int | None = None,
        bound: str = "search",
        callback: Callable[[Round], object] | None = None,
    ) -> None:
        X, y, _, self.loss = as_problem(X, y, 1.0, loss)
        # Copies: what was certified stays what it was.
        self.X, self.y = X.copy(), y.copy()
        self.patterns = as_patterns(arrangements, self.X.shape[0])
        self.bias, self.skip = as_flag(bias, "bias"), as_flag(skip, "skip")
        self.tol = as_real(tol, "tol", above=0.0, below=1.0)
        self.max_rounds = as_count(max_rounds, "max_rounds")
        self.max_nodes = as_budget(max_nodes)
        self.bound = one_of(bound, "bound", ["search", "root", "sdp"])
        self.callback = None if callback is None else as_function(callback, "callback")
        self.data = augment(self.X, self.bias)
        # Exact divisions: nothing below depends on units.
        self.unit = power_of_two(np.linalg.norm(self.data, axis=1))
        self.memory: list[_Memory] = [[] for _ in range(self.y.size // len(self.y))]
        self.problem = self._problem(np.ones(len(self.X), dtype=bool))

    def _problem(self, rows: BoolArray) -> _Problem:
        data = np.ascontiguousarray(self.data[rows] / self.unit)
        return _Problem(
            reduce_rows(data),
            data,
            None if self.patterns is None else np.ascontiguousarray(self.patterns[:, rows]),
            self.skip,
            self.tol,
            self.max_rounds,
            self.max_nodes,
            self.bound,
            self.callback,
        )

    def train(self, beta: float) -> TrainingResult:
        """Return the optimum at one penalty, without a warning."""
        beta = as_real(beta, "beta", minimum=0.0)
        loss = self.loss
        if beta == 0.0:
            if not isinstance(loss.base, Squared):
                raise ValueError(f"beta: expected > 0 for the {loss.name} loss, got 0.0")
            loss, beta = Interpolation(), 1.0
        X, y = self.X, self.y
        columns = y.reshape(len(y), -1).T
        outputs = [
            self._output(np.ascontiguousarray(t), beta, loss, memory)
            for t, memory in zip(columns, self.memory, strict=True)
        ]
        network = _network(outputs, self.bias, self.skip, y.ndim)
        dual = np.column_stack([o.dual for o in outputs]).reshape(y.shape)
        objective = loss.value(network(X), y) + beta * network.penalty
        certificate = Certificate(
            X,
            y,
            beta,
            loss,
            self.bias,
            self.skip,
            self.patterns,
            network,
            dual,
            objective,
            loss.dual(dual, y),
        )
        statuses = [o.status for o in outputs]
        status = next(
            (s for s in statuses if s is TrainingStatus.UNATTAINED),
            next((s for s in statuses if s is not TrainingStatus.CERTIFIED), statuses[0]),
        )
        if isinstance(loss.base, Hinge):
            network, certificate = _on_the_margin(certificate)
        if certificate.gap <= self.tol and status is not TrainingStatus.UNATTAINED:
            status = TrainingStatus.CERTIFIED
        elif status is TrainingStatus.CERTIFIED:
            status = TrainingStatus.STALLED
        history = tuple(r for o in outputs for r in o.history)
        return TrainingResult(
            certificate.objective, certificate.dual_objective, network, certificate, history, status
        )

    def dual(self) -> FloatArray:
        """Return the dual point of the last training, refined and not scaled into the constraint
        (squared or smooth loss, one output)."""
        problem, (beta, state, v) = self.problem, self.memory[0][-1]
        scale = power_of_two(self.y) if self.loss.degree is not None else 1.0
        problem.beta = beta
        _, v, _ = problem.refine(state, self.y / scale, v, tol=1e-15)
        result: FloatArray = scale ** max((self.loss.degree or 0) - 1, 0) * v
        return result

    def _output(self, y: FloatArray, beta: float, loss: Loss, memory: _Memory) -> _Output:
        """Train one output in normalised units."""
        problem, rest = self.problem, np.ones(len(y), dtype=bool)
        escape = np.zeros(self.data.shape[1])
        if self.skip and not loss.attained:
            escape = _separating_map(self.problem.full, y)
            rest = ~(y * (self.problem.full @ escape) > 0.5)
            if not rest.all():
                # What is left of the infimum is the optimum on the other rows.
                problem = self._problem(rest) if rest.any() else problem
                memory = []
        scale = power_of_two(y) if loss.degree is not None else 1.0
        degree = loss.degree or 0
        if isinstance(loss, Interpolation):
            # Any weight of the norm will do; a small one starts close to the constraint.
            size = float(np.linalg.norm(problem.full.T @ (y / scale)))
            problem.beta = 1e-3 * (size if size > 0.0 else 1.0)
        else:
            problem.beta = beta / self.unit * scale ** (1 - degree)
        if rest.any():
            problem.loss, targets = loss.on_rows(rest), y[rest] / scale
            start = _between(memory, problem.beta)
            state, multiplier, v, history, status = problem.solve(targets, start)
            memory.append((problem.beta, state, multiplier))
            points = state.p @ problem.reduction.basis
            sigma, first = state.sigma, points[: state.linear].sum(axis=0)
            points, sigma = points[state.linear :], sigma[state.linear :]
        else:
            v, history, status = np.zeros(0), [], TrainingStatus.CERTIFIED
            points, sigma, first = np.zeros((0, self.data.shape[1])), np.zeros(0), 0.0 * escape
        dual = np.zeros(len(y))
        dual[rest] = (
            v / problem.beta * (beta / self.unit)
            if isinstance(loss, Interpolation)
            else v * scale ** max(degree - 1, 0)
        )
        if not rest.all():
            status = TrainingStatus.UNATTAINED
            hidden = np.maximum(self.problem.full[~rest] @ points.T, 0.0) @ sigma
            margins = np.abs(self.problem.full[~rest] @ escape)
            needed = 50.0 + np.abs(hidden + self.problem.full[~rest] @ first)
            first = first + escape * float((needed / margins).max())
        factor = scale / self.unit
        return _Output(factor * points, sigma, factor * first, dual, history, status)


def _separating_map(data: FloatArray, y: FloatArray) -> FloatArray:
    """Return a map s with ``y_i x_i @ s`` at least one on as many rows as possible and zero on the
    others; zero if there is none."""
    n, d = data.shape
    signed = y[:, None] * data
    lengths = np.linalg.norm(signed, axis=1)
    signed = signed / np.where(lengths > 0.0, lengths, 1.0)[:, None]
    found = linprog(
        np.concatenate([np.zeros(d), -np.ones(n)]),
        A_ub=np.hstack([-signed, np.eye(n)]),
        b_ub=np.zeros(n),
        bounds=[(None, None)] * d + [(0.0, 1.0)] * n,
        method="highs",
    )
    nothing = np.zeros(d)
    if found.x is None:
        return nothing
    s = np.asarray(found.x[:d], dtype=np.float64)
    beaten = signed @ s > 0.5
    if not beaten.any():
        return nothing
    rest = data[~beaten]
    if len(rest):
        # Exactly zero where it should be, up to rounding.
        s = s - np.linalg.lstsq(rest, rest @ s, rcond=None)[0]
    if np.any(signed[beaten] @ s <= 0.5):
        return nothing
    return s / float((np.abs(data[beaten] @ s)).min())


def zero_threshold(
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: str | Loss = "squared",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    exhaustive: bool = True,
) -> float:
    """Return the smallest ``beta`` for which the zero network is optimal, the dual norm of
    ``-L'(0)``.

    Parameters
    ----------
    X, y, loss, arrangements, bias
        The problem, as for ``train``.
    exhaustive
        Whether all activation patterns are searched; otherwise the largest value that local
        searches find is returned, a lower bound.

    Returns
    -------
    float
        The threshold, an upper bound within 1e-10 where the search ends within its budget.

    Raises
    ------
    ValueError
        For malformed data or labels.

    Examples
    --------
    >>> from theorylab.convex_relu import train, zero_threshold
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> beta = zero_threshold(X, y)
    >>> [len(train(X, y, t * beta).network.output_weights) for t in (1.01, 0.99)]
    [0, 1]
    """
    X, y, _, loss = as_problem(X, y, 1.0, loss)
    if isinstance(loss, Interpolation):
        raise ValueError("loss: expected one that is finite at zero, got interpolation")
    patterns = as_patterns(arrangements, X.shape[0])
    data, exhaustive = augment(X, as_flag(bias, "bias")), as_flag(exhaustive, "exhaustive")
    columns = (-loss.gradient(np.zeros_like(y), y)).reshape(len(y), -1).T
    if patterns is not None:
        return max(norm_over_cones(data, v, patterns).value for v in columns)
    reduction = reduce_rows(data)
    if not exhaustive:
        return max(climb(reduction.data, v)[0] for v in columns)
    return max(norm_over_sphere(reduction, v, 1e-10, None).value for v in columns)


@dataclass
class _State:
    """Neurons p_j with signs and faces; row 0 is the skip connection if there is one."""

    p: FloatArray
    sigma: FloatArray
    active: BoolArray
    tight: BoolArray
    linear: int

    @staticmethod
    def empty(n: int, d: int, linear: int) -> _State:
        return _State(
            np.zeros((linear, d)),
            np.ones(linear),
            np.ones((linear, n), dtype=bool),
            np.zeros((linear, n), dtype=bool),
            linear,
        )

    def copy(self) -> _State:
        return _State(
            self.p.copy(), self.sigma.copy(), self.active.copy(), self.tight.copy(), self.linear
        )

    def select(self, keep: BoolArray) -> _State:
        keep = keep.copy()
        keep[: self.linear] = True
        return _State(
            self.p[keep], self.sigma[keep], self.active[keep], self.tight[keep], self.linear
        )

    def pruned(self) -> _State:
        return self.select(np.any(self.p != 0.0, axis=1))

    def extended(
        self, p: FloatArray, sigma: FloatArray, active: BoolArray, tight: BoolArray
    ) -> _State:
        return _State(
            np.vstack([self.p, p]),
            np.concatenate([self.sigma, sigma]),
            np.vstack([self.active, active]),
            np.vstack([self.tight, tight]),
            self.linear,
        )

    def blend(self, other: _State, weight: float) -> _State:
        """The network whose output is the convex combination of both outputs."""
        k = self.linear
        first, second = self.copy(), other.copy()
        first.p *= 1.0 - weight
        second.p *= weight
        first.p[:k] += second.p[:k]
        return first.extended(second.p[k:], second.sigma[k:], second.active[k:], second.tight[k:])

    def output(self, X: FloatArray) -> FloatArray:
        hidden = np.where(self.active & ~self.tight, self.p @ X.T, 0.0)
        result: FloatArray = self.sigma @ hidden
        return result

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.p[self.linear :], axis=1).sum())


_Memory = list[tuple[float, _State, FloatArray]]


def _between(memory: _Memory, beta: float) -> tuple[float, _State, FloatArray] | None:
    """Return the mixture for this penalty of its neighbours among those solved, see
    ``solution_path``; the only neighbour, or None."""
    above = min((m for m in memory if m[0] >= beta), key=lambda m: m[0], default=None)
    below = max((m for m in memory if m[0] < beta), key=lambda m: m[0], default=None)
    if above is None or below is None:
        return above or below
    weight = (above[0] - beta) / (above[0] - below[0])
    v = (1.0 - weight) * above[2] + weight * below[2]
    return beta, above[1].blend(below[1], weight).pruned(), v


@dataclass(frozen=True)
class _Output:
    """Neurons p_j, signs and linear map of one output in the units of the data, and its dual."""

    points: FloatArray
    sigma: FloatArray
    linear: FloatArray
    dual: FloatArray
    history: list[Round]
    status: TrainingStatus


@dataclass(frozen=True)
class _Moreau:
    """The loss smoothed around a multiplier: l_step(f) = min_s l(s) + |s - f - step * multiplier|^2
    / (2 step)."""

    loss: Loss
    multiplier: FloatArray
    step: float

    def value(self, f: FloatArray, y: FloatArray) -> float:
        centre = f + self.step * self.multiplier
        s, _ = self.loss.prox(centre, y, self.step)
        return self.loss.value(s, y) + 0.5 / self.step * float(np.sum((s - centre) ** 2))

    def gradient(self, f: FloatArray, y: FloatArray) -> FloatArray:
        centre = f + self.step * self.multiplier
        s, _ = self.loss.prox(centre, y, self.step)
        result: FloatArray = (centre - s) / self.step
        return result

    def curvature(self, f: FloatArray, y: FloatArray) -> FloatArray:
        _, slope = self.loss.prox(f + self.step * self.multiplier, y, self.step)
        result: FloatArray = (1.0 - slope) / self.step
        return result

    @property
    def curvature_bound(self) -> float:
        return 1.0 / self.step


@dataclass
class _Problem:
    """One scalar output: data in row-space coordinates, search for neurons, local minimisation."""

    reduction: Reduction
    full: FloatArray
    patterns: BoolArray | None
    skip: bool
    tol: float
    max_rounds: int
    max_nodes: int | None
    bound: str
    callback: Callable[[Round], object] | None
    loss: Loss = field(init=False)
    beta: float = field(init=False)
    stiffness: float = field(init=False)
    probes: FloatArray = field(init=False)
    features: FloatArray = field(init=False)
    cones: ConeSearch | None = field(init=False, default=None)
    found: list[tuple[int, FloatArray]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        X = self.reduction.data
        d = X.shape[1]
        if self.patterns is not None:
            self.cones = ConeSearch(X, self.patterns)
        # Starts for the search for neurons, before the exhaustive one: about as many per local
        # maximum in every dimension.
        probes = np.random.default_rng(0).standard_normal((min(256 * 4 ** max(d - 3, 0), 4096), d))
        self.probes = probes / np.maximum(np.linalg.norm(probes, axis=1, keepdims=True), 1e-300)
        self.features = np.maximum(X @ self.probes.T, 0.0)

    def slack(self, v: FloatArray) -> float:
        """Relative slack with which the dual constraint is decided; the dual value pays about as
        much, relatively."""
        # At the optimum the dual value loses at most the slack, relatively; tight tolerances ask
        # for the optimum itself and not only for its value.
        wanted = self.tol / 2.0 if self.tol > 1e-7 else min(self.tol / 16.0, 1e-10)
        return max(wanted, 1e-13, rounding_slack(self.reduction.data, v, self.beta))

    def solve(
        self, y: FloatArray, start: tuple[float, _State, FloatArray] | None
    ) -> tuple[_State, FloatArray, FloatArray, list[Round], TrainingStatus]:
        """Return neurons, the dual point as found and as scaled into the constraint, the rounds,
        and why they ended."""
        X, beta = self.reduction.data, self.beta
        state = _State.empty(X.shape[0], X.shape[1], int(self.skip))
        multiplier = np.zeros_like(y)
        v = -self.loss.gradient(np.zeros_like(y), y)
        self.found = []
        # The smoothed loss moves outputs by about as much as the multiplier times 1 / stiffness,
        # which should not depend on the size of the penalty.
        largest = float(np.abs(v @ self.features).max(initial=0.0))
        self.stiffness = self.loss.curvature_bound
        ratio = beta / largest if largest > 0.0 else 1.0
        if not self.loss.smooth and not isinstance(self.loss, Interpolation):
            self.stiffness *= min(ratio, 1.0)
        if isinstance(self.loss, Interpolation) and not self.interpolable(y):
            nothing = np.zeros_like(y)
            return state, nothing, nothing, [], TrainingStatus.IMPOSSIBLE
        if start is not None:
            state, multiplier = start[1], -start[2]
            # Neurons of the neighbours that the descent drops may be needed after all.
            self.found = [
                (int(sign), p / np.linalg.norm(p))
                for sign, p in list(zip(state.sigma, state.p, strict=True))[state.linear :]
            ]
        least = isinstance(self.loss, Interpolation)
        if least or (isinstance(self.loss.base, Squared) and ratio < 1e-4):
            state, close = self.approach(state, y, largest, 0.0 if least else beta)
            state, multiplier, v = (
                self.minimise(state, y, multiplier) if close is None else (state, -close, close)
            )
        elif start is not None or self.skip:
            state, multiplier, v = self.minimise(state, y, multiplier)
        history: list[Round] = []
        status = TrainingStatus.ROUNDS
        previous = np.inf
        stalled = 0
        norm: float | None = None
        for _ in range(self.max_rounds):
            # Where neighbours are known, what they lack is for the exhaustive search to find.
            probing = start is None or len(history) > 0 or self.bound != "search"
            found, violation, exact, complete = self.price(
                v, exhaustive=self.bound == "search", probing=probing
            )
            objective = self.value(state, y)
            history.append(Round(objective, len(state.sigma) - state.linear, violation, exact))
            if self.callback is not None and self.callback(history[-1]) is True and found:
                status = TrainingStatus.STOPPED
                break
            if not found:
                norm = beta * (1.0 + self.slack(v)) if complete else None
                status = TrainingStatus.CERTIFIED if complete else TrainingStatus.BUDGET
                break
            stalled = stalled + 1 if objective >= previous * (1.0 - 1e-15) and exact else 0
            if stalled >= 3:
                status = TrainingStatus.STALLED
                break
            previous = objective
            state = self.add(state, found)
            state, multiplier, v = self.minimise(state, y, multiplier)
        if self.bound != "search" and self.patterns is None and status != TrainingStatus.STOPPED:
            status = TrainingStatus.LOCAL
        if self.skip:
            v = project_skip(self.full, v, y, self.loss)
            norm = None
        bound = "looser" if status is TrainingStatus.BUDGET else "search"
        return state, v, self.feasible(v, y, norm, bound), history, status

    def approach(
        self, state: _State, y: FloatArray, largest: float, target: float
    ) -> tuple[_State, FloatArray | None]:
        """Follow the optimum of the squared loss to smaller penalties until its faces are those at
        the target; return it there with its dual point, or None where that was not seen."""
        loss, beta = self.loss, self.beta
        squared = Squared() if isinstance(loss, Interpolation) else loss
        for exponent in range(-3, -9, -1):
            level = largest * 10.0**exponent
            if level <= target:
                break
            self.loss, self.beta = squared, level
            for _ in range(self.max_rounds):
                state, _, v = self.minimise(state, y, y)
                found, violation, *_ = self.price(v, exhaustive=False)
                if not found or violation <= 1e-6:
                    break
                state = self.add(state, found)
            self.loss, self.beta = loss, beta
            refined, v, error = self.refine(state, y, v * (beta / level), tol=1e-14)
            if error <= 1e-12 and not self.price(v)[0]:
                return refined, v
        return state, None

    def interpolable(self, y: FloatArray) -> bool:
        """Whether the targets are in the span of the neurons' outputs."""
        X = self.reduction.data
        if self.patterns is None:
            # Rows on different lines are independent but for their linear part: |x_i @ u| spans
            # everything, and relu(z) = (z + |z|) / 2.
            bends = np.zeros((len(y), len(self.reduction.lines)))
            bends[np.arange(len(y)), self.reduction.index] = np.abs(self.reduction.ratio)
            features = np.hstack([bends, X])
        else:
            features = np.hstack([X * on[:, None] for on in self.patterns])
            features = np.hstack([features, X]) if self.skip else features
        fitted = features @ np.linalg.lstsq(features, y, rcond=None)[0]
        return bool(np.abs(y - fitted).max() <= 1e-11 * np.abs(y).max())

    def value(self, state: _State, y: FloatArray) -> float:
        """Return the objective; that of the penalised problem where outputs are constrained."""
        f = state.output(self.reduction.data)
        loss = Squared() if isinstance(self.loss, Interpolation) else self.loss
        return loss.value(f, y) + self.beta * state.norm

    def feasible(self, v: FloatArray, y: FloatArray, norm: float | None, bound: str) -> FloatArray:
        """Scale v into the dual constraint, whose norm in row-space coordinates may be known."""
        if norm is not None:
            return v * (1.0 - 1e-12) * (self.beta / self.reduction.enlarge(v, norm))
        points = [v]
        known = not isinstance(self.loss, Interpolation)
        if self.bound == "sdp" and self.patterns is None and known:
            linear = self.full if self.skip else None
            relaxed = relaxed_dual(self.reduction.data, y, self.beta, self.loss, linear)
            if relaxed is not None:
                skipped = project_skip(self.full, relaxed, y, self.loss) if self.skip else relaxed
                points.append(skipped)
        scaled = [
            certificate_at(
                self.reduction,
                self.full,
                self.loss,
                self.patterns,
                point,
                y,
                self.beta,
                self.max_nodes,
                bound if self.bound == "search" else "root",
            )
            for point in points
        ]
        return max(scaled, key=lambda point: self.loss.dual(point, y))

    def price(
        self,
        v: FloatArray,
        *,
        exhaustive: bool = True,
        max_nodes: int | None = None,
        probing: bool = True,
    ) -> tuple[list[tuple[int, FloatArray, BoolArray, BoolArray]], float, bool, bool]:
        """Return violating neurons, the largest violation, and whether the search was exhaustive
        and complete."""
        if self.cones is not None:
            return self.price_cones(v)
        X, beta = self.reduction.data, self.beta
        found: dict[tuple[int, bytes], tuple[float, FloatArray]] = {}

        # What the exhaustive search would not call a violation is none.
        visible = max(1e-7, self.slack(v))

        def improve(sign: int, u: FloatArray, margin: float) -> None:
            u = u.copy()
            value = ascend(X, sign * v, u, 30)
            if value > beta * (1.0 + margin):
                key = (sign, (X @ u > 0.0).tobytes())
                if value > found.get(key, (0.0, u))[0]:
                    found[key] = (value, u)

        values = v @ self.features
        for sign in (1, -1) if probing else ():
            wide = len(values) // 25
            order = np.argpartition(-sign * values, wide)[:wide]
            for k in order:
                if sign * values[k] > 0.0:
                    improve(sign, self.probes[k], visible)
        # Where the search succeeded before it may again.
        for sign, u in self.found:
            improve(sign, u, visible)
        exact = complete = False
        if exhaustive and not found:
            exact = complete = True
            budget = node_budget(self.reduction, max_nodes or self.max_nodes)
            for sign in (1, -1):
                directions, done, _ = search_sphere(
                    self.reduction, v, sign, beta * (1.0 + self.slack(v)), 16, budget
                )
                for u in directions:
                    improve(sign, u, 0.0)
                complete = complete and done and len(directions) == 0
                if found:
                    # The other sign can wait until this one is settled.
                    break
        best = sorted(
            ((value, sign, u) for (sign, _), (value, u) in found.items()), key=lambda t: -t[0]
        )[: 2 * _MAX_NEW]
        self.found = [*self.found, *((sign, u) for _, sign, u in best)][-200:]
        nothing = np.zeros(X.shape[0], dtype=bool)
        result = [(sign, u * (value - beta), X @ u > 0.0, nothing) for value, sign, u in best]
        return result, (best[0][0] / beta - 1.0 if best else 0.0), exact, complete

    def price_cones(
        self, v: FloatArray
    ) -> tuple[list[tuple[int, FloatArray, BoolArray, BoolArray]], float, bool, bool]:
        assert self.cones is not None
        beta = self.beta
        result = []
        largest = 0.0
        for sign in (1, -1):
            threshold = beta * (1.0 + self.slack(v))
            values, nearest = self.cones(v, sign, threshold)
            for k in np.argsort(-values)[:_MAX_NEW]:
                if values[k] <= threshold:
                    break
                largest = max(largest, values[k] / beta - 1.0)
                rows = self.cones.support[sign][k]
                tight = np.zeros(self.cones.X.shape[0], dtype=bool)
                tight[rows[rows >= 0]] = True
                u = nearest[k] / values[k]
                result.append((sign, u * (values[k] - beta), self.cones.patterns[k], tight))
        return result, largest, True, True

    def add(
        self, state: _State, found: list[tuple[int, FloatArray, BoolArray, BoolArray]]
    ) -> _State:
        """Add neurons with lengths whose average is sure to descend."""
        X = self.reduction.data
        bound = self.stiffness
        neurons = []
        for _, p, active, tight in found:
            length = float(np.linalg.norm(p))
            atom = np.where(active & ~tight, X @ p, 0.0) / length
            neurons.append(p / (bound * max(float(atom @ atom), 1e-300) * len(found)))
        return state.extended(
            np.array(neurons),
            np.array([float(s) for s, *_ in found]),
            np.array([a for _, _, a, _ in found]),
            np.array([t for *_, t in found]),
        )

    def minimise(
        self, state: _State, y: FloatArray, multiplier: FloatArray
    ) -> tuple[_State, FloatArray, FloatArray]:
        """Bring the neurons to a stationary point; return them, the multiplier, and v = -L'."""
        X = self.reduction.data
        if self.loss.smooth:
            if isinstance(self.loss.base, Squared):
                weights = self.loss.curvature(y, y)
                state = self.quadratic(state, weights * y, weights)
            else:
                state = self.newton(state, y, self.loss)
            state, v, _ = self.refine(state, y, -self.loss.gradient(state.output(X), y))
            return state, multiplier, v
        # Method of multipliers: the smoothed loss is moved until its minimiser is that of the loss.
        # It converges if every smooth problem is solved over all neurons, not only locally.
        last = tried = np.inf
        stiffest = max(1e3 * self.stiffness, 0.1 * self.loss.curvature_bound)
        for k in range(60):
            if len(state.sigma) > 10 * len(y) + 50:
                # Rounding errors are being fitted.
                break
            smoothed = _Moreau(self.loss, multiplier, 1.0 / self.stiffness)
            for _ in range(20):
                state = self.newton(state, y, smoothed)
                gradient = smoothed.gradient(state.output(X), y)
                found, violation, *_ = self.price(
                    -gradient, exhaustive=k % 8 == 7, max_nodes=20_000
                )
                # Less may be noise.
                if not found or violation <= 1e-6:
                    break
                state = self.add(state, found)
            change = float(np.abs(gradient - multiplier).max())
            multiplier = gradient
            change /= max(float(np.abs(multiplier).max()), 1e-300)
            # Once the faces are those of the optimum, Newton's method takes the rest of the way.
            if change <= 0.1 * tried or change <= 1e-11:
                tried = change
                refined, v, error = self.refine(state, y, -multiplier, tol=1e-14)
                if error <= 1e-12 or change <= 1e-11:
                    return refined, -v, v
            # A stiffer loss brings it closer, at the price of digits.
            if change > 0.3 * last:
                self.stiffness = min(4.0 * self.stiffness, stiffest)
            last = change
        refined, v, _ = self.refine(state, y, -multiplier)
        return refined, -v, v

    def refine(
        self, state: _State, y: FloatArray, v: FloatArray, *, tol: float = 1e-11
    ) -> tuple[_State, FloatArray, float]:
        """Solve the optimality conditions for the neurons and z = v / beta together; return what
        has the smallest residuals, and these. Rows held at zero are released where z, which has
        more digits than the descent saw, shows that their side descends (given patterns end there).
        """
        X = self.reduction.data
        state, v, error = self.refine_on_faces(state, y, v, tol)
        for _ in range(8 if self.cones is None else 0):
            released = _released(X, v / self.beta, state)
            if error > 1e-9 or released is None:
                break
            moved = self.refine_on_faces(released, y, v, tol)
            if moved[2] > max(tol, 4.0 * error):
                break
            state, v, error = moved
        return state, v, error

    def refine_on_faces(
        self, state: _State, y: FloatArray, v: FloatArray, tol: float
    ) -> tuple[_State, FloatArray, float]:
        """Refine without changing the faces."""
        X, beta = self.reduction.data, self.beta
        n = len(y)
        z, best = v / beta, np.inf
        for _ in range(8):
            lengths = np.linalg.norm(state.p, axis=1)
            jacobian, bends, residuals, bases = [np.zeros((n, 0))], [], [np.zeros(0)], []
            for j, length in enumerate(lengths):
                free = j < state.linear
                tied = state.tight[j]
                basis = _face_basis(X[tied]) if tied.any() else np.eye(X.shape[1])
                bases.append(basis)
                on = state.active[j] & ~state.tight[j]
                block = state.sigma[j] * np.where(on[:, None], X @ basis, 0.0)
                unit = np.zeros(basis.shape[1]) if free else basis.T @ state.p[j] / length
                residuals.append(unit - block.T @ z)
                jacobian.append(block if free else block * length)
                bends.append(np.eye(len(unit)) * (0.0 if free else 1.0) - np.outer(unit, unit))
            A, right = np.hstack(jacobian), np.concatenate(residuals)
            f = state.output(X)
            first, in_f, in_v = self.loss.optimality(f, beta * z, y)
            size = in_f * (np.abs(f) + np.abs(y)) + in_v * np.abs(beta * z)
            error = max(
                float(np.abs(right).max(initial=0.0)),
                float(np.abs(first).max()) / max(float(size.max()), 1e-300),
            )
            if error >= 0.5 * best or right.size == 0:
                break
            best, kept = error, (state, z)
            if error <= tol:
                break
            system = np.zeros((n + right.size, n + right.size))
            system[:n, : right.size] = in_f[:, None] * A
            system[:n, right.size :] = np.diag(beta * in_v)
            system[n:, right.size :] = np.hstack(
                [b / (1.0 if j < state.linear else lengths[j]) for j, b in enumerate(jacobian[1:])]
            ).T
            at = 0
            for bend in bends:
                stop = at + len(bend)
                system[n + at : n + stop, at:stop] = -bend
                at = stop
            step = _equilibrated_solve(system, np.concatenate([-first, right]))
            moved = state.copy()
            at = 0
            for j, basis in enumerate(bases):
                stop = at + basis.shape[1]
                change = basis @ step[at:stop]
                moved.p[j] += change if j < state.linear else change * lengths[j]
                at = stop
            sides = moved.p @ X.T
            wrong = (sides * np.where(state.active, 1.0, -1.0) < -1e-12 * lengths[:, None]) & (
                ~state.tight
            )
            if np.any(wrong[state.linear :]) or not np.all(np.isfinite(step)):
                break
            state, z = moved, self.loss.into_domain(beta * (z + step[right.size :]), v, y) / beta
            v = beta * z
        if np.isfinite(best):
            state, z = kept
        return state, beta * z, best

    def quadratic(self, state: _State, b: FloatArray, kappa: FloatArray) -> _State:
        state = state.copy()
        # Hundreds of neurons alike may be dependent to the last digit; what was reached stays.
        with suppress(np.linalg.LinAlgError):
            descend(
                self.reduction.data,
                b,
                kappa,
                self.beta,
                state.p,
                state.sigma,
                state.active,
                state.tight,
                state.linear,
                self.patterns is None,
                500,
                1e-12,
            )
        return state.pruned()

    def newton(self, state: _State, y: FloatArray, loss: Loss | _Moreau) -> _State:
        """Proximal Newton method: quadratic models of the loss, steps in the space of networks."""
        X, beta = self.reduction.data, self.beta
        floor = 1e-6
        for _ in range(50):
            f = state.output(X)
            gradient, curvature = loss.gradient(f, y), loss.curvature(f, y)
            # Flat parts of the loss make steps far beyond the model; the floor follows how far
            # steps can be taken.
            curvature = np.maximum(curvature, floor * loss.curvature_bound)
            trial = self.quadratic(state, curvature * f - gradient, curvature)
            g = trial.output(X)
            value = loss.value(f, y) + beta * state.norm
            predicted = -(float(gradient @ (g - f)) + beta * (trial.norm - state.norm))
            if predicted <= 1e-16 * abs(value):
                return trial if loss.value(g, y) + beta * trial.norm <= value else state
            weight = 1.0
            while (
                loss.value(f + weight * (g - f), y)
                + beta * (state.norm + weight * (trial.norm - state.norm))
                > value - 1e-4 * weight * predicted
                and weight > 1e-6
            ):
                weight *= 0.5
            state = trial if weight == 1.0 else state.blend(trial, weight)
            floor = min(10.0 * floor, 1.0) if weight < 0.5 else max(0.1 * floor, 1e-14)
        return state


def _on_the_margin(c: Certificate) -> tuple[Network, Certificate]:
    """Scale a network so that margins that should be one are not less: at small penalties their
    rounding costs more than the scaling."""
    m = c.y * c.network(c.X)
    short = m[(m < 1.0) & (m > 1.0 - 1e-6)]
    if short.size == 0:
        return c.network, c
    w, best = c.network, c
    # Outputs that are differences of large numbers, of a skip connection, need more.
    for excess in (4.0 * np.finfo(float).eps, 1e-13, 1e-11):
        factor = 1.0 / float(short.min()) + excess
        network = Network(
            w.weights, factor * w.output_weights, w.biases, factor * w.linear, factor * w.offset
        )
        # Balanced only up to rounding, which is of second order in the penalty.
        objective = c.loss.value(network(c.X), c.y) + c.beta * network.penalty
        if objective < best.objective:
            best = replace(c, network=network, objective=objective)
    return best.network, best


def _face_basis(tight: FloatArray) -> FloatArray:
    """Return an orthonormal basis of the directions orthogonal to the tight rows."""
    lengths = np.linalg.norm(tight, axis=1)
    rows = tight[lengths > 0.0] / lengths[lengths > 0.0, None]
    _, s, vt = np.linalg.svd(rows)
    result: FloatArray = vt[int(np.sum(s > 1e-11)) :].T
    return result


def _released(X: FloatArray, z: FloatArray, state: _State) -> _State | None:
    """Release, for every neuron, the row held at zero whose side descends most steeply at the dual
    point z, in units of the penalty; None if there is none."""
    result = state.copy()
    for j in np.flatnonzero(state.tight.any(axis=1)):
        rows = np.flatnonzero(state.tight[j])
        unit = state.p[j] / np.linalg.norm(state.p[j])
        held = X[rows]
        pull = unit - state.sigma[j] * (z * (state.active[j] & ~state.tight[j])) @ X
        multipliers, _, rank, _ = np.linalg.lstsq(held.T, pull, rcond=1e-11)
        if j < state.linear or rank < len(rows):
            continue
        lengths = np.linalg.norm(held, axis=1)
        slopes = np.stack([multipliers, state.sigma[j] * z[rows] - multipliers]) * lengths
        side, which = np.unravel_index(np.argmax(slopes), slopes.shape)
        if slopes[side, which] > 1e-9:
            result.tight[j, rows[which]] = False
            result.active[j, rows[which]] = side == 1
    return None if (result.tight == state.tight).all() else result


def _equilibrated_solve(system: FloatArray, right: FloatArray) -> FloatArray:
    """Return a least-squares solution of a square system whose rows and columns have very different
    sizes."""
    rows = 1.0 / np.maximum(np.abs(system).max(axis=1), 1e-300)
    scaled = rows[:, None] * system
    columns = 1.0 / np.maximum(np.abs(scaled).max(axis=0), 1e-300)
    solution, *_ = lstsq(
        scaled * columns, rows * right, cond=1e-13, lapack_driver="gelsy", check_finite=False
    )
    result: FloatArray = columns * solution
    return result


def _network(outputs: list[_Output], bias: bool, skip: bool, ndim: int) -> Network:
    """Map p_j to the balanced network u_j = p_j / sqrt|p_j|, a_j = sign sqrt|p_j|."""
    width = outputs[0].points.shape[1]
    d = width - int(bias)
    weights, output, linear = [np.zeros((0, width))], [np.zeros((0, len(outputs)))], []
    for k, part in enumerate(outputs):
        linear.append(part.linear if skip else np.zeros(width))
        root = np.sqrt(np.linalg.norm(part.points, axis=1))
        weights.append(part.points / root[:, None])
        rows = np.zeros((len(root), len(outputs)))
        rows[:, k] = part.sigma * root
        output.append(rows)
    first, second, third = np.vstack(weights), np.vstack(output), np.column_stack(linear)
    shape = (-1, len(outputs))[:ndim]
    return Network(
        np.ascontiguousarray(first[:, :d]),
        second.reshape(-1) if ndim == 1 else second,
        first[:, d] if bias else np.zeros(len(first)),
        third[:d].reshape(shape),
        third[d].reshape(shape[1:]) if bias else np.zeros(shape[1:]),
    )
