"""The regularisation path: continuous outputs, certified at every penalty, jumping weights."""

from itertools import pairwise

import numpy as np

from theorylab import convex_relu as cr
from theorylab.convex_relu import solution_path as paths
from theorylab.verify import (
    Choice,
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    panel,
    paper,
    simulation,
    slope,
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "mishkin2023-optimal"
path = paper(
    KEY,
    r"Let $f(\beta)$, $v=y-f$, $P$ be outputs, residual and penalty "
    r"$\frac12\sum_j(\|u_j\|^2+a_j^2)$ "
    r"of an optimum of $\frac12\|\sum_ja_j(Xu_j)_+-y\|^2+\beta P$ over all widths, $\beta>0$:",
)
weights = paper(
    KEY,
    r"Let $W(\beta)$ be the set of optima of the convex program for "
    r"$\frac12\|\sum_ja_j(Xu_j)_+-y\|^2"
    r"+\frac\beta2\sum_j(\|u_j\|^2+a_j^2)$, as vectors of blocks $|a_j|u_j$, those of one sign "
    r"merged "
    r"where they share a closed cell:",
)
# Two rows that one neuron fits one at a time: the longer one first, the more useful one later.
TRAP = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1.0, -0.9])


def gaussian(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n)


# ---------------------------------------------------------------------------------- outputs
@simulation
def optimum(X, y, beta, one_neuron):
    """Outputs, penalty and certified gap of the optimum; or the first two of the best single neuron
    of descent from a grid."""
    training = cr.train(X, y, beta, tol=1e-10)
    network, gap = training.network, training.objective - training.dual_objective
    if one_neuron:
        angles = np.linspace(0, 2 * np.pi, 12, endpoint=False) + 0.1
        units = np.column_stack([np.cos(angles), np.sin(angles)])
        ends = [
            cr.local_minimum(X, y, beta, (u[None], np.array([s])))
            for u in units
            for s in (1.0, -1.0)
        ]
        network = min(ends, key=lambda end: end.objective).network
    return network(X), network.penalty, max(gap, 0.0) + 1e-14 * float(y @ y)


@path.abstract("e", instance=True)
@cases(n=[1, 7], d=2)
@full(n=[1, 30], d=2)
@full(n=12, d=3)
@full(n=7, d=2, ratios=tuple(np.geomspace(0.95, 0.02, 40)))
@space(n=Int(1, 9), d=Int(1, 3), least=Real(0.02, 0.5, log=True))
@breaks("the best network of one neuron, fewer than the optimum has", one_neuron=True)
def path_monotone_continuous(n, d, seed, least=0.05, ratios=None, one_neuron=False):
    r"""$\|v(\beta')-v(\beta)\|\le(1-\frac\beta{\beta'})\|v(\beta')\|$ and $\|f(\beta')-f(\beta)\|^2
    \le(\beta'-\beta)(P(\beta)-P(\beta'))$ for $\beta<\beta'$: outputs are continuous, the loss is
    nondecreasing, $P$ nonincreasing; and the network is zero iff
    $\beta\ge\beta_{\max}=\max_{\|u\|\le1}|y^\top(Xu)_+|$."""
    X, y = TRAP if one_neuron else gaussian(n, d, seed)
    top, grid = cr.zero_threshold(X, y), np.geomspace(0.95, least, 12)
    betas = top * np.array(grid if ratios is None else ratios)
    solved = [optimum(X, y, beta, one_neuron) for beta in betas]
    v = y - np.array([f for f, _, _ in solved])
    penalties, gaps = np.array([(p, gap) for _, p, gap in solved]).T
    low, high = np.tril_indices(len(betas), -1)
    shift = np.linalg.norm(v[low] - v[high], axis=1)
    bound = (1 - betas[low] / betas[high]) * np.linalg.norm(v[high], axis=1)
    energy = (betas[high] - betas[low]) * (penalties[low] - penalties[high])
    size, source = np.linalg.norm(y), "|v - v*|^2 <= 2 gap, certified"
    norms = np.linalg.norm(v, axis=1) / size
    # Strong convexity bounds the error of v by that of the value; the rest of the value is beta P.
    off = np.sqrt(2 * gaps)
    rough = (gaps + size * norms * off + off**2) / betas
    both, room = off[low] + off[high], (betas[high] - betas[low]) * (rough[low] + rough[high])

    def zero(ratio):
        return bool(optimum(X, y, ratio * top, one_neuron)[1] == 0)

    return {
        "residual": compare(
            within(shift / size, (both + off[high]) / size, source),
            "<=",
            theory("Lipschitz bound", bound / size),
        ),
        "outputs": compare(
            within(shift**2 / size**2, (both * (2 * shift + both) + room) / size**2, source),
            "<=",
            theory("energy", energy / size**2),
        ),
        "loss": compare(
            within(norms, (off + np.append(0.0, off[:-1])) / size, source),
            "<=",
            theory("at larger penalty", np.append(1.0, norms[:-1])),
        ),
        "penalty": compare(
            within(
                penalties * top / size**2,
                (rough + np.append(0.0, rough[:-1])) * top / size**2,
                source,
            ),
            ">=",
            theory("penalty at larger penalty", np.append(0.0, penalties[:-1]) * top / size**2),
        ),
        "threshold": compare(
            switch(zero, bracket=(0.5, 2.0), tol=1e-6), "==", theory("beta_max", 1.0)
        ),
    }


@panel(
    path_monotone_continuous,
    "The residual grows with the penalty, without jumps",
    x=r"$\beta/\beta_{\max}$",
    y=r"$\|v\|/\|y\|$",
    log="x",
)
def _(pen, runs):
    ratios = {"ratios": runs.judgement.runs[-1].instance.get("ratios")}
    if ratios["ratios"] is None:
        return
    x, y, error = runs.measured("ratios", "loss", where=ratios)
    pen.theory(x[:-1], y[1:] * x[:-1] / x[1:], r"$\|v(\beta')\|\beta/\beta'$, a lower bound", k=1)
    pen.points(x, y, error, "optimum on 7 samples")
    name = "the best network of one neuron, fewer than the optimum has"
    pen.broken(*runs.measured("ratios", "loss", control=name), "best single neuron")


@simulation
def mixtures(n, d, seed, tol, spoil):
    """For consecutive penalties of a path and a mixture at random: value less that of the mixed
    residuals, the bracket, the excess, and what the ends lack to v'f = beta P, all relative to the
    optimum."""
    X, y = gaussian(n, d, seed)
    rng, rows = np.random.default_rng(seed), []
    traced = cr.trace_solution_path(X, y, tol=tol)
    for first, second in pairwise(traced.points):
        t = rng.uniform(0.2, 0.8)
        beta = (1 - t) * first.beta + t * second.beta
        best = cr.train(X, y, beta, tol=1e-9).objective
        fit = (1 - t) * first.fit + t * spoil * second.fit
        penalty = (1 - t) * first.penalty + t * spoil * second.penalty
        v = y - (1 - t) * first.fit - t * second.fit
        bracket = (first.beta - second.beta) * (second.penalty - first.penalty)
        bracket -= np.sum((first.fit - second.fit) ** 2)
        value = np.sum((fit - y) ** 2) / 2 + beta * penalty
        merged = cr.network_objective(X, y, beta, traced.network(beta))
        lack = max(abs(p.beta * p.penalty - (y - p.fit) @ p.fit) for p in (first, second))
        row = [value - (y @ v - v @ v / 2), t * (1 - t) * bracket, max(value, merged) - best, lack]
        rows.append(np.array(row) / best)
    return np.array(rows).T, traced.gap


@path.ours("derived: how to certify between solved penalties", serves="e")
@cases(n=[5, 7], d=2)
@full(n=30, d=2)
@full(n=12, d=3)
@full(n=7, d=2, tol=1e-3)
@space(n=Int(3, 9), d=Int(2, 3))
@breaks("one end is not optimal", spoil=0.7)
def path_certified_everywhere(n, d, seed, tol=1e-2, spoil=1.0):
    r"""for solved $\beta_1>\beta_2$ the mixtures, with weights $1-\theta,\theta$, of both networks
    and of both residuals bracket the optimum at $(1-\theta)\beta_1+\theta\beta_2$ within exactly
    $\theta(1-\theta)[(\beta_1-\beta_2)(P_2-P_1)-\|f_1-f_2\|^2]$; a path refined until this is below
    a tolerance has a network within it at every penalty."""
    (width, bracket, excess, lack), largest = mixtures(n, d, seed, tol, spoil)
    source = "gap of the optimum, 1e-9, and what the ends lack to v'f = beta P, at most 1e-9"
    # A bracket below 1e-6, where no neuron rotates, cannot be told from the gaps.
    some = bracket > 1e-6 if (bracket > 1e-6).any() else np.full(bracket.shape, True)
    error = 4e-9 if (bracket > 1e-6).any() and lack.max() < 1e-9 else np.inf
    return {
        "bracket": compare(
            within(width[some], error, source), "==", theory("bracket", bracket[some])
        ),
        "excess": compare(
            within(excess[some], error, source), "<=", theory("bound", bracket[some])
        ),
        "whole path": compare(within(largest, 1e-9, source), "<=", theory("tolerance", tol)),
    }


@panel(
    path_certified_everywhere,
    "A gap at every penalty, not only on a grid",
    x="bracket of the mixtures, relative",
    y="relative excess",
    log="xy",
)
def _(pen, runs):
    part = runs.judgement.runs[-1].parts["excess"]
    x = np.sort(part.predicted)
    pen.theory(x, x, "bracket")
    pen.points(part.predicted, part.centre, label="true excess at random penalties", k=1)
    (control,) = runs.judgement.controls
    broken = control.run.parts["excess"]
    pen.broken(broken.predicted, broken.centre, label="one end not optimal")


# ---------------------------------------------------------------------------------- weights
STEPS = tuple(np.geomspace(0.1, 1e-4, 13))


@simulation
def distances(data, size, d, ratio, side, jump, steps, seed):
    """Distances of W(beta + h) from W(beta), relative to the penalty; NaN where faces change over
    the last half of the steps."""
    X, y = gaussian(size, d, seed)
    beta = ratio * cr.zero_threshold(X, y)
    if data == "polygon":
        angles = 2 * np.pi * np.arange(size) / size + seed
        X, y = np.zeros((size, d)), np.ones(size)
        X[:, 0], X[:, 1] = np.cos(angles), np.sin(angles)
        beta = ratio * cr.zero_threshold(X, y)
    elif data == "breakpoint":  # orthogonal rows: those of one sign leave together, at this beta
        X, y = np.diag(np.exp(X[0])), np.abs(y[:d]) * (-1.0) ** np.arange(d)
        beta = min(np.linalg.norm(np.maximum(s * X @ y, 0)) for s in (1, -1))
    here, found = cr.find_optimal_set(X, y, beta, tol=1e-9), []
    there = [cr.find_optimal_set(X, y, beta * (1 + side * h), tol=1e-9) for h in steps]
    faces = (there[-1] if data == "breakpoint" else here).n_directions
    for h, other in zip(steps, there, strict=True):
        apart = paths.optimal_set_distance(X, other, here)
        if jump:
            apart = np.linalg.norm(cr.vertices(other)[-1] - cr.vertices(here)[0])
        changed = h <= np.sqrt(steps[0] * steps[-1]) and other.n_directions != faces
        found.append(np.nan if changed else apart / here.total)
    return np.array(found)


@weights.ours("sharpens the conditions of continuity by the sets of optima", serves="e")
@cases(data="gaussian", size=[7, 10], ratio=[0.3, 0.01])
@cases(data="gaussian", size=6, d=3, ratio=0.1)
@cases(data="breakpoint", size=3, ratio=1.0, d=3, side=[-1, 1])
@cases(data="polygon", size=8, ratio=0.3, side=[-1, 1])
@space(
    data=Choice(["polygon", "gaussian", "breakpoint"]),
    size=Int(4, 8),
    d=Int(2, 3),
    ratio=Real(0.02, 0.8, log=True),
    side=Choice([-1, 1]),
)
@breaks("a selection that changes between two vertices of the octagon", jump=True)
def weight_path_closed_graph(data, size, ratio, seed, d=2, side=1, jump=False, steps=STEPS):
    r"""$W(\beta)$ is a polytope and has closed graph on $\beta>0$: for $\beta<\beta_{\max}$ the
    largest distance of a point of $W(\beta+h)$ from $W(\beta)$ tends to 0 in proportion to $|h|$,
    also at a breakpoint $\beta$, where an active direction appears or leaves. So any selection is
    continuous where the optimum is unique; where it is not, discontinuous selections exist though
    the outputs are Lipschitz. (Proved by Hoffman's bound from above, $P'<0$ from below.)"""
    apart = distances(data, size, d, ratio, side, jump, steps, seed)
    measured = slope(1 / np.array(steps), apart, floor=1e-10)
    return compare(measured, "==", theory("exponent", -1.0))


if __name__ == "__main__":
    run_script(__file__)
