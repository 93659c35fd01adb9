"""Where descent ends: local minima as optima of sub-sampled convex programs."""

from fractions import Fraction

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    at_least,
    claim,
    exact,
    exhaustive,
    gap,
    inconclusive,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

SETTING = (
    r"Let $F=\frac12\|\sum_{j\le m}a_j(Xu_j)_+-y\|^2+\frac\beta2\sum_j(\|u_j\|^2+a_j^2)$, $\beta>0$, with residual "
    r"$v=y-\sum_ja_j(Xu_j)_+$. "
)


def problem(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n), rng


def descend(X, y, beta, width, rng, max_steps):
    """Plain gradient descent from a random network."""
    start = rng.normal(size=(width, X.shape[1])), rng.normal(size=width)
    return cr.gradient_descent(X, y, beta, start, max_steps=max_steps)


def clarke_point(beta=0.3, slope=1.0):
    """A Clarke stationary network with a tie whose two sides both descend.

    The neuron p = (0, 1) is tied to x_1 = (1, 0) with v_1 > 0: half of v_1 x_1 balances x_2's pull along the tie.
    """
    X = np.array([[1.0, 0.0], [-slope, 1.0]])
    y = np.array([2 * slope * beta, beta + 1.0])
    return X, y, cr.Network(np.array([[0.0, 1.0]]), np.array([1.0]))


@claim(
    SETTING
    + r"At a local minimum of $F$ every neuron is balanced, $|a_j|=\|u_j\|$, and its non-zero neurons are globally "
    r"optimal for the "
    r"convex program restricted to the pairs (activation pattern, sign of $a_j$) of its own neurons, the pattern with "
    r"$D_{kk}=1$ where "
    r"$x_k^\top u_j=0$; without zero neurons a network is a local minimum iff it is optimal for the program over all "
    r"closed cells that contain its neurons.",
    sources=[
        "mishkin2023-optimal, stationary points and sub-sampled convex programs (paper text not consulted)"
    ],
    origin="derived",
    kind="equivalence",
    cases={
        "quick": [{"n": 8, "d": 3, "width": 4, "n_starts": 6}],
        "full": [
            {"n": 12, "d": 2, "width": 6, "n_starts": 25},
            {"n": 8, "d": 3, "width": 4, "n_starts": 60, "max_steps": 60_000},
        ],
    },
    space={"n": Int(2, 9), "d": Int(1, 3), "width": Int(1, 5), "beta": Real(0.05, 1.0)},
    breaks={
        "stopped early": {"end": "early", "max_steps": 300},
        "Clarke stationary, not a local minimum": {"end": "clarke"},
    },
)
def local_minima_are_subsampled_optima(
    n, d, width, seed, beta=0.3, n_starts=4, max_steps=4000, end="local minimum"
) -> Evidence:
    X, y, rng = problem(n, d, seed)
    if end == "clarke":
        X, y, network = clarke_point(beta)
        part = cr.certify_subsampled(X, y, beta, network)
        return gap(part.objective, part.dual_objective, tol=1e-9)
    best = cr.train(X, y, beta, tol=1e-9).objective
    parts, values, bounds = [], [], []
    for _ in range(n_starts):
        network = descend(X, y, beta, width, rng, max_steps).network
        if end != "early":
            point = cr.local_minimum(X, y, beta, network)
            network = point.network
            parts.append(
                gap(point.certificate.objective, point.certificate.dual_objective, tol=1e-9)
            )
            if network.n_neurons:
                parts.append(
                    at_least(nearby(X, y, beta, network, rng), point.objective, rounding=1e-12)
                )
        own = cr.certify_subsampled(X, y, beta, network, cells="own")
        parts.append(gap(own.objective, own.dual_objective, tol=1e-9))
        values.append(own.objective)
        bounds.append(own.dual_objective)
    if end != "early":
        parts.append(at_least(values, best, rounding=1e-9))
    return all_of(*parts).with_data(values=np.array(values), bounds=np.array(bounds), best=best)


def nearby(X, y, beta, network, rng):
    """Values of F at random networks around a network, both layers moved, at many distances."""
    result = []
    for size in np.geomspace(1e-7, 1e-3, 9):
        for _ in range(10):
            u = network.weights + size * rng.normal(size=network.weights.shape)
            a = network.output_weights + size * rng.normal(size=network.n_neurons)
            other = cr.Network(u, a)
            result.append(0.5 * np.sum((other(X) - y) ** 2) + beta * other.penalty)
    return np.array(result)


@local_minima_are_subsampled_optima.panel
def _(ax, runs: Runs) -> None:
    data, early = runs[-1].data, runs.controls["stopped early"].data
    scale = data["best"]
    top = max(data["values"].max(), early["values"].max()) / scale
    ax.plot([1, 1.02 * top], [1, 1.02 * top], color=COLOURS[0], lw=1)
    ax.plot(early["bounds"] / scale, early["values"] / scale, "x", color=BROKEN, ms=5)
    ax.plot(data["bounds"] / scale, data["values"] / scale, "o", color=COLOURS[1], ms=4)
    ax.axhline(1, color="black", lw=0.7, ls=":")
    ax.text(0.97, 0.03, "certified global optimum", fontsize=8, ha="right", transform=ax.transAxes)
    ax.text(0.6, 0.3, "local minima", color=COLOURS[1], fontsize=8, transform=ax.transAxes)
    ax.text(0.6, 0.23, "stopped early", color="#666666", fontsize=8, transform=ax.transAxes)
    ax.set(
        title="Each local minimum solves its own convex program",
        xlabel="bound of the sub-sampled optimum / global optimum",
    )
    ax.set_ylabel("value / global optimum")


@claim(
    SETTING
    + r"A local minimum of $F$ with a zero neuron is a global minimum over networks of any width. If a network that is "
    r"optimal for its own cells is not globally optimal, $\max_{\|u\|\le1}|v^\top(Xu)_+|>\beta$, and an added neuron of "
    r"any small size along a maximiser lowers $F$.",
    sources=["mishkin2023-optimal, stationary points (paper text not consulted)"],
    origin="derived",
    kind="equivalence",
    cases={
        "quick": [{"n": 8, "d": 3, "width": 3, "n_starts": 8}],
        "full": [
            {"n": 12, "d": 2, "width": 4, "n_starts": 40},
            {"n": 8, "d": 3, "width": 4, "n_starts": 80},
        ],
    },
    space={"n": Int(3, 9), "d": Int(1, 3), "width": Int(1, 5), "beta": Real(0.05, 0.5)},
    breaks={"no zero neuron": {"spare": False}},
)
def zero_neuron_minima_are_global(n, d, width, seed, beta=0.2, n_starts=4, spare=True) -> Evidence:
    X, y, rng = problem(n, d, seed)
    best = cr.train(X, y, beta, tol=1e-9).objective
    excess, norms, outcomes = [], [], []
    for k in range(n_starts):
        start = rng.normal(size=(width, d)), rng.normal(size=width)
        point = cr.local_minimum(X, y, beta, start)
        v = y - point.network(X)
        norm = cr.dual_norm(X, v)
        # A violation of the constraint below the training's accuracy cannot be told from none.
        stuck = norm.value <= beta * (1 + 1e-6)
        excess.append(point.objective / best - 1)
        norms.append(norm.value / beta)
        if not spare:
            # A network without a zero neuron can be stuck anywhere: it is a local minimum in any case.
            outcomes.append((k, excess[-1] < 1e-9))
            continue
        lower = True
        for size in np.geomspace(1e-6, 1e-3, 4) if not stuck else ():
            grown = cr.Network(
                np.vstack([point.network.weights, np.sqrt(size) * norm.direction]),
                np.append(point.network.output_weights, norm.sign * np.sqrt(size)),
            )
            # The first-order gain is size (norm - beta); the curvature along the atom bounds how long it lasts.
            atom = np.maximum(X @ norm.direction, 0)
            gain = size * (norm.attained - beta) - 0.5 * size**2 * (atom @ atom)
            value = 0.5 * np.sum((grown(X) - y) ** 2) + beta * grown.penalty
            lower = lower and (gain < 1e-12 * point.objective or value < point.objective)
        outcomes.append((k, lower if not stuck else bool(excess[-1] < 1e-5)))
    if not spare and min(excess) > -1e-9 and max(excess) < 1e-9:
        return inconclusive("every descent reached the global optimum")
    return exhaustive(outcomes, grade=Grade.NUMERICAL).with_data(
        excess=np.array(excess), norms=np.array(norms)
    )


@zero_neuron_minima_are_global.panel
def _(ax, runs: Runs) -> None:
    for k, (run, colour) in enumerate(zip(runs[-2:], COLOURS[1::-1], strict=False)):
        ax.plot(run.data["norms"], np.maximum(run.data["excess"], 1e-13), "o", color=colour, ms=4)
        size = (
            f"{run.instance['n_starts']} descents, n = {run.instance['n']}, d = {run.instance['d']}"
        )
        ax.text(
            0.97,
            0.06 + 0.07 * k,
            size,
            color=colour,
            fontsize=8,
            ha="right",
            transform=ax.transAxes,
        )
    ax.axvline(1, color="black", lw=0.8)
    ax.text(
        1.05,
        0.4,
        "dual constraint: minima\non this line are global",
        fontsize=8,
        transform=ax.get_xaxis_transform(),
    )
    ax.set(
        title="A spare neuron escapes every other minimum",
        yscale="log",
        ylabel="excess over the global optimum (log)",
        xscale="log",
    )
    ax.set_xlabel(r"$\max_{\|u\|\leq 1}|v^\top(Xu)_+|\,/\,\beta$ (log)")


@claim(
    r"Not every Clarke stationary network is optimal for a convex program with the patterns of its own neurons: for $x_1=(1,0)$, "
    r"$x_2=(-s,1)$, $y=(2s\beta,1+\beta)$, $s,\beta>0$, the neuron $u=(0,1)$, $a=1$ is one "
    r"($\beta u=v_2x_2+\frac12v_1x_1$), and both closed "
    r"cells that contain $u$ hold better single neurons. A tie needs $a_jv_k\le0$. (Counterexample to the form in the "
    r"abstract, all stationary points, read as Clarke's with one block per pattern; hypotheses unseen.)",
    sources=["mishkin2023-optimal, Abstract"],
    origin="derived",
    kind="counterexample",
    cases=[{"slope": Fraction(k), "beta": Fraction(3, 10)} for k in (3, 1)],
    breaks={"no force at the tie": {"slope": Fraction(0)}},
)
def clarke_point_outside_every_program(slope: Fraction, beta: Fraction) -> Evidence:
    y = (2 * slope * beta, 1 + beta)
    # On (t, 1), t = 2 k / (1 - k^2), the norm is (1 + k^2) / (1 - k^2): everything stays rational.
    k = slope * beta / (4 * (1 + slope**2 + beta)) + Fraction(1, 1000)
    t, norm = 2 * k / (1 - k**2), (1 + k**2) / (1 - k**2)

    def value(first, second, length):
        return ((first - y[0]) ** 2 + (second - y[1]) ** 2) / 2 + beta * length

    here = value(0, 1, 1)
    v = (y[0], y[1] - 1)
    gradient = (v[0] / 2 - slope * v[1], v[1] - beta)
    # relu(x_1 u), relu(x_2 u) at (t, 1) and (-t, 1).
    sides = value(t, max(1 - slope * t, Fraction(0)), norm), value(0, 1 + slope * t, norm)
    return all_of(
        exact(gradient[0], "==", 0),
        exact(gradient[1], "==", 0),
        *(exact(side, "<", here) for side in sides),
    )


if __name__ == "__main__":
    run_script(__file__)
