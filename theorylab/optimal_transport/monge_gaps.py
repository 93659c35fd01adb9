r"""The Monge gap: by how much a map costs more than the best coupling of the same two measures.

For a map T, a cost c and a reference measure $\rho$,

$$\mathcal M(T)=\mathbb E_\rho\,c(x,T(x))-W_c(\rho,T_\sharp\rho)\ge0,$$

zero iff the pairs (x, T(x)) are c-cyclically monotone; defined for samples and for any cost. The
cycle $i_1\to i_2\to\dots$ changes the cost by the sum of
$c(x_{i_k},T(x_{i_{k+1}}))-c(x_{i_k},T(x_{i_k}))$; with $-\mu$ the least mean of a
cycle, $\frac2n\mu\le\mathcal M\le\mu$ (derived). For n times the gap, a subset never has
more than the whole sample.

*Entropic.* With $W_\epsilon=\min_P\langle C,P\rangle+\epsilon\sum P\log P$ and n points of
equal weight, the entropy of a coupling lies between log n and 2 log n (derived):

$$\mathcal M+\epsilon\log n\le\mathcal M_\epsilon\le\mathcal M+2\epsilon\log n.$$

*Gaussian.* For $\rho=N(m,\Sigma)$, T(x) = A x + b, $c=\|x-y\|^2$ and
$M=\Sigma^{1/2}A\Sigma^{1/2}$ (derived): $\mathcal M(T)=2(\|M\|_*-\mathrm{tr}\,M)$; for
positive definite $\Sigma$ zero iff A is symmetric positive semidefinite.

Theorem: uscidda2023-monge (the gap, its zeros, its entropic version as a regularizer)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, minimize

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_function,
    as_real,
    as_symmetric,
    refuses_overflow,
)
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.optimal_transport._problem import TransportPlan
from theorylab.optimal_transport.elastic_costs import Cost, Penalty, cost_matrix
from theorylab.optimal_transport.exact import exact_plan
from theorylab.optimal_transport.sinkhorn_newton import newton_plan

__all__ = [
    "FittedMap",
    "MongeGap",
    "cycle_excess",
    "fit_monge_map",
    "gaussian_monge_gap",
    "monge_gap",
]

_UNIT = np.finfo(np.float64).eps


@result
class MongeGap:
    """The gap of a map on a sample.

    Attributes
    ----------
    value
        The gap; 0 where rounding explains it.
    bound
        No less than the gap, from the potentials of the plan.
    map_cost
        Mean cost of the map.
    plan
        The best coupling of the sources with the images.
    eps
        Weight of the entropy.
    """

    value: float
    bound: float
    map_cost: float
    plan: TransportPlan
    eps: float

    def __repr__(self) -> str:
        return f"<MongeGap {self.value:.6g} of a map that costs {self.map_cost:.6g}>"


def monge_gap(
    X: ArrayLike,
    TX: ArrayLike,
    *,
    cost: str | Penalty | Cost = "sqeuclidean",
    eps: float = 0.0,
    tol: float = 1e-9,
) -> MongeGap:
    """Return the Monge gap of a map on equally weighted points.

    Parameters
    ----------
    X
        (n, d) sources.
    TX
        (n, d) images, row by row.
    cost
        ``"sqeuclidean"``, ``"euclidean"``, a penalty (its elastic cost), or a function of both
        clouds that returns an (n, n) array.
    eps
        Weight of the entropy in the coupling, in units of the cost; 0 is the exact gap.
    tol
        Marginal error at which the entropic coupling is accepted.

    Examples
    --------
    >>> from theorylab.optimal_transport import monge_gap
    >>> X = [[1.0, 0.0], [-1.0, 0.0]]
    >>> monge_gap(X, [[2.0, 0.0], [-3.0, 0.0]]).value, monge_gap(X, [[-1.0, 0.0], [1.0, 0.0]]).value
    (0.0, 4.0)
    """
    eps, tol = as_real(eps, "eps", minimum=0.0), as_real(tol, "tol", minimum=0.0)
    C, map_cost = _map_costs(X, TX, cost)
    excess = C - C.diagonal()[:, None]
    weights = np.full(len(C), 1 / len(C))
    if eps > 0:
        plan = newton_plan(weights, weights, excess, eps, tol=tol)
        return MongeGap(0.0 - plan.value, 0.0 - plan.dual_value, map_cost, plan, eps)
    plan = exact_plan(weights, weights, excess)
    noise = 16 * _UNIT * float(np.abs(C.diagonal()).mean() + (plan.plan * np.abs(C)).sum())
    value = -plan.value if -plan.value > noise else 0.0
    return MongeGap(value, max(-plan.dual_value, value), map_cost, plan, eps)


def cycle_excess(
    X: ArrayLike, TX: ArrayLike, *, cost: str | Penalty | Cost = "sqeuclidean"
) -> float:
    """Return the largest mean saving of a cycle of reassigned images, by Karp's algorithm: 0 iff
    the map is c-cyclically monotone on the sample (module docstring).

    Parameters
    ----------
    X, TX
        (n, d) sources and their images.
    cost
        As for :func:`monge_gap`.

    Examples
    --------
    >>> from theorylab.optimal_transport import cycle_excess
    >>> cycle_excess([[1.0], [-1.0], [9.0]], [[-1.0], [1.0], [9.0]])
    4.0
    """
    C, _ = _map_costs(X, TX, cost)
    n, noise = len(C), 16 * _UNIT * float(np.abs(C).max())
    excess = C - C.diagonal()[:, None]  # staying costs 0: the least mean is never positive
    walks = np.zeros((n + 1, n))
    for k in range(n):
        walks[k + 1] = (walks[k][:, None] + excess).min(axis=0)
    means = (walks[n] - walks[:n]) / np.arange(n, 0, -1)[:, None]
    saving = -float(means.max(axis=0).min())
    return saving if saving > noise else 0.0


@refuses_overflow("A", "covariance")
def gaussian_monge_gap(A: ArrayLike, covariance: ArrayLike) -> float:
    r"""Return the gap of x -> A x + b on a Gaussian, for the squared Euclidean cost.

    Parameters
    ----------
    A
        (d, d).
    covariance
        (d, d), positive semidefinite.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import gaussian_monge_gap
    >>> gaussian_monge_gap([[0.0, -1.0], [1.0, 0.0]], np.diag([4.0, 1.0]))
    8.0
    """
    S = as_symmetric(covariance, "covariance")
    A = as_array(A, "A", shape=S.shape)
    values, vectors = np.linalg.eigh(S)
    if values[0] < -1e-12 * np.abs(values).max():
        raise ValueError(
            f"covariance: expected a positive semidefinite matrix, got the eigenvalue {values[0]}"
        )
    root = np.sqrt(np.maximum(values, 0.0))
    M = root[:, None] * (vectors.T @ A @ vectors) * root
    gap = 2 * float(np.linalg.svd(M, compute_uv=False).sum() - np.trace(M))
    return gap if gap > 16 * len(S) * _UNIT * float(np.linalg.norm(M)) else 0.0


@result
class FittedMap:
    """A map fitted to two clouds.

    Attributes
    ----------
    coefficients
        (p, d), of the features.
    images
        (n, d), of the sources.
    divergence
        Sinkhorn divergence of the images from the targets.
    gap
        Entropic Monge gap.
    objectives
        Objective after each step, falling.
    basis
        The features.
    """

    coefficients: FloatArray
    images: FloatArray
    divergence: float
    gap: float
    objectives: FloatArray
    basis: Callable[[FloatArray], ArrayLike]

    def at(self, points: ArrayLike) -> FloatArray:
        """Return the images of any points."""
        images: FloatArray = _features(self.basis, as_array(points, "points", ndim=2)) @ (
            self.coefficients
        )
        return images

    def __repr__(self) -> str:
        return (
            f"<FittedMap, divergence {self.divergence:.4g}, gap {self.gap:.4g}, "
            f"{len(self.objectives)} steps>"
        )


@refuses_overflow("X", "Y", "weight", "eps", "start")
def fit_monge_map(
    X: ArrayLike,
    Y: ArrayLike,
    weight: float,
    *,
    eps: float,
    basis: Callable[[FloatArray], ArrayLike] | None = None,
    start: ArrayLike | None = None,
    max_iter: int = 100,
    callback: Callback | None = None,
) -> FittedMap:
    """Fit a map linear in features: Sinkhorn divergence of its images from the targets, plus
    weight times its entropic Monge gap, for the squared Euclidean cost; L-BFGS from ``start``.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) points of equal weights.
    weight
        Of the gap, at least 0.
    eps
        Weight of the entropy, positive, in units of the squared distance.
    basis
        Features of points, (n, d) -> (n, p); by default 1 and the coordinates (affine maps).
    start
        (p, d) coefficients; by default those closest to the identity.
    max_iter
        Steps, at most.
    callback
        Called with a :class:`~theorylab.numerics.progress.Progress` of each step: the objective;
        where it returns True, the fit stops.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.optimal_transport import fit_monge_map
    >>> X = np.random.default_rng(0).normal(size=(40, 2))
    >>> fit = fit_monge_map(X, 2 * X + 3, 0.1, eps=0.1)
    >>> bool(np.abs(fit.coefficients - [[3, 3], [2, 0], [0, 2]]).max() < 0.1)
    True
    """
    X = as_array(X, "X", ndim=2)
    Y = as_array(Y, "Y", shape=(None, X.shape[1]))
    weight = as_real(weight, "weight", minimum=0.0)
    eps = as_real(eps, "eps", above=0.0)
    max_iter = as_count(max_iter, "max_iter")
    basis = _affine if basis is None else as_function(basis, "basis")
    Phi = _features(basis, X)
    p, (n, d) = Phi.shape[1], X.shape
    if start is None:
        theta = np.linalg.lstsq(Phi, X, rcond=None)[0]
    else:
        theta = as_array(start, "start", shape=(p, d))
    cost_matrix(np.concatenate([X, Phi @ theta]), Y, "sqeuclidean")  # what float64 holds
    size = np.linalg.norm(Phi, axis=0) / np.sqrt(n)
    size[size == 0] = 1.0
    length = max(float(np.abs(Y - X.mean(axis=0)).max()), float(np.abs(X - X.mean(axis=0)).max()))
    length = length if length > 0 else 1.0
    eps /= length**2
    share = weight / (1 + weight)
    sources, targets = X / length, Y / length
    constant = _entropic(targets, targets, eps)[0] / 2

    def terms(flat: FloatArray) -> tuple[float, float, FloatArray]:
        T = Phi @ (flat.reshape(p, d) / size[:, None])
        there, toward = _entropic(T, targets, eps)
        spread, apart = _entropic(T, T, eps)
        best, back = _entropic(T, sources, eps)
        gap = float(np.sum((T - sources) ** 2)) / n - best
        slope = (1 - share) * (toward - apart) + share * (2 * (T - sources) / n - back)
        return there - spread / 2 - constant, gap, slope

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        divergence, gap, slope = terms(flat)
        return (1 - share) * divergence + share * gap, (Phi.T @ slope / size[:, None]).ravel()

    record: list[float] = []
    stops = watcher(callback)

    def keep(intermediate_result: OptimizeResult) -> None:
        record.append(float(intermediate_result.fun) * length**2 * (1 + weight))
        if stops(len(record), record[-1]):
            raise StopIteration

    answer = minimize(
        objective,
        (theta * size[:, None] / length).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iter, "ftol": 1e-12, "gtol": 1e-8},
        callback=keep,
    )
    divergence, gap, _ = terms(answer.x)
    theta = answer.x.reshape(p, d) / size[:, None] * length
    images = Phi @ theta
    for array in (theta, images):
        array.flags.writeable = False
    return FittedMap(
        theta, images, divergence * length**2, gap * length**2, np.array(record), basis
    )


def _entropic(T: FloatArray, Y: FloatArray, eps: float) -> tuple[float, FloatArray]:
    """Return the entropic cost of two clouds and its gradient in the first, the plan fixed."""
    a, b = np.full(len(T), 1 / len(T)), np.full(len(Y), 1 / len(Y))
    plan = newton_plan(a, b, cost_matrix(T, Y, "sqeuclidean"), eps, tol=1e-8)
    return plan.dual_value, 2 * (plan.plan.sum(axis=1)[:, None] * T - plan.plan @ Y)


def _affine(X: FloatArray) -> FloatArray:
    return np.column_stack([np.ones(len(X)), X])


def _features(basis: Callable[[FloatArray], ArrayLike], X: FloatArray) -> FloatArray:
    return as_array(basis(X), "basis", shape=(len(X), None))


def _map_costs(X: ArrayLike, TX: ArrayLike, cost: str | Penalty | Cost) -> tuple[FloatArray, float]:
    """Return c(x_i, T x_j) and the mean cost of the map. The squared cost is that of the centred
    clouds, whose gap is the same: a translation costs no digits."""
    X = as_array(X, "X", ndim=2)
    TX = as_array(TX, "TX", shape=X.shape)
    C = cost_matrix(X, TX, cost)
    map_cost = float(C.diagonal().mean())
    if isinstance(cost, str) and cost == "sqeuclidean":
        C = cost_matrix(X - X.mean(axis=0), TX - TX.mean(axis=0), cost)
    return C, map_cost
