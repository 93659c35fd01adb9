"""Adversarial classification: the least risk is a matching, its boundaries flow and break."""

from fractions import Fraction

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, minimize_scalar

from theorylab.optimal_transport import (
    LineRule,
    NormalMixture,
    RadialNormal,
    boundary_flow,
    conflict_cost,
    exact_plan,
    line_risk,
    matching_bound,
    optimal_rule,
    robust_classifier,
    stationarity,
)
from theorylab.verify import (
    Int,
    Real,
    between,
    breaks,
    cases,
    compare,
    family,
    full,
    panel,
    paper,
    simulation,
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

EPS = np.finfo(float).eps
ROUNDING = "rounding of the risk, through its curvature"
points = paper(
    "trillos2020-adversarial",
    r"$n_0+n_1$ points of two classes in the plane (judged: integers from 0 to 9), weights of any "
    r"sums, each point moved by at most $\epsilon$:",
)


@simulation
def enumerated(n0, n1, diameter, seed):
    """Points, labels, whole weights; the least weight lost over all sets that class 0 keeps."""
    rng = np.random.default_rng(seed)
    X, w = rng.integers(0, 10, (n0 + n1, 2)), rng.integers(1, 10, n0 + n1)
    y = np.repeat([0, 1], [n0, n1])
    near = ((X[:n0, None] - X[None, n0:]) ** 2).sum(axis=-1) <= diameter**2
    kept = (np.arange(2**n0)[:, None] >> np.arange(n0)) & 1
    lost = (1 - kept) @ w[:n0] + (kept @ near > 0) @ w[n0:]
    return X, y, w, int(lost.min())


@points.abstract("e")
@cases(n0=8, n1=[3, 9], diameter=3)
@full(n0=10, n1=12, diameter=[0, 1, 2, 4, 5, 6, 7, 8, 3])
@space(n0=Int(1, 9), n1=Int(1, 9), diameter=Int(0, 8))
@breaks("matched within eps", reach=0.5)
@breaks("both classes given weight 1/2", balanced=True, n1=1, diameter=20)
def adversarial_risk_is_ot(n0, n1, diameter, seed, reach=1.0, balanced=False):
    r"""the least risk of any classifier ($2\epsilon$ is the diameter) is the largest mass of a
    matching of class 0 with class 1 at distance at most $2\epsilon$, and
    $\frac12(1-\min_{\pi\in\Pi(\rho,\rho)}\int c_\epsilon d\pi)$, $\rho$ the law of $(x,y)$,
    $c_\epsilon=0$ if $|x-x'|\le2\epsilon$ and $y\ne y'$, else 1."""
    X, y, w, lost = enumerated(n0, n1, diameter, seed)
    risk = Fraction(lost, int(w.sum()))
    if balanced:
        w = w * np.where(y == 0, w[y == 1].sum(), w[y == 0].sum())
    total, eps = int(w.sum()), reach * diameter / 2
    matched = robust_classifier(X, y, eps, weights=w / total).bound
    cost = exact_plan(w / total, w / total, conflict_cost(X, y, eps)).value
    matched, cost = (Fraction(v).limit_denominator(total) for v in (matched, cost))
    return {
        "matching": compare(risk, "==", theory("matching", matched)),
        "transport": compare(risk, "==", (1 - theory("transport", cost)) / 2),
    }


@panel(
    adversarial_risk_is_ot,
    "The least adversarial risk is a matching of the classes",
    x=r"$2\epsilon$",
    y="risk, 10 + 12 points",
)
def _(pen, runs):
    pen.theory(*runs.predicted("diameter"), "largest matching")
    pen.points(*runs.measured("diameter"), "all classifiers")


line = paper(
    "trillos2020-adversarial",
    r"On the line, class 0 is $w_0((1-s)N(-l,1)+sN(r,\tau^2))$, class 1 is $(1-w_0)N(0,\sigma^2)$ "
    r"(share $s$, left $l$, right $r$, width $\sigma$, spread $\tau$, 1 unless stated), with "
    r"densities $f_0,f_1$:",
)


def classes(weight, share, left, right, width, spread=1.0):
    f = NormalMixture([weight * (1 - share), weight * share], [-left, right], [1.0, spread])
    return f, NormalMixture([1 - weight], [0.0], [width])


@simulation
def minimised(f, g, start, half, eps):
    """Boundaries that minimise the risk near a start, each by a search of its own that uses no
    derivative; their error; the risk."""
    b, least, error = np.array(start.boundaries), [], []
    for k in range(b.size):

        def risk(x, k=k):
            return line_risk(f, g, LineRule([*b[:k], x, *b[k + 1 :]], start.first), eps)

        # Towards a neighbour no further than it; outwards nothing stops a boundary.
        outwards = [0.9 if b.size == 1 or k else 3.0, 0.9 if k < b.size - 1 else 3.0]
        grid = b[k] + half * np.linspace(-outwards[0], outwards[1], 80)
        i = int(np.clip(np.argmin([risk(x) for x in grid]), 1, 78))
        options = {"bounds": (grid[i - 1], grid[i + 1]), "method": "bounded"}
        run = minimize_scalar(risk, **options, options={"xatol": 1e-11})
        curvature = stationarity(f, g, LineRule([run.x], (start.first + k) % 2), eps).curvature[0]
        least.append(run.x)
        error.append(4 * np.sqrt(2 * EPS * run.fun / max(curvature, EPS)) + 1e-11)
    rule = LineRule(least, start.first)
    return np.array(least), np.array(error), line_risk(f, g, rule, eps)


def judged(f, g, start, half, eps, flow, factor=1.0, densities=None):
    """The parts of both claims: where the least risk is attained, how large it is, the densities
    there."""
    bayes = np.array(start.boundaries)
    b, error, risk = minimised(f, g, start, half, eps)
    there = [
        stationarity(*(densities or (f, g)), LineRule(b + move, start.first), eps)
        for move in (0.0, error, -error)
    ]
    ratio = [at.behind / at.ahead for at in there]
    reach = np.abs(np.subtract(ratio[1:], ratio[0])).max(axis=0) + 1e-13
    bound = matching_bound(f, g, LineRule(b, start.first), eps)
    followed = line_risk(f, g, LineRule(flow, start.first), eps)
    return {
        "flow": compare(within(b - bayes, error, ROUNDING), "==", theory("flow", flow - bayes)),
        "least": compare(between(risk, bound), "==", theory("risk", followed)),
        "condition": compare(
            within(ratio[0], reach, ROUNDING), "==", theory("ratio", factor * np.ones(b.size))
        ),
    }


@line.abstract("a", "b", "c", instance=True)
@cases(reach=[0.1, 0.4])
@full(reach=[0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
@space(
    weight=Real(0.35, 0.65),
    share=Real(0.2, 0.8),
    left=Real(1.5, 3.0),
    right=Real(1.5, 3.0),
    width=Real(0.5, 1.0),
    reach=Real(0.02, 0.25),
)
@breaks("boundaries kept at the Bayes ones", moving=False)
def one_d_boundary_ode(reach, weight=0.5, share=0.3, left=2.0, right=2.8, width=0.8, moving=True):
    r"""from the Bayes boundaries, where the densities cross transversally, each boundary $b$ (class
    $i$ on its left, $j$ on its right) follows its own equation $\dot
    b=(f_i'(b-\epsilon)+f_j'(b+\epsilon))/(f_i'(b-\epsilon)-f_j'(b+\epsilon))$. For small budgets
    (reach: $2\epsilon$ over their least gap) it is the minimiser of the risk, so that
    $f_i(b-\epsilon)/f_j(b+\epsilon)=1$, and no classifier has less."""
    f, g = classes(weight, share, left, right, width)
    start = optimal_rule(f, g, 0.0)
    half = np.diff(start.boundaries).min() / 2
    eps = float(reach * half)
    bayes = np.array(start.boundaries)
    flow = boundary_flow(f, g, start, [eps]).boundaries[0] if moving else bayes
    return judged(f, g, start, half, eps, flow)


@panel(
    one_d_boundary_ode,
    "Each boundary follows its own equation in the budget",
    x=r"$2\epsilon$ over the least gap",
    y="displacement of the boundary",
)
def _(pen, runs):
    for k, name in enumerate(("left", "right")):
        pen.theory(*runs.predicted("reach", "flow", index=k), k=k)
        pen.points(*runs.measured("reach", "flow", index=k), f"{name} boundary", k=k)


radial = paper(
    "trillos2020-adversarial",
    r"In $\mathbb R^d$, class 0 is $w_0N(0,I)$ and class 1 $(1-w_0)N(0,\sigma^2I)$ (width "
    r"$\sigma>1$), with densities $f_0,f_1$ as functions of the norm:",
)


@simulation
def initial_speed(f, g, size):
    """Derivative in the budget of the optimal radius at budget 0, and the error of the
    extrapolation."""
    steps = size * np.array([0.04, 0.02, 0.01, 0.005, 0.0025])
    radii = [optimal_rule(f, g, e, max_boundaries=1).boundaries[0] for e in (0.0, *steps)]
    table = (np.array(radii[1:]) - radii[0]) / steps
    for k in range(1, 4):
        table = (2**k * table[1:] - table[:-1]) / (2**k - 1)
    return table[-1], abs(table[-1] - table[-2]) + 1e-11 * radii[0] / steps[-1]


@radial.ours("derived: the radial instance of the conditions and the flow", serves="abd")
@cases(dimension=2, reach=[0.1, 0.25])
@cases(dimension=3, reach=0.25)
@full(dimension=[1, 3, 5, 2], reach=[0.05, 0.1, 0.15, 0.2, 0.25])
@space(dimension=Int(1, 6), weight=Real(0.45, 0.65), width=Real(1.5, 3.0), reach=Real(0.02, 0.25))
@breaks("no curvature", curved=0)
def radial_necessary_condition_and_flow(dimension, reach, weight=0.5, width=2.0, curved=1):
    r"""class 0 inside the ball of radius $r$ has the least risk of all classifiers, $\epsilon$ a
    small part (reach) of the Bayes radius, where $r$ is that at $\epsilon=0$ moved by the flow
    that keeps
    $f_0(r-\epsilon)/f_1(r+\epsilon)=((1+\epsilon/r)/(1-\epsilon/r))^{d-1}$; its
    speed at $\epsilon=0$ is $((f_0+f_1)'+2\frac{d-1}rf_0)/(f_0-f_1)'$: the flat one plus
    the mean curvature."""
    f, g = RadialNormal(weight, 1.0, dimension), RadialNormal(1 - weight, width, dimension)
    start = optimal_rule(f, g, 0.0, max_boundaries=1)
    bayes = float(start.boundaries[0])
    eps, d = float(reach * bayes), 1 + curved * (dimension - 1)
    # The densities themselves, as functions on the line, move without the curvature.
    flat = [
        NormalMixture([w * s ** (1 - dimension)], [0.0], [s])
        for w, s in ((weight, 1.0), (1 - weight, width))
    ]
    flow = boundary_flow(*((f, g) if curved else flat), start, [eps]).boundaries[0]
    eta = eps / float(flow[0])
    factor = ((1 + eta) / (1 - eta)) ** (d - 1)
    parts = judged(f, g, start, bayes, eps, flow, factor, flat)
    first, second = 1.0, width**-2.0
    speed, error = initial_speed(f, g, bayes)
    straight = theory("flat speed", (first + second) / (first - second))
    bent = theory("mean curvature", (d - 1) / bayes) * 2 / (bayes * (first - second))
    return {
        **parts,
        "speed": compare(within(speed, error, "extrapolation"), "==", straight - bent),
    }


@panel(
    radial_necessary_condition_and_flow,
    r"Discs: curvature $(1\pm\epsilon/r)^{d-1}$ holds the boundary back",
    x=r"$\epsilon$ over the Bayes radius",
    y="displacement of the radius",
)
def _(pen, runs):
    for k, d in enumerate((1, 2, 3, 5)):
        pen.theory(*runs.predicted("reach", "flow", index=0, where={"dimension": d}), k=k)
        points = runs.measured("reach", "flow", index=0, where={"dimension": d})
        pen.points(*points, f"$d={d}$", k=k)


@simulation
def breakdown(f, g, moving):
    """Where the matching ceases to prove the flow from the Bayes classifier optimal; where its risk
    first is that of the best rule with one boundary or none; whether the flow at parts of it, and
    that rule at multiples, are proved optimal."""
    start = optimal_rule(f, g, 0.0)
    bayes = np.array(start.boundaries)
    last = 0.75 * np.diff(bayes).min()
    end = min(boundary_flow(f, g, start, [last]).end, last)
    t = np.linspace(0, 0.99, 30)  # smooth also where a boundary turns back
    budgets = end * (1 - (1 - t) ** 2)
    paths = (
        boundary_flow(f, g, start, budgets).boundaries if moving else np.tile(bayes, (t.size, 1))
    )
    apart = (np.diff(paths, axis=1) > 2 * budgets[:, None]).all(axis=1)
    budgets, path = budgets[apart], CubicSpline(t[apart], paths[apart])

    def flow(e):
        return LineRule(path(1 - np.sqrt(1 - e / end)), start.first)

    def fewer(e):
        return optimal_rule(f, g, e, max_boundaries=1)

    def ahead(e):
        return line_risk(f, g, flow(e), e) - line_risk(f, g, fewer(e), e)

    def proved(rule, e):
        return line_risk(f, g, rule, e) <= (1 + 1e-6) * matching_bound(f, g, rule, e)

    threshold = switch(lambda e: not proved(flow(e), e), bracket=(0.0, budgets[-1]), tol=5e-3)
    passed = np.array([ahead(e) for e in budgets]) > 0
    if not passed[-1]:  # the risks do not cross
        return threshold, np.nan, {}
    k = int(np.argmax(passed))  # the first time
    crossing = brentq(ahead, budgets[k - 1], budgets[k], xtol=1e-9)
    before = {f: proved(flow(f * crossing), f * crossing) for f in (0.3, 0.6, 0.95)}
    after = {f: proved(fewer(f * crossing), f * crossing) for f in (1.05, 1.5, 3.0)}
    return threshold, crossing, {**before, **after}


@line.ours("derived: how far the small budgets of the theorem reach", serves="c")
@cases(share=0.3)
@cases(left=2.3, right=1.7, share=0.3, spread=0.6, width=0.7, weight=0.6)
@full(left=2.3, right=1.7, share=0.3, spread=0.6, width=0.7, weight=0.6)
@full(share=[0.2, 0.35, 0.5, 0.65, 0.8])
@space(
    weight=Real(0.51, 0.65),
    share=Real(0.2, 0.8),
    left=Real(1.5, 3.0),
    right=Real(1.5, 3.0),
    width=Real(0.5, 0.8),
    spread=Real(0.6, 1.4),
)
@breaks("boundaries kept at the Bayes ones", moving=False)
def topological_breakdown(
    share, weight=0.55, left=2.0, right=2.8, width=0.8, spread=1.0, moving=True
):
    r"""the flow from the two Bayes boundaries gives the least risk of all classifiers until
    $\epsilon_c$, the first budget at which a classifier with fewer boundaries has the same risk
    (no more than half their gap, where nothing is left between them); beyond it, one with fewer
    does."""
    f, g = classes(weight, share, left, right, width, spread)
    threshold, crossing, sides = breakdown(f, g, moving)
    return {
        "threshold": compare(threshold, "==", theory("crossing", crossing)),
        "optimal": compare(family(sides), "==", theory("sides", 6)),
    }


@panel(
    topological_breakdown,
    "The flow is optimal until fewer boundaries do as well",
    x="share of the class on the right",
    y=r"$\epsilon_c$",
)
def _(pen, runs):
    pen.theory(*runs.predicted("share", where={"spread": None}), "the risks cross")
    pen.points(*runs.measured("share", where={"spread": None}), "the matching fails")
    pen.broken(*runs.measured("share", control="boundaries kept at the Bayes ones"), "kept")


if __name__ == "__main__":
    run_script(__file__)
