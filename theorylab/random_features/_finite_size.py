"""The first term of the expansion in 1/n of the mean risks of random-feature ridge regression."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_count,
    as_real,
)
from theorylab.numerics.results import result
from theorylab.random_features._risk_kernels import (
    as_modes,
)
from theorylab.random_features.fixed_points import (
    free_counts,
    smallest_and_total,
    solve_gamma,
)

__all__ = ["FiniteSizeTerm", "finite_size_term"]


@result
class FiniteSizeTerm:
    r"""First correction in 1/n: mean risk = predicted risk + term + $O(n^{-2})$, for Gaussian
    modes."""

    test_risk: float
    train_risk: float


def finite_size_term(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    ridge: float,
    n_features: int | None = None,
    noise_variance: float = 0.0,
) -> FiniteSizeTerm:
    r"""Return the 1/n correction of the mean test and training risk for Gaussian modes.

    Both mean risks are mixed derivatives $\partial_\tau\partial_\epsilon L$ at 0, at every n
    and k, of

    $$L=\mathrm
    E\log\det\big[\delta+(T+\tau\delta\,\mathrm{diag}(v^2))(\Phi^\top\Phi+\epsilon)\big],
    \qquad T=\tfrac1k\Lambda^{1/2}Z^\top Z\Lambda^{1/2}$$

    (the noise is a mode with eigenvalue 0; for the training risk $\Phi^\top\Phi$ is scaled by
    $1+\epsilon$). By Laplace's method $L=f(x,y)+\frac12\log\det\nabla^2f+O(1/n)$ at the
    stationary point of

    $$f = ke^x-kx+e^y-ny+\sum_i\log\big((\tau\delta
    v_i^2+e^x\lambda_i)(\epsilon+e^y)+\delta\big).$$

    The first part gives the predicted risks, the second one this correction.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, n_features, ridge, noise_variance
        As for :func:`random_feature_risk`; ``n_features=None`` is kernel regression.

    Returns
    -------
    FiniteSizeTerm
        To be added to the predicted risks; infinite where the predicted test risk is, and at ridge
        0 wherever n is the number of positive eigenvalues and k is not less.

    Notes
    -----
    Derived here; in the isotropic ridgeless case it is the first term of the expansion of the exact
    $\sigma^2(n-1)/(n-d-1)$.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import finite_size_term, kernel_ridge_risk
    >>> size = {"n_samples": 40, "ridge": 1.0}
    >>> term = finite_size_term(np.ones(20), np.ones(20), **size)
    >>> risk = kernel_ridge_risk(np.ones(20), np.ones(20), **size)
    >>> round(float(40 * term.test_risk / risk.test_risk), 2)  # of relative order 1 / n
    5.33
    """
    n = as_count(n_samples, "n_samples")
    k = math.inf if n_features is None else as_count(n_features, "n_features")
    delta = as_real(ridge, "ridge", minimum=0.0)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    spectrum, power = as_modes(eigenvalues, coefficients)
    positive = spectrum[spectrum > 0]
    gamma = solve_gamma(positive, smallest_and_total(positive), float(n), float(k), delta, 0.0)
    a, b = free_counts(gamma, float(n), float(k), delta, float(positive.size))
    p = np.divide(spectrum, spectrum + gamma, out=np.zeros_like(spectrum), where=spectrum > 0)
    edge = p * np.divide(
        gamma, spectrum + gamma, out=np.ones_like(spectrum), where=spectrum + gamma > 0
    )
    slopes = np.stack([1 - 2 * p, 1 - 6 * edge])
    phi = np.array([0.0, 0.0, edge.sum(), *(slopes @ edge)])
    psi = np.array([power @ (1 - p) + noise, -(power @ edge), *(-slopes @ (power * edge))])
    # Axis 0 is log of the feature field (absent where the features span all modes), the last axis
    # that of the sample field.
    diagonals = [a] if math.isinf(b) or gamma == 0.0 else [b, a]

    def of_f(order: int) -> FloatArray:
        tensor = np.full((len(diagonals),) * order, phi[order])
        for i, value in enumerate(diagonals):
            tensor[(i,) * order] += value
        return tensor

    def of_h(order: int) -> FloatArray:
        tensor = np.empty((len(diagonals),) * order)
        for index in np.ndindex(tensor.shape):
            j = sum(i == len(diagonals) - 1 for i in index)
            tensor[index] = sum(math.comb(j, m) * psi[order - j + m] for m in range(j + 1))
        return tensor

    def of_e(order: int, value: float) -> FloatArray:
        tensor = np.zeros((len(diagonals),) * order)
        tensor[(-1,) * order] = value
        return tensor

    hessian, f3, f4 = of_f(2), of_f(3), of_f(4)
    h1, h2, h3 = of_h(1), of_h(2), of_h(3)
    if not np.linalg.det(hessian) > 0:
        return FiniteSizeTerm(math.inf, math.inf)
    inverse = np.linalg.inv(hessian)
    u = -inverse @ h1

    def mixed(e1: FloatArray, e2: FloatArray, e3: FloatArray) -> float:
        w = -inverse @ e1
        m = -inverse @ (h2 @ w + e2 @ u + f3 @ w @ u)
        by_h = inverse @ (h2 + f3 @ u)
        by_e = inverse @ (e2 + f3 @ w)
        both = inverse @ (h3 @ w + e3 @ u + f4 @ u @ w + f3 @ m)
        return 0.5 * float(np.trace(both) - np.trace(by_h @ by_e))

    test = mixed(of_e(1, -n), of_e(2, n), of_e(3, -n)) + float(u[-1])
    share = -a * a / n
    return FiniteSizeTerm(test, mixed(of_e(1, share), of_e(2, share), of_e(3, share)))
