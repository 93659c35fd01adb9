r"""Exact asymptotics of gradient descent on the factors of a low-rank matrix.

For the descents of `factored_descent` on the population problem, two facts carry the theory of
xiong2023-over:

* Symmetric, $k>r$: $q=\min(k,n)-r$ singular values of $X$ orthogonal to $M$ follow $s\leftarrow
  s(1-\eta s^2)$ up to terms that
  decay geometrically. With $w=1/(\eta s^2)$ this is $w\leftarrow w+2+3/w+O(w^{-2})$, so
  $w-\frac32\log w$ grows by $2+O(w^{-2})$ a step: $\|XX^\top-M\|_F\sim\sqrt q/(2\eta T)$, with both
  sides explicit (`spurious_bounds`, `error_bounds`).
* Asymmetric: $E\leftarrow E-\eta(EGG^\top+FF^\top E)+\eta^2EGF^\top E$, so at a limit $FG^\top=M$
  the error decays in the modes
  $1-\eta(\lambda_i(FF^\top)+\lambda_j(GG^\top))$; the slowest reachable mode is the smallest
  non-zero one (`limit_modes`). For small starts it is set by the imbalance $F^\top F-G^\top G$,
  hence $\propto\alpha^2$ for a start of size $\alpha$ (`small_start_slowest`), zero for a balanced
  start, and free of $\alpha$ after one `rebalance` (`rebalanced_slowest_bounds`).
"""

from __future__ import annotations

import warnings
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.matrix_sensing.factored_descent import (
    DescentStatus,
    IntArray,
    asymmetric_gradient_descent,
    gradient_descent,
)
from theorylab.matrix_sensing.operators import MeasurementOperator, pack_symmetric, unpack_symmetric
from theorylab.numerics.results import result

__all__ = [
    "EntryStatus",
    "ErrorBounds",
    "ErrorLaw",
    "LateRate",
    "LimitModes",
    "error_bounds",
    "error_law",
    "late_rate",
    "limit_modes",
    "rebalanced_slowest_bounds",
    "sensing_limit",
    "small_start_slowest",
    "spurious_bounds",
]

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


def sensing_limit(truth: ArrayLike, operator: MeasurementOperator) -> FloatArray:
    r"""Return $\lim_T2\eta T(X_TX_T^\top-M)$ for symmetric sensing with $k\ge n$ and $\mathcal
    A^*\mathcal A$ invertible.

    With $R=\mathcal A^*\mathcal A(XX^\top-M)$ and $P$ the projection on the kernel of $M$, a
    self-similar decay $E=E_\infty/(2\eta T)$ of $X\leftarrow X-\eta RX$ needs $2\eta T\,RX\to X$ on
    the kernel while $R$ vanishes elsewhere, that is $\mathcal A^*\mathcal A(E_\infty)=P$. In the
    population this is $E_\infty=P$, of norm $\sqrt{n-r}$; with finitely many measurements the
    exponent stays and the constant becomes $\|(\mathcal A^*\mathcal A)^{-1}P\|_F$. (Derived here,
    heuristically: that the descent selects this decay is not proved.)

    Parameters
    ----------
    truth
        $M\succeq0$, symmetric, shape ``(n, n)`` (eigenvalues below ``n * eps`` times the largest
        count as zero).
    operator
        Symmetric measurements, at least $n(n+1)/2$ of them.

    Returns
    -------
    FloatArray
        $E_\infty$, shape ``(n, n)``.

    Raises
    ------
    ValueError
        If an argument is invalid, ``truth`` is not positive semidefinite, $\mathcal A^*\mathcal A$
        is singular, or the block of $E_\infty$ on the kernel of $M$ is not positive definite, so
        that no $XX^\top$ follows this decay.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, sensing_limit
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> np.linalg.matrix_rank(sensing_limit(np.diag([1.0, 0.0, 0.0]), operator))
    np.int64(3)
    """
    M = as_symmetric(truth, "truth")
    n = M.shape[0]
    if (
        not isinstance(operator, MeasurementOperator)
        or operator.shape != M.shape
        or not operator.symmetric
    ):
        raise ValueError(
            f"operator: expected a symmetric MeasurementOperator on {M.shape} "
            f"matrices, got {operator!r}"
        )
    if operator.n_measurements < n * (n + 1) // 2:
        raise ValueError(
            f"operator: expected at least {n * (n + 1) // 2} measurements, got "
            f"{operator.n_measurements}"
        )
    values, vectors = np.linalg.eigh(M)
    cut = n * _EPS * np.abs(values).max()
    if values[0] < -cut:
        raise ValueError(
            f"truth: expected a positive semidefinite matrix, got the eigenvalue {values[0]}"
        )
    kernel = vectors[:, values <= cut]
    flat, limit = np.empty(operator.stacked.shape[1]), np.empty((n, n))
    gram = operator.stacked.T @ operator.stacked
    if np.linalg.matrix_rank(gram, hermitian=True) < flat.size:
        raise ValueError(
            "operator: expected measurements that span the symmetric matrices, got some that do not"
        )
    pack_symmetric(kernel @ kernel.T, flat)
    unpack_symmetric(cho_solve(cho_factor(gram), flat), limit)
    block = kernel.T @ limit @ kernel
    if block.size and np.linalg.eigvalsh(block)[0] <= 0:
        raise ValueError(
            "operator: expected measurements whose limit is positive definite on the "
            "kernel of truth, got one that is not"
        )
    return limit


@result
class LimitModes:
    r"""The linearised asymmetric descent at a limit $FG^\top=M$, see `limit_modes`.

    Attributes
    ----------
    values
        $\lambda_i(FF^\top)+\lambda_j(GG^\top)$, shape ``(n_1, n_2)``; exactly 0 where the mode is
        not reachable.
    slowest
        The smallest reachable mode, that is the smallest non-zero eigenvalue of the Hessian at the
        limit; 0 where fewer $\lambda_i,\mu_j$ than the rank allows are non-zero, as then a part of
        the error decays slower than geometrically.
    left, right
        Eigenvectors of $FF^\top$ and $GG^\top$, in columns.
    step_size
        $\eta$.
    """

    values: FloatArray
    slowest: float
    left: FloatArray
    right: FloatArray
    step_size: float

    @property
    def rate(self) -> float:
        r"""$-\log\max|1-\eta\,\text{mode}|$ over the reachable modes: the error is asymptotically
        $e^{-\text{rate}\,t}$."""
        ends = np.array([self.slowest, self.values.max()])
        return float(-np.log(np.abs(1 - self.step_size * ends).max()))

    def window_rate(self, residual: ArrayLike, *, steps: int) -> float:
        r"""Return $-\frac1\tau\log(\|E_\tau\|_F/\|E_0\|_F)$ of the linearised map; if $E_0$ has a
        part in the slowest mode, it tends to ``rate`` from above as $\tau$ grows.

        Parameters
        ----------
        residual
            $E_0$, shape ``(n_1, n_2)``; its unreachable part, of second order, is left out.
        steps
            $\tau\ge1$.

        Returns
        -------
        float
            The mean logarithmic decrease per step.

        Raises
        ------
        ValueError
            If ``residual`` has another shape or no reachable part, or ``steps`` is not a positive
            integer.
        """
        tau = as_count(steps, "steps")
        weights, factors = self._spectrum(residual)
        top = max(factors.max(), _EPS)  # taken out, as its power may underflow
        return float(
            -np.log(top)
            - np.log((weights * (factors / top) ** (2 * tau)).sum() / weights.sum()) / (2 * tau)
        )

    def window_error(self, residual: ArrayLike, *, steps: int) -> float:
        r"""Bound the difference between the measured decrease and `window_rate`, to leading order
        in $e=\|E_0\|_F$, with a factor 2.

        The state with error $E_t$ is $e_t/\sqrt m$ or less from the limit, $m$ = ``slowest``, so
        one step differs from its linearisation by $Ke_t^2$, $K=2\eta(\|F\|+\|G\|)/\sqrt
        m+\eta^2\|F\|\|G\|$. With $e_t\le ec^t$, $c=e^{-\text{rate}}$ ($1-\eta m$ for small $\eta$),
        carried to $\tau$, relative to the linearised norm $N_\tau$, this is
        $Ke^2c^{\tau-1}/((1-c)N_\tau)$.

        Parameters
        ----------
        residual
            $E_0$, shape ``(n_1, n_2)``.
        steps
            $\tau\ge1$.

        Returns
        -------
        float
            Bound of the error of the mean logarithmic decrease per step; infinite where the
            linearisation says nothing.

        Raises
        ------
        ValueError
            As `window_rate`.
        """
        tau = as_count(steps, "steps")
        weights, factors = self._spectrum(residual)
        m, top, eta = self.slowest, float(self.values.max()), self.step_size
        c = max(abs(1 - eta * m), abs(1 - eta * top))
        if m == 0 or not 0 < c < 1:
            return np.inf
        K = 2 * eta * np.sqrt(2 * top / m) + eta**2 * top / 2
        shrunk = np.sqrt((weights * (factors / c) ** (2 * tau)).sum())
        if shrunk == 0:
            return np.inf
        relative = 2 * K * weights.sum() / ((1 - c) * c * shrunk)
        return float(-np.log1p(-relative) / tau) if relative < 1 else np.inf

    def _spectrum(self, residual: ArrayLike) -> tuple[FloatArray, FloatArray]:
        E = as_array(residual, "residual", shape=self.values.shape)
        reachable = self.values > 0
        weights = ((self.left.T @ E @ self.right) ** 2)[reachable]
        if not weights.sum() > 0:
            raise ValueError("residual: expected a component on the reachable modes, got none")
        return weights[weights > 0], np.abs(
            1 - self.step_size * self.values[reachable][weights > 0]
        )


@refuses_overflow("F", "G")
def limit_modes(F: ArrayLike, G: ArrayLike, *, rank: int, step_size: float) -> LimitModes:
    r"""Return the modes in which the error of asymmetric descent decays near the limit $(F,G)$.

    The error obeys $E^+=E-\eta(EGG^\top+FF^\top E)+\eta^2EGF^\top E$ exactly. Its linear part is
    diagonal in the eigenvectors $u_i$ of $FF^\top$ and $v_j$ of $GG^\top$, with factors
    $1-\eta(\lambda_i+\mu_j)$. To first order $E=\dot FG^\top+F\dot G^\top$ has no component where
    $\lambda_i=\mu_j=0$ (there it is of second order), every other mode is reached by some $(\dot
    F,\dot G)$, and the values $\lambda_i+\mu_j\neq0$ are the non-zero eigenvalues of the Hessian of
    $\frac12\|E\|_F^2$. The rate for a generic start is therefore
    $$-\log\big(1-\eta\,\min\{\lambda_i+\mu_j>0\}\big).$$ It equals $\eta\sigma_k(F)^2$ to first
    order only if $F$ has full column rank and $\sigma_k(F)^2$ is below the smallest non-zero
    $\mu_j$; for large starts the latter decides. (Derived here; xiong2023-over, Theorem 1.3 has
    $e^{-\Omega(\alpha^2T)}$, the paper's text was not consulted.)

    Parameters
    ----------
    F, G
        The limit, shapes ``(n_1, k)`` and ``(n_2, k)``.
    rank
        $r$, the rank of $M=FG^\top$. By Sylvester's inequality at most
        $\min(k+r,\min(n_1,k)+\min(n_2,k))$ of the $\lambda_i$, $\mu_j$ are non-zero; the others are
        set to 0, so that no threshold is needed.
    step_size
        $\eta>0$.

    Returns
    -------
    LimitModes
        Modes, eigenvectors and rate.

    Raises
    ------
    ValueError
        If an argument is invalid or ``rank`` exceeds a dimension.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import limit_modes
    >>> F, G = np.diag([1.0, 0.5]), np.diag([1.0, 0.0])
    >>> limit_modes(F, G, rank=1, step_size=0.1).slowest
    0.25
    """
    F = as_array(F, "F", ndim=2)
    n, k = F.shape
    G = as_array(G, "G", shape=(None, k))
    r = as_count(rank, "rank", maximum=min(n, G.shape[0], k))
    step_size = as_real(step_size, "step_size", above=0.0)
    (left, f), (right, g) = _left_spectrum(F), _left_spectrum(G)
    present = min(k + r, min(n, k) + min(G.shape[0], k))
    floor = np.sort(np.concatenate([f, g]))[-present]
    f, g = np.where(f >= floor, f, 0.0), np.where(g >= floor, g, 0.0)
    values = np.add.outer(f, g)
    slowest = float(values[values > 0].min()) if floor > 0 else 0.0
    return LimitModes(values, slowest, left, right, step_size)


@result
class LateRate:
    r"""The measured rate of a converging asymmetric descent, and the modes of its limit, see
    `late_rate`.

    Attributes
    ----------
    measured
        Mean decrease of $\log\|E\|_F$ per step over the window; NaN if the descent did not
        converge, or if it took no step in the window or reached the limit exactly there.
    error
        Bound of its difference from ``modes.rate``: faster modes still present at the start of the
        window, the quadratic terms, and rounding. A faster mode counts only if the slowest one is
        present, as otherwise it does not fade.
    modes
        Modes of the last iterate, ``None`` where ``measured`` is NaN.
    F, G
        Last iterates.
    status
        How the descent ended.
    """

    measured: float
    error: float
    modes: LimitModes | None
    F: FloatArray
    G: FloatArray
    status: DescentStatus


def late_rate(
    truth: ArrayLike,
    F: ArrayLike,
    G: ArrayLike,
    *,
    step_size: float,
    longest: int,
    window: tuple[float, float] = (1e-7, 1e-11),
    tol: float = 1e-13,
) -> LateRate:
    r"""Measure the rate of asymmetric population descent between two errors, and compute the modes
    of the limit.

    Parameters
    ----------
    truth
        $M$, shape ``(n_1, n_2)``, non-zero.
    F, G
        The start, shapes ``(n_1, k)`` and ``(n_2, k)``.
    step_size
        $\eta>0$.
    longest
        Largest number of steps of each of the three legs: to the window, through it, and to the
        limit.
    window
        Relative errors $\|E\|_F/\|M\|_F$, decreasing, between which the rate is measured.
    tol
        Relative error at which the iterate counts as the limit, at most ``window[1]``.

    Returns
    -------
    LateRate
        Measured rate, its allowed error, modes.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import late_rate
    >>> F, G = np.array([[0.9, 0.3], [0.1, 0.6]]), np.array([[0.05, 0.3], [0.4, 0.1]])
    >>> rate = late_rate(np.diag([1.0, 0.0]), F, G, step_size=0.1, longest=20_000)
    >>> f'{rate.measured:.4f}'
    '0.0193'
    """
    M = as_array(truth, "truth", ndim=2)
    if not M.any():
        raise ValueError("truth: expected a non-zero matrix, got zeros")
    F = as_array(F, "F", shape=(M.shape[0], None))
    G = as_array(G, "G", shape=(M.shape[1], F.shape[1]))
    eta, longest = as_real(step_size, "step_size", above=0.0), as_count(longest, "longest")
    ends = as_array(window, "window", shape=(2,), positive=True)
    tol = as_real(tol, "tol", above=0.0, maximum=float(ends[1]))
    if ends[0] <= ends[1]:
        raise ValueError(f"window: expected decreasing errors, got {window}")
    legs = []
    for goal in (*ends, tol):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the status tells it
            run = asymmetric_gradient_descent(
                M,
                search_rank=F.shape[1],
                step_size=eta,
                steps=longest,
                left=F,
                right=G,
                tol=float(goal),
                record=[0],
            )
        legs.append(run)
        F, G = run.F, run.G
        if run.status is not DescentStatus.CONVERGED:
            break
    status = legs[-1].status
    if status is not DescentStatus.CONVERGED or legs[1].steps == 0 or legs[1].errors[-1] == 0:
        return LateRate(np.nan, np.inf, None, F, G, status)
    modes = limit_modes(F, G, rank=min(int(np.linalg.matrix_rank(M)), F.shape[1]), step_size=eta)
    residual, steps, top = legs[0].F @ legs[0].G.T - M, legs[1].steps, float(modes.values.max())
    factors = np.abs(1 - eta * modes.values)[modes.values > 0]
    slow = (modes.left.T @ residual @ modes.right)[modes.values > 0][
        factors >= factors.max() - 1e-9 * eta * modes.slowest
    ]
    excited = np.linalg.norm(slow) > 100 * _EPS * top
    faster = modes.window_rate(residual, steps=steps) - modes.rate if excited else 0.0
    rounding = _EPS * F.shape[1] * top / legs[1].errors[-1] / steps
    measured = float(np.log(legs[1].errors[0] / legs[1].errors[-1]) / steps)
    return LateRate(
        measured, faster + modes.window_error(residual, steps=steps) + rounding, modes, F, G, status
    )


@refuses_overflow("F", "G")
def small_start_slowest(F: ArrayLike, G: ArrayLike, truth: ArrayLike) -> float:
    r"""Return the slowest mode to leading order for a small start: for $k\le\min(n_1,n_2)$ it is
    $\min|\mathrm{eig}\, Z^\top(F_0^\top F_0-G_0^\top G_0)Z|$.

    With $M=U\Sigma V^\top$ the rows of $P=U^\top F+V^\top G$ grow as $(I+\eta\Sigma)^tP_0$, so
    their span $R$ stays put while the signal is learnt. On its orthogonal complement, with
    orthonormal basis $Z$ ($k\times(k-r)$), the imbalance is conserved to leading order, and at the
    limit it is carried by $F$ on its positive and by $G$ on its negative eigenvectors alone, as
    $FG^\top=M$ leaves no room for both. So these $\min(k-r,n_1+n_2-2r)$ non-zero eigenvalues are,
    up to a relative $O(\alpha^2\log(1/\alpha))$ as the start shrinks as $\alpha$, the small
    $\lambda_i$ (of $n_1-r$) and $\mu_j$ (of $n_2-r$) of `limit_modes`, whose slowest mode is the
    least positive $\lambda_i+\mu_j$: the least absolute eigenvalue, unless more columns than rows
    leave no zero to pair it with. (Derived here, to leading order.)

    Parameters
    ----------
    F, G
        The start, shapes ``(n_1, k)`` and ``(n_2, k)``.
    truth
        $M$, shape ``(n_1, n_2)``, of rank $r<\min(k,n_1,n_2)$.

    Returns
    -------
    float
        The leading order of ``limit_modes(...).slowest``; it scales as $\alpha^2$, and is 0 for a
        balanced start.

    Raises
    ------
    ValueError
        If an argument is invalid or ``truth`` has rank 0 or at least $\min(k,n_1,n_2)$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import small_start_slowest
    >>> F, G = 0.1 * np.eye(2), 0.05 * np.eye(2)
    >>> round(small_start_slowest(F, G, np.diag([1.0, 0.0])), 6)
    0.0075
    """
    M = as_array(truth, "truth", ndim=2)
    F = as_array(F, "F", shape=(M.shape[0], None))
    k = F.shape[1]
    G = as_array(G, "G", shape=(M.shape[1], k))
    U, sigma, Vt = np.linalg.svd(M)
    r = int((sigma > max(M.shape) * _EPS * sigma[0]).sum())
    if not 0 < r < min(k, *M.shape):
        raise ValueError(
            f"truth: expected a rank above 0 and below its sizes {M.shape} and the "
            f"columns {k} of F, got {r}"
        )
    Z = np.linalg.svd(U[:, :r].T @ F + Vt[:r] @ G)[2][r:].T
    rooms = [n - r for n in M.shape]
    imbalance = np.linalg.eigvalsh((F @ Z).T @ (F @ Z) - (G @ Z).T @ (G @ Z))
    imbalance = imbalance[np.argsort(np.abs(imbalance))[-min(k - r, sum(rooms)) :]]
    if imbalance[0] == 0:
        return 0.0
    f, g = (
        np.append(np.sort(np.maximum(side, 0.0))[::-1], np.zeros(n))[:n]
        for side, n in zip((imbalance, -imbalance), rooms, strict=True)
    )
    pairs = np.add.outer(f, g)
    return float(pairs[pairs > 0].min())


@refuses_overflow("singular_values", "scale", infinite=True)
def rebalanced_slowest_bounds(
    singular_values: ArrayLike, *, error: float, scale: float, step_size: float
) -> tuple[float, float]:
    r"""Bound the slowest mode of asymmetric descent from a rebalanced state, for every start that
    leads there.

    After `rebalance`, $\sigma_i(F)=\beta$ and the singular values of $G$ are those of $M+E$ over
    $\beta$. Within a distance $\rho$ of that state $$\|EG\|_F^2+\|E^\top
    F\|_F^2\ge\mu\|E\|_F^2,\qquad\mu=\min\big\{\sigma_k(F)^2,\sigma_r(G)^2\big\}(1-\kappa^2),\quad
    \kappa=\frac{\|F\|\sigma_{r+1}(G)+\|E\|}{\sigma_r(M)},$$ so the path has length at most
    $e_0/\big[(1-\frac\eta2\ell)\sqrt\mu-\eta\|F\|\|G\|e_0/\sqrt\mu\big]$, $\ell=\|F\|^2+\|G\|^2$,
    $e_0=\|E\|_F$ at the rebalancing. A $\rho$ above this length bounds the whole path; then
    $\sigma_i(F_\infty)\in\beta\pm\rho$ and $G_\infty^\top=F_\infty^+M$ give
    $$\min\Big\{(\beta-\rho)^2,\frac{\sigma_r^2}{(\beta+\rho)^2}\Big\}\le\text{slowest}\le
    \min\Big\{(\beta+\rho)^2,\frac{\sigma_r^2}{(\beta-\rho)^2}\Big\}\qquad(r\le k<n_1,\ r<n_2),$$
    around $\min\{\beta^2,\sigma_r^2/\beta^2\}$, largest at $\beta^2=\sigma_r$: no size of the start
    enters. For other $\beta$ the error left at the rebalancing may have next to no component on the
    slowest mode, and decays faster at first. (Derived here.)

    Parameters
    ----------
    singular_values
        The non-zero singular values of $M$, shape ``(r,)``.
    error
        $e_0$, the error $\|FG^\top-M\|_F$ at the rebalancing.
    scale
        $\beta>0$.
    step_size
        $\eta>0$.

    Returns
    -------
    lower, upper
        Bounds of ``limit_modes(...).slowest``; 0 and infinity if ``error`` or ``step_size`` is too
        large for the argument.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import rebalanced_slowest_bounds
    >>> lower, upper = rebalanced_slowest_bounds([1.0], error=0.01, scale=0.7, step_size=0.1)
    >>> np.round([lower, upper], 3)
    array([0.467, 0.514])
    """
    sigma = as_array(singular_values, "singular_values", ndim=1, positive=True)
    e, beta = as_real(error, "error", minimum=0.0), as_real(scale, "scale", above=0.0)
    eta = as_real(step_size, "step_size", above=0.0)
    top, low = float(sigma.max()), float(sigma.min())

    def path(rho: float) -> float:
        f, g = beta + rho, (top + e) / beta + rho
        smallest = min(beta - rho, (low - e) / beta - rho)
        kappa = (f * (e / beta + rho) + e) / low
        if smallest <= 0 or kappa >= 1:
            return np.inf
        root = smallest * np.sqrt(1 - kappa**2)
        speed = (1 - eta * (f**2 + g**2) / 2) * root - eta * f * g * e / root
        return e / speed if speed > 0 else np.inf

    rho = 0.0
    for _ in range(100):  # the least fixed point, approached from below
        rho = path(rho)
        if rho == np.inf:
            return 0.0, np.inf
    rho *= 1 + 1e-9
    if path(rho) > rho:
        return 0.0, np.inf
    return min((beta - rho) ** 2, (low / (beta + rho)) ** 2), min(
        (beta + rho) ** 2, (low / (beta - rho)) ** 2
    )


def _left_spectrum(F: FloatArray) -> tuple[FloatArray, FloatArray]:
    U, sigma, _ = np.linalg.svd(F)
    return U, np.append(sigma**2, np.zeros(F.shape[0] - sigma.size))


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
