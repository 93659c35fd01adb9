"""In NumPy, what runs in place of the kernels of local training while their machine code is made:
the small steps, the faces and the line search, each with the arguments, the effects and the result
of the kernel that names it."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._problem import BoolArray, IntArray


def solve(system: FloatArray, right: FloatArray, tolerance: float) -> bool:
    least = tolerance * system.diagonal()
    with suppress(np.linalg.LinAlgError):  # semidefinite
        L = np.linalg.cholesky(system.T)  # of the upper triangle
        if np.all(L.diagonal() ** 2 > least):
            right[:] = np.linalg.solve(L.T, np.linalg.solve(L, right))
            return True
    independent = True
    for k in range(right.size):
        top = system[k]
        if top[k] <= least[k]:
            top[k] = np.inf
            independent = False
            continue
        factors = top[k + 1 :] / top[k]
        right[k + 1 :] -= factors * right[k]
        system[k + 1 :, k + 1 :] -= np.outer(factors, top[k + 1 :])
    for k in range(right.size - 1, -1, -1):
        right[k] = (right[k] - system[k, k + 1 :] @ right[k + 1 :]) / system[k, k]
    return independent


def ascending(keys: FloatArray) -> IntArray:
    return np.argsort(keys, kind="stable").astype(np.int64)


def orthonormalise(basis: FloatArray, k: int) -> float:
    row, before = basis[k], basis[:k]
    distances = []
    for _ in range(2):
        row -= (before @ row) @ before
        distances.append(float(np.sqrt(row @ row)))
        if distances[-1] == 0.0:
            return 0.0
        row /= distances[-1]
    return distances[0]


def complete(basis: FloatArray, first: int, last: int) -> None:
    for k in range(first, last):
        best = np.argmin(np.sum(basis[:k] ** 2, axis=0))
        basis[k] = 0.0
        basis[k, best] = 1.0
        orthonormalise(basis, k)


def face(X: FloatArray, tight: BoolArray, norms: FloatArray, basis: FloatArray) -> int:
    k, d = 0, X.shape[1]
    listed = np.flatnonzero(tight)
    if 0 < listed.size <= d:
        Q, R = np.linalg.qr((X[listed] / norms[listed, None]).T, mode="complete")
        if np.all(np.abs(R.diagonal()) > 1e-11):
            basis[:] = Q.T
            return int(listed.size)
    for i in listed:
        if k < d:
            basis[k] = X[i] / norms[i]
            k += orthonormalise(basis, k) > 1e-11
    complete(basis, k, d)
    return k


def multipliers(
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
    on = active & ~tight
    mu: FloatArray = rows @ (beta * p / length - sigma * (v[on] @ X[on]))
    solve(rows @ rows.T, mu, 1e-15)
    return mu


def preactivations(X: FloatArray, p: FloatArray, size: IntArray, z: FloatArray) -> None:
    alive = size > 0
    z[alive] = p[alive] @ X.T


def columns(
    X: FloatArray,
    kappa: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    basis: FloatArray,
    size: IntArray,
    columns: FloatArray,
    weighted: FloatArray,
) -> None:
    d = X.shape[1]
    j, a = np.nonzero(np.arange(d) >= d - size[:, None])
    columns[: j.size] = np.where(
        active[j] & ~tight[j], sigma[j][:, None] * (basis[j, a] @ X.T), 0.0
    )
    weighted[: j.size] = columns[: j.size] * kappa


def atoms(
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
    rest = b - kappa * (X @ p[:linear].sum(axis=0))
    j = linear + np.flatnonzero(lengths[linear:] > 0.0)
    outputs = sigma[j, None] * (p[j] @ X.T) / lengths[j, None]
    atoms[j] = np.where(active[j] & ~tight[j], outputs, 0.0)
    weighted[j] = kappa * atoms[j]
    slope[:] = -beta
    slope[j] += atoms[j] @ rest


def add_outputs(
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    size: IntArray,
    z: FloatArray,
    f: FloatArray,
) -> None:
    alive = size > 0
    f[:] = sigma[alive] @ np.where(active[alive] & ~tight[alive], z[alive], 0.0)


def kinks(
    X: FloatArray,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    norms: FloatArray,
    size: IntArray,
    z: FloatArray,
    delta: FloatArray,
    dz: FloatArray,
    linear: int,
    cap: float,
    squares: FloatArray,
    s: FloatArray,
    flat: FloatArray,
    where: IntArray,
) -> int:
    alive = np.flatnonzero(size > 0)
    p, delta, z, on, fixed = p[alive], delta[alive], z[alive], active[alive], tight[alive]
    squares[:, alive] += [np.sum(a * b, axis=1) for a, b in ((p, p), (p, delta), (delta, delta))]
    dz[alive] = rates = delta @ X.T
    s += sigma[alive] @ np.where(on & ~fixed, rates, 0.0)
    small = 1e-13 * np.outer(np.sqrt(squares[2, alive]), norms)
    bends = ~fixed & (on == (rates < 0.0)) & (np.abs(rates) > small)
    bends[alive < linear] = False
    j, i = np.nonzero(bends)
    at = np.maximum(np.where(on, z, -z)[j, i], 0.0) / np.abs(rates[j, i])
    before = at <= cap
    count = int(np.count_nonzero(before))
    flat[:count] = at[before]
    where[:count] = (alive[j] * X.shape[0] + i)[before]
    return count


def norm_slope(
    beta: float, alpha: float, size: IntArray, linear: int, squares: FloatArray
) -> float:
    alive = size > 0
    alive[:linear] = False
    pp, pd, dd = squares[:, alive]
    square = pp + alpha * (2.0 * pd + alpha * dd)
    kept = square > 0.0
    return beta * float(np.sum((pd + alpha * dd)[kept] / np.sqrt(square[kept])))


def advance(kappa: FloatArray, step: float, s: FloatArray, v: FloatArray) -> None:
    v -= step * kappa * s


def rates(kappa: FloatArray, v: FloatArray, s: FloatArray) -> tuple[float, float]:
    return -float(v @ s), float(kappa @ (s * s))


def move(
    alpha: float,
    p: FloatArray,
    z: FloatArray,
    delta: FloatArray,
    dz: FloatArray,
    size: IntArray,
) -> None:
    alive = size > 0
    p[alive] += alpha * delta[alive]
    z[alive] += alpha * dz[alive]
