r"""The steps of Adam and AdaMax as functions of the gradient history, in floats and in rationals,
and the histories of the longest steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real
from theorylab.optimization._rationals import rationals, unit_rational

__all__ = [
    "adam_step_squared",
    "adam_steps",
    "adam_worst_gradients",
    "adamax_finite_p_norm",
    "adamax_step",
    "adamax_steps",
    "adamax_worst_gradients",
    "coefficient",
    "gradient_history",
    "next_root",
    "quotient_or_zero",
    "total_weight",
]


def adam_steps(
    gradients: ArrayLike,
    *,
    beta1: float,
    beta2: float,
    eps: float = 0.0,
    bias_correction: bool = True,
) -> FloatArray:
    r"""Steps $\Delta_t/\alpha=\hat m_t/(\sqrt{\hat v_t}+\epsilon)$ of Adam for a given
    gradient history.

    Parameters
    ----------
    gradients
        Shape (T,) or (T, d).
    beta1, beta2
        Momentum coefficients in [0, 1).
    eps
        Added to the root.
    bias_correction
        Divide the moments by $1-\beta^t$.

    Returns
    -------
    ndarray
        Same shape; 0 where the denominator is 0: all gradients so far vanish, or ``beta2=0`` and
        the latest one does (kingma2014-adam, Section 2.1).

    Examples
    --------
    >>> from theorylab.optimization import adam_steps
    >>> adam_steps([18.0, 19.0], beta1=0.9, beta2=0.95).round(7).tolist()
    [1.0, 1.0003644]
    """
    g = gradient_history(gradients)
    b1, b2 = coefficient(beta1, "beta1"), coefficient(beta2, "beta2")
    added = as_real(eps, "eps", minimum=0.0)
    corrected = as_flag(bias_correction, "bias_correction")
    m, root = np.empty_like(g), np.empty_like(g)
    last_m, last_root = np.zeros(g.shape[1:]), np.zeros(g.shape[1:])
    for s, now in enumerate(g):
        m[s] = last_m = b1 * last_m + (1 - b1) * now
        root[s] = last_root = next_root(last_root, b2, now)
    if corrected:
        t = np.arange(1.0, len(g) + 1).reshape(-1, *[1] * (g.ndim - 1))
        m, root = m / total_weight(b1, t), root / np.sqrt(total_weight(b2, t))
    return quotient_or_zero(m, root + added)


def adamax_steps(gradients: ArrayLike, *, beta1: float, beta2: float) -> FloatArray:
    r"""Steps $\Delta_t/\alpha=m_t/((1-\beta_1^t)u_t)$,
    $u_t=\max(\beta_2u_{t-1},|g_t|)$, of AdaMax.

    Parameters
    ----------
    gradients
        Shape (T,) or (T, d).
    beta1
        In [0, 1).
    beta2
        In (0, 1].

    Returns
    -------
    ndarray
        Same shape; 0 where all gradients so far vanish (kingma2014-adam, Section 7.1).

    Examples
    --------
    >>> from theorylab.optimization import adamax_steps
    >>> adamax_steps([20.0, 19.0], beta1=0.9, beta2=0.95).round(6).tolist()
    [1.0, 1.024931]
    """
    g = gradient_history(gradients)
    b1, b2 = coefficient(beta1, "beta1"), as_real(beta2, "beta2", above=0.0, maximum=1.0)
    m, u = (1 - b1) * g, np.abs(g)
    for s in range(1, len(u)):
        m[s] += b1 * m[s - 1]
        u[s] = np.maximum(u[s], b2 * u[s - 1])
    t = np.arange(1.0, len(g) + 1).reshape(-1, *[1] * (g.ndim - 1))
    return quotient_or_zero(m / total_weight(b1, t), u)


def adamax_finite_p_norm(gradients: ArrayLike, *, beta2: float, p: float) -> float:
    r"""Root $v_t^{1/p}$ of $v_t=(1-\beta_2^p)\sum_i\beta_2^{p(t-i)}|g_i|^p$, which
    tends to AdaMax's $u_t$.

    The quotient $v_t^{1/p}/u_t$ lies between $(1-\beta_2^p)^{1/p}$ and
    $(t(1-\beta_2^p))^{1/p}$.

    Parameters
    ----------
    gradients
        Shape (T,), not all zero.
    beta2
        In (0, 1).
    p
        Positive; evaluated in logarithms, so large values do not overflow (kingma2014-adam, Section
        7.1).

    Examples
    --------
    >>> from theorylab.optimization import adamax_finite_p_norm
    >>> [round(adamax_finite_p_norm([2.0, 1.0], beta2=0.9, p=p), 3) for p in (2.0, 20.0, 200.0)]
    [0.898, 1.788, 1.8]
    """
    g = np.abs(as_array(gradients, "gradients", ndim=1))
    if not g.any():
        raise ValueError("gradients: expected an entry other than zero, got only zeros")
    b2, power = as_real(beta2, "beta2", above=0.0, below=1.0), as_real(p, "p", above=0.0)
    exponents = np.arange(len(g) - 1.0, -1.0, -1.0)[g > 0] * math.log(b2) + np.log(g[g > 0])
    top = float(exponents.max())
    total = -math.expm1(power * math.log(b2)) * float(np.exp(power * (exponents - top)).sum())
    # For tiny p the root of a sum below 1 is below every number.
    return math.exp(top + math.log(total) / power) if total > 0 else 0.0


def adam_step_squared(
    gradients: Sequence[int | Fraction], *, beta1: Fraction, beta2: Fraction
) -> Fraction:
    r"""Square of Adam's last step, $\Delta_t^2/\alpha^2$ with bias correction and ``eps=0``,
    in exact rational arithmetic.

    Parameters
    ----------
    gradients
        The history $g_1,\dots,g_t$: integers or fractions.
    beta1, beta2
        Fractions in [0, 1).

    Returns
    -------
    Fraction
        0 where the denominator is 0: all gradients vanish, or ``beta2=0`` and the last one does
        (kingma2014-adam, Section 2.1).

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import adam_step_squared
    >>> adam_step_squared([18, 19], beta1=Fraction(9, 10), beta2=Fraction(95, 100))
    Fraction(6864, 6859)
    """
    g = rationals(gradients, "gradients")
    b1, b2 = unit_rational(beta1, "beta1", one=False), unit_rational(beta2, "beta2", one=False)
    v = _exact_average([x * x for x in g], b2)
    return _exact_average(g, b1) ** 2 / v if v else Fraction(0)


def adamax_step(
    gradients: Sequence[int | Fraction], *, beta1: Fraction, beta2: Fraction
) -> Fraction:
    r"""AdaMax's last step, $\Delta_t/\alpha$, in exact rational arithmetic (kingma2014-adam,
    Section 7.1).

    Parameters
    ----------
    gradients
        The history $g_1,\dots,g_t$: integers or fractions.
    beta1
        Fraction in [0, 1).
    beta2
        Fraction in [0, 1].

    Returns
    -------
    Fraction
        0 where the denominator is 0: all gradients vanish, or ``beta2=0`` and the last one does.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import adamax_step
    >>> adamax_step([20, 19], beta1=Fraction(9, 10), beta2=Fraction(95, 100))
    Fraction(370, 361)
    """
    g = rationals(gradients, "gradients")
    b1, b2 = unit_rational(beta1, "beta1", one=False), unit_rational(beta2, "beta2", one=True)
    u, weight = Fraction(0), Fraction(1)
    for x in reversed(g):
        u, weight = max(u, weight * abs(x)), weight * b2
    return _exact_average(g, b1) / u if u else Fraction(0)


def adam_worst_gradients(t: int, *, beta1: Fraction, beta2: Fraction) -> list[int]:
    r"""Integers $g_1,\dots,g_t$ proportional to $(\beta_1/\beta_2)^{t-s}$: the history
    with the longest Adam step.

    Parameters
    ----------
    t
        Length of the history.
    beta1, beta2
        Fractions in (0, 1).

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import adam_worst_gradients
    >>> adam_worst_gradients(2, beta1=Fraction(9, 10), beta2=Fraction(95, 100))
    [18, 19]
    """
    length = as_count(t, "t")
    ratio = unit_rational(beta1, "beta1", zero=False, one=False) / unit_rational(
        beta2, "beta2", zero=False, one=False
    )
    return [
        ratio.numerator ** (length - s) * ratio.denominator ** (s - 1) for s in range(1, length + 1)
    ]


def adamax_worst_gradients(t: int, *, beta2: Fraction) -> list[int]:
    r"""Integers $g_1,\dots,g_t$ proportional to $\beta_2^{s}$: the history with the
    longest AdaMax step.

    Parameters
    ----------
    t
        Length of the history.
    beta2
        Fraction in (0, 1].

    Examples
    --------
    >>> from fractions import Fraction
    >>> from theorylab.optimization import adamax_worst_gradients
    >>> adamax_worst_gradients(2, beta2=Fraction(95, 100))
    [20, 19]
    """
    length, b2 = as_count(t, "t"), unit_rational(beta2, "beta2", zero=False, one=True)
    return [b2.denominator ** (length - s) * b2.numerator ** (s - 1) for s in range(1, length + 1)]


def _exact_average(g: list[Fraction], b: Fraction) -> Fraction:
    """Return the weighted mean of g_t, g_{t-1}, ... with weights 1, b, b^2, ..., by a Horner scheme
    in integers."""
    common = math.lcm(*(x.denominator for x in g))
    p, q = b.numerator, b.denominator
    value, weight, power = 0, 0, 1
    for x in g:
        value = p * value + power * x.numerator * (common // x.denominator)
        weight = p * weight + power
        power *= q
    return Fraction(value, weight * common)


def quotient_or_zero(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def gradient_history(value: ArrayLike, name: str = "gradients") -> FloatArray:
    g = as_array(value, name)
    if g.ndim not in (1, 2):
        raise ValueError(f"{name}: expected 1 or 2 axes, got shape {g.shape}")
    return g


def coefficient(value: float, name: str) -> float:
    return as_real(value, name, minimum=0.0, below=1.0)


def total_weight(b: float, t: Any) -> Any:
    """Return 1 - b^t without cancellation near b = 1."""
    with np.errstate(divide="ignore"):  # b = 0
        return -np.expm1(t * np.log1p(b - 1.0))


def next_root(root: FloatArray, b: float, g: FloatArray) -> FloatArray:
    """Return the root of b v + (1 - b) g^2, v the square of ``root``: nothing is squared."""
    return np.asarray(np.hypot(math.sqrt(b) * root, math.sqrt(1 - b) * g))
