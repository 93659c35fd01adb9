r"""How slowly symmetric gradient descent with spare columns converges, exactly.

For the descent of `factored_descent` on the population problem and $k>r$, $q=\min(k,n)-r$ singular
values of $X$ orthogonal to $M$ follow $s\leftarrow s(1-\eta s^2)$ up to terms that decay
geometrically (xiong2023-over). With $w=1/(\eta s^2)$ this is $w\leftarrow w+2+3/w+O(w^{-2})$, so
$w-\frac32\log w$ grows by $2+O(w^{-2})$ a step: $\|XX^\top-M\|_F\sim\sqrt q/(2\eta T)$, with both
sides explicit (`spurious_bounds`, `error_bounds`). What the asymmetric descent has in place of this
law is in `limit_modes`."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.matrix_sensing._descent_data import IntArray
from theorylab.matrix_sensing.factored_descent import gradient_descent
from theorylab.numerics.results import result

__all__ = ["EntryStatus", "ErrorBounds", "ErrorLaw", "error_bounds", "error_law", "spurious_bounds"]


_EPS = float(np.finfo(np.float64).eps)


def spurious_bounds(
    start: ArrayLike, *, step_size: float, steps: int
) -> tuple[FloatArray, FloatArray]:
    r"""Enclose the orbit of $s\leftarrow s(1-\eta s^2)$ after $T$ steps.

    With $w_t=1/(\eta s_t^2)\ge3$ and $\varphi(w)=w-\frac32\log w$, expanding
    $w_{t+1}=w_t/(1-1/w_t)^2$ gives
    $$2\le\varphi(w_{t+1})-\varphi(w_t)\le2+\tfrac52(w_t-1)^{-2},\qquad w_t\ge w_0+2t,$$ so
    $\varphi(w_T)-\varphi(w_0)-2T$ lies between 0 and
    $\frac52\big[(w_0-1)^{-2}+\frac12(w_0-1)^{-1}\big]$ for every $T$, and $2\eta
    Ts_T^2=2T/w_T=1-\frac{w_0+\frac32\log(1+2T/w_0)+O(1)}{2T}$. (Derived here.)

    Parameters
    ----------
    start
        $s_0\ge0$ with $\eta s_0^2\le1/3$, shape ``(q,)``.
    step_size
        $\eta>0$.
    steps
        $T\ge0$.

    Returns
    -------
    lower, upper
        Bounds of $s_T$, each of shape ``(q,)``.

    Raises
    ------
    ValueError
        If an argument is invalid or some $\eta s_0^2>1/3$, where the map is no longer monotone.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import spurious_bounds
    >>> lower, upper = spurious_bounds([0.1], step_size=0.2, steps=5000)
    >>> np.round(2 * 0.2 * 5000 * lower**2, 2), np.round(2 * 0.2 * 5000 * upper**2, 2)
    (array([0.95]), array([0.95]))
    """
    s = as_array(start, "start", ndim=1, nonnegative=True)
    step_size = as_real(step_size, "step_size", above=0.0)
    T = as_count(steps, "steps", minimum=0)
    u = step_size * s**2
    if u.max() > 1 / 3:
        raise ValueError(f"start: expected step_size * start**2 <= 1/3, got {u.max()}")
    # A value whose square is lost in rounding against 1 does not move.
    moves = (u * max(T, 1) > _EPS) & (T > 0)
    w = 1.0 / np.where(moves, u, 1 / 3)
    low = w - 1.5 * np.log(w) + 2.0 * T
    excess = 2.5 * ((w - 1.0) ** -2 + 0.5 / (w - 1.0) - 0.5 / (w - 1.0 + 2.0 * max(T - 1, 0)))
    bounds = [
        np.where(moves, 1.0 / np.sqrt(step_size * _inverse_phi(y)), s) for y in (low + excess, low)
    ]
    return bounds[0], bounds[1]


class EntryStatus(StrEnum):
    """Whether a state satisfies the hypotheses of `error_bounds`."""

    ENTERED = (
        "the signal has converged and the cross terms are small: the bounds hold for all "
        "later times"
    )
    NOT_ENTERED = (
        "the state is not yet in the region where the bounds are proved; take more steps first"
    )


@result
class ErrorBounds:
    r"""Two-sided bounds of $\|XX^\top-M\|_F$ after further steps, see `error_bounds`.

    Attributes
    ----------
    lower, upper
        The bounds, 0 and infinity if the state has not entered.
    spurious
        $q=\min(k,n)-r$.
    onset
        $\max_{i\le q}1/(\eta s_i^2)$ at the given state: the further steps must exceed it for the
        limit to show.
    status
        Whether the hypotheses hold at the given state.
    """

    lower: float
    upper: float
    spurious: int
    onset: float
    status: EntryStatus


@refuses_overflow("truth", "X", "step_size", infinite=True)
def error_bounds(truth: ArrayLike, X: ArrayLike, *, step_size: float, steps: int) -> ErrorBounds:
    r"""Enclose $\|X_TX_T^\top-M\|_F$, $T$ population steps after the state ``X``, without running
    them.

    Write $A=U^\top X$, $B=U_\perp^\top X$ with $U$ the eigenvectors of the positive part $\Lambda$
    of $M$, $D=AA^\top-\Lambda$, $C=BA^\top$. A step is exactly $$C^+=C(I-\eta\Lambda)+\big[(I-\eta
    BB^\top)^2-I\big]C-2\eta CD+\eta^2(C\Lambda D+CD^2+CC^\top C+BB^\top CD),$$
    $$D^+=D-\eta(D\Lambda+\Lambda D)-2\eta D^2-2\eta C^\top C+\eta^2(D\Lambda D+D^3+DC^\top C+C^\top
    CD+C^\top BB^\top C),$$ $$B^+=B(I-\eta B^\top B)-\eta CA,$$ and
    $\|XX^\top-M\|_F^2=\|D\|_F^2+2\|C\|_F^2+\|BB^\top\|_F^2$. No commutation of $X_0$ with $M$ is
    used: where the norms of $C$, $D$, $B$ at the given state make these maps contract, $C$ and $D$
    decay geometrically, so that the $q$ largest singular values of $B$ are orbits of $s\leftarrow
    s(1-\eta s^2)$ with summable perturbations, enclosed by `spurious_bounds`, and the others are
    bounded by $\|C\|/\sqrt{\lambda_r-\|D\|}$. Both bounds tend to $\sqrt q/(2\eta T)$, which makes
    precise the $\Omega(1/T^2)$ lower bound on the squared error of xiong2023-over, Theorem 1.1
    (paper's text not consulted). Exact arithmetic is assumed.

    Parameters
    ----------
    truth
        $M\succeq0$, shape ``(n, n)``, of rank $r\ge1$ (eigenvalues below ``n * eps`` times the
        largest count as zero).
    X
        The state, shape ``(n, k)``.
    step_size
        $\eta>0$.
    steps
        $T\ge0$.

    Returns
    -------
    ErrorBounds
        The bounds; 0 and infinity where ``status`` says that the state has not entered.

    Raises
    ------
    ValueError
        If an argument is invalid or ``truth`` is not positive semidefinite and non-zero.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import error_bounds
    >>> bounds = error_bounds(np.diag([1.0, 0.0]), np.diag([1.0, 0.1]), step_size=0.1, steps=1000)
    >>> bounds.lower <= bounds.upper, bounds.spurious
    (True, 1)
    """
    M = as_symmetric(truth, "truth")
    n = M.shape[0]
    X = as_array(X, "X", shape=(n, None))
    eta = as_real(step_size, "step_size", above=0.0)
    T = as_count(steps, "steps", minimum=0)
    values, vectors = np.linalg.eigh(M)
    cut = n * _EPS * np.abs(values).max()
    if values[0] < -cut or values[-1] <= 0:
        raise ValueError(
            "truth: expected a non-zero positive semidefinite matrix, got "
            f"eigenvalues from {values[0]} to {values[-1]}"
        )
    signal = values > cut
    r = int(signal.sum())
    q = max(min(X.shape[1], n) - r, 0)
    first, last = values[-1], values[signal][0]
    A, B = vectors[:, signal].T @ X, vectors[:, ~signal].T @ X
    C0, D0 = (
        float(np.linalg.norm(B @ A.T)),
        float(np.linalg.norm(A @ A.T - np.diag(values[signal]))),
    )
    s = np.linalg.svd(B, compute_uv=False) if r < n else np.zeros(0)
    b0 = float(s[0]) if s.size else 0.0
    s, rest = s[:q], s.size - q
    onset = float(1.0 / (eta * s[-1] ** 2)) if q and s[-1] > 0 else np.inf
    failed = ErrorBounds(0.0, np.inf, q, onset, EntryStatus.NOT_ENTERED)

    def contraction(b: float, d: float) -> tuple[float, float, float]:
        cross = max(1 - eta * last, eta * first - (1 - eta * b**2) ** 2)
        cross += 2 * eta * d + eta**2 * (first * d + d**2 + C0**2 + b**2 * d)
        block = max(1 - 2 * eta * last, 2 * eta * first - 1)
        block += 2 * eta * d + eta**2 * (first * d + d**2 + 2 * C0**2)
        return cross, block, 2 * eta + eta**2 * b**2

    b, d = b0, D0
    for _ in range(
        60
    ):  # the least b, d that bound |B|, |D| at all later times, approached from below
        cross, block, feed = contraction(b, d)
        if cross >= 1 or block >= 1:
            return failed
        b, d = b0 + eta * np.sqrt(first + d) * C0 / (1 - cross), max(D0, feed * C0**2 / (1 - block))
    b, d = b * (1 + 1e-9), d * (1 + 1e-9)
    cross, block, feed = contraction(b, d)
    push = eta * np.sqrt(first + d) * C0
    invariant = (
        cross < 1 and block < 1 and b0 + push / (1 - cross) <= b and feed * C0**2 <= (1 - block) * d
    )
    slope = 1 - 3 * eta * b**2
    if not invariant or d >= last or slope <= cross:
        return failed
    # Perturbations of the orbits, carried back to the given state; the derivative of s (1 - eta
    # s^2) bounds their growth.
    drift = 2 * push / (slope - cross)
    slope = 1 - 3 * eta * (b + drift) ** 2
    if slope <= cross or push / (slope - cross) > drift:
        return failed
    lower, upper = np.zeros(0), np.zeros(0)
    if q:
        lower = spurious_bounds(np.maximum(s - drift, 0.0), step_size=eta, steps=T)[0]
        upper = spurious_bounds(s + drift, step_size=eta, steps=T)[1]
    C = C0 * cross**T
    D = block**T * D0 + (feed * C0**2 * T * max(block, cross**2) ** (T - 1) if T else 0.0)
    tail = C / np.sqrt(last - d)
    return ErrorBounds(
        lower=float(np.sqrt((lower**4).sum())),
        upper=float(np.sqrt((upper**4).sum() + rest * tail**4 + 2 * C**2 + D**2)),
        spurious=q,
        onset=onset,
        status=EntryStatus.ENTERED,
    )


@result
class ErrorLaw:
    r"""Two-sided bounds of $\|X_TX_T^\top-M\|_F$ at several times, see `error_law`.

    Attributes
    ----------
    times
        $T$, counted from the start, shape ``(m,)``; empty if the start has not entered.
    lower, upper
        The bounds at these times, shape ``(m,)``.
    rounding
        Bound of the rounding error of a float64 descent at these times, shape ``(m,)``.
    spurious
        $q=\min(k,n)-r$; the error tends to $\sqrt q/(2\eta T)$.
    status
        Whether the start entered the region where the bounds are proved.
    """

    times: IntArray
    lower: FloatArray
    upper: FloatArray
    rounding: FloatArray
    spurious: int
    status: EntryStatus


@refuses_overflow("truth", "X", "step_size", infinite=True)
def error_law(
    truth: ArrayLike, X: ArrayLike, *, step_size: float, multiples: ArrayLike, longest: int
) -> ErrorLaw:
    r"""Follow population descent from ``X`` until `error_bounds` applies, and bound the error from
    there on.

    Entry is decided by the state alone: the bounds must hold and differ by at most 1 % at the last
    time.

    Parameters
    ----------
    truth
        $M\succeq0$, shape ``(n, n)``, non-zero.
    X
        The start $X_0$, shape ``(n, k)`` with $k$ above the rank of $M$.
    step_size
        $\eta>0$.
    multiples
        The times of the law: entry plus these multiples of the onset at entry, increasing and
        positive, shape ``(m,)``.
    longest
        Give up where the last time would exceed this number of steps.

    Returns
    -------
    ErrorLaw
        Times and bounds; empty where ``status`` says that the start has not entered.

    Raises
    ------
    ValueError
        If an argument is invalid, ``truth`` is not positive semidefinite and non-zero, or its rank
        is at least $k$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import error_law
    >>> start = np.array([[0.5, 0.1], [0.2, 0.4]])
    >>> law = error_law(
    ...     np.diag([1.0, 0.0]), start, step_size=0.2, multiples=[10.0, 40.0], longest=100_000
    ... )
    >>> np.round(np.sqrt(law.lower * law.upper) * 2 * 0.2 * law.times, 1)
    array([1., 1.])
    """
    M = as_symmetric(truth, "truth")
    state = as_array(X, "X", shape=(M.shape[0], None))
    eta = as_real(step_size, "step_size", above=0.0)
    factors = as_array(multiples, "multiples", ndim=1, positive=True)
    if (np.diff(factors) <= 0).any():
        raise ValueError(f"multiples: expected increasing numbers, got {factors}")
    longest = as_count(longest, "longest")
    entry, block = 0, max(1, int(8 / (eta * np.abs(M).max()))) if M.any() else 1
    while True:
        if not np.isfinite(state).all():
            raise ValueError(
                f"step_size: expected one for which the descent from X stays bounded, got {eta}"
            )
        now = error_bounds(M, state, step_size=eta, steps=0)
        if now.spurious == 0:
            raise ValueError(
                "X: expected more columns than the rank of truth, and that below n, "
                f"got shape {state.shape}"
            )
        if entry + max(block, factors[-1] * now.onset) > longest:
            empty = np.zeros(0)
            return ErrorLaw(
                np.zeros(0, np.int64), empty, empty, empty, now.spurious, EntryStatus.NOT_ENTERED
            )
        later = np.maximum(1, factors * now.onset).astype(np.int64)
        last = error_bounds(M, state, step_size=eta, steps=int(later[-1]))
        if last.upper <= 1.01 * last.lower:
            break
        state = gradient_descent(
            M, search_rank=state.shape[1], step_size=eta, steps=block, initial=state, record=[block]
        ).X
        entry, block = entry + block, entry + block
    bounds = [error_bounds(M, state, step_size=eta, steps=int(T)) for T in later]
    lower, upper = np.array([b.lower for b in bounds]), np.array([b.upper for b in bounds])
    # A step rounds X at its own size; a spurious singular value s keeps the sum of these errors,
    # and |BB^T| changes by 2 s of it.
    size = np.sqrt(np.linalg.eigvalsh(M)[-1])
    rounding = (
        2 * (entry + later) * _EPS * sum(state.shape) * size * np.sqrt(upper) * now.spurious**0.25
    )
    return ErrorLaw(entry + later, lower, upper, rounding, now.spurious, EntryStatus.ENTERED)


def _inverse_phi(y: FloatArray) -> FloatArray:
    r"""Solve $w-\frac32\log w=y$ on $w>3/2$ by Newton's method, monotone from the right as the
    function is convex."""
    w = 2.0 * y + 3.0
    for _ in range(60):
        step = (w - 1.5 * np.log(w) - y) / (1.0 - 1.5 / w)
        w -= step
        if (np.abs(step) <= 2 * _EPS * w).all():
            break
    return w
