"""Squared loss and cross-entropy of logits with one-hot labels, and the check of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array


def loss_and_slope(
    logits: FloatArray, labels: NDArray[np.int64], weights: FloatArray, loss: str
) -> tuple[float, FloatArray]:
    """Return the loss of samples with weights n (out of their sum) and its gradient with respect to
    the logits."""
    columns = np.arange(labels.size)
    share = weights / weights.sum()
    if loss == "mse":
        slope = logits.copy()
        slope[labels, columns] -= 1
        return float(0.5 * (slope**2).sum(axis=0) @ share), slope * share
    shifted = logits - logits.max(axis=0)
    own = shifted[labels, columns]
    slope = np.exp(shifted)
    norm = slope.sum(axis=0)
    slope /= norm
    slope[labels, columns] -= 1
    return float((np.log(norm) - own) @ share), slope * share


def as_labels(
    labels: ArrayLike,
    size: int | None,
    n_classes: int,
    name: str = "labels",
    expected: str = "integers from 0 to K - 1",
) -> NDArray[np.int64]:
    """Return the labels as integers below ``n_classes``, ``size`` of them if given."""
    y = as_array(labels, name, shape=(size,), nonnegative=True)
    whole = y.astype(np.int64)
    if (whole != y).any() or whole.max() >= n_classes:
        raise ValueError(f"{name}: expected {expected} < {n_classes}, got {y.max()}")
    return whole
