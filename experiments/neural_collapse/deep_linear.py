"""Deep linear heads on free features: jumps, and logits of low rank."""

from fractions import Fraction
from functools import cache

import numpy as np
import sympy as sp
from flint import arb
from scipy.optimize import minimize

from theorylab import neural_collapse as nc
from theorylab.verify import (
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    claim,
    equal,
    exact,
    gap,
    threshold,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

STOP = "stopping rule of L-BFGS (objective still to 1e-16 relative) and rounding"
MODEL = (
    r"$M$ linear layers on free features, balanced cross-entropy with $K$ classes, squared Frobenius penalties on all $L=M+1$ "
    r"factors, "
    r"widths $\ge K$. "
)
FIRST = " Cf. Garrod and Keating, arXiv 2410.23169, who first showed it for deep models."


@cache
def search(counts, dimension, lams, loss="mse", bias=False, lam_b=0.0, n_starts=20, seed=0):
    return nc.search_deep_linear(
        counts, dimension, lams, loss=loss, bias=bias, lam_b=lam_b, n_starts=n_starts, seed=seed
    )


@cache
def attempt(counts, dimension, lams, seed, n_starts=64):
    """Search until an end is certified as a global minimum: the proof of the bound leaves a relative slack of 1e-10."""
    target = nc.von_neumann_bound(counts, dimension, lams) * (1 + 3e-10)
    return nc.search_deep_linear(
        counts, dimension, lams, n_starts=n_starts, target=target, seed=seed
    )


def lams_at(tau, counts, place, n_layers):
    """Equal weight decays at which N^(M+1) Lambda / n_k^M = tau."""
    lam = (tau * counts[place] ** n_layers) ** (1 / (n_layers + 1)) / sum(counts)
    return (float(lam),) * (n_layers + 1)


@claim(
    r"$M$ linear layers on free features, $L=M+1$ factors, $\Lambda=\lambda_H\prod_m\lambda_{W_m}$, squared loss "
    r"$\frac1{2N}\|W_M\cdots W_1H-Y\|_F^2$, no bias, widths $\ge K$: class $k$ is fitted by the minimizer $p_k$ of "
    r"$\frac{(\sqrt{n_k}-p)^2}{2N}+\frac L2\Lambda^{1/L}p^{2/L}$ over $p\ge0$, "
    r"$\|w_k\|^2=\frac{\Lambda^{1/L}}{\lambda_{W_M}}p_k^{2/L}$. With $\tau=N^{M+1}\Lambda/n_k^M$, $q=p_k/\sqrt{n_k}$ is the "
    r"largest root of $(1-q)^{M+1}q^{M-1}=\tau$ if $\tau<(M-1)^{M-1}/M^{2M}$, and 0 beyond; for $M\ge2$ it jumps from $1-1/M$ "
    r"to 0.",
    sources=[
        "dang2023-neural, deep squared-loss theorem (locator recalled, text not consulted; threshold derived)"
    ],
    origin="derived",
    kind="threshold",
    cases={
        "quick": [{"counts": (4, 2), "n_layers": 2, "place": 1, "tol": 4e-2}],
        "full": [
            {"counts": (9, 4, 1), "n_layers": M, "place": k, "tol": 5e-3}
            for M in (1, 3, 2)
            for k in (0, 2, 1)
        ],
    },
    space={"counts": Real(1, 10, size=2), "n_layers": Int(1, 3), "place": Int(0, 1)},
    breaks={
        "one dimension short": lambda case: {
            "dimension": len(case["counts"]) - 1,
            "place": len(case["counts"]) - 1,
        }
    },
    shifts={"largest root without testing the threshold": {"metastable": True}},
)
def mse_deep_lengths_and_jump_threshold(
    counts, n_layers, place, seed, dimension=None, metastable=False, tol=2e-2
) -> Evidence:
    counts = tuple(int(v) for v in counts)
    n, N, M, L = np.array(counts, float), sum(counts), n_layers, n_layers + 1
    d = len(counts) if dimension is None else dimension
    critical = nc.jump_threshold(M)

    def predicted(tau):
        every = tau * (counts[place] / n) ** M
        p = (
            np.nan_to_num(nc.stationary_ratio(every, M))
            if metastable
            else nc.collapse_ratio(every, M)
        ) * np.sqrt(n)
        lam = lams_at(tau, counts, place, M)[0]
        return p, float(
            np.sum((np.sqrt(n) - p) ** 2) / (2 * N) + L / 2 * lam * np.sum(p ** (2 / L))
        )

    def found(tau):
        return attempt(counts, d, lams_at(tau, counts, place, M), seed)

    def ratio(tau):
        end = found(tau)
        start = sum(counts[:place])
        return float(
            np.linalg.multi_dot([*end.layers, end.features])[
                place, start : start + counts[place]
            ].mean()
        )

    parts = []
    levels = np.array([0.3, 0.97, 1.03]) * critical
    for tau in levels:
        p, value = predicted(tau)
        end = found(tau)
        parts += [
            equal(end.objective, value, error=1e-9 * value, source=STOP),
            equal(
                np.sum(end.layers[0] ** 2, axis=1),
                p ** (2 / L),
                error=1e-4,
                scale=1.0,
                source="root of the stopping rule",
            ),
            gap(value, nc.von_neumann_bound(counts, d, lams_at(tau, counts, place, M)), tol=1e-9),
        ]
    alive = threshold(
        lambda tau: ratio(tau) > 1e-5, critical, bracket=(0.87 * critical, 1.1 * critical), tol=tol
    )
    ends = np.array([ratio(tau) for tau in levels])
    return all_of(*parts, alive).with_data(M=M, tau=levels, ratio=ends, seed=seed)


@mse_deep_lengths_and_jump_threshold.panel
def _(ax, runs: Runs) -> None:
    for M, colour in zip((1, 2, 3), COLOURS, strict=False):
        tau = np.linspace(0, 1, 2001) * nc.spinodal(M)
        low = tau < nc.jump_threshold(M)
        root = nc.stationary_ratio(tau, M)
        ax.plot(tau[low] / nc.jump_threshold(M), root[low], color=colour)
        ax.plot(tau[~low] / nc.jump_threshold(M), root[~low], "--", color=colour, lw=1)
        ax.annotate(
            f"$M={M}$",
            (0.6, np.interp(0.6 * nc.jump_threshold(M), tau, root)),
            xytext=(0, 4),
            textcoords="offset points",
            color=colour,
        )
        for run in (r for r in runs if r.data["M"] == M):
            ax.plot(run.data["tau"] / nc.jump_threshold(M), run.data["ratio"], "o", color=colour)
    ax.plot([1, 1.6], [0, 0], color="black")
    ax.set(
        title="With two layers or more a class dies by a jump",
        xlabel=r"$N^{M+1}\Lambda/n_k^M$ over its threshold (dashed: local minimum)",
        ylabel=r"$p_k/\sqrt{n_k}$",
        xlim=(0, 1.6),
    )


@cache
def surviving(points, seed):
    """Rank of the best logits found for two classes of sizes 2 r and 2 and two layers, over imbalance and weight decay."""
    ratio = np.unique(np.round(np.geomspace(1, 12, points)).astype(int))
    level = np.geomspace(3e-4, 0.2, 2 * points)
    rank = np.empty((level.size, ratio.size))
    for j, r in enumerate(ratio):
        counts = (2 * int(r), 2)
        for i, v in enumerate(level):
            lams = lams_at(float(v), counts, 0, 2)
            end = attempt(counts, 2, lams, seed)
            values = np.linalg.svd(
                np.linalg.multi_dot([*end.layers, end.features]), compute_uv=False
            )
            rank[i, j] = np.sum(values > 1e-3)
    return ratio, level, rank


@mse_deep_lengths_and_jump_threshold.panel
def _(ax, runs: Runs) -> None:
    ratio, level, rank = surviving(9 if len(runs) > 2 else 4, runs[0].data["seed"])
    mesh = ax.pcolormesh(ratio, level, rank, shading="nearest", cmap="viridis", vmin=0, vmax=2)
    ax.figure.colorbar(mesh, ax=ax, ticks=[0, 1, 2], label="classes that survive")
    grid = np.geomspace(1, 12, 50)
    for power, label in ((0, "majority dies"), (2, "minority dies")):
        line = nc.jump_threshold(2) / grid**power
        ax.plot(grid, line, color="white")
        ax.annotate(label, (3, line[22]), xytext=(4, 4), textcoords="offset points", color="white")
    ax.set(
        xscale="log",
        yscale="log",
        title="Two layers: which of two classes survives",
        xlabel="$n_A/n_B$ (log)",
    )
    ax.set(xlim=(1, 12), ylim=level[[0, -1]], ylabel=r"$N^3\Lambda/n_A^2$ (log)")


def witnesses(K):
    """Logits that may beat the simplex: pairs; for odd K pairs and a triple, a polygon, pairs and one opposed class."""
    if K % 2 == 0:
        return [nc.simplex_sum_logits([2] * (K // 2))]
    return [
        nc.simplex_sum_logits([2] * (K // 2 - 1) + [3]),
        nc.polygon_logits(K),
        nc.pairs_and_one_logits(K),
    ]


@cache
def best_witness(K, n_per_class, lams):
    """The best scale of the best witness."""
    return min(
        (nc.best_scale(shape, (n_per_class,) * K, lams) for shape in witnesses(K)),
        key=lambda point: point.objective,
    )


GRID = [(K, M) for M in (2, 3, 4) for K in range(4, 11) if (K, M) != (4, 2)]


@claim(
    MODEL
    + r"Counterexample to the stated form (the simplex ETF is the global minimizer for every $M$; hypotheses "
    r"unseen): on the grid $K=4,\dots,10$, $M=2,3,4$, all decays equal to $10^{-3}$, $3\cdot10^{-3}$ or $10^{-2}$, "
    r"except $K=4,M=2$, every point whose logits are a simplex ETF, at any scale and with any bias, free or penalised, "
    r"is strictly above another point with bias 0; for even $K$ one with cross-polytope logits."
    + FIRST,
    sources=["dang2023-neural, Abstract (cross-entropy, deep linear networks)"],
    origin="derived",
    kind="counterexample",
    cases={
        "quick": [
            {"n_classes": 4, "n_layers": 3, "decays": (1e-2,)},
            {"n_classes": 5, "n_layers": 2, "decays": (1e-3, 3e-3)},
            {"n_classes": 9, "n_layers": 4, "decays": (1e-3,)},
            {"n_classes": 6, "n_layers": 2, "decays": (3e-3, 1e-2)},
        ],
        "full": [{"n_classes": K, "n_layers": M} for K, M in GRID if (K, M) != (6, 2)]
        + [{"n_classes": 6, "n_layers": 2}],
    },
    space={
        "n_classes": Int(6, 10),
        "n_layers": Int(2, 4),
        "n_per_class": Int(1, 4),
        "decays": Real(1e-4, 8e-3, log=True, size=1),
    },
    breaks={
        "one layer": {"n_layers": 1},
        "four classes, two layers": {"n_classes": 4, "n_layers": 2},
    },
)
def deep_ce_etf_is_not_global(
    n_classes, n_layers, decays=(1e-3, 3e-3, 1e-2), n_per_class=1
) -> Evidence:
    parts, ratios = [], []
    for lam in decays:
        lams = (float(lam),) * (n_layers + 1)
        etf = nc.etf_bound(n_classes, n_per_class, lams)
        point = best_witness(n_classes, n_per_class, lams)
        where = (point.features, point.layers, point.counts, lams)
        # Without bias, and with a bias whose decay is that of the other factors.
        for lam_b in (0.0, float(lam)):
            better = nc.certified_objective(
                *where, loss="ce", bias=np.zeros(n_classes), lam_b=lam_b
            )
            parts.append(exact(Fraction(better), "<", Fraction(etf), grade=Grade.CERTIFIED))
        ratios.append(better / etf)
    return all_of(*parts).with_data(K=n_classes, M=n_layers, ratio=np.array(ratios), decays=decays)


@deep_ce_etf_is_not_global.panel
def _(ax, runs: Runs) -> None:
    for M, colour in zip((2, 3, 4), COLOURS, strict=False):
        at = sorted(
            ((r.data["K"], r.data["ratio"].max()) for r in runs if r.data["M"] == M),
            key=lambda pair: pair[0],
        )
        even = np.arange(4, 11, 2)
        ax.plot(
            even,
            [nc.simplex_sum_price([2] * (K // 2), M + 1) / (K - 1) for K in even],
            "--",
            color=colour,
            lw=1,
        )
        if at:
            ax.plot(*zip(*at, strict=True), "o", color=colour)
        ax.annotate(
            f"$M={M}$",
            (10, nc.simplex_sum_price([2] * 5, M + 1) / 9),
            xytext=(5, 0),
            textcoords="offset points",
            color=colour,
        )
    ax.plot(4, runs.controls["four classes, two layers"].data["ratio"].max(), "x", color=BROKEN)
    ax.plot(runs[-1].data["K"], runs.controls["one layer"].data["ratio"].max(), "x", color=BROKEN)
    ax.annotate(
        "$M=1$",
        (runs[-1].data["K"], runs.controls["one layer"].data["ratio"].max()),
        xytext=(5, 0),
        textcoords="offset points",
        color=BROKEN,
    )
    ax.axhline(1, color="black", lw=0.8)
    ax.set(
        title="The simplex ETF is not the global minimizer",
        xlabel="classes $K$ (dashed: pairs, limit of weak decay)",
        ylabel="certified ratio to the best ETF",
        xlim=(3.7, 10.9),
    )


@claim(
    MODEL
    + r"Take orthogonal simplex logits in at least two blocks of $\kappa_j\ge2$ classes, at gap $s$ between "
    r"blocks. At every $s>0$ their loss is below that of the simplex ETF of gap $s$; their penalty is below it iff "
    r"$\sum_j(\kappa_j-1)(\kappa_j/(\kappa_j-1))^{2/L}<K-1$, which pairs (and a triple if $K$ is odd) satisfy for "
    r"$L\ge3,K\ge6$ and $L\ge4,K\ge4$. So there no ETF of positive scale is a global minimizer, for any weight decays, "
    r"any number of samples per class, with or without a bias." + FIRST,
    sources=["dang2023-neural, Abstract (cross-entropy, deep linear networks)"],
    origin="derived",
    kind="inequality",
    cases=[{"least": ((6, 3), (4, 4))}],
    breaks={"one layer": {"least": ((6, 2),)}, "four classes, two layers": {"least": ((4, 3),)}},
)
def deep_ce_blocks_beat_etf_at_every_scale(least) -> Evidence:
    K, k, s = sp.symbols("K kappa s", positive=True)
    extra = s / (k - 1)  # the gap inside a block is s kappa / (kappa - 1) = s + extra
    simplex = 1 + (K - 1) * sp.exp(-s)
    blocks = 1 + (K - k) * sp.exp(-s) + (k - 1) * sp.exp(-s) * sp.exp(-extra)
    # Positive for kappa > 1: the loss, the logarithm of the sum, is smaller in every class.
    parts = [
        exact(s * k / (k - 1), "==", s + extra),
        exact(simplex - blocks, "==", (k - 1) * sp.exp(-s) * (1 - sp.exp(-extra))),
    ]
    for n_classes, depth in least:
        # K - 1 minus the price grows by 2 - 2^(2/L) >= 0 with each further pair, and with L as the prices fall: the least even
        # and
        # odd number of classes at the least depth decide.
        pair, triple = arb(2**2).root(depth), 2 * (arb(9) / 4).root(depth)
        r = n_classes // 2
        parts += [
            exact(arb(2) - pair, ">=", 0),
            exact(4 * r**depth, "<", (2 * r - 1) ** depth),
            exact((r - 1) * pair + triple, "<", arb(2 * r)),
        ]
    return all_of(*parts)


@claim(
    MODEL
    + r"For $K=6$ and $M=4$, decays $10^{-3}$, $3\cdot10^{-3}$, $10^{-2}$, no bias: logits of a regular hexagon (rank 2) "
    r"are strictly below all cross-polytopes (rank 3), at any scale; so the cross-polytope, which beats the ETF, is not the "
    r"global minimizer either.",
    sources=["dang2023-neural, Abstract (cross-entropy, deep linear networks)"],
    origin="derived",
    kind="counterexample",
    cases=[{"n_layers": 4, "lam": lam} for lam in (1e-3, 3e-3, 1e-2)],
    breaks={"two layers": {"n_layers": 2}},
)
def deep_ce_cross_polytope_is_not_always_best(n_layers, lam) -> Evidence:
    lams = np.full(n_layers + 1, lam)
    hexagon = nc.best_scale(nc.polygon_logits(6), np.ones(6, int), lams)
    upper = nc.certified_objective(
        hexagon.features, hexagon.layers, hexagon.counts, lams, loss="ce"
    )
    return exact(
        Fraction(upper),
        "<",
        Fraction(nc.simplex_sum_bound([2, 2, 2], 1, lams)),
        grade=Grade.CERTIFIED,
    )


def biased_witness(K, lams, lam_b):
    """One pair of opposite classes, what is left (a class, or a weaker pair) lifted by a bias: layers, features and bias."""
    logits, bias = np.zeros((K, K)), np.r_[0.0, np.ones(K - 2), 0.0]
    logits[np.ix_([0, -1], [0, -1])] = [[1, -1], [-1, 1]]
    if K == 4:
        logits[1:3, 1:3] = [[0.45, -0.45], [-0.45, 0.45]]
    base = nc.best_scale(logits, np.ones(K, int), lams)

    def point(theta):
        return base.class_features * theta[0], [W * theta[0] for W in base.layers], theta[1] * bias

    def objective(theta):
        H, layers, b = point(theta)
        return nc.deep_linear_objective(H, layers, (1,) * K, lams, loss="ce", bias=b, lam_b=lam_b)

    # Near gaps of 4 between the pair, the lifted classes and zero; any point gives a valid upper bound.
    grow = (8 / base.class_logits[0, 0]) ** (1 / len(lams))
    H, layers, b = point(
        minimize(objective, [grow, 4.0], method="Nelder-Mead", options={"maxiter": 400}).x
    )
    return nc.certified_objective(H, layers, (1,) * K, lams, loss="ce", bias=b, lam_b=lam_b)


@claim(
    MODEL
    + r"With a last-layer bias that is not penalised, at decay $10^{-2}$, every point whose logits are a simplex "
    r"ETF is strictly above another point also for $K=4,M=2$ and for $K=3$, $M=3$ and $4$, where the ETF is the best "
    r"point found without bias." + FIRST,
    sources=["dang2023-neural, Abstract (cross-entropy, deep linear networks)"],
    origin="derived",
    kind="counterexample",
    cases=[{"n_classes": K, "n_layers": M} for K, M in ((4, 2), (3, 4), (3, 3))],
    breaks={"bias penalised like the layers": {"lam_b": 1e-2}},
)
def deep_ce_free_bias_beats_etf(n_classes, n_layers, lam_b=0.0) -> Evidence:
    lams = (1e-2,) * (n_layers + 1)
    better = biased_witness(n_classes, lams, lam_b)
    return exact(
        Fraction(better), "<", Fraction(nc.etf_bound(n_classes, 1, lams)), grade=Grade.CERTIFIED
    )


@claim(
    MODEL
    + r"For $K\le3$, and for $K=4,M=2$, without bias, the best point that multi-start search finds has the value of the "
    r"best simplex ETF; for $K=4,M=2$ also with a bias of the same decay.",
    sources=["dang2023-neural, Abstract (cross-entropy, deep linear networks)"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [
            {"n_classes": 4, "n_layers": 2, "lam": 1e-2},
            {"n_classes": 3, "n_layers": 3, "lam": 1e-2},
        ],
        "full": [
            {"n_classes": 4, "n_layers": 2, "lam": v, "lam_b": b}
            for v in (1e-3, 3e-3, 1e-2)
            for b in (None, v)
        ]
        + [
            {"n_classes": K, "n_layers": M, "lam": v}
            for v in (1e-3, 1e-2)
            for K, M in ((2, 2), (2, 4), (3, 2), (3, 4), (3, 3))
        ],
    },
    breaks={"five classes, two layers": {"n_classes": 5, "n_layers": 2}},
)
def deep_ce_etf_survives_for_few_classes(n_classes, n_layers, lam, seed, lam_b=None) -> Evidence:
    lams = (lam,) * (n_layers + 1)
    etf = nc.best_scale(nc.simplex_sum_logits([n_classes]), np.ones(n_classes, int), lams).objective
    found = search(
        (1,) * n_classes, n_classes, lams, "ce", lam_b is not None, lam_b or 0.0, 16, seed
    )
    return equal(
        found.objective, etf, error=1e-8 * etf, source=STOP + ", scale of the ETF to 1e-10"
    )


@cache
def ranks_found(most, decay, seed):
    """Rank of the logits of the best point found for each number of classes and layers, bias-free."""
    table = {}
    for K in range(2, most + 1):
        for M in (1, 2, 3, 4):
            end = nc.deep_linear_minimizer(
                np.ones(K, int), K, (decay,) * (M + 1), loss="ce", n_starts=12, seed=seed
            )
            table[K, M] = int(np.sum(end.singular_values > 1e-3))
    return table


@deep_ce_etf_survives_for_few_classes.panel
def _(ax, runs: Runs) -> None:
    most = 10 if len(runs) > 2 else 5
    table = ranks_found(most, 1e-2, 0)
    for M, colour in zip((1, 2, 3, 4), (BROKEN, *COLOURS), strict=False):
        ranks = [table[K, M] for K in range(2, most + 1)]
        ax.plot(range(2, most + 1), ranks, "-o", color=colour)
        ax.annotate(
            f"$M={M}$",
            (most, ranks[-1]),
            xytext=(5, 12 - 6 * M),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    ax.set(
        title="Depth lowers the rank of the best logits found",
        xlabel=r"classes $K$ ($\lambda=0.01$)",
        ylabel="rank",
        xlim=(1.7, most + 0.9),
    )


if __name__ == "__main__":
    run_script(__file__)
