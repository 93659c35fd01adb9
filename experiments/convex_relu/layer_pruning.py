"""Pruning ReLU layers by convex programs: what it costs, and when it finds the truth."""

from itertools import pairwise

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Choice,
    Int,
    Real,
    between,
    breaks,
    cases,
    compare,
    family,
    full,
    mean,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "aghasi2018-fast"
network = paper(
    KEY,
    r"A ReLU network with layers of entrywise $\ell_1$ norm at most 1 is pruned in parallel: "
    r"$\hat W_l$ has the least $\ell_1$ norm (to a thousandth, and at most 1) that gives layer "
    r"$l$'s active outputs within $\epsilon_l$ (Frobenius) and keeps its inactive ones inactive, "
    r"on the trained layer's inputs.",
)
layer = paper(
    KEY,
    r"Layer program: minimise $\|U\|_1$ subject to $\|(XU-Y)_\Omega\|_F\le\epsilon$, "
    r"$(XU)_{\Omega^c}\le0$, where $Y=(XW)_+$ and $\Omega$ is where $Y>0$.",
)
neuron = paper(
    KEY,
    r"A neuron $w$ with $s$ non-zero weights of $N$ is recovered from $P$ samples $x_p$ if "
    r"it is the only solution of the layer program at $\epsilon=0$.",
)


# ---------------------------------------------------------------------------------- error
@simulation
def pruned_network(widths, relative, size, seed):
    """Output error of a pruned random network, what the solver left of it, weights, levels."""
    rng = np.random.default_rng(seed)
    hidden = X = rng.normal(size=(40, widths[0]))
    weights = []
    for a, b in pairwise(widths):
        W = rng.normal(size=(a, b))
        # No dead units: their layer could be left out.
        W *= np.where((hidden @ W > 0).any(axis=0), size, -size) / np.abs(W).sum()
        weights.append(W)
        hidden = np.maximum(hidden @ W, 0)
    scale = np.array([np.linalg.norm(Y) for Y in cr.layer_outputs(X, weights)])
    eps = relative * scale
    pruned = cr.prune_network(X, weights, list(eps), tol=1e-3)
    missed = scale * [layer.violation for layer in pruned.layers]
    left = cr.error_propagation_bound(pruned.weights, missed)[-1]
    return pruned.errors[-1], left, pruned.weights, eps


@network.abstract("a", "b", instance=True)
@cases(widths=(12, 14, 10, 8), relative=0.1)
@cases(widths=(1, 1, 1), relative=[0.02, 0.3])
@full(widths=(12, 14, 10, 8), relative=[0.05, 0.3])
@full(widths=(1, 1, 1), relative=[0.02, 0.05, 0.1, 0.2, 0.3, 0.5])
@space(
    depth=Int(1, 3),
    width=Int(1, 6),
    widths=Choice([None]),
    relative=Real(0.05, 0.6, log=True),
    size=Real(0.1, 1.0),
)
@breaks(r"$\ell_1$ norm 100", size=100.0)
def nettrim_error_propagation(relative, seed, widths=None, depth=0, width=0, size=1.0):
    r"""Then the output errs by at most $\sum_l\epsilon_l\prod_{k>l}\|\hat
    W_k\|_2\le\sum_l\epsilon_l$ (here $\epsilon_l$ is the fraction relative of the norm of layer
    $l$'s outputs)."""
    error, left, weights, eps = pruned_network(
        widths or (width,) * (depth + 1), relative, size, seed
    )
    found = within(error, left, "constraints violated by the solver, propagated")
    product = cr.error_propagation_bound(weights, eps)[-1]
    return {
        "product": compare(found, "<=", theory("product", product)),
        "sum": compare(found, "<=", theory("sum", eps.sum())),
    }


@panel(
    nettrim_error_propagation,
    "Errors of pruned layers add up, and no more: two layers of one unit",
    x=r"$\epsilon/\|y\|$ of each layer",
    y="output error",
    log="xy",
)
def _(pen, runs):
    chain = {"widths": (1, 1, 1)}
    pen.theory(*runs.predicted("relative", "sum", where=chain), r"$\sum_l\epsilon_l$", k=1)
    pen.theory(*runs.predicted("relative", "product", where=chain), "product bound")
    pen.points(*runs.measured("relative", where=chain))
    wide = {"widths": (12, 14, 10, 8)}
    pen.points(*runs.measured("relative", where=wide), "wide layers", k=2)


# ---------------------------------------------------------------------------------- solver
@simulation
def by_admm(X, W, eps, start, rows):
    """Bounds of the layer program from one run: a repaired point, and the run's own multipliers."""
    found = cr.prune_layer(X[rows], W, eps, tol=1e-6, start=start)
    U, product, goal = found.weights, X[rows] @ found.weights, X[rows] @ W
    on = goal > 0
    miss = np.linalg.norm((product - goal)[on])
    # The trained weights are feasible: a mixture with them is, and costs little.
    above = np.where(~on & (product > 0), product / (product - goal), 0)
    share = max(1 - eps / miss, above.max(), 0.0) * (1 + 1e-9)
    return np.abs((1 - share) * U + share * W).sum(), found.dual_objective


@simulation
def by_cones(X, W, eps):
    """Value of the layer program by an interior-point method."""
    import cvxpy as cp

    U, goal = cp.Variable(W.shape), X @ W
    on = goal > 0
    close = cp.norm(cp.multiply(on, X @ U - goal), "fro") <= eps
    program = cp.Problem(cp.Minimize(cp.sum(cp.abs(U))), [close, cp.multiply(~on, X @ U) <= 0])
    return float(program.solve(solver=cp.CLARABEL))


@layer.abstract("a", "d", instance=True)
@cases(n=24, d=10, units=3, relative=0.1, start=[0.0, 100.0])
@cases(n=60, d=6, units=1, relative=0.7, start=1.0)
@full(n=60, d=20, units=8, relative=[0.03, 0.3], start=[0.0, 100.0])
@full(n=60, d=6, units=1, relative=[0.03, 0.1, 0.2, 0.4, 0.7], start=1.0)
@space(
    n=Int(2, 30),
    d=Int(1, 12),
    units=Int(1, 4),
    relative=Real(0.02, 0.9),
    start=Real(0.0, 100.0),
)
@breaks("inactive samples left out", inactive=False)
def nettrim_admm_certified(n, d, units, relative, start, seed, inactive=True):
    r"""Split $U$ (soft threshold) and $Z=XU$ (projection on the constraints) off a least-squares
    step with one factor. From random starts (of size start), this ADMM reaches the value of the
    program: its scaled multipliers $\Lambda$, $\Lambda_{\Omega^c}\le0$,
    $\|X^\top\Lambda\|_\infty\le1$, prove it by
    $\langle\Lambda,Y\rangle-\epsilon\|\Lambda_\Omega\|_F$."""
    rng = np.random.default_rng(seed)
    X, W = rng.normal(size=(n, d)), rng.normal(size=(d, units))
    W *= np.where((X @ W > 0).any(axis=0), 1, -1)
    eps = relative * float(np.linalg.norm(np.maximum(X @ W, 0)))
    rows = np.full(n, True) if inactive else (X @ W > 0).all(axis=1)
    above, below = by_admm(X, W, eps, start * rng.normal(size=W.shape), rows)
    # The bounds are moved apart by what the interior point, solved to 1e-8, may be off.
    bounds = between((1 + 1e-6) * above, (1 - 1e-6) * below)
    return compare(bounds, "==", theory("value", by_cones(X, W, eps)))


@panel(
    nettrim_admm_certified,
    "ADMM certifies the least $\\ell_1$ norm of a neuron",
    x=r"allowed error $\epsilon/\|y\|$",
    y="least norm",
    log="x",
)
def _(pen, runs):
    one = {"units": 1}
    pen.theory(*runs.predicted("relative", where=one), "interior point")
    pen.points(*runs.measured("relative", where=one), "ADMM, its bounds")
    name = "inactive samples left out"
    pen.broken(*runs.measured("relative", control=name), name)


# ---------------------------------------------------------------------------------- recovery
def same(u, w):
    return np.abs(u - w).max(axis=-1) <= 1e-6 * np.abs(w).max(axis=-1)


def sparse_neurons(n_inputs, sparsity, n_samples, trials, mean, rng):
    X = rng.normal(size=(trials, n_samples, n_inputs)) + mean
    w = np.zeros((trials, n_inputs))
    w[:, :sparsity] = 0.1 + np.abs(rng.normal(size=(trials, sparsity)))
    return X, w


@neuron.ours("derived: the inactive inequalities are strict at w", serves="c")
@cases(n_inputs=30, sparsity=3, n_samples=20, trials=40)
@full(n_inputs=40, sparsity=4, n_samples=[14, 26, 38], trials=60)
@space(n_inputs=Int(1, 16), sparsity=Int(1, "n_inputs"), n_samples=Int(1, 24), trials=Choice([8]))
@breaks("inactive samples orthogonal to w", orthogonal=True)
def nettrim_equals_basis_pursuit(n_inputs, sparsity, n_samples, trials, seed, orthogonal=False):
    r"""If no $w^\top x_p$ is 0, $w$ is recovered if and only if it is by $\ell_1$ minimisation
    subject to $x_p^\top u=w^\top x_p$ for the active samples ($w^\top x_p>0$) alone."""
    rng = np.random.default_rng(seed)
    agree = {}
    for trial, (X, w) in enumerate(
        zip(*sparse_neurons(n_inputs, sparsity, n_samples, trials, 0.0, rng), strict=True)
    ):
        on = X @ w > 0
        if orthogonal:  # rounding may leave either sign; the program reads off the inactive ones
            X[~on] -= np.outer(X[~on] @ w, w) / (w @ w) + 1e-13 * w
        alone = on.any() and same(cr.basis_pursuit(X[on], X[on] @ w), w)
        agree[trial] = bool(same(cr.recover_neuron(X, w), w) == alone)
    return compare(family(agree), "==", trials)


@simulation
def recovered(n_inputs, sparsity, n_samples, trials, mean, spread, seed):
    """Which neurons are recovered."""
    rng = np.random.default_rng([seed, n_samples])
    X, w = sparse_neurons(n_inputs, sparsity, n_samples, trials, mean, rng)
    X *= np.where(w == 0, spread, 1)[:, None]
    parts = range(0, trials, 250)  # one program each: its time grows faster than its size
    return np.concatenate(
        [same(cr.recover_neurons(X[i : i + 250], w[i : i + 250]), w[i : i + 250]) for i in parts]
    )


def recovery_law(n_inputs, sparsity, n_samples):
    """Probability of recovery from that many Gaussian samples."""
    curve = np.append(cr.recovery_probabilities(n_inputs, sparsity), np.ones(n_samples))
    return cr.mixed_recovery_probability(curve[: n_samples + 1])


@neuron.ours("derived: the exact law behind the theorem on the sample complexity", serves="c")
@cases(n_inputs=6, sparsity=2, n_samples=[11, 14], trials=1500)
@full(n_inputs=10, sparsity=2, n_samples=[11, 12, 14, 18], trials=3000)
@full(n_inputs=20, sparsity=2, n_samples=[15, 17, 22], trials=3000)
@space(n_inputs=Int(1, 8), sparsity=Int(1, "n_inputs"), n_samples=Int(1, 24), trials=Choice([400]))
@breaks("inputs of mean -1", mean_input=-1.0)
@breaks("inputs where w is zero four times as large", spread=4.0)
def nettrim_recovery_law(n_inputs, sparsity, n_samples, trials, seed, mean_input=0.0, spread=1.0):
    r"""For independent standard Gaussian samples it is with probability
    $\sum_m\binom Pm2^{-P}p(m)$, where basis pursuit recovers it from $m$ standard Gaussian
    measurements with $p(m)=1-2(v_{m+1}+v_{m+3}+\dots)$, $v$ the intrinsic volumes of the descent
    cone of the $\ell_1$ norm."""
    found = recovered(n_inputs, sparsity, n_samples, trials, mean_input, spread, seed)
    law = recovery_law(n_inputs, sparsity, n_samples)
    return compare(mean(found), "==", theory("probability", law))


@panel(
    nettrim_recovery_law,
    "The law of recovery is a binomial mixture of conic volumes",
    x="samples $P$",
    y="probability of recovery",
)
def _(pen, runs):
    for k, n in enumerate((10, 20)):
        P = np.arange(4, 25)
        pen.theory(P, [recovery_law(n, 2, int(p)) for p in P], f"$N={n}$, $s=2$", k=k)
        pen.points(*runs.measured("n_samples", where={"n_inputs": n}), k=k)
    pen.broken(*runs.measured("n_samples", control="inputs of mean -1"), "inputs of mean $-1$")


@neuron.abstract("c", instance=True)
@cases(n_inputs=[3, 40, 100], sparsity=1)
@cases(n_inputs=[10, 60, 40], sparsity=[4, 10])
@full(n_inputs=[4, 10, 40, 160, 400], sparsity=[1, 4])
@full(n_inputs=160, sparsity=[1, 2, 4, 8, 16, 32, 64, 128, 160])
@space(n_inputs=Int(1, 60), sparsity=Int(1, "n_inputs"))
@breaks("a fifth of the samples active", active=0.2)
def sample_complexity_slog(n_inputs, sparsity, active=0.5):
    r"""For standard Gaussian samples the least $P$ with probability at least one half is between
    $2\delta-2$ and $2\delta$, $\delta=\min_t\{s(1+t^2)+(N-s)\mathbb E(|g|-t)_+^2\}$, and of order
    $s\log(N/s)$: between $2s(1+\frac{19}{20}\log\frac Ns)-2$ and $s(4\log\frac Ns+\frac52)$."""
    least = within(
        cr.samples_for_recovery(n_inputs, sparsity, active=active), 0, "law known to 1e-9"
    )
    double = 2 * cr.statistical_dimension(n_inputs, sparsity)
    lower = 2 * sparsity * (1 + 0.95 * np.log(n_inputs / sparsity)) - 2
    upper = sparsity * (4 * np.log(n_inputs / sparsity) + 2.5)
    return {
        "at most": compare(least, "<=", theory("twice the dimension", double)),
        "at least": compare(least, ">=", theory("lower end", double - 2)),
        "order from above": compare(least, "<=", theory("upper order", upper)),
        "order from below": compare(least, ">=", theory("lower order", lower)),
    }


@panel(
    sample_complexity_slog,
    r"Half are recovered at $P\approx2\delta$, of order $s\log(N/s)$ ($N=160$)",
    x="non-zero weights $s$",
    y="samples $P$",
    log="xy",
)
def _(pen, runs):
    s = np.unique(np.geomspace(1, 160, 60).round()).astype(int)
    pen.theory(s, [2 * cr.statistical_dimension(160, int(k)) for k in s], r"$2\delta$")
    pen.theory(s, s * (4 * np.log(160 / s) + 2.5), r"$4s\log\frac{N}{s}+\frac{5}{2}s$", k=1)
    pen.theory(s, 2 * s * (1 + 0.95 * np.log(160 / s)), r"$1.9s\log\frac{N}{s}+2s$", k=2)
    pen.points(*runs.measured("sparsity", where={"n_inputs": 160}))
    name = "a fifth of the samples active"
    pen.broken(*runs.measured("sparsity", control=name), name)


if __name__ == "__main__":
    run_script(__file__)
