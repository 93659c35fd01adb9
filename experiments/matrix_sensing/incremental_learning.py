"""Small-start gradient descent climbs a staircase of best low-rank solutions."""

import numpy as np

from theorylab.matrix_sensing import (
    best_rank_solutions,
    gaussian_operator,
    global_margin,
    incremental_law,
    population_visit,
    staircase,
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
    slope,
    space,
    theory,
    within,
)

sensing = paper(
    "jin2023-understanding",
    r"$f(U)=\frac14\|\mathcal A(UU^\top-M)\|^2$, $m$ Gaussian measurements, "
    r"$M\succeq0$ of rank $r$ "
    r"with distinct eigenvalues, $Z_s$ the minimiser of rank $\le s$; descent from "
    r"$U_0=\alpha\bar U$, "
    r"$\bar U$ an $n\times k$ Gaussian:",
)
population = paper(
    "jin2023-understanding",
    r"Gradient flow on $\frac14\|UU^\top-M\|_F^2$ from $U_0U_0^\top=\alpha^2I$, "
    r"$M=\mathrm{diag}(\lambda_i)$ decreasing:",
)
STEP = 0.025


def rates_above_rounding(run):
    """Steps and the rates after them at which the distance to the first target decays."""
    t, d = run.iterations, run.distances[:, 0]
    end = np.flatnonzero(d > 1e-11)[-1]
    return t[: end + 1], -np.diff(np.log(d[: end + 1])) / np.diff(t[: end + 1])


@simulation
def climb(n, eigenvalues, m, k, seed, number, columns, alphas):
    """Predicted exponents and times of the visits of Z_1, .., Z_r, per alpha the closest approaches
    and their steps, and how early those are for the slowest mode."""
    rng = np.random.default_rng([seed, number])
    truth = np.diag(np.append(eigenvalues, np.zeros(n - len(eigenvalues))))
    operator, start = gaussian_operator(n, m, rng=rng), rng.standard_normal((n, k)) / np.sqrt(n)
    # Rotating the columns changes nothing but rounding: small singular values get their own.
    top = np.linalg.eigh(operator.normal(truth))[1][:, ::-1]
    start = start @ np.linalg.qr(start.T @ top)[0]
    start = np.where(np.arange(k) < columns, start, 0.0)
    best = best_rank_solutions(truth, operator, max_rank=len(eigenvalues), rng=rng, starts=3)
    law = incremental_law(truth, operator, best, search_rank=k, step_size=STEP)
    # Until the last saddle has been left for certain and M approached, then a third more.
    leaving = np.log1p(STEP * law.escape[-2])
    arriving = -np.log1p(-STEP * law.approach[-1])
    length = 1.3 * (law.times[-2] + 1 / leaving + min(law.exponents[-1], 3.0) / arriving)
    rows = []
    for alpha in alphas:
        steps = int(length * np.log(1 / alpha))
        options = {"targets": best.solutions, "step_size": STEP, "steps": steps}
        run = staircase(truth, operator, initial=alpha * start, **options)
        rows.append((run.closest, run.visits))
    closest, visits = np.transpose(rows, (1, 0, 2))
    # How far the approach to all but M is from its slowest mode: without the columns that leave,
    # what its rate at the visit and the last one from anywhere near Z differ by, for the middle
    # alpha. From the start itself the slowest may have too small a part to be seen before rounding.
    middle, early = len(alphas) // 2, np.zeros(len(best.solutions))
    for s, Z in enumerate(best.solutions[:-1]):
        visit = int(visits[middle, s])
        options = {"targets": Z[None], "step_size": STEP, "steps": 3 * visit}
        run = staircase(truth, operator, initial=alphas[middle] * start[:, : s + 1], **options)
        t, rates = rates_above_rounding(run)
        near = run.U + 1e-3 * rng.standard_normal(run.U.shape)
        last = rates_above_rounding(staircase(truth, operator, initial=near, **options))[1][-1]
        found = rates[min(np.searchsorted(t, visit), rates.size - 1)]
        early[s] = abs(found - last) / max(min(found, last), 1e-6)
    # Later stages start from what the earlier ones leave.
    return law.exponents, law.times, closest, visits, np.maximum.accumulate(early)


def slopes(x, columns, scale="log", unit=1.0):
    """Enclose the local slopes of several columns of a record."""
    found = [slope(x, y, scale=scale) for y in columns]
    centre, error = (
        unit * np.array([getattr(f, name) for f in found]) for name in ("centre", "error")
    )
    return within(centre, error, "local slopes and their drift")


def visits(n, eigenvalues, m, k, seed, operators, columns, alphas, stages):
    """Measured and predicted powers and times of the visits of the given stages, operator by
    operator."""
    rows = [climb(n, eigenvalues, m, k, seed, j, columns, tuple(alphas)) for j in range(operators)]
    e, T, early = (np.concatenate([row[i][stages] for row in rows]) for i in (0, 1, 4))
    D, V = (np.concatenate([row[i].T[stages] for row in rows]) for i in (2, 3))
    # A power or a time moves by a smaller part of itself than the rate of the approach does.
    powers, times = (
        within(y.centre, y.error + early * np.abs(y.centre) + more, f"{y.source}{text}")
        for y, more, text in (
            (slopes(1 / alphas, D), 0.0, "; faster modes"),
            (
                slopes(np.log(1 / alphas), np.exp(V / 100), "linear", 100.0),
                4 / np.log(alphas[0] / alphas[-1]),  # a step more or less at each end of the half
                "; faster modes; whole steps",
            ),
        )
    )
    return powers, e, times, T


@sensing.abstract("a", "b", instance=True)
@cases(operators=2)
@full(operators=8)
@space(m=Int(1000, 2000), k=Int(3, 4), second=Real(1.2, 1.6))
@breaks("start of rank one", columns=1)
def gd_visits_best_rank_s_solutions(seed, n=4, second=1.3, m=1500, k=4, operators=1, columns=9):
    r"""$\min_t\|U_tU_t^\top-Z_s\|_F=\alpha^{e_s+o(1)}$ after $(T_s+o(1))\log\frac1\alpha$ steps,
    $T_1<T_2<\dots$, for every $s<r\le k$: $e_s=\mu_sw_s$, $T_s=\sum_{q<s}\tau_q+w_s$,
    $w_s=\frac{2c_{s1}}{\mu_s+2\nu_{s1}}$, $\tau_s=\frac{c_{s1}}{\nu_{s1}}$, $c_{0j}=1$,
    $c_{s+1,j}=c_{s,j+1}-\tau_s\nu_{s,j+1}$, with $\mu_s$ the least Hessian eigenvalue at $Z_s$ and
    $\nu_{sj}$ those of $-\mathcal A^*\mathcal A(Z_s-M)$ off its range, in order, each as a
    logarithm a step (eigenvalues of $M$: 3, ``second``, 0.5; two numbers for each operator)."""
    eigenvalues, stages = (3.0, second, 0.5), slice(0, 2)
    drawn = (n, eigenvalues, m, k, seed, operators, columns, np.geomspace(1e-5, 1e-14, 14), stages)
    powers, e, times, T = visits(*drawn)
    return {
        "distance": compare(powers, "==", -theory("exponents", e)),
        "time": compare(times, "==", theory("times", T)),
    }


@panel(
    gd_visits_best_rank_s_solutions,
    r"It passes $Z_1$ and $Z_2$ at distance $\alpha^{e_s}$, $e_s$ from eigenvalues there",
    x="operator and stage",
    y="power of $1/\\alpha$",
)
def _(pen, runs):
    part = runs.judgement.runs[0].parts["distance"]
    at = np.arange(part.centre.size) / 2
    for s in (0, 1):
        pen.theory(at[s::2], part.predicted[s::2], k=s)
        pen.points(at[s::2], part.centre[s::2], part.error[s::2], f"$Z_{s + 1}$", k=s)
    bad = runs.judgement.controls[0].run.parts["distance"]
    pen.broken(at[1::2], bad.centre[1::2], bad.error[1::2], "$Z_2$, start of rank one")


@panel(
    gd_visits_best_rank_s_solutions,
    r"after $T_s\log(1/\alpha)$ steps",
    x="operator and stage",
    y=r"steps per $\log(1/\alpha)$",
)
def _(pen, runs):
    part = runs.judgement.runs[0].parts["time"]
    at = np.arange(part.centre.size) / 2
    for s in (0, 1):
        pen.theory(at[s::2], part.predicted[s::2], k=s)
        pen.points(at[s::2], part.centre[s::2], part.error[s::2], f"$Z_{s + 1}$", k=s)


@sensing.abstract("a", "b", instance=True)
@cases(n=16, m=120)
@full(n=20, m=[140, 170])
@space(n=Int(8, 11), m=Int("5 * n", "n * (n + 1) // 2 + 4"))
@breaks("start of rank one", columns=1)
def incremental_learning_with_fewer_measurements_than_unknowns(n, m, seed, columns=99):
    r"""with $k=n$, $r=2$ and about as many measurements as the $n(n+1)/2$ unknowns or fewer, where
    other matrices fit the data too, the path passes $Z_1$ at a distance that falls at least like
    $\alpha^{1/10}$, and then $M$ at one that falls at least like $\alpha^{3/10}$
    (eigenvalues 4, 1)."""
    alphas, stages = np.geomspace(1e-3, 1e-10, 14), (slice(0, 1), slice(1, 2))
    seen = [visits(n, (4.0, 1.0), m, n, seed, 1, columns, alphas, at)[0] for at in stages]
    return {
        "M": compare(seen[1], "<=", -theory("power at M", 0.3)),
        "Z_1": compare(seen[0], "<=", -theory("power at Z_1", 0.1)),
    }


@sensing.ours("leading order in alpha, heuristic; derived", serves="a")
@cases(operators=3)
@full(operators=8, m=[1000, 2000])
@space(m=Int(1000, 2000), second=Real(1.2, 1.6))
@breaks("start of rank one", columns=1)
def sensing_exponent_first_stage(seed, n=4, second=1.3, m=1500, operators=1, columns=9):
    r"""$\min_t\|U_tU_t^\top-Z_1\|_F=\alpha^{e+o(1)}$, $e=2(1-\frac{g_2}{g_1})\frac\mu{\mu+2\nu}$:
    $g_1>g_2$ the top eigenvalues of $\mathcal A^*\mathcal A(M)$, $\mu$ the least Hessian eigenvalue
    of the rank-one problem at $Z_1$, $\nu$ the top eigenvalue of $-\mathcal A^*\mathcal A(Z_1-M)$
    (steps replace $g$, $\mu$, $\nu$ by $\log(1+\eta g)$, $-\log(1-\eta\mu)$,
    $\log(1+\eta\nu)$)."""
    alphas, stages = np.geomspace(1e-5, 1e-14, 14), slice(0, 1)
    drawn = (n, (3.0, second, 0.5), m, 4, seed, operators, columns, alphas, stages)
    powers, e, _, _ = visits(*drawn)
    return compare(powers, "==", -theory("e", e))


@population.ours("exponent and constant derived", serves="ab")
@cases(stage=[2, 1], ratio=0.4)
@full(stage=[1, 2], ratio=[0.2, 0.4, 0.6])
@space(stage=Int(1, 2), ratio=Real(0.1, 0.65), below=Real(0.1, 0.8))
@breaks("no gap", actual=1.0)
def population_exponent(stage, ratio, below=0.5, actual=None):
    r"""with $\lambda_s=1>\lambda_{s+1}=$ ``ratio`` $=\lambda'$ and $p=\lambda'/(1+\lambda')$,
    $\min_t\|U_tU_t^\top-Z_s\|_F\sim\lambda'^{(1-p)/2}\sqrt{1+1/\lambda'}\,
    \alpha^{2(1-\lambda')/(1+\lambda')}$."""
    second = ratio if actual is None else actual
    eigenvalues = np.array([2.0, 1.0, second, below * ratio])[2 - stage :]
    alphas = np.geomspace(1e-14, 1e-30, 14)
    seen = [population_visit(eigenvalues, init_scale=a, stage=stage) for a in alphas]
    closest, relative = (np.array([getattr(v, k) for v in seen]) for k in ("distance", "remainder"))
    exponent = theory("exponent", 2 * (1 - ratio) / (1 + ratio))
    constant = ratio ** (0.5 / (1 + ratio)) * np.sqrt(1 + 1 / ratio)
    error = (relative + 1e-9) * closest
    return {
        "distance": compare(
            within(closest, error, "the next order; the minimiser in t"),
            "==",
            theory("constant", constant) * alphas**exponent,
        ),
        "exponent": compare(slope(1 / alphas, closest), "==", -exponent),
    }


@panel(
    population_exponent,
    "Population: the power at the closest approach in closed form",
    x=r"$\lambda_{s+1}/\lambda_s$",
    y=r"power of $\alpha$",
)
def _(pen, runs):
    x = np.linspace(0.1, 0.7, 30)
    pen.theory(x, 2 * (1 - x) / (1 + x), "derived")
    for s in (1, 2):
        at, y, error = runs.measured("ratio", "exponent", where={"stage": s})
        pen.points(at, -y, error, f"$Z_{s}$", k=s)


@simulation
def settled(n, m, k, alpha, seed, columns):
    """The end of a descent with k columns, and the best solution of rank k, NaN unless proved."""
    rng = np.random.default_rng(seed)
    truth = np.diag(np.append((3.0, 1.0, 0.3), np.zeros(n - 3)))
    operator, start = gaussian_operator(n, m, rng=rng), rng.standard_normal((n, k))
    best = best_rank_solutions(truth, operator, max_rank=k, rng=rng)
    start = np.where(np.arange(k) < columns, start, 0.0)
    slow = STEP * max(best.curvatures[-1], 0.02)
    steps = int(k * np.log(1 / alpha) / (0.2 * STEP) + 25 / slow)
    options = {"targets": best.solutions, "step_size": STEP, "steps": steps}
    U = staircase(truth, operator, initial=alpha * start, **options).U
    proved = global_margin(truth, operator, best.factors[-1]) > 0
    return U @ U.T, best.solutions[-1] if proved else np.full((n, n), np.nan)


@sensing.abstract("c", instance=True)
@cases(n=5, m=600, k=[1, 2])
@full(n=8, m=1500, k=[1, 2])
@space(n=Int(4, 6), m=Int(600, 900), k=Int(1, 2), alpha=Real(1e-6, 1e-2, log=True))
@breaks("start of rank one", columns=1)
def underparameterised_limit(n, m, k, seed, alpha=1e-4, columns=9):
    r"""with $k<r$ columns the descent from a small start converges to $Z_k$ and not to another
    critical point ($Z_k$ proved the only minimiser of rank $\le k$; eigenvalues 3, 1,
    0.3)."""
    end, Z = settled(n, m, k, alpha, seed, columns)
    error = 1e-7 * np.linalg.norm(end)
    return compare(within(end, error, "rest of the decay"), "==", theory("Z_k", Z))


if __name__ == "__main__":
    from theorylab.verify.cli import run_script

    run_script(__file__)
