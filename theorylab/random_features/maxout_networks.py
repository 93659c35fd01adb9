r"""Random maxout networks: what one initialisation does to values, gradients and breakpoints.

A maxout unit of rank K returns the largest of K linear functions of its input. With weights
$N(0,c/n)$, n the number of inputs, the largest product with x is
$\sqrt{c/n}\,|x|\max_kg_k$, and across x the chosen weight is Gaussian whatever was chosen.
With $m_K=\mathbb E\max_kg_k$ and $M_K=\mathbb E\max_kg_k^2$ (of the largest) of K
independent normals therefore, at every width,

$$\mathbb E(w_{k^*}^\top u)^2=\frac cn|u|^2\big(M_K\cos^2+\sin^2\big)\angle(x,u).$$

In a chain of layers of width n let h be the values, v a tangent and $a=\langle h,v\rangle^2
/|h|^2$, $b=|v|^2-a$ its parts along and across h. A layer maps their means by (derived)

$$a'=cM_Ka+\frac cnb,\qquad b'=c\Big(1-\frac1n\Big)b,\qquad\mathbb E|h'|^2=cM_K|h|^2:$$

at $c=1/M_K$ values keep their size, and so does what moves along them; other directions
shrink by $c(1-1/n)$ a layer, down to a floor of order 1/n, if K > 2.

On the line a unit with Gaussian slopes and intercepts is an upper envelope of K lines. Its
breakpoints are the upper edges of the convex hull of K Gaussian points in the plane, on average
$\frac12\mathbb EV_K$, $\mathbb EV_K=K(K-1)\int\Phi^{K-2}(x)e^{-x^2}dx/\sqrt\pi$.

Paper: tseran2023-expected (formulas derived here; hull: Renyi and Sulanke)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.results import result

__all__ = [
    "MaxoutMoments",
    "MaxoutSignals",
    "count_breakpoints",
    "critical_scale",
    "directional_gain",
    "expected_breakpoints",
    "maxout_layer",
    "maxout_moments",
    "maxout_signals",
]

_LARGEST = 10**6  # rank up to which the grid resolves the law of the maximum
_STEP = 0.02  # trapezoids of analytic functions that decay as Gaussians do: exact to rounding
_GRID = np.arange(-12.0, 12.0 + _STEP / 2, _STEP)


class MaxoutMoments(NamedTuple):
    """Mean, and mean square, of the largest of K independent standard normals."""

    mean: float
    square: float


@result
class MaxoutSignals:
    r"""Expectations after 0, 1, ..., L layers, arrays of shape (L + 1,); inputs of unit length.

    Attributes
    ----------
    values
        $\mathbb E|h|^2$, and of the product of the Jacobian with the input.
    across
        $\mathbb E|Ju|^2$ for a unit vector u orthogonal to the input.
    backward
        $\mathbb E|J^\top g|^2$ for g uniform on the unit sphere, independent of the network.
    kernel
        Expected squared norm of the gradient of $\langle g,h\rangle$ in all weights: the
        tangent kernel on its diagonal.
    """

    values: FloatArray
    across: FloatArray
    backward: FloatArray
    kernel: FloatArray


def maxout_moments(rank: int) -> MaxoutMoments:
    r"""Return $m_K$ and $M_K$, by quadrature to rounding.

    Parameters
    ----------
    rank
        K, the number of linear functions of a unit; at most a million.

    Examples
    --------
    >>> from theorylab.random_features import maxout_moments
    >>> [round(moment, 6) for moment in maxout_moments(3)]  # 3 / (2 sqrt(pi)), 1 + sqrt(3)/(2 pi)
    [0.846284, 1.275664]
    """
    K = as_count(rank, "rank", maximum=_LARGEST)
    x = _GRID
    law = K * ndtr(x) ** (K - 1) * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return MaxoutMoments(*(float(_STEP * np.sum(x**p * law)) for p in (1, 2)))


def critical_scale(rank: int) -> float:
    r"""Return $1/M_K$: with weights of variance $1/(nM_K)$ values keep their mean
    square.

    Parameters
    ----------
    rank
        K.

    Examples
    --------
    >>> from theorylab.random_features import critical_scale
    >>> [round(critical_scale(rank), 5) for rank in (2, 3, 4, 5)]
    [1.0, 0.78391, 0.64461, 0.55555]
    """
    return 1 / maxout_moments(rank).square


def directional_gain(cosine: ArrayLike, *, rank: int) -> FloatArray:
    r"""Return $M_K\cos^2+\sin^2$, the mean square of a unit's derivative along a unit vector,
    in units of the variance of a weight.

    Parameters
    ----------
    rank
        K.
    cosine
        Of the angle between the input and the direction, any shape.

    Examples
    --------
    >>> from theorylab.random_features import directional_gain
    >>> directional_gain([0.0, 1.0], rank=3).round(4).tolist()
    [1.0, 1.2757]
    """
    moments = maxout_moments(rank)
    c = as_array(cosine, "cosine")
    if (np.abs(c) > 1).any():
        raise ValueError(f"cosine: expected numbers in [-1, 1], got {c.flat[np.abs(c).argmax()]}")
    return moments.square * c**2 + (1 - c**2)


@refuses_overflow("scale", "depth")
def maxout_signals(rank: int, *, width: int, depth: int, scale: float) -> MaxoutSignals:
    """Return what values, tangents, gradients and the tangent kernel are on average, exactly, in a
    network without biases whose layers all have the same width.

    Parameters
    ----------
    rank
        K.
    width
        Of every layer and of the input.
    depth
        Number of layers.
    scale
        c, the variance of a weight times the width.

    Examples
    --------
    >>> from theorylab.random_features import critical_scale, maxout_signals
    >>> signals = maxout_signals(5, width=100, depth=20, scale=critical_scale(5))
    >>> round(float(signals.values[-1]), 12), round(float(signals.across[-1]), 4)
    (1.0, 0.0124)
    """
    square = maxout_moments(rank).square
    n, L = as_count(width, "width"), as_count(depth, "depth", minimum=0, maximum=10**6)
    c = as_real(scale, "scale", minimum=0.0)
    values, off = ((gain ** np.arange(L + 1.0)) for gain in (c * square, c * (1 - 1 / n)))
    along = np.zeros(L + 1)
    for s in range(L):
        along[s + 1] = c * square * along[s] + c / n * off[s]
    across = along + off
    backward = values / n + (1 - 1 / n) * across
    # Layer l has inputs of size values[l - 1] and passes its gradient through L - l layers.
    kernel = np.array([0.0, *(np.sum(values[:s] * backward[:s][::-1]) for s in range(1, L + 1))])
    return MaxoutSignals(values, across, backward, kernel)


@refuses_overflow("W", "x", "biases")
def maxout_layer(
    W: ArrayLike, x: ArrayLike, biases: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Apply maxout layers to inputs; return the values and the chosen weights, the Jacobian.

    Parameters
    ----------
    W
        (..., m, K, n): m units of rank K, with any axes of repetitions before.
    x
        (..., n), with the same axes before.
    biases
        (..., m, K); none by default.

    Returns
    -------
    values, jacobian
        (..., m) and (..., m, n).

    Examples
    --------
    >>> from theorylab.random_features import maxout_layer
    >>> values, jacobian = maxout_layer([[[1.0, 0.0], [0.0, 2.0]]], [3.0, 1.0])
    >>> values.tolist(), jacobian.tolist()
    ([3.0], [[1.0, 0.0]])
    """
    W, h = as_array(W, "W"), as_array(x, "x")
    if W.ndim < 3:
        raise ValueError(f"W: expected shape (..., m, K, n), got shape {W.shape}")
    if h.shape != (*W.shape[:-3], W.shape[-1]):
        expected = (*W.shape[:-3], W.shape[-1])
        raise ValueError(f"x: expected shape {expected}, got shape {h.shape}")
    products = (W @ h[..., None, :, None])[..., 0]
    if biases is not None:
        products += as_array(biases, "biases", shape=W.shape[:-1])
    chosen = products.argmax(axis=-1)[..., None]
    values = np.take_along_axis(products, chosen, axis=-1)[..., 0]
    return values, np.take_along_axis(W, chosen[..., None], axis=-2)[..., 0, :]


def expected_breakpoints(rank: int) -> float:
    """Return the mean number of breakpoints of a unit on the line, its slopes and intercepts
    centred Gaussian, independent, of any two variances.

    Parameters
    ----------
    rank
        K.

    Examples
    --------
    >>> from theorylab.random_features import expected_breakpoints
    >>> [round(expected_breakpoints(rank), 4) for rank in (1, 2, 3, 4, 5)]
    [0.0, 1.0, 1.5, 1.8245, 2.0613]
    """
    K = as_count(rank, "rank", maximum=_LARGEST)
    if K == 1:
        return 0.0
    law = ndtr(_GRID) ** (K - 2) * np.exp(-(_GRID**2)) / math.sqrt(math.pi)
    return float(K * (K - 1) / 2 * _STEP * np.sum(law))


@refuses_overflow("slopes", "intercepts")
def count_breakpoints(slopes: ArrayLike, intercepts: ArrayLike) -> NDArray[np.int64]:
    """Count the breakpoints of the upper envelopes of lines.

    Parameters
    ----------
    slopes, intercepts
        (N, K): N units, each the largest of K lines.

    Examples
    --------
    >>> from theorylab.random_features import count_breakpoints
    >>> count_breakpoints([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]], [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    array([2, 1])
    """
    a = as_array(slopes, "slopes", ndim=2)
    b = as_array(intercepts, "intercepts", shape=a.shape)
    # Units of a row, which move its breakpoints and lose none.
    a, b = (z / np.maximum(np.abs(z).max(axis=1, keepdims=True), 1e-300) for z in (a, b))
    # From left to right: from the line of least slope (the highest of those), go to the line that
    # crosses it first, the steepest of those, until none is steeper.
    rows = np.arange(len(a))
    line = np.lexsort((-b, a), axis=1)[:, 0]
    counts = np.zeros(len(a), np.int64)
    for _ in range(a.shape[1] - 1):
        rise = a - a[rows, line, None]
        fall = b[rows, line, None] - b
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = np.where(rise > 0, fall / rise, np.inf)
        nearest = np.where(np.isfinite(crossing.min(axis=1)), crossing.min(axis=1), 0.0)
        tied = (crossing == nearest[:, None]) & (rise > 0)
        counts += tied.any(axis=1)
        steepest = np.where(tied, a, -np.inf).argmax(axis=1)
        line = np.where(tied.any(axis=1), steepest, line)
    return counts
