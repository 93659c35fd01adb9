"""Univariate networks as splines: the least weight decay of an interpolant, and who attains it.

With free biases and output bias the least weight decay is a total variation of the slope
(parhi2023-deep); the paper's text was not consulted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_flag, refuses_overflow
from theorylab.numerics.results import result

__all__ = [
    "BalancedWeights",
    "SplineNetwork",
    "as_data",
    "balance",
    "minimal_path_norm",
    "minimal_path_norm_network",
    "path_norm",
]


@result
class SplineNetwork:
    """Network ``sum_k v_k relu(w_k t + b_k) + slope t + intercept``.

    Attributes
    ----------
    weights, biases, output_weights
        (m,) ``w``, ``b`` and ``v``.
    slope, intercept
        Skip connection and output bias, not penalized.
    """

    weights: FloatArray
    biases: FloatArray
    output_weights: FloatArray
    slope: float = 0.0
    intercept: float = 0.0

    def __call__(self, t: ArrayLike) -> FloatArray:
        """Return the outputs at (p,) inputs."""
        t = as_array(t, "t", ndim=1)
        hidden = np.maximum(t[:, None] * self.weights + self.biases, 0)
        outputs: FloatArray = hidden @ self.output_weights + self.slope * t + self.intercept
        return outputs

    @property
    def knots(self) -> FloatArray:
        """Inputs at which a unit bends, in the order of the units."""
        return -self.biases / self.weights

    @property
    def path_norm(self) -> float:
        """``sum |v_k w_k|``, biases left out."""
        return float(np.abs(self.weights * self.output_weights).sum())

    @property
    def weight_decay(self) -> float:
        """``1/2 sum (v_k^2 + w_k^2)``, biases left out."""
        return 0.5 * float(np.sum(self.weights**2) + np.sum(self.output_weights**2))


@result
class BalancedWeights:
    """Units rescaled so that both layers of each have the same norm.

    Attributes
    ----------
    weights
        (m, d) first layer.
    output_weights
        (m,) second layer.
    """

    weights: FloatArray
    output_weights: FloatArray


def minimal_path_norm(x: ArrayLike, y: ArrayLike, *, skip: bool = True) -> float:
    r"""Return the least ``1/2 sum (v_k^2 + w_k^2)`` of a network that interpolates, with free
    biases and output bias.

    With ``s_i`` the slopes of the linear interpolant, ``T = sum |s_{i+1} - s_i|`` and ``S = |s_1 +
    s_{n-1}|``, it is T with a free skip connection. Without one it is T if ``S <= T`` and ``(T + S)
    / 2`` otherwise: a network costs at least ``max(TV(f'), |f'(-inf) + f'(inf)|)``, and changing
    the outer slopes by e in total raises the first to ``T + e`` while it lowers the second to ``S -
    e``.

    Parameters
    ----------
    x, y
        (n,) distinct inputs, in any order, and outputs; at least two.
    skip
        Whether an unpenalized linear term is available.

    Notes
    -----
    parhi2023-deep, spline representer theorem; the form without skip connection is derived here.

    Examples
    --------
    >>> from theorylab.convex_relu import minimal_path_norm
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> minimal_path_norm(x, y)
    2.0
    """
    total, ends = _variation(*_sorted_slopes(x, y)[2:])
    return total if as_flag(skip, "skip") else max(total, (total + abs(ends)) / 2)


def minimal_path_norm_network(x: ArrayLike, y: ArrayLike, *, skip: bool = True) -> SplineNetwork:
    """Return an interpolating network that attains :func:`minimal_path_norm`, with balanced units.

    With skip connection it connects the dots with at most ``n - 2`` knots. Without, outer slopes
    change one unit of length outside the data where that pays, and each bend is split between
    right-active and left-active units so that the slopes at both ends come out.

    Parameters
    ----------
    x, y
        (n,) distinct inputs, in any order, and outputs; at least two.
    skip
        Whether an unpenalized linear term is available.

    Examples
    --------
    >>> from theorylab.convex_relu import minimal_path_norm_network
    >>> x, y = [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]
    >>> network = minimal_path_norm_network(x, y)
    >>> network
    <SplineNetwork: weights (1,), biases (1,), output_weights (1,), slope -1, intercept 0>
    """
    xs, ys, slopes, bends = _sorted_slopes(x, y)
    knots = xs[1:-1]
    if as_flag(skip, "skip"):
        kept = bends != 0
        first, knots, bends = slopes[0], knots[kept], bends[kept]
        return _units(knots, bends, np.ones(bends.size), first, ys[0], anchor=xs[0])
    total, ends = _variation(slopes, bends)
    # Lower |f'(-inf) + f'(inf)| by e, half of it at either end.
    excess = np.sign(ends) * max(0.0, (abs(ends) - total) / 2)
    knots = np.concatenate([[xs[0] - 1], knots, [xs[-1] + 1]])
    bends = np.concatenate([[excess / 2], bends, [-excess / 2]])
    kept = bends != 0
    knots, bends = knots[kept], bends[kept]
    # A fraction r of each bend goes to a right-active unit so that sum bends (2 r - 1) = f'(-inf) +
    # f'(inf).
    variation = float(np.abs(bends).sum())
    share = (ends - excess) / variation if variation else 0.0
    return _units(knots, bends, (1 + share * np.sign(bends)) / 2, 0.0, ys[0], anchor=xs[0])


@refuses_overflow("hidden_weights", "output_weights")
def path_norm(hidden_weights: ArrayLike, output_weights: ArrayLike) -> float:
    """Return ``sum_k |v_k| ||w_k||_2``, the least weight decay ``1/2 sum (v_k^2 + ||w_k||^2)`` over
    rescalings of the units.

    Parameters
    ----------
    hidden_weights
        (m, d) first layer.
    output_weights
        (m,) second layer.

    Notes
    -----
    parhi2023-deep, neural balance theorem.

    Examples
    --------
    >>> from theorylab.convex_relu import path_norm
    >>> path_norm([[3.0, 4.0]], [2.0])
    10.0
    """
    W = as_array(hidden_weights, "hidden_weights", ndim=2)
    output_weights = as_array(output_weights, "output_weights", shape=W.shape[:1])
    return float(np.abs(output_weights) @ np.linalg.norm(W, axis=1))


@refuses_overflow("hidden_weights", "output_weights")
def balance(hidden_weights: ArrayLike, output_weights: ArrayLike) -> BalancedWeights:
    """Rescale every unit to ``|v_k| = ||w_k||_2``, which keeps the function of a positively
    homogeneous network.

    Parameters
    ----------
    hidden_weights
        (m, d) first layer.
    output_weights
        (m,) second layer.

    Notes
    -----
    parhi2023-deep, neural balance theorem: only these weights attain :func:`path_norm`. A unit with
    a zero layer becomes zero.

    Examples
    --------
    >>> from theorylab.convex_relu import balance
    >>> balanced = balance([[3.0, 4.0]], [0.2])
    >>> balanced.weights, balanced.output_weights
    (array([[0.6, 0.8]]), array([1.]))
    """
    W = as_array(hidden_weights, "hidden_weights", ndim=2)
    output_weights = as_array(output_weights, "output_weights", shape=W.shape[:1])
    inner, outer = np.linalg.norm(W, axis=1), np.abs(output_weights)
    size = np.sqrt(inner * outer)
    alive = size > 0
    inner, outer = np.where(alive, inner, 1.0), np.where(alive, outer, 1.0)
    return BalancedWeights(W * (size / inner)[:, None], output_weights * size / outer)


def as_data(x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return inputs and outputs as arrays of one shape."""
    x = as_array(x, "x", ndim=1)
    return x, as_array(y, "y", shape=x.shape)


def _sorted_slopes(
    x: ArrayLike, y: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return sorted inputs, outputs, the slopes between neighbours and the changes of slope."""
    x, y = as_data(x, y)
    order = np.argsort(x)
    xs, ys = x[order], y[order]
    if xs.size < 2 or np.any(np.diff(xs) == 0):
        raise ValueError(
            f"x: expected at least two distinct inputs without repetition, got {x.size} inputs"
        )
    slopes = np.diff(ys) / np.diff(xs)
    return xs, ys, slopes, np.diff(slopes)


def _variation(slopes: FloatArray, bends: FloatArray) -> tuple[float, float]:
    return float(np.abs(bends).sum()), float(slopes[0] + slopes[-1])


def _units(
    knots: FloatArray,
    bends: FloatArray,
    right: FloatArray,
    slope: float,
    level: float,
    *,
    anchor: float = 0.0,
) -> SplineNetwork:
    """Return balanced units with the given changes of slope, a fraction of each right-active, and
    ``level`` at ``anchor``."""
    mass = np.concatenate([bends * right, bends * (1 - right)])
    size = np.sqrt(np.abs(mass))
    weights = size * np.repeat([1.0, -1.0], bends.size)
    kept = size > 0
    weights, outputs = weights[kept], (np.sign(mass) * size)[kept]
    network = SplineNetwork(weights, -weights * np.tile(knots, 2)[kept], outputs, float(slope))
    return replace(network, intercept=float(level - network(np.array([anchor]))[0]))
