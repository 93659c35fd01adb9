r"""Active-set Newton descent for two-layer ReLU networks with a quadratic data term.

With $f=\sum_j\sigma_j(Xp_j)_+$, $\sigma_j=\pm1$, the kernel decreases

$$F(p)=\tfrac12 f^\top\mathrm{diag}(\kappa)f-b^\top f+\beta\sum_j\|p_j\|$$

until every neuron is stationary. Each $p_j$ lives on a face of the arrangement: the rows it
is tight to are held at zero, and on the product of the faces $F$ is smooth and convex. A
Newton direction is searched exactly through all kinks it meets: a kink is crossed where the slope
stays negative behind it and becomes tight where it does not. A tight row is released when its
multiplier says that a side of it descends. In cone mode every kink is the boundary of a given cell
and is never crossed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.numerics.compiled import compiled

BoolArray = NDArray[np.bool_]


@compiled
def descend(
    X: FloatArray,
    b: FloatArray,
    kappa: FloatArray,
    beta: float,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    linear: int,
    crossing: bool,
    max_iter: int,
    tol: float,
) -> tuple[int, int]:
    """Descend in place; neurons that vanish get ``p_j = 0``.

    Parameters
    ----------
    X
        Data, shape (n, d), of full column rank.
    b, kappa
        Linear and quadratic coefficients of the data term, shape (n,).
    beta
        Penalty.
    p, sigma
        Neurons, shape (m, d), and their signs, shape (m,).
    active, tight
        Side of every row for every neuron, shape (m, n), and the rows held at zero.
    linear
        Number of leading neurons that are linear maps ``X p_j`` without penalty (0 or 1).
    crossing
        Whether kinks may be crossed.
    max_iter, tol
        Most Newton steps, and the reduced gradient, relative to ``beta``, at which a face counts as
        stationary.

    Returns
    -------
    tuple
        Steps taken, and 1 if every neuron is stationary.
    """
    n, d = X.shape
    m = p.shape[0]
    norms = np.empty(n)
    for i in range(n):
        norms[i] = np.sqrt((X[i] * X[i]).sum())
    z = np.zeros((m, n))
    dz = np.zeros((m, n))
    f = np.zeros(n)
    v = np.zeros(n)
    basis = np.zeros((m, d, d))
    size = np.zeros(m, dtype=np.int64)
    length = np.zeros(m)
    delta = np.zeros((m, d))
    flat = np.empty(m * n)
    where = np.empty(m * n, dtype=np.int64)
    stalls = 0
    rescale = True
    for iteration in range(max_iter):
        if rescale:
            _rescale(X, b, kappa, beta, p, sigma, active, tight, linear)
            _merge(X, p, sigma, active, tight, linear, crossing)
            rescale = False
        # Faces, and neurons projected onto them.
        total = 0
        for j in range(m):
            size[j] = 0
            length[j] = 0.0
            if j < linear:
                size[j] = d
                basis[j] = np.eye(d)
                length[j] = 1.0
                total += size[j]
                continue
            if not np.any(p[j]):
                continue
            k = _face(X, tight[j], norms, basis[j])
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
            if size[j] == 0 or length[j] == 0.0:
                p[j] = 0.0
                size[j] = 0
                continue
            total += size[j]
        f[:] = 0.0
        for j in range(m):
            if size[j] > 0:
                for i in range(n):
                    s = 0.0
                    for c in range(d):
                        s += X[i, c] * p[j, c]
                    z[j, i] = s
                    if active[j, i] and not tight[j, i]:
                        f[i] += sigma[j] * s
        for i in range(n):
            v[i] = b[i] - kappa[i] * f[i]
        if total == 0:
            return iteration, 1
        # Reduced gradient and Hessian.
        columns = np.empty((total, n))
        weighted = np.empty((total, n))
        gradient = np.empty(total)
        hessian = np.zeros((total, total))
        row = 0
        for j in range(m):
            for a in range(d - size[j], d):
                if size[j] == 0:
                    break
                for i in range(n):
                    s = 0.0
                    if active[j, i] and not tight[j, i]:
                        for c in range(d):
                            s += X[i, c] * basis[j, a, c]
                        s *= sigma[j]
                    columns[row, i] = s
                    weighted[row, i] = s * kappa[i]
                row += 1
        hessian[:, :] = columns @ weighted.T
        gradient[:] = -(columns @ v)
        row = 0
        for j in range(m):
            if size[j] == 0 or j < linear:
                row += size[j]
                continue
            k = d - size[j]
            unit = basis[j, k:] @ p[j] / length[j]
            for a in range(size[j]):
                gradient[row + a] += beta * unit[a]
                hessian[row + a, row + a] += beta / length[j]
                for c in range(size[j]):
                    hessian[row + a, row + c] -= beta / length[j] * unit[a] * unit[c]
            row += size[j]
        largest = np.abs(gradient).max()
        if largest <= tol * beta or stalls >= 3:
            if not _release(
                X, v, beta, p, sigma, active, tight, norms, length, size, linear, crossing
            ):
                return iteration, 1 if largest <= 1e3 * tol * beta else 0
            stalls = 0
            continue
        scale = 0.0
        for a in range(total):
            scale = max(scale, hessian[a, a])
        for a in range(total):
            hessian[a, a] += 1e-11 * scale
        step = np.linalg.solve(hessian, -gradient)
        row = 0
        cap = 1.0
        capped = -1
        for j in range(m):
            for c in range(d):
                delta[j, c] = 0.0
            if size[j] == 0:
                continue
            for a in range(size[j]):
                for c in range(d):
                    delta[j, c] += step[row + a] * basis[j, d - size[j] + a, c]
            row += size[j]
            if j < linear:
                continue
            s = 0.0
            for c in range(d):
                s -= delta[j, c] * p[j, c]
            if s * cap > 0.99 * length[j] * length[j]:
                cap = 0.99 * length[j] * length[j] / s
                capped = j
        moved = 0.0
        while True:
            alpha, which = _search(
                X,
                b,
                kappa,
                beta,
                p,
                sigma,
                active,
                tight,
                norms,
                size,
                f,
                z,
                delta,
                dz,
                linear,
                crossing,
                cap,
                flat,
                where,
            )
            moved += alpha
            cap -= alpha
            if which < 0 or cap <= 0.0:
                break
            # The neuron that met a kink goes on along it, the others as before.
            j = which // n
            tight[j, which % n] = True
            k = d - size[j]
            for c in range(d):
                basis[j, k, c] = X[which % n, c] / norms[which % n]
            if _append(basis[j], k) <= 1e-11:
                break
            size[j] -= 1
            s = 0.0
            for c in range(d):
                s += basis[j, k, c] * delta[j, c]
            for c in range(d):
                delta[j, c] -= s * basis[j, k, c]
            if size[j] == 0:
                p[j] = 0.0
                break
        rescale = capped >= 0 and cap <= 1e-9
        stalls = stalls + 1 if moved <= 0.0 else 0
        negligible = 1e-12 * np.sqrt((p * p).sum(axis=1).max())
        if stalls > 0 or (rescale and length[capped] <= negligible):
            # Neurons as short as rounding errors hold the others up, and spoil their system.
            for j in range(linear, m):
                if size[j] > 0 and length[j] <= negligible:
                    p[j] = 0.0
                    rescale = False
                    stalls = 0
    return max_iter, 0


@compiled
def _face(X: FloatArray, tight: BoolArray, norms: FloatArray, basis: FloatArray) -> int:
    """Fill the basis: first the span of the tight rows, then its complement; return the dimension
    of the span."""
    n, d = X.shape
    k = 0
    for i in range(n):
        if tight[i] and k < d:
            for c in range(d):
                basis[k, c] = X[i, c] / norms[i]
            if _append(basis, k) > 1e-11:
                k += 1
    full = k
    while full < d:
        best = 0
        smallest = 2.0
        for c in range(d):
            s = 0.0
            for a in range(full):
                s += basis[a, c] * basis[a, c]
            if s < smallest:
                smallest = s
                best = c
        for c in range(d):
            basis[full, c] = 0.0
        basis[full, best] = 1.0
        _append(basis, full)
        full += 1
    return k


@compiled
def _append(basis: FloatArray, k: int) -> float:
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


@compiled
def _norm_slope(
    beta: float,
    alpha: float,
    size: NDArray[np.int64],
    linear: int,
    pp: FloatArray,
    pd: FloatArray,
    dd: FloatArray,
) -> float:
    value = 0.0
    for j in range(linear, pp.size):
        if size[j] > 0:
            square = pp[j] + alpha * (2.0 * pd[j] + alpha * dd[j])
            if square > 0.0:
                value += (pd[j] + alpha * dd[j]) / np.sqrt(square)
    return beta * value


@compiled
def _search(
    X: FloatArray,
    b: FloatArray,
    kappa: FloatArray,
    beta: float,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    norms: FloatArray,
    size: NDArray[np.int64],
    f: FloatArray,
    z: FloatArray,
    delta: FloatArray,
    dz: FloatArray,
    linear: int,
    crossing: bool,
    cap: float,
    flat: FloatArray,
    where: NDArray[np.int64],
) -> tuple[float, int]:
    """Minimise F along the direction, updating p, z and f; return the step and the neuron and row
    of a kink that stopped it."""
    n, d = X.shape
    m = p.shape[0]
    pp = np.zeros(m)
    pd = np.zeros(m)
    dd = np.zeros(m)
    s = np.zeros(n)
    v = np.empty(n)
    count = 0
    for j in range(m):
        if size[j] == 0:
            continue
        for c in range(d):
            pp[j] += p[j, c] * p[j, c]
            pd[j] += p[j, c] * delta[j, c]
            dd[j] += delta[j, c] * delta[j, c]
        small = 1e-13 * np.sqrt(dd[j])
        for i in range(n):
            t = 0.0
            for c in range(d):
                t += X[i, c] * delta[j, c]
            dz[j, i] = t
            if tight[j, i]:
                continue
            if active[j, i]:
                s[i] += sigma[j] * t
            if j < linear:
                continue
            if abs(t) <= small * norms[i]:
                continue
            if active[j, i] == (t < 0.0):
                at = max(z[j, i] if active[j, i] else -z[j, i], 0.0) / abs(t)
                if at <= cap:
                    flat[count] = at
                    where[count] = j * n + i
                    count += 1
    order = np.argsort(flat[:count])
    for i in range(n):
        v[i] = b[i] - kappa[i] * f[i]
    alpha = 0.0
    stuck = -1
    curvature = 0.0
    rate = 0.0
    for i in range(n):
        curvature += kappa[i] * s[i] * s[i]
        rate -= v[i] * s[i]
    position = 0
    while True:
        end = flat[order[position]] if position < count else cap
        slope = rate + (end - alpha) * curvature + _norm_slope(beta, end, size, linear, pp, pd, dd)
        if slope >= 0.0:
            low = alpha
            high = end
            for _ in range(60):
                middle = 0.5 * (low + high)
                if (
                    rate
                    + (middle - alpha) * curvature
                    + _norm_slope(beta, middle, size, linear, pp, pd, dd)
                    >= 0.0
                ):
                    high = middle
                else:
                    low = middle
                if high - low <= 1e-16 * high:
                    break
            alpha = low
            break
        if position >= count:
            alpha = cap
            break
        k = where[order[position]]
        j = k // n
        i = k % n
        for e in range(n):
            v[e] -= kappa[e] * (end - alpha) * s[e]
        alpha = end
        if not crossing or slope - sigma[j] * v[i] * abs(dz[j, i]) >= 0.0:
            stuck = k
            break
        if active[j, i]:
            s[i] -= sigma[j] * dz[j, i]
        else:
            s[i] += sigma[j] * dz[j, i]
        active[j, i] = not active[j, i]
        curvature = 0.0
        rate = 0.0
        for e in range(n):
            curvature += kappa[e] * s[e] * s[e]
            rate -= v[e] * s[e]
        position += 1
    for j in range(m):
        if size[j] > 0:
            for c in range(d):
                p[j, c] += alpha * delta[j, c]
            for i in range(n):
                z[j, i] += alpha * dz[j, i]
    for i in range(n):
        f[i] = 0.0
    for j in range(m):
        if size[j] > 0:
            for i in range(n):
                if active[j, i] and not tight[j, i]:
                    f[i] += sigma[j] * z[j, i]
    return alpha, stuck


@compiled
def _rescale(
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
    """Minimise F over the lengths of the neurons, a non-negative lasso, by an active-set method;
    unneeded neurons become zero."""
    n, d = X.shape
    m = p.shape[0]
    atoms = np.zeros((m, n))
    rest = b.copy()
    if linear > 0:
        rest -= kappa * (X @ p[0])
    for j in range(linear, m):
        s = np.sqrt((p[j] * p[j]).sum())
        if s == 0.0:
            continue
        for i in range(n):
            if active[j, i] and not tight[j, i]:
                t = 0.0
                for c in range(d):
                    t += X[i, c] * p[j, c]
                atoms[j, i] = sigma[j] * t / s
    gram = (atoms * kappa) @ atoms.T
    slope = atoms @ rest - beta
    scale = 0.0
    for j in range(m):
        scale = max(scale, gram[j, j])
    length = np.zeros(m)
    passive = np.zeros(m, dtype=np.bool_)
    for j in range(linear, m):
        length[j] = np.sqrt((p[j] * p[j]).sum())
        passive[j] = length[j] > 0.0
        gram[j, j] += 1e-13 * scale
    old = length.copy()
    for _ in range(4 * m):
        while True:
            size = 0
            index = np.empty(m, dtype=np.int64)
            for j in range(m):
                if passive[j]:
                    index[size] = j
                    size += 1
            if size == 0:
                break
            system = np.empty((size, size))
            right = np.empty(size)
            for a in range(size):
                right[a] = slope[index[a]]
                for c in range(size):
                    system[a, c] = gram[index[a], index[c]]
            solution = np.linalg.solve(system, right)
            step = 1.0
            worst = -1
            for a in range(size):
                if solution[a] <= 0.0:
                    j = index[a]
                    t = length[j] / (length[j] - solution[a]) if length[j] > solution[a] else 0.0
                    if t < step or worst < 0:
                        step = t
                        worst = j
            for a in range(size):
                j = index[a]
                length[j] += step * (solution[a] - length[j])
            if worst < 0:
                break
            length[worst] = 0.0
            passive[worst] = False
        best = 1e-9 * beta
        which = -1
        for j in range(m):
            if old[j] > 0.0 and not passive[j]:
                t = slope[j]
                for k in range(m):
                    t -= gram[j, k] * length[k]
                if t > best:
                    best = t
                    which = j
        if which < 0:
            break
        passive[which] = True
    for j in range(m):
        if old[j] > 0.0:
            for c in range(d):
                p[j, c] *= length[j] / old[j]


@compiled
def _merge(
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
        if not np.any(p[j]):
            continue
        for k in range(j + 1, m):
            if sigma[j] != sigma[k] or not np.any(p[k]):
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


@compiled
def _release(
    X: FloatArray,
    v: FloatArray,
    beta: float,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    norms: FloatArray,
    length: FloatArray,
    size: NDArray[np.int64],
    linear: int,
    crossing: bool,
) -> bool:
    """Release, for every neuron, the tight row whose side descends most steeply; return whether
    there was one."""
    n, d = X.shape
    result = False
    for j in range(linear, p.shape[0]):
        if size[j] in (0, d):
            continue
        k = d - size[j]
        rows = np.empty((k, d))
        index = np.empty(k, dtype=np.int64)
        work = np.empty((d, d))
        found = 0
        for i in range(n):
            if tight[j, i] and found < k:
                for c in range(d):
                    work[found, c] = X[i, c] / norms[i]
                if _append(work, found) > 1e-11:
                    index[found] = i
                    rows[found] = X[i]
                    found += 1
        target = np.zeros(d)
        for i in range(n):
            if active[j, i] and not tight[j, i]:
                for c in range(d):
                    target[c] -= sigma[j] * v[i] * X[i, c]
        for c in range(d):
            target[c] += beta * p[j, c] / length[j]
        mu = np.linalg.solve(rows @ rows.T, rows @ target)
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
            # Rows tight only because of the others count as lying on the released side's flags.
            result = True
    return result
