"""Rounds of training one output: minimise over the neurons at hand, ask for those that the dual
point wants, add them (conditional gradients, fully corrective)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._attainment import completed, interpolable
from theorylab.convex_relu._dual_norm import node_budget
from theorylab.convex_relu._dual_point import project_skip
from theorylab.convex_relu._minimiser import Minimiser
from theorylab.convex_relu._neurons import Neurons
from theorylab.convex_relu._pricing import Pricing
from theorylab.convex_relu._problem import BoolArray
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu._relaxation import relaxed_dual
from theorylab.convex_relu.certificates import certificate_at
from theorylab.convex_relu.losses import Interpolation, Loss, Squared
from theorylab.numerics.progress import asked_to_stop


class TrainingStatus(StrEnum):
    """Why training ended."""

    CERTIFIED = "globally optimal: the certified relative duality gap is at most tol"
    ROUNDS = "stopped after max_rounds rounds with a relative gap above tol; raise max_rounds"
    STALLED = (
        "stopped because no neuron lowers the objective enough in float64, with a relative gap "
        "above tol; tol is too small, or rows are all but dependent"
    )
    WORK = (
        "stopped because the descents took all their work, about half a minute, with a relative "
        "gap above tol; train on fewer rows or a sample of the arrangements, or raise beta"
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


@dataclass(frozen=True)
class Fit:
    """Neurons, the dual point as found and as scaled into the constraint, the rounds, and why they
    ended."""

    neurons: Neurons
    found: FloatArray
    dual: FloatArray
    history: list[Round]
    status: TrainingStatus


@dataclass(frozen=True)
class Settings:
    """Validated arguments of ``train`` of the same names."""

    skip: bool
    tol: float
    max_rounds: int
    max_nodes: int | None
    outputs: int
    bound: str
    callback: Callable[[Round], object]


class Problem:
    """One scalar output on some rows: normalised data, shape (n, d), with the column of ones where
    there is a bias, and patterns, shape (P, n), or None."""

    def __init__(self, data: FloatArray, patterns: BoolArray | None, settings: Settings) -> None:
        self.data, self.patterns, self.settings = data, patterns, settings
        self.reduction = reduce_rows(data)
        nodes = node_budget(self.reduction, settings.max_nodes, settings.outputs)
        self.pricing = Pricing(self.reduction, patterns, settings.tol, nodes)
        self.descents = 0.0

    @property
    def spent(self) -> float:
        """Nanoseconds of all descents and searches so far, about."""
        quarter = node_budget(self.reduction, None)
        return self.descents + 1.5e10 * self.pricing.nodes / quarter

    def solve(
        self,
        y: FloatArray,
        beta: float,
        loss: Loss,
        start: tuple[float, Neurons, FloatArray] | None,
        unit: float,
    ) -> Fit:
        """Train from nothing, or from the neurons and the dual point of another penalty; ``unit``
        is that of the objective that rounds tell."""
        settings, pricing = self.settings, self.pricing
        n, d = self.reduction.data.shape
        state = Neurons.none(n, d, int(settings.skip))
        multiplier = np.zeros(n)
        v = -loss.gradient(np.zeros(n), y)
        least = isinstance(loss, Interpolation)
        if least and not interpolable(self.reduction, self.patterns, settings.skip, y):
            return Fit(state, np.zeros(n), np.zeros(n), [], TrainingStatus.IMPOSSIBLE)
        # The smoothed loss moves outputs by about as much as the multiplier times 1 / stiffness,
        # which should not depend on the size of the penalty.
        largest = float(np.abs(v @ pricing.features).max(initial=0.0))
        ratio = beta / largest if largest > 0.0 else 1.0
        softer = 1.0 if loss.smooth or least else min(ratio, 1.0)
        minimiser = Minimiser(pricing, loss, beta, loss.curvature_bound * softer)
        minimiser.work.left /= settings.outputs
        allowed = minimiser.work.left
        pricing.found = []
        if settings.max_nodes is None:
            # All searches together take no more than four, about a minute.
            pricing.limit = pricing.nodes + 4 * pricing.budget
        if start is not None:
            state, multiplier = start[1], -start[2]
            # Neurons of the neighbours that the descent drops may be needed after all.
            signs, points = state.sigma[state.linear :], state.p[state.linear :]
            directions = points / np.linalg.norm(points, axis=1, keepdims=True)
            pricing.found = list(zip(signs.astype(int).tolist(), directions, strict=True))
        followed = False
        small = least or (isinstance(loss.base, Squared) and ratio < 1e-4)
        exhaustive = settings.bound == "search"
        # Close to the optimum, digits are needed only once its neurons are there.
        rough = start is not None and loss.smooth and self.patterns is None
        rough = rough and exhaustive and not small
        if small:
            target = 0.0 if least else beta
            state, close, followed = minimiser.approach(
                state, y, largest, target, settings.max_rounds
            )
            if followed or minimiser.work.left <= 0.0:
                multiplier, v = -close, close
        if not followed and (small or start is not None or settings.skip):
            state, multiplier, v = minimiser.minimise(state, y, multiplier, rough=rough)
        history: list[Round] = []
        status = TrainingStatus.ROUNDS
        previous = np.inf
        stalled = 0
        norm: float | None = None
        for _ in range(settings.max_rounds):
            # Where neighbours are known, what they lack is for the exhaustive search to find.
            probing = start is None or len(history) > 1 or not exhaustive
            if probing or not rough:
                found, violation, exact, complete = pricing(
                    v, beta, exhaustive=exhaustive and not rough, probing=probing
                )
            if rough and not (probing and found):
                state, v, _ = minimiser.refine_on_faces(state, y, v, 1e-11)
                found, violation, exact, complete = pricing(v, beta, probing=False)
            objective = minimiser.value(state, y)
            width = len(state.sigma) - state.linear
            history.append(Round(unit * objective, width, violation, exact))
            if asked_to_stop(settings.callback(history[-1])) and found:
                status = TrainingStatus.STOPPED
                break
            if not found:
                norm = beta * (1.0 + pricing.slack(v, beta)) if complete else None
                status = TrainingStatus.CERTIFIED if complete else TrainingStatus.BUDGET
            if minimiser.work.left <= 0.0:
                status = TrainingStatus.WORK
            if not found or minimiser.work.left <= 0.0:
                break
            stalled = stalled + 1 if objective >= previous * (1.0 - 1e-15) and exact else 0
            if stalled >= 3 or width > 10 * n + 50:  # then neurons are added to rounding errors
                status = TrainingStatus.STALLED
                break
            if rough and objective >= previous * (1.0 - 1e-12) and start is not None:
                # Without digits, neurons alike are added that gain nothing.
                rough, state = False, start[1]
            else:
                state = minimiser.add(state, found)
            previous = objective
            state, multiplier, v = minimiser.minimise(state, y, multiplier, rough=rough)
        self.descents += allowed - minimiser.work.left
        short = (TrainingStatus.BUDGET, TrainingStatus.WORK)
        bound = "looser" if status in short else "search"
        if not exhaustive:
            bound = "root"
            early = (TrainingStatus.STOPPED, TrainingStatus.ROUNDS, TrainingStatus.WORK)
            if self.patterns is None and status not in early:
                status = TrainingStatus.LOCAL
        if status is TrainingStatus.WORK and minimiser.value(state, y) > loss.value(0.0 * y, y):
            # New neurons of a smoothed loss may be long.
            state = Neurons.none(n, d, int(settings.skip))
        if least and self.patterns is None:
            state = completed(state, self.reduction.data, y)
        if settings.skip:
            v = project_skip(self.data, v, y, loss)
            norm = None
        return Fit(state, v, self._feasible(v, y, beta, loss, norm, bound), history, status)

    def _feasible(
        self,
        v: FloatArray,
        y: FloatArray,
        beta: float,
        loss: Loss,
        norm: float | None,
        bound: str,
    ) -> FloatArray:
        """Scale v into the dual constraint, whose norm in row-space coordinates may be known."""
        if self.reduction.crude(v) <= beta:
            return v
        if norm is not None:
            norm = self.reduction.rounded(v, self.reduction.enlarge(v, norm))
            return v * (1.0 - 1e-12) * (beta / norm)
        points, settings = [v], self.settings
        if settings.bound == "sdp" and self.patterns is None:
            linear = self.data if settings.skip else None
            relaxed = relaxed_dual(self.reduction.data, y, beta, loss, linear)
            if relaxed is not None and settings.skip:
                relaxed = project_skip(self.data, relaxed, y, loss)
            if relaxed is not None:
                points.append(relaxed)
        problem, nodes = (self.reduction, self.data, loss, self.patterns), self.pricing.budget
        scaled = [certificate_at(*problem, p, y, beta, nodes, bound) for p in points]
        return max(scaled, key=lambda point: loss.dual(point, y))
