"""The regularisation path: certified at every penalty."""

from itertools import pairwise

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    equal,
    exhaustive,
    inconclusive,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

SETTING = (
    r"Let $f(\beta)$, $v=y-f$, $P$ be outputs, residual and penalty $\frac12\sum_j(\|u_j\|^2+a_j^2)$ of an optimum of "
    r"$\frac12\|\sum_ja_j(Xu_j)_+-y\|^2+\beta P$ over all widths, $\beta>0$. "
)
# Two rows that one neuron fits one at a time: the longer one first, the more useful one later.
TRAP = {"X": np.array([[1.0, 0.0], [0.0, 2.0]]), "y": np.array([1.0, -0.9])}


def gaussian(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n)


def best_of_one(X, y, betas, seed):
    """Outputs and penalty of the best single neuron at every penalty, by descent from many directions."""
    starts = np.random.default_rng(seed).normal(size=(12, X.shape[1]))
    fits, penalties = [], []
    for beta in betas:
        ends = [
            cr.local_minimum(X, y, beta, (w[None], np.array([s])))
            for w in starts
            for s in (1.0, -1.0)
        ]
        network = min(ends, key=lambda e: e.objective).network
        fits.append(network(X))
        penalties.append(network.penalty)
    return np.array(fits), np.array(penalties)


@claim(
    SETTING + r"$\|v(\beta')-v(\beta)\|\le(1-\beta/\beta')\|v(\beta')\|$ and "
    r"$\|f(\beta')-f(\beta)\|^2\le(\beta'-\beta)(P(\beta)-P(\beta'))$ for $\beta<\beta'$: outputs are continuous, the "
    r"loss is nondecreasing, $P$ nonincreasing; and the network is zero iff "
    r"$\beta\ge\beta_{\max}=\max_{\|u\|\le1}|y^\top(Xu)_+|$. The first bound is attained for $n=1$.",
    sources=["mishkin2023-optimal, continuity of the solution path (paper text not consulted)"],
    origin="derived",
    kind="monotonicity",
    cases={
        "quick": [{"n": 1, "d": 2}, {"n": 7, "d": 2}],
        "full": [
            {"n": 1, "d": 2},
            {"n": 30, "d": 2},
            {"n": 12, "d": 3},
            {"n": 7, "d": 2, "min_ratio": 0.02, "tol": 1e-4},
        ],
    },
    space={"n": Int(1, 10), "d": Int(1, 3), "min_ratio": Real(0.02, 0.5)},
    breaks={"one neuron, fewer than the optimum has": {**TRAP, "width": 1, "min_ratio": 0.05}},
)
def path_monotone_continuous(
    n, d, seed, min_ratio=0.05, tol=1e-2, X=None, y=None, width=None
) -> Evidence:
    X, y = gaussian(n, d, seed) if X is None else (X, y)
    top = cr.zero_threshold(X, y)
    if top < 1e-6 * np.linalg.norm(X) * np.linalg.norm(y):
        return inconclusive("the zero network is optimal at every penalty")
    if width is None:
        path = cr.trace_solution_path(X, y, min_ratio=min_ratio, tol=tol)
        betas, fits, penalties = path.betas, np.array([p.fit for p in path.points]), path.penalties
    else:
        betas = top * np.geomspace(1, min_ratio, 30)
        fits, penalties = best_of_one(X, y, betas, seed)
    v = y - fits
    low, high = np.tril_indices(len(betas), -1)
    near, far = betas[low], betas[high]
    shift = np.linalg.norm(v[low] - v[high], axis=1)
    # Training is exact up to a gradient of 1e-9 beta; its outputs to about as much.
    noise = 1e-8 * np.linalg.norm(y)
    bound = (1 - near / far) * np.linalg.norm(v[high], axis=1)
    energy = (far - near) * (penalties[low] - penalties[high])
    parts = [
        at_most(shift - noise, bound),
        at_most(shift**2 - noise * (shift + noise), np.maximum(energy, 0.0) + noise**2),
        at_most(-energy, noise * far[0]),
        at_most(np.linalg.norm(v[1:], axis=1), np.linalg.norm(v[:-1], axis=1), rounding=1e-8),
    ]
    if width is None:
        masses = [cr.train(X, y, r * top, tol=1e-9).network.penalty for r in (1 - 1e-3, 1 + 1e-6)]
        parts.append(
            exhaustive(
                [("zero above beta_max", masses[1] == 0.0), ("not zero below", masses[0] > 0.0)],
                grade=Grade.NUMERICAL,
            )
        )
    losses = 0.5 * np.sum(v**2, axis=1)
    count = [p.network.n_neurons for p in path.points] if width is None else [1] * len(betas)
    return all_of(*parts).with_data(
        ratios=betas / top, losses=losses, penalties=penalties, count=count, fits=fits, n=len(y)
    )


@path_monotone_continuous.panel
def _(ax, runs: Runs) -> None:
    data = runs[-1].data
    ax.plot(data["ratios"], data["losses"] / data["losses"][0], "-", color=COLOURS[0])
    ax.plot(data["ratios"], data["penalties"] / data["penalties"].max(), "-", color=COLOURS[1])
    ax.text(0.7, 0.82, "loss", color=COLOURS[0], fontsize=8, ha="right", transform=ax.transAxes)
    ax.text(0.7, 0.1, "penalty", color=COLOURS[1], fontsize=8, ha="right", transform=ax.transAxes)
    counts = np.array(data["count"])
    for k in np.flatnonzero(np.diff(counts)):
        ax.axvline(data["ratios"][k], color=BROKEN, lw=0.5, zorder=0)
    for count in np.unique(counts[counts > 0]):
        at = np.exp(np.mean(np.log(data["ratios"][counts == count])))
        ax.text(at, 1.05, str(count), fontsize=7, ha="center", color="#555555")
    ax.text(0.6, 0.45, "numbers: neurons", transform=ax.transAxes, fontsize=7, color="#555555")
    ax.set(
        title="Loss falls and norm grows as the penalty shrinks",
        xscale="log",
        xlabel=r"$\beta/\beta_{\max}$ (log)",
    )
    ax.set(ylabel="relative to the maximum", ylim=(-0.03, 1.14))


@path_monotone_continuous.panel
def _(ax, runs: Runs) -> None:
    data, broken = runs[-1].data, next(iter(runs.controls.values())).data
    for k in range(data["fits"].shape[1]):
        ax.plot(data["ratios"], data["fits"][:, k], color=COLOURS[0], lw=1)
    for k in range(2):
        ax.plot(broken["ratios"], broken["fits"][:, k], ".-", color=BROKEN, ms=3, lw=0.6)
    place = {"fontsize": 8, "transform": ax.transAxes, "va": "top", "ha": "right"}
    ax.text(0.97, 0.95, "optimal outputs on 7 samples", color=COLOURS[0], **place)
    ax.text(0.97, 0.88, "best single neuron (2 samples): a jump", color="#666666", **place)
    ax.set(
        title="Optimal outputs move continuously",
        xscale="log",
        xlabel=r"$\beta/\beta_{\max}$ (log)",
        ylabel=r"$f(x_i)$",
    )


@claim(
    SETTING
    + r"For solved $\beta_1>\beta_2$ the mixture of both networks with weights $1-\theta,\theta$ is at "
    r"$\beta=(1-\theta)\beta_1+\theta\beta_2$ within $\theta(1-\theta)[(\beta_1-\beta_2)(P_2-P_1)-\|f_1-f_2\|^2]$ of the "
    r"optimum; this "
    r"is exact for the upper and lower bound that the mixtures of networks and of residuals give, and zero where no "
    r"neuron rotates.",
    sources=["mishkin2023-optimal, solution path (paper text not consulted)"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"n": 7, "d": 1}, {"n": 7, "d": 2}],
        "full": [
            {"n": 20, "d": 1},
            {"n": 30, "d": 2},
            {"n": 12, "d": 3},
            {"n": 7, "d": 2, "tol": 1e-3},
        ],
    },
    space={"n": Int(2, 10), "d": Int(1, 3)},
    breaks={"one end is not optimal": {"spoil": 0.7}},
)
def path_certified_everywhere(n, d, seed, tol=1e-2, spoil=1.0) -> Evidence:
    X, y = gaussian(n, d, seed)
    rng = np.random.default_rng(seed)
    path = cr.trace_solution_path(X, y, tol=tol)
    excess, allowed, lines, at = [], [], [], []
    for first, second in pairwise(path.points):
        theta = rng.uniform(0.2, 0.8)
        beta = (1 - theta) * first.beta + theta * second.beta
        best = cr.train(X, y, beta, tol=1e-9)
        fit = (1 - theta) * first.fit + theta * spoil * second.fit
        penalty = (1 - theta) * first.penalty + theta * spoil * second.penalty
        v = (1 - theta) * (y - first.fit) + theta * (y - second.fit)
        bend = (first.beta - second.beta) * (second.penalty - first.penalty) - np.sum(
            (first.fit - second.fit) ** 2
        )
        mixture = 0.5 * np.sum((fit - y) ** 2) + beta * penalty
        at.append(beta / path.beta_max)
        lines.append((mixture - (y @ v - 0.5 * v @ v), theta * (1 - theta) * bend, best.objective))
        merged = path.network(beta)
        value = 0.5 * np.sum((merged(X) - y) ** 2) + beta * merged.penalty
        excess.append(max(mixture, value) - best.objective)
        allowed.append(max(theta * (1 - theta) * bend, 0.0))
    # Values of training are exact to its gap, 1e-9 relative.
    width, predicted, values = np.array(lines).T
    rounding = 4e-9 * values
    parts = [
        at_most(np.array(excess) - rounding, np.array(allowed) + rounding),
        equal(
            width,
            predicted,
            error=rounding,
            source="gaps of the trained ends, 1e-9 each",
            scale=np.maximum(predicted, tol * values),
        ),
        at_most(path.gap, tol),
    ]
    if d == 1:
        # On a line neurons cannot rotate: between breakpoints the path is linear.
        kinds = [
            set(
                zip(
                    np.sign(p.network.weights[:, 0]), np.sign(p.network.output_weights), strict=True
                )
            )
            for p in path.points
        ]
        same = [a == b for a, b in pairwise(kinds)]
        parts.append(at_most(np.where(same, predicted, 0.0), rounding))
    return all_of(*parts).with_data(
        ratios=path.betas / path.beta_max,
        gaps=path.interval_gaps,
        tol=tol,
        at=at,
        excess=np.array(excess) / values,
    )


@path_certified_everywhere.panel
def _(ax, runs: Runs) -> None:
    data = runs[-1].data
    ax.hlines(
        np.maximum(data["gaps"], 1e-12),
        data["ratios"][1:],
        data["ratios"][:-1],
        color=COLOURS[0],
        lw=2,
    )
    ax.plot(data["at"], np.maximum(data["excess"], 1e-12), "o", ms=3, color=COLOURS[1])
    ax.axhline(data["tol"], color="black", lw=0.7, ls=":")
    ax.text(
        0.98,
        0.9,
        "certified gap of the interpolated path",
        color=COLOURS[0],
        fontsize=8,
        ha="right",
        transform=ax.transAxes,
    )
    ax.text(
        0.98,
        0.83,
        "true excess at random penalties",
        color=COLOURS[1],
        fontsize=8,
        ha="right",
        transform=ax.transAxes,
    )
    ax.set(
        title="A gap at every penalty, not only on a grid",
        xscale="log",
        yscale="log",
        xlabel=r"$\beta/\beta_{\max}$ (log)",
    )
    ax.set(ylabel="relative gap (log)", ylim=(3e-13, 1e3 * data["tol"]))


if __name__ == "__main__":
    run_script(__file__)
