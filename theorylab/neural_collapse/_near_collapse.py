"""Minimizers attached to given features, and their response to perturbations near collapse."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize

from theorylab._validation import FloatArray, as_real, refuses_overflow
from theorylab.neural_collapse._balanced import balanced, ridge_fit
from theorylab.numerics.results import result

_WEIGHTS = 5000  # of a classifier whose Hessian is formed
_BLOCK = 2**22  # numbers of the directions taken at a time

__all__ = [
    "CollapsedResponse",
    "NearMinimizer",
    "NearStatus",
    "collapsed_response",
    "near_minimizer",
]


@result
class CollapsedResponse:
    r"""The collapsed minimizer for an orthogonal frame $H_0$, and how it answers small
    perturbations.

    Attributes
    ----------
    length
        Length of the features.
    gain
        Length of the rows of the classifier, parallel to the features.
    on_span
        Factor by which a perturbation with zero class means shrinks along the classifier's
        directions.
    off_span
        The same in all other directions.
    """

    length: float
    gain: float
    on_span: float
    off_span: float


class NearStatus(StrEnum):
    """Where the minimization ended."""

    MINIMUM = "a local minimum: the gradient vanishes up to rounding and the curvature is positive"
    FLAT = (
        "the curvature is not positive: a saddle, or a direction in which the minimizer "
        "is not determined"
    )
    STOPPED = "the gradient is above rounding; start closer to a minimizer"


@result
class NearMinimizer:
    """A minimizer near given features.

    Attributes
    ----------
    objective
        Value of the model.
    features
        (d, N).
    classifier
        (K, d).
    gradient
        Largest entry of the gradient in W, features minimized out.
    curvature
        Smallest eigenvalue of the Hessian in W, features minimized out.
    status
        Whether it is one.
    """

    objective: float
    features: FloatArray
    classifier: FloatArray
    gradient: float
    curvature: float
    status: NearStatus


@refuses_overflow("beta", "lam_w", "lam_h", "length")
def collapsed_response(
    *, beta: float, lam_w: float, lam_h: float, length: float | None = None
) -> CollapsedResponse:
    r"""Return the collapsed minimizer for an orthogonal frame and the factors by which it passes
    perturbations on.

    The frame's features $hq_k$ and classifier rows $wq_k$, $q_k$ orthonormal,
    satisfy $w(h^2+\lambda_W)=h$ and $h(w^2+\beta+\lambda_H)=w+\beta\rho$ for
    $H_0$ of length $\rho$; w is unique and decreases with $\lambda_W$ (derived).
    The factors are $\beta/(w^2+\beta+\lambda_H)$ and $\beta/(\beta+\lambda_H)$. Where
    $H_0$ is itself the minimizer without attachment,
    $w^2+\lambda_H=\sqrt{\lambda_H/\lambda_W}$: tirer2022-perturbation, Theorem 4.2, here for
    every $\beta$.

    Parameters
    ----------
    beta
        Attachment to $H_0$, positive.
    lam_w, lam_h
        Weight decay of classifier (positive) and features (non-negative).
    length
        Length of the frame $H_0$; by default that of the collapsed minimizer without
        attachment, which needs 0 < lam_w lam_h < 1.

    Examples
    --------
    >>> from theorylab.neural_collapse import collapsed_response
    >>> round(collapsed_response(beta=0.3, lam_w=0.05, lam_h=0.02).on_span, 4)
    0.3217
    """
    beta = as_real(beta, "beta", above=0.0)
    lam_w, lam_h = as_real(lam_w, "lam_w", above=0.0), as_real(lam_h, "lam_h", minimum=0.0)
    hold = beta + lam_h
    if length is None:
        if not 0 < lam_w * lam_h < 1:
            raise ValueError(
                f"lam_h: expected 0 < lam_w lam_h < 1 where no length is given, got {lam_w * lam_h}"
            )
        fit = 1 - np.sqrt(lam_w * lam_h)
        size, gain = np.sqrt(np.sqrt(lam_w / lam_h) * fit), np.sqrt(np.sqrt(lam_h / lam_w) * fit)
    else:
        pull = beta * as_real(length, "length", above=0.0)

        def excess(w: float) -> float:
            h = (w + pull) / (w**2 + hold)
            return h - w * (h**2 + lam_w)

        gain = brentq(excess, 0.0, hold / pull, xtol=1e-300, rtol=4 * np.finfo(float).eps)
        size = (gain + pull) / (gain**2 + hold)
    return CollapsedResponse(
        float(size), float(gain), float(beta / (gain**2 + hold)), float(beta / hold)
    )


@refuses_overflow("targets", "beta")
def near_minimizer(
    targets: ArrayLike, n_classes: int, *, beta: float, lam_w: float, lam_h: float
) -> NearMinimizer:
    r"""Minimize the model in W and H jointly, from the ridge classifier of $H_0$ on.

    At fixed W the features are explicit, $H=(W^\top W+\beta+\lambda_H)^{-1}(W^\top Y+\beta
    H_0)$; the rest is a smooth function of K d numbers that sees $H_0$ through second moments
    only, minimized by a trust region with exact Hessian.

    Parameters
    ----------
    targets
        (d, N) features $H_0$, samples ordered by class, N a multiple of K.
    n_classes
        K >= 2.
    beta
        Attachment to $H_0$, positive.
    lam_w, lam_h
        Weight decay of classifier (positive) and features (non-negative).

    Returns
    -------
    NearMinimizer
        A local minimizer; near collapse, that of the collapsed branch.

    Raises
    ------
    ValueError
        For malformed arguments, or more than 5000 weights: the Hessian has the square of their
        number, and a step takes the cube.

    Examples
    --------
    >>> from theorylab.neural_collapse import near_minimizer
    >>> targets = [[1.0, 1.25, -1.0, -0.75]]
    >>> best = near_minimizer(targets, 2, beta=0.3, lam_w=0.05, lam_h=0.02)
    >>> round(best.objective, 4), best.gradient < 1e-9
    (0.2675, True)
    """
    H0, K = balanced(targets, n_classes, "targets")
    if K * len(H0) > _WEIGHTS:
        raise ValueError(
            f"targets: expected at most {_WEIGHTS} weights of a classifier, as steps take its "
            f"Hessian, got {K} x {len(H0)}"
        )
    beta = as_real(beta, "beta", above=0.0)
    lam_w, lam_h = as_real(lam_w, "lam_w", above=0.0), as_real(lam_h, "lam_h", minimum=0.0)
    problem = _Profile(H0, K, beta, lam_w, lam_h)
    if not np.isfinite(problem.moment).all():
        raise OverflowError
    found = minimize(
        problem.value,
        ridge_fit(H0, K, lam_w).ravel(),
        jac=problem.gradient,
        hess=problem.hessian,
        method="trust-exact",
        options={"gtol": 1e-8},
    )
    W = found.x
    for _ in range(3):
        W = W - np.linalg.lstsq(problem.hessian(W), problem.gradient(W), rcond=1e-12)[0]
    gradient, curvature = (
        float(np.abs(problem.gradient(W)).max()),
        float(np.linalg.eigvalsh(problem.hessian(W))[0]),
    )
    scale = float(np.linalg.norm(H0)) ** 2 / H0.shape[1] + 1
    status = NearStatus.STOPPED if gradient > 1e-12 * scale else NearStatus.MINIMUM
    if status is NearStatus.MINIMUM and curvature <= 1e-12 * scale:
        status = NearStatus.FLAT
    return NearMinimizer(
        problem.value(W), problem.features(W), W.reshape(K, -1), gradient, curvature, status
    )


class _Profile:
    """The model with the features minimized out, as a function of W, times K n over n (so of order
    one per class)."""

    def __init__(self, H0: FloatArray, K: int, beta: float, lam_w: float, lam_h: float) -> None:
        self.H0, self.K, self.beta, self.lam_w, self.hold = H0, K, beta, lam_w, beta + lam_h
        self.n = H0.shape[1] // K
        self.means: FloatArray = H0.reshape(H0.shape[0], K, self.n).mean(axis=2)
        self.moment = H0 @ H0.T / self.n

    def features(self, theta: FloatArray) -> FloatArray:
        W = theta.reshape(self.K, -1)
        Y = np.repeat(np.eye(self.K), self.n, axis=1)
        gram = W.T @ W + self.hold * np.eye(W.shape[1])
        return np.asarray(np.linalg.solve(gram, W.T @ Y + self.beta * self.H0), dtype=np.float64)

    def moments(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return W, (W^T W + beta + lam_h)^-1 and the averages over samples of H H^T and Y H^T,
        times K."""
        W = theta.reshape(self.K, -1)
        inverse: FloatArray = np.linalg.inv(W.T @ W + self.hold * np.eye(W.shape[1])).astype(
            np.float64
        )
        cross = self.beta * self.means @ W
        inner = W.T @ W + cross + cross.T + self.beta**2 * self.moment
        return W, inverse, inverse @ inner @ inverse, (W + self.beta * self.means.T) @ inverse

    def value(self, theta: FloatArray) -> float:
        W = theta.reshape(self.K, -1)
        H = self.features(theta)
        Y = np.repeat(np.eye(self.K), self.n, axis=1)
        lam_h = self.hold - self.beta
        fit = (
            np.sum((W @ H - Y) ** 2) + lam_h * np.sum(H**2) + self.beta * np.sum((H - self.H0) ** 2)
        )
        return float((fit / self.n + self.lam_w * np.sum(W**2)) / (2 * self.K))

    def gradient(self, theta: FloatArray) -> FloatArray:
        W, _, second, cross = self.moments(theta)
        gradient: FloatArray = (W @ second - cross + self.lam_w * W).ravel() / self.K
        return gradient

    def hessian(self, theta: FloatArray) -> FloatArray:
        W, inverse, second, cross = self.moments(theta)
        error_by_feature = cross - W @ second
        error = np.eye(self.K) - cross @ W.T - W @ cross.T + W @ second @ W.T
        d, through = W.shape[1], W @ inverse
        hessian, sizes = np.empty((W.size, W.size)), max(1, _BLOCK // (d * (d + self.K)))
        for first in range(0, W.size, sizes):
            of = np.arange(first, min(first + sizes, W.size))
            step = np.zeros((of.size, self.K, d))
            step[np.arange(of.size), of // d, of % d] = 1.0
            images = step @ second
            moved = through @ (step.transpose(0, 2, 1) @ error_by_feature - W.T @ images)
            moved_error = (error @ step - error_by_feature @ step.transpose(0, 2, 1) @ W) @ inverse
            columns = images + moved - moved_error + self.lam_w * step
            hessian[of] = columns.reshape(of.size, -1) / self.K
        return (hessian + hessian.T) / 2
