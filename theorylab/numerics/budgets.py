"""Budgets: how many steps a solver takes by default before it says that it has not ended.

They are counted, not timed, so that a call takes the same steps on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MINUTE", "Work", "steps_in_a_minute"]

MINUTE = 6e10
"""Nanoseconds."""


@dataclass
class Work:
    """What is left of the work that several loops share, in units of their own."""

    left: float


def steps_in_a_minute(nanoseconds: float, most: int) -> int:
    """Return how many steps take about a minute, at least 1.

    Parameters
    ----------
    nanoseconds
        What a step takes on one core, estimated from the sizes of the data.
    most
        Largest number returned.

    Examples
    --------
    >>> steps_in_a_minute(1e6, most=100_000), steps_in_a_minute(1e12, most=100_000)
    (60000, 1)
    """
    return max(1, min(most, int(MINUTE / max(nanoseconds, 1.0))))
