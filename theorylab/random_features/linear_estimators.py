r"""Linear estimators of least variance under a bound on their bias operator, and their risks.

$y=X\beta+\varepsilon$, $X=U\,\mathrm{diag}(s)V^\top$ of full column rank, noise
covariance $\sigma^2I$. Among linear estimators $\hat\beta=Ly$ whose bias operator has a
Schatten norm $\|LX-I\|\le C$, the variance $\|L\|_F^2$ is least at
$L=V\,\mathrm{diag}((1-b_i)/s_i)U^\top$ with

$$b_i=\frac t{s_i^2+t}\ \text{(Frobenius: ridge)},\qquad b_i=\Big(1-\frac{s_i^2}t\Big)_+\
\text{(nuclear)},\qquad b_i=\frac t{1+t}\ \text{(spectral: shrunk least squares)},$$

t such that the bound is attained; C = 0 is the Gauss-Markov theorem. Pinching in the basis V lowers
both the variance and the norm, which leaves a problem in the b alone.
:func:`theorylab.random_features.minimum_variance` searches all matrices.

For an isotropic Gaussian design, and for a block of a uniform orthogonal matrix, the mean over the
spectrum has a limit (Marchenko and Pastur; Wachter), with the correction of order 1/p of real
matrices (Bai and Silverstein for the first; checked against exact moments for the second).

Source: segert2023-flat (derived again; text not seen)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_function,
    as_real,
    one_of,
    refuses_overflow,
)
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.progress import Callback, watcher

__all__ = [
    "BestShrinkage",
    "SpectralMean",
    "best_shrinkage",
    "bias_factors",
    "least_variance_factors",
    "shrinkage_estimator",
    "shrinkage_limit",
    "shrinkage_risk",
    "spectral_mean",
]

NORMS = ("frobenius", "nuclear", "spectral")
ORDER = {"frobenius": 2.0, "nuclear": 1.0, "spectral": math.inf}
_INTERVALS = 100_000  # of a search, at most; what is left is in the gap
_NODES = 2**20  # of a quadrature, at most


def bias_factors(singular_values: ArrayLike, strength: float, *, norm: str) -> FloatArray:
    """Return the bias factors b of the family of estimators that belongs to a norm.

    Parameters
    ----------
    singular_values
        (p,) of the design, positive.
    strength
        t >= 0, in units of squared singular values (without unit for ``"spectral"``); every b
        increases with it from 0 to 1, and it may be infinite.
    norm
        ``"frobenius"``, ``"nuclear"`` or ``"spectral"``.

    Examples
    --------
    >>> from theorylab.random_features import bias_factors
    >>> bias_factors([2.0, 1.0], 4.0, norm="nuclear").tolist()
    [0.0, 0.75]
    """
    s = as_array(singular_values, "singular_values", ndim=1, positive=True)
    t = as_real(strength, "strength", minimum=0.0, allow_inf=True)
    return _factors(s, np.array(t), one_of(norm, "norm", NORMS))


def _factors(s: FloatArray, t: FloatArray, norm: str) -> FloatArray:
    """Return b for every strength, shape (*t.shape, p)."""
    with np.errstate(divide="ignore", over="ignore"):
        if norm == "spectral":
            b = np.broadcast_to((1 / (1 + 1 / t))[..., None], (*t.shape, s.size)).copy()
        else:
            q = (s / np.sqrt(t)[..., None]) ** 2
            b = 1 / (1 + q) if norm == "frobenius" else np.maximum(1 - q, 0.0)
    return np.asarray(b, dtype=float)


@refuses_overflow("singular_values", "bias_bound")
def least_variance_factors(
    singular_values: ArrayLike, bias_bound: float, *, norm: str
) -> FloatArray:
    """Return the bias factors of least variance under a bound on the norm of the bias operator.

    Parameters
    ----------
    singular_values
        (p,) of the design, positive.
    bias_bound
        C >= 0; from the norm of the identity on the zero estimator is best and b = 1.
    norm
        ``"frobenius"``, ``"nuclear"`` or ``"spectral"``.

    Examples
    --------
    >>> from theorylab.random_features import least_variance_factors
    >>> least_variance_factors([2.0, 1.0], 0.5, norm="nuclear").round(12).tolist()
    [0.0, 0.5]
    """
    s = as_array(singular_values, "singular_values", ndim=1, positive=True)
    C = as_real(bias_bound, "bias_bound", minimum=0.0)
    norm = one_of(norm, "norm", NORMS)
    p = s.size
    if np.linalg.norm(np.ones(p), ORDER[norm]) <= C:
        return np.ones(p)
    if C == 0.0:
        return np.zeros(p)
    if norm == "spectral":
        return np.full(p, C)
    s = s / power_of_two(float(s.min()))
    if norm == "nuclear":
        # With the j weakest directions biased, j - sum of their s^2 over t is C: the least j whose
        # t does not pass the next s^2.
        square = np.sort(s**2)
        j = np.arange(1, p + 1)
        t = np.cumsum(square) / np.maximum(j - C, np.finfo(float).tiny)
        inside = (j > C) & (np.append(square[1:], np.inf) >= t)
        return _factors(s, np.array(t[int(np.argmax(inside))]), norm)
    from scipy.optimize import brentq

    root = math.sqrt(p)
    low = math.log(C) + 2 * math.log(s.min() / root) - 1e-9
    high = math.log(C) + 2 * math.log(s.max()) - math.log(root - C) + 1e-9

    def excess(log: float) -> float:
        return float(np.linalg.norm(_factors(s, np.array(math.exp(log)), norm) / C) - 1)

    return _factors(s, np.array(math.exp(brentq(excess, low, high, xtol=1e-14))), norm)


@refuses_overflow("X")
def shrinkage_estimator(X: ArrayLike, factors: ArrayLike) -> FloatArray:
    """Return the estimator L, shape (p, n), with bias factors in the singular basis of a design.

    Parameters
    ----------
    X
        (n, p) of full column rank.
    factors
        (p,) bias factors, in decreasing order of the singular values.

    Examples
    --------
    >>> from theorylab.random_features import shrinkage_estimator
    >>> (shrinkage_estimator([[2.0], [0.0]], [0.5]) + 0.0).tolist()
    [[0.25, 0.0]]
    """
    X = as_design(X)
    b = as_array(factors, "factors", shape=(X.shape[1],))
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    L: FloatArray = (Vt.T * ((1 - b) / s)) @ U.T
    return L


@refuses_overflow("singular_values", "factors", "coefficients", "noise_variance")
def shrinkage_risk(
    singular_values: ArrayLike,
    factors: ArrayLike,
    coefficients: ArrayLike,
    *,
    noise_variance: float,
) -> float:
    r"""Return $\mathbb E\|Ly-\beta\|^2=\sum_ib_i^2c_i^2+\sigma^2\sum_i(1-b_i)^2/s_i^2$.

    Parameters
    ----------
    singular_values
        (p,) positive.
    factors
        (p,) bias factors.
    coefficients
        (p,) of the signal in the right singular basis (their standard deviations under a prior).
    noise_variance
        Of a response.

    Examples
    --------
    >>> from theorylab.random_features import shrinkage_risk
    >>> shrinkage_risk([2.0, 1.0], [0.0, 0.5], [1.0, 2.0], noise_variance=1.0)
    1.5
    """
    s = as_array(singular_values, "singular_values", ndim=1, positive=True)
    b = as_array(factors, "factors", shape=s.shape)
    c = as_array(coefficients, "coefficients", shape=s.shape)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    return float(np.sum((b * c) ** 2) + noise * np.sum(((1 - b) / s) ** 2))


class BestShrinkage(NamedTuple):
    """Strength of least risk found, its risk, and a lower bound over all strengths."""

    strength: float
    risk: float
    lower_bound: float


@refuses_overflow("singular_values", "coefficients", "noise_variance", infinite=True)
def best_shrinkage(
    singular_values: ArrayLike,
    coefficients: ArrayLike,
    *,
    norm: str,
    noise_variance: float,
    tol: float = 1e-4,
    callback: Callback | None = None,
) -> BestShrinkage:
    """Return the best strength of a family, with a bound that no strength passes.

    The squared bias increases with the strength and the variance decreases, so that on an interval
    the first at the lower end and the second at the upper end bound the risk from below; intervals
    that may hold the optimum are divided.

    Parameters
    ----------
    singular_values, coefficients, noise_variance
        As in :func:`shrinkage_risk`.
    norm
        ``"frobenius"``, ``"nuclear"`` or ``"spectral"``.
    tol
        Relative gap between risk and bound, at least 1e-9; a search ends with a larger one where
        the risk is flat.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each round of intervals: the
        least risk found, in units of the larger of signal and noise, and its relative gap; where it
        returns True, the search stops.

    Examples
    --------
    >>> from theorylab.random_features import best_shrinkage
    >>> best = best_shrinkage([1.0], [1.0], norm="spectral", noise_variance=1.0)
    >>> round(best.risk, 4)
    0.5
    """
    s = as_array(singular_values, "singular_values", ndim=1, positive=True)
    c = as_array(coefficients, "coefficients", shape=s.shape)
    norm = one_of(norm, "norm", NORMS)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    tol = as_real(tol, "tol", minimum=1e-9)
    unit, size = power_of_two(s), power_of_two(c)
    s, c = s / unit, c / size
    # Signal and noise in units of the larger, by logarithms that no magnitude overflows.
    powers = (
        np.array([2 * math.log2(size), math.log2(noise) - 2 * math.log2(unit)])
        if noise
        else (np.array([2 * math.log2(size), -math.inf]))
    )
    power, noise = np.exp2(powers - powers.max())
    ends = (s.min() ** 2, s.max() ** 2) if norm != "spectral" else (1.0, 1.0)
    lows = np.concatenate([[0.0], np.geomspace(1e-6 * ends[0], 1e6 * ends[1], 400)])
    highs = np.append(lows[1:], np.inf)
    best, at, discarded = math.inf, 0.0, math.inf
    stops = watcher(callback)
    for round_ in range(1, 61):
        low, high = _factors(s, lows, norm), _factors(s, highs, norm)
        bias = [power * np.sum((b * c) ** 2, axis=1) for b in (low, high)]
        variance = [noise * np.sum(((1 - b) / s) ** 2, axis=1) for b in (low, high)]
        risks = np.concatenate([bias[0] + variance[0], bias[1] + variance[1]])
        if risks.min() < best:
            best = float(risks.min())
            at = float(np.concatenate([lows, highs])[np.argmin(risks)])
        bound = bias[0] + variance[1]
        lower = min(discarded, float(bound.min()), best)
        told = stops(round_, best, (best - lower) / best if best else 0.0)
        if told or best - lower <= tol * best or lows.size > _INTERVALS:
            break
        keep = bound < best * (1 - tol)
        discarded = min(discarded, float(bound[~keep].min(initial=math.inf)))
        lows, highs = lows[keep], highs[keep]
        # The middle of the logarithm, or a step of 1e6 from an end that has none.
        middle = np.sqrt(np.maximum(lows, highs * 1e-12)) * np.sqrt(
            np.where(np.isinf(highs), lows * 1e12, highs)
        )
        lows, highs = np.append(lows, middle), np.append(middle, highs)
    with np.errstate(over="ignore"):
        risk, below = (float(v * np.exp2(powers.max())) for v in (best, lower))
    strength = at if norm == "spectral" else at * unit * unit
    if not math.isfinite(risk) or (math.isinf(strength) and not math.isinf(at)):
        raise ValueError(
            "singular_values, coefficients, noise_variance: expected magnitudes whose squares stay "
            "within float64, got an overflow"
        )
    return BestShrinkage(strength, risk, below)


class SpectralMean(NamedTuple):
    """Limit of the mean over the spectrum, and p times the leading correction."""

    limit: float
    correction: float


def spectral_mean(
    function: Callable[[FloatArray], FloatArray], *, aspect: float, block: float = 0.0
) -> SpectralMean:
    r"""Return limit and correction of $\mathbb E\frac1p\sum_if(\lambda_i)$ over the
    eigenvalues of $X^\top X/n$, X an n by p standard Gaussian design, q = p / n, or
    $\sqrt N$ times n rows and p columns of a uniform N by N orthogonal matrix.

    $\int f\,d\mu+\frac1p\Big[\frac{f(a)+f(b)}4-\frac1{2\pi}\int_a^b\frac{f(x)\,dx}
    {\sqrt{(x-a)(b-x)}}\Big]+o(1/p)$ with the law $\mu$ of density
    $\frac{\sqrt{(b-x)(x-a)}}{2\pi qx(1-\alpha x)}$ between the ends
    $a,b=(\sqrt{1-q\alpha}\mp\sqrt{q(1-\alpha)})^2$ of its support, $\alpha=n/N$.

    Parameters
    ----------
    function
        f, on arrays; continuous on the support.
    aspect
        q in (0, 1).
    block
        $\alpha<1/(1+q)$; 0 is the Gaussian design.

    Raises
    ------
    ValueError
        If an end of the support is too close to a pole of the density for the quadrature.

    Examples
    --------
    >>> from theorylab.random_features import spectral_mean
    >>> [round(v, 9) for v in spectral_mean(lambda x: 1 / x, aspect=0.5)]
    [2.0, 2.0]
    """
    f = as_function(function, "function")
    q = as_real(aspect, "aspect", above=0.0, below=1.0)
    alpha = as_real(block, "block", minimum=0.0, below=1 / (1 + q))
    roots = math.sqrt(1 - q * alpha), math.sqrt(q * (1 - alpha))
    middle, half = roots[0] ** 2 + roots[1] ** 2, 2 * roots[0] * roots[1]
    # The midpoint rule in the angle errs by the powers of this number: the nearer pole, 0 or
    # 1 / alpha, in Joukowski's coordinate.
    pole = max(roots[1] / roots[0], alpha * math.sqrt(q / ((1 - alpha) * (1 - q * alpha))))
    needed = -32 / math.log(pole)
    if needed > _NODES:
        raise ValueError(
            f"aspect, block: expected a support off the poles of its density, got {q}, {alpha}"
        )
    count = max(4096, math.ceil(needed))
    angle = np.pi * (np.arange(count) + 0.5) / count
    x = middle + half * np.cos(angle)
    values = as_array(f(x), "function", shape=(count,))
    edge = as_array(f(np.array([middle - half, middle + half])), "function", shape=(2,))
    density = (half * np.sin(angle)) ** 2 / (2 * q * x * (1 - alpha * x))
    return SpectralMean(float(np.mean(density * values)), float(edge.sum() / 4 - values.mean() / 2))


@refuses_overflow("noise_variance")
def shrinkage_limit(
    strength: float, *, norm: str, aspect: float, noise_variance: float, block: float = 0.0
) -> SpectralMean:
    r"""Return limit and correction of the risk of a family for an isotropic random design and
    $\|\beta\|=1$.

    Parameters
    ----------
    strength
        t of :func:`bias_factors`, for the singular values of $X/\sqrt n$.
    norm
        ``"frobenius"``, ``"nuclear"`` or ``"spectral"``.
    aspect
        q = p / n in (0, 1).
    noise_variance
        Of a response.
    block
        As in :func:`spectral_mean`.

    Examples
    --------
    >>> from theorylab.random_features import shrinkage_limit
    >>> least_squares = shrinkage_limit(0.0, norm="nuclear", aspect=0.5, noise_variance=1.0)
    >>> round(least_squares.limit, 9)
    1.0
    """
    t = as_real(strength, "strength", minimum=0.0, allow_inf=True)
    norm = one_of(norm, "norm", NORMS)
    q = as_real(aspect, "aspect", above=0.0, below=1.0)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)

    def risk(x: FloatArray) -> FloatArray:
        b = _factors(np.sqrt(x), np.array(t), norm)
        return b**2 + noise * q * (1 - b) ** 2 / x

    return spectral_mean(risk, aspect=q, block=block)


def as_design(X: ArrayLike) -> FloatArray:
    """Return a matrix of full column rank."""
    X = as_array(X, "X", ndim=2)
    s = np.linalg.svd(X / power_of_two(X), compute_uv=False)
    if len(s) < X.shape[1] or not s[-1] > 1e-13 * s[0]:
        raise ValueError(f"X: expected full column rank, got a matrix of shape {X.shape}")
    return X
