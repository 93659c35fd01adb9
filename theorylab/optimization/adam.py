r"""Adam, AMSGrad, AdaMax and AdaGrad: their iterates, their steps, and the longest step they can
take.

With gradients $g_1,\dots,g_t$, $m_t=\beta_1m_{t-1}+(1-\beta_1)g_t$ and
$v_t=\beta_2v_{t-1}+(1-\beta_2)g_t^2$, Adam moves by $x_{t+1}=x_t-\Delta_t$,

$$\Delta_t=\alpha\,\frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)}},\qquad
\sup_g\frac{\Delta_t^2}{\alpha^2}=\frac{(1-\beta_1)^2}{1-\beta_2}\,\frac{1-\beta_2^t}{(1-\beta_1^t)^2}\sum_{k<t}\rho^k,\quad
\rho=\frac{\beta_1^2}{\beta_2}$$

by the Cauchy-Schwarz inequality, attained at $g_{t-k}\propto(\beta_1/\beta_2)^k$: more than
kingma2014-adam, Section 2.1 states. AdaMax divides $m_t/(1-\beta_1^t)$ by
$u_t=\max(\beta_2u_{t-1},|g_t|)$ instead, and its longest step is
$\alpha\frac{1-\beta_1}{1-\beta_1^t}\sum_{k<t}(\beta_1/\beta_2)^k$, attained at
$g_{t-k}\propto\beta_2^{-k}$. AMSGrad divides by the root of the running maximum of
$v_t$, AdaGrad divides $g_t$ by that of $\sum_{s\le t}g_s^2$. The regret of these
methods is in :mod:`theorylab.optimization.adaptive_regret`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from numbers import Rational
from typing import Any, overload

import numpy as np
import sympy as sp
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_function,
    as_real,
    one_of,
)
from theorylab.numerics.results import result

__all__ = [
    "ADAMAX_STEP_SUPREMUM",
    "ADAM_STEP_SUPREMUM_SQUARED",
    "AdaptiveRun",
    "adagrad",
    "adam",
    "adam_step_ceiling_squared",
    "adam_step_squared",
    "adam_step_supremum",
    "adam_step_supremum_squared",
    "adam_steps",
    "adam_worst_gradients",
    "adamax",
    "adamax_finite_p_norm",
    "adamax_step",
    "adamax_step_ceiling",
    "adamax_step_supremum",
    "adamax_steps",
    "adamax_worst_gradients",
    "amsgrad",
    "stated_step_bound_squared",
]

Gradient = Callable[[FloatArray, int], ArrayLike]

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

# ------------------------------------------------------------------------------------------------
# Optimisers
# ------------------------------------------------------------------------------------------------


@result
class AdaptiveRun:
    """A run of an adaptive method.

    Attributes
    ----------
    iterates
        Shape (steps + 1, d): the iterates x_1, ..., x_{steps+1}.
    gradients
        Shape (steps, d): row t - 1 is the gradient at x_t.
    denominators
        Shape (steps, d): the roots by which the momentum was divided, before ``eps`` is added.
    """

    iterates: FloatArray
    gradients: FloatArray
    denominators: FloatArray

    @property
    def final(self) -> FloatArray:
        """The last iterate, shape (d,)."""
        final: FloatArray = self.iterates[-1]
        return final

    @property
    def average(self) -> FloatArray:
        """The mean of the iterates at which a gradient was taken, shape (d,)."""
        return np.asarray(self.iterates[:-1].mean(axis=0))


def adam(
    gradient: Gradient,
    x0: ArrayLike,
    *,
    step_size: float,
    steps: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: str = "constant",
    momentum_decay: float = 1.0,
    bias_correction: bool = True,
    lower: float = -math.inf,
    upper: float = math.inf,
) -> AdaptiveRun:
    r"""Run Adam (kingma2014-adam, Algorithm 1), optionally projected on a box.

    With ``eps=0`` a coordinate whose denominator is zero does not move: all its gradients were
    zero, or ``beta2=0`` and the latest one is.

    Parameters
    ----------
    gradient
        Function of the iterate, shape (d,), and of the time t = 1, 2, ..., returning shape (d,).
    x0
        Shape (d,): the starting point.
    step_size
        The paper's $\alpha$, positive.
    steps
        Number of steps.
    beta1, beta2
        Momentum coefficients in [0, 1).
    eps
        Added to the root of the second moment.
    decay
        ``"constant"``, or ``"sqrt"`` for $\alpha_t=\alpha/\sqrt t$.
    momentum_decay
        $\lambda$ in (0, 1]: the first coefficient at time t is $\beta_1\lambda^{t-1}$.
    bias_correction
        Divide the moments by $1-\beta^t$.
    lower, upper
        Ends of the box; in the diagonal metric of the method the projection clips.

    Raises
    ------
    ValueError
        Naming the argument; also when ``gradient`` returns another shape or values that are not
        finite.

    Examples
    --------
    >>> from theorylab.optimization import adam
    >>> run = adam(lambda x, t: 2 * x, [1.0], step_size=0.1, steps=200)
    >>> abs(float(run.iterates[-1, 0])) < 0.01
    True
    """
    return _run(
        "adam",
        gradient,
        x0,
        step_size,
        steps,
        beta1,
        beta2,
        eps,
        decay,
        momentum_decay,
        bias_correction,
        lower,
        upper,
    )


def amsgrad(
    gradient: Gradient,
    x0: ArrayLike,
    *,
    step_size: float,
    steps: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 0.0,
    decay: str = "constant",
    momentum_decay: float = 1.0,
    bias_correction: bool = False,
    lower: float = -math.inf,
    upper: float = math.inf,
) -> AdaptiveRun:
    """Run AMSGrad (reddi2018-convergence, Algorithm 2): Adam with the running maximum of the second
    moment.

    Parameters, result and errors are those of :func:`adam`; the paper corrects no bias and adds no
    ``eps``.

    Examples
    --------
    >>> from theorylab.optimization import amsgrad
    >>> run = amsgrad(lambda x, t: 2 * x, [1.0], step_size=0.1, steps=50)
    >>> bool((run.denominators[1:] >= run.denominators[:-1]).all())  # they never fall
    True
    """
    return _run(
        "amsgrad",
        gradient,
        x0,
        step_size,
        steps,
        beta1,
        beta2,
        eps,
        decay,
        momentum_decay,
        bias_correction,
        lower,
        upper,
    )


def adamax(
    gradient: Gradient,
    x0: ArrayLike,
    *,
    step_size: float,
    steps: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    decay: str = "constant",
    lower: float = -math.inf,
    upper: float = math.inf,
) -> AdaptiveRun:
    """Run AdaMax (kingma2014-adam, Algorithm 2): the second moment is a decaying maximum; ``beta2``
    may be 1.

    Parameters, result and errors are those of :func:`adam`.

    Examples
    --------
    >>> from theorylab.optimization import adamax
    >>> run = adamax(lambda x, t: 1.0 + 0 * x, [0.0], step_size=0.1, steps=3)
    >>> run.iterates.ravel().round(6).tolist()  # equal gradients: steps of the step size
    [0.0, -0.1, -0.2, -0.3]
    """
    return _run(
        "adamax",
        gradient,
        x0,
        step_size,
        steps,
        beta1,
        beta2,
        decay=decay,
        bias_correction=True,
        lower=lower,
        upper=upper,
    )


def adagrad(
    gradient: Gradient,
    x0: ArrayLike,
    *,
    step_size: float,
    steps: int,
    eps: float = 0.0,
    lower: float = -math.inf,
    upper: float = math.inf,
) -> AdaptiveRun:
    """Run AdaGrad: steps divided by the root of the sum of all squared gradients.

    Parameters, result and errors are those of :func:`adam`.

    Examples
    --------
    >>> from theorylab.optimization import adagrad
    >>> run = adagrad(lambda x, t: 1.0 + 0 * x, [0.0], step_size=1.0, steps=4)
    >>> run.iterates.ravel().round(4).tolist()  # steps 1 / sqrt(t)
    [0.0, -1.0, -1.7071, -2.2845, -2.7845]
    """
    return _run("adagrad", gradient, x0, step_size, steps, eps=eps, lower=lower, upper=upper)


# ------------------------------------------------------------------------------------------------
# Steps as functions of the gradient history
# ------------------------------------------------------------------------------------------------


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
    g = _history(gradients)
    b1, b2 = _coefficient(beta1, "beta1"), _coefficient(beta2, "beta2")
    added = as_real(eps, "eps", minimum=0.0)
    corrected = as_flag(bias_correction, "bias_correction")
    m, root = np.empty_like(g), np.empty_like(g)
    last_m, last_root = np.zeros(g.shape[1:]), np.zeros(g.shape[1:])
    for s, now in enumerate(g):
        m[s] = last_m = b1 * last_m + (1 - b1) * now
        root[s] = last_root = _next_root(last_root, b2, now)
    if corrected:
        t = np.arange(1.0, len(g) + 1).reshape(-1, *[1] * (g.ndim - 1))
        m, root = m / _total_weight(b1, t), root / np.sqrt(_total_weight(b2, t))
    return _quotient_or_zero(m, root + added)


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
    g = _history(gradients)
    b1, b2 = _coefficient(beta1, "beta1"), as_real(beta2, "beta2", above=0.0, maximum=1.0)
    m, u = (1 - b1) * g, np.abs(g)
    for s in range(1, len(u)):
        m[s] += b1 * m[s - 1]
        u[s] = np.maximum(u[s], b2 * u[s - 1])
    t = np.arange(1.0, len(g) + 1).reshape(-1, *[1] * (g.ndim - 1))
    return _quotient_or_zero(m / _total_weight(b1, t), u)


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
    g = _rationals(gradients, "gradients")
    b1, b2 = _unit_rational(beta1, "beta1", one=False), _unit_rational(beta2, "beta2", one=False)
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
    g = _rationals(gradients, "gradients")
    b1, b2 = _unit_rational(beta1, "beta1", one=False), _unit_rational(beta2, "beta2", one=True)
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
    ratio = _unit_rational(beta1, "beta1", zero=False, one=False) / _unit_rational(
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
    length, b2 = as_count(t, "t"), _unit_rational(beta2, "beta2", zero=False, one=True)
    return [b2.denominator ** (length - s) * b2.numerator ** (s - 1) for s in range(1, length + 1)]


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
    b1 = _unit_rational(beta1, "beta1", one=False)
    b2 = _unit_rational(beta2, "beta2", zero=False, one=False)
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
    b1 = _unit_rational(beta1, "beta1", one=False)
    b2 = _unit_rational(beta2, "beta2", zero=False, one=True)
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


# ------------------------------------------------------------------------------------------------
# Private parts
# ------------------------------------------------------------------------------------------------


def _run(
    method: str,
    gradient: Gradient,
    x0: ArrayLike,
    step_size: float,
    steps: int,
    beta1: float = 0.0,
    beta2: float = 0.0,
    eps: float = 0.0,
    decay: str = "constant",
    momentum_decay: float = 1.0,
    bias_correction: bool = False,
    lower: float = -math.inf,
    upper: float = math.inf,
) -> AdaptiveRun:
    as_function(gradient, "gradient")
    start = as_array(x0, "x0", ndim=1)
    alpha, count = as_real(step_size, "step_size", above=0.0), as_count(steps, "steps")
    b1 = _coefficient(beta1, "beta1")
    b2 = (
        as_real(beta2, "beta2", above=0.0, maximum=1.0)
        if method == "adamax"
        else _coefficient(beta2, "beta2")
    )
    added = as_real(eps, "eps", minimum=0.0)
    shrinking = one_of(decay, "decay", ("constant", "sqrt")) == "sqrt"
    fading = as_real(momentum_decay, "momentum_decay", above=0.0, maximum=1.0)
    corrected = as_flag(bias_correction, "bias_correction")
    low = as_real(lower, "lower", below=math.inf, allow_inf=True)
    high = as_real(upper, "upper", minimum=low, allow_inf=True)
    if ((start < low) | (start > high)).any():
        raise ValueError(f"x0: expected a point of the box [{low}, {high}], got {start}")

    iterates = np.empty((count + 1, start.size))
    gradients, denominators = np.empty((2, count, start.size))
    iterates[0] = start
    m, second, root = np.zeros((3, start.size))
    for t in range(1, count + 1):
        g = as_array(gradient(iterates[t - 1], t), "gradient", shape=start.shape)
        first = b1 * fading ** (t - 1)
        m = first * m + (1 - first) * g
        if method == "adamax":
            root = np.maximum(b2 * root, np.abs(g))
        elif method == "adagrad":
            root = np.hypot(root, g)
        else:
            second = _next_root(second, b2, g)
            root = np.maximum(root, second) if method == "amsgrad" else second
        momentum, denominator = m, root
        if corrected:
            momentum = m / _total_weight(b1, t)
            denominator = root if method == "adamax" else root / np.sqrt(_total_weight(b2, t))
        rate = alpha / math.sqrt(t) if shrinking else alpha
        iterates[t] = np.clip(
            iterates[t - 1] - rate * _quotient_or_zero(momentum, denominator + added), low, high
        )
        gradients[t - 1], denominators[t - 1] = g, denominator
        if not (np.isfinite(iterates[t]).all() and np.isfinite(denominator).all()):
            raise ValueError(
                f"step_size: expected steps and gradients that stay within float64, got {alpha} "
                f"and an overflow at step {t}"
            )
    return AdaptiveRun(iterates=iterates, gradients=gradients, denominators=denominators)


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


def _quotient_or_zero(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _history(value: ArrayLike, name: str = "gradients") -> FloatArray:
    g = as_array(value, name)
    if g.ndim not in (1, 2):
        raise ValueError(f"{name}: expected 1 or 2 axes, got shape {g.shape}")
    return g


def _coefficient(value: float, name: str) -> float:
    return as_real(value, name, minimum=0.0, below=1.0)


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


def _total_weight(b: float, t: Any) -> Any:
    """Return 1 - b^t without cancellation near b = 1."""
    with np.errstate(divide="ignore"):  # b = 0
        return -np.expm1(t * np.log1p(b - 1.0))


def _next_root(root: FloatArray, b: float, g: FloatArray) -> FloatArray:
    """Return the root of b v + (1 - b) g^2, v the square of ``root``: nothing is squared."""
    return np.asarray(np.hypot(math.sqrt(b) * root, math.sqrt(1 - b) * g))


def _unit_number(value: Any, name: str, *, one: bool = False) -> Any:
    """Return ``value``, a fraction or a float, in (0, 1), or in (0, 1] as told."""
    if isinstance(value, Fraction):
        return _unit_rational(value, name, zero=False, one=one)
    return as_real(value, name, above=0.0, below=None if one else 1.0, maximum=1.0 if one else None)


def _unit_rational(value: Any, name: str, *, zero: bool = True, one: bool) -> Fraction:
    """Return ``value`` as a fraction between 0 and 1, ends included as told."""
    (number,) = _rationals([value], name)
    if not (0 <= number <= 1 and (zero or number) and (one or number != 1)):
        ends = ("[" if zero else "(") + "0, 1" + ("]" if one else ")")
        raise ValueError(f"{name}: expected a fraction in {ends}, got {number}")
    return number


def _rationals(values: Any, name: str) -> list[Fraction]:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) == 0:
        raise ValueError(
            f"{name}: expected a non-empty sequence of integers or fractions, got {values!r}"
        )
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Rational):
            raise ValueError(
                f"{name}: expected integers or fractions, which are exact, got {value!r}"
            )
    return [Fraction(int(value.numerator), int(value.denominator)) for value in values]
