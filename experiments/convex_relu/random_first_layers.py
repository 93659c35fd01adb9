"""A random first layer comes with a certificate; one more direction helps if it is active."""

from itertools import combinations

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Choice,
    Int,
    Real,
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

layer = paper(
    "bai2022-efficient",
    r"Over $N$ independent uniform directions $u_i$ in the plane let $p(N)$ be the least "
    r"$\frac12\|\sum_i(Xu_i)_+\alpha_i-y\|^2+\beta\|\alpha\|_1$:",
)


def gaussian(rng, n, ratio):
    """Data in the plane, and beta as a fraction of the least one at which the network is zero."""
    X, y = rng.normal(size=(n, 2)), rng.normal(size=n)
    return X, y, ratio * cr.zero_threshold(X, y)


def directions(rng, count, sector, centre=0.0):
    angle = centre + sector * rng.uniform(-0.5, 0.5, size=count)
    return np.column_stack([np.cos(angle), np.sin(angle)])


@simulation
def first_layers(n, ratio, counts, sector, penalty, seed):
    """Optimum with its bound, values over the first directions (of a sector opposite to an optimal
    neuron), their certified and their a-priori excess, and the angles within which the neurons have
    a direction."""
    rng = np.random.default_rng(seed)
    X, y, beta = gaussian(rng, n, ratio)
    best = cr.train(X, y, beta)
    opposite = np.arctan2(*-best.network.weights[0, ::-1])
    U = directions(rng, counts[-1], sector, opposite)
    found = [cr.train_output_layer(X, y, penalty * beta, U[:count]) for count in counts]
    values = np.array([f.objective for f in found])
    certified = values - [f.certificate.dual_objective for f in found]
    neurons = best.network.weights / np.linalg.norm(best.network.weights, axis=1)[:, None]
    closest = np.arccos(np.clip([(neurons @ U[:k].T).max(axis=1).min() for k in counts], -1, 1))
    bounds = np.array([cr.displaced_neurons_bound(best, t) for t in closest])
    return (best.objective, best.dual_objective), values, certified, bounds, closest, len(neurons)


@layer.ours("the certificate and the bound are derived", serves="dg")
@cases(n=8, counts=(10, 100, 4000))
@full(n=8, counts=(10, 30, 100, 300, 1000, 3000, 10_000))
@space(n=Int(3, 8), ratio=Real(0.05, 0.8), counts=Choice([(10, 4000), (100,), (30, 2000)]))
@breaks("directions from a sector opposite to a neuron", sector=0.2)
@breaks("maximum over the sampled directions only", sphere=False)
@breaks("the sampled program at 1.5 beta", penalty=1.5)
def scp_random_first_layer(n, counts, seed, ratio=0.3, sector=2 * np.pi, sphere=True, penalty=1.0):
    r"""with residual $z$, $d(z)=z^\top y-\frac12\|z\|^2$ and $p^\star,z_\star$ the optimum over all
    networks and its residual, $0\le p(N)-p^\star\le p(N)-d(tz)$ for
    $t=\min\{1,\beta/\max_{\|u\|\le1}|z^\top(Xu)_+|\}$; and $p(N)\to p^\star$:
    $p(N)-p^\star\le\sum_jc_j\max_{|\theta-\theta_j|\le t_N}(\beta-s_jz_\star^\top(Xu_\theta)_+)
    +\frac12(2\sin\frac{t_N}2\|X\|\sum_jc_j)^2$, where the $m$ optimal blocks have norms $c_j$,
    signs $s_j$, angles $\theta_j$ and a direction within $t_N$, and
    $t_N\le\pi(1-(10^{-6}/m)^{1/N})$ with probability $1-10^{-6}$ ($N=counts$,
    $\beta=ratio\cdot\beta_{max}$)."""
    (upper, lower), values, certified, bounds, closest, neurons = first_layers(
        n, ratio, counts, sector, penalty, seed
    )
    optimum = (upper + lower) / 2
    error = (upper - lower) / 2 + 1e-12 * values
    excess = within((values - optimum) / optimum, error / optimum, "certified gap, rounding")
    likely = np.pi * (1 - (1e-6 / neurons) ** (1 / np.array(counts)))
    return {
        "certified": compare(excess, "<=", theory("certified", sphere * certified / optimum)),
        "limit": compare(excess, "<=", theory("bound", bounds / optimum)),
        "angle": compare(within(closest, 1e-7, "rounding"), "<=", theory("angle", likely)),
        "above": compare(
            within(values, 1e-12 * values, "rounding"), ">=", theory("optimum", lower)
        ),
    }


@simulation
def left_out(n, ratio, population, count, copies, seed):
    """How often one more of some directions helps, and how many are active, over all choices."""
    rng = np.random.default_rng(seed)
    X, y, beta = gaussian(rng, n, ratio)
    U = np.repeat(directions(rng, population // copies, 2 * np.pi), copies, axis=0)
    everyone = set(range(len(U)))
    helps, dual, active = {}, {}, []
    for chosen in combinations(everyone, count):
        dual[chosen] = cr.train_output_layer(X, y, beta, U[list(chosen)]).dual
        for i in everyone - set(chosen):
            excess = abs(dual[chosen] @ np.maximum(X @ U[i], 0)) / beta - 1
            helps[chosen, i] = bool(excess > 1e-9)
    outcomes = {}
    for chosen in combinations(everyone, count + 1):
        used = cr.train_output_layer(X, y, beta, U[list(chosen)]).coefficients != 0
        for i, use in zip(chosen, used, strict=True):
            outcomes[chosen, i] = helps[tuple(sorted(set(chosen) - {i})), i] == bool(use)
        active.append(used.sum())
    return np.mean(list(helps.values())), np.mean(active), outcomes


@layer.ours("derived by exchangeability", serves="cg")
@cases(n=4, population=8, count=[2, 4])
@full(n=8, population=10, count=[1, 2, 3, 4, 5, 6])
@space(n=Int(2, 6), ratio=Real(0.02, 0.8), population=Int(5, 7), count=Int(1, 4))
@breaks("every direction twice", copies=2)
def scp_improvement_identity(n, population, count, seed, ratio=0.1, copies=1):
    r"""draw $N+1=count+1$ directions without replacement from any $M$ ($population$, here uniform;
    so for independent ones of any law without atoms). One of them strictly lowers the value over
    the others iff it is active in the solution over all, and so the probability $V_N$, given $N$,
    that one more strictly lowers $p(N)$ has $\mathbb EV_N=\mathbb E[s_{N+1}]/(N+1)$, $s_{N+1}$ the
    number of active ones among $N+1$."""
    found, active, outcomes = left_out(n, ratio, population, count, copies, seed)
    return {
        "mean": compare(
            within(found, 1e-12, "a count over all choices"),
            "==",
            theory("active", active) / (count + 1),
        ),
        "left out": compare(family(outcomes), "==", len(outcomes)),
    }


@panel(
    scp_random_first_layer,
    "A random first layer is certified after the fact",
    x="random directions $N$",
    y="relative excess over the optimum",
    log="xy",
)
def _(pen, runs):
    for k, (part, label) in enumerate((("certified", "certificate"), ("limit", "bound"))):
        pen.theory(*runs.predicted("counts", part), label, k=k)
    pen.points(*runs.measured("counts"), "true", k=2)
    name = "directions from a sector opposite to a neuron"
    pen.broken(*runs.measured("counts", control=name), "from a sector")


@panel(
    scp_improvement_identity,
    "One more direction helps as often as one is active",
    x="directions $N$ of 10, $n=8$",
    y=r"$\mathbb{E}V_N$",
)
def _(pen, runs):
    pen.theory(*runs.predicted("count"), r"$\mathbb{E}s_{N+1}/(N+1)$")
    pen.points(*runs.measured("count"))
    pen.broken(*runs.measured("count", control="every direction twice"), "every direction twice")


if __name__ == "__main__":
    run_script(__file__)
