r"""The widest separation of labelled points, and the nearest point that separates them.

With rows $z_i=y_ix_i$ of a matrix Z, the projection of a point $w_0$ onto the
separators is

$$\min_w\tfrac12\|w-w_0\|^2\ \text{ s.t. }\ Zw\ge1,\qquad
w=w_0+Z^\top a,\ a\ge0,\ a_i(z_i^\top w-1)=0,$$

and $w_0=0$ gives the separator of largest margin
$\gamma=\max_{\|w\|=1}\min_iz_i^\top w$. Both sides bound each other: every w has
$\min_iz_i^\top w/\|w\|\le\gamma$, and every probability vector p has
$\gamma\le\|Z^\top p\|$. Where no w separates, some p has $Z^\top p=0$ (Farkas).

The method is an active set that ends after finitely many steps. What is said of margins is
proved: in exact arithmetic, from the floats that are returned.

Papers: tyurin2024-from, gupta2021-logit (the margin in their bounds)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real, refuses_overflow
from theorylab.implicit_regularization import _margin_proofs as proofs
from theorylab.implicit_regularization._least_distance import (
    EPS,
    Ending,
    combination,
    least_distance,
    precisely,
)
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "MarginProjection",
    "MarginStatus",
    "MarginVerdict",
    "MaxMargin",
    "margin_projection",
    "max_margin",
]


class MarginStatus(StrEnum):
    """How a search for a separator ended."""

    CERTIFIED = "the two bounds agree to tol"
    NOT_SEPARABLE = "no separator: a convex combination of the rows is proved to vanish"
    UNDECIDED = (
        "not decided to tol: the margin is too small for float64, or max_iter for the active set"
    )
    STOPPED = "stopped by the callback, with the bounds that were proved by then"


class MarginVerdict(StrEnum):
    """What an exact check of a margin found."""

    ACCEPTED = "accepted"
    GAP = "the bounds differ by more than tol"
    SIGN = "a multiplier is negative, or all vanish"
    SEPARATION = "the weights do not separate the points"
    COMBINATION = "no convex combination of the rows was proved to vanish"

    @property
    def accepted(self) -> bool:
        """Whether both bounds, or that there is no separator, were proved."""
        return self is MarginVerdict.ACCEPTED


@result
class MarginProjection:
    r"""The separator nearest to a point.

    Attributes
    ----------
    weights
        w, shape (d,); the start where there is no separator.
    multipliers
        a, shape (n,), $w=w_0+Z^\top a$; where there is no separator, weights of a convex
        combination of the rows that vanishes.
    distance
        $\|w-w_0\|$, infinite without a separator.
    distance_bound
        $a^\top(1-Zw_0)/\|Z^\top a\|$, which no separator is nearer than.
    violation
        $\max_i(1-z_i^\top w)$, or 0 if that is negative.
    status
        How the search ended.
    """

    weights: FloatArray
    multipliers: FloatArray
    distance: float
    distance_bound: float
    violation: float
    status: MarginStatus

    @property
    def gap(self) -> float:
        """Difference of distance and bound, relative to the distance."""
        if self.distance == self.distance_bound:
            return 0.0
        return abs(1 - self.distance_bound / self.distance) if self.distance else np.inf

    @property
    def support(self) -> NDArray[np.intp]:
        """Indices of the rows with a positive multiplier."""
        return np.flatnonzero(self.multipliers > 0)


@result
class MaxMargin:
    r"""The separator of largest margin.

    Attributes
    ----------
    weights, intercept
        w, shape (d,), and b, with $\min_iy_i(w^\top x_i+b)=1$; zeros where
        no separator was found.
    multipliers
        a, shape (n,), $w=\sum_ia_iy_ix_i$; where nothing separates, weights of a convex
        combination of the $y_ix_i$ that vanishes, to their rounding.
    margin
        $\min_iy_i(w^\top x_i+b)/\|w\|$, which is attained, rounded down; 0 where no
        separator was found.
    margin_bound
        $\|Z^\top a\|/\sum a$, which no separator exceeds, rounded up.
    status
        How the search ended.
    X, y, tol, has_intercept
        What was asked.
    """

    weights: FloatArray
    intercept: float
    multipliers: FloatArray
    margin: float
    margin_bound: float
    status: MarginStatus
    X: FloatArray
    y: FloatArray
    tol: float
    has_intercept: bool

    @property
    def gap(self) -> float:
        """Difference of the bounds relative to the upper one."""
        return max(1 - self.margin / self.margin_bound, 0.0) if self.margin_bound else 0.0

    @property
    def support(self) -> NDArray[np.intp]:
        """Indices of the points with a positive multiplier."""
        return np.flatnonzero(self.multipliers > 0)

    def verify(self) -> MarginVerdict:
        """Prove in exact arithmetic, from the weights and multipliers alone, that the largest
        margin lies between two numbers that differ by at most ``tol``, relatively; or, if the
        status is NOT_SEPARABLE, that nothing separates the points."""
        a, y = self.multipliers, self.y
        used = y[a > 0]
        if (a < 0).any() or not used.size or (self.has_intercept and abs(used.sum()) == used.size):
            return MarginVerdict.SIGN
        if self.status is MarginStatus.NOT_SEPARABLE:
            proved = proofs.vanishes(_rows(self.X, y, self.has_intercept), a)
            return MarginVerdict.ACCEPTED if proved else MarginVerdict.COMBINATION
        low = proofs.attained(self.X, y, self.weights, self.intercept)
        if not low:
            return MarginVerdict.SEPARATION
        high = proofs.exceeded_by_none(self.X, y, a, self.has_intercept)
        return MarginVerdict.ACCEPTED if _close(low, high, self.tol) else MarginVerdict.GAP


@refuses_overflow("Z", "start", infinite=True)
def margin_projection(
    Z: ArrayLike,
    start: ArrayLike,
    *,
    tol: float = 1e-9,
    max_iter: int = 10_000,
    callback: Callback | None = None,
) -> MarginProjection:
    r"""Return the point nearest to ``start`` at which $Zw\ge1$.

    Parameters
    ----------
    Z
        (n, d), rows $y_ix_i$.
    start
        (d,), $w_0$.
    tol
        Largest relative gap of a certified solution, and its largest violation over
        $1+\max_i|z_i|^\top|w_0|$.
    max_iter
        Steps of the active set, for each of at most 60 working sets.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` after each working set: the
        distance, and the largest violation; where it returns True, the search stops.

    Examples
    --------
    >>> from theorylab.implicit_regularization import margin_projection
    >>> found = margin_projection([[1.0, 1.0], [0.0, 4.0]], [2.0, -3.0])
    >>> found.weights, found.support.tolist()
    (array([2.  , 0.25]), [1])
    """
    A = as_array(Z, "Z", ndim=2)
    w0 = as_array(start, "start", shape=(A.shape[1],))
    accuracy = as_real(tol, "tol", minimum=1e-14, maximum=0.1)
    steps = as_count(max_iter, "max_iter")
    stops = watcher(callback)
    e = binary_exponent(A)
    S, s0 = np.ldexp(A, -e), np.ldexp(w0, e)
    wide, start_ = S.astype(np.longdouble), s0.astype(np.longdouble)
    h = np.asarray(1 - wide @ start_, dtype=float)
    if not np.isfinite(h).all():
        raise OverflowError
    if h.max() <= 0:
        return MarginProjection(w0.copy(), np.zeros(len(A)), 0.0, 0.0, 0.0, MarginStatus.CERTIFIED)
    x, a, ending = least_distance(S, h, steps, stops=_in_units(stops, -e))
    if ending is Ending.NO_POINT:
        p, worst = a / a.sum(), float(h.max())
        status = MarginStatus.NOT_SEPARABLE if proofs.vanishes(A, p) else _warned(ending)
        bound = np.inf if status is MarginStatus.NOT_SEPARABLE else 0.0
        return MarginProjection(w0.copy(), p, np.inf, bound, worst, status)
    distance, back = float(np.linalg.norm(x)), precisely(S, a)
    bound = max(float(a @ h / np.linalg.norm(back)), 0.0) if back.any() else 0.0
    w = s0 + x
    missed = max(float((1 - wide @ w.astype(np.longdouble)).max()), 0.0)
    # A budget that was too small for any step leaves the start, at distance 0.
    slack = EPS * (1 + float(np.abs(s0).max()))
    good = distance > 0 and abs(distance - bound) <= accuracy * distance + slack
    good = good and missed <= accuracy * (1 + float((np.abs(S) @ np.abs(s0)).max()))
    multipliers = _scaled(a, -e)
    return MarginProjection(
        np.ldexp(w, -e),
        multipliers,
        float(np.ldexp(distance, -e)),
        float(np.ldexp(bound, -e)),
        missed,
        MarginStatus.CERTIFIED if good and ending is not Ending.STOPPED else _warned(ending),
    )


@refuses_overflow("X")
def max_margin(
    X: ArrayLike,
    y: ArrayLike,
    *,
    intercept: bool = False,
    tol: float = 1e-9,
    max_iter: int = 10_000,
    callback: Callback | None = None,
) -> MaxMargin:
    r"""Return the hyperplane that separates two classes by the largest margin.

    Parameters
    ----------
    X, y
        (n, d) points, and (n,) labels -1 and 1.
    intercept
        Whether the hyperplane may miss the origin; then both classes are needed.
    tol
        Largest relative gap of a certified solution.
    max_iter
        Steps of the active set, for each of at most 60 working sets.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` after each working set: the
        norm of the weights, and the largest violation; where it returns True, the search stops.

    Examples
    --------
    >>> from theorylab.implicit_regularization import max_margin
    >>> found = max_margin([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0]], [-1, -1, 1], intercept=True)
    >>> round(found.margin, 12), found.weights.round(12), found.verify().accepted
    (2.0, array([0.5, 0. ]), True)
    """
    points = as_array(X, "X", ndim=2)
    labels = as_array(y, "y", shape=(len(points),))
    if not np.isin(labels, (-1.0, 1.0)).all():
        odd = labels[~np.isin(labels, (-1.0, 1.0))][0]
        raise ValueError(f"y: expected labels -1 and 1, got {odd}")
    free = as_flag(intercept, "intercept")
    accuracy = as_real(tol, "tol", minimum=1e-14, maximum=0.1)
    steps = as_count(max_iter, "max_iter")
    stops = watcher(callback)
    if free and (labels == labels[0]).all():
        raise ValueError("y: expected both labels where there is an intercept, got one")
    e = binary_exponent(points)
    P = np.ldexp(points, -e)
    centre = np.zeros(P.shape[1])
    if free:
        centre = (P[labels > 0].mean(axis=0) + P[labels < 0].mean(axis=0)) / 2
        P = P - centre
        shift = binary_exponent(P)
        P, centre, e = np.ldexp(P, -shift), np.ldexp(centre, -shift), e + shift
    Z = labels[:, None] * P
    sides = labels if free else None
    w, a, ending = least_distance(Z, np.ones(len(Z)), steps, sides, _in_units(stops, -e))
    asked: tuple[Any, ...] = (points, labels, accuracy, free)
    for s in (1, -1) if free else ():
        if not a[labels == s].any():  # no bound without both
            a = a + (labels == s)
    p, none = a / a.sum(), np.zeros(P.shape[1])

    def bound() -> float:
        return proofs.root(proofs.exceeded_by_none(points, labels, p, free), up=True)

    if ending is Ending.NO_POINT and proofs.vanishes(_rows(points, labels, free), p):
        return MaxMargin(none, 0.0, p, 0.0, bound(), MarginStatus.NOT_SEPARABLE, *asked)
    scores = np.asarray(P.astype(np.longdouble) @ w.astype(np.longdouble))
    b = -float(scores[labels > 0].min() + scores[labels < 0].max()) / 2 if free else 0.0
    least = float((labels * (scores + b)).min())
    if least <= 0 and ending is not Ending.STOPPED:
        other = combination(np.concatenate([Z, labels[:, None]], axis=1) if free else Z, steps)
        if proofs.vanishes(_rows(points, labels, free), other):
            square = proofs.exceeded_by_none(points, labels, other, free)
            end, status = proofs.root(square, up=True), MarginStatus.NOT_SEPARABLE
            return MaxMargin(none, 0.0, other, 0.0, end, status, *asked)
    if least <= 0:
        return MaxMargin(none, 0.0, p, 0.0, bound(), _warned(ending), *asked)
    w, b, a = w / least, b / least, a / least
    offset = b - float(w @ centre)
    w, a = np.ldexp(w, -e), _scaled(a, -e)
    low = proofs.attained(points, labels, w, offset)
    margin = proofs.root(low, up=False)
    if not margin:
        return MaxMargin(none, 0.0, p, 0.0, bound(), _warned(ending), *asked)
    high = proofs.exceeded_by_none(points, labels, a, free)
    good = ending is not Ending.STOPPED and _close(low, high, accuracy)
    status = MarginStatus.CERTIFIED if good else _warned(ending)
    return MaxMargin(w, offset, a, margin, proofs.root(high, up=True), status, *asked)


def _close(low: Fraction, high: Fraction, tol: float) -> bool:
    """Whether bounds of the squared margin are as close as asked."""
    return high <= (1 + Fraction(tol)) ** 2 * low


def _scaled(a: FloatArray, e: int) -> FloatArray:
    """Return the multipliers over the square of a unit, which may not be within float64."""
    out = np.ldexp(np.ldexp(a, e), e)
    if not np.isfinite(out).all() or (out[a > 0] == 0).any():
        raise OverflowError
    return out


def _rows(X: FloatArray, y: FloatArray, free: bool) -> FloatArray:
    """Return the rows whose convex combinations vanish only where nothing separates."""
    return np.concatenate([y[:, None] * X, y[:, None]], axis=1) if free else y[:, None] * X


def _in_units(stops: Callable[..., bool], e: int) -> Callable[..., bool]:
    """Tell lengths times 2^e."""
    return lambda round_, length, error: stops(round_, float(np.ldexp(length, e)), error)


def _warned(ending: Ending) -> MarginStatus:
    stopped = ending is Ending.STOPPED
    status = MarginStatus.STOPPED if stopped else MarginStatus.UNDECIDED
    warnings.warn(status.value, RuntimeWarning, stacklevel=4)
    return status
