r"""Descent in a metric: which solution it picks, and how fast.

Gradient descent of $\frac12(Xw-y)^\top W(Xw-y)$ in the metric $M^{-1}$,

$$w_{t+1}=w_t-\eta MX^\top W(Xw_t-y),\qquad w_0=0,$$

never leaves the range of $MX^\top$. If X has full row rank and
$\eta<2/\lambda_{\max}(M^{1/2}X^\top WXM^{1/2})$, it ends at
$MX^\top(XMX^\top)^{-1}y$, the solution of Xw = y of least $w^\top M^{-1}w$. Every
solution w of Xw = y, y nonzero, is picked by some metric: with $w_0$ the least solution
and $u=w_0/|w_0|$, by $M=I-uu^\top+ww^\top/|w_0|^2$, for which
$XMX^\top=XX^\top$.

*A metric that moves with the weights.* If $w=\psi(v)$, entry by entry, gradient flow in v is
$\dot w=-\psi'(\psi^{-1}(w))^2\nabla L(w)$, and w stays inside the range of $\psi$.
(Nothing drives it away from 0: for the companders here $\psi'$ is largest there.)

Papers: pascanu2025-optimizers, cakaj2023-weight."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_real,
    refuses_overflow,
)
from theorylab.implicit_regularization._companders import checked, inside
from theorylab.implicit_regularization._metric_steps import descend, factor
from theorylab.numerics.flows import integrate
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "MetricDescent",
    "MetricDescentStatus",
    "compand",
    "compander_bound",
    "compander_flow",
    "compander_metric",
    "expand",
    "metric_descent",
    "metric_flow",
    "metric_interpolator",
    "metric_step_limit",
    "selecting_metric",
]


class MetricDescentStatus(StrEnum):
    """How a descent ended."""

    CONVERGED = "the relative gradient reached tol"
    NOT_CONVERGED = "took all the steps before the relative gradient reached tol; raise steps"
    DIVERGED = "the gradient grew by 1e100; lower step_size"
    STOPPED = "stopped by the callback, with the weights of then"


@result
class MetricDescent:
    """Where a descent in a metric ended.

    Attributes
    ----------
    weights
        (d,): the last iterate.
    residual
        Length of the last step relative to that of the first, or to one from 0, if that is longer.
    steps
        Number of steps taken.
    status
        How it ended.
    """

    weights: FloatArray
    residual: float
    steps: int
    status: MetricDescentStatus


@refuses_overflow("X", "y", "metric", "weight", "start", "step_size")
def metric_descent(
    X: ArrayLike,
    y: ArrayLike,
    *,
    metric: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    start: ArrayLike | None = None,
    step_size: float | None = None,
    steps: int = 100_000,
    tol: float = 1e-12,
    callback: Callback | None = None,
) -> MetricDescent:
    r"""Run $w\leftarrow w-\eta MX^\top W(Xw-y)$.

    Parameters
    ----------
    X, y
        (n, d) and (n,).
    metric, weight
        (d, d) and (n, n), symmetric positive definite: M and W; by default the identity.
    start
        (d,); by default 0.
    step_size
        $\eta$; by default half of :func:`metric_step_limit`.
    steps, tol
        At most so many steps; with ``tol=0`` exactly so many, unless a step vanishes.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` after portions of about 1e8
        multiplications: half the weighted square of the residual, and the relative gradient; where
        it returns True, the descent ends.

    Examples
    --------
    >>> from theorylab.implicit_regularization import metric_descent
    >>> metric_descent([[1.0, 1.0]], [4.0], metric=[[3.0, 0.0], [0.0, 1.0]]).weights.round(9)
    array([3., 1.])
    """
    A, g = _problem(X, y)
    n, d = A.shape
    M, W = factor(metric, "metric", d)[0], factor(weight, "weight", n)[0]
    w = as_array(np.zeros(d) if start is None else start, "start", shape=(d,)).copy()
    eta = (
        metric_step_limit(X, metric=metric, weight=weight) / 2
        if step_size is None
        else as_real(step_size, "step_size", above=0.0)
    )
    budget = as_count(steps, "steps")
    target = as_real(tol, "tol", minimum=0.0)
    a, b, m, c = (binary_exponent(v) for v in (A, g, M, W))
    unit, data = np.ldexp(A, -a), np.ldexp(g, -b)
    first = np.ldexp(w, a - b)
    lift = np.ldexp(M, -m) @ unit.T @ np.ldexp(W, -c)
    # Step and limit in the normalised units: their quotient is what counts.
    scaled = math.ldexp(eta, 2 * a + m + c)
    if not 0 < scaled < math.inf or not np.isfinite(first).all():
        raise ArithmeticError
    lift = np.ascontiguousarray(lift)
    # In portions, between which Ctrl-C gets in.
    scale = max(float(np.linalg.norm(lift @ v)) for v in (data, unit @ first - data))
    portion, taken, ratio = max(10**8 // A.size, 1), 0, math.inf
    stops, told = watcher(callback), False
    while True:
        budgeted = min(portion, budget - taken)
        done, ratio = descend(unit, data, lift, first, scaled, scale, budgeted, target)
        taken += done
        if callback:
            rest = unit @ first - data
            told = stops(taken, math.ldexp(float(rest @ W @ rest) / 2, 2 * b), float(ratio))
        if told or done < budgeted or taken == budget:
            break
    status = MetricDescentStatus.CONVERGED if ratio <= target else MetricDescentStatus.NOT_CONVERGED
    if not ratio < 1e100:
        status = MetricDescentStatus.DIVERGED
    if told:
        status = MetricDescentStatus.STOPPED
    if told or (target > 0 and status is not MetricDescentStatus.CONVERGED):
        warnings.warn(f"metric descent: {status.value}", RuntimeWarning, stacklevel=3)
    return MetricDescent(np.ldexp(first, b - a), float(ratio), int(taken), status)


@refuses_overflow("X", "metric", "weight")
def metric_step_limit(
    X: ArrayLike, *, metric: ArrayLike | None = None, weight: ArrayLike | None = None
) -> float:
    r"""Return $2/\lambda_{\max}(M^{1/2}X^\top WXM^{1/2})$: shorter steps converge.

    Examples
    --------
    >>> from theorylab.implicit_regularization import metric_step_limit
    >>> metric_step_limit([[3.0, 4.0]])
    0.08
    """
    A = as_array(X, "X", ndim=2)
    if not A.any():
        raise ValueError("X: expected an entry other than 0")
    m, r = (
        factor(v, name, k)[1]
        for v, name, k in ((metric, "metric", A.shape[1]), (weight, "weight", A.shape[0]))
    )
    parts = (r.T, A, m)
    exponents = [binary_exponent(v) for v in parts]
    left, middle, right = (np.ldexp(v, -e) for v, e in zip(parts, exponents, strict=True))
    top = float(np.linalg.norm(left @ middle @ right, 2))
    return math.ldexp(2 / top**2, -2 * sum(exponents))


@refuses_overflow("X", "y", "metric")
def metric_interpolator(
    X: ArrayLike, y: ArrayLike, *, metric: ArrayLike | None = None
) -> FloatArray:
    r"""Return the solution of Xw = y of least $w^\top M^{-1}w$, shape (d,).

    Parameters
    ----------
    X, y
        (n, d), of full row rank, and (n,).
    metric
        (d, d), symmetric positive definite: M; by default the identity.

    Examples
    --------
    >>> from theorylab.implicit_regularization import metric_interpolator
    >>> metric_interpolator([[1.0, 1.0]], [4.0], metric=[[3.0, 0.0], [0.0, 1.0]]).round(12)
    array([3., 1.])
    """
    A, g = _problem(X, y)
    L = factor(metric, "metric", A.shape[1])[1]
    a, b, m = binary_exponent(A), binary_exponent(g), binary_exponent(L)
    root = np.ldexp(L, -m)
    B = np.ldexp(A, -a) @ root
    left, values, right = np.linalg.svd(B, full_matrices=False)
    if A.shape[0] > A.shape[1] or values[-1] <= 1e-13 * values[0]:
        raise ValueError(f"X: expected full row rank, got shape {A.shape} with a rank that is less")
    inner = right.T @ ((left.T @ np.ldexp(g, -b)) / values)
    return np.asarray(np.ldexp(root @ inner, b - a), np.float64)


@refuses_overflow("X", "w")
def selecting_metric(X: ArrayLike, w: ArrayLike) -> FloatArray:
    r"""Return a metric M, shape (d, d), in which descent from 0 ends at w, if it is fed y = Xw.

    It is $I-uu^\top+ww^\top/|w_0|^2$ with the least solution $w_0$ of the same
    equations and $u=w_0/|w_0|$; the identity if w = 0. Its determinant is 1.

    Parameters
    ----------
    X, w
        (n, d), of full row rank, and (d,) with Xw nonzero unless w = 0.

    Examples
    --------
    >>> from theorylab.implicit_regularization import metric_descent, selecting_metric
    >>> M = selecting_metric([[1.0, 1.0]], [5.0, -1.0])
    >>> metric_descent([[1.0, 1.0]], [4.0], metric=M).weights.round(9)
    array([ 5., -1.])
    """
    A = as_array(X, "X", ndim=2)
    v = as_array(w, "w", shape=(A.shape[1],))
    unit, point = np.ldexp(A, -binary_exponent(A)), np.ldexp(v, -binary_exponent(v))
    least = metric_interpolator(unit, unit @ point)
    size = float(np.linalg.norm(least))
    if not point.any():
        return np.eye(len(v))
    if size <= 1e-12:
        raise ValueError("w: expected Xw other than 0, for descent stays at 0 there")
    direction = least / size
    return np.asarray(
        np.eye(len(v)) - np.outer(direction, direction) + np.outer(point / size, point / size)
    )


@refuses_overflow("v", "amplitude", "width")
def compand(
    v: ArrayLike, *, kind: str = "arctan", amplitude: float = 1.0, width: float = 1.0
) -> FloatArray:
    r"""Return the weights $\psi(v)=a\psi_0(v/b)$.

    Parameters
    ----------
    v
        Any shape.
    kind
        $\psi_0$: ``"arctan"``, ``"tanh"``, ``"softsign"``, which is x / (1 + \|x\|), and
        ``"asinh"``, which is not bounded.
    amplitude, width
        a and b.

    Examples
    --------
    >>> from theorylab.implicit_regularization import compand
    >>> compand([3.0, -1.0], kind="softsign", amplitude=2.0)
    array([ 1.5, -1. ])
    """
    x, psi, a, b = checked(v, "v", kind, amplitude, width)
    return np.asarray(a * psi.value(np.clip(x / b, -1e300, 1e300)))


@refuses_overflow("w", "amplitude", "width")
def expand(
    w: ArrayLike, *, kind: str = "arctan", amplitude: float = 1.0, width: float = 1.0
) -> FloatArray:
    r"""Return $\psi^{-1}(w)$, where $|w|$ is less than :func:`compander_bound`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import expand
    >>> expand([1.5, -1.0], kind="softsign", amplitude=2.0)
    array([ 3., -1.])
    """
    x, psi, a, b = checked(w, "w", kind, amplitude, width)
    return np.asarray(b * psi.inverse(inside(x / a, "w", kind)))


@refuses_overflow("w", "amplitude", "width")
def compander_metric(
    w: ArrayLike, *, kind: str = "arctan", amplitude: float = 1.0, width: float = 1.0
) -> FloatArray:
    r"""Return $\psi'(\psi^{-1}(w))^2$, in the shape of w; 0 where $|w|$ is not inside
    the bound.

    It is $(a/b)^2$ times $\cos^4x$, $(1-x^2)^2$, $(1-|x|)^4$,
    $\cosh^{-2}x$, where x = w / a, for the four kinds.

    Examples
    --------
    >>> from theorylab.implicit_regularization import compander_metric
    >>> compander_metric([0.0, 1.0, 2.0], kind="softsign", amplitude=2.0)
    array([4.  , 0.25, 0.  ])
    """
    x, psi, a, b = checked(w, "w", kind, amplitude, width)
    return np.asarray((a / b) ** 2 * psi.metric(np.minimum(np.abs(x / a), 1e3)))


@refuses_overflow("amplitude", infinite=True)
def compander_bound(*, kind: str = "arctan", amplitude: float = 1.0) -> float:
    r"""Return the least bound of $|\psi|$: $a\pi/2$ for ``"arctan"``, a for ``"tanh"``
    and ``"softsign"``, infinity for ``"asinh"``.

    Examples
    --------
    >>> from theorylab.implicit_regularization import compander_bound
    >>> compander_bound(kind="tanh", amplitude=3.0)
    3.0
    """
    _, psi, a, _ = checked(0.0, "w", kind, amplitude, 1.0)
    return a * psi.bound


def compander_flow(
    gradient: Callable[[FloatArray], FloatArray],
    start: ArrayLike,
    times: ArrayLike,
    *,
    kind: str = "arctan",
    amplitude: float = 1.0,
    width: float = 1.0,
    rtol: float = 1e-9,
) -> FloatArray:
    r"""Return the weights $\psi(v(t))$ along the gradient flow of $L(\psi(v))$ in v.

    Parameters
    ----------
    gradient
        Of L at w, (d,) to (d,).
    start
        (d,): w at time 0, inside the bound.
    times
        (m,), increasing from 0 or later.
    kind, amplitude, width
        As in :func:`compand`.
    rtol
        Relative tolerance of the integrator.

    Returns
    -------
    ndarray
        (m, d).

    Examples
    --------
    >>> from theorylab.implicit_regularization import compander_flow
    >>> compander_flow(lambda w: w - 5.0, [0.0], [0.0, 1.0, 1e3], kind="tanh").round(2).T
    array([[0.  , 0.93, 1.  ]])
    """
    as_function(gradient, "gradient")
    first, psi, a, b = checked(as_array(start, "start", ndim=1), "start", kind, amplitude, width)
    v = b * psi.inverse(inside(first / a, "start", kind))
    clock = _clock(times)

    def velocity(_: float, v: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):
            x = v / b
            return -psi.slope(x) * (a / b) * _evaluated(gradient, a * psi.value(x))

    tolerance = as_real(rtol, "rtol", minimum=1e-13, below=1.0)
    path = integrate(velocity, v, clock, rtol=tolerance, atol=tolerance * b)
    return compand(path, kind=kind, amplitude=a, width=b)


def metric_flow(
    gradient: Callable[[FloatArray], FloatArray],
    metric: Callable[[FloatArray], FloatArray],
    start: ArrayLike,
    times: ArrayLike,
    *,
    rtol: float = 1e-9,
) -> FloatArray:
    r"""Return the flow $\dot w=-m(w)\nabla L(w)$, entry by entry, shape (m, d).

    Parameters
    ----------
    gradient, metric
        Of w, (d,) to (d,).
    start, times
        (d,), and (m,), increasing from 0 or later.
    rtol
        Relative tolerance of the integrator.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import metric_flow
    >>> metric_flow(lambda w: w, lambda w: w, [1.0], [0.0, 1.0, 3.0]).round(6).T
    array([[1.  , 0.5 , 0.25]])
    """
    as_function(gradient, "gradient")
    as_function(metric, "metric")
    w = as_array(start, "start", ndim=1)
    clock = _clock(times)
    tolerance = as_real(rtol, "rtol", minimum=1e-13, below=1.0)

    def velocity(_: float, w: FloatArray) -> FloatArray:
        with np.errstate(over="ignore", invalid="ignore"):
            rate = _evaluated(metric, w, "metric")
            return -rate * _evaluated(gradient, w)

    # The unit of a flow from 0 is how far its first velocity would carry it.
    scale = float(np.abs(w).max()) or float(np.abs(velocity(0.0, w)).max()) * clock[-1] or 1.0
    if not math.isfinite(scale):
        raise ValueError("gradient: expected finite values at the start")
    return integrate(velocity, w, clock, rtol=tolerance, atol=tolerance * scale)


def _problem(X: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    A = as_array(X, "X", ndim=2)
    return A, as_array(y, "y", shape=(A.shape[0],))


def _clock(times: ArrayLike) -> FloatArray:
    t = as_array(times, "times", ndim=1, nonnegative=True)
    if (np.diff(t) <= 0).any():
        raise ValueError("times: expected increasing times")
    return t


def _evaluated(
    function: Callable[[FloatArray], FloatArray], w: FloatArray, name: str = "gradient"
) -> FloatArray:
    return as_array(function(w), name, shape=w.shape, finite=False)
