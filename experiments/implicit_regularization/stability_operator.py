"""Stable minima: where stochastic gradient descent can stay, and where gradient descent can."""

from fractions import Fraction
from itertools import combinations, product

import numpy as np

from theorylab import implicit_regularization as ir
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
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

EPS = float(np.finfo(float).eps)
WU, DEXTER = "wu2023-implicit", "dexter2024-precise"
HERE = (
    r"At a minimum with loss 0 of half the squared error, with gradients $g_i$ of the $n$ "
    r"predictions, $H=\frac1n\sum_ig_ig_i^\top\ne0$, $\eta_c$ the largest step that is stable in "
    r"mean square for"
)
single = paper(WU, HERE + r" the linearised steps $w\mapsto(I-\eta g_ig_i^\top)w$, $i$ uniform:")
batches = paper(
    WU,
    HERE
    + r" the linearised steps on batches of $B$ samples, with $\kappa=\frac1B$ if they are drawn "
    r"with replacement, $\frac{n-B}{B(n-1)}$ without (0 if $B=n$):",
)
diagonal = paper(
    WU,
    r"Diagonal linear net $f(x)=\langle\beta,x\rangle$, $\beta=u\odot u-v\odot v$, half the "
    r"squared error:",
)
loss_stable = paper(
    WU,
    r"Half the squared error, $w\mapsto(I-\eta g_ig_i^\top)w$, $i$ uniform, $g_i$ spanning "
    r"$\mathbb R^d$, not all equal up to sign, $H=\frac1n\sum_ig_ig_i^\top$, "
    r"$L(w)=\frac12w^\top Hw$, "
    r"$\mu=\lambda_{\min}(H^{-1/2}MH^{-1/2})/\|H\|_F^2$, "
    r"$M=\frac1n\sum_i(g_i^\top Hg_i)g_ig_i^\top-H^3$:",
)
linear = paper(WU, r"Linear predictors $\beta$ of $n$ inputs with $|x_{ij}|=1$, $B>0$:")
inputs = paper(
    WU, r"Linear predictors $\beta$ of $n$ inputs $x_i\in\mathbb R^d$, not all 0, $B>0$:"
)
bernoulli = paper(
    DEXTER,
    r"Steps $w\mapsto(I-\frac\eta B\sum_{i\in S}H_i)w$ with $H_i\succeq0$ not all 0, each of "
    r"the $n$ samples in $S$ by itself with probability $\frac Bn$, $H=\frac1n\sum_iH_i$:",
)


def random_gradients(n, d, spread, shared, scale, seed, orthogonal=False, zeros=0):
    """Gradients with a common direction and lengths that differ by factors of exp(spread), the
    first ones 0."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((n, d)) + shared * rng.standard_normal(d)
    if orthogonal:
        g = np.linalg.qr(rng.standard_normal((d, d)))[0][np.arange(n) % d]
    lengths = np.exp(spread * np.linspace(-1, 1, n)) * scale * (np.arange(n) >= zeros)
    return g * (lengths / np.linalg.norm(g, axis=1))[:, None]


def random_hessians(n, d, rank, spread, scale, seed, zeros=0):
    rng = np.random.default_rng([seed, 1])
    roots = rng.standard_normal((n, d, rank)) * np.exp(spread * rng.uniform(-1, 1, (n, 1, 1)))
    roots[:zeros] = 0
    return scale * roots @ np.swapaxes(roots, 1, 2)


def batch_laws(n, B, sampling):
    """The weights of the samples in a batch, one row a batch, and the probabilities of batches."""
    if sampling == "bernoulli":
        rows = np.array(list(product((0, 1), repeat=n)), dtype=float)
        p = B / n
        return rows / B, p ** rows.sum(axis=1) * (1 - p) ** (n - rows.sum(axis=1))
    drawn = product(range(n), repeat=B) if sampling == "replacement" else combinations(range(n), B)
    rows = np.array([np.bincount(batch, minlength=n) for batch in drawn]) / B
    return rows, np.full(len(rows), 1 / len(rows))


def enumerated(hessians, B, sampling):
    """The operator of a step as a function of its size, a matrix on all matrices, by batches."""
    rows, chances = batch_laws(len(hessians), B, sampling)
    found = np.einsum("sn,nij->sij", rows, hessians)
    d = hessians.shape[-1]

    def at(step):
        maps = np.eye(d) - step * found
        return np.einsum("s,sik,sjl->ijkl", chances, maps, maps).reshape(d * d, d * d)

    return at


@simulation
def enumerated_threshold(hessians, B, sampling):
    """The step at which the largest eigenvalue of the enumerated operator passes 1."""
    top = np.linalg.eigvalsh(hessians.mean(axis=0))[-1]
    operator = enumerated(hessians * (1 / top), B, sampling)
    passes = switch(
        lambda step: bool(np.linalg.eigvalsh(operator(step))[-1] > 1 + 1e-12),
        bracket=(1e-3, 2.1),
        tol=1e-8,
    )
    return float(passes.centre) / top


def threshold(hessians, B, sampling):
    """The largest stable step, as an enclosure."""
    found = ir.stability_threshold(hessians, batch_size=B, sampling=sampling)
    error = (found.upper - found.lower) / 2
    return within((found.upper + found.lower) / 2, error, "rounding of an eigenvalue")


# ---------------------------------------------------------------------------- rank one
@single.ours("derived: fourth moments sharpen the trace, and equal norms attain it", serves="ab")
@cases(n=[2, 6], d=3, spread=[0.0, 0.4])
@full(n=[1, 4, 20], d=[1, 4], spread=[0.0, 0.2, 0.5, 1.0])
@full(n=6, d=3, spread=0.4)
@space(
    n=Int(1, 9),
    d=Int(1, 4),
    spread=Real(0, 2),
    shared=Real(0, 3),
    zeros=Int(0, "n - 1"),
    scale=Real(1e-60, 1e60, log=True),
)
@breaks("samples of rank 3", rank=3)
@breaks("batches of two", B=2)
@breaks("unequal norms", equal=False)
def trace_necessary_condition_batch_one(
    n, d, spread, seed, shared=0.3, scale=1.0, zeros=0, rank=1, B=1, equal=True
):
    r"""$\frac2{\max_i\|g_i\|^2}\le\eta_c\le\frac{2\,\mathbb E\|g\|^2}{\mathbb E\|g\|^4}\le\frac2{
    \mathrm{tr}H}$, and $\eta_c=\frac2{\mathrm{tr}H}$ if all norms are equal."""
    g = random_gradients(n, d, spread, shared, scale, seed, zeros=zeros)
    squares = np.sum(g**2, axis=1)
    level = g[zeros:] / np.sqrt(squares[zeros:])[:, None] * scale if equal else g
    family, same = ir.rank_one_hessians(g), ir.rank_one_hessians(level)
    if rank > 1:
        family, same = (
            np.trace(H, axis1=1, axis2=2)[:, None, None] / d * np.eye(d) for H in (family, same)
        )
    moments = ir.moment_bound(ir.rank_one_hessians(g), batch_size=1)
    one, other = threshold(family, B, "replacement"), threshold(same, B, "replacement")
    return {
        "fourth moments": compare(one, "<=", theory("fourth", moments)),
        "trace": compare(one, "<=", theory("trace", ir.trace_bound(g, batch_size=1))),
        "sufficient": compare(one, ">=", theory("sufficient", 2 / squares.max())),
        "equal norms": compare(other, "==", theory("equal", ir.trace_bound(level, batch_size=1))),
    }


@panel(
    trace_necessary_condition_batch_one,
    r"$\eta_c\,\mathrm{tr}H\leq2$, with equality at equal norms",
    x=r"$\mathbb{E}\|g\|^4/(\mathbb{E}\|g\|^2)^2$",
    y=r"$\eta_c\,\mathrm{tr}H/2$",
)
def _(pen, runs):
    parts = [run.parts for run in runs.judgement.runs]
    trace, fourth, found = (
        np.array([float(getattr(p[name], side)) for p in parts])
        for name, side in (
            ("trace", "predicted"),
            ("fourth moments", "predicted"),
            ("trace", "shown"),
        )
    )
    line = np.linspace(1, 1.05 * max(trace / fourth), 100)
    pen.theory(line, 1 / line, "fourth moments")
    pen.theory(line, np.ones(100), "trace", k=2)
    pen.points(trace / fourth, found / trace, label="judged", k=1)


@batches.ours("derived: the trace of the abstract for batches", serves="ab")
@cases(n=4, d=3, B=[1, 3], sampling=["replacement", "without"])
@cases(n=3, d=3, B=2, sampling="without", orthogonal=True, spread=0.0)
@full(n=[2, 5], d=2, B=[1, 2], sampling=["replacement", "without"])
@full(n=[3, 5], d=[2, 4], B=3, sampling=["replacement", "without"])
@full(n=3, d=3, B=2, sampling="without", orthogonal=True, spread=0.0)
@space(
    n=Int(1, 5),
    d=Int(1, 4),
    B=Int(1, "min(3, n)"),
    sampling=Choice(("replacement", "without")),
    spread=Real(0, 1),
    shared=Real(0, 2),
    zeros=Int(0, "n - 1"),
)
@breaks("batches without replacement, counted as if with", counted="replacement")
@breaks("samples of rank 3", rank=3)
def batch_size_version(
    n, d, B, sampling, seed, spread=0.3, shared=0.3, zeros=0, orthogonal=False, counted=None, rank=1
):
    r"""$\frac1{\eta_c}\ge\frac{(1-\kappa)\|H\|_F^2+\kappa\,\mathbb E\|g\|^4}{2\,\mathrm{tr}H}\ge
    \frac{\kappa\,\mathrm{tr}H}2$, which is 0 for the full batch without replacement."""
    g = random_gradients(n, d, spread, shared, 1.0, seed, orthogonal, zeros)
    family, how = ir.rank_one_hessians(g), {"batch_size": B, "sampling": counted or sampling}
    moments, trace = ir.moment_bound(family, **how), ir.trace_bound(g, **how)
    if rank > 1:
        family = np.sum(g**2, axis=1)[:, None, None] / d * np.eye(d)
    inverse = 1 / enumerated_threshold(family, B, sampling)
    measured = within(inverse, 1e-6 * inverse, "bisection, rounding of an eigenvalue near 1")
    return {
        "moments": compare(measured, ">=", theory("moments", 1 / moments)),
        "trace": compare(measured, ">=", theory("trace", 1 / trace)),
    }


@panel(
    batch_size_version,
    r"$\kappa\eta_c\,\mathrm{tr}H\leq2$: batches relax the trace",
    x=r"$\kappa\,\mathrm{tr}H/2$",
    y=r"$1/\eta_c$",
)
def _(pen, runs):
    judged = runs.judgement.runs
    bound = np.array([float(r.parts["trace"].predicted) for r in judged])
    found = np.array([float(r.parts["trace"].shown) for r in judged])
    line = np.linspace(0, max(bound.max(), found.max()), 2)
    pen.theory(line, line, "bound")
    pen.points(bound, found, label="judged", k=1)


# ---------------------------------------------------------------------------- diagonal nets
@simulation
def loss_hessian(x, y, u, v):
    """The Hessian of the loss by second differences of five points, exact for quartics."""
    d = len(u)
    start, unit = np.concatenate([u, v]), np.eye(2 * d)

    def loss(w):
        return np.mean(((w[:d] ** 2 - w[d:] ** 2) @ x.T - y) ** 2) / 2

    def curvature(e):
        values = [c * loss(start + t * e) for t, c in zip(range(-2, 3), weights, strict=True)]
        return sum(values) / 12, sum(map(abs, values))

    weights = (-1, 16, -30, 16, -1)
    single = [curvature(e) for e in unit]
    H, size = np.diag([s[0] for s in single]), max(s[1] for s in single)
    for i, j in combinations(range(2 * d), 2):
        found, terms = curvature(unit[i] + unit[j])
        H[i, j] = H[j, i] = (found - single[i][0] - single[j][0]) / 2
        size = max(size, terms)
    return H, size


def isotropic(n, d, seed, stretch):
    x = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, d)))[0] * np.sqrt(n)
    return x * np.linspace(1, stretch, d) if d > 1 else x * stretch


@diagonal.abstract("c", "d", "g", instance=True)
@cases(n=3, u=(0.8, 0.8, 0.8), v=(0.0, 0.0, 0.0))
@cases(n=6, u=(1.0, 0.5, -0.3), v=[(0.2, 0.1, 0.9), (0.0, 0.0, 0.0)])
@full(n=3, u=(0.8, 0.8, 0.8), v=(0.0, 0.0, 0.0))
@full(n=[3, 4, 8], u=(1.0, 0.5, -0.3), v=[(0.2, 0.1, 0.9), (0.7, -0.5, 0.3), (0.0, 0.0, 0.0)])
@space(
    n=Int(1, 8),
    u=Real(-2, 2, size="min(n, 4)", capacity=4),
    v=Real(-2, 2, size="min(n, 4)", capacity=4),
)
@breaks("inputs that are not isotropic", stretch=2.0)
@breaks("a point where the loss is not 0", residual=1.0)
def diagonal_net_sharpness_equals_norm(n, u, v, seed, stretch=1.0, residual=0.0):
    r"""where the loss is 0 and $\frac1n\sum_ix_ix_i^\top=I$, its Hessian has
    $\mathrm{tr}H=4(\|u\|^2+\|v\|^2)\ge4\|\beta\|_1$ and
    $\lambda_1(H)=4\max_j(u_j^2+v_j^2)\ge4\|\beta\|_\infty$, so that the steps at which one-sample
    SGD and gradient descent are stable (linearised, SGD in mean square) are at most
    $\frac1{2\|\beta\|_1}$ and $\frac1{2\|\beta\|_\infty}$."""
    u, v = np.array(u), np.array(v)
    x = isotropic(n, len(u), seed, stretch)
    beta = u**2 - v**2
    H, size = loss_hessian(x, x @ beta - residual * x @ np.sign(beta), u, v)
    values = np.linalg.eigvalsh(H)
    error, why = 100 * len(values) * EPS * size, "rounding of differences"
    gradients = ir.rank_one_hessians(ir.diagonal_net_gradients(x, u, v))
    sums, one, largest = u**2 + v**2, np.abs(beta).sum(), np.abs(beta).max()
    return {
        "trace": compare(within(np.trace(H), error, why), "==", theory("trace", 4 * sums.sum())),
        "sharpness": compare(within(values[-1], error, why), "==", theory("top", 4 * sums.max())),
        "1-norm": compare(within(np.trace(H), error, why), ">=", theory("one", 4 * one)),
        "maximum": compare(within(values[-1], error, why), ">=", theory("maximum", 4 * largest)),
        "SGD": compare(
            threshold(gradients, 1, "replacement"), "<=", 1 / (2 * theory("SGD", max(one, 1e-9)))
        ),
        "GD": compare(
            threshold(gradients, n, "without"), "<=", 1 / (2 * theory("GD", max(largest, 1e-9)))
        ),
    }


@simulation
def descend(x, y, u, v, step, steps, seed):
    """Where descent on diagonal nets ends that converges, from all starts at once, with one sample
    a step or, without a seed, with all."""
    rng = None if seed is None else np.random.default_rng(seed)

    def residuals():
        return (u**2 - v**2) @ x.T - y

    first = np.mean(residuals() ** 2, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(steps):
            if t % 50 == 0:
                loss = np.mean(residuals() ** 2, axis=1)
                if not ((loss > 1e-12 * first) & (loss < 1e12 * first)).any():
                    break
            left = residuals()
            if rng is None:
                pull = 2 * step * left @ x / len(x)
            else:
                drawn = rng.integers(len(x), size=len(u))
                pull = 2 * step * left[np.arange(len(u)), drawn, None] * x[drawn]
            u, v = u * (1 - pull), v * (1 + pull)
        kept = np.mean(residuals() ** 2, axis=1) <= 1e-12 * first
    return u[kept], v[kept]


def near_minimum(n, d, rows, seed):
    """Inputs, and a minimum of diagonal nets that fit what it predicts."""
    rng = np.random.default_rng(seed)
    return rows(rng, n, d), rng.uniform(0.5, 1.5, d), rng.uniform(0.0, 0.3, d)


@simulation
def selected(n, d, level, ratios, starts, rows, seed):
    """Minima where descent on diagonal nets ends, from near a minimum whose trace is a given part
    of the bound for SGD, and whose sharpness is a given part of that for GD: for SGD and GD the
    parts of the bounds on trace, 1-norm and sharpness at the ends of runs that converge."""
    x, u, v = near_minimum(n, d, rows, seed)
    rng = np.random.default_rng([seed, 4])
    begin = [a * (1 + 1e-5 * rng.standard_normal((starts, d))) for a in (u, v)]
    top = np.linalg.eigvalsh(4 / n * (x * (u**2 + v**2)) @ x.T)[-1]
    trace = 4 * np.mean(x**2 @ (u**2 + v**2))
    found = {"SGD": [], "GD": []}
    plans = [("SGD", 2 * s / trace, seed + k) for k, s in enumerate(ratios)]
    for name, step, draws in [*plans, ("GD", 2 * level / top, None)]:
        for a, b in zip(*descend(x, x @ (u**2 - v**2), *begin, step, 1000, draws), strict=True):
            weights = a**2 + b**2
            ends = (
                2 * step * np.mean(x**2 @ weights),
                2 * step * np.abs(a**2 - b**2).sum(),
                step / 2 * np.linalg.eigvalsh(4 / n * (x * weights) @ x.T)[-1],
            )
            found[name].append(ends)
    sgd, gd = (np.array(found[name] or [(np.nan,) * 3]) for name in ("SGD", "GD"))
    return sgd.max(axis=0), np.append(gd[:, :2].min(axis=0), gd[:, 2].max())


@simulation
def exponents(n, d, ratio, steps, rows, seed):
    """Over a run of linearised steps with one sample each at a minimum, on the span of the
    gradients: the sum of the Lyapunov exponents, the rate of the product's norm, and the dimension
    of the span."""
    x, u, v = near_minimum(n, d, rows, seed)
    g = ir.diagonal_net_gradients(x, u, v)
    _, sizes, basis = np.linalg.svd(g, full_matrices=False)
    h = g @ basis[sizes > 1e-9 * sizes[0]].T
    step = 2 * ratio / np.mean(np.sum(g**2, axis=1))
    frame, total = np.eye(h.shape[1]), 0.0
    product, size = frame, 0.0
    for i in np.random.default_rng([seed, 5]).integers(n, size=steps):
        factor = np.eye(h.shape[1]) - step * np.outer(h[i], h[i])
        frame, triangle = np.linalg.qr(factor @ frame)
        total += np.log(np.abs(np.diag(triangle))).sum() / steps
        product = factor @ product
        now = np.linalg.norm(product, 2)
        product, size = product / now, size + np.log(now) / steps
    return total, size, h.shape[1]


def signs(rng, n, d):
    return rng.choice([-1.0, 1.0], size=(n, d))


def parallel(rng, n, d):
    """Inputs along one line, half of them three times as long."""
    lengths = np.where(np.arange(n) % 2, 1.0, 3.0)
    return np.outer(lengths, signs(rng, 1, d)[0])


@diagonal.ours("derived from the Lyapunov exponents of products of the steps", serves="fg")
@cases(n=6, d=24)
@full(n=[4, 5, 8, 10, 6], d=40, starts=30, ratios=(0.5, 1.1, 1.3, 1.6))
@space(
    n=Int(5, 8),
    d=Int("4 * n", 36),
    level=Real(0.85, 0.97),
    stable=Real(0.6, 0.95),
    ratios=Real(0.6, 1.8, size=1),
)
@breaks("inputs of unequal norms", rows=parallel, ratios=(2.45,), starts=40)
def gd_versus_sgd_selected_minima(
    n, d, seed, level=0.9, stable=0.95, ratios=(0.5, 1.2, 1.6), starts=12, rows=signs
):
    r"""where $|x_{ij}|=1$ and the loss is 0, the Lyapunov exponents of products of the steps
    $I-\eta g_ig_i^\top$, $i$ random, on the span of the gradients $g_i$, sum to
    $\log|1-\eta\,\mathrm{tr}H|$, and each product of $T$ has norm at least
    $|1-\eta\,\mathrm{tr}H|^{T/r}$, $r$ its dimension: minima with $\frac\eta2\mathrm{tr}H>1$
    repel. None of the runs of one-sample SGD, from random starts near minima, converges to one
    with $\frac\eta2\mathrm{tr}H>1$ or $2\eta\|\beta\|_1>1$. Gradient descent converges to minima
    where both are above 1 and $\frac\eta2\lambda_1(H)<1$."""
    sgd, gd = selected(n, d, level, (stable, *ratios), starts, rows, seed)
    total, size, rank = exponents(n, d, ratios[-1], 200, rows, seed)
    error, one = "distance to the minimum", theory("bound", 1.0)
    rate = np.log(np.abs(1 - 2 * ratios[-1]))
    return {
        "sum": compare(within(total, 1e-9, "rounding"), "==", theory("exponents", rate)),
        "norm": compare(within(size, 1e-9, "rounding"), ">=", theory("norm", rate) / rank),
        "trace, SGD": compare(within(sgd[0], 1e-4 * sgd[0], error), "<=", one),
        "1-norm, SGD": compare(within(sgd[1], 1e-4 * sgd[1], error), "<=", one),
        "trace, GD": compare(within(gd[0], 1e-4 * gd[0], error), ">", one),
        "1-norm, GD": compare(within(gd[1], 1e-4 * gd[1], error), ">", one),
        "sharpness, GD": compare(within(gd[2], 1e-4, error), "<", theory("top", 1.0)),
    }


@panel(
    gd_versus_sgd_selected_minima,
    r"SGD stays only where $\eta\,\mathrm{tr}H\leq2$, gradient descent beyond",
    x="samples $n$",
    y=r"$\eta\,\mathrm{tr}H/2$ at minima",
)
def _(pen, runs):
    pen.theory([4, 10], [1, 1], "bound")
    pen.points(*runs.measured("n", "trace, SGD"), "SGD, largest", k=1)
    pen.points(*runs.measured("n", "trace, GD"), "gradient descent", k=2)


# ---------------------------------------------------------------------------- loss stability
@simulation
def least_growth(hessians, step, B):
    """The least factor by which a step multiplies the mean loss, over all laws of the iterate, and
    the condition of the mean Hessian."""
    H, d = hessians.mean(axis=0), hessians.shape[-1]
    moved = (enumerated(hessians, B, "replacement")(step) @ H.ravel()).reshape(d, d)
    values, vectors = np.linalg.eigh(H)
    root = vectors / np.sqrt(values)
    return np.linalg.eigvalsh(root.T @ moved @ root)[0], values[-1] / values[0]


@loss_stable.ours("derived: an explicit constant for the Frobenius norm", serves="a")
@cases(n=4, d=[2, 1], share=1.05, spread=1.0)
@full(n=[3, 5, 8], d=[1, 2, 3], share=[0.5, 1.05])
@full(n=4, d=1, share=1.05, spread=1.0)
@space(
    n=Int(2, 8),
    d=Int(1, "min(4, n)"),
    share=Real(0.01, 1.5),
    spread=Real(0.1, 1.5),
    shared=Real(0, 3),
    scale=Real(1e-60, 1e60, log=True),
)
@breaks("batches of two", B=2)
def frobenius_norm_bounds_loss_stability(n, d, share, seed, spread=0.5, shared=0.3, scale=1.0, B=1):
    r"""$\mathbb EL(w_{t+1})\ge(\eta^2\mu\|H\|_F^2+\min_j(1-\eta\lambda_j(H))^2)\,\mathbb EL(w_t)$,
    whatever $w_t$: bounded losses from every start, so $\eta\le\eta_c$, force
    $\|H\|_F\le\frac1{\eta\sqrt\mu}$."""
    g = random_gradients(n, d, spread, shared, scale, seed)
    family, H = ir.rank_one_hessians(g), g.T @ g / n
    mu, size = ir.noise_alignment(g), np.linalg.norm(H)
    critical = enumerated_threshold(family, B, "replacement")
    step = share * critical
    growth, condition = least_growth(family * step, 1.0, B)
    drift = np.min((1 - step * np.linalg.eigvalsh(H)) ** 2)
    return {
        "growth": compare(
            within(growth, 1e-14 * condition * (1 + growth), "rounding of an eigenvalue"),
            ">=",
            theory("noise", step**2 * mu * size**2) + theory("drift", drift),
        ),
        "stable steps": compare(
            within(critical, 1e-6 * critical, "bisection, rounding of an eigenvalue near 1"),
            "<=",
            theory("bound", 1 / (size * np.sqrt(mu))),
        ),
    }


# ---------------------------------------------------------------------------- generalisation
@linear.ours("derived: Massart's and Khintchine's inequalities", serves="ef")
@cases(n=[2, 9], d=[1, 40])
@full(n=[2, 4, 6, 8, 10], d=200)
@full(n=12, d=[4, 20, 200])
@space(n=Int(1, 11), d=Int(1, 200), alike=Real(0, 1))
@breaks("inputs twice as large", size=2.0)
@breaks("inputs half as large", size=0.5)
def stable_minima_rademacher(n, d, seed, alike=0.0, size=1.0):
    r"""the empirical Rademacher complexity of $\{\|\beta\|_1\le B\}$ is at most
    $B\sqrt{2\log(2d)/n}$, of $\{\|\beta\|_\infty\le B\}$ at least $Bd/\sqrt{2n}$, above $B$ where
    $d>\sqrt{2n}$ ($B=\frac1{2\eta}$ is what stability of SGD and of gradient descent guarantees of
    diagonal nets with loss 0, if $\frac1n\sum_ix_ix_i^\top=I$)."""
    x = size * signs(np.random.default_rng(seed), n, d)
    x[:, : int(alike * d)] = x[:, :1]
    one, largest = (within(c, 1e-13 * c, "rounding") for c in ir.rademacher_complexities(x))
    return {
        "1-norm": compare(one, "<=", theory("Massart", np.sqrt(2 * np.log(2 * d) / n))),
        "maximum norm": compare(largest, ">=", theory("Khintchine", d / np.sqrt(2 * n))),
    }


@panel(
    stable_minima_rademacher,
    r"What stability leaves: $\|\beta\|_1\leq B$ is simple, $\|\beta\|_\infty\leq B$ is not",
    x="samples $n$",
    y=r"complexity / $B$, $d=200$",
    log="y",
)
def _(pen, runs):
    n = np.arange(2, 13)
    pen.theory(n, np.sqrt(2 * np.log(400) / n), "1-norm, at most")
    pen.theory(n, 200 / np.sqrt(2 * n), "maximum norm, at least", k=1)
    for k, name in enumerate(("1-norm", "maximum norm")):
        pen.points(*runs.measured("n", name, where={"d": 200}), name, k=k)


@inputs.ours("derived: a vertex of the interpolators that gradient descent may keep", serves="f")
@cases(n=[1, 8], d=[9, 30])
@full(n=[1, 2, 4, 8], d=[9, 20, 60])
@space(
    n=Int(1, 8),
    d=Int(1, 40),
    part=Real(0.01, 1),
    bound=Real(1e-30, 1e30, log=True),
    uneven=Real(0, 2),
    alike=Real(0, 1),
)
@breaks("SGD with one sample a step", batch=1)
@breaks("a target outside the ball of half the radius", part=4.0)
def gradient_descent_keeps_large_risk(
    n, d, seed, part=1.0, bound=1.0, uneven=0.0, alike=0.0, batch=None
):
    r"""Whatever target $\|\beta_*\|_\infty\le\frac B2$ they come from, with $X\beta=X\beta_*$ fit
    also $\beta$ with $\|\beta-\beta_*\|^2\ge(d-n)\frac{B^2}4$, the risk where $\mathbb Exx^\top=I$,
    at which gradient descent with $\eta=\frac1{2B\lambda_1(XX^\top/n)}$ is stable (linearised
    diagonal net $\beta=u\odot u-v\odot v$, half the squared error)."""
    rng = np.random.default_rng(seed)
    x = signs(rng, n, d)
    x[:, : int(alike * d)] = x[:, :1]
    x *= np.exp(uneven * rng.uniform(-1, 1, (n, d)))
    target = part * bound / 2 * signs(rng, 1, d)[0] * rng.uniform(0, 1, d) ** 0.1
    beta = target + bound / 2 * ir.invisible_vertex(x)
    u, v = np.sqrt(np.maximum(beta, 0)), np.sqrt(np.maximum(-beta, 0))
    risk = np.sum(((beta - target) / bound) ** 2)
    kept = threshold(
        ir.rank_one_hessians(ir.diagonal_net_gradients(x, u, v)), batch or n, "without"
    )
    top = np.linalg.eigvalsh(x @ x.T / n)[-1]
    missed = np.abs(x @ (beta - target)).max() / np.abs(x).sum(axis=1).max() / bound
    return {
        "risk": compare(
            within(risk, 1e-12 * (risk + d), "rounding"), ">=", theory("risk", (d - n) / 4)
        ),
        "fit": compare(within(missed, 1e-12, "rounding"), "==", theory("fit", 0.0)),
        "step": compare(kept, ">=", theory("step", 1 / (2 * bound * top))),
    }


# ---------------------------------------------------------------------------- any rank
def exact_for_groups(family, batch_size):
    """The largest stable step of orthogonal groups, put forward as a bound for all."""
    sigma, top = ir.coherence(family), np.linalg.eigvalsh(family.mean(axis=0))[-1]
    return 2 * sigma / top / (len(family) / batch_size + sigma - 1)


@bernoulli.ours("derived: sharper than the coherence condition, and implies it", serves="b")
@cases(n=6, d=3, B=[1, 3], rank=[1, 2])
@cases(n=4, d=4, B=2, rank=0)
@full(n=[3, 8], d=[2, 4], B=[1, 2], rank=[1, 3])
@full(n=4, d=4, B=2, rank=0)
@space(
    n=Int(1, 8),
    d=Int(1, 4),
    B=Int(1, "n"),
    rank=Int(0, 4),
    spread=Real(0, 3),
    zeros=Int(0, "n - 1"),
    scale=Real(1e-60, 1e60, log=True),
)
@breaks("batches twice as large", twice=True)
@breaks("a stronger form", weak=exact_for_groups, n=2, d=1, B=1, spread=0.35, rank=-1)
def instability_condition_coherence(
    n, d, B, rank, seed, spread=0.3, scale=1.0, zeros=0, twice=False, weak=ir.coherence_bound
):
    r"""unstable in mean square if $\eta\lambda_1(H)>2$ or
    $\eta\max_i\lambda_1(H_i)\sqrt{\frac nB-1}>n$; hence if
    $\lambda_1(H)>\frac\sigma\eta(\frac nB-1)^{-1/2}$, $\sigma=\lambda_1(S)/\max_i
    \lambda_1(H_i)$, $S_{ij}=\sqrt{\mathrm{tr}(H_iH_j)}$."""
    family = random_hessians(n, d, max(rank, 1), spread, scale, seed, zeros)
    if rank == 0:
        family = scale * ir.rank_one_hessians(np.eye(d)[np.arange(n) % d])
    if rank == -1:
        family = scale * np.array([[[1.0]], [[0.5]]])
    one = threshold(family, min(n, 2 * B) if twice else B, "bernoulli")
    sharp = ir.curvature_bound(family, batch_size=B)
    return {
        "sharp": compare(one, "<=", theory("sharp", sharp)),
        "coherence": compare(one, "<=", theory("coherence", weak(family, batch_size=B))),
    }


@bernoulli.ours("derived: the groups that show near optimality", serves="ab")
@cases(groups=[1, 3], size=[1, 2], B=1)
@full(groups=[1, 2, 4], size=3, B=[1, 2, 3])
@full(groups=3, size=[1, 2, 3, 4, 6, 8], B=[1, 3])
@space(
    groups=Int(1, 6), size=Int(1, 6), B=Int(1, "groups * size"), scale=Real(1e-60, 1e60, log=True)
)
@breaks("one sample twice as steep", steep=2.0)
@breaks("groups that overlap", overlap=0.5)
def optimality_construction(groups, size, B, scale=1.0, steep=1.0, overlap=0.0):
    r"""for $n/\sigma$ orthogonal groups of $\sigma$ identical Hessians of rank one, all of one
    size, the coherence is $\sigma$ and the largest stable step is
    $\frac{2\sigma}{\lambda_1(H)}(\frac nB+\sigma-1)^{-1}$."""
    family = scale * ir.grouped_hessians(groups, group_size=size)
    if overlap:
        axes = np.eye(groups) + overlap * np.eye(groups)[0]
        axes /= np.linalg.norm(axes, axis=1)[:, None]
        family = scale * ir.rank_one_hessians(np.repeat(axes, size, axis=0))
    family[0] *= steep
    n, top = groups * size, np.linalg.eigvalsh(family.mean(axis=0))[-1]
    measured = ir.coherence(family)
    return {
        "threshold": compare(
            threshold(family, B, "bernoulli"),
            "==",
            2 * theory("size", size) / top / (theory("odds", n / B) + theory("size", size) - 1),
        ),
        "coherence": compare(
            within(measured, 1e-12 * n, "rounding of eigenvalues"), "==", theory("size", size)
        ),
    }


@panel(
    optimality_construction,
    r"The critical step of three groups of $\sigma$ identical samples",
    x=r"group size $\sigma$",
    y=r"critical step",
)
def _(pen, runs):
    size = np.linspace(1, 8, 50)
    for k, B in enumerate((1, 3)):
        chosen = {"groups": 3, "B": B}
        pen.theory(size, 6 * size / (3 * size / B + size - 1), f"$B={B}$", k=k)
        pen.points(*runs.measured("size", "threshold", where=chosen), k=k)


@simulation
def exact_moments(n, B, step, steps, sampling, start):
    """E |w_t|^2 for orthogonal unit Hessians, over all sequences of batches, in fractions."""
    rows, chances = batch_laws(n, B, sampling)
    step, p = Fraction(step), Fraction(B, n)
    counts = np.rint(rows * B).astype(int).tolist()
    if sampling == "bernoulli":
        law = [p ** sum(c) * (1 - p) ** (n - sum(c)) for c in counts]
    else:
        law = [Fraction(1, len(chances))] * len(counts)
    total = Fraction(0)
    for path in product(range(len(counts)), repeat=steps):
        w, weight = [Fraction(a) for a in start], Fraction(1)
        for k in path:
            weight *= law[k]
            w = [a * (1 - step * Fraction(c, B)) for a, c in zip(w, counts[k], strict=True)]
        total += weight * sum(a * a for a in w)
    return total


@simulation
def enumerated_growth(hessians, B, step, sampling):
    """The largest eigenvalue of the enumerated operator over the range of the mean Hessian, by
    squaring, and the residual."""
    values, vectors = np.linalg.eigh(hessians.mean(axis=0))
    span = vectors[:, values > 1e-9 * values[-1]]
    onto = np.kron(span, span)
    operator = onto.T @ enumerated(hessians, B, sampling)(step) @ onto
    power = operator
    for _ in range(30):
        power = power @ power
        power /= np.linalg.norm(power)
    X = power @ np.eye(span.shape[1]).ravel()
    X /= np.linalg.norm(X)
    moved = operator @ X
    return float(X @ moved), float(np.linalg.norm(moved - (X @ moved) * X))


@bernoulli.abstract("a", instance=True)
@cases(n=3, B=[1, 2], d=2, rank=1, share=[0.7, 1.3])
@full(n=[2, 3, 5], B=[1, 2], d=[1, 2], rank=[1, 2], share=[0.3, 0.99, 1.5])
@full(n=3, B=2, d=2, rank=1, share=1.3)
@space(
    n=Int(1, 4),
    B=Int(1, "n"),
    rank=Int(1, 3),
    d=Int(1, 4),
    share=Real(0.05, 2),
    spread=Real(0, 1),
    step=Real(0.1, 4),
)
@breaks("batches drawn with replacement", sampling="replacement")
def second_moment_operator_exact(
    n, B, d, rank, share, seed, spread=0.3, step=1.7, sampling="bernoulli"
):
    r"""from almost every $w_0$ in the range of $H$, $\mathbb E\|w_t\|^2$ grows in the long run by
    the largest eigenvalue of
    $X\mapsto(I-\eta H)X(I-\eta H)+\frac{\eta^2}{nB}(1-\frac Bn)\sum_iH_iXH_i$,
    on symmetric matrices over this range, and stays bounded iff it is at most 1: up to one
    $\eta_c$.
    For $n$ orthogonal unit Hessians of rank one
    $\mathbb E\|w_t\|^2=(1-\frac{2\eta}n+\frac{\eta^2}{nB})^t\|w_0\|^2$."""
    family = random_hessians(n, d, rank, spread, 1.0, seed)
    limit = ir.stability_threshold(family, batch_size=B, sampling="bernoulli").step_size
    operator = ir.second_moment_operator(
        family, step_size=share * limit, batch_size=B, sampling="bernoulli"
    )
    growth, residual = enumerated_growth(family, B, share * limit, sampling)
    found = enumerated_threshold(family, B, sampling)
    eta, steps, start = Fraction(step).limit_denominator(20), 2 if n > 2 else 3, range(1, n + 1)
    linear, square = theory("linear", 2 * eta / n), theory("square", eta**2 / (n * B))
    return {
        "growth": compare(
            within(growth, residual + 1e-12 * (1 + growth), "residual of an eigenvector"),
            "==",
            theory("eigenvalue", operator.growth),
        ),
        "threshold": compare(
            within(found, 1e-6 * found, "bisection, rounding of an eigenvalue near 1"),
            "==",
            theory("threshold", limit),
        ),
        "orthogonal": compare(
            exact_moments(n, B, eta, steps, sampling, tuple(start)),
            "==",
            (1 - linear + square) ** steps * sum(a * a for a in start),
        ),
    }


@panel(
    second_moment_operator_exact,
    "Second moments grow by the largest eigenvalue of the operator",
    x=r"step size / $\eta_c$",
    y="growth of a step",
)
def _(pen, runs):
    grid = np.linspace(0.02, 1.6, 60)
    family = random_hessians(3, 2, 1, 0.3, 1.0, runs.judgement.seed)
    for k, B in enumerate((1, 2)):
        limit = ir.stability_threshold(family, batch_size=B, sampling="bernoulli").step_size
        how = {"batch_size": B, "sampling": "bernoulli"}
        growth = [
            ir.second_moment_operator(family, step_size=a * limit, **how).growth for a in grid
        ]
        pen.theory(grid, growth, f"$B={B}$", k=k)
        chosen = {"n": 3, "B": B, "d": 2, "rank": 1}
        pen.points(*runs.measured("share", "growth", where=chosen), k=k)
    drawn = runs.measured("share", "growth", control="batches drawn with replacement")
    pen.broken(*drawn, "with replacement")


# ---------------------------------------------------------------------------- cross-entropy
@simulation
def softmax_hessian(x, p):
    """The Hessian of the cross-entropy of one sample at the weights that predict its labels p, and
    the gradient there, by complex steps of the gradient."""
    W = np.outer(x, np.log(p)) / (x @ x) + 0j

    def gradient(V):
        z = np.exp(x @ V)
        return np.outer(x, z / z.sum() - p).ravel()

    columns = []
    for k in range(W.size):
        nudge = np.zeros(W.size, dtype=complex)
        nudge[k] = 1e-30j
        columns.append(gradient(W + nudge.reshape(W.shape)).imag / 1e-30)
    return np.array(columns), np.abs(gradient(W))


@bernoulli.ours("derived: cross-entropy, where the bound on the trace fails", serves="c")
@cases(K=[4, 3], n=[1, 3], B=1)
@full(K=[3, 5], n=[1, 2, 5], B=1)
@full(K=[4, 3], n=3, B=2)
@space(K=Int(3, 6), n=Int(1, 5), B=Int(1, "n"), d=Int(1, 2), scale=Real(1e-3, 1e3, log=True))
@breaks("two classes", K=2)
@breaks("samples that differ", alike=False)
def cross_entropy_rank_beyond_one(K, n, B, seed, d=2, scale=1.0, alike=True):
    r"""for $K$-class cross-entropy with soft labels $p_i>0$ that a linear softmax model fits
    exactly, each gradient is 0 and $H_i=x_ix_i^\top\otimes(\mathrm{diag}\,p_i-p_ip_i^\top)$, of
    rank $K-1$. For $n$ identical samples with uniform labels the largest stable step has
    $\frac{\eta_c}2\mathrm{tr}H=\frac{(K-1)n}{n/B+n-1}$, above 1 for $K\ge3$: beyond rank one the
    trace may exceed $2/\eta$."""
    rng = np.random.default_rng(seed)
    x = (
        scale * rng.standard_normal((n, d))
        if not alike
        else np.tile(scale * rng.standard_normal(d), (n, 1))
    )
    soft = rng.dirichlet(np.ones(K)) * 0.9 + 0.1 / K
    family = ir.softmax_hessians(x, np.full((n, K), 1 / K))
    H, gradient = softmax_hessian(x[0], soft)
    unit = float(x[0] @ x[0])
    expected = ir.softmax_hessians(x[:1], soft[None])[0] / unit
    one = threshold(family, B, "bernoulli")
    half = np.trace(family.mean(axis=0)) / 2
    ratio = within(one.centre * half, (one.error + 1e-13 * one.centre) * half, "rounding")
    return {
        "gradient": compare(
            within(gradient / np.sqrt(unit), 1e-12, "rounding"), "==", theory("gradient", 0)
        ),
        "Hessian": compare(
            within(H / unit, 1e-12, "rounding of a complex step"), "==", theory("Hessian", expected)
        ),
        "rank": compare(
            int(np.linalg.matrix_rank(H / unit, tol=1e-9)), "==", theory("rank", K - 1)
        ),
        "trace": compare(ratio, "==", theory("rank", K - 1) * n / (theory("odds", n / B) + n - 1)),
        "beyond rank one": compare(ratio, ">", theory("rank one", 1.0)),
    }


if __name__ == "__main__":
    run_script(__file__)
