r"""Certificates of global optimality for two-layer ReLU networks.

For any dual point $v$ with $\max_{\|u\|\le1}|v^\top(Xu)_+|\le\beta$ the number
$-L^*(-v)$ is a lower bound of

$$p^\star=\min\;L\Big(\sum_j(Xu_j)_+a_j\Big)+\frac\beta2\sum_j\big(\|u_j\|^2+a_j^2\big),$$

so a network and a dual point prove each other's quality. The constraint is decided over the whole
sphere, that is over all cells and faces of the arrangement of $X$: by a covering with cones
up to rank four and by branching on the signs of rows above.
For a list of patterns D the constraint is $\|\Pi_K(\pm X^\top Dv)\|\le\beta$,
$K=\{u:(2D-I)Xu\ge0\}$, and bounds the networks with neurons in those cones.

``Certificate.verify`` repeats everything from the data, the network and the dual point: values in
ball arithmetic, the constraint with a bound on every rounding error, and all places where it is
nearly tight (a relative slack below 1e-6) in rational arithmetic.

Rows may be nearly dependent: with any matrix B of norm at most $1+\delta$ and any $\hat
X$, $h_v(u)\le(1+\delta)\max\hat h_v+\sum_i|v_i|\,\|x_i-B^\top\hat x_i\|$, so a rank-deficient
problem is decided in its row space and the remainder is added to the bound."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real
from theorylab.convex_relu._branching import leaf_holds, search_branches
from theorylab.convex_relu._cones import project
from theorylab.convex_relu._covering import cover
from theorylab.convex_relu._relaxation import root_bound
from theorylab.convex_relu.losses import Loss, as_loss
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result

__all__ = [
    "Certificate",
    "DualNorm",
    "Network",
    "Rejection",
    "Verification",
    "certify",
    "dual_norm",
]

BoolArray = NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)
# Relative steps above the largest value found that are tried where a search did not end.
_LOOSER = (1.0, 0.3, 0.1, 0.03)
_PRECISION = 160


@result
class Network:
    """A two-layer ReLU network ``f(x) = relu(weights @ x + biases) @ output_weights + x @ linear +
    offset``.

    Parameters
    ----------
    weights
        First layer, shape (m, d); m may be zero.
    output_weights
        Second layer, shape (m,), or (m, K) for K outputs.
    biases
        Shape (m,), zero by default.
    linear, offset
        Skip connection, shape (d,) or (d, K), and its constant, shape () or (K,); zero by default.

    Raises
    ------
    ValueError
        If a shape does not fit or an entry is not finite.
    """

    weights: FloatArray
    output_weights: FloatArray
    # None stands for zeros of the right shape until __post_init__ has run.
    biases: FloatArray = None  # type: ignore[assignment]
    linear: FloatArray = None  # type: ignore[assignment]
    offset: FloatArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        weights = as_array(self.weights, "weights", ndim=2, allow_empty=True)
        m, d = weights.shape
        output = as_array(self.output_weights, "output_weights", allow_empty=True)
        if output.ndim not in (1, 2) or output.shape[0] != m:
            raise ValueError(
                f"output_weights: expected shape ({m},) or ({m}, K), got {output.shape}"
            )
        outputs = output.shape[1:]
        for name, shape, given in (
            ("biases", (m,), self.biases),
            ("linear", (d, *outputs), self.linear),
            ("offset", outputs, self.offset),
        ):
            value = (
                np.zeros(shape)
                if given is None
                else as_array(given, name, shape=shape, allow_empty=True)
            )
            object.__setattr__(self, name, value)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "output_weights", output)

    def __call__(self, X: ArrayLike) -> FloatArray:
        """Return the outputs on data of shape (n, d)."""
        X = as_array(X, "X", shape=(None, self.weights.shape[1]))
        hidden = np.maximum(X @ self.weights.T + self.biases, 0.0)
        result: FloatArray = hidden @ self.output_weights + X @ self.linear + self.offset
        return result

    @property
    def n_neurons(self) -> int:
        """Number of hidden neurons."""
        return int(self.weights.shape[0])

    @property
    def penalty(self) -> float:
        """Half the sum of ``|u_j|^2 + b_j^2 + |a_j|^2``, with the l1 norm of a_j where there are
        several outputs."""
        output = np.abs(_columns(self.output_weights)).sum(axis=1)
        return 0.5 * float(
            np.sum(self.weights**2) + np.sum(np.square(self.biases)) + np.sum(output**2)
        )

    def state_dict(self) -> dict[str, FloatArray]:
        """Return the weights as plain arrays, named and laid out (rows are outputs) as those of a
        PyTorch module with linear layers hidden, output (no bias) and skip.

        Examples
        --------
        >>> from theorylab.convex_relu import Network
        >>> network = Network([[1.0, 2.0]], [3.0])
        >>> [(name, array.shape) for name, array in network.state_dict().items()][:3]
        [('hidden.weight', (1, 2)), ('hidden.bias', (1,)), ('output.weight', (1, 1))]
        """
        linear = self.linear.reshape(self.weights.shape[1], -1)
        return {
            "hidden.weight": self.weights,
            "hidden.bias": self.biases,
            "output.weight": _columns(self.output_weights).T,
            "skip.weight": linear.T,
            "skip.bias": np.atleast_1d(self.offset),
        }


class Rejection(StrEnum):
    """What is wrong with a certificate."""

    NONE = "accepted"
    OBJECTIVE = "the stated objective is not the network's"
    DUAL_OBJECTIVE = "the stated dual objective is not that of the dual point"
    DOMAIN = "the dual point lies outside the domain of the loss's conjugate"
    CONSTRAINT = "the dual constraint is violated, or could not be proved"
    PATTERNS = "a neuron lies in none of the cones of the given patterns"


@result
class Verification:
    """Outcome of a verification; true if the certificate was accepted.

    Parameters
    ----------
    accepted
        Whether every check succeeded.
    reason
        The check that failed.
    objective, dual_objective
        Rigorous upper bound of the network's value and lower bound of the optimum (nan where not
        reached).
    n_cones, n_exact
        Nodes of the search, or projections, and how many leaves or projections were confirmed in
        rational arithmetic: all those with a relative slack below 1e-6. The others rest on float64
        with a bound on every rounding error, and on the code of the search.
    """

    accepted: bool
    reason: Rejection
    objective: float
    dual_objective: float
    n_cones: int = 0
    n_exact: int = 0

    def __bool__(self) -> bool:
        return self.accepted

    @property
    def gap(self) -> float:
        """Rigorous relative gap."""
        return relative_gap(self.objective, self.dual_objective)


@result
class DualNorm:
    """The dual norm ``max_{|u| <= 1} |v @ relu(X u)|``.

    Parameters
    ----------
    value
        Rigorous upper bound.
    attained
        Value at ``direction``, a lower bound.
    direction
        Unit vector, shape (d,); zero if the norm is zero.
    sign
        Sign of ``v @ relu(X @ direction)``.
    exact
        Whether the bounds agree up to the tolerance asked for.
    """

    value: float
    attained: float
    direction: FloatArray
    sign: int
    exact: bool


@result
class Certificate:
    """A network, a dual point, and the problem for which they prove each other's quality.

    Parameters
    ----------
    X, y, beta, loss, bias, skip, patterns
        The problem, as given to ``train``.
    network
        The network.
    dual
        Dual point, shape of ``y``.
    objective, dual_objective
        Values of the two.
    """

    X: FloatArray
    y: FloatArray
    beta: float
    loss: Loss
    bias: bool
    skip: bool
    patterns: BoolArray | None
    network: Network
    dual: FloatArray
    objective: float
    dual_objective: float

    @property
    def gap(self) -> float:
        """Relative duality gap; values below the rounding error of the loss at zero count as that
        error.

        Raises
        ------
        ArithmeticError
            If the dual value exceeds the objective by more than the rounding of both.
        """
        at_zero = self.loss.value(np.zeros_like(self.y), self.y)
        rounding = _dual_error(self.dual, self.y, self.loss) + _value_error(
            self.network, self.X, self.y, self.beta, self.loss
        )
        return relative_gap(
            self.objective,
            self.dual_objective,
            floor=_EPS * at_zero if np.isfinite(at_zero) else 0.0,
            rounding=rounding,
        )

    def unrestricted(self, *, max_nodes: int | None = None) -> Certificate:
        """Return the certificate of the same network over all activation patterns.

        Parameters
        ----------
        max_nodes
            Nodes spent on deciding the dual constraint, by default about a third of a second;
            beyond that looser thresholds and the semidefinite bound of the root are used.

        Raises
        ------
        ValueError
            If the count is below one.
        """
        budget = as_budget(max_nodes)
        if budget is None:
            budget = node_budget(reduce_rows(augment(self.X, self.bias)), None) // 50
        return _certificate(
            self.X,
            self.y,
            self.beta,
            self.loss,
            self.bias,
            self.skip,
            None,
            self.network,
            self.dual,
            budget,
        )

    def verify(self, *, max_nodes: int | None = None) -> Verification:
        """Check everything from scratch, rigorously.

        Parameters
        ----------
        max_nodes
            Largest number of nodes of a search, per sign; by default about a quarter of a minute.

        Returns
        -------
        Verification
            True if accepted; otherwise it says which check failed.

        Raises
        ------
        ValueError
            If an array of the certificate is malformed.
        """
        return _verify(self, as_budget(max_nodes))


def certify(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    network: Network | tuple[ArrayLike, ArrayLike],
    *,
    loss: str | Loss = "squared",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    skip: bool = False,
    dual: ArrayLike | None = None,
    max_nodes: int | None = None,
) -> Certificate:
    """Bound the suboptimality of any network.

    Parameters
    ----------
    X, y, beta, loss, arrangements, bias, skip
        The problem, as for ``train``.
    network
        A ``Network`` or the pair of its weights (m, d) and output weights (m,).
    dual
        Dual point to use, shape of ``y``; scaled into the constraint. By default minus the loss's
        derivative at the network's outputs, which is optimal where the network is. The dual point
        of a trained solution gives the exact suboptimality.
    max_nodes
        Nodes spent on the dual constraint, by default about a quarter of a minute; if they do not
        suffice, as many are spent on looser thresholds and the gap is loose.

    Returns
    -------
    Certificate
        With ``objective``, ``dual_objective``, ``gap`` and ``verify()``.

    Raises
    ------
    ValueError
        For malformed data, a non-positive ``beta``, or a network of the wrong shape.

    Notes
    -----
    bai2022-efficient, Section 2 (the convex program and its dual); weak duality.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import certify, Network
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> certificate = certify(X, y, 0.1, Network(np.array([[1.0, 0.0]]), np.array([0.4])))
    >>> certificate.verify().accepted, certificate.dual_objective <= certificate.objective
    (True, True)
    """
    X, y, beta, chosen = as_problem(X, y, beta, loss)
    network = as_network(network, X, y)
    bias, skip = as_flag(bias, "bias"), as_flag(skip, "skip")
    if not bias and np.any(network.biases):
        raise ValueError("network: expected no biases without bias=True, got non-zero ones")
    if not skip and (np.any(network.linear) or np.any(network.offset)):
        raise ValueError("network: expected no skip connection without skip=True, got one")
    patterns = as_patterns(arrangements, X.shape[0])
    start = (
        -chosen.gradient(network(X), y) if dual is None else as_array(dual, "dual", shape=y.shape)
    )
    return _certificate(
        X, y, beta, chosen, bias, skip, patterns, network, start, as_budget(max_nodes)
    )


def dual_norm(
    X: ArrayLike,
    v: ArrayLike,
    *,
    arrangements: str | ArrayLike = "all",
    tol: float = 1e-10,
    max_nodes: int | None = None,
) -> DualNorm:
    """Compute ``max_{|u| <= 1} |v @ relu(X u)|`` with a rigorous upper bound.

    Parameters
    ----------
    X
        Data, shape (n, d).
    v
        Dual point, shape (n,).
    arrangements
        "all", or patterns of shape (P, n) to whose cones ``u`` is confined.
    tol
        Relative difference of the bounds.
    max_nodes
        Largest number of nodes, by default about a quarter of a minute. Where it does not
        suffice the upper bound is that of a semidefinite relaxation, or the least of 2, 1.3, 1.1
        and 1.03 times the largest value found that as many nodes again prove.

    Returns
    -------
    DualNorm
        Bounds and a maximiser.

    Raises
    ------
    ValueError
        For malformed data or a tolerance outside (0, 1).

    Examples
    --------
    >>> from theorylab.convex_relu import dual_norm
    >>> round(dual_norm([[1.0, 0.0], [0.0, 1.0]], [3.0, 4.0]).value, 6)
    5.0
    """
    X = as_array(X, "X", ndim=2)
    v = as_array(v, "v", shape=(X.shape[0],))
    patterns = as_patterns(arrangements, X.shape[0])
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    budget = as_budget(max_nodes)
    return (
        norm_over_sphere(reduce_rows(X), v, tol, budget)
        if patterns is None
        else norm_over_cones(X, v, patterns)
    )


# Validation shared with training.


def as_problem(
    X: ArrayLike, y: ArrayLike, beta: float, loss: str | Loss
) -> tuple[FloatArray, FloatArray, float, Loss]:
    """Validate data, targets, penalty and loss."""
    X = as_array(X, "X", ndim=2)
    y = as_array(y, "y")
    if y.ndim not in (1, 2) or y.shape[0] != X.shape[0]:
        raise ValueError(f"y: expected shape ({X.shape[0]},) or ({X.shape[0]}, K), got {y.shape}")
    chosen = as_loss(loss)
    chosen.check_labels(y)
    for name, values in (("X", X), ("y", y)):
        size = float(np.abs(values).max())
        if size > 0.0 and not 1e-140 <= size <= 1e140:
            raise ValueError(
                f"{name}: expected a largest entry between 1e-140 and 1e140, whose square is a "
                f"float64, got {size}"
            )
    return X, y, as_real(beta, "beta", above=0.0), chosen


def as_network(network: object, X: FloatArray, y: FloatArray) -> Network:
    """Validate a network against the data."""
    if isinstance(network, tuple) and len(network) == 2:
        weights = as_array(
            network[0], "network weights", shape=(None, X.shape[1]), allow_empty=True
        )
        network = Network(weights, as_array(network[1], "network output_weights", allow_empty=True))
    if not isinstance(network, Network):
        raise ValueError(
            "network: expected a Network or (weights, output_weights), got "
            f"{type(network).__name__}"
        )
    if network.weights.shape[1] != X.shape[1] or network.output_weights.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"network: expected weights (m, {X.shape[1]}) and output weights (m, "
            f"{', '.join(map(str, y.shape[1:]))}), "
            f"got {network.weights.shape} and {network.output_weights.shape}"
        )
    return network


def as_budget(max_nodes: int | None) -> int | None:
    """Validate a number of nodes, or None for the default."""
    return None if max_nodes is None else as_count(max_nodes, "max_nodes")


def as_patterns(
    arrangements: str | ArrayLike, n: int, name: str = "arrangements"
) -> BoolArray | None:
    """Return None for "all", else the validated patterns, shape (P, n)."""
    if isinstance(arrangements, str):
        if arrangements != "all":
            raise ValueError(
                f"{name}: expected 'all' or patterns of shape (P, {n}), got {arrangements!r}"
            )
        return None
    values = as_array(arrangements, name, shape=(None, n))
    if not np.all((values == 0.0) | (values == 1.0)):
        raise ValueError(f"{name}: expected entries 0 and 1, got others")
    return np.ascontiguousarray(values == 1.0)


def _columns(values: FloatArray) -> FloatArray:
    """View a vector as one column."""
    return values[:, None] if values.ndim == 1 else values


def augment(X: FloatArray, bias: bool) -> FloatArray:
    """Append the column of ones whose weight is the penalised bias."""
    return np.ascontiguousarray(np.column_stack([X, np.ones(X.shape[0])])) if bias else X


# Row space.


@dataclass(frozen=True)
class Reduction:
    """Coordinates of the row space, and what is lost by using them.

    Parameters
    ----------
    data
        Reduced data, shape (n, r).
    basis
        Shape (r, d): a reduced direction s stands for ``basis.T @ s``.
    remainder
        Bounds of ``|x_i - basis.T @ data_i|``, shape (n,).
    excess
        Bound of the basis's norm minus one.
    lines, index, ratio
        One row of ``data`` for every line that its rows span, shape (m, r), and ``data[i] =
        ratio[i] * lines[index[i]]`` up to an error that is part of the remainder.
    """

    data: FloatArray
    basis: FloatArray
    remainder: FloatArray
    excess: float
    lines: FloatArray
    index: NDArray[np.intp]
    ratio: FloatArray

    def condense(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return V and l with ``h_v(u) = V @ relu(lines @ u) + l @ u``, by ``relu(-z) = relu(z) -
        z``.

        A kink that is convex in one row and concave in another of the same line is one kink of
        their sum."""
        if len(self.lines) == len(v):
            return v, np.zeros(self.lines.shape[1])
        weight = v * np.abs(self.ratio)
        total, opposite = np.zeros(len(self.lines)), np.zeros(len(self.lines))
        np.add.at(total, self.index, weight)
        np.add.at(opposite, self.index, np.where(self.ratio < 0.0, -weight, 0.0))
        return total, opposite @ self.lines

    def loss(self, v: FloatArray) -> float:
        """Bound the difference of the full and the reduced h on unit vectors."""
        n, d = self.remainder.size, self.basis.shape[1]
        result = float(np.abs(v) @ self.remainder)
        if len(self.lines) < n:
            # Rounding of the condensed sums.
            result += 4.0 * (n + d) * _EPS * float(np.abs(v) @ np.linalg.norm(self.data, axis=1))
        return float(result * (1.0 + (n + d) * _EPS))

    def enlarge(self, v: FloatArray, norm: float) -> float:
        """Return what the full maximum is at most if the reduced one is at most ``norm``."""
        return float((norm * (1.0 + self.excess) + self.loss(v)) * (1.0 + 4.0 * _EPS))

    def threshold(self, v: FloatArray, beta: float) -> float:
        """Return what the reduced maximum must not exceed so that the full one is at most
        ``beta``."""
        return float((beta - self.loss(v)) / (1.0 + self.excess) * (1.0 - 4.0 * _EPS))


def reduce_rows(X: FloatArray) -> Reduction:
    """Return the row space of X up to rounding; the identity where X has full column rank."""
    n, d = X.shape
    _, s, vt = np.linalg.svd(X, full_matrices=False)
    rank = int(np.sum(s > 4.0 * max(n, d) * _EPS * s[0])) if s[0] > 0.0 else 0
    if rank == d:
        data, basis, remainder, excess = X, np.eye(d), np.zeros(n), 0.0
    else:
        basis = np.ascontiguousarray(vt[:rank])
        data = np.ascontiguousarray(X @ basis.T)
        lengths = np.linalg.norm(X, axis=1) + np.linalg.norm(data, axis=1)
        # Computed differences plus the rounding of the product and of the norms.
        remainder = np.linalg.norm(X - data @ basis, axis=1) + 4.0 * (d + rank) * _EPS * lengths
        excess = (
            float(np.linalg.norm(basis @ basis.T - np.eye(rank))) + 4.0 * (d + rank) ** 2 * _EPS
        )
    index, ratio, error = _group_lines(data)
    lines = np.ascontiguousarray(data[np.unique(index)])
    return Reduction(
        data,
        basis,
        remainder + error,
        excess,
        lines,
        np.searchsorted(np.unique(index), index),
        ratio,
    )


def _group_lines(data: FloatArray) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Return, for every row, a row on its line, their ratio, and a bound of the difference."""
    n, d = data.shape
    index, ratio, error = np.arange(n), np.ones(n), np.zeros(n)
    lengths = np.linalg.norm(data, axis=1)
    nonzero = np.flatnonzero(lengths)
    if d == 0 or nonzero.size == 0:
        return index, ratio, error
    unit = data[nonzero] / lengths[nonzero, None]
    keys = np.abs(unit @ np.random.default_rng(0).standard_normal(d))
    order = np.argsort(keys)
    close = 64.0 * (d + 4) * _EPS
    run: list[int] = []
    for k, previous in zip(order, np.concatenate([[-1], order[:-1]]), strict=True):
        if previous < 0 or keys[k] - keys[previous] > close:
            run = []
        i = int(nonzero[k])
        for j in run:
            c = float(data[i] @ data[j]) / lengths[j] ** 2
            difference = float(np.linalg.norm(data[i] - c * data[j]))
            if difference <= close * lengths[i]:
                index[i], ratio[i] = j, c
                error[i] = difference + 4.0 * (d + 4) * _EPS * lengths[i]
                break
        else:
            run.append(i)
    zero = np.flatnonzero(lengths == 0.0)
    index[zero], ratio[zero] = int(nonzero[0]), 0.0
    return index, ratio, error


# The dual norm.


@compiled
def ascend(X: FloatArray, v: FloatArray, u: FloatArray, max_iter: int) -> float:
    """Improve a unit direction by steps towards the gradient's direction while ``h_v`` grows;
    return the value."""
    n, d = X.shape
    g = np.zeros(d)
    h = np.empty(d)
    trial = u.copy()
    best = -np.inf
    step = 1.0
    for _ in range(max_iter):
        value = 0.0
        for a in range(d):
            h[a] = 0.0
        for i in range(n):
            s = 0.0
            for a in range(d):
                s += X[i, a] * trial[a]
            if s > 0.0:
                value += v[i] * s
                for a in range(d):
                    h[a] += v[i] * X[i, a]
        if value > best:
            gain = value - best
            best = value
            length = 0.0
            for a in range(d):
                u[a] = trial[a]
                g[a] = h[a]
                length += g[a] * g[a]
            length = np.sqrt(length)
            if length == 0.0 or gain <= 1e-12 * best:
                break
            for a in range(d):
                g[a] /= length
        else:
            step *= 0.25
            if step < 1e-3:
                break
        length = 0.0
        for a in range(d):
            trial[a] = u[a] + step * (g[a] - u[a])
            length += trial[a] * trial[a]
        length = np.sqrt(length)
        if length == 0.0:
            break
        for a in range(d):
            trial[a] /= length
    return best


def node_budget(reduction: Reduction, max_nodes: int | None) -> int:
    """Return the budget of one search, by default one of about a quarter of a minute."""
    if max_nodes is not None:
        return max_nodes
    m, d = reduction.lines.shape
    return max(250_000_000 // max(m * d, 1), 1000) if _branching_wins(m, d) else 1_500_000


def _branching_wins(m: int, d: int) -> bool:
    """Whether branching on the rows is faster than bisecting cones (measured on Gaussian data)."""
    return d > 5 or (d == 5 and m <= 80)


def search_sphere(
    reduction: Reduction, v: FloatArray, sign: int, threshold: float, max_found: int, max_nodes: int
) -> tuple[FloatArray, bool, int]:
    """Return directions with ``sign h_v`` above the threshold (none if it was proved), whether the
    search ended, its nodes."""
    weights, linear = reduction.condense(sign * v)
    m, d = reduction.lines.shape
    if d == 0 or not np.any(v):
        return np.zeros((0, d)), True, 0
    nodes = 0
    if not _branching_wins(m, d):
        directions, values = np.empty((max_found, d)), np.empty(max_found)
        nothing = np.empty((0, d, d)), np.empty((0, d)), np.empty((0, m))
        found, nodes, _, complete = cover(
            reduction.lines,
            weights,
            linear,
            threshold,
            max_found,
            max_nodes,
            directions,
            values,
            *nothing,
        )
        if found or complete == 1 or nodes >= max_nodes:
            return directions[:found], complete == 1, nodes
        # Cones that rows almost parallel cut too thin for float64; branches need no cone.
    outcome = search_branches(
        reduction.lines, weights, linear, threshold, max_found, max_nodes - nodes
    )
    return outcome.directions, outcome.ended, nodes + outcome.nodes


def rounding_slack(data: FloatArray, v: FloatArray, threshold: float) -> float:
    """Return the relative slack that the covering's rounding margins need at a threshold."""
    lipschitz = float(np.abs(v) @ np.linalg.norm(data, axis=1))
    return float(4.0 * (len(v) + 500 * data.shape[1]) * _EPS * lipschitz / threshold)


def climb(data: FloatArray, v: FloatArray) -> tuple[float, FloatArray, int]:
    """Return the largest value of ``sign h_v`` that ascents from the rows and axes find, its unit
    direction and sign."""
    d = data.shape[1]
    best, direction, sign = 0.0, np.zeros(d), 1
    if d == 0 or not np.any(v):
        return best, direction, sign
    lengths = np.linalg.norm(data, axis=1)
    rows = data[lengths > 0.0] / lengths[lengths > 0.0, None]
    starts = np.vstack([rows, -rows, np.eye(d), -np.eye(d)])
    values = v @ np.maximum(data @ starts.T, 0.0)
    for s in (1, -1):
        for k in np.argsort(-s * values)[:8]:
            u = starts[k].copy()
            value = ascend(data, s * v, u, 50)
            if value > best:
                best, direction, sign = value, u, s
    return best, direction, sign


def norm_over_sphere(
    reduction: Reduction, v: FloatArray, tol: float, max_nodes: int | None, *, bound: str = "search"
) -> DualNorm:
    """Raise a threshold until a search proves it.

    Where the budget does not suffice, it is spent once more on thresholds that come down from
    above, after the semidefinite bound of the root. ``bound`` says where to begin: "search",
    "looser" or "root"."""
    data, d = reduction.data, reduction.data.shape[1]
    weight = float(np.abs(v) @ np.linalg.norm(data, axis=1))
    if d == 0 or weight == 0.0:
        return DualNorm(reduction.enlarge(v, 0.0), 0.0, np.zeros(reduction.basis.shape[1]), 1, True)
    max_nodes = node_budget(reduction, max_nodes)
    # A threshold far below the norm would waste the search.
    best, direction, sign = climb(data, v)
    # Below this the values of h are rounding errors.
    best = max(best, 1e-10 * weight)
    tol = max(tol, rounding_slack(data, v, best))
    left = max_nodes

    def proves(step: float) -> bool:
        nonlocal best, direction, sign, left
        for s in (1, -1):
            while True:
                if left <= 0:
                    return False
                found, ended, nodes = search_sphere(reduction, v, s, best * (1.0 + step), 8, left)
                left -= nodes
                for u in found:
                    value = ascend(data, s * v, u, 50)
                    if value > best:
                        best, direction, sign = value, u, s
                if len(found) == 0:
                    break
            if not ended:
                return False
        return True

    exact = bound == "search" and proves(tol)
    if exact:
        upper = best * (1.0 + tol)
    else:
        # The solver's accuracy is not reproduced at another multiple of v, for which the bound may
        # be wanted.
        upper, left = root_bound(data, v) * (1.0 + 1e-5), max_nodes
        for step in _LOOSER:
            if bound == "root" or step <= tol:
                break
            if best * (1.0 + step) < upper:
                if not proves(step):
                    break
                upper = min(upper, best * (1.0 + step))
    return DualNorm(reduction.enlarge(v, upper), best, reduction.basis.T @ direction, sign, exact)


@dataclass
class ConeSearch:
    """Projections onto given cones, both signs, warm-started from call to call."""

    X: FloatArray
    patterns: BoolArray

    def __post_init__(self) -> None:
        count, d = self.patterns.shape[0], self.X.shape[1]
        self.weights = self.patterns.astype(np.float64)
        self.norms = np.linalg.norm(self.X, axis=1)
        self.support = {s: np.full((count, d), -1, dtype=np.int64) for s in (1, -1)}
        self.multipliers = {s: np.zeros((count, d)) for s in (1, -1)}
        self.nearest = np.empty((count, d))

    def __call__(self, v: FloatArray, sign: int, threshold: float) -> tuple[FloatArray, FloatArray]:
        """Return upper bounds of the projections' norms, exact above the threshold, and the
        projections, shape (P, d)."""
        g = self.weights @ (sign * v[:, None] * self.X)
        values = np.empty(len(g))
        project(
            self.X,
            self.norms,
            self.patterns,
            g,
            threshold,
            self.support[sign],
            self.multipliers[sign],
            self.nearest,
            values,
        )
        return values, self.nearest


def norm_over_cones(X: FloatArray, v: FloatArray, patterns: BoolArray) -> DualNorm:
    search = ConeSearch(X, patterns)
    best, direction, sign = 0.0, np.zeros(X.shape[1]), 1
    for s in (1, -1):
        values, nearest = search(v, s, 0.0)
        k = int(np.argmax(values))
        if values[k] > best:
            best, direction, sign = float(values[k]), nearest[k] / values[k], s
    upper = best + _cone_margin(X, v, search)
    return DualNorm(upper, best, direction, sign, upper <= best * (1.0 + 1e-10))


def _cone_margin(X: FloatArray, v: FloatArray, search: ConeSearch) -> float:
    """Bound the rounding error of ``g + X.T (2D - I) lambda`` and its norm."""
    n, d = X.shape
    largest = max(
        float(np.max(np.abs(m).sum(axis=1), initial=0.0)) for m in search.multipliers.values()
    )
    total = float(np.abs(v) @ search.norms) + largest * float(search.norms.max(initial=0.0))
    return float(2.0 * (n + 2 * d + 4) * _EPS * total)


# Building a certificate.


def project_skip(X: FloatArray, v: FloatArray, y: FloatArray, loss: Loss) -> FloatArray:
    """Move the free entries of v as little as possible so that ``X.T v = 0``, up to rounding; to
    zeros, which are feasible, where that leaves the domain."""
    free, result = loss.interior(v, y), loss.at_ends(v, y).copy()
    for _ in range(2):
        step, *_ = np.linalg.lstsq(X[free].T, X.T @ result, rcond=None)
        result[free] -= step
    exact, _ = _exact_dual(X, result, y, loss)
    if exact is None or not loss.in_domain(exact, y):
        return np.zeros_like(v)
    # Least squares in float64 misses it where the data are ill-conditioned.
    return np.array([float(arb(q)) for q in exact])


def _certificate(
    X: FloatArray,
    y: FloatArray,
    beta: float,
    loss: Loss,
    bias: bool,
    skip: bool,
    patterns: BoolArray | None,
    network: Network,
    start: FloatArray,
    max_nodes: int | None,
) -> Certificate:
    """Scale a dual point into the constraint, by the factor that is best for the dual."""
    data = augment(X, bias)
    reduction = reduce_rows(data)
    columns = []
    for k, v in enumerate(_columns(start).T):
        target = _columns(y)[:, k]
        point = project_skip(data, v, target, loss) if skip else v
        columns.append(
            certificate_at(reduction, data, loss, patterns, point, target, beta, max_nodes)
        )
    dual = np.column_stack(columns).reshape(y.shape)
    objective = loss.value(network(X), y) + beta * network.penalty
    return Certificate(
        X, y, beta, loss, bias, skip, patterns, network, dual, objective, loss.dual(dual, y)
    )


def certificate_at(
    reduction: Reduction,
    data: FloatArray,
    loss: Loss,
    patterns: BoolArray | None,
    v: FloatArray,
    y: FloatArray,
    beta: float,
    max_nodes: int | None,
    bound: str = "search",
) -> FloatArray:
    """Return v scaled into the dual constraint, see ``norm_over_sphere``."""
    norm = (
        norm_over_sphere(reduction, v, 1e-10, max_nodes, bound=bound)
        if patterns is None
        else norm_over_cones(data, v, patterns)
    )
    return scale_dual(loss, v, y, beta, norm.value)


def scale_dual(loss: Loss, v: FloatArray, y: FloatArray, beta: float, norm: float) -> FloatArray:
    """Return the multiple of v with the best dual value among those whose dual norm is at most
    ``beta``."""
    # Scaling rounds every entry; the slack covers it.
    largest = beta / norm * (1.0 - 1e-12) if norm > 0.0 else 1.0
    # Zero is always feasible, and in the domain.
    candidates = [0.0, largest] if largest <= 1.0 else [0.0, 1.0, largest]
    values = [loss.dual(s * v, y) for s in candidates]
    best = candidates[int(np.argmax(values))]
    search = minimize_scalar(
        lambda s: -loss.dual(s * v, y) if s > 0.0 else 0.0, bounds=(0.0, largest), method="bounded"
    )
    if -search.fun > max(values):
        best = float(search.x)
    return best * v if best > 0.0 else np.zeros_like(v)


# Verification.


def _verify(c: Certificate, max_nodes: int | None) -> Verification:
    nan = float("nan")
    X, y, beta, loss = as_problem(c.X, c.y, c.beta, c.loss)
    network = as_network(c.network, X, y)
    dual = as_array(c.dual, "dual", shape=y.shape)
    data = augment(X, c.bias)
    targets, duals = _columns(y), _columns(dual)
    with ctx.workprec(_PRECISION):
        outputs = _outputs(network, X)
        value = arb(0)
        for k in range(targets.shape[1]):
            value += loss.value_ball([outputs[i, k] for i in range(len(y))], _balls(targets[:, k]))
        value += arb(beta) * _penalty(network)
        if not abs(float(value) - c.objective) <= _value_error(network, X, y, beta, loss):
            return Verification(False, Rejection.OBJECTIVE, float(value.upper()), nan)
        objective = _upper(value)
        if (not c.bias and np.any(network.biases)) or (
            not c.skip and (np.any(network.linear) or np.any(network.offset))
        ):
            return Verification(False, Rejection.OBJECTIVE, objective, nan)
        bound = arb(0)
        n_cones = n_exact = 0
        for k in range(targets.shape[1]):
            v, t = duals[:, k], targets[:, k]
            point, moved = (
                _exact_dual(data, v, t, loss) if c.skip else (_rationals(v), np.zeros(len(v)))
            )
            if point is None or not loss.in_domain(point, t):
                return Verification(False, Rejection.DOMAIN, objective, nan)
            bound += loss.dual_ball([arb(p) for p in point], _balls(t))
            if c.patterns is None:
                proved, cones, exact = _prove_sphere(data, v, beta, moved, max_nodes)
            else:
                proved, cones, exact = _prove_cones(data, v, beta, moved, c.patterns)
            n_cones, n_exact = n_cones + cones, n_exact + exact
            if not proved:
                return Verification(False, Rejection.CONSTRAINT, objective, nan, n_cones, n_exact)
        lower = _lower(bound)
        if not abs(float(bound) - c.dual_objective) <= _dual_error(dual, y, loss):
            return Verification(False, Rejection.DUAL_OBJECTIVE, objective, lower, n_cones, n_exact)
    if c.patterns is not None and not _in_cones(network, data, c.bias, c.patterns):
        return Verification(False, Rejection.PATTERNS, objective, lower, n_cones, n_exact)
    return Verification(True, Rejection.NONE, objective, lower, n_cones, n_exact)


def _balls(values: FloatArray) -> list[arb]:
    return [arb(float(v)) for v in values]


def _rationals(values: FloatArray) -> list[fmpq]:
    return [fmpq(*float(v).as_integer_ratio()) for v in values]


def _upper(ball: arb) -> float:
    return float(np.nextafter(float(ball.upper()), np.inf))


def _lower(ball: arb) -> float:
    return float(np.nextafter(float(ball.lower()), -np.inf))


def _matrix(values: FloatArray) -> arb_mat:
    return arb_mat(values.shape[0], values.shape[1], [float(v) for v in values.ravel()])


def _outputs(network: Network, X: FloatArray) -> arb_mat:
    """Enclose the network's outputs, shape (n, K)."""
    n, m = X.shape[0], network.n_neurons
    output = _columns(network.output_weights)
    linear, offset = _columns(network.linear), network.offset.reshape(1, -1)
    exact = _matrix(X)
    result = exact * _matrix(linear) + _matrix(np.ones((n, 1))) * _matrix(offset)
    if m:
        hidden = exact * _matrix(np.ascontiguousarray(network.weights.T))
        zero = arb(0)
        biases = _balls(network.biases)
        rectified = arb_mat(
            n, m, [(hidden[i, j] + biases[j]).max(zero) for i in range(n) for j in range(m)]
        )
        result += rectified * _matrix(output)
    return result


def _penalty(network: Network) -> arb:
    total = arb(0)
    for w in network.weights.ravel():
        total += arb(float(w)) ** 2
    for w in network.biases.ravel():
        total += arb(float(w)) ** 2
    for row in _columns(network.output_weights):
        total += sum((abs(arb(float(w))) for w in row), arb(0)) ** 2
    return total / 2


def _value_error(network: Network, X: FloatArray, y: FloatArray, beta: float, loss: Loss) -> float:
    """Bound the rounding error of the objective evaluated in float64."""
    n, d = X.shape
    unit = float(4.0 * (n + d + network.n_neurons + 10) * _EPS)
    magnitude = (
        (np.abs(X) @ np.abs(network.weights).T + np.abs(network.biases))
        @ np.abs(network.output_weights)
        + np.abs(X) @ np.abs(network.linear)
        + np.abs(network.offset)
        + np.abs(y)
    )
    f, change = network(X), unit * magnitude
    value = loss.value(f, y)
    # A convex function is steepest at the ends.
    slopes = [np.abs(loss.gradient(f + s * change, y)) for s in (-1.0, 1.0)]
    return float(np.sum(np.maximum(*slopes) * change)) + unit * (
        (value if np.isfinite(value) else 0.0) + beta * network.penalty
    )


def _dual_error(dual: FloatArray, y: FloatArray, loss: Loss) -> float:
    """Bound the rounding error of the dual value."""
    return float(8.0 * (dual.size + 4) * _EPS * np.sum(loss.dual_sizes(dual, y)))


def _exact_dual(
    data: FloatArray, v: FloatArray, y: FloatArray, loss: Loss
) -> tuple[list[fmpq] | None, FloatArray]:
    """Return the rational point nearest to v on its free entries with ``data.T @ point = 0``, and
    bounds of its change."""
    n, d = data.shape
    free = np.flatnonzero(loss.interior(v, y))
    exact = fmpq_mat(n, d, [q for row in data for q in _rationals(row)])
    point = _rationals(v)
    right = exact.transpose() * fmpq_mat(n, 1, point)
    if all(right[j, 0] == 0 for j in range(d)):
        return point, np.zeros(n)
    rows = fmpq_mat(len(free), d, [q for i in free for q in _rationals(data[i])])
    # Columns that span the column space on the free rows.
    echelon, free_rank = rows.rref() if len(free) else (rows, 0)
    if free_rank == 0:
        return None, np.zeros(n)
    pivots: list[int] = []
    for i in range(free_rank):
        j = pivots[-1] + 1 if pivots else 0
        while echelon[i, j] == 0:
            j += 1
        pivots.append(j)
    basis = fmpq_mat(len(free), free_rank, [rows[i, j] for i in range(len(free)) for j in pivots])
    solution = (basis.transpose() * basis).solve(
        fmpq_mat(free_rank, 1, [right[j, 0] for j in pivots])
    )
    step = basis * solution
    moved = np.zeros(n)
    for a, k in enumerate(free):
        point[k] -= step[a, 0]
        moved[k] = float(np.nextafter(abs(float(arb(step[a, 0]))), np.inf))
    residual = exact.transpose() * fmpq_mat(n, 1, point)
    if any(residual[j, 0] != 0 for j in range(d)):
        return None, moved
    return point, moved


def _prove_sphere(
    data: FloatArray, v: FloatArray, beta: float, moved: FloatArray, max_nodes: int | None
) -> tuple[bool, int, int]:
    """Prove the dual constraint for both signs; return success, the cones used and the leaves
    confirmed exactly."""
    n = data.shape[0]
    reduction = reduce_rows(data)
    change = float(moved @ np.linalg.norm(data, axis=1)) * (1.0 + 2.0 * n * _EPS)
    threshold = reduction.threshold(v, beta - change)
    d = reduction.data.shape[1]
    if threshold <= 0.0:
        return False, 0, 0
    if d == 0 or not np.any(v):
        return True, 0, 0
    # Far from the maximum the bound of the root may do, and near it cannot.
    if 1.2 * climb(reduction.data, v)[0] < threshold and (
        root_bound(reduction.data, v) <= threshold
    ):
        return True, 0, 0
    used = exact = 0
    m = len(reduction.lines)
    for sign in (1.0, -1.0):
        point, linear = reduction.condense(sign * v)
        left = node_budget(reduction, max_nodes)
        if not _branching_wins(m, d):
            proved, undecided, nodes, leaves = _prove_by_cones(
                reduction.lines, point, linear, threshold, left
            )
            used, exact, left = used + nodes, exact + leaves, left - nodes
            if proved:
                continue
            if not undecided or left <= 0:
                return False, used, exact
        outcome = search_branches(
            reduction.lines, point, linear, threshold, 1, left, check=leaf_holds
        )
        used, exact = used + outcome.nodes, exact + outcome.leaves
        if not outcome.proved:
            return False, used, exact
    return True, used, exact


def _prove_by_cones(
    lines: FloatArray, v: FloatArray, linear: FloatArray, threshold: float, max_nodes: int
) -> tuple[bool, bool, int, int]:
    """Return whether a covering proves the threshold, whether it neither does nor refutes it, its
    cones, and the leaves confirmed exactly."""
    leaves, nodes, refuted = tight_leaves(lines, v, linear, threshold, max_nodes)
    if leaves is None:
        return False, not refuted, nodes, 0
    rows = _rational_matrix(lines)
    for k, leaf in enumerate(zip(*leaves, strict=True)):
        if not _leaf_holds(rows, v, linear, threshold, *leaf):
            return False, False, nodes, k
    return True, False, nodes, len(leaves[0])


def tight_leaves(
    lines: FloatArray, point: FloatArray, linear: FloatArray, threshold: float, max_nodes: int
) -> tuple[tuple[FloatArray, FloatArray, FloatArray] | None, int, bool]:
    """Return rays, majorants and multipliers of the leaves of a covering whose relative slack is
    below 1e-6, or None if the threshold is not proved; the number of cones; and whether the
    threshold is refuted."""
    m, d = lines.shape
    keep = 256
    while True:
        leaves = np.empty((keep, d, d)), np.empty((keep, d)), np.empty((keep, m))
        found, used, tight, complete = cover(
            lines, point, linear, threshold, 1, max_nodes, np.empty((1, d)), np.empty(1), *leaves
        )
        if found or not complete:
            return None, used, bool(found)
        if tight <= keep:
            rays, majorants, multipliers = (part[:tight] for part in leaves)
            return (rays, majorants, multipliers), used, False
        keep = tight


def _rational_matrix(values: FloatArray) -> fmpq_mat:
    n, d = values.shape
    return fmpq_mat(n, d, [q for row in values for q in _rationals(row)])


def _leaf_holds(
    data: fmpq_mat,
    v: FloatArray,
    linear: FloatArray,
    threshold: float,
    rays: FloatArray,
    weights: FloatArray,
    multipliers: FloatArray,
) -> bool:
    """Check the inequalities of one cone in rational arithmetic."""
    n, d = len(v), len(rays)
    w, point, slope, bound = (
        _rationals(weights),
        _rationals(v),
        _rationals(linear),
        fmpq(*float(threshold).as_integer_ratio()),
    )
    if sum((a * a for a in w), fmpq(0)) > bound * bound:
        return False
    slopes = [
        None if v[i] > 0.0 else q for i, q in enumerate(_rationals(np.maximum(multipliers, 0.0)))
    ]
    if any(s is not None and not 0 <= s <= 1 for s in slopes):
        return False
    left = data * _rational_matrix(rays.T)
    for k in range(d):
        ray = _rationals(rays[k])
        total = sum((a * b for a, b in zip(slope, ray, strict=True)), fmpq(0))
        for i in range(n):
            z, s = left[i, k], slopes[i]
            if s is not None:
                total += point[i] * s * z
            elif z > 0:
                total += point[i] * z
        if total > sum((a * b for a, b in zip(w, ray, strict=True)), fmpq(0)):
            return False
    return True


def _prove_cones(
    data: FloatArray, v: FloatArray, beta: float, moved: FloatArray, patterns: BoolArray
) -> tuple[bool, int, int]:
    """Prove the constraint on the cones of the patterns by their multipliers; nearly tight ones in
    rational arithmetic."""
    n, d = data.shape
    search = ConeSearch(data, patterns)
    exact = 0
    point = _rationals(v)
    limit = fmpq(
        *float(beta - float(moved @ search.norms) * (1.0 + 2.0 * n * _EPS)).as_integer_ratio()
    )
    rational: fmpq_mat | None = None
    for sign in (1, -1):
        values, _ = search(v, sign, 0.0)
        margin = _cone_margin(data, v, search)
        for p in np.flatnonzero(values + margin > (1.0 - 1e-6) * beta):
            if rational is None:
                rational = fmpq_mat(d, n, [q for row in data.T for q in _rationals(row)])
            total = [sign * q if on else fmpq(0) for q, on in zip(point, patterns[p], strict=True)]
            for i, lam in zip(
                search.support[sign][p], _rationals(search.multipliers[sign][p]), strict=True
            ):
                if i >= 0:
                    if lam < 0:
                        return False, len(values), exact
                    total[i] += lam if patterns[p, i] else -lam
            w = rational * fmpq_mat(n, 1, total)
            if sum((w[a, 0] ** 2 for a in range(d)), fmpq(0)) > limit * limit:
                return False, len(values), exact
            exact += 1
    return True, 2 * len(patterns), exact


def _in_cones(network: Network, data: FloatArray, bias: bool, patterns: BoolArray) -> bool:
    """Whether every neuron lies in a cone of the list, up to the rounding of ``x_i @ u``."""
    first = np.column_stack([network.weights, network.biases]) if bias else network.weights
    scale = np.linalg.norm(data, axis=1)
    for u in first:
        z = data @ u
        # Projections onto a face and mapping back to weights leave errors of a few hundred units in
        # the last place.
        small = 1e3 * (data.shape[1] + 1) * _EPS * scale * np.linalg.norm(u)
        wrong = (z[None, :] > small) & ~patterns | (z[None, :] < -small) & patterns
        if np.all(wrong.any(axis=1)):
            return False
    return True
