r"""Equations that a noisy descent follows to a higher order than the gradient flow of its loss.

A step $x_{k+1}=x_k-\varepsilon g_j(x_k)$ along one of finitely many random gradients that are
affine, $g_j(x)=G_jz$, $z=(x,1)$, has moments $Z=\mathbb E zz^\top$ that obey a
linear recursion; a diffusion

$$dX=-DZ_1dt+\Sigma(X)^{1/2}dW,\qquad \operatorname{vec}\Sigma(x)=K\operatorname{vec}zz^\top$$

with an affine drift has moments that obey a linear differential equation. So both sides of a weak
error are known exactly, without sampling. With $\Sigma=\varepsilon\operatorname{Cov}g_j$ the
moments agree to order $\varepsilon$ for the drift $\nabla L$, L the mean loss, and to
$\varepsilon^2$ for the drift $\nabla(L+\frac\varepsilon4\|\nabla L\|^2)$.

Dropout on the output weights of a two-layer net is of this kind; its mean loss is the loss plus a
weight penalty. An epoch of descent through B batches, averaged over their orders, follows the loss
$L+\frac\varepsilon{4B}\sum_b\|\nabla L_b\|^2$ (Smith, Dherin, Barrett and De 2021). For a
sample of N points, expectations over all samples of a finite population are sums.

Papers: zhang2023-stochastic, geiping2021-stochastic, roberts2021-implicitly."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import expm, expm_frechet

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.bounds import power_of_two

__all__ = [
    "covariance_operator",
    "diffusion_moments",
    "drift_response",
    "dropout_averaged_loss",
    "dropout_gradients",
    "first_order_error",
    "recursion_moments",
    "second_order_drift",
]


_DIMENSION = 60  # of x, at most: operators on second moments have its fourth power
_MASKED = 10  # neurons, at most: their masks are enumerated


@refuses_overflow("features", "output_weights", "targets", "keep")
def dropout_averaged_loss(
    features: ArrayLike, output_weights: ArrayLike, targets: ArrayLike, *, keep: float
) -> float:
    r"""Return the mean loss of a two-layer net under dropout of its hidden neurons,
    $\frac1{2n}\|\Phi a-y\|^2+\frac{1-p}{2np}\sum_{ir}a_r^2\Phi_{ir}^2$.

    Parameters
    ----------
    features
        $\Phi$, shape (n, m): the hidden neurons on the inputs.
    output_weights, targets
        a, shape (m,), and y, shape (n,).
    keep
        p, the probability that a neuron is kept, and then multiplied by 1/p.

    Examples
    --------
    >>> from theorylab.implicit_regularization import dropout_averaged_loss
    >>> dropout_averaged_loss([[1.0, 2.0]], [1.0, 1.0], [3.0], keep=0.5)
    2.5
    """
    phi = as_array(features, "features", ndim=2)
    n, m = phi.shape
    a = as_array(output_weights, "output_weights", shape=(m,))
    y = as_array(targets, "targets", shape=(n,))
    p = as_real(keep, "keep", minimum=1e-9, maximum=1.0)
    residual, spread = phi @ a - y, np.sum((phi * a) ** 2)
    return float((residual @ residual + (1 - p) / p * spread) / (2 * n))


@refuses_overflow("features", "targets", "keep")
def dropout_gradients(
    features: ArrayLike, targets: ArrayLike, *, keep: float
) -> tuple[FloatArray, FloatArray]:
    r"""Return the gradients in the output weights under every dropout mask, shape (2^m, m, m + 1),
    as matrices that multiply $(a,1)$, and the probabilities of the masks, shape (2^m,).

    Parameters
    ----------
    features, targets, keep
        As for :func:`dropout_averaged_loss`; at most 10 neurons.

    Examples
    --------
    >>> from theorylab.implicit_regularization import dropout_gradients
    >>> gradients, probabilities = dropout_gradients([[1.0]], [3.0], keep=0.5)
    >>> gradients.tolist(), probabilities.tolist()
    ([[[0.0, 0.0]], [[4.0, -6.0]]], [0.5, 0.5])
    """
    phi = as_array(features, "features", ndim=2)
    n, m = phi.shape
    y = as_array(targets, "targets", shape=(n,))
    p = as_real(keep, "keep", minimum=1e-9, maximum=1.0)
    if m > _MASKED:
        raise ValueError(f"features: expected at most {_MASKED} columns, got {m}")
    kept = np.array(list(itertools.product([0.0, 1.0], repeat=m)))
    curvature = np.concatenate([phi.T @ phi, -(phi.T @ y)[:, None]], axis=1) / n
    scaled = kept / p
    gradients = scaled[:, :, None] * curvature
    gradients[:, :, :m] *= scaled[:, None, :]
    return gradients + 0.0, np.prod(np.where(kept > 0, p, 1 - p), axis=1)


@refuses_overflow("gradients", "probabilities", "start", "step_size", "steps")
def recursion_moments(
    gradients: ArrayLike,
    probabilities: ArrayLike,
    start: ArrayLike,
    *,
    step_size: float,
    steps: int,
) -> FloatArray:
    r"""Return $\mathbb E zz^\top$, $z=(x,1)$, shape (d + 1, d + 1), after some steps
    $x\leftarrow x-\varepsilon G_jz$ with independent j.

    Parameters
    ----------
    gradients, probabilities
        The $G_j$, shape (k, d, d + 1), d at most 60, and the law of j, shape (k,).
    start
        x at first, shape (d,).
    step_size, steps
        $\varepsilon$, and how many.

    Examples
    --------
    >>> from theorylab.implicit_regularization import recursion_moments
    >>> recursion_moments([[[0, 2]], [[0, -2]]], [0.5, 0.5], [1.0], step_size=0.5, steps=3)
    array([[4., 1.],
           [1., 1.]])
    """
    G, w = _law(gradients, probabilities)
    d = _few(G.shape[1], "gradients")
    z = np.append(as_array(start, "start", shape=(d,)), 1.0)
    step = as_real(step_size, "step_size", minimum=0.0)
    count = as_count(steps, "steps", minimum=0)
    maps = np.zeros((len(G), d + 1, d + 1)) + np.eye(d + 1)
    maps[:, :d] -= step * G
    pairs = np.tensordot(w[:, None, None] * maps, maps, (0, 0))
    once = pairs.transpose(0, 2, 1, 3).reshape((d + 1) ** 2, -1)
    moments = np.linalg.matrix_power(once, count) @ np.outer(z, z).ravel()
    return np.asarray(moments.reshape(d + 1, d + 1))


@refuses_overflow("first", "second", "probabilities")
def covariance_operator(
    first: ArrayLike, second: ArrayLike, probabilities: ArrayLike
) -> FloatArray:
    r"""Return the K, shape (d^2, (d + 1)^2), for which the covariance of the random vectors
    $A_jz$ and $B_jz$ is the matrix of the entries $K\operatorname{vec}zz^\top$,
    row by row.

    Parameters
    ----------
    first, second, probabilities
        The $A_j$ and $B_j$, shapes (k, d, d + 1), d at most 60, and the law of j, shape (k,).

    Examples
    --------
    >>> from theorylab.implicit_regularization import covariance_operator
    >>> covariance_operator([[[1, 2]], [[1, -2]]], [[[1, 2]], [[1, -2]]], [0.5, 0.5])
    array([[0., 0., 0., 4.]])
    """
    A, w = _law(first, probabilities, "first")
    B = as_array(second, "second", shape=A.shape)
    d = _few(A.shape[1], "first")
    A, B = (M - np.tensordot(w, M, 1) for M in (A, B))
    return np.asarray(np.einsum("k,kab,kcd->acbd", w, A, B).reshape(d * d, -1))


@refuses_overflow("drift", "step_size")
def second_order_drift(drift: ArrayLike, *, step_size: float) -> FloatArray:
    r"""Return the gradient of $L+\frac\varepsilon4\|\nabla L\|^2$ for a quadratic L, as a
    matrix that multiplies $(x,1)$.

    Parameters
    ----------
    drift
        The gradient of L, shape (d, d + 1): its first d columns are the Hessian.
    step_size
        $\varepsilon$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import second_order_drift
    >>> second_order_drift([[2.0, 1.0]], step_size=0.5)
    array([[3. , 1.5]])
    """
    D = _affine(drift, "drift")
    return np.asarray(D + as_real(step_size, "step_size", minimum=0.0) / 2 * D[:, :-1] @ D)


@refuses_overflow("drift", "covariance", "start", "time")
def diffusion_moments(
    drift: ArrayLike, covariance: ArrayLike, start: ArrayLike, *, time: float
) -> FloatArray:
    r"""Return $\mathbb E zz^\top$, $z=(X,1)$, shape (d + 1, d + 1), for the diffusion
    $dX=-Dz\,dt+\Sigma^{1/2}dW$ at a time, by a matrix exponential.

    Parameters
    ----------
    drift
        D, shape (d, d + 1), d at most 60.
    covariance
        Operator K, shape (d^2, (d + 1)^2), as by :func:`covariance_operator`, times its scale.
    start, time
        X at first, shape (d,), and the time.

    Examples
    --------
    >>> from theorylab.implicit_regularization import diffusion_moments
    >>> diffusion_moments([[1.0, 0.0]], [[0, 0, 0, 2]], [0.0], time=20.0).round(9)
    array([[1., 0.],
           [0., 1.]])
    """
    d = _few(len(_affine(drift, "drift")), "drift")
    K = as_array(covariance, "covariance", shape=(d * d, (d + 1) ** 2))
    flow, z, t, units = _flow(drift, start, time, float(np.abs(K[:, -1]).max()))
    K, eye = K / units[0] * (np.outer(units, units) / units[0]).ravel(), np.eye(d + 1)
    generator = -np.einsum("ab,cd->acbd", flow, eye) - np.einsum("ab,cd->acbd", eye, flow)
    generator[:d, :d] += K.reshape(d, d, d + 1, d + 1)
    generator = t * generator.reshape((d + 1) ** 2, -1)
    if not np.abs(generator).sum(axis=0).max() < 1e6:
        raise ValueError("drift, covariance, time: expected rates times the time below 1e6")
    moments = (expm(generator) @ np.outer(z, z).ravel()).reshape(d + 1, d + 1)
    return np.asarray(units[:, None] * moments * units)


@refuses_overflow("drift", "start", "time")
def first_order_error(drift: ArrayLike, start: ArrayLike, *, time: float) -> FloatArray:
    r"""Return the limit of $(\mathbb E z_kz_k^\top-\mathbb E ZZ^\top)/\varepsilon$,
    $k\varepsilon=T$, between a descent with random affine gradients and its diffusion of
    order 1, shape (d + 1, d + 1): $-\frac T2(D^2yy^\top+yy^\top D^{2\top})$, y the gradient
    flow at T. The noise has no part in it.

    Parameters
    ----------
    drift
        Mean gradient as a matrix that multiplies $(x,1)$, shape (d, d + 1); D is this with
        a row of zeros.
    start, time
        x at first, shape (d,), and T.

    Examples
    --------
    >>> from theorylab.implicit_regularization import first_order_error
    >>> first_order_error([[1.0, 0.0]], [1.0], time=1.0).round(4).tolist()
    [[-0.1353, -0.1839], [-0.1839, 0.0]]
    """
    flow, z, t, units = _flow(drift, start, time)
    y = expm(-t * flow) @ z
    change = np.outer(flow @ (flow @ y), y)
    return np.asarray(units[:, None] * (-t / 2 * (change + change.T)) * units + 0.0)


@refuses_overflow("drift", "change", "start", "time")
def drift_response(
    drift: ArrayLike, change: ArrayLike, start: ArrayLike, *, time: float
) -> FloatArray:
    r"""Return the derivative of $yy^\top$, $\dot y=-Dy$, in a direction of D, shape
    (d + 1, d + 1): to first order, what a small change of the drift does to the moments.

    Parameters
    ----------
    drift, change
        D and its direction, as matrices that multiply $(x,1)$, shapes (d, d + 1).
    start, time
        x at first, shape (d,), and the time.

    Examples
    --------
    >>> from theorylab.implicit_regularization import drift_response
    >>> drift_response([[0.0, 0.0]], [[0.0, 1.0]], [2.0], time=3.0)
    array([[-12.,  -3.],
           [ -3.,   0.]])
    """
    flow, z, t, units = _flow(drift, start, time)
    V = np.zeros_like(flow)
    moves = as_array(change, "change", shape=flow[:-1].shape)
    size = power_of_two(moves)
    V[:-1] = moves / size * (units / units[0])
    power, derivative = expm_frechet(-t * flow, -t * V)
    moved = np.outer(derivative @ z, power @ z)
    return np.asarray(units[:, None] * (size * (moved + moved.T)) * units)


def _flow(
    drift: ArrayLike, start: ArrayLike, time: float, spread: float = 0.0
) -> tuple[FloatArray, FloatArray, float, FloatArray]:
    """Matrix of the flow of z and z at first, in units of what x can reach, the time, and the units
    of the entries of z: variances grow at the rate spread where x is 0."""
    D = _affine(drift, "drift")
    t = as_real(time, "time", minimum=0.0)
    x = as_array(start, "start", shape=(len(D),))
    reach = np.array([*x, *(t * D[:, -1]), math.sqrt(t * spread)])
    units = np.append(np.full(len(D), power_of_two(reach)), 1)
    flow = np.zeros((len(units), len(units)))
    flow[:-1] = D * (units / units[0])
    if not t * np.abs(flow).sum(axis=0).max() < 1e6:
        raise ValueError("drift, time: expected rates times the time below 1e6")
    return flow, np.append(x, 1.0) / units, t, units


def _few(d: int, name: str) -> int:
    if d > _DIMENSION:
        raise ValueError(f"{name}: expected at most {_DIMENSION} coordinates of x, got {d}")
    return d


def _affine(drift: ArrayLike, name: str) -> FloatArray:
    D = as_array(drift, name, ndim=2)
    if D.shape[1] != len(D) + 1:
        raise ValueError(f"{name}: expected shape (d, d + 1), got {D.shape}")
    return D


def _law(
    gradients: ArrayLike, probabilities: ArrayLike, name: str = "gradients"
) -> tuple[FloatArray, FloatArray]:
    G = as_array(gradients, name, ndim=3)
    if G.shape[2] != G.shape[1] + 1:
        raise ValueError(f"{name}: expected shape (k, d, d + 1), got {G.shape}")
    w = as_array(probabilities, "probabilities", shape=(len(G),), nonnegative=True)
    if abs(w.sum() - 1) > 1e-9:
        raise ValueError(f"probabilities: expected a sum of 1, got {w.sum()}")
    return G, w / w.sum()
