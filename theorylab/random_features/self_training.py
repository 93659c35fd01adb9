r"""Regression trained again and again on its own labels: the test error of every generation.

Generation m fits $\hat w_m=(X_m^\top X_m+\delta_mI)^{-1}X_m^\top y_m$ to
$y_m=X_m\hat w_{m-1}+\sigma_m\epsilon$, $\hat w_0=w^*$, on $T_m$ fresh rows
$X_m\sim N(0,\Sigma)$; at ridge 0 it is least squares, of minimal norm where rows are few. The
error is $\|\hat w_m-w^*\|_\Sigma^2$. In the eigenbasis of $\Sigma$, with the effective
ridge $\kappa$ of :mod:`~theorylab.random_features.fixed_points`,
$p_i=\lambda_i/(\lambda_i+\kappa)$ and $q=\sum_ip_i^2$, mean and second moment of the
coordinates follow

$$\mathrm E w_i \leftarrow p_i\,\mathrm E w_i,\qquad
\mathrm E w_i^2 \leftarrow p_i^2\,\mathrm E w_i^2 + \frac{p_i^2}{\lambda_i}\,
\frac{\sum_j\lambda_j(1-p_j)^2\,\mathrm E w_j^2+\sigma^2}{T-q}$$

from one generation to the next: the deterministic equivalents of one resolvent and of a product of
two, applied in turn, since designs are independent. It is asymptotically exact, with a relative
error O(1/T). Special cases are the formulas of dohmatob2024-model: least squares (variance grows
linearly), few rows (error $(1-\eta^n)\|w^*\|^2$), a final ridge. Gaussian least squares is
exact with $T-d-1$ in place of $T-d$."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.results import result
from theorylab.random_features._finite_size import finite_size_term
from theorylab.random_features.fixed_points import broadcast_sizes, effective_ridge

__all__ = [
    "FinalRidge",
    "SelfTrainingRisk",
    "exact_self_training_risk",
    "optimal_final_ridge",
    "self_training_finite_size_term",
    "self_training_risk",
    "simulate_self_training",
]


@result
class SelfTrainingRisk:
    """Predicted test errors, label noise excluded; arrays with one entry per generation.

    Attributes
    ----------
    test_risk
        Mean of the error; infinite where the number of samples meets the number of modes.
    signal, variance
        Its parts: what is left of the truth's own error without label noise, and what the noise of
        all generations so far adds.
    kappa
        Effective ridges.
    """

    test_risk: FloatArray
    signal: FloatArray
    variance: FloatArray
    kappa: FloatArray


@result
class FinalRidge:
    """Ridge of the last generation of least predicted error, and that error."""

    ridge: float
    test_risk: float


@refuses_overflow("eigenvalues", "coefficients", infinite=True)
def self_training_risk(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: ArrayLike,
    ridge: ArrayLike = 0.0,
    noise_variance: ArrayLike = 0.0,
) -> SelfTrainingRisk:
    r"""Return the predicted test error after each generation, from the spectrum alone.

    Parameters
    ----------
    eigenvalues
        Shape (d,), positive: of $\Sigma$.
    coefficients
        Shape (d,): $w^*$ in its eigenbasis.
    n_samples, ridge, noise_variance
        $T_m\ge1$, $\delta_m\ge0$ (added to $X_m^\top X_m$) and
        $\sigma_m^2\ge0$: numbers or arrays of one entry per generation.

    Returns
    -------
    SelfTrainingRisk

    Notes
    -----
    dohmatob2024-model, for a ridge in the last generation; for a ridge in each derived here (the
    paper's text was not consulted).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import self_training_risk
    >>> self_training_risk(np.ones(100), np.full(100, 0.1), n_samples=[50, 50, 50]).test_risk
    array([0.5  , 0.75 , 0.875])
    """
    lam, truth = _problem(eigenvalues, coefficients)
    n, delta, noise = _generations(n_samples, ridge, noise_variance)
    state = _State(truth, np.zeros_like(lam), np.zeros_like(lam))
    rows = []
    for size, held, sigma2 in zip(n, delta, noise, strict=True):
        state, kappa = _advance(lam, state, int(size), float(held), float(sigma2))
        rows.append((*_errors(lam, truth, state), kappa))
    signals, variances, kappas = np.array(rows).T
    return SelfTrainingRisk(signals + variances, signals, variances, kappas)


@refuses_overflow("eigenvalues", "coefficients", infinite=True)
def exact_self_training_risk(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: ArrayLike,
    noise_variance: ArrayLike = 0.0,
) -> FloatArray:
    r"""Return the exact mean error after each generation of least squares on Gaussian rows.

    With $T>d+1$ rows a generation adds $\sigma^2d/(T-d-1)$, whatever $\Sigma$.
    With $T<d-1$ rows and an isotropic $\Sigma=\lambda I$ it projects at random: of the
    mean and of the second moment $T/d$ stays, and $\sigma^2T/(d-T-1)$ is added.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, noise_variance
        As for :func:`self_training_risk`; isotropic if a generation has fewer rows than modes.

    Returns
    -------
    ndarray
        Shape (n_generations,); infinite from the first generation on that has d-1, d or d+1 rows
        and noise, or whose second moment is infinite.

    Examples
    --------
    >>> from theorylab.random_features import exact_self_training_risk
    >>> exact_self_training_risk([1.0, 0.1], [1.0, 1.0], n_samples=[7, 7], noise_variance=1.0)
    array([0.5, 1. ])
    """
    lam, truth = _problem(eigenvalues, coefficients)
    n, _, noise = _generations(n_samples, 0.0, noise_variance)
    d = lam.size
    if (n < d).any() and lam.min() < lam.max():
        raise ValueError(
            f"n_samples: expected at least {d} rows for eigenvalues that differ, got {n.min():g}"
        )
    power = float(lam @ truth**2)
    share, second, risks = 1.0, power, []
    for size, sigma2 in zip(n, noise, strict=True):
        kept = min(size / d, 1.0)
        room = abs(d - size) - 1
        # The trace of the inverse of a Wishart matrix has no mean for one degree of freedom less.
        added = min(size, d) * sigma2 / room if room > 0 else math.inf if sigma2 > 0 else 0.0
        share, second = kept * share, kept * second + added
        risks.append((second - share * power) + power * (1 - share))
    return np.array(risks)


@refuses_overflow("eigenvalues", "coefficients", infinite=True)
def self_training_finite_size_term(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: ArrayLike,
    final_ridge: float,
    noise_variance: ArrayLike = 0.0,
) -> float:
    r"""Return the 1/T correction to the error of a last ridge fit after least-squares generations.

    What least squares passes on is the truth and independent noise of covariance
    $s\Sigma^{-1}$, $s=\sum_m\sigma_m^2/(T_m-d-1)$ exactly. The last fit turns the noise
    into $s\,\mathrm E[d-2\,\mathrm{tr}\,\delta R+\delta^2\mathrm{tr}\,\Sigma R\Sigma^{-1}R]$,
    $R=(X^\top X+\delta)^{-1}$. The last term is a risk, corrected by
    :func:`~theorylab.random_features.finite_size_term`; the trace is corrected by
    $\frac\delta2\partial_\delta\log(T-q)=\frac{\delta\sum_ip_i^2(1-p_i)}{\kappa(T-q)^2}$.

    Parameters
    ----------
    eigenvalues, coefficients
        As for :func:`self_training_risk`.
    n_samples, noise_variance
        As there, one entry per generation; all but the last have more than d + 1 samples.
    final_ridge
        Positive $\delta$ of the last generation; the ridge of the others is 0.

    Returns
    -------
    float
        Mean error = predicted error + term, up to a relative $O(T^{-2})$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import self_training_finite_size_term
    >>> lam = np.arange(1, 31.0) ** -1
    >>> term = self_training_finite_size_term(
    ...     lam, np.ones(30), n_samples=[90, 60], final_ridge=3.0, noise_variance=0.1)
    >>> round(term, 5)
    0.00763
    """
    lam, truth = _problem(eigenvalues, coefficients)
    held = as_real(final_ridge, "final_ridge", above=0.0)
    n, _, noise = _generations(n_samples, 0.0, noise_variance)
    d, count = lam.size, int(n[-1])
    if n[:-1].min(initial=math.inf) <= d + 1:
        raise ValueError(
            f"n_samples: expected more than {d + 1} in all generations but the last, got "
            f"{n[:-1].min():g}"
        )
    last = float(noise[-1])
    own, unit_power = np.sqrt(lam) * truth, np.ones(d)
    clean = finite_size_term(lam, own, n_samples=count, ridge=held, noise_variance=last)
    passed = finite_size_term(lam, unit_power, n_samples=count, ridge=held).test_risk
    root = effective_ridge(lam, n_samples=count, ridge=held)
    kappa, free = float(root.kappa), float(root.free_samples + root.spread)
    kept = lam / (lam + kappa)
    trace = held / kappa * float((kept**2 * kappa / (lam + kappa)).sum()) / free**2
    inherited = float((noise[:-1] / (n[:-1] - d)).sum())
    exact = float((noise[:-1] / (n[:-1] - d - 1)).sum())
    unit = float((kept**2).sum()) * (1 + float(((kappa / (lam + kappa)) ** 2).sum()) / free)
    return clean.test_risk + exact * (passed - 2 * trace) + (exact - inherited) * unit


@refuses_overflow("eigenvalues", "coefficients", infinite=True)
def optimal_final_ridge(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: ArrayLike,
    noise_variance: ArrayLike = 0.0,
) -> FinalRidge:
    """Return the ridge of the last generation of least predicted error, after generations of least
    squares.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, noise_variance
        As for :func:`self_training_risk`.

    Returns
    -------
    FinalRidge
        The minimum over a grid of 2 ridges a decade, refined to a relative 1e-6 of the ridge; 0
        where no ridge is better. A local minimum, where the error has several.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import optimal_final_ridge
    >>> best = optimal_final_ridge(np.ones(40), np.full(40, 0.5), n_samples=100, noise_variance=0.5)
    >>> round(best.ridge, 3)
    2.0
    """
    lam, truth = _problem(eigenvalues, coefficients)
    n, _, noise = _generations(n_samples, 0.0, noise_variance)
    before = _State(truth, np.zeros_like(lam), np.zeros_like(lam))
    for size, sigma2 in zip(n[:-1], noise[:-1], strict=True):
        before, _ = _advance(lam, before, int(size), 0.0, float(sigma2))

    def risk_at(ridge: float) -> float:
        after, _ = _advance(lam, before, int(n[-1]), ridge, float(noise[-1]))
        return sum(_errors(lam, truth, after))

    def risk(log_ridge: float) -> float:
        return risk_at(math.exp(log_ridge))

    top = math.log(float(lam.sum()) + n[-1] * float(lam.max())) + math.log(1e6)
    grid = np.arange(top, top - math.log(1e18), -math.log(10) / 2)
    values = [risk(t) for t in grid]
    at = int(np.argmin(values))
    plain = risk_at(0.0)
    ends = (grid[min(at + 1, grid.size - 1)], grid[max(at - 1, 0)])
    found = minimize_scalar(risk, bounds=ends, method="bounded", options={"xatol": 1e-7})
    best, least = min((values[at], grid[at]), (float(found.fun), float(found.x)))
    if plain <= best:
        return FinalRidge(0.0, plain)
    return FinalRidge(math.exp(least), best)


@refuses_overflow("eigenvalues", "coefficients")
def simulate_self_training(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: ArrayLike,
    n_draws: int,
    rng: np.random.Generator,
    ridge: ArrayLike = 0.0,
    noise_variance: ArrayLike = 0.0,
    draw_design: Callable[[np.random.Generator, int], FloatArray] | None = None,
) -> FloatArray:
    r"""Return simulated errors of every generation, on average over the label noise.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, ridge, noise_variance
        As for :func:`self_training_risk`.
    n_draws
        Number of independent chains.
    rng
        Source of randomness.
    draw_design
        Function of (rng, rows) that returns rows of shape (rows, d) in the eigenbasis, with second
        moment $\mathrm{diag}(\lambda)$; Gaussian ones by default.

    Returns
    -------
    ndarray
        Shape (n_draws, n_generations).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import simulate_self_training
    >>> errors = simulate_self_training(np.ones(20), np.ones(20), n_samples=[10, 10], n_draws=50,
    ...                                 rng=np.random.default_rng(0))
    >>> errors.mean(axis=0).round(0)
    array([10., 15.])
    """
    lam, truth = _problem(eigenvalues, coefficients)
    n, delta, noise = _generations(n_samples, ridge, noise_variance)
    draws = as_count(n_draws, "n_draws")
    generator = as_instance(rng, "rng", np.random.Generator)
    if draw_design is not None:
        as_function(draw_design, "draw_design")
    d, root = lam.size, np.sqrt(lam)

    def rows(count: int) -> FloatArray:
        if draw_design is None:
            return generator.standard_normal((count, d)) * root
        return as_array(draw_design(generator, count), "draw_design", shape=(count, d))

    errors = np.empty((draws, n.size))
    for errors_of_draw in errors:
        average, covariance = truth.copy(), np.zeros((d, d))
        for m, (count, held, sigma2) in enumerate(zip(n, delta, noise, strict=True)):
            kept, gram = _fit(rows(int(count)), held)
            average = kept @ average
            covariance = kept @ covariance @ kept.T + sigma2 * gram
            errors_of_draw[m] = lam @ ((truth - average) ** 2 + np.diag(covariance))
    return errors


@dataclass(frozen=True, eq=False)
class _State:
    """Mean of the fitted coordinates, and variances that the designs and the label noise add."""

    average: FloatArray
    signal: FloatArray
    added: FloatArray


def _advance(
    lam: FloatArray, state: _State, size: int, ridge: float, sigma2: float
) -> tuple[_State, float]:
    """Return the moments after one more generation, and its effective ridge."""
    root = effective_ridge(lam, n_samples=size, ridge=ridge)
    kappa, free = float(root.kappa), float(root.free_samples + root.spread)
    kept, lost = lam / (lam + kappa), kappa / (lam + kappa)
    weights, shares = lam * lost**2, kept / (lam + kappa)
    unlearned = _total(weights, state.signal) + float(weights @ state.average**2)
    inherited = _total(weights, state.added) + sigma2
    signal = kept**2 * state.signal + _quotient(unlearned, free) * shares
    added = kept**2 * state.added + _quotient(inherited, free) * shares
    return _State(kept * state.average, signal, added), kappa


def _errors(lam: FloatArray, truth: FloatArray, state: _State) -> tuple[float, float]:
    """Return the error without label noise, and what that adds."""
    own = float(lam @ (truth - state.average) ** 2)
    return float(lam @ state.signal) + own, float(lam @ state.added)


def _total(weights: FloatArray, moments: FloatArray) -> float:
    """Return a weighted sum in which infinite moments of weight zero do not count."""
    return float((weights[weights > 0] * moments[weights > 0]).sum())


def _quotient(source: float, free: float) -> float:
    """Return what a source adds where this many samples are free; nothing adds nothing."""
    return 0.0 if source == 0 else source / free if free > 0 else math.inf


def _fit(X: FloatArray, ridge: float) -> tuple[FloatArray, FloatArray]:
    """Return the matrix that takes the labelling weights to the fitted ones, and the covariance of
    the latter at unit label noise."""
    n, d = X.shape
    if n < d:
        inner = np.linalg.inv(X @ X.T + ridge * np.eye(n)) @ X
        return X.T @ inner, inner.T @ inner
    second = X.T @ X
    inverse = np.linalg.inv(second + ridge * np.eye(d))
    kept = inverse @ second
    return kept, kept @ inverse


def _problem(eigenvalues: ArrayLike, coefficients: ArrayLike) -> tuple[FloatArray, FloatArray]:
    lam = as_array(eigenvalues, "eigenvalues", ndim=1, positive=True)
    truth = as_array(coefficients, "coefficients", shape=lam.shape)
    with np.errstate(over="ignore"):
        if not np.isfinite(truth @ truth):
            raise ValueError("coefficients: expected numbers whose squares are within float64")
    return lam, truth


def _generations(
    n_samples: ArrayLike, ridge: ArrayLike, noise_variance: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return sizes, ridges and noise of every generation, as arrays of one length."""
    n, _, delta = broadcast_sizes(n_samples, None, ridge)
    noise = as_array(noise_variance, "noise_variance", nonnegative=True)
    if noise.ndim > 1:
        raise ValueError(
            f"noise_variance: expected a number or one per generation, got shape {noise.shape}"
        )
    try:
        n, delta, noise = (v.copy() for v in np.broadcast_arrays(n, delta, noise))
    except ValueError:
        raise ValueError(
            f"noise_variance: expected {n.size} entries, one per generation, got {noise.size}"
        ) from None
    return np.atleast_1d(n), np.atleast_1d(delta), np.atleast_1d(noise)
