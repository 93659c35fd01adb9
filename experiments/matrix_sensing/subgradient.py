"""Subgradient descent from a small start sees through outliers and noise.

The theorems of ma2022-global were not consulted: locators are recalled, constants are derived in the module.
"""

import warnings
from functools import cache, lru_cache

import numpy as np
from scipy.stats import t as student

from theorylab.matrix_sensing import (
    GeometricSteps,
    SubgradientStatus,
    best_median_error,
    contaminate,
    first_order_error,
    gaussian_operator,
    l1_loss,
    sign_deviation,
    sign_scaling,
    spectral_start,
    subgradient_method,
)
from theorylab.matrix_sensing.operators import MeasurementOperator
from theorylab.verify import (
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    at_least,
    at_most,
    claim,
    equal,
    rate,
    sample_mean,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

OUTLIERS = {"fraction": 0.3, "spread": 100.0}
LAWS = ((0.7, 1.5, 0.0), (1.0, 0.0, 1.0), (0.4, 2.0, 3.0))  # p, mean and spread of the outliers
SETTING = (
    r"For $m$ Gaussian measurements of $M\succeq0$, $n\times n$ of rank $r$, a fraction $p$ hit by outliers independent of the "
    r"measurements, and $U\leftarrow U-\eta_0\rho^tQ_tU/\|Q_t\|$, $U\in\mathbb{R}^{n\times r'}$, from the spectral start of size "
    r"$\alpha$ with $\frac{\eta_0}{1-\rho}=1.3\log\frac1\alpha$, "
)


def matched(alpha: float, first: float = 0.25) -> GeometricSteps:
    """Steps whose sum is 1.3 log(1/alpha): the signal needs a little over log(1/alpha), and more lets spare directions grow."""
    return GeometricSteps(first, 1 - first / (1.3 * np.log(1 / alpha)))


@lru_cache(maxsize=32)
def instance(n, r, m, fraction, spread, seed):
    rng = np.random.default_rng([seed, 7])
    truth = np.diag(np.append(np.ones(r), np.zeros(n - r)))
    operator = gaussian_operator(n, m, rng=rng)
    noise = contaminate(m, outlier_fraction=fraction, spread=spread, rng=rng)
    return truth, operator, noise


def descend(n, r, m, k, alpha, seed, *, fraction, spread, last=1e-5, ratio=None, start=None):
    truth, operator, noise = instance(n, r, m, fraction, spread, seed)
    y, step = operator.forward(truth) + noise, matched(min(alpha, 1e-2))
    steps = int(np.log(last) / np.log(step.ratio))
    if start is None:
        start = spectral_start(operator, y, search_rank=k, init_scale=alpha)
    step = step if ratio is None else GeometricSteps(step.first, ratio)
    return subgradient_method(operator, y, initial=start, step=step, steps=steps, truth=truth)


# From the spectral start all search ranks follow nearly the same path: one drawn inside the other.
NESTED = (4.0, 2.5, 1.2)


def half_width(samples: np.ndarray) -> np.ndarray:
    """Half the Student interval of the mean over the first axis, at level 1e-6."""
    return (
        student.ppf(1 - 5e-7, len(samples) - 1)
        * samples.std(axis=0, ddof=1)
        / np.sqrt(len(samples))
    )


@claim(
    r"For $A$ with i.i.d. $N(0,1)$ entries and $s$ independent of $A$, zero with probability $1-p$ and of any law $P$ with "
    r"probability $p$: $\mathbb{E}[\mathrm{sign}(\langle A,X\rangle-s)A]=\varphi(X)X/\|X\|_F$, "
    r"$\varphi(X)=\sqrt{2/\pi}\,(1-p+p\,\mathbb{E}_Pe^{-s^2/2\|X\|_F^2})$. (Judged for $P=N(\mu,\tau^2)$ and point masses.)",
    sources=["ma2022-global, scaling function of Sign-RIP"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"d": 3, "norm": 1.0, "p": p, "mean": mu, "spread": tau} for p, mu, tau in LAWS],
        "full": [
            {"d": 4, "norm": norm, "p": p, "mean": mu, "spread": tau, "n_draws": 700_000}
            for norm in (0.5, 1.0, 3.0)
            for p, mu, tau in LAWS
        ],
    },
    space={
        "d": Int(1, 4),
        "norm": Real(0.3, 3.0),
        "p": Real(0.0, 0.9),
        "mean": Real(-3.0, 3.0),
        "spread": Real(0.0, 5.0),
    },
    breaks={"sparse entries of A": {"sparse": True}, "s depends on A": {"adversarial": True}},
    shifts={"outliers not counted": {"counted": 0.0}},
)
def sign_rip_expectation(
    d,
    norm,
    p,
    mean,
    spread,
    seed: int,
    n_draws=250_000,
    sparse=False,
    adversarial=False,
    counted=1.0,
) -> Evidence:
    rng = np.random.default_rng(seed)
    X = np.arange(1.0, d * d + 1).reshape(d, d)
    X *= norm / np.linalg.norm(X)
    A = rng.standard_normal((n_draws, d, d))
    if sparse:  # variance one, but not invariant under rotations
        A = np.sign(A) * (rng.random(A.shape) < 0.1) / np.sqrt(0.1)
    s = contaminate(n_draws, outlier_fraction=p, mean=mean, spread=spread, rng=rng) * np.sqrt(
        n_draws
    )
    if adversarial:
        s = np.where(A[:, 0, 0] > 0, s, 0.0)
    signed = np.sign(np.tensordot(A, X) - s)[:, None, None] * A
    phi = sign_scaling(norm, outlier_fraction=counted * p, mean=mean, spread=spread)
    along = (signed * X / norm).sum(axis=(1, 2))
    data = {"phi": along.mean(), "error": half_width(along)}
    return sample_mean(signed, phi * X / norm, data=data)


@sign_rip_expectation.panel
def _(ax, runs: Runs) -> None:
    norms = np.geomspace(0.3, 5, 100)
    for j, colour in enumerate(COLOURS[:3]):
        law = {name: runs[j].instance[name] for name in ("mean", "spread")}
        p = runs[j].instance["p"]
        ax.plot(norms, [sign_scaling(x, outlier_fraction=p, **law) for x in norms], color=colour)
        x, y, e = zip(
            *[(run.instance["norm"], run.data["phi"], run.data["error"]) for run in runs[j::3]],
            strict=True,
        )
        ax.errorbar(x, y, e, fmt="o", color=colour)
        what = (
            f"s = {law['mean']:g}"
            if law["spread"] == 0
            else f"$s\\sim N({law['mean']:g},{law['spread'] ** 2:g})$"
        )
        ax.annotate(
            f"p = {p:g}, {what}",
            ((1.15, 0.41), (0.31, 0.46), (0.31, 0.58))[j],
            color=colour,
            fontsize=8,
        )
    ax.set_xscale("log")
    ax.set_xticks([0.3, 1, 3], ["0.3", "1", "3"])
    ax.set_xticks([], minor=True)
    ax.set(
        xlabel=r"$\|X\|_F$ (log)", ylabel=r"$\varphi$: mean sign gradient along $X$", ylim=(0, 0.85)
    )
    ax.set_title("Whatever the outliers, the mean sign gradient points along the error")


@claim(
    r"For $m$ Gaussian measurements and noise independent of them, the Sign-RIP deviation over unit $X,Y$ of rank $\leq2k$, "
    r"$\sup\varphi^{-1}|\langle\frac1m\sum_i\mathrm{sign}(\langle A_i,X\rangle-s_i)A_i-\varphi X,Y\rangle|\sim Cm^{-1/2}$. "
    r"(The supremum over $Y$ is exact, that over $X$ is searched from below.)",
    sources=["ma2022-global, Sign-RIP theorem"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [{"n": 8, "k": 2, "fraction": 0.3, "repetitions": 95, "moves": 1}],
        "full": [{"n": 8, "k": k, "fraction": p} for k, p in ((2, 0.3), (1, 0.6), (1, 0.3))],
    },
    breaks={"outliers depend on the measurements": {"adversarial": True, "repetitions": 12}},
)
def sign_rip_uniform_rate(
    n, k, fraction, seed: int, spread=10.0, repetitions=120, moves=5, adversarial=False
) -> Evidence:
    M = 10 * 2 ** np.arange(10)
    phi = sign_scaling(1.0, outlier_fraction=fraction, spread=spread)
    found = np.empty((repetitions, M.size))
    for row, rng in zip(found, np.random.default_rng([seed, 3]).spawn(repetitions), strict=True):
        whole = gaussian_operator(n, M[-1], rng=rng).stacked * np.sqrt(M[-1])
        noise = contaminate(M[-1], outlier_fraction=fraction, spread=spread, rng=rng) * np.sqrt(
            M[-1]
        )
        if adversarial:
            noise = np.abs(noise) * np.sign(whole[:, 0])
        for j, m in enumerate(M):
            operator = MeasurementOperator(whole[:m] / np.sqrt(m), n, n, True)
            options = {"rank": 2 * k, "scaling": phi, "rng": rng, "starts": 1, "iterations": moves}
            row[j] = sign_deviation(operator, noise[:m], **options).found
    return rate(M, found, -0.5, rival=-0.25, data={"m": M, "found": found})


@sign_rip_uniform_rate.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        m, found = run.data["m"], run.data["found"]
        mean = np.exp(np.log(found).mean(axis=0))
        ax.loglog(m, mean[-1] * np.sqrt(m[-1] / m), color=colour)
        ax.errorbar(m, mean, half_width(found), fmt="o", color=colour, markersize=3)
        label = f"2k = {2 * run.instance['k']}, p = {run.instance['fraction']:g}"
        ax.annotate(
            label, (m[-1], mean[-1]), (6, -3), textcoords="offset points", color=colour, fontsize=8
        )
    broken = runs.controls["outliers depend on the measurements"].data
    ax.loglog(broken["m"], broken["found"].mean(axis=0), ".-", color=BROKEN)
    ax.annotate(
        "outliers depend on $A_i$", (400, 1.15 * broken["found"].mean()), color=BROKEN, fontsize=8
    )
    ax.set(xlabel="measurements $m$ (log)", ylabel="Sign-RIP deviation found (log)")
    ax.set_title("The Sign-RIP deviation decays like $m^{-1/2}$ (lines)")


@claim(
    SETTING
    + r"the least $m$ (of a geometric grid, nested samples) from which the path passes within 1 % of $M$ does not grow with "
    r"$r'$: the exponent $\log(m_n/m_r)/\log(n/r)$ between $r'=r$ and $r'=n$ is 0, not 1.",
    sources=["ma2022-global, main theorem for outliers"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [{"n": 8, "r": 1, "alpha": 1e-8, "repetitions": 20, "grid": 1.3}],
        "full": [
            {"n": n, "r": r, "alpha": 1e-12, "repetitions": 24, "grid": 1.2}
            for n, r in ((12, 2), (12, 1))
        ],
    },
    breaks={"large start": {"alpha": 0.3}},
    shifts={"m grows with r'": {"exponent": 1.0}},
    coarse="thresholds are read off a grid; the rival exponent is 1",
)
def sample_complexity_independent_of_search_rank(
    n, r, alpha, repetitions, grid, seed: int, exponent=0.0
) -> Evidence:
    ranks = sorted({r, (n + r) // 2, n})
    least = np.array(
        [
            [least_measurements(n, r, k, alpha, grid, 1000 * seed + j) for k in ranks]
            for j in range(repetitions)
        ]
    )
    exponents = np.log(least[:, -1] / least[:, 0]) / np.log(n / r)
    error = half_width(exponents) + np.log(grid) / np.log(n / r)
    data = {"least": least / (n * r), "ranks": ranks}
    source = "Student interval at level 1e-6; the grid of m"
    return equal(
        exponents.mean(),
        exponent,
        error=error,
        source=source,
        scale=1.0,
        grade=Grade.STATISTICAL,
        data=data,
    )


@cache
def least_measurements(n, r, k, alpha, grid, seed) -> float:
    """Bisect for the least size from which the first rows of one sample suffice; the next size of the grid if none does."""
    sizes = (n * r * grid ** np.arange(np.log(24) / np.log(grid))).astype(int)
    truth, whole, noise = instance(n, r, sizes[-1], *OUTLIERS.values(), seed)
    step, low, high = matched(min(alpha, 1e-2)), 0, sizes.size
    steps = int(np.log(1e-3) / np.log(step.ratio))
    while low < high:
        middle = (low + high) // 2
        m = int(sizes[middle])
        operator = MeasurementOperator(whole.stacked[:m] * np.sqrt(sizes[-1] / m), n, n, True)
        y = operator.forward(truth) + noise[:m] * np.sqrt(sizes[-1] / m)
        start = spectral_start(operator, y, search_rank=k, init_scale=alpha)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a miss is an answer here
            run = subgradient_method(
                operator, y, initial=start, step=step, steps=steps, truth=truth, tol=0.01
            )
        low, high = (low, middle) if run.status is SubgradientStatus.REACHED else (middle + 1, high)
    return float(sizes[low]) if low < sizes.size else float(sizes[-1] ** 2 / sizes[-2])


@sample_complexity_independent_of_search_rank.panel
def _(ax, runs: Runs) -> None:
    run = runs[-1]
    for j, (k, colour, width) in enumerate(zip(run.data["ranks"], COLOURS, NESTED, strict=False)):
        x = np.sort(run.data["least"][:, j])
        ax.step(
            np.append(x, 25),
            np.append(np.arange(1, x.size + 1) / x.size, 1),
            where="post",
            color=colour,
            linewidth=width,
        )
        ax.annotate(f"r' = {k}", (9, 0.5 - 0.1 * j), color=colour)
    x = np.sort(runs.controls["large start"].data["least"][:, -1])
    ax.step(
        np.append(x, 40),
        np.append(np.arange(1, x.size + 1) / x.size, 1),
        where="post",
        color=BROKEN,
    )
    ax.annotate("large start, r' = n:\nnot within the grid", (11.5, 0.08), color=BROKEN, fontsize=8)
    ax.set(
        xlabel="measurements, in multiples of $nr$",
        ylabel="share of instances recovered",
        xlim=(1, 25),
        ylim=(0, 1.05),
    )
    ax.set_title("The number of measurements needed does not grow with $r'$")


START_SIZES = np.geomspace(1e-1, 1e-7, 7)


@cache
def least_errors(n, r, m, k, repetitions, seed) -> np.ndarray:
    """Least error on the path for each instance (rows) and size of the start."""
    options = OUTLIERS | {"last": 1e-7}
    seeds = range(1000 * seed, 1000 * seed + repetitions)
    return np.array(
        [[descend(n, r, m, k, a, s, **options).errors.min() for a in START_SIZES] for s in seeds]
    )


@claim(
    SETTING
    + r"for $r=1$ and $m\geq40n$ the least error on the path falls as a positive power of $\alpha$ if $r'>r$, while $r'=r$ "
    r"leaves no dependence on $\alpha$ (both down to the accuracy of the last step).",
    sources=["ma2022-global, main theorem for outliers"],
    origin="derived",
    kind="limit",
    cases={
        "quick": [{"n": 4, "r": 1, "m": 160, "k": 4, "repetitions": 20}],
        "full": [{"n": 8, "r": 1, "m": 320, "k": k, "repetitions": 24} for k in (2, 8)],
    },
    breaks={"r' = r": lambda c: {"k": c["r"]}},
)
def small_init_error_floor(n, r, m, k, repetitions, seed: int) -> Evidence:
    alphas, least, known = (
        START_SIZES,
        least_errors(n, r, m, k, repetitions, seed),
        least_errors(n, r, m, r, repetitions, seed),
    )
    # A hundred times above the last step, 1e-7, the error is the work of the start alone.
    kept = least > 100 * 1e-7 if k > r else np.ones_like(least, bool)
    slopes = np.array(
        [
            np.polyfit(np.log(alphas[ok]), np.log(row[ok]), 1)[0]
            for row, ok in zip(least, kept, strict=True)
            if ok.sum() > 1
        ]
    )
    lower = slopes.mean() - half_width(slopes)
    flat = np.array([np.polyfit(np.log(alphas), np.log(row), 1)[0] for row in known])
    return all_of(
        at_least(lower, 0.0, grade=Grade.STATISTICAL),
        equal(
            flat.mean(),
            0.0,
            error=half_width(flat),
            source="Student interval at level 1e-6",
            scale=1.0,
            grade=Grade.STATISTICAL,
        ),
        data={"alphas": alphas, "least": least},
    )


@small_init_error_floor.panel
def _(ax, runs: Runs) -> None:
    curves = [
        (run.data, f"r' = {run.instance['k']}", c, w)
        for run, c, w in zip(runs, COLOURS, NESTED, strict=False)
    ]
    for data, label, colour, width in [
        *curves,
        (runs.controls["r' = r"].data, "r' = r", BROKEN, 1.5),
    ]:
        logs = np.log(data["least"])
        mean, half = np.exp(logs.mean(axis=0)), half_width(logs)
        bars = [mean - mean * np.exp(-half), mean * np.exp(half) - mean]
        ax.errorbar(
            data["alphas"],
            mean,
            bars,
            fmt="o-",
            color=colour,
            linewidth=width,
            elinewidth=width,
            markersize=2 * width,
        )
        shift = {"r' = 2": -6, "r' = 8": 6}.get(label, -3)
        ax.annotate(
            label,
            (data["alphas"][0], mean[0]),
            (6, shift),
            textcoords="offset points",
            color=colour,
        )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=r"size of the start $\alpha$ (log)",
        ylabel=r"$\min_t\|U_tU_t^\top-M\|_F$ (log)",
    )
    ax.set_title(r"The error floor falls as a power of $\alpha$; $r'=r$ has none")


@claim(
    r"For dense noise $N(0,\nu^2)$ on all of $m$ Gaussian measurements: some $U$ has $f(U)<f(U^*)$, yet the small-start path "
    r"with $r'=n$ ends at error $\sim\nu\sqrt{\frac\pi2D/m}$, $D=rn-\frac{r(r-1)}2$, that of least absolute deviations at known "
    r"rank: its difference from $\|\nu\sqrt{\pi/2}\,P_Tm^{-1/2}\mathcal A^*\mathrm{sign}(s)\|_F$, of that root mean square, is a "
    r"fraction of it that tends to 0 in the mean ($P_T$: tangent space of rank $r$ at $M$).",
    sources=["ma2022-global, theorem for Gaussian noise"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [{"n": 8, "r": 2, "sizes": (2400,), "alpha": 1e-2, "repetitions": 155}],
        "full": [
            {"n": n, "r": r, "sizes": (400, 1600, 6400), "alpha": 1e-4, "repetitions": 120}
            for n, r in ((6, 1), (8, 2))
        ],
    },
    breaks={"large start": {"start": 2.0, "repetitions": 40}},
)
def truth_not_global_optimum_still_recovered(
    n, r, sizes, alpha, repetitions, seed: int, nu=0.5, start=None
) -> Evidence:
    initial, dense = (
        None if start is None else start * np.eye(n),
        {"fraction": 1.0, "spread": nu, "last": 3e-2},
    )
    errors, predicted, losses = np.empty((3, repetitions, len(sizes)))
    for i, j in np.ndindex(errors.shape):
        label = 1000 * seed + i
        truth, operator, noise = instance(n, r, sizes[j], 1.0, nu, label)
        errors[i, j] = descend(n, r, sizes[j], n, alpha, label, **dense, start=initial).errors[-1]
        predicted[i, j] = np.linalg.norm(
            first_order_error(operator, noise, truth, rank=r, noise_spread=nu)
        )
        if i < 10:
            y = operator.forward(truth) + noise
            overfit = descend(n, r, sizes[j], n, alpha, label, **dense, start=0.7 * np.eye(n))
            losses[i, j] = overfit.losses.min() / l1_loss(operator, y, truth)
    law = np.array([best_median_error(nu, n=n, rank=r, n_measurements=m) for m in sizes])
    remainder = {
        "bias": sizes[-1] ** -0.5,
        "source": "squared remainder of the first-order form, of order m^(-1/2)",
    }
    # The first-order term is a control variate of the error.
    return all_of(
        sample_mean(1 + (errors - predicted)[:, -1] / law[-1], 1.0, **remainder),
        at_most(losses[:10], 1.0),
        data={"sizes": np.array(sizes), "errors": errors, "law": law},
    )


@truth_not_global_optimum_still_recovered.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        m, squares = run.data["sizes"], run.data["errors"] ** 2
        mean, half = (
            np.sqrt(squares.mean(axis=0)),
            half_width(squares) / (2 * np.sqrt(squares.mean(axis=0))),
        )
        ax.loglog(m, run.data["law"], color=colour)
        ax.errorbar(m, mean, half, fmt="o", color=colour)
        label = f"n = r' = {run.instance['n']}, r = {run.instance['r']}"
        ax.annotate(
            label, (m[-1], run.data["law"][-1]), (6, -3), textcoords="offset points", color=colour
        )
    broken = runs.controls["large start"].data
    ax.loglog(broken["sizes"], np.sqrt((broken["errors"] ** 2).mean(axis=0)), ".-", color=BROKEN)
    ax.annotate("large start: lower loss, larger error", (1000, 0.13), color=BROKEN, fontsize=8)
    ax.set_xticks(broken["sizes"], [str(m) for m in broken["sizes"]])
    ax.set_xticks([], minor=True)
    ax.set(xlabel="measurements $m$ (log)", ylabel="root mean square error (log)")
    ax.set_title(r"Dense noise: the path ends at $\nu\sqrt{\pi D/2m}$ with $D$ of the true rank")


@cache
def error_paths(n, r, m, k, alpha, ratio, repetitions, seed) -> np.ndarray:
    """Errors at every step (columns) for each instance."""
    options = OUTLIERS | {"last": 1e-8, "ratio": ratio}
    return np.array(
        [descend(n, r, m, k, alpha, 1000 * seed + j, **options).errors for j in range(repetitions)]
    )


@claim(
    SETTING
    + r"for $r=1$, $m\geq40n$ and $\sum_t\eta_0\rho^t=1.3\log(1/\alpha)$, $\|U_tU_t^\top-M\|_F$ decays like $\rho^t$ "
    r"once the signal is fitted, for every $r'\geq r$.",
    sources=["ma2022-global, main theorem for outliers"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [{"n": 6, "r": 1, "m": 240, "k": 6, "repetitions": 20, "alpha": 1e-14}],
        "full": [{"n": 12, "r": 1, "m": 480, "k": k, "repetitions": 24} for k in (1, 6, 12)],
    },
    breaks={"steps of constant length": {"ratio": 1.0}},
    shifts={"a rate 10 % faster": {"factor": 1.1}},
)
def linear_rate_of_geometric_steps(
    n, r, m, k, repetitions, seed: int, alpha=1e-20, ratio=None, factor=1.0
) -> Evidence:
    errors = error_paths(n, r, m, k, alpha, ratio, repetitions, seed)
    # From where every run is within 10 % of M, to the last step; a run that never is counts from the middle.
    inside = (errors < 0.1 * np.sqrt(r)).all(axis=0)
    entry = int(np.argmax(inside)) if inside.any() else errors.shape[1] // 2
    slope = factor * np.log(matched(alpha).ratio)
    # The errors oscillate at the size of a step: geometric means over blocks of 50 iterations.
    blocks = (errors.shape[1] - entry) // 50
    means = np.exp(np.log(errors[:, -50 * blocks :]).reshape(repetitions, blocks, 50).mean(axis=2))
    data = {"errors": errors, "slope": slope, "entry": entry}
    return rate(50.0 * np.arange(1, blocks + 1), means, slope, rival=0.0, scale="linear", data=data)


@linear_rate_of_geometric_steps.panel
def _(ax, runs: Runs) -> None:
    for run, colour, width in zip(runs, COLOURS, NESTED, strict=False):
        errors, entry = run.data["errors"], run.data["entry"]
        t = np.arange(0, errors.shape[1], 120)
        mean = np.exp(np.log(errors[:, t]).mean(axis=0))
        ax.semilogy(
            t, mean, "o", color=colour, markersize=2.2 * width, label=f"r' = {run.instance['k']}"
        )
        late = np.arange(entry, errors.shape[1])
        end = np.exp(np.log(errors[:, -1]).mean())
        ax.semilogy(late, end * np.exp(run.data["slope"] * (late - late[-1])), color=colour)
    broken = runs.controls["steps of constant length"].data["errors"]
    t = np.arange(0, broken.shape[1], 40)
    ax.semilogy(t, np.exp(np.log(broken[:, t]).mean(axis=0)), ".-", color=BROKEN)
    ax.annotate("steps of constant length", (t[-1], 0.45), color=BROKEN, ha="right", fontsize=8)
    ax.legend(frameon=False)
    ax.set(xlabel="iteration", ylabel=r"$\|U_tU_t^\top-M\|_F$ (log)")
    ax.set_title(r"The error follows the steps, $\rho^t$, whatever $r'$")


if __name__ == "__main__":
    run_script(__file__)
