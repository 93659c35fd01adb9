"""Deep random networks: the ratio of depth to width, residual branches, and criticality."""

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
    within,
)
from theorylab.verify.cli import run_script

KEY = "roberts2021-principles"
chain = paper(
    KEY,
    r"Width $n$ in every layer, independent Gaussian weights of variance $C_W/n$, no biases, "
    r"$\sigma(z)=\max(z,az)$ at its critical $C_W=\frac2{1+a^2}$, $G_L=\frac1n|\sigma(z_L)|^2$ "
    r"divided by its value for the input, which is fixed:",
)
residual = paper(
    KEY,
    r"Linear residual layers $z\mapsto\zeta z+\sqrt{1-\zeta^2}\,Wz$, $W_{ij}\sim N(0,\frac1n)$ "
    r"independent, $G_L=|z_L|^2/|z_0|^2$:",
)
kernel = paper(
    KEY,
    r"The recursions of infinite width $K_{\ell+1}=C_W\mathbb E\sigma(\sqrt{K_\ell}z)^2$, "
    r"$V_{\ell+1}=\chi_\ell^2V_\ell+C_W^2\operatorname{Var}\sigma(\sqrt{K_\ell}z)^2$, "
    r"$\chi_\ell=C_W\frac d{dK}\mathbb E\sigma(\sqrt Kz)^2$ at $K_\ell$, $z\sim N(0,1)$, $V_0=0$:",
)


def fresh(rng, h):
    """Gaussian weights: W h is drawn as it is distributed, given h."""
    return np.linalg.norm(h, axis=1, keepdims=True) * rng.standard_normal(h.shape)


def uniform(rng, h):
    """Independent weights, uniform, of variance one."""
    W = rng.uniform(-np.sqrt(3), np.sqrt(3), (*h.shape, h.shape[1]))
    return (W @ h[..., None])[..., 0]


def tied(rng, h):
    """The same Gaussian weights in every layer."""
    W = np.random.default_rng(len(h)).standard_normal((*h.shape, h.shape[1]))
    return (W @ h[..., None])[..., 0]


@simulation
def sizes(n, depth, leak, skip, branch, draws, law, seed):
    """Sizes of the layers 1, ..., depth over that of the input, shape (draws, depth)."""
    rng = np.random.default_rng([seed, round(1e6 * abs(leak))])
    scale = np.sqrt(2 / (1 + leak**2) / n)
    z, found = np.broadcast_to(np.eye(n)[0], (draws, n)), []
    for layer in range(depth):
        h = z if layer == 0 else np.maximum(z, leak * z)
        z = skip * z + branch * scale * law(rng, h)
        found.append(np.sum(np.maximum(z, leak * z) ** 2, axis=1))
    return np.stack(found, axis=1)


@simulation
def every_network(leak, skip, branch):
    """Mean and variance of the sizes of two layers of two neurons, exactly: the squared size is of
    degree 4 in each weight, once the signs of the rows are averaged, and so are means over three
    points, 0 and plus or minus the root of 3, with masses 2/3 and 1/6."""
    choice = np.indices((3,) * 8).reshape(8, -1).T
    mass = np.prod(np.array([1, 4, 1])[choice] / 6, axis=1)
    W = np.sqrt(3 / (1 + leak**2)) * (choice - 1.0).reshape(-1, 2, 2, 2)
    z, found = np.broadcast_to([1.0, 0.0], (len(W), 2)), []
    for layer in (0, 1):
        z = rf.propagate(z, W[:, layer], leak=leak if layer else 1.0, skip=skip, branch=branch)
        found.append(np.sum(np.maximum(z, leak * z) ** 2, axis=1))
    means = [np.sum(mass * size) for size in found]
    return np.array([np.sum(mass * (size - 1) ** 2) for size in found]), np.array(means)


def growth(n, depth, rate, leak, skip, branch, draws, law, seed):
    """Compare with a growth of the second moment by 1 + rate / n a layer."""
    found, L = sizes(n, depth, leak, skip, branch, draws, law, seed), np.arange(1, depth + 1)
    exact, means = every_network(leak, skip, branch)
    one = theory("mean", 1.0)
    return {
        "variance": compare(mean((found - 1) ** 2), "==", (1 + rate / n) ** L - 1),
        "mean": compare(mean(found), "==", np.full(depth, one)),
        "two neurons": compare(
            within(exact, 1e-12 * (1 + exact), "rounding"),
            "==",
            (1 + rate / 2) ** np.array([1, 2]) - 1,
        ),
        "their mean": compare(within(means, 1e-12, "rounding"), "==", np.full(2, one)),
    }


@chain.ours("sharpened: exact at every width; recalled to leading order", serves="ab")
@cases(n=12, leak=[0.0, 1.0], depth=2)
@full(n=8, leak=[0.0, 0.5, 1.0], depth=1, draws=150_000)
@full(n=[16, 32], leak=[0.0, 1.0], depth=4, draws=150_000)
@space(n=Int(8, 16), depth=Int(1, 2), leak=Real(-1.0, 1.0))
@breaks("uniform weights", law=uniform, draws=10_000)
@breaks("the same weights in every layer", law=tied, depth=4, draws=10_000)
def four_point_vertex_growth(n, depth, leak, seed, draws=80_000, law=fresh):
    r"""$\mathbb EG_L=1$ and $\operatorname{Var}G_L=(1+\frac{\kappa-1}n)^L-1$ with
    $\kappa=\frac{6(1+a^4)}{(1+a^2)^2}$: a factor $1+\frac2n$ a layer for linear networks,
    $1+\frac5n$ for ReLU, so that $\frac Ln$ sets how far the next layer, Gaussian of variance
    proportional to $G_L$, is from a Gaussian law."""
    kurtosis = theory("kurtosis", 6 * (1 + leak**4) / (1 + leak**2) ** 2)
    return growth(n, depth, kurtosis - 1, leak, 0.0, 1.0, draws, law, seed)


@panel(
    four_point_vertex_growth,
    "Depth over width sets how the size of a layer varies",
    x="layers $L$ over width $n$",
    y=r"$\mathrm{Var}\,G_L$",
    log="xy",
)
def _(pen, runs):
    for run in runs.judgement.runs:
        part, at = run.parts["variance"], run.instance
        if at["depth"] > 1:
            k, t = int(at["leak"] == 0), np.arange(1, at["depth"] + 1) / at["n"]
            pen.theory(t, part.predicted, k=k)
            label = ("linear", "ReLU")[k] * (at["n"] == 16)
            pen.points(t, part.shown, part.error, label, k=k)


@residual.ours("derived: exact at every width", serves="f")
@cases(n=12, depth=2, skip=[0.0, 0.6])
@full(n=12, depth=4, skip=[0.0, 0.5, 0.7, 0.9], draws=150_000)
@space(n=Int(8, 16), depth=Int(1, 2), skip=Real(-0.9, 0.9))
@breaks("branch of weight one", branch=1.0)
@breaks("the same weights in every layer", law=tied, depth=4, draws=10_000)
@breaks("uniform weights", law=uniform, draws=10_000)
def residual_connections_slow_vertex_growth(
    n, depth, skip, seed, draws=60_000, law=fresh, branch=None
):
    r"""$\mathbb EG_L=1$ and $\operatorname{Var}G_L=(1+\frac{2(1-\zeta^4)}n)^L-1$: to
    leading order the skip connection multiplies the effective depth $\frac Ln$ by $1-\zeta^4$."""
    branch = np.sqrt(1 - skip**2) if branch is None else branch
    excess = theory("excess", 2 * (1 - skip**4))
    return growth(n, depth, excess, 1.0, skip, branch, draws, law, seed)


@panel(
    residual_connections_slow_vertex_growth,
    r"A skip connection multiplies depth by $1-\zeta^4$ ($n=12$)",
    x="layers $L$",
    y=r"$\mathrm{Var}\,G_L$",
)
def _(pen, runs):
    L = np.arange(5)
    for i, run in enumerate(runs.judgement.runs):
        zeta, part = run.instance["skip"], run.parts["variance"]
        pen.theory(L, rf.residual_growth(12, skip=zeta) ** L - 1, k=i)
        pen.points(L[1:], part.shown, part.error, rf"$\zeta={zeta:g}$", k=i)


def error_function(x):
    from scipy.special import erf

    return erf(np.sqrt(np.pi) / 2 * x)


ACTIVATIONS = {
    "tanh": (np.tanh, 2.0),
    "sine": (np.sin, 1.0),
    "arctan": (np.arctan, 2.0),
    "erf": (error_function, np.pi / 2),
}


@simulation
def critical(name, start, variance, depth):
    """1 / (l K_l) and V_l / (l K_l^2) at a quarter, a half and all of the depth, shape (3, 2)."""
    found = rf.kernel_chain(ACTIVATIONS[name][0], start, depth=depth, weight_variance=variance)
    at = np.array([depth // 4, depth // 2, depth])
    K, V = found.kernels[at], found.vertices[at]
    return np.stack([1 / (at * K), V / (at * K**2)], axis=1)


def last(values):
    """The last of three values at doubled depths, with a remainder (A log l + B) / l."""
    early, late = np.abs(np.diff(values))
    return within(
        values[-1], 3 * late + early + 1e-4, "log(l) / l and 1 / l by doublings, 1e-4 beyond"
    )


@kernel.ours("derived: the constants of a class of activations", serves="cd")
@cases(name=["tanh", "sine"], start=0.5)
@full(name=[*ACTIVATIONS][::-1], start=[0.1, 2.0], depth=40_000)
@space(name=Choice((*ACTIVATIONS,)), start=Real(0.05, 3.0, log=True))
@breaks("weight variance below the critical one", variance=0.95, depth=800)
@breaks("weight variance above the critical one", variance=1.05)
def tanh_criticality(name, start, depth=4_000, variance=1.0):
    r"""for an odd $\sigma(x)=x-\frac a6x^3+\dots$, $a>0$, at $C_W=1$, if $K_\ell\to0$
    (judged: $\tanh$ and $\arctan$, $a=2$; $\sin$, $a=1$; $\operatorname{erf}(\frac{\sqrt\pi}2x)$,
    $a=\frac\pi2$), $aK_\ell\ell\to1$ and $V_\ell/(K_\ell^2\ell)\to\frac23$."""
    found = critical(name, start, variance, depth)
    return {
        "kernel": compare(last(found[:, 0]), "==", theory("a", ACTIVATIONS[name][1])),
        "vertex": compare(last(found[:, 1]), "==", theory("vertex", 2 / 3)),
    }


@panel(
    tanh_criticality,
    r"One class: the kernel falls as $1/(a\ell)$, the vertex constant is 2/3",
    x="$a$, of the activation",
    y=r"$1/(\ell K_\ell)$ and $V_\ell/(\ell K_\ell^2)$",
)
def _(pen, runs):
    a = np.array([0.9, 2.1])
    pen.theory(a, a, "kernel")
    pen.theory(a, [2 / 3, 2 / 3], "vertex", k=1)
    for run in runs.judgement.runs:
        at, parts = ACTIVATIONS[run.instance["name"]][1], run.parts
        for k, name in enumerate(("kernel", "vertex")):
            pen.points([at], parts[name].shown, parts[name].error, k=k)


if __name__ == "__main__":
    run_script(__file__)
