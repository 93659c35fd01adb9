"""Spread-out class means: cosines and angles, and free features regularised by them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real, one_of
from theorylab.neural_collapse._frames import simplex_etf
from theorylab.neural_collapse._losses import CrossEntropy
from theorylab.neural_collapse.unconstrained_features import UnconstrainedFeatures
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "RegularisedMinimizer",
    "cosine_remainder",
    "etf_aligned_minimizer",
    "mean_max_cosine",
    "mean_min_angle",
    "regularised_minimizer",
    "spread_centres",
]

_LBFGS: Any = {"maxiter": 5000, "maxfun": 10000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-9}


@result
class RegularisedMinimizer:
    """Free features under cross-entropy with a regulariser of the class means; features of a class
    coincide.

    Attributes
    ----------
    loss
        Cross-entropy with weight decay, without the regulariser.
    spread
        The regulariser, without its strength.
    classifier
        (K, d).
    class_features
        (d, K).
    """

    loss: float
    spread: float
    classifier: FloatArray
    class_features: FloatArray

    @property
    def feature_cosines(self) -> FloatArray:
        """(K, K) cosines of the class features."""
        return _cosines(self.class_features.T)

    @property
    def classifier_cosines(self) -> FloatArray:
        """(K, K) cosines of the rows of the classifier."""
        return _cosines(self.classifier)


def mean_max_cosine(centres: ArrayLike, *, sharpness: float | None = None) -> float:
    r"""Return $\frac1K\sum_i\max_{j\ne i}\cos(c_i,c_j)$ or its smooth form $R_b$; both
    are at least -1/(K-1).

    Parameters
    ----------
    centres
        (K, d), K >= 2, no row zero.
    sharpness
        b > 0 of the smooth form; None for the maximum.

    Examples
    --------
    >>> from theorylab.neural_collapse import mean_max_cosine
    >>> mean_max_cosine([[1.0, 0.0], [-1.0, 0.0]])
    -1.0
    """
    unit = unit_rows(as_rows(centres))
    if sharpness is None:
        return float(_others(unit @ unit.T).max(axis=1).mean())
    return _smooth(unit, as_real(sharpness, "sharpness", above=0.0))[0]


def mean_min_angle(centres: ArrayLike) -> float:
    r"""Return $\frac1K\sum_i\min_{j\ne i}\angle(c_i,c_j)$, the regulariser of
    liu2023-inducing up to its sign.

    Parameters
    ----------
    centres
        (K, d), K >= 2, no row zero.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import mean_min_angle
    >>> mean_min_angle([[1.0, 0.0], [-1.0, 0.0]]) / np.pi
    1.0
    """
    unit = unit_rows(as_rows(centres))
    return float(np.arccos(np.clip(_others(unit @ unit.T).max(axis=1), -1, 1)).mean())


def spread_centres(
    n_classes: int,
    dimension: int,
    *,
    rng: np.random.Generator,
    quantity: str = "cosine",
    restarts: int = 5,
    callback: Callback | None = None,
) -> FloatArray:
    """Spread unit centres: minimize the mean of the largest cosines, or maximize that of the least
    angles.

    L-BFGS on the smooth form, sharpened by factors of 10; the best of several random starts by the
    unsmoothed value.

    Parameters
    ----------
    n_classes, dimension
        K >= 2 centres in d >= 1 dimensions.
    rng
        For the starts.
    quantity
        ``"cosine"`` or ``"angle"``.
    restarts
        Number of starts.
    callback
        Called after each start with the best value; where it returns True no further one is made.

    Returns
    -------
    numpy.ndarray
        (K, d) unit rows.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import spread_centres
    >>> centres = spread_centres(3, 2, rng=np.random.default_rng(0))
    >>> np.round(centres @ centres.T, 4)
    array([[ 1. , -0.5, -0.5],
           [-0.5,  1. , -0.5],
           [-0.5, -0.5,  1. ]])
    """
    K, d = as_count(n_classes, "n_classes", minimum=2), as_count(dimension, "dimension")
    as_instance(rng, "rng", np.random.Generator)
    one_of(quantity, "quantity", ("cosine", "angle"))
    angle = quantity == "angle"
    # A minute for the usual five starts.
    options = _LBFGS | {"maxfun": 20 + min(10_000, int(4e8 / (K * K * d)))}
    best, least, stops = np.zeros((K, d)), np.inf, watcher(callback)
    for start in range(as_count(restarts, "restarts")):
        x = rng.standard_normal((K, d))
        for sharpness in 10.0 ** np.arange(1, 6):

            def value(flat: FloatArray, sharpness: float = sharpness) -> tuple[float, FloatArray]:
                rows = flat.reshape(K, d)
                norms = np.linalg.norm(rows, axis=1, keepdims=True)
                number, slope = _smooth(rows / norms, sharpness, angle)
                return number, _through_norm(slope, rows / norms, norms).ravel()

            x = unit_rows(
                minimize(value, x.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(
                    K, d
                )
            )
        reached = -mean_min_angle(x) if angle else mean_max_cosine(x)
        if reached < least:
            best, least = x, reached
        if stops(start + 1, least):
            break
    return best


def regularised_minimizer(
    model: UnconstrainedFeatures,
    *,
    dimension: int,
    strength: float,
    rng: np.random.Generator,
    sharpness: float = 30.0,
    restarts: int = 5,
    callback: Callback | None = None,
) -> RegularisedMinimizer:
    r"""Minimize cross-entropy with free features, no bias, plus $\gamma R_b$ of the class
    means (L-BFGS, multi-start).

    Given W and the class means, cross-entropy and weight decay are convex in the features of a
    class, so they coincide without further penalty. One start is the ETF-aligned point, where d >=
    K - 1, so that the bound of ``long_tail`` holds for the result.

    Parameters
    ----------
    model
        Cross-entropy without bias.
    dimension
        d.
    strength
        $\gamma\ge0$.
    rng
        For the starts.
    sharpness
        b > 0.
    restarts
        Number of random starts; at least 1 where d < K - 1.
    callback
        Called after each start with the least objective; where it returns True no further one is
        made. The ETF-aligned start is the first.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, regularised_minimizer
    >>> model = UnconstrainedFeatures([3, 1], lam_w=0.01, lam_h=0.01, loss="ce")
    >>> rng = np.random.default_rng(0)
    >>> best = regularised_minimizer(model, dimension=2, strength=0.1, rng=rng)
    >>> round(best.spread, 6)
    -1.0
    """
    K, d = _classes(model), as_count(dimension, "dimension")
    gamma = as_real(strength, "strength", minimum=0.0)
    b = as_real(sharpness, "sharpness", above=0.0)
    as_instance(rng, "rng", np.random.Generator)

    def value(flat: FloatArray) -> tuple[float, FloatArray]:
        W, F = flat[: K * d].reshape(K, d), flat[K * d :].reshape(K, d)
        loss, slope_w, slope_f = _loss(W, F, model)
        if gamma:
            norms = np.linalg.norm(F, axis=1, keepdims=True)
            spread, slope = _smooth(F / norms, b)
            loss += gamma * spread
            slope_f = slope_f + gamma * _through_norm(slope, F / norms, norms)
        return loss, np.concatenate([slope_w.ravel(), slope_f.ravel()])

    fewest = int(d < K - 1)
    starts = [
        rng.standard_normal(2 * K * d)
        for _ in range(as_count(restarts, "restarts", minimum=fewest))
    ]
    if not fewest:
        frame = simplex_etf(K, d)
        W, lengths = _aligned(model, frame)
        lifted = np.maximum(lengths, 1e-3 * lengths.max() + 1e-9)[:, None] * frame
        starts.insert(0, np.concatenate([W.ravel(), lifted.ravel()]))
    best, least, stops = starts[0], np.inf, watcher(callback)
    for made, start in enumerate(starts, start=1):
        end = minimize(value, start, jac=True, method="L-BFGS-B", options=_LBFGS)
        if end.fun < least:
            best, least = end.x, float(end.fun)
        if stops(made, least):
            break
    W, F = best[: K * d].reshape(K, d), best[K * d :].reshape(K, d)
    return _minimizer(model, W, F, _smooth(unit_rows(F), b)[0])


def etf_aligned_minimizer(model: UnconstrainedFeatures, *, dimension: int) -> RegularisedMinimizer:
    """Minimize cross-entropy with free features in the directions of a simplex frame: lengths and
    classifier are free.

    Its loss is the one of the bound in ``long_tail``, and it is the limit of infinitely strong
    regularisation.

    Parameters
    ----------
    model
        Cross-entropy without bias.
    dimension
        d >= K - 1.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, etf_aligned_minimizer
    >>> model = UnconstrainedFeatures([3, 3, 3], lam_w=0.01, lam_h=0.01, loss="ce")
    >>> etf_aligned_minimizer(model, dimension=2)
    <RegularisedMinimizer: loss 0.174533, spread -0.5, classifier (3, 2), class_features (2, 3)>
    """
    K = _classes(model)
    frame = simplex_etf(K, as_count(dimension, "dimension"))
    W, lengths = _aligned(model, frame)
    return _minimizer(model, W, lengths[:, None] * frame, -1 / (K - 1))


def cosine_remainder(excess: ArrayLike, n_classes: int, *, sharpness: float) -> FloatArray:
    r"""Bound how far a cosine of two centres can be from -1/(K-1), given
    $R_b\le-\frac1{K-1}+$ excess.

    K times the excess is $\|\sum c_i\|^2/(K-1)$ plus, for each i, the difference of
    log-mean-exp and mean of its cosines; each is non-negative and bounds the deviation of the mean,
    and of the extreme cosines from it (derived).

    Parameters
    ----------
    excess
        (m,) non-negative.
    n_classes
        K >= 3.
    sharpness
        b > 0.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import cosine_remainder
    >>> np.round(cosine_remainder([0.01, 0.001], 4, sharpness=100.0), 3)
    array([0.204, 0.052])
    """
    e = as_array(excess, "excess", ndim=1, nonnegative=True)
    K = as_count(n_classes, "n_classes", minimum=3)
    b = as_real(sharpness, "sharpness", above=0.0)

    def deviation(budget: float) -> float:
        """Largest deviation of one of K - 1 numbers from their mean if log-mean-exp exceeds it by
        the budget: downwards, as upwards costs more (sinh t >= (K - 2) sinh(t / (K - 2)))."""

        def left(delta: float) -> float:
            return (
                float(np.logaddexp(-b * delta, np.log(K - 2) + b * delta / (K - 2)) - np.log(K - 1))
                / b
                - budget
            )

        return 2.0 if left(2.0) <= 0 else brentq(left, 0.0, 2.0) if budget else 0.0

    return np.array([np.sqrt(K * v / (K - 1)) + deviation(K * v) for v in e])


def as_rows(value: ArrayLike, name: str = "centres") -> FloatArray:
    rows = as_array(value, name, ndim=2)
    if rows.shape[0] < 2 or not rows.any(axis=1).all():
        raise ValueError(
            f"{name}: expected at least two rows, none of them zero, got shape "
            f"{rows.shape} with zero rows or too few"
        )
    return rows


def unit_rows(rows: FloatArray) -> FloatArray:
    # Scaled by the largest entry first, so that the squares of tiny rows do not vanish.
    scaled = rows / np.abs(rows).max(axis=1, keepdims=True)
    unit: FloatArray = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit


def _cosines(rows: FloatArray) -> FloatArray:
    unit = unit_rows(rows)
    cosines: FloatArray = unit @ unit.T
    return cosines


def _others(gram: FloatArray) -> FloatArray:
    """Return the off-diagonal entries, row by row, (K, K - 1)."""
    K = len(gram)
    return gram[~np.eye(K, dtype=bool)].reshape(K, K - 1)


def _smooth(unit: FloatArray, sharpness: float, angle: bool = False) -> tuple[float, FloatArray]:
    """Return the smooth mean of largest cosines (or of the negated least angles), and its gradient
    in the unit rows."""
    K = len(unit)
    gram = np.clip(unit @ unit.T, -1, 1)
    score, slope = gram, np.ones_like(gram)
    if angle:
        score = -np.arccos(gram)
        slope = 1 / np.sqrt(np.maximum(1 - gram**2, 1e-12))
    scaled = sharpness * score
    np.fill_diagonal(scaled, -np.inf)
    # Value and gradient share the exponentials.
    top = scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled - top)
    totals = powers.sum(axis=1, keepdims=True)
    value = float(np.mean(top + np.log(totals / (K - 1))) / sharpness)
    weight = powers / totals * slope / K
    gradient: FloatArray = (weight + weight.T) @ unit
    return value, gradient


def _through_norm(slope: FloatArray, unit: FloatArray, norms: FloatArray) -> FloatArray:
    """Return the gradient in the rows, given that in the rows scaled to length one."""
    gradient: FloatArray = (slope - np.sum(slope * unit, axis=1, keepdims=True) * unit) / norms
    return gradient


def _classes(model: UnconstrainedFeatures) -> int:
    """Return the number of classes of a model that can be regularised."""
    as_instance(model, "model", UnconstrainedFeatures)
    if model.bias or not isinstance(model.loss, CrossEntropy):
        raise ValueError(
            f"model: expected cross-entropy without bias, got {model.loss} and bias={model.bias}"
        )
    return model.counts.size


def _aligned(model: UnconstrainedFeatures, frame: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return classifier and lengths (K,) at the minimum, for class features along the frame."""
    K, d = frame.shape

    def value(flat: FloatArray) -> tuple[float, FloatArray]:
        W, lengths = flat[: K * d].reshape(K, d), flat[K * d :]
        loss, slope_w, slope_f = _loss(W, lengths[:, None] * frame, model)
        return loss, np.concatenate([slope_w.ravel(), np.sum(slope_f * frame, axis=1)])

    bounds = [(None, None)] * (K * d) + [(0.0, None)] * K
    start = np.concatenate([frame.ravel(), np.ones(K)])
    end = minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_LBFGS).x
    return end[: K * d].reshape(K, d), end[K * d :]


def _minimizer(
    model: UnconstrainedFeatures, W: FloatArray, F: FloatArray, spread: float
) -> RegularisedMinimizer:
    """Return the point in the units of the model."""
    unit = (model.lam_w / model.lam_h) ** 0.25
    return RegularisedMinimizer(_loss(W, F, model)[0], spread, W / unit, unit * F.T)


def _loss(
    W: FloatArray, F: FloatArray, model: UnconstrainedFeatures
) -> tuple[float, FloatArray, FloatArray]:
    """Return cross-entropy with weight decay for class features in the rows of F, and its
    gradients; in the unit of the features in which both have the same weight decay, as only the
    product matters to the logits."""
    n, lam = model.counts.astype(np.float64), model.price
    value, slope = model.loss.mean(W @ F.T, np.arange(n.size), n)
    value += lam / 2 * float(np.sum(W**2) + n @ np.sum(F**2, axis=1))
    return value, slope @ F + lam * W, slope.T @ W + lam * n[:, None] * F
