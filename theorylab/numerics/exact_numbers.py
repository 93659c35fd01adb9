"""Exact numbers of several libraries under one roof: int, Fraction, SymPy, python-flint.

The sign of a difference is decided exactly, or not at all: a ball that contains zero, or an
expression whose sign SymPy cannot tell, has none.
"""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import Any

import numpy as np

from theorylab._validation import FloatArray

__all__ = [
    "as_floats",
    "ball_floats",
    "differ",
    "exact_values",
    "is_ball",
    "is_exact",
    "library",
    "moved",
    "relation_holds",
    "sign_of_difference",
    "times",
    "to_float",
]


RELATIONS = {
    "==": operator.eq,
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}


def library(value: Any) -> str:
    """Return the library that a number is of."""
    return type(value).__module__.split(".")[0]


def is_ball(value: Any) -> bool:
    """Whether a value is a real ball of python-flint."""
    return library(value) == "flint" and type(value).__name__ == "arb"


def is_exact(value: Any) -> bool:
    """Whether a value is an exact number: int, Fraction, SymPy without floats, python-flint.

    Examples
    --------
    >>> is_exact(Fraction(1, 3)), is_exact(0.5), is_exact(True)
    (True, False, False)
    """
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, int | Fraction | np.integer):
        return True
    if library(value) == "flint":
        return type(value).__name__ in ("fmpz", "fmpq", "arb")
    if library(value) == "sympy":
        import sympy as sp

        return isinstance(value, sp.Expr) and not value.has(sp.Float, sp.nan, sp.zoo, sp.oo)
    return False


def sign_of_difference(a: Any, b: Any) -> int | None:
    """Return the sign of a - b for exact numbers, None where it is not decided.

    Examples
    --------
    >>> sign_of_difference(Fraction(1, 3), Fraction(1, 2))
    -1
    """
    if "sympy" in (library(a), library(b)):
        import sympy as sp

        d = sp.simplify(sp.sympify(a) - sp.sympify(b))
        return 0 if d.is_zero else 1 if d.is_positive else -1 if d.is_negative else None
    if "flint" in (library(a), library(b)):
        import flint

        x, y = (
            flint.fmpq(v.numerator, v.denominator) if isinstance(v, int | Fraction) else v
            for v in (a, b)
        )
        d = flint.arb(x) - flint.arb(y) if is_ball(x) or is_ball(y) else flint.fmpq(x) - y
        return 1 if d > 0 else -1 if d < 0 else 0 if d == 0 else None
    return int(a > b) - int(a < b)


def differ(a: Any, b: Any) -> bool:
    """Whether a - b is an expression that does not vanish identically, whatever its sign."""
    if "sympy" not in (library(a), library(b)):
        return sign_of_difference(a, b) in (-1, 1)
    import sympy as sp

    return sp.simplify(sp.sympify(a) - sp.sympify(b)).equals(0) is False


def moved(a: Any, b: Any) -> bool:
    """Whether two exact numbers are not the same one, though balls may overlap.

    Examples
    --------
    >>> moved(Fraction(1, 2), Fraction(2, 4)), moved(1, 2)
    (False, True)
    """
    if is_ball(a) and is_ball(b):
        a, b = a.mid(), b.mid()
    return bool(a != b)


def relation_holds(a: Any, relation: str, b: Any) -> bool | None:
    """Decide an (in)equality of exact numbers; None where that cannot be done.

    Examples
    --------
    >>> relation_holds(Fraction(1, 3), "<", Fraction(1, 2))
    True
    """
    sign = sign_of_difference(a, b)
    if sign is None:
        return False if relation == "==" and differ(a, b) else None
    return bool(RELATIONS[relation](sign, 0))


def times(value: Any, factor: Fraction) -> Any:
    """Return an exact number times a fraction, or a float times its value."""
    if library(value) == "sympy":
        import sympy as sp

        return value * sp.Rational(factor)
    if library(value) == "flint":
        import flint

        return flint.arb(value) * flint.arb(flint.fmpq(factor.numerator, factor.denominator))
    if isinstance(value, np.integer):
        return int(value) * factor
    return value * (factor if is_exact(value) else float(factor))


def to_float(value: Any) -> float:
    """Return the nearest float (infinite beyond its range; NaN for an expression with symbols)."""
    if isinstance(value, int | float | Fraction | np.number):
        try:
            return float(value)
        except OverflowError:
            return np.inf if value > 0 else -np.inf
    if library(value) == "flint":
        import flint

        return float(flint.arb(value).mid())
    number = complex(np.nan if value.free_symbols else value)
    return np.nan if number.imag else number.real


def ball_floats(values: tuple[Any, ...]) -> tuple[FloatArray, FloatArray]:
    """Return exact numbers as floats, without an axis if it is one, and bounds of their errors.

    Examples
    --------
    >>> centre, error = ball_floats((Fraction(1, 3),))
    >>> float(centre), float(error) < 1e-15
    (0.3333333333333333, True)
    """
    shape = (len(values),) if len(values) > 1 else ()
    centre = np.array([to_float(v) for v in values]).reshape(shape)
    radius = np.array([float(v.rad()) if is_ball(v) else 0.0 for v in values]).reshape(shape)
    with np.errstate(invalid="ignore"):
        return centre, radius * (1 + 1e-9) + 2 * np.spacing(np.abs(centre))


def exact_values(value: Any) -> tuple[Any, ...] | None:
    """Return exact number(s) as a flat tuple, None where one is not exact.

    Examples
    --------
    >>> exact_values((1, Fraction(1, 2))), exact_values([1, 0.5])
    ((1, Fraction(1, 2)), None)
    """
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not (values and all(map(is_exact, values))):
        return None
    return tuple(int(v) if isinstance(v, np.integer) else v for v in values)


def as_floats(value: Any, name: str) -> FloatArray:
    """Return exact numbers, floats, arrays or tuples of these as floats.

    Examples
    --------
    >>> as_floats((Fraction(1, 2), 2.0), "value")
    array([0.5, 2. ])
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and not np.ma.is_masked(value):
        return value.astype(np.float64)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return as_floats(value.ravel().tolist(), name).reshape(value.shape)
    if isinstance(value, tuple | list):
        return np.array([as_floats(v, name) for v in value], dtype=np.float64)
    if not (isinstance(value, float | np.floating) or is_exact(value)):
        raise ValueError(f"{name}: expected numbers, got {type(value).__name__} {value!r}")
    return np.array(to_float(value))
