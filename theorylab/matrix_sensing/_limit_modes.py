r"""The modes in which the error of asymmetric descent decays near its limit.

$E\leftarrow E-\eta(EGG^\top+FF^\top E)+\eta^2EGF^\top E$, so at a limit $FG^\top=M$ the error
decays in the modes $1-\eta(\lambda_i(FF^\top)+\lambda_j(GG^\top))$; the slowest reachable mode is
the smallest non-zero one (`limit_modes`). For small starts it is set by the imbalance $F^\top
F-G^\top G$, hence $\propto\alpha^2$ for a start of size $\alpha$ (`small_start_slowest`), zero for
a balanced start, and free of $\alpha$ after one `rebalance` (`rebalanced_slowest_bounds`).
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    refuses_overflow,
)
from theorylab.matrix_sensing.factored_descent import DescentStatus, asymmetric_gradient_descent
from theorylab.numerics.progress import Callback
from theorylab.numerics.results import result

__all__ = ["LateRate", "LimitModes", "late_rate", "limit_modes", "small_start_slowest"]

_EPS = float(np.finfo(np.float64).eps)


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
        $r$, the rank of $M=FG^\top$. By Sylvester's inequality at most $k+r$ of the
        $\lambda_i$, $\mu_j$ are non-zero; the others are set to 0, so that no threshold is needed.
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
    present = min(k + r, n + G.shape[0])
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
    callback: Callback | None = None,
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
    callback
        As in `asymmetric_gradient_descent`, for each of the legs.

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
                callback=callback,
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


def _left_spectrum(F: FloatArray) -> tuple[FloatArray, FloatArray]:
    U, sigma, _ = np.linalg.svd(F)
    return U, np.append(sigma**2, np.zeros(F.shape[0] - sigma.size))
