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
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real
from theorylab.matrix_sensing._covariances import (
    augmented,
    eigen_decomposition,
    generator_and_root,
    matrix_root,
    polar_factor,
    squared_distance,
)
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "SmoothedMinimum",
    "SpectralSelection",
    "bures_gradient",
    "bures_hessian",
    "bures_loss",
    "bures_wasserstein_distance",
    "curvature_bounds",
    "random_covariance",
    "smoothed_minimum",
    "smoothed_rate",
    "spectral_selections",
]

_EPS = float(np.finfo(np.float64).eps)
_ENTRIES = 10_000  # of a generator whose Hessian is formed
_BLOCK = 2**21  # numbers of the directions taken at a time


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
    R1 = matrix_root(first, "first")
    R2 = matrix_root(second, "second")
    if R1.shape != R2.shape:
        raise ValueError(f"second: expected the shape of first, {R1.shape}, got {R2.shape}")
    unit = binary_exponent(R1, R2)
    return math.ldexp(
        float(np.sqrt(squared_distance(np.ldexp(R1, -unit), np.ldexp(R2, -unit)))), unit
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
    W, R = generator_and_root(generator, target)
    W = augmented(W, as_real(smoothing, "smoothing", minimum=0.0))
    if not (loss := squared_distance(W, R)) < np.inf:
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
    W, R = generator_and_root(generator, target)
    k = W.shape[1]
    wide = augmented(W, as_real(smoothing, "smoothing", minimum=0.0))
    return 2 * W - 2 * R @ polar_factor(R @ wide)[:, :k]


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
        If an argument is invalid, $\Sigma_0^{1/2}[W,\sqrt\tau I]$ lacks rank, or ``generator``
        has more than 10,000 entries, of which the Hessian has the square.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import bures_hessian
    >>> np.linalg.eigvalsh(bures_hessian([[2.0], [0.0]], np.diag([4.0, 1.0])))
    array([1.5, 2. ])
    """
    W, R = generator_and_root(generator, target)
    n, k = W.shape
    if n * k > _ENTRIES:
        raise ValueError(f"generator: expected at most {_ENTRIES} entries, got {n} x {k}")
    wide = augmented(W, as_real(smoothing, "smoothing", minimum=0.0))
    U, sigma, Vt = np.linalg.svd(R @ wide, full_matrices=False)
    if sigma[-1] <= n * _EPS * sigma[0]:
        raise ValueError(
            "generator: expected target^(1/2) times it of full rank, or a definite "
            "target and smoothing > 0"
        )
    H = 2 * np.eye(n * k)
    for block in np.array_split(np.arange(n * k), math.ceil(n * k * wide.size / _BLOCK)):
        directions = np.zeros((block.size, n, wide.shape[1]))
        directions[np.arange(block.size), block // k, block % k] = 1.0
        F = R @ directions
        inner = U.T @ F @ Vt.T
        change = U @ ((inner - inner.transpose(0, 2, 1)) / np.add.outer(sigma, sigma)) @ Vt
        if n > sigma.size:
            change += ((F - U @ (U.T @ F)) @ Vt.T / sigma) @ Vt
        if wide.shape[1] > sigma.size:
            change += (U / sigma) @ (U.T @ (F - F @ Vt.T @ Vt))
        H[block] -= 2 * (R @ change)[:, :, :k].reshape(block.size, n * k)
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
    W, R = generator_and_root(generator, target)
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
        If an argument is invalid, ``target`` is singular, an eigenvalue repeats (then critical
        points form continua), or there are more than 100,000.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import spectral_selections
    >>> [s.indices for s in spectral_selections(np.diag([4.0, 2.0, 1.0]), 2)]
    [(0, 1), (0, 2), (1, 2)]
    """
    values, vectors = eigen_decomposition(target)
    n = values.size
    k = as_count(rank, "rank", maximum=n)
    if values[-1] <= n * _EPS * values[0] or (np.diff(values) >= -n * _EPS * values[0]).any():
        raise ValueError(f"target: expected distinct positive eigenvalues, got {values}")
    if (count := math.comb(n, k)) > 100_000:
        raise ValueError(f"rank: expected at most 100000 critical points, got {count} of rank {k}")
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
    values, _ = eigen_decomposition(target)
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
    values, _ = eigen_decomposition(target)
    if values.size < 2:
        raise ValueError(f"target: expected at least 2 rows, got {values.size}")
    k = as_count(rank, "rank", maximum=values.size - 1)
    top, below = float(values[k - 1]), float(values[k])
    tau = as_real(smoothing, "smoothing", above=0.0, below=top)
    return float(min(2 * (top - below) / (top + np.sqrt(below * tau)), 2 * (1 - tau / top)))
