r"""Low rank by training, in two linear models: when to truncate, and what a nuclear penalty can be
scaled away by.

Regression of $Y$ on a design $A$ of full column rank: $\|AW-Y\|_F^2=\text{const}+\|W-\hat W\|_H^2$
with $H=A^\top A$, $\hat W$ the least-squares solution and $\|V\|_Q^2=\operatorname{tr}V^\top QV$.
The closest matrix of rank $r$ in the metric $Q$ is $$W_Q=Q^{-1/2}\,T_r(Q^{1/2}\hat
W)\qquad(T_r:\text{truncated singular value decomposition}),$$ so $Q=H$ is the best (reduced-rank
regression) and $Q=I$ is truncation after training. Training with truncation, $p$ gradient steps of
size $\eta$ and then $T_r$, is $W\leftarrow T_r(W+Q_p(\hat W-W))$ with $Q_p=I-(I-\eta H)^p$:
projected gradient descent in the metric $Q_p$, whose limit $W_{Q_p}$ is the best solution at $p=1$
and truncation after training as $p\to\infty$.

Linear autoencoder $X\mapsto DMEX$ with a penalty $\lambda\|M\|_*$: $(D,M,E)\mapsto(cD,c^{-2}M,cE)$
changes only the penalty, by $c^{-2}$. With orthonormal $D$ and $E$ the minimum has $D=E^\top$ the
leading left singular vectors of $X$ and $M$ diagonal with $m_i=(1-\lambda/(2\sigma_i^2))_+$.
(Derived here; the texts of xu2020-trained and mazumder2023-learning were not consulted.)"""

from __future__ import annotations

import warnings
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "LowRankAutoencoder",
    "NuclearDescent",
    "PruningRun",
    "PruningStatus",
    "autoencoder_objective",
    "low_rank_autoencoder",
    "nuclear_descent",
    "pruning_metric",
    "trained_rank_pruning",
    "truncate",
    "weighted_truncation",
]

_EPS = float(np.finfo(np.float64).eps)


class PruningStatus(StrEnum):
    """How a run of training with truncation ended."""

    CONVERGED = "a round changed the truncated weights by less than tol"
    NOT_CONVERGED = "took all the rounds before the truncated weights settled; raise rounds"
    STOPPED = "stopped by the callback, with the truncated weights that it had by then"


@result
class PruningRun:
    r"""A run of `trained_rank_pruning`.

    Attributes
    ----------
    weights
        The last truncated weights, shape ``(d, q)``.
    losses
        $\|AW-Y\|_F^2$ after every truncation.
    change
        Frobenius norm of the last change, relative to the weights.
    status
        How the run ended.
    """

    weights: FloatArray
    losses: FloatArray
    change: float
    status: PruningStatus


@result
class LowRankAutoencoder:
    r"""The minimum of a linear autoencoder with a nuclear penalty and orthonormal encoder and
    decoder.

    Attributes
    ----------
    encoder, latent, decoder
        $E$, $M$, $D$, shapes ``(k, n)``, ``(k, k)``, ``(n, k)``.
    value
        The minimum of $\|X-DMEX\|_F^2+\lambda\|M\|_*$.
    """

    encoder: FloatArray
    latent: FloatArray
    decoder: FloatArray
    value: float

    @property
    def gains(self) -> FloatArray:
        """The $m_i$, shape ``(k,)``."""
        return np.diag(self.latent).copy()


@result
class NuclearDescent:
    r"""A run of `nuclear_descent`.

    Attributes
    ----------
    weights
        The last weights, shape ``(d, q)``.
    singular_values
        Those of every iterate, decreasing, shape ``(steps + 1, min(d, q))``.
    """

    weights: FloatArray
    singular_values: FloatArray


@refuses_overflow("design", "response", "initial", "penalty", "step_size")
def nuclear_descent(
    design: ArrayLike,
    response: ArrayLike,
    initial: ArrayLike,
    *,
    penalty: float,
    step_size: float,
    steps: int,
    callback: Callback | None = None,
) -> NuclearDescent:
    r"""Run $W\leftarrow W-\eta(A^\top(AW-Y)+\lambda UV^\top)$, $W=U\Sigma V^\top$ thin.

    These are sub-gradient steps on $\frac12\|AW-Y\|_F^2+\lambda\|W\|_*$. With $A^\top A=I$ and
    $\sigma_i$ the singular values of $A^\top Y$ the minimum has $(\sigma_i-\lambda)_+$. Those that
    are 0 there ($\sigma_i<\lambda$) are not on the way: they jump about below
    $\eta(\lambda+\max\sigma_i)$, so that truncation at $2\eta\lambda$ finds the rank. (Derived.)

    Parameters
    ----------
    design, response
        $A$ and $Y$, shapes ``(n, d)`` and ``(n, q)``.
    initial
        First weights, shape ``(d, q)``.
    penalty
        $\lambda\ge0$.
    step_size
        $\eta>0$, at most $1/\|A\|^2$.
    steps
        Number of steps.
    callback
        Called with a `Progress` before every step: $\frac12\|AW-Y\|_F^2+\lambda\|W\|_*$. Where it
        returns True the descent stops.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import nuclear_descent
    >>> run = nuclear_descent(np.eye(2), np.diag([2.0, 0.1]), np.eye(2), penalty=0.5,
    ...                       step_size=0.1, steps=200)
    >>> run.singular_values[-1].round(1), (run.singular_values[-1] > 0.1).sum()
    (array([1.5, 0. ]), np.int64(1))
    """
    A = as_array(design, "design", ndim=2)
    Y = as_array(response, "response", shape=(A.shape[0], None))
    W = as_array(initial, "initial", shape=(A.shape[1], Y.shape[1]))
    weight, eta = as_real(penalty, "penalty", minimum=0.0), _step(step_size, A)
    H, B = A.T @ A, A.T @ Y
    values, stops = [], watcher(callback)
    for t in range(as_count(steps, "steps", minimum=0)):
        U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
        objective = 0.0 if callback is None else float(np.sum((A @ W - Y) ** 2))
        if stops(t, objective / 2 + weight * float(sigma.sum())):
            break
        values.append(sigma)
        W = W - eta * (H @ W - B + weight * U @ Vt)
    values.append(np.linalg.svd(W, compute_uv=False))
    return NuclearDescent(W, np.array(values))


def truncate(matrix: ArrayLike, rank: int) -> FloatArray:
    """Return the closest matrix of rank at most ``rank`` in Frobenius norm.

    Parameters
    ----------
    matrix
        Shape ``(n, m)``.
    rank
        At least 1; at most ``min(n, m)`` has an effect.

    Examples
    --------
    >>> from theorylab.matrix_sensing import truncate
    >>> truncate([[3.0, 0.0], [0.0, 1.0]], 1)
    array([[3., 0.],
           [0., 0.]])
    """
    return _truncate(as_array(matrix, "matrix", ndim=2), as_count(rank, "rank"))


def weighted_truncation(matrix: ArrayLike, metric: ArrayLike, rank: int) -> FloatArray:
    r"""Return $Q^{-1/2}T_r(Q^{1/2}B)$, the matrix of rank at most $r$ closest to $B$ in
    $\operatorname{tr}V^\top QV$.

    Parameters
    ----------
    matrix
        $B$, shape ``(d, q)``.
    metric
        $Q$, symmetric positive definite, shape ``(d, d)``.
    rank
        $r\ge1$.

    Raises
    ------
    ValueError
        If an argument is invalid or ``metric`` is not positive definite.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import weighted_truncation
    >>> weighted_truncation([[3.0, 0.0], [0.0, 1.0]], np.diag([1.0, 100.0]), 1)
    array([[0., 0.],
           [0., 1.]])
    """
    B = as_array(matrix, "matrix", ndim=2)
    d = B.shape[0]
    Q = as_symmetric(metric, "metric", size=d)
    values, vectors = np.linalg.eigh((Q + Q.T) / 2)
    if values[0] <= d * _EPS * values[-1]:
        raise ValueError(
            f"metric: expected a positive definite matrix, got the eigenvalue {values[0]}"
        )
    # Any S with S'S = Q serves in place of the symmetric root; this one is inverted entry by entry.
    roots = np.sqrt(values)[:, None]
    return np.asarray(
        vectors @ (_truncate(roots * (vectors.T @ B), as_count(rank, "rank")) / roots)
    )


@refuses_overflow("design")
def pruning_metric(design: ArrayLike, *, step_size: float, period: int) -> FloatArray:
    r"""Return $Q_p=I-(I-\eta A^\top A)^p$, the metric in which training with truncation every $p$
    steps is optimal.

    Parameters
    ----------
    design
        $A$, shape ``(n, d)``.
    step_size
        $\eta>0$, at most $1/\|A\|^2$.
    period
        $p\ge1$.

    Raises
    ------
    ValueError
        If an argument is invalid or the step is too large.

    Examples
    --------
    >>> from theorylab.matrix_sensing import pruning_metric
    >>> pruning_metric([[1.0, 0.0], [0.0, 0.5]], step_size=1.0, period=1)
    array([[1.  , 0.  ],
           [0.  , 0.25]])
    """
    A = as_array(design, "design", ndim=2)
    eta, p = _step(step_size, A), as_count(period, "period")
    _, sigma, Vt = np.linalg.svd(A)
    curvature = np.zeros(A.shape[1])
    curvature[: sigma.size] = sigma**2
    # 1 - (1 - x)^p without cancellation for small x; rounding may lift the largest x above 1.
    gains = -np.expm1(p * np.log1p(-np.minimum(eta * curvature, 1 - _EPS)))
    return np.asarray((Vt.T * gains) @ Vt)


@refuses_overflow("design", "response")
def trained_rank_pruning(
    design: ArrayLike,
    response: ArrayLike,
    *,
    rank: int,
    step_size: float,
    period: int,
    rounds: int = 10_000,
    tol: float = 1e-12,
    callback: Callback | None = None,
) -> PruningRun:
    r"""Alternate $p$ steps $W\leftarrow W-\eta A^\top(AW-Y)$ with $W\leftarrow T_r(W)$, from $W=0$.

    A round never increases the distance to $\hat W$ in the metric $Q_p$. Its minimizer $W_{Q_p}$ is
    a fixed point iff $\|Q_p(\hat W-W_{Q_p})\|\le\sigma_r(W_{Q_p})$.

    Parameters
    ----------
    design
        $A$ of full column rank, shape ``(n, d)``.
    response
        $Y$, shape ``(n, q)``.
    rank
        $r\ge1$.
    step_size
        $\eta>0$, at most $1/\|A\|^2$.
    period
        $p\ge1$, gradient steps between truncations.
    rounds
        Largest number of truncations.
    tol
        Stop when a round changes the weights by less than this, relative to them.
    callback
        Called with a `Progress` after every round: the loss, and the change that ``tol`` bounds.
        Where it returns True the run stops.

    Returns
    -------
    PruningRun
        Truncated weights, losses, status. A run that does not settle or is stopped warns.

    Raises
    ------
    ValueError
        If an argument is invalid or the step is too large.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import trained_rank_pruning
    >>> run = trained_rank_pruning(
    ...     np.eye(2), [[3.0, 0.0], [0.0, 1.0]], rank=1, step_size=0.5, period=3, rounds=50
    ... )
    >>> np.round(run.weights, 6)
    array([[3., 0.],
           [0., 0.]])
    """
    A = as_array(design, "design", ndim=2)
    Y = as_array(response, "response", shape=(A.shape[0], None))
    r, eta, p = as_count(rank, "rank"), _step(step_size, A), as_count(period, "period")
    rounds, tol = as_count(rounds, "rounds"), as_real(tol, "tol", above=0.0)
    H, B = A.T @ A, A.T @ Y
    W = np.zeros_like(B)
    losses = []
    change, stops, status = np.inf, watcher(callback), PruningStatus.NOT_CONVERGED
    for t in range(1, rounds + 1):
        previous = W
        for _ in range(p):
            W = W - eta * (H @ W - B)
        W = _truncate(W, r)
        losses.append(np.sum((A @ W - Y) ** 2))
        size = float(np.linalg.norm(W))
        change = float(np.linalg.norm(W - previous)) / size if size else 0.0
        if change < tol:
            return PruningRun(W, np.array(losses), change, PruningStatus.CONVERGED)
        if stops(t, float(losses[-1]), change):
            status = PruningStatus.STOPPED
            break
    warnings.warn(f"relative change {change:.1e}: {status.value}", RuntimeWarning, stacklevel=3)
    return PruningRun(W, np.array(losses), change, status)


@refuses_overflow("data", "encoder", "latent", "decoder")
def autoencoder_objective(
    data: ArrayLike, encoder: ArrayLike, latent: ArrayLike, decoder: ArrayLike, *, penalty: float
) -> tuple[float, float]:
    r"""Return the two terms $\|X-DMEX\|_F^2$ and $\lambda\|M\|_*$.

    Parameters
    ----------
    data
        $X$, shape ``(n, N)``.
    encoder, latent, decoder
        $E$, $M$, $D$, shapes ``(k, n)``, ``(k, k)``, ``(n, k)``.
    penalty
        $\lambda\ge0$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import autoencoder_objective
    >>> encoder, decoder = [[1.0, 0.0]], [[1.0], [0.0]]
    >>> autoencoder_objective(np.diag([2.0, 1.0]), encoder, [[0.5]], decoder, penalty=0.3)
    (2.0, 0.15)
    """
    X = as_array(data, "data", ndim=2)
    E = as_array(encoder, "encoder", shape=(None, X.shape[0]))
    k = E.shape[0]
    M = as_array(latent, "latent", shape=(k, k))
    D = as_array(decoder, "decoder", shape=(X.shape[0], k))
    weight = as_real(penalty, "penalty", minimum=0.0)
    return float(np.sum((X - D @ (M @ (E @ X))) ** 2)), weight * float(
        np.linalg.svd(M, compute_uv=False).sum()
    )


@refuses_overflow("data")
def low_rank_autoencoder(data: ArrayLike, width: int, *, penalty: float) -> LowRankAutoencoder:
    r"""Minimize $\|X-DMEX\|_F^2+\lambda\|M\|_*$ over $D^\top D=EE^\top=I_k$ and $M\in\mathbb
    R^{k\times k}$.

    $N=DME$ runs over all matrices of rank at most $k$, and $\|N\|_*=\|M\|_*$. With $b_i$ the
    singular values of $NX$, $\sum_ib_i/\sigma_i\le\|N\|_*$ (Gelfand and Naimark) and
    $\|X-NX\|_F^2\ge\sum_i(\sigma_i-b_i)^2$ (Mirsky), so the minimum is that of $\sum_{i\le
    k}(\sigma_i-b_i)^2+\lambda b_i/\sigma_i+\sum_{i>k}\sigma_i^2$.

    Parameters
    ----------
    data
        $X$, shape ``(n, N)``, of rank at least $k$.
    width
        $k$, at most the rank of ``data``.
    penalty
        $\lambda\ge0$.

    Returns
    -------
    LowRankAutoencoder
        The minimum, with gains $(1-\lambda/(2\sigma_i^2))_+$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import low_rank_autoencoder
    >>> low_rank_autoencoder(np.diag([2.0, 1.0]), 1, penalty=0.8).latent
    array([[0.9]])
    """
    X = as_array(data, "data", ndim=2)
    U, sigma, _ = np.linalg.svd(X, full_matrices=False)
    k = as_count(width, "width", maximum=int((sigma > max(X.shape) * _EPS * sigma[0]).sum()))
    weight = as_real(penalty, "penalty", minimum=0.0)
    gains = np.maximum(1 - weight / (2 * sigma[:k] ** 2), 0.0)
    value = np.sum((sigma[:k] * (1 - gains)) ** 2) + weight * gains.sum() + np.sum(sigma[k:] ** 2)
    return LowRankAutoencoder(U[:, :k].T.copy(), np.diag(gains), U[:, :k].copy(), float(value))


def _truncate(matrix: FloatArray, rank: int) -> FloatArray:
    U, sigma, Vt = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray((U[:, :rank] * sigma[:rank]) @ Vt[:rank])


def _step(step_size: float, design: FloatArray) -> float:
    largest = 1 / max(float(np.linalg.norm(design, 2)) ** 2, np.finfo(float).tiny)
    return as_real(step_size, "step_size", above=0.0, maximum=largest * (1 + 1e-12))
