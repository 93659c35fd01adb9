r"""Rank of the loss Hessian of linear convolutional networks, by exact arithmetic modulo a prime.

A linear convolutional network is a product of polynomial matrices: its output on $x\in R^d$
is $\langle A_\kappa,x\rangle$ with the coefficients of $A=VW_L\cdots W_1$, where
$W_l$ holds filters of $k_l$ taps, L hidden layers have m channels each, and V is dense:
K outputs from what the valid convolutions leave, $d_L=d-\sum_l(k_l-1)$ entries of each
channel. For squared losses, with the gradient G in A and $M=I_K\otimes XX^\top$,

$$H=J^\top MJ+H_F,\qquad H_F=\nabla^2_\theta\langle G,A(\theta)\rangle.$$

Let $q=Kd_L$. With one hidden layer (k taps) $H_F$ is m copies of
$\begin{pmatrix}0&C\\C^\top&0\end{pmatrix}$, C the Hankel matrix of G, so that
$\operatorname{rank}H\le2m\min(k,q)+Kd$. On its kernel J is orthogonal to G (Euler), and the
Schur complement gives for generic weights, data and labels, $m\ge\min(k,q)$ and at least d
samples,

$$\operatorname{rank}H=2mk+\min(Kd-1,k(q-k))\ \text{ if }k\le q,\qquad
2mq+\min(K(d-K),q(k-q))\ \text{ if }k>q:$$

if $k\le q$ it holds products of all filters with the kernel of $C^\top$, orthogonal to
G; if $k>q$, for each output, products of the kernel of C with all $d_1$ entries, each
orthogonal to all K rows of G.

With two hidden layers ($k_1$, and $k_2\ge2$ taps), $k_{12}=k_1+k_2-1\le q$ and
$m\ge k_1+k_{12}$,

$$\operatorname{rank}H=2m(k_1+k_{12})-1+\min(Kd-1,k_{12}(q-k_{12})),$$

linear in m, while the number of parameters $mk_1+m^2k_2+mq$ is quadratic.

A rank modulo a prime p bounds the rank over the rationals from below; for weights drawn modulo p it
is the generic one except with a probability of at most the degree of a minor over p.

Source: singh2023-hessian (the bound recalled, the exact ranks derived; that the span on the kernel
is as large as it can be was checked on some thousand architectures, not proved)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import as_array, as_count
from theorylab.numerics.results import result

__all__ = [
    "PRIME",
    "LossHessian",
    "convolutional_layers",
    "end_to_end",
    "generic_rank",
    "loss_hessian",
    "rank_bound",
    "rank_modulo_prime",
]

PRIME = 67_108_859
"""Largest prime below 2^26: sums of 2^11 products stay within 64 bits."""

_WEIGHTS = 5000  # of layers whose Hessian is formed
_MIXED = 5 * 10**7  # coefficients between the weights of two layers

IntArray = NDArray[np.int64]


@result
class LossHessian:
    """The two parts of a Hessian modulo the prime, (P, P) each: second derivatives weighted by the
    residuals, and squared first derivatives."""

    functional: IntArray
    gauss_newton: IntArray

    @property
    def total(self) -> IntArray:
        """The Hessian, (P, P)."""
        found: IntArray = (self.functional + self.gauss_newton) % PRIME
        return found


def convolutional_layers(
    length: int, filters: Sequence[int], *, channels: int, outputs: int = 1, seed: int
) -> tuple[IntArray, ...]:
    """Return layers of random residues: (out, in, taps) each, the dense one last.

    Parameters
    ----------
    length
        Length d of the input.
    filters
        Taps of each hidden layer.
    channels, outputs
        Width m of every hidden layer, and number K of outputs.
    seed
        Seeds the residues.

    Examples
    --------
    >>> from theorylab.random_features import convolutional_layers
    >>> [W.shape for W in convolutional_layers(8, [3, 2], channels=4, seed=0)]
    [(4, 1, 3), (4, 4, 2), (1, 4, 5)]
    """
    taps = _taps(length, filters)
    m, K = as_count(channels, "channels"), as_count(outputs, "outputs")
    widths = [1, *[m] * (len(taps) - 1), K]
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    return tuple(
        rng.integers(PRIME, size=(widths[i + 1], widths[i], k)) for i, k in enumerate(taps)
    )


def end_to_end(layers: Sequence[ArrayLike]) -> IntArray:
    """Return the coefficients A of the network modulo the prime, (K, d).

    Parameters
    ----------
    layers
        (out, in, taps) each, of integers; one input channel.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import end_to_end
    >>> end_to_end([np.array([[[1, 2]]]), np.array([[[1, 0, 3]]])])
    array([[1, 2, 3, 6]])
    """
    return _products(_layers(layers))[1][-1][:, 0]


def loss_hessian(layers: Sequence[ArrayLike], inputs: ArrayLike, targets: ArrayLike) -> LossHessian:
    r"""Return the Hessian of $\frac12\sum\|f(x)-y\|^2$ in all weights, modulo the prime.

    Parameters
    ----------
    layers
        (out, in, taps) each, of integers; one input channel.
    inputs, targets
        (n, d) and (n, K), of integers.

    Raises
    ------
    ValueError
        For malformed arguments, more than 5000 weights, or more than 5e7 products of outputs,
        length and the channels into and out of two layers.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import loss_hessian
    >>> layers = [np.array([[[1]]]), np.array([[[3]]])]  # f(x) = 3 * 1 * x
    >>> loss_hessian(layers, np.array([[2]]), np.array([[5]])).total.tolist()  # x^2 = 4, r = 1
    [[36, 14], [14, 4]]
    """
    W = _layers(layers)
    left, right = _products(W)
    A = right[-1][:, 0]
    K, d = A.shape
    _check_size(W, K * d)
    X = _residues(inputs, "inputs", (None, d))
    Y = _residues(targets, "targets", (len(X), K))
    gram = _dot(X.T, X)
    G = (_dot(A, gram) - _dot(Y.T, X)) % PRIME
    starts = np.cumsum([0, *[w.size for w in W]])
    J = np.zeros((starts[-1], K, d), dtype=np.int64)
    F = np.zeros((starts[-1], starts[-1]), dtype=np.int64)
    for one, w in enumerate(W):
        rows = J[starts[one] : starts[one + 1]].reshape(*w.shape, K, d)
        effect = _convolve(left[one + 1], right[one][:, 0])  # output, out, in, shift
        for tap in range(w.shape[2]):
            rows[:, :, tap, :, tap : tap + effect.shape[-1]] = np.moveaxis(effect, 0, 2)
        middle = np.eye(len(w), dtype=np.int64)[:, :, None]
        for two in range(one + 1, len(W)):
            block = _mixed(G, left[two + 1], middle, right[one][:, 0], W[two].shape[2], w.shape[2])
            block = block.reshape(W[two].size, w.size)
            F[starts[two] : starts[two + 1], starts[one] : starts[one + 1]] = block
            F[starts[one] : starts[one + 1], starts[two] : starts[two + 1]] = block.T
            middle = _multiply(W[two], middle)
    weighted = _dot(J.reshape(-1, d), gram).reshape(len(J), -1)
    return LossHessian(F, _dot(weighted, J.reshape(len(J), -1).T))


def rank_modulo_prime(matrix: ArrayLike) -> int:
    """Return the rank modulo the prime of a matrix of integers: at most that over the rationals.

    Parameters
    ----------
    matrix
        (rows, columns).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import rank_modulo_prime
    >>> rank_modulo_prime(np.array([[1, 2], [2, 4]]))
    1
    """
    import flint

    residues = _residues(matrix, "matrix", (None, None))
    rows, columns = residues.shape
    return int(flint.nmod_mat(rows, columns, residues.ravel().tolist(), PRIME).rank())


def rank_bound(length: int, filter_size: int, *, channels: int, outputs: int = 1) -> int:
    r"""Return $\min(P,2m\min(k,Kd_1)+Kd)$, a bound for one hidden layer and all data.

    Parameters
    ----------
    length, filter_size, channels, outputs
        d, k, m and K.

    Examples
    --------
    >>> from theorylab.random_features import rank_bound
    >>> rank_bound(8, 3, channels=8)
    56
    """
    k = as_count(filter_size, "filter_size", maximum=as_count(length, "length"))
    rest = length - k + 1
    m, K = as_count(channels, "channels"), as_count(outputs, "outputs")
    return min(m * (k + K * rest), 2 * m * min(k, K * rest) + K * length)


def generic_rank(
    length: int, filters: Sequence[int], *, channels: int, outputs: int = 1
) -> tuple[int, int]:
    """Return the rank of the Hessian for generic weights and data, and the number of parameters.

    Parameters
    ----------
    length, filters, channels, outputs
        As in :func:`convolutional_layers`; one hidden layer, or two, under the conditions that the
        module states.

    Examples
    --------
    >>> from theorylab.random_features import generic_rank
    >>> generic_rank(8, [3], channels=8), generic_rank(9, [2, 3], channels=6)
    ((55, 72), (79, 156))
    """
    taps = _taps(length, filters)
    m, K = as_count(channels, "channels"), as_count(outputs, "outputs")
    q, span = K * taps[-1], K * length - 1
    if len(taps) == 2:
        k = taps[0]
        least = min(k, q)
        if m < least:
            raise ValueError(f"channels: expected at least min(k, K d_1) = {least}, got {m}")
        if k > q:
            span = K * (length - K)
        return 2 * m * least + min(span, least * abs(q - k)), m * (k + q)
    if len(taps) != 3:
        raise ValueError(f"filters: expected one or two hidden layers, got {len(taps) - 1}")
    first, second = taps[:2]
    both = first + second - 1
    if second < 2 or both > q:
        raise ValueError(f"filters: expected k_2 >= 2 and k_1 + k_2 - 1 <= {q}, got {filters}")
    if m < first + both:
        raise ValueError(f"channels: expected at least {first + both}, got {m}")
    rank = 2 * m * (first + both) - 1 + min(span, both * (q - both))
    return rank, m * first + m * m * second + m * q


# ---------------------------------------------------------------------------------- kernels
def _taps(length: int, filters: Sequence[int]) -> list[int]:
    d = as_count(length, "length")
    if not isinstance(filters, Sequence) or isinstance(filters, str) or not filters:
        raise ValueError(f"filters: expected numbers of taps, got {type(filters).__name__}")
    taps = [as_count(k, "filters") for k in filters]
    rest = d - sum(taps) + len(taps)
    if rest < 1:
        raise ValueError(f"filters: expected valid convolutions of {d} entries, got taps {taps}")
    return [*taps, rest]


def _check_size(W: list[IntArray], outputs: int) -> None:
    """Refuse layers whose Hessian, or second derivatives in the channels of two, do not fit."""
    weights, pairs = sum(w.size for w in W), sorted(len(w) * w.shape[1] for w in W)[-2:]
    mixed = outputs * math.prod(pairs) if len(pairs) > 1 else 0
    if weights > _WEIGHTS or mixed > _MIXED:
        raise ValueError(
            f"layers: expected at most {_WEIGHTS} weights, and at most {_MIXED:.0e} coefficients "
            f"of the channels of two layers, got {weights} and {mixed:.1e}"
        )


def _layers(layers: Sequence[ArrayLike]) -> list[IntArray]:
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        raise ValueError(f"layers: expected a sequence of arrays, got {type(layers).__name__}")
    found: list[IntArray] = []
    for w in layers:
        shape = (None, len(found[-1]) if found else 1, None)
        found.append(_residues(w, "layers", shape))
    return found


def _residues(value: ArrayLike, name: str, shape: tuple[int | None, ...]) -> IntArray:
    raw = as_array(value, name, shape=shape)
    if (raw != np.round(raw)).any() or np.abs(raw).max() > 2**53:
        raise ValueError(f"{name}: expected integers of at most 2^53, got {raw.dtype} numbers")
    return raw.astype(np.int64) % PRIME


def _dot(a: IntArray, b: IntArray) -> IntArray:
    """Multiply matrices, in blocks whose sums stay within 64 bits."""
    total = np.zeros((len(a), b.shape[1]), dtype=np.int64)
    for start in range(0, len(b), 1024):
        total += (a[:, start : start + 1024] @ b[start : start + 1024]) % PRIME
    return total % PRIME


def _multiply(a: IntArray, b: IntArray) -> IntArray:
    """Multiply polynomial matrices (o, m, .) and (m, i, .)."""
    product = np.zeros((len(a), b.shape[1], a.shape[2] + b.shape[2] - 1), dtype=np.int64)
    flat = b.reshape(len(b), -1)
    for s in range(a.shape[2]):
        product[:, :, s : s + b.shape[2]] += _dot(a[:, :, s], flat).reshape(len(a), *b.shape[1:])
    return product % PRIME


def _convolve(a: IntArray, b: IntArray) -> IntArray:
    """Multiply all polynomials of one array with all of another."""
    size = b.shape[-1]
    product = np.zeros((*a.shape[:-1], *b.shape[:-1], a.shape[-1] + size - 1), dtype=np.int64)
    for s in range(a.shape[-1]):
        product[..., s : s + size] += np.multiply.outer(a[..., s], b) % PRIME
    return product % PRIME


def _products(W: list[IntArray]) -> tuple[list[IntArray], list[IntArray]]:
    """Return the products of the layers from l on, and of those before l, for all l."""
    right = [np.ones((1, 1, 1), dtype=np.int64)]
    for w in W:
        right.append(_multiply(w, right[-1]))
    left = [np.eye(len(W[-1]), dtype=np.int64)[:, :, None]]
    for w in reversed(W):
        left.append(_multiply(left[-1], w))
    return left[::-1], right


def _mixed(
    G: IntArray, left: IntArray, middle: IntArray, right: IntArray, later: int, earlier: int
) -> IntArray:
    """Return the second derivatives of <G, A> in two layers, (out, in, tap) of the later one and
    (out, in, tap) of the earlier one: they depend on the sum of the taps."""
    q = _convolve(_convolve(left, middle), right)  # output, out, in, out, in, shift
    size = q.shape[-1]
    taps = [
        np.sum(q * G[:, None, None, None, None, s : s + size] % PRIME, axis=(0, -1)) % PRIME
        for s in range(later + earlier - 1)
    ]
    blocks = [np.stack([taps[s + t] for t in range(earlier)], axis=-1) for s in range(later)]
    return np.stack(blocks, axis=2)
