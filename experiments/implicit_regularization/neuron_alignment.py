"""Two-layer ReLU networks from a small balanced start: neurons align, then learn with low rank."""

import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.verify import (
    Choice,
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
    full,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "min2023-early"
flow = paper(
    KEY,
    r"Gradient flow of $f(x)=\sum_jv_j(w_j^\top x)_+$ on $\mathcal L=\sum_i e^{-y_if(x_i)}$, "
    r"$y_i=\pm1$, from $|v_j|=|w_j|$, with a fixed slope of the ReLU at 0:",
)
small = paper(
    KEY,
    r"Data with $\cos(y_ix_i,y_kx_k)\ge\mu>0$ for all pairs, neurons $w_j$ of a two-layer ReLU "
    r"network with output weights $v_j$, $|v_j|=|w_j|\to0$, exponential loss (summed; one of slope "
    r"$\ell'(0)$ takes $1/|\ell'(0)|$ times as long):",
)
aligned = paper(
    KEY,
    r"As before, from $|v_j|=|w_j|=O(\epsilon)$, and a time $t_2$ at which every neuron is active "
    r"on exactly the data of the label of $v_j$, or on none:",
)


def separated(rng, n, mu, jitter, spread):
    """Data whose cosines are all at least mu (equal to it without jitter), of norms from 1 to
    spread, and both labels."""
    angles = np.arccos(np.sqrt(mu)) * (1 - jitter * rng.random(n))
    Z = np.column_stack([np.cos(angles), np.diag(np.sin(angles))])
    Z *= np.append(1.0, 1 + (spread - 1) * rng.random(n - 1))[:, None]
    labels = np.where(np.arange(n) % 2, -1.0, 1.0)
    return labels[:, None] * Z, labels


def planar(rng, n, mu, jitter, spread):
    """Data of a cone in the plane, most of them repeated."""
    angles = np.arccos(mu) * np.round((1 - jitter) * np.append([0, 1], rng.random(n))[:n], 1)
    Z = np.column_stack([np.cos(angles), np.sin(angles)])
    Z *= np.append(1.0, 1 + np.round(spread - 1) * rng.integers(2, size=n - 1))[:, None]
    labels = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    return labels[:, None] * Z, labels


def orthogonal(rng, n, mu, jitter, spread):
    """Five data of either label, with cosines 0."""
    return np.eye(10), np.repeat([1.0, -1.0], 5)


def mislabelled(rng, n, mu, jitter, spread):
    X, labels = separated(rng, n, mu, jitter, spread)
    return X, np.append(-labels[0], labels[1:])


def neurons(rng, count, d, eps):
    W = eps * rng.standard_normal((count, d)) / np.sqrt(d)
    return W, np.where(np.arange(count) % 2, -1.0, 1.0) * np.linalg.norm(W, axis=1)


@simulation
def directions(layout, n, mu, jitter, spread, count, seed):
    rng = np.random.default_rng([seed, 1])
    X, labels = layout(rng, n, mu, jitter, spread)
    W, v = neurons(rng, count, X.shape[1], 1.0)
    found = ir.align_directions(W, np.sign(v), X, labels)
    return found.rising, found.settled, [fate is ir.Fate.STUCK for fate in found.fates]


@simulation
def slowest(n, mu):
    """The time of a neuron that starts across the first datum and far from the second, with n - 2
    data of the other label at minus the first."""
    X = np.vstack([[[1.0, 0.0], [mu, np.sqrt(1 - mu**2)]], np.tile([-1.0, 0.0], (n - 2, 1))])
    labels = np.append([1.0, 1.0], -np.ones(n - 2))
    return float(ir.align_directions([[1e-10, -1.0]], [1.0], X, labels).settled[0])


@small.ours("derived: sharp, explicit, and without the logarithm of n", serves=("a", "b"))
@cases(n=[2, 32], mu=0.25)
@full(n=[2, 4, 8, 16, 32], mu=[0.04, 0.25, 0.64], neurons_=200)
@space(
    n=Int(2, 24),
    mu=Real(1e-4, 0.999, log=True),
    jitter=Real(0.0, 1.0),
    spread=Real(1.0, 5.0),
    neurons_=Int(2, 40),
    layout=Choice([separated, planar]),
)
@breaks("a wrong label", layout=mislabelled)
def early_alignment(seed, n, mu, jitter=0.0, spread=1.0, neurons_=40, layout=separated):
    r"""every neuron that does not start exactly opposite to its force
    $v_j\sum_{w_j^\top x_i>0}y_ix_i$ ends inactive on all data, or active on exactly those with the
    sign of $v_j$. From when its norm does not shrink (it never shrinks again), it switches for the
    last time within $\frac{\operatorname{arcosh}(1/\mu)}{\min|x_i|}\le\frac{1.5\log n}{\sqrt\mu
    \min|x_i|}$, $n\ge2$. At every $n\ge2$ there are data and starts that come arbitrarily close to
    the first bound: $\log n$ is not needed. Times are limits of a vanishing start."""
    rising, settled, stuck = directions(layout, n, mu, jitter, spread, neurons_, seed)
    # A neuron that never settles counts as one that does at time 1e6.
    ends = np.minimum(np.where(settled < rising, rising, settled), 1e6)
    extreme, bound = slowest(n, mu), np.arccosh(1 / mu)
    longest = np.max(ends - np.minimum(rising, ends), initial=extreme)
    time = within(longest, 1e-9 + 1e-8 * longest, "rounding of exact switches")
    return {
        "time": compare(time, "<=", theory("bound", bound)),
        "log n": compare(time, "<=", theory("constant", 1.5) * np.log(n) / np.sqrt(mu)),
        "attained": compare(
            within(extreme, 1e-9 + 1e-8 * extreme, "rounding, and a start 1e-10 from the extreme"),
            "==",
            theory("extreme", bound),
        ),
        "fates": compare(
            family({j: not s for j, s in enumerate(stuck)}), "==", theory("neurons", len(stuck))
        ),
    }


@panel(
    early_alignment,
    r"The longest alignment, whatever $n$, and the bound with $\log n$",
    x=r"separation $\mu$",
    y=r"time $\times\min|x_i|$",
    log="xy",
)
def _(pen, runs):
    mu = np.geomspace(0.04, 0.64, 50)
    pen.theory(mu, np.arccosh(1 / mu), r"$\operatorname{arcosh}(1/\mu)$")
    pen.points(*runs.measured("mu", "attained", where={"n": 32}), "reached, $n=32$")
    for k, n in enumerate((2, 32), 1):
        pen.theory(mu, 1.5 * np.log(n) / np.sqrt(mu), rf"$1.5\log n/\sqrt{{\mu}}$, $n={n}$", k=k)


@simulation
def euler(n, mu, jitter, spread, eps, ratio, count, T, steps, seed):
    """Change of v^2 - |w|^2 over the step size, for two step sizes, and along the flow the sum of
    (dL/dv)^2 - |dL/dw|^2, at two resolutions, and what a step may miss of it; output weights at 0
    and at the end, the loss, and the relative change of v^2 - |w|^2 along the flow."""
    rng = np.random.default_rng([seed, 2])
    X, labels = separated(rng, n, mu, jitter, spread)
    W, v = neurons(rng, count, X.shape[1], eps)
    W = ratio * W
    drifts = []
    for k in (steps, 2 * steps):
        ends = ir.relu_descent(W, v, X, labels, step=T / k, steps=k)
        change = ends[1] ** 2 - np.sum(ends[0] ** 2, axis=1) - v**2 + np.sum(W**2, axis=1)
        drifts.append(change * k / T)
    run = ir.relu_flow(W, v, X, labels, np.linspace(0, T, steps + 1), tol=1e-7)
    squares = np.array([squared_speeds(w, o, X, labels) for w, o in zip(run.W, run.v, strict=True)])
    sums = [np.trapezoid(squares[::k], run.times[::k], axis=0) for k in (1, 2)]
    switches = np.sum(np.diff(run.W @ X.T > 0, axis=0), axis=(0, 2))
    balance = (run.v**2 - np.sum(run.W**2, axis=2)) / v**2
    jumps = switches * np.abs(squares).max(axis=0)
    return drifts, sums, jumps, v, run.v[-1], run.losses[0], balance[-1] - balance[0]


def squared_speeds(W, v, X, labels):
    """(dL/dv)^2 - |dL/dw|^2 of every neuron."""
    pre = W @ X.T
    pull = labels * np.exp(-labels * (v @ np.maximum(pre, 0)))
    outer, inner = np.maximum(pre, 0) @ pull, v[:, None] * ((pre > 0) * pull @ X)
    return outer**2 - np.sum(inner**2, axis=1)


@flow.ours("derived: the constant of O(h), and how fast an output weight may fall")
@cases(n=1, eps=0.05, T=0.02)
@cases(n=4, eps=[0.3, 0.1])
@full(n=[1, 4, 8], eps=[0.3, 0.1], spread=[1.0, 2.0], steps=1000)
@space(
    n=Int(1, 8),
    mu=Real(0.02, 0.9),
    jitter=Real(0.0, 0.8),
    spread=Real(1.0, 2.0),
    eps=Real(0.03, 0.5, log=True),
    count=Int(2, 12),
    T=Real(0.02, 0.5, log=True),
)
@breaks("unbalanced start", ratio=10.0)
def balance_and_sign(
    seed, n, eps, mu=0.2, jitter=0.3, spread=1.5, count=16, T=0.4, steps=400, ratio=1.0
):
    r"""$v_j^2-|w_j|^2$ is conserved, so that $v_j$ keeps its sign: $|v_j(t)|\ge|v_j(0)|
    e^{-t\max|x_i|\mathcal L(0)}$. Gradient descent with steps $h$ moves it by $h\int_0^t
    [(\partial_{v_j}\mathcal L)^2-|\partial_{w_j}\mathcal L|^2]ds+o(h)$ in time $t$."""
    drifts, sums, jumps, before, after, loss, change = euler(
        n, mu, jitter, spread, eps, ratio, count, T, steps, seed
    )
    limit = 2 * drifts[1] - drifts[0]
    error = 2 * np.abs(drifts[1] - drifts[0]) + 3 * np.abs(sums[1] - sums[0])
    error += jumps * T / steps + 1e-4 * np.abs(limit).max()
    kept = np.sign(before) * after / np.abs(before)
    least = np.exp(-T * spread * loss)
    return {
        "balance": compare(
            within(change, 1e-4, "integrated to 1e-7"), "==", theory("change", np.zeros(count))
        ),
        "sign": compare(
            within(kept, 1e-5, "integrated to 1e-7"), ">=", theory("share", np.full(count, least))
        ),
        "drift": compare(
            within(
                limit,
                error,
                "difference to steps of twice the length, and a step at each switch of a neuron",
            ),
            "==",
            theory("integral", sums[0]),
        ),
    }


@panel(
    balance_and_sign,
    r"Gradient descent moves $v^2-|w|^2$ by $h$ times an integral",
    x=r"$\int[(\partial_v\mathcal{L})^2-|\partial_w\mathcal{L}|^2]$",
    y="drift over $h$",
)
def _(pen, runs):
    parts = [r.parts["drift"] for r in runs.judgement.runs if r.instance["eps"] == 0.3]
    x, y, e = (
        np.concatenate([getattr(p, k) for p in parts]) for k in ("predicted", "shown", "error")
    )
    pen.theory([x.min(), x.max()], [x.min(), x.max()], "equal")
    pen.points(x, y, e, "neurons", k=1)


@simulation
def trained(layout, n, mu, jitter, spread, eps, count, length, seed):
    """Losses, squared Frobenius and spectral norms, at two accuracies, from t_2 on: the first time
    at which all neurons are aligned or dead and the loss has halved (the last of 101 times, if it
    never does); and the weights then."""
    rng = np.random.default_rng([seed, 3])
    X, labels = layout(rng, n, mu, jitter, spread)
    W, v = neurons(rng, count, X.shape[1], eps)
    times = np.linspace(0, 8 + 1.5 * np.log(1 / eps), 101)
    start = ir.relu_flow(W, v, X, labels, times, tol=1e-4)
    low = np.flatnonzero(start.losses <= 0.5 * start.losses[0])
    phases = (ir.aligned_phase(start.W[k], start.v[k], X, labels).aligned.all() for k in low)
    k = next(
        (k for k, whole in zip(low, phases, strict=True) if whole), low[0] if len(low) else 100
    )
    halved, found = (start.W[k], start.v[k]), []
    for tol in (1e-8, 1e-6):
        later = length * np.array([0.0, 0.1, 0.3, 1.0])
        run = ir.relu_flow(*halved, X, labels, later, tol=tol)
        norms = [(np.sum(w**2), np.linalg.norm(w, 2) ** 2) for w in run.W]
        found.append((run.losses, np.array(norms)))
    return found, halved, X, labels


@aligned.ours("derived: explicit constants", serves=("c", "d"))
@cases(n=3, mu=0.05, length=1.0)
@cases(n=4, mu=[0.05, 0.5])
@full(n=3, mu=0.2, length=1.0)
@full(n=[2, 4, 8], mu=[0.02, 0.2], eps=[1e-2, 1e-4], length=100.0)
@space(
    n=Int(2, 6),
    mu=Real(0.02, 0.8),
    jitter=Real(0.0, 0.8),
    spread=Real(1.0, 2.0),
    eps=Real(1e-4, 1e-2, log=True),
    count=Int(8, 16),
    length=Real(1.0, 50.0),
)
@breaks("orthogonal data", layout=orthogonal)
def rate_and_low_rank(
    seed, n, mu, jitter=0.2, spread=1.0, eps=1e-3, count=12, length=20.0, layout=separated
):
    r"""$\mathcal L(t)\le\frac{\mathcal L(t_2)}{1+\alpha\mathcal L(t_2)(t-t_2)}$, $\frac1\alpha=
    \frac1{\alpha_+}+\frac1{\alpha_-}$, $\alpha_\pm=\min|x_i|^2(\mu_\pm+\frac{1-\mu_\pm}{n_\pm})
    \sum_{\pm v_j>0}v_j^2+\sum_{\pm v_j>0}\min_i(w_j^\top x_i)^2$ at $t_2$, over the $n_\pm$ data of
    the label, of least cosine $\mu_\pm$; and $\|W\|_F^2\le2\|W\|_2^2+\|D_+\|_2+\|D_-\|_2+
    \|W_{dead}\|_F^2$ for $t\ge t_2$, of which $D_\pm=W_\pm W_\pm^\top-v_\pm v_\pm^\top$ (rows:
    neurons) and $W_{dead}$ do not change after $t_2$: they stay as small as the start made them.
    Here $t_2$ is the first such time at which the loss has halved."""
    (fine, coarse), (W, v), X, labels = trained(
        layout, n, mu, jitter, spread, eps, count, length, seed
    )
    phase = ir.aligned_phase(W, v, X, labels)
    later = length * np.array([0.1, 0.3, 1.0])
    curve = 1 / (1 + theory("alpha", phase.alpha) * fine[0][0] * later)
    share, rough = fine[0][1:] / fine[0][0], coarse[0][1:] / coarse[0][0]
    ranks = [norms[1:, 0] / norms[1:, 1] for _, norms in (fine, coarse)]
    most = theory("rank", 2.0) + theory("remainder", phase.remainder) / fine[1][1:, 1]
    source = "difference to an integration at a tolerance of 1e-6"
    members = {j: bool(a) for j, a in enumerate(phase.aligned)}
    return {
        "loss": compare(within(share, np.abs(share - rough) + 1e-7, source), "<=", curve),
        "stable rank": compare(
            within(ranks[0], np.abs(ranks[0] - ranks[1]) + 1e-7, source),
            "<=",
            most,
        ),
        "aligned": compare(family(members), "==", theory("neurons", count)),
    }


@panel(
    rate_and_low_rank,
    r"After alignment the loss stays below $1/(1+\alpha\mathcal{L}t)$",
    x="time after $t_2$",
    y="loss over that at $t_2$",
    log="xy",
)
def _(pen, runs):
    for k, n in enumerate((2, 8)):
        run = next(r for r in runs.judgement.runs if r.instance["n"] == n)
        later = run.instance["length"] * np.array([0.1, 0.3, 1.0])
        pen.theory(later, run.parts["loss"].predicted, f"bound, $n={n}$", k=k)
        pen.points(later, run.parts["loss"].shown, label=f"$n={n}$", k=k)


@panel(
    rate_and_low_rank,
    r"After alignment the stable rank stays below 2 and what the start leaves",
    x=r"separation $\mu$",
    y=r"stable rank",
    log="x",
)
def _(pen, runs):
    pen.theory([0.02, 0.2], [2, 2], "2")
    for k, n in enumerate((2, 8), 1):
        case = {"n": n, "eps": 1e-4}
        pen.points(*runs.measured("mu", "stable rank", 2, where=case), f"$n={n}$", k=k)
    x, y, e = runs.measured("mu", "stable rank", 2, control="orthogonal data")
    pen.broken(x, y, e, "orthogonal data")


if __name__ == "__main__":
    run_script(__file__)
