r"""Deterministic equivalents of the risks of kernel and random-feature ridge regression, from the
spectrum alone.

Features $g(w,x)=\sum_i\sqrt{\lambda_i}\,\zeta_i(w)\phi_i(x)$ with orthonormal
$\phi_i,\zeta_i$, k of them, n samples, target $\sum_iv_i\phi_i$ with label noise of
variance $\sigma^2$, ridge $\delta$ in $(\hat K+\delta I_n)^{-1}$, $\hat
K=\frac1k\sum_jg(w_j,\cdot)g(w_j,\cdot)$. With the effective ridge $\gamma$ of
:mod:`~theorylab.random_features.fixed_points`, $\Gamma_i=\gamma/(\lambda_i+\gamma)$,
$a=n-z$, $b=k-z$ and $c=\sum_i\Gamma_i(1-\Gamma_i)$,

$$\mathcal E_{te} =
n\,\frac{\sum_i\Gamma_i^2v_i^2+\frac{c}{b+c}\sum_i\Gamma_i(1-\Gamma_i)v_i^2+\sigma^2}{a+\frac{bc}{b+c}},
\qquad \mathcal E_{tr} = \Big(\frac an\Big)^2\mathcal E_{te} =
\frac{\delta^2}{n^2\kappa^2}\,\mathcal E_{te}$$

(simon2024-more, Section 4, written so that every term is positive; kernel regression is
$b=\infty$). For Gaussian $\phi,\zeta$ both risks are exact up to a relative
$O(1/n)$, whose first term :func:`finite_size_term` gives. At fixed $\gamma$ the test
risk decreases in a and b, that is in n and k: more is better. Where $\lambda_i\propto
i^{-\alpha}$ and $v_i^2\propto i^{-\beta}$ the best ratio $\mathcal E_{tr}/\mathcal
E_{te}$ tends to :func:`optimal_fitting_ratio`."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import (
    FloatArray,
    as_count,
    as_real,
)
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.random_features._risk_kernels import (
    as_modes,
    moments,
    risk_at,
    risk_floors,
    risks,
    risks_along,
)
from theorylab.random_features.fixed_points import (
    broadcast_sizes,
    portion_of,
    smallest_and_total,
    solve_gamma,
)

__all__ = [
    "LearningCurve",
    "OptimalRidge",
    "OptimalRidgeStatus",
    "RidgeRisk",
    "kernel_ridge_risk",
    "learning_curve",
    "optimal_ridge",
    "random_feature_risk",
]


@result
class RidgeRisk:
    """Predicted risks at one size, with the two effective ridges: deterministic equivalents, which
    differ from the means over samples by a relative O(1/n).

    Attributes
    ----------
    test_risk
        Mean squared error on a fresh noisy label (it includes the noise variance).
    train_risk
        Mean squared residual on the training labels.
    kappa, gamma
        Effective ridges; equal for kernel regression.
    """

    test_risk: float
    train_risk: float
    kappa: float
    gamma: float


@result
class LearningCurve:
    """The quantities of :class:`RidgeRisk` as arrays, one entry per size."""

    test_risk: FloatArray
    train_risk: FloatArray
    kappa: FloatArray
    gamma: FloatArray


class OptimalRidgeStatus(StrEnum):
    """How the minimisation over the ridge ended."""

    INTERIOR = "a positive ridge is optimal"
    INTERPOLATION = "ridge 0 is optimal: regularising more than interpolation does can only hurt"
    NOTHING_LEARNABLE = (
        "no ridge beats the zero prediction: the target has no power on the kernel's modes"
    )
    STOPPED = "stopped by the callback, with the best ridge and the bound found by then"


@result
class OptimalRidge:
    """Ridge of least predicted test risk, with a lower bound over all ridges.

    Attributes
    ----------
    ridge
        The minimiser; infinite where the zero prediction is best.
    test_risk, train_risk, gamma
        Risks and effective ridge there.
    lower_bound
        No ridge has a smaller predicted test risk, up to rounding.
    status
        Which kind of optimum it is.
    """

    ridge: float
    test_risk: float
    train_risk: float
    gamma: float
    lower_bound: float
    status: OptimalRidgeStatus

    @property
    def gap(self) -> float:
        """Relative distance of the risk from its lower bound."""
        return (self.test_risk - self.lower_bound) / self.test_risk if self.test_risk > 0 else 0.0


def random_feature_risk(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    n_features: int,
    ridge: float,
    noise_variance: float = 0.0,
) -> RidgeRisk:
    r"""Return the predicted test and training risk of random-feature ridge regression.

    Parameters
    ----------
    eigenvalues
        Shape (n_modes,), non-negative; a zero is a mode that the kernel cannot learn.
    coefficients
        Shape (n_modes,): $v_i$, the target on orthonormal eigenfunctions (not squared).
    n_samples, n_features
        n and k.
    ridge
        $\delta\ge0$, added to the n x n kernel matrix of the kernel with the factor 1/k.
    noise_variance
        $\sigma^2\ge0$ of the labels; included in both risks.

    Returns
    -------
    RidgeRisk
        At ridge 0 the limit of the formula as the ridge tends to 0. It is infinite where n equals
        k, or the number of positive eigenvalues, and something cannot be fitted: there the mean
        over Gaussian designs is infinite as well.

    Notes
    -----
    simon2024-more, Section 4 (the paper's text was not consulted).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import kernel_ridge_risk, random_feature_risk
    >>> eigenvalues = np.arange(1, 1001) ** -1.5
    >>> size = {"n_samples": 100, "ridge": 1e-3}
    >>> few = random_feature_risk(eigenvalues, eigenvalues, n_features=200, **size)
    >>> bool(few.test_risk > kernel_ridge_risk(eigenvalues, eigenvalues, **size).test_risk)
    True
    """
    as_count(n_samples, "n_samples")
    as_count(n_features, "n_features")
    as_real(ridge, "ridge", minimum=0.0)
    return _one_size(eigenvalues, coefficients, n_samples, n_features, ridge, noise_variance)


def kernel_ridge_risk(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    ridge: float,
    noise_variance: float = 0.0,
) -> RidgeRisk:
    r"""Return the predicted test and training risk of kernel ridge regression.

    The limit of :func:`random_feature_risk` for infinitely many features:
    $\mathcal E_{te}=\big(\sum_i\Gamma_i^2v_i^2+\sigma^2\big)/(1-q/n)$ with
    $q=\sum_i(\lambda_i/(\lambda_i+\kappa))^2$.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, ridge, noise_variance
        As for :func:`random_feature_risk`.

    Returns
    -------
    RidgeRisk
        With ``gamma`` equal to ``kappa``.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import kernel_ridge_risk
    >>> eigenvalues = np.arange(1, 10_001) ** -1.5
    >>> risk = kernel_ridge_risk(eigenvalues, eigenvalues**0.6, n_samples=300, ridge=1e-3)
    >>> bool(0 < risk.train_risk < risk.test_risk < (eigenvalues**1.2).sum())
    True
    """
    as_count(n_samples, "n_samples")
    as_real(ridge, "ridge", minimum=0.0)
    return _one_size(eigenvalues, coefficients, n_samples, None, ridge, noise_variance)


def learning_curve(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: ArrayLike,
    ridge: ArrayLike,
    n_features: ArrayLike | None = None,
    noise_variance: float = 0.0,
) -> LearningCurve:
    """Return the predicted risks at many sizes or ridges at once.

    Parameters
    ----------
    eigenvalues, coefficients, noise_variance
        As for :func:`random_feature_risk`.
    n_samples, n_features, ridge
        Positive integers and non-negative ridges, or one-dimensional arrays of them that broadcast
        together; ``n_features=None`` is kernel regression. Each size starts from the root of the
        one before.

    Returns
    -------
    LearningCurve
        Arrays of the broadcast shape.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import learning_curve
    >>> eigenvalues = np.arange(1, 1001) ** -1.5
    >>> curve = learning_curve(eigenvalues, eigenvalues, n_samples=[10, 100, 1000], ridge=1e-3)
    >>> bool((np.diff(curve.test_risk) < 0).all())  # more is better
    True
    """
    spectrum, power = as_modes(eigenvalues, coefficients)
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    n, k, delta = broadcast_sizes(n_samples, n_features, ridge)
    positive = spectrum > 0
    rest = noise + float(power[~positive].sum())
    rows, portion = np.zeros((4, n.size)), portion_of(int(np.count_nonzero(positive)))
    problem = spectrum[positive], power[positive], rest, n.ravel(), k.ravel(), delta.ravel()
    for first in range(0, n.size, portion):
        risks(*problem, rows, first, min(first + portion, n.size))
    return LearningCurve(*(row.reshape(n.shape) for row in rows))


def optimal_ridge(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    *,
    n_samples: int,
    n_features: int | None = None,
    noise_variance: float = 0.0,
    tol: float = 1e-6,
    callback: Callback | None = None,
) -> OptimalRidge:
    r"""Minimise the predicted test risk over the ridge, globally and with a lower bound.

    The risk is $n\,(B+\sigma^2)/(n-D)$ with B increasing and D decreasing in $\gamma$.
    Indeed $B=\bar\Gamma-\kappa\bar\Gamma'$ and $D=(\kappa z)'=k-k(\kappa^2/\gamma)'$
    with derivatives in $\kappa$, and $\gamma$ is a concave function of $\kappa$:
    hence $\bar\Gamma=\sum_iv_i^2\Gamma_i$ is concave and $\kappa^2/\gamma$ convex. On
    an interval of $\gamma$ the value of B at its left end and that of D at its right end
    bound the risk from below. So does, in an interval of width w in $\log\gamma$, the smaller
    risk of the two ends times $e^{-Kw^2/8}$, K bounding the second derivative of the log
    risk. Intervals that could hold a better risk are halved until none is left.

    Parameters
    ----------
    eigenvalues, coefficients, n_samples, n_features, noise_variance
        As for :func:`random_feature_risk`; ``n_features=None`` is kernel regression.
    tol
        Relative gap to the lower bound, at least 1e-12.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each round of intervals: the
        least risk found, and its relative gap; where it returns True, the search stops.

    Returns
    -------
    OptimalRidge

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.random_features import kernel_ridge_risk, optimal_ridge
    >>> spectrum = np.arange(1, 201) ** -1.5
    >>> size = {"n_samples": 50, "noise_variance": 0.1}
    >>> best = optimal_ridge(spectrum, spectrum, **size)
    >>> at = kernel_ridge_risk(spectrum, spectrum, ridge=best.ridge, **size)
    >>> bool(np.isclose(at.test_risk, best.test_risk))
    True
    """
    n = float(as_count(n_samples, "n_samples"))
    k = math.inf if n_features is None else float(as_count(n_features, "n_features"))
    noise = as_real(noise_variance, "noise_variance", minimum=0.0)
    relative = as_real(tol, "tol", minimum=1e-12, below=1.0)
    spectrum, power = as_modes(eigenvalues, coefficients)
    positive = spectrum > 0
    rest = noise + float(power[~positive].sum())
    values, weights = spectrum[positive], power[positive]
    if not weights.any():
        risk = rest
        return OptimalRidge(
            math.inf, risk, risk, math.inf, risk, OptimalRidgeStatus.NOTHING_LEARNABLE
        )
    start = solve_gamma(values, smallest_and_total(values), n, k, 0.0, 0.0)
    at_zero = _one_size(eigenvalues, coefficients, int(n), n_features, 0.0, noise)
    if at_zero.test_risk == 0.0:
        return OptimalRidge(0.0, 0.0, 0.0, start, 0.0, OptimalRidgeStatus.INTERPOLATION)
    # At the last point the risk, and beyond it B alone, are within tol / 2 of the zero prediction's
    # risk.
    zero = float(weights.sum()) + rest
    stop = float(values.sum()) / min(n, k)
    while True:
        at_stop, free_at_stop, _ = risk_at(values, weights, rest, n, k, stop)
        if (
            at_stop >= (1 - relative / 2) * zero
            and n * at_stop <= (1 + relative / 2) * zero * free_at_stop
        ):
            break
        stop *= 4.0
    gammas = np.geomspace(
        start if start > 0 else float(values.min()) * (relative / 2) ** 2, stop, 65
    )
    # Rows: gamma, B + sigma^2, n - D, the spread, the risk.
    points = risks_along(values, weights, rest, n, k, gammas)
    if start == 0.0:
        # B is at least the rest. Where that is 0, n and k are both the number of modes (else the
        # risk at 0 would vanish), and up to the first point the risk falls below its limit by less
        # than the factor (1 - (tol / 2)^2)^2.
        least = (
            rest
            if rest > 0
            else (1 - (relative / 2) ** 2) ** 2 * at_zero.test_risk * points[2, 0] / n
        )
        points = np.column_stack([[0.0, least, n - values.size, 0.0, 0.0], points])
    points[4, 0] = at_zero.test_risk
    bound = float(points[1, -1])
    gamma, _, _, _, risk = points[:, np.argmin(points[4])]
    left, right = points[:, :-1], points[:, 1:]
    stops, round_, told = watcher(callback), 0, False
    while True:
        floors = risk_floors(left, right, n)
        round_ += 1
        now = min(bound, float(floors.min()), float(risk))
        if told := stops(round_, float(risk), float((risk - now) / risk)):
            bound = now
            break
        keep = floors < (1 - relative) * risk
        middle = np.where(left[0] > 0, np.sqrt(left[0]) * np.sqrt(right[0]), right[0] * relative)
        keep &= (middle > left[0]) & (middle < right[0])
        bound = float(floors[~keep].min(initial=bound))
        if not keep.any():
            break
        points = risks_along(values, weights, rest, n, k, middle[keep])
        best = int(np.argmin(points[4]))
        if points[4, best] < risk:
            gamma, risk = points[0, best], points[4, best]
        left, right = np.hstack([left[:, keep], points]), np.hstack([points, right[:, keep]])
    if gamma == start:
        ridge, train = 0.0, at_zero.train_risk
    else:
        above, offset, *_ = moments(values, weights, gamma)
        a, b = max(n - above - offset, 0.0), max(k - above - offset, 0.0)
        ridge = gamma * a * (1.0 if math.isinf(k) else b / k)
        train = (a / n) ** 2 * risk
    status = OptimalRidgeStatus.INTERPOLATION if ridge == 0.0 else OptimalRidgeStatus.INTERIOR
    if told:
        status = OptimalRidgeStatus.STOPPED
    return OptimalRidge(
        float(ridge), float(risk), float(train), float(gamma), min(bound, float(risk)), status
    )


def _one_size(
    eigenvalues: ArrayLike,
    coefficients: ArrayLike,
    n: int,
    k: int | None,
    ridge: float,
    noise_variance: float,
) -> RidgeRisk:
    curve = learning_curve(
        eigenvalues,
        coefficients,
        n_samples=n,
        ridge=ridge,
        n_features=k,
        noise_variance=noise_variance,
    )
    return RidgeRisk(
        float(curve.test_risk), float(curve.train_risk), float(curve.kappa), float(curve.gamma)
    )
