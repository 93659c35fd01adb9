"""Every function with a callback tells what it does, and stops where it is asked to."""

import inspect
import warnings
from enum import Enum

import numpy as np
import pytest
from examples import arguments
from test_signatures import FUNCTIONS as PUBLIC

FUNCTIONS = [f for f in PUBLIC if "callback" in inspect.signature(f.values[0]).parameters]


def run(function, callback):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(**arguments(function) | {"callback": callback})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_callback_that_only_looks_changes_nothing(function):
    seen = []
    watched, alone = run(function, seen.append), run(function, None)
    assert seen
    assert all(np.isfinite(record.objective) for record in seen)
    assert str(seen[0]).partition("(")[0].strip("<").startswith(type(seen[0]).__name__)
    assert str(watched) == str(alone)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_callback_that_says_true_stops_and_the_status_says_so(function):
    seen = []
    stopped = run(function, lambda record: seen.append(record) or np.True_)
    assert len(seen) == 1 or function.__name__ == "train"  # which first needs a bound
    status = getattr(stopped, "status", None)
    if isinstance(status, Enum):
        assert status.name == "STOPPED"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_cannot_be_called_is_no_callback(function):
    with pytest.raises(ValueError, match="callback"):
        run(function, 3)


@pytest.mark.parametrize("error", [ZeroDivisionError, np.linalg.LinAlgError, KeyError])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_a_callback_raises_is_not_taken_for_an_error_of_the_solver(function, error):
    def fails(record):
        raise error("of the callback")

    with pytest.raises(error, match="of the callback"):
        run(function, fails)
