"""What makes a network smaller at no cost: the best lengths of its neurons, and sums of neurons
that share a cell."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_descent
from theorylab.convex_relu._elementary import is_zero, row_norms, solve
from theorylab.convex_relu._problem import BoolArray, IntArray
from theorylab.numerics.compiled import compiled


@compiled
def rescale(
    X: FloatArray,
    b: FloatArray,
    kappa: FloatArray,
    beta: float,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    linear: int,
) -> None:
    """Minimise F over the lengths of the neurons, a non-negative lasso; unneeded neurons become
    zero."""
    n, d = X.shape
    m = p.shape[0]
    old = row_norms(p)
    atoms = np.zeros((m, n))
    weighted = np.zeros((m, n))
    gram = np.empty((m, m))
    slope = np.empty(m)
    _atoms(X, b, kappa, beta, p, sigma, active, tight, linear, old, atoms, weighted, slope)
    np.dot(atoms, weighted.T, gram)
    for j in range(linear):
        old[j] = 0.0
    length = old.copy()
    _lasso(gram, slope, beta, length, n)
    for j in range(m):
        if old[j] > 0.0:
            for c in range(d):
                p[j, c] *= length[j] / old[j]


@compiled(meanwhile=_meanwhile_descent.atoms)
def _atoms(
    X: FloatArray,
    b: FloatArray,
    kappa: FloatArray,
    beta: float,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    linear: int,
    lengths: FloatArray,
    atoms: FloatArray,
    weighted: FloatArray,
    slope: FloatArray,
) -> None:
    """Write outputs of the neurons at length one, times kappa, and the slope of the lasso at
    zero."""
    n, d = X.shape
    rest = b.copy()
    for j in range(linear):
        for i in range(n):
            for c in range(d):
                rest[i] -= kappa[i] * X[i, c] * p[j, c]
    for j in range(p.shape[0]):
        s = -beta
        if j >= linear and lengths[j] > 0.0:
            for i in range(n):
                if active[j, i] and not tight[j, i]:
                    t = 0.0
                    for c in range(d):
                        t += X[i, c] * p[j, c]
                    atoms[j, i] = sigma[j] * t / lengths[j]
                    weighted[j, i] = kappa[i] * atoms[j, i]
                    s += atoms[j, i] * rest[i]
        slope[j] = s


@compiled
def _lasso(gram: FloatArray, slope: FloatArray, beta: float, length: FloatArray, rank: int) -> None:
    """Minimise ``x @ gram @ x / 2 - slope @ x`` over ``x >= 0`` by an active-set method from
    ``length``, where zeros stay zero."""
    m = length.size
    given = length.copy()
    scale = 0.0
    for j in range(m):
        scale = max(scale, gram[j, j])
    known = np.empty(m, dtype=np.bool_)
    passive = np.empty(m, dtype=np.bool_)
    index = np.empty(m, dtype=np.int64)
    count = 0
    for j in range(m):
        known[j] = length[j] > 0.0
        count += known[j]
        passive[j] = known[j]
        gram[j, j] += 1e-13 * scale
    many = count > rank
    if many:
        # Most will be zero: to find them one by one takes the fourth power of their number.
        for j in range(m):
            passive[j] = False
            length[j] = 0.0
    which = -1
    for _ in range(4 * m):
        while True:
            size = np.int64(0)  # a literal would be another type to numba
            for j in range(m):
                if passive[j]:
                    index[size] = j
                    size += 1
            worst = _step(gram, slope, length, index, size)
            if worst < 0:
                break
            length[worst] = 0.0
            passive[worst] = False
            if worst == which:
                # It depends on the others, and would come back for ever.
                known[worst] = False
        best = 1e-9 * beta
        which = -1
        for j in range(m):
            if known[j] and not passive[j]:
                t = slope[j]
                for k in range(m):
                    t -= gram[j, k] * length[k]
                if t > best:
                    best = t
                    which = j
        if which < 0:
            break
        passive[which] = True
    if many and _value(gram, slope, length) > _value(gram, slope, given):
        for j in range(m):
            length[j] = given[j]


@compiled(borrows=True)
def _value(gram: FloatArray, slope: FloatArray, length: FloatArray) -> float:
    m = length.size
    total = 0.0
    for j in range(m):
        s = -slope[j]
        for k in range(m):
            s += 0.5 * gram[j, k] * length[k]
        total += s * length[j]
    return total


@compiled
def _step(
    gram: FloatArray, slope: FloatArray, length: FloatArray, index: IntArray, size: int
) -> int:
    """Go towards the minimum over the listed lengths, to the first bound; return which one it is
    of, or -1."""
    system = np.empty((size, size))
    right = np.empty(size)
    for a in range(size):
        right[a] = slope[index[a]]
        for c in range(size):
            system[a, c] = gram[index[a], index[c]]
    solve(system, right, 1e-15)
    step = 1.0
    worst = -1
    for a in range(size):
        if right[a] <= 0.0:
            j = index[a]
            t = length[j] / (length[j] - right[a]) if length[j] > right[a] else 0.0
            if t < step or worst < 0:
                step = t
                worst = j
    for a in range(size):
        j = index[a]
        length[j] += step * (right[a] - length[j])
    return worst


@compiled(meanwhile=_meanwhile_descent.merge, borrows=True)
def merge(
    X: FloatArray,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    linear: int,
    crossing: bool,
) -> None:
    """Add up neurons of one sign in one closed cell: the output stays, the penalty does not
    grow."""
    n, d = X.shape
    m = p.shape[0]
    for j in range(linear, m):
        if is_zero(p[j]):
            continue
        for k in range(j + 1, m):
            if sigma[j] != sigma[k] or is_zero(p[k]):
                continue
            same = True
            for i in range(n):
                free = not tight[j, i] and not tight[k, i]
                if (free or not crossing) and active[j, i] != active[k, i]:
                    same = False
                    break
            if same:
                for c in range(d):
                    p[j, c] += p[k, c]
                    p[k, c] = 0.0
                for i in range(n):
                    if tight[j, i] and not tight[k, i]:
                        active[j, i] = active[k, i]
                        tight[j, i] = False
