"""In NumPy, what runs in place of the kernels of local training while their machine code is made:
the small steps, the faces and the line search, each with the arguments, the effects and the result
of the kernel that names it."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._problem import BoolArray, IntArray


def row_norms(X: FloatArray) -> FloatArray:
    norms: FloatArray = np.sqrt(np.sum(X * X, axis=1))
    return norms


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
    d, alive = X.shape[1], np.any(p != 0.0, axis=1)
    alive[:linear] = True
    held = tight & alive[:, None]
    count = held.sum(axis=1)
    first = np.argsort(~held, axis=1, kind="stable")[:, :d]
    within = np.arange(d) < count[:, None]
    units = X / np.where(norms > 0.0, norms, 1.0)[:, None]
    Q, R = np.linalg.qr(np.where(within[:, :, None], units[first], 0.0).transpose(0, 2, 1))
    basis[alive] = Q.transpose(0, 2, 1)[alive]
    dependent = within & (np.abs(np.diagonal(R, axis1=1, axis2=2)) <= 1e-11)
    for j in np.flatnonzero((count > d) | dependent.any(axis=1)):
        count[j] = face(X, tight[j], norms, basis[j])
    size[:] = np.where(alive, d - count, 0)
    held_basis = np.where((np.arange(d) < count[:, None])[:, :, None], basis, 0.0)
    p -= np.einsum("jac,ja->jc", held_basis, np.einsum("jac,jc->ja", held_basis, p))
    length[:] = np.linalg.norm(p, axis=1)
    gone = (size == 0) | (length == 0.0)
    gone[:linear] = False
    p[gone], size[gone] = 0.0, 0
    return int(size.sum())


def face(X: FloatArray, tight: BoolArray, norms: FloatArray, basis: FloatArray) -> int:
    k, d = 0, X.shape[1]
    for i in np.flatnonzero(tight):
        if k < d:
            basis[k] = X[i] / norms[i]
            k += orthonormalise(basis, k) > 1e-11
    basis[:] = np.linalg.qr(basis[:k].T, mode="complete")[0].T
    return k


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
    d = X.shape[1]
    j = linear + np.flatnonzero((size[linear:] > 0) & (size[linear:] < d))
    count, chosen, work = d - size[j], tight[j], np.empty((d, d))
    for e in np.flatnonzero(chosen.sum(axis=1) > count):
        k = 0
        for i in np.flatnonzero(chosen[e]):
            work[k] = X[i] / norms[i]
            chosen[e, i] = k < count[e] and orthonormalise(work, k) > 1e-11
            k += int(chosen[e, i])
    listed = np.argsort(~chosen, axis=1, kind="stable")[:, :d]
    within = np.arange(d) < count[:, None]
    rows, lengths, outer = np.where(within[:, :, None], X[listed], 0.0), norms[listed], v[listed]
    gradient = sigma[j, None] * (np.where(active[j] & ~tight[j], v, 0.0) @ X)
    mu = np.einsum("jac,jc->ja", rows, beta * p[j] / length[j, None] - gradient)
    for held, part, size_of in zip(rows, mu, count, strict=True):
        solve(held[:size_of] @ held[:size_of].T, part[:size_of], 1e-15)
    slopes = np.stack([sigma[j, None] * outer - mu, mu], axis=2) * lengths[:, :, None]
    if not crossing:
        side = np.take_along_axis(active[j], listed, axis=1)
        slopes[np.stack([~side, side], axis=2)] = -1.0
    slopes[~within] = -1.0
    best = slopes.reshape(len(j), 2 * listed.shape[1]).argmax(axis=1)
    moved = np.flatnonzero(slopes.max(axis=(1, 2), initial=-1.0) > 1e-10 * beta)
    which = j[moved], listed[moved, best[moved] // 2]
    tight[which], active[which] = False, best[moved] % 2 == 0
    return moved.size > 0


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


def merge(
    X: FloatArray,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    linear: int,
    crossing: bool,
) -> None:
    for j in range(linear, len(p)):
        apart = active[j] != active[j + 1 :]
        if crossing:
            apart &= ~tight[j] & ~tight[j + 1 :]
        alike = p[j + 1 :].any(axis=1) & (sigma[j + 1 :] == sigma[j]) & ~apart.any(axis=1)
        for k in j + 1 + np.flatnonzero(alike & p[j].any()):
            # The sides of what has been merged before count, too.
            if not np.any((active[j] != active[k]) & ~tight[j] & ~tight[k]):
                p[j] += p[k]
                p[k] = 0.0
                new = tight[j] & ~tight[k]
                active[j, new], tight[j, new] = active[k, new], False


def residual(b: FloatArray, kappa: FloatArray, f: FloatArray, v: FloatArray) -> None:
    v[:] = b - kappa * f


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
    towards = np.where(on, -rates, rates)
    bends = (towards > small) & ~fixed
    bends[alive < linear] = False
    j, i = np.nonzero(bends)
    at = np.maximum(np.where(on[j, i], z[j, i], -z[j, i]), 0.0) / towards[j, i]
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
