"""Interpolators of noisy sparse regression: least norms, and a network that is beyond norms."""

from dataclasses import replace

import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
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

KEY = "zhou2023-implicit"
regression = paper(
    KEY,
    r"$y=X\beta^*+\xi$, $X\in\mathbb R^{n\times d}$ with entries $N(0,1)$, "
    r"$\xi\sim N(0,\sigma^2I)$:",
)
network = paper(
    KEY,
    r"$\beta=w\odot w-u\odot u+\lambda v$, $\lambda>0$, gradient flow of "
    r"$\frac1{2n}\|X\beta-y\|^2$ "
    r"from $w=u=\alpha\mathbf1$, $v=0$, $X\in\mathbb R^{n\times d}$ of rank $n<d$:",
)


def white(d):
    return np.ones(d)


def decaying(d):
    """Standard deviations of the inputs, with a mean square of 1."""
    scales = 1 / np.sqrt(np.arange(1, d + 1))
    return scales / np.sqrt(np.mean(scales**2))


@simulation
def l2_errors(n, d, norm, sigma, inputs, reps, seed):
    """Squared errors of the interpolator of least l2 norm, by the normal equations of the rows."""
    rng = np.random.default_rng([seed, n, d])
    found = []
    for _ in range(reps // 500):
        X = rng.standard_normal((500, n, d)) * inputs(d)
        signal = rng.standard_normal((500, d))
        signal *= norm / np.linalg.norm(signal, axis=1, keepdims=True)
        y = np.einsum("rnd,rd->rn", X, signal) + sigma * rng.standard_normal((500, n))
        dual = np.linalg.solve(X @ X.transpose(0, 2, 1), y[..., None])[..., 0]
        found.append(np.sum((np.einsum("rnd,rn->rd", X, dual) - signal) ** 2, axis=1))
    return np.concatenate(found)


@regression.ours("known, recalled: the benchmark of the abstract, exactly", serves="a")
@cases(n=6, d=[18, 24], norm=1.0, sigma=0.5)
@full(n=8, d=[20, 24, 32, 48, 80], norm=1.0, sigma=0.5, reps=10_000)
@space(n=Int(1, 6), d=Int("n + 10", 24), norm=Real(0.0, 2.0), sigma=Real(0.2, 1.0))
@breaks("inputs of decaying variance", inputs=decaying)
def min_l2_interpolator_exact_risk(n, d, norm, sigma, seed, inputs=white, reps=3000):
    r"""the interpolator of least $\ell_2$ norm has $\mathbb E\|\hat\beta-\beta^*\|^2=
    \|\beta^*\|^2(1-\frac nd)+\frac{\sigma^2n}{d-n-1}$ for $d>n+1$: it loses nearly all of the
    signal where $d\gg n$."""
    errors = l2_errors(n, d, norm, sigma, inputs, reps, seed)
    risk = ir.min_l2_risk(n, d, signal_norm=norm, noise_scale=sigma)
    return compare(mean(errors), "==", theory("risk", risk))


@panel(
    min_l2_interpolator_exact_risk,
    r"The risk of least $\ell_2$ norm ($n=8$, $\sigma=0.5$)",
    x="coordinates $d$",
    y="mean squared error",
    log="x",
)
def _(pen, runs):
    d = np.arange(18, 90)
    risk = [ir.min_l2_risk(8, int(k), signal_norm=1.0, noise_scale=0.5) for k in d]
    pen.theory(d, risk, "formula")
    pen.points(*runs.measured("d"), "simulated")
    pen.broken(*runs.measured("d", control="inputs of decaying variance"), "decaying inputs")


@simulation
def least_norm_errors(n, d, k, norm, p, reps, seed):
    """Squared errors of interpolators of least norm over the mean square of their noise; NaN where
    a linear program is not solved to rounding."""
    found = []
    for r in range(reps):
        problem = ir.sparse_regression(
            n, d, sparsity=k, signal_norm=norm, noise_scale=1.0, seed=1000 * seed + r
        )
        fit = ir.min_norm_interpolator(problem.X, problem.y, p=p)
        good = fit.status is ir.InterpolatorStatus.OPTIMAL
        error = np.sum((fit.predictor - problem.signal) ** 2) / np.mean(problem.noise**2)
        found.append(error if good else np.nan)
    return np.array(found)


@regression.ours("derived: a constant for the abstract's lower bound", serves="a")
@cases(n=8, d=60, k=0)
@full(n=10, d=300, k=2, norm=2.0, reps=80)
@full(n=10, d=[40, 100, 300, 1000], k=0, reps=80)
@space(
    n=Int(1, 8), d=Int("max(4 * n, 16)", 50), k=Int(0, "max(0, min(2, n - 6))"), norm=Real(0.0, 1.5)
)
@breaks("least l2 norm: not sparse", p=2, d=1000)
def l1_interpolator_lower_bound_order(n, d, k, seed, norm=1.0, p=1, reps=40):
    r"""with $k$-sparse $\beta^*$ every interpolator with at most $n$ entries other than 0, such as
    that of least $\ell_1$ norm, has $\mathbb E\frac{\|\hat\beta-\beta^*\|^2}{\|\xi\|^2/n}\ge
    \frac n{1+(\sqrt n+\sqrt Q)^2}$, $Q$ the mean sum of the $n+k$ largest of $d$ squared normals,
    and hence $\mathbb E\|\hat\beta-\beta^*\|^2\ge\sigma^2$ times it: for $k\le n$ at least of
    order $\sigma^2/\log\frac dn$. Judged for the first mean of the least $\ell_1$ norm."""
    errors = least_norm_errors(n, d, k, norm, p, reps, seed)
    bound = ir.sparse_interpolator_bound(n, d, sparsity=k, noise_scale=1.0)
    return compare(mean(errors), ">=", theory("bound", bound))


@panel(
    l1_interpolator_lower_bound_order,
    r"Sparse interpolators pay $1/\log(d/n)$ for noise ($n=10$)",
    x="coordinates $d$",
    y="squared error over noise",
    log="xy",
)
def _(pen, runs):
    d = np.unique(np.geomspace(20, 1200, 60).astype(int))
    bound = [ir.sparse_interpolator_bound(10, int(m), sparsity=0, noise_scale=1.0) for m in d]
    pen.theory(d, bound, "bound")
    pen.points(*runs.measured("d", where={"k": 0}), r"least $\ell_1$ norm")
    pen.broken(*runs.measured("d", control="least l2 norm: not sparse"), r"least $\ell_2$ norm")


@simulation
def paired_errors(n, d, k, norm, sigma, weight, reps, seed):
    """Squared errors of three interpolators of the same problems: mixed, least l1 norm, least l2
    norm, shape (reps, 3)."""
    linear = np.sqrt(weight) * ir.universal_linear(n, d, noise_scale=sigma, scale=1e-8)
    found = []
    for r in range(reps):
        problem = ir.sparse_regression(
            n, d, sparsity=k, signal_norm=norm, noise_scale=sigma, seed=1000 * seed + r
        )
        X, y = problem.X, problem.y
        fits = [
            ir.mirror_interpolator(X, y, scale=1e-8, linear=linear),
            *(ir.min_norm_interpolator(X, y, p=p) for p in (1, 2)),
        ]
        found.append([np.sum((fit.predictor - problem.signal) ** 2) for fit in fits])
    return np.array(found)


def geometric_mean(samples):
    """Enclose exp of the mean logarithm."""
    logs = mean(np.log(samples))
    low, high = np.exp(logs.centre - logs.error), np.exp(logs.centre + logs.error)
    return replace(logs, centre=(low + high) / 2, error=(high - low) / 2, shown=np.exp(logs.shown))


@regression.ours("derived: the abstract's comparison at finite sizes, by exact limits", serves="ab")
@cases(n=24, d=96, reps=60)
@full(n=40, d=200, k=2, sigma=0.5, weight=[0.25, 0.5, 0.75], reps=40)
@full(n=60, d=400, k=2, sigma=0.5, reps=24)
@space(n=Int(20, 22), d=Int("3 * n", "3 * n + 4"), sigma=Real(0.25, 0.4), weight=Real(0.25, 0.6))
@breaks("a large linear part", weight=100.0)
@breaks("no signal", norm=0.0)
def mixed_parameterisation_beats_l1_and_l2(
    n, d, seed, k=1, weight=0.5, norm=np.sqrt(2), sigma=0.25, reps=40
):
    r"""observed: for $k$-sparse $\beta^*$, $k\ll n$, with $\|\beta^*\|^2=2$, $\sigma\le\frac12$,
    the limit of the flow of $\beta=w\odot w-u\odot u+\lambda v$ from
    $w=u=\alpha\mathbf1=10^{-8}\mathbf1$, $v=0$ with
    $\lambda^2=2\kappa\sigma\sqrt{2n\log d}/(d\log\frac1\alpha)$, $\frac14\le\kappa\le\frac34$
    (where $\kappa=1$ acts like the lasso with its universal penalty), has a smaller squared error
    than the interpolators of least $\ell_1$ and of least $\ell_2$ norm: the geometric means of the
    quotients over problems are below 1."""
    errors = paired_errors(n, d, k, norm, sigma, weight, reps, seed)
    return {
        "l1": compare(geometric_mean(errors[:, 0] / errors[:, 1]), "<", theory("l1", 1.0)),
        "l2": compare(geometric_mean(errors[:, 0] / errors[:, 2]), "<", theory("l2", 1.0)),
    }


@panel(
    mixed_parameterisation_beats_l1_and_l2,
    r"The mixed network against least norms ($n=40$, $d=200$, $k=2$)",
    x=r"square of the linear part, $\kappa$",
    y="geometric mean of the quotient",
    log="y",
)
def _(pen, runs):
    pen.theory([0.2, 0.8], [1.0, 1.0], k=6)
    for k, name in enumerate(("l1", "l2")):
        found = runs.measured("weight", name, where={"n": 40})
        pen.points(*found, rf"$\ell_{name[1]}$", k=k)


@simulation
def mixed_flow(n, d, alpha, linear, tilt, size, seed, loose=100.0):
    """X, y, beta at the end of a flow, and the difference to one of a hundredth of the accuracy."""
    rng = np.random.default_rng([seed, n, d])
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    y = size * (y + 0.5 * np.sign(y))
    found = []
    for rtol in (1e-9, 1e-7):
        run = ir.diagonal_network_flow(
            X, y, scale=alpha, linear=linear, tilt=tilt, rtol=rtol, tol=loose * rtol
        )
        fitted = run.status is ir.DiagonalStatus.FITTED
        found.append(run.predictor if fitted else np.full(d, np.nan))
    fine, coarse = found
    return X, y, fine, np.abs(fine - coarse) + 3e-9 * loose * np.abs(fine).max()


ACCURACY = "difference to a flow of a hundredth of the accuracy"


@network.ours("derived: the potential behind the abstract's bias beyond norms", serves="bc")
@cases(n=3, d=9, alpha=0.2, linear=[0.3, 1.0])
@full(n=8, d=24, alpha=[0.1, 0.3], linear=[0.3, 1.0])
@space(
    n=Int(1, 3),
    d=Int("n + 3", 9),
    alpha=Real(0.2, 0.8, log=True),
    linear=Real(0.2, 1.5),
    size=Real(0.7, 2.0),
)
@breaks("uneven start, w = 1.5 u", tilt=np.log(1.5))
@breaks("a single interpolator, d = n", n=1, d=1)
def mixed_parameterisation_potential(n, d, alpha, linear, seed, size=1.0, tilt=0.0):
    r"""if the loss tends to 0, $\beta$ tends to the interpolator $\beta_j=2\alpha^2\sinh(4s_j)+
    \lambda^2s_j$, $s=X^\top\nu$, which minimises a separable convex potential. It is not a norm:
    for $2^{-12}y$ in place of $y$ the limit is that of least $\ell_2$ norm, up to terms of third
    order, and for $y$ it differs from that by more than $3\cdot10^{-4}$ of it."""
    X, y, limit, off = mixed_flow(n, d, alpha, linear, tilt, size, seed)
    scale, weight = theory("scale", alpha), theory("weight", linear)
    predicted = ir.mirror_interpolator(X, y, scale=scale, linear=weight).predictor
    least = ir.min_norm_interpolator(X, y, p=2).predictor
    share = np.abs(limit - least).max() / np.abs(least).max()
    small, curved = (
        t * mixed_flow(n, d, alpha, linear, tilt, size / t, seed, 1000.0)[2] for t in (4096, 2048)
    )
    rounding = 6e-6 * np.abs(least).max()
    return {
        "limit": compare(within(limit, off, ACCURACY), "==", predicted),
        "small data": compare(
            within(small, np.abs(small - curved) + rounding, "difference to twice the data"),
            "==",
            theory("least", least),
        ),
        "other": compare(
            within(share, off.max() / np.abs(least).max(), ACCURACY), ">", theory("share", 3e-4)
        ),
    }


@panel(
    mixed_parameterisation_potential,
    "The limit of the flow minimises a potential",
    x=r"predicted $\beta_j$",
    y=r"trained $\beta_j$",
)
def _(pen, runs):
    ends = np.array([-1.0, 1.0])
    pen.theory(ends, ends, k=6)
    chosen = {r.instance["linear"]: r.parts["limit"] for r in runs.judgement.runs}
    for k, (linear, part) in enumerate(chosen.items()):
        pen.points(part.predicted, part.shown, part.error, rf"$\lambda={linear:g}$", k=k)
    tilted = runs.judgement.controls[0].run.parts["limit"]
    pen.broken(tilted.predicted, tilted.shown, label="$w=1.5u$")


if __name__ == "__main__":
    run_script(__file__)
