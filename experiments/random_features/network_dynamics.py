"""Training wide networks: linear under gradient flow, nonlinear in the loss under signs."""

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
)
from theorylab.verify.cli import run_script

BATCHES = 30
# Covers what is left where a quarter of the width leaves 3 times as much, or more; a remainder of
# order 1 / width is 4 times as large there.
HALF = "half the difference to a quarter of the width"
WHOLE = "difference to a quarter of the width"
jacot = paper(
    "jacot2018-neural",
    r"Fully connected network of $L$ hidden layers of width $n$, $N(0,1)$ parameters, weights "
    r"divided by $\sqrt{\text{fan-in}}$ and multiplied by $\sigma_w$, biases by $\sigma_b$, "
    r"tangent kernels $\Theta_t$ and limit $\Theta$ with eigenpairs $(\lambda_i,q_i)$ on the "
    r"points; gradient flow of $\frac12\sum_j(f_t(x_j)-y_j)^2$:",
)
adaptive = paper(
    "yang2023-tensor",
    r"First step of sign descent (of Adam with $\epsilon=0$), $\chi_b$ the derivatives of the "
    r"loss in the outputs:",
)


def inputs(n, d, seed):
    """Gaussian points."""
    return np.random.default_rng([seed, n, d]).standard_normal((n, d))


def rate(errors, rest=0.0, source=HALF):
    """Exponent of the root mean square from the second to the last of the widths."""
    parts = rf.decay_exponents(errors, factor=4.0, n_batches=BATCHES)
    early, late = parts[:-1].mean(axis=0), parts[1:].mean(axis=0)
    return mean(late, bias=abs(np.mean(late - early)) / 2 + rest, source=source)


@simulation
def flows(width, X, law, time, targets, draws, seed):
    """Residuals at half time and at the end in eigenvectors of the limit, of networks trained to
    move by the targets; squared changes of the tangent kernels and squared distances from the
    linear flows of the first ones."""
    nets = rf.random_networks(X.shape[1], width=width, n_draws=draws, seed=seed, **law)
    limit = rf.ntk(X, **law)
    start = rf.network_outputs(nets, X)[..., 0]
    largest = np.linalg.eigvalsh(limit)[-1]
    steps = 2 * math.ceil(time * largest + 4)
    path, end = rf.gradient_flow(nets, X, start + targets, time=time, n_steps=steps)
    path = path - start[:, None]
    before, after = (rf.tangent_blocks(n, X)[..., 0, 0] for n in (nets, end))
    speeds, modes = np.linalg.eigh(before)
    decay = np.exp(-time * speeds) * (targets @ modes)
    linear = targets - np.einsum("rxi,ri->rx", modes, decay)
    residuals = (targets - path[:, [steps // 2, steps]]) @ np.linalg.eigh(limit)[1]
    size = targets @ targets
    kernels = np.sum((after - before) ** 2, axis=(1, 2)) / np.sum(limit**2)
    return residuals, kernels, np.sum((path[:, -1] - linear) ** 2, axis=1) / size


@jacot.abstract("b", "c", "e", "f", instance=True)
@cases(draws=360, widths=(16, 64, 256))
@full(depth=2, draws=450)
@full(phi=["erf", "sine"], draws=900, widths=(16, 64, 256))
@space(
    phi=Choice(("erf", "sine")),
    points=Int(1, 3),
    d=Int(2, 4),
    weight=Real(1.0, 1.5),
    bias=Real(0.1, 1.0),
)
@breaks("targets that grow with the width", growth=0.9, draws=180)
def ntk_linear_dynamics(
    seed,
    depth=1,
    phi="sine",
    points=3,
    d=3,
    weight=1.5,
    bias=0.2,
    draws=300,
    widths=(8, 32, 128),
    growth=0.0,
):
    r"""as $n\to\infty$ the mean residual along $q_i$ decays as $e^{-\lambda_it}$: it takes the time
    $\log(1/\delta)/\lambda_i$ to fall by a factor $\delta$, least for leading components;
    at a fixed time the kernel has changed, and the outputs have left the linear flow of the first
    kernel, by no more than order $n^{-1/2}$ in root mean square (outputs trained to move by fixed
    targets, smooth $\phi$)."""
    X = inputs(points, d, seed)
    law = {"depth": depth, "activation": phi, "weight_variance": weight, "bias_variance": bias}
    values, vectors = np.linalg.eigh(rf.ntk(X, **law))
    time = 1.5 / values[len(values) // 2]
    targets = [vectors.sum(axis=1) * (n / widths[0]) ** growth for n in widths]
    runs = [
        flows(n, X, law, time, y, draws * times, seed + n)
        for n, y, times in zip(widths, targets, (4, 2, 1), strict=True)
    ]
    wide, half = runs[2][0], runs[1][0]
    wide = wide * (widths[0] / widths[2]) ** growth
    rates = theory("rates", values)
    remaining = np.exp(-np.outer([time / 2, time], rates))
    rest = np.abs(wide.mean(axis=0) - half.mean(axis=0)) / 2
    changes, departures = (rate([r[i] for r in runs]) for i in (1, 2))
    exponent = theory("exponent", -0.5)
    return {
        "components": compare(mean(wide, bias=rest, source=HALF), "==", remaining),
        "kernel": compare(changes, "<=", exponent),
        "outputs": compare(departures, "<=", exponent),
    }


@panel(
    ntk_linear_dynamics,
    "Residuals decay along eigenvectors of the kernel, at the rate of its eigenvalue",
    x=r"$\lambda_it$",
    y="residual along the eigenvector",
)
def _(pen, runs):
    t = np.linspace(0, 2, 50)
    pen.theory(t, np.exp(-t), r"$e^{-\lambda_it}$")
    for k, phi in enumerate(("erf", "sine")):
        for run in runs.judgement.runs[1:]:
            if run.instance["phi"] == phi:
                part = run.parts["components"]
                at = -np.log(part.predicted).ravel()
                pen.points(at, part.shown.ravel(), part.error.ravel(), phi, k=k + 1)
    control = runs.judgement.controls[0].run.parts["components"]
    pen.broken(-np.log(control.predicted).ravel(), control.shown.ravel(), label="growing targets")


@simulation
def steps_taken(width, X, chis, X_test, eta, update, draws, seed):
    """Changes of the outputs by one step for each set of loss derivatives: shape (draws / 5, 5,
    sets, tests). Networks of a group of five have the first layer of one, turned: their mean is
    nearly free of the angles."""
    nets = rf.random_networks(2, width=width, depth=1, n_draws=draws // 5, seed=seed)
    sizes, found = [eta / math.sqrt(width)] * 2, []
    for angle in 2 * np.pi / 5 * np.arange(5):
        turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        turned = replace(nets, weights=(nets.weights[0] @ turn, nets.weights[1]))
        before = rf.network_outputs(turned, X_test)[..., 0]
        moved = [rf.entrywise_step(turned, X, c, step_sizes=sizes, update=update) for c in chis]
        found.append([rf.network_outputs(m, X_test)[..., 0] - before for m in moved])
    return np.transpose(found, (2, 0, 1, 3))


def gradient(g):
    """The update of gradient descent."""
    return g


def damped(g):
    """The first step of Adam with a damping that is not small."""
    return g / (np.abs(g) + 1.0)


@adaptive.abstract("a", "b", instance=True)
@cases(batch=3, draws=4500)
@full(batch=[1, 2, 5, 3], draws=4800)
@space(batch=Int(1, 5), eta=Real(0.1, 1.0), tests=Int(1, 3))
@breaks("gradient descent", update=gradient, draws=600)
@breaks("Adam with damping", update=damped, draws=600)
def adaptive_ntk_limit_one_step(
    batch, seed, eta=0.5, tests=3, draws=600, widths=(8, 32, 128, 512), update=np.sign
):
    r"""for $f(x)=\frac1{\sqrt n}\sum_iv_i\phi(w_i^\top x/\sqrt2)$, $\phi$ ReLU, $x\in\mathbb R^2$,
    $v_i,w_i\sim N(0,1)$ and steps $\eta/\sqrt n$ on both layers, $\Delta f(x)$ tends to
    $$-\tfrac\eta{\sqrt2}\,\mathbb E\big[v\phi'(w^\top x)\langle x,\mathrm{sgn}(\textstyle\sum_b
    \chi_bv\phi'(w^\top x_b)x_b)\rangle+\phi(w^\top x)\,\mathrm{sgn}(\sum_b\chi_b\phi(w^\top x_b))
    \big]$$ with fluctuations $\propto n^{-1/2}$. This functional of $\chi$ is not additive: the
    step for $\chi+\chi'$ is not the sum of the steps."""
    X, X_test = inputs(batch, 2, seed), inputs(tests, 2, seed + 1)
    first, second = np.random.default_rng([seed, batch]).standard_normal((2, batch))
    chis = (first, second, first + second)
    limits = np.array([rf.planar_sign_limit(X, c, X_test, step_size=eta) for c in chis])
    runs = [
        steps_taken(n, X, chis, X_test, eta, update, draws * math.isqrt(widths[-1] // n), seed + n)
        for n in widths
    ]
    wide, half = (r.mean(axis=1) for r in (runs[-1], runs[-2]))
    # Kinks close to one another are told apart late: no order is taken for granted.
    rest = np.abs(wide.mean(axis=0) - half.mean(axis=0))
    combination = np.array([-1.0, -1.0, 1.0])
    defects = [np.einsum("k,rkt->rt", combination, r) for r in (wide, half)]
    gap = np.abs(defects[0].mean(axis=0) - defects[1].mean(axis=0))
    spread = [np.mean(np.sum((r - limits) ** 2, axis=(2, 3)), axis=1) for r in runs]
    return {
        "limit": compare(mean(wide, bias=rest, source=WHOLE), "==", theory("limit", limits)),
        "defect": compare(
            mean(defects[0], bias=gap, source=WHOLE),
            "==",
            theory("defect", combination @ limits),
        ),
        "spread": compare(rate(spread), "==", theory("exponent", -0.5)),
    }


@panel(
    adaptive_ntk_limit_one_step,
    "A sign step is a nonlinear function of the loss derivatives, known in the limit",
    x="predicted change of the output",
    y="mean change of the output",
)
def _(pen, runs):
    pen.theory([-0.5, 0.5], [-0.5, 0.5])
    for k, (part, name) in enumerate((("limit", "steps"), ("defect", "defect of additivity"))):
        found = [r.parts[part] for r in runs.judgement.runs]
        at, shown, error = (
            np.concatenate([np.ravel(getattr(p, v)) for p in found])
            for v in ("predicted", "shown", "error")
        )
        pen.points(at, shown, error, name, k=k + 1)
    control = runs.judgement.controls[0].run.parts["limit"]
    pen.broken(control.predicted.ravel(), control.shown.ravel(), label="gradient descent")


@simulation
def hidden_changes(width, a, X, chi, update, draws, seed):
    """Mean squared changes by a step n^-a on the weights between the layers: of the preactivations
    above them, of the outputs, and of the outputs to first order; shape (3, draws). Given the
    features below, the preactivations are Gaussian: no weights are drawn."""
    phi, rng = rf.Erf(), np.random.default_rng([seed, width])
    z = phi.value(X @ rng.standard_normal((draws, X.shape[1], width)) / math.sqrt(X.shape[1]))
    h, v = rng.standard_normal((draws, len(X), width)), rng.standard_normal((draws, 1, width))
    # The factor of Cholesky, shifted by the rounding: features of two points may be parallel.
    shifted = z @ z.swapaxes(1, 2) / width + 1e-15 * np.eye(len(X))
    h = np.linalg.cholesky(shifted) @ h
    signals = chi[:, None] * v * phi.slope(h) / math.sqrt(width)
    steps = (update(signal.T @ below) for signal, below in zip(signals, z, strict=True))
    moves = [below @ step.T for step, below in zip(steps, z, strict=True)]
    moved = -(width**-a) * np.stack(moves)
    fields = (phi.value(h + moved) - phi.value(h), phi.slope(h) * moved)
    outputs = [np.sum(v * field, axis=2) / math.sqrt(width) for field in fields]
    squares = [np.mean(change**2, axis=1) for change in outputs]
    return np.stack([np.mean(moved**2, axis=(1, 2)), *squares])


def alternating(g):
    """Signs that do not know the features."""
    return np.broadcast_to(np.where(np.arange(g.shape[1]) % 2, 1.0, -1.0), g.shape)


@adaptive.abstract("a", instance=True)
@cases(a=1.5, draws=150)
@full(a=[0.5, 1.0, 2.0, 1.5], draws=150)
@space(a=Real(0.5, 2.0), batch=Int(1, 3), d=Int(2, 5))
@breaks("gradient descent at the same rate", update=gradient)
@breaks("signs that do not know the features", update=alternating)
def adaptive_lr_width_exponents(a, seed, batch=2, d=3, draws=30, update=np.sign):
    r"""if only the $n\times n$ matrix of $h=W\phi(W_1x)$, $W_{ij}\sim N(0,\frac1n)$, is moved, by
    steps $n^{-a}$, and $f=n^{-1/2}v^\top\phi(h)$ with $\phi$ the error function, then the root
    mean square of $\Delta h$ grows as $n^{1-a}$, and for $a\ge1$ that of $\Delta f$ as
    $n^{3/2-a}$. So with the output multiplied by $n^{1/2-c}$, which the signs do not see, outputs
    move by $\Theta(1)$ for $a=2-c$, and features by $n^{c-1}$: the kernel regime at $c=\frac12$,
    $a=\frac32$, learned features at $c=a=1$."""
    X = inputs(batch, d, seed)
    chi = np.random.default_rng([seed, batch]).standard_normal(batch)
    runs = [
        hidden_changes(n, a, X, chi, update, draws * times, seed)
        for n, times in ((16, 32), (64, 16), (256, 4), (1024, 1))
    ]
    parts = {"hidden": compare(rate([r[0] for r in runs]), "==", theory("features", 1 - a))}
    if a >= 1:
        linear = [r[2] for r in runs]
        # What the curvature changes falls as n^(2 - 2a), which can be slow.
        curved = rf.decay_exponents([r[1] for r in runs], factor=4.0, n_batches=BATCHES)
        plain = rf.decay_exponents(linear, factor=4.0, n_batches=BATCHES)
        rest = abs(np.mean(curved[1:] - plain[1:]))
        output = rate([r[1] for r in runs], rest, f"{HALF}; difference to the first order")
        parts["output"] = compare(output, "==", theory("outputs", 1.5 - a))
    return parts


@panel(
    adaptive_lr_width_exponents,
    r"Sign steps $n^{-a}$ move features by $n^{1-a}$ and outputs by $n^{3/2-a}$",
    x="exponent $a$ of the step",
    y="exponent of the change",
)
def _(pen, runs):
    a = np.array([0.5, 2.0])
    pen.theory(a, 1 - a, "features", k=0)
    pen.theory([1, 2], [0.5, -0.5], "outputs", k=1)
    pen.points(*runs.measured("a", "hidden"), k=0)
    at, shown, error = (
        np.array([v for r in runs.judgement.runs if "output" in r.parts for v in f(r)])
        for f in (
            lambda r: [r.instance["a"]],
            lambda r: [float(r.parts["output"].shown)],
            lambda r: [float(r.parts["output"].error)],
        )
    )
    pen.points(at, shown, error, k=1)
    pen.broken(
        *runs.measured("a", "hidden", control="signs that do not know the features"), "blind signs"
    )


if __name__ == "__main__":
    run_script(__file__)
