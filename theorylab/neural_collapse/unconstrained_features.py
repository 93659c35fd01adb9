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
    one_of,
    refuses_overflow,
)
from theorylab.neural_collapse._intervals import (
    feasible_scale,
    is_positive_definite,
    log_sum_exp,
    precision,
)
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

_LOSSES = ("mse", "ce")
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
        ``"mse"`` or ``"ce"``.
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
    loss: str = "mse"
    bias: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        checked = {
            "counts": as_counts(self.counts, "counts"),
            "lam_w": as_real(self.lam_w, "lam_w", above=0.0),
            "lam_h": as_real(self.lam_h, "lam_h", above=0.0),
            "loss": one_of(self.loss, "loss", _LOSSES),
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
            value = _objective_ball(H, W, labels, b, model.loss) / labels.size
            penalty = rational(model.lam_w) * square_sum(W) + rational(model.lam_h) * square_sum(H)
            return above(value + penalty / 2)

    def feasible(self) -> bool:
        """Whether the dual point satisfies every constraint: the linear ones exactly, the spectral
        norm by elimination in ball arithmetic."""
        model, R = self.model, self.dual
        K, n = model.counts.size, model.counts.tolist()
        rows = [sum((R[i, k] * n[k] for k in range(K)), fmpq(0)) for i in range(K)]
        if model.bias and any(rows):
            return False
        if model.loss == "ce" and (
            any(sum((R[i, k] for i in range(K)), fmpq(0)) for k in range(K))
            or any(R[i, k] + int(i == k) < 0 for i in range(K) for k in range(K))
        ):
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
        """Return a bound of the dual value from below."""
        with precision():
            return below(_dual_ball(self.dual, self.model.counts.tolist(), self.model.loss))


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
        mu, loss = self.model.price, self.model.loss
        n = self.model.counts.astype(np.float64)
        total = n.sum()
        if loss == "mse" and self.classifier.shape[1] < n.size - (self.bias is not None):
            sigma = np.sort(label_spectrum(self.model.counts, self.model.bias).values)[::-1]
            fitted = np.maximum(sigma - total * mu, 0.0)
            fitted[self.classifier.shape[1] :] = 0.0
            lower = float(np.sum((sigma - fitted) ** 2) / (2 * total) + mu * fitted.sum())
            return Certificate(self.objective, lower)
        residual = _residual(self.class_logits, loss)
        if self.bias is not None:
            residual -= (residual @ n / total)[:, None]
        product = self.classifier @ self.class_features
        if self.bias is not None:
            product -= (product @ n / total)[:, None]
        points = _dual_points(residual, product, np.sqrt(n), total * mu)
        lower = max((_dual_value(R, n, loss) for R in points if _is_dual(R, loss)), default=0.0)
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
    Z = W @ H + b[:, None]
    own = Z[labels, np.arange(labels.size)]
    if model.loss == "mse":
        value = 0.5 * (np.sum(Z**2) - 2 * own.sum() + labels.size)
    else:
        top = Z.max(axis=0)
        value = np.sum(np.log(np.sum(np.exp(Z - top), axis=0)) + top - own)
    return float(
        value / labels.size + model.lam_w / 2 * np.sum(W**2) + model.lam_h / 2 * np.sum(H**2)
    )


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

    $x=\log(1/\sqrt{n\lambda_W\lambda_H}-K+1)$ if $K\sqrt{n\lambda_W\lambda_H}<1$, else
    0 (dang2023-neural, cross-entropy, one layer; closed form derived). The minimum is
    $(K-1)\sqrt{n\lambda_W\lambda_H}\,x+\log(1+(K-1)e^{-x})$.

    Parameters
    ----------
    model
        Cross-entropy with classes of equal size n, with a bias or without.

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
    n, K = model.counts, model.counts.size
    if model.loss != "ce" or (n != n[0]).any():
        raise ValueError(
            f"model: expected cross-entropy and equal classes, got {model.loss!r} and class sizes "
            f"{n[:8].tolist()}"
        )
    slope = math.sqrt(n[0]) * model.price
    return float(np.log1p((1 - K * slope) / slope)) if K * slope < 1 else 0.0


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
    n, bias, mu = model.counts, model.bias, model.price
    lams = np.array([model.lam_w, model.lam_h])
    total = float(n.sum())
    status = UfmStatus.CLOSED_FORM
    offset: FloatArray | None = None
    if model.loss == "mse":
        labels = label_spectrum(n, bias).largest(n.size)
        fitted = np.maximum(labels.values - total * mu, 0.0)
        fitted[d:] = 0.0
        objective = float(np.sum((labels.values - fitted) ** 2) / (2 * total) + mu * fitted.sum())
        spectrum = Spectrum(fitted, labels.left, labels.right)
        offset = n / total if bias else None
    elif np.all(n == n[0]):
        gap = cross_entropy_gap(model)
        slope = np.sqrt(n[0]) * mu
        objective = float((n.size - 1) * slope * gap + np.log1p((n.size - 1) * np.exp(-gap)))
        none = np.zeros((1, 0))
        spectrum = expand(groups_of(n), np.array([gap * np.sqrt(n[0])]), none, np.zeros(0), none.T)
        offset = np.zeros(n.size) if bias else None
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
        dual = _dual_point(averages, n.tolist(), square, model.loss, model.bias)
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


def _residual(logits: FloatArray, loss: str) -> FloatArray:
    """Return N times the gradient of the loss for one sample of each class, a column a class."""
    identity = np.eye(logits.shape[0])
    if loss == "mse":
        return logits - identity
    weights = np.exp(logits - logits.max(axis=0))
    residual: FloatArray = weights / weights.sum(axis=0) * (1 - identity)
    # Not as the difference to one, which loses the small ones.
    residual -= identity * residual.sum(axis=0)
    return residual


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


def _is_dual(residual: FloatArray, loss: str) -> bool:
    """Whether the dual function is finite there."""
    return loss == "mse" or bool((residual + np.eye(len(residual)) >= 0).all())


def _dual_value(residual: FloatArray, n: FloatArray, loss: str) -> float:
    """Return -conjugate(G) for the dual point G with columns ``residual[:, k] / N``, n_k times
    each."""
    if loss == "mse":
        return float(-(0.5 * np.sum(n * residual**2) + n @ np.diag(residual)) / n.sum())
    q = residual + np.eye(n.size)
    q = np.maximum(q, np.finfo(float).tiny)
    logs = np.log(q)
    np.fill_diagonal(logs, np.log1p(np.maximum(np.diag(residual), np.diag(q) - 1)))
    return float(-np.sum(n * q * logs) / n.sum())


def _objective_ball(
    H: FloatArray, W: FloatArray, labels: NDArray[np.int64], b: FloatArray, loss: str
) -> arb:
    """Enclose N times the loss."""
    Z = ball_matrix(W) * ball_matrix(H)
    offset = [arb(v) for v in b.tolist()]
    total = arb(0)
    for i, label in enumerate(labels.tolist()):
        column = [Z[k, i] + offset[k] for k in range(b.size)]
        if loss == "mse":
            for k, z in enumerate(column):
                total += (z - (k == label)) ** 2 / 2
        else:
            total += log_sum_exp(column) - column[label]
    return total


def _dual_point(
    logits: FloatArray, n: list[int], squared_mu: fmpq, loss: str, bias: bool
) -> fmpq_mat:
    """Return a rational point near the gradient at ``logits`` that satisfies the dual constraints
    exactly (but for the sign of a probability, which the correction for the bias may cost)."""
    K, total = len(n), sum(n)
    residual = rational_matrix(_residual(logits, loss))
    if loss == "ce":
        # A pinch of the class frequencies keeps every probability away from zero, whatever is
        # corrected below.
        pinch = fmpq(1, 2**50)
        rows = [
            [
                residual[i, k] * (1 - pinch) + pinch * (fmpq(n[i], total) - int(i == k))
                for k in range(K)
            ]
            for i in range(K)
        ]
        for k in range(K):
            rows[k][k] = -sum((rows[i][k] for i in range(K) if i != k), fmpq(0))
        residual = fmpq_mat(K, K, [entry for row in rows for entry in row])
    if bias:
        widest = max(range(K), key=lambda k: n[k])
        for i in range(K):
            excess = sum((residual[i, k] * n[k] for k in range(K)), fmpq(0))
            residual[i, widest] -= excess / n[widest]
    return residual * feasible_scale(residual, n, squared_mu * total**2)


def _dual_ball(residual: fmpq_mat, n: list[int], loss: str) -> arb:
    """Enclose the dual value at a feasible point; zero, which bounds every loss, where a
    probability is negative."""
    K, value = len(n), arb(0)
    for k in range(K):
        for i in range(K):
            if loss == "mse":
                value -= n[k] * arb(residual[i, k]) ** 2 / 2
            else:
                q = residual[i, k] + int(i == k)
                if q < 0:
                    return arb(0)
                value -= n[k] * arb(q) * arb(q).log() if q > 0 else 0
        if loss == "mse":
            value -= n[k] * arb(residual[k, k])
    return value / sum(n)
