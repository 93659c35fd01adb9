r"""Features near given features: within-class variability along the central path, and its response
near collapse.

K balanced classes of n samples, columns of $H\in\mathbb R^{d\times Kn}$ ordered by class,
one-hot labels Y,

$$f(W,H;H_0)=\tfrac1{2Kn}\|WH-Y\|_F^2+\tfrac{\lambda_W}{2K}\|W\|_F^2+\tfrac{\lambda_H}{2Kn}\|H\|_F^2
+\tfrac\beta{2Kn}\|H-H_0\|_F^2 .$$

For large $\beta$ the minimizer follows the *central path* $\dot
H=-W^\top(WH-Y)-\lambda_HH$ with the ridge classifier
$W(H)=YH^\top(HH^\top+n\lambda_WI)^{-1}$. With M the class means, $M_c$ the centred
ones, $H_w$ the deviations from them, $S=H_wH_w^\top$,
$R=(HH^\top+n\lambda_WI)^{-1}$ and $Q=R(S+n\lambda_WI)R\succeq0$ the flow reads

$$\dot H_w=-(W^\top W+\lambda_H)H_w,\qquad \dot M_c=(nQ-\lambda_H)M_c:$$

up to $e^{-2\lambda_Ht}$ the trace of $\Sigma_W$ falls and that of $\Sigma_B$
rises, so their ratio decreases whatever $\lambda_H$ (tirer2022-perturbation, Theorem 3.1; the
numbers of its theorems and equations are recalled here and below).
The metric $\operatorname{tr}(\Sigma_W\Sigma_B^+)$ need not: its rate has the sign of
$\operatorname{tr}\Sigma_B^+(2Q(I-P)-R)S$, P the projection on the span of $M_c$, which
can be positive for K >= 3.

Near collapse a perturbation $\varepsilon\Delta$ of $H_0$ with zero class means moves H
by $\varepsilon\beta(W^\top W+\beta+\lambda_H)^{-1}\Delta+O(\varepsilon^3)$: W depends on
second moments, which move by $\varepsilon^2$."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from flint import fmpq, fmpq_mat
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_real, refuses_overflow
from theorylab.neural_collapse._balanced import balanced, centred_means, parts, ridge_fit
from theorylab.neural_collapse._near_collapse import (
    CollapsedResponse,
    NearMinimizer,
    NearStatus,
    collapsed_response,
    near_minimizer,
)
from theorylab.numerics.flows import integrate
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "CentralPath",
    "CollapsedResponse",
    "NearMinimizer",
    "NearStatus",
    "TraceRates",
    "central_path",
    "central_path_velocity",
    "collapsed_response",
    "exact_variability_rate",
    "near_minimizer",
    "ridge_classifier",
    "trace_rates",
]

_EXACT = 80  # rows of features in exact arithmetic


@result
class CentralPath:
    """Features along the flow.

    Attributes
    ----------
    times
        (T,).
    features
        (T, d, N).
    n_classes
        K.
    """

    times: FloatArray
    features: FloatArray
    n_classes: int

    @property
    def within_trace(self) -> FloatArray:
        """(T,) trace of the within-class covariance."""
        return np.array(
            [np.sum(parts(H, self.n_classes)[1] ** 2) / H.shape[1] for H in self.features]
        )

    @property
    def between_trace(self) -> FloatArray:
        """(T,) trace of the between-class covariance."""
        return np.array(
            [np.sum(centred_means(H, self.n_classes) ** 2) / self.n_classes for H in self.features]
        )

    @property
    def trace_ratio(self) -> FloatArray:
        """(T,) within-class over between-class trace."""
        ratio: FloatArray = self.within_trace / self.between_trace
        return ratio

    @property
    def variability(self) -> FloatArray:
        """(T,) trace of the within-class covariance times the pseudo-inverse of the between-class
        covariance."""
        values = []
        for H in self.features:
            U, s, _ = np.linalg.svd(centred_means(H, self.n_classes), full_matrices=False)
            kept = s > max(H.shape) * np.finfo(float).eps * s[0]
            within = U[:, kept].T @ parts(H, self.n_classes)[1] / s[kept, None]
            values.append(self.n_classes * np.sum(within**2) / H.shape[1])
        return np.array(values)


@result
class TraceRates:
    """Logarithmic rates on the central path, the common term ``-2 lam_h`` left out.

    Attributes
    ----------
    within
        Of the trace of the within-class covariance; never positive.
    between
        Of the trace of the between-class covariance; never negative.
    """

    within: float
    between: float

    @property
    def ratio(self) -> float:
        """Logarithmic rate of within-class over between-class trace."""
        return self.within - self.between


@refuses_overflow("features")
def ridge_classifier(features: ArrayLike, n_classes: int, *, lam_w: float) -> FloatArray:
    r"""Return $W(H)=YH^\top(HH^\top+n\lambda_WI)^{-1}$, shape (K, d) (tirer2022-perturbation,
    Section 3).

    Parameters
    ----------
    features
        (d, N), samples ordered by class, N a multiple of K.
    n_classes
        K >= 2.
    lam_w
        Weight decay of the classifier, positive.

    Examples
    --------
    >>> from theorylab.neural_collapse import ridge_classifier
    >>> ridge_classifier([[1.0, -1.0]], 2, lam_w=0.5)
    array([[ 0.4],
           [-0.4]])
    """
    H, K = balanced(features, n_classes)
    return ridge_fit(H, K, as_real(lam_w, "lam_w", above=0.0))


@refuses_overflow("features", "classifier")
def central_path_velocity(
    features: ArrayLike,
    n_classes: int,
    *,
    lam_w: float,
    lam_h: float = 0.0,
    classifier: ArrayLike | None = None,
) -> FloatArray:
    r"""Return $-W^\top(WH-Y)-\lambda_HH$, shape (d, N) (tirer2022-perturbation, Equation 4).

    Parameters
    ----------
    features
        (d, N), samples ordered by class, N a multiple of K.
    n_classes
        K >= 2.
    lam_w, lam_h
        Weight decay of the classifier, positive, and of the features, non-negative.
    classifier
        (K, d) classifier to be used in place of the ridge classifier of the features.

    Examples
    --------
    >>> from theorylab.neural_collapse import central_path_velocity
    >>> central_path_velocity([[1.0, -1.0]], 2, lam_w=0.5, lam_h=0.1)
    array([[-0.02,  0.02]])
    """
    H, K = balanced(features, n_classes)
    lam_w, lam_h = as_real(lam_w, "lam_w", above=0.0), as_real(lam_h, "lam_h", minimum=0.0)
    W = None if classifier is None else as_array(classifier, "classifier", shape=(K, H.shape[0]))
    return _velocity(H, K, lam_w, lam_h, W)


def central_path(
    features: ArrayLike,
    n_classes: int,
    *,
    lam_w: float,
    times: ArrayLike,
    lam_h: float = 0.0,
    classifier: ArrayLike | None = None,
    tol: float = 1e-10,
    callback: Callback | None = None,
) -> CentralPath:
    """Integrate the gradient flow on the central path (Dormand and Prince, order 8).

    Parameters
    ----------
    features
        (d, N), the start; samples ordered by class, N a multiple of K.
    n_classes
        K >= 2.
    lam_w, lam_h
        Weight decay of the classifier, positive, and of the features, non-negative.
    times
        (T,) increasing, from 0 on.
    classifier
        (K, d) classifier kept fixed; by default the ridge classifier at every time, which makes it
        the central path.
    tol
        Relative error per step, at least 1e-13.
    callback
        Called after each step with the objective there; where it returns True the path ends with
        the last of ``times`` that was reached.

    Raises
    ------
    ValueError
        On bad input; naming ``times``, where the flow cannot be followed to the last of them within
        20,000 evaluations.

    Examples
    --------
    >>> from theorylab.neural_collapse import central_path
    >>> path = central_path([[1.0, -1.0]], 2, lam_w=0.1, times=[0.0, 1.0])
    >>> path.features.shape
    (2, 1, 2)
    """
    H, K = balanced(features, n_classes)
    lam_w, lam_h = as_real(lam_w, "lam_w", above=0.0), as_real(lam_h, "lam_h", minimum=0.0)
    t = as_array(times, "times", ndim=1, nonnegative=True)
    if (np.diff(t) <= 0).any():
        raise ValueError("times: expected increasing values")
    W = None if classifier is None else as_array(classifier, "classifier", shape=(K, H.shape[0]))
    relative = as_real(tol, "tol", minimum=1e-13, below=1.0)
    stops = watcher(callback)

    def stopped(step: int, state: FloatArray) -> bool:
        return callback is not None and stops(
            step, _objective(state.reshape(H.shape), K, lam_w, lam_h, W)
        )

    path = integrate(
        lambda _, x: _velocity(x.reshape(H.shape), K, lam_w, lam_h, W).ravel(),
        H.ravel(),
        t,
        rtol=relative,
        atol=relative * 1e-3 * (float(np.abs(H).max()) or 1.0),
        stops=stopped,
    )
    t = t[: len(path)]
    return CentralPath(t, path.reshape(t.size, *H.shape), K)


@refuses_overflow("features")
def trace_rates(features: ArrayLike, n_classes: int, *, lam_w: float) -> TraceRates:
    r"""Return the rates of the traces of the two covariances on the central path.

    They are $-2\|WH_w\|^2/\|H_w\|^2$ and $2n\langle Q,M_cM_c^\top\rangle/\|M_c\|^2$;
    their signs prove tirer2022-perturbation, Theorem 3.1 (formulas derived: module docstring).

    Parameters
    ----------
    features
        (d, N), samples ordered by class, N a multiple of K; neither collapsed nor with all class
        means equal.
    n_classes
        K >= 2.
    lam_w
        Weight decay of the classifier, positive.

    Examples
    --------
    >>> from theorylab.neural_collapse import trace_rates
    >>> rates = trace_rates([[1.0, 1.25, -1.0, -0.75]], 2, lam_w=0.1)
    >>> rates.within < 0 < rates.between
    True
    """
    H, K = balanced(features, n_classes)
    ridge = H.shape[1] // K * as_real(lam_w, "lam_w", above=0.0)
    means, within = parts(H, K)
    centred = means - means.mean(axis=1, keepdims=True)
    if not within.any() or not centred.any():
        raise ValueError(
            "features: expected variability within and between the classes, got "
            "collapsed features or equal means"
        )
    n = H.shape[1] // K
    R = np.linalg.inv(H @ H.T + ridge * np.eye(H.shape[0]))
    seen = R @ centred
    rise = np.sum((within.T @ seen) ** 2) + ridge * np.sum(seen**2)
    fall = np.sum((n * means.T @ R @ within) ** 2)
    return TraceRates(
        float(-2 * fall / np.sum(within**2)), float(2 * n * rise / np.sum(centred**2))
    )


def exact_variability_rate(features: ArrayLike, n_classes: int, *, lam_w: float) -> Fraction:
    r"""Return $\frac{d}{dt}\operatorname{tr}(\Sigma_W\Sigma_B^+)$ on the central path
    exactly, at rational features.

    The rate is $2n\operatorname{tr}B^+(2Q(I-P)-R)S$ with $B=nM_cM_c^\top$ (module
    docstring; derived), whatever $\lambda_H$.

    Parameters
    ----------
    features
        (d, N), samples ordered by class, N a multiple of K, centred class means of rank K - 1;
        every float is taken as the rational that it is. The fractions grow with d, at most 80:
        there they take half a minute.
    n_classes
        K >= 2.
    lam_w
        Weight decay of the classifier, positive.

    Raises
    ------
    ValueError
        On bad input, and where the centred class means have a smaller rank.

    Examples
    --------
    >>> from theorylab.neural_collapse import exact_variability_rate
    >>> exact_variability_rate([[1.0, 1.25, -1.0, -0.75]], 2, lam_w=0.125)
    Fraction(-1, 70)
    """
    H, K = balanced(features, n_classes)
    n, d = H.shape[1] // K, H.shape[0]
    if d > _EXACT:
        raise ValueError(f"features: expected at most {_EXACT} rows, got {d}")
    decay = as_real(lam_w, "lam_w", above=0.0)
    exact = fmpq_mat(d, H.shape[1], [fmpq(*float(v).as_integer_ratio()) for v in H.ravel()])
    average = fmpq_mat(
        H.shape[1], K, [fmpq(int(i // n == k), n) for i in range(H.shape[1]) for k in range(K)]
    )
    contrast = fmpq_mat(
        K, K - 1, [fmpq(int(i == j)) - fmpq(1, K) for i in range(K) for j in range(K - 1)]
    )
    means = exact * average
    spread = fmpq_mat(
        K, H.shape[1], [fmpq(int(i // n == k)) for k in range(K) for i in range(H.shape[1])]
    )
    within = exact - means * spread
    S = within * within.transpose()
    ridge = _identity(d) * (n * fmpq(*decay.as_integer_ratio()))
    R = (exact * exact.transpose() + ridge).inv()
    Q = R * (S + ridge) * R
    # All but the last of the centred means are a basis F of their span; B = n F (I + 1 1^T) F^T.
    basis = means * contrast
    gram = basis.transpose() * basis
    if gram.det() == 0:
        raise ValueError(f"features: expected centred class means of rank {K - 1}, got fewer")
    dual = basis * gram.inv()
    weight = fmpq_mat(
        K - 1, K - 1, [fmpq(int(i == j)) + 1 for i in range(K - 1) for j in range(K - 1)]
    )
    pseudo_inverse = dual * weight.inv() * dual.transpose() * fmpq(1, n)
    off = _identity(d) - dual * basis.transpose()
    product = pseudo_inverse * (Q * off * 2 - R) * S
    rate = 2 * n * sum((product[i, i] for i in range(d)), fmpq(0))
    return Fraction(int(rate.p), int(rate.q))


def _velocity(
    H: FloatArray, K: int, lam_w: float, lam_h: float, W: FloatArray | None
) -> FloatArray:
    if W is None:
        W = ridge_fit(H, K, lam_w)
    residual = W @ H
    residual.reshape(K, K, -1)[np.arange(K), np.arange(K)] -= 1
    velocity: FloatArray = -W.T @ residual - lam_h * H
    return velocity


def _objective(H: FloatArray, K: int, lam_w: float, lam_h: float, W: FloatArray | None) -> float:
    W = ridge_fit(H, K, lam_w) if W is None else W
    fit = W @ H - np.repeat(np.eye(K), H.shape[1] // K, axis=1)
    square = np.sum(fit**2) + lam_h * np.sum(H**2)
    return float(square / (2 * H.shape[1]) + lam_w * np.sum(W**2) / (2 * K))


def _identity(size: int) -> fmpq_mat:
    return fmpq_mat(size, size, [int(i == j) for i in range(size) for j in range(size)])
