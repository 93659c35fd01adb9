"""In NumPy, what runs in place of the kernels of programs over given patterns while their machine
code is made: projections onto cones, gated networks and ADMM.

Arguments, effects and results are those of the kernel that names them."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu._problem import BoolArray, IntArray


def project(
    X: FloatArray,
    norms: FloatArray,
    patterns: BoolArray,
    g: FloatArray,
    threshold: float,
    support: IntArray,
    multipliers: FloatArray,
    nearest: FloatArray,
    values: FloatArray,
) -> None:
    outward, units = np.where(patterns, 1.0, -1.0), 1.0 / np.where(norms > 0.0, norms, np.inf)
    left = np.arange(len(g))  # all at once, each at its own pace
    for _ in range(30 * (X.shape[1] + 3)):
        if left.size == 0:
            return
        rows, lam = support[left], multipliers[left]
        within = rows >= 0
        A = np.where(within, outward[left[:, None], rows], 0.0)[:, :, None] * X[rows]
        gram = A @ A.transpose(0, 2, 1) + ~within[:, :, None] * np.eye(X.shape[1])
        ends = np.linalg.solve(gram, -A @ g[left][:, :, None])[:, :, 0]
        falls = within & (ends <= 0.0)
        steps = np.where(falls, lam / np.where(lam > ends, lam - ends, 1.0), 1.0)
        lam += steps.min(axis=1)[:, None] * (ends - lam)
        e = np.flatnonzero(falls.any(axis=1))
        first = np.where(falls, steps, np.inf)[e].argmin(axis=1)
        rows[e, first], lam[e, first] = -1, 0.0
        nearest[left] = w = g[left] + np.einsum("pk,pka->pa", lam, A)
        values[left] = length = np.linalg.norm(w, axis=1)
        sides = outward[left] * (w @ X.T) * units
        worst = sides.argmin(axis=1)
        ended = within.all(axis=1) | (sides.min(axis=1) >= -1e-13 * length)
        ended |= (rows == worst[:, None]).any(axis=1)
        ended[e] = False
        ended |= length <= threshold
        e = np.flatnonzero(~ended & ~falls.any(axis=1))
        rows[e, rows[e].argmin(axis=1)] = worst[e]
        support[left], multipliers[left] = rows, lam
        left = left[~ended]


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


def multiply(a: FloatArray, b: FloatArray, product: FloatArray) -> None:
    np.multiply(a, b, out=product)


def subtract(kappa: FloatArray, gate: FloatArray, f: FloatArray, v: FloatArray) -> None:
    v -= kappa * gate * f


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
