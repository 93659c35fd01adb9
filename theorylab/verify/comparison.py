"""What was predicted, and the one comparison of it with what was measured.

:func:`theory` marks every predicted value by a name, so that the kernel can move it and see what a
check would have rejected. :func:`compare` makes a :class:`Part`: each entry is true, false, or
undecided, and false by how much.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray, as_text, one_of
from theorylab.verify.enclosures import Enclosure, Grade

__all__ = ["Part", "compare", "is_exact", "marks", "moved", "outside_checks", "theory"]

RELATIONS = ("==", "<=", "<", ">=", ">")
ROUNDING = 1e-12
"""Relative rounding that a comparison allows."""

POWER = 0.1
"""Violation, relative to the bound, that an inequality must not overlook."""

_SEEN: dict[str, None] = {}
_MOVES: dict[str, Fraction] = {}
_SIMULATING: list[str] = []


# ---------------------------------------------------------------------------------- marks
def theory(name: str, value: Any) -> Any:
    """Mark a predicted value, or a term of one, by a name; return it.

    It stands in the check, never in a module or in a simulation, and marks values that are exact
    (int, Fraction, SymPy, balls), floats, arrays, or tuples of these. Remainders, tolerances and
    brackets have no mark. The kernel reruns the check with each mark times 1.1 and 1/1.1 (a value
    that is 0 becomes +-0.1): the part that it feeds must turn false.

    Examples
    --------
    >>> theory("rate", 0.5)
    0.5
    """
    as_text(name, "name")
    caller = sys._getframe(1).f_globals.get("__name__", "")
    inside = caller.startswith("theorylab.") and not caller.startswith("theorylab.verify")
    if _SIMULATING or inside:
        where = _SIMULATING[-1] if _SIMULATING else caller
        raise RuntimeError(f"theory: expected the mark '{name}' in the check, got it in {where}")
    _SEEN[name] = None
    return _move(value, _MOVES[name]) if name in _MOVES else value


@contextmanager
def marks() -> Iterator[dict[str, None]]:
    """Collect the names of the marks that are passed in the block."""
    _SEEN.clear()
    yield _SEEN


@contextmanager
def moved(name: str, factor: Fraction) -> Iterator[None]:
    """Multiply one mark by a factor in the block."""
    _MOVES[name] = factor
    try:
        yield
    finally:
        _MOVES.clear()


@contextmanager
def outside_checks(name: str) -> Iterator[None]:
    """Refuse marks in the block: a simulation knows no prediction."""
    _SIMULATING.append(name)
    try:
        yield
    finally:
        _SIMULATING.pop()


def _move(value: Any, factor: Fraction) -> Any:
    step = Fraction(1, 10) if factor > 1 else Fraction(-1, 10)
    if isinstance(value, tuple | list):
        zero = all(_is_number(v) and v == 0 for v in value)
        return type(value)(_move(v, factor) if zero or v != 0 else v for v in value)
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return np.array([_move(v, factor) for v in value.ravel()], object).reshape(value.shape)
        return value * float(factor) if value.any() else value + float(step)
    if isinstance(value, bool | np.bool_):
        raise ValueError("value: expected a number, got a truth value; compare it with its family")
    if isinstance(value, int | Fraction | np.integer):
        return Fraction(int(value) if isinstance(value, np.integer) else value) * factor or step
    if _library(value) == "sympy":
        import sympy as sp

        return value * sp.Rational(factor) if value != 0 else sp.Rational(step)
    if _library(value) == "flint":
        import flint

        ball = flint.arb(value)
        q = factor if ball != 0 else step
        exact = flint.arb(flint.fmpq(q.numerator, q.denominator))
        return ball * exact if ball != 0 else exact
    number = float(value)
    return number * float(factor) if number else float(step)


# ---------------------------------------------------------------------------------- comparison
@dataclass(frozen=True, eq=False)
class Part:
    """One comparison.

    Attributes
    ----------
    relation
        ``==``, ``<=``, ``<``, ``>=`` or ``>``.
    source, grade
        Those of the enclosure; "exact" where both sides are exact.
    centre, error, predicted
        Both sides as floats, of one shape (NaN where an exact side is no number).
    shown
        What a figure shows for the measured side.
    holds
        True, False, or None where there is no verdict.
    margin
        Relative distance of the worst entry from being false; negative if it is.
    rejects
        For each entry, whether it is decisively false: beyond the error by a tenth of it and 1e-6
        of the size of the prediction.
    exact
        Whether both sides are exact numbers.
    sides
        The exact predicted values, to see whether they move.
    why
        Why there is no verdict.
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
    exact: bool = False
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
    enclosure reaches its side of the bound, and has no verdict unless the enclosure also ends
    within a tenth of the size of the bound beyond it; a strict one needs the whole enclosure on its
    side. Exact numbers are compared exactly.

    Parameters
    ----------
    measured
        An enclosure, an exact number (int, Fraction, SymPy, python-flint), or a sequence of these.
    relation
        The sign.
    predicted
        The prediction or bound, an array or number that broadcasts with the measured side.
    rival
        Unmarked number(s): the prediction of another hypothesis. A part that holds while its
        enclosure contains one has no verdict.

    Examples
    --------
    >>> from theorylab.verify import within
    >>> compare(within(1.0, 0.01, "rounding"), "==", theory("limit", 1.005)).holds
    True
    """
    one_of(relation, "relation", RELATIONS)
    if not isinstance(measured, Enclosure):
        exact = _exact_values(measured)
        if exact is None:
            raise ValueError(
                "measured: expected an enclosure (within, mean, slope, switch, between, family) "
                f"or an exact number, got {type(measured).__name__} {measured!r}"
            )
        sides = _exact_values(predicted)
        ball = any(_is_ball(v) for v in (*exact, *(sides or ())))
        if sides is not None and not (ball and relation == "=="):
            return _compare_exact(exact, relation, sides, _exact_values(rival))
        measured = _enclose(exact)
    return _compare_enclosure(measured, relation, predicted, rival)


def _compare_enclosure(measured: Enclosure, relation: str, predicted: Any, rival: Any) -> Part:
    centre, error, p = np.broadcast_arrays(measured.centre, measured.error, _floats(predicted))
    shown = np.broadcast_to(centre if measured.shown is None else measured.shown, centre.shape)
    base = (relation, measured.source, measured.grade, centre, error, p, shown)
    nothing = np.zeros(p.shape, bool)
    finite = np.isfinite(centre).all() and np.isfinite(error).all()
    if measured.why or not finite:
        why = measured.why or "the measured value is not finite"
        return Part(*base, None, np.nan, nothing, why=why)
    if not np.isfinite(p).all():
        return Part(*base, None, np.nan, nothing, why="the prediction is not finite")
    size = np.where(p != 0, np.abs(p), 1.0)
    rounding = ROUNDING * np.maximum(np.abs(centre), np.abs(p))
    sign = {"==": 0, "<=": 1, "<": 1, ">=": -1, ">": -1}[relation]
    off = sign * (centre - p) if sign else np.abs(centre - p)
    rejects = off - error - rounding > 0.1 * error + 1e-6 * size
    if sign:
        scale = np.maximum(np.maximum(np.abs(centre), np.abs(p)), np.finfo(float).tiny)
        margins = np.minimum((rounding + error - off) / scale, 1.0)
    else:
        spread = np.where(error > 0, error, 1.0)
        margins = np.where(error > 0, 1 - np.maximum(off - rounding, 0) / spread, 1.0)
        margins = np.where((error == 0) & (off > rounding), -off / size, margins)
    margin = float(margins.min())
    holds: bool | None = margin >= 0
    why = ""
    if holds and relation in ("<", ">") and not (off + error < 0).all():
        holds, why = None, "the enclosure reaches the bound of a strict inequality"
    elif holds and sign and (off + error - rounding > POWER * size).any():
        missed = float(np.max((off + error) / size))
        holds, why = None, f"a violation by {missed:.2g} of the bound would be overlooked"
    if holds and rival is not None:
        other = np.atleast_1d(_floats(rival))[:, None]
        if (np.abs(centre.ravel() - other) <= error.ravel()).any():
            holds, why = None, f"the enclosure also contains the rival {rival}"
    return Part(*base, holds, margin, rejects, why=why)


def _compare_exact(
    measured: tuple[Any, ...], relation: str, predicted: tuple[Any, ...], rival: Any
) -> Part:
    if len(predicted) == 1:
        predicted *= len(measured)
    if len(measured) == 1:
        measured *= len(predicted)
    if len(measured) != len(predicted):
        raise ValueError(f"predicted: expected {len(measured)} numbers, got {len(predicted)}")
    states = [_exact_state(a, relation, b) for a, b in zip(measured, predicted, strict=True)]
    rejects = np.array([s is False for s in states])
    holds = False if rejects.any() else None if None in states else True
    why = "" if holds is not None else "the sign of the difference could not be decided"
    if holds and rival and any(_sign(a, r) == 0 for a in measured for r in rival):
        holds, why = None, f"the value is the rival {rival}"
    free = any(getattr(v, "free_symbols", None) for v in (*measured, *predicted))
    c, p = (np.array([_to_float(v) for v in side]) for side in (measured, predicted))
    if len(c) == 1:
        c, p, rejects = c.reshape(()), p.reshape(()), rejects.reshape(())
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = np.maximum(np.abs(c), np.abs(p))
        gap = np.where(scale > 0, np.abs(c - p) / np.where(scale > 0, scale, 1), 0.0)
    gap = np.where(np.isfinite(gap), np.minimum(gap, 1.0), 1.0)
    if relation == "==":
        margin = 1.0 if holds else -float(gap[rejects].max()) if rejects.any() else np.nan
    else:
        margin = float(np.where(rejects, -gap, gap).min()) if holds is not None else np.nan
    if holds is False:
        margin = min(margin, -float(np.finfo(float).tiny))
    grade = Grade.SYMBOLIC if free else Grade.CERTIFIED
    return Part(
        *(relation, "exact", grade, c, np.zeros_like(c), p, c, holds, margin, rejects),
        exact=True,
        sides=predicted,
        why=why,
    )


# ---------------------------------------------------------------------------------- exact numbers
def _library(value: Any) -> str:
    return type(value).__module__.split(".")[0]


def _is_ball(value: Any) -> bool:
    return _library(value) == "flint" and type(value).__name__ == "arb"


def is_exact(value: Any) -> bool:
    """Whether a value is an exact number: int, Fraction, SymPy without floats, python-flint."""
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, int | Fraction | np.integer):
        return True
    if _library(value) == "flint":
        return type(value).__name__ in ("fmpz", "fmpq", "arb")
    if _library(value) == "sympy":
        import sympy as sp

        return isinstance(value, sp.Expr) and not value.has(sp.Float, sp.nan, sp.zoo, sp.oo)
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, float | np.floating) or is_exact(value)


def _exact_values(value: Any) -> tuple[Any, ...] | None:
    """Return exact number(s) as a flat tuple, None where a value is not exact."""
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist() if value.dtype.kind in "iuO" else None
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not values or not all(is_exact(v) for v in values):
        return None
    return tuple(int(v) if isinstance(v, np.integer) else v for v in values)


def _exact_state(a: Any, relation: str, b: Any) -> bool | None:
    sign = _sign(a, b)
    if sign is None:
        return False if relation == "==" and _differ(a, b) else None
    tests: dict[str, Callable[[int], bool]] = {
        "==": lambda s: s == 0,
        "<=": lambda s: s <= 0,
        "<": lambda s: s < 0,
        ">=": lambda s: s >= 0,
        ">": lambda s: s > 0,
    }
    return tests[relation](sign)


def _sign(a: Any, b: Any) -> int | None:
    """Return the sign of a - b, None where it is not decided."""
    if "sympy" in (_library(a), _library(b)):
        import sympy as sp

        d = sp.simplify(sp.sympify(a) - sp.sympify(b))
        return 0 if d.is_zero else 1 if d.is_positive else -1 if d.is_negative else None
    if "flint" in (_library(a), _library(b)):
        import flint

        def rational(v: Any) -> Any:
            return flint.fmpq(v.numerator, v.denominator) if isinstance(v, int | Fraction) else v

        x, y = rational(a), rational(b)
        d = flint.arb(x) - flint.arb(y) if _is_ball(x) or _is_ball(y) else flint.fmpq(x) - y
        return 1 if d > 0 else -1 if d < 0 else 0 if d == 0 else None
    return int(a > b) - int(a < b)


def _differ(a: Any, b: Any) -> bool:
    """Whether a - b is an expression that does not vanish identically, whatever its sign."""
    if "sympy" not in (_library(a), _library(b)):
        return False
    import sympy as sp

    return sp.simplify(sp.sympify(a) - sp.sympify(b)).equals(0) is False


def _enclose(values: tuple[Any, ...]) -> Enclosure:
    """Return exact numbers as an enclosure in floats, balls with their radius."""
    centre = np.array([_to_float(v) for v in values])
    radius = np.array([float(v.rad()) if _is_ball(v) else 0.0 for v in values])
    error = radius * (1 + 1e-9) + 2 * np.spacing(np.abs(centre))
    if len(values) == 1:
        centre, error = centre.reshape(()), error.reshape(())
    certified = all(_is_ball(v) for v in values)
    grade = Grade.CERTIFIED if certified else Grade.NUMERICAL
    return Enclosure(centre, error, "interval arithmetic" if certified else "rounding", grade)


def _floats(value: Any) -> FloatArray:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return value.astype(np.float64)
    flat = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    if isinstance(flat, tuple | list):
        array = np.array([_floats(v) for v in flat], dtype=np.float64)
        return array.reshape(value.shape) if isinstance(value, np.ndarray) else array
    if not _is_number(flat):
        raise ValueError(f"predicted: expected numbers, got {type(value).__name__} {value!r}")
    return np.array(_to_float(flat))


def _to_float(value: Any) -> float:
    if isinstance(value, int | float | Fraction | np.number):
        try:
            return float(value)
        except OverflowError:
            return np.inf if value > 0 else -np.inf
    if _library(value) == "flint":
        import flint

        return float(flint.arb(value).mid())
    number = complex(np.nan if value.free_symbols else value)
    return np.nan if number.imag else number.real
