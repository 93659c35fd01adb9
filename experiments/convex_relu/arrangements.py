"""Sampling the arrangement: one more pattern rarely helps."""

from functools import cache

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import Evidence, Int, Real, Runs, all_of, claim, sample_mean
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS


def directions(rng, count, sector):
    """Directions uniform in a sector of the plane."""
    angles = rng.uniform(0, sector, size=count)
    return np.column_stack([np.cos(angles), np.sin(angles)])


@cache
def improvements(n, n_samples, ratio, n_draws, seed, sector):
    """Over fresh samples of patterns: exact probability that one more helps, true and certified suboptimality."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, 2)), rng.normal(size=n)
    beta = ratio * cr.zero_threshold(X, y)
    best = cr.train(X, y, beta).dual_objective
    rows = []
    for _ in range(n_draws):
        patterns = np.unique(directions(rng, n_samples, sector) @ X.T >= 0, axis=0)
        result = cr.train(X, y, beta, arrangements=patterns)
        v = cr.improvement_probability(X, result.certificate.dual, beta, law="patterns")
        rows.append((v, result.objective / best - 1, result.global_gap))
    return np.array(rows).T


@claim(
    r"Draw $N$ patterns $D_i=\mathrm{diag}(1[Xu_i\ge0])$, $u_i\sim N(0,I)$ independent, and minimise "
    r"$\frac12\|\sum_iD_iX(v_i-w_i)-y\|^2+\beta\sum_i(\|v_i\|+\|w_i\|)$ over $(2D_i-I)Xv_i\ge0$, $(2D_i-I)Xw_i\ge0$. Let $V$ be "
    r"the probability, given the sample, that one further independent pattern strictly lowers the value. With $n$ data points, "
    r"$\mathbb E\,V\le\frac n{N+1}$ and $\Pr[V>\psi]\le\sum_{i<n}\binom Ni\psi^i(1-\psi)^{N-i}$ for every $\psi\in(0,1)$; so "
    r"$\Pr[V\le\psi]\ge1-\xi$ once $N\ge\min\{\frac{n+1}{\psi\xi}-1,\frac2\psi(n+1-\log\xi)\}$.",
    sources=[
        "bai2022-efficient, theorem on practical (sampled) training, Section 2 (text not consulted)"
    ],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"n": 4, "n_samples": 12}, {"n": 8, "n_samples": 40}, {"n": 8, "n_samples": 160}],
        "full": [
            {"n": n, "n_samples": N, "n_draws": 80}
            for n in (4, 8)
            for N in (10, 16, 32, 64, 128, 256)
        ],
    },
    space={"n": Int(3, 8), "n_samples": Int(16, 128), "ratio": Real(0.02, 0.5)},
    breaks={"directions from one quadrant only": {"sector": np.pi / 2}},
)
def sampled_patterns_improvement_bound(
    n, n_samples, seed, ratio=0.1, n_draws=25, sector=2 * np.pi
) -> Evidence:
    v, _, _ = improvements(n, n_samples, ratio, n_draws, seed, sector)
    level = min(0.9, 2 * n / n_samples)
    tail = cr.improvement_tail_bound(n, n_samples, level)
    return all_of(
        sample_mean(v, n / (n_samples + 1), relation="upper"),
        sample_mean((v > level).astype(float), tail, relation="upper"),
    )


@sampled_patterns_improvement_bound.panel
def _(ax, runs: Runs) -> None:
    n, counts = 8, np.array([8, 16, 32, 64, 128, 256])
    samples = [improvements(n, int(N), 0.1, 60, 0, 2 * np.pi)[0] for N in counts]
    broken = [improvements(n, int(N), 0.1, 60, 0, np.pi / 2)[0] for N in counts]
    N = np.geomspace(8, 256, 100)
    ax.plot(N, np.minimum((n + 1) / (N + 1), 1), "--", color=COLOURS[0])
    ax.plot(N, np.minimum(n / (N + 1), 1), color=COLOURS[0])
    floor = 2e-4
    mean, error = np.mean(samples, axis=1), 2 * np.std(samples, axis=1) / np.sqrt(60)
    ax.errorbar(counts, np.maximum(mean, floor), yerr=error, fmt="o", color=COLOURS[1])
    ax.plot(counts, np.mean(broken, axis=1), "s", color=BROKEN)
    ax.annotate(
        "one quadrant only",
        (counts[-1], np.mean(broken[-1])),
        xytext=(0, -14),
        textcoords="offset points",
        ha="right",
        color="#666666",
    )
    ax.annotate(
        r"$n/(N+1)$", (60, 8 / 61), xytext=(4, 4), textcoords="offset points", color=COLOURS[0]
    )
    ax.annotate(
        "mean of V",
        (counts[2], mean[2]),
        xytext=(-6, -12),
        textcoords="offset points",
        ha="right",
        color=COLOURS[1],
    )
    ax.annotate(
        "none of 60",
        (counts[-1], floor),
        xytext=(-8, 6),
        textcoords="offset points",
        ha="right",
        color=COLOURS[1],
    )
    ax.set(
        xscale="log",
        yscale="log",
        ylim=(floor / 1.5, 1.3),
        xlabel="sampled patterns N",
        ylabel="probability that one more helps",
        title="One more pattern rarely helps,\nfar more rarely than the bound says",
    )


@sampled_patterns_improvement_bound.panel
def _(ax, runs: Runs) -> None:
    counts = np.array([8, 16, 32, 64, 128, 256])
    samples = [improvements(8, int(N), 0.1, 60, 0, 2 * np.pi) for N in counts]
    for row, name, colour, shift in ((1, "true", COLOURS[1], -16), (2, "certified", COLOURS[0], 6)):
        values = np.maximum([s[row] for s in samples], 1e-10)
        ax.plot(counts, np.quantile(values, 0.9, axis=1), "o-", color=colour)
        ax.plot(counts, np.median(values, axis=1), "o:", color=colour)
        ax.annotate(
            name,
            (counts[1], np.quantile(values[1], 0.9)),
            xytext=(4, shift),
            textcoords="offset points",
            color=colour,
        )
    ax.plot([], [], "k-", label="9 of 10 samples are below")
    ax.plot([], [], "k:", label="half of them are below")
    ax.legend(loc="lower left")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="sampled patterns N",
        ylabel="relative suboptimality",
        title="The certified gap says what the\nprobability does not: how far from the optimum",
    )


if __name__ == "__main__":
    run_script(__file__)
