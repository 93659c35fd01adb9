r"""Adversarial training of two-layer ReLU networks: the robust convex program, exact attacks, and
where training collapses.

Every input may move by $\|\delta\|_p\le\epsilon$, p infinite or 2; q is the dual exponent, 1
or 2. A neuron v with $|x_k^\top v|\ge\epsilon\|v\|_q$ for all k keeps its pattern D on all
balls, so that a network of such *stable* neurons is affine on every ball and its worst case is
explicit. With signs $\sigma_b$ and $S_b=2D_b-I$ the robust convex program

$$\min_{S_bXv_b\ge\epsilon\|v_b\|_q}\ \sum_k\ell_k\big(g_k^\top x_k,\
\epsilon\|g_k\|_q\big)+\beta\sum_b\|v_b\|_2,\qquad
g_k=\sum_b\sigma_bd_{bk}v_b,$$

with $\ell_k(f,r)=(1-y_kf+r)_+$ (hinge) or $\frac12(|f-y_k|+r)^2$ (squared) is therefore
robust training restricted to stable networks, exactly: an upper bound of the min-max value over all
networks, in general a strict one.

Its dual is a game against weighted perturbed data: maximise $\sum_ka_k$ over
$0\le a_k\le1,\ \|\eta_k\|_p\le\epsilon a_k$ such that
$h_b=\sigma_b\sum_kd_{bk}(y_ka_kx_k+\eta_k)$ satisfies $h_b^\top v\le\beta\|v\|_2$ on
the cone of every block (squared loss: $\sum_k(c_ky_k-\frac12a_k^2)$, $|c_k|\le a_k$,
with $c_k$ for $y_ka_k$). Multipliers $\lambda\ge0,\
\|\zeta\|_p\le\epsilon\sum_k\lambda_k$ prove it:
$\|h_b+\sum_k\lambda_ks_kx_k-\zeta\|_2\le\beta$.

Pattern D has a non-zero stable neuron iff $\epsilon\le\mu=\max_{\|v\|_q\le1}\min_ks_kx_k^\top
v$, the half-width of a corridor through the origin; beyond the widest corridor only the zero
network is left. """

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from enum import StrEnum
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, linprog, minimize, nnls

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_flag,
    as_instance,
    as_real,
    one_of,
)
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._problem import as_patterns, augment
from theorylab.convex_relu.arrangements import cover_count, enumerate_arrangements
from theorylab.numerics.bounds import power_of_two, relative_gap
from theorylab.numerics.results import result

__all__ = [
    "Attack",
    "RobustResult",
    "RobustStatus",
    "collapse_radius",
    "corridor_widths",
    "improve_adversarially",
    "linearized_loss",
    "random_stable_network",
    "robust_trainer",
    "stability_radii",
    "train_robust",
    "worst_case",
]

BoolArray = NDArray[np.bool_]

_LOSSES = ("hinge", "squared")
_BALLS = ("linf", "l2")
_MAX_CANDIDATES = 2_000_000


class RobustStatus(StrEnum):
    """How well the robust program was solved."""

    SOLVED = "optimal: the relative duality gap is at most tol"
    INACCURATE = (
        "the conic solver left a relative duality gap above tol; the bounds hold, "
        "rescale the data or raise tol"
    )


@result
class Attack:
    """The worst perturbation of every input.

    Parameters
    ----------
    perturbations
        Shape (n, d), inside the ball.
    outputs
        Outputs at the perturbed inputs, shape (n,).
    losses
        Losses there, shape (n,): no perturbation in the ball does more harm.
    """

    perturbations: FloatArray
    outputs: FloatArray
    losses: FloatArray

    @property
    def loss(self) -> float:
        """Worst-case loss, summed over inputs."""
        return float(self.losses.sum())


@result
class RobustResult:
    """Solution of the robust convex program.

    Parameters
    ----------
    network
        Network of stable neurons; its worst-case loss is the one in ``objective``.
    objective
        Worst-case loss plus penalty, of a feasible point.
    dual_objective
        Lower bound of the program, from multipliers checked apart from the solver. Not a bound for
        unstable networks.
    blocks, block_patterns, signs
        Non-zero neurons v_b, shape (m, d) or (m, d + 1) with bias, their patterns (m, n) and output
        signs (m,).
    adversary_weights, adversary
        Optimal play of the dual: weights a, shape (n,), and moves eta / a, shape (n, d), of the
        inputs (zero where a is).
    status
        How well it was solved.
    """

    network: Network
    objective: float
    dual_objective: float
    blocks: FloatArray
    block_patterns: BoolArray
    signs: FloatArray
    adversary_weights: FloatArray
    adversary: FloatArray
    status: RobustStatus

    @property
    def gap(self) -> float:
        """Relative duality gap."""
        return relative_gap(self.objective, self.dual_objective)


def train_robust(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    eps: float,
    loss: str = "hinge",
    ball: str = "linf",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    tol: float = 1e-06,
) -> RobustResult:
    """Train the best network whose neurons are stable on all perturbation balls.

    Parameters
    ----------
    X
        Data, shape (n, d).
    y
        Labels -1 and 1 for the hinge loss, real targets for the squared loss; shape (n,).
    beta
        Penalty, positive: the objective is ``loss + beta / 2 * sum_j (|u_j|^2 + a_j^2)``, losses
        summed, as in ``train``.
    eps
        Radius of the balls, >= 0.
    loss, ball
        "hinge" or "squared"; "linf" or "l2".
    arrangements
        "all", or patterns of shape (P, n) of the data (of the data with a column of ones, with
        bias).
    bias
        Give every neuron a bias, penalised like a weight and not perturbed.
    tol
        Relative duality gap above which a warning is given.

    Returns
    -------
    RobustResult
        Network, objective, lower bound, the adversary's play.

    Raises
    ------
    ValueError
        For malformed data or numbers out of range.

    Notes
    -----
    bai2021-practical and bai2022-efficient, Section 4, give the program as an upper bound; that it
    equals robust training of stable networks, and the dual, are derived here.

    Examples
    --------
    >>> from theorylab.convex_relu import train_robust
    >>> X, y = [[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1]], [1.0, -1.0, 1.0]
    >>> robust = train_robust(X, y, 0.1, eps=0.1)
    >>> robust.gap < 1e-6
    True
    """
    return robust_trainer(
        X, y, beta, loss=loss, ball=ball, arrangements=arrangements, bias=bias, tol=tol
    )(eps)


def robust_trainer(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    loss: str = "hinge",
    ball: str = "linf",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    tol: float = 1e-6,
) -> Callable[[float], RobustResult]:
    """Prepare ``train_robust`` for many radii: the program is set up once, with the radius as a
    parameter.

    Parameters
    ----------
    X, y, beta, loss, ball, arrangements, bias, tol
        As for ``train_robust``.

    Returns
    -------
    Callable
        A function of the radius ``eps`` that returns the ``RobustResult``.

    Raises
    ------
    ValueError
        For malformed data or numbers out of range.

    Examples
    --------
    >>> from theorylab.convex_relu import robust_trainer
    >>> X, y = [[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1]], [1.0, -1.0, 1.0]
    >>> solve = robust_trainer(X, y, 0.1)
    >>> solve(0.0).objective <= solve(0.1).objective + 1e-6
    True
    """
    X, y, beta, loss, ball, patterns, bias = _problem(X, y, beta, loss, ball, arrangements, bias)
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    data = augment(X, bias)
    d = X.shape[1]
    # Exact divisions: the program, and the solver's tolerances, do not depend on units.
    unit = power_of_two(np.linalg.norm(data, axis=1))
    scale = power_of_two(y) if loss == "squared" else 1.0
    data, y, beta = data / unit, y / scale, beta / unit / scale
    solved = _solver(data, y, beta, loss, ball, patterns, d)

    def trained(eps: float) -> RobustResult:
        eps = as_real(eps, "eps", minimum=0.0) / unit
        lower, a, eta, V = solved(eps)
        V = _stabilized(V, data, eps, ball, patterns, d)
        kept = np.flatnonzero(np.any(V != 0.0, axis=1))
        signs = np.where(kept < len(patterns), 1.0, -1.0)
        block_patterns = patterns[kept % len(patterns)]
        gates = signs[:, None] * block_patterns
        blocks, objective = _rescaled(V[kept], data, y, beta, eps, loss, ball, gates, d)
        size = scale * scale
        blocks, objective, lower = scale / unit * blocks, size * objective, size * lower
        root = np.sqrt(np.linalg.norm(blocks, axis=1))
        weights = blocks / root[:, None]
        network = Network(
            np.ascontiguousarray(weights[:, :d]),
            signs * root,
            weights[:, d] if bias else np.zeros(len(weights)),
        )
        adversary = np.divide(eta, a[:, None], out=np.zeros_like(eta), where=a[:, None] > 0.0)
        gap = relative_gap(objective, lower)
        status = RobustStatus.SOLVED if gap <= tol else RobustStatus.INACCURATE
        if status is not RobustStatus.SOLVED:
            warnings.warn(f"relative gap {gap:.1e}: {status.value}", RuntimeWarning, stacklevel=2)
        return RobustResult(
            network,
            objective,
            lower,
            blocks,
            block_patterns,
            signs,
            scale * a,
            unit * adversary,
            status,
        )

    return trained


def worst_case(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    *,
    loss: str = "hinge",
    ball: str = "linf",
) -> Attack:
    """Find the worst perturbation of every input of any two-layer ReLU network, exactly.

    Parameters
    ----------
    network
        Network with one output; biases and a skip connection are allowed.
    X, y
        Data, shape (n, d), and labels or targets, shape (n,).
    eps
        Radius of the balls, >= 0.
    loss, ball
        "hinge" or "squared"; "linf" or "l2".

    Returns
    -------
    Attack
        Perturbations, outputs and losses.

    Raises
    ------
    ValueError
        For malformed data, or where more than two million points would have to be compared.

    Notes
    -----
    On each activation region inside the ball the network is affine, so that it is extreme at an
    extreme point of the region's closure: where d independent hyperplanes meet (of neurons, or
    faces of the box), or, on the sphere, at the extreme point of an affine function on a flat in
    which k < d of the neurons' hyperplanes meet. All of these points are compared; only neurons
    that change sign inside the ball take part. Exponential in d.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import Network, worst_case
    >>> network = Network(np.array([[1.0, 0.0]]), np.array([1.0]))
    >>> worst_case(network, [[1.0, 0.0]], [1.0], 0.25).losses
    array([0.25])
    """
    network, X, y, loss, ball = _attacked(network, X, y, loss, ball)
    eps = as_real(eps, "eps", minimum=0.0)
    perturbations, outputs, losses = np.zeros_like(X), np.empty(len(X)), np.empty(len(X))
    for k, x in enumerate(X):
        points = _extreme_points(network, x, eps, ball)
        values = network(x + points)
        harm = _losses(values, y[k], loss)
        # Of equally harmful points (a hinge at zero), the one with the least margin.
        best = (
            int(np.lexsort((y[k] * values, -harm))[0]) if loss == "hinge" else int(np.argmax(harm))
        )
        perturbations[k], outputs[k], losses[k] = points[best], values[best], harm[best]
    return Attack(perturbations, outputs, losses)


def linearized_loss(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    *,
    loss: str = "hinge",
    ball: str = "linf",
) -> float:
    r"""Return the worst-case loss of the network's linearisation at every input, the robust
    program's loss.

    Parameters
    ----------
    network, X, y, eps, loss, ball
        As for ``worst_case``.

    Returns
    -------
    float
        $\sum_k\ell_k(f(x_k),\epsilon\|\nabla f(x_k)\|_q)$; the true worst case if every
        neuron is stable.

    Raises
    ------
    ValueError
        For malformed data or numbers out of range.

    Notes
    -----
    bai2021-practical (convex adversarial training).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import linearized_loss, Network
    >>> network = Network(np.array([[1.0, 0.0]]), np.array([1.0]))
    >>> linearized_loss(network, [[1.0, 0.0]], [1.0], 0.25)
    0.25
    """
    network, X, y, loss, ball = _attacked(network, X, y, loss, ball)
    eps = as_real(eps, "eps", minimum=0.0)
    W, b, a, linear = _layers(network)
    gradients = ((X @ W.T + b >= 0.0) * a) @ W + linear
    return float(_robust_losses(network(X), eps * _dual_norm(gradients, ball), y, loss).sum())


def stability_radii(network: Network, X: ArrayLike, *, ball: str = "linf") -> FloatArray:
    r"""Return the largest radius at which each neuron changes sign on no ball, $\min_k|w^\top
    x_k+b|/\|w\|_q$.

    Parameters
    ----------
    network
        Network with m neurons.
    X
        Data, shape (n, d).
    ball
        "linf" or "l2".

    Returns
    -------
    ndarray
        Shape (m,); infinite for a neuron with zero weights.

    Raises
    ------
    ValueError
        For malformed data or an unknown ball.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import Network, stability_radii
    >>> network = Network(np.array([[3.0, 4.0]]), np.array([1.0]))
    >>> stability_radii(network, [[1.0, 0.5]], ball="l2")
    array([1.])
    """
    network = as_instance(network, "network", Network)
    X = as_array(X, "X", shape=(None, network.weights.shape[1]))
    ball = one_of(ball, "ball", _BALLS)
    W, b, _, _ = _layers(network)
    least = np.abs(X @ W.T + b).min(axis=0)
    lengths = _dual_norm(W, ball)
    radii: FloatArray = np.divide(
        least, lengths, out=np.full_like(least, np.inf), where=lengths > 0.0
    )
    return radii


def corridor_widths(
    X: ArrayLike, *, ball: str = "linf", arrangements: str | ArrayLike = "all"
) -> FloatArray:
    r"""Return the largest radius at which each pattern has a stable neuron,
    $\mu_i=\max_{\|v\|_q\le1}\min_k(2D_i-I)_{kk}x_k^\top v$.

    Parameters
    ----------
    X
        Data, shape (n, d).
    ball
        "linf" (then v is bounded in the l1 norm) or "l2".
    arrangements
        "all", in the order of ``enumerate_arrangements``, or patterns of shape (P, n).

    Returns
    -------
    ndarray
        Shape (P,), >= 0. Robust training returns the zero network at every radius above their
        maximum.

    Raises
    ------
    ValueError
        For malformed data or patterns.

    Notes
    -----
    Derived from the cone constraint of bai2021-practical. By duality $\mu_i$ is the least
    $\ell_p$ norm in the convex hull of the points $(2D_i-I)_{kk}x_k$: a linear program,
    or for p = 2 a non-negative least-squares problem.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import corridor_widths
    >>> np.round(corridor_widths([[1.0], [2.0]]), 6)
    array([1., 1.])
    """
    X = as_array(X, "X", ndim=2)
    ball = one_of(ball, "ball", _BALLS)
    patterns = as_patterns(arrangements, X.shape[0])
    patterns = enumerate_arrangements(X) if patterns is None else patterns
    unit = power_of_two(X)
    signs = np.where(patterns, 1.0, -1.0)
    return unit * np.array([_corridor(side[:, None] * (X / unit), ball) for side in signs])


def collapse_radius(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    loss: str = "hinge",
    ball: str = "linf",
    arrangements: str | ArrayLike = "all",
    tol: float = 1e-6,
) -> float:
    r"""Return the radius from which on the zero network solves the robust program.

    Parameters
    ----------
    X, y, beta, loss, ball, arrangements
        The problem, as for ``train_robust`` without bias.
    tol
        Accuracy, relative to the widest corridor.

    Returns
    -------
    float
        The radius: at most the widest corridor, zero if the network is zero without perturbations
        already.

    Raises
    ------
    ValueError
        For malformed data or numbers out of range.

    Notes
    -----
    Derived. Zero is optimal iff the slope $\sum_k(-y_kf_k+\epsilon|y_k|\|g_k\|_q)$ of the
    loss is at least $-\beta$ over stable blocks with $\sum_b\|v_b\|\le1$. The least
    slope does not decrease with the radius: bisection up to the widest corridor.

    Examples
    --------
    >>> from theorylab.convex_relu import collapse_radius
    >>> X, y = [[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1]], [1.0, -1.0, 1.0]
    >>> 0 < collapse_radius(X, y, 0.1, tol=0.1)
    True
    """
    X, y, beta, loss, ball, patterns, _ = _problem(X, y, beta, loss, ball, arrangements, False)
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    unit, scale = power_of_two(X), power_of_two(y)
    X, y, beta = X / unit, y / scale, beta / unit / scale
    widest = float(corridor_widths(X, ball=ball, arrangements=patterns).max())
    slope = _least_slope(X, y, ball, patterns)
    low, high = 0.0, widest
    if slope(low) >= -beta:
        return 0.0
    while high - low > tol * widest:
        middle = 0.5 * (low + high)
        if slope(middle) >= -beta:
            high = middle
        else:
            low = middle
    # An end that was never tried is the corridor itself, where the cones close.
    return unit * (widest if high == widest else 0.5 * (low + high))


def improve_adversarially(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    eps: float,
    loss: str = "hinge",
    ball: str = "linf",
    bias: bool = False,
    n_rounds: int = 6,
) -> Network:
    r"""Lower the worst-case loss plus penalty of a network locally, unstable neurons allowed.

    Parameters
    ----------
    network
        Where to start; at least one neuron, no skip connection, biases only with ``bias``.
    X, y, beta, eps, loss, ball, bias
        The problem, as for ``train_robust``.
    n_rounds
        Most rounds of: attack exactly, add the attack to the finite set of perturbations met so
        far, and minimise against that set (by sequential quadratic programming). They end once no
        attack does more harm than those met.

    Returns
    -------
    Network
        The best network met, never worse than the given one at its exact worst case.

    Raises
    ------
    ValueError
        For malformed data or numbers out of range.

    Notes
    -----
    The non-convex min-max problem of bai2022-efficient, Section 4, in its local form.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import improve_adversarially, Network
    >>> X, y = [[1.0, 0.2], [-0.3, 0.9], [0.4, -1.1]], [1.0, -1.0, 1.0]
    >>> network = Network(np.array([[1.0, 0.0]]), np.array([1.0]))
    >>> better = improve_adversarially(network, X, y, 0.1, eps=0.1, n_rounds=1)
    >>> better.weights.shape
    (1, 2)
    """
    network, X, y, loss, ball = _attacked(network, X, y, loss, ball)
    beta, eps = as_real(beta, "beta", above=0.0), as_real(eps, "eps", minimum=0.0)
    bias = as_flag(bias, "bias")
    n_rounds = as_count(n_rounds, "n_rounds")
    if network.n_neurons == 0 or np.any(network.linear) or np.any(network.offset):
        raise ValueError("network: expected at least one neuron and no skip connection")
    if not bias and np.any(network.biases):
        raise ValueError("network: expected no biases without bias=True, got non-zero ones")
    best, current = network, network
    attack = worst_case(network, X, y, eps, loss=loss, ball=ball)
    value = attack.loss + beta * network.penalty
    rows, inputs = np.arange(len(X)), X
    for _ in range(n_rounds):
        rows, inputs = _distinct(
            np.append(rows, np.arange(len(X))), np.vstack([inputs, X + attack.perturbations])
        )
        current = _against(current, rows, inputs, y, beta, loss, bias)
        attack = worst_case(current, X, y, eps, loss=loss, ball=ball)
        attained = attack.loss + beta * current.penalty
        if attained < value:
            best, value = current, attained
        met = np.zeros(len(X))
        np.maximum.at(met, rows, _losses(current(inputs), y[rows], loss))
        if attack.loss <= float(met.sum()) * (1.0 + 1e-12):
            break
    return best


# Validation.


def _problem(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    loss: str,
    ball: str,
    arrangements: str | ArrayLike,
    bias: bool,
) -> tuple[FloatArray, FloatArray, float, str, str, BoolArray, bool]:
    X = as_array(X, "X", ndim=2)
    loss, ball = one_of(loss, "loss", _LOSSES), one_of(ball, "ball", _BALLS)
    y = _targets(y, X, loss)
    bias = as_flag(bias, "bias")
    patterns = as_patterns(arrangements, X.shape[0])
    patterns = enumerate_arrangements(augment(X, bias)) if patterns is None else patterns
    return X, y, as_real(beta, "beta", above=0.0), loss, ball, patterns, bias


def _targets(y: ArrayLike, X: FloatArray, loss: str) -> FloatArray:
    y = as_array(y, "y", shape=(X.shape[0],))
    if loss == "hinge" and not np.all(np.abs(y) == 1.0):
        raise ValueError(
            f"y: expected labels -1 and 1 for the hinge loss, got {y[np.abs(y) != 1.0][0]}"
        )
    return y


def _attacked(
    network: Network, X: ArrayLike, y: ArrayLike, loss: str, ball: str
) -> tuple[Network, FloatArray, FloatArray, str, str]:
    network = as_instance(network, "network", Network)
    if network.output_weights.ndim != 1:
        raise ValueError(
            "network: expected one output, got output weights of shape "
            f"{network.output_weights.shape}"
        )
    X = as_array(X, "X", shape=(None, network.weights.shape[1]))
    loss, ball = one_of(loss, "loss", _LOSSES), one_of(ball, "ball", _BALLS)
    return network, X, _targets(y, X, loss), loss, ball


def _layers(network: Network) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return first layer, biases, output weights and skip connection."""
    return network.weights, network.biases, network.output_weights, network.linear


def _dual_norm(rows: FloatArray, ball: str) -> FloatArray:
    result: FloatArray = np.linalg.norm(rows, ord=1 if ball == "linf" else 2, axis=-1)
    return result


def _losses(f: FloatArray, y: FloatArray | float, loss: str) -> FloatArray:
    return np.maximum(1.0 - y * f, 0.0) if loss == "hinge" else 0.5 * (f - y) ** 2


def _robust_losses(f: FloatArray, moves: FloatArray, y: FloatArray, loss: str) -> FloatArray:
    return (
        np.maximum(1.0 - y * f + moves, 0.0)
        if loss == "hinge"
        else 0.5 * (np.abs(f - y) + moves) ** 2
    )


# The convex program.


def _cvxpy() -> Any:
    """Import cvxpy when it is used; its names are made at run time, unknown to type checkers."""
    import cvxpy

    return cvxpy


def _solve(problem: Any) -> None:
    cp = _cvxpy()

    with warnings.catch_warnings():
        # Inaccurate solutions are repaired and judged by the duality gap.
        warnings.simplefilter("ignore")
        tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
        # Without a warm start the result does not depend on what was solved before.
        problem.solve(solver=cp.CLARABEL, warm_start=False, max_iter=200, **tolerances)


def _slacks(
    V: FloatArray, data: FloatArray, signs: FloatArray, eps: float, ball: str, d: int
) -> FloatArray:
    result: FloatArray = (signs * (V @ data.T)).min(axis=1) - eps * _dual_norm(V[:, :d], ball)
    return result


def _stabilized(
    V: FloatArray, data: FloatArray, eps: float, ball: str, patterns: BoolArray, d: int
) -> FloatArray:
    """Drop blocks of the size of the solver's error and move the others into their cones, towards a
    point deep inside."""
    V = V.copy()
    lengths = np.linalg.norm(V, axis=1)
    V[lengths <= 1e-7 * max(lengths.max(), 1e-300)] = 0.0
    V[lengths <= 1e-9] = 0.0
    scale = float(np.abs(data).sum(axis=1).max())
    used = np.flatnonzero(np.any(V != 0.0, axis=1))
    signs = np.where(patterns[used % len(patterns)], 1.0, -1.0)
    # Rounding of the cones' inequalities, as they are evaluated by whoever checks them.
    margins = 1e-14 * scale * np.linalg.norm(V[used], axis=1) if eps > 0.0 else np.zeros(len(used))
    missing = margins - _slacks(V[used], data, signs, eps, ball, d)
    outside = missing > 0.0
    if outside.any():
        used, signs, missing = used[outside], signs[outside], missing[outside]
        centres = _centres(data, signs, eps, ball, d)
        depths = _slacks(centres, data, signs, eps, ball, d)
        reached = (depths > 0.0) & (missing <= 0.1 * depths)
        V[used[~reached]] = 0.0
        V[used[reached]] += (missing[reached] / depths[reached])[:, None] * centres[reached]
    return V


def _rescaled(
    blocks: FloatArray,
    data: FloatArray,
    y: FloatArray,
    beta: float,
    eps: float,
    loss: str,
    ball: str,
    gates: FloatArray,
    d: int,
) -> tuple[FloatArray, float]:
    """Make good for dropped blocks by the best multiple of the others, which stays feasible; return
    it and its objective.

    A hinge is met exactly by the optimum and missed by the size of a dropped block, at a cost far
    above that block's."""
    outputs = np.sum(gates * (blocks @ data.T), axis=0)
    moves = eps * _dual_norm(gates.T @ blocks[:, :d], ball)
    size = beta * float(np.linalg.norm(blocks, axis=1).sum())
    factors = [1.0]
    if loss == "hinge":
        margins = y * outputs - moves
        factors += [float(1.0 / m) for m in margins[np.abs(margins - 1.0) < 1e-3]]
    values = [
        float(_robust_losses(t * outputs, t * moves, y, loss).sum()) + t * size for t in factors
    ]
    best = int(np.argmin(values))
    return factors[best] * blocks, values[best]


def _centres(data: FloatArray, signs: FloatArray, eps: float, ball: str, d: int) -> FloatArray:
    """Return the points of unit size with the largest slack of each cone, all by one program: it is
    separable."""
    cp = _cvxpy()

    V = cp.Variable((len(signs), data.shape[1]))
    slacks = cp.min(cp.multiply(signs, V @ data.T), axis=1) - eps * cp.norm(
        V[:, :d], 1 if ball == "linf" else 2, axis=1
    )
    _solve(cp.Problem(cp.Maximize(cp.sum(slacks)), [cp.norm(V, 2, axis=1) <= 1.0]))
    return np.asarray(V.value, dtype=np.float64)


def _solver(
    data: FloatArray, y: FloatArray, beta: float, loss: str, ball: str, patterns: BoolArray, d: int
) -> Callable[[float], tuple[float, FloatArray, FloatArray, FloatArray]]:
    """Set up the dual; return a function of the radius that solves it.

    It returns a lower bound, the weights and moves of the adversary that attain it, and blocks,
    shape (2P, D): the multipliers of the dual's bounds. Where cones are thin they are more accurate
    than the solution of the program itself."""
    cp = _cvxpy()

    P, n = patterns.shape
    width = data.shape[1]
    p = np.inf if ball == "linf" else 2
    D = np.vstack([patterns, -1.0 * patterns])
    S = np.tile(2.0 * patterns - 1.0, (2, 1))
    embed = np.eye(d, width)
    radius = cp.Parameter(nonneg=True)
    a, eta = cp.Variable(n, nonneg=True), cp.Variable((n, d))
    c = cp.multiply(y, a) if loss == "hinge" else cp.Variable(n)
    lam, zeta = cp.Variable((2 * P, n), nonneg=True), cp.Variable((2 * P, d))
    h = D @ (cp.diag(c) @ data + eta @ embed)
    bounds = cp.SOC(beta * np.ones(2 * P), h + cp.multiply(S, lam) @ data - zeta @ embed, axis=1)
    constraints = [
        cp.norm(eta, p, axis=1) <= radius * a,
        cp.norm(zeta, p, axis=1) <= radius * cp.sum(lam, axis=1),
        bounds,
        a <= 1.0 if loss == "hinge" else cp.abs(c) <= a,
    ]
    value = cp.sum(a) if loss == "hinge" else c @ y - 0.5 * cp.sum_squares(a)
    problem = cp.Problem(cp.Maximize(value), constraints)

    def solved(eps: float) -> tuple[float, FloatArray, FloatArray, FloatArray]:
        radius.value = eps
        _solve(problem)
        if a.value is None:
            return 0.0, np.zeros(n), np.zeros((n, d)), np.zeros((2 * P, width))
        blocks = -np.asarray(bounds.dual_value[1], dtype=np.float64).reshape(2 * P, width)
        weights = np.clip(np.asarray(a.value), 0.0, 1.0 if loss == "hinge" else None)
        slope = y * weights if loss == "hinge" else np.clip(np.asarray(c.value), -weights, weights)
        moves = _shrink(np.asarray(eta.value), eps * weights, p)
        multipliers = np.maximum(np.asarray(lam.value), 0.0)
        corrections = _shrink(np.asarray(zeta.value), eps * multipliers.sum(axis=1), p)
        sums = (
            D @ (slope[:, None] * data + moves @ embed)
            + (S * multipliers) @ data
            - corrections @ embed
        )
        largest = float(np.linalg.norm(sums, axis=1).max())
        # Scaling everything keeps the multipliers valid.
        t = beta / largest if largest > beta else 1.0
        if loss == "hinge":
            return t * float(weights.sum()), t * weights, t * moves, blocks
        size = float(weights @ weights)
        t = min(beta / max(largest, 1e-300), float(slope @ y) / size) if size > 0.0 else 0.0
        t = max(t, 0.0)
        return t * float(slope @ y) - 0.5 * t**2 * size, t * weights, t * moves, blocks

    return solved


def _shrink(rows: FloatArray, radii: FloatArray, p: float) -> FloatArray:
    """Scale rows into balls of the given radii."""
    lengths = np.linalg.norm(rows, ord=p, axis=1)
    factors = np.minimum(
        1.0, np.divide(radii, lengths, out=np.ones_like(lengths), where=lengths > 0.0)
    )
    result: FloatArray = factors[:, None] * rows
    return result


def _least_slope(
    X: FloatArray, y: FloatArray, ball: str, patterns: BoolArray
) -> Callable[[float], float]:
    """Return the least slope of the loss over stable blocks with norms of sum 1 as a function of
    the radius."""
    cp = _cvxpy()

    P, n = patterns.shape
    q = 1 if ball == "linf" else 2
    D = np.vstack([patterns, patterns]).astype(np.float64)
    gates = np.repeat([1.0, -1.0], P)[:, None] * D
    radius = cp.Parameter(nonneg=True)
    V = cp.Variable((2 * P, X.shape[1]))
    preactivations = V @ X.T
    outputs = cp.sum(cp.multiply(gates, preactivations), axis=0)
    moves = cp.norm(gates.T @ V, q, axis=1)
    lengths = cp.reshape(cp.norm(V, q, axis=1), (2 * P, 1), order="C")
    slope = -y @ outputs + radius * (np.abs(y) @ moves)
    constraints = [
        cp.multiply(2.0 * D - 1.0, preactivations) >= (radius * lengths) @ np.ones((1, n)),
        cp.sum(cp.norm(V, 2, axis=1)) <= 1.0,
    ]
    problem = cp.Problem(cp.Minimize(slope), constraints)

    def least(eps: float) -> float:
        radius.value = eps
        _solve(problem)
        return float(problem.value)

    return least


def _corridor(points: FloatArray, ball: str) -> float:
    """Return the least norm in the convex hull of the points, the width of the corridor that they
    leave on one side."""
    n, d = points.shape
    if ball == "l2":
        # The residual of this problem is proportional to (nearest point, -|nearest point|^2)
        # (Lawson and Hanson, least distance).
        weights, _ = nnls(np.vstack([points.T, np.ones(n)]), np.append(np.zeros(d), 1.0))
        return float(np.linalg.norm(points.T @ weights)) / max(float(weights.sum()), 1e-300)
    costs = np.append(np.zeros(n), 1.0)
    sides = np.vstack(
        [np.column_stack([points.T, -np.ones(d)]), np.column_stack([-points.T, -np.ones(d)])]
    )
    found = linprog(
        costs,
        A_ub=sides,
        b_ub=np.zeros(2 * d),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.x is None:
        raise ArithmeticError(f"the linear program of a corridor failed: {found.message}")
    # The value of a feasible point, whatever the solver's tolerance.
    weights = np.maximum(np.asarray(found.x)[:-1], 0.0)
    return float(np.abs(points.T @ weights).max()) / float(weights.sum())


# Exact attacks.


def _extreme_points(network: Network, x: FloatArray, eps: float, ball: str) -> FloatArray:
    """Return perturbations among which are those of the least and the largest output, shape (count,
    d)."""
    d = x.size
    W, b, a, linear = _layers(network)
    z = W @ x + b
    unstable = np.flatnonzero((np.abs(z) < eps * _dual_norm(W, ball)) & (a != 0.0))
    steady = (z > 0.0) & ~np.isin(np.arange(len(W)), unstable)
    base = a[steady] @ W[steady] + linear
    W, z, a = W[unstable], z[unstable], a[unstable]
    if ball == "linf":
        return _box_points(W, z, base, eps, d)
    return _sphere_points(W, z, a, base, eps, d)


def _box_points(W: FloatArray, z: FloatArray, base: FloatArray, eps: float, d: int) -> FloatArray:
    u = len(W)
    if u == 0:
        return eps * np.vstack([np.sign(base), -np.sign(base), np.zeros(d)])
    total = sum(math.comb(u, k) * math.comb(d, k) * 2 ** (d - k) for k in range(min(u, d) + 1))
    if total > _MAX_CANDIDATES:
        raise ValueError(
            f"network: expected at most {_MAX_CANDIDATES} candidate points per input, got {total}"
        )
    points = []
    for k in range(min(u, d) + 1):
        rows = np.array(list(combinations(range(u), k)), dtype=np.intp).reshape(math.comb(u, k), k)
        corners = eps * np.array(list(product((-1.0, 1.0), repeat=d - k))).reshape(
            2 ** (d - k), d - k
        )
        for free in combinations(range(d), k):
            held = [i for i in range(d) if i not in free]
            block = np.empty((len(rows), len(corners), d))
            block[:, :, held] = corners
            if k > 0:
                systems = W[rows][:, :, list(free)]
                good = np.abs(np.linalg.det(systems)) > 1e-13 * np.prod(
                    np.linalg.norm(W[rows], axis=2), axis=1
                )
                right = -z[rows][:, :, None] - W[rows][:, :, held] @ corners.T
                solved = np.linalg.solve(systems[good], right[good])
                block = block[good]
                block[:, :, list(free)] = np.swapaxes(solved, 1, 2)
            flat = block.reshape(-1, d)
            # Rounding may put a point on a face slightly outside: it is clipped.
            points.append(flat[np.all(np.abs(flat) <= eps * (1.0 + 1e-9), axis=1)])
    return np.clip(np.vstack(points), -eps, eps)


def _sphere_points(
    W: FloatArray, z: FloatArray, a: FloatArray, base: FloatArray, eps: float, d: int
) -> FloatArray:
    u = len(W)
    total = sum(
        math.comb(u, k) * (cover_count(u - k, d - k + 1) if k < min(u, d - 1) else 2)
        for k in range(min(u, d) + 1)
    )
    if total > _MAX_CANDIDATES:
        raise ValueError(
            f"network: expected at most {_MAX_CANDIDATES} candidate points per input, got {total}"
        )
    points: list[FloatArray] = [np.zeros((1, d))]
    for k in range(min(u, d) + 1):
        for rows in combinations(range(u), k):
            chosen = list(rows)
            basis: FloatArray = np.eye(d)
            centre: FloatArray = np.zeros(d)
            if k > 0:
                _, s, vt = np.linalg.svd(W[chosen])
                if s[-1] <= 1e-13 * s[0]:
                    continue
                basis = vt[k:].T
                centre = np.asarray(
                    np.linalg.lstsq(W[chosen], -z[chosen], rcond=None)[0], dtype=np.float64
                )
            square = eps**2 - float(centre @ centre)
            if square < -1e-9 * eps**2:
                continue
            radius = math.sqrt(max(square, 0.0))
            if k == d:
                points.append(centre[None])
                continue
            others = [j for j in range(u) if j not in chosen]
            if k == d - 1:
                steps = basis.T
            elif others:
                lifted = np.column_stack([W[others] @ basis, z[others] + W[others] @ centre])
                active = enumerate_arrangements(lifted)
                steps = (base + (active * a[others]) @ W[others]) @ basis @ basis.T
            else:
                steps = (base @ basis @ basis.T)[None]
            lengths = np.linalg.norm(steps, axis=1)
            steps = steps[lengths > 0.0] / lengths[lengths > 0.0, None]
            points += [centre + radius * steps, centre - radius * steps]
    stacked = np.vstack(points)
    lengths = np.linalg.norm(stacked, axis=1)
    inside: FloatArray = stacked * np.minimum(1.0, eps / np.maximum(lengths, 1e-300))[:, None]
    return inside


# Local improvement.


def _distinct(rows: NDArray[np.intp], inputs: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Drop repeated pairs of an index and a point."""
    _, kept = np.unique(np.column_stack([rows, inputs]), axis=0, return_index=True)
    return rows[np.sort(kept)], inputs[np.sort(kept)]


def _against(
    network: Network,
    rows: NDArray[np.intp],
    inputs: FloatArray,
    y: FloatArray,
    beta: float,
    loss: str,
    bias: bool,
) -> Network:
    """Minimise the largest loss over given versions of every input plus penalty, in epigraph form.

    Version i, ``inputs[i]``, shape (d,), is one of the input ``rows[i]``.
    """
    n, d = len(y), inputs.shape[1]
    m = network.n_neurons
    width = d + int(bias)
    inputs = augment(inputs, bias)
    targets = y[rows]
    epigraph = np.zeros((len(rows), n))
    epigraph[np.arange(len(rows)), rows] = 1.0
    weights, biases, output, _ = _layers(network)
    first = np.column_stack([weights, biases]) if bias else weights

    def outputs(theta: FloatArray) -> FloatArray:
        W, a = theta[: m * width].reshape(m, width), theta[m * width : m * (width + 1)]
        result: FloatArray = np.maximum(inputs @ W.T, 0.0) @ a
        return result

    def violations(theta: FloatArray) -> FloatArray:
        f = outputs(theta)
        t = theta[m * (width + 1) :][rows]
        return (
            t - 1.0 + targets * f
            if loss == "hinge"
            else np.concatenate([t - f + targets, t + f - targets])
        )

    def slopes(theta: FloatArray) -> FloatArray:
        W, a = theta[: m * width].reshape(m, width), theta[m * width : m * (width + 1)]
        z = inputs @ W.T
        g = np.hstack(
            [
                (((z > 0.0) * a)[:, :, None] * inputs[:, None, :]).reshape(len(rows), -1),
                np.maximum(z, 0.0),
            ]
        )
        if loss == "hinge":
            return np.hstack([targets[:, None] * g, epigraph])
        return np.vstack([np.hstack([-g, epigraph]), np.hstack([g, epigraph])])

    def objective(theta: FloatArray) -> tuple[float, FloatArray]:
        layers, t = theta[: m * (width + 1)], theta[m * (width + 1) :]
        value = 0.5 * beta * float(layers @ layers)
        if loss == "hinge":
            return value + float(t.sum()), np.concatenate([beta * layers, np.ones(n)])
        return value + 0.5 * float(t @ t), np.concatenate([beta * layers, t])

    theta = np.concatenate([first.ravel(), output, np.zeros(n)])
    f = outputs(theta)
    np.maximum.at(
        theta[m * (width + 1) :],
        rows,
        np.maximum(1.0 - targets * f, 0.0) if loss == "hinge" else np.abs(f - targets),
    )
    lowest = np.concatenate([np.full(m * (width + 1), -np.inf), np.zeros(n)])
    constraints = [{"type": "ineq", "fun": violations, "jac": slopes}]
    options = {"maxiter": 100, "ftol": 1e-12}
    # SciPy's stubs know no combination of gradient, bounds and dictionaries of constraints.
    search: Any = minimize
    with warnings.catch_warnings():
        # Kinks of the network end the search early; what it found is judged by an exact attack.
        warnings.simplefilter("ignore")
        bounds = Bounds(lowest, np.inf)
        found = search(
            objective,
            theta,
            jac=True,
            method="SLSQP",
            bounds=bounds,
            constraints=constraints,
            options=options,
        )
    W, a = found.x[: m * width].reshape(m, width), found.x[m * width : m * (width + 1)]
    if not np.all(np.isfinite(found.x)):
        return network
    return Network(np.ascontiguousarray(W[:, :d]), a, W[:, d] if bias else np.zeros(m))


def random_stable_network(
    X: ArrayLike,
    eps: float,
    *,
    n_neurons: int,
    ball: str = "linf",
    rng: np.random.Generator,
) -> Network:
    r"""Draw a network of neurons with biases that are stable at a radius: a feasible point of the
    robust program.

    Parameters
    ----------
    X
        Data, shape (n, d).
    eps
        Radius, >= 0.
    n_neurons
        Number of neurons.
    ball
        "linf" or "l2".
    rng
        Random generator.

    Returns
    -------
    Network
        Gaussian directions whose hyperplanes miss all balls. Biases are Gaussian, of the size of
        the data, and grow until a hyperplane does: some lie beyond all of the data.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> network = random_stable_network(X, 0.2, n_neurons=3, rng=np.random.default_rng(0))
    >>> bool((stability_radii(network, X) >= 0.2).all())
    True
    """
    X = as_array(X, "X", ndim=2)
    eps = as_real(eps, "eps", minimum=0.0)
    m = as_count(n_neurons, "n_neurons")
    ball = one_of(ball, "ball", _BALLS)
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    weights, biases = rng.normal(size=(m, X.shape[1])), np.zeros(m)
    output = rng.normal(size=m)
    size = float(np.linalg.norm(X, axis=1).max()) + eps
    unstable = np.ones(m, dtype=bool)
    while unstable.any():
        lengths = np.linalg.norm(weights[unstable], axis=1)
        biases[unstable] = size * lengths * rng.normal(size=lengths.size)
        unstable = stability_radii(Network(weights, output, biases), X, ball=ball) < eps
        size *= 1.0 + 1e-2
    return Network(weights, output, biases)
