r"""The Bures-Wasserstein loss of a linear generator: critical points, curvature and rates.

A generator $x\mapsto Wx$ of standard Gaussian noise, $W\in\mathbb R^{n\times k}$, has covariance
$WW^\top$. The squared 2-Wasserstein distance to $N(0,\Sigma_0)$, $\Sigma_0\succ0$ with eigenvalues
$\lambda_1\ge\dots\ge\lambda_n$ and eigenvectors $u_i$, is
$$f(W)=B^2(WW^\top,\Sigma_0)=\|W\|_F^2+\operatorname{tr}\Sigma_0-2\|M\|_*,\quad
M=\Sigma_0^{1/2}W,\qquad \nabla f=2W-2\Sigma_0^{1/2}Q,\quad M=QH\ \text{(polar)}.$$ Stationarity
reads $\Sigma_0Q=QH$: the range of $Q$ is spanned by $k$ eigenvectors, so $WW^\top=\sum_{i\in
J}\lambda_iu_iu_i^\top$ (`spectral_selections`). The Hessian there has the eigenvalues
$2(1-\lambda_j/\lambda_i)$, $i\in J$, $j\notin J$; 2 on $k(k+1)/2$ and 0 on $k(k-1)/2$ dimensions
(rotations $W\mapsto WO$), so every selection but the truncation is a strict saddle. Elsewhere the
Hessian is unbounded below as $\sigma_k(M)\to0$ (`curvature_bounds`); $f_\tau(W)=B^2(WW^\top+\tau
I,\Sigma_0)$ cures this. A descent step of 1/2 is the subspace iteration
$\operatorname{range}W\mapsto\Sigma_0\operatorname{range}W$. (brechet2023-critical; the theorems'
text was not consulted, and what follows is derived here.)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    as_symmetric,
    precision_of,
    refuses_overflow,
)
from theorylab.numerics.flows import integrate
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "GeneratorDescent",
    "SmoothedMinimum",
    "SpectralSelection",
    "balanced_factors",
    "bures_gradient",
    "bures_gradient_descent",
    "bures_hessian",
    "bures_loss",
    "bures_wasserstein_distance",
    "curvature_bounds",
    "deep_flow",
    "deep_gradient_descent",
    "deep_rate",
    "factor_rate",
    "random_covariance",
    "smoothed_minimum",
    "smoothed_rate",
    "spectral_selections",
    "subspace_tilt",
]

_EPS = float(np.finfo(np.float64).eps)


@result
class SpectralSelection:
    r"""A critical point of the Bures-Wasserstein loss on matrices of rank $k$.

    Attributes
    ----------
    indices
        $J$, positions in the decreasing order of the eigenvalues of $\Sigma_0$.
    weights
        $W=(\sqrt{\lambda_i}u_i)_{i\in J}$, shape ``(n, k)``; the others are $WO$ with $O$
        orthogonal.
    value
        $f(W)=\sum_{i\notin J}\lambda_i$.
    curvatures
        Eigenvalues of $\nabla^2f(W)$, increasing, shape ``(n k,)``.
    """

    indices: tuple[int, ...]
    weights: FloatArray
    value: float
    curvatures: FloatArray

    @property
    def covariance(self) -> FloatArray:
        r"""$\Sigma_J=\sum_{i\in J}\lambda_iu_iu_i^\top$."""
        return self.weights @ self.weights.T

    @property
    def index(self) -> int:
        """Number of directions of negative curvature; 0 for the truncation alone, if the
        eigenvalues differ."""
        return int((self.curvatures < 0).sum())


@result
class SmoothedMinimum:
    r"""The minimum of $f_\tau$.

    Attributes
    ----------
    eigenvalues
        The non-trivial eigenvalues of $WW^\top$ at the minimum, decreasing, shape ``(k,)``, on the
        leading eigenvectors.
    value
        The minimum.
    """

    eigenvalues: FloatArray
    value: float


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


def random_covariance(eigenvalues: ArrayLike, *, rng: np.random.Generator) -> FloatArray:
    r"""Return a symmetric matrix with the given eigenvalues in a random position.

    Parameters
    ----------
    eigenvalues
        Non-negative, shape ``(n,)``.
    rng
        Source of the rotation.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import random_covariance
    >>> S = random_covariance([2.0, 1.0], rng=np.random.default_rng(0))
    >>> np.linalg.eigvalsh(S).round(12)
    array([1., 2.])
    """
    values = as_array(eigenvalues, "eigenvalues", ndim=1, nonnegative=True)
    rng = as_instance(rng, "rng", np.random.Generator)
    U = np.linalg.qr(rng.standard_normal((values.size, values.size)))[0]
    S = (U * values) @ U.T
    return np.asarray((S + S.T) / 2)


def bures_wasserstein_distance(first: ArrayLike, second: ArrayLike) -> float:
    r"""Return $B(\Sigma_1,\Sigma_2)$, the 2-Wasserstein distance of $N(0,\Sigma_1)$ and
    $N(0,\Sigma_2)$.

    It is $\|R_1-R_2Q\|_F$ with $R_i=\Sigma_i^{1/2}$ and $Q$ the orthogonal polar factor of
    $R_2R_1$, which unlike the difference of traces keeps its digits where the two are close.

    Parameters
    ----------
    first, second
        Symmetric positive semi-definite, shape ``(n, n)``.

    Returns
    -------
    float
        The distance (not its square).

    Raises
    ------
    ValueError
        If an argument is not symmetric positive semi-definite or the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import bures_wasserstein_distance
    >>> bures_wasserstein_distance(np.diag([4.0, 1.0]), np.diag([1.0, 1.0]))
    1.0
    """
    R1 = _root(first, "first")
    R2 = _root(second, "second")
    if R1.shape != R2.shape:
        raise ValueError(f"second: expected the shape of first, {R1.shape}, got {R2.shape}")
    unit = binary_exponent(R1, R2)
    return math.ldexp(
        float(np.sqrt(_squared_distance(np.ldexp(R1, -unit), np.ldexp(R2, -unit)))), unit
    )


def bures_loss(generator: ArrayLike, target: ArrayLike, *, smoothing: float = 0.0) -> float:
    r"""Return $B^2(WW^\top+\tau I,\Sigma_0)$.

    Parameters
    ----------
    generator
        $W$, shape ``(n, k)``.
    target
        $\Sigma_0$, symmetric positive semi-definite, shape ``(n, n)``.
    smoothing
        $\tau\ge0$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import bures_loss
    >>> bures_loss([[1.0], [0.0]], np.diag([4.0, 1.0]))
    2.0
    """
    W, R = _pair(generator, target)
    W = _augmented(W, as_real(smoothing, "smoothing", minimum=0.0))
    if not (loss := _squared_distance(W, R)) < np.inf:
        raise ValueError("generator: expected a loss within float64, got an overflow")
    return loss


def bures_gradient(
    generator: ArrayLike, target: ArrayLike, *, smoothing: float = 0.0
) -> FloatArray:
    r"""Return the gradient of `bures_loss` in $W$; where $\Sigma_0^{1/2}W$ lacks rank, the element
    with the least polar factor.

    Parameters
    ----------
    generator, target, smoothing
        As in `bures_loss`.

    Returns
    -------
    ndarray
        Shape ``(n, k)``.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import bures_gradient
    >>> bures_gradient([[1.0], [0.0]], np.diag([4.0, 1.0]))
    array([[-2.],
           [ 0.]])
    """
    W, R = _pair(generator, target)
    k = W.shape[1]
    wide = _augmented(W, as_real(smoothing, "smoothing", minimum=0.0))
    return 2 * W - 2 * R @ _polar(R @ wide)[:, :k]


def bures_hessian(generator: ArrayLike, target: ArrayLike, *, smoothing: float = 0.0) -> FloatArray:
    r"""Return the Hessian of `bures_loss` in closed form, from the derivative of the polar factor.

    With $M=U\operatorname{diag}(\sigma)V^\top$ and $F$ in place of $dM$, $dQ$ is $U\Omega V^\top$
    with $\Omega_{ij}=(U^\top FV-V^\top F^\top U)_{ij}/(\sigma_i+\sigma_j)$, plus $F$ off
    $\operatorname{range}U$ or $V$ over $\sigma$.

    Parameters
    ----------
    generator, target, smoothing
        As in `bures_loss`; $\Sigma_0^{1/2}[W,\sqrt\tau I]$ of full rank, as it is for
        $\Sigma_0\succ0$, $\tau>0$.

    Returns
    -------
    ndarray
        Symmetric, shape ``(n k, n k)``, for the entries of $W$ in row order.

    Raises
    ------
    ValueError
        If an argument is invalid or $\Sigma_0^{1/2}[W,\sqrt\tau I]$ lacks rank.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import bures_hessian
    >>> np.linalg.eigvalsh(bures_hessian([[2.0], [0.0]], np.diag([4.0, 1.0])))
    array([1.5, 2. ])
    """
    W, R = _pair(generator, target)
    n, k = W.shape
    wide = _augmented(W, as_real(smoothing, "smoothing", minimum=0.0))
    U, sigma, Vt = np.linalg.svd(R @ wide, full_matrices=False)
    if sigma[-1] <= n * _EPS * sigma[0]:
        raise ValueError(
            "generator: expected target^(1/2) times it of full rank, or a definite "
            "target and smoothing > 0"
        )
    directions = np.zeros((n * k, n, wide.shape[1]))
    directions[:, :, :k] = np.eye(n * k).reshape(n * k, n, k)
    F = R @ directions
    inner = U.T @ F @ Vt.T
    change = U @ ((inner - inner.transpose(0, 2, 1)) / np.add.outer(sigma, sigma)) @ Vt
    if n > sigma.size:
        change += ((F - U @ (U.T @ F)) @ Vt.T / sigma) @ Vt
    if wide.shape[1] > sigma.size:
        change += (U / sigma) @ (U.T @ (F - F @ Vt.T @ Vt))
    H = 2 * np.eye(n * k) - 2 * (R @ change)[:, :, :k].reshape(n * k, n * k)
    return np.asarray((H + H.T) / 2)


def curvature_bounds(generator: ArrayLike, target: ArrayLike) -> tuple[float, float]:
    r"""Bound $\lambda_{\min}(\nabla^2f(W))$ on both sides by $2-c/\sigma_k$ up to a term that stays
    bounded as $\sigma_k\to0$.

    The Hessian is $2I-X-Y$ with $X,Y\succeq0$: $X$ turns the column of $Q$ at the smallest singular
    value $\sigma_k$ of $\Sigma_0^{1/2}W$ out of the range, $\lambda_{\max}(X)=c/\sigma_k$ with
    $c=2\lambda_{\max}(P\Sigma_0P)$, $P=I-QQ^\top$, and $\|Y\|\le4\lambda_1/\sigma_{k-1}$. Hence
    $2-c/\sigma_k-4\lambda_1/\sigma_{k-1}\le\lambda_{\min}\le2-c/\sigma_k$; $Y=0$ for $k=1$, and
    $c=0$ for $k=n$.

    Parameters
    ----------
    generator, target
        As in `bures_hessian`.

    Returns
    -------
    lower, upper
        The two bounds.

    Raises
    ------
    ValueError
        If an argument is invalid or $\Sigma_0^{1/2}W$ lacks rank.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import curvature_bounds
    >>> lower, upper = curvature_bounds([[2.0], [0.0]], np.diag([4.0, 1.0]))
    >>> lower <= upper
    True
    """
    W, R = _pair(generator, target)
    n, k = W.shape
    U, sigma, _ = np.linalg.svd(R @ W, full_matrices=False)
    if sigma.size < k or sigma[-1] <= n * _EPS * sigma[0]:
        raise ValueError("generator: expected target^(1/2) times it of full column rank")
    outside = R - U @ (U.T @ R)
    upper = 2 - 2 * float(np.linalg.norm(outside, 2)) ** 2 / sigma[-1]
    rest = 4 * float(np.linalg.norm(R, 2)) ** 2 / sigma[-2] if k > 1 else 0.0
    return float(upper - rest), float(upper)


def spectral_selections(target: ArrayLike, rank: int) -> tuple[SpectralSelection, ...]:
    r"""Return all $\binom nk$ critical points of $f$ of rank exactly $k$ (up to rotations), by
    increasing value.

    Parameters
    ----------
    target
        $\Sigma_0$, symmetric positive definite with distinct eigenvalues, shape ``(n, n)``.
    rank
        $k\le n$.

    Returns
    -------
    tuple of SpectralSelection
        The first is the spectral truncation, the global minimum.

    Raises
    ------
    ValueError
        If an argument is invalid, ``target`` is singular, or an eigenvalue repeats (then critical
        points form continua).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import spectral_selections
    >>> [s.indices for s in spectral_selections(np.diag([4.0, 2.0, 1.0]), 2)]
    [(0, 1), (0, 2), (1, 2)]
    """
    values, vectors = _spectrum(target)
    n = values.size
    k = as_count(rank, "rank", maximum=n)
    if values[-1] <= n * _EPS * values[0] or (np.diff(values) >= -n * _EPS * values[0]).any():
        raise ValueError(f"target: expected distinct positive eigenvalues, got {values}")
    selections = []
    for J in combinations(range(n), k):
        chosen, rest = values[list(J)], np.delete(values, J)
        mixing = 2 * (1 - np.divide.outer(rest, chosen)).ravel()
        curvatures = np.concatenate(
            [mixing, np.full(k * (k + 1) // 2, 2.0), np.zeros(k * (k - 1) // 2)]
        )
        weights = vectors[:, list(J)] * np.sqrt(chosen)
        selections.append(SpectralSelection(J, weights, float(rest.sum()), np.sort(curvatures)))
    return tuple(sorted(selections, key=lambda s: s.value))


def smoothed_minimum(target: ArrayLike, rank: int, *, smoothing: float) -> SmoothedMinimum:
    r"""Return the minimum of $W\mapsto B^2(WW^\top+\tau I,\Sigma_0)$ over $n\times k$ matrices.

    $B^2(\Sigma,\Sigma_0)\ge\sum_i(\sqrt{s_i}-\sqrt{\lambda_i})^2$ for the ordered eigenvalues $s_i$
    of $\Sigma$, of which $n-k$ equal $\tau$ and none is less: the minimum has
    $s_i=\max(\lambda_i,\tau)$ for $i\le k$.

    Parameters
    ----------
    target
        $\Sigma_0$, symmetric positive semi-definite, shape ``(n, n)``.
    rank
        $k\le n$.
    smoothing
        $\tau\ge0$.

    Returns
    -------
    SmoothedMinimum
        Eigenvalues $(\lambda_i-\tau)_+$, and the value
        $\sum_{i\le k}(\sqrt\tau-\sqrt{\lambda_i})_+^2+\sum_{i>k}(\sqrt{\lambda_i}-\sqrt\tau)^2$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import smoothed_minimum
    >>> smoothed_minimum(np.diag([4.0, 1.0]), 1, smoothing=0.25).eigenvalues
    array([3.75])
    """
    values, _ = _spectrum(target)
    k = as_count(rank, "rank", maximum=values.size)
    tau = as_real(smoothing, "smoothing", minimum=0.0)
    roots = np.sqrt(values)
    reached = np.append(np.maximum(roots[:k], np.sqrt(tau)), np.full(values.size - k, np.sqrt(tau)))
    return SmoothedMinimum(np.maximum(values[:k] - tau, 0.0), float(np.sum((roots - reached) ** 2)))


def smoothed_rate(target: ArrayLike, rank: int, *, smoothing: float) -> float:
    r"""Return the slowest rate of gradient flow on $f_\tau$ at its minimum, for $0<\tau<\lambda_k$.

    The Hessian there has the eigenvalues $2(\lambda_i-\lambda_j)/(\lambda_i+\sqrt{\lambda_j\tau})$,
    $i\le k<j$, $2(\lambda_i+\lambda_j-2\tau)/(\lambda_i+\lambda_j)$, $i\le j\le k$, and 0 along
    rotations. The least of the others is $\min\{2(\lambda_k-\lambda_{k+1})/(\lambda_k+
    \sqrt{\lambda_{k+1}\tau}),2(1-\tau/\lambda_k)\}$. The excess loss decays at twice that. (Derived
    here.)

    Parameters
    ----------
    target
        $\Sigma_0$, symmetric positive definite, shape ``(n, n)``.
    rank
        $k<n$.
    smoothing
        $\tau$ in $(0,\lambda_k)$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import smoothed_rate
    >>> smoothed_rate(np.diag([3.0, 2.0, 1.0]), 1, smoothing=0.5)
    0.5
    """
    values, _ = _spectrum(target)
    if values.size < 2:
        raise ValueError(f"target: expected at least 2 rows, got {values.size}")
    k = as_count(rank, "rank", maximum=values.size - 1)
    top, below = float(values[k - 1]), float(values[k])
    tau = as_real(smoothing, "smoothing", above=0.0, below=top)
    return float(min(2 * (top - below) / (top + np.sqrt(below * tau)), 2 * (1 - tau / top)))


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
    values, vectors = _spectrum(target)
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
    initial: ArrayLike, target: ArrayLike, *, step_size: float, steps: int, smoothing: float = 0.0
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
    W, R = _pair(initial, target, name="initial")
    eta, steps = as_real(step_size, "step_size", above=0.0), as_count(steps, "steps", minimum=0)
    tau, k = as_real(smoothing, "smoothing", minimum=0.0), W.shape[1]
    path = np.empty((steps + 1, *W.shape))
    path[0] = W
    for t in range(steps):
        path[t + 1] = (1 - 2 * eta) * W + 2 * eta * R @ _polar(R @ _augmented(W, tau))[:, :k]
        W = _bounded(path[t + 1], eta)
    return GeneratorDescent(path)


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
    factors: Sequence[ArrayLike], target: ArrayLike, *, step_size: float, steps: int
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
    products = [_multiply(parts)]
    for _ in range(steps):
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
    values, _ = _spectrum(target)
    if values.size < 2:
        raise ValueError(f"target: expected at least 2 rows, got {values.size}")
    k, N = as_count(rank, "rank", maximum=values.size - 1), as_count(depth, "depth")
    if values[-1] <= 0:
        raise ValueError(f"target: expected positive eigenvalues, got {values[-1]}")
    return float(2 * values[k - 1] ** (1 - 1 / N) * (1 - values[k] / values[k - 1]))


def _spectrum(value: ArrayLike, name: str = "target") -> tuple[FloatArray, FloatArray]:
    """Return eigenvalues, decreasing and non-negative, and eigenvectors."""
    S = as_symmetric(value, name)
    n = S.shape[0]
    values, vectors = np.linalg.eigh(S / 2 + S.T / 2)
    # n times the rounding of a product of n terms
    if values[0] < -8 * n**2 * precision_of(value) * np.abs(S).max():
        raise ValueError(
            f"{name}: expected a positive semi-definite matrix, got the eigenvalue {values[0]}"
        )
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def _root(value: ArrayLike, name: str = "target") -> FloatArray:
    values, vectors = _spectrum(value, name)
    return (vectors * np.sqrt(values)) @ vectors.T


def _pair(
    generator: ArrayLike, target: ArrayLike, *, name: str = "generator"
) -> tuple[FloatArray, FloatArray]:
    R = _root(target)
    return as_array(generator, name, shape=(R.shape[0], None)), R


def _augmented(W: FloatArray, smoothing: float) -> FloatArray:
    """Return [W, sqrt(tau) I], whose product with its transpose is W W' + tau I."""
    return np.hstack([W, np.sqrt(smoothing) * np.eye(W.shape[0])]) if smoothing else W


def _squared_distance(W: FloatArray, R: FloatArray) -> float:
    """Return |W|^2 + |R|^2 - 2 |R W|_* as a sum of squares: no cancellation between two close
    covariances."""
    Q = _polar(R @ W)
    image = R @ Q
    return float(np.sum((W - image) ** 2) + np.sum((R - image @ Q.T) ** 2))


def _polar(M: FloatArray) -> FloatArray:
    """Return the polar factor, zero on the kernel (singular values at the level of rounding)."""
    U, sigma, Vt = np.linalg.svd(M, full_matrices=False)
    kept = sigma > max(M.shape) * _EPS * sigma[0]
    return np.asarray(U[:, kept] @ Vt[kept])


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
    return parts, _pair(_multiply(parts), target, name="factors")[1]


def _factor_gradients(
    parts: list[FloatArray], R: FloatArray, smoothing: float = 0.0
) -> list[FloatArray]:
    lefts, rights = [np.eye(R.shape[0])], [np.eye(parts[-1].shape[1])]
    for P, Q in zip(parts[:-1], parts[:0:-1], strict=True):
        lefts.append(lefts[-1] @ P)
        rights.append(Q @ rights[-1])
    product = lefts[-1] @ parts[-1]
    polar = _polar(R @ _augmented(product, smoothing))[:, : product.shape[1]]
    G = 2 * product - 2 * R @ polar
    return [left.T @ G @ right.T for left, right in zip(lefts, rights[::-1], strict=True)]


def _multiply(parts: list[FloatArray]) -> FloatArray:
    product = parts[0]
    for P in parts[1:]:
        product = product @ P
    return product
