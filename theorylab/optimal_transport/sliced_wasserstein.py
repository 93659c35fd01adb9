r"""Sliced Wasserstein distance, and control variates that are exact for Gaussians.

For clouds X and Y and directions $\theta$ uniform on the sphere,

$$\mathrm{SW}_2^2=\mathbb E_\theta W_2^2(\theta^\top X,\theta^\top Y),$$

estimated by the mean over L directions. With means $m_i$, covariances $\Sigma_i$ and
$\sigma_i^2=\theta^\top\Sigma_i\theta$ of the clouds, for arbitrary measures and every
direction (derived: the optimal coupling has a covariance between 0 and
$\sigma_1\sigma_2$),

$$(\theta^\top(m_1-m_2))^2\le(\theta^\top(m_1-m_2))^2+(\sigma_1-\sigma_2)^2\le
W_2^2(\theta^\top X,\theta^\top Y)\le(\theta^\top(m_1-m_2))^2+\sigma_1^2+\sigma_2^2.$$

The outer two have closed means $\|m_1-m_2\|^2/d$ and that plus
$\mathrm{tr}(\Sigma_1+\Sigma_2)/d$: with a coefficient $\gamma$ the estimator
$\frac1L\sum_l(W_l-\gamma(C_l-\mathbb EC))$ is unbiased, and its variance is
$1-\rho^2$ of the plain one's at $\gamma=\mathrm{Cov}(W,C)/\mathrm{Var}\,C$. A
coefficient fitted on the same few directions biases it, and where $\rho$ is small can make
it worse than none.

Theorem: nguyen2023-sliced (the two control variates for fitted Gaussians)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_count, as_real, one_of, refuses_overflow
from theorylab.numerics.results import result

__all__ = [
    "GaussianControls",
    "SlicedDistance",
    "control_means",
    "gaussian_controls",
    "projected_distances",
    "random_directions",
    "sliced_distance",
]

_CONTROLS = ("lower", "upper")
_FLAT = 1e-13  # of a control: what it varies by rounding alone, as in dimension one
_BLOCK = 2**20  # projected numbers held at a time: products in one go, rows sorted in the cache


@result
class GaussianControls:
    """Surrogates of the projected squared distance, one number a direction: lower, between the
    fitted Gaussians, upper."""

    lower: FloatArray
    gaussian: FloatArray
    upper: FloatArray


@result
class SlicedDistance:
    """An estimate of the sliced distance.

    Attributes
    ----------
    squared
        The estimate of the squared distance.
    standard_error
        Of ``squared``, from the spread over the directions.
    coefficient
        That of the control variate, 0 without one.
    variance_ratio
        Variance of the corrected over that of the plain terms, 1 without a control variate.
    n_projections
        Number of directions.
    """

    squared: float
    standard_error: float
    coefficient: float
    variance_ratio: float
    n_projections: int

    @property
    def value(self) -> float:
        """The distance, 0 where the estimate of its square is negative."""
        return float(np.sqrt(max(self.squared, 0.0)))

    def __repr__(self) -> str:
        return (
            f"<SlicedDistance {self.value:.6g}, squared {self.squared:.6g} "
            f"+- {self.standard_error:.1e}, {self.n_projections} projections>"
        )


@refuses_overflow("X", "Y", "coefficient")
def sliced_distance(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    n_projections: int,
    control_variate: str | None = None,
    coefficient: float | None = None,
    seed: int,
) -> SlicedDistance:
    """Estimate the sliced 2-Wasserstein distance of two clouds.

    Parameters
    ----------
    X
        (n, d) points, of equal weight.
    Y
        (m, d) points.
    n_projections
        Number of random directions; two at least with a control variate.
    control_variate
        None, ``"lower"`` (good where the means differ most) or ``"upper"`` (good where the shapes
        do).
    coefficient
        Of the control variate; by default fitted on the same directions (0 where the control does
        not vary), which costs a bias of order 1 / n_projections. With one from elsewhere (1 is
        natural for ``"lower"``) the estimate is unbiased.
    seed
        Seeds the directions.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import sliced_distance
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> moved = sliced_distance(X, X + 1, n_projections=10, control_variate="lower", seed=0)
    >>> round(moved.value, 12)
    1.0
    """
    X, Y = _clouds(X, Y)
    n_projections = as_count(n_projections, "n_projections")
    if control_variate is not None:
        control_variate = one_of(control_variate, "control_variate", _CONTROLS)
        n_projections = as_count(n_projections, "n_projections", minimum=2)
    if coefficient is not None:
        coefficient = as_real(coefficient, "coefficient")
    directions = random_directions(X.shape[1], n_projections, seed=seed)
    W = projected_distances(X, Y, directions)
    gamma, terms = 0.0, W
    if control_variate is not None:
        control = getattr(gaussian_controls(X, Y, directions), control_variate)
        mean = control_means(X, Y)[_CONTROLS.index(control_variate)]
        centred = control - control.mean()
        power = float(centred @ centred)
        varies = np.abs(centred).max() > _FLAT * np.abs(control).max()
        fitted = float(centred @ W) / power if varies and power > 0 else 0.0
        gamma = fitted if coefficient is None else coefficient
        terms = W - gamma * (control - mean)
    plain, spread = (float(np.var(v, ddof=1)) if v.size > 1 else np.inf for v in (W, terms))
    return SlicedDistance(
        float(terms.mean()),
        float(np.sqrt(spread / n_projections)),
        gamma,
        spread / plain if 0 < plain < np.inf else 1.0,
        n_projections,
    )


def random_directions(d: int, n: int, *, seed: int) -> FloatArray:
    """Return n directions, uniform on the unit sphere, as rows.

    Parameters
    ----------
    d
        Dimension.
    n
        Number of directions.
    seed
        Seeds them.

    Examples
    --------
    >>> from theorylab.optimal_transport import random_directions
    >>> random_directions(3, 5, seed=0).shape
    (5, 3)
    """
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    directions: FloatArray = rng.standard_normal((as_count(n, "n"), as_count(d, "d")))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions


@refuses_overflow("X", "Y")
def projected_distances(X: ArrayLike, Y: ArrayLike, directions: ArrayLike) -> FloatArray:
    """Return the squared 2-Wasserstein distance of the clouds along each direction.

    Parameters
    ----------
    X
        (n, d) points, of equal weight.
    Y
        (m, d) points; of another number than X by their quantile functions.
    directions
        (L, d).

    Examples
    --------
    >>> from theorylab.optimal_transport import projected_distances
    >>> projected_distances([[0.0], [2.0]], [[1.0], [1.0], [4.0], [4.0]], [[1.0]]).tolist()
    [2.5]
    """
    X, Y = _clouds(X, Y)
    D = as_array(directions, "directions", shape=(None, X.shape[1]))
    n, m = len(X), len(Y)
    # Quantile functions are constant between the ends of either cloud's steps.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    i, j = (ends - 1) // m, (ends - 1) // n
    widths = np.diff(ends, prepend=0) / (n * m)
    values = np.empty(len(D))
    size = max(1, _BLOCK // max(n, m))
    for first in range(0, len(D), size):
        block = D[first : first + size]
        x, y = block @ X.T, block @ Y.T
        x.sort(axis=1)
        y.sort(axis=1)
        if n == m:
            x -= y
            values[first : first + size] = np.einsum("ij,ij->i", x, x) / n
        else:
            values[first : first + size] = (x[:, i] - y[:, j]) ** 2 @ widths
    return values


@refuses_overflow("X", "Y")
def gaussian_controls(X: ArrayLike, Y: ArrayLike, directions: ArrayLike) -> GaussianControls:
    """Return the three surrogates of the projected squared distance (module docstring), which bound
    it from below, below and above along every direction.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) points, of equal weight.
    directions
        (L, d).

    Examples
    --------
    >>> from theorylab.optimal_transport import gaussian_controls
    >>> controls = gaussian_controls([[0.0], [2.0]], [[3.0], [3.0]], [[1.0]])
    >>> controls.lower.tolist(), controls.gaussian.tolist(), controls.upper.tolist()
    ([4.0], [5.0], [5.0])
    """
    X, Y = _clouds(X, Y)
    D = as_array(directions, "directions", shape=(None, X.shape[1]))
    lower = (D @ (X.mean(axis=0) - Y.mean(axis=0))) ** 2
    first, second = (
        np.maximum(np.einsum("ij,ij->i", D @ np.atleast_2d(np.cov(Z.T, bias=True)), D), 0.0)
        for Z in (X, Y)
    )
    return GaussianControls(
        lower, lower + (np.sqrt(first) - np.sqrt(second)) ** 2, lower + first + second
    )


@refuses_overflow("X", "Y")
def control_means(X: ArrayLike, Y: ArrayLike) -> tuple[float, float]:
    """Return the means of the lower and the upper control variate over uniform directions.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) points, of equal weight.

    Examples
    --------
    >>> from theorylab.optimal_transport import control_means
    >>> control_means([[0.0], [2.0]], [[3.0], [3.0]])
    (4.0, 5.0)
    """
    X, Y = _clouds(X, Y)
    d = X.shape[1]
    lower = float(np.sum((X.mean(axis=0) - Y.mean(axis=0)) ** 2)) / d
    return lower, lower + float(X.var(axis=0).sum() + Y.var(axis=0).sum()) / d


def _clouds(X: ArrayLike, Y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    X = as_array(X, "X", ndim=2)
    return X, as_array(Y, "Y", shape=(None, X.shape[1]))
