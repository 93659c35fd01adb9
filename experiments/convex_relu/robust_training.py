"""Robust convex training: exact for stable networks, only an upper bound for all; and sampling."""

from itertools import product

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Choice,
    Int,
    Real,
    also,
    between,
    breaks,
    cases,
    compare,
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

KEY = "bai2021-practical"
stable = paper(
    KEY,
    r"Inputs move by $\|\delta\|_p\le\epsilon$, $p\in\{2,\infty\}$, $\frac1p+\frac1q=1$; the "
    r"robust convex program trains networks $f$ of stable neurons, $|w^\top "
    r"x_k+b|\ge\epsilon\|w\|_q$ for all $k$.",
)
sampled = paper(
    KEY,
    r"Draw $N$ independent activation patterns and train over them (squared loss, $n$ points).",
)


# ---------------------------------------------------------------------------------- identity
@simulation
def attacks(n, d, eps, beta, loss, ball, trained_at, seed):
    """Loss of the program and exact worst case, of its network and of random feasible ones;
    bounds."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = np.sign(X.prod(axis=1)) if loss == "hinge" else rng.normal(size=n)
    radius = eps if trained_at is None else trained_at
    trained = cr.train_robust(X, y, beta, eps=radius, loss=loss, ball=ball, bias=True, tol=1e-5)
    draws = [cr.random_stable_network(X, radius, n_neurons=4, ball=ball, rng=rng) for _ in range(8)]
    networks, options = [trained.network, *draws], {"loss": loss, "ball": ball}
    program = np.array([cr.linearized_loss(f, X, y, eps, **options) for f in networks])
    attacked = np.array([cr.worst_case(f, X, y, eps, **options).loss for f in networks])
    total = attacked[0] + beta * trained.network.penalty
    return program, attacked, total, trained.objective, trained.dual_objective


def identity(**case):
    program, attacked, total, objective, bound = attacks(**case)
    worst = within(attacked, 1e-11 * (1 + attacked), "rounding of outputs and gradients")
    return {
        "worst case": compare(worst, "==", theory("loss of the program", program)),
        "optimum": compare(between(total, bound), "==", theory("value of the program", objective)),
    }


RADII = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
SPACE = {
    "n": Int(1, 7),
    "d": Int(1, 3),
    "eps": Real(0.01, 0.5),
    "beta": Real(0.02, 0.5),
    "ball": Choice(["linf", "l2"]),
}
UNSTABLE = "neurons not stable (trained without perturbations)"


@stable.abstract("b", instance=True)
@also("bai2022-efficient", "h")
@cases(n=8, eps=0.2, ball=["l2", "linf"])
@full(n=8, eps=list(RADII), ball=["l2", "linf"])
@space(**SPACE)
@breaks(UNSTABLE, trained_at=0.0)
def robust_hinge_identity(n, eps, seed, ball="linf", beta=0.05, d=2, trained_at=None):
    r"""Its hinge loss $\sum_k(1-y_kf(x_k)+\epsilon\|\nabla f(x_k)\|_q)_+$ is the worst case
    $\sum_k\max_{\|\delta\|_p\le\epsilon}(1-y_kf(x_k+\delta))_+$ of every such network, and its
    optimum that of robust training over them."""
    case = {"n": n, "d": d, "eps": eps, "beta": beta, "ball": ball, "seed": seed}
    return identity(**case, loss="hinge", trained_at=trained_at)


@stable.abstract("c", instance=True)
@cases(n=7, eps=0.1, ball=["l2", "linf"])
@full(n=7, eps=list(RADII), ball=["l2", "linf"])
@space(**SPACE)
@breaks(UNSTABLE, trained_at=0.0)
def robust_squared_loss(n, eps, seed, ball="linf", beta=0.05, d=2, trained_at=None):
    r"""Its squared loss $\frac12\sum_k(|f(x_k)-y_k|+\epsilon\|\nabla f(x_k)\|_q)^2$ is the worst
    case $\frac12\sum_k\max_{\|\delta\|_p\le\epsilon}(f(x_k+\delta)-y_k)^2$ of every such network,
    and its optimum that of robust training over them."""
    case = {"n": n, "d": d, "eps": eps, "beta": beta, "ball": ball, "seed": seed}
    return identity(**case, loss="squared", trained_at=trained_at)


def draw_identity(pen, runs):
    box = {"ball": "linf"}
    pen.theory(*runs.predicted("eps", "optimum", where=box), "robust program")
    pen.points(*runs.measured("eps", "optimum", where=box), "exact attack")
    pen.broken(*runs.measured("eps", "optimum", control=UNSTABLE), "standard training, attacked")


WORDS = {"x": r"radius $\epsilon$ ($\ell_\infty$)", "y": "robust objective"}
panel(robust_hinge_identity, "Hinge: the convex loss is the true worst case", **WORDS)(
    draw_identity
)
panel(robust_squared_loss, "Squared: the convex loss is the true worst case", **WORDS)(
    draw_identity
)


# ---------------------------------------------------------------------------------- collapse
@simulation
def collapse(n, d, dropped, beta, ball, norm, seed):
    """Where training over all but the widest patterns returns zero, and the widest corridor."""
    X = np.random.default_rng(seed).normal(size=(n, d))
    patterns, widths = cr.enumerate_arrangements(X), cr.corridor_widths(X, ball=ball)
    kept = patterns[np.argsort(-widths)[2 * dropped :]]
    y = np.where(kept[0], 1.0, -1.0)
    train = cr.robust_trainer(X, y, beta, ball=ball, arrangements=kept, tol=0.99)

    def survives(eps):
        r = train(eps)
        return (
            True if r.objective < 0.99 * n else False if r.dual_objective > 0.999999 * n else None
        )

    # A corridor is no wider than the shortest point.
    end = 1.01 * np.linalg.norm(X, ord=np.inf if ball == "linf" else 2, axis=1).min()
    found = switch(survives, bracket=(0.0, end), tol=1e-3)
    return found, float(cr.corridor_widths(X, ball=norm or ball, arrangements=kept).max())


@stable.ours("derived from the cone constraint of the program", serves="b")
@cases(n=8, d=2, dropped=[1, 0], ball=["l2", "linf"])
@full(n=8, d=2, dropped=list(range(8)), ball=["linf", "l2"])
@full(n=8, d=2, dropped=0, ball="linf")
@space(
    n=Int(1, 6),
    d=Int(1, 3),
    dropped=Int(0, "min(n // 2, n * (d - 1))"),
    beta=Real(1e-4, 1e-3, log=True),
    ball=Choice(["linf", "l2"]),
)
@breaks("corridors in the other norm", norm="l2", n=6, d=3)
def robust_collapse_threshold(n, d, dropped, ball, seed, beta=1e-3, norm=None):
    r"""Without biases pattern $D$ has a stable neuron iff $\epsilon\le\mu(D)=\max_{\|v\|_q\le1}
    \min_k(2D-I)_{kk}x_k^\top v$. Over the patterns that are left (the widest dropped), $\mu$ the
    largest of their $\mu(D)$ and labels the pattern that attains it, hinge training returns the
    zero network from an $\epsilon^*$ on with $\mu-\frac{2\beta}n\le\epsilon^*\le\mu$."""
    found, widest = collapse(n, d, dropped, beta, ball, norm, seed)
    corridor = theory("widest corridor", widest)
    return {
        "at most": compare(found, "<=", corridor),
        "at least": compare(found, ">=", corridor - 2 * beta / n),
    }


@panel(
    robust_collapse_threshold,
    "Robust training collapses beyond the widest corridor left",
    x="widest pairs of patterns dropped",
    y=r"radius of collapse ($\ell_\infty$)",
)
def _(pen, runs):
    box = {"ball": "linf"}
    pen.theory(*runs.predicted("dropped", where=box), r"widest corridor $\mu$")
    pen.points(*runs.measured("dropped", where=box), r"$\epsilon^*$")


# ---------------------------------------------------------------------------------- all networks
@stable.ours("derived: an instance in which the inequality is strict", serves="b")
@also("bai2022-efficient", "h")
@cases(a=[0.3, 0.5], eps=0.55, beta=0.1)
@full(a=0.5, eps=[0.52, 0.55, 0.6, 0.65, 0.69], beta=0.1)
@space(
    a=Real(0.05, 0.9),
    beta=Real(0.001, "(1 - a) / 2"),
    eps=Real("a + (1 - a - beta) / 100", "a + 49 * (1 - a - beta) / 100"),
)
@breaks("neurons that no perturbation switches, eps < a", lambda case: {"eps": case["a"] / 2})
def adversarial_convex_upper_bounds_nonconvex(a, eps, beta):
    r"""Its value is an upper bound of robust training over all networks, and can be a strict one:
    hinge loss, no biases, $x_1=1$ labelled 1 and $x_2=-a$ labelled $-1$,
    $a<\epsilon<(1+a-\beta)/2$. There it is 2, that of the zero network, while
    $f(x)=(x)_+/(1-\epsilon)$, whose neuron switches within the ball of $x_2$, attains
    $1+\frac{\epsilon-a+\beta}{1-\epsilon}<2$."""
    X, y = np.array([[1.0], [-a]]), np.array([1.0, -1.0])
    robust = cr.train_robust(X, y, beta, eps=eps, tol=1e-5)
    root = np.array([(1 - eps) ** -0.5])
    network = cr.Network(root[:, None], root)
    attained = cr.worst_case(network, X, y, eps).loss + beta * network.penalty
    found, zero = within(attained, 1e-14 * attained, "rounding"), theory("zero network", 2.0)
    return {
        "program": compare(between(robust.objective, robust.dual_objective), "==", zero),
        "network": compare(found, "==", theory("network", 1 + (eps - a + beta) / (1 - eps))),
        "strict": compare(found, "<", zero),
    }


@panel(
    adversarial_convex_upper_bounds_nonconvex,
    "A network that switches inside a ball beats the program",
    x=r"radius $\epsilon$ ($a=0.5$, $\beta=0.1$)",
    y="robust objective",
)
def _(pen, runs):
    eps = np.linspace(0.5, 0.7, 50)
    pen.theory(eps, 2.0, "program: zero network")
    pen.points(*runs.measured("eps", "program"))
    value = r"$1+\frac{\epsilon-a+\beta}{1-\epsilon}$"
    pen.theory(eps, 1 + (eps - 0.5 + 0.1) / (1 - eps), value, k=1)
    pen.points(*runs.measured("eps", "network"), k=1)
    name = "neurons that no perturbation switches, eps < a"
    pen.broken(*runs.measured("eps", "program", control=name), r"program, $\epsilon<a$")


# ---------------------------------------------------------------------------------- sampling
def planar(n, seed):
    """Random data in the plane, its patterns and the exact probabilities of their cells."""
    rng = np.random.default_rng([seed, n])
    X, y = rng.normal(size=(n, 2)), rng.normal(size=n)
    walls = np.arctan2(X[:, 1], X[:, 0])[:, None] + [np.pi / 2, -np.pi / 2]
    walls = np.sort(walls.ravel() % (2 * np.pi))
    widths = np.diff(walls, append=walls[0] + 2 * np.pi)
    middle = walls + widths / 2
    return X, y, np.column_stack([np.cos(middle), np.sin(middle)]) @ X.T >= 0, widths / (2 * np.pi)


def separate(n, seed, share):
    """Orthogonal data: a pattern of each point alone, drawn with probability share, or none."""
    y = 1 + np.abs(np.random.default_rng([seed, n]).normal(size=n))
    weights = np.append(np.full(n, share), 1 - n * share)
    return np.eye(n), y, np.vstack([np.eye(n), np.zeros((1, n))]) > 0, weights


def deprived(weights, cells):
    """The law given that a pattern is none of some."""
    kept = weights.copy()
    kept[cells] = 0
    return kept / kept.sum()


def sets_of(count):
    return np.array(list(product([False, True], repeat=count)))[1:]


def drawn(weights, n_samples):
    """Exact probability of every non-empty set of patterns to be the set drawn, one row a
    number."""
    sets = sets_of(len(weights))
    chance = (sets @ weights) ** np.reshape(n_samples, (-1, 1))
    chance = np.column_stack(
        [np.zeros(len(chance)), chance]
    )  # inclusion and exclusion over subsets
    chance = chance.reshape(-1, *(2,) * len(weights))
    for axis in range(1, len(weights) + 1):
        chance = np.diff(chance, axis=axis, prepend=0)
    return chance.reshape(len(chance), -1)[:, 1:]


@simulation
def programs(X, y, beta, patterns, train):
    """Values, bounds and dual points of the programs over all non-empty sets of patterns."""
    options = [{"tol": 1e-9, train: patterns[s]} for s in sets_of(len(patterns))]
    solve = cr.train if train == "arrangements" else cr.train_gated
    runs = [solve(X, y, beta, **o) for o in options]
    duals = [r.certificate.dual if train == "arrangements" else r.dual for r in runs]
    values = np.array([[r.objective, r.dual_objective] for r in runs]).T
    return *values, np.array(duals)


@simulation
def improvements(X, y, beta, patterns, weights):
    """Probability that one more pattern lowers the value, for every set of patterns."""
    _, _, duals = programs(X, y, beta, patterns, "arrangements")
    return np.array([weights[cr.improving_patterns(X, v, beta, patterns)].sum() for v in duals])


@simulation
def optimum(X, y, beta, patterns, train):
    """The exact optimum, the cells of its neurons, and bounds of what each set of patterns
    loses."""
    best = cr.train(X, y, beta, tol=1e-9)
    u = best.network.weights / np.linalg.norm(best.network.weights, axis=1, keepdims=True)
    cells = (np.where(patterns, 1, -1) * (u @ X.T)[:, None] >= -1e-7).all(axis=2)
    _, _, z = programs(X, y, beta, patterns, train)
    h = np.array([max(1.0, cr.dual_norm(X, v).value / beta) for v in z])
    return best.objective, cells, z @ y * (1 - 1 / h) - (z**2).sum(axis=1) * (1 - h**-2) / 2


@sampled.ours("Theorem 1, recalled, and a sharper count", serves="a")
@cases(law="directions", n=3, psi=0.1, xi=0.1)
@cases(law="points", n=[2, 1], psi=0.1, xi=1e-6)
@full(law="directions", n=[3, 4], psi=[0.05, 0.3], xi=0.1)
@full(law="points", n=[1, 2, 3, 4, 5], psi=0.1, xi=[0.1, 1e-6])
@full(law="points", n=1, psi=0.1, xi=1e-6)
@space(
    law=Choice(["points", "directions"]),
    n=Int(1, 3),
    psi=Real(0.05, 0.3),
    xi=Real(1e-6, 0.9, log=True),
    excess=Real(0.001, 0.1),
)
@breaks("drawn from another law than the next pattern", other=True)
def linear_sample_count(law, n, psi, xi, seed, excess=0.001, other=False):
    r"""Any law of the patterns, $V$ the probability that one more pattern strictly lowers the
    value: $\Pr[V>\psi]\le\xi$ for every
    $N\ge\lceil\min\{\frac{n+1}{\psi\xi}-1,\frac2\psi(n+1-\log\xi)\} \rceil$, linear in $n$, and
    already from the least $N$ with $\sum_{i<n}\binom Ni\psi^i (1-\psi)^{N-i}\le\xi$ on. (Laws:
    uniform directions, planar data; each of $n$ orthogonal points alone, with probability
    $\psi(1+$excess$)$.)"""
    share = psi * (1 + excess)
    X, y, patterns, weights = planar(n, seed) if law == "directions" else separate(n, seed, share)
    V = improvements(X, y, 0.2, patterns, weights)
    stated = cr.sufficient_samples(n, psi=psi, xi=xi)
    tried = np.arange(1, 2 * stated + 1)
    chance = drawn(deprived(weights, 0) if other else weights, tried) @ (psi < V)
    needed = within(1 + tried[chance > xi].max(initial=0), 0, "all sets of patterns")
    tails = np.array([cr.improvement_tail_bound(n, n_samples=int(N), psi=psi) for N in tried])
    return {
        "sharper": compare(needed, "<=", theory("binomial count", int(tried[tails <= xi][0]))),
        "stated": compare(needed, "<=", theory("stated count", stated)),
    }


@panel(
    linear_sample_count,
    r"Samples needed are linear in $n$, not the number of cells ($\psi=0.1$, $\xi=10^{-6}$)",
    x="orthogonal points $n$",
    y="patterns",
    log="y",
)
def _(pen, runs):
    law = {"law": "points", "xi": 1e-6}
    pen.theory(*runs.predicted("n", "stated", where=law), "stated, sufficient", k=1)
    pen.theory(*runs.predicted("n", "sharper", where=law), "binomial count")
    pen.points(*runs.measured("n", where=law), "needed, exactly")
    name = "drawn from another law than the next pattern"
    pen.broken(*runs.measured("n", control=name), "another law")


@sampled.ours("derived: what sampling does to the value", serves="a")
@cases(n=[2, 1, 3])
@full(n=[1, 2, 4, 3])
@space(n=Int(1, 3), ratio=Real(0.02, 1.2))
@breaks("cones dropped (gated)", train="gates", n=4, ratio=0.02)
@breaks("never drawn from the cells of one neuron", away=True)
def sampled_program_value(
    n, seed, ratio=0.1, times=(0.5, 1.0, 2.0, 4.0, 8.0), train="arrangements", away=False
):
    r"""All cells drawn, the value $p_s$ is the optimum $p^*$. Otherwise, $z$ the residual of the
    sampled program and $h=\max(1,\max_{\|u\|\le1}|z^\top(Xu)_+|/\beta)$, $p_s-p^*\le z^\top
    y(1-\frac1h) -\frac12\|z\|^2(1-\frac1{h^2})$; and $\Pr[p_s>p^*]\le\sum_j(1-q_j)^N$ over the
    active neurons $u_j$ of an optimum, $q_j$ the probability of the patterns whose closed cones
    contain $u_j$, whatever the number of cells. (Planar data, uniform directions; $\beta$ is the
    fraction ratio of the least that trains to zero, $N$ the rounded-up multiples times of
    $1/\min_jq_j$.)"""
    X, y, patterns, weights = planar(n, seed)
    beta, size = ratio * cr.dual_norm(X, y).value, float(y @ y) / 2
    values, bounds, _ = programs(X, y, beta, patterns, train)
    best, cells, loss = optimum(X, y, beta, patterns, train)
    N = np.ceil(np.array(times) / (cells @ weights).min(initial=1.0))
    excess = values - best
    loose = excess >= min(1e-6 * size, excess.max())
    chance = drawn(deprived(weights, cells[0]) if away and len(cells) else weights, N)
    low, high = (chance @ (excess > level * size) for level in (1e-6, 1e-8))
    error = (high - low) / 2 + chance.shape[1] * np.finfo(float).eps
    failure = within((low + high) / 2, error, "sets of equal value; rounding")
    union = ((1 - cells @ weights)[:, None] ** N).sum(axis=0)
    every = between((1 + 2e-9) * values[-1], (1 - 2e-9) * bounds[-1])
    gaps = within(excess[loose], 2e-9 * size, "certified gaps")
    return {
        "failure": compare(failure, "<=", theory("union bound", union)),
        "loss": compare(gaps, "<=", theory("bound of the loss", loss[loose])),
        "all cells": compare(every, "==", theory("optimum", best)),
    }


@panel(
    sampled_program_value,
    "Few patterns give the exact optimum, whatever the number of cells",
    x=r"patterns drawn, in units of $1/\min_jq_j$",
    y=r"probability of $p_s>p^*$",
    log="xy",
)
def _(pen, runs):
    for k, n in enumerate((1, 2, 3, 4)):
        pen.theory(*runs.predicted("times", where={"n": n}), f"$n={n}$", k=k)
        pen.points(*runs.measured("times", where={"n": n}), k=k)
    name = "never drawn from the cells of one neuron"
    pen.broken(*runs.measured("times", control=name), name)


if __name__ == "__main__":
    run_script(__file__)
