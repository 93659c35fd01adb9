r"""Linear regression on inputs whose missing entries are set to zero.

Entry j of X is seen with probability $\rho_j$, independently of everything else. With
$\Sigma=\mathbb EXX^\top$ (second moments, not covariances), $\tilde X=P\odot X$ and
$\beta=\rho\odot\theta$,

$$\mathbb E(Y-\theta^\top\tilde X)^2=\mathbb E(Y-\beta^\top X)^2+\beta^\top D\beta,\qquad
D=\mathrm{diag}(\lambda_j\Sigma_{jj}),\quad\lambda_j=(1-\rho_j)/\rho_j:$$

a ridge penalty. What the best predictor loses is
$\beta_*^\top\Sigma(\Sigma+D)^{-1}D\beta_*\le\beta_*^\top D\beta_*$, where $\beta_*$ is
the best predictor from complete inputs.

One-pass averaged descent, $\theta_{t+1}=\theta_t+\gamma(y_t-\theta_t^\top\tilde
x_t)\tilde x_t$, of mean $\bar\theta_n=\frac1n\sum_{t<n}\theta_t$: the second moments of
$\theta_t$ follow a linear recursion in which masks are averaged in closed form, so that
$\mathbb E\|\bar\theta_n-\tilde\theta\|^2_{\tilde\Sigma}$ is computed without sampling.

It is bounded as Bach and Moulines (arXiv 1306.2119) did; proof, with $H=\tilde\Sigma$,
$\|\tilde X\|\le R$, $\gamma R^2<1$, $\xi=Y-\tilde\theta^\top\tilde X$ and
$\mathbb E\xi^2\tilde X\tilde X^\top\preceq\sigma^2H$. Roots of mean squares add
(Minkowski), so the start and the noise are bounded apart.

- Start, $\xi=0$: a step takes at least $\gamma(2-\gamma R^2)\mathbb E\|\theta_t-
  \tilde\theta\|_H^2$ from $\mathbb E\|\theta_t-\tilde\theta\|^2$. The sum over t and
  convexity leave $\|\theta_0-\tilde\theta\|^2/(\gamma n)$ for the mean.
- Noise, $\theta_0=\tilde\theta$: $\theta_t-\tilde\theta=\sum_{r\ge0}\eta^r_t$,
  $\eta^r_{t+1}=(I-\gamma H)\eta^r_t+\gamma\Xi^r_t$, $\Xi^0=\xi\tilde X$,
  $\Xi^{r+1}=(H-\tilde X\tilde X^\top)\eta^r$, uncorrelated over t. If
  $\mathbb E\Xi^r\Xi^{r\top}\preceq s_rH$, then by induction over t
  $\mathbb E\eta^r\eta^{r\top}\preceq\gamma s_rI$, so that $s_{r+1}\le\gamma
  R^2s_r$; and the mean is $\frac1n\sum_kH^{-1}(I-(I-\gamma H)^{n-1-k})\Xi^r_k$, of mean
  square $s_rd/n$ at most in the norm of H. With $s_0=\sigma^2$ the roots of these sum
  to $\sigma\sqrt{d/n}/(1-\sqrt{\gamma R^2})$.

Paper: ayme2023-naive."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr, solve_triangular

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.numerics.results import result

__all__ = [
    "AveragedDescent",
    "LinearFit",
    "MaskedLaw",
    "RegressionMoments",
    "averaged_sgd_bound",
    "averaged_sgd_risk",
    "best_linear",
    "complete_moments",
    "imputation_bias",
    "imputed_moments",
    "linear_risk",
    "masked_law",
    "tight_frame",
    "zero_imputation_risk",
]


@result
class MaskedLaw:
    """A finite law of (X, Y), whose entries of X are seen independently.

    Attributes
    ----------
    inputs, outputs, weights
        Shapes (m, d), (m,), (m,): the values and their probabilities.
    observed
        (d,): the probabilities with which the entries are seen.
    """

    inputs: FloatArray
    outputs: FloatArray
    weights: FloatArray
    observed: FloatArray


@result
class RegressionMoments:
    """Second moments: ``inputs`` E[X X'] (d, d), ``cross`` E[Y X] (d,), ``output`` E[Y^2]."""

    inputs: FloatArray
    cross: FloatArray
    output: float


@result
class LinearFit:
    r"""A best linear predictor.

    Attributes
    ----------
    coefficients
        (d,), of least norm.
    risk
        Its mean squared error.
    lower
        $\mathbb EY^2-b^\top S^+b$, S and b the moments: the least risk by duality.
    """

    coefficients: FloatArray
    risk: float
    lower: float


@result
class AveragedDescent:
    r"""What averaged descent on a masked law loses in expectation.

    Attributes
    ----------
    averaged, last
        (n,): excess risks, over the best zero-imputed predictor, of the mean of the first 1, ..., n
        iterates, and of the iterates after 1, ..., n steps.
    target
        (d,): the best zero-imputed predictor.
    noise
        The least $\sigma^2$ with $\mathbb E[\xi^2\tilde X\tilde X^\top]\preceq\sigma^2
        \tilde\Sigma$, $\xi=Y-\tilde\theta^\top\tilde X$.
    """

    averaged: FloatArray
    last: FloatArray
    target: FloatArray
    noise: float


def masked_law(
    inputs: ArrayLike,
    outputs: ArrayLike,
    *,
    observed: ArrayLike,
    weights: ArrayLike | None = None,
) -> MaskedLaw:
    r"""Return the law of data whose entries are seen with given probabilities.

    Parameters
    ----------
    inputs, outputs
        Shapes (m, d) and (m,).
    observed
        The probabilities in (0, 1], one or (d,).
    weights
        (m,), positive; normalised. Equal by default.

    Examples
    --------
    >>> from theorylab.implicit_regularization import masked_law
    >>> masked_law([[1.0, -1.0], [1.0, 1.0]], [0.0, 1.0], observed=0.5)
    <MaskedLaw: inputs (2, 2), outputs (2,), weights (2,), observed (2,)>
    """
    X = as_array(inputs, "inputs", ndim=2)
    y = as_array(outputs, "outputs", shape=(len(X),))
    rho = as_array(observed, "observed", positive=True)
    if rho.max() > 1 or rho.shape not in ((), (X.shape[1],)):
        raise ValueError(
            f"observed: expected one probability, or {X.shape[1]}, got shape {rho.shape} with "
            f"maximum {rho.max()}"
        )
    if rho.min() < 1e-100:
        raise ValueError(f"observed: expected probabilities above 1e-100, got {rho.min()}")
    w = np.ones(len(X)) if weights is None else as_array(weights, "weights", shape=(len(X),))
    if w.min() <= 0:
        raise ValueError(f"weights: expected positive numbers, got {w.min()}")
    w = w / w.max()
    return MaskedLaw(X.copy(), y.copy(), w / w.sum(), np.broadcast_to(rho, X.shape[1:]).copy())


@refuses_overflow("law")
def complete_moments(law: MaskedLaw) -> RegressionMoments:
    """Return the second moments of the inputs before anything is missing.

    Parameters
    ----------
    law
        What :func:`masked_law` returned.

    Examples
    --------
    >>> from theorylab.implicit_regularization import complete_moments, masked_law
    >>> complete_moments(masked_law([[1.0, 1.0]], [2.0], observed=0.5)).inputs.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    as_instance(law, "law", MaskedLaw)
    X, y, w = law.inputs, law.outputs, law.weights
    if (w @ X**2 < 1e-290)[np.abs(X).max(axis=0) > 0].any():
        raise ValueError("law: expected inputs whose squares stay within float64")
    return RegressionMoments((X.T * w) @ X, X.T @ (w * y), float(w @ y**2))


@refuses_overflow("law")
def imputed_moments(law: MaskedLaw) -> RegressionMoments:
    r"""Return the second moments of the inputs with zeros for missing entries:
    $\rho_i\rho_j\Sigma_{ij}$ off the diagonal and $\rho_j\Sigma_{jj}$ on it.

    Parameters
    ----------
    law
        What :func:`masked_law` returned.

    Examples
    --------
    >>> from theorylab.implicit_regularization import imputed_moments, masked_law
    >>> imputed_moments(masked_law([[1.0, 1.0]], [2.0], observed=0.5)).inputs.tolist()
    [[0.5, 0.25], [0.25, 0.5]]
    """
    whole, rho = complete_moments(law), law.observed
    inputs = whole.inputs * np.outer(rho, rho)
    np.fill_diagonal(inputs, rho * np.diag(whole.inputs))
    return RegressionMoments(inputs, rho * whole.cross, whole.output)


@refuses_overflow("moments", "coefficients")
def linear_risk(moments: RegressionMoments, coefficients: ArrayLike) -> float:
    r"""Return $\mathbb E(Y-\theta^\top X)^2$.

    Parameters
    ----------
    moments, coefficients
        Second moments of d inputs, and theta, (d,).

    Examples
    --------
    >>> from theorylab.implicit_regularization import complete_moments, linear_risk, masked_law
    >>> linear_risk(complete_moments(masked_law([[1.0, 1.0]], [2.0], observed=0.5)), [1.0, 0.0])
    1.0
    """
    as_instance(moments, "moments", RegressionMoments)
    theta = as_array(coefficients, "coefficients", shape=moments.cross.shape)
    fitted = float(theta @ moments.inputs @ theta) - 2 * float(theta @ moments.cross)
    return max(moments.output + fitted, 0.0)


@refuses_overflow("law", "coefficients")
def zero_imputation_risk(law: MaskedLaw, coefficients: ArrayLike) -> float:
    r"""Return $\mathbb E(Y-\theta^\top\tilde X)^2$: the risk of $\rho\odot\theta$ on
    complete inputs, and the ridge penalty $\sum_j\rho_j(1-\rho_j)\Sigma_{jj}\theta_j^2$.

    Parameters
    ----------
    law, coefficients
        The law of d inputs, and theta, (d,).

    Examples
    --------
    >>> from theorylab.implicit_regularization import masked_law, zero_imputation_risk
    >>> zero_imputation_risk(masked_law([[1.0, 1.0]], [2.0], observed=0.5), [2.0, 2.0])
    2.0
    """
    whole, rho = complete_moments(law), law.observed
    theta = as_array(coefficients, "coefficients", shape=rho.shape)
    residuals = law.outputs - law.inputs @ (rho * theta)
    penalty = rho * (1 - rho) * np.diag(whole.inputs) * theta**2
    return float(law.weights @ residuals**2 + penalty.sum())


@refuses_overflow("moments")
def best_linear(moments: RegressionMoments) -> LinearFit:
    """Return the linear predictor of least risk, and of least norm among those.

    Inputs count as linearly dependent to 1e-14 d in units in which each has second moment 1.

    Parameters
    ----------
    moments
        Second moments of the inputs.

    Examples
    --------
    >>> from theorylab.implicit_regularization import best_linear, imputed_moments, masked_law
    >>> fit = best_linear(imputed_moments(masked_law([[1.0, 1.0]], [2.0], observed=0.5)))
    >>> fit.coefficients.round(9).tolist(), round(fit.risk, 9)
    ([1.333333333, 1.333333333], 1.333333333)
    """
    as_instance(moments, "moments", RegressionMoments)
    S, b = moments.inputs, moments.cross
    unit, values, vectors = _spectrum(S)
    along = vectors.T @ (b / unit)
    fitted = vectors @ (along / values)
    # The least norm is in the units of the caller: nothing along the null space of S. QR with
    # pivots keeps the digits of rows of very different sizes.
    null = np.linalg.svd(vectors.T)[2][len(values) :].T
    if null.size:
        q, r, at = qr(null / unit[:, None], mode="economic", pivoting=True)
        fitted = fitted - null[:, at] @ solve_triangular(r, q.T @ (fitted / unit))
    theta = fitted / unit
    lower = moments.output - float(np.sum(along**2 / values))
    return LinearFit(theta, max(linear_risk(moments, theta), lower), lower)


def _spectrum(S: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return units in which the diagonal of S is 1, or 0, and its non-zero eigenvalues and their
    eigenvectors, (d, k), in these."""
    unit = np.sqrt(np.where(np.diag(S) > 0, np.diag(S), 1.0))
    values, vectors = np.linalg.eigh(S / unit / unit[:, None])
    keep = values > len(S) * 1e-14
    return unit, values[keep], vectors[:, keep]


@refuses_overflow("law")
def imputation_bias(law: MaskedLaw) -> float:
    r"""Return what the best predictor from zero-imputed inputs loses against that from complete
    ones: $\beta_*^\top\Sigma(\Sigma+D)^{-1}D\beta_*$,
    $D=\mathrm{diag}(\frac{1-\rho_j}{\rho_j}\Sigma_{jj})$.

    Parameters
    ----------
    law
        What :func:`masked_law` returned.

    Examples
    --------
    >>> from theorylab.implicit_regularization import imputation_bias, masked_law
    >>> round(imputation_bias(masked_law([[1.0, 1.0]], [2.0], observed=0.5)), 9)
    1.333333333
    """
    whole, rho = complete_moments(law), law.observed
    unit, values, vectors = _spectrum(whole.inputs)
    along = vectors.T @ (whole.cross / unit)
    # The least of (beta - u)' Sigma (beta - u) + u' D u, in units in which every entry of X has
    # second moment 1 and u is over sqrt(rho): least squares with columns of norm 1.
    root = np.sqrt(values)[:, None] * vectors.T * np.sqrt(rho)
    matrix = np.vstack([root, np.diag(np.sqrt(1 - rho))])
    right = np.append(along / np.sqrt(values), np.zeros(len(rho)))
    residual = right - matrix @ np.linalg.lstsq(matrix, right, rcond=None)[0]
    return float(residual @ residual)


def tight_frame(d: int, r: int, *, seed: int) -> FloatArray:
    r"""Return a random A, (d, r), with rows of norm 1 and $A^\top A=\frac drI$: the law of
    $X=A\sqrt re_K$, K uniform, has a second-moment matrix of rank r, equal non-zero
    eigenvalues and unit diagonal.

    Parameters
    ----------
    d, r, seed
        Sizes, r at most d, and the seed of the frame.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.implicit_regularization import tight_frame
    >>> A = tight_frame(6, 2, seed=0)
    >>> np.allclose(A.T @ A, 3 * np.eye(2)), np.allclose(np.sum(A**2, axis=1), 1)
    (True, True)
    """
    n = as_count(d, "d")
    k = as_count(r, "r", maximum=n)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    A = np.linalg.qr(rng.standard_normal((n, k)))[0] * math.sqrt(n / k)
    # Rotations of two rows, one shorter and one longer than 1, that make the shorter one 1.
    for _ in range(n - 1):
        size = np.sum(A**2, axis=1)
        i, j = int(size.argmin()), int(size.argmax())
        if size[j] - 1 < 1e-14 or 1 - size[i] < 1e-14:
            break
        # |c a_i + s a_j|^2 = 1 with t = s / c: (|a_j|^2 - 1) t^2 + 2 a_i a_j t = 1 - |a_i|^2.
        cross, missing = float(A[i] @ A[j]), 1 - size[i]
        root = math.sqrt(cross**2 + (size[j] - 1) * missing)
        t = missing / (cross + root) if cross >= 0 else (root - cross) / (size[j] - 1)
        c = 1 / math.hypot(1, t)
        A[[i, j]] = c * A[i] + c * t * A[j], c * A[j] - c * t * A[i]
    return np.asarray(A / np.linalg.norm(A, axis=1)[:, None])


@refuses_overflow("law", "step")
def averaged_sgd_risk(law: MaskedLaw, *, step: float, n_steps: int) -> AveragedDescent:
    r"""Return the expected excess risks of one-pass averaged descent from 0 on zero-imputed
    samples, by the recursion of second moments: no sampling.

    Parameters
    ----------
    law
        What :func:`masked_law` returned.
    step, n_steps
        The constant step, and how many steps; a step costs O(m d^2).

    Examples
    --------
    >>> from theorylab.implicit_regularization import averaged_sgd_risk, masked_law
    >>> law = masked_law([[1.0, 1.0], [1.0, -1.0]], [1.0, 0.0], observed=0.5)
    >>> averaged_sgd_risk(law, step=0.25, n_steps=3).averaged.round(4).tolist()
    [0.25, 0.2227, 0.1994]
    """
    gamma = as_real(step, "step", above=0.0)
    n = as_count(n_steps, "n_steps")
    moments = imputed_moments(law)
    S, target = moments.inputs, best_linear(moments).coefficients
    residual = _SquaredResiduals(law)
    d = len(target)

    def mean_square(centre: FloatArray, spread: FloatArray) -> FloatArray:
        """Of the residual times X X', at random coefficients with these two moments."""
        Q = np.empty((d + 1, d + 1))
        Q[:d, :d] = spread
        Q[d, :d] = Q[:d, d] = -centre
        Q[d, d] = 1.0
        return residual(Q)

    unit, values, vectors = _spectrum(S)
    root = vectors / np.sqrt(values) / unit[:, None]
    around = np.linalg.eigvalsh(root.T @ mean_square(target, np.outer(target, target)) @ root)
    noise = max(float(around.max(initial=0.0)), 0.0)
    shrink = np.eye(d) - gamma * S
    mean = -target
    C, G, total = np.outer(target, target), np.zeros((d, d)), 0.0
    averaged, last = np.empty(n), np.empty(n)
    for t in range(n):
        total += 2 * float(np.sum(S * G)) + float(np.sum(S * C))
        averaged[t] = total / (t + 1) ** 2
        G = (G + C) @ shrink
        across = np.outer(mean, target)
        spread = C + across + across.T + np.outer(target, target)
        C = C - gamma * (S @ C + C @ S) + gamma**2 * mean_square(target + mean, spread)
        mean = shrink @ mean
        last[t] = float(np.sum(S * C))
    return AveragedDescent(averaged, last, target, noise)


def averaged_sgd_bound(
    n: int, *, d: int, radius: float, step: float, noise: float, distance: float
) -> tuple[float, float]:
    r"""Return the two terms whose squared sum bounds the expected excess risk of averaged
    descent: $\frac{\sigma\sqrt d}{\sqrt n(1-\sqrt{\gamma R^2})}$ and
    $\frac{\|\theta_0-\tilde\theta\|}{\sqrt{\gamma n}}$.

    Parameters
    ----------
    n, d
        Steps and coefficients.
    radius
        R, a bound of the norm of the inputs; the step must be below 1 / R^2.
    step, noise, distance
        gamma, $\sigma^2$ and the distance of the start from the best predictor.

    Examples
    --------
    >>> from theorylab.implicit_regularization import averaged_sgd_bound
    >>> averaged_sgd_bound(16, d=4, radius=2.0, step=0.0625, noise=1.0, distance=2.0)
    (1.0, 2.0)
    """
    size = as_count(n, "n", maximum=2**60)
    entries = as_count(d, "d", maximum=2**60)
    gamma = as_real(step, "step", minimum=1e-290)
    share = math.sqrt(gamma) * as_real(radius, "radius", above=0.0)
    if not share < 1:
        raise ValueError(f"step: expected one below 1 / radius^2, got {gamma}")
    sigma = math.sqrt(as_real(noise, "noise", minimum=0.0))
    spread = math.sqrt(entries / size) * sigma / (1 - share)
    start = as_real(distance, "distance", minimum=0.0) / math.sqrt(gamma) / math.sqrt(size)
    if not math.isfinite(start):
        raise ValueError("distance: expected a magnitude whose quotient stays within float64")
    return spread, start


class _SquaredResiduals:
    r"""The mean of $(z^\top Qz)\tilde X\tilde X^\top$, z the masked inputs and the output.

    Given the data, $\mathbb E[P_iP_jz^\top Qz]$ needs the sum of all entries of
    $zz^\top\odot Q$ weighted by the probability to be seen, and what it gains by
    $P_i=1$, by $P_j=1$ and by both.
    """

    def __init__(self, law: MaskedLaw) -> None:
        self.X, self.w, self.rho = law.inputs, law.weights, law.observed
        self.Z = np.column_stack([law.inputs, law.outputs])
        self.p = np.append(self.rho, 1.0)
        self.fourth = (self.X.T**2 * self.w) @ self.X**2

    def __call__(self, Q: FloatArray) -> FloatArray:
        Z, p, X, rho, w = self.Z, self.p, self.X, self.rho, self.w
        d = len(rho)
        seen = Z * p
        rows = Z * (seen @ Q)
        own = Z**2 * np.diag(Q)
        total = np.sum(rows * p + own * p * (1 - p), axis=1)
        gain = ((1 - p) * (2 * (rows - p * own) + own))[:, :d]
        weighted = (X.T * w) @ (gain * X)
        pairs = (X.T * (w * total)) @ X + weighted + weighted.T
        pairs += 2 * np.outer(1 - rho, 1 - rho) * self.fourth * Q[:d, :d]
        mean: FloatArray = pairs * np.outer(rho, rho)
        np.fill_diagonal(mean, rho * np.sum(w[:, None] * X**2 * (total[:, None] + gain), axis=0))
        return mean
