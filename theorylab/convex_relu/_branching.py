r"""The dual constraint of ReLU training, decided by branching on the rows of positive sign.

Let $a_i=v_ix_i$ where $v_i>0$, $b_j=-v_jx_j$ where $v_j<0$, and $h(u)
=\sum_i(a_i^\top u)_+-\sum_j(b_j^\top u)_++\ell^\top u$. A node fixes the signs $s_i=\pm1$ of
some $a_i^\top u$; it speaks of the set of its unit vectors with $h(u)>\tau$, and is
closed when that set is proved to be empty. On it $L_i\le a_i^\top u\le U_i$, so that for any
$f_i,t_j\in[0,1]$ and $\lambda_i\ge0$

$$h(u)\le w^\top u+C,\quad w=\ell+\sum_{\rm on}a_i+\sum_{\rm free}f_ia_i-\sum_jt_jb_j+
\sum_{\rm fixed}\lambda_is_ia_i,\quad C=\sum_{\rm free}\max(-f_iL_i,(1-f_i)U_i),$$

and $\|w\|+C\le\tau$ closes the node. The shortest w is a least-distance problem with bounds.
Three reductions shrink the ranges: over the cone of the fixed signs $U_i\le\|a_i+\sum_k
\mu_ks_ka_k\|$ for any $\mu\ge0$; $w^\top u>\tau-C$ is a cap, on which every row has its
range; and rows whose range has one sign are decided without a branch. Negative rows are never
branched: with the positive signs D known h is at least the concave $h_D(u)=\sum_Da_i^\top u-
\sum_j(b_j^\top u)_++\ell^\top u$ everywhere, so that $\max h=\max_D\min_t\|\ell+\sum_Da_i-
\sum_jt_jb_j\|$ (minimax; the one-sided Hausdorff distance of two zonotopes). A leaf is therefore
decided even without its constraints, and the tree ends after at most $2^{|P|}$ leaves.

Every inequality holds for whatever f, t, lambda and mu the iterations stopped at, and is checked
with a margin that bounds the rounding of its evaluation, so that a closed tree is a proof for the
real numbers the arrays stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from flint import fmpq

from theorylab._validation import FloatArray
from theorylab.convex_relu._branching_search import branch
from theorylab.convex_relu._branching_steps import DECIDED, EPS, FREE, SideArray
from theorylab.numerics.balls import rational, rationals

# Most fixed rows of a node; a tree of this depth would not end.
_DEPTH = 160
_SLICE_SECONDS = 0.1


@dataclass(frozen=True)
class Branching:
    """Outcome of a search.

    Parameters
    ----------
    directions
        Unit vectors with ``h`` above the threshold, shape (k, d).
    proved
        Whether ``h <= threshold`` on the unit ball was proved.
    ended
        Whether every node was closed, by a proof or by a direction found in it.
    nodes
        Nodes visited.
    leaves
        Leaves whose proof has less than 1e-6 relative slack, accepted by ``check``.
    """

    directions: FloatArray
    proved: bool
    ended: bool
    nodes: int
    leaves: int


@dataclass(frozen=True)
class Leaf:
    """What proves a node: ``h(u) <= w @ u + C`` on its points, see the module.

    Parameters
    ----------
    side
        1 or -1 for rows fixed by a branch, 2 or -2 for rows decided by their range, 0 for free
        rows; shape (|P|,).
    low, high
        Ranges, shape (|P|,).
    slopes, multipliers
        t, shape (|N|,), and lambda, shape (|P|,).
    """

    side: SideArray
    low: FloatArray
    high: FloatArray
    slopes: FloatArray
    multipliers: FloatArray


Check = Callable[[FloatArray, FloatArray, FloatArray, float, Leaf], bool]


def search_branches(
    X: FloatArray,
    v: FloatArray,
    linear: FloatArray,
    threshold: float,
    max_found: int,
    max_nodes: int,
    check: Check | None = None,
) -> Branching:
    """Decide ``v @ relu(X u) + linear @ u <= threshold`` for all unit vectors u.

    Parameters
    ----------
    X, v, linear, threshold
        The function, shapes (n, d), (n,) and (d,), and a positive number.
    max_found
        Number of violating directions at which the search stops.
    max_nodes
        Largest number of nodes.
    check
        Called with ``(A, B, linear, threshold, leaf)`` for every nearly tight leaf; the search
        fails where it returns False.

    Returns
    -------
    Branching
        Never ``proved`` unless every node was closed by a proof.
    """
    d = X.shape[1]
    # A power of two, so that scaling is exact.
    scale = 2.0 ** -np.floor(np.log2(threshold))
    rows = scale * v[:, None] * X
    norms = np.sqrt((rows * rows).sum(axis=1)) * (1.0 + (d + 4) * EPS)
    positive, negative = (v > 0.0) & (norms > 0.0), (v < 0.0) & (norms > 0.0)
    A, B = np.ascontiguousarray(rows[positive]), np.ascontiguousarray(-rows[negative])
    slope = scale * linear
    lengths = np.concatenate([norms[positive], norms[negative]])
    units = A / lengths[: len(A), None]
    # The products v_i x_i are rounded, and so is what underflows.
    limit = scale * threshold - EPS * (float(lengths.sum()) + float(np.abs(slope).sum()) + 1.0)
    p, n = len(A), len(lengths)
    depth = min(p, _DEPTH)
    sides = np.zeros((depth + 1, p), dtype=np.int8)
    lows, highs = np.empty((depth + 1, p)), np.empty((depth + 1, p))
    lows[0], highs[0] = -lengths[:p], lengths[:p]
    multipliers = np.zeros((depth + 1, n))
    multipliers[0, : n - p] = 0.5
    depths, chains = np.zeros(depth + 1, dtype=np.int64), np.empty((depth + 1, depth), np.int64)
    mus = np.empty((depth + 1, 2 * p, depth))
    keep = 64 if check is not None else 0
    leaf_sides, leaf_ranges = np.empty((keep, p), dtype=np.int8), np.empty((keep, 2 * p))
    leaf_multipliers = np.empty((keep, n))
    directions = np.empty((max_found, d))
    level, used, found, leaves = 0, 0, 0, 0
    # Python is returned to often enough for an interrupt to be heard.
    size = 16
    while level >= 0 and used < max_nodes and found < max_found:
        start = perf_counter()
        level, nodes, new, kept, undecided = branch(
            A,
            B,
            units,
            units @ units.T,
            slope,
            lengths,
            limit,
            min(size, max_nodes - used),
            level,
            sides,
            lows,
            highs,
            multipliers,
            depths,
            chains,
            mus,
            directions[found:],
            leaf_sides,
            leaf_ranges,
            leaf_multipliers,
        )
        if perf_counter() - start < _SLICE_SECONDS:
            size *= 2
        elif size > 1:
            size //= 2
        used, found, leaves = used + nodes, found + new, leaves + kept
        if undecided:
            break
        if check is not None and not all(
            check(
                A,
                B,
                slope,
                limit,
                Leaf(
                    leaf_sides[k],
                    leaf_ranges[k, :p],
                    leaf_ranges[k, p:],
                    leaf_multipliers[k, : n - p],
                    leaf_multipliers[k, n - p :],
                ),
            )
            for k in range(kept)
        ):
            level = 0
            break
    ended = level < 0
    return Branching(directions[:found], ended and found == 0, ended, used, leaves)


def leaf_holds(
    A: FloatArray, B: FloatArray, linear: FloatArray, threshold: float, leaf: Leaf
) -> bool:
    """Check ``|w| + C <= threshold`` for a leaf in rational arithmetic, the ranges being given."""
    if not (
        np.all((leaf.slopes >= 0.0) & (leaf.slopes <= 1.0)) and np.all(leaf.multipliers >= 0.0)
    ):
        return False
    w = rationals(linear)
    rest = rational(threshold)
    for i, side in enumerate(leaf.side):
        low, high, factor = rational(leaf.low[i]), rational(leaf.high[i]), fmpq(0)
        if side == FREE:
            factor = high / (high - low)
            rest += factor * low
        elif side == DECIDED:
            factor = fmpq(1)
            rest -= max(-low, fmpq(0))
        elif side == -DECIDED:
            rest -= max(high, fmpq(0))
        else:
            factor = fmpq(int(side > 0)) + int(side) * rational(leaf.multipliers[i])
        w = [s + factor * q for s, q in zip(w, rationals(A[i]), strict=True)]
    for t, row in zip(rationals(leaf.slopes), B, strict=True):
        w = [s - t * q for s, q in zip(w, rationals(row), strict=True)]
    return bool(rest > 0 and sum((s * s for s in w), fmpq(0)) <= rest * rest)
