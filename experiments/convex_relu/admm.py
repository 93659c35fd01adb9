"""ADMM contracts at a predictable rate; random first layers come with a certificate."""

import warnings
from functools import cache

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Evidence,
    Int,
    Real,
    Runs,
    all_of,
    at_least,
    at_most,
    claim,
    equal,
    exhaustive,
    gap,
    inconclusive,
    sample_mean,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

DECAY = 6.0
"""Length of the judged stretch: the residual falls by exp(DECAY)."""
REMAINDER = 0.02
"""Bound on the relative effect of the curvature of the norms on that stretch."""
OFFSET = {"textcoords": "offset points"}
SECTOR = "directions from a sector of 0.6 rad"


def run(X, y, beta, penalty, cones, max_iter):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return cr.train_admm(X, y, beta, cones=cones, penalty=penalty, tol=1e-15, max_iter=max_iter)


def stretch(result, beta):
    """First and last iteration of the judged stretch, or None where the iterates settle on a piece too late for one."""
    residuals = result.residuals
    # |q_k - q*| is at most the sum of the later residuals; the soft threshold's second derivative is at most 3 rho / beta.
    distances = np.cumsum(residuals[::-1])[::-1]
    curvature = 3 * result.penalty / beta * np.cumsum(distances[::-1])[::-1]
    settled = (curvature <= REMAINDER * np.exp(-DECAY)) & (
        np.arange(len(residuals)) >= result.identified
    )
    if not settled.any():
        return None
    first = int(np.argmax(settled))
    end = np.flatnonzero(residuals <= residuals[first] * np.exp(-DECAY))
    return (first, int(end[0])) if end.size and residuals[end[0]] >= 1e-12 else None


@cache
def settling_instance(n, d, beta, factor, cones, seed):
    """The first Gaussian instance whose iterates settle on one piece early enough to see a rate."""
    rng = np.random.default_rng(seed)
    for _ in range(200):
        X, y = rng.normal(size=(n, d)), rng.normal(size=n)
        result = run(X, y, beta, factor * run(X, y, beta, None, cones, 1).penalty, cones, 8000)
        found = stretch(result, beta)
        if found is not None:
            return X, y, result, found
    return None


@claim(
    r"ADMM with fixed penalty $\rho>0$ on $\frac12\|Au-y\|^2+\beta\sum_b\|v_b\|$, $u=v$, $Gu=s\ge0$ (the convex ReLU program "
    r"with squared loss, all patterns) tends to its optimum, the global optimum of ReLU training. Once the active blocks and "
    r"slacks stay the same, $\|q^{k+1}-q^k\|$ decays at the rate $\max\{|\mu|:\mu\in\mathrm{spec}\,T'(q^\star),\mu\ne1\}<1$, "
    r"where $q=(u+\lambda,Gu+\nu)$ and $T$ is the iteration, up to the transient of $T'(q^\star)^k$.",
    sources=["bai2022-efficient, theorem on ADMM convergence in Section 3"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [{"factor": 0.5}, {"factor": 2.0}],
        "full": [{"factor": f} for f in (0.3, 0.7, 1.5)] + [{"n": 6, "d": 3}, {"factor": 3.0}],
    },
    space={"beta": Real(0.4, 1.0), "factor": Real(0.5, 2.0)},
    breaks={
        "clip of the slacks dropped": {"cones": False},
        "active set not settled": {"early": True},
    },
    shifts={"rate off by 1 %": {"power": 1.01}},
)
def admm_linear_convergence(
    seed, n=8, d=2, beta=0.5, factor=1.0, cones=True, early=False, power=1.0
) -> Evidence:
    found = settling_instance(n, d, beta, factor, cones, seed)
    if found is None:
        return inconclusive("no instance whose active set settles in time")
    X, y, result, (first, last) = found
    limit = run(X, y, beta, result.penalty, cones, last)
    rho = limit.asymptotic_rate
    if early:
        first, last = 1, first // 2
    after, before = (
        run(X, y, beta, result.penalty, cones, count).state for count in (first + 1, first)
    )
    difference = (after - before).ravel()
    linear = []
    for _ in range(last - first + 1):
        linear.append(np.linalg.norm(difference))
        difference = limit.jacobian @ difference
    steps = last - first
    transient = np.log(linear[-1] / linear[0]) - steps * np.log(rho)
    slope = (np.log(result.residuals[last] / result.residuals[first]) - transient) / steps
    return all_of(
        gap(result.objective, cr.train(X, y, beta).dual_objective, tol=1e-8),
        at_most(np.diff(result.residuals), np.full(len(result.residuals) - 1, 1e-13)),
        equal(
            slope,
            power * np.log(rho),
            error=REMAINDER / steps,
            source="curvature of the norms along the stretch",
        ),
    ).with_data(
        residuals=result.residuals[: last + 60],
        first=first,
        linear=np.array(linear),
        rho=rho,
        factor=factor,
    )


@admm_linear_convergence.panel
def _(ax, runs: Runs) -> None:
    shown = sorted((r.data for r in runs if r.instance.get("d", 2) == 2), key=lambda d: d["factor"])
    for data, colour in zip(shown, COLOURS[1:], strict=False):
        residuals, first, rate = data["residuals"], data["first"], -np.log(data["rho"])
        k = np.arange(max(0, first - int(4 / rate)), len(residuals), max(1, int(0.4 / rate)))
        label = rf"$\rho={data['factor']}\rho_0$: {data['rho']:.3f} per iteration"
        ax.plot(
            (k - first) * rate,
            residuals[k] / residuals[first],
            "o",
            ms=3,
            color=colour,
            label=label,
        )
        steps = np.arange(len(data["linear"]))
        ax.plot(steps * rate, data["linear"] / data["linear"][0], color=colour, lw=1)
    ax.plot([0, DECAY], np.exp([0, -DECAY]), color=COLOURS[0])
    ax.annotate("spectral rate", (3.2, np.exp(-3.2)), xytext=(8, 4), color=COLOURS[0], **OFFSET)
    ax.legend(loc="lower left")
    title = "ADMM ends at the spectral rate of its derivative"
    ax.set(
        yscale="log",
        xlabel=r"iterations after settling $\times\ \log(1/\mathrm{rate})$",
        ylabel="relative residual",
        title=title,
    )


def directions(rng, count, sector):
    angle = rng.uniform(0, sector, size=count)
    return np.column_stack([np.cos(angle), np.sin(angle)])


@claim(
    r"For $N$ independent uniform directions $u_i$ in the plane let $p(N)$ be the least $\frac12\|\sum_i(Xu_i)_+\alpha_i-y\|^2"
    r"+\beta\|\alpha\|_1$, with residual $z$, and $p^\star$ the optimum over all networks, with residual $z_\star$ and blocks of "
    r"norms $c_1,\dots,c_m$ at angles $\theta_j$. Then $p(N)$ does not increase in $N$, and $0\le p(N)-p^\star\le p(N)-d(tz)$ "
    r"for every $t\ge0$ with $t\max_{\|u\|\le1}|z^\top(Xu)_+|\le\beta$, where $d(z)=z^\top y-\frac12\|z\|^2$. With probability "
    r"at least $1-\xi$, $p(N)-p^\star\le\sum_jc_j\max_{|\theta-\theta_j|\le t}(\beta-|z_\star^\top(Xu_\theta)_+|)+\frac12(2\sin"
    r"\frac t2\,\|X\|\sum_jc_j)^2$ where $m(1-t/\pi)^N=\xi$.",
    sources=["bai2022-efficient, sampled convex program in Section 2"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"counts": (10, 100, 4000)}],
        "full": [{"counts": (10, 30, 100, 300, 1000, 3000, 10000)}],
    },
    space={"beta": Real(0.3, 1.0), "n": Int(4, 10)},
    breaks={SECTOR: {"sector": 0.6}},
)
def scp_random_first_layer(
    seed, n=8, beta=0.5, counts=(10, 100, 4000), sector=2 * np.pi
) -> Evidence:
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, 2)), rng.normal(size=n)
    best = cr.train(X, y, beta)
    U = directions(rng, counts[-1], sector)
    found = [cr.train_output_layer(X, y, beta, U[:count]) for count in counts]
    values = np.array([f.objective for f in found])
    # The optimum itself is known up to its certified gap.
    excess = values - best.dual_objective
    allowed = np.array([f.objective - f.certificate.dual_objective for f in found])
    bounds = (
        np.array([cr.random_first_layer_bound(best, count, 1e-6) for count in counts])
        + best.objective
        - best.dual_objective
    )
    return all_of(
        at_least(values, best.dual_objective),
        at_most(values - best.objective, allowed + 1e-14),
        at_most(np.append(np.diff(values), 0.0), 1e-13),
        at_most(excess, bounds),
    ).with_data(
        counts=counts, excess=excess / values, certified=allowed / values, bounds=bounds / values
    )


@scp_random_first_layer.panel
def _(ax, runs: Runs) -> None:
    data, broken = runs[0].data, runs.controls[SECTOR].data
    counts = np.array(data["counts"])
    ax.plot(counts, data["bounds"], color=COLOURS[0])
    ax.plot(
        counts, data["certified"], "s", mfc="none", color=COLOURS[1], label="certified afterwards"
    )
    ax.plot(counts, data["excess"], "o", color=COLOURS[2], label="true")
    ax.plot(counts, broken["excess"], "o", color=BROKEN)
    ax.annotate(
        "bound at risk $10^{-6}$",
        (counts[2], data["bounds"][2]),
        xytext=(6, 4),
        color=COLOURS[0],
        **OFFSET,
    )
    ax.annotate(
        "from a sector",
        (counts[-1], broken["excess"][-1]),
        xytext=(0, 6),
        ha="right",
        color=BROKEN,
        **OFFSET,
    )
    ax.legend(loc="lower left")
    title = "A random first layer is certified after the fact"
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="random directions $N$",
        ylabel="relative suboptimality",
        title=title,
    )


@cache
def improvement(n, beta, count, repeats, seed, sector):
    """Probability that one more direction helps N; active ones among N + 1 others; every direction of a few left out in turn."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, 2)), rng.normal(size=n)
    V, active = np.empty(repeats), np.empty(repeats)
    for r in range(repeats):
        V[r] = cr.improvement_probability(
            X, cr.train_output_layer(X, y, beta, directions(rng, count, sector)).dual, beta
        )
        active[r] = cr.train_output_layer(X, y, beta, directions(rng, count + 1, sector)).n_active
    left_out = []
    for r in range(10):
        U = directions(rng, count + 1, sector)
        used = cr.train_output_layer(X, y, beta, U).coefficients != 0
        for i, u in enumerate(U):
            dual = cr.train_output_layer(X, y, beta, np.delete(U, i, axis=0)).dual
            left_out.append(((r, i), bool((abs(dual @ np.maximum(X @ u, 0)) > beta) == used[i])))
    return V, active, left_out


@claim(
    r"Of $N+1$ directions, one strictly lowers the value of training over the others iff it is active in training over all, so "
    r"that the probability $V_N$ that one more independent uniform direction strictly lowers the value over $N$ of them has "
    r"$\mathbb EV_N=\mathbb E[s_{N+1}]/(N+1)\le n/(N+1)$, with $s_{N+1}$ the number of active directions among $N+1$: the bound "
    r"is loose by exactly $n/\mathbb Es_{N+1}$.",
    sources=["bai2022-efficient, sampled convex program in Section 2"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"count": 12, "repeats": 200}],
        "full": [{"count": count, "repeats": 1500} for count in (8, 16, 32, 64, 128, 20)],
    },
    breaks={SECTOR: {"sector": 0.6}},
    coarse="exact for every left-out direction; only its mean over programs has a sampling error, of some standard errors",
)
def scp_improvement_identity(
    seed, n=8, beta=0.3, count=12, repeats=200, sector=2 * np.pi
) -> Evidence:
    V, active, left_out = improvement(n, beta, count, repeats, seed, sector)
    # The mean of the active count is estimated from programs of its own.
    bias = 5.0 * active.std(ddof=1) / active.mean() / np.sqrt(repeats)
    return all_of(
        exhaustive(left_out),
        sample_mean(
            (count + 1) * V / active.mean(),
            1.0,
            bias=bias,
            source="five standard errors of the mean active count",
        ),
        sample_mean(V, n / (count + 1), relation="upper"),
    ).with_data(
        count=count,
        V=V.mean(),
        error=5 * V.std(ddof=1) / np.sqrt(repeats),
        active=active.mean(),
        n=n,
    )


@scp_improvement_identity.panel
def _(ax, runs: Runs) -> None:
    data = sorted((r.data for r in runs), key=lambda d: d["count"])
    counts, n = np.array([d["count"] for d in data]), data[0]["n"]
    ax.plot(counts, n / (counts + 1), color=COLOURS[0])
    ax.annotate(
        "$n/(N+1)$",
        (counts[-1], n / (counts[-1] + 1)),
        xytext=(-45, 24),
        color=COLOURS[0],
        **OFFSET,
    )
    ax.plot(counts, [d["active"] / (d["count"] + 1) for d in data], color=COLOURS[2])
    ax.errorbar(
        counts, [d["V"] for d in data], [d["error"] for d in data], fmt="o", color=COLOURS[2]
    )
    ax.annotate(
        r"$\mathbb{E}s_{N+1}/(N+1)$",
        (counts[0], data[0]["V"]),
        xytext=(0, -26),
        color=COLOURS[2],
        **OFFSET,
    )
    broken = runs.controls[SECTOR].data
    ax.plot(broken["count"], broken["V"], "o", color=BROKEN)
    ax.annotate(
        "from a sector", (broken["count"], broken["V"]), xytext=(-60, -12), color=BROKEN, **OFFSET
    )
    title = "One more direction helps as often as one is active"
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="random directions $N$",
        ylabel="$\\mathbb{E}V_N$",
        title=title,
    )


if __name__ == "__main__":
    run_script(__file__)
