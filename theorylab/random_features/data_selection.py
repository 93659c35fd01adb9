r"""Least squares on a selected part of the data: what a selection rule costs, and the best rules.

$y=\langle\theta,x\rangle+\varepsilon$, noise variance $\sigma^2(x)$; a sample is kept
with probability $\pi(x)$. As the number N of samples grows, N times the covariance of least
squares on the kept samples, and of least squares with weights $1/\pi$, tends to

$$H_\pi^{-1}\,\mathbb E[\pi\sigma^2xx^\top]\,H_\pi^{-1},\ H_\pi=\mathbb E[\pi xx^\top],
\qquad H^{-1}\,\mathbb E[\sigma^2xx^\top/\pi]\,H^{-1},\ H=\mathbb E[xx^\top].$$

In one dimension, at equal noise and a kept fraction $\gamma$, the first is least for the
largest $|x|$, the second for $\pi=\min(c|x|,1)$, and their quotient lies in
$[1,1/\gamma]$. Where the noise varies and any fraction may be kept, the best rule keeps those
x whose noise variance is at most twice the weighted mean
$\mathbb E[\pi\sigma^2x^2]/\mathbb E[\pi x^2]$ of what it keeps. At a kept fraction the best
rule keeps the x of largest influence $x^2(2\bar v-\sigma^2(x))$, $\bar v$ the weighted
mean noise of what it keeps; the influence at the full sample has that of all samples (derived).

Source: kolossov2024-towards (derived; text not seen)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.results import result

__all__ = [
    "QuietSubset",
    "hard_selection",
    "proportional_selection",
    "quietest_fraction",
    "quietest_subset",
    "selection_covariance",
    "selection_influence",
    "simulate_selection",
]


@refuses_overflow("X", "noise_variances")
def selection_covariance(
    X: ArrayLike,
    probabilities: ArrayLike,
    selection: ArrayLike,
    *,
    noise_variances: ArrayLike,
    weighted: bool,
) -> FloatArray:
    """Return the limit of N times the covariance of least squares on selected samples.

    Parameters
    ----------
    X
        (m, d) values of x.
    probabilities
        (m,) of the values, summing to 1.
    selection
        (m,) probabilities of being kept; positive ones if ``weighted``.
    noise_variances
        (m,) of the responses.
    weighted
        Whether a kept sample has the weight 1 / selection.

    Examples
    --------
    >>> from theorylab.random_features import selection_covariance
    >>> half = [0.5, 0.5]
    >>> selection_covariance(
    ...     [[1.0], [2.0]], half, half, noise_variances=[1.0, 1.0], weighted=False
    ... ).tolist()
    [[0.8]]
    """
    X, w, pi, noise = _population(X, probabilities, selection, noise_variances)
    if as_flag(weighted, "weighted"):
        if (pi <= 0).any():
            raise ValueError("selection: expected positive numbers for weights, got 0")
        inner, outer = w, w * noise / pi
    else:
        inner, outer = w * pi, w * pi * noise
    units = _units(X)
    Z = X / units
    inverse = _inverse((Z.T * inner) @ Z)
    covariance: FloatArray = inverse @ ((Z.T * outer) @ Z) @ inverse / units / units[:, None]
    return covariance


@refuses_overflow("X", "noise_variances")
def selection_influence(
    X: ArrayLike, probabilities: ArrayLike, selection: ArrayLike, *, noise_variances: ArrayLike
) -> FloatArray:
    r"""Return how fast the trace of the unweighted :func:`selection_covariance` falls if more of
    each value is kept, per unit of kept probability, shape (m,).

    $2x^\top H^{-2}GH^{-1}x-\sigma^2(x)\,x^\top H^{-2}x$ with $H=\mathbb
    E[\pi xx^\top]$, $G=\mathbb E[\pi\sigma^2xx^\top]$; ones as ``selection`` give the
    influence on the full sample.

    Parameters
    ----------
    X, probabilities, selection, noise_variances
        As in :func:`selection_covariance`.

    Examples
    --------
    >>> from theorylab.random_features import selection_influence
    >>> selection_influence(
    ...     [[1.0], [2.0]], [0.5, 0.5], [1.0, 1.0], noise_variances=[1.0, 1.0]
    ... ).round(12).tolist()
    [0.16, 0.64]
    """
    X, w, pi, noise = _population(X, probabilities, selection, noise_variances)
    units = _units(X)
    Z = X / units
    inverse = _inverse((Z.T * (w * pi)) @ Z)
    # Rows are H^-1 x and G H^-1 x, in units of the columns.
    solved = Z @ inverse
    spread = solved @ ((Z.T * (w * pi * noise)) @ Z) @ inverse
    influence: FloatArray = np.sum(
        solved / units * ((2 * spread - noise[:, None] * solved) / units), 1
    )
    return influence


def hard_selection(scores: ArrayLike, probabilities: ArrayLike, fraction: float) -> FloatArray:
    """Return the selection of a fraction with the largest scores; the last value is kept in part.

    Parameters
    ----------
    scores
        (m,) of the values.
    probabilities
        (m,) of the values, summing to 1.
    fraction
        Kept in the mean, in (0, 1].

    Examples
    --------
    >>> from theorylab.random_features import hard_selection
    >>> hard_selection([1.0, 3.0, 2.0], [0.5, 0.25, 0.25], 0.375).tolist()
    [0.0, 1.0, 0.5]
    """
    score = as_array(scores, "scores", ndim=1)
    w = _distribution(probabilities, "probabilities", score.size)
    gamma = as_real(fraction, "fraction", above=0.0, maximum=1.0)
    order = np.argsort(-score, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(w[order])[:-1]])
    share = np.clip((gamma - before) / np.maximum(w[order], np.finfo(float).tiny), 0.0, 1.0)
    selection = np.empty(score.size)
    selection[order] = share
    return selection


def proportional_selection(
    sizes: ArrayLike, probabilities: ArrayLike, fraction: float
) -> FloatArray:
    """Return the selection min(c sizes, 1) of a fraction.

    Parameters
    ----------
    sizes
        (m,) positive.
    probabilities
        (m,) of the values, summing to 1.
    fraction
        Kept in the mean, in (0, 1].

    Examples
    --------
    >>> from theorylab.random_features import proportional_selection
    >>> proportional_selection([1.0, 6.0], [0.5, 0.5], 0.625).tolist()
    [0.25, 1.0]
    """
    size = as_array(sizes, "sizes", ndim=1, positive=True)
    w = _distribution(probabilities, "probabilities", size.size)
    gamma = as_real(fraction, "fraction", above=0.0, maximum=1.0)
    size = size / power_of_two(size)
    order = np.argsort(-size, kind="stable")
    # With the j largest kept for certain, c = (gamma - their probability) / the mean of the rest.
    sure = np.concatenate([[0.0], np.cumsum(w[order])[:-1]])
    rest = np.cumsum((w * size)[order][::-1])[::-1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        c = np.where(rest > 0, (gamma - sure) / rest, np.inf)
        fits = c * size[order] <= 1 + 1e-12
    j = int(np.argmax(fits)) if fits.any() else size.size
    selection = np.ones(size.size)
    selection[order[j:]] = np.minimum(c[j] * size[order[j:]], 1.0) if j < size.size else 1.0
    return np.maximum(selection, 0.0)


@result
class QuietSubset:
    """The kept values, N times the limiting variance, and the noise variance that is the limit."""

    selection: FloatArray
    variance: float
    cutoff: float


@refuses_overflow("x", "noise_variances")
def quietest_subset(
    x: ArrayLike, probabilities: ArrayLike, *, noise_variances: ArrayLike
) -> QuietSubset:
    r"""Return the selection of least limiting variance
    $\mathbb E[\pi\sigma^2x^2]/\mathbb E[\pi x^2]^2$ in one dimension, any fraction being
    allowed.

    For a given denominator the rule is a threshold on the noise; between two thresholds the
    quotient has no interior minimum: the best of all sets of the least noisy values is the best of
    all rules.

    Parameters
    ----------
    x
        (m,) values, not all 0.
    probabilities
        (m,) of the values, summing to 1.
    noise_variances
        (m,) of the responses, positive.

    Examples
    --------
    >>> from theorylab.random_features import quietest_subset
    >>> quietest_subset([1.0, 1.0], [0.5, 0.5], noise_variances=[1.0, 5.0]).selection.tolist()
    [1.0, 0.0]
    """
    x, w, noise = _line(x, probabilities, noise_variances)
    unit, loud = power_of_two(x), power_of_two(noise)
    information, order = w * (x / unit) ** 2, np.argsort(noise, kind="stable")
    information[w * np.abs(x) > 0] = np.maximum(
        information[w * np.abs(x) > 0], np.finfo(float).tiny
    )
    denominator = np.cumsum(information[order])
    numerator = np.cumsum((information * (noise / loud))[order])
    used = denominator > 0
    variance = np.full(x.size, np.inf)
    variance[used] = numerator[used] / denominator[used] / denominator[used]
    # Ties are kept together, since the quotient has no minimum between their ends.
    best = int(np.argmin(variance))
    selection = np.zeros(x.size)
    selection[order[: best + 1]] = 1.0
    cutoff = 2 * float(numerator[best] / denominator[best])
    return QuietSubset(selection, float(variance[best]) * loud / unit / unit, cutoff * loud)


@refuses_overflow("x", "noise_variances")
def quietest_fraction(
    x: ArrayLike, probabilities: ArrayLike, fraction: float, *, noise_variances: ArrayLike
) -> QuietSubset:
    r"""Return the selection of least limiting variance
    $\mathbb E[\pi\sigma^2x^2]/\mathbb E[\pi x^2]^2$ in one dimension among those that keep a
    fraction.

    It keeps the values of largest $x^2(c-\sigma^2(x))$ with c twice the weighted mean noise
    of what it keeps, the last in part: every order of these scores is tried, of which there are
    at most (m^2 - m) / 2 + 1.

    Parameters
    ----------
    x, probabilities, noise_variances
        As in :func:`quietest_subset`; at most 500 values.
    fraction
        Kept in the mean, in (0, 1].

    Returns
    -------
    QuietSubset
        Its ``cutoff`` is c.

    Examples
    --------
    >>> from theorylab.random_features import quietest_fraction
    >>> quietest_fraction(
    ...     [1.0, 2.0], [0.5, 0.5], 0.5, noise_variances=[1.0, 5.0]
    ... ).selection.tolist()
    [1.0, 0.0]
    """
    x, w, noise = _line(x, probabilities, noise_variances)
    if x.size > 500:
        raise ValueError(f"x: expected at most 500 values, got {x.size}")
    unit, loud = power_of_two(x), power_of_two(noise)
    square, scaled = (x / unit) ** 2, noise / loud
    i, j = np.triu_indices(x.size, 1)
    apart = square[i] != square[j]
    i, j = i[apart], j[apart]
    # Where two scores cross.
    ties = (square[i] * scaled[i] - square[j] * scaled[j]) / (square[i] - square[j])
    ties = np.unique(np.concatenate([[0.0], ties[ties > 0]]))
    best, found, ratio = np.inf, np.ones(x.size), 1.0
    for c in np.append((ties[1:] + ties[:-1]) / 2, 2 * ties[-1] + 2):
        pi = hard_selection(square * (c - scaled), w, fraction)
        kept = float(w @ (pi * square))
        if kept > 0 and (mean := float(w @ (pi * square * scaled)) / kept) / kept < best:
            best, found, ratio = mean / kept, pi, mean
    return QuietSubset(found, best * loud / unit / unit, 2 * ratio * loud)


@refuses_overflow("X", "noise_variances")
def simulate_selection(
    X: ArrayLike,
    probabilities: ArrayLike,
    selection: ArrayLike,
    *,
    noise_variances: ArrayLike,
    weighted: bool,
    n_samples: int,
    n_draws: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Return N times the trace of the covariance of least squares given drawn samples and a drawn
    selection, averaged over the noise, for each draw.

    Parameters
    ----------
    X, probabilities, selection, noise_variances, weighted
        As in :func:`selection_covariance`.
    n_samples
        N, before the selection.
    n_draws
        Number of draws.
    rng
        Generator.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import simulate_selection
    >>> simulate_selection(
    ...     [[1.0]], [1.0], [1.0], noise_variances=[2.0], weighted=False,
    ...     n_samples=8, n_draws=2, rng=np.random.default_rng(0),
    ... ).tolist()
    [2.0, 2.0]
    """
    X, w, pi, noise = _population(X, probabilities, selection, noise_variances)
    reweighted = as_flag(weighted, "weighted")
    n, draws = as_count(n_samples, "n_samples"), as_count(n_draws, "n_draws")
    rng = as_instance(rng, "rng", np.random.Generator)
    if reweighted and (pi <= 0).any():
        raise ValueError("selection: expected positive numbers for weights, got 0")
    units = _units(X)
    # Only the numbers of kept samples of each value matter.
    joint = np.append(w * pi, max(1 - float(w @ pi), 0.0))
    kept = rng.multinomial(n, joint / joint.sum(), size=draws)[:, :-1].astype(float)
    weights = 1 / np.maximum(pi, np.finfo(float).tiny) if reweighted else np.ones_like(pi)
    outer = np.einsum("ij,ik->ijk", X / units, X / units)
    hessian = np.tensordot(kept * weights, outer, 1)
    values = np.linalg.eigvalsh(hessian)
    if not (values[:, 0] > 1e-13 * values[:, -1]).all():
        raise ValueError("n_samples: expected kept samples that span in every draw, got too few")
    middle = np.tensordot(kept * weights**2 * noise, outer, 1)
    inverse = np.linalg.inv(hessian)
    traces: FloatArray = n * np.einsum("aij,ajk,aki,i->a", inverse, middle, inverse, units**-2.0)
    return traces


def _population(
    X: ArrayLike, probabilities: ArrayLike, selection: ArrayLike, noise_variances: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    X = as_array(X, "X", ndim=2)
    w = _distribution(probabilities, "probabilities", len(X))
    pi = as_array(selection, "selection", shape=(len(X),), nonnegative=True)
    if (pi > 1).any():
        raise ValueError(f"selection: expected probabilities, got {pi.max()}")
    noise = as_array(noise_variances, "noise_variances", shape=(len(X),), nonnegative=True)
    return X, w, pi, noise


def _line(
    x: ArrayLike, probabilities: ArrayLike, noise_variances: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    x = as_array(x, "x", ndim=1)
    w = _distribution(probabilities, "probabilities", x.size)
    noise = as_array(noise_variances, "noise_variances", shape=x.shape, positive=True)
    if not (w * np.abs(x) > 0).any():
        raise ValueError("x: expected a value that is not 0 and has positive probability")
    return x, w, noise


def _units(X: FloatArray) -> FloatArray:
    """Return a power of two near each column."""
    return np.array([power_of_two(column) for column in X.T])


def _inverse(hessian: FloatArray) -> FloatArray:
    values = np.linalg.eigvalsh(hessian)
    if not values[0] > 1e-13 * values[-1]:
        raise ValueError("selection: expected kept values of X that span, got dependent ones")
    return np.linalg.inv(hessian).astype(np.float64, copy=False)


def _distribution(probabilities: ArrayLike, name: str, size: int) -> FloatArray:
    w = as_array(probabilities, name, shape=(size,), nonnegative=True)
    # As far as the precision of what came goes.
    single = np.asarray(probabilities).dtype in (np.float16, np.float32)
    if abs(w.sum() - 1) > (1e-3 if single else 1e-9):
        raise ValueError(f"{name}: expected numbers with sum 1, got {w.sum()}")
    return w
