r"""Ridge in a feature map: gradients through its solution, and bounds of its evidence.

A network $f(x)=a^\top\tanh(Wx)/\sqrt m$ linearised at its parameters is linear in the
tangent features $\varphi(x)=\partial_{(a,W)}f(x)$. For a few support points $(X_s,y_s)$
the inner problem $\mathcal L_i=\frac12\|\varphi(X_s)\theta-y_s\|^2+\frac\lambda2\|\theta\|^2$
is strongly convex, and the gradient of an outer loss at its solution is

$$\nabla_{(X_s,y_s)}\mathcal L_o(\theta^\star)=-\partial_{(X_s,y_s)}\langle q,
\nabla_\theta\mathcal L_i(\theta^\star)\rangle,\qquad
(\varphi^\top\varphi+\lambda I)q=\nabla_\theta\mathcal L_o(\theta^\star),$$

q held fixed (loo2023-dataset).

Bayesian regression with kernel K, weights of prior variance v and noise variance s^2, has minus
twice its log evidence $y^\top(s^2I+vK)^{-1}y+\log\det(I+vK/s^2)$ up to a constant. The best
posterior $N(\mu,\tau^2I)$ on D features, the likelihood counted $\kappa$ times, gives
with $w=\kappa v$

$$J_\kappa=\kappa\,y^\top(s^2I+wK)^{-1}y+D\log\Big(1+\frac{w\operatorname{tr}K}{s^2D}\Big)$$

for minus twice the bound (harvey2025-learning; derived). The derivative in w of the last term over
$\kappa$ falls with $\kappa$ and is at $\kappa=1$ at least that of the log
determinant, by concavity: the best w rises with $\kappa$, from a value that is at most the
evidence's. The two derivatives agree at v, so that both objectives are stationary there, for

$$\kappa^\star=\frac{v\operatorname{tr}K}{s^2+v\operatorname{tr}K/D}\Big/
\operatorname{tr}\big(vK(s^2I+vK)^{-1}\big).$$"""

from __future__ import annotations

import math

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
from theorylab.numerics.results import result

__all__ = [
    "DistillationGradient",
    "HeadGradient",
    "distillation_gradient",
    "distillation_loss",
    "emphasized_objective",
    "evidence_objective",
    "head_gradient",
    "matching_emphasis",
    "tangent_features",
    "tangent_pullback",
]

_PARAMETERS = 12_000  # of a network, the square of which a Hessian has


@refuses_overflow("X", "W", "a")
def tangent_features(X: ArrayLike, W: ArrayLike, a: ArrayLike) -> FloatArray:
    r"""Return the tangent features of $a^\top\tanh(Wx)/\sqrt m$, shape (n, m + m d): the
    derivative in a, then in W row by row.

    Parameters
    ----------
    X
        (n, d) inputs.
    W, a
        (m, d) and (m,) parameters.

    Examples
    --------
    >>> from theorylab.random_features import tangent_features
    >>> tangent_features([[3.0]], [[0.0]], [2.0]).tolist()
    [[0.0, 6.0]]
    """
    X, W, a = _network(X, W, a)
    value, slope = _layer(X, W)
    inner = (slope * a)[:, :, None] * X[:, None, :]
    features = np.concatenate([value, inner.reshape(len(X), -1)], axis=1)
    scaled: FloatArray = features / math.sqrt(len(W))
    return scaled


@refuses_overflow("X", "W", "a", "G")
def tangent_pullback(X: ArrayLike, W: ArrayLike, a: ArrayLike, G: ArrayLike) -> FloatArray:
    r"""Return the gradient in X, shape (n, d), of $\langle G,\varphi(X)\rangle$.

    Parameters
    ----------
    X, W, a
        As in :func:`tangent_features`.
    G
        (n, m + m d).

    Examples
    --------
    >>> from theorylab.random_features import tangent_pullback
    >>> tangent_pullback([[3.0]], [[0.0]], [2.0], [[0.0, 1.0]]).tolist()
    [[2.0]]
    """
    X, W, a = _network(X, W, a)
    m, d = W.shape
    return _pullback(X, W, a, as_array(G, "G", shape=(len(X), m + m * d)))


def _pullback(X: FloatArray, W: FloatArray, a: FloatArray, G: FloatArray) -> FloatArray:
    m, d = W.shape
    G = G / math.sqrt(m)
    outer, inner = G[:, :m], G[:, m:].reshape(len(X), m, d)
    value, slope = _layer(X, W)
    along = np.einsum("nmd,nd->nm", inner, X)
    # The derivative of 1 - tanh^2 is -2 tanh (1 - tanh^2).
    gradient: FloatArray = (outer * slope - 2 * a * value * slope * along) @ W
    gradient += np.einsum("nm,nmd->nd", slope * a, inner)
    return gradient


@result
class DistillationGradient:
    """Outer loss of a support set, and its gradient.

    Attributes
    ----------
    loss
        Mean squared error, halved.
    inputs, labels
        Its gradient in the support points, (k, d), and in their labels, (k,).
    weights, adjoint
        The solution of the inner problem and q.
    curvature
        Least eigenvalue of the inner Hessian.
    """

    loss: float
    inputs: FloatArray
    labels: FloatArray
    weights: FloatArray
    adjoint: FloatArray
    curvature: float


@refuses_overflow("support", "labels", "X", "y", "W", "a", "ridge")
def distillation_loss(
    support: ArrayLike,
    labels: ArrayLike,
    X: ArrayLike,
    y: ArrayLike,
    *,
    W: ArrayLike,
    a: ArrayLike,
    ridge: float,
) -> float:
    """Return half the mean squared error, on data, of ridge in tangent features on a support set.

    Parameters
    ----------
    support, labels
        (k, d) and (k,).
    X, y
        (n, d) and (n,) data of the outer loss.
    W, a
        Parameters of the network.
    ridge
        Positive.

    Examples
    --------
    >>> from theorylab.random_features import distillation_loss
    >>> distillation_loss([[1.0]], [0.0], [[1.0]], [2.0], W=[[0.5]], a=[1.0], ridge=0.1)
    2.0
    """
    points, target = _support(support, labels)
    ridge = as_real(ridge, "ridge", above=0.0)
    inner = tangent_features(points, W, a)
    dual = np.linalg.solve(inner @ inner.T + ridge * np.eye(len(inner)), target)
    outer = tangent_features(X, W, a)
    y = as_array(y, "y", shape=(len(outer),))
    return float(np.mean((outer @ (inner.T @ dual) - y) ** 2)) / 2


@refuses_overflow("support", "labels", "X", "y", "W", "a", "ridge")
def distillation_gradient(
    support: ArrayLike,
    labels: ArrayLike,
    X: ArrayLike,
    y: ArrayLike,
    *,
    W: ArrayLike,
    a: ArrayLike,
    ridge: float,
    shift: ArrayLike | None = None,
    steps: int | None = None,
) -> DistillationGradient:
    r"""Return the gradient of :func:`distillation_loss` by implicit differentiation.

    Parameters
    ----------
    support, labels, X, y, W, a, ridge
        As in :func:`distillation_loss`.
    shift
        (m + m d,) added to the solution of the inner problem, to see what an inexact one costs.
    steps
        Of gradient descent for q in place of a solver: the error is then
        $(I-H/\|H\|)^{steps}q$, at most $(1-\lambda/\|H\|)^{steps}$ of q.

    Raises
    ------
    ValueError
        For malformed arguments, or a network of more than 12,000 parameters, m + m d, of which the
        Hessian has the square.

    Examples
    --------
    >>> from theorylab.random_features import distillation_gradient
    >>> found = distillation_gradient([[0.0]], [1.0], [[1.0]], [1.0], W=[[0.5]], a=[0.0], ridge=0.1)
    >>> found.labels.tolist()
    [0.0]
    """
    points, target = _support(support, labels)
    ridge = as_real(ridge, "ridge", above=0.0)
    points, W, a = _network(points, W, a)
    if (size := a.size + W.size) > _PARAMETERS:
        raise ValueError(
            f"W: expected a network of at most {_PARAMETERS} parameters, of which the Hessian has "
            f"the square, got {size}"
        )
    inner, outer = tangent_features(points, W, a), tangent_features(X, W, a)
    y = as_array(y, "y", shape=(len(outer),))
    hessian = inner.T @ inner
    hessian[np.diag_indices_from(hessian)] += ridge
    theta = _solve(hessian, inner.T @ target)
    if shift is not None:
        theta = theta + as_array(shift, "shift", shape=theta.shape)
    residual = outer @ theta - y
    force = outer.T @ residual / len(y)
    # Of fewer points than features, the other Gram matrix has all eigenvalues but the ridge.
    few = len(inner) < len(hessian)
    spectrum = np.linalg.eigvalsh(inner @ inner.T + ridge * np.eye(len(inner)) if few else hessian)
    q: FloatArray = np.zeros(force.shape)
    if steps is None:
        q = _solve(hessian, force)
    else:
        for _ in range(as_count(steps, "steps", minimum=0)):
            q = q + (force - hessian @ q) / spectrum[-1]
    along, miss = inner @ q, inner @ theta - target
    # d<q, gradient of the inner loss> = <dPhi, miss q' + (Phi q) theta'>.
    G = -(np.outer(miss, q) + np.outer(along, theta))
    return DistillationGradient(
        float(np.mean(residual**2)) / 2,
        _pullback(points, W, a, G),
        along,
        theta,
        q,
        ridge if few else float(spectrum[0]),
    )


@result
class HeadGradient:
    """Loss of a body and a head, and its partial gradient in the body.

    Attributes
    ----------
    loss
        The inner loss.
    body
        (m, d) gradient in W at a fixed head.
    head
        (m,) the head.
    """

    loss: float
    body: FloatArray
    head: FloatArray


@refuses_overflow("X", "y", "W", "ridge")
def head_gradient(
    X: ArrayLike, y: ArrayLike, W: ArrayLike, *, ridge: float, shift: ArrayLike | None = None
) -> HeadGradient:
    r"""Return $\frac12\|\tanh(XW^\top)v-y\|^2+\frac\lambda2\|v\|^2$ and its partial gradient
    in W at the best head v, which is the whole gradient of the loss minimised over heads.

    Parameters
    ----------
    X, y
        (n, d) and (n,).
    W
        (m, d) body.
    ridge
        Positive.
    shift
        (m,) added to the best head.

    Examples
    --------
    >>> from theorylab.random_features import head_gradient
    >>> head_gradient([[1.0]], [2.0], [[0.0]], ridge=0.5).loss
    2.0
    """
    X = as_array(X, "X", ndim=2)
    W = as_array(W, "W", shape=(None, X.shape[1]))
    y = as_array(y, "y", shape=(len(X),))
    ridge = as_real(ridge, "ridge", above=0.0)
    value, slope = _layer(X, W)
    v = _solve(value.T @ value + ridge * np.eye(len(W)), value.T @ y)
    if shift is not None:
        v = v + as_array(shift, "shift", shape=v.shape)
    miss = value @ v - y
    body = (slope * v * miss[:, None]).T @ X
    return HeadGradient(float(miss @ miss + ridge * v @ v) / 2, body, v)


@refuses_overflow("K", "y", "prior_variances", "noise_variance")
def evidence_objective(
    K: ArrayLike, y: ArrayLike, prior_variances: ArrayLike, *, noise_variance: float
) -> FloatArray:
    r"""Return minus twice the log evidence at each prior variance, less
    $n\log(2\pi s^2)$.

    Parameters
    ----------
    K
        (n, n) kernel matrix.
    y
        (n,) responses.
    prior_variances
        (r,) positive.
    noise_variance
        s^2, positive.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import evidence_objective
    >>> bool(np.isclose(evidence_objective([[1.0]], [2.0], [1.0], noise_variance=1.0)[0],
    ...                 2 + np.log(2)))
    True
    """
    values, power, v, noise = _kernel(K, y, prior_variances, noise_variance)
    fit = np.sum(power / (noise + v[:, None] * values), axis=1)
    objective: FloatArray = fit + np.sum(np.log1p(v[:, None] * (values / noise)), axis=1)
    return objective


@refuses_overflow("K", "y", "prior_variances", "noise_variance")
def emphasized_objective(
    K: ArrayLike,
    y: ArrayLike,
    prior_variances: ArrayLike,
    *,
    n_features: int,
    emphasis: float,
    noise_variance: float,
) -> FloatArray:
    r"""Return minus twice the evidence lower bound at each prior variance, less
    $\kappa n\log(2\pi s^2)$: the likelihood counted ``emphasis`` times, the posterior the
    best $N(\mu,\tau^2I)$.

    Parameters
    ----------
    K, y, prior_variances, noise_variance
        As in :func:`evidence_objective`.
    n_features
        D, at least the rank of K.
    emphasis
        $\kappa>0$; 1 is the plain bound.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import emphasized_objective
    >>> bool(np.isclose(emphasized_objective([[1.0]], [2.0], [1.0], n_features=1, emphasis=1.0,
    ...                                      noise_variance=1.0)[0], 2 + np.log(2)))
    True
    """
    values, power, v, noise = _kernel(K, y, prior_variances, noise_variance)
    D = _at_least_rank(n_features, values)
    kappa = as_real(emphasis, "emphasis", above=0.0)
    w = kappa * v
    fit = kappa * np.sum(power / (noise + w[:, None] * values), axis=1)
    objective: FloatArray = fit + D * np.log1p(w * (values.sum() / noise / D))
    return objective


@refuses_overflow("K", "prior_variance", "noise_variance")
def matching_emphasis(
    K: ArrayLike, prior_variance: float, *, n_features: int, noise_variance: float
) -> float:
    r"""Return $\kappa^\star\ge1$, at which the emphasised objective is stationary in
    $\kappa v$ where the evidence is.

    Parameters
    ----------
    K, noise_variance
        As in :func:`evidence_objective`; K is not zero.
    prior_variance
        v, a stationary point of the evidence.
    n_features
        D, at least the rank of K.

    Examples
    --------
    >>> from theorylab.random_features import matching_emphasis
    >>> matching_emphasis([[1.0]], 1.0, n_features=1, noise_variance=1.0)
    1.0
    """
    v = as_real(prior_variance, "prior_variance", above=0.0)
    K = as_symmetric(K, "K")
    values, _, _, noise = _kernel(K, np.zeros(len(K)), [v], noise_variance)
    if not values.any():
        raise ValueError("K: expected a matrix that is not zero, got zeros")
    D = _at_least_rank(n_features, values)
    scaled = values * (v / noise)
    return float(scaled.sum() / (1 + scaled.sum() / D) / np.sum(scaled / (1 + scaled)))


def _kernel(
    K: ArrayLike, y: ArrayLike, prior_variances: ArrayLike, noise_variance: float
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Return the eigenvalues, the squared coefficients of y, and the valid numbers."""
    K = as_symmetric(K, "K")
    y = as_array(y, "y", shape=(len(K),))
    v = as_array(prior_variances, "prior_variances", ndim=1, positive=True)
    noise = as_real(noise_variance, "noise_variance", above=0.0)
    values, vectors = np.linalg.eigh(K)
    if values[0] < -1e-6 * np.abs(values).max():
        raise ValueError(f"K: expected a non-negative matrix, got the eigenvalue {values[0]}")
    return np.maximum(values, 0.0), (vectors.T @ y) ** 2, v, noise


def _at_least_rank(n_features: int, values: FloatArray) -> int:
    D = as_count(n_features, "n_features")
    rank = int(np.count_nonzero(values > 1e-6 * values.max()))
    if rank > D:
        raise ValueError(f"n_features: expected at least {rank}, the rank of K, got {D}")
    return D


def _network(X: ArrayLike, W: ArrayLike, a: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    W = as_array(W, "W", ndim=2)
    X = as_array(X, "X", shape=(None, W.shape[1]))
    return X, W, as_array(a, "a", shape=(len(W),))


def _solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    return np.linalg.solve(matrix, right).astype(np.float64, copy=False)


def _layer(X: FloatArray, W: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return tanh of the products and its derivative."""
    value = np.tanh(X @ W.T)
    return value, 1 - value**2


def _support(support: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, FloatArray]:
    points = as_array(support, "support", ndim=2)
    return points, as_array(labels, "labels", shape=(len(points),))
