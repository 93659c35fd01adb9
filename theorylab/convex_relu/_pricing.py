"""The search for neurons that a dual point wants: directions in which it violates its constraint.

Ascents from random directions and from where neurons were found before come first, and where they
find nothing an exhaustive search. Over given patterns the violations are projections onto their
cones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._cones import ConeSearch
from theorylab.convex_relu._covering import Coverings
from theorylab.convex_relu._dual_norm import (
    ascend,
    node_budget,
    rounding_slack,
    search_sphere,
)
from theorylab.convex_relu._problem import BoolArray
from theorylab.convex_relu._reduction import Reduction

_EPS = float(np.finfo(np.float64).eps)
_MAX_NEW = 10


class Wanted(NamedTuple):
    """A neuron to add: its sign, its direction times its violation, its sides, the rows held."""

    sign: int
    p: FloatArray
    active: BoolArray
    tight: BoolArray


class Priced(NamedTuple):
    """What a search found: neurons, the largest relative violation, and whether it was exhaustive
    and proved that there is nothing to find."""

    neurons: list[Wanted]
    violation: float
    exact: bool
    complete: bool


class Pricing:
    """Search for neurons on the same data, at any dual point and penalty.

    Parameters
    ----------
    reduction
        Data in coordinates of their row space.
    patterns
        Patterns to whose cones neurons are confined, shape (P, n), or None.
    tol
        Relative gap that is wanted.
    max_nodes
        Budget of an exhaustive search, or None.
    """

    def __init__(
        self,
        reduction: Reduction,
        patterns: BoolArray | None,
        tol: float,
        max_nodes: int | None,
    ) -> None:
        self.reduction, self.tol = reduction, tol
        self.budget = node_budget(reduction, max_nodes)
        #: Nodes of all exhaustive searches so far, and where they end.
        self.nodes, self.limit = 0, np.inf
        self.X = reduction.data
        self.cones = None if patterns is None else ConeSearch(self.X, patterns)
        # Starts for the search for neurons, before the exhaustive one: about as many per local
        # maximum in every dimension.
        d = self.X.shape[1]
        probes = np.random.default_rng(0).standard_normal((min(256 * 4 ** max(d - 3, 0), 4096), d))
        self.probes = probes / np.maximum(np.linalg.norm(probes, axis=1, keepdims=True), 1e-300)
        self.features = np.maximum(self.X @ self.probes.T, 0.0)
        #: Signs and directions where the search succeeded, and may again.
        self.found: list[tuple[int, FloatArray]] = []
        self.coverings = Coverings()
        #: The sign of the last violation that an exhaustive search found: it may have more.
        self.sign = 1

    def slack(self, v: FloatArray, beta: float) -> float:
        """Relative slack with which the dual constraint is decided; the dual value pays about as
        much, relatively."""
        # At the optimum the dual value loses at most the slack, relatively; tight tolerances ask
        # for the optimum itself and not only for its value.
        wanted = self.tol / 2.0 if self.tol > 1e-7 else min(self.tol / 16.0, 1e-10)
        point, linear = self.reduction.condense(v)
        m, d = self.reduction.lines.shape
        size = float(np.abs(point) @ self.reduction.line_norms)
        rounding = rounding_slack(m, d, size, beta)
        rounding += rounding_slack(1, d, float(np.sqrt(linear @ linear)), beta)
        # The dual point itself is rounded.
        given = 2.0 * _EPS * float(np.abs(v) @ self.reduction.norms) / beta
        return max(wanted, 1e-13, rounding, given)

    def __call__(
        self,
        v: FloatArray,
        beta: float,
        *,
        exhaustive: bool = True,
        max_nodes: int | None = None,
        probing: bool = True,
    ) -> Priced:
        """Return the neurons wanted at v; ``probing`` says whether random starts are tried."""
        if self.reduction.crude(v) <= beta:
            return Priced([], 0.0, True, True)
        if self.cones is not None:
            return self._over_cones(self.cones, v, beta)
        X, (point, linear) = self.X, self.reduction.condense(v)
        # Where the terms of repeated rows cancel, their sums have more digits.
        rows, weights = (X, v) if linear.any() else (self.reduction.lines, point)
        found: dict[tuple[int, bytes], tuple[float, FloatArray]] = {}

        # What the exhaustive search would not call a violation is none.
        slack = self.slack(v, beta)
        visible = max(1e-7, slack)

        def improve(sign: int, u: FloatArray, margin: float) -> None:
            u = u.copy()
            value = ascend(rows, sign * weights, u, 30)
            if value > beta * (1.0 + margin):
                key = (sign, (X @ u > 0.0).tobytes())
                if value > found.get(key, (0.0, u))[0]:
                    found[key] = (value, u)

        values = v @ self.features if probing else np.zeros(0)
        for sign in (1, -1) if probing else ():
            wide = len(values) // 25
            order = np.argpartition(-sign * values, wide)[:wide]
            for k in order:
                if sign * values[k] > 0.0:
                    improve(sign, self.probes[k], visible)
        directions = np.array([u for _, u in self.found]).reshape(-1, X.shape[1])
        values = v @ np.maximum(X @ directions.T, 0.0)
        for (sign, u), value in zip(self.found, values, strict=True):
            if sign * value > beta * (1.0 + visible):
                improve(sign, u, visible)
        exact = complete = False
        if exhaustive and not found:
            exact = complete = True
            # Close to an optimum few neurons are missing, and what is next to them is as large.
            most = 8 if probing else 2
            for sign in (self.sign, -self.sign):
                budget = int(min(max_nodes or self.budget, max(self.limit - self.nodes, 0)))
                directions, done, nodes = search_sphere(
                    self.reduction, v, sign, beta * (1.0 + slack), most, budget, self.coverings
                )
                self.nodes += nodes
                for u in directions:
                    improve(sign, u, 0.0)
                complete = complete and done and len(directions) == 0
                if found:
                    # The other sign can wait until this one is settled.
                    self.sign = sign
                    break
        best = sorted(
            ((value, sign, u) for (sign, _), (value, u) in found.items()), key=lambda t: -t[0]
        )[: 2 * _MAX_NEW]
        self.found = [*self.found, *((sign, u) for _, sign, u in best)][-200:]
        nothing = np.zeros(X.shape[0], dtype=bool)
        wanted = [Wanted(s, u * (value - beta), X @ u > 0.0, nothing) for value, s, u in best]
        return Priced(wanted, best[0][0] / beta - 1.0 if best else 0.0, exact, complete)

    def _over_cones(self, cones: ConeSearch, v: FloatArray, beta: float) -> Priced:
        wanted = []
        largest = 0.0
        complete = True
        threshold = beta * (1.0 + self.slack(v, beta))
        for sign in (1, -1):
            values, nearest = cones(v, sign, threshold)
            for k in np.argsort(-values)[:_MAX_NEW]:
                if values[k] <= threshold:
                    break
                rows = cones.support[sign][k]
                tight = np.zeros(len(self.X), dtype=bool)
                tight[rows[rows >= 0]] = True
                u = nearest[k] / values[k]
                active = cones.patterns[k]
                value = sign * v @ np.where(active & ~tight, self.X @ u, 0.0)
                if value <= beta or tight.sum() >= self.X.shape[1]:
                    # Where rows are nearly parallel, what is left of the projection is rounding.
                    complete = False
                    continue
                largest = max(largest, values[k] / beta - 1.0)
                wanted.append(Wanted(sign, u * (values[k] - beta), active, tight))
        return Priced(wanted, largest, True, complete)
