r"""Interpolators of least norm of noisy linear regression, and what they risk.

$y=X\beta^*+\xi$ with $X$ of n rows and d columns, all $N(0,1)$, and noise
$N(0,\sigma^2)$. The interpolator of least $\ell_2$ norm has mean squared error

$$\|\beta^*\|^2(1-\tfrac nd)+\frac{\sigma^2n}{d-n-1}:$$

it loses the signal. That of least $\ell_1$ norm has at most n entries that are not zero, and
fits noise badly: an error $e=\hat\beta-\beta^*$ on m coordinates has $Xe=\xi$, hence
$\|e\|\ge\|\xi\|/\max_{|S|=m}\|X_S\|$. By Slepian's lemma the mean of this maximum is at most
$\sqrt n+\sqrt{Q_m}$, with $Q_m$ the mean of the sum of the m largest of d squared
normals; its variance is at most 1. So (Jensen)

$$\mathbb E\|e\|^2\ge\frac{\sigma^2n}{1+(\sqrt n+\sqrt{Q_m})^2}
\sim\frac{\sigma^2}{2\log(d/n)}\quad(m\sim n,\ d/n\to\infty).$$

A network $w\odot w-u\odot u+\lambda v$ learns the signal by w and u, and the noise by the
linear part, which spreads it over all coordinates (`mirror_interpolator`). From
$w=u=\alpha\to0$ its potential is quadratic, $2\beta^2/\lambda^2$, up to a slope of
$\log(1/\alpha^2)$, and grows with this slope beyond. So a large entry and a small rest
$\delta$, $\|\delta\|^2\approx\|y-X\beta\|^2/d$, are the lasso with penalty
$\frac12d\lambda^2\log(1/\alpha)$, and its universal one, $\sigma\sqrt{2n\log d}$,
gives the order of $\lambda$ (`universal_linear`).

Paper: zhou2023-implicit (the bound of the second display is derived here, with its constants)."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erfc, erfcinv

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.programs import linprog
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "InterpolatorStatus",
    "MinNormInterpolator",
    "SparseRegression",
    "min_l2_risk",
    "min_norm_interpolator",
    "sparse_interpolator_bound",
    "sparse_regression",
    "universal_linear",
]

_CONSISTENT = 1e-8


class InterpolatorStatus(StrEnum):
    """How a search for an interpolator ended."""

    OPTIMAL = "the relative duality gap is at rounding"
    INACCURATE = "the linear program ended with a relative duality gap above 1e-9"


@result
class MinNormInterpolator:
    """An interpolator of least norm.

    Attributes
    ----------
    predictor
        Shape (d,).
    dual
        Shape (n,): y @ dual is the bound, and the dual norm of X^T dual at most 1.
    norm, lower_bound, gap
        The norm, a bound of it from below by duality, and their relative difference.
    residual
        max|X beta - y| / max|y|.
    status
        How the search ended.
    """

    predictor: FloatArray
    dual: FloatArray
    norm: float
    lower_bound: float
    gap: float
    residual: float
    status: InterpolatorStatus


@result
class SparseRegression:
    """Noisy linear regression with Gaussian inputs.

    Attributes
    ----------
    X, y, noise
        Shapes (n, d), (n,), (n,): y = X signal + noise.
    signal
        Shape (d,).
    """

    X: FloatArray
    y: FloatArray
    noise: FloatArray
    signal: FloatArray


@refuses_overflow("signal_norm", "noise_scale")
def sparse_regression(
    n: int,
    d: int,
    *,
    sparsity: int,
    signal_norm: float = 1.0,
    noise_scale: float = 0.0,
    seed: int = 0,
) -> SparseRegression:
    r"""Draw inputs $N(0,1)$, noise $N(0,\sigma^2)$ and a signal of equal entries, with
    random signs, on the first coordinates.

    Parameters
    ----------
    n, d, sparsity
        Samples, coordinates, and the entries of the signal that are not zero.
    signal_norm, noise_scale
        Euclidean norm of the signal, and $\sigma$.
    seed
        Of the draw.

    Examples
    --------
    >>> from theorylab.implicit_regularization import sparse_regression
    >>> problem = sparse_regression(5, 20, sparsity=4, signal_norm=3.0, seed=1)
    >>> problem.X.shape, problem.signal[:4] ** 2
    ((5, 20), array([2.25, 2.25, 2.25, 2.25]))
    """
    rows = as_count(n, "n")
    columns = as_count(d, "d")
    k = as_count(sparsity, "sparsity", minimum=0, maximum=columns)
    size = as_real(signal_norm, "signal_norm", minimum=0.0)
    sigma = as_real(noise_scale, "noise_scale", minimum=0.0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    X, noise = rng.standard_normal((rows, columns)), sigma * rng.standard_normal(rows)
    signal = np.zeros(columns)
    signal[:k] = rng.choice([-1.0, 1.0], size=k) * (size / math.sqrt(max(k, 1)))
    return SparseRegression(X, X @ signal + noise, noise, signal)


@refuses_overflow("X", "y")
def min_norm_interpolator(X: ArrayLike, y: ArrayLike, *, p: int) -> MinNormInterpolator:
    r"""Minimise $\|\beta\|_p$ over $X\beta=y$, p = 1 (a linear program) or 2.

    Parameters
    ----------
    X, y
        Shapes (n, d) and (n,); a system that has no solution is refused.
    p
        1 or 2.

    Examples
    --------
    >>> from theorylab.implicit_regularization import min_norm_interpolator
    >>> X, y = [[1.0, 2.0]], [2.0]
    >>> min_norm_interpolator(X, y, p=1).predictor, min_norm_interpolator(X, y, p=2).predictor
    (array([0., 1.]), array([0.4, 0.8]))
    """
    A = as_array(X, "X", ndim=2)
    b = as_array(y, "y", shape=(len(A),))
    order = as_count(p, "p", maximum=2)
    size, height = binary_exponent(A), binary_exponent(b)
    A, b = np.ldexp(A, -size), np.ldexp(b, -height)
    U, values, Vt = np.linalg.svd(A, full_matrices=False)
    kept = values > 1e-12 * max(A.shape) * values.max(initial=0.0)
    U, values, Vt = U[:, kept], values[kept], Vt[kept]
    turned = U.T @ b
    if np.abs(b - U @ turned).max() > _CONSISTENT * np.abs(b).max():
        raise ValueError(
            f"X, y: expected a system X beta = y that has a solution, got the relative residual "
            f"{np.abs(b - U @ turned).max() / np.abs(b).max():.2g} of least squares"
        )
    beta, dual = Vt.T @ (turned / values), np.zeros(len(b))
    if order == 1 and b.any():
        beta, dual = _least_sum(A, b, beta)
    elif b.any():
        dual = U @ (turned / values**2)
    widest = float(np.linalg.norm(A.T @ dual, np.inf if order == 1 else 2)) or 1.0
    dual = dual / widest
    norm, bound = float(np.linalg.norm(beta, order)), float(dual @ b)
    residual = float(np.abs(A @ beta - b).max() / (np.abs(b).max() or 1.0))
    slack = 1e-12 + residual * float(np.abs(dual).sum()) * float(np.abs(b).max())
    gap = relative_gap(norm, bound, rounding=slack)
    shift = height - size
    return MinNormInterpolator(
        np.ldexp(beta, shift),
        np.ldexp(dual, -size),
        float(np.ldexp(norm, shift)),
        float(np.ldexp(bound, shift)),
        gap,
        residual,
        InterpolatorStatus.OPTIMAL if gap <= 1e-9 else InterpolatorStatus.INACCURATE,
    )


@refuses_overflow("signal_norm", "noise_scale")
def min_l2_risk(n: int, d: int, *, signal_norm: float, noise_scale: float) -> float:
    r"""Return $\|\beta^*\|^2(1-\frac nd)+\frac{\sigma^2n}{d-n-1}$, the mean squared error of
    the interpolator of least $\ell_2$ norm with Gaussian inputs.

    Parameters
    ----------
    n, d
        Samples and coordinates, d > n + 1.
    signal_norm, noise_scale
        $\|\beta^*\|$ and $\sigma$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import min_l2_risk
    >>> min_l2_risk(10, 40, signal_norm=2.0, noise_scale=0.0)
    3.0
    """
    rows = as_count(n, "n")
    columns = as_count(d, "d", minimum=rows + 2)
    size = as_real(signal_norm, "signal_norm", minimum=0.0)
    sigma = as_real(noise_scale, "noise_scale", minimum=0.0)
    return size**2 * (1 - rows / columns) + sigma**2 * rows / (columns - rows - 1)


@refuses_overflow("noise_scale")
def sparse_interpolator_bound(n: int, d: int, *, sparsity: int, noise_scale: float) -> float:
    r"""Return $\sigma^2n/(1+(\sqrt n+\sqrt{Q_m})^2)$: the mean squared error of an
    interpolator with at most n entries that are not zero is no less, with Gaussian inputs.

    Parameters
    ----------
    n, d, sparsity
        Samples, coordinates, and the entries of the signal that are not zero; m = n + sparsity, or
        d if that is smaller.
    noise_scale
        $\sigma$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import sparse_interpolator_bound
    >>> round(sparse_interpolator_bound(100, 1000, sparsity=3, noise_scale=1.0), 3)
    0.103
    """
    rows, columns = as_count(n, "n"), as_count(d, "d")
    k = as_count(sparsity, "sparsity", minimum=0, maximum=columns)
    sigma = as_real(noise_scale, "noise_scale", minimum=0.0)
    share = min(rows + k, columns) / columns
    # The largest part of a share of squares: those beyond the quantile, in the mean over a
    # continuous share an upper bound of the mean of the sum of the m largest.
    at = float(erfcinv(share)) * math.sqrt(2)
    tail = 2 * at * math.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
    largest = columns * (tail + float(erfc(at / math.sqrt(2))))
    return sigma**2 * rows / (1 + (math.sqrt(rows) + math.sqrt(largest)) ** 2)


@refuses_overflow("noise_scale")
def universal_linear(n: int, d: int, *, noise_scale: float, scale: float) -> float:
    r"""Return the $\lambda$ with $\frac12d\lambda^2\log\frac1\alpha=
    \sigma\sqrt{2n\log d}$: the linear part with which a mixed network from a tiny start acts like
    the lasso with its universal penalty, for inputs $N(0,1)$ and entries of order one.

    Parameters
    ----------
    n, d
        Samples and coordinates.
    noise_scale, scale
        $\sigma$ and $\alpha<1$.

    Examples
    --------
    >>> from theorylab.implicit_regularization import universal_linear
    >>> round(universal_linear(100, 1000, noise_scale=0.5, scale=1e-8), 4)
    0.0449
    """
    rows, columns = as_count(n, "n"), as_count(d, "d")
    sigma = as_real(noise_scale, "noise_scale", minimum=0.0)
    alpha = as_real(scale, "scale", above=0.0, below=1.0)
    lasso = sigma * math.sqrt(2 * rows * math.log(columns))
    return math.sqrt(2 * lasso / (columns * -math.log(alpha)))


def _least_sum(A: FloatArray, b: FloatArray, fallback: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a vertex of the linear program, solved again on its support, and its multipliers."""
    d = A.shape[1]
    program = linprog(
        np.ones(2 * d),
        A_eq=np.hstack([A, -A]),
        b_eq=b,
        method="highs",
        options={"presolve": False},  # on dense rows it takes longer than the simplex method
    )
    if program.x is None:
        return fallback, np.zeros(len(b))
    beta = program.x[:d] - program.x[d:]
    support = np.flatnonzero(beta)
    exact = np.zeros(d)
    exact[support] = np.linalg.lstsq(A[:, support], b, rcond=None)[0]
    if np.abs(A @ exact - b).max() <= np.abs(A @ beta - b).max() + 1e-14:
        beta = exact
    dual = np.linalg.lstsq(A[:, support].T, np.sign(beta[support]), rcond=None)[0]
    if np.abs(A.T @ dual).max() > 1 + 1e-9:
        dual = np.asarray(program.eqlin.marginals)
    return beta, np.asarray(dual, dtype=np.float64)
