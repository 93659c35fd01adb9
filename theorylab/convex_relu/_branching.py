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
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.numerics.balls import rational, rationals
from theorylab.numerics.compiled import compiled

SideArray = NDArray[np.int8]

_EPS = float(np.finfo(np.float64).eps)
# Rows of a node: sign undecided, fixed by a branch (and a constraint of its cone), or decided by
# the ranges.
_FREE, _FIXED, _DECIDED = 0, 1, 2
_TIGHT = 1e-6
# Most fixed rows of a node; a tree of this depth would not end.
_DEPTH = 160
_SLICE_SECONDS = 0.1


@compiled(error_model="numpy")
def _length(w: FloatArray) -> float:
    square = 0.0
    for a in range(w.size):
        square += w[a] * w[a]
    return float(np.sqrt(square))


@compiled(error_model="numpy")
def _newton(
    columns: FloatArray,
    boxed: int,
    y: FloatArray,
    w: FloatArray,
    index: NDArray[np.int64],
    system: FloatArray,
) -> None:
    """Take the exact least-squares step in the listed coordinates, up to the first bound."""
    d = w.size
    count = index.size
    for j in range(count):
        for k in range(j + 1):
            s = 0.0
            for a in range(d):
                s += columns[index[j], a] * columns[index[k], a]
            system[j, k] = s
            system[k, j] = s
        s = 0.0
        for a in range(d):
            s -= columns[index[j], a] * w[a]
        system[j, count] = s
    for k in range(count):
        pivot = k
        for j in range(k + 1, count):
            if abs(system[j, k]) > abs(system[pivot, k]):
                pivot = j
        if system[pivot, k] == 0.0:
            return
        if pivot != k:
            for b in range(count + 1):
                s = system[k, b]
                system[k, b] = system[pivot, b]
                system[pivot, b] = s
        for j in range(count):
            if j != k:
                s = system[j, k] / system[k, k]
                for b in range(k, count + 1):
                    system[j, b] -= s * system[k, b]
    step = 1.0
    for j in range(count):
        change = system[j, count] / system[j, j]
        if not np.isfinite(change):
            return
        old = y[index[j]]
        if old + change < 0.0:
            step = min(step, -old / change)
        if index[j] < boxed and old + change > 1.0:
            step = min(step, (1.0 - old) / change)
    for j in range(count):
        k = index[j]
        s = max(y[k] + step * system[j, count] / system[j, j], 0.0)
        if k < boxed:
            s = min(s, 1.0)
        for a in range(d):
            w[a] += (s - y[k]) * columns[k, a]
        y[k] = s


@compiled(error_model="numpy")
def _shorten(
    columns: FloatArray,
    squares: FloatArray,
    boxed: int,
    count: int,
    y: FloatArray,
    w: FloatArray,
    target: float,
    sweeps: int,
    index: NDArray[np.int64],
    system: FloatArray,
) -> None:
    """Shorten ``w = p + y @ columns`` over ``y >= 0``, the first ``boxed`` of them at most 1, until
    its length is below the target or the shortest one is seen to be above."""
    d = w.size
    for sweep in range(sweeps):
        length = _length(w)
        if length <= target:
            return
        if sweep > 0:
            # The set {w} is at least as far away as its support plane in this direction.
            low = length * length
            for k in range(count):
                s = 0.0
                for a in range(d):
                    s += columns[k, a] * w[a]
                low -= y[k] * s
                if s < 0.0:
                    if k < boxed:
                        low += s
                    elif s < -1e-11 * length * np.sqrt(squares[k]):
                        low = -np.inf
                        break
            if low > target * length:
                return
        inside = 0
        moved = 0.0
        for k in range(count):
            s = 0.0
            for a in range(d):
                s += columns[k, a] * w[a]
            new = max(y[k] - s / squares[k], 0.0)
            if k < boxed:
                new = min(new, 1.0)
            step = new - y[k]
            y[k] = new
            if step != 0.0:
                for a in range(d):
                    w[a] += step * columns[k, a]
                moved = max(moved, step * step * squares[k])
            if new > 0.0 and (k >= boxed or new < 1.0):
                index[inside] = k
                inside += 1
        if moved <= 1e-30 * length * length:
            break
        if sweep > 0 and 0 < inside <= d:
            _newton(columns, boxed, y, w, index[:inside], system)


@compiled(error_model="numpy")
def _range_over_cone(
    units: FloatArray,
    cosines: FloatArray,
    lengths: FloatArray,
    chain: NDArray[np.int64],
    side: SideArray,
    low: FloatArray,
    high: FloatArray,
    mu: FloatArray,
    products: FloatArray,
    slopes: FloatArray,
    w: FloatArray,
) -> None:
    """Lower ``high`` and raise ``low`` to what the signs fixed in ``chain``, the last of them new,
    allow the free rows on unit vectors.

    Rows 2i and 2i + 1 of ``mu`` shorten plus and minus the direction of row i by those of the
    fixed rows. The cosines of the directions only lead there, so that a multiplier at rest costs
    nothing; the vector itself is summed once, at the end."""
    count = chain.size
    d = w.size
    for k in range(count):
        for b in range(count):
            s = cosines[chain[k], chain[b]]
            products[k, b] = s if side[chain[k]] == side[chain[b]] else -s
    for i in range(side.size):
        if side[i] != _FREE:
            continue
        for m in range(2 * i, 2 * i + 2):
            sign = 1.0 if m == 2 * i else -1.0
            for k in range(count):
                s = sign * cosines[i, chain[k]]
                slopes[k] = s if side[chain[k]] > 0 else -s
            for k in range(count - 1):
                if mu[m, k] > 0.0:
                    for b in range(count):
                        slopes[b] += mu[m, k] * products[k, b]
            # A small gain waits for the next new sign.
            if slopes[count - 1] >= -0.1:
                continue
            for _ in range(8):
                moved = 0.0
                for k in range(count):
                    step = max(-slopes[k], -mu[m, k])
                    if step != 0.0:
                        mu[m, k] += step
                        moved += step * step
                        for b in range(count):
                            slopes[b] += step * products[k, b]
                if moved <= 1e-4:
                    break
            total = 1.0
            for a in range(d):
                w[a] = sign * units[i, a]
            for k in range(count):
                if mu[m, k] > 0.0:
                    total += mu[m, k]
                    s = mu[m, k] if side[chain[k]] > 0 else -mu[m, k]
                    for a in range(d):
                        w[a] += s * units[chain[k], a]
            s = lengths[i] * (_length(w) + (count + d + 8) * _EPS * total)
            if m == 2 * i:
                high[i] = min(high[i], s)
            else:
                low[i] = max(low[i], -s)


@compiled(error_model="numpy")
def _range_over_cap(
    A: FloatArray,
    lengths: FloatArray,
    w: FloatArray,
    length: float,
    least: float,
    side: SideArray,
    low: FloatArray,
    high: FloatArray,
) -> bool:
    """Shrink the ranges to those on the unit vectors with ``w @ u > least``; return whether no
    point of the node remains."""
    d = w.size
    rho = least / length
    rho -= (d + 8) * _EPS * abs(rho)
    if rho <= -1.0:
        return False
    sine = np.sqrt(max(1.0 - rho * rho, 0.0) + 8.0 * _EPS)
    for i in range(side.size):
        norm = lengths[i]
        c = 0.0
        for a in range(d):
            c += A[i, a] * w[a]
        c /= length
        pad = (16 * d + 64) * _EPS * norm
        across = np.sqrt(max(norm * norm - c * c, 0.0) + (8 * d + 32) * _EPS * norm * norm) * sine
        top = norm if c >= rho * norm - pad else c * rho + across + pad
        bottom = -norm if -c >= rho * norm - pad else c * rho - across - pad
        if side[i] == _FREE:
            high[i] = min(high[i], top)
            low[i] = max(low[i], bottom)
            if high[i] < low[i]:
                return True
        elif (side[i] == _FIXED and top < 0.0) or (side[i] == -_FIXED and bottom > 0.0):
            return True
    return False


@compiled(error_model="numpy")
def _compose(
    A: FloatArray,
    B: FloatArray,
    linear: FloatArray,
    lengths: FloatArray,
    side: SideArray,
    low: FloatArray,
    high: FloatArray,
    multiplier: FloatArray,
    w: FloatArray,
) -> tuple[float, float, int]:
    """Write w for the multipliers; return C and a bound of what rounding did to ``|w| + C``, and
    the number of free rows."""
    n_positive, d = A.shape
    n_negative = B.shape[0]
    total = 0.0
    for a in range(d):
        w[a] = linear[a]
        total += abs(linear[a])
    C = 0.0
    free = 0
    for i in range(n_positive):
        f = 0.0
        lam = 0.0
        if side[i] == _FREE:
            free += 1
            f = high[i] / (high[i] - low[i])
            C += max(-f * low[i], (1.0 - f) * high[i])
        elif side[i] == _DECIDED:
            f = 1.0
            C += max(-low[i], 0.0)
        elif side[i] == -_DECIDED:
            C += max(high[i], 0.0)
        else:
            lam = multiplier[n_negative + i]
            f = 1.0 + lam if side[i] > 0 else -lam
        total += (1.0 + lam) * lengths[i]
        if f != 0.0:
            for a in range(d):
                w[a] += f * A[i, a]
    for j in range(n_negative):
        total += lengths[n_positive + j]
        for a in range(d):
            w[a] -= multiplier[j] * B[j, a]
    return C, (n_positive + n_negative + 2 * d + 16) * _EPS * (total + C), free


@compiled(error_model="numpy")
def _value(A: FloatArray, B: FloatArray, linear: FloatArray, u: FloatArray) -> float:
    d = u.size
    value = 0.0
    for a in range(d):
        value += linear[a] * u[a]
    for i in range(A.shape[0]):
        s = 0.0
        for a in range(d):
            s += A[i, a] * u[a]
        value += max(s, 0.0)
    for j in range(B.shape[0]):
        s = 0.0
        for a in range(d):
            s += B[j, a] * u[a]
        value -= max(s, 0.0)
    return value


@compiled(error_model="numpy")
def branch(
    A: FloatArray,
    B: FloatArray,
    units: FloatArray,
    cosines: FloatArray,
    linear: FloatArray,
    lengths: FloatArray,
    threshold: float,
    max_nodes: int,
    level: int,
    sides: SideArray,
    lows: FloatArray,
    highs: FloatArray,
    multipliers: FloatArray,
    depths: NDArray[np.int64],
    chains: NDArray[np.int64],
    mus: FloatArray,
    directions: FloatArray,
    leaf_sides: SideArray,
    leaf_ranges: FloatArray,
    leaf_multipliers: FloatArray,
) -> tuple[int, int, int, int, int]:
    """Work on the stack of open nodes ``0 .. level`` until a budget or a buffer is used up.

    Of a node the stack holds the sides and ranges of the positive rows, the multipliers t and
    lambda, the rows fixed by branches in their order, and the multipliers mu of the ranges.

    Directions with a value above the threshold are written to ``directions`` and their node is
    dropped; leaves whose proof has less than 1e-6 relative slack are written to the ``leaf``
    arrays.

    Returns
    -------
    tuple
        The new level (-1 when no node is open), numbers of nodes, directions and leaves written,
        and 1 if the search ended at a leaf that is neither proved nor violated.
    """
    n_positive, d = A.shape
    n_negative = B.shape[0]
    n = n_positive + n_negative
    columns = np.empty((n, d))
    squares = np.empty(n)
    row = np.empty(n, dtype=np.int64)
    y = np.empty(n)
    index = np.empty(n, dtype=np.int64)
    system = np.empty((d, d + 1))
    products = np.empty((chains.shape[1], chains.shape[1]))
    slopes = np.empty(chains.shape[1])
    w = np.empty(d)
    u = np.empty(d)
    nodes = 0
    found = 0
    leaves = 0
    for j in range(n_negative):
        for a in range(d):
            columns[j, a] = -B[j, a]
        squares[j] = lengths[n_positive + j] ** 2
        row[j] = j
    while level >= 0 and nodes < max_nodes:
        nodes += 1
        side = sides[level]
        low = lows[level]
        high = highs[level]
        chain = chains[level]
        count = n_negative + depths[level]
        for k in range(n_negative, count):
            i = chain[k - n_negative]
            for a in range(d):
                columns[k, a] = side[i] * A[i, a]
            squares[k] = lengths[i] ** 2
            row[k] = n_negative + i
        for k in range(count):
            y[k] = multipliers[level, row[k]]
        if count > n_negative:
            _range_over_cone(
                units,
                cosines,
                lengths,
                chain[: depths[level]],
                side,
                low,
                high,
                mus[level],
                products,
                slopes,
                w,
            )
        proved = False
        free = 0
        last = np.inf
        # Fewer free rows and smaller ranges bring a smaller C, and that a smaller cap.
        for _ in range(6):
            for i in range(n_positive):
                if side[i] == _FREE:
                    # A sign decided up to rounding costs its row's range in C.
                    small = (64 * d + 256) * _EPS * lengths[i]
                    if high[i] <= small:
                        side[i] = -_DECIDED
                    elif low[i] >= -small:
                        side[i] = _DECIDED
            for k in range(count):
                multipliers[level, row[k]] = y[k]
            C, margin, free = _compose(
                A, B, linear, lengths, side, low, high, multipliers[level], w
            )
            if free > 0 and 0.97 * last < C:
                break
            last = C
            sweeps = 8 if free > 0 else 2000
            for attempt in range(2):
                _shorten(
                    columns,
                    squares,
                    n_negative,
                    count,
                    y,
                    w,
                    threshold - C - margin,
                    sweeps,
                    index,
                    system,
                )
                for k in range(count):
                    multipliers[level, row[k]] = y[k]
                C, margin, _free = _compose(
                    A, B, linear, lengths, side, low, high, multipliers[level], w
                )
                length = _length(w)
                proved = length + C + margin <= threshold
                if proved or free > 0 or attempt == 1:
                    break
                # Large multipliers cost accuracy, and a leaf needs none.
                for a in range(d):
                    u[a] = w[a] / length
                if _value(A, B, linear, u) > threshold:
                    break
                for k in range(n_negative, count):
                    y[k] = 0.0
                    multipliers[level, row[k]] = 0.0
                C, margin, _free = _compose(
                    A, B, linear, lengths, side, low, high, multipliers[level], w
                )
            if proved:
                if length + C > (1.0 - _TIGHT) * threshold and leaf_sides.shape[0] > 0:
                    for i in range(n_positive):
                        leaf_sides[leaves, i] = side[i]
                        leaf_ranges[leaves, i] = low[i]
                        leaf_ranges[leaves, n_positive + i] = high[i]
                    for k in range(n):
                        leaf_multipliers[leaves, k] = 0.0
                    for k in range(count):
                        leaf_multipliers[leaves, row[k]] = y[k]
                    leaves += 1
                break
            if free == 0:
                break
            if _range_over_cap(A, lengths, w, length, threshold - C - margin, side, low, high):
                proved = True
                break
        if proved:
            level -= 1
            if leaves > 0 and leaves == leaf_sides.shape[0]:
                break
            continue
        length = _length(w)
        for a in range(d):
            u[a] = w[a] / length
        if _value(A, B, linear, u) > threshold:
            for a in range(d):
                directions[found, a] = u[a]
            found += 1
            level -= 1
            if found == directions.shape[0]:
                break
            continue
        chosen = -1
        largest = 0.0
        for i in range(n_positive):
            if side[i] == _FREE:
                s = -low[i] * high[i] / (high[i] - low[i])
                if s > largest:
                    largest = s
                    chosen = i
        if free == 0 or (chosen >= 0 and depths[level] == chains.shape[1]):
            return level, nodes, found, leaves, 1
        if chosen < 0:
            # The last cap decided every row: the same node again, now a leaf.
            continue
        s = 0.0
        for a in range(d):
            s += A[chosen, a] * u[a]
        depth = depths[level]
        for i in range(n_positive):
            sides[level + 1, i] = side[i]
            lows[level + 1, i] = low[i]
            highs[level + 1, i] = high[i]
            if side[i] == _FREE:
                for m in range(2 * i, 2 * i + 2):
                    for k in range(depth):
                        mus[level + 1, m, k] = mus[level, m, k]
                    mus[level, m, depth] = 0.0
                    mus[level + 1, m, depth] = 0.0
        for k in range(n):
            multipliers[level + 1, k] = multipliers[level, k]
        for k in range(depth):
            chains[level + 1, k] = chain[k]
        sides[level + 1, chosen] = _FIXED if s > 0.0 else -_FIXED
        side[chosen] = -sides[level + 1, chosen]
        for k in range(level, level + 2):
            chains[k, depth] = chosen
            depths[k] = depth + 1
        level += 1
    return level, nodes, found, leaves, 0


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
    norms = np.sqrt((rows * rows).sum(axis=1)) * (1.0 + (d + 4) * _EPS)
    positive, negative = (v > 0.0) & (norms > 0.0), (v < 0.0) & (norms > 0.0)
    A, B = np.ascontiguousarray(rows[positive]), np.ascontiguousarray(-rows[negative])
    slope = scale * linear
    lengths = np.concatenate([norms[positive], norms[negative]])
    units = A / lengths[: len(A), None]
    # The products v_i x_i are rounded, and so is what underflows.
    limit = scale * threshold - _EPS * (float(lengths.sum()) + float(np.abs(slope).sum()) + 1.0)
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
        if side == _FREE:
            factor = high / (high - low)
            rest += factor * low
        elif side == _DECIDED:
            factor = fmpq(1)
            rest -= max(-low, fmpq(0))
        elif side == -_DECIDED:
            rest -= max(high, fmpq(0))
        else:
            factor = fmpq(int(side > 0)) + int(side) * rational(leaf.multipliers[i])
        w = [s + factor * q for s, q in zip(w, rationals(A[i]), strict=True)]
    for t, row in zip(rationals(leaf.slopes), B, strict=True):
        w = [s - t * q for s, q in zip(w, rationals(row), strict=True)]
    return bool(rest > 0 and sum((s * s for s in w), fmpq(0)) <= rest * rest)
