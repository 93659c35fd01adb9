r"""The longest steps that Adam and AdaMax can take, over all gradient histories: closed forms, and
the same bounds term by term."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, overload

import sympy as sp

from theorylab._validation import as_count, as_real
from theorylab.optimization._rationals import unit_rational

__all__ = [
    "ADAMAX_STEP_SUPREMUM",
    "ADAM_STEP_SUPREMUM_SQUARED",
    "adam_step_ceiling_squared",
    "adam_step_supremum",
    "adam_step_supremum_squared",
    "adamax_step_ceiling",
    "adamax_step_supremum",
    "stated_step_bound_squared",
]

BETA1, BETA2, STEPS, RHO = sp.symbols("beta_1 beta_2 t rho", positive=True)

# Geometric sums: of the powers 0 to t - 1 of beta_1, beta_2 and rho.
_SUMS = _SUM1, _SUM2, _SUM_RHO = sp.symbols("sum_1 sum_2 sum_rho", positive=True)

_WRITTEN_OUT = {
    _SUM1: (1 - BETA1**STEPS) / (1 - BETA1),
    _SUM2: (1 - BETA2**STEPS) / (1 - BETA2),
    _SUM_RHO: sp.Piecewise((STEPS, sp.Eq(RHO, 1)), ((1 - RHO**STEPS) / (1 - RHO), True)),
}

_ADAM_FINITE = _SUM2 * _SUM_RHO / _SUM1**2

_ADAMAX_FINITE = _SUM_RHO / _SUM1

ADAM_STEP_SUPREMUM_SQUARED = _ADAM_FINITE.subs(_WRITTEN_OUT)
"""Supremum of the squared Adam step over all gradient histories of length t, step size 1, with rho
= beta_1^2 / beta_2."""

ADAMAX_STEP_SUPREMUM = _ADAMAX_FINITE.subs(_WRITTEN_OUT)
"""Supremum of the AdaMax step over all gradient histories of length t, step size 1, with rho =
beta_1 / beta_2."""

_ADAM_LIMIT = (1 - BETA1) ** 2 / ((1 - BETA2) * (1 - RHO))

_ADAMAX_LIMIT = (1 - BETA1) / (1 - RHO)

# The module "math" makes lambdify write plain arithmetic, which evaluates floats and fractions
# alike.
_adam_finite, _adamax_finite = (
    sp.lambdify(_SUMS, formula, modules="math") for formula in (_ADAM_FINITE, _ADAMAX_FINITE)
)

_adam_limit, _adamax_limit = (
    sp.lambdify((BETA1, BETA2, RHO), formula, modules="math")
    for formula in (_ADAM_LIMIT, _ADAMAX_LIMIT)
)


@overload
def adam_step_supremum_squared(t: int | None, *, beta1: Fraction, beta2: Fraction) -> Fraction: ...


@overload
def adam_step_supremum_squared(t: int | None, *, beta1: float, beta2: float) -> float: ...


def adam_step_supremum_squared(t: int | None, *, beta1: Any, beta2: Any) -> Any:
    r"""Square of the longest Adam step, in units of the step size, over all gradient histories of
    length t.

    Parameters
    ----------
    t
        Length of the history, or None for the limit of long histories, which is finite only if
        $\beta_1^2<\beta_2$.
    beta1, beta2
        In (0, 1); two fractions give an exact fraction.

    Raises
    ------
    ValueError
        Also where the limit is infinite, or the supremum of floats is beyond float64.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import adam_step_supremum_squared
    >>> adam_step_supremum_squared(None, beta1=Fraction(9, 10), beta2=Fraction(999, 1000))
    Fraction(370, 7)
    """
    b1, b2 = _unit_number(beta1, "beta1"), _unit_number(beta2, "beta2")
    if t is not None:
        length = as_count(t, "t")
        if isinstance(b1 * b1 / b2, Fraction):
            return _adam_finite(*(_geometric_sum(x, length) for x in (b1, b2, b1 * b1 / b2)))
        return _finite_exp(2 * _log_adam_supremum(length, float(b1), float(b2)), length)
    if b1 * b1 >= b2:
        raise ValueError(
            f"beta1: expected a square below beta2 = {b2} where t is None (the "
            f"supremum is infinite), got {b1}"
        )
    return _adam_limit(b1, b2, b1 * b1 / b2)


def adam_step_supremum(t: int | None, *, beta1: float, beta2: float) -> float:
    """Longest Adam step in units of the step size: the root of :func:`adam_step_supremum_squared`,
    as a float, also where the square is beyond float64.

    Examples
    --------
    >>> from theorylab.optimization import adam_step_supremum
    >>> round(adam_step_supremum(None, beta1=0.9, beta2=0.999), 5)  # 3.16 was stated
    7.27029
    """
    if t is None:
        return math.sqrt(adam_step_supremum_squared(t, beta1=beta1, beta2=beta2))
    length = as_count(t, "t")
    b1, b2 = float(_unit_number(beta1, "beta1")), float(_unit_number(beta2, "beta2"))
    return _finite_exp(_log_adam_supremum(length, b1, b2), length)


@overload
def adamax_step_supremum(t: int | None, *, beta1: Fraction, beta2: Fraction) -> Fraction: ...


@overload
def adamax_step_supremum(t: int | None, *, beta1: float, beta2: float) -> float: ...


def adamax_step_supremum(t: int | None, *, beta1: Any, beta2: Any) -> Any:
    r"""Longest AdaMax step, in units of the step size, over all gradient histories of length t.

    Parameters
    ----------
    t
        Length of the history, or None for the limit of long histories, which is finite only if
        $\beta_1<\beta_2$.
    beta1
        In (0, 1).
    beta2
        In (0, 1]; two fractions give an exact fraction.

    Raises
    ------
    ValueError
        Also where the limit is infinite, or the supremum of floats is beyond float64.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import adamax_step_supremum
    >>> adamax_step_supremum(None, beta1=Fraction(9, 10), beta2=Fraction(999, 1000))  # not 1
    Fraction(111, 110)
    """
    b1, b2 = _unit_number(beta1, "beta1"), _unit_number(beta2, "beta2", one=True)
    if t is not None:
        length = as_count(t, "t")
        if isinstance(b1 / b2, Fraction):
            return _adamax_finite(*(_geometric_sum(x, length) for x in (b1, b2, b1 / b2)))
        b1, b2 = float(b1), float(b2)
        return _finite_exp(
            _log_geometric_sum(math.log(b1) - math.log(b2), length)
            - _log_geometric_sum(math.log(b1), length),
            length,
        )
    if b1 >= b2:
        raise ValueError(
            f"beta1: expected a value below beta2 = {b2} where t is None (the "
            f"supremum is infinite), got {b1}"
        )
    return _adamax_limit(b1, b2, b1 / b2)


def adam_step_ceiling_squared(t: int, *, beta1: Fraction, beta2: Fraction) -> Fraction:
    r"""Bound of Adam's squared step over all histories of length t, by Cauchy and Schwarz, term by
    term.

    With $\hat m_t=\sum_kc_kg_{t-k}$ and $\hat v_t=\sum_kd_kg_{t-k}^2$,
    $\hat m_t^2\le\hat v_t\sum_kc_k^2/d_k$; the sum is taken in exact rationals, without the
    geometric series.

    Parameters
    ----------
    t
        Length of the history.
    beta1, beta2
        Fractions in [0, 1), ``beta2`` positive.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import adam_step_ceiling_squared
    >>> adam_step_ceiling_squared(2, beta1=Fraction(9, 10), beta2=Fraction(19, 20))
    Fraction(6864, 6859)
    """
    count = as_count(t, "t")
    b1 = unit_rational(beta1, "beta1", one=False)
    b2 = unit_rational(beta2, "beta2", zero=False, one=False)
    scale = (1 - b1) ** 2 / (1 - b1**count) ** 2 * (1 - b2**count) / (1 - b2)
    total, term = Fraction(0), Fraction(1)
    for _ in range(count):
        total, term = total + term, term * b1**2 / b2
    return scale * total


def adamax_step_ceiling(t: int, *, beta1: Fraction, beta2: Fraction) -> Fraction:
    r"""Bound of AdaMax's step over all histories of length t, term by term.

    With $|g_{t-k}|\le\beta_2^{-k}u_t$, the step is at most
    $\sum_kc_k\beta_2^{-k}$.

    Parameters
    ----------
    t
        Length of the history.
    beta1
        Fraction in [0, 1).
    beta2
        Fraction in (0, 1].

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import adamax_step_ceiling
    >>> adamax_step_ceiling(2, beta1=Fraction(9, 10), beta2=Fraction(19, 20))
    Fraction(370, 361)
    """
    count = as_count(t, "t")
    b1 = unit_rational(beta1, "beta1", one=False)
    b2 = unit_rational(beta2, "beta2", zero=False, one=True)
    total, term = Fraction(0), Fraction(1)
    for _ in range(count):
        total, term = total + term, term * b1 / b2
    return (1 - b1) / (1 - b1**count) * total


@overload
def stated_step_bound_squared(beta1: Fraction, beta2: Fraction) -> Fraction: ...


@overload
def stated_step_bound_squared(beta1: float, beta2: float) -> float: ...


def stated_step_bound_squared(beta1: Any, beta2: Any) -> Any:
    r"""Square of the step bound stated for Adam: $(1-\beta_1)/\sqrt{1-\beta_2}$ if that
    exceeds 1, else 1.

    The statement is false in both cases; :func:`adam_step_supremum_squared` is the true value.

    Parameters
    ----------
    beta1, beta2
        In (0, 1); two fractions give an exact fraction (kingma2014-adam, Section 2.1).

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import stated_step_bound_squared
    >>> stated_step_bound_squared(Fraction(9, 10), Fraction(999, 1000))
    Fraction(10, 1)
    """
    b1, b2 = _unit_number(beta1, "beta1"), _unit_number(beta2, "beta2")
    return max((1 - b1) ** 2 / (1 - b2), type(b1)(1))


def _geometric_sum(x: Fraction, t: int) -> Fraction:
    """Return 1 + x + ... + x^(t-1)."""
    return Fraction(t) if x == 1 else (1 - x**t) / (1 - x)


def _log_geometric_sum(log_x: float, t: int) -> float:
    """Return the logarithm of 1 + x + ... + x^(t-1), without the cancellation of 1 - x^t near x = 1
    and without overflow."""
    if log_x == 0:
        return math.log(t)
    # The larger of the ends 1 and x^(t-1), times a sum of powers below 1.
    decay = -abs(log_x)
    top = max((t - 1) * log_x, 0.0)
    return top + math.log(math.expm1(t * decay) / math.expm1(decay))


def _log_adam_supremum(t: int, b1: float, b2: float) -> float:
    """Return the logarithm of the longest Adam step."""
    first, second = math.log(b1), math.log(b2)
    sums = [_log_geometric_sum(x, t) for x in (first, second, 2 * first - second)]
    return (sums[1] + sums[2]) / 2 - sums[0]


def _finite_exp(logarithm: float, t: int) -> float:
    try:
        return math.exp(logarithm)
    except OverflowError:
        raise ValueError(
            f"t: expected a history whose supremum is a float64, got {t} (its logarithm is "
            f"{logarithm})"
        ) from None


def _unit_number(value: Any, name: str, *, one: bool = False) -> Any:
    """Return ``value``, a fraction or a float, in (0, 1), or in (0, 1] as told."""
    if isinstance(value, Fraction):
        return unit_rational(value, name, zero=False, one=one)
    return as_real(value, name, above=0.0, below=None if one else 1.0, maximum=1.0 if one else None)
