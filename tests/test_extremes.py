"""Numbers of any magnitude: public functions refuse them by name, or answer with numbers.

One argument at a time of the valid call of each function (its docstring's example) is scaled by
powers of ten up to 1e300. What comes back must be a ``ValueError`` that names an argument, or a
result without NaN and infinite numbers that the valid call does not have."""

import dataclasses
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from examples import arguments
from test_fuzz import FUNCTIONS

from theorylab.neural_collapse import CollapseMetrics
from theorylab.random_features import BellmanLimits

LIMITS = [field.name for field in dataclasses.fields(BellmanLimits)]
METRICS = [field.name for field in dataclasses.fields(CollapseMetrics)]
APART = ("corpus", "verify")
SCALES = (1e-300, 1e-160, 1e-30, 1e-9, 1e9, 1e30, 1e160, 1e300)
# Results that say by NaN or infinity that there is no such number, or no bound, by attribute; a
# descent that overflows has a status.
SAYS_SO: dict[str, set[str]] = {
    "asymmetric_gradient_descent": {".errors"},
    "best_shrinkage": {"[0]"},
    "bellman_error_limits": {f".{name}" for name in LIMITS},
    "boundary_flow": {".boundaries", ".end"},
    "certified_objective": {""},
    "certify_ufm": {".upper"},
    "correction_time": {""},
    "error_bounds": {".upper", ".onset"},
    "fit_factored": {".ends", ".objective"},
    "gradient_descent": {".errors"},
    "incremental_law": {".approach", ".escape", ".exponents", ".spare", ".times"},
    "late_rate": {".error", ".measured"},
    "logit_radius": {""},
    "rebalanced_slowest_bounds": {"[1]"},
    "sensitivity": {".margin"},
    "stationary_ratio": {""},
    "subgradient_method": {".errors", ".losses"},
    "tied_convergence": {".excess", ".increments"},
    "train_features": {f".metrics[{i}].{name}" for i in range(50) for name in METRICS},
    "variational_divergence": {""},
}
# Stiff flows, for one, spend their budget for every factor.
SLOW = {"class_plan", "deep_flow", "central_path", "optimal_ridge", "smoothed_sgd"}
# Searches and quadratures that take minutes in units of 1e30.
TOO_SLOW = {"mean_field_fit", "search_minimum_norm"}


def scaled(value: Any, factors: tuple[float, ...]) -> Iterator[tuple[float, Any]]:
    """Yield (factor, value times factor) for what holds floats."""
    if isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        for factor in factors:
            with np.errstate(over="ignore"):
                yield factor, value * factor


def odd_numbers(result: Any, path: str = "") -> Iterator[str]:
    """Yield where a result holds NaN or infinity."""
    if isinstance(result, float | np.ndarray) and np.asarray(result).dtype.kind == "f":
        if not np.isfinite(result).all():
            yield path
    elif dataclasses.is_dataclass(result):
        for field in dataclasses.fields(result):
            yield from odd_numbers(getattr(result, field.name), f"{path}.{field.name}")
    elif isinstance(result, list | tuple):
        for i, part in enumerate(result):
            yield from odd_numbers(part, f"{path}[{i}]")


@pytest.mark.parametrize(
    "function",
    [
        f
        for f in FUNCTIONS
        if f.__module__.split(".")[1] not in APART and f.__name__ not in TOO_SLOW
    ],
    ids=lambda f: f"{f.__module__}.{f.__name__}".removeprefix("theorylab."),
)
def test_any_magnitude_is_answered_or_refused_by_name(function):
    names = list(inspect.signature(function).parameters)
    factors = SCALES[:: len(SCALES) - 1] if function.__name__ in SLOW else SCALES
    complaints = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = set(odd_numbers(function(**arguments(function))))
        for name, value in arguments(function).items():
            for factor, extreme in scaled(value, factors):
                try:
                    result = function(**{**arguments(function), name: extreme})
                except ValueError as error:
                    if not any(n in str(error).split(":")[0] for n in names):
                        complaints.append(f"{name} * {factor}: names no argument: {error}")
                except Exception as error:
                    complaints.append(f"{name} * {factor}: {type(error).__name__}: {error}")
                else:
                    odd = set(odd_numbers(result)) - usual
                    odd -= SAYS_SO.get(function.__name__, set())
                    if odd:
                        complaints.append(f"{name} * {factor}: not a number in {sorted(odd)}")
    assert not complaints, "\n".join(complaints)
