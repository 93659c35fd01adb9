r"""Unconstrained features: global minimizers in closed form, thresholds of collapse, certificates
of optimality.

Features $H\in\mathbb R^{d\times N}$ are free parameters, $n_k$ columns for class k,
$N=\sum_kn_k$, with a linear classifier W (and possibly a bias b that is not penalised):

$$\min_{W,H,b}\;\ell(WH+b\mathbf
1^\top)+\frac{\lambda_W}2\|W\|_F^2+\frac{\lambda_H}2\|H\|_F^2,\qquad
\ell_{\mathrm{mse}}(Z)=\frac1{2N}\|Z-Y\|_F^2,\quad
\ell_{\mathrm{ce}}(Z)=\frac1N\sum_i\Big(\log\sum_ke^{Z_{ki}}-Z_{y_ii}\Big).$$

At fixed $P=WH$ the penalty is at least $\mu\|P\|_*$,
$\mu=\sqrt{\lambda_W\lambda_H}$, with equality for balanced factors, so for $d\ge K$ the
problem is convex in P. Its dual maximises $-\ell^*(G)$ over $\|G\|_{op}\le\mu$ (and
$G\mathbf 1=0$ with a bias). Squared loss: singular values of the (centred) labels are
soft-thresholded at $N\mu$; without a bias the frame is orthogonal with lengths set by the
class sizes. Cross-entropy: a simplex frame for equal classes; in general P depends on the group
sizes only, a convex problem in $G^2+G$ numbers for G distinct class sizes. Classes of equal
size n coincide iff $n\le N^2\lambda_W\lambda_H$, for both losses, with or without a bias.

Theorems: dang2023-neural (one linear layer); statements re-derived here, the paper's text was not
consulted."""

from __future__ import annotations

import math
import warnings
from dataclasses import KW_ONLY, field, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from flint import arb, fmpq, fmpq_mat
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.neural_collapse._intervals import (
    feasible_scale,
    is_positive_definite,
    precision,
)
from theorylab.neural_collapse._losses import CrossEntropy, Loss, Squared, as_loss
from theorylab.neural_collapse._reduced_cross_entropy import solve_cross_entropy
from theorylab.neural_collapse._spectra import (
    Spectrum,
    as_counts,
    balanced_factors,
    expand,
    groups_of,
    label_spectrum,
)
from theorylab.numerics.balls import (
    above,
    ball_matrix,
    below,
    rational,
    rational_matrix,
    square_sum,
)
from theorylab.numerics.results import result

__all__ = [
    "Certificate",
    "UfmMinimizer",
    "UfmProof",
    "UfmStatus",
    "UfmVerdict",
    "UnconstrainedFeatures",
    "certify_ufm",
    "collapse_threshold",
    "cross_entropy_gap",
    "ufm_minimizer",
    "ufm_objective",
]

_GAP = 1e-9


@result
class UnconstrainedFeatures:
    """The problem of the module docstring, its numbers checked once.

    Attributes
    ----------
    counts
        (K,) class sizes, K >= 2.
    lam_w, lam_h
        Weight decay of classifier and features, positive.
    loss
        A :class:`Loss`: squared, cross-entropy or max suppression; ``"mse"``, ``"ce"``, ``"ls"``
        and ``"maxsup"`` (smoothing 0.1) stand for them.
    bias
        Whether there is a last-layer bias, not penalised.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures
    >>> UnconstrainedFeatures([3, 2, 2], lam_w=0.01, lam_h=0.02, loss="ce")
    <UnconstrainedFeatures: counts (3,), lam_w 0.01, lam_h 0.02, bias False>
    """

    counts: NDArray[np.int64]
    _: KW_ONLY
    lam_w: float
    lam_h: float
    loss: Loss = Squared()
    bias: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        checked = {
            "counts": as_counts(self.counts, "counts"),
            "lam_w": as_real(self.lam_w, "lam_w", above=0.0),
            "lam_h": as_real(self.lam_h, "lam_h", above=0.0),
            "loss": as_loss(self.loss),
            "bias": as_flag(self.bias, "bias"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) class of every sample."""
        return np.repeat(np.arange(self.counts.size), self.counts)

    @property
    def price(self) -> float:
        r"""$\mu=\sqrt{\lambda_W\lambda_H}$, also where the product leaves float64."""
        return math.sqrt(self.lam_w) * math.sqrt(self.lam_h)


class UfmStatus(StrEnum):
    """How the minimizer was obtained."""

    CLOSED_FORM = "closed form"
    SOLVED = (
        "the reduced convex problem was solved; the certificate bounds the distance to the minimum"
    )
    STOPPED = (
        "the reduced convex problem stopped above the relative duality gap 1e-9; the "
        "certificate says how far"
    )


class UfmVerdict(StrEnum):
    """What :meth:`Certificate.verify` found."""

    ACCEPTED = "both bounds were proved anew"
    NO_PROOF = "the bounds come without the points that prove them"
    UPPER = "the objective of the point is not proved to be at most the upper bound"
    INFEASIBLE = "the dual point is not proved feasible"
    LOWER = "the dual value is not proved to be at least the lower bound"

    @property
    def accepted(self) -> bool:
        """Whether both bounds were proved."""
        return self is UfmVerdict.ACCEPTED


@result
class UfmProof:
    """A point of the model and a rational point of its dual, which together prove two bounds.

    Attributes
    ----------
    features, classifier, bias
        The point, shapes (d, N), (K, d) and (K,); no bias in the model without.
    model
        The problem.
    dual
        (K, K), N times the dual variable, a column a class.
    """

    features: FloatArray
    classifier: FloatArray
    bias: FloatArray | None
    model: UnconstrainedFeatures
    dual: fmpq_mat

    def upper(self) -> float:
        """Return a bound of the point's objective from above."""
        model, labels = self.model, self.model.labels
        with precision():
            H, W, b = self.features, self.classifier, self.bias
            b = np.zeros(model.counts.size) if b is None else b
            Z, value = ball_matrix(W) * ball_matrix(H), arb(0)
            for i, label in enumerate(labels.tolist()):
                column = [Z[k, i] + arb(v) for k, v in enumerate(b.tolist())]
                value += model.loss.ball(column, label)
            penalty = rational(model.lam_w) * square_sum(W) + rational(model.lam_h) * square_sum(H)
            return above(value / labels.size + penalty / 2)

    def feasible(self) -> bool:
        """Whether the dual point satisfies every constraint: the linear ones exactly, the spectral
        norm by elimination in ball arithmetic."""
        model, R = self.model, self.dual
        K, n = model.counts.size, model.counts.tolist()
        rows = [sum((R[i, k] * n[k] for k in range(K)), fmpq(0)) for i in range(K)]
        if model.bias and any(rows):
            return False
        if not self._in_domain():
            return False
        limit = rational(model.lam_w) * rational(model.lam_h) * sum(n) ** 2
        room = [
            int(i == j) * limit - sum((R[i, k] * R[j, k] * n[k] for k in range(K)), fmpq(0))
            for i in range(K)
            for j in range(K)
        ]
        with precision():
            return is_positive_definite(fmpq_mat(K, K, room))

    def lower(self) -> float:
        """Return a bound of the dual value from below; zero, which bounds every loss, where the
        dual value is not finite."""
        if not self._in_domain():
            return 0.0
        n, loss = self.model.counts.tolist(), self.model.loss.minorant
        with precision():
            values = (m * loss.dual_ball(self._column(k), k) for k, m in enumerate(n))
            return below(sum(values, arb(0)) / sum(n))

    def _column(self, k: int) -> list[fmpq]:
        return [self.dual[i, k] for i in range(self.dual.nrows())]

    def _in_domain(self) -> bool:
        loss = self.model.loss.minorant
        return all(loss.in_domain(self._column(k), k) for k in range(self.dual.ncols()))


@result
class Certificate:
    """Two-sided bound on a minimum.

    Attributes
    ----------
    upper
        Objective of a feasible point.
    lower
        Value that no point undercuts.
    proof
        The points that prove both, where they are kept (:func:`certify_ufm`).
    """

    upper: float
    lower: float
    proof: UfmProof | None = field(default=None, repr=False, compare=False)

    def verify(self) -> UfmVerdict:
        """Prove both bounds anew from the points kept, whatever found them; bounds without such
        points are not accepted, rigorous or not."""
        if self.proof is None:
            return UfmVerdict.NO_PROOF
        if not self.proof.upper() <= self.upper:
            return UfmVerdict.UPPER
        # The losses are never negative.
        if not self.lower <= 0:
            if not self.proof.feasible():
                return UfmVerdict.INFEASIBLE
            if not self.proof.lower() >= self.lower:
                return UfmVerdict.LOWER
        return UfmVerdict.ACCEPTED

    @property
    def gap(self) -> float:
        """Difference of the bounds over the upper one, NaN if a bound is."""
        if self.upper == self.lower:
            return 0.0
        return (self.upper - self.lower) / abs(self.upper) if self.upper else math.inf


@result
class UfmMinimizer:
    """A global minimizer of the unconstrained-features model; others differ by a rotation of the
    feature space.

    Attributes
    ----------
    objective
        The minimum.
    classifier
        (K, d), a row a class.
    class_features
        (d, K), the feature that all samples of a class share.
    bias
        (K,), or None for the model without bias.
    singular_values
        (min(K, d),) of the logit matrix W H, descending.
    model
        The problem.
    status
        How it was obtained.
    """

    objective: float
    classifier: FloatArray
    class_features: FloatArray
    bias: FloatArray | None
    singular_values: FloatArray
    model: UnconstrainedFeatures
    status: UfmStatus

    @property
    def features(self) -> FloatArray:
        """(d, N) features, samples ordered by class."""
        return np.repeat(self.class_features, self.model.counts, axis=1)

    @property
    def class_logits(self) -> FloatArray:
        """(K, K) logits, a column a class, bias included."""
        logits: FloatArray = self.classifier @ self.class_features
        return logits if self.bias is None else logits + self.bias[:, None]

    @cached_property
    def certificate(self) -> Certificate:
        """Duality gap in double precision; :func:`certify_ufm` bounds it rigorously.

        With squared loss and too few dimensions the problem is not convex, and the lower bound is
        von Neumann's trace inequality."""
        mu, loss = self.model.price, self.model.loss.minorant
        n = self.model.counts.astype(np.float64)
        total = n.sum()
        d, rank = self.classifier.shape[1], n.size - (self.bias is not None)
        if isinstance(loss, Squared) and d < rank:
            sigma = np.sort(label_spectrum(self.model.counts, self.model.bias).values)[::-1]
            fitted = np.maximum(sigma - total * mu, 0.0)
            fitted[d:] = 0.0
            lower = float(np.sum((sigma - fitted) ** 2) / (2 * total) + mu * fitted.sum())
            return Certificate(self.objective, lower)
        residual = loss.terms(self.class_logits, np.arange(n.size))[1]
        if self.bias is not None:
            residual -= (residual @ n / total)[:, None]
        product = self.classifier @ self.class_features
        if self.bias is not None:
            product -= (product @ n / total)[:, None]
        points = _dual_points(residual, product, np.sqrt(n), total * mu)
        # The losses are never negative.
        lower = max(0.0, *(float(loss.dual(R) @ n / total) for R in points))
        return Certificate(self.objective, lower)


@refuses_overflow("features", "classifier")
def ufm_objective(
    model: UnconstrainedFeatures,
    features: ArrayLike,
    classifier: ArrayLike,
    *,
    bias: ArrayLike | None = None,
) -> float:
    """Return the objective at a point.

    Parameters
    ----------
    model
        The problem.
    features
        (d, N), samples ordered by class.
    classifier
        (K, d).
    bias
        (K,) last-layer bias, zero by default; only where the model has one.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, ufm_objective
    >>> model = UnconstrainedFeatures([1, 1], lam_w=0.1, lam_h=0.1)
    >>> round(ufm_objective(model, [[1.0, -1.0]], [[1.0], [-1.0]]), 4)
    0.7
    """
    H, W, b = _checked(model, features, classifier, bias)
    labels = model.labels
    value, _ = model.loss.mean(W @ H + b[:, None], labels, np.ones(labels.size))
    return float(value + model.lam_w / 2 * np.sum(W**2) + model.lam_h / 2 * np.sum(H**2))


def collapse_threshold(model: UnconstrainedFeatures) -> float:
    r"""Return $N^2\lambda_W\lambda_H$, the class size up to which classes of equal size
    coincide at the global minimum.

    For squared loss without bias a class of this size or less vanishes altogether. For both losses,
    with or without a bias, the classifiers of two or more classes of equal size coincide iff the
    size is at most this number (derived: the dual variable on differences of the two has norm
    $\sqrt n/N$ while they coincide). Needs d >= K.

    Parameters
    ----------
    model
        The problem.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, collapse_threshold
    >>> collapse_threshold(UnconstrainedFeatures([50, 50], lam_w=0.01, lam_h=0.02))
    2.0
    """
    as_instance(model, "model", UnconstrainedFeatures)
    return float(model.counts.sum()) ** 2 * model.lam_w * model.lam_h


def cross_entropy_gap(model: UnconstrainedFeatures) -> float:
    r"""Return the logit gap between the right class and each other one at the global minimum of
    balanced cross-entropy.

    $x=\log(1/t-K+1)$ with $t=\frac\alpha K+\sqrt{n\lambda_W\lambda_H}$ if $Kt<1$, else 0
    (dang2023-neural, cross-entropy, one layer, $\alpha=0$; closed form derived), for label
    smoothing and max suppression alike. The minimum is $(K-1)tx+\log(1+(K-1)e^{-x})$.

    Parameters
    ----------
    model
        Cross-entropy or max suppression with classes of equal size n, with a bias or without.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, cross_entropy_gap
    >>> model = UnconstrainedFeatures([2, 2, 2], lam_w=0.01, lam_h=0.01, loss="ce")
    >>> round(cross_entropy_gap(model), 4)
    4.2299
    """
    as_instance(model, "model", UnconstrainedFeatures)
    n, loss = model.counts, model.loss.minorant
    if isinstance(loss, Squared) or (n != n[0]).any():
        raise ValueError(
            f"model: expected cross-entropy and equal classes, got {model.loss!r} and class sizes "
            f"{n[:8].tolist()}"
        )
    K, t = n.size, _slope(model, loss)
    return float(np.log1p((1 - K * t) / t)) if K * t < 1 else 0.0


def ufm_minimizer(model: UnconstrainedFeatures, *, dimension: int) -> UfmMinimizer:
    """Return a global minimizer, for equal classes and for squared loss in closed form.

    Otherwise a reduced convex problem is solved; time and memory grow with the number of distinct
    class sizes, not with K.

    Parameters
    ----------
    model
        The problem.
    dimension
        d, feature dimension. Squared loss takes any d (the d largest singular values survive);
        cross-entropy needs d at least the rank of the unrestricted minimizer, which is at most K -
        1.

    Returns
    -------
    UfmMinimizer
        With ``certificate``, the duality gap.

    Raises
    ------
    ValueError
        On bad input, and where the cross-entropy minimizer does not fit into ``dimension``.

    Warns
    -----
    RuntimeWarning
        If the reduced problem stops above a relative duality gap of 1e-9.

    Notes
    -----
    With smoothing the classes must have one size: label smoothing and max suppression have the same
    minimizers there, at which every label is a maximum (derived).

    dang2023-neural, global minimizers for one linear layer: orthogonal frame (squared loss, no
    bias), simplex frame (equal classes). Imbalanced classes with bias, and imbalanced
    cross-entropy, are derived.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, ufm_minimizer
    >>> best = ufm_minimizer(UnconstrainedFeatures([3, 2, 2], lam_w=0.01, lam_h=0.02), dimension=3)
    >>> round(best.objective, 4), best.certificate.gap < 1e-9
    (0.0624, True)
    """
    as_instance(model, "model", UnconstrainedFeatures)
    d = as_count(dimension, "dimension")
    n, bias, mu, loss = model.counts, model.bias, model.price, model.loss.minorant
    lams = np.array([model.lam_w, model.lam_h])
    total = float(n.sum())
    status = UfmStatus.CLOSED_FORM
    offset: FloatArray | None = None
    if isinstance(loss, Squared):
        labels = label_spectrum(n, bias).largest(n.size)
        fitted = np.maximum(labels.values - total * mu, 0.0)
        fitted[d:] = 0.0
        objective = float(np.sum((labels.values - fitted) ** 2) / (2 * total) + mu * fitted.sum())
        spectrum = Spectrum(fitted, labels.left, labels.right)
        offset = n / total if bias else None
    elif np.all(n == n[0]):
        gap, others = cross_entropy_gap(model), n.size - 1
        objective = float(others * _slope(model, loss) * gap + np.log1p(others * np.exp(-gap)))
        none = np.zeros((1, 0))
        spectrum = expand(groups_of(n), np.array([gap * np.sqrt(n[0])]), none, np.zeros(0), none.T)
        offset = np.zeros(n.size) if bias else None
    elif loss.smoothing:
        raise ValueError(
            f"model: expected equal classes for {model.loss}, got class sizes {n[:8].tolist()}"
        )
    else:
        status = UfmStatus.SOLVED
        objective, spectrum, offset = solve_cross_entropy(n, mu, bias)
    classifier, class_features = balanced_factors(spectrum, n, lams, d)
    values = np.zeros(min(n.size, d))
    descending = np.sort(spectrum.values)[::-1][: values.size]
    values[: descending.size] = descending
    result = UfmMinimizer(objective, classifier, class_features, offset, values, model, status)
    if status is UfmStatus.SOLVED and not result.certificate.gap <= _GAP:
        result = replace(result, status=UfmStatus.STOPPED)
        warnings.warn(
            f"{result.status} (relative gap {result.certificate.gap:.1e})",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


@refuses_overflow("features", "classifier", "bias", infinite=True)
def certify_ufm(
    model: UnconstrainedFeatures,
    features: ArrayLike,
    classifier: ArrayLike,
    *,
    bias: ArrayLike | None = None,
) -> Certificate:
    r"""Bound the global minimum rigorously from both sides, given any point of the model.

    The upper bound is the objective of the point in interval arithmetic. The lower bound comes from
    the class averages of its loss gradient, rounded to exact rationals that satisfy every linear
    constraint of the dual, and scaled until elimination in interval arithmetic proves the spectral
    norm feasible. Nothing about how the point was found is used.

    Parameters
    ----------
    model
        The problem.
    features
        (d, N), samples ordered by class.
    classifier
        (K, d).
    bias
        (K,) last-layer bias, zero by default; only where the model has one.

    Returns
    -------
    Certificate
        The lower bound holds for every dimension d; the gap closes at global minimizers with d at
        least the rank of the unrestricted one. ``verify()`` proves both bounds anew.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, certify_ufm, ufm_minimizer
    >>> model = UnconstrainedFeatures([3, 2, 2], lam_w=0.01, lam_h=0.02)
    >>> best = ufm_minimizer(model, dimension=3)
    >>> certify_ufm(model, best.features, best.classifier).gap < 1e-9
    True
    """
    H, W, b = _checked(model, features, classifier, bias)
    n, labels = model.counts, model.labels
    averages = np.stack([np.bincount(labels, weights=row) for row in W @ H + b[:, None]]) / n
    with precision():
        square = rational(model.lam_w) * rational(model.lam_h)
        gradient = rational_matrix(model.loss.minorant.terms(averages, np.arange(n.size))[1])
        dual = _dual_point(model, gradient, square)
    proof = UfmProof(H, W, b if model.bias else None, model, dual)
    return Certificate(proof.upper(), proof.lower(), proof)


def _checked(
    model: UnconstrainedFeatures,
    features: ArrayLike,
    classifier: ArrayLike,
    bias: ArrayLike | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    as_instance(model, "model", UnconstrainedFeatures)
    n = model.counts
    H = as_array(features, "features", shape=(None, int(n.sum())))
    W = as_array(classifier, "classifier", shape=(n.size, H.shape[0]))
    if bias is not None and not model.bias:
        raise ValueError("bias: expected none in a model without, got one")
    return H, W, np.zeros(n.size) if bias is None else as_array(bias, "bias", shape=(n.size,))


def _slope(model: UnconstrainedFeatures, loss: CrossEntropy) -> float:
    """Return t of :func:`cross_entropy_gap`, for equal classes."""
    return math.sqrt(model.counts[0]) * model.price + loss.smoothing / model.counts.size


def _dual_points(
    residual: FloatArray, product: FloatArray, root: FloatArray, limit: float
) -> list[FloatArray]:
    """Return points with columns R and ``|R diag(root)| <= limit``, close to the residual of the
    logits ``product``.

    The residual scaled down loses as much of the value as it exceeds the limit. At the minimum it
    has the limit for its singular value, with the vectors of the logits, wherever they have one:
    with that part put in its place, and the rest cut at the limit, the loss is of second order."""
    weighted = residual * root
    norm = float(np.linalg.norm(weighted, 2))
    points = [residual * min(1.0, limit / norm) if norm > 0 else residual]
    # No probability is lost: the columns sum to zero.
    left, values, right = np.linalg.svd((product - product.mean(axis=0)) * root)
    # The larger cut serves where singular values have not quite died.
    for cut in (1e-9, 1e-3):
        alive = values > cut * max(float(values[0]), np.finfo(float).tiny)
        if alive.any() and norm > 0:
            A, B = left[:, alive], right[alive]
            rest = weighted - A @ (A.T @ weighted)
            rest -= (rest @ B.T) @ B
            a, size, b = np.linalg.svd(rest)
            points.append(((a * np.minimum(size, limit)) @ b - limit * (A @ B)) / root)
    return points


def _dual_point(model: UnconstrainedFeatures, gradient: fmpq_mat, squared_mu: fmpq) -> fmpq_mat:
    """Return a rational point near the gradient that satisfies the dual constraints exactly (but
    for the sign of a probability, which the correction for the bias may cost)."""
    n = model.counts.tolist()
    K, residual = len(n), model.loss.minorant.into_domain(gradient, n)
    if model.bias:
        widest = max(range(K), key=lambda k: n[k])
        for i in range(K):
            excess = sum((residual[i, k] * n[k] for k in range(K)), fmpq(0))
            residual[i, widest] -= excess / n[widest]
    return residual * feasible_scale(residual, n, squared_mu * sum(n) ** 2)
