r"""Wasserstein gradient flow on the line by proximal (JKO) steps.

A step of size $\tau$ minimises $\mathcal F(P)+W_2^2(P,P_k)/(2\tau)$. For
$\mathcal F=\mathrm{KL}(\cdot\|e^{-V})$, up to a constant, n sorted particles with entropy
from their spacings make it a convex problem in n coordinates that is itself a proximal step:

$$\mathcal F_n(x)=\frac1n\sum_iV(x_i)-\frac1n\sum_{i<n}\log n(x_{i+1}-x_i),\qquad
W_2^2(x,y)=\frac1n\sum_i(x_i-y_i)^2.$$

With V $\mu$-strongly convex each step contracts the distance to the minimiser by
$1/(1+\tau\mu)$, for particles as for their limit.

Source: fan2021-variational (the scheme); the contraction is known theory."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solveh_banded

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = [
    "Potential",
    "equilibrium",
    "flat_potential",
    "free_energy",
    "free_energy_gradient",
    "gaussian_jko_step",
    "jko_step",
    "quartic_potential",
]

_ROUNDS = 500


@result
class Potential:
    """A convex function V on the line with its first two derivatives, as functions of arrays."""

    value: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    curvature: Callable[[FloatArray], FloatArray]


def quartic_potential(curvature: float, *, quartic: float = 0.0) -> Potential:
    r"""Return $V(x)=\frac\mu2x^2+qx^4$, $\mu$-strongly convex.

    Parameters
    ----------
    curvature
        The modulus.
    quartic
        Coefficient q >= 0.

    Examples
    --------
    >>> from theorylab.optimal_transport import quartic_potential
    >>> quartic_potential(2.0, quartic=0.5).value(2.0)
    12.0
    """
    mu = as_real(curvature, "curvature", above=0.0)
    q = as_real(quartic, "quartic", minimum=0.0)
    return Potential(
        lambda x: mu / 2 * x**2 + q * x**4,
        lambda x: mu * x + 4 * q * x**3,
        lambda x: mu + 12 * q * x**2,
    )


def flat_potential(curvature: float) -> Potential:
    r"""Return $V(x)=\mu(\sqrt{1+x^2}-1)$: convex, and far away linear, so not strongly
    convex.

    Parameters
    ----------
    curvature
        Curvature at 0.

    Examples
    --------
    >>> from theorylab.optimal_transport import flat_potential
    >>> float(flat_potential(2.0).curvature(0.0))
    2.0
    """
    mu = as_real(curvature, "curvature", above=0.0)
    return Potential(
        lambda x: mu * (np.hypot(1, x) - 1),
        lambda x: mu * x / np.hypot(1, x),
        lambda x: mu / np.hypot(1, x) ** 3,
    )


@refuses_overflow("x")
def free_energy(x: ArrayLike, potential: Potential) -> float:
    """Return the particles' free energy (module docstring).

    Parameters
    ----------
    x
        (n,) distinct particles.
    potential
        V.

    Examples
    --------
    >>> from theorylab.optimal_transport import free_energy, quartic_potential
    >>> free_energy([0.5, 0.0], quartic_potential(8.0))
    0.5
    """
    x = _distinct(x)
    values = _at(as_instance(potential, "potential", Potential).value, x)
    return float((values.sum() - np.log(x.size * np.diff(x)).sum()) / x.size)


@refuses_overflow("x")
def free_energy_gradient(x: ArrayLike, potential: Potential) -> FloatArray:
    r"""Return the gradient of :func:`free_energy` at the sorted particles, n times the partial
    derivatives. With the root mean square $\rho$ of it plus $(x-P_k)/\tau$, x is within
    $\tau\rho$ of the step from $P_k$.

    Parameters
    ----------
    x
        (n,) distinct particles.
    potential
        V.

    Examples
    --------
    >>> from theorylab.optimal_transport import free_energy_gradient, quartic_potential
    >>> free_energy_gradient([-0.5, 0.5], quartic_potential(3.0)).tolist()
    [-0.5, 0.5]
    """
    return _gradient(_distinct(x), as_instance(potential, "potential", Potential))


@refuses_overflow("x", "step_size")
def jko_step(x: ArrayLike, potential: Potential, *, step_size: float) -> FloatArray:
    r"""Return the sorted particles after one proximal step, to rounding.

    Parameters
    ----------
    x
        (n,) distinct particles, n >= 2.
    potential
        A convex V.
    step_size
        $\tau$.

    Examples
    --------
    >>> from theorylab.optimal_transport import jko_step, quartic_potential
    >>> x = jko_step([-1.0, 1.0], quartic_potential(1.0), step_size=1.0)  # 2x - 1 = 1 / (2x)
    >>> x.round(6).tolist()
    [-0.809017, 0.809017]
    """
    start = _distinct(x)
    pull = 1 / as_real(step_size, "step_size", above=0.0)
    return _minimise(start, start, pull, as_instance(potential, "potential", Potential))


@refuses_overflow("potential")
def equilibrium(potential: Potential, n: int) -> FloatArray:
    """Return the n sorted particles of least free energy: near the quantiles of exp(-V).

    Parameters
    ----------
    potential
        A convex V that grows.
    n
        Number of particles, two at least.

    Examples
    --------
    >>> from theorylab.optimal_transport import equilibrium, quartic_potential
    >>> equilibrium(quartic_potential(0.5), 2).round(6).tolist()
    [-1.0, 1.0]
    """
    potential = as_instance(potential, "potential", Potential)
    start = np.linspace(-1.0, 1.0, as_count(n, "n", minimum=2))
    return _minimise(start, start, 0.0, potential)


@refuses_overflow("mean", "deviation", "curvature", "step_size")
def gaussian_jko_step(
    mean: float, deviation: float, *, curvature: float, step_size: float
) -> tuple[float, float]:
    r"""Return mean and standard deviation after a proximal step from a Gaussian on the line for
    $V=\frac\mu2x^2$.

    Parameters
    ----------
    mean, deviation
        Of the Gaussian.
    curvature
        $\mu$.
    step_size
        $\tau$.

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_jko_step
    >>> gaussian_jko_step(3.0, 0.5, curvature=1.0, step_size=0.5)
    (2.0, 0.7675918792439983)
    """
    m, s = as_real(mean, "mean"), as_real(deviation, "deviation", minimum=0.0)
    mu = as_real(curvature, "curvature", above=0.0)
    tau = as_real(step_size, "step_size", above=0.0)
    # (mu + 1 / tau) s'^2 - s s' / tau = 1, times tau
    root = float(np.hypot(s, 2 * np.sqrt(tau * (1 + tau * mu))))
    return m / (1 + tau * mu), (s + root) / (2 * (1 + tau * mu))


def _distinct(x: ArrayLike) -> FloatArray:
    x = np.sort(as_array(x, "x", ndim=1))
    if x.size < 2 or (np.diff(x) <= 0).any():
        raise ValueError(f"x: expected two or more distinct particles, got {x.size} with ties")
    return x


def _at(function: Callable[[FloatArray], FloatArray], x: FloatArray) -> FloatArray:
    return as_array(function(x), "potential", shape=x.shape).copy()


def _gradient(x: FloatArray, potential: Potential) -> FloatArray:
    inverse = 1 / np.diff(x)
    gradient = _at(potential.slope, x)
    gradient[:-1] += inverse
    gradient[1:] -= inverse
    return gradient


def _minimise(x: FloatArray, anchor: FloatArray, pull: float, potential: Potential) -> FloatArray:
    """Minimise n times the free energy plus pull |x - anchor|^2 / 2 by damped Newton steps."""

    def objective(y: FloatArray) -> float:
        smooth = _at(potential.value, y).sum() + pull / 2 * np.sum((y - anchor) ** 2)
        return float(smooth - np.log(np.diff(y)).sum())

    value, bands, decrement = objective(x), np.zeros((2, x.size)), np.inf
    for _ in range(_ROUNDS):
        inverse = 1 / np.diff(x)
        gradient = _gradient(x, potential) + pull * (x - anchor)
        bands[1] = _at(potential.curvature, x) + pull
        bands[1, :-1] += inverse**2
        bands[1, 1:] += inverse**2
        bands[0, 1:] = -(inverse**2)
        if not np.isfinite(bands).all():
            raise OverflowError
        try:
            step = solveh_banded(bands, -gradient)
        except np.linalg.LinAlgError:
            raise ValueError(
                "potential: expected a convex function, got one whose step has no unique minimum"
            ) from None
        before, decrement = decrement, float(-gradient @ step)
        if decrement <= 1e-28 * x.size or (decrement < 1e-12 and decrement >= before):
            return x
        closing = float((np.diff(step) * inverse).min())
        t = min(1.0, 0.9 / -closing) if closing < 0 else 1.0
        while t > 1e-12 and decrement > 1e-10 and objective(x + t * step) > value:
            t /= 2
        x = x + t * step
        value = objective(x)
    warnings.warn(
        "the proximal step stopped above rounding: is the potential convex?", stacklevel=4
    )
    return x
