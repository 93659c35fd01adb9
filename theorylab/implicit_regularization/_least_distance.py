r"""The shortest vector with $Zx\ge h$, and its multipliers.

The method is Lawson and Hanson's: a non-negative least squares problem whose residual is the
solution, by an active set that ends after finitely many steps; its support then gives both sides
by one triangular solve. A working set keeps the problem small where there are many rows."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray
from theorylab.numerics.progress import watcher

__all__ = ["EPS", "Ending", "combination", "least_distance", "precisely"]

EPS = float(np.finfo(float).eps)
HEAVY = 2.0**16  # weight of the intercept's equation beside entries of order one
ROUNDS = 60  # working sets, and units, that are tried
LARGE = 1e8  # numbers of the equations times the smaller side: what takes half a second and more


class Ending(Enum):
    """How a search ended."""

    DONE = "with the shortest vector, or the best of all rounds"
    NO_POINT = "no vector: weights of rows that combine to zero"
    STOPPED = "with the best of the rounds before it was told to stop"


def least_distance(
    Z: FloatArray,
    h: FloatArray,
    steps: int,
    labels: FloatArray | None = None,
    stops: Callable[..., bool] = watcher(None),
) -> tuple[FloatArray, FloatArray, Ending]:
    """Return the shortest x with Zx >= h, its multipliers, and how the search ended.

    With labels, Zx + b labels >= h for some number b, and labels @ a = 0. Each round is told: the
    length of its x, and by how much it misses the worst row.
    """
    n, d = Z.shape
    if d > n:  # all in the span of the rows
        basis, R = np.linalg.qr(Z.T)
        inner, a, ending = least_distance(np.ascontiguousarray(R.T), h, steps, labels, stops)
        return basis @ inner, a, ending
    rows = Z if labels is None else np.concatenate([HEAVY * labels[:, None], Z], axis=1)
    r = rows.shape[1]
    sizes = np.linalg.norm(Z, axis=1)
    # Every x is at least as long as a row needs, and a convex combination of rows.
    classes = [np.arange(n)] if labels is None else [np.flatnonzero(labels == s) for s in (1, -1)]
    middle = np.mean([Z[rank].mean(axis=0) for rank in classes], axis=0)
    if np.linalg.norm(middle) <= 64 * EPS * sizes.mean():
        p = np.full(n, 1 / n)
        return np.zeros(d), p if labels is None else _balanced(p, labels), Ending.NO_POINT
    lengths = np.append(sizes if labels is None else [], np.linalg.norm(middle))
    needs = np.append(h if labels is None else [], np.mean([h[rank].mean() for rank in classes]))
    unit = 1 / max(float(np.max(needs / np.maximum(lengths, 2.0**-40))), 2.0**-40)
    work, along = np.arange(n), Z @ middle - h
    if n > 4 * r:
        work = np.sort(np.concatenate([rank[np.argsort(along[rank])[:r]] for rank in classes]))
    best: tuple[float, FloatArray, FloatArray] | None = None
    scale = 1 + float(np.abs(h).max())
    ending, p = Ending.DONE, np.zeros(n)
    for round_ in range(1, ROUNDS + 1):
        weights, shift = _residual(rows[work], unit * h[work], steps, p[work] > 0)
        p = np.zeros(n)
        p[work] = weights
        if not p.any():
            lost = np.flatnonzero(h > 0)
            if h[work].max() > 0 or not lost.size:
                break
            # The rows at work need nothing; those that do join them.
            work = np.union1d(work, lost[np.argsort(-h[lost])[: 2 * r]])
            continue
        p /= p.sum()
        if labels is not None:
            p = _balanced(p, labels)
        back = precisely(Z, p)
        length, value = float(np.linalg.norm(back)), float(p @ h)
        if length <= 64 * EPS * float(p @ sizes) and value > 0:
            return np.zeros(d), p, Ending.NO_POINT
        x, a = back * (value / length**2), p * (value / length**2)
        x, a = _polished(Z, h, x, a, labels)
        slack = _slack(Z, h, x, labels)
        missed = float(-slack.min())
        reached = float(np.linalg.norm(x))
        if best is None or missed < best[0]:
            best = missed, x, a
        if stops(round_, reached, max(missed, 0.0)):
            ending = Ending.STOPPED
            break
        if missed <= 64 * EPS * scale * (1 + reached):
            break
        lost = np.setdiff1d(np.flatnonzero(slack < -1e-12 * scale), work, assume_unique=True)
        if lost.size:
            most = lost[np.argsort(slack[lost])[: 2 * r]]
            work = np.sort(np.concatenate([work, most]))
        elif shift < 1e-4 or unit * reached > 1e2:
            unit = min(unit / 64, 1 / reached)
        else:
            break
        if unit < 2.0**-60:
            break
    if best is None:
        return np.zeros(d), np.full(n, 1 / n), ending
    return best[1], best[2], ending


def _residual(
    rows: FloatArray, h: FloatArray, steps: int, support: NDArray[np.bool_] | None = None
) -> tuple[FloatArray, float]:
    """Return the weights u >= 0 that minimise |rows' u|^2 + (h u - 1)^2, and 1 - h u; large
    problems start from a support."""
    from scipy.optimize import nnls

    E = np.concatenate([rows.T, h[None]])
    unit = np.frexp(np.abs(E).max(axis=0))[1]
    target = np.zeros(len(E))
    target[-1] = 1.0
    E = np.ldexp(E, -unit)
    try:
        if E.size * min(E.shape) > LARGE:
            u = _active_set(E, target, steps, support)
        else:
            u, _ = nnls(E, target, maxiter=steps)
    except RuntimeError:
        return np.zeros(len(h)), 1.0
    u = np.ldexp(u, -unit)
    return u, float(1 - h @ u)


def _active_set(
    E: FloatArray, target: FloatArray, steps: int, support: NDArray[np.bool_] | None = None
) -> FloatArray:
    """Return the u >= 0 that minimises |Eu - target|, by Lawson and Hanson's method, a column at a
    time: unlike SciPy's it lets Ctrl-C through."""
    from scipy.linalg import qr, qr_delete, qr_insert, solve_triangular

    sizes = 16 * EPS * np.linalg.norm(E, axis=0)
    u = np.zeros(E.shape[1])
    P: list[int] = []
    Q: Any = np.empty((len(E), 0))
    R: Any = np.empty((0, 0))
    rest: FloatArray = target
    if support is not None and 0 < np.count_nonzero(support) < len(E):
        start = np.flatnonzero(support)
        basis, factor = qr(E[:, start], mode="economic")
        diagonal = np.abs(np.diag(factor))
        if diagonal.min() > 1e-10 * diagonal.max():
            z = solve_triangular(factor, basis.T @ target)
            if z.min() > 0:
                P, Q, R, u[start] = start.tolist(), basis, factor, z
                rest = target - E[:, start] @ z
    refused = np.zeros(len(u), bool)
    for _ in range(steps):
        slope = E.T @ rest
        open_ = (slope > sizes * np.linalg.norm(rest)) & ~refused
        open_[P] = False
        if not open_.any() or len(P) == len(E):
            return u
        j = int(np.argmax(np.where(open_, slope, -np.inf)))
        first = qr(E[:, [j]], mode="economic") if not P else None
        try:
            new = first or qr_insert(Q, R, E[:, j], len(P), which="col", check_finite=False)
            z = solve_triangular(new[1], new[0].T @ target, check_finite=False)
        except np.linalg.LinAlgError:  # in the span of the others: its slope is rounding
            refused[j] = True
            continue
        if not 0 < z[-1] < np.inf:
            refused[j] = True
            continue
        Q, R = new
        P.append(j)
        while z.min() <= 0:
            before = u[P]
            share = np.where(z <= 0, before / np.maximum(before - z, 1e-300), np.inf)
            u[P] = before + share.min() * (z - before)
            for i in np.flatnonzero((z <= 0) & (share <= share.min()))[::-1].tolist():
                u[P.pop(i)] = 0.0
                Q, R = qr_delete(Q, R, i, which="col", check_finite=False)
            Q, R = Q[:, : len(P)], R[: len(P)]  # what was square is taken for a full basis
            z = solve_triangular(R, Q.T @ target, check_finite=False)
        u[P] = z
        rest = target - Q @ (Q.T @ target)
        refused[:] = False
    raise RuntimeError("steps")


def combination(rows: FloatArray, steps: int) -> FloatArray:
    """Return weights of sum one whose combination of the rows is short beside its terms."""
    unit = np.frexp(np.abs(rows).max(axis=1))[1]
    u = np.ldexp(_residual(np.ldexp(rows, -unit[:, None]), np.ones(len(rows)), steps)[0], -unit)
    return np.asarray(u / max(float(u.sum()), 1e-300))


def precisely(Z: FloatArray, a: FloatArray) -> FloatArray:
    """Return Z'a, whose sum may cancel."""
    P = np.flatnonzero(a)
    return np.asarray(a[P].astype(np.longdouble) @ Z[P].astype(np.longdouble), dtype=float)


def _balanced(p: FloatArray, labels: FloatArray) -> FloatArray:
    """Give both classes weight one half."""
    out = p.copy()
    for s in (1, -1):
        total = p[labels == s].sum()
        if total > 0:
            out[labels == s] *= 0.5 / total
    return out


def _slack(Z: FloatArray, h: FloatArray, x: FloatArray, labels: FloatArray | None) -> FloatArray:
    found = Z @ x - h
    if labels is None:
        return found
    low = [float(found[labels == s].min()) for s in (1, -1)]
    return found + labels * (low[1] - low[0]) / 2


def _polished(
    Z: FloatArray, h: FloatArray, x: FloatArray, a: FloatArray, labels: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Solve the rows of the support as equations; keep what came where that is no better."""
    from scipy.linalg import solve_triangular

    P = np.flatnonzero(a > 0)
    C, c, N = Z[P], h[P], None
    if labels is not None:
        N = np.linalg.qr(labels[P, None], mode="complete")[0][:, 1:]
        C, c = N.T @ C, N.T @ c
    if not 0 < len(C) <= C.shape[1]:
        return x, a
    Q, R = np.linalg.qr(C.T)
    diagonal = np.abs(np.diag(R))
    if not diagonal.min() > 1e-13 * diagonal.max():
        return x, a
    q = solve_triangular(R, c, trans="T")
    new = Q @ q
    rest = np.asarray(c - C.astype(np.longdouble) @ new.astype(np.longdouble), dtype=float)
    change = solve_triangular(R, rest, trans="T")
    new, q = new + Q @ change, q + change
    alpha = solve_triangular(R, q)
    signed = alpha if N is None else N @ alpha
    if not np.isfinite(new).all() or signed.min() < -1e-9 * np.abs(signed).max():
        return x, a
    if _slack(Z, h, new, labels).min() < 2 * min(_slack(Z, h, x, labels).min(), -EPS):
        return x, a
    full = np.zeros(len(Z))
    full[P] = np.maximum(signed, 0.0)
    return new, full
