"""Proofs of the dual constraint from the data and the dual point alone.

Every rounding error is bounded, and all places where the constraint is nearly tight (a relative
slack below 1e-6) are confirmed in rational arithmetic."""

from __future__ import annotations

import numpy as np
from flint import fmpq, fmpq_mat

from theorylab._validation import FloatArray
from theorylab.convex_relu._branching import leaf_holds, search_branches
from theorylab.convex_relu._cones import ConeSearch, cone_margin
from theorylab.convex_relu._covering import cover
from theorylab.convex_relu._dual_norm import branching_wins, climb, node_budget
from theorylab.convex_relu._problem import BoolArray
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu._relaxation import root_bound
from theorylab.numerics.balls import rational, rational_matrix, rationals

_EPS = float(np.finfo(np.float64).eps)


def prove_sphere(
    data: FloatArray, v: FloatArray, beta: float, moved: FloatArray, max_nodes: int | None
) -> tuple[bool, int, int]:
    """Prove the dual constraint for both signs; return success, the cones used and the leaves
    confirmed exactly."""
    n = data.shape[0]
    reduction = reduce_rows(data)
    change = float(moved @ np.linalg.norm(data, axis=1)) * (1.0 + 2.0 * n * _EPS)
    if reduction.crude(v) <= beta - change:
        return True, 0, 0
    threshold = reduction.threshold(v, beta - change)
    d = reduction.data.shape[1]
    if threshold <= 0.0:
        return False, 0, 0
    if d == 0 or not np.any(v):
        return True, 0, 0
    # Far from the maximum the bound of the root may do, and near it cannot.
    if 1.2 * climb(reduction.data, v)[0] < threshold and (
        root_bound(reduction.data, v) <= threshold
    ):
        return True, 0, 0
    used = exact = 0
    m = len(reduction.lines)
    for sign in (1.0, -1.0):
        point, linear = reduction.condense(sign * v)
        left = node_budget(reduction, max_nodes)
        if not branching_wins(m, d):
            proved, undecided, nodes, leaves = _prove_by_cones(
                reduction.lines, point, linear, threshold, left
            )
            used, exact, left = used + nodes, exact + leaves, left - nodes
            if proved:
                continue
            if not undecided or left <= 0:
                return False, used, exact
        outcome = search_branches(
            reduction.lines, point, linear, threshold, 1, left, check=leaf_holds
        )
        used, exact = used + outcome.nodes, exact + outcome.leaves
        if not outcome.proved:
            return False, used, exact
    return True, used, exact


def _prove_by_cones(
    lines: FloatArray, v: FloatArray, linear: FloatArray, threshold: float, max_nodes: int
) -> tuple[bool, bool, int, int]:
    """Return whether a covering proves the threshold, whether it neither does nor refutes it, its
    cones, and the leaves confirmed exactly."""
    leaves, nodes, refuted = tight_leaves(lines, v, linear, threshold, max_nodes)
    if leaves is None:
        return False, not refuted, nodes, 0
    rows = rational_matrix(lines)
    for k, leaf in enumerate(zip(*leaves, strict=True)):
        if not _leaf_holds(rows, v, linear, threshold, *leaf):
            return False, False, nodes, k
    return True, False, nodes, len(leaves[0])


def tight_leaves(
    lines: FloatArray, point: FloatArray, linear: FloatArray, threshold: float, max_nodes: int
) -> tuple[tuple[FloatArray, FloatArray, FloatArray] | None, int, bool]:
    """Return rays, majorants and multipliers of the leaves of a covering whose relative slack is
    below 1e-6, or None if the threshold is not proved; the number of cones; and whether the
    threshold is refuted."""
    m, d = lines.shape
    keep = 256
    while True:
        leaves = np.empty((keep, d, d)), np.empty((keep, d)), np.empty((keep, m))
        found, used, tight, complete = cover(
            lines,
            point,
            linear,
            threshold,
            1,
            max_nodes,
            np.empty((1, d)),
            np.empty(1),
            *2 * (np.empty((0, 4)),),
            *leaves,
        )
        if not complete:
            return None, used, bool(found)
        if tight <= keep:
            rays, majorants, multipliers = (part[:tight] for part in leaves)
            return (rays, majorants, multipliers), used, False
        keep = tight


def _leaf_holds(
    data: fmpq_mat,
    v: FloatArray,
    linear: FloatArray,
    threshold: float,
    rays: FloatArray,
    weights: FloatArray,
    multipliers: FloatArray,
) -> bool:
    """Check the inequalities of one cone in rational arithmetic."""
    n, d = len(v), len(rays)
    w, point, slope = rationals(weights), rationals(v), rationals(linear)
    bound = rational(threshold)
    if sum((a * a for a in w), fmpq(0)) > bound * bound:
        return False
    slopes = [
        None if v[i] > 0.0 else q for i, q in enumerate(rationals(np.maximum(multipliers, 0.0)))
    ]
    if any(s is not None and not 0 <= s <= 1 for s in slopes):
        return False
    left = data * rational_matrix(rays.T)
    for k in range(d):
        ray = rationals(rays[k])
        total = sum((a * b for a, b in zip(slope, ray, strict=True)), fmpq(0))
        for i in range(n):
            z, s = left[i, k], slopes[i]
            if s is not None:
                total += point[i] * s * z
            elif z > 0:
                total += point[i] * z
        if total > sum((a * b for a, b in zip(w, ray, strict=True)), fmpq(0)):
            return False
    return True


def prove_cones(
    data: FloatArray, v: FloatArray, beta: float, moved: FloatArray, patterns: BoolArray
) -> tuple[bool, int, int]:
    """Prove the constraint on the cones of the patterns by their multipliers; nearly tight ones in
    rational arithmetic."""
    n, d = data.shape
    search = ConeSearch(data, patterns)
    threshold = beta - float(moved @ search.norms) * (1.0 + 2.0 * n * _EPS)
    if threshold <= 0.0:
        return False, 0, 0
    exact = 0
    point, limit = rationals(v), rational(threshold)
    columns: fmpq_mat | None = None
    for sign in (1, -1):
        values, _ = search(v, sign, 0.0)
        margin = cone_margin(data, v, search)
        for p in np.flatnonzero(values + margin > (1.0 - 1e-6) * threshold):
            if columns is None:
                columns = rational_matrix(data.T)
            total = [sign * q if on else fmpq(0) for q, on in zip(point, patterns[p], strict=True)]
            for i, lam in zip(
                search.support[sign][p], rationals(search.multipliers[sign][p]), strict=True
            ):
                if i >= 0:
                    if lam < 0:
                        return False, len(values), exact
                    total[i] += lam if patterns[p, i] else -lam
            w = columns * fmpq_mat(n, 1, total)
            if sum((w[a, 0] ** 2 for a in range(d)), fmpq(0)) > limit * limit:
                return False, len(values), exact
            exact += 1
    return True, 2 * len(patterns), exact
