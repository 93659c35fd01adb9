"""What every solver shares: the checked problem in units of its own, the result, rounding to a
feasible plan."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from theorylab._validation import FloatArray, as_array, as_real
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "Problem",
    "TransportPlan",
    "TransportStatus",
    "as_problem",
    "as_weights",
    "entropic_bounds",
    "make_plan",
]

_UNIT = np.finfo(np.float64).eps
_TINY = np.finfo(np.float64).tiny
_CERTIFIED = 1e-6  # gap up to which potentials certify a plan


class TransportStatus(StrEnum):
    """How a solver ended."""

    OPTIMAL = "the potentials certify the plan up to rounding"
    CONVERGED = "the tolerance was met"
    ROUNDING = (
        "rounding hides the rest: the regularisation is too small against the costs, or the mass "
        "that decides the value against the whole, for float64 to resolve more"
    )
    NOT_CONVERGED = (
        "the iterations ended above the tolerance: raise max_iter, or start from a nearby plan"
    )
    STOPPED = "stopped by the callback, with the plan and the potentials of then"


@result
class TransportPlan:
    """A plan with the potentials that bound its distance from the optimum.

    Attributes
    ----------
    plan
        (n, m), an array or a SciPy sparse array.
    potentials
        f of shape (n,) and g of shape (m,), as the solver's module defines them.
    value
        Objective, regulariser included, of the plan rounded to the exact marginals: no less than
        the minimum.
    dual_value
        Dual objective at the potentials: no more than the minimum.
    transport_cost
        <C, plan>.
    gap
        (value - dual_value) over the size of the objective's terms, <\\|C\\|, plan> plus the
        absolute regulariser; 0 where rounding of the sums explains the difference.
    marginal_error
        Sum of the absolute errors of row and column sums of ``plan``.
    n_iterations
        Iterations taken, over all stages.
    status
        How the solver ended.
    """

    plan: Any
    potentials: tuple[FloatArray, FloatArray]
    value: float
    dual_value: float
    transport_cost: float
    gap: float
    marginal_error: float
    n_iterations: int
    status: TransportStatus

    def __repr__(self) -> str:
        n, m = self.plan.shape
        return (
            f"<TransportPlan {n}x{m}, value {self.value:.6g}, gap {self.gap:.1e}, "
            f"marginal error {self.marginal_error:.1e}, {self.status.name.lower()}>"
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """Weights and costs without their zero rows and columns, costs in [0, 2) of a power of two.

    The original cost is ``offset + unit * C`` on the support ``rows`` x ``columns``."""

    a: FloatArray
    b: FloatArray
    C: FloatArray
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    shape: tuple[int, int]
    offset: float
    unit: float

    @property
    def spread(self) -> float:
        """Largest scaled cost; the least is 0."""
        return float(self.C.max())

    def scaled(self, value: float, name: str) -> float:
        """Return a regularisation weight in the problem's unit; refuse one that rounding hides."""
        value = as_real(value, name, above=0.0)
        if value < 1e-13 * self.spread * self.unit:
            raise ValueError(
                f"{name}: expected a weight that float64 resolves beside costs that differ by "
                f"{self.spread * self.unit}, got {value}; use exact_plan"
            )
        return value / self.unit

    def start(self, start: TransportPlan | None) -> tuple[FloatArray, FloatArray] | None:
        """Return the potentials of ``start`` in the problem's unit, -inf replaced by the least."""
        if start is None:
            return None
        if not isinstance(start, TransportPlan):
            raise ValueError(f"start: expected a TransportPlan, got {type(start).__name__}")
        if start.plan.shape != self.shape:
            raise ValueError(
                f"start: expected a plan of shape {self.shape}, got {start.plan.shape}"
            )
        f, g = start.potentials[0][self.rows], start.potentials[1][self.columns]
        f, g = (np.where(np.isfinite(p), p, p[np.isfinite(p)].min()) for p in (f, g))
        return (f - self.offset) / self.unit, g / self.unit

    def size(self, plan: Any, transport_cost: float, value: float) -> float:
        """Return <|C|, plan> plus the absolute regulariser, in the problem's unit: what gaps are
        relative to."""
        moved = transport_cost + self.offset / self.unit
        if self.offset < 0:
            moved = float((plan * abs(self.C + self.offset / self.unit)).sum())
        return moved + abs(value - transport_cost)

    def finish(
        self,
        plan: Any,
        f: FloatArray,
        g: FloatArray,
        value: float,
        dual_value: float,
        transport_cost: float,
        n_iterations: int,
        status: TransportStatus,
        *,
        marginal_error: float,
        outside: tuple[FloatArray, FloatArray] | None = None,
    ) -> TransportPlan:
        """Return the result in the caller's units and shape.

        ``outside`` gives the potentials of points without mass (scaled, full length); by default
        they are -inf."""
        n, m = self.shape
        size = self.unit * self.size(plan, transport_cost, value)
        fs = np.full(n, -np.inf) if outside is None else outside[0].copy()
        gs = np.full(m, -np.inf) if outside is None else outside[1].copy()
        fs[self.rows], gs[self.columns] = f, g
        if (n, m) != plan.shape:
            plan = _embed(plan, self.rows, self.columns, (n, m))
        value, dual_value, transport_cost = (
            self.offset + self.unit * v for v in (value, dual_value, transport_cost)
        )
        rounding = abs(self.offset) + self.unit * float(self.a @ abs(f) + self.b @ abs(g))
        result = make_plan(
            plan,
            self.offset + self.unit * fs,
            self.unit * gs,
            value,
            dual_value,
            transport_cost,
            size,
            n_iterations,
            status,
            marginal_error,
            rounding=rounding,
        )
        if result.status not in (TransportStatus.OPTIMAL, TransportStatus.CONVERGED):
            warnings.warn(
                f"gap {result.gap:.1e}, marginal error {marginal_error:.1e} after {n_iterations} "
                f"iterations: {result.status}",
                RuntimeWarning,
                stacklevel=3,
            )
        return result


class Watch:
    """The callback of an entropic solver, and whether it said to stop."""

    def __init__(self, problem: Problem, callback: Callback | None) -> None:
        self.problem, self.callback, self.stops = problem, callback, watcher(callback)
        self.steps, self.stopped = 0, False

    def __call__(self, f: FloatArray, g: FloatArray, error: float) -> bool:
        """Tell of one more step: potentials of a plan of mass one, and its marginal error."""
        if self.callback and not self.stopped:
            self.steps += 1
            p = self.problem
            dual = p.offset + p.unit * float(p.a @ f + p.b @ g)
            self.stopped = self.stops(self.steps, dual, error)
        return self.stopped


def make_plan(
    plan: Any,
    f: FloatArray,
    g: FloatArray,
    value: float,
    dual_value: float,
    transport_cost: float,
    size: float,
    n_iterations: int,
    status: TransportStatus,
    marginal_error: float,
    *,
    rounding: float | None = None,
) -> TransportPlan:
    """Return the result with its relative gap: ``size`` is that of the objective's terms,
    ``rounding`` that of the terms of the dual value, by default the same. A plan that its
    potentials do not certify is not called optimal."""
    difference = abs(value - dual_value)
    floor = 16 * _UNIT * (size if rounding is None else rounding)
    gap = 0.0 if difference <= floor else difference / max(size, floor, _TINY)
    if status is TransportStatus.OPTIMAL and gap > _CERTIFIED:
        status = TransportStatus.ROUNDING
    return TransportPlan(
        _frozen(plan),
        (_frozen(f), _frozen(g)),
        value,
        dual_value,
        transport_cost,
        gap,
        marginal_error,
        n_iterations,
        status,
    )


def as_weights(value: ArrayLike, name: str) -> FloatArray:
    """Return non-negative weights divided by their sum, which must be one within the rounding of
    the input's own precision."""
    weights = as_array(value, name, ndim=1, nonnegative=True)
    total = float(weights.sum())
    single = np.asarray(value).dtype in (np.float32, np.float16)
    if abs(total - 1) > (1e-5 if single else 1e-9):
        raise ValueError(f"{name}: expected weights that sum to one, got the sum {total!r}")
    return weights / total


def as_problem(a: ArrayLike, b: ArrayLike, C: ArrayLike) -> Problem:
    """Return the checked transport problem."""
    a, b = as_weights(a, "a"), as_weights(b, "b")
    cost = as_array(C, "C", shape=(a.size, b.size))
    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    shape = a.size, b.size
    if rows.size < a.size or columns.size < b.size:
        a, b, cost = a[rows], b[columns], cost[np.ix_(rows, columns)]
    offset = float(cost.min())
    spread = float(cost.max()) - offset
    if not np.isfinite(spread):
        raise ValueError(f"C: expected costs whose differences are finite, got {offset} and more")
    unit = 2.0 ** np.floor(np.log2(spread)) if spread > 0 else 1.0
    return Problem(a, b, (cost - offset) / unit, rows, columns, shape, offset, float(unit))


def entropic_bounds(
    plan: Any, f: FloatArray, g: FloatArray, a: FloatArray, b: FloatArray, C: FloatArray, eps: float
) -> tuple[float, float]:
    """Return bounds of the least <C, P> + eps sum P log P from a plan exp((f + g - C) / eps) whose
    marginals are nearly a and b.

    Above: rows, then columns are scaled down to their marginals by x and y, and a product E fills
    in what is missing. As p + q <= 1, (p + q) log(p + q) <= p log p + q, and log p is known from
    the potentials, so no logarithm of a matrix is taken. Below: the dual value."""
    rows = plan @ np.ones(b.size)
    x = np.minimum(1.0, a / np.maximum(rows, _TINY))
    y = np.minimum(1.0, b / np.maximum(x @ plan, _TINY))
    scaled_rows, scaled_columns = x * (plan @ y), (x @ plan) * y
    missing, lacking = np.maximum(a - scaled_rows, 0.0), np.maximum(b - scaled_columns, 0.0)
    total = float(missing.sum())
    upper = scaled_rows @ (f + eps * np.log(x)) + scaled_columns @ (g + eps * np.log(y))
    if total > 0 and lacking.any():
        upper += missing @ C @ lacking / lacking.sum() + eps * total
    return float(upper), float(a @ f + b @ g + eps * (1 - rows.sum()))


def _embed(
    plan: Any, rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int]
) -> Any:
    if isinstance(plan, sparse.csr_array):
        small = plan.tocoo()
        return sparse.csr_array((small.data, (rows[small.row], columns[small.col])), shape=shape)
    full = np.zeros(shape)
    full[np.ix_(rows, columns)] = plan
    return full


def _frozen(array: Any) -> Any:
    for part in (
        (array.data, array.indices, array.indptr)
        if isinstance(array, sparse.csr_array)
        else (array,)
    ):
        part.flags.writeable = False
    return array
