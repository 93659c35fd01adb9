r"""Descent on the double well $\frac14(\theta^2-1)^2$, which settles on a cycle for large steps."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.compiled import compiled

__all__ = ["double_well_cycle", "double_well_descent"]


@refuses_overflow("start", "step_size")
def double_well_descent(start: ArrayLike, *, step_size: float, steps: int) -> FloatArray:
    r"""Return the iterates of descent on $\frac14(\theta^2-1)^2$, shape (steps + 1, ...).

    Parameters
    ----------
    start
        Any shape, $\theta^2\le1+2/\gamma$: further out, or with steps $\gamma>2$, the
        iterates may leave float64, which is refused.
    step_size, steps
        $\gamma$ and the number of steps.

    Examples
    --------
    >>> from theorylab.implicit_regularization import double_well_descent
    >>> double_well_descent(0.5, step_size=1.1, steps=2000)[-2:].round(4)
    array([0.8146, 1.1161])
    """
    theta = as_array(start, "start")
    gamma = as_real(step_size, "step_size", above=0.0)
    count = as_count(steps, "steps", minimum=0, maximum=10**7)
    path = np.empty((count + 1, *theta.shape))
    path[0] = theta
    flat = path.reshape(count + 1, -1)
    portion = max(10**7 // max(theta.size, 1), 1)
    for first in range(0, count, portion):  # between them Ctrl-C gets in
        _fall(flat[first : first + portion + 1], gamma)
    return path


def double_well_cycle(*, step_size: float) -> tuple[FloatArray, float]:
    r"""Return the two points of the cycle that descent on $\frac14(\theta^2-1)^2$ settles on,
    and its multiplier $9-2(1+\gamma)^2$.

    Parameters
    ----------
    step_size
        $\gamma$, in $[1,2]$; the cycle attracts below $\sqrt5-1$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import double_well_cycle
    >>> points, multiplier = double_well_cycle(step_size=1.1)
    >>> points.round(4), round(multiplier, 12)
    (array([0.8146, 1.1161]), 0.18)
    """
    gamma = as_real(step_size, "step_size", minimum=1.0, maximum=2.0)
    root = math.sqrt((gamma - 1) * (gamma + 3))
    upper = (gamma + 1 + root) / (2 * gamma)
    points = np.sqrt([1 / (gamma**2 * upper), upper])
    return points, 9 - 2 * (1 + gamma) ** 2


@compiled
def _fall(path: FloatArray, gamma: float) -> None:
    for t in range(path.shape[0] - 1):
        for j in range(path.shape[1]):
            theta = path[t, j]
            path[t + 1, j] = theta - gamma * theta * (theta * theta - 1)
