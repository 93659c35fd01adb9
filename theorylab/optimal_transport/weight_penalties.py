r"""Penalties on the distribution of weights, and on their singular values.

In place of $\frac1n\|w-w^0\|^2$ one penalises how far the *distribution* of the weights has
moved from the initial one, which by the rearrangement inequality is no more:

$$W_2^2=\frac1n\sum_i(w_{(i)}-w^0_{(i)})^2\le\frac1n\|w-w^0\|^2.$$

Layers with singular values in $[1-\delta,1+\delta]$ and activations of slopes in
$[s,1]$ have products $J=D_kW_k\cdots D_1W_1$ with

$$\frac{\sigma_{\min}(J)}{\sigma_{\max}(J)}\ge\Big(\frac{(1-\delta)s}{1+\delta}\Big)^k,$$

so that gradients of different outputs stay different at every layer.

Source: lewandowski2024-learning (both derived)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real, refuses_overflow

__all__ = ["layer_stack", "path_conditioning", "sorted_penalty", "sorted_penalty_gradient"]


@refuses_overflow("w", "w0")
def sorted_penalty(w: ArrayLike, w0: ArrayLike) -> float:
    """Return the squared 2-Wasserstein distance of the distributions of two weight vectors.

    Parameters
    ----------
    w, w0
        (n,) weights and initial weights, in any order.

    Examples
    --------
    >>> from theorylab.optimal_transport import sorted_penalty
    >>> sorted_penalty([3.0, 1.0], [1.0, 4.0])
    0.5
    """
    w = as_array(w, "w", ndim=1)
    w0 = as_array(w0, "w0", shape=w.shape)
    return float(np.mean((np.sort(w) - np.sort(w0)) ** 2))


@refuses_overflow("w", "w0")
def sorted_penalty_gradient(w: ArrayLike, w0: ArrayLike) -> FloatArray:
    """Return the gradient of :func:`sorted_penalty` in ``w``; between equal weights, where there
    is none, that of the order in which they came.

    Parameters
    ----------
    w, w0
        (n,) weights and initial weights.

    Examples
    --------
    >>> from theorylab.optimal_transport import sorted_penalty_gradient
    >>> sorted_penalty_gradient([3.0, 1.0], [1.0, 4.0]).tolist()
    [-1.0, 0.0]
    """
    w = as_array(w, "w", ndim=1)
    w0 = as_array(w0, "w0", shape=w.shape)
    matched = np.empty_like(w)
    matched[np.argsort(w, kind="stable")] = np.sort(w0)
    gradient: FloatArray = 2 / w.size * (w - matched)
    return gradient


def layer_stack(
    depth: int, width: int, *, spread: float, aligned: bool = False, seed: int
) -> FloatArray:
    r"""Return square layers, (depth, width, width), with singular values in
    $[1-\delta,1+\delta]$, both ends taken.

    Parameters
    ----------
    depth, width
        Number and size of the layers; width two at least.
    spread
        $0\le\delta<1$.
    aligned
        Equal diagonal layers, largest entry first, instead of random ones.
    seed
        Seeds singular values and singular vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import layer_stack
    >>> np.linalg.svd(layer_stack(1, 2, spread=0.5, seed=0), compute_uv=False).round(12).tolist()
    [[1.5, 0.5]]
    """
    depth, width = as_count(depth, "depth"), as_count(width, "width", minimum=2)
    delta = as_real(spread, "spread", minimum=0.0, below=1.0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    levels = rng.uniform(-1.0, 1.0, (depth, width))
    levels[:, 0], levels[:, -1] = 1.0, -1.0
    values = 1 + delta * levels
    if as_flag(aligned, "aligned"):
        return np.stack([np.diag(values[0])] * depth)
    U, V = (np.linalg.qr(rng.standard_normal((depth, width, width)))[0] for _ in range(2))
    layers: FloatArray = np.einsum("lij,lj,lkj->lik", U, values, V)
    return layers


def path_conditioning(layers: ArrayLike, x: ArrayLike, *, slope: float) -> FloatArray:
    r"""Return for k = 1, ..., L the least $\sigma_{\min}/\sigma_{\max}$ among the Jacobians
    of k consecutive layers of a leaky-ReLU network at an input; 0 where one vanishes.

    The map from the output's error to the error at a layer is the transpose of such a Jacobian.

    Parameters
    ----------
    layers
        (L, d, d), each followed by the activation.
    x
        (d,) input.
    slope
        Of the activation at negative numbers: 1 is a linear network, 0 a ReLU network.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import path_conditioning
    >>> layers = np.stack([np.diag([2.0, 1.0])] * 2)
    >>> path_conditioning(layers, [1.0, -1.0], slope=0.5).tolist()
    [0.25, 0.0625]
    """
    W = as_array(layers, "layers", ndim=3)
    if W.shape[1] != W.shape[2]:
        raise ValueError(f"layers: expected square matrices, got an array of shape {W.shape}")
    state = as_array(x, "x", shape=(W.shape[1],))
    slope = as_real(slope, "slope", minimum=0.0, maximum=1.0)
    blocks = []
    for layer in W / np.maximum(np.abs(W).max(axis=(1, 2), keepdims=True), np.finfo(float).tiny):
        # Positive factors leave every sign, and every quotient of singular values.
        state = layer @ (state / max(float(np.abs(state).max()), np.finfo(float).tiny))
        slopes = np.where(state > 0, 1.0, slope)
        blocks.append(slopes[:, None] * layer)
        state = slopes * state
    least, products = np.empty(len(W)), np.stack(blocks)
    for k in range(len(W)):
        if k:
            products = np.stack([blocks[k + i] @ products[i] for i in range(len(W) - k)])
        # Quotients do not depend on the scale: no product leaves float64, however long the path.
        size = np.abs(products).max(axis=(1, 2), keepdims=True)
        products = products / np.maximum(size, np.finfo(float).tiny)
        sigma = np.linalg.svd(products, compute_uv=False)
        top = np.maximum(sigma[:, 0], np.finfo(float).tiny)
        least[k] = (sigma[:, -1] / top).min()
    return least
