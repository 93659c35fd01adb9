"""Gradient flow of deep residual networks: what stays smooth in depth, and what it converges to."""

import numpy as np

from theorylab import implicit_regularization as ir
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

NETWORK = (
    r"Residual network $h_k=h_{k-1}+\frac1{L\sqrt m}V_k\sigma(W_kh_{k-1}/\sqrt q)$, $h_0=Ax$, "
    r"$F=Bh_L$, $\sigma=\tanh$, mean squared error $\ell$ on $n$ data, gradient flow of all "
    r"weights, that of $Z_k=(V_k,W_k)$ rescaled, $\dot Z_k=-L\,\partial\ell/\partial Z_k$:"
)
nets = paper("marion2023-implicit", NETWORK)


def smooth(rng, L, q, m, outer, inner, bend):
    """Samples of smooth functions of depth, and their Lipschitz constants."""
    draws = [rng.standard_normal(s) for s in ((q, m), (q, m), (m, q), (m, q))]
    s = np.sin(2 * (np.arange(L) + 1)[:, None, None] / L) / 2
    V = outer * (draws[0] + bend * s * draws[1])
    W = inner * (draws[2] + bend * s * draws[3])
    return V, W, bend * np.array([outer, inner]) * [np.linalg.norm(z) for z in draws[1::2]]


def independent(rng, L, q, m, outer, inner, bend):
    _, _, constants = smooth(np.random.default_rng(0), L, q, m, outer, inner, bend)
    V, W = rng.standard_normal((L, q, m)), rng.standard_normal((L, m, q))
    return outer * V, inner * W, constants


def data(rng, n, d, out, target):
    X = rng.standard_normal((n, d))
    return X / np.linalg.norm(X, axis=1)[:, None], target * rng.standard_normal((n, out))


def problem(start, depths, q, m, n, d, out, outer, inner, bend, target, seed):
    """Starts of several depths from the same functions, and one data set."""
    nets = []
    for L in depths:
        V, W, constants = start(np.random.default_rng(seed), L, q, m, outer, inner, bend)
        ends = np.random.default_rng([seed, 5])
        A, B = (z / np.linalg.norm(z, 2) for z in map(ends.standard_normal, ((q, d), (out, q))))
        nets.append((V, W, A, B))
    return nets, *data(np.random.default_rng([seed, 1]), n, d, out, target), constants


def horizon(net, X, Y):
    """0.2 over the bound P of the sum of |dl/dh| at the start, and the loss there."""
    V, W = net[:2]
    loss = np.sum((ir.residual_outputs(*net, X) - Y) ** 2) / len(X)
    bound = np.prod([np.linalg.norm(z, 2, axis=(1, 2)).max() for z in (V, W)])
    return 0.2 / (2 * np.sqrt(loss) * np.exp(bound / np.sqrt(V[0].size))), loss


@simulation
def increments(start, depths, sizes, scales, share, seed):
    """L times the largest differences of adjacent layers at the end, at two accuracies."""
    reference, X, Y, _ = problem(smooth, depths, *sizes, *scales, seed)
    nets = problem(start, depths, *sizes, *scales, seed)[0]
    T = share * horizon(reference[-1], X, Y)[0]
    found = []
    for tol in (1e-8, 1e-5):
        flows = [ir.residual_gradient_flow(*net, X, Y, [T / 2, T], tol=tol) for net in nets]
        pairs = [[ir.depth_increments(f.V[i], f.W[i]) for i in (0, 1)] for f in flows]
        found.append(np.max(pairs, axis=1))
    return found


@nets.ours("derived: an explicit constant, which no depth enters", serves="a")
@cases(n=1, q=1, m=1, d=1, out=1, outer=0.3, share=0.3)
@cases(bend=[0.0, 0.3])
@full(depths=[(4, 16, 64, 256)], bend=[0.0, 0.1, 0.3], share=[0.1, 0.3, 1.0], n=4, m=8)
@space(
    q=Int(1, 4),
    m=Int(1, 12),
    n=Int(1, 5),
    d=Int(1, "q"),
    out=Int(1, "q"),
    outer=Real(0.02, 0.4),
    inner=Real(0.2, 1.5),
    bend=Real(0.0, 0.5),
    target=Real(0.1, 3.0, log=True),
    share=Real(0.05, 1.0),
    depths=Choice([(4, 8), (2, 16), (3, 12)]),
)
@breaks("layers drawn independently", start=independent)
def lipschitz_in_depth_preserved(
    seed,
    bend=0.3,
    q=3,
    m=6,
    n=3,
    d=2,
    out=1,
    outer=0.2,
    inner=0.8,
    target=0.5,
    share=0.5,
    depths=(4, 32),
    start=smooth,
):
    r"""if $Z_k(0)=\mathcal Z(k/L)$ with a Lipschitz $\mathcal Z$, then
    $L\max_k\|V_{k+1}-V_k\|_F\le\lambda_V(t)$ and $L\max_k\|W_{k+1}-W_k\|_F\le\lambda_W(t)$ at every
    depth, where $\lambda$ starts from the Lipschitz constants and solves $\dot\lambda_V=2cSP+
    \frac{PH}{\sqrt{mq}}\lambda_W$, $\dot\lambda_W=\frac P{\sqrt{mq}}[H\lambda_V+\frac{s_2vH^2}
    {\sqrt q}\lambda_W+\frac{s_2v^2wSH}{\sqrt q}+vcH+v^2S]$, $s_2=\max|\sigma''|$, with bounds
    $v,w,H,P$ of weights, hidden layers and loss gradients, $c=\frac{vw}{\sqrt{mq}}$,
    $S=\min(1,\frac{wH}{\sqrt{mq}})$, that follow from the start and not from $L$; as long as
    this system does not blow up (here, up to $t=\frac{0.2}{P(0)}$)."""
    sizes, scales = (q, m, n, d, out), (outer, inner, bend, target)
    fine, coarse = increments(start, depths, sizes, scales, share, seed)
    found, X, Y, constants = problem(smooth, depths, *sizes, *scales, seed)
    T, loss = share * horizon(found[-1], X, Y)[0], max(horizon(net, X, Y)[1] for net in found)
    bound = ir.flow_majorant(
        *found[-1], X, Y, [0.0, T], lipschitz=constants * (1 + 1e-12), loss=loss * (1 + 1e-12)
    )
    error = np.abs(fine - coarse) + 1e-9 * fine + 1e-10 * np.array(depths)[:, None]
    measured = within(fine, error, "difference to an integration at a tolerance of 1e-5")
    return compare(measured, "<=", theory("constants", bound.increments[-1]))


@panel(
    lipschitz_in_depth_preserved,
    r"Differences of adjacent layers stay below $\lambda/L$",
    x="depth $L$",
    y=r"$L\max_k\|V_{k+1}-V_k\|_F$",
    log="xy",
)
def _(pen, runs):
    for k, bend in enumerate((0.0, 0.3)):
        case = {"bend": bend, "share": 1.0}
        index = (slice(None), 0)
        pen.points(*runs.measured("depths", index=index, where=case), f"bend {bend:g}", k=k)
        depths = runs.measured("depths", index=index, where=case)[0]
        bound = runs.predicted("bend", index=(0, 0), where=case)[1]
        pen.theory(depths, np.full(len(depths), bound[0]), r"$\lambda_V$", k=k)
    (control,) = [c.run for c in runs.judgement.controls if c.run is not None]
    pen.broken(control.instance["depths"], control.parts[""].shown[:, 0], label="independent")


def tied(net, seed):
    return net


def untied(net, seed):
    """A Gaussian matrix for every layer."""
    V, W, A, B = net
    return V, np.random.default_rng([seed, 3]).standard_normal(W.shape), A, B


def slow_problem(n, d, out, m, depth, share, mix, seed):
    """The standard start and targets at a share of the condition, along the slowest direction of
    its tangent kernel or mixed with a random one, with a horizon that the integrator reaches."""
    q = d + out
    X = np.sqrt(q) * data(np.random.default_rng([seed, 2]), n, d, out, 0.0)[0]
    net = ir.tied_network(m, depth=depth, hidden=q, inputs=d, outputs=out, seed=seed)
    features = np.tanh(X @ net[1][0][:, :d].T / np.sqrt(q)) / np.sqrt(m)
    values, vectors = np.linalg.eigh(features @ features.T + 2 * X @ X.T)
    slow = vectors[:, :1] * np.full((1, out), 1 / np.sqrt(out))
    other = np.random.default_rng([seed, 6]).standard_normal((n, out))
    Y = np.sqrt(1 - mix) * slow + np.sqrt(mix) * other / np.linalg.norm(other)
    Y /= np.linalg.norm(Y) / np.sqrt(n)
    Y *= (1 - 1e-9) * share / ir.tied_convergence(net[1][0], X, 1e-30 * Y).excess * 1e-30
    return net, X, Y, min(5 * n / (4 * values[0]), 60 * n / values[-1])


@simulation
def training(instance, start, speed, seed):
    """Rates -log(loss / its start) / t at three times, at two accuracies; and the largest
    difference of adjacent V_k at the last one, at depths L, 2L and 4L, with what rounding may
    change in its exponents."""
    net, X, Y, T = slow_problem(*instance, seed)
    times, found = T * np.array([0.0, 0.1, 0.4, 1.0]), []
    for tol in (1e-10, 1e-8):
        flow = ir.residual_gradient_flow(*start(net, seed), X, Y, times, speed=speed, tol=tol)
        found.append(-np.log(flow.losses[1:] / flow.losses[0]) / times[1:])
    n, d, out, m, depth, *rest = instance
    rough = []
    for L in depth * np.array([1, 2, 4]):
        deep = slow_problem(n, d, out, m, L, *rest, seed)[0]
        flow = ir.residual_gradient_flow(*start(deep, seed), X, Y, [T], speed=speed, tol=1e-6)
        rough.append(ir.depth_increments(flow.V[0], flow.W[0])[0] / L)
    rounding = 100 * np.finfo(float).eps * np.linalg.norm(flow.V[0], axis=(1, 2)).max()
    return *found, np.diff(np.log2(rough)), rounding / rough[-1]


@nets.ours("derived: explicit constants of the condition and of the rate", serves=("b", "c", "d"))
@cases(n=1, d=1, width=16)
@cases(n=3, d=3, mix=[0.0, 1.0])
@cases(n=4, d=3, share=0.1)
@full(n=[2, 4], d=4, mix=1.0)
@full(n=[1, 2, 4, 6], d=4, width=[1, 4], share=[1.0, 0.1], depth=[16, 4], mix=0.0)
@space(
    n=Int(1, 4),
    d=Int("min(n, 2)", 4),
    out=Int(1, 2),
    width=Int(1, 4),
    depth=Int(2, 5),
    share=Real(0.05, 1.0),
    mix=Real(0.0, 1.0),
)
@breaks("layers not rescaled", speed=1.0)
@breaks("layers drawn independently", start=untied)
def pl_convergence(
    seed, n=4, d=3, out=1, width=4, depth=4, share=0.5, mix=0.0, start=tied, speed=None
):
    r"""from $V_k=0$, $W_k=W$ Gaussian, $m\ge n$, $A=(I,0)^\top$, $B=(0,I)$, $q=d+d'$,
    $|x_i|=\sqrt q$, no two $x_i$ parallel: let $\lambda=\lambda_{\min}(SS^\top+2XX^\top)$,
    $S=\frac1{\sqrt m}\sigma(\frac{XW_x^\top}{\sqrt q})$ ($W_x$: columns of the inputs),
    $\omega=\frac{\|W\|_2}{\sqrt{mq}}$, $\kappa^2=\frac{(30(1+\omega))^2n^3q^2}{\lambda^3}\ell(0)$,
    $\ell(0)=\frac1n\sum_i|y_i|^2$. If $\kappa\le1$, then $\ell(t)\le
    \ell(0)e^{-\frac{4\lambda}n(1-\frac\kappa2)^2t}$ at all times and every depth, and the largest
    difference of adjacent $V_k$ falls as $\frac1L$."""
    instance = (n, d, out, width * n, depth, share, mix)
    rates, coarse, exponents, rounding = training(instance, start, speed, seed)
    net, X, Y, _ = slow_problem(*instance, seed)
    proved = ir.tied_convergence(net[1][0], X, Y)
    drift = 1.5 * abs(exponents[1] - exponents[0]) + 1e-3 + 3 * rounding
    return {
        "rate": compare(
            within(
                rates,
                np.abs(rates - coarse) + 1e-9 * rates,
                "difference to an integration at a tolerance of 1e-8",
            ),
            ">=",
            theory("rate", np.full(3, proved.rate)),
        ),
        "smoothness": compare(
            within(exponents[1], drift, "drift of two doublings of the depth, and rounding"),
            "==",
            theory("exponent", -1.0),
        ),
    }


@panel(
    pl_convergence,
    r"The loss falls at the rate of the condition ($m=4n$, $d=4$)",
    x="data $n$",
    y=r"$-\log(\ell(t)/\ell(0))/t$",
    log="y",
)
def _(pen, runs):
    for k, share in enumerate((1.0, 0.1)):
        case = {"width": 4, "depth": 4, "share": share, "mix": 0.0}
        pen.theory(*runs.predicted("n", "rate", 2, where=case), rf"bound, $\kappa={share:g}$", k=k)
        pen.points(*runs.measured("n", "rate", 2, where=case), "" if k == 0 else "flow", k=k)
    x, y, error = runs.measured("n", "rate", 2, control="layers not rescaled")
    pen.broken(x, y, error, "not rescaled")


@simulation
def doubling(start, L, sizes, scales, share, seed):
    """Differences between networks of depths L and 2L at equal times: outputs at nine new inputs,
    and weights at equal relative depth, in root mean square."""
    depths = sorted({*L, *(2 * k for k in L)})
    nets, X, Y, _ = problem(start, depths, *sizes, *scales, seed)
    T = share / max(np.sqrt(horizon(nets[-1], X, Y)[1]), 0.3)
    new, ends = np.random.default_rng([seed, 4]).standard_normal((9, X.shape[1])), {}
    for depth, net in zip(depths, nets, strict=True):
        flow = ir.residual_gradient_flow(*net, X, Y, [T], tol=1e-7)
        ends[depth] = [flow.V[0], flow.W[0], flow.A[0], flow.B[0]]
    outputs, weights = [], []
    for depth in L:
        one, two = ends[depth], ends[2 * depth]
        gap = ir.residual_outputs(*one, new) - ir.residual_outputs(*two, new)
        squares = [np.sum((a - b[1::2]) ** 2) for a, b in zip(one[:2], two[:2], strict=True)]
        outputs.append(np.linalg.norm(gap))
        weights.append(np.sqrt(sum(squares) / depth))
    return np.array(outputs), np.array(weights)


def exponent(gaps):
    """The limit of the exponents of the doublings of the depth, of which the remainder halves."""
    *_, first, last, final = np.diff(np.log2(gaps))
    coarse, fine = 2 * last - first, 2 * final - last
    error = abs(fine - coarse) + 0.25 * abs(final - last) + 0.005 + 1e-7 / gaps[-1]
    return within(fine, error, "change of an extrapolation in depth, and integration")


@nets.ours("its Theorem 4 with a rate, which our doublings of the depth show", serves="a")
@cases(bend=[0.2, 0.5])
@full(bend=[0.0, 0.2, 0.5], share=[0.3, 3.0], unit=16, gaps=5)
@space(
    q=Int(1, 4),
    m=Int(1, 8),
    n=Int(1, 4),
    d=Int(1, "q"),
    out=Int(1, "q"),
    outer=Real(0.1, 0.5),
    inner=Real(0.5, 1.5),
    bend=Real(0.1, 0.5),
    share=Real(0.3, 2.0),
)
@breaks("layers drawn independently", start=independent)
def output_convergence(
    seed,
    q=3,
    m=6,
    n=4,
    d=2,
    out=1,
    outer=0.4,
    inner=1.0,
    bend=0.5,
    target=1.0,
    share=1.0,
    unit=8,
    gaps=4,
    start=smooth,
):
    r"""if $Z_k(0)=\mathcal Z(k/L)$ with a smooth $\mathcal Z$, outputs and weights (at equal $k/L$)
    at a fixed time converge as $L\to\infty$: from generic starts, differences between depths $L$
    and $2L$ become proportional to $1/L$."""
    sizes, scales = (q, m, n, d, out), (outer, inner, bend, target)
    depths = tuple(unit * 2**k for k in range(gaps))
    outputs, weights = doubling(start, depths, sizes, scales, share, seed)
    return {
        "outputs": compare(exponent(outputs), "==", theory("exponent", -1.0)),
        "weights": compare(exponent(weights), "==", theory("exponent", -1.0)),
    }


@panel(
    output_convergence,
    r"Trained networks of depths $L$ and $2L$ differ by $O(1/L)$",
    x="depth $L$",
    y="difference",
    log="xy",
)
def _(pen, runs):
    sizes = (3, 6, 4, 2, 1)
    L = 16 * 2 ** np.arange(5)
    scales = (0.4, 1.0, 0.5, 1.0)
    outputs, weights = doubling(smooth, tuple(L.tolist()), sizes, scales, 3.0, runs.judgement.seed)
    for k, (name, y) in enumerate((("outputs", outputs), ("weights", weights))):
        pen.theory(L, y[-1] * L[-1] / L, r"$\propto1/L$", k=k)
        pen.points(L, y, label=name, k=k)


if __name__ == "__main__":
    run_script(__file__)
