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

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import as_count, as_flag, refuses_overflow
from theorylab.convex_relu import shrink_singular_values
from theorylab.neural_collapse._deep_lengths import (
    collapse_ratio,
    jump_threshold,
    spinodal,
    stationary_ratio,
)
from theorylab.neural_collapse._deep_points import (
    DeepLinearMinimizer,
    DeepLinearStatus,
    as_lams,
    certified_objective,
    deep_linear_objective,
    factored_point,
    von_neumann_bound,
    von_neumann_radius,
)
from theorylab.neural_collapse._deep_search import (
    DeepLinearSearch,
    search_collapsed,
    search_deep_linear,
)
from theorylab.neural_collapse._losses import Loss, Squared, as_loss
from theorylab.neural_collapse._simplex_sums import (
    best_scale,
    etf_bound,
    pairs_and_one_logits,
    polygon_logits,
    simplex_sum_bound,
    simplex_sum_logits,
    simplex_sum_price,
)
from theorylab.neural_collapse._spectra import Spectrum, as_counts, label_spectrum
from theorylab.neural_collapse.unconstrained_features import UnconstrainedFeatures, ufm_minimizer

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
    decay = as_lams(lams)
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
        return search_collapsed(n, d, decay, kind, bias, n_starts, seed)
    total, depth = float(n.sum()), decay.size
    price = float(np.exp(np.log(decay).mean()))
    labels = label_spectrum(n, bias).largest(n.size)
    fitted = shrink_singular_values(labels.values, total * price, depth=depth)
    fitted[d:] = 0.0
    objective = float(
        np.sum((labels.values - fitted) ** 2) / (2 * total)
        + depth / 2 * price * np.sum(fitted ** (2 / depth))
    )
    return factored_point(
        Spectrum(fitted, labels.left, labels.right),
        n,
        d,
        decay,
        n / total if bias else None,
        objective,
        kind,
        DeepLinearStatus.CLOSED_FORM,
    )
