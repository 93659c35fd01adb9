"""The weighted group lasso of gated networks: block coordinate descent, then Newton steps on the
support by preconditioned conjugate gradients."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_patterns
from theorylab.convex_relu._problem import BoolArray
from theorylab.numerics.budgets import Work
from theorylab.numerics.compiled import compiled

_ITERATIONS = 200  # of conjugate gradients, at most


def gated_output(X: FloatArray, gates: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the outputs of blocks, shape (P, d), gated by patterns, shape (P, n)."""
    support = np.flatnonzero(weights.any(axis=1))
    result: FloatArray = np.einsum("nk,kn->n", X @ weights[support].T, gates[support])
    return result


def weighted_group_lasso(
    X: FloatArray,
    patterns: BoolArray,
    grams: FloatArray,
    b: FloatArray,
    kappa: FloatArray,
    beta: float,
    start: FloatArray,
    f: FloatArray,
    accuracy: float,
    work: Work,
) -> tuple[FloatArray, FloatArray]:
    """Minimise ``sum(kappa f^2) / 2 - b @ f + beta sum |w_i|``; return the blocks and the
    output."""
    blocks = start.copy()
    v = b - kappa * f
    lipschitz = np.maximum(np.linalg.eigvalsh(grams)[:, -1] * kappa.max(), 1e-300)
    Xt, gates = np.ascontiguousarray(X.T), patterns.astype(np.float64)
    for _ in range(100):
        _coordinate_descent(Xt, gates, kappa, lipschitz, beta, blocks, v, 10, accuracy)
        active = np.flatnonzero(blocks.any(axis=1))
        if active.size == 0:
            break
        w = blocks[active]
        chosen = gates[active]
        lengths = np.linalg.norm(w, axis=1, keepdims=True)
        unit = w / lengths
        gradient = beta * unit - chosen @ (v[:, None] * X)
        small = float(np.linalg.norm(gradient, axis=1).max()) <= accuracy * beta
        if small or work.left <= 0.0:
            break
        sweeps = 10 * len(blocks) + _ITERATIONS * active.size
        work.left -= 2.0 * sweeps * (X.size + 2.0 * len(X))
        direction = _newton_direction(
            Xt, chosen, grams[active], kappa, beta, unit, lengths, gradient
        )
        s = np.einsum("nk,kn->n", X @ direction.T, chosen)
        step = _exact_step(v, kappa, s, beta, w, direction)
        blocks[active] = w + step * direction
        v -= step * kappa * s
    f = gated_output(X, gates, blocks)
    return blocks, f


def _newton_direction(
    Xt: FloatArray,
    gates: FloatArray,
    grams: FloatArray,
    kappa: FloatArray,
    beta: float,
    unit: FloatArray,
    lengths: FloatArray,
    gradient: FloatArray,
) -> FloatArray:
    """Solve the Newton system on the support by conjugate gradients, preconditioned with its
    diagonal blocks."""
    d = Xt.shape[0]
    bend = beta / lengths
    block = kappa.mean() * grams + bend[:, :, None] * (
        np.eye(d) - unit[:, :, None] * unit[:, None, :]
    )
    # The ridge keeps the preconditioner definite where rows are few.
    trace = np.trace(block, axis1=1, axis2=2)
    inverse = np.linalg.inv(block + 1e-10 * trace[:, None, None] * np.eye(d))
    direction = np.zeros_like(gradient)
    _conjugate_gradients(Xt, gates, kappa, bend[:, 0], unit, inverse, gradient, direction)
    return direction


@compiled(meanwhile=_meanwhile_patterns.conjugate_gradients)
def _conjugate_gradients(
    Xt: FloatArray,
    gates: FloatArray,
    kappa: FloatArray,
    bend: FloatArray,
    unit: FloatArray,
    inverse: FloatArray,
    gradient: FloatArray,
    x: FloatArray,
) -> None:
    """Solve ``H x = -gradient`` to a hundredth of the initial residual."""
    d, n = Xt.shape
    X = Xt.T
    blocks = gradient.shape[0]
    r = -gradient
    z = np.empty_like(r)
    p = np.zeros_like(r)
    q = np.empty_like(r)
    s = np.empty(n)
    work = np.empty(n)
    first = 0.0
    previous = 1.0
    for iteration in range(_ITERATIONS):
        rz = 0.0
        for i in range(blocks):
            np.dot(inverse[i], r[i], z[i])
            for a in range(d):
                rz += r[i, a] * z[i, a]
        if iteration == 0:
            first = rz
        elif rz <= 1e-4 * first:
            return
        ratio = rz / previous if iteration > 0 else 0.0
        previous = rz
        for e in range(n):
            s[e] = 0.0
        for i in range(blocks):
            for a in range(d):
                p[i, a] = z[i, a] + ratio * p[i, a]
            np.dot(X, p[i], work)
            _add_product(gates[i], work, s)
        _multiply(kappa, s, s)
        curvature = 0.0
        for i in range(blocks):
            radial = 0.0
            for a in range(d):
                radial += unit[i, a] * p[i, a]
            _multiply(gates[i], s, work)
            np.dot(Xt, work, q[i])
            for a in range(d):
                q[i, a] += bend[i] * (p[i, a] - radial * unit[i, a])
                curvature += p[i, a] * q[i, a]
        if curvature <= 0.0:
            return
        step = rz / curvature
        for i in range(blocks):
            for a in range(d):
                x[i, a] += step * p[i, a]
                r[i, a] -= step * q[i, a]


def _exact_step(
    v: FloatArray,
    kappa: FloatArray,
    s: FloatArray,
    beta: float,
    w: FloatArray,
    direction: FloatArray,
) -> float:
    """Minimise the convex function of one variable along the direction, over [0, 1]."""
    linear, quadratic = -float(v @ s), float(s @ (kappa * s))
    ww, wd, dd = (
        np.einsum("kd,kd->k", a, b) for a, b in ((w, w), (w, direction), (direction, direction))
    )

    def slope(t: float) -> float:
        length = np.sqrt(np.maximum(ww + t * (2.0 * wd + t * dd), 1e-300))
        return linear + t * quadratic + beta * float(np.sum((wd + t * dd) / length))

    if slope(1.0) <= 0.0:
        return 1.0
    return float(brentq(slope, 0.0, 1.0, xtol=1e-14)) if slope(0.0) < 0.0 else 0.0


@compiled
def _coordinate_descent(
    Xt: FloatArray,
    gates: FloatArray,
    kappa: FloatArray,
    lipschitz: FloatArray,
    beta: float,
    blocks: FloatArray,
    v: FloatArray,
    sweeps: int,
    accuracy: float,
) -> None:
    """Proximal steps block by block, ``v = b - kappa f`` kept up to date, until a sweep moves no
    block by much."""
    d, n = Xt.shape
    X = Xt.T
    masked = np.empty(n)
    g = np.empty(d)
    for _ in range(sweeps):
        largest = 0.0
        for i in range(blocks.shape[0]):
            _multiply(gates[i], v, masked)
            np.dot(Xt, masked, g)
            s = 0.0
            for a in range(d):
                g[a] = blocks[i, a] + g[a] / lipschitz[i]
                s += g[a] * g[a]
            s = np.sqrt(s)
            shrink = 1.0 - beta / (lipschitz[i] * s) if s * lipschitz[i] > beta else 0.0
            moved = 0.0
            for a in range(d):
                g[a] = shrink * g[a] - blocks[i, a]
                blocks[i, a] += g[a]
                moved += g[a] * g[a]
            if moved > 0.0:
                largest = max(largest, np.sqrt(moved) * lipschitz[i])
                np.dot(X, g, masked)
                _subtract(kappa, gates[i], masked, v)
        if largest <= accuracy * beta:
            break


@compiled(meanwhile=_meanwhile_patterns.multiply, borrows=True)
def _multiply(a: FloatArray, b: FloatArray, product: FloatArray) -> None:
    for e in range(a.size):
        product[e] = a[e] * b[e]


@compiled(borrows=True)
def _add_product(a: FloatArray, b: FloatArray, total: FloatArray) -> None:
    for e in range(a.size):
        total[e] += a[e] * b[e]


@compiled(meanwhile=_meanwhile_patterns.subtract, borrows=True)
def _subtract(kappa: FloatArray, gate: FloatArray, f: FloatArray, v: FloatArray) -> None:
    for e in range(v.size):
        v[e] -= kappa[e] * gate[e] * f[e]
