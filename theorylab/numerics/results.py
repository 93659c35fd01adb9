"""What every result of a solver is: a frozen dataclass that prints on a line and compares safely.

Two results are equal only if they are the same object, for arrays have no truth value; arrays are
read-only copies, in copied and pickled results too, so that nothing that was certified is changed
through its result or by who goes on with the data; ``repr`` names numbers, shapes and the status,
never the entries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypeVar, dataclass_transform

import numpy as np

__all__ = ["result"]

T = TypeVar("T")

WIDTH = 100
"""Characters of a ``repr`` beyond which further fields are left out."""


@dataclass_transform(frozen_default=True, eq_default=False)
def result(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a result.

    Examples
    --------
    >>> @result
    ... class Fit:
    ...     weights: np.ndarray
    ...     gap: float
    >>> fit = Fit(np.zeros((3, 2)), 1e-9)
    >>> fit
    <Fit: weights (3, 2), gap 1e-09>
    >>> fit == Fit(np.zeros((3, 2)), 1e-9), fit.weights.flags.writeable
    (False, False)
    """
    own = "__repr__" in vars(cls)
    made: Any = dataclass(frozen=True, eq=False, repr=False)(cls)
    made.__init__ = _freezing(made.__init__)
    made.__setstate__ = _restore
    if not own:
        made.__repr__ = _line
    kept: type[T] = made
    return kept


def _freezing(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def frozen(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        for name, value in list(vars(self).items()):
            if (kept := _read_only(value)) is not value:
                object.__setattr__(self, name, kept)

    return frozen


def _restore(self: Any, state: dict[str, Any]) -> None:
    for name, value in list(state.items()):
        object.__setattr__(self, name, _read_only(value))


def _read_only(value: Any) -> Any:
    if type(value) is np.ndarray and value.flags.writeable:
        value = value.copy(order="K")
        value.flags.writeable = False
    elif type(value) in (tuple, list):
        return type(value)(map(_read_only, value))
    return value


def _line(self: Any) -> str:
    words: list[str] = []
    for field in fields(self):
        value = getattr(self, field.name)
        if isinstance(value, Enum):
            words.append(value.name.lower().replace("_", " "))
        elif isinstance(value, np.ndarray) and value.ndim:
            words.append(f"{field.name} {value.shape}")
        elif isinstance(value, tuple | list) and all(isinstance(v, int | float) for v in value):
            words.append(f"{field.name} ({len(value)},)")
        elif isinstance(value, bool | int | np.bool_ | np.integer):
            words.append(f"{field.name} {value}")
        elif isinstance(value, float | np.floating | np.ndarray):
            words.append(f"{field.name} {float(value):.6g}")
    text = ", ".join(words)
    if len(text) > WIDTH:
        text = text[:WIDTH].rsplit(",", 1)[0] + ", ..."
    return f"<{type(self).__name__}{': ' * bool(text)}{text}>"
