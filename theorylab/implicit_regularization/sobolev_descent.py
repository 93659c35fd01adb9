r"""Descent on a misfit in a Sobolev norm: a filter, a preconditioner, a model of the noise.

On the periodic grid of a torus of length $2\pi$ in every direction, let
$\Lambda=I-\Delta$ have the symbol $w=1+|\xi|^2$, and A, a convolution, the symbol a.
Gradient descent of the misfit $\frac12\|Af-g\|_{H^s}^2=\frac12(Af-g)^\top\Lambda^s(Af-g)$,

$$f_{t+1}=f_t-\eta A^\top\Lambda^s(Af_t-g),\qquad f_0=0,$$

is diagonal in frequency: after k steps $\hat f=\frac{F_k}a\hat g$,
$F_k=1-(1-\eta w^s|a|^2)^k$, where a is not 0, and 0 elsewhere. If
$|a|=w^{-p/2}$ its Hessian has the condition number $w_{\max}^{|s-p|}$. As a
likelihood the misfit assumes noise of covariance $\sigma^2\Lambda^{-s}$; with a prior of
covariance $v\Lambda^{-r}$ the posterior mean is Tikhonov's minimiser.

Paper: zhu2021-implicit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "convolution_matrix",
    "sobolev_iterate",
    "sobolev_tikhonov",
    "sobolev_weights",
    "spectral_filter",
    "tikhonov_error",
]

_LARGEST_GRID = 4096
_LARGEST_SHAPE = 10**8


def convolution_matrix(kernel: ArrayLike) -> FloatArray:
    r"""Return the matrix, (N, N), of the periodic convolution with a kernel of N entries, on
    ravelled arrays of its shape.

    Examples
    --------
    >>> from theorylab.implicit_regularization import convolution_matrix
    >>> convolution_matrix([1.0, 2.0, 0.0])
    array([[1., 0., 2.],
           [2., 1., 0.],
           [0., 2., 1.]])
    """
    c = _kernel(kernel)
    if c.size > _LARGEST_GRID:
        raise ValueError(f"kernel: expected at most {_LARGEST_GRID} entries, got {c.size}")
    lags = np.zeros((c.size, c.size), np.int32)
    for n, place in zip(c.shape, np.indices(c.shape, np.int32).reshape(c.ndim, -1), strict=True):
        lags = lags * n + (place[:, None] - place) % n
    return np.asarray(c.ravel()[lags])


@refuses_overflow("order")
def sobolev_weights(shape: Sequence[int], *, order: float) -> FloatArray:
    r"""Return $(1+|\xi|^2)^s$ at the frequencies of ``numpy.fft.fftn``, in the given shape.

    Examples
    --------
    >>> from theorylab.implicit_regularization import sobolev_weights
    >>> sobolev_weights((4,), order=1.0)
    array([1., 2., 5., 2.])
    """
    if not isinstance(shape, tuple | list) or not shape:
        raise ValueError(f"shape: expected a sequence of sizes, got {shape!r}")
    sizes = [as_count(n, "shape", maximum=_LARGEST_SHAPE) for n in shape]
    if math.prod(sizes) > _LARGEST_SHAPE:
        raise ValueError(f"shape: expected at most {_LARGEST_SHAPE} points, got {math.prod(sizes)}")
    s = as_real(order, "order")
    axes = [np.fft.fftfreq(n, 1 / n) ** 2 for n in sizes]
    return np.asarray((1 + sum(np.ix_(*axes))) ** s)


@refuses_overflow("kernel", "order", "step_size", "steps")
def spectral_filter(kernel: ArrayLike, *, order: float, step_size: float, steps: int) -> FloatArray:
    r"""Return $1-(1-\eta w^s|a|^2)^k$, the share of the exact inverse that k steps on the
    misfit in $H^s$ recover at each frequency, in the shape of the kernel.

    Parameters
    ----------
    kernel
        Of the convolution A.
    order, step_size, steps
        s, $\eta$ and k.

    Examples
    --------
    >>> from theorylab.implicit_regularization import spectral_filter
    >>> spectral_filter([1.0, 0.0, 0.0, 0.0], order=-1.0, step_size=0.5, steps=1)
    array([0.5 , 0.25, 0.1 , 0.25])
    """
    c = _kernel(kernel)
    e = binary_exponent(c)
    eta = math.ldexp(as_real(step_size, "step_size", above=0.0), 2 * e)
    k = as_count(steps, "steps", minimum=0)
    h = eta * sobolev_weights(c.shape, order=order) * np.abs(np.fft.fftn(np.ldexp(c, -e))) ** 2
    small = np.minimum(h, 0.5)
    return np.asarray(np.where(h < 0.5, -np.expm1(k * np.log1p(-small)), 1 - (1 - h) ** k))


@refuses_overflow("kernel", "data", "order", "step_size", "steps")
def sobolev_iterate(
    kernel: ArrayLike, data: ArrayLike, *, order: float, step_size: float, steps: int
) -> FloatArray:
    r"""Return k steps of gradient descent on $\frac12\|Af-g\|_{H^s}^2$ from 0, in the shape
    of the data g, by the filter that they are: any number of steps costs two Fourier transforms.

    Parameters
    ----------
    kernel, data
        Of one shape.
    order, step_size, steps
        As in :func:`spectral_filter`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import sobolev_iterate
    >>> sobolev_iterate([2.0, 0.0], [1.0, 3.0], order=1.0, step_size=0.1, steps=200).round(9)
    array([0.5, 1.5])
    """
    c = _kernel(kernel)
    g = as_array(data, "data", shape=c.shape)
    share = spectral_filter(c, order=order, step_size=step_size, steps=steps)
    e, b = binary_exponent(c), binary_exponent(g)
    symbol = np.fft.fftn(np.ldexp(c, -e))
    inverse = np.where(symbol == 0, 0.0, share / np.where(symbol == 0, 1.0, symbol))
    return np.ldexp(np.fft.ifftn(inverse * np.fft.fftn(np.ldexp(g, -b))).real, b - e)


@refuses_overflow("kernel", "data", "order", "noise_variance", "prior_order", "prior_variance")
def sobolev_tikhonov(
    kernel: ArrayLike,
    data: ArrayLike,
    *,
    order: float,
    noise_variance: float,
    prior_order: float,
    prior_variance: float,
) -> FloatArray:
    r"""Return the minimiser of
    $\sigma^{-2}\|Af-g\|_{H^s}^2+v^{-1}\|f\|_{H^r}^2$, in the shape of g.

    It is the posterior mean for g = Af + noise with covariances $v\Lambda^{-r}$ of f and
    $\sigma^2\Lambda^{-s}$ of the noise.

    Parameters
    ----------
    kernel, data
        Of one shape.
    order, noise_variance
        s and $\sigma^2$.
    prior_order, prior_variance
        r and v.

    Examples
    --------
    >>> from theorylab.implicit_regularization import sobolev_tikhonov
    >>> parameters = {"noise_variance": 1.0, "prior_order": 0.0, "prior_variance": 3.0}
    >>> sobolev_tikhonov([1.0, 0.0], [4.0, 4.0], order=2.0, **parameters)
    array([3., 3.])
    """
    c = _kernel(kernel)
    g = as_array(data, "data", shape=c.shape)
    e, b = binary_exponent(c), binary_exponent(g)
    spectra = _spectra(c.shape, order, noise_variance, prior_order, prior_variance)
    inverse = _shrunk(c, *spectra)
    return np.ldexp(np.fft.ifftn(inverse * np.fft.fftn(np.ldexp(g, -b))).real, b - e)


@refuses_overflow(
    *("kernel", "order", "noise_order", "noise_variance", "prior_order", "prior_variance")
)
def tikhonov_error(
    kernel: ArrayLike,
    *,
    order: float,
    noise_order: float,
    noise_variance: float,
    prior_order: float,
    prior_variance: float,
) -> float:
    r"""Return the mean squared error, summed over the grid, of :func:`sobolev_tikhonov` of some
    order where the noise has the covariance $\sigma^2\Lambda^{-q}$.

    Parameters
    ----------
    kernel
        Of the convolution.
    order, noise_order
        s, of the misfit, and q, of the noise: the error is least where they are equal.
    noise_variance, prior_order, prior_variance
        As in :func:`sobolev_tikhonov`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import tikhonov_error
    >>> parameters = {"noise_variance": 1.0, "prior_order": 0.0, "prior_variance": 1.0}
    >>> tikhonov_error([1.0, 0.0], order=0.0, noise_order=0.0, **parameters)
    1.0
    """
    c = _kernel(kernel)
    used, prior = _spectra(c.shape, order, noise_variance, prior_order, prior_variance)
    noise = noise_variance * sobolev_weights(c.shape, order=-as_real(noise_order, "noise_order"))
    e = binary_exponent(c)
    inverse = _shrunk(c, used, prior)
    missed = prior * np.abs(inverse * np.fft.fftn(np.ldexp(c, -e)) - 1) ** 2
    return float(np.sum(missed + np.abs(np.ldexp(1.0, -e) * inverse) ** 2 * noise))


def _kernel(kernel: ArrayLike) -> FloatArray:
    c = as_array(kernel, "kernel")
    if c.ndim == 0:
        raise ValueError("kernel: expected at least one axis, got a number")
    return c


def _spectra(
    shape: tuple[int, ...], order: float, noise: float, prior_order: float, prior: float
) -> tuple[FloatArray, FloatArray]:
    """Return the spectra of noise and prior that a Tikhonov functional assumes."""
    s, r = as_real(order, "order"), as_real(prior_order, "prior_order")
    sigma = as_real(noise, "noise_variance", above=0.0)
    return (
        sigma * sobolev_weights(shape, order=-s),
        as_real(prior, "prior_variance", above=0.0) * sobolev_weights(shape, order=-r),
    )


def _shrunk(c: FloatArray, noise: FloatArray, prior: FloatArray) -> NDArray[np.complex128]:
    """Return conj(a) / (|a|^2 + noise / prior) times 2^e, the e of the kernel."""
    e = binary_exponent(c)
    symbol = np.fft.fftn(np.ldexp(c, -e))
    return np.asarray(symbol.conj() / (np.abs(symbol) ** 2 + np.ldexp(noise / prior, -2 * e)))
