r"""Sparse plans: quadratic regularisation and at most k entries a column, by Newton's method on the
semi-dual.

Columns $p_j\ge0$ of the plan have sum $b_j$, rows have sum $a_i$. Of

$$P_k=\min_P\;\langle C,P\rangle+\frac\gamma2\|P\|_F^2\quad\text{with at most }k\text{
nonzeros in each column},$$

which is not convex, the semi-dual is the concave maximum

$$D_k=\max_f\;\langle f,a\rangle-\sum_j\Omega_{b_j}^*(f-c_j),\qquad
\Omega_b^*(s)=\max\{\langle s,t\rangle-\frac\gamma2\|t\|^2:t\ge0,\;1^\top t=b,\;\|t\|_0\le k\},$$

whose inner maximum projects the k largest entries of s on a simplex. Its dual in turn (derived
here) has the regulariser $\frac\gamma2\sum_j\|p_j\|_{k}^2$ with the k-support norm

$$\|p\|_{k}^2=\min\Big\{\sum_i\frac{p_i^2}{z_i}:0\le z\le1,\;1^\top z\le k\Big\},$$

so that every plan with the right marginals bounds $D_k$ from above, and a plan with at most k
nonzeros a column that meets the bound also solves the problem with the constraint. For k = n rows
$D_n$ is quadratically regularised transport; for k = 1 the regulariser is constant and
$D_1=\mathrm{OT}+\frac\gamma2\|b\|^2$.

$D_k$ has kinks where the k-th and (k+1)-th scores tie. The solver adds
$\frac\delta2\|P-P_{old}\|^2$ (proximal point), which makes the semi-dual piecewise quadratic
with a continuous gradient, takes regularised Newton steps, and lets $\delta$ fall to nothing.

Theorems: liu2022-sparsity (semi-dual, interpolation); the bidual is derived here."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.progress import Callback, watcher
from theorylab.optimal_transport._problem import (
    Problem,
    TransportPlan,
    TransportStatus,
    as_problem,
)
from theorylab.optimal_transport._top_k_columns import Columns, IntArray, support_norms
from theorylab.optimal_transport.sinkhorn import scale

__all__ = ["conjugate_jump_bound", "quadratic_plan", "sparse_plan", "support_norm", "top_k_plan"]

_FALL = 2.0  # of the proximal weight, from one stage to the next
_BLUR = 200  # entropic weights in the range of costs, at the start
_HARD = 25  # Newton steps of a stage after which the weight stays
_EXACT = 1e-11  # marginal error at which a plan is not filled in, so that its support is exact
_TINY = np.finfo(np.float64).tiny


def quadratic_plan(
    a: ArrayLike,
    b: ArrayLike,
    C: ArrayLike,
    gamma: float,
    *,
    tol: float = 1e-9,
    max_iter: int = 500,
    callback: Callback | None = None,
) -> TransportPlan:
    r"""Return the plan that minimises $\langle C,P\rangle+\frac\gamma2\|P\|_F^2$.

    The optimum is unique and sparse: $P_{ij}=(f_i+g_j-C_{ij})_+/\gamma$.

    Parameters
    ----------
    a, b
        (n,) and (m,) weights that sum to one.
    C
        (n, m) costs.
    gamma
        Weight of the square, positive, in units of C (POT's ``reg``).
    tol
        Relative duality gap, and marginal error before rounding, at which to stop.
    max_iter
        Newton steps over all stages.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each feasible plan, after a
        run of Newton steps: its value, and its gap; where it returns True, the solver stops.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import quadratic_plan
    >>> x = np.arange(3.0)
    >>> w = np.full(3, 1 / 3)
    >>> quadratic_plan(w, w, (x[:, None] - x) ** 2, 1e-3).plan.nnz
    3
    """
    return _solve(as_problem(a, b, C), gamma, None, tol, max_iter, callback)


def sparse_plan(
    a: ArrayLike,
    b: ArrayLike,
    C: ArrayLike,
    gamma: float,
    *,
    k: int,
    tol: float = 1e-9,
    max_iter: int = 500,
    callback: Callback | None = None,
) -> TransportPlan:
    r"""Return a plan that attains the value $D_k$ of transport with at most k nonzeros in
    each column (module docstring), as in the routing of tokens (rows) to experts (columns).

    ``value`` is the objective of the convex relaxation, k-support norm included. The plan has the
    exact marginals; where scores tie at the optimum, columns have more than k nonzeros, and the
    problem with the constraint may have no solution. ``plan.count_nonzero(axis=0).max() <= k``
    with a small gap certifies a global optimum of it.

    Parameters
    ----------
    a, b
        (n,) and (m,) weights that sum to one.
    C
        (n, m) costs.
    gamma
        Weight of the square, positive, in units of C (POT's ``reg``).
    k
        Nonzeros of a column; k >= n is the quadratic problem.
    tol
        Relative duality gap, and marginal error before rounding, at which to stop.
    max_iter
        Newton steps over all stages.
    callback
        As in :func:`quadratic_plan`.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import sparse_plan
    >>> tokens, experts = np.random.default_rng(0).normal(size=(2, 12, 2))
    >>> C = ((tokens[:, None] - experts[:3]) ** 2).sum(2)
    >>> routed = sparse_plan(np.full(12, 1 / 12), np.full(3, 1 / 3), C, 1.0, k=4)
    >>> int((routed.plan.toarray() > 0).sum(0).max())
    4
    """
    return _solve(as_problem(a, b, C), gamma, as_count(k, "k"), tol, max_iter, callback)


@refuses_overflow("f", "C", "gamma")
def top_k_plan(
    f: ArrayLike, b: ArrayLike, C: ArrayLike, gamma: float, *, k: int
) -> tuple[FloatArray, FloatArray]:
    r"""Return the inner maxima of the semi-dual at f: the plan whose columns project the k largest
    scores $f_i-C_{ij}$ on the simplex of size $b_j$, and the values
    $\Omega^*_{b_j}(f-c_j)$.

    The semi-dual is ``f @ a - values.sum()`` and a - plan.sum(1) a supergradient of it.

    Parameters
    ----------
    f
        (n,) potential.
    b
        (m,) positive masses; any sum.
    C
        (n, m) costs.
    gamma
        Weight of the square, positive.
    k
        Nonzeros of a column.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import top_k_plan
    >>> plan, values = top_k_plan([3.0, 2.5, 0.0], [1.0], np.zeros((3, 1)), 1.0, k=2)
    >>> plan.ravel().tolist(), values.tolist()
    ([0.75, 0.25, 0.0], [2.5625])
    """
    f = as_array(f, "f", ndim=1)
    b = as_array(b, "b", ndim=1, positive=True)
    C = as_array(C, "C", shape=(f.size, b.size))
    columns = Columns(C.T, b, as_real(gamma, "gamma", above=0.0), as_count(k, "k"))
    columns.project(f, 0.0)
    plan: FloatArray = np.zeros(C.shape)
    plan[columns.rows, columns.cols] = columns.mass
    return plan, columns.value


@refuses_overflow("p")
def support_norm(p: ArrayLike, *, k: int) -> float:
    r"""Return the squared k-support norm of a non-negative vector (module docstring).

    It is $(1^\top p)^2$ for k = 1 and $\|p\|_2^2$ where p has at most k nonzeros;
    half of it is the convex envelope of half the squared norm on k-sparse vectors of equal sum.

    Parameters
    ----------
    p
        (n,) non-negative.
    k
        Number of nonzeros that cost no more than the squared norm.

    Examples
    --------
    >>> from theorylab.optimal_transport import support_norm
    >>> support_norm([1.0, 1.0, 1.0, 1.0], k=2)
    8.0
    """
    p = as_array(p, "p", ndim=1, nonnegative=True)
    p = p[p > 0]
    return support_norms(np.zeros(p.size, np.int64), p, as_count(k, "k"), 1)


def conjugate_jump_bound(mass: float, *, k: int, swaps: int = 1) -> float:
    r"""Return $\sqrt{2r}\,b/k$, the largest jump of the gradient of $\Omega_b^*$ where
    the last r of the k largest scores tie with the r next: entries of at most b/k change places
    (derived).

    Parameters
    ----------
    mass
        b, the mass of the column.
    k
        Nonzeros of a column, fewer than the rows.
    swaps
        r, at most k: 1 where just two scores tie, min(k, n - k) where all n do.

    Examples
    --------
    >>> from theorylab.optimal_transport import conjugate_jump_bound
    >>> round(conjugate_jump_bound(1.0, k=2), 12)
    0.707106781187
    """
    k, swaps = as_count(k, "k"), as_count(swaps, "swaps")
    if swaps > k:
        raise ValueError(f"swaps: expected at most k = {k}, got {swaps}")
    return float(np.sqrt(2 * swaps) * as_real(mass, "mass", above=0.0) / k)


def _solve(
    problem: Problem,
    gamma: float,
    k: int | None,
    tol: float,
    max_iter: int,
    callback: Callback | None,
) -> TransportPlan:
    gamma = problem.scaled(gamma, "gamma")
    tol = as_real(tol, "tol", minimum=0.0)
    max_iter = as_count(max_iter, "max_iter")
    a, b, C = problem.a, problem.b, problem.C
    n, m = C.shape
    plain = Columns(C.T, b, gamma, n if k is None else min(k, n))
    shifted = Columns(C.T, b, gamma, plain.k)
    # Entropic potentials, and columns that reach as far as those blur; then the weight falls.
    blur = (problem.spread or 1.0) / _BLUR
    f = scale(a, b, C, blur, np.zeros(n), np.zeros(m), 0.1, 100)[1]
    delta = max(blur / b.mean(), gamma)
    # Rounding of the scores, in marginal error; entries and errors below it are not mended.
    noise = max(_EXACT, np.finfo(np.float64).eps * problem.spread * (n + m) / gamma)
    steps, inner, gap, status = 0, 1e-2, np.inf, TransportStatus.NOT_CONVERGED
    stops = watcher(callback)
    while status is TransportStatus.NOT_CONVERGED and steps < max_iter:
        budget = min(max_iter - steps, _HARD if gap <= tol else max_iter)
        f, taken, error = _newton(shifted, f, a, delta, inner, budget)
        # With the gap closed, rounding may hold the error above the noise (large gamma).
        settled = error <= noise or (inner < error <= min(tol, 100 * noise))
        steps += max(taken, 1)
        rows, cols, mass = _feasible(*shifted.entries(noise), a, b, noise)
        dual = float(f @ a) - plain.project(f, 0.0)
        cost = float(mass @ C[rows, cols])
        value = cost + gamma / 2 * support_norms(cols, mass, plain.k, m)
        plan = sparse.csr_array((mass, (rows, cols)), shape=(n, m))
        gap = (value - dual) / max(problem.size(plan, cost, value), _TINY)
        exact = plain.k < n or delta == 0  # strictly convex problems end without the proximal term
        if stops(steps, problem.offset + problem.unit * value, gap):
            status = TransportStatus.STOPPED
            break
        if gap <= tol and settled and exact:
            status = TransportStatus.CONVERGED
        elif delta <= 1e-12 * gamma:
            status = TransportStatus.ROUNDING
        if taken == 0:  # an error within the tolerance leaves f as it is: ask for more
            inner = min(inner, error / 4)
        inner = max(noise / 10, min(inner, 0.1 * gap)) if gap > tol else noise / 10
        if taken < _HARD:
            delta /= _FALL
        if plain.k == n and (gap <= tol or delta < gamma / 50):
            delta, inner = 0.0, noise / 10
        np.copyto(shifted.scores, plain.scores)
        shifted.scores[cols, rows] -= delta * mass
    error = float(abs(plan.sum(axis=1) - a).sum() + abs(plan.sum(axis=0) - b).sum())
    return problem.finish(
        plan, f, -plain.nu, value, dual, cost, steps, status, marginal_error=error
    )


def _newton(
    columns: Columns, f: FloatArray, a: FloatArray, delta: float, tol: float, budget: int
) -> tuple[FloatArray, int, float]:
    """Maximise the proximal semi-dual from f by regularised Newton steps until the l1 norm of its
    gradient is at most tol; return the point, the steps taken and that norm."""
    value, slope = columns.semidual(f, a, delta)
    error, damping, steps = float(abs(slope).sum()), 1.0, 0
    while error > tol and steps < budget and damping < 1e12:
        curvature = columns.curvature(delta)
        steps += 1
        while damping < 1e12:
            step = curvature.solve(slope, max(damping * error, 1e-12) / (columns.gamma + delta))
            trial, new_slope = columns.semidual(f + step, a, delta)
            gain, left = float(slope @ step), float(new_slope @ step)
            new_error = float(abs(new_slope).sum())
            # Differences of values drown in rounding near the end; slopes do not.
            level = trial >= value - 1e-12 * (1 + float(abs(f + step).max()))
            if left >= 0 or (level and new_error < error / 2) or trial - value >= gain / 20:
                break
            damping *= 4
        else:
            columns.semidual(f, a, delta)
            break
        if abs(left) < gain / 2:
            damping /= 4
        f, value, slope, error = f + step, trial, new_slope, new_error
    return f, steps, error


def _feasible(
    rows: IntArray, cols: IntArray, mass: FloatArray, a: FloatArray, b: FloatArray, share: float
) -> tuple[IntArray, IntArray, FloatArray]:
    """Scale rows and columns down to their marginals, then fill what is missing corner by
    corner, where it is more than that share of the marginal."""
    mass = mass * np.minimum(1.0, a / np.maximum(np.bincount(rows, mass, a.size), _TINY))[rows]
    mass *= np.minimum(1.0, b / np.maximum(np.bincount(cols, mass, b.size), _TINY))[cols]
    missing = a - np.bincount(rows, mass, a.size)
    lacking = b - np.bincount(cols, mass, b.size)
    i, j = np.flatnonzero(missing > share * a), np.flatnonzero(lacking > share * b)
    if i.size == 0 or j.size == 0:
        return rows, cols, mass
    ends = np.cumsum(missing[i]), np.cumsum(lacking[j])
    cuts = np.unique(np.minimum(np.concatenate(ends), min(ends[0][-1], ends[1][-1])))
    ri, cj = (np.searchsorted(end, cuts) for end in ends)
    fill = sparse.coo_array(
        (
            np.concatenate([mass, np.diff(cuts, prepend=0.0)]),
            (np.concatenate([rows, i[ri]]), np.concatenate([cols, j[cj]])),
        ),
        shape=(a.size, b.size),
    )
    fill.sum_duplicates()
    return fill.row.astype(np.int64), fill.col.astype(np.int64), fill.data
