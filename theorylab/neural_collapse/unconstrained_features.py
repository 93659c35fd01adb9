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
from enum import StrEnum
from functools import cached_property

import numpy as np

from theorylab._validation import FloatArray, as_count, as_instance
from theorylab.neural_collapse._losses import CrossEntropy, Squared
from theorylab.neural_collapse._reduced_cross_entropy import solve_cross_entropy
from theorylab.neural_collapse._spectra import (
    Spectrum,
    balanced_factors,
    expand,
    groups_of,
    label_spectrum,
)
from theorylab.neural_collapse._ufm_certificates import (
    Certificate,
    UfmProof,
    UfmVerdict,
    certify_ufm,
)
from theorylab.neural_collapse._ufm_model import (
    UnconstrainedFeatures,
    collapse_threshold,
    ufm_objective,
)
from theorylab.numerics.progress import Callback, watcher
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


class UfmStatus(StrEnum):
    """How the minimizer was obtained."""

    CLOSED_FORM = "closed form"
    SOLVED = (
        "the reduced convex problem was solved; the certificate bounds the distance to the minimum"
    )
    STOPPED = (
        "stopped, by the callback or above the relative duality gap 1e-9; the certificate says "
        "how far"
    )


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

        def centred(Z: FloatArray) -> FloatArray:
            if isinstance(loss, CrossEntropy):  # no probability is lost: the columns sum to zero
                Z = Z - Z.mean(axis=0)
            return Z if self.bias is None else Z - (Z @ n / total)[:, None]

        product = centred(self.classifier @ self.class_features)
        scaled, *others = _dual_points(residual, product, np.sqrt(n), total * mu)
        # Singular vectors that are next to none leave the constraints by rounding.
        points = [scaled, *map(centred, others)]
        # The losses are never negative.
        lower = max(0.0, *(float(loss.dual(R) @ n / total) for R in points))
        return Certificate(self.objective, lower)


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


def ufm_minimizer(
    model: UnconstrainedFeatures, *, dimension: int, callback: Callback | None = None
) -> UfmMinimizer:
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
    callback
        Called at each Newton step for classes of several sizes under cross-entropy, with the root
        mean square of the optimality condition over the penalty; where it returns True the solver
        stops, at a point of which at most d singular values are kept.

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
    >>> model = UnconstrainedFeatures([3, 2, 2], lam_w=0.01, lam_h=0.02, loss="ce")
    >>> best = ufm_minimizer(model, dimension=3)
    >>> round(best.objective, 4), best.certificate.gap < 1e-9
    (0.2073, True)
    """
    as_instance(model, "model", UnconstrainedFeatures)
    d = as_count(dimension, "dimension")
    stopped, stops_here = False, watcher(callback)

    def stops(*fields: float) -> bool:
        nonlocal stopped
        stopped = stops_here(*fields)
        return stopped

    n, bias, mu, loss = model.counts, model.bias, model.price, model.loss.minorant
    offset: FloatArray | None = None
    if isinstance(loss, Squared):
        total = float(n.sum())
        labels = label_spectrum(n, bias).largest(n.size)
        fitted = np.maximum(labels.values - total * mu, 0.0)
        fitted[d:] = 0.0
        objective = float(np.sum((labels.values - fitted) ** 2) / (2 * total) + mu * fitted.sum())
        spectrum = Spectrum(fitted, labels.left, labels.right)
        offset = n / total if bias else None
        return _minimizer(model, d, UfmStatus.CLOSED_FORM, objective, spectrum, offset)
    if np.all(n == n[0]):
        gap, others = cross_entropy_gap(model), n.size - 1
        objective = float(others * _slope(model, loss) * gap + np.log1p(others * np.exp(-gap)))
        none = np.zeros((1, 0))
        spectrum = expand(groups_of(n), np.array([gap * np.sqrt(n[0])]), none, np.zeros(0), none.T)
        offset = np.zeros(n.size) if bias else None
        return _minimizer(model, d, UfmStatus.CLOSED_FORM, objective, spectrum, offset)
    if loss.smoothing:
        raise ValueError(
            f"model: expected equal classes for {model.loss}, got class sizes {n[:8].tolist()}"
        )
    for objective, spectrum, offset in solve_cross_entropy(n, mu, bias, stops):
        # Before the end the rank may be larger than that of the minimizer.
        if not stopped and np.count_nonzero(spectrum.values > 0) <= d:
            result = _minimizer(model, d, UfmStatus.SOLVED, objective, spectrum, offset)
            if result.certificate.gap <= _GAP:
                return result
    if stopped and np.count_nonzero(spectrum.values > 0) > d:
        spectrum = spectrum.largest(d)
        logits = (spectrum.left * spectrum.values) @ spectrum.right / np.sqrt(n)
        logits += 0.0 if offset is None else offset[:, None]
        value, _ = loss.mean(logits, np.arange(n.size), n.astype(np.float64))
        objective = value + mu * float(spectrum.values.sum())
    result = _minimizer(model, d, UfmStatus.STOPPED, objective, spectrum, offset)
    gap = result.certificate.gap
    warnings.warn(
        f"{result.status} (relative gap {gap:.1e})",
        RuntimeWarning,
        stacklevel=2,
    )
    return result


def _minimizer(
    model: UnconstrainedFeatures,
    dimension: int,
    status: UfmStatus,
    objective: float,
    spectrum: Spectrum,
    offset: FloatArray | None,
) -> UfmMinimizer:
    """Return the minimizer with these logits, by balanced factors, and this bias."""
    n, lams = model.counts, np.array([model.lam_w, model.lam_h])
    classifier, class_features = balanced_factors(spectrum, n, lams, dimension)
    values = np.zeros(min(n.size, dimension))
    descending = np.sort(spectrum.values)[::-1][: values.size]
    values[: descending.size] = descending
    return UfmMinimizer(objective, classifier, class_features, offset, values, model, status)


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
    left, values, right = np.linalg.svd(product * root)
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
