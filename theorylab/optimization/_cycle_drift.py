r"""Where Adam ends on linear losses whose slopes repeat: its moments settle into a cycle.

With $\alpha_t=\alpha/\sqrt t$ the iterate drifts by

$$x_{t+P}-x_t\approx-\alpha_tS,\qquad S=\sum_{j\le P}\frac{m_j}{\sqrt{v_j}},\qquad
G=\sum_{j\le P}g_j,$$

until it reaches an end of [-1, 1]. Where S and the total slope G differ in sign, this is the worst
point and $R_T/T\to2|G|/P$ (reddi2018-convergence, Theorems 1 and 2)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import lfilter

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent
from theorylab.optimization._step_histories import coefficient

__all__ = ["CycleDrift", "cycle_drift", "failing_period"]


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
    b1, b2 = coefficient(beta1, "beta1"), coefficient(beta2, "beta2")
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
