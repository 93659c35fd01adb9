r"""ADMM for the convex program of two-layer ReLU training with squared loss.

With the patterns $D_i$ and $S_i=2D_i-I$ the program is

$$\min_{u=v,\;Gu=s\ge0}\ \tfrac12\|Au-y\|^2+\beta\sum_b\|v_b\|,\qquad
A=[D_1X,\dots,-D_1X,\dots],\quad G=\mathrm{blkdiag}(S_iX).$$

ADMM alternates a group soft-threshold in $v$, a clip in $s$ and a least-squares step in
$u$ with a cached factorisation. Once the iterates stay on one piece of the iteration T they
contract at the largest modulus among the eigenvalues of $T'(q^\star)$ other than 1 (the
directions along the set of fixed points). The multipliers of unused blocks are not unique, so that
eigenvalue 1 is always there."""

from __future__ import annotations

import math
import warnings
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theorylab._validation import FloatArray, as_array, as_count, as_flag, as_real
from theorylab.convex_relu._admm_kernel import iterate, jacobian_at, least_squares
from theorylab.convex_relu._network import Network
from theorylab.convex_relu._problem import as_patterns, as_problem
from theorylab.convex_relu.arrangements import enumerate_arrangements
from theorylab.convex_relu.certificates import certify
from theorylab.numerics.bounds import power_of_two, relative_gap
from theorylab.numerics.budgets import steps_in_a_minute
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result

__all__ = ["ADMMResult", "ADMMStatus", "train_admm"]

BoolArray = NDArray[np.bool_]
ComplexArray = NDArray[np.complex128]


class ADMMStatus(StrEnum):
    """Why the iteration ended."""

    SOLVED = "optimal: the relative duality gap and the violation of the cones are at most tol"
    FIXED = "stopped at a fixed point in float64 with a relative gap above tol; tol is too small"
    ITERATIONS = (
        "stopped after max_iter iterations with a relative gap above tol; raise "
        "max_iter, or change penalty "
        "(too small or too large a penalty identifies the active blocks late)"
    )
    STOPPED = "stopped by the callback, with the gap that was proved by then"


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
        return jacobian_at(self)

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
    max_iter: int | None = None,
    callback: Callback | None = None,
) -> ADMMResult:
    """Solve the convex ReLU program with squared loss by ADMM.

    It is here to be studied: general conic solvers are faster and more accurate on this program,
    and :func:`~theorylab.convex_relu.train` exact.

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
        Largest number of iterations; by default 100,000, or what takes about a minute.
    callback
        Called with a ``Progress`` at each check but the last; True stops there.

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
    X, y, beta, _ = as_problem(X, y, beta, "squared")
    patterns = as_patterns(arrangements, X.shape[0])
    patterns = enumerate_arrangements(X) if patterns is None else patterns
    cones = as_flag(cones, "cones")
    tol = as_real(tol, "tol", above=0.0, below=1.0)
    work = len(patterns) * X.size  # of an iteration
    if max_iter is None:
        max_iter = steps_in_a_minute(2 * work, most=100_000)
    max_iter = as_count(max_iter, "max_iter")
    stops = watcher(callback)
    given, unit, scale = (X, y, beta), _unit(np.linalg.norm(X, axis=1)), _unit(y)
    X, y, beta = X / unit, y / scale, beta / unit / scale
    inverse, coupling = least_squares(X, patterns)
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
    # Within a leg the compiled loop hears no interrupt.
    leg = 1 + int(5e7 / work)
    done, changed, check, violation, status = 0, 0, 50, 0.0, ADMMStatus.ITERATIONS
    while True:
        count = min(check, max_iter, done + leg) - done
        record = np.empty(count)
        size = 1.0 + math.sqrt(float(np.sum(q1**2) + np.sum(q2**2)))
        last = iterate(
            X, D, inverse, system, fixed, beta / rho, rho, cones, 1e-12 * size, q1, q2, v, record
        )
        changed = done + last if last > 0 else changed
        residuals.append(record)
        done += count
        if done < min(check, max_iter) and record[-1] > 1e-16 * size:
            continue
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
        if stops(done, objective, max(gaps[-1][1], violation)):
            status = ADMMStatus.STOPPED
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


def _unit(values: FloatArray) -> float:
    """Return the power of 64 that brings the largest magnitude between 1/8 and 8."""
    return float(64.0 ** np.round(np.log(power_of_two(values)) / np.log(64.0)))


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
