"""What was measured: an enclosure of every value compatible with what was computed.

The constructors say how its error is known: a proved bound (:func:`within`), a confidence interval
(:func:`mean`), the drift of local slopes (:func:`slope`), a bisection (:func:`switch`), a feasible
point and a bound (:func:`between`), a count (:func:`family`). Exact numbers need none.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from theorylab import _validation as validation
from theorylab._validation import FloatArray, as_array, as_flag, as_real, as_text, one_of
from theorylab.numerics.confidence import bounded_mean, clopper_pearson, local_slopes, student

__all__ = ["LEVEL", "Enclosure", "Grade", "between", "family", "mean", "slope", "switch", "within"]

LEVEL = 1e-6
"""Error probability of a statistical enclosure, over all its entries together."""
CROSSING = 1e-9  # a bound may pass the attained value by that, relatively, before it is our error
EPS = float(np.finfo(float).eps)


class Grade(StrEnum):
    """How evidence was obtained, best first."""

    SYMBOLIC = "symbolic"
    CERTIFIED = "certified"
    ENUMERATED = "enumerated"
    NUMERICAL = "numerical"
    STATISTICAL = "statistical"

    @property
    def rank(self) -> int:
        """Place in the order, best first."""
        return list(Grade).index(self)


@dataclass(frozen=True, eq=False)
class Enclosure:
    """The values within ``error`` (known from ``source``) of ``centre``, arrays of one shape.

    A figure shows ``shown`` in place of the centre, if given; ``why`` says why there is no verdict.
    """

    centre: FloatArray
    error: FloatArray
    source: str
    grade: Grade = Grade.NUMERICAL
    shown: FloatArray | None = None
    why: str = ""


def _none(why: str, source: str, grade: Grade, shape: tuple[int, ...] = ()) -> Enclosure:
    return Enclosure(np.full(shape, np.nan), np.full(shape, np.inf), source, grade, why=why)


def _paired(a: FloatArray, b: FloatArray, name: str) -> tuple[FloatArray, FloatArray]:
    try:
        x, y = np.broadcast_arrays(a, b)
        return x.copy(), y.copy()  # the caller may reuse its arrays
    except ValueError:
        shapes = f"{a.shape}, got {b.shape}"
        raise ValueError(f"{name}: expected a shape that broadcasts with {shapes}") from None


def within(value: ArrayLike, error: ArrayLike, source: str) -> Enclosure:
    """Enclose a value by a bound of its error: rounding, a proved remainder, a halved step.

    Parameters
    ----------
    value, error, source
        The computed value of any shape (NaN gives no verdict), a bound of its absolute error that
        broadcasts with it, and where that comes from: not from the things compared.

    Examples
    --------
    >>> from theorylab.verify import within
    >>> within(2.0, 1e-9, "rounding").grade
    <Grade.NUMERICAL: 'numerical'>
    """
    v = as_array(value, "value", finite=False)
    e = as_array(error, "error", finite=False, nonnegative=True)
    return Enclosure(*_paired(v, e, "error"), as_text(source, "source"))


def mean(
    samples: ArrayLike,
    *,
    bias: ArrayLike = 0.0,
    source: str = "",
    support: tuple[float, float] | None = None,
) -> Enclosure:
    """Enclose an expectation by independent samples, at level 1e-6 over all entries together.

    The interval is Clopper and Pearson's for booleans, :func:`~theorylab.numerics.bounded_mean` for
    samples in a known ``support``, else Student's, whose level is that of normal samples and is
    approached by the mean of skewed ones.

    Parameters
    ----------
    samples, support
        Shape (n_samples, ...), independent along the first axis, at least ten; the ends of an
        interval that is known to hold them.
    bias, source
        Bound of the difference between the expectation and the measured value, and its origin.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.verify import mean
    >>> mean(np.arange(100) % 2 == 0).shown
    array(0.5)
    >>> known = np.linspace(0.0, 1.0, 50)
    >>> mean(known, bias=0.01, source="series", support=(0.0, 1.0)).source
    'sampling; series'
    """
    v, raw = as_array(samples, "samples", finite=False), np.asarray(samples)
    logical = raw.dtype == bool or (raw.dtype == object and np.array(raw.tolist()).dtype == bool)
    allowance = as_array(bias, "bias", nonnegative=True)
    needs, grade = allowance.any() or source, Grade.STATISTICAL
    text = "sampling" + (f"; {as_text(source, 'source')}" if needs else "")
    if v.ndim == 0 or len(v) < 10:
        return _none("fewer than ten samples", text, grade, v.shape[1:])
    average = np.asarray(v.mean(axis=0))
    level = LEVEL / average.size
    if not np.isfinite(average).all():
        return _none("a sample is not finite", text, grade, average.shape)
    if logical:
        lo, hi = clopper_pearson(v.sum(axis=0), len(v), level)
    elif support is not None:
        lo, hi = bounded_mean(v, support, level)
    elif (v == v[0]).all(axis=0).any():
        return _none("all samples of an entry are equal", text, grade, average.shape)
    else:
        lo, hi = student(v, level)
    centre, allowance = _paired((lo + hi) / 2, allowance, "bias")
    error = (hi - lo) / 2 + allowance + 8 * EPS * np.abs(average)
    return Enclosure(centre, np.asarray(error), text, grade, shown=average)


def slope(
    x: ArrayLike, y: ArrayLike, *, scale: Literal["log", "linear"] = "log", floor: float = 0.0
) -> Enclosure:
    r"""Enclose a rate by the local slopes of the last half of a record.

    ``scale="log"`` measures the p of $y\sim Cx^p$, ``"linear"`` of $y\sim Ce^{px}$, on
    the upper half of the record up to the first value at or below ``floor``, a half that is fixed
    before any slope is seen. The enclosure is the hull of its local slopes, extended in the
    direction in which they drift (which covers the limit if the remainder halves over the half),
    and at least 1 % wide; for rows of independent repetitions a Student interval of the mean slope.

    Parameters
    ----------
    x, y, scale
        Shapes (n,), increasing, and (n,) or (repetitions, n), positive. Without six points in the
        half and a factor of 4 in x (``"log"``) or in y (``"linear"``) there is no verdict.
    floor
        Level of rounding or noise at or below which ``y`` says nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.verify import slope
    >>> x = np.geomspace(1, 1e3, 40)
    >>> float(slope(x, 3 / x**2).centre.round(6))
    -2.0
    """
    log = one_of(scale, "scale", ("log", "linear")) == "log"
    t = as_array(x, "x", ndim=1, positive=log)
    noise = as_real(floor, "floor", minimum=0.0)
    if (np.diff(t) <= 0).any():
        raise ValueError("x: expected increasing values")
    rows = np.atleast_2d(as_array(y, "y", finite=False))
    if rows.ndim != 2 or rows.shape[1] != t.size:
        raise ValueError(f"y: expected rows of length {t.size}, got shape {np.shape(y)}")
    grade = Grade.NUMERICAL if len(rows) == 1 else Grade.STATISTICAL
    text = "local slopes and their drift"
    if not np.isfinite(rows).all():
        return _none("the record is not finite", text, grade)
    above = (rows > noise).all(axis=0)
    length = t.size if above.all() else int(np.argmin(above))
    t, logs = np.log(t[:length]) if log else t[:length], np.log(rows[:, :length])
    keep = t >= (t[:1] + t[-1:]) / 2
    if keep.sum() < 6 or np.ptp(t if log else logs.mean(axis=0)) < math.log(4) * (1 - 1e-9):
        why = "the record covers no factor of 4 with six points in its last half"
        return _none(why, text, grade)
    lo, hi = local_slopes(t[keep], logs[:, keep], LEVEL)
    error = max((hi - lo) / 2, 0.005 * abs(lo + hi) / 2)
    # Differences of logarithms carry the rounding of y.
    error += 4 * EPS * float(np.abs(logs[:, keep]).max() + 1) / float(np.diff(t[keep]).min())
    return Enclosure(np.array((lo + hi) / 2), np.array(error), text, grade)


def switch(
    occurs: Callable[[float], bool | None], *, bracket: tuple[float, float], tol: float = 1e-3
) -> Enclosure:
    """Enclose the place where a property switches, by bisection.

    Parameters
    ----------
    occurs
        The property as a function of the parameter, which switches once; None where undecided.
    bracket, tol
        Interval in which the switch is looked for (where there is none, no verdict), and the width
        of the last one relative to its larger end.

    Examples
    --------
    >>> from theorylab.verify import switch
    >>> float(switch(lambda x: x * x > 2, bracket=(0.0, 2.0), tol=1e-6).centre.round(4))
    1.4142
    """
    validation.as_function(occurs, "occurs")
    lo, hi = as_array(bracket, "bracket", shape=(2,)).tolist()
    relative = as_real(tol, "tol", minimum=1e-15)
    if not lo < hi:
        raise ValueError(f"bracket: expected two increasing ends, got {bracket}")

    def state(at: float) -> bool | None:
        found = occurs(at)
        return None if found is None else as_flag(found, "occurs")

    below, beyond = state(lo), state(hi)
    if None in (below, beyond) or below == beyond:
        why = f"the property does not switch in [{lo:g}, {hi:g}], or is undecided at an end"
        return _none(why, "bisection", Grade.NUMERICAL)
    # No float lies between the ends of the last interval around 0, however small the tolerance.
    while lo < (middle := (lo + hi) / 2) < hi and hi - lo > relative * max(abs(lo), abs(hi)):
        if (found := state(middle)) is None:
            return _none(f"undecided at {middle:.6g}", "bisection", Grade.NUMERICAL)
        lo, hi = (middle, hi) if found == below else (lo, middle)
    return Enclosure(np.array((lo + hi) / 2), np.array((hi - lo) / 2), "bisection")


def between(
    attained: ArrayLike,
    bound: ArrayLike,
    sense: Literal["min", "max"] = "min",
    *,
    certificate: Any = None,
) -> Enclosure:
    """Enclose an optimal value between the value at a feasible point and a proved bound.

    Parameters
    ----------
    attained, bound, sense
        The value at a feasible point, and a bound that no feasible point passes: from below for a
        ``"min"``, from above for a ``"max"``; a ValueError if it passes the value beyond rounding.
    certificate
        Its ``verify().accepted`` tells whether the bound was proved, and the grade is certified.

    Examples
    --------
    >>> from theorylab.verify import between
    >>> float(between(1.5, 1.25).error.round(9))
    0.125
    """
    one_of(sense, "sense", ("min", "max"))
    a = as_array(attained, "attained", finite=False)
    a, b = _paired(a, as_array(bound, "bound", finite=False), "bound")
    size = np.maximum(np.abs(a), np.abs(b))
    with np.errstate(invalid="ignore"):
        crossed = np.argwhere((b - a if sense == "min" else a - b) > CROSSING * size)
    if len(crossed):
        at = tuple(crossed[0])
        raise ValueError(f"bound: {b[at]!r} passes the attained {sense}imum {a[at]!r}")
    if not (certificate is None or hasattr(certificate, "verify")):
        raise ValueError(f"certificate: expected one with verify(), got {certificate!r}")
    proved = certificate is not None and bool(certificate.verify().accepted)
    grade = Grade.CERTIFIED if proved else Grade.NUMERICAL
    error = np.abs(a - b) / 2 + 1e-12 * size
    return Enclosure((a + b) / 2, error, "attained value and proved bound", grade)


def family(outcomes: Mapping[Any, bool | None]) -> Enclosure:
    """Count the members of a finite family that have a property, to be compared with its size.

    Parameters
    ----------
    outcomes
        Member -> whether it has the property; None gives no verdict unless another member fails.

    Examples
    --------
    >>> from theorylab.verify import family
    >>> float(family({"a": True, "b": True}).centre)
    2.0
    """
    members = validation.as_instance(outcomes, "outcomes", Mapping).items()
    states = {k: None if v is None else as_flag(v, "outcomes") for k, v in members}
    unknown = [f"{k} could not be decided" for k, v in states.items() if v is None]
    why = "an empty family" if not states else ""
    if unknown and False not in states.values():
        why = unknown[0]
    good = np.array(float(sum(v is True for v in states.values())))
    return Enclosure(good, np.array(0.0), "enumeration", Grade.ENUMERATED, why=why)
