r"""What is left of the linear predictors whose norm stability bounds.

At a minimum of a diagonal linear network with inputs $|x_{ij}|=1$ a stable step
$\eta$ has $2\eta\|\beta\|_1\le1$ with one sample a step and
$2\eta\|\beta\|_\infty\le1$ with all. The first ball has a small Rademacher complexity. In the
second there is room beside $\beta$ for interpolators of the same data as far away as the
vertices of $\{\delta:X\delta=0,\|\delta\|_\infty\le1\}$, of which at most n entries are not
$\pm1$.

Paper: wu2023-implicit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, refuses_overflow
from theorylab.numerics.scaling import binary_exponent

__all__ = ["invisible_vertex", "rademacher_complexities"]

MAX_SIGNS = 20
MAX_SUMS = 10**9
MAX_WORK = 2 * 10**9


def rademacher_complexities(inputs: ArrayLike) -> tuple[float, float]:
    r"""Return the empirical Rademacher complexities of the linear predictors in the unit balls of
    the 1-norm and of the maximum norm, exactly, by all $2^n$ signs.

    They are $\mathbb E_\epsilon\max_j|s_j|$ and $\mathbb E_\epsilon\sum_j|s_j|$ with
    $s=\frac1n\sum_i\epsilon_ix_i$.

    Parameters
    ----------
    inputs
        Shape (n, d), n at most 20 and $2^nnd$ at most a billion.

    Examples
    --------
    >>> from theorylab.implicit_regularization import rademacher_complexities
    >>> rademacher_complexities([[1.0, 1.0], [1.0, -1.0]])
    (1.0, 1.0)
    """
    x = as_array(inputs, "inputs", ndim=2)
    if len(x) > MAX_SIGNS:
        raise ValueError(f"inputs: expected at most {MAX_SIGNS} rows, got {len(x)}")
    if 2 ** len(x) * x.size > MAX_SUMS:
        raise ValueError(f"inputs: expected 2**n * n * d at most {MAX_SUMS}, got shape {x.shape}")
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


def invisible_vertex(inputs: ArrayLike) -> FloatArray:
    r"""Return a vertex of $\{\delta:X\delta=0,\|\delta\|_\infty\le1\}$, of whose entries at
    least d - n are $\pm1$: linear predictors that differ by it agree on the samples.

    Parameters
    ----------
    inputs
        Shape (n, d). Where its columns are independent the answer is 0.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import invisible_vertex
    >>> np.sort(np.abs(invisible_vertex([[1.0, 1.0, 1.0]]))).round(12).tolist()
    [0.0, 1.0, 1.0]
    """
    x = as_array(inputs, "inputs", ndim=2)
    n, d = x.shape
    if d * max(d, (n + 1) ** 3) > MAX_WORK:
        raise ValueError(
            f"inputs: expected d * max(d, (n + 1)^3) at most {MAX_WORK}, got shape {x.shape}"
        )
    x = np.ldexp(x, -binary_exponent(x))
    found, free = np.zeros(d), list(range(d))
    while free:
        few = np.array(free[: n + 1])
        _, sizes, directions = np.linalg.svd(x[:, few])
        if len(few) <= n and sizes[-1] > 1e-12 * sizes[0]:
            break
        move = directions[-1]
        moving = np.abs(move) > 1e-14
        room = np.full(len(few), np.inf)
        room[moving] = (1 - np.sign(move) * found[few])[moving] / np.abs(move[moving])
        hit = int(np.argmin(room))
        found[few] = np.clip(found[few] + room[hit] * move, -1.0, 1.0)
        found[few[hit]] = np.sign(move[hit])
        free.remove(int(few[hit]))
    return found
