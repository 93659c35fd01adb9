"""Simulations: pure functions that are remembered by the content of their arguments."""

import functools
import hashlib
import inspect
import pickle
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

__all__ = ["forget", "running", "simulation"]

P = ParamSpec("P")
T = TypeVar("T")

_MEMORY: dict[tuple[str, str], Any] = {}
_RUNNING: list[str] = []


def simulation(run: Callable[P, T]) -> Callable[P, T]:
    """Remember a pure function by the content of its arguments, until the claims are judged.

    Reruns with moved marks, controls and panels then cost nothing where the simulation is the
    same. Arrays in what it returns are read-only. Marks are refused inside.

    Examples
    --------
    >>> from theorylab.verify import simulation
    >>> runs = []
    >>> @simulation
    ... def double(x):
    ...     runs.append(x)
    ...     return 2 * x
    >>> double(3), double(3), runs
    (6, 6, [3])
    """
    name = f"{run.__module__}.{run.__qualname__}"

    @functools.wraps(run)
    def remembered(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = inspect.signature(run).bind(*args, **kwargs)
        bound.apply_defaults()
        key = (name, hashlib.sha256(pickle.dumps(list(bound.arguments.items()))).hexdigest())
        if key not in _MEMORY:
            _RUNNING.append(run.__name__)
            try:
                _MEMORY[key] = _frozen(run(*args, **kwargs))
            finally:
                _RUNNING.pop()
        found: T = _MEMORY[key]
        return found

    return remembered


def running() -> str:
    """Return the name of the simulation that is running: it knows no prediction."""
    return _RUNNING[-1] if _RUNNING else ""


def forget() -> None:
    """Drop what the simulations remember."""
    _MEMORY.clear()


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif isinstance(value, tuple | list):
        for v in value:
            _frozen(v)
    return value
