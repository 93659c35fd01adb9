"""Every result of a public function prints on a line, compares safely, and cannot be changed."""

import dataclasses
import warnings
from enum import Enum, StrEnum

import numpy as np
import pytest
from examples import arguments
from test_fuzz import FUNCTIONS as PUBLIC

FUNCTIONS = [f for f in PUBLIC if f.__module__.split(".")[1] not in ("verify", "corpus")]


def walk(value, depth=0):
    """Yield the dataclasses of the package and the statuses in what a function returned."""
    if depth > 4:
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            yield from walk(getattr(value, field.name), depth + 1)
    elif isinstance(value, tuple | list):
        for v in value[:3]:
            yield from walk(v, depth + 1)
    elif isinstance(value, Enum):
        yield value


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_results_print_on_a_line_compare_safely_and_are_read_only(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        returned = function(**arguments(function))
    for found in walk(returned):
        if isinstance(found, Enum):
            assert isinstance(found, StrEnum), type(found)
            continue
        assert len(repr(found)) <= 160, repr(found)
        assert "\n" not in repr(found)
        assert found == found  # noqa: PLR0124
        hash(found)
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
            setattr(found, next((f.name for f in dataclasses.fields(found)), "new"), None)
        for field in dataclasses.fields(found):
            array = getattr(found, field.name)
            problem = type(found).__name__ == "MeasurementOperator"  # its kernels take it as it is
            if isinstance(array, np.ndarray) and not problem:
                assert not array.flags.writeable, (type(found).__name__, field.name)
