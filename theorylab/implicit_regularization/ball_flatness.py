r"""How much a loss rises within a ball, and how steep it is there.

$$R^{(0)}_\rho(\theta)=\max_{\|\delta\|\le\rho}L(\theta+\delta)-L(\theta),\qquad
R^{(1)}_\rho(\theta)=\rho\max_{\|\delta\|\le\rho}\|\nabla L(\theta+\delta)\|$$

are zeroth-order flatness, which sharpness-aware minimisation penalises, and first-order flatness.
By the mean value theorem $R^{(0)}_\rho\le R^{(1)}_\rho$. At a local minimum whose Hessian is
M-Lipschitz in the ball Taylor's formula gives (derived)

$$\Big|\frac{R^{(1)}_\rho}{\rho^2}-\lambda_{\max}\Big|\le\frac{M\rho}2,\qquad
\Big|\frac{2R^{(0)}_\rho}{\rho^2}-\lambda_{\max}\Big|\le\frac{M\rho}3,$$

with equality for $\frac\lambda2x^2\mp\frac M6|x|^3$. Both maxima are enclosed by branch and
bound over boxes, from a bound of the norm of the Hessian. Gradient norm aware minimisation descends
along $\nabla L(\theta)+\alpha\rho\nabla\|\nabla L\|(\theta+\rho u)$, u the direction of
$\nabla\|\nabla L\|(\theta)$.

Paper: zhang2023-gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_real,
    one_of,
    refuses_overflow,
)
from theorylab.numerics.bounds import Bounds
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result

__all__ = [
    "PairDescent",
    "curvature_bounds",
    "first_order_flatness",
    "pair_descent",
    "pair_remainder",
    "zeroth_order_flatness",
]

Field = Callable[[FloatArray], FloatArray]
MAX_DIMENSION = 4


@refuses_overflow("loss", "gradient", "at", "radius", "curvature")
def zeroth_order_flatness(
    loss: Field,
    gradient: Field,
    at: ArrayLike,
    *,
    radius: float,
    curvature: float,
    tol: float = 1e-3,
    atol: float = 0.0,
    max_cells: int = 200_000,
) -> Bounds:
    r"""Enclose $R^{(0)}_\rho$: by how much a loss rises in a ball.

    Parameters
    ----------
    loss, gradient
        Functions of points, shape (k, p), with values of shapes (k,) and (k, p).
    at, radius
        Centre, shape (p,), p at most 4, and radius of the ball.
    curvature
        A bound of the spectral norm of the Hessian in the ball.
    tol, atol, max_cells
        Relative and absolute gap, either of which is enough, and the number of boxes after which
        the bounds are returned as they are, with a warning: where the loss is flat around the
        maximum, only an absolute gap is reached.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import zeroth_order_flatness
    >>> rise = zeroth_order_flatness(
    ...     lambda x: np.sum(x**2, axis=1), lambda x: 2 * x, [0.0, 0.0], radius=2.0, curvature=2.0
    ... )
    >>> round(rise.lower, 3)
    4.0
    """
    as_function(loss, "loss")
    as_function(gradient, "gradient")
    centre, rho = _ball(at, radius)
    K = as_real(curvature, "curvature", minimum=0.0)
    base = _values(loss, "loss", centre[None])[0]

    def rise(points: FloatArray, reach: float) -> tuple[FloatArray, FloatArray]:
        value = _values(loss, "loss", points) - base
        slope = np.linalg.norm(_vectors(gradient, points), axis=1)
        return value, value + slope * reach + K * reach**2 / 2

    return _maximum(rise, centre, rho, tol, atol, max_cells)


@refuses_overflow("gradient", "at", "radius", "curvature")
def first_order_flatness(
    gradient: Field,
    at: ArrayLike,
    *,
    radius: float,
    curvature: float,
    tol: float = 1e-3,
    atol: float = 0.0,
    max_cells: int = 200_000,
) -> Bounds:
    r"""Enclose $R^{(1)}_\rho$: the radius times the largest norm of the gradient in the ball.

    Parameters
    ----------
    gradient, at, radius, curvature, tol, atol, max_cells
        As in :func:`zeroth_order_flatness`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import first_order_flatness
    >>> steep = first_order_flatness(lambda x: 2 * x, [0.0, 0.0], radius=2.0, curvature=2.0)
    >>> round(steep.lower, 3)
    8.0
    """
    as_function(gradient, "gradient")
    centre, rho = _ball(at, radius)
    K = as_real(curvature, "curvature", minimum=0.0)

    def steepness(points: FloatArray, reach: float) -> tuple[FloatArray, FloatArray]:
        value = rho * np.linalg.norm(_vectors(gradient, points), axis=1)
        return value, value + rho * K * reach

    return _maximum(steepness, centre, rho, tol, atol, max_cells)


@refuses_overflow("flatness", "radius", "hessian_lipschitz")
def curvature_bounds(
    flatness: float, *, order: str, radius: float, hessian_lipschitz: float
) -> Bounds:
    r"""Enclose the largest eigenvalue of the Hessian at a local minimum by a flatness there.

    Parameters
    ----------
    flatness, order
        $R^{(0)}_\rho$ or $R^{(1)}_\rho$, and which: ``"zeroth"`` or ``"first"``.
    radius, hessian_lipschitz
        Of the ball, and a Lipschitz constant of the Hessian in it (spectral norm).

    Examples
    --------
    >>> from theorylab.implicit_regularization import curvature_bounds
    >>> curvature_bounds(8.0, order="first", radius=2.0, hessian_lipschitz=0.5)
    Bounds(upper=2.5, lower=1.5)
    """
    size = as_real(flatness, "flatness", minimum=0.0)
    first = one_of(order, "order", ("zeroth", "first")) == "first"
    rho = as_real(radius, "radius", above=0.0)
    M = as_real(hessian_lipschitz, "hessian_lipschitz", minimum=0.0)
    centre = (size if first else 2 * size) / rho / rho
    remainder = M * rho / (2 if first else 3)
    return Bounds(centre + remainder, max(centre - remainder, 0.0))


@result
class PairDescent:
    """The end of a descent on the product of two numbers.

    Attributes
    ----------
    end
        Shape (2,), the last x and y.
    trace
        The mean of x^2 + y^2 over the last quarter of the steps.
    residual
        The largest |xy - target| in these steps.
    """

    end: FloatArray
    trace: float
    residual: float


@refuses_overflow("start", "target", "strength", "radius", "step_size")
def pair_descent(
    start: ArrayLike,
    *,
    target: float,
    strength: float,
    radius: float,
    step_size: float,
    steps: int,
) -> PairDescent:
    r"""Descend $L=\frac12(xy-c)^2$ with a gradient norm term, or without.

    A step is $-\eta(\nabla L(\theta)+\alpha\rho\nabla\|\nabla L\|(\theta+\rho u))$, u the
    direction of $\nabla\|\nabla L\|(\theta)$, which is 0 where it does not exist: a start at
    a minimum stays. The trace $x^2+y^2$ of the Hessian at a minimum is its largest
    eigenvalue, and is least where x = y. From within about $\alpha\rho$ the term leads to the
    saddle 0.

    Parameters
    ----------
    start, target
        Shape (2,), and c > 0.
    strength, radius, step_size, steps
        $\alpha$ (0 for gradient descent), $\rho$, $\eta$, and their number, at
        most 10^7.

    Examples
    --------
    >>> from theorylab.implicit_regularization import pair_descent
    >>> options = {"target": 1.0, "radius": 0.1, "step_size": 0.05, "steps": 10_000}
    >>> round(pair_descent([3.0, 0.2], strength=0.0, **options).trace, 1)
    9.2
    >>> round(pair_descent([3.0, 0.2], strength=1.0, **options).trace, 1)
    2.0
    """
    x, y = as_array(start, "start", shape=(2,)).tolist()
    numbers = [as_real(target, "target", above=0.0), as_real(strength, "strength", minimum=0.0)]
    numbers += [as_real(radius, "radius", minimum=0.0), as_real(step_size, "step_size", above=0.0)]
    count = as_count(steps, "steps", maximum=10**7)
    x, y, trace, residual = _descend(x, y, *numbers, count)
    return PairDescent(np.array([x, y]), trace, residual)


@refuses_overflow("target", "strength", "radius", "step_size")
def pair_remainder(*, target: float, strength: float, radius: float, step_size: float) -> float:
    r"""Return how large |xy - c| can be in the late steps of :func:`pair_descent`.

    Where x = y a step is one of $s=\sqrt2x$ that the gradient norm term moves across the
    minimum $\sqrt{2c}$, by at most $\delta=\eta\alpha\rho(\frac32(\sqrt{2c}+\rho+
    \delta)^2-c)$; then $|xy-c|\le\sqrt{2c}\delta+\delta^2/2$ (derived, for steps below
    one over the curvature). A larger radius than $(1-3^{-1/2})\sqrt{2c}-\delta$ is refused:
    from below the minimum the term then leads away from it.

    Parameters
    ----------
    target, strength, radius, step_size
        As in :func:`pair_descent`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import pair_remainder
    >>> round(pair_remainder(target=1.0, strength=1.0, radius=0.1, step_size=0.005), 5)
    0.00173
    """
    c = as_real(target, "target", above=0.0)
    k = as_real(strength, "strength", minimum=0.0) * as_real(radius, "radius", minimum=0.0)
    k *= as_real(step_size, "step_size", above=0.0)
    root = np.sqrt(2 * c)
    reach = root + radius
    base = k * (1.5 * reach**2 - c)
    slope = 1 - 3 * k * reach
    inner = slope**2 - 6 * k * base
    if slope <= 0 or inner < 0:
        raise ValueError(f"step_size: expected one that no step outgrows, got {step_size}")
    delta = 2 * base / (slope + np.sqrt(inner))
    widest = (1 - 3**-0.5) * root - delta
    if k > 0 and radius > widest:
        raise ValueError(f"radius: expected at most {widest:.3g}, got {radius}")
    return float(root * delta + delta**2 / 2)


@compiled(error_model="numpy")
def _descend(
    x: float, y: float, c: float, strength: float, radius: float, step: float, count: int
) -> tuple[float, float, float, float]:
    trace, residual, late = 0.0, 0.0, count - (count + 3) // 4
    for k in range(count):
        r = x * y - c
        g, h = r * y, r * x
        s, t = 0.0, 0.0
        if strength > 0.0:
            a, b = y * y * g + (r + x * y) * h, (r + x * y) * g + x * x * h
            size = np.sqrt(a * a + b * b)
            u, v = x, y
            if size > 0.0:
                u, v = x + radius * a / size, y + radius * b / size
            q = u * v - c
            a, b = q * v, q * u
            size = np.sqrt(a * a + b * b)
            if size > 0.0:
                s = (v * v * a + (q + u * v) * b) / size
                t = ((q + u * v) * a + u * u * b) / size
        x, y = x - step * (g + strength * radius * s), y - step * (h + strength * radius * t)
        if k >= late:
            trace += x * x + y * y
            residual = max(residual, abs(x * y - c))
    return x, y, trace / (count - late), residual


def _ball(at: ArrayLike, radius: float) -> tuple[FloatArray, float]:
    centre = as_array(at, "at", ndim=1)
    if len(centre) > MAX_DIMENSION:
        raise ValueError(f"at: expected at most {MAX_DIMENSION} coordinates, got {len(centre)}")
    rho = as_real(radius, "radius", above=0.0)
    if rho < 1e-6 * np.abs(centre).max():
        raise ValueError("radius: expected at least 1e-6 of the size of at, for the rounding there")
    return centre, rho


def _values(function: Field, name: str, points: FloatArray) -> FloatArray:
    return as_array(function(points), f"{name}(points)", shape=(len(points),))


def _vectors(gradient: Field, points: FloatArray) -> FloatArray:
    return as_array(gradient(points), "gradient(points)", shape=points.shape)


def _maximum(
    enclose: Callable[[FloatArray, float], tuple[FloatArray, FloatArray]],
    centre: FloatArray,
    radius: float,
    tol: float,
    atol: float,
    max_cells: int,
) -> Bounds:
    """Maximise over a ball by boxes. ``enclose`` returns the value at points of the ball and an
    upper bound of it within a distance: the projection to the ball moves no point of the box that
    is in the ball further from the centre of the box."""
    gap, level = as_real(tol, "tol", above=0.0), as_real(atol, "atol", minimum=0.0)
    budget = as_count(max_cells, "max_cells")
    p = len(centre)
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * p, indexing="ij"), axis=-1).reshape(-1, p)
    cells, half, used, lower = np.zeros((1, p)), 1.0, 0, -np.inf
    upper, closed = np.inf, -np.inf
    while True:
        lengths = np.linalg.norm(cells, axis=1, keepdims=True)
        inside = cells / np.maximum(lengths, 1.0)
        value, bound = enclose(centre + radius * inside, radius * half * np.sqrt(p))
        lower = max(lower, float(value.max()))
        best = max(float(bound.max()), closed)
        upper = max(lower, min(upper, best))
        used += len(cells)
        least = max(gap * abs(lower), level)
        if upper - lower <= least:
            break
        cells = cells[bound > lower + least / 2]
        closed = max(closed, lower + least / 2)
        if half < 1e-12 or used + len(cells) * 2**p > budget:
            warnings.warn(
                f"stopped after {used} boxes with gap {upper - lower:.2g} > {least:.2g}: raise "
                "max_cells",
                stacklevel=4,
            )
            break
        half /= 2
        cells = (cells[:, None] + 2 * half * corners).reshape(-1, p)
        cells = cells[np.linalg.norm(cells, axis=1) <= 1 + half * np.sqrt(p)]
        if len(cells) == 0:
            return Bounds(max(lower, min(upper, closed)), lower)
    return Bounds(upper, lower)
