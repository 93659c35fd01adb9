"""One linear layer on free features: frames and thresholds of collapse."""

import numpy as np

from theorylab import neural_collapse as nc
from theorylab.verify import (
    Choice,
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

MODEL = (
    r"Free features $H\in\mathbb R^{d\times N}$, $n_k$ columns in each of $K$ classes, linear "
    r"classifier $W$, penalties $\frac{\lambda_W}2\|W\|_F^2+\frac{\lambda_H}2\|H\|_F^2$, level "
    r"$c=N^2\lambda_W\lambda_H$, "
)
mse = paper("dang2023-neural", MODEL + r"loss $\frac1{2N}\|WH-Y\|_F^2$, no bias:")
biased = paper(
    "dang2023-neural", MODEL + r"loss $\frac1{2N}\|WH+b\mathbf1^\top-Y\|_F^2$, free $b$:"
)
entropy = paper("dang2023-neural", MODEL + "mean cross-entropy, with or without a free bias:")
either = paper("dang2023-neural", MODEL + "squared loss or cross-entropy, free bias or none:")
HONG = "Hong and Ling, arXiv 2309.09725, for cross-entropy"


def decay(level, counts, skew=1.3):
    """Weight decays with N^2 lam_w lam_h = level and lam_w / lam_h = skew^2."""
    root = float(np.sqrt(level)) / sum(counts)
    return root * skew, root / skew


@simulation
def search(counts, dimension, lams, loss, bias, seed, starts=3):
    """Value and a proved lower bound of the minimum; classifier and features where a search ends;
    the certificate, for cross-entropy."""
    options = {"loss": loss, "bias": bias, "n_starts": starts, "seed": seed}
    if loss == "mse":  # von Neumann's trace inequality, whatever the dimension
        bound = nc.von_neumann_bound(counts, dimension=dimension, lams=lams, bias=bias)
        # A start that ends at a saddle, above the proved bound, is followed by another.
        options |= {"n_starts": 10, "target": bound * (1 + 1e-9)}
    found = nc.search_deep_linear(counts, dimension=dimension, lams=lams, **options)
    W, H, b = found.layers[0], found.features, found.bias if bias else None
    if loss == "mse":
        return found.objective, bound, W, H
    proof = nc.certify_ufm(
        nc.UnconstrainedFeatures(counts, lam_w=lams[0], lam_h=lams[1], loss=loss, bias=bias),
        H,
        W,
        bias=b,
    )
    return proof.upper, proof.lower, W, H, proof


def class_means(H, counts):
    cuts = np.cumsum(counts)[:-1]
    return np.stack([part.mean(axis=1) for part in np.split(H, cuts, axis=1)], axis=1)


def frame_and_error(run, counts, lams, gap=1.0):
    """W W' in units of (lam_h / lam_w)^(1/2), and how far the minimiser's may be.

    At an excess e of the objective the logits are within (2 N e)^(1/2) (strong convexity; over the
    relative gap of the singular values where the dimension is short), their absolute value within
    2^(1/2) times that, and the factors balanced up to (2 e)^(1/2)."""
    upper, lower, W, _ = run
    mu, A, e = np.sqrt(lams[0] * lams[1]), np.sqrt(lams[0]) * W, upper - lower + 1e-13 * upper
    slack = np.linalg.norm(A, 2) * np.sqrt(2 * e) + 2 * e
    return A @ A.T / mu, 2 * np.sqrt(sum(counts) * e) / gap + slack / mu


CERTIFIED = "distance to the proved bound, through strong convexity"


@mse.abstract("c", instance=True)
@cases(steps=(1, 1, 2, 4, 4), d=[2, 6], level=0.5)
@full(steps=(3, 0, 0, 9, 0), d=5, level=[1.0, 4.0])
@full(steps=(1, 1, 2, 4, 4), d=2, level=0.5)
@full(steps=(1, 1, 2, 4, 4), d=6, level=[0.05, 0.2, 1.5, 3.0, 6.0, 0.5])
@space(steps=Real(1, 5, size=4), d=Int(1, 6), level=Real(0.02, 3), skew=Real(0.4, 2.5))
@breaks("last-layer bias", bias=True)
def mse_imbalanced_general_orthogonal_frame(steps, d, level, seed, skew=1.5, bias=False):
    r"""at every global minimiser the features of a class coincide in $h_k\parallel w_k$, vectors of
    different classes are orthogonal and, with $p_k=(\sqrt{n_k}-\sqrt c)_+$,
    $\|w_k\|^2=p_k\sqrt{\lambda_H/\lambda_W}$, $w_k\cdot h_k=p_k/\sqrt{n_k}$; the minimum is
    $\sum_k[\frac{(\sqrt{n_k}-p_k)^2}{2N}+\sqrt{\lambda_W\lambda_H}p_k]$. If $d<K$ (and all sizes
    differ) $p_k=0$ but for the $d$ largest classes. (Sizes: sums of the first whole steps.)"""
    counts = tuple(np.cumsum(np.floor(steps)).astype(int).tolist())
    n, N, lams = np.array(counts), sum(counts), decay(level, counts, skew)
    p = np.maximum(np.sqrt(n) - np.sqrt(level), 0) * (np.arange(n.size) >= n.size - d)
    value = np.sum((np.sqrt(n) - p) ** 2) / (2 * N) + np.sqrt(level) * p.sum() / N
    run = search(counts, d, lams, "mse", bias, seed)
    roots = np.sqrt(n)[::-1]
    frame, error = frame_and_error(
        run, counts, lams, 1 - roots[d] / roots[d - 1] if d < n.size else 1.0
    )
    e = max(run[0] - run[1], 0) + 1e-13 * run[0]
    means = class_means(run[3], counts)
    size = max(np.linalg.norm(run[3]), 1e-3)
    spread = np.linalg.norm(run[3] - np.repeat(means, counts, axis=1)) / size
    p = theory("p", p)
    collapse = within(spread, np.sqrt(2 * e / lams[1]) / size, "averages cost less")
    gram = np.sqrt(lams[1] / lams[0]) * means.T @ means
    return {
        "frame": compare(within(frame, error, CERTIFIED), "==", np.diag(p)),
        "logits": compare(within(run[2] @ means, error, CERTIFIED), "==", np.diag(p / np.sqrt(n))),
        "features": compare(within(gram, 2 * error / n.min(), CERTIFIED), "==", np.diag(p / n)),
        "collapse": compare(collapse, "==", theory("scatter", 0.0)),
        "minimum": compare(between(run[0], run[1]), "==", theory("minimum", value)),
    }


@panel(
    mse_imbalanced_general_orthogonal_frame,
    r"Squared loss: lengths are $\sqrt{n_k}$, soft-thresholded at $\sqrt{c}$",
    x=r"$c=N^2\lambda_W\lambda_H$",
    y=r"$\|w_k\|^2\sqrt{\lambda_W/\lambda_H}$",
)
def _(pen, runs):
    c, where = np.linspace(0, 6, 200), {"steps": (1, 1, 2, 4, 4), "d": 6}
    for k, n in enumerate((1, 2, 4, 8, 12)):
        pen.theory(c, np.maximum(np.sqrt(n) - np.sqrt(c), 0), f"$n_k={n}$", k=k)
        pen.points(*runs.measured("level", index=(k, k), where=where), k=k)
    pen.broken(*runs.measured("level", index=(4, 4), control="last-layer bias"), "with a bias")


@mse.abstract("c", instance=True)
@cases(steps=(1, 3, 5), place=[0, 1])
@full(steps=[(1, 3, 5), (1, 1, 2)], place=[0, 2, 1])
@space(steps=Real(1, 5, size=3), place=Int(0, 2))
@breaks("one dimension: rank decides", d=1)
def mse_collapse_threshold_continuous(
    steps, place, seed, d=3, shares=(0.05, 0.3, 0.7, 0.9, 1.05, 2.0)
):
    r"""$d\ge K$: class $k$ vanishes ($w_k=h_k=0$) iff $n_k\le c$, continuously: $w_k\cdot
    h_k=(1-\sqrt{c/n_k})_+$. (Sizes: sums of the first whole steps; shares: $c/n_k$.)"""
    counts = tuple(np.cumsum(np.floor(steps)).astype(int).tolist())
    n = counts[place]

    def product(level):
        lams = decay(level, counts)
        run = search(counts, d, lams, "mse", False, seed, 1)
        error = frame_and_error(run, counts, lams)[1]
        return (run[2] @ class_means(run[3], counts))[place, place], error

    lengths = np.array([product(share * n) for share in shares]).T
    stated = np.maximum(1 - np.sqrt(shares), 0)

    def alive(level):
        found, error = product(level)
        # A search that stays above the proved bound does not tell that the class has vanished.
        return bool(found > 2 * error) if error < 5e-4 else None

    found = switch(alive, bracket=(0.8 * n, 1.25 * n), tol=0.01)
    return {
        "threshold": compare(found, "==", theory("threshold", float(n))),
        "products": compare(within(*lengths, CERTIFIED), "==", theory("products", stated)),
    }


@panel(
    mse_collapse_threshold_continuous,
    r"A class dies continuously at $N^2\lambda_W\lambda_H=n_k$",
    x="$N^2\\lambda_W\\lambda_H/n_k$",
    y="$w_k\\cdot h_k$",
    log="x",
)
def _(pen, runs):
    share = np.geomspace(0.04, 2.2, 200)
    pen.theory(share, np.maximum(1 - np.sqrt(share), 0), "stated")
    pen.points(*runs.measured("shares", "products"), "searches")
    name = "one dimension: rank decides"
    pen.broken(*runs.measured("shares", "products", control=name), "one dimension")


@entropy.abstract("b", instance=True)
@cases(n_classes=4, n=3, ratio=[1.05, 0.1], d=[4, 3])
@full(n_classes=4, n=3, ratio=[1.3, 1.05, 0.95, 0.8, 0.6, 0.3, 0.1, 0.05], d=[3, 5])
@full(n_classes=4, n=3, ratio=[1.05, 0.8, 0.1], d=4, bias=True)
@space(
    n_classes=Int(2, 5),
    n=Int(1, 4),
    ratio=Real(0.02, 2.0),
    bias=Choice((False, True)),
    d=Int("n_classes - 1", "n_classes + 1"),
)
@breaks("one class has more samples", extra=3)
def ce_balanced_ufm_closed_form(n_classes, n, ratio, seed, bias=False, d=4, extra=0):
    r"""$n$ samples in every class, $d\ge K-1$: the global minimiser is a simplex frame, with one
    logit gap $x=\log(1/\sqrt{n\lambda_W\lambda_H}-K+1)$ between the own and each other class if
    $c<n$ and 0 otherwise ($c$ is the ratio times $n$); the minimum is
    $(K-1)\sqrt{n\lambda_W\lambda_H}\,x+\log(1+(K-1)e^{-x})$."""
    K, counts = n_classes, (n,) * (n_classes - 1) + (n + extra,)
    lams = decay(ratio * n, counts, 0.7)
    slope = np.sqrt(ratio) / K
    x = max(float(np.log(1 / slope - K + 1)), 0.0) if ratio < 1 else 0.0
    value = (K - 1) * slope * x + np.log1p((K - 1) * np.exp(-x))
    upper, lower, W, H, proof = search(counts, d, lams, "ce", bias, seed)
    logits = W @ class_means(H, counts)
    # Cross-entropy has curvature at least the least probability, less a tenth on the way.
    least = (np.exp(logits) / np.exp(logits).sum(axis=0)).min() / 1.1
    error = np.sqrt(4 * sum(counts) * (max(upper - lower, 0) + 1e-13 * upper) / least)
    gaps = (np.diag(logits) - logits)[~np.eye(K, dtype=bool)]
    return {
        "gap": compare(within(gaps, error, CERTIFIED), "==", theory("gap", x)),
        "minimum": compare(
            between(upper, lower, certificate=proof), "==", theory("minimum", value)
        ),
    }


@panel(
    ce_balanced_ufm_closed_form,
    "Cross-entropy: one gap for all pairs of classes",
    x=r"$N^2\lambda_W\lambda_H/n$",
    y="logit gap, $K=4$",
    log="x",
)
def _(pen, runs):
    ratio = np.geomspace(0.04, 1.5, 200)
    pen.theory(ratio, np.where(ratio < 1, np.log(np.maximum(4 / np.sqrt(ratio) - 3, 1)), 0))
    for k, d in enumerate((3, 5)):
        pen.points(*runs.measured("ratio", index=0, where={"d": d}), f"$d={d}$", k=k)
    pen.broken(*runs.measured("ratio", index=0, control="one class has more samples"), "unequal")


@either.ours("derived: one threshold for both losses", serves="c")
@note(credit=HONG)
@cases(large=6, small=2, n_small=2, loss="mse", bias=True)
@cases(large=6, small=2, n_small=2, loss="ce", bias=False)
@full(large=12, small=[1, 2, 4, 3], n_small=3, loss=["mse", "ce"], bias=[True, False])
@space(
    small=Int(1, 3),
    large=Int("small + 1", 6),
    n_small=Int(2, 3),
    loss=Choice(("mse", "ce")),
    bias=Choice((False, True)),
)
@breaks("a single minority class", n_small=1)
@breaks("minority classes of unequal size", extra=2)
def universal_minority_collapse_threshold(large, small, n_small, loss, bias, seed, extra=0):
    r"""two majority classes of size $n_A$ and $K_B\ge2$ minority classes of size $n_B<n_A$, $d\ge
    K$: at the global minimum the minority classifiers coincide iff $n_B\le c$."""
    counts = (large, large) + (small,) * (n_small - 1) + (small + extra,)

    def apart(level):
        # Their squared spread grows linearly from the threshold; what the search leaves is 1e-4.
        W = search(counts, len(counts), decay(level, counts, 1.0), loss, bias, seed, 1)[2]
        centre = W[2:].mean(axis=0) if n_small > 1 else 0.0
        return bool(np.linalg.norm(W[2:] - centre) > 1e-3)

    found = switch(apart, bracket=(0.5 * small, 4.0 * large), tol=0.05)
    return compare(found, "==", theory("threshold", float(small)))


@panel(
    universal_minority_collapse_threshold,
    "One threshold for both losses, with a bias or without",
    x="size $n_B$ of the minority classes",
    y=r"$N^2\lambda_W\lambda_H$ where they coincide",
)
def _(pen, runs):
    pen.theory([1, 4], [1, 4], "$n_B$")
    for k, loss in enumerate(("mse", "ce")):
        points = runs.measured("small", where={"loss": loss, "bias": False})
        pen.points(*points, {"mse": "squared loss", "ce": "cross-entropy"}[loss], k=k)


@biased.ours("theorem with a bias recalled (balanced); imbalanced derived", serves="ac")
@cases(sizes=[(5, 5, 5, 5), (10, 6, 3, 1)], level=0.8)
@full(sizes=[(5, 5, 5, 5), (12, 12, 3, 3, 3)], level=[0.1, 0.8, 2.0])
@full(sizes=(10, 6, 3, 1), level=[0.1, 0.2, 0.4, 1.2, 2.0, 3.0, 0.8])
@space(sizes=Real(1, 11, size=4), level=Real(0.05, 4), d=Int(3, 5))
@breaks("no bias", bias=False)
def mse_bias_balanced_etf_imbalanced_svd(sizes, level, seed, d=4, bias=True):
    r"""$d\ge K-1$: with $\bar Y=Y(I-\frac1N\mathbf1\mathbf1^\top)=\sum_i\sigma_iu_iv_i^\top$ the
    minimum has $WW^\top=\sqrt{\lambda_H/\lambda_W}\sum_i(\sigma_i-\sqrt c)_+u_iu_i^\top$ and $WH$
    the singular values $(\sigma_i-\sqrt c)_+$; a simplex frame, $u_i\perp\mathbf1$, $\sigma_i=\sqrt
    n$, if all $n_k=n$. (Whole parts of the sizes.)"""
    counts = tuple(int(n) for n in np.floor(sizes))
    K, N, lams = len(counts), sum(counts), decay(level, counts)
    d = max(d, K - 1)
    Y = np.eye(K)[:, np.repeat(np.arange(K), counts)]
    U, sigma, _ = np.linalg.svd(Y - Y.mean(axis=1, keepdims=True), full_matrices=False)
    p = np.maximum(sigma - np.sqrt(level), 0)
    value = np.sum((sigma - p) ** 2) / (2 * N) + np.sqrt(level) * p.sum() / N
    run = search(counts, d, lams, "mse", bias, seed)
    frame, error = frame_and_error(run, counts, lams)
    found = np.linalg.svd(run[2] @ run[3], compute_uv=False)
    p = theory("p", p)
    return {
        "singular": compare(within(found, error, CERTIFIED), "==", p),
        "frame": compare(within(frame, error, CERTIFIED), "==", (U * p) @ U.T),
        "minimum": compare(between(run[0], run[1]), "==", theory("minimum", value)),
    }


@panel(
    mse_bias_balanced_etf_imbalanced_svd,
    "With a bias: centred labels, soft-thresholded",
    x=r"$c=N^2\lambda_W\lambda_H$",
    y="singular values of $WH$, sizes 10, 6, 3, 1",
)
def _(pen, runs):
    n, c = np.array([10.0, 6.0, 3.0, 1.0]), np.linspace(0, 3.2, 200)
    sigma = np.sqrt(np.linalg.eigvalsh(np.diag(n) - np.outer(n, n) / 20)[::-1][:3])
    for i, s in enumerate(sigma):
        pen.theory(c, np.maximum(s - np.sqrt(c), 0), rf"$\sigma_{i + 1}$", k=i)
        where = {"sizes": (10, 6, 3, 1)}
        pen.points(*runs.measured("level", index=i, where=where), k=i)
    pen.broken(*runs.measured("level", index=0, control="no bias"), "no bias")


if __name__ == "__main__":
    run_script(__file__)
