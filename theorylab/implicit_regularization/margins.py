r"""The widest separation of labelled points, and the nearest point that separates them.

With rows $z_i=y_ix_i$ of a matrix Z, the projection of a point $w_0$ onto the
separators is

$$\min_w\tfrac12\|w-w_0\|^2\ \text{ s.t. }\ Zw\ge1,\qquad
w=w_0+Z^\top a,\ a\ge0,\ a_i(z_i^\top w-1)=0,$$

and $w_0=0$ gives the separator of largest margin
$\gamma=\max_{\|w\|=1}\min_iz_i^\top w$. Both sides bound each other: every w has
$\min_iz_i^\top w/\|w\|\le\gamma$, and every probability vector p has
$\gamma\le\|Z^\top p\|$. Where no w separates, some p has $Z^\top p=0$ (Farkas).

The method is Lawson and Hanson's: a non-negative least squares problem whose residual is the
solution, by an active set that ends after finitely many steps; its support then gives both sides
by one triangular solve. A working set keeps the problem small where there are many points. What
is said of margins is proved: in exact arithmetic, from the floats that are returned.

Papers: tyurin2024-from, gupta2021-logit (the margin in their bounds)."""

from __future__ import annotations

import warnings
from enum import StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real, refuses_overflow
from theorylab.implicit_regularization import _margin_proofs as proofs
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "MarginProjection",
    "MarginStatus",
    "MarginVerdict",
    "MaxMargin",
    "margin_projection",
    "max_margin",
]

EPS = float(np.finfo(float).eps)
HEAVY = 2.0**16  # weight of the intercept's equation beside entries of order one
ROUNDS = 60  # working sets, and units, that are tried


class MarginStatus(StrEnum):
    """How a search for a separator ended."""

    CERTIFIED = "the two bounds agree to tol"
    NOT_SEPARABLE = "no separator: a convex combination of the rows is proved to vanish"
    STOPPED = (
        "not decided to tol: the margin is too small for float64, or max_iter for the active set"
    )


class MarginVerdict(StrEnum):
    """What an exact check of a margin found."""

    ACCEPTED = "accepted"
    GAP = "the bounds differ by more than tol"
    SIGN = "a multiplier is negative, or all vanish"
    SEPARATION = "the weights do not separate the points"
    COMBINATION = "no convex combination of the rows was proved to vanish"

    @property
    def accepted(self) -> bool:
        """Whether both bounds, or that there is no separator, were proved."""
        return self is MarginVerdict.ACCEPTED


@result
class MarginProjection:
    r"""The separator nearest to a point.

    Attributes
    ----------
    weights
        w, shape (d,); the start where there is no separator.
    multipliers
        a, shape (n,), $w=w_0+Z^\top a$; where there is no separator, weights of a convex
        combination of the rows that vanishes.
    distance
        $\|w-w_0\|$, infinite without a separator.
    distance_bound
        $a^\top(1-Zw_0)/\|Z^\top a\|$, which no separator is nearer than.
    violation
        $\max_i(1-z_i^\top w)$, or 0 if that is negative.
    status
        How the search ended.
    """

    weights: FloatArray
    multipliers: FloatArray
    distance: float
    distance_bound: float
    violation: float
    status: MarginStatus

    @property
    def gap(self) -> float:
        """Difference of distance and bound, relative to the distance."""
        if self.distance == self.distance_bound:
            return 0.0
        return abs(1 - self.distance_bound / self.distance) if self.distance else np.inf

    @property
    def support(self) -> NDArray[np.intp]:
        """Indices of the rows with a positive multiplier."""
        return np.flatnonzero(self.multipliers > 0)


@result
class MaxMargin:
    r"""The separator of largest margin.

    Attributes
    ----------
    weights, intercept
        w, shape (d,), and b, with $\min_iy_i(w^\top x_i+b)=1$; zeros where
        no separator was found.
    multipliers
        a, shape (n,), $w=\sum_ia_iy_ix_i$; where nothing separates, weights of a convex
        combination of the $y_ix_i$ that vanishes, to their rounding.
    margin
        $\min_iy_i(w^\top x_i+b)/\|w\|$, which is attained, rounded down; 0 where no
        separator was found.
    margin_bound
        $\|Z^\top a\|/\sum a$, which no separator exceeds, rounded up.
    status
        How the search ended.
    X, y, tol, has_intercept
        What was asked.
    """

    weights: FloatArray
    intercept: float
    multipliers: FloatArray
    margin: float
    margin_bound: float
    status: MarginStatus
    X: FloatArray
    y: FloatArray
    tol: float
    has_intercept: bool

    @property
    def gap(self) -> float:
        """Difference of the bounds relative to the upper one."""
        return max(1 - self.margin / self.margin_bound, 0.0) if self.margin_bound else 0.0

    @property
    def support(self) -> NDArray[np.intp]:
        """Indices of the points with a positive multiplier."""
        return np.flatnonzero(self.multipliers > 0)

    def verify(self) -> MarginVerdict:
        """Prove in exact arithmetic, from the weights and multipliers alone, that the largest
        margin lies between two numbers that differ by at most ``tol``, relatively; or, if the
        status is NOT_SEPARABLE, that nothing separates the points."""
        a, y = self.multipliers, self.y
        used = y[a > 0]
        if (a < 0).any() or not used.size or (self.has_intercept and abs(used.sum()) == used.size):
            return MarginVerdict.SIGN
        if self.status is MarginStatus.NOT_SEPARABLE:
            proved = proofs.vanishes(_rows(self.X, y, self.has_intercept), a)
            return MarginVerdict.ACCEPTED if proved else MarginVerdict.COMBINATION
        low = proofs.attained(self.X, y, self.weights, self.intercept)
        if not low:
            return MarginVerdict.SEPARATION
        high = proofs.exceeded_by_none(self.X, y, a, self.has_intercept)
        return MarginVerdict.ACCEPTED if _close(low, high, self.tol) else MarginVerdict.GAP


@refuses_overflow("Z", "start", infinite=True)
def margin_projection(
    Z: ArrayLike, start: ArrayLike, *, tol: float = 1e-9, max_iter: int = 10_000
) -> MarginProjection:
    r"""Return the point nearest to ``start`` at which $Zw\ge1$.

    Parameters
    ----------
    Z
        (n, d), rows $y_ix_i$.
    start
        (d,), $w_0$.
    tol
        Largest relative gap of a certified solution, and its largest violation over
        $1+\max_i|z_i|^\top|w_0|$.
    max_iter
        Steps of the active set, for each of at most 60 working sets.

    Examples
    --------
    >>> from theorylab.implicit_regularization import margin_projection
    >>> found = margin_projection([[1.0, 1.0], [0.0, 4.0]], [2.0, -3.0])
    >>> found.weights, found.support.tolist()
    (array([2.  , 0.25]), [1])
    """
    A = as_array(Z, "Z", ndim=2)
    w0 = as_array(start, "start", shape=(A.shape[1],))
    accuracy = as_real(tol, "tol", minimum=1e-14, maximum=0.1)
    steps = as_count(max_iter, "max_iter")
    e = binary_exponent(A)
    S, s0 = np.ldexp(A, -e), np.ldexp(w0, e)
    wide, start_ = S.astype(np.longdouble), s0.astype(np.longdouble)
    h = np.asarray(1 - wide @ start_, dtype=float)
    if not np.isfinite(h).all():
        raise OverflowError
    if h.max() <= 0:
        return MarginProjection(w0.copy(), np.zeros(len(A)), 0.0, 0.0, 0.0, MarginStatus.CERTIFIED)
    x, a, separable = _least_distance(S, h, steps)
    if not separable:
        p, worst = a / a.sum(), float(h.max())
        status = MarginStatus.NOT_SEPARABLE if proofs.vanishes(A, p) else _stopped()
        bound = np.inf if status is MarginStatus.NOT_SEPARABLE else 0.0
        return MarginProjection(w0.copy(), p, np.inf, bound, worst, status)
    distance, back = float(np.linalg.norm(x)), _precisely(S, a)
    bound = float(a @ h / np.linalg.norm(back)) if back.any() else 0.0
    w = s0 + x
    missed = max(float((1 - wide @ w.astype(np.longdouble)).max()), 0.0)
    slack = EPS * (1 + float(np.abs(s0).max())) / distance
    good = abs(distance - bound) <= (accuracy + slack) * distance
    good = good and missed <= accuracy * (1 + float((np.abs(S) @ np.abs(s0)).max()))
    multipliers = _scaled(a, -e)
    return MarginProjection(
        np.ldexp(w, -e),
        multipliers,
        float(np.ldexp(distance, -e)),
        float(np.ldexp(bound, -e)),
        missed,
        MarginStatus.CERTIFIED if good else _stopped(),
    )


@refuses_overflow("X")
def max_margin(
    X: ArrayLike,
    y: ArrayLike,
    *,
    intercept: bool = False,
    tol: float = 1e-9,
    max_iter: int = 10_000,
) -> MaxMargin:
    r"""Return the hyperplane that separates two classes by the largest margin.

    Parameters
    ----------
    X, y
        (n, d) points, and (n,) labels -1 and 1.
    intercept
        Whether the hyperplane may miss the origin; then both classes are needed.
    tol
        Largest relative gap of a certified solution.
    max_iter
        Steps of the active set, for each of at most 60 working sets.

    Examples
    --------
    >>> from theorylab.implicit_regularization import max_margin
    >>> found = max_margin([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0]], [-1, -1, 1], intercept=True)
    >>> round(found.margin, 12), found.weights.round(12), found.verify().accepted
    (2.0, array([0.5, 0. ]), True)
    """
    points = as_array(X, "X", ndim=2)
    labels = as_array(y, "y", shape=(len(points),))
    if not np.isin(labels, (-1.0, 1.0)).all():
        odd = labels[~np.isin(labels, (-1.0, 1.0))][0]
        raise ValueError(f"y: expected labels -1 and 1, got {odd}")
    free = as_flag(intercept, "intercept")
    accuracy = as_real(tol, "tol", minimum=1e-14, maximum=0.1)
    steps = as_count(max_iter, "max_iter")
    if free and (labels == labels[0]).all():
        raise ValueError("y: expected both labels where there is an intercept, got one")
    e = binary_exponent(points)
    P = np.ldexp(points, -e)
    centre = np.zeros(P.shape[1])
    if free:
        centre = (P[labels > 0].mean(axis=0) + P[labels < 0].mean(axis=0)) / 2
        P = P - centre
        shift = binary_exponent(P)
        P, centre, e = np.ldexp(P, -shift), np.ldexp(centre, -shift), e + shift
    Z = labels[:, None] * P
    w, a, separable = _least_distance(Z, np.ones(len(Z)), steps, labels if free else None)
    asked: tuple[Any, ...] = (points, labels, accuracy, free)
    for s in (1, -1) if free else ():
        if not a[labels == s].any():  # no bound without both
            a = a + (labels == s)
    p, none = a / a.sum(), np.zeros(P.shape[1])

    def bound() -> float:
        return proofs.root(proofs.exceeded_by_none(points, labels, p, free), up=True)

    if not separable and proofs.vanishes(_rows(points, labels, free), p):
        return MaxMargin(none, 0.0, p, 0.0, bound(), MarginStatus.NOT_SEPARABLE, *asked)
    scores = np.asarray(P.astype(np.longdouble) @ w.astype(np.longdouble))
    b = -float(scores[labels > 0].min() + scores[labels < 0].max()) / 2 if free else 0.0
    least = float((labels * (scores + b)).min())
    if least <= 0:
        other = _combination(np.concatenate([Z, labels[:, None]], axis=1) if free else Z, steps)
        if proofs.vanishes(_rows(points, labels, free), other):
            square = proofs.exceeded_by_none(points, labels, other, free)
            end, status = proofs.root(square, up=True), MarginStatus.NOT_SEPARABLE
            return MaxMargin(none, 0.0, other, 0.0, end, status, *asked)
        return MaxMargin(none, 0.0, p, 0.0, bound(), _stopped(), *asked)
    w, b, a = w / least, b / least, a / least
    offset = b - float(w @ centre)
    w, a = np.ldexp(w, -e), _scaled(a, -e)
    low = proofs.attained(points, labels, w, offset)
    margin = proofs.root(low, up=False)
    if not margin:
        return MaxMargin(none, 0.0, p, 0.0, bound(), _stopped(), *asked)
    high = proofs.exceeded_by_none(points, labels, a, free)
    status = MarginStatus.CERTIFIED if _close(low, high, accuracy) else _stopped()
    return MaxMargin(w, offset, a, margin, proofs.root(high, up=True), status, *asked)


def _close(low: Fraction, high: Fraction, tol: float) -> bool:
    """Whether bounds of the squared margin are as close as asked."""
    return high <= (1 + Fraction(tol)) ** 2 * low


def _scaled(a: FloatArray, e: int) -> FloatArray:
    """Return the multipliers over the square of a unit, which may not be within float64."""
    out = np.ldexp(np.ldexp(a, e), e)
    if not np.isfinite(out).all() or (out[a > 0] == 0).any():
        raise OverflowError
    return out


def _rows(X: FloatArray, y: FloatArray, free: bool) -> FloatArray:
    """Return the rows whose convex combinations vanish only where nothing separates."""
    return np.concatenate([y[:, None] * X, y[:, None]], axis=1) if free else y[:, None] * X


def _stopped() -> MarginStatus:
    warnings.warn(MarginStatus.STOPPED.value, stacklevel=4)
    return MarginStatus.STOPPED


def _least_distance(
    Z: FloatArray, h: FloatArray, steps: int, labels: FloatArray | None = None
) -> tuple[FloatArray, FloatArray, bool]:
    """Return the shortest x with Zx >= h, its multipliers, and whether there is an x at all.

    With labels, Zx + b labels >= h for some number b, and labels @ a = 0.
    """
    n, d = Z.shape
    if d > n:  # all in the span of the rows
        basis, R = np.linalg.qr(Z.T)
        inner, a, separable = _least_distance(np.ascontiguousarray(R.T), h, steps, labels)
        return basis @ inner, a, separable
    rows = Z if labels is None else np.concatenate([HEAVY * labels[:, None], Z], axis=1)
    r = rows.shape[1]
    sizes = np.linalg.norm(Z, axis=1)
    # Every x is at least as long as a row needs, and a convex combination of rows.
    classes = [np.arange(n)] if labels is None else [np.flatnonzero(labels == s) for s in (1, -1)]
    middle = np.mean([Z[rank].mean(axis=0) for rank in classes], axis=0)
    if np.linalg.norm(middle) <= 64 * EPS * sizes.mean():
        p = np.full(n, 1 / n)
        return np.zeros(d), p if labels is None else _balanced(p, labels), False
    lengths = np.append(sizes if labels is None else [], np.linalg.norm(middle))
    needs = np.append(h if labels is None else [], np.mean([h[rank].mean() for rank in classes]))
    unit = 1 / max(float(np.max(needs / np.maximum(lengths, 2.0**-40))), 2.0**-40)
    work, along = np.arange(n), Z @ middle - h
    if n > 4 * r:
        work = np.sort(np.concatenate([rank[np.argsort(along[rank])[:r]] for rank in classes]))
    best: tuple[float, FloatArray, FloatArray] | None = None
    scale = 1 + float(np.abs(h).max())
    for _ in range(ROUNDS):
        weights, shift = _residual(rows[work], unit * h[work], steps)
        p = np.zeros(n)
        p[work] = weights
        if not p.any():
            break
        p /= p.sum()
        if labels is not None:
            p = _balanced(p, labels)
        back = _precisely(Z, p)
        length, value = float(np.linalg.norm(back)), float(p @ h)
        if length <= 64 * EPS * float(p @ sizes) and value > 0:
            return np.zeros(d), p, False
        x, a = back * (value / length**2), p * (value / length**2)
        x, a = _polished(Z, h, x, a, labels)
        slack = _slack(Z, h, x, labels)
        missed = float(-slack.min())
        reached = float(np.linalg.norm(x))
        if best is None or missed < best[0]:
            best = missed, x, a
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
        return np.zeros(d), np.full(n, 1 / n), True
    return best[1], best[2], True


def _residual(rows: FloatArray, h: FloatArray, steps: int) -> tuple[FloatArray, float]:
    """Return the weights u >= 0 that minimise |rows' u|^2 + (h u - 1)^2, and 1 - h u."""
    from scipy.optimize import nnls

    E = np.concatenate([rows.T, h[None]])
    unit = np.frexp(np.abs(E).max(axis=0))[1]
    target = np.zeros(len(E))
    target[-1] = 1.0
    try:
        u, _ = nnls(np.ldexp(E, -unit), target, maxiter=steps)
    except RuntimeError:
        return np.zeros(len(h)), 1.0
    u = np.ldexp(u, -unit)
    return u, float(1 - h @ u)


def _combination(rows: FloatArray, steps: int) -> FloatArray:
    """Return weights of sum one whose combination of the rows is short beside its terms."""
    unit = np.frexp(np.abs(rows).max(axis=1))[1]
    u = np.ldexp(_residual(np.ldexp(rows, -unit[:, None]), np.ones(len(rows)), steps)[0], -unit)
    return np.asarray(u / max(float(u.sum()), 1e-300))


def _precisely(Z: FloatArray, a: FloatArray) -> FloatArray:
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
