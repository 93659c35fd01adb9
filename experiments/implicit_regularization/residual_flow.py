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
    slope,
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
    """Samples of Lipschitz functions of depth, and their Lipschitz constants."""
    draws = [rng.standard_normal(s) for s in ((q, m), (q, m), (m, q), (m, q))]
    s = (np.arange(L) + 1)[:, None, None] / L
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
        nets.append((V, W, np.eye(q, d), np.eye(q)[q - out :]))
    return nets, *data(np.random.default_rng([seed, 1]), n, d, out, target), constants


def horizon(net, X, Y):
    """0.35 over the bound of the sum of |dl/dh| at the start: the majorant is finite up to it."""
    V, W, _, B = net
    loss = np.sum((ir.residual_outputs(*net, X) - Y) ** 2) / len(X)
    bound = np.prod([np.linalg.norm(z, 2, axis=(1, 2)).max() for z in (V, W)])
    return 0.35 / (2 * np.sqrt(loss) * np.exp(bound / np.sqrt(V[0].size))), loss


@simulation
def increments(start, depths, sizes, scales, share, seed):
    """L times the largest differences of adjacent layers at the end, at two accuracies."""
    reference, X, Y, _ = problem(smooth, depths, *sizes, *scales, seed)
    nets = problem(start, depths, *sizes, *scales, seed)[0]
    T = share * horizon(reference[-1], X, Y)[0]
    found = []
    for tol in (1e-9, 1e-6):
        flows = [ir.residual_flow(*net, X, Y, [T / 2, T], tol=tol) for net in nets]
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
    outer=Real(0.0, 0.4),
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
    $S=\min(1,\frac{wH}{\sqrt{mq}})$, that follow from the start and not from $L$. Here up to
    $t=\frac{0.35}{P(0)}$, as they may blow up later."""
    sizes, scales = (q, m, n, d, out), (outer, inner, bend, target)
    fine, coarse = increments(start, depths, sizes, scales, share, seed)
    found, X, Y, constants = problem(smooth, depths, *sizes, *scales, seed)
    T, loss = share * horizon(found[-1], X, Y)[0], max(horizon(net, X, Y)[1] for net in found)
    bound = ir.flow_majorant(
        *found[-1], X, Y, [0.0, T], lipschitz=constants * (1 + 1e-12), loss=loss * (1 + 1e-12)
    )
    error = np.abs(fine - coarse) + 1e-9 * fine + 1e-10 * np.array(depths)[:, None]
    measured = within(fine, error, "difference to an integration at a tolerance of 1e-6")
    return compare(measured, "<=", theory("constants", bound.increments[-1]))


if __name__ == "__main__":
    run_script(__file__)
