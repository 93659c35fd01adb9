r"""Diagonal linear networks :math:`f(x)=\langle u\odot u-v\odot v,x\rangle`: gradients, descent,
and the complexity of what they can represent.

Where half the squared error is 0 its Hessian is :math:`\frac1n\sum_ig_ig_i^\top` with the gradients
:math:`g_i=2(u\odot x_i,-v\odot x_i)`; with :math:`\frac1n\sum_ix_ix_i^\top=I` it has trace
:math:`4(\|u\|^2+\|v\|^2)` and largest eigenvalue :math:`4\max_j(u_j^2+v_j^2)`, at least four times
the 1-norm and the maximum norm of the predictor :math:`u\odot u-v\odot v`.

Paper: wu2023-implicit."""

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "DescentStatus",
    "DiagonalDescent",
    "descend_diagonal_net",
    "diagonal_net_gradients",
    "rademacher_complexities",
]

MAX_SIGNS = 20
MAX_UPDATES = 10**8


class DescentStatus(StrEnum):
    """How descent from one start ended."""

    CONVERGED = "the loss fell below tol times its first value"
    DIVERGED = "the loss grew beyond 1e12 times its first value; the step was not stable"
    BUDGET = "stopped after all steps with a loss above tol; raise steps"


@result
class DiagonalDescent:
    """Where descent on diagonal linear networks ended, from several starts.

    Attributes
    ----------
    u, v
        Shape (runs, d): the last iterates, of runs that diverged the last before that was seen.
    losses
        Shape (runs,): half the mean squared residual there.
    statuses
        One for each run.
    """

    u: FloatArray
    v: FloatArray
    losses: FloatArray
    statuses: tuple[DescentStatus, ...]


@refuses_overflow("inputs", "u", "v")
def diagonal_net_gradients(inputs: ArrayLike, u: ArrayLike, v: ArrayLike) -> FloatArray:
    r"""Return the gradients :math:`2(u\odot x_i,-v\odot x_i)` of the diagonal linear network
    :math:`f(x)=\langle u\odot u-v\odot v,x\rangle`, shape (n, 2d).

    Parameters
    ----------
    inputs, u, v
        Shapes (n, d), (d,) and (d,).

    Examples
    --------
    >>> from theorylab.implicit_regularization import diagonal_net_gradients
    >>> diagonal_net_gradients([[1.0, -1.0]], [2.0, 0.0], [0.0, 3.0]).tolist()
    [[4.0, -0.0, -0.0, 6.0]]
    """
    x = as_array(inputs, "inputs", ndim=2)
    first = as_array(u, "u", shape=(x.shape[1],))
    second = as_array(v, "v", shape=(x.shape[1],))
    return np.concatenate([2 * x * first, -2 * x * second], axis=1)


def descend_diagonal_net(
    inputs: ArrayLike,
    targets: ArrayLike,
    u: ArrayLike,
    v: ArrayLike,
    *,
    step_size: float,
    steps: int,
    seed: int | None = None,
    tol: float = 1e-20,
) -> DiagonalDescent:
    r"""Train diagonal linear networks by gradient descent, or with one sample a step, on half the
    mean squared error; all starts at once.

    Parameters
    ----------
    inputs, targets
        Shapes (n, d) and (n,).
    u, v
        Shape (runs, d): the starts.
    step_size, steps
        Step size, positive, and the most steps of a run.
    seed
        Of the samples, drawn uniformly; by default gradient descent on all of them.
    tol
        A run ends when its loss has fallen below this part of the first.

    Examples
    --------
    >>> from theorylab.implicit_regularization import descend_diagonal_net
    >>> run = descend_diagonal_net([[1.0]], [1.0], [[0.5]], [[0.1]], step_size=0.1, steps=500)
    >>> run.statuses[0].name
    'CONVERGED'
    """
    x = as_array(inputs, "inputs", ndim=2)
    y = as_array(targets, "targets", shape=(len(x),))
    first = as_array(u, "u", shape=(None, x.shape[1]))
    second = as_array(v, "v", shape=first.shape)
    step = as_real(step_size, "step_size", above=0.0)
    budget = as_count(steps, "steps", maximum=max(1, MAX_UPDATES // (len(first) * x.size)))
    least = as_real(tol, "tol", minimum=0.0, below=1.0)
    rng = None if seed is None else np.random.default_rng(as_count(seed, "seed", minimum=0))
    return _descend(x, y, first, second, step, budget, least, rng)


@refuses_overflow("inputs", "targets", "u", "v", "step_size")
def _descend(
    x: FloatArray,
    y: FloatArray,
    first: FloatArray,
    second: FloatArray,
    step: float,
    budget: int,
    tol: float,
    rng: np.random.Generator | None,
) -> DiagonalDescent:
    runs, n = len(first), len(x)
    w = np.stack([first, second])  # (2, runs, d), so that a run can be frozen as a whole
    sign = np.array([2.0, -2.0])[:, None, None]

    def residuals(at: FloatArray) -> FloatArray:
        return np.asarray((at[0] ** 2 - at[1] ** 2) @ x.T - y)

    start = np.mean(residuals(w) ** 2, axis=1) / 2
    lost, done, before = np.zeros(runs, bool), np.zeros(runs, bool), w
    for left in range(budget, -1, -1):
        residual = residuals(w)
        now = np.mean(residual**2, axis=1) / 2
        lost |= ~done & ~(now <= 1e12 * start)
        done |= ~lost & (now <= tol * start)
        w = np.where(lost[:, None], before, w)
        if left == 0 or (done | lost).all():
            break
        if rng is None:
            pull = residual @ x / n
        else:
            drawn = rng.integers(n, size=runs)
            pull = residual[np.arange(runs), drawn, None] * x[drawn]
        before = w
        w = np.where((done | lost)[:, None], w, w - step * sign * w * pull)
    end = np.mean(residuals(w) ** 2, axis=1) / 2
    ends = [
        DescentStatus.CONVERGED if d else DescentStatus.DIVERGED if b else DescentStatus.BUDGET
        for d, b in zip(done, lost, strict=True)
    ]
    return DiagonalDescent(w[0], w[1], end, tuple(ends))


def rademacher_complexities(inputs: ArrayLike) -> tuple[float, float]:
    r"""Return the empirical Rademacher complexities of the linear predictors in the unit balls of
    the 1-norm and of the maximum norm, exactly, by all :math:`2^n` signs.

    They are :math:`\mathbb E_\epsilon\max_j|s_j|` and :math:`\mathbb E_\epsilon\sum_j|s_j|` with
    :math:`s=\frac1n\sum_i\epsilon_ix_i`.

    Parameters
    ----------
    inputs
        Shape (n, d), n at most 20.

    Examples
    --------
    >>> from theorylab.implicit_regularization import rademacher_complexities
    >>> rademacher_complexities([[1.0, 1.0], [1.0, -1.0]])
    (1.0, 1.0)
    """
    x = as_array(inputs, "inputs", ndim=2)
    if len(x) > MAX_SIGNS:
        raise ValueError(f"inputs: expected at most {MAX_SIGNS} rows, got {len(x)}")
    return _complexities(x)


@refuses_overflow("inputs")
def _complexities(x: FloatArray) -> tuple[float, float]:
    n, exponent = len(x), binary_exponent(x)
    scaled, total = np.ldexp(x, -exponent), np.zeros(2)
    # A sign vector and its negative agree: the first sign is kept.
    count = 2 ** (n - 1)
    block = max(1, 2**20 // x.size)
    for start in range(0, count, block):
        codes = np.arange(start, min(start + block, count))
        bits: NDArray[np.int64] = codes[:, None] >> np.arange(n) & 1
        sums = np.abs((1.0 - 2.0 * bits) @ scaled)
        total += [sums.max(axis=1).sum(), sums.sum()]
    largest, summed = np.ldexp(total / count / n, exponent).tolist()
    return largest, summed
