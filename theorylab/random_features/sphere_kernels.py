r"""Kernels of wide two-layer networks on the sphere, and their spectra.

A network :math:`\frac1{\sqrt m}\sum_ra_r\prod_j\varphi_j(w_{rj}^\top x)` on :math:`S^{d-1}` with
standard normal weights has, for :math:`m\to\infty`, kernels of the angle :math:`\theta` alone: with
:math:`u=\cos\theta` and the duals :math:`\hat\varphi(u)=\operatorname E\varphi(z)\varphi(z')`,
:math:`\operatorname{corr}(z,z')=u`,

.. math:: \Sigma=\prod_j\hat\varphi_j,\qquad
          \Theta=\Sigma+u\sum_j\widehat{\varphi_j'}\prod_{i\ne j}\hat\varphi_i.

For :math:`\varphi(z)\propto\max(0,z)^s` the dual is the arc-cosine kernel
:math:`\kappa_s=J_s/J_s(0)`, :math:`J_{s+1}=(2s+1)\cos\theta J_s+s^2\sin^2\theta J_{s-1}`. A
function of u has the eigenvalue :math:`\mu_k` on the spherical harmonics of degree k, its mean
against the Legendre polynomial :math:`P_k` of dimension d. What is not smooth at the ends decides
the decay: :math:`(1-u)^\nu` has

.. math:: \mu_k=\frac{2^{\nu+d-2}\Gamma(\frac d2)\Gamma(\nu+\frac{d-1}2)}{\sqrt\pi\,\Gamma(-\nu)}
          \frac{\Gamma(k-\nu)}{\Gamma(k+\nu+d-1)}\asymp k^{-(2\nu+d-1)},

and :math:`(1+u)^\nu` the same times :math:`(-1)^k`.

Sources: choraria2022-spectral and salgia2023-provably (recalled; derived here)."""

from collections.abc import Callable, Sequence
from math import factorial, lgamma, log, pi, prod, sqrt

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_function,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = [
    "Activation",
    "arc_cosine_eigenvalues",
    "arc_cosine_kernel",
    "arc_cosine_singularity",
    "harmonic_counts",
    "linear_activation",
    "linearisation_error",
    "output_kernel",
    "rectified_power",
    "sampled_tangent_kernel",
    "singular_eigenvalues",
    "sphere_eigenvalues",
    "tangent_eigenvalues",
    "tangent_kernel",
]

MAX_ORDER = 20
MAX_DIMENSION = 100

Function = Callable[[FloatArray], FloatArray]


@result
class Activation:
    """An activation of unit mean square, its derivative, and the duals of both, which are functions
    of the angle."""

    name: str
    value: Function
    slope: Function
    dual: Function
    dual_slope: Function


def arc_cosine_kernel(angle: ArrayLike, *, order: int) -> FloatArray:
    r"""Return :math:`\kappa_s`, the dual of :math:`\max(0,z)^s` with value 1 at angle 0.

    Parameters
    ----------
    angle
        Angles in :math:`[0,\pi]`, of any shape.
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


def rectified_power(order: int) -> Activation:
    r"""Return :math:`\max(0,z)^s` with unit mean square: ReLU for s = 1.

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

    return Activation(f"rectified power {s}", value, slope, dual, dual_slope)


def linear_activation() -> Activation:
    """Return the identity.

    Examples
    --------
    >>> from theorylab.random_features import linear_activation
    >>> linear_activation().dual_slope(1.0).tolist()
    1.0
    """
    return Activation("linear", np.asarray, np.ones_like, np.cos, np.ones_like)


def output_kernel(
    angle: ArrayLike, factors: Sequence[Activation], *, bias: bool = False
) -> FloatArray:
    r"""Return :math:`\Sigma`, the covariance of the outputs at initialisation.

    Parameters
    ----------
    angle
        Angles between the inputs, of any shape.
    factors
        Activations that are multiplied in each unit.
    bias
        Whether inputs are :math:`(x,1)/\sqrt2`.

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
    angle: ArrayLike, factors: Sequence[Activation], *, bias: bool = False
) -> FloatArray:
    r"""Return :math:`\Theta`, the tangent kernel for training all weights.

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
    x: ArrayLike, y: ArrayLike, factors: Sequence[Activation], *, width: int, seed: int
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
        Seeds the weights; output weights are signs.

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
    W, signs = rng.standard_normal((len(given), m, x.size)), rng.choice([-1.0, 1.0], m)
    sides = []
    for point in (x, y):
        with np.errstate(over="ignore", invalid="ignore"):
            z = W @ point
            values = np.stack([f.value(zj) for f, zj in zip(given, z, strict=True)])
            slopes = np.stack([f.slope(zj) for f, zj in zip(given, z, strict=True)])
            others = [np.prod(np.delete(values, j, axis=0), axis=0) for j in range(len(given))]
            sides.append((values.prod(axis=0), signs * slopes * np.stack(others)))
    with np.errstate(over="ignore", invalid="ignore"):
        outer = np.mean(sides[0][0] * sides[1][0])
        total = float(outer + np.sum(np.mean(sides[0][1] * sides[1][1], axis=1)) * (x @ y))
    if not np.isfinite(total):
        raise ValueError("x, y: expected magnitudes whose products stay within float64")
    return total


def sphere_eigenvalues(kernel: Function, *, dimension: int, n_degrees: int) -> FloatArray:
    r"""Return :math:`\mu_0,\ldots` of a kernel on :math:`S^{d-1}`, by Gauss-Legendre quadrature in
    the angle: exact to some 1e-15 of the kernel's size where it is analytic on
    :math:`[0,\pi]`, as arc-cosine kernels are.

    Parameters
    ----------
    kernel
        Function of an array of angles.
    dimension
        d, from 2 to 100.
    n_degrees
        Number of degrees, at most 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import sphere_eigenvalues
    >>> cube = sphere_eigenvalues(lambda angle: np.cos(angle) ** 3, dimension=3, n_degrees=4)
    >>> cube[1::2].round(12).tolist()
    [0.2, 0.057142857143]
    """
    kernel, d = as_function(kernel, "kernel"), _dimension(dimension)
    n = as_count(n_degrees, "n_degrees", maximum=2000)
    nodes, weights = np.polynomial.legendre.leggauss(n + d + 60)
    theta = pi * (nodes + 1) / 2
    values = as_array(kernel(theta), "kernel", shape=theta.shape)
    u = np.cos(theta)
    measure = weights * np.sin(theta) ** (d - 2)
    measure /= measure.sum()
    before, P = np.ones_like(u), u
    found = np.empty(n)
    for k in range(n):
        found[k] = (measure * values) @ before
        step = (2 * k + d) / (k + d - 1) * u * P - (k + 1) / (k + d - 1) * before
        before, P = P, step
    return found


def arc_cosine_eigenvalues(*, order: int, dimension: int, n_degrees: int) -> FloatArray:
    r"""Return :math:`\mu_0,\ldots` of :math:`\kappa_s` on :math:`S^{d-1}` in closed form, each to
    full relative accuracy: squares, so that the kernel is positive definite.

    They vanish exactly for :math:`k>s` of the parity of s.

    Parameters
    ----------
    order
        s, from 0 to 20.
    dimension
        d, from 2 to 100.
    n_degrees
        Number of degrees.

    Notes
    -----
    :math:`\mu_k\propto I_k^2`, :math:`I_k(s)=\int_0^1u^sP_k(u)(1-u^2)^{(d-3)/2}du`, for which the
    differential equation of :math:`P_k` gives
    :math:`(s(s+d-2)-k(k+d-2))I_k(s)=s(s-1)I_k(s-2)`.

    Examples
    --------
    >>> from theorylab.random_features import arc_cosine_eigenvalues
    >>> arc_cosine_eigenvalues(order=1, dimension=3, n_degrees=4).round(12).tolist()
    [0.375, 0.166666666667, 0.0234375, 0.0]
    """
    s = as_count(order, "order", minimum=0, maximum=MAX_ORDER)
    d, n = _dimension(dimension), as_count(n_degrees, "n_degrees", maximum=10**6)
    k = np.arange(n)
    integrals = np.zeros(n)
    start = (s % 2) + 1  # the parity class that is not that of s
    # P_j of dimension D at 0 is (-1)^(j/2) (1/2)_(j/2) / ((D-1)/2)_(j/2) for even j.
    with np.errstate(divide="ignore"):
        if s % 2:
            at = k[::2]
            values = _legendre_at_zero(len(at), d) / ((d - 1) - at * (at + d - 2.0))
        else:
            at = k[1::2]
            values = _legendre_at_zero(len(at), d + 2) / (d - 1)
    for t in range(start + 1, s + 1, 2):
        values = values * t * (t - 1) / (t * (t + d - 2.0) - at * (at + d - 2.0))
    integrals[at] = values
    for j in range(s % 2, min(s + 1, n), 2):  # half the integral of u^s over [-1, 1]
        own = log(factorial(j)) + lgamma((d - 1) / 2) - lgamma(j + d / 2) - (j + 1) * log(2)
        value = sqrt(pi) * np.exp(own)
        for t in range(j + 2, s + 1, 2):
            value *= t * (t - 1) / (t * (t + d - 2.0) - j * (j + d - 2.0))
        integrals[j] = value
    sphere = np.exp(lgamma(d / 2) - lgamma((d - 1) / 2)) / sqrt(pi)
    power = np.exp(lgamma(s + 0.5) + lgamma((d - 1) / 2) - lgamma(s + d / 2)) / 2
    return np.asarray(sphere * integrals**2 / power)


def tangent_eigenvalues(*, order: int, dimension: int, n_degrees: int) -> FloatArray:
    r"""Return :math:`\mu_0,\ldots` of the tangent kernel
    :math:`\kappa_s+\frac{s^2}{2s-1}u\kappa_{s-1}` of :math:`\max(0,z)^s` on :math:`S^{d-1}`, each
    to full relative accuracy.

    Parameters
    ----------
    order
        s, from 1 to 20.
    dimension, n_degrees
        As in :func:`arc_cosine_eigenvalues`.

    Examples
    --------
    >>> from theorylab.random_features import tangent_eigenvalues
    >>> tangent_eigenvalues(order=1, dimension=3, n_degrees=4).round(12).tolist()
    [0.5, 0.333333333333, 0.078125, 0.0]
    """
    s, d = as_count(order, "order", maximum=MAX_ORDER), _dimension(dimension)
    n = as_count(n_degrees, "n_degrees", maximum=10**6)
    outer = arc_cosine_eigenvalues(order=s, dimension=d, n_degrees=n)
    inner = arc_cosine_eigenvalues(order=s - 1, dimension=d, n_degrees=n + 1)
    k = np.arange(n)
    # (2k+d-2) u P_k = k P_(k-1) + (k+d-2) P_(k+1), and u P_0 = P_1
    size = np.maximum(2 * k + d - 2, 1)
    down = np.where(k > 0, k / size, 0.0) * np.append(0.0, inner[: n - 1])
    up = np.where(k > 0, (k + d - 2) / size, 1.0) * inner[1:]
    return np.asarray(outer + s * s / (2 * s - 1) * (down + up))


def arc_cosine_singularity(order: int) -> float:
    r"""Return the factor of :math:`(1-u)^{s+1/2}` in :math:`\kappa_s` at u = 1, beside powers of
    :math:`1-u` that are integers or larger.

    Parameters
    ----------
    order
        s, from 0 to 20.

    Examples
    --------
    >>> from theorylab.random_features import arc_cosine_singularity
    >>> round(arc_cosine_singularity(0), 6)
    -0.450158
    """
    s = as_count(order, "order", minimum=0, maximum=MAX_ORDER)
    factors = (-2 * n * n / ((2 * n - 1) * (2 * n + 1)) for n in range(1, s + 1))
    return float(prod(factors, start=-sqrt(2) / pi))


def singular_eigenvalues(exponent: float, *, dimension: int, n_degrees: int) -> FloatArray:
    r"""Return :math:`\mu_0,\ldots` of :math:`(1-u)^\nu` on :math:`S^{d-1}` (module docstring).

    Parameters
    ----------
    exponent
        :math:`\nu`, from 0 to 50.
    dimension, n_degrees
        As in :func:`arc_cosine_eigenvalues`.

    Examples
    --------
    >>> from theorylab.random_features import singular_eigenvalues
    >>> singular_eigenvalues(1.0, dimension=3, n_degrees=2).round(12).tolist()
    [1.0, -0.333333333333]
    """
    nu, d = as_real(exponent, "exponent", minimum=0.0, maximum=50.0), _dimension(dimension)
    n = as_count(n_degrees, "n_degrees", maximum=10**6)
    logs = (nu + d - 2) * log(2) + lgamma(d / 2) + lgamma(nu + (d - 1) / 2) - lgamma(nu + d - 1)
    k = np.arange(1, n)
    steps = (k - 1 - nu) / (k + nu + d - 2)
    return np.asarray(np.exp(logs) / sqrt(pi) * np.cumprod(np.append(1.0, steps)))


def harmonic_counts(*, dimension: int, n_degrees: int) -> FloatArray:
    """Return the number of independent spherical harmonics of degree 0, 1, ... on the sphere.

    Parameters
    ----------
    dimension, n_degrees
        As in :func:`arc_cosine_eigenvalues`.

    Examples
    --------
    >>> from theorylab.random_features import harmonic_counts
    >>> harmonic_counts(dimension=3, n_degrees=4).tolist()
    [1.0, 3.0, 5.0, 7.0]
    """
    d, n = _dimension(dimension), as_count(n_degrees, "n_degrees", maximum=10**6)
    k = np.arange(1, n)
    if d == 2:
        return np.append(1.0, np.full(n - 1, 2.0))
    # N_k = (2k+d-2)/(d-2) binomial(k+d-3, k)
    binomials = np.cumprod((k + d - 3) / k)
    return np.append(1.0, np.rint((2 * k + d - 2) / (d - 2) * binomials))


@refuses_overflow("W", "signs", "step", "points")
def linearisation_error(
    W: ArrayLike,
    signs: ArrayLike,
    step: ArrayLike,
    points: ArrayLike,
    *,
    activation: Activation,
) -> FloatArray:
    r"""Return :math:`f_{W+\Delta}-f_W-\langle\nabla_Wf_W,\Delta\rangle` for
    :math:`f_W(x)=\frac1{\sqrt m}\sum_ra_r\varphi(w_r^\top x)` at every point.

    Parameters
    ----------
    W, step
        (..., m, d) weights, of one network or of many, and displacement.
    signs
        (..., m) output weights a.
    points
        (n, d) inputs.
    activation
        :math:`\varphi`.

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
    phi = as_instance(activation, "activation", Activation)
    z, moved = W @ X.T, D @ X.T
    errors = phi.value(z + moved) - phi.value(z) - phi.slope(z) * moved
    return np.asarray(np.einsum("...m,...mn->...n", a, errors)) / sqrt(W.shape[-2])


def _legendre_at_zero(count: int, dimension: int) -> FloatArray:
    """Return P_0(0), P_2(0), ..., as many as ``count``."""
    j = np.arange(1, count)
    return np.cumprod(np.append(1.0, -(j - 0.5) / (j - 1 + (dimension - 1) / 2)))[:count]


def _angles(angle: ArrayLike) -> FloatArray:
    theta = as_array(angle, "angle", nonnegative=True)
    if theta.max() > pi * (1 + 1e-15):
        raise ValueError(f"angle: expected at most pi, got {theta.max()}")
    return theta


def _inner(angle: ArrayLike, bias: bool) -> FloatArray:
    """Return the angle between the inputs of the units."""
    theta = _angles(angle)
    if as_flag(bias, "bias"):
        return np.asarray(2 * np.arcsin(np.sin(theta / 2) / sqrt(2)))
    return theta


def _factors(factors: Sequence[Activation]) -> Sequence[Activation]:
    if not (isinstance(factors, list | tuple) and factors):
        raise ValueError(f"factors: expected a list of activations, got {type(factors).__name__}")
    return [as_instance(f, "factors", Activation) for f in factors]


def _dimension(dimension: int) -> int:
    return as_count(dimension, "dimension", minimum=2, maximum=MAX_DIMENSION)
