r"""Neural collapse, measured: within-class variability, geometry of the class means, self-duality,
nearest centre.

Features $h_i\in\mathbb R^d$ of N samples in K classes, classifier rows $w_k$, class
means $\mu_k$, their mean $\mu=\frac1K\sum_k\mu_k$ (every class counts once, so that a
simplex ETF of means is centred whatever the class sizes), $M=[\mu_k-\mu]$, and

$$\Sigma_W=\frac1N\sum_i(h_i-\mu_{y_i})(h_i-\mu_{y_i})^\top,\qquad \Sigma_B=\frac1K MM^\top
.$$

- NC1: $\operatorname{tr}(\Sigma_W\Sigma_B^+)/K$, and the weak form
  $\operatorname{tr}\Sigma_W/\operatorname{tr}\Sigma_B$.
- NC2: the Gram matrix of M is that of a simplex equiangular tight frame (ETF),
  $I-\frac1K\mathbf 1\mathbf 1^\top$ up to
  scale; for squared loss without a last-layer bias the uncentred means form an orthogonal frame, of
  lengths set by the class sizes.
- NC3: $W^\top$ and M agree up to scale; the weak form asks for parallel $w_k$ and
  $\mu_k$ only.
- NC4: the classifier decides like the nearest class centre.

The definitions are those of Papyan, Han and Donoho (2020), extended to unequal classes as stated.
:func:`train_features` makes real features to measure: a two-layer network trained past zero error
with the penalties of the unconstrained-features model."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, minimize

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real, one_of
from theorylab.neural_collapse._losses import Loss, as_loss
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "CollapseMetrics",
    "FeatureTraining",
    "collapse_metrics",
    "general_orthogonal_frame",
    "simplex_etf",
    "train_features",
]


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


@result
class FeatureTraining:
    """Record of a training run, and where it ended.

    Attributes
    ----------
    iterations
        (T,) recorded iterations.
    objectives, errors
        (T,) objective, and share of training samples that are misclassified.
    metrics
        Collapse of the features at each recorded iteration.
    features
        (d, N) at the end.
    classifier
        (K, d) at the end.
    bias
        (K,) at the end, or None.
    """

    iterations: np.ndarray[tuple[int], np.dtype[np.int64]]
    objectives: FloatArray
    errors: FloatArray
    metrics: tuple[CollapseMetrics, ...]
    features: FloatArray
    classifier: FloatArray
    bias: FloatArray | None


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
    y = _labels(labels, n_classes)
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


def simplex_etf(n_classes: int, dimension: int) -> FloatArray:
    r"""Return unit vectors with the least common cosine, $w_k^\top w_j=-\frac1{K-1}$, as
    rows.

    Parameters
    ----------
    n_classes
        K >= 2.
    dimension
        d >= K - 1.

    Returns
    -------
    numpy.ndarray
        (K, d); row k uses the first min(k + 1, K - 1) coordinates only, and the rows sum to zero.

    Raises
    ------
    ValueError
        On bad input, and where d < K - 1: there is no such frame.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import simplex_etf
    >>> frame = simplex_etf(3, 4)
    >>> np.round(frame @ frame.T, 12)
    array([[ 1. , -0.5, -0.5],
           [-0.5,  1. , -0.5],
           [-0.5, -0.5,  1. ]])
    """
    K = as_count(n_classes, "n_classes", minimum=2)
    d = as_count(dimension, "dimension")
    if d < K - 1:
        raise ValueError(f"dimension: expected at least n_classes - 1 = {K - 1}, got {d}")
    frame = np.zeros((K, d))
    # Helmert's contrasts: column j separates class j from the classes after it.
    after = np.arange(K - 1, 0, -1.0)
    step = np.sqrt(K / (K - 1) / (after * (after + 1)))
    for j in range(K - 1):
        frame[j, j] = step[j] * after[j]
        frame[j + 1 :, j] = -step[j]
    return frame


def general_orthogonal_frame(lengths: ArrayLike, dimension: int) -> FloatArray:
    """Return orthogonal vectors of given lengths as rows; those of length 0 need no dimension.

    Parameters
    ----------
    lengths
        (K,), non-negative.
    dimension
        d, at least the number of positive lengths.

    Returns
    -------
    numpy.ndarray
        (K, d), each non-zero row along its own axis, longest first.

    Raises
    ------
    ValueError
        On bad input, and where the frame does not fit into d dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import general_orthogonal_frame
    >>> frame = general_orthogonal_frame([1.0, 2.0], 3)
    >>> np.round(frame @ frame.T, 12)
    array([[1., 0.],
           [0., 4.]])
    """
    size = as_array(lengths, "lengths", ndim=1, nonnegative=True)
    d = as_count(dimension, "dimension")
    alive = int(np.count_nonzero(size))
    if d < alive:
        raise ValueError(
            f"dimension: expected at least the number {alive} of positive lengths, got {d}"
        )
    frame = np.zeros((size.size, d))
    order = np.argsort(-size, kind="stable")[:alive]
    frame[order, np.arange(alive)] = size[order]
    return frame


def train_features(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    hidden: int,
    dimension: int,
    lam_w: float,
    lam_h: float,
    loss: Loss | str = "ce",
    bias: bool = False,
    iterations: int = 500,
    target: float = 0.0,
    n_records: int = 20,
    seed: int = 0,
) -> FeatureTraining:
    r"""Train features $h(x)=V\max(Ux+c,0)+e$ and a linear classifier W on them, full batch,
    by L-BFGS.

    The objective is that of the unconstrained-features model at the features of the training
    samples: the mean loss of $Wh(x_i)+b$, plus
    $\frac{\lambda_W}2\|W\|_F^2+\frac{\lambda_H}2\sum_i\|h(x_i)\|^2$. The other weights and
    the bias are not penalised, so the model's minimum bounds the objective from below, and a
    network that can give its training samples any features (N hidden units in general position) can
    attain it.

    Parameters
    ----------
    inputs
        (D, N), a column a sample, entries of order one.
    labels
        (N,) integers from 0 to K-1; every class occurs.
    hidden, dimension
        Number of hidden units, and d.
    lam_w, lam_h
        Weight decay of the classifier and of the features, positive.
    loss
        A :class:`Loss`, or its name.
    bias
        Whether there is a last-layer bias.
    iterations, target
        L-BFGS iterations at most; training stops as soon as the objective is at most ``target`` (>=
        0).
    n_records
        How many iterations are recorded at most, evenly in logarithm; the last one comes on top.
    seed
        Of the Gaussian initial weights.

    Examples
    --------
    >>> from theorylab.neural_collapse import train_features
    >>> inputs = [[1.0, 1.2, -1.0, -0.9], [0.0, 0.1, 0.3, -0.2]]
    >>> training = train_features(
    ...     inputs, [0, 0, 1, 1], hidden=8, dimension=2, lam_w=0.01, lam_h=0.01, iterations=50
    ... )
    >>> training.features.shape, bool(training.errors[-1] == 0)
    ((2, 4), True)
    """
    X = as_array(inputs, "inputs", ndim=2)
    raw = as_array(labels, "labels", shape=(X.shape[1],), nonnegative=True)
    K = int(np.unique(raw).size)
    y = _labels(raw, K)
    m, d = as_count(hidden, "hidden"), as_count(dimension, "dimension")
    lam_w, lam_h = as_real(lam_w, "lam_w", above=0.0), as_real(lam_h, "lam_h", above=0.0)
    kind = as_loss(loss)
    as_flag(bias, "bias")
    iterations, n_records = as_count(iterations, "iterations"), as_count(n_records, "n_records")
    target = as_real(target, "target", minimum=0.0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    if K < 2:
        raise ValueError("labels: expected at least two classes, got one")
    D, N = X.shape
    shapes = [(m, D), (m, 1), (d, m), (d, 1), (K, d), (K, 1)]
    cuts = np.cumsum([a * b for a, b in shapes])[:-1]
    scales = [np.sqrt(8 / D), 0.0, np.sqrt(1 / m), 0.0, np.sqrt(0.25 / d), 0.0]
    start = np.concatenate(
        [scale * rng.normal(size=a * b) for scale, (a, b) in zip(scales, shapes, strict=True)]
    )
    weights = np.ones(N)

    def forward(theta: FloatArray) -> tuple[list[FloatArray], FloatArray, FloatArray, FloatArray]:
        parts = [
            part.reshape(shape) for part, shape in zip(np.split(theta, cuts), shapes, strict=True)
        ]
        U, c, V, e, W, b = parts
        active = np.maximum(U @ X + c, 0)
        H = V @ active + e
        return parts, active, H, W @ H + b * bias

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        (_, _, V, _, W, _), active, H, logits = forward(theta)
        value, slope = kind.mean(logits, y, weights)
        value += lam_w / 2 * float(np.sum(W**2)) + lam_h / 2 * float(np.sum(H**2))
        back = W.T @ slope + lam_h * H
        inner = (V.T @ back) * (active > 0)
        gradients = (
            inner @ X.T,
            inner.sum(axis=1),
            back @ active.T,
            back.sum(axis=1),
            slope @ H.T + lam_w * W,
            slope.sum(axis=1) * bias,
        )
        return value, np.concatenate([g.ravel() for g in gradients])

    wanted = set(np.unique(np.round(np.geomspace(1, iterations, n_records)).astype(int)).tolist())
    with np.errstate(over="ignore", invalid="ignore"):
        seen = [(0, objective(start)[0], start)]
    if not np.isfinite(seen[0][1]):
        raise ValueError(
            f"inputs: expected entries of order one, got up to {np.abs(X).max():.1e} and an "
            "objective beyond float64"
        )
    steps = count(1)

    def record(intermediate_result: OptimizeResult) -> None:
        if (step := next(steps)) in wanted:
            seen.append((step, float(intermediate_result.fun), intermediate_result.x.copy()))
        if intermediate_result.fun <= target:
            raise StopIteration

    options: Any = {
        "maxiter": iterations,
        "maxfun": 20 * iterations,
        "ftol": 1e-16,
        "gtol": 1e-10,
        "maxcor": 20,
    }
    function: Any = objective
    end = minimize(function, start, jac=True, method="L-BFGS-B", callback=record, options=options)
    if seen[-1][0] < end.nit:
        seen.append((int(end.nit), float(end.fun), end.x))
    errors, metrics = [], []
    for _, _, theta in seen:
        parts, _, H, logits = forward(theta)
        errors.append(float(np.mean(logits.argmax(axis=0) != y)))
        metrics.append(
            collapse_metrics(H, y, parts[4], bias=parts[5].ravel() * bias, layout="columns")
        )
    parts, _, H, _ = forward(end.x)
    return FeatureTraining(
        iterations=np.array([step for step, _, _ in seen]),
        objectives=np.array([value for _, value, _ in seen]),
        errors=np.array(errors),
        metrics=tuple(metrics),
        features=H,
        classifier=parts[4],
        bias=parts[5].ravel() if bias else None,
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


def _labels(labels: ArrayLike, n_classes: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
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
