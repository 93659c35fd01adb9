"""Colour transfer between two photographs: sparse plans keep the colours, entropy greys them."""

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.datasets import load_sample_images

from theorylab import optimal_transport as ot
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
    theory,
    within,
)
from theorylab.verify.cli import run_script

colours = paper(
    "liu2022-sparsity",
    r"A picture's pixels in $m$ classes of colour $x_j$ and weight $a_j$, the palette of another, "
    r"$n$ colours $y_i$ of weight $b_i$, $C_{ij}=\|y_i-x_j\|^2$, a plan $P$ between them, each "
    r"pixel of class $j$ recoloured to $T_j=\frac1{a_j}\sum_iP_{ij}y_i$:",
)


def picture(which, factor):
    """A photograph, a temple (0) or a dahlia (1), by means of blocks, in [0, 1]."""
    image = load_sample_images().images[which] / 255.0
    rows, columns = (size // factor for size in image.shape[:2])
    image = image[: rows * factor, : columns * factor]
    return image.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))


def palettes(source, n, m, factor, seed):
    found = [
        ot.extract_palette(picture(which, factor), n_colours=size, seed=seed)
        for which, size in ((source, m), (1 - source, n))
    ]
    return found, cdist(found[1].colours, found[0].colours, "sqeuclidean")


PLANS = {
    "exact": lambda b, a, C, weight: ot.exact_plan(b, a, C).plan.toarray(),
    "sparse": lambda b, a, C, weight: ot.sparse_plan(b, a, C, weight, k=2).plan.toarray(),
    "quadratic": lambda b, a, C, weight: ot.quadratic_plan(b, a, C, weight).plan.toarray(),
    "entropic": lambda b, a, C, weight: ot.sinkhorn_plan(b, a, C, weight, tol=1e-12).plan,
    "product": lambda b, a, C, weight: np.outer(b, a),
    "nearest": lambda b, a, C, weight: np.equal(C, C.min(axis=0)) * a,
}


@simulation
def recoloured(source, n, m, factor, method, weight, seed):
    """The recoloured picture; mean and variance of the palette; variance lost in mixing."""
    (pixels, palette), C = palettes(source, n, m, factor, seed)
    P = PLANS[method](palette.weights, pixels.weights, C, weight)
    image = ot.recolour(pixels, ot.barycentric_map(P.T, palette.colours))
    mean = palette.weights @ palette.colours
    variance = palette.weights @ ((palette.colours - mean) ** 2).sum(axis=1)
    return image, mean, variance, ot.mixing(P.T, palette.colours).lost


@colours.ours("derived: the law of total variance")
@cases(method=["exact", "sparse", "quadratic", "entropic", "product"])
@full(method="exact", factor=6, m=64)
@full(method=["sparse", "quadratic"], factor=6, m=64, weight=[0.3, 3.0])
@full(method="entropic", factor=6, m=64, weight=[0.02, 0.1, 0.5])
@space(
    source=Choice((0, 1)),
    method=Choice(("exact", "sparse", "quadratic", "entropic", "product")),
    n=Int(2, 16),
    m=Int(8, 48),
    weight=Real(0.05, 3.0, log=True),
)
@breaks("every class takes the nearest colour", method="nearest")
def mixing_greys_a_picture(method, seed, source=0, n=12, m=32, factor=8, weight=0.3):
    r"""for every plan the recoloured picture has the mean colour of the palette, and the palette's
    variance less the mean variance within a class, $\sum_{ij}P_{ij}\|y_i-T_j\|^2$ (over the
    palette's variance)."""
    image, mean, variance, lost = recoloured(source, n, m, factor, method, weight, seed)
    pixels = image.reshape(-1, 3)
    kept = pixels.var(axis=0).sum() / variance
    left = theory("palette", 1.0) - theory("mixing", lost / variance)
    return {
        "variance": compare(within(kept, 1e-8, "marginal error of the plan"), "==", left),
        "mean": compare(
            within(pixels.mean(axis=0), 1e-8, "marginal error of the plan"),
            "==",
            theory("mean", mean),
        ),
    }


SHOWN = {"source": 0, "n": 12, "m": 64, "factor": 6}


@panel(mixing_greys_a_picture, "Pixels of one, palette of the other", x="", y="")
def _(pen, runs):
    (pixels, palette), _ = palettes(**SHOWN, seed=runs.judgement.seed)
    pen.picture(ot.recolour(pixels, pixels.colours), "a picture, in 64 classes")
    pen.picture(ot.recolour(palette, palette.colours), "the 12 colours to give it")


def show(*plans):
    def draw(pen, runs):
        for method, weight, label in plans:
            shown = SHOWN | {"method": method, "weight": weight, "seed": runs.judgement.seed}
            image, _, variance, _ = recoloured(**shown)
            kept = image.reshape(-1, 3).var(axis=0).sum() / variance
            pen.picture(image, f"{label}: {kept:.0%} kept")

    return draw


panel(mixing_greys_a_picture, "Few colours a class: the palette survives", x="", y="")(
    show(("exact", 0.3, "exact"), ("sparse", 0.3, r"$k=2$"))
)
panel(mixing_greys_a_picture, "Entropy mixes them: the picture greys", x="", y="")(
    show(("entropic", 0.1, r"$\epsilon=0.1$"), ("entropic", 0.5, r"$\epsilon=0.5$"))
)


@simulation
def taken(source, n, m, k, gamma, entries, factor, seed):
    """Semi-dual of k at the potential found, relaxed objective of the plan for that many entries a
    class, colours that each class takes."""
    (pixels, palette), C = palettes(source, n, m, factor, seed)
    a, b = pixels.weights, palette.weights
    run = ot.sparse_plan(b, a, C, gamma, k=k, tol=1e-7)
    f = run.potentials[0]
    lower = f @ b - ot.top_k_plan(f, a, C, gamma, k=k)[1].sum()
    if entries is not None:
        run = ot.sparse_plan(b, a, C, gamma, k=entries, tol=1e-7)
    P = run.plan.toarray()
    upper = (C * P).sum() + gamma / 2 * sum(ot.support_norm(p, k=k) for p in P.T)
    return lower, upper, run.marginal_error, np.sum(P / a > 1e-6, axis=0)


@colours.ours("derived: an extreme point of the optimal plans (Shapley and Folkman)", serves="b")
@cases(source=[0, 1], k=[1, 3])
@full(source=[0, 1], k=[1, 2, 3, 5, 4], m=64, factor=6)
@space(
    source=Choice((0, 1)),
    n=Int(2, 12),
    m=Int(8, 48),
    k=Int(1, "min(n, 4)"),
    gamma=Real(0.3, 10.0, log=True),
)
@breaks("as many entries as colours", entries=12)
def classes_take_few_colours(source, k, seed, n=12, m=32, gamma=3.0, factor=8, entries=None):
    r"""the maximum $D_k$ of the semi-dual of $\min_P\langle C,P\rangle+\frac\gamma2\|P\|_F^2$
    under at most $k$ colours a class is $\langle C,P\rangle+\frac\gamma2\sum_j\|p_j\|_k^2$ (the
    $k$-support norms of the columns, Euclidean up to $k$ entries) of a plan with at most $n-1$
    entries beyond $k$ a class, summed over the classes; so all but $n-1$ of them take at most $k$
    colours (entries above $10^{-6}a_j$; the relative gap is 0)."""
    lower, upper, missing, count = taken(source, n, m, k, gamma, entries, factor, seed)
    gap = within(
        upper / lower - 1, 1e-6 + 3 * missing / lower, "tolerance of the solver, marginal error"
    )
    return {
        "beyond": compare(int(np.maximum(count - k, 0).sum()), "<=", theory("colours", n - 1)),
        "gap": compare(gap, "==", theory("gap", 0.0)),
    }


@panel(
    classes_take_few_colours,
    r"At most $n-1$ entries beyond $k$ a class",
    x="$k$",
    y="entries beyond $k$, all classes",
)
def _(pen, runs):
    pen.theory([1, 5], [11, 11], "$n-1$", k=6)
    for source, name in enumerate(("temple", "dahlia")):
        pen.points(*runs.measured("k", "beyond", where={"source": source}), name, k=4 + source)


@simulation
def contrast(source, n, m, eps, power, factor, seed):
    """eps^2 times the variance that the entropic plan keeps; the closed form; a bound of eps times
    the l2 distance of T from its first order.

    With s = 2 (x - mean)(y - mean), |s| <= S, the plan's density is exp(t), |t| <= 4 S / eps, and
    its marginals hold each potential to q = t^2 e^|t| / 2: the distance is at most 2 q sigma_y."""
    (pixels, palette), C = palettes(source, n, m, factor, seed)
    a, b = pixels.weights, palette.weights
    x, y = (p.colours - p.weights @ p.colours for p in (pixels, palette))
    P = ot.sinkhorn_plan(b, a, C ** (power / 2), eps, tol=1e-14).plan
    kept = eps**2 * ot.mixing(P.T, palette.colours).kept
    S = 2 * np.abs(x @ y.T).max()
    remainder = 16 * S**2 * np.sqrt(b @ (y**2).sum(axis=1)) * np.exp(4 * S / eps) / eps
    return kept, ot.entropic_contrast(pixels.colours, palette.colours, a, b), remainder


@colours.ours("derived: first order of the entropic plan in 1/eps, with its remainder")
@cases(source=[0, 1], eps=1e4)
@full(source=[0, 1], eps=[3e3, 5e3, 1e4, 3e4], m=64, factor=6)
@space(source=Choice((0, 1)), n=Int(2, 16), m=Int(8, 48), eps=Real(5e3, 3e4, log=True))
@breaks("distance in place of its square", power=1.0)
def entropy_greys_as_the_inverse_square(source, eps, seed, n=12, m=32, power=2.0, factor=8):
    r"""for the least $\langle C,P\rangle+\epsilon\sum_{ij}P_{ij}\log P_{ij}$ the variance of the
    recoloured picture, times $\epsilon^2$, tends to $4\operatorname{tr}\Sigma_x\Sigma_y^2$ as
    $\epsilon\to\infty$, with the covariances of the weighted colours $x_j$ and $y_i$."""
    kept, limit, remainder = contrast(source, n, m, eps, power, factor, seed)
    error = (2 * np.sqrt(kept) + remainder) * remainder + 1e-5 * kept
    measured = within(kept, error, "proved remainder of order 1 / eps; rounding of the plan")
    return compare(measured, "==", theory("contrast", limit))


@panel(
    entropy_greys_as_the_inverse_square,
    "Kept variance falls as $\\epsilon^{-2}$",
    x=r"$\epsilon$",
    y=r"$\epsilon^2\times$ variance kept",
    log="x",
)
def _(pen, runs):
    for source, name in enumerate(("temple", "dahlia")):
        eps, limit = runs.predicted("eps", where={"source": source})
        pen.theory(eps, limit, k=4 + source)
        eps, kept, error = runs.measured("eps", where={"source": source})
        pen.points(eps, kept, error, name, k=4 + source)


if __name__ == "__main__":
    run_script(__file__)
