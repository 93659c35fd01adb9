r"""Spectra of arc-cosine kernels on the sphere: exact, and how singularities make them decay.

A function of $u=\cos\theta$ on $S^{d-1}$ has the eigenvalue $\mu_k$ on the
spherical harmonics of degree k, its mean against the Legendre polynomial $P_k$ of dimension
d. What is not smooth at the ends decides the decay: $(1-u)^\nu$ has

$$\mu_k=\frac{2^{\nu+d-2}\Gamma(\frac d2)\Gamma(\nu+\frac{d-1}2)}{\sqrt\pi\,\Gamma(-\nu)}
\frac{\Gamma(k-\nu)}{\Gamma(k+\nu+d-1)}\asymp k^{-(2\nu+d-1)},$$

and $(1+u)^\nu$ the same times $(-1)^k$.

Sources: choraria2022-spectral and salgia2023-provably (recalled; derived here)."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial, lgamma, log, pi, prod, sqrt

import numpy as np

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_real,
    refuses_overflow,
)
from theorylab.random_features.sphere_kernels import MAX_ORDER

__all__ = [
    "arc_cosine_eigenvalues",
    "arc_cosine_singularity",
    "harmonic_counts",
    "singular_eigenvalues",
    "sphere_eigenvalues",
    "tangent_eigenvalues",
]

MAX_DIMENSION = 100


def sphere_eigenvalues(
    kernel: Callable[[FloatArray], FloatArray], *, dimension: int, n_degrees: int
) -> FloatArray:
    r"""Return $\mu_0,\ldots$ of a kernel on $S^{d-1}$, by Gauss-Legendre quadrature in
    the angle: exact to some 1e-15 of the kernel's size where it is analytic on
    $[0,\pi]$, as arc-cosine kernels are.

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
    r"""Return $\mu_0,\ldots$ of $\kappa_s$ on $S^{d-1}$ in closed form, each to
    full relative accuracy: squares, so that the kernel is positive definite.

    They vanish exactly for $k>s$ of the parity of s.

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
    $\mu_k\propto I_k^2$, $I_k(s)=\int_0^1u^sP_k(u)(1-u^2)^{(d-3)/2}du$, for which the
    differential equation of $P_k$ gives
    $(s(s+d-2)-k(k+d-2))I_k(s)=s(s-1)I_k(s-2)$.

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
    r"""Return $\mu_0,\ldots$ of the tangent kernel
    $\kappa_s+\frac{s^2}{2s-1}u\kappa_{s-1}$ of $\max(0,z)^s$ on $S^{d-1}$, each
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
    r"""Return the factor of $(1-u)^{s+1/2}$ in $\kappa_s$ at u = 1, beside powers of
    $1-u$ that are integers or larger.

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
    r"""Return $\mu_0,\ldots$ of $(1-u)^\nu$ on $S^{d-1}$ (module docstring).

    Parameters
    ----------
    exponent
        $\nu$, from 0 to 50.
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


@refuses_overflow("dimension", "n_degrees")
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


def _legendre_at_zero(count: int, dimension: int) -> FloatArray:
    """Return P_0(0), P_2(0), ..., as many as ``count``."""
    j = np.arange(1, count)
    return np.cumprod(np.append(1.0, -(j - 0.5) / (j - 1 + (dimension - 1) / 2)))[:count]


def _dimension(dimension: int) -> int:
    return as_count(dimension, "dimension", minimum=2, maximum=MAX_DIMENSION)
