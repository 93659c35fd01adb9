r"""Diagonal linear networks: flows and stochastic descent, and what regularises them implicitly.

On $L=\frac1{2n}\|X\beta-y\|^2$, with $g=\nabla_\beta L$, the gradient of
$\beta=u\odot u-v\odot v$ is $(2u\odot g,-2v\odot g)$. Hence under any gradient steps
$u_jv_j$ is multiplied by $1-4\eta^2g_j^2$, and under the flow it is kept. The flow of
$L+\frac\gamma2\|\nabla L\|^2$ has

$$\tfrac d{dt}\log(u_jv_j)=-8\gamma g_jg_j',\qquad
\tfrac d{dt}\log(u_j/v_j)\in\mathrm{row}(X),$$

with $g'=g$, and where the gradient of the penalty is replaced by the finite difference
$(\nabla L(\theta+\varepsilon\nabla L)-\nabla L)/\varepsilon$, $g'$ is the gradient at
the ascended point. So what it converges to is the interpolator that minimises the potential of
`mirror_potentials` with the scales $\sqrt{u_jv_j}$ of the end.

Descent on one such weight, $\frac14(\theta^2-1)^2$ with steps $\gamma\in(1,\sqrt5-1)$,
settles on two points with $\gamma^2\theta^4-\gamma(\gamma+1)\theta^2+1=0$.

Papers: karakida2022-understanding, andriushchenko2022-with, zhou2023-implicit."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    one_of,
    refuses_overflow,
)
from theorylab.numerics.compiled import compiled
from theorylab.numerics.flows import integrate
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "DiagonalDescent",
    "DiagonalFlow",
    "DiagonalStatus",
    "diagonal_network_flow",
    "diagonal_network_sgd",
]

_CHUNK = 1 << 16  # samples drawn at once
_EVALUATIONS = 20_000


class DiagonalStatus(StrEnum):
    """How a run ended."""

    FITTED = "the relative residual of the data reached tol"
    NOT_FITTED = (
        "stopped before the relative residual reached tol; the flow is too stiff, or there is no "
        "interpolator"
    )
    STOPPED = "stopped by the callback, at the time that was reached"


@result
class DiagonalFlow:
    r"""The end of a gradient flow.

    Attributes
    ----------
    u, v, s
        Weights, shape (d,) each.
    predictor
        $\beta$, shape (d,).
    dissipation
        $\int g_jg_j'\,dt$, shape (d,).
    time, residual
        Length of the flow, and $\max|X\beta-y|/\max|y|$ at its end.
    status
        How it ended.
    """

    u: FloatArray
    v: FloatArray
    s: FloatArray
    predictor: FloatArray
    dissipation: FloatArray
    time: float
    residual: float
    status: DiagonalStatus


@result
class DiagonalDescent:
    r"""The end of a stochastic gradient descent.

    Attributes
    ----------
    u, v
        Weights, shape (d,) each.
    predictor
        $\beta=u\odot u-v\odot v$, shape (d,).
    loss
        $\frac1{2n}\|X\beta-y\|^2$.
    steps
        Steps taken.
    """

    u: FloatArray
    v: FloatArray
    predictor: FloatArray
    loss: float
    steps: int


@refuses_overflow("X", "y", "scale", "linear", "tilt", "gradient_penalty", "ascent")
def diagonal_network_flow(
    X: ArrayLike,
    y: ArrayLike,
    *,
    scale: ArrayLike,
    form: str = "difference",
    linear: float = 0.0,
    tilt: ArrayLike = 0.0,
    gradient_penalty: float = 0.0,
    ascent: float = 0.0,
    tol: float = 1e-8,
    rtol: float = 1e-10,
    callback: Callback | None = None,
) -> DiagonalFlow:
    r"""Follow the gradient flow of a diagonal network to interpolation.

    Parameters
    ----------
    X, y
        Shapes (n, d) and (n,).
    scale, tilt
        $\alpha$ and $\tau$, numbers or one a coordinate: $u=\alpha e^{\tau/2}$,
        $v=\alpha e^{-\tau/2}$ at the start.
    form
        ``"difference"``: $\beta=u\odot u-v\odot v+\lambda s$. ``"product"``:
        $\beta=u\odot v+\lambda s$, started where $(u\pm v)/\sqrt2=\alpha e^{\pm\tau/2}$
        (without tilt at $u=\sqrt2\alpha$, $v=0$): the same flow in turned coordinates,
        with $\beta$ and all of its rates halved.
    linear
        $\lambda$; s starts at 0.
    gradient_penalty, ascent
        $\gamma$ of the penalty $\frac\gamma2\|\nabla L\|^2$, and the
        $\varepsilon$ of the finite difference that replaces its gradient; 0: the gradient.
    tol, rtol
        Relative residual at which the flow ends, and relative tolerance of the method.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` after each stretch of time,
        each half as long again as the one before: the loss, and the relative residual; where it
        returns True, the flow ends.

    Examples
    --------
    >>> from theorylab.implicit_regularization import diagonal_network_flow
    >>> run = diagonal_network_flow([[1.0, 0.5]], [1.0], scale=0.1)
    >>> run.predictor.round(4), (run.u * run.v).round(6)
    (array([0.9517, 0.0965]), array([0.01, 0.01]))
    """
    A = as_array(X, "X", ndim=2)
    n, d = A.shape
    b = as_array(y, "y", shape=(n,))
    a = _spread(scale, "scale", d)
    if (a <= 0).any():
        raise ValueError(f"scale: expected positive numbers, got {a.min()}")
    t = _spread(tilt, "tilt", d)
    if np.abs(t).max() > 600:
        raise ValueError(f"tilt: expected at most 600, got {np.abs(t).max()}")
    c = 1.0 if one_of(form, "form", ("difference", "product")) == "difference" else 0.5
    weight = as_real(linear, "linear", minimum=0.0)
    penalty = as_real(gradient_penalty, "gradient_penalty", minimum=0.0)
    eps = as_real(ascent, "ascent")
    stop = as_real(tol, "tol", minimum=1e-12, maximum=0.1)
    precise = as_real(rtol, "rtol", minimum=1e-13, maximum=1e-2)

    # Powers of two: X and y of order one; u^2 carries the units of y / X, an even power.
    size, height = binary_exponent(A), binary_exponent(b)
    height += (size - height) % 2
    half, rate = (size - height) // 2, size + height
    A, b = np.ldexp(A, -size), np.ldexp(b, -height)
    a, weight = np.ldexp(a, half), float(np.ldexp(weight, half))
    penalty, eps = float(np.ldexp(penalty, rate)), float(np.ldexp(eps, rate))
    if not 1e-100 < a.min() <= a.max() < 1e50 or max(weight, penalty, abs(eps)) > 1e50:
        raise ValueError(
            "scale, linear, gradient_penalty, ascent: expected magnitudes near those of "
            "sqrt(y / X), sqrt(y / X), 1 / (X y), 1 / (X y)"
        )

    constants = np.array([c, weight, penalty, eps])

    def velocity(_: float, state: FloatArray) -> FloatArray:
        change = np.empty(4 * d)
        _flow(A, b, constants, state, change)
        return change

    def misfit(state: FloatArray) -> FloatArray:
        u, v, s = state.reshape(4, d)[:3]
        return np.asarray(A @ (c * (u * u - v * v) + weight * s) - b)

    def residual(state: FloatArray) -> float:
        return float(np.abs(misfit(state)).max() / (np.abs(b).max() or 1.0))

    start = np.stack([a * np.exp(t / 2), a * np.exp(-t / 2), 0 * a, 0 * a])
    state, time, left = start.ravel(), 0.0, _EVALUATIONS
    first = np.abs(A.T @ (A @ (c * (start[0] ** 2 - start[1] ** 2)) - b)).max() / n
    length = 1 / (first + start.max() ** 2 + weight**2 + 1e-30)
    stops, told, legs = watcher(callback), False, 0
    while not told and residual(state) > stop and left > 0:
        spent, legs = 0, legs + 1

        def counted(at: float, now: FloatArray) -> FloatArray:
            nonlocal spent
            spent += 1
            return velocity(at, now)

        try:
            ends = np.array([0.0, length])
            reached = integrate(
                counted, state, ends, rtol=precise, atol=1e-3 * precise * a.min(), evaluations=left
            )
        except ValueError:
            break
        state, time, left, length = reached[-1], time + length, left - spent, 1.5 * length
        if callback:
            loss = float(np.ldexp(np.mean(misfit(state) ** 2) / 2, 2 * height))
            told = stops(legs, loss, residual(state))
    u, v, s, spread = state.reshape(4, d)
    beta = c * (u * u - v * v) + weight * s
    if c == 0.5:
        u, v = (u + v) / math.sqrt(2), (u - v) / math.sqrt(2)
    final = residual(state)
    status = DiagonalStatus.FITTED if final <= stop else DiagonalStatus.NOT_FITTED
    return DiagonalFlow(
        np.ldexp(u, -half),
        np.ldexp(v, -half),
        np.ldexp(s, -half),
        np.ldexp(beta, -2 * half),
        np.ldexp(spread, rate),
        float(np.ldexp(time, -rate)),
        final,
        DiagonalStatus.STOPPED if told else status,
    )


@refuses_overflow("X", "y", "start", "step_size")
def diagonal_network_sgd(
    X: ArrayLike,
    y: ArrayLike,
    *,
    start: ArrayLike,
    step_size: float,
    steps: int,
    batch: int = 1,
    seed: int = 0,
    callback: Callback | None = None,
) -> DiagonalDescent:
    r"""Descend on $\frac12(x_i^\top\beta-y_i)^2$, $\beta=u\odot u-v\odot v$, of random
    samples i.

    Parameters
    ----------
    X, y
        Shapes (n, d) and (n,).
    start
        A number $u=v=\alpha$, or u and v, shape (2, d).
    step_size, steps
        $\eta$, and how many steps.
    batch
        Samples averaged in a step, drawn with replacement; n or more: all of them once, which is
        gradient descent.
    seed
        Of the draws.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` after every few ten thousand
        samples: the loss; where it returns True, the descent ends.

    Examples
    --------
    >>> from theorylab.implicit_regularization import diagonal_network_sgd
    >>> run = diagonal_network_sgd([[1.0, 0.5]], [1.0], start=0.1, step_size=0.02, steps=1000)
    >>> run.predictor.round(3), (run.u * run.v).round(6)
    (array([0.951, 0.098]), array([0.0093 , 0.00982]))
    """
    A = as_array(X, "X", ndim=2)
    n, d = A.shape
    b = as_array(y, "y", shape=(n,))
    z = as_array(start, "start")
    if z.ndim and z.shape != (2, d):
        raise ValueError(f"start: expected a number or shape (2, {d}), got shape {z.shape}")
    u, v = np.broadcast_to(z if z.ndim else z.reshape(1, 1), (2, d)).copy()
    eta = as_real(step_size, "step_size", above=0.0)
    count = as_count(steps, "steps", minimum=0, maximum=10**9)
    many = as_count(batch, "batch", maximum=10**6)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    every = many >= n
    width = n if every else many
    chunk = max(_CHUNK // width, 1)
    taken, buffer, stops = 0, np.empty(d), watcher(callback)

    def loss() -> float:
        return float(np.mean((A @ (u * u - v * v) - b) ** 2) / 2)

    everything = np.tile(np.arange(n), (min(chunk, count), 1)) if every else None
    while taken < count:
        length = min(chunk, count - taken)
        if width == 1:
            _descend(A, b, u, v, eta, rng.integers(n, size=length))
        else:
            drawn = rng.integers(n, size=(length, width)) if everything is None else everything
            _descend_batch(A, b, u, v, eta, drawn[:length], buffer)
        taken += length
        if not (np.isfinite(u).all() and np.isfinite(v).all()):
            raise ValueError(
                f"step_size: expected one whose iterates stay within float64, got {eta}"
            )
        if callback and stops(taken, loss()):
            break
    return DiagonalDescent(u, v, u * u - v * v, loss(), taken)


def _spread(value: ArrayLike, name: str, d: int) -> FloatArray:
    array = as_array(value, name)
    if array.ndim > 1 or (array.ndim == 1 and array.size != d):
        raise ValueError(f"{name}: expected a number or shape ({d},), got shape {array.shape}")
    return np.broadcast_to(array, (d,)).copy()


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _product(A: FloatArray, x: FloatArray, b: FloatArray, out: FloatArray) -> None:
    """Write A^T (A x - b) / n."""
    n, d = A.shape
    out[:] = 0.0
    for i in range(n):
        total = -b[i]
        for j in range(d):
            total += A[i, j] * x[j]
        total /= n
        for j in range(d):
            out[j] += total * A[i, j]


@compiled
def _flow(
    A: FloatArray, b: FloatArray, constants: FloatArray, state: FloatArray, change: FloatArray
) -> None:
    """Write the velocity of (u, v, s, the integral of g g')."""
    d = A.shape[1]
    c, weight, penalty, eps = constants[0], constants[1], constants[2], constants[3]
    beta, g, other = np.empty(d), np.empty(d), np.empty(d)
    for j in range(d):
        u, v, s = state[j], state[d + j], state[2 * d + j]
        beta[j] = c * (u * u - v * v) + weight * s
    _product(A, beta, b, g)
    if penalty > 0:
        for j in range(d):
            u, v, s = state[j], state[d + j], state[2 * d + j]
            if eps != 0:  # beta of the ascended point
                p, q = u + 2 * c * eps * u * g[j], v - 2 * c * eps * v * g[j]
                beta[j] = c * (p * p - q * q) + weight * (s + eps * weight * g[j])
            else:  # A^T A / n of this is the gradient's own change along the gradient of L
                beta[j] = (4 * c * c * (u * u + v * v) + weight * weight) * g[j]
        _product(A, beta, b if eps != 0 else 0.0 * b, other)
    for j in range(d):
        u, v = state[j], state[d + j]
        du, dv, ds, spread = -2 * c * u * g[j], 2 * c * v * g[j], -weight * g[j], g[j] * g[j]
        if penalty > 0 and eps != 0:
            rise = (other[j] - g[j]) / eps
            own = 2 * c * g[j] * other[j]
            du -= penalty * 2 * c * u * (rise + own)
            dv += penalty * 2 * c * v * (rise - own)
            ds -= penalty * weight * rise
            spread = g[j] * other[j]
        elif penalty > 0:
            own = 2 * c * g[j] * g[j]
            du -= penalty * 2 * c * u * (other[j] + own)
            dv += penalty * 2 * c * v * (other[j] - own)
            ds -= penalty * weight * other[j]
        change[j], change[d + j], change[2 * d + j], change[3 * d + j] = du, dv, ds, spread


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _descend(
    A: FloatArray,
    b: FloatArray,
    u: FloatArray,
    v: FloatArray,
    eta: float,
    drawn: NDArray[np.int64],
) -> None:
    """Take a step for each sample drawn; the update of one is the pass that reads the next."""
    if drawn.size == 0:
        return
    total = 0.0
    x = A[drawn[0]]
    for j in range(x.size):
        total += x[j] * (u[j] * u[j] - v[j] * v[j])
    for t in range(drawn.size):
        x = A[drawn[t]]
        ahead = A[drawn[min(t + 1, drawn.size - 1)]]
        step = 2 * eta * (total - b[drawn[t]])
        total = 0.0
        for j in range(x.size):
            move = step * x[j]
            p = u[j] - u[j] * move
            q = v[j] + v[j] * move
            u[j] = p
            v[j] = q
            total += ahead[j] * (p * p - q * q)


@compiled(fastmath={"contract", "reassoc", "nsz"})
def _descend_batch(
    A: FloatArray,
    b: FloatArray,
    u: FloatArray,
    v: FloatArray,
    eta: float,
    drawn: NDArray[np.int64],
    gradient: FloatArray,
) -> None:
    for t in range(drawn.shape[0]):
        gradient[:] = 0.0
        for i in drawn[t]:
            x = A[i]
            total = 0.0
            for j in range(x.size):
                total += x[j] * (u[j] * u[j] - v[j] * v[j])
            step = 2 * eta * (total - b[i]) / drawn.shape[1]
            for j in range(x.size):
                gradient[j] += step * x[j]
        for j in range(u.size):
            u[j] -= u[j] * gradient[j]
            v[j] += v[j] * gradient[j]
