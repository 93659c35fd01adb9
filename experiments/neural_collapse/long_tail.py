"""Geometry imposed on long-tailed classes: spread means, sparse frames, entropy."""

import numpy as np
from scipy.integrate import solve_ivp
from scipy.special import softmax

from theorylab import neural_collapse as nc
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
    full,
    note,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

EPS = float(np.finfo(float).eps)
inducing = paper("liu2023-inducing")
fedloge = paper("xiao2024-fedloge")
vne = paper("kim2023-effective", r"Features with autocorrelation $C$ of trace 1 in $\mathbb R^d$:")


@simulation
def spread(n_classes, dimension, seed):
    """Centres spread out by a search; random centres."""
    rng = np.random.default_rng(seed)
    found = nc.spread_centres(n_classes, dimension, rng=rng, restarts=3)
    return found, rng.standard_normal((50, n_classes, dimension))


@inducing.abstract("a", instance=True)
@cases(n_classes=[4, 5], dimension=4)
@full(n_classes=3, dimension=2)
@full(n_classes=[3, 4, 6, 10, 5], dimension=9)
@space(n_classes=Int(3, 7), dimension=Int("n_classes - 1", 9))
@breaks("d = K - 2", lambda case: {"dimension": case["n_classes"] - 2})
def max_min_angle_optimum_is_etf(n_classes, dimension, seed):
    r"""for $K$ centres of length 1 in $\mathbb R^d$, $d\ge K-1$, the least value of
    $\frac1K\sum_i\max_{j\ne i}c_i^\top c_j$ is $-\frac1{K-1}$, attained by simplex ETFs only, and
    so is that of the log-mean-exps of the cosines that are used in place of the maxima."""
    K = n_classes
    found, random = spread(K, dimension, seed)
    value = nc.mean_max_cosine(found)
    source = "stopping rule of L-BFGS: gradient 1e-9"
    tried = [*random, found, found + 1e-3 * random[0], found + 0.1 * random[1]]
    values = [nc.mean_max_cosine(c, sharpness=b) for c in tried for b in (None, 3.0, 30.0)]
    level = theory("least", -1 / (K - 1))
    frame = np.eye(K) * (1 - level) + level
    return {
        "attained": compare(within(value, 1e-7, source), "==", level),
        "never exceeded": compare(within(values, 1e-9, "rounding, stopping rule"), ">=", level),
        "cosines": compare(within(found @ found.T, 1e-6, source), "==", frame),
    }


@panel(
    max_min_angle_optimum_is_etf,
    "No spread of the centres beats the simplex ETF",
    x="classes $K$",
    y="mean of the largest cosines",
)
def _(pen, runs):
    K = np.linspace(3, 10, 200)
    pen.theory(K, -1 / (K - 1), r"$-1/(K-1)$")
    pen.points(*runs.measured("n_classes", where={"dimension": 9}), "searched", k=1)
    pen.broken(*runs.measured("n_classes", control="d = K - 2"), label="$d=K-2$")


@simulation
def regularised(sizes, dimension, decay, excess, factor, seed):
    """The cosine of two class features that is farthest from the mean of a simplex frame's, and
    the regulariser, at strengths that allow the given excesses."""
    K, lam, rng = len(sizes), decay / sum(sizes), np.random.default_rng(seed)
    model = nc.UnconstrainedFeatures(sizes, lam_w=lam, lam_h=lam, loss="ce")
    price = nc.etf_aligned_minimizer(model, dimension=K).loss
    price -= nc.ufm_minimizer(model, dimension=K).certificate.lower
    found = [
        nc.regularised_minimizer(
            model,
            dimension=dimension,
            strength=factor * price / e,
            rng=rng,
            restarts=int(dimension < K - 1),
        )
        for e in excess
    ]
    cosines = np.array([f.feature_cosines[~np.eye(K, dtype=bool)] for f in found])
    return cosines, np.array([f.spread for f in found])


@inducing.abstract("a", instance=True)
@cases(majority=20, n_major=2, minority=1, n_minor=3, decay=1.3)
@full(majority=4, n_major=1, minority=3, n_minor=3, decay=[1.0, 1.7325])
@full(majority=[9, 30, 20], n_major=2, minority=1, n_minor=3, decay=[0.5, 1.3])
@space(
    majority=Int(6, 30),
    n_major=Int(1, 2),
    minority=Int(1, 3),
    n_minor=Int(2, 4),
    decay=Real(0.5, 1.5),
)
@breaks("no regulariser", factor=0.0)
@breaks("d = K - 2", short=2)
@note(credit="Hong and Ling, arXiv 2309.09725, have the threshold of minority collapse")
def regularisation_undoes_minority_collapse(
    majority, n_major, minority, n_minor, decay, seed, factor=1.0, short=0
):
    r"""cross-entropy with free features, no bias, $d=K$, minority classes next to larger ones
    (decay: $N\lambda$; those of at most its square collapse), plus $\gamma R$, $R$ the mean over
    classes of $\frac1{30}$ of the log-mean-exp of 30 times the cosines of the class means: as
    $\gamma\to\infty$ the cosines of all features tend to $-\frac1{K-1}$ whatever the class sizes,
    as $R+\frac1{K-1}\le(L_{\mathrm{etf}}-\min L)/\gamma$, $L_{\mathrm{etf}}$ the least loss in the
    directions of a frame, below $\log K$ (cosines judged where the right side is $10^{-6}$, the
    bound at .03)."""
    sizes, excess = (majority,) * n_major + (minority,) * n_minor, (3e-2, 1e-6)
    K = len(sizes)
    cosines, values = regularised(sizes, K - short, decay, excess, factor, seed)
    remainder = nc.cosine_remainder(excess[1:], K, sharpness=30.0)[:, None]
    over = within(values[0] + 1 / (K - 1), 1e-8, "stopping rule of L-BFGS")
    return {
        "cosines": compare(
            within(cosines[1:], remainder, "the proved bound"),
            "==",
            theory("cosine", -1 / (K - 1)),
        ),
        "regulariser": compare(over, "<=", theory("excess", excess[0])),
    }


def entropy_slope(W, H, labels):
    """Gradients of mean cross-entropy in the classifier and the features."""
    G = (softmax(W @ H, axis=0) - np.eye(len(W))[:, labels]) / labels.size
    return G @ H.T, W.T @ G


def reversed_slope(W, H, labels):
    """Those of minus the mean cross-entropy: not convex in the logits."""
    return tuple(-v for v in entropy_slope(W, H, labels))


@simulation
def deviation_flow(sizes, dimension, decay, pull, size, slope, wrong, seed, horizon=1.0):
    """Gradient flow of classifier and features; the logarithm of the squared deviations from the
    class means, against their start, at four times up to ``horizon`` / (decay + pull)."""
    rng, K, y = np.random.default_rng(seed), len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    labels = np.where(np.arange(y.size) < wrong, (y + 1) % K, y)
    average = (y[:, None] == y) / np.array(sizes)[y]
    start = size * rng.standard_normal(K * dimension + dimension * y.size)

    def split(state):
        return state[: K * dimension].reshape(K, -1), state[K * dimension :].reshape(dimension, -1)

    def flow(t, state):
        W, H = split(state)
        in_W, in_H = slope(W, H, labels)
        steps = -in_W - decay * W, -in_H - decay * H - pull * (H - H @ average)
        return np.concatenate([v.ravel() for v in steps])

    times = np.linspace(0, horizon / (decay + pull), 5)
    run = solve_ivp(flow, (0, times[-1]), start, t_eval=times, rtol=1e-9, atol=1e-12)
    squares = [np.sum((H - H @ average) ** 2) for H in (split(s)[1] for s in run.y.T)]
    return times[1:], np.log(np.array(squares[1:]) / squares[0])


@inducing.abstract("a", instance=True)
@cases(sizes=(20, 5, 2), decay=0.05, pull=0.1, size=1.0)
@full(sizes=[(2, 2), (20, 5, 2)], decay=0.05, pull=[0.0, 0.1, 1.0], size=[3.0, 1.0])
@space(sizes=Real(2, 8.9, size=3), decay=Real(0.01, 0.5), pull=Real(0.0, 1.0), size=Real(0.1, 2.0))
@breaks("a loss that is not convex in the logits", slope=reversed_slope)
@breaks("samples of one class with different labels", wrong=3, size=0.1, pull=0.0, decay=0.01)
def intra_class_term_contracts_exactly(
    sizes, decay, pull, size, seed, slope=entropy_slope, wrong=0
):
    r"""add $\frac\lambda2\|W\|^2+\frac\lambda2\|H\|^2+\frac\mu2\sum_i\|h_i-\bar h_{y_i}\|^2$
    (pull: $\mu$) to a loss that is convex in the logits $Wh_i$ and the same for all samples of a
    class: under gradient flow of $W$ and $H$ the sum $D$ of the squared deviations from the class
    means has $D(t)\le e^{-2(\lambda+\mu)t}D(0)$, whatever the class sizes."""
    n = tuple(int(v) for v in sizes)
    times, fall = deviation_flow(n, 4, decay, pull, size, slope, wrong, seed)
    bound = theory("rate", 2 * (decay + pull)) * times
    return compare(within(-fall, 1e-6, "Runge-Kutta at relative tolerance 1e-9"), ">=", bound)


@simulation
def sparse(n_classes, dimension, sparsity, disjoint, seed):
    """A frame on random supports that meet pairwise, or of which two are disjoint."""
    rng = np.random.default_rng(seed)
    share = sparsity if dimension >= n_classes else 0.0
    mask = nc.random_supports(n_classes, dimension, sparsity=share, rng=rng)
    while len(nc.disjoint_pairs(mask)):
        mask = nc.random_supports(n_classes, dimension, sparsity=share, rng=rng)
    if disjoint:
        half = np.arange(dimension) < dimension // 2
        mask[:2] = half, ~half
    return nc.sparse_etf(mask, rng=rng, restarts=3), mask


@fedloge.abstract("a", instance=True)
@cases(n_classes=8, dimension=16, sparsity=0.5)
@full(n_classes=10, dimension=[64, 20], sparsity=[0.0, 0.3, 0.5])
@space(n_classes=Int(8, 10), dimension=Int("2 * n_classes", 40), sparsity=Real(0.0, 0.5))
@breaks("two disjoint supports", disjoint=True)
@breaks("d = K - 2", lambda case: {"dimension": case["n_classes"] - 2})
def sparse_etf_existence(n_classes, dimension, sparsity, seed, disjoint=False):
    r"""$K$ rows in $\mathbb R^d$ with given supports form a simplex ETF only if every two supports
    meet; two disjoint ones leave an error of $\frac1{K-1}$ in the Gram matrix, the least one.
    Random supports with a share of zeros (sparsity), $d\ge2K$, that meet pairwise carry an ETF on
    all judged instances (numerical: Newton's method converges by Kantorovich's test)."""
    found, _ = sparse(n_classes, dimension, sparsity, disjoint, seed)
    split, mask = sparse(n_classes, dimension, sparsity, True, seed)
    level, target = theory("error", 1 / (n_classes - 1)), np.full((n_classes, n_classes), -1.0)
    target = (n_classes * np.eye(n_classes) + target) / (n_classes - 1)
    rows = mask * np.random.default_rng(seed).standard_normal((20, *mask.shape))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    errors = np.abs(rows @ np.moveaxis(rows, 1, 2) - target).max(axis=(1, 2))
    exists = family({"these supports": found.status is nc.SparseStatus.EXISTS})
    return {
        "exists": compare(exists, "==", 1),
        "disjoint": compare(within(split.error, 1e-9, "stopping rule, rounding"), "==", level),
        "never less": compare(
            within([*errors, split.error], 1e-9, "stopping rule, rounding"), ">=", level
        ),
    }


@simulation
def pruned(n_classes, dimension, decay, trained, seed, horizon=3.0):
    """Features under gradient flow of cross-entropy with a fixed (or trained) sparse frame: their
    part off its row space at the start and at time ``horizon`` / decay."""
    frame = sparse(n_classes, dimension, 0.5, False, seed)[0].weights
    rng = np.random.default_rng(seed)
    H, y = rng.standard_normal((dimension, 8)), rng.integers(n_classes, size=8)

    def flow(t, state):
        W, H = state[: frame.size].reshape(frame.shape), state[frame.size :].reshape(dimension, 8)
        in_W, in_H = entropy_slope(W, H, y)
        return np.concatenate([-trained * in_W.ravel(), (-in_H - decay * H).ravel()])

    start = np.concatenate([frame.ravel(), H.ravel()])
    run = solve_ivp(flow, (0, horizon / decay), start, rtol=1e-9, atol=1e-12)
    basis = np.linalg.svd(frame)[2][: n_classes - 1]
    ends = [h - basis.T @ (basis @ h) for h in (H, run.y[frame.size :, -1].reshape(dimension, 8))]
    return ends[0], ends[1]


@fedloge.abstract("a", instance=True)
@cases(n_classes=5, dimension=12, decay=0.05)
@space(n_classes=Int(3, 6), dimension=Int("2 * n_classes", 16), decay=Real(0.05, 0.5))
@breaks("the classifier is trained too", trained=1.0)
def fixed_classifier_prunes_off_its_row_space(n_classes, dimension, decay, seed, trained=0.0):
    r"""features under gradient flow of a differentiable loss of $Wh$ (here cross-entropy) plus
    $\frac\lambda2\|h\|^2$, $W$ fixed: the part of $h$ orthogonal to the rows of $W$ decays exactly
    like $e^{-\lambda t}$, whatever the labels (judged at $\lambda t=3$, sparse ETF)."""
    start, end = pruned(n_classes, dimension, decay, trained, seed)
    factor = theory("decay", np.exp(-3.0))
    return compare(
        within(end, 1e-7, "Runge-Kutta at relative tolerance 1e-9"), "==", factor * start
    )


@vne.abstract("a", "b", "d", instance=True)
@cases(dimension=8, rank=[8, 3], spread=1.0)
@cases(dimension=8, rank=3, spread=0.1)
@full(dimension=20, rank=[1, 3, 5, 7, 10, 13, 16, 18, 20], spread=[0.1, 0.5, 1.0])
@space(dimension=Int(2, 20), rank=Int(1, "dimension"), spread=Real(0.0, 2.0))
@breaks("trace 1/2 instead of 1", trace=0.5, rank=1)
@breaks("an entropy to the base 2", base=2.0)
def vne_rank_bound(dimension, rank, spread, seed, trace=1.0, base=np.e):
    r"""with eigenvalues $\lambda_i$ and $S=-\sum\lambda_i\log\lambda_i$: $e^S\le\mathrm{rank}$,
    with equality where the non-zero $\lambda_i$ are equal, and
    $\sum_i|\lambda_i-\frac1d|\le\sqrt{2(\log d-S)}$, so that $S=\log d$ iff the features are
    isotropic (spread: of the logarithms of the scales)."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0][:, :rank]
    features = (left * np.exp(spread * rng.standard_normal(rank))) @ rng.standard_normal(
        (rank, 200)
    )
    features *= np.sqrt(trace) / np.linalg.norm(features, axis=0)
    entropy = nc.von_neumann_entropy(features, normalise=False) / np.log(base)
    flat = nc.von_neumann_entropy(left) / np.log(base)
    spectrum = np.linalg.eigvalsh(features @ features.T / 200)
    distance = np.abs(spectrum - 1 / dimension).sum()
    entropies = within(np.exp(entropy), 1e-12 * rank, "rounding")
    deficit = np.sqrt(2 * max(np.log(dimension) - entropy, 0.0))
    return {
        "rank": compare(entropies, "<=", theory("rank", rank)),
        "equality": compare(
            within(np.exp(flat), 1e-12 * rank, "rounding"), "==", theory("rank", rank)
        ),
        "isotropy": compare(
            within(distance, 1e-7, "root of the rounding of S"), "<=", theory("deficit", deficit)
        ),
    }


@panel(vne_rank_bound, "$e^S$ never exceeds the rank", x="rank", y="$e^S$")
def _(pen, runs):
    pen.theory([1, 20], [1, 20], "rank")
    for k, s in enumerate((0.1, 0.5, 1.0), start=1):
        pen.points(*runs.measured("rank", where={"spread": s}), f"spread {s}", k=k)
    pen.broken(*runs.measured("rank", control="trace 1/2 instead of 1"), label="trace 1/2")


def gaussian_correlation(C):
    """Total correlation of a Gaussian, by the chain rule: each coordinate given those before."""
    total = 0.0
    for i in range(1, len(C)):
        left = C[i, i] - C[i, :i] @ np.linalg.solve(C[:i, :i], C[:i, i])
        total += 0.5 * np.log(C[i, i] / left)
    return total


def parity_correlation(C):
    """That of three fair signs, one the product of the others: 3 log 2 - log 4, isotropic."""
    return np.log(2.0)


@vne.abstract("c", "e", instance=True)
@cases(dimension=2, spread=1.0, mix=0.3)
@cases(dimension=4, spread=1.0, mix=[0.3, 0.02])
@full(dimension=[2, 3, 6], spread=[0.5, 1.0], mix=[0.05, 0.3, 1.0, 0.02])
@space(dimension=Int(2, 6), spread=Real(0.1, 1.5), mix=Real(0.01, 1.0, log=True))
@breaks("signs, not Gaussian", dimension=3, mix=0.0, correlation=parity_correlation)
def entropy_deficit_is_correlation_plus_imbalance(
    dimension, spread, mix, seed, correlation=gaussian_correlation
):
    r"""zero-mean Gaussian features with $\det C>0$, eigenvalues $\lambda$, diagonal $c$: the total
    correlation is $\frac d2KL(\frac1d\|\lambda)-\frac d2KL(\frac1d\|c)$, and $S(C)\le H(c)$,
    Shannon's entropy of the diagonal; so $S=\log d$ iff the coordinates are independent of equal
    variance, and a deficit $\epsilon=\log d-S$ leaves at most
    $\frac{d\epsilon}2\frac{-\log(1-r)-r}{(1-r)\log(1-r)+r}$, $r=1-d\lambda_{\min}\le
    d\sqrt{\epsilon/2}$ (mix: share of a random $C$ beside $\frac1dI$)."""
    rng, d = np.random.default_rng(seed), dimension
    A = rng.standard_normal((d, 2 * d)) * np.exp(spread * rng.standard_normal((d, 1)))
    C = (1 - mix) * np.eye(d) / d + mix * A @ A.T / np.sum(A**2)
    values, c = np.linalg.eigvalsh(C), np.diag(C)
    spectrum, imbalance = (-0.5 * np.log(d * v).sum() for v in (values, c))
    entropy, diagonal = (-(v * np.log(v)).sum() for v in (values, c))
    deficit, r = max(np.log(d) - entropy, 0.0), max(1 - d * values.min(), 0.0)
    measured = within(correlation(C), 1e-13 * d / values.min(), "rounding, by the condition of C")
    limit = d * deficit / 2 * nc.correlation_factor(r)
    return {
        "correlation": compare(
            measured, "==", theory("spectrum", spectrum) - theory("imbalance", imbalance)
        ),
        "diagonal": compare(within(entropy, 1e-13, "rounding"), "<=", theory("diagonal", diagonal)),
        "deficit": compare(measured, "<=", theory("limit", limit)),
        "least": compare(
            within(r, 1e-6, "root of the rounding of S"),
            "<=",
            theory("Pinsker", d * np.sqrt(deficit / 2)),
        ),
    }


if __name__ == "__main__":
    run_script(__file__)
