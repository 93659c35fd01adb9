r"""The regularisation path of two-layer ReLU networks, with a certified gap at every value of the
penalty.

Let $f(\beta)$, $v(\beta)$, $P(\beta)$ be the outputs, dual point and penalty of
an optimum. For the squared loss $v(\beta)$ is the projection of $y$ onto
$\beta\mathcal Z$, $\mathcal Z=\{z:\max_{\|u\|\le1}|z^\top(Xu)_+|\le1\}$, so that for
$\beta<\beta'$

$$\|v(\beta')-v(\beta)\|\le\Big(1-\frac\beta{\beta'}\Big)\|v(\beta')\|,\qquad
\|f(\beta')-f(\beta)\|^2\le(\beta'-\beta)\,(P(\beta)-P(\beta')):$$

outputs are continuous, the loss grows with $\beta$, the penalty shrinks, and the network
vanishes from $\beta_{\max}$ on, the dual norm of $y$. The value is concave in
$\beta$ with derivative $P$.

Between two solved penalties the path is interpolated. The mixture with weights
$1-\theta,\theta$ of both networks, and the same mixture of the dual points, feasible for the
mixed penalty by convexity, differ in value by at most

$$(1-\theta)g_1+\theta
g_2+\theta(1-\theta)\big((\beta_1-\beta_2)(P_2-P_1)-\|f_1-f_2\|^2\big)$$

(both dual points residuals, gaps $g_1,g_2$ at the ends), so the gap is known on the whole
interval. Between breakpoints the bracket is
$(\beta_1-\beta_2)^2\beta\sum_j\|p_j\|\,\|\tfrac{d}{d\beta}\hat p_j\|^2$ to leading order,
with neurons $p_j=|a_j|u_j$ of directions $\hat p_j$: zero where no neuron rotates, and
there the path is exactly linear. Paths and their continuity are the subject of mishkin2023-optimal,
whose text was not consulted; the bounds are derived."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from heapq import heappop, heappush

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_function,
    as_instance,
    as_real,
)
from theorylab.convex_relu._faces import Neurons, locate, merge, neurons_of
from theorylab.convex_relu._minimality import null_vector, optimal_pruning
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._problem import as_problem, augment
from theorylab.convex_relu._rounds import TrainingStatus
from theorylab.convex_relu.certificates import Certificate
from theorylab.convex_relu.losses import Loss, Squared
from theorylab.convex_relu.optimal_set import OptimalSet, vertices
from theorylab.convex_relu.training import Session
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.budgets import MINUTE
from theorylab.numerics.progress import asked_to_stop
from theorylab.numerics.results import result

__all__ = [
    "PathPoint",
    "PathStatus",
    "SolutionPath",
    "optimal_set_distance",
    "trace_solution_path",
]

_TRAIN_TOL = 1e-9


class PathStatus(StrEnum):
    """Why the refinement of the path ended."""

    CERTIFIED = "every penalty in the range has a network with certified relative gap at most tol"
    POINTS = "stopped after max_points penalties with a gap above tol somewhere; raise max_points"
    WORK = (
        "stopped after trainings that take about a minute with a gap above tol somewhere; set "
        "max_points to go on"
    )
    ENDPOINTS = (
        "a solved penalty has a gap of its own near tol; tol is too small, or its training ended "
        "early, as its warning says"
    )
    STOPPED = "stopped by the callback, with the gaps that were proved by then"


@result
class PathPoint:
    """An optimum at one penalty.

    Parameters
    ----------
    beta
        The penalty.
    network
        A minimal optimal network.
    certificate
        Its certificate.
    fit
        Outputs, shape (n,).
    loss, penalty
        The two parts of the objective ``loss + beta * penalty``.
    """

    beta: float
    network: Network
    certificate: Certificate
    fit: FloatArray
    loss: float
    penalty: float

    @property
    def objective(self) -> float:
        """Value of the network."""
        return self.loss + self.beta * self.penalty

    @property
    def dual_objective(self) -> float:
        """Certified lower bound of the optimum."""
        return self.certificate.dual_objective


@result
class SolutionPath:
    """A path of networks with a certified gap at every penalty from ``beta_min`` on.

    Parameters
    ----------
    X, y, loss, bias
        The problem.
    beta_max
        From here on the zero network is optimal.
    points
        Optima at decreasing penalties, the first at ``beta_max``.
    interval_gaps
        Certified relative gap of the interpolated network anywhere between consecutive points.
    status
        Why refinement ended.
    """

    X: FloatArray
    y: FloatArray
    loss: Loss
    bias: bool
    beta_max: float
    points: tuple[PathPoint, ...]
    interval_gaps: FloatArray
    status: PathStatus

    @property
    def betas(self) -> FloatArray:
        """Solved penalties, decreasing."""
        return np.array([p.beta for p in self.points])

    @property
    def losses(self) -> FloatArray:
        """Losses at the solved penalties."""
        return np.array([p.loss for p in self.points])

    @property
    def penalties(self) -> FloatArray:
        """Penalties ``sum_j |p_j|`` of the networks at the solved penalties."""
        return np.array([p.penalty for p in self.points])

    @property
    def n_neurons(self) -> tuple[int, ...]:
        """Numbers of neurons of the minimal networks."""
        return tuple(p.network.n_neurons for p in self.points)

    @property
    def gap(self) -> float:
        """Largest certified relative gap on the whole range."""
        return float(self.interval_gaps.max())

    def network(self, beta: float) -> Network:
        """Return the network at any penalty: the mixture of its neighbours, merged and pruned to
        independent neurons.

        Parameters
        ----------
        beta
            At least the least penalty of the path.

        Raises
        ------
        ValueError
            For a penalty below the path.
        """
        beta = as_real(beta, "beta", minimum=self.points[-1].beta)
        first, second, theta = self._neighbours(beta)
        if theta == 0.0:
            return first.network
        data = augment(self.X, self.bias)
        parts = [neurons_of(data, p.network, self.bias) for p in (first, second)]
        points = np.vstack([(1.0 - theta) * parts[0].points, theta * parts[1].points])
        signs = np.concatenate([parts[0].signs, parts[1].signs])
        keep = np.any(points != 0.0, axis=1)
        sides = [np.vstack([getattr(p, name) for p in parts])[keep] for name in ("active", "tied")]
        mixed = merge(Neurons(data, points[keep], signs[keep], *sides))
        return optimal_pruning(self.X, mixed.network(self.bias), bias=self.bias).network

    def certificate(self, beta: float) -> Certificate:
        """Return the certificate of ``network(beta)``: its dual point is the mixture of those of
        the neighbours, so that nothing has to be proved anew.

        Parameters
        ----------
        beta
            At least the least penalty of the path.

        Raises
        ------
        ValueError
            For a penalty below the path.
        """
        beta = as_real(beta, "beta", minimum=self.points[-1].beta)
        network = self.network(beta)
        first, second, theta = self._neighbours(beta)
        weights = 1.0 - theta, theta
        dual = weights[0] * first.certificate.dual + weights[1] * second.certificate.dual
        # The weights are rounded, and with them the penalty for which the mixture is feasible.
        feasible = weights[0] * first.beta + weights[1] * second.beta
        dual = dual * min(beta / feasible * (1.0 - 16.0 * np.finfo(float).eps), 1.0)
        value = self.loss.value(network(self.X), self.y) + beta * network.penalty
        return replace(
            first.certificate,
            beta=beta,
            network=network,
            dual=dual,
            objective=value,
            dual_objective=self.loss.dual(dual, self.y),
        )

    def _neighbours(self, beta: float) -> tuple[PathPoint, PathPoint, float]:
        """Return the solved points around a penalty and the weight of the second one."""
        if beta >= self.points[0].beta:
            return self.points[0], self.points[0], 0.0
        k = int(np.searchsorted(-self.betas, -beta, side="left"))
        first, second = self.points[k - 1], self.points[k]
        return first, second, (first.beta - beta) / (first.beta - second.beta)


def trace_solution_path(
    X: ArrayLike,
    y: ArrayLike,
    *,
    min_ratio: float = 0.05,
    tol: float = 1e-3,
    loss: str | Loss = "squared",
    bias: bool = False,
    max_points: int | None = None,
    callback: Callable[[PathPoint], object] | None = None,
) -> SolutionPath:
    """Return optimal networks for all penalties from ``min_ratio * beta_max`` on, with a certified
    gap everywhere.

    Parameters
    ----------
    X, y
        Data, shape (n, d), and targets, shape (n,), not such that the zero network is optimal for
        every penalty.
    min_ratio
        Least penalty relative to ``beta_max``, in (0, 1).
    tol
        Relative duality gap at every penalty of the range, solved or interpolated.
    loss, bias
        As for ``train``.
    max_points
        Largest number of penalties to solve; by default 1000, or what takes about a minute.
    callback
        Called with each solved penalty after the two ends; True ends the path there.

    Returns
    -------
    SolutionPath
        Solved penalties with certificates, and the gap of the interpolation between them.

    Raises
    ------
    ValueError
        For malformed data, or targets for which the zero network is always optimal.

    Notes
    -----
    mishkin2023-optimal, solution paths; the interpolation's gap is derived (module docstring). The
    interval with the largest gap is halved until none exceeds ``tol``.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import trace_solution_path
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> path = trace_solution_path(X, y, min_ratio=0.5, tol=0.001)
    >>> bool(np.all(np.diff(path.betas) < 0))
    True
    """
    X, y, _, chosen = as_problem(X, y, 1.0, loss)
    bias = as_flag(bias, "bias")
    if y.ndim != 1:
        raise ValueError(f"y: expected one output, shape ({X.shape[0]},), got {y.shape}")
    ratio = as_real(min_ratio, "min_ratio", above=0.0, below=1.0)
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    limit = as_count(1000 if max_points is None else max_points, "max_points", minimum=2)
    watch = None if callback is None else as_function(callback, "callback")
    session = Session(X, y, loss=chosen, bias=bias, tol=_TRAIN_TOL)
    beta_max = session.threshold()
    if beta_max <= 0.0:
        raise ValueError("y: expected targets for which some network is better than zero, got none")
    points = [_solve(session, beta_max), _solve(session, ratio * beta_max)]
    # A heap of intervals, the worst first; ties in order of creation.
    heap = [(-_interval_gap(points[0], points[1], chosen), 0, 1)]
    status = PathStatus.CERTIFIED
    while -heap[0][0] > tol:
        _, i, j = heap[0]
        # The ends' own gaps do not shrink with the interval, whatever is allowed.
        if max(_relative_gap(points[i]), _relative_gap(points[j])) > 0.5 * tol:
            status = PathStatus.ENDPOINTS
            break
        if len(points) >= limit:
            status = PathStatus.POINTS
            break
        if max_points is None and session.problem.spent > MINUTE:
            status = PathStatus.WORK
            break
        heappop(heap)
        points.append(_solve(session, 0.5 * (points[i].beta + points[j].beta)))
        new = len(points) - 1
        for a, b in ((i, new), (new, j)):
            heappush(heap, (-_interval_gap(points[a], points[b], chosen), a, b))
        if watch is not None and asked_to_stop(watch(points[new])):
            status = PathStatus.STOPPED
            break
    heap.sort(key=lambda t: -points[t[1]].beta)
    order = [heap[0][1], *(b for _, _, b in heap)]
    gaps = np.array([-g for g, _, _ in heap])
    if status is not PathStatus.CERTIFIED:
        warnings.warn(
            f"relative gap {gaps.max():.1e}: {status.value}", RuntimeWarning, stacklevel=2
        )
    solved = tuple(points[k] for k in order)
    return SolutionPath(session.X, session.y, chosen, bias, beta_max, solved, gaps, status)


def optimal_set_distance(
    X: ArrayLike, first: OptimalSet, second: OptimalSet, *, max_subsets: int = 1_000_000
) -> float:
    """Return how far the optimal networks of one problem may be from those of another near by: the
    largest distance of a point of the first polytope from the second.

    Parameters
    ----------
    X
        The data, shape (n, d), with the column of ones if the problems have biases.
    first, second
        Optimal sets on the same data, say at two penalties.
    max_subsets
        As for ``vertices``.

    Notes
    -----
    A network is the vector of its blocks ``|a_j| u_j``, those of one sign that share a closed cell
    with a direction of ``second`` added up. The distance from a polytope is convex, so that its
    maximum is at a vertex of ``first``; each is a quadratic program, solved by Lawson and Hanson's
    reduction to non-negative least squares, in units of the penalty.

    Examples
    --------
    >>> from theorylab.convex_relu import find_optimal_set, optimal_set_distance
    >>> import numpy as np
    >>> X, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0, -2.0])
    >>> one, two = (find_optimal_set(X, y, beta) for beta in (0.4, 0.5))
    >>> round(optimal_set_distance(X, one, two), 6)
    0.141421
    """
    as_instance(first, "first", OptimalSet)
    as_instance(second, "second", OptimalSet)
    X = as_array(X, "X", shape=(None, first.directions.shape[1]))
    corners = vertices(first, max_subsets=max_subsets)
    scale = max(second.total, 1e-300)
    ours, theirs = (locate(X, s.directions, s.signs) for s in (first, second))
    apart = np.linalg.norm(first.directions[:, None] - second.directions, axis=2)
    for k in range(first.n_directions):
        negative = ~(ours.active[k] | ours.tied[k])
        crossed = ours.active[k] & ~(theirs.active | theirs.tied) | negative & theirs.active
        apart[k, crossed.any(axis=1) | (second.signs != first.signs[k])] = np.inf
    start = second.weights / scale
    null = np.linalg.svd(second.atoms)[2][second.rank :].T
    farthest = 0.0
    for weights in corners / scale:
        blocks, square = np.zeros_like(second.directions), 0.0
        for k in range(len(weights)):
            part = weights[k] * first.directions[k]
            if np.isfinite(apart[k]).any():
                blocks[int(np.argmin(apart[k]))] += part
            else:
                square += float(part @ part)
        along = np.sum(blocks * second.directions, axis=1)
        square += float(np.sum((blocks - along[:, None] * second.directions) ** 2))
        off = along - start
        inside = null.T @ off
        square += float(np.sum((off - null @ inside) ** 2))
        if null.shape[1]:
            # Least |x| with start + null (inside + x) >= 0.
            bounds = -start - null @ inside
            system = np.vstack([null.T, bounds])
            target = np.append(np.zeros(null.shape[1]), 1.0)
            residual = system @ nnls(system, target)[0] - target
            square += float(np.sum((residual[:-1] / residual[-1]) ** 2))
        farthest = max(farthest, float(np.sqrt(square)))
    return scale * farthest


def _solve(session: Session, beta: float) -> PathPoint:
    result = session.train(beta)
    # What a training takes that ends with its budget is not taken twice.
    ended = (TrainingStatus.CERTIFIED, TrainingStatus.BUDGET, TrainingStatus.WORK)
    if result.status not in ended and session.forget():
        # From the neighbours' neurons the descent may end where it does not from nothing.
        result = min(result, session.train(beta), key=lambda r: r.gap)
    if result.status is not TrainingStatus.CERTIFIED:
        warnings.warn(
            f"relative gap {result.gap:.1e} at beta {beta:.3g}: {result.status.value}",
            RuntimeWarning,
            stacklevel=3,
        )
    X, y, loss = session.X, session.y, session.loss
    network = result.network
    first = np.column_stack([network.weights, network.biases]) if session.bias else network.weights
    hidden = np.maximum(session.data @ first.T, 0.0)
    fit = hidden @ network.output_weights
    if null_vector(hidden / np.linalg.norm(first, axis=1)) is not None:
        network = optimal_pruning(X, network, bias=session.bias).network
        fit = network(X)
    return PathPoint(beta, network, result.certificate, fit, loss.value(fit, y), network.penalty)


def _relative_gap(point: PathPoint) -> float:
    return relative_gap(
        point.objective, point.dual_objective, rounding=1e-10 * abs(point.objective)
    )


def _interval_gap(first: PathPoint, second: PathPoint, loss: Loss) -> float:
    """Return the certified relative gap of the mixtures of two solved points.

    The mixture's loss is at most the mixture of the losses, less theta (1 - theta) sum_i L_i (f_1 -
    f_2)_i^2 / 2 for the squared loss; the dual value is at least the mixture of the dual values,
    plus theta (1 - theta) sum_i (v_1 - v_2)_i^2 / (2 L_i) where second derivatives are at most L_i.
    The lower bound decreases with beta."""
    gap = max(first.objective - first.dual_objective, second.objective - second.dual_objective, 0.0)
    bend = (first.beta - second.beta) * (second.penalty - first.penalty)
    if loss.smooth:
        # Those of the smooth losses are largest at zero.
        largest = loss.curvature(np.zeros_like(first.fit), first.certificate.y)
        apart = first.certificate.dual - second.certificate.dual
        bend -= 0.5 * float(apart @ (apart / largest))
        if isinstance(loss.base, Squared):
            apart = first.fit - second.fit
            bend -= 0.5 * float(apart @ (apart * largest))
    # max over theta of (1 - theta) g_1 + theta g_2 + theta (1 - theta) bend is at most this.
    absolute = gap + 0.25 * max(bend, 0.0)
    return absolute / max(abs(second.dual_objective), 1e-300)
