r"""Effective ridge of kernel and random-feature regression: two equations, one root.

For eigenvalues $\lambda_i\ge0$, n samples, k features and ridge $\delta\ge0$, find
$\kappa,\gamma\ge0$ with

$$n = z(\gamma) + \frac{\delta}{\kappa}, \qquad k = z(\gamma) + \frac{k\kappa}{\gamma},
\qquad
z(\gamma) = \sum_i \frac{\lambda_i}{\lambda_i+\gamma}$$

(simon2024-more, Section 4). Eliminating $\kappa=\gamma(1-z/k)$ leaves
$\delta=\gamma\,(n-z)(k-z)/k$. With $m=\min(n,k)$ and $g=|n-k|$, the shortfall
$s=m-z$ is the non-negative root of $s(s+g)=k\delta/\gamma$, so that both
$z(\gamma)$ and $s(\gamma)$ decrease and $\gamma$ is the only root of
$z(\gamma)+s(\gamma)=m$. To z, the p eigenvalues of at least $\gamma$ contribute p less
what they miss, the others what they add: p is an integer, so that nothing is computed as a
difference of close numbers, and $\gamma$, $n-z$, $k-z$ and
$\sum_i\lambda_i\gamma/(\lambda_i+\gamma)^2$ keep full relative accuracy however small the
ridge is and however wide the gaps of the spectrum are.

In $t=\log\gamma$ each term of $z+s$ has $|f''|\le|f'|\le f$, so that Newton's
method on $\log((z+s)/m)$ converges quadratically from any step below 1; a bracket guards the
steps before."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result

__all__ = ["EffectiveRidge", "effective_ridge"]


@result
class EffectiveRidge:
    r"""Root of the two equations for every requested size; arrays of one common shape.

    Attributes
    ----------
    gamma, kappa
        The two effective ridges; equal for infinitely many features.
    learned
        $z=\sum_i\lambda_i/(\lambda_i+\gamma)$, the number of learned modes.
    spread
        $\sum_i\lambda_i\gamma/(\lambda_i+\gamma)^2$, the number of half-learned modes.
    free_samples, free_features
        $n-z$ and $k-z$ (infinite for infinitely many features), accurate even where
        they are tiny.
    residual
        $|z+s-m|/m$ as evaluated; rounding.
    """

    gamma: FloatArray
    kappa: FloatArray
    learned: FloatArray
    spread: FloatArray
    free_samples: FloatArray
    free_features: FloatArray
    residual: FloatArray

    @property
    def degrees_of_freedom(self) -> FloatArray:
        r"""$q=\sum_i(\lambda_i/(\lambda_i+\gamma))^2$."""
        return self.learned - self.spread


def effective_ridge(
    eigenvalues: ArrayLike,
    *,
    n_samples: ArrayLike,
    ridge: ArrayLike,
    n_features: ArrayLike | None = None,
) -> EffectiveRidge:
    r"""Solve for the effective ridges of one spectrum at one or many sizes.

    Parameters
    ----------
    eigenvalues
        Shape (n_modes,), non-negative; zeros are modes outside the kernel.
    n_samples, n_features
        Positive integers, or one-dimensional arrays of them that broadcast with each other and with
        ``ridge``; ``n_features=None`` means infinitely many. Neighbouring sizes start from each
        other's root, so that a sorted array is the fastest.
    ridge
        Non-negative; multiplies $I_n$, the kernel being
        $\frac1k\sum_jg(w_j,\cdot)g(w_j,\cdot)$. At ridge 0 the root is
        $z(\gamma)=\min(n,k)$, or $\gamma=0$ where there are no more than
        $\min(n,k)$ positive eigenvalues.

    Returns
    -------
    EffectiveRidge

    Notes
    -----
    simon2024-more, Section 4 (the paper's text was not consulted; derived again in the tests).

    Examples
    --------
    >>> from theorylab.random_features import effective_ridge
    >>> found = effective_ridge([1.0] * 20, n_samples=10, ridge=0.0)
    >>> round(float(found.kappa), 12)  # ten of twenty equal modes are learnt: half of each
    1.0
    """
    spectrum = as_array(eigenvalues, "eigenvalues", ndim=1, nonnegative=True)
    n, k, delta = broadcast_sizes(n_samples, n_features, ridge)
    positive = np.ascontiguousarray(spectrum[spectrum > 0])
    rows, portion = np.zeros((5, n.size)), portion_of(positive.size)
    for first in range(0, n.size, portion):
        last = min(first + portion, n.size)
        _solve_all(positive, n.ravel(), k.ravel(), delta.ravel(), rows, first, last)
    gamma, a, b, z, c = (row.reshape(n.shape) for row in rows)
    m = np.minimum(n, k)
    finite = np.isfinite(b)
    share = np.where(finite, np.where(finite, b, 0.0) / np.where(finite, k, 1.0), 1.0)
    residual = np.abs(z + np.minimum(a, b) - m) / m
    return EffectiveRidge(gamma, gamma * share, z, c, a, b, residual)


def broadcast_sizes(
    n_samples: ArrayLike, n_features: ArrayLike | None, ridge: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Validate sizes and ridge, and broadcast them to one shape; infinitely many features are
    ``inf``."""
    n = _counts(n_samples, "n_samples")
    k = np.asarray(math.inf) if n_features is None else _counts(n_features, "n_features")
    delta = as_array(ridge, "ridge", nonnegative=True)
    for name, array in (("n_samples", n), ("n_features", k), ("ridge", delta)):
        if array.ndim > 1:
            raise ValueError(
                f"{name}: expected a number or a one-dimensional array, got shape {array.shape}"
            )
    try:
        n, k, delta = (v.copy() for v in np.broadcast_arrays(n, k, delta))
    except ValueError:
        shapes = f"{n.shape}, {k.shape} and {delta.shape}"
        raise ValueError(
            f"n_samples, n_features, ridge: expected shapes that broadcast, got {shapes}"
        ) from None
    return n, k, delta


def _counts(value: ArrayLike, name: str) -> FloatArray:
    """Return positive integers as floats; floats are refused, even 3.0."""
    raw: NDArray[np.generic] = np.asarray(value)
    if raw.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected positive integers, got {value!r:.60}")
    return as_array(raw, name, positive=True)


def portion_of(count: int) -> int:
    """Return for how many sizes a kernel may run over so many modes before Ctrl-C gets in."""
    return max(10**7 // max(count, 1), 1)


@compiled(error_model="numpy", fastmath={"reassoc", "contract"})
def _occupation(eigenvalues: FloatArray, gamma: float) -> tuple[int, float, float]:
    """Return how many positive eigenvalues are at least gamma, z less this number, and the
    spread."""
    above, offset, c = 0, 0.0, 0.0
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
    return above, offset, c


@compiled
def shortfall(gamma: float, n: float, k: float, ridge: float) -> tuple[float, float]:
    """Return s(gamma) and -ds/dlog(gamma) for gamma > 0."""
    if math.isinf(k):
        s = ridge / gamma
        return s, s
    g = abs(n - k)
    product = k * (ridge / gamma)
    if product == 0.0:
        return 0.0, 0.0
    s = 2.0 * product / (g + math.sqrt(g * g + 4.0 * product))
    return s, product / (2.0 * s + g)


@compiled
def solve_gamma(
    eigenvalues: FloatArray,
    ends: tuple[float, float],
    n: float,
    k: float,
    ridge: float,
    guess: float,
) -> float:
    """Return gamma for positive ``eigenvalues`` with smallest and total ``ends``; 0 where nothing
    holds it up.

    A ``guess`` of 0 means none.
    """
    m = min(n, k)
    count = eigenvalues.size
    if ridge == 0.0 and count <= m:
        return 0.0
    # At the lower end z + s >= m: s alone is m at gamma = ridge / n; every term of z is m / count
    # at the other value.
    lower = ridge / n
    if count > m:
        lower = max(lower, ends[0] * (count - m) / m)
    # At the upper end z <= m / 2 and s <= m / 2.
    upper = 2.0 * ends[1] / m
    upper = max(
        upper,
        2.0 * ridge / m if math.isinf(k) else ridge * (4.0 * k / (m * (m + 2.0 * abs(n - k)))),
    )
    gamma = guess if lower < guess < upper else upper
    previous = math.inf
    for _ in range(200):
        above, offset, c = _occupation(eigenvalues, gamma)
        s, slope = shortfall(gamma, n, k, ridge)
        excess = (above - m) + (offset + s)
        filled = above + offset + s
        value = math.log1p(excess / m) if abs(excess) < 0.5 * m else math.log(filled / m)
        if value > 0.0:
            lower = gamma
        else:
            upper = gamma
        step = value * filled / (c + slope)
        if abs(step) <= 1e-8:
            # The step that is taken squares this error.
            return gamma * math.exp(step)
        target = gamma * math.exp(min(max(step, -700.0), 700.0))
        if not lower <= target <= upper or abs(step) > 0.5 * previous:
            # Bisection in the logarithm; also where Newton's steps do not shrink.
            target = math.sqrt(lower) * math.sqrt(upper)
            step = math.log(target / gamma)
        previous = abs(step)
        gamma = target
    return gamma


@compiled
def smallest_and_total(eigenvalues: FloatArray) -> tuple[float, float]:
    """Return what brackets the root, once per spectrum."""
    return (eigenvalues.min(), eigenvalues.sum()) if eigenvalues.size else (0.0, 0.0)


@compiled
def extrapolate(gamma: FloatArray, j: int) -> float:
    """Guess entry j from the entries before: on a geometric grid of sizes log gamma is nearly
    linear."""
    previous = float(gamma[j - 1]) if j >= 1 else 0.0
    if j >= 2 and gamma[j - 2] > 0.0:
        previous *= previous / float(gamma[j - 2])
    return previous


@compiled
def free_counts(
    gamma: float, n: float, k: float, ridge: float, count: float
) -> tuple[float, float]:
    """Return n - z and k - z at the root; ``count`` positive eigenvalues are all learned where
    gamma is 0."""
    if gamma == 0.0:
        return n - count, k - count
    s, _ = shortfall(gamma, n, k, ridge)
    return (s, s + (k - n)) if n <= k else (s + (n - k), s)


@compiled
def _solve_all(
    eigenvalues: FloatArray,
    n: FloatArray,
    k: FloatArray,
    ridge: FloatArray,
    rows: FloatArray,
    first: int,
    last: int,
) -> None:
    """Fill entries of the rows of zeros: gamma, n - z, k - z, z and the spread."""
    gamma, a, b, z, c = rows[0], rows[1], rows[2], rows[3], rows[4]
    ends = smallest_and_total(eigenvalues)
    for j in range(first, last):
        gamma[j] = solve_gamma(eigenvalues, ends, n[j], k[j], ridge[j], extrapolate(gamma, j))
        a[j], b[j] = free_counts(gamma[j], n[j], k[j], ridge[j], float(eigenvalues.size))
        if gamma[j] > 0.0:
            above, offset, c[j] = _occupation(eigenvalues, gamma[j])
            z[j] = above + offset
        else:
            z[j] = eigenvalues.size
