"""Normalised weights: what weight decay does where the scale of the weights does not matter."""

from fractions import Fraction

import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.verify import (
    Choice,
    Int,
    Real,
    between,
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

KEY = "laarhoven2017-regularization"
invariant = paper(
    KEY, r"$L(cw)=L(w)$ for $c>0$, $w\ne0$, as with normalised activations or weights:"
)
equilibrium = paper(
    KEY,
    r"$w_{t+1}=(1-\eta\lambda)w_t-\eta g_t$ with $g_t\perp w_t$, $\|g_t\|=G/\|w_t\|$ and "
    r"$0<\eta\lambda<1$:",
)
LAWS = (("sgd", 2, -2), ("adam", 1, -2), ("adamw", 1, -1))


def normalised(W, x, y, head):
    return ir.batch_norm_loss(W, x, y, head=head)


def plain(W, x, y, head):
    """The same network without normalisation."""
    active = np.tanh(x @ W.T)
    residual = active @ head - y
    back = residual[:, None] * head * (1 - active**2) / len(x)
    return float(np.mean(residual**2)) / 2, back.T @ x


def instance(m, d, n, seed):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((m, d)),
        rng.standard_normal((n, d)),
        rng.standard_normal(n),
        rng.standard_normal(m),
    )


@simulation
def penalised_quotient(d, decay, radius, seed):
    """A matrix's Rayleigh quotient, with its least eigenvalue; the quotient plus the penalty at a
    short eigenvector, and a bound that holds everywhere."""
    rng = np.random.default_rng([seed, 1])
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    values = 1 + rng.uniform(0, 3, d)
    A = (Q * values) @ Q.T
    found, vectors = np.linalg.eigh((A + A.T) / 2)
    w = radius * vectors[:, 0]
    return values.min(), w @ A @ w / (w @ w) + decay * (w @ w), found[0] * (1 - 1e-13)


@invariant.abstract("a", instance=True)
@cases(m=[1, 4], d=3, c=[0.01, 30.0])
@full(m=[1, 2, 8], d=[2, 10], c=[1e-4, 0.1, 3.0, 1e4])
@space(
    m=Int(1, 6),
    d=Int(1, 8),
    n=Int(3, 12),
    c=Real(1e-9, 1e9, log=True),
    decay=Real(1e-3, 1e3, log=True),
)
@breaks("a layer without normalisation", loss=plain)
def scale_invariance(m, d, c, seed, n=8, decay=0.1, loss=normalised):
    r"""$w^\top\nabla L(w)=0$, $\nabla L(cw)=\frac1c\nabla L(w)$, and
    $\inf_wL(w)+\lambda\|w\|^2=\inf L$ for each $\lambda>0$ (not attained): the penalty has no
    influence on the function that is best."""
    W, x, y, head = instance(m, d, n, seed)
    value, gradient = loss(W, x, y, head)
    scaled, moved = loss(c * W, x, y, head)
    size = np.abs(gradient).max() + 1e-3 * value / np.linalg.norm(W)
    radial = np.sum(W * gradient) / (size * np.linalg.norm(W))
    smallest, attained, bound = penalised_quotient(d, decay, 1e-9, seed)
    return {
        "loss": compare(within(scaled, 1e-11 * value, "rounding"), "==", theory("loss", value)),
        "radial": compare(within(radial, 1e-10, "rounding"), "==", theory("radial", 0.0)),
        "gradient": compare(
            within(moved * c / size, 1e-9, "rounding"),
            "==",
            theory("gradient", gradient / size),
        ),
        "infimum": compare(between(attained, bound), "==", theory("infimum", smallest)),
    }


@simulation
def rescaled_runs(exponent, method, powers, steps, step, decay, loss, averages, seed):
    """Iterates from w and, divided by the factor again, from w times a power of two, on the same
    random batches."""
    W, x, y, head = instance(3, 4, 40, seed)
    batches = np.random.default_rng([seed, 2]).integers(40, size=(steps + 1, 10))
    found = []
    for a in (1.0, 2.0**exponent):
        run = ir.normalised_descent(
            lambda w, t: loss(w, x[batches[t]], y[batches[t]], head)[1],
            a * W,
            step_size=step * a ** powers[0],
            decay=decay * a ** powers[1],
            steps=steps,
            method=method,
            **dict(zip(("beta1", "beta2", "eps"), averages, strict=True)),
        )
        found.append(run.weights / a)
    return found


@simulation
def exact_runs(factor, powers, seed):
    """Three steps of SGD on a Rayleigh quotient in fractions, from w and from a multiple."""
    rng = np.random.default_rng([seed, 3])
    (p, q, r, *start) = (Fraction(int(k)) for k in rng.integers(1, 10, size=5))
    found = []
    for a in (Fraction(1), factor):
        w, path = [a * k for k in start], []
        eta, lam = Fraction(1, 5) * a ** powers[0], Fraction(1, 7) * a ** powers[1]
        for _ in range(3):
            Aw = [p * w[0] + q * w[1], q * w[0] + r * w[1]]
            square = w[0] ** 2 + w[1] ** 2
            ratio = (w[0] * Aw[0] + w[1] * Aw[1]) / square
            w = [
                k - eta * (2 * (b - ratio * k) / square + lam * k)
                for k, b in zip(w, Aw, strict=True)
            ]
            path += [k / a for k in w]
        found.append(tuple(path))
    return found


@invariant.ours("derived: the laws of Adam and AdamW beside that of SGD", serves="bc")
@cases(exponent=[20, -3])
@full(exponent=[-60, -1, 1, 7, 3], steps=400)
@space(
    exponent=Int(-120, 120),
    factor=Choice((Fraction(3, 7), Fraction(9, 2), Fraction(1, 100))),
    steps=Int(1, 60),
    step=Real(1e-3, 1.0, log=True),
    decay=Real(1e-4, 0.5, log=True),
    beta1=Real(0, 0.99),
    beta2=Real(0, 0.9999),
)
@breaks("the decay kept", laws=(("sgd", 2, 0), ("adam", 1, 0), ("adamw", 1, 0)))
@breaks("the law of SGD for all", laws=(("sgd", 2, -2), ("adam", 2, -2), ("adamw", 2, -2)))
@breaks(r"Adam with $\epsilon=0.01$", eps=0.01)
@breaks("a layer without normalisation", loss=plain)
def sgd_rescaling_equivalence(
    exponent,
    seed,
    steps=60,
    step=0.05,
    decay=0.1,
    factor=Fraction(3, 7),
    laws=LAWS,
    beta1=0.9,
    beta2=0.999,
    eps=0.0,
    loss=normalised,
):
    r"""from $\alpha w_0$ descent with step $\alpha^2\eta$ and decay $\lambda/\alpha^2$ has the
    iterates $\alpha w_t$, and so the directions, that it has from $w_0$ with $\eta,\lambda$. For
    Adam with $\epsilon=0$, zero first moments and the penalty in the gradient this needs
    $\alpha\eta,\lambda/\alpha^2$, for AdamW $\alpha\eta,\lambda/\alpha$ (bit for bit for
    powers of two)."""
    parts = {}
    for method, *powers in laws:
        base, moved = rescaled_runs(
            exponent, method, tuple(powers), steps, step, decay, loss, (beta1, beta2, eps), seed
        )
        parts[method] = compare(within(moved, 0.0, "powers of two"), "==", theory(method, base))
    own, other = exact_runs(factor, tuple(laws[0][1:]), seed)
    return parts | {"any factor, SGD": compare(other, "==", theory("exact", own))}


@panel(
    sgd_rescaling_equivalence,
    r"From $\alpha w_0$ with rescaled step and decay: the same directions",
    x="step $t$",
    y="difference of directions, at least 1e-17",
    log="y",
)
def _(pen, runs):
    judged = runs.judgement.runs[-1].parts
    (kept,) = [c.run.parts for c in runs.judgement.controls if c.name == "the decay kept"]
    for k, (part, name) in enumerate((("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW"))):
        for parts, draw, label in (
            (judged, pen.points, {"label": name, "k": k}),
            (kept, pen.broken, {"label": f"{name}, decay kept"}),
        ):
            u, v = (w.reshape(len(w), -1)[1:61] for w in (parts[part].shown, parts[part].predicted))
            u, v = (w / np.linalg.norm(w, axis=1)[:, None] for w in (u, v))
            at = np.arange(k, len(u), 3)
            draw(at + 1, np.maximum(np.linalg.norm(u - v, axis=1), 1e-17)[at], **label)


def settling(product):
    """Steps after which a part of exp(-40) of the distance to the fixed point is left, and those
    that a start a thousand times too far away or too near takes beside."""
    slope = abs(2 * (1 - product) ** 2 - 1)
    return int(np.ceil(40 / (1 - slope) + 10 / product))


def tangential(w, size, rng):
    return ir.tangential_gradient(w, size=size, rng=rng)


def constant_length(w, size, rng):
    return np.linalg.norm(w) * ir.tangential_gradient(w, size=size, rng=rng)


def partly_radial(w, size, rng):
    return ir.tangential_gradient(w, size=size, rng=rng) + 0.3 * size * w / np.sum(w**2)


@simulation
def settled(product, step, size, d, start, law, decays, seed):
    """Squared norm and 1 - cosine at the end of a long run, and a quarter of it before."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(d)
    w *= start * np.sqrt(step * size) / np.linalg.norm(w)
    steps = settling(product)
    run = ir.normalised_descent(
        lambda v, t: law(v, size, rng),
        w,
        step_size=step,
        decay=decays * product / step,
        steps=steps,
    )
    return run.norms, 1 - run.cosines


@equilibrium.ours("derived: exact where the paper gives the scaling", serves="b")
@cases(product=[0.02, 0.3], step=0.1, size=2.0)
@full(product=[0.003, 0.01, 0.03, 0.1, 0.3, 0.7], step=[0.1, 3.0], size=2.0)
@space(
    product=Real(0.02, 0.9, log=True),
    step=Real(1e-6, 1e6, log=True),
    size=Real(1e-6, 1e6, log=True),
    d=Int(2, 60),
    start=Real(1e-3, 1e3, log=True),
)
@breaks("no decay", decays=0.0)
@breaks("gradients of constant length", law=constant_length)
@breaks("gradients with a radial part", law=partly_radial)
def equilibrium_norm_and_angle(
    product, step, size, seed, d=20, start=3.0, law=tangential, decays=1.0
):
    r"""$\|w_t\|^2\to\frac{\eta G}{\sqrt{2\eta\lambda-(\eta\lambda)^2}}$, the effective step
    $\eta/\|w_t\|^2$ to $\sqrt{2\eta\lambda-(\eta\lambda)^2}/G$, and the cosine of the angle of a
    step to $1-\eta\lambda$, whatever $w_0\ne0$."""
    norms, turns = settled(product, step, size, d, start, law, decays, seed)
    squares, at = norms**2, 3 * len(norms) // 4
    drift = np.abs(squares[-1] - squares[at]) + 1e-10 * squares[-1]
    source = "change over the last quarter"
    root = np.sqrt(theory("first order", 2 * product) - theory("second order", product**2))
    known = ir.scale_equilibrium(step_size=step, decay=product / step, gradient_size=size)
    return {
        "squared norm": compare(
            within(squares[-1], drift, source), "==", theory("length", step * size) / root
        ),
        "effective step": compare(
            within(size * step / squares[-1], size * step * drift / squares[-1] ** 2, source),
            "==",
            theory("effective step", size * known.effective_step),
        ),
        "angle": compare(
            within(turns[-1], abs(turns[-1] - turns[at - 1]) + 1e-12, source),
            "==",
            theory("angle", product),
        ),
    }


@panel(
    equilibrium_norm_and_angle,
    r"The norm settles where $\|w\|^2=\eta G/\sqrt{2\eta\lambda-(\eta\lambda)^2}$",
    x=r"$\eta\lambda$",
    y=r"$\|w\|^2$",
    log="xy",
)
def _(pen, runs):
    p = np.geomspace(0.003, 0.9, 60)
    for k, step in enumerate((0.1, 3.0)):
        pen.theory(p, 2 * step / np.sqrt(2 * p - p**2), rf"$\eta={step:g}$", k=k)
        pen.points(*runs.measured("product", "squared norm", where={"step": step}), k=k)


@panel(
    equilibrium_norm_and_angle,
    r"Each step turns the weights by $\cos\varphi=1-\eta\lambda$",
    x=r"$\eta\lambda$",
    y=r"$1-\cos\varphi$",
    log="xy",
)
def _(pen, runs):
    p = np.geomspace(0.003, 0.9, 60)
    pen.theory(p, p, r"$\eta\lambda$")
    pen.points(*runs.measured("product", "angle"), "judged", k=1)


if __name__ == "__main__":
    run_script(__file__)
