"""Low rank by training: truncating on the way beats truncating at the end."""

import numpy as np
from scipy.optimize import minimize

from theorylab.matrix_sensing import (
    PruningStatus,
    autoencoder_objective,
    low_rank_autoencoder,
    pruning_metric,
    trained_rank_pruning,
    truncate,
    weighted_truncation,
)
from theorylab.verify import Evidence, Int, Real, Runs, all_of, at_least, claim, equal, inconclusive
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

EPS = np.finfo(float).eps


@claim(
    r"For $\|AW-Y\|_F^2$ over rank $r$, $H=A^\top A\succ0$, $\hat W$ the least-squares solution: the minimum "
    r"$H^{-1/2}T_r(H^{1/2}\hat W)$ is better than truncation after training, $T_r\hat W=U_rU_r^\top\hat W$, by at least "
    r"$\|\Pi_{AU_r}A(\hat W-T_r\hat W)\|_F^2>0$ unless this vanishes. Training with truncation every $p$ steps of size "
    r"$\eta=1/\|A\|^2$ ends at $Q_p^{-1/2}T_r(Q_p^{1/2}\hat W)$, $Q_p=I-(I-\eta H)^p$, where that is a fixed point: "
    r"the minimum for $p=1$, $T_r\hat W$ for $p\to\infty$.",
    sources=["xu2020-trained, training with truncation (linear model derived here)"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"period": p, "noise": 2.0} for p in (1, 20)],
        "full": [{"period": p, "noise": 2.0} for p in (1, 2, 3, 5, 10, 40, 100, 20)],
    },
    space={"period": Int(1, 40), "noise": Real(0.5, 3.0)},
    breaks={"A with orthogonal columns": {"orthogonal": True}},
)
def rank_constrained_vs_posthoc(
    period: int, noise: float, seed: int, orthogonal: bool = False
) -> Evidence:
    rng, (n, d, q, rank) = np.random.default_rng(seed), (100, 20, 12, 3)
    A = rng.standard_normal((n, d)) * np.geomspace(1, 0.2, d)
    A = 10 * np.linalg.qr(A)[0] if orthogonal else A
    Y = A @ rng.standard_normal((d, rank)) @ rng.standard_normal(
        (rank, q)
    ) + noise * rng.standard_normal((n, q))
    least = np.linalg.lstsq(A, Y, rcond=None)[0]
    step = 1 / np.linalg.norm(A, 2) ** 2

    def loss(W) -> float:
        return float(np.sum((A @ W - Y) ** 2))

    after, best = truncate(least, rank), weighted_truncation(least, A.T @ A, rank)
    basis = np.linalg.qr(A @ np.linalg.svd(after)[0][:, :rank])[0]
    gain = np.sum((basis.T @ A @ (least - after)) ** 2)
    # Strict means above the rounding of the two losses.
    strict = (
        at_least(gain, 1e-10 * loss(after), rounding=0.0),
        at_least(loss(after) - loss(best), gain, rounding=1e-9),
    )
    run = trained_rank_pruning(A, Y, rank=rank, step_size=step, period=period)
    metric = pruning_metric(A, step_size=step, period=period)
    limit = weighted_truncation(least, metric, rank)
    left_out, size = np.linalg.norm(metric @ (least - limit), 2), np.linalg.norm(limit)
    if (
        left_out >= np.linalg.svd(limit, compute_uv=False)[rank - 1]
        or run.status is not PruningStatus.CONVERGED
    ):
        return inconclusive("the stated limit is not a fixed point, or the run did not settle")
    ends = equal(
        np.linalg.norm(run.weights - limit) / size,
        0,
        error=1e-9,
        scale=1,
        source="a last change of 1e-12, at most 10,000 rounds",
    )
    data = {
        "losses": run.losses,
        "excess": loss(run.weights) / loss(best) - 1,
        "stated": loss(limit) / loss(best) - 1,
    }
    return all_of(*strict, ends, data={**data, "after": loss(after) / loss(best) - 1})


@rank_constrained_vs_posthoc.panel
def _(ax, runs: Runs) -> None:
    shown = sorted(runs, key=lambda run: run.instance["period"])
    period = np.array([run.instance["period"] for run in shown])
    ax.plot(period, [100 * run.data["stated"] for run in shown], color=COLOURS[0])
    ax.plot(period, [100 * run.data["excess"] for run in shown], "o", color=COLOURS[0])
    ax.axhline(100 * shown[0].data["after"], color=COLOURS[1], linewidth=1)
    ax.text(
        1,
        97 * shown[0].data["after"],
        "truncation after training",
        color=COLOURS[1],
        fontsize=8,
        va="top",
    )
    broken = runs.controls["A with orthogonal columns"].data
    ax.plot(period[[0, -1]], [100 * broken["after"]] * 2, color=BROKEN)
    ax.text(
        100,
        2 * 100 * broken["after"] + 0.3,
        "orthogonal A: no difference",
        color=BROKEN,
        fontsize=8,
        ha="right",
        va="bottom",
    )
    ax.set(
        title="Truncating often while training nears the best rank 3",
        xscale="log",
        xlabel="steps between truncations (log)",
    )
    ax.set_ylabel("excess loss, % of the optimum")


@claim(
    r"For $\|X-DMEX\|_F^2+\lambda\|M\|_*$, $M\in\mathbb{R}^{k\times k}$: $(cD,c^{-2}M,cE)$ leaves the first term and multiplies "
    r"the second by $c^{-2}$, so that without a bound on $D,E$ the penalty can be scaled away; with $D^\top D=EE^\top=I$ the "
    r"minimum has $DME$ symmetric on the leading left singular vectors of $X$ with eigenvalues $(1-\lambda/(2\sigma_i^2))_+$, "
    r"$i\le k$.",
    sources=["mazumder2023-learning, low-rank autoencoder objective (linear model derived here)"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"penalty": p, "width": k} for p, k in ((0.5, 4), (1.0, 2))],
        "full": [{"penalty": p, "width": k} for p in (0.1, 0.5, 2.0, 1.0) for k in (4, 2)],
    },
    space={"penalty": Real(0.1, 1.5), "width": Int(1, 4)},
    breaks={"encoder and decoder free to grow": {"scaling": 3.0}},
)
def lorae_scaling_degeneracy(
    penalty: float, width: int, seed: int, scaling: float = 1.0
) -> Evidence:
    rng, sigma = np.random.default_rng(seed), np.array([2.0, 1.5, 1.0, 0.6])
    U, V = (
        np.linalg.qr(rng.standard_normal((4, 4)))[0],
        np.linalg.qr(rng.standard_normal((9, 4)))[0],
    )
    X = (U * sigma) @ V.T
    stated = low_rank_autoencoder(X, width, penalty=penalty)

    def objective(pq):
        # |N|_* is the least (|P|^2 + |Q|^2) / 2 over N = P Q': a smooth problem with the same minimum over N = D M E.
        P, Q = pq.reshape(2, 4, width)
        R = (P @ (Q.T @ X) - X) @ X.T
        gradient = np.stack([2 * R @ Q + penalty * P, 2 * R.T @ P + penalty * Q])
        return np.sum((X - P @ (Q.T @ X)) ** 2) + penalty / 2 * np.sum(pq**2), gradient.ravel()

    options = {"gtol": 1e-9, "ftol": 1e-14, "maxiter": 1000}
    starts = [
        minimize(
            objective, rng.standard_normal(8 * width), jac=True, method="L-BFGS-B", options=options
        )
        for _ in range(2)
    ]
    P, Q = min(starts, key=lambda run: run.fun).x.reshape(2, 4, width)
    left, gains, right = np.linalg.svd(P @ Q.T)
    D, M, E = left[:, :width], np.diag(gains[:width]), right[:width]
    terms = np.array(
        [
            autoencoder_objective(X, c * E, M / c**2, c * D, penalty=penalty)
            for c in (1.0, 2.0, 10.0)
        ]
    )
    path = equal(
        terms,
        terms[0] * [[1, 1], [1, 1 / 4], [1, 1 / 100]],
        error=64 * EPS * sum(terms[0]),
        scale=terms[0],
        source="rounding",
    )
    fit, nuclear = autoencoder_objective(
        X, scaling * E, M / scaling**2, scaling * D, penalty=penalty
    )
    value = equal(
        fit + nuclear,
        stated.value,
        error=1e-7 * stated.value,
        source="stopping rule of the search, 1e-14 a step, 1000 steps",
    )
    error = (
        np.sqrt(2 * 1e-7 * stated.value) / sigma[-1]
    )  # an excess e of the value moves sigma times a gain by at most its root
    same = equal(
        np.sort(gains[:width]),
        np.sort(stated.gains),
        error=error,
        scale=1,
        source="root of the error of the value",
    )
    return all_of(path, value, same, data={"sigma": sigma[:width], "gains": gains[:width]})


@lorae_scaling_degeneracy.panel
def _(ax, runs: Runs) -> None:
    grid = np.linspace(0.4, 2.1, 200)
    for penalty, colour in zip((0.1, 0.5, 1.0, 2.0), COLOURS, strict=False):
        ax.plot(grid, np.maximum(1 - penalty / (2 * grid**2), 0), color=colour)
        for run in (r for r in runs if r.instance["penalty"] == penalty):
            ax.plot(run.data["sigma"], run.data["gains"], "o", color=colour)
        ax.text(
            2.12, 1 - penalty / 8.8, rf"$\lambda={penalty}$", color=colour, fontsize=8, va="center"
        )
    ax.set(
        title=r"Bounded $D,E$: gains $(1-\lambda/(2\sigma_i^2))_+$",
        xlabel=r"singular value $\sigma_i$ of the data",
        ylabel="gain",
    )
    ax.set_xlim(0.4, 2.5)


@lorae_scaling_degeneracy.panel
def _(ax, runs: Runs) -> None:
    X = np.diag([2.0, 1.5, 1.0, 0.6])
    net, c = low_rank_autoencoder(X, 4, penalty=1.0), np.geomspace(1, 30, 12)
    bare = low_rank_autoencoder(X, 4, penalty=0.0)
    for model, colour, label in (
        (net, COLOURS[0], "minimum of the bounded problem"),
        (bare, BROKEN, "perfect reconstruction"),
    ):
        terms = [
            autoencoder_objective(
                X, s * model.encoder, model.latent / s**2, s * model.decoder, penalty=1.0
            )
            for s in c
        ]
        ax.loglog(c, np.sum(terms, axis=1), "o", color=colour)
        ax.loglog(c, terms[0][0] + terms[0][1] / c**2, color=colour, label=label)
    ax.legend(fontsize=8)
    ax.set(
        title=r"$D,E$ free: any penalty is scaled away as $c^{-2}$",
        xlabel="scale c of encoder and decoder (log)",
    )
    ax.set_ylabel(r"objective, $\lambda=1$ (log)")


if __name__ == "__main__":
    run_script(__file__)
