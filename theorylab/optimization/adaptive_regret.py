r"""Regret of Adam, AMSGrad and AdaGrad on linear losses whose slopes repeat, or are drawn at
random.

On losses $f_t(x)=g_tx$ over [-1, 1] the regret is $R_T=\sum_{t\le
T}g_tx_t-\min_x\sum_{t\le T}g_tx$. Where the slopes repeat with period P, the moments of Adam settle
into a cycle, and with $\alpha_t=\alpha/\sqrt t$ the iterate drifts by

$$x_{t+P}-x_t\approx-\alpha_tS,\qquad S=\sum_{j\le P}\frac{m_j}{\sqrt{v_j}},\qquad
G=\sum_{j\le P}g_j,$$

until it reaches an end. Where S and the total slope G differ in sign, this is the worst point and
$R_T/T\to2|G|/P$ (reddi2018-convergence, Theorems 1 and 2), against the bound of
kingma2014-adam, Theorem 4.1. Where no $t\hat v_{t,i}$ ever decreases, as under the running
maximum of AMSGrad, methods with $\beta_1=0$ on a box of side D have

$$R_T\le\frac{D^2\sqrt T}{2\alpha}\sum_i\sqrt{\hat v_{T,i}}
+\frac\alpha2\sum_{t\le T}\sum_i\frac{g_{t,i}^2}{\sqrt{t\,\hat v_{t,i}}},$$

which sharpens reddi2018-convergence, Theorem 4, in the case without momentum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp
from flint import arb, ctx, fmpq
from numpy.typing import ArrayLike, NDArray
from scipy.signal import lfilter

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    one_of,
)
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent
from theorylab.optimization.adam import BETA2, _coefficient, _history, _rationals, _unit_rational

__all__ = [
    "PERIOD_THREE_PRODUCTS",
    "CycleDrift",
    "OnlineRun",
    "RegretCertificate",
    "certified_regret",
    "cycle_drift",
    "cyclic_losses",
    "failing_period",
    "linear_regret",
    "random_losses",
]

PERIOD_THREE_PRODUCTS = {
    "projected, first period": 6 * (2 - BETA2) * (1 + 2 * BETA2 - BETA2**2),
    "projected, later periods": sp.Rational(15, 4) * (1 + 2 * BETA2),
    "unprojected, first period": 6
    * (2 - BETA2)
    * (1 + 2 * BETA2 - BETA2**2)
    / ((1 + BETA2) * (1 + BETA2 + BETA2**2)),
    "unprojected, later periods": sp.Rational(15, 4) * (1 + 2 * BETA2) / (1 - BETA2**5) ** 2,
}
r"""Bounds of ``(d/u)^2 (d/w)^2`` for the slopes (C, -1, -1), ``beta_1 = 0`` and ``beta_2 =
1/(1+C^2)``.

One period moves the iterate down by d and then up by u and w, unless it reaches 1 on the way. By
the inequality of the means $u+w\ge2\sqrt{uw}$, so a product of at most 16 gives $u+w\ge
d$: the iterate is back after every period. "Projected" is Adam without bias correction on [-1, 1];
"unprojected" is Adam with bias correction on the line, with losses that are flat beyond -1 and 1.
"""


# ------------------------------------------------------------------------------------------------
# Losses and runs
# ------------------------------------------------------------------------------------------------


def linear_regret(
    gradients: ArrayLike, iterates: ArrayLike, *, lower: float, upper: float
) -> float:
    r"""Regret $\sum_t g_t\cdot x_t-\min_{x\in[l,u]^d}\sum_tg_t\cdot x$ of linear losses on a
    box.

    For convex losses with these (sub)gradients it bounds the regret from above.

    Parameters
    ----------
    gradients, iterates
        Shape (T, d).
    lower, upper
        Ends of the box, finite.

    Examples
    --------
    >>> from theorylab.optimization import linear_regret
    >>> linear_regret([[1.0], [1.0]], [[0.0], [-1.0]], lower=-1.0, upper=1.0)
    1.0
    """
    g = as_array(gradients, "gradients", ndim=2)
    x = as_array(iterates, "iterates", shape=g.shape)
    low = as_real(lower, "lower")
    high = as_real(upper, "upper", minimum=low)
    units = binary_exponent(g), binary_exponent(x, low, high)
    g, x = np.ldexp(g, -units[0]), np.ldexp(x, -units[1])
    low, high = math.ldexp(low, -units[1]), math.ldexp(high, -units[1])
    total = g.sum(axis=0)
    regret = np.vdot(g, x) - np.minimum(low * total, high * total).sum()
    return float(_in_units(regret, sum(units)))


@result
class OnlineRun:
    """What a method did on linear losses, at the recorded times.

    Attributes
    ----------
    times
        Shape (n,): recorded times T.
    iterates
        Shape (n, d): x_T, the iterate at which the loss of time T is paid.
    regret
        Shape (n,): the regret R_T against the best fixed point.
    denominators
        Shape (n, d): the root by which the momentum was divided in step T.
    step_size, radius
        As given.
    """

    times: NDArray[np.int64]
    iterates: FloatArray
    regret: FloatArray
    denominators: FloatArray
    step_size: float
    radius: float
    _squares: FloatArray = field(repr=False)

    @property
    def average_regret(self) -> FloatArray:
        """R_T / T, shape (n,)."""
        return np.asarray(self.regret / self.times)

    @property
    def monotone_bound(self) -> FloatArray:
        r"""Bound of R_T on the box for ``beta1=0`` and $x_{t+1}=\Pi(x_t-\alpha
        g_t/\sqrt{t\hat v_t})$, shape (n,).

        $$\frac{D^2\sqrt T}{2\alpha}\sum_i\sqrt{\hat v_{T,i}}
        +\frac\alpha2\sum_{t\le T}\sum_i\frac{g_{t,i}^2}{\sqrt{t\,\hat v_{t,i}}},\qquad
        D=2\,\text{radius}:$$

        whenever every $t\hat v_{t,i}$ is non-decreasing in t, as for AMSGrad and AdaGrad.
        Derived by telescoping; it is the case without momentum of reddi2018-convergence, Theorem 4,
        with smaller constants. For Adam it is no bound."""
        return self.diameter_term + self.gradient_term

    @property
    def diameter_term(self) -> FloatArray:
        """First term of :attr:`monotone_bound`, shape (n,)."""
        roots = self.denominators.sum(axis=1)
        return np.asarray(
            (2 * self.radius) ** 2 * np.sqrt(self.times) / (2 * self.step_size) * roots
        )

    @property
    def gradient_term(self) -> FloatArray:
        """Second term of :attr:`monotone_bound`, shape (n,)."""
        return np.asarray(self.step_size / 2 * self._squares)


def cyclic_losses(
    slopes: ArrayLike,
    *,
    steps: int,
    method: str = "adam",
    step_size: float,
    beta1: float = 0.0,
    beta2: float,
    bias_correction: bool = False,
    domain: str = "projected",
    radius: float = 1.0,
    x0: float = 1.0,
    times: ArrayLike | None = None,
) -> OnlineRun:
    r"""Run a method with $\alpha_t=\alpha/\sqrt t$ on linear losses whose slopes repeat.

    At time t each coordinate pays $g_tx$ with $g_t$ = ``slopes[(t-1) % period]``. A
    history without repetition is a single period: ``steps=len(slopes)``.

    Parameters
    ----------
    slopes
        Shape (period,) or (period, d).
    steps
        Number of steps.
    method
        ``"adam"``, ``"amsgrad"`` or ``"adagrad"`` (for which the second moment is the mean of all
        squared gradients).
    step_size
        $\alpha$, positive.
    beta1, beta2
        Momentum coefficients in [0, 1).
    bias_correction
        Divide the moments by $1-\beta^t$; reddi2018-convergence does not, and AdaGrad has
        none.
    domain
        ``"projected"``: the iterate is clipped to [-radius, radius]. ``"flat"``: it is not, but
        each loss is constant beyond the end at which it is smallest, so that the losses are convex
        and Lipschitz on the line and their best point is still in [-radius, radius].
    radius
        Positive.
    x0
        Starting value of every coordinate.
    times
        Increasing integers between 1 and ``steps`` at which to record; by default about 200, evenly
        spread in logarithm.

    Raises
    ------
    ValueError
        Naming the argument.

    Examples
    --------
    >>> from theorylab.optimization import cyclic_losses
    >>> run = cyclic_losses([10.0, -1.0, -1.0], steps=3000, step_size=0.5, beta2=1 / 101)
    >>> float(run.iterates[-1, 0]) > 0.9  # the sum of the slopes is positive: -1 is best
    True
    """
    g = _history(slopes, "slopes")
    g = g.reshape(len(g), -1)
    count = as_count(steps, "steps")
    name = one_of(method, "method", ("adam", "amsgrad", "adagrad"))
    alpha = as_real(step_size, "step_size", above=0.0)
    b1, b2 = _coefficient(beta1, "beta1"), _coefficient(beta2, "beta2")
    corrected = as_flag(bias_correction, "bias_correction")
    if corrected and name == "adagrad":
        raise ValueError(
            "bias_correction: expected False for adagrad, whose second moment is a "
            "plain mean, got True"
        )
    flat = one_of(domain, "domain", ("projected", "flat")) == "flat"
    half = as_real(radius, "radius", above=0.0)
    start = as_real(x0, "x0", minimum=None if flat else -half, maximum=None if flat else half)
    recorded = _recorded_times(times, count)
    x, roots = np.empty((2, len(recorded), g.shape[1]))
    regret, squares = np.empty((2, len(recorded)))
    maximum, mean = name == "amsgrad", name == "adagrad"
    # The iterates do not depend on the units of the losses.
    exponent = binary_exponent(g)
    _cyclic_kernel(
        np.ldexp(g, -exponent),
        maximum,
        mean,
        alpha,
        b1,
        b2,
        corrected,
        flat,
        half,
        start,
        recorded,
        x,
        roots,
        regret,
        squares,
    )
    if not np.isfinite(x).all():
        raise ValueError(f"step_size: expected iterates within float64, got {alpha}")
    return OnlineRun(
        times=recorded,
        iterates=x,
        regret=_in_units(regret, exponent),
        denominators=_in_units(roots, exponent),
        step_size=alpha,
        radius=half,
        _squares=_in_units(squares, exponent),
    )


def random_losses(
    *,
    rare: float,
    common: float,
    probability: float,
    steps: int,
    chains: int,
    rng: np.random.Generator,
    method: str = "adam",
    step_size: float,
    beta1: float = 0.0,
    beta2: float,
    radius: float = 1.0,
    x0: float = 0.0,
) -> FloatArray:
    r"""Last iterates of independent runs on i.i.d. linear losses (reddi2018-convergence, Theorem 3
    and Section 5).

    The slope is ``rare`` with the given probability and ``common`` otherwise; steps
    $\alpha/\sqrt t$ without bias correction, clipped to [-radius, radius].

    Parameters
    ----------
    rare, common
        The two slopes.
    probability
        Of the first, in [0, 1].
    steps, chains
        Number of steps of each run, and of runs.
    rng
        Source of the slopes.
    method
        ``"adam"`` or ``"amsgrad"``.
    step_size, beta1, beta2, radius, x0
        As in :func:`cyclic_losses`.

    Returns
    -------
    ndarray
        Shape (chains,).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimization import random_losses
    >>> slopes = {"rare": 101.0, "common": -1.0, "probability": 0.02}  # of mean 1.04
    >>> size = {"steps": 2000, "chains": 20, "rng": np.random.default_rng(0)}
    >>> last = random_losses(**slopes, **size, step_size=0.5, beta2=0.5)
    >>> float(last.mean()) > 0.5
    True
    """
    slopes = as_real(rare, "rare"), as_real(common, "common")
    exponent = binary_exponent(*slopes)
    slopes = math.ldexp(slopes[0], -exponent), math.ldexp(slopes[1], -exponent)
    p = as_real(probability, "probability", minimum=0.0, maximum=1.0)
    count, runs = as_count(steps, "steps"), as_count(chains, "chains")
    as_instance(rng, "rng", np.random.Generator)
    maximum = one_of(method, "method", ("adam", "amsgrad")) == "amsgrad"
    alpha, half = as_real(step_size, "step_size", above=0.0), as_real(radius, "radius", above=0.0)
    b1, b2 = _coefficient(beta1, "beta1"), _coefficient(beta2, "beta2")
    x = np.full(runs, as_real(x0, "x0", minimum=-half, maximum=half))
    _random_kernel(*slopes, p, count, rng, maximum, alpha, b1, b2, half, x)
    return x


# ------------------------------------------------------------------------------------------------
# The stationary period of Adam
# ------------------------------------------------------------------------------------------------


@result
class CycleDrift:
    r"""The stationary period of Adam on repeating slopes, without bias correction.

    Attributes
    ----------
    slopes
        Shape (period,).
    ratios
        Shape (period,): $m/\sqrt v$ at each phase once the moments repeat.
    """

    slopes: FloatArray
    ratios: FloatArray

    @property
    def drift(self) -> float:
        """The iterate moves by minus this, times the step size, in one period."""
        return float(self.ratios.sum())

    @property
    def limit(self) -> float:
        """The end of [-1, 1] to which the iterate tends: 1 for negative drift; NaN without drift,
        where there is none."""
        return -math.copysign(1.0, self.drift) if self.drift else math.nan

    @property
    def average_regret(self) -> float:
        r"""Limit of $R_T/T$ on [-1, 1]: $2|G|$ per period at the wrong end, 0 at the
        right one."""
        total = float(self.slopes.sum())
        return (total * self.limit + abs(total)) / self.slopes.size

    @property
    def excursion(self) -> FloatArray:
        """Distance from the limit at each phase, divided by the step size: the reflected periodic
        walk, shape (period,)."""
        return _reflected(self.limit * self.ratios)

    def regret_between(self, start: int, stop: int, step_size: float) -> tuple[float, float]:
        r"""Enclose the regret of the times ``start`` < t <= ``stop``, both multiples of the period
        P, on [-1, 1].

        Valid once the moments repeat and the iterate has been at its end. The distance from the end
        at time t is then a sum of terms $\alpha_\tau r_\tau$ over less than the last period,
        in which $\alpha_\tau/\alpha_t$ lies between 1 and $(1-P/\text{start})^{-1/2}$:
        stretching the terms of one sign by that factor encloses the distance.

        Parameters
        ----------
        start, stop
            Multiples of the period.
        step_size
            $\alpha$ of $\alpha_t=\alpha/\sqrt t$.

        Raises
        ------
        ValueError
            Naming the argument; for ``start`` also when the stretched drift changes its sign, so
            that nothing is enclosed.
        """
        period = self.slopes.size
        first = as_count(start, "start", minimum=2 * period)
        last = as_count(stop, "stop", minimum=first + period)
        alpha = as_real(step_size, "step_size", above=0.0)
        if first % period or last % period:
            raise ValueError(
                f"start: expected multiples of the period {period}, got {first} and {last}"
            )
        outward = self.limit * self.ratios
        stretch = 1 / math.sqrt(1 - period / first)
        stretched = np.where(outward > 0, outward * stretch, outward)
        if stretched.sum() >= 0:
            raise ValueError(
                f"start: expected a later time, where the step size is steadier, got {first}"
            )
        far, near = (
            _reflected(stretched),
            _reflected(np.where(outward > 0, outward, outward * stretch)),
        )
        # At distance d from its end the iterate pays limit * slope * (1 - d).
        weights = -self.limit * self.slopes
        gain, loss = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
        # A phase recurs every period, so a sum of step sizes over its times lies between two
        # integrals.
        least, most = (
            2 * alpha / period * (math.sqrt(last + s) - math.sqrt(first + s))
            for s in (period, -period)
        )
        steady = self.average_regret * (last - first)
        low = steady + least * float(gain @ near) - most * float(loss @ far)
        high = steady + most * float(gain @ far) - least * float(loss @ near)
        return low, high


def cycle_drift(slopes: ArrayLike, *, beta1: float, beta2: float) -> CycleDrift:
    r"""Stationary period of $m/\sqrt v$ for repeating slopes, from the closed forms of the
    periodic moments.

    Parameters
    ----------
    slopes
        Shape (period,), not all zero; none zero where ``beta2`` is 0.
    beta1, beta2
        Momentum coefficients in [0, 1).

    Returns
    -------
    CycleDrift
        Its ``drift`` decides where Adam ends.

    Examples
    --------
    >>> from theorylab.optimization import cycle_drift
    >>> found = cycle_drift([3.0, -1.0, -1.0], beta1=0.0, beta2=0.1)
    >>> float(found.drift) < 0  # so Adam goes up, where the losses are largest
    True
    """
    g = as_array(slopes, "slopes", ndim=1)
    if not g.any():
        raise ValueError("slopes: expected an entry other than zero, got only zeros")
    b1, b2 = _coefficient(beta1, "beta1"), _coefficient(beta2, "beta2")
    if b2 == 0 and not g.all():
        raise ValueError("beta2: expected a positive number where a slope is 0, got 0.0")
    unit = np.ldexp(g, -binary_exponent(g))
    return CycleDrift(
        slopes=g, ratios=_periodic_average(unit, b1) / np.sqrt(_periodic_average(unit**2, b2))
    )


def failing_period(*, beta1: float, beta2: float, maximum: int = 100_000) -> int:
    r"""Find a period P at which Adam starts to end at the wrong point on slopes (P, -1, ..., -1),
    whose sum is 1.

    P fails and P - 1 does not (found by doubling and bisection); reddi2018-convergence, Theorem 2
    says that some period fails.

    Parameters
    ----------
    beta1, beta2
        Momentum coefficients in [0, 1), ``beta1`` below the root of ``beta2``.
    maximum
        Largest period tried.

    Raises
    ------
    ValueError
        Also where no period up to ``maximum`` fails.

    Examples
    --------
    >>> from theorylab.optimization import failing_period
    >>> failing_period(beta1=0.9, beta2=0.999)
    74
    """
    b2 = as_real(beta2, "beta2", above=0.0, below=1.0)
    b1 = as_real(beta1, "beta1", minimum=0.0, below=math.sqrt(b2))
    last = as_count(maximum, "maximum", minimum=2)
    low, high = 1, 2
    while _spike_drift(high, b1, b2) >= 0:
        if high == last:
            raise ValueError(f"maximum: expected a period that fails, got none up to {last}")
        low, high = high, min(2 * high, last)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _spike_drift(middle, b1, b2) < 0 else (middle, high)
    return high


# ------------------------------------------------------------------------------------------------
# Certified regret
# ------------------------------------------------------------------------------------------------


@result
class RegretCertificate:
    """Enclosures of the regret of an exact run and of the bound stated for it, as python-flint
    balls.

    Attributes
    ----------
    steps
        The time T.
    regret
        Ball around R_T.
    stated_bound
        Ball around the right-hand side of kingma2014-adam, Theorem 4.1, at the run's own constants.
    diameter
        Ball around the largest distance between two of the iterates and the best fixed point.
    """

    steps: int
    regret: arb
    stated_bound: arb
    diameter: arb

    @property
    def violated(self) -> bool:
        """Whether the regret provably exceeds the stated bound."""
        return bool(self.regret > self.stated_bound)


def certified_regret(
    slopes: Sequence[int],
    *,
    steps: int,
    step_size: Fraction,
    beta1: Fraction,
    beta2: Fraction,
    momentum_decay: Fraction = Fraction(1, 2),
    x0: Fraction,
    precision: int = 128,
) -> RegretCertificate:
    r"""Enclose the regret of Adam, as published, on the line, and the bound stated for it, in ball
    arithmetic.

    Losses of slope c are $c\max(x,-1)$ for c > 0 and $c\min(x,1)$ for c < 0: convex,
    with gradients bounded by $G_\infty=\max|c|$. Nothing is projected, the bias is corrected,
    ``eps=0``, $\alpha_t=\alpha/\sqrt t$ and $\beta_{1,t}=\beta_1\lambda^{t-1}$: the
    setting of kingma2014-adam, Theorem 4.1, whose bound is

    $$\frac{D^2\sqrt{T\hat v_T}}{2\alpha(1-\beta_1)}
    +\frac{\alpha(1+\beta_1)G_\infty\|g_{1:T}\|_2}{(1-\beta_1)\sqrt{1-\beta_2}(1-\gamma)^2}
    +\frac{D^2G_\infty\sqrt{1-\beta_2}}{2\alpha\,b\,(1-\lambda)^2},\qquad\gamma=\frac{\beta_1^2}{\sqrt{\beta_2}},$$

    with b the smaller of $1-\beta_1$ and, where positive, $\beta_1$: the last term
    circulates in both forms. D includes the distance to the best fixed point.

    Parameters
    ----------
    slopes
        One period of integers, each sign present.
    steps
        The time T, a multiple of the period.
    step_size
        Fraction $\alpha>0$.
    beta1, beta2
        Fractions in [0, 1), ``beta2`` positive, with $\gamma<1$.
    momentum_decay
        Fraction $\lambda$ in (0, 1).
    x0
        Fraction: the start.
    precision
        Bits.

    Raises
    ------
    ValueError
        Naming the argument; for ``precision`` when the side of a kink on which an iterate lies was
        not decided.

    Examples
    --------
    >>> from fractions import Fraction as F
    >>> from theorylab.optimization import certified_regret
    >>> rates = {"step_size": F(1, 2), "beta1": F(0), "beta2": F(1, 101), "x0": F(9, 10)}
    >>> found = certified_regret([10, -1, -1], steps=300, **rates)
    >>> bool(found.regret > found.stated_bound)
    True
    """
    g = [int(c) for c in _rationals(slopes, "slopes")]
    if any(c != d for c, d in zip(g, slopes, strict=True)) or not min(g) < 0 < max(g):
        raise ValueError("slopes: expected integers of both signs, got " + str(list(slopes)))
    count = as_count(steps, "steps")
    if count % len(g):
        raise ValueError(f"steps: expected a multiple of the period {len(g)}, got {count}")
    b1, b2 = (
        _unit_rational(beta1, "beta1", one=False),
        _unit_rational(beta2, "beta2", zero=False, one=False),
    )
    if b1**4 >= b2:
        raise ValueError(f"beta1: expected a square below the root of beta2 = {b2}, got {b1}")
    decay = _unit_rational(momentum_decay, "momentum_decay", zero=False, one=False)
    (alpha,), (start,) = _rationals([step_size], "step_size"), _rationals([x0], "x0")
    if alpha <= 0:
        raise ValueError(f"step_size: expected a positive fraction, got {alpha}")
    bits = as_count(precision, "precision", minimum=53)
    before = ctx.prec
    ctx.prec = bits
    try:
        return _enclosed_regret(g, count, alpha, b1, b2, decay, start)
    finally:
        ctx.prec = before


# ------------------------------------------------------------------------------------------------
# Private parts
# ------------------------------------------------------------------------------------------------


def _in_units(value: Any, exponent: int) -> Any:
    """Return the value times 2^exponent, which losses must be small enough for."""
    with np.errstate(over="ignore"):
        number = np.ldexp(value, exponent)
    if not np.isfinite(number).all():
        raise ValueError(
            "slopes, gradients: expected losses whose sum is a float64, got an overflow"
        )
    return number


def _recorded_times(times: ArrayLike | None, steps: int) -> NDArray[np.int64]:
    if times is None:
        return np.unique(np.geomspace(1, steps, 200).round().astype(np.int64))
    given = as_array(times, "times", ndim=1)
    recorded = given.astype(np.int64)
    if (
        (recorded != given).any()
        or (np.diff(recorded) <= 0).any()
        or recorded[0] < 1
        or recorded[-1] > steps
    ):
        raise ValueError(
            f"times: expected increasing integers between 1 and steps = {steps}, got {given}"
        )
    return recorded


@compiled
def _cyclic_kernel(  # type: ignore[no-untyped-def]
    slopes,
    maximum,
    mean,
    alpha,
    b1,
    b2,
    corrected,
    flat,
    radius,
    start,
    times,
    x_out,
    root_out,
    regret,
    squares,
):
    period, d = slopes.shape
    x = np.full(d, start)
    m, v, largest, total = np.zeros(d), np.zeros(d), np.zeros(d), np.zeros(d)
    paid, square_sum = 0.0, 0.0
    power1, power2 = 1.0, 1.0
    position = 0
    for t in range(1, times[-1] + 1):
        rate = alpha / math.sqrt(t)
        power1 *= b1
        power2 *= b2
        scale1 = 1 / (1 - power1) if corrected else 1.0
        scale2 = 1 / math.sqrt(1 - power2) if corrected else 1.0
        record = times[position] == t
        for i in range(d):
            slope = slopes[(t - 1) % period, i]
            g = slope
            here = x[i]
            if flat:
                here = max(here, -radius) if slope > 0 else min(here, radius)
                if here != x[i]:
                    g = 0.0
            paid += slope * here
            total[i] += slope
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = v[i] + (g * g - v[i]) / t if mean else b2 * v[i] + (1 - b2) * g * g
            largest[i] = max(largest[i], v[i])
            root = math.sqrt(largest[i] if maximum else v[i]) * scale2
            if record:
                x_out[position, i] = x[i]
                root_out[position, i] = root
            if root > 0:
                square_sum += g * g / (math.sqrt(t) * root)
                x[i] -= rate * m[i] * scale1 / root
                if not flat:
                    x[i] = min(max(x[i], -radius), radius)
        if record:
            best = 0.0
            for i in range(d):
                best -= radius * abs(total[i])
            regret[position] = paid - best
            squares[position] = square_sum
            position += 1


@compiled
def _random_kernel(rare, common, probability, steps, rng, maximum, alpha, b1, b2, radius, x):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        m, v, largest = 0.0, 0.0, 0.0
        for t in range(1, steps + 1):
            g = rare if rng.random() < probability else common
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            largest = max(largest, v)
            root = math.sqrt(largest if maximum else v)
            if root > 0:
                x[i] = min(max(x[i] - alpha / math.sqrt(t) * m / root, -radius), radius)


def _enclosed_regret(
    slopes: list[int],
    steps: int,
    alpha: Fraction,
    b1: Fraction,
    b2: Fraction,
    decay: Fraction,
    start: Fraction,
) -> RegretCertificate:
    rate, first, second, fading, x = (_ball(value) for value in (alpha, b1, b2, decay, start))
    best = arb(-1 if sum(slopes) > 0 else 1)
    m, v, paid = arb(0), arb(0), arb(0)
    highest, lowest = x.max(best), x.min(best)
    power1, power2, momentum, square_sum = arb(1), arb(1), first, 0
    for t in range(1, steps + 1):
        slope = slopes[(t - 1) % len(slopes)]
        side = x + 1 if slope > 0 else 1 - x
        if not (side > 0 or side < 0):
            raise ValueError(
                "precision: expected enough bits to decide on which side of its kink "
                f"iterate {t} lies"
            )
        inside = bool(side > 0)
        paid += slope * x if inside else -abs(slope)
        g = slope if inside else 0
        square_sum += g * g
        m = momentum * m + (1 - momentum) * g
        v = second * v + (1 - second) * (g * g)
        momentum, power1, power2 = momentum * fading, power1 * first, power2 * second
        corrected = v / (1 - power2)
        highest, lowest = highest.max(x), lowest.min(x)
        if square_sum:
            x -= rate * (m / (1 - power1)) / (t * corrected).sqrt()
    diameter = highest - lowest
    bound = _stated_regret_bound(
        steps,
        corrected,
        arb(square_sum).sqrt(),
        diameter,
        max(map(abs, slopes)),
        alpha=alpha,
        b1=b1,
        b2=b2,
        decay=decay,
    )
    # Over whole periods every point of [-1, 1] pays its product with the sum of the slopes, and
    # beyond it nothing is cheaper.
    optimum = -abs(sum(slopes)) * (steps // len(slopes))
    return RegretCertificate(
        steps=steps, regret=paid - optimum, stated_bound=bound, diameter=diameter
    )


def _stated_regret_bound(
    steps: int,
    second_moment: arb,
    gradient_norm: arb,
    diameter: arb,
    largest: int,
    *,
    alpha: Fraction,
    b1: Fraction,
    b2: Fraction,
    decay: Fraction,
) -> arb:
    """Return the right-hand side of kingma2014-adam, Theorem 4.1 (see :func:`certified_regret`),
    ``largest`` being G_infinity."""
    rate, first, second, fading = (_ball(value) for value in (alpha, b1, b2, decay))
    gamma = first**2 / second.sqrt()
    rest = (1 - second).sqrt()
    # The last term circulates with 1 - beta_1 and with beta_1 in the denominator: the smaller one
    # gives the weaker bound.
    smaller = _ball(min(1 - b1, b1 or 1 - b1))
    return (
        diameter**2 / (2 * rate * (1 - first)) * (steps * second_moment).sqrt()
        + rate * (1 + first) * largest / ((1 - first) * rest * (1 - gamma) ** 2) * gradient_norm
        + diameter**2 * largest * rest / (2 * rate * smaller * (1 - fading) ** 2)
    )


def _ball(value: Fraction) -> arb:
    return arb(fmpq(value.numerator, value.denominator))


def _periodic_average(g: FloatArray, b: float) -> FloatArray:
    """Return the periodic solution of y_j = b y_{j-1} + (1 - b) g_j."""
    last = lfilter([1 - b], [1.0, -b], g)[-1] / (1 - b**g.size)
    return np.asarray(lfilter([1 - b], [1.0, -b], g, zi=[b * last])[0])


def _spike_drift(period: int, b1: float, b2: float) -> float:
    """Return the drift on the slopes (P, -1, ..., -1) of that period P."""
    slopes = np.full(period, -1.0)
    slopes[0] = period
    return cycle_drift(slopes, beta1=b1, beta2=b2).drift


def _reflected(increments: FloatArray) -> FloatArray:
    """Return the periodic solution of e_{j+1} = max(0, e_j + increments_j) for increments of
    negative sum."""
    walk = np.concatenate([[0.0], np.cumsum(np.tile(increments, 2))[:-1]])
    return (walk - np.minimum.accumulate(walk))[increments.size :]
