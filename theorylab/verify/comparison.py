"""What was predicted, and the one comparison of it with what was measured.

:func:`theory` marks every predicted value by a name, so that the kernel can move it. In a
:class:`Part`, made by :func:`compare`, an entry is true, false by more than its error, or neither.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray, as_text, one_of
from theorylab.numerics import exact_numbers as exact
from theorylab.verify.enclosures import Enclosure, Grade, _paired
from theorylab.verify.simulations import running

__all__ = ["Part", "compare", "marks", "theory"]

SIDE = {"==": 0, "<=": 1, "<": 1, ">=": -1, ">": -1}
ROUNDING = 1e-12  # relative rounding that a comparison allows
POWER = 0.1  # violation, relative to the bound, that an inequality must not overlook

_SEEN: dict[str, None] = {}
_MOVES: dict[str, Fraction] = {}


def theory(name: str, value: Any) -> Any:
    """Mark a predicted value, or a term of one, by a name; return it.

    It stands in the check, never in a module or a simulation, and marks numbers, arrays, or tuples
    of these; remainders, tolerances and brackets have no mark. The kernel reruns the check with
    each mark times 1.1 and 1/1.1 (a 0 becomes +-0.1): what it feeds must turn false.

    Examples
    --------
    >>> from theorylab.verify import theory
    >>> theory("rate", 0.5)
    0.5
    """
    as_text(name, "name")
    exact.as_floats(value, "value")
    caller = sys._getframe(1).f_globals.get("__name__", "")
    inside = caller.startswith("theorylab.") and not caller.startswith("theorylab.verify")
    if where := running() or (caller if inside else ""):
        raise RuntimeError(f"theory: expected the mark '{name}' in the check, got it in {where}")
    _SEEN[name] = None
    return _move(value, _MOVES[name]) if name in _MOVES else value


@contextmanager
def marks(**moves: Fraction) -> Iterator[dict[str, None]]:
    """Collect the names of the marks that are passed in the block, and multiply those in moves."""
    _SEEN.clear()
    _MOVES.update(moves)
    try:
        yield _SEEN
    finally:
        _MOVES.clear()


def _move(value: Any, factor: Fraction) -> Any:
    """Return a value times a factor; one that is 0 throughout moves by a tenth."""
    step = Fraction(1 if factor > 1 else -1, 10)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value * float(factor) if value.any() else value + float(step)
    if isinstance(value, np.ndarray):
        return np.array(_move(value.ravel().tolist(), factor), object).reshape(value.shape)
    if isinstance(value, tuple | list):
        zero = not any(isinstance(v, tuple | list | np.ndarray) or v != 0 for v in value)
        return type(value)(_move(v, factor) if zero or np.any(v != 0) else v for v in value)
    unit = 1 if exact.is_exact(value) else 1.0
    return exact.times(value, factor) if value != 0 else exact.times(unit, step)


@dataclass(frozen=True, eq=False)
class Part:
    """One comparison, entry by entry.

    ``centre``, ``error`` and ``predicted`` are both sides as floats of one shape (NaN where an
    exact side is no number), ``sides`` the predicted numbers where both are exact, ``shown`` what a
    figure shows. Without a verdict ``holds`` is None, and ``why`` says why. ``margin`` is the least
    relative distance of an entry from being false, negative if it is; an entry ``rejects`` the
    prediction if it is false by 1.1 times its error and 1e-6 of the size of the prediction.
    """

    relation: str
    source: str
    grade: Grade
    centre: FloatArray
    error: FloatArray
    predicted: FloatArray
    shown: FloatArray
    holds: bool | None
    margin: float
    rejects: NDArray[np.bool_]
    sides: tuple[Any, ...] = ()
    why: str = ""

    @property
    def decisively_false(self) -> bool:
        """Whether an entry is false by more than the error explains."""
        return self.holds is False and bool(self.rejects.any())


def compare(
    measured: Any,
    relation: Literal["==", "<=", "<", ">=", ">"],
    predicted: Any,
    *,
    rival: Any = None,
) -> Part:
    """Judge ``measured relation predicted``, entry by entry.

    An equality holds where the prediction lies in the enclosure. An inequality holds where the
    enclosure reaches its side of the bound, and has no verdict unless it also ends within a tenth
    of the size of the bound beyond it; a strict one needs the whole enclosure on its side. Exact
    numbers (int, Fraction, SymPy, python-flint) are compared exactly.

    Parameters
    ----------
    measured, relation, predicted
        An enclosure or exact number(s), the sign, and number(s) that broadcast with them.
    rival
        Unmarked prediction of another hypothesis: a part that holds while its enclosure contains it
        has no verdict.

    Examples
    --------
    >>> from theorylab.verify import compare, theory
    >>> from theorylab.verify import within
    >>> compare(within(1.0, 0.01, "rounding"), "==", theory("limit", 1.005)).holds
    True
    """
    one_of(relation, "relation", list(SIDE))
    if not isinstance(measured, Enclosure):
        if (numbers := exact.exact_values(measured)) is None:
            raise ValueError(
                "measured: expected an enclosure (within, mean, slope, switch, between, family) "
                f"or an exact number, got {type(measured).__name__} {measured!r}"
            )
        sides = exact.exact_values(predicted)
        balls = any(map(exact.is_ball, numbers + (sides or ())))
        if sides is not None and not (relation == "==" and balls):
            return _compare_exact(numbers, relation, sides, exact.exact_values(rival) or ())
        centre, radius = exact.ball_floats(numbers)
        proved = all(map(exact.is_ball, numbers))
        kind = ("interval arithmetic", Grade.CERTIFIED) if proved else ("rounding", Grade.NUMERICAL)
        measured = Enclosure(centre, radius, *kind)
    return _compare_enclosure(measured, relation, predicted, rival)


def _compare_enclosure(measured: Enclosure, relation: str, predicted: Any, rival: Any) -> Part:
    c, p = _paired(measured.centre, exact.as_floats(predicted, "predicted"), "predicted")
    e = np.broadcast_to(measured.error, c.shape)
    shown = np.broadcast_to(c if measured.shown is None else measured.shown, c.shape)
    base = (relation, measured.source, measured.grade, c, e, p, shown)
    finite = {"measured value": np.isfinite([c, e]).all(), "prediction": np.isfinite(p).all()}
    odd = [f"the {what} is not finite" for what, good in finite.items() if not good]
    if why := measured.why or "".join(odd[:1]):
        return Part(*base, None, np.nan, np.zeros(p.shape, bool), why=why)
    size = np.where(p != 0, np.abs(p), 1.0)
    rounding = ROUNDING * np.maximum(np.abs(c), np.abs(p))
    side = SIDE[relation]
    off = side * (c - p) if side else np.abs(c - p)
    rejects = np.asarray(off - e - rounding > 0.1 * e + 1e-6 * size)
    if side:
        scale = np.maximum(np.maximum(np.abs(c), np.abs(p)), np.finfo(float).tiny)
        margins = np.minimum((rounding + e - off) / scale, 1.0)
    else:
        margins = 1 - np.maximum(off - rounding, 0) / np.where(e > 0, e, np.inf)
        margins = np.where((e == 0) & (off > rounding), -off / size, margins)
    margin = float(margins.min())
    holds: bool | None = margin >= 0
    if holds and relation in ("<", ">") and not (off + e < 0).all():
        holds, why = None, "the enclosure reaches the bound of a strict inequality"
    elif holds and side and (off + e - rounding > POWER * size).any():
        missed = float(np.max((off + e) / size))
        holds, why = None, f"a violation by {missed:.2g} of the bound would be overlooked"
    elif holds and rival is not None:
        others = np.atleast_1d(exact.as_floats(rival, "rival"))[:, None]
        if (np.abs(c.ravel() - others) <= e.ravel()).any():
            holds, why = None, f"the enclosure also contains the rival {rival}"
    return Part(*base, holds, margin, rejects, why=why)


def _compare_exact(
    measured: tuple[Any, ...], relation: str, sides: tuple[Any, ...], rivals: tuple[Any, ...]
) -> Part:
    n = max(len(measured), len(sides))
    if {len(measured), len(sides)} - {1, n}:
        raise ValueError(f"predicted: expected {len(measured)} numbers, got {len(sides)}")
    measured, sides = (v * n if len(v) == 1 else v for v in (measured, sides))
    (c, _), (p, _) = exact.ball_floats(measured), exact.ball_floats(sides)
    states = [exact.relation_holds(a, relation, b) for a, b in zip(measured, sides, strict=True)]
    rejects = np.array([s is False for s in states]).reshape(c.shape)
    holds = False if False in states else None if None in states else True
    why = "" if holds is not None else "the sign of the difference could not be decided"
    if holds and any(exact.relation_holds(a, "==", r) for a in measured for r in rivals):
        holds, why = None, f"the value is a rival {rivals}"
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gap = np.abs(c - p) / np.maximum(np.abs(c), np.abs(p))
    gap = np.clip(np.nan_to_num(gap, nan=0.0, posinf=1.0), np.finfo(float).tiny, 1.0)
    margin = float(np.where(rejects, -gap, 1.0 if relation == "==" else gap).min())
    free = any(getattr(v, "free_symbols", None) for v in (*measured, *sides))
    grade = Grade.SYMBOLIC if free else Grade.CERTIFIED
    base = (relation, "exact", grade, c, np.zeros_like(c), p, c)
    return Part(*base, holds, margin if holds is not None else np.nan, rejects, sides, why)
