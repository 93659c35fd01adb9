"""A valid call of each public function: the one in the example of its docstring."""

import ast
import copy
import dataclasses
import doctest
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

PARSER = doctest.DocTestParser()


class Recorder:
    """Stands for a function in its example and keeps the arguments it was given."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        given = bound.arguments
        for p in inspect.signature(self.function).parameters.values():
            if p.kind is p.VAR_KEYWORD:
                given |= given.pop(p.name, {})
        self.calls.append({k: fresh(v) for k, v in given.items()})
        return self.function(*args, **kwargs)


def fresh(value: Any) -> Any:
    """Return a copy of an argument; results of the package are read-only, some cannot be copied."""
    if dataclasses.is_dataclass(value):
        return value
    try:
        return copy.deepcopy(value)
    except TypeError:
        return value


def typed(value: Any, annotation: str) -> Any:
    """Return an argument as the type that its annotation names: an array for lists of numbers."""
    if annotation.startswith("ArrayLike") and isinstance(value, list | tuple | int | float):
        array = np.asarray(value)
        return array.astype(float) if array.dtype.kind in "iu" and has_floats(value) else array
    if annotation.split(" | ", maxsplit=1)[0] == "float" and type(value) is int:
        return float(value)
    return value


def has_floats(value: Any) -> bool:
    return any(map(has_floats, value)) if isinstance(value, list | tuple) else type(value) is float


@cache
def recorded(function: Callable[..., Any]) -> dict[str, Any]:
    """Run the example of a function; return the arguments of its call that gives most of them."""
    name, recorder = function.__name__, Recorder(function)
    names: dict[str, Any] = {}
    for step in PARSER.get_examples(inspect.getdoc(function) or ""):
        if doctest.SKIP in step.options:
            continue
        for statement in ast.parse(step.source).body:
            exec(compile(ast.Module([statement], []), "<example>", "exec"), names)
            if names.get(name) is function:
                names[name] = recorder
    assert recorder.calls, f"the example of {function.__module__}.{name} does not call it"
    hints = function.__annotations__
    call = max(recorder.calls, key=len)
    return {k: typed(v, str(hints.get(k, ""))) for k, v in call.items()}


def arguments(function: Callable[..., Any]) -> dict[str, Any]:
    """Return arguments of a valid call of a public function, new ones each time."""
    return {name: fresh(value) for name, value in recorded(function).items()}
