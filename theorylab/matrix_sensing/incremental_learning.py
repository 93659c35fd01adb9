r"""Small-start gradient descent visits the best solutions of rank 1, 2, 3, ... one after another.

Problem: $f(U)=\frac14\|\mathcal A(UU^\top-M)\|^2$, $U_0=\alpha\bar U\in\mathbb R^{n\times k}$
generic, $U\leftarrow U-\eta\nabla f(U)$ with $\nabla f(U)=\mathcal A^*\mathcal A(UU^\top-M)U$;
$Z_s$ minimises $f$ over rank at most $s$. jin2023-understanding shows
$\min_t\|U_tU_t^\top-Z_s\|_F\to0$ as $\alpha\to0$. Derived here is at which power. The $j$-th
largest singular value outside the fitted directions is $\alpha^{c_j}$, $c=(1,1,\dots)$ at first. At
$Z_s$ it grows at the $j$-th largest eigenvalue $\nu_j$ of $-\mathcal A^*\mathcal A(Z_s-M)$ off the
range of $Z_s$, so the next direction is fitted after the time $\tau_s\log\frac1\alpha$,
$$\tau_s=c_1/\nu_1,\qquad c_j\leftarrow c_{j+1}-\tau_s\nu_{j+1},$$ and with $\mu_s$ the smallest
non-zero Hessian eigenvalue of the rank-$s$ problem the approach $e^{-\mu_st}$ and the departure
$\alpha^{2c_1}e^{2\nu_1t}$ balance at distance $\alpha^{e_s}$, $e_s=2c_1\mu_s/(\mu_s+2\nu_1)$: for
$s=1$, with $g_1>g_2$ the top eigenvalues of $\mathcal A^*\mathcal A(M)$,
$e_1=2(1-g_2/g_1)\mu/(\mu+2\nu)$. Steps of size $\eta$ replace $\nu$ by $\log(1+\eta\nu)$ and $\mu$
by $-\log(1-\eta\mu)$."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from theorylab._validation import (
    FloatArray,
    as_array,
    as_count,
    as_instance,
    as_real,
    refuses_overflow,
)
from theorylab.matrix_sensing._best_rank import (
    BestRankSolutions,
    normal_image,
    objective_and_gradient,
    sensing_problem,
)
from theorylab.matrix_sensing._descent_data import IntArray
from theorylab.matrix_sensing._packing import pack_symmetric, unpack_symmetric
from theorylab.matrix_sensing.operators import MeasurementOperator
from theorylab.numerics.compiled import compiled
from theorylab.numerics.progress import Callback, watcher
from theorylab.numerics.results import result
from theorylab.numerics.scaling import binary_exponent

__all__ = [
    "IncrementalLaw",
    "PopulationVisit",
    "Staircase",
    "incremental_law",
    "population_visit",
    "staircase",
]


@result
class IncrementalLaw:
    r"""Powers of $\alpha$ of the visits, see `incremental_law`.

    Attributes
    ----------
    exponents
        $e_s$: $\min_t\|U_tU_t^\top-Z_s\|_F=\alpha^{e_s+o(1)}$, shape ``(S,)``.
    times
        The minimum is reached after $(\texttt{times}_s+o(1))\log\frac1\alpha$ steps, shape
        ``(S,)``; infinite where $\nu=0$ and $e_s$ is only reached in the limit $t\to\infty$ of the
        linearised motion.
    spare
        $c_1$ at the arrival at $Z_s$, shape ``(S,)``.
    approach, escape
        $\mu_s$ and $\nu_1$ at $Z_s$, shape ``(S,)``.
    growth
        Logarithmic growth per step of the singular values at $U=0$, $\log(1+\eta g_j)$, shape
        ``(n,)``.

    All are NaN after a $Z_s$ from which nothing escapes.
    """

    exponents: FloatArray
    times: FloatArray
    spare: FloatArray
    approach: FloatArray
    escape: FloatArray
    growth: FloatArray


def incremental_law(
    truth: ArrayLike,
    operator: MeasurementOperator,
    best: BestRankSolutions,
    *,
    search_rank: int,
    step_size: float,
) -> IncrementalLaw:
    r"""Predict exponents and times of the visits from eigenvalues at the best rank-$s$ solutions,
    as derived above.

    Parameters
    ----------
    truth
        $M$, symmetric, shape ``(n, n)``.
    operator
        Symmetric measurements.
    best
        The best solutions of rank $1,\dots,S$.
    search_rank
        $k\ge S$, number of columns of $U$. With $k=s$ nothing is left to escape from $Z_s$ and
        $e_s$ is infinite.
    step_size
        $\eta>0$ with $\eta\mu_s<1$, and so small that no direction off the fitted ones is overshot
        ($1+\eta\nu_j>0$).

    Returns
    -------
    IncrementalLaw
        Exponents and times in steps per $\log\frac1\alpha$. Generic starts and distinct eigenvalues
        are assumed; leading order in $\log\frac1\alpha$ (a heuristic derivation, not a proof).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import best_rank_solutions, gaussian_operator, incremental_law
    >>> truth = np.diag([3.0, 1.3, 0.5])
    >>> operator = gaussian_operator(3, 60, rng=np.random.default_rng(0))
    >>> best = best_rank_solutions(truth, operator, max_rank=2, rng=np.random.default_rng(1))
    >>> law = incremental_law(truth, operator, best, search_rank=3, step_size=0.02)
    >>> bool(np.all(np.diff(law.times) > 0))
    True
    """
    M, gram = sensing_problem(truth, operator)
    best = as_instance(best, "best", BestRankSolutions)
    if best.factors[0].shape[0] != len(M):
        raise ValueError(
            f"best: expected solutions with {len(M)} rows, got {best.factors[0].shape[0]}"
        )
    S, n = len(best.factors), len(M)
    k = as_count(search_rank, "search_rank", minimum=S)
    eta = as_real(step_size, "step_size", above=0.0)
    if (eta * best.curvatures >= 1).any():
        raise ValueError(f"step_size: expected less than {1 / best.curvatures.max()}, got {eta}")
    start = _growth(eta, _escape_rates(np.zeros((n, 1)), M, gram, fitted=0))
    growth = start
    c, elapsed = np.ones(min(n, k)), 0.0
    rows = []
    for s, (U, mu) in enumerate(zip(best.factors, best.curvatures, strict=True), start=1):
        tau = c[0] / growth[0]
        elapsed += tau
        c = c[1:] - tau * growth[1 : c.size]
        rates = _escape_rates(U, M, gram, fitted=s)
        growth = _growth(eta, rates)
        approach = -np.log1p(-eta * mu)
        if c.size:
            # At Z_r = M nothing grows; rounding must not decide the sign.
            nu = max(float(growth[0]), 0.0) if abs(rates[0]) > 1e-9 * np.linalg.norm(M, 2) else 0.0
            wait = 2 * c[0] / (approach + 2 * nu)
            rows.append((wait * approach, elapsed + wait if nu else np.inf, c[0], mu, rates[0]))
        else:
            nu = 0.0
            rows.append((np.inf, np.inf, np.inf, mu, 0.0))
        if not nu:
            break
    rows += [(np.nan,) * 5] * (S - len(rows))
    exponents, times, spare, curvature, escape = np.array(rows, dtype=np.float64).T
    return IncrementalLaw(exponents, times, spare, curvature, escape, start)


@result
class Staircase:
    r"""A descent seen from the targets $Z_s$, see `staircase`.

    Attributes
    ----------
    closest
        $\min_t\|U_tU_t^\top-Z_s\|_F$ over all steps, shape ``(S,)``.
    visits
        The steps at which it is attained, shape ``(S,)``.
    U
        Last iterate, shape ``(n, k)``.
    iterations
        Recorded steps, shape ``(T,)``.
    distances
        $\|U_tU_t^\top-Z_s\|_F$ there, shape ``(T, S)``.
    states
        $U_t$ there, shape ``(T, n, k)``.
    """

    closest: FloatArray
    visits: IntArray
    U: FloatArray
    iterations: IntArray
    distances: FloatArray
    states: FloatArray

    @property
    def spectra(self) -> FloatArray:
        r"""Eigenvalues of $U_tU_t^\top$ at the recorded steps, decreasing, shape ``(T, min(n,
        k))``."""
        return np.asarray(np.linalg.svd(self.states, compute_uv=False) ** 2)


@refuses_overflow("targets")
def staircase(
    truth: ArrayLike,
    operator: MeasurementOperator,
    *,
    initial: ArrayLike,
    targets: ArrayLike,
    step_size: float,
    steps: int,
    callback: Callback | None = None,
) -> Staircase:
    r"""Run $U\leftarrow U-\eta\,\mathcal A^*\mathcal A(UU^\top-M)U$ and keep the closest approach
    to each target.

    Parameters
    ----------
    truth
        $M$, symmetric, shape ``(n, n)``.
    operator
        Symmetric measurements.
    initial
        $U_0$, shape ``(n, k)``.
    targets
        $Z_1,\dots,Z_S$, shape ``(S, n, n)``.
    step_size
        $\eta>0$.
    steps
        Number of steps.

    callback
        Called with a `Progress` a few times a second, and at least ten times: the objective
        $\frac14\|\mathcal A(UU^\top-M)\|^2$. Where it returns True the descent stops.

    Returns
    -------
    Staircase
        Closest approaches over all steps taken, and about 400 recorded states.

    Raises
    ------
    ValueError
        If an argument is invalid or the descent diverges.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.matrix_sensing import gaussian_operator, staircase
    >>> truth, first = np.diag([3.0, 1.0, 0.0]), np.diag([3.0, 0.0, 0.0])
    >>> operator = gaussian_operator(3, 2000, rng=np.random.default_rng(0))
    >>> start = 1e-3 * np.random.default_rng(1).standard_normal((3, 2))
    >>> stairs = staircase(
    ...     truth, operator, initial=start, targets=[first], step_size=0.02, steps=500
    ... )
    >>> stairs.distances.shape, bool(stairs.closest[0] < 0.1)
    ((401, 1), True)
    """
    M, gram = sensing_problem(truth, operator)
    n = len(M)
    U = as_array(initial, "initial", shape=(n, None)).copy()
    Z = as_array(targets, "targets", shape=(None, n, n))
    eta = as_real(step_size, "step_size", above=0.0)
    steps = as_count(steps, "steps")
    schedule = np.unique(np.linspace(0, steps, 401).astype(np.int64))
    closest, visits = np.full(len(Z), np.inf), np.zeros(len(Z), np.int64)
    states, distances = np.empty((schedule.size, *U.shape)), np.empty((schedule.size, len(Z)))
    stops = watcher(callback)
    portion = max(10**8 // (U.size * n * 2 + gram.size + Z.size), 1)
    if callback is not None:
        portion = min(portion, -(-steps // 10))
    taken, kept = 0, 0
    while taken < steps:
        begin, taken = taken, min(taken + portion, steps)
        kept = _visit(
            U, M, gram, Z, eta, begin, taken, schedule, kept, closest, visits, states, distances
        )
        if not np.isfinite(U).all():
            raise ValueError(
                f"step_size: expected one for which the descent stays bounded, got {eta}"
            )
        if callback is not None and stops(taken, objective_and_gradient(U, M, gram)[0]):
            break
    return Staircase(closest, visits, U, schedule[:kept], distances[:kept], states[:kept])


@result
class PopulationVisit:
    r"""The visit of $Z_s=\mathrm{diag}(\lambda_1,\dots,\lambda_s,0,\dots)$ by the population flow,
    see `population_visit`.

    Attributes
    ----------
    distance
        $\min_t\|U_tU_t^\top-Z_s\|_F$.
    time
        The minimiser.
    leading
        Leading order of ``distance`` as $\alpha\to0$, with its constant.
    remainder
        Bound of the relative difference between the two, to leading order in itself.
    exponent
        $2(\lambda_s-\lambda_{s+1})/(\lambda_s+\lambda_{s+1})$.
    """

    distance: float
    time: float
    leading: float
    remainder: float
    exponent: float


@refuses_overflow("eigenvalues", "init_scale")
def population_visit(eigenvalues: ArrayLike, *, init_scale: float, stage: int) -> PopulationVisit:
    r"""Visit of $Z_s$ by gradient flow on $\frac14\|UU^\top-M\|_F^2$ from $U_0U_0^\top=\alpha^2I$,
    in closed form.

    The eigenvalues are logistic,
    $u_i(t)=\lambda_i\alpha^2e^{2\lambda_it}/(\lambda_i+\alpha^2(e^{2\lambda_it}-1))$. Near the
    visit only $\lambda_s-u_s\approx x=\lambda_s^2\alpha^{-2}e^{-2\lambda_st}$ and $u_{s+1}\approx
    y=\alpha^2e^{2\lambda_{s+1}t}$ count. Their sum of squares is least where
    $\lambda_sx^2=\lambda_{s+1}y^2$: with $p=\lambda_{s+1}/(\lambda_s+\lambda_{s+1})$,
    $$x=\lambda_s^{2p}(\lambda_{s+1}/\lambda_s)^{(1-p)/2}\alpha^{2(1-2p)},\qquad\text{distance}\approx
    x\sqrt{1+\lambda_s/\lambda_{s+1}}.$$

    Parameters
    ----------
    eigenvalues
        $\lambda_1\ge\lambda_2\ge\dots>0$, shape ``(q,)``, $q>s$.
    init_scale
        $\alpha>0$ with $\alpha^2<\lambda_q$.
    stage
        $s\ge1$.

    Returns
    -------
    PopulationVisit
        The exact minimum, found in the logarithm of the times, and its leading order.

    Notes
    -----
    Derived here; jin2023-understanding states a polynomial rate (theorem's text not consulted).

    Examples
    --------
    >>> from theorylab.matrix_sensing import population_visit
    >>> round(population_visit([3.0, 2.0, 1.0], init_scale=1e-6, stage=1).distance, 4)
    0.0134
    """
    lam = as_array(eigenvalues, "eigenvalues", ndim=1, positive=True)
    s = as_count(stage, "stage")
    if lam.size <= s or (np.diff(lam) > 0).any():
        raise ValueError(f"eigenvalues: expected more than {s} decreasing numbers, got {lam}")
    alpha = as_real(init_scale, "init_scale", above=0.0, below=float(np.sqrt(lam[-1])))
    small = alpha**2
    if not small > 0:
        raise ValueError(f"init_scale: expected a number whose square is a float64, got {alpha}")
    # In a unit close to the largest eigenvalue; times are in its inverse.
    unit = binary_exponent(lam)
    lam, small = np.ldexp(lam, -unit), math.ldexp(small, -unit)

    def parts(t: float) -> FloatArray:
        grown = np.exp(2 * lam * t + np.log(small))  # no cancellation in lambda - u
        below = lam * (lam - small) / (lam - small + grown)
        value = lam / (1 + (lam - small) / grown)
        return np.asarray(np.where(np.arange(lam.size) < s, below, value))

    def log_square(t: float) -> float:
        part = parts(t)
        largest = part.max()  # squares of small distances are no float64
        return float(2 * np.log(largest) + np.log(np.sum((part / largest) ** 2)))

    first, second = lam[s - 1], lam[s]
    p = second / (first + second)
    x = first ** (2 * p) * (second / first) ** ((1 - p) / 2) * small ** (1 - 2 * p)
    y = x * np.sqrt(first / second)
    guess = max(np.log(y / small) / (2 * second), 0.0)
    width = 5 / second
    found = minimize_scalar(
        log_square,
        bounds=(max(guess - width, 0.0), guess + width),
        method="bounded",
        options={"xatol": 1e-10 / second},
    )
    others = np.delete(parts(guess), [s - 1, s])
    remainder = 2 * (
        x / first + y / second + small / lam[-1] + float(np.sum((others / np.hypot(x, y)) ** 2))
    )
    exponent = 2 * (first - second) / (first + second)
    return PopulationVisit(
        math.ldexp(float(np.exp(found.fun / 2)), unit),
        math.ldexp(float(found.x), -unit),
        math.ldexp(float(np.hypot(x, y)), unit),
        float(remainder),
        float(exponent),
    )


def _escape_rates(U: FloatArray, M: FloatArray, gram: FloatArray, *, fitted: int) -> FloatArray:
    """Return the eigenvalues of minus the gradient off the range of U, decreasing."""
    complement = np.linalg.svd(U)[0][:, fitted:]
    values = np.linalg.eigvalsh(-complement.T @ normal_image(U @ U.T - M, gram) @ complement)
    return np.asarray(values[::-1])


def _growth(step_size: float, rates: FloatArray) -> FloatArray:
    if (step_size * rates <= -1).any():
        raise ValueError(f"step_size: expected less than {-1 / rates.min()}, got {step_size}")
    return np.asarray(np.log1p(step_size * rates))


@compiled
def _visit(
    U: FloatArray,
    M: FloatArray,
    gram: FloatArray,
    targets: FloatArray,
    step_size: float,
    begin: int,
    end: int,
    schedule: IntArray,
    kept: int,
    closest: FloatArray,
    visits: IntArray,
    states: FloatArray,
    distances: FloatArray,
) -> int:
    """Take the steps from ``begin`` to ``end`` in place; return the number of kept states."""
    n, k = U.shape
    X, change = np.empty((n, n)), np.empty((n, k))
    flat, image, now = np.empty(len(gram)), np.empty(len(gram)), np.empty(len(targets))
    for t in range(begin, end + 1):
        np.dot(U, U.T, X)
        if t > begin or t == 0:
            for s in range(len(targets)):
                total = 0.0
                for i in range(n):
                    for j in range(n):
                        total += (X[i, j] - targets[s, i, j]) ** 2
                now[s] = np.sqrt(total)
                if now[s] < closest[s]:
                    closest[s], visits[s] = now[s], t
            if kept < schedule.size and schedule[kept] == t:
                states[kept] = U
                distances[kept] = now
                kept += 1
        if t == end:
            break
        X -= M
        pack_symmetric(X, flat)
        np.dot(gram, flat, image)
        unpack_symmetric(image, X)
        np.dot(X, U, change)
        for i in range(n):
            for j in range(k):
                U[i, j] -= step_size * change[i, j]
    return kept
