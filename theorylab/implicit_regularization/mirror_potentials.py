r"""The potentials that diagonal networks minimise, and the interpolators that minimise them.

Gradient flow of $\beta=u\odot u-v\odot v+\lambda s$ from $u=v=\alpha$, $s=0$ on
a least-squares loss is a mirror descent: with $\rho=-4\int\nabla_\beta L\,dt\in
\mathrm{row}(X)$,

$$\beta_j=2\alpha_j^2\sinh\rho_j+\tfrac{\lambda^2}4\rho_j.$$

The interpolator that it reaches minimises $\sum_j\phi_j(\beta_j)$ over $X\beta=y$,
where $\phi_j'$ is the inverse of this map. Without the linear part (hyperbolic entropy) that
is the minimum of $\ell_1$ for $\alpha\to0$ and of a weighted $\ell_2$ for
$\alpha\to\infty$; with it neither, nor of any norm. The dual
$\max_\nu\nu^\top y-\sum_j\psi_j(X^\top\nu)$, $\psi_j(\rho)=2\alpha_j^2(\cosh\rho-1)+
\frac{\lambda^2}8\rho^2$, is smooth, and its third derivatives are bounded by its second ones, so
that damped Newton steps always succeed.

Papers: karakida2022-understanding, zhou2023-implicit, andriushchenko2022-with."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve, lstsq

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "MirrorInterpolator",
    "MirrorPotential",
    "MirrorStatus",
    "mirror_interpolator",
    "mirror_map",
    "mirror_potential",
]

_LARGEST = 600.0  # sinh of more leaves float64


class MirrorStatus(StrEnum):
    """How a search for the interpolator ended."""

    CONVERGED = "the relative residual of X beta = y reached tol"
    NOT_CONVERGED = (
        "stopped before the relative residual reached tol; raise max_iter or tol, or the rows of X "
        "are nearly dependent"
    )
    STOPPED = "stopped by the callback, with the best dual point found by then"


@result
class MirrorPotential:
    r"""Potential and gradient at a vector.

    Attributes
    ----------
    value
        $\sum_j\phi_j(\beta_j)$, zero at the origin.
    gradient
        $\rho=\phi'(\beta)$, shape (d,).
    """

    value: float
    gradient: FloatArray


@result
class MirrorInterpolator:
    r"""The interpolator that minimises a mirror potential.

    Attributes
    ----------
    predictor
        $\beta$, shape (d,).
    dual
        $\nu$, shape (n,), with $\beta$ the mirror map of $X^\top\nu$.
    potential, lower_bound, gap
        Of the nearest interpolator, the bound of the dual, and their relative difference.
    residual
        $\max|X\beta-y|/\max|y|$.
    iterations, status
        Newton steps, and how they ended.
    """

    predictor: FloatArray
    dual: FloatArray
    potential: float
    lower_bound: float
    gap: float
    residual: float
    iterations: int
    status: MirrorStatus


@refuses_overflow("rho", "scale", "linear")
def mirror_map(rho: ArrayLike, *, scale: ArrayLike, linear: float = 0.0) -> FloatArray:
    r"""Return $2\alpha_j^2\sinh\rho_j+\frac{\lambda^2}4\rho_j$.

    Parameters
    ----------
    rho
        Shape (d,).
    scale, linear
        $\alpha$, a number or one a coordinate, and $\lambda$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import mirror_map
    >>> mirror_map([0.0, 2.0], scale=0.0, linear=1.0)
    array([0. , 0.5])
    """
    r = as_array(rho, "rho", ndim=1)
    a, m = _weights(scale, linear, r.size)
    # sinh alone may overflow where its product with a small scale does not.
    curved = np.where(a > 0, r, 0.0)
    return 2 * (a * np.sinh(curved / 2)) * (2 * (a * np.cosh(curved / 2))) + m * r


@refuses_overflow("predictor", "scale", "linear")
def mirror_potential(
    predictor: ArrayLike, *, scale: ArrayLike, linear: float = 0.0
) -> MirrorPotential:
    r"""Return the potential of which :func:`mirror_map` inverts the gradient.

    Parameters
    ----------
    predictor
        $\beta$, shape (d,).
    scale, linear
        $\alpha$, a number or one a coordinate, and $\lambda$; one of them positive.

    Examples
    --------
    >>> from theorylab.implicit_regularization import mirror_map, mirror_potential
    >>> rho = mirror_potential([0.3, -4.0], scale=1e-3, linear=0.5).gradient
    >>> mirror_map(rho, scale=1e-3, linear=0.5)
    array([ 0.3, -4. ])
    """
    b = as_array(predictor, "predictor", ndim=1)
    a, m = _weights(scale, linear, b.size)
    if m == 0 and not a.all():
        raise ValueError("scale: expected positive numbers where linear is 0")
    rho = _inverse(b, a, m)
    return MirrorPotential(_value(b, rho, a, m), rho)


@refuses_overflow("X", "y", "scale", "linear")
def mirror_interpolator(
    X: ArrayLike,
    y: ArrayLike,
    *,
    scale: ArrayLike,
    linear: float = 0.0,
    tol: float = 1e-11,
    max_iter: int = 400,
    callback: Callback | None = None,
) -> MirrorInterpolator:
    r"""Minimise a mirror potential over the interpolators, by Newton's method on the dual.

    Parameters
    ----------
    X, y
        Shapes (n, d), of rank n, and (n,).
    scale, linear
        $\alpha$, a number or one a coordinate, and $\lambda$; one of them positive.
    tol, max_iter
        Relative residual to reach, and the most Newton steps.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each Newton step: the dual
        value, and the relative residual; where it returns True, the iteration stops.

    Examples
    --------
    With a tiny scale it is nearly the interpolator of least l1 norm, with a linear part alone that
    of least l2 norm.

    >>> from theorylab.implicit_regularization import mirror_interpolator
    >>> X, y = [[1.0, 2.0]], [2.0]
    >>> mirror_interpolator(X, y, scale=1e-9).predictor.round(3)
    array([0., 1.])
    >>> mirror_interpolator(X, y, scale=0.0, linear=1.0).predictor.round(3)
    array([0.4, 0.8])
    """
    A = as_array(X, "X", ndim=2)
    n, d = A.shape
    b = as_array(y, "y", shape=(n,))
    a, m = _weights(scale, linear, d)
    stop = as_real(tol, "tol", minimum=1e-14, maximum=1e-2)
    budget = as_count(max_iter, "max_iter")
    if m == 0 and not a.all():
        raise ValueError("scale: expected positive numbers where linear is 0")
    size, height = binary_exponent(A), binary_exponent(b)
    A, b = np.ldexp(A, -size), np.ldexp(b, -height)
    shift = size - height  # beta, a^2 and m carry the units of y / X
    odd = shift % 2
    a = np.ldexp(a * (np.sqrt(2.0) if odd else 1.0), (shift - odd) // 2)
    m = float(np.ldexp(m, shift))
    if not np.isfinite([a.max(), m]).all() or max(a.max(), m) > 1e140:
        raise ValueError("scale, linear: expected magnitudes near those of sqrt(y / X)")
    told = watcher(callback)

    def stops(step: int, value: float, missing: float) -> bool:
        return told(step, float(np.ldexp(value, -shift)), missing)

    nu, steps, ended = _newton(A, b, a, m, stop, budget, stops)
    rho = A.T @ nu
    beta = _map(rho, a, m)
    residual = float(np.abs(A @ beta - b).max() / (np.abs(b).max() or 1.0))
    near = beta + lstsq(A, b - A @ beta)[0]
    upper = _value(near, _inverse(near, a, m), a, m)
    lower = float(nu @ b) - _dual(rho, a, m)
    # Where X beta = y is missed, the nearest interpolator is none.
    missed = abs(upper - lower) if residual > stop else residual * abs(upper)
    rounding = missed + 1e-13 * (_dual(rho, a, m) + float(np.abs(nu) @ np.abs(b)))
    status = MirrorStatus.CONVERGED if residual <= stop else MirrorStatus.NOT_CONVERGED
    return MirrorInterpolator(
        np.ldexp(beta, -shift),
        np.ldexp(nu, -size),
        float(np.ldexp(upper, -shift)),
        float(np.ldexp(lower, -shift)),
        relative_gap(upper, lower, rounding=rounding),
        residual,
        steps,
        MirrorStatus.STOPPED if ended else status,
    )


def _newton(
    A: FloatArray,
    b: FloatArray,
    a: FloatArray,
    m: float,
    stop: float,
    budget: int,
    stops: Callable[..., bool],
) -> tuple[FloatArray, int, bool]:
    """Return the best dual point found, the number of steps, and whether it was told to stop."""
    nu = np.zeros(len(b))
    height = np.abs(b).max() or 1.0
    best, error = nu, np.inf
    for step in range(budget + 1):
        rho = A.T @ nu
        missing = b - A @ _map(rho, a, m)
        if np.abs(missing).max() < error:
            best, error, stalled = nu, float(np.abs(missing).max()), 0
        else:
            stalled += 1
        now = _dual(rho, a, m) - nu @ b
        if stops(step, -float(now), float(np.abs(missing).max() / height)):
            return best, step, True
        if error <= 0.01 * stop * height or step == budget or (error <= stop * height and stalled):
            break
        curvature = 2 * a**2 * np.cosh(np.where(a > 0, rho, 0.0)) + m
        change = _solve(A, curvature, missing)
        move = float(np.abs(A.T @ change).max())
        if not np.isfinite(move) or move == 0:
            break
        # exp has |f'''| <= f'': this step decreases the dual, and soon is the whole one.
        length = min(1.0, np.log1p(move) / move) if move > 0.5 else 1.0
        longer = min(1.0, 4 * length)
        while longer > length:
            ahead = A.T @ (nu + longer * change)
            slope = -float(missing @ change)
            if np.abs(np.where(a > 0, ahead, 0.0)).max() < _LARGEST and (
                _dual(ahead, a, m) - (nu + longer * change) @ b <= now + 0.1 * longer * slope
            ):
                length = longer
            longer /= 2
        nu = nu + length * change
        if np.abs(np.where(a > 0, A.T @ nu, 0.0)).max() > _LARGEST:
            break  # without an interpolator the dual is unbounded
    return best, step, False


def _solve(A: FloatArray, curvature: FloatArray, missing: FloatArray) -> FloatArray:
    """Solve (A diag(curvature) A^T) x = missing, in units in which its diagonal is one."""
    H = (A * curvature) @ A.T
    unit = 1 / np.sqrt(np.maximum(np.diag(H), np.finfo(float).tiny))
    H = H * unit[:, None] * unit
    try:
        factor = cho_factor(H + 1e-15 * len(H) * np.eye(len(H)), check_finite=False)
        x = cho_solve(factor, unit * missing, check_finite=False)
        x = x + cho_solve(factor, unit * missing - H @ x, check_finite=False)
    except np.linalg.LinAlgError:
        x = np.asarray(np.linalg.lstsq(H, unit * missing, rcond=1e-15)[0], dtype=np.float64)
    return np.asarray(unit * x)


def _weights(scale: ArrayLike, linear: float, d: int) -> tuple[FloatArray, float]:
    """Return alpha for each coordinate, and lambda^2 / 4."""
    a = as_array(scale, "scale", nonnegative=True)
    if a.ndim > 1 or (a.ndim == 1 and a.size != d):
        raise ValueError(f"scale: expected a number or shape ({d},), got shape {a.shape}")
    weight = as_real(linear, "linear", minimum=0.0)
    if weight > 1e150 or a.max() > 1e150:
        raise ValueError("scale, linear: expected numbers with a square in float64")
    return np.broadcast_to(a, (d,)).copy(), weight**2 / 4


def _map(rho: FloatArray, a: FloatArray, m: float) -> FloatArray:
    return np.asarray(2 * a**2 * np.sinh(np.where(a > 0, rho, 0.0)) + m * rho)


def _inverse(beta: FloatArray, a: FloatArray, m: float) -> FloatArray:
    """Solve the mirror map for rho: Newton from the right of the root of a convex function."""
    size = np.abs(beta)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ratio = size / 2 / a / a
        far = np.where(ratio < 1e8, np.arcsinh(ratio), np.log(size) - 2 * np.log(a))
        rho = np.where(a > 0, far, np.inf)
        if m == 0:
            return np.asarray(np.sign(beta) * np.where(size > 0, rho, 0.0))
        rho = np.where(size > 0, np.minimum(rho, size / m), 0.0)
    if a.any():
        for _ in range(100):
            wave, cosine = 2 * a * (a * np.sinh(rho)), 2 * a * (a * np.cosh(rho))
            change = (wave + m * rho - size) / (cosine + m)
            rho = np.maximum(rho - change, 0.0)
            if (np.abs(change) <= 1e-15 * (1e-3 + rho)).all():
                break
    return np.asarray(np.sign(beta) * rho)


def _value(beta: FloatArray, rho: FloatArray, a: FloatArray, m: float) -> float:
    return float(beta @ rho) - _dual(rho, a, m)


def _dual(rho: FloatArray, a: FloatArray, m: float) -> float:
    curved = np.where(a > 0, rho, 0.0)  # where a vanishes, rho may be beyond sinh
    return float(np.sum((2 * a * np.sinh(curved / 2)) ** 2 + m / 2 * rho**2))
