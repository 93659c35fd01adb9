r"""Least-squares temporal differences with random features: deterministic limits of Bellman errors.

A reward process on finitely many states has transitions P, mean rewards $\bar r$, stationary
law $\pi$ and discount $\gamma$. Data are n transitions of weights $w_j$ from m
distinct states: columns $\sqrt{w_j}e_{s_j}$ of U and $\sqrt{w_j}(e_{s_j}-\gamma p_j)$
of A, where $p_j$ is the next state or, for exact rows, its law, and rewards
$\hat r_j=\sqrt{w_j}r_j$. N random features $f_i$ on the states, with second moment
$\Phi=\operatorname E ff^\top$, give values $v=F^\top\hat\theta$ with

$$\hat\theta=\Big[\frac1mFUA^\top F^\top+\lambda I\Big]^{-1}\frac1mFU\hat r,\qquad
\hat r-A^\top v=\lambda Q\hat r,\quad Q=\Big[\frac1mA^\top F^\top FU+\lambda I\Big]^{-1}.$$

Leaving one feature out gives, as N and m grow together, $Q\leftrightarrow\bar Q$,

$$\bar Q=[cA^\top\Phi U+\lambda I]^{-1},\quad c=\frac N{m(1+\delta)},\quad
\delta=\frac1m\operatorname{tr}(\Phi U\bar QA^\top),$$

values $\bar v=c\Phi U\bar Q\hat r$, and, for every matrix M and vector $\rho$,

$$\operatorname E\|\rho-Mv\|^2\leftrightarrow\|\rho-M\bar v\|^2
+\frac{c}{1+\delta}\,\frac{\frac1m\operatorname{tr}(ME\Phi E^\top M^\top)}{1-g}\,
\hat r^\top\bar Q^\top U^\top\Phi U\bar Q\hat r,\qquad E=I-c\Phi U\bar QA^\top,$$

with $g=\frac c{m(1+\delta)}\operatorname{tr}(A^\top\Phi A\bar Q^\top U^\top\Phi U\bar Q)$.
The last term is the variance of $Mv$; $M=A^\top,\rho=\hat r$ is the empirical Bellman
error, $M=D_\pi^{1/2}(I-\gamma P),\rho=D_\pi^{1/2}\bar r$ the true one. Where
$g\ge1$ the variance has no limit, and none is returned. These are deterministic equivalents:
relative errors of means are of order 1/m, with a constant that grows as g tends to 1.

Source: brellmann2024-double, Theorems 5.1 to 5.3 (recalled; derived here)."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import erf

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_instance,
    as_real,
    as_symmetric,
    one_of,
    precision_of,
    refuses_overflow,
)
from theorylab.numerics.results import result
from theorylab.random_features.reward_processes import Transitions

__all__ = [
    "BellmanLimits",
    "LimitStatus",
    "bellman_error_limits",
    "feature_kernel",
    "lstd_resolvent",
    "random_features",
    "simulate_values",
]

ACTIVATIONS = ("erf", "relu")


class LimitStatus(StrEnum):
    """Whether a deterministic limit exists."""

    FOUND = "the deterministic limits exist: 0 <= g < 1"
    REFUSED = (
        "no deterministic limit: the variance is unbounded (g >= 1); raise the ridge, or take the "
        "exact rows of the transition matrix"
    )


@result
class BellmanLimits:
    r"""Deterministic limits of the Bellman errors; NaN where refused.

    Attributes
    ----------
    status
        Whether they exist.
    delta, amplification
        $\delta$ and g.
    resolvent, values
        $\bar Q$, (n, n), and $\bar v$, (S,).
    empirical, true
        Limits of the two mean-squared Bellman errors, corrections included.
    empirical_correction, true_correction
        Limits of the variances.
    """

    status: LimitStatus
    delta: float
    amplification: float
    resolvent: FloatArray
    values: FloatArray
    empirical: float
    true: float
    empirical_correction: float
    true_correction: float


# ---------------------------------------------------------------------------------- features
@refuses_overflow("points")
def feature_kernel(points: ArrayLike, *, activation: str = "erf") -> FloatArray:
    r"""Return $\operatorname E_w\sigma(w^\top s)\sigma(w^\top s')$ for Gaussian w.

    Parameters
    ----------
    points
        (S, d) states.
    activation
        ``"erf"`` (arcsine kernel) or ``"relu"`` (arc-cosine kernel).

    Examples
    --------
    >>> from theorylab.random_features import feature_kernel
    >>> feature_kernel([[1.0, 0.0], [0.0, 1.0]], activation="relu").round(6).tolist()
    [[0.5, 0.159155], [0.159155, 0.5]]
    """
    x = as_array(points, "points", ndim=2)
    gram = x @ x.T
    square = np.diag(gram)
    if one_of(activation, "activation", ACTIVATIONS) == "erf":
        size = np.sqrt(1 + 2 * square)
        cosine = np.clip(2 * gram / np.outer(size, size), -1, 1)
        return np.asarray(2 / math.pi * np.arcsin(cosine), dtype=np.float64)
    size = np.sqrt(square)
    scale = np.outer(size, size)
    cosine = np.clip(gram / np.where(scale > 0, scale, 1.0), -1, 1)
    angular = np.sqrt(1 - cosine**2) + (math.pi - np.arccos(cosine)) * cosine
    kernel: FloatArray = scale * angular / (2 * math.pi)
    return kernel


def random_features(
    points: ArrayLike, n_features: int, *, activation: str = "erf", rng: np.random.Generator
) -> FloatArray:
    r"""Return $\sigma(w_i^\top s)$, (N, S), for independent Gaussian w.

    Parameters
    ----------
    points
        (S, d) states.
    n_features
        Their number N.
    activation
        ``"erf"`` or ``"relu"``.
    rng
        Draws the weights.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import random_features
    >>> random_features(np.eye(3), 5, rng=np.random.default_rng(0)).shape
    (5, 3)
    """
    x = as_array(points, "points", ndim=2)
    N = as_count(n_features, "n_features")
    name = one_of(activation, "activation", ACTIVATIONS)
    w = as_instance(rng, "rng", np.random.Generator).standard_normal((N, x.shape[1]))
    found: FloatArray = erf(w @ x.T) if name == "erf" else np.maximum(w @ x.T, 0.0)
    return found


@refuses_overflow("features", "ridge")
def lstd_resolvent(transitions: Transitions, features: ArrayLike, *, ridge: float) -> FloatArray:
    r"""Return $Q=[\frac1mA^\top F^\top FU+\lambda I]^{-1}$, (n, n).

    Parameters
    ----------
    transitions
        The data.
    features
        (N, S).
    ridge
        $\lambda>0$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import exact_transitions, lstd_resolvent
    >>> from theorylab.random_features import random_features, random_reward_process
    >>> process = random_reward_process(6, dimension=3, seed=0)
    >>> data = exact_transitions(process, range(6), discount=0.5)
    >>> F = random_features(process.points, 9, rng=np.random.default_rng(0))
    >>> lstd_resolvent(data, F, ridge=1e6).diagonal().round(8).tolist()[:2]
    [1e-06, 1e-06]
    """
    data = as_instance(transitions, "transitions", Transitions)
    F = as_array(features, "features", shape=(None, len(data.states)))
    gram = (F @ data.differences).T @ (F @ data.states) / data.visited
    system = gram + as_real(ridge, "ridge", above=0.0) * np.eye(len(gram))
    return as_array(np.linalg.inv(system), "features")


@refuses_overflow("draw_features", "ridge")
def simulate_values(
    transitions: Transitions,
    draw_features: Callable[[np.random.Generator], ArrayLike],
    *,
    ridge: float,
    n_draws: int,
    rng: np.random.Generator,
) -> FloatArray:
    r"""Return the values v of all states over independent draws of the features, (draws, S).

    The empirical residual is $\hat r-A^\top v$, the true one
    $D_\pi^{1/2}(\bar r-(I-\gamma P)v)$.

    Parameters
    ----------
    transitions
        The data.
    draw_features
        From a generator to (N, S) features on the states.
    ridge
        $\lambda>0$.
    n_draws, rng
        Number of draws and their generator.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import exact_transitions, random_features
    >>> from theorylab.random_features import random_reward_process, simulate_values
    >>> process = random_reward_process(6, dimension=3, seed=0)
    >>> data = exact_transitions(process, range(4), discount=0.5)
    >>> draw = lambda rng: random_features(process.points, 9, rng=rng)
    >>> rng = np.random.default_rng(0)
    >>> simulate_values(data, draw, ridge=0.1, n_draws=3, rng=rng).shape
    (3, 6)
    """
    data = as_instance(transitions, "transitions", Transitions)
    draw = as_function(draw_features, "draw_features")
    generator = as_instance(rng, "rng", np.random.Generator)
    lam = as_real(ridge, "ridge", above=0.0)
    values = np.empty((as_count(n_draws, "n_draws"), len(data.states)))
    for row in values:
        F = as_array(draw(generator), "draw_features", shape=(None, len(row)))
        hidden = F @ data.states
        system = (F @ data.differences).T @ hidden / data.visited + lam * np.eye(hidden.shape[1])
        row[:] = F.T @ (hidden @ np.linalg.solve(system, data.rewards)) / data.visited
    return values


# ---------------------------------------------------------------------------------- the limits
def bellman_error_limits(
    transitions: Transitions, kernel: ArrayLike, *, n_features: int, ridge: float
) -> BellmanLimits:
    r"""Return the deterministic limits of the empirical and the true mean-squared Bellman error.

    Parameters
    ----------
    transitions
        The data.
    kernel
        (S, S) second moment $\Phi$ of a feature on the states, positive semidefinite.
    n_features
        N; the limits are those of N and m growing in proportion.
    ridge
        $\lambda>0$.

    Returns
    -------
    BellmanLimits
        REFUSED, with NaN, where the variance has no limit; this happens for sampled next states and
        small ridges, where some eigenvalues of $A^\top\Phi U$ have negative real parts.

    Examples
    --------
    >>> from theorylab.random_features import bellman_error_limits, exact_transitions
    >>> from theorylab.random_features import feature_kernel, random_reward_process
    >>> process = random_reward_process(30, dimension=10, seed=0)
    >>> data = exact_transitions(process, range(20), discount=0.5)
    >>> kernel = feature_kernel(process.points)
    >>> limits = [bellman_error_limits(data, kernel, n_features=N, ridge=1e-4)
    ...           for N in (10, 20, 100)]
    >>> [round(limit.true, 1) for limit in limits]
    [1.0, 1.6, 0.2]
    """
    data = as_instance(transitions, "transitions", Transitions)
    S, n = data.states.shape
    phi = as_symmetric(kernel, "kernel", size=S)
    least = np.linalg.eigvalsh(phi)[0]
    if least < -8 * S**2 * precision_of(kernel) * np.abs(phi).max():
        raise ValueError(f"kernel: expected no negative eigenvalue, got {least}")
    N, lam = as_count(n_features, "n_features"), as_real(ridge, "ridge", above=0.0)
    U, A, m = data.states, data.differences, data.visited
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        K = A.T @ phi @ U
        if not np.isfinite(K).all():
            raise ValueError(f"kernel: expected products within float64, got {np.abs(phi).max()}")
        inflation = _inflation(np.linalg.eigvals(K).astype(np.complex128), N / m, m, lam)
        if inflation is None:
            return _refused(n, S, math.nan, math.inf)
        c = N / m / inflation
        try:
            resolvent = np.linalg.inv(c * K + lam * np.eye(n)).astype(np.float64)
        except np.linalg.LinAlgError:
            return _refused(n, S, inflation - 1, math.inf)
        inner = resolvent.T @ (U.T @ phi @ U) @ resolvent
        g = c / (m * inflation) * float(np.sum((A.T @ phi @ A) * inner))
        if not 0 <= g < 1:
            return _refused(n, S, inflation - 1, g)
        learned = c * phi @ U @ resolvent
        values = learned @ data.rewards
        missed = np.eye(S) - learned @ A.T
        spread = missed @ phi @ missed.T
        size = c / inflation * float(data.rewards @ inner @ data.rewards) / (m * (1 - g))
    errors, corrections = [], []
    for M, target in ((A.T, data.rewards), (data.true_map, data.true_rewards)):
        corrections.append(size * float(np.sum((M @ spread) * M)))
        errors.append(float(np.sum((target - M @ values) ** 2)) + corrections[-1])
    return BellmanLimits(
        LimitStatus.FOUND, inflation - 1, g, resolvent, values, *errors, *corrections
    )


def _refused(n: int, S: int, delta: float, g: float) -> BellmanLimits:
    nothing, no_values = np.full((n, n), np.nan), np.full(S, np.nan)
    return BellmanLimits(LimitStatus.REFUSED, delta, g, nothing, no_values, *[math.nan] * 4)


def _inflation(
    spectrum: NDArray[np.complex128], ratio: float, m: int, ridge: float
) -> float | None:
    r"""Return $1+\delta$, or None if the root that starts at an infinite ridge is lost.

    In $t=1+\delta$ and the eigenvalues $\mu$ of $A^\top\Phi U$ the equation is
    $t=1+\frac tm\sum\operatorname{Re}(N/m+\lambda t/\mu)^{-1}$. Where no real part of
    $\mu$ is negative each summand decreases in t, and the root is unique.
    """
    mu = spectrum[np.abs(spectrum) > 0]

    def excess(t: float, lam: float) -> float:
        # (right side - t) / t, which decreases where no real part is negative.
        return 1 / t - 1 + float(np.sum((mu / (ratio * mu + lam * t)).real)) / m

    size = float(np.abs(mu).sum()) / m
    if (mu.real >= -1e-12 * np.abs(mu)).all():
        upper = math.log(2 + size) - min(math.log(ridge), 0.0)
        if not excess(math.exp(min(upper, 700.0)), ridge) < 0:
            return None
        log = brentq(lambda u: excess(math.exp(u), ridge), 0.0, min(upper, 700.0), xtol=1e-15)
        return math.exp(float(log))
    t, lam = 1.0, max(ridge, 20 * (1 + ratio) * (1 + m) * size)
    while True:
        for _ in range(50):
            inverse = mu / (ratio * mu + lam * t)
            slope = -1 / t / t - lam * float(np.sum((inverse**2 / mu).real)) / m
            step = -excess(t, lam) / slope if slope < 0 else math.nan
            t += step
            if not 0 < t < math.inf:
                return None
            if not (abs(step) > 1e-14 * t):
                break
        if not abs(excess(t, lam)) < 1e-9:
            return None
        if lam == ridge:
            return t
        lam = max(ridge, 0.8 * lam)
