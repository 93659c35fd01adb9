r"""Signals in deep random networks: width, depth and residual branches, kernels near criticality.

*Finite width.* Layers $W\sigma(z)$ with Gaussian weights and $\sigma(z)=\max(z,az)$,
n inputs, keep the mean of $G=|\sigma(z)|^2/n$ at its critical weight variance and multiply
its second moment by exactly

$$\mathbb EG'^2/\mathbb EG^2=1+\frac{\kappa-1}n,\qquad
\kappa=\frac{6(1+a^4)}{(1+a^2)^2},$$

3 for linear layers, 6 for ReLU. The residual layer $\zeta z+\sqrt{1-\zeta^2}\,Wz$ of a linear
network has $1+2(1-\zeta^4)/n$ (derived).

*Infinite width.* The kernel K and the vertex V (the limit of n Var G) of an activation follow

$$K'=C_b+C_W\mathbb E\sigma(\sqrt Kz)^2,\qquad
V'=\chi^2V+C_W^2\operatorname{Var}\sigma(\sqrt Kz)^2,\qquad
\chi=C_W\frac d{dK}\mathbb E\sigma(\sqrt Kz)^2.$$

For odd $\sigma(x)=x-\frac a6x^3+\dots$ at $C_W=1,C_b=0$, $K'=K-aK^2+O(K^3)$:
$aK_\ell\ell\to1$ and, as $\chi=1-2aK+O(K^2)$, $V_\ell/(K_\ell^2\ell)
\to\frac23$ for every such activation (derived).

Paper: roberts2021-principles."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = [
    "KernelChain",
    "kernel_chain",
    "propagate",
    "residual_growth",
    "vertex_growth",
]

_STEP = 0.04
_HALF = np.arange(0.0, 12.0 + _STEP / 2, _STEP)
_MASS = 2 * _STEP * np.exp(-(_HALF**2) / 2) / math.sqrt(2 * math.pi)
_MASS[0] /= 2  # 0 belongs to both halves


@result
class KernelChain:
    """Kernel, vertex and susceptibility of layers 0, 1, ..., L, arrays of shape (L + 1,).

    Attributes
    ----------
    kernels, vertices
        K and V; V is 0 at layer 0.
    susceptibilities
        The factor chi from each layer to the next.
    """

    kernels: FloatArray
    vertices: FloatArray
    susceptibilities: FloatArray


def vertex_growth(width: int, *, leak: float = 1.0) -> float:
    r"""Return the factor by which a layer multiplies $\mathbb EG^2$ at criticality.

    Parameters
    ----------
    width
        n, the number of neurons that are averaged.
    leak
        The slope a of the activation on the negative side: 1 for linear layers, 0 for ReLU.

    Examples
    --------
    >>> from theorylab.random_features import vertex_growth
    >>> vertex_growth(10), vertex_growth(10, leak=0.0)
    (1.2, 1.5)
    """
    n = as_count(width, "width")
    a = as_real(leak, "leak")
    if abs(a) > 1:  # the same ratio, without overflow
        a = 1 / a
    return 1 + (6 * (1 + a**4) / (1 + a**2) ** 2 - 1) / n


def residual_growth(width: int, *, skip: float) -> float:
    r"""Return $1+2(1-\zeta^4)/n$, the same factor for $\zeta z+\sqrt{1-\zeta^2}\,Wz$.

    Parameters
    ----------
    width
        n.
    skip
        The coefficient of the skip connection, in [-1, 1].

    Examples
    --------
    >>> from theorylab.random_features import residual_growth
    >>> residual_growth(10, skip=0.0), residual_growth(10, skip=1.0)
    (1.2, 1.0)
    """
    n = as_count(width, "width")
    return 1 + 2 * (1 - as_real(skip, "skip", minimum=-1.0, maximum=1.0) ** 4) / n


@refuses_overflow("z", "W", "skip", "branch", "leak")
def propagate(
    z: ArrayLike,
    W: ArrayLike,
    *,
    leak: float = 1.0,
    skip: float = 0.0,
    branch: float = 1.0,
) -> FloatArray:
    r"""Apply one layer $\zeta z+\beta W\sigma(z)$, $\sigma(z)=\max(z,az)$, to a batch
    of networks.

    Parameters
    ----------
    z
        (..., n) preactivations.
    W
        (..., m, n), with the same axes before.
    leak
        The slope a, at most 1.
    skip, branch
        The coefficients; a skip connection needs m = n.

    Examples
    --------
    >>> from theorylab.random_features import propagate
    >>> propagate([1.0, -1.0], [[2.0, 0.0], [0.0, 2.0]], leak=0.5).tolist()
    [2.0, -1.0]
    """
    x, W = as_array(z, "z"), as_array(W, "W")
    if x.ndim < 1:
        raise ValueError("z: expected shape (..., n), got a number")
    if W.ndim < 2 or (*W.shape[:-2], W.shape[-1]) != x.shape:
        raise ValueError(f"W: expected shape (..., m, n) for z of shape {x.shape}, got {W.shape}")
    a = as_real(leak, "leak", maximum=1.0)
    zeta, beta = as_real(skip, "skip"), as_real(branch, "branch")
    moved = beta * (W @ np.maximum(x, a * x)[..., None])[..., 0]
    if zeta == 0:
        return moved
    if moved.shape != x.shape:
        raise ValueError(f"W: expected square matrices with a skip, got shape {W.shape}")
    return moved + zeta * x


@refuses_overflow("activation", "kernel", "weight_variance", "bias_variance")
def kernel_chain(
    activation: Callable[[FloatArray], FloatArray],
    kernel: float,
    *,
    depth: int,
    weight_variance: float = 1.0,
    bias_variance: float = 0.0,
) -> KernelChain:
    """Iterate kernel and vertex of a network of infinite width.

    Parameters
    ----------
    activation
        Function of an array. The Gaussian means are sums over a grid of step 0.04, which are exact
        to rounding for activations that are analytic near the line, such as tanh for kernels up to
        10; for ReLU the error is 1e-4. Where a step of 0.08 changes a mean square by more than a
        hundredth, for kernels that are too large or activations that jump, the call is refused.
    kernel
        K of the input layer, positive.
    depth
        Number of layers.
    weight_variance, bias_variance
        Variance of a weight times the number of inputs, and of a bias.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import kernel_chain
    >>> chain = kernel_chain(np.sin, 1.0, depth=1)  # (1 - exp(-2)) / 2
    >>> round(float(chain.kernels[1]), 12)
    0.432332358382
    """
    sigma, L = as_function(activation, "activation"), as_count(depth, "depth", minimum=0)
    K = np.empty(L + 1)
    V, chi = np.zeros(L + 1), np.empty(L + 1)
    K[0] = as_real(kernel, "kernel", above=0.0)
    weight = as_real(weight_variance, "weight_variance", minimum=0.0)
    bias = as_real(bias_variance, "bias_variance", minimum=0.0)
    ends = np.concatenate([_HALF, -_HALF])
    mass = np.concatenate([_MASS, _MASS]) / 2
    coarse = 2 * mass * np.tile(np.arange(len(_HALF)) % 2 == 0, 2)
    hermite = mass * (ends**2 - 1) / 2
    for layer in range(L + 1):
        values = as_array(sigma(math.sqrt(K[layer]) * ends), "activation", shape=ends.shape)
        # In units of the largest value, so that tiny kernels have squares.
        unit = float(np.abs(values).max()) or 1.0
        squares = (values / unit) ** 2
        second = mass @ squares
        if abs(coarse @ squares - second) > 0.01 * second:
            raise ValueError(
                "activation, kernel, weight_variance, bias_variance: expected an activation that "
                f"is smooth on a grid of 0.04 root K, got K = {K[layer]:g} at layer {layer}"
            )
        chi[layer] = weight * unit**2 * (hermite @ squares) / K[layer]
        if layer < L:
            spread = mass @ (squares - second) ** 2
            K[layer + 1] = bias + weight * unit**2 * second
            V[layer + 1] = chi[layer] ** 2 * V[layer] + (weight * unit**2) ** 2 * spread
            if K[layer + 1] == 0:
                raise ValueError(
                    "activation, kernel, depth, weight_variance, bias_variance: expected kernels "
                    f"that stay positive in float64, got 0 at layer {layer + 1}"
                )
    return KernelChain(K, V, chi)
