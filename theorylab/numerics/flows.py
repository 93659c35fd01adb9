"""Flows with a budget: an explicit method crawls where the flow is stiff, and never ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp

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
) -> FloatArray:
    """Return the states of a flow at the times, shape (T, n), by Dormand and Prince's method of
    order 8.

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
    try:
        run = solve_ivp(
            counted, (0.0, float(times[-1])), start, "DOP853", t_eval=times, rtol=rtol, atol=atol
        )
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
    if not run.success:
        raise ValueError(
            f"times: expected a last time that the flow can be followed to, got {times[-1]}: "
            f"{run.message}"
        )
    return np.asarray(run.y.T)
