r"""Adversarial training of two-layer ReLU networks: the robust convex program, and where training
collapses.

Every input may move by $\|\delta\|_p\le\epsilon$, p infinite or 2; q is the dual exponent, 1
or 2. A neuron v with $|x_k^\top v|\ge\epsilon\|v\|_q$ for all k keeps its pattern D on all
balls, so that a network of such *stable* neurons is affine on every ball and its worst case is
explicit. With signs $\sigma_b$ and $S_b=2D_b-I$ the robust convex program

$$\min_{S_bXv_b\ge\epsilon\|v_b\|_q}\ \sum_k\ell_k\big(g_k^\top x_k,\
\epsilon\|g_k\|_q\big)+\beta\sum_b\|v_b\|_2,\qquad
g_k=\sum_b\sigma_bd_{bk}v_b,$$

with $\ell_k(f,r)=(1-y_kf+r)_+$ (hinge) or $\frac12(|f-y_k|+r)^2$ (squared) is therefore
robust training restricted to stable networks, exactly: an upper bound of the min-max value over all
networks, in general a strict one. Beyond the widest corridor (see ``corridor_widths``) only the
zero network is left."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real, one_of
from theorylab.convex_relu._attacks import robust_loss
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._problem import as_patterns, as_problem, augment
from theorylab.convex_relu._robust_program import dual_solver, least_slope, rescaled, stabilized
from theorylab.convex_relu._stability import BALLS, corridor_widths
from theorylab.convex_relu.arrangements import enumerate_arrangements
from theorylab.convex_relu.losses import Loss, Squared
from theorylab.numerics.bounds import power_of_two, relative_gap
from theorylab.numerics.budgets import steps_in_a_minute
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = ["RobustResult", "RobustStatus", "collapse_radius", "robust_trainer", "train_robust"]

BoolArray = NDArray[np.bool_]

_MAX_MULTIPLIERS = 300_000


class RobustStatus(StrEnum):
    """How well the robust program was solved."""

    SOLVED = "optimal: the relative duality gap is at most tol"
    INACCURATE = (
        "the conic solver left a relative duality gap above tol; the bounds hold, "
        "rescale the data or raise tol"
    )
    STOPPED = "stopped by the callback, with the bounds that were proved by then"


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
        inputs, with the sign of y (squared loss: c), zero where a is: at the moved inputs the
        network's loss is its worst case.
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
    loss: str | Loss = "hinge",
    ball: str = "linf",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    tol: float = 1e-06,
    callback: Callback | None = None,
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
        "hinge", "squared" or the ``Loss`` of that name; "linf" or "l2".
    arrangements
        "all", or patterns of shape (P, n) of the data (of the data with a column of ones, with
        bias).
    bias
        Give every neuron a bias, penalised like a weight and not perturbed.
    tol
        Relative duality gap above which a warning is given.
    callback
        Called with a :class:`theorylab.numerics.progress.Progress` of each iteration of the conic
        solver; stops it by returning True.

    Returns
    -------
    RobustResult
        Network, objective, lower bound, the adversary's play.

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
    )(eps, callback=callback)


def robust_trainer(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    loss: str | Loss = "hinge",
    ball: str = "linf",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    tol: float = 1e-6,
) -> Callable[..., RobustResult]:
    """Prepare ``train_robust`` for many radii: the program is set up once, with the radius as a
    parameter.

    Parameters
    ----------
    X, y, beta, loss, ball, arrangements, bias, tol
        As for ``train_robust``.

    Returns
    -------
    Callable
        A function of the radius ``eps``, and by keyword of a ``callback``, that returns the
        ``RobustResult``.

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
    scale = power_of_two(y) if isinstance(loss, Squared) else 1.0
    size = scale * scale
    data, y, beta = data / unit, y / scale, _divided(_divided(beta, unit, "beta"), scale, "beta")
    solved = dual_solver(data, y, beta, loss, ball, patterns, d)
    zero = loss.value(np.zeros_like(y), y)

    @cache
    def widest() -> float:
        # Beyond it the zero network is alone; a bias of its own is stable at every radius.
        return (
            np.inf if bias else float(corridor_widths(data, ball=ball, arrangements=patterns).max())
        )

    def trained(eps: float, *, callback: Callback | None = None) -> RobustResult:
        eps = _divided(as_real(eps, "eps", minimum=0.0), unit, "eps")
        stops = watcher(callback)

        def reported(iteration: int, cost: float, bound: float, gap: float) -> bool:
            # The solver minimises minus the dual: its own dual value is minus that of the program.
            return stops(iteration, -size * bound, gap)

        lower, a, eta, V, stopped = solved(eps, reported)
        V = stabilized(V, data, eps, ball, patterns, d)
        both = np.vstack([patterns, -1.0 * patterns])
        V, objective = rescaled(V, data, y, beta, eps, loss, ball, both, d)
        kept = np.flatnonzero(np.any(V != 0.0, axis=1))
        signs = np.where(kept < len(patterns), 1.0, -1.0)
        blocks, block_patterns = V[kept], patterns[kept % len(patterns)]
        if not stopped and relative_gap(objective, lower) > tol and eps > widest() + 1e-14:
            lower, a, eta = zero, np.abs(y), np.zeros_like(eta)
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
        if stopped:
            status = RobustStatus.STOPPED
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


def collapse_radius(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    loss: str | Loss = "hinge",
    ball: str = "linf",
    arrangements: str | ArrayLike = "all",
    tol: float = 1e-6,
    max_halvings: int | None = None,
    callback: Callback | None = None,
) -> float:
    r"""Return the radius from which on the zero network solves the robust program.

    Parameters
    ----------
    X, y, beta, loss, ball, arrangements
        The problem, as for ``train_robust`` without bias.
    tol
        Accuracy, relative to the widest corridor.
    max_halvings
        Largest number of bisections, a conic program each; by default 60, or what takes about a
        minute. Where they do not reach ``tol``, a warning says between which radii it is.
    callback
        Called with a :class:`theorylab.numerics.progress.Progress` of each bisection, the radius as
        its objective; stops it by returning True.

    Returns
    -------
    float
        The radius: at most the widest corridor, zero if the network is zero without perturbations
        already.

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
    if max_halvings is None:
        # Measured: blocks of d weights meet in n gradients; in the plane l1 norms take longest.
        d = X.shape[1]
        each = 40.0 * d if ball == "l2" else 600.0 if d == 2 else 200.0
        max_halvings = steps_in_a_minute(2 * len(patterns) * X.size**2 * each, most=60)
    max_halvings = as_count(max_halvings, "max_halvings")
    stops = watcher(callback)
    X, y, beta = X / unit, y / scale, _divided(_divided(beta, unit, "beta"), scale, "beta")
    widest = float(corridor_widths(X, ball=ball, arrangements=patterns).max())
    slope = least_slope(X, y, ball, patterns)
    low, high = 0.0, widest
    if slope(low) >= -beta:
        return 0.0
    for step in range(1, max_halvings + 1):
        middle = 0.5 * (low + high)
        if high - low <= tol * widest or stops(step, unit * middle, (high - low) / widest):
            break
        if slope(middle) >= -beta:
            high = middle
        else:
            low = middle
    else:
        if max_halvings < 60 and high - low > tol * widest:  # 60 leave what rounding hides
            warnings.warn(
                f"max_halvings leave the radius between {unit * low:.6g} and {unit * high:.6g}; "
                "raise max_halvings, or tol",
                RuntimeWarning,
                stacklevel=2,
            )
    # An end that was never tried is the corridor itself, where the cones close.
    return unit * (widest if high == widest else 0.5 * (low + high))


def _problem(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    loss: str | Loss,
    ball: str,
    arrangements: str | ArrayLike,
    bias: bool,
) -> tuple[FloatArray, FloatArray, float, Loss, str, BoolArray, bool]:
    X = as_array(X, "X", ndim=2)
    ball = one_of(ball, "ball", BALLS)
    y = as_array(y, "y", shape=(X.shape[0],))
    X, y, beta, chosen = as_problem(X, y, beta, robust_loss(loss, y))
    bias = as_flag(bias, "bias")
    patterns = as_patterns(arrangements, X.shape[0])
    patterns = enumerate_arrangements(augment(X, bias)) if patterns is None else patterns
    if 2 * patterns.size > _MAX_MULTIPLIERS:
        raise ValueError(
            f"arrangements: expected at most {_MAX_MULTIPLIERS // 2} entries, which take minutes, "
            f"got {len(patterns)} patterns of {len(X)} samples"
        )
    return X, y, beta, chosen, ball, patterns, bias


def _divided(value: float, unit: float, name: str) -> float:
    """Return an argument in a unit of the data."""
    with np.errstate(over="ignore"):
        divided = float(np.float64(value) / unit)
    if not np.isfinite(divided):
        raise ValueError(
            f"{name}: expected a number that float64 has in units of X and y, got {value}"
        )
    return divided
