"""Transport with at most k entries a column: what the semi-dual is worth, and when it is sparse."""

from itertools import combinations, product

import numpy as np
from scipy.optimize import linear_sum_assignment, minimize

from theorylab import optimal_transport as ot
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
    theory,
    within,
)
from theorylab.verify.cli import run_script

sparse = paper(
    "liu2022-sparsity",
    r"Weights $a\in\mathbb R^n$, $b\in\mathbb R^m$, costs with columns $c_j$, $\gamma>0$. $P_k$ is "
    r"the least $\langle C,P\rangle+\frac\gamma2\|P\|_F^2$ over plans with at most $k$ nonzeros a "
    r"column ($\infty$ without one), $D_k=\max_f\langle f,a\rangle-\sum_j\Omega_{b_j}(f-c_j)$, "
    r"$\Omega_b(s)=\max\{\langle s,t\rangle-\frac\gamma2\|t\|^2:t\ge0,1^\top t=b,\|t\|_0\le k\}$:",
)


def weights(rng, n):
    return rng.dirichlet(np.full(n, 5.0))


def missing(run):
    """What the plan's marginals lack is worth its potential."""
    return run.marginal_error * max(np.abs(p[np.isfinite(p)]).max() for p in run.potentials)


@simulation
def ladder(n, m, growth, gamma, seed):
    """For k = 1, ..., n the semi-dual at the potential found and the relaxed objective of a plan,
    for gamma k^growth; b, the least cost of transport and the quadratic optimum for gamma."""
    rng = np.random.default_rng(seed)
    a, b, C = weights(rng, n), weights(rng, m), rng.uniform(size=(n, m))
    ends = []
    for k in range(1, n + 1):
        weight = gamma * k**growth
        found = ot.sparse_plan(a, b, C, weight, k=k)
        f, P = found.potentials[0], found.plan.toarray()
        dual = f @ a - ot.top_k_plan(f, b, C, weight, k=k)[1].sum()
        norms = sum(ot.support_norm(p, k=k) for p in P.T)
        ends.append((dual, (C * P).sum() + weight / 2 * norms + missing(found)))

    def smooth(fg):
        over = np.maximum(fg[:n, None] + fg[n:] - C, 0) / gamma
        value = gamma / 2 * np.sum(over**2) - a @ fg[:n] - b @ fg[n:]
        return value, np.append(over.sum(1) - a, over.sum(0) - b)

    options = {"gtol": 1e-12, "ftol": 0.0, "maxiter": 20000, "maxfun": 40000, "maxcor": 30}
    least = -minimize(smooth, np.zeros(n + m), jac=True, method="L-BFGS-B", options=options).fun
    return np.array(ends).T, b, ot.exact_plan(a, b, C).value, least


@sparse.abstract("a", "c", instance=True)
@cases(n=[3, 5])
@full(n=[4, 12, 8], m=6)
@space(n=Int(2, 8), m=Int(1, 5), gamma=Real(0.5, 20.0, log=True))
@breaks("two entries a column in place of one", first=1)
@breaks("weight of the square grows with k", growth=1.0)
def semidual_interpolates(n, seed, m=4, gamma=3.0, first=0, growth=0.0):
    r"""$D_1=\mathrm{OT}(a,b)+\frac\gamma2\|b\|^2$, $D_n$ is the optimum of quadratically
    regularised transport, and $D_k$ never grows with $k$ (drops over $\frac\gamma2\|b\|^2$)."""
    (lower, upper), b, least, quadratic = ladder(n, m, growth, gamma, seed)
    D = between(lower, upper, "max")
    one, whole = (between(lower[i], upper[i], "max") for i in (first, -1))
    scale = gamma / 2 * b @ b
    fall = within(-np.diff(D.centre) / scale, (D.error[1:] + D.error[:-1]) / scale, D.source)
    return {
        "k = 1": compare(one, "==", theory("transport", least) + theory("square", scale)),
        "k = n": compare(whole, "==", theory("quadratic", quadratic)),
        "fall": compare(fall, ">=", 0.0),
    }


@panel(
    semidual_interpolates,
    "From transport to quadratic transport",
    x="$k$",
    y=r"$D_{k-1}-D_k$ over $\frac{\gamma}{2}\|b\|^2$",
    log="y",
)
def _(pen, runs):
    for i, run in enumerate(runs.judgement.runs):
        part = run.parts["fall"]
        seen = part.shown > 10 * part.error
        k = np.arange(2, part.shown.size + 2)[seen]
        pen.points(k, part.shown[seen], part.error[seen], f"$n={run.instance['n']}$", k=i)


def least_sparse(a, b, C, gamma, k):
    """The least objective over plans with at most k nonzeros a column, by all supports: on that of
    the best plan the conditions of optimality are linear."""
    a, C = a[a > 0], C[a > 0]
    n, m = C.shape
    columns = [np.isin(range(n), s) for r in range(1, k + 1) for s in combinations(range(n), r)]
    masks = np.array([np.stack(choice, 1) for choice in product(columns, repeat=m)])
    masks = masks[masks.any(axis=2).all(axis=1)].astype(float)
    best = np.inf
    for start in range(0, len(masks), 4096):
        M = masks[start : start + 4096]
        system = np.zeros((len(M), n + m, n + m))
        system[:, :n, n:], system[:, n:, :n] = M, M.transpose(0, 2, 1)
        system += np.eye(n + m) * system.sum(axis=2)[:, None]
        right = np.concatenate([(M * C).sum(2) + gamma * a, (M * C).sum(1) + gamma * b], 1)
        fg = (np.linalg.pinv(system, hermitian=True) @ right[..., None])[..., 0]
        P = M * (fg[:, :n, None] + fg[:, None, n:] - C) / gamma
        off = np.abs(P.sum(2) - a).max(1) + np.abs(P.sum(1) - b).max(1) - P.min(axis=(1, 2))
        values = (P * C).sum(axis=(1, 2)) + gamma / 2 * (P**2).sum(axis=(1, 2))
        best = min(best, np.where(off < 1e-9, values, np.inf).min())
    return best


@simulation
def planted(n, m, k, gamma, tied, entries, seed):
    """Bounds of the semi-dual's maximum and the least objective over plans with that many entries a
    column, for costs that make a drawn potential optimal and for others; entries of the plan."""
    rng = np.random.default_rng(seed)
    f, C, b = rng.uniform(0, 0.3, size=n), rng.uniform(size=(n, m)), weights(rng, m)
    a = ot.top_k_plan(f, b, C, gamma, k=k)[0].sum(axis=1)
    if tied:
        a, b, C = np.full(n, 1 / n), np.full(m, 1 / m), np.zeros((n, m))
    rows, runs = [], []
    for costs in (C, rng.uniform(size=(n, m))):
        runs.append(ot.sparse_plan(a, b, costs, gamma, k=k))
        least = least_sparse(a, b, costs, gamma, entries or k)
        rows.append((runs[-1].dual_value, runs[-1].value + missing(runs[-1]), least))
    return np.array(rows), int(np.sum(runs[0].plan.toarray() > 1e-6 / n, axis=0).max())


@sparse.ours("derived: when the gap closes, from weak duality and the envelope", serves="b")
@cases(n=4, m=[2, 3], k=[1, 2])
@full(n=[3, 4], m=[1, 2, 3], k=[1, 2, 3])
@space(n=Int(2, 4), m=Int(1, 3), k=Int(1, "min(n, 3)"), gamma=Real(0.1, 10.0, log=True))
@breaks("scores that tie", n=3, m=2, k=2, tied=True)
@breaks("three entries against two", n=3, m=2, k=2, tied=True, entries=3, gamma=10.0)
def duality_gap_and_cardinality(n, m, k, seed, gamma=1.0, tied=False, entries=None):
    r"""$D_k\le P_k$ for any costs (over $D_k$). If at a maximiser $f$ the $k$-th and $(k+1)$-th
    scores $f_i-C_{ij}$ differ in every column (here $f$, $C$ are drawn and $a$ is the row sums of
    the columns recovered from them), $D_k=P_k$, and the plan has at most $k$ entries a column."""
    ((lower, upper, least), (low, high, other)), most = planted(n, m, k, gamma, tied, entries, seed)
    D, E = between(lower, upper, "max"), between(low, high, "max")
    gap = within(least / D.centre - 1, D.error / lower + 1e-9, "marginal error, gap of the dual")
    return {
        "gap": compare(gap, "==", theory("gap", 0.0)),
        "entries": compare(most, "<=", theory("k", k)),
        "bound": compare(E, "<=", theory("primal", other)),
    }


@panel(
    duality_gap_and_cardinality,
    "The constrained optimum is never below the semi-dual",
    x="$D_k$ for other costs than those planted",
    y="$P_k$",
)
def _(pen, runs):
    parts = [run.parts["bound"] for run in runs.judgement.runs]
    x, y = (np.array([float(getattr(p, side)) for p in parts]) for side in ("shown", "predicted"))
    pen.theory([x.min(), x.max()], [x.min(), x.max()], "equal")
    pen.points(x, y, label="all supports", k=1)


@simulation
def uniform(gamma, cost, more, sizes):
    """Over n, m, k, with uniform masses and equal or drawn costs: a value of the semi-dual, a
    relaxed objective, the least objective with that many more entries."""
    found = {}
    for n, m, k in sizes:
        C = cost * np.random.default_rng(n + 10 * m).uniform(size=(n, m))
        a, b = np.full(n, 1 / n), np.full(m, 1 / m)
        dual = -ot.top_k_plan(np.zeros(n), b, C, gamma, k=k)[1].sum()
        spread = np.full(n, 1 / (n * m))
        value = C.mean() + gamma / 2 * m * ot.support_norm(spread, k=k)
        found[n, m, k] = (dual, value, least_sparse(a, b, C, gamma, k + more))
    return found


SIZES = tuple((n, m, k) for n in (2, 3, 4) for m in (1, 2, 3) for k in range(1, min(n, 3) + 1))


@sparse.ours("derived: tied scores, the dual stays finite where no plan is left", serves="b")
@cases(gamma=[0.5, 3.0])
@space(gamma=Real(0.01, 100.0, log=True))
@breaks("costs that differ", cost=1.0)
@breaks("one more entry in the primal", more=1)
def tied_scores_leave_a_gap(gamma, cost=0.0, more=0):
    r"""for $C=0$, $a_i=1/n$, $b_j=1/m$ ($n\le4$, $m\le3$, $k\le\min(n,3)$), $D_k=\gamma/(2mk)$,
    and $P_k=D_k$ if and only if $n$ divides $mk$; for $n=3,m=k=2$, $P_k=\frac{10}9D_k$, and there
    is no plan ($P_k=\infty$) where $mk<n$."""
    found = uniform(gamma, cost, more, SIZES)
    _, m, k = np.array(SIZES).T
    lower, upper, least = np.array([found[size] for size in SIZES]).T
    D = between(lower, upper, "max")
    equal = {size: abs(P / d - 1) < 1e-9 for size, P, d in zip(SIZES, least, D.centre, strict=True)}
    divides = {size: equal[size] == (size[1] * size[2] % size[0] == 0) for size in SIZES}
    none = {size: bool(np.isinf(found[size][2])) for size in SIZES if size[1] * size[2] < size[0]}
    ratio = found[3, 2, 2][2] / (found[3, 2, 2][1])
    return {
        "ratio": compare(within(ratio, 1e-9, "marginal error"), "==", theory("ratio", 10 / 9)),
        "D": compare(D, "==", theory("D", gamma / (2 * m * k))),
        "equal": compare(family(divides), "==", len(divides)),
        "no plan": compare(family(none), "==", len(none)),
    }


@simulation
def routed(experts, k, entries, jitter, gamma, seed):
    """Bounds of the semi-dual's maximum and the squared masses of experts, for k tokens an expert;
    the place of each token in a balanced assignment, its cost; which entries the plan has."""
    rng = np.random.default_rng(seed)
    n, m = experts * k, experts
    C = ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2))) ** 2).sum(2)
    a = np.exp(jitter * rng.uniform(size=n))
    run = ot.sparse_plan(a / a.sum(), np.full(m, 1 / m), C, gamma, k=entries)
    token, place = linear_sum_assignment(np.repeat(C, k, axis=1))
    used = run.plan.toarray() > 1e-6 / n
    assigned = np.zeros((n, m), dtype=int)
    assigned[token, place // k] = 1
    return (
        run.dual_value,
        run.value + missing(run),
        np.sum(assigned * C) / n,
        used.astype(int),
        assigned,
    )


@sparse.ours("derived: balanced routing of tokens to experts", serves="bc")
@cases(experts=[2, 4], k=[1, 3])
@full(experts=[2, 4, 8], k=[1, 2, 4, 8], gamma=[0.1, 10.0])
@space(experts=Int(2, 6), k=Int(1, 6), gamma=Real(0.01, 100.0, log=True))
@breaks("two entries fewer", lambda case: {"entries": case["k"] - 2})
@breaks("tokens of unequal mass", jitter=1.0)
def routing_is_a_balanced_assignment(experts, k, seed, gamma=1.0, entries=None, jitter=0.0):
    r"""for $n=mk$ tokens of mass $1/n$ and $m$ experts of mass $1/m$ (both normal in the plane, $C$
    the squared distances), $P_k=D_k=\mathrm{OT}(a,b)+\gamma/(2mk)$, whatever $\gamma$: the plan
    gives each token to one expert and each expert $k$ tokens, at the least cost."""
    lower, upper, cost, used, assigned = routed(experts, k, entries or k, jitter, gamma, seed)
    return {
        "value": compare(
            between(lower, upper, "max"),
            "==",
            theory("assignment", cost) + theory("square", gamma / (2 * experts * k)),
        ),
        "tokens": compare(tuple(used.sum(0).tolist()), "==", theory("k", (k,) * experts)),
        "experts": compare(tuple(used.sum(1).tolist()), "==", theory("one", (1,) * len(used))),
        "plan": compare(int(np.sum(used != assigned)), "==", theory("moved", 0)),
    }


@panel(
    routing_is_a_balanced_assignment,
    r"Routing: $D_k$ is an assignment plus $\gamma/2mk$",
    x="least cost of a balanced assignment plus the square",
    y="$D_k$",
    log="xy",
)
def _(pen, runs):
    judged = [(r.instance.get("gamma", 1.0), r.parts["value"]) for r in runs.judgement.runs]
    for i, gamma in enumerate(sorted({g for g, _ in judged})):
        parts = [p for g, p in judged if g == gamma]
        x, y = ([float(getattr(p, side)) for p in parts] for side in ("predicted", "shown"))
        pen.points(x, y, label=rf"$\gamma={gamma:g}$", k=i)
        pen.theory(sorted(x), sorted(x), k=i)


@simulation
def ties(n, k, gamma, mass, spread, swaps, entries, whole, seed):
    """For 20 draws of scores of which the (k-r+1)-th to the (k+r)-th largest tie: the k largest;
    the largest distance of plans of that many entries when r of the tied scores are 1e-9 greater;
    gamma times the change of plan over a random move of the scores, relative to the move: the k
    largest kept, and for plans without a limit."""
    rng = np.random.default_rng(seed)
    unit, rows = gamma * mass, []

    def plan(s, k):
        return ot.top_k_plan(s, [mass], np.zeros((n, 1)), gamma, k=k)[0][:, 0] / mass

    for _ in range(20):
        order = rng.permutation(n)
        s = np.empty(n)
        s[order] = unit * spread * -np.sort(-rng.uniform(size=n))
        tied = order[k - swaps : k + swaps]
        s[tied] = s[order[k - 1]]
        near = [
            plan(s + 1e-9 * unit * np.isin(range(n), first), entries)
            for first in combinations(tied, swaps)
        ]
        jump = max(np.linalg.norm(p - q) for p, q in combinations(near, 2))
        low = np.where(np.isin(range(n), order[:k]), s, s - 9 * unit)
        move = unit * rng.uniform(-0.1, 0.1, size=n)
        moves = [
            np.linalg.norm(plan(t + move, count) - plan(t, count)) / np.linalg.norm(move / unit)
            for t, count in ((low, k), (s, whole))
        ]
        rows.append((s[order[:k]] / unit, jump, *moves))
    tops, *rest = zip(*rows, strict=True)
    return np.array(tops), *map(np.array, rest)


@sparse.ours(
    "derived: the size of the jumps, which the abstract's smoothness leaves open", serves="d"
)
@cases(k=[2, 4], spread=0.01, swaps=2)
@cases(k=[1, 2, 4], spread=[0.01, 0.5], swaps=1)
@full(k=[3, 5], spread=0.01, swaps=3)
@full(k=[1, 2, 3, 4, 5, 6, 7, 4], spread=[0.01, 0.5], swaps=1)
@space(
    n=Int(3, 10),
    k=Int(1, "n - 1"),
    swaps=Int(1, "min(k, n - k, 3)"),
    gamma=Real(0.01, 10.0, log=True),
    mass=Real(0.1, 10.0, log=True),
    spread=Real(0.01, 2.0),
)
@breaks("one more entry", lambda case: {"entries": case["k"] + 1})
@breaks("k in place of n", lambda case: {"whole": case["k"]})
def smoothness_grows_with_k(
    k, spread, seed, swaps=1, n=8, gamma=1.0, mass=1.0, entries=None, whole=None
):
    r"""where just the last $r$ of the $k$ largest scores and the $r$ next tie ($r=1$ in general
    position), the largest jump of $\nabla\Omega_b$ is $\sqrt{2r}\,t_{(k)}\le\sqrt{2r}\,b/k$,
    $t_{(k)}$ the least of the $k$ entries; while the $k$ largest stay the same, and everywhere for
    $k=n$, it is $1/\gamma$-Lipschitz. (Jumps over $b$; $r$ are the swaps; scores uniform, over a
    range of the spread times $\gamma b$.)"""
    tops, jumps, kept, free = ties(n, k, gamma, mass, spread, swaps, entries or k, whole or n, seed)
    # The least of the k entries on the simplex, active ones alone.
    levels = (np.cumsum(tops, axis=1) - 1) / np.arange(1, k + 1)
    least = np.maximum(tops[:, -1] - levels.max(axis=1), 0.0)
    jump = within(jumps, 8e-9, "1/gamma times the step, on both sides")
    bound = ot.conjugate_jump_bound(mass, k=k, swaps=swaps)
    steepest = theory("Lipschitz", 1.0)
    return {
        "jump": compare(jump, "==", np.sqrt(2 * swaps) * theory("least", least)),
        "bound": compare(
            within(jumps.max(), 8e-9, jump.source), "<=", theory("bound", bound) / mass
        ),
        "kept": compare(within(kept, 1e-12, "rounding"), "<=", steepest),
        "k = n": compare(within(free, 1e-12, "rounding"), "<=", steepest),
    }


@panel(
    smoothness_grows_with_k,
    r"Where two scores tie the gradient jumps by up to $\sqrt{2}\,b/k$",
    x="$k$",
    y="largest jump over $b$",
    log="xy",
)
def _(pen, runs):
    k = np.arange(1, 8)
    pen.theory(k, np.sqrt(2) / k, r"$\sqrt{2}/k$")
    for i, spread in enumerate((0.01, 0.5)):
        points = runs.measured("k", "bound", where={"spread": spread, "swaps": 1})
        pen.points(*points, f"spread {spread:g}", k=i)


@simulation
def ascent(n, m, k, entries, step, seed):
    """Least norm of a supergradient over 300 steps of ascent for tokens of equal mass, gamma = 1,
    with that many entries a column."""
    rng = np.random.default_rng(seed)
    f, b, C = np.zeros(n), weights(rng, m), rng.uniform(size=(n, m))
    lengths = []
    for _ in range(300):
        slope = 1 / n - ot.top_k_plan(f, b, C, 1.0, k=entries)[0].sum(axis=1)
        lengths.append(np.linalg.norm(slope))
        f = f + step * slope
    return min(lengths)


@simulation
def contraction(n, entries, step, seed):
    """By which factor five steps shorten the distance to the maximisers, the multiples of 1, for
    one column, equal costs and gamma = 1."""
    start = np.random.default_rng(seed).uniform(-0.5 / n, 0.5 / n, size=n)
    f = start
    for _ in range(5):
        plan = ot.top_k_plan(f, [1.0], np.zeros((n, 1)), 1.0, k=entries)[0]
        f = f + step * (1 / n - plan[:, 0])
    return np.linalg.norm(f - f.mean()) / np.linalg.norm(start - start.mean())


@sparse.ours("derived: what sparsity costs first-order ascent, an instance of d", serves="d")
@cases(m=1, k=[1, 3])
@cases(m=2, k=[1, 2])
@full(m=1, k=[1, 2, 4, 7])
@full(m=2, k=[1, 2, 3])
@space(m=Int(1, 3), k=Int(1, 4), n=Int("m * k + 1", 14), step=Real(0.1, 0.8), scale=Real(0.01, 1.0))
@breaks("as many entries as tokens", lambda case: {"entries": 8})
@breaks("fewer entries than tokens", lambda case: {"whole": case["k"]})
def sparse_ascent_does_not_settle(m, k, seed, n=8, step=0.5, scale=1.0, entries=None, whole=None):
    r"""ascent $f\leftarrow f+\eta(a-P1)$ on the semi-dual, $P$ the columns recovered at $f$ and
    $a_i=1/n$, takes no step shorter than $\eta\sqrt{\frac1{mk}-\frac1n}$ where $mk<n$, whatever
    $b$, $C$: no fixed $\eta$ converges. For $k=n$, one column, $b=1$, $C=0$, $\eta<\gamma$ and
    $|f_i|\le\frac\gamma{2n}$ each step shortens the distance to the maximisers by the factor
    $1-\eta/\gamma$. ($\gamma=1$; $\eta$ is the step, times the scale for the first.)"""
    least = ascent(n, m, k, entries or k, step * scale, seed)
    factor = contraction(n, whole or n, step, seed)
    return {
        "shortest": compare(
            within(least, 1e-12, "rounding"), ">=", theory("shortest", (1 / (m * k) - 1 / n) ** 0.5)
        ),
        "contraction": compare(
            within(factor, 1e-12, "rounding"), "==", theory("factor", 1 - step) ** 5
        ),
    }


if __name__ == "__main__":
    run_script(__file__)
