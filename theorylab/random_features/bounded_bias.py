r"""The linear estimator of least variance under a bound on its bias, by a search that knows no
closed form.

$$\min\{\|L\|_F^2:\ \|LX-I\|\le C\}\quad\text{over all }L\in\mathbb R^{p\times n},$$

for a Schatten norm. For every p by p matrix Z, with the dual norm,

$$2\operatorname{tr}Z-\|ZX^\top\|_F^2-2C\|Z\|_*$$

is a lower bound, and at its maximum $L=ZX^\top$ is the solution. Accelerated proximal
gradient steps on Z give the bounds; mixing with the pseudo-inverse, whose bias is 0, gives
estimators that satisfy the constraint. The closed forms are in
:mod:`theorylab.random_features.linear_estimators`.

Source: segert2023-flat."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_count, as_real, one_of, refuses_overflow
from theorylab.numerics.bounds import power_of_two, relative_gap
from theorylab.numerics.budgets import steps_in_a_minute
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.random_features.linear_estimators import NORMS, ORDER, as_design

__all__ = ["MinimumVariance", "MinimumVarianceStatus", "minimum_variance"]

_DUAL = {"frobenius": "frobenius", "nuclear": "spectral", "spectral": "nuclear"}


class MinimumVarianceStatus(StrEnum):
    """Why the search ended."""

    SOLVED = "the relative gap of variance and bound is at most tol"
    NOT_CONVERGED = "stopped at max_iter with a larger gap; raise max_iter or loosen tol"
    STOPPED = "stopped by the callback, with the estimator and the bound found by then"


@result
class MinimumVariance:
    """An estimator that satisfies the bound on its bias, and a bound on its variance.

    Attributes
    ----------
    estimator
        L, shape (p, n).
    variance
        Its squared Frobenius norm.
    lower_bound
        That no estimator within the bound on the bias passes.
    iterations, status
        How the search ended.
    """

    estimator: FloatArray
    variance: float
    lower_bound: float
    iterations: int
    status: MinimumVarianceStatus

    @property
    def gap(self) -> float:
        """Relative difference of variance and bound."""
        return relative_gap(self.variance, self.lower_bound, rounding=1e-12 * self.variance)


@refuses_overflow("X", "bias_bound")
def minimum_variance(
    X: ArrayLike,
    bias_bound: float,
    *,
    norm: str,
    tol: float = 1e-9,
    max_iter: int | None = None,
    callback: Callback | None = None,
) -> MinimumVariance:
    """Search all linear estimators for the one of least variance under a bound on the bias.

    Accelerated proximal gradient on the dual, over all matrices, knowing no closed form. Noise of
    another covariance is whitened first.

    Parameters
    ----------
    X
        (n, p) of full column rank.
    bias_bound
        C > 0 for the norm of LX - I.
    norm
        ``"frobenius"``, ``"nuclear"`` or ``"spectral"``.
    tol
        Relative gap aimed at.
    max_iter
        Number of gradient steps at most; by default 20,000, or what takes about a minute.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` after each 25 steps: the least
        variance found, and its relative gap; where it returns True, the search stops.

    Examples
    --------
    >>> from theorylab.random_features import minimum_variance
    >>> found = minimum_variance([[2.0, 0.0], [0.0, 1.0]], 0.5, norm="spectral")
    >>> round(found.variance, 6)
    0.3125
    """
    X = as_design(X)
    C = as_real(bias_bound, "bias_bound", above=0.0)
    dual = _DUAL[one_of(norm, "norm", NORMS)]
    tol = as_real(tol, "tol", above=0.0)
    if max_iter is None:
        # Measured: products of matrices, and the singular values that the other norms take.
        n, p = X.shape
        cost = 3e4 + (0.1 * p + 0.03 * n) * p**2
        cost += 0.0 if norm == "frobenius" else (0.55 * p + 60) * p**2
        max_iter = steps_in_a_minute(cost, most=20_000)
    limit = as_count(max_iter, "max_iter")
    unit = power_of_two(X)
    X = X / unit
    s = np.linalg.svd(X, compute_uv=False)
    gram, eye = X.T @ X, np.eye(X.shape[1])
    inverse = np.linalg.pinv(X).astype(np.float64, copy=False)
    step = 1 / s[0] ** 2
    momentum = (s[0] - s[-1]) / (s[0] + s[-1])
    Z = ahead = np.zeros_like(gram)
    L, best, lower = inverse, math.inf, -math.inf
    status, done, stops = MinimumVarianceStatus.NOT_CONVERGED, 0, watcher(callback)
    for done in range(1, limit + 1):
        new = _prox(ahead - step * (ahead @ gram - eye), C * step, dual)
        ahead, Z = new + momentum * (new - Z), new
        if done % 25 and done < limit:
            continue
        B = eye - Z @ gram
        values = np.linalg.svd(B, compute_uv=False)
        shrink = min(1.0, C / max(float(np.linalg.norm(values, ORDER[norm])), 1e-300))
        candidate = inverse + shrink * (Z @ X.T - inverse)
        variance = float(np.sum(candidate**2))
        if variance < best:
            best, L = variance, candidate
        zeta = np.linalg.svd(Z, compute_uv=False)
        value = 2 * np.trace(Z) - np.sum((Z @ X.T) ** 2)
        lower = max(lower, float(value - 2 * C * np.linalg.norm(zeta, ORDER[dual])))
        if stops(done, best / unit / unit, (best - lower) / best if best else 0.0):
            status = MinimumVarianceStatus.STOPPED
            break
        if best - lower <= tol * best:
            status = MinimumVarianceStatus.SOLVED
            break
    return MinimumVariance(
        np.asarray(L / unit, dtype=float), best / unit / unit, lower / unit / unit, done, status
    )


def _prox(Z: FloatArray, radius: float, norm: str) -> FloatArray:
    """Return the proximal point of ``radius`` times a Schatten norm."""
    if norm == "frobenius":
        size = float(np.linalg.norm(Z))
        return Z * max(0.0, 1 - radius / size) if size > 0 else Z
    U, s, Vt = np.linalg.svd(Z)
    if norm == "nuclear":
        kept = np.maximum(s - radius, 0.0)
    elif s.sum() <= radius:
        kept = np.zeros_like(s)
    else:
        # s less its projection on the simplex of this size: large values are cut to one level.
        j = np.arange(1, s.size + 1)
        levels = (np.cumsum(s) - radius) / j
        kept = np.minimum(s, levels[np.flatnonzero(s >= levels)[-1]])
    point: FloatArray = (U * kept) @ Vt
    return point
