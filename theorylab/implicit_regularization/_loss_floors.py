r"""What losses cannot fall below where the weights are bounded: for $\|\theta\|\le r$ the mean
logistic loss of n rows of margin $\mu$ is at least $\frac1n\log(1+e^{-r\mu})$."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.scaling import binary_exponent

__all__ = ["cross_entropy_floor", "least_logistic_loss", "logistic_loss_floor", "logit_bound"]


def logistic_loss_floor(n: int, *, radius: float, margin: float) -> float:
    r"""Return $\frac1n\log(1+e^{-r\mu})$, which the mean logistic loss of weights of norm up
    to r cannot fall below.

    Parameters
    ----------
    n
        Number of points.
    radius
        r.
    margin
        An upper bound of $\max_{\|w\|\le1}\min_iz_i^\top w\ge0$, such as the ``margin_bound``
        of :func:`max_margin`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import logistic_loss_floor
    >>> round(logistic_loss_floor(4, radius=10.0, margin=0.0), 6)
    0.173287
    """
    count = as_count(n, "n")
    r = as_real(radius, "radius", minimum=0.0)
    mu = as_real(margin, "margin", minimum=0.0)
    return float(np.logaddexp(0.0, -min(r * mu, 1e300))) / count


def logit_bound(norms: ArrayLike, *, feature_norm: float) -> float:
    r"""Return $\|h\|\prod_\ell r_\ell$: no logit of layers without biases, with positively
    homogeneous activations that are 1-Lipschitz, exceeds it.

    Parameters
    ----------
    norms
        (k,): a bound of the spectral norm of each layer, of the norms of the rows for the last.
    feature_norm
        $\|h\|$, of what enters the first of these layers.

    Examples
    --------
    >>> from theorylab.implicit_regularization import logit_bound
    >>> logit_bound([2.0, 3.0], feature_norm=0.5)
    3.0
    """
    r = as_array(norms, "norms", ndim=1, nonnegative=True)
    size = as_real(feature_norm, "feature_norm", minimum=0.0)
    with np.errstate(over="ignore"):
        bound = size * float(np.prod(r))
    if not math.isfinite(bound):
        raise ValueError("norms, feature_norm: expected a product within float64")
    return bound


def cross_entropy_floor(classes: int, *, logit: float) -> float:
    r"""Return $\log(1+(K-1)e^{-2B})$: the cross-entropy of K classes with logits between
    -B and B cannot fall below it.

    Parameters
    ----------
    classes
        K, at least two.
    logit
        B.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import cross_entropy_floor
    >>> bool(abs(cross_entropy_floor(4, logit=0.0) - np.log(4)) < 1e-12)
    True
    """
    count = as_count(classes, "classes", minimum=2, maximum=10**15)
    size = as_real(logit, "logit", minimum=0.0)
    return math.log1p((count - 1) * math.exp(-2 * min(size, 1e300)))


@refuses_overflow("Z", "radius")
def least_logistic_loss(
    Z: ArrayLike, *, radius: float, tol: float = 1e-9
) -> tuple[FloatArray, float, float]:
    r"""Minimise the mean logistic loss over $\|w\|\le r$: return w, its loss, and a lower
    bound of the minimum, the least value of the tangent at w over the ball.

    Parameters
    ----------
    Z
        (n, d), rows $y_ia_i$.
    radius
        r.
    tol
        Relative gap at which the search for the multiplier of the norm ends; a warning says that
        it was not reached.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import least_logistic_loss
    >>> w, loss, bound = least_logistic_loss([[3.0, 4.0]], radius=2.0)
    >>> w.round(6), bool(np.isclose(loss, np.log1p(np.exp(-10)), rtol=1e-7))
    (array([1.2, 1.6]), True)
    """
    A = as_array(Z, "Z", ndim=2)
    r = as_real(radius, "radius", above=0.0)
    accuracy = as_real(tol, "tol", minimum=1e-13, maximum=0.1)
    n = len(A)
    e = binary_exponent(A)
    S, size = np.ldexp(A, -e), math.ldexp(r, e)
    if not 1e-100 < size < 1e6:
        raise ValueError(f"Z, radius: expected a product from 1e-100 to 1e6, got {size}")
    basis = None
    if A.shape[1] > n:
        basis, R = np.linalg.qr(S.T)
        S = np.ascontiguousarray(R.T)
    w = np.zeros(S.shape[1])
    best = w, math.log(2), 0.0
    # The norm of the minimiser falls as the weight of the ridge rises: bisect its logarithm.
    low, high = -700.0, math.log(4 * n * (1 + 1 / size))
    for _ in range(200):
        middle = (low + high) / 2 if high - low < 20 else high - 10
        w = _ridge_minimiser(S, math.exp(middle), w)
        length = float(np.linalg.norm(w))
        inside = w * min(1.0, size / length) if length else w
        s = S @ inside
        loss = float(np.logaddexp(0.0, -s).mean())
        pull = S.T @ np.exp(-np.logaddexp(0.0, s)) / n
        bound = loss + float(pull @ inside) - size * math.hypot(*pull)  # no square underflows
        best = inside, loss, max(bound, best[2])
        if loss - best[2] <= accuracy * loss or high - low < 1e-13 * max(abs(low), 1.0):
            break
        low, high = (middle, high) if length > size else (low, middle)
    w, loss, bound = best
    if loss - bound > accuracy * loss:
        warnings.warn("the minimum was not enclosed to tol", stacklevel=3)
    return np.ldexp(w if basis is None else basis @ w, -e), loss, min(bound, loss)


def _ridge_minimiser(Z: FloatArray, weight: float, start: FloatArray) -> FloatArray:
    """Minimise the mean logistic loss plus half of the weight over n times the squared norm."""
    w = start

    def gradient(w: FloatArray) -> tuple[FloatArray, FloatArray]:
        a = np.exp(-np.logaddexp(0.0, Z @ w))
        return weight * w - Z.T @ a, a

    def value(w: FloatArray) -> float:
        return float(np.logaddexp(0.0, -(Z @ w)).sum() + weight / 2 * (w @ w))

    g, a = gradient(w)
    for _ in range(100):
        H = (Z.T * (a * (1 - a))) @ Z + weight * np.eye(len(w))
        step = np.linalg.solve(H, g)
        decrease = float(step @ g)
        if not decrease > 0:
            break
        t, now = 1.0, value(w)
        while value(w - t * step) > now * (1 + 1e-15) - 1e-4 * t * decrease and t > 1e-10:
            t /= 2
        w = w - t * step
        g, a = gradient(w)
        if t * decrease <= 1e-22 * now or t <= 1e-10:
            break
    return w
