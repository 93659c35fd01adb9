r"""Label smoothing and max suppression: what they share, and where they differ.

With logits $z\in\mathbb R^K$, label g and smoothing $\alpha$, cross-entropy against
$s=(1-\alpha)e_g+\frac\alpha K\mathbf 1$ is

$$\ell_{LS}(z)=\ell_{CE}(z)+\alpha(z_g-\bar z),\qquad
z_g-\bar z=\tfrac1K\sum_{z_m<z_g}(z_g-z_m)+\tfrac1K\sum_{z_m>z_g}(z_g-z_m),$$

a regulariser and a negative term that appears on errors. Max suppression penalises
$\alpha(\max_kz_k-\bar z)$ instead, so that
$\ell_{MS}-\ell_{LS}=\alpha(z_{\max}-z_g)\ge0$, zero iff the label is a maximum: in every
model whose smoothing minimizers fit all training data the minimizers of both coincide. One of them
is that of balanced unconstrained features (``unconstrained_features``, with the losses
:class:`CrossEntropy` and :class:`MaxSuppression`).

Statements re-derived here; of zhou2025-maxsup only the abstract was consulted."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.special import log_softmax, softmax

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.neural_collapse._losses import CrossEntropy, Loss, MaxSuppression, as_loss
from theorylab.neural_collapse._spectra import as_labels
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "SmoothedFit",
    "SmoothedLoss",
    "SmoothingTerms",
    "correction_time",
    "logit_radius",
    "smoothed_linear_fit",
    "smoothed_loss",
    "smoothing_terms",
]

_WEIGHTS = 5000  # of a classifier whose Hessian is formed


@result
class SmoothingTerms:
    """The parts of ``z_g - mean(z)``, each (N,): ``regularization`` >= 0, ``error`` <= 0, zero iff
    the label is a maximum."""

    regularization: FloatArray
    error: FloatArray


@result
class SmoothedLoss:
    """``values`` (N,) of every sample and their ``gradient`` (K, N) in the logits."""

    values: FloatArray
    gradient: FloatArray


def smoothing_terms(logits: ArrayLike, labels: ArrayLike) -> SmoothingTerms:
    """Split the penalty of label smoothing into its regularising part and the part that appears on
    errors.

    Parameters
    ----------
    logits
        (K, N), a column a sample.
    labels
        (N,) integers from 0 to K - 1.

    Returns
    -------
    SmoothingTerms
        Label smoothing adds alpha times their sum to cross-entropy (zhou2025-maxsup, decomposition
        of the loss).

    Examples
    --------
    >>> from theorylab.neural_collapse import smoothing_terms
    >>> terms = smoothing_terms([[2.0], [3.0], [1.0]], [0])
    >>> terms.regularization, terms.error
    (array([0.33333333]), array([-0.33333333]))
    """
    Z, y = _logits_and_labels(logits, labels)
    difference = Z[y, np.arange(y.size)] - Z
    return SmoothingTerms(
        np.maximum(difference, 0).mean(axis=0), np.minimum(difference, 0).mean(axis=0)
    )


def smoothed_loss(logits: ArrayLike, labels: ArrayLike, loss: Loss | str) -> SmoothedLoss:
    """Return label-smoothed or max-suppressed cross-entropy and its gradient.

    Parameters
    ----------
    logits
        (K, N), a column a sample.
    labels
        (N,) integers from 0 to K - 1.
    loss
        :class:`CrossEntropy` or :class:`MaxSuppression`; ``"ce"``, ``"ls"`` and ``"maxsup"``
        (smoothing 0.1) stand for them.

    Examples
    --------
    >>> from theorylab.neural_collapse import smoothed_loss
    >>> smoothed_loss([[0.0], [0.0]], [0], "ls").values
    array([0.69314718])
    """
    Z, y = _logits_and_labels(logits, labels)
    return SmoothedLoss(*as_loss(loss, CrossEntropy, MaxSuppression).terms(Z, y))


def correction_time(
    n_classes: int, *, margin: float, loss: Loss | str = "ce", lead: float = 0.0
) -> float:
    r"""Return the time at which gradient flow on the logits of one sample puts its label ahead of
    all others by ``lead``.

    While the wrong class leads, its distance to the label shrinks at a rate in [1+c, 2+c), c = 0,
    -alpha, alpha for cross-entropy, label smoothing and max suppression: the time to correct lies
    in (margin/(2+c), margin/(1+c)].

    Parameters
    ----------
    n_classes
        K >= 2.
    margin
        At the start a wrong class leads by this much and the other classes are level with the
        label; if negative, all classes lie that far behind the label. At most 1e12.
    loss
        :class:`CrossEntropy` or :class:`MaxSuppression`; ``"ce"``, ``"ls"`` and ``"maxsup"``
        (smoothing 0.1) stand for them.
    lead
        Non-negative.

    Returns
    -------
    float
        By an 8th-order Runge-Kutta method at relative tolerance 1e-10; 0 if the label leads
        already, infinite where ``lead`` is not below the gap of the minimizer.

    Examples
    --------
    >>> from theorylab.neural_collapse import CrossEntropy, correction_time
    >>> early = correction_time(4, margin=1.0, loss=CrossEntropy(smoothing=0.2))
    >>> late = correction_time(4, margin=2.0, loss=CrossEntropy(smoothing=0.2))
    >>> early < late
    True
    """
    K = as_count(n_classes, "n_classes", minimum=2)
    start, ahead = as_real(margin, "margin", maximum=1e12), as_real(lead, "lead", minimum=0.0)
    a, suppresses = _smoothing(loss)
    if a and ahead >= np.log1p(K * (1 - a) / a):  # the gap of the minimizer
        return np.inf
    if start + ahead <= 0:
        return 0.0

    def flow(t: float, state: FloatArray) -> list[float]:
        # Leading and other wrong classes against the label; the leader stays the largest among the
        # wrong ones.
        leader, others = state
        top = max(leader, others, 0.0)
        mass = np.exp(-top) + np.exp(leader - top) + (K - 2) * np.exp(others - top)
        own = float(np.exp(-top) / mass)
        pushed = a if suppresses and leader > 0 else -a
        rest = a if not suppresses or leader <= 0 else 0.0
        return [
            own - 1 - float(np.exp(leader - top) / mass) - pushed,
            own - 1 - float(np.exp(others - top) / mass) + rest,
        ]

    def shortfall(t: float, state: FloatArray) -> float:
        return float(state[0] + ahead)

    shortfall.terminal = True  # type: ignore[attr-defined]
    run = solve_ivp(
        flow,
        # The label catches up within margin / (1 - alpha); a lead below the minimizer's takes
        # finite time on top.
        (0.0, 1e9 + 2 * max(start, 0.0) / (1 - a)),
        [start, min(start, 0.0)],
        method="DOP853",
        rtol=1e-10,
        atol=1e-12,
        events=shortfall,
    )
    reached: Any = run.t_events
    return float(reached[0][0]) if reached[0].size else np.inf


def logit_radius(logits: ArrayLike, minimizer_logits: ArrayLike, excess: float) -> float:
    r"""Bound the Frobenius distance, up to shifts of columns, of logits to those of a minimizer of
    mean smoothed cross-entropy.

    Cross-entropy has curvature at least $m=\min_{ki}p_{ki}$ on centred columns, and
    $\log p$ is concave, so that m along the segment is attained at an end: the distance is at
    most $\sqrt{2N\,\mathrm{excess}/m}$ (derived).

    Parameters
    ----------
    logits, minimizer_logits
        (K, N) at a point and at the global minimizer, of any convex penalty in the logits.
    excess
        Objective of the point above the minimum, non-negative.

    Examples
    --------
    >>> from theorylab.neural_collapse import logit_radius
    >>> logit_radius([[2.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [0.0, 2.1]], 0.01) > 0.1
    True
    """
    Z = as_array(logits, "logits", ndim=2)
    optimal = as_array(minimizer_logits, "minimizer_logits", shape=Z.shape)
    least = min(log_softmax(Z, axis=0).min(), log_softmax(optimal, axis=0).min())
    return float(np.sqrt(2 * Z.shape[1] * as_real(excess, "excess", minimum=0.0) / np.exp(least)))


@result
class SmoothedFit:
    """A linear softmax model: ``classifier`` (K, d), ``objective``, ``suboptimality`` bounding its
    excess over the minimum."""

    classifier: FloatArray
    objective: float
    suboptimality: float


@refuses_overflow("features", "ridge")
def smoothed_linear_fit(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    n_classes: int,
    loss: Loss | str = "ce",
    ridge: float = 0.001,
) -> SmoothedFit:
    r"""Fit a linear softmax model under mean smoothed cross-entropy plus
    $\frac{ridge}2\|V\|_F^2$.

    Newton's method; max suppression along $\max\le\tau\log\sum e^{\cdot/\tau}\le\max+\tau\log
    K$, down to tau = 1e-5.

    Parameters
    ----------
    features
        (d, N), a column a sample.
    labels
        (N,) integers from 0 to K - 1.
    n_classes
        K >= 2.
    loss
        :class:`CrossEntropy` or :class:`MaxSuppression`; ``"ce"``, ``"ls"`` and ``"maxsup"``
        (smoothing 0.1) stand for them.
    ridge
        Weight decay, positive.

    Raises
    ------
    ValueError
        For malformed arguments, or more than 5000 weights: the Hessian has the square of their
        number, and a step takes the cube.

    Examples
    --------
    >>> from theorylab.neural_collapse import smoothed_linear_fit
    >>> fit = smoothed_linear_fit([[1.0, -1.0]], [0, 1], n_classes=2, loss="ls")
    >>> round(fit.objective, 4), fit.suboptimality < 1e-12
    (0.2007, True)
    """
    X = as_array(features, "features", ndim=2)
    K = as_count(n_classes, "n_classes", minimum=2)
    y = as_labels(labels, X.shape[1], K)
    a, suppresses = _smoothing(loss)
    decay = as_real(ridge, "ridge", above=0.0)
    d, N = X.shape
    if K * d > _WEIGHTS:
        raise ValueError(
            f"features: expected at most {_WEIGHTS} weights of a classifier, as Newton's method "
            f"takes its Hessian, got {K} x {d}"
        )
    # In units in which the features are of order one; the classifier is in their inverse.
    unit = binary_exponent(X)
    X, decay = np.ldexp(X, -unit), math.ldexp(decay, -2 * unit)
    Y = np.eye(K)[:, y]
    V = np.zeros((K, d))

    def evaluate(
        V: FloatArray, tau: float
    ) -> tuple[float, FloatArray, list[tuple[float, FloatArray]]]:
        Z = V @ X
        p, q = softmax(Z, axis=0), softmax(Z / tau, axis=0) if suppresses else Y
        top = (
            tau * np.log(np.sum(np.exp((Z - Z.max(axis=0)) / tau), axis=0)) + Z.max(axis=0)
            if suppresses
            else Z[y, range(N)]
        )
        values = -log_softmax(Z, axis=0)[y, range(N)] + a * (top - Z.mean(axis=0))
        slope = (p - Y + a * (q - 1 / K)) @ X.T / N + decay * V
        return (
            float(values.mean() + decay / 2 * np.sum(V**2)),
            slope,
            [(1.0, p), (a / tau * suppresses, q)],
        )

    taus = np.geomspace(1.0, 1e-5, 16) if suppresses and a > 0 else np.ones(1)
    slope = V
    for tau in taus:
        for _ in range(50):
            value, slope, weights = evaluate(V, tau)
            if np.linalg.norm(slope) < 1e-11:
                break
            hessian = np.empty((K, d, K, d))
            for k, j in itertools.combinations_with_replacement(range(K), 2):
                curvature = sum(w * q[k] * ((k == j) - q[j]) for w, q in weights)
                hessian[k, :, j] = hessian[j, :, k] = (X * curvature) @ X.T / N
            flat = hessian.reshape(K * d, K * d)
            flat[np.diag_indices_from(flat)] += decay
            step = np.linalg.solve(flat, slope.ravel()).reshape(K, d)
            decrease, size = float(np.sum(slope * step)), 1.0
            # Close to the minimum values differ by their rounding only.
            rounding = 4 * np.finfo(float).eps * abs(value)
            while size > 1e-9 and (
                evaluate(V - size * step, tau)[0] > value - 1e-4 * size * decrease + rounding
            ):
                size /= 2
            if size <= 1e-9:
                break
            V = V - size * step
    objective = as_loss(loss).mean(V @ X, y, np.ones(N))[0] + decay / 2 * float(np.sum(V**2))
    smoothing = a * float(taus[-1]) * np.log(K) if taus.size > 1 else 0.0
    suboptimality = float(smoothing + np.sum(slope**2) / (2 * decay))
    return SmoothedFit(np.ldexp(V, -unit), objective, suboptimality)


def _smoothing(loss: Loss | str) -> tuple[float, bool]:
    """Return the share, and whether it suppresses the largest logit."""
    known = as_loss(loss, CrossEntropy, MaxSuppression)
    minorant = known.minorant
    assert isinstance(minorant, CrossEntropy)
    return minorant.smoothing, isinstance(known, MaxSuppression)


def _logits_and_labels(
    logits: ArrayLike, labels: ArrayLike
) -> tuple[FloatArray, NDArray[np.int64]]:
    Z = as_array(logits, "logits", ndim=2)
    if Z.shape[0] < 2:
        raise ValueError(f"logits: expected at least two classes, got shape {Z.shape}")
    return Z, as_labels(labels, Z.shape[1], Z.shape[0])
