"""Infinitely wide and deep classifiers: three kinds, one of them consistent."""

import numpy as np
import sympy as sp

from theorylab.random_features import (
    deep_prediction,
    hilbert_average,
    koenigs_logarithm,
    log_tangent_kernel,
    optimal_weights,
    singularity_exponent,
    stable_vote_error,
)
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
    full,
    mean,
    panel,
    paper,
    simulation,
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "radhakrishnan2023-wide"
deep = paper(
    KEY,
    r"Activation $\varphi=\sum_k\pm\sqrt{p_k}h_k$ in normalised Hermite polynomials "
    r"($k\le3$ but where $h_7$ is named), "
    r"$\sum_kp_k=1$, $g(\xi)=\sum_kp_k\xi^k$, $a=p_1$, $b=g'(1)$, and the infinitely wide network "
    r"of depth $L$ on the unit sphere, with tangent kernel $K_L=g_L+K_{L-1}\,g'(g_{L-1})$ of the "
    r"cosine $\xi$, $K_0=\xi$, $g_L=g\circ\cdots\circ g$:",
)
smoothers = paper(
    KEY,
    r"Labels $\pm1$ of $n$ uniform points on $S^d$, $d\le2$, each wrong with probability "
    r"$p<\frac12$, and the classifier $\operatorname{sign}\sum_iy_i\|x-x_i\|^{-\alpha}$ at the "
    r"centre of a cap that is a share $f$ of the sphere; right labels are 1 in it, $-1$ outside:",
)


def weights(a, share, offset=0.0):
    """Weights on the first three Hermite polynomials, with some on the constant."""
    rest = 1 - a - offset
    return np.array([offset, a, rest * share, rest * (1 - share)])


def increments(t, p, slope_at_0, depth):
    """(T_2L - T_L) / L of T_L = K_L / a^L."""
    T = [
        np.exp(log_tangent_kernel(t, weights=p, depth=L) - L * np.log(slope_at_0))
        for L in (depth, 2 * depth)
    ]
    return (T[1] - T[0]) / depth


def one_depth(t, p, slope_at_0, depth):
    """T_L / (L + 1)."""
    logs = log_tangent_kernel(t, weights=p, depth=depth) - depth * np.log(slope_at_0)
    return np.exp(logs) / (depth + 1)


@simulation
def profile(p, a, r, depth, measure):
    """A measure of the limit of K_L / ((L + 1) a^L) at distances r, at a depth and half of it."""
    t = np.log1p(-(np.asarray(r) ** 2) / 2)
    return measure(t, p, a, depth), measure(t, p, a, depth // 2)


@deep.abstract("b", instance=True)
@cases(a=0.5, share=0.0)
@cases(a=0.3, share=0.7)
@full(a=[0.2, 0.7, 0.5], share=[0.0, 1.0, 0.5])
@space(a=Real(0.15, 0.7), share=Real(0.0, 1.0))
@breaks("activation with a mean", offset=0.1)
@breaks("one depth, at distances below its inverse root", measure=one_depth, depth=100)
def singular_kernel_exponent(a, share, offset=0.0, measure=increments, depth=200):
    r"""with $p_0=0<a<1$ (so that $b>1$) and $0<\xi<1$,
    $\frac{K_L(\xi)}{(L+1)a^L}\to c(\xi)=\lim_lg_l(\xi)a^{-l}$ (judged by
    $\frac1L(\frac{K_{2L}}{a^{2L}}-\frac{K_L}{a^L})$, of the same limit), and
    $\log c/\log\frac1{\|x-x'\|}\to\alpha=-2\frac{\log a}{\log b}$ as $x'\to x$."""
    p, stated = weights(a, share, offset), weights(a, share)
    far = np.array([1.35, 1.1, 0.7, 0.3])
    value, half = profile(p, a, far, depth, measure)
    r = np.geomspace(0.2, 1e-3, 30)
    near = profile(p, a, r, depth, measure)[0]
    koenigs = np.exp(koenigs_logarithm(np.log1p(-(far**2) / 2), weights=stated))
    return {
        "exponent": compare(
            slope(1 / r, near), "==", theory("exponent", singularity_exponent(stated))
        ),
        "limit": compare(
            within(value, 2 * np.abs(value - half) + 1e-9 * value, "difference to half the depth"),
            "==",
            theory("Koenigs", koenigs),
        ),
    }


@panel(
    singular_kernel_exponent,
    "The limit kernel is a power of the distance; no single depth is, nearby",
    x="distance $r$",
    y=r"$K_L/((L+1)a^L)$ and its limit",
    log="xy",
)
def _(pen, runs):
    r = np.geomspace(0.2, 1e-3, 30)
    for i, (a, share) in enumerate(((0.2, 0.5), (0.5, 0.5), (0.7, 0.5))):
        p = weights(a, share)
        alpha = singularity_exponent(p)
        value = profile(p, a, r, 200, increments)[0]
        pen.theory(r, value[-1] * (r / r[-1]) ** -alpha, rf"$\alpha={alpha:.2f}$", k=i)
        pen.points(r[::3], value[::3], k=i)
    pen.broken(r[::3], profile(p, a, r, 100, one_depth)[0][::3], label="$L=100$")


@simulation
def moments(d, moved):
    """Exact E phi, E phi', E phi'^2 and E phi^2 of the explicit activation."""
    z = sp.Symbol("z")
    h = [sp.Integer(1), z]
    for k in range(1, 7):
        h.append(sp.expand(z * h[k] - k * h[k - 1]))
    if d == 1:
        parts = {1: sp.Rational(1, 2), 7: sp.Rational(1, 2)}
    else:
        outer = sp.Integer(2) ** sp.Rational(-d, 2)
        parts = {1: outer, 2: 1 - 2 * outer - moved, 3: outer + moved}
    phi = sum(sp.sqrt(p / sp.factorial(k)) * h[k] for k, p in parts.items())

    def expect(f):
        powers = sp.Poly(f, z).terms()
        return sp.simplify(sum(c * sp.factorial2(n - 1) for (n,), c in powers if n % 2 == 0))

    slope_of = sp.diff(phi, z)
    return tuple(expect(f) for f in (phi, slope_of, sp.expand(slope_of**2), sp.expand(phi**2)))


@deep.abstract("a", instance=True)
@cases(d=[1, 2, 3])
@full(d=[1, 2, 4, 5, 6, 8, 3])
@space(d=Int(1, 8))
@breaks("weight moved from the second to the third polynomial", moved=0.1)
def explicit_optimal_activation(d, moved=0.0):
    r"""$\varphi=2^{-d/4}h_3+\sqrt{1-2^{1-d/2}}\,h_2+2^{-d/4}h_1$ for $d\ge2$ and
    $\varphi=(h_1+h_7)/\sqrt2$ for $d=1$ have $\operatorname E\varphi=0$,
    $\operatorname E\varphi^2=1$ and
    $\alpha=-4\frac{\log\operatorname E\varphi'}{\log\operatorname E\varphi'^2}=d$, the exponent at
    which smoothers in $d$ dimensions are consistent, and the limit of $K_L/((L+1)a^L)$ has it."""
    average, first, second, square = moments(d, sp.Rational(moved).limit_denominator(1000))
    p = optimal_weights(d).copy()
    p[2:4] += [-moved, moved]
    r = np.geomspace(0.1, 1e-3, 24)
    exponent = theory("dimension", sp.Integer(d))
    alpha = -4 * sp.expand_log(sp.log(first), force=True) / sp.log(second)
    return {
        "exponent": compare(sp.simplify(alpha), "==", exponent),
        "mean": compare(average, "==", theory("mean", sp.Integer(0))),
        "square": compare(square, "==", theory("square", sp.Integer(1))),
        "kernel": compare(
            slope(1 / r, profile(p, p[1], r, 120, increments)[0]), "==", float(exponent)
        ),
    }


@panel(
    explicit_optimal_activation,
    "An explicit activation for every dimension",
    x="dimension $d$",
    y="exponent of the limit kernel",
)
def _(pen, runs):
    pen.theory([1, 8], [1, 8], r"$\alpha=d$")
    pen.points(*runs.measured("d", "kernel"), k=0)
    name = "weight moved from the second to the third polynomial"
    pen.broken(*runs.measured("d", "kernel", control=name), "weight moved")


@simulation
def votes(d, alpha, share, noise, n, draws, seed):
    """Whether the vote at the centre of the cap is wrong, and whether the nearest third of the
    points, at distances on the line that touches the circle, cannot decide it alone."""
    rng = np.random.default_rng([seed, round(100 * alpha), n])
    wrong, open_ = np.empty(draws, bool), np.empty(draws, bool)
    for start in range(0, draws, 500):
        many = min(500, draws - start)
        # Squared distances to the pole; the height is uniform on S^2, and the angle on S^1.
        u = rng.random((many, n))
        squared = 4 * (u if d == 2 else np.sin(np.pi * u / 2) ** 2)
        y = np.where(u < share, 1.0, -1.0) * np.where(rng.random(u.shape) < noise, -1.0, 1.0)
        block = slice(start, start + many)
        near = u < 1 / 3
        curved = alpha * (np.pi * u / 2) ** 2 / 5 if d == 1 else 0.0 * u  # for alpha up to 5
        labels = [y, y * near, np.where(near, curved, 1.0)]
        total, mine, others = hilbert_average(squared, labels, exponent=alpha)
        wrong[block], open_[block] = total < 0, np.abs(mine) < others
    return wrong, open_


@smoothers.abstract("a", instance=True)
@cases(d=1, draws=30_000)
@full(d=[1, 2, 1], noise=[0.25, 0.3], ratio=[2.8, 5.0, 3.0], draws=80_000)
@space(d=Int(1, 2), noise=Real(0.25, 0.35), ratio=Real(2.8, 5.0))
@breaks("fewer wrong labels than stated", actual=0.1)
@breaks("a cap of half the sphere", cap=0.5)
@breaks("an exponent below d, and a cap that is outvoted", critical=0.3, half=0.3)
def hilbert_kernel_consistency(
    d, seed, noise=0.3, ratio=3.0, draws=6000, actual=None, cap=0.13, half=0.5, critical=1.0
):
    r"""at $\alpha=d$ ($f=\frac12$) the probability of a wrong vote falls with $n$ (judged: from 12
    to 1200) and below that of any $\alpha>d$ judged, which tends to
    $\frac1{\pi\beta}\arg(1-p+pe^{i\pi\beta})>0$, $\beta=\frac d\alpha$; at $\alpha<d$ it tends to 1
    if $f^{1-\alpha/d}<\frac12$ (judged: $\alpha=0.3d$, $f=0.13$)."""
    p = noise if actual is None else actual
    rough, open_ = votes(d, d * ratio, 0.5, p, 100, draws, seed)
    smooth, _ = votes(d, 0.3 * d, cap, 0.2 if actual is None else p, 1000, 250, seed)
    late, _ = votes(d, critical * d, half, p, 1200, min(draws // 4, 2000), seed)
    early, _ = votes(d, critical * d, half, p, 12, min(draws // 4, 2000), seed)
    error = theory("stable", stable_vote_error(1 / ratio, noise))
    bias = 2 * open_.mean()
    return {
        "sharper": compare(
            mean(rough, bias=bias, source="votes that farther points could turn"), "==", error
        ),
        "smoother": compare(mean(smooth), "==", theory("always", 1.0)),
        "critical": compare(mean(late), "<", error),
        "falls": compare(
            mean(1.0 + late - early, support=(0.0, 2.0)), "<", theory("no change", 1.0)
        ),
    }


@panel(
    hilbert_kernel_consistency,
    r"Beyond $\alpha=d$ noise is outvoted only in part",
    x=r"$\alpha/d$ (at 1: 1200 points)",
    y="probability of a wrong vote",
)
def _(pen, runs):
    ratio = np.linspace(1.02, 5.2, 60)
    for i, p in enumerate((0.3, 0.25)):
        limit = [stable_vote_error(1 / x, p) for x in ratio]
        pen.theory(ratio, limit, f"$p={p}$", k=i)
        pen.points(*runs.measured("ratio", "sharper", where={"noise": p, "d": 2}), k=i)
        found = [r for r in runs.judgement.runs if r.instance["noise"] == p]
        critical = found[0].parts["critical"]
        pen.points([1.0], critical.shown, critical.error, k=i)


@simulation
def orthant(n, dimension, seed):
    """Labelled points, and points to classify, of non-negative coordinates."""
    rng = np.random.default_rng(seed)
    X, Z = np.abs(rng.standard_normal((n, dimension))), np.abs(rng.standard_normal((60, dimension)))
    X, Z = (P / np.linalg.norm(P, axis=1, keepdims=True) for P in (X, Z))
    return X, rng.choice([-1.0, 1.0], n), Z


@simulation
def classes(n, dimension, p, depth, seed):
    X, y, Z = orthant(n, dimension, seed)
    return np.sign(deep_prediction(X, y, Z, weights=p, depth=depth).values)


@deep.abstract("b", instance=True)
@cases(half=5, dimension=3, share=[0.2, 0.8])
@full(half=[7, 15, 30], dimension=[3, 6], share=[0.2, 0.8])
@space(
    half=Int(1, 12),
    dimension=Int(2, 6),
    share=Real(0.05, 0.95),
    offset=Real(0.05, 0.25),
    linear=Real(0.0, 0.4),
)
@breaks("p_0 = 0 < p_1: neither", singular=True)
@breaks("a single layer", growth=0.1, depth=1)
def taxonomy_majority_1nn(
    half, dimension, share, seed, offset=0.1, linear=0.3, singular=False, growth=60.0, depth=60
):
    r"""the classifier that interpolates $n\ge2$ labels $\pm1$, not tied, with $K_L$ is for large
    $L$ the majority vote if $p_0>0$ and $b>1$ (judged: $b^L=e^{60}$), and the nearest neighbour, if
    that is unique, if $p_0=p_1=0$ (judged: $L=60$), at each point other than the training points
    (judged: 60), if no two points are equal and all inner products are non-negative."""
    n = 2 * half + 1  # no tie
    X, y, Z = orthant(n, dimension, seed)
    constant = weights(linear, share, offset)
    neither = weights(0.0, share)
    if singular:
        constant = neither = weights(0.5, share)
    layers = int(np.ceil(growth / np.log(constant @ np.arange(4))))
    vote = classes(n, dimension, constant, layers, seed) == np.sign(y.sum())
    nearest = classes(n, dimension, neither, depth, seed) == y[np.argmax(Z @ X.T, axis=1)]
    counted = theory("points", float(len(Z)))
    return {
        "majority": compare(family(dict(enumerate(vote.tolist()))), "==", counted),
        "nearest": compare(family(dict(enumerate(nearest.tolist()))), "==", counted),
    }


def wave(P):
    return np.sin(5 * P[:, 0]) - 0.2


def sizes(P):
    return np.abs(wave(P))


@simulation
def regression(n, dimension, p, a, b, depth, seed, targets=wave):
    """Predictions at two depths as multiples of (a/b)^L (b-1)/b, their increment, and at the first
    depth as they are; smooth targets."""
    X, _, Z = orthant(n, dimension, seed)
    y, values, scales = targets(X), [], []
    for L in (depth, 2 * depth):
        found = deep_prediction(X, y, Z, weights=p, depth=L)
        values.append(found.values)
        scales.append(found.log_scale)
    unit = np.log(a / b) * depth * np.array([[1], [2]]) + np.log((b - 1) / b)
    scaled = np.array(values) * np.exp(np.array(scales) - unit)
    return y, targets(Z), (scaled[1] - scaled[0]) / depth, values[0] * np.exp(scales[0])


@deep.ours("derived: the limit law of the interpolant", serves="c")
@cases(a=0.5, share=[1.0, 0.0])
@full(a=[0.2, 0.6, 0.5], share=[0.0, 0.5], n=30, depth=400)
@space(a=Real(0.15, 0.6), share=Real(0.0, 1.0), n=Int(2, 20), dimension=Int(2, 5))
@breaks("shallow", depth=6)
@breaks("activation with a mean", offset=0.1, depth=20)
def infinite_depth_regression_collapses(a, share, seed, n=12, dimension=3, depth=200, offset=0.0):
    r"""with $p_0=0<a<1$, training and test points of non-negative inner products, no two of them
    equal, the interpolant tends to 0 at a test point, $\hat y_L(x)\sim(L+1)(\frac ab)^L\frac{b-1}b
    \sum_iy_ic(x^\top x_i)$ (judged by increments as $c$ is), so that its squared error tends to
    $\operatorname Ey^2$ while its sign tends to that of the singular smoother where the sum is not
    0."""
    stated = weights(a, share)
    b = float(stated @ np.arange(4))
    rule = (n, dimension, weights(a, share, offset), a, b)
    y, truth, value, plain = regression(*rule, depth, seed)
    half = regression(*rule, depth // 2, seed)[2]
    X, _, Z = orthant(n, dimension, seed)
    r = np.linalg.norm(Z[:, None] - X, axis=2)
    # A cosine has its digits but for those of 1 - r^2 / 2, in every layer.
    rounding = 1e-9 + 8 * depth * np.finfo(float).eps / r.min(axis=1) ** 2
    rounding *= np.abs(regression(*rule, depth, seed, sizes)[2])
    smoothed = np.exp(koenigs_logarithm(np.log1p(-(r**2) / 2), weights=stated)) @ y
    error = np.mean((truth - plain) ** 2)
    return {
        "law": compare(
            within(value, np.abs(value - half) / 2 + rounding, "half the depth, and rounding"),
            "==",
            theory("smoother", smoothed),
        ),
        "error": compare(
            within(error, 1e-12 * error, "rounding"),
            "==",
            theory("second moment", np.mean(truth**2)),
        ),
    }


@panel(
    infinite_depth_regression_collapses,
    "The deep interpolant is the singular smoother, times almost nothing",
    x=r"size of $\sum_iy_ic(x^\top x_i)$",
    y=r"size of $\hat y_L$ in its predicted unit",
    log="xy",
)
def _(pen, runs):
    part = runs.judgement.runs[-1].parts["law"]
    size = np.abs(part.predicted)
    ends = [size.min() / 1.3, size.max() * 1.3]
    pen.theory(ends, ends, "equal", k=6)
    for k, (sign, label) in enumerate(((1, "both positive"), (-1, "both negative"))):
        at = (sign * part.predicted > 0) & (sign * part.shown > 0)
        pen.points(size[at], np.abs(part.shown[at]), label=label, k=k)


if __name__ == "__main__":
    run_script(__file__)
