r"""Hessians of single samples at minima of loss 0, where each sample has gradient 0.

Of half the squared error $g_ig_i^\top$, with the gradients $g_i$ of the predictions; of
the cross-entropy of a linear classifier $x_ix_i^\top\otimes(\mathrm{diag}\,p_i-p_ip_i^\top)$.
A diagonal linear network $f(x)=\langle u\odot u-v\odot v,x\rangle$ has
$g_i=2(u\odot x_i,-v\odot x_i)$: with $\frac1n\sum_ix_ix_i^\top=I$ its mean Hessian has
trace $4(\|u\|^2+\|v\|^2)$ and largest eigenvalue $4\max_j(u_j^2+v_j^2)$, at least four
times the 1-norm and the maximum norm of $u\odot u-v\odot v$.

Papers: wu2023-implicit, dexter2024-precise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    precision_of,
    refuses_overflow,
)

__all__ = [
    "diagonal_net_gradients",
    "grouped_hessians",
    "rank_one_hessians",
    "softmax_hessians",
]

_LARGEST = 2.5e8  # numbers of all Hessians


def rank_one_hessians(gradients: ArrayLike) -> FloatArray:
    r"""Return the Hessians $g_ig_i^\top$ of the samples at an interpolating minimum of half
    the squared error.

    Parameters
    ----------
    gradients
        Shape (n, d): of the predictions of the n samples; n d^2 at most 2.5e8 (2 GB).

    Examples
    --------
    >>> from theorylab.implicit_regularization import rank_one_hessians
    >>> rank_one_hessians([[1.0, 2.0]])[0].tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """
    g = as_array(gradients, "gradients", ndim=2)
    _check_size("gradients", *g.shape)
    return _outer(g)


def _check_size(name: str, n: int, size: int) -> None:
    if n * size**2 > _LARGEST:
        raise ValueError(
            f"{name}: expected Hessians of at most {_LARGEST:.1e} numbers, "
            f"got {n} of {size} x {size}"
        )


@refuses_overflow("gradients")
def _outer(g: FloatArray) -> FloatArray:
    return np.asarray(g[:, :, None] * g[:, None, :])


def softmax_hessians(inputs: ArrayLike, probabilities: ArrayLike) -> FloatArray:
    r"""Return the Hessians $x_ix_i^\top\otimes(\mathrm{diag}\,p_i-p_ip_i^\top)$ of the
    cross-entropy of a linear classifier, of rank at most K - 1.

    Parameters
    ----------
    inputs, probabilities
        Shapes (n, d) and (n, K): what the classifier predicts; rows sum to 1. The parameters are
        the entries of a (d, K) matrix, row by row; n d^2 K^2 is at most 2.5e8 (2 GB).

    Examples
    --------
    >>> from theorylab.implicit_regularization import softmax_hessians
    >>> softmax_hessians([[2.0]], [[0.5, 0.5]])[0].tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    x = as_array(inputs, "inputs", ndim=2)
    p = as_array(probabilities, "probabilities", shape=(len(x), None), nonnegative=True)
    if np.abs(p.sum(axis=1) - 1).max() > 8 * p.shape[1] * precision_of(probabilities):
        raise ValueError(f"probabilities: expected rows that sum to 1, got {p.sum(axis=1)}")
    _check_size("inputs, probabilities", len(x), x.shape[1] * p.shape[1])
    return _kronecker(x, p)


@refuses_overflow("inputs", "probabilities")
def _kronecker(x: FloatArray, p: FloatArray) -> FloatArray:
    curvature = p[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * p[:, None, :]
    size = x.shape[1] * p.shape[1]
    return np.asarray(np.einsum("ni,nj,nkl->nikjl", x, x, curvature).reshape(len(x), size, size))


def grouped_hessians(n_groups: int, *, group_size: int) -> FloatArray:
    """Return orthogonal groups of identical Hessians of rank one, shape (n_groups * group_size,
    n_groups, n_groups): the family whose coherence is the size of a group.

    Examples
    --------
    >>> from theorylab.implicit_regularization import coherence, grouped_hessians
    >>> round(coherence(grouped_hessians(2, group_size=3)), 12)
    3.0
    """
    groups = as_count(n_groups, "n_groups", maximum=1000)
    size = as_count(group_size, "group_size", maximum=1000)
    _check_size("n_groups, group_size", groups * size, groups)
    return _outer(np.repeat(np.eye(groups), size, axis=0))


@refuses_overflow("inputs", "u", "v")
def diagonal_net_gradients(inputs: ArrayLike, u: ArrayLike, v: ArrayLike) -> FloatArray:
    r"""Return the gradients $2(u\odot x_i,-v\odot x_i)$ of the diagonal linear network
    $f(x)=\langle u\odot u-v\odot v,x\rangle$, shape (n, 2d).

    Parameters
    ----------
    inputs, u, v
        Shapes (n, d), (d,) and (d,).

    Examples
    --------
    >>> from theorylab.implicit_regularization import diagonal_net_gradients
    >>> diagonal_net_gradients([[1.0, -1.0]], [2.0, 0.0], [0.0, 3.0]).tolist()
    [[4.0, -0.0, -0.0, 6.0]]
    """
    x = as_array(inputs, "inputs", ndim=2)
    first = as_array(u, "u", shape=(x.shape[1],))
    second = as_array(v, "v", shape=(x.shape[1],))
    return np.concatenate([2 * x * first, -2 * x * second], axis=1)
