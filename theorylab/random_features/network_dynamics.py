r"""How networks of finite width train: gradient flow beside its linear limit, and adaptive steps.

Under the gradient flow of $\frac12\sum_i(f(x_i)-y_i)^2$ the outputs obey
$\dot f=-\Theta_t(f-y)$ with the tangent kernel of the moment. Where that is constant,

$$f_t=y+e^{-t\Theta}(f_0-y),\qquad
f_t(x)=f_0(x)+\Theta(x,X)\,\frac{I-e^{-t\Theta}}\Theta\,(y-f_0),$$

so that the part along an eigenvector decays at the rate of its eigenvalue.

An entrywise optimiser moves every parameter by a function Q of its own gradient: its first step is
that of sign descent for Adam without damping. For one hidden layer of n units and a step
$\eta/\sqrt n$ the outputs move, as n grows, by a functional of the derivatives of the loss
that is neither linear nor, for signs, even continuous.

Theorems: jacot2018-neural (flow), yang2023-tensor (entrywise steps)."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from theorylab.random_features.finite_networks import (
    Arrays,
    Networks,
    forward,
    gradients_of,
    points_of,
)

__all__ = [
    "entrywise_step",
    "gradient_flow",
    "linear_dynamics",
    "planar_sign_limit",
]


@refuses_overflow("networks", "X", "targets", "time")
def gradient_flow(
    networks: Networks, X: ArrayLike, targets: ArrayLike, *, time: float, n_steps: int
) -> tuple[FloatArray, Networks]:
    r"""Train every network on its own by the gradient flow of $\frac12\sum_i(f(x_i)-y_i)^2$.

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
    points = points_of(networks, X)
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
        fields, inputs = forward(current, points)
        outputs = fields[-1]
        return outputs[..., 0], gradients_of(current, fields, inputs, y[..., None] - outputs)

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
    outputs.append(forward(end, points)[0][-1][..., 0])
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
        One a layer: $\omega\leftarrow\omega-\eta\,Q(g)$.
    update
        Q; the gradient is passed in units of its own size at the start (that of a layer times
        $\sqrt n$ for each of its sides that is hidden), as a Q with a scale, such as Adam's
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
    points = points_of(networks, X)
    if networks.weights[-1].shape[1] != 1:
        raise ValueError(f"networks: expected one output, got {networks.weights[-1].shape[1]}")
    chi = as_array(loss_derivatives, "loss_derivatives", shape=(len(points),))
    steps = as_array(step_sizes, "step_sizes", shape=(len(networks.weights),))
    as_function(update, "update")
    fields, inputs = forward(networks, points)
    signal = np.broadcast_to(chi[:, None], fields[-1].shape)
    gradients = gradients_of(networks, fields, inputs, signal)[: len(steps)]
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
    $\eta/\sqrt n$; as n grows the outputs at x move by

    $$-\eta\frac{\sigma_w^2}{\sqrt d}\,\mathbb E\Big[\sqrt{\tfrac2\pi}\,
    1_{\omega\cdot x>0}\Big\langle x,\mathrm{sgn}\sum_b\chi_b1_{\omega\cdot x_b>0}x_b\Big\rangle
    +(\omega\cdot x)_+\,\mathrm{sgn}\sum_b\chi_b(\omega\cdot x_b)_+\Big].$$

    The signs depend on the angle of $\omega$ only, and change at finitely many of them: the
    expectation is a finite sum.

    Parameters
    ----------
    X
        (n, 2) points of the batch.
    loss_derivatives
        $\chi$, shape (n,).
    X_test
        (m, 2) points.
    step_size
        $\eta$.
    weight_variance
        $\sigma_w^2$.

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


def _with(networks: Networks, state: Arrays) -> Networks:
    half = len(state) // 2
    return replace(networks, weights=tuple(state[:half]), biases=tuple(state[half:]))


def _moved(state: Arrays, direction: Arrays, step: float) -> list[FloatArray]:
    return [a + step * b for a, b in zip(state, direction, strict=True)]
