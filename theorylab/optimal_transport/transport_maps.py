r"""Maps with sparse displacements: elastic costs, their exact potentials, thresholding.

An elastic cost adds a penalty of the displacement to the quadratic cost,

$$h(z)=\tfrac12\|z\|^2+\lambda s(z),\qquad c(x,y)=h(x-y).$$

*Potentials.* Makkuva's minimax objective with the penalty,
$\tfrac12E\|x\|^2+\tfrac12E\|y\|^2-E f(x)-E\sup_z[\langle y,z\rangle-f(z)-\lambda s(z-y)]$,
maximised over all f, is transport with cost c: $\varphi=\tfrac12\|\cdot\|^2-f$ is a
Kantorovich potential. Over convex f and for convex s it is (derived, by minimax)

$$\min_P\ \sum_{ij}P_{ij}\tfrac12\|x_i-y_j\|^2
+\lambda\sum_jb_j\,s\Bigl(\sum_iP_{ij}x_i/b_j-y_j\Bigr):$$

the penalty of each target's mean displacement replaces the mean of the penalties.

*Thresholding.* For any g, $T(x)\in\arg\min_yh(x-y)+g(y)$ is optimal for c between its
source and its image. If g is smooth and s convex, the displacement z = x - T(x) is
$\mathrm{prox}_{\lambda s}(\nabla g(T(x)))$: soft thresholding, with exact zeros, for the l1
norm.

Theorem: chen2025-displacement (a penalty inside neural transport; smoothed l0)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.spatial.distance import cdist

from theorylab._validation import FloatArray, as_array, as_instance, as_symmetric
from theorylab.numerics.programs import linprog
from theorylab.numerics.results import result
from theorylab.optimal_transport._problem import TransportPlan, TransportStatus, make_plan
from theorylab.optimal_transport.elastic_costs import L1, ConvexPenalty, Penalty, cost_matrix
from theorylab.optimal_transport.exact import exact_plan

__all__ = [
    "ConvexPotential",
    "ElasticMap",
    "Pareto",
    "convex_potential",
    "elastic_map",
    "pareto_curve",
    "proximal_map",
]

_STEPS = 20_000
_DISPLACEMENTS = 2 * 10**7  # numbers of a linear program


@result
class ElasticMap:
    """An optimal plan for an elastic cost, with potentials that extend to all points.

    Attributes
    ----------
    plan
        The optimal plan, certified by its potentials.
    images
        (n, d): where each source goes, the mean of its targets if they are several.
    transport_cost
        Mean of half the squared displacement.
    sparsity
        Mean penalty of the displacements, without the weight.
    sources, targets
        X and Y.
    penalty
        That of the cost.
    """

    plan: TransportPlan
    images: FloatArray
    transport_cost: float
    sparsity: float
    sources: FloatArray
    targets: FloatArray
    penalty: Penalty

    @cached_property
    def potentials(self) -> tuple[FloatArray, FloatArray]:
        """Optimal potentials; for as many targets as sources those in the middle of all, so that a
        source prefers its own target to every other that no optimal plan gives it."""
        n = len(self.sources)
        if self.plan.plan.nnz != n or len(self.targets) != n:
            return self.plan.potentials
        column = self.plan.plan.indices
        C = cost_matrix(self.sources, self.targets[column], self.penalty)
        D = C - C.diagonal()[:, None]
        for k in range(n):  # Floyd and Warshall: g_j - g_i <= D_ij, the least reassignment
            np.minimum(D, D[:, k, None] + D[k], out=D)
        g = np.empty(n)
        g[column] = (D.mean(axis=0) - D.mean(axis=1)) / 2
        return C.diagonal() - g[column], g

    @property
    def value(self) -> float:
        """Transport cost plus weight times sparsity."""
        return self.plan.value

    def at(self, points: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the potential and the image of any points: the least elastic cost less the
        targets' potentials, and the target that attains it."""
        points = as_array(points, "points", shape=(None, self.targets.shape[1]))
        reduced = cost_matrix(points, self.targets, self.penalty) - self.potentials[1]
        return reduced.min(axis=1), self.targets[reduced.argmin(axis=1)]

    def __repr__(self) -> str:
        return (
            f"<ElasticMap of {len(self.images)} points, {self.penalty}, transport cost "
            f"{self.transport_cost:.6g}, sparsity {self.sparsity:.6g}, gap {self.plan.gap:.1e}>"
        )


def elastic_map(X: ArrayLike, Y: ArrayLike, penalty: Penalty) -> ElasticMap:
    """Return the optimal map of equally weighted points for an elastic cost.

    Parameters
    ----------
    X
        (n, d) sources.
    Y
        (m, d) targets; with m = n each source has one.
    penalty
        :class:`L1`, :class:`SmoothedL0` or :class:`KOverlap`.

    Examples
    --------
    >>> from theorylab.optimal_transport import SmoothedL0, elastic_map
    >>> X, Y = [[0.0, 0.0], [2.0, 1.0]], [[1.5, 0.0], [0.4, 1.0]]
    >>> [elastic_map(X, Y, SmoothedL0(w, 0.1)).images.tolist() for w in (0.0, 2.0)]
    [[[0.4, 1.0], [1.5, 0.0]], [[1.5, 0.0], [0.4, 1.0]]]
    """
    penalty = as_instance(penalty, "penalty", Penalty)
    C = cost_matrix(X, Y, penalty)
    X, Y = as_array(X, "X"), as_array(Y, "Y")
    n, m = C.shape
    plan = exact_plan(np.full(n, 1 / n), np.full(m, 1 / m), C)
    cells = plan.plan.tocoo()
    moved = X[cells.row] - Y[cells.col]
    images = plan.plan @ Y * n
    if plan.plan.nnz == n:  # the targets themselves, without rounding
        images[cells.row] = Y[cells.col]
    images.flags.writeable = False
    return ElasticMap(
        plan,
        images,
        float(cells.data @ np.einsum("ij,ij->i", moved, moved)) / 2,
        float(cells.data @ penalty.value(moved)),
        X,
        Y,
        penalty,
    )


@result
class Pareto:
    """Exact minimisers over a range of weights: transport cost and sparsity of each."""

    weights: FloatArray
    transport_cost: FloatArray
    sparsity: FloatArray


def pareto_curve(X: ArrayLike, Y: ArrayLike, penalty: Penalty, *, weights: ArrayLike) -> Pareto:
    r"""Return transport cost C and sparsity S of the optimal maps for each weight.

    For weights $\lambda<\lambda'$ an exchange gives
    $\lambda(S-S')\le C'-C\le\lambda'(S-S')$: the cost never falls, the sparsity never rises,
    and the curve is convex.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) points of equal weights.
    penalty
        Its own weight is replaced.
    weights
        (k,) non-negative.

    Examples
    --------
    >>> from theorylab.optimal_transport import SmoothedL0, pareto_curve
    >>> X, Y = [[0.0, 0.0], [2.0, 1.0]], [[1.5, 0.0], [0.4, 1.0]]
    >>> pareto_curve(X, Y, SmoothedL0(1.0, 0.0), weights=[0.0, 2.0]).sparsity.tolist()
    [2.0, 1.0]
    """
    penalty = as_instance(penalty, "penalty", Penalty)
    weights = as_array(weights, "weights", ndim=1, nonnegative=True)
    found = [elastic_map(X, Y, replace(penalty, weight=float(w))) for w in weights]
    cost, sparsity = np.array([(m.transport_cost, m.sparsity) for m in found]).T
    return Pareto(weights, cost, sparsity)


@result
class ConvexPotential:
    r"""The best convex potential of the l1-penalised minimax problem.

    Attributes
    ----------
    plan
        The plan that minimises transport cost plus the penalty of mean displacements, with
        potentials $\varphi_i+\psi_j\le\frac12\|x_i-y_j\|^2+\langle q_j,x_i-y_j\rangle$.
    slopes
        (m, d), q, at most the weight of the penalty.
    targets
        (m, d), Y.
    """

    plan: TransportPlan
    slopes: FloatArray
    targets: FloatArray

    def at(self, points: ArrayLike) -> FloatArray:
        r"""Return the convex potential $f(x)=\max_j\langle y_j-q_j,x\rangle+\langle
        q_j,y_j\rangle-\frac12\|y_j\|^2+\psi_j$ at any points."""
        points = as_array(points, "points", shape=(None, self.targets.shape[1]))
        Y, q = self.targets, self.slopes
        offsets = np.einsum("ij,ij->i", q - Y / 2, Y) + self.plan.potentials[1]
        best: FloatArray = (points @ (Y - q).T + offsets).max(axis=1)
        return best

    def __repr__(self) -> str:
        return f"<ConvexPotential, {len(self.slopes)} affine pieces, {self.plan!r}>"


def convex_potential(X: ArrayLike, Y: ArrayLike, penalty: L1) -> ConvexPotential:
    r"""Return the best convex potential of the l1-penalised minimax problem (module docstring), by
    linear programming.

    Parameters
    ----------
    X, Y
        (n, d) and (m, d) points of equal weights.
    penalty
        An :class:`L1`.

    Raises
    ------
    ValueError
        For malformed arguments, or displacements of more than 2e7 coordinates, n m d. The program
        takes half a minute for 600 x 600 points in the plane, and longer in more dimensions.

    Examples
    --------
    >>> from theorylab.optimal_transport import L1, convex_potential, elastic_map
    >>> X, Y = [[-3.0], [3.0]], [[-1.0], [1.0]]
    >>> convex_potential(X, Y, L1(2.0)).plan.value, elastic_map(X, Y, L1(2.0)).value
    (4.0, 6.0)
    """
    penalty = as_instance(penalty, "penalty", L1)
    cost_matrix(X, Y, penalty)  # points and costs that float64 holds
    X, Y = as_array(X, "X"), as_array(Y, "Y")
    (n, d), m = X.shape, len(Y)
    if n * m * d > _DISPLACEMENTS:
        raise ValueError(
            f"X, Y: expected at most {_DISPLACEMENTS:.0e} coordinates of displacements, got "
            f"{n} x {m} points in dimension {d}"
        )
    spread = max(float(cdist(X, Y, "chebyshev").max()), penalty.weight)
    unit = float(2.0 ** np.floor(np.log2(spread))) if spread > 0 else 1.0
    moved, weight = (X[:, None, :] - Y) / unit, penalty.weight / unit
    C = (moved**2).sum(axis=2) / 2
    # Masses row by row, then the absolute mean displacement of each target times its mass.
    rows = sparse.kron(sparse.eye_array(n), np.ones((1, m)))
    columns = sparse.kron(np.ones((1, n)), sparse.eye_array(m))
    at = (
        np.repeat(np.arange(m * d), n),
        (np.arange(n) * m + np.arange(m * d)[:, None] // d).ravel(),
    )
    mean = sparse.csr_array((moved.transpose(1, 2, 0).ravel(), at), shape=(m * d, n * m))
    size = sparse.eye_array(m * d)
    options = {"dual_feasibility_tolerance": 1e-10, "primal_feasibility_tolerance": 1e-10}
    answer = linprog(
        np.concatenate([C.ravel(), np.full(m * d, weight)]),
        A_ub=sparse.block_array([[mean, -size], [-mean, -size]]),
        b_ub=np.zeros(2 * m * d),
        A_eq=sparse.hstack([sparse.vstack([rows, columns]), sparse.csr_array((n + m, m * d))]),
        b_eq=np.repeat([1.0, n / m], [n, m]),
        method="highs",
        options=options,
    )
    if answer.x is None:
        raise RuntimeError(f"HiGHS: {answer.message}")
    P = np.maximum(answer.x[: n * m].reshape(n, m), 0.0) / n
    transport = float(np.vdot(P, C))
    value = transport + weight * float(np.abs(np.einsum("ij,ijk->jk", P, moved)).sum())
    upper, lower = answer.ineqlin.marginals.reshape(2, m, d)
    slopes = np.clip(lower - upper, -weight, weight)
    f = answer.eqlin.marginals[:n]
    g = (C + np.einsum("ijk,jk->ij", moved, slopes) - f[:, None]).min(axis=0)
    square = unit * unit
    plan = make_plan(
        P,
        f * square,
        g * square,
        value * square,
        float(f.mean() + g.mean()) * square,
        transport * square,
        value * square,
        int(answer.nit),
        TransportStatus.OPTIMAL,
        float(abs(P.sum(axis=1) - 1 / n).sum() + abs(P.sum(axis=0) - 1 / m).sum()),
        rounding=1e4 * value * square,  # of the linear program, not of the sums
    )
    slopes *= unit
    slopes.flags.writeable = False
    return ConvexPotential(plan, slopes, Y)


def proximal_map(X: ArrayLike, curvature: ArrayLike, penalty: ConvexPenalty) -> FloatArray:
    r"""Return $T(x)=\arg\min_yh(x-y)+\frac12y^\top By$, by proximal gradient steps on the
    displacement: an optimal map for the elastic cost onto its image, sparse for the penalties here.

    Parameters
    ----------
    X
        (n, d) points.
    curvature
        (d, d), B, positive semidefinite; steps grow with its largest eigenvalue.
    penalty
        :class:`L1` or :class:`KOverlap`.

    Returns
    -------
    (n, d) images; a warning says if 20,000 steps did not bring the last change to rounding.

    Examples
    --------
    >>> from theorylab.optimal_transport import L1, proximal_map
    >>> proximal_map([[4.0, 0.5]], [[1.0, 0.0], [0.0, 1.0]], L1(1.0)).round(12).tolist()
    [[2.5, 0.5]]
    """
    penalty = as_instance(penalty, "penalty", ConvexPenalty)
    X = as_array(X, "X", ndim=2)
    B = as_symmetric(curvature, "curvature", size=X.shape[1])
    eigenvalues = np.linalg.eigvalsh(B)
    largest = float(np.abs(eigenvalues).max())
    if eigenvalues[0] < -1e-12 * largest:
        raise ValueError(
            f"curvature: expected a positive semidefinite matrix, got the eigenvalue "
            f"{eigenvalues[0]}"
        )
    if not (np.isfinite(np.abs(X).max() * max(largest, 1.0)) and largest < 1e150):
        raise ValueError("X, curvature: expected products within float64, got an overflow")
    step = 1 / max(largest, 1e-150)
    Z = np.zeros_like(X)
    noise = 4 * np.finfo(np.float64).eps * np.abs(X).max()
    change = 0.0
    for _ in range(_STEPS):
        V = (Z + step * ((X - Z) @ B)) / (1 + step)
        new = penalty.shrink(V, step / (1 + step))
        change = float(np.abs(new - Z).max())
        Z = new
        if change <= noise:
            break
    else:
        warnings.warn(
            f"proximal_map: the last of {_STEPS} steps moved a point by {change:.1e}: the "
            "curvature is large beside 1",
            RuntimeWarning,
            stacklevel=2,
        )
    return X - Z
