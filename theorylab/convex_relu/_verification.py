"""Verification of a certificate from the data, the network and the dual point alone.

Values are enclosed in balls, the dual constraint is proved, and neurons must lie in the cones of
the given patterns."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from flint import arb, ctx

from theorylab._validation import FloatArray, as_array
from theorylab.convex_relu._constraint import prove_cones, prove_sphere
from theorylab.convex_relu._dual_point import dual_error, exact_dual
from theorylab.convex_relu._network import (
    Network,
    as_network,
    columns,
    output_balls,
    penalty_ball,
    value_error,
)
from theorylab.convex_relu._problem import BoolArray, as_patterns, as_problem, augment
from theorylab.convex_relu.losses import Loss
from theorylab.numerics.balls import above, balls, below, rationals
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.results import result

if TYPE_CHECKING:
    from theorylab.convex_relu.certificates import Certificate

_EPS = float(np.finfo(np.float64).eps)
_PRECISION = 160


class Rejection(StrEnum):
    """What is wrong with a certificate."""

    NONE = "accepted"
    OBJECTIVE = "the stated objective is not the network's"
    DUAL_OBJECTIVE = "the stated dual objective is not that of the dual point"
    DOMAIN = "the dual point lies outside the domain of the loss's conjugate"
    CONSTRAINT = "the dual constraint is violated, or could not be proved"
    PATTERNS = "a neuron lies in none of the cones of the given patterns"


@result
class Verification:
    """Outcome of a verification; true if the certificate was accepted.

    Parameters
    ----------
    accepted
        Whether every check succeeded.
    reason
        The check that failed.
    objective, dual_objective
        Rigorous upper bound of the network's value and lower bound of the optimum (nan where not
        reached).
    n_cones, n_exact
        Nodes of the search, or projections, and how many leaves or projections were confirmed in
        rational arithmetic: all those with a relative slack below 1e-6. The others rest on float64
        with a bound on every rounding error, and on the code of the search.
    floor
        Rounding error of the loss at zero, below which values are not told from zero.
    """

    accepted: bool
    reason: Rejection
    objective: float
    dual_objective: float
    n_cones: int = 0
    n_exact: int = 0
    floor: float = 0.0

    def __bool__(self) -> bool:
        return self.accepted

    @property
    def gap(self) -> float:
        """Rigorous relative gap; as in ``Certificate.gap`` values below the floor count as it."""
        # Zeros are enclosed by the least numbers above and below.
        least = float(np.finfo(np.float64).tiny)
        return relative_gap(self.objective, self.dual_objective, floor=max(self.floor, least))


def gap_floor(loss: Loss, y: FloatArray) -> float:
    """Return the rounding error of the loss at zero, zero where that is infinite."""
    at_zero = loss.value(np.zeros_like(y), y)
    return float(np.finfo(np.float64).eps * at_zero) if np.isfinite(at_zero) else 0.0


def verify(c: Certificate, max_nodes: int | None) -> Verification:
    nan = float("nan")
    X, y, beta, loss = as_problem(c.X, c.y, c.beta, c.loss)
    network = as_network(c.network, X, y)
    dual = as_array(c.dual, "dual", shape=y.shape)
    patterns = None if c.patterns is None else as_patterns(c.patterns, len(y), "patterns")
    data = augment(X, c.bias)
    targets, duals = columns(y), columns(dual)
    with ctx.workprec(_PRECISION):
        value = _objective(network, X, y, beta, loss)
        if not abs(float(value) - c.objective) <= value_error(network, X, y, beta, loss):
            return Verification(False, Rejection.OBJECTIVE, float(value.upper()), nan)
        objective = above(value)
        if (not c.bias and np.any(network.biases)) or (
            not c.skip and (np.any(network.linear) or np.any(network.offset))
        ):
            return Verification(False, Rejection.OBJECTIVE, objective, nan)
        bound = arb(0)
        n_cones = n_exact = 0
        for k in range(targets.shape[1]):
            v, t = duals[:, k], targets[:, k]
            part, moved = _dual_value(data, v, t, loss, c.skip)
            if part is None:
                return Verification(False, Rejection.DOMAIN, objective, nan)
            bound += part
            if patterns is None:
                proved, cones, exact = prove_sphere(data, v, beta, moved, max_nodes)
            else:
                proved, cones, exact = prove_cones(data, v, beta, moved, patterns)
            n_cones, n_exact = n_cones + cones, n_exact + exact
            if not proved:
                return Verification(False, Rejection.CONSTRAINT, objective, nan, n_cones, n_exact)
        lower = below(bound)
        if not abs(float(bound) - c.dual_objective) <= dual_error(dual, y, loss):
            return Verification(False, Rejection.DUAL_OBJECTIVE, objective, lower, n_cones, n_exact)
    if patterns is not None and not _in_cones(network, data, c.bias, patterns):
        return Verification(False, Rejection.PATTERNS, objective, lower, n_cones, n_exact)
    floor = gap_floor(loss, y)
    return Verification(True, Rejection.NONE, objective, lower, n_cones, n_exact, floor)


def with_digits(c: Certificate, tol: float) -> Certificate:
    """Return the certificate with values that are right to a hundredth of the gap that counts:
    where float64 may not do, those that verification finds, to the last digit.

    Zeros, which are feasible, take the place of a dual point that has no value."""
    enough = 0.01 * tol * max(c.objective, gap_floor(c.loss, c.y))
    objective, dual = c.objective, c.dual
    known = value_error(c.network, c.X, c.y, c.beta, c.loss) <= enough
    bounded = np.isfinite(c.dual_objective) and dual_error(dual, c.y, c.loss) <= enough
    if known and bounded and not c.skip:
        return c
    bound = arb(c.dual_objective)
    with ctx.workprec(_PRECISION):
        if not known:
            value = float(_objective(c.network, c.X, c.y, c.beta, c.loss))
            objective = value if np.isfinite(value) else objective
        # Beside a skip connection the dual point stands for one that is exactly orthogonal to it.
        if c.skip or not bounded:
            data, dual, bound = augment(c.X, c.bias), dual.copy(), arb(0)
            for v, t in zip(columns(dual).T, columns(c.y).T, strict=True):
                part, _ = _dual_value(data, v, t, c.loss, c.skip)
                if part is None:
                    v[:] = 0.0
                    part = c.loss.dual_ball(balls(v), balls(t))
                bound += part
    return replace(c, dual=dual, objective=objective, dual_objective=float(bound))


def _objective(network: Network, X: FloatArray, y: FloatArray, beta: float, loss: Loss) -> arb:
    outputs, total = output_balls(network, X), arb(beta) * penalty_ball(network)
    for k, target in enumerate(columns(y).T):
        total += loss.value_ball([outputs[i, k] for i in range(len(target))], balls(target))
    return total


def _dual_value(
    data: FloatArray, v: FloatArray, y: FloatArray, loss: Loss, skip: bool
) -> tuple[arb | None, FloatArray]:
    """Enclose the dual value of the exact point that v stands for, None where that is outside the
    domain; bound how far it is moved."""
    point, moved = exact_dual(data, v, y, loss) if skip else (rationals(v), np.zeros(len(v)))
    if point is None or not loss.in_domain(point, y):
        return None, moved
    return loss.dual_ball([arb(p) for p in point], balls(y)), moved


def _in_cones(network: Network, data: FloatArray, bias: bool, patterns: BoolArray) -> bool:
    """Whether every neuron lies in a cone of the list, up to the rounding of ``x_i @ u``."""
    first = np.column_stack([network.weights, network.biases]) if bias else network.weights
    scale = np.linalg.norm(data, axis=1)
    for u in first:
        z = data @ u
        # Projections onto a face and mapping back to weights leave errors of a few hundred units in
        # the last place.
        small = 1e3 * (data.shape[1] + 1) * _EPS * scale * np.linalg.norm(u)
        wrong = (z[None, :] > small) & ~patterns | (z[None, :] < -small) & patterns
        if np.all(wrong.any(axis=1)):
            return False
    return True
