"""Measures on the line with a density: what the boundaries of adversarial classifiers need."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.numerics.results import result

__all__ = ["LineLaw", "NormalMixture", "RadialNormal"]

_DEVIATIONS = 9.0  # beyond them a normal law has less mass than rounding


class LineLaw(ABC):
    """A measure on the line: the weight of a class times its density."""

    @property
    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """An interval that holds all mass up to rounding."""

    @abstractmethod
    def density(self, x: ArrayLike) -> FloatArray:
        """Return the density."""

    @abstractmethod
    def slope(self, x: ArrayLike) -> FloatArray:
        """Return the derivative of the density."""

    @abstractmethod
    def mass(self, x: ArrayLike) -> FloatArray:
        """Return the mass to the left, also for infinite x."""


@result
class NormalMixture(LineLaw):
    """Normal components: weights of any sum (that of the class), means, deviations, all (k,).

    Examples
    --------
    >>> from theorylab.optimal_transport import NormalMixture
    >>> float(NormalMixture([0.3, 0.2], [-1.0, 1.0], [1.0, 0.5]).mass(float("inf")))
    0.5
    """

    weights: ArrayLike
    means: ArrayLike
    deviations: ArrayLike

    def __post_init__(self) -> None:
        weights = as_array(self.weights, "weights", ndim=1, nonnegative=True)
        means = as_array(self.means, "means", shape=weights.shape)
        deviations = as_array(self.deviations, "deviations", shape=weights.shape, positive=True)
        for name, value in (("weights", weights), ("means", means), ("deviations", deviations)):
            value = value.copy()
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def ends(self) -> tuple[float, float]:
        """An interval that holds all mass up to rounding."""
        _, m, s = self._parameters()
        reach = _DEVIATIONS * s
        return float((m - reach).min()), float((m + reach).max())

    def density(self, x: ArrayLike) -> FloatArray:
        """Return the density."""
        w, m, s = self._parameters()
        z = (np.asarray(x, float)[..., None] - m) / s
        return np.asarray(np.exp(-z * z / 2) @ (w / s) / np.sqrt(2 * np.pi))

    def slope(self, x: ArrayLike) -> FloatArray:
        """Return the derivative of the density."""
        w, m, s = self._parameters()
        z = (np.asarray(x, float)[..., None] - m) / s
        return np.asarray((-z * np.exp(-z * z / 2)) @ (w / s**2) / np.sqrt(2 * np.pi))

    def mass(self, x: ArrayLike) -> FloatArray:
        """Return the mass to the left, also for infinite x."""
        w, m, s = self._parameters()
        return np.asarray(special.ndtr((np.asarray(x, float)[..., None] - m) / s) @ w)

    def _parameters(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return np.asarray(self.weights), np.asarray(self.means), np.asarray(self.deviations)


@result
class RadialNormal(LineLaw):
    """The norm of a centred normal vector with independent coordinates of one deviation.

    Examples
    --------
    >>> from theorylab.optimal_transport import RadialNormal
    >>> round(float(RadialNormal(1.0, 1.0, 2).mass(2**0.5)), 6)  # 1 - 1 / e
    0.632121
    """

    weight: float
    deviation: float
    dimension: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", as_real(self.weight, "weight", minimum=0.0))
        object.__setattr__(self, "deviation", as_real(self.deviation, "deviation", above=0.0))
        object.__setattr__(self, "dimension", as_count(self.dimension, "dimension"))

    @property
    def ends(self) -> tuple[float, float]:
        """An interval that holds all mass up to rounding."""
        return 0.0, self.deviation * float(np.sqrt(self.dimension) + _DEVIATIONS)

    def density(self, x: ArrayLike) -> FloatArray:
        """Return the density."""
        t, d = np.asarray(x, float) / self.deviation, self.dimension
        scale = self.weight / self.deviation / (2 ** (d / 2 - 1) * special.gamma(d / 2))
        s = np.maximum(t, 0.0)
        return np.where(t >= 0, scale * s ** (d - 1) * np.exp(-s * s / 2), 0.0)

    def slope(self, x: ArrayLike) -> FloatArray:
        """Return the derivative of the density."""
        t, d = np.asarray(x, float) / self.deviation, self.dimension
        scale = self.weight / self.deviation**2 / (2 ** (d / 2 - 1) * special.gamma(d / 2))
        s = np.maximum(t, 0.0)
        grown = (d - 1) * s ** (d - 2) if d > 1 else 0.0
        return np.where(t >= 0, scale * (grown - s**d) * np.exp(-s * s / 2), 0.0)

    def mass(self, x: ArrayLike) -> FloatArray:
        """Return the mass to the left, also for infinite x."""
        t = np.maximum(np.asarray(x, float) / self.deviation, 0.0)
        return np.asarray(self.weight * special.gammainc(self.dimension / 2, t * t / 2))
