r"""Globally optimal two-layer ReLU networks, with a certificate.

Training solves

.. math::
p^\star=\min_{\{u_j,a_j\}}\;L\Big(\sum_j(Xu_j)_+a_j\Big)+\frac\beta2\sum_j\big(\|u_j\|^2+a_j^2\big)

over networks of any width. With :math:`p_j=|a_j|u_j` the penalty becomes :math:`\beta\sum_j\|p_j\|`
and the problem is convex in the measure of neurons: the value is that of the finite program over
the cones of the activation patterns of :math:`X` (bai2022-efficient, Section 2, where it is the
base of the paper), and of the dual

.. math:: \max_v\;-L^*(-v)\quad\text{subject to}\quad\max_{\|u\|\le1}|v^\top(Xu)_+|\le\beta .

The method never forms that program. It keeps the few neurons that are active, brings them to a
local minimum by active-set Newton steps on the faces of the arrangement, and asks whether
:math:`v=-L'(f)` is feasible: by a covering of the sphere with cones, or by branching on the signs
of rows, that either proves it or returns the neurons to add (conditional gradients, fully
corrective). The end is exact up to rounding; the dual point is the certificate."""

import warnings
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_count, as_flag, as_real, one_of
from theorylab.convex_relu._local import descend
from theorylab.convex_relu._relaxation import relaxed_dual
from theorylab.convex_relu.certificates import (
    Certificate,
    ConeSearch,
    Network,
    Reduction,
    as_budget,
    as_patterns,
    as_problem,
    ascend,
    augment,
    certificate_at,
    climb,
    interior,
    node_budget,
    norm_over_cones,
    norm_over_sphere,
    project_skip,
    reduce_rows,
    rounding_slack,
    search_sphere,
)
from theorylab.convex_relu.losses import Loss, Squared

__all__ = ["Round", "TrainingResult", "TrainingStatus", "train", "zero_threshold"]

BoolArray = NDArray[np.bool_]

_MAX_NEW = 10


class TrainingStatus(Enum):
    """Why training ended."""

    CERTIFIED = "globally optimal: the certified relative duality gap is at most tol"
    ROUNDS = "stopped after max_rounds rounds with a relative gap above tol; raise max_rounds"
    STALLED = (
        "stopped because no neuron lowers the objective in float64 although the relative "
        "gap is above tol; tol is too small"
    )
    BUDGET = (
        "the dual constraint could not be decided within max_nodes nodes, the gap is the best "
        "bound proved; raise max_nodes or tol, or train on a sample of the arrangements"
    )
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


@dataclass(frozen=True)
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
) -> TrainingResult:
    """Train a two-layer ReLU network to certified global optimality.

    Parameters
    ----------
    X
        Data, shape (n, d).
    y
        Targets, shape (n,), or (n, K) for K outputs; labels -1 and 1 for the logistic and hinge
        losses. With several outputs the penalty of a neuron's output weights is the square of their
        l1 norm, for which the problem separates over outputs.
    beta
        Penalty, positive: the objective is ``loss + beta / 2 * sum_j (|u_j|^2 + a_j^2)``.
    loss
        "squared" (half the squared error), "logistic", "hinge", or a ``Loss``; summed over samples.
    arrangements
        "all", or patterns of shape (P, n), for instance from ``sample_arrangements``: then every
        neuron is confined to the cone ``(2 D - I) X u >= 0`` of one of them, ``gap`` is that of the
        restricted problem and ``global_gap`` that of the whole.
    bias
        Give every neuron a bias, penalised like a weight (a column of ones in the data).
    skip
        Add an unpenalised linear map of the input (an affine one if ``bias`` is set). The
        certificate then needs a dual point orthogonal to the data exactly, which exists only where
        a minimiser does (no separable labels) and can be found only if the data are
        well-conditioned.
    tol
        Relative duality gap, certified.
    max_rounds
        Largest number of rounds.
    max_nodes
        Largest number of nodes of an exhaustive search, per sign; by default about a quarter of a
        minute. Up to rank four, and at rank five for n > 80, a node is a cone: hundreds at rank
        three, up to a hundred thousand at rank five, hardly more for large n. Otherwise it fixes
        signs of rows: hundreds for n = 30 and ten thousands for n = 60 at any rank. Where the
        budget does not suffice the dual point is scaled to the best bound that is proved.
    bound
        How the dual constraint is decided: "search" exhaustively; "root" by a semidefinite bound of
        the dual norm, in polynomial time, after local searches for neurons; "sdp" in the same way
        with the dual point that is best for that bound, from one larger semidefinite program.

    Returns
    -------
    TrainingResult
        Objective, certified bound, network, certificate, history, status.

    Raises
    ------
    ValueError
        For malformed data, labels or patterns, a non-positive ``beta``, or a tolerance outside (0,
        1).

    Notes
    -----
    The convex program and its dual are the base of bai2022-efficient, Section 2. The network is
    balanced, ``|u_j| =
    |a_j|``, and its
    neurons lie in different cells where their signs agree.
    """
    X, y, beta, loss = as_problem(X, y, beta, loss)
    patterns = as_patterns(arrangements, X.shape[0])
    bias, skip = as_flag(bias, "bias"), as_flag(skip, "skip")
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    max_rounds, budget = as_count(max_rounds, "max_rounds"), as_budget(max_nodes)
    bound = one_of(bound, "bound", ["search", "root", "sdp"])
    data = augment(X, bias)
    problem = _Problem(
        reduce_rows(data), data, loss, beta, patterns, skip, tol, max_rounds, budget, bound
    )
    outputs = [problem.solve(np.ascontiguousarray(t)) for t in y.reshape(len(y), -1).T]
    network = _network([o.state for o in outputs], problem.reduction, bias, skip, y.ndim)
    dual = np.column_stack([o.dual for o in outputs]).reshape(y.shape)
    objective = loss.value(network(X), y) + beta * network.penalty
    certificate = Certificate(
        X, y, beta, loss, bias, skip, patterns, network, dual, objective, loss.dual(dual, y)
    )
    statuses = [o.status for o in outputs]
    status = next(
        (s for s in statuses if s is not TrainingStatus.CERTIFIED), TrainingStatus.CERTIFIED
    )
    if certificate.gap <= tol:
        status = TrainingStatus.CERTIFIED
    elif status is TrainingStatus.CERTIFIED:
        status = TrainingStatus.STALLED
    if status not in (TrainingStatus.CERTIFIED, TrainingStatus.LOCAL):
        warnings.warn(
            f"relative gap {certificate.gap:.1e}: {status.value}", RuntimeWarning, stacklevel=2
        )
    history = tuple(r for o in outputs for r in o.history)
    return TrainingResult(
        objective, certificate.dual_objective, network, certificate, history, status
    )


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
    """
    X, y, _, loss = as_problem(X, y, 1.0, loss)
    patterns = as_patterns(arrangements, X.shape[0])
    data = augment(X, as_flag(bias, "bias"))
    columns = (-loss.gradient(np.zeros_like(y), y)).reshape(len(y), -1).T
    if patterns is not None:
        return max(norm_over_cones(data, v, patterns).value for v in columns)
    reduction = reduce_rows(data)
    if not as_flag(exhaustive, "exhaustive"):
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
    def empty(n: int, d: int, linear: int) -> "_State":
        return _State(
            np.zeros((linear, d)),
            np.ones(linear),
            np.ones((linear, n), dtype=bool),
            np.zeros((linear, n), dtype=bool),
            linear,
        )

    def copy(self) -> "_State":
        return _State(
            self.p.copy(), self.sigma.copy(), self.active.copy(), self.tight.copy(), self.linear
        )

    def select(self, keep: BoolArray) -> "_State":
        keep = keep.copy()
        keep[: self.linear] = True
        return _State(
            self.p[keep], self.sigma[keep], self.active[keep], self.tight[keep], self.linear
        )

    def pruned(self) -> "_State":
        return self.select(np.any(self.p != 0.0, axis=1))

    def extended(
        self, p: FloatArray, sigma: FloatArray, active: BoolArray, tight: BoolArray
    ) -> "_State":
        return _State(
            np.vstack([self.p, p]),
            np.concatenate([self.sigma, sigma]),
            np.vstack([self.active, active]),
            np.vstack([self.tight, tight]),
            self.linear,
        )

    def blend(self, other: "_State", weight: float) -> "_State":
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


@dataclass(frozen=True)
class _Output:
    state: _State
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
    loss: Loss
    beta: float
    patterns: BoolArray | None
    skip: bool
    tol: float
    max_rounds: int
    max_nodes: int | None
    bound: str
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

    def solve(self, y: FloatArray) -> _Output:
        X, beta = self.reduction.data, self.beta
        state = _State.empty(X.shape[0], X.shape[1], int(self.skip))
        multiplier = np.zeros_like(y)
        self.found = []
        history: list[Round] = []
        status = TrainingStatus.ROUNDS
        previous = np.inf
        stalled = 0
        norm: float | None = None
        v = -self.loss.gradient(np.zeros_like(y), y)
        if self.skip:
            state, multiplier, v = self.minimise(state, y, multiplier)
        for _ in range(self.max_rounds):
            found, violation, exact, complete = self.price(v, exhaustive=self.bound == "search")
            objective = self.loss.value(state.output(X), y) + beta * state.norm
            history.append(Round(objective, len(state.sigma) - state.linear, violation, exact))
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
        if self.bound != "search" and self.patterns is None:
            status = TrainingStatus.LOCAL
        if self.skip:
            v = project_skip(self.full, v, interior(self.loss, v, y))
            norm = None
        dual = self.feasible(v, y, norm, "looser" if status is TrainingStatus.BUDGET else "search")
        return _Output(state, dual, history, status)

    def feasible(self, v: FloatArray, y: FloatArray, norm: float | None, bound: str) -> FloatArray:
        """Scale v into the dual constraint, whose norm in row-space coordinates may be known."""
        if norm is not None:
            return v * (1.0 - 1e-12) * (self.beta / self.reduction.enlarge(v, norm))
        points = [v]
        if self.bound == "sdp" and self.patterns is None:
            linear = self.full if self.skip else None
            relaxed = relaxed_dual(self.reduction.data, y, self.beta, self.loss, linear)
            if relaxed is not None:
                free = interior(self.loss, relaxed, y)
                points.append(project_skip(self.full, relaxed, free) if self.skip else relaxed)
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
        self, v: FloatArray, *, exhaustive: bool = True
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
        for sign in (1, -1):
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
            budget = node_budget(self.reduction, self.max_nodes)
            for sign in (1, -1):
                directions, done, _ = search_sphere(
                    self.reduction, v, sign, beta * (1.0 + self.slack(v)), 16, budget
                )
                complete = complete and (done or len(directions) > 0)
                for u in directions:
                    improve(sign, u, 0.0)
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
        bound = self.loss.curvature_bound
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
        if isinstance(self.loss, Squared):
            state = self.quadratic(state, y, np.ones_like(y))
            return state, multiplier, y - state.output(X)
        if self.loss.smooth:
            state = self.newton(state, y, self.loss)
            return state, multiplier, -self.loss.gradient(state.output(X), y)
        # Method of multipliers: the smoothed loss is moved until its minimiser is that of the loss.
        # It converges if every smooth problem is solved over all neurons, not only locally.
        for _ in range(200):
            smoothed = _Moreau(self.loss, multiplier, 1.0 / self.loss.curvature_bound)
            for _ in range(20):
                state = self.newton(state, y, smoothed)
                gradient = smoothed.gradient(state.output(X), y)
                found, *_ = self.price(-gradient, exhaustive=False)
                if not found:
                    break
                state = self.add(state, found)
            change = float(np.abs(gradient - multiplier).max())
            multiplier = gradient
            if change <= 1e-11:
                break
        return state, multiplier, -multiplier

    def quadratic(self, state: _State, b: FloatArray, kappa: FloatArray) -> _State:
        state = state.copy()
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

    def newton(self, state: _State, y: FloatArray, loss: "Loss | _Moreau") -> _State:
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
            floor = min(10.0 * floor, 1.0) if weight < 0.5 else max(0.1 * floor, 1e-8)
        return state


def _network(
    states: list[_State], reduction: Reduction, bias: bool, skip: bool, ndim: int
) -> Network:
    """Map p_j to the balanced network u_j = p_j / sqrt|p_j|, a_j = sign sqrt|p_j|."""
    width = reduction.basis.shape[1]
    d = width - int(bias)
    weights, output, linear = [np.zeros((0, width))], [np.zeros((0, len(states)))], []
    for k, state in enumerate(states):
        p = state.p @ reduction.basis
        linear.append(p[0] if skip else np.zeros(width))
        p = p[state.linear :]
        root = np.sqrt(np.linalg.norm(p, axis=1))
        weights.append(p / root[:, None])
        rows = np.zeros((len(p), len(states)))
        rows[:, k] = state.sigma[state.linear :] * root
        output.append(rows)
    first, second, third = np.vstack(weights), np.vstack(output), np.column_stack(linear)
    shape = (-1, len(states))[:ndim]
    return Network(
        np.ascontiguousarray(first[:, :d]),
        second.reshape(-1) if ndim == 1 else second,
        first[:, d] if bias else np.zeros(len(first)),
        third[:d].reshape(shape),
        third[d].reshape(shape[1:]) if bias else np.zeros(shape[1:]),
    )
