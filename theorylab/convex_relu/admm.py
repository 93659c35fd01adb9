r"""First-order and sampled routes to the convex ReLU program: ADMM, and training with a random
first layer.

With the patterns $D_i$ and $S_i=2D_i-I$ the program of two-layer ReLU training with
squared loss is

$$\min_{u=v,\;Gu=s\ge0}\ \tfrac12\|Au-y\|^2+\beta\sum_b\|v_b\|,\qquad
A=[D_1X,\dots,-D_1X,\dots],\quad G=\mathrm{blkdiag}(S_iX).$$

ADMM alternates a group soft-threshold in $v$, a clip in $s$ and a least-squares step in
$u$ with a cached factorisation. Since $S_i^2=I$, all diagonal blocks of $I+G^\top
G$ are $K=I+X^\top X$, and what is left to factor is $\rho
I_n+2(XK^{-1}X^\top)\circ\sum_i d_id_i^\top$: n rows whatever the number of patterns. An iteration
costs $O(Pnd)$, linear in the number of variables.

In $q=(u+\lambda,\,Gu+\nu)$ the iteration is one firmly non-expansive map T
(Douglas-Rachford), so that $\|q^{k+1}-q^k\|$ never increases. T is smooth off the kinks
$\|q_b\|=\beta/\rho$, $q_{bk}=0$; once the iterates stay on one piece they contract at
the largest modulus among the eigenvalues of $T'(q^\star)$ other than 1 (the directions along
the set of fixed points). The multipliers of unused blocks are not unique, so that eigenvalue 1 is
always there.

With N unit directions $u_i$ fixed as the first layer, training is the Lasso
$\min_\alpha\frac12\|\sum_i(Xu_i)_+\alpha_i-y\|^2+\beta\|\alpha\|_1$, a scenario program in
the dual variable $z\in\mathbb R^n$: one more random direction strictly lowers its value with
probability V, $\mathbb EV_N=\mathbb E[s_{N+1}]/(N+1)\le n/(N+1)$, where $s_{N+1}$
counts the active directions among N + 1."""

from __future__ import annotations

import math
import warnings
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from scipy.special import bdtr

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    one_of,
)
from theorylab.convex_relu.arrangements import enumerate_arrangements
from theorylab.convex_relu.certificates import (
    Certificate,
    ConeSearch,
    Network,
    as_patterns,
    certify,
)
from theorylab.convex_relu.training import TrainingResult
from theorylab.numerics.bounds import power_of_two, relative_gap
from theorylab.numerics.compiled import compiled
from theorylab.numerics.results import result

__all__ = [
    "ADMMIteration",
    "ADMMResult",
    "ADMMStatus",
    "FixedFirstLayer",
    "admm_iteration",
    "displaced_neurons_bound",
    "improvement_probability",
    "improvement_tail_bound",
    "improving_patterns",
    "random_first_layer_bound",
    "sufficient_samples",
    "train_admm",
    "train_output_layer",
]

BoolArray = NDArray[np.bool_]
ComplexArray = NDArray[np.complex128]

_MAX_JACOBIAN = 4000


class ADMMStatus(StrEnum):
    """Why the iteration ended."""

    SOLVED = "optimal: the relative duality gap and the violation of the cones are at most tol"
    FIXED = "stopped at a fixed point in float64 with a relative gap above tol; tol is too small"
    ITERATIONS = (
        "stopped after max_iter iterations with a relative gap above tol; raise "
        "max_iter, or change penalty "
        "(too small or too large a penalty identifies the active blocks late)"
    )


@result
class ADMMResult:
    """Where ADMM ended, and how it got there.

    Parameters
    ----------
    X, y, beta
        The problem.
    unit, scale
        Powers of 64 by which X and y were divided, 1 for data of about unit size; ``state``,
        ``residuals``, ``penalty`` and ``jacobian`` belong to the divided problem.
    patterns, cones, penalty
        Patterns of shape (P, n), and the penalty rho that was used.
    network
        ReLU network of the non-zero blocks; without cone constraints its hidden units are gated by
        their patterns instead of by themselves, so that it need not attain ``objective``.
    objective
        With cones: the value of ``network``, an upper bound of the optimum over all patterns, and
        of that over ``patterns`` up to ``violation``. Without: that of the gated program.
    dual_objective
        Certified lower bound of the same program (of the relaxation, without cones).
    violation
        Largest amount by which a block misses its cone, relative to the norms of the row and of all
        blocks.
    blocks
        Group-sparse iterate v, shape (2P, d); the first P blocks have output sign +1, the others
        -1.
    state
        Fixed-point variable q = (u + lambda, G u + nu), shape (2P, d + n).
    residuals
        ``|q^{k+1} - q^k|`` for every iteration; never increases.
    gaps
        Pairs (iteration, relative duality gap) at the checks, shape (c, 2).
    identified
        Number of iterations after which the set of active blocks and slacks no longer changed, as
        long as residuals were above 1e-12 relatively: closer to a kink its side is rounding.
    status
        Why it ended.
    """

    X: FloatArray
    y: FloatArray
    beta: float
    unit: float
    scale: float
    patterns: BoolArray
    cones: bool
    penalty: float
    network: Network
    objective: float
    dual_objective: float
    violation: float
    blocks: FloatArray
    state: FloatArray
    residuals: FloatArray
    gaps: FloatArray
    identified: int
    status: ADMMStatus

    @property
    def gap(self) -> float:
        """Relative difference of the two values, whichever is larger: an iterate outside its cones
        may lie below the bound."""
        return _difference(self.objective, self.dual_objective)

    @cached_property
    def jacobian(self) -> FloatArray:
        """Derivative of the iteration at ``state``, flattened: shape (2P(d + n), 2P(d + n)).

        Raises
        ------
        ValueError
            If 2P(d + n) exceeds 4000.
        """
        return _jacobian(self)

    @cached_property
    def multipliers(self) -> ComplexArray:
        """Eigenvalues of ``jacobian`` other than 1, by decreasing modulus."""
        values = np.linalg.eigvals(self.jacobian)
        # Eigenvalue 1 is semi-simple (T is firmly non-expansive), hence computed to rounding times
        # the condition of its eigenvectors.
        values = values[np.abs(values - 1.0) > 1e-9]
        return np.asarray(values[np.argsort(-np.abs(values))], dtype=np.complex128)

    @property
    def asymptotic_rate(self) -> float:
        """Factor per iteration by which the residual shrinks once the active set stays: the largest
        modulus of ``multipliers``."""
        values = self.multipliers
        return float(np.abs(values[0])) if values.size else 0.0


def train_admm(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    arrangements: str | ArrayLike = "all",
    cones: bool = True,
    penalty: float | None = None,
    tol: float = 1e-8,
    max_iter: int = 100_000,
) -> ADMMResult:
    """Solve the convex ReLU program with squared loss by ADMM.

    Parameters
    ----------
    X
        Data, shape (n, d).
    y
        Targets, shape (n,).
    beta
        Penalty of the norms, positive: the objective is ``|f - y|^2 / 2 + beta * sum_b |v_b|``,
        that of ``train``.
    arrangements
        "all", or patterns of shape (P, n).
    cones
        Keep the cone constraints. Without them the program is that of gated ReLU networks, a group
        Lasso whose value is at most as large.
    penalty
        ADMM's rho, positive. By default the geometric mean of the extreme eigenvalues of ``A (I +
        G'G)^{-1} A'``, the best choice for the least-squares part alone.
    tol
        Relative duality gap, checked after 50, 75, 112, ... iterations.
    max_iter
        Largest number of iterations.

    Returns
    -------
    ADMMResult
        Network, objective, bound, iterates, history, status.

    Raises
    ------
    ValueError
        For malformed data or patterns, or numbers out of range.

    Notes
    -----
    bai2022-efficient, Section 3, has the splitting; the reduction of the least-squares step to n
    rows and the rate are derived here.

    Examples
    --------
    >>> from theorylab.convex_relu import train_admm
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> train_admm(X, y, 0.1, tol=1e-6).gap <= 1e-6
    True
    """
    X = as_array(X, "X", ndim=2)
    y = as_array(y, "y", shape=(X.shape[0],))
    beta = as_real(beta, "beta", above=0.0)
    patterns = as_patterns(arrangements, X.shape[0])
    patterns = enumerate_arrangements(X) if patterns is None else patterns
    cones = as_flag(cones, "cones")
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    max_iter = as_count(max_iter, "max_iter")
    given, unit, scale = (X, y, beta), _unit(np.linalg.norm(X, axis=1)), _unit(y)
    X, y, beta = X / unit, y / scale, beta / unit / scale
    inverse, coupling = _least_squares(X, patterns)
    if penalty is None:
        spectrum = np.linalg.eigvalsh(coupling)
        positive = spectrum[spectrum > 1e-12 * max(spectrum[-1], 1e-300)]
        rho = math.sqrt(float(positive[0] * positive[-1])) if positive.size else 1.0
    else:
        rho = as_real(penalty, "penalty", above=0.0)
    n, d = X.shape
    D = patterns.astype(np.float64)
    system = np.asarray(np.linalg.inv(rho * np.eye(n) + coupling), dtype=np.float64)
    fixed = (D * y) @ X
    q1, q2 = np.zeros((2 * len(D), d)), np.zeros((2 * len(D), n))
    v = np.zeros_like(q1)
    residuals: list[FloatArray] = []
    gaps: list[tuple[int, float]] = []
    done, changed, check, violation, status = 0, 0, 50, 0.0, ADMMStatus.ITERATIONS
    while True:
        count = min(check, max_iter) - done
        record = np.empty(count)
        size = 1.0 + math.sqrt(float(np.sum(q1**2) + np.sum(q2**2)))
        last = _iterate(
            X, D, inverse, system, fixed, beta / rho, rho, cones, 1e-12 * size, q1, q2, v, record
        )
        changed = done + last if last > 0 else changed
        residuals.append(record)
        done += count
        network, objective, dual_objective = _evaluate(*given, patterns, scale / unit * v, cones)
        gaps.append((done, _difference(objective, dual_objective)))
        violation = _violation(X, patterns, v) if cones else 0.0
        if gaps[-1][1] <= tol and violation <= tol:
            status = ADMMStatus.SOLVED
            break
        if record[-1] <= 1e-16 * size:
            status = ADMMStatus.FIXED
            break
        if done == max_iter:
            break
        check += check // 2
    if status is not ADMMStatus.SOLVED:
        warnings.warn(
            f"relative gap {gaps[-1][1]:.1e}: {status.value}", RuntimeWarning, stacklevel=2
        )
    return ADMMResult(
        *given,
        unit,
        scale,
        patterns,
        cones,
        rho,
        network,
        objective,
        dual_objective,
        violation,
        scale / unit * v,
        np.hstack([q1, q2]),
        np.concatenate(residuals),
        np.array(gaps),
        changed,
        status,
    )


@result
class FixedFirstLayer:
    """The best network with a given first layer.

    Parameters
    ----------
    X, y, beta
        The problem.
    directions
        Unit directions, shape (N, d).
    coefficients
        Lasso solution, shape (N,).
    network
        The balanced network of the active directions.
    dual
        Residual scaled so that ``|z @ relu(X u_i)| <= beta`` for every given direction, shape (n,).
    objective, dual_objective
        Value of the network, and lower bound over networks with these directions.
    """

    X: FloatArray
    y: FloatArray
    beta: float
    directions: FloatArray
    coefficients: FloatArray
    network: Network
    dual: FloatArray
    objective: float
    dual_objective: float

    @cached_property
    def certificate(self) -> Certificate:
        """Certificate of the network among all networks: its ``dual_objective`` bounds the optimum
        over free first layers."""
        return certify(self.X, self.y, self.beta, self.network)

    @property
    def gap(self) -> float:
        """Relative duality gap of the Lasso."""
        return relative_gap(self.objective, self.dual_objective)

    @property
    def global_gap(self) -> float:
        """Certified relative gap to the optimum over all first layers."""
        return self.certificate.gap

    @property
    def n_active(self) -> int:
        """Number of directions in use."""
        return int(np.count_nonzero(self.coefficients))


def train_output_layer(
    X: ArrayLike, y: ArrayLike, beta: float, directions: ArrayLike
) -> FixedFirstLayer:
    """Train the output layer over a fixed first layer: a Lasso, solved by an active-set method to
    rounding.

    Parameters
    ----------
    X
        Data, shape (n, d).
    y
        Targets, shape (n,).
    beta
        Penalty, positive; that of ``train``, since neurons may be rescaled at will.
    directions
        First layer, shape (N, d), rows not zero; only their directions matter.

    Returns
    -------
    FixedFirstLayer
        Coefficients, network, and its certificate among all networks.

    Raises
    ------
    ValueError
        For malformed data, a zero direction, or a non-positive ``beta``.

    Notes
    -----
    bai2022-efficient, Section 2 (training with random first layers); the certificate is derived.

    Examples
    --------
    >>> from theorylab.convex_relu import train_output_layer
    >>> fit = train_output_layer([[1.0], [2.0]], [1.0, 2.0], 0.5, [[1.0], [-1.0]])
    >>> fit.objective
    0.475
    """
    X = as_array(X, "X", ndim=2)
    y = as_array(y, "y", shape=(X.shape[0],))
    beta = as_real(beta, "beta", above=0.0)
    directions = as_array(directions, "directions", shape=(None, X.shape[1]))
    lengths = np.linalg.norm(directions, axis=1)
    if lengths.min() == 0.0:
        raise ValueError("directions: expected rows that are not zero, got a zero row")
    unit = directions / lengths[:, None]
    features = np.maximum(X @ unit.T, 0.0)
    alpha = _lasso(features, y, beta)
    residual = y - features @ alpha
    dual = residual * min(1.0, beta / max(float(np.abs(features.T @ residual).max()), 1e-300))
    objective = 0.5 * float(residual @ residual) + beta * float(np.abs(alpha).sum())
    active = np.flatnonzero(alpha)
    root = np.sqrt(np.abs(alpha[active]))
    network = Network(unit[active] * root[:, None], np.sign(alpha[active]) * root)
    return FixedFirstLayer(
        X, y, beta, unit, alpha, network, dual, objective, float(dual @ y - 0.5 * dual @ dual)
    )


def improvement_probability(
    X: ArrayLike, v: ArrayLike, beta: float, *, law: str = "directions"
) -> float:
    r"""Return the probability that one more random direction, or pattern, strictly lowers the
    sampled program, in the plane.

    Parameters
    ----------
    X
        Data, shape (n, 2).
    v
        Optimal dual point of the sampled program, shape (n,), feasible for its samples.
    beta
        Penalty, positive.
    law
        "directions": the new sample is a uniform unit vector u, which helps iff
        $|v^\top(Xu)_+|>\beta$. "patterns": it is the pattern of u, which helps iff that
        happens somewhere in u's cell.

    Returns
    -------
    float
        The probability, from the closed form of the arcs on which the inequality holds. An excess
        below 1e-9, the rounding of a dual point scaled into its constraints, does not count.

    Raises
    ------
    ValueError
        If the data are not two-dimensional, or malformed.

    Notes
    -----
    bai2022-efficient, Section 2, defines the event; the closed form is derived.

    Examples
    --------
    >>> from theorylab.convex_relu import improvement_probability
    >>> improvement_probability([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], 0.1)
    0.0
    """
    X = as_array(X, "X", shape=(None, 2))
    v = as_array(v, "v", shape=(X.shape[0],))
    beta = as_real(beta, "beta", above=0.0)
    law = one_of(law, "law", ("directions", "patterns"))
    total = 0.0
    for start, stop, g in _arcs(X, v):
        radius, centre = math.hypot(*g), math.atan2(g[1], g[0])
        if radius <= beta * (1.0 + 1e-9):
            continue
        half = math.acos(beta / radius)
        inside = sum(
            max(0.0, min(stop, centre + shift + half) - max(start, centre + shift - half))
            for shift in math.pi * np.arange(-3, 4)
        )
        # A sliver of the width that the excess above allows is a cell that is active, not violated.
        if law == "directions":
            total += inside
        elif inside > 0.0 and _largest(start, stop, centre, radius) > beta * (1.0 + 1e-9):
            total += stop - start
    return min(total / (2.0 * math.pi), 1.0)


def improving_patterns(X: ArrayLike, v: ArrayLike, beta: float, patterns: ArrayLike) -> BoolArray:
    r"""Return which patterns would strictly lower the value of a program over other patterns, in
    any dimension.

    Parameters
    ----------
    X
        Data, shape (n, d).
    v
        Optimal dual point of the program, shape (n,), feasible for its patterns.
    beta
        Penalty, positive.
    patterns
        Candidates, shape (P, n).

    Returns
    -------
    ndarray of bool, shape (P,)
        Whether $\|\Pi_K(\pm X^\top Dv)\|>\beta$ for a sign, up to 1e-9 relatively.

    Raises
    ------
    ValueError
        For malformed arrays or a non-positive ``beta``.

    Notes
    -----
    bai2022-efficient, Section 2.

    Examples
    --------
    >>> from theorylab.convex_relu import improving_patterns
    >>> improving_patterns([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.0], 0.1, [[1, 0], [0, 1]])
    array([ True, False])
    """
    X = as_array(X, "X", ndim=2)
    v = as_array(v, "v", shape=(X.shape[0],))
    beta = as_real(beta, "beta", above=0.0)
    candidates = as_array(patterns, "patterns", shape=(None, X.shape[0]))
    if not np.all((candidates == 0.0) | (candidates == 1.0)):
        raise ValueError("patterns: expected entries 0 and 1, got others")
    search = ConeSearch(X, np.ascontiguousarray(candidates == 1.0))
    threshold = beta * (1.0 + 1e-9)
    above = [search(v, sign, threshold)[0] > threshold for sign in (1, -1)]
    return np.asarray(above[0] | above[1], dtype=np.bool_)


def improvement_tail_bound(n: int, *, n_samples: int, psi: float) -> float:
    r"""Return $\sum_{i<n}\binom Ni\psi^i(1-\psi)^{N-i}$, a bound of the probability that V
    exceeds ``psi``.

    Parameters
    ----------
    n
        Number of data points, the dimension of the dual variable.
    n_samples
        Number N of independent directions or patterns in the program.
    psi
        Level, in (0, 1).

    Returns
    -------
    float
        The bound.

    Raises
    ------
    ValueError
        For a count below one or a level outside (0, 1).

    Notes
    -----
    Exact scenario theorem; sharper than bai2022-efficient, Section 2. An optimum of a strictly
    concave program in n variables is supported by at most n constraints.

    Examples
    --------
    >>> from theorylab.convex_relu import improvement_tail_bound
    >>> improvement_tail_bound(2, n_samples=3, psi=0.5)
    0.5
    """
    n, n_samples = as_count(n, "n"), as_count(n_samples, "n_samples")
    psi = as_real(psi, "psi", above=0.0, below=1.0)
    return float(bdtr(n - 1, n_samples, psi)) if n_samples >= n else 1.0


def sufficient_samples(n: int, *, psi: float, xi: float) -> int:
    r"""Return the number of samples after which improvement has probability at most ``psi`` with
    confidence ``1 - xi``.

    Parameters
    ----------
    n
        Number of data points.
    psi, xi
        Probability of improvement and risk, in (0, 1).

    Returns
    -------
    int
        $\lceil\min\{\frac{n+1}{\psi\xi}-1,\ \frac2\psi(n+1-\log\xi)\}\rceil$.

    Raises
    ------
    ValueError
        For a count below one or probabilities outside (0, 1).

    Notes
    -----
    bai2021-practical, Theorem 1, as restated in bai2022-efficient; linear in n.

    Examples
    --------
    >>> from theorylab.convex_relu import improvement_tail_bound, sufficient_samples
    >>> n_samples = sufficient_samples(10, psi=0.1, xi=0.05)
    >>> improvement_tail_bound(10, n_samples=n_samples, psi=0.1) <= 0.05
    True
    """
    n = as_count(n, "n")
    psi, xi = as_real(psi, "psi", above=0.0, below=1.0), as_real(xi, "xi", above=0.0, below=1.0)
    return max(1, math.ceil(min((n + 1) / (psi * xi) - 1, 2.0 / psi * (n + 1 - math.log(xi)))))


def random_first_layer_bound(optimum: TrainingResult, *, n_directions: int, xi: float) -> float:
    r"""Bound the suboptimality of N uniform directions in the plane, with probability at least ``1
    - xi``.

    All of the m optimal neurons lie within the angle t of a sampled direction, $m(1-t/\pi)^N
    =\xi$, except with probability ``xi``; then ``displaced_neurons_bound`` holds.

    Parameters
    ----------
    optimum
        Result of ``train`` with squared loss on data of shape (n, 2), without bias or skip
        connection.
    n_directions
        Number N of independent uniform directions.
    xi
        Risk, in (0, 1).

    Returns
    -------
    float
        Bound of p_SCP(N) - p*, infinite where N is too small for any.

    Raises
    ------
    ValueError
        If ``optimum`` is not of that kind, or a number is out of range.

    Notes
    -----
    Derived here: bai2022-efficient bounds the probability of improvement, which says nothing about
    the value.

    Examples
    --------
    >>> from theorylab.convex_relu import random_first_layer_bound, train
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> optimum = train(X, y, 0.1)
    >>> few = random_first_layer_bound(optimum, n_directions=100, xi=0.01)
    >>> random_first_layer_bound(optimum, n_directions=10_000, xi=0.01) < few
    True
    """
    as_instance(optimum, "optimum", TrainingResult)
    n_directions = as_count(n_directions, "n_directions")
    xi = as_real(xi, "xi", above=0.0, below=1.0)
    neurons = max(optimum.network.n_neurons, 1)
    angle = math.pi * (1.0 - (xi / neurons) ** (1.0 / n_directions))
    return displaced_neurons_bound(optimum, angle)


def displaced_neurons_bound(optimum: TrainingResult, angle: float) -> float:
    r"""Bound the suboptimality of the best network over directions in the plane of which one lies
    within the angle t of every optimal neuron.

    Replace each optimal neuron by that direction. The objective grows by at most

    $$\sum_jc_j\max_{|\theta-\theta_j|\le
    t}\big(\beta-|z^\top(Xu_\theta)_+|\big)+\tfrac12\big(2\sin\tfrac t2\,\|X\|\sum_jc_j\big)^2,$$

    with $c_j$ the norms of the optimal blocks and z the optimal residual.

    Parameters
    ----------
    optimum
        Result of ``train`` with squared loss on data of shape (n, 2), without bias or skip
        connection.
    angle
        The angle t, in [0, pi].

    Returns
    -------
    float
        Bound of the value over the directions, minus the optimum.

    Examples
    --------
    >>> from theorylab.convex_relu import train
    >>> displaced_neurons_bound(train([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], 0.1), 0.0) < 1e-9
    True
    """
    as_instance(optimum, "optimum", TrainingResult)
    problem = optimum.certificate
    if (
        problem.X.shape[1] != 2
        or problem.bias
        or problem.skip
        or problem.loss.name != "squared"
        or problem.y.ndim != 1
    ):
        raise ValueError(
            "optimum: expected squared loss, data of shape (n, 2), one output, no "
            "bias and no skip connection"
        )
    t = as_real(angle, "angle", minimum=0.0, maximum=math.pi)
    weights = optimum.network.weights
    if len(weights) == 0:
        return 0.0
    sizes = np.linalg.norm(weights, axis=1) * np.abs(optimum.network.output_weights)
    residual = problem.y - optimum.network(problem.X)
    kinks = np.arctan2(problem.X[:, 1], problem.X[:, 0])
    kinks = np.concatenate([kinks + 0.5 * math.pi, kinks - 0.5 * math.pi])
    first = 0.0
    for w, a, c in zip(weights, optimum.network.output_weights, sizes, strict=True):
        angle = math.atan2(w[1], w[0])
        offset = (kinks - angle + math.pi) % (2.0 * math.pi) - math.pi
        # Between kinks the function is a cosine, concave where it is positive: the least value is
        # at an end.
        ends = angle + np.concatenate([offset[np.abs(offset) < t], [-t, t]])
        values = (
            np.sign(a)
            * residual
            @ np.maximum(problem.X @ np.array([np.cos(ends), np.sin(ends)]), 0.0)
        )
        first += float(c) * max(problem.beta - float(values.min()), 0.0)
    moved = 2.0 * math.sin(0.5 * t) * float(np.linalg.norm(problem.X, 2)) * float(sizes.sum())
    return first + 0.5 * moved**2


# ADMM.


def _unit(values: FloatArray) -> float:
    """Return the power of 64 that brings the largest magnitude between 1/8 and 8."""
    return float(64.0 ** np.round(np.log(power_of_two(values)) / np.log(64.0)))


def _least_squares(X: FloatArray, patterns: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return K^{-1} and A (I + G'G)^{-1} A'."""
    inverse = np.asarray(np.linalg.inv(np.eye(X.shape[1]) + X.T @ X), dtype=np.float64)
    D = patterns.astype(np.float64)
    return inverse, 2.0 * (X @ inverse @ X.T) * (D.T @ D)


@compiled
def _iterate(
    X: FloatArray,
    D: FloatArray,
    inverse: FloatArray,
    system: FloatArray,
    fixed: FloatArray,
    threshold: float,
    rho: float,
    cones: bool,
    floor: float,
    q1: FloatArray,
    q2: FloatArray,
    v: FloatArray,
    residuals: FloatArray,
) -> int:
    """Apply T as often as there are residuals to write; return the last iteration (from 1) that
    changed the piece, or 0."""
    P, n = D.shape
    d = X.shape[1]
    T = np.empty((2 * P, n))
    rhs = np.empty((2 * P, d))
    H = np.empty((2 * P, d))
    HX = np.empty((2 * P, n))
    gathered = np.empty(n)
    E = np.empty((P, n))
    shift = np.empty((P, d))
    XK = X @ inverse
    Xt = np.ascontiguousarray(X.T)
    active = np.empty(2 * P, dtype=np.bool_)
    open_ = np.empty((2 * P, n), dtype=np.bool_)
    _piece(q1, q2, threshold, active, open_)
    last = 0
    for k in range(residuals.size):
        for b in range(2 * P):
            size = 0.0
            for a in range(d):
                size += q1[b, a] * q1[b, a]
            size = np.sqrt(size)
            shrink = 1.0 - threshold / size if size > threshold else 0.0
            for a in range(d):
                v[b, a] = shrink * q1[b, a]
            row = D[b] if b < P else D[b - P]
            for i in range(n):
                t = q2[b, i]
                t = abs(t) if cones else t
                T[b, i] = t if row[i] > 0.0 else -t
        np.dot(T, X, rhs)
        for b in range(2 * P):
            for a in range(d):
                rhs[b, a] += 2.0 * v[b, a] - q1[b, a]
                rhs[b, a] += fixed[b, a] / rho if b < P else -fixed[b - P, a] / rho
        np.dot(rhs, inverse, H)
        np.dot(H, Xt, HX)
        gathered[:] = 0.0
        for b in range(P):
            for i in range(n):
                if D[b, i] > 0.0:
                    gathered[i] += HX[b, i] - HX[b + P, i]
        w = system @ gathered
        for b in range(P):
            for i in range(n):
                E[b, i] = D[b, i] * w[i]
        np.dot(E, XK, shift)
        for b in range(P):
            for a in range(d):
                H[b, a] -= shift[b, a]
                H[b + P, a] += shift[b, a]
        np.dot(H, Xt, HX)
        total = 0.0
        changed = False
        for b in range(2 * P):
            size = 0.0
            for a in range(d):
                step = H[b, a] - v[b, a]
                q1[b, a] += step
                total += step * step
                size += q1[b, a] * q1[b, a]
            state = np.sqrt(size) > threshold
            changed = changed or state != active[b]
            active[b] = state
            row = D[b] if b < P else D[b - P]
            for i in range(n):
                s = q2[b, i]
                if cones and s < 0.0:
                    s = 0.0
                step = (HX[b, i] if row[i] > 0.0 else -HX[b, i]) - s
                q2[b, i] += step
                total += step * step
                state = q2[b, i] > 0.0
                changed = changed or (cones and state != open_[b, i])
                open_[b, i] = state
        residuals[k] = np.sqrt(total)
        if changed and residuals[k] > floor:
            last = k + 1
    return last


@compiled
def _piece(
    q1: FloatArray, q2: FloatArray, threshold: float, active: BoolArray, open_: BoolArray
) -> None:
    for b in range(q1.shape[0]):
        active[b] = np.sqrt(np.sum(q1[b] ** 2)) > threshold
        for i in range(q2.shape[1]):
            open_[b, i] = q2[b, i] > 0.0


def _jacobian(result: ADMMResult) -> FloatArray:
    """Return T'(q), with T = q - prox + B u and u the least-squares solution at 2 prox - q."""
    X, D, rho = result.X / result.unit, result.patterns.astype(np.float64), result.penalty
    P, n = D.shape
    d = X.shape[1]
    size = 2 * P * (d + n)
    if size > _MAX_JACOBIAN:
        raise ValueError(
            f"arrangements: expected at most {_MAX_JACOBIAN} unknowns 2P(d + n) for "
            f"the rate, got {size}"
        )
    inverse, coupling = _least_squares(X, result.patterns)
    beta = result.beta / result.unit / result.scale
    sign = np.repeat([1.0, -1.0], P)
    masks = np.vstack([D, D])
    B = np.zeros((2 * P, d + n, 2 * P, d))
    A = np.zeros((n, 2 * P, d))
    threshold = beta / rho
    prox = np.zeros((2 * P, d + n, 2 * P, d + n))
    for b in range(2 * P):
        B[b, :d, b] = np.eye(d)
        B[b, d:, b] = (2.0 * masks[b] - 1.0)[:, None] * X
        A[:, b] = sign[b] * masks[b][:, None] * X
        q = result.state[b, :d]
        length = float(np.linalg.norm(q))
        if length > threshold:
            prox[b, :d, b, :d] = (1.0 - threshold / length) * np.eye(
                d
            ) + threshold / length**3 * np.outer(q, q)
        prox[b, np.arange(d, d + n), b, np.arange(d, d + n)] = (result.state[b, d:] > 0.0) | (
            not result.cones
        )
    flatB, flatA, flatP = B.reshape(size, -1), A.reshape(n, -1), prox.reshape(size, size)
    # (rho B'B + A'A)^{-1} by the same reduction to n rows as in the iteration.
    blocks = np.kron(np.eye(2 * P), inverse) / rho
    middle = blocks @ flatA.T
    solve = blocks - middle @ np.linalg.solve(np.eye(n) + coupling / rho, middle.T)
    projection = flatB @ (rho * solve) @ flatB.T
    result_: FloatArray = np.eye(size) - flatP + projection @ (2.0 * flatP - np.eye(size))
    return result_


def _evaluate(
    X: FloatArray, y: FloatArray, beta: float, patterns: BoolArray, v: FloatArray, cones: bool
) -> tuple[Network, float, float]:
    """Return the network of the blocks, the objective and a lower bound of the program."""
    lengths = np.linalg.norm(v, axis=1)
    used = np.flatnonzero(lengths)
    root = np.sqrt(lengths[used])
    sign = np.where(used < len(patterns), 1.0, -1.0)
    network = Network(v[used] / root[:, None], sign * root)
    if cones:
        certificate = certify(X, y, beta, network, arrangements=patterns)
        return network, certificate.objective, certificate.dual_objective
    gates = patterns[used % len(patterns)]
    residual = y - sign @ np.where(gates, v[used] @ X.T, 0.0)
    norm = float(np.linalg.norm((patterns * residual) @ X, axis=1).max())
    z = residual * min(1.0, beta / max(norm, 1e-300))
    objective = 0.5 * float(residual @ residual) + beta * float(lengths.sum())
    return network, objective, float(z @ y - 0.5 * z @ z)


def _difference(objective: float, dual_objective: float) -> float:
    # The objective of an iterate outside its cones is no upper bound.
    return relative_gap(max(objective, dual_objective), min(objective, dual_objective))


def _violation(X: FloatArray, patterns: BoolArray, v: FloatArray) -> float:
    size = float(np.linalg.norm(v)) * float(np.linalg.norm(X, axis=1).max())
    signs = np.where(np.vstack([patterns, patterns]), 1.0, -1.0)
    return max(0.0, -float((signs * (v @ X.T)).min())) / size if size > 0.0 else 0.0


# The Lasso.


def _lasso(features: FloatArray, y: FloatArray, beta: float) -> FloatArray:
    """Minimise |features @ a - y|^2 / 2 + beta |a|_1 by an active-set method in the manner of
    Lawson and Hanson."""
    active: list[int] = []
    columns = np.zeros((len(y), 0))
    signs, sizes = np.zeros(0), np.zeros(0)
    best = math.inf
    for _ in range(100 + 20 * min(features.shape)):
        residual = y - columns @ sizes
        slope = features.T @ residual
        j = int(np.argmax(np.abs(slope)))
        value = 0.5 * float(residual @ residual) + beta * float(sizes.sum())
        # Every round lowers the value unless rounding stops it.
        if abs(slope[j]) <= beta * (1.0 + 1e-14) or value >= best or j in active:
            break
        best = value
        column = math.copysign(1.0, slope[j]) * features[:, j]
        change, *_ = np.linalg.lstsq(columns, column, rcond=None)
        if np.linalg.norm(column - columns @ change) <= 1e-11 * np.linalg.norm(column):
            # The new column depends on the others: shift weight to it at constant fit, which
            # shortens the l1 norm.
            shrinking = np.flatnonzero(change > 0.0)
            ratios = sizes[shrinking] / change[shrinking]
            step = float(ratios.min())
            sizes = sizes - step * change
            out = int(shrinking[np.argmin(ratios)])
            keep = np.arange(len(active)) != out
            sizes, columns, signs = sizes[keep], columns[:, keep], signs[keep]
            active = [a for a, k in zip(active, keep, strict=True) if k]
        else:
            step = 0.0
        active.append(j)
        signs, sizes = np.append(signs, math.copysign(1.0, slope[j])), np.append(sizes, step)
        columns = np.column_stack([columns, column])
        while active:
            Q, R = np.linalg.qr(columns)
            target = np.linalg.solve(R, Q.T @ y - beta * np.linalg.solve(R.T, np.ones(len(active))))
            negative = np.flatnonzero(target <= 0.0)
            if negative.size == 0:
                sizes = target
                break
            ratios = sizes[negative] / (sizes[negative] - target[negative])
            out = int(negative[np.argmin(ratios)])
            sizes = sizes + float(ratios.min()) * (target - sizes)
            keep = np.arange(len(active)) != out
            sizes, columns, signs = np.maximum(sizes[keep], 0.0), columns[:, keep], signs[keep]
            active = [a for a, k in zip(active, keep, strict=True) if k]
    alpha = np.zeros(features.shape[1])
    alpha[active] = signs * sizes
    return alpha


# The plane.


def _arcs(X: FloatArray, v: FloatArray) -> list[tuple[float, float, FloatArray]]:
    """Return the arcs between the kinks of v' relu(X u), with its gradient on each."""
    used = X[np.any(X != 0.0, axis=1)]
    angles = np.arctan2(used[:, 1], used[:, 0])
    breaks = np.unique(
        np.concatenate([angles + 0.5 * math.pi, angles - 0.5 * math.pi]) % (2.0 * math.pi)
    )
    if breaks.size == 0:
        return []
    result = []
    for start, stop in zip(breaks, np.append(breaks[1:], breaks[0] + 2.0 * math.pi), strict=True):
        middle = 0.5 * (start + stop)
        on = X @ np.array([math.cos(middle), math.sin(middle)]) > 0.0
        result.append((float(start), float(stop), v[on] @ X[on]))
    return result


def _largest(start: float, stop: float, centre: float, radius: float) -> float:
    """Return the largest |radius cos(angle - centre)| on an arc shorter than pi."""
    inside = any(start <= centre + k * math.pi <= stop for k in range(-3, 4))
    return (
        radius
        if inside
        else radius * max(abs(math.cos(start - centre)), abs(math.cos(stop - centre)))
    )


# ADMM written out.


@result
class ADMMIteration:
    r"""One iteration of ADMM as published: every matrix written out, for any number type.

    It is there to be studied: started anywhere, counted, perturbed. ``train_admm`` takes the same
    steps by a reduction to n rows, at a cost linear in the number $N=2Pd$ of variables; with
    the stored inverse a call takes $N^2+2nN+(2+1/d)N$ multiplications and divisions.

    Parameters
    ----------
    X, y, beta, patterns, penalty, cones
        The problem, divided by the powers of 64 of the result it was made from.
    inverse
        $(I+G^\top G+A^\top A/\rho)^{-1}$, shape (N, N).
    offset
        ``inverse`` times $A^\top y/\rho$, shape (N,).
    rows
        The blocks of G, shape (2P, n, d).
    threshold
        beta / rho.
    """

    X: FloatArray
    y: FloatArray
    beta: float
    patterns: BoolArray
    penalty: float
    cones: bool
    inverse: FloatArray
    offset: FloatArray
    rows: FloatArray
    threshold: float

    def proximal(self, q: FloatArray) -> FloatArray:
        """Return (v, s) of shape (2P, d + n): the thresholded blocks and the clipped slacks."""
        blocks, slacks = np.hsplit(q, [self.X.shape[1]])
        lengths = np.sqrt((blocks * blocks).sum(axis=1, keepdims=True))
        positive = np.where(lengths > self.threshold, lengths, self.threshold)
        kept = np.maximum(slacks, 0.0) if self.cones else slacks
        return np.hstack([(1.0 - self.threshold / positive) * blocks, kept])

    def __call__(
        self, targets: FloatArray, multipliers: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return (v, s) and (lambda, nu) after one more iteration, shapes (2P, d + n)."""
        d = self.X.shape[1]
        wanted = targets - multipliers
        right = wanted[:, :d] + (wanted[:, None, d:] @ self.rows)[:, 0]
        u = (self.offset + self.inverse @ right.ravel()).reshape(-1, d)
        q = np.hstack([u, (self.rows @ u[:, :, None])[:, :, 0]]) + multipliers
        after = self.proximal(q)
        return after, q - after

    def apply(self, q: FloatArray) -> FloatArray:
        """Return T(q), for the fixed-point variable of ``ADMMResult.state``."""
        targets = self.proximal(q)
        return np.add(*self(targets, q - targets))

    def fixed_point(self, network: Network) -> FloatArray:
        r"""Return the state at an optimal network: a fixed point of ``apply``, off its kinks.

        A neuron on faces of cells is divided evenly among them. The multipliers are those of the
        projections of $\pm X^\top D_iz$ onto the cones, moved inwards where they are not
        unique.

        Parameters
        ----------
        network
            Optimal for ``X``, ``y``, ``beta``; every neuron in the cone of one of the patterns.
        """
        (P, n), d = self.patterns.shape, self.X.shape[1]
        blocks, residual = np.zeros((2 * P, d)), self.y - network(self.X)
        for w, a in zip(network.weights, network.output_weights, strict=True):
            half = slice(0, P) if a > 0 else slice(P, 2 * P)
            room = self.rows[half] @ w
            size = np.linalg.norm(self.X, axis=1) * np.linalg.norm(w)
            holds = np.flatnonzero((room >= -1e-9 * size).all(axis=1))
            if holds.size == 0:
                raise ValueError("network: expected neurons in the cones of the patterns")
            blocks[half][holds] += abs(a) * w / holds.size
        state = np.empty((2 * P, d + n))
        slopes = np.vstack([self.patterns * residual, -(self.patterns * residual)]) @ self.X
        for b, (slope, G) in enumerate(zip(slopes, self.rows, strict=True)):
            nu, _ = nnls(G.T, -slope)
            spare = self.beta - float(np.linalg.norm(slope + G.T @ nu))
            if not blocks[b].any() and spare > 1e-7 * self.beta:
                nu += 0.5 * spare / max(float(np.linalg.norm(G.sum(axis=0))), self.beta)
            state[b, :d] = blocks[b] + (slope + G.T @ nu) / self.penalty
            state[b, d:] = G @ blocks[b] - nu / self.penalty
        return state


def admm_iteration(result: ADMMResult) -> ADMMIteration:
    """Return the iteration that ``train_admm`` ran, written out.

    Parameters
    ----------
    result
        Any result; one iteration is enough.

    Examples
    --------
    >>> result = train_admm([[1.0], [2.0]], [1.0, 2.0], 0.1)
    >>> step = admm_iteration(result)
    >>> bool(np.allclose(step.apply(result.state), result.state, atol=1e-4))
    True
    """
    result = as_instance(result, "result", ADMMResult)
    X, y = result.X / result.unit, result.y / result.scale
    masks = np.vstack([result.patterns, result.patterns]).astype(np.float64)
    sign = np.repeat([1.0, -1.0], len(result.patterns))
    A = ((sign[:, None] * masks)[:, :, None] * X).transpose(1, 0, 2).reshape(len(y), -1)
    rows = (2.0 * masks - 1.0)[:, :, None] * X
    size = A.shape[1]
    system = np.eye(size) + A.T @ A / result.penalty
    d = X.shape[1]
    for b, G in enumerate(rows):
        system[b * d : (b + 1) * d, b * d : (b + 1) * d] += G.T @ G
    inverse = np.asarray(np.linalg.inv(system), dtype=np.float64)
    beta = result.beta / result.unit / result.scale
    return ADMMIteration(
        *(X, y, beta, result.patterns, result.penalty, result.cones),
        inverse,
        inverse @ (A.T @ y) / result.penalty,
        rows,
        beta / result.penalty,
    )
