r"""Batch-normalised linear networks with orthogonal weights: they turn batches into isometries.

A batch of d samples in d features is a square X, rows being features. Layers are
$X'=\mathrm{BN}(WX)$, W orthogonal, where BN divides each row by its norm (no centring). The
isometry gap

$$\phi(X)=\log\frac{\|X\|_F^2}d-\frac1d\log\det X^\top X\ge0$$

vanishes for multiples of orthogonal matrices only; W does not change it, and BN lowers it by the
logarithm of the ratio of the arithmetic to the geometric mean of the squared norms of the rows.

*Forward* (derived; the published statement has the same form with an unspecified constant). Let
$\lambda$ be the eigenvalues of $XX^\top$, of mean 1, w uniform on the sphere and
$y=\sum_j\lambda_jw_j^2\le d$. A layer with W uniform lowers the gap by
$\mathbb E[y-1-\log y]\ge\mathbb E(y-1)^2/(2d)=\sum_j(\lambda_j-1)^2/(d^2(d+2))$ on average,
and $\phi\le(\frac32+d\phi)\frac1d\sum_j(\lambda_j-1)^2$, hence
$\mathbb E\phi(X_\ell)\le\phi(X_0)(1-1/k)^\ell$, $k=d(d+2)(\frac32+d\phi(X_0))$. Near
an isometry the factor a layer is $d/(d+2)$.

*Backward* (derived). BN maps the gradient g of a normalised row r to
$(g-\langle g,r\rangle r)/|\cdot|$, the norm being that of the row before. On isometries the
matrix $A=GX^\top$ therefore loses its diagonal and is turned by W: its antisymmetric part is
kept for ever, its symmetric part falls by $d/(d+2)$ a layer, on average of the square.

Paper: meterez2024-towards."""

from __future__ import annotations

import math

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
from theorylab.numerics.results import result

__all__ = [
    "BatchNormSignals",
    "batch_norm_signals",
    "gap_decay_length",
    "gradient_survival",
    "isometry_gap",
    "normalise_rows",
    "random_rotations",
]


@result
class BatchNormSignals:
    r"""What a batch and a gradient do in a batch-normalised linear network of L layers.

    Attributes
    ----------
    representations
        (..., L + 1, d, n): the batch, and the output of each layer.
    row_norms
        (..., L, d): the norms by which each layer divides.
    gradients
        (..., L + 1, d, n): of the loss in each representation.
    weight_gradients
        (..., L): Frobenius norms of the gradients in the weights of each layer.
    """

    representations: FloatArray
    row_norms: FloatArray
    gradients: FloatArray
    weight_gradients: FloatArray


def isometry_gap(X: ArrayLike) -> FloatArray:
    r"""Return $\phi(X)$; infinite for matrices that are singular in float64.

    Parameters
    ----------
    X
        (..., d, d).

    Examples
    --------
    >>> from theorylab.random_features import isometry_gap
    >>> isometry_gap([[[0, 2], [-2, 0]], [[2, 0], [0, 1]]]).round(6).tolist()
    [0.0, 0.223144]
    """
    A = _matrices(X, "X")
    if A.shape[-1] != A.shape[-2]:
        raise ValueError(f"X: expected square matrices, got shape {A.shape}")
    d = A.shape[-1]
    scale = np.abs(A).max(axis=(-2, -1), keepdims=True)
    if (scale == 0).any():
        raise ValueError("X: expected no matrix of zeros")
    A = A / scale
    power = np.sum(A**2, axis=(-2, -1)) / d
    return np.asarray(np.maximum(np.log(power) - 2 / d * np.linalg.slogdet(A)[1], 0.0))


def normalise_rows(X: ArrayLike) -> FloatArray:
    """Return X with its rows divided by their norms: batch normalisation without centring.

    Parameters
    ----------
    X
        (..., d, n), no row of zeros.

    Examples
    --------
    >>> from theorylab.random_features import normalise_rows
    >>> normalise_rows([[3.0, 4.0], [0.0, 2.0]]).tolist()
    [[0.6, 0.8], [0.0, 1.0]]
    """
    A = _matrices(X, "X")
    largest = np.abs(A).max(axis=-1, keepdims=True)
    if (largest == 0).any():
        raise ValueError("X: expected no row of zeros")
    A = A / largest
    return np.asarray(A / np.linalg.norm(A, axis=-1, keepdims=True))


def random_rotations(d: int, n: int, *, rng: np.random.Generator) -> FloatArray:
    """Return n orthogonal matrices, uniform (Haar), shape (n, d, d).

    Parameters
    ----------
    d
        Size.
    n
        Number of matrices.
    rng
        Source of randomness.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import random_rotations
    >>> (Q,) = random_rotations(3, 1, rng=np.random.default_rng(0))
    >>> np.allclose(Q @ Q.T, np.eye(3))
    True
    """
    source = as_instance(rng, "rng", np.random.Generator)
    size = as_count(d, "d")
    Q, R = np.linalg.qr(source.standard_normal((as_count(n, "n"), size, size)))
    rotations: FloatArray = Q * np.sign(np.diagonal(R, axis1=-2, axis2=-1))[:, None, :]
    return rotations


@refuses_overflow("X", "W", "cotangent")
def batch_norm_signals(X: ArrayLike, W: ArrayLike, cotangent: ArrayLike) -> BatchNormSignals:
    """Send a batch forward and a gradient backward through $X'=BN(WX)$.

    Parameters
    ----------
    X
        (..., d, n) batch, rows being features; any axes of repetitions before.
    W
        (..., L, d, d).
    cotangent
        (..., d, n), the gradient of the loss in the output.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import batch_norm_signals
    >>> quarter = np.array([[[0.0, 1.0], [-1.0, 0.0]]])
    >>> run = batch_norm_signals([[1.0, 1.0], [0.0, 1.0]], quarter, [[0.0, 1.0], [1.0, 0.0]])
    >>> run.representations[-1].round(3).tolist(), run.weight_gradients.round(3).tolist()
    ([[0.0, 1.0], [-0.707, -0.707]], [0.354])
    """
    start, W = _matrices(X, "X"), as_array(W, "W")
    d = start.shape[-2]
    if W.ndim < 3 or W.shape[:-3] != start.shape[:-2] or W.shape[-2:] != (d, d):
        expected = (*start.shape[:-2], "L", d, d)
        raise ValueError(f"W: expected shape {expected}, got shape {W.shape}")
    G = as_array(cotangent, "cotangent", shape=start.shape)
    L = W.shape[-3]
    layers, norms = [start], []
    for layer in range(L):
        before = W[..., layer, :, :] @ layers[-1]
        norms.append(np.linalg.norm(before, axis=-1))
        layers.append(normalise_rows(before))
    gradients, sizes = [G], []
    for layer in reversed(range(L)):
        rows = layers[layer + 1]
        inward = G - np.sum(G * rows, axis=-1, keepdims=True) * rows
        inward /= norms[layer][..., None]
        sizes.append(np.linalg.norm(inward @ layers[layer].swapaxes(-1, -2), axis=(-2, -1)))
        G = W[..., layer, :, :].swapaxes(-1, -2) @ inward
        gradients.append(G)
    return BatchNormSignals(
        np.stack(layers, axis=-3),
        np.stack(norms, axis=-2),
        np.stack(gradients[::-1], axis=-3),
        np.stack(sizes[::-1], axis=-1),
    )


def gap_decay_length(d: int, gap: float) -> float:
    r"""Return $k=d(d+2)(\frac32+d\phi)$: a layer with a uniform orthogonal matrix multiplies
    the mean gap by $1-1/k$ at most.

    Parameters
    ----------
    d
        Width and batch size.
    gap
        The isometry gap of the batch.

    Examples
    --------
    >>> from theorylab.random_features import gap_decay_length
    >>> gap_decay_length(4, 0.5)
    84.0
    """
    size = as_count(d, "d")
    return size * (size + 2) * (1.5 + size * as_real(gap, "gap", minimum=0.0, maximum=1e150))


def gradient_survival(d: int, layers: int) -> float:
    r"""Return $\frac{d-1}{2d}\big(1+\frac{d+2}d(\frac d{d+2})^s\big)$ for s > 0 layers, 1 for
    none: the mean square of a gradient of unit size, uniform in direction, after it has passed back
    through s layers that act on isometries.

    Parameters
    ----------
    d
        Width and batch size.
    layers
        s.

    Examples
    --------
    >>> from theorylab.random_features import gradient_survival
    >>> gradient_survival(2, 0), gradient_survival(2, 1), round(gradient_survival(2, 50), 9)
    (1.0, 0.5, 0.25)
    """
    size, s = as_count(d, "d"), as_count(layers, "layers", minimum=0)
    if s == 0:
        return 1.0
    symmetric = (size - 1) * (size + 2) / (2 * size**2)
    return (size - 1) / (2 * size) + symmetric * math.exp(-s * math.log1p(2 / size))


def _matrices(X: ArrayLike, name: str) -> FloatArray:
    A = as_array(X, name)
    if A.ndim < 2:
        raise ValueError(f"{name}: expected shape (..., d, n), got shape {A.shape}")
    return A
