r"""Deterministic equivalents of the risks of kernel and random-feature ridge regression, from the
spectrum alone.

Features :math:`g(w,x)=\sum_i\sqrt{\lambda_i}\,\zeta_i(w)\phi_i(x)` with orthonormal
:math:`\phi_i,\zeta_i`, k of them, n samples, target :math:`\sum_iv_i\phi_i` with label noise of
variance :math:`\sigma^2`, ridge :math:`\delta` in :math:`(\hat K+\delta I_n)^{-1}`, :math:`\hat
K=\frac1k\sum_jg(w_j,\cdot)g(w_j,\cdot)`. With the effective ridge :math:`\gamma` of
:mod:`~theorylab.random_features.fixed_points`, :math:`\Gamma_i=\gamma/(\lambda_i+\gamma)`,
:math:`a=n-z`, :math:`b=k-z` and :math:`c=\sum_i\Gamma_i(1-\Gamma_i)`,

.. math::
    \mathcal E_{te} =
    n\,\frac{\sum_i\Gamma_i^2v_i^2+\frac{c}{b+c}\sum_i\Gamma_i(1-\Gamma_i)v_i^2+\sigma^2}{a+\frac{bc}{b+c}},
    \qquad \mathcal E_{tr} = \Big(\frac an\Big)^2\mathcal E_{te} =
    \frac{\delta^2}{n^2\kappa^2}\,\mathcal E_{te}

(simon2024-more, Section 4, written so that every term is positive; kernel regression is
:math:`b=\infty`). For Gaussian :math:`\phi,\zeta` both risks are exact up to a relative
:math:`O(1/n)`, whose first term :func:`finite_size_term` gives. At fixed :math:`\gamma` the test
risk decreases in a and b, that is in n and k: more is better. Where :math:`\lambda_i\propto
i^{-\alpha}` and :math:`v_i^2\propto i^{-\beta}` the best ratio :math:`\mathcal E_{tr}/\mathcal
E_{te}` tends to :func:`optimal_fitting_ratio`."""

import math
from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import binom, zeta

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    precision_of,
    refuses_overflow,
)
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result
from theorylab.random_features.fixed_points import (
    broadcast_sizes,
    extrapolate,
    free_counts,
    smallest_and_total,
    solve_gamma,
)

__all__ = [
    "FiniteSizeTerm",
    "LearningCurve",
    "OptimalRidge",
    "OptimalRidgeStatus",
    "RidgeRisk",
    "SimulatedRisk",
    "Spectrum",
    "circulant_spectrum",
    "finite_size_term",
    "interpolation_threshold",
    "kernel_ridge_risk",
    "learning_curve",
    "optimal_fitting_ratio",
    "optimal_ridge",
    "population_spectrum",
    "power_law_fitting_ratio",
    "power_law_threshold",
    "random_feature_risk",
    "resample_risk",
    "simulate_risk",
]

ModeLaw = Callable[[np.random.Generator, tuple[int, int, int]], FloatArray]
"""Draws modes of shape (draws, points, modes): one row of orthonormal values per sample or
feature."""


@result
class RidgeRisk:
    """Predicted risks at one size, with the two effective ridges: deterministic equivalents, which
    differ from the means over samples by a relative O(1/n).

    Attributes
    ----------
    test_risk
        Mean squared error on a fresh noisy label (it includes the noise variance).
    train_risk
        Mean squared residual on the training labels.
    kappa, gamma
        Effective ridges; equal for kernel regression.
    """

    test_risk: float
    train_risk: float
    kappa: float
    gamma: float


@result
class LearningCurve:
    """The quantities of :class:`RidgeRisk` as arrays, one entry per size."""

    test_risk: FloatArray
    train_risk: FloatArray
    kappa: FloatArray
    gamma: FloatArray


@result
class FiniteSizeTerm:
    r"""First correction in 1/n: mean risk = predicted risk + term + :math:`O(n^{-2})`, for Gaussian
    modes."""

    test_risk: float
    train_risk: float


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


class OptimalRidgeStatus(StrEnum):
    """How the minimisation over the ridge ended."""

    INTERIOR = "a positive ridge is optimal"
    INTERPOLATION = "ridge 0 is optimal: regularising more than interpolation does can only hurt"
    NOTHING_LEARNABLE = (
        "no ridge beats the zero prediction: the target has no power on the kernel's modes"
    )


@result
class OptimalRidge:
    """Ridge of least predicted test risk, with a lower bound over all ridges.

    Attributes
    ----------
    ridge
        The minimiser; infinite where the zero prediction is best.
    test_risk, train_risk, gamma
        Risks and effective ridge there.
    lower_bound
        No ridge has a smaller predicted test risk, up to rounding.
    status
        Which kind of optimum it is.
    """

    ridge: float
    test_risk: float
    train_risk: float
    gamma: float
    lower_bound: float
    status: OptimalRidgeStatus

    @property
    def gap(self) -> float:
        """Relative distance of the risk from its lower bound."""
        return (self.test_risk - self.lower_bound) / self.test_risk if self.test_risk > 0 else 0.0


def random_feature_risk(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    n_features: int,
    ridge: float,
    noise_variance: float = 0.0,
) -> RidgeRisk:
    r"""Return the predicted test and training risk of random-feature ridge regression.

    Parameters
    ----------
    eigenvalues
        Shape (n_modes,), non-negative; a zero is a mode that the kernel cannot learn.
    coefficients
        Shape (n_modes,): :math:`v_i`, the target on orthonormal eigenfunctions (not squared).
    n_samples, n_features
        n and k.
    ridge
        :math:`\delta\ge0`, added to the n x n kernel matrix of the kernel with the factor 1/k.
    noise_variance
        :math:`\sigma^2\ge0` of the labels; included in both risks.

    Returns
    -------
    RidgeRisk
        At ridge 0 the limit of the formula as the ridge tends to 0. It is infinite where n equals
        k, or the number of positive eigenvalues, and something cannot be fitted: there the mean
        over Gaussian designs is infinite as well.

    Raises
    ------
    ValueError
        If an argument has the wrong shape, sign or type.

    Notes
    -----
    simon2024-more, Section 4 (the paper's text was not consulted).
    """
    as_count(n_samples, "n_samples")
    as_count(n_features, "n_features")
    as_real(ridge, "ridge", minimum=0.0)
    return _one_size(eigenvalues, coefficients, n_samples, n_features, ridge, noise_variance)


def kernel_ridge_risk(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    ridge: float,
    noise_variance: float = 0.0,
) -> RidgeRisk:
    r"""Return the predicted test and training risk of kernel ridge regression.

    The limit of :func:`random_feature_risk` for infinitely many features:
    :math:`\mathcal E_{te}=\big(\sum_i\Gamma_i^2v_i^2+\sigma^2\big)/(1-q/n)` with
    :math:`q=\sum_i(\lambda_i/(\lambda_i+\kappa))^2`.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, ridge, noise_variance
        As for :func:`random_feature_risk`.

    Returns
    -------
    RidgeRisk
        With ``gamma`` equal to ``kappa``.

    Raises
    ------
    ValueError
        If an argument has the wrong shape, sign or type.
    """
    as_count(n_samples, "n_samples")
    as_real(ridge, "ridge", minimum=0.0)
    return _one_size(eigenvalues, coefficients, n_samples, None, ridge, noise_variance)


def learning_curve(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: ArrayLike,
    ridge: ArrayLike,
    n_features: ArrayLike | None = None,
    noise_variance: float = 0.0,
) -> LearningCurve:
    """Return the predicted risks at many sizes or ridges at once.

    Parameters
    ----------
    eigenvalues, coefficients, noise_variance
        As for :func:`random_feature_risk`.
    n_samples, n_features, ridge
        Positive integers and non-negative ridges, or one-dimensional arrays of them that broadcast
        together; ``n_features=None`` is kernel regression. Each size starts from the root of the
        one before.

    Returns
    -------
    LearningCurve
        Arrays of the broadcast shape.

    Raises
    ------
    ValueError
        If an argument has the wrong shape, sign or type.
    """
    spectrum, power = _modes(eigenvalues, coefficients)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    n, k, delta = broadcast_sizes(n_samples, n_features, ridge)
    positive = spectrum > 0
    rest = noise + float(power[~positive].sum())
    rows = _risks(spectrum[positive], power[positive], rest, n.ravel(), k.ravel(), delta.ravel())
    return LearningCurve(*(row.reshape(n.shape) for row in rows))


def finite_size_term(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    ridge: float,
    n_features: int | None = None,
    noise_variance: float = 0.0,
) -> FiniteSizeTerm:
    r"""Return the 1/n correction of the mean test and training risk for Gaussian modes.

    Both mean risks are mixed derivatives :math:`\partial_\tau\partial_\epsilon L` at 0, at every n
    and k, of

    .. math:: L=\mathrm
    E\log\det\big[\delta+(T+\tau\delta\,\mathrm{diag}(v^2))(\Phi^\top\Phi+\epsilon)\big],
              \qquad T=\tfrac1k\Lambda^{1/2}Z^\top Z\Lambda^{1/2}

    (the noise is a mode with eigenvalue 0; for the training risk :math:`\Phi^\top\Phi` is scaled by
    :math:`1+\epsilon`). By Laplace's method :math:`L=f(x,y)+\frac12\log\det\nabla^2f+O(1/n)` at the
    stationary point of

    .. math:: f = ke^x-kx+e^y-ny+\sum_i\log\big((\tau\delta
    v_i^2+e^x\lambda_i)(\epsilon+e^y)+\delta\big).

    The first part gives the predicted risks, the second one this correction.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, n_features, ridge, noise_variance
        As for :func:`random_feature_risk`; ``n_features=None`` is kernel regression.

    Returns
    -------
    FiniteSizeTerm
        To be added to the predicted risks; infinite where the predicted test risk is, and at ridge
        0 wherever n is the number of positive eigenvalues and k is not less.

    Raises
    ------
    ValueError
        If an argument has the wrong shape, sign or type.

    Notes
    -----
    Derived here; in the isotropic ridgeless case it is the first term of the expansion of the exact
    :math:`\sigma^2(n-1)/(n-d-1)`.
    """
    n = as_count(n_samples, "n_samples")
    k = math.inf if n_features is None else as_count(n_features, "n_features")
    delta = as_real(ridge, "ridge", minimum=0.0)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    spectrum, power = _modes(eigenvalues, coefficients)
    positive = spectrum[spectrum > 0]
    gamma = solve_gamma(positive, smallest_and_total(positive), float(n), float(k), delta, 0.0)
    a, b = free_counts(gamma, float(n), float(k), delta, float(positive.size))
    p = np.divide(spectrum, spectrum + gamma, out=np.zeros_like(spectrum), where=spectrum > 0)
    edge = p * np.divide(
        gamma, spectrum + gamma, out=np.ones_like(spectrum), where=spectrum + gamma > 0
    )
    slopes = np.stack([1 - 2 * p, 1 - 6 * edge])
    phi = np.array([0.0, 0.0, edge.sum(), *(slopes @ edge)])
    psi = np.array([power @ (1 - p) + noise, -(power @ edge), *(-slopes @ (power * edge))])
    # Axis 0 is log of the feature field (absent where the features span all modes), the last axis
    # that of the sample field.
    diagonals = [a] if math.isinf(b) or gamma == 0.0 else [b, a]

    def of_f(order: int) -> FloatArray:
        tensor = np.full((len(diagonals),) * order, phi[order])
        for i, value in enumerate(diagonals):
            tensor[(i,) * order] += value
        return tensor

    def of_h(order: int) -> FloatArray:
        tensor = np.empty((len(diagonals),) * order)
        for index in np.ndindex(tensor.shape):
            j = sum(i == len(diagonals) - 1 for i in index)
            tensor[index] = sum(math.comb(j, m) * psi[order - j + m] for m in range(j + 1))
        return tensor

    def of_e(order: int, value: float) -> FloatArray:
        tensor = np.zeros((len(diagonals),) * order)
        tensor[(-1,) * order] = value
        return tensor

    hessian, f3, f4 = of_f(2), of_f(3), of_f(4)
    h1, h2, h3 = of_h(1), of_h(2), of_h(3)
    if not np.linalg.det(hessian) > 0:
        return FiniteSizeTerm(math.inf, math.inf)
    inverse = np.linalg.inv(hessian)
    u = -inverse @ h1

    def mixed(e1: FloatArray, e2: FloatArray, e3: FloatArray) -> float:
        w = -inverse @ e1
        m = -inverse @ (h2 @ w + e2 @ u + f3 @ w @ u)
        by_h = inverse @ (h2 + f3 @ u)
        by_e = inverse @ (e2 + f3 @ w)
        both = inverse @ (h3 @ w + e3 @ u + f4 @ u @ w + f3 @ m)
        return 0.5 * float(np.trace(both) - np.trace(by_h @ by_e))

    test = mixed(of_e(1, -n), of_e(2, n), of_e(3, -n)) + float(u[-1])
    share = -a * a / n
    return FiniteSizeTerm(test, mixed(of_e(1, share), of_e(2, share), of_e(3, share)))


def optimal_ridge(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    n_features: int | None = None,
    noise_variance: float = 0.0,
    tol: float = 1e-6,
) -> OptimalRidge:
    r"""Minimise the predicted test risk over the ridge, globally and with a lower bound.

    The risk is :math:`n\,(B+\sigma^2)/(n-D)` with B increasing and D decreasing in :math:`\gamma`.
    Indeed :math:`B=\bar\Gamma-\kappa\bar\Gamma'` and :math:`D=(\kappa z)'=k-k(\kappa^2/\gamma)'`
    with derivatives in :math:`\kappa`, and :math:`\gamma` is a concave function of :math:`\kappa`:
    hence :math:`\bar\Gamma=\sum_iv_i^2\Gamma_i` is concave and :math:`\kappa^2/\gamma` convex. On
    an interval of :math:`\gamma` the value of B at its left end and that of D at its right end
    bound the risk from below. So does, in an interval of width w in :math:`\log\gamma`, the smaller
    risk of the two ends times :math:`e^{-Kw^2/8}`, K bounding the second derivative of the log
    risk. Intervals that could hold a better risk are halved until none is left.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, n_features, noise_variance
        As for :func:`random_feature_risk`; ``n_features=None`` is kernel regression.
    tol
        Relative gap to the lower bound, at least 1e-12.

    Returns
    -------
    OptimalRidge

    Raises
    ------
    ValueError
        If an argument has the wrong shape, sign or type.
    """
    n = float(as_count(n_samples, "n_samples"))
    k = math.inf if n_features is None else float(as_count(n_features, "n_features"))
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    relative = as_real(tol, "tol", minimum=1e-12, below=1.0)
    spectrum, power = _modes(eigenvalues, coefficients)
    positive = spectrum > 0
    rest = noise + float(power[~positive].sum())
    values, weights = spectrum[positive], power[positive]
    if not weights.any():
        risk = rest
        return OptimalRidge(
            math.inf, risk, risk, math.inf, risk, OptimalRidgeStatus.NOTHING_LEARNABLE
        )
    start = solve_gamma(values, smallest_and_total(values), n, k, 0.0, 0.0)
    at_zero = _one_size(eigenvalues, coefficients, int(n), n_features, 0.0, noise)
    if at_zero.test_risk == 0.0:
        return OptimalRidge(0.0, 0.0, 0.0, start, 0.0, OptimalRidgeStatus.INTERPOLATION)
    # At the last point the risk, and beyond it B alone, are within tol / 2 of the zero prediction's
    # risk.
    zero = float(weights.sum()) + rest
    stop = float(values.sum()) / min(n, k)
    while True:
        at_stop, free_at_stop, _ = _curve(values, weights, rest, n, k, stop)
        if (
            at_stop >= (1 - relative / 2) * zero
            and n * at_stop <= (1 + relative / 2) * zero * free_at_stop
        ):
            break
        stop *= 4.0
    gammas = np.geomspace(
        start if start > 0 else float(values.min()) * (relative / 2) ** 2, stop, 65
    )
    # Rows: gamma, B + sigma^2, n - D, the spread, the risk.
    points = _curves(values, weights, rest, n, k, gammas)
    if start == 0.0:
        # B is at least the rest. Where that is 0, n and k are both the number of modes (else the
        # risk at 0 would vanish), and up to the first point the risk falls below its limit by less
        # than the factor (1 - (tol / 2)^2)^2.
        least = (
            rest
            if rest > 0
            else (1 - (relative / 2) ** 2) ** 2 * at_zero.test_risk * points[2, 0] / n
        )
        points = np.column_stack([[0.0, least, n - values.size, 0.0, 0.0], points])
    points[4, 0] = at_zero.test_risk
    bound = float(points[1, -1])
    gamma, _, _, _, risk = points[:, np.argmin(points[4])]
    left, right = points[:, :-1], points[:, 1:]
    while True:
        floors = _floors(left, right, n)
        keep = floors < (1 - relative) * risk
        middle = np.where(left[0] > 0, np.sqrt(left[0]) * np.sqrt(right[0]), right[0] * relative)
        keep &= (middle > left[0]) & (middle < right[0])
        bound = float(floors[~keep].min(initial=bound))
        if not keep.any():
            break
        points = _curves(values, weights, rest, n, k, middle[keep])
        best = int(np.argmin(points[4]))
        if points[4, best] < risk:
            gamma, risk = points[0, best], points[4, best]
        left, right = np.hstack([left[:, keep], points]), np.hstack([points, right[:, keep]])
    if gamma == start:
        ridge, train = 0.0, at_zero.train_risk
    else:
        above, offset, *_ = _moments(values, weights, gamma)
        a, b = max(n - above - offset, 0.0), max(k - above - offset, 0.0)
        ridge = gamma * a * (1.0 if math.isinf(k) else b / k)
        train = (a / n) ** 2 * risk
    status = OptimalRidgeStatus.INTERPOLATION if ridge == 0.0 else OptimalRidgeStatus.INTERIOR
    return OptimalRidge(
        float(ridge), float(risk), float(train), float(gamma), min(bound, float(risk)), status
    )


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
        needs at least :math:`\min(n,k)` positive eigenvalues.
    n_draws
        Number of training runs.
    rng
        Source of randomness.
    sample_modes, feature_modes
        Laws of :math:`\phi(x)` and :math:`\zeta(w)`: functions of ``rng`` and a shape (draws,
        points, modes); independent standard Gaussians by default.

    Returns
    -------
    SimulatedRisk

    Raises
    ------
    ValueError
        If an argument has the wrong shape, sign or type.
    """
    spectrum, _ = _modes(eigenvalues, coefficients)
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
    r"""Return the spectrum of the features :math:`g(w,x)=h(x-w)` with x and w uniform on N
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
        :math:`|\hat h_m|^2` and :math:`|\hat f_m|`, Fourier coefficients with the factor 1/N; a
        cosine and its sine share both.

    Raises
    ------
    ValueError
        If the shapes differ.
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

    Raises
    ------
    ValueError
        If an argument has the wrong shape, sign or type.
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


def interpolation_threshold(spectral_exponent: float, target_exponent: float) -> float:
    r"""Return the relative noise :math:`(\beta-\alpha)/(\alpha(\alpha-1))` up to which
    interpolation is optimal.

    Parameters
    ----------
    spectral_exponent
        :math:`\alpha>1`, :math:`\lambda_i\propto i^{-\alpha}`.
    target_exponent
        :math:`\beta>1`, :math:`v_i^2\propto i^{-\beta}`. The theorem needs :math:`\beta<2\alpha+1`:
        beyond, the bias decays as it does for :math:`\beta=2\alpha+1`.

    Returns
    -------
    float
        A bound on :math:`\sigma^2` in units of the noiseless ridgeless test risk; negative where no
        noise is low enough.

    Raises
    ------
    ValueError
        If an exponent is outside its range.

    Notes
    -----
    simon2024-more, the theorem on the optimal fitting ratio (the paper's text was not consulted;
    derived again in the tests)."""
    alpha, beta = _exponents(spectral_exponent, target_exponent)
    return (beta - alpha) / (alpha * (alpha - 1))


@refuses_overflow("spectral_exponent", "target_exponent")
def optimal_fitting_ratio(
    spectral_exponent: float, target_exponent: float, *, relative_noise: float
) -> float:
    r"""Return the limit of :math:`\mathcal E_{tr}/\mathcal E_{te}` at the optimal ridge of kernel
    regression.

    The root r in [0, 1) of
    :math:`\alpha-\beta-(\alpha-1)\beta\sqrt r+\alpha(\alpha-1)\sigma_{rel}^2(1-\sqrt r)^\beta=0` if
    the left side is positive at 0, else 0.

    Parameters
    ----------
    spectral_exponent, target_exponent
        As for :func:`interpolation_threshold`.
    relative_noise
        :math:`\sigma_{rel}^2\ge0`: the noise variance in units of the noiseless ridgeless test
        risk.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If an argument is outside its range.

    Notes
    -----
    simon2024-more, the theorem on the optimal fitting ratio (the paper's text was not consulted;
    derived again in the tests)."""
    alpha, beta = _exponents(spectral_exponent, target_exponent)
    noise = as_real(relative_noise, "relative_noise", minimum=0.0)

    def slope(root: float) -> float:
        value: float = (
            alpha
            - beta
            - (alpha - 1) * beta * root
            + alpha * (alpha - 1) * noise * (1 - root) ** beta
        )
        return value

    if not math.isfinite(slope(0.5)):
        raise OverflowError
    if slope(0.0) <= 0.0:
        return 0.0
    return float(brentq(slope, 0.0, 1.0, xtol=1e-15, rtol=1e-14)) ** 2


@refuses_overflow("target_exponent", "relative_noise")
def power_law_fitting_ratio(
    spectral_exponent: float, target_exponent: float, *, relative_noise: float, n_samples: int
) -> float:
    r"""Return :math:`\mathcal E_{tr}/\mathcal E_{te}` at the optimal ridge for n samples and
    infinitely many power-law modes.

    Parameters
    ----------
    spectral_exponent, target_exponent
        :math:`\alpha>1` and :math:`\beta>1`, with :math:`\alpha\le50` and
        :math:`n^\alpha\le10^{100}`.
    relative_noise
        :math:`\sigma_{rel}^2\ge0`: the noise variance in units of the noiseless ridgeless test risk
        at this n.
    n_samples
        n, at least 2.

    Returns
    -------
    float
        From the stationary points of the predicted test risk in :math:`\gamma`; sums over modes are
        exact to rounding (explicit terms, then Hurwitz zeta tails).

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    alpha, beta = _exponents(spectral_exponent, target_exponent)
    relative = as_real(relative_noise, "relative_noise", minimum=0.0)
    n = as_count(n_samples, "n_samples", minimum=2)
    edge = _power_law_gamma(alpha, n)
    bias, _, free, _, _ = _power_law_terms(edge, alpha, beta, n)
    noise = relative * n * bias / free

    def slope(t: float) -> float:
        bias, bias_slope, free, free_slope, _ = _power_law_terms(math.exp(t), alpha, beta, n)
        return bias_slope / (bias + noise) - free_slope / free

    def log_risk(t: float) -> float:
        bias, _, free, _, _ = _power_law_terms(math.exp(t), alpha, beta, n)
        return math.log((bias + noise) / free)

    # Beyond the last point the slope is positive: for gamma >= 2 the bias has slope at least 1 / (4
    # gamma), and n - q >= n / 2 has slope at most 2 zeta(2 alpha) / gamma^2.
    last = math.log(max(2.0, edge, 16 * float(zeta(2 * alpha)) * (float(zeta(beta)) + noise) / n))
    # The risk is smooth in log gamma on the scale 1: its local minima lie between grid points where
    # the slope turns positive.
    grid = np.append(np.arange(math.log(edge), last, 0.1), last)
    slopes = [slope(t) for t in grid]
    minima = [grid[0]] if slopes[0] >= 0 else []
    minima += [
        float(brentq(slope, lo, hi, xtol=1e-13))
        for lo, hi, s, r in zip(grid[:-1], grid[1:], slopes[:-1], slopes[1:], strict=True)
        if s < 0 <= r
    ]
    if not minima:
        raise ArithmeticError  # slopes that are not numbers
    best = min(minima, key=log_risk)
    if best == grid[0]:
        return 0.0
    z = _power_law_terms(math.exp(best), alpha, beta, n)[-1]
    return (1 - z / n) ** 2


@refuses_overflow("target_exponent")
def power_law_threshold(
    spectral_exponent: float, target_exponent: float, *, n_samples: int
) -> float:
    r"""Return the relative noise above which ridge 0 stops being a local minimum, for n samples and
    power-law modes.

    Parameters
    ----------
    spectral_exponent, target_exponent, n_samples
        As for :func:`power_law_fitting_ratio`.

    Returns
    -------
    float
        In units of the noiseless ridgeless test risk at this n; :func:`interpolation_threshold` is
        its limit.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    alpha, beta = _exponents(spectral_exponent, target_exponent)
    n = as_count(n_samples, "n_samples", minimum=2)
    bias, bias_slope, free, free_slope, _ = _power_law_terms(
        _power_law_gamma(alpha, n), alpha, beta, n
    )
    # The slope of log((bias + noise) / free) in log gamma vanishes at this noise, in units of n
    # bias / free.
    return (bias_slope * free / free_slope - bias) * free / (n * bias)


def _modes(eigenvalues: ArrayLike, coefficients: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the eigenvalues and the squared coefficients."""
    spectrum = as_array(eigenvalues, "eigenvalues", ndim=1, nonnegative=True)
    target = as_array(coefficients, "coefficients", shape=spectrum.shape)
    with np.errstate(over="ignore", under="ignore"):
        power = target**2
    if not np.isfinite(power).all() or (target.any() and not power.any()):
        raise ValueError(
            "coefficients: expected numbers whose squares are within float64, got a largest one of "
            f"{np.abs(target).max()}"
        )
    return spectrum, power


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


def _exponents(spectral_exponent: float, target_exponent: float) -> tuple[float, float]:
    alpha = as_real(spectral_exponent, "spectral_exponent", above=1.0)
    return alpha, as_real(target_exponent, "target_exponent", above=1.0)


def _one_size(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    n: int,
    k: int | None,
    ridge: float,
    noise_variance: float,
) -> RidgeRisk:
    curve = learning_curve(
        eigenvalues,
        coefficients,
        n_samples=n,
        ridge=ridge,
        n_features=k,
        noise_variance=noise_variance,
    )
    return RidgeRisk(
        float(curve.test_risk), float(curve.train_risk), float(curve.kappa), float(curve.gamma)
    )


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


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _moments(
    eigenvalues: FloatArray, power: FloatArray, gamma: float
) -> tuple[int, float, float, float, float]:
    """Return, for positive gamma, how many eigenvalues are at least gamma and z less this number,
    which keeps n - z accurate.

    Then the spread, and the target's power on unlearned modes and at the edge.
    """
    above, offset, c, unlearned, at_edge = 0, 0.0, 0.0, 0.0, 0.0
    for i in range(eigenvalues.size):
        inverse = 1.0 / (eigenvalues[i] + gamma)
        p = eigenvalues[i] * inverse
        r = gamma * inverse
        if eigenvalues[i] >= gamma:
            above += 1
            offset -= r
        else:
            offset += p
        c += p * r
        unlearned += r * r * power[i]
        at_edge += p * r * power[i]
    return above, offset, c, unlearned, at_edge


@compiled
def _bias_and_free(
    a: float, b: float, c: float, unlearned: float, at_edge: float, rest: float
) -> tuple[float, float]:
    """Return B + sigma^2 and n - D."""
    if math.isinf(b):
        return unlearned + rest, a + c
    if b + c == 0.0:
        return unlearned + rest, a
    return unlearned + rest + c / (b + c) * at_edge, a + b * c / (b + c)


@compiled
def _risks(
    eigenvalues: FloatArray,
    power: FloatArray,
    rest: float,
    n: FloatArray,
    k: FloatArray,
    ridge: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    test, train = np.zeros(n.size), np.zeros(n.size)
    kappas, gammas = np.zeros(n.size), np.zeros(n.size)
    ends = smallest_and_total(eigenvalues)
    for j in range(n.size):
        gamma = solve_gamma(eigenvalues, ends, n[j], k[j], ridge[j], extrapolate(gammas, j))
        a, b = free_counts(gamma, n[j], k[j], ridge[j], float(eigenvalues.size))
        c, unlearned, at_edge = 0.0, 0.0, 0.0
        if gamma > 0.0:
            _, _, c, unlearned, at_edge = _moments(eigenvalues, power, gamma)
        bias, free = _bias_and_free(a, b, c, unlearned, at_edge, rest)
        if free > 0.0:
            test[j] = n[j] * bias / free
        elif bias > 0.0:
            test[j] = math.inf
        elif b == 0.0:
            # As many samples as features and modes, all of the target learnable: the limit of
            # vanishing ridge.
            test[j] = n[j] / 3.0 * (power / eigenvalues).sum() / (1.0 / eigenvalues).sum()
        # At a = 0 the labels are interpolated, also where the test risk is infinite.
        train[j] = (a / n[j]) ** 2 * test[j] if a > 0.0 else 0.0
        kappas[j] = gamma if math.isinf(b) else gamma * b / k[j]
        gammas[j] = gamma
    return test, train, kappas, gammas


def _floors(left: FloatArray, right: FloatArray, n: float) -> FloatArray:
    r"""Return a lower bound of the risk on each interval between the points ``left`` and ``right``,
    the rows of ``_curves``.

    With dots for derivatives in :math:`\log\gamma`: :math:`\ddot B\le\frac{15}2B`, :math:`0\le\dot
    F\le2c`, :math:`|\ddot F|\le\frac{15}2c` for :math:`F=n-D`, and :math:`|\dot c|\le c`. Hence
    :math:`\log(B+\sigma^2)-\log F` has second derivative at most :math:`\frac{15}2(1+y)+4y^2`, y
    being the largest :math:`c/F`, and stays above its chord less an eighth of this times the
    squared width."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        width = np.log(right[0] / left[0])
        steepness = left[3] * np.exp(width) / left[2]
        curvature = 7.5 * (1 + steepness) + 4 * steepness**2
        below_chord = np.minimum(left[4], right[4]) * np.exp(-curvature * width**2 / 8)
        floors = np.where(right[2] > 0, n * left[1] / right[2], np.inf)
    # The second bound is NaN, which fmax leaves out, from gamma = 0 on and between two infinite
    # risks.
    return np.asarray(np.fmax(floors, below_chord), dtype=np.float64)


@compiled
def _curve(
    eigenvalues: FloatArray, power: FloatArray, rest: float, n: float, k: float, gamma: float
) -> tuple[float, float, float]:
    above, offset, c, unlearned, at_edge = _moments(eigenvalues, power, gamma)
    a, b = max(n - above - offset, 0.0), max(k - above - offset, 0.0)
    return *_bias_and_free(a, b, c, unlearned, at_edge, rest), c


@compiled
def _curves(
    eigenvalues: FloatArray, power: FloatArray, rest: float, n: float, k: float, gammas: FloatArray
) -> FloatArray:
    """Return gamma, B + sigma^2, n - D, the spread and the risk in the rows, for positive
    gammas."""
    points = np.empty((5, gammas.size))
    for j in range(gammas.size):
        bias, free, c = _curve(eigenvalues, power, rest, n, k, gammas[j])
        risk = n * bias / free if free > 0.0 else math.inf if bias > 0.0 else 0.0
        points[:, j] = gammas[j], bias, free, c, risk
    return points


def _power_sum(gamma: float, alpha: float, exponent: float, learned: int, unlearned: int) -> float:
    r"""Return :math:`\sum_{i\ge1}i^{-\beta}p_i^a(1-p_i)^b` with
    :math:`p_i=i^{-\alpha}/(i^{-\alpha}+\gamma)`.

    The integers a and b are ``learned`` and ``unlearned``.
    """
    # Beyond N the ratio lambda / gamma is at most 10^(-18 / terms), so that this many terms of the
    # binomial series reach rounding: nine, fewer where their powers of gamma would overflow.
    terms = 9 if gamma > 1e-30 else max(1, int(300 / -math.log10(gamma)) - 1)
    count = math.ceil((10.0 ** (18 / terms) / gamma) ** (1 / alpha))
    i = np.arange(1, count + 1, dtype=np.float64)
    ratio = i**-alpha / gamma
    head = float((i**-exponent * ratio**learned * (1 + ratio) ** -(learned + unlearned)).sum())
    j = np.arange(terms)
    tails = gamma ** -(learned + j) * zeta(exponent + alpha * (learned + j), count + 1.0)
    return head + float(((-1.0) ** j * binom(learned + unlearned + j - 1, j) * tails).sum())


def _power_law_gamma(alpha: float, n: int) -> float:
    """Return gamma with n learned modes."""
    if alpha > 50 or alpha * math.log10(n) > 100:
        raise ValueError(
            "spectral_exponent: expected at most 50, and at most 100 / "
            f"log10(n_samples), got {alpha}"
        )

    def excess(t: float) -> float:
        return math.log(_power_sum(math.exp(t), alpha, 0.0, 1, 0) / n)

    # z is below pi/alpha/sin(pi/alpha) gamma^(-1/alpha) and above that minus 1.
    centre = -alpha * math.log(n * alpha / math.pi * math.sin(math.pi / alpha))
    return math.exp(float(brentq(excess, centre - alpha, centre, xtol=1e-14, rtol=1e-14)))


def _power_law_terms(
    gamma: float, alpha: float, beta: float, n: int
) -> tuple[float, float, float, float, float]:
    """Return the bias, n - q, their slopes in log gamma, and z."""
    bias = _power_sum(gamma, alpha, beta, 0, 2)
    bias_slope = 2 * _power_sum(gamma, alpha, beta, 1, 2)
    q = _power_sum(gamma, alpha, 0.0, 2, 0)
    free_slope = 2 * _power_sum(gamma, alpha, 0.0, 2, 1)
    return bias, bias_slope, n - q, free_slope, _power_sum(gamma, alpha, 0.0, 1, 0)
