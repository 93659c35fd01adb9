r"""Elastic costs: half the squared displacement plus a penalty that prefers few moved coordinates,

$$h(z)=\tfrac12\|z\|^2+\lambda s(z),\qquad c(x,y)=h(x-y),$$

with s the l1 norm, half the squared k-overlap norm, or a smoothed count of nonzeros. A penalty is a
small object with its weight $\lambda$; a convex one also has its proximal operator
$\arg\min_z\frac12\|z-v\|^2+t\lambda s(z)$, which is the gradient of the conjugate of h
at t = 1 and gives exact zeros.

Theorem: chen2025-displacement (smoothed l0 in place of l1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from theorylab._validation import FloatArray, as_array, as_count, as_real

__all__ = ["L1", "ConvexPenalty", "KOverlap", "Penalty", "SmoothedL0", "cost_matrix"]

_BLOCK = 2**21  # displacements held at a time, in numbers

Cost = Callable[[FloatArray, FloatArray], ArrayLike]


@dataclass(frozen=True)
class Penalty(ABC):
    """A penalty s of displacements with its weight in the elastic cost.

    Attributes
    ----------
    weight
        lambda, at least 0.
    """

    weight: float

    def __post_init__(self) -> None:
        as_real(self.weight, "weight", minimum=0.0)

    @abstractmethod
    def value(self, Z: FloatArray) -> FloatArray:
        """Return s of each displacement, the last axis of Z, without the weight."""

    def cost(self, Z: FloatArray) -> FloatArray:
        """Return the elastic cost h of each displacement."""
        total: FloatArray = np.einsum("...i,...i->...", Z, Z) / 2 + self.weight * self.value(Z)
        return total


class ConvexPenalty(Penalty):
    """A penalty with a proximal operator."""

    @abstractmethod
    def shrink(self, V: FloatArray, step: float = 1.0) -> FloatArray:
        """Return the minimiser of ``|z - v|^2 / 2 + step * weight * s(z)`` for each v, the last
        axis of V."""


@dataclass(frozen=True)
class L1(ConvexPenalty):
    """Sum of absolute displacements; the weight has the unit of a length."""

    def value(self, Z: FloatArray) -> FloatArray:
        """Return the l1 norm of each displacement."""
        total: FloatArray = np.abs(Z).sum(axis=-1)
        return total

    def shrink(self, V: FloatArray, step: float = 1.0) -> FloatArray:
        """Return V softly thresholded at the weight."""
        shrunk: FloatArray = np.sign(V) * np.maximum(np.abs(V) - step * self.weight, 0.0)
        return shrunk


@dataclass(frozen=True)
class KOverlap(ConvexPenalty):
    r"""Half the squared k-overlap (k-support) norm, $\frac12\min\sum_iz_i^2/\eta_i$ over
    $0\le\eta_i\le1$, $\sum_i\eta_i\le k$; the weight has no unit.

    Attributes
    ----------
    k
        Number of coordinates that cost no more than half the squared norm.
    """

    k: int

    def __post_init__(self) -> None:
        super().__post_init__()
        as_count(self.k, "k")

    def value(self, Z: FloatArray) -> FloatArray:
        """Return half the squared k-overlap norm of each displacement."""
        size = -np.sort(-np.abs(Z), axis=-1)
        k = min(self.k, size.shape[-1])
        best = np.full(size.shape[:-1], np.inf)
        for free in range(k):  # eta is 1 there, and proportional to the size elsewhere
            tail = size[..., free:].sum(axis=-1)
            fits = (k - free) * size[..., free] <= tail * (1 + 1e-15)
            squares = (size[..., :free] ** 2).sum(axis=-1) + tail**2 / (k - free)
            best = np.where(fits | (free == k - 1), np.minimum(best, squares), best)
        return best / 2

    def shrink(self, V: FloatArray, step: float = 1.0) -> FloatArray:
        """Return V times eta / (eta + t): eta is the size times a common factor, less t, clipped
        to [0, 1], where t is the step times the weight."""
        t = step * self.weight
        size: FloatArray = np.abs(V)
        d = size.shape[-1]
        if self.k >= d or t == 0:
            scaled: FloatArray = V / (1 + t)
            return scaled
        with np.errstate(divide="ignore"):  # the sum of eta is piecewise linear in the factor
            knots = np.sort(np.concatenate([t / size, (1 + t) / size], axis=-1), axis=-1)
            inside = np.where(np.isfinite(knots), knots, 0.0)
        eta = np.clip(inside[..., None] * size[..., None, :] - t, 0.0, 1.0).sum(axis=-1)
        eta = np.where(np.isfinite(knots), eta, np.count_nonzero(size, axis=-1)[..., None])
        few = np.count_nonzero(size, axis=-1) <= self.k
        after = np.minimum((eta < self.k).sum(axis=-1), 2 * d - 1)[..., None]
        before = np.maximum(after - 1, 0)
        (x0, x1), (y0, y1) = (
            [np.take_along_axis(v, at, -1)[..., 0] for at in (before, after)] for v in (inside, eta)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(y1 > y0, (self.k - y0) / (y1 - y0), 0.0)
        factor = np.where(few, 0.0, x0 + part * (x1 - x0))
        eta = np.clip(factor[..., None] * size - t, 0.0, 1.0)
        eta = np.where(few[..., None], 1.0, eta)
        shrunk: FloatArray = V * eta / (eta + t)
        return shrunk


@dataclass(frozen=True)
class SmoothedL0(Penalty):
    r"""Smoothed count of moved coordinates, $\sum_i(1-e^{-z_i^2/2\sigma^2})$; the weight has
    the unit of a squared length.

    Attributes
    ----------
    width
        sigma, a length; at 0 the count itself.
    """

    width: float

    def __post_init__(self) -> None:
        super().__post_init__()
        as_real(self.width, "width", minimum=0.0)

    def value(self, Z: FloatArray) -> FloatArray:
        """Return the smoothed count of nonzeros of each displacement."""
        if self.width == 0:
            return np.asarray(np.count_nonzero(Z, axis=-1), dtype=np.float64)
        with np.errstate(over="ignore"):
            total: FloatArray = -np.expm1(-((Z / self.width) ** 2) / 2).sum(axis=-1)
        return total


def cost_matrix(X: ArrayLike, Y: ArrayLike, cost: str | Penalty | Cost) -> FloatArray:
    """Return the costs between all pairs of points.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) points.
    cost
        ``"sqeuclidean"``, ``"euclidean"``, a :class:`Penalty` (its elastic cost), or a function of
        both clouds that returns an (n, m) array.

    Examples
    --------
    >>> from theorylab.optimal_transport import L1, cost_matrix
    >>> cost_matrix([[0.0, 0.0]], [[1.0, 0.0], [1.0, 2.0]], L1(2.0)).tolist()
    [[2.5, 8.5]]
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(None, X.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(cost, str) and cost in ("sqeuclidean", "euclidean"):
            C: FloatArray = cdist(X, Y, "sqeuclidean" if cost == "sqeuclidean" else "euclidean")
        elif isinstance(cost, Penalty):
            C = _pairs(X, Y, cost.cost)
        elif callable(cost):
            return as_array(cost(X, Y), "cost", shape=(len(X), len(Y)))
        else:
            raise ValueError(
                f"cost: expected sqeuclidean, euclidean, a Penalty or a function, got {cost!r}"
            )
    if not np.isfinite(C).all():
        raise ValueError(
            "X, Y: expected points whose costs stay within float64, got costs that overflow"
        )
    return C


def _pairs(
    X: FloatArray, Y: FloatArray, function: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Return a function of the displacement of every pair, by blocks of rows."""
    C = np.empty((len(X), len(Y)))
    rows = max(1, _BLOCK // Y.size)
    for first in range(0, len(X), rows):
        C[first : first + rows] = function(X[first : first + rows, None, :] - Y)
    return C
