"""Budgets: how many steps a solver takes by default before it says that it has not ended, and how
much of them is recorded.

They are counted, not timed, so that a call takes the same steps on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MINUTE", "Work", "check_record", "steps_in_a_minute"]

MINUTE = 6e10
"""Nanoseconds."""

_RECORDED = 5 * 10**8  # numbers, of eight bytes


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


def check_record(steps: int, numbers: int) -> None:
    """Refuse steps whose record would not fit into memory.

    Parameters
    ----------
    steps, numbers
        How many, and how many numbers each adds to the record.

    Raises
    ------
    ValueError
        Naming ``steps``, if the record would have more than 5e8 numbers, of 4 GB.

    Examples
    --------
    >>> check_record(1000, 50)
    """
    if steps * numbers > _RECORDED:
        raise ValueError(
            f"steps: expected a record of at most {_RECORDED:.0e} numbers, got {steps} steps of "
            f"{numbers} each"
        )
