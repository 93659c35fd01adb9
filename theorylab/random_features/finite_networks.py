r"""Networks of finite width, many draws at a time, and their tangent kernels.

The parametrisation is that of :mod:`theorylab.random_features.neural_tangent`: parameters
$\omega,\beta\sim N(0,1)$, weights $\sigma_w\omega/\sqrt{\text{fan-in}}$; gradients are
those in the parameters. With one hidden layer of n units, K outputs and the block of two
points is

$$\Theta_{kl}=\delta_{kl}\Big(\frac{\sigma_w^2}n\sum_i\phi_i\phi_i'+\sigma_b^2\Big)
+\frac{\sigma_w^2}n\sum_iV_{ki}V_{li}g_i,\qquad g_i=\Sigma^1\dot\phi_i\dot\phi_i',$$

a mean of independent terms: its expectation is the limit at any width, and its blocks differ from
multiples of the identity by what averages out.

Theorems: jacot2018-neural (the limit), guo2024-sample (blocks and their sums)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.results import result
from theorylab.random_features.activations import Activation, as_activation

__all__ = [
    "Networks",
    "decay_exponents",
    "network_outputs",
    "random_networks",
    "sample_kernels",
    "tangent_blocks",
]

Arrays = Sequence[FloatArray]
_BLOCK = 2**17  # entries worked on at a time: the passes over them stay in the cache


@result
class Networks:
    """Independent networks of one shape.

    Attributes
    ----------
    weights
        One array a layer, shape (n_draws, fan-out, fan-in), standard normal at the start.
    biases
        One array a layer, shape (n_draws, fan-out).
    activation, weight_variance, bias_variance
        As of the kernel.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    activation: Activation
    weight_variance: float
    bias_variance: float

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.weights) - 1


def random_networks(
    n_inputs: int,
    *,
    width: int,
    depth: int,
    n_outputs: int = 1,
    n_draws: int = 1,
    activation: str | Activation = "relu",
    weight_variance: float = 1.0,
    bias_variance: float = 0.0,
    seed: int,
) -> Networks:
    """Return networks with standard normal parameters.

    Parameters
    ----------
    n_inputs
        Dimension of the points.
    width, depth
        Units of each hidden layer, and the number of these.
    n_outputs
        Number of outputs.
    n_draws
        Number of independent networks.
    activation, weight_variance, bias_variance
        As in :func:`theorylab.random_features.ntk`.
    seed
        Seeds the parameters.

    Examples
    --------
    >>> from theorylab.random_features import random_networks
    >>> [W.shape for W in random_networks(3, width=5, depth=1, n_draws=2, seed=0).weights]
    [(2, 5, 3), (2, 1, 5)]
    """
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    hidden = [as_count(width, "width")] * as_count(depth, "depth", minimum=0)
    sizes = [as_count(n_inputs, "n_inputs"), *hidden, as_count(n_outputs, "n_outputs")]
    draws = as_count(n_draws, "n_draws")
    shapes = [(draws, out, into) for into, out in itertools.pairwise(sizes)]
    return Networks(
        tuple(rng.standard_normal(shape) for shape in shapes),
        tuple(rng.standard_normal(shape[:2]) for shape in shapes),
        as_activation(activation),
        as_real(weight_variance, "weight_variance", above=0.0),
        as_real(bias_variance, "bias_variance", minimum=0.0),
    )


@refuses_overflow("networks", "X")
def network_outputs(networks: Networks, X: ArrayLike) -> FloatArray:
    """Return the outputs, shape (n_draws, n, n_outputs), at the (n, d) points.

    Examples
    --------
    >>> from theorylab.random_features import network_outputs, random_networks
    >>> networks = random_networks(3, width=5, depth=1, seed=0)
    >>> network_outputs(networks, [[0.0, 0.0, 0.0]]).tolist()
    [[[0.0]]]
    """
    networks = as_instance(networks, "networks", Networks)
    return forward(networks, points_of(networks, X))[0][-1]


@refuses_overflow("networks", "X")
def tangent_blocks(networks: Networks, X: ArrayLike) -> FloatArray:
    r"""Return the tangent kernels of the networks as they are.

    Parameters
    ----------
    networks
        Any.
    X
        (n, d) points.

    Returns
    -------
    FloatArray
        Shape (n_draws, n, n, n_outputs, n_outputs): the products of the gradients of output k at
        the first and output l at the second point in all parameters.

    Examples
    --------
    >>> from theorylab.random_features import random_networks, tangent_blocks
    >>> networks = random_networks(2, width=4, depth=0, n_outputs=2, seed=0)
    >>> tangent_blocks(networks, [[1.0, 1.0]])[0, 0, 0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    networks = as_instance(networks, "networks", Networks)
    points = points_of(networks, X)
    units = len(points) * sum(weights.shape[1] for weights in networks.weights)
    size = max(1, _BLOCK // (units * networks.weights[-1].shape[1]))
    parts = []
    for start in range(0, len(networks.weights[0]), size):
        here = slice(start, start + size)
        weights, biases = ([p[here] for p in ps] for ps in (networks.weights, networks.biases))
        some = replace(networks, weights=tuple(weights), biases=tuple(biases))
        parts.append(_blocks(some, points))
    return np.concatenate(parts)


def _blocks(networks: Networks, points: FloatArray) -> FloatArray:
    fields, inputs = forward(networks, points)
    draws, n, k = fields[-1].shape
    signal = np.broadcast_to(np.eye(k), (draws, n, k, k))
    total = np.zeros((draws, n, k, n, k))
    for layer in range(networks.depth, -1, -1):
        z = inputs[layer]
        features = networks.weight_variance / z.shape[2] * (z @ z.swapaxes(1, 2))
        features += networks.bias_variance
        flat = signal.reshape(draws, n * k, -1)
        gram = (flat @ flat.swapaxes(1, 2)).reshape(draws, n, k, n, k)
        total += gram * features[:, :, None, :, None]
        if layer:
            signal = signal @ _scaled(networks, layer)[:, None]
            signal = signal * networks.activation.slope(fields[layer - 1])[:, :, None, :]
    return total.transpose(0, 1, 3, 2, 4)


@refuses_overflow("X", "weight_variance", "bias_variance")
def sample_kernels(
    X: ArrayLike,
    *,
    widths: Sequence[int],
    n_draws: int,
    activation: str | Activation = "relu",
    weight_variance: float = 1.0,
    bias_variance: float = 0.0,
    seed: int,
) -> tuple[FloatArray, FloatArray]:
    r"""Draw the random kernels of networks with one output, without drawing their weights.

    Only the preactivations at the points and the back-propagated signals are drawn, from their
    exact joint law: given the layer below the preactivations of the units are independent and
    Gaussian, and given these the transposed weights are known on the span of the features and
    Gaussian beside it. A draw costs n_points squared times the width, not the width squared.

    Parameters
    ----------
    X
        (n, d) points.
    widths
        Units of each hidden layer.
    n_draws
        Number of independent networks.
    activation, weight_variance, bias_variance
        As in :func:`theorylab.random_features.ntk`.
    seed
        Seeds the draws.

    Returns
    -------
    process, tangent
        Shape (n_draws, n, n): the covariance of the outputs given the hidden layers, and the
        tangent kernel.

    Examples
    --------
    >>> from theorylab.random_features import sample_kernels
    >>> process, tangent = sample_kernels([[1.0, 1.0]], widths=[10**5], n_draws=1, seed=0)
    >>> process.round(2).tolist(), tangent.round(1).tolist()
    ([[[0.5]]], [[[1.0]]])
    """
    X = as_array(X, "X", ndim=2)
    phi = as_activation(activation)
    weight = as_real(weight_variance, "weight_variance", above=0.0)
    bias = as_real(bias_variance, "bias_variance", minimum=0.0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    draws, n = as_count(n_draws, "n_draws"), len(X)
    layers = [as_count(size, "widths") for size in as_instance(widths, "widths", Iterable)]
    inputs = math.sqrt(weight / X.shape[1]) * X
    size = max(1, _BLOCK // (n * max([1, *layers])))
    counts = [min(size, draws - start) for start in range(0, draws, size)]
    parts = [_draw_kernels(inputs, layers, count, phi, weight, bias, rng) for count in counts]
    process, tangent = zip(*parts, strict=True)
    return np.concatenate(process), np.concatenate(tangent)


def _draw_kernels(
    inputs: FloatArray,
    layers: Sequence[int],
    draws: int,
    phi: Activation,
    weight: float,
    bias: float,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    n = len(inputs)
    z = np.broadcast_to(inputs, (draws, *inputs.shape))
    features, linear, slopes = [z], [], []
    for width in layers:
        linear.append(_root(z @ z.swapaxes(1, 2)) @ rng.standard_normal((draws, n, width)))
        h = linear[-1] + math.sqrt(bias) * rng.standard_normal((draws, 1, width))
        slopes.append(phi.slope(h))
        z = math.sqrt(weight / width) * phi.value(h)
        features.append(z)
    grams = [z @ z.swapaxes(1, 2) for z in features]
    tangent, signal = grams[-1] + bias, np.empty(0)
    for layer in range(len(layers) - 1, -1, -1):
        shape = (draws, n, layers[layer])
        gain = math.sqrt(weight / layers[layer])
        if layer == len(layers) - 1:
            back = gain * rng.standard_normal((draws, 1, layers[layer]))
        else:
            z, field = features[layer + 1], linear[layer + 1]
            onto = np.linalg.pinv(grams[layer + 1], hermitian=True)
            fresh = _root(signal @ signal.swapaxes(1, 2)) @ rng.standard_normal(shape)
            known = signal @ field.swapaxes(1, 2) - fresh @ z.swapaxes(1, 2)
            back = gain * (fresh + known @ onto @ z)
        signal = back * slopes[layer]
        tangent = tangent + (signal @ signal.swapaxes(1, 2)) * (grams[layer] + bias)
    return grams[-1] + bias, tangent


def decay_exponents(
    squares: Sequence[ArrayLike] | FloatArray, *, factor: float, n_batches: int
) -> FloatArray:
    r"""Return the exponents with which a root mean square depends on a size, by batches of draws.

    Parameters
    ----------
    squares
        For each size the squares that were drawn, shape (draws,), positive in every batch; the
        number of draws may differ, and is a multiple of the number of batches.
    factor
        Each size over the one before.
    n_batches
        Number of batches.

    Returns
    -------
    FloatArray
        Shape (sizes - 1, n_batches): $\log(m_{k+1}/m_k)/(2\log\text{factor})$, m being the
        mean of a batch, whose logarithm is corrected to first order for its own spread.

    Examples
    --------
    >>> from theorylab.random_features import decay_exponents
    >>> decay_exponents([[16.0, 4.0], [1.0, 0.25]], factor=16, n_batches=2).tolist()
    [[-0.5, -0.5]]
    """
    ratio, batches = as_real(factor, "factor", above=1.0), as_count(n_batches, "n_batches")
    if not isinstance(squares, Sequence | np.ndarray) or len(squares) < 2:
        raise ValueError("squares: expected a sequence of two arrays at least")
    logs = []
    for drawn in squares:
        values = as_array(drawn, "squares", ndim=1, nonnegative=True)
        if len(values) % batches:
            raise ValueError(f"squares: expected a multiple of {batches} draws, got {len(values)}")
        batch = values.reshape(batches, -1)
        means = as_array(batch.mean(axis=1), "squares", positive=True)
        spread = np.mean((batch / means[:, None] - 1) ** 2, axis=1)
        logs.append(np.log(means) + spread / (2 * batch.shape[1]))
    return np.diff(logs, axis=0) / (2 * math.log(ratio))


def _root(gram: FloatArray) -> FloatArray:
    """Return factors R of positive semidefinite matrices R R^T, singular ones too."""
    values, vectors = np.linalg.eigh(gram)
    root: FloatArray = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return root


def points_of(networks: Networks, X: ArrayLike) -> FloatArray:
    """Validate points as inputs of the networks."""
    if len(networks.biases) != len(networks.weights):
        raise ValueError(
            f"networks: expected biases for each of {len(networks.weights)} layers, got "
            f"{len(networks.biases)}"
        )
    return as_array(X, "X", shape=(None, networks.weights[0].shape[2]))


def _scaled(networks: Networks, layer: int) -> FloatArray:
    """Return the weights as they act, parameters over the root of the fan-in."""
    weights = networks.weights[layer]
    scaled: FloatArray = math.sqrt(networks.weight_variance / weights.shape[2]) * weights
    return scaled


def forward(networks: Networks, X: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
    """Return the preactivations of every layer, outputs last, and the inputs of every layer."""
    z = np.broadcast_to(X, (len(networks.weights[0]), *X.shape))
    fields, inputs = [], []
    for layer, biases in enumerate(networks.biases):
        h = z @ _scaled(networks, layer).swapaxes(1, 2)
        if networks.bias_variance:
            h += math.sqrt(networks.bias_variance) * biases[:, None]
        inputs.append(z)
        fields.append(h)
        z = networks.activation.value(h)
    return fields, inputs


def gradients_of(
    networks: Networks, fields: Arrays, inputs: Arrays, signal: FloatArray
) -> list[FloatArray]:
    """Return the gradients of sum_i signal_i . f(x_i) in all weights, then in all biases."""
    weights, biases = [], []
    for layer in range(networks.depth, -1, -1):
        z = inputs[layer]
        unit = math.sqrt(networks.weight_variance / z.shape[2])
        weights.append(unit * (signal.swapaxes(1, 2) @ z))
        biases.append(math.sqrt(networks.bias_variance) * signal.sum(axis=1))
        if layer:
            signal = signal @ _scaled(networks, layer)
            signal = signal * networks.activation.slope(fields[layer - 1])
    return [*weights[::-1], *biases[::-1]]
