r"""Infinitely wide and deep networks as classifiers: majority vote, nearest neighbour, or between.

An activation $\sum_k\pm\sqrt{p_k}h_k$ in normalised Hermite polynomials, with *weights*
$p_k\ge0$ of sum 1, has the dual $g(\xi)=\sum_kp_k\xi^k$. The tangent kernel of depth L
at unit inputs of cosine $\xi$ is

$$K_L(\xi)=g_L(\xi)+K_{L-1}(\xi)\,g'(g_{L-1}(\xi)),\qquad g_L=g\circ\cdots\circ g,\quad
K_0(\xi)=\xi.$$

Let $a=g'(0)=p_1$ and $b=g'(1)=\sum_kkp_k$. As L grows the interpolating classifier
becomes majority vote if $p_0>0$ and b > 1, the nearest neighbour if $p_0=p_1=0$, and if
$p_0=0<a<1$

$$\frac{K_L(\xi)}{(L+1)a^L}\to c(\xi)=\lim_l\frac{g_l(\xi)}{a^l},\qquad
c(g(\xi))=a\,c(\xi),$$

Koenigs's function, singular as $\|x-x'\|^{-\alpha}$ with
$\alpha=-2\log a/\log b$. A smoother with that kernel is consistent in d dimensions for
$\alpha=d$. For $\alpha>d$ its weights at a point tend to those of a Poisson-Dirichlet
law of index $d/\alpha$, so that noise is outvoted only in part.

Everything is computed in logarithms, with cosines in (0, 1].

Source: radhakrishnan2023-wide (recalled; limits derived)."""

from __future__ import annotations

from math import atan2, cos, log, pi, sin

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.results import result

__all__ = [
    "DeepPrediction",
    "deep_prediction",
    "hilbert_average",
    "koenigs_logarithm",
    "log_tangent_kernel",
    "optimal_weights",
    "singularity_exponent",
    "stable_vote_error",
]

NEAR = -0.1
"""Logarithm of a cosine above which a power is summed as its difference from 1."""
GONE = -45.0
"""Logarithm of a cosine below which the dual is linear in float64."""
LARGEST_SLOPE = 0.99
LARGEST_CONDITION = 1e13
SUM_ERROR = 1e-9


@result
class DeepPrediction:
    """Values of an interpolant at test points: ``values`` times ``exp(log_scale)``, which may be
    below float64."""

    values: FloatArray
    log_scale: FloatArray


def optimal_weights(dimension: int) -> FloatArray:
    r"""Return weights with $p_0=0$ and $\alpha=d$: $p_1=p_3=2^{-d/2}$,
    $p_2=1-2^{1-d/2}$ for d > 1, and $p_1=p_7=\frac12$ for d = 1.

    Parameters
    ----------
    dimension
        d, at most 200.

    Examples
    --------
    >>> from theorylab.random_features import optimal_weights
    >>> optimal_weights(4).tolist()
    [0.0, 0.25, 0.5, 0.25]
    """
    d = as_count(dimension, "dimension", maximum=200)
    if d == 1:
        return np.array([0.0, 0.5, 0, 0, 0, 0, 0, 0.5])
    outer = 2.0 ** (-d / 2)
    return np.array([0.0, outer, max(1 - 2 * outer, 0.0), outer])


def singularity_exponent(weights: ArrayLike) -> float:
    r"""Return $\alpha=-2\log a/\log b$.

    Parameters
    ----------
    weights
        (n,) weights $p_0,p_1,\ldots$ with $p_0=0<p_1\le.99$.

    Examples
    --------
    >>> from theorylab.random_features import singularity_exponent
    >>> singularity_exponent([0.0, 0.5, 0.0, 0.5])
    2.0
    """
    p = _singular(weights)
    return -2 * log(p[1]) / log(float(p @ np.arange(p.size)))


@refuses_overflow("log_cosine")
def log_tangent_kernel(log_cosine: ArrayLike, *, weights: ArrayLike, depth: int) -> FloatArray:
    r"""Return $\log K_L$.

    Parameters
    ----------
    log_cosine
        Logarithms of cosines, at most 0, of any shape.
    weights
        (n,) weights $p_0,p_1,\ldots$, of sum 1, not all of them on $p_0$.
    depth
        L, at most 10,000.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import log_tangent_kernel
    >>> K = np.exp(log_tangent_kernel(np.log([1.0, 0.5]), weights=[0.0, 0.0, 1.0], depth=1))
    >>> K.round(12).tolist()
    [3.0, 0.75]
    """
    t = as_array(log_cosine, "log_cosine")
    if t.max() > 0:
        raise ValueError(f"log_cosine: expected numbers of at most 0, got {t.max()}")
    return _log_kernel(t, _weights(weights), depth)


@refuses_overflow("log_cosine")
def koenigs_logarithm(log_cosine: ArrayLike, *, weights: ArrayLike) -> FloatArray:
    r"""Return $\log c$, the logarithm of Koenigs's function.

    Parameters
    ----------
    log_cosine
        Logarithms of cosines, below 0, of any shape.
    weights
        (n,) weights with $p_0=0<p_1\le.99$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import koenigs_logarithm
    >>> c = np.exp(koenigs_logarithm(np.log([0.1, 0.055]), weights=[0.0, 0.5, 0.5]))
    >>> round(float(c[1] / c[0]), 12)
    0.5
    """
    t = as_array(log_cosine, "log_cosine")
    if t.max() >= 0:
        raise ValueError(f"log_cosine: expected numbers below 0, got {t.max()}")
    p = _singular(weights)
    gain = 0.0
    while t.max() > GONE:
        t = _log_dual(t, p)
        gain -= log(p[1])
    return np.asarray(t + gain)


@refuses_overflow("depth")
def deep_prediction(
    X: ArrayLike, y: ArrayLike, Z: ArrayLike, *, weights: ArrayLike, depth: int
) -> DeepPrediction:
    r"""Interpolate labels with the kernel of depth L, and evaluate at test points.

    Parameters
    ----------
    X
        (n, d) training inputs, scaled to unit length; their inner products, and those with the test
        inputs, are not negative, and no two point in one direction.
    y
        (n,) labels.
    Z
        (m, d) test inputs.
    weights, depth
        As in :func:`log_tangent_kernel`.

    Examples
    --------
    >>> from theorylab.random_features import deep_prediction
    >>> X, Z = [[1.0, 0.0], [0.0, 1.0]], [[2.0, 1.0]]
    >>> deep_prediction(X, [1.0, -1.0], Z, weights=[0.0, 0.0, 1.0], depth=8).values.tolist()
    [1.0]
    """
    X = _directions(X, "X")
    y = as_array(y, "y", shape=(len(X),))
    Z = _directions(as_array(Z, "Z", shape=(None, X.shape[1])), "Z")
    among, across = _log_cosines(X, X, "X"), _log_cosines(Z, X, "Z")
    if (among == 0.0).sum() > len(X):
        raise ValueError("X: expected inputs of different directions, got equal ones")
    np.fill_diagonal(among, 0.0)
    p = _weights(weights)
    inner, outer = _log_kernel(among, p, depth), _log_kernel(across, p, depth)
    top, nearest = inner[0, 0], outer.max(axis=1)
    matrix = np.exp(inner - top)
    if not np.linalg.cond(matrix) < LARGEST_CONDITION:
        raise ValueError(
            f"X: expected inputs that the kernel of depth {depth} tells apart, got a kernel matrix "
            f"of condition number {np.linalg.cond(matrix):.1g}"
        )
    dual = np.linalg.solve(matrix, y)
    return DeepPrediction(np.exp(outer - nearest[:, None]) @ dual, nearest - top)


def hilbert_average(
    squared_distances: ArrayLike, labels: ArrayLike, *, exponent: float
) -> FloatArray:
    r"""Return $\sum_iy_ir_i^{-\alpha}/\sum_ir_i^{-\alpha}$, whose sign is the vote of the
    training points; the mean label of the points at distance 0 where there are any.

    Parameters
    ----------
    squared_distances
        (..., n) squares of the distances $r_i$ from test points to training points.
    labels
        (..., n) labels, of a shape that broadcasts.
    exponent
        $\alpha\ge0$.

    Examples
    --------
    >>> from theorylab.random_features import hilbert_average
    >>> hilbert_average([[1.0, 4.0], [0.0, 9.0]], [1.0, -1.0], exponent=2.0).round(12).tolist()
    [0.6, 1.0]
    """
    r2 = as_array(squared_distances, "squared_distances", nonnegative=True)
    y = as_array(labels, "labels")
    if r2.ndim == 0 or y.ndim == 0 or r2.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"labels: expected as many as squared_distances has in its last axis, got shapes "
            f"{y.shape} and {r2.shape}"
        )
    half = -as_real(exponent, "exponent", minimum=0.0) / 2
    nearest = r2.min(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", over="ignore"):
        ratio = np.where(nearest > 0, r2 / np.where(nearest > 0, nearest, 1.0), 1.0)
        weights = np.where((nearest > 0) | (r2 == 0), ratio**half, 0.0)
    weights /= weights.sum(axis=-1, keepdims=True)
    size = float(np.abs(y).max()) or 1.0
    try:
        return np.asarray((weights * (y / size)).sum(axis=-1) * size)
    except ValueError:
        raise ValueError(
            f"labels: expected a shape that broadcasts with that of squared_distances, got "
            f"{y.shape} and {r2.shape}"
        ) from None


def stable_vote_error(index: float, noise: float) -> float:
    r"""Return the probability that Poisson-Dirichlet weights of index $\beta$ give less than
    half to the labels that are right, each label being wrong with the same probability.

    The two sides are independent stable variables of index $\beta$; a ratio of those has an
    explicit law, and the probability is $\arg(1-p+pe^{i\pi\beta})/(\pi\beta)$: the noise
    (the nearest neighbour's error) for $\beta\to0$, and 0 for $\beta\to1$ and
    $p<\frac12$.

    Parameters
    ----------
    index
        $\beta=d/\alpha$, in (0, 1).
    noise
        Probability of a wrong label, in (0, 1).

    Examples
    --------
    >>> from theorylab.random_features import stable_vote_error
    >>> round(stable_vote_error(0.5, 0.2), 6), round(stable_vote_error(0.5, 0.5), 6)
    (0.155958, 0.5)
    """
    angle = pi * as_real(index, "index", above=0.0, below=1.0)
    p = as_real(noise, "noise", above=0.0, below=1.0)
    return atan2(p * sin(angle), 1 - p + p * cos(angle)) / angle


def _log_kernel(t: FloatArray, p: FloatArray, depth: int) -> FloatArray:
    """Return the logarithm of the tangent kernel at cosines exp(t)."""
    slopes = p[1:] * np.arange(1, p.size)
    kernel = t
    for _ in range(as_count(depth, "depth", minimum=0, maximum=10_000)):
        steeper = kernel + _log_series(t, slopes)
        t = _log_dual(t, p)
        kernel = np.logaddexp(t, steeper)
    return np.asarray(kernel)


def _log_dual(t: FloatArray, p: FloatArray) -> FloatArray:
    """Return log g(exp(t)), accurate relative to itself where that is near 0."""
    near = t > NEAR
    small = np.expm1(np.multiply.outer(np.where(near, t, 0.0), np.arange(p.size))) @ p
    return np.where(near, np.log1p(small), _log_series(t, p))


def _log_series(t: FloatArray, p: FloatArray) -> FloatArray:
    """Return the logarithm of the power series with coefficients p at exp(t)."""
    k = np.flatnonzero(p)
    terms = np.multiply.outer(t, k) + np.log(p[k])
    return np.asarray(np.logaddexp.reduce(terms, axis=-1))


def _weights(weights: ArrayLike) -> FloatArray:
    p = as_array(weights, "weights", ndim=1, nonnegative=True)
    if abs(p.sum() - 1) > SUM_ERROR or p[0] == p.sum():
        raise ValueError(
            f"weights: expected a sum of 1, not all of it on the first, got {p.sum()} with "
            f"{p[0]} on the first"
        )
    scaled: FloatArray = p / p.sum()
    return scaled


def _singular(weights: ArrayLike) -> FloatArray:
    p = _weights(weights)
    if p[0] > 0 or not 0 < p[1] <= LARGEST_SLOPE:
        raise ValueError(
            f"weights: expected the first to be 0 and the second in (0, {LARGEST_SLOPE}], got "
            f"{p[0]} and {p[1]}"
        )
    return p


def _directions(points: ArrayLike, name: str) -> FloatArray:
    P = as_array(points, name, ndim=2)
    P = P / np.maximum(np.abs(P).max(axis=1, keepdims=True), np.finfo(float).tiny)
    lengths = np.linalg.norm(P, axis=1, keepdims=True)
    if not lengths.min() > 0.5:
        raise ValueError(f"{name}: expected rows of positive length, got one of length 0")
    return np.asarray(P / lengths)


def _log_cosines(P: FloatArray, Q: FloatArray, name: str) -> FloatArray:
    inner = P @ Q.T
    if inner.min() < -1e-12:
        raise ValueError(f"{name}: expected inner products of at least 0, got {inner.min()}")
    squared = cdist(P, Q, "sqeuclidean")
    near = squared < 0.5  # the distance is more accurate than the cosine
    direct = np.log(np.maximum(inner, 1e-300))
    return np.where(near, np.log1p(-np.minimum(squared, 0.5) / 2), direct)
