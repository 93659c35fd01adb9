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
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_instance,
    as_real,
    as_symmetric,
)
from theorylab.matrix_sensing.operators import (
    MeasurementOperator,
    normal_product,
    pack_symmetric,
    unpack_symmetric,
)
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result

IntArray = NDArray[np.int64]

_EPS = float(np.finfo(np.float64).eps)

__all__ = [
    "AsymmetricDescent",
    "DescentStatus",
    "SymmetricDescent",
    "asymmetric_gradient_descent",
    "gradient_descent",
    "rebalance",
    "spectral_factor",
    "spectral_factors",
]


class DescentStatus(StrEnum):
    """How a descent ended."""

    FINISHED = "took all the steps asked for"
    CONVERGED = "the relative error reached tol"
    NOT_CONVERGED = "took all the steps before the relative error reached tol; raise steps"
    FITTED = "the relative residual of the measurements reached tol"
    NOT_FITTED = "took all the steps before the relative residual reached tol; raise steps"
    DIVERGED = "the iterates overflowed; lower step_size or the size of the start"


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

    Returns
    -------
    SymmetricDescent
        Last iterate, recorded errors, status. A run that diverges or misses ``tol`` warns.

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
    M = _truth(truth, operator, measurements, symmetric=True)
    n = M.shape[0]
    k = as_count(search_rank, "search_rank")
    step_size = as_real(step_size, "step_size", above=0.0)
    steps = as_count(steps, "steps", minimum=0)
    init_scale = as_real(init_scale, "init_scale", above=0.0)
    schedule = _schedule(record, steps)
    stop = _stop(tol, M) if truth is not None else -1.0
    X = _start(initial, "initial", (n, k), init_scale, rng)
    data = _data(operator, measurements, noise, M, symmetric=True)
    residual = _residual_of(operator, measurements, tol) if truth is None else None
    look = None if observe is None else as_function(observe, "observe")
    iterations, errors, observed, code = _run_legs(
        lambda count: _descend_symmetric(X, M, step_size, count, stop, *data),
        _portion(M.size * k + data[0].size),
        schedule,
        steps,
        None if look is None else lambda: look(X.copy()),
        None if residual is None else lambda: residual(X @ X.T),
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

    Returns
    -------
    AsymmetricDescent
        Last iterates, recorded errors, status. A run that diverges or misses ``tol`` warns.

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
    M = _truth(truth, operator, measurements, symmetric=False)
    k = as_count(search_rank, "search_rank")
    step_size = as_real(step_size, "step_size", above=0.0)
    steps = as_count(steps, "steps", minimum=0)
    init_scale = as_real(init_scale, "init_scale", above=0.0)
    right_ratio = as_real(right_ratio, "right_ratio", above=0.0)
    schedule = _schedule(record, steps)
    stop = _stop(tol, M) if truth is not None else -1.0
    F = _start(left, "left", (M.shape[0], k), init_scale, rng)
    G = _start(right, "right", (M.shape[1], k), init_scale * right_ratio, rng)
    data = _data(operator, measurements, noise, M, symmetric=False)
    residual = _residual_of(operator, measurements, tol) if truth is None else None
    look = None if observe is None else as_function(observe, "observe")
    iterations, errors, observed, code = _run_legs(
        lambda count: _descend_asymmetric(F, G, M, step_size, count, stop, *data),
        _portion(M.size * k + data[0].size),
        schedule,
        steps,
        None if look is None else lambda: look(F.copy(), G.copy()),
        None if residual is None else lambda: residual(F @ G.T),
    )
    return AsymmetricDescent(F, G, iterations, errors, _status(code, tol, truth is None), observed)


def spectral_factor(surrogate: ArrayLike, *, search_rank: int) -> FloatArray:
    r"""Return $X_0$ with $X_0X_0^\top$ the best positive semidefinite approximation of rank at most
    $k$.

    The spectral start of sensing is that of $\mathcal A^*(y)$ (``operator.adjoint(y)``), whose mean
    is $M$. Its leading columns do not depend on $k$; columns beyond the positive eigenvalues (above
    ``n * eps`` times the largest absolute one) are 0, and stay 0 under descent.

    Parameters
    ----------
    surrogate
        Symmetric, shape ``(n, n)``.
    search_rank
        $k$, the number of columns; it may exceed $n$.

    Returns
    -------
    FloatArray
        $X_0$, shape ``(n, k)``.

    Raises
    ------
    ValueError
        If an argument is invalid or ``surrogate`` is not symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import spectral_factor
    >>> spectral_factor(np.diag([4.0, 1.0, -9.0]), search_rank=1).ravel() ** 2
    array([4., 0., 0.])
    """
    S = as_symmetric(surrogate, "surrogate")
    k = as_count(search_rank, "search_rank")
    values, vectors = np.linalg.eigh(S)
    kept = np.where(values > len(S) * _EPS * np.abs(values).max(), values, 0.0)
    return _columns(vectors[:, ::-1] * np.sqrt(kept[::-1]), k)


def spectral_factors(surrogate: ArrayLike, *, search_rank: int) -> tuple[FloatArray, FloatArray]:
    r"""Return $(F_0,G_0)$ with $F_0G_0^\top$ the best approximation of rank at most $k$ and
    $F_0^\top F_0=G_0^\top G_0$.

    The balanced start of sensing is that of $\mathcal A^*(y)$; scale one factor up and the other
    down for an imbalance, which the linear rate needs.

    Parameters
    ----------
    surrogate
        Shape ``(n_1, n_2)``.
    search_rank
        $k$, the number of columns; those beyond the rank of ``surrogate`` (singular values below
        ``max(n_1, n_2) * eps`` times the largest count as zero) are 0.

    Returns
    -------
    F, G
        Shapes ``(n_1, k)`` and ``(n_2, k)``.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import spectral_factors
    >>> F, G = spectral_factors([[0.0, 4.0], [1.0, 0.0]], search_rank=1)
    >>> np.round(F @ G.T, 12)
    array([[0., 4.],
           [0., 0.]])
    """
    S = as_array(surrogate, "surrogate", ndim=2)
    k = as_count(search_rank, "search_rank")
    U, sigma, Vt = np.linalg.svd(S, full_matrices=False)
    sigma = np.where(sigma > max(S.shape) * _EPS * sigma[0], sigma, 0.0)
    return _columns(U * np.sqrt(sigma), k), _columns(Vt.T * np.sqrt(sigma), k)


def rebalance(F: ArrayLike, G: ArrayLike, *, scale: float) -> tuple[FloatArray, FloatArray]:
    r"""Move all singular values of $F=\hat U\hat\Sigma\hat V^\top$ to $\beta$ without changing
    $FG^\top$.

    The map is $F\mapsto\beta\hat U\hat V^\top$, $G\mapsto G\hat V\hat\Sigma\hat V^\top/\beta$, one
    instance of the single modified step of xiong2023-over, Section 5 (paper's text not consulted).

    Parameters
    ----------
    F, G
        Factors, shapes ``(n_1, k)`` with $k\le n_1$, and ``(n_2, k)``.
    scale
        $\beta>0$.

    Returns
    -------
    F, G
        The new factors, same shapes.

    Raises
    ------
    ValueError
        If an argument is invalid or ``F`` has more columns than rows.

    Examples
    --------
    >>> from theorylab.matrix_sensing import rebalance
    >>> F, G = rebalance([[2.0], [0.0]], [[0.0], [3.0]], scale=1.0)
    >>> F.ravel(), G.ravel()
    (array([1., 0.]), array([0., 6.]))
    """
    F = as_array(F, "F", ndim=2)
    if F.shape[1] > F.shape[0]:
        raise ValueError(f"F: expected at most as many columns as rows, got shape {F.shape}")
    G = as_array(G, "G", shape=(None, F.shape[1]))
    scale = as_real(scale, "scale", above=0.0)
    U, sigma, Vt = np.linalg.svd(F, full_matrices=False)
    return scale * U @ Vt, (G @ (Vt.T * sigma)) @ Vt / scale


def _schedule(record: ArrayLike | None, steps: int) -> IntArray:
    if record is None:
        spaced = np.geomspace(1, max(steps, 1), max(2, int(16 * np.log10(max(steps, 1))) + 2))
        return np.unique(np.append(0, np.minimum(np.rint(spaced).astype(np.int64), steps)))
    given = as_array(record, "record", ndim=1, nonnegative=True)
    schedule = given.astype(np.int64)
    if (schedule != given).any() or (np.diff(schedule) <= 0).any() or schedule[-1] > steps:
        raise ValueError(
            f"record: expected increasing integers between 0 and steps = {steps}, got {given}"
        )
    return schedule


def _stop(tol: float, M: FloatArray) -> float:
    """Return the error at which to stop; below 0 for ``tol=0``, as an exact start need not stay so
    under noise."""
    tol = as_real(tol, "tol", minimum=0.0)
    return tol * float(np.linalg.norm(M)) if tol > 0 else -1.0


def _start(
    given: ArrayLike | None,
    name: str,
    shape: tuple[int, int],
    scale: float,
    rng: np.random.Generator | None,
) -> FloatArray:
    if given is not None:
        if rng is not None:
            raise ValueError(f"{name}, rng: expected a start or a generator, got both")
        return as_array(given, name, shape=shape).copy()
    if rng is None:
        raise ValueError(f"{name}: expected a start, as rng is None, got None")
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    return scale * rng.standard_normal(shape)


def _columns(factor: FloatArray, count: int) -> FloatArray:
    """Return the first columns of the factor, with zeros for those that it lacks."""
    kept = np.zeros((factor.shape[0], count))
    kept[:, : factor.shape[1]] = factor[:, :count]
    return kept


def _truth(
    truth: ArrayLike | None,
    operator: MeasurementOperator | None,
    measurements: ArrayLike | None,
    *,
    symmetric: bool,
) -> FloatArray:
    """Return M, or zeros in its place where it is unknown."""
    if truth is not None:
        return as_symmetric(truth, "truth") if symmetric else as_array(truth, "truth", ndim=2)
    if operator is None or measurements is None:
        raise ValueError("truth: expected a matrix, or operator and measurements, got None")
    return np.zeros(as_instance(operator, "operator", MeasurementOperator).shape)


def _residual_of(
    operator: MeasurementOperator | None, measurements: ArrayLike | None, tol: float
) -> Callable[[FloatArray], tuple[float, bool]]:
    """Return the map from a matrix to its residual, and whether that is small enough."""
    assert operator is not None
    assert measurements is not None
    y = as_array(measurements, "measurements")
    enough = as_real(tol, "tol", minimum=0.0) * float(np.linalg.norm(y))

    def residual(matrix: FloatArray) -> tuple[float, bool]:
        size = float(np.linalg.norm(operator.forward(matrix) - y))
        return size, tol > 0 and size <= enough

    return residual


def _data(
    operator: MeasurementOperator | None,
    measurements: ArrayLike | None,
    noise: ArrayLike | None,
    M: FloatArray,
    *,
    symmetric: bool,
) -> tuple[FloatArray, bool, FloatArray]:
    """Return the matrix a descent applies, whether it is the Gram matrix (else its normal product
    is taken), and A*(s)."""
    shape = M.shape
    if operator is None:
        for name, value in (("noise", noise), ("measurements", measurements)):
            if value is not None:
                raise ValueError(
                    f"{name}: expected None without an operator, as the population problem "
                    "has no measurements"
                )
        return np.empty((0, 0)), False, np.empty(0)
    if not isinstance(operator, MeasurementOperator):
        raise ValueError(
            f"operator: expected a MeasurementOperator or None, got {type(operator).__name__}"
        )
    if operator.shape != shape or operator.symmetric != symmetric:
        kind = "symmetric" if symmetric else "general"
        raise ValueError(
            f"operator: expected {kind} measurements of {shape} matrices, got "
            f"symmetric={operator.symmetric}, {operator.shape}"
        )
    m, width = operator.stacked.shape
    shift = np.zeros(width)
    if measurements is not None:
        if noise is not None:
            raise ValueError("noise: expected None where measurements are given, got both")
        y = as_array(measurements, "measurements", shape=(m,))
        shift = (y - operator.forward(M)) @ operator.stacked
    elif noise is not None:
        shift = as_array(noise, "noise", shape=(m,)) @ operator.stacked
    # One product with the Gram matrix is never dearer than the two with m >= width rows that it
    # replaces.
    return (
        (operator.stacked.T @ operator.stacked, True, shift)
        if m >= width
        else (operator.stacked, False, shift)
    )


def _portion(work: int) -> int:
    """Return the number of steps of this much work between which Ctrl-C gets in."""
    return max(10**8 // work, 1)


def _run_legs(
    leg: Callable[[int], tuple[int, int, float]],
    portion: int,
    schedule: IntArray,
    steps: int,
    observe: Callable[[], Any] | None,
    residual: Callable[[], tuple[float, bool]] | None,
) -> tuple[IntArray, FloatArray, tuple[Any, ...], int]:
    """Run from one recorded iteration to the next; return iterations, errors, observations and how
    the last leg ended.

    ``leg(count)`` takes up to ``count`` steps in place and returns how it ended (0: took them all),
    the steps taken, the error; ``residual()``, if given, takes the place of the error."""
    iterations: list[int] = []
    errors: list[float] = []
    observed: list[Any] = []
    t = code = 0
    for goal in schedule if schedule[-1] == steps else np.append(schedule, steps):
        while True:
            code, taken, error = leg(min(int(goal) - t, portion))
            t += taken
            if code or t == goal:
                break
        if residual is not None and code == 0:
            error, fitted = residual()
            code = int(fitted)
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
    status = (DescentStatus.FINISHED, reached, DescentStatus.DIVERGED)[code]
    if status is DescentStatus.FINISHED and tol > 0:
        status = missed
    if status in (DescentStatus.DIVERGED, missed):
        warnings.warn(f"gradient descent: {status.value}", RuntimeWarning, stacklevel=3)
    return status


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _residual(F: FloatArray, Gt: FloatArray, M: FloatArray, E: FloatArray) -> float:
    np.dot(F, Gt, E)
    total = 0.0
    for i in range(E.shape[0]):
        for j in range(E.shape[1]):
            E[i, j] -= M[i, j]
            total += E[i, j] * E[i, j]
    return float(np.sqrt(total))


@compiled
def _ended(error: float, stop: float, t: int, steps: int) -> int:
    """Return -1 to go on, or the position of the status in `_status`."""
    if not np.isfinite(error):
        return 2
    if error <= stop:
        return 1
    return 0 if t == steps else -1


@compiled
def _take_step(X: FloatArray, change: FloatArray, step_size: float) -> None:
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            X[i, j] -= step_size * change[i, j]


@compiled
def _apply_normal(
    stacked: FloatArray, gram: bool, shift: FloatArray, flat: FloatArray, image: FloatArray
) -> None:
    """Write A*(A(E) - s) to ``image``, in the coordinates of the measurements; ``shift`` is
    A*(s)."""
    if gram:
        np.dot(stacked, flat, image)
    else:
        normal_product(stacked, flat, image)
    for i in range(image.size):
        image[i] -= shift[i]


@compiled
def _descend_symmetric(
    X: FloatArray,
    M: FloatArray,
    step_size: float,
    steps: int,
    stop: float,
    stacked: FloatArray,
    gram: bool,
    shift: FloatArray,
) -> tuple[int, int, float]:
    n = X.shape[0]
    E, change = np.empty((n, n)), np.empty_like(X)
    flat, image = np.empty(stacked.shape[1]), np.empty(stacked.shape[1])
    t = 0
    while True:
        error = _residual(X, X.T, M, E)
        code = _ended(error, stop, t, steps)
        if code >= 0:
            return code, t, error
        if stacked.size:
            pack_symmetric(E, flat)
            _apply_normal(stacked, gram, shift, flat, image)
            unpack_symmetric(image, E)
        np.dot(E, X, change)
        _take_step(X, change, step_size)
        t += 1


@compiled
def _descend_asymmetric(
    F: FloatArray,
    G: FloatArray,
    M: FloatArray,
    step_size: float,
    steps: int,
    stop: float,
    stacked: FloatArray,
    gram: bool,
    shift: FloatArray,
) -> tuple[int, int, float]:
    E, image = np.empty(M.shape), np.empty(M.shape)
    change_F, change_G = np.empty_like(F), np.empty_like(G)
    gradient = image if stacked.size else E
    flat_E, flat_image = E.reshape(-1), image.reshape(-1)
    t = 0
    while True:
        error = _residual(F, G.T, M, E)
        code = _ended(error, stop, t, steps)
        if code >= 0:
            return code, t, error
        if stacked.size:
            _apply_normal(stacked, gram, shift, flat_E, flat_image)
        np.dot(gradient, G, change_F)
        np.dot(gradient.T, F, change_G)
        _take_step(F, change_F, step_size)
        _take_step(G, change_G, step_size)
        t += 1
