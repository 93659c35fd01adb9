"""One convention for all public functions: data first, numbers by keyword, an example each."""

import inspect
import pydoc
import re
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any

import pytest

import theorylab
from theorylab import corpus
from theorylab.convex_relu import train

THEMES = [t for t in corpus.THEMES if (Path(theorylab.__file__).parent / t).is_dir()]
NUMBERS = {bool, int, float, str, type(None)}


def _public_functions(packages: list[str]) -> Iterator[Any]:
    for theme in packages:
        module = import_module(f"theorylab.{theme}")
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value) and not inspect.isclass(value):
                yield pytest.param(value, id=f"{theme}.{name}")


FUNCTIONS = list(_public_functions(THEMES))
MACHINERY = list(_public_functions(["verify", "corpus"]))


def is_number(annotation: Any) -> bool:
    """Whether a parameter takes one number, count, flag or word."""
    options = typing.get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return all(
        o in NUMBERS
        or typing.get_origin(o) is typing.Literal
        or getattr(o, "__name__", "") == "Fraction"
        for o in options
    )


def misplaced(function: Callable[..., Any]) -> list[str]:
    """Name the parameters that can be given without their name, and should not.

    After data one number may, without default, and nothing but points of the problem that it
    completes may follow it; without data two sizes may."""
    hints = typing.get_type_hints(function)
    given = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    numbers = [p for p in given if is_number(hints[p.name])]
    wrong = [p.name for p in numbers if p.default is not p.empty]
    allowed = 1 if len(numbers) < len(given) else 2
    wrong += [p.name for p in numbers[allowed:]]
    return list(dict.fromkeys(wrong))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_numbers_after_the_data_are_given_by_name(function):
    assert not misplaced(function)


@pytest.mark.parametrize("function", [*FUNCTIONS, *MACHINERY])
def test_every_public_function_has_a_runnable_example(function):
    text = inspect.getdoc(function) or ""
    assert re.search(r"^>>> ", text, re.MULTILINE)
    assert "Traceback" not in text
    assert "doctest: +SKIP" not in text


def test_the_convention_is_noticed_when_it_is_broken():
    def penalised(X: list[float], beta: float, tol: float = 1e-3) -> None: ...
    def sizes(n: int, m: int) -> None: ...
    def many(n: int, m: int, k: int) -> None: ...
    def two(X: list[float], beta: float, eps: float) -> None: ...
    def by_name(X: list[float], beta: float, *, tol: float = 1e-3) -> None: ...

    found = [misplaced(f) for f in (penalised, sizes, many, two, by_name)]
    assert found == [["tol"], [], ["k"], ["eps"], []]


def test_help_of_the_headline_function_fits_a_screen():
    text = pydoc.plain(pydoc.render_doc(train))
    lines = sum(1 + len(line) // 100 for line in text.splitlines())
    assert lines <= 52
    assert "X: 'ArrayLike', y: 'ArrayLike', beta: 'float'" in text


def test_mathematics_has_one_markup():
    for path in Path(theorylab.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ":math:" not in text, path
        assert ".. math::" not in text, path


def test_headings_of_docstrings_stand_on_lines_of_their_own():
    heading = re.compile(
        r"^ *(Parameters|Returns|Raises|Notes|Attributes|Examples) -+", re.MULTILINE
    )
    for path in Path(theorylab.__file__).parent.rglob("*.py"):
        assert not heading.search(path.read_text(encoding="utf-8")), path
    assert heading.search("    Notes ----- swallowed")
