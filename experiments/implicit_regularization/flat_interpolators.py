"""Flattest two-layer ReLU interpolators: which of them generalise."""

from fractions import Fraction
from itertools import product

import numpy as np
import sympy as sp

from theorylab import implicit_regularization as ir
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
    within,
)
from theorylab.verify.cli import run_script

KEY, SEEN = "wen2023-sharpness", "arXiv 2307.11007v2, text"
LOSS = r"$L=\frac1n\sum_i(f(x_i)-y_i)^2$"
biased = paper(
    KEY,
    r"Let $f(x)=\sum_ja_j\,\mathrm{relu}(w_j^\top x+b_j)$, " + LOSS + r", $x'=(x,1)$, and "
    r"$h_{ij}=\mathrm{relu}(w_j^\top x_i+b_j)$.",
)
xor = paper(
    KEY,
    r"Let $f(x)=\sum_ja_j\,\mathrm{relu}(w_j^\top x+b_j)$, " + LOSS + r", with $n$ distinct "
    r"training points $x\in\{\pm1\}^d$ labelled $y=x_1x_2$.",
)
no_bias = paper(
    KEY,
    r"Let $f(x)=\sum_ja_j\,\mathrm{relu}(w_j^\top x)$ without biases, with the convention "
    r"$\mathrm{relu}'(0)=0$, " + LOSS + r" and $T(f)=\frac2n\sum_i\|\nabla f(x_i)\|^2$, the trace "
    r"of $\nabla^2L$ where it exists.",
)
normalised = paper(
    KEY,
    r"Let $f(x)=a^\top h/\max(\|h\|,\epsilon)$, $h=\mathrm{relu}(Wx+b)$, " + LOSS + r", with $n$ "
    r"distinct training points $x\in\{\pm1\}^d$ labelled $y=x_1x_2$.",
)
isotropic = paper(
    "wu2023-implicit",
    r"Let $f(x)=\sum_ja_j\,\mathrm{relu}(w_j^\top x)$ and $H=\mathbb E\nabla f\nabla f^\top$ for "
    r"inputs with $\mathbb Exx^\top=I_d$ that are as likely as $-x$ and orthogonal to no $w_j$ "
    r"(Gaussian, or of a finite law).",
)


def exact(array):
    """The floats of an array as fractions."""
    return np.array([Fraction(v) for v in np.ravel(array).tolist()], object).reshape(array.shape)


def cube(d):
    return np.array(list(product((1.0, -1.0), repeat=d)))


def incoming(network, points):
    """Incoming weights with biases, and points with the constant 1, as fractions."""
    W, X = exact(network.weights), exact(np.asarray(points, float))
    if network.biases is None:
        return W, X
    ones = np.full((len(X), 1), Fraction(1))
    return np.hstack([W, exact(network.biases)[:, None]]), np.hstack([X, ones])


@simulation
def second_differences(network, points, labels):
    """Exact second differences of L, summed over the incoming and over the outgoing parameters of
    the neurons, and the outputs. Along one parameter L is quadratic until the neuron switches at
    a point; the steps stay below that."""
    (U, X), a, y = incoming(network, points), exact(network.outputs), exact(labels)
    Z = X @ U.T
    H = np.maximum(Z, Fraction(0))
    r = H @ a - y
    base, n = r @ r, len(r)

    def curvature(change, step):
        up, down = r + change[0], r + change[1]
        return (up @ up + down @ down - 2 * base) / (n * step**2)

    first, second = [], []
    for j in range(len(a)):
        step = min(abs(Z[:, j])) / (2 * abs(X).max())
        total = Fraction(0)
        for k in range(U.shape[1]):
            moved = [np.maximum(Z[:, j] + s * step * X[:, k], Fraction(0)) for s in (1, -1)]
            total += curvature([a[j] * (h - H[:, j]) for h in moved], step)
        first.append(total)
        second.append(curvature([H[:, j], -H[:, j]], Fraction(1)))
    return first, second, H @ a


def trace(network, points, labels, scale=1):
    """Trace of the Hessian with (a / s, s w, s b) in place of (a, w, b), s^2 the scale: steps in
    units of these scales leave the second differences of L as they are."""
    first, second, _ = second_differences(network, points, labels)
    return sp.Rational(sum(first)) / scale + sp.Rational(sum(second)) * scale


def random_network(d, m, n, negative, balance, seed):
    """A network that is active somewhere and never at a kink, and points; its outputs are drawn
    towards |a_j| = h_ij / |x'_i|, in the mean square."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-12, 13, size=(n, d)) / 8
    W, b = rng.integers(-16, 17, size=(m, d)) / 8, (2 * rng.integers(-32, 33, size=m) + 1) / 128
    side = np.where((X @ W.T + b > 0).any(axis=0), 1.0, -1.0)
    W, b = side[:, None] * W, side * b
    H, lengths = np.maximum(X @ W.T + b, 0), np.hypot(np.linalg.norm(X, axis=1), 1)
    even = np.linalg.norm(H, axis=0) / np.linalg.norm(lengths[:, None] * (H > 0), axis=0)
    a = (1 - balance) * rng.integers(1, 17, size=m) / 8 + balance * even
    return ir.ReluNetwork(W, np.where(np.arange(m) < negative, -a, a), b), X


# ---------------------------------------------------------------------------------- with biases
@biased.published("Lemma 4.1 and equation (3); the excess is derived here", seen=SEEN, serves="b")
@cases(d=[1, 4], m=6, n=4, negative=3)
@cases(d=3, m=12, n=1, negative=1, balance=0.8)
@full(d=[1, 6], m=[6, 12], n=6, negative=3)
@full(d=3, m=12, n=1, negative=1, balance=[0.0, 0.2, 0.4, 0.6, 0.8])
@space(d=Int(1, 5), m=Int(1, 5), n=Int(1, 4), negative=Int(0, "m"), balance=Real(0.0, 1.0))
@breaks("labels that are not interpolated", misfit=10)
@breaks("the second layer is not trained", trained=False)
def trace_hessian_lower_bound(d, m, n, negative, seed, balance=0.0, misfit=1, trained=True):
    r"""If $y_i=f(x_i)$ and no $w_j^\top x_i+b_j$ is zero, $\mathrm{tr}\nabla^2L=\frac2n\sum_i
    \|\nabla f(x_i)\|^2\ge\frac4n\sum_i\|x_i'\||y_i|$. The excess is $\frac2n\sum_i\big[\sum_{j:
    h_{ij}>0}(|a_j|\|x'_i\|-h_{ij})^2+2\|x'_i\|(\sum_j|a_j|h_{ij}-|y_i|)\big]$: equality iff at each
    $x_i$ all active neurons have $h_{ij}=|a_j|\|x'_i\|$ and $a_j$ of the sign of $y_i$."""
    network, X = random_network(d, m, n, negative, balance, seed)
    y = misfit * ir.relu_outputs(network, X)
    first, second, found = second_differences(network, X, y)
    total = float(sum(first) + trained * sum(second))
    measured = within(total, 1e-11 * total, "rounding of the labels")
    H = np.maximum(X @ network.weights.T + network.biases, 0)
    lengths, sizes = np.sqrt(np.sum(X**2, axis=1) + 1), np.abs(network.outputs)
    off = np.where(H > 0, sizes * lengths[:, None] - H, 0.0)
    bound = theory("bound", 4 * np.mean(lengths * abs(y)))
    spread = theory("imbalance", 2 * np.sum(off**2) / n)
    lost = theory("cancellation", 4 * np.mean(lengths * (H @ sizes - abs(found.astype(float)))))
    return {
        "bound": compare(measured, ">=", bound),
        "trace": compare(measured, "==", theory("trace", ir.relu_hessian_trace(network, X))),
        "excess": compare(measured, "==", bound + spread + lost),
    }


@panel(
    trace_hessian_lower_bound,
    r"No interpolator is below the bound; the excess falls as $h$ nears $|a||x'|$",
    x=r"share of $h_{ij}/|x'_i|$ in $|a_j|$",
    y=r"trace of the Hessian",
)
def _(pen, runs):
    where = {"d": 3, "m": 12, "n": 1}
    pen.points(*runs.measured("balance", "bound", where=where), "second differences")
    pen.theory(*runs.predicted("balance", "excess", where=where), "bound plus excess")
    pen.theory(*runs.predicted("balance", "bound", where=where), "bound", k=1)


def keep(biases, scale):
    return biases


def follow(biases, scale):
    return scale * biases


@biased.ours("derived: the least trace over the scales of the neurons")
@cases(d=3, m=4, n=4, negative=2, scale=[1.1, 3.0])
@full(d=4, m=5, n=6, negative=2, scale=[0.5, 0.8, 1.0, 1.25, 2.0])
@space(d=Int(1, 5), m=Int(1, 5), n=Int(1, 4), negative=Int(0, "m"), scale=Real(0.1, 10, log=True))
@breaks("biases are not scaled", shift=keep)
def sharpness_reparam_scale(d, m, n, negative, scale, seed, shift=follow):
    r"""For all $s_j>0$ the network with $(a_j/s_j,s_jw_j,s_jb_j)$ is the same function. At an
    interpolator without a preactivation of 0 or an $a_j=0$ the least trace over these scales is
    $\frac4n\sum_j|a_j|(\sum_ih_{ij}^2\sum_{i:h_{ij}>0}\|x'_i\|^2)^{1/2}$, where
    $s_j^4\sum_ih_{ij}^2=a_j^2\sum_{i:h_{ij}>0}\|x'_i\|^2$."""
    network, X = random_network(d, m, n, negative, 0.0, seed)
    y = ir.relu_outputs(network, X)
    even = ir.balance_neurons(network, X)
    s = scale ** np.where(np.arange(m) % 2, -1.0, 1.0)
    moved = ir.ReluNetwork(s[:, None] * even.weights, even.outputs / s, shift(even.biases, s))
    at, away = (second_differences(net, X, y) for net in (even, moved))
    there, elsewhere = (float(sum(first) + sum(second)) for first, second, _ in (at, away))
    H, lengths = np.maximum(X @ network.weights.T + network.biases, 0), np.sum(X**2, axis=1) + 1
    products = np.sum(H**2, axis=0) * (lengths @ (H > 0))
    least = theory("least", 4 * np.sum(abs(network.outputs) * np.sqrt(products)) / n)
    size = abs(network.outputs) @ H.max(axis=0)
    outputs = within(away[2].astype(float) / size, 1e-12, "rounding of the scaled weights")
    return {
        "least": compare(within(there, 1e-11 * there, "rounding of the scales"), "==", least),
        "other scales": compare(within(elsewhere, 1e-11 * elsewhere, "rounding"), ">=", least),
        "function": compare(outputs, "==", theory("outputs", y / size)),
    }


@panel(
    sharpness_reparam_scale,
    "Scaling the layers of a neuron against each other changes the trace only",
    x="scale relative to the least trace",
    y="trace of the Hessian",
    log="x",
)
def _(pen, runs):
    pen.points(*runs.measured("scale", "other scales"), "second differences")
    pen.theory(*runs.predicted("scale", "least"), "least over scales", k=1)


def training_set(d, n, seed):
    """Random distinct vertices and the label x_1 x_2 of each, then all vertices."""
    every = cube(d)
    X = every[np.random.default_rng([seed, 1]).permutation(len(every))[:n]]
    return X, X[:, 0] * X[:, 1], every


def disturbed(X, y, extra, seed):
    """A memoriser of what three random neurons, of outputs of a size, leave to be fitted."""
    rng = np.random.default_rng([seed, 2])
    W, b = rng.integers(-4, 5, size=(3, X.shape[1])), (2 * rng.integers(-8, 9, size=3) + 1) / 2
    a = extra * rng.choice([-1, 1], size=3) * rng.integers(8, 17, size=3) / 8
    some = ir.ReluNetwork(extra / 4 * W, a, extra / 4 * b)
    rest = ir.hypercube_memoriser(X, 2 * y - ir.relu_outputs(some, X))
    return ir.mix_networks(some, rest, 0.5)


@xor.published(
    "Theorem 4.1 with D = 2, Propositions 4.1 and 4.2; mixtures are added here",
    seen=SEEN,
    serves="bd",
)
@cases(d=3, n=5)
@cases(d=4, n=8, share=0.25, extra=0.25)
@full(d=5, n=12, share=[0.25, 0.5, 0.75, 0.875], extra=0.25)
@full(d=[2, 3, 4, 5], n=4, extra=0.125)
@space(
    d=Int(2, 5),
    n=Int(1, "min(2**d, 8)"),
    share=Choice([k / 16 for k in range(1, 16)]),
    extra=Real(0.1, 2.0, log=True),
)
@breaks("neurons that are not balanced", unit=2)
@breaks("a label of another size", labels=2.0)
def flattest_memoriser_equals_flattest_generaliser(
    d, n, seed, share=0.5, extra=1.0, unit=1, labels=1.0
):
    r"""The memoriser $M=\sum_iy_i\mathrm{relu}(x_i^\top x-d+1)$, which is 0 at the other $2^d-n$
    vertices, the generaliser $G=\sum_{s,t=\pm1}st\,\mathrm{relu}(sx_1+tx_2-1)=x_1x_2$ and all
    mixtures $\tau M+(1-\tau)G$, their neurons scaled so that $\mathrm{relu}=|a|\sqrt{d+1}$,
    have the same trace $4\sqrt{d+1}$ of $\nabla^2L$, and no interpolator without a preactivation
    of 0 has a smaller one. $M$ errs at all $2^d-n$ unseen vertices, $G$ at none."""
    X, y, every = training_set(d, n, seed)
    parity, root = every[:, 0] * every[:, 1], sp.sqrt(d + 1)
    pair = ir.hypercube_memoriser(X, labels * y), ir.xor_generaliser(d)
    traces = [trace(net, X, y, unit * root) for net in pair]
    mixed = ir.mix_networks(*pair, share)
    first, second, _ = second_differences(mixed, X, y)
    scales = [sp.Rational(Fraction(abs(v))) * root for v in mixed.outputs.tolist()]
    even = sum(
        sp.Rational(p) / s + sp.Rational(q) * s
        for p, q, s in zip(first, second, scales, strict=True)
    )
    outputs = [np.round(ir.relu_outputs(net, every), 9) for net in pair]
    fitted = [int(np.sum(ir.relu_outputs(net, X) == y)) for net in pair]
    errors = [int(np.sum(f * parity <= 0)) for f in outputs]
    square = sum(exact((ir.relu_outputs(mixed, every) - parity) ** 2))
    least = theory("least", 4 * root)
    return {
        "memoriser": compare(traces[0], "==", least),
        "generaliser": compare(traces[1], "==", least),
        "mixture": compare(sp.expand(even), "==", least),
        "others": compare(trace(disturbed(X, y, extra, seed), X, y, root), ">=", least),
        "fitted": compare(fitted, "==", theory("training points", (n, n))),
        "errors": compare(errors, "==", theory("unseen points", (2**d - n, 0))),
        "squares": compare(square, "==", theory("squares", Fraction(share) ** 2 * (2**d - n))),
    }


@panel(
    flattest_memoriser_equals_flattest_generaliser,
    r"Equally flat, and wrong at $\tau^2$ of the unseen square: $d=5$, 12 points",
    x=r"share $\tau$ of the memoriser",
    y="over the least trace; square per unseen vertex",
)
def _(pen, runs):
    where = {"d": 5, "n": 12, "extra": 0.25}
    tau = np.linspace(0, 1, 50)
    least = 4 * np.sqrt(6)
    t, level, _ = runs.measured("share", "mixture", where=where)
    pen.theory(tau, 1.0, k=1)
    pen.points(t, level / least, label="trace", k=1)
    t, square, _ = runs.measured("share", "squares", where=where)
    pen.theory(tau, tau**2)
    pen.points(t, square / 20, label="error")


# ---------------------------------------------------------------------------------- without biases
def tails(d, extra, symmetric, seed):
    """Vertices that span d dimensions, and their opposites."""
    rng = np.random.default_rng([seed, 3])
    while True:
        T = rng.choice([-1.0, 1.0], size=(d + extra, d))
        if d == 0 or np.linalg.matrix_rank(T) == d:
            both = np.concatenate([T, -T]) if symmetric else T
            return np.unique(both, axis=0) if d else np.zeros((1, 0))


def random_interpolator(X, y, seed):
    """A network of four random neurons for each point."""
    W = np.random.default_rng([seed, 6]).standard_normal((4 * len(X), X.shape[1]))
    a = np.linalg.lstsq(np.maximum(X @ W.T, 0), y, rcond=None)[0]
    return ir.ReluNetwork(W, a)


@no_bias.ours("derived: an exact form of Theorem 3.1 on symmetric training sets", serves="ad")
@cases(d=[2, 3, 5])
@full(d=5, extra=[1, 3])
@full(d=[2, 3, 4, 6, 7, 5], extra=0)
@space(d=Int(2, 6), extra=Int(0, 3))
@breaks("training points without their opposites", symmetric=False)
@breaks("neurons with biases", biases=True)
def no_bias_flatness_implies_generalisation(d, seed, extra=0, symmetric=True, biases=False):
    r"""Let the training set be $\{\pm1\}^2\times S$ with labels $y=x_1x_2$, where $S=-S\subset
    \{\pm1\}^{d-2}$ spans: for $d\ge3$, $8(d-2)$ points suffice. The least $T$ of an interpolator
    is $4\sqrt d$, all that attain it are $x_1x_2$ on the whole hypercube, and their neurons with
    $w_j\ne0$ are positive multiples of the four $(\pm1,\pm1,0,\dots,0)$. The convention matters:
    the preactivations of these vanish at half of the points, and after a generic move of the
    $w_j\ne0$ of size $\delta$ the trace of $\nabla^2L$ is $6\sqrt d+O(\delta)$."""
    S = tails(d - 2, extra, symmetric, seed)
    X = np.array([[*p, *s] for p in cube(2) for s in S])
    y, every = X[:, 0] * X[:, 1], cube(d)
    four = ir.xor_generaliser(d, biases=False)
    flat = ir.relu_hessian_trace(ir.balance_neurons(four, X), X)
    other = ir.balance_neurons(ir.mix_networks(four, random_interpolator(X, y, seed), 0.9), X)
    higher = ir.relu_hessian_trace(other, X)
    size = 2.0**-24 / 3**d
    step = size * 3.0 ** np.arange(d) * np.random.default_rng(seed).choice([-1, 1], size=(4, d))
    near = float(trace(ir.ReluNetwork(four.weights + step, four.outputs), X, y, sp.sqrt(d) / 4))
    ones = [np.ones((len(P), int(biases))) for P in (X, every)]
    given, whole = np.hstack([X, ones[0]]), np.hstack([every, ones[1]])
    neurons = ir.flattest_neurons(given, y)
    features, tested = (np.maximum(P @ neurons.T, 0) for P in (given, whole))
    outputs = tested @ np.linalg.lstsq(features, y, rcond=None)[0]
    square = np.mean((outputs - every[:, 0] * every[:, 1]) ** 2)
    least = theory("least", 4 * d**0.5)
    return {
        "neurons": compare(len(neurons), "==", theory("neurons", 4)),
        "trace": compare(within(flat, 1e-12 * flat, "rounding"), "==", least),
        "others": compare(within(higher, 1e-9 * higher, "rounding"), ">=", least),
        "error": compare(within(square, 1e-12, "rounding"), "==", theory("error", 0.0)),
        "nearby": compare(within(near, 1e-5, "moved weights"), "==", theory("moved", 6 * d**0.5)),
    }


@panel(
    no_bias_flatness_implies_generalisation,
    r"$8(d-2)$ points leave four neurons; the least trace is attained at kinks only",
    x="dimension $d$",
    y="trace of the Hessian",
)
def _(pen, runs):
    d = np.linspace(2, 7, 50)
    for k, (name, factor, label) in enumerate((("trace", 4, "flattest"), ("nearby", 6, "moved"))):
        pen.theory(d, factor * np.sqrt(d), rf"${factor}\sqrt{{d}}$", k=k)
        pen.points(*runs.measured("d", name, where={"extra": 0}), label, k=k)


# ---------------------------------------------------------------------------------- layer norm
@simulation
def normalised_trace(network, points, labels, eps, step):
    """Trace of the Hessian of the loss by central second differences in extended precision at a
    step and at half of it: the latter, and the difference."""
    U = np.column_stack([network.weights, network.biases]).astype(np.longdouble)
    X = np.column_stack([points, np.ones(len(points))]).astype(np.longdouble)
    a, y, h = network.outputs.astype(np.longdouble), labels.astype(np.longdouble), X @ U.T

    def loss(Z, v):
        H = np.maximum(Z, 0)
        size = np.maximum(np.sqrt(np.sum(H**2, axis=-1)), eps)
        return np.mean((np.sum(H * v, axis=-1) / size - y) ** 2, axis=-1)

    found = []
    for t in (step, step / 2):
        moves = t * (X.T[None, :, :, None] * np.eye(len(a))[:, None, None, :])
        inner = loss(h + moves, a) + loss(h - moves, a) - 2 * loss(h, a)
        shifts = 2.0**-10 * np.eye(len(a))[:, None, :]
        outer = loss(h, a + shifts) + loss(h, a - shifts) - 2 * loss(h, a)
        found.append(float(np.sum(inner) / np.longdouble(t) ** 2 + np.sum(outer) * 2.0**20))
    return found[1], abs(found[1] - found[0])


def refitted(X, y, eps, size, extra, seed):
    """A memoriser of a size, with three random neurons whose influence it undoes."""
    rng = np.random.default_rng([seed, 4])
    d = X.shape[1]
    W, b = rng.integers(-4, 5, size=(3, d)), (2 * rng.integers(-8, 9, size=3) + 1) / 2
    v = extra * rng.uniform(-1, 1, size=3)
    W = np.concatenate([size * extra / 8 * W, size * X])
    b = np.concatenate([size * extra / 8 * b, np.full(len(X), size * (1.0 - d))])
    H = np.maximum(X @ W.T + b, 0)
    rest = y * np.maximum(np.linalg.norm(H, axis=1), eps) - H[:, :3] @ v
    return ir.ReluNetwork(W, np.concatenate([v, rest / size]), b)


@normalised.ours("sharpens Theorem 5.1 by the least trace and the range of eps", serves="cd")
@cases(d=3, n=5, ratio=0.1)
@cases(d=5, n=12, ratio=1.8)
@full(d=4, n=8, ratio=[0.05, 0.5, 1.0, 1.5, 1.9])
@space(
    d=Int(2, 4),
    n=Int(1, "min(2**d, 8)"),
    ratio=Real(0.01, 1.95, log=True),
    size=Real(0.3, 3.0, log=True),
    extra=Real(0.05, 1.0, log=True),
)
@breaks("a larger epsilon", ratio=16.0)
def layernorm_flattest_memoriser_and_generaliser(d, n, ratio, seed, size=1.0, extra=0.05):
    r"""For $0<\epsilon<2\sqrt{d+1}$, $\mathrm{tr}\nabla^2L\ge2$ at every interpolator at which $f$
    is differentiable at the training points. Both the memoriser with one neuron for each of them,
    which is 0 at the other $2^d-n$ vertices, and the generaliser
    $h\propto(\mathrm{relu}(\pm x_1\pm x_2-1))$, $f=x_1x_2$, attain 2 where $\|h\|>\epsilon$."""
    X, y, every = training_set(d, n, seed)
    eps, parity = ratio * np.sqrt(d + 1), every[:, 0] * every[:, 1]
    grown = [ir.hypercube_memoriser(X, y), ir.xor_generaliser(d)]
    pair = [ir.ReluNetwork(2 * eps * g.weights, g.outputs, 2 * eps * g.biases) for g in grown]
    unit = size * np.sqrt(ratio * (d + 1))
    other = refitted(X, y, eps, unit, extra, seed)
    steps = [eps / 512, eps / 512, unit * extra / 2**14]
    source = "difference to half the step"
    found = [normalised_trace(g, X, y, eps, t) for g, t in zip([*pair, other], steps, strict=True)]
    traces = [within(value, error + 1e-8, source) for value, error in found]
    outputs = [np.round(ir.layer_norm_outputs(g, every, eps=eps), 9) for g in pair]
    least = theory("least", 2.0)
    return {
        "memoriser": compare(traces[0], "==", least),
        "generaliser": compare(traces[1], "==", least),
        "others": compare(traces[2], ">=", least),
        "errors": compare(
            [int(np.sum(f * parity <= 0)) for f in outputs],
            "==",
            theory("unseen points", (2**d - n, 0)),
        ),
    }


@panel(
    layernorm_flattest_memoriser_and_generaliser,
    r"Behind a normalised layer, memoriser and generaliser attain the least trace",
    x=r"$\epsilon/\sqrt{d+1}$",
    y="trace of the Hessian",
    log="x",
)
def _(pen, runs):
    pen.theory(np.geomspace(0.05, 1.9, 9), 2.0, "least trace")
    pen.points(*runs.measured("ratio", "generaliser"), "both nets")
    pen.points(*runs.measured("ratio", "memoriser"))
    pen.points(*runs.measured("ratio", "others"), "another", k=1)
    pen.broken(*runs.measured("ratio", "others", control="a larger epsilon"), r"$\epsilon$ large")


# ---------------------------------------------------------------------------------- population
@simulation
def inputs(d, n_pairs, sizes, symmetric, seed):
    """Points of a finite law with E x x' = I, then of a Gaussian one, their last coordinates times
    a size; without symmetry a half of the finite law, and the Gaussian one folded."""
    rng = np.random.default_rng([seed, 5])
    Q = np.sqrt(n_pairs) * np.linalg.qr(rng.standard_normal((n_pairs, d)))[0]
    G = rng.standard_normal((80_000, d))
    if not symmetric:
        G[:, 0] = abs(G[:, 0])
    both = np.concatenate([Q, -Q]) if symmetric else Q
    scale = np.where(np.arange(d) == d - 1, sizes, 1.0)
    return scale * both, scale * G


@isotropic.abstract("d", instance=True)
@cases(d=[1, 5], m=4)
@full(d=[1, 2, 4, 8, 16], m=4)
@space(d=Int(1, 6), m=Int(1, 5), spare=Int(0, 4), balance=Real(0.0, 1.0))
@breaks("another covariance", sizes=3.0)
@breaks("inputs unlike their opposites", symmetric=False)
def two_layer_relu_trace_vs_path_norm(d, m, seed, spare=3, balance=0.5, sizes=1.0, symmetric=True):
    r"""$\mathrm{tr}H=\frac12\sum_j(\|w_j\|^2+da_j^2)\ge\sqrt d\sum_j|a_j|\|w_j\|$, so that
    $\mathrm{tr}H\le2/\eta$ bounds the path norm by $2/(\eta\sqrt d)$; equality iff
    $\|w_j\|=\sqrt d|a_j|$ for all $j$."""
    rng = np.random.default_rng(seed)
    W, free = rng.standard_normal((m, d)), rng.standard_normal(m)
    a = (1 - balance) * free + balance * np.sign(free) * np.linalg.norm(W, axis=1) / np.sqrt(d)
    finite, normal = inputs(d, d + spare, sizes, symmetric, seed)
    network = ir.ReluNetwork(W, a)
    first, second, _ = second_differences(network, finite, np.zeros(len(finite)))
    value = float(sum(first) + sum(second)) / 2
    measured = within(value, 1e-10 * value, "rounding of the inputs")
    Z = np.maximum(normal @ W.T, 0)
    samples = np.sum(Z**2, axis=1) + np.sum(normal**2, axis=1) * ((Z > 0) @ a**2)
    incoming, outgoing = np.sum(W**2) / 2, d * np.sum(a**2) / 2
    total = theory("incoming", incoming) + theory("outgoing", outgoing)
    return {
        "finite law": compare(measured, "==", total),
        "Gaussian": compare(mean(samples), "==", theory("Gaussian trace", incoming + outgoing)),
        "path norm": compare(measured, ">=", theory("bound", np.sqrt(d) * ir.path_norm(network))),
    }


@panel(
    two_layer_relu_trace_vs_path_norm,
    "For isotropic inputs the trace is a norm of the weights, above the path norm",
    x="dimension $d$",
    y="trace of $H$",
    log="xy",
)
def _(pen, runs):
    pen.points(*runs.measured("d", "Gaussian"), "Gaussian")
    pen.theory(*runs.predicted("d", "finite law"), "norms of the layers")
    pen.theory(*runs.predicted("d", "path norm"), r"$\sqrt{d}$ path norm", k=1)


if __name__ == "__main__":
    run_script(__file__)
