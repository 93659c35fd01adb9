"""Every result of a public function prints on a line, compares safely, and cannot be changed, nor
does it change with the data that it was given; it can be copied and pickled."""

import copy
import dataclasses
import pickle
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
        # A tuple with an array in it has no truth value of its equality, and no hash.
        named = hasattr(value, "_fields")
        assert not (named and any(isinstance(v, np.ndarray) for v in value)), type(value)
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


def numbers(value, depth=0):
    """Yield copies of the arrays in what a function returned."""
    if isinstance(value, np.ndarray):
        yield value.copy()
    elif dataclasses.is_dataclass(value) and depth < 5:
        for field in dataclasses.fields(value):
            yield from numbers(getattr(value, field.name), depth + 1)
    elif isinstance(value, tuple | list):
        for v in value:
            yield from numbers(v, depth + 1)


# Their results hold functions made on the spot.
FUNCTIONS_INSIDE = {"flat_potential", "quartic_potential", "rectified_power", "robust_trainer"}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_results_do_not_change_with_the_data_and_can_be_copied(function):
    given = arguments(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        returned = function(**given)
        before = list(numbers(returned))
        for value in given.values():
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value[...] = 0
    if function.__name__ in FUNCTIONS_INSIDE:
        return
    for found in (returned, copy.deepcopy(returned), pickle.loads(pickle.dumps(returned))):
        for a, b in zip(before, numbers(found), strict=True):
            np.testing.assert_array_equal(a, b)
