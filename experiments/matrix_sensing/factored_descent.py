"""Gradient descent on low-rank factors: what spare columns cost.

The text of xiong2023-over was not consulted: the locators are recalled, and every statement below is derived in the module.
"""

import numpy as np

from theorylab.matrix_sensing import (
    DescentStatus,
    EntryStatus,
    asymmetric_gradient_descent,
    error_law,
    gaussian_operator,
    gradient_descent,
    late_rate,
    limit_modes,
    rebalance,
    rebalanced_slowest_bounds,
    sensing_limit,
    small_start_slowest,
)
from theorylab.verify import (
    Evidence,
    Int,
    Real,
    Runs,
    all_of,
    claim,
    equal,
    inconclusive,
    limit,
    rate,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

LONGEST = 600_000  # steps; an instance that needs more is inconclusive
TRUTH = {"r": 2, "low": 0.6}
SIZE = {"n": 12} | TRUTH
SYMMETRIC = (
    r"For $X_{t+1}=X_t-\eta(X_tX_t^\top-M)X_t$, small $\eta$, $M\succeq0$ of rank $r<\min(k,n)$, $X_0\in\mathbb{R}^{n\times k}$ "
    r"Gaussian, "
)
ASYMMETRIC = (
    r"For $F\leftarrow F-\eta EG$, $G\leftarrow G-\eta E^\top F$, $E=FG^\top-M$, small $\eta$, $M\in\mathbb{R}^{n\times n}$ of "
    r"rank $r<k$, $F_0=\alpha\tilde F$, "
)


def truth(n: int, r: int, low: float) -> np.ndarray:
    """Eigenvalues 1 to ``low``; diagonal without loss of generality, as Gaussian starts are invariant under rotations."""
    return np.diag(np.append(np.linspace(1, low, r), np.zeros(n - r)))


def sharp_limit(M, X, step_size, descend) -> Evidence:
    """Judge ``descend(times) -> errors`` by the law of the symmetric descent from X with truth M."""
    law = error_law(M, X, step_size=step_size, multiples=[5, 10, 20, 40], longest=LONGEST)
    if law.status is EntryStatus.NOT_ENTERED:
        return inconclusive(f"the limit needs more than {LONGEST} steps")
    T = np.unique(np.append(law.times, np.geomspace(1, law.times[-1], 60).astype(int)))
    errors, scale, target = descend(T), 2 * step_size * law.times, np.sqrt(law.spurious)
    measured = scale * errors[np.searchsorted(T, law.times)]
    lower, upper, rounding = scale * law.lower, scale * law.upper, scale * law.rounding
    remainder = np.maximum(target - lower, upper - target) + rounding
    centre, half = (lower + upper)[-1] / 2, (upper - lower)[-1] / 2 + rounding[-1]
    return all_of(
        limit(
            measured,
            target,
            remainder=remainder,
            source="the proved bounds from the state of entry; rounding",
        ),
        equal(
            measured[-1], centre, error=half, source="half the width of the proved bounds; rounding"
        ),
        data={"T": T, "errors": errors, "constant": target, "step_size": step_size},
    )


def gaussian_start(n, k, alpha, step, seed):
    X = alpha * np.random.default_rng(seed).standard_normal((n, k))
    return X, step / (1 + np.linalg.norm(X, 2) ** 2)  # a step that is stable from the start on


def draw_law(ax, data, colour, label) -> None:
    x, y = 2 * data["step_size"] * data["T"], 2 * data["step_size"] * data["T"] * data["errors"]
    ax.loglog(x, y, "o", color=colour, markersize=2.5)
    ax.axhline(data["constant"], color=colour, linewidth=1.2)
    ax.annotate(
        label,
        (1.01, data["constant"]),
        xycoords=("axes fraction", "data"),
        color=colour,
        fontsize=8,
        va="center",
    )


def draw_broken(ax, data, label, at) -> None:
    x = 2 * data["step_size"] * data["T"]
    ax.loglog(x, x * data["errors"], ".-", color=BROKEN, linewidth=0.8, markersize=3)
    ax.annotate(label, at, color=BROKEN, fontsize=8)


@claim(
    SYMMETRIC
    + r"$2\eta T\|X_TX_T^\top-M\|_F\to\sqrt{\min(k,n)-r}$, with the remainder $O(\log T/T)$ of the proved two-sided bounds.",
    sources=["xiong2023-over, Theorem 1.1"],
    origin="derived",
    kind="limit",
    cases={
        "quick": [SIZE | {"k": 4, "alpha": 0.3, "step": 0.3}],
        "full": [TRUTH | {"n": 20, "k": k, "alpha": 0.1, "step": 0.3} for k in (25, 6, 4, 3)],
    },
    space={
        "n": Int(5, 10),
        "r": Int(1, 3),
        "k": Int(lambda p: p["r"] + 1, 12),
        "low": Real(0.3, 1.0),
        "alpha": Real(0.1, 0.5),
        "step": Real(0.2, 0.5),
    },
    breaks={
        "exact rank, k = r": lambda c: {"search_rank": c["r"]},
        "M indefinite": {"negative": 0.1},
    },
)
def symmetric_overparam_sharp_limit(
    n, r, k, low, alpha, step, seed: int, search_rank=None, negative=0.0
) -> Evidence:
    X, step_size = gaussian_start(n, k, alpha, step, seed)
    M = truth(n, r, low)
    actual = M - np.diag(np.append(np.zeros(n - 1), negative))

    def descend(times):
        start = X[:, :search_rank]
        run = gradient_descent(
            actual,
            search_rank=start.shape[1],
            step_size=step_size,
            steps=int(times[-1]),
            initial=start,
            record=times,
        )
        return run.errors

    return sharp_limit(M, X, step_size, descend)


@symmetric_overparam_sharp_limit.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        draw_law(ax, run.data, colour, f"k = {run.instance['k']}")
    draw_broken(ax, runs.controls["exact rank, k = r"].data, "k = r", (100, 0.03))
    ax.set(
        ylim=(0.01, 10), xlabel=r"$2\eta T$ (log)", ylabel=r"$2\eta T\,\|X_TX_T^\top-M\|_F$ (log)"
    )
    ax.set_title(r"Spare columns: $2\eta T\times$ error tends to $\sqrt{\min(k,n)-r}$")


WINDOW = "faster modes at the start of the window, the quadratic terms, rounding"


@claim(
    ASYMMETRIC
    + r"$G_0=\alpha\beta\tilde G$, $\tilde F,\tilde G$ Gaussian: at the limit $(F,G)$ of the descent, "
    r"$\|E_{t+1}\|/\|E_t\|\to1-\eta\min\{\lambda_i(FF^\top)+\lambda_j(GG^\top)>0\}$, the smallest non-zero Hessian eigenvalue. "
    r"It is $\sigma_k(F)^2$ only where $F$ has full rank and $\alpha$ is small.",
    sources=["xiong2023-over, Theorem 1.3"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [
            SIZE | {"k": 4, "beta": b, "alpha": a}
            for a, b in ((0.1, 1 / 3), (0.3, 1.0), (0.6, 1 / 3))
        ],
        "full": [
            SIZE | {"k": 4, "beta": b, "alpha": a}
            for b in (1.0, 1 / 3)
            for a in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
        ],
    },
    space={
        "n": Int(6, 12),
        "r": Int(1, 2),
        "k": Int(lambda p: p["r"] + 1, 5),
        "low": Real(0.4, 1.0),
        "beta": Real(0.2, 0.5),
        "alpha": Real(0.15, 0.6),
    },
    # A small start, as in a large one the slowest mode lies in the signal; late, as the quadratic terms fade faster than E.
    breaks={
        "the start does not excite the slowest mode": {
            "excited": False,
            "alpha": 0.1,
            "window": (1e-9, 1e-11),
        }
    },
    shifts={"sigma_k(F)^2": {"mode": "F"}, "smallest eigenvalue of F'F + G'G": {"mode": "F and G"}},
)
def asymmetric_overparam_linear_rate_constant(
    n, r, k, low, beta, alpha, seed: int, excited=True, window=(1e-7, 1e-11), mode="pairs"
) -> Evidence:
    rng = np.random.default_rng(seed)
    M, F, G = (
        truth(n, r, low),
        alpha * rng.standard_normal((n, k)),
        alpha * beta * rng.standard_normal((n, k)),
    )
    if not excited:
        G[r:] = 0  # the rows of G off the signal stay zero
    step_size = 0.4 / (1 + np.linalg.norm(F, 2) ** 2 + np.linalg.norm(G, 2) ** 2)
    late = late_rate(M, F, G, step_size=step_size, longest=LONGEST, window=window)
    if late.modes is None or late.error == np.inf:
        return inconclusive(
            f"no window in which the linearisation decides: the descent {late.status.value}"
        )
    left = np.linalg.svd(late.F, compute_uv=False)[-1] ** 2
    both = np.linalg.eigvalsh(late.F.T @ late.F + late.G.T @ late.G)[0]
    predicted = (
        late.modes.rate
        if mode == "pairs"
        else -np.log1p(-step_size * (left if mode == "F" else both))
    )
    rates = {
        "measured": late.measured,
        "predicted": late.modes.rate,
        "left": -np.log1p(-step_size * left),
    }
    return equal(late.measured, predicted, error=late.error, source=WINDOW, data=rates)


@asymmetric_overparam_linear_rate_constant.panel
def _(ax, runs: Runs) -> None:
    x, y, left = (
        np.array([run.data[name] for run in runs]) for name in ("predicted", "measured", "left")
    )
    ends = np.array([x.min() / 1.5, x.max() * 1.5])
    ax.loglog(ends, ends, color=COLOURS[0])
    ax.loglog(np.maximum(left, ends[0]), y, "x", color=BROKEN)
    ax.loglog(x, y, "o", color=COLOURS[1])
    ax.annotate(
        "smallest non-zero\n$\\lambda_i+\\mu_j$",
        (7e-3, 1.7e-2),
        color=COLOURS[0],
        fontsize=8,
        ha="right",
    )
    ax.annotate(
        "$\\sigma_k(F)^2$ instead\n(left edge: zero)",
        (2.2e-2, 2e-3),
        color=BROKEN,
        fontsize=8,
        ha="center",
    )
    ax.set(xlabel="predicted rate per step (log)", ylabel="measured rate per step (log)")
    ax.set_title(r"The rate is the smallest non-zero $\lambda_i(FF^\top)+\lambda_j(GG^\top)$")


@claim(
    ASYMMETRIC
    + r"$G_0=\alpha\beta\tilde G$, $\tilde F,\tilde G$ Gaussian, $k\le n$, the linear rate is $\Theta(\alpha^2)$ as "
    r"$\alpha\to0$, with "
    r"constant $\eta\min|\mathrm{eig}\,Z^\top(\tilde F^\top\tilde F-\beta^2\tilde G^\top\tilde G)Z|$, $Z$ an orthonormal basis "
    r"of $\ker(U^\top\tilde F+\beta V^\top\tilde G)$, $M=U\Sigma V^\top$.",
    sources=["xiong2023-over, Theorem 1.3"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [SIZE | {"k": 3, "beta": 1 / 3, "smallest": 0.01}],
        "full": [SIZE | {"k": k, "beta": 1 / 3, "smallest": 0.01} for k in (3, 5, 4)],
    },
    breaks={"exact rank, k = r": lambda c: {"search_rank": c["r"]}},
)
def rate_scales_as_alpha_squared(
    n, r, k, low, beta, smallest, seed: int, search_rank=None
) -> Evidence:
    rng = np.random.default_rng(seed)
    M, F, G = truth(n, r, low), rng.standard_normal((n, k)), beta * rng.standard_normal((n, k))
    constant, step_size = small_start_slowest(F, G, M), 0.2
    F, G = F[:, :search_rank], G[:, :search_rank]
    inverse = np.geomspace(1 / (16 * smallest), 1 / smallest, 13)
    options = {"search_rank": F.shape[1], "step_size": step_size, "steps": LONGEST, "tol": 1e-9}
    runs = [asymmetric_gradient_descent(M, left=F / x, right=G / x, **options) for x in inverse]
    if any(run.status is not DescentStatus.CONVERGED for run in runs):
        return inconclusive(f"no convergence in {LONGEST} steps")
    rates = np.array([limit_modes(run.F, run.G, rank=r, step_size=step_size).rate for run in runs])
    deviations = np.abs(rates * inverse**2 / (step_size * constant) - 1)
    # The remainder is of order alpha^2 log(1/alpha): carried down from the starts at least twice the smallest as alpha^(3/2).
    error = (deviations * (inverse / inverse[-1]) ** 1.5)[:-3].max()
    return all_of(
        rate(inverse, rates, -2, rival=-1),
        equal(
            rates[-1] / step_size,
            constant / inverse[-1] ** 2,
            error=error * constant / inverse[-1] ** 2,
            source="the remainder carried down from larger starts",
        ),
        data={"alpha": 1 / inverse, "rates": rates, "constant": constant * step_size},
    )


@rate_scales_as_alpha_squared.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        alpha = run.data["alpha"]
        ax.loglog(alpha, run.data["constant"] * alpha**2, color=colour)
        ax.loglog(alpha, run.data["rates"], "o", color=colour)
        ax.annotate(
            f"k = {run.instance['k']}",
            (alpha[4], run.data["rates"][4]),
            (6, -9),
            textcoords="offset points",
            color=colour,
            fontsize=8,
        )
    broken = runs.controls["exact rank, k = r"].data
    ax.loglog(broken["alpha"], broken["rates"], ".-", color=BROKEN)
    ax.annotate("k = r", (broken["alpha"][-1], 0.6 * broken["rates"][-1]), color=BROKEN, fontsize=8)
    ax.set(xlabel=r"size of the start, $\alpha$ (log)", ylabel="rate per step (log)")
    ax.set_title(r"Small starts: the rate is $\alpha^2$ times a constant of $(\tilde F,\tilde G)$")


@claim(
    ASYMMETRIC
    + r"$M\succeq0$ symmetric and $G_0=F_0$ Gaussian, so that $F^\top F-G^\top G=0$ throughout: the linear rate is lost, "
    r"$\eta T\|F_TG_T^\top-M\|_F\to\sqrt{\min(k,n)-r}/2$.",
    sources=["xiong2023-over, role of the imbalance"],
    origin="derived",
    kind="limit",
    cases={
        "quick": [SIZE | {"k": 4, "alpha": 0.3, "step": 0.2}],
        "full": [SIZE | {"k": k, "alpha": 0.3, "step": 0.2} for k in (14, 6, 4)],
    },
    space=symmetric_overparam_sharp_limit.space,
    breaks={"G_0 = F_0/3": {"beta": 1 / 3}, "G_0 = 0.9 F_0": {"beta": 0.9}},
)
def balanced_initialisation_destroys_linear_rate(
    n, r, k, low, alpha, step, seed: int, beta=1.0
) -> Evidence:
    X, step_size = gaussian_start(n, k, alpha, step, seed)
    M = truth(n, r, low)

    def descend(times):
        options = {
            "search_rank": k,
            "step_size": step_size,
            "steps": int(times[-1]),
            "record": times,
        }
        return asymmetric_gradient_descent(M, left=X, right=beta * X, **options).errors

    return sharp_limit(M, X, step_size, descend)


@balanced_initialisation_destroys_linear_rate.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        draw_law(ax, run.data, colour, f"k = {run.instance['k']}")
    draw_broken(ax, runs.controls["G_0 = F_0/3"].data, r"$G_0=F_0/3$", (5, 0.05))
    draw_broken(ax, runs.controls["G_0 = 0.9 F_0"].data, r"$G_0=0.9F_0$", (120, 0.05))
    ax.set(
        ylim=(0.01, 10), xlabel=r"$2\eta T$ (log)", ylabel=r"$2\eta T\,\|F_TG_T^\top-M\|_F$ (log)"
    )
    ax.set_title(r"Balanced start $G_0=F_0$: the linear rate is lost")


@claim(
    ASYMMETRIC
    + r"replace $F=\hat U\hat\Sigma\hat V^\top$ by $\beta\hat U\hat V^\top$ and $G$ by $G\hat V\hat\Sigma\hat V^\top/\beta$ "
    r"($\beta^2=\sigma_r(M)$, $r<k<n$) once, when $\|E\|_F\leq\theta\sigma_r(M)$: for every $\alpha$ the rate is then "
    r"$-\log(1-\eta\beta^2)(1+O(\theta))$, with the explicit constants of the proved bounds.",
    sources=["xiong2023-over, Section 5"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [SIZE | {"k": 4, "theta": 0.01, "alphas": (0.05, 0.1, 0.2)}],
        "full": [
            SIZE | {"k": k, "theta": 0.01, "alphas": (0.025, 0.05, 0.1, 0.2)} for k in (6, 3, 4)
        ],
    },
    space={
        "n": Int(6, 12),
        "r": Int(1, 2),
        "k": Int(lambda p: p["r"] + 1, 5),
        "low": Real(0.4, 1.0),
        "theta": Real(1e-4, 0.01, log=True),
        "alphas": Real(0.05, 0.3, size=2),
    },
    breaks={"no rebalancing": {"rebalanced": False}},
)
def one_step_rebalancing(n, r, k, low, theta, alphas, seed: int, rebalanced=True) -> Evidence:
    rng = np.random.default_rng(seed)
    M, start = truth(n, r, low), (rng.standard_normal((n, k)), rng.standard_normal((n, k)) / 3)
    sigma, step_size, t = np.diag(M)[:r], 0.1, np.arange(0, 801, 20)
    scale, threshold = np.sqrt(sigma[-1]), theta * sigma[-1] / np.linalg.norm(M)
    predicted = -np.log1p(-step_size * scale**2)
    rates, errors, curves = [], [], []
    options = {"search_rank": k, "step_size": step_size}
    for alpha in alphas:
        first = asymmetric_gradient_descent(
            M,
            left=alpha * start[0],
            right=alpha * start[1],
            steps=LONGEST,
            tol=threshold,
            **options,
        )
        ends = rebalanced_slowest_bounds(
            sigma, error=first.errors[-1], scale=scale, step_size=step_size
        )
        F, G = rebalance(first.F, first.G, scale=scale) if rebalanced else (first.F, first.G)
        late = late_rate(M, F, G, step_size=step_size, longest=LONGEST)
        if late.modes is None or ends[1] == np.inf:
            return inconclusive(
                "no convergence, or the error at the rebalancing is too large for the bounds"
            )
        rates.append(late.measured)
        errors.append(np.ptp(-np.log1p(-step_size * np.array(ends))) + late.error)
        curves.append(
            asymmetric_gradient_descent(
                M, left=F, right=G, steps=int(t[-1]), record=t, **options
            ).errors
        )
    source = "the proved bounds of the mode after a rebalancing at this error; " + WINDOW
    data = {"alphas": alphas, "curves": curves, "t": t, "rate": predicted}
    return equal(np.array(rates), predicted, error=np.array(errors), source=source, data=data)


@one_step_rebalancing.panel
def _(ax, runs: Runs) -> None:
    data, broken = runs[-1].data, runs.controls["no rebalancing"].data
    t = data["t"]
    for alpha, curve in zip(broken["alphas"], broken["curves"], strict=True):
        ax.semilogy(t, curve, color=BROKEN, linewidth=1)
        if alpha >= 0.1:
            ax.annotate(
                rf"$\alpha={alpha}$, no step",
                (t[-1], curve[-1] / 9),
                color=BROKEN,
                fontsize=8,
                ha="right",
            )
    for curve, colour, size in zip(data["curves"], COLOURS[1:], (7, 5, 3.5, 2), strict=False):
        ax.semilogy(t[curve > 1e-14], curve[curve > 1e-14], "o", color=colour, markersize=size)
    line = data["curves"][0][0] * np.exp(-data["rate"] * t)
    ax.semilogy(t[line > 1e-15], line[line > 1e-15], color=COLOURS[0])
    alphas = ", ".join(f"{alpha}" for alpha in data["alphas"])
    ax.annotate(
        r"$(1-\eta\beta^2)^t$ for" + f"\n$\\alpha$ = {alphas}",
        (270, 1e-9),
        color=COLOURS[0],
        fontsize=8,
    )
    ax.set(xlabel="steps after the error reached the threshold", ylabel=r"$\|FG^\top-M\|_F$ (log)")
    ax.set_title(r"One rebalancing step frees the rate of $\alpha$")


@claim(
    r"For $X_{t+1}=X_t-\eta\mathcal{A}^*\mathcal{A}(X_tX_t^\top-M)X_t$, small $\eta$, with $m\geq n(n+1)/2$ Gaussian "
    r"measurements, $M\succeq0$ of rank $r<n\leq k$, $X_0$ Gaussian, $\log\|X_TX_T^\top-M\|_F$ has slope $-1$ in $\log T$, "
    r"as in the population.",
    sources=["xiong2023-over, Theorem 1.1"],
    origin="derived",
    kind="rate",
    cases={
        "quick": [TRUTH | {"n": 8, "k": 10, "m": 800}],
        "full": [TRUTH | {"n": 10, "k": k, "m": 1200} for k in (12, 15)],
    },
    breaks={
        "fewer measurements than parameters": {"m": 15},
        "exact rank, k = r": lambda c: {"k": c["r"]},
    },
)
def sensing_error_decays_like_one_over_t(n, r, k, low, m, seed: int) -> Evidence:
    rng = np.random.default_rng(seed)
    M, operator, step_size, steps = truth(n, r, low), gaussian_operator(n, m, rng=rng), 0.1, 2**18
    options = {"search_rank": k, "step_size": step_size, "operator": operator}
    T = np.unique(np.geomspace(1, steps, 120).astype(int))
    X = 0.3 * rng.standard_normal((n, k))
    early = gradient_descent(M, initial=X, steps=2**10, **options).X
    onset = 1 / (step_size * np.linalg.svd(early[r:], compute_uv=False)[-1] ** 2)
    if k >= n and onset > steps / 20:
        return inconclusive(
            f"a direction with 1/(eta s^2) = {onset:.3g} after 1024 steps needs more than {steps} steps"
        )
    run = gradient_descent(M, initial=X, steps=steps, record=T, **options)
    constant = np.linalg.norm(sensing_limit(M, operator)) if m >= n * (n + 1) / 2 else np.nan
    late = T >= 2**12
    data = {
        "T": T,
        "errors": run.errors,
        "constant": constant,
        "population": np.sqrt(n - r),
        "step_size": step_size,
    }
    return rate(T[late], run.errors[late], -1, rival=-2, data=data)


@sensing_error_decays_like_one_over_t.panel
def _(ax, runs: Runs) -> None:
    draw_law(ax, runs[-1].data, COLOURS[1], "")
    ax.axhline(runs[-1].data["population"], color=COLOURS[0], linestyle="--", linewidth=1)
    ax.annotate("population (dashed)", (500, 2.4), color=COLOURS[0], fontsize=8, va="top")
    ax.annotate(
        r"$\|(\mathcal{A}^*\mathcal{A})^{-1}P\|_F$", (500, 3.9), color=COLOURS[1], fontsize=8
    )
    draw_broken(
        ax,
        runs.controls["fewer measurements than parameters"].data,
        "too few\nmeasurements",
        (40, 20),
    )
    draw_broken(ax, runs.controls["exact rank, k = r"].data, "k = r", (100, 0.03))
    ax.set(
        ylim=(0.01, 100), xlabel=r"$2\eta T$ (log)", ylabel=r"$2\eta T\,\|X_TX_T^\top-M\|_F$ (log)"
    )
    ax.set_title(r"Gaussian measurements: the error is again of order $1/T$")


if __name__ == "__main__":
    run_script(__file__)
