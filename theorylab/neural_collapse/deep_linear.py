r"""Deep linear heads on unconstrained features: lengths, jumps, and logits that beat the simplex
frame.

M linear layers on free features, $L=M+1$ factors, widths at least d,
$\Lambda=\lambda_H\prod_m\lambda_{W_m}$:

$$\min\;\ell(W_M\cdots
W_1H+b\mathbf1^\top)+\sum_m\tfrac{\lambda_{W_m}}2\|W_m\|_F^2+\tfrac{\lambda_H}2\|H\|_F^2
\;=\;\min_{P,b}\;\ell(P+b\mathbf1^\top)+\tfrac L2\Lambda^{1/L}\sum_is_i(P)^{2/L},$$

over matrices P of rank at most d, with $s_i$ their singular values and $\ell$ as in
``unconstrained_features``.

Squared loss, by von Neumann's trace inequality: each singular value $\sigma$ of the (centred)
labels is fitted by the minimizer of $\frac1{2N}(\sigma-p)^2+\frac L2\Lambda^{1/L}p^{2/L}$.
With $q=p/\sqrt{n_k}$ and $\tau=N^{M+1}\Lambda/n_k^M$ the non-zero stationary points
solve $(1-q)^{M+1}q^{M-1}=\tau$; the largest is global up to
$\tau_*=(M-1)^{M-1}/M^{2M}$, where class k jumps from $q=1-1/M$ to 0, and exists up to a
larger $\tau$.

Cross-entropy, balanced, $M\ge2$: the sum of singular values to the power 2/L < 1 rewards low
rank. Split the K classes into at least two blocks of sizes $\kappa_j\ge2$, with orthogonal
simplex logits in the blocks, scaled so that the gap between the blocks is s. Inside a block the gap
is then $s\kappa_j/(\kappa_j-1)>s$, so the loss is below that of the simplex ETF of gap s, and
the penalty is proportional to $\sum_j(\kappa_j-1)(\kappa_j/(\kappa_j-1))^{2/L}$ against
$K-1$. With pairs (and a triple, if K is odd) this is smaller for $L\ge3,K\ge6$ and for
$L\ge4,K\ge4$, at every s > 0 and so for every weight decay: there no ETF of positive scale is
a global minimizer. For even K the pairs are a cross-polytope. A bias, penalised or not, cannot
lower the value of an ETF (by symmetry and convexity), and b = 0 is feasible for the blocks.

The simplex ETF for cross-entropy in deep linear networks is stated by dang2023-neural, whose text
was not consulted: this is a counterexample to the stated form; hypotheses unseen. That deep neural
collapse is not optimal in general for cross-entropy was shown first by Garrod and Keating, arXiv
2410.23169."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property, reduce
from itertools import pairwise
from typing import Any

import numpy as np
from flint import arb, fmpq, fmpq_mat
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_real,
    refuses_overflow,
)
from theorylab.convex_relu.parallel_networks import shrink_singular_values
from theorylab.neural_collapse._intervals import (
    eigenvalues_from_below,
    power,
    precision,
    proves_bound,
)
from theorylab.neural_collapse._losses import CrossEntropy, Loss, Squared, as_loss
from theorylab.neural_collapse._spectra import Spectrum, as_counts, balanced_factors, label_spectrum
from theorylab.neural_collapse.unconstrained_features import (
    Certificate,
    UnconstrainedFeatures,
    certify_ufm,
    ufm_minimizer,
)
from theorylab.numerics.balls import above, ball_matrix, below, rational, square_sum
from theorylab.numerics.results import result

__all__ = [
    "DeepLinearMinimizer",
    "DeepLinearSearch",
    "DeepLinearStatus",
    "best_scale",
    "certified_objective",
    "collapse_ratio",
    "deep_linear_minimizer",
    "deep_linear_objective",
    "etf_bound",
    "jump_threshold",
    "pairs_and_one_logits",
    "polygon_logits",
    "search_deep_linear",
    "simplex_sum_bound",
    "simplex_sum_logits",
    "simplex_sum_price",
    "spinodal",
    "stationary_ratio",
    "von_neumann_bound",
    "von_neumann_radius",
]

# Relative amounts by which the proved lower bounds stay below the minimum found in double
# precision: the first with which the bisection succeeds. Where doubles are too coarse near the
# minimizer, as for tiny weight decay, a looser bound is proved; zero always is one.
_PROOF_SLACKS = (1e-10, 1e-6, 1e-3, 0.5)


class DeepLinearStatus(StrEnum):
    """How a point was obtained."""

    CLOSED_FORM = "closed form, a global minimizer"
    CONVEX = (
        "one linear layer: the convex problem was solved, a global minimizer up to its duality gap"
    )
    SCALED = "the best scale of the given logits"
    SEARCHED = (
        "the best of the local searches; for cross-entropy and two or more layers no "
        "certificate of global optimality is known"
    )


@result
class DeepLinearMinimizer:
    r"""A point of the deep linear model, collapsed: all samples of a class share one feature.

    Attributes
    ----------
    objective
        Its value.
    layers
        $(W_M,\dots,W_1)$, in the order of the product: shapes (K, d), (d, d), ..., (d, d).
    class_features
        (d, K).
    bias
        (K,), or None.
    singular_values
        (min(K, d),) of the logits of all samples, descending, without bias.
    counts
        (K,) class sizes.
    lams
        (M + 1,) weight decay of the layers, in the order of ``layers``, and of the features.
    loss
        Of the logits.
    status
        How it was obtained.
    """

    objective: float
    layers: tuple[FloatArray, ...]
    class_features: FloatArray
    bias: FloatArray | None
    singular_values: FloatArray
    counts: NDArray[np.int64]
    lams: FloatArray
    loss: Loss
    status: DeepLinearStatus

    @property
    def features(self) -> FloatArray:
        """(d, N) features, samples ordered by class."""
        return np.repeat(self.class_features, self.counts, axis=1)

    @property
    def classifier(self) -> FloatArray:
        """(K, d) last layer W_M."""
        return self.layers[0]

    @property
    def class_logits(self) -> FloatArray:
        """(K, K) logits, a column a class, bias included."""
        logits = reduce(np.matmul, (*self.layers, self.class_features))
        return logits if self.bias is None else logits + self.bias[:, None]

    @cached_property
    def certificate(self) -> Certificate | None:
        """Rigorous bounds: von Neumann's inequality for squared loss, duality for one layer; None
        for deeper cross-entropy."""
        if not isinstance(self.loss, Squared):
            if len(self.layers) > 1:
                return None
            lam_w, lam_h = self.lams.tolist()
            model = UnconstrainedFeatures(
                self.counts, lam_w=lam_w, lam_h=lam_h, loss=self.loss, bias=self.bias is not None
            )
            return certify_ufm(model, self.features, self.layers[0], bias=self.bias)
        upper = certified_objective(
            self.features, self.layers, self.counts, self.lams, loss="mse", bias=self.bias
        )
        dimension = self.class_features.shape[0]
        return Certificate(
            upper,
            von_neumann_bound(
                self.counts, dimension=dimension, lams=self.lams, bias=self.bias is not None
            ),
        )


@result
class DeepLinearSearch:
    """The best end of a multi-start search over all parameters, the features of every sample
    included.

    Attributes
    ----------
    objective
        Its value.
    layers, features, bias
        Its parameters, shapes as in :class:`DeepLinearMinimizer`; features (d, N), samples ordered
        by class.
    ends
        Value at the end of every start that was made, shape (n_starts,) or shorter where a target
        ended the search.
    """

    objective: float
    layers: tuple[FloatArray, ...]
    features: FloatArray
    bias: FloatArray | None
    ends: FloatArray

    @property
    def logits(self) -> FloatArray:
        """(K, N) logits, bias included."""
        logits = reduce(np.matmul, (*self.layers, self.features))
        return logits if self.bias is None else logits + self.bias[:, None]


def jump_threshold(n_layers: int) -> float:
    r"""Return $\tau_*=(M-1)^{M-1}/M^{2M}$: class k survives squared loss iff
    $N^{M+1}\Lambda/n_k^M<\tau_*$.

    Derived in closed form from the per-class problem of dang2023-neural (deep squared loss). For M
    = 1 it is 1, and the transition is continuous; for more layers the length jumps from
    $(1-1/M)\sqrt{n_k}$ to 0.

    Parameters
    ----------
    n_layers
        M >= 1.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import jump_threshold
    >>> jump_threshold(2)
    0.0625
    """
    M = as_count(n_layers, "n_layers")
    return float((M - 1) ** (M - 1) / M ** (2 * M))


def spinodal(n_layers: int) -> float:
    r"""Return the $\tau$ up to which a non-zero stationary length exists; beyond the jump it
    is only a local minimum.

    The maximum of $(1-q)^{M+1}q^{M-1}$, at $q=(M-1)/(2M)$. For M = 1 it is 1, the
    threshold itself.

    Parameters
    ----------
    n_layers
        M >= 1.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import spinodal
    >>> round(spinodal(2), 4)
    0.1055
    """
    M = as_count(n_layers, "n_layers")
    return float(((M + 1) / (2 * M)) ** (M + 1) * ((M - 1) / (2 * M)) ** (M - 1))


def stationary_ratio(tau: ArrayLike, n_layers: int) -> FloatArray:
    r"""Return the largest root q of $(1-q)^{M+1}q^{M-1}=\tau$; NaN beyond the
    :func:`spinodal`.

    Parameters
    ----------
    tau
        (r,), $N^{M+1}\Lambda/n_k^M$, non-negative.
    n_layers
        M >= 1.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import stationary_ratio
    >>> np.round(stationary_ratio([0.0, 0.05, 1.0], 2), 4)
    array([1.    , 0.5505,    nan])
    """
    values = as_array(tau, "tau", ndim=1, nonnegative=True)
    M = as_count(n_layers, "n_layers")
    if M == 1:
        return np.where(values <= 1.0, 1 - np.sqrt(values), np.nan)
    low, high = np.full(values.shape, (M - 1) / (2 * M)), np.ones(values.shape)
    # Monotone between the spinodal and 1: bisection to the last bit.
    for _ in range(60):
        middle = (low + high) / 2
        right = (1 - middle) ** (M + 1) * middle ** (M - 1) > values
        low, high = np.where(right, middle, low), np.where(right, high, middle)
    return np.where(values <= spinodal(M), (low + high) / 2, np.nan)


def collapse_ratio(tau: ArrayLike, n_layers: int) -> FloatArray:
    r"""Return $p_k/\sqrt{n_k}$ at the global minimum of squared loss, a function of
    $\tau=N^{M+1}\Lambda/n_k^M$ only.

    Parameters
    ----------
    tau
        (r,), non-negative.
    n_layers
        M >= 1.

    Returns
    -------
    numpy.ndarray
        (r,); at the threshold itself 0.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import collapse_ratio
    >>> np.round(collapse_ratio([0.0, 0.05, 0.07], 2), 4)
    array([1.    , 0.5505, 0.    ])
    """
    values = as_array(tau, "tau", ndim=1, nonnegative=True)
    M = as_count(n_layers, "n_layers")
    return np.where(values < jump_threshold(M), stationary_ratio(values, M), 0.0)


@refuses_overflow("lams")
def deep_linear_minimizer(
    counts: ArrayLike,
    lams: ArrayLike,
    *,
    dimension: int,
    loss: Loss | str = "mse",
    bias: bool = False,
    n_starts: int = 20,
    seed: int = 0,
) -> DeepLinearMinimizer:
    """Return a global minimizer for squared loss or one layer, and the best known point for deeper
    cross-entropy.

    Parameters
    ----------
    counts
        (K,) class sizes, K >= 2.
    dimension
        d, width of features and hidden layers.
    lams
        (M + 1,) positive weight decay of W_M, ..., W_1 and the features, in the order of the
        product.
    loss
        A :class:`Loss`, or its name.
    bias
        Whether there is a last-layer bias, not penalised.
    n_starts, seed
        Of the local searches, for cross-entropy with two or more layers.

    Raises
    ------
    ValueError
        On bad input.

    Notes
    -----
    dang2023-neural, deep linear networks, squared loss balanced and imbalanced: a class is tested
    against the threshold, so that lengths of merely stationary classes are never reported.

    Examples
    --------
    >>> from theorylab.neural_collapse import deep_linear_minimizer
    >>> best = deep_linear_minimizer([2, 2], [0.01, 0.01, 0.01], dimension=2, loss="mse")
    >>> round(best.objective, 4)
    0.0375
    """
    n = as_counts(counts, "counts")
    d = as_count(dimension, "dimension")
    decay = _as_lams(lams)
    kind = as_loss(loss)
    as_flag(bias, "bias")
    n_starts = as_count(n_starts, "n_starts")
    seed = as_count(seed, "seed", minimum=0)
    if not isinstance(kind, Squared) and decay.size == 2:
        model = UnconstrainedFeatures(n, lam_w=decay[0], lam_h=decay[1], loss=kind, bias=bias)
        flat = ufm_minimizer(model, dimension=d)
        convex = DeepLinearStatus.CONVEX
        return DeepLinearMinimizer(
            flat.objective,
            (flat.classifier,),
            flat.class_features,
            flat.bias,
            flat.singular_values,
            n,
            decay,
            kind,
            convex,
        )
    if not isinstance(kind, Squared):
        return _search_collapsed(n, d, decay, kind, bias, n_starts, seed)
    total, depth = float(n.sum()), decay.size
    price = float(np.exp(np.log(decay).mean()))
    labels = label_spectrum(n, bias).largest(n.size)
    fitted = shrink_singular_values(labels.values, total * price, depth=depth)
    fitted[d:] = 0.0
    objective = float(
        np.sum((labels.values - fitted) ** 2) / (2 * total)
        + depth / 2 * price * np.sum(fitted ** (2 / depth))
    )
    return _point(
        Spectrum(fitted, labels.left, labels.right),
        n,
        d,
        decay,
        n / total if bias else None,
        objective,
        kind,
        DeepLinearStatus.CLOSED_FORM,
    )


@refuses_overflow("features", "layers", "bias")
def deep_linear_objective(
    features: ArrayLike,
    layers: Sequence[ArrayLike],
    counts: ArrayLike,
    lams: ArrayLike,
    *,
    loss: Loss | str = "mse",
    bias: ArrayLike | None = None,
    lam_b: float = 0.0,
) -> float:
    """Return the objective of the deep linear model (module docstring) plus ``lam_b / 2 |bias|^2``.

    Parameters
    ----------
    features
        (d_1, N), samples ordered by class.
    layers
        W_M, ..., W_1, in the order of the product.
    counts
        (K,) class sizes, K >= 2.
    lams
        (M + 1,) positive weight decay of the layers and the features.
    loss
        A :class:`Loss`, or its name.
    bias
        (K,), zero by default.
    lam_b
        Weight decay of the bias, >= 0.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import deep_linear_objective
    >>> features, classifier = [[1.0, -1.0]], [[1.0], [-1.0]]
    >>> deep_linear_objective(features, [classifier], [1, 1], [0.1, 0.1])
    0.7
    """
    H, factors, n, decay, b, lam_b = _checked(features, layers, counts, lams, bias, lam_b)
    labels = np.repeat(np.arange(n.size), n)
    logits = reduce(np.matmul, (*factors, H)) + b[:, None]
    value, _ = as_loss(loss).mean(logits, labels, np.ones(labels.size))
    penalty = sum(lam * np.sum(W**2) for lam, W in zip(decay, (*factors, H), strict=True))
    return float(value + penalty / 2 + lam_b / 2 * (b @ b))


@refuses_overflow("features", "bias", infinite=True)
def certified_objective(
    features: ArrayLike,
    layers: Sequence[ArrayLike],
    counts: ArrayLike,
    lams: ArrayLike,
    *,
    loss: Loss | str = "mse",
    bias: ArrayLike | None = None,
    lam_b: float = 0.0,
) -> float:
    """Return a double that is not below the objective at this point, computed in interval
    arithmetic.

    Parameters and errors are those of :func:`deep_linear_objective`.

    Examples
    --------
    >>> from theorylab.neural_collapse import certified_objective
    >>> features, classifier = [[1.0, -1.0]], [[1.0], [-1.0]]
    >>> proved = certified_objective(features, [classifier], [1, 1], [0.1, 0.1])
    >>> 0.7 <= proved < 0.7 + 1e-12
    True
    """
    H, factors, n, decay, b, lam_b = _checked(features, layers, counts, lams, bias, lam_b)
    labels, kind = np.repeat(np.arange(n.size), n), as_loss(loss)
    with precision():
        Z = reduce(
            lambda product, W: product * ball_matrix(W), factors[1:], ball_matrix(factors[0])
        ) * ball_matrix(H)
        offset = [arb(v) for v in b.tolist()]
        value = arb(0)
        for i, label in enumerate(labels.tolist()):
            value += kind.ball([Z[k, i] + offset[k] for k in range(n.size)], label)
        value /= labels.size
        for lam, W in zip(decay, (*factors, H), strict=True):
            value += rational(lam) * square_sum(W) / 2
        return above(value + rational(lam_b) * square_sum(b) / 2)


@refuses_overflow("lams")
def von_neumann_bound(
    counts: ArrayLike, lams: ArrayLike, *, dimension: int, bias: bool = False
) -> float:
    r"""Return a double that is not above the minimum of squared loss, proved in interval
    arithmetic.

    $\|P-Y\|_F^2\ge\sum_i(s_i(P)-\sigma_i)^2$ separates the problem into scalar ones, each
    bounded from below by bisection. The squares of $\sigma_i$ are the class sizes without
    bias, else bounded by Sylvester's law of inertia. Meant for K up to about 50.

    Parameters
    ----------
    counts
        (K,) class sizes, K >= 2.
    dimension
        d, least width: only d singular values can be fitted.
    lams
        (M + 1,) positive weight decay.
    bias
        Whether there is a last-layer bias, not penalised.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import deep_linear_minimizer, von_neumann_bound
    >>> best = deep_linear_minimizer([2, 2], [0.01, 0.01, 0.01], dimension=2, loss="mse")
    >>> best.objective - von_neumann_bound([2, 2], [0.01, 0.01, 0.01], dimension=2) < 1e-9
    True
    """
    n = as_counts(counts, "counts")
    d = as_count(dimension, "dimension")
    decay = _as_lams(lams)
    as_flag(bias, "bias")
    depth, total = decay.size, int(n.sum())
    sizes = [int(v) for v in n]
    with precision():
        if bias:
            rows = [
                [
                    fmpq(sizes[i] if i == j else 0) - fmpq(sizes[i] * sizes[j], total)
                    for j in range(n.size)
                ]
                for i in range(n.size)
            ]
            squares = eigenvalues_from_below(fmpq_mat(rows))
        else:
            squares = [fmpq(v) for v in sorted(sizes, reverse=True)]
        price = _price(decay)
        known: dict[fmpq, arb] = {}
        value = arb(0)
        for rank, square in enumerate(squares):
            if rank >= d:
                value += arb(square) / (2 * total)
                continue
            if square not in known:
                known[square] = _scalar_bound(arb(square).sqrt(), total, price, depth)
            value += known[square]
        return below(value)


def simplex_sum_logits(blocks: ArrayLike) -> FloatArray:
    r"""Return orthogonal simplex logits in blocks of classes, scaled to a gap of 1 between the
    blocks.

    Inside a block of $\kappa\ge2$ classes:
    $\frac\kappa{\kappa-1}(I-\frac1\kappa\mathbf1\mathbf1^\top)$. One block is the simplex ETF
    (scaled to a gap of $K/(K-1)$), pairs are a cross-polytope, single classes an orthogonal
    frame.

    Parameters
    ----------
    blocks
        (B,) sizes, positive integers, at least two classes together.

    Returns
    -------
    numpy.ndarray
        (K, K), a column a class.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import simplex_sum_logits
    >>> simplex_sum_logits([2, 2])
    array([[ 1., -1.,  0.,  0.],
           [-1.,  1.,  0.,  0.],
           [ 0.,  0.,  1., -1.],
           [ 0.,  0., -1.,  1.]])
    """
    sizes = _as_blocks(blocks)
    logits = np.zeros((sizes.sum(), sizes.sum()))
    start = 0
    for size in sizes.tolist():
        inside = slice(start, start + size)
        logits[inside, inside] = (size * np.eye(size) - 1) / (size - 1) if size > 1 else 1.0
        start += size
    return logits


def simplex_sum_price(blocks: ArrayLike, depth: int) -> float:
    r"""Return $\sum_is_i^{2/L}=\sum_j(\kappa_j-1)(\kappa_j/(\kappa_j-1))^{2/L}$ of logits
    with gap 1 between the blocks.

    The ETF of gap 1 has $K-1$. Where the sum is smaller, and there are at least two blocks,
    none of a single class, the blocks beat the ETF for cross-entropy at every scale (module
    docstring).

    Parameters
    ----------
    blocks
        (B,) sizes, positive integers, at least two classes together.
    depth
        L >= 2, the number of factors: linear layers and features.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import simplex_sum_price
    >>> simplex_sum_price([2, 2], depth=2)
    4.0
    """
    sizes = _as_blocks(blocks)
    L = as_count(depth, "depth", minimum=2)
    return float(sum((k - 1) * (k / (k - 1)) ** (2 / L) if k > 1 else 1.0 for k in sizes.tolist()))


def polygon_logits(n_classes: int) -> FloatArray:
    r"""Return the logits $\cos(2\pi(j-k)/K)/(1-\cos(2\pi/K))$ of a regular polygon, of rank 2
    and least gap 1.

    Parameters
    ----------
    n_classes
        K >= 3.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import polygon_logits
    >>> np.round(polygon_logits(4), 12)
    array([[ 1.,  0., -1., -0.],
           [ 0.,  1.,  0., -1.],
           [-1.,  0.,  1.,  0.],
           [-0., -1.,  0.,  1.]])
    """
    K = as_count(n_classes, "n_classes", minimum=3)
    angles = 2 * np.pi * np.arange(K) / K
    logits: FloatArray = np.cos(angles[:, None] - angles) / (1 - np.cos(2 * np.pi / K))
    return logits


def pairs_and_one_logits(n_classes: int) -> FloatArray:
    r"""Return logits of (K - 1) / 2 opposite pairs and a last class opposed to all others, for odd
    K, of rank (K + 1) / 2.

    The pairs have gap 1 among each other; the last class adds $w\,uv^\top$ with
    $u=(-\frac1{K-1},\dots,1)$, $v=(-t,\dots,1)$. Any w and t give a valid upper bound
    of the cross-entropy minimum; w = 0.86 and t = 0.15 are near what local search finds for K = 5
    and two layers.

    Parameters
    ----------
    n_classes
        K >= 3, odd.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import pairs_and_one_logits
    >>> np.linalg.matrix_rank(pairs_and_one_logits(5)).item()
    3
    """
    K = as_count(n_classes, "n_classes", minimum=3)
    if K % 2 == 0:
        raise ValueError(f"n_classes: expected an odd number, got {K}")
    logits = np.zeros((K, K))
    logits[:-1, :-1] = simplex_sum_logits([2] * (K // 2))
    u, v = np.full(K, -1 / (K - 1)), np.full(K, -0.15)
    u[-1] = v[-1] = 1.0
    return logits + 0.86 * np.outer(u, v)


@refuses_overflow("lams", infinite=True)
def von_neumann_radius(counts: ArrayLike, lams: ArrayLike, *, excess: float) -> float:
    r"""Bound the Frobenius distance of logits to those of the minimizer of squared loss without
    bias (derived).

    An excess over the minimum, width at least K, is a sum of non-negative terms: those of the
    scalar problems, which exceed their minima by at least $\frac gN(p-p_k)^2$; and
    $\frac1N\sum_j(\sigma_j-\sigma_{j+1})D_j$, sizes descending, $D_j\ge0$ the defects
    of Ky Fan's inequalities for the first j singular vectors. The squared distance is
    $\sum_k(s_k-p_k)^2+2\sum_j(p_j-p_{j+1})D_j$. The scalar problems of classes j and j+1 at
    each other's minimizers give $2g(p_j-p_{j+1})\le\sigma_j-\sigma_{j+1}$, so that it is at
    most N/g times the excess.

    Parameters
    ----------
    counts
        (K,) class sizes, K >= 2.
    lams
        (M + 1,) positive weight decay.
    excess
        Objective above the minimum, non-negative.

    Returns
    -------
    float
        Very large or infinite where a class is at its jump: there the minimizer is not unique.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import von_neumann_radius
    >>> von_neumann_radius([2, 2], [0.01, 0.01, 0.01], excess=1e-6) < 0.1
    True
    """
    n, decay = as_counts(counts, "counts").astype(np.float64), _as_lams(lams)
    excess, total, depth = as_real(excess, "excess", minimum=0.0), float(n.sum()), decay.size
    # Objective of the scalar problem in the fit x = p / sigma, over n_k / N.
    prices = depth * np.exp(np.log(decay).mean()) * total * n ** (1 / depth - 1)
    tau = (prices / depth) ** depth
    if not np.isfinite(tau).all():
        raise OverflowError
    fits = collapse_ratio(tau, depth - 1)
    q, x = fits[:, None], np.linspace(0, 1, 2001)

    def value(x: FloatArray) -> FloatArray:
        objective: FloatArray = ((1 - x) ** 2 + prices[:, None] * x ** (2 / depth)) / 2
        return objective

    # Beyond the fit the second derivative grows; within .001 of it the quotient moves by below 2 %.
    far = np.abs(x - q) > 1e-3
    growth = np.where(far, (value(x + 0 * q) - value(q)) / np.where(far, (x - q) ** 2, 1), np.inf)
    least = 0.98 * float(growth.min())
    return float(np.sqrt(total * excess / least)) if least > 0 else np.inf


@refuses_overflow("lams", "logits")
def best_scale(logits: ArrayLike, counts: ArrayLike, lams: ArrayLike) -> DeepLinearMinimizer:
    """Return the best positive multiple of given logits for cross-entropy, factored at least
    penalty (width K, no bias).

    Parameters
    ----------
    logits
        (K, K), a column a class.
    counts
        (K,) class sizes, K >= 2.
    lams
        (M + 1,) positive weight decay of the layers and the features.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import best_scale
    >>> round(best_scale([[1.0, -1.0], [-1.0, 1.0]], [1, 1], [0.01, 0.01]).objective, 4)
    0.056
    """
    n = as_counts(counts, "counts")
    A = as_array(logits, "logits", shape=(n.size, n.size))
    decay = _as_lams(lams)
    depth, K = decay.size, n.size
    left, values, right = np.linalg.svd(A * np.sqrt(n))
    kept = values > K * np.finfo(float).eps * values[0]
    if not kept.any():
        raise ValueError("logits: expected a matrix other than zero")
    cost = depth / 2 * np.exp(np.log(decay).mean()) * np.sum(values[kept] ** (2 / depth))
    weights = n.astype(np.float64)

    def objective(scale: float) -> float:
        value, _ = CrossEntropy().mean(scale * A, np.arange(K), weights)
        return float(value + cost * scale ** (2 / depth))

    # Beyond this scale the penalty alone exceeds the loss at zero. A convex loss plus a concave
    # penalty needs a grid, and the best logits are of order one to ten while the end can be
    # millions, so the grid is logarithmic.
    stop = (np.log(K) / cost) ** (depth / 2)
    if not 0 < stop < np.inf:
        raise OverflowError
    grid = np.geomspace(min(1e-3 / np.abs(A).max(), stop / 2), stop, 200)
    at = int(np.argmin([objective(s) for s in grid]))
    low, high = grid[max(at - 1, 0)] * (at > 0), grid[min(at + 1, grid.size - 1)]
    inner = minimize_scalar(
        objective, bounds=(low, high), method="bounded", options={"xatol": 1e-10 * high}
    )
    scale = float(inner.x)
    spectrum = Spectrum(scale * values[kept], left[:, kept], right[kept])
    return _point(
        spectrum, n, K, decay, None, objective(scale), CrossEntropy(), DeepLinearStatus.SCALED
    )


@refuses_overflow("lams")
def etf_bound(n_classes: int, lams: ArrayLike, *, n_per_class: int) -> float:
    r"""Return a double that is not above the cross-entropy objective of any point whose logits are
    a simplex ETF.

    That is $\min_{s\ge0}\log(1+(K-1)e^{-s})+\frac L2\Lambda^{1/L}(K-1)(s\sqrt n)^{2/L}$, see
    :func:`simplex_sum_bound`. The bound covers every scale, every factorization, every bias, free
    or penalised (the mean over permutations of a bias is constant and no worse), and ETFs whose
    vertices are assigned to the classes in another order or with the opposite sign (at the same
    singular values their loss is larger).

    Parameters
    ----------
    n_classes, n_per_class
        K >= 2 classes of n samples.
    lams
        (M + 1,) positive weight decay of the layers and the features.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import best_scale, etf_bound
    >>> lams = [0.01, 0.01, 0.01]
    >>> etf_bound(4, lams, n_per_class=1) <= best_scale(4 * np.eye(4) - 1, [1] * 4, lams).objective
    True
    """
    K = as_count(n_classes, "n_classes", minimum=2)
    n_per_class = as_count(n_per_class, "n_per_class")
    return simplex_sum_bound([K], n_per_class=n_per_class, lams=_as_lams(lams))


@refuses_overflow("lams")
def simplex_sum_bound(blocks: ArrayLike, lams: ArrayLike, *, n_per_class: int) -> float:
    r"""Return a double that is not above the cross-entropy objective of any positive multiple of
    :func:`simplex_sum_logits`.

    The loss is convex in the scale and the penalty concave; bisection in interval arithmetic proves
    the bound over all scales, at a relative distance of 1e-10 from the best one. It covers every
    factorization and, if all blocks have one size, every bias.

    Parameters
    ----------
    blocks
        (B,) sizes, positive integers, at least two classes together.
    n_per_class
        Samples in each class.
    lams
        (M + 1,) positive weight decay of the layers and the features.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import best_scale, simplex_sum_bound, simplex_sum_logits
    >>> lams = [0.01, 0.01, 0.01]
    >>> reached = best_scale(simplex_sum_logits([2, 2]), [1, 1, 1, 1], lams).objective
    >>> simplex_sum_bound([2, 2], lams, n_per_class=1) <= reached
    True
    """
    sizes = _as_blocks(blocks).tolist()
    n = as_count(n_per_class, "n_per_class")
    decay = _as_lams(lams)
    depth, K = decay.size, sum(sizes)
    best = best_scale(simplex_sum_logits(sizes), np.full(K, n), decay).objective
    with precision():
        price = sum(
            (power(arb(k) / (k - 1), 2, depth) * (k - 1) if k > 1 else arb(1) for k in sizes),
            arb(0),
        )
        cost = _price(decay) * depth / 2 * price

        def loss(s: arb) -> tuple[arb, arb]:
            value, slope = arb(0), arb(0)
            for k in sizes:
                outside, inside = (K - k) * (-s).exp(), arb(0)
                ratio = arb(k) / (k - 1) if k > 1 else arb(0)
                if k > 1:
                    inside = (k - 1) * (-s * ratio).exp()
                norm = 1 + outside + inside
                value += norm.log() * k / K
                slope -= (outside + ratio * inside) / norm * k / K
            return value, slope

        def penalty(s: arb) -> arb:
            return cost * power(s * s * n, 1, depth)

        top = min(best, float(np.log(K)))
        stop = float((np.log(K) / float(cost.mid())) ** (depth / 2) / np.sqrt(n))
        while not penalty(arb(stop)) >= top:
            stop *= 2
        for slack in _PROOF_SLACKS:
            bound = arb(top * (1 - slack))
            if proves_bound(loss, penalty, stop, bound):
                return below(bound)
        return 0.0


@refuses_overflow("lams", "lam_b")
def search_deep_linear(
    counts: ArrayLike,
    lams: ArrayLike,
    *,
    dimension: int,
    loss: Loss | str = "mse",
    bias: bool = False,
    lam_b: float = 0.0,
    n_starts: int = 20,
    target: float | None = None,
    seed: int = 0,
) -> DeepLinearSearch:
    """Minimise over all parameters by L-BFGS from random starts, knowing nothing of the structure
    of minimizers.

    For two or more layers zero is a local minimum, so that some starts end there. Each start makes
    a rough descent at a random multiple, 0.05 to 1.5, of the weight decay, then a full one.

    Parameters
    ----------
    counts
        (K,) class sizes, K >= 2.
    dimension
        d, width of features and hidden layers.
    lams
        (M + 1,) positive weight decay of the layers and the features.
    loss
        A :class:`Loss`, or its name.
    bias
        Whether there is a last-layer bias.
    lam_b
        Its weight decay, >= 0.
    n_starts, seed
        Number of random starts, and their seed.
    target
        Value at which the search is over: once a start ends there or below, no further one is made.
        A proved lower bound, up to the accuracy wanted, is such a value.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import best_scale, search_deep_linear
    >>> found = search_deep_linear([1, 1], [0.01, 0.01], dimension=2, n_starts=2, seed=0)
    >>> best = best_scale([[1.0, -1.0], [-1.0, 1.0]], [1, 1], [0.01, 0.01])
    >>> found.objective - best.objective < 1e-6
    True
    """
    n = as_counts(counts, "counts")
    d = as_count(dimension, "dimension")
    decay = _as_lams(lams)
    kind = as_loss(loss)
    as_flag(bias, "bias")
    lam_b = as_real(lam_b, "lam_b", minimum=0.0)
    n_starts = as_count(n_starts, "n_starts")
    enough = -np.inf if target is None else as_real(target, "target")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    labels = np.repeat(np.arange(n.size), n)
    problem = _Factored(n.size, d, labels, np.ones(labels.size), decay, kind, bias, lam_b)
    found: list[tuple[FloatArray, float]] = []
    while len(found) < n_starts and not (found and found[-1][1] <= enough):
        found.append(problem.descend(problem.random_start(rng)))
    theta, objective = min(found, key=lambda end: end[1])
    layers, features, offset = problem.parameters(theta)
    return DeepLinearSearch(
        objective, layers, features, offset if bias else None, np.array([end[1] for end in found])
    )


class _Factored:
    """The objective as a function of one vector: factors scaled so that each carries the same
    weight decay, then the bias."""

    def __init__(
        self,
        n_classes: int,
        d: int,
        labels: NDArray[np.int64],
        weights: FloatArray,
        lams: FloatArray,
        loss: Loss,
        bias: bool,
        lam_b: float,
    ) -> None:
        self.labels, self.weights, self.loss, self.bias, self.lam_b = (
            labels,
            weights,
            loss,
            bias,
            lam_b,
        )
        self.shapes = [(n_classes, d), *[(d, d)] * (lams.size - 2), (d, labels.size)]
        cuts = np.cumsum([0, *(a * b for a, b in self.shapes)]).tolist()
        self.parts = [
            (slice(*ends), shape) for ends, shape in zip(pairwise(cuts), self.shapes, strict=True)
        ]
        self.end: int = cuts[-1]
        self.price = float(np.exp(np.log(lams).mean()))
        self.scales = np.sqrt(self.price / lams)
        self.column_scale = 1 / np.sqrt(weights)
        self.size = self.end + n_classes * bias

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        return [theta[part].reshape(shape) for part, shape in self.parts]

    def parameters(
        self, theta: FloatArray
    ) -> tuple[tuple[FloatArray, ...], FloatArray, FloatArray]:
        parts = [W * scale for W, scale in zip(self.factors(theta), self.scales, strict=True)]
        return tuple(parts[:-1]), parts[-1] * self.column_scale, theta[self.end :]

    def random_start(self, rng: np.random.Generator) -> FloatArray:
        """Return Gaussian factors, after a rough descent at a random multiple of the weight decay.

        Basins of classes close to their jump are narrow. Weaker decay at first leads into those
        that survive, stronger decay into those that die."""
        depth, K, d = len(self.shapes), self.shapes[0][0], self.shapes[0][1]
        # Around the size at which the product has singular values of the order of those that fit
        # the labels: small starts grow one direction at a time and end at low rank, large ones keep
        # all directions.
        target = (1.0 if isinstance(self.loss, Squared) else 6.0) * np.sqrt(self.weights.sum() / K)
        size = (
            np.exp(rng.uniform(np.log(0.3), np.log(2.5)))
            * (2 * target) ** (1 / depth)
            / np.sqrt(max(d, K))
        )
        theta, price = rng.normal(size=self.size) * size, self.price
        self.price = price * float(np.exp(rng.uniform(np.log(0.05), np.log(1.5))))
        options = {"maxiter": 300, "ftol": 1e-9, "maxcor": 20}
        theta, _ = self._minimize(theta, options)
        self.price = price
        return theta

    def value_and_gradient(self, theta: FloatArray) -> tuple[float, FloatArray]:
        factors = self.factors(theta)
        product = [factors[0]]
        for W in factors[1:]:
            product.append(product[-1] @ W)
        logits = product[-1] * self.column_scale
        offset = theta[self.end :]
        if self.bias:
            logits = logits + offset[:, None]
        value, slope = self.loss.mean(logits, self.labels, self.weights)
        value += self.price / 2 * float(theta[: self.end] @ theta[: self.end])
        gradient = self.price * theta
        parts = self.factors(gradient)
        if self.bias:
            value += self.lam_b / 2 * float(offset @ offset)
            gradient[self.end :] = slope.sum(axis=1) + self.lam_b * offset
        back = slope * self.column_scale
        for index in range(len(factors) - 1, 0, -1):
            parts[index] += product[index - 1].T @ back
            back = back @ factors[index].T
        parts[0] += back
        return value, gradient

    def descend(self, theta: FloatArray) -> tuple[FloatArray, float]:
        options = {"maxiter": 20000, "maxfun": 30000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 20}
        return self._minimize(theta, options)

    def _minimize(self, theta: FloatArray, options: Any) -> tuple[FloatArray, float]:
        objective: Any = self.value_and_gradient
        result = minimize(objective, theta, jac=True, method="L-BFGS-B", options=options)
        return result.x, float(result.fun)


def _search_collapsed(
    n: NDArray[np.int64],
    d: int,
    lams: FloatArray,
    loss: Loss,
    bias: bool,
    n_starts: int,
    seed: int,
) -> DeepLinearMinimizer:
    """Search over collapsed points (others are no better: averaging inside classes lowers loss and
    singular values)."""
    rng = np.random.default_rng(seed)
    problem = _Factored(n.size, d, np.arange(n.size), n.astype(np.float64), lams, loss, bias, 0.0)
    ends = [problem.descend(problem.random_start(rng)) for _ in range(n_starts)]
    theta, objective = min(ends, key=lambda end: end[1])
    layers, features, offset = problem.parameters(theta)
    product: FloatArray = reduce(np.matmul, (*layers, features))
    values = np.linalg.svd(product * np.sqrt(n), compute_uv=False)[: min(n.size, d)].astype(
        np.float64
    )
    return DeepLinearMinimizer(
        objective,
        layers,
        features,
        offset - offset.mean() if bias else None,
        values,
        n,
        lams,
        loss,
        DeepLinearStatus.SEARCHED,
    )


def _point(
    spectrum: Spectrum,
    n: NDArray[np.int64],
    d: int,
    lams: FloatArray,
    bias: FloatArray | None,
    objective: float,
    loss: Loss,
    status: DeepLinearStatus,
) -> DeepLinearMinimizer:
    *layers, features = balanced_factors(spectrum, n, lams, d)
    values = np.zeros(min(n.size, d))
    descending = np.sort(spectrum.values)[::-1][: values.size]
    values[: descending.size] = descending
    return DeepLinearMinimizer(
        objective, tuple(layers), features, bias, values, n, lams, loss, status
    )


def _price(lams: FloatArray) -> arb:
    """Enclose the geometric mean of the weight decays."""
    product = reduce(lambda a, b: a * b, (rational(v) for v in lams), fmpq(1))
    return arb(product).root(lams.size)


def _scalar_bound(sigma: arb, total: int, price: arb, depth: int) -> arb:
    """Return a proved lower bound of ``(sigma - p)^2 / (2 N) + L/2 price p^(2/L)`` over p >= 0."""
    size = float(sigma.mid())
    fitted = float(shrink_singular_values([size], total * float(price.mid()), depth=depth)[0])
    value = (size - fitted) ** 2 / (2 * total) + depth / 2 * float(price.mid()) * fitted ** (
        2 / depth
    )

    def fit(p: arb) -> tuple[arb, arb]:
        return (sigma - p) ** 2 / (2 * total), (p - sigma) / total

    def penalty(p: arb) -> arb:
        return price * depth / 2 * power(p * p, 1, depth)

    # Beyond sigma both terms grow.
    for slack in _PROOF_SLACKS:
        bound = arb(value * (1 - slack))
        if proves_bound(fit, penalty, above(sigma), bound):
            return bound
    return arb(0)


def _as_lams(lams: ArrayLike) -> FloatArray:
    decay = as_array(lams, "lams", ndim=1, positive=True)
    if decay.size < 2:
        raise ValueError(
            "lams: expected the weight decay of at least one layer and of the "
            f"features, got shape {decay.shape}"
        )
    return decay


def _as_blocks(blocks: ArrayLike) -> NDArray[np.int64]:
    array = as_array(blocks, "blocks", ndim=1, positive=True)
    sizes = array.astype(np.int64)
    if (sizes != array).any() or sizes.sum() < 2:
        raise ValueError(
            f"blocks: expected positive integers of sum at least 2, got {array[:8].tolist()}"
        )
    return sizes


def _checked(
    features: ArrayLike,
    layers: Sequence[ArrayLike],
    counts: ArrayLike,
    lams: ArrayLike,
    bias: ArrayLike | None,
    lam_b: float,
) -> tuple[FloatArray, list[FloatArray], NDArray[np.int64], FloatArray, FloatArray, float]:
    n = as_counts(counts, "counts")
    H = as_array(features, "features", shape=(None, int(n.sum())))
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise ValueError(
            f"layers: expected a non-empty sequence of matrices, got {type(layers).__name__}"
        )
    factors = [as_array(W, f"layers[{i}]", ndim=2) for i, W in enumerate(layers)]
    shapes = [W.shape for W in (*factors, H)]
    if shapes[0][0] != n.size or any(a[1] != b[0] for a, b in pairwise(shapes)):
        raise ValueError(
            f"layers: expected shapes that multiply to ({n.size}, {H.shape[0]}) times "
            f"features, got {shapes[:-1]}"
        )
    decay = _as_lams(lams)
    if decay.size != len(factors) + 1:
        raise ValueError(
            f"lams: expected one weight decay for each of {len(factors)} layers and "
            f"the features, got {decay.size}"
        )
    b = np.zeros(n.size) if bias is None else as_array(bias, "bias", shape=(n.size,))
    return H, factors, n, decay, b, as_real(lam_b, "lam_b", minimum=0.0)
