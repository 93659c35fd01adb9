"""Least-squares temporal differences with random features: limits of the Bellman errors."""

import numpy as np

from theorylab import random_features as rf
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    mean,
    panel,
    paper,
    simulation,
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

STATES = 24
SIZES = (1, 4)
lstd = paper(
    "brellmann2024-double",
    r"LSTD with $N$ features $\operatorname{erf}(w_i^\top s)$, ridge $\lambda$, transitions of $m$ "
    r"visited states with exact rows and stationary weights: columns $\sqrt{\pi_s}e_s$ of $U$, "
    r"$\sqrt{\pi_s}(e_s-\gamma P_s)$ of $A$, $\hat r=\sqrt{\pi_s}r_s$; kernel $\Phi$, "
    r"$Q=[\frac1mA^\top F^\top FU+\lambda]^{-1}$, $\bar Q=[cA^\top\Phi U+\lambda]^{-1}$, "
    r"$c=\frac N{m(1+\delta)}$, $\delta=\frac1m\operatorname{tr}(\Phi U\bar QA^\top)$, "
    r"$g=\frac c{m(1+\delta)}\operatorname{tr}(A^\top\Phi A\bar Q^\top U^\top\Phi U\bar Q)<1$. "
    r"Up to an error of order $1/m$ (judged at $m$ and $4m$: copies of one chain in orthogonal "
    r"subspaces, ridge divided by their number):",
)


def instance(copies, visited, discount, seed):
    """Copies of a chain, of which the first states are visited, and the kernel."""
    chain = rf.random_reward_process(STATES, dimension=12, seed=seed)
    process = rf.repeat_process(chain, copies)
    seen = (STATES * np.arange(copies)[:, None] + np.arange(visited)).ravel()
    data = rf.exact_transitions(process, seen, discount=discount)
    return data, rf.feature_kernel(process.points)


def features(points, N, repeats, rng):
    """N features, of which each independent one comes several times."""
    F = rf.random_features(points, -(-N // repeats), rng=rng)
    return np.repeat(F, repeats, axis=0)[:N]


@simulation
def residuals(copies, N, visited, discount, ridge, repeats, draws, seed):
    """Empirical and true residuals over independent features, (draws, ...) each."""
    data, _ = instance(copies, visited, discount, seed)
    values = rf.simulate_values(
        data,
        lambda rng: features(data.process.points, N * copies, repeats, rng),
        ridge=ridge / copies,
        n_draws=draws,
        rng=np.random.default_rng([seed, copies, N]),
    )
    return data.rewards - values @ data.differences, data.true_rewards - values @ data.true_map.T


@simulation
def resolvents(copies, N, visited, discount, ridge, repeats, draws, seed):
    """Traces and bilinear forms of the resolvent that have limits, (draws, 2)."""
    data, kernel = instance(copies, visited, discount, seed)
    rng, rows = np.random.default_rng([seed, copies, N, 1]), []
    for _ in range(draws):
        F = features(data.process.points, N * copies, repeats, rng)
        Q = rf.lstd_resolvent(data, F, ridge=ridge / copies)
        trace = np.sum((kernel @ data.states @ Q) * data.differences) / data.visited
        rows.append((trace, ridge / copies * (data.rewards @ Q @ data.rewards)))
    return np.array(rows)


def extrapolated(small, large):
    """Mean at infinite size of what was sampled at sizes 1 and 4, without its 1/m term."""
    samples = (4 * large - small) / 3
    gap = np.abs(large.mean(axis=0) - small.mean(axis=0)) / 3
    return mean(samples, bias=gap, source="a 1/m^2 term as large as that in 1/m")


def moments(errors):
    """Per draw: squared norm, its part from the mean, and its part from the variance.

    The squared norm of a mean is estimated by the products of different draws, and the scatter of
    that estimate by its pseudo-values, leaving one draw out.
    """
    n, total = len(errors), np.sum(errors**2, axis=1)
    centre = errors.mean(axis=0)
    products = (n * errors @ centre - total) / (n - 1)
    main = (2 * (n - 1) * products - n * products.mean()) / (n - 2)
    return total, main, n / (n - 1) * np.sum((errors - centre) ** 2, axis=1)


def naive(transitions, kernel, *, n_features, ridge):
    """Formula of the mean kernel: infinitely many features at the same ridge for each."""
    return rf.bellman_error_limits(
        transitions, kernel, n_features=10**6 * n_features, ridge=1e6 * ridge
    )


@lstd.abstract("b", instance=True)
@cases(N=[8, 16], draws=300)
@full(N=[4, 8, 12, 16, 24, 40], draws=300)
@space(
    N=Int(8, 32),
    visited=Int(10, 20),
    discount=Real(0.0, 0.95),
    ridge=Real(0.01, 0.3, log=True),
)
@breaks("each feature drawn four times", repeats=4)
@breaks("formula of the mean kernel", formula=naive)
def lstd_resolvent_deterministic(
    N,
    seed,
    visited=16,
    discount=0.9,
    ridge=0.02,
    repeats=1,
    draws=60,
    formula=rf.bellman_error_limits,
):
    r"""$\frac1m\operatorname{tr}(\Phi UQA^\top)\to\delta$ and
    $\lambda\hat r^\top Q\hat r\to\lambda\hat r^\top\bar Q\hat r$ on average."""
    size = (N, visited, discount, ridge, repeats, draws, seed)
    measured = [resolvents(copies, *size) for copies in SIZES]
    data, kernel = instance(1, visited, discount, seed)
    limit = formula(data, kernel, n_features=N, ridge=ridge)
    form = ridge * (data.rewards @ limit.resolvent @ data.rewards)
    trace, bilinear = (extrapolated(*(run[:, i] for run in measured)) for i in (0, 1))
    return {
        "form": compare(bilinear, "==", theory("form", form)),
        "trace": compare(trace, "==", theory("delta", limit.delta)),
    }


def judged(which, N, visited, discount, ridge, repeats, draws, formula, seed):
    """Parts for one of the two Bellman errors: total, and its two terms."""
    size = (N, visited, discount, ridge, repeats, draws, seed)
    found = [moments(residuals(copies, *size)[which]) for copies in SIZES]
    total, main, variance = (extrapolated(*pair) for pair in zip(*found, strict=True))
    limit = formula(*instance(1, visited, discount, seed), n_features=N, ridge=ridge)
    name = ("empirical", "true")[which]
    correction = getattr(limit, f"{name}_correction")
    mean_part = theory("mean part", getattr(limit, name) - correction)
    correction = theory("correction", correction)
    return {
        name: compare(total, "==", mean_part + correction),
        "mean": compare(main, "==", mean_part),
        "variance": compare(variance, "==", correction),
    }


@panel(
    lstd_resolvent_deterministic,
    "A trace of the resolvent, and its limit",
    x="features / visited states $N/m$",
    y=r"$\frac{1}{m}\,\mathrm{tr}(\Phi UQA^\top)$",
)
def _(pen, runs):
    N, problem = np.arange(4, 41), instance(1, 16, 0.9, runs.judgement.seed)
    found = [rf.bellman_error_limits(*problem, n_features=int(n), ridge=0.02) for n in N]
    pen.theory(N / 16, [f.delta for f in found], r"$\delta$")
    x, y, error = runs.measured("N", "trace")
    pen.points(x / 16, y, error)
    x, y, error = runs.measured("N", "trace", control="each feature drawn four times")
    pen.broken(x / 16, y, error, "each four times")


@lstd.abstract("b", instance=True)
@cases(N=16, discount=0.9, ridge=0.02, draws=2000)
@full(N=[4, 8, 12, 24, 40, 16], discount=0.9, ridge=0.02, draws=2000)
@space(
    N=Int(8, 32),
    visited=Int(10, 20),
    discount=Real(0.0, 0.9),
    ridge=Real(0.02, 0.3, log=True),
)
@breaks("each feature drawn four times", repeats=4, draws=500)
@breaks("formula of the mean kernel", formula=naive)
def lstd_empirical_msbe_limit(
    N,
    seed,
    visited=16,
    discount=0.9,
    ridge=0.02,
    repeats=1,
    draws=100,
    formula=rf.bellman_error_limits,
):
    r"""the mean of the empirical error $\lambda^2\|Q\hat r\|^2$ tends to
    $\lambda^2\|\bar Q\hat r\|^2+\frac{c\,\tau}{1+\delta}\hat r^\top\bar Q^\top U^\top\Phi U\bar
    Q\hat r$, $\tau=\frac{\lambda^2\operatorname{tr}(\bar Q^\top\bar QA^\top\Phi A)}{m(1-g)}$; the
    second term is the variance of the residual."""
    return judged(0, N, visited, discount, ridge, repeats, draws, formula, seed)


@panel(
    lstd_empirical_msbe_limit,
    "The empirical Bellman error: a mean and a variance",
    x="features / visited states $N/m$",
    y="empirical Bellman error",
    log="xy",
)
def _(pen, runs):
    terms_of(pen, runs, "empirical")


def terms_of(pen, runs, name):
    """Draw the two terms and their sum, of the last case's process and ridge."""
    case = runs.judgement.runs[-1].instance
    problem = instance(1, 16, case["discount"], runs.judgement.seed)
    N = np.unique(np.geomspace(4, 40, 30).astype(int))
    found = [rf.bellman_error_limits(*problem, n_features=int(n), ridge=case["ridge"]) for n in N]
    total, spread = (
        np.array([getattr(f, word) for f in found]) for word in (name, f"{name}_correction")
    )
    curves = {name: total, "mean": total - spread, "variance": spread}
    for k, (part, curve) in enumerate(curves.items()):
        pen.theory(N / 16, curve, part if k else "total", k=k)
        x, y, error = runs.measured("N", part)
        pen.points(x / 16, y, error, k=k)
    x, y, error = runs.measured("N", name, control="each feature drawn four times")
    pen.broken(x / 16, y, error, "each four times")


@lstd.abstract("a", "b", "c", instance=True)
@cases(N=16, discount=0.5, ridge=0.02, draws=2000)
@full(N=[4, 8, 12, 24, 16], discount=0.5, ridge=2e-3, draws=3500)
@space(
    N=Int(8, 32),
    visited=Int(10, 20),
    discount=Real(0.0, 0.6),
    ridge=Real(0.02, 0.3, log=True),
)
@breaks("each feature drawn four times", repeats=4, draws=500)
@breaks("formula of the mean kernel", formula=naive)
@breaks("all states visited", visited=STATES, draws=200)
@breaks("the share at a large ridge", small=(1.0,))
def lstd_true_msbe_double_descent(
    N,
    seed,
    visited=16,
    discount=0.5,
    ridge=0.02,
    repeats=1,
    draws=100,
    formula=rf.bellman_error_limits,
    small=(1e-4, 1e-5, 1e-6),
):
    r"""the mean of the true error $\|D_\pi^{1/2}(\bar r-(I-\gamma P)v)\|^2$ of the values $v$ tends
    to that of $\bar v=c\Phi U\bar Q\hat r$ plus $\Delta=\frac{c\,\tau'}{1+\delta}\hat r^\top\bar
    Q^\top U^\top\Phi U\bar Q\hat r$, $\tau'=\frac{\operatorname{tr}(CE\Phi E^\top
    C^\top)}{m(1-g)}$, $C=D_\pi^{1/2}(I-\gamma P)$, $E=I-c\Phi U\bar QA^\top$; $\Delta$ is the
    variance of $Cv$. If at least a sixth of the states is unvisited, there is a double descent: at
    $\lambda=10^{-10}$ (divided by the copies) the geometric mean of the error is larger at $N=m$
    than at $m/2$ and $2m$, and so is the share of $\Delta$, at the least $\lambda$ of $10^{-4}$,
    $10^{-5}$, $10^{-6}$ for which $g<1$ at these $N$."""
    beside = [visited // 2, visited, 2 * visited]
    few = min(draws, 100)
    runs = [residuals(4, n, visited, discount, 1e-10, repeats, few, seed)[1] for n in beside]
    logs = np.log([np.sum(run**2, axis=1) for run in runs])
    problem = instance(1, visited, discount, seed)
    low, at, high = np.full(3, np.nan)
    for least in small:
        alone = [rf.bellman_error_limits(*problem, n_features=n, ridge=least) for n in beside]
        shares = [limit.true_correction / limit.true for limit in alone]
        low, at, high = shares if np.isfinite(shares).all() else (low, at, high)
    return {
        **judged(1, N, visited, discount, ridge, repeats, draws, formula, seed),
        "peak": compare(mean((logs[1] - logs[::2]).T), ">", theory("flat", 0.0)),
        "share": compare(within(at, 1e-9 * at, "rounding"), ">=", theory("beside", max(low, high))),
    }


@panel(
    lstd_true_msbe_double_descent,
    "Double descent of the true Bellman error: a peak of its variance",
    x="features / visited states $N/m$",
    y="true Bellman error",
    log="xy",
)
def _(pen, runs):
    case = runs.judgement.runs[-1].instance
    problem = instance(1, 16, case["discount"], runs.judgement.seed)
    N = np.arange(4, 41)
    found = [rf.bellman_error_limits(*problem, n_features=int(n), ridge=1e-4).true for n in N]
    pen.theory(N / 16, found, r"total, $\lambda=10^{-4}$", k=3)
    terms_of(pen, runs, "true")


@lstd.ours("made precise: the peak goes, the rest of the variance at N < m stays", serves="d")
@cases(N=24, discount=[0.5, 0.9])
@space(N=Int(8, 48), discount=Real(0.0, 0.9))
@breaks("one state unvisited", visited=STATES - 1)
@breaks("a third of the states unvisited", visited=16, draws=150)
def lstd_correction_vanishes(N, discount, seed, visited=STATES, draws=40):
    r"""(here for one chain) the variance $\Delta$ of $Cv$ falls as $\lambda^{-2}$ for large
    $\lambda$. If all states are visited, the true error is the empirical one, for every draw, it
    vanishes as $\lambda^2$ for $\lambda\to0$ and $N=2m$, and has no peak at $N=m$: at
    $\lambda=10^{-8}$ its geometric mean decreases from $N=m/2$ to $m$ and to $2m$."""
    large, small = np.geomspace(10, 1e4, 13), np.geomspace(1e-10, 1e-7, 13)

    def errors(n, ridge, seen=visited):
        return residuals(1, n, seen, discount, ridge, 1, draws, seed)

    variance = np.stack([moments(errors(N, ridge, 16)[1])[2] for ridge in large], axis=1)
    vanishing = np.stack(
        [np.sum(errors(2 * STATES, ridge)[1] ** 2, axis=1) for ridge in small], axis=1
    )
    empirical, true = (np.sum(e**2, axis=1) for e in errors(N, 0.02))
    sizes = (visited // 2, visited, 2 * visited)
    logs = np.log([np.sum(errors(n, 1e-8)[1] ** 2, axis=1) for n in sizes])
    return {
        "ridge": compare(slope(large, variance), "==", theory("exponent", -2.0)),
        "same": compare(within(true / empirical, 1e-9, "rounding"), "==", theory("quotient", 1.0)),
        "vanishing": compare(slope(small, vanishing), "==", theory("all visited", 2.0)),
        "no peak": compare(mean(-np.diff(logs, axis=0).T), ">", theory("flat", 0.0)),
    }


if __name__ == "__main__":
    run_script(__file__)
