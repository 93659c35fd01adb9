r"""Gradient descent on the factors of a low-rank matrix.

Symmetric: $X\leftarrow X-\eta\,\mathcal A^*\mathcal A(XX^\top-M)X$ with $X\in\mathbb R^{n\times
k}$, $M$ symmetric of rank $r$. Asymmetric: $F\leftarrow F-\eta\,\mathcal A^*\mathcal A(E)G$,
$G\leftarrow G-\eta\,\mathcal A^*\mathcal A(E)^\top F$ with $E=FG^\top-M$. The population problem
has $\mathcal A^*\mathcal A=\mathrm{Id}$ (``operator=None``); noisy measurements $y=\mathcal A(M)+s$
replace $\mathcal A^*\mathcal A(E)$ by $\mathcal A^*(\mathcal A(E)-s)$. What spare columns, $k>r$,
cost is in `descent_limits`: a linear rate becomes $\sqrt{\min(k,n)-r}/(2\eta T)$ for the symmetric
descent, and one set by the imbalance $F^\top F-G^\top G$ for the asymmetric one, which a single
`rebalance` frees of the start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_count, as_function, as_real
from theorylab.matrix_sensing._descent_data import (
    IntArray,
    first_factor,
    measured,
    misfit_of,
    recorded_steps,
    target,
)
from theorylab.matrix_sensing._descent_kernels import descend_asymmetric, descend_symmetric
from theorylab.matrix_sensing.operators import MeasurementOperator
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "AsymmetricDescent",
    "DescentStatus",
    "SymmetricDescent",
    "asymmetric_gradient_descent",
    "gradient_descent",
]

_PORTION = 10**8  # multiplications between two looks at Ctrl-C and the callback


class DescentStatus(StrEnum):
    """How a descent ended."""

    FINISHED = "took all the steps asked for"
    CONVERGED = "the relative error reached tol"
    NOT_CONVERGED = "took all the steps before the relative error reached tol; raise steps"
    FITTED = "the relative residual of the measurements reached tol"
    NOT_FITTED = "took all the steps before the relative residual reached tol; raise steps"
    DIVERGED = "the iterates overflowed; lower step_size or the size of the start"
    STOPPED = "stopped by the callback, with the iterates that it had by then"


@result
class SymmetricDescent:
    r"""A run of `gradient_descent`.

    Attributes
    ----------
    X
        Last iterate, shape ``(n, k)``.
    iterations, errors
        The recorded iteration numbers and $\|XX^\top-M\|_F$ there, or, of an unknown $M$, the
        residuals $\|\mathcal A(XX^\top)-y\|$; the last iterate is always recorded.
    status
        How the run ended.
    observed
        What ``observe`` returned at the recorded iterations; empty without it.
    """

    X: FloatArray
    iterations: IntArray
    errors: FloatArray
    status: DescentStatus
    observed: tuple[Any, ...] = ()

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return int(self.iterations[-1])


@result
class AsymmetricDescent:
    r"""A run of `asymmetric_gradient_descent`.

    Attributes
    ----------
    F, G
        Last iterates, shapes ``(n_1, k)`` and ``(n_2, k)``.
    iterations, errors
        The recorded iteration numbers and $\|FG^\top-M\|_F$ there, or, of an unknown $M$, the
        residuals $\|\mathcal A(FG^\top)-y\|$; the last iterate is always recorded.
    status
        How the run ended.
    observed
        What ``observe`` returned at the recorded iterations; empty without it.
    """

    F: FloatArray
    G: FloatArray
    iterations: IntArray
    errors: FloatArray
    status: DescentStatus
    observed: tuple[Any, ...] = ()

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return int(self.iterations[-1])

    @property
    def imbalance(self) -> FloatArray:
        r"""$F^\top F-G^\top G$ at the last iterate; each step changes it by $O(\eta^2)$ only."""
        return self.F.T @ self.F - self.G.T @ self.G


def gradient_descent(
    truth: ArrayLike | None = None,
    *,
    search_rank: int,
    step_size: float,
    steps: int,
    operator: MeasurementOperator | None = None,
    measurements: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    initial: ArrayLike | None = None,
    init_scale: float = 1.0,
    rng: np.random.Generator | None = None,
    record: ArrayLike | None = None,
    observe: Callable[[FloatArray], Any] | None = None,
    tol: float = 0.0,
    callback: Callback | None = None,
) -> SymmetricDescent:
    r"""Run $X\leftarrow X-\eta\,\mathcal A^*(\mathcal A(XX^\top)-y)X$, gradient descent on
    $\frac14\|\mathcal A(XX^\top)-y\|^2$.

    Parameters
    ----------
    truth
        $M$, symmetric (definite or not), shape ``(n, n)``; ``None`` where it is unknown.
    search_rank
        $k$, the number of columns of $X$; it may exceed $n$.
    step_size
        $\eta>0$.
    steps
        Largest number of steps.
    operator
        Symmetric measurements $\mathcal A$; ``None`` for the population problem $\mathcal
        A^*\mathcal A=\mathrm{Id}$. With at least $n(n+1)/2$ measurements the small matrix of
        $\mathcal A^*\mathcal A$ is formed once and replaces them.
    measurements
        $y$, shape ``(m,)``, by default $\mathcal A(M)+s$.
    noise
        $s$ on the scale of $\mathcal A(M)$, shape ``(m,)``, in place of ``measurements``; none by
        default. Errors are always those against $M$, if it is known.
    initial
        $X_0$, shape ``(n, k)``, for instance from `spectral_factor`. Give either ``initial`` or
        ``rng``.
    init_scale
        With ``rng``, $X_0$ has independent $N(0,\texttt{init\_scale}^2)$ entries.
    rng
        Source of randomness for $X_0$.
    record
        Increasing iteration numbers between 0 and ``steps`` at which the error is kept; about 16
        per decade by default.
    observe
        Called with a copy of $X$ at every recorded iteration whose error is finite; what it returns
        is kept in ``observed``.
    tol
        Stop when $\|XX^\top-M\|_F\le\texttt{tol}\,\|M\|_F$; of an unknown $M$, at the first
        recorded iteration with $\|\mathcal A(XX^\top)-y\|\le\texttt{tol}\,\|y\|$. 0 takes all the
        steps.
    callback
        Called with a `Progress` at every recorded iteration, and a few times a second: the
        objective, and the error that ``tol`` bounds. Where it returns True the descent stops.

    Returns
    -------
    SymmetricDescent
        Last iterate, recorded errors, status. A run that diverges, misses ``tol`` or is
        stopped warns.

    Raises
    ------
    ValueError
        If an argument has the wrong shape, type or sign, ``truth`` is not symmetric, ``noise`` is
        given without ``operator`` or with ``measurements``, neither ``truth`` nor ``operator`` with
        ``measurements`` are given, or ``initial`` and ``rng`` are both or neither given.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gradient_descent
    >>> run = gradient_descent(
    ...     np.diag([1.0, 0.0]), search_rank=1, step_size=0.2, steps=200, initial=[[0.5], [0.2]]
    ... )
    >>> bool(run.errors[-1] < 1e-12)
    True
    """
    M = target(truth, operator, measurements, symmetric=True)
    n = M.shape[0]
    k = as_count(search_rank, "search_rank")
    step_size = as_real(step_size, "step_size", above=0.0)
    steps = as_count(steps, "steps", minimum=0)
    init_scale = as_real(init_scale, "init_scale", above=0.0)
    schedule = recorded_steps(record, steps)
    tol = as_real(tol, "tol", minimum=0.0)
    stop = tol * float(np.linalg.norm(M)) if truth is not None and tol > 0 else -1.0
    X = first_factor(initial, "initial", (n, k), init_scale, rng)
    data = measured(operator, measurements, noise, M, symmetric=True)
    misfit, size = misfit_of(operator, measurements, noise, M)
    look = None if observe is None else as_function(observe, "observe")
    stops = watcher(callback)
    iterations, errors, observed, code = _run_legs(
        lambda count: descend_symmetric(X, M, step_size, count, stop, *data),
        max(_PORTION // (M.size * k + data[0].size), 1),
        schedule,
        steps,
        None if look is None else lambda: look(X.copy()),
        None if truth is not None else lambda: misfit(X @ X.T),
        tol * size if tol > 0 else -1.0,
        None
        if callback is None
        else lambda t, error: stops(t, misfit(X @ X.T) ** 2 / 4, error / (size or 1.0)),
    )
    return SymmetricDescent(X, iterations, errors, _status(code, tol, truth is None), observed)


def asymmetric_gradient_descent(
    truth: ArrayLike | None = None,
    *,
    search_rank: int,
    step_size: float,
    steps: int,
    operator: MeasurementOperator | None = None,
    measurements: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    left: ArrayLike | None = None,
    right: ArrayLike | None = None,
    init_scale: float = 1.0,
    right_ratio: float = 1 / 3,
    rng: np.random.Generator | None = None,
    record: ArrayLike | None = None,
    observe: Callable[[FloatArray, FloatArray], Any] | None = None,
    tol: float = 0.0,
    callback: Callback | None = None,
) -> AsymmetricDescent:
    r"""Run $F\leftarrow F-\eta\,\mathcal A^*\mathcal A(E)G$, $G\leftarrow G-\eta\,\mathcal
    A^*\mathcal A(E)^\top F$, $E=FG^\top-M$.

    This is gradient descent on $\frac12\|\mathcal A(FG^\top-M)\|^2$; noise $s$ turns $\mathcal
    A(E)$ into $\mathcal A(E)-s$.

    Parameters
    ----------
    truth
        $M$, shape ``(n_1, n_2)``; ``None`` where it is unknown.
    search_rank
        $k$, the number of columns of $F$ and $G$.
    step_size
        $\eta>0$.
    steps
        Largest number of steps.
    operator
        Measurements $\mathcal A$ built with ``symmetric=False``; ``None`` for the population
        problem $\mathcal A^*\mathcal A=\mathrm{Id}$. With at least $n_1n_2$ measurements the matrix
        of $\mathcal A^*\mathcal A$ is formed once and replaces them.
    measurements
        $y$, shape ``(m,)``, by default $\mathcal A(M)+s$.
    noise
        $s$ on the scale of $\mathcal A(M)$, shape ``(m,)``, in place of ``measurements``; none by
        default. Errors are always those against $M$, if it is known.
    left, right
        $F_0$ and $G_0$, shapes ``(n_1, k)`` and ``(n_2, k)``, for instance from `spectral_factors`.
        Give both, or ``rng``.
    init_scale, right_ratio
        With ``rng``, $F_0$ has independent $N(0,\alpha^2)$ entries with $\alpha$ = ``init_scale``,
        and $G_0$ independent $N(0,(\texttt{right\_ratio}\,\alpha)^2)$ entries.
    rng
        Source of randomness for $F_0$ and $G_0$.
    record
        Increasing iteration numbers between 0 and ``steps`` at which the error is kept; about 16
        per decade by default.
    observe
        Called with copies of $F$ and $G$ at every recorded iteration whose error is finite; what it
        returns is kept in ``observed``.
    tol
        Stop when $\|E\|_F\le\texttt{tol}\,\|M\|_F$; of an unknown $M$, at the first recorded
        iteration with $\|\mathcal A(FG^\top)-y\|\le\texttt{tol}\,\|y\|$. 0 takes all the steps.
    callback
        Called with a `Progress` at every recorded iteration, and a few times a second: the
        objective, and the error that ``tol`` bounds. Where it returns True the descent stops.

    Returns
    -------
    AsymmetricDescent
        Last iterates, recorded errors, status. A run that diverges, misses ``tol`` or is
        stopped warns.

    Raises
    ------
    ValueError
        If an argument has the wrong shape, type or sign, ``noise`` is given without ``operator``
        or with ``measurements``, neither ``truth`` nor ``operator`` with ``measurements`` are
        given, or the start is given twice or not at all.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import asymmetric_gradient_descent
    >>> run = asymmetric_gradient_descent(
    ...     np.diag([1.0, 0.0]),
    ...     search_rank=1,
    ...     step_size=0.2,
    ...     steps=200,
    ...     rng=np.random.default_rng(0),
    ... )
    >>> bool(run.errors[-1] < 1e-12)
    True
    """
    M = target(truth, operator, measurements, symmetric=False)
    k = as_count(search_rank, "search_rank")
    step_size = as_real(step_size, "step_size", above=0.0)
    steps = as_count(steps, "steps", minimum=0)
    init_scale = as_real(init_scale, "init_scale", above=0.0)
    right_ratio = as_real(right_ratio, "right_ratio", above=0.0)
    schedule = recorded_steps(record, steps)
    tol = as_real(tol, "tol", minimum=0.0)
    stop = tol * float(np.linalg.norm(M)) if truth is not None and tol > 0 else -1.0
    F = first_factor(left, "left", (M.shape[0], k), init_scale, rng)
    G = first_factor(right, "right", (M.shape[1], k), init_scale * right_ratio, rng)
    data = measured(operator, measurements, noise, M, symmetric=False)
    misfit, size = misfit_of(operator, measurements, noise, M)
    look = None if observe is None else as_function(observe, "observe")
    stops = watcher(callback)
    iterations, errors, observed, code = _run_legs(
        lambda count: descend_asymmetric(F, G, M, step_size, count, stop, *data),
        max(_PORTION // (M.size * k + data[0].size), 1),
        schedule,
        steps,
        None if look is None else lambda: look(F.copy(), G.copy()),
        None if truth is not None else lambda: misfit(F @ G.T),
        tol * size if tol > 0 else -1.0,
        None
        if callback is None
        else lambda t, error: stops(t, misfit(F @ G.T) ** 2 / 2, error / (size or 1.0)),
    )
    return AsymmetricDescent(F, G, iterations, errors, _status(code, tol, truth is None), observed)


def _run_legs(
    leg: Callable[[int], tuple[int, int, float]],
    portion: int,
    schedule: IntArray,
    steps: int,
    observe: Callable[[], Any] | None,
    residual: Callable[[], float] | None,
    enough: float,
    stops: Callable[[int, float], bool] | None,
) -> tuple[IntArray, FloatArray, tuple[Any, ...], int]:
    """Run from one recorded iteration to the next, in portions; return iterations, errors,
    observations and how the last leg ended.

    ``leg(count)`` takes up to ``count`` steps in place and returns how it ended (0: took them all),
    the steps taken, the error; ``residual()``, if given, takes the place of the error, and ends the
    run at a recorded iteration where it is ``enough``."""
    iterations: list[int] = []
    errors: list[float] = []
    observed: list[Any] = []
    t = code = 0
    for goal in schedule if schedule[-1] == steps else np.append(schedule, steps):
        while True:
            code, taken, error = leg(min(int(goal) - t, portion))
            t += taken
            if residual is not None and code == 0 and (t == goal or stops is not None):
                error = residual()
                code = int(t == goal and error <= enough)
            if code == 0 and stops is not None and stops(t, error):
                code = 3
            if code or t == goal:
                break
        iterations.append(t)
        errors.append(error)
        if observe is not None and np.isfinite(error):
            observed.append(observe())
        if code:
            break
    return np.array(iterations, dtype=np.int64), np.array(errors), tuple(observed), code


def _status(code: int, tol: float, unknown: bool) -> DescentStatus:
    reached = DescentStatus.FITTED if unknown else DescentStatus.CONVERGED
    missed = DescentStatus.NOT_FITTED if unknown else DescentStatus.NOT_CONVERGED
    ends = (DescentStatus.FINISHED, reached, DescentStatus.DIVERGED, DescentStatus.STOPPED)
    status = missed if code == 0 and tol > 0 else ends[code]
    if status not in (DescentStatus.FINISHED, reached):
        warnings.warn(f"gradient descent: {status.value}", RuntimeWarning, stacklevel=3)
    return status
