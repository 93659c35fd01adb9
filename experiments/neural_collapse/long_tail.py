"""Geometry imposed on long-tailed classes: spread means, sparse frames, entropy.

The texts of the papers were not consulted: locators are recalled, and the statements are derived.
"""

import numpy as np

import theorylab.neural_collapse as nc
from theorylab.verify import (
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    at_least,
    at_most,
    claim,
    equal,
    exhaustive,
    limit,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS


@claim(
    r"For $K$ unit class centres $c_i\in\mathbb{R}^d$, $d\geq K-1$: $\min\frac1K\sum_i\max_{j\neq i}c_i^\top c_j=-\frac1{K-1}$, "
    r"attained exactly by simplex ETFs, for the maximum and for every log-mean-exp in its place; nothing found beats "
    r"$\arccos\frac{-1}{K-1}$ for $\frac1K\sum_i\min_{j\neq i}\angle(c_i,c_j)$ either.",
    sources=["liu2023-inducing, inter-class regulariser"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"n_classes": 5, "dimension": 4}],
        "full": [
            {"n_classes": K, "dimension": d}
            for K, d in ((3, 2), (4, 3), (6, 5), (5, 8), (10, 9), (5, 4))
        ],
    },
    space={"n_classes": Int(3, 7), "dimension": Int(lambda p: p["n_classes"] - 1, 9)},
    breaks={"d = K - 2": lambda c: {"dimension": c["n_classes"] - 2}},
)
def max_min_angle_optimum_is_etf(n_classes, dimension, seed) -> Evidence:
    K, rng = n_classes, np.random.default_rng(seed)
    bound, angle = -1 / (K - 1), np.arccos(-1 / (K - 1))
    centres = {
        q: nc.spread_centres(K, dimension, rng=rng, quantity=q, restarts=3)
        for q in ("cosine", "angle")
    }
    random = rng.standard_normal((50, K, dimension))
    value, best = nc.mean_max_cosine(centres["cosine"]), nc.mean_min_angle(centres["angle"])
    # The smooth objective is quadratic at the optimum with slope below 1e-9: values are exact, positions to 1e-8 K.
    source = "stopping rule of L-BFGS: gradient 1e-9"
    return all_of(
        at_least([nc.mean_max_cosine(c, sharpness=b) for c in random for b in (None, 3.0)], bound),
        equal(value, bound, error=1e-7, source=source),
        equal(best, angle, error=1e-7, source=source),
        equal(
            centres["cosine"] @ centres["cosine"].T,
            np.eye(K) * (1 - bound) + bound,
            error=1e-6,
            source=source,
        ),
        data={"K": K, "dimension": dimension, "value": value, "angle": best},
    )


@max_min_angle_optimum_is_etf.panel
def _(ax, runs: Runs) -> None:
    K = np.linspace(2.7, 10.5, 200)
    ax.plot(K, -1 / (K - 1))
    ax.plot([r.data["K"] for r in runs], [r.data["value"] for r in runs], "o")
    ax.plot(
        [r.data["K"] for r in runs],
        [np.cos(r.data["angle"]) for r in runs],
        "x",
        color=COLOURS[2],
        markersize=9,
    )
    broken = runs.controls["d = K - 2"].data
    ax.plot(broken["K"], broken["value"], "s", color=BROKEN)
    ax.annotate(
        "$d=K-2$",
        (broken["K"], broken["value"]),
        (6, 0),
        textcoords="offset points",
        color=BROKEN,
        fontsize=8,
    )
    ax.annotate("$-1/(K-1)$", (7, -0.21), color=COLOURS[0], fontsize=8)
    ax.annotate("o: by cosines\nx: cosine of the least angle", (6.5, -0.4), fontsize=8)
    ax.set(
        title="No spread beats the simplex ETF",
        xlabel="number of classes $K$",
        ylabel="mean of the largest cosines",
    )


@claim(
    r"Cross-entropy with free features of $K$ classes, weight decay $\lambda_W,\lambda_H$, no bias, $d\geq K-1$, minority "
    r"classes of size $n_B\leq N^2\lambda_W\lambda_H$, plus $\gamma R$, $R$ the mean over classes of the log-mean-exp of the"
    r" cosines of the class means: as $\gamma\to\infty$ every cosine of features tends to $-\frac1{K-1}$ whatever the class "
    r"sizes, with a proved remainder $O(\gamma^{-1/2})$ from $R+\frac1{K-1}\leq(L_{\mathrm{etf}}-\min L)/\gamma$; the "
    r"minority rows of the classifier keep positive cosines.",
    sources=["liu2023-inducing, mechanism of the inter-class regulariser"],
    origin="derived",
    kind="limit",
    cases={
        "quick": [{"sizes": (20, 20, 1, 1, 1)}],
        "full": [
            {"sizes": s, "excess": tuple(np.geomspace(1, 1e-4, 9)), "restarts": 1}
            for s in ((9, 1, 1, 1), (30, 20, 2, 1, 1), (20, 20, 1, 1, 1))
        ],
    },
    breaks={
        "no regulariser": {"factor": 0.0},
        "d = K - 2": lambda c: {"dimension": len(c["sizes"]) - 2},
    },
)
def regularisation_undoes_minority_collapse(
    sizes,
    seed,
    excess=(1e-2, 1e-4),
    decay=1.3,
    dimension=None,
    factor=1.0,
    sharpness=30.0,
    restarts=0,
) -> Evidence:
    K, N = len(sizes), sum(sizes)
    d, lam, rng = dimension or K, decay / N, np.random.default_rng(seed)
    price = (
        nc.etf_aligned_minimizer(sizes, K, lam, lam).loss
        - nc.ufm_minimizer(sizes, K, lam, lam, loss="ce").certificate.lower
    )
    starts = max(restarts, int(d < K - 1))
    gamma = price / np.array(excess)
    found = [
        nc.regularised_minimizer(
            sizes, d, lam, lam, strength=factor * g, rng=rng, sharpness=sharpness, restarts=starts
        )
        for g in gamma
    ]
    small = np.array([n == min(sizes) for n in sizes])
    others, minority = ~np.eye(K, dtype=bool), np.outer(small, small) & ~np.eye(K, dtype=bool)
    cosines = np.array([f.feature_cosines[others] for f in found])
    worst = cosines[np.arange(len(found)), np.abs(cosines + 1 / (K - 1)).argmax(axis=1)]
    rows = np.array([f.classifier_cosines[minority].min() for f in found])
    return all_of(
        limit(
            worst,
            -1 / (K - 1),
            remainder=nc.cosine_remainder(excess, K, sharpness=sharpness),
            source="the proved bound",
        ),
        at_most([f.spread + 1 / (K - 1) for f in found], excess, rounding=1e-9),
        at_least(rows, 0.0),
        data={
            "gamma": gamma,
            "features": [f.feature_cosines[minority].mean() for f in found],
            "rows": rows,
            "K": K,
        },
    )


@regularisation_undoes_minority_collapse.panel
def _(ax, runs: Runs) -> None:
    data, broken = runs[-1].data, runs.controls["no regulariser"].data
    ax.axhline(-1 / (data["K"] - 1))
    ax.semilogx(data["gamma"], data["features"], "o", color=COLOURS[1])
    ax.semilogx(data["gamma"], data["rows"], "D", color=COLOURS[2])
    ax.semilogx(broken["gamma"], broken["features"], ".", color=BROKEN)
    ax.annotate("features", (data["gamma"][-1], -0.19), color=COLOURS[1], fontsize=8, ha="right")
    ax.annotate("classifier", (data["gamma"][-1], 0.76), color=COLOURS[2], fontsize=8, ha="right")
    ax.annotate("no regulariser", (broken["gamma"][-1], 1.04), color=BROKEN, fontsize=8, ha="right")
    ax.set(
        title="Spreading repairs features, not the classifier",
        xlabel=r"strength $\gamma$ (log)",
        ylim=(-0.35, 1.15),
    )
    ax.set_ylabel("cosine of minority classes")


@claim(
    r"$K$ unit rows in $\mathbb{R}^d$ with given supports can form a simplex ETF ($w_i^\top w_j=-\frac1{K-1}$) only if every two "
    r"supports intersect; two disjoint ones force an error of $\frac1{K-1}$ in the Gram matrix, which is then the least one. "
    r"Random supports with a share $s\leq0.6$ of zeros, $d\geq2K\geq16$, that intersect pairwise carry an ETF.",
    sources=["xiao2024-fedloge, static sparse ETF classifier"],
    origin="derived",
    kind="threshold",
    cases={
        "quick": [{"n_classes": 10, "dimension": 20, "sparsity": 0.6}],
        "full": [
            {"n_classes": 10, "dimension": d, "sparsity": s, "masks": 10}
            for d in (20, 64)
            for s in (0.0, 0.3, 0.6)
        ],
    },
    space={
        "n_classes": Int(8, 10),
        "dimension": Int(lambda p: 2 * p["n_classes"], 40),
        "sparsity": Real(0.0, 0.6),
    },
    breaks={
        "two disjoint supports": {"intersecting": False},
        "d = K - 2": lambda c: {"dimension": c["n_classes"] - 2},
    },
)
def sparse_etf_existence(
    n_classes, dimension, sparsity, seed, masks=1, intersecting=True
) -> Evidence:
    K, rng = n_classes, np.random.default_rng(seed)
    level = 1 / (K - 1)

    def supports(separate):
        while True:
            mask = nc.random_supports(K, dimension, sparsity if dimension >= K else 0.0, rng=rng)
            if not len(nc.disjoint_pairs(mask)):
                break
        if separate:
            half = np.arange(dimension) < dimension // 2
            mask[0], mask[1] = half, ~half
        return mask

    found = [nc.sparse_etf(supports(not intersecting), rng=rng, restarts=3) for _ in range(masks)]
    split = nc.sparse_etf(supports(True), rng=rng, restarts=3)
    return all_of(
        equal(
            [f.error for f in found],
            0.0,
            error=1e-9,
            scale=level,
            source="stopping rule of least squares, rounding",
        ),
        exhaustive(
            [(i, f.status is nc.SparseStatus.EXISTS) for i, f in enumerate(found)],
            grade=Grade.NUMERICAL,
        ),
        equal(split.error, level, error=1e-9, source="stopping rule of least squares, rounding"),
        data={
            "sparsity": sparsity,
            "dimension": dimension,
            "errors": [f.error for f in found],
            "split": split.error,
            "K": K,
        },
    )


@sparse_etf_existence.panel
def _(ax, runs: Runs) -> None:
    K, rng = runs[-1].data["K"], np.random.default_rng(0)
    ax.axhline(1 / (K - 1))
    ax.annotate(
        "two disjoint supports: $1/(K-1)$", (0.0, 1.5 / (K - 1)), color=COLOURS[0], fontsize=8
    )
    shares = np.linspace(0, 0.85, 18 if len(runs) > 1 else 4)
    for d, colour in zip((K + 1, 2 * K, 64), COLOURS[1:], strict=False):
        errors = [
            nc.sparse_etf(nc.random_supports(K, d, s, rng=rng), rng=rng, restarts=2).error
            for s in shares
        ]
        ax.semilogy(shares, np.maximum(errors, 1e-16), "o", color=colour, label=f"$d={d}$")
    ax.legend(loc="center left", fontsize=7)
    ax.set(
        title="Sparse ETFs exist until two supports separate",
        xlabel="share of zeros",
        ylim=(1e-17, 3),
        ylabel="Gram error (log)",
    )


@claim(
    r"The autocorrelation of unit features has eigenvalues $\lambda_i\geq0$, $\sum_i\lambda_i=1$; with "
    r"$S=-\sum_i\lambda_i\log\lambda_i$, $e^S\leq\mathrm{rank}$, with equality iff the non-zero $\lambda_i$ are equal; "
    r"$S=\log d$ iff isotropic, as $\sum_i|\lambda_i-\frac1d|\leq\sqrt{2(\log d-S)}$.",
    sources=["kim2023-effective, von Neumann entropy and rank"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [
            {"dimension": 8, "rank": r, "spread": s} for r, s in ((8, 1.0), (3, 0.1), (3, 2.0))
        ],
        "full": [
            {"dimension": 20, "rank": r, "spread": s}
            for s in (0.1, 0.5, 1.0, 2.0)
            for r in range(1, 21)
        ],
    },
    space={
        "dimension": Int(2, 20),
        "rank": Int(1, lambda p: p["dimension"]),
        "spread": Real(0.0, 3.0),
    },
    breaks={"trace 1/2 instead of 1": {"trace": 0.5, "rank": 1}},
)
def vne_rank_bound(dimension, rank, spread, seed, trace=1.0) -> Evidence:
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0][:, :rank]
    features = (left * np.exp(spread * rng.standard_normal(rank))) @ rng.standard_normal(
        (rank, 200)
    )
    features *= np.sqrt(trace) / np.linalg.norm(features, axis=0)
    entropy = nc.von_neumann_entropy(features, normalise=False)
    spectrum = np.linalg.svd(features, compute_uv=False) ** 2 / 200
    flat = np.tile(left, 10)
    defect = max(np.log(dimension) - entropy, 0.0)
    parts = [at_most(np.exp(entropy), rank)]
    if trace == 1:
        parts.append(at_most(np.abs(spectrum - 1 / dimension).sum(), np.sqrt(2 * defect)))
        parts.append(
            equal(np.exp(nc.von_neumann_entropy(flat)), rank, error=1e-12 * rank, source="rounding")
        )
    return all_of(*parts).with_data(rank=rank, effective=np.exp(entropy), spread=spread)


@vne_rank_bound.panel
def _(ax, runs: Runs) -> None:
    top = max(r.data["rank"] for r in runs)
    ax.plot([1, top], [1, top])
    for spread, colour in zip(sorted({r.data["spread"] for r in runs}), COLOURS[1:], strict=False):
        own = [r.data for r in runs if r.data["spread"] == spread]
        ax.plot(
            [o["rank"] for o in own],
            [o["effective"] for o in own],
            "o",
            color=colour,
            label=f"log-scale spread {spread}",
        )
    broken = runs.controls["trace 1/2 instead of 1"].data
    ax.plot(broken["rank"], broken["effective"], "s", color=BROKEN)
    ax.annotate(
        "trace 1/2",
        (broken["rank"], broken["effective"]),
        (6, 8),
        textcoords="offset points",
        color=BROKEN,
        fontsize=8,
    )
    ax.legend(fontsize=7)
    ax.set(title="$e^S$ never exceeds the rank", xlabel="rank", ylabel="$e^S$")


if __name__ == "__main__":
    run_script(__file__)
