"""Small steps that kernels share: each is machine code after a moment.

A kernel that calls them is interpreted in the meantime, at a fair speed, and compiled sooner: what
numba makes of ``np.linalg.solve`` or ``np.argsort`` takes longer than these."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_descent
from theorylab.convex_relu._problem import IntArray
from theorylab.numerics.compiled import compiled


@compiled(meanwhile=_meanwhile_descent.row_norms)
def row_norms(X: FloatArray) -> FloatArray:
    n, d = X.shape
    norms = np.empty(n)
    for i in range(n):
        s = 0.0
        for c in range(d):
            s += X[i, c] * X[i, c]
        norms[i] = np.sqrt(s)
    return norms


@compiled(borrows=True)
def is_zero(x: FloatArray) -> bool:
    zero = True
    for value in x:
        if value != 0.0:
            zero = False
    return zero


@compiled(meanwhile=_meanwhile_descent.solve)
def solve(system: FloatArray, right: FloatArray, tolerance: float) -> bool:
    """Solve a positive semidefinite system in place by elimination without pivoting.

    Unknowns whose pivot is at most ``tolerance`` times their diagonal entry are dependent on those
    before them and become zero; return whether there was none."""
    size = right.size
    diagonal = np.empty(size)
    for k in range(size):
        diagonal[k] = system[k, k]
    independent = True
    for k in range(size):
        top = system[k]
        if top[k] <= tolerance * diagonal[k]:
            top[k] = np.inf
            independent = False
            continue
        for i in range(k + 1, size):
            f = top[i] / top[k]
            right[i] -= f * right[k]
            row = system[i]
            for j in range(i, size):
                row[j] -= f * top[j]
    for k in range(size - 1, -1, -1):
        s = right[k]
        for j in range(k + 1, size):
            s -= system[k, j] * right[j]
        right[k] = s / system[k, k]
    return independent


@compiled(meanwhile=_meanwhile_descent.ascending)
def ascending(keys: FloatArray) -> IntArray:
    """Return the order that sorts the keys, stable, by merging runs of doubled length."""
    count = keys.size
    order = np.empty(count, dtype=np.int64)
    other = np.empty(count, dtype=np.int64)
    for k in range(count):
        order[k] = k
    width = 1
    while width < count:
        for start in range(0, count, 2 * width):
            left = start
            middle = min(start + width, count)
            right = middle
            stop = min(start + 2 * width, count)
            for k in range(start, stop):
                if right >= stop or (left < middle and keys[order[left]] <= keys[order[right]]):
                    other[k] = order[left]
                    left += 1
                else:
                    other[k] = order[right]
                    right += 1
        order, other = other, order
        width *= 2
    return order


@compiled(meanwhile=_meanwhile_descent.orthonormalise, borrows=True)
def orthonormalise(basis: FloatArray, k: int) -> float:
    """Orthonormalise row k against the rows before it; return its distance from their span."""
    d = basis.shape[1]
    distance = 1.0
    for sweep in range(2):
        for a in range(k):
            s = 0.0
            for c in range(d):
                s += basis[a, c] * basis[k, c]
            for c in range(d):
                basis[k, c] -= s * basis[a, c]
        s = 0.0
        for c in range(d):
            s += basis[k, c] * basis[k, c]
        s = np.sqrt(s)
        if s == 0.0:
            return 0.0
        for c in range(d):
            basis[k, c] /= s
        if sweep == 0:
            distance = s
    return distance


@compiled(borrows=True)
def complete(basis: FloatArray, first: int, last: int) -> None:
    """Fill rows with an orthonormal basis of the complement of the rows before them, as far as it
    goes."""
    d = basis.shape[1]
    for k in range(first, last):
        best = 0
        smallest = 2.0
        for c in range(d):
            s = 0.0
            for a in range(k):
                s += basis[a, c] * basis[a, c]
            if s < smallest:
                smallest = s
                best = c
        for c in range(d):
            basis[k, c] = 0.0
        basis[k, best] = 1.0
        orthonormalise(basis, k)


@compiled(borrows=True)
def eliminate(system: FloatArray, count: int) -> bool:
    """Reduce the first ``count`` rows and columns, with a right-hand side after them, to a diagonal
    in place, with row pivots; return whether they are regular."""
    for k in range(count):
        pivot = k
        for a in range(k + 1, count):
            if abs(system[a, k]) > abs(system[pivot, k]):
                pivot = a
        if system[pivot, k] == 0.0:
            return False
        if pivot != k:
            for b in range(count + 1):
                swap = system[k, b]
                system[k, b] = system[pivot, b]
                system[pivot, b] = swap
        for a in range(count):
            if a != k:
                f = system[a, k] / system[k, k]
                for b in range(k, count + 1):
                    system[a, b] -= f * system[k, b]
    return True
