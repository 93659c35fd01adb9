"""Mini-batch Hessians: how far their extreme eigenvalues go, and the learning rates they allow."""

import numpy as np

from theorylab import random_features as rf
from theorylab.verify import (
    Choice,
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

KEY = "granziol2022-learning"
MOST = np.array([6, 7])
REMAINDER = "s/P, beyond the corrections up to 1/P"
spiked = paper(
    KEY,
    r"Per-sample Hessians of size $P$ deviate from their mean over $N$ samples, of finite rank, by "
    r"independent Gaussian entries of variance $\sigma^2$; a batch of $b$ is drawn without "
    r"replacement, $s^2=\frac{P\sigma^2}b(1-\frac bN)$. As $P\to\infty$ (for fixed $s$)",
)
matrices = paper(KEY, r"For symmetric $H_1,\dots,H_N$ and batches of $b$ without replacement,")


@simulation
def extremes(P, spikes, sigma, batch, n_samples, draws, noise, seed):
    """Smallest and largest eigenvalues of independent batch Hessians, (draws, 2)."""
    rng = np.random.default_rng([seed, P])  # the same deviations for every batch size
    size = {"sigma": sigma, "n_parameters": P, "batch": batch, "n_samples": n_samples}
    found = (rf.sample_batch_hessian(spikes, **size, noise=noise, rng=rng) for _ in range(draws))
    return np.array([np.linalg.eigvalsh(H)[[0, -1]] for H in found])


@spiked.ours("sharpened by the factor 1 - b/N, the order of the error, and both ends", serves="a")
@cases(sizes=(150, 300), top=[0.5, 2.0], draws=40)
@full(sizes=(150, 400), top=[0.5, 1.4, 3.0, 2.0], draws=40)
@space(
    top=Choice((0.2, 0.4, 0.6, 1.4, 2.0, 4.0)),
    bottom=Choice((-0.2, -0.6, -1.5, -3.0)),
    unit=Real(1e-3, 1e3, log=True),
    batch=Int(4, 30),
    rest=Int(4, 60),
)
@breaks("independent diagonal noise", noise="diagonal")
@breaks("formula of an infinite population", finite=False)
def batch_hessian_extremal(
    top,
    seed,
    sizes=(100, 200),
    bottom=-0.6,
    unit=1.0,
    batch=10,
    rest=10,
    draws=20,
    noise="gaussian",
    finite=True,
):
    r"""the largest eigenvalue $\lambda>0$ of the mean and the smallest, $\lambda<0$, become on
    average $\lambda+s^2/\lambda$ if $|\lambda|>s$, else $\pm2s$, with an error of order $s/P$ or
    $sP^{-2/3}$ (the corrections up to $1/P$ are added, $s/P$ allowed), and the largest is on
    average at least that of all samples."""
    N, P = batch + rest, np.atleast_1d(sizes)
    ends = unit * np.sqrt(1 / batch - 1 / N) * np.array([bottom, top])
    s = unit * np.sqrt(theory("share left", 1 - batch / N if finite else 1.0) / batch)
    runs = [extremes(int(n), ends, unit / np.sqrt(n), batch, N, draws, noise, seed) for n in P]
    limits = rf.edge_location(ends, s)
    terms = np.array(
        [
            [
                rf.edge_correction(ends[i], s, n_parameters=int(n), others=ends[[1 - i]])
                for i in (0, 1)
            ]
            for n in P
        ]
    )
    found = np.stack(runs, axis=1)
    measured = [mean(found[..., i], bias=s / P, source=REMAINDER) for i in (0, 1)]
    return {
        "largest": compare(measured[1], "==", theory("largest", limits[1]) + terms[:, 1]),
        "smallest": compare(measured[0], "==", theory("smallest", limits[0]) + terms[:, 0]),
        "beyond": compare(mean(found[..., 1]), ">=", theory("all samples", ends[1])),
    }


@panel(
    batch_hessian_extremal,
    "A batch of 10 of 20 samples moves the largest eigenvalue",
    x="largest eigenvalue of all samples / $s$",
    y="largest of the batch / $s$",
)
def _(pen, runs):
    top, s = np.linspace(0.2, 3.2, 100), np.sqrt(1 / 10 - 1 / 20)
    pen.theory(top, rf.edge_location(top, 1.0), r"$2$, or $t+1/t$")
    x, y, error = runs.measured("top", "largest", -1)
    pen.points(x, y / s, error / s, "simulated")
    pen.theory(top, top, "all samples", k=1)
    x, y, error = runs.measured("top", "largest", -1, control="independent diagonal noise")
    pen.broken(x, y / s, error / s, "diagonal noise")


def rates(P, kappa, batches, n_samples, draws, noise, seed):
    """Maximal learning rates of independent batches, (draws, batches), if the largest eigenvalue
    over all samples is 1."""
    sigma = np.sqrt(kappa / P)
    runs = [extremes(P, (1.0,), sigma, b, n_samples, draws, noise, seed) for b in batches]
    return 2 / np.stack([run[:, 1] for run in runs], axis=1)


def finite_size(P, kappa, batches, n_samples):
    """Ratio of the maximal learning rate at size P to its limit, and the relative error of it; the
    relative variance, less than 1/(2P), bounds how the mean of a reciprocal differs."""
    noise = {"sigma": np.sqrt(kappa), "n_parameters": 1, "n_samples": n_samples}
    s = np.array([rf.batch_noise(**noise, batch=b) for b in batches])
    limit = rf.edge_location(1.0, s)
    term = rf.edge_correction(1.0, s, n_parameters=P)
    return limit / (limit + term), s / P / limit + 1 / (2 * P)


@spiked.ours("derived from the limit of the largest eigenvalue", serves="cd")
@cases(unit=8, low=1, high=2, sizes=(100, 160), draws=50)
@full(unit=8, low=2, high=3, sizes=(160, 300), draws=40)
@full(unit=8, low=1, high=2, sizes=(160, 300), draws=40)
@space(unit=Int(2, 20), low=Choice((1, 2)), high=Choice((2, 3, 5)))
@breaks("independent diagonal noise", noise="diagonal", sizes=(80, 100))
@breaks(r"four times as many samples", population=4, draws=15)
def learning_rate_scaling(
    unit, seed, sizes=(80, 160), low=1, high=2, draws=12, noise="gaussian", population=1
):
    r"""the maximal learning rate $\eta=2/\lambda_{\max}$ of a batch is on average, where the
    largest eigenvalue over all samples is 1 and $\kappa=P\sigma^2$: $\sqrt{b/\kappa}$ for
    $N=\infty$, $b\le\kappa$ (doubling $b$ multiplies it by $\sqrt2$); $\frac{2b}{b+\kappa}$ for
    $N=\infty$, $b>\kappa$ (by less than $\sqrt2$); $\frac{2b}\kappa$, linear in $b$, for
    $N=\kappa$, $b\ge N/2$ (errors as for $\lambda_{\max}$)."""
    kappa = 8 * unit
    few, many = np.array([low, 2 * low]) * unit, np.array([high, 2 * high]) * kappa
    most = MOST * unit
    groups = {
        "square root": (few, None, theory("root", np.sqrt(1 / kappa)) * np.sqrt(few)),
        "saturating": (many, None, theory("limit", 2.0) * many / (many + kappa)),
        "linear": (most, kappa, theory("per sample", 2 / kappa) * most),
    }
    parts, doubled = {}, {}
    for name, (batches, n, limit) in groups.items():
        batches = batches.tolist()
        ratio, room = np.transpose([finite_size(P, kappa, batches, n) for P in sizes], (1, 0, 2))
        actual = n and n * population
        found = np.stack(
            [rates(P, kappa, batches, actual, draws, noise, seed) for P in sizes], axis=1
        )
        measured = mean(found, bias=room * found.mean(axis=0), source=REMAINDER)
        parts[name] = compare(measured, "==", limit * ratio)
        factor = found[..., 1] / found[..., 0]
        doubled[name] = mean(factor, bias=room.max(axis=1) * factor.mean(axis=0), source=REMAINDER)
    factor = theory("factor", np.sqrt(2))
    return {
        **parts,
        "doubled below": compare(doubled["square root"], "==", factor),
        "doubled beyond": compare(doubled["saturating"], "<=", factor),
    }


@panel(
    learning_rate_scaling,
    r"The learning rate: $\sqrt{b}$, then saturating; linear if $N=\kappa$",
    x=r"batch size $b/\kappa$",
    y=r"$2/\lambda_{\max}$",
    log="xy",
)
def _(pen, runs):
    b = np.geomspace(0.1, 5, 100)
    pen.theory(b, np.where(b < 1, np.sqrt(b), 2 * b / (b + 1)), r"$N=\infty$")
    linear = np.linspace(0.5, 1, 9)
    pen.theory(linear, 2 * linear, r"$N=\kappa$", k=1)
    for run in runs.judgement.runs:
        low, high = (np.array([1, 2]) * run.instance[name] for name in ("low", "high"))
        for name, x in (("square root", low / 8), ("saturating", high), ("linear", MOST / 8)):
            part = run.parts[name]
            pen.points(x, part.shown[-1], part.error[-1], k=int(name == "linear"))


@simulation
def enumerated(N, P, kind, statistic, seed):
    """Means over all batches of each size, (2, N), of the largest and smallest eigenvalues."""
    rng = np.random.default_rng(seed)
    G = rng.standard_normal((N, P, 1 + P // 2))
    if kind == "gauss-newton":
        H = G @ G.swapaxes(1, 2)
    else:
        H = G @ (rng.choice([-1.0, 1.0], (N, 1, G.shape[2])) * G).swapaxes(1, 2)
    return np.array(statistic(H))


def of_growing_batches(H):
    """One batch of each size, the flattest samples first."""
    sizes = np.arange(1, len(H) + 1)[:, None, None]
    order = np.argsort(np.linalg.eigvalsh(H)[:, -1])
    values = np.linalg.eigvalsh(np.cumsum(H[order], axis=0) / sizes)
    return values[:, -1], values[:, 0]


@matrices.ours("an elementary proof by convexity, for every model", serves="ab")
@cases(N=7, P=5, kind=["hessian", "gauss-newton"])
@full(N=9, P=6, kind=["hessian", "gauss-newton"])
@space(N=Int(2, 8), P=Int(1, 7), kind=Choice(("hessian", "gauss-newton")))
@breaks("one growing batch of each size", statistic=of_growing_batches)
def minibatch_extremes_by_convexity(N, P, kind, seed, statistic=rf.batch_extremes):
    r"""the means over all batches, of $\lambda_{\max}$ never increases and that of $\lambda_{\min}$
    never decreases in $b$: on average both are at least as extreme as those of all samples, of the
    Hessian (here with random signs) and of the Gauss-Newton matrix ($H_i\succeq0$)."""
    largest, smallest = enumerated(N, P, kind, statistic, seed)
    error = 1e-13 * np.abs(largest).max()
    return {
        "largest": compare(
            within(largest[:-1], error, "rounding"), ">=", theory("larger batch", largest[1:])
        ),
        "smallest": compare(
            within(smallest[:-1], error, "rounding"), "<=", theory("larger batch", smallest[1:])
        ),
    }


@panel(
    minibatch_extremes_by_convexity,
    "Smaller batches have more extreme eigenvalues on average",
    x="batch size $b$",
    y="mean over all batches",
)
def _(pen, runs):
    for k, run in enumerate(runs.judgement.runs):
        b = np.arange(1, run.instance["N"] + 1)
        for name, word in (("largest", "max"), ("smallest", "min")):
            part = run.parts[name]
            values = np.append(part.centre, part.predicted[-1])
            pen.points(b, values, label=rf"$\lambda_{{\{word}}}$, {run.instance['kind']}", k=k)
            pen.theory(b, np.full(len(b), values[-1]), k=k)


if __name__ == "__main__":
    run_script(__file__)
