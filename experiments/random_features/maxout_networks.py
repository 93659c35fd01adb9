"""Random maxout networks: what initialisation does to values, gradients and breakpoints."""

import numpy as np

from theorylab import random_features as rf
from theorylab.verify import (
    Choice,
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
)
from theorylab.verify.cli import run_script

KEY = "tseran2023-expected"
unit = paper(
    KEY,
    r"A maxout unit $\max_{k\le K}w_k^\top x$, $w_k\sim N(0,\frac cnI_n)$ independent, $m_K$ and "
    r"$M_K$ mean and mean square of the largest of $K$ standard normals:",
)
network = paper(
    KEY,
    r"Maxout layers of $n$ units of rank $K$ and $n$ inputs, no biases, weights $N(0,\frac cn)$, "
    r"$h_L$ the output of $L$ layers for a unit vector $x$, $J_L$ its Jacobian, $M_K$ the mean "
    r"square of the largest of $K$ standard normals:",
)
line = paper(KEY, r"Maxout units $\max_{k\le K}(a_kx+b_k)$ on the line, $x\in\mathbb R$:")


def normal(rng, shape):
    return rng.standard_normal(shape)


def heavy(rng, shape):
    """Student's law with five degrees of freedom, of variance one."""
    return rng.standard_t(5, shape) * np.sqrt(3 / 5)


def shared(rng, shape):
    """The functions of a unit share half of the variance: (..., K, n)."""
    common = rng.standard_normal((*shape[:-2], 1, shape[-1]))
    return (rng.standard_normal(shape) + common) / np.sqrt(2)


def never(rng, shape):
    return None


def wide(rng, shape):
    return 3 * rng.standard_normal(shape)


@simulation
def directional(K, n, c, angles, draws, law, biases, seed):
    """Squared derivatives of units along directions at some angles from the input."""
    rng = np.random.default_rng([seed, 1])
    x, across = np.linalg.qr(rng.standard_normal((n, 2)))[0].T
    W = np.sqrt(c / n) * law(rng, (draws, K, n))
    _, chosen = rf.maxout_layer(W, x, biases(rng, (draws, K)))
    u = np.outer(np.cos(angles), x) + np.outer(np.sin(angles), across)
    return (chosen @ u.T) ** 2


@unit.abstract("a", instance=True)
@cases(K=[3, 5], draws=80_000)
@full(K=[2, 3, 5, 10], angles=(0.0, 1.0, np.pi / 2), n=6, draws=160_000)
@space(K=Int(1, 8), n=Int(2, 8), c=Real(0.2, 3.0, log=True))
@breaks("biases", biases=wide)
@breaks("functions of a unit not independent", law=shared)
@breaks("weights with heavy tails", law=heavy)
def maxout_directional_gain(
    K, seed, n=4, c=1.0, angles=(0.0, 0.8, np.pi / 2), draws=50_000, law=normal, biases=never
):
    r"""the largest being that of $k^*$, for unit vectors $x,u$ at any angle $\alpha$
    $\mathbb E(w_{k^*}^\top u)^2=\frac cn(M_K\cos^2\alpha+\sin^2\alpha)$: for $K\ge3$, where
    $M_K>1$, the law of the derivative depends on the input."""
    found = directional(K, n, c, angles, draws, law, biases, seed) * n / c
    square = theory("along", rf.maxout_moments(K).square)
    share = np.cos(angles) ** 2
    return compare(mean(found), "==", square * share + theory("across", 1.0) * (1 - share))


@panel(
    maxout_directional_gain,
    "The derivative is larger along the input than across it",
    x=r"$\cos^2$ of the angle between input and direction",
    y="mean square, in units of $c/n$",
)
def _(pen, runs):
    ends = np.array([0.0, 1.0])
    for i, K in enumerate((10, 5, 3, 2)):
        pen.theory(ends, rf.directional_gain(rank=K, cosine=ends), k=i)
        angle, shown, error = runs.measured("angles", where={"K": K})
        pen.points(np.cos(angle) ** 2, shown, error, f"$K={K}$", k=i)
    angle, shown, error = runs.measured("angles", control="biases")
    pen.broken(np.cos(angle) ** 2, shown, error, "$K=10$, biases")


@simulation
def passed(K, n, c, depth, draws, law, biases, tied, seed):
    """Through networks: squared values, squares of a tangent across the input, of a random gradient
    passed back, and of the gradient in all weights, shape (4, draws)."""
    rng = np.random.default_rng([seed, 2])
    x, u = np.linalg.qr(rng.standard_normal((n, 2)))[0].T
    h, v = (np.broadcast_to(z, (draws, n)) for z in (x, u))
    sizes, chosen = [], []
    W = np.sqrt(c / n) * law(rng, (draws, n, K, n))
    for _ in range(depth):
        sizes.append(np.sum(h**2, axis=1))
        h, J = rf.maxout_layer(W, h, biases(rng, (draws, n, K)))
        v = (J @ v[..., None])[..., 0]
        chosen.append(J)
        if not tied:
            W = np.sqrt(c / n) * law(rng, (draws, n, K, n))
    g = rng.standard_normal((draws, n))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    kernel = np.zeros(draws)
    for size, J in zip(sizes[::-1], chosen[::-1], strict=True):
        kernel += size * np.sum(g**2, axis=1)
        g = (g[:, None, :] @ J)[:, 0]
    return np.stack([np.sum(h**2, axis=1), np.sum(v**2, axis=1), np.sum(g**2, axis=1), kernel])


@network.ours("sharpened: exact at every width, and for directions across the input", serves="ab")
@cases(K=2, c=1.5)
@cases(K=[3, 5], c=None)
@full(K=4, n=8, depth=[1, 2], c=2.0, draws=12_000)
@full(K=[2, 3, 5], n=8, depth=[1, 3, 5], c=None, draws=12_000)
@space(K=Int(2, 5), n=Int(6, 10), depth=Int(1, 3), c=Real(0.4, 2.0))
@breaks("biases", biases=wide)
@breaks("the same weights in every layer", tied=True, depth=6)
@breaks("functions of a unit not independent", law=shared)
def maxout_init_constant(
    K, seed, c, n=8, depth=3, draws=8_000, law=normal, biases=never, tied=False
):
    r"""$\mathbb E|h_L|^2=\mathbb E|J_Lx|^2=(cM_K)^L$, which does not depend on $L$ iff $c=1/M_K$
    ($1,.78391,.64461,.55555$ for $K=2,3,4,5$); for a unit vector $u\perp x$
    $\mathbb E|J_Lu|^2=q^L+\frac cn\sum_{l<L}(cM_K)^{L-1-l}q^l$ with $q=c(1-\frac1n)$, which for
    $c=1/M_K$ and $K\ge3$ falls with depth, down to $O(1/n)$."""
    square = rf.maxout_moments(K).square
    c = 1 / square if c is None else c
    values, across, _, _ = passed(K, n, c, depth, draws, law, biases, tied, seed)
    gain, q = theory("gain along", c * square), theory("gain across", c * (1 - 1 / n))
    exact = q**depth + c / n * sum(gain ** (depth - 1 - s) * q**s for s in range(depth))
    return {
        "values": compare(mean(values), "==", gain**depth),
        "across": compare(mean(across), "==", exact),
    }


@panel(
    maxout_init_constant,
    "With $c=1/M_K$ values keep their size, directions across the input do not ($n=8$)",
    x="depth $L$",
    y="mean square",
)
def _(pen, runs):
    for i, K in enumerate((2, 3, 5)):
        for part in ("values", "across"):
            where = {"K": K, "c": None}
            pen.theory(*runs.predicted("depth", part, where=where), k=i)
            label = f"$K={K}$, across" if part == "across" else "values" * (K == 2)
            pen.points(*runs.measured("depth", part, where=where), label, k=i)


def fixed_gradient(kind, m):
    return {
        "ones": np.ones(m),
        "centred": np.arange(m) - (m - 1) / 2,
        "uneven": np.arange(1.0, m + 1),
    }[kind]


@simulation
def layer_back(K, n, m, c, kind, draws, law, fed_back, seed):
    """Squares along and across the input of a fixed gradient passed back through a layer."""
    rng = np.random.default_rng([seed, 3])
    x = np.zeros(n)
    x[0] = 1.0
    W = np.sqrt(c / n) * law(rng, (draws, m, K, n))
    h, J = rf.maxout_layer(W, np.broadcast_to(x, (draws, n)))
    g = fixed_gradient(kind, m)
    g = h * np.linalg.norm(g) / np.linalg.norm(h, axis=1, keepdims=True) if fed_back else g
    back = np.sum(np.broadcast_to(g, (draws, m))[..., None] * J, axis=1)
    return back[:, 0] ** 2, np.sum(back[:, 1:] ** 2, axis=1)


@network.ours("derived: exact at every width", serves="abe")
@cases(K=3, kind=["ones", "centred"])
@full(K=4, kind=["centred", "uneven"], n=8, draws=90_000)
@full(K=[2, 3, 5], kind="ones", n=8, depth=[1, 2, 4], draws=90_000, networks=14_000)
@space(
    K=Int(2, 5),
    n=Int(4, 7),
    m=Int(2, 4),
    c=Real(0.4, 1.5),
    depth=Int(1, 2),
    kind=Choice(("ones", "centred", "uneven")),
)
@breaks("gradient that depends on the layer", fed_back=True)
@breaks("functions of a unit not independent", law=shared)
@breaks("the same weights in every layer", tied=True, depth=4)
def maxout_backward_gain(
    K,
    kind,
    seed,
    n=6,
    m=3,
    c=None,
    depth=2,
    draws=60_000,
    networks=10_000,
    law=normal,
    fed_back=False,
    tied=False,
):
    r"""a fixed gradient $g\in\mathbb R^m$, passed back through a layer of $m$ units, has mean
    squares $\frac cn(M_K|g|^2+m_K^2((\sum_ig_i)^2-|g|^2))$ along $x$, $m_K$ the mean largest, and
    $c(1-\frac1n)|g|^2$ across $x$. For an independent unit $g$ of uniform direction
    $\mathbb E|J_L^\top g|^2=D_L=\frac{(cM_K)^L}n+(1-\frac1n)\mathbb E|J_Lu|^2$, $u\perp x$, and
    the tangent kernel of $g^\top h_L$ (all weights) at $x$ has mean
    $\sum_{l<L}(cM_K)^lD_{L-1-l}$."""
    moments = rf.maxout_moments(K)
    c = 1 / moments.square if c is None else c
    along, across = layer_back(K, n, m, c, kind, draws, law, fed_back, seed)
    g = fixed_gradient(kind, m)
    power, total = float(g @ g), float(g.sum()) ** 2
    square, first = theory("square", moments.square), theory("mean", moments.mean)
    signals = rf.maxout_signals(K, width=n, depth=depth, scale=c)
    _, _, back, kernel = passed(K, n, c, depth, networks, law, never, tied, seed)
    return {
        "along": compare(mean(along * n / c), "==", square * power + first**2 * (total - power)),
        "across": compare(mean(across), "==", theory("across", c * (1 - 1 / n)) * power),
        "network": compare(mean(back), "==", theory("back", signals.backward[-1])),
        "kernel": compare(mean(kernel), "==", theory("kernel", signals.kernel[-1])),
    }


@panel(
    maxout_backward_gain,
    "Gradients shrink for $K>2$, to a floor ($n=8$, $c=1/M_K$)",
    x="depth $L$",
    y=r"$\mathbb{E}|J_L^\top g|^2$",
)
def _(pen, runs):
    L = np.arange(1, 5)
    for i, K in enumerate((2, 3, 5)):
        signals = rf.maxout_signals(K, width=8, depth=4, scale=rf.critical_scale(K))
        pen.theory(L, signals.backward[1:], f"$K={K}$", k=i)
        pen.points(*runs.measured("depth", "network", where={"K": K, "kind": "ones"}), k=i)


def circle(n, centre, points):
    """A unit circle around a point of its plane, its tangents, at equal steps."""
    t = 2 * np.pi * np.arange(points) / points
    plane = np.eye(n)[:2]
    at = np.stack([centre + np.cos(t), np.sin(t)], axis=1) @ plane
    return at, np.stack([-np.sin(t), np.cos(t)], axis=1) @ plane


@simulation
def image_lengths(K, n, depth, c, centre, draws, points, shift, seed):
    """Lengths of the images of a circle, from all of its points and from half of them."""
    rng, h = np.random.default_rng([seed, 5]), circle(n, centre, points)[0]
    h = np.broadcast_to(h, (draws, points, n))
    for _ in range(depth):
        W = np.sqrt(c / n) * (rng.standard_normal((draws, n * K, n)) + shift)
        h = (h @ W.swapaxes(1, 2)).reshape(draws, points, n, K).max(axis=-1)
    closed = [np.concatenate([z, z[:, :1]], axis=1) for z in (h, h[:, ::2])]
    return [np.linalg.norm(np.diff(z, axis=1), axis=2).sum(axis=1) for z in closed]


@network.ours("sharpened: the constant of the abstract's bound", serves="d")
@cases(K=3, depth=2, centre=[0.0, 2.0])
@full(K=[3, 5], depth=[1, 2, 4], centre=2.0, n=16, draws=400)
@space(K=Int(2, 5), n=Int(6, 14), depth=Int(1, 3), c=Real(0.4, 1.5), centre=Real(0.0, 3.0))
@breaks("weights of mean not zero", shift=1.0)
def maxout_curve_length(K, depth, centre, seed, n=12, c=None, draws=300, points=96, shift=0.0):
    r"""the image of a curve $\gamma(t)$ has a mean length of at most $\int|\gamma'|\sqrt{
    (cM_K)^L\cos^2+a_L\sin^2}\,dt$, the angle being that of $\gamma$ and $\gamma'$ and
    $a_L=\mathbb E|J_Lu|^2$, $u\perp x$, as in the claim on initialisation; for $c=1/M_K$ therefore
    at most that of the curve (judged: unit circles around a point of their plane)."""
    c = rf.critical_scale(K) if c is None else c
    fine, coarse = image_lengths(K, n, depth, c, centre, draws, points, shift, seed)
    at, tangent = circle(n, centre, 2000)
    size = np.maximum(np.linalg.norm(at, axis=1), 1e-9)
    cosine = np.sum(at * tangent, axis=1) / size
    signals = rf.maxout_signals(K, width=n, depth=depth, scale=c)
    square = signals.values[-1] * cosine**2 + signals.across[-1] * (1 - cosine**2)
    measured = mean(
        fine, bias=abs(fine.mean() - coarse.mean()), source="difference to half of the points"
    )
    return compare(measured, "<=", theory("length", 2 * np.pi * np.sqrt(square).mean()))


@panel(
    maxout_curve_length,
    "Images of a circle around a point at distance 2 ($c=1/M_K$, $n=16$)",
    x="depth $L$",
    y="mean length",
)
def _(pen, runs):
    for i, K in enumerate((3, 5)):
        pen.theory(*runs.predicted("depth", where={"K": K}), "bound" * (K == 3), k=i)
        pen.points(*runs.measured("depth", where={"K": K}), f"$K={K}$", k=i)


def independent(rng, units, rank):
    return rng.standard_normal((2, units, rank))


def same_slopes(rng, units, rank):
    slopes, intercepts = rng.standard_normal((2, units, rank))
    return slopes[:, :1] + 0 * slopes, intercepts


def on_a_parabola(rng, units, rank):
    """Tangents of a parabola: all lines are part of the envelope."""
    slopes = rng.standard_normal((units, rank))
    return slopes, -(slopes**2)


@simulation
def breakpoints(K, units, ratio, law, seed):
    slopes, intercepts = law(np.random.default_rng([seed, 4]), units, K)
    return rf.count_breakpoints(slopes, ratio * intercepts)


@line.ours("derived: the exact expectation for a layer on the line", serves="c")
@cases(K=[2, 3, 5, 8])
@full(K=[2, 3, 4, 5, 8, 16], units=20_000)
@space(K=Int(3, 12), ratio=Real(0.01, 100.0, log=True))
@breaks("tangents of a parabola", law=on_a_parabola)
@breaks("the same slopes", law=same_slopes)
def maxout_breakpoints_are_hull_vertices(K, seed, ratio=1.0, units=10_000, law=independent):
    r"""for $a_k\sim N(0,\sigma_a^2)$ and $b_k\sim N(0,\sigma_b^2)$ independent, a unit has on
    average $\frac12K(K-1)\int\Phi(x)^{K-2}e^{-x^2}dx/\sqrt\pi$ breakpoints, half the mean number of
    vertices of the hull of $K$ Gaussian points of the plane, whatever
    $\frac{\sigma_b}{\sigma_a}>0$: $1,\frac32,1.8245,2.0613$ for $K=2..5$, where $K-1$ are
    possible."""
    counts = breakpoints(K, units, ratio, law, seed)
    stated = theory("breakpoints", rf.expected_breakpoints(K))
    return compare(mean(counts, support=(-1.0, K)), "==", stated)


@panel(
    maxout_breakpoints_are_hull_vertices,
    "Far fewer breakpoints than the $K-1$ that are possible",
    x="rank $K$",
    y="breakpoints per unit",
    log="x",
)
def _(pen, runs):
    K = np.arange(2, 17)
    pen.theory(K, [rf.expected_breakpoints(int(k)) for k in K], r"$\mathbb{E}V_K/2$")
    pen.points(*runs.measured("K"), k=1)


if __name__ == "__main__":
    run_script(__file__)
