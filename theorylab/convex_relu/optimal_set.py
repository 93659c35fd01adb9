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

from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from itertools import combinations, islice
from math import comb
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_instance, as_real
from theorylab.convex_relu._cones import ConeSearch
from theorylab.convex_relu._constraint import tight_leaves
from theorylab.convex_relu._dual_norm import rounding_slack
from theorylab.convex_relu._faces import (
    EPS,
    Neurons,
    atoms_of,
    cells_containing,
    curvature,
    locate,
    network_of,
    neurons_of,
    tangents,
)
from theorylab.convex_relu._network import Network, as_network
from theorylab.convex_relu._problem import as_patterns, as_problem, augment
from theorylab.convex_relu._reduction import Reduction, reduce_rows
from theorylab.convex_relu._rounds import TrainingStatus
from theorylab.convex_relu.arrangements import enumerate_arrangements
from theorylab.convex_relu.losses import Loss, Squared
from theorylab.convex_relu.training import Session, TrainingResult, train
from theorylab.numerics.results import result

__all__ = [
    "OptimalSet",
    "OptimalSetStatus",
    "PrunedOptimum",
    "Sensitivity",
    "SensitivityStatus",
    "find_optimal_set",
    "is_minimal",
    "minimal_networks",
    "optimal_pruning",
    "sensitivity",
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
        "a direction not counted as active has a slack within ten times the accuracy "
        "of the dual point; "
        "the problem is nearly degenerate, or tol is too large"
    )


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
        if self.next_slack < 10.0 * self.accuracy:
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
    session = Session(X, y, loss=chosen, arrangements=arrangements, bias=bias, tol=tol)
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
    horizon = np.inf
    if patterns is None:
        horizon = 9e-7
        patterns = _promising_cells(reduce_rows(data), data, v, beta)
    values, directions, signs = _cell_maximisers(ConeSearch(data, patterns), v, beta)
    minimal = neurons_of(data, optimal_pruning(X, training.network, bias=bias).network, bias)
    distance = _newton_distance(minimal, v, chosen, y, beta)
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
    directions, signs, values = _distinct(
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
        weights=_assign(neurons_of(data, training.network, bias), directions, signs),
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


def is_minimal(
    X: ArrayLike, network: Network | tuple[ArrayLike, ArrayLike], *, bias: bool = False
) -> bool:
    """Return whether the outputs of the network's neurons on the data are linearly independent.

    For an optimal network: whether no proper subset of its neurons, with any weights, is optimal.

    Parameters
    ----------
    X
        Data, shape (n, d).
    network
        A ``Network`` with one output, or the pair of its weights (m, d) and output weights (m,).
    bias
        Whether the network may have biases.

    Raises
    ------
    ValueError
        For malformed data or a network of the wrong shape.

    Notes
    -----
    mishkin2023-optimal, pruning.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import is_minimal, Network
    >>> twice = Network(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, 1.0]))
    >>> is_minimal([[1.0, 0.5], [-0.5, 1.0]], twice)
    False
    """
    neurons = _as_neurons(X, network, bias)
    return _null_vector(neurons.atoms) is None


@result
class PrunedOptimum:
    """A pruned network and the way to it.

    Parameters
    ----------
    network
        Its neurons have linearly independent outputs on the data.
    n_neurons
        Number of neurons before the first and after every step.
    penalties
        Sum of the weights then.
    """

    network: Network
    n_neurons: tuple[int, ...]
    penalties: tuple[float, ...]

    @property
    def n_steps(self) -> int:
        """Number of steps, at most the nullity of the first network's outputs."""
        return len(self.n_neurons) - 1


def optimal_pruning(
    X: ArrayLike, network: Network | tuple[ArrayLike, ArrayLike], *, bias: bool = False
) -> PrunedOptimum:
    """Remove neurons one linear relation at a time, without changing the outputs on the data or
    raising the penalty.

    Parameters
    ----------
    X, network, bias
        As for ``is_minimal``.

    Returns
    -------
    PrunedOptimum
        A network whose neurons have linearly independent outputs, at most ``rank <= n`` of them. If
        the network was optimal the penalty stays the same and the result is a minimal optimal
        network.

    Raises
    ------
    ValueError
        For malformed data or a network of the wrong shape.

    Notes
    -----
    mishkin2023-optimal, optimal pruning. The move goes along a null vector of the outputs of the
    unit neurons, in the direction in which the sum of the weights does not grow, until a weight
    vanishes.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import Network, optimal_pruning
    >>> twice = Network(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, 1.0]))
    >>> len(optimal_pruning([[1.0, 0.5], [-0.5, 1.0]], twice).network.output_weights)
    1
    """
    neurons = _as_neurons(X, network, bias)
    units, signs, atoms, c = (
        neurons.points / neurons.lengths[:, None],
        neurons.signs,
        neurons.atoms,
        neurons.lengths,
    )
    counts, penalties = [c.size], [float(c.sum())]
    while (null := _null_vector(atoms)) is not None:
        if null.sum() > 0.0 or (null.min() >= 0.0):
            null = -null
        falling = null < 0.0
        step = float(np.min(c[falling] / -null[falling]))
        # The weights that reach zero do so together up to the rounding of the move.
        c = c + step * null
        keep = c > 4.0 * EPS * max(float(c.max()), 0.0) * c.size
        c, units, signs, atoms = c[keep], units[keep], signs[keep], atoms[:, keep]
        counts.append(c.size)
        penalties.append(float(c.sum()))
    root = np.sqrt(c)
    return PrunedOptimum(
        network_of(units * root[:, None], signs * root, bias), tuple(counts), tuple(penalties)
    )


class SensitivityStatus(StrEnum):
    """Whether the derivative is determined."""

    REGULAR = "the optimality conditions on the current faces determine the derivative"
    SINGULAR = (
        "the optimality conditions on the current faces are singular (dependent "
        "neurons or dependent tied rows); "
        "the derivative returned is one of least norm"
    )


@result
class Sensitivity:
    """Derivative of an optimum in one direction of the data.

    Parameters
    ----------
    points, signs
        Neurons ``p_j = |a_j| u_j``, shape (m, d), and their signs, shape (m,).
    d_points
        Derivatives of the points, shape (m, d).
    d_fit
        Derivative of the outputs, shape (n,).
    d_objective, d_penalty
        Derivatives of the optimal value and of the penalty ``sum_j |p_j|``.
    margin
        How far, relative to ``beta`` or to the neurons, the faces are from changing: the least of
        the distances of the ties' multipliers from the ends of their intervals. Zero means that the
        derivative is one-sided.
    status
        Whether the derivative is determined.
    """

    points: FloatArray
    signs: FloatArray
    d_points: FloatArray
    d_fit: FloatArray
    d_objective: float
    d_penalty: float
    margin: float
    status: SensitivityStatus


def sensitivity(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    d_X: ArrayLike | None = None,
    d_y: ArrayLike | None = None,
    d_beta: float = 0.0,
    network: Network | tuple[ArrayLike, ArrayLike] | None = None,
    loss: str | Loss = "squared",
    bias: bool = False,
) -> Sensitivity:
    """Differentiate the optimal network along ``(X + t d_X, y + t d_y, beta + t d_beta)`` at t = 0.

    Parameters
    ----------
    X, y, beta
        The problem; one output.
    d_X, d_y, d_beta
        The direction; zero by default. ``d_y`` needs the squared loss.
    network
        A minimal optimal network; by default the one that training and pruning give.
    loss, bias
        As for ``train``; a smooth loss.

    Returns
    -------
    Sensitivity
        Derivatives of the neurons, the outputs, the value and the penalty.

    Raises
    ------
    ValueError
        For malformed arguments, a loss that is not smooth, or a network that is not stationary.

    Notes
    -----
    mishkin2023-optimal, sensitivity; the formula is derived. On the faces ``B_j p_j = 0`` the
    optimum solves ``-s_j X.T D_j v + beta p_j/|p_j| + B_j.T lam_j = 0`` with ``v = -L'(sum_j s_j
    D_j X p_j)``; differentiating both gives a linear system whose matrix is the Hessian on the
    faces, ``A.T L'' A + beta blkdiag(I - p p.T/|p|^2)/|p|``. The ties hold while ``0 < lam_jk <
    -s_j v_k``. A neuron that is about to appear elsewhere is not seen here, but by
    ``find_optimal_set(...).next_slack``.

    Examples
    --------
    >>> from theorylab.convex_relu import sensitivity
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> change = sensitivity(X, y, 0.1, d_beta=1.0)
    >>> round(change.d_objective, 4), round(change.d_penalty, 4)
    (1.2866, -1.7441)
    """
    X, y, beta, chosen = as_problem(X, y, beta, loss)
    bias = as_flag(bias, "bias")
    if y.ndim != 1:
        raise ValueError(f"y: expected one output, shape ({X.shape[0]},), got {y.shape}")
    if not chosen.smooth:
        raise ValueError(f"loss: expected a smooth loss, got {chosen.name}")
    n = X.shape[0]
    d_data = np.zeros_like(X) if d_X is None else as_array(d_X, "d_X", shape=X.shape)
    if bias:
        d_data = np.column_stack([d_data, np.zeros(n)])
    d_target = np.zeros(n) if d_y is None else as_array(d_y, "d_y", shape=(n,))
    if np.any(d_target) and not isinstance(chosen, Squared):
        raise ValueError(f"d_y: expected zero for the {chosen.name} loss, whose labels are fixed")
    d_beta = as_real(d_beta, "d_beta")
    given = (
        optimal_pruning(
            X, train(X, y, beta, loss=chosen, bias=bias, tol=1e-9).network, bias=bias
        ).network
        if network is None
        else as_network(network, X, y)
    )
    neurons = neurons_of(augment(X, bias), given, bias)
    fit = neurons.fit
    v = -chosen.gradient(fit, y)
    multipliers, residual = _multipliers(neurons, v, beta)
    # Training stops at a reduced gradient of 1e-9 beta, summed over the norms of n rows.
    if residual > 1e-6 * beta:
        raise ValueError(
            "network: expected a stationary network, got one whose gradient on its "
            f"faces is {residual / beta:.1e} beta"
        )
    return _implicit_derivative(
        neurons, v, chosen.curvature(fit, y), beta, multipliers, d_data, d_target, d_beta
    )


def _as_neurons(
    X: ArrayLike, network: Network | tuple[ArrayLike, ArrayLike], bias: bool
) -> Neurons:
    X = as_array(X, "X", ndim=2)
    bias = as_flag(bias, "bias")
    checked = as_network(network, X, np.zeros(X.shape[0]))
    if not bias and np.any(checked.biases):
        raise ValueError("network: expected no biases without bias=True, got non-zero ones")
    if np.any(checked.linear) or np.any(checked.offset):
        raise ValueError("network: expected no skip connection, got one")
    return neurons_of(augment(X, bias), checked, bias)


def _newton_distance(
    neurons: Neurons, v: FloatArray, loss: Loss, y: FloatArray, beta: float
) -> float:
    """Bound how far ``v`` is from that of the exact stationary point on the same faces, or return
    infinity.

    In the norm of the Hessian, where a step has length at most r / sqrt(mu) for a gradient r and
    least eigenvalue mu, there is a stationary point within twice a step if third derivatives are
    there at most one over that (Newton-Kantorovich). Short neurons bend much, but are held as
    firmly: in this norm only their lengths are free."""
    if neurons.signs.size == 0:
        return 0.0
    bases = tangents(neurons)
    jacobian, hessian = curvature(neurons, bases, loss.curvature(neurons.fit, y), beta)
    _, gradient = _multipliers(neurons, v, beta)
    # The products that the gradient sums are rounded.
    gradient += EPS * float(np.abs(v) @ np.linalg.norm(neurons.data, axis=1))
    # What is left of the conditions where neurons and v are not quite consistent.
    offset = v + loss.gradient(neurons.fit, y)
    residual = gradient * np.sqrt(neurons.signs.size) + float(np.linalg.norm(jacobian.T @ offset))
    values, vectors = np.linalg.eigh(hessian)
    if values[0] <= 0.0:
        return np.inf
    root = vectors / np.sqrt(values)
    inverse = root @ root.T
    step = 2.0 * residual / float(np.sqrt(values[0]))
    # Third derivatives of beta |p|: at most 3 beta / |p|^2 times the part of a unit step along p
    # and the square of that across, on the ball of steps, where |p| stays above half the length.
    third, at = 0.0, 0
    for point, length, basis in zip(neurons.points, neurons.lengths, bases, strict=True):
        block = inverse[at : at + basis.shape[1], at : at + basis.shape[1]]
        at += basis.shape[1]
        unit = basis.T @ point / length
        reach = float(np.sqrt(np.linalg.norm(block, 2)))
        if step * reach > 0.5 * length:
            return np.inf
        turned = 2.0 * step * reach**2 / length
        along, across = float(np.sqrt(unit @ block @ unit)), float(np.sqrt(length / beta))
        third += 12.0 * beta / length**2 * (along + turned) * (across + turned) ** 2
    if not isinstance(loss, Squared):
        # Those of the loss are at most its curvature bound.
        third += loss.curvature_bound * float(np.linalg.norm(jacobian @ root, 2)) ** 3
    # From -L'(fit) v moves by dv with |dv|^2 <= L |dv @ A dp| (cocoercivity) <= L |gradient @ dp|,
    # the penalty being convex: less than sqrt(L) times a step.
    distance = float(np.linalg.norm(offset)) + float(np.sqrt(loss.curvature_bound)) * step
    return distance if third * step <= 1.0 else np.inf


def _promising_cells(
    reduction: Reduction, data: FloatArray, v: FloatArray, beta: float
) -> BoolArray:
    """Return the patterns of all cells on which ``|v @ relu(X u)|`` may exceed ``(1 - 9e-7) beta``.

    Such a u lies in a leaf of the covering with little slack, and close to the leaf's majorant w:
    ``(1 - 9e-7) beta <= w @ u``, ``|w| <= beta``."""
    threshold = beta * (1.0 + max(1e-9, rounding_slack(reduction.data, v, beta)))
    found = []
    for sign in (1.0, -1.0):
        if reduction.data.shape[1] == 0:
            break
        point, linear = reduction.condense(sign * v)
        leaves, *_ = tight_leaves(reduction.lines, point, linear, threshold, 10_000_000)
        if leaves is None:
            return enumerate_arrangements(data)
        majorants = leaves[1] @ reduction.basis
        majorants /= np.linalg.norm(majorants, axis=1, keepdims=True)
        sides = locate(data, majorants, np.full(len(majorants), sign))
        near = np.abs(majorants @ data.T) <= 2e-3 * np.linalg.norm(data, axis=1)
        found += [
            cells_containing(data, active & ~tied, tied)
            for active, tied in zip(sides.active, near, strict=True)
        ]
    if not found:
        return np.ones((1, len(v)), dtype=bool)
    return np.unique(np.vstack(found), axis=0)


def _cell_maximisers(
    search: ConeSearch, v: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the maxima of ``s v @ relu(X u)`` over the cells that exceed beta / 2, their unit
    maximisers and signs."""
    values, directions, signs = [], [], []
    for s in (1, -1):
        found, nearest = search(v, s, 0.5 * beta)
        keep = found > 0.5 * beta
        values.append(found[keep])
        directions.append(nearest[keep] / found[keep, None])
        signs.append(np.full(int(keep.sum()), float(s)))
    return np.concatenate(values), np.concatenate(directions), np.concatenate(signs)


def _distinct(
    directions: FloatArray, signs: FloatArray, values: FloatArray, tolerance: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Keep one of the directions that several cells share."""
    keep: list[int] = []
    for k in range(len(signs)):
        same = [
            j
            for j in keep
            if signs[j] == signs[k] and np.linalg.norm(directions[j] - directions[k]) <= tolerance
        ]
        if not same:
            keep.append(k)
        elif values[k] > values[same[0]]:
            keep[keep.index(same[0])] = k
    return directions[keep], signs[keep], values[keep]


def _assign(neurons: Neurons, directions: FloatArray, signs: FloatArray) -> FloatArray:
    """Return the weights of a network on the directions: each neuron counts for the nearest
    direction of its sign."""
    weights = np.zeros(len(signs))
    for point, sign, length in zip(neurons.points, neurons.signs, neurons.lengths, strict=True):
        alignment = np.where(signs == sign, directions @ point, -np.inf)
        weights[int(np.argmax(alignment))] += length
    return weights


def _row_space(atoms: FloatArray, right: FloatArray, rank: int) -> tuple[FloatArray, FloatArray]:
    """Return the equations ``atoms @ c = right`` in coordinates of the column space: full row
    rank."""
    u = np.linalg.svd(atoms, full_matrices=False)[0][:, :rank]
    return u.T @ atoms, u.T @ right


def _chunks(k: int, r: int) -> Iterator[np.ndarray]:
    subsets = combinations(range(k), r)
    while block := list(islice(subsets, _CHUNK)):
        yield np.array(block, dtype=np.intp).reshape(len(block), r)


def _null_vector(atoms: FloatArray) -> FloatArray | None:
    """Return a unit vector with ``atoms @ null = 0`` up to rounding, or None if the columns are
    independent."""
    n, m = atoms.shape
    if m == 0:
        return None
    _, s, vt = np.linalg.svd(atoms, full_matrices=m > n)
    # Trained neurons carry errors of a thousand units in the last place.
    if m <= n and s[-1] > 1e3 * (n + m) * EPS * s[0]:
        return None
    null: FloatArray = vt[-1]
    return null


def _multipliers(neurons: Neurons, v: FloatArray, beta: float) -> tuple[list[FloatArray], float]:
    """Return the multipliers of the ties of every neuron, and the largest gradient on the faces."""
    multipliers, worst = [], 0.0
    for p, s, active, tied in zip(
        neurons.points, neurons.signs, neurons.active, neurons.tied, strict=True
    ):
        force = s * neurons.data[active].T @ v[active] - beta * p / np.linalg.norm(p)
        rows = neurons.data[tied]
        lam, *_ = np.linalg.lstsq(rows.T, force, rcond=None) if len(rows) else (np.zeros(0),)
        multipliers.append(lam)
        worst = max(worst, float(np.linalg.norm(force - rows.T @ lam)))
    return multipliers, worst


def _implicit_derivative(
    neurons: Neurons,
    v: FloatArray,
    second: FloatArray,
    beta: float,
    multipliers: list[FloatArray],
    d_data: FloatArray,
    d_target: FloatArray,
    d_beta: float,
) -> Sensitivity:
    bases = tangents(neurons)
    jacobian, hessian = curvature(neurons, bases, second, beta)
    data, lengths = neurons.data, neurons.lengths
    units = neurons.points / lengths[:, None]
    m = len(lengths)
    # What the faces' own motion does: B w = -dB p keeps the ties.
    follow = np.zeros_like(neurons.points)
    explicit = np.zeros(len(v))
    regular = True
    for j in range(m):
        rows, d_rows = data[neurons.tied[j]], d_data[neurons.tied[j]]
        if len(rows):
            follow[j] = np.linalg.lstsq(rows, -d_rows @ neurons.points[j], rcond=None)[0]
            regular = regular and len(rows) == data.shape[1] - bases[j].shape[1]
        explicit += (
            neurons.signs[j] * neurons.active[j] * (data @ follow[j] + d_data @ neurons.points[j])
        )
    # The loss is smooth in its output only; for the squared loss targets enter as -L'' d_y.
    pull = second * explicit - d_target
    right, envelope = [], d_beta * float(lengths.sum()) + float(v @ d_target)
    for j in range(m):
        s, active, tied = neurons.signs[j], neurons.active[j], neurons.tied[j]
        force = (
            s * d_data[active].T @ v[active]
            - s * data[active].T @ pull[active]
            - d_beta * units[j]
            - d_data[tied].T @ multipliers[j]
        )
        right.append(bases[j].T @ force)
        envelope += float(
            -s * v[active] @ (d_data[active] @ neurons.points[j])
            + multipliers[j] @ (d_data[tied] @ neurons.points[j])
        )
    step = np.zeros(0)
    if m:
        values = np.linalg.eigvalsh(hessian)
        regular = regular and bool(values[0] > 1e3 * len(values) * EPS * values[-1])
        step = np.linalg.lstsq(hessian, np.concatenate(right), rcond=None)[0]
    d_points, at = follow.copy(), 0
    for j in range(m):
        size = bases[j].shape[1]
        d_points[j] += bases[j] @ step[at : at + size]
        at += size
    margin = np.inf
    for s, tied, lam in zip(neurons.signs, neurons.tied, multipliers, strict=True):
        if lam.size:
            room = np.minimum(lam, -s * v[tied] - lam) * np.linalg.norm(data[tied], axis=1) / beta
            margin = min(margin, float(room.min()))
    return Sensitivity(
        points=neurons.points,
        signs=neurons.signs,
        d_points=d_points,
        d_fit=explicit + jacobian @ step,
        d_objective=envelope,
        d_penalty=float(np.sum(units * d_points)),
        margin=margin,
        status=SensitivityStatus.REGULAR if regular else SensitivityStatus.SINGULAR,
    )
