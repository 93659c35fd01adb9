"""Flows with a budget: an explicit method crawls where the flow is stiff, and never ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.integrate import DOP853

from theorylab._validation import FloatArray

__all__ = ["integrate"]

_EVALUATIONS = 20_000


class _Exhausted(Exception):
    """The budget is spent."""


def integrate(
    velocity: Callable[[float, FloatArray], FloatArray],
    start: FloatArray,
    times: FloatArray,
    *,
    rtol: float,
    atol: float,
    evaluations: int = _EVALUATIONS,
    stops: Callable[[int, FloatArray], bool] = lambda step, state: False,
) -> FloatArray:
    """Return the states of a flow at the times, shape (T, n), by Dormand and Prince's method of
    order 8; those of the times reached, if ``stops`` says so after a step.

    Raises
    ------
    ValueError
        Naming ``times``, where the flow leaves float64, or needs more evaluations of ``velocity``
        than the budget: the last time reached is in the message.
    """
    spent, reached = 0, 0.0

    def counted(t: float, state: FloatArray) -> FloatArray:
        nonlocal spent, reached
        spent, reached = spent + 1, max(reached, t)
        change = velocity(t, state)
        if spent > evaluations or not np.isfinite(change).all():
            raise _Exhausted
        return change

    if times[-1] == 0:
        return start[None].copy()
    found, step = [start[None]] * int(times[0] == 0), 0
    try:
        run = DOP853(counted, 0.0, start, float(times[-1]), rtol=rtol, atol=atol)
        while run.t < times[-1]:
            if (message := run.step()) is not None:
                raise ValueError(
                    "times: expected a last time that the flow can be followed to, got "
                    f"{times[-1]}: {message}"
                )
            step += 1
            passed = times[(times > run.t_old) & (times <= run.t)]
            if passed.size:
                found.append(run.dense_output()(passed).T)
            if stops(step, run.y):
                break
    except _Exhausted:
        cause = (
            f"a flow too stiff for {evaluations} evaluations"
            if spent > evaluations
            else "a flow that leaves float64"
        )
        raise ValueError(
            f"times: expected a last time that the flow can be followed to, got {times[-1]} and "
            f"{cause} after {reached:.3g}"
        ) from None
    return np.concatenate([start[:0].reshape(0, start.size), *found])
