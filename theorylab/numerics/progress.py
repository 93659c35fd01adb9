"""What a solver tells of itself while it runs, and how it is asked to stop.

Solvers that can take over a second have an argument ``callback``. It is called with a record of
each round or leg, :class:`Progress` unless the solver has a record of its own; ``callback=print``
follows a run on the screen. Where it returns True the solver stops, with what it has by then, and
its status says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theorylab._validation import as_function
from theorylab.numerics.results import result

__all__ = ["Callback", "Progress", "asked_to_stop", "watcher"]


@result
class Progress:
    """Where an iteration stands; ``error`` is what ``tol`` bounds, nan where there is none."""

    iteration: int
    objective: float
    error: float = float("nan")


Callback = Callable[[Progress], object]


def watcher(callback: Callback | None) -> Callable[..., bool]:
    """Return a function of the fields of a :class:`Progress` that says whether to stop.

    Parameters
    ----------
    callback
        Called with each record; None is never called and never stops.

    Raises
    ------
    ValueError
        If ``callback`` is not a function.

    Examples
    --------
    >>> stops = watcher(lambda progress: progress.error < 1e-3)
    >>> stops(1, 2.0, 0.5), stops(2, 1.5, 1e-4)
    (False, True)
    """
    if callback is None:
        return lambda *fields: False
    told = as_function(callback, "callback")
    return lambda *fields: asked_to_stop(told(Progress(*fields)))


def asked_to_stop(answer: object) -> bool:
    """Whether a callback asked its solver to stop: True, of Python or of NumPy.

    Parameters
    ----------
    answer
        What the callback returned.

    Examples
    --------
    >>> asked_to_stop(True), asked_to_stop(None), asked_to_stop("a text is no answer")
    (True, False, False)
    """
    return isinstance(answer, bool | np.bool_) and bool(answer)
