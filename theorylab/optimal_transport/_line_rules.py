r"""Classifiers of the line under an adversary: their risk, proofs of optimality, and the flow of
their boundaries with the budget.

With densities $f_0,f_1$ that include the class weights, a boundary b between l on its left
and r on its right is stationary iff $f_l(b-\epsilon)=f_r(b+\epsilon)$, hence

$$\dot b=\frac{f_l'(b-\epsilon)+f_r'(b+\epsilon)}{f_l'(b-\epsilon)-f_r'(b+\epsilon)},$$

each boundary by itself while they are more than $2\epsilon$ apart. Radial laws with radial
boundaries are the same problem in $|x|$, as rays carry the matching.

A rule is proved optimal by matching what it misses with what it keeps: by Hall's theorem in each of
its regions, where the neighbourhoods are intervals, so that the unmatched mass is a largest sum of
differences over disjoint intervals.

Theorem: trillos2020-adversarial (the conditions, the flow)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real
from theorylab.numerics.results import result
from theorylab.optimal_transport._line_laws import LineLaw

__all__ = [
    "BoundaryFlow",
    "LineRule",
    "Stationarity",
    "boundary_flow",
    "line_risk",
    "matching_bound",
    "optimal_rule",
    "stationarity",
]

_NODES = 10_001  # where the unmatched mass is looked for, and sign changes of the condition
_FLAT = 1e-4  # relative curvature of the risk at which a branch ends
_DRIFT = 1e-3  # relative error of the condition on a branch
_COARSE = 4_001


@result
class LineRule:
    """A classifier of the line: increasing boundaries, and the class left of the first; the classes
    alternate.

    Examples
    --------
    >>> from theorylab.optimal_transport import LineRule
    >>> LineRule([-1.0, 2.0], 0).first
    0
    """

    boundaries: ArrayLike
    first: int = 0

    def __post_init__(self) -> None:
        b = as_array(self.boundaries, "boundaries", ndim=1, allow_empty=True).copy()
        if (np.diff(b) <= 0).any():
            raise ValueError(f"boundaries: expected increasing numbers, got {b.tolist()}")
        b.setflags(write=False)
        object.__setattr__(self, "boundaries", b)
        object.__setattr__(self, "first", as_count(self.first, "first", minimum=0, maximum=1))

    def __repr__(self) -> str:
        return f"<LineRule {self.first} left of {np.asarray(self.boundaries).tolist()}>"

    def _regions(self) -> list[tuple[int, float, float]]:
        ends = [-np.inf, *np.asarray(self.boundaries).tolist(), np.inf]
        return [((self.first + k) % 2, *ends[k : k + 2]) for k in range(len(ends) - 1)]


def line_risk(class0: LineLaw, class1: LineLaw, rule: LineRule, eps: float) -> float:
    """Return the adversarial risk of a rule: the mass of each class within eps of the other's
    region.

    Parameters
    ----------
    class0, class1
        The laws, with the weights of the classes.
    rule
        The classifier.
    eps
        Distance by which each point may be moved.

    Examples
    --------
    >>> from theorylab.optimal_transport import LineRule, NormalMixture, line_risk
    >>> left, right = (NormalMixture([0.5], [m], [1.0]) for m in (-1.0, 1.0))
    >>> round(line_risk(left, right, LineRule([0.0], 0), 1.0), 12)
    0.5
    """
    laws, eps = _laws(class0, class1), as_real(eps, "eps", minimum=0.0)
    risk = 0.0
    for label, law in enumerate(laws):
        reach = -np.inf
        for other, lo, hi in as_instance(rule, "rule", LineRule)._regions():
            if other != label:
                start = max(lo - eps, reach)
                reach = hi + eps
                risk += float(law.mass(reach) - law.mass(start))
    return risk


def matching_bound(class0: LineLaw, class1: LineLaw, rule: LineRule, eps: float) -> float:
    """Return a lower bound of the risk of every classifier: the mass of a matching between what the
    rule misses and what it keeps.

    It is the risk of the rule, up to 1e-6 or so, iff the rule is optimal. What is
    unmatched is maximised over 10,000 nodes, and the most that can lie between nodes, from the
    slopes of the laws, is taken off.

    Parameters
    ----------
    class0, class1
        The laws, with the weights of the classes.
    rule
        A classifier whose boundaries are at least 2 eps apart.
    eps
        Distance by which each point may be moved.

    Examples
    --------
    >>> from theorylab.optimal_transport import LineRule, NormalMixture, matching_bound
    >>> left, right = (NormalMixture([0.5], [m], [1.0]) for m in (-1.0, 1.0))
    >>> round(matching_bound(left, right, LineRule([0.0], 0), 1.0), 6)
    0.5
    """
    laws, eps = _laws(class0, class1), as_real(eps, "eps", minimum=0.0)
    risk = line_risk(class0, class1, rule, eps)
    if (np.diff(np.asarray(rule.boundaries)) < 2 * eps).any():
        raise ValueError(f"rule: expected boundaries at least 2 eps = {2 * eps} apart, got {rule}")
    unmatched = sum(_unmatched(laws[1 - k], laws[k], lo, hi, eps) for k, lo, hi in rule._regions())
    return risk - unmatched


def _unmatched(missed: LineLaw, kept: LineLaw, lo: float, hi: float, eps: float) -> float:
    """Bound the mass of one class in (lo - eps, hi + eps) that finds no partner of the other in
    (lo + eps, hi - eps) within 2 eps.

    By Hall's theorem it is the largest sum, over disjoint intervals [u, v], of what is missed there
    less what is kept in [u - 2 eps, v + 2 eps]."""
    start, end = max(lo - eps, missed.ends[0]), min(hi + eps, missed.ends[1])
    if start >= end:
        return 0.0
    x = np.linspace(start, end, _NODES)
    step = x[1] - x[0]
    kinks = np.array([lo + 3 * eps, hi - 3 * eps, *kept.ends])
    kinks = np.concatenate([kinks, kinks[2:] - 2 * eps, kinks[2:] + 2 * eps])
    x = np.union1d(x, kinks[(kinks > start) & (kinks < end)])
    here = missed.mass(x)
    up = here - kept.mass(np.minimum(x + 2 * eps, hi - eps))
    down = here - kept.mass(np.maximum(x - 2 * eps, lo + eps))
    tops, bottoms = _peaks(up), _peaks(-down)
    # Between nodes a smooth function passes both of them by step^2 / 8 times its curvature there.
    bend = np.abs(missed.slope(x))
    over, under = (
        step**2 / 8 * _nearby(bend + np.abs(kept.slope(x + shift))) for shift in (2 * eps, -2 * eps)
    )
    done, held = 0.0, -np.inf
    for i in np.flatnonzero(tops | bottoms):
        held = max(held, done - down[i] + under[i])
        done = max(done, held + up[i] + over[i])
    return float(done)


def _nearby(values: FloatArray) -> FloatArray:
    """Return the largest of each value and its neighbours."""
    wide = np.pad(values, 1, mode="edge")
    return np.maximum(np.maximum(wide[:-2], wide[2:]), values)


def _peaks(values: FloatArray) -> NDArray[np.bool_]:
    """Mark local maxima, ends among them, and both ends of each level stretch that is one."""
    left = np.concatenate([[-np.inf], values[:-1]])
    right = np.concatenate([values[1:], [-np.inf]])
    return (values >= left) & (values >= right) & ((values > left) | (values > right))


@result
class Stationarity:
    """Density of the left class behind each boundary, of the right class ahead of it (equal where
    the risk is stationary), second derivative of the risk."""

    behind: FloatArray
    ahead: FloatArray
    curvature: FloatArray


def stationarity(class0: LineLaw, class1: LineLaw, rule: LineRule, eps: float) -> Stationarity:
    r"""Return $f_l(b-\epsilon)$, $f_r(b+\epsilon)$ and
    $f_r'(b+\epsilon)-f_l'(b-\epsilon)$ at each boundary, l and r the classes beside it.

    Parameters
    ----------
    class0, class1
        The laws, with the weights of the classes.
    rule
        The classifier.
    eps
        Distance by which each point may be moved.

    Examples
    --------
    >>> from theorylab.optimal_transport import LineRule, NormalMixture, stationarity
    >>> left, right = (NormalMixture([0.5], [m], [1.0]) for m in (-1.0, 1.0))
    >>> found = stationarity(left, right, LineRule([0.0]), 0.5)
    >>> bool(found.behind == found.ahead)
    True
    """
    laws, eps = _laws(class0, class1), as_real(eps, "eps", minimum=0.0)
    b = np.asarray(as_instance(rule, "rule", LineRule).boundaries)
    even = (np.arange(b.size) + rule.first) % 2 == 0
    x = np.where(even, b - eps, b + eps), np.where(even, b + eps, b - eps)
    values, slopes = (
        [getattr(law, name)(at) for law, at in zip(laws, x, strict=True)]
        for name in ("density", "slope")
    )
    return Stationarity(
        np.where(even, *values),
        np.where(even, *values[::-1]),
        np.where(even, slopes[1] - slopes[0], slopes[0] - slopes[1]),
    )


def optimal_rule(
    class0: LineLaw, class1: LineLaw, eps: float, *, max_boundaries: int | None = None
) -> LineRule:
    """Return the best rule whose boundaries are local minima of the risk at least 2 eps apart; at
    eps = 0, the Bayes classifier.

    Boundaries are looked for on 4,000 nodes; ``matching_bound`` tells whether a classifier of
    another kind could be better.

    Parameters
    ----------
    class0, class1
        The laws, with the weights of the classes.
    eps
        Distance by which each point may be moved.
    max_boundaries
        Look at rules with at most so many; any number by default.

    Examples
    --------
    >>> from theorylab.optimal_transport import NormalMixture, optimal_rule
    >>> left, right = (NormalMixture([0.5], [m], [1.0]) for m in (-1.0, 1.5))
    >>> optimal_rule(left, right, 0.1)
    <LineRule 0 left of [0.25]>
    """
    laws, eps = _laws(class0, class1), as_real(eps, "eps", minimum=0.0)
    if max_boundaries is not None:
        max_boundaries = as_count(max_boundaries, "max_boundaries", minimum=0)
    nodes = np.linspace(*_span(laws), _COARSE)
    found = []
    for s in (0, 1):

        def excess(b: Any, s: int = s) -> Any:
            return laws[s].density(b - eps) - laws[1 - s].density(b + eps)

        sign = np.sign(excess(nodes))
        for i, j in pairwise(np.flatnonzero(sign).tolist()):
            if sign[i] > 0 > sign[j]:
                b = float(brentq(excess, nodes[i], nodes[j], xtol=1e-300, rtol=1e-15))
                found.append((b, s, float(laws[1 - s].mass(b + eps) - laws[s].mass(b - eps))))
    found.sort()
    # Least cost of the rules of k + 1 boundaries that end at each one; what follows is added below.
    whole = [float(law.mass(np.inf)) for law in laws]
    ends: list[tuple[float, int, tuple[float, ...]]] = [(whole[1], 0, ()), (whole[0], 1, ())]
    last: list[tuple[float, int, tuple[float, ...]]] = [(cost, s, (b,)) for b, s, cost in found]
    for _ in range(len(found) if max_boundaries is None else min(max_boundaries, len(found))):
        ends += [(cost + whole[found[i][1]], s, path) for i, (cost, s, path) in enumerate(last)]
        last = [
            min(
                (
                    (cost + last[j][0], last[j][1], (*last[j][2], b))
                    for j in range(i)
                    if found[j][1] != s and b - found[j][0] >= 2 * eps
                ),
                default=(np.inf, 0, ()),
            )
            for i, (b, s, cost) in enumerate(found)
        ]
    _, first, boundaries = min(ends)
    return LineRule(boundaries, first)


@result
class BoundaryFlow:
    """Boundaries that move with the budget.

    Attributes
    ----------
    budgets
        (k,) budgets.
    boundaries
        (k, m); NaN beyond the end.
    first
        The class left of the first boundary.
    end
        Budget at which a boundary ceases to be a minimum (it turns back, or escapes) or two come
        within twice the budget; infinite if none does.
    """

    budgets: FloatArray
    boundaries: FloatArray
    first: int
    end: float

    def rule(self, index: int) -> LineRule:
        """Return the classifier at a budget before the end."""
        return LineRule(self.boundaries[index], self.first)

    def __repr__(self) -> str:
        k, m = self.boundaries.shape
        return f"<BoundaryFlow of {m} boundaries, {k} budgets, end {self.end:.6g}>"


def boundary_flow(
    class0: LineLaw, class1: LineLaw, rule: LineRule, budgets: ArrayLike
) -> BoundaryFlow:
    """Move the boundaries of a rule at budget 0 so that each stays stationary, by their flow.

    Parameters
    ----------
    class0, class1
        The laws, with the weights of the classes.
    rule
        The start: ``optimal_rule(class0, class1, 0.0)`` is the Bayes classifier.
    budgets
        (k,) increasing budgets at which the boundaries are wanted; the end is looked for up to the
        last of them.

    Examples
    --------
    >>> from theorylab.optimal_transport import NormalMixture, boundary_flow, optimal_rule
    >>> left, right = NormalMixture([0.6], [-1.0], [1.0]), NormalMixture([0.4], [1.0], [1.0])
    >>> start = optimal_rule(left, right, 0.0)  # at log(1.5) / 2, then log(1.5) / (2 - 2 eps)
    >>> boundary_flow(left, right, start, [0.0, 0.5]).boundaries.round(6).ravel().tolist()
    [0.202733, 0.405465]
    """
    laws = _laws(class0, class1)
    rule = as_instance(rule, "rule", LineRule)
    eps = as_array(budgets, "budgets", ndim=1, nonnegative=True)
    if (np.diff(eps) <= 0).any():
        raise ValueError(f"budgets: expected increasing numbers, got {eps.tolist()}")
    span = _span(laws)
    start = np.asarray(rule.boundaries)
    paths = np.full((eps.size, start.size), np.nan)
    end = np.inf
    for k, b in enumerate(start):
        left, right = laws[(rule.first + k) % 2], laws[(rule.first + k + 1) % 2]

        def speed(e: float, b: Any, left: LineLaw, right: LineLaw) -> Any:
            behind, ahead = left.slope(b - e), right.slope(b + e)
            return (behind + ahead) / (behind - ahead)

        def alive(e: float, b: Any, left: LineLaw, right: LineLaw) -> float:
            behind, ahead = b[0] - e, b[0] + e
            slopes = float(left.slope(behind)), float(right.slope(ahead))
            levels = float(left.density(behind)), float(right.density(ahead))
            total = abs(slopes[0]) + abs(slopes[1])
            if not total > 0 < min(levels):
                return -1.0
            # A minimum, and on its branch still: a step may pass over a pole.
            bend = (slopes[1] - slopes[0]) / total - _FLAT
            return min(bend, _DRIFT - abs(levels[1] - levels[0]) / sum(levels))

        alive.terminal = True  # type: ignore[attr-defined]
        if alive(0.0, [b], left, right) <= 0:
            raise ValueError(f"rule: expected boundaries that are minima at budget 0, got {b}")
        if eps[-1] == 0:
            paths[0, k] = b
            continue
        run: Any = solve_ivp(  # type: ignore[call-overload]
            speed,
            (0.0, eps[-1]),
            [b],
            method="DOP853",
            t_eval=eps,
            events=alive,
            args=(left, right),
            rtol=1e-11,
            atol=1e-13 * (span[1] - span[0]),
        )
        reached = len(run.t)  # an empty list if it ended before the first budget
        if reached:
            paths[:reached, k] = run.y[0]
        if run.status != 0:
            stopped = eps[reached - 1] if reached else 0.0
            end = min(end, float(run.t_events[0][0] if run.status == 1 else stopped))
    # A comparison with NaN is false: rows beyond the end of one boundary stay as they are.
    close = (np.diff(paths, axis=1) <= 2 * eps[:, None]).any(axis=1)
    if close.any():
        end = min(end, float(eps[np.argmax(close)]))
    paths[(eps >= end) | np.isnan(paths).any(axis=1)] = np.nan
    return BoundaryFlow(eps, paths, rule.first, end)


def _laws(class0: LineLaw, class1: LineLaw) -> tuple[LineLaw, LineLaw]:
    return as_instance(class0, "class0", LineLaw), as_instance(class1, "class1", LineLaw)


def _span(laws: tuple[LineLaw, LineLaw]) -> tuple[float, float]:
    ends = [law.ends for law in laws]
    return min(lo for lo, _ in ends), max(hi for _, hi in ends)
