r"""Least squares from the mean responses of bags: bag-level and instance-level losses.

n = mk samples in m bags of k; of the responses only the bag means $\bar y_a$ are known. With
$\bar f_a$ the mean prediction of a bag,

$$\frac1n\sum_a\sum_{i\in a}(\bar y_a-f_i)^2=\frac1m\sum_a(\bar y_a-\bar f_a)^2
+\frac1n\sum_a\sum_{i\in a}(f_i-\bar f_a)^2 :$$

the instance loss is the bag loss plus a regulariser, and a weight $\rho$ of the regulariser
leads from the bag loss (0) to the instance loss (1). For linear predictions
$\hat\theta_\rho=(A+\rho B)^{-1}\bar X^\top\bar y/m$ with $A=\bar X^\top\bar X/m$ and B
the scatter within bags over n. Under a standard Gaussian design A and B are independent Wishart
matrices over n, of m and n - m degrees of freedom. For $n,d\to\infty$, $d/n\to a$,
$p=1/k$, the trace $u$ of $\frac1d(A+\rho B)^{-1}$ is the only positive root of

$$\rho a(1-a)u^2+(p+(1-p)\rho-a(1+\rho))u=1,$$

and every other trace follows by leaving one bag out (derived; the paper's text was not seen).

Source: javanmard2024-learning."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.bounds import power_of_two

__all__ = [
    "AggregateLosses",
    "AggregateRisk",
    "aggregate_losses",
    "aggregate_operator",
    "aggregate_risk",
    "bag_risk",
    "instance_risk",
    "optimal_private_share",
]


class AggregateLosses(NamedTuple):
    """Instance loss, bag loss, and the mean squared spread of the predictions within bags."""

    instance: float
    bag: float
    spread: float


class AggregateRisk(NamedTuple):
    r"""Of an estimator with mean $g\theta$: the gain g; the factor of
    $\|\theta\|^2$ in $\mathbb E\|\hat\theta-\theta\|^2$; the contribution of the
    noise."""

    gain: float
    signal: float
    noise: float

    def risk(self, signal: float = 1.0) -> float:
        r"""Return $\mathbb E\|\hat\theta-\theta\|^2$ at $\|\theta\|^2$ = ``signal``."""
        return self.signal * as_real(signal, "signal", minimum=0.0) + self.noise

    def variance(self, signal: float = 1.0) -> float:
        """Return the risk less the squared bias."""
        return self.risk(signal) - (1 - self.gain) ** 2 * signal


@refuses_overflow("predictions", "responses")
def aggregate_losses(predictions: ArrayLike, responses: ArrayLike) -> AggregateLosses:
    """Return the two losses of predictions, and what lies between them.

    Parameters
    ----------
    predictions
        (m, k), a row a bag.
    responses
        (m,) mean response of each bag.

    Examples
    --------
    >>> from theorylab.random_features import aggregate_losses
    >>> aggregate_losses([[1.0, 3.0]], [4.0])
    AggregateLosses(instance=5.0, bag=4.0, spread=1.0)
    """
    f = as_array(predictions, "predictions", ndim=2)
    y = as_array(responses, "responses", shape=(len(f),))
    centre = f.mean(axis=1)
    return AggregateLosses(
        float(np.mean((y[:, None] - f) ** 2)),
        float(np.mean((y - centre) ** 2)),
        float(np.mean((f - centre[:, None]) ** 2)),
    )


@refuses_overflow("X", "weight")
def aggregate_operator(X: ArrayLike, *, weight: float) -> FloatArray:
    r"""Return the matrix that maps bag means of the responses to $\hat\theta_\rho$.

    Parameters
    ----------
    X
        (m, k, d) inputs of the bags, or (..., m, k, d) for many designs.
    weight
        $\rho\ge0$ of the regulariser: 0 is the bag loss, 1 the instance loss.

    Returns
    -------
    array, shape (..., d, m)

    Raises
    ------
    ValueError
        If the loss has more than one minimiser: fewer bags than features at weight 0, or inputs
        that do not span.

    Examples
    --------
    >>> from theorylab.random_features import aggregate_operator
    >>> bags = [[[1.0], [3.0]], [[2.0], [2.0]]]
    >>> aggregate_operator(bags, weight=0.0).round(12).tolist()
    [[0.25, 0.25]]
    """
    X = as_array(X, "X")
    if X.ndim < 3:
        raise ValueError(f"X: expected bags of inputs, (..., m, k, d), got shape {X.shape}")
    rho = as_real(weight, "weight", minimum=0.0)
    unit = power_of_two(X)
    m, k, d = X.shape[-3:]
    means = X.mean(axis=-2) / unit
    within = (X / unit - means[..., None, :]).reshape(*X.shape[:-3], m * k, d)
    rows = np.concatenate([means, math.sqrt(rho / k) * within], axis=-2)
    operator = _by_gram(rows, means)
    if operator is None:
        Q, R = np.linalg.qr(rows)
        pivots = np.abs(np.diagonal(R, axis1=-2, axis2=-1))
        size = np.abs(rows).max(axis=(-2, -1))
        if R.shape[-2] < d or (pivots.min(axis=-1) <= 1e-13 * size).any():
            raise ValueError(
                f"X: expected bags that determine {d} coefficients at weight {rho:g}, got {m} bags "
                f"of {k} inputs with more than one minimiser"
            )
        operator = np.linalg.solve(R, np.swapaxes(Q[..., :m, :], -1, -2))
    return np.asarray(operator / unit, dtype=np.float64)


def _by_gram(rows: FloatArray, means: FloatArray) -> FloatArray | None:
    """Return the operator by the normal equations, None unless they are well conditioned."""
    gram = np.swapaxes(rows, -1, -2) @ rows
    try:
        pivots = np.diagonal(np.linalg.cholesky(gram), axis1=-2, axis2=-1)
    except np.linalg.LinAlgError:
        return None
    if (pivots.min(axis=-1) < 1e-3 * pivots.max(axis=-1)).any():
        return None
    return np.asarray(np.linalg.solve(gram, np.swapaxes(means, -1, -2)), dtype=np.float64)


@refuses_overflow("noise_variance", "privacy_variance", "weight", infinite=True)
def aggregate_risk(
    *,
    aspect: float,
    bag_size: float,
    weight: float,
    noise_variance: float,
    privacy_variance: float = 0.0,
) -> AggregateRisk:
    r"""Return the proportional limit of gain and risk of $\hat\theta_\rho$ for a standard
    Gaussian design in random bags.

    Parameters
    ----------
    aspect
        $a=d/n<1$; below 1 / k at weight 0.
    bag_size
        k, at least 1; the formula also holds between integers.
    weight
        $\rho\ge0$.
    noise_variance
        Of a response.
    privacy_variance
        c, if the released means carry independent noise of variance $c/k^2$.

    Examples
    --------
    >>> from theorylab.random_features import aggregate_risk
    >>> half = aggregate_risk(aspect=0.5, bag_size=2, weight=1.0, noise_variance=1.0)
    >>> [round(v, 12) for v in half]
    [0.5, 0.5, 0.5]
    """
    a = as_real(aspect, "aspect", above=0.0, below=1.0)
    p = 1 / as_real(bag_size, "bag_size", minimum=1.0)
    rho = as_real(weight, "weight", minimum=0.0)
    if rho == 0.0 and a >= p:
        raise ValueError(f"aspect: expected less than 1 / bag_size = {p:g} at weight 0, got {a:g}")
    noise = _noise(noise_variance, privacy_variance, p)
    # The product of the roots is negative, so that one is positive.
    square, half = rho * a * (1 - a), (p + (1 - p) * rho - a * (1 + rho)) / 2
    root = math.hypot(half, math.sqrt(square))
    u = 1 / (half + root) if half > 0 else (root - half) / square
    left = 1 + a * u
    slope = p / left**2 + (1 - p) * rho / (1 + rho * a * u) ** 2
    v, gain = u / slope, p * u / left
    w = p * v / left**2
    second = p / left * (w + a * v * (1 - gain) / left)
    return AggregateRisk(gain, max(1 - 2 * gain + second, 0.0), noise * a * w)


@refuses_overflow("noise_variance", "privacy_variance")
def bag_risk(
    *,
    n_bags: int,
    n_features: int,
    bag_size: int,
    noise_variance: float,
    privacy_variance: float = 0.0,
) -> AggregateRisk:
    """Return gain and risk of the bag loss for a standard Gaussian design, exact at every size.

    Parameters
    ----------
    n_bags, n_features
        m > d + 1.
    bag_size
        k.
    noise_variance, privacy_variance
        As in :func:`aggregate_risk`.

    Examples
    --------
    >>> from theorylab.random_features import bag_risk
    >>> bag_risk(n_bags=10, n_features=4, bag_size=3, noise_variance=1.0)
    AggregateRisk(gain=1.0, signal=0.0, noise=0.8)
    """
    m, d, p = _sizes(n_bags, n_features, bag_size)
    if m <= d + 1:
        raise ValueError(f"n_bags: expected more than n_features + 1 = {d + 1}, got {m}")
    return AggregateRisk(1.0, 0.0, _noise(noise_variance, privacy_variance, p) * d / (m - d - 1))


@refuses_overflow("noise_variance", "privacy_variance")
def instance_risk(
    *,
    n_bags: int,
    n_features: int,
    bag_size: int,
    noise_variance: float,
    privacy_variance: float = 0.0,
) -> AggregateRisk:
    r"""Return gain and risk of the instance loss for a standard Gaussian design in random bags,
    exact at every size.

    With P the projector on vectors that are constant in bags, $X=UR$ and
    $Q=U^\top PU$, $\hat\theta=R^{-1}QR\theta$ without noise; U is uniform and
    independent of R, $\mathbb EQSQ=\alpha S+\beta\operatorname{tr}(S)I$, and
    $\mathbb E\operatorname{tr}(W^{-1})\operatorname{tr}(W)=(nd-2)d/(n-d-1)$ for
    $W=X^\top X$.

    Parameters
    ----------
    n_bags, n_features, bag_size
        mk > d + 1.
    noise_variance, privacy_variance
        As in :func:`aggregate_risk`.

    Examples
    --------
    >>> from theorylab.random_features import instance_risk
    >>> instance_risk(n_bags=10, n_features=4, bag_size=1, noise_variance=1.0)
    AggregateRisk(gain=1.0, signal=0.0, noise=0.8)
    """
    m, d, p = _sizes(n_bags, n_features, bag_size)
    n = m * bag_size
    if n <= d + 1:
        raise ValueError(f"n_bags: expected more than n_features + 1 = {d + 1} samples, got {n}")
    beta = m * (n - m) / (n * (n + 2) * (n - 1))
    alpha = m * (m + 2) / (n * (n + 2)) - beta
    signal = 1 - 2 * p + alpha + beta * (n * d - 2) / (n - d - 1)
    noise = _noise(noise_variance, privacy_variance, p) * p * d / (n - d - 1)
    return AggregateRisk(p, max(signal, 0.0), noise)


@refuses_overflow("noise_variance", "privacy_variance")
def optimal_private_share(
    *, aspect: float, noise_variance: float, privacy_variance: float
) -> float:
    r"""Return the $u=1/k\in[0,1]$ of least limiting risk of the instance loss at
    $\|\theta\|=1$.

    The risk is $(1-u)^2+r(u(1-u)+\sigma^2u+cu^2)$, $r=a/(1-a)$; 0 says that the zero
    estimator is better than every bag size.

    Parameters
    ----------
    aspect, noise_variance, privacy_variance
        As in :func:`aggregate_risk`.

    Examples
    --------
    >>> from theorylab.random_features import optimal_private_share
    >>> optimal_private_share(aspect=0.5, noise_variance=0.0, privacy_variance=1.0)
    0.5
    """
    a = as_real(aspect, "aspect", above=0.0, below=1.0)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    c = as_real(privacy_variance, "privacy_variance", minimum=0.0)
    # Both sides times 1 - a, so that nothing divides by it.
    slope, curvature = 2 * (1 - a) - a * (1 + noise), 2 * (1 - 2 * a + a * c)
    if curvature > 0:
        return min(1.0, max(0.0, slope / curvature))
    return 1.0 if slope >= curvature / 2 else 0.0


def _noise(noise_variance: float, privacy_variance: float, p: float) -> float:
    """Return k times the variance of the noise in a released mean."""
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    return noise + as_real(privacy_variance, "privacy_variance", minimum=0.0) * p


def _sizes(n_bags: int, n_features: int, bag_size: int) -> tuple[int, int, float]:
    m, d = as_count(n_bags, "n_bags"), as_count(n_features, "n_features")
    return m, d, 1 / as_count(bag_size, "bag_size")
