"""Lifting to tensors turns a spurious minimum of rank-one sensing into a strict saddle."""

from fractions import Fraction
from functools import cache, reduce
from itertools import combinations_with_replacement, product

import numpy as np
import sympy as sp
from scipy.optimize import least_squares

from theorylab.matrix_sensing import (
    completion_spectrum,
    completion_threshold,
    first_saddle_order,
    isometry_bounds,
    lifted_gradient,
    lifted_hessian,
    lifted_loss,
    lifting_ratio,
    perturbed_completion,
    saddle_bound,
)
from theorylab.verify import (
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    exact,
    exhaustive,
    threshold,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

LIFT = (
    r"For $f(x)=\sum_i(\langle A_i,xx^\top-zz^\top\rangle)^2$ and its lift "
    r"$h_l(w)=\sum_{i_1..i_l}(\langle A_{i_1}\otimes\cdots\otimes A_{i_l},ww^\top\rangle"
    r"-\prod_j\langle A_{i_j},zz^\top\rangle)^2$, "
)
FAMILY = (
    r"$n=3$, all entries seen with weight 1, the pair (1,3) with $\epsilon\in(0,1)$, $z=(1,0,1)$, "
    r"$\delta=(1-\epsilon^2)/(1+\epsilon^2)$, $\hat x=\sqrt\delta(1,0,-1)$: "
)


# Integer measurements of the completion problem with delta = 1/4, squared weights times 10: each is a sum of squares.
UNIT = np.eye(3, dtype=int)
PAIRS = {
    (i, j): np.outer(UNIT[i], UNIT[j]) + np.outer(UNIT[j], UNIT[i])
    for i, j in ((0, 1), (1, 2), (0, 2))
}
INTEGER = [c * np.outer(e, e) for e in UNIT for c in (3, 1)] + [
    c * PAIRS[ij] for ij in ((0, 1), (1, 2)) for c in (2, 1)
]
INTEGER = np.array(INTEGER + 3 * [PAIRS[0, 2]])


@claim(
    LIFT
    + r"$A_i$ symmetric: a stationary $x$ of $f$ gives a stationary $x^{\otimes l}$ of $h_l$, and at every $x$ "
    r"$\nabla^2h_l(x^{\otimes l})=4(K_x^{\otimes l}-K_z^{\otimes l})+8S_x^{\otimes l}$ with "
    r"$K_u=\sum_i\langle A_i,uu^\top\rangle A_i$, $S_x=\sum_iA_ixx^\top A_i$.",
    sources=[
        "ma2023-over, stationarity of lifted critical points",
        "ma2023-over, Hessian form derived here",
    ],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"order": 1, "n": 3, "m": 4}, {"order": 2, "n": 3, "m": 3}],
        "full": [{"order": 3, "n": 2, "m": 3}, {"order": 1, "n": 4, "m": 6}]
        + [{"order": 2, "n": 3, "m": m} for m in (1, 6, 4)],
    },
    space={"order": Int(1, 3), "n": Int(2, lambda p: 4 - p["order"] // 2), "m": Int(1, 4)},
    breaks={"A_i not symmetric": {"symmetric": False}, "x not stationary": {"stretch": 2}},
)
def lifted_gradient_hessian_kronecker(
    order, n, m, seed: int, symmetric=True, stretch=1
) -> Evidence:
    # Every float below is an integer under 2^53. Five values of a quartic give its derivatives at 0 without error.
    rng = np.random.default_rng(seed)
    A, z, x = rng.integers(-2, 3, (m, n, n)), rng.integers(1, 4, n), rng.integers(1, 4, n)
    part = A + A.transpose(0, 2, 1)
    skew = np.eye(n, k=1, dtype=int) - np.eye(n, k=-1, dtype=int)
    seen = part if symmetric else part + skew
    lifted = np.array([reduce(np.kron, chosen) for chosen in product(seen, repeat=order)])
    b = np.array([np.prod(c) for c in product(seen @ z @ z, repeat=order)])
    w = reduce(np.kron, [x] * order)
    hessian = lifted_hessian(part, z, x, order=order)
    H, (first, second) = hessian.matrix, (hessian.point_matrix @ x, hessian.truth_matrix @ x)
    g = 4 * (reduce(np.kron, [first] * order) - reduce(np.kron, [second] * order))

    def as_stated(p) -> bool:
        values = [
            int((((lifted @ (w + t * p)) @ (w + t * p) - b) ** 2).sum()) for t in (-2, -1, 0, 1, 2)
        ]
        derivatives = np.dot(values, [1, -8, 0, 8, -1]), np.dot(values, [-1, 16, -30, 16, -1])
        return derivatives == (12 * int(g @ p), 12 * int(p @ H @ p))

    units = np.eye(n**order, dtype=int)
    directions = {
        (i, j): units[i] + (i != j) * units[j]
        for i, j in combinations_with_replacement(range(n**order), 2)
    }
    formulas = exhaustive({ij: as_stated(p) for ij, p in directions.items()}, count=len(directions))
    stationary = stretch * reduce(np.multiply.outer, [np.array([1, 0, -1])] * min(order, 2))
    gradient = lifted_gradient(INTEGER, np.array([2, 0, 2]), stationary)
    return all_of(formulas, exact(int(np.abs(gradient).max()), "==", 0))


@lifted_gradient_hessian_kronecker.panel
def _(ax, runs: Runs) -> None:
    problem, t = perturbed_completion(0.4), np.linspace(0, 0.9, 40)
    for order, colour in zip((1, 2, 3), COLOURS, strict=False):
        x, u = (
            reduce(np.multiply.outer, [v] * order)
            for v in (problem.spurious, problem.truth / np.sqrt(2))
        )
        loss = np.array([lifted_loss(problem.matrices, problem.truth, x + s * u) for s in t[::4]])
        curvature = lifted_hessian(
            problem.matrices, problem.truth, problem.spurious, order=order
        ).curvature(problem.truth / np.sqrt(2))
        ax.plot(t, 1 + curvature * t**2 / 2 / loss[0], color=colour)
        ax.plot(t[::4], loss / loss[0], "o", color=colour)
        ax.text(0.92, loss[-1] / loss[0], f"l = {order}", color=colour, fontsize=8, va="center")
    ax.set(
        title=r"$\epsilon=0.4$: from order 3 on the loss falls from $\hat x^{\otimes l}$",
        xlabel=r"t in $\hat x^{\otimes l}+tu^{\otimes l}$",
    )
    ax.set_ylabel("loss / loss at t = 0")
    ax.text(0.0, 2.2, "line: Kronecker Hessian, points: loss", fontsize=8)


@claim(
    FAMILY
    + r"$\hat x^{\otimes l}$ is a strict saddle of $h_l$ iff $2^l(1-\delta^{2l})>2(\delta(1+\delta))^l$, that is "
    r"$\delta<\delta_l$, with $\delta_1=\frac12$, then .71202, .79856, .84521, .87435, and $\delta_l\uparrow1$.",
    sources=["ma2023-over, perturbed matrix completion example (threshold derived here)"],
    origin="derived",
    kind="threshold",
    cases={
        "quick": [{"order": order} for order in (5, 3, 2, 1)],
        "full": [{"order": order} for order in (6, 5, 4, 3, 2, 1)],
    },
    space={"order": Int(1, 4)},
    breaks={"weight 0.9 on the diagonal": {"diagonal": Fraction(9, 10)}},
    shifts={"threshold of the order below": {"order": 2, "stated": 1}},
)
def pmc_lifting_threshold_equation(order, diagonal=Fraction(1), stated=None) -> Evidence:
    def saddle(delta: float) -> bool:
        return completion_spectrum(delta, order, diagonal=diagonal)[0][0] < 0

    # Every decision of the bisection is a sign in rational arithmetic. Below the bracket the control has no such point.
    predicted = float(completion_threshold(stated or order)[0])
    return threshold(
        saddle,
        predicted,
        bracket=(0.2, 0.999),
        tol=1e-12,
        grade=Grade.CERTIFIED,
        data={"order": order, "predicted": predicted},
    )


@pmc_lifting_threshold_equation.panel
def _(ax, runs: Runs) -> None:
    orders = np.arange(1, 13)
    curve = np.array([float(completion_threshold(int(n))[0]) for n in orders])
    ax.plot(orders, curve, "-", color=COLOURS[0])
    ax.plot(
        [run.data["order"] for run in runs],
        [run.evidence.measured for run in runs],
        "o",
        color=COLOURS[0],
    )
    ax.plot(orders[1:], 1 - 0.6663 / orders[1:], ":", color=COLOURS[2])
    ax.fill_between(orders, curve, 1, color=BROKEN, alpha=0.3, linewidth=0)
    ax.text(1.3, 0.93, "still a minimum of the lift", fontsize=8, color="#555555")
    ax.text(6, 0.7, "strict saddle", fontsize=8, color=COLOURS[0])
    ax.text(2.3, 0.60, r"$1-0.666/l$", fontsize=8, color=COLOURS[2])
    ax.set(
        title=r"Order $l$ turns spurious points with $\delta<\delta_l$ into saddles",
        xlabel="order l",
        ylabel=r"$\delta_l$",
    )


@claim(
    FAMILY
    + r"for $\frac12<\delta<1$, not the threshold $\delta_l$ of any order, the point $\hat x$ is a strict local minimum of $f$, "
    r"and $\hat x^{\otimes l}$ one of $h_l$ for $l<L$ and a strict saddle for $l\ge L$, "
    r"$L=\min\{l:2^l(1-\delta^{2l})>2(\delta(1+\delta))^l\}$; $L=4$ at $\epsilon=0.3$.",
    sources=["ma2023-over, main theorem (illustrated; this instance derived here)"],
    origin="derived",
    kind="threshold",
    cases={
        "quick": [{"eps": e} for e in (0.2, 0.3)],
        "full": [{"eps": e} for e in (0.1, 0.2, 0.4, 0.5, 0.3)],
    },
    space={"eps": Real(0.15, 0.57)},
    breaks={"delta below 1/2": {"eps": 0.7}},
)
def spurious_minimum_becomes_saddle(eps: float) -> Evidence:
    problem = perturbed_completion(eps)
    first = first_saddle_order(problem.delta)
    lowest = {
        order: completion_spectrum(problem.delta, order)[0][0] for order in range(1, first + 2)
    }
    signs = {
        order: value != 0 and (value < 0) == (order >= first) for order, value in lowest.items()
    }
    shown = [float(completion_spectrum(problem.delta, order)[0][0]) for order in range(1, 6)]
    data = {"lowest": shown, "first": first}
    return all_of(exact(lowest[1], ">", 0), exhaustive(signs, grade=Grade.CERTIFIED), data=data)


@spurious_minimum_becomes_saddle.panel
def _(ax, runs: Runs) -> None:
    shown = sorted(runs, key=lambda run: run.instance["eps"])
    for run, colour in zip(shown, COLOURS, strict=False):
        ax.plot(range(1, 6), run.data["lowest"], "o-", color=colour)
        ax.text(
            5.1,
            run.data["lowest"][-1],
            rf"$\epsilon={run.instance['eps']}$",
            color=colour,
            fontsize=8,
            va="center",
        )
    broken = runs.controls["delta below 1/2"].data
    ax.plot(range(1, 6), broken["lowest"], ".-", color=BROKEN)
    ax.text(5.1, broken["lowest"][-1], r"$\epsilon=0.7$", color=BROKEN, fontsize=8, va="center")
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(
        title="A strict spurious minimum becomes a strict saddle",
        xlabel="order l",
        xlim=(0.8, 6.1),
        xticks=range(1, 6),
    )
    ax.set_ylabel(r"$\lambda_{\min}(\nabla^2h_l(\hat x^{\otimes l}))$")


def critical_points(A, z, rng) -> list[np.ndarray]:
    """Critical points of f other than the truth, to rounding; 0 is always one."""

    def gradient(x):
        H = lifted_hessian(A, z, x, order=1)
        return (H.point_matrix - H.truth_matrix) @ x

    runs = [
        least_squares(gradient, rng.standard_normal(z.size), method="lm", xtol=1e-15, ftol=1e-15)
        for _ in range(6)
    ]
    found = [run.x for run in runs if np.linalg.norm(run.fun) < 1e-11]
    return [np.zeros(z.size)] + [
        x for x in found if min(np.linalg.norm(x - z), np.linalg.norm(x + z)) > 1e-3
    ]


@cache
def condition_in_the_family() -> Evidence:
    """Where beta < 1 starts, the spurious point is a saddle of f already: delta < 1/2 is u > 1/3, u = eps^2."""
    u = sp.symbols("u", positive=True)
    delta = (1 - u) / (1 + u)
    gap = 1 - 4 * delta / (u * 4 * (1 + delta**2))  # 1 - beta at the spurious point
    cubic = 2 * u**3 + u**2 + 2 * u - 1  # increasing
    return all_of(
        exact(sp.together(gap), "==", cubic / (2 * u * (1 + u**2))),
        exact(cubic.subs(u, sp.Rational(1, 3)), "<", 0),
    )


@claim(
    LIFT
    + r"$A_i$ symmetric, with $\alpha\|M\|_F^2\le\sum_i\langle A_i,M\rangle^2\le L\|M\|_F^2$ for all symmetric $M$ and "
    r"$\beta=L\|z\|^2\|x\|^2/(\alpha\|D\|_F^2)$, $D=xx^\top-zz^\top$, every critical point $x\ne\pm z$ has "
    r"$\lambda_{\min}(\nabla^2f(x))\le-4\alpha\|D\|_F^2(1-\beta)/\|z\|^2$: the condition $\beta<1$ of the lifting theorem (as "
    r"recalled; hypotheses unseen) never holds at a spurious local minimum. The completion family needs $\epsilon^2>.3761$ for "
    r"it, but $\hat x$ is a saddle of $f$ itself once $\epsilon^2>\frac13$.",
    sources=["ma2023-over, main theorem recalled from memory (comparison derived here)"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"eps": 0.3, "noise": 0.3}, {"eps": 0.7, "noise": 0.0}],
        "full": [
            {"eps": e, "noise": s} for e in (0.1, 0.3, 0.5, 0.6, 0.65, 0.7, 0.9) for s in (0.3, 0.0)
        ],
    },
    space={"eps": Real(0.1, 0.95), "noise": Real(0.0, 0.5)},
    breaks={"x not critical": {"stretch": 3.0}},
)
def sufficient_condition_vacuous_here(
    eps: float, noise: float, seed: int, stretch: float = 0.0
) -> Evidence:
    rng = np.random.default_rng(seed)
    problem = perturbed_completion(eps)
    z, bump = problem.truth, noise * rng.standard_normal((6, 3, 3)) / 3
    A = problem.matrices + bump + bump.transpose(0, 2, 1)
    lower, upper = isometry_bounds(A)
    points = (
        [stretch * z]
        if stretch
        else critical_points(A, z, rng) + ([] if noise else [problem.spurious])
    )
    lowest = [lifted_hessian(A, z, x, order=1).smallest_eigenvalue for x in points]
    bounds = [saddle_bound(z, x, lower=lower, upper=upper) for x in points]
    curvature = at_most(
        lowest, bounds, rounding=1e-9
    )  # the critical points have gradients up to 1e-11
    beta = lifting_ratio(z, problem.spurious, lower=eps**2, upper=1.0)
    return all_of(curvature, condition_in_the_family(), data={"beta": beta, "lowest": lowest[-1]})


@sufficient_condition_vacuous_here.panel
def _(ax, runs: Runs) -> None:
    grid = np.linspace(0.2, 0.98, 200)
    problems = [perturbed_completion(float(e)) for e in grid]
    ratio = [
        lifting_ratio(p.truth, p.spurious, lower=e**2, upper=1.0)
        for e, p in zip(grid, problems, strict=True)
    ]
    ax.semilogy(grid, ratio, color=COLOURS[0])
    shown = [run for run in runs if run.instance["noise"] == 0 and run.instance["eps"] > 0.2]
    for run in shown:
        saddle = run.data["lowest"] < 0
        ax.plot(
            run.instance["eps"],
            run.data["beta"],
            "o",
            color=COLOURS[0],
            fillstyle="none" if saddle else "full",
        )
    ax.axhline(1, color="black", linewidth=0.6)
    ax.axvspan(0.2, 1 / np.sqrt(3), color=BROKEN, alpha=0.3, linewidth=0)
    ax.text(0.22, 0.3, "spurious minima\n(filled)", fontsize=8, color="#555555")
    ax.text(0.72, 3.5, "already saddles\nof f (open)", fontsize=8, color=COLOURS[0])
    ax.text(0.97, 1.12, "condition holds below", fontsize=8, ha="right")
    ax.set(
        title=r"The recalled condition $\beta<1$ holds at saddles only",
        xlabel=r"$\epsilon$",
        ylabel=r"$\beta$ (log)",
    )


if __name__ == "__main__":
    run_script(__file__)
