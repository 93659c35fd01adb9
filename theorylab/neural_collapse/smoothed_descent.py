r"""Descent on smoothed labels: the noise of gradients, and what it leaves behind.

Cross-entropy gradients are affine in the label, so that smoothing by $\theta$ scales their
deviations from the plain gradient:
$(1-\theta)^2\sigma^2+\theta^2\delta\sigma^2+2\theta(1-\theta)c$. On a parabola
$\frac\lambda2w^2$ with gradient noise of variance $\sigma^2$, smoothing replaces the
gradient $\lambda w+\xi$ by $(1-\theta)(\lambda w+\xi)+\theta b$ and descent ends at
the mean square

$$\Big(\frac{\theta b}{(1-\theta)\lambda}\Big)^2
+\frac{\eta(1-\theta)\sigma^2}{\lambda(2-\eta(1-\theta)\lambda)},$$

a bias and a smaller variance: smoothing has the lower floor iff the step exceeds a threshold that
tends to 0 with b.

Statements derived here; of xu2020-towards only the abstract was consulted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from theorylab._validation import FloatArray, as_array, as_count, as_real, refuses_overflow
from theorylab.neural_collapse._spectra import as_labels
from theorylab.numerics.compiled import compiled
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "GradientNoise",
    "StochasticRun",
    "gradient_noise",
    "label_gradients",
    "quadratic_floor",
    "smoothed_sgd",
    "smoothing_threshold",
]

# Weights touched in a leg: about a tenth of a second.
_WORK = 3e7

# Entries of the gradients held at a time.
_BLOCK = 2**22


def label_gradients(features: ArrayLike, classifier: ArrayLike, targets: ArrayLike) -> FloatArray:
    r"""Return the cross-entropy gradients $(p_i-t_i)x_i^\top$ of a linear softmax model,
    affine in the targets.

    Parameters
    ----------
    features
        (d, N), a column a sample.
    classifier
        (K, d).
    targets
        (K, N), columns that sum to 1.

    Returns
    -------
    numpy.ndarray
        (N, K, d).

    Examples
    --------
    >>> from theorylab.neural_collapse import label_gradients
    >>> label_gradients([[1.0, -1.0]], [[0.0], [0.0]], [[1.0, 0.0], [0.0, 1.0]]).ravel()
    array([-0.5,  0.5, -0.5,  0.5])
    """
    X = as_array(features, "features", ndim=2)
    V = as_array(classifier, "classifier", shape=(None, X.shape[0]))
    T = as_array(targets, "targets", shape=(V.shape[0], X.shape[1]))
    if np.abs(T.sum(axis=0) - 1).max() > 1e-9:
        raise ValueError("targets: expected columns that sum to 1")
    gradients: FloatArray = (softmax(V @ X, axis=0) - T).T[:, :, None] * X.T[:, None, :]
    return gradients


@result
class GradientNoise:
    r"""Mean squared deviations from the plain gradient $\nabla F$, uniform over the samples.

    Attributes
    ----------
    label
        $\sigma^2$, of the gradients at the labels.
    uniform
        $\delta\sigma^2$, of the gradients at the uniform label.
    covariance
        Mean inner product of both deviations.
    """

    label: float
    uniform: float
    covariance: float

    @property
    def delta(self) -> float:
        """Ratio of both deviations."""
        return self.uniform / self.label if self.label > 0 else np.inf

    def smoothed(self, theta: float) -> float:
        """Deviation at labels smoothed by ``theta`` in [0, 1], an identity."""
        t = as_real(theta, "theta", minimum=0.0, maximum=1.0)
        return (1 - t) ** 2 * self.label + t**2 * self.uniform + 2 * t * (1 - t) * self.covariance

    def bound(self, theta: float) -> float:
        """Bound of :meth:`smoothed` by convexity; at theta = 1/(1 + delta) it is 2 uniform/(1 +
        delta)."""
        t = as_real(theta, "theta", minimum=0.0, maximum=1.0)
        return (1 - t) * self.label + t * self.uniform


@refuses_overflow("features", "classifier")
def gradient_noise(features: ArrayLike, labels: ArrayLike, classifier: ArrayLike) -> GradientNoise:
    """Return the exact moments of the gradient noise of a linear softmax model (xu2020-towards,
    variance of smoothed gradients).

    Parameters
    ----------
    features
        (d, N), a column a sample.
    labels
        (N,) integers from 0 to K - 1.
    classifier
        (K, d).

    Examples
    --------
    >>> from theorylab.neural_collapse import gradient_noise
    >>> gradient_noise([[1.0, -1.0]], [0, 1], [[0.0], [0.0]])
    <GradientNoise: label 0, uniform 0.5, covariance 0>
    """
    X = as_array(features, "features", ndim=2)
    V = as_array(classifier, "classifier", shape=(None, X.shape[0]))
    K = V.shape[0]
    y = as_labels(labels, X.shape[1], K)
    errors = softmax(V @ X, axis=0) - np.eye(K)[:, y]
    mean = errors @ X.T / y.size
    sums = np.zeros(3)
    for some in np.array_split(np.arange(y.size), math.ceil(y.size * V.size / _BLOCK)):
        at, targets = X[:, some], np.eye(K)[:, y[some]]
        a = label_gradients(at, V, targets) - mean
        b = label_gradients(at, V, np.full_like(targets, 1 / K)) - mean
        sums += [np.vdot(u, v) for u, v in ((a, a), (b, b), (a, b))]
    return GradientNoise(*(sums / y.size).tolist())


@result
class StochasticRun:
    """Record of stochastic gradient descent.

    Attributes
    ----------
    classifier
        (K, d), the last.
    squared_gradients
        (R,) squared norms of the full plain gradient at the recorded steps, before each step.
    noise
        (R,) exact mean squared deviation of the next step's gradient from the full plain gradient.
    first_value, last_value
        Plain loss F at the start and at the end.
    """

    classifier: FloatArray
    squared_gradients: FloatArray
    noise: FloatArray
    first_value: float
    last_value: float


@refuses_overflow("features", "initial")
def smoothed_sgd(
    features: ArrayLike,
    labels: ArrayLike,
    initial: ArrayLike,
    order: ArrayLike,
    theta: float,
    *,
    step_size: float,
    switch: int,
    every: int = 1,
    callback: Callback | None = None,
) -> StochasticRun:
    r"""Descend one sample at a time, smoothed labels first and plain labels from step ``switch``
    on.

    If F is L-smooth and the step at most 1/L, $\frac1T\sum E\|\nabla F(w_t)\|^2\le
    \frac{2E(F(w_0)-F(w_T))}{\eta T}+\frac1T\sum E\,\mathrm{noise}_t$; with
    $\theta=1/(1+\delta)$ the noise is at most $2\delta\sigma^2$ (xu2020-towards,
    convergence with label smoothing; derived here). For the linear softmax model
    $L=\frac12\lambda_{\max}(XX^\top/N)$.

    Parameters
    ----------
    features
        (d, N), a column a sample.
    labels
        (N,) integers from 0 to K - 1.
    initial
        (K, d) start.
    order
        (T,) indices of the samples, drawn by the caller: equal orders couple two runs.
    theta
        Smoothing of the first stage, in [0, 1].
    step_size
        Positive.
    switch
        Length of the first stage; 0 is plain descent, T or more never switches (two-stage label
        smoothing lies between).
    every
        Steps between records.
    callback
        Called about every tenth of a second with the plain loss; where it returns True the run ends
        there, with the records made by then.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import smoothed_sgd
    >>> order = [0, 1, 0, 1]
    >>> start = np.zeros((2, 1))
    >>> run = smoothed_sgd([[1.0, -1.0]], [0, 1], start, order, 0.5, step_size=0.5, switch=2)
    >>> run.last_value < run.first_value
    True
    """
    X = as_array(features, "features", ndim=2)
    start = as_array(initial, "initial", shape=(None, X.shape[0]))
    y = as_labels(labels, X.shape[1], start.shape[0])
    t = as_real(theta, "theta", minimum=0.0, maximum=1.0)
    eta = as_real(step_size, "step_size", above=0.0)
    picks = as_labels(order, None, y.size, "order", "indices from 0 to N - 1")
    lag = as_count(every, "every")
    first = as_count(switch, "switch", minimum=0)
    V = start.copy()
    gradients, noise = np.empty(-(-picks.size // lag)), np.empty(-(-picks.size // lag))
    rows, stops, done = np.ascontiguousarray(X.T), watcher(callback), 0
    first_value = _plain_loss(rows, y, V)
    leg = max(1, int(_WORK / (V.size * (1 + y.size / lag))))
    while done < picks.size:
        end = min(done + leg, picks.size)
        _descend(rows, y, V, picks, t, eta, first, lag, gradients, noise, done, end)
        done = end
        if callback is not None and stops(done, _plain_loss(rows, y, V)):
            break
    made = -(-done // lag)
    return StochasticRun(V, gradients[:made], noise[:made], first_value, _plain_loss(rows, y, V))


@refuses_overflow("curvature", "noise", "step_size", "theta", "bias")
def quadratic_floor(
    curvature: float, *, noise: float, step_size: float, theta: float = 0.0, bias: float = 0.0
) -> float:
    r"""Return the stationary mean square of descent on $\frac\lambda2w^2$ with smoothed noisy
    gradients (module docstring).

    Parameters
    ----------
    curvature
        $\lambda>0$.
    noise
        Variance $\sigma^2\ge0$ of the gradient noise.
    step_size
        $\eta$, positive, with $\eta(1-\theta)\lambda<2$.
    theta
        Smoothing, 0 <= theta < 1; 0 is plain descent.
    bias
        The gradient b towards the smoothing label.

    Examples
    --------
    >>> from theorylab.neural_collapse import quadratic_floor
    >>> quadratic_floor(1.0, noise=1.0, step_size=0.5)
    0.3333333333333333
    """
    lam, s2 = as_real(curvature, "curvature", above=0.0), as_real(noise, "noise", minimum=0.0)
    t, b = as_real(theta, "theta", minimum=0.0, below=1.0), as_real(bias, "bias")
    eta = as_real(step_size, "step_size", above=0.0, below=2 / ((1 - t) * lam))
    spread = eta * (1 - t) * s2 / (lam * (2 - eta * (1 - t) * lam))
    return (t * b / ((1 - t) * lam)) ** 2 + spread


@refuses_overflow("curvature", "noise", "theta", "bias")
def smoothing_threshold(curvature: float, *, noise: float, theta: float, bias: float) -> float:
    r"""Return the step size above which smoothing has the lower :func:`quadratic_floor`.

    With $\beta=\theta b^2/((1-\theta)^2\sigma^2)$, $x=\eta\lambda$ is the root in
    (0, 2) of $\beta(2-x)(2-(1-\theta)x)=2x$ (derived).

    Parameters
    ----------
    curvature, noise
        $\lambda$ and $\sigma^2$, positive.
    theta
        Smoothing, 0 < theta < 1.
    bias
        The gradient b towards the smoothing label.

    Examples
    --------
    >>> from theorylab.neural_collapse import smoothing_threshold
    >>> smoothing_threshold(1.0, noise=1.0, theta=0.5, bias=0.0)
    0.0
    """
    lam, s2 = as_real(curvature, "curvature", above=0.0), as_real(noise, "noise", above=0.0)
    t, b = as_real(theta, "theta", above=0.0, below=1.0), as_real(bias, "bias")
    beta = t * b**2 / ((1 - t) ** 2 * s2)
    c = beta * (2 - t) + 1
    return float(4 * beta / (c + np.sqrt(c**2 - 4 * beta**2 * (1 - t))) / lam)


@compiled
def _probabilities(x: FloatArray, V: FloatArray, p: FloatArray) -> float:
    """Write the softmax of ``V x`` into ``p``; return the logarithm of the partition sum."""
    top = -np.inf
    for k in range(V.shape[0]):
        z = 0.0
        for j in range(x.size):
            z += V[k, j] * x[j]
        p[k] = z
        top = max(top, z)
    total = 0.0
    for k in range(p.size):
        p[k] = np.exp(p[k] - top)
        total += p[k]
    for k in range(p.size):
        p[k] /= total
    return float(top + np.log(total))


@compiled
def _plain_loss(X: FloatArray, y: NDArray[np.int64], V: FloatArray) -> float:
    """Return mean cross-entropy, ``X`` (N, d) a row a sample."""
    N, d = X.shape
    p, value = np.empty(V.shape[0]), 0.0
    for i in range(N):
        log_sum = _probabilities(X[i], V, p)
        for j in range(d):
            log_sum -= V[y[i], j] * X[i, j]
        value += log_sum / N
    return value


@compiled
def _descend(
    X: FloatArray,
    y: NDArray[np.int64],
    V: FloatArray,
    picks: NDArray[np.int64],
    theta: float,
    eta: float,
    switch: int,
    every: int,
    gradients: FloatArray,
    noise: FloatArray,
    begin: int,
    end: int,
) -> None:
    """Make steps ``begin`` to ``end`` in place, ``X`` (N, d) a row a sample."""
    N, d = X.shape
    K = V.shape[0]
    p = np.empty(K)
    plain, smooth = np.empty((K, d)), np.empty((K, d))
    for t in range(begin, end):
        share = theta if t < switch else 0.0
        if t % every == 0:
            plain[:] = 0.0
            smooth[:] = 0.0
            second = 0.0
            for i in range(N):
                _probabilities(X[i], V, p)
                square, length = 0.0, 0.0
                for j in range(d):
                    length += X[i, j] ** 2
                for k in range(K):
                    hit = 1.0 if k == y[i] else 0.0
                    off = p[k] - (1 - share) * hit - share / K
                    square += off * off
                    for j in range(d):
                        plain[k, j] += (p[k] - hit) * X[i, j] / N
                        smooth[k, j] += off * X[i, j] / N
                second += square * length / N
            norm, cross = 0.0, 0.0
            for k in range(K):
                for j in range(d):
                    norm += plain[k, j] ** 2
                    cross += plain[k, j] * smooth[k, j]
            gradients[t // every] = norm
            noise[t // every] = second - 2 * cross + norm
        i = picks[t]
        _probabilities(X[i], V, p)
        for k in range(K):
            step = eta * (p[k] - (1 - share) * (1.0 if k == y[i] else 0.0) - share / K)
            for j in range(d):
                V[k, j] -= step * X[i, j]
