r"""Kernels of infinitely wide fully connected networks.

A network of L hidden layers and an activation $\phi$ (no factor 2 hidden in it), with weights
$N(0,\sigma_w^2/\text{fan-in})$ and biases $N(0,\sigma_b^2)$ in every layer,

$$h^1=\frac{\sigma_w}{\sqrt d}\omega^1x+\sigma_b\beta^1,\qquad
h^{l+1}=\frac{\sigma_w}{\sqrt n}\omega^{l+1}\phi(h^l)+\sigma_b\beta^{l+1},\qquad f=h^{L+1},$$

tends at initialisation to a Gaussian process of covariance $\Sigma^{L+1}$ as the widths n
grow (one after the other in the paper), and its tangent kernel
$\nabla_\theta f(x)\cdot\nabla_\theta f(x')$, of the standard Gaussian parameters
$\theta=(\omega,\beta)$, to $\Theta^{L+1}$:

$$\Sigma^1=\Theta^1=\frac{\sigma_w^2}d\langle x,x'\rangle+\sigma_b^2,\quad
\Sigma^{l+1}=\sigma_w^2\mathbb E[\phi(u)\phi(v)]+\sigma_b^2,\quad
\Theta^{l+1}=\Sigma^{l+1}+\sigma_w^2\mathbb E[\phi'(u)\phi'(v)]\,\Theta^l,$$

(u, v) being Gaussian with the covariance $\Sigma^l$ of the two points
(:mod:`theorylab.random_features.activations`).

Theorem: jacot2018-neural (there $\sigma_w=1$ and $\sigma_b=\beta$)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.random_features.activations import Activation, as_activation

__all__ = ["nngp", "ntk"]

_BLOCK = 2**16  # entries worked on at a time: the passes over them stay in the cache
_ROWS = 64  # of a product at a time


def ntk(
    X1: ArrayLike,
    X2: ArrayLike | None = None,
    *,
    depth: int,
    activation: str | Activation = "relu",
    weight_variance: float = 1.0,
    bias_variance: float = 0.0,
) -> FloatArray:
    r"""Return the tangent kernel $\Theta^{L+1}$ of the infinitely wide network.

    Parameters
    ----------
    X1
        (n, d) points. float32 ones are taken as the numbers they are: the kernel is computed, and
        returned, in float64.
    X2
        (m, d) points; by default those of X1, and then the kernel is exactly symmetric, costs half,
        and has a diagonal without cancellation.
    depth
        Number L of hidden layers; 0 is the linear kernel.
    activation
        ``"relu"``, ``"erf"``, ``"sine"``, or an :class:`Activation`.
    weight_variance
        $\sigma_w^2$, before the division by the fan-in; 2 keeps the size of ReLU signals.
    bias_variance
        $\sigma_b^2$.

    Returns
    -------
    FloatArray
        Shape (n, m). Relative rounding is about 1e-15 times the depth; for ReLU it rises to 1e-8
        where two different points are nearly parallel, for their angle then does.

    Examples
    --------
    >>> from theorylab.random_features import ntk
    >>> ntk([[1.0, 0.0], [0.0, 1.0]], depth=1, weight_variance=2.0).round(4).tolist()
    [[2.0, 0.3183], [0.3183, 2.0]]
    """
    return _kernel(X1, X2, depth, activation, weight_variance, bias_variance, tangent=True)


def nngp(
    X1: ArrayLike,
    X2: ArrayLike | None = None,
    *,
    depth: int,
    activation: str | Activation = "relu",
    weight_variance: float = 1.0,
    bias_variance: float = 0.0,
) -> FloatArray:
    r"""Return the covariance $\Sigma^{L+1}$ of the outputs of the infinitely wide network.

    Parameters
    ----------
    X1, X2, depth, activation, weight_variance, bias_variance
        As in :func:`ntk`.

    Examples
    --------
    >>> from theorylab.random_features import nngp
    >>> nngp([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]], depth=1, weight_variance=2.0).round(4).tolist()
    [[0.3183, 1.0]]
    """
    return _kernel(X1, X2, depth, activation, weight_variance, bias_variance, tangent=False)


def _kernel(
    X1: ArrayLike,
    X2: ArrayLike | None,
    depth: int,
    activation: str | Activation,
    weight_variance: float,
    bias_variance: float,
    *,
    tangent: bool,
) -> FloatArray:
    X1 = as_array(X1, "X1", ndim=2)
    d = X1.shape[1]
    depth = as_count(depth, "depth", minimum=0)
    phi = as_activation(activation)
    weight = as_real(weight_variance, "weight_variance", above=0.0)
    bias = as_real(bias_variance, "bias_variance", minimum=0.0)
    unit = math.sqrt(weight / d)
    symmetric = X2 is None
    X2 = X1 if X2 is None else as_array(X2, "X2", shape=(None, d))
    rows, columns = unit * X1, unit * X2
    left, tangents = _diagonals(rows, depth, phi, weight, bias)
    right = left if symmetric else _diagonals(columns, depth, phi, weight, bias)[0]
    n, m = len(rows), len(columns)
    kernel = np.empty((n, m))
    size = max(1, min(_BLOCK // m, _ROWS))
    for top in range(0, n, _ROWS):
        end, start = min(top + _ROWS, n), top if symmetric else 0
        panel = rows[top:end] @ columns[start:].T
        panel += bias
        for first in range(top, end, size):
            last = min(first + size, end)
            here = slice(first, last)
            covariance = panel[first - top : last - top]
            total = covariance.copy()
            for layer in range(depth):
                covariance, slopes = phi.moments(
                    covariance, left[layer][here, None], right[layer][start:], weight
                )
                if bias:
                    covariance += bias
                if tangent:
                    total *= slopes
                    total += covariance
            kernel[here, start:] = total if tangent else covariance
        if symmetric:
            lower = np.tril_indices(end - top, -1)
            square = kernel[top:end, top:end]
            square[lower] = square.T[lower]
            kernel[end:, top:end] = kernel[top:end, end:].T
    if symmetric:
        np.fill_diagonal(kernel, tangents if tangent else left[depth])
    return kernel


def _diagonals(
    points: FloatArray, depth: int, phi: Activation, weight: float, bias: float
) -> tuple[list[FloatArray], FloatArray]:
    """Return the variance of each point at every layer, and its tangent kernel with itself."""
    with np.errstate(over="ignore", invalid="ignore"):
        variances = [np.einsum("ij,ij->i", points, points) + bias]
        tangents = variances[0]
        for _ in range(depth):
            value, slope = phi.diagonal(variances[-1])
            variances.append(weight * value + bias)
            tangents = variances[-1] + weight * slope * tangents
    # Every other entry is at most a geometric mean of these.
    if not (np.isfinite(variances).all() and np.isfinite(tangents).all()):
        raise ValueError(
            "X1, X2, weight_variance, bias_variance, activation: expected magnitudes whose "
            "products stay within float64, got an overflow"
        )
    return variances, tangents
