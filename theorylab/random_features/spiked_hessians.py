r"""Extreme eigenvalues of mini-batch Hessians: a spike, and the noise of the batch.

Per-sample Hessians $H_i$, of size P, with mean H over all N samples differ from it by
matrices of independent entries of variance $\sigma^2$ (twice that on the diagonal). The mean
over a batch of b drawn without replacement is H plus a Gaussian matrix with semicircle of
radius 2s,

$$s^2=P\sigma^2\Big(\frac1b-\frac1N\Big)=\frac{P\sigma^2}b\Big(1-\frac bN\Big).$$

If H has finite rank, an extreme eigenvalue $\lambda$ becomes, as P grows (Baik, Ben Arous and
Péché),

$$\lambda+\frac{s^2}\lambda\ \text{ if }|\lambda|>s,\qquad
\pm2s\ \text{ (its sign) otherwise.}$$

The corrections of the mean up to 1/P are, with $t=s/\lambda$ and the other eigenvalues
$u_js$ (for $\lambda<0$ mirrored),

$$\frac sP\Big[-\frac{t(1-2t^2)}{1-t^2}+\sum_j\frac{t^2u_j}{1-tu_j}\Big]\ \text{ and }\
-1.2065336\,sP^{-2/3}+\frac sP\Big[-\frac12+\frac{1}{t-1}+\sum_j\frac{u_j}{1-u_j}\Big]$$

(from the loop equation and the resolvent between two eigenvectors; Tracy and Widom's mean, the
centring of Johnstone and Ma, recalled, and the boundary condition of the stochastic Airy operator;
derived, not proved). The largest stable learning rate is $2/\lambda_{\max}$. With
$\kappa=P\sigma^2/\lambda^2$ and $e=s^2/\lambda^2=\kappa(1/b-1/N)$ it grows as
$\sqrt b$ in the bulk ($e\ge1$, $b\ll N$), and on the spiked branch
$d\log\eta/d\log b=(e+\kappa/N)/(1+e)$, which is 1 if and only if $N=\kappa$.

Without any model, for symmetric matrices $H_i$ and batches drawn without replacement,
$\operatorname E\lambda_{\max}$ decreases and $\operatorname E\lambda_{\min}$ increases
in b: a batch of b + 1 is the mean of its parts of size b, and $\lambda_{\max}$ is convex.

Source: granziol2022-learning (its limits recalled, which drop the factor 1 - b/N)."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    as_symmetric,
    one_of,
    refuses_overflow,
)

__all__ = [
    "batch_extremes",
    "batch_noise",
    "edge_correction",
    "edge_location",
    "learning_rate_slope",
    "maximal_learning_rate",
    "sample_batch_hessian",
]

TRACY_WIDOM_MEAN = -1.2065335745820
"""Mean of the Tracy-Widom law of real symmetric matrices."""
MAX_BATCHES = 100_000
_BLOCK = 2**24  # entries of the batches' matrices held at a time


@refuses_overflow("sigma")
def batch_noise(
    sigma: float, *, n_parameters: int, batch: int, n_samples: int | None = None
) -> float:
    """Return s, half the radius of the semicircle of a batch's noise.

    Parameters
    ----------
    sigma
        Standard deviation of an off-diagonal entry of a per-sample Hessian, >= 0.
    n_parameters, batch, n_samples
        P, b and N >= b; None is infinitely many.

    Examples
    --------
    >>> from theorylab.random_features import batch_noise
    >>> batch_noise(0.1, n_parameters=400, batch=4), batch_noise(
    ...     0.1, n_parameters=400, batch=4, n_samples=4
    ... )
    (1.0, 0.0)
    """
    std = as_real(sigma, "sigma", minimum=0.0)
    P, b = as_count(n_parameters, "n_parameters"), as_count(batch, "batch")
    left = 1.0 if n_samples is None else 1 - b / as_count(n_samples, "n_samples", minimum=b)
    return std * math.sqrt(P / b * left)


@refuses_overflow("eigenvalue", "noise")
def edge_location(eigenvalue: ArrayLike, noise: ArrayLike) -> FloatArray:
    r"""Return where extreme eigenvalues of the full Hessian go in a batch, as P grows.

    Parameters
    ----------
    eigenvalue
        $\lambda$: largest ones, if positive, smallest ones, if negative.
    noise
        s >= 0, of a shape that broadcasts.

    Examples
    --------
    >>> from theorylab.random_features import edge_location
    >>> edge_location([2.0, 0.5, -4.0], 1.0).tolist()
    [2.5, 2.0, -4.25]
    """
    lam, s = _pair(eigenvalue, noise)
    outlier = np.abs(lam) > s
    ratio = np.where(outlier, s / np.where(outlier, lam, 1.0), 0.0)
    bulk = 2 * s * np.where(lam < 0, -1.0, 1.0)
    return as_array(np.where(outlier, lam + s * ratio, bulk), "eigenvalue")


@refuses_overflow("eigenvalue", "noise")
def edge_correction(
    eigenvalue: ArrayLike, noise: ArrayLike, *, n_parameters: int, others: ArrayLike | None = None
) -> FloatArray:
    """Return the corrections up to 1/P to the mean of :func:`edge_location` at finite P.

    Parameters
    ----------
    eigenvalue, noise
        As there; not close to the transition, where the two corrections do not join.
    n_parameters
        P.
    others
        (k,) the other non-zero eigenvalues of the full Hessian, all less extreme than each
        ``eigenvalue``; None if there are none.

    Examples
    --------
    >>> from theorylab.random_features import edge_correction
    >>> edge_correction([2.0, 0.5], 1.0, n_parameters=1000).round(6).tolist()
    [-0.000333, -0.011565]
    >>> edge_correction(2.0, 1.0, n_parameters=1000, others=[-3.0]).round(6).tolist()
    -0.000633
    """
    lam, s = _pair(eigenvalue, noise)
    P = as_count(n_parameters, "n_parameters")
    rest = np.empty(0) if others is None else as_array(others, "others", ndim=1)
    if not (np.where(lam < 0, -1, 1)[..., None] * (lam[..., None] - rest) > 0).all():
        raise ValueError("others: expected less extreme eigenvalues than each of eigenvalue")
    if ((np.abs(lam) == s) & (s > 0)).any():
        raise ValueError("eigenvalue, noise: expected none at the transition, got equal ones")
    sign, outlier = np.where(lam < 0, -1.0, 1.0), np.abs(lam) > s
    t = np.where(outlier, s / np.where(outlier, np.abs(lam), 1.0), 0.0)
    unit = np.where(s > 0, s, 1.0)
    u = (sign / unit)[..., None] * rest
    beyond = -t * (1 - 2 * t**2) / ((1 - t) * (1 + t))
    beyond += np.sum(t[..., None] ** 2 * u / (1 - t[..., None] * u), axis=-1)
    own = np.where(outlier, 0.0, np.abs(lam) / unit)
    below = np.where(outlier[..., None], 0.0, u)
    bulk = TRACY_WIDOM_MEAN * P ** (1 / 3) - 0.5 + own / (1 - own)
    bulk += np.sum(below / (1 - below), axis=-1)
    return as_array(sign * s / P * np.where(outlier, beyond, bulk), "eigenvalue")


@refuses_overflow("eigenvalue", "noise")
def maximal_learning_rate(eigenvalue: ArrayLike, noise: ArrayLike) -> FloatArray:
    r"""Return $2/\lambda_{\max}$ of a batch, as P grows.

    Parameters
    ----------
    eigenvalue
        Largest eigenvalue of the full Hessian, > 0.
    noise
        s >= 0.

    Examples
    --------
    >>> from theorylab.random_features import maximal_learning_rate
    >>> maximal_learning_rate(2.0, [0.0, 1.0, 4.0]).tolist()
    [1.0, 0.8, 0.25]
    """
    lam = as_array(eigenvalue, "eigenvalue", positive=True)
    return np.asarray(2 / edge_location(lam, noise))


def learning_rate_slope(kappa: float, *, batch: int, n_samples: int | None = None) -> float:
    r"""Return $d\log\eta/d\log b$ of the maximal learning rate.

    Parameters
    ----------
    kappa
        $P\sigma^2/\lambda^2>0$.
    batch, n_samples
        b and N > b; None is infinitely many.

    Examples
    --------
    >>> from theorylab.random_features import learning_rate_slope
    >>> learning_rate_slope(100.0, batch=10)
    0.5
    >>> round(learning_rate_slope(100.0, batch=60, n_samples=100), 12)
    1.0
    """
    k = as_real(kappa, "kappa", above=0.0)
    b = as_count(batch, "batch")
    inverse = 0.0 if n_samples is None else 1 / as_count(n_samples, "n_samples", minimum=b + 1)
    if k * (1 / b - inverse) >= 1:
        return 0.5 / (1 - b * inverse)
    return k / b / (1 + k * (1 / b - inverse))


@refuses_overflow("spikes", "sigma")
def sample_batch_hessian(
    spikes: ArrayLike,
    *,
    sigma: float,
    n_parameters: int,
    batch: int,
    n_samples: int | None = None,
    noise: str = "gaussian",
    rng: np.random.Generator,
) -> FloatArray:
    """Return the mean Hessian of a random batch, (P, P), given that of all samples.

    The mean of the batch and that of the other samples are drawn, which has the law of drawing all
    samples and choosing b of them.

    Parameters
    ----------
    spikes
        (k,) non-zero eigenvalues of the full Hessian, k <= P.
    sigma, n_parameters, batch, n_samples
        As in :func:`batch_noise`.
    noise
        ``"gaussian"`` per-sample deviations, or ``"diagonal"`` ones of the same Frobenius norm.
    rng
        Draws them.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import sample_batch_hessian
    >>> size = {"n_parameters": 3, "batch": 2, "n_samples": 2}
    >>> sample_batch_hessian([5.0], sigma=1.0, **size, rng=np.random.default_rng(0)).tolist()
    [[5.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    lam = as_array(spikes, "spikes", ndim=1)
    std = as_real(sigma, "sigma", minimum=0.0)
    P = as_count(n_parameters, "n_parameters", minimum=len(lam))
    b = as_count(batch, "batch")
    rest = None if n_samples is None else as_count(n_samples, "n_samples", minimum=b) - b
    one_of(noise, "noise", ("gaussian", "diagonal"))
    generator = as_instance(rng, "rng", np.random.Generator)
    full = np.diag(np.append(lam, np.zeros(P - len(lam))))
    if rest == 0:
        return full
    left = 1.0 if rest is None else rest / (b + rest)
    full += std * left / math.sqrt(b) * _deviation(P, noise, generator)
    if rest is not None:
        full -= std * left / math.sqrt(rest) * _deviation(P, noise, generator)
    return full


def _deviation(P: int, noise: str, rng: np.random.Generator) -> FloatArray:
    if noise == "diagonal":
        return np.diag(rng.standard_normal(P) * math.sqrt(P + 1))
    G = rng.standard_normal((P, P))
    G *= math.sqrt(0.5)
    return G + G.T


@refuses_overflow("hessians")
def batch_extremes(hessians: ArrayLike) -> FloatArray:
    r"""Return the means of $\lambda_{\max}$ and $\lambda_{\min}$ over all batches of
    each size, (2, N).

    Parameters
    ----------
    hessians
        (N, P, P) symmetric, at most 16 of them.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import batch_extremes
    >>> batch_extremes([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]).tolist()
    [[1.0, 0.5], [0.0, 0.5]]
    """
    H = as_symmetric(hessians, "hessians", ndim=3)
    N = len(H)
    if 2**N > MAX_BATCHES:
        raise ValueError(f"hessians: expected at most 16 matrices, got {N}")
    means = np.empty((2, N))
    for size in range(1, N + 1):
        batches = np.array(list(itertools.combinations(range(N), size)))
        ends = []
        for some in np.array_split(batches, math.ceil(len(batches) * H[0].size / _BLOCK)):
            values = np.linalg.eigvalsh(sum(H[some[:, j]] / size for j in range(size)))
            ends.append(values[:, [-1, 0]])
        means[:, size - 1] = np.concatenate(ends).mean(axis=0)
    return means


def _pair(eigenvalue: ArrayLike, noise: ArrayLike) -> tuple[FloatArray, FloatArray]:
    lam = as_array(eigenvalue, "eigenvalue")
    s = as_array(noise, "noise", nonnegative=True)
    try:
        a, b = np.broadcast_arrays(lam, s)
    except ValueError:
        shapes = f"{lam.shape} and {s.shape}"
        raise ValueError(
            f"eigenvalue, noise: expected shapes that broadcast, got {shapes}"
        ) from None
    return a, b
