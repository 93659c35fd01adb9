"""Small-start gradient descent climbs a staircase of best low-rank solutions.

The theorems of jin2023-understanding were not consulted: the exponents are derived in the module.
"""

from functools import cache

import numpy as np

from theorylab.matrix_sensing import (
    best_rank_solutions,
    gaussian_operator,
    incremental_law,
    population_visit,
    staircase,
)
from theorylab.verify import (
    Evidence,
    Int,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    equal,
    inconclusive,
    rate,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

SETTING = (
    r"For $f(U)=\frac14\|\mathcal A(UU^\top-M)\|^2$, $m$ Gaussian measurements, $M\succeq0$ of rank $r$ with distinct "
    r"eigenvalues, $Z_s$ the minimiser of rank $\leq s$, and descent from $U_0=\alpha\bar U$, $\bar U$ an $n\times k$ Gaussian, "
)
REDRAWN = r"(Operators whose nearly equal eigenvalues put the asymptotic range below $\alpha=10^{-15}$ are drawn again.)"
PROBLEM = {"n": 4, "eigenvalues": (3.0, 1.3, 0.5), "m": 300, "k": 4}
ALPHAS = tuple(np.geomspace(1e-4, 1e-15, 12))


STEP = 0.06


@cache
def problem(n, eigenvalues, m, k, seed, number):
    """Draw an operator and a start, with the best solutions and the predicted law.

    An operator whose eigenvalues nearly coincide is drawn again: at the visit of each Z_s the next singular value is alpha^c, c
    from the eigenvalues, and it must be below 1/100 at the least alpha for the asymptotic range to be reached.
    """
    rng, truth = (
        np.random.default_rng([seed, 1, number]),
        np.diag(np.append(eigenvalues, np.zeros(n - len(eigenvalues)))),
    )
    while True:
        operator, start = gaussian_operator(n, m, rng=rng), rng.standard_normal((n, k)) / np.sqrt(n)
        # Rotating the columns changes nothing but rounding: small singular values get columns of their own.
        top = np.linalg.eigh(operator.normal(truth))[1][:, ::-1]
        start = start @ np.linalg.qr(start.T @ top)[0]
        best = best_rank_solutions(truth, operator, max_rank=len(eigenvalues), rng=rng, starts=3)
        law = incremental_law(truth, operator, best, search_rank=k, step_size=STEP)
        if ALPHAS[-1] ** law.spare[: len(eigenvalues) - 1].min() < 0.01:
            return truth, operator, start, best, law


@cache
def visits(n, eigenvalues, m, k, operators, seed, columns=9):
    """Closest approaches D and their steps T for independent operators and starts, with the predicted law of each."""
    rows = []
    for number in range(operators):
        truth, operator, whole, best, law = problem(n, eigenvalues, m, k, seed, number)
        start = np.where(np.arange(k) < columns, whole, 0.0)
        last = np.flatnonzero(np.isfinite(law.times))[-1]
        rate_of_leaving = np.log1p(STEP * law.escape[last])
        runs = []
        for alpha in ALPHAS:  # until the last saddle has been left for certain, then as long again
            length = (1.2 * law.times[last] + 2 / rate_of_leaving) * np.log(1 / alpha)
            options = {"targets": best.solutions, "step_size": STEP, "steps": int(length)}
            runs.append(staircase(truth, operator, initial=alpha * start, **options))
        rows.append((law, [run.closest for run in runs], [run.visits for run in runs], best, runs))
    return rows


@claim(
    SETTING
    + r"$\min_t\|U_tU_t^\top-Z_s\|_F=\alpha^{e_s+o(1)}$ at times $(T_s+o(1))\log\frac1\alpha$, $T_1<T_2<\dots$, for every "
    r"$s<r\leq k$, with $e_s$ and $T_s$ from eigenvalues at $Z_1,\dots,Z_s$; and the distance to $Z_r=M$ decreases to 0. "
    + REDRAWN,
    sources=[
        "jin2023-understanding, main theorem",
        "jin2023-understanding, exponents derived here",
    ],
    origin="derived",
    kind="limit",
    cases={"quick": [PROBLEM | {"operators": 24}], "full": [PROBLEM | {"operators": 40}]},
    breaks={"start of rank one": {"columns": 1, "operators": 12}},
)
def gd_visits_best_rank_s_solutions(
    n, eigenvalues, m, k, operators, seed: int, columns=9
) -> Evidence:
    r = len(eigenvalues)
    rows = visits(n, eigenvalues, m, k, operators, seed, columns)
    inverse, parts = 1 / np.array(ALPHAS), []
    for s in range(r - 1):
        closest = np.array([np.array(D)[:, s] ** (1 / law.exponents[s]) for law, D, *_ in rows])
        steps = np.array([np.array(T)[:, s] / law.times[s] for law, _, T, *_ in rows])
        parts.append(rate(inverse, closest, -1.0, rival=0.0))
        parts.append(rate(np.log(inverse), np.exp(steps), 1.0, rival=0.0, scale="linear"))
    end = np.array([np.array(D)[:, -1] for _, D, *_ in rows])
    above = end[:, :-1] > 1e-10  # rounding of the descent
    parts.append(at_most(np.where(above, end[:, 1:], 0.0), end[:, :-1]))
    law, _, _, best, runs = rows[0]
    run = runs[len(runs) // 3]
    levels = [np.sort(np.linalg.eigvalsh(Z))[::-1][: s + 1] for s, Z in enumerate(best.solutions)]
    D = np.array([np.array(D)[:, : r - 1] for _, D, *_ in rows])
    e = np.array([law.exponents[: r - 1] for law, *_ in rows])
    data = {
        "alphas": np.array(ALPHAS),
        "run": run,
        "levels": levels,
        "closest": D,
        "exponents": e,
        "law": law,
    }
    return all_of(*parts, data=data)


@gd_visits_best_rank_s_solutions.panel
def _(ax, runs: Runs) -> None:
    data = runs[-1].data
    run = data["run"]
    end = (
        1.3
        * run.iterations[
            np.argmax(run.spectra[:, len(data["levels"]) - 1] > 0.99 * data["levels"][-1][-1])
        ]
    )
    t = np.append(0, np.minimum(run.visits, end))
    for s, level in enumerate(data["levels"]):
        for value in level:
            ax.hlines(
                value,
                (t[s] + t[s + 1]) / 2,
                min(1.25 * t[s + 1], t[-1]),
                color=BROKEN,
                linewidth=4,
                alpha=0.5,
            )
        ax.annotate(
            f"$Z_{s + 1}$",
            (0.97 * t[s + 1], level[0]),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    for j in range(len(data["levels"])):
        ax.plot(run.iterations, run.spectra[:, j], color=COLOURS[j])
    ax.set(
        xlabel="iteration", ylabel=r"eigenvalues of $U_tU_t^\top$", xlim=(0, end), ylim=(-0.1, 3.6)
    )
    ax.set_title("Eigenvalues climb to those of $Z_1,Z_2,Z_3$ (bars)")


@gd_visits_best_rank_s_solutions.panel
def _(ax, runs: Runs) -> None:
    run = runs[-1].data["run"]
    for s in range(run.distances.shape[1]):
        ax.semilogy(run.iterations, run.distances[:, s], color=COLOURS[s])
        ax.plot(run.visits[s], run.closest[s], "o", color=COLOURS[s])
        ax.annotate(
            f"$Z_{s + 1}$",
            (run.visits[s], run.closest[s]),
            (6, 2),
            textcoords="offset points",
            color=COLOURS[s],
        )
    ax.set(
        xlabel="iteration",
        ylabel=r"$\|U_tU_t^\top-Z_s\|_F$ (log)",
        ylim=(1e-8, 10),
        xlim=(0, 2.5 * run.visits[-2]),
    )
    ax.set_title("It passes the best solutions of rank 1, 2, 3 in turn")


@gd_visits_best_rank_s_solutions.panel
def _(ax, runs: Runs) -> None:
    data, broken = runs[-1].data, runs.controls["start of rank one"].data
    alpha = data["alphas"]
    for s in range(data["exponents"].shape[1]):
        scaled = np.log10(data["closest"][..., s]) / data["exponents"][:, None, s]
        scaled -= scaled[:, -1:] - np.log10(alpha[-1])
        mean, spread = scaled.mean(axis=0), scaled.std(axis=0)
        ax.errorbar(
            np.log10(alpha), mean + 2 * s, 2 * spread, fmt="o", color=COLOURS[s], markersize=3
        )
        ax.plot(np.log10(alpha), np.log10(alpha) + 2 * s, color=COLOURS[s])
        ax.annotate(
            f"$Z_{s + 1}$", (-3, -3 + 2 * s), (8, -2), textcoords="offset points", color=COLOURS[s]
        )
    bad = (np.log10(broken["closest"][..., 1]) / broken["exponents"][:, None, 1]).mean(axis=0)
    ax.plot(np.log10(alpha), bad - bad[-1] - 2, ".-", color=BROKEN)
    ax.annotate(
        "start of rank one: $Z_2$ is never visited", (-12.8, -0.8), color=BROKEN, fontsize=8
    )
    ax.set(xlabel=r"$\log_{10}\alpha$", ylabel=r"$\log_{10}$ (closest distance)$^{1/e_s}$, shifted")
    ax.set_title(
        r"Closest distance $\propto\alpha^{e_s}$, $e_s$ from eigenvalues at $Z_1,\dots,Z_s$"
    )


@claim(
    r"For gradient flow on $\frac14\|UU^\top-M\|_F^2$ with $U_0U_0^\top=\alpha^2I$, $M=\mathrm{diag}(\lambda_i)$ decreasing, "
    r"$\lambda=\lambda_s>\lambda'=\lambda_{s+1}>0$: $\min_t\|U_tU_t^\top-Z_s\|_F\sim "
    r"\lambda^{2p}(\lambda'/\lambda)^{(1-p)/2}\sqrt{1+\lambda/\lambda'}\,\alpha^{2(\lambda-\lambda')/(\lambda+\lambda')}$, "
    r"$p=\lambda'/(\lambda+\lambda')$.",
    sources=["jin2023-understanding, main theorem", "jin2023-understanding, exponent derived here"],
    origin="derived",
    kind="rate",
    cases=[
        {"eigenvalues": np.array(v), "stage": s}
        for v, s in (([1.0, 0.3], 1), ([3.0, 2.0, 1.0], 2), ([3.0, 2.0, 1.0], 1))
    ],
    breaks={"no gap": {"eigenvalues": np.array([3.0, 3.0, 1.0])}},
    shifts={"half the exponent": {"factor": 0.5}},
)
def population_exponent(eigenvalues, stage, seed: int, factor=1.0) -> Evidence:
    gapped = (
        np.sort(np.unique(np.append(eigenvalues, 2.0)))[::-1]
        if eigenvalues[stage - 1] == eigenvalues[stage]
        else eigenvalues
    )
    predicted = factor * population_visit(gapped, init_scale=1e-3, stage=stage).exponent
    alphas = np.geomspace(1e-4, 1e-30, 27)
    visit = [population_visit(eigenvalues, init_scale=a, stage=stage) for a in alphas]
    closest, leading = (
        np.array([getattr(v, name) for v in visit]) for name in ("distance", "leading")
    )
    small = [v.remainder < 0.05 for v in visit]
    data = {"alphas": alphas, "closest": closest, "leading": leading}
    slope = rate(1 / alphas, closest, -predicted, rival=-predicted / 2)
    if not any(small):
        return slope.with_data(**data)
    error = np.array([v.remainder for v in visit])[small] * leading[small] + 1e-9 * leading[small]
    constant = equal(
        closest[small],
        leading[small],
        error=error,
        source="the next order; the minimiser in t",
        data=data,
    )
    return all_of(slope, constant)


@population_exponent.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        ax.loglog(run.data["alphas"], run.data["leading"], color=colour)
        ax.loglog(
            run.data["alphas"][::2], run.data["closest"][::2], "o", color=colour, markersize=3
        )
        values = ", ".join(f"{v:g}" for v in run.instance["eigenvalues"])
        label = rf"$Z_{run.instance['stage']}$ of $\lambda$ = {values}"
        ax.annotate(
            label,
            (1e-30, run.data["leading"][-1]),
            (2, 22),
            textcoords="offset points",
            color=colour,
            fontsize=8,
        )
    broken = runs.controls["no gap"].data
    ax.loglog(broken["alphas"], broken["closest"], ".-", color=BROKEN)
    ax.annotate(r"$\lambda_1=\lambda_2$: no stage", (1e-30, 4), color=BROKEN, fontsize=8)
    ax.set(
        xlabel=r"size of the start $\alpha$ (log)",
        ylabel=r"$\min_t\|U_tU_t^\top-Z_s\|_F$ (log)",
        ylim=(None, 100),
    )
    ax.set_title(r"Population: exponent $2(\lambda_s-\lambda_{s+1})/(\lambda_s+\lambda_{s+1})$")


@claim(
    SETTING
    + r"$\min_t\|U_tU_t^\top-Z_1\|_F=\alpha^{e+o(1)}$ with $e=2(1-\frac{g_2}{g_1})\frac\mu{\mu+2\nu}$: $g_1>g_2$ the top "
    r"eigenvalues of $\mathcal A^*\mathcal A(M)$, $\mu$ the least Hessian eigenvalue of the rank-one problem at $Z_1$, $\nu$ the "
    r"top eigenvalue of $-\mathcal A^*\mathcal A(Z_1-M)$; at step size $\eta$, $\log(1+\eta g)$, $-\log(1-\eta\mu)$, "
    r"$\log(1+\eta\nu)$ replace them. " + REDRAWN,
    sources=["jin2023-understanding, exponent derived here"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [PROBLEM | {"operators": 24}],
        "full": [PROBLEM | {"operators": 40, "m": 100}, PROBLEM | {"operators": 40}],
    },
    breaks={"start of rank one": {"columns": 1, "operators": 12}},
    shifts={"the population exponent": {"formula": "population"}},
)
def sensing_exponent_first_stage(
    n, eigenvalues, m, k, operators, seed: int, columns=9, formula="derived"
) -> Evidence:
    rows = visits(n, eigenvalues, m, k, operators, seed, columns)
    population = np.array(
        [2 * law.spare[0] / (2 - law.spare[0]) for law, *_ in rows]
    )  # spare: 1 - g_2 / g_1
    predicted = (
        population if formula == "population" else np.array([law.exponents[0] for law, *_ in rows])
    )
    closest = np.array([np.array(D)[:, 0] for _, D, *_ in rows])
    return rate(1 / np.array(ALPHAS), closest ** (1 / predicted[:, None]), -1.0, rival=0.0)


@claim(
    SETTING
    + r"with $k<r$ columns: the descent from every small generic start converges to $Z_k$, not to another critical point.",
    sources=["jin2023-understanding, under-parameterised part"],
    origin="derived",
    kind="limit",
    cases={
        "quick": [{"n": 6, "eigenvalues": (3.0, 2.0, 1.0), "m": 120, "k": 2, "alpha": 1e-4}],
        "full": [
            {"n": 12, "eigenvalues": (3.0, 2.0, 1.0), "m": 1500, "k": k, "alpha": 1e-4}
            for k in (1, 2)
        ],
    },
    space={"n": Int(4, 7), "m": Int(150, 300), "k": Int(1, 2), "alpha": Real(1e-6, 1e-2, log=True)},
    breaks={"start of rank one": {"columns": 1}, "5 measurements": {"m": 5}},
)
def underparameterised_limit(
    n, m, k, alpha, seed: int, eigenvalues=(3.0, 2.0, 1.0), columns=9
) -> Evidence:
    rng = np.random.default_rng(seed)
    truth = np.diag(np.append(eigenvalues, np.zeros(n - len(eigenvalues))))
    start = rng.standard_normal((n, k))
    start[:, columns:] = 0
    operator, step_size = gaussian_operator(n, m, rng=rng), 0.02
    best = best_rank_solutions(truth, operator, max_rank=k, rng=rng)
    if m > n * (n + 1) // 2 and best.curvatures.min() <= 0.02:
        return inconclusive("the best solution is nearly degenerate")
    # Enough steps for k escapes and then a decay by 1e-10 at the slowest rate.
    steps = int(
        k * np.log(1 / alpha) / (0.2 * step_size)
        + 25 / (step_size * max(best.curvatures[-1], 0.02))
    )
    run = staircase(
        truth,
        operator,
        initial=alpha * start,
        targets=best.solutions,
        step_size=step_size,
        steps=steps,
    )
    Z = best.solutions[-1]
    data = {"run": run}
    return equal(
        run.U @ run.U.T,
        Z,
        error=1e-7 * np.linalg.norm(Z),
        source="rest of the decay",
        scale=np.linalg.norm(Z),
        data=data,
    )


@underparameterised_limit.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        r, k = run.data["run"], run.instance["k"]
        ax.semilogy(r.iterations, r.distances[:, -1], color=colour)
        ax.annotate(
            f"k = {k}: to $Z_{k}$", (1150 + 200 * k, 10.0 ** (-4 - 3 * k)), color=colour, fontsize=8
        )
    broken = runs.controls["start of rank one"].data["run"]
    ax.semilogy(broken.iterations, broken.distances[:, -1], color=BROKEN)
    ax.annotate("start of rank one", (1000, 3), color=BROKEN, fontsize=8)
    ax.set(
        xlabel="iteration",
        ylabel=r"$\|U_tU_t^\top-Z_k\|_F$ (log)",
        ylim=(1e-14, 30),
        xlim=(0, 2500),
    )
    ax.set_title("Fewer columns than the rank: the limit is the best solution")


if __name__ == "__main__":
    run_script(__file__)
