"""Collapse of given features and a classifier in numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, one_of
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = ["CollapseMetrics", "collapse_metrics"]


@result
class CollapseMetrics:
    r"""How far features and classifier are from collapse; every number is 0 for the ideal, except
    ``agreement``, which is 1.

    Attributes
    ----------
    variability
        NC1, $\operatorname{tr}(\Sigma_W\Sigma_B^+)/K$.
    variability_ratio
        Weak NC1, $\operatorname{tr}\Sigma_W/\operatorname{tr}\Sigma_B$.
    mean_norm_spread, classifier_norm_spread
        NC2, standard deviation over mean of the lengths of the centred means, and of the centred
        rows of the classifier.
    mean_angle_error, classifier_angle_error
        NC2, mean over pairs of classes of $|\cos+\frac1{K-1}|$, centred vectors.
    mean_etf_distance, classifier_etf_distance
        NC2, Frobenius distance of the centred Gram matrix, at unit norm, to that of a simplex ETF.
    mean_orthogonality_error, classifier_orthogonality_error
        Mean over pairs of classes of $|\cos|$, uncentred vectors: 0 for an orthogonal frame
        of any lengths.
    duality_distance
        NC3, $\|W_c^\top/\|W_c\|_F-M/\|M\|_F\|_F$ with W_c the centred classifier.
    uncentred_duality_distance
        The same without centring.
    alignment_error
        Weak NC3, mean over the classes of $1-\cos(w_k,\mu_k)$, uncentred; classes of length 0
        are left out.
    agreement
        NC4, share of the samples on which the classifier and the nearest class mean agree.
    """

    variability: float
    variability_ratio: float
    mean_norm_spread: float
    classifier_norm_spread: float
    mean_angle_error: float
    classifier_angle_error: float
    mean_etf_distance: float
    classifier_etf_distance: float
    mean_orthogonality_error: float
    classifier_orthogonality_error: float
    duality_distance: float
    uncentred_duality_distance: float
    alignment_error: float
    agreement: float


def collapse_metrics(
    features: ArrayLike,
    labels: ArrayLike,
    classifier: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    layout: str | None = None,
) -> CollapseMetrics:
    """Measure NC1 to NC4 of features and a linear classifier.

    No number depends on the units of features and classifier (the bias has those of the logits).

    Parameters
    ----------
    features
        (d, N), a column a sample.
    labels
        (N,) integers from 0 to K-1; every class occurs.
    classifier
        (K, d), a row a class, K >= 2.
    bias
        (K,) last-layer bias, zero by default; only ``agreement`` depends on it.
    layout
        ``"columns"`` for features (d, N), ``"rows"`` for (N, d). By default columns; where d = N
        nothing tells one from the other, and the layout must be given.

    Returns
    -------
    CollapseMetrics
        See there. A number that is not defined, because all the vectors it compares vanish, is NaN.

    Raises
    ------
    ValueError
        On bad input; features (N, d) are refused where ``layout`` does not announce them.

    Examples
    --------
    >>> from theorylab.neural_collapse import collapse_metrics
    >>> metrics = collapse_metrics([[1.0, 1.0, -1.0, -1.0]], [0, 0, 1, 1], [[1.0], [-1.0]])
    >>> metrics.variability, metrics.mean_norm_spread
    (0.0, 0.0)
    """
    W = as_array(classifier, "classifier", ndim=2)
    n_classes = W.shape[0]
    if n_classes < 2:
        raise ValueError(f"classifier: expected at least two rows, got shape {W.shape}")
    y = every_label(labels, n_classes)
    H = _columns(features, layout, W.shape[1], y.size)
    b = np.zeros(n_classes) if bias is None else as_array(bias, "bias", shape=(n_classes,))
    # In units in which the largest feature and weight are of order one nothing overflows.
    units = binary_exponent(H), binary_exponent(W)
    H, W = np.ldexp(H, -units[0]), np.ldexp(W, -units[1])
    counts = np.bincount(y, minlength=n_classes)
    means = np.stack([np.bincount(y, weights=row, minlength=n_classes) for row in H]) / counts
    centred = means - means.mean(axis=1, keepdims=True)
    within = H - means[:, y]
    total = within.size / H.shape[0]
    # The pseudo-inverse of Sigma_B = M M^T / K through the singular values of M: a rank decided at
    # their rounding error.
    U, s, _ = np.linalg.svd(centred, full_matrices=False)
    kept = s > max(centred.shape) * np.finfo(float).eps * s[0]
    variability = (
        float(np.sum((U[:, kept].T @ within / s[kept, None]) ** 2)) / total
        if kept.any()
        else np.nan
    )
    centred_rows = W - W.mean(axis=0)
    top = max(sum(units), binary_exponent(b)) if b.any() else sum(units)
    logits = np.ldexp(W @ H, sum(units) - top) + np.ldexp(b, -top)[:, None]
    distances = np.sum(means**2, axis=0)[:, None] - 2 * means.T @ H
    return CollapseMetrics(
        variability=variability,
        variability_ratio=_ratio(
            float(np.sum(within**2)) / total, float(np.sum(centred**2)) / n_classes
        ),
        mean_norm_spread=_spread(centred),
        classifier_norm_spread=_spread(centred_rows.T),
        mean_angle_error=_angle_error(centred, -1 / (n_classes - 1)),
        classifier_angle_error=_angle_error(centred_rows.T, -1 / (n_classes - 1)),
        mean_etf_distance=_etf_distance(centred),
        classifier_etf_distance=_etf_distance(centred_rows.T),
        mean_orthogonality_error=_angle_error(means, 0.0),
        classifier_orthogonality_error=_angle_error(W.T, 0.0),
        duality_distance=_duality_distance(centred_rows.T, centred),
        uncentred_duality_distance=_duality_distance(W.T, means),
        alignment_error=_alignment_error(W.T, means),
        agreement=float(np.mean(logits.argmax(axis=0) == distances.argmin(axis=0))),
    )


def _columns(features: ArrayLike, layout: str | None, dimension: int, n_samples: int) -> FloatArray:
    """Return features with a column a sample, as (d, N)."""
    H = as_array(features, "features", ndim=2)
    if layout is not None and one_of(layout, "layout", ("columns", "rows")) == "rows":
        H = np.ascontiguousarray(H.T)
    if H.shape != (dimension, n_samples):
        hint = (
            ", the transpose: pass layout='rows'"
            if layout is None and H.shape == (n_samples, dimension)
            else ""
        )
        raise ValueError(
            f"features: expected shape (d, N) = ({dimension}, {n_samples}), a column a sample (d "
            f"columns of classifier, N labels), got {H.shape}{hint}"
        )
    if layout is None and dimension == n_samples:
        raise ValueError(
            f"layout: expected 'columns' or 'rows', as features of shape {H.shape} may have a "
            "sample in a column or in a row, got None"
        )
    return H


def every_label(labels: ArrayLike, n_classes: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    y = as_array(labels, "labels", ndim=1, nonnegative=True)
    whole = y.astype(np.int64)
    if (whole != y).any() or np.unique(whole).size != n_classes or whole.max() >= n_classes:
        raise ValueError(
            f"labels: expected integers from 0 to {n_classes - 1} (rows of "
            f"classifier), each at least once, got {np.unique(y)[:8]}"
        )
    return whole


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else np.nan


def _spread(columns: FloatArray) -> float:
    norms = np.linalg.norm(columns, axis=0)
    return _ratio(float(norms.std()), float(norms.mean()))


def _unit(columns: FloatArray) -> FloatArray:
    """Return the columns at length one, NaN where they vanish: each in its own unit, so that the
    squares of short ones do not vanish."""
    scaled = columns / np.where(columns.any(axis=0), np.abs(columns).max(axis=0), np.nan)
    return np.asarray(scaled / np.linalg.norm(scaled, axis=0))


def _cosines(columns: FloatArray) -> FloatArray:
    """Return the cosines of all pairs of columns, NaN where one of them vanishes."""
    unit = _unit(columns)
    cosines: FloatArray = (unit.T @ unit)[np.triu_indices(columns.shape[1], 1)]
    return cosines


def _angle_error(columns: FloatArray, target: float) -> float:
    cosines = _cosines(columns)
    known = np.isfinite(cosines)
    return float(np.abs(cosines[known] - target).mean()) if known.any() else np.nan


def _etf_distance(columns: FloatArray) -> float:
    K = columns.shape[1]
    gram = columns.T @ columns
    norm = float(np.linalg.norm(gram))
    ideal = (np.eye(K) - 1 / K) / np.sqrt(K - 1)
    return float(np.linalg.norm(gram / norm - ideal)) if norm > 0 else np.nan


def _duality_distance(a: FloatArray, b: FloatArray) -> float:
    na, nb = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    return float(np.linalg.norm(a / na - b / nb)) if na > 0 and nb > 0 else np.nan


def _alignment_error(a: FloatArray, b: FloatArray) -> float:
    cosines = np.sum(_unit(a) * _unit(b), axis=0)
    alive = np.isfinite(cosines)
    return float(np.mean(1 - cosines[alive])) if alive.any() else np.nan
