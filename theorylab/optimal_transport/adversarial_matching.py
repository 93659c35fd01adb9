r"""Adversarial 0-1 risk as a matching.

An adversary moves each point by at most $\epsilon$. A classifier errs on a point of class 0
iff its ball meets the region of class 1, and the least risk is the largest mass of a matching of
the classes at distance at most $2\epsilon$ (König: of two balls that meet one is lost), which
is transport of the law $\rho$ of (x, y) to itself:

$$R^*_\epsilon=\tfrac12\Bigl(1-\min_{\pi\in\Pi(\rho,\rho)}\int c_\epsilon\,d\pi\Bigr),\qquad
c_\epsilon=0\text{ if }|x-x'|\le2\epsilon,\ y\ne y',\text{ else }1.$$

Theorem: trillos2020-adversarial (the identity)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.spatial.distance import cdist

from theorylab._validation import FloatArray, as_array, as_real
from theorylab.numerics.results import result
from theorylab.optimal_transport._problem import as_weights
from theorylab.optimal_transport.exact import exact_plan

__all__ = ["RobustClassifier", "conflict_cost", "robust_classifier"]


@result
class RobustClassifier:
    """The nearest kept point, which has the least adversarial risk of all classifiers.

    Attributes
    ----------
    risk
        Weight of the points that an adversary turns into errors.
    bound
        Mass of the matching: no classifier has a smaller risk.
    missed
        (n,) whether a point is among them.
    matching
        (n, n) sparse: mass matched between a point of class 0 (row) and one of class 1.
    points, labels, eps
        The problem.
    """

    risk: float
    bound: float
    missed: NDArray[np.bool_]
    matching: sparse.csr_array
    points: FloatArray
    labels: FloatArray
    eps: float

    @property
    def gap(self) -> float:
        """How far the risk may be from the least, relative to it."""
        return max(self.risk - self.bound, 0.0) / self.risk if self.risk > 0 else 0.0

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return the class of the nearest kept point, for (m, d) points."""
        X = as_array(X, "X", shape=(None, self.points.shape[1]))
        near = [
            cdist(X, self.points[~self.missed & (self.labels == k)]).min(axis=1, initial=np.inf)
            for k in (0, 1)
        ]
        return np.asarray(near[1] < near[0], dtype=np.int64)

    def __repr__(self) -> str:
        return (
            f"<RobustClassifier eps {self.eps:g}, risk {self.risk:.6g}, gap {self.gap:.1e}, "
            f"{int(self.missed.sum())} of {self.missed.size} points missed>"
        )


def robust_classifier(
    X: ArrayLike, labels: ArrayLike, eps: float, *, weights: ArrayLike | None = None
) -> RobustClassifier:
    """Return a classifier of least adversarial risk, with the matching that proves it.

    Parameters
    ----------
    X
        (n, d) points.
    labels
        (n,) zeros and ones; the classes may have any sizes.
    eps
        Euclidean distance by which each point may be moved.
    weights
        (n,) that sum to one; uniform by default.

    Examples
    --------
    >>> from theorylab.optimal_transport import robust_classifier
    >>> rule = robust_classifier([[0.0], [1.0], [3.0]], [0, 1, 1], 0.5, weights=[0.5, 0.2, 0.3])
    >>> round(rule.risk, 12), rule.predict([[1.0], [2.4]]).tolist()
    (0.2, [0, 1])
    """
    X, y, near = _conflicts(X, labels, eps)
    w = as_weights(np.full(y.size, 1 / y.size) if weights is None else weights, "weights")
    w = as_array(w, "weights", shape=(y.size,))
    rows, columns = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    # A spare point on each side takes what is not matched, at 1/2: the cost is 1/2 - matched.
    a = np.append(w[rows], w[columns].sum())
    b = np.append(w[columns], w[rows].sum())
    cost = np.full((a.size, b.size), 0.5)
    cost[:-1, :-1] = ~near[np.ix_(rows, columns)]
    cost[-1, -1] = 0.0
    solution = exact_plan(a / a.sum(), b / b.sum(), cost)
    f, g = solution.potentials
    # 1/2 - f and 1/2 - g make a fractional cover, a multiple of 1/2: any threshold rounds it.
    missed = np.zeros(y.size, bool)
    missed[rows] = 0.5 - (f[:-1] - f[-1]) >= 0.25
    missed[columns] = 0.5 - (g[:-1] + f[-1]) > 0.75
    plan = solution.plan.tocoo()
    used = (plan.row < rows.size) & (plan.col < columns.size)
    used[used] = near[rows[plan.row[used]], columns[plan.col[used]]]
    matched = plan.data[used]
    cells = rows[plan.row[used]], columns[plan.col[used]]
    matching = sparse.csr_array((matched, cells), shape=(y.size, y.size))
    return RobustClassifier(
        float(w[missed].sum()), float(matched.sum()), missed, matching, X, y, float(eps)
    )


def conflict_cost(X: ArrayLike, labels: ArrayLike, eps: float) -> FloatArray:
    r"""Return the costs $c_\epsilon$ (module docstring) between all points, as (n, n) zeros
    and ones: the least risk is (1 - the least cost of moving the weights to themselves) / 2.

    Parameters
    ----------
    X
        (n, d) points.
    labels
        (n,) zeros and ones.
    eps
        Distance by which each point may be moved.

    Examples
    --------
    >>> from theorylab.optimal_transport import conflict_cost, exact_plan
    >>> cost = conflict_cost([[0.0], [1.0], [3.0]], [0, 1, 1], 0.5)
    >>> (1 - exact_plan([0.25, 0.5, 0.25], [0.25, 0.5, 0.25], cost).value) / 2
    0.25
    """
    return np.where(_conflicts(X, labels, eps)[2], 0.0, 1.0)


def _conflicts(
    X: ArrayLike, labels: ArrayLike, eps: float
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return the checked points and labels, and which pairs of opposite classes are near."""
    X = as_array(X, "X", ndim=2)
    y = as_array(labels, "labels", shape=(len(X),))
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels: expected zeros and ones, got {y[~np.isin(y, (0, 1))][0]}")
    eps = as_real(eps, "eps", minimum=0.0)
    size = float(np.abs(X).max())
    unit = 2.0 ** np.floor(np.log2(size)) if size > 0 else 1.0
    near = cdist(X / unit, X / unit) <= 2 * (eps / unit)
    return X, y, near & (y[:, None] != y)
