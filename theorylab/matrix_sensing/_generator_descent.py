r"""Descent on the Bures-Wasserstein loss: of one generator matrix, and of a product of factors.

Out of the leading eigenspace of $\Sigma_0$ a step of descent on $W$ multiplies the tilt
(`subspace_tilt`) by $1-2\eta(1-\lambda_{k+j}/\lambda_i)$ near the truncation; the flow on $N$
factors $W_1\cdots W_N$ does so at `deep_rate` if they are balanced, else at `factor_rate`.
(Derived here.)"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.matrix_sensing._covariances import (
    augmented,
    eigen_decomposition,
    generator_and_root,
    polar_factor,
    squared_distance,
)
from theorylab.matrix_sensing.bures_wasserstein import bures_loss
from theorylab.numerics.flows import integrate
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

_EPS = float(np.finfo(np.float64).eps)

__all__ = [
    "GeneratorDescent",
    "balanced_factors",
    "bures_gradient_descent",
    "deep_flow",
    "deep_gradient_descent",
    "deep_rate",
    "factor_rate",
    "subspace_tilt",
]


@result
class GeneratorDescent:
    r"""Iterates of `bures_gradient_descent`.

    Attributes
    ----------
    weights
        All $W_t$, shape ``(steps + 1, n, k)``.
    """

    weights: FloatArray

    def losses(self, target: ArrayLike) -> FloatArray:
        """Return the loss of every iterate."""
        return np.array([bures_loss(W, target) for W in self.weights])


def subspace_tilt(generator: ArrayLike, target: ArrayLike) -> FloatArray:
    r"""Return $X=(U_\perp^\top W)(U_k^\top W)^{-1}$, the range of $W$ as a graph over the leading
    eigenspace of $\Sigma_0$.

    Its entry $(j,i)$ tilts $u_i$ towards $u_{k+j}$. To first order at the truncation a descent step
    multiplies it by $1-2\eta(1-\lambda_{k+j}/\lambda_i)$; a step of $\eta=1/2$ multiplies it by
    $\lambda_{k+j}/\lambda_i$ exactly, from any $W$.

    Parameters
    ----------
    generator
        $W$, shape ``(n, k)`` with $k<n$, not orthogonal to a leading eigenvector.
    target
        $\Sigma_0$, symmetric positive definite, shape ``(n, n)``.

    Returns
    -------
    ndarray
        Shape ``(n - k, k)``.

    Raises
    ------
    ValueError
        If an argument is invalid or $U_k^\top W$ is singular.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import subspace_tilt
    >>> subspace_tilt([[2.0], [0.5]], np.diag([4.0, 1.0]))
    array([[0.25]])
    """
    values, vectors = eigen_decomposition(target)
    W = as_array(generator, "generator", shape=(values.size, None))
    k = W.shape[1]
    if k >= values.size:
        raise ValueError(f"generator: expected fewer columns than rows, got shape {W.shape}")
    top = vectors[:, :k].T @ W
    if np.linalg.matrix_rank(top) < k:
        raise ValueError(
            "generator: expected columns whose span is a graph over the leading eigenspace"
        )
    return np.asarray(np.linalg.solve(top.T, (vectors[:, k:].T @ W).T).T, dtype=np.float64)


def bures_gradient_descent(
    initial: ArrayLike,
    target: ArrayLike,
    *,
    step_size: float,
    steps: int,
    smoothing: float = 0.0,
    callback: Callback | None = None,
) -> GeneratorDescent:
    r"""Run $W\leftarrow W-\eta\nabla f_\tau(W)$.

    Near the truncation the slowest mode contracts by $1-2\eta(1-\lambda_{k+1}/\lambda_k)$ a step,
    for $\tau=0$ and $\eta\le1/(2-\lambda_{k+1}/\lambda_k)$, the best step; at $\eta=1/2$ the run is
    subspace iteration with $\Sigma_0$.

    Parameters
    ----------
    initial
        $W_0$, shape ``(n, k)``.
    target
        $\Sigma_0$, symmetric positive semi-definite, shape ``(n, n)``.
    step_size
        $\eta>0$.
    steps
        Number of steps.
    smoothing
        $\tau\ge0$.
    callback
        Called with a `Progress` before every step: the loss. Where it returns True the descent
        stops.

    Returns
    -------
    GeneratorDescent
        All iterates.

    Raises
    ------
    ValueError
        If an argument is invalid or the iterates overflow.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import bures_gradient_descent
    >>> run = bures_gradient_descent([[1.0], [0.3]], np.diag([4.0, 1.0]), step_size=0.2, steps=100)
    >>> np.round(np.abs(run.weights.ravel()[-2:]), 6)
    array([2., 0.])
    """
    W, R = generator_and_root(initial, target, name="initial")
    eta, steps = as_real(step_size, "step_size", above=0.0), as_count(steps, "steps", minimum=0)
    tau, k = as_real(smoothing, "smoothing", minimum=0.0), W.shape[1]
    path, stops = [W], watcher(callback)
    for t in range(steps):
        if callback is not None and stops(t, squared_distance(augmented(W, tau), R)):
            break
        W = (1 - 2 * eta) * W + 2 * eta * R @ polar_factor(R @ augmented(W, tau))[:, :k]
        path.append(_bounded(W, eta))
    return GeneratorDescent(np.array(path))


def balanced_factors(
    product: ArrayLike, depth: int, *, rng: np.random.Generator
) -> list[FloatArray]:
    r"""Factor $W=W_1\cdots W_N$ with $W_j^\top W_j=W_{j+1}W_{j+1}^\top$, all hidden widths $k$.

    $W=U\Sigma V^\top$ is split as $U\Sigma^{1/N}O_1^\top$, then $O_{j-1}\Sigma^{1/N}O_j^\top$, last
    $O_{N-1}\Sigma^{1/N}V^\top$, with random rotations $O_j$.

    Parameters
    ----------
    product
        $W$, shape ``(n, k)`` with $k\le n$.
    depth
        $N\ge1$.
    rng
        Source of the rotations.

    Returns
    -------
    list of ndarray
        $W_1$ of shape ``(n, k)``, then $N-1$ of shape ``(k, k)``.

    Raises
    ------
    ValueError
        If an argument is invalid or ``product`` has more columns than rows.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import balanced_factors
    >>> A, B = balanced_factors([[3.0], [4.0]], 2, rng=np.random.default_rng(0))
    >>> np.allclose(A @ B, [[3.0], [4.0]]), np.allclose(A.T @ A, B @ B.T)
    (True, True)
    """
    W = as_array(product, "product", ndim=2)
    N, rng = as_count(depth, "depth"), as_instance(rng, "rng", np.random.Generator)
    if W.shape[1] > W.shape[0]:
        raise ValueError(f"product: expected at most as many columns as rows, got shape {W.shape}")
    U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
    k = sigma.size
    bases = [U, *(np.linalg.qr(rng.standard_normal((k, k)))[0] for _ in range(N - 1)), Vt.T]
    return [(left * sigma ** (1 / N)) @ right.T for left, right in pairwise(bases)]


@refuses_overflow("factors", "target")
def deep_flow(
    factors: Sequence[ArrayLike],
    target: ArrayLike,
    times: ArrayLike,
    *,
    smoothing: float = 0.0,
    tol: float = 1e-12,
) -> FloatArray:
    r"""Integrate gradient flow $\dot W_j=-\nabla_{W_j}f_\tau(W_1\cdots W_N)$ and return the product
    at the given times.

    One factor is the flow on $W$ itself. For $\tau<\lambda_k$ its excess loss decays, from starts
    in general position, at twice `smoothed_rate`.

    Parameters
    ----------
    factors
        $W_1,\dots,W_N$, shapes that multiply to ``(n, k)``.
    target
        $\Sigma_0$, symmetric positive semi-definite, shape ``(n, n)``.
    times
        Increasing, from 0 or later, shape ``(T,)``.
    smoothing
        $\tau\ge0$.
    tol
        Relative error of each step of the integrator (order 8), at least 1e-13.

    Returns
    -------
    ndarray
        Shape ``(T, n, k)``.

    Raises
    ------
    ValueError
        If an argument is invalid, or the flow cannot be followed up to the last of ``times`` within
        20,000 evaluations.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import deep_flow
    >>> states = deep_flow([[[1.0], [0.3]], [[1.0]]], np.diag([4.0, 1.0]), [0.0, 10.0])
    >>> np.round(states[-1], 6).ravel()
    array([2., 0.])
    """
    parts, R = _network(factors, target)
    t = as_array(times, "times", ndim=1, nonnegative=True)
    tau = as_real(smoothing, "smoothing", minimum=0.0)
    relative = as_real(tol, "tol", minimum=1e-13, below=1.0)
    if (np.diff(t) <= 0).any():
        raise ValueError("times: expected increasing numbers")
    if t[-1] == 0:
        return _multiply(parts)[None]
    shapes, ends = [P.shape for P in parts], np.cumsum([P.size for P in parts])[:-1]

    def split(state: FloatArray) -> list[FloatArray]:
        return [
            piece.reshape(shape) for piece, shape in zip(np.split(state, ends), shapes, strict=True)
        ]

    def velocity(_: float, state: FloatArray) -> FloatArray:
        return -np.concatenate([g.ravel() for g in _factor_gradients(split(state), R, tau)])

    start = np.concatenate([P.ravel() for P in parts])
    scale = float(np.abs(start).max())
    path = integrate(velocity, start, t, rtol=relative, atol=relative / 100 * scale)
    return np.array([_multiply(split(state)) for state in path])


def deep_gradient_descent(
    factors: Sequence[ArrayLike],
    target: ArrayLike,
    *,
    step_size: float,
    steps: int,
    callback: Callback | None = None,
) -> tuple[FloatArray, list[FloatArray]]:
    r"""Run $W_j\leftarrow W_j-\eta\nabla_{W_j}f(W_1\cdots W_N)$, all factors at once.

    Parameters
    ----------
    factors, target
        As in `deep_flow`.
    step_size
        $\eta>0$.
    steps
        Number of steps.
    callback
        As in `bures_gradient_descent`.

    Returns
    -------
    products
        $W_1\cdots W_N$ at every step, shape ``(steps + 1, n, k)``.
    factors
        The last factors.

    Raises
    ------
    ValueError
        If an argument is invalid or the iterates overflow.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import deep_gradient_descent
    >>> factors = [[[1.0], [0.3]], [[1.0]]]
    >>> losses, _ = deep_gradient_descent(factors, np.diag([4.0, 1.0]), step_size=0.05, steps=300)
    >>> np.round(losses[-1], 6)
    array([[2.],
           [0.]])
    """
    parts, R = _network(factors, target)
    eta, steps = as_real(step_size, "step_size", above=0.0), as_count(steps, "steps", minimum=0)
    products, stops = [_multiply(parts)], watcher(callback)
    for t in range(steps):
        if callback is not None and stops(t, squared_distance(products[-1], R)):
            break
        parts = [P - eta * g for P, g in zip(parts, _factor_gradients(parts, R), strict=True)]
        products.append(_bounded(_multiply(parts), eta))
    return np.array(products), parts


def factor_rate(factors: Sequence[ArrayLike], target: ArrayLike) -> float:
    r"""Return the slowest rate out of the leading eigenspace at any factors of the truncation,
    balanced or not.

    With $k$ columns, $W_1=W(W_2\cdots W_N)^{-1}$ lies in the leading eigenspace, and only it turns
    the range: $Y=U_\perp^\top W$ follows $\dot y_j=-2y_j(I-\lambda_{k+j}H^{-1})K$ row by row, with
    $H=(W^\top\Sigma_0W)^{1/2}$ and $K=(W_2\cdots W_N)^\top W_2\cdots W_N$; a descent step
    multiplies $y_j$ by $I-2\eta(I-\lambda_{k+j}H^{-1})K$.

    Parameters
    ----------
    factors
        $W_1,\dots,W_N$ with $W_1\cdots W_N$, shape ``(n, k)``, $k<n$, at the truncation; $W_1$ of
        shape ``(n, k)``.
    target
        $\Sigma_0$, symmetric positive definite, shape ``(n, n)``.

    Returns
    -------
    float
        The smallest eigenvalue of $2(I-\lambda_{k+1}H^{-1})K$; `deep_rate` for balanced factors.

    Raises
    ------
    ValueError
        If an argument is invalid, the product lacks rank, or $W_1$ has more than $k$ columns: then
        it may hold other directions, which the product does not show and the other factors turn
        too.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import factor_rate
    >>> round(factor_rate([[[2.0], [0.0]], [[1.0]]], np.diag([4.0, 1.0])), 12)
    1.5
    """
    parts, R = _network(factors, target)
    W = _multiply(parts)
    n, k = W.shape
    _, sigma, Vt = np.linalg.svd(R @ W, full_matrices=False)
    if k >= n or sigma[-1] <= n * _EPS * sigma[0]:
        raise ValueError(
            "factors: expected a product of full column rank with fewer columns than "
            f"rows, got shape {W.shape}"
        )
    if parts[0].shape[1] != k:
        raise ValueError(
            f"factors: expected {k} columns of the first, as of the product, got "
            f"{parts[0].shape[1]}"
        )
    rest = _multiply([np.eye(k), *parts[1:]])
    # With L = I - lambda H^-1 positive semi-definite, L K has the eigenvalues of L^(1/2) K L^(1/2).
    half = np.sqrt(np.maximum(1 - np.linalg.eigvalsh(R)[-k - 1] ** 2 / sigma, 0.0))
    return float(2 * np.linalg.svd((rest @ Vt.T) * half, compute_uv=False)[-1] ** 2)


def deep_rate(target: ArrayLike, rank: int, *, depth: int = 1) -> float:
    r"""Return $\mu_N=2\lambda_k^{1-1/N}(1-\lambda_{k+1}/\lambda_k)$, the rate of flow on a balanced
    factorization of depth $N$.

    Balanced factors give $\dot W=-\sum_j(WW^\top)^{(N-j)/N}\,\nabla f\,(W^\top W)^{(j-1)/N}$. Out
    of the leading eigenspace only the term without left factor acts, so $u_{k+j}u_i^\top$ decays at
    $\lambda_i^{1-1/N}\cdot2(1-\lambda_{k+j}/\lambda_i)$, the slowest at $i=k$, $j=1$; inside it the
    rates are at least $2N\lambda_k^{1-1/N}$. The excess loss decays at $2\mu_N$.

    Parameters
    ----------
    target
        $\Sigma_0$, symmetric positive definite, shape ``(n, n)``.
    rank
        $k<n$.
    depth
        $N\ge1$; 1 is flow on $W$ itself, whose descent with step $\eta$ contracts by $1-\eta\mu_1$.

    Raises
    ------
    ValueError
        If an argument is invalid or ``target`` is singular.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import deep_rate
    >>> deep_rate(np.diag([4.0, 1.0]), 1, depth=2)
    3.0
    """
    values, _ = eigen_decomposition(target)
    if values.size < 2:
        raise ValueError(f"target: expected at least 2 rows, got {values.size}")
    k, N = as_count(rank, "rank", maximum=values.size - 1), as_count(depth, "depth")
    if values[-1] <= 0:
        raise ValueError(f"target: expected positive eigenvalues, got {values[-1]}")
    return float(2 * values[k - 1] ** (1 - 1 / N) * (1 - values[k] / values[k - 1]))


def _bounded(W: FloatArray, step_size: float) -> FloatArray:
    if not np.isfinite(W).all():
        raise ValueError(
            f"step_size: expected one for which the descent stays bounded, got {step_size}"
        )
    return W


def _chain(factors: Sequence[ArrayLike]) -> list[FloatArray]:
    if isinstance(factors, str) or not isinstance(factors, Sequence) or not factors:
        raise ValueError(
            f"factors: expected a non-empty sequence of matrices, got {type(factors).__name__}"
        )
    parts = [as_array(P, "factors", ndim=2) for P in factors]
    if any(P.shape[1] != Q.shape[0] for P, Q in pairwise(parts)):
        raise ValueError(f"factors: expected shapes that multiply, got {[P.shape for P in parts]}")
    return parts


def _network(
    factors: Sequence[ArrayLike], target: ArrayLike
) -> tuple[list[FloatArray], FloatArray]:
    parts = _chain(factors)
    return parts, generator_and_root(_multiply(parts), target, name="factors")[1]


def _factor_gradients(
    parts: list[FloatArray], R: FloatArray, smoothing: float = 0.0
) -> list[FloatArray]:
    lefts, rights = [np.eye(R.shape[0])], [np.eye(parts[-1].shape[1])]
    for P, Q in zip(parts[:-1], parts[:0:-1], strict=True):
        lefts.append(lefts[-1] @ P)
        rights.append(Q @ rights[-1])
    product = lefts[-1] @ parts[-1]
    polar = polar_factor(R @ augmented(product, smoothing))[:, : product.shape[1]]
    G = 2 * product - 2 * R @ polar
    return [left.T @ G @ right.T for left, right in zip(lefts, rights[::-1], strict=True)]


def _multiply(parts: list[FloatArray]) -> FloatArray:
    product = parts[0]
    for P in parts[1:]:
        product = product @ P
    return product
