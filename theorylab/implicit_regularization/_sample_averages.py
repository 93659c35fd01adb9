"""Descent averaged over the orders of the batches of an epoch, and over all samples of a finite
population: sums, without sampling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_function,
    as_real,
    refuses_overflow,
)

__all__ = ["epoch_average", "epoch_modified_gradient", "gap_change", "two_step_losses"]


F = TypeVar("F", bound=Callable[..., ArrayLike])
Field = Callable[[FloatArray], ArrayLike]
Product = Callable[[FloatArray, FloatArray], ArrayLike]
_BATCHES = 7  # at most: their orders are enumerated
_SAMPLES = 200_000  # at most, of those that are enumerated


@refuses_overflow("gradients", "start", "step_size")
def epoch_average(gradients: Sequence[Field], start: ArrayLike, *, step_size: float) -> FloatArray:
    """Return the mean, over all orders of the batches, of where an epoch of descent ends.

    Parameters
    ----------
    gradients
        One function of a point, shape (d,), a batch; at most 7.
    start, step_size
        Where the epoch starts, shape (d,), and the step.

    Examples
    --------
    >>> from theorylab.implicit_regularization import epoch_average
    >>> epoch_average([lambda x: x - 1, lambda x: 2 * x], [1.0], step_size=0.5)
    array([0.25])
    """
    fields = _fields(gradients, "gradients")
    x = as_array(start, "start", ndim=1)
    step = as_real(step_size, "step_size", minimum=0.0)
    ends = np.zeros_like(x)
    for order in itertools.permutations(fields):
        at = x.copy()
        for field in order:
            at = at - step * as_array(field(at), "gradients", shape=x.shape)
        ends += at
    return np.asarray(ends / math.factorial(len(fields)))


@refuses_overflow("gradients", "hessian_products", "x", "step_size")
def epoch_modified_gradient(
    gradients: Sequence[Field],
    hessian_products: Sequence[Product],
    x: ArrayLike,
    *,
    step_size: float,
) -> FloatArray:
    r"""Return the gradient of $L+\frac\varepsilon{4B}\sum_b\|\nabla L_b\|^2$, L the mean of
    the losses of B batches.

    Parameters
    ----------
    gradients, hessian_products
        For each batch, a function of a point and one of a point and a direction, shapes (d,).
    x, step_size
        The point, shape (d,), and $\varepsilon$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import epoch_modified_gradient
    >>> epoch_modified_gradient([lambda x: 2 * x], [lambda x, v: 2 * v], [1.0], step_size=0.5)
    array([3.])
    """
    fields = _fields(gradients, "gradients")
    products = _fields(hessian_products, "hessian_products")
    if len(products) != len(fields):
        raise ValueError(f"hessian_products: expected {len(fields)}, got {len(products)}")
    at = as_array(x, "x", ndim=1)
    half = as_real(step_size, "step_size", minimum=0.0) / 2
    total = np.zeros_like(at)
    for field, product in zip(fields, products, strict=True):
        g = as_array(field(at), "gradients", shape=at.shape)
        total += g + half * as_array(product(at, g), "hessian_products", shape=at.shape)
    return np.asarray(total / len(fields))


@refuses_overflow("loss", "gradient", "start", "step_size")
def gap_change(
    loss: Field,
    gradient: Field,
    start: ArrayLike,
    *,
    n_samples: int,
    step_size: float,
    replace: bool = True,
) -> float:
    """Return by how much a descent step on a random sample changes the test loss minus the training
    loss, on average over all samples of a finite population.

    Parameters
    ----------
    loss, gradient
        Functions of m parameters, shape (m, d), with the losses of the P points of the population,
        shape (m, P), and their gradients, shape (m, P, d).
    start
        Parameters, shape (d,), that do not depend on the sample.
    n_samples, step_size
        Size N of the sample, and the step.
    replace
        Whether the points of a sample are independent.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import gap_change
    >>> points = np.array([[-1.0], [1.0]])
    >>> def loss(x):
    ...     return (x - points.T) ** 2 / 2
    >>> def gradient(x):
    ...     return x[:, None] - points
    >>> gap_change(loss, gradient, [0.0], n_samples=2, step_size=0.5)
    0.25
    """
    x, size = _population(loss, gradient, start)
    number = as_count(n_samples, "n_samples")
    samples = _samples(size, number, replace=as_flag(replace, "replace"))
    eta = as_real(step_size, "step_size", minimum=0.0)
    slopes = as_array(gradient(x), "gradient", shape=(1, size, x.shape[1]))[0]
    moved = x - eta * slopes[samples].mean(axis=1)
    change = as_array(loss(moved), "loss", shape=(len(moved), size)) - as_array(loss(x), "loss")
    seen = np.take_along_axis(change, samples, axis=1)
    return float(np.mean(change.mean(axis=1) - seen.mean(axis=1)))


@refuses_overflow("loss", "gradient", "start", "step_size")
def two_step_losses(
    loss: Field,
    gradient: Field,
    start: ArrayLike,
    *,
    n_samples: int,
    step_size: float,
) -> tuple[float, float]:
    """Return the mean test losses after two descent steps on a random sample, and after one on each
    half of it, over all samples of independent points of a finite population.

    Parameters
    ----------
    loss, gradient, start, n_samples, step_size
        As for :func:`gap_change`; the sample size is even.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import two_step_losses
    >>> points = np.array([[-1.0], [1.0]])
    >>> def loss(x):
    ...     return (x - points.T) ** 2 / 2
    >>> def gradient(x):
    ...     return x[:, None] - points
    >>> two_step_losses(loss, gradient, [0.0], n_samples=2, step_size=0.5)
    (0.640625, 0.65625)
    """
    x, size = _population(loss, gradient, start)
    number = as_count(n_samples, "n_samples", minimum=2)
    if number % 2:
        raise ValueError(f"n_samples: expected an even number, got {number}")
    samples = _samples(size, number, replace=True)
    eta, half = as_real(step_size, "step_size", minimum=0.0), number // 2
    ends = []
    for batches in ((samples, samples), (samples[:, :half], samples[:, half:])):
        at = np.repeat(x, len(samples), axis=0)
        for batch in batches:
            slopes = as_array(gradient(at), "gradient", shape=(len(at), size, x.shape[1]))
            at = at - eta * np.take_along_axis(slopes, batch[:, :, None], axis=1).mean(axis=1)
        ends.append(float(np.mean(as_array(loss(at), "loss", shape=(len(at), size)))))
    return ends[0], ends[1]


def _fields(functions: Sequence[F], name: str) -> list[F]:
    if isinstance(functions, str) or not isinstance(functions, Sequence) or not functions:
        raise ValueError(f"{name}: expected functions, got {type(functions).__name__}")
    if len(functions) > _BATCHES:
        raise ValueError(f"{name}: expected at most {_BATCHES}, got {len(functions)}")
    return [as_function(f, name) for f in functions]


def _population(loss: Field, gradient: Field, start: ArrayLike) -> tuple[FloatArray, int]:
    as_function(loss, "loss")
    as_function(gradient, "gradient")
    x = as_array(start, "start", ndim=1)[None]
    return x, as_array(loss(x), "loss", shape=(1, None)).shape[1]


def _samples(size: int, number: int, *, replace: bool) -> NDArray[np.int64]:
    if not replace and number > size:
        raise ValueError(f"n_samples: expected at most {size} without replacement, got {number}")
    if number * math.log(size) > math.log(_SAMPLES) or number > 1000:
        raise ValueError(
            f"n_samples: expected at most {_SAMPLES} samples to enumerate, got {size}^{number}"
        )
    every = [*itertools.product(range(size), repeat=number)]
    if not replace:
        every = [*itertools.permutations(range(size), number)]
    return np.array(every, dtype=np.int64)
