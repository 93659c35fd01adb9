"""Assumptions of the theme's theorems that can be tested on data."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_real
from theorylab.numerics.assumptions import (
    EPS,
    LARGEST,
    Finding,
    Theorem,
    all_of,
    compared,
    matches,
    unit,
)
from theorylab.numerics.scaling import binary_exponent
from theorylab.optimal_transport.sum_of_norms import RecoveryWindow, recovery_window

__all__ = ["THEOREMS"]


def _square(C: ArrayLike) -> FloatArray:
    cost = as_array(C, "C", ndim=2)
    return as_array(cost, "C", shape=(len(cost), len(cost)))


def _vertex_gap(cost: FloatArray) -> tuple[float, float, bool]:
    """Return the gap between the two least sums over assignments, its rounding, and whether it is
    proved to be 0: the least cycle of moves of rows to the place of another."""
    from scipy.optimize import linear_sum_assignment

    scaled = unit(cost)
    moves = scaled[:, linear_sum_assignment(scaled)[1]]
    gap = max(_least_cycle(moves - moves.diagonal()[:, None]), 0.0)
    error = 4 * len(cost) ** 2 * EPS * float(np.abs(scaled).max())
    tied = False
    if gap <= error and len(cost) <= LARGEST:
        exact = np.array([[Fraction(x) for x in row] for row in moves.tolist()])
        tied = _least_cycle(exact - exact.diagonal()[:, None]) == 0
    e = binary_exponent(cost)
    return float(np.ldexp(gap, e)), float(np.ldexp(error, e)), tied


def _least_cycle(weights: NDArray[Any]) -> Any:
    """Return the least weight of a cycle, by Floyd and Warshall."""
    paths = weights.copy()
    np.fill_diagonal(paths, np.inf)
    for k in range(len(paths)):
        paths = np.minimum(paths, paths[:, k, None] + paths[k])
    return paths.diagonal().min()


def _one_assignment(C: ArrayLike) -> Finding:
    gap, error, tied = _vertex_gap(_square(C))
    if tied:
        return Finding(False, "two least assignments cost the same, exactly")
    return compared(gap, ">", 0.0, f"the second best costs {gap:.4g} more", error=error)


def _cold_enough(C: ArrayLike, eta: float) -> Finding:
    cost, rate = _square(C), as_real(eta, "eta", above=0.0)
    gap, error, _ = _vertex_gap(cost)
    if gap <= error:
        return Finding(None, "Delta is 0, or rounding")
    least = (1 + float(np.log(len(cost)))) * len(cost) / gap
    text = f"eta = {rate:.4g}, (1 + log n) / Delta = {least:.4g}"
    return compared(rate, ">=", least, text, error=2 * least * (error / gap + EPS))


def _positive(a: ArrayLike, b: ArrayLike) -> Finding:
    least = min(as_array(side, name, ndim=1).min() for side, name in ((a, "a"), (b, "b")))
    return compared(least, ">", 0.0, f"least mass {least:.3g}")


def _sums(a: ArrayLike, b: ArrayLike, tol: float) -> Finding:
    sums = [as_array(side, name, ndim=1).sum() for side, name in ((a, "a"), (b, "b"))]
    return matches(max(abs(s - 1) for s in sums), tol, "distance of a sum from 1")


def _window(C: ArrayLike, labels: ArrayLike) -> RecoveryWindow | None:
    return recovery_window(C, labels=labels) if _equal_classes(C, labels).holds else None


def _equal_classes(C: ArrayLike, labels: ArrayLike) -> Finding:
    classes = as_array(labels, "labels", shape=(len(_square(C)),))
    sizes = np.unique(classes, return_counts=True)[1]
    return compared(sizes.max(), "<=", sizes.min(), f"sizes {sizes.tolist()}")


def _within_window(C: ArrayLike, labels: ArrayLike, lam: float, *, upper: bool) -> Finding:
    window, weight = _window(C, labels), as_real(lam, "lam", minimum=0.0)
    if window is None:
        return Finding(None, "the window needs classes of equal size")
    cost, bound = _square(C), window.upper if upper else window.lower
    text = f"lambda = {weight:.4g}, {'upper' if upper else 'lower'} end {bound:.4g}"
    # An end of 0 is exact: classes of one point.
    error = 16 * len(cost) * EPS * float(np.abs(cost).max()) if bound else 0.0
    return compared(weight, "<=" if upper else ">=", bound, text, error=error)


def _above_lower_end(C: ArrayLike, labels: ArrayLike, lam: float) -> Finding:
    return _within_window(C, labels, lam, upper=False)


def _below_upper_end(C: ArrayLike, labels: ArrayLike, lam: float) -> Finding:
    return _within_window(C, labels, lam, upper=True)


def _sorted_together(a: ArrayLike, b: ArrayLike) -> Finding:
    x = as_array(a, "a", ndim=1)
    y = as_array(b, "b", shape=x.shape)
    order = np.lexsort((y, x))
    falls = np.flatnonzero(np.diff(y[order]) < 0)
    if not falls.size:
        return Finding(True, "sorted by a, then b, both rise")
    i, j = order[falls[0]], order[falls[0] + 1]
    return Finding(False, f"a rises from {x[i]:.4g} to {x[j]:.4g}, b falls there, {i} to {j}")


def _distinct(particles: ArrayLike) -> Finding:
    w = np.sort(as_array(particles, "particles", ndim=1))
    if len(w) == 1:
        return Finding(True, "a single one")
    least = float(np.diff(w).min())
    return compared(least, ">", 0.0, f"least distance {least:.3g}")


def _half_step(step_size: float) -> Finding:
    step = as_real(step_size, "step_size")
    text = f"step {step:.4g}"
    return all_of(compared(step, ">", 0.0, text), compared(step, "<=", 0.5, text))


COSTS = {"C": "(n, n) costs"}

THEOREMS = {
    "sinkhorn_newton:lyapunov-hessian": Theorem(
        {"a and b positive": _positive, "a and b of sum 1": _sums},
        {"a": "(n,) masses", "b": "(m,) masses"},
    ),
    "sinkhorn_newton:vertex-gap-bound-on-plan": Theorem(
        {"one optimal assignment": _one_assignment, "eta >= (1 + log n) / Delta": _cold_enough},
        COSTS | {"eta": "1 / eps of the entropic plan, of masses 1 / n"},
    ),
    "sum_of_norms:class-recovery-window": Theorem(
        {
            "classes of equal size": _equal_classes,
            "lambda at or above the lower end of the window": _above_lower_end,
            "lambda at or below the upper end of the window": _below_upper_end,
        },
        COSTS | {"labels": "(n,) classes of rows and columns", "lam": "lambda"},
    ),
    "particle_flows:displacement-convexity-needs-sorting": Theorem(
        {"one permutation sorts a and b": _sorted_together},
        {"a": "(n,) particles", "b": "(n,) particles paired with them"},
    ),
    "particle_flows:particle-gd-rate": Theorem(
        {"distinct particles": _distinct, "step in (0, 1/2]": _half_step},
        {"particles": "(n,)", "step_size": "eta"},
    ),
}
