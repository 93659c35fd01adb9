r"""Classification tasks learned one after the other: projections onto the separators of each.

Task t has rows $z_i=y_ix_i$ of a matrix $Z_t$ and the separators
$C_t=\{w:Z_tw\ge1\}$. Training it on exponential loss with the penalty
$\frac{\lambda^{c_t}}2\|w-w_{t-1}\|_{B_t}^2$ gives, with $\ell=\log(1/\lambda)$ and
$v_t=w_t/\ell$,

$$v_t=v_{t-1}+B_t^{-1}Z_t^\top\alpha,\qquad
z_i^\top v_t=c_t-\frac{\log\ell+\log\alpha_i}\ell:$$

as $\ell\to\infty$ the projection of $v_{t-1}$ onto $\{Z_tw\ge c_t\}$ in the norm
of $B_t$. With $c_t=1$ and $B_t=I$ this is sequential max-margin,
$w_t=P_{C_t}w_{t-1}$.

If the tasks have a common separator, let $C=\cap_tC_t$, $w^*$ be its shortest point,
$R$ the norm of the longest row and $q=R^2\|w^*\|^2\ge1$. At distance at most
$\delta$ from every $C_t$ no row misses 1 by more than $R\delta$, and
$w+R\delta w^*$ is in C:

$$\mathrm{dist}(w,C)\le R\|w^*\|\max_t\mathrm{dist}(w,C_t).$$

A step of length $s_k$ takes $s_k^2$ from the squared distance to every point of C, and
from $a_k=\mathrm{dist}^2(w_k,C)$. So T tasks have the rates

- in random order: $\mathbb Es_k^2\ge\frac1T\max_t\mathrm{dist}^2(w_{k-1},C_t)$, and
  $a_k$ shrinks by $1-\frac1{Tq}$ in expectation;
- in cyclic order: with $p=\lfloor T/2\rfloor$ every $C_t$ is reached from $w_j$
  by at most p steps ahead, or at most $T-1-p\le p$ steps back, whose squares sum to S. By
  Cauchy and Schwarz $a_j\le qpS$; so the $T-1$ steps from $w_i$, i at least 1,
  have $a_{i+T-1}\le a_j\le qp(a_i-a_{i+T-1})$: they shrink it by
  $\frac{qp}{1+qp}$;
- in cyclic order at any q: $\|w_{i+T}-w_i\|$ never grows, for both ends are projected onto
  the same set, and its squares over m cycles sum to at most
  $T\sum_ks_k^2\le T\|w^*\|^2$: it is at most $\|w^*\|\sqrt{T/m}$. Times
  $2\|w^*\|$ it bounds $S$, and $R^2pS$ the squared violations.

Paper: evron2023-continual (constants derived here)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.implicit_regularization.margins import MarginStatus, margin_projection
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "SequentialProjections",
    "SequentialStatus",
    "TaskGeometry",
    "WeakRegularisation",
    "cyclic_regression_limit",
    "random_tasks",
    "sequential_max_margin",
    "task_geometry",
    "weak_regularisation",
]

NEWTON = 200  # steps for each strength of the penalty


class SequentialStatus(StrEnum):
    """How a sequence of projections ended."""

    DONE = "every projection was certified"
    NOT_SEPARABLE = "a task has no separator: the sequence stops before it"
    UNDECIDED = "a projection was not certified to tol: its margin is too small for float64"
    STOPPED = "stopped by the callback, after the tasks that were done by then"


@result
class SequentialProjections:
    """The iterates of projections onto the separators of tasks.

    Attributes
    ----------
    iterates
        (k + 1, d): the start, and the weights after each task.
    order
        (k,): the tasks.
    violations
        (k + 1,): the largest violation of any row of any task, 0 where all are separated.
    status
        How it ended.
    """

    iterates: FloatArray
    order: NDArray[np.intp]
    violations: FloatArray
    status: SequentialStatus

    @property
    def steps(self) -> FloatArray:
        """Lengths of the steps, (k,)."""
        return np.asarray(np.linalg.norm(np.diff(self.iterates, axis=0), axis=1))

    @property
    def weights(self) -> FloatArray:
        """The last iterate, (d,)."""
        return np.asarray(self.iterates[-1])


@result
class TaskGeometry:
    r"""What the rates depend on.

    Attributes
    ----------
    separator
        $w^*$, (d,): the shortest common separator.
    radius
        R, the norm of the longest row.
    n_tasks
        T.
    condition
        $q=R^2\|w^*\|^2$.
    """

    separator: FloatArray
    radius: float
    n_tasks: int
    condition: float

    @property
    def contraction(self) -> float:
        """1 - 1 / (T q): of squared distances, in expectation, at a step of a random order."""
        return 1 - 1 / (self.n_tasks * self.condition)

    @property
    def cyclic_contraction(self) -> float:
        """q p / (1 + q p), p = floor(T / 2): of squared distances at every T - 1 steps of a cyclic
        order after the first."""
        strides = self.n_tasks // 2 * self.condition
        return strides / (1 + strides)


@result
class WeakRegularisation:
    r"""The weights of tasks trained one after the other with a small penalty.

    Attributes
    ----------
    iterates
        (k + 1, d): the weights over $\log(1/\lambda)$.
    residual
        The largest violation of the stationarity equations, relative to their terms.
    """

    iterates: FloatArray
    residual: float


def random_tasks(
    n_tasks: int, n_points: int, *, d: int, margin: float, spread: float, seed: int
) -> list[FloatArray]:
    """Return tasks of ``n_points`` rows each, (n_points, d), with a common separator.

    Parameters
    ----------
    n_tasks, n_points, d
        Sizes.
    margin, spread
        The rows are uniform in [margin, 1] along a random direction, and normal across it with
        this standard deviation; the margin in (0, 1], the spread at most 1e6.
    seed
        Of the random numbers.

    Examples
    --------
    >>> from theorylab.implicit_regularization import random_tasks
    >>> [Z.shape for Z in random_tasks(2, 3, d=5, margin=0.5, spread=1.0, seed=0)]
    [(3, 5), (3, 5)]
    """
    count, points = as_count(n_tasks, "n_tasks"), as_count(n_points, "n_points")
    size = as_count(d, "d")
    least = as_real(margin, "margin", minimum=1e-6, maximum=1.0)
    width = as_real(spread, "spread", minimum=0.0, maximum=1e6)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    u = rng.standard_normal(size)
    u /= np.linalg.norm(u)
    rows = width * rng.standard_normal((count, points, size))
    along = rng.uniform(least, 1.0, (count, points))
    return list(rows - (rows @ u)[..., None] * u + along[..., None] * u)


@refuses_overflow("tasks")
def task_geometry(tasks: Sequence[ArrayLike]) -> TaskGeometry:
    r"""Return the shortest common separator of tasks, and the constants of the rates.

    Parameters
    ----------
    tasks
        T arrays, (n_t, d), of rows $y_ix_i$, which have a common separator.

    Examples
    --------
    >>> from theorylab.implicit_regularization import task_geometry
    >>> found = task_geometry([[[2.0, 1.0]], [[1.0, 3.0]]])
    >>> found.separator.round(12), round(found.condition, 12), round(found.contraction, 12)
    (array([0.4, 0.2]), 2.0, 0.75)
    """
    Z = _tasks(tasks)
    rows = np.concatenate(Z)
    found = margin_projection(rows, np.zeros(rows.shape[1]), tol=1e-9)
    if found.status is not MarginStatus.CERTIFIED:
        raise ValueError(f"tasks: expected a common separator, got {found.status.value}")
    radius = float(np.linalg.norm(rows, axis=1).max())
    return TaskGeometry(found.weights, radius, len(Z), (radius * found.distance) ** 2)


@refuses_overflow("tasks", "start", "margins", "metrics")
def sequential_max_margin(
    tasks: Sequence[ArrayLike],
    order: ArrayLike,
    *,
    start: ArrayLike | None = None,
    margins: ArrayLike | None = None,
    metrics: Sequence[ArrayLike] | None = None,
    tol: float = 1e-9,
    callback: Callback | None = None,
) -> SequentialProjections:
    r"""Project onto the separators of one task after the other.

    Parameters
    ----------
    tasks
        T arrays, (n_t, d), of rows $y_ix_i$.
    order
        (k,): which task comes when, integers from 0.
    start
        (d,), zero by default.
    margins, metrics
        What each task asks, $\{Z_tw\ge c_t\}$, positive, (T,), and the norm in which it
        projects, T positive definite (d, d); 1 and the identity by default.
    tol
        Of the projections.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` after each task: the distance
        of the projection, and the largest violation of any task; where it returns True, the
        sequence stops.

    Examples
    --------
    >>> from theorylab.implicit_regularization import sequential_max_margin
    >>> tasks = [[[2.0, 1.0]], [[1.0, 3.0]]]
    >>> for order in ([0, 1, 0], [1, 0, 1]):
    ...     sequential_max_margin(tasks, order).weights.round(12)
    array([0.4, 0.2])
    array([0.3, 0.4])
    """
    Z = _tasks(tasks)
    d = Z[0].shape[1]
    at = _order(order, len(Z))
    c, roots = _margins(margins, len(Z)), _roots(metrics, len(Z), d)
    w = np.zeros(d) if start is None else as_array(start, "start", shape=(d,)).copy()
    accuracy = as_real(tol, "tol", minimum=1e-14, maximum=0.1)
    whitened = [np.linalg.solve(L, (z / m).T).T for z, m, L in zip(Z, c, roots, strict=True)]
    stops = watcher(callback)
    iterates, status = [w], SequentialStatus.DONE

    def missed(path: FloatArray) -> FloatArray:
        most = [np.max(m - path @ z.T, axis=-1) for z, m in zip(Z, c, strict=True)]
        return np.asarray(np.maximum(np.max(most, axis=0), 0.0))

    for t in at:
        found = margin_projection(whitened[t], roots[t].T @ w, tol=accuracy)
        if found.status is MarginStatus.NOT_SEPARABLE:
            status = SequentialStatus.NOT_SEPARABLE
            break
        if found.status is MarginStatus.UNDECIDED:
            status = SequentialStatus.UNDECIDED
        if found.distance > 0:
            w = np.linalg.solve(roots[t].T, found.weights)
        iterates.append(w)
        if callback and stops(len(iterates) - 1, found.distance, float(missed(w))):
            status = SequentialStatus.STOPPED
            break
    path = np.array(iterates)
    return SequentialProjections(path, at[: len(path) - 1], missed(path), status)


@refuses_overflow("tasks", "start", "margins", "metrics", "log_strength")
def weak_regularisation(
    tasks: Sequence[ArrayLike],
    order: ArrayLike,
    *,
    log_strength: float,
    start: ArrayLike | None = None,
    margins: ArrayLike | None = None,
    metrics: Sequence[ArrayLike] | None = None,
) -> WeakRegularisation:
    r"""Train tasks one after the other on exponential loss with the penalty
    $\frac{\lambda^{c_t}}2\|w-w_{t-1}\|_{B_t}^2$; return the weights over
    $\ell=\log(1/\lambda)$.

    Newton's method on the logarithms of the multipliers, from strong to weak penalties: no
    $\lambda$ is too small, for only its logarithm occurs. It knows no projection.

    Parameters
    ----------
    tasks, order
        As for :func:`sequential_max_margin`.
    log_strength
        $\ell$, at least 2 and at most 1e9.
    start
        (d,): the weights before, over $\ell$; zero by default.
    margins, metrics
        $c_t$, positive, (T,), and $B_t$; 1 and the identity by default.

    Examples
    --------
    >>> from theorylab.implicit_regularization import weak_regularisation
    >>> found = weak_regularisation([[[2.0, 1.0]], [[1.0, 3.0]]], [1, 0], log_strength=1e8)
    >>> found.iterates.round(5).tolist()
    [[0.0, 0.0], [0.1, 0.3], [0.3, 0.4]]
    """
    Z = _tasks(tasks)
    d = Z[0].shape[1]
    at = _order(order, len(Z))
    ell = as_real(log_strength, "log_strength", minimum=2.0, maximum=1e9)
    c, roots = _margins(margins, len(Z)), _roots(metrics, len(Z), d)
    v = np.zeros(d) if start is None else as_array(start, "start", shape=(d,)).copy()
    iterates, residual = [v], 0.0
    for t in at:
        rows = np.linalg.solve(roots[t], Z[t].T).T
        e = binary_exponent(rows)
        rows = np.ldexp(rows, -e)
        shift = -2 * e * math.log(2)  # multipliers are in units of 2^(-2 e)
        beta, missed = _log_newton(rows @ rows.T, Z[t] @ v - c[t], ell, shift)
        v = v + np.ldexp(np.linalg.solve(roots[t].T, rows.T @ beta), -e)
        iterates.append(v)
        residual = max(residual, missed)
    if residual > 1e-9:
        message = f"weak_regularisation: the equations hold to {residual:.1e} only"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return WeakRegularisation(np.array(iterates), residual)


@refuses_overflow("tasks", "targets", "start")
def cyclic_regression_limit(
    tasks: Sequence[ArrayLike],
    targets: Sequence[ArrayLike],
    order: ArrayLike,
    *,
    start: ArrayLike | None = None,
) -> FloatArray:
    r"""Return the limit, (d,), of cycling projections onto the solutions of linear systems.

    The affine map of a cycle is squared sixty times: 2^60 cycles.

    Parameters
    ----------
    tasks, targets
        T arrays (n_t, d) and (n_t,): the solutions of $X_tw=y_t$, each consistent.
    order
        (k,): one cycle, integers from 0.
    start
        (d,), zero by default.

    Examples
    --------
    >>> from theorylab.implicit_regularization import cyclic_regression_limit
    >>> cyclic_regression_limit([[[1.0, 0.0]], [[1.0, 1.0]]], [[1.0], [3.0]], [0, 1]).round(9)
    array([1., 2.])
    """
    X = _tasks(tasks)
    d = X[0].shape[1]
    if isinstance(targets, str) or not isinstance(targets, Sequence) or len(targets) != len(X):
        raise ValueError(f"targets: expected a sequence of {len(X)} arrays")
    y = [as_array(b, "targets", shape=(len(x),)) for b, x in zip(targets, X, strict=True)]
    at = _order(order, len(X))
    w = np.zeros(d) if start is None else as_array(start, "start", shape=(d,))
    M, shift = np.eye(d), np.zeros(d)
    for t in at:
        e = binary_exponent(X[t])
        inverse = np.linalg.pinv(np.ldexp(X[t], -e), rcond=1e-12)
        P = np.eye(d) - inverse @ np.ldexp(X[t], -e)
        M, shift = P @ M, P @ shift + np.ldexp(inverse @ y[t], -e)
    # Off the common null space the map contracts; on it, it is the identity.
    rows = np.concatenate([np.ldexp(X[t], -binary_exponent(X[t])) for t in np.unique(at)])
    values, basis = np.linalg.svd(rows, full_matrices=False)[1:]
    basis = basis[: int(np.sum(values > 1e-12 * max(values.max(initial=0.0), 1e-300)))].T
    A, b = basis.T @ M @ basis, basis.T @ shift
    for _ in range(60):
        b = b + A @ b
        A = A @ A
    inside = basis.T @ w
    return np.asarray(w - basis @ inside + basis @ (A @ inside + b))


def _log_newton(K: FloatArray, g: FloatArray, ell: float, shift: float) -> tuple[FloatArray, float]:
    r"""Solve K exp(a) + g + (log l + a + shift) / l = 0 for l = ell; return exp(a) and the
    relative residual.

    A step up follows exp(a) where this outweighs a / l, and a below; one down follows a."""
    n = len(g)
    strengths = [2.0]
    while strengths[-1] < ell:
        strengths.append(min(16 * strengths[-1], ell))
    a, before = np.zeros(n), 2.0
    beta, worst = np.ones(n), 0.0
    for level in strengths:
        # A row that is separated with room keeps its slack, which is -a / l.
        a = np.where(a < -5, a * (level / before), a)
        before = level
        constant = g + (math.log(level) + shift) / level
        turn = -np.log(np.maximum(np.diag(K), 1e-300)) - math.log(level)

        def state(a: FloatArray, constant: FloatArray = constant, level: float = level) -> Any:
            """The multipliers, the equations, and the dual objective of which they are the
            gradient."""
            beta = np.exp(np.minimum(a, 300.0))
            image = K @ beta
            value = beta @ (image / 2 + constant + (a - 1) / level)
            return beta, image + constant + a / level, float(value)

        beta, F, value = state(a)
        for _ in range(NEWTON):
            scale = 1 + float(np.abs(constant).max()) + float(np.abs(a).max()) / level
            worst = float(np.abs(F).max()) / scale
            if worst < 4 * np.finfo(float).eps * n:
                break
            step = np.linalg.solve(K * beta + np.eye(n) / level, -F)
            size, slope, share = float(np.linalg.norm(F)), float((beta * F) @ step), 1.0
            while share > 1e-9:
                move = share * step
                up = np.maximum(a + np.log1p(np.maximum(move, 0)), np.minimum(a + move, turn))
                reached = np.where(move > 0, up, a + move)
                trial = state(reached)
                shrinks = float(np.linalg.norm(trial[1])) <= (1 - 1e-4 * share) * size
                if shrinks or (value > trial[2] and trial[2] <= value + 1e-4 * share * slope):
                    break
                share /= 2
            else:
                break
            a = reached
            beta, F, value = trial
    return beta, worst


def _tasks(tasks: Sequence[ArrayLike]) -> list[FloatArray]:
    if isinstance(tasks, str) or not isinstance(tasks, Sequence) or len(tasks) == 0:
        got = type(tasks).__name__
        raise ValueError(f"tasks: expected a sequence of arrays, one a task, got {got}")
    Z = [as_array(z, "tasks", ndim=2) for z in tasks]
    if len({z.shape[1] for z in Z}) > 1:
        raise ValueError(f"tasks: expected rows of one length, got {[z.shape for z in Z]}")
    return Z


def _order(order: ArrayLike, n_tasks: int) -> NDArray[np.intp]:
    raw = as_array(order, "order", ndim=1)
    if (raw != np.round(raw)).any() or raw.min() < 0 or raw.max() >= n_tasks:
        raise ValueError(f"order: expected integers from 0 to {n_tasks - 1}, got {raw}")
    return raw.astype(np.intp)


def _margins(margins: ArrayLike | None, n_tasks: int) -> FloatArray:
    if margins is None:
        return np.ones(n_tasks)
    return as_array(margins, "margins", shape=(n_tasks,), positive=True)


def _roots(metrics: Sequence[ArrayLike] | None, n_tasks: int, d: int) -> list[FloatArray]:
    """Return the lower triangular roots of the metrics."""
    if metrics is None:
        return [np.eye(d)] * n_tasks
    if isinstance(metrics, str) or not isinstance(metrics, Sequence) or len(metrics) != n_tasks:
        raise ValueError(f"metrics: expected a sequence of {n_tasks} matrices")
    roots: list[FloatArray] = []
    for B in metrics:
        matrix = as_symmetric(B, "metrics", size=d)
        try:
            roots.append(np.asarray(np.linalg.cholesky(matrix), dtype=float))
        except np.linalg.LinAlgError:
            least = np.linalg.eigvalsh(matrix).min()
            raise ValueError(
                f"metrics: expected positive definite matrices, got an eigenvalue {least}"
            ) from None
    return roots
