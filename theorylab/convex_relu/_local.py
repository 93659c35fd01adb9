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

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_descent
from theorylab.convex_relu._elementary import orthonormalise, row_norms, solve
from theorylab.convex_relu._face_steps import project, release
from theorylab.convex_relu._lengths import merge, rescale
from theorylab.convex_relu._line_search import add_outputs, residual, search
from theorylab.convex_relu._problem import BoolArray, IntArray
from theorylab.numerics.compiled import compiled


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
) -> tuple[int, int, float]:
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
        Steps taken, 1 if every neuron is stationary, and about the nanoseconds they take.
    """
    n, d = X.shape
    m = p.shape[0]
    norms = row_norms(X)
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
    cuts = 0
    last = -1
    before = np.inf
    again = True
    work = 0.0
    for iteration in range(max_iter):
        if again:
            rescale(X, b, kappa, beta, p, sigma, active, tight, linear)
            merge(X, p, sigma, active, tight, linear, crossing)
            again = False
        total = project(X, norms, p, tight, linear, basis, size, length)
        if total == 0:
            return iteration, 1, work
        work += 0.1 * total * total * (n + total)
        _preactivations(X, p, size, z)
        add_outputs(sigma, active, tight, size, z, f)
        residual(b, kappa, f, v)
        columns = np.empty((total, n))
        weighted = np.empty((total, n))
        hessian = np.empty((total, total))
        gradient = np.empty(total)
        _columns(X, kappa, sigma, active, tight, basis, size, columns, weighted)
        np.dot(columns, weighted.T, hessian)
        np.dot(columns, v, gradient)
        largest = _penalise(beta, p, linear, basis, size, length, gradient, hessian)
        if largest <= tol * beta or stalls >= 3:
            if not release(
                X, v, beta, p, sigma, active, tight, norms, length, size, linear, crossing
            ):
                return iteration, 1 if largest <= 1e3 * tol * beta else 0, work
            stalls = 0
            continue
        cap, capped = _direction(hessian, gradient, p, linear, basis, size, length, delta)
        moved = 0.0
        while True:
            alpha, which = search(
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
            work += 8.0 * m * n
            cap -= alpha
            if which < 0 or cap <= 0.0:
                break
            # The neuron that met a kink goes on along it, the others as before.
            j = which // n
            tight[j, which % n] = True
            k = d - size[j]
            for c in range(d):
                basis[j, k, c] = X[which % n, c] / norms[which % n]
            if orthonormalise(basis[j], k) <= 1e-11:
                break
            size[j] -= 1
            s = 0.0
            for c in range(d):
                s += basis[j, k, c] * delta[j, c]
            for c in range(d):
                delta[j, c] -= s * basis[j, k, c]
            if size[j] == 0:
                for c in range(d):
                    p[j, c] = 0.0
                break
        again = capped >= 0 and cap <= 1e-9
        cuts = cuts + 1 if again and capped == last else 0
        last = capped if again else -1
        # Near the end a gradient that no longer falls is rounding.
        noise = largest <= 1e3 * tol * beta and largest > 0.5 * before
        before = largest
        stalls = stalls + 1 if moved <= 0.0 or noise else 0
        # Neurons as short as rounding errors hold the others up, and spoil their system; so do
        # longer ones that the choice of lengths restores as often as steps cut them.
        short = _negligible(p)
        stuck = again and length[capped] <= short * 100.0**cuts
        if stalls > 0 or stuck:
            for j in range(linear, m):
                if size[j] > 0 and (length[j] <= short or (stuck and j == capped)):
                    for c in range(d):
                        p[j, c] = 0.0
                    again = False
                    stalls = 0
    return max_iter, 0, work


@compiled
def _negligible(p: FloatArray) -> float:
    largest = 0.0
    for length in row_norms(p):
        largest = max(largest, length)
    return 1e-12 * largest


@compiled(meanwhile=_meanwhile_descent.preactivations, borrows=True)
def _preactivations(X: FloatArray, p: FloatArray, size: IntArray, z: FloatArray) -> None:
    n, d = X.shape
    for j in range(p.shape[0]):
        if size[j] > 0:
            for i in range(n):
                s = 0.0
                for c in range(d):
                    s += X[i, c] * p[j, c]
                z[j, i] = s


@compiled(meanwhile=_meanwhile_descent.columns, borrows=True)
def _columns(
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
    """Write the derivatives of the output in the coordinates of the faces, and kappa times
    them."""
    n, d = X.shape
    row = 0
    for j in range(size.size):
        for a in range(d - size[j], d):
            for i in range(n):
                s = 0.0
                if active[j, i] and not tight[j, i]:
                    for c in range(d):
                        s += X[i, c] * basis[j, a, c]
                    s *= sigma[j]
                columns[row, i] = s
                weighted[row, i] = s * kappa[i]
            row += 1


@compiled
def _penalise(
    beta: float,
    p: FloatArray,
    linear: int,
    basis: FloatArray,
    size: IntArray,
    length: FloatArray,
    gradient: FloatArray,
    hessian: FloatArray,
) -> float:
    """Make the gradient and the Hessian of the data term those of F; return the largest entry of
    the gradient."""
    m, d = p.shape
    unit = np.empty(d)
    row = 0
    for k in range(gradient.size):
        gradient[k] = -gradient[k]
    for j in range(m):
        if size[j] > 0 and j >= linear:
            bend = beta / length[j]
            for a in range(size[j]):
                s = 0.0
                for c in range(d):
                    s += basis[j, d - size[j] + a, c] * p[j, c]
                unit[a] = s / length[j]
            for a in range(size[j]):
                gradient[row + a] += beta * unit[a]
                # More than rounding takes: what is left along the neuron is not negative.
                hessian[row + a, row + a] += bend * (1.0 + 1e-14)
                for c in range(size[j]):
                    hessian[row + a, row + c] -= bend * unit[a] * unit[c]
        row += size[j]
    largest = 0.0
    for value in gradient:
        largest = max(largest, abs(value))
    return largest


@compiled(borrows=True)
def _direction(
    hessian: FloatArray,
    gradient: FloatArray,
    p: FloatArray,
    linear: int,
    basis: FloatArray,
    size: IntArray,
    length: FloatArray,
    delta: FloatArray,
) -> tuple[float, int]:
    """Write the Newton direction; return the longest step up to one that leaves a hundredth of
    every neuron along itself, and the neuron that bounds it, or -1."""
    m, d = p.shape
    for k in range(gradient.size):
        gradient[k] = -gradient[k]
        hessian[k, k] *= 1.0 + 1e-11
    solve(hessian, gradient, 1e-15)
    row = 0
    cap = 1.0
    capped = -1
    for j in range(m):
        for c in range(d):
            delta[j, c] = 0.0
        for a in range(d - size[j], d):
            for c in range(d):
                delta[j, c] += gradient[row] * basis[j, a, c]
            row += 1
        if j < linear or size[j] == 0:
            continue
        s = 0.0
        for c in range(d):
            s -= delta[j, c] * p[j, c]
        if s * cap > 0.99 * length[j] * length[j]:
            cap = 0.99 * length[j] * length[j] / s
            capped = j
    return cap, capped
