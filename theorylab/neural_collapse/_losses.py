"""Squared loss and cross-entropy of logits with one-hot labels."""

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray


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
