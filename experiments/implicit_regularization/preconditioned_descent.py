"""Descent in a metric: which solution it picks, and what no weight can pass."""

import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.optimization import adam
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

squares = paper(
    "pascanu2025-optimizers",
    r"$X$ of full row rank, $y\ne0$, a metric $M\succ0$, $w_0=0$, "
    r"$w_{t+1}=w_t-\eta MX^\top(Xw_t-y)$, $0<\eta<2/\lambda_{\max}(M^{1/2}X^\top XM^{1/2})$:",
)
companders = paper(
    "cakaj2023-weight",
    r"Weights $w_i=\psi(v_i)$, $\psi=a\arctan\frac vb$ ($c=\frac{a\pi}2$), $a\tanh\frac vb$ "
    r"($c=a$) or $\frac{av}{b+|v|}$ ($c=a$), so that $\psi'>0$ and $|\psi|<c$; a smooth loss "
    r"$L(w)$, gradient flow in $v$:",
)


def spread_out(rng, n, ratio):
    """A symmetric matrix with eigenvalues from 1 / ratio to 1."""
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (Q * np.geomspace(1, 1 / ratio, n)) @ Q.T


def problem(n, spare, condition, ratio, scale, seed):
    """Data, a metric, and another solution of the same equations."""
    rng = np.random.default_rng(seed)
    d = n + spare
    left = np.linalg.qr(rng.standard_normal((n, n)))[0]
    right = np.linalg.qr(rng.standard_normal((d, n)))[0]
    X = scale * (left * np.geomspace(1, 1 / condition, n)) @ right.T
    y = rng.standard_normal(n)
    other = np.linalg.pinv(X) @ y
    null = rng.standard_normal(d)
    null -= np.linalg.pinv(X) @ (X @ null)
    return X, y, spread_out(rng, d, ratio), other + np.linalg.norm(other) * null


def descent(X, y, metric, start, step, steps):
    eta = step / 2 * ir.metric_step_limit(X, metric=metric)
    options = {"start": start, "step_size": eta, "steps": steps, "tol": 0.0}
    return ir.metric_descent(X, y, metric=metric, **options).weights


def adam_descent(X, y, metric, start, step, steps):
    """Adam, with a metric that it makes of the gradients seen."""
    size = np.linalg.norm(np.linalg.pinv(X) @ y)
    run = adam(lambda w, t: metric @ X.T @ (X @ w - y), start, step_size=size / 200, steps=3000)
    return run.iterates[-1]


@simulation
def limits(n, spare, condition, ratio, scale, step, start, algorithm, seed):
    """Ends of descent in a random metric, and in the metric that selects another solution."""
    X, y, M, other = problem(n, spare, condition, ratio, scale, seed)
    w = start * np.linalg.norm(other) * np.random.default_rng([seed, 1]).standard_normal(n + spare)
    selecting = ir.selecting_metric(X, other)
    ends = []
    for metric in (M, selecting):
        values = np.linalg.eigvalsh(X @ metric @ X.T)
        rate = max(abs(1 - step * values[0] / values[-1]), abs(1 - step))
        steps = int(min(np.log(1e-13) / np.log(np.clip(rate, 1e-9, 0.999999)), 1e6)) + 2
        ends.append(algorithm(X, y, metric, w, step, min(steps, 3000) if rate > 1 else steps))
    return ends


@squares.ours("derived: the linear instance of the position", serves="ab")
@cases(ratio=[1.0, 20.0])
@full(n=[1, 3, 6], spare=[1, 9], condition=5.0, ratio=[1.0, 100.0, 10.0])
@space(
    n=Int(1, 6),
    spare=Int(0, 8),
    condition=Real(1.0, 8.0, log=True),
    ratio=Real(1.0, 30.0, log=True),
    scale=Real(1e-5, 1e5, log=True),
    step=Real(0.1, 1.95),
)
@breaks("a start outside the range of the metric", start=1.0)
@breaks("a step beyond the limit", step=2.2)
@breaks("an adaptive metric (Adam)", algorithm=adam_descent)
def preconditioned_gd_min_norm(
    n=4,
    spare=5,
    condition=4.0,
    ratio=10.0,
    scale=1.0,
    step=1.0,
    start=0.0,
    algorithm=descent,
    seed=0,
):
    r"""$w_t\to\arg\min\{w^\top M^{-1}w:Xw=y\}=MX^\top(XMX^\top)^{-1}y$, whose $w^\top M^{-1}w$ is
    $y^\top(XMX^\top)^{-1}y$; and every solution $w$ of $Xw=y$ is the limit for some $M$."""
    X, y, M, other = problem(n, spare, condition, ratio, scale, seed)
    found, chosen = limits(n, spare, condition, ratio, scale, step, start, algorithm, seed)
    inverse = np.linalg.inv(M)
    feasible = found + np.linalg.pinv(X) @ (y - X @ found)
    multiplier = np.linalg.lstsq(X.T, inverse @ found)[0]
    attained = feasible @ inverse @ feasible
    bound = 2 * multiplier @ y - multiplier @ X @ M @ X.T @ multiplier
    kernel = np.linalg.solve(X @ M @ X.T, y)
    size = np.linalg.norm(kernel @ X @ M)
    source = "contraction of the run to 1e-13, and rounding"

    def end(w):
        return within(w / size, 1e-8 * np.linalg.norm(w) / size, source)

    return {
        "limit": compare(end(found), "==", theory("limit", M @ X.T @ kernel / size)),
        "least": compare(
            between(attained / size**2, bound / size**2),
            "==",
            theory("least", y @ kernel / size**2),
        ),
        "chosen": compare(end(chosen), "==", theory("chosen", other / size)),
    }


@panel(
    preconditioned_gd_min_norm,
    "Descent ends at the solution of least norm in its metric",
    x="entry of the predicted solution (relative)",
    y="entry of the last iterate (relative)",
)
def _(pen, runs):
    pen.theory([-1, 1], [-1, 1], "equal")
    for k, (name, part) in enumerate((("random metrics", "limit"), ("chosen solutions", "chosen"))):
        parts = [r.parts[part] for r in runs.judgement.runs]
        predicted, shown = (
            np.concatenate([getattr(p, v) for p in parts]) for v in ("predicted", "shown")
        )
        kept = np.abs(predicted) < 1
        pen.points(predicted[kept], shown[kept], None, name, k=k + 1)
    (run,) = [c.run for c in runs.judgement.controls if "Adam" in c.name]
    pen.broken(run.parts["limit"].predicted, run.parts["limit"].shown, None, "Adam")


def random_loss(d, low, target, bend, unit, seed):
    """The gradient of a quadratic loss with curvatures from ``low`` to 2, and of waves in it."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    H = (Q * np.linspace(low, 2.0, d)) @ Q.T
    aim = target * rng.uniform(0.5, 1.0, d) * rng.choice([-1.0, 1.0], d)
    return lambda w: H @ w - aim + bend * unit * Q @ np.sin(3 * Q.T @ w / unit)


@simulation
def companded(kind, amplitude, width, d, low, target, bend, first, chain, seed, rtol):
    """The flow in v, with the gradient in v, or, without the chain rule, that in w."""
    loss = random_loss(d, low, target * amplitude, bend, amplitude, seed)
    times = np.linspace(0, 6, 7) * (width / amplitude) ** 2
    start = np.linspace(-first, 0.8 * first, d) * amplitude

    def gradient(w):
        metric = ir.compander_metric(w, kind=kind, amplitude=amplitude, width=width)
        return loss(w) if chain else loss(w) / np.sqrt(metric)

    parameters = {"kind": kind, "amplitude": amplitude, "width": width}
    return ir.compander_flow(gradient, start, times, **parameters, rtol=rtol) / amplitude


@simulation
def in_the_weights(kind, amplitude, width, d, low, target, bend, first, factor, power, seed, rtol):
    """The flow in w, without the reparameterisation; outside the bound it would stand still."""
    loss = random_loss(d, low, target * amplitude, bend, amplitude, seed)
    times = np.linspace(0, 6, 7) * (width / amplitude) ** 2
    shapes = {
        "arctan": lambda x: np.cos(np.minimum(np.abs(x), np.pi / 2)),
        "tanh": lambda x: np.maximum(1 - x * x, 0),
        "softsign": lambda x: np.maximum(1 - np.abs(x), 0) ** 2,
        "asinh": lambda x: 1 / np.cosh(x),
    }

    def metric(w):
        return factor * shapes[kind](w / amplitude) ** power

    start = np.linspace(-first, 0.8 * first, d) * amplitude
    return ir.metric_flow(loss, metric, start, times, rtol=rtol) / amplitude


@companders.ours("derived: the flow in the weights, and the bound of the abstract", serves="a")
@cases(kind=["arctan", "tanh", "softsign"])
@full(kind=["softsign", "tanh", "arctan"], target=[0.7, 8.0], low=[-0.5, 0.3])
@space(
    kind=Choice(["arctan", "tanh", "softsign"]),
    amplitude=Real(0.1, 10.0, log=True),
    width=Real(0.1, 10.0, log=True),
    d=Int(1, 4),
    low=Real(-1.0, 2.0),
    target=Real(0.0, 8.0),
    bend=Real(0.0, 2.0),
    first=Real(0.0, 0.95),
)
@breaks("an unbounded reparameterisation", kind="asinh")
@breaks("the gradient in w used for v", chain=False)
def compander_preconditioned_flow(
    kind,
    seed,
    amplitude=1.0,
    width=0.5,
    d=3,
    low=0.3,
    target=8.0,
    bend=0.5,
    first=0.6,
    chain=True,
):
    r"""$\dot w_i=-\psi'(\psi^{-1}(w_i))^2\,\partial_iL(w)$, and $|w_i|<c$ throughout; the factor is
    in turn $(\frac ab)^2\cos^4\frac{w_i}a$, $(\frac ab)^2(1-\frac{w_i^2}{a^2})^2$ and
    $(\frac ab)^2(1-\frac{|w_i|}a)^4$."""
    args = (kind, amplitude, width, d, low, target, bend, first)
    true = (amplitude / width) ** 2
    factor = theory("factor", true)
    exponent = 4 if kind == "arctan" else 2
    power = theory("power", exponent)
    path, rough = (companded(*args, chain, seed, rtol) for rtol in (1e-9, 1e-6))
    direct = in_the_weights(*args, factor, power, seed, 1e-9)
    free, loose = (in_the_weights(*args, true, exponent, seed, rtol) for rtol in (1e-9, 1e-6))
    error = np.max(np.abs(path - rough)) + np.max(np.abs(free - loose)) + 1e-6
    largest = np.abs(free).max()
    bound = {"arctan": np.pi / 2}.get(kind, 1.0)
    return {
        "flow": compare(
            within(path[1:], error, "looser tolerances of both flows"), "==", direct[1:]
        ),
        "bound": compare(
            within(largest, error, "looser tolerances of both flows"), "<", theory("bound", bound)
        ),
    }


@panel(
    compander_preconditioned_flow,
    "The largest weight of a companded flow stays inside the bound of the compander",
    x=r"time $ta^2/b^2$",
    y=r"largest weight $|w|/a$",
)
def _(pen, runs):
    times = np.arange(1, 7)
    for k, kind in enumerate(("arctan", "tanh", "softsign")):
        (part,) = [
            r.parts["flow"]
            for r in runs.judgement.runs
            if r.instance["kind"] == kind
            and r.instance["target"] == 8.0
            and r.instance["low"] == 0.3
        ]
        pen.theory(times, np.abs(part.predicted).max(axis=1), k=k)
        pen.points(times, np.abs(part.shown).max(axis=1), part.error.max(), kind, k=k)
    for bound, kinds in ((1, "tanh, softsign"), (np.pi / 2, "arctan")):
        pen.theory([1, 6], [bound, bound], f"bound: {kinds}", k=6)


if __name__ == "__main__":
    run_script(__file__)
