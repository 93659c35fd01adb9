"""Power laws: the best ratio of training to test risk, and the noise above which fitting is best.

Eigenvalues $i^{-\\alpha}$, squared coefficients $i^{-\\beta}$; see
:mod:`~theorylab.random_features.eigenframework`."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import binom, zeta

from theorylab._validation import as_count, as_real, refuses_overflow

__all__ = ["interpolation_threshold", "optimal_fitting_ratio", "power_law_fitting_ratio"]
__all__ += ["power_law_threshold"]


def interpolation_threshold(spectral_exponent: float, target_exponent: float) -> float:
    r"""Return the relative noise $(\beta-\alpha)/(\alpha(\alpha-1))$ up to which
    interpolation is optimal.

    Parameters
    ----------
    spectral_exponent
        $\alpha>1$, $\lambda_i\propto i^{-\alpha}$.
    target_exponent
        $\beta>1$, $v_i^2\propto i^{-\beta}$. The theorem needs $\beta<2\alpha+1$:
        beyond, the bias decays as it does for $\beta=2\alpha+1$.

    Returns
    -------
    float
        A bound on $\sigma^2$ in units of the noiseless ridgeless test risk; negative where no
        noise is low enough.

    Raises
    ------
    ValueError
        If an exponent is outside its range.

    Notes
    -----
    simon2024-more, the theorem on the optimal fitting ratio (the paper's text was not consulted;
    derived again in the tests).

    Examples
    --------
    >>> from theorylab.random_features import interpolation_threshold
    >>> interpolation_threshold(1.5, 3.0)
    2.0
    """
    alpha, beta = _exponents(spectral_exponent, target_exponent)
    return (beta - alpha) / (alpha * (alpha - 1))


@refuses_overflow("spectral_exponent", "target_exponent")
def optimal_fitting_ratio(
    spectral_exponent: float, target_exponent: float, *, relative_noise: float
) -> float:
    r"""Return the limit of $\mathcal E_{tr}/\mathcal E_{te}$ at the optimal ridge of kernel
    regression.

    The root r in [0, 1) of
    $\alpha-\beta-(\alpha-1)\beta\sqrt r+\alpha(\alpha-1)\sigma_{rel}^2(1-\sqrt r)^\beta=0$ if
    the left side is positive at 0, else 0.

    Parameters
    ----------
    spectral_exponent, target_exponent
        As for :func:`interpolation_threshold`.
    relative_noise
        $\sigma_{rel}^2\ge0$: the noise variance in units of the noiseless ridgeless test
        risk.

    Returns
    -------
    float

    Notes
    -----
    simon2024-more, the theorem on the optimal fitting ratio (the paper's text was not consulted;
    derived again in the tests).

    Examples
    --------
    >>> from theorylab.random_features import interpolation_threshold, optimal_fitting_ratio
    >>> edge = interpolation_threshold(1.5, 3.0)
    >>> ratios = [optimal_fitting_ratio(1.5, 3.0, relative_noise=s) for s in (edge, 10.0, 1e6)]
    >>> [round(r, 2) for r in ratios]  # the more noise, the less is fitted
    [0.0, 0.12, 0.97]
    """
    alpha, beta = _exponents(spectral_exponent, target_exponent)
    noise = as_real(relative_noise, "relative_noise", minimum=0.0)

    def slope(root: float) -> float:
        value: float = (
            alpha
            - beta
            - (alpha - 1) * beta * root
            + alpha * (alpha - 1) * noise * (1 - root) ** beta
        )
        return value

    if not math.isfinite(slope(0.5)):
        raise OverflowError
    if slope(0.0) <= 0.0:
        return 0.0
    return float(brentq(slope, 0.0, 1.0, xtol=1e-15, rtol=1e-14)) ** 2


@refuses_overflow("target_exponent", "relative_noise")
def power_law_fitting_ratio(
    spectral_exponent: float, target_exponent: float, *, relative_noise: float, n_samples: int
) -> float:
    r"""Return $\mathcal E_{tr}/\mathcal E_{te}$ at the optimal ridge for n samples and
    infinitely many power-law modes.

    Parameters
    ----------
    spectral_exponent, target_exponent
        $\alpha>1$ and $\beta>1$, with $\alpha\le50$ and
        $n^\alpha\le10^{100}$.
    relative_noise
        $\sigma_{rel}^2\ge0$: the noise variance in units of the noiseless ridgeless test risk
        at this n.
    n_samples
        n, at least 2.

    Returns
    -------
    float
        From the stationary points of the predicted test risk in $\gamma$; sums over modes are
        exact to rounding (explicit terms, then Hurwitz zeta tails).

    Examples
    --------
    >>> from theorylab.random_features import optimal_fitting_ratio, power_law_fitting_ratio
    >>> limit = optimal_fitting_ratio(1.5, 2.0, relative_noise=5.0)
    >>> at = power_law_fitting_ratio(1.5, 2.0, n_samples=10_000, relative_noise=5.0)
    >>> abs(at - limit) < 0.02
    True
    """
    alpha, beta = _exponents(spectral_exponent, target_exponent)
    relative = as_real(relative_noise, "relative_noise", minimum=0.0)
    n = as_count(n_samples, "n_samples", minimum=2)
    edge = _power_law_gamma(alpha, n)
    bias, _, free, _, _ = _power_law_terms(edge, alpha, beta, n)
    noise = relative * n * bias / free

    def slope(t: float) -> float:
        bias, bias_slope, free, free_slope, _ = _power_law_terms(math.exp(t), alpha, beta, n)
        return bias_slope / (bias + noise) - free_slope / free

    def log_risk(t: float) -> float:
        bias, _, free, _, _ = _power_law_terms(math.exp(t), alpha, beta, n)
        return math.log((bias + noise) / free)

    # Beyond the last point the slope is positive: for gamma >= 2 the bias has slope at least 1 / (4
    # gamma), and n - q >= n / 2 has slope at most 2 zeta(2 alpha) / gamma^2.
    last = math.log(max(2.0, edge, 16 * float(zeta(2 * alpha)) * (float(zeta(beta)) + noise) / n))
    # The risk is smooth in log gamma on the scale 1: its local minima lie between grid points where
    # the slope turns positive.
    grid = np.append(np.arange(math.log(edge), last, 0.1), last)
    slopes = [slope(t) for t in grid]
    minima = [grid[0]] if slopes[0] >= 0 else []
    minima += [
        float(brentq(slope, lo, hi, xtol=1e-13))
        for lo, hi, s, r in zip(grid[:-1], grid[1:], slopes[:-1], slopes[1:], strict=True)
        if s < 0 <= r
    ]
    if not minima:
        raise ArithmeticError  # slopes that are not numbers
    best = min(minima, key=log_risk)
    if best == grid[0]:
        return 0.0
    z = _power_law_terms(math.exp(best), alpha, beta, n)[-1]
    return (1 - z / n) ** 2


@refuses_overflow("target_exponent")
def power_law_threshold(
    spectral_exponent: float, target_exponent: float, *, n_samples: int
) -> float:
    r"""Return the relative noise above which ridge 0 stops being a local minimum, for n samples and
    power-law modes.

    Parameters
    ----------
    spectral_exponent, target_exponent, n_samples
        As for :func:`power_law_fitting_ratio`.

    Returns
    -------
    float
        In units of the noiseless ridgeless test risk at this n; :func:`interpolation_threshold` is
        its limit.

    Examples
    --------
    >>> from theorylab.random_features import interpolation_threshold, power_law_threshold
    >>> at = power_law_threshold(1.5, 2.0, n_samples=10_000)
    >>> abs(at / interpolation_threshold(1.5, 2.0) - 1) < 0.1
    True
    """
    alpha, beta = _exponents(spectral_exponent, target_exponent)
    n = as_count(n_samples, "n_samples", minimum=2)
    bias, bias_slope, free, free_slope, _ = _power_law_terms(
        _power_law_gamma(alpha, n), alpha, beta, n
    )
    # The slope of log((bias + noise) / free) in log gamma vanishes at this noise, in units of n
    # bias / free.
    return (bias_slope * free / free_slope - bias) * free / (n * bias)


def _exponents(spectral_exponent: float, target_exponent: float) -> tuple[float, float]:
    alpha = as_real(spectral_exponent, "spectral_exponent", above=1.0)
    return alpha, as_real(target_exponent, "target_exponent", above=1.0)


def _power_sum(gamma: float, alpha: float, exponent: float, learned: int, unlearned: int) -> float:
    r"""Return $\sum_{i\ge1}i^{-\beta}p_i^a(1-p_i)^b$ with
    $p_i=i^{-\alpha}/(i^{-\alpha}+\gamma)$.

    The integers a and b are ``learned`` and ``unlearned``.
    """
    # Beyond N the ratio lambda / gamma is at most 10^(-18 / terms), so that this many terms of the
    # binomial series reach rounding: nine, fewer where their powers of gamma would overflow.
    terms = 9 if gamma > 1e-30 else max(1, int(300 / -math.log10(gamma)) - 1)
    count = math.ceil((10.0 ** (18 / terms) / gamma) ** (1 / alpha))
    i = np.arange(1, count + 1, dtype=np.float64)
    ratio = i**-alpha / gamma
    head = float((i**-exponent * ratio**learned * (1 + ratio) ** -(learned + unlearned)).sum())
    j = np.arange(terms)
    tails = gamma ** -(learned + j) * zeta(exponent + alpha * (learned + j), count + 1.0)
    return head + float(((-1.0) ** j * binom(learned + unlearned + j - 1, j) * tails).sum())


def _power_law_gamma(alpha: float, n: int) -> float:
    """Return gamma with n learned modes."""
    if alpha > 50 or alpha * math.log10(n) > 100:
        raise ValueError(
            "spectral_exponent: expected at most 50, and at most 100 / "
            f"log10(n_samples), got {alpha}"
        )

    def excess(t: float) -> float:
        return math.log(_power_sum(math.exp(t), alpha, 0.0, 1, 0) / n)

    # z is below pi/alpha/sin(pi/alpha) gamma^(-1/alpha) and above that minus 1.
    centre = -alpha * math.log(n * alpha / math.pi * math.sin(math.pi / alpha))
    return math.exp(float(brentq(excess, centre - alpha, centre, xtol=1e-14, rtol=1e-14)))


def _power_law_terms(
    gamma: float, alpha: float, beta: float, n: int
) -> tuple[float, float, float, float, float]:
    """Return the bias, n - q, their slopes in log gamma, and z."""
    bias = _power_sum(gamma, alpha, beta, 0, 2)
    bias_slope = 2 * _power_sum(gamma, alpha, beta, 1, 2)
    q = _power_sum(gamma, alpha, 0.0, 2, 0)
    free_slope = 2 * _power_sum(gamma, alpha, 0.0, 2, 1)
    return bias, bias_slope, n - q, free_slope, _power_sum(gamma, alpha, 0.0, 1, 0)
