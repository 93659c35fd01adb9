r"""Two-layer ReLU networks that interpolate with the least trace of the Hessian.

For $f(x)=\sum_ja_j\,\mathrm{relu}(w_j^\top x+b_j)$ and
$L=\frac1n\sum_i(f(x_i)-y_i)^2$, with $x'=(x,1)$ (or $x'=x$ without biases) and
$h_{ij}=\mathrm{relu}(w_j^\top x_i+b_j)$,

$$\mathrm{tr}\,\nabla^2L=\frac2n\sum_i\|\nabla f(x_i)\|^2
=\frac2n\sum_i\sum_{j:h_{ij}>0}(a_j^2\|x'_i\|^2+h_{ij}^2)\ge\frac4n\sum_i\|x'_i\||f(x_i)|,$$

since f is linear in every single parameter. Equality asks of every active neuron that
$h_{ij}=|a_j|\|x'_i\|$ and that $a_j$ has the sign of $f(x_i)$. At a preactivation
of 0 the trace is that of the convention relu'(0) = 0.

On the hypercube a network with one neuron for every training point, active at no other vertex, and
one with four neurons that is $x_1x_2$ everywhere both attain the bound
$4\sqrt{d+1}$: flatness does not tell them apart. Without biases it does.

Papers: wen2023-sharpness (Lemma 4.1 and Theorem 4.1; in its equation (5) r is
$(d+1)^{1/4}$), wu2023-implicit."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = [
    "ReluNetwork",
    "balance_neurons",
    "flattest_neurons",
    "hypercube_memoriser",
    "isotropic_hessian_trace",
    "layer_norm_outputs",
    "layer_norm_trace",
    "mix_networks",
    "path_norm",
    "relu_hessian_trace",
    "relu_outputs",
    "relu_trace_bound",
    "xor_generaliser",
]


@result
class ReluNetwork:
    r"""The function $x\mapsto\sum_ja_j\,\mathrm{relu}(w_j^\top x+b_j)$.

    Attributes
    ----------
    weights
        Shape (m, d), a row $w_j$ for each neuron.
    outputs
        Shape (m,), the $a_j$.
    biases
        Shape (m,), the $b_j$; None for a network that has no such parameters.
    """

    weights: FloatArray
    outputs: FloatArray
    biases: FloatArray | None = None


def _parts(network: ReluNetwork) -> tuple[FloatArray, FloatArray]:
    """Return the incoming weights with the biases as last column, and the outgoing ones."""
    as_instance(network, "network", ReluNetwork)
    W = as_array(network.weights, "network.weights", ndim=2)
    a = as_array(network.outputs, "network.outputs", shape=(len(W),))
    if network.biases is None:
        return W, a
    return np.column_stack([W, as_array(network.biases, "network.biases", shape=(len(W),))]), a


def _inputs(points: ArrayLike, network: ReluNetwork) -> FloatArray:
    """Return the points with the constant 1 as last coordinate, if the network has biases."""
    X = as_array(points, "points", shape=(None, np.shape(network.weights)[-1]))
    return X if network.biases is None else np.column_stack([X, np.ones(len(X))])


@refuses_overflow("network", "points")
def relu_outputs(network: ReluNetwork, points: ArrayLike) -> FloatArray:
    """Return f at the points, shape (n,).

    Parameters
    ----------
    network, points
        The network of m neurons on inputs of dimension d, and points, shape (n, d).

    Examples
    --------
    >>> from theorylab.implicit_regularization import relu_outputs, xor_generaliser
    >>> relu_outputs(xor_generaliser(3), [[1, 1, -1], [1, -1, -1]])
    array([ 1., -1.])
    """
    U, a = _parts(network)
    values: FloatArray = np.maximum(_inputs(points, network) @ U.T, 0.0) @ a
    return values


@refuses_overflow("network", "points")
def relu_hessian_trace(network: ReluNetwork, points: ArrayLike) -> float:
    r"""Return the trace of the Hessian of $\frac1n\sum_i(f(x_i)-y_i)^2$ in all parameters.

    It is $\frac2n\sum_i\|\nabla f(x_i)\|^2$ whatever the labels are.

    Parameters
    ----------
    network, points
        The network, and the training points, shape (n, d); relu'(0) = 0 at a preactivation of 0.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import ReluNetwork, relu_hessian_trace
    >>> relu_hessian_trace(ReluNetwork(np.eye(2), np.array([3.0, 1.0])), [[2.0, -1.0]])
    98.0
    """
    U, a = _parts(network)
    X = _inputs(points, network)
    H = np.maximum(X @ U.T, 0.0)
    first = (H > 0) @ a**2 @ np.sum(X**2, axis=1)
    return float(2 * (first + np.sum(H**2)) / len(X))


@refuses_overflow("points", "labels")
def relu_trace_bound(points: ArrayLike, labels: ArrayLike, *, biases: bool = True) -> float:
    r"""Return $\frac4n\sum_i\|x'_i\||y_i|$, below which no interpolating network is.

    Parameters
    ----------
    points, labels
        Shapes (n, d) and (n,).
    biases
        Whether neurons have biases, so that $x'=(x,1)$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import relu_trace_bound
    >>> relu_trace_bound([[1, 1, 1], [1, -1, 1]], [1, -1])
    8.0
    """
    X = as_array(points, "points", ndim=2)
    y = as_array(labels, "labels", shape=(len(X),))
    lengths = np.hypot(np.linalg.norm(X, axis=1), 1.0 if as_flag(biases, "biases") else 0.0)
    return float(4 * np.mean(lengths * np.abs(y)))


@refuses_overflow("network", "points")
def balance_neurons(network: ReluNetwork, points: ArrayLike) -> ReluNetwork:
    r"""Return the network of the same function whose trace is least over the scales of its neurons.

    Neuron j with $(a_j/s,sw_j,sb_j)$ adds $\frac2n(s^2\sum_ih_{ij}^2+s^{-2}a_j^2
    \sum_{i:h_{ij}>0}\|x'_i\|^2)$, which is least where both terms are equal. A neuron without
    output, or active at no point, is left as it is.

    Parameters
    ----------
    network, points
        The network, and the training points, shape (n, d).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import balance_neurons, relu_hessian_trace
    >>> from theorylab.implicit_regularization import xor_generaliser
    >>> cube = np.array([[1, 1, 1], [1, -1, 1], [-1, 1, 1], [-1, -1, 1]])
    >>> round(relu_hessian_trace(balance_neurons(xor_generaliser(3), cube), cube), 9)
    8.0
    """
    U, a = _parts(network)
    X = _inputs(points, network)
    H = np.maximum(X @ U.T, 0.0)
    unit = np.max(np.abs(H), axis=0)
    alive = (unit > 0) & (a != 0)
    size = unit[alive] * np.linalg.norm(H[:, alive] / unit[alive], axis=0)
    active = np.linalg.norm(np.linalg.norm(X, axis=1)[:, None] * (H[:, alive] > 0), axis=0)
    scale = np.ones(len(a))
    scale[alive] = np.sqrt(np.abs(a[alive])) * np.sqrt(active / size)
    if not (scale > 0).all():
        raise ValueError("network: expected neurons whose scales stay within float64")
    moved = network.biases if network.biases is None else scale * network.biases
    return ReluNetwork(scale[:, None] * network.weights, a / scale, moved)


def _vertices(points: ArrayLike) -> FloatArray:
    X = as_array(points, "points", ndim=2)
    if (np.abs(X) != 1).any():
        raise ValueError("points: expected vertices of the hypercube, entries 1 and -1")
    return X


def hypercube_memoriser(points: ArrayLike, labels: ArrayLike) -> ReluNetwork:
    """Return the network with a neuron for each training point that vanishes at all other vertices.

    Its preactivation is 1 at its point and at most -1 at every other vertex. Scales are left to
    :func:`balance_neurons`.

    Parameters
    ----------
    points, labels
        Shapes (n, d), distinct vertices, and (n,).

    Examples
    --------
    >>> from theorylab.implicit_regularization import hypercube_memoriser, relu_outputs
    >>> network = hypercube_memoriser([[1, 1], [1, -1]], [1, -1])
    >>> relu_outputs(network, [[1, 1], [1, -1], [-1, -1]])
    array([ 1., -1.,  0.])
    """
    X = _vertices(points)
    y = as_array(labels, "labels", shape=(len(X),))
    if len(np.unique(X, axis=0)) < len(X):
        raise ValueError("points: expected distinct vertices, got one twice")
    return ReluNetwork(X, y, np.full(len(X), 1.0 - X.shape[1]))


def xor_generaliser(dimension: int, *, biases: bool = True) -> ReluNetwork:
    r"""Return the four neurons $\mathrm{relu}(\pm x_1\pm x_2-1)$ whose sum is
    $x_1x_2$ on the hypercube, or half of $\mathrm{relu}(\pm x_1\pm x_2)$ without
    biases.

    Parameters
    ----------
    dimension, biases
        Of the inputs, at least 2; whether neurons have biases.

    Examples
    --------
    >>> from theorylab.implicit_regularization import xor_generaliser
    >>> xor_generaliser(2, biases=False).outputs
    array([ 0.5, -0.5, -0.5,  0.5])
    """
    d = as_count(dimension, "dimension", minimum=2)
    W = np.zeros((4, d))
    W[:, :2] = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    signs = W[:, 0] * W[:, 1]
    if as_flag(biases, "biases"):
        return ReluNetwork(W, signs, np.full(4, -1.0))
    return ReluNetwork(W, signs / 2)


@refuses_overflow("first", "second", "share")
def mix_networks(first: ReluNetwork, second: ReluNetwork, share: float) -> ReluNetwork:
    r"""Return the network of all neurons of both whose function is $tf_1+(1-t)f_2$.

    Mixtures of flattest interpolators are flattest once they are balanced.

    Parameters
    ----------
    first, second, share
        Networks on inputs of the same dimension, both with biases or both without, and t.

    Examples
    --------
    >>> from theorylab.implicit_regularization import mix_networks, xor_generaliser
    >>> mix_networks(xor_generaliser(2), xor_generaliser(2), 0.25).outputs[::4]
    array([0.25, 0.75])
    """
    (U, a), (V, b) = _named_parts(first, "first"), _named_parts(second, "second")
    t = as_real(share, "share")
    if U.shape[1] != V.shape[1] or (first.biases is None) != (second.biases is None):
        raise ValueError("second: expected inputs and biases as those of first")
    joint, outputs = np.concatenate([U, V]), np.concatenate([t * a, (1 - t) * b])
    if first.biases is None:
        return ReluNetwork(joint, outputs)
    return ReluNetwork(joint[:, :-1], outputs, joint[:, -1])


def _named_parts(network: ReluNetwork, name: str) -> tuple[FloatArray, FloatArray]:
    as_instance(network, name, ReluNetwork)
    return _parts(network)


def flattest_neurons(points: ArrayLike, labels: ArrayLike) -> FloatArray:
    r"""Return neurons without bias that a flattest interpolator may have, as rows, shape (k, d).

    On points of equal norm every neuron of a network that attains the bound of
    :func:`relu_trace_bound` is, up to its scale and where it is active at all, a w with
    $w^\top x_i\in\{1\}\cup(-\infty,0]$ that is active on points of one label's sign. Those
    with $w^\top x_i\in\{-1,0,1\}$ at d independent points are enumerated, $3^d$
    candidates, in exact integer arithmetic; if with every $x_i$ also $-x_i$ is a point,
    there are no others, but for w = 0.

    Parameters
    ----------
    points, labels
        Shapes (n, d), vertices of the hypercube that span the space, d at most 9, and (n,).

    Examples
    --------
    >>> from theorylab.implicit_regularization import flattest_neurons
    >>> flattest_neurons([[1, 1], [1, -1], [-1, 1], [-1, -1]], [1, -1, -1, 1])
    array([[-0.5, -0.5],
           [-0.5,  0.5],
           [ 0.5, -0.5],
           [ 0.5,  0.5]])
    """
    X = _vertices(points)
    d = as_count(X.shape[1], "points.shape[1]", maximum=9)
    y = as_array(labels, "labels", shape=(len(X),))
    basis: list[int] = []
    for i in range(len(X)):
        if np.linalg.matrix_rank(X[[*basis, i]]) > len(basis):
            basis.append(i)
    if len(basis) < d:
        raise ValueError(f"points: expected vertices that span R^{d}, got rank {len(basis)}")
    patterns = np.array(list(product((-1, 0, 1), repeat=d)))
    # The determinant and the minors are integers of at most 9^(9/2) < 2e4: rounding finds them, and
    # from there on all is exact. Patterns of both signs make up for the sign of the determinant.
    size = np.rint(abs(np.linalg.det(X[basis])))
    minors = np.rint(size * np.linalg.inv(X[basis])).astype(int)
    W = patterns @ minors.T
    values = W @ X.T.astype(int)
    active = values > 0
    allowed = (values == size) | ~active
    signs = [(active & (s * y > 0)).sum(axis=1) == active.sum(axis=1) for s in (1, -1)]
    kept = W[allowed.all(axis=1) & active.any(axis=1) & (signs[0] | signs[1])]
    ordered: FloatArray = kept[np.lexsort(kept.T[::-1])] / size
    return ordered


@refuses_overflow("network", "points", "eps")
def layer_norm_outputs(network: ReluNetwork, points: ArrayLike, *, eps: float) -> FloatArray:
    r"""Return $a^\top h/\max(\|h\|,\epsilon)$ at the points, h the hidden layer, shape (n,).

    Parameters
    ----------
    network, points, eps
        The network, points of shape (n, d), and the least norm that is divided by, positive.

    Examples
    --------
    >>> from theorylab.implicit_regularization import layer_norm_outputs, xor_generaliser
    >>> layer_norm_outputs(xor_generaliser(2), [[1, 1], [1, -1]], eps=0.1)
    array([ 1., -1.])
    """
    U, a = _parts(network)
    H = np.maximum(_inputs(points, network) @ U.T, 0.0)
    size = np.maximum(np.linalg.norm(H, axis=1), as_real(eps, "eps", above=0.0))
    values: FloatArray = (H / size[:, None]) @ a
    return values


@refuses_overflow("network", "points", "eps")
def layer_norm_trace(network: ReluNetwork, points: ArrayLike, *, eps: float) -> float:
    r"""Return $\frac2n\sum_i\|\nabla f(x_i)\|^2$ for :func:`layer_norm_outputs`: the trace of
    the Hessian of $\frac1n\sum_i(f(x_i)-y_i)^2$ at an interpolator.

    Parameters
    ----------
    network, points, eps
        The network, points of shape (n, d), and the least norm that is divided by, positive.

    Examples
    --------
    >>> from theorylab.implicit_regularization import layer_norm_trace, xor_generaliser
    >>> layer_norm_trace(xor_generaliser(2), [[1, 1], [1, -1]], eps=0.1)
    2.0
    """
    U, a = _parts(network)
    X = _inputs(points, network)
    H = np.maximum(X @ U.T, 0.0)
    norms = np.linalg.norm(H, axis=1)
    size = np.maximum(norms, as_real(eps, "eps", above=0.0))[:, None]
    R = H / size
    # Above eps a change of the hidden layer along itself changes nothing.
    turned = a - np.where(norms[:, None] >= size, R * (R @ a)[:, None], 0.0)
    hidden = np.where(H > 0, turned, 0.0) * (np.linalg.norm(X, axis=1)[:, None] / size)
    return float(2 * (np.sum(R**2) + np.sum(hidden**2)) / len(X))


@refuses_overflow("network")
def isotropic_hessian_trace(network: ReluNetwork) -> float:
    r"""Return $\mathrm{tr}\,\mathbb E\nabla f\nabla f^\top=\frac12\sum_j(\|w_j\|^2+da_j^2)$.

    It holds for inputs that are as likely as their opposites, have covariance I, and are orthogonal
    to no $w_j$: Gaussian inputs, or those of a sphere.

    Parameters
    ----------
    network
        Without biases.

    Examples
    --------
    >>> from theorylab.implicit_regularization import isotropic_hessian_trace, xor_generaliser
    >>> isotropic_hessian_trace(xor_generaliser(3, biases=False))
    5.5
    """
    W, a = _without_biases(network)
    return float((np.sum(W**2) + W.shape[1] * np.sum(a**2)) / 2)


@refuses_overflow("network")
def path_norm(network: ReluNetwork) -> float:
    r"""Return $\sum_j|a_j|\|w_j\|$, at most the trace of :func:`isotropic_hessian_trace` over
    $\sqrt d$.

    Parameters
    ----------
    network
        Without biases.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import ReluNetwork, path_norm
    >>> path_norm(ReluNetwork(np.array([[3.0, 4.0]]), np.array([-2.0])))
    10.0
    """
    W, a = _without_biases(network)
    return float(np.abs(a) @ np.linalg.norm(W, axis=1))


def _without_biases(network: ReluNetwork) -> tuple[FloatArray, FloatArray]:
    W, a = _parts(network)
    if network.biases is not None:
        raise ValueError("network: expected one without biases")
    return W, a
