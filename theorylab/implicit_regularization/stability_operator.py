r"""Where stochastic gradient descent can stay: the second-moment operator of a minimum.

At a minimum at which each sample has gradient 0 and Hessian $H_i\succeq0$, gradient descent
on random batches is linearised as $w\mapsto(I-\eta H_B)w$, with $\mathbb EH_B=H=\frac1n
\sum_iH_i$, and the second moments $X=\mathbb Eww^\top$ follow

$$\mathcal T_\eta(X)=\mathbb E[(I-\eta H_B)X(I-\eta H_B)]
=X-\eta\mathcal A(X)+\eta^2\mathcal B(X),\quad\mathcal A(X)=HX+XH,\quad
\mathcal B(X)=\frac an\sum_iH_iXH_i+(1-b)HXH.$$

Here a = b = 1/B for batches of B drawn with replacement, a = b = (n-B)/(B(n-1)) without, and
a = 1/B - 1/n, b = 0 if each sample is taken by itself with probability B/n (the sum over the
batch divided by B). The operator is self-adjoint and keeps positive semidefinite matrices so: its
spectral radius is its largest eigenvalue, second moments are bounded iff it is at most 1, and since
$\mathcal A$ is positive on the matrices over range(H) this is $\eta\mathcal B\preceq
\mathcal A$: the stable step sizes are an interval, and its end is one generalised eigenvalue.

Tests of it with one matrix bound the end from above: with I, which bounds the trace of H where
samples have rank one; with $uu^\top$, u the top eigenvector of one $H_i$, which yields
the coherence condition. For one sample a step the loss $L=\frac12w^\top Hw$ grows at least by
$\eta^2\mu\|H\|_F^2+\min_j(1-\eta\lambda_j)^2$, $\mu$ the alignment of the noise.

Papers: wu2023-implicit, dexter2024-precise (constants derived here)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_real,
    as_symmetric,
    one_of,
    precision_of,
    refuses_overflow,
)
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "SecondMoments",
    "StabilityThreshold",
    "coherence",
    "coherence_bound",
    "curvature_bound",
    "loss_growth_bound",
    "moment_bound",
    "noise_alignment",
    "second_moment_operator",
    "stability_threshold",
    "trace_bound",
]

SAMPLINGS = ("replacement", "without", "bernoulli")
MAX_RANK = 40
_BLOCK = 2**22  # entries of the samples' deviations held at a time
EPS = float(np.finfo(float).eps)


@result
class SecondMoments:
    """The second-moment operator on the symmetric matrices over range(H), r the rank of H.

    Attributes
    ----------
    matrix
        Shape (r(r+1)/2, r(r+1)/2), symmetric: the operator in the orthonormal basis of the
        matrices $v_kv_k^\\top$ and $(v_kv_l^\\top+v_lv_k^\\top)/\\sqrt2$, k <= l in the
        order of ``numpy.triu_indices``, v the columns of ``basis``.
    basis
        Shape (d, r): eigenvectors of H.
    growth
        Spectral radius: the factor by which second moments grow in the long run.
    mode
        Shape (d, d): the positive semidefinite matrix of trace 1 that grows by it.
    """

    matrix: FloatArray
    basis: FloatArray
    growth: float
    mode: FloatArray


@result
class StabilityThreshold:
    """The largest step size at which second moments stay bounded.

    Attributes
    ----------
    step_size, lower, upper
        The threshold, and bounds of it: by the rounding of the eigenvalue, and by the test with
        ``mode``.
    mode
        Shape (d, d): the matrix of second moments that neither grows nor decays at the threshold,
        positive semidefinite of trace 1.
    """

    step_size: float
    lower: float
    upper: float
    mode: FloatArray


def second_moment_operator(
    hessians: ArrayLike, *, step_size: float, batch_size: int, sampling: str = "replacement"
) -> SecondMoments:
    """Return the exact operator by which a step of linearised SGD acts on second moments.

    Parameters
    ----------
    hessians
        Shape (n, d, d): of the samples, positive semidefinite; their mean has rank at most 40.
    step_size, batch_size
        Step size, at least 0, and number of samples of a batch (their mean number, for
        ``"bernoulli"``).
    sampling
        ``"replacement"``, ``"without"`` (replacement) or ``"bernoulli"`` (each sample by itself).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import second_moment_operator
    >>> second_moment_operator(np.eye(2)[:, :, None] * np.eye(2)[:, None, :], step_size=1.0,
    ...     batch_size=1).growth
    0.5
    """
    family, exponent = _family(hessians)
    noise = _noise(len(family), batch_size, sampling)
    step = as_real(step_size, "step_size", minimum=0.0)
    return _second_moments(family, exponent, noise, step)


@refuses_overflow("hessians", "step_size")
def _second_moments(
    family: FloatArray, exponent: int, noise: tuple[float, float], step_size: float
) -> SecondMoments:
    reduced, values, basis = _restricted(family)
    step = float(np.ldexp(step_size, exponent))
    drift, square = _drift(values), _square(reduced, noise)
    matrix = np.diag(1 - step * drift) + step**2 * square
    growth, mode = _leading(matrix, len(values))
    return SecondMoments(matrix, basis, growth, _unfold(mode, basis))


def stability_threshold(
    hessians: ArrayLike, *, batch_size: int, sampling: str = "replacement"
) -> StabilityThreshold:
    r"""Return the largest step size at which linearised SGD is stable in mean square.

    It is stable there too: the operator is self-adjoint. Directions in which all Hessians vanish
    are left out.

    Parameters
    ----------
    hessians, batch_size, sampling
        As for :func:`second_moment_operator`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import rank_one_hessians, stability_threshold
    >>> found = stability_threshold(rank_one_hessians([[2.0, 0.0], [0.0, 2.0]]), batch_size=1)
    >>> round(found.step_size, 12)
    0.5
    """
    family, exponent = _family(hessians)
    noise = _noise(len(family), batch_size, sampling)
    return _threshold(family, exponent, noise)


@refuses_overflow("hessians")
def _threshold(family: FloatArray, exponent: int, noise: tuple[float, float]) -> StabilityThreshold:
    reduced, values, basis = _restricted(family)
    drift, square = _drift(values), _square(reduced, noise)
    whitening = 1 / np.sqrt(drift)
    step = 1 / float(np.linalg.eigvalsh(whitening[:, None] * square * whitening)[-1])
    mode = _leading(np.diag(1 - step * drift) + step**2 * square, len(values))[1]
    rounding = 16 * len(drift) * (len(family) + len(values)) * EPS
    # Each matrix bounds the threshold: none grows by more than the leading one.
    tested = float((mode * drift) @ mode / (mode @ square @ mode))
    bounds = (step, step * (1 - rounding), max(step, tested) * (1 + rounding))
    step, lower, upper = (float(np.ldexp(b, -exponent)) for b in bounds)
    if lower == 0.0:
        raise ArithmeticError
    return StabilityThreshold(step, lower, upper, _unfold(mode, basis))


def moment_bound(hessians: ArrayLike, *, batch_size: int, sampling: str = "replacement") -> float:
    r"""Return $2\,\mathrm{tr}H/\mathbb E\,\mathrm{tr}H_B^2$, which no stable step exceeds
    (the operator tested with the identity).

    Parameters
    ----------
    hessians, batch_size, sampling
        As for :func:`second_moment_operator`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import moment_bound, rank_one_hessians
    >>> moment_bound(rank_one_hessians([[1.0], [2.0]]), batch_size=1)
    0.5882352941176471
    """
    family, exponent = _family(hessians)
    a, b = _noise(len(family), batch_size, sampling)
    mean = family.mean(axis=0)
    squares = a * float(np.sum(family**2)) / len(family) + (1 - b) * float(np.sum(mean**2))
    return _in_units(2 * float(np.trace(mean)) / squares, exponent)


@refuses_overflow("hessians")
def _in_units(step: float, exponent: int) -> float:
    return float(np.ldexp(step, -exponent))


def trace_bound(gradients: ArrayLike, *, batch_size: int, sampling: str = "replacement") -> float:
    r"""Return $2/(a\,\mathrm{tr}H)$ for samples of rank one, $\mathrm{tr}H=\frac1n
    \sum_i\|g_i\|^2$, which no stable step exceeds: $2B/\mathrm{tr}H$ with replacement.

    Infinite for the full batch, which bounds no trace.

    Parameters
    ----------
    gradients
        Shape (n, d): of the predictions of the samples, not all 0.
    batch_size, sampling
        As for :func:`second_moment_operator`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import trace_bound
    >>> trace_bound([[1.0], [2.0]], batch_size=1)
    0.8
    """
    g, exponent = _gradients(gradients)
    a, _ = _noise(len(g), batch_size, sampling)
    return _trace_bound(float(np.sum(g**2)) / len(g), a, exponent)


@refuses_overflow("gradients", infinite=True)
def _trace_bound(trace: float, noise: float, exponent: int) -> float:
    if noise == 0.0:
        return np.inf
    bound = float(np.ldexp(2 / (noise * trace), -2 * exponent))
    if np.isinf(bound) or bound == 0.0:
        raise ArithmeticError
    return bound


def noise_alignment(gradients: ArrayLike) -> float:
    r"""Return $\mu=\lambda_{\min}(H^{-1/2}MH^{-1/2})/\|H\|_F^2$ on range(H), with
    $M=\frac1n\sum_i(A_i-H)H(A_i-H)$ and $A_i=g_ig_i^\top$: how much of the curvature
    the noise of one sample a step sees in its least noisy direction.

    It is 0 iff all samples pull alike, $g_i$ parallel and of equal length. Loss stability
    needs $\|H\|_F\le1/(\eta\sqrt\mu)$.

    Parameters
    ----------
    gradients
        Shape (n, d): of the predictions of the samples, not all 0.

    Examples
    --------
    >>> from theorylab.implicit_regularization import noise_alignment
    >>> round(noise_alignment([[1.0, 0.0], [0.0, 1.0]]), 12)
    0.5
    """
    return _alignment(_gradients(gradients)[0])[0]


def _alignment(g: FloatArray) -> tuple[float, FloatArray]:
    """Return the alignment and the positive eigenvalues of H."""
    values, basis = _range(g.T @ g / len(g), "gradients")
    h = g @ basis
    roots = np.sqrt(values)
    noise = np.zeros((values.size, values.size))
    for some in np.array_split(h, math.ceil(h.size * values.size / _BLOCK)):
        # Symmetric: their sum of D diag(values) D is that of products of all columns.
        deviations = (some[:, :, None] * some[:, None, :] - np.diag(values)) * roots
        columns = deviations.swapaxes(0, 1).reshape(values.size, -1)
        noise += columns @ columns.T / len(g)
    least = float(np.linalg.eigvalsh(noise / roots[:, None] / roots)[0])
    return max(least, 0.0) / float(np.sum(values**2)), values


@refuses_overflow("gradients", "step_size")
def loss_growth_bound(gradients: ArrayLike, *, step_size: float) -> float:
    r"""Return $\eta^2\mu\|H\|_F^2+\min_j(1-\eta\lambda_j)^2$, by which at least
    the mean loss grows in a step with one sample, whatever the law of the iterate.

    Parameters
    ----------
    gradients
        Shape (n, d): of the predictions of the samples, not all 0.
    step_size
        At least 0.

    Examples
    --------
    >>> from theorylab.implicit_regularization import loss_growth_bound
    >>> round(loss_growth_bound([[1.0, 0.0], [0.0, 1.0]], step_size=2.0), 12)
    1.0
    """
    g, exponent = _gradients(gradients)
    step = float(np.ldexp(as_real(step_size, "step_size", minimum=0.0), 2 * exponent))
    alignment, values = _alignment(g)
    return step**2 * alignment * float(np.sum(values**2)) + float(np.min((1 - step * values) ** 2))


def coherence(hessians: ArrayLike) -> float:
    r"""Return $\sigma=\lambda_1(S)/\max_i\lambda_1(H_i)$, $S_{ij}=\sqrt{\mathrm{tr}
    (H_iH_j)}$, between 1 and, for samples of rank one, n.

    Parameters
    ----------
    hessians
        Shape (n, d, d): positive semidefinite, not all 0.

    Examples
    --------
    >>> from theorylab.implicit_regularization import coherence, rank_one_hessians
    >>> round(coherence(rank_one_hessians([[1.0, 0.0], [0.0, 1.0]])), 12)
    1.0
    """
    family, _ = _family(hessians)
    return _coherence(family)


def _coherence(family: FloatArray) -> float:
    flat = family.reshape(len(family), -1)
    overlaps = np.sqrt(np.maximum(flat @ flat.T, 0.0))
    return float(np.linalg.eigvalsh(overlaps)[-1] / np.linalg.eigvalsh(family)[:, -1].max())


def coherence_bound(hessians: ArrayLike, *, batch_size: int) -> float:
    r"""Return the smaller of $2/\lambda_1(H)$ and $\sigma/(\lambda_1(H)\sqrt{n/B-1})$,
    which no stable step exceeds where each sample is taken by itself with probability B/n.

    Parameters
    ----------
    hessians, batch_size
        As for :func:`second_moment_operator`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import coherence_bound, grouped_hessians
    >>> round(coherence_bound(grouped_hessians(2, group_size=1), batch_size=1), 12)
    2.0
    """
    return _bernoulli_bound(hessians, batch_size, coherent=True)


def curvature_bound(hessians: ArrayLike, *, batch_size: int) -> float:
    r"""Return the smaller of $2/\lambda_1(H)$ and $n/(\max_i\lambda_1(H_i)
    \sqrt{n/B-1})$: sharper than :func:`coherence_bound`, and without coherence.

    Parameters
    ----------
    hessians, batch_size
        As for :func:`second_moment_operator`.

    Examples
    --------
    >>> from theorylab.implicit_regularization import curvature_bound, grouped_hessians
    >>> round(curvature_bound(grouped_hessians(1, group_size=4), batch_size=2), 12)
    2.0
    """
    return _bernoulli_bound(hessians, batch_size, coherent=False)


def _bernoulli_bound(hessians: ArrayLike, batch_size: int, coherent: bool) -> float:
    family, exponent = _family(hessians)
    batch = as_count(batch_size, "batch_size", maximum=len(family))
    top = float(np.linalg.eigvalsh(family.mean(axis=0))[-1])
    spread = np.sqrt(len(family) / batch - 1)
    largest = float(np.linalg.eigvalsh(family)[:, -1].max())
    noisy = _coherence(family) / top if coherent else len(family) / largest
    return _in_units(min(2 / top, noisy / spread) if spread else 2 / top, exponent)


def _family(hessians: ArrayLike) -> tuple[FloatArray, int]:
    """Return positive semidefinite Hessians of order one, and the power of two they lack."""
    family = as_symmetric(hessians, "hessians", ndim=3)
    exponent = binary_exponent(family)
    family = np.ldexp(family, -exponent)
    family = (family + np.swapaxes(family, 1, 2)) / 2
    if not family.any():
        raise ValueError("hessians: expected one that is not 0, got zeros")
    least = float(np.linalg.eigvalsh(family)[:, 0].min())
    if least < -64 * family.shape[-1] * precision_of(hessians):
        raise ValueError(
            "hessians: expected positive semidefinite matrices, got an eigenvalue of "
            f"{least} times the scale"
        )
    return family, exponent


def _gradients(gradients: ArrayLike) -> tuple[FloatArray, int]:
    g = as_array(gradients, "gradients", ndim=2)
    if not g.any():
        raise ValueError("gradients: expected one that is not 0, got zeros")
    exponent = binary_exponent(g)
    return np.ldexp(g, -exponent), exponent


def _noise(n: int, batch_size: int, sampling: str) -> tuple[float, float]:
    """Return the coefficients a and b of the square of a batch Hessian."""
    one_of(sampling, "sampling", SAMPLINGS)
    batch = as_count(batch_size, "batch_size", maximum=None if sampling == "replacement" else n)
    if sampling == "replacement":
        return 1 / batch, 1 / batch
    if sampling == "bernoulli":
        return 1 / batch - 1 / n, 0.0
    noise = (n - batch) / (batch * (n - 1)) if n > 1 else 0.0
    return noise, noise


def _restricted(family: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the Hessians in the eigenvectors of their mean, its positive eigenvalues, and the
    eigenvectors."""
    values, basis = _range(family.mean(axis=0), "hessians")
    return basis.T @ family @ basis, values, basis


def _range(mean: FloatArray, name: str) -> tuple[FloatArray, FloatArray]:
    """Return the positive eigenvalues of the mean Hessian, and their eigenvectors."""
    values, vectors = np.linalg.eigh(mean)
    kept = values > 16 * len(values) * EPS * values[-1]
    if kept.sum() > MAX_RANK:
        raise ValueError(f"{name}: expected a mean of rank at most {MAX_RANK}, got {kept.sum()}")
    return values[kept], vectors[:, kept]


def _drift(values: FloatArray) -> FloatArray:
    """Return the eigenvalues of X -> HX + XH."""
    rows, columns = np.triu_indices(len(values))
    return np.asarray(values[rows] + values[columns])


def _square(reduced: FloatArray, noise: tuple[float, float]) -> FloatArray:
    """Return the matrix of X -> E H_B X H_B on symmetric matrices."""
    n, r = len(reduced), reduced.shape[-1]
    a, b = noise
    mean = reduced.mean(axis=0).reshape(1, -1)
    flat = reduced.reshape(n, -1)
    moments = a * (flat.T @ flat) / n + (1 - b) * (mean.T @ mean)
    # E H[i, k] H[j, l], ordered as a map from (k, l) to (i, j).
    full = moments.reshape(r, r, r, r).transpose(0, 2, 1, 3).reshape(r * r, r * r)
    rows, columns = np.triu_indices(r)
    basis = np.zeros((r * r, len(rows)))
    size = np.where(rows == columns, 0.5, np.sqrt(0.5))
    for i, j in ((rows, columns), (columns, rows)):
        basis[i * r + j, np.arange(len(rows))] += size
    square = basis.T @ full @ basis
    return np.asarray((square + square.T) / 2)


def _leading(matrix: FloatArray, rank: int) -> tuple[float, FloatArray]:
    """Return the largest eigenvalue of an operator that keeps the positive semidefinite cone, and
    the limit of its normalised powers of the identity, which lies in that cone."""
    values, vectors = np.linalg.eigh(matrix)
    top = vectors[:, values >= values[-1] - 1e-9 * abs(values[-1]) - 1e-12]
    rows, columns = np.triu_indices(rank)
    return float(values[-1]), np.asarray(top @ (top.T @ (rows == columns)))


def _unfold(coordinates: FloatArray, basis: FloatArray) -> FloatArray:
    """Return a symmetric matrix of trace 1 from its coordinates."""
    r = basis.shape[1]
    rows, columns = np.triu_indices(r)
    X = np.zeros((r, r))
    X[rows, columns] = X[columns, rows] = coordinates * np.where(rows == columns, 1.0, np.sqrt(0.5))
    return np.asarray(basis @ (X / np.trace(X)) @ basis.T)
