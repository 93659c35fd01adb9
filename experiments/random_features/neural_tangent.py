"""Wide networks at initialisation: their kernels, what makes these definite, and their blocks."""

import math
from dataclasses import replace

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

ACTIVATIONS = {
    "relu": rf.LeakyReLU(),
    "leaky": rf.LeakyReLU(0.3),
    "erf": rf.Erf(),
    "sine": rf.Sine(),
    "quadratic": rf.Polynomial((0.3, 1.0, 0.5)),
    "cubic": rf.Polynomial((0.1, 1.0, 0.3, 0.2)),
}
DEGREES = {"quadratic": 2, "cubic": 3}
BATCHES = 60
# Covers what is left where a quarter of the width leaves 3 times as much, or more; a remainder of
# order 1 / width is 4 times as large there.
HALF = "half the difference to a quarter of the width"
jacot = paper(
    "jacot2018-neural",
    r"Fully connected network of $L$ hidden layers of width $n$, parameters $N(0,1)$, weights "
    r"divided by $\sqrt{\text{fan-in}}$ and multiplied by $\sigma_w$, biases by $\sigma_b$; "
    r"$\Sigma^1=\Theta^1=\sigma_w^2\langle x,x'\rangle/d+\sigma_b^2$, "
    r"$\Sigma^{l+1}=\sigma_w^2\mathbb E[\phi(u)\phi(v)]+\sigma_b^2$, "
    r"$\Theta^{l+1}=\Sigma^{l+1}+\sigma_w^2\mathbb E[\phi'(u)\phi'(v)]\Theta^l$, "
    r"$(u,v)\sim N(0,\Sigma^l)$:",
)
blocks = paper(
    "guo2024-sample",
    r"The same network with leaky ReLU, one hidden layer and $K$ outputs; $\Theta(x,x')\in"
    r"\mathbb R^{K\times K}$ its tangent kernel at initialisation, $\Theta_\infty$ the limit of "
    r"its diagonal entries, $c(x,x')=\sigma_w^4(\Sigma^1)^2\mathbb E[\phi'(u)^2\phi'(v)^2]$:",
)


def inputs(n, d, seed):
    """Points on the sphere of radius sqrt(d)."""
    X = np.random.default_rng([seed, n, d]).standard_normal((n, d))
    return X * math.sqrt(d) / np.linalg.norm(X, axis=1, keepdims=True)


def rate(errors):
    """Exponent of the root mean square from the second to the last of the widths."""
    parts = rf.decay_exponents(errors, factor=4.0, n_batches=BATCHES)
    early, late = parts[:-1].mean(axis=0), parts[1:].mean(axis=0)
    return mean(late, bias=abs(np.mean(late - early)) / 2, source=HALF)


@simulation
def random_kernels(width, X, law, draws, seed, shift):
    """Covariances of the outputs given the hidden layers, and tangent kernels, of many networks
    whose weights may be shifted: shape (draws, 2, n, n)."""
    nets = rf.random_networks(X.shape[1], width=width, n_draws=draws, seed=seed, **law)
    nets = replace(nets, weights=tuple(w + shift for w in nets.weights))
    below = replace(nets, weights=nets.weights[:-1], biases=nets.biases[:-1])
    z = nets.activation.value(rf.network_outputs(below, X))
    process = nets.weight_variance / width * z @ z.swapaxes(1, 2) + nets.bias_variance
    return np.stack([process, rf.tangent_blocks(nets, X)[..., 0, 0]], axis=1)


@simulation
def squared_deviations(X, law, limits, draws, seed, narrow):
    """Squared Frobenius distances from the limits at four widths, of all layers or of all but the
    first, more of them at the small widths: for each, shape (2, number)."""
    law, depth = {k: v for k, v in law.items() if k != "depth"}, law["depth"]
    found = []
    for n, times in ((16, 2), (64, 4), (256, 1), (1024, 1)):
        widths = [narrow or n] + [n] * (depth - 1)
        kernels = rf.sample_kernels(X, widths=widths, n_draws=times * draws, seed=seed + n, **law)
        found.append(np.sum((np.stack(kernels) - limits[:, None]) ** 2, axis=(2, 3)))
    return found


@jacot.ours("the rate is derived; one width for all layers", serves="ac")
@cases(phi="sine", depth=1, draws=5000, rates=4200)
@full(phi="sine", depth=[1, 3], draws=5000, rates=7200)
@full(phi="relu", depth=[1, 2], draws=5000, rates=7200)
@space(
    depth=Int(1, 3),
    phi=Choice(("relu", "leaky", "erf", "sine")),
    points=Int(1, 3),
    d=Int(1, 5),
    weight=Real(1.0, 2.0),
    bias=Real(0.0, 1.0),
)
@breaks("a first layer that stays narrow", narrow=16, rates=600)
@breaks("weights not centred", shift=0.5, draws=300)
def ntk_recursion_convergence(
    depth,
    seed,
    phi="relu",
    points=2,
    d=3,
    weight=2.0,
    bias=0.1,
    width=64,
    draws=400,
    rates=600,
    narrow=0,
    shift=0.0,
):
    r"""as $n\to\infty$ the covariance of the outputs given the hidden layers (they are then
    Gaussian) tends to $\Sigma^{L+1}$ and the tangent kernel to $\Theta^{L+1}$, with root mean
    square deviations $\propto n^{-1/2}$."""
    X = inputs(points, d, seed)
    law = {"depth": depth, "activation": ACTIVATIONS[phi]}
    law |= {"weight_variance": weight, "bias_variance": bias}
    limits = np.stack([rf.nngp(X, **law), rf.ntk(X, **law)])
    wide, half = (random_kernels(n, X, law, draws, seed + n, shift) for n in (width, width // 4))
    rest = np.abs(wide.mean(axis=0) - half.mean(axis=0)) / 2
    squares = squared_deviations(X, law, limits, rates, seed, narrow)
    process, tangent = (rate([kernel[i] for kernel in squares]) for i in (0, 1))
    exponent = theory("exponent", -0.5)
    return {
        "kernels": compare(
            mean(wide, bias=rest, source=HALF),
            "==",
            theory("limits", limits),
        ),
        "process": compare(process, "==", exponent),
        "tangent": compare(tangent, "==", exponent),
    }


@simulation
def rank(X, law):
    """Rank of the tangent kernel, NaN without a gap of the spectrum at the rounding."""
    values = np.abs(np.linalg.eigvalsh(rf.ntk(X, **law)))
    small = values < 1e-12 * values.max()
    clear = values[~small].min() > 1e-10 * values.max()
    return float(np.sum(~small)) if clear else math.nan


@jacot.ours("with the ranks of polynomials, which are derived", serves="d")
@cases(phi=["relu", "erf"], points=8)
@cases(phi="quadratic", depth=[1, 2], points=40)
@cases(phi="relu", points=12, depth=1)
@full(phi=["leaky", "erf", "sine"], depth=[1, 2, 3], points=10)
@full(phi="quadratic", depth=[1, 2], points=40)
@full(phi="cubic", depth=1, points=40)
@full(phi="relu", points=40, depth=[2, 3, 1])
@space(
    phi=Choice(("relu", "leaky", "erf", "sine", "quadratic", "cubic")),
    points=Int(2, 7),
    depth=Int(1, 2),
    bias=Real(0.2, 1.0),
    weight=Real(1.0, 3.0),
    d=Int(3, 5),
)
@breaks("no bias, pairs of opposite points", bias=0.0, pairs=-1.0)
@breaks("points that come twice", pairs=1.0)
def ntk_positive_definite(phi, points, seed, depth=1, d=3, weight=2.0, bias=0.5, pairs=0.0):
    r"""for distinct points on a sphere, $L\ge1$ and $\sigma_b>0$ the matrix of $\Theta^{L+1}$ is
    positive definite if $\phi$ is ReLU, a leaky one (with a kink), the error function or the sine;
    if $\phi$ is a polynomial of degree $p\ge1$ its rank is that of the polynomials of degree
    $p^L$ on generic points, $\min\big(N,\binom{p^L+d-1}{d-1}+\binom{p^L+d-2}{d-1}\big)$."""
    X = inputs(points, d, seed)
    if pairs:
        X = np.concatenate([X, pairs * X])
    law = {"depth": depth, "weight_variance": weight, "bias_variance": bias}
    found = rank(X, {**law, "activation": ACTIVATIONS[phi]})
    dimension = len(X)
    if phi in DEGREES:
        p = DEGREES[phi] ** depth
        dimension = min(len(X), math.comb(p + d - 1, d - 1) + math.comb(p + d - 2, d - 1))
    return compare(within(found, 0.0, "gap of the spectrum"), "==", theory("rank", dimension))


@panel(
    ntk_positive_definite,
    "Polynomials leave the tangent kernel singular on 40 points of the sphere",
    x="depth $L$",
    y="rank of the tangent kernel",
)
def _(pen, runs):
    pen.theory([1, 3], [40, 40], "points")
    pen.theory([1, 2], [9, 25], k=1)
    for k, phi in enumerate(("relu", "quadratic")):
        pen.points(*runs.measured("depth", where={"phi": phi, "points": 40}), phi, k=k)


@panel(
    ntk_recursion_convergence,
    r"Kernels of random networks tend to their recursion as $n^{-1/2}$",
    x="depth $L$",
    y="exponent of the deviation",
)
def _(pen, runs):
    pen.theory([1, 3], [-0.5, -0.5], r"$-\frac{1}{2}$")
    pen.points(*runs.measured("depth", "tangent", where={"phi": "relu"}), "ReLU", k=1)
    pen.points(*runs.measured("depth", "tangent", where={"phi": "sine"}), "sine", k=2)
    name = "a first layer that stays narrow"
    pen.broken(*runs.measured("depth", "tangent", control=name), "narrow layer")


@simulation
def tangent_errors(width, outputs, X, leak, weight, bias, draws, seed, correlation):
    """Tangent kernels of many networks whose head may have correlated rows, and their squared
    Frobenius distances from multiples of the identity: by the sum of the logits, by the trace."""
    nets = rf.random_networks(
        X.shape[1],
        width=width,
        depth=1,
        n_outputs=outputs,
        n_draws=draws,
        activation=rf.LeakyReLU(leak),
        weight_variance=weight,
        bias_variance=bias,
        seed=seed,
    )
    head = nets.weights[-1]
    shared = np.random.default_rng(seed + 1).standard_normal((draws, 1, width))
    head = math.sqrt(1 - correlation) * head + math.sqrt(correlation) * shared
    nets = replace(nets, weights=(*nets.weights[:-1], head))
    theta = rf.tangent_blocks(nets, X)
    scalars = theta.sum(axis=(3, 4)) / outputs, np.einsum("rxykk->rxy", theta) / outputs
    off = [theta - s[..., None, None] * np.eye(outputs) for s in scalars]
    return theta, np.stack([np.sum(o**2, axis=(1, 2, 3, 4)) for o in off], axis=1)


def slopes_product(X, leak, weight, bias):
    """c(x, x'): the squared slopes are those of a leaky ReLU of the squared slope."""
    K = rf.nngp(X, depth=0, weight_variance=weight, bias_variance=bias)
    variances = np.diag(K)
    return (weight * K) ** 2 * rf.LeakyReLU(leak**2).moments(K, variances[:, None], variances)[1]


@blocks.ours("sharpened: exact at every width for one hidden layer", serves="b")
@cases(width=16, draws=6000)
@full(width=[8, 32, 128], outputs=[3, 10, 4], draws=6000)
@space(
    width=Int(2, 20),
    outputs=Int(2, 5),
    points=Int(1, 3),
    d=Int(1, 5),
    leak=Real(0.0, 0.5),
    weight=Real(0.5, 2.0),
    bias=Real(0.0, 1.0),
)
@breaks("correlated rows of the head", correlation=0.5)
def pseudo_ntk_convergence(
    width,
    seed,
    outputs=4,
    points=2,
    d=3,
    leak=0.2,
    weight=2.0,
    bias=0.1,
    draws=1000,
    correlation=0.0,
):
    r"""with $p(x,x')=\frac1K\sum_{k,l}\Theta_{kl}$ (the gradient of the sum of the logits over
    $\sqrt K$) $$\mathbb E\|\Theta-p\otimes I\|_F^2=\frac{(K-1)(K+4)}n\sum_{x,x'}c(x,x'),$$ and
    $(K-1)(K+2)$ in place of $(K-1)(K+4)$ with the mean of the diagonal in place of $p$: relative to
    $\|\Theta\|_F$ the error is of order $n^{-1/2}$."""
    X = inputs(points, d, seed)
    settings = (outputs, X, leak, weight, bias)
    squared = tangent_errors(width, *settings, draws, seed, correlation)[1]
    constant = theory("constant", (outputs - 1) * np.array([outputs + 4.0, outputs + 2.0]))
    c = theory("c", slopes_product(X, leak, weight, bias).sum())
    return compare(mean(squared), "==", constant * c / width ** theory("order", 1.0))


@panel(
    pseudo_ntk_convergence,
    "One scalar stands for all logits, with an error that is known",
    x="width $n$",
    y=r"$\mathbb{E}\|\Theta-p\otimes I\|_F^2$",
    log="xy",
)
def _(pen, runs):
    for k, outputs in enumerate((3, 4, 10)):
        where = {"outputs": outputs}
        pen.theory(*runs.predicted("width", index=0, where=where), f"$K={outputs}$", k=k)
        pen.points(*runs.measured("width", index=0, where=where), k=k)


@blocks.ours("derived: exact at every width for one hidden layer", serves="ab")
@cases(width=32, outputs=[6, 4], draws=24_000, leak=0.5)
@full(width=8, outputs=[3, 6, 10, 4], draws=60_000, leak=0.5)
@space(
    width=Int(2, 20),
    outputs=Int(2, 6),
    d=Int(1, 5),
    leak=Real(0.0, 0.5),
    weight=Real(0.5, 2.0),
    bias=Real(0.05, 1.0),  # with less, opposite inputs share units too rarely to be sampled
)
@breaks("correlated rows of the head", correlation=0.5, draws=4000)
def labelled_kernel_factorises(
    width, outputs, seed, d=3, leak=0.2, weight=2.0, bias=0.1, draws=1000, correlation=0.0
):
    r"""let $s(y)\in\{\pm1\}^K$ be $1$ at the label only and $a=s(y)^\top s(y')$, which is $K$ for
    equal labels and $K-4$ for others. The labelled kernel $\frac1Ks(y)^\top\Theta(x,x')s(y')$ has
    expectation $\frac aK\Theta_\infty(x,x')$, and its mean squared distance from
    $\frac aK\cdot\frac1K\operatorname{tr}\Theta(x,x')$ is
    $\big(1+\frac{a^2(K-2)}{K^3}\big)\frac{c(x,x')}n$: labels enter by $a$ alone."""
    X = inputs(2, d, seed)
    theta = tangent_errors(width, outputs, X, leak, weight, bias, draws, seed, correlation)[0]
    between, K = theta[:, 0, 1], outputs
    signs = 2 * np.eye(K) - 1
    labelled = np.stack([signs[0] @ (between @ signs[y]).T / K for y in (0, 1)], axis=1)
    alike = np.array([K, K - 4.0])
    trace = np.einsum("rkk->r", between) / K
    limit = rf.ntk(
        *(X[:1], X[1:]),
        depth=1,
        activation=rf.LeakyReLU(leak),
        weight_variance=weight,
        bias_variance=bias,
    )
    weights = theory("weights", alike / K) * theory("limit", float(limit[0, 0]))
    off = (labelled - alike / K * trace[:, None]) ** 2
    c = theory("c", slopes_product(X, leak, weight, bias)[0, 1])
    spread = theory("spread", 1 + alike**2 * (K - 2) / K**3)
    return {
        "mean": compare(mean(labelled), "==", weights),
        "spread": compare(mean(off), "==", spread * c / width ** theory("order", 1.0)),
    }


@panel(
    labelled_kernel_factorises,
    "Labels weigh the kernel by their agreement alone",
    x="classes $K$",
    y=r"labelled kernel over $\Theta_\infty$",
)
def _(pen, runs):
    K, unit = np.linspace(3, 10, 50), runs.judgement.runs[0].parts["mean"].predicted[0]
    for k, (name, line) in enumerate((("equal", K / K), ("different", 1 - 4 / K))):
        pen.theory(K, line, f"{name} labels", k=k)
        at, shown, error = runs.measured("outputs", "mean", k, where={"width": 8})
        pen.points(at, shown / unit, error / unit, k=k)


if __name__ == "__main__":
    run_script(__file__)
