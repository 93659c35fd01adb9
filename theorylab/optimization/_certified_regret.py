r"""The regret of Adam in ball arithmetic, against the bound of kingma2014-adam, Theorem 4.1."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import sympy as sp
from flint import arb, ctx

from theorylab._validation import as_count
from theorylab.numerics.balls import ball
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.optimization._rationals import rationals, unit_rational
from theorylab.optimization._step_suprema import BETA2

__all__ = ["PERIOD_THREE_PRODUCTS", "RegretCertificate", "certified_regret"]

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
    callback: Callback | None = None,
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
    callback
        Called with a `Progress` after every period: the objective is the regret. Where it returns
        True the certificate is that of the ``steps`` by then.

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
    g = [int(c) for c in rationals(slopes, "slopes")]
    if any(c != d for c, d in zip(g, slopes, strict=True)) or not min(g) < 0 < max(g):
        raise ValueError("slopes: expected integers of both signs, got " + str(list(slopes)))
    count = as_count(steps, "steps")
    if count % len(g):
        raise ValueError(f"steps: expected a multiple of the period {len(g)}, got {count}")
    b1, b2 = (
        unit_rational(beta1, "beta1", one=False),
        unit_rational(beta2, "beta2", zero=False, one=False),
    )
    if b1**4 >= b2:
        raise ValueError(f"beta1: expected a square below the root of beta2 = {b2}, got {b1}")
    decay = unit_rational(momentum_decay, "momentum_decay", zero=False, one=False)
    (alpha,), (start,) = rationals([step_size], "step_size"), rationals([x0], "x0")
    if alpha <= 0:
        raise ValueError(f"step_size: expected a positive fraction, got {alpha}")
    bits = as_count(precision, "precision", minimum=53)
    before = ctx.prec
    ctx.prec = bits
    try:
        return _enclosed_regret(g, count, alpha, b1, b2, decay, start, callback)
    finally:
        ctx.prec = before


def _enclosed_regret(
    slopes: list[int],
    steps: int,
    alpha: Fraction,
    b1: Fraction,
    b2: Fraction,
    decay: Fraction,
    start: Fraction,
    callback: Callback | None,
) -> RegretCertificate:
    stops = watcher(callback)
    rate, first, second, fading, x = (ball(value) for value in (alpha, b1, b2, decay, start))
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
        if t % len(slopes) == 0:
            # Over whole periods every point of [-1, 1] pays its product with the sum of the slopes,
            # and beyond it nothing is cheaper.
            regret = paid + abs(sum(slopes)) * (t // len(slopes))
            if stops(t, float(regret)):
                break
    diameter = highest - lowest
    bound = _stated_regret_bound(
        t,
        corrected,
        arb(square_sum).sqrt(),
        diameter,
        max(map(abs, slopes)),
        alpha=alpha,
        b1=b1,
        b2=b2,
        decay=decay,
    )
    return RegretCertificate(steps=t, regret=regret, stated_bound=bound, diameter=diameter)


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
    rate, first, second, fading = (ball(value) for value in (alpha, b1, b2, decay))
    gamma = first**2 / second.sqrt()
    rest = (1 - second).sqrt()
    # The last term circulates with 1 - beta_1 and with beta_1 in the denominator: the smaller one
    # gives the weaker bound.
    smaller = ball(min(1 - b1, b1 or 1 - b1))
    return (
        diameter**2 / (2 * rate * (1 - first)) * (steps * second_moment).sqrt()
        + rate * (1 + first) * largest / ((1 - first) * rest * (1 - gamma) ** 2) * gradient_norm
        + diameter**2 * largest * rest / (2 * rate * smaller * (1 - fading) ** 2)
    )
