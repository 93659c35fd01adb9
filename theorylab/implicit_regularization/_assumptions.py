"""Assumptions of the theme's theorems that can be tested on data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import as_array, as_count, as_real, as_symmetric
from theorylab.implicit_regularization.margins import MarginStatus, MaxMargin, max_margin
from theorylab.implicit_regularization.neuron_alignment import data_separation
from theorylab.implicit_regularization.sequential_projections import _tasks as as_tasks
from theorylab.numerics.assumptions import (
    EPS,
    Finding,
    Theorem,
    all_of,
    any_of,
    compared,
    exact_product,
    independent_rows,
    positive_definite,
    singular_value_gap,
    singular_values,
    unit,
)
from theorylab.numerics.scaling import binary_exponent

__all__ = ["THEOREMS"]

PAIRS = 1000  # of samples whose product is within rounding of 0, that are multiplied exactly


def _margin(Z: ArrayLike) -> tuple[MaxMargin, float, float]:
    """Return the separator of the rows in units of their own, and the ends of the margin."""
    rows = as_array(Z, "Z", ndim=2)
    e = binary_exponent(rows)
    if (np.ldexp(np.ldexp(rows, -e), e) != rows).any():  # the smallest entries would be rounded
        e = 0
    try:
        found = max_margin(np.ldexp(rows, -e), np.ones(len(rows)))
    except ValueError:  # magnitudes, by another name
        raise OverflowError from None
    low, high = (float(np.ldexp(end, e)) for end in (found.margin, found.margin_bound))
    return found, low, high


def _separable(Z: ArrayLike) -> Finding:
    found, margin, _ = _margin(Z)
    if margin > 0:
        return Finding(True, f"margin at least {margin:.4g}", found.weights)
    if found.status is MarginStatus.NOT_SEPARABLE and found.verify().accepted:
        text = "a convex combination of the rows vanishes, exactly"
        return Finding(False, text, found.multipliers)
    return Finding(None, str(found.status))


def _common_separator(tasks: Sequence[ArrayLike]) -> Finding:
    return _separable(np.concatenate(as_tasks(tasks)))


def _free_steps(Z: ArrayLike, step_size: float) -> Finding:
    rows, step = as_array(Z, "Z", ndim=2), as_real(step_size, "step_size", above=0.0)
    e, square = binary_exponent(rows), float(np.max(np.sum(unit(rows) ** 2, axis=1)))
    largest = float(np.ldexp(4 / square, -2 * e)) if square else np.inf
    text = f"step {step:.4g}, 4 / R^2 = {largest:.4g}"
    error = 8 * rows.shape[1] * EPS
    return compared(np.ldexp(step, 2 * e) * square, "<=", 4.0, text, error=error)


def _long_enough(Z: ArrayLike, step_size: float, steps: int) -> Finding:
    step = as_real(step_size, "step_size", above=0.0)
    found, *ends = _margin(Z)
    time = step * as_count(steps, "steps")
    if found.status is MarginStatus.NOT_SEPARABLE:
        return Finding(None, "there is no margin mu")
    low, high = (time * mu**2 for mu in ends)
    holds = True if low >= 1 - 8 * EPS else False if high < 1 - 8 * EPS else None
    return Finding(holds, f"mu^2 eta t = {low:.4g}")


def _not_zero(y: ArrayLike) -> Finding:
    largest = float(np.abs(as_array(y, "y", ndim=1)).max())
    return compared(largest, ">", 0.0, f"largest entry {largest:.3g}")


def _rows_of_X(X: ArrayLike) -> Finding:
    return independent_rows(as_array(X, "X", ndim=2))


def _metric(metric: ArrayLike) -> Finding:
    return positive_definite(as_symmetric(metric, "metric"))


def _stable_step(X: ArrayLike, metric: ArrayLike, step_size: float) -> Finding:
    A, step = as_array(X, "X", ndim=2), as_real(step_size, "step_size")
    M = as_symmetric(metric, "metric", size=A.shape[1])
    e = 2 * binary_exponent(A) + binary_exponent(M)
    A, M = unit(A), unit(M / 2 + M.T / 2)
    # The nonzero eigenvalues of M X'X are those of X M X', which is symmetric for any M.
    largest = float(np.linalg.eigvalsh(A @ M @ A.T)[-1])
    size = float(np.linalg.norm(A) ** 2 * np.linalg.norm(M))
    limit = float(np.ldexp(2 / largest, -e)) if largest > 0 else np.inf
    text = f"step {step:.4g}, 2 / lambda_max = {limit:.4g}"
    if step <= 0:
        return Finding(False, text)
    step = float(np.ldexp(step, e))
    return compared(step * largest, "<", 2.0, text, error=8 * sum(A.shape) * EPS * step * size)


def _acute(X: ArrayLike, labels: ArrayLike) -> Finding:
    least = data_separation(X, labels)
    Z = as_array(labels, "labels", ndim=1)[:, None] * as_array(X, "X", ndim=2)
    error = 4 * Z.shape[1] * EPS
    text = f"least cosine {least:.4g}"
    if abs(least) <= error:
        directions = Z / np.linalg.norm(Z, axis=1)[:, None]
        pairs = np.argwhere(directions @ directions.T <= error)[:PAIRS]
        if any(exact_product(Z[i], Z[j]) <= 0 for i, j in pairs):
            return Finding(False, "two y_i x_i are orthogonal or worse, exactly")
    return compared(least, ">", 0.0, text, error=error)


def _two_samples(X: ArrayLike) -> Finding:
    n = len(as_array(X, "X", ndim=2))
    return compared(n, ">=", 2, f"{n} samples")


def _rows_of_features(features: ArrayLike) -> Finding:
    return independent_rows(as_array(features, "features", ndim=2))


def _positive_penalty(lam: float) -> Finding:
    return compared(lam_ := as_real(lam, "lam"), ">", 0.0, f"lambda = {lam_:.4g}")


def _spectrum_cut(X: ArrayLike, width: int, lam: float) -> Finding:
    A, penalty = as_array(X, "X", ndim=2), as_real(lam, "lam")
    p = A.shape[1]
    k = as_count(width, "width", maximum=p)
    values, error = singular_values(A)
    absent = np.zeros(p + 1 - len(values))  # these are 0, exactly
    sigma, errors = np.append(values, absent), np.append(np.full_like(values, error), absent)
    lowest = compared(sigma[p - 1], ">", 0.0, f"sigma_k = {sigma[p - 1]:.4g}", error=errors[p - 1])
    gap = singular_value_gap(A, k) if k < p else lowest
    removed = compared(sigma[k], "<=", penalty, f"sigma_k+1 = {sigma[k]:.4g}", error=errors[k])
    kept = compared(penalty, "<", sigma[0], f"sigma_1 = {sigma[0]:.4g}", error=error)
    return any_of(gap, all_of(removed, kept))


SEPARABLE = "some w separates the rows"
ROWS = {"Z": "(n, d), rows y_i x_i"}

THEOREMS = {
    "perceptron_limit:batch-perceptron-complexity": Theorem({SEPARABLE: _separable}, ROWS),
    "perceptron_limit:vanishing-loss-needs-large-weights": Theorem(
        {
            SEPARABLE: _separable,
            "steps at most 4 / R^2": _free_steps,
            "mu^2 eta t at least 1": _long_enough,
        },
        ROWS | {"step_size": "eta", "steps": "t, a number of steps"},
    ),
    "sequential_projections:fejer-and-step-summability": Theorem(
        {"the tasks have a common separator": _common_separator},
        {"tasks": "a list of (n_t, d), rows y_i x_i of each task"},
    ),
    "preconditioned_descent:preconditioned-gd-min-norm": Theorem(
        {
            "X of full row rank": _rows_of_X,
            "y is not 0": _not_zero,
            "the metric is positive definite": _metric,
            "step positive and below 2 / lambda_max": _stable_step,
        },
        {"X": "(n, d)", "y": "(n,)", "metric": "M, (d, d) symmetric", "step_size": "eta"},
    ),
    "neuron_alignment:early-alignment": Theorem(
        {"all cosines of two y_i x_i positive": _acute, "at least two samples": _two_samples},
        {"X": "(n, d) without zero rows", "labels": "(n,) of -1 and 1"},
    ),
    "logistic_features:spectral-decoupling": Theorem(
        {"linearly independent rows": _rows_of_features}, {"features": "Phi, (n, d)"}
    ),
    "linear_autoencoders:separately-regularised-unique": Theorem(
        {
            "lambda positive": _positive_penalty,
            "sigma_k > sigma_k+1, or sigma_k+1 <= lambda < sigma_1": _spectrum_cut,
        },
        {"X": "(n, p)", "width": "k, at most p", "lam": "lambda"},
    ),
}
