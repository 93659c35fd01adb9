r"""The dual norm $\max_{\|u\|\le1}|v^\top(Xu)_+|$, with a rigorous upper bound.

Over the whole sphere, that is over all cells and faces of the arrangement of X, a threshold is
proved by a covering with cones up to rank four and by branching on the signs of rows above. For a
list of patterns D the norm is that of $\Pi_K(\pm X^\top Dv)$, $K=\{u:(2D-I)Xu\ge0\}$."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_real, refuses_overflow
from theorylab.convex_relu import _meanwhile_search
from theorylab.convex_relu._branching import search_branches
from theorylab.convex_relu._cones import ConeSearch, cone_margin
from theorylab.convex_relu._covering import Coverings, cover
from theorylab.convex_relu._problem import BoolArray, as_budget, as_patterns
from theorylab.convex_relu._reduction import Reduction, reduce_rows
from theorylab.convex_relu._relaxation import root_bound
from theorylab.numerics.budgets import steps_in_a_minute
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result

_EPS = float(np.finfo(np.float64).eps)
# Relative steps above the largest value found that are tried where a search did not end.
_LOOSER = (1.0, 0.3, 0.1, 0.03)


@result
class DualNorm:
    """The dual norm ``max_{|u| <= 1} |v @ relu(X u)|``.

    Parameters
    ----------
    value
        Rigorous upper bound.
    attained
        Value at ``direction``, a lower bound.
    direction
        Unit vector, shape (d,); zero if the norm is zero.
    sign
        Sign of ``v @ relu(X @ direction)``.
    exact
        Whether the bounds agree up to the tolerance asked for, or, where terms cancel, up to what
        rounding hides: about 1e-12 of the sum of their sizes, and 1e-10 of it for smaller norms.
    """

    value: float
    attained: float
    direction: FloatArray
    sign: int
    exact: bool


@refuses_overflow("X", "v")
def dual_norm(
    X: ArrayLike,
    v: ArrayLike,
    *,
    arrangements: str | ArrayLike = "all",
    tol: float = 1e-10,
    max_nodes: int | None = None,
) -> DualNorm:
    """Compute ``max_{|u| <= 1} |v @ relu(X u)|`` with a rigorous upper bound.

    Parameters
    ----------
    X
        Data, shape (n, d).
    v
        Dual point, shape (n,).
    arrangements
        "all", or patterns of shape (P, n) to whose cones ``u`` is confined.
    tol
        Relative difference of the bounds.
    max_nodes
        Largest number of nodes, by default about a quarter of a minute. Where it does not
        suffice the upper bound is that of a semidefinite relaxation, or the least of 2, 1.3, 1.1
        and 1.03 times the largest value found that as many nodes again prove.

    Returns
    -------
    DualNorm
        Bounds and a maximiser.

    Raises
    ------
    ValueError
        For malformed data or a tolerance outside (0, 1).

    Examples
    --------
    >>> from theorylab.convex_relu import dual_norm
    >>> round(dual_norm([[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0]).value, 6)
    5.0
    """
    X = as_array(X, "X", ndim=2)
    v = as_array(v, "v", shape=(X.shape[0],))
    patterns = as_patterns(arrangements, X.shape[0])
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    budget = as_budget(max_nodes)
    return (
        norm_over_sphere(reduce_rows(X), v, tol, budget)
        if patterns is None
        else norm_over_cones(X, v, patterns)
    )


def norm_over_sphere(
    reduction: Reduction, v: FloatArray, tol: float, max_nodes: int | None, *, bound: str = "search"
) -> DualNorm:
    """Raise a threshold until a search proves it.

    Where the budget does not suffice, it is spent once more on thresholds that come down from
    above, after the semidefinite bound of the root. ``bound`` says where to begin: "search",
    "looser" or "root"."""
    data, d = reduction.data, reduction.data.shape[1]
    weight = float(np.abs(v) @ reduction.norms)
    if d == 0 or weight == 0.0:
        # Data so small that the squares of their lengths are zero have a remainder.
        upper = reduction.enlarge(v, 0.0)
        return DualNorm(upper, 0.0, np.zeros(reduction.basis.shape[1]), 1, upper == 0.0)
    max_nodes = node_budget(reduction, max_nodes)
    # A threshold far below the norm would waste the search.
    best, direction, sign = climb(data, v)
    # Below this the values of h are rounding errors.
    least = 1e-10 * weight
    left = max_nodes

    def above(step: float) -> float:
        # The slack is that of the largest value found, of which the first may be a small part.
        size = max(best, least)
        return size * (1.0 + max(step, rounding_slack(len(v), d, weight, size)))

    def proves(step: float) -> bool:
        nonlocal best, direction, sign, left
        for s in (1, -1):
            while True:
                if left <= 0:
                    return False
                found, ended, nodes = search_sphere(reduction, v, s, above(step), 8, left)
                left -= nodes
                for u in found:
                    value = ascend(data, s * v, u, 50)
                    if value > best:
                        best, direction, sign = value, u, s
                if len(found) == 0:
                    break
            if not ended:
                return False
        return True

    exact = bound == "search" and proves(tol)
    if exact:
        upper = above(tol)
    else:
        # The solver's accuracy is not reproduced at another multiple of v, for which the bound may
        # be wanted.
        upper, left = root_bound(data, v) * (1.0 + 1e-5), max_nodes
        for step in _LOOSER:
            if bound == "root" or step <= tol:
                break
            if above(step) < upper:
                if not proves(step):
                    break
                upper = min(upper, above(step))
    return DualNorm(reduction.enlarge(v, upper), best, reduction.basis.T @ direction, sign, exact)


def norm_over_cones(X: FloatArray, v: FloatArray, patterns: BoolArray) -> DualNorm:
    search = ConeSearch(X, patterns)
    best, direction, sign = 0.0, np.zeros(X.shape[1]), 1
    for s in (1, -1):
        values, nearest = search(v, s, 0.0)
        k = int(np.argmax(values))
        if values[k] > best:
            best, direction, sign = float(values[k]), nearest[k] / values[k], s
    upper = best + cone_margin(X, v, search)
    return DualNorm(upper, best, direction, sign, upper <= best * (1.0 + 1e-10))


def search_sphere(
    reduction: Reduction,
    v: FloatArray,
    sign: int,
    threshold: float,
    max_found: int,
    max_nodes: int,
    coverings: Coverings | None = None,
) -> tuple[FloatArray, bool, int]:
    """Return directions with ``sign h_v`` above the threshold (none if it was proved), whether the
    search ended, its nodes. Among the ``coverings`` of these data one is followed, and this one is
    added."""
    weights, linear = reduction.condense(sign * v)
    m, d = reduction.lines.shape
    if d == 0 or not np.any(v):
        return np.zeros((0, d)), True, 0
    nodes = 0
    if not branching_wins(m, d):
        directions, values = np.empty((max_found, d)), np.empty(max_found)
        nothing = np.empty((0, d, d)), np.empty((0, d)), np.empty((0, m))
        before = after = np.empty((0, 4))
        if coverings is not None:
            before, after = coverings.nearest(sign, threshold), coverings.room
        # A tree that leads astray is left before it costs much.
        limits = [1000 + 20 * len(before)] if len(before) else []
        for limit in [*(most for most in limits if most < max_nodes), max_nodes]:
            found, used, _, complete = cover(
                reduction.lines,
                weights,
                linear,
                threshold,
                max_found,
                limit - nodes,
                directions,
                values,
                before,
                after,
                *nothing,
            )
            nodes += used
            if found or complete == 1:
                break
            before = before[:0]
        if coverings is not None and complete == 1 and not found and used <= len(after):
            coverings.add(sign, threshold, after[:used])
        if found or complete == 1 or nodes >= max_nodes:
            return directions[:found], complete == 1, nodes
        # Cones that rows almost parallel cut too thin for float64; branches need no cone.
    outcome = search_branches(
        reduction.lines, weights, linear, threshold, max_found, max_nodes - nodes
    )
    return outcome.directions, outcome.ended, nodes + outcome.nodes


def node_budget(reduction: Reduction, max_nodes: int | None, outputs: int = 1) -> int:
    """Return the budget of one search, by default that of the output's share of about a quarter of
    a minute."""
    if max_nodes is not None:
        return max_nodes
    m, d = reduction.lines.shape
    if branching_wins(m, d):
        nodes: int = 250_000_000 // max(m * d, 1)
    else:
        # Nanoseconds of a cone, measured on Gaussian data.
        nodes = steps_in_a_minute(4.0 * (500.0 + 1.5 * m * d * d), most=1_500_000)
    return max(nodes // outputs, 1000)


def branching_wins(m: int, d: int) -> bool:
    """Whether branching on the rows is faster than bisecting cones (measured on Gaussian data)."""
    return d > 5 or (d == 5 and m <= 80)


def rounding_slack(n: int, d: int, lipschitz: float, threshold: float) -> float:
    """Return the relative slack that the covering's rounding margins need at a threshold, for n
    rows and ``lipschitz = sum_i |v_i| |x_i|``."""
    return 4.0 * (n + 500 * d) * _EPS * lipschitz / threshold


def climb(data: FloatArray, v: FloatArray) -> tuple[float, FloatArray, int]:
    """Return the largest value of ``sign h_v`` that ascents from the rows and axes find, its unit
    direction and sign."""
    d = data.shape[1]
    best, direction, sign = 0.0, np.zeros(d), 1
    if d == 0 or not np.any(v):
        return best, direction, sign
    lengths = np.linalg.norm(data, axis=1)
    rows = data[lengths > 0.0] / lengths[lengths > 0.0, None]
    starts = np.vstack([rows, -rows, np.eye(d), -np.eye(d)])
    values = v @ np.maximum(data @ starts.T, 0.0)
    for s in (1, -1):
        for k in np.argsort(-s * values)[:8]:
            u = starts[k].copy()
            value = ascend(data, s * v, u, 50)
            if value > best:
                best, direction, sign = value, u, s
    return best, direction, sign


@compiled(meanwhile=_meanwhile_search.ascend)
def ascend(X: FloatArray, v: FloatArray, u: FloatArray, max_iter: int) -> float:
    """Improve a unit direction by steps towards the gradient's direction while ``h_v`` grows;
    return the value."""
    n, d = X.shape
    g = np.zeros(d)
    h = np.empty(d)
    trial = u.copy()
    best = -np.inf
    step = 1.0
    for _ in range(max_iter):
        value = 0.0
        for a in range(d):
            h[a] = 0.0
        for i in range(n):
            s = 0.0
            for a in range(d):
                s += X[i, a] * trial[a]
            if s > 0.0:
                value += v[i] * s
                for a in range(d):
                    h[a] += v[i] * X[i, a]
        if value > best:
            gain = value - best
            best = value
            length = 0.0
            for a in range(d):
                u[a] = trial[a]
                g[a] = h[a]
                length += g[a] * g[a]
            length = np.sqrt(length)
            if length == 0.0 or gain <= 1e-12 * best:
                break
            for a in range(d):
                g[a] /= length
        else:
            step *= 0.25
            if step < 1e-3:
                break
        length = 0.0
        for a in range(d):
            trial[a] = u[a] + step * (g[a] - u[a])
            length += trial[a] * trial[a]
        length = np.sqrt(length)
        if length == 0.0:
            break
        for a in range(d):
            trial[a] /= length
    return best
