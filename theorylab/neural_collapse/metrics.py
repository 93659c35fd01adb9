r"""Neural collapse, measured: within-class variability, geometry of the class means, self-duality,
nearest centre.

Features $h_i\in\mathbb R^d$ of N samples in K classes, classifier rows $w_k$, class
means $\mu_k$, their mean $\mu=\frac1K\sum_k\mu_k$ (every class counts once, so that a
simplex ETF of means is centred whatever the class sizes), $M=[\mu_k-\mu]$, and

$$\Sigma_W=\frac1N\sum_i(h_i-\mu_{y_i})(h_i-\mu_{y_i})^\top,\qquad \Sigma_B=\frac1K MM^\top
.$$

- NC1: $\operatorname{tr}(\Sigma_W\Sigma_B^+)/K$, and the weak form
  $\operatorname{tr}\Sigma_W/\operatorname{tr}\Sigma_B$.
- NC2: the Gram matrix of M is that of a simplex equiangular tight frame (ETF),
  $I-\frac1K\mathbf 1\mathbf 1^\top$ up to
  scale; for squared loss without a last-layer bias the uncentred means form an orthogonal frame, of
  lengths set by the class sizes.
- NC3: $W^\top$ and M agree up to scale; the weak form asks for parallel $w_k$ and
  $\mu_k$ only.
- NC4: the classifier decides like the nearest class centre.

The definitions are those of Papyan, Han and Donoho (2020), extended to unequal classes as stated.
:func:`train_features` makes real features to measure: a two-layer network trained past zero error
with the penalties of the unconstrained-features model."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, minimize

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real
from theorylab.neural_collapse._collapse_metrics import (
    CollapseMetrics,
    collapse_metrics,
    every_label,
)
from theorylab.neural_collapse._frames import general_orthogonal_frame, simplex_etf
from theorylab.neural_collapse._losses import Loss, as_loss
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "CollapseMetrics",
    "FeatureTraining",
    "collapse_metrics",
    "general_orthogonal_frame",
    "simplex_etf",
    "train_features",
]


@result
class FeatureTraining:
    """Record of a training run, and where it ended.

    Attributes
    ----------
    iterations
        (T,) recorded iterations.
    objectives, errors
        (T,) objective, and share of training samples that are misclassified.
    metrics
        Collapse of the features at each recorded iteration.
    features
        (d, N) at the end.
    classifier
        (K, d) at the end.
    bias
        (K,) at the end, or None.
    """

    iterations: np.ndarray[tuple[int], np.dtype[np.int64]]
    objectives: FloatArray
    errors: FloatArray
    metrics: tuple[CollapseMetrics, ...]
    features: FloatArray
    classifier: FloatArray
    bias: FloatArray | None


def train_features(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    hidden: int,
    dimension: int,
    lam_w: float,
    lam_h: float,
    loss: Loss | str = "ce",
    bias: bool = False,
    iterations: int = 500,
    target: float = 0.0,
    n_records: int = 20,
    seed: int = 0,
    callback: Callback | None = None,
) -> FeatureTraining:
    r"""Train features $h(x)=V\max(Ux+c,0)+e$ and a linear classifier W on them, full batch,
    by L-BFGS.

    The objective is that of the unconstrained-features model at the features of the training
    samples: the mean loss of $Wh(x_i)+b$, plus
    $\frac{\lambda_W}2\|W\|_F^2+\frac{\lambda_H}2\sum_i\|h(x_i)\|^2$. The other weights and
    the bias are not penalised, so the model's minimum bounds the objective from below, and a
    network that can give its training samples any features (N hidden units in general position) can
    attain it.

    Parameters
    ----------
    inputs
        (D, N), a column a sample, entries of order one.
    labels
        (N,) integers from 0 to K-1; every class occurs.
    hidden, dimension
        Number of hidden units, and d.
    lam_w, lam_h
        Weight decay of the classifier and of the features, positive.
    loss
        A :class:`Loss`, or its name.
    bias
        Whether there is a last-layer bias.
    iterations, target
        L-BFGS iterations at most; training stops as soon as the objective is at most ``target`` (>=
        0).
    n_records
        How many iterations are recorded at most, evenly in logarithm; the last one comes on top.
    seed
        Of the Gaussian initial weights.
    callback
        Called after each iteration; where it returns True training stops.

    Examples
    --------
    >>> from theorylab.neural_collapse import train_features
    >>> inputs = [[1.0, 1.2, -1.0, -0.9], [0.0, 0.1, 0.3, -0.2]]
    >>> training = train_features(
    ...     inputs, [0, 0, 1, 1], hidden=8, dimension=2, lam_w=0.01, lam_h=0.01, iterations=50
    ... )
    >>> training.features.shape, bool(training.errors[-1] == 0)
    ((2, 4), True)
    """
    X = as_array(inputs, "inputs", ndim=2)
    raw = as_array(labels, "labels", shape=(X.shape[1],), nonnegative=True)
    K = int(np.unique(raw).size)
    y = every_label(raw, K)
    m, d = as_count(hidden, "hidden"), as_count(dimension, "dimension")
    lam_w, lam_h = as_real(lam_w, "lam_w", above=0.0), as_real(lam_h, "lam_h", above=0.0)
    kind = as_loss(loss)
    as_flag(bias, "bias")
    iterations, n_records = as_count(iterations, "iterations"), as_count(n_records, "n_records")
    target = as_real(target, "target", minimum=0.0)
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    if K < 2:
        raise ValueError("labels: expected at least two classes, got one")
    D, N = X.shape
    shapes = [(m, D), (m, 1), (d, m), (d, 1), (K, d), (K, 1)]
    cuts = np.cumsum([a * b for a, b in shapes])[:-1]
    scales = [np.sqrt(8 / D), 0.0, np.sqrt(1 / m), 0.0, np.sqrt(0.25 / d), 0.0]
    start = np.concatenate(
        [scale * rng.normal(size=a * b) for scale, (a, b) in zip(scales, shapes, strict=True)]
    )
    weights = np.ones(N)

    def forward(theta: FloatArray) -> tuple[list[FloatArray], FloatArray, FloatArray, FloatArray]:
        parts = [
            part.reshape(shape) for part, shape in zip(np.split(theta, cuts), shapes, strict=True)
        ]
        U, c, V, e, W, b = parts
        active = np.maximum(U @ X + c, 0)
        H = V @ active + e
        return parts, active, H, W @ H + b * bias

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        (_, _, V, _, W, _), active, H, logits = forward(theta)
        value, slope = kind.mean(logits, y, weights)
        value += lam_w / 2 * float(np.sum(W**2)) + lam_h / 2 * float(np.sum(H**2))
        back = W.T @ slope + lam_h * H
        inner = (V.T @ back) * (active > 0)
        gradients = (
            inner @ X.T,
            inner.sum(axis=1),
            back @ active.T,
            back.sum(axis=1),
            slope @ H.T + lam_w * W,
            slope.sum(axis=1) * bias,
        )
        return value, np.concatenate([g.ravel() for g in gradients])

    wanted = set(np.unique(np.round(np.geomspace(1, iterations, n_records)).astype(int)).tolist())
    with np.errstate(over="ignore", invalid="ignore"):
        seen = [(0, objective(start)[0], start)]
    if not np.isfinite(seen[0][1]):
        raise ValueError(
            f"inputs: expected entries of order one, got up to {np.abs(X).max():.1e} and an "
            "objective beyond float64"
        )
    steps, stops = count(1), watcher(callback)

    def record(intermediate_result: OptimizeResult) -> None:
        if (step := next(steps)) in wanted:
            seen.append((step, float(intermediate_result.fun), intermediate_result.x.copy()))
        if intermediate_result.fun <= target or stops(step, float(intermediate_result.fun)):
            raise StopIteration

    options: Any = {
        "maxiter": iterations,
        "maxfun": 20 * iterations,
        "ftol": 1e-16,
        "gtol": 1e-10,
        "maxcor": 20,
    }
    function: Any = objective
    end = minimize(function, start, jac=True, method="L-BFGS-B", callback=record, options=options)
    if seen[-1][0] < end.nit:
        seen.append((int(end.nit), float(end.fun), end.x))
    errors, metrics = [], []
    for _, _, theta in seen:
        parts, _, H, logits = forward(theta)
        errors.append(float(np.mean(logits.argmax(axis=0) != y)))
        metrics.append(
            collapse_metrics(H, y, parts[4], bias=parts[5].ravel() * bias, layout="columns")
        )
    parts, _, H, _ = forward(end.x)
    return FeatureTraining(
        iterations=np.array([step for step, _, _ in seen]),
        objectives=np.array([value for _, value, _ in seen]),
        errors=np.array(errors),
        metrics=tuple(metrics),
        features=H,
        classifier=parts[4],
        bias=parts[5].ravel() if bias else None,
    )
