"""Sampled activation patterns: how likely one more helps, and how likely none is needed."""

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    note,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

sampled = paper(
    "bai2022-efficient",
    r"Draw $N$ patterns $D_i=\mathrm{diag}(1[Xu_i\ge0])$, $X\in\mathbb R^{n\times2}$, of "
    r"independent uniform directions and minimise "
    r"$\frac12\|\sum_iD_iX(v_i-w_i)-y\|^2+\beta\sum_i(\|v_i\|+\|w_i\|)$ over "
    r"$(2D_i-I)Xv_i\ge0$, $(2D_i-I)Xw_i\ge0$ (value $p_N$, over all patterns $p^\star$):",
)
SECTOR = "directions from a sector of 0.2 rad"


@simulation
def programs(n, ratio, seed, sphere=True, square=False):
    """Values over every set of patterns, by bit mask, their certified excess (with h over the
    sphere or over the set alone), and the optimum."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, 2)), rng.normal(size=n)
    if square:
        X, y = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), np.ones(4)
    beta = ratio * cr.zero_threshold(X, y)
    patterns, _ = cr.cell_probabilities(X)
    values, certified = np.full(2 ** len(patterns), y @ y / 2), np.zeros(2 ** len(patterns))
    for chosen in range(len(values)):
        over = patterns[[i for i in range(len(patterns)) if chosen >> i & 1]]
        z = y
        if chosen:
            result = cr.train(X, y, beta, arrangements=over, tol=1e-9)
            values[chosen], z = result.objective, y - result.network(X)
        h = 1.0
        if chosen or sphere:
            cells = "all" if sphere else over
            h = max(h, cr.dual_norm(X, z, arrangements=cells, tol=1e-6).value / beta)
        certified[chosen] = z @ y * (1 - 1 / h) - z @ z / 2 * (1 - 1 / h**2)
    best = cr.train(X, y, beta, tol=1e-9)
    return X, values, certified, best


def reached(X, network):
    """For each neuron the patterns whose closed cone contains it, shape (m, P)."""
    signs = np.where(cr.cell_probabilities(X)[0], 1.0, -1.0)
    z = network.weights @ X.T
    size = np.linalg.norm(network.weights, axis=1)[:, None] * np.linalg.norm(X, axis=1)
    return (signs * z[:, None] >= -1e-7 * size[:, None]).all(axis=2)


def improving(values, weights):
    """Bounds of the probability that one more pattern helps, for every set: sure, and possible."""
    masks, sure, possible = np.arange(len(values)), 0.0, 0.0
    for i, weight in enumerate(weights):
        gain = 1 - values[masks | 1 << i] / values
        sure, possible = sure + weight * (gain > 1e-6), possible + weight * (gain > 1e-8)
    return sure, possible


@sampled.ours(
    "sampled training, Section 2 recalled, with the constants of scenario theory", serves="c"
)
@cases(n=3, draws=(2, 4, 8, 16))
@cases(n=4, draws=(2, 4, 8, 16, 64))
@full(n=5, ratio=[0.02, 0.1], draws=(1, 2, 4, 8, 16, 32, 64))
@full(n=4, draws=(2, 4, 8, 16, 32, 64))
@space(n=Int(2, 4), ratio=Real(0.01, 0.8, log=True), draws=Int(1, 64))
@breaks(SECTOR, sector=0.2)
@note(credit="Campi and Garatti 2008, the exact feasibility of scenario programs")
def sampled_patterns_improvement_bound(n, draws, seed, ratio=0.1, sector=2 * np.pi):
    r"""let $V$ be the probability, given the sample, that one further pattern strictly lowers the
    value. Then $\mathbb E\,V\le\frac n{N+1}$, and $\Pr[V>\psi]\le\sum_{i<n}\binom Ni\psi^i
    (1-\psi)^{N-i}$ (judged at 1/4, 1/2, 9/10 of $\min\{1,\frac n{N+1}\}$; $N=draws$,
    $\beta=ratio\cdot\beta_{max}$; expectations are sums over all sets of patterns)."""
    X, values, _, _ = programs(n, ratio, seed)
    N = np.atleast_1d(draws)
    law = np.array([cr.sampled_set_law(cr.cell_probabilities(X, sector=sector)[1], k) for k in N])
    both = improving(values, cr.cell_probabilities(X)[1])
    levels = np.outer((0.25, 0.5, 0.9), np.minimum(1, n / (N + 1)))
    means, above = law @ np.array(both).T, levels[..., None, None] < np.array(both).T
    tails = np.einsum("ks,lksb->lkb", law, above)

    def enclosed(found):
        low, high = found[..., 0], found[..., 1]
        return within((low + high) / 2, (high - low) / 2 + 1e-9, "undecided sets, rounding")

    bounds = [
        [
            cr.improvement_tail_bound(n, n_samples=int(k), psi=psi)
            for k, psi in zip(N, row, strict=True)
        ]
        for row in levels
    ]
    return {
        "mean": compare(enclosed(means), "<=", theory("expectation", n / (N + 1))),
        "tail": compare(enclosed(tails), "<=", theory("tail", np.array(bounds))),
    }


@sampled.ours("derived, with the certificate of a sampled program", serves="c")
@cases(n=3, draws=(2, 4, 8, 16, 64))
@cases(n=4, draws=(2, 4, 8, 16, 64))
@full(n=[3, 5, 4], draws=(2, 4, 8, 16, 32, 64))
@space(n=Int(2, 4), ratio=Real(0.2, 0.9), draws=Int(1, 64))
@breaks(SECTOR, sector=0.2)
@breaks("h over the sampled patterns only", sphere=False)
@breaks("a square, whose optimum is not unique", square=True)
def sampled_program_exactness_probability(
    n, draws, seed, ratio=0.4, sector=2 * np.pi, sphere=True, square=False
):
    r"""let the optimum over all patterns be unique, with neurons $j\in A$, $O_j$ the set of
    patterns whose closed cone contains neuron $j$ (two for one on a line $x_k^\top
    u=0$) and $q_i$ the
    angle of cell $i$ over $2\pi$. Then $\Pr[p_N=p^\star]=\sum_{S\subseteq A}(-1)^{|S|}
    (1-\sum_{i\in\bigcup_{j\in S}O_j}q_i)^N$, and always $p_N-p^\star\le z^\top y(1-\frac1h)
    -\frac12\|z\|^2(1-\frac1{h^2})$ with the residual $z$ and
    $h=\max\{1,\max_{\|u\|\le1}|z^\top(Xu)_+|/\beta\}$
    ($N=draws$, $\beta=ratio\cdot\beta_{max}$)."""
    X, values, certified, best = programs(n, ratio, seed, sphere, square)
    N = np.atleast_1d(draws)
    q = cr.cell_probabilities(X)[1]
    law = np.array([cr.sampled_set_law(cr.cell_probabilities(X, sector=sector)[1], k) for k in N])
    gap = values / best.dual_objective - 1
    low, high = (law @ (gap <= tol) for tol in (1e-8, 1e-6))
    cells, predicted = reached(X, best.network), 0.0
    for chosen in range(2 ** len(cells)):
        members = [j for j in range(len(cells)) if chosen >> j & 1]
        missed = 1 - cells[members].any(axis=0) @ q
        predicted = predicted + (-1) ** len(members) * missed**N
    excess, inexact = values - best.dual_objective, gap > 1e-6
    return {
        "exact": compare(
            within((low + high) / 2, (high - low) / 2 + 1e-9, "undecided sets, rounding"),
            "==",
            theory("probability", predicted),
        ),
        "certificate": compare(
            within(excess[inexact], 2e-9 * values[inexact], "certified gap of the values"),
            "<=",
            theory("certificate", certified[inexact]),
        ),
    }


@panel(
    sampled_patterns_improvement_bound,
    "One more pattern rarely helps, more rarely than the bound says",
    x="sampled patterns $N$",
    y=r"$\mathbb{E}V$",
    log="xy",
)
def _(pen, runs):
    N = np.geomspace(4, 64, 50)
    for k, where in enumerate(({"n": 4}, {"n": 5, "ratio": 0.02})):
        pen.theory(N, where["n"] / (N + 1), rf"$n/(N+1)$, $n={where['n']}$", k=k)
        pen.points(*runs.measured("draws", where=where), k=k)
    pen.broken(*runs.measured("draws", control=SECTOR), "from a sector")


@panel(
    sampled_program_exactness_probability,
    "The sampled program is exact if every neuron's cells are met",
    x="sampled patterns $N$",
    y=r"$\Pr[p_N=p^\star]$",
    log="x",
)
def _(pen, runs):
    for k, n in enumerate((3, 4, 5)):
        pen.theory(*runs.predicted("draws", where={"n": n}), rf"$n={n}$", k=k)
        pen.points(*runs.measured("draws", where={"n": n}), k=k)
    pen.broken(*runs.measured("draws", control=SECTOR), "from a sector")


if __name__ == "__main__":
    run_script(__file__)
