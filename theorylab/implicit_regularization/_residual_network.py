r"""Residual networks $h_k=h_{k-1}+V_k\tanh(W_kh_{k-1}/\sqrt q)/(L\sqrt m)$: start, outputs and
gradients."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, refuses_overflow
from theorylab.numerics.compiled import compiled

__all__ = ["as_network", "forward", "gradients", "residual_outputs", "tied_network"]


def tied_network(
    width: int, *, depth: int, hidden: int, inputs: int, outputs: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    r"""Return the standard start $V_k=0$, $W_k=W$ Gaussian, A and B the first inputs
    and the last outputs of the hidden coordinates.

    Parameters
    ----------
    width, depth, hidden, inputs, outputs
        m, L, q, d and d', of which neither exceeds q.
    seed
        Of the Gaussian entries.

    Returns
    -------
    V, W, A, B
        (L, q, m), (L, m, q), (q, d), (d', q).

    Examples
    --------
    >>> from theorylab.implicit_regularization import tied_network
    >>> V, W, A, B = tied_network(5, depth=4, hidden=3, inputs=2, outputs=1, seed=0)
    >>> V.shape, W.shape, A.shape, B.tolist()
    ((4, 3, 5), (4, 5, 3), (3, 2), [[0.0, 0.0, 1.0]])
    """
    q, m = as_count(hidden, "hidden", maximum=1000), as_count(width, "width", maximum=10_000)
    L = as_count(depth, "depth", maximum=10_000)
    d = as_count(inputs, "inputs", maximum=q)
    out = as_count(outputs, "outputs", maximum=q)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    W = np.tile(rng.standard_normal((m, q)), (L, 1, 1))
    return np.zeros((L, q, m)), W, np.eye(q, d), np.eye(q)[q - out :]


@refuses_overflow("V", "W", "A", "B", "X")
def residual_outputs(
    V: ArrayLike, W: ArrayLike, A: ArrayLike, B: ArrayLike, X: ArrayLike
) -> FloatArray:
    """Return the outputs F(x), shape (n, d').

    Parameters
    ----------
    V, W, A, B
        Weights of shapes (L, q, m), (L, m, q), (q, d) and (d', q).
    X
        (n, d).

    Examples
    --------
    >>> from theorylab.implicit_regularization import residual_outputs
    >>> V = W = [[[2.0]], [[9.0]]]
    >>> residual_outputs(V, W, [[1.0]], [[1.0]], [[9.0]]).round(6)
    array([[14.5]])
    """
    net, data = as_network(V, W, A, B, X)
    return np.asarray(forward(*net, data)[-1] @ net[3].T)


def as_network(
    V: ArrayLike, W: ArrayLike, A: ArrayLike, B: ArrayLike, X: ArrayLike
) -> tuple[tuple[FloatArray, FloatArray, FloatArray, FloatArray], FloatArray]:
    """Return checked weights, and inputs."""
    v = as_array(V, "V", ndim=3)
    w = as_array(W, "W", shape=(len(v), v.shape[2], v.shape[1]))
    a = as_array(A, "A", shape=(v.shape[1], None))
    b = as_array(B, "B", shape=(None, v.shape[1]))
    data = as_array(X, "X", shape=(None, a.shape[1]))
    return (v, w, a, b), data


def forward(
    V: FloatArray, W: FloatArray, A: FloatArray, B: FloatArray, X: FloatArray
) -> FloatArray:
    """Return all hidden layers, shape (L + 1, n, q)."""
    L, q, m = V.shape
    hidden = np.empty((L + 1, len(X), q))
    hidden[0] = X @ A.T
    for k in range(L):
        pre = hidden[k] @ W[k].T / math.sqrt(q)
        hidden[k + 1] = hidden[k] + np.tanh(pre) @ V[k].T / (L * math.sqrt(m))
    return hidden


def gradients(
    V: FloatArray,
    W: FloatArray,
    A: FloatArray,
    B: FloatArray,
    X: FloatArray,
    Y: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return the gradients of the loss in all weights."""
    dV, dW = np.zeros_like(V), np.zeros_like(W)
    first = X @ A.T
    last, active, hidden, slopes = _layers(V, W, first)
    residual = 2 / len(X) * (last @ B.T - Y)
    back = np.ascontiguousarray(residual @ B)
    _backward(V, W, hidden, active, slopes, back, dV, dW)
    return dV, dW, back.T @ X, residual.T @ last


@compiled
def _layers(V, W, first):  # type: ignore[no-untyped-def]
    L, q, m = V.shape
    n = first.shape[0]
    hidden = np.empty((L, n, q))
    active = np.empty((L, n, m))
    slopes = np.empty((L, n, m))
    h = first.copy()
    for k in range(L):
        for i in range(n):
            for a in range(q):
                hidden[k, i, a] = h[i, a]
            for j in range(m):
                z = 0.0
                for a in range(q):
                    z += W[k, j, a] * h[i, a]
                z /= math.sqrt(q)
                active[k, i, j] = math.tanh(z)
                slopes[k, i, j] = 1 - active[k, i, j] ** 2
            for a in range(q):
                step = 0.0
                for j in range(m):
                    step += V[k, a, j] * active[k, i, j]
                h[i, a] += step / (L * math.sqrt(m))
    return h, active, hidden, slopes


@compiled
def _backward(V, W, hidden, active, slopes, back, dV, dW):  # type: ignore[no-untyped-def]
    """Fill the gradients of the layers; ``back`` becomes the gradient at the first one."""
    L, q, m = V.shape
    n = back.shape[0]
    unit = 1 / (L * math.sqrt(m))
    inner = np.empty(m)
    for k in range(L - 1, -1, -1):
        for i in range(n):
            for j in range(m):
                inner[j] = 0.0
                for a in range(q):
                    dV[k, a, j] += unit * back[i, a] * active[k, i, j]
                    inner[j] += V[k, a, j] * back[i, a]
                inner[j] *= unit * slopes[k, i, j] / math.sqrt(q)
                for a in range(q):
                    dW[k, j, a] += inner[j] * hidden[k, i, a]
            for a in range(q):
                step = 0.0
                for j in range(m):
                    step += W[k, j, a] * inner[j]
                back[i, a] += step
