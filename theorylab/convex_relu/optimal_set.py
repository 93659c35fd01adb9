r"""All globally optimal two-layer ReLU networks, and how they move with the data.

For a strictly convex smooth loss the optimal outputs $\hat y$ and the dual point
$v=-L'(\hat y)$ are unique. A unit neuron of sign $s$ can carry weight only where
$s\,v^\top(Xu)_+=\beta$; on a closed cell the maximum of that linear function over the unit
ball has one maximiser, $\Pi_K(sX^\top Dv)/\beta$, so there are finitely many such directions
$(u_k,s_k)$, and the optimal networks are, up to splitting a neuron into parallel copies, the
polytope

$$\mathcal C=\Big\{c\ge0:\;\sum_kc_k\,a_k=\hat y\Big\},\qquad a_k=s_k(Xu_k)_+,\qquad
\sum_kc_k=v^\top\hat y/\beta$$

(mishkin2023-optimal, Corollary 4.1). Since $v^\top a_k=\beta$, a relation
$\sum_k\lambda_ka_k=0$ has $\sum_k\lambda_k=0$: moving along it changes neither loss nor
penalty. A network is minimal (no proper subset of its neurons, with any weights, is optimal) iff
its $a_k$ are linearly independent (Proposition 3.6); these are the vertices of
$\mathcal C$, with at most $n$ neurons. Another minimal network may have fewer. The
results are known to us from the authors' poster, which states them informally; the paper's text was
not consulted.

Several optimal networks are common, without any symmetry: if $X^\top v=0$, as for Gaussian
data and small $\beta$, the active directions come in pairs $\pm u_k$ of one sign, and
$q$ pairs that span the space of the rows leave a polytope of dimension
$q-\mathrm{rank}X$.

As long as the faces on which the neurons lie do not change, the optimality conditions are smooth,
and their implicit derivative gives the derivative of the optimum in $X$, $y$ and
$\beta$."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cached_property
from itertools import combinations, islice
from math import comb
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_instance, as_real
from theorylab.convex_relu._active_directions import (
    assign,
    cell_maximisers,
    distinct,
    newton_distance,
    promising_cells,
)
from theorylab.convex_relu._cones import ConeSearch
from theorylab.convex_relu._faces import (
    EPS,
    atoms_of,
    network_of,
    neurons_of,
)
from theorylab.convex_relu._minimality import optimal_pruning
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._problem import as_patterns, as_problem, augment
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu._rounds import Round, TrainingStatus
from theorylab.convex_relu.losses import Loss
from theorylab.convex_relu.training import Session, TrainingResult
from theorylab.numerics.programs import linprog
from theorylab.numerics.results import result

__all__ = [
    "OptimalSet",
    "OptimalSetStatus",
    "find_optimal_set",
    "minimal_networks",
    "vertices",
]

BoolArray = NDArray[np.bool_]

_CHUNK = 4096


class OptimalSetStatus(StrEnum):
    """What is known about the optimal networks."""

    UNIQUE = (
        "the optimal network is unique, up to the order of its neurons and splitting "
        "them into parallel copies"
    )
    POLYTOPE = "the optimal networks form a polytope of positive dimension"
    UNDECIDED = (
        "a direction not counted as active has, or on cells that were not searched may have, a "
        "slack within ten times the accuracy of the dual point; "
        "the problem is nearly degenerate, tol is too large, training ended without an optimum, or "
        "the cells are too many to be searched (give some of them as arrangements)"
    )
    STOPPED = "stopped by the callback during training, whose network need not be optimal"


@result
class OptimalSet:
    """The polytope of optimal networks.

    Parameters
    ----------
    training
        The training that found one of them, with its certificate.
    directions, signs
        Unit neurons that can be active, shape (k, d) with the bias as last coordinate if there is
        one, and their signs, shape (k,).
    atoms
        Their signed outputs, shape (n, k).
    fit, dual
        The common outputs, and the dual point, shape (n,).
    total
        Sum of the weights, common to all optimal networks: the penalty.
    weights
        Weights of one optimal network, shape (k,).
    slack
        ``1 - |v @ relu(X u_k)| / beta`` of the directions, shape (k,): zero up to rounding.
    next_slack
        Least slack of a maximiser on a cell that is not counted as active; over all patterns
        looked for up to 1e-6 only, which is then a lower bound (inf: none among given patterns).
    accuracy
        Error of the values ``v @ relu(X u) / beta``: directions with at most this slack count as
        active.
    rank
        Rank of the atoms.
    """

    training: TrainingResult
    directions: FloatArray
    signs: FloatArray
    atoms: FloatArray
    fit: FloatArray
    dual: FloatArray
    total: float
    weights: FloatArray
    slack: FloatArray
    next_slack: float
    accuracy: float
    rank: int

    @property
    def n_directions(self) -> int:
        """Number of directions that can be active."""
        return int(self.signs.size)

    @cached_property
    def weight_ranges(self) -> FloatArray:
        """Least and largest weight of each direction over all optimal networks, shape (k, 2)."""
        k = self.n_directions
        result = np.column_stack([self.weights, self.weights])
        if self.rank == k:
            return result
        # Weights c + N t >= 0 around the optimum c that training found, N spanning the relations
        # between the atoms.
        null = np.linalg.svd(self.atoms)[2][self.rank :].T
        start = self.weights / self.total
        for j in range(k):
            for side, sign in enumerate((1.0, -1.0)):
                solution = linprog(
                    sign * null[j], A_ub=-null, b_ub=start, bounds=(None, None), method="highs"
                )
                if solution.status != 0:
                    raise RuntimeError(
                        f"the linear program for the range of weight {j} failed: {solution.message}"
                    )
                result[j, side] += self.total * float(null[j] @ solution.x)
        result = np.maximum(result, 0.0)
        result.flags.writeable = False
        return result

    @property
    def status(self) -> OptimalSetStatus:
        """Whether the optimal network is unique."""
        if self.training.status is TrainingStatus.STOPPED:
            return OptimalSetStatus.STOPPED
        # The exact dual point, within the accuracy, violates nothing.
        violated = self.slack.min(initial=0.0) < -self.accuracy
        if violated or self.next_slack < 10.0 * self.accuracy:
            return OptimalSetStatus.UNDECIDED
        spread = self.weight_ranges
        # The feasibility tolerance of the linear programs, in units of the total weight.
        unique = self.rank == self.n_directions or bool(
            np.all(spread[:, 1] - spread[:, 0] <= 1e-7 * self.total)
        )
        return OptimalSetStatus.UNIQUE if unique else OptimalSetStatus.POLYTOPE

    def network(self, weights: ArrayLike) -> Network:
        """Return the balanced network with the given weights on the directions.

        Parameters
        ----------
        weights
            Non-negative, shape (k,); directions of weight zero give no neuron.

        Raises
        ------
        ValueError
            For another shape or a negative weight.
        """
        c = as_array(
            weights, "weights", shape=(self.n_directions,), nonnegative=True, allow_empty=True
        )
        keep = c > 0.0
        root = np.sqrt(c[keep])
        return network_of(
            self.directions[keep] * root[:, None],
            self.signs[keep] * root,
            self.training.certificate.bias,
        )


def find_optimal_set(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    loss: str | Loss = "squared",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    tol: float = 1e-9,
    callback: Callable[[Round], object] | None = None,
) -> OptimalSet:
    """Return every globally optimal network.

    Parameters
    ----------
    X
        Data, shape (n, d).
    y
        Targets or labels, shape (n,).
    beta
        Penalty, positive.
    loss
        "squared" or "logistic", or another smooth strictly convex ``Loss``.
    arrangements
        "all", or patterns of shape (P, n): the optima among the networks with neurons in their
        cones.
    bias
        Give every neuron a penalised bias.
    tol
        Relative duality gap of the training.
    callback
        As for ``train``, which is what takes long.

    Returns
    -------
    OptimalSet
        Active directions, their outputs, the common fit, one optimum, uniqueness.

    Raises
    ------
    ValueError
        For malformed data, or a loss that is not smooth (its optimal outputs need not be unique).

    Notes
    -----
    mishkin2023-optimal, the theorem on the optimal set; the explicit form is derived (module
    docstring). A direction counts as active if its slack is at most the accuracy of the dual point,
    ``|v @ relu(X u) - v* @ relu(X u)| <= |v - v*| |X|``, where ``|v - v*|`` is bounded by Newton's
    theorem on the faces of a minimal network, or, where that does not apply, by the duality gap.

    Examples
    --------
    >>> from theorylab.convex_relu import find_optimal_set
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> find_optimal_set(X, y, 0.1).status.name
    'UNIQUE'
    """
    X, y, beta, chosen = as_problem(X, y, beta, loss)
    bias = as_flag(bias, "bias")
    if y.ndim != 1:
        raise ValueError(f"y: expected one output, shape ({X.shape[0]},), got {y.shape}")
    if not chosen.smooth:
        raise ValueError(f"loss: expected a smooth strictly convex loss, got {chosen.name}")
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    patterns = as_patterns(arrangements, X.shape[0])
    session = Session(
        X, y, loss=chosen, arrangements=arrangements, bias=bias, tol=tol, callback=callback
    )
    training = session.train(beta)
    if training.status is not TrainingStatus.CERTIFIED:
        warn(
            f"relative gap {training.gap:.1e}: {training.status.value}",
            RuntimeWarning,
            stacklevel=2,
        )
    data = augment(X, bias)
    fit = training.network(X)
    v = session.dual()
    minimal = neurons_of(data, optimal_pruning(X, training.network, bias=bias).network, bias)
    horizon = np.inf
    if patterns is None:
        horizon = 9e-7
        if training.status not in (TrainingStatus.BUDGET, TrainingStatus.WORK):
            patterns = promising_cells(reduce_rows(data), data, v, beta)
        if patterns is None:
            # Nothing is known of other cells.
            horizon = 0.0
            patterns = np.vstack([minimal.active, np.ones((1, len(y)), dtype=bool)])
    values, directions, signs = cell_maximisers(ConeSearch(data, patterns), v, beta)
    distance = newton_distance(minimal, v, chosen, y, beta)
    if not np.isfinite(distance):
        # Strong concavity of the dual: |v - v*|^2 <= 2 L gap, with v scaled into the constraint
        # over the cells just searched.
        scaled = v * min(1.0, beta / float(values.max(initial=beta)))
        rounding = 8.0 * (len(y) + data.shape[1]) * EPS * chosen.value(np.zeros_like(y), y)
        gap = max(training.objective - chosen.dual(scaled, y), rounding)
        distance = float(np.sqrt(2.0 * chosen.curvature_bound * gap) + np.linalg.norm(scaled - v))
    spectral = float(np.linalg.norm(data, 2))
    accuracy = (
        distance * spectral / beta
        + 4.0 * (len(y) + data.shape[1]) * EPS * float(np.linalg.norm(v)) * spectral / beta
    )
    active = values >= beta * (1.0 - accuracy)
    rest = 1.0 - values[~active] / beta
    directions, signs, values = distinct(
        directions[active], signs[active], values[active], 2.0 * accuracy
    )
    atoms = atoms_of(data, directions, signs)
    # Errors of the unit neurons are bounded by those of the projections.
    singular = np.linalg.svd(atoms, compute_uv=False)
    rank = int(np.sum(singular > accuracy * spectral * np.sqrt(max(len(signs), 1))))
    return OptimalSet(
        training=training,
        directions=directions,
        signs=signs,
        atoms=atoms,
        fit=fit,
        dual=v,
        total=float(v @ fit) / beta,
        weights=assign(neurons_of(data, training.network, bias), directions, signs),
        slack=1.0 - values / beta,
        next_slack=float(rest.min(initial=horizon)),
        accuracy=accuracy,
        rank=rank,
    )


def vertices(optimal: OptimalSet, *, max_subsets: int = 1_000_000) -> FloatArray:
    """Return the weights of all minimal optimal networks: the vertices of the polytope.

    Parameters
    ----------
    optimal
        The optimal set.
    max_subsets
        Largest number of sets of directions to try, ``comb(k, rank)``.

    Returns
    -------
    ndarray, shape (V, k)
        One row of weights per vertex, sorted by the number of neurons.

    Raises
    ------
    ValueError
        If ``max_subsets`` is too small.

    Notes
    -----
    mishkin2023-optimal: minimal networks are the vertices. Every vertex is the solution on some
    basis of the atoms' column space.

    Examples
    --------
    >>> from theorylab.convex_relu import find_optimal_set, vertices
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> vertices(find_optimal_set(X, y, 0.1)).shape
    (1, 2)
    """
    as_instance(optimal, "optimal", OptimalSet)
    limit = as_count(max_subsets, "max_subsets")
    k, r = optimal.n_directions, optimal.rank
    if comb(k, r) > limit:
        raise ValueError(
            f"max_subsets: expected at least {comb(k, r)} for {k} directions of rank "
            f"{r}, got {limit}"
        )
    if r == 0:
        return np.zeros((1, k))
    scale = optimal.total
    rows, right = _row_space(optimal.atoms, optimal.fit / scale, r)
    column_error = optimal.accuracy * float(np.linalg.norm(rows, axis=0).max())
    found: dict[tuple[int, ...], FloatArray] = {}
    for subsets in _chunks(k, r):
        matrices = np.moveaxis(rows[:, subsets], 1, 0)
        least = np.linalg.svd(matrices, compute_uv=False)[:, -1]
        regular = least > column_error * np.sqrt(r)
        subsets, matrices, least = subsets[regular], matrices[regular], least[regular]
        if len(subsets) == 0:
            continue
        solutions = np.linalg.solve(
            matrices, np.broadcast_to(right[:, None], (len(subsets), r, 1))
        )[..., 0]
        # A weight is known up to the error of the columns times the inverse (the weights sum to one
        # here).
        errors = column_error / least
        for subset, solution, error in zip(subsets, solutions, errors, strict=True):
            if solution.min() < -error:
                continue
            support = tuple(int(s) for s in subset[solution > error])
            if support in found:
                continue
            part, *_ = np.linalg.lstsq(rows[:, list(support)], right, rcond=None)
            weights = np.zeros(k)
            weights[list(support)] = scale * part
            found[support] = weights
    return np.array([found[s] for s in sorted(found, key=lambda s: (len(s), s))])


def minimal_networks(optimal: OptimalSet, *, max_subsets: int = 1_000_000) -> tuple[Network, ...]:
    """Return all minimal optimal networks, those with the fewest neurons first.

    Parameters
    ----------
    optimal, max_subsets
        As for ``vertices``.

    Raises
    ------
    ValueError
        If ``max_subsets`` is too small.

    Examples
    --------
    >>> from theorylab.convex_relu import find_optimal_set, minimal_networks
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> [len(network.output_weights) for network in minimal_networks(find_optimal_set(X, y, 0.1))]
    [2]
    """
    return tuple(optimal.network(row) for row in vertices(optimal, max_subsets=max_subsets))


def _row_space(atoms: FloatArray, right: FloatArray, rank: int) -> tuple[FloatArray, FloatArray]:
    """Return the equations ``atoms @ c = right`` in coordinates of the column space: full row
    rank."""
    u = np.linalg.svd(atoms, full_matrices=False)[0][:, :rank]
    return u.T @ atoms, u.T @ right


def _chunks(k: int, r: int) -> Iterator[np.ndarray]:
    subsets = combinations(range(k), r)
    while block := list(islice(subsets, _CHUNK)):
        yield np.array(block, dtype=np.intp).reshape(len(block), r)
