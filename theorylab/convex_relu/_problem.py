"""The training problem as it is given: data, targets, penalty, loss, patterns, budgets."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.convex_relu.losses import Loss, as_loss

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


def as_problem(
    X: ArrayLike, y: ArrayLike, beta: float, loss: str | Loss
) -> tuple[FloatArray, FloatArray, float, Loss]:
    """Validate data, targets, penalty and loss."""
    X = as_array(X, "X", ndim=2)
    y = as_array(y, "y")
    if y.ndim not in (1, 2) or y.shape[0] != X.shape[0]:
        raise ValueError(f"y: expected shape ({X.shape[0]},) or ({X.shape[0]}, K), got {y.shape}")
    chosen = as_loss(loss)
    chosen.check_labels(y)
    for name, values in (("X", X), ("y", y)):
        size = float(np.abs(values).max())
        if size > 0.0 and not 1e-140 <= size <= 1e140:
            raise ValueError(
                f"{name}: expected a largest entry between 1e-140 and 1e140, whose square is a "
                f"float64, got {size}"
            )
    return X, y, as_real(beta, "beta", above=0.0), chosen


def as_budget(max_nodes: int | None) -> int | None:
    """Validate a number of nodes, or None for the default."""
    return None if max_nodes is None else as_count(max_nodes, "max_nodes")


def as_patterns(
    arrangements: str | ArrayLike, n: int, name: str = "arrangements"
) -> BoolArray | None:
    """Return None for "all", else the validated patterns, shape (P, n)."""
    if isinstance(arrangements, str):
        if arrangements != "all":
            raise ValueError(
                f"{name}: expected 'all' or patterns of shape (P, {n}), got {arrangements!r}"
            )
        return None
    values = as_array(arrangements, name, shape=(None, n))
    if not np.all((values == 0.0) | (values == 1.0)):
        raise ValueError(f"{name}: expected entries 0 and 1, got others")
    return np.ascontiguousarray(values == 1.0)


def augment(X: FloatArray, bias: bool) -> FloatArray:
    """Append the column of ones whose weight is the penalised bias."""
    return np.ascontiguousarray(np.column_stack([X, np.ones(X.shape[0])])) if bias else X
