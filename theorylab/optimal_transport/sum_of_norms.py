r"""Class-structured plans: transport with a sum of norms of differences of rows and of columns.

For weights a, b the plan minimises

$$\langle C,X\rangle+\lambda\,n\sum_{i<k}\|a_kX_{i\cdot}-a_iX_{k\cdot}\|_2
+\lambda\,m\sum_{j<l}\|b_lX_{\cdot j}-b_jX_{\cdot l}\|_2$$

over $X\ge0$ with these marginals, n and m the numbers of points with mass: for equal weights
the norms are those of plain differences, and the plan times n solves the problem with unit sums and
the same $\lambda$. Rows of a class fuse without being told which they are.

Let there be K classes of p points on either side, $C_{ij}=M_{aa}+r_i+c_j+R_{ij}$ inside class
a with R doubly centred, $\rho_a,\kappa_a$ the largest distances between two rows and two
columns of R there. Outside let $N_{ab}=\min(C_{ij}-r_i-c_j)$, M be the block means of C and
$\mu^\star(A)$ the least cycle mean of $A_{ab}-M_{aa}$. The plan that is constant on the
blocks is optimal if (derived)

$$\max_a\frac{\rho_a\kappa_a}{p(\rho_a+\kappa_a)}\le\lambda\le
\frac{\mu^\star(N)}{K\sqrt{2p}},$$

and not beyond $\mu^\star(M)/(K\sqrt{2p})$: the residual is split between the differences of
rows and of columns in proportion to $\kappa_a,\rho_a$. Strictly inside it is the only
solution. For K = 1 only the lower end is left: beyond it all points fuse.

The paper names an accelerated proximal method. All norms together have no closed proximal map, and
nothing here is smooth or strongly convex, so the solver is another: over-relaxed alternating
directions of multipliers (ADMM, with a proximal term that makes the plan's step closed), which take
the proximal map of each norm (closed form), the projection on $X\ge0$ and that on the
marginals (closed form up to a system of n + m unknowns). It stops by the duality gap: the dual
variables S, T of the norms move the costs, and the transport value for the moved costs bounds the
optimum from below.

Theorem: rahbar2019-recovery (recovery under geometric conditions); the window is derived here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.budgets import steps_in_a_minute
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent
from theorylab.optimal_transport._class_splitting import (
    Pairs,
    Splitting,
    norms_of_differences,
    rounded,
    shrinkage,
)
from theorylab.optimal_transport._problem import (
    TransportPlan,
    TransportStatus,
    as_problem,
)
from theorylab.optimal_transport.exact import exact_plan

__all__ = [
    "RecoveryCertificate",
    "RecoveryWindow",
    "class_penalty",
    "class_plan",
    "marginal_projection",
    "pair_prox",
    "recovery_certificate",
    "recovery_window",
]

_CHECK = 50  # iterations between two bounds of the optimum
_LARGEST = 2e8  # entries of all differences, of which three copies are kept
_TINY = np.finfo(np.float64).tiny


@result
class RecoveryWindow:
    """Weights at which the block plan is optimal: from ``lower`` to ``upper`` surely, beyond
    ``necessary`` never. Empty where lower > upper."""

    lower: float
    upper: float
    necessary: float


@result
class RecoveryCertificate:
    """Subgradients that make the block plan optimal.

    Attributes
    ----------
    pair_norm
        Largest norm of the subgradient of a pair inside a class, in units of the weight: the plan
        is optimal if it is at most 1 and ``slack`` is not negative.
    slack
        Least slack of an entry outside the blocks, in units of C.
    """

    pair_norm: float
    slack: float

    @property
    def optimal(self) -> bool:
        """Whether the block plan is optimal."""
        return self.pair_norm <= 1 and self.slack >= 0

    @property
    def unique(self) -> bool:
        """Whether it is the only solution: the complementarity is strict."""
        return self.pair_norm < 1 and self.slack > 0


def class_plan(
    a: ArrayLike,
    b: ArrayLike,
    C: ArrayLike,
    lam: float,
    *,
    labels: ArrayLike | None = None,
    tol: float = 1e-8,
    max_iter: int | None = None,
    callback: Callback | None = None,
) -> TransportPlan:
    r"""Return the plan that minimises the cost plus a sum of norms of differences (module
    docstring), by over-relaxed ADMM.

    Points without mass do not count. ``potentials`` are those of the transport problem with the
    costs that the norms' dual variables move.

    Parameters
    ----------
    a, b
        (n,) and (m,) weights that sum to one.
    C
        (n, m) costs.
    lam
        Weight of the norms, positive, in units of C.
    labels
        (n,) whole numbers, the classes of the rows if they are known: rows are then paired inside
        a class only. By default all are, and the classes are found.
    tol
        Relative duality gap at which to stop.
    max_iter
        Largest number of iterations; by default 20,000, or what takes about a minute.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each plan that is judged,
        every 50 iterations: the best value, and its gap; where it returns True, the solver stops.

    Raises
    ------
    ValueError
        For malformed weights or costs, or too many points: from about 580 a side on, the
        differences of all pairs take more than 5 GB.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import class_plan
    >>> x = np.array([0.0, 0.1, 3.0, 3.1])
    >>> w = np.full(4, 0.25)
    >>> class_plan(w, w, abs(x[:, None] - x), 0.2).plan.round(6).tolist()[0]
    [0.125, 0.125, 0.0, 0.0]
    """
    problem = as_problem(a, b, C)
    lam = problem.scaled(lam, "lam")
    tol = as_real(tol, "tol", above=0.0)
    max_iter = None if max_iter is None else as_count(max_iter, "max_iter")
    classes = None if labels is None else _as_labels(labels, problem.shape[0])[problem.rows]
    a, b, C = problem.a, problem.b, problem.C
    counts = [a.size] if classes is None else np.unique(classes, return_counts=True)[1]
    pairs = sum(int(k) * (int(k) - 1) // 2 for k in counts), b.size * (b.size - 1) // 2
    moved_entries = pairs[0] * b.size + pairs[1] * a.size
    if moved_entries > _LARGEST:
        raise ValueError(
            f"C: expected at most {_LARGEST:.0e} entries in the differences of pairs of rows and "
            f"of columns, got {moved_entries:.1e} for {a.size} x {b.size} points; merge some first"
        )
    rows, columns = Pairs(a, lam, classes), Pairs(b, lam, None)
    if max_iter is None:
        # Measured: an iteration, and its share of the linear program that judges a leg of them.
        max_iter = steps_in_a_minute(1e5 + 140 * C.size + 15 * moved_entries, most=20_000)
    splitting = Splitting(a, b, C, rows, columns)
    best, gap, status, steps = np.inf, np.inf, TransportStatus.NOT_CONVERGED, 0
    lower = -np.inf
    stops = watcher(callback)
    while status is TransportStatus.NOT_CONVERGED and steps < max_iter:
        taken = min(_CHECK, max_iter - steps)
        splitting.run(taken, adapt=steps < max_iter // 2)
        steps += taken
        candidate = rounded(splitting.Y, a, b)
        cost = float((C * candidate).sum())
        value = cost + rows.value(candidate) + columns.value(candidate.T)
        if value < best:
            best, plan, best_cost = value, candidate, cost
        moved = exact_plan(a, b, splitting.moved_costs())
        if moved.dual_value > lower:
            lower, (f, g) = moved.dual_value, moved.potentials
        gap = (best - lower) / max(problem.size(plan, best_cost, best), _TINY)
        if stops(steps, problem.offset + problem.unit * best, gap):
            status = TransportStatus.STOPPED
        elif gap <= tol:
            status = TransportStatus.CONVERGED
    error = float(abs(plan.sum(axis=1) - a).sum() + abs(plan.sum(axis=0) - b).sum())
    return problem.finish(plan, f, g, best, lower, best_cost, steps, status, marginal_error=error)


def class_penalty(plan: ArrayLike, *, labels: ArrayLike | None = None) -> float:
    r"""Return the sum of norms of a plan (module docstring), for its own marginals.

    Parameters
    ----------
    plan
        (n, m) non-negative, of sum one.
    labels
        As in :func:`class_plan`.

    Examples
    --------
    >>> from theorylab.optimal_transport import class_penalty
    >>> round(class_penalty([[0.5, 0.0], [0.0, 0.5]]), 12)
    1.414213562373
    """
    plan = as_array(plan, "plan", ndim=2, nonnegative=True)
    if abs(plan.sum() - 1) > 1e-9:
        raise ValueError(f"plan: expected entries that sum to one, got the sum {plan.sum()}")
    classes = None if labels is None else _as_labels(labels, len(plan))
    kept, used = plan.sum(axis=1) > 0, plan.sum(axis=0) > 0
    inner = plan[np.ix_(kept, used)]
    classes = None if classes is None else classes[kept]
    a, b = inner.sum(axis=1), inner.sum(axis=0)
    return norms_of_differences(inner, a, classes) + norms_of_differences(
        np.ascontiguousarray(inner.T), b, None
    )


def pair_prox(x: ArrayLike, y: ArrayLike, step: float) -> tuple[FloatArray, FloatArray]:
    r"""Return the minimiser (u, v) of $\tau\|u-v\|+\frac12\|u-x\|^2+\frac12\|v-y\|^2$: the
    mean stays, the difference is multiplied by $(1-2\tau/\|x-y\|)_+$.

    Parameters
    ----------
    x, y
        (n,) vectors.
    step
        tau, not negative.

    Examples
    --------
    >>> from theorylab.optimal_transport import pair_prox
    >>> [v.tolist() for v in pair_prox([4.0], [0.0], 1.0)]
    [[3.0], [1.0]]
    """
    x = as_array(x, "x", ndim=1)
    y = as_array(y, "y", shape=x.shape)
    mean, half = x / 2 + y / 2, x / 2 - y / 2
    half = half * shrinkage(float(np.linalg.norm(half)), as_real(step, "step", minimum=0.0))
    return mean + half, mean - half


def marginal_projection(X: ArrayLike, rows: ArrayLike, columns: ArrayLike) -> FloatArray:
    r"""Return the Euclidean projection of a matrix on those with these row and column sums, of any
    sign: $X+\frac1m(r-X1)1^\top+\frac1n1(c-X^\top1)^\top-\frac{1^\top(r-X1)}{nm}11^\top$.

    Parameters
    ----------
    X
        (n, m).
    rows, columns
        (n,) and (m,) sums, of equal total.

    Examples
    --------
    >>> from theorylab.optimal_transport import marginal_projection
    >>> marginal_projection([[0.0, 0.0], [0.0, 0.0]], [1.0, 3.0], [2.0, 2.0]).tolist()
    [[0.5, 0.5], [1.5, 1.5]]
    """
    X = as_array(X, "X", ndim=2)
    r = as_array(rows, "rows", shape=(len(X),))
    c = as_array(columns, "columns", shape=(X.shape[1],))
    size = max(float(abs(r).sum() + abs(c).sum()), _TINY)
    if abs(r.sum() - c.sum()) > 1e-9 * size:
        raise ValueError(f"columns: expected the total {r.sum()} of rows, got {c.sum()}")
    n, m = X.shape
    off, wide = r - X.sum(axis=1), c - X.sum(axis=0)
    projected: FloatArray = X + off[:, None] / m + wide / n - off.sum() / (n * m)
    return projected


@refuses_overflow("C", infinite=True)
def recovery_window(C: ArrayLike, *, labels: ArrayLike) -> RecoveryWindow:
    r"""Return the weights at which :func:`class_plan` of equal weights recovers the classes
    (module docstring).

    Parameters
    ----------
    C
        (n, n) costs.
    labels
        (n,) whole numbers, the classes of the rows and of the columns, equally large.

    Examples
    --------
    >>> from theorylab.optimal_transport import recovery_window
    >>> recovery_window([[0.0, 1.0], [3.0, 0.0]], labels=[0, 1])
    <RecoveryWindow: lower 0, upper 0.707107, necessary 0.707107>
    """
    blocks = _Blocks(C, labels)
    scale = blocks.count * np.sqrt(2 * blocks.size)
    upper, necessary = (_least_cycle_mean(A) / scale for A in (blocks.least, blocks.means))
    return RecoveryWindow(float(blocks.spread.max()), float(upper), float(necessary))


@refuses_overflow("C", "lam", infinite=True)
def recovery_certificate(C: ArrayLike, lam: float, *, labels: ArrayLike) -> RecoveryCertificate:
    r"""Return how far the block plan is from not being the only solution, for equal weights.

    Parameters
    ----------
    C
        (n, n) costs.
    lam
        Weight of the norms, positive, in units of C.
    labels
        (n,) whole numbers, the classes of the rows and of the columns, equally large.

    Examples
    --------
    >>> from theorylab.optimal_transport import recovery_certificate
    >>> recovery_certificate([[0.0, 1.0], [3.0, 0.0]], 0.1, labels=[0, 1]).unique
    True
    """
    blocks = _Blocks(C, labels)
    lam = as_real(lam, "lam", above=0.0)
    # Potentials of the classes that leave each pair of them as much slack as possible.
    K, most = blocks.count, _least_cycle_mean(blocks.least)
    slack = float(most - lam * K * np.sqrt(2 * blocks.size))
    return RecoveryCertificate(float(blocks.spread.max()) / lam, slack)


class _Blocks:
    """Costs by class: block means, least entries without the effects of rows and columns, and the
    lower end of the window in each class."""

    def __init__(self, C: ArrayLike, labels: ArrayLike):
        cost = as_array(C, "C", ndim=2)
        cost = as_array(cost, "C", shape=(len(cost), len(cost)))
        classes = _as_labels(labels, len(cost))
        names, sizes = np.unique(classes, return_counts=True)
        if (sizes != sizes[0]).any():
            raise ValueError(f"labels: expected classes of equal size, got {sizes.tolist()}")
        self.count, self.size = len(names), int(sizes[0])
        order = np.argsort(classes, kind="stable")
        K, p, e = self.count, self.size, binary_exponent(cost)
        cost = np.ldexp(cost, -e)
        blocks = cost[np.ix_(order, order)].reshape(K, p, K, p).swapaxes(1, 2)
        self.means = blocks.mean(axis=(2, 3))
        inside = blocks[np.arange(K), np.arange(K)]
        level = self.means.diagonal()[:, None]
        r, c = inside.mean(axis=2) - level, inside.mean(axis=1) - level
        R = inside - level[..., None] - r[:, :, None] - c[:, None]
        rows, columns = _diameters(R), _diameters(R.swapaxes(1, 2))
        self.spread = rows * columns / (p * np.maximum(rows + columns, _TINY))
        self.least = (blocks - r[:, None, :, None] - c[None, :, None]).min(axis=(2, 3))
        np.fill_diagonal(self.least, self.means.diagonal())
        self.means, self.spread, self.least = (
            np.ldexp(part, e) for part in (self.means, self.spread, self.least)
        )


def _diameters(R: FloatArray) -> FloatArray:
    """Return for each matrix of a stack the largest distance of two rows."""
    return np.array([pdist(matrix).max(initial=0.0) for matrix in R])


def _least_cycle_mean(A: FloatArray) -> float:
    """Return the least mean of A_ab - A_aa over the cycles of distinct a (Karp), inf for none."""
    excess = A - A.diagonal()[:, None]
    n = len(excess)
    if n == 1:
        return np.inf
    np.fill_diagonal(excess, np.inf)
    walks = np.zeros((n + 1, n))
    for k in range(n):
        walks[k + 1] = (walks[k][:, None] + excess).min(axis=0)
    means = (walks[n] - walks[:n]) / np.arange(n, 0, -1)[:, None]
    return float(means.max(axis=0).min())


def _as_labels(labels: ArrayLike, n: int) -> NDArray[Any]:
    found = as_array(labels, "labels", shape=(n,))
    if (found != np.round(found)).any():
        raise ValueError("labels: expected whole numbers, got fractions")
    return found
