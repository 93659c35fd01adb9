r"""Subgradient descent on the $\ell_1$ loss of an over-parameterised factorisation, with gross
outliers or dense noise.

Problem: $y=\mathcal A(M)+s$ with $M\succeq0$ of rank $r$ and $\mathbb E\,\mathcal A^*\mathcal
A=\mathrm{Id}$, $$f(U)=\tfrac1{\sqrt m}\|\mathcal A(UU^\top)-y\|_1,\quad U\in\mathbb R^{n\times k},\
k\ge r,\qquad U\leftarrow U-\eta_t\,Q_tU,\quad Q_t=\tfrac1{\sqrt m}\mathcal
A^*\mathrm{sign}(\mathcal A(U_tU_t^\top)-y),$$ from $U_0$ of size $\alpha$, with geometric steps
$\eta_t=\eta_0\rho^t/\|Q_t\|$ (outliers, dense noise) or adaptive ones $\eta_t=\eta f(U_t)$ (no
noise). In the mean $Q$ points along the error (`sign_scaling`)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numba.extending import overload
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.matrix_sensing._packing import FAST, pack_symmetric, unpack_symmetric
from theorylab.matrix_sensing._sign_law import symmetric_data
from theorylab.matrix_sensing._spectral_start import spectral_factor
from theorylab.matrix_sensing.operators import MeasurementOperator
from theorylab.numerics.compiled import compiled
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "AdaptiveSteps",
    "GeometricSteps",
    "SubgradientRun",
    "SubgradientStatus",
    "spectral_start",
    "subgradient_method",
]

_PORTION = 10**8  # multiplications between two looks at Ctrl-C


@dataclass(frozen=True)
class GeometricSteps:
    r"""$\eta_t=\eta_0\rho^t/\|Q_t\|$ with the spectral norm; $\rho=1$ gives steps of constant
    length.

    Parameters
    ----------
    first
        $\eta_0>0$.
    ratio
        $0<\rho\le1$. From size $\alpha$ the signal needs $\sum_t\eta_0\rho^t$ of at least about
        $\log(1/\alpha)$ times $\|Q_0\|/\lambda_r(-Q_0)$.
    """

    first: float
    ratio: float

    def __post_init__(self) -> None:
        as_real(self.first, "first", above=0.0)
        as_real(self.ratio, "ratio", above=0.0, maximum=1.0)


@dataclass(frozen=True)
class AdaptiveSteps:
    r"""$\eta_t=\eta f(U_t)$: without noise $f$ is proportional to the error, and the method acts
    like gradient descent.

    Parameters
    ----------
    factor
        $\eta>0$.
    """

    factor: float

    def __post_init__(self) -> None:
        as_real(self.factor, "factor", above=0.0)


class SubgradientStatus(StrEnum):
    """How a run ended."""

    FINISHED = "took all the steps asked for"
    REACHED = "the relative error reached tol"
    FITTED = "the loss reached tol times that of zero"
    NOT_REACHED = (
        "took all the steps before the relative error reached tol; raise steps, or "
        "lengthen those of the schedule"
    )
    NOT_FITTED = (
        "took all the steps before the loss reached tol times that of zero; raise steps, or "
        "lengthen those of the schedule (with outliers or noise no loss that small need exist)"
    )
    DIVERGED = "the iterates overflowed; lower the steps"
    STOPPED = "stopped by the callback, with the iterate that it had by then"


@result
class SubgradientRun:
    r"""A run of `subgradient_method`.

    Attributes
    ----------
    U
        Last iterate, shape ``(n, k)``.
    errors
        $\|U_tU_t^\top-M\|_F$ at every step from 0 on, shape ``(steps + 1,)``; NaN where $M$ is
        unknown.
    losses
        $f(U_t)$, same shape.
    status
        How the run ended.
    """

    U: FloatArray
    errors: FloatArray
    losses: FloatArray
    status: SubgradientStatus

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return self.losses.size - 1


def spectral_start(
    operator: MeasurementOperator, measurements: ArrayLike, *, search_rank: int, init_scale: float
) -> FloatArray:
    r"""Return $U_0=\alpha B$, $BB^\top$ the best positive semidefinite approximation of rank $k$ of
    $-Q_0/\|Q_0\|$ at $U=0$.

    Its first columns do not depend on $k$. Columns beyond the positive eigenvalues are 0.

    Parameters
    ----------
    operator
        Symmetric measurements.
    measurements
        $y$, shape ``(m,)``.
    search_rank
        $k$, at most ``n``.
    init_scale
        $\alpha>0$.

    Returns
    -------
    FloatArray
        $U_0$, shape ``(n, k)``.

    Raises
    ------
    ValueError
        If an argument is invalid, or $-Q_0$ has no positive eigenvalue.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, spectral_start
    >>> operator = gaussian_operator(3, 200, rng=np.random.default_rng(0))
    >>> data = operator.forward(np.diag([1.0, 0.0, 0.0]))
    >>> start = spectral_start(operator, data, search_rank=1, init_scale=0.1)
    >>> int(np.argmax(np.abs(start)))
    0
    """
    y = symmetric_data(operator, measurements)
    k = as_count(search_rank, "search_rank", maximum=operator.n_rows)
    alpha = as_real(init_scale, "init_scale", above=0.0)
    signs = operator.adjoint(np.sign(y))
    start = spectral_factor(signs, search_rank=k)
    if not start.any():
        raise ValueError(
            "measurements: expected data whose sign matrix has a positive eigenvalue, got none"
        )
    return np.asarray(alpha * start / np.sqrt(np.linalg.norm(signs, 2)))


def subgradient_method(
    operator: MeasurementOperator,
    measurements: ArrayLike,
    *,
    initial: ArrayLike,
    step: GeometricSteps | AdaptiveSteps,
    steps: int,
    truth: ArrayLike | None = None,
    tol: float = 0.0,
    callback: Callback | None = None,
) -> SubgradientRun:
    r"""Run $U\leftarrow U-\eta_tQ_tU$ on $\frac1{\sqrt m}\|\mathcal A(UU^\top)-y\|_1$.

    Parameters
    ----------
    operator
        Symmetric measurements.
    measurements
        $y$, shape ``(m,)``.
    initial
        $U_0$, shape ``(n, k)``.
    step
        How long the steps are.
    steps
        Largest number of steps.
    truth
        $M$, shape ``(n, n)``, against which errors are recorded, if it is known; it does not enter
        the iteration.
    tol
        Stop when $\|UU^\top-M\|_F\le\texttt{tol}\,\|M\|_F$; of an unknown $M$, when
        $f(U)\le\texttt{tol}\,f(0)$, looked at every 100 steps. 0 takes all the steps.
    callback
        Called with a `Progress` every 100 steps or more often: the loss, and the error that ``tol``
        bounds. Where it returns True the method stops.

    Returns
    -------
    SubgradientRun
        Last iterate, errors and losses at every step. A run that diverges, misses ``tol`` or
        is stopped warns.

    Notes
    -----
    The method of ma2022-global (paper's text not consulted).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, GeometricSteps, subgradient_method
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> run = subgradient_method(
    ...     operator,
    ...     operator.forward(np.diag([1.0, 0.0, 0.0])),
    ...     initial=0.1 * np.eye(3)[:, :2],
    ...     step=GeometricSteps(0.3, 0.97),
    ...     steps=300,
    ... )
    >>> np.abs(np.round(run.U @ run.U.T, 2))
    array([[1., 0., 0.],
           [0., 0., 0.],
           [0., 0., 0.]])
    """
    y = symmetric_data(operator, measurements)
    n = operator.n_rows
    U = as_array(initial, "initial", shape=(n, None)).copy()
    if not isinstance(step, GeometricSteps | AdaptiveSteps):
        raise ValueError(
            f"step: expected GeometricSteps or AdaptiveSteps, got {type(step).__name__}"
        )
    steps = as_count(steps, "steps", minimum=0)
    unknown = truth is None
    M = np.zeros((n, n)) if truth is None else as_array(truth, "truth", shape=(n, n))
    tol = as_real(tol, "tol", minimum=0.0)
    scale = float(np.linalg.norm(M))
    stop = -1.0 if unknown else tol * scale
    most = float(np.abs(y).sum() / np.sqrt(y.size))  # the loss of 0
    enough = tol * most if unknown and tol > 0 else -1.0
    geometric = isinstance(step, GeometricSteps)
    length, ratio = (
        (float(step.first), float(step.ratio))
        if isinstance(step, GeometricSteps)
        else (float(step.factor), 1.0)
    )
    errors, losses = np.empty(steps + 1), np.empty(steps + 1)
    image = np.empty(operator.stacked.shape[1])
    stops = watcher(callback)
    often = enough >= 0 or callback is not None
    portion = max(_PORTION // (operator.stacked.size + 20 * n**3), 1)
    taken, code, first = 0, 0, True
    while True:
        count = min(portion, steps - taken, 100 - taken % 100 if often else steps)
        rows = slice(taken, taken + count + 1)
        done, code, length = _descend(
            operator.stacked, y, U, M, geometric, length, ratio, first, count, stop, image,
            errors[rows], losses[rows],
        )  # fmt: skip
        taken, first = taken + done, False
        if code == 0 and losses[taken] <= enough and (taken % 100 == 0 or taken == steps):
            code = 1
        error = losses[taken] / (most or 1.0) if unknown else errors[taken] / (scale or 1.0)
        if code == 0 and stops(taken, float(losses[taken]), float(error)):
            code = 3
        if code or taken == steps:
            break
    finished, reached = (
        (SubgradientStatus.NOT_FITTED, SubgradientStatus.FITTED)
        if unknown
        else (SubgradientStatus.NOT_REACHED, SubgradientStatus.REACHED)
    )
    ends = (
        SubgradientStatus.FINISHED, reached, SubgradientStatus.DIVERGED, SubgradientStatus.STOPPED
    )  # fmt: skip
    status = finished if code == 0 and tol > 0 else ends[code]
    if status not in (SubgradientStatus.FINISHED, reached):
        warnings.warn(f"subgradient method: {status.value}", RuntimeWarning, stacklevel=2)
    if unknown:
        errors[:] = np.nan
    return SubgradientRun(U, errors[: taken + 1], losses[: taken + 1], status)


def _sign_product(
    stacked: FloatArray, vector: FloatArray, y: FloatArray, image: FloatArray
) -> float:
    """Write ``stacked.T @ sign(stacked @ vector - y)`` to ``image``; return the l1 norm."""
    residual = stacked @ vector - y
    np.dot(np.sign(residual), stacked, out=image)
    return float(np.abs(residual).sum())


def _one_pass(stacked: FloatArray, vector: FloatArray, y: FloatArray, image: FloatArray) -> Any:
    """Return what `_sign_product` compiles to.

    As in `normal_product`, four rows at a time stay in cache between the inner product and the
    update."""

    def product(stacked: FloatArray, vector: FloatArray, y: FloatArray, image: FloatArray) -> float:
        m, width = stacked.shape
        image[:] = 0.0
        loss = 0.0
        whole = m - m % 4
        for i in range(0, whole, 4):
            r0, r1, r2, r3 = -y[i], -y[i + 1], -y[i + 2], -y[i + 3]
            for j in range(width):
                r0 += stacked[i, j] * vector[j]
                r1 += stacked[i + 1, j] * vector[j]
                r2 += stacked[i + 2, j] * vector[j]
                r3 += stacked[i + 3, j] * vector[j]
            loss += abs(r0) + abs(r1) + abs(r2) + abs(r3)
            s0, s1, s2, s3 = np.sign(r0), np.sign(r1), np.sign(r2), np.sign(r3)
            for j in range(width):
                image[j] += (
                    s0 * stacked[i, j]
                    + s1 * stacked[i + 1, j]
                    + s2 * stacked[i + 2, j]
                    + s3 * stacked[i + 3, j]
                )
        for i in range(whole, m):
            r0 = -y[i]
            for j in range(width):
                r0 += stacked[i, j] * vector[j]
            loss += abs(r0)
            s0 = np.sign(r0)
            for j in range(width):
                image[j] += s0 * stacked[i, j]
        return loss

    return product


overload(_sign_product, jit_options={"fastmath": FAST})(_one_pass)


@compiled
def _descend(
    stacked: FloatArray,
    y: FloatArray,
    U: FloatArray,
    M: FloatArray,
    geometric: bool,
    length: float,
    ratio: float,
    first: bool,
    steps: int,
    stop: float,
    image: FloatArray,
    errors: FloatArray,
    losses: FloatArray,
) -> tuple[int, int, float]:
    """Take up to ``steps`` steps, in place; return how many, how that ended (0: took them all), and
    the length that is next. But for the first call, ``image``, the first error and the first loss
    are those of U already."""
    n, k = U.shape
    scale = 1.0 / np.sqrt(y.size)
    X, Q, change = np.empty((n, n)), np.empty((n, n)), np.empty((n, k))
    flat = np.empty(stacked.shape[1])
    for t in range(steps + 1):
        if t > 0 or first:
            np.dot(U, U.T, X)
            total = 0.0
            for i in range(n):
                for j in range(n):
                    total += (X[i, j] - M[i, j]) ** 2
            errors[t] = np.sqrt(total)
            pack_symmetric(X, flat)
            losses[t] = scale * _sign_product(stacked, flat, y, image)
            if not np.isfinite(total):
                return t, 2, length
            if errors[t] <= stop:
                return t, 1, length
        if t == steps:
            break
        image *= scale
        unpack_symmetric(image, Q)
        if geometric:
            size = np.abs(np.linalg.eigvalsh(Q)).max()
            eta = length / size if size > 0 else 0.0
            length *= ratio
        else:
            eta = length * losses[t]
        np.dot(Q, U, change)
        for i in range(n):
            for j in range(k):
                U[i, j] -= eta * change[i, j]
    return steps, 0, length
