r"""Weights whose scale does not matter: normalisation, weight decay and the effective step.

With batch or weight normalisation $L(cw)=L(w)$ for c > 0, so that $w^\top\nabla L(w)=0$
and $\nabla L(cw)=\nabla L(w)/c$. The penalty $\lambda\|w\|^2$ then has no influence on
the best function, and moves only the scale of the weights: descent with step $\eta$ and decay
$\lambda$ from w takes the same directions as from $\alpha w$ with $\alpha^2\eta$
and $\lambda/\alpha^2$ (Adam with the penalty in the gradient $\alpha\eta,\lambda/
\alpha^2$, AdamW $\alpha\eta,\lambda/\alpha$; both with $\epsilon=0$). What counts is
the effective step $\eta/\|w\|^2$. If tangential gradients have length $G/\|w\|$,

$$\|w_{t+1}\|^2=(1-\eta\lambda)^2\|w_t\|^2+\eta^2G^2/\|w_t\|^2\quad\text{tends to}\quad
\frac{\eta G}{\sqrt{2\eta\lambda-(\eta\lambda)^2}},$$

where each step turns the weights by an angle with cosine $1-\eta\lambda$.

Paper: laarhoven2017-regularization (the laws of Adam and of the equilibrium derived here)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_instance,
    as_real,
    one_of,
    refuses_overflow,
)
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.results import result

__all__ = [
    "NormalisedDescent",
    "ScaleEquilibrium",
    "batch_norm_loss",
    "normalised_descent",
    "scale_equilibrium",
    "tangential_gradient",
]

METHODS = ("sgd", "adam", "adamw")
MAX_NUMBERS = 2 * 10**7
MAX_STEPS = 10**6


@result
class NormalisedDescent:
    """The iterates of descent with weight decay.

    Attributes
    ----------
    weights
        Shape (steps + 1, ...): the start first.
    norms
        Shape (steps + 1,): their Euclidean norms.
    cosines
        Shape (steps,): of the angle by which each step turns them.
    """

    weights: FloatArray
    norms: FloatArray
    cosines: FloatArray


@result
class ScaleEquilibrium:
    """Where the scale of the weights settles.

    Attributes
    ----------
    norm
        Euclidean norm of the weights.
    cosine
        Of the angle by which a step turns them.
    effective_step
        Step size over the squared norm.
    """

    norm: float
    cosine: float
    effective_step: float


def batch_norm_loss(
    neurons: ArrayLike, inputs: ArrayLike, targets: ArrayLike, *, head: ArrayLike
) -> tuple[float, FloatArray]:
    r"""Return half the mean squared error of a network with a batch-normalised hidden layer,
    $f(x)=\sum_ja_j\tanh h_j$, and its gradient by the weights.

    $h_j$ is $w_j^\top x$, less its mean over the batch and divided by its standard
    deviation: the loss depends on no length $\|w_j\|$.

    Parameters
    ----------
    neurons, inputs, targets, head
        Shapes (m, d), (n, d), (n,) and (m,): weights w, the batch, what it should yield, and a.

    Returns
    -------
    tuple
        The loss, and its gradient of shape (m, d).

    Examples
    --------
    >>> from theorylab.implicit_regularization import batch_norm_loss
    >>> batch = ([[1.0], [-1.0]], [0.0, 0.0])
    >>> batch_norm_loss([[3.0]], *batch, head=[1.0])[0] == batch_norm_loss([[0.5]], *batch,
    ...     head=[1.0])[0]
    True
    """
    w = as_array(neurons, "neurons", ndim=2)
    x = as_array(inputs, "inputs", shape=(None, w.shape[1]))
    y = as_array(targets, "targets", shape=(len(x),))
    a = as_array(head, "head", shape=(len(w),))
    return _batch_norm_loss(w, x, y, a)


@refuses_overflow("neurons", "inputs", "targets", "head")
def _batch_norm_loss(
    w: FloatArray, x: FloatArray, y: FloatArray, a: FloatArray
) -> tuple[float, FloatArray]:
    units = np.array([power_of_two(row) for row in w])
    scale = power_of_two(x)
    z = (x / scale) @ (w / units[:, None]).T
    centred = z - z.mean(axis=0)
    deviation = np.sqrt(np.mean(centred**2, axis=0))
    if (deviation <= 64 * np.finfo(float).eps * np.abs(z).max(axis=0)).any():
        raise ValueError("neurons: expected all to vary over the inputs, got a constant one")
    h = centred / deviation
    active = np.tanh(h)
    residual = active @ a - y
    back = residual[:, None] * a * (1 - active**2) / len(x)
    back = (back - back.mean(axis=0) - h * np.mean(back * h, axis=0)) / deviation
    return float(np.mean(residual**2)) / 2, np.asarray((back.T @ (x / scale)) / units[:, None])


def normalised_descent(
    gradient: Callable[[FloatArray, int], Any],
    initial: ArrayLike,
    *,
    step_size: float,
    decay: float,
    steps: int,
    method: str = "sgd",
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 0.0,
) -> NormalisedDescent:
    r"""Run descent with weight decay, and record how long the weights are and how far they turn.

    Parameters
    ----------
    gradient
        Function of the weights and of the step, counted from 1, that returns a (stochastic)
        gradient of the loss.
    initial
        The start, of any shape.
    step_size, decay, steps
        Step size, decay (0 or more) and number of steps.
    method
        ``"sgd"``: $w-\eta(g+\lambda w)$; ``"adam"``: Adam on $g+\lambda w$;
        ``"adamw"``: Adam on g, and $-\eta\lambda w$ beside it.
    beta1, beta2, eps
        Of Adam, whose averages are corrected for their bias; where they vanish the step is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import normalised_descent
    >>> run = normalised_descent(lambda w, t: 0 * w, [2.0], step_size=0.5, decay=1.0, steps=2)
    >>> run.norms.tolist()
    [2.0, 1.0, 0.5]
    """
    as_function(gradient, "gradient")
    w = as_array(initial, "initial")
    eta = as_real(step_size, "step_size", above=0.0)
    lam = as_real(decay, "decay", minimum=0.0)
    count = as_count(steps, "steps", maximum=min(MAX_STEPS, max(1, MAX_NUMBERS // w.size)))
    how = one_of(method, "method", METHODS)
    b1 = as_real(beta1, "beta1", minimum=0.0, below=1.0)
    b2 = as_real(beta2, "beta2", minimum=0.0, below=1.0)
    floor = as_real(eps, "eps", minimum=0.0)
    return _descend(gradient, w, eta, lam, count, how, (b1, b2, floor))


@refuses_overflow("gradient", "initial", "step_size", "decay")
def _descend(
    gradient: Callable[[FloatArray, int], Any],
    w: FloatArray,
    eta: float,
    lam: float,
    steps: int,
    method: str,
    adam: tuple[float, float, float],
) -> NormalisedDescent:
    b1, b2, eps = adam
    path = np.empty((steps + 1, *w.shape))
    path[0] = w
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, steps + 1):
        w = path[t - 1]
        g = as_array(gradient(w.copy(), t), "gradient", shape=w.shape)
        if method == "sgd":
            path[t] = (1 - eta * lam) * w - eta * g
            continue
        if method == "adam":
            g = g + lam * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        size = np.sqrt(v / (1 - b2**t)) + eps
        move = np.divide(m / (1 - b1**t), size, out=np.zeros_like(w), where=size > 0)
        kept = 1 - eta * lam if method == "adamw" else 1.0
        path[t] = kept * w - eta * move
    flat = path.reshape(steps + 1, -1)
    unit = power_of_two(flat)
    scaled = flat / unit
    norms = np.linalg.norm(scaled, axis=1)
    if not norms.all():
        raise ValueError("initial: expected weights that do not vanish, got zeros on the way")
    units = scaled / norms[:, None]
    cosines = np.clip(np.sum(units[1:] * units[:-1], axis=1), -1.0, 1.0)
    return NormalisedDescent(path, norms * unit, cosines)


@refuses_overflow("point", "size")
def tangential_gradient(point: ArrayLike, *, size: float, rng: np.random.Generator) -> FloatArray:
    r"""Return a random direction orthogonal to a point, of length size over their norm: a
    stochastic gradient of a scale-invariant loss.

    Parameters
    ----------
    point
        Of any shape, at least two numbers, not all 0.
    size
        Length G of the gradient at weights of norm 1; at least 0.
    rng
        Source of randomness.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import tangential_gradient
    >>> g = tangential_gradient([3.0, 4.0], size=2.0, rng=np.random.default_rng(0))
    >>> round(float(np.linalg.norm(g)), 12), abs(round(float(g @ [3.0, 4.0]), 12))
    (0.4, 0.0)
    """
    w = as_array(point, "point")
    length = as_real(size, "size", minimum=0.0)
    source = as_instance(rng, "rng", np.random.Generator)
    if w.size < 2 or not w.any():
        raise ValueError("point: expected at least two numbers, not all 0")
    unit = power_of_two(w)
    norm = float(np.linalg.norm(w / unit))
    radial = w / unit / norm
    drawn = source.standard_normal(w.shape)
    for _ in range(2):  # once more, for what rounding left
        drawn = drawn - np.sum(drawn * radial) * radial
        drawn = drawn / np.linalg.norm(drawn)
    return np.asarray(drawn * (length / norm / unit))


@refuses_overflow("step_size", "decay", "gradient_size")
def scale_equilibrium(*, step_size: float, decay: float, gradient_size: float) -> ScaleEquilibrium:
    r"""Return where descent with tangential gradients of length $G/\|w\|$ settles.

    Parameters
    ----------
    step_size, decay, gradient_size
        $\eta,\lambda,G$, positive with $\eta\lambda<1$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import scale_equilibrium
    >>> scale_equilibrium(step_size=0.1, decay=0.01, gradient_size=2.0)
    <ScaleEquilibrium: norm 2.11501, cosine 0.999, effective_step 0.0223551>
    """
    eta = as_real(step_size, "step_size", above=0.0)
    lam = as_real(decay, "decay", above=0.0)
    size = as_real(gradient_size, "gradient_size", above=0.0)
    p = eta * lam
    if not 0.0 < p < 1.0:
        raise ValueError(f"decay: expected a product with step_size in (0, 1), got {p}")
    root = math.sqrt(p) * math.sqrt(2 - p)
    norm = math.sqrt(eta) * math.sqrt(size) / math.sqrt(root)
    if norm == 0.0:
        raise ArithmeticError
    return ScaleEquilibrium(norm, 1 - p, root / size)
