r"""Label smoothing and max suppression: what they share, and where they differ.

With logits $z\in\mathbb R^K$, label g and smoothing $\alpha$, cross-entropy against
$s=(1-\alpha)e_g+\frac\alpha K\mathbf 1$ is

$$\ell_{LS}(z)=\ell_{CE}(z)+\alpha(z_g-\bar z),\qquad
z_g-\bar z=\tfrac1K\sum_{z_m<z_g}(z_g-z_m)+\tfrac1K\sum_{z_m>z_g}(z_g-z_m),$$

a regulariser and a negative term that appears on errors. Max suppression penalises
$\alpha(\max_kz_k-\bar z)$ instead, so that
$\ell_{MS}-\ell_{LS}=\alpha(z_{\max}-z_g)\ge0$, zero iff the label is a maximum: in every
model whose smoothing minimizers fit all training data the minimizers of both coincide. On balanced
unconstrained features (as in ``unconstrained_features``) they form a simplex frame with logit gap
$\log(1/t-K+1)$, $t=\frac\alpha K+\sqrt{n\lambda_W\lambda_H}$, for $Kt<1$, and
vanish otherwise.

Statements re-derived here; of zhou2025-maxsup only the abstract was consulted."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import numpy as np
from flint import arb, fmpq, fmpq_mat
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_real,
    one_of,
    refuses_overflow,
)
from theorylab.neural_collapse._intervals import feasible_scale, log_sum_exp, precision
from theorylab.neural_collapse._losses import as_labels
from theorylab.neural_collapse._spectra import as_counts
from theorylab.neural_collapse.metrics import simplex_etf
from theorylab.neural_collapse.unconstrained_features import Certificate
from theorylab.numerics.balls import (
    above,
    ball_matrix,
    below,
    rational,
    rational_matrix,
    square_sum,
)
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "SmoothedFit",
    "SmoothedLoss",
    "SmoothedUfm",
    "SmoothingTerms",
    "SolutionStatus",
    "certify_smoothed_ufm",
    "correction_time",
    "logit_radius",
    "search_smoothed_ufm",
    "smoothed_gap",
    "smoothed_linear_fit",
    "smoothed_loss",
    "smoothed_ufm_minimizer",
    "smoothing_terms",
]

_LOSSES = ("ls", "maxsup")


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

    Raises
    ------
    ValueError
        On bad input.

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


def smoothed_loss(
    logits: ArrayLike, labels: ArrayLike, alpha: float, *, loss: str = "ls"
) -> SmoothedLoss:
    """Return label-smoothed or max-suppressed cross-entropy and its gradient.

    Parameters
    ----------
    logits
        (K, N), a column a sample.
    labels
        (N,) integers from 0 to K - 1.
    alpha
        Smoothing, 0 <= alpha < 1; 0 is plain cross-entropy.
    loss
        ``"ls"`` or ``"maxsup"``. At ties of the largest logit, max suppression returns the
        subgradient that is closest to that of label smoothing: a label among the largest counts as
        the largest; otherwise the first.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import smoothed_loss
    >>> smoothed_loss([[0.0], [0.0]], [0], 0.1).values
    array([0.69314718])
    """
    Z, y = _logits_and_labels(logits, labels)
    return SmoothedLoss(*_loss(Z, y, _as_alpha(alpha), one_of(loss, "loss", _LOSSES)))


def correction_time(
    n_classes: int, *, margin: float, alpha: float, loss: str = "ls", lead: float = 0.0
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
    alpha
        Smoothing, 0 <= alpha < 1; 0 is plain cross-entropy.
    loss
        ``"ls"`` or ``"maxsup"``.
    lead
        Non-negative.

    Returns
    -------
    float
        By an 8th-order Runge-Kutta method at relative tolerance 1e-10; 0 if the label leads
        already, infinite where ``lead`` is not below the gap of the minimizer.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import correction_time
    >>> early = correction_time(4, margin=1.0, alpha=0.1)
    >>> late = correction_time(4, margin=2.0, alpha=0.1)
    >>> early < late
    True
    """
    K = as_count(n_classes, "n_classes", minimum=2)
    start, a = as_real(margin, "margin", maximum=1e12), _as_alpha(alpha)
    ahead, kind = as_real(lead, "lead", minimum=0.0), one_of(loss, "loss", _LOSSES)
    if ahead >= smoothed_gap(K, n_per_class=1, lam_w=0.0, lam_h=0.0, alpha=a):
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
        pushed = a if kind == "maxsup" and leader > 0 else -a
        rest = a if kind == "ls" or leader <= 0 else 0.0
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


def smoothed_gap(
    n_classes: int, *, n_per_class: int, lam_w: float, lam_h: float, alpha: float
) -> float:
    r"""Return the logit gap of the label at the minimum of smoothed cross-entropy, for label
    smoothing and max suppression alike.

    $\log(1/t-K+1)$ with $t=\alpha/K+\sqrt{n\lambda_W\lambda_H}$ if $Kt<1$, else
    0. With zero weight decay it is that of a single sample,
    $\log\frac{1-\alpha+\alpha/K}{\alpha/K}$ (derived).

    Parameters
    ----------
    n_classes, n_per_class
        K >= 2 classes of n samples.
    lam_w, lam_h
        Weight decay of classifier and features, non-negative.
    alpha
        Smoothing, 0 <= alpha < 1.

    Returns
    -------
    float
        Infinite without smoothing and decay.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import smoothed_gap
    >>> gap = smoothed_gap(4, n_per_class=1, lam_w=1e-9, lam_h=1e-9, alpha=0.1)
    >>> np.round([gap, np.log(1 + 4 * 0.9 / 0.1)], 4)
    array([3.6109, 3.6109])
    """
    K = as_count(n_classes, "n_classes", minimum=2)
    n = as_count(n_per_class, "n_per_class")
    decay = n * as_real(lam_w, "lam_w", minimum=0.0) * as_real(lam_h, "lam_h", minimum=0.0)
    t = _as_alpha(alpha) / K + np.sqrt(decay)
    if t == 0:
        return np.inf
    return float(np.log1p((1 - K * t) / t)) if K * t < 1 else 0.0


class SolutionStatus(StrEnum):
    """How a point was obtained."""

    CLOSED_FORM = "closed form"
    SEARCHED = "the best end of several local searches; only a certificate proves it optimal"


@result
class SmoothedUfm:
    """A point of the unconstrained-features model with smoothed cross-entropy.

    Attributes
    ----------
    objective
        Mean loss plus weight decay.
    classifier
        (K, d).
    features
        (d, N), samples ordered by class.
    bias
        (K,), or None for the model without.
    status
        How it was obtained.
    """

    objective: float
    classifier: FloatArray
    features: FloatArray
    bias: FloatArray | None
    status: SolutionStatus

    @property
    def logits(self) -> FloatArray:
        """(K, N)."""
        Z: FloatArray = self.classifier @ self.features
        return Z if self.bias is None else Z + self.bias[:, None]


def smoothed_ufm_minimizer(
    n_classes: int, *, n_per_class: int, dimension: int, lam_w: float, lam_h: float, alpha: float
) -> SmoothedUfm:
    """Return a global minimizer for balanced classes without bias: of label smoothing and of max
    suppression at once.

    Parameters
    ----------
    n_classes, n_per_class
        K >= 2 classes of n samples.
    dimension
        d >= K - 1.
    lam_w, lam_h
        Weight decay of classifier and features, positive.
    alpha
        Smoothing, 0 <= alpha < 1.

    Raises
    ------
    ValueError
        On bad input.

    Notes
    -----
    Derived. In the product W H the label-smoothing problem is convex, and strictly so up to shifts
    of columns, which the nuclear norm forbids: the minimizer is unique up to rotations of the
    feature space. The label is a maximum there.

    Examples
    --------
    >>> from theorylab.neural_collapse import smoothed_ufm_minimizer
    >>> model = {"lam_w": 0.01, "lam_h": 0.01, "alpha": 0.1}
    >>> smoothed_ufm_minimizer(3, n_per_class=2, dimension=3, **model)
    <SmoothedUfm: objective 0.37966, classifier (3, 3), features (3, 6), closed form>
    """
    W = simplex_etf(n_classes, dimension)
    K, n = W.shape[0], as_count(n_per_class, "n_per_class")
    lams = as_real(lam_w, "lam_w", above=0.0), as_real(lam_h, "lam_h", above=0.0)
    gap = smoothed_gap(K, n_per_class=n, lam_w=lams[0], lam_h=lams[1], alpha=alpha)
    # All singular values of the logits are gap sqrt(n); balanced factors share the penalty.
    strength = gap * np.sqrt(n) * (K - 1) / K
    W = W * np.sqrt(strength * np.sqrt(lams[1] / lams[0]))
    H = np.repeat(W.T * np.sqrt(lams[0] / (lams[1] * n)), n, axis=1)
    slope = float(np.sqrt(n * lams[0] * lams[1])) + alpha / K
    objective = float((K - 1) * slope * gap + np.log1p((K - 1) * np.exp(-gap)))
    return SmoothedUfm(objective, W, H, None, SolutionStatus.CLOSED_FORM)


@refuses_overflow("lam_w", "lam_h")
def search_smoothed_ufm(
    counts: ArrayLike,
    *,
    dimension: int,
    lam_w: float,
    lam_h: float,
    alpha: float,
    loss: str = "ls",
    bias: bool = False,
    n_starts: int = 4,
    seed: int = 0,
) -> SmoothedUfm:
    """Minimise over features, classifier and bias by L-BFGS from Gaussian starts, knowing nothing
    of the minimizers.

    Parameters
    ----------
    counts
        (K,) class sizes, K >= 2.
    dimension
        d, feature dimension.
    lam_w, lam_h
        Weight decay of classifier and features, positive.
    alpha
        Smoothing, 0 <= alpha < 1.
    loss
        ``"ls"`` or ``"maxsup"`` (not differentiable where largest logits tie: there the search may
        stall).
    bias
        Whether there is a last-layer bias, not penalised.
    n_starts, seed
        Number of starts and their seed.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import search_smoothed_ufm, smoothed_ufm_minimizer
    >>> model = {"dimension": 3, "lam_w": 0.01, "lam_h": 0.01, "alpha": 0.1}
    >>> found = search_smoothed_ufm([2, 2, 2], n_starts=2, seed=0, **model)
    >>> found.objective - smoothed_ufm_minimizer(3, n_per_class=2, **model).objective < 1e-7
    True
    """
    n = as_counts(counts, "counts")
    d, K, N = as_count(dimension, "dimension"), n.size, int(n.sum())
    lams = as_real(lam_w, "lam_w", above=0.0), as_real(lam_h, "lam_h", above=0.0)
    a, kind = _as_alpha(alpha), one_of(loss, "loss", _LOSSES)
    free = as_flag(bias, "bias")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    y = np.repeat(np.arange(K), n)

    def split(theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        return (
            theta[: K * d].reshape(K, d),
            theta[K * d : K * d + d * N].reshape(d, N),
            theta[K * d + d * N :],
        )

    def value_and_gradient(theta: FloatArray) -> tuple[float, FloatArray]:
        W, H, b = split(theta)
        values, G = _loss(W @ H + b[:, None] if free else W @ H, y, a, kind)
        G = G / N
        value = values.mean() + (lams[0] * np.sum(W**2) + lams[1] * np.sum(H**2)) / 2
        slopes = [(G @ H.T + lams[0] * W).ravel(), (W.T @ G + lams[1] * H).ravel()]
        return float(value), np.concatenate([*slopes, G.sum(axis=1)] if free else slopes)

    best: Any = None
    options: Any = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 30}
    target: Any = value_and_gradient
    for _ in range(as_count(n_starts, "n_starts")):
        start = np.append(rng.standard_normal(K * d + d * N), np.zeros(K if free else 0))
        found = minimize(target, start, jac=True, method="L-BFGS-B", options=options)
        best = found if best is None or found.fun < best.fun else best
    W, H, b = split(best.x)
    return SmoothedUfm(float(best.fun), W, H, b if free else None, SolutionStatus.SEARCHED)


@refuses_overflow("features", "classifier", "bias", infinite=True)
def certify_smoothed_ufm(
    features: ArrayLike,
    classifier: ArrayLike,
    counts: ArrayLike,
    *,
    lam_w: float,
    lam_h: float,
    alpha: float,
    loss: str = "ls",
    bias: ArrayLike | None = None,
) -> Certificate:
    r"""Bound the global minimum rigorously from both sides, given any point of the model.

    Upper: the objective of the point in interval arithmetic. Lower: the dual of label smoothing,
    $\max\frac1N\sum_iH(q_i)$ over distributions with $\|Q-S\|_{op}\le
    N\sqrt{\lambda_W\lambda_H}$ (and $(Q-S)\mathbf1=0$ with a free bias), at a rational point
    near the gradient; max suppression lies above label smoothing, so that the bound holds for both.

    Parameters
    ----------
    features
        (d, N), samples ordered by class.
    classifier
        (K, d).
    counts
        (K,) class sizes, K >= 2.
    lam_w, lam_h
        Weight decay of classifier and features, positive.
    alpha
        Smoothing, 0 <= alpha < 1.
    loss
        ``"ls"`` or ``"maxsup"``, for the upper bound.
    bias
        (K,) last-layer bias of the model with a free bias; None for the model without.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import certify_smoothed_ufm, smoothed_ufm_minimizer
    >>> model = {"lam_w": 0.01, "lam_h": 0.01, "alpha": 0.1}
    >>> best = smoothed_ufm_minimizer(3, n_per_class=2, dimension=3, **model)
    >>> certify_smoothed_ufm(best.features, best.classifier, [2, 2, 2], **model).gap < 1e-9
    True
    """
    n = as_counts(counts, "counts")
    H = as_array(features, "features", shape=(None, int(n.sum())))
    W = as_array(classifier, "classifier", shape=(n.size, H.shape[0]))
    lams = (
        rational(as_real(lam_w, "lam_w", above=0.0)),
        rational(as_real(lam_h, "lam_h", above=0.0)),
    )
    a, kind = rational(_as_alpha(alpha)), one_of(loss, "loss", _LOSSES)
    b = np.zeros(n.size) if bias is None else as_array(bias, "bias", shape=(n.size,))
    y = np.repeat(np.arange(n.size), n)
    averages = np.stack([np.bincount(y, weights=row) for row in W @ H + b[:, None]]) / n
    with precision():
        Z, K, upper = ball_matrix(W) * ball_matrix(H), n.size, arb(0)
        for i, label in enumerate(y.tolist()):
            column = [Z[k, i] + arb(float(b[k])) for k in range(K)]
            penalised = column[label]
            if kind == "maxsup":
                for entry in column:
                    penalised = penalised.max(entry)
            upper += (
                log_sum_exp(column) - column[label] + arb(a) * (penalised - sum(column, arb(0)) / K)
            )
        upper = upper / y.size + (lams[0] * square_sum(W) + lams[1] * square_sum(H)) / 2
        lower = _dual_ball(averages, [int(v) for v in n], lams[0] * lams[1], a, bias is not None)
        return Certificate(above(upper), below(lower))


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

    Raises
    ------
    ValueError
        On bad input.

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
    alpha: float,
    loss: str = "ls",
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
    alpha
        Smoothing, 0 <= alpha < 1.
    loss
        ``"ls"`` or ``"maxsup"``.
    ridge
        Weight decay, positive.

    Raises
    ------
    ValueError
        On bad input.

    Examples
    --------
    >>> from theorylab.neural_collapse import smoothed_linear_fit
    >>> fit = smoothed_linear_fit([[1.0, -1.0]], [0, 1], n_classes=2, alpha=0.1)
    >>> round(fit.objective, 4), fit.suboptimality < 1e-12
    (0.2007, True)
    """
    X = as_array(features, "features", ndim=2)
    K = as_count(n_classes, "n_classes", minimum=2)
    y = as_labels(labels, X.shape[1], K)
    a, kind = _as_alpha(alpha), one_of(loss, "loss", _LOSSES)
    decay = as_real(ridge, "ridge", above=0.0)
    d, N = X.shape
    # In units in which the features are of order one; the classifier is in their inverse.
    unit = binary_exponent(X)
    X, decay = np.ldexp(X, -unit), math.ldexp(decay, -2 * unit)
    Y = np.eye(K)[:, y]
    V = np.zeros((K, d))

    def evaluate(
        V: FloatArray, tau: float
    ) -> tuple[float, FloatArray, list[tuple[float, FloatArray]]]:
        Z = V @ X
        p, q = softmax(Z, axis=0), softmax(Z / tau, axis=0) if kind == "maxsup" else Y
        top = (
            tau * np.log(np.sum(np.exp((Z - Z.max(axis=0)) / tau), axis=0)) + Z.max(axis=0)
            if kind == "maxsup"
            else Z[y, range(N)]
        )
        values = -log_softmax(Z, axis=0)[y, range(N)] + a * (top - Z.mean(axis=0))
        slope = (p - Y + a * (q - 1 / K)) @ X.T / N + decay * V
        return (
            float(values.mean() + decay / 2 * np.sum(V**2)),
            slope,
            [(1.0, p), (a / tau * (kind == "maxsup"), q)],
        )

    taus = np.geomspace(1.0, 1e-5, 16) if kind == "maxsup" and a > 0 else np.ones(1)
    slope = V
    for tau in taus:
        for _ in range(50):
            value, slope, weights = evaluate(V, tau)
            if np.linalg.norm(slope) < 1e-11:
                break
            curvature = sum(w * (np.eye(K)[:, :, None] * q - q[:, None] * q) for w, q in weights)
            hessian = (
                np.einsum("klN,iN,jN->kilj", curvature, X, X, optimize=True).reshape(K * d, K * d)
                / N
            )
            step = np.linalg.solve(hessian + decay * np.eye(K * d), slope.ravel()).reshape(K, d)
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
    values = _loss(V @ X, y, a, kind)[0]
    smoothing = a * float(taus[-1]) * np.log(K) if taus.size > 1 else 0.0
    objective = float(values.mean() + decay / 2 * np.sum(V**2))
    suboptimality = float(smoothing + np.sum(slope**2) / (2 * decay))
    return SmoothedFit(np.ldexp(V, -unit), objective, suboptimality)


def _as_alpha(alpha: float) -> float:
    return as_real(alpha, "alpha", minimum=0.0, below=1.0)


def _logits_and_labels(
    logits: ArrayLike, labels: ArrayLike
) -> tuple[FloatArray, NDArray[np.int64]]:
    Z = as_array(logits, "logits", ndim=2)
    if Z.shape[0] < 2:
        raise ValueError(f"logits: expected at least two classes, got shape {Z.shape}")
    return Z, as_labels(labels, Z.shape[1], Z.shape[0])


def _loss(
    Z: FloatArray, y: NDArray[np.int64], alpha: float, loss: str
) -> tuple[FloatArray, FloatArray]:
    """Return values (N,) and gradient (K, N)."""
    samples = np.arange(y.size)
    log_p = log_softmax(Z, axis=0)
    penalised = y
    if loss == "maxsup":
        penalised = np.where(Z[y, samples] >= Z.max(axis=0), y, Z.argmax(axis=0))
    gradient = np.exp(log_p) - alpha / Z.shape[0]
    gradient[y, samples] -= 1
    gradient[penalised, samples] += alpha
    return -log_p[y, samples] + alpha * (Z[penalised, samples] - Z.mean(axis=0)), gradient


def _dual_ball(logits: FloatArray, n: list[int], squared_mu: fmpq, alpha: fmpq, bias: bool) -> arb:
    """Enclose the dual value at an exactly feasible rational point near the gradient at ``logits``,
    a column a class."""
    K, total = len(n), sum(n)
    p = rational_matrix(softmax(logits, axis=0))
    residual = fmpq_mat(K, K)
    for k in range(K):
        for i in range(K):
            if i != k:
                residual[i, k] = p[i, k] - alpha / K
        residual[k, k] = -sum((residual[i, k] for i in range(K) if i != k), fmpq(0))
    if bias:
        widest = max(range(K), key=lambda k: n[k])
        for i in range(K):
            residual[i, widest] -= (
                sum((residual[i, k] * n[k] for k in range(K)), fmpq(0)) / n[widest]
            )
    residual *= feasible_scale(residual, n, squared_mu * total**2)
    value = arb(0)
    for k in range(K):
        for i in range(K):
            q = residual[i, k] + alpha / K + (1 - alpha if i == k else 0)
            if q < 0:
                return arb(
                    0
                )  # the entropies of the dual are never negative, so zero is always a bound
            value -= n[k] * arb(q) * arb(q).log() if q > 0 else 0
    return value / total
