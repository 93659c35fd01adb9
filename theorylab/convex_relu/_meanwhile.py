"""In NumPy, what runs in place of a kernel while its machine code is made: the kernels that take
longest to interpret, each with the arguments, the effects and the result of the kernel that names
it."""

from __future__ import annotations

from contextlib import suppress
from operator import mul

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

_EPS = float(np.finfo(float).eps)


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


def ascend(X: FloatArray, v: FloatArray, u: FloatArray, max_iter: int) -> float:
    trial, g = u.copy(), np.zeros(u.size)
    best, step = -np.inf, 1.0
    for _ in range(max_iter):
        s = X @ trial
        weights = np.where(s > 0.0, v, 0.0)
        value = float(weights @ s)
        if value > best:
            gain, best = value - best, value
            u[:] = trial
            g = weights @ X
            length = np.sqrt(g @ g)
            if length == 0.0 or gain <= 1e-12 * best:
                break
            g /= length
        else:
            step *= 0.25
            if step < 1e-3:
                break
        trial = u + step * (g - u)
        length = np.sqrt(trial @ trial)
        if length == 0.0:
            break
        trial /= length
    return best


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


def most_violated(
    X: FloatArray, norms: FloatArray, pattern: BoolArray, w: FloatArray, tolerance: float
) -> int:
    sides = np.where(pattern, 1.0, -1.0) * (X @ w) / np.where(norms > 0.0, norms, np.inf)
    which = int(np.argmin(sides))
    return which if sides[which] < -tolerance else -1


def normal_equations(
    X: FloatArray,
    pattern: BoolArray,
    g: FloatArray,
    rows: IntArray,
    size: int,
    columns: FloatArray,
    system: FloatArray,
    right: FloatArray,
) -> None:
    listed = rows[:size]
    columns[:size] = np.where(pattern[listed], 1.0, -1.0)[:, None] * X[listed]
    right[:] = -columns[:size] @ g
    system[:] = columns[:size] @ columns[:size].T


def exceeds(
    X: FloatArray,
    v: FloatArray,
    index: IntArray,
    m: int,
    t: FloatArray,
    s_cone: FloatArray,
    inverse: FloatArray,
    w: FloatArray,
    threshold: float,
    square: float,
) -> bool:
    length = np.sqrt(square)
    p = w @ inverse
    if np.any(p < -1e-12 * length * np.abs(inverse).sum(axis=0)):
        return False
    negative = v[index[:m]] < 0.0  # only these have slopes
    rows = index[:m][negative]
    x = v[rows] * (X[rows] @ w)
    low = square - s_cone @ p + np.minimum(x, 0.0).sum() - t[:m][negative] @ x
    return bool(low > threshold * length)


def sweep(
    X: FloatArray,
    v: FloatArray,
    index: IntArray,
    m: int,
    t: FloatArray,
    s_cone: FloatArray,
    inverse: FloatArray,
    w: FloatArray,
    wide: bool,
    free: IntArray,
) -> tuple[int, float]:
    # One coordinate after the other, of few entries each: lists are faster than arrays.
    at, values, off, moved = w.tolist(), t[:m].tolist(), [], 0.0
    weights, rows = v[index[:m]].tolist(), X[index[:m]].tolist()
    lines = [(e, weights[e], rows[e], 1.0) for e in range(m) if weights[e] < 0.0]
    if wide:
        lines += [(m + k, 1.0, column, np.inf) for k, column in enumerate(inverse.T.tolist())]
        values += s_cone.tolist()
    for e, weight, x, high in lines:
        square = sum(map(mul, x, x))
        bend = weight * square
        f = min(max(values[e] - sum(map(mul, x, at)) / bend, 0.0), high) if bend != 0.0 else 0.0
        step = (f - values[e]) * weight
        values[e] = f
        if step != 0.0:
            at = [a + step * b for a, b in zip(at, x, strict=True)]
            moved = max(moved, abs(step) * square**0.5)
        if 0.0 < f < high:
            off.append(e if e < m else m - 1 - e)
    w[:], t[:m], free[: len(off)] = at, values[:m], off
    if wide:
        s_cone[:] = values[m:]
    return len(off), moved


def drop(
    X: FloatArray,
    v: FloatArray,
    norms: FloatArray,
    g: FloatArray,
    index: IntArray,
    Z: FloatArray,
    count: int,
    mask: NDArray[np.int8],
) -> int:
    rows, values = index[:count].copy(), Z[:count]
    low, high = values.min(axis=1), values.max(axis=1)
    small = np.where(v[rows] < 0.0, low - high, 4.0 * _EPS * norms[rows])
    above = low >= -small
    g += v[rows[above]] @ X[rows[above]]
    mask[rows[above]] = 1
    kept = ~above & (high > small)
    m = int(np.count_nonzero(kept))
    index[:m] = rows[kept]
    Z[:m] = values[kept]
    return m


def interpolate(
    v: FloatArray,
    R: FloatArray,
    g: FloatArray,
    Z: FloatArray,
    index: IntArray,
    m: int,
    q: FloatArray,
    c: FloatArray,
    t: FloatArray,
) -> tuple[float, int]:
    q[:] = R.sum(axis=0)
    length = float(np.sqrt(q @ q))
    q /= length
    c[:] = R @ g
    values, weights = Z[:m], v[index[:m]]
    totals, positive = values.sum(axis=1), weights > 0.0
    centre = float(c.sum() + weights @ np.maximum(totals, 0.0))
    t[:m] = np.where(positive, t[:m], totals > 0.0)
    c += weights @ np.where(
        positive[:, None], np.maximum(values, 0.0), (totals > 0.0)[:, None] * values
    )
    return centre / length, int(np.count_nonzero(positive))


def write(
    out: BoolArray,
    written: int,
    current: BoolArray,
    flip: bool,
    subset: IntArray,
    j: int,
    lift: FloatArray,
) -> None:
    first = out[written]
    first[:] = current != flip
    first[subset] = lift[: subset.size] > 0.0
    first[j] = lift[subset.size] > 0.0
    out[written + 1] = ~first


def multiply(a: FloatArray, b: FloatArray, product: FloatArray) -> None:
    np.multiply(a, b, out=product)


def subtract(kappa: FloatArray, gate: FloatArray, f: FloatArray, v: FloatArray) -> None:
    v -= kappa * gate * f


def norm_slope(
    beta: float, alpha: float, size: IntArray, linear: int, squares: FloatArray
) -> float:
    alive = size > 0
    alive[:linear] = False
    pp, pd, dd = squares[:, alive]
    square = pp + alpha * (2.0 * pd + alpha * dd)
    kept = square > 0.0
    return beta * float(np.sum((pd + alpha * dd)[kept] / np.sqrt(square[kept])))


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


def rates(kappa: FloatArray, v: FloatArray, s: FloatArray) -> tuple[float, float]:
    return -float(v @ s), float(kappa @ (s * s))


def advance(kappa: FloatArray, step: float, s: FloatArray, v: FloatArray) -> None:
    v -= step * kappa * s


def divide(
    X: FloatArray,
    level: int,
    first: int,
    second: int,
    weight: float,
    m: int,
    rays: FloatArray,
    errors: FloatArray,
    rows: IntArray,
    z: FloatArray,
    new: FloatArray,
) -> None:
    child, weights, both = level + 1, np.array([weight, 1.0 - weight]), [first, second]
    new[:] = weights @ rays[level, both]
    length = np.sqrt(new @ new)
    new /= length
    error = weights @ errors[level, both] / length + 8 * new.size * _EPS
    errors[child], rays[child] = errors[level], rays[level]
    errors[child, first] = errors[level, second] = error
    rays[child, first] = rays[level, second] = new
    rows[child, :m] = rows[level, :m]
    z[child, :m] = z[level, :m]
    z[child, :m, first] = z[level, :m, second] = X[rows[level, :m]] @ new


def conjugate_gradients(
    Xt: FloatArray,
    gates: FloatArray,
    kappa: FloatArray,
    bend: FloatArray,
    unit: FloatArray,
    inverse: FloatArray,
    gradient: FloatArray,
    x: FloatArray,
) -> None:
    r, p = -gradient, np.zeros_like(gradient)
    first, previous = 0.0, np.inf
    for iteration in range(200):
        z = np.einsum("iab,ib->ia", inverse, r)
        rz = float(np.vdot(r, z))
        if iteration == 0:
            first = rz
        elif rz <= 1e-4 * first:
            return
        p = z + rz / previous * p
        previous = rz
        s = kappa * np.sum(gates * (p @ Xt), axis=0)
        q = (gates * s) @ Xt.T + bend[:, None] * (p - np.sum(unit * p, axis=1)[:, None] * unit)
        curvature = float(np.vdot(p, q))
        if curvature <= 0.0:
            return
        x += rz / curvature * p
        r -= rz / curvature * q


def iterate(
    X: FloatArray,
    D: FloatArray,
    inverse: FloatArray,
    system: FloatArray,
    fixed: FloatArray,
    threshold: float,
    rho: float,
    cones: bool,
    floor: float,
    q1: FloatArray,
    q2: FloatArray,
    v: FloatArray,
    residuals: FloatArray,
) -> int:
    P, signs = len(D), np.vstack([D, D]) * 2.0 - 1.0
    constant, XK = np.vstack([fixed, -fixed]) / rho, X @ inverse
    size, open_ = np.linalg.norm(q1, axis=1), q2 > 0.0
    active = size > threshold
    last = 0
    for k in range(residuals.size):
        shrink = np.where(active, 1.0 - threshold / np.where(active, size, 1.0), 0.0)
        v[:] = shrink[:, None] * q1
        targets = signs * (np.abs(q2) if cones else q2)
        H = (targets @ X + 2.0 * v - q1 + constant) @ inverse
        HX = H @ X.T
        shift = (D * (system @ np.sum(D * (HX[:P] - HX[P:]), axis=0))) @ XK
        H[:P] -= shift
        H[P:] += shift
        steps = H - v, signs * (H @ X.T) - (np.maximum(q2, 0.0) if cones else q2)
        q1 += steps[0]
        q2 += steps[1]
        residuals[k] = np.sqrt(sum(np.vdot(step, step) for step in steps))
        size, before, open_before = np.linalg.norm(q1, axis=1), active, open_
        active, open_ = size > threshold, q2 > 0.0
        changed = (active != before).any() or (cones and (open_ != open_before).any())
        if changed and residuals[k] > floor:
            last = k + 1
    return last
