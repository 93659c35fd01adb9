r"""Kernels of wide two-layer networks on the sphere, and how linear these networks are.

A network $\frac1{\sqrt m}\sum_ra_r\prod_j\varphi_j(w_{rj}^\top x)$ on $S^{d-1}$ with
standard normal weights has, for $m\to\infty$, kernels of the angle $\theta$ alone: with
$u=\cos\theta$ and the duals $\hat\varphi(u)=\operatorname E\varphi(z)\varphi(z')$,
$\operatorname{corr}(z,z')=u$,

$$\Sigma=\prod_j\hat\varphi_j,\qquad
\Theta=\Sigma+u\sum_j\widehat{\varphi_j'}\prod_{i\ne j}\hat\varphi_i.$$

For $\varphi(z)\propto\max(0,z)^s$ the dual is the arc-cosine kernel
$\kappa_s=J_s/J_s(0)$, $J_{s+1}=(2s+1)\cos\theta J_s+s^2\sin^2\theta J_{s-1}$.
Their spectra are in :mod:`theorylab.random_features.sphere_spectra`.

Sources: choraria2022-spectral and salgia2023-provably (recalled; derived here)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, prod, sqrt

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = [
    "AngleActivation",
    "arc_cosine_kernel",
    "linear_activation",
    "linearisation_error",
    "output_kernel",
    "rectified_power",
    "sampled_tangent_kernel",
    "tangent_kernel",
]

MAX_ORDER = 20

Function = Callable[[FloatArray], FloatArray]


@result
class AngleActivation:
    """An activation of unit mean square, its derivative, and the duals of both, which are functions
    of the angle."""

    name: str
    value: Function
    slope: Function
    dual: Function
    dual_slope: Function


def arc_cosine_kernel(angle: ArrayLike, *, order: int) -> FloatArray:
    r"""Return $\kappa_s$, the dual of $\max(0,z)^s$ with value 1 at angle 0.

    Parameters
    ----------
    angle
        Angles in $[0,\pi]$, of any shape.
    order
        s, from 0 (the step function) to 20.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import arc_cosine_kernel
    >>> arc_cosine_kernel([0.0, np.pi / 2], order=0).tolist()
    [1.0, 0.5]
    """
    theta = _angles(angle)
    s = as_count(order, "order", minimum=0, maximum=MAX_ORDER)
    u, v = np.cos(theta), np.sin(theta)
    before: FloatArray = (pi - theta) / pi
    if s == 0:
        return before
    J: FloatArray = v / pi + u * before
    for n in range(1, s):
        J, before = ((2 * n + 1) * u * J + n * n * v * v * before), J
    return np.asarray(J / prod(range(1, 2 * s, 2)))


def rectified_power(order: int) -> AngleActivation:
    r"""Return $\max(0,z)^s$ with unit mean square: ReLU for s = 1.

    Parameters
    ----------
    order
        s, from 1 to 20.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import rectified_power
    >>> rectified_power(1).value(np.array([-1.0, 1.0])).round(6).tolist()
    [0.0, 1.414214]
    """
    s = as_count(order, "order", maximum=MAX_ORDER)
    size = sqrt(2 / prod(range(1, 2 * s, 2)))

    def value(z: FloatArray) -> FloatArray:
        return np.asarray(size * np.maximum(z, 0.0) ** s)

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(size * s * np.where(z > 0, np.maximum(z, 0.0) ** (s - 1), 0.0))

    def dual(angle: FloatArray) -> FloatArray:
        return arc_cosine_kernel(angle, order=s)

    def dual_slope(angle: FloatArray) -> FloatArray:
        return s * s / (2 * s - 1) * arc_cosine_kernel(angle, order=s - 1)

    return AngleActivation(f"rectified power {s}", value, slope, dual, dual_slope)


def linear_activation() -> AngleActivation:
    """Return the identity.

    Examples
    --------
    >>> from theorylab.random_features import linear_activation
    >>> linear_activation().dual_slope(1.0).tolist()
    1.0
    """
    return AngleActivation("linear", np.asarray, np.ones_like, np.cos, np.ones_like)


def output_kernel(
    angle: ArrayLike, factors: Sequence[AngleActivation], *, bias: bool = False
) -> FloatArray:
    r"""Return $\Sigma$, the covariance of the outputs at initialisation.

    Parameters
    ----------
    angle
        Angles between the inputs, of any shape.
    factors
        Activations that are multiplied in each unit.
    bias
        Whether inputs are $(x,1)/\sqrt2$.

    Examples
    --------
    >>> from theorylab.random_features import output_kernel, rectified_power
    >>> output_kernel(0.0, [rectified_power(1)] * 2).tolist()
    1.0
    """
    theta = _inner(angle, bias)
    duals = [f.dual(theta) for f in _factors(factors)]
    return np.asarray(prod(duals, start=np.ones(np.shape(theta))))


def tangent_kernel(
    angle: ArrayLike, factors: Sequence[AngleActivation], *, bias: bool = False
) -> FloatArray:
    r"""Return $\Theta$, the tangent kernel for training all weights.

    Parameters
    ----------
    angle, factors, bias
        As in :func:`output_kernel`.

    Examples
    --------
    >>> from theorylab.random_features import rectified_power, tangent_kernel
    >>> tangent_kernel(0.0, [rectified_power(1)] * 2).tolist()
    3.0
    """
    theta, given = _inner(angle, bias), _factors(factors)
    duals, slopes = [f.dual(theta) for f in given], [f.dual_slope(theta) for f in given]
    one = np.ones(np.shape(theta))
    terms = [
        slope * prod((d for i, d in enumerate(duals) if i != j), start=one)
        for j, slope in enumerate(slopes)
    ]
    return np.asarray(prod(duals, start=one) + np.cos(theta) * sum(terms))


def sampled_tangent_kernel(
    x: ArrayLike, y: ArrayLike, factors: Sequence[AngleActivation], *, width: int, seed: int
) -> float:
    """Return the inner product of the gradients at two inputs of a random network of finite width,
    whose expectation is the tangent kernel.

    Parameters
    ----------
    x, y
        (d,) inputs.
    factors
        Activations that are multiplied in each unit.
    width
        Number of units.
    seed
        Seeds the weights; output weights are 1 or -1, which decides nothing.

    Examples
    --------
    >>> from theorylab.random_features import linear_activation, sampled_tangent_kernel
    >>> sampled_tangent_kernel([1.0, 0.0], [0.0, 1.0], [linear_activation()], width=9, seed=0) < 1
    True
    """
    x = as_array(x, "x", ndim=1)
    y = as_array(y, "y", shape=x.shape)
    given, m = _factors(factors), as_count(width, "width")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    W = rng.standard_normal((len(given), m, x.size))
    sides = []
    for point in (x, y):
        with np.errstate(over="ignore", invalid="ignore"):
            z = W @ point
            values = np.stack([f.value(zj) for f, zj in zip(given, z, strict=True)])
            slopes = np.stack([f.slope(zj) for f, zj in zip(given, z, strict=True)])
            others = [np.prod(np.delete(values, j, axis=0), axis=0) for j in range(len(given))]
            sides.append((values.prod(axis=0), slopes * np.stack(others)))
    with np.errstate(over="ignore", invalid="ignore"):
        outer = np.mean(sides[0][0] * sides[1][0])
        total = float(outer + np.sum(np.mean(sides[0][1] * sides[1][1], axis=1)) * (x @ y))
    if not np.isfinite(total):
        raise ValueError("x, y: expected magnitudes whose products stay within float64")
    return total


@refuses_overflow("W", "signs", "step", "points")
def linearisation_error(
    W: ArrayLike,
    signs: ArrayLike,
    step: ArrayLike,
    points: ArrayLike,
    *,
    activation: AngleActivation,
) -> FloatArray:
    r"""Return $f_{W+\Delta}-f_W-\langle\nabla_Wf_W,\Delta\rangle$ for
    $f_W(x)=\frac1{\sqrt m}\sum_ra_r\varphi(w_r^\top x)$ at every point.

    Parameters
    ----------
    W, step
        (..., m, d) weights, of one network or of many, and displacement.
    signs
        (..., m) output weights a.
    points
        (n, d) inputs.
    activation
        $\varphi$.

    Examples
    --------
    >>> from theorylab.random_features import linearisation_error, rectified_power
    >>> relu = rectified_power(1)
    >>> linearisation_error([[1.0]], [1.0], [[-2.0]], [[1.0]], activation=relu).round(6).tolist()
    [1.414214]
    """
    W = as_array(W, "W")
    if W.ndim < 2:
        raise ValueError(f"W: expected two axes at least, got an array of shape {W.shape}")
    a = as_array(signs, "signs", shape=W.shape[:-1])
    D = as_array(step, "step", shape=W.shape)
    X = as_array(points, "points", shape=(None, W.shape[-1]))
    phi = as_instance(activation, "activation", AngleActivation)
    z, moved = W @ X.T, D @ X.T
    errors = phi.value(z + moved) - phi.value(z) - phi.slope(z) * moved
    return np.asarray(np.einsum("...m,...mn->...n", a, errors)) / sqrt(W.shape[-2])


def _angles(angle: ArrayLike) -> FloatArray:
    theta = as_array(angle, "angle", nonnegative=True)
    if theta.max() > pi * (1 + 1e-7):  # pi in float32 is larger than pi
        raise ValueError(f"angle: expected at most pi, got {theta.max()}")
    return np.minimum(theta, pi)


def _inner(angle: ArrayLike, bias: bool) -> FloatArray:
    """Return the angle between the inputs of the units."""
    theta = _angles(angle)
    if as_flag(bias, "bias"):
        return np.asarray(2 * np.arcsin(np.sin(theta / 2) / sqrt(2)))
    return theta


def _factors(factors: Sequence[AngleActivation]) -> Sequence[AngleActivation]:
    if not (isinstance(factors, list | tuple) and factors):
        raise ValueError(f"factors: expected a list of activations, got {type(factors).__name__}")
    return [as_instance(f, "factors", AngleActivation) for f in factors]
