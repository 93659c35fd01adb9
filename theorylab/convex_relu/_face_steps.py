"""Faces of the arrangement: the span of the rows a neuron is tight to, and when to leave one."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_descent
from theorylab.convex_relu._elementary import complete, is_zero, orthonormalise, solve
from theorylab.convex_relu._problem import BoolArray, IntArray
from theorylab.numerics.compiled import compiled


@compiled(meanwhile=_meanwhile_descent.project, borrows=True)
def project(
    X: FloatArray,
    norms: FloatArray,
    p: FloatArray,
    tight: BoolArray,
    linear: int,
    basis: FloatArray,
    size: IntArray,
    length: FloatArray,
) -> int:
    """Project every neuron onto its face; write the bases, the dimensions and the lengths, and
    return the sum of the dimensions."""
    m, d = p.shape
    total = 0
    for j in range(m):
        size[j] = 0
        length[j] = 0.0
        if j >= linear and is_zero(p[j]):
            continue
        k = face(X, tight[j], norms, basis[j])
        size[j] = d - k
        for a in range(k):
            s = 0.0
            for c in range(d):
                s += basis[j, a, c] * p[j, c]
            for c in range(d):
                p[j, c] -= s * basis[j, a, c]
        s = 0.0
        for c in range(d):
            s += p[j, c] * p[j, c]
        length[j] = np.sqrt(s)
        if j >= linear and (size[j] == 0 or length[j] == 0.0):
            for c in range(d):
                p[j, c] = 0.0
            size[j] = 0
        total += size[j]
    return total


@compiled(meanwhile=_meanwhile_descent.face, borrows=True)
def face(X: FloatArray, tight: BoolArray, norms: FloatArray, basis: FloatArray) -> int:
    """Fill the basis: first the span of the tight rows, then its complement; return the dimension
    of the span."""
    n, d = X.shape
    k = np.int64(0)  # a literal would be another type to numba
    for i in range(n):
        if tight[i] and k < d:
            for c in range(d):
                basis[k, c] = X[i, c] / norms[i]
            if orthonormalise(basis, k) > 1e-11:
                k += 1
    complete(basis, k, d)
    return int(k)


@compiled(meanwhile=_meanwhile_descent.release)
def release(
    X: FloatArray,
    v: FloatArray,
    beta: float,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    norms: FloatArray,
    length: FloatArray,
    size: IntArray,
    linear: int,
    crossing: bool,
) -> bool:
    """Release, for every neuron, the tight row whose side descends most steeply; return whether
    there was one."""
    n, d = X.shape
    result = False
    for j in range(linear, p.shape[0]):
        if size[j] == 0 or size[j] == d:
            continue
        k = d - size[j]
        rows = np.empty((k, d))
        index = np.empty(k, dtype=np.int64)
        work = np.empty((d, d))
        found = np.int64(0)
        for i in range(n):
            if tight[j, i] and found < k:
                for c in range(d):
                    work[found, c] = X[i, c] / norms[i]
                if orthonormalise(work, found) > 1e-11:
                    index[found] = i
                    for c in range(d):
                        rows[found, c] = X[i, c]
                    found += 1
        mu = _multipliers(X, v, beta, p[j], sigma[j], active[j], tight[j], length[j], rows)
        worst = 1e-10 * beta
        which = -1
        side = False
        for e in range(k):
            i = index[e]
            up = -(mu[e] - sigma[j] * v[i]) * norms[i]
            down = mu[e] * norms[i]
            if not crossing:
                up = -mu[e] * norms[i] + sigma[j] * v[i] * norms[i] if active[j, i] else -1.0
                down = down if not active[j, i] else -1.0
            if up > worst:
                worst = up
                which = i
                side = True
            if down > worst:
                worst = down
                which = i
                side = False
        if which >= 0:
            tight[j, which] = False
            active[j, which] = side
            result = True
    return result


@compiled
def _multipliers(
    X: FloatArray,
    v: FloatArray,
    beta: float,
    p: FloatArray,
    sigma: float,
    active: BoolArray,
    tight: BoolArray,
    length: float,
    rows: FloatArray,
) -> FloatArray:
    """Return what a neuron's gradient is made of, in terms of the rows of its face."""
    n, d = X.shape
    k = rows.shape[0]
    target = np.zeros(d)
    for i in range(n):
        if active[i] and not tight[i]:
            for c in range(d):
                target[c] -= sigma * v[i] * X[i, c]
    for c in range(d):
        target[c] += beta * p[c] / length
    gram = np.zeros((k, k))
    mu = np.zeros(k)
    for a in range(k):
        for c in range(d):
            mu[a] += rows[a, c] * target[c]
            for e in range(k):
                gram[a, e] += rows[a, c] * rows[e, c]
    solve(gram, mu, 1e-15)
    return mu
