r"""Least squares on a selected part of the data: what a selection rule costs, and the best rules.

:math:`y=\langle\theta,x\rangle+\varepsilon`, noise variance :math:`\sigma^2(x)`; a sample is kept
with probability :math:`\pi(x)`. As the number N of samples grows, N times the covariance of least
squares on the kept samples, and of least squares with weights :math:`1/\pi`, tends to

.. math:: H_\pi^{-1}\,\mathbb E[\pi\sigma^2xx^\top]\,H_\pi^{-1},\ H_\pi=\mathbb E[\pi xx^\top],
   \qquad H^{-1}\,\mathbb E[\sigma^2xx^\top/\pi]\,H^{-1},\ H=\mathbb E[xx^\top].

In one dimension, at equal noise and a kept fraction :math:`\gamma`, the first is least for the
largest :math:`|x|`, the second for :math:`\pi=\min(c|x|,1)`, and their quotient lies in
:math:`[1,1/\gamma]`. Where the noise varies and any fraction may be kept, the best rule keeps those
x whose noise variance is at most twice the weighted mean
:math:`\mathbb E[\pi\sigma^2x^2]/\mathbb E[\pi x^2]` of what it keeps (derived).

Source: kolossov2024-towards (derived; text not seen)."""

from typing import NamedTuple

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

__all__ = [
    "QuietSubset",
    "hard_selection",
    "proportional_selection",
    "quietest_subset",
    "selection_covariance",
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
    unit = power_of_two(X)
    Z = X / unit
    hessian = (Z.T * inner) @ Z
    values = np.linalg.eigvalsh(hessian)
    if not values[0] > 1e-13 * values[-1]:
        raise ValueError("selection: expected kept values of X that span, got dependent ones")
    inverse = np.linalg.inv(hessian)
    covariance: FloatArray = inverse @ ((Z.T * outer) @ Z) @ inverse / unit / unit
    return covariance


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


class QuietSubset(NamedTuple):
    """The kept values, N times the limiting variance, and the noise variance that is the limit."""

    selection: FloatArray
    variance: float
    cutoff: float


@refuses_overflow("x", "noise_variances")
def quietest_subset(
    x: ArrayLike, probabilities: ArrayLike, *, noise_variances: ArrayLike
) -> QuietSubset:
    r"""Return the selection of least limiting variance
    :math:`\mathbb E[\pi\sigma^2x^2]/\mathbb E[\pi x^2]^2` in one dimension, any fraction being
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
    x = as_array(x, "x", ndim=1)
    w = _distribution(probabilities, "probabilities", x.size)
    noise = as_array(noise_variances, "noise_variances", shape=x.shape)
    if (noise <= 0).any():
        raise ValueError(f"noise_variances: expected positive numbers, got {noise.min()}")
    if not (w * np.abs(x) > 0).any():
        raise ValueError("x: expected a value that is not 0 and has positive probability")
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
    # The last of equal values, so that ties are kept together.
    last = np.append(np.diff(noise[order]) > 0, True)
    best = int(np.argmin(np.where(last, variance, np.inf)))
    selection = np.zeros(x.size)
    selection[order[: best + 1]] = 1.0
    cutoff = 2 * float(numerator[best] / denominator[best])
    return QuietSubset(selection, float(variance[best]) * loud / unit / unit, cutoff * loud)


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
    unit = power_of_two(X)
    # Only the numbers of kept samples of each value matter.
    joint = np.append(w * pi, max(1 - float(w @ pi), 0.0))
    kept = rng.multinomial(n, joint / joint.sum(), size=draws)[:, :-1].astype(float)
    weights = 1 / np.maximum(pi, np.finfo(float).tiny) if reweighted else np.ones_like(pi)
    outer = np.einsum("ij,ik->ijk", X / unit, X / unit)
    hessian = np.tensordot(kept * weights, outer, 1)
    values = np.linalg.eigvalsh(hessian)
    if not (values[:, 0] > 1e-13 * values[:, -1]).all():
        raise ValueError("n_samples: expected kept samples that span in every draw, got too few")
    middle = np.tensordot(kept * weights**2 * noise, outer, 1)
    inverse = np.linalg.inv(hessian)
    traces: FloatArray = n * np.einsum("aij,ajk,aki->a", inverse, middle, inverse) / unit / unit
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


def _distribution(probabilities: ArrayLike, name: str, size: int) -> FloatArray:
    w = as_array(probabilities, name, shape=(size,), nonnegative=True)
    if abs(w.sum() - 1) > 1e-9:
        raise ValueError(f"{name}: expected numbers with sum 1, got {w.sum()}")
    return w
