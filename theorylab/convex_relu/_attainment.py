"""What the neurons and the skip connection can attain: interpolation, and labels that a linear map
separates, for which the logistic loss has no minimiser."""

from __future__ import annotations

import numpy as np
from scipy.linalg import lstsq

from theorylab._validation import FloatArray
from theorylab.convex_relu._neurons import Neurons
from theorylab.convex_relu._problem import BoolArray
from theorylab.convex_relu._reduction import Reduction
from theorylab.convex_relu.losses import Interpolation
from theorylab.numerics.programs import linprog

_DIRECT = 1500
"""Most rows for which neurons in four times as many directions are solved for: some seconds."""


def interpolable(
    reduction: Reduction, patterns: BoolArray | None, skip: bool, y: FloatArray
) -> bool:
    """Whether the targets are in the span of the neurons' outputs."""
    X = reduction.data
    if patterns is None:
        # Rows on different lines are independent but for their linear part: |x_i @ u| spans
        # everything, and relu(z) = (z + |z|) / 2.
        bends = np.zeros((len(y), len(reduction.lines)))
        bends[np.arange(len(y)), reduction.index] = np.abs(reduction.ratio)
        features = np.hstack([bends, X])
    else:
        features = np.hstack([X * on[:, None] for on in patterns])
        features = np.hstack([features, X]) if skip else features
    fitted = features @ np.linalg.lstsq(features, y, rcond=None)[0]
    return bool(np.abs(y - fitted).max() <= 1e-11 * np.abs(y).max())


def completed(state: Neurons, X: FloatArray, y: FloatArray) -> Neurons:
    """Add to neurons that do not interpolate yet others in random directions, of the least sum of
    squared lengths, that do; as they are where that is not reached, or takes too long."""
    left, (n, d) = y - state.output(X), X.shape
    within = Interpolation().value
    if np.isfinite(within(y - left, y)) or n > _DIRECT:
        return state
    u = np.random.default_rng(0).standard_normal((4 * n, d))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    sides = u @ X.T
    lengths = lstsq(np.maximum(sides, 0.0).T, left, lapack_driver="gelsy", check_finite=False)[0]
    more = state.extended(
        np.abs(lengths)[:, None] * u, np.sign(lengths), sides > 0.0, np.zeros(sides.shape, bool)
    ).pruned()
    return more if np.isfinite(within(more.output(X), y)) else state


def separating_map(data: FloatArray, y: FloatArray) -> FloatArray:
    """Return a map s with ``y_i x_i @ s`` at least one on as many rows as possible and zero on the
    others; zero if there is none."""
    n, d = data.shape
    signed = y[:, None] * data
    lengths = np.linalg.norm(signed, axis=1)
    signed = signed / np.where(lengths > 0.0, lengths, 1.0)[:, None]
    found = linprog(
        np.concatenate([np.zeros(d), -np.ones(n)]),
        A_ub=np.hstack([-signed, np.eye(n)]),
        b_ub=np.zeros(n),
        bounds=[(None, None)] * d + [(0.0, 1.0)] * n,
        method="highs",
    )
    nothing = np.zeros(d)
    if found.x is None:
        return nothing
    s = np.asarray(found.x[:d], dtype=np.float64)
    beaten = signed @ s > 0.5
    if not beaten.any():
        return nothing
    rest = data[~beaten]
    if len(rest):
        # Exactly zero where it should be, up to rounding.
        s = s - np.linalg.lstsq(rest, rest @ s, rcond=None)[0]
    if np.any(signed[beaten] @ s <= 0.5):
        return nothing
    return s / float((np.abs(data[beaten] @ s)).min())
