"""Low rank by training: truncating on the way, nuclear penalties, and what they are worth."""

import numpy as np
from scipy.optimize import minimize

from theorylab.matrix_sensing import (
    PruningStatus,
    autoencoder_objective,
    low_rank_autoencoder,
    nuclear_descent,
    pruning_metric,
    trained_rank_pruning,
    truncate,
    weighted_truncation,
)
from theorylab.verify import (
    Int,
    Real,
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

EPS = np.finfo(float).eps
pruning = paper(
    "xu2020-trained",
    r"Linear model $\|AW-Y\|_F^2$, $H=A^\top A\succ0$, $\hat W$ its least-squares solution, "
    r"$T_r$ truncation to rank $r$ (judged: rank 3 of $12\times8$, 60 samples):",
)
nuclear = paper(
    "xu2020-trained", r"$\frac12\|AW-Y\|_F^2+\lambda\|W\|_*$, $A^\top A=I$, $\lambda=.5$:"
)


@simulation
def regression(seed, noise, period, rank=3):
    """Design, response, least-squares solution, and the end of training with truncation."""
    rng, (n, d, q) = np.random.default_rng(seed), (60, 12, 8)
    A = rng.standard_normal((n, d)) * np.geomspace(1, 0.3, d)
    signal = rng.standard_normal((d, rank)) @ rng.standard_normal((rank, q))
    Y = A @ signal + noise * rng.standard_normal((n, q))
    step = 1 / np.linalg.norm(A, 2) ** 2
    run = trained_rank_pruning(A, Y, rank=rank, step_size=step, period=period)
    settled = run.status is PruningStatus.CONVERGED
    return A, Y, np.linalg.lstsq(A, Y, rcond=None)[0], step, run.weights, settled


@pruning.abstract("a", "b", instance=True)
@cases(period=[2, 10], noise=1.5)
@full(period=[1, 2, 3, 5, 10, 20, 40, 6], noise=1.5)
@space(period=Int(1, 30), noise=Real(0.3, 2.0))
@breaks("truncated half as often", lambda case: {"actual": 2 * case["period"]})
def rank_constrained_vs_posthoc(period, noise, seed, actual=None, rank=3):
    r"""truncation after training, $T_r\hat W=U_rU_r^\top\hat W$, loses at least $\|\Pi_{AU_r}A(\hat
    W-T_r\hat W)\|_F^2$ against the best rank $r$; from 0, $p$ steps of size $1/\|A\|^2$ and $T_r$
    in turn end, where that is a fixed point, at $Q_p^{-1/2}T_r(Q_p^{1/2}\hat W)$,
    $Q_p=I-(I-H/\|A\|^2)^p$: for $p=1$ the best."""
    A, Y, least, step, ends, settled = regression(seed, noise, actual or period)
    once = regression(seed, noise, 1)[4]

    def loss(W):
        return float(np.sum((A @ W - Y) ** 2))

    after = truncate(least, rank)
    basis = np.linalg.qr(A @ np.linalg.svd(after)[0][:, :rank])[0]
    gain = np.sum((basis.T @ A @ (least - after)) ** 2)
    # No matrix of rank r is closer to A W than the tail of its singular values (Eckart and Young).
    best = loss(least) + np.sum(np.linalg.svd(A @ least, compute_uv=False)[rank:] ** 2)
    metric = pruning_metric(A, step_size=step, period=period)
    limit = weighted_truncation(least, metric, rank)
    left_out = np.linalg.norm(metric @ (least - limit), 2)
    fixed = settled and left_out < np.linalg.svd(limit, compute_uv=False)[rank - 1]
    found = ends if fixed else np.full_like(ends, np.nan)  # outside the hypothesis
    rounding = "last change of 1e-12 in at most 10,000 rounds"
    return {
        "limit": compare(
            within(found, 1e-8 * np.linalg.norm(ends), rounding), "==", theory("limit", limit)
        ),
        "once": compare(within(loss(once) / best - 1, 1e-8, rounding), "==", theory("excess", 0.0)),
        "posthoc": compare(
            within(loss(after) / best - 1, 1e-12, "rounding"), ">=", theory("gain", gain / best)
        ),
    }


@panel(
    rank_constrained_vs_posthoc,
    "Truncation after training loses what is stated, or more",
    x="steps between truncations",
    y="excess loss over the best rank 3",
)
def _(pen, runs):
    pen.points(*runs.measured("period", "posthoc"), "truncated after training")
    pen.theory(*runs.predicted("period", "posthoc"), "stated")
    pen.points(*runs.measured("period", "once"), "truncated after every step", k=2)


@simulation
def nuclear_record(live, top, penalty, step, seed):
    """Singular values on the way, from a random start, on a design with orthonormal columns."""
    rng, sigma = (
        np.random.default_rng(seed),
        np.append(live, top * np.linspace(1, 0.2, 8 - len(live))),
    )
    A, U, V = (np.linalg.qr(rng.standard_normal(s))[0] for s in ((20, 12), (12, 8), (8, 8)))
    start = 0.3 * rng.standard_normal((12, 8))
    options = {"penalty": penalty, "step_size": step, "steps": int(60 / step)}
    return nuclear_descent(A, A @ (U * sigma) @ V.T, start, **options).singular_values


@nuclear.abstract("c", instance=True)
@cases(step=[0.1, 0.02])
@full(step=[0.1, 0.05, 0.02, 0.01, 0.005, 0.03])
@space(step=Real(0.02, 0.1), rank=Int(1, 6), share=Real(0.0, 0.8), gap=Real(0.15, 2.0))
@breaks("truncated at the level of rounding", cut=1e-13)
@breaks("no penalty", weight=0.0)
def nuclear_subgradient_and_truncation(
    step, seed, rank=3, share=0.6, gap=1.0, cut=None, weight=0.5, penalty=0.5
):
    r"""sub-gradient steps of size $\eta$ lead the singular values $\sigma_i>\lambda$ of $A^\top Y$,
    $i\le r$ (here $\lambda$ plus multiples of the gap), to $\sigma_i-\lambda$, as at the minimum;
    the others, the share of $\lambda$ or less, do not reach their 0, but fall below
    $\eta(\lambda+\sigma_{r+1})$: truncation at $2\eta\lambda<\sigma_r-\lambda$ finds the rank
    $r$."""
    live, top = penalty + gap * np.arange(rank, 0, -1.0), share * penalty
    record = nuclear_record(live, top, weight, step, seed)
    late = record[len(record) // 2 :]
    found = int((late[-1] > (2 * step * penalty if cut is None else cut)).sum())
    dead = within(late[:, rank].max(), 1e-10, "rounding")
    return {
        "rank": compare(found, "==", theory("rank", rank)),
        "live": compare(
            within(late[-1, :rank], 1e-10, "rounding"), "==", theory("live", live - penalty)
        ),
        "dead": compare(dead, "<=", theory("level", step * (penalty + top))),
    }


@panel(
    nuclear_subgradient_and_truncation,
    r"Dead singular values stay below $\eta(\lambda+\sigma_{r+1})$, not at 0",
    x=r"step $\eta$",
    y="largest dead singular value, late",
    log="xy",
)
def _(pen, runs):
    eta = np.geomspace(0.004, 0.12, 20)
    pen.theory(eta, 0.8 * eta, "bound")
    pen.points(*runs.measured("step", "dead"), "sub-gradient steps")


autoencoder = paper(
    "mazumder2023-learning",
    r"Linear autoencoder $\|X-DMEX\|_F^2+\lambda\|M\|_*$, $M\in\mathbb R^{k\times "
    r"k}$, $X$ with singular "
    r"values $\sigma_i$:",
)
DATA = (2.0, 1.5, 1.0, 0.6)


@simulation
def searched_autoencoder(width, penalty, seed):
    """Data; ends of three searches, as values; gains of the best; a random network's two terms."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((n, 4)))[0] for n in (4, 9))
    X = (U * DATA) @ V.T

    def objective(pq):
        # |N|_* is the least (|P|^2 + |Q|^2) / 2 over N = P Q': the same minimum over N = D M E.
        P, Q = pq.reshape(2, 4, width)
        R = (P @ (Q.T @ X) - X) @ X.T
        gradient = np.stack([2 * R @ Q + penalty * P, 2 * R.T @ P + penalty * Q])
        return np.sum((X - P @ (Q.T @ X)) ** 2) + penalty / 2 * np.sum(pq**2), gradient.ravel()

    options = {"gtol": 1e-10, "ftol": 1e-16, "maxiter": 3000}
    starts = rng.standard_normal((3, 8 * width))
    runs = [minimize(objective, w, jac=True, method="L-BFGS-B", options=options) for w in starts]
    P, Q = min(runs, key=lambda run: run.fun).x.reshape(2, 4, width)
    gains = np.linalg.svd(P @ Q.T, compute_uv=False)[:width]
    return X, np.array([run.fun for run in runs]), gains


@autoencoder.abstract("a", instance=True)
@cases(penalty=[0.5, 1.0], width=[4, 2])
@full(penalty=[0.1, 0.5, 2.0, 1.0], width=[4, 2])
@space(penalty=Real(0.05, 3.0), width=Int(1, 4))
@breaks("encoder and decoder free to grow", grow=3.0)
def lorae_scaling_degeneracy(penalty, width, seed, grow=1.0, scales=(1.0, 2.0, 10.0, 30.0)):
    r"""$(cD,c^{-2}M,cE)$ leaves the first term and multiplies the penalty by $c^{-2}$, so that it
    can be scaled away; with $D^\top D=EE^\top=I$ the minimum has $DME$ symmetric, on the leading
    left singular vectors of $X$, with eigenvalues $(1-\lambda/(2\sigma_i^2))_+$, $i\le k$."""
    X, values, found = searched_autoencoder(width, penalty, seed)
    net, c = low_rank_autoencoder(X, width, penalty=penalty), np.array(scales)
    mixed = np.random.default_rng(seed).standard_normal((width, width))

    def terms(latent, a):
        point = (a * net.encoder, latent / a**2, a * net.decoder)
        return autoencoder_objective(X, *point, penalty=penalty)

    fit, cost = np.array([terms(mixed, a) for a in scales]).T
    attained = sum(terms(net.latent, grow))
    least, stated = theory("minimum", net.value), theory("gains", net.gains)
    # An excess e of the value moves sigma times a gain by at most its root.
    e = 1e-12 * float(np.sum(np.square(DATA)))
    return {
        "gains": compare(
            within(np.sort(found), np.sqrt(e) / DATA[-1], "root of the search's rounding"),
            "==",
            np.sort(stated),
        ),
        "attained": compare(within(attained, e, "rounding"), "==", least),
        "never below": compare(within(values.min(), e, "rounding"), ">=", least),
        "fit": compare(within(fit / fit[0], 1e-11, "rounding"), "==", theory("fit", 1.0)),
        "penalty": compare(
            within(np.log(cost[1:] / cost[0]) / np.log(c[1:]), 1e-11, "rounding"),
            "==",
            -theory("power", 2.0),
        ),
    }


@panel(
    lorae_scaling_degeneracy,
    r"Bounded encoder and decoder: each gain is $(1-\lambda/2\sigma_i^2)_+$",
    x=r"$\lambda$",
    y="gains, $k=4$",
)
def _(pen, runs):
    lam = np.linspace(0, 2.1, 100)
    for i, sigma in enumerate(DATA[::-1]):
        pen.theory(lam, np.maximum(1 - lam / (2 * sigma**2), 0), k=i)
        points = runs.measured("penalty", index=i, where={"width": 4})
        pen.points(*points, rf"$\sigma_i={sigma}$", k=i)


@autoencoder.ours("derived: our reading of a tighter error bound, text unseen", serves="b")
@cases(share=[0.2, 0.7])
@full(share=[0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 0.6])
@space(share=Real(0.02, 0.95), noise=Real(0.05, 0.6), rank=Int(1, 4))
@breaks("no noise", actual=0.0)
@breaks("penalty beyond 4 s^2", share=1.2)
def shrinkage_never_hurts_noisy_reconstruction(share, seed, noise=0.4, rank=3, actual=None):
    r"""with orthonormal $D,E$ and $XX^\top=C+s^2I$, $C$ of rank $k$ with eigenvalues at least
    $s^2$, the expected error $\operatorname E\|DME(x+e)-x\|^2$ on clean data ($x$ of covariance
    $C$, noise $e$ of variance $s^2$ a coordinate) falls by $(\lambda
    s^2-\frac14\lambda^2)\sum_{i\le k}\sigma_i^{-2}$ while $\lambda\le2\sigma_k^2$: a penalty helps
    iff $0<\lambda<4s^2$, and $\lambda=2s^2$ gives the least error of any linear map."""
    s = noise if actual is None else actual
    penalty, n = 4 * share * noise**2, 6
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((m, n)))[0] for m in (n, 9))
    clean = np.append(np.array(DATA[:rank]) ** 2, np.zeros(n - rank))
    X, C = (U * np.sqrt(clean + s**2)) @ V.T, (U * clean) @ U.T

    def risk(weight):
        net = low_rank_autoencoder(X, rank, penalty=weight)
        T = net.decoder @ net.latent @ net.encoder
        return np.trace((T - np.eye(n)) @ C @ (T - np.eye(n)).T) + s**2 * np.sum(T**2)

    size = rank * noise**2
    gained = within((risk(0.0) - risk(penalty)) / size, 1e-11, "rounding")
    wiener = np.trace(C - C @ np.linalg.solve(C + noise**2 * np.eye(n), C))
    inverse = np.sum(1 / (clean[:rank] + s**2)) / size
    first, second = theory("s^2", s**2), theory("curvature", penalty / 4)
    return {
        "gain": compare(gained, "==", penalty * (first - second) * inverse),
        "helps": compare(gained, ">", 0.0),
        "best": compare(
            within(risk(2 * s**2) / wiener - 1, 1e-11, "rounding"), "==", theory("excess", 0.0)
        ),
    }


@panel(
    shrinkage_never_hurts_noisy_reconstruction,
    r"On noisy data a nuclear penalty helps as long as $\lambda<4s^2$",
    x=r"$\lambda/4s^2$",
    y="part of the error that is saved",
)
def _(pen, runs):
    share, s2 = np.linspace(0, 1.25, 60), 0.16
    inverse = sum(1 / (v**2 + s2) for v in DATA[:3]) / 3
    pen.theory(share, 4 * s2 * (share - share**2) * inverse)
    pen.points(*runs.measured("share"), "linear autoencoder")
    pen.broken(*runs.measured("share", control="no noise"), "no noise")
    pen.broken(*runs.measured("share", control="penalty beyond 4 s^2"), "beyond")


if __name__ == "__main__":
    run_script(__file__)
