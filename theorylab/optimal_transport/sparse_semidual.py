r"""Sparse plans: quadratic regularisation and at most k entries a column, by Newton's method on the
semi-dual.

Columns :math:`p_j\ge0` of the plan have sum :math:`b_j`, rows have sum :math:`a_i`. Of

.. math:: P_k=\min_P\;\langle C,P\rangle+\frac\gamma2\|P\|_F^2\quad\text{with at most }k\text{
   nonzeros in each column},

which is not convex, the semi-dual is the concave maximum

.. math:: D_k=\max_f\;\langle f,a\rangle-\sum_j\Omega_{b_j}^*(f-c_j),\qquad
   \Omega_b^*(s)=\max\{\langle s,t\rangle-\frac\gamma2\|t\|^2:t\ge0,\;1^\top t=b,\;\|t\|_0\le k\},

whose inner maximum projects the k largest entries of s on a simplex. Its dual in turn (derived
here) has the regulariser :math:`\frac\gamma2\sum_j\|p_j\|_{k}^2` with the k-support norm

.. math:: \|p\|_{k}^2=\min\Big\{\sum_i\frac{p_i^2}{z_i}:0\le z\le1,\;1^\top z\le k\Big\},

so that every plan with the right marginals bounds :math:`D_k` from above, and a plan with at most k
nonzeros a column that meets the bound also solves the problem with the constraint. For k = n rows
:math:`D_n` is quadratically regularised transport; for k = 1 the regulariser is constant and
:math:`D_1=\mathrm{OT}+\frac\gamma2\|b\|^2`.

:math:`D_k` has kinks where the k-th and (k+1)-th scores tie. The solver adds
:math:`\frac\delta2\|P-P_{old}\|^2` (proximal point), which makes the semi-dual piecewise quadratic
with a continuous gradient, takes regularised Newton steps, and lets :math:`\delta` fall to nothing.

Theorems: liu2022-sparsity (semi-dual, interpolation); the bidual is derived here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.sparse.linalg import splu

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.compiled import compiled
from theorylab.optimal_transport._problem import (
    Problem,
    TransportPlan,
    TransportStatus,
    as_problem,
)

__all__ = ["conjugate_jump_bound", "quadratic_plan", "sparse_plan", "support_norm", "top_k_plan"]

IntArray = NDArray[np.int64]

_FALL = 4.0  # of the proximal weight, from one stage to the next
_HARD = 25  # Newton steps of a stage after which the weight stays
_EXACT = 1e-11  # marginal error at which a plan is not filled in, so that its support is exact
_FILLED = 12  # entries a row, beyond which a matrix is factored as a dense one
_TINY = np.finfo(np.float64).tiny


def quadratic_plan(
    a: ArrayLike,
    b: ArrayLike,
    C: ArrayLike,
    gamma: float,
    *,
    tol: float = 1e-9,
    max_iter: int = 500,
) -> TransportPlan:
    r"""Return the plan that minimises :math:`\langle C,P\rangle+\frac\gamma2\|P\|_F^2`.

    The optimum is unique and sparse: :math:`P_{ij}=(f_i+g_j-C_{ij})_+/\gamma`.

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

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import quadratic_plan
    >>> x = np.arange(3.0)
    >>> w = np.full(3, 1 / 3)
    >>> quadratic_plan(w, w, (x[:, None] - x) ** 2, 1e-3).plan.nnz
    3
    """
    return _solve(as_problem(a, b, C), gamma, None, tol, max_iter)


def sparse_plan(
    a: ArrayLike,
    b: ArrayLike,
    C: ArrayLike,
    gamma: float,
    *,
    k: int,
    tol: float = 1e-9,
    max_iter: int = 500,
) -> TransportPlan:
    r"""Return a plan that attains the value :math:`D_k` of transport with at most k nonzeros in
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
    return _solve(as_problem(a, b, C), gamma, as_count(k, "k"), tol, max_iter)


@refuses_overflow("f", "C", "gamma")
def top_k_plan(
    f: ArrayLike, b: ArrayLike, C: ArrayLike, gamma: float, *, k: int
) -> tuple[FloatArray, FloatArray]:
    r"""Return the inner maxima of the semi-dual at f: the plan whose columns project the k largest
    scores :math:`f_i-C_{ij}` on the simplex of size :math:`b_j`, and the values
    :math:`\Omega^*_{b_j}(f-c_j)`.

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
    columns = _Columns(C.T, b, as_real(gamma, "gamma", above=0.0), as_count(k, "k"))
    columns.project(f, 0.0)
    plan: FloatArray = np.zeros(C.shape)
    plan[columns.rows, columns.cols] = columns.mass
    return plan, columns.value


@refuses_overflow("p")
def support_norm(p: ArrayLike, *, k: int) -> float:
    r"""Return the squared k-support norm of a non-negative vector (module docstring).

    It is :math:`(1^\top p)^2` for k = 1 and :math:`\|p\|_2^2` where p has at most k nonzeros;
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
    return _support_norms(np.zeros(p.size, np.int64), p, as_count(k, "k"), 1)


def conjugate_jump_bound(mass: float, *, k: int, swaps: int = 1) -> float:
    r"""Return :math:`\sqrt{2r}\,b/k`, the largest jump of the gradient of :math:`\Omega_b^*` where
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
    problem: Problem, gamma: float, k: int | None, tol: float, max_iter: int
) -> TransportPlan:
    gamma = problem.scaled(gamma, "gamma")
    tol = as_real(tol, "tol", minimum=0.0)
    max_iter = as_count(max_iter, "max_iter")
    a, b, C = problem.a, problem.b, problem.C
    n, m = C.shape
    plain = _Columns(C.T, b, gamma, n if k is None else min(k, n))
    shifted = _Columns(C.T, b, gamma, plain.k)
    f = np.zeros(n)
    # At first a column reaches over a tenth of the range of costs; then the weight falls.
    delta = 0.1 * max(problem.spread, gamma * b.mean()) / b.mean()
    # Rounding of the scores, in marginal error; entries and errors below it are not mended.
    noise = max(_EXACT, np.finfo(np.float64).eps * problem.spread * (n + m) / gamma)
    steps, inner, gap, status = 0, 1e-2, np.inf, TransportStatus.STOPPED
    while status is TransportStatus.STOPPED and steps < max_iter:
        budget = min(max_iter - steps, _HARD if gap <= tol else max_iter)
        f, taken, error = _newton(shifted, f, a, delta, inner, budget)
        # With the gap closed, rounding may hold the error above the noise (large gamma).
        settled = error <= noise or (inner < error <= min(tol, 100 * noise))
        steps += max(taken, 1)
        rows, cols, mass = _feasible(*shifted.entries(noise), a, b, noise)
        dual = float(f @ a) - plain.project(f, 0.0)
        cost = float(mass @ C[rows, cols])
        value = cost + gamma / 2 * _support_norms(cols, mass, plain.k, m)
        plan = sparse.csr_array((mass, (rows, cols)), shape=(n, m))
        gap = (value - dual) / max(problem.size(plan, cost, value), _TINY)
        exact = plain.k < n or delta == 0  # strictly convex problems end without the proximal term
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
    columns: "_Columns", f: FloatArray, a: FloatArray, delta: float, tol: float, budget: int
) -> tuple[FloatArray, int, float]:
    """Maximise the proximal semi-dual from f by regularised Newton steps until the l1 norm of its
    gradient is at most tol; return the point, the steps taken and that norm."""
    value, slope = columns.semidual(f, a, delta)
    error, damping, steps = float(abs(slope).sum()), 0.1, 0
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


class _Columns:
    """The inner maxima at one potential, column by column: entries sorted by score, of which the
    first ``full`` have z = 1 and the others 0 < z < 1 in the k-support norm."""

    def __init__(self, scores: FloatArray, b: FloatArray, gamma: float, k: int):
        self.scores = np.array(scores, order="C")
        self.b, self.gamma, self.k = b, gamma, k
        m, self.n = self.scores.shape
        self.start = np.zeros(m + 1, np.int64)
        self.full = np.zeros(m, np.int64)
        self.nu, self.tau = np.zeros(m), np.zeros(m)
        self._scratch = np.empty(self.n, np.int64), np.empty(self.n)
        self._row, self._score = np.empty(8 * (self.n + m), np.int64), np.empty(8 * (self.n + m))

    def project(self, f: FloatArray, delta: float) -> float:
        """Move to f; return the sum of the inner maxima."""
        G = self.gamma + delta
        state = self.start, self.full, self.nu, self.tau, *self._scratch
        while True:
            _project(
                f, self.scores, self.b, self.k, self.gamma, delta, *state, self._row, self._score
            )
            end = self.start[-1]
            if end <= self._row.size:
                break
            self._row, self._score = np.empty(2 * end, np.int64), np.empty(2 * end)
        self.rows, score = self._row[:end], self._score[:end]
        self.cols = np.repeat(np.arange(self.b.size), np.diff(self.start))
        self.mixed = np.arange(end) >= (self.start[:-1] + self.full)[self.cols]
        nu, tau = self.nu[self.cols], self.tau[self.cols]
        above = np.maximum(score - nu - np.where(self.mixed, self.gamma * tau, 0.0), 0.0)
        self.mass = above / np.where(self.mixed, max(delta, _TINY), G)
        cost = np.where(self.mixed, self.gamma * tau + delta * self.mass, G * self.mass)
        self.value = np.bincount(self.cols, self.mass * (score - cost / 2), self.b.size).astype(
            float
        )
        return float(self.value.sum())

    def semidual(self, f: FloatArray, a: FloatArray, delta: float) -> tuple[float, FloatArray]:
        total = self.project(f, delta)
        return float(f @ a) - total, a - np.bincount(self.rows, self.mass, self.n)

    def entries(self, share: float) -> tuple[IntArray, IntArray, FloatArray]:
        kept = self.mass > share * self.b[self.cols]
        return self.rows[kept], self.cols[kept], self.mass[kept]

    def curvature(self, delta: float) -> "_Curvature":
        """Sum the Jacobians of the columns: diag(p, 1/delta) - v v^T / (1^T v) - block, with v = p
        on the full entries and w on the mixed ones, the block constant on the latter."""
        p = float(1 / (self.gamma + delta))
        spare = self.k - self.full
        mixed = np.diff(self.start) - self.full
        h = np.where(mixed > 0, mixed * self.gamma + delta * spare, 1.0)
        w: FloatArray = np.where(mixed > 0, spare / h, 0.0)
        v: FloatArray = np.where(self.mixed, w[self.cols], p)
        weights: FloatArray = 1 / (self.full * p + mixed * w)
        diagonal = np.bincount(self.rows, np.where(self.mixed, 1 / max(delta, _TINY), p), self.n)
        matrix = sparse.diags_array(diagonal, format="csc")
        matrix = matrix - self._square(v, weights)
        if self.mixed.any():
            block: FloatArray = np.where(mixed > 0, self.gamma / (max(delta, _TINY) * h), 0.0)
            matrix = matrix - self._square(self.mixed.astype(np.float64), block)
        return _Curvature(matrix.toarray() if matrix.nnz > _FILLED * self.n else matrix)

    def _square(self, values: FloatArray, weights: FloatArray) -> sparse.csc_array:
        """Return the weighted sum of the squares of columns with these values at the entries."""
        shape = self.n, self.b.size
        root = sparse.csc_array(
            (values * np.sqrt(weights)[self.cols], self.rows, self.start), shape
        )
        if root.nnz > 0.2 * self.n * self.b.size:
            dense = root.toarray()
            return sparse.csc_array(dense @ dense.T)
        return root @ root.T


@dataclass(frozen=True, eq=False)
class _Curvature:
    """Minus the Hessian of the semi-dual, positive semidefinite, dense or sparse."""

    matrix: FloatArray | sparse.csc_array

    def solve(self, slope: FloatArray, damping: float) -> FloatArray:
        """Return a regularised Newton step; what rounding leaves singular is damped more."""
        diagonal = self.matrix.diagonal()
        floor = np.finfo(np.float64).eps * float(diagonal.max())
        while True:
            if isinstance(self.matrix, np.ndarray):
                shifted = self.matrix.copy()
                shifted.flat[:: slope.size + 1] += damping
                factor, singular = dpotrf(shifted.T, lower=1, overwrite_a=1, clean=0)
                if not singular:
                    step: FloatArray = dpotrs(factor, slope, lower=1)[0]
                    return step
            else:
                try:
                    return splu(
                        self.matrix + damping * sparse.eye_array(slope.size, format="csc"),
                        "MMD_AT_PLUS_A",
                        diag_pivot_thresh=0.0,
                        options={"SymmetricMode": True},
                    ).solve(slope)
                except RuntimeError:
                    pass
            damping = max(16 * damping, floor)


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


def _support_norms(cols: IntArray, mass: FloatArray, k: int, m: int) -> float:
    """Sum over the columns of their squared k-support norms."""
    order = np.lexsort((-mass, cols))
    counts = np.bincount(cols, minlength=m)
    total = float(mass @ mass)
    start = np.concatenate([[0], np.cumsum(counts)])
    for j in np.flatnonzero(counts > k):
        p = mass[order[start[j] : start[j + 1]]]
        # The first entries have z = 1, as long as they exceed the level of the others.
        rest = np.cumsum(p[::-1])[::-1][:k]
        level = rest / np.arange(k, 0, -1)
        r = int(np.argmax(p[:k] <= level * (1 + 1e-15)))
        total += float(rest[r] * level[r] - p[r:] @ p[r:])
    return total


@compiled
def _top(f: FloatArray, scores: FloatArray, reach: float, row: IntArray, score: FloatArray) -> int:
    """Collect the rows whose score is within reach of the largest, sorted descending (Shell): as
    an entry is at most b, no other has mass."""
    top = -np.inf
    for i in range(f.size):
        top = max(top, f[i] - scores[i])
    size = 0
    for i in range(f.size):
        x = f[i] - scores[i]
        if x >= top - reach:
            row[size], score[size] = i, x
            size += 1
    gap = size // 2
    while gap > 0:
        for c in range(gap, size):
            x, i = score[c], row[c]
            d = c
            while d >= gap and score[d - gap] < x:
                score[d], row[d] = score[d - gap], row[d - gap]
                d -= gap
            score[d], row[d] = x, i
        gap = gap * 5 // 11 if gap > 2 else gap - 1
    return size


@compiled
def _levels(
    score: FloatArray, size: int, k: int, gamma: float, delta: float, b: float
) -> tuple[int, int, float, float]:
    """Solve one column with sorted scores: return (r, e, nu, tau). Entries t of the first r are
    (s - nu) / (gamma + delta) >= tau, those up to e (s - nu - gamma tau) / delta in (0, tau)."""
    G = gamma + delta
    total, active, nu = 0.0, 0, 0.0
    for c in range(min(size, k)):
        if c > 0 and score[c] * c - total + G * b <= 0:
            break
        total += score[c]
        active = c + 1
        nu = (total - G * b) / active
    # The k largest keep all mass if some level tau separates them from the next score.
    if active < k or size == k or delta == 0 or G * (score[k] - nu) <= gamma * (score[k - 1] - nu):
        return active, active, nu, 0.0
    best, answer = np.inf, (active, active, nu, 0.0)
    upto = total
    for e in range(k + 1, size + 1):
        upto += score[e - 1]
        top = total
        for r in range(k - 1, -1, -1):
            top -= score[r]
            h = (e - r) * gamma + delta * (k - r)
            w = (k - r) / h
            nu = (top / G + w * (upto - top) - b) / (r / G + w * (e - r))
            tau = (upto - top - (e - r) * nu) / h
            off = max(score[r] - nu - G * tau, gamma * tau - score[e - 1] + nu)
            off = max(off, -tau)
            if r > 0:
                off = max(off, G * tau - score[r - 1] + nu)
            if e < size:
                off = max(off, score[e] - nu - gamma * tau)
            if off < best:
                best, answer = off, (r, e, nu, tau)
            if off <= 0:
                return answer
    return answer


@compiled
def _project(
    f: FloatArray,
    scores: FloatArray,
    b: FloatArray,
    k: int,
    gamma: float,
    delta: float,
    start: IntArray,
    full: IntArray,
    nu: FloatArray,
    tau: FloatArray,
    row: IntArray,
    score: FloatArray,
    rows: IntArray,
    entries: FloatArray,
) -> None:
    for j in range(b.size):
        size = _top(f, scores[j], (gamma + delta) * b[j], row, score)
        full[j], end, nu[j], tau[j] = _levels(score, size, k, gamma, delta, b[j])
        start[j + 1] = start[j] + end
        for c in range(min(end, rows.size - start[j])):
            rows[start[j] + c], entries[start[j] + c] = row[c], score[c]
