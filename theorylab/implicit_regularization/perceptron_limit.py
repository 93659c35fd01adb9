r"""Logistic regression by gradient descent with large steps: a batch perceptron.

Rows $z_i=y_ia_i$ of Z, shape (n, d). Gradient descent on the mean logistic loss from zero,

$$\theta_{t+1}=\theta_t+\frac\gamma n\sum_i\sigma(-z_i^\top\theta_t)z_i,$$

tends, divided by $\gamma\to\infty$, to the batch perceptron, which starts at
$\hat\theta_1=\frac1{2n}\sum_iz_i$ and adds $\frac1n$ of the sum of the $z_i$ that
are misclassified, until none is. With $R=\max\|z_i\|$ and the margin $\mu$ it needs at
most $nR^2/\mu^2$ steps, and with $n-1$ copies of $(1,\mu)$ and one
$(-1,\mu)$ exactly

$$2+\Big\lfloor\frac{n(1-\mu^2)-2}{2(1+\mu^2)}\Big\rfloor,\qquad
2\mu^2(n-1)\ge1-\mu^4.$$

Normalised to weights of sum one, the perceptron needs $R^2/\mu^2$ and gradient descent
$R^2/\mu^2+2\log(2n-1)/(\gamma\mu^2)$.

The loss is small only where the weights are large: for $\|\theta\|\le r$ it is at least
$\frac1n\log(1+e^{-r\mu})$.

Papers: tyurin2024-from; gupta2021-logit (bounds derived here)."""

from __future__ import annotations

import math
from enum import StrEnum
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "LogisticDescent",
    "PerceptronRun",
    "SeparationStatus",
    "batch_perceptron",
    "imbalanced_pair",
    "imbalanced_steps",
    "logistic_descent",
    "normalized_steps_bound",
    "perceptron_steps_bound",
    "separable_rows",
]


class SeparationStatus(StrEnum):
    """How a run ended."""

    SEPARATED = "every point is on its side"
    NOT_SEPARATED = "took max_iter steps, and some point is not on its side"
    STOPPED = "stopped by the callback, with the iterates of before"


@result
class PerceptronRun:
    r"""A run of :func:`batch_perceptron`.

    Attributes
    ----------
    iterates
        $\hat\theta_t$, shape (steps + 1, d).
    scores
        $z_i^\top\hat\theta_t$, shape (steps + 1, n).
    status
        How it ended.
    """

    iterates: FloatArray
    scores: FloatArray
    status: SeparationStatus

    @property
    def steps(self) -> int:
        """Steps taken; the last iterate separates the points unless the run was stopped."""
        return len(self.iterates) - 1

    @property
    def margin_before(self) -> float:
        """Smallest score in magnitude of the iterates from the first to the last but one, infinite
        where there is none."""
        return float(np.abs(self.scores[1:-1]).min(initial=np.inf))


@result
class LogisticDescent:
    r"""A run of :func:`logistic_descent`.

    Attributes
    ----------
    iterates
        $\theta_t$, shape (steps + 1, d).
    losses, gradient_norms
        Mean logistic loss and norm of its gradient, shape (steps + 1,).
    separated_at
        First t at which every $z_i^\top\theta_t>0$; -1 if there was none.
    status
        Whether there was one.
    """

    iterates: FloatArray
    losses: FloatArray
    gradient_norms: FloatArray
    separated_at: int
    status: SeparationStatus

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.losses) - 1


@refuses_overflow("Z", "start")
def batch_perceptron(
    Z: ArrayLike,
    *,
    normalized: bool = False,
    start: ArrayLike | None = None,
    max_iter: int = 100_000,
    callback: Callback | None = None,
) -> PerceptronRun:
    r"""Run the batch perceptron: it adds $\frac1n$, or if normalised
    $\frac1{|S_t|}$, of the sum of the rows that the last iterate does not score positively.

    The first step of the one that is not normalised is half a step over all rows, the limit of
    gradient descent on the logistic loss. Sums of rows are accumulated as they are: they are exact
    for rows of integers below $2^{53}/n$ over the steps.

    Parameters
    ----------
    Z
        (n, d), rows $y_ia_i$.
    normalized
        Whether each step has weights of sum one.
    start
        (d,); zero by default.
    max_iter
        Steps, at most.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each step: how many rows it
        was taken over; where it returns True, the run ends.

    Examples
    --------
    >>> from theorylab.implicit_regularization import batch_perceptron
    >>> run = batch_perceptron([[1.0, 0.5], [1.0, 0.5], [1.0, 0.5], [-1.0, 0.5]])
    >>> run.steps, run.iterates[-1]
    (2, array([0.   , 0.375]))
    """
    A = as_array(Z, "Z", ndim=2)
    n, d = A.shape
    share = as_flag(normalized, "normalized")
    first = np.zeros(d) if start is None else as_array(start, "start", shape=(d,))
    steps = as_count(max_iter, "max_iter")
    # In half steps of a row, whose sums are exact where those of the rows are.
    at = 2 * n * first
    found, stops, told = [at], watcher(callback), False
    for t in range(steps):
        missed = A @ at <= 0 if t or share else np.ones(n, dtype=bool)
        if t and not missed.any():
            break
        weight = 2 * n / max(int(missed.sum()), 1) if share else 2.0 if t else 1.0
        at = at + weight * A[missed].sum(axis=0)
        found.append(at)
        if callback and (told := stops(t + 1, float(missed.sum()))):
            break
    path = np.array(found)
    scores = path @ A.T
    good = len(path) > 1 and bool((scores[-1] > 0).all())
    status = SeparationStatus.SEPARATED if good else SeparationStatus.NOT_SEPARATED
    if told:
        status = SeparationStatus.STOPPED
    return PerceptronRun(path / (2 * n), scores / (2 * n), status)


@refuses_overflow("Z", "step_size", "start", "ridge")
def logistic_descent(
    Z: ArrayLike,
    *,
    step_size: float,
    steps: int,
    normalized: bool = False,
    ridge: float = 0.0,
    start: ArrayLike | None = None,
    until_separated: bool = False,
) -> LogisticDescent:
    r"""Run gradient descent on the mean logistic loss.

    Parameters
    ----------
    Z
        (n, d), rows $y_ia_i$.
    step_size
        $\gamma$.
    steps
        Number of steps.
    normalized
        Whether the gradient is divided by the mean of $\sigma(-z_i^\top\theta)$, so that the
        weights of the rows have sum one.
    ridge
        Weight of half the squared norm, whose gradient is added; it is in no loss returned.
    start
        (d,); zero by default.
    until_separated
        Whether to stop at the first iterate that separates the points.

    Examples
    --------
    >>> from theorylab.implicit_regularization import logistic_descent
    >>> run = logistic_descent([[1.0, -1.0], [1.0, 4.0]], step_size=100.0, steps=2)
    >>> run.iterates / 100, run.separated_at
    (array([[0.  , 0.  ],
           [0.5 , 0.75],
           [1.  , 0.25]]), 2)
    """
    A = as_array(Z, "Z", ndim=2)
    n, d = A.shape
    gamma = as_real(step_size, "step_size", above=0.0)
    last, pulled = as_count(steps, "steps"), as_real(ridge, "ridge", minimum=0.0)
    share, early = as_flag(normalized, "normalized"), as_flag(until_separated, "until_separated")
    theta = np.zeros(d) if start is None else as_array(start, "start", shape=(d,)).copy()
    path, losses, norms, reached = [theta], [], [], -1
    for t in range(last + 1):
        s = A @ theta
        losses.append(float(np.logaddexp(0.0, -s).mean()))
        logs = -np.logaddexp(0.0, s)
        pull = A.T @ np.exp(logs) / n
        norms.append(float(np.linalg.norm(pull)))
        if reached < 0 and t and (s > 0).all():
            reached = t
        if t == last or (early and reached >= 0):
            break
        if share:
            weights = np.exp(logs - logs.max())
            pull = A.T @ (weights / weights.sum())
        theta = theta + gamma * (pull - pulled * theta)
        path.append(theta)
    status = SeparationStatus.NOT_SEPARATED if reached < 0 else SeparationStatus.SEPARATED
    return LogisticDescent(np.array(path), np.array(losses), np.array(norms), reached, status)


@refuses_overflow("push", "offset")
def separable_rows(n: int, d: int, *, push: float, seed: int, offset: float = 0.0) -> FloatArray:
    """Return normal points times the side of a random hyperplane on which they are, pushed away
    from it, shape (n, d).

    Parameters
    ----------
    n, d
        Number of rows and columns.
    push
        What is added to their distance from the hyperplane; the margin is at least that.
    seed
        Of the points and the hyperplane.
    offset
        Mean of every coordinate of the points before they are pushed: the classes get unequal.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import separable_rows
    >>> Z = separable_rows(5, 1, push=2.0, seed=0)
    >>> bool((np.abs(Z) >= 2).all()), abs(np.sign(Z).sum())
    (True, np.float64(5.0))
    """
    count, width = as_count(n, "n"), as_count(d, "d")
    distance = as_real(push, "push", minimum=0.0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    v = rng.standard_normal(width)
    v /= np.linalg.norm(v)
    X = rng.standard_normal((count, width)) + as_real(offset, "offset")
    side = np.where(X @ v > 0, 1.0, -1.0)
    return side[:, None] * X + distance * v


def imbalanced_pair(n: int, *, margin: float) -> FloatArray:
    r"""Return $n-1$ rows $(1,\mu)$ and one $(-1,\mu)$, whose margin is
    $\mu$.

    Parameters
    ----------
    n
        Number of rows, at least two.
    margin
        $\mu$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import imbalanced_pair
    >>> imbalanced_pair(3, margin=0.5)
    array([[ 1. ,  0.5],
           [ 1. ,  0.5],
           [-1. ,  0.5]])
    """
    count = as_count(n, "n", minimum=2)
    mu = as_real(margin, "margin", above=0.0)
    Z = np.tile([1.0, mu], (count, 1))
    Z[-1, 0] = -1.0
    return Z


def imbalanced_steps(n: int, *, margin: float | Fraction) -> int:
    r"""Return the number of steps of the batch perceptron on :func:`imbalanced_pair`, exactly.

    Parameters
    ----------
    n
        Number of rows, at least two.
    margin
        $0<\mu\le1$ with $2\mu^2(n-1)\ge1-\mu^4$, without which other rows may get
        misclassified; a fraction, or a float whose binary digits are taken as they are.

    Examples
    --------
    >>> from theorylab.implicit_regularization import imbalanced_steps
    >>> [imbalanced_steps(n, margin=0.5) for n in (10, 100, 1000)]
    [4, 31, 301]
    """
    count = as_count(n, "n", minimum=2)
    if not isinstance(margin, Fraction):
        margin = Fraction(as_real(margin, "margin", above=0.0, maximum=1.0))
    if not 0 < margin <= 1:
        raise ValueError(f"margin: expected a number above 0 and up to 1, got {margin}")
    square = margin**2
    if 2 * square * (count - 1) < 1 - square**2:
        raise ValueError(
            "n, margin: expected 2 margin^2 (n - 1) >= 1 - margin^4, got "
            f"{count} and {float(margin)}"
        )
    return 2 + math.floor((count * (1 - square) - 2) / (2 * (1 + square)))


def perceptron_steps_bound(n: int, *, radius: float, margin: float) -> float:
    r"""Return $nR^2/\mu^2$: the batch perceptron separates n points in so many steps.

    Parameters
    ----------
    n, radius, margin
        Number of points, $R=\max\|z_i\|$, and $\mu$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import perceptron_steps_bound
    >>> perceptron_steps_bound(10, radius=2.0, margin=1.0)
    40.0
    """
    return as_count(n, "n") * _ratio(radius, margin) ** 2


def normalized_steps_bound(
    n: int, *, radius: float, margin: float, step_size: float = math.inf
) -> float:
    r"""Return $R^2/\mu^2+2\log(2n-1)/(\gamma\mu^2)$: descent with weights of sum one
    separates n points in so many steps; the perceptron with such weights is
    $\gamma=\infty$.

    Parameters
    ----------
    n, radius, margin
        Number of points, $R=\max\|z_i\|$, and $\mu$.
    step_size
        $\gamma$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import normalized_steps_bound
    >>> normalized_steps_bound(1000, radius=2.0, margin=1.0)
    4.0
    """
    count = as_count(n, "n")
    gamma = as_real(step_size, "step_size", above=0.0, allow_inf=True)
    first = _ratio(radius, margin) ** 2
    second = 2 * math.log(2 * count - 1) / gamma / margin / margin
    if not math.isfinite(first + second):
        raise ValueError("margin, step_size: expected magnitudes whose quotient is within float64")
    return first + second


def _ratio(radius: float, margin: float) -> float:
    R = as_real(radius, "radius", above=0.0)
    mu = as_real(margin, "margin", above=0.0)
    if not R / mu < 1e150:
        raise ValueError(f"radius, margin: expected a quotient below 1e150, got {R} / {mu}")
    return R / mu
