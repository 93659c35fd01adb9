import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError
from enum import StrEnum

import numpy as np
import pytest

from theorylab.numerics.results import result


class End(StrEnum):
    TOLERANCE_MET = "the tolerance was met"


@result
class Fit:
    """A fit."""

    weights: np.ndarray
    parts: tuple[np.ndarray, ...]
    gap: float
    status: End
    note: str = ""


def fit(weights):
    return Fit(weights, (np.ones(2),), 1 / 3, End.TOLERANCE_MET)


def test_it_prints_on_a_line_without_entries():
    assert repr(fit(np.zeros((500, 3)))) == "<Fit: weights (500, 3), gap 0.333333, tolerance met>"


def test_a_long_line_ends_at_a_field():
    made = type("Many", (), {"__annotations__": {f"number_{i}": float for i in range(20)}})
    text = repr(result(made)(*range(20)))
    assert len(text) < 120
    assert text.endswith("..., ...>") or text.endswith(", ...>")
    assert "number_0 0" in text


def test_it_equals_itself_only_and_can_be_a_key():
    one, other = fit(np.zeros(3)), fit(np.zeros(3))
    assert one == one  # noqa: PLR0124
    assert one != other
    assert len({one, other}) == 2


def test_its_arrays_are_read_only_and_those_of_the_caller_are_not():
    weights = np.zeros(3)
    made = fit(weights)
    for array in (made.weights, made.parts[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
    weights[0] = 1.0
    with pytest.raises(AttributeError):
        made.gap = 0.0


def test_its_signature_and_pickle_are_those_of_a_dataclass():
    assert list(inspect.signature(Fit).parameters) == ["weights", "parts", "gap", "status", "note"]
    again = pickle.loads(pickle.dumps(fit(np.arange(3.0))))
    assert again.weights.tolist() == [0.0, 1.0, 2.0]


def test_a_class_keeps_its_own_line():
    @result
    class Named:
        value: float

        def __repr__(self):
            return "<mine>"

    assert repr(Named(1.0)) == "<mine>"


@pytest.mark.parametrize(
    "repeat", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_arrays_of_copies_are_read_only(repeat):
    fit = repeat(Fit(np.ones((2, 3)), (np.ones(2),), 0.5, End.TOLERANCE_MET))
    assert not fit.weights.flags.writeable
    assert not fit.parts[0].flags.writeable
    assert fit.gap == 0.5
    with pytest.raises(FrozenInstanceError):
        fit.weights = None
