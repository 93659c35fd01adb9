r"""A permutation learnt from its basis vectors: an ensemble of networks in the tangent regime.

Two-layer networks without biases are trained to zero loss on $(e_i,e_{\pi(i)})_{i\le k}$,
tested at $x/\|x\|$, $x\in\{0,1\}^k$ with s ones. With the tangent kernel
$\Theta(u)$, $\Theta(1)=1$, $c=\Theta(0)$, $t=\Theta(1/\sqrt s)$ and
$D=1+(k-1)c$ the mean of an output is

$$\mu_1=\frac1{1-c}\Big(t-\frac{c(st+(k-s)c)}D\Big)\quad\text{or}\quad
\mu_0=\frac{c(1-c-s(t-c))}{(1-c)D}$$

where the permuted input is 1 or 0. The outputs are Gaussian, independent of each other, with the
variance $\Sigma(x,x)-2a^\top\Sigma(X,x)+a^\top\Sigma(X,X)a$,
$a=\Theta(X,X)^{-1}\Theta(X,x)$. For ReLU $c=\frac1{2\pi}$, $\mu_1>0\ge\mu_0$, and
the variance over the squared distance of the mean from a threshold is largest at
$s=k$, where it is $16(1-c)^2(\frac12-c)k$, for the threshold
$\frac{\mu_0+\mu_1}2$, and of order $k^2$ for the threshold 0.

Source: giapitzakis2025-exact (recalled; closed forms and limits derived)."""

from __future__ import annotations

from math import log, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from theorylab._validation import FloatArray, as_array, as_count, as_instance, as_real, one_of
from theorylab.numerics.results import result
from theorylab.random_features.sphere_kernels import (
    AngleActivation,
    output_kernel,
    rectified_power,
    tangent_kernel,
)

__all__ = [
    "CostLimits",
    "OutputLaw",
    "binary_inputs",
    "cost_limits",
    "ensemble_outputs",
    "ensemble_size",
    "noise_to_margin",
    "output_law",
    "trained_mean",
]

THRESHOLDS = ("midpoint", "zero")
RARE = -50.0
"""Logarithm of a probability whose square is lost beside it."""


@result
class OutputLaw:
    """Law of the outputs at inputs with the given numbers of ones: means where the permuted bit is
    1 and where it is 0, and their common variance."""

    one: FloatArray
    zero: FloatArray
    variance: FloatArray


@result
class CostLimits:
    """Limits of the largest variance over squared margin: divided by k for the midpoint, by the
    square of k for the threshold 0."""

    midpoint: float
    zero: float


def output_law(ones: ArrayLike, *, n_bits: int) -> OutputLaw:
    """Return mean and variance of the outputs of a trained ReLU network, in closed form.

    Parameters
    ----------
    n_bits
        k.
    ones
        Numbers of ones, integers from 1 to k, of any shape.

    Examples
    --------
    >>> from theorylab.random_features import output_law
    >>> output_law(1, n_bits=4)
    <OutputLaw: one 1, zero 0, variance 0>
    """
    k = as_count(n_bits, "n_bits", maximum=10**9)
    s = _ones(ones, k)
    angle = np.arccos(1 / np.sqrt(s))
    relu = [rectified_power(1)]
    t, tau = tangent_kernel(angle, relu) / 2, output_kernel(angle, relu) / 2
    c = 1 / (2 * pi)  # of both kernels at orthogonal inputs
    D = 1 + (k - 1) * c
    mean = (s * t + (k - s) * c) / D  # sum of the weights a
    on = (t - c * mean) / (1 - c)
    off = c * (1 - c - s * (t - c)) / ((1 - c) * D)
    squares = s * on**2 + (k - s) * off**2
    variance = 0.5 - 2 * (s * on * tau + (k - s) * off * c) + (0.5 - c) * squares + c * mean**2
    return OutputLaw(on, off, np.where(s == 1, 0.0, variance))


def noise_to_margin(ones: ArrayLike, *, n_bits: int, threshold: str = "midpoint") -> FloatArray:
    r"""Return the variance over the squared distance of the closest mean from the threshold.

    Parameters
    ----------
    n_bits, ones
        As in :func:`output_law`.
    threshold
        ``"midpoint"`` of the two means, or ``"zero"``.

    Examples
    --------
    >>> from theorylab.random_features import noise_to_margin
    >>> noise_to_margin([1, 9], n_bits=9).round(6).tolist()
    [0.0, 13.733242]
    """
    law = output_law(n_bits=n_bits, ones=ones)
    one_of(threshold, "threshold", THRESHOLDS)
    s = np.asarray(ones)
    if threshold == "midpoint":
        margin = (law.one - law.zero) / 2
    else:
        margin = np.where(s < n_bits, np.minimum(law.one, -law.zero), law.one)
    return np.asarray(np.where(s == 1, 0.0, law.variance / np.where(s == 1, 1.0, margin) ** 2))


def cost_limits() -> CostLimits:
    r"""Return the limits for $k\to\infty$ of the largest :func:`noise_to_margin`, over k and
    over $k^2$.

    For the threshold 0 the worst inputs have two ones: the mean of the absent bits is of order 1/k,
    and the variance of order 1.

    Examples
    --------
    >>> from theorylab.random_features import cost_limits
    >>> cost_limits()
    <CostLimits: midpoint 3.85575, zero 2.80363>
    """
    c = 1 / (2 * pi)
    angle, relu = pi / 4, [rectified_power(1)]
    t, tau = float(tangent_kernel(angle, relu)) / 2, float(output_kernel(angle, relu)) / 2
    r = (t - c) / (1 - c)
    variance = 0.5 - 2 * (2 * r * tau + (1 - 2 * r) * c) + (0.5 - c) * 2 * r * r + c
    return CostLimits(16 * (1 - c) ** 2 * (0.5 - c), variance / (1 - 2 * r) ** 2)


def ensemble_size(n_bits: int, *, failure: float, inputs: str = "one") -> int:
    r"""Return the least number of networks whose averaged outputs, cut at the midpoint, are all
    right with a probability of at least $1-\delta$.

    At one input with s ones it is $\Phi(\sqrt N/r_s)^k$ with $r_s^2$ from
    :func:`noise_to_margin`; the failures of several inputs are added up.

    Parameters
    ----------
    n_bits
        k, from 2 to 100,000.
    failure
        $\delta$.
    inputs
        At ``"one"`` input, whichever it is, or at ``"all"`` of the $2^k-1$ at once.

    Examples
    --------
    >>> from theorylab.random_features import ensemble_size
    >>> ensemble_size(8, failure=0.1), ensemble_size(8, failure=0.1, inputs="all")
    (57, 91)
    """
    from scipy.special import gammaln, log_ndtr

    k = as_count(n_bits, "n_bits", minimum=2, maximum=100_000)
    target = log(as_real(failure, "failure", above=0.0, below=1.0))
    together = one_of(inputs, "inputs", ("one", "all")) == "all"
    s = np.arange(2, k + 1)
    root = np.sqrt(noise_to_margin(n_bits=k, ones=s))
    many = gammaln(k + 1) - gammaln(s + 1) - gammaln(k - s + 1)

    def enough(count: int) -> bool:
        z = sqrt(count) / root
        bit = log_ndtr(-z)
        # Where a bit hardly ever fails, k bits fail k times as often.
        with np.errstate(divide="ignore"):
            fails = np.where(bit < RARE, log(k) + bit, np.log(-np.expm1(k * log_ndtr(z))))
        logs = np.logaddexp.reduce(many + fails) if together else fails.max()
        return bool(logs <= target)

    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def binary_inputs(n_bits: int) -> FloatArray:
    """Return all nonzero binary inputs as rows, at most 2^12.

    Parameters
    ----------
    n_bits
        From 1 to 12.

    Examples
    --------
    >>> from theorylab.random_features import binary_inputs
    >>> binary_inputs(2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    k = as_count(n_bits, "n_bits", maximum=12)
    return ((np.arange(1, 2**k)[:, None] >> np.arange(k)) & 1).astype(float)


def trained_mean(
    inputs: ArrayLike,
    permutation: ArrayLike,
    *,
    activation: AngleActivation,
    training: ArrayLike | None = None,
) -> FloatArray:
    """Return the mean outputs of networks trained on the basis vectors, by the kernel matrix.

    Parameters
    ----------
    inputs
        (n, k) non-negative test inputs, scaled to unit length.
    permutation
        (k,) integers: bit i of the input is bit ``permutation[i]`` of the output.
    activation
        Of the network.
    training
        (k, k) training inputs in place of the basis vectors, scaled to unit length.

    Examples
    --------
    >>> from theorylab.random_features import rectified_power, trained_mean
    >>> relu = rectified_power(1)
    >>> trained_mean([[1.0, 0.0]], [1, 0], activation=relu).round(9).tolist()
    [[0.0, 1.0]]
    """
    U, targets, X = _problem(inputs, permutation, training)
    return np.asarray(_weights(U, X, activation) @ targets)


def ensemble_outputs(
    inputs: ArrayLike,
    permutation: ArrayLike,
    *,
    activation: AngleActivation,
    n_models: int,
    n_draws: int,
    seed: int,
) -> FloatArray:
    """Draw the averaged outputs of ensembles of trained networks of infinite width, (n_draws, n,
    k), from Gaussian initial outputs.

    The networks are scaled so that their tangent kernel is 1 at equal inputs.

    Parameters
    ----------
    inputs, permutation, activation
        As in :func:`trained_mean`.
    n_models, n_draws
        Networks in an ensemble, and number of ensembles.
    seed
        Seeds the initial outputs.

    Examples
    --------
    >>> from theorylab.random_features import ensemble_outputs, rectified_power
    >>> size = {"n_models": 2, "n_draws": 3, "seed": 0}
    >>> ensemble_outputs([[1.0, 0.0]], [1, 0], activation=rectified_power(1), **size).shape
    (3, 1, 2)
    """
    U, targets, X = _problem(inputs, permutation, None)
    N, draws = as_count(n_models, "n_models"), as_count(n_draws, "n_draws")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    k, points = len(X), np.vstack([X, U])
    a = _weights(U, X, activation)
    scale = float(tangent_kernel(0.0, [activation]))
    initial = output_kernel(_angles(points, points), [activation]) / scale / N
    values, vectors = np.linalg.eigh(initial)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    outputs = root @ rng.standard_normal((draws, len(points), k))
    trained = outputs[:, k:] + a @ (targets - outputs[:, :k])
    return np.asarray(trained)


def _problem(
    inputs: ArrayLike, permutation: ArrayLike, training: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return test inputs and training inputs of unit length, and targets."""
    order = as_array(permutation, "permutation", ndim=1)
    k = order.size
    if sorted(order.tolist()) != list(range(k)):
        raise ValueError(f"permutation: expected the numbers 0 to {k - 1} in some order")
    U = _unit(as_array(inputs, "inputs", shape=(None, k), nonnegative=True), "inputs")
    X = np.eye(k)
    if training is not None:
        X = _unit(as_array(training, "training", shape=(k, k), nonnegative=True), "training")
    return U, np.eye(k)[order.astype(int)], X


def _weights(U: FloatArray, X: FloatArray, activation: AngleActivation) -> FloatArray:
    phi = [as_instance(activation, "activation", AngleActivation)]
    across, among = (tangent_kernel(_angles(P, X), phi) for P in (U, X))
    try:
        return np.asarray(np.linalg.solve(among, across.T).T)
    except np.linalg.LinAlgError:
        raise ValueError("training: expected inputs whose kernel matrix is invertible") from None


def _unit(points: FloatArray, name: str) -> FloatArray:
    points = points / np.maximum(points.max(axis=1, keepdims=True), np.finfo(float).tiny)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    if not lengths.min() > 0.5:
        raise ValueError(f"{name}: expected rows of positive length, got one of length 0")
    return np.asarray(points / lengths)


def _angles(P: FloatArray, Q: FloatArray) -> FloatArray:
    """Return angles, accurate where they are small."""
    apart = cdist(P, Q)
    return np.asarray(2 * np.arcsin(np.minimum(apart / 2, 1.0)))


def _ones(ones: ArrayLike, k: int) -> FloatArray:
    if np.asarray(ones).dtype.kind not in "iu":
        raise ValueError(f"ones: expected integers, got {ones!r:.60}")
    s = as_array(ones, "ones")
    if s.min() < 1 or s.max() > k:
        raise ValueError(f"ones: expected integers from 1 to n_bits = {k}, got {s.tolist()!r:.60}")
    return s
