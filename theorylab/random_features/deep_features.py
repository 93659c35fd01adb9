r"""Features of a deep random network: layerwise covariances, and what ridge regression costs.

Layers $\varphi_\ell(x)=\sigma(W_\ell\varphi_{\ell-1}(x)/\sqrt{k_{\ell-1}})$,
$\varphi_0=x\sim N(0,\Omega_0)$, with frozen Gaussian weights and an odd $\sigma$. Given
the weights, $\Omega_\ell=\mathrm E\varphi_\ell\varphi_\ell^\top$ is close to

$$\Omega_\ell^{lin} = \kappa_1^2\,\frac{W_\ell\Omega^{lin}_{\ell-1}W_\ell^\top}{k_{\ell-1}}
+ \kappa_*^2I,\qquad r=\frac{\mathrm{tr}\,\Omega^{lin}_{\ell-1}}{k_{\ell-1}},\quad
\kappa_1=\frac{\mathrm E z\sigma(z)}{r},\quad
\kappa_*^2=\mathrm E\sigma(z)^2-r\kappa_1^2,\quad z\sim N(0,r)$$

(schroder2023-deterministic). The rest has a Frobenius norm of order 1, while that of
$\Omega_\ell$ grows like $\sqrt{k_\ell}$. Its leading part is explicit: with
$C=W_\ell\Omega^{lin}_{\ell-1}W_\ell^\top/k_{\ell-1}$ and $\delta_i=C_{ii}-r$,

$$E_\ell = \kappa_1^2\,\frac{W_\ell E_{\ell-1}W_\ell^\top}{k_{\ell-1}} + M,\qquad
M_{ii}=(\partial_r\mathrm E\sigma^2-\kappa_1^2)\,\delta_i,\quad
M_{ij}=\kappa_1\,\partial_r\kappa_1\,(\delta_i+\delta_j)\,C_{ij},$$

and with $g=k_\ell/k_{\ell-1}$, $\tau=\|\Omega_{\ell-1}^{lin}\|_F^2/k_{\ell-1}$ its
squared norm tends to

$$e_\ell^2 = \kappa_1^4g^2e_{\ell-1}^2 + 2g\tau(\partial_r\mathrm E\sigma^2-\kappa_1^2)^2
+ 4g^2\tau^2\kappa_1^2(\partial_r\kappa_1)^2$$

(both derived here; the paper's text was not consulted). Resolvents of
sample covariances and test errors follow from the covariances as for Gaussian features, by
:mod:`~theorylab.random_features.fixed_points`: deterministic equivalents, asymptotically exact with
a relative error O(1/n)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_instance,
    as_real,
    as_symmetric,
    precision_of,
    refuses_overflow,
)
from theorylab.numerics.results import result
from theorylab.random_features._finite_size import finite_size_term
from theorylab.random_features.eigenframework import kernel_ridge_risk
from theorylab.random_features.fixed_points import effective_ridge

__all__ = [
    "DeepCovariances",
    "FeatureRidgeRisk",
    "deep_cross_covariance",
    "deep_feature_covariances",
    "deep_weights",
    "feature_ridge_risk",
    "network_features",
    "resolvent_trace",
]

Activation = Callable[[FloatArray], FloatArray]

# Nodes and weights of the trapezoidal rule for a standard Gaussian: at rounding for a function that
# is analytic within 0.04 of the real axis, and accurate to 1e-5 for one with a jump at 0.
_NODES = np.linspace(-12.0, 12.0, 4001)
_WEIGHTS = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()


@result
class DeepCovariances:
    """Linearised covariances of the features of every layer.

    Attributes
    ----------
    covariances
        One matrix of shape (width, width) per layer.
    corrections
        Leading part of the error of each: the covariance of the features is about the sum.
    frobenius_errors
        Shape (n_layers,): limit of the Frobenius norms of the corrections; the relative error is
        this over the norm of the covariance, of order 1 / sqrt(width).
    variances, linear, residual
        Shape (n_layers,): variance r of the pre-activations, the coefficient kappa_1 of the linear
        part, and the variance kappa_*^2 of the rest.
    linear_map
        Shape (last width, n_inputs): the product of the linear parts of all layers.
    """

    covariances: tuple[FloatArray, ...]
    corrections: tuple[FloatArray, ...]
    frobenius_errors: FloatArray
    variances: FloatArray
    linear: FloatArray
    residual: FloatArray
    linear_map: FloatArray


@result
class FeatureRidgeRisk:
    """Deterministic equivalent of a test error, noise of the labels excluded.

    Attributes
    ----------
    excess_risk
        Mean squared error with respect to the noiseless target.
    finite_size_term
        First correction in 1/n to the mean over samples, for Gaussian features.
    kappa
        Effective ridge, in units of the covariance.
    unexplained
        Variance of the target that no linear function of the features explains; part of the risk.
    """

    excess_risk: float
    finite_size_term: float
    kappa: float
    unexplained: float


def deep_weights(
    n_inputs: int, widths: Sequence[int], *, rng: np.random.Generator
) -> tuple[FloatArray, ...]:
    """Draw standard Gaussian weights, one matrix of shape (width, previous width) per layer.

    Parameters
    ----------
    n_inputs, widths
        Number of inputs, and the width of each layer.
    rng
        Source of randomness.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import deep_weights
    >>> [W.shape for W in deep_weights(5, [4, 3], rng=np.random.default_rng(0))]
    [(4, 5), (3, 4)]
    """
    generator = as_instance(rng, "rng", np.random.Generator)
    sizes = [as_count(n_inputs, "n_inputs"), *(as_count(w, "widths") for w in _listed(widths))]
    return tuple(generator.standard_normal(s) for s in zip(sizes[1:], sizes, strict=False))


@refuses_overflow("inputs", "weights")
def network_features(
    inputs: ArrayLike, weights: Sequence[ArrayLike], activation: Activation
) -> FloatArray:
    r"""Return the features $\varphi_L(x)$ of the last layer.

    Parameters
    ----------
    inputs
        Shape (n_points, n_inputs).
    weights
        One matrix of shape (width, previous width) per layer.
    activation
        Applied entry by entry after the division by the square root of the previous width.

    Returns
    -------
    ndarray
        Shape (n_points, last width).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import network_features
    >>> network_features([[1.0, 1.0]], [[[1.0, 1.0]]], np.tanh).round(3)
    array([[0.888]])
    """
    features = as_array(inputs, "inputs", ndim=2)
    as_function(activation, "activation")
    for matrix in _matrices(weights, features.shape[1]):
        scaled = features @ matrix.T / math.sqrt(matrix.shape[1])
        features = _applied(activation, scaled)
    return features


@refuses_overflow("input_covariance", "weights")
def deep_feature_covariances(
    input_covariance: ArrayLike, weights: Sequence[ArrayLike], activation: Activation
) -> DeepCovariances:
    r"""Return the linearised covariances of all layers given the weights, with the size of their
    errors.

    Parameters
    ----------
    input_covariance
        Shape (n_inputs, n_inputs): $\Omega_0$, positive semidefinite. The covariance of a
        hidden layer may stand here, where the weights are those of the layers after it.
    weights
        One matrix of shape (width, previous width) per layer, of standard Gaussian entries.
    activation
        An odd function of arrays. The coefficients are taken at the variance of each layer.

    Returns
    -------
    DeepCovariances

    Raises
    ------
    ValueError
        If the activation is not odd, a layer has no variance, or shapes do not fit.

    Notes
    -----
    schroder2023-deterministic (the paper's text was not consulted).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import deep_weights, deep_feature_covariances
    >>> weights = deep_weights(50, [40, 40], rng=np.random.default_rng(0))
    >>> deep_feature_covariances(np.eye(50), weights, np.tanh).linear.round(3)
    array([0.606, 0.763])
    """
    covariance = as_symmetric(input_covariance, "input_covariance")
    as_function(activation, "activation")
    matrices = _matrices(weights, len(covariance))
    rows: list[tuple[float, ...]] = []
    covariances: list[FloatArray] = []
    corrections: list[FloatArray] = []
    linear_map, error = np.eye(len(covariance)), 0.0
    correction = np.zeros_like(covariance)
    for matrix in matrices:
        width, previous = matrix.shape
        r = float(np.trace(covariance)) / previous
        if not r > 0:
            raise ValueError(f"input_covariance: expected layers of positive variance, got {r}")
        linear, residual, square_slope, linear_slope = _coefficients(activation, r)
        tau, grown = float((covariance**2).sum()) / previous, width / previous
        on_diagonal, off_diagonal = square_slope - linear**2, linear * linear_slope
        error = (linear**2 * grown) ** 2 * error + 2 * grown * tau * on_diagonal**2
        error += 4 * (grown * tau * off_diagonal) ** 2
        step = matrix / math.sqrt(previous)
        linear_map = linear * step @ linear_map
        common = step @ covariance @ step.T
        common = (common + common.T) / 2
        excess = np.diag(common) - r
        if covariances:
            correction = linear**2 * step @ correction @ step.T
            correction = (correction + correction.T) / 2
        own = off_diagonal * np.add.outer(excess, excess) * common
        np.fill_diagonal(own, on_diagonal * excess)
        correction = correction + own if covariances else own
        covariance = linear**2 * common + residual * np.eye(width)
        covariances.append(covariance)
        corrections.append(correction)
        rows.append((math.sqrt(error), r, linear, residual))
    errors, variances, linears, residuals = np.array(rows).T
    found = (tuple(covariances), tuple(corrections), errors, variances, linears, residuals)
    return DeepCovariances(*found, linear_map)


@refuses_overflow("input_covariance")
def deep_cross_covariance(
    input_covariance: ArrayLike, learner: DeepCovariances, teacher: DeepCovariances
) -> FloatArray:
    r"""Return the linearised $\mathrm E\varphi\psi^\top$ of the features of two networks with
    independent weights and the same inputs.

    Parameters
    ----------
    input_covariance
        Shape (n_inputs, n_inputs): $\Omega_0$, as for both networks.
    learner, teacher
        Their covariances, of any depths and widths.

    Returns
    -------
    ndarray
        Shape (last width of the learner, last width of the teacher).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import deep_cross_covariance, deep_feature_covariances
    >>> from theorylab.random_features import deep_weights
    >>> rng = np.random.default_rng(0)
    >>> nets = [deep_feature_covariances(np.eye(9), deep_weights(9, w, rng=rng), np.tanh)
    ...         for w in ([8, 7], [6])]
    >>> deep_cross_covariance(np.eye(9), *nets).shape
    (7, 6)
    """
    maps = [
        as_instance(net, name, DeepCovariances).linear_map
        for net, name in ((learner, "learner"), (teacher, "teacher"))
    ]
    sizes = [m.shape[1] for m in maps]
    covariance = as_symmetric(input_covariance, "input_covariance", size=sizes[0])
    if sizes[1] != sizes[0]:
        raise ValueError(f"teacher: expected {sizes[0]} inputs, as the learner has, got {sizes[1]}")
    cross: FloatArray = maps[0] @ covariance @ maps[1].T
    return cross


@refuses_overflow("covariance", "cross_covariance", "target_covariance", infinite=True)
def feature_ridge_risk(
    covariance: ArrayLike,
    cross_covariance: ArrayLike,
    target_covariance: ArrayLike,
    *,
    n_samples: int,
    ridge: float,
    noise_variance: float = 0.0,
) -> FeatureRidgeRisk:
    r"""Return the predicted error of ridge regression on features of the target
    $\theta^\top\psi(x)/\sqrt m$, on average over $\theta\sim N(0,I_m)$.

    With $\Omega=\mathrm E\varphi\varphi^\top=U\Lambda U^\top$, $\Phi=\mathrm
    E\varphi\psi^\top$ and $\Psi=\mathrm E\psi\psi^\top$, the target is a linear function of
    the features with power $v_i^2=\|\Phi^\top u_i\|^2/(m\lambda_i)$ on mode i, and
    $\frac1m\mathrm{tr}(\Psi-\Phi^\top\Omega^{-1}\Phi)$ acts as noise.

    Parameters
    ----------
    covariance
        Shape (k, k): $\Omega$, positive semidefinite.
    cross_covariance, target_covariance
        Shapes (k, m) and (m, m): $\Phi$ and $\Psi$. All three are $\Omega$ where
        the target shares the frozen layers.
    n_samples
        n.
    ridge
        Non-negative; added to $\sum_i\varphi(x_i)\varphi(x_i)^\top$.
    noise_variance
        Of the labels; not part of the risk.

    Returns
    -------
    FeatureRidgeRisk

    Raises
    ------
    ValueError
        If the three are not the covariances of anything, or an argument has a wrong shape.

    Notes
    -----
    schroder2023-deterministic (the paper's text was not consulted).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import feature_ridge_risk
    >>> eye = np.eye(20)
    >>> risk = feature_ridge_risk(eye, eye, eye, n_samples=10, ridge=0.0)
    >>> round(risk.excess_risk, 12), round(risk.kappa, 12)
    (0.5, 1.0)
    """
    omega = as_symmetric(covariance, "covariance")
    k = len(omega)
    cross = as_array(cross_covariance, "cross_covariance", shape=(k, None))
    m = cross.shape[1]
    psi = as_symmetric(target_covariance, "target_covariance", size=m)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    eigenvalues, vectors = np.linalg.eigh(omega)
    floor = k * precision_of(covariance) * np.abs(eigenvalues).max()
    if eigenvalues[0] < -16 * floor:
        raise ValueError(f"covariance: expected no negative eigenvalue, got {eigenvalues[0]}")
    seen = eigenvalues > floor
    eigenvalues = np.where(seen, eigenvalues, 0.0)
    power = ((vectors.T @ cross) ** 2).sum(axis=1)
    power = np.where(seen, power / np.where(seen, eigenvalues, 1.0), 0.0) / m
    variance = float(np.trace(psi)) / m
    unexplained = variance - float(power.sum())
    # The power is a quotient by eigenvalues that carry the rounding of the largest one.
    if unexplained < -1e-6 * variance:
        raise ValueError(
            "target_covariance: expected at least the variance that the features explain, "
            f"{power.sum()}, got {variance}"
        )
    unexplained = max(unexplained, 0.0)
    modes = (eigenvalues, np.sqrt(power))
    risk = kernel_ridge_risk(
        *modes, n_samples=n_samples, ridge=ridge, noise_variance=noise + unexplained
    )
    term = finite_size_term(
        *modes, n_samples=n_samples, ridge=ridge, noise_variance=noise + unexplained
    )
    return FeatureRidgeRisk(risk.test_risk - noise, term.test_risk, risk.kappa, unexplained)


@refuses_overflow("covariance", "ridge")
def resolvent_trace(covariance: ArrayLike, *, n_samples: ArrayLike, ridge: ArrayLike) -> FloatArray:
    r"""Return the deterministic equivalent of $\frac1k\mathrm{tr}(\frac1nF^\top
    F+\lambda)^{-1}$ for n rows of features F with a given covariance.

    It is $\frac{\kappa}{\lambda k}\mathrm{tr}(\Omega+\kappa)^{-1}$ with
    $\lambda=\kappa(1-\frac1n\mathrm{tr}\,\Omega(\Omega+\kappa)^{-1})$: the Stieltjes
    transform, at $-\lambda$, of the spectrum of a sample covariance.

    Parameters
    ----------
    covariance
        Shape (k, k): $\Omega$, positive semidefinite.
    n_samples, ridge
        n, and $\lambda>0$; numbers or one-dimensional arrays that broadcast.

    Returns
    -------
    ndarray
        Of their broadcast shape.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import resolvent_trace
    >>> resolvent_trace(np.eye(4), n_samples=4, ridge=[0.5, 2.0]).round(3)
    array([1.   , 0.366])
    """
    omega = as_symmetric(covariance, "covariance")
    sample_ridge = as_array(ridge, "ridge", positive=True)
    eigenvalues = np.linalg.eigvalsh(omega)
    floor = 16 * len(omega) * precision_of(covariance) * np.abs(eigenvalues).max()
    if eigenvalues[0] < -floor:
        raise ValueError(f"covariance: expected no negative eigenvalue, got {eigenvalues[0]}")
    eigenvalues = np.maximum(eigenvalues, 0.0)
    count = np.asarray(n_samples)
    total = sample_ridge * (count if count.dtype.kind in "iu" else 1)
    root = effective_ridge(eigenvalues, n_samples=n_samples, ridge=total)
    kappa = root.kappa[..., None]
    trace: FloatArray = (kappa / (eigenvalues + kappa)).mean(axis=-1) / sample_ridge
    return trace


def _listed(value: Sequence[int]) -> Sequence[int]:
    if not isinstance(value, list | tuple | np.ndarray) or len(value) == 0:
        raise ValueError(f"widths: expected a list of widths, got {value!r:.60}")
    return value


def _matrices(weights: Sequence[ArrayLike], n_inputs: int) -> list[FloatArray]:
    """Return the weights of all layers, if each takes what the layer before gives."""
    if not isinstance(weights, list | tuple) or not weights:
        raise ValueError(
            f"weights: expected a list of one matrix per layer, got {type(weights).__name__}"
        )
    matrices: list[FloatArray] = []
    for matrix in weights:
        previous = len(matrices[-1]) if matrices else n_inputs
        matrices.append(as_array(matrix, "weights", shape=(None, previous)))
    return matrices


def _applied(activation: Activation, values: FloatArray) -> FloatArray:
    return as_array(activation(values), "activation", shape=values.shape)


def _coefficients(activation: Activation, r: float) -> tuple[float, float, float, float]:
    r"""Return kappa_1, kappa_*^2, and the slopes of E sigma^2 and of kappa_1 in the variance r.

    The slopes are moments against Hermite polynomials, so that no derivative of sigma is needed.
    """
    z, scale = _NODES, math.sqrt(r)
    values = _applied(activation, scale * z)
    if np.abs(values + values[::-1]).max() > 1e-9 * np.abs(values).max():
        raise ValueError("activation: expected an odd function, got one that is not")
    first = float(_WEIGHTS @ (z * values))
    square = float(_WEIGHTS @ values**2)
    third = float(_WEIGHTS @ (values * (z**3 - 3 * z)))
    second = float(_WEIGHTS @ (values**2 * (z**2 - 1)))
    residual = max(square - first**2, 0.0)
    return first / scale, residual, second / (2 * r), third / (2 * r * scale)
