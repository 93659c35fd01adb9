"""Every public function refuses bad input with a ``ValueError`` or ``TypeError`` that names the
argument.

The valid call of a function is the one in its docstring's example (``tests/examples.py``). One
argument at a time, of the call or with a default, is replaced by values that are wrong for its type
(which must be refused), by the same value in another type or layout (accepted), and by values that
may be wrong (negated, shorter, with more axes: refused, or answered without any other exception).
"""

import importlib
import inspect
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import arguments

import theorylab
from theorylab import verify
from theorylab.corpus import THEMES

BOXED = ("adam", "amsgrad", "adamax", "adagrad")
# Words and numbers that a function takes though others of its type would be refused.
ACCEPTS: dict[str, dict[str, set[str]]] = {
    **{name: {"lower": {"inf"}, "upper": {"inf"}} for name in BOXED},
    "normalized_steps_bound": {"step_size": {"inf"}},
    "plan_distance_bound": {"gap": {"inf"}},
    "bias_factors": {"strength": {"inf"}},
    "shrinkage_limit": {"strength": {"inf"}},
    # A measurement may go wrong (there is then no verdict), and marks take what they are given.
    "within": {"value": {"nan", "inf"}, "error": {"nan", "inf"}, "source": {"text"}},
    "mean": {"samples": {"nan", "inf"}, "source": {"text"}, "support": {"none"}},
    "slope": {"y": {"nan", "inf"}},
    "between": {key: {"nan", "inf"} for key in ("attained", "bound")},
    "compare": {"predicted": {"nan", "inf"}},
    "theory": {"name": {"text"}, "value": {"nan", "inf"}},
    "falsify": {"space": {"none"}},
    "draw_map": {"title": {"text"}},
}
# Declarations are decorators, with tests of their own.
APART = (
    *(verify.also, verify.breaks, verify.cases, verify.full, verify.note, verify.panel),
    *(verify.rescues, verify.simulation, verify.space),
)
# What stands for an optional argument that the valid call does not give.
STAND_INS = {
    "ArrayLike | None": np.full((1, 1), 0.5),
    "Sequence[ArrayLike] | None": [np.full((1, 1), 0.5)],
    "int | None": 1,
    "float | None": 0.5,
    "str | None": "a word",
}


def public_functions() -> Iterator[Callable[..., Any]]:
    themes = [p for p in THEMES if (Path(theorylab.__file__).parent / p).is_dir()]
    for package in themes:
        folder = importlib.import_module(f"theorylab.{package}")
        for info in pkgutil.iter_modules(folder.__path__):
            if not info.name.startswith("_"):
                module = importlib.import_module(f"theorylab.{package}.{info.name}")
                yield from (
                    f for name in module.__all__ if inspect.isroutine(f := getattr(module, name))
                )
    for package in (*themes, "verify", "corpus"):  # private modules may hold what a theme exports
        exported = importlib.import_module(f"theorylab.{package}")
        yield from (
            f for name in exported.__all__ if inspect.isroutine(f := getattr(exported, name))
        )


def wrong(value: Any, accepted: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) that no argument of this type may be."""
    if "none" not in accepted:
        yield "None", None
    yield "object", object()
    if value is None:
        return
    if isinstance(value, bool):
        yield "number", 3.5
        yield "integer", 1
        return
    if not isinstance(value, str):
        yield "string", "bad"
    else:
        if "text" not in accepted:
            yield "unknown option", "no such option"
        yield "number", 3
    if isinstance(value, str):
        return
    if isinstance(value, int | np.integer):
        yield "negative", -1
        yield "fraction", 1.5
        yield "whole float", float(value)
        yield "bool", True
        yield "nan", float("nan")
        yield "list", [value, value]
    elif isinstance(value, float):
        yield "complex", value + 1j
        if "nan" not in accepted:
            yield "nan", float("nan")
        if "inf" not in accepted:
            yield "inf", float("inf")
            yield "-inf", float("-inf")
            yield "beyond float64", 10**400
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        if "nan" not in accepted:
            yield "nan", with_first(value, np.nan)
        if "inf" not in accepted:
            yield "inf", with_first(value, np.inf)
        if "empty" not in accepted:
            yield "empty", np.zeros((0,) * max(value.ndim, 1))
        yield "strings", np.full(value.shape, "x")
        yield "list of strings", np.full(value.shape, "x").tolist()
        yield "objects", np.full(value.shape, None)
        yield "complex", value.astype(complex) + 1j
        if value.dtype.kind == "f":
            yield (
                "masked",
                np.ma.masked_array(value, np.arange(value.size).reshape(value.shape) == 0),
            )
    else:
        yield "number", 3.5
    if isinstance(value, list | tuple) and value and "items" not in accepted:
        for label, item in wrong(as_array(value[0]), accepted - {"none"}):
            if label != "negative":
                yield f"first item {label}", type(value)([item, *value[1:]])


def as_array(item: Any) -> Any:
    """Return an item as the array that it is, if its rows are of one length."""
    try:
        return np.array(item, float) if isinstance(item, list) else item
    except ValueError:
        return item


def doubtful(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) that may or may not be valid."""
    if isinstance(value, bool | str) or value is None:
        return
    if isinstance(value, int | float | np.integer):
        yield "negated", -value
        yield "zero", type(value)(0)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        yield "negated", -value
        yield "zeros", np.zeros_like(value)
        yield "more axes", value[None, None, None]
        yield "scalar", 1.0
        if value.ndim and len(value) > 1:
            yield "shorter", value[:-1]
        if value.ndim > 1:
            yield "narrower", np.ascontiguousarray(value[:, :-1])


def same(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) that says the same in another type or layout: it must be accepted."""
    if isinstance(value, bool):
        yield "NumPy bool", np.bool_(value)
    elif isinstance(value, int):
        yield "NumPy integer", np.int32(value)
    elif isinstance(value, float):
        yield "NumPy float", np.float64(value)
        if value.is_integer():
            yield "integer", int(value)
    elif isinstance(value, list):
        yield "tuple", tuple(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        yield "list", value.tolist()
        strided = np.repeat(value, 2, axis=-1)[..., ::2] if value.ndim else value.copy()
        strided.flags.writeable = False
        yield "strided and read-only", strided


def takes_any_number(function: Callable[..., Any]) -> bool:
    """Whether it takes ``*parts``: there is no argument to replace by name."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())


def with_first(array: np.ndarray, number: float) -> np.ndarray:
    changed = array.astype(np.float64)
    changed.flat[0] = number
    return changed


def optional(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the default of each argument that has one."""
    return {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.default is not p.empty
    }


NEVER_NEGATIVE = {
    "eigenvalues",
    "ridge",
    "noise_variance",
    "weights",
    "step_size",
    "n_samples",
    "n_features",
    "beta",
    "steps",
}

FUNCTIONS = sorted(
    {f for f in public_functions() if not takes_any_number(f)} - set(APART),
    key=lambda f: (f.__module__, f.__name__),
)


@pytest.mark.parametrize(
    "function", FUNCTIONS, ids=lambda f: f"{f.__module__}.{f.__name__}".removeprefix("theorylab.")
)
def test_bad_input_is_refused_by_name(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call, defaults = arguments(function), optional(function)
        function(**call)  # the valid call is valid
        complaints = []
        for name, kind in {**defaults, **call}.items():
            annotation = str(function.__annotations__.get(name))
            accepted = ACCEPTS.get(function.__name__, {}).get(name, set())
            if "None" in annotation or annotation == "typing.Any" or defaults.get(name, "") is None:
                accepted = accepted | {"none"}
            stand_in = STAND_INS.get(annotation) if kind is None else kind
            for label, bad in wrong(stand_in, accepted):
                outcome = call_with(function, arguments(function), name, bad)
                if outcome is None:
                    complaints.append(f"{name} = {label} was accepted")
                elif outcome:
                    complaints.append(f"{name} = {label}: {outcome}")
            for label, good in same(kind):
                outcome = call_with(function, arguments(function), name, good)
                if outcome is not None:
                    complaints.append(f"{name} = {label} was refused: {outcome}")
            for label, odd in doubtful(kind):
                outcome = call_with(function, arguments(function), name, odd, *call)
                if outcome:
                    complaints.append(f"{name} = {label}: {outcome}")
                elif (
                    outcome is None
                    and label == "negated"
                    and name in NEVER_NEGATIVE
                    and np.any(kind)
                ):
                    complaints.append(f"{name} = {label} was accepted")
    assert not complaints, "\n".join(complaints)


def names_one(error: Exception, *names: str) -> bool:
    """Whether a message says of one of these arguments what is wrong: "X, y: expected ..."."""
    head, colon, _ = str(error).partition(":")
    return bool(colon) and any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", head) for n in names)


def call_with(
    function: Callable[..., Any], kwargs: dict[str, Any], name: str, value: Any, *others: str
) -> str | None:
    """Return None if the call succeeds, "" if it is refused by name (of either side that
    disagrees), else the complaint."""
    try:
        function(**{**kwargs, name: value})
    except (ValueError, TypeError) as error:
        return (
            ""
            if names_one(error, name, *others)
            else f"{type(error).__name__} does not name it: {error}"
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
