"""Deep linear heads on free features: jumps, and logits of low rank."""

from fractions import Fraction
from functools import reduce

import numpy as np
import sympy as sp
from flint import arb
from scipy.optimize import minimize

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

KEY = "dang2023-neural"
squared = paper(
    KEY,
    r"$\min\frac1{2N}\|W_M\cdots W_1H-Y\|_F^2+\sum_m\frac{\lambda_m}2\|W_m\|_F^2"
    r"+\frac{\lambda_0}2\|H\|_F^2$, class $k$ with $n_k$ of $N$ samples, widths $\ge K$, no bias, "
    r"$L=M+1$, $\Lambda=\prod_{m\ge0}\lambda_m$, $\tau_k=N^{M+1}\Lambda/n_k^M$:",
)
entropy = paper(
    KEY,
    r"$M$ linear layers on free features, cross-entropy, $K$ classes of $n$ samples, decays "
    r"$\lambda_0,\dots,\lambda_M$ (of geometric mean $\lambda$) on all $L=M+1$ factors, widths "
    r"$\ge K$:",
)
FIRST = "Garrod and Keating, arXiv 2410.23169, were first to show this for deep models"
UNSEEN = "counterexample to the stated form of the abstract; hypotheses unseen"


def decays(tau, n_k, total, n_layers, uneven):
    """Weight decays with the quotients ``uneven`` at which N^(M+1) Lambda / n_k^M is tau."""
    mean = (tau * n_k**n_layers) ** (1 / (n_layers + 1)) / total
    powers = np.arange(n_layers + 1) - n_layers / 2
    return mean * uneven**powers


@simulation
def minimised(counts, dimension, lams, seed):
    """Factors of the best end, its objective and a proved bound; the search ends at the bound."""
    bound = nc.von_neumann_bound(counts, dimension=dimension, lams=lams)
    end = nc.search_deep_linear(
        counts, dimension=dimension, lams=lams, n_starts=64, target=bound * (1 + 3e-10), seed=seed
    )
    return (*end.layers, end.features), end.objective, bound


def class_ratio(counts, place, dimension, lams, seed):
    """Fit of a class, and a bound of its distance to that at the minimum."""
    factors, objective, bound = minimised(counts, dimension, lams, seed)
    first = sum(counts[:place])
    logits = np.linalg.multi_dot(factors)[place, first : first + counts[place]]
    radius = nc.von_neumann_radius(counts, lams, excess=max(objective - bound, 0.0))
    return logits.mean(), radius / np.sqrt(counts[place])


@squared.abstract("a", "c", instance=True)
@cases(counts=(4, 2), n_layers=2, place=1)
@full(
    counts=(9, 4, 1),
    n_layers=[1, 3, 2],
    tol=5e-3,
    place=2,
    levels=(0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.04),
)
@full(counts=(9, 4, 1), n_layers=2, place=[0, 1], tol=5e-3)
@space(
    counts=Real(1, 10, size=2),
    n_layers=Int(1, 3),
    place=Int(0, 1),
    uneven=Real(0.5, 2),
    wider=Int(0, 2),
)
@breaks("one dimension short", lambda case: {"wider": -1, "place": len(case["counts"]) - 1})
@breaks("the largest stationary point instead", formula=nc.stationary_ratio)
def mse_deep_lengths_and_jump_threshold(
    counts,
    n_layers,
    place,
    seed,
    levels=(0.3, 0.97, 1.04),
    uneven=1.0,
    wider=0,
    formula=nc.collapse_ratio,
    tol=4e-2,
):
    r"""at the minimum the fit $q$ of class $k$ is the largest root of $(1-q)^{M+1}q^{M-1}=\tau_k$
    if $\tau_k<(M-1)^{M-1}/M^{2M}$, and 0 beyond: for $M\ge2$ it jumps from $1-1/M$ to 0; the value
    is $\sum_k\frac{n_k(1-q_k)^2}{2N}+\frac L2\Lambda^{1/L}(\sqrt{n_k}q_k)^{2/L}$."""
    n = np.array(counts).astype(int)
    sizes, N, depth = tuple(n.tolist()), n.sum(), n_layers + 1
    critical, d = nc.jump_threshold(n_layers), len(sizes) + wider

    def at(tau):
        return decays(tau, n[place], N, n_layers, uneven)

    def dies(tau):
        ratio, error = class_ratio(sizes, place, d, at(tau), seed)
        least = 0.1 if n_layers > 1 else 1e-3  # of a survivor; with one layer it tends to 0
        return bool(ratio < least) if abs(ratio - least) > error else None

    tau = np.array(levels) * critical
    ratio, error = np.transpose([class_ratio(sizes, place, d, at(t), seed) for t in tau])
    ends = np.array([minimised(sizes, d, at(t), seed)[1:] for t in tau])
    q = np.nan_to_num(formula((tau[:, None] * (n[place] / n) ** n_layers).ravel(), n_layers))
    q = q.reshape(len(tau), len(n))
    fit = (n * (1 - q) ** 2).sum(axis=1) / (2 * N)
    price = np.exp([np.log(at(t)).mean() for t in tau])
    penalty = depth / 2 * price * ((np.sqrt(n) * q) ** (2 / depth)).sum(axis=1)
    jump = switch(dies, bracket=(0.97 * critical, 1.04 * critical), tol=tol)
    return {
        "threshold": compare(jump, "==", theory("threshold", critical)),
        "fit": compare(
            within(ratio, error, "growth of the certified excess"), "==", theory("fit", q[:, place])
        ),
        "value": compare(between(*ends.T), "==", theory("loss", fit) + theory("penalty", penalty)),
    }


@panel(
    mse_deep_lengths_and_jump_threshold,
    "With two layers or more a class dies by a jump",
    x=r"$\tau_k$ over its threshold",
    y="fit $q$ of the class",
)
def _(pen, runs):
    for k, M in enumerate((1, 2, 3)):
        level = np.linspace(0, 1.1, 1111)
        curve = nc.collapse_ratio(level * nc.jump_threshold(M), M)
        pen.theory(level, curve, f"$M={M}$", k=k)
        pen.points(*runs.measured("levels", "fit", where={"n_layers": M}), k=k)


def powers(Z, radius, theta, right):
    """(Z'Z)^theta or (ZZ')^theta of logits of full rank, and a bound of the distance in Frobenius
    norm to that of any logits within the radius."""
    left, s, back = np.linalg.svd(Z, full_matrices=False)
    vectors, top, low = (back.T if right else left), s[0] + radius, (s[-1] - radius) ** 2
    moved = 2 * top * radius  # of ZZ'; t^theta is operator monotone
    error = theta * low ** (theta - 1) * moved
    if right:  # the polar factor moves by the radius over the least singular value (Li and Sun)
        error += 2 * top ** (2 * theta) * radius / np.sqrt(low)
    return (vectors * s ** (2 * theta)) @ vectors.T, error if s[-1] > 2 * radius else np.inf


def add(record, gram, unit, power, expected):
    """Append a Gram matrix, its error (at the minimum layers are balanced: then it is unit times
    the power), and what is expected of it."""
    found = gram, np.linalg.norm(gram - unit * power[0]) + unit * power[1], expected
    for values, value in zip(record, found, strict=True):
        values.append(value)


@squared.abstract("a", "c", instance=True)
@cases(counts=(6, 4, 3), n_layers=2, level=0.1)
@cases(counts=(5, 5, 5), n_layers=3, level=0.2)
@full(counts=[(6, 4, 3), (5, 5, 5), (9, 4, 1)], n_layers=[1, 2, 3], level=[0.02, 0.3, 0.8])
@space(
    counts=Real(1, 8, size=3),
    n_layers=Int(1, 3),
    level=Real(0.01, 0.97),
    uneven=Real(0.5, 2.0),
    wider=Int(0, 2),
)
@breaks("widths K - 1", wider=-1)
def collapse_at_every_layer(counts, n_layers, level, seed, uneven=1.5, wider=0):
    r"""where all $\tau_k$ are below the threshold, $p_k=\sqrt{n_k}q_k$ of the jump law: at the
    minimum and for every $m=0,\dots,M$ the features $h^{(m)}=W_m\cdots W_1h$ are equal within
    classes and orthogonal between them, of squared length
    $\Lambda^{(m+1)/L}p_k^{2(m+1)/L}/(n_k\lambda_0\cdots\lambda_m)$; the rows of $W_M\cdots W_{m+1}$
    are orthogonal too, of squared length
    $\Lambda^{(M-m)/L}p_k^{2(M-m)/L}/(\lambda_{m+1}\cdots\lambda_M)$, and parallel to the
    $h^{(m)}_k$: their products are $p_k/\sqrt{n_k}=q_k$ (level: largest $\tau_k$ over the
    threshold)."""
    n = np.array(counts).astype(int)
    sizes, N, M, L = tuple(n.tolist()), n.sum(), n_layers, n_layers + 1
    lams = decays(level * nc.jump_threshold(M), n.min(), N, M, uneven)
    factors, objective, bound = minimised(sizes, len(sizes) + wider, lams, seed)
    radius = nc.von_neumann_radius(sizes, lams, excess=max(objective - bound, 0.0))
    labels, price = np.repeat(np.arange(len(n)), n), np.exp(np.log(lams).mean())
    p = np.sqrt(n) * nc.collapse_ratio(level * nc.jump_threshold(M) * (n.min() / n) ** M, M)
    logits, fits = reduce(np.matmul, factors), np.diag(p / np.sqrt(n))[:, labels]
    features, rows = ([], [], []), ([], [], [])
    for m in range(L):
        H, unit = reduce(np.matmul, factors[M - m :]), price ** (m + 1) / lams[M - m :].prod()
        squares = unit * p ** (2 * (m + 1) / L) / n
        expected = np.where(labels[:, None] == labels, squares[labels], 0)
        add(features, H.T @ H, unit, powers(logits, radius, (m + 1) / L, True), expected)
        if m < M:
            W, unit = reduce(np.matmul, factors[: M - m]), price ** (M - m) / lams[: M - m].prod()
            expected = np.diag(unit * p ** (2 * (M - m) / L))
            add(rows, W @ W.T, unit, powers(logits, radius, (M - m) / L, False), expected)
    source = "imbalance of the layers, certified excess"
    ends = {"features": features, "rows": rows, "logits": ([logits], [radius], [fits])}
    return {
        name: compare(
            within(found, np.reshape(errors, (-1, 1, 1)), source),
            "==",
            theory(name, np.array(expected)),
        )
        for name, (found, errors, expected) in ends.items()
    }


def witness(K, n, lams):
    """The best of pairs (K even); or of pairs and a triple, a polygon, pairs and one class."""
    shapes = [nc.simplex_sum_logits([2] * (K // 2 - K % 2) + [3] * (K % 2))]
    if K % 2:
        shapes += [nc.polygon_logits(K), nc.pairs_and_one_logits(K)]
    points = [nc.best_scale(shape, (n,) * K, lams) for shape in shapes]
    return min(points, key=lambda point: point.objective)


@simulation
def certified(point, lams):
    """A proved upper bound of the objective at a point without bias."""
    return nc.certified_objective(point.features, point.layers, point.counts, lams, loss="ce")


def weight_decays(n_layers, lam, uneven=1.0):
    """Decays of geometric mean lam; only their product matters."""
    return lam * uneven ** (np.arange(n_layers + 1) - n_layers / 2)


@entropy.ours(UNSEEN)
@cases(n_classes=4, n_layers=3, lam=1e-2)
@cases(n_classes=5, n_layers=2, lam=[1e-3, 3e-3])
@cases(n_classes=6, n_layers=2, lam=3e-3)
@full(n_classes=4, n_layers=[3, 4], lam=[1e-3, 1e-2])
@full(n_classes=[5, 7, 8, 9, 10, 6], n_layers=[3, 4, 2], lam=[1e-3, 3e-3])
@space(
    n_classes=Int(4, 10),
    n_layers=Int("3 if n_classes == 4 else 2", 4),
    n=Int(1, 3),
    lam=Real(1e-3, 4e-3, log=True),
    uneven=Real(0.5, 2.0),
)
@breaks("one layer", n_layers=1)
@breaks("four classes, two layers", n_classes=4, n_layers=2)
@breaks("decay beyond which the logits vanish", lam=1.0)
@note(contradicts="b", credit=FIRST)
def deep_ce_etf_is_not_global(n_classes, n_layers, lam, n=1, uneven=1.0):
    r"""every point whose logits are a simplex ETF, at any scale and with any bias, free or
    penalised, is strictly above another point with bias 0 (for even $K$ one with cross-polytope
    logits): the simplex ETF is not the global minimizer."""
    lams = weight_decays(n_layers, lam, uneven)
    better = certified(witness(n_classes, n, lams), lams)
    return compare(
        Fraction(better),
        "<",
        Fraction(theory("ETF", nc.etf_bound(n_classes, n_per_class=n, lams=lams))),
    )


@panel(
    deep_ce_etf_is_not_global,
    "The simplex ETF is not the global minimizer",
    x="classes $K$",
    y="certified objective, decay 0.003",
)
def _(pen, runs):
    for k, M in enumerate((2, 3, 4)):
        at = {"n_layers": M, "lam": 3e-3}
        pen.theory(*runs.predicted("n_classes", where=at), f"best ETF, $M={M}$", k=k)
        pen.points(*runs.measured("n_classes", where=at), f"another point, $M={M}$", k=k)


@entropy.ours(UNSEEN)
@cases(n_classes=[6, 7], n_layers=2)
@cases(n_classes=[5, 4], n_layers=3)
@full(n_classes=[*range(6, 21), 101, 100], n_layers=[2, 3, 7])
@full(n_classes=[5, 4], n_layers=[3, 7])
@space(n_classes=Int(4, 200), n_layers=Int("3 if n_classes < 6 else 2", 20))
@breaks("one layer", n_classes=6, n_layers=1)
@breaks("four classes, two layers", n_classes=4, n_layers=2)
@note(contradicts="b", credit=FIRST)
def deep_ce_blocks_beat_etf_at_every_scale(n_classes, n_layers):
    r"""orthogonal simplex logits in blocks of $\kappa_j=2$ classes (and one of 3 if $K$ is odd), at
    gap $s>0$ between blocks and $s+\frac s{\kappa_j-1}$ inside, have partition sums below that of
    the simplex ETF of gap $s$ by $(\kappa_j-1)e^{-s}(1-e^{-s/(\kappa_j-1)})$, and the smaller
    penalty, $\sum_j(\kappa_j-1)(\kappa_j/(\kappa_j-1))^{2/L}<K-1$: no ETF of positive scale is a
    global minimizer, for any decays and $n$, with or without bias."""
    x, y = sp.symbols("x y")  # exp(-s), exp(-s / (kappa - 1))
    K, found, expected = n_classes, [], []
    for kappa in (2, 3):
        frame, blocks = 1 + (K - 1) * x, 1 + (K - kappa) * x + (kappa - 1) * x * y
        found += sp.Poly(frame - blocks, x, y).coeffs()
        expected += [1 - kappa, kappa - 1]  # of x y, and of x
    pairs, triples, L = n_classes // 2 - n_classes % 2, n_classes % 2, n_layers + 1
    price = pairs * (arb(2) ** 2).root(L) + triples * 2 * ((arb(3) / 2) ** 2).root(L)
    return {
        "penalty": compare(price, "<", theory("ETF", K - 1)),
        "loss": compare(found, "==", theory("loss", expected)),
    }


@entropy.ours(UNSEEN)
@cases(n_layers=4, lam=[1e-3, 1e-2])
@full(n_layers=[5, 6, 4], lam=[1e-3, 3e-3, 1e-2])
@space(n_layers=Int(4, 8), lam=Real(1e-3, 1e-2, log=True), n=Int(1, 3))
@breaks("two layers", n_layers=2)
@note(contradicts="b")
def deep_ce_cross_polytope_is_not_always_best(n_layers, lam, n=1):
    r"""for $K=6$, no bias: logits of a regular hexagon (rank 2) are strictly below those of all
    cross-polytopes (rank 3), at any scale; so the cross-polytope, which beats the ETF, is not the
    global minimizer either."""
    lams = weight_decays(n_layers, lam)
    hexagon = certified(nc.best_scale(nc.polygon_logits(6), (n,) * 6, lams), lams)
    bound = theory("cross-polytope", nc.simplex_sum_bound([2, 2, 2], n_per_class=n, lams=lams))
    return compare(Fraction(hexagon), "<", Fraction(bound))


@simulation
def biased_witness(K, lams, lam_b):
    """One pair of opposite classes, what is left (a class, or a weaker pair) lifted by a bias."""
    logits, bias = np.zeros((K, K)), np.r_[0.0, np.ones(K - 2), 0.0]
    logits[np.ix_([0, -1], [0, -1])] = [[1, -1], [-1, 1]]
    if K == 4:
        logits[1:3, 1:3] = [[0.45, -0.45], [-0.45, 0.45]]
    base = nc.best_scale(logits, np.ones(K, int), lams)

    def value(theta, objective):
        H, layers = base.class_features * theta[0], [W * theta[0] for W in base.layers]
        b = theta[1] * bias
        return objective(H, layers, (1,) * K, lams, loss="ce", bias=b, lam_b=lam_b)

    # Near gaps of 4 between the pair, the lifted classes and zero; any point gives a valid bound.
    start = [(8 / base.class_logits[0, 0]) ** (1 / len(lams)), 4.0]
    best = minimize(value, start, (nc.deep_linear_objective,), "Nelder-Mead", tol=1e-8).x
    return value(best, nc.certified_objective)


@entropy.ours(UNSEEN)
@cases(size=[(4, 2), (3, 3)], lam=1e-2)
@full(size=[(4, 2), (3, 4), (3, 3)], lam=[7e-3, 1e-2])
@space(size=Choice([(3, 3), (3, 4), (4, 2)]), lam=Real(7e-3, 1e-2))
@breaks("bias penalised like the layers", lam_b=1e-2)
@note(contradicts="b", credit=FIRST)
def deep_ce_free_bias_beats_etf(size, lam, lam_b=0.0):
    r"""with a bias that is not penalised every point whose logits are a simplex ETF is strictly
    above another point also for few classes ($n=1$; sizes are $(K,M)$), where without bias the
    ETF is the best point found."""
    K, n_layers = size
    lams = weight_decays(n_layers, lam)
    bound = theory("ETF", nc.etf_bound(K, n_per_class=1, lams=lams))
    return compare(Fraction(biased_witness(K, lams, lam_b)), "<", Fraction(bound))


CROSSINGS = {
    (4, 2): 0.0117605,
    (3, 2): 0.173484,
    (3, 3): 0.131977,
    (3, 4): 0.108621,
    (3, 6): 0.0816421,
    (3, 8): 0.0659387,
}


@entropy.ours(UNSEEN)
@cases(size=[(4, 2), (3, 3)])
@full(size=list(CROSSINGS), tol=2e-4)
@space(size=Choice(list(CROSSINGS)), n=Int(1, 5), uneven=Real(0.5, 2.0))
@breaks("one more layer", more=1)
@note(contradicts="b")
def deep_ce_etf_loses_above_a_decay(size, n=1, uneven=1.0, more=0, tol=1e-2):
    r"""without bias, sizes $(K,M)$: the best multiple of another shape (the cross-polytope for
    $K=4$, one pair of opposite classes and a third at zero for $K=3$) falls below all simplex ETFs
    where $\lambda n^{1/L}$ passes .01176 for $(4,2)$, and .17348, .13198, .10862, .08164, .06594
    for $K=3$, $M=2,3,4,6,8$, and is below them up to 1.06 times that (the logits vanish further
    on)."""
    K, n_layers = size[0], size[1] + more
    shape = nc.simplex_sum_logits([2, 2]) if K == 4 else np.outer([1, 0, -1.0], [1, 0, -1.0])

    def wins(level):
        lams = weight_decays(n_layers, level / n ** (1 / (n_layers + 1)), uneven)
        point = nc.best_scale(shape, (n,) * K, lams)
        return bool(certified(point, lams) < nc.etf_bound(K, n_per_class=n, lams=lams))

    around = (0.8 * CROSSINGS[size], 1.06 * CROSSINGS[size])
    return compare(switch(wins, bracket=around, tol=tol), "==", theory("crossing", CROSSINGS[size]))


@simulation
def searched(n_classes, lams, lam_b, seed):
    """The least objective that multi-start search finds, with or without a penalised bias."""
    found = nc.search_deep_linear(
        (1,) * n_classes,
        lams,
        dimension=n_classes,
        loss="ce",
        bias=lam_b > 0,
        lam_b=lam_b,
        n_starts=16,
        seed=seed,
    )
    return found.objective


@entropy.ours("where the abstract's statement is not contradicted: a search, no proof", serves="b")
@cases(size=[(4, 2), (3, 3)], below=0.8)
@full(size=[(4, 2), (2, 2), (2, 4), (3, 2), (3, 4), (3, 3)], below=[0.1, 0.5, 0.9])
@space(size=Choice([(3, 2), (3, 3), (4, 2)]), below=Real(0.1, 0.9))
@breaks("five classes, two layers", size=(5, 2))
@breaks("decay above the crossing", below=1.06)
def deep_ce_etf_survives_for_few_classes(size, below, seed, lam_b=0.0):
    r"""for sizes $(K,M)$, $n=1$, without bias, and $\lambda$ below its crossing (below: quotient of
    the two; $\lambda=.1$ for $K=2$), multi-start search finds nothing below the best simplex
    ETF, and ends there."""
    lam = below * CROSSINGS.get(size, 0.1 if size[0] == 2 else 0.01)
    lams = weight_decays(size[1], lam)
    etf = nc.best_scale(nc.simplex_sum_logits([size[0]]), (1,) * size[0], lams).objective
    found = searched(size[0], lams, lam_b, seed)
    return compare(within(found, 1e-8 * found, "stopping rule of L-BFGS"), "==", theory("ETF", etf))


if __name__ == "__main__":
    run_script(__file__)
