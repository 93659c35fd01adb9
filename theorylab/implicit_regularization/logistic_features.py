r"""Logistic regression with a ridge, feature by feature: how strong features starve weak ones.

With rows $z_i=y_i\phi_i$ of Z and

$$\min_\theta\sum_i\log(1+e^{-z_i^\top\theta})+\tfrac\lambda2\|\theta\|^2,
\qquad K=ZZ^\top/\lambda,$$

the dual variables $\alpha\in(0,1)^n$ are the one fixed point of
$\alpha_i=\sigma(-(K\alpha)_i)$, $\theta=Z^\top\alpha/\lambda$, and the margins are
$s=K\alpha$. Along the singular vectors of $Z=USV^\top$ the features respond by
$U^\top s$. With two examples, $U$ a rotation by an angle of sine $\delta$ and
$d_i=\alpha_i(1-\alpha_i)$,

$$\frac{d(U^\top s)_2}{ds_1^2}=\frac{s_2^2}{\lambda^2}(U^\top\alpha)_1\,
\frac{\delta\sqrt{1-\delta^2}\,(1/d_2-1/d_1)}{\det(\mathrm{diag}(1/d)+K)},$$

which is negative where $s_1>s_2$: a larger $s_1$ lowers the response of the other
feature. A penalty on the predictions in place of the weights decouples them: all margins are the
root of $\sigma(-m)=\lambda m$.

Paper: pezeshki2020-gradient (formulas derived here)."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real, as_symmetric
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "FixedPointStatus",
    "LogisticFixedPoint",
    "coupled_features",
    "decoupled_margin",
    "logistic_fixed_point",
    "starvation_slope",
]

LARGEST = 1e100


class FixedPointStatus(StrEnum):
    """How the iteration ended."""

    CONVERGED = "the fixed point holds to tol"
    NOT_CONVERGED = (
        "stopped before the fixed point held to tol: raise max_iter, or K is too large for float64"
    )
    STOPPED = "stopped by the callback, with the best iterate of those before"


@result
class LogisticFixedPoint:
    r"""The dual variables of a logistic regression with a ridge.

    Attributes
    ----------
    multipliers
        $\alpha$, shape (n,).
    margins
        $s$, shape (n,).
    primal, dual
        $\sum_i\log(1+e^{-s_i})+\frac12\beta^\top K\beta$ with $s=K\beta$, and
        $\sum_iH(\alpha_i)-\frac12\alpha^\top K\alpha$, H the entropy in nats.
    residual
        $\max_i|\beta_i-\alpha_i|$.
    status
        How the iteration ended.
    """

    multipliers: FloatArray
    margins: FloatArray
    primal: float
    dual: float
    residual: float
    status: FixedPointStatus

    @property
    def gap(self) -> float:
        """Difference of the two values, relative."""
        return relative_gap(self.primal, self.dual)


def logistic_fixed_point(
    K: ArrayLike, *, tol: float = 1e-12, max_iter: int = 200, callback: Callback | None = None
) -> LogisticFixedPoint:
    r"""Solve $\alpha_i=\sigma(-(K\alpha)_i)$ by Newton's method on the primal problem in the
    coordinates $\theta=Z^\top\beta/\lambda$, with a line search.

    Parameters
    ----------
    K
        (n, n), symmetric positive semi-definite: $y_iy_j\phi_i^\top\phi_j/\lambda$.
    tol
        Largest residual, beyond the rounding of a product with K.
    max_iter
        Newton steps, at most.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each iterate: the primal
        objective, and the residual; where it returns True, the iteration stops.

    Examples
    --------
    >>> from theorylab.implicit_regularization import logistic_fixed_point
    >>> fit = logistic_fixed_point([[4.0, 0.0], [0.0, 0.0]])
    >>> fit.multipliers.round(6), fit.gap < 1e-12
    (array([0.260649, 0.5     ]), True)
    """
    G = as_symmetric(K, "K")
    accuracy = as_real(tol, "tol", minimum=1e-14, maximum=0.1)
    steps = as_count(max_iter, "max_iter")
    if np.abs(G).max() > LARGEST:
        raise ValueError(f"K: expected entries up to {LARGEST}, got {np.abs(G).max()}")
    lowest = float(np.linalg.eigvalsh(G)[0])
    if lowest < -1e-9 * np.abs(G).max():
        raise ValueError(f"K: expected no negative eigenvalue, got {lowest}")
    n = len(G)
    rounding = 16 * n * float(np.finfo(float).eps) * min(float(np.abs(G).max()), 1e8)
    beta, s = np.zeros(n), np.zeros(n)
    value = n * math.log(2)
    best: LogisticFixedPoint | None = None
    stops = watcher(callback)
    for step_ in range(steps):
        a = _logistic(-s)
        residual = float(np.abs(beta - a).max())
        last = math.inf if best is None else best.residual
        if best is None or residual < last:
            dual = float(np.sum(_entropy(a))) - float(a @ (G @ a)) / 2
            good = residual <= accuracy + rounding
            status = FixedPointStatus.CONVERGED if good else FixedPointStatus.NOT_CONVERGED
            best = LogisticFixedPoint(a, s, value, min(dual, value), residual, status)
        if stops(step_, value, residual):
            best = replace(best, status=FixedPointStatus.STOPPED)
            break
        done = residual <= accuracy or residual > last / 2
        if done and best.status is FixedPointStatus.CONVERGED:
            return best
        slope = a * _logistic(s)
        step = np.linalg.solve(np.eye(n) + slope[:, None] * G, a + slope * s) - beta
        along = G @ step
        descent = float(along @ (beta - a))
        t = 1.0
        while _objective(beta + t * step, s + t * along) > value * (1 + 1e-15) + 1e-4 * t * descent:
            t /= 2
            if t < 1e-12:
                break
        beta, s = beta + t * step, s + t * along
        value = _objective(beta, s)
    assert best is not None
    if best.status is not FixedPointStatus.CONVERGED:
        warnings.warn(best.status.value, RuntimeWarning, stacklevel=2)
    return best


def coupled_features(strengths: ArrayLike, *, coupling: float, ridge: float) -> FloatArray:
    r"""Return K of two examples whose features, of strengths $s_1,s_2$, are rotated by an
    angle of sine $\delta$ against the examples.

    Parameters
    ----------
    strengths
        (2,), $s_1,s_2\ge0$.
    coupling
        $\delta$, from -1 to 1.
    ridge
        $\lambda>0$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import coupled_features
    >>> coupled_features([2.0, 1.0], coupling=0.0, ridge=0.5)
    array([[8., 0.],
           [0., 2.]])
    """
    U, squares, scale = _pair(strengths, coupling, ridge)
    K = (U * (squares / scale)) @ U.T
    return np.asarray(K + K.T) / 2


def starvation_slope(strengths: ArrayLike, *, coupling: float, ridge: float) -> float:
    r"""Return $d(U^\top s)_2/ds_1^2$, the response of the second feature to the square of the
    strength of the first.

    Parameters
    ----------
    strengths, coupling, ridge
        As for :func:`coupled_features`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import starvation_slope
    >>> [starvation_slope(s, coupling=0.4, ridge=1.0) < 0 for s in ([2.0, 1.0], [1.0, 2.0])]
    [True, False]
    """
    U, squares, scale = _pair(strengths, coupling, ridge)
    K = coupled_features(strengths, coupling=coupling, ridge=ridge)
    fit = logistic_fixed_point(K)
    d = fit.multipliers * _logistic(fit.margins)
    # The inverse of diag(1/d) + K, multiplied by d on both sides, stays within float64.
    inverse = np.linalg.solve(np.eye(2) + d[:, None] * K, np.diag(d))
    return float(
        -(squares[1] / scale) * (U[:, 0] @ fit.multipliers) * (U[:, 1] @ inverse @ U[:, 0]) / scale
    )


def decoupled_margin(ridge: float) -> float:
    r"""Return the m with $\sigma(-m)=\lambda m$.

    Parameters
    ----------
    ridge
        $\lambda>0$, the weight of half the squared predictions.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import decoupled_margin
    >>> m = decoupled_margin(0.1)
    >>> bool(np.isclose(1 / (1 + np.exp(m)), 0.1 * m))
    True
    """
    from scipy.optimize import brentq

    scale = as_real(ridge, "ridge", minimum=1e-200, maximum=1e200)
    # In x = lambda m, which is at most one half.
    root = brentq(
        lambda x: math.log(x) + float(np.logaddexp(0.0, x / scale)),
        *(min(1e-3 * scale, 0.25), 0.5),
        xtol=1e-300,
        rtol=1e-15,
    )
    return float(root / scale)


def _pair(
    strengths: ArrayLike, coupling: float, ridge: float
) -> tuple[FloatArray, FloatArray, float]:
    s = as_array(strengths, "strengths", shape=(2,), nonnegative=True)
    delta = as_real(coupling, "coupling", minimum=-1.0, maximum=1.0)
    scale = as_real(ridge, "ridge", above=0.0)
    if s.max() > 1e40 or not 1e-60 <= scale <= 1e60:
        raise ValueError("strengths, ridge: expected up to 1e40, and from 1e-60 to 1e60")
    c = math.sqrt(1 - delta**2)
    return np.array([[c, -delta], [delta, c]]), s**2, scale


def _logistic(x: FloatArray) -> FloatArray:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1 + small))


def _entropy(a: FloatArray) -> FloatArray:
    from scipy.special import entr

    return np.asarray(entr(a) + entr(1 - a))


def _objective(beta: FloatArray, s: FloatArray) -> float:
    return float(np.sum(np.logaddexp(0.0, -s)) + beta @ s / 2)
