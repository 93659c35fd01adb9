"""Logits of low rank that beat the simplex frame under cross-entropy, and bounds at every scale."""

from __future__ import annotations

import numpy as np
from flint import arb
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from theorylab._validation import FloatArray, as_array, as_count, refuses_overflow
from theorylab.neural_collapse._deep_points import (
    PROOF_SLACKS,
    DeepLinearMinimizer,
    DeepLinearStatus,
    as_lams,
    factored_point,
    price_ball,
)
from theorylab.neural_collapse._intervals import power, precision, proves_bound
from theorylab.neural_collapse._losses import CrossEntropy
from theorylab.neural_collapse._spectra import Spectrum, as_counts
from theorylab.numerics.balls import below

__all__ = [
    "best_scale",
    "etf_bound",
    "pairs_and_one_logits",
    "polygon_logits",
    "simplex_sum_bound",
    "simplex_sum_logits",
    "simplex_sum_price",
]


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
    none of a single class, the blocks beat the ETF for cross-entropy at every scale (see
    ``deep_linear``).

    Parameters
    ----------
    blocks
        (B,) sizes, positive integers, at least two classes together.
    depth
        L >= 2, the number of factors: linear layers and features.

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

    Examples
    --------
    >>> from theorylab.neural_collapse import best_scale
    >>> round(best_scale([[1.0, -1.0], [-1.0, 1.0]], [1, 1], [0.01, 0.01]).objective, 4)
    0.056
    """
    n = as_counts(counts, "counts")
    A = as_array(logits, "logits", shape=(n.size, n.size))
    decay = as_lams(lams)
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
    return factored_point(
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
    return simplex_sum_bound([K], n_per_class=n_per_class, lams=as_lams(lams))


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
    decay = as_lams(lams)
    depth, K = decay.size, sum(sizes)
    best = best_scale(simplex_sum_logits(sizes), np.full(K, n), decay).objective
    with precision():
        price = sum(
            (power(arb(k) / (k - 1), 2, depth) * (k - 1) if k > 1 else arb(1) for k in sizes),
            arb(0),
        )
        cost = price_ball(decay) * depth / 2 * price

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
        for slack in PROOF_SLACKS:
            bound = arb(top * (1 - slack))
            if proves_bound(loss, penalty, stop, bound):
                return below(bound)
        return 0.0


def _as_blocks(blocks: ArrayLike) -> NDArray[np.int64]:
    array = as_array(blocks, "blocks", ndim=1, positive=True)
    sizes = array.astype(np.int64)
    if (sizes != array).any() or sizes.sum() < 2:
        raise ValueError(
            f"blocks: expected positive integers of sum at least 2, got {array[:8].tolist()}"
        )
    return sizes
