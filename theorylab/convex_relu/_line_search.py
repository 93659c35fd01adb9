"""The exact search of active-set Newton descent along a direction, through all kinks it meets."""

from __future__ import annotations

import numpy as np

from theorylab._validation import FloatArray
from theorylab.convex_relu import _meanwhile_descent
from theorylab.convex_relu._elementary import ascending
from theorylab.convex_relu._problem import BoolArray, IntArray
from theorylab.numerics.compiled import compiled


@compiled
def search(
    X: FloatArray,
    b: FloatArray,
    kappa: FloatArray,
    beta: float,
    p: FloatArray,
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    norms: FloatArray,
    size: IntArray,
    f: FloatArray,
    z: FloatArray,
    delta: FloatArray,
    dz: FloatArray,
    linear: int,
    crossing: bool,
    cap: float,
    flat: FloatArray,
    where: IntArray,
) -> tuple[float, int]:
    """Minimise F along the direction, updating p, z and f; return the step and the neuron and row
    of a kink that stopped it."""
    n = X.shape[0]
    m = p.shape[0]
    squares = np.zeros((3, m))
    s = np.zeros(n)
    v = np.empty(n)
    count = _kinks(
        X, p, sigma, active, tight, norms, size, z, delta, dz, linear, cap, squares, s, flat, where
    )
    order = ascending(flat[:count])
    residual(b, kappa, f, v)
    alpha = 0.0
    stuck = -1
    rate, curvature = _rates(kappa, v, s)
    position = 0
    while True:
        end = flat[order[position]] if position < count else cap
        slope = rate + (end - alpha) * curvature + _norm_slope(beta, end, size, linear, squares)
        if slope >= 0.0:
            alpha = _root(alpha, end, rate, curvature, beta, size, linear, squares)
            break
        if position >= count:
            alpha = cap
            break
        k = where[order[position]]
        j = k // n
        i = k % n
        _advance(kappa, end - alpha, s, v)
        alpha = end
        if not crossing or slope - sigma[j] * v[i] * abs(dz[j, i]) >= 0.0:
            stuck = k
            break
        if active[j, i]:
            s[i] -= sigma[j] * dz[j, i]
        else:
            s[i] += sigma[j] * dz[j, i]
        active[j, i] = not active[j, i]
        rate, curvature = _rates(kappa, v, s)
        position += 1
    _move(alpha, p, z, delta, dz, size)
    add_outputs(sigma, active, tight, size, z, f)
    return alpha, stuck


@compiled(meanwhile=_meanwhile_descent.residual, borrows=True)
def residual(b: FloatArray, kappa: FloatArray, f: FloatArray, v: FloatArray) -> None:
    for i in range(b.size):
        v[i] = b[i] - kappa[i] * f[i]


@compiled(meanwhile=_meanwhile_descent.add_outputs, borrows=True)
def add_outputs(
    sigma: FloatArray,
    active: BoolArray,
    tight: BoolArray,
    size: IntArray,
    z: FloatArray,
    f: FloatArray,
) -> None:
    """Write the output of the neurons that are not zero."""
    m, n = z.shape
    for i in range(n):
        f[i] = 0.0
    for j in range(m):
        if size[j] > 0:
            for i in range(n):
                if active[j, i] and not tight[j, i]:
                    f[i] += sigma[j] * z[j, i]


@compiled(meanwhile=_meanwhile_descent.kinks, borrows=True)
def _kinks(
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
    """Write the kinks before the cap and where they are, the change s of the output, and
    ``|p|^2, p @ delta, |delta|^2``; return the number of kinks."""
    n, d = X.shape
    count = 0
    for j in range(p.shape[0]):
        if size[j] == 0:
            continue
        for c in range(d):
            squares[0, j] += p[j, c] * p[j, c]
            squares[1, j] += p[j, c] * delta[j, c]
            squares[2, j] += delta[j, c] * delta[j, c]
        small = 1e-13 * np.sqrt(squares[2, j])
        for i in range(n):
            t = 0.0
            for c in range(d):
                t += X[i, c] * delta[j, c]
            dz[j, i] = t
            if tight[j, i]:
                continue
            if active[j, i]:
                s[i] += sigma[j] * t
            if j < linear or abs(t) <= small * norms[i]:
                continue
            if active[j, i] == (t < 0.0):
                at = max(z[j, i] if active[j, i] else -z[j, i], 0.0) / abs(t)
                if at <= cap:
                    flat[count] = at
                    where[count] = j * n + i
                    count += 1
    return count


@compiled(meanwhile=_meanwhile_descent.norm_slope, borrows=True)
def _norm_slope(
    beta: float, alpha: float, size: IntArray, linear: int, squares: FloatArray
) -> float:
    value = 0.0
    for j in range(linear, size.size):
        if size[j] > 0:
            pd = squares[1, j]
            dd = squares[2, j]
            square = squares[0, j] + alpha * (2.0 * pd + alpha * dd)
            if square > 0.0:
                value += (pd + alpha * dd) / np.sqrt(square)
    return beta * value


@compiled(borrows=True)
def _root(
    start: float,
    end: float,
    rate: float,
    curvature: float,
    beta: float,
    size: IntArray,
    linear: int,
    squares: FloatArray,
) -> float:
    """Return where the slope changes sign."""
    low = start
    high = end
    for _ in range(60):
        middle = 0.5 * (low + high)
        slope = rate + (middle - start) * curvature
        if slope + _norm_slope(beta, middle, size, linear, squares) >= 0.0:
            high = middle
        else:
            low = middle
        if high - low <= 1e-16 * high:
            break
    return low


@compiled(meanwhile=_meanwhile_descent.advance, borrows=True)
def _advance(kappa: FloatArray, step: float, s: FloatArray, v: FloatArray) -> None:
    for i in range(v.size):
        v[i] -= kappa[i] * step * s[i]


@compiled(meanwhile=_meanwhile_descent.rates, borrows=True)
def _rates(kappa: FloatArray, v: FloatArray, s: FloatArray) -> tuple[float, float]:
    """Return slope and curvature of the data term in the direction of the output s."""
    rate = 0.0
    curvature = 0.0
    for i in range(v.size):
        curvature += kappa[i] * s[i] * s[i]
        rate -= v[i] * s[i]
    return rate, curvature


@compiled(meanwhile=_meanwhile_descent.move, borrows=True)
def _move(
    alpha: float,
    p: FloatArray,
    z: FloatArray,
    delta: FloatArray,
    dz: FloatArray,
    size: IntArray,
) -> None:
    for j in range(p.shape[0]):
        if size[j] > 0:
            for c in range(p.shape[1]):
                p[j, c] += alpha * delta[j, c]
            for i in range(z.shape[1]):
                z[j, i] += alpha * dz[j, i]
