"""Batch normalisation with orthogonal weights: batches become isometries, gradients stay."""

import numpy as np

from theorylab import random_features as rf
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

EPS = np.finfo(float).eps
chain = paper(
    "meterez2024-towards",
    r"$X_{\ell+1}=\mathrm{BN}(W_\ell X_\ell)$ for a batch $X_0\in\mathbb R^{d\times d}$ of rank "
    r"$d$ (rows are features), $W_\ell$ orthogonal, BN divides each row by its norm; "
    r"$\phi(X)=\log\frac{\|X\|_F^2}d-\frac1d\log\det X^\top X$:",
)


def rotations(d, n, rng):
    return rf.random_rotations(d, n, rng=rng)


def gaussian(d, n, rng):
    """Independent entries of variance 1/d."""
    return rng.standard_normal((n, d, d)) / np.sqrt(d)


def small(d, n, rng):
    """Rotations by small angles."""
    return np.linalg.qr(np.eye(d) + 0.02 * rng.standard_normal((n, d, d)))[0]


def doubled(d, n, rng):
    return 2 * rf.random_rotations(d, n, rng=rng)


def by_columns(X):
    return rf.normalise_rows(X.swapaxes(-1, -2)).swapaxes(-1, -2)


def batch(d, spread, rng):
    """A random batch whose singular values spread evenly in logarithm."""
    left, right = rf.random_rotations(d, 2, rng=rng)
    return (left * np.exp(spread * np.linspace(-1, 1, d))) @ right


@simulation
def gaps(d, spread, depth, law, normalise, seed):
    """Gaps before a layer, after W, after BN; logarithms of arithmetic and geometric mean of the
    squared norms of the rows; bound of the rounding."""
    rng = np.random.default_rng(seed)
    X, rows = batch(d, spread, rng), []
    rounding = 16 * d * EPS * np.exp(2 * spread)
    for W in law(d, depth, rng):
        turned = W @ X
        squares = np.sum(turned**2, axis=1)
        after = normalise(turned)
        means = (np.log(squares.mean()), np.log(squares).mean())
        rows.append([*(float(rf.isometry_gap(Z)) for Z in (X, turned, after)), *means])
        X = after
    return np.array(rows).T, rounding


@chain.abstract("b", instance=True)
@cases(d=6, spread=1.5)
@full(d=[2, 5, 12], spread=[0.5, 2.0])
@space(d=Int(2, 10), spread=Real(0.1, 2.5))
@breaks("Gaussian weights", law=gaussian, depth=8)
@breaks("columns divided by their norms", normalise=by_columns)
def isometry_gap_identity(d, spread, seed, depth=40, law=rotations, normalise=rf.normalise_rows):
    r"""in every realisation $\phi(W_\ell X_\ell)=\phi(X_\ell)$, and $\phi(X_{\ell+1})=
    \phi(X_\ell)-\log\frac1d\sum_ia_i+\frac1d\sum_i\log a_i\le\phi(X_\ell)$, $a_i$ the squared norms
    of the rows of $W_\ell X_\ell$."""
    (before, turned, after, arithmetic, geometric), rounding = gaps(
        d, spread, depth, law, normalise, seed
    )
    return {
        "drop": compare(
            within(turned - after, 2 * rounding, "rounding"),
            "==",
            theory("arithmetic mean", arithmetic) - theory("geometric mean", geometric),
        ),
        "turned": compare(within(turned, rounding, "rounding"), "==", theory("same", before)),
        "monotone": compare(
            within(np.exp(after), 2 * rounding * np.exp(after), "rounding"),
            "<=",
            theory("before", np.exp(before)),
        ),
    }


@simulation
def mean_gaps(d, spread, layers, draws, law, seed):
    """The gap of a batch, and of its images in ``draws`` networks after some layers."""
    rng = np.random.default_rng([seed, 1])
    start = batch(d, spread, rng)
    X, found = np.broadcast_to(start, (draws, d, d)), []
    for layer in range(1, max(layers) + 1):
        X = rf.normalise_rows(law(d, draws, rng) @ X)
        if layer in layers:
            found.append(rf.isometry_gap(X))
    return float(rf.isometry_gap(start)), np.stack(found, axis=1)


@simulation
def near_isometry(d, draws, law, seed):
    """Relative drops of the gap in one layer, at two distances from an isometry."""
    rng = np.random.default_rng([seed, 2])
    S = rng.standard_normal((d, d))
    S = S + S.T
    np.fill_diagonal(S, 0.0)  # as some rotation makes the diagonal of any S of trace zero
    W, found = law(d, draws, rng), []
    for size in (0.02, 0.01):
        X = np.eye(d) + size * S / np.linalg.norm(S)
        found.append(1 - rf.isometry_gap(rf.normalise_rows(W @ X)) / rf.isometry_gap(X))
    return found


@chain.ours("sharpened: the form of the published bound, with a constant", serves="b")
@cases(d=4, spread=1.0, layers=(1, 4, 12, 40))
@full(d=[3, 6, 12], spread=[0.5, 2.0], layers=(1, 4, 12, 40), draws=400, steps=20_000)
@space(d=Int(2, 8), spread=Real(0.1, 2.0))
@breaks("Gaussian weights", law=gaussian, layers=(1, 4, 12))
@breaks("rotations by small angles", law=small)
def isometry_gap_exponential(
    d, spread, seed, layers=(1, 4, 12), draws=200, steps=12_000, law=rotations
):
    r"""for independent uniform (Haar) $W_\ell$,
    $\mathbb E\phi(X_\ell)\le\phi(X_0)e^{-\ell/k}$ with $k=d(d+2)(\frac32+d\phi(X_0))$; to first
    order in the gap a layer lowers its mean by the share $\frac2{d+2}$."""
    start, found = mean_gaps(d, spread, layers, draws, law, seed)
    k = theory("decay length", rf.gap_decay_length(d, start))
    drop, closer = near_isometry(d, steps, law, seed)
    rest = 2 * abs(drop.mean() - closer.mean())
    return {
        "bound": compare(
            mean(found, bias=16 * d * EPS, source="rounding of the gap"),
            "<=",
            start * np.exp(-np.array(layers) / k),
        ),
        "share": compare(
            mean(closer, bias=rest, source="twice the difference to a gap four times as large"),
            "==",
            theory("share", 2 / (d + 2)),
        ),
    }


@panel(
    isometry_gap_exponential,
    r"The mean gap decays at least as $e^{-\ell/k}$ (lines)",
    x=r"layer $\ell$",
    y=r"gap $\phi$",
    log="y",
)
def _(pen, runs):
    for i, d in enumerate((3, 6, 12)):
        where = {"d": d, "spread": 0.5}
        pen.theory(*runs.predicted("layers", "bound", where=where), k=i)
        pen.points(*runs.measured("layers", "bound", where=where), f"$d={d}$", k=i)


@panel(
    isometry_gap_exponential,
    r"Near an isometry a layer removes $2/(d+2)$ of the gap",
    x="width $d$",
    y="share removed",
)
def _(pen, runs):
    d = np.linspace(2.5, 12.5, 50)
    pen.theory(d, 2 / (d + 2), r"$2/(d+2)$")
    pen.points(*runs.measured("d", "share", where={"spread": 0.5}), k=1)
    name = "rotations by small angles"
    pen.broken(*runs.measured("d", "share", control=name), "small angles")


@simulation
def survivors(d, n, layers, draws, law, seed):
    """Squares of gradients of unit size after they passed back through some layers, the batch
    being n columns of an orthogonal matrix."""
    rng = np.random.default_rng([seed, 3])
    L = max(layers)
    X = rf.random_rotations(d, draws, rng=rng)[:, :, :n]
    G = rng.standard_normal((draws, d, n))
    G /= np.linalg.norm(G, axis=(1, 2), keepdims=True)
    W = law(d, draws * L, rng).reshape(draws, L, d, d)
    back = np.sum(rf.batch_norm_signals(X, W, G).gradients ** 2, axis=(2, 3))
    return back[:, L - np.array(layers)]


@simulation
def gradients(d, n, spread, depth, draws, law, seed):
    """Norms of the gradients in the weights, that in the output being 1, and their bounds."""
    rng = np.random.default_rng([seed, 4])
    X = np.stack([batch(d, spread, rng)[:, :n] for _ in range(draws)])
    G = rng.standard_normal((draws, d, n))
    G /= np.linalg.norm(G, axis=(1, 2), keepdims=True)
    W = law(d, draws * depth, rng).reshape(draws, depth, d, d)
    run = rf.batch_norm_signals(X, W, G)
    largest = np.linalg.svd(run.representations[:, :-1], compute_uv=False)[..., 0]
    factors = np.cumprod((1 / run.row_norms.min(axis=2))[:, ::-1], axis=1)[:, ::-1]
    return run.weight_gradients, largest * factors


@chain.ours("sharpened: what the bounded gradients are", serves="ac")
@cases(d=4, spread=1.0)
@full(d=[3, 4, 6], spread=1.0, passed=(1, 2, 3, 20), draws=10_000, networks=40)
@space(d=Int(2, 4), spread=Real(0.1, 1.2))
@breaks("fewer samples than the width", d=8, n=6, draws=6_000)
@breaks("Gaussian weights", law=gaussian)
@breaks("weights twice as large", law=doubled)
def bn_gradient_bounded(
    d, spread, seed, n=None, passed=(1, 2, 3), draws=10_000, networks=30, law=rotations
):
    r"""for independent uniform (Haar) $W_\ell$ and $G$, a gradient of unit size in the output of
    uniform direction: (i) if $X_0$ is orthogonal, the mean square of the gradient in the input of
    the last $s\ge1$ layers is $\frac{d-1}{2d}+\frac{(d-1)(d+2)}{2d^2}(\frac d{d+2})^s$; (ii) in
    every network $\|\nabla_{W_\ell}\|_F\le\|X_\ell\|\prod_{j\ge\ell}\max_i1/|(W_jX_j)_i|$; (iii) of
    $36d$ layers, if the condition number of $X_0$ is at most $e^{2.4}$, $\log\|\nabla_{W_\ell}\|_F$
    at layers $12d$ and $24d$ has the same mean up to $10^{-3}$ (not at any distance: a batch close
    to a singular one is no isometry yet)."""
    n = d if n is None else n
    s = np.array(passed)
    kept = theory("kept", (d - 1) / (2 * d))
    symmetric = theory("symmetric", (d - 1) * (d + 2) / (2 * d**2))
    sizes, bounds = gradients(d, n, spread, 36 * d, networks, law, seed)
    change = np.log(sizes[:, 12 * d]) - np.log(sizes[:, 24 * d])
    return {
        "isometric": compare(
            mean(survivors(d, n, passed, draws, law, seed)),
            "==",
            kept + symmetric * theory("factor", d / (d + 2)) ** s,
        ),
        "every network": compare(
            within(sizes, 1e-9 * sizes, "rounding"), "<=", theory("bound", bounds)
        ),
        "depth": compare(
            mean(change, bias=1e-3, source="the tolerance of the statement"),
            "==",
            theory("change", 0.0),
        ),
    }


@panel(
    bn_gradient_bounded,
    "Gradients of an isometric batch lose their symmetric part, no more",
    x="layers passed $s$",
    y=r"$\mathbb{E}\|G\|^2$",
    log="y",
)
def _(pen, runs):
    s = np.linspace(1, 20, 80)
    for i, d in enumerate((3, 4, 6)):
        shown = (d - 1) / (2 * d) * (1 + (d + 2) / d * (d / (d + 2)) ** s)
        pen.theory(s, shown, k=i)
        pen.points(*runs.measured("passed", "isometric", where={"d": d}), f"$d={d}$", k=i)
    name = "fewer samples than the width"
    pen.broken(*runs.measured("passed", "isometric", control=name), "$d=8$, six samples")


if __name__ == "__main__":
    run_script(__file__)
