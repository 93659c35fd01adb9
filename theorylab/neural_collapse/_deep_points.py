"""Points of deep linear heads: the objective, and bounds of the minimum of squared loss."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cached_property, reduce
from itertools import pairwise

import numpy as np
from flint import arb, fmpq, fmpq_mat
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real, refuses_overflow
from theorylab.convex_relu import shrink_singular_values
from theorylab.neural_collapse._deep_lengths import collapse_ratio
from theorylab.neural_collapse._intervals import (
    eigenvalues_from_below,
    power,
    precision,
    proves_bound,
)
from theorylab.neural_collapse._losses import Loss, Squared, as_loss
from theorylab.neural_collapse._spectra import Spectrum, as_counts, balanced_factors
from theorylab.neural_collapse.unconstrained_features import (
    Certificate,
    UnconstrainedFeatures,
    certify_ufm,
)
from theorylab.numerics.balls import above, ball_matrix, below, rational, square_sum
from theorylab.numerics.results import result

__all__ = [
    "DeepLinearMinimizer",
    "DeepLinearStatus",
    "certified_objective",
    "deep_linear_objective",
    "von_neumann_bound",
    "von_neumann_radius",
]

# Relative amounts by which the proved lower bounds stay below the minimum found in double
# precision: the first with which the bisection succeeds. Where doubles are too coarse near the
# minimizer, as for tiny weight decay, a looser bound is proved; zero always is one.
PROOF_SLACKS = (1e-10, 1e-6, 1e-3, 0.5)


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
    """Return the objective of the model of ``deep_linear`` plus ``lam_b / 2 |bias|^2``.

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

    Examples
    --------
    >>> from theorylab.neural_collapse import deep_linear_minimizer, von_neumann_bound
    >>> best = deep_linear_minimizer([2, 2], [0.01, 0.01, 0.01], dimension=2, loss="mse")
    >>> best.objective - von_neumann_bound([2, 2], [0.01, 0.01, 0.01], dimension=2) < 1e-9
    True
    """
    n = as_counts(counts, "counts")
    d = as_count(dimension, "dimension")
    decay = as_lams(lams)
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
        price = price_ball(decay)
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

    Examples
    --------
    >>> from theorylab.neural_collapse import von_neumann_radius
    >>> von_neumann_radius([2, 2], [0.01, 0.01, 0.01], excess=1e-6) < 0.1
    True
    """
    n, decay = as_counts(counts, "counts").astype(np.float64), as_lams(lams)
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


def factored_point(
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


def price_ball(lams: FloatArray) -> arb:
    """Enclose the geometric mean of the weight decays."""
    product = reduce(lambda a, b: a * b, (rational(v) for v in lams), fmpq(1))
    return arb(product).root(lams.size)


def as_lams(lams: ArrayLike) -> FloatArray:
    decay = as_array(lams, "lams", ndim=1, positive=True)
    if decay.size < 2:
        raise ValueError(
            "lams: expected the weight decay of at least one layer and of the "
            f"features, got shape {decay.shape}"
        )
    return decay


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
    for slack in PROOF_SLACKS:
        bound = arb(value * (1 - slack))
        if proves_bound(fit, penalty, above(sigma), bound):
            return bound
    return arb(0)


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
    decay = as_lams(lams)
    if decay.size != len(factors) + 1:
        raise ValueError(
            f"lams: expected one weight decay for each of {len(factors)} layers and "
            f"the features, got {decay.size}"
        )
    b = np.zeros(n.size) if bias is None else as_array(bias, "bias", shape=(n.size,))
    return H, factors, n, decay, b, as_real(lam_b, "lam_b", minimum=0.0)
