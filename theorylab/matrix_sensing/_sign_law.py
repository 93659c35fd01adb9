r"""What the signs of noisy residuals are in the mean, and what that makes of the $\ell_1$ loss.

For Gaussian measurements and $s$ independent of them, the sign gradient points along $X$ in the
mean: $$\mathbb E\,\tfrac1{\sqrt m}\mathcal A^*\mathrm{sign}(\mathcal A(X)-s)=\varphi(X)\frac
X{\|X\|_F},\qquad \varphi(X)=\sqrt{\tfrac2\pi}\,\mathbb E\,e^{-ms^2/2\|X\|_F^2},$$ whatever the law
of $s$ (Sign-RIP of ma2022-global). Noise is given in the unit in which $\sqrt m\mathcal A(X)_i$ has
variance $\|X\|_F^2$."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real, as_symmetric
from theorylab.matrix_sensing.operators import MeasurementOperator

__all__ = [
    "best_median_error",
    "contaminate",
    "first_order_error",
    "l1_loss",
    "sign_scaling",
    "symmetric_data",
]


def sign_scaling(
    norm: float, *, outlier_fraction: float, mean: float = 0.0, spread: float = 0.0
) -> float:
    r"""Return $\varphi(X)$ where $\sqrt m\,s$ is 0 with probability $1-p$ and $N(\mu,\tau^2)$ with
    probability $p$.

    With $\sigma=\|X\|_F$, $\sqrt m\mathcal A(X)_i=\sigma z$ and $\mathbb E[\mathrm{sign}(\sigma
    z-v)z]=\sqrt{2/\pi}\,e^{-v^2/2\sigma^2}$, so
    $$\varphi=\sqrt{\tfrac2\pi}\Big(1-p+p\,\frac\sigma{\sqrt{\sigma^2+\tau^2}}e^{-\mu^2/2(\sigma^2+\tau^2)}\Big).$$

    Parameters
    ----------
    norm
        $\|X\|_F>0$.
    outlier_fraction
        $p\in[0,1]$.
    mean, spread
        $\mu$ and $\tau\ge0$; $\tau=0$ is a point mass, of which any law is a mixture.

    Returns
    -------
    float
        $\varphi(X)$, between 0 and $\sqrt{2/\pi}$.

    Notes
    -----
    ma2022-global, scaling function of Sign-RIP (paper's text not consulted); derived here.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import sign_scaling
    >>> np.round(sign_scaling(1.5, outlier_fraction=0.0) * np.sqrt([np.pi / 2]), 12)
    array([1.])
    """
    sigma = as_real(norm, "norm", above=0.0)
    p = as_real(outlier_fraction, "outlier_fraction", minimum=0.0, maximum=1.0)
    mu, tau = as_real(mean, "mean"), as_real(spread, "spread", minimum=0.0)
    width = np.hypot(sigma, tau)
    return float(
        np.sqrt(2 / np.pi) * (1 - p + p * sigma / width * np.exp(-((mu / width) ** 2) / 2))
    )


def contaminate(
    n_measurements: int,
    *,
    outlier_fraction: float,
    mean: float = 0.0,
    spread: float = 1.0,
    rng: np.random.Generator,
) -> FloatArray:
    r"""Draw the noise $s$: each entry is 0 with probability $1-p$, else $N(\mu,\tau^2)/\sqrt m$,
    independent of everything.

    Parameters
    ----------
    n_measurements
        $m$.
    outlier_fraction
        $p\in[0,1]$; 1 is dense noise.
    mean, spread
        $\mu$ and $\tau\ge0$.
    rng
        Source of randomness.

    Returns
    -------
    FloatArray
        $s$, shape ``(m,)``, on the scale of $\mathcal A(X)$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import contaminate
    >>> noise = contaminate(
    ...     1000, outlier_fraction=0.3, mean=0.0, spread=1.0, rng=np.random.default_rng(0)
    ... )
    >>> int(np.count_nonzero(noise))
    277
    """
    m = as_count(n_measurements, "n_measurements")
    p = as_real(outlier_fraction, "outlier_fraction", minimum=0.0, maximum=1.0)
    mu, tau = as_real(mean, "mean"), as_real(spread, "spread", minimum=0.0)
    rng = as_instance(rng, "rng", np.random.Generator)
    return np.asarray(
        np.where(rng.random(m) < p, mu + tau * rng.standard_normal(m), 0.0) / np.sqrt(m)
    )


def l1_loss(operator: MeasurementOperator, measurements: ArrayLike, X: ArrayLike) -> float:
    r"""Return $\frac1{\sqrt m}\|\mathcal A(X)-y\|_1$; without noise its mean is
    $\sqrt{2/\pi}\,\|X-M\|_F$.

    Parameters
    ----------
    operator
        Measurements.
    measurements
        $y$, shape ``(m,)``.
    X
        Matrix of the operator's shape.

    Returns
    -------
    float
        The loss.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, l1_loss
    >>> operator = gaussian_operator(3, 12, rng=np.random.default_rng(0))
    >>> l1_loss(operator, operator.forward(np.eye(3)), np.eye(3))
    0.0
    """
    operator = as_instance(operator, "operator", MeasurementOperator)
    y = as_array(measurements, "measurements", shape=(operator.n_measurements,))
    X = as_array(X, "X", shape=operator.shape)
    return float(np.abs(operator.forward(X) - y).sum() / np.sqrt(y.size))


def best_median_error(noise_spread: float, *, n: int, rank: int, n_measurements: int) -> float:
    r"""Return $\nu\sqrt{\frac\pi2\,\frac{rn-r(r-1)/2}m}$, the root mean square error of least
    absolute deviations at known rank.

    On the tangent space of the rank-$r$ matrices, of dimension $D=rn-r(r-1)/2$, the minimiser of
    the $\ell_1$ loss under noise $N(0,\nu^2)$ has asymptotic covariance $I/(4mp_\nu(0)^2)$ with the
    noise density $p_\nu(0)=1/(\nu\sqrt{2\pi})$. (Derived here; it gives the constant in the
    $O(\sqrt{\nu^2nr/m})$ of ma2022-global.)

    Parameters
    ----------
    noise_spread
        $\nu>0$.
    n
        Size of the matrices.
    rank
        $r\le n$; ``n`` for an unrestricted symmetric matrix.
    n_measurements
        $m$.

    Returns
    -------
    float
        The error, in Frobenius norm.

    Examples
    --------
    >>> from theorylab.matrix_sensing import best_median_error
    >>> best_median_error(0.5, n=5, rank=1, n_measurements=100)
    0.14012478040994822
    """
    nu, n, m = (
        as_real(noise_spread, "noise_spread", above=0.0),
        as_count(n, "n"),
        as_count(n_measurements, "n_measurements"),
    )
    r = as_count(rank, "rank", maximum=n)
    return float(nu * np.sqrt(np.pi / 2 * (r * n - r * (r - 1) / 2) / m))


def first_order_error(
    operator: MeasurementOperator,
    noise: ArrayLike,
    truth: ArrayLike,
    *,
    rank: int,
    noise_spread: float,
) -> FloatArray:
    r"""Return $\nu\sqrt{\frac\pi2}\,P_T\big(\frac1{\sqrt m}\mathcal A^*\mathrm{sign}(s)\big)$, the
    leading term of $\hat X-M$.

    $\hat X$ is the minimiser of the $\ell_1$ loss over rank $r$ under noise $N(0,\nu^2)$, $P_T$ the
    projection on the tangent space at $M$: to first order the mean sign gradient
    $\sqrt{2/\pi}\,(X-M)/\nu$ balances that of the noise (Bahadur's representation, relative
    remainder $O(m^{-1/4})$). Its root mean square norm is `best_median_error`. (Derived here.)

    Parameters
    ----------
    operator
        Symmetric Gaussian measurements.
    noise
        $s$ on the scale of the measurements, shape ``(m,)``.
    truth
        $M$, symmetric, shape ``(n, n)``.
    rank
        $r$, the rank of $M$.
    noise_spread
        $\nu>0$.

    Returns
    -------
    FloatArray
        Shape ``(n, n)``.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import first_order_error, gaussian_operator
    >>> operator = gaussian_operator(3, 12, rng=np.random.default_rng(0))
    >>> noise = np.linspace(-1.0, 1.0, 12)
    >>> truth = np.diag([1.0, 0.0, 0.0])
    >>> first_order_error(operator, noise, truth, rank=1, noise_spread=0.5)[1:, 1:]
    array([[0., 0.],
           [0., 0.]])
    """
    s = symmetric_data(operator, noise, "noise")
    M = as_symmetric(truth, "truth", size=operator.n_rows)
    r = as_count(rank, "rank", maximum=len(M))
    nu = as_real(noise_spread, "noise_spread", above=0.0)
    values, vectors = np.linalg.eigh(M)
    off = vectors[:, np.argsort(np.abs(values))[: len(M) - r]]
    off = off @ off.T
    D = operator.adjoint(np.sign(s))
    return np.asarray(nu * np.sqrt(np.pi / 2 / s.size) * (D - off @ D @ off))


def symmetric_data(
    operator: MeasurementOperator, values: ArrayLike, name: str = "measurements"
) -> FloatArray:
    operator = as_instance(operator, "operator", MeasurementOperator)
    if not operator.symmetric:
        raise ValueError("operator: expected symmetric measurements, got general ones")
    return as_array(values, name, shape=(operator.n_measurements,))
