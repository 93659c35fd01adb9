r"""Networks of finite width: their tangent kernels, how they train, and one adaptive step.

The parametrisation is that of :mod:`theorylab.random_features.neural_tangent`: parameters
:math:`\omega,\beta\sim N(0,1)`, weights :math:`\sigma_w\omega/\sqrt{\text{fan-in}}`. Under the
gradient flow of :math:`\frac12\sum_i(f(x_i)-y_i)^2` the outputs obey :math:`\dot f=-\Theta_t(f-y)`
with the tangent kernel of the moment. Where that is constant,

.. math:: f_t=y+e^{-t\Theta}(f_0-y),\qquad
   f_t(x)=f_0(x)+\Theta(x,X)\,\frac{I-e^{-t\Theta}}\Theta\,(y-f_0),

so that the part along an eigenvector decays at the rate of its eigenvalue.

An entrywise optimiser moves every parameter by a function Q of its own gradient: its first step is
that of sign descent for Adam without damping. For one hidden layer of n units and a step
:math:`\eta/\sqrt n` the outputs move, as n grows, by a functional of the derivatives of the loss
that is neither linear nor, for signs, even continuous.

Theorems: jacot2018-neural (flow), yang2023-tensor (entrywise steps)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_instance,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.numerics.results import result
from theorylab.random_features.activations import Activation, as_activation

__all__ = [
    "Networks",
    "entrywise_step",
    "gradient_flow",
    "linear_dynamics",
    "network_outputs",
    "planar_sign_limit",
    "random_networks",
    "tangent_blocks",
]

Arrays = Sequence[FloatArray]


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
    shapes = [(draws, out, into) for into, out in zip(sizes[:-1], sizes[1:], strict=True)]
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
    return _forward(networks, _points(networks, X))[0][-1]


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
    fields, inputs = _forward(networks, _points(networks, X))
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


@refuses_overflow("networks", "X", "targets", "time")
def gradient_flow(
    networks: Networks, X: ArrayLike, targets: ArrayLike, *, time: float, n_steps: int
) -> tuple[FloatArray, Networks]:
    r"""Train every network on its own by the gradient flow of :math:`\frac12\sum_i(f(x_i)-y_i)^2`.

    Parameters
    ----------
    networks
        With one output.
    X
        (n, d) points.
    targets
        Shape (n,), or (n_draws, n) for targets of its own for each network.
    time
        End of the flow.
    n_steps
        Equal steps of the classical method of Runge and Kutta, whose error is of fourth order; the
        time is to be resolved, the largest eigenvalue of the tangent kernel times a step being
        below 1, say.

    Returns
    -------
    outputs
        Shape (n_draws, n_steps + 1, n), the start included.
    networks
        At the end.

    Examples
    --------
    >>> from theorylab.random_features import gradient_flow, random_networks
    >>> networks = random_networks(2, width=50, depth=1, seed=0)
    >>> outputs, _ = gradient_flow(networks, [[1.0, 1.0]], [2.0], time=9.0, n_steps=40)
    >>> outputs[0, -1].round(2).tolist()
    [2.0]
    """
    networks = as_instance(networks, "networks", Networks)
    points = _points(networks, X)
    draws, outs, _ = networks.weights[-1].shape
    if outs != 1:
        raise ValueError(f"networks: expected one output, got {outs}")
    y = as_array(targets, "targets")
    if y.shape not in ((len(points),), (draws, len(points))):
        raise ValueError(f"targets: expected shape (n,) or (n_draws, n), got {y.shape}")
    step = as_real(time, "time", minimum=0.0) / as_count(n_steps, "n_steps")
    state = [*networks.weights, *networks.biases]

    def velocity(state: Arrays) -> tuple[FloatArray, list[FloatArray]]:
        current = _with(networks, state)
        fields, inputs = _forward(current, points)
        outputs = fields[-1]
        return outputs[..., 0], _gradients(current, fields, inputs, y[..., None] - outputs)

    outputs = []
    for _ in range(n_steps):
        now, first = velocity(state)
        outputs.append(now)
        second = velocity(_moved(state, first, step / 2))[1]
        third = velocity(_moved(state, second, step / 2))[1]
        last = velocity(_moved(state, third, step))[1]
        mean = [
            (a + 2 * b + 2 * c + d) / 6
            for a, b, c, d in zip(first, second, third, last, strict=True)
        ]
        state = _moved(state, mean, step)
    end = _with(networks, state)
    outputs.append(_forward(end, points)[0][-1][..., 0])
    return np.stack(outputs, axis=1), end


@refuses_overflow("kernel", "targets", "initial", "times", "cross_kernel", "cross_initial")
def linear_dynamics(
    kernel: ArrayLike,
    targets: ArrayLike,
    *,
    initial: ArrayLike | None = None,
    times: ArrayLike,
    cross_kernel: ArrayLike | None = None,
    cross_initial: ArrayLike | None = None,
) -> FloatArray:
    r"""Return the outputs of gradient flow with a constant kernel (module docstring).

    Parameters
    ----------
    kernel
        (n, n) tangent kernel of the training points, positive semidefinite.
    targets
        Shape (n,).
    initial
        Outputs at the start, shape (n,), by default 0.
    times
        Shape (T,), non-negative.
    cross_kernel
        (m, n), of other points with the training points; by default the outputs at the training
        points are returned.
    cross_initial
        Outputs at the other points at the start, shape (m,), by default 0.

    Returns
    -------
    FloatArray
        Shape (T, m), or (T, n).

    Examples
    --------
    >>> from theorylab.random_features import linear_dynamics
    >>> linear_dynamics([[2.0]], [1.0], times=[0.0, 1.0]).round(3).tolist()
    [[0.0], [0.865]]
    """
    theta = as_symmetric(kernel, "kernel")
    n = len(theta)
    y = as_array(targets, "targets", shape=(n,))
    start = np.zeros(n) if initial is None else as_array(initial, "initial", shape=(n,))
    t = as_array(times, "times", ndim=1, nonnegative=True)[:, None]
    values, vectors = np.linalg.eigh((theta + theta.T) / 2)
    if values[0] < -1e-6 * np.abs(values).max():  # beyond the rounding of a float32 kernel
        raise ValueError(f"kernel: expected a semidefinite matrix, got an eigenvalue {values[0]}")
    values = np.maximum(values, 0.0)
    gaps = vectors.T @ (y - start)
    if cross_kernel is None:
        if cross_initial is not None:
            raise ValueError("cross_initial: expected a cross_kernel with it, got none")
        closed: FloatArray = start - (np.expm1(-t * values) * gaps) @ vectors.T
        return closed
    cross = as_array(cross_kernel, "cross_kernel", shape=(None, n))
    m = len(cross)
    base = np.zeros(m) if cross_initial is None else as_array(cross_initial, "cross_initial")
    if base.shape != (m,):
        raise ValueError(f"cross_initial: expected shape ({m},), got {base.shape}")
    positive = values > 0
    weights = np.where(positive, -np.expm1(-t * values) / np.where(positive, values, 1.0), t)
    found: FloatArray = base + (weights * gaps) @ (cross @ vectors).T
    return found


@refuses_overflow("networks", "X", "loss_derivatives", "step_sizes")
def entrywise_step(
    networks: Networks,
    X: ArrayLike,
    loss_derivatives: ArrayLike,
    *,
    step_sizes: ArrayLike,
    update: Callable[[FloatArray], FloatArray] = np.sign,
) -> Networks:
    r"""Move every weight by a function of its own gradient, biases being kept.

    Parameters
    ----------
    networks
        With one output.
    X
        (n, d) points of the batch.
    loss_derivatives
        Derivatives of the loss in the outputs, shape (n,).
    step_sizes
        One a layer: :math:`\omega\leftarrow\omega-\eta\,Q(g)`.
    update
        Q; the gradient is passed in units of its own size at the start (that of a layer times
        :math:`\sqrt n` for each of its sides that is hidden), as a Q with a scale, such as Adam's
        with its damping, needs. The sign is Adam's first step without damping.

    Examples
    --------
    >>> from theorylab.random_features import entrywise_step, random_networks
    >>> networks = random_networks(1, width=3, depth=1, seed=0)
    >>> moved = entrywise_step(networks, [[1.0]], [1.0], step_sizes=[0.0, 0.5])
    >>> sorted(abs(moved.weights[1] - networks.weights[1]).ravel().tolist())
    [0.0, 0.5, 0.5]
    """
    networks = as_instance(networks, "networks", Networks)
    points = _points(networks, X)
    if networks.weights[-1].shape[1] != 1:
        raise ValueError(f"networks: expected one output, got {networks.weights[-1].shape[1]}")
    chi = as_array(loss_derivatives, "loss_derivatives", shape=(len(points),))
    steps = as_array(step_sizes, "step_sizes", shape=(len(networks.weights),))
    as_function(update, "update")
    fields, inputs = _forward(networks, points)
    signal = np.broadcast_to(chi[:, None], fields[-1].shape)
    gradients = _gradients(networks, fields, inputs, signal)[: len(steps)]
    moved = []
    for layer, (weights, gradient) in enumerate(zip(networks.weights, gradients, strict=True)):
        hidden = [weights.shape[2]] * (layer > 0) + [weights.shape[1]] * (layer < networks.depth)
        change = as_array(update(gradient * math.sqrt(math.prod(hidden))), "update")
        if change.shape != weights.shape:
            raise ValueError(f"update: expected to keep the shape {weights.shape}")
        moved.append(weights - steps[layer] * change)
    return replace(networks, weights=tuple(moved))


@refuses_overflow("X", "loss_derivatives", "X_test", "step_size", "weight_variance")
def planar_sign_limit(
    X: ArrayLike,
    loss_derivatives: ArrayLike,
    X_test: ArrayLike,
    *,
    step_size: float,
    weight_variance: float = 1.0,
) -> FloatArray:
    r"""Return by how much the outputs of a wide ReLU network move in one step of sign descent.

    One hidden layer of n units, no bias, points in the plane, both layers moved by
    :math:`\eta/\sqrt n`; as n grows the outputs at x move by

    .. math:: -\eta\frac{\sigma_w^2}{\sqrt d}\,\mathbb E\Big[\sqrt{\tfrac2\pi}\,
       1_{\omega\cdot x>0}\Big\langle x,\mathrm{sgn}\sum_b\chi_b1_{\omega\cdot x_b>0}x_b\Big\rangle
       +(\omega\cdot x)_+\,\mathrm{sgn}\sum_b\chi_b(\omega\cdot x_b)_+\Big].

    The signs depend on the angle of :math:`\omega` only, and change at finitely many of them: the
    expectation is a finite sum.

    Parameters
    ----------
    X
        (n, 2) points of the batch.
    loss_derivatives
        :math:`\chi`, shape (n,).
    X_test
        (m, 2) points.
    step_size
        :math:`\eta`.
    weight_variance
        :math:`\sigma_w^2`.

    Examples
    --------
    >>> from theorylab.random_features import planar_sign_limit
    >>> planar_sign_limit([[1.0, 0.0]], [1.0], [[1.0, 0.0]], step_size=1.0).round(4).tolist()
    [-0.5642]
    """
    points = as_array(X, "X", shape=(None, 2))
    chi = as_array(loss_derivatives, "loss_derivatives", shape=(len(points),))
    tests = as_array(X_test, "X_test", shape=(None, 2))
    eta = as_real(step_size, "step_size", minimum=0.0)
    weight = as_real(weight_variance, "weight_variance", above=0.0)
    corners = _cuts(np.concatenate([points, tests]))
    active = _directions((corners[:-1] + corners[1:]) / 2) @ points.T > 0
    corners = _cuts(np.concatenate([points, tests, (active * chi) @ points]))
    middle = _directions((corners[:-1] + corners[1:]) / 2)
    active = middle @ points.T > 0
    drift = (active * chi) @ points
    first = np.sign(drift) @ tests.T
    second = np.sign(np.einsum("ij,ij->i", middle, drift))
    # The integrals of the direction over each arc, of its coordinates along the tests.
    ends = _directions(corners - math.pi / 2)
    along = np.diff(ends, axis=0) @ tests.T
    on = middle @ tests.T > 0
    inner = math.sqrt(2 / math.pi) * np.diff(corners) @ (on * first)
    outer = math.sqrt(math.pi / 2) * second @ (on * along)
    change: FloatArray = -eta * weight / math.sqrt(2) / math.tau * (inner + outer)
    return change


def _cuts(vectors: FloatArray) -> FloatArray:
    """Return the angles of the directions orthogonal to the vectors, with both ends of the
    circle."""
    angles = np.arctan2(vectors[:, 1], vectors[:, 0]) + math.pi / 2
    both = np.concatenate([angles, angles + math.pi]) % math.tau
    return np.unique(np.concatenate([both, [0.0, math.tau]]))


def _directions(angles: FloatArray) -> FloatArray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _points(networks: Networks, X: ArrayLike) -> FloatArray:
    return as_array(X, "X", shape=(None, networks.weights[0].shape[2]))


def _scaled(networks: Networks, layer: int) -> FloatArray:
    """Return the weights as they act, parameters over the root of the fan-in."""
    weights = networks.weights[layer]
    scaled: FloatArray = math.sqrt(networks.weight_variance / weights.shape[2]) * weights
    return scaled


def _forward(networks: Networks, X: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
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


def _gradients(
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


def _with(networks: Networks, state: Arrays) -> Networks:
    half = len(state) // 2
    return replace(networks, weights=tuple(state[:half]), biases=tuple(state[half:]))


def _moved(state: Arrays, direction: Arrays, step: float) -> list[FloatArray]:
    return [a + step * b for a, b in zip(state, direction, strict=True)]
