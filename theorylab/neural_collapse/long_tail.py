r"""Geometry that is imposed on long-tailed classes: spread-out means, sparse simplex frames,
entropy of the features.

- For unit centres $c_1,\dots,c_K$,

  $$\frac1K\sum_i\max_{j\ne i}c_i^\top c_j\ge\frac{\|\sum c_i\|^2-K}{K(K-1)}\ge-\frac1{K-1},$$

  with equality exactly for simplex equiangular tight frames (ETF). The smooth form
  $R_b=\frac1K\sum_i\frac1b\log\operatorname{mean}_{j\ne i}e^{b\,c_i^\top c_j}$ lies between
  the mean and the maximum, so it has the same minimum and the same minimizers for every b > 0.
- Added to cross-entropy with free features, $L(W,H)+\gamma R_b$, it moves the class means to
  an ETF whatever the class
  sizes: a minimizer satisfies $R_b+\frac1{K-1}\le(L_{\mathrm{etf}}-\min L)/\gamma$,
  $L_{\mathrm{etf}}$ the least loss of features in ETF directions. The classifier is not
  regularised towards a frame.
- Rows with fixed supports: two disjoint supports have inner product 0, an error of 1/(K-1) in the
  ETF's Gram matrix.
- The von Neumann entropy S of the normalised autocorrelation satisfies
  $e^S\le\operatorname{rank}$, and
  $\|\lambda-\frac1d\|_1\le\sqrt{2(\log d-S)}$ (Pinsker): full entropy means isotropy.

Sources: liu2023-inducing, xiao2024-fedloge, kim2023-effective; statements derived here, the papers'
texts were not consulted."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, least_squares, minimize

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    one_of,
)
from theorylab.neural_collapse._losses import CrossEntropy
from theorylab.neural_collapse.metrics import simplex_etf
from theorylab.neural_collapse.unconstrained_features import UnconstrainedFeatures
from theorylab.numerics.results import result

__all__ = [
    "RegularisedMinimizer",
    "SparseEtf",
    "SparseStatus",
    "correlation_factor",
    "cosine_remainder",
    "disjoint_pairs",
    "etf_aligned_minimizer",
    "mean_max_cosine",
    "mean_min_angle",
    "random_supports",
    "regularised_minimizer",
    "sparse_etf",
    "spread_centres",
    "von_neumann_entropy",
]

_LBFGS: Any = {"maxiter": 5000, "maxfun": 10000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-9}


@result
class RegularisedMinimizer:
    """Free features under cross-entropy with a regulariser of the class means; features of a class
    coincide.

    Attributes
    ----------
    loss
        Cross-entropy with weight decay, without the regulariser.
    spread
        The regulariser, without its strength.
    classifier
        (K, d).
    class_features
        (d, K).
    """

    loss: float
    spread: float
    classifier: FloatArray
    class_features: FloatArray

    @property
    def feature_cosines(self) -> FloatArray:
        """(K, K) cosines of the class features."""
        return _cosines(self.class_features.T)

    @property
    def classifier_cosines(self) -> FloatArray:
        """(K, K) cosines of the rows of the classifier."""
        return _cosines(self.classifier)


class SparseStatus(StrEnum):
    """What was found out about a simplex frame with fixed supports."""

    EXISTS = "a frame exists: Newton's method converges from the weights found (Kantorovich's test)"
    DISJOINT = (
        "there is none: two supports are disjoint, so that the Gram matrix errs by 1/(K-1) at least"
    )
    UNDECIDED = "no frame was found, and no two supports are disjoint"


@result
class SparseEtf:
    """The best simplex frame found for fixed supports.

    Attributes
    ----------
    weights
        (K, d), zero off the supports.
    error
        Largest deviation of an entry of the Gram matrix from that of a simplex frame.
    kantorovich
        Twice the residual over the squared smallest singular value of the Jacobian; below 1/2 an
        exact solution lies nearby. With disjoint supports, of the equations of all other pairs.
    pairs
        (P, 2) pairs of classes with disjoint supports.
    status
        What that means.
    """

    weights: FloatArray
    error: float
    kantorovich: float
    pairs: NDArray[np.int64]
    status: SparseStatus


def mean_max_cosine(centres: ArrayLike, *, sharpness: float | None = None) -> float:
    r"""Return $\frac1K\sum_i\max_{j\ne i}\cos(c_i,c_j)$ or its smooth form $R_b$; both
    are at least -1/(K-1).

    Parameters
    ----------
    centres
        (K, d), K >= 2, no row zero.
    sharpness
        b > 0 of the smooth form; None for the maximum.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import mean_max_cosine
    >>> mean_max_cosine([[1.0, 0.0], [-1.0, 0.0]])
    -1.0
    """
    unit = _unit(_rows(centres))
    if sharpness is None:
        return float(_others(unit @ unit.T).max(axis=1).mean())
    return _smooth(unit, as_real(sharpness, "sharpness", above=0.0))[0]


def mean_min_angle(centres: ArrayLike) -> float:
    r"""Return $\frac1K\sum_i\min_{j\ne i}\angle(c_i,c_j)$, the regulariser of
    liu2023-inducing up to its sign.

    Parameters
    ----------
    centres
        (K, d), K >= 2, no row zero.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import mean_min_angle
    >>> mean_min_angle([[1.0, 0.0], [-1.0, 0.0]]) / np.pi
    1.0
    """
    unit = _unit(_rows(centres))
    return float(np.arccos(np.clip(_others(unit @ unit.T).max(axis=1), -1, 1)).mean())


def spread_centres(
    n_classes: int,
    dimension: int,
    *,
    rng: np.random.Generator,
    quantity: str = "cosine",
    restarts: int = 5,
) -> FloatArray:
    """Spread unit centres: minimize the mean of the largest cosines, or maximize that of the least
    angles.

    L-BFGS on the smooth form, sharpened by factors of 10; the best of several random starts by the
    unsmoothed value.

    Parameters
    ----------
    n_classes, dimension
        K >= 2 centres in d >= 1 dimensions.
    rng
        For the starts.
    quantity
        ``"cosine"`` or ``"angle"``.
    restarts
        Number of starts.

    Returns
    -------
    numpy.ndarray
        (K, d) unit rows.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import spread_centres
    >>> centres = spread_centres(3, 2, rng=np.random.default_rng(0))
    >>> np.round(centres @ centres.T, 4)
    array([[ 1. , -0.5, -0.5],
           [-0.5,  1. , -0.5],
           [-0.5, -0.5,  1. ]])
    """
    K, d = as_count(n_classes, "n_classes", minimum=2), as_count(dimension, "dimension")
    as_instance(rng, "rng", np.random.Generator)
    one_of(quantity, "quantity", ("cosine", "angle"))
    angle = quantity == "angle"
    found = []
    for _ in range(as_count(restarts, "restarts")):
        x = rng.standard_normal((K, d))
        for sharpness in 10.0 ** np.arange(1, 6):

            def value(flat: FloatArray, sharpness: float = sharpness) -> tuple[float, FloatArray]:
                rows = flat.reshape(K, d)
                norms = np.linalg.norm(rows, axis=1, keepdims=True)
                number, slope = _smooth(rows / norms, sharpness, angle)
                return number, _through_norm(slope, rows / norms, norms).ravel()

            x = _unit(
                minimize(value, x.ravel(), jac=True, method="L-BFGS-B", options=_LBFGS).x.reshape(
                    K, d
                )
            )
        found.append(x)
    return min(found, key=lambda c: -mean_min_angle(c) if angle else mean_max_cosine(c))


def regularised_minimizer(
    model: UnconstrainedFeatures,
    *,
    dimension: int,
    strength: float,
    rng: np.random.Generator,
    sharpness: float = 30.0,
    restarts: int = 5,
) -> RegularisedMinimizer:
    r"""Minimize cross-entropy with free features, no bias, plus $\gamma R_b$ of the class
    means (L-BFGS, multi-start).

    Given W and the class means, cross-entropy and weight decay are convex in the features of a
    class, so they coincide without further penalty. One start is the ETF-aligned point, where d >=
    K - 1, so that the bound of the module docstring holds for the result.

    Parameters
    ----------
    model
        Cross-entropy without bias.
    dimension
        d.
    strength
        $\gamma\ge0$.
    rng
        For the starts.
    sharpness
        b > 0.
    restarts
        Number of random starts; at least 1 where d < K - 1.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, regularised_minimizer
    >>> model = UnconstrainedFeatures([3, 1], lam_w=0.01, lam_h=0.01, loss="ce")
    >>> rng = np.random.default_rng(0)
    >>> best = regularised_minimizer(model, dimension=2, strength=0.1, rng=rng)
    >>> round(best.spread, 6)
    -1.0
    """
    K, d = _classes(model), as_count(dimension, "dimension")
    gamma = as_real(strength, "strength", minimum=0.0)
    b = as_real(sharpness, "sharpness", above=0.0)
    as_instance(rng, "rng", np.random.Generator)

    def value(flat: FloatArray) -> tuple[float, FloatArray]:
        W, F = flat[: K * d].reshape(K, d), flat[K * d :].reshape(K, d)
        loss, slope_w, slope_f = _loss(W, F, model)
        if gamma:
            norms = np.linalg.norm(F, axis=1, keepdims=True)
            spread, slope = _smooth(F / norms, b)
            loss += gamma * spread
            slope_f = slope_f + gamma * _through_norm(slope, F / norms, norms)
        return loss, np.concatenate([slope_w.ravel(), slope_f.ravel()])

    fewest = int(d < K - 1)
    starts = [
        rng.standard_normal(2 * K * d)
        for _ in range(as_count(restarts, "restarts", minimum=fewest))
    ]
    if not fewest:
        frame = simplex_etf(K, d)
        W, lengths = _aligned(model, frame)
        lifted = np.maximum(lengths, 1e-3 * lengths.max() + 1e-9)[:, None] * frame
        starts.append(np.concatenate([W.ravel(), lifted.ravel()]))
    ends = [minimize(value, x, jac=True, method="L-BFGS-B", options=_LBFGS) for x in starts]
    best = min(ends, key=lambda end: float(end.fun)).x
    W, F = best[: K * d].reshape(K, d), best[K * d :].reshape(K, d)
    return _minimizer(model, W, F, _smooth(_unit(F), b)[0])


def etf_aligned_minimizer(model: UnconstrainedFeatures, *, dimension: int) -> RegularisedMinimizer:
    """Minimize cross-entropy with free features in the directions of a simplex frame: lengths and
    classifier are free.

    Its loss is the one of the module docstring's bound, and it is the limit of infinitely strong
    regularisation.

    Parameters
    ----------
    model
        Cross-entropy without bias.
    dimension
        d >= K - 1.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import UnconstrainedFeatures, etf_aligned_minimizer
    >>> model = UnconstrainedFeatures([3, 3, 3], lam_w=0.01, lam_h=0.01, loss="ce")
    >>> etf_aligned_minimizer(model, dimension=2)
    <RegularisedMinimizer: loss 0.174533, spread -0.5, classifier (3, 2), class_features (2, 3)>
    """
    K = _classes(model)
    frame = simplex_etf(K, as_count(dimension, "dimension"))
    W, lengths = _aligned(model, frame)
    return _minimizer(model, W, lengths[:, None] * frame, -1 / (K - 1))


def correlation_factor(deviation: float) -> float:
    r"""Return $\phi(r)=\frac{-\log(1-r)-r}{(1-r)\log(1-r)+r}$: zero-mean Gaussian features of
    trace 1 in d dimensions have total correlation at most $\frac d2\phi(r)(\log d-S)$ if no
    eigenvalue is below $(1-r)/d$ (derived).

    With eigenvalues $(1+x_i)/d$, $\sum x_i=0$, the correlation is at most
    $\frac12\sum k(x_i)$, $k(x)=x-\log(1+x)$, and the deficit is
    $\frac1d\sum h(x_i)$, $h(x)=(1+x)\log(1+x)-x$. Both vanish at 0, and
    $k'/h'=(1-e^{-u})/u$, $u=\log(1+x)$, decreases: so does k/h, which is
    $\phi(r)$ at x = -r.

    Parameters
    ----------
    deviation
        r, from 0 to 1 (excluded).

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import correlation_factor
    >>> correlation_factor(0.0)
    1.0
    """
    r = as_real(deviation, "deviation", minimum=0.0, below=1.0)
    if r < 1e-3:  # the series, whose next term is below 1e-12; the quotient loses all digits
        return 1 + r / 3 + 2 * r**2 / 9 + 23 * r**3 / 135
    log = math.log1p(-r)
    return (-log - r) / ((1 - r) * log + r)


def cosine_remainder(excess: ArrayLike, n_classes: int, *, sharpness: float) -> FloatArray:
    r"""Bound how far a cosine of two centres can be from -1/(K-1), given
    $R_b\le-\frac1{K-1}+$ excess.

    K times the excess is $\|\sum c_i\|^2/(K-1)$ plus, for each i, the difference of
    log-mean-exp and mean of its cosines; each is non-negative and bounds the deviation of the mean,
    and of the extreme cosines from it (derived).

    Parameters
    ----------
    excess
        (m,) non-negative.
    n_classes
        K >= 3.
    sharpness
        b > 0.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import cosine_remainder
    >>> np.round(cosine_remainder([0.01, 0.001], 4, sharpness=100.0), 3)
    array([0.204, 0.052])
    """
    e = as_array(excess, "excess", ndim=1, nonnegative=True)
    K = as_count(n_classes, "n_classes", minimum=3)
    b = as_real(sharpness, "sharpness", above=0.0)

    def deviation(budget: float, side: float) -> float:
        """Largest deviation of one of K - 1 numbers from their mean if log-mean-exp exceeds it by
        the budget."""

        def left(delta: float) -> float:
            return (
                float(
                    np.logaddexp(side * b * delta, np.log(K - 2) - side * b * delta / (K - 2))
                    - np.log(K - 1)
                )
                / b
                - budget
            )

        return 2.0 if left(2.0) <= 0 else brentq(left, 0.0, 2.0) if budget else 0.0

    return np.array(
        [np.sqrt(K * v / (K - 1)) + max(deviation(K * v, 1.0), deviation(K * v, -1.0)) for v in e]
    )


def random_supports(
    n_classes: int, dimension: int, *, sparsity: float, rng: np.random.Generator
) -> FloatArray:
    """Return (K, d) masks of 0 and 1 with ``round((1 - sparsity) d)`` ones at random places in each
    row, at least one.

    Parameters
    ----------
    n_classes, dimension
        K >= 2 rows of d >= 1 entries.
    sparsity
        Share of zeros, from 0 to 1 (excluded).
    rng
        For the places.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import random_supports
    >>> random_supports(3, 4, sparsity=0.5, rng=np.random.default_rng(0)).sum(axis=1)
    array([2., 2., 2.])
    """
    K, d = as_count(n_classes, "n_classes", minimum=2), as_count(dimension, "dimension")
    share = as_real(sparsity, "sparsity", minimum=0.0, below=1.0)
    as_instance(rng, "rng", np.random.Generator)
    size = max(1, round((1 - share) * d))
    return (rng.random((K, d)).argsort(axis=1) < size).astype(float)


def disjoint_pairs(supports: ArrayLike) -> NDArray[np.int64]:
    """Return the (P, 2) pairs of rows whose supports are disjoint; one pair rules out a simplex
    frame.

    Parameters
    ----------
    supports
        (K, d) masks, non-zero where a weight may be.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import disjoint_pairs
    >>> disjoint_pairs([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    array([[0, 1]])
    """
    mask = _rows(supports, "supports") != 0
    return np.argwhere(np.triu(mask.astype(int) @ mask.T.astype(int) == 0, 1))


def sparse_etf(supports: ArrayLike, *, rng: np.random.Generator, restarts: int = 5) -> SparseEtf:
    r"""Look for a simplex frame with fixed supports (xiao2024-fedloge's static sparse classifier).

    A frame's rows sum to zero, so the unknowns are taken in that subspace and the equations are the
    off-diagonal entries of the Gram matrix: they determine the diagonal, and their Jacobian is
    regular in general. With disjoint pairs those are left out and the diagonal is added; the best
    error of any weights is then 1/(K-1) where the other equations can be solved.

    Parameters
    ----------
    supports
        (K, d) masks, non-zero where a weight may be.
    rng
        For the starts.
    restarts
        Largest number of starts of Gauss and Newton's method with a trust region.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import sparse_etf
    >>> found = sparse_etf(np.ones((3, 3)), rng=np.random.default_rng(0))
    >>> found.status.name, bool(found.error < 1e-12)
    ('EXISTS', True)
    """
    mask = _rows(supports, "supports") != 0
    as_instance(rng, "rng", np.random.Generator)
    K, d = mask.shape
    pairs = disjoint_pairs(mask)
    target = simplex_etf(K, K) @ simplex_etf(K, K).T
    met = mask.astype(int) @ mask.T.astype(int) > 0
    basis = _unknowns(mask, balanced=len(pairs) == 0)
    i, j = np.nonzero(np.triu(met, 1 if len(pairs) == 0 else 0))
    best, least = np.zeros((K, d)), np.inf
    kantorovich = np.inf
    rows = basis.shape[1]
    for _ in range(as_count(restarts, "restarts")):
        if rows == 0:
            break

        def residual(z: FloatArray) -> FloatArray:
            W = (basis @ z).reshape(K, d)
            values: FloatArray = np.sum(W[i] * W[j], axis=1) - target[i, j]
            return values

        def jacobian(z: FloatArray) -> FloatArray:
            W = (basis @ z).reshape(K, d)
            full = np.zeros((i.size, K, d))
            equation = np.arange(i.size)
            full[equation, i] += W[j]
            full[equation, j] += W[i]
            slopes: FloatArray = full.reshape(i.size, -1) @ basis
            return slopes

        z0 = rng.standard_normal(rows) / np.sqrt(max(1.0, mask.sum() / K))
        # Towards a zero of the residual every step gains more than ftol; an end elsewhere need not
        # be exact.
        z = least_squares(
            residual, z0, jac=jacobian, xtol=1e-15, ftol=1e-8, gtol=1e-15, max_nfev=300
        ).x
        W = (basis @ z).reshape(K, d)
        error = float(np.abs(W @ W.T - target).max())
        if error < least:
            best, least = W, error
            # The Jacobian of W W^T is Lipschitz with constant 2, and the basis is orthonormal.
            singular = np.linalg.svd(jacobian(z), compute_uv=False)
            regular = rows >= i.size and singular[-1] > 0
            kantorovich = (
                float(2 * np.linalg.norm(residual(z)) / singular[-1] ** 2) if regular else np.inf
            )
        if kantorovich < 0.5:
            break
    least = least if np.isfinite(least) else float(np.abs(target).max())
    status = (
        SparseStatus.DISJOINT
        if len(pairs)
        else SparseStatus.EXISTS
        if kantorovich < 0.5
        else SparseStatus.UNDECIDED
    )
    return SparseEtf(best, least, kantorovich, pairs, status)


def von_neumann_entropy(features: ArrayLike, *, normalise: bool = True) -> float:
    r"""Return $-\sum\lambda_i\log\lambda_i$ of the spectrum of the autocorrelation
    $HH^\top/N$ (kim2023-effective).

    With unit columns the eigenvalues sum to one, and the exponential of the entropy is at most the
    rank, d where isotropic.

    Parameters
    ----------
    features
        (d, N), a column a sample; not zero where normalised.
    normalise
        Whether to scale every column to length one first.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import von_neumann_entropy
    >>> np.exp(von_neumann_entropy(np.eye(4), normalise=True)).round(6).item()
    4.0
    """
    H = as_array(features, "features", ndim=2)
    if as_flag(normalise, "normalise"):
        if not H.any(axis=0).all():
            raise ValueError("features: expected columns other than zero, got a zero column")
        H = _unit(H.T).T
    spectrum = np.linalg.svd(H, compute_uv=False) ** 2 / H.shape[1]
    spectrum = spectrum[spectrum > 0]
    return float(-np.sum(spectrum * np.log(spectrum)))


def _rows(value: ArrayLike, name: str = "centres") -> FloatArray:
    rows = as_array(value, name, ndim=2)
    if rows.shape[0] < 2 or not rows.any(axis=1).all():
        raise ValueError(
            f"{name}: expected at least two rows, none of them zero, got shape "
            f"{rows.shape} with zero rows or too few"
        )
    return rows


def _unit(rows: FloatArray) -> FloatArray:
    # Scaled by the largest entry first, so that the squares of tiny rows do not vanish.
    scaled = rows / np.abs(rows).max(axis=1, keepdims=True)
    unit: FloatArray = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return unit


def _cosines(rows: FloatArray) -> FloatArray:
    unit = _unit(rows)
    cosines: FloatArray = unit @ unit.T
    return cosines


def _others(gram: FloatArray) -> FloatArray:
    """Return the off-diagonal entries, row by row, (K, K - 1)."""
    K = len(gram)
    return gram[~np.eye(K, dtype=bool)].reshape(K, K - 1)


def _smooth(unit: FloatArray, sharpness: float, angle: bool = False) -> tuple[float, FloatArray]:
    """Return the smooth mean of largest cosines (or of the negated least angles), and its gradient
    in the unit rows."""
    K = len(unit)
    gram = np.clip(unit @ unit.T, -1, 1)
    score, slope = gram, np.ones_like(gram)
    if angle:
        score = -np.arccos(gram)
        slope = 1 / np.sqrt(np.maximum(1 - gram**2, 1e-12))
    scaled = sharpness * score
    np.fill_diagonal(scaled, -np.inf)
    # Value and gradient share the exponentials.
    top = scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled - top)
    totals = powers.sum(axis=1, keepdims=True)
    value = float(np.mean(top + np.log(totals / (K - 1))) / sharpness)
    weight = powers / totals * slope / K
    gradient: FloatArray = (weight + weight.T) @ unit
    return value, gradient


def _through_norm(slope: FloatArray, unit: FloatArray, norms: FloatArray) -> FloatArray:
    """Return the gradient in the rows, given that in the rows scaled to length one."""
    gradient: FloatArray = (slope - np.sum(slope * unit, axis=1, keepdims=True) * unit) / norms
    return gradient


def _classes(model: UnconstrainedFeatures) -> int:
    """Return the number of classes of a model that can be regularised."""
    as_instance(model, "model", UnconstrainedFeatures)
    if model.bias or not isinstance(model.loss, CrossEntropy):
        raise ValueError(
            f"model: expected cross-entropy without bias, got {model.loss} and bias={model.bias}"
        )
    return model.counts.size


def _aligned(model: UnconstrainedFeatures, frame: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return classifier and lengths (K,) at the minimum, for class features along the frame."""
    K, d = frame.shape

    def value(flat: FloatArray) -> tuple[float, FloatArray]:
        W, lengths = flat[: K * d].reshape(K, d), flat[K * d :]
        loss, slope_w, slope_f = _loss(W, lengths[:, None] * frame, model)
        return loss, np.concatenate([slope_w.ravel(), np.sum(slope_f * frame, axis=1)])

    bounds = [(None, None)] * (K * d) + [(0.0, None)] * K
    start = np.concatenate([frame.ravel(), np.ones(K)])
    end = minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_LBFGS).x
    return end[: K * d].reshape(K, d), end[K * d :]


def _minimizer(
    model: UnconstrainedFeatures, W: FloatArray, F: FloatArray, spread: float
) -> RegularisedMinimizer:
    """Return the point in the units of the model."""
    unit = (model.lam_w / model.lam_h) ** 0.25
    return RegularisedMinimizer(_loss(W, F, model)[0], spread, W / unit, unit * F.T)


def _loss(
    W: FloatArray, F: FloatArray, model: UnconstrainedFeatures
) -> tuple[float, FloatArray, FloatArray]:
    """Return cross-entropy with weight decay for class features in the rows of F, and its
    gradients; in the unit of the features in which both have the same weight decay, as only the
    product matters to the logits."""
    n, lam = model.counts.astype(np.float64), model.price
    value, slope = model.loss.mean(W @ F.T, np.arange(n.size), n)
    value += lam / 2 * float(np.sum(W**2) + n @ np.sum(F**2, axis=1))
    return value, slope @ F + lam * W, slope.T @ W + lam * n[:, None] * F


def _unknowns(mask: NDArray[np.bool_], *, balanced: bool) -> FloatArray:
    """Return an orthonormal basis, (K d, p), of the weights with these supports, with rows that sum
    to zero if balanced."""
    K, d = mask.shape
    columns = []
    for c in range(d):
        classes = np.flatnonzero(mask[:, c])
        block = np.eye(classes.size)
        if balanced:
            block = (
                simplex_etf(classes.size, classes.size - 1) * np.sqrt(1 - 1 / classes.size)
                if classes.size > 1
                else block[:, :0]
            )
        for v in block.T:
            column = np.zeros((K, d))
            column[classes, c] = v
            columns.append(column.ravel())
    return np.array(columns).T if columns else np.zeros((K * d, 0))
