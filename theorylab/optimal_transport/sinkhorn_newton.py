r"""Entropic transport by Newton's method with sparse Hessians, and the law of that sparsity.

With $\eta=1/\epsilon$ Sinkhorn's iteration is alternating maximisation of the concave
Lyapunov potential

$$L(x,y)=a^\top x+b^\top y-\frac1\eta\sum_{ij}P_{ij},\qquad
P_{ij}=e^{\eta(x_i+y_j-C_{ij})-1},\qquad
\nabla^2L=-\eta\begin{pmatrix}\mathrm{diag}(P1)&P\\P^\top&\mathrm{diag}(P^\top1)\end{pmatrix},$$

with gradient $(a-P1,b-P^\top1)$ and kernel spanned by (1, -1). P tends to an optimal plan of
the unregularised problem, so the Hessian has about n entries that matter. For uniform weights on n
points and a unique optimal assignment $\pi$ (derived here),

$$\|P_\eta-P^\star\|_1=c\,e^{-\eta\mu^\star}(1+o(1)),\qquad
\mu^\star=\min_{\text{cycles}}\frac1{|\text{cycle}|}\sum_{i\to j}(C_{i\pi(j)}-C_{i\pi(i)}),$$

the minimum cycle mean; and with $\Delta$ the gap between the two least vertex values,
$\|P_\eta-P^\star\|_1\le2e^{-\eta\Delta+1+\log n}$ once $\eta\Delta\ge1+\log n$.

The solver maximises over x exactly (row sums stay right), takes Newton steps in y with the Schur
complement of the entries that matter, and lowers $\epsilon$ in stages.

Theorems: tang2024-accelerating (potential, approximate sparsity); the exponent and the constants of
the bound are derived here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.optimize import linear_sum_assignment

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.numerics.compiled import compiled
from theorylab.numerics.progress import Callback
from theorylab.numerics.results import result
from theorylab.optimal_transport._problem import (
    TransportPlan,
    TransportStatus,
    Watch,
    as_problem,
    as_weights,
    entropic_bounds,
)
from theorylab.optimal_transport.sinkhorn import scale

__all__ = [
    "Lyapunov",
    "lyapunov",
    "newton_plan",
    "plan_distance_bound",
    "sparsity_exponent",
    "vertex_gap",
]

IntArray = NDArray[np.int64]

_FIRST = 0.01  # of the largest cost: eps of the first stage
_FALL = 4.0  # of eps, from one stage to the next
_REACH = 42.0  # of the exponent below a row's largest: what is left out is below rounding
_KEPT = 1e-5  # of the marginal error times a row's mass: entries of the Hessian that matter
_PORTION = 10**8  # products of entries that are added up before Ctrl-C gets in
_LOOSE = 1e-2  # marginal error at which a stage before the last ends


def newton_plan(
    a: ArrayLike,
    b: ArrayLike,
    C: ArrayLike,
    eps: float,
    *,
    tol: float = 1e-9,
    max_iter: int = 300,
    start: TransportPlan | None = None,
    callback: Callback | None = None,
) -> TransportPlan:
    """Return the entropic plan (as :func:`~theorylab.optimal_transport.sinkhorn_plan`) by sparse
    Newton steps; for small ``eps``, where scaling crawls.

    Parameters
    ----------
    a, b
        (n,) and (m,) weights that sum to one.
    C
        (n, m) costs.
    eps
        Weight of the entropy, positive, in units of C (POT's ``reg``).
    tol
        Sum of the absolute marginal errors at which to stop.
    max_iter
        Newton steps over all stages; a warning says if they did not suffice.
    start
        Plan of a nearby problem of the same shape, whose potentials start the iteration.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` before each Newton step: the
        dual value, and the marginal error, both at the eps of the stage; where it returns True, the
        iteration stops.

    Returns
    -------
    TransportPlan
        With a sparse plan: entries below about 1e-18 of their row are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import newton_plan
    >>> x = np.linspace(0, 1, 50)
    >>> w = np.full(50, 0.02)
    >>> newton_plan(w, w, (x[:, None] - x) ** 2, 1e-4).marginal_error < 1e-9
    True
    """
    problem = as_problem(a, b, C)
    eps = problem.scaled(eps, "eps")
    tol = as_real(tol, "tol", minimum=0.0)
    max_iter = as_count(max_iter, "max_iter")
    a, b, C = problem.a, problem.b, problem.C
    given = problem.start(start)
    if turned := a.size < b.size:  # the Schur complement belongs to the shorter side
        a, b, C = b, a, np.ascontiguousarray(C.T)
        given = given and given[::-1]
    rows = _Rows(C, a, b)
    reachable = max(tol, np.finfo(np.float64).eps * problem.spread / eps / 16)
    if given is None:
        stage = max(eps, _FIRST * problem.spread)
        zeros = np.zeros(a.size), np.zeros(b.size)
        g = scale(a, b, C, stage, *zeros, _LOOSE, 30)[2]
    else:
        stage, g = eps, given[1]
    watch = Watch(problem, callback)
    steps, drift, before, old = 0, np.zeros(b.size), stage, g
    while True:
        last = stage <= eps
        enough = reachable if last else _LOOSE

        def told(g: FloatArray, error: float) -> bool:
            f, g = (g, rows.f) if turned else (rows.f, g)
            return watch(f, g, error)

        g, taken, error = _ascend(rows, g, stage, enough, max_iter - steps, told)
        steps += taken
        if last or steps >= max_iter or watch.stopped:
            break
        # Potentials are nearly linear in eps: follow the line through the last two stages.
        lower = stage / _FALL if stage > 1.5 * _FALL * eps else eps
        if stage < before:
            drift = (g - old) / (before - stage)
        before, old = stage, g
        g, stage = g + drift * (before - lower), lower
    if watch.stopped:
        status = TransportStatus.STOPPED
    elif last and error <= tol:
        status = TransportStatus.CONVERGED
    else:
        status = TransportStatus.ROUNDING if steps < max_iter else TransportStatus.NOT_CONVERGED
    if stage > eps:  # the budget ended early: the plan of the requested eps, far from its marginals
        error = float(abs(rows.ascent(g, eps)).sum())
    plan, f = rows.plan(), rows.f
    if turned:
        plan, f, g = plan.T.tocsr(), g, f
    value, dual = entropic_bounds(plan, f, g, problem.a, problem.b, problem.C, eps)
    cost = float(plan.data @ problem.C[_row_numbers(plan), plan.indices])
    return problem.finish(plan, f, g, value, dual, cost, steps, status, marginal_error=error)


@result
class Lyapunov:
    """Value, gradient and Hessian of the Lyapunov potential at one point."""

    value: float
    gradient: FloatArray
    hessian: FloatArray


def lyapunov(
    x: ArrayLike, y: ArrayLike, a: ArrayLike, b: ArrayLike, C: ArrayLike, eps: float
) -> Lyapunov:
    r"""Return the Lyapunov potential of Sinkhorn's iteration (module docstring) with its gradient
    (n + m,) and Hessian (n + m, n + m).

    At the optimum x = f + eps/2 and y = g + eps/2 for the potentials of
    :func:`~theorylab.optimal_transport.newton_plan`, up to the exchange of a constant.

    Parameters
    ----------
    x, y
        (n,) and (m,) potentials.
    a, b
        Weights that sum to one.
    C
        (n, m) costs.
    eps
        Weight of the entropy, 1 / eta.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import lyapunov
    >>> w = np.full(2, 0.5)
    >>> lyapunov([0, 0], [0, 0], w, w, np.zeros((2, 2)), 1.0).hessian[0, [0, 2]].round(2).tolist()
    [-0.74, -0.37]
    """
    a, b = as_weights(a, "a"), as_weights(b, "b")
    x = as_array(x, "x", shape=a.shape)
    y = as_array(y, "y", shape=b.shape)
    C = as_array(C, "C", shape=(a.size, b.size))
    eps = as_real(eps, "eps", above=0.0)
    with np.errstate(over="ignore"):
        P = np.exp((x[:, None] + y - C) / eps - 1)
    r, c = P.sum(axis=1), P.sum(axis=0)
    if not np.isfinite(r).all():
        raise ValueError("x: expected potentials whose plan is finite in float64, got an overflow")
    hessian = -np.block([[np.diag(r), P], [P.T, np.diag(c)]]) / eps
    return Lyapunov(float(a @ x + b @ y - eps * r.sum()), np.concatenate([a - r, b - c]), hessian)


def sparsity_exponent(C: ArrayLike) -> float:
    r"""Return $\mu^\star$, the rate at which the entropic plan of uniform weights approaches
    the optimal assignment in 1 / eps: the minimum cycle mean of $C_{i\pi(j)}-C_{i\pi(i)}$
    (Karp), zero where two assignments are optimal, infinite for a single point.

    Parameters
    ----------
    C
        (n, n) costs.

    Examples
    --------
    >>> from theorylab.optimal_transport import sparsity_exponent
    >>> sparsity_exponent([[0.0, 1.0], [3.0, 0.0]])
    2.0
    """
    excess = _excess(C)
    n = len(excess)
    walks = np.zeros((n + 1, n))
    for k in range(n):
        walks[k + 1] = (walks[k][:, None] + excess).min(axis=0)
    if n == 1:
        return np.inf
    means = (walks[n] - walks[:n]) / np.arange(n, 0, -1)[:, None]
    return max(float(means.max(axis=0).min()), 0.0)


def vertex_gap(C: ArrayLike) -> float:
    r"""Return $\Delta$, by how much the second best assignment of uniform weights costs more
    than the best: the least weight of a cycle of $C_{i\pi(j)}-C_{i\pi(i)}$, over n.

    Parameters
    ----------
    C
        (n, n) costs.

    Examples
    --------
    >>> from theorylab.optimal_transport import vertex_gap
    >>> vertex_gap([[0.0, 1.0], [3.0, 0.0]])
    2.0
    """
    distance = _excess(C)
    n = len(distance)
    for k in range(n):  # Floyd and Warshall: the diagonal becomes the least closed walk
        np.minimum(distance, distance[:, k, None] + distance[k], out=distance)
    return max(float(distance.diagonal().min()), 0.0) / n


def plan_distance_bound(n: int, *, gap: float, eps: float) -> float:
    r"""Return $\min(2,2e^{-\Delta/\epsilon+1+\log n})$, which bounds the l1 distance of the
    entropic plan of uniform weights from the optimal assignment; where it is below 2, half of it
    times the gap bounds the excess of its transport cost.

    Parameters
    ----------
    n
        Number of points on each side.
    gap
        :func:`vertex_gap` of the costs.
    eps
        Weight of the entropy.

    Examples
    --------
    >>> from theorylab.optimal_transport import plan_distance_bound
    >>> round(plan_distance_bound(2, gap=2.0, eps=0.1), 10)
    2.24e-08
    """
    n = as_count(n, "n")
    gap = as_real(gap, "gap", minimum=0.0, allow_inf=True)
    exponent = 1 + np.log(n) - gap / as_real(eps, "eps", above=0.0)
    return float(2 * np.exp(min(exponent, 0.0)))


def _excess(C: ArrayLike) -> FloatArray:
    """Return C[i, pi(j)] - C[i, pi(i)] for an optimal assignment pi, infinite on the diagonal."""
    C = as_array(C, "C", ndim=2)
    C = as_array(C, "C", shape=(len(C), len(C)))
    best = linear_sum_assignment(C)[1]
    excess = C[:, best] - C[np.arange(len(C)), best][:, None]
    np.fill_diagonal(excess, np.inf)
    return excess


def _ascend(
    rows: _Rows,
    g: FloatArray,
    eps: float,
    tol: float,
    budget: int,
    told: Callable[[FloatArray, float], bool],
) -> tuple[FloatArray, int, float]:
    """Maximise the semi-dual from g by damped Newton steps until the l1 norm of its gradient is at
    most tol; return the point, the steps taken and that norm. ``rows`` ends at that point."""
    slope = rows.ascent(g, eps)
    error, damping, steps = float(abs(slope).sum()), 1e-3, 0
    while error > tol and steps < budget and not told(g, error):
        steps += 1
        # Links much weaker than the error do not matter yet.
        H = rows.curvature(_KEPT * error)
        H.flat[:: g.size + 1] += max(damping * error, 1e-14) * rows.b.mean()
        factor, failed = dpotrf(H.T, lower=0, overwrite_a=1, clean=0)
        if failed:
            damping *= 8
            continue
        step = eps * dpotrs(factor, slope, lower=0)[0]
        gain = float(slope @ step)
        # The quadratic model holds over a few eps; go on while the slope says so, back if it turns.
        size = float(np.ptp(step)) / 2
        t = min(1.0, 5 * eps / size) if size > 0 else 1.0
        grown = False
        while True:
            new_slope = rows.ascent(g + t * step, eps)
            left = float(new_slope @ step)
            new_error = float(abs(new_slope).sum())
            if left > gain / 2 and t < 1:
                t, grown = min(1.0, 3 * t), True
            elif left >= -gain / 2 or new_error < error / 2 or t < 1e-6:
                break
            else:
                t *= max(0.1, min(0.5, gain / (gain - left)))
                if grown:
                    left = float((new_slope := rows.ascent(g + t * step, eps)) @ step)
                    new_error = float(abs(new_slope).sum())
                    break
        if t < 1e-6 and new_error >= error:
            rows.ascent(g, eps)
            break
        if t == 1:
            damping /= 8
        elif t < 0.1:
            damping *= 8
        g, slope, error = g + t * step, new_slope, new_error
    return g, steps, error


class _Rows:
    """The entropic plan whose row sums are a, row by row, at one potential of the columns."""

    def __init__(self, C: FloatArray, a: FloatArray, b: FloatArray):
        self.C, self.a, self.b = C, a, b
        n, m = C.shape
        self.start = np.zeros(n + 1, np.int64)
        self.f, self.sums = np.zeros(n), np.zeros(m)
        self._reserve(32 * (n + m))

    def _reserve(self, size: int) -> None:
        self.columns, self.mass = np.empty(size, np.int64), np.empty(size)

    def ascent(self, g: FloatArray, eps: float) -> FloatArray:
        """Move to g; return the gradient b - column sums of the semi-dual there."""
        while True:
            _soft_rows(
                self.C, g, eps, self.a, self.start, self.columns, self.mass, self.f, self.sums
            )
            if self.start[-1] <= self.columns.size:
                gradient: FloatArray = self.b - self.sums
                return gradient
            self._reserve(2 * int(self.start[-1]))

    def plan(self) -> sparse.csr_array:
        end = self.start[-1]
        parts = self.mass[:end].copy(), self.columns[:end].copy(), self.start.copy()
        return sparse.csr_array(parts, shape=self.C.shape)

    def curvature(self, kept: float) -> FloatArray:
        """Return eps times minus the Hessian of the semi-dual, lower triangle, without entries
        below that share of their row."""
        m = self.b.size
        if self.start[-1] > 0.2 * self.C.size:
            root: FloatArray = self.plan().toarray()
            root /= np.sqrt(self.a)[:, None]
            H: FloatArray = -(root.T @ root)
            H.flat[:: m + 1] += self.sums
        else:
            H = np.zeros((m, m))
            work = np.cumsum(np.diff(self.start) ** 2) // _PORTION  # between them Ctrl-C gets in
            ends = np.append(np.flatnonzero(np.diff(work)) + 1, self.a.size)
            for i, j in pairwise(np.append(0, ends).tolist()):
                _accumulate(self.start[i : j + 1], self.columns, self.mass, self.a[i:j], kept, H)
        return H


def _row_numbers(plan: sparse.csr_array) -> IntArray:
    return np.repeat(np.arange(plan.shape[0]), np.diff(plan.indptr))


@compiled
def _soft_rows(
    C: FloatArray,
    g: FloatArray,
    eps: float,
    a: FloatArray,
    start: IntArray,
    columns: IntArray,
    mass: FloatArray,
    f: FloatArray,
    sums: FloatArray,
) -> None:
    n, m = C.shape
    for j in range(m):
        sums[j] = 0.0
    position = 0
    for i in range(n):
        top = -np.inf
        for j in range(m):
            top = max(top, g[j] - C[i, j])
        cut = top - _REACH * eps
        first, total = position, 0.0
        for j in range(m):
            x = g[j] - C[i, j]
            if x > cut:
                p = np.exp((x - top) / eps)
                if position < columns.size:
                    columns[position], mass[position] = j, p
                position += 1
                total += p
        for c in range(first, min(position, columns.size)):
            mass[c] *= a[i] / total
            sums[columns[c]] += mass[c]
        start[i + 1] = position
        f[i] = eps * (np.log(a[i]) - np.log(total)) - top


@compiled
def _accumulate(
    start: IntArray,
    columns: IntArray,
    mass: FloatArray,
    a: FloatArray,
    kept: float,
    H: FloatArray,
) -> None:
    """Add diag(p) - p p^T / sum p for the kept entries p of each row, to the lower triangle."""
    column, p = np.empty(len(H), np.int64), np.empty(len(H))
    for i in range(a.size):
        size, total = 0, 0.0
        for c in range(start[i], start[i + 1]):
            if mass[c] > kept * a[i]:
                column[size], p[size] = columns[c], mass[c]
                total += mass[c]
                size += 1
        for c in range(size):
            share = p[c] / total
            H[column[c], column[c]] += p[c]
            for d in range(c + 1):
                H[column[c], column[d]] -= share * p[d]
