r"""What a check returns, and the helpers that make it.

Every helper states how far the prediction could move before this very check would have said no: its
``resolution``. For an equality with measured value :math:`a`, prediction :math:`p` and allowed
error :math:`e`,

.. math:: \text{margin} = 1 - |a-p|/e, \qquad \text{resolution} = (e + |a-p|)/|p|,

so that multiplying :math:`p` by :math:`1\pm\delta`, :math:`\delta` above the resolution, is
rejected in either direction; of several entries moved together, the first to reject decides. For a
bound, :math:`\text{margin} = (b-a)/\max(|a|,|b|)` and the resolution is its looseness,
:math:`(b-a)/|b|`. A value that is not finite decides nothing: ``holds`` is None."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_function,
    as_instance,
    as_real,
    as_text,
    one_of,
)

__all__ = [
    "EQUALITY_RESOLUTION",
    "LEVEL",
    "Evidence",
    "Grade",
    "Relation",
    "all_of",
    "at_least",
    "at_most",
    "equal",
    "exact",
    "exhaustive",
    "gap",
    "inconclusive",
    "limit",
    "rate",
    "sample_mean",
    "threshold",
]

LEVEL = 1e-6
"""Probability with which a statistical check rejects a true claim."""

EQUALITY_RESOLUTION = 0.1
"""An equality that would have accepted a larger relative change of its prediction decides
nothing."""


class Grade(StrEnum):
    """How the evidence was obtained, best first."""

    SYMBOLIC = "symbolic"
    CERTIFIED = "certified"
    ENUMERATED = "enumerated"
    NUMERICAL = "numerical"
    STATISTICAL = "statistical"

    @property
    def rank(self) -> int:
        """Position in the list of grades; 0 is the best."""
        return list(Grade).index(self)


class Relation(StrEnum):
    """What the check compares."""

    TIGHT = "tight"
    UPPER = "upper"
    LOWER = "lower"
    RATE = "rate"
    EXACT = "exact"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The outcome of one check.

    Attributes
    ----------
    holds
        True, False, or None where the check cannot decide.
    margin
        At most 1; only its sign is compared. NaN where ``holds`` is None.
    resolution
        Smallest change of the prediction (relative, or absolute for an exponent) that this check
        would have rejected.
    measured, predicted
        The two sides; where arrays were compared, those of the worst entry.
    relation, grade
        What was compared, and how it was obtained.
    detail
        One sentence for a reader: where the tolerance comes from, exact values, why nothing was
        decided.
    data
        Arrays for the panel; not part of the record.
    """

    holds: bool | None
    margin: float
    resolution: float
    measured: float
    predicted: float
    relation: Relation
    grade: Grade
    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        as_instance(self.relation, "relation", Relation)
        as_instance(self.grade, "grade", Grade)
        as_instance(self.data, "data", Mapping)
        for name in ("margin", "resolution", "measured", "predicted"):
            as_instance(getattr(self, name), name, Real)

    @property
    def decides(self) -> bool:
        """Whether the check came to a finite yes or no whose sign agrees with the margin."""
        return (
            self.holds is not None
            and math.isfinite(self.margin)
            and self.holds == (self.margin >= 0)
        )

    def with_data(self, **data: Any) -> "Evidence":
        """Return the same evidence with arrays for the panel added."""
        return replace(self, data={**self.data, **data})


def inconclusive(
    why: str,
    *,
    relation: Relation = Relation.TIGHT,
    grade: Grade = Grade.NUMERICAL,
    measured: float = math.nan,
    predicted: float = math.nan,
    resolution: float = math.inf,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Evidence that decides nothing, and says why."""
    return Evidence(
        holds=None,
        margin=math.nan,
        resolution=resolution,
        measured=measured,
        predicted=predicted,
        relation=relation,
        grade=grade,
        detail=as_text(why, "why"),
        data=data or {},
    )


def equal(
    measured: ArrayLike,
    predicted: ArrayLike,
    *,
    error: ArrayLike,
    source: str,
    scale: ArrayLike | None = None,
    grade: Grade = Grade.NUMERICAL,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Judge an equality up to a named error.

    Parameters
    ----------
    measured, predicted
        Numbers or arrays that broadcast together; the worst entry decides.
    error
        Allowed absolute error, positive, from the method's own analysis, never from ``measured``.
    source
        Where that error comes from: rounding, discretisation, truncation, a stated remainder.
    scale
        What the resolution is relative to, where the prediction is 0; by default
        ``abs(predicted)``.
    grade, data
        Passed into the evidence.

    Raises
    ------
    ValueError
        If ``predicted`` or ``error`` is not finite, ``error`` is not positive, or ``source`` is
        empty.
    """
    p = as_array(predicted, "predicted")
    allowed = as_array(error, "error", positive=True)
    as_text(source, "source")
    a = _numbers(measured, "measured")
    reference = np.abs(p) if scale is None else as_array(scale, "scale", nonnegative=True)
    a, p, allowed, reference = _broadcast(measured=a, predicted=p, error=allowed, scale=reference)
    if not np.isfinite(a).all():
        return inconclusive("the measured value is not finite", grade=grade, data=data)
    with np.errstate(over="ignore"):
        error_towards = (a - p) * np.where(p < 0, -1.0, 1.0)
        margins = 1 - np.abs(error_towards) / allowed
        resolution = max(
            float(np.min(_ratio(allowed + side * error_towards, reference))) for side in (1.0, -1.0)
        )
    worst = np.unravel_index(np.argmin(margins), a.shape)
    margin = _finite(float(margins[worst]))
    return Evidence(
        holds=margin >= 0,
        margin=margin,
        resolution=resolution,
        measured=float(a[worst]),
        predicted=float(p[worst]),
        relation=Relation.TIGHT,
        grade=grade,
        detail=f"allowed error: {source}",
        data=data or {},
    )


def at_most(
    measured: ArrayLike,
    bound: ArrayLike,
    *,
    rounding: float = 1e-12,
    grade: Grade = Grade.NUMERICAL,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Judge ``measured <= bound``; the resolution is the looseness of the bound where it is
    tightest.

    Parameters
    ----------
    measured, bound
        Numbers or arrays that broadcast together; the worst entry decides.
    rounding
        Relative rounding error of the two computed sides, at most 1e-6, so that a bound that is
        attained is not rejected.
    grade, data
        Passed into the evidence.

    Raises
    ------
    ValueError
        If ``bound`` is not finite or ``rounding`` is negative or above 1e-6.
    """
    b = as_array(bound, "bound")
    return _bound(_numbers(measured, "measured"), b, 1.0, Relation.UPPER, rounding, grade, data)


def at_least(
    measured: ArrayLike,
    bound: ArrayLike,
    *,
    rounding: float = 1e-12,
    grade: Grade = Grade.NUMERICAL,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Judge ``measured >= bound``; as :func:`at_most`, from below."""
    b = as_array(bound, "bound")
    return _bound(_numbers(measured, "measured"), b, -1.0, Relation.LOWER, rounding, grade, data)


def limit(
    measured: ArrayLike,
    predicted: float,
    *,
    remainder: ArrayLike,
    source: str,
    grade: Grade = Grade.NUMERICAL,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Judge that a sequence tends to ``predicted`` with a stated remainder at every recorded size.

    Parameters
    ----------
    measured
        Shape (n,): the sequence, sizes increasing.
    predicted
        The limit.
    remainder
        Shape (n,): bound of ``abs(measured - predicted)`` that the theory gives at each size.
    source
        Where the remainder comes from.
    grade, data
        Passed into the evidence.

    Returns
    -------
    Evidence
        Inconclusive where even the last remainder is above 10 % of the limit: the asymptotic range
        was not reached.
    """
    limit_value = as_real(predicted, "predicted")
    values = np.atleast_1d(_numbers(measured, "measured"))
    if values.ndim != 1:
        raise ValueError(f"measured: expected shape (n,), got {values.shape}")
    bounds = as_array(remainder, "remainder", shape=values.shape, positive=True)
    evidence = equal(values, limit_value, error=bounds, source=source, grade=grade, data=data)
    if evidence.holds and bounds[-1] > EQUALITY_RESOLUTION * abs(limit_value):
        return inconclusive(
            "the asymptotic range is not reached: the last remainder exceeds 10 % of the limit",
            grade=grade,
            measured=float(values[-1]),
            predicted=limit_value,
            resolution=evidence.resolution,
            data=data,
        )
    return evidence


def rate(
    x: ArrayLike,
    y: ArrayLike,
    exponent: float,
    *,
    rival: float,
    scale: Literal["log", "linear"] = "log",
    floor: float = 0.0,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    r"""Judge a rate by its local slopes on the asymptotic half of the record.

    ``scale="log"`` judges :math:`y\sim Cx^p` by slopes of :math:`\log y` against :math:`\log x`,
    ``scale="linear"`` judges :math:`y\sim Ce^{px}` by slopes against :math:`x`. The range is fixed
    before any slope is seen: the upper half of the record on that scale, without the values at or
    below ``floor`` (and without anything after the first of them). The interval spans the local
    slopes of the range, extended in the direction in which they drift from its first to its second
    half: this covers the limit whenever the remainder halves over the range, geometrically or like
    a power or a logarithm. With several rows of ``y`` (independent repetitions) the interval is a
    Student interval at level 1e-6 of the mean slope over rows, extended for a remainder that falls
    to a quarter; the level does not count the noise of that extension.

    Parameters
    ----------
    x
        Shape (n,), increasing (positive on the log scale).
    y
        Shape (n,) or (repetitions, n), positive.
    exponent
        The predicted p.
    rival
        The exponent that the interval must exclude; the evidence is inconclusive when it does not.
    scale
        ``"log"`` for a power law (the resolution is absolute), ``"linear"`` for geometric decay (it
        is relative).
    floor
        Level of rounding or statistical noise below which ``y`` says nothing.
    data
        Passed into the evidence.

    Raises
    ------
    ValueError
        If ``x`` is not increasing, shapes differ, or ``exponent`` equals ``rival``.
    """
    abscissa = as_array(x, "x", ndim=1, positive=scale == "log")
    one_of(scale, "scale", ("log", "linear"))
    p, other = as_real(exponent, "exponent"), as_real(rival, "rival")
    noise = as_real(floor, "floor", minimum=0.0)
    if (np.diff(abscissa) <= 0).any():
        raise ValueError("x: expected increasing values")
    if p == other:
        raise ValueError(f"rival: expected an exponent other than {p}")
    if p == 0 and scale == "linear":
        raise ValueError(
            "exponent: expected a rate other than 0 on the linear scale, where the "
            "resolution is relative to it"
        )
    rows = np.atleast_2d(_numbers(y, "y"))
    if rows.ndim != 2 or rows.shape[1] != abscissa.size:
        raise ValueError(
            f"y: expected shape ({abscissa.size},) or (repetitions, {abscissa.size}), "
            f"got {np.shape(y)}"
        )
    grade = Grade.NUMERICAL if len(rows) == 1 else Grade.STATISTICAL

    def undecided(why: str, resolution: float = math.inf) -> Evidence:
        return inconclusive(
            why, relation=Relation.RATE, grade=grade, predicted=p, resolution=resolution, data=data
        )

    if not np.isfinite(rows).all():
        return undecided("the record is not finite")
    above = (rows > noise).all(axis=0)
    length = abscissa.size if above.all() else int(np.argmin(above))
    t = np.log(abscissa[:length]) if scale == "log" else abscissa[:length]
    keep = t >= (t[0] + t[-1]) / 2 if length else np.zeros(0, bool)
    if keep.sum() < 5:
        return undecided("fewer than five points in the asymptotic half of the record")
    t, logs = t[keep], np.log(rows[:, :length][:, keep])
    middle = int(np.argmin(np.abs(t - (t[0] + t[-1]) / 2)))
    early, late = (
        float((logs[:, j] - logs[:, i]).mean() / (t[j] - t[i]))
        for i, j in ((0, middle), (middle, -1))
    )
    # A remainder (geometric, or 1/t) that halves over the range ends 2.0 to 2.1 drifts from the
    # limit; the mean of one that falls to a quarter is 1.5 to 1.6 drifts away.
    if len(rows) == 1:
        slopes = np.diff(logs[0]) / np.diff(t)
        lo, hi, reach = float(slopes.min()), float(slopes.max()), 2.2 * (late - early)
    else:
        means = (logs[:, -1] - logs[:, 0]) / (t[-1] - t[0])
        half = _student(len(rows)) * float(means.std(ddof=1)) / math.sqrt(len(rows))
        lo, hi, reach = float(means.mean()) - half, float(means.mean()) + half, 1.6 * (late - early)
    # The span of rounding in log y keeps a record that follows the law exactly from having an empty
    # interval.
    slack = 4 * np.finfo(float).eps * float(np.abs(logs).max() + 1) / float(np.diff(t).min())
    lo, hi = lo + min(reach, 0.0) - slack, hi + max(reach, 0.0) + slack
    centre, half = (lo + hi) / 2, (hi - lo) / 2
    resolution = (half + abs(centre - p)) / (1.0 if scale == "log" else abs(p))
    if lo <= p <= hi and lo <= other <= hi:
        return undecided(
            f"the interval [{lo:.4g}, {hi:.4g}] also contains the rival {other:g}", resolution
        )
    margin = float(1 - abs(centre - p) / half)
    return Evidence(
        holds=margin >= 0,
        margin=margin,
        resolution=resolution,
        measured=centre,
        predicted=p,
        relation=Relation.RATE,
        grade=grade,
        detail=f"slopes of the upper half of the record on a {scale} scale span [{lo:.6g}, "
        f"{hi:.6g}]; rival {other:g}",
        data=data or {},
    )


def threshold(
    occurs: Callable[[float], bool | None],
    predicted: float,
    *,
    bracket: tuple[float, float],
    tol: float = 1e-3,
    grade: Grade = Grade.NUMERICAL,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Judge where a property switches, by bisection.

    Parameters
    ----------
    occurs
        The property, True or False, as a function of the parameter; None where it cannot be
        decided. It is taken to switch once: of several switching points the bisection finds one.
    predicted
        The predicted switching point, inside ``bracket`` and not 0.
    bracket
        Interval in which it is looked for. A property that does not switch between its ends
        contradicts the prediction.
    tol
        Width, relative to ``predicted``, of the final bracket, which must contain the prediction.
    grade, data
        Passed into the evidence.

    Raises
    ------
    ValueError
        If ``predicted`` is not inside ``bracket`` or is 0, ``tol`` is not positive, or ``occurs``
        returns something else.
    """
    p = as_real(predicted, "predicted")
    as_function(occurs, "occurs")
    lo, hi = as_array(bracket, "bracket", shape=(2,)).tolist()
    relative = as_real(tol, "tol", above=0.0)
    if not lo < p < hi:
        raise ValueError(f"predicted: expected a value inside the bracket ({lo}, {hi}), got {p}")
    if p == 0:
        raise ValueError(
            "predicted: expected a switching point other than 0 (the width is "
            "relative to it); shift the parameter"
        )

    def state_at(x: float) -> bool | None:
        state = occurs(x)
        return None if state is None else as_flag(state, "occurs")

    below, beyond = state_at(lo), state_at(hi)
    undecided = "the property could not be decided at"
    if below is None or beyond is None:
        return inconclusive(
            f"{undecided} an end of the bracket", grade=grade, predicted=p, data=data
        )
    if below == beyond:
        return Evidence(
            holds=False,
            margin=-1.0,
            resolution=(hi - lo) / abs(p),
            measured=hi if below else lo,
            predicted=p,
            relation=Relation.TIGHT,
            grade=grade,
            detail=f"the property is {below} at both ends of [{lo:g}, {hi:g}]",
            data=data or {},
        )
    while hi - lo > relative * abs(p):
        middle = (lo + hi) / 2
        if middle in (lo, hi):
            break
        state = state_at(middle)
        if state is None:
            return inconclusive(f"{undecided} {middle:.6g}", grade=grade, predicted=p, data=data)
        lo, hi = (middle, hi) if state == below else (lo, middle)
    return equal(
        (lo + hi) / 2,
        p,
        error=(hi - lo) / 2 + np.finfo(float).eps * abs(p),
        source=f"half the final bracket [{lo:.8g}, {hi:.8g}] of the bisection",
        grade=grade,
        data=data,
    )


def gap(
    primal: float,
    dual: float,
    *,
    tol: float = 1e-8,
    rounding: float = 1e-12,
    grade: Grade = Grade.CERTIFIED,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Judge optimality by the relative duality gap ``(primal - dual) / max(abs(primal),
    abs(dual))``.

    Parameters
    ----------
    primal
        Objective of a feasible point of a minimisation.
    dual
        Certified lower bound.
    tol
        Largest relative gap that counts as solved.
    rounding
        Relative rounding error of the two values; a dual value further above the primal one
        contradicts weak duality, so it is rejected.
    grade, data
        Passed into the evidence; ``certified`` is right only if the dual point was checked apart
        from the solver.

    Raises
    ------
    ValueError
        If ``dual`` is not finite or ``tol`` is not positive.
    """
    bound = as_real(dual, "dual")
    allowed = as_real(tol, "tol", above=0.0)
    noise = as_real(rounding, "rounding", above=0.0)
    numbers = _numbers(primal, "primal")
    if numbers.size != 1:
        raise ValueError(f"primal: expected one number, got shape {numbers.shape}")
    value = numbers.item()
    if not math.isfinite(value):
        return inconclusive(
            "the primal value is not finite", grade=grade, predicted=bound, data=data
        )
    size = max(abs(value), abs(bound))
    relative = (value - bound) / size if size else 0.0
    margin = 1 - max(relative, 0.0) / allowed if relative >= -noise else relative / noise
    return Evidence(
        holds=margin >= 0,
        margin=_finite(margin),
        resolution=max(allowed, noise) + abs(relative),
        measured=value,
        predicted=bound,
        relation=Relation.TIGHT,
        grade=grade,
        detail=f"relative duality gap {relative:.2e}, allowed {allowed:.0e}",
        data=data or {},
    )


def exact(
    measured: Any,
    relation: Literal["==", "<=", "<", ">=", ">"],
    predicted: Any,
    *,
    grade: Grade | None = None,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Compare two exact numbers: int, Fraction, SymPy expressions, python-flint integers, rationals
    or balls (``arb``).

    A float is refused, also inside an expression: it is not exact. Two balls that overlap decide
    nothing, unless both are exact. SymPy expressions with free symbols are compared for the whole
    family at once, by an order only where their symbols' assumptions give the sign of the
    difference.

    Parameters
    ----------
    measured, predicted
        The two sides.
    relation
        The relation that is claimed.
    grade
        By default ``certified`` where a ball takes part, else ``symbolic``.
    data
        Passed into the evidence.

    Raises
    ------
    ValueError
        If a side is not an exact number, an irrational expression stands beside a python-flint
        number, or the relation is unknown.
    """
    one_of(relation, "relation", ("==", "<=", "<", ">=", ">"))
    a, b = _exact_number(measured, "measured"), _exact_number(predicted, "predicted")
    if {"sympy", "flint"} <= {_origin(a), _origin(b)}:
        raise ValueError(
            "predicted: expected an int, a Fraction or a number of the same library as measured"
        )
    balls = any(type(v).__name__ == "arb" for v in (a, b))
    given = grade or (Grade.CERTIFIED if balls else Grade.SYMBOLIC)
    kind = {
        "==": Relation.EXACT,
        "<=": Relation.UPPER,
        "<": Relation.UPPER,
        ">=": Relation.LOWER,
        ">": Relation.LOWER,
    }
    sign = _sign_of_difference(b, a)
    left, right = _to_float(a), _to_float(b)
    detail = f"{_shown(a)} {relation} {_shown(b)}"
    if sign is None and relation == "==" and _differ_symbolically(a, b):
        sign = 1
    if sign is None:
        return inconclusive(
            f"not decided by exact means: {detail}",
            relation=kind[relation],
            grade=given,
            measured=left,
            predicted=right,
            data=data,
        )
    holds = {"==": sign == 0, "<=": sign >= 0, "<": sign > 0, ">=": sign <= 0, ">": sign < 0}[
        relation
    ]
    # Fractions may lie outside of the range of floats; their ratios are taken before they are
    # rounded.
    rational = isinstance(a, Fraction) and isinstance(b, Fraction)
    near, far = (a, b) if rational else (left, right)
    size = (
        max(abs(near), abs(far))
        if rational or (math.isfinite(left) and math.isfinite(right))
        else 0
    )
    relative = _to_float(abs(far - near) / size) if size else float(sign != 0)
    # The sign is exact even where the floats agree, so that a tiny difference still has a margin
    # other than zero.
    if relation == "==":
        margin, resolution = 1.0 if holds else -max(relative, 5e-324), 0.0
    else:
        margin = (
            min(max(relative, 5e-324 if sign else 0.0), 1.0) if holds else -max(relative, 5e-324)
        )
        resolution = _to_float(abs(far - near) / abs(far)) if size and far else relative
    return Evidence(
        holds=holds,
        margin=_finite(margin),
        resolution=resolution,
        measured=left,
        predicted=right,
        relation=kind[relation],
        grade=given,
        detail=detail,
        data=data or {},
    )


def exhaustive(
    outcomes: Mapping[Any, bool | None] | Iterable[tuple[Any, bool | None]],
    *,
    count: int | None = None,
    grade: Grade = Grade.ENUMERATED,
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Judge a statement about every member of a finite family.

    Parameters
    ----------
    outcomes
        (member, does it hold) for each member; None where a member could not be decided.
    count
        Size of the family where it is known independently; another number of outcomes is
        inconclusive.
    grade, data
        Passed into the evidence.

    Returns
    -------
    Evidence
        ``measured`` members out of ``predicted`` satisfy the statement; the detail names the first
        that does not.
    """
    pairs = list(
        as_instance(outcomes, "outcomes", Iterable)
        if not isinstance(outcomes, Mapping)
        else outcomes.items()
    )
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"outcomes: expected pairs (member, does it hold), got {pairs[0]!r}")
    odd = next(
        (
            pair
            for pair in pairs
            if pair[1] is not None and not isinstance(pair[1], bool | np.bool_)
        ),
        None,
    )
    if odd is not None:
        raise ValueError(
            f"outcomes: expected True, False or None for each member, got {odd[1]!r} for {odd[0]}"
        )
    if len({repr(member) for member, _ in pairs}) < len(pairs):
        raise ValueError("outcomes: expected every member once, got one of them twice")
    expected = len(pairs) if count is None else as_count(count, "count")
    failing = [member for member, holds in pairs if holds is not None and not holds]
    unknown = [member for member, holds in pairs if holds is None]
    good = len(pairs) - len(failing) - len(unknown)
    if not failing and (unknown or not pairs or len(pairs) != expected):
        why = (
            f"{unknown[0]} could not be decided"
            if unknown
            else f"{len(pairs)} members seen, {expected} expected"
        )
        return inconclusive(
            why, relation=Relation.EXACT, grade=grade, measured=good, predicted=expected, data=data
        )
    return Evidence(
        holds=not failing,
        margin=-len(failing) / len(pairs) if failing else 1.0,
        resolution=1 / expected,
        measured=good,
        predicted=expected,
        relation=Relation.EXACT,
        grade=grade,
        detail=f"fails for {failing[0]}" if failing else f"all {len(pairs)} members",
        data=data or {},
    )


def sample_mean(
    samples: ArrayLike,
    predicted: ArrayLike,
    *,
    bias: ArrayLike = 0.0,
    source: str = "",
    relation: Literal["tight", "upper", "lower"] = "tight",
    data: Mapping[str, Any] | None = None,
) -> Evidence:
    """Judge an expectation by independent samples, at level 1e-6 over all entries together.

    The level is that of normal samples. It is approached by the mean of skewed ones: true claims on
    exponential samples are rejected with probability 5e-4 at 10 samples, 1e-4 at 100. Indicators (0
    or 1) that all agree are judged by their binomial law; other samples that all agree show no
    noise and decide nothing.

    Parameters
    ----------
    samples
        Shape (n_samples, ...), independent along the first axis; at least 10.
    predicted
        The expectation (or its bound), of the remaining shape.
    bias
        Bound of the difference between the expectation of a sample and the prediction (a
        finite-size remainder), >= 0.
    source
        Where the bias comes from; needed where it is not zero.
    relation
        ``"tight"`` for an equality, ``"upper"`` where the prediction bounds the expectation from
        above, ``"lower"`` from below.
    data
        Passed into the evidence.

    Returns
    -------
    Evidence
        Of grade ``statistical``. The allowed error is a Student quantile times the standard error,
        plus the bias. For a bound, ``measured`` is the end of the interval of the mean that is
        compared with it.
    """
    p = as_array(predicted, "predicted")
    p, allowance = _broadcast(predicted=p, bias=as_array(bias, "bias", nonnegative=True))
    kind = Relation(one_of(relation, "relation", ("tight", "upper", "lower")))
    if allowance.any() or source:
        as_text(source, "source")
    values = _numbers(samples, "samples")
    if values.ndim == 0 or values.shape[1:] != p.shape:
        raise ValueError(
            f"samples: expected shape (n_samples, {', '.join(map(str, p.shape))}), "
            f"got {values.shape}"
        )
    if len(values) < 10 or not np.isfinite(values).all():
        why = "fewer than ten samples" if len(values) < 10 else "a sample is not finite"
        return inconclusive(why, relation=kind, grade=Grade.STATISTICAL, data=data)
    mean = values.mean(axis=0)
    constant = (values == values[0]).all(axis=0)
    if (constant & (values[0] != 0) & (values[0] != 1)).any():
        return inconclusive(
            "all samples of an entry are equal", relation=kind, grade=Grade.STATISTICAL, data=data
        )
    quantile = _student(len(values), tests=p.size)
    noise = quantile * values.std(axis=0, ddof=1) / math.sqrt(len(values))
    noise = np.where(constant, 1 - (LEVEL / (2 * p.size)) ** (1 / len(values)), noise)
    rounding = 8 * np.finfo(float).eps * np.maximum(np.abs(mean), np.abs(p))
    error = noise + allowance + np.maximum(rounding, np.finfo(float).tiny)
    text = f"{len(values)} samples, {quantile:.2f} standard errors" + (
        f"; bias: {source}" if source else ""
    )
    if kind is Relation.TIGHT:
        return replace(equal(mean, p, error=error, source=text, data=data), grade=Grade.STATISTICAL)
    sign = 1.0 if kind is Relation.UPPER else -1.0
    judged = _bound(mean - sign * error, p, sign, kind, 0.0, Grade.STATISTICAL, data)
    return replace(judged, detail=text)


def all_of(*parts: Evidence, data: Mapping[str, Any] | None = None) -> Evidence:
    """Join the parts of one statement: it holds if all do; the worst part is shown, with the worst
    grade.

    The resolution is the largest among the equalities and rates (the weakest link), or, for bounds
    alone, that of the shown part."""
    if not parts:
        raise ValueError("parts: expected at least one piece of evidence, got none")
    false = [e for e in parts if e.decides and not e.holds]
    unknown = [e for e in parts if not e.decides]
    shown = (
        min(false, key=lambda e: e.margin)
        if false
        else unknown[0]
        if unknown
        else min(parts, key=lambda e: e.margin)
    )
    equalities = [e.resolution for e in parts if e.relation in (Relation.TIGHT, Relation.RATE)]
    details = "; ".join(dict.fromkeys(e.detail for e in parts if e.detail))
    joined: dict[str, Any] = {}
    for e in parts:
        joined.update(e.data)
    return replace(
        shown,
        relation=shown.relation
        if not equalities or shown.relation is Relation.RATE
        else Relation.TIGHT,
        resolution=max(equalities) if equalities else shown.resolution,
        grade=max((e.grade for e in parts), key=lambda g: g.rank),
        detail=details,
        data={**joined, **(data or {})},
    )


def _numbers(value: ArrayLike, name: str) -> FloatArray:
    """Return a float array that may hold NaN and infinities: a measurement can go wrong, a
    prediction cannot."""
    try:
        raw = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name}: expected a rectangular array of real numbers, got a ragged sequence"
        ) from None
    if raw.dtype.kind not in "buif" or raw.size == 0 or np.ma.is_masked(value):
        raise ValueError(f"{name}: expected real numbers, got {value!r}")
    return raw.astype(np.float64)


def _broadcast(**sides: FloatArray) -> tuple[FloatArray, ...]:
    try:
        return np.broadcast_arrays(*sides.values())
    except ValueError:
        shapes = ", ".join(f"{name} {side.shape}" for name, side in sides.items())
        raise ValueError(f"expected shapes that broadcast together, got {shapes}") from None


def _finite(margin: float) -> float:
    """Return a margin that overflowed as the largest float: the sides were finite, and its sign is
    right."""
    return max(margin, -float(np.finfo(float).max))


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return numerator / denominator, infinite where the denominator is 0."""
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, numerator / safe, np.inf)


def _bound(
    a: FloatArray,
    b: FloatArray,
    sign: float,
    relation: Relation,
    rounding: float,
    grade: Grade,
    data: Mapping[str, Any] | None,
) -> Evidence:
    as_real(rounding, "rounding", minimum=0.0, maximum=1e-6)
    a, b = _broadcast(measured=a, bound=b)
    if not np.isfinite(a).all():
        return inconclusive(
            "the measured value is not finite", relation=relation, grade=grade, data=data
        )
    size = np.maximum(np.abs(a), np.abs(b))
    with np.errstate(over="ignore"):
        slack = np.where(size > 0, sign * (b - a) / np.where(size > 0, size, 1.0), 0.0) + rounding
        looseness = (
            sign * (b - a) / np.where(b != 0, np.abs(b), np.where(size > 0, size, 1.0)) + rounding
        )
    worst = np.unravel_index(np.argmin(slack), a.shape)
    margin = _finite(min(float(slack[worst]), 1.0))
    return Evidence(
        holds=margin >= 0,
        margin=margin,
        resolution=max(float(looseness.min()), 0.0),
        measured=float(a[worst]),
        predicted=float(b[worst]),
        relation=relation,
        grade=grade,
        data=data or {},
    )


def _student(repetitions: int, tests: int = 1) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(repetitions - 1, 1 - LEVEL / (2 * tests)))


def _exact_number(value: Any, name: str) -> Any:
    if isinstance(value, np.integer):
        return Fraction(int(value))
    if isinstance(value, int | Fraction) and not isinstance(value, bool):
        return Fraction(value)
    if _origin(value) == "flint" and type(value).__name__ in ("fmpz", "fmpq", "arb"):
        return value
    if _origin(value) == "sympy":
        import sympy as sp

        number = isinstance(value, sp.Expr) and value.is_commutative and not value.is_infinite
        if number and not value.has(sp.Float, sp.nan, sp.zoo):
            return Fraction(int(value.p), int(value.q)) if value.is_Rational else value
    raise ValueError(
        f"{name}: expected an exact number (int, Fraction, SymPy, python-flint), got {value!r}"
    )


def _origin(value: Any) -> str:
    """Return the library that a number is of."""
    return type(value).__module__.split(".")[0]


def _sign_of_difference(b: Any, a: Any) -> int | None:
    """Return the sign of b - a, or None where it is not decided."""
    if "flint" in (_origin(a), _origin(b)):
        return _flint_sign(b, a)
    if "sympy" in (_origin(a), _origin(b)):
        import sympy as sp

        difference = sp.simplify(sp.sympify(b) - sp.sympify(a))
        return (
            0
            if difference.is_zero
            else 1
            if difference.is_positive
            else -1
            if difference.is_negative
            else None
        )
    return int(b > a) - int(b < a)


def _differ_symbolically(a: Any, b: Any) -> bool:
    """Whether a - b is an expression that does not vanish identically, though its sign may vary
    with its symbols."""
    if "sympy" not in (_origin(a), _origin(b)):
        return False
    import sympy as sp

    return sp.simplify(sp.sympify(a) - sp.sympify(b)).equals(0) is False


def _flint_sign(b: Any, a: Any) -> int | None:
    import flint

    def ball(v: Any) -> Any:
        rational = flint.fmpq(v.numerator, v.denominator) if isinstance(v, Fraction) else v
        return flint.arb(rational)

    if not any(isinstance(v, flint.arb) for v in (a, b)):
        exact_a, exact_b = (
            flint.fmpq(v.numerator, v.denominator) if isinstance(v, Fraction) else flint.fmpq(v)
            for v in (a, b)
        )
        return int(exact_b > exact_a) - int(exact_b < exact_a)
    difference = ball(b) - ball(a)
    return 1 if difference > 0 else -1 if difference < 0 else 0 if difference == 0 else None


def _shown(value: Any) -> str:
    """Return the number in full where it is short; a fraction of thousands of digits is no sentence
    for a reader."""
    if (
        isinstance(value, Fraction)
        and max(abs(value.numerator), value.denominator).bit_length() > 200
    ):
        return (
            f"a fraction near {float(value):.12g}"
            if abs(value) < 1e308
            else "a fraction beyond 1e308"
        )
    text = str(value)
    return text if len(text) <= 120 else f"an expression of {len(text)} characters"


def _to_float(value: Any) -> float:
    if isinstance(value, float | Fraction):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if _origin(value) == "flint":
        import flint

        return float(flint.arb(value).mid())
    number = complex(math.nan if value.free_symbols else value)
    return math.nan if number.imag else number.real
