"""Two penalties on weights: on how they are distributed, and on their singular values."""

from itertools import permutations, product

import numpy as np

from theorylab.optimal_transport import exact_plan, layer_stack, path_conditioning, sorted_penalty
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

KEY = "lewandowski2024-learning"
weights = paper(
    KEY,
    r"Weights $w\in\mathbb R^n$ and initial weights $w^0$, $W_2$ between their empirical "
    r"distributions:",
)
layers = paper(
    KEY,
    r"Square layers $W_l$ with singular values in $[1-\delta,1+\delta]$, $\delta<1$, each followed "
    r"by a leaky ReLU of slopes $s$ and 1:",
)


def half_sorted(w, w0):
    return np.mean((np.sort(w) - w0) ** 2)


@simulation
def transported(n, noise, shuffled, seed):
    """Weights, with ties, and initial weights; cost of an optimal assignment and its dual value."""
    rng = np.random.default_rng(seed)
    start, moved = rng.standard_normal(n), rng.random(n) < shuffled
    w = start.copy()
    w[moved] = rng.permutation(w[moved])
    w, start = np.round(w + noise * rng.standard_normal(n), 1), np.round(start, 1)
    uniform = np.full(n, 1 / n)
    plan = exact_plan(uniform, uniform, (w[:, None] - start) ** 2)
    return w, start, plan.value, plan.dual_value


@simulation
def lattice(length):
    """For each two vectors of {0, ..., 3}: least and plain squared distance, whether no pair of
    their entries is ordered oppositely, and whether they are permutations of each other."""
    every = np.array(list(product(range(4), repeat=length)))
    plain = ((every[:, None] - every) ** 2).sum(axis=2)
    orders = (every[:, order] for order in permutations(range(length)))
    least = np.min([((w[:, None] - every) ** 2).sum(axis=2) for w in orders], axis=0)
    signs = np.sign(every[:, :, None] - every[:, None]).reshape(len(every), -1)
    opposite = (signs[:, None] * signs < 0).any(axis=2)
    ordered = np.sort(every)
    return least, plain, ~opposite, (ordered[:, None] == ordered).all(axis=2)


@weights.abstract("a", instance=True)
@cases(n=[1, 20], noise=0.5, shuffled=[0.0, 1.0])
@full(n=100, noise=[0.1, 0.2, 0.5, 1.0, 2.0, 5.0], shuffled=[0.0, 0.5, 1.0])
@space(n=Int(1, 60), noise=Real(0.3, 3), shuffled=Real(0, 1))
@breaks("one vector sorted", formula=half_sorted)
def sorted_weights_ot_identity(n, noise, shuffled, seed, formula=sorted_penalty):
    r"""$W_2^2=\frac1n\sum_i(w_{(i)}-w^0_{(i)})^2\le\frac1n\|w-w^0\|^2$, with equality iff one
    permutation sorts both, and 0 iff $w$ is a permutation of $w^0$ (both judged for all
    $w,w^0\in\{0,1,2,3\}^4$)."""
    w, start, cost, dual = transported(n, noise, shuffled, seed)
    least = between(cost, dual)
    apart, plain, common, same = lattice(4)
    right = ((apart == plain) == common) & ((apart == 0) == same)
    outcomes = {i: bool(row.all()) for i, row in enumerate(right)}
    return {
        "sorted": compare(least, "==", theory("sorted", formula(w, start))),
        "penalty": compare(least, "<=", theory("penalty", np.mean((w - start) ** 2))),
        "equality": compare(family(outcomes), "==", theory("vectors", 4**4)),
    }


@panel(
    sorted_weights_ot_identity,
    "The distribution is held, the weights may change places",
    x="change of the weights",
    y="of the weights (lines), of their distributions",
    log="xy",
)
def _(pen, runs):
    for k, share in enumerate((1.0, 0.5, 0.0)):
        where = {"shuffled": share}
        pen.theory(*runs.predicted("noise", "penalty", where=where), f"{share:.0%} shuffled", k=k)
        pen.points(*runs.measured("noise", "sorted", where=where), k=k)


@simulation
def conditioning(depth, width, delta, slope, rank_one, seed):
    """Least quotient of singular values over paths of each length: random and aligned layers."""
    rng = np.random.default_rng(seed)
    stack, x = layer_stack(depth, width, spread=delta, seed=seed), rng.standard_normal(width)
    if rank_one:
        u, v = np.linalg.qr(rng.standard_normal((width, 2)))[0].T
        stack[0] = np.linalg.norm(stack[0]) * np.outer(u, v)
    aligned = layer_stack(depth, width, spread=delta, aligned=True, seed=seed)
    ends = np.ones(width) - 2 * np.eye(width)[-1]
    return [path_conditioning(W, z, slope=slope) for W, z in ((stack, x), (aligned, ends))]


@layers.abstract("b", instance=True)
@cases(depth=6, slope=[1.0, 0.3])
@full(depth=10, width=6, delta=[0.05, 0.4, 0.2], slope=[1.0, 0.3])
@space(depth=Int(1, 8), width=Int(2, 8), delta=Real(0.01, 0.5), slope=Real(0.2, 1))
@breaks("one layer of rank one, with the same Frobenius norm", rank_one=True)
@breaks("ReLU", actual=0.0)
def singular_values_keep_jacobian_conditioned(
    depth, slope, seed, width=5, delta=0.2, actual=None, rank_one=False
):
    r"""at every input (with any slope in $[s,1]$ at 0) the Jacobian of $k$ consecutive layers, and
    its transpose, which carries errors back, has full rank and
    $\sigma_{\min}/\sigma_{\max}\ge(\frac{(1-\delta)s}{1+\delta})^k$; equal diagonal layers attain
    it."""
    activation = slope if actual is None else actual
    random, aligned = conditioning(depth, width, delta, activation, rank_one, seed)
    quotient = theory("quotient", (1 - delta) * slope / (1 + delta))
    bound = quotient ** np.arange(1, depth + 1)
    return {
        "bound": compare(within(random, 1e-14 * width, "rounding"), ">=", bound),
        "attained": compare(within(aligned, 1e-12 * aligned, "rounding"), "==", bound),
    }


@panel(
    singular_values_keep_jacobian_conditioned,
    "Bounded singular values keep every Jacobian conditioned",
    x="consecutive layers $k$",
    y=r"$\sigma_{\min}/\sigma_{\max}$, worst path",
    log="y",
)
def _(pen, runs):
    k, cases = np.arange(1, 11), ((0.2, 1.0), (0.2, 0.3), (0.05, 0.3))
    for i, (delta, slope) in enumerate(cases):
        run = next(
            r
            for r in runs.judgement.runs
            if (r.instance["delta"], r.instance["slope"]) == (delta, slope)
        )
        pen.theory(k, run.parts["bound"].predicted, rf"$\delta={delta}$, $s={slope}$", k=i)
        pen.points(k, run.parts["bound"].shown, k=i)


if __name__ == "__main__":
    run_script(__file__)
