"""One linear layer on free features: frames and thresholds of collapse."""

from functools import cache

import numpy as np

from theorylab import neural_collapse as nc
from theorylab.verify import (
    Choice,
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    claim,
    equal,
    gap,
    threshold,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

MODEL = (
    r"Free features $H$ with $n_k$ columns in class $k$, $N=\sum n_k$, penalties "
    r"$\frac{\lambda_W}2\|W\|_F^2+\frac{\lambda_H}2\|H\|_F^2$. "
)
MSE = MODEL + r"Loss $\frac1{2N}\|WH-Y\|_F^2$, no bias, $d\ge K$: "
# L-BFGS stops once the objective moves by less than its rounding error; the squared loss is 1/N-strongly convex in W H.
STOP = 1e-12
SOURCE = "objective within 1e-12 of the minimum (stopping rule of L-BFGS), through strong convexity in WH"


@cache
def search(
    counts, dimension, lam_w, lam_h, loss="mse", bias=False, seed=0, n_starts=4, target=None
):
    return nc.search_deep_linear(
        counts,
        dimension,
        [lam_w, lam_h],
        loss=loss,
        bias=bias,
        n_starts=n_starts,
        target=target,
        seed=seed,
    )


def decay(level, counts, skew=1.0):
    """Weight decays with N^2 lam_w lam_h = level and lam_w / lam_h = skew^2."""
    root = np.sqrt(level) / sum(counts)
    return float(root * skew), float(root / skew)


def certified_gap(found, counts, lam_w, lam_h, loss, bias):
    certificate = nc.certify_ufm(
        found.features,
        found.layers[0],
        counts,
        lam_w,
        lam_h,
        loss=loss,
        bias=found.bias if bias else None,
    )
    return gap(certificate.upper, certificate.lower, tol=1e-6)


def sizes_of(sizes):
    return tuple(int(n) for n in np.floor(sizes))


@claim(
    MSE
    + r"at every global minimizer features collapse to class vectors $h_k\parallel w_k$, vectors of different classes are "
    r"orthogonal and, with $p_k=(\sqrt{n_k}-N\sqrt{\lambda_W\lambda_H})_+$, $\|w_k\|^2=p_k\sqrt{\lambda_H/\lambda_W}$, "
    r"$\|h_k\|^2=\frac{p_k}{n_k}\sqrt{\lambda_W/\lambda_H}$; the minimum is "
    r"$\sum_k[\frac{(\sqrt{n_k}-p_k)^2}{2N}+\sqrt{\lambda_W\lambda_H}p_k]$. If $d<K$ the $d$ largest classes survive.",
    sources=[
        "dang2023-neural, Theorem on imbalanced data with M=1 (locator recalled, text not consulted)"
    ],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"sizes": (12, 8, 4, 2, 1), "dimension": d, "level": 0.5} for d in (2, 6)],
        "full": [
            {"sizes": (12, 8, 4, 2, 1), "dimension": d, "level": v}
            for d in (1, 2, 3, 6)
            for v in (0.05, 1.5, 3.0, 0.5)
        ],
    },
    space={
        "sizes": Real(1, 13, size=4),
        "dimension": Int(4, 6),
        "level": Real(0.02, 3),
        "skew": Real(0.4, 2.5),
    },
    breaks={"last-layer bias": {"bias": True}},
)
def mse_imbalanced_general_orthogonal_frame(
    sizes, dimension, level, seed, skew=1.5, bias=False
) -> Evidence:
    counts = sizes_of(sizes)
    n, N, K = np.array(counts), sum(counts), len(counts)
    lam_w, lam_h = decay(level, counts, skew)
    p = np.maximum(np.sqrt(n) - N * np.sqrt(lam_w * lam_h), 0)
    p[np.argsort(-n, kind="stable")[dimension:]] = 0
    value = np.sum((np.sqrt(n) - p) ** 2) / (2 * N) + np.sqrt(lam_w * lam_h) * p.sum()
    found = search(counts, dimension, lam_w, lam_h, bias=bias, seed=seed)
    W, H = found.layers[0], found.features
    error = np.sqrt(2 * N * STOP * value)
    scale = float(np.sqrt(n).max())
    parts = [
        equal(
            found.objective,
            value,
            error=1e-10 * value,
            source="stopping rule of L-BFGS and rounding",
        )
    ]
    if dimension >= K:
        logits = np.repeat(np.diag(p / np.sqrt(n)), n, axis=1)
        parts += [
            certified_gap(found, counts, lam_w, lam_h, "mse", bias),
            equal(W @ H, logits, error=error, scale=scale, source=SOURCE),
            # The penalty exceeds the nuclear norm by at most the same gap, so the factors are balanced to its square root.
            equal(
                lam_w * W @ W.T,
                np.diag(p) * np.sqrt(lam_w * lam_h),
                error=error * scale,
                scale=scale,
                source=SOURCE,
            ),
            equal(
                lam_h * np.sum(H**2),
                p.sum() * np.sqrt(lam_w * lam_h),
                error=error * scale,
                scale=scale,
                source=SOURCE,
            ),
        ]
    lengths = np.sum(W**2, axis=1) * np.sqrt(lam_w / lam_h)
    return all_of(*parts).with_data(n=n, lengths=lengths, level=level, dimension=dimension)


@mse_imbalanced_general_orthogonal_frame.panel
def _(ax, runs: Runs) -> None:
    n = np.linspace(0, 13, 400)
    levels = sorted({r.data["level"] for r in runs if r.data["dimension"] > 4})
    for level, colour in zip(levels, COLOURS, strict=False):
        ax.plot(n, np.maximum(np.sqrt(n) - np.sqrt(level), 0), color=colour)
        ax.annotate(
            f"{level}",
            (13, np.sqrt(13) - np.sqrt(level)),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
        for run in (r for r in runs if r.data["level"] == level and r.data["dimension"] > 4):
            ax.plot(run.data["n"], run.data["lengths"], "o", color=colour)
    biased = runs.controls["last-layer bias"].data
    ax.plot(
        biased["n"], biased["lengths"], "x", color=BROKEN, label=f"with a bias, {biased['level']}"
    )
    ax.legend(loc="upper left")
    ax.set(
        title="Squared loss: lengths are $\\sqrt{n_k}$, soft-thresholded",
        xlabel=r"class size $n_k$ (labels: $N^2\lambda_W\lambda_H$)",
        ylabel=r"$\|w_k\|^2\sqrt{\lambda_W/\lambda_H}$",
        ylim=(-0.1, None),
    )


@claim(
    MSE
    + r"class $k$ vanishes ($w_k=h_k=0$) iff $n_k\le N^2\lambda_W\lambda_H$; the transition is continuous, $w_k\cdot "
    r"h_k=(1-\sqrt{N^2\lambda_W\lambda_H/n_k})_+$.",
    sources=[
        "dang2023-neural, per-class condition of the Theorem on imbalanced data with M=1 (text not consulted)"
    ],
    origin="derived",
    kind="threshold",
    cases={
        "quick": [{"sizes": (9, 4, 1), "place": k} for k in (0, 1)],
        "full": [
            {"sizes": s, "place": k} for s in ((12, 8, 4, 2, 1), (9, 4, 1)) for k in (0, 2, 1)
        ],
    },
    space={"sizes": Real(1, 13, size=3), "place": Int(0, 2)},
    breaks={"one dimension: rank decides": {"dimension": 1}},
)
def mse_collapse_threshold_continuous(sizes, place, seed, dimension=None) -> Evidence:
    counts = sizes_of(sizes)
    d = len(counts) if dimension is None else dimension
    own = slice(sum(counts[:place]), sum(counts[: place + 1]))
    error = np.sqrt(2 * sum(counts) * STOP)

    def length(level):
        lams = decay(level, counts)
        # The search ends at a certified global minimum: the proof leaves a relative slack of 1e-10.
        found = search(
            counts, d, *lams, seed=seed, target=nc.von_neumann_bound(counts, d, lams) * (1 + 2e-10)
        )
        return float((found.layers[0] @ found.features)[place, own].mean())

    n = counts[place]
    level = n * np.array([0.05, 0.3, 0.7, 0.95, 1.05, 2.0])
    lengths = np.array([length(v) for v in level])
    return all_of(
        equal(
            lengths, np.maximum(1 - np.sqrt(level / n), 0), error=error, scale=1.0, source=SOURCE
        ),
        threshold(lambda v: length(v) > error, float(n), bracket=(0.8 * n, 1.25 * n), tol=1e-3),
    ).with_data(n=n, level=level, lengths=lengths)


@mse_collapse_threshold_continuous.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(
        [r for r in runs if len(r.instance["sizes"]) == 3], COLOURS, strict=False
    ):
        n = run.data["n"]
        grid = np.geomspace(0.03 * n, 2 * n, 300)
        ax.semilogx(grid, np.maximum(1 - np.sqrt(grid / n), 0), color=colour)
        ax.plot(run.data["level"], run.data["lengths"], "o", color=colour)
        ax.annotate(
            f"$n_k={n}$",
            (0.7 * n, 0.17),
            xytext=(-4, 0),
            textcoords="offset points",
            color=colour,
            ha="right",
        )
    ax.set(
        title=r"A class dies continuously at $N^2\lambda_W\lambda_H=n_k$",
        xlabel=r"$N^2\lambda_W\lambda_H$ (log)",
        ylabel="$w_k\\cdot h_k$",
    )


@claim(
    MODEL
    + r"Balanced cross-entropy, $n$ samples in each of $K$ classes, $d\ge K-1$, with or without a bias: the global minimizer is "
    r"a simplex ETF with logit gap $x=\log(1/\sqrt{n\lambda_W\lambda_H}-K+1)$ if $N^2\lambda_W\lambda_H<n$ and zero otherwise; "
    r"the minimum is $(K-1)\sqrt{n\lambda_W\lambda_H}\,x+\log(1+(K-1)e^{-x})$.",
    sources=[
        "dang2023-neural, cross-entropy theorem with M=1 (locator recalled, text not consulted)"
    ],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"n_classes": 4, "n": 3, "ratio": r} for r in (1.02, 0.05)],
        "full": [
            {"n_classes": 4, "n": 3, "ratio": r, "bias": b}
            for b in (True, False)
            for r in (1.3, 1.02, 0.98, 0.8, 0.6, 0.3, 0.1, 0.05)
        ],
    },
    space={
        "n_classes": Int(2, 5),
        "n": Int(1, 4),
        "ratio": Real(0.02, 2.0),
        "bias": Choice((False, True)),
    },
    breaks={"two dimensions for four classes": {"dimension": 2}},
)
def ce_balanced_ufm_closed_form(n_classes, n, ratio, seed, bias=False, dimension=None) -> Evidence:
    K, counts = n_classes, (n,) * n_classes
    lam_w, lam_h = decay(ratio * n, counts, 0.7)
    slope = np.sqrt(n * lam_w * lam_h)
    x = max(float(np.log(1 / slope - K + 1)), 0.0) if slope * (K - 1) < 1 else 0.0
    value = (K - 1) * slope * x + np.log1p((K - 1) * np.exp(-x))
    found = search(
        counts, K if dimension is None else dimension, lam_w, lam_h, "ce", bias, seed=seed
    )
    logits = found.layers[0] @ found.features
    columns = logits[:, ::n]
    gaps = (np.diag(columns) - columns)[~np.eye(K, dtype=bool)]
    # At the threshold the second derivative in the gap vanishes with 1 - ratio; below it the gap is found to the root of the
    # stop.
    curvature = max(abs(1 - ratio), 1e-3)
    return all_of(
        equal(
            found.objective,
            value,
            error=1e-10 * value,
            source="stopping rule of L-BFGS and rounding",
        ),
        certified_gap(found, counts, lam_w, lam_h, "ce", bias),
        equal(
            gaps,
            x,
            error=1e-5 / curvature,
            scale=1.0,
            source="root of the stopping rule of L-BFGS over the curvature",
        ),
    ).with_data(ratio=ratio, gaps=gaps, K=K)


@ce_balanced_ufm_closed_form.panel
def _(ax, runs: Runs) -> None:
    ratio = np.geomspace(0.03, 1.5, 400)
    K = runs[0].data["K"]
    ax.semilogx(ratio, np.where(ratio < 1, np.log(np.maximum(K / np.sqrt(ratio) - K + 1, 1)), 0))
    ax.plot([r.data["ratio"] for r in runs], [r.data["gaps"].mean() for r in runs], "o")
    flat = runs.controls["two dimensions for four classes"].data
    ax.plot(
        np.full(flat["gaps"].size, flat["ratio"]),
        flat["gaps"],
        "x",
        color=BROKEN,
        label="$d=2<K-1$",
    )
    ax.legend()
    ax.set(
        title="Cross-entropy: one gap for all pairs of classes",
        xlabel=r"$N^2\lambda_W\lambda_H/n$ (log)",
        ylabel=f"logit gap, $K={K}$",
    )


def minority_spread(counts, n_minority, level, loss, bias, seed):
    """How far the logits of the minority classes are from being exchanged at will: the coefficient of their differences."""
    found = search(counts, len(counts), *decay(level, counts), loss, bias, seed, 2)
    W = found.layers[0][-n_minority:]
    return float(np.linalg.norm(W - (W.mean(axis=0) if n_minority > 1 else 0), axis=1).max())


@cache
def phase_diagram(points, seed):
    """Spread of the classifiers of two minority classes of size 2 beside two majority classes."""
    imbalance = np.unique(np.round(np.geomspace(1, 20, points)).astype(int))
    level = np.geomspace(0.02, 2, 2 * points)
    spread = [
        [
            minority_spread((2 * int(r),) * 2 + (2, 2), 2, float(v) * 2 * int(r), "ce", False, seed)
            for r in imbalance
        ]
        for v in level
    ]
    return imbalance, level, np.array(spread)


@claim(
    MODEL
    + r"$K_A$ majority classes of size $n_A$, $K_B\ge2$ minority classes of equal size $n_B<n_A$, $d\ge K$: at the global "
    r"minimum all minority classifiers coincide iff $n_B\le N^2\lambda_W\lambda_H$, for squared loss and cross-entropy, with or "
    r"without a bias.",
    sources=["dang2023-neural, derived from its one-layer model (minority collapse)"],
    origin="derived",
    kind="threshold",
    cases={
        "quick": [
            {"sizes": (12, 12, 3, 3, 3), "loss": loss, "bias": bias}
            for loss, bias in (("mse", True), ("ce", False))
        ],
        "full": [
            {"sizes": (12, 12, m, m, m), "loss": loss, "bias": bias}
            for m in (1, 4, 3)
            for loss, bias in (("mse", False), ("mse", True), ("ce", True), ("ce", False))
        ],
    },
    breaks={
        "a single minority class": {"sizes": (12, 12, 3), "n_minority": 1},
        "minority classes of unequal size": {"sizes": (12, 12, 3, 3, 5)},
    },
)
def universal_minority_collapse_threshold(sizes, loss, bias, seed, n_minority=3) -> Evidence:
    predicted = float(sizes[-n_minority])

    def coincide(level):
        # The squared spread grows linearly from the threshold, with slope of order one; what L-BFGS leaves is below 1e-4.
        return minority_spread(sizes, n_minority, level, loss, bias, seed) < 1e-3

    found = threshold(coincide, predicted, bracket=(0.8 * predicted, 1.25 * predicted), tol=3e-3)
    return found.with_data(seed=seed)


@universal_minority_collapse_threshold.panel
def _(ax, runs: Runs) -> None:
    imbalance, level, spread = phase_diagram(12 if len(runs) > 2 else 4, runs[0].data["seed"])
    mesh = ax.pcolormesh(imbalance, level, spread, shading="nearest", cmap="viridis")
    ax.figure.colorbar(mesh, ax=ax, label="spread of the minority classifiers")
    ax.plot(imbalance, 1 / imbalance, color="white")
    ax.annotate(
        r"$n_B=N^2\lambda_W\lambda_H$",
        (3, 1 / 3),
        xytext=(6, 4),
        textcoords="offset points",
        color="white",
    )
    ax.set(
        xscale="log",
        yscale="log",
        title="Minority classes coincide above one line",
        xlabel="$n_A/n_B$ (log)",
        xlim=(1, 20),
    )
    ax.set_ylabel(r"$N^2\lambda_W\lambda_H/n_A$ (log)")


@claim(
    MODEL
    + r"Squared loss $\frac1{2N}\|WH+b\mathbf1^\top-Y\|_F^2$ with a free bias, $d\ge K-1$: the singular values of $WH$ "
    r"are $(\sigma_i-N\sqrt{\lambda_W\lambda_H})_+$, $\sigma_i$ those of $Y(I-\frac1N\mathbf1\mathbf1^\top)$; balanced classes "
    r"give a simplex ETF.",
    sources=[
        "dang2023-neural, theorem with last-layer bias (balanced; imbalanced derived; text not consulted)"
    ],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"sizes": s, "level": 0.8} for s in ((5, 5, 5, 5), (10, 6, 3, 1))],
        "full": [
            {"sizes": s, "level": v}
            for v in (0.1, 2.0, 0.8)
            for s in ((5, 5, 5, 5), (12, 12, 3, 3, 3), (10, 6, 3, 1))
        ],
    },
    space={"sizes": Real(1, 11, size=4), "level": Real(0.05, 4)},
    breaks={"no bias": {"bias": False}},
)
def mse_bias_balanced_etf_imbalanced_svd(sizes, level, seed, bias=True) -> Evidence:
    counts = sizes_of(sizes)
    K, N = len(counts), sum(counts)
    lam_w, lam_h = decay(level, counts, 1.3)
    Y = np.eye(K)[:, np.repeat(np.arange(K), counts)]
    sigma = np.linalg.svd(Y - Y.mean(axis=1, keepdims=True), compute_uv=False)
    fitted = np.maximum(sigma - N * np.sqrt(lam_w * lam_h), 0)
    value = np.sum((sigma - fitted) ** 2) / (2 * N) + np.sqrt(lam_w * lam_h) * fitted.sum()
    found = search(counts, K, lam_w, lam_h, bias=bias, seed=seed)
    W, H = found.layers[0], found.features
    error = np.sqrt(2 * N * STOP)
    parts = [
        equal(
            found.objective,
            value,
            error=1e-10 * value,
            source="stopping rule of L-BFGS and rounding",
        ),
        equal(
            np.linalg.svd(W @ H, compute_uv=False),
            fitted,
            error=error,
            scale=float(sigma[0]),
            source=SOURCE,
        ),
    ]
    if bias:
        parts.append(certified_gap(found, counts, lam_w, lam_h, "mse", bias))
    metrics = nc.collapse_metrics(H, np.repeat(np.arange(K), counts), W)
    if len(set(counts)) == 1 and fitted[0] > 0.1:
        parts.append(
            equal(metrics.classifier_angle_error, 0.0, error=1e-4, scale=1 / (K - 1), source=SOURCE)
        )
    cosines = W @ W.T / np.sqrt(np.outer(np.diag(W @ W.T), np.diag(W @ W.T)))
    return all_of(*parts).with_data(
        sizes=counts,
        sigma=sigma[:-1],
        found=np.linalg.svd(W @ H, compute_uv=False)[:-1],
        level=level,
        cos=cosines,
    )


@mse_bias_balanced_etf_imbalanced_svd.panel
def _(ax, runs: Runs) -> None:
    sigma = np.linspace(0, 4, 300)
    for level, colour in zip(sorted({r.data["level"] for r in runs}), COLOURS, strict=False):
        ax.plot(sigma, np.maximum(sigma - np.sqrt(level), 0), color=colour)
        ax.annotate(
            f"{level}",
            (4, 4 - np.sqrt(level)),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
        for run in (r for r in runs if r.data["level"] == level):
            ax.plot(
                run.data["sigma"],
                run.data["found"],
                "o" if len(set(run.data["sizes"])) > 1 else "D",
                color=colour,
            )
    broken = runs.controls["no bias"].data
    ax.plot(
        broken["sigma"], broken["found"], "x", color=BROKEN, label=f"no bias, {broken['level']}"
    )
    ax.legend(loc="upper left")
    ax.set(
        title="With a bias: centred labels, soft-thresholded",
        xlabel=r"singular value of the centred labels (labels: $N^2\lambda_W\lambda_H$)",
        ylabel="of $WH$",
    )


@claim(
    MODEL
    + r"Cross-entropy, any class sizes, $d\ge K$, with or without a bias: some global minimizer has logits that depend on the "
    r"pair of class sizes only, up to one constant added to the own logit in each group of equal size, which leaves $G^2+G$ "
    r"unknowns for $G$ distinct sizes.",
    sources=["dang2023-neural, derived from its one-layer model (convexity in WH and symmetry)"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [
            {"sizes": (12, 12, 3, 3, 3), "level": 1.0, "bias": True},
            {"sizes": (12, 12, 4, 2, 1), "level": 0.5},
        ],
        "full": [
            {"sizes": s, "level": v, "bias": b}
            for b in (True, False)
            for v in (0.02, 2.97, 3.03, 0.5)
            for s in ((12, 12, 3, 3, 3), (7, 7, 3, 3, 1), (12, 12, 4, 2, 1))
        ],
    },
    space={"sizes": Real(1, 11, size=4), "level": Real(0.02, 4), "bias": Choice((False, True))},
    breaks={
        "unequal classes put into one group": {
            "solved_for": (12, 12, 3, 3, 3),
            "sizes": (12, 12, 5, 3, 1),
        }
    },
)
def ce_imbalanced_group_reduction(sizes, level, seed, bias=False, solved_for=None) -> Evidence:
    counts = sizes_of(sizes)
    lam_w, lam_h = decay(level, counts)
    reduced = nc.ufm_minimizer(
        solved_for or counts, len(counts), lam_w, lam_h, loss="ce", bias=bias
    )
    features = np.repeat(reduced.class_features, counts, axis=1)
    bounds = nc.certify_ufm(
        features, reduced.classifier, counts, lam_w, lam_h, loss="ce", bias=reduced.bias
    )
    found = search(counts, len(counts), lam_w, lam_h, "ce", bias, seed)
    return all_of(
        gap(bounds.upper, bounds.lower, tol=1e-10),
        equal(
            found.objective,
            bounds.upper,
            error=1e-10 * bounds.upper,
            source="stopping rule of L-BFGS",
            grade=Grade.NUMERICAL,
        ),
    ).with_data(logits=reduced.class_logits, sizes=counts, level=level, bias=bias)


@ce_imbalanced_group_reduction.panel
def _(ax, runs: Runs) -> None:
    logits = runs[0].data["logits"]
    logits = logits - logits.mean(axis=0)
    mesh = ax.imshow(logits, cmap="RdBu_r", vmin=-abs(logits).max(), vmax=abs(logits).max())
    ax.figure.colorbar(mesh, ax=ax, label="centred logit")
    sizes = runs[0].data["sizes"]
    ax.set_xticks(range(len(sizes)), sizes)
    ax.set_yticks(range(len(sizes)), sizes)
    ax.set(
        title="Cross-entropy: logits depend on the class sizes only",
        xlabel="size of the class of the sample",
        ylabel="of the logit's class",
    )


if __name__ == "__main__":
    run_script(__file__)
