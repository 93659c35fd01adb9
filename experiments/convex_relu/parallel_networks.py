"""Duality gaps of deep networks: none in parallel, a gap in depth."""

import numpy as np
from scipy.optimize import minimize

from theorylab import convex_relu as cr
from theorylab.verify import (
    Int,
    Real,
    between,
    breaks,
    cases,
    compare,
    full,
    note,
    panel,
    paper,
    simulation,
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

SEARCH = "residual 1e-9 of the searched fit times the multiplier of the constraint"
KEY = "wang2021-parallel"
linear = paper(
    KEY, r"$X\in\mathbb R^{n\times d}$, $Y$ in its range, $\sigma_i$ the singular values of $X^+Y$:"
)
relu = paper(KEY, r"Three-layer ReLU networks with one output that fit $y$ exactly:")
decay = paper(KEY)


def linear_data(singular_values, seed, n_inputs=3):
    """Four well-conditioned inputs and a target whose X^+ Y has the given singular values."""
    rng = np.random.default_rng(seed)
    rank, r = len(singular_values), min(4, n_inputs)
    shapes = ((4, r), (n_inputs, r), (r, rank), (max(2, rank), rank))
    left, right, U, V = (np.linalg.qr(rng.normal(size=shape))[0] for shape in shapes)
    X = left * np.linspace(0.7, 1.3, r) @ right.T
    return X, X @ right @ U @ np.diag(singular_values) @ V.T


@simulation
def linear_search(singular_values, depth, n_inputs, seed, penalty, target):
    """Penalties of the exact fits at which local search ends."""
    X, Y = linear_data(singular_values, seed, n_inputs)
    widths = [len(singular_values)] * (depth - 1)
    options = {"penalty": penalty, "n_starts": 20, "target": target, "seed": seed}
    ends = cr.search_minimum_norm(X, Y, widths, **options).ends
    return ends[np.isfinite(ends)] if np.isfinite(ends).any() else np.full(1, np.nan)


@simulation
def linear_bounds(singular_values, depth, n_inputs, seed, architecture, penalty):
    """Penalty of the best layers and of the best parallel branches, and what a dual point
    bounds."""
    X, Y = linear_data(singular_values, seed, n_inputs)
    best = cr.linear_minimum_norm(X, Y, depth, architecture=architecture, penalty=penalty)
    found = cr.certify_linear(X, best.branches, best.dual_point, penalty=penalty)
    gauge = cr.linear_minimum_norm(X, Y, depth, architecture="parallel", penalty="power")
    return found.upper, found.lower, cr.network_cost(gauge.branches, penalty="power")


@linear.abstract("a", instance=True)
@cases(singular_values=[(1.5,), (2.0, 0.5)], depth=3)
@cases(singular_values=(2.0, 0.5), depth=[2, 4])
@full(singular_values=[(1.0, r) for r in (0.15, 0.3, 0.6, 1.0)], depth=[2, 3, 4])
@full(singular_values=(1.5,), depth=5)
@full(singular_values=(2.0, 1.0, 0.5), depth=3)
@full(singular_values=(2.0, 0.5), depth=3, n_inputs=6)
@space(
    rank=Int(1, 2),
    singular_values=Real(0.3, 2, size="rank", capacity=2),
    depth=Int(2, 4),
    n_inputs=Int(2, 6),
)
@breaks("powers of the norms in place of squares", penalty="power")
def deep_linear_gap(singular_values, depth, seed, n_inputs=3, rank=None, penalty="squared"):
    r"""$\min\frac12\sum_{l\le L}\|W_l\|_F^2$ subject to $XW_1\cdots W_L=Y$, with widths at least
    the rank of $X^+Y$, is $\frac L2\sum_i\sigma_i^{2/L}$; its dual at fixed scale of the layers is
    $\frac L2(\sum_i\sigma_i)^{2/L}$. So there is no gap for $L=2$, and for $L\ge3$ only if $X^+Y$
    has rank at most 1."""
    s = np.array(singular_values)
    upper, lower, gauge = linear_bounds(s, depth, n_inputs, seed, "standard", penalty)
    ends = linear_search(s, depth, n_inputs, seed, penalty, upper * (1 + 1e-8))
    primal = theory("primal", depth / 2 * np.sum(s ** (2 / depth)))
    dual = theory("dual", depth / 2 * np.sum(s) ** (2 / depth))
    ceiling = depth / 2 * (gauge * 2 / depth) ** (2 / depth if penalty == "squared" else 1)
    return {
        "primal attained": compare(within(upper, 1e-11 * upper, "rounding"), "==", primal),
        "primal": compare(within(ends, 1e-7 * ends, SEARCH), ">=", primal),
        "dual": compare(between(lower, ceiling, "max"), "==", dual),
    }


@panel(
    deep_linear_gap,
    "Depth three opens a gap unless the target has rank one",
    x=r"$\sigma_2/\sigma_1$",
    y=r"least weight norm over $\sigma_1^{2/L}$",
)
def _(pen, runs):
    r = np.linspace(0, 1, 200)
    for k, L in enumerate((2, 3, 4)):
        pen.theory(r, L / 2 * (1 + r ** (2 / L)), f"$L={L}$, primal" if L > 2 else "$L=2$", k=k)
        pen.theory(r, L / 2 * (1 + r) ** (2 / L), "dual" if L > 2 else "", k=k)
        for run in runs.judgement.runs:
            s = run.instance["singular_values"]
            if run.instance["depth"] == L and len(s) == 2:
                unit = s[0] ** (2 / L)
                for part in (run.parts["primal attained"], run.parts["dual"]):
                    pen.points(s[1] / s[0], part.centre / unit, part.error / unit, k=k)


@linear.abstract("b", instance=True)
@cases(singular_values=[(2.0, 0.5)], depth=[2, 4, 3])
@full(singular_values=[(2.0, r) for r in (0.1, 0.5, 1.0, 1.5, 2.0)], depth=[2, 4, 3])
@space(
    rank=Int(1, 3),
    singular_values=Real(0.1, 3, size="rank", capacity=3),
    depth=Int(2, 6),
    n_inputs=Int(3, 6),
)
@breaks("one branch", architecture="standard")
@breaks("plain weight decay", penalty="squared")
def parallel_linear_zero_gap(
    singular_values,
    depth,
    seed,
    n_inputs=3,
    rank=None,
    architecture="parallel",
    penalty="power",
):
    r"""Linear networks: $\min\frac12\sum_{j\le m,\,l\le L}\|W_{l,j}\|_F^L$ subject to
    $\sum_jXW_{1,j}\cdots W_{L,j}=Y$, with $m\ge\mathrm{rank}(X^+Y)$ parallel branches, is $\frac
    L2\sum_i\sigma_i$ and equals its dual value for every depth $L$."""
    s = np.array(singular_values)
    upper, lower, _ = linear_bounds(s, depth, n_inputs, seed, architecture, penalty)
    gap = within((upper - lower) / upper, 1e-11, "rounding of the weights")
    return {
        "value": compare(between(upper, lower), "==", theory("value", depth / 2 * s.sum())),
        "gap": compare(gap, "==", theory("gap", 0.0)),
    }


@panel(
    parallel_linear_zero_gap,
    "Parallel branches with $L$-th powers close the gap",
    x=r"$\sigma_2$ at $\sigma_1=2$",
    y="least penalty = dual value",
)
def _(pen, runs):
    r = np.linspace(0, 2, 50)
    for k, depth in enumerate((2, 3, 4)):
        pen.theory(r, depth / 2 * (2 + r), f"$L={depth}$", k=k)
        for run in runs.judgement.runs:
            if run.instance["depth"] == depth:
                part = run.parts["value"]
                pen.points(run.instance["singular_values"][1], part.centre, part.error, k=k)
    for control in runs.judgement.controls:
        part = control.run.parts["value"]
        pen.broken(2.0, part.centre, part.error, control.name)


# ---------------------------------------------------------------------------------- ReLU
def line(positive, negative, seed):
    """Positions on a line, of both signs."""
    sizes = np.random.default_rng(seed).uniform(0.3, 2, size=positive + negative)
    return np.append(sizes[:positive], -sizes[positive:])


@simulation
def rank_one_search(c, alpha, gamma, length, angle, target, seed):
    """Penalties of the exact fits at which local search ends, for half lines of two directions."""
    first, second = ((length * np.cos(t), length * np.sin(t)) for t in (0.0, angle))
    X = np.where(c[:, None] > 0, np.outer(c, first), np.outer(c, second))
    y = alpha * np.maximum(c, 0) + gamma * np.maximum(-c, 0)
    options = {"activation": "relu", "n_starts": 8, "target": target, "seed": seed}
    ends = cr.search_minimum_norm(X, y[:, None], [4, 4], **options).ends
    return ends[np.isfinite(ends)] if np.isfinite(ends).any() else np.full(1, np.nan)


@simulation
def rank_one_bounds(c, alpha, gamma, length):
    """(attained, bound) of the primal, of the dual, and of the parallel form."""
    a = np.array([length, 0.0])

    def certified(first, second, **options):
        best = cr.rank_one_relu_minimum_norm(c, a, alpha=first, gamma=second, **options)
        options.pop("architecture", None)
        return cr.certify_rank_one_relu(c, a, best.branches, best.dual_point, **options)

    one = certified(alpha, gamma)
    many = certified(alpha, gamma, architecture="parallel", penalty="power")
    # For opposite signs the layers split into a part for each half line, with its own dual point.
    halves = [(alpha, 0.0), (0.0, gamma)] if alpha * gamma < 0 else [(alpha, gamma)]
    below = sum(certified(*half).lower for half in halves)
    ceiling = 1.5 * (many.upper / 1.5) ** (2 / 3)
    return (one.upper, below), (one.lower, ceiling), (many.upper, many.lower)


@relu.ours("derived: a counterexample to the abstract's form; the theorem's hypotheses unseen")
@cases(alpha=1.0, gamma=[-0.3, -1.0, 0.5])
@full(alpha=1.0, gamma=[-1.0, -0.6, -0.3, -0.1, 0.0, 0.1, 0.3, 0.6, 1.0])
@space(
    alpha=Real(0.2, 2),
    gamma=Real(-2, 2),
    length=Real(0.5, 2),
    positive=Int(1, 4),
    negative=Int(1, 4),
)
@note(contradicts="e")
@breaks("two half lines at a right angle", angle=np.pi / 2)
def rank1_three_layer_relu(alpha, gamma, seed, length=1.2, positive=3, negative=2, angle=0.0):
    r"""For $X=ca^\top$ with $c$ of both signs and $y=\alpha c_++\gamma c_-$, the least
    $\frac12\sum\|W_l\|_F^2$ is its dual value $\frac32((|\alpha|+|\gamma|)/\|a\|)^{2/3}$ if
    $\alpha\gamma\ge0$, and $\frac32(|\alpha|^{2/3}+|\gamma|^{2/3})\|a\|^{-2/3}$, strictly more, if
    $\alpha\gamma<0$: strong duality for rank-one data needs a sign condition. With parallel
    branches and $\frac12\sum\|W_{l,j}\|_F^3$ primal and dual are
    $\frac32(|\alpha|+|\gamma|)/\|a\|$ for all signs."""
    c = line(positive, negative, seed)
    primal, dual, parallel = rank_one_bounds(c, alpha, gamma, length)
    ends = rank_one_search(c, alpha, gamma, length, angle, primal[1] * (1 + 1e-8), seed)
    split = 1.5 * (abs(alpha) ** (2 / 3) + abs(gamma) ** (2 / 3)) / length ** (2 / 3)
    total = (abs(alpha) + abs(gamma)) / length
    least = theory("primal", split if alpha * gamma < 0 else 1.5 * total ** (2 / 3))
    # What is fitted has other alpha and gamma, by the residual at most; powers 2/3 are subadditive.
    sides = np.maximum([c, -c], 0)
    residual = 1e-9 * np.linalg.norm([alpha, gamma] @ sides) / np.linalg.norm(sides, axis=1)
    slack = 1.5 * np.sum((residual / length) ** (2 / 3))
    return {
        "primal": compare(between(*primal), "==", least),
        "dual": compare(between(*dual, "max"), "==", theory("dual", 1.5 * total ** (2 / 3))),
        "parallel": compare(between(*parallel), "==", theory("parallel", 1.5 * total)),
        "search": compare(within(ends, slack, "residual 1e-9 of the searched fit"), ">=", least),
    }


@panel(
    rank1_three_layer_relu,
    "Rank-one data, three ReLU layers: a gap for opposite signs",
    x=r"$\gamma$ at $\alpha=1$",
    y="least weight norm",
)
def _(pen, runs):
    g = np.linspace(-1, 1, 401)
    total = 1.5 * ((1 + abs(g)) / 1.2) ** (2 / 3)
    pen.theory(g[g < 0], 1.5 * (1 + abs(g[g < 0]) ** (2 / 3)) / 1.2 ** (2 / 3))
    pen.theory(g, total, k=1)
    pen.points(*runs.measured("gamma", "primal"), "primal")
    pen.points(*runs.measured("gamma", "dual"), "dual", k=1)


@simulation
def cone_program(n, d, peak, seed):
    """Inputs, outputs of a random network (or a peak on a fan of inputs, for which units of the
    second layer are switched off), and the program's optimum on them."""
    rng = np.random.default_rng(seed)
    y = np.zeros(n)
    if peak:
        angle = np.linspace(-1.2, 1.2, n) + rng.uniform(-0.2, 0.2, size=n)
        X = rng.uniform(0.5, 2, size=(n, 1)) * np.column_stack([np.cos(angle), np.sin(angle)])
        y[n // 2] = 1
    while not y.any():  # a dead network fits nothing
        X, W1, W2, w3 = (rng.normal(size=s) for s in ((n, d), (d, 8), (8, 8), 8))
        y = np.maximum(np.maximum(X @ W1, 0) @ W2, 0) @ w3
    return X, y, cr.parallel_relu_minimum_norm(X, y)


@simulation
def branch_search(X, multiplier, seed):
    """The largest |lambda^T f(X)| that ascent finds over branches with layers of norm 1."""
    d = X.shape[1]

    def value(flat):
        W1, W2 = flat[: 4 * d].reshape(d, 4), flat[4 * d :]
        out = multiplier @ np.maximum(np.maximum(X @ W1, 0) @ W2, 0)
        return -abs(out) / (np.linalg.norm(W1) * np.linalg.norm(W2))

    starts = np.random.default_rng(seed).normal(size=(12, 4 * d + 4))
    return max(-minimize(value, start).fun for start in starts)


@relu.abstract("b", "c", instance=True)
@cases(n=[2, 3])
@cases(n=4, peak=1)
@full(n=[2, 3, 4], d=[2, 3])
@full(n=[3, 4], peak=1)
@space(n=Int(1, 4), d=Int(1, 2), peak=Int(0, "d - 1"))
@breaks("squares in place of cubes", penalty="squared")
@breaks("no activation", activation="linear")
def parallel_three_layer_relu_is_a_convex_program(
    n, seed, d=2, peak=0, penalty="power", activation="relu"
):
    r"""With parallel branches, $f(X)=\sum_j((XW_{1j})_+W_{2j})_+w_{3j}$, the least
    $\frac12\sum_{j,l}\|W_{lj}\|_F^3$ is $\frac32$ of the least $\sum\|v_{S,o,i,s}\|$ over signs
    $o,s$, patterns $S\subseteq[n]$ and patterns $D_i$ of $X$, subject to
    $(2D_i-I)Xv_{S,o,i,s}\ge0$,
    $(2S-I)\sum_{i,s}sD_iXv_{S,o,i,s}\ge0$ and $\sum oS\,sD_iXv_{S,o,i,s}=y$, a cone program. It is
    attained by a network read off the solution, and equals its dual value
    $\frac32\max\lambda^\top y$ over $|\lambda^\top f_j(X)|\le1$ for every branch $f_j$ with layers
    of norm at most 1."""
    X, y, best = cone_program(n, d, peak, seed)
    fits = cr.network_output(X, best.branches, activation=activation)[:, 0]
    upper = cr.network_cost(best.branches, penalty=penalty) * (1 + 2e-6)
    gauge = best.dual_point[:, 0] @ y
    # The dual point is scaled by the same cones: ascent over branches knows nothing of them.
    reached = within(branch_search(X, best.dual_point[:, 0], seed), 2e-6, "cone solver")
    lower = 1.5 * gauge ** (1 if penalty == "power" else 2 / 3) * (1 - 2e-6)
    solver, size = "accuracy of the cone solver", np.abs(y).max()
    return {
        "value": compare(between(upper, lower), "==", theory("program", best.primal)),
        "gap": compare(within(1 - lower / upper, 1e-5, solver), "==", theory("gap", 0.0)),
        "constraint": compare(reached, "<=", theory("constraint", 1.0)),
        "fits": compare(within(fits / size, 1e-5, solver), "==", theory("fits", y / size)),
    }


# ---------------------------------------------------------------------------------- low rank
@simulation
def shrunk(sigma, beta, depth, stretch, seed):
    """Value and singular values of the best descent on the layers, and the value at zero layers
    apart from the directions that are fitted."""
    s, rng = np.array(sigma), np.random.default_rng(seed)
    X = np.linalg.qr(rng.normal(size=(s.size + 2, s.size)))[0] * np.linspace(1, stretch, s.size)
    U, V = (np.linalg.qr(rng.normal(size=(s.size, s.size)))[0] for _ in range(2))
    fit = cr.fit_factored(
        X, np.linalg.pinv(X).T @ U @ np.diag(s) @ V.T, beta, depth=depth, seed=seed
    )
    return fit.objective, np.linalg.svd(fit.outputs, compute_uv=False)[: s.size]


@simulation
def vanishing(beta, depth):
    """Where descent on the layers of a scalar network starts to keep its target."""

    def survives(target):
        fit = cr.fit_factored(np.eye(1), [[target]], beta, depth=depth)
        return bool(fit.outputs[0, 0] > 1e-6 * target)

    return switch(survives, bracket=(0.02, 5.0))


@decay.abstract("d", instance=True)
@cases(sigma=[(2.0, 1.1, 0.4)], beta=0.3, depth=[2, 3])
@full(sigma=[(2.2, 0.7, 0.1), (1.8, 1.3, 0.9), (2.0, 1.1, 0.4)], beta=0.3, depth=[2, 4, 3])
@space(sigma=Real(0.1, 2.5, size=2), beta=Real(0.05, 1), depth=Int(2, 4))
@breaks("inputs not orthonormal", stretch=1.5)
def weight_decay_low_rank(sigma, beta, depth, seed, stretch=1.0):
    r"""If $X^\top X=I$, $\frac12\|XW_1\cdots W_L-Y\|_F^2+\frac\beta2\sum_l\|W_l\|_F^2$ is least
    where each singular value $\sigma$ of $X^\top Y$ is fitted by the minimizer of
    $\frac12(s-\sigma)^2+\frac{\beta L}2s^{2/L}$ over $s\ge0$: soft thresholding at $\beta$ for
    $L=2$; for $L\ge3$ a jump from 0 to $s_*=(\beta(L-2))^{L/(2L-2)}$ at
    $\sigma_*=s_*\frac{L-1}{L-2}$."""
    value, found = shrunk(sigma, beta, depth, stretch, seed)
    s = np.sort(sigma)[::-1]
    fitted = cr.shrink_singular_values(s, beta, depth=depth)
    least = 0.5 * (fitted - s) ** 2 + beta * depth / 2 * fitted ** (2 / depth)
    jump = cr.shrinkage_jump(beta, depth=depth).threshold
    descent, size = "gradient 1e-9 of descent", s[0]
    return {
        "fitted": compare(
            within(found / size, 1e-4, descent), "==", theory("fitted", fitted / size)
        ),
        "value": compare(within(value, 1e-6 * value, descent), "==", theory("value", least.sum())),
        "jump": compare(vanishing(beta, depth), "==", theory("threshold", jump)),
    }


@panel(
    weight_decay_low_rank,
    "Weight decay from three layers on shrinks with a jump",
    x=r"singular value of the data ($\beta=0.3$)",
    y="fitted singular value",
)
def _(pen, runs):
    s = np.linspace(0, 2.3, 800)
    for k, depth in enumerate((2, 3, 4)):
        line = cr.shrink_singular_values(s, 0.3, depth=depth)
        line[1:][(line[1:] > 0) & (line[:-1] == 0) & (depth > 2)] = np.nan
        pen.theory(s, line, f"$L={depth}$", k=k)
        for run in runs.judgement.runs:
            sigma, part = run.instance["sigma"], run.parts["fitted"]
            if run.instance["depth"] == depth:
                pen.points(sigma, part.centre * sigma[0], part.error * sigma[0], k=k)


if __name__ == "__main__":
    run_script(__file__)
