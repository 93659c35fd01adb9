"""Deep linear heads: local searches from random starts, which know nothing of the minimizers."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from theorylab._validation import FloatArray, as_count, as_flag, as_real, refuses_overflow
from theorylab.neural_collapse._deep_points import DeepLinearMinimizer, DeepLinearStatus, as_lams
from theorylab.neural_collapse._losses import Loss, Squared, as_loss
from theorylab.neural_collapse._spectra import as_counts
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = [
    "DeepLinearSearch",
    "search_deep_linear",
]


@result
class DeepLinearSearch:
    """The best end of a multi-start search over all parameters, the features of every sample
    included.

    Attributes
    ----------
    objective
        Its value.
    layers, features, bias
        Its parameters, shapes as in :class:`DeepLinearMinimizer`; features (d, N), samples ordered
        by class.
    ends
        Value at the end of every start that was made, shape (n_starts,) or shorter where a target
        or the callback ended the search.
    """

    objective: float
    layers: tuple[FloatArray, ...]
    features: FloatArray
    bias: FloatArray | None
    ends: FloatArray

    @property
    def logits(self) -> FloatArray:
        """(K, N) logits, bias included."""
        logits = reduce(np.matmul, (*self.layers, self.features))
        return logits if self.bias is None else logits + self.bias[:, None]


@refuses_overflow("lams", "lam_b")
def search_deep_linear(
    counts: ArrayLike,
    lams: ArrayLike,
    *,
    dimension: int,
    loss: Loss | str = "mse",
    bias: bool = False,
    lam_b: float = 0.0,
    n_starts: int = 20,
    target: float | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> DeepLinearSearch:
    """Minimise over all parameters by L-BFGS from random starts, knowing nothing of the structure
    of minimizers.

    For two or more layers zero is a local minimum, so that some starts end there. Each start makes
    a rough descent at a random multiple, 0.05 to 1.5, of the weight decay, then a full one.

    Parameters
    ----------
    counts
        (K,) class sizes, K >= 2.
    dimension
        d, width of features and hidden layers.
    lams
        (M + 1,) positive weight decay of the layers and the features.
    loss
        A :class:`Loss`, or its name.
    bias
        Whether there is a last-layer bias.
    lam_b
        Its weight decay, >= 0.
    n_starts, seed
        Number of random starts, and their seed.
    target
        Value at which the search is over: once a start ends there or below, no further one is made.
        A proved lower bound, up to the accuracy wanted, is such a value.
    callback
        Called after each start with the best value; where it returns True no further one is made.

    Examples
    --------
    >>> from theorylab.neural_collapse import best_scale, search_deep_linear
    >>> found = search_deep_linear([1, 1], [0.01, 0.01], dimension=2, n_starts=2, seed=0)
    >>> best = best_scale([[1.0, -1.0], [-1.0, 1.0]], [1, 1], [0.01, 0.01])
    >>> found.objective - best.objective < 1e-6
    True
    """
    n = as_counts(counts, "counts")
    d = as_count(dimension, "dimension")
    decay = as_lams(lams)
    kind = as_loss(loss)
    as_flag(bias, "bias")
    lam_b = as_real(lam_b, "lam_b", minimum=0.0)
    n_starts = as_count(n_starts, "n_starts")
    enough = -np.inf if target is None else as_real(target, "target")
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    labels = np.repeat(np.arange(n.size), n)
    problem = _Factored(n.size, d, labels, np.ones(labels.size), decay, kind, bias, lam_b)
    found: list[tuple[FloatArray, float]] = []
    stops = watcher(callback)
    while len(found) < n_starts:
        found.append(problem.descend(problem.random_start(rng)))
        best = min(value for _, value in found)
        if found[-1][1] <= enough or stops(len(found), best):
            break
    theta, objective = min(found, key=lambda end: end[1])
    layers, features, offset = problem.parameters(theta)
    return DeepLinearSearch(
        objective, layers, features, offset if bias else None, np.array([end[1] for end in found])
    )


def search_collapsed(
    n: NDArray[np.int64],
    d: int,
    lams: FloatArray,
    loss: Loss,
    bias: bool,
    n_starts: int,
    seed: int,
) -> DeepLinearMinimizer:
    """Search over collapsed points (others are no better: averaging inside classes lowers loss and
    singular values)."""
    rng = np.random.default_rng(seed)
    problem = _Factored(n.size, d, np.arange(n.size), n.astype(np.float64), lams, loss, bias, 0.0)
    ends = [problem.descend(problem.random_start(rng)) for _ in range(n_starts)]
    theta, objective = min(ends, key=lambda end: end[1])
    layers, features, offset = problem.parameters(theta)
    product: FloatArray = reduce(np.matmul, (*layers, features))
    values = np.linalg.svd(product * np.sqrt(n), compute_uv=False)[: min(n.size, d)].astype(
        np.float64
    )
    return DeepLinearMinimizer(
        objective,
        layers,
        features,
        offset - offset.mean() if bias else None,
        values,
        n,
        lams,
        loss,
        DeepLinearStatus.SEARCHED,
    )


class _Factored:
    """The objective as a function of one vector: factors scaled so that each carries the same
    weight decay, then the bias."""

    def __init__(
        self,
        n_classes: int,
        d: int,
        labels: NDArray[np.int64],
        weights: FloatArray,
        lams: FloatArray,
        loss: Loss,
        bias: bool,
        lam_b: float,
    ) -> None:
        self.labels, self.weights, self.loss, self.bias, self.lam_b = (
            labels,
            weights,
            loss,
            bias,
            lam_b,
        )
        self.shapes = [(n_classes, d), *[(d, d)] * (lams.size - 2), (d, labels.size)]
        cuts = np.cumsum([0, *(a * b for a, b in self.shapes)]).tolist()
        self.parts = [
            (slice(*ends), shape) for ends, shape in zip(pairwise(cuts), self.shapes, strict=True)
        ]
        self.end: int = cuts[-1]
        self.price = float(np.exp(np.log(lams).mean()))
        self.scales = np.sqrt(self.price / lams)
        self.column_scale = 1 / np.sqrt(weights)
        self.size = self.end + n_classes * bias

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        return [theta[part].reshape(shape) for part, shape in self.parts]

    def parameters(
        self, theta: FloatArray
    ) -> tuple[tuple[FloatArray, ...], FloatArray, FloatArray]:
        parts = [W * scale for W, scale in zip(self.factors(theta), self.scales, strict=True)]
        return tuple(parts[:-1]), parts[-1] * self.column_scale, theta[self.end :]

    def random_start(self, rng: np.random.Generator) -> FloatArray:
        """Return Gaussian factors, after a rough descent at a random multiple of the weight decay.

        Basins of classes close to their jump are narrow. Weaker decay at first leads into those
        that survive, stronger decay into those that die."""
        depth, K, d = len(self.shapes), self.shapes[0][0], self.shapes[0][1]
        # Around the size at which the product has singular values of the order of those that fit
        # the labels: small starts grow one direction at a time and end at low rank, large ones keep
        # all directions.
        target = (1.0 if isinstance(self.loss, Squared) else 6.0) * np.sqrt(self.weights.sum() / K)
        size = (
            np.exp(rng.uniform(np.log(0.3), np.log(2.5)))
            * (2 * target) ** (1 / depth)
            / np.sqrt(max(d, K))
        )
        theta, price = rng.normal(size=self.size) * size, self.price
        self.price = price * float(np.exp(rng.uniform(np.log(0.05), np.log(1.5))))
        options = {"maxiter": 300, "ftol": 1e-9, "maxcor": 20}
        theta, _ = self._minimize(theta, options)
        self.price = price
        return theta

    def value_and_gradient(self, theta: FloatArray) -> tuple[float, FloatArray]:
        factors = self.factors(theta)
        product = [factors[0]]
        for W in factors[1:]:
            product.append(product[-1] @ W)
        logits = product[-1] * self.column_scale
        offset = theta[self.end :]
        if self.bias:
            logits = logits + offset[:, None]
        value, slope = self.loss.mean(logits, self.labels, self.weights)
        value += self.price / 2 * float(theta[: self.end] @ theta[: self.end])
        gradient = self.price * theta
        parts = self.factors(gradient)
        if self.bias:
            value += self.lam_b / 2 * float(offset @ offset)
            gradient[self.end :] = slope.sum(axis=1) + self.lam_b * offset
        back = slope * self.column_scale
        for index in range(len(factors) - 1, 0, -1):
            parts[index] += product[index - 1].T @ back
            back = back @ factors[index].T
        parts[0] += back
        return value, gradient

    def descend(self, theta: FloatArray) -> tuple[FloatArray, float]:
        options = {"maxiter": 20000, "maxfun": 30000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 20}
        return self._minimize(theta, options)

    def _minimize(self, theta: FloatArray, options: Any) -> tuple[FloatArray, float]:
        objective: Any = self.value_and_gradient
        result = minimize(objective, theta, jac=True, method="L-BFGS-B", options=options)
        return result.x, float(result.fun)
