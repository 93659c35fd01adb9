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
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent
from theorylab.optimization._step_histories import coefficient, gradient_history

__all__ = ["OnlineRun", "cyclic_losses", "linear_regret", "random_losses"]

_PORTION = 10**7  # steps of one coordinate between two looks at Ctrl-C


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
    callback: Callback | None = None,
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
    callback
        Called with a `Progress` at every recorded time: the objective is the regret. Where it
        returns True the run ends at that time.

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
    g = gradient_history(slopes, "slopes")
    g = g.reshape(len(g), -1)
    count = as_count(steps, "steps")
    name = one_of(method, "method", ("adam", "amsgrad", "adagrad"))
    alpha = as_real(step_size, "step_size", above=0.0)
    b1, b2 = coefficient(beta1, "beta1"), coefficient(beta2, "beta2")
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
    unit = np.ldexp(g, -exponent)
    moments, sums = np.zeros((4, g.shape[1])), np.array([0.0, 0.0, 1.0, 1.0])
    here, stops = np.full(g.shape[1], start), watcher(callback)
    portion, done = max(_PORTION // g.shape[1], 1), 0
    for position, time in enumerate(recorded):
        while done < time:
            begin, done = done, min(done + portion, int(time))
            _cyclic_kernel(
                unit, maximum, mean, alpha, b1, b2, corrected, flat, half, begin, done,
                done == int(time), here, moments, sums, x[position], roots[position],
            )  # fmt: skip
        best = -half * np.abs(moments[3]).sum()
        regret[position], squares[position] = sums[0] - best, sums[1]
        if stops(int(time), float(_in_units(regret[position], exponent))):
            kept = position + 1
            recorded, x, roots = recorded[:kept], x[:kept], roots[:kept]
            regret, squares = regret[:kept], squares[:kept]
            break
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
    b1, b2 = coefficient(beta1, "beta1"), coefficient(beta2, "beta2")
    x = np.full(runs, as_real(x0, "x0", minimum=-half, maximum=half))
    chain, taken, moments = 0, 0, np.zeros(3)
    while chain < runs:
        chain, taken = _random_kernel(
            *slopes, p, count, rng, maximum, alpha, b1, b2, half, x, chain, taken, _PORTION, moments
        )
    return x


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
    slopes, maximum, mean, alpha, b1, b2, corrected, flat, radius, begin, end, record,
    x, moments, sums, x_out, root_out,
):  # fmt: skip
    """Take the steps ``begin`` + 1 to ``end``, in place: ``x``, the moments, their maximum and the
    total slope, and sums: what was paid, the gradient term, and the powers of beta."""
    period, d = slopes.shape
    m, v, largest, total = moments
    paid, square_sum, power1, power2 = sums
    for t in range(begin + 1, end + 1):
        rate = alpha / math.sqrt(t)
        power1 *= b1
        power2 *= b2
        scale1 = 1 / (1 - power1) if corrected else 1.0
        scale2 = 1 / math.sqrt(1 - power2) if corrected else 1.0
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
            if record and t == end:
                x_out[i] = x[i]
                root_out[i] = root
            if root > 0:
                square_sum += g * g / (math.sqrt(t) * root)
                x[i] -= rate * m[i] * scale1 / root
                if not flat:
                    x[i] = min(max(x[i], -radius), radius)
    sums[:] = paid, square_sum, power1, power2


@compiled
def _random_kernel(  # type: ignore[no-untyped-def]
    rare, common, probability, steps, rng, maximum, alpha, b1, b2, radius, x, chain, taken, most,
    moments,
):  # fmt: skip
    """Take at most ``most`` steps, a chain to its end before the next; return where it stands."""
    m, v, largest = moments
    while chain < x.size and most > 0:
        for t in range(taken + 1, min(steps, taken + most) + 1):
            g = rare if rng.random() < probability else common
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g * g
            largest = max(largest, v)
            root = math.sqrt(largest if maximum else v)
            if root > 0:
                x[chain] = min(max(x[chain] - alpha / math.sqrt(t) * m / root, -radius), radius)
        now = min(steps, taken + most)
        most -= now - taken
        taken = now
        if taken == steps:
            chain, taken = chain + 1, 0
            m, v, largest = 0.0, 0.0, 0.0
    moments[:] = m, v, largest
    return chain, taken
