"""Risks that are simulated, and spectra that are estimated from kernels: what the deterministic
equivalents of :mod:`~theorylab.random_features.eigenframework` are held against."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    precision_of,
    refuses_overflow,
)
from theorylab.numerics.results import result
from theorylab.random_features._risk_kernels import as_modes

__all__ = ["SimulatedRisk", "Spectrum", "circulant_spectrum", "population_spectrum"]
__all__ += ["resample_risk", "simulate_risk"]

ModeLaw = Callable[[np.random.Generator, tuple[int, int, int]], FloatArray]
"""Draws modes of shape (draws, points, modes): one row of orthonormal values per sample or
feature."""


@result
class SimulatedRisk:
    """Risks of independent training runs, shape (n_draws,); the test risk includes the noise
    variance."""

    test_risk: FloatArray
    train_risk: FloatArray


@result
class Spectrum:
    """Eigenvalues, decreasing, and target coefficients of a kernel on a population."""

    eigenvalues: FloatArray
    coefficients: FloatArray


@refuses_overflow("coefficients", "ridge")
def simulate_risk(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    ridge: float,
    n_draws: int,
    rng: np.random.Generator,
    n_features: int | None = None,
    noise_variance: float = 0.0,
    sample_modes: ModeLaw | None = None,
    feature_modes: ModeLaw | None = None,
) -> SimulatedRisk:
    r"""Train on independent draws of samples, features and noise; each test risk is exact given the
    draw.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, n_features, ridge, noise_variance
        As for :func:`random_feature_risk`; ``n_features=None`` is kernel regression. A ridge of 0
        needs at least $\min(n,k)$ positive eigenvalues.
    n_draws
        Number of training runs.
    rng
        Source of randomness.
    sample_modes, feature_modes
        Laws of $\phi(x)$ and $\zeta(w)$: functions of ``rng`` and a shape (draws,
        points, modes); independent standard Gaussians by default.

    Returns
    -------
    SimulatedRisk

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import kernel_ridge_risk, simulate_risk
    >>> size, rng = {"n_samples": 60, "ridge": 1.0}, np.random.default_rng(0)
    >>> runs = simulate_risk(np.ones(30), np.ones(30), **size, n_draws=50, rng=rng)
    >>> predicted = kernel_ridge_risk(np.ones(30), np.ones(30), **size).test_risk
    >>> bool(abs(runs.test_risk.mean() / predicted - 1) < 0.1)
    True
    """
    spectrum, _ = as_modes(eigenvalues, coefficients)
    target = as_array(coefficients, "coefficients", ndim=1)
    n, draws = as_count(n_samples, "n_samples"), as_count(n_draws, "n_draws")
    k = spectrum.size if n_features is None else as_count(n_features, "n_features")
    delta = as_real(ridge, "ridge", minimum=0.0)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    if delta == 0.0 and np.count_nonzero(spectrum) < min(n, k if n_features is not None else n):
        raise ValueError(
            "ridge: expected a positive number where min(n, k) exceeds the positive "
            "eigenvalues, got 0.0"
        )
    generator = _generator(rng)
    draw_samples = _law(sample_modes, "sample_modes")
    draw_features = _law(feature_modes, "feature_modes")
    root = np.sqrt(spectrum)
    test, train = np.empty(draws), np.empty(draws)
    chunk = max(1, 2**19 // ((n + k) * spectrum.size))
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        phi = draw_samples(generator, (size, n, spectrum.size))
        labels = phi @ target + math.sqrt(noise) * generator.standard_normal((size, n))
        if n_features is None:
            weights, residual = _ridge_fit(phi * root, labels, delta)
            learned = root * weights
        else:
            readout = draw_features(generator, (size, k, spectrum.size)) * (root / math.sqrt(k))
            weights, residual = _ridge_fit(phi @ readout.transpose(0, 2, 1), labels, delta)
            learned = np.einsum("dkm,dk->dm", readout, weights)
        test[start : start + size] = ((target - learned) ** 2).sum(axis=1) + noise
        train[start : start + size] = (residual**2).mean(axis=1)
    return SimulatedRisk(test, train)


def population_spectrum(kernel: ArrayLike, targets: ArrayLike) -> Spectrum:
    r"""Return the spectrum of a kernel on a finite population with uniform weights: the formulas on
    one's own data.

    Parameters
    ----------
    kernel
        Shape (N, N), symmetric positive semi-definite: the kernel (for random features, its mean)
        on all N points; up to rounding in its own precision, so that kernels computed in float32
        are accepted.
    targets
        Shape (N,): the target on all points.

    Returns
    -------
    Spectrum
        Eigenvalues of ``kernel / N`` (those within its rounding are 0), and the target on
        eigenvectors normalised to mean square 1.

    Raises
    ------
    ValueError
        If the kernel is not square, symmetric and positive semi-definite, or the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import population_spectrum
    >>> X = np.random.default_rng(0).normal(size=(50, 3))
    >>> spectrum = population_spectrum(X @ X.T, X[:, 0])
    >>> int((spectrum.eigenvalues > 1e-9).sum())
    3
    >>> bool(np.isclose((spectrum.coefficients**2).sum(), (X[:, 0] ** 2).mean()))
    True
    """
    matrix = as_array(kernel, "kernel", ndim=2)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"kernel: expected a square matrix, got shape {matrix.shape}")
    values = as_array(targets, "targets", shape=(len(matrix),))
    scale = float(np.abs(matrix).max())
    # What the entries were rounded to when they came, several operations each.
    coarse = 64 * precision_of(kernel)
    if not np.allclose(matrix, matrix.T, rtol=0.0, atol=max(1e-10, coarse) * scale):
        raise ValueError("kernel: expected a symmetric matrix")
    eigenvalues, vectors = np.linalg.eigh(matrix / len(matrix))
    if eigenvalues[0] < -max(1e-9, coarse) * scale:
        raise ValueError(
            "kernel: expected a positive semi-definite matrix, got eigenvalue "
            f"{eigenvalues[0]:.3g} of K/N"
        )
    # Rounding goes both ways: nothing below the most negative eigenvalue is known to be a mode.
    rounding = max(1e-12 * float(eigenvalues[-1]), -float(eigenvalues[0]))
    eigenvalues = np.where(eigenvalues > rounding, eigenvalues, 0.0)[::-1]
    return Spectrum(
        np.ascontiguousarray(eigenvalues), (vectors.T @ values)[::-1] / math.sqrt(len(matrix))
    )


@refuses_overflow("profile")
def circulant_spectrum(profile: ArrayLike, targets: ArrayLike) -> Spectrum:
    r"""Return the spectrum of the features $g(w,x)=h(x-w)$ with x and w uniform on N
    equispaced points of a circle.

    Parameters
    ----------
    profile
        Shape (N,): h on the grid.
    targets
        Shape (N,): the target on the grid.

    Returns
    -------
    Spectrum
        $|\hat h_m|^2$ and $|\hat f_m|$, Fourier coefficients with the factor 1/N; a
        cosine and its sine share both.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import circulant_spectrum
    >>> turn = 2 * np.pi * np.arange(8) / 8
    >>> spectrum = circulant_spectrum(1 + np.cos(turn), np.cos(turn))
    >>> spectrum.eigenvalues[:3].round(6).tolist()
    [1.0, 0.25, 0.25]
    """
    h = as_array(profile, "profile", ndim=1)
    f = as_array(targets, "targets", shape=h.shape)
    eigenvalues = np.abs(np.fft.fft(h) / h.size) ** 2
    # Rounding of the transform is not a spectrum: an even profile has exact zeros.
    eigenvalues[eigenvalues < (4 * np.finfo(float).eps * float(np.abs(h).max())) ** 2] = 0.0
    order = np.argsort(-eigenvalues, kind="stable")
    return Spectrum(eigenvalues[order], (np.abs(np.fft.fft(f)) / f.size)[order])


@refuses_overflow("targets", "ridge")
def resample_risk(
    draw_features: Callable[[np.random.Generator], FloatArray],
    targets: ArrayLike,
    *,
    n_samples: int,
    ridge: float,
    n_draws: int,
    rng: np.random.Generator,
) -> SimulatedRisk:
    """Train on samples drawn with replacement from a finite population; each test risk is the mean
    over the population.

    Parameters
    ----------
    draw_features
        Function of ``rng`` that returns a fresh feature matrix of the whole population, shape (N,
        k), without the factor ``1 / sqrt(k)``.
    targets
        Shape (N,): noiseless labels of the population.
    n_samples, ridge
        As for :func:`random_feature_risk`; the ridge is positive.
    n_draws
        Number of training runs, each with its own features and samples.
    rng
        Source of randomness.

    Returns
    -------
    SimulatedRisk

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import resample_risk
    >>> rng = np.random.default_rng(0)
    >>> X, size = rng.normal(size=(200, 4)), {"n_samples": 100, "ridge": 1e-6, "n_draws": 3}
    >>> found = resample_risk(lambda _: X, X[:, 0], **size, rng=rng)
    >>> bool(found.test_risk.max() < 1e-9)  # the target is linear in the features
    True
    """
    labels = as_array(targets, "targets", ndim=1)
    n, draws = as_count(n_samples, "n_samples"), as_count(n_draws, "n_draws")
    delta = as_real(ridge, "ridge", above=0.0)
    generator = _generator(rng)
    if not callable(draw_features):
        raise ValueError(
            f"draw_features: expected a function of rng, got {type(draw_features).__name__}"
        )
    test, train = np.empty(draws), np.empty(draws)
    for i in range(draws):
        features = as_array(draw_features(generator), "draw_features", shape=(labels.size, None))
        features = features / math.sqrt(features.shape[1])
        rows = generator.integers(labels.size, size=n)
        weights, residual = _ridge_fit(features[rows][None], labels[rows][None], delta)
        test[i] = np.mean((labels - features @ weights[0]) ** 2)
        train[i] = np.mean(residual**2)
    return SimulatedRisk(test, train)


def _generator(rng: np.random.Generator) -> np.random.Generator:
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    return rng


def _law(modes: ModeLaw | None, name: str) -> ModeLaw:
    if modes is None:
        return lambda rng, shape: rng.standard_normal(shape)
    if not callable(modes):
        raise ValueError(
            f"{name}: expected a function of rng and a shape, got {type(modes).__name__}"
        )
    return lambda rng, shape: as_array(modes(rng, shape), name, shape=shape)


def _ridge_fit(
    features: FloatArray, labels: FloatArray, ridge: float
) -> tuple[FloatArray, FloatArray]:
    """Return ridge weights, shape (draws, k), and residuals, (draws, n), by the smaller of the two
    linear systems."""
    transposed = features.transpose(0, 2, 1)
    _, n, k = features.shape
    if n <= k:
        gram = features @ transposed
        gram[:, range(n), range(n)] += ridge
        dual = np.asarray(np.linalg.solve(gram, labels[..., None]), dtype=np.float64)
        return (transposed @ dual)[..., 0], ridge * dual[..., 0]
    gram = transposed @ features
    gram[:, range(k), range(k)] += ridge
    weights = np.asarray(np.linalg.solve(gram, transposed @ labels[..., None]), dtype=np.float64)
    return weights[..., 0], labels - (features @ weights)[..., 0]
