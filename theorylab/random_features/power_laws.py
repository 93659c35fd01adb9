r"""Error of ridge regression with a power-law spectrum after generations of its own labels.

For $\lambda_k=k^{-\beta}$, $\lambda_kw_k^2=k^{-1-2r\beta}$ and a final ridge
$\lambda=\delta/T\to0$ the error of :mod:`~theorylab.random_features.self_training` tends to
$C_b\lambda^{2r}+s^2C_v\lambda^{-1/\beta}/T$: generations of least squares act as noise,
$s^2=\sigma^2+n\sigma_0^2(T+d)/(T_0-d)$. Sums against integrals leave a relative
$O(\lambda^{1/\beta}+\lambda^{2-2r})$, the effective ridge $O(\lambda^{-1/\beta}/T)$."""

from __future__ import annotations

import math

from theorylab._validation import as_count, as_real, refuses_overflow
from theorylab.numerics.results import result

__all__ = ["PowerLawOptimum", "collapse_noise", "power_law_optimum"]


@result
class PowerLawOptimum:
    r"""Sharp power law $C_b\lambda^{2r}+s^2C_v\lambda^{-1/\beta}/T$ and its minimiser.

    Attributes
    ----------
    bias_constant, variance_constant
        $C_b$ and $C_v$.
    ridge
        Minimising $\lambda$ (delta / T); 0 without noise.
    test_risk
        Minimum; without noise the limit of the error at ridge 0.
    """

    bias_constant: float
    variance_constant: float
    ridge: float
    test_risk: float


@refuses_overflow("noise_variance", "synthetic_noise")
def collapse_noise(
    noise_variance: float,
    *,
    synthetic_noise: float,
    generations: int,
    n_modes: int,
    n_samples: int,
    n_synthetic: int,
) -> float:
    r"""Return the label noise $\sigma^2+n\sigma_0^2\frac{T+d}{T_0-d}$ that n generations of
    least squares amount to, for a final ridge that leaves most of the d modes unlearned.

    Parameters
    ----------
    noise_variance, synthetic_noise
        $\sigma^2$ of the last labels, $\sigma_0^2$ of those of each generation before.
    generations
        n, how often the data were replaced by the labels of a fit.
    n_modes, n_samples, n_synthetic
        d, T and $T_0>d$.

    Returns
    -------
    float

    Examples
    --------
    >>> from theorylab.random_features import collapse_noise
    >>> collapse_noise(
    ...     0.25,
    ...     synthetic_noise=0.25,
    ...     generations=3,
    ...     n_modes=50,
    ...     n_samples=50,
    ...     n_synthetic=150,
    ... )
    1.0
    """
    sigma2 = as_real(noise_variance, "noise_variance", minimum=0.0)
    own = as_real(synthetic_noise, "synthetic_noise", minimum=0.0)
    times = as_count(generations, "generations", minimum=0)
    d, n = as_count(n_modes, "n_modes"), as_count(n_samples, "n_samples")
    rows = as_count(n_synthetic, "n_synthetic", minimum=d + 1)
    return sigma2 + times * own * (n + d) / (rows - d)


@refuses_overflow("noise", "n_samples")
def power_law_optimum(
    spectral_exponent: float, source_exponent: float, *, n_samples: int, noise: float
) -> PowerLawOptimum:
    r"""Return the sharp power law of the error, and the ridge that it makes optimal.

    For $\lambda_k=k^{-\beta}$ and $\lambda_kw_k^2=k^{-1-2r\beta}$,

    $$C_b = \frac{\Gamma(2-2r)\Gamma(2r)}\beta,\qquad
    C_v = \Big(1-\frac1\beta\Big)C_1,\qquad C_1=\frac{\pi/\beta}{\sin(\pi/\beta)}.$$

    With noise the optimum is $\lambda^{2r+1/\beta}=\frac{s^2C_v}{2r\beta C_bT}$, of error
    $C_b(1+2r\beta)\lambda^{2r}$; without, $\beta C_b(C_1/T)^{2r\beta}$ at ridge 0.

    Parameters
    ----------
    spectral_exponent
        $\beta>1$.
    source_exponent
        r in (0, 1): beyond, ridge regression saturates.
    n_samples
        T.
    noise
        $s^2\ge0$, see :func:`collapse_noise`.

    Returns
    -------
    PowerLawOptimum

    Notes
    -----
    dohmatob2024-model has the exponents; the constants are derived here (the paper's text was not
    consulted).

    Examples
    --------
    >>> from theorylab.random_features import power_law_optimum
    >>> law = power_law_optimum(2.0, 0.5, n_samples=10**6, noise=1.0)
    >>> round(law.bias_constant, 4), round(law.variance_constant, 4), round(law.ridge, 7)
    (0.5, 0.7854, 8.51e-05)
    """
    beta = as_real(spectral_exponent, "spectral_exponent", above=1.0)
    r = as_real(source_exponent, "source_exponent", above=0.0, below=1.0)
    n = as_count(n_samples, "n_samples")
    s2 = as_real(noise, "noise", minimum=0.0)
    bias = math.gamma(2 - 2 * r) * math.gamma(2 * r) / beta
    count = math.pi / beta / math.sin(math.pi / beta)
    variance = (1 - 1 / beta) * count
    if s2 == 0:
        return PowerLawOptimum(bias, variance, 0.0, beta * bias * (count / n) ** (2 * r * beta))
    ridge = (s2 * variance / (2 * r * beta * bias * n)) ** (beta / (2 * r * beta + 1))
    return PowerLawOptimum(bias, variance, ridge, bias * (1 + 2 * r * beta) * ridge ** (2 * r))
