r"""Exact transport through SciPy's solvers, certified by dual potentials.

$$\mathrm{OT}(a,b)=\min_{P\ge0,\,P1=a,\,P^\top1=b}\langle C,P\rangle
=\max_{f_i+g_j\le C_{ij}}\langle a,f\rangle+\langle b,g\rangle.$$

A plan and feasible potentials are both optimal iff $P_{ij}(C_{ij}-f_i-g_j)=0$ for all i, j.
Uniform weights on as many points are an assignment, whose potentials are shortest paths between
assigned pairs; other weights are a linear program (HiGHS) over a growing set of cells, until no
cell has a negative reduced cost. On the line, for a convex cost of the difference, sorting solves
the problem."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from theorylab._validation import (
    FloatArray,
    as_array,
    as_instance,
    as_real,
    as_symmetric,
)
from theorylab.numerics.programs import linprog
from theorylab.optimal_transport._problem import (
    TransportPlan,
    TransportStatus,
    as_problem,
    as_weights,
    make_plan,
)
from theorylab.optimal_transport.sinkhorn import scale

__all__ = ["Slackness", "exact_plan", "gaussian_transport", "line_plan", "slackness"]

_NEAREST = 8  # cells of each row and column with which the linear program starts
_ROUNDS = 200


def exact_plan(a: ArrayLike, b: ArrayLike, C: ArrayLike) -> TransportPlan:
    """Return an optimal plan with optimal potentials.

    Parameters
    ----------
    a, b
        (n,) and (m,) weights that sum to one.
    C
        (n, m) costs.

    Returns
    -------
    TransportPlan
        With a sparse plan, and potentials that are feasible up to rounding. Where masses near
        1e-16 alone decide the value, rounding may hide it: the status is then not ``OPTIMAL``.

    Examples
    --------
    >>> from theorylab.optimal_transport import exact_plan
    >>> exact_plan([0.5, 0.5], [0.25, 0.75], [[0.0, 1.0], [1.0, 0.0]]).value
    0.25
    """
    problem = as_problem(a, b, C)
    weights = problem.a, problem.b, problem.C
    n, m = problem.C.shape
    if n == m and np.ptp(problem.a) == 0 and np.ptp(problem.b) == 0:
        rows, columns = linear_sum_assignment(problem.C)
        mass, rounds = problem.a, 1
    else:
        rows, columns, mass, rounds = _linear_program(*weights)
    f, g = _potentials(problem.C, rows, columns)
    outside = None
    if (n, m) != problem.shape:  # points without mass take the largest feasible potentials
        cost = (as_array(C, "C") - problem.offset) / problem.unit
        fs = (cost[:, problem.columns] - g).min(axis=1)
        outside = fs, (cost - fs[:, None]).min(axis=0)
    value = float(mass @ problem.C[rows, columns])
    dual = float(problem.a @ f + problem.b @ g)
    plan = sparse.csr_array((mass, (rows, columns)), shape=(n, m))
    error = float(abs(plan.sum(axis=1) - problem.a).sum() + abs(plan.sum(axis=0) - problem.b).sum())
    return problem.finish(
        plan,
        f,
        g,
        value,
        dual,
        value,
        rounds,
        TransportStatus.OPTIMAL if rounds <= _ROUNDS else TransportStatus.NOT_CONVERGED,
        marginal_error=error,
        outside=outside,
    )


class Slackness(NamedTuple):
    """By how much potentials and a plan miss the conditions of optimality, in units of the cost."""

    infeasibility: float
    complementarity: float


def slackness(result: TransportPlan, C: ArrayLike) -> Slackness:
    r"""Return the largest $f_i+g_j-C_{ij}$, at least 0, and
    $\sum_{ij}P_{ij}|C_{ij}-f_i-g_j|$: both vanish iff the plan is optimal for its marginals.

    Parameters
    ----------
    result
        A plan with finite potentials.
    C
        (n, m) costs.

    Examples
    --------
    >>> from theorylab.optimal_transport import exact_plan, slackness
    >>> C = [[0.0, 1.0], [1.0, 0.0]]
    >>> slackness(exact_plan([0.5, 0.5], [0.25, 0.75], C), C)
    Slackness(infeasibility=0.0, complementarity=0.0)
    """
    result = as_instance(result, "result", TransportPlan)
    C = as_array(C, "C", shape=result.plan.shape)
    f, g = result.potentials
    slack = C - f[:, None] - g
    if not np.isfinite(slack).all():
        raise ValueError("result: expected finite potentials, got infinite ones")
    return Slackness(max(0.0, -float(slack.min())), float((result.plan * abs(slack)).sum()))


def line_plan(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    p: float = 2.0,
) -> TransportPlan:
    r"""Return the optimal plan on the line for $|x-y|^p$, p >= 1: both sides sorted, mass
    moves in order, in O((n + m) log(n + m)).

    Parameters
    ----------
    x, y
        (n,) and (m,) points.
    a, b
        Weights that sum to one; uniform by default.
    p
        Exponent of the cost.

    Examples
    --------
    >>> from theorylab.optimal_transport import line_plan
    >>> line_plan([3.0, 0.0, 1.0], [1.0, 2.0, 4.0]).value
    1.0
    """
    x, y = as_array(x, "x", ndim=1), as_array(y, "y", ndim=1)
    a = as_weights(np.full(x.size, 1 / x.size) if a is None else a, "a")
    b = as_weights(np.full(y.size, 1 / y.size) if b is None else b, "b")
    x, y = as_array(x, "x", shape=a.shape), as_array(y, "y", shape=b.shape)
    p = as_real(p, "p", minimum=1.0)
    row, column = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    # The staircase of n + m - 1 cells: at each end of a row's or a column's mass, one step.
    ends = np.concatenate([np.cumsum(a[row])[:-1], np.cumsum(b[column])[:-1]])
    down = np.arange(ends.size) < a.size - 1
    order = np.argsort(ends, kind="stable")
    i = np.concatenate([[0], np.cumsum(down[order])])
    j = np.arange(i.size) - i
    mass = np.diff(np.minimum(ends[order], 1.0), prepend=0.0, append=1.0)
    mass[mass < 1e-15] = 0.0
    with np.errstate(over="ignore"):
        cost = abs(x[row[i]] - y[column[j]]) ** p
    if not np.isfinite(cost).all():
        raise ValueError(f"x: expected costs |x - y|^p that are finite, got {cost.max()}")
    # f_i + g_j = cost on the whole staircase, which is feasible because the costs are Monge.
    moved = np.diff(cost)
    f, g = np.empty(a.size), np.empty(b.size)
    f[row] = np.concatenate([[0.0], np.cumsum(np.where(down[order], moved, 0.0))[down[order]]])
    g[column] = cost[0] + np.concatenate(
        [[0.0], np.cumsum(np.where(down[order], 0.0, moved))[~down[order]]]
    )
    kept = mass > 0
    plan = sparse.csr_array((mass[kept], (row[i[kept]], column[j[kept]])), shape=(a.size, b.size))
    value, dual = float(mass @ cost), float(a @ f + b @ g)
    error = float(abs(plan.sum(axis=1) - a).sum() + abs(plan.sum(axis=0) - b).sum())
    terms = value + float(a @ abs(f) + b @ abs(g))
    ended = (1, TransportStatus.OPTIMAL, error)
    return make_plan(plan, f, g, value, dual, value, value, *ended, rounding=terms)


def gaussian_transport(
    covariance: ArrayLike, other_covariance: ArrayLike
) -> tuple[float, FloatArray]:
    r"""Return the squared Bures distance of two centred Gaussians and the matrix
    $A=\Sigma_1^{-1/2}(\Sigma_1^{1/2}\Sigma_2\Sigma_1^{1/2})^{1/2}\Sigma_1^{-1/2}$ of the
    Monge map x -> A x between them; means add their squared distance and a shift.

    Parameters
    ----------
    covariance
        (d, d), positive definite.
    other_covariance
        (d, d), positive semidefinite.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import gaussian_transport
    >>> distance, A = gaussian_transport(np.eye(2), 4 * np.eye(2))
    >>> round(distance, 12), A.round(12).tolist()
    (2.0, [[2.0, 0.0], [0.0, 2.0]])
    """
    S = as_symmetric(covariance, "covariance")
    other = as_symmetric(other_covariance, "other_covariance", size=len(S))
    values, vectors = np.linalg.eigh(S)
    if values[0] <= 1e-13 * values[-1]:
        raise ValueError(
            f"covariance: expected a positive definite matrix, got the eigenvalue {values[0]}"
        )
    root = (vectors * np.sqrt(values)) @ vectors.T
    inner, basis = np.linalg.eigh(root @ other @ root)
    if inner[0] < -1e-12 * max(abs(inner[0]), abs(inner[-1])):
        raise ValueError(
            "other_covariance: expected a positive semidefinite matrix, got a negative eigenvalue"
        )
    inner = np.sqrt(np.maximum(inner, 0.0))
    inverse = (vectors / np.sqrt(values)) @ vectors.T
    A = inverse @ (basis * inner) @ basis.T @ inverse
    # |A - 1| in the metric of the first covariance: no cancellation for near covariances
    moved = (A - np.eye(len(S))) @ root
    return float(np.sum(moved**2)), A


def _linear_program(
    a: FloatArray, b: FloatArray, C: FloatArray
) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray, int]:
    """Solve over a set of cells that grows by the cells of negative reduced cost."""
    n, m = C.shape
    zeros = np.zeros(n), np.zeros(m)
    likely = -scale(a, b, C, max(float(C.max()), 1.0) / 100, *zeros, 1e-2, 30)[0]
    cells = np.zeros((n, m), bool)
    for axis in (0, 1):
        k = min(_NEAREST, likely.shape[axis] - 1)
        nearest = np.argpartition(likely, k, axis=axis)
        np.put_along_axis(cells, nearest.take(range(k + 1), axis=axis), True, axis=axis)
    staircase = np.argsort(np.concatenate([np.cumsum(a)[:-1], np.cumsum(b)[:-1]]), kind="stable")
    i = np.concatenate([[0], np.cumsum(staircase < n - 1)])
    cells[i, np.arange(i.size) - i] = True  # so that a feasible plan exists
    # HiGHS tolerances are absolute.
    size = 1 / min(a.max(), b.max())
    marginals = np.concatenate([a, b]) * size
    reduced, zoom = C, 1.0
    rounds = 0
    while True:
        rounds += 1
        rows, columns = np.nonzero(cells)
        count = np.arange(rows.size)
        incidence = sparse.csr_array(
            (np.ones(2 * rows.size), (np.r_[rows, n + columns], np.r_[count, count]))
        )
        options = {"dual_feasibility_tolerance": 1e-10, "primal_feasibility_tolerance": 1e-10}
        for presolve in (True, False):  # it may call weights near its tolerance infeasible
            answer = linprog(
                zoom * reduced[rows, columns],
                A_eq=incidence,
                b_eq=marginals,
                method="highs",
                options={**options, "presolve": presolve},
            )
            if answer.x is not None:
                break
        if answer.x is None:
            raise RuntimeError(f"HiGHS: {answer.message}")
        dual = answer.eqlin.marginals / zoom
        reduced = reduced - dual[:n, None] - dual[n:]
        wanted = zoom * reduced < -1e-11
        wanted &= ~cells
        if rounds > _ROUNDS:
            break
        if not wanted.any():
            if zoom > 1 or answer.x @ abs(
                reduced[rows, columns]
            ) - reduced.min() * size <= 1e-13 * (answer.x @ C[rows, columns]):
                break
            # Some cost is large beside the optimum: solve for the rest of the reduced costs.
            zoom = 1e5
            continue
        # The most negative of each row and column; all of them would be too many at first.
        best = np.zeros((n, m), bool)
        best[np.arange(n), reduced.argmin(axis=1)] = True
        best[reduced.argmin(axis=0), np.arange(m)] = True
        cells |= best & wanted
    mass = _refined(answer.x, incidence, marginals, abs(reduced[rows, columns])) / size
    used = mass > 1e-15 * np.minimum(a[rows], b[columns])
    return rows[used], columns[used], mass[used], rounds


def _refined(
    x: FloatArray, incidence: sparse.csr_array, marginals: FloatArray, reduced: FloatArray
) -> FloatArray:
    """Return a solution that misses no marginal by a billionth of it: what one below the tolerance
    of HiGHS lacks is moved in a problem of its own, in units of the most that is missing."""
    floor = 1e-15 * marginals.max()
    for _ in range(3):
        missing = marginals - incidence @ x
        short = abs(missing) > 1e-9 * marginals
        unit = float(abs(missing[short]).max(initial=0.0))
        if unit <= floor:
            break
        # Of the equations one is redundant; that of the largest row takes the rounding.
        kept = np.arange(missing.size) != np.argmax(marginals)
        bounds = np.stack([-np.minimum(x / unit, missing.size), np.full(x.size, np.inf)], 1)
        answer = linprog(
            reduced, A_eq=incidence[kept], b_eq=missing[kept] / unit, bounds=bounds, method="highs"
        )
        if answer.x is None:
            break
        x = np.maximum(x + unit * answer.x, 0.0)
    # Below the rounding of the largest marginal, others take up any mass.
    missing = np.maximum(marginals - incidence @ x, 0.0)
    ends = incidence.tocsc().indices.reshape(-1, 2)
    x = x.copy()
    for i in np.flatnonzero(missing > 1e-9 * marginals):
        cells = np.flatnonzero((ends == i).any(axis=1))
        least = cells[np.argmin(reduced[cells])]
        x[least] += missing[i]
        missing[ends[least]] -= np.minimum(missing[ends[least]], missing[i])
    return x


def _potentials(
    C: FloatArray, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Return feasible potentials that are tight on the cells of an optimal plan: shortest paths in
    the residual graph, by Bellman and Ford."""
    n, _ = C.shape
    tight = C[rows, columns]
    f = np.zeros(n)
    noise = 4 * np.finfo(np.float64).eps * max(float(C.max()), 1.0)
    for _ in range(2 * n):
        g = (C - f[:, None]).min(axis=0)
        raised = f.copy()
        np.maximum.at(raised, rows, tight - g[columns])
        if (raised - f).max() <= noise:
            break
        f = raised
    return (C - g).min(axis=1), g
