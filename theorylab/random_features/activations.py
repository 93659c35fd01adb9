r"""Activations and their Gaussian moments.

An activation $\phi$ of a wide network enters its limit through the dual activation,

$$\mathbb E[\phi(u)\phi(v)],\quad\mathbb E[\phi'(u)\phi'(v)],\qquad
(u,v)\sim N\Big(0,\begin{pmatrix}a&c\\c&b\end{pmatrix}\Big),$$

the second being the derivative of the first in c. Both have closed forms for the leaky ReLU (Cho
and Saul 2009), the error function (Williams 1997), the sine and polynomials; any other pair can be
given. They are evaluated entry by entry in float64."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theorylab._validation import FloatArray, as_array, as_function, as_real

__all__ = ["Activation", "Erf", "GivenDual", "LeakyReLU", "Polynomial", "Sine", "as_activation"]

Moments = tuple[FloatArray, FloatArray]
Dual = Callable[[FloatArray, FloatArray, FloatArray], Moments]
# Correlations of equal points, rounded, are taken for 1: their angle would be its square root.
_SNAP = 1 + 8 * float(np.finfo(float).eps)


class Activation(ABC):
    """An entrywise function with its slope, and the moments of both under a Gaussian pair."""

    @abstractmethod
    def value(self, z: FloatArray) -> FloatArray:
        """Return the activations of an array."""

    @abstractmethod
    def slope(self, z: FloatArray) -> FloatArray:
        """Return their derivatives."""

    @abstractmethod
    def moments(
        self,
        covariance: FloatArray,
        first: FloatArray,
        second: FloatArray,
        weight: float = 1.0,
    ) -> Moments:
        """Return the two moments, times ``weight``, for covariances and variances that broadcast
        with them."""

    @abstractmethod
    def diagonal(self, variance: FloatArray) -> Moments:
        """Return the two moments of a variable with itself, without cancellation."""


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """The identity for positive arguments, ``negative_slope`` times it for others; 0 is ReLU.

    The slope at 0 is taken to be ``negative_slope``.
    """

    negative_slope: float = 0.0

    def __post_init__(self) -> None:
        as_real(self.negative_slope, "negative_slope")

    def value(self, z: FloatArray) -> FloatArray:
        """Return the activations of an array."""
        positive: FloatArray = np.maximum(z, 0.0)
        return positive if not self.negative_slope else np.where(z > 0, z, self.negative_slope * z)

    def slope(self, z: FloatArray) -> FloatArray:
        """Return their derivatives."""
        return np.where(z > 0, 1.0, self.negative_slope)

    def moments(
        self,
        covariance: FloatArray,
        first: FloatArray,
        second: FloatArray,
        weight: float = 1.0,
    ) -> Moments:
        """Return the arc-cosine kernels of order one and zero, and their mixtures with the line."""
        bend = 1 - self.negative_slope
        leak, gain = weight * self.negative_slope, bend * bend * weight / math.tau
        scale = np.sqrt(first / _SNAP) * np.sqrt(second / _SNAP)
        flat = not scale.all()  # points at the origin have no angle
        correlation = covariance / (np.where(scale > 0, scale, 1.0) if flat else scale)
        np.clip(correlation, -1.0, 1.0, out=correlation)
        supplement = np.arccos(correlation)
        np.subtract(math.pi, supplement, out=supplement)
        product = correlation * correlation
        np.subtract(1.0, product, out=product)
        np.sqrt(product, out=product)
        correlation *= supplement
        product += correlation
        product *= scale
        product *= gain * _SNAP
        supplement *= gain
        if leak:
            product += leak * covariance
            supplement += leak
        return product, supplement

    def diagonal(self, variance: FloatArray) -> Moments:
        """Return the two moments of a variable with itself."""
        half = (1 + self.negative_slope * self.negative_slope) / 2
        return half * variance, np.full_like(variance, half)


@dataclass(frozen=True)
class Erf(Activation):
    r"""The error function $\frac2{\sqrt\pi}\int_0^ze^{-t^2}dt$."""

    def value(self, z: FloatArray) -> FloatArray:
        """Return the activations of an array."""
        from scipy.special import erf

        found: FloatArray = erf(z)
        return found

    def slope(self, z: FloatArray) -> FloatArray:
        """Return their derivatives."""
        return 2 / math.sqrt(math.pi) * np.exp(-np.square(np.minimum(np.abs(z), 30.0)))

    def moments(
        self,
        covariance: FloatArray,
        first: FloatArray,
        second: FloatArray,
        weight: float = 1.0,
    ) -> Moments:
        """Return Williams's arcsine kernel, and its derivative."""
        left, right = np.sqrt(1 + 2 * first), np.sqrt(1 + 2 * second)
        sine = 2 * covariance / left / right
        np.clip(sine, -1.0, 1.0, out=sine)
        # The determinant, in these units, is at least what remains where the pair is degenerate.
        least = 1 / left**2 + 1 / right**2 - 1 / left**2 / right**2
        cosine = np.sqrt(np.maximum(1 - sine * sine, least))
        return 2 * weight / math.pi * np.arcsin(sine), 4 * weight / math.pi / cosine / left / right

    def diagonal(self, variance: FloatArray) -> Moments:
        """Return the two moments of a variable with itself."""
        sine = 2 * variance / (1 + 2 * variance)
        return 2 / math.pi * np.arcsin(sine), 4 / math.pi / np.sqrt(1 + 4 * variance)


@dataclass(frozen=True)
class Sine(Activation):
    r"""The sine, as of random Fourier features."""

    def value(self, z: FloatArray) -> FloatArray:
        """Return the activations of an array."""
        return np.sin(z)

    def slope(self, z: FloatArray) -> FloatArray:
        """Return their derivatives."""
        return np.cos(z)

    def moments(
        self,
        covariance: FloatArray,
        first: FloatArray,
        second: FloatArray,
        weight: float = 1.0,
    ) -> Moments:
        """Return the hyperbolic sine and cosine of the covariance, damped."""
        size = np.abs(covariance)
        large = np.exp(np.minimum(size - (first + second) / 2, 0.0)) * (weight / 2)
        small = -np.expm1(-2 * size)
        return np.copysign(large * small, covariance), large * (2 - small)

    def diagonal(self, variance: FloatArray) -> Moments:
        """Return the two moments of a variable with itself."""
        return -np.expm1(-2 * variance) / 2, (1 + np.exp(-2 * variance)) / 2


@dataclass(frozen=True)
class Polynomial(Activation):
    r"""The polynomial $\sum_jc_jz^j$, lowest power first.

    Its dual is $\sum_k\frac{c^k}{k!}\mathbb E\phi^{(k)}(u)\,\mathbb E\phi^{(k)}(v)$.
    """

    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        found = as_array(np.asarray(self.coefficients), "coefficients", ndim=1)
        object.__setattr__(self, "coefficients", tuple(found.tolist()))

    def value(self, z: FloatArray) -> FloatArray:
        """Return the activations of an array."""
        return _horner(self.coefficients, z)

    def slope(self, z: FloatArray) -> FloatArray:
        """Return their derivatives."""
        return _horner(_differentiated(self.coefficients), z)

    def moments(
        self,
        covariance: FloatArray,
        first: FloatArray,
        second: FloatArray,
        weight: float = 1.0,
    ) -> Moments:
        """Return both moments by Hermite's expansion, which ends."""
        derived, value, slope = self.coefficients, 0.0 * covariance, 0.0 * covariance
        power = np.ones_like(covariance)  # c^(k-1) / (k-1)! before, c^k / k! after
        for k in range(len(self.coefficients)):
            pair = _gaussian_mean(derived, first) * _gaussian_mean(derived, second)
            if k:
                slope += power * pair
                power = power * covariance / k
            value += power * pair
            derived = _differentiated(derived)
        return weight * value, weight * slope

    def diagonal(self, variance: FloatArray) -> Moments:
        """Return the two moments of a variable with itself."""
        return self.moments(variance, variance, variance)


@dataclass(frozen=True)
class GivenDual(Activation):
    """An activation by its moments, as a function of (covariance, first variance, second variance)
    that returns the pair; the function and its derivative are needed for networks of finite width
    only."""

    dual: Dual
    function: Callable[[FloatArray], FloatArray] | None = None
    derivative: Callable[[FloatArray], FloatArray] | None = None

    def __post_init__(self) -> None:
        as_function(self.dual, "dual")

    def value(self, z: FloatArray) -> FloatArray:
        """Return the activations of an array."""
        return _given(self.function)(z)

    def slope(self, z: FloatArray) -> FloatArray:
        """Return their derivatives."""
        return _given(self.derivative)(z)

    def moments(
        self,
        covariance: FloatArray,
        first: FloatArray,
        second: FloatArray,
        weight: float = 1.0,
    ) -> Moments:
        """Return what was given."""
        found = self.dual(covariance, first, second)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise ValueError("activation: expected a dual that returns two arrays")
        shape = np.shape(covariance)
        value, slope = (weight * as_array(part, "activation", shape=shape) for part in found)
        return value, slope

    def diagonal(self, variance: FloatArray) -> Moments:
        """Return the two moments of a variable with itself."""
        return self.moments(variance, variance, variance)


_NAMED: dict[str, Activation] = {"relu": LeakyReLU(), "erf": Erf(), "sine": Sine()}


def as_activation(activation: str | Activation) -> Activation:
    """Return an activation by its name, or as it came.

    Parameters
    ----------
    activation
        ``"relu"``, ``"erf"``, ``"sine"``, or an :class:`Activation`.

    Examples
    --------
    >>> from theorylab.random_features import as_activation
    >>> as_activation("relu")
    LeakyReLU(negative_slope=0.0)
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str) or activation not in _NAMED:
        raise ValueError(
            f"activation: expected one of {', '.join(_NAMED)} or an Activation, got "
            f"{activation!r:.60}"
        )
    return _NAMED[activation]


def _given(
    function: Callable[[FloatArray], FloatArray] | None,
) -> Callable[[FloatArray], FloatArray]:
    if function is None:
        raise ValueError("activation: expected one with a function and a derivative, got none")
    return function


def _horner(coefficients: Sequence[float], z: FloatArray) -> FloatArray:
    total = np.zeros_like(z)
    for c in reversed(coefficients):
        total = total * z + c
    return total


def _differentiated(coefficients: Sequence[float]) -> tuple[float, ...]:
    return tuple(j * c for j, c in enumerate(coefficients))[1:]


def _gaussian_mean(coefficients: Sequence[float], variance: FloatArray) -> NDArray[np.float64]:
    """Return the mean of a polynomial of a centred Gaussian of each variance."""
    even = [c * math.prod(range(2 * j - 1, 0, -2)) for j, c in enumerate(coefficients[::2])]
    return _horner(even, variance)
