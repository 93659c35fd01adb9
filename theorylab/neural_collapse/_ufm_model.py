"""The unconstrained-features problem as an object, its objective and its threshold."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import (
    FloatArray,
    as_array,
    as_flag,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.neural_collapse._losses import Loss, Squared, as_loss
from theorylab.neural_collapse._spectra import as_counts
from theorylab.numerics.results import result

__all__ = [
    "UnconstrainedFeatures",
    "collapse_threshold",
    "ufm_objective",
]


@result
class UnconstrainedFeatures:
    """The problem of ``unconstrained_features``, its numbers checked once.

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

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, ufm_objective
    >>> model = UnconstrainedFeatures([1, 1], lam_w=0.1, lam_h=0.1)
    >>> round(ufm_objective(model, [[1.0, -1.0]], [[1.0], [-1.0]]), 4)
    0.7
    """
    H, W, b = as_point(model, features, classifier, bias)
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

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, collapse_threshold
    >>> collapse_threshold(UnconstrainedFeatures([50, 50], lam_w=0.01, lam_h=0.02))
    2.0
    """
    as_instance(model, "model", UnconstrainedFeatures)
    return float(model.counts.sum()) ** 2 * model.lam_w * model.lam_h


def as_point(
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
