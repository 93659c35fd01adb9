"""Random-feature regression: risk from the spectrum, and why more is better."""

import math
from functools import cache

import numpy as np
import sympy as sp

from theorylab import random_features as rf
from theorylab.verify import (
    Evidence,
    Int,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    equal,
    exact,
    inconclusive,
    limit,
    sample_mean,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

NOISE = 0.05


def power_law(modes: int = 200):
    i = np.arange(1, modes + 1)
    return {"eigenvalues": i**-1.5, "coefficients": i**-0.9}


POWER_LAW = power_law()
SETTING = (
    r"Kernel eigenvalues $\lambda_i$, random features $g(w,x)=\sum_i\sqrt{\lambda_i}\zeta_i(w)\phi_i(x)$ with independent "
    r"Gaussian $\phi_i,\zeta_i$, $k$ features, $n$ samples, target $\sum_iv_i\phi_i$, noise variance $\sigma^2$, ridge $\delta$ "
    r"added to $\frac1k\sum_jg(w_j,\cdot)g(w_j,\cdot)$; $n=z+\delta/\kappa$, $k=z+k\kappa/\gamma$, "
    r"$z=\sum_i\frac{\lambda_i}{\lambda_i+\gamma}$, $q=\sum_i(\frac{\lambda_i}{\lambda_i+\gamma})^2$: "
)
RISK = (
    r"$\mathcal E_{te}=\big(1-\frac{q(k-2z)+z^2}{n(k-q)}\big)^{-1}\big[\sum_i(\frac{\gamma}{\lambda_i+\gamma}"
    r"-\frac{\kappa\lambda_i}{(\lambda_i+\gamma)^2}\frac k{k-q})v_i^2+\sigma^2\big]$"
)
SOURCE = "twice the first term of the 1/n expansion, from Laplace's method"
FEWER = {"draws": 150}  # enough for a control that must be decisively false
FULL_K = (10, 20, 40, 70, 100, 150, 250, 400)
CASES = {
    "quick": [{"n": 40, "k": (20, 80), "ridge": 1.0, "draws": 600, "modes": 80}],
    "full": [{"n": 100, "k": FULL_K, "ridge": ridge, "draws": 600} for ridge in (0.001, 0.03, 1.0)],
}


def copied(times: int):
    """Gaussian modes of which only one point in ``times`` is independent."""

    def law(rng, shape):
        draws, points, modes = shape
        return np.repeat(rng.standard_normal((draws, -(-points // times), modes)), times, axis=1)[
            :, :points
        ]

    return law


def scaled(rng, shape):
    """Orthonormal modes with one heavy-tailed scale per sample: uncorrelated, but far from independent."""
    return rng.standard_normal(shape) * np.sqrt(rng.chisquare(1, (*shape[:2], 1)))


SAMPLES = {
    "independent": None,
    "each sample four times": copied(4),
    "one random scale per sample": scaled,
}


@cache
def runs_and_theory(n, k, ridge, draws, modes, seed, samples, feature_copies):
    """Simulated test and training risks, shape (2, draws, sizes), with the predicted ones and their 1/n terms, (2, sizes)."""
    rng = np.random.default_rng([seed, round(1e6 * ridge)])
    laws = {"sample_modes": SAMPLES[samples], "feature_modes": copied(feature_copies)}
    size = {**power_law(modes), "n_samples": n, "ridge": ridge, "noise_variance": NOISE}
    simulated = [rf.simulate_risk(**size, n_features=m, n_draws=draws, rng=rng, **laws) for m in k]
    theory = [rf.random_feature_risk(**size, n_features=m) for m in k]
    terms = [rf.finite_size_term(**size, n_features=m) for m in k]
    names = ("test_risk", "train_risk")
    runs = np.array([[getattr(s, name) for s in simulated] for name in names]).transpose(0, 2, 1)
    return runs, *(
        np.array([[getattr(t, name) for t in table] for name in names]) for table in (theory, terms)
    )


@claim(
    SETTING + r"the mean test risk, noise included, is " + RISK + r" up to a relative $O(1/n)$.",
    sources=[
        "simon2024-more, Section 4 (the authors' code has the formula; the paper's text was not consulted)"
    ],
    origin="derived",
    kind="limit",
    cases=CASES,
    breaks={
        "each feature drawn ten times": {"feature_copies": 10, **FEWER},
        "each sample drawn four times": {"samples": "each sample four times", **FEWER},
        "one random scale per sample": {"samples": "one random scale per sample", **FEWER},
    },
    shifts={"kernel formula (k infinite)": {"kernel": True}},
)
def rf_eigenframework_test_mse(
    n, k, ridge, draws, seed, modes=200, samples="independent", feature_copies=1, kernel=False
) -> Evidence:
    runs, theory, terms = runs_and_theory(n, k, ridge, draws, modes, seed, samples, feature_copies)
    predicted, first = theory[0], np.abs(terms[0])
    if kernel:
        risk = rf.kernel_ridge_risk(
            **power_law(modes), n_samples=n, ridge=ridge, noise_variance=NOISE
        ).test_risk
        predicted = np.full(len(k), risk)
    if (first > 0.05 * theory[0]).any():
        return inconclusive("the 1/n term exceeds 5 %: too close to the interpolation peak")
    return sample_mean(runs[0], predicted, bias=2 * first, source=SOURCE).with_data(
        runs=runs, theory=theory, terms=terms
    )


def points(ax, x, samples, **style) -> None:
    error = samples.std(axis=0, ddof=1) / math.sqrt(len(samples))
    ax.errorbar(x, samples.mean(axis=0), 2 * error, fmt="o", **style)


def feature_axis(ax, ticks=(10, 30, 100, 300)) -> None:
    ax.set(xscale="log", xlabel="features $k$ (log)")
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.set_xticks([], minor=True)


def risk_axis(ax, ticks) -> None:
    ax.set_yscale("log")
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_yticks([], minor=True)


@rf_eigenframework_test_mse.panel
def _(ax, runs: Runs) -> None:
    k = np.unique(np.geomspace(8, 450, 80).astype(int))
    for run, colour, x, lift in zip(runs, COLOURS, (104, 62, 26), (1.08, 1.1, 0.72), strict=False):
        size = {
            "n_samples": run.instance["n"],
            "ridge": run.instance["ridge"],
            "noise_variance": NOISE,
        }
        curve = rf.learning_curve(**POWER_LAW, **size, n_features=k).test_risk
        ax.plot(k, curve, color=colour)
        points(ax, run.instance["k"], run.data["runs"][0], color=colour)
        ax.text(
            x, np.interp(x, k, curve) * lift, rf"$\delta={run.instance['ridge']:g}$", color=colour
        )
    points(
        ax,
        runs[-1].instance["k"],
        runs.controls["each feature drawn ten times"].data["runs"][0],
        color=BROKEN,
    )
    ax.text(48, 1.1, "each feature drawn ten times, $\\delta=1$", color=BROKEN)
    feature_axis(ax)
    risk_axis(ax, (0.2, 0.5, 1))
    ax.set(
        ylabel="test risk (log)",
        ylim=(0.13, 1.9),
        title="The test risk is read off the spectrum ($n=100$)",
    )


@rf_eigenframework_test_mse.panel
def _(ax, runs: Runs) -> None:
    for run, colour, shift in zip(runs, COLOURS, (0.95, 1.0, 1.05), strict=False):
        theory, k = run.data["theory"][0], np.array(run.instance["k"])
        ax.plot(k, 100 * run.data["terms"][0] / theory, color=colour)
        points(ax, shift * k, 100 * (run.data["runs"][0] / theory - 1), color=colour)
    ax.axhline(0, color=BROKEN, lw=0.8)
    feature_axis(ax)
    ax.set(
        ylabel="simulated above predicted (%)",
        title="What is left is the computed $1/n$ term (lines)",
    )


@claim(
    SETTING
    + r"the mean training risk is $\frac{\delta^2}{n^2\kappa^2}$ times the mean test risk, up to a relative $O(1/n)$.",
    sources=[
        "simon2024-more, Section 4 (the authors' code has the formula; the paper's text was not consulted)"
    ],
    origin="derived",
    kind="identity",
    cases=CASES,
    breaks={
        "each sample drawn four times": {"samples": "each sample four times", **FEWER},
        "each feature drawn ten times": {"feature_copies": 10, **FEWER},
    },
    shifts={"gamma in place of kappa": {"swapped": True}},
)
def rf_train_test_ratio(
    n, k, ridge, draws, seed, modes=200, samples="independent", feature_copies=1, swapped=False
) -> Evidence:
    runs, theory, terms = runs_and_theory(n, k, ridge, draws, modes, seed, samples, feature_copies)
    roots = rf.effective_ridge(
        power_law(modes)["eigenvalues"], n_samples=n, n_features=np.array(k), ridge=ridge
    )
    factor = (ridge / (n * (roots.gamma if swapped else roots.kappa))) ** 2
    relative = (np.abs(terms) / theory).sum(axis=0)
    if (relative > 0.1).any():
        return inconclusive("the 1/n terms exceed 10 %: too close to the interpolation peak")
    # Both risks in units of the predicted test risk: the difference of the two sides of the identity, shifted to 1.
    sides = 1 + (runs[1] / factor - runs[0]) / theory[0]
    evidence = sample_mean(
        sides,
        np.ones(len(k)),
        bias=relative,
        source="the sizes of the first 1/n terms of both risks, added",
    )
    return evidence.with_data(runs=runs, factor=factor)


@rf_train_test_ratio.panel
def _(ax, runs: Runs) -> None:
    def draw(data, k, **style):
        test = data["runs"][0].mean(axis=0)
        points(ax, k, data["runs"][1] / test, **style)

    for run, colour in zip(runs, COLOURS, strict=False):
        ax.plot(run.instance["k"], run.data["factor"], color=colour)
        ax.text(
            430,
            run.data["factor"][-1],
            rf"$\delta={run.instance['ridge']:g}$",
            color=colour,
            va="center",
        )
        draw(run.data, run.instance["k"], color=colour)
    draw(runs.controls["each sample drawn four times"].data, runs[-1].instance["k"], color=BROKEN)
    ax.text(11, 0.03, "each sample drawn\nfour times, $\\delta=1$", color=BROKEN)
    feature_axis(ax)
    ax.set(yscale="log", xlim=(8, 1200), ylabel="training / test risk (log)")
    ax.set_title(r"Training over test risk is $(\delta/n\kappa)^2$ (lines)")


@cache
def monotone_at_fixed_gamma() -> tuple[Evidence, Evidence]:
    """Both derivatives of the test risk at fixed gamma are minus a sum of products of positive numbers."""
    a, b, c, q, s1, s2, noise = sp.symbols(
        "a b c q S1 S2 sigma2", positive=True
    )  # n = q+c+a, k = q+c+b, z = q+c
    z, bias, free = q + c, s2 + c * s1 / (b + c) + noise, a + b * c / (b + c)
    risk = (z + a) * bias / free
    by_samples = bias * (b * q + z * c) / ((b + c) * free**2)
    by_features = (z + a) * (c * s1 * free + c**2 * bias) / ((b + c) * free) ** 2
    return tuple(
        exact(sp.simplify(sp.diff(risk, size) + slope), "==", 0)
        for size, slope in ((a, by_samples), (b, by_features))
    )


@claim(
    r"In the same setting with $\sum_i\lambda_iv_i^2>0$ and $v,\sigma^2$ fixed, $\min_{\delta\ge0}$ of the predicted test risk "
    r"strictly decreases in $n$ and in $k$ as long as it is positive. (At fixed $\gamma$ it decreases in both; a larger $n$ or "
    r"$k$ allows more $\gamma$.)",
    sources=["simon2024-more, Abstract and Section 4 (the theorem's text was not consulted)"],
    origin="derived",
    kind="monotonicity",
    cases={
        "quick": [{"n": 20, "k": 20, **POWER_LAW, "noise": NOISE, "steps": (0, 10, 40)}],
        "full": [
            {
                "n": 10,
                "k": 10,
                **POWER_LAW,
                "noise": noise,
                "steps": (0, 10, 20, 50, 90, 190, 390, 790),
            }
            for noise in (0.5, NOISE)
        ],
    },
    space={
        "n": Int(1, 30),
        "k": Int(1, 30),
        "eigenvalues": Real(1e-3, 1.0, log=True, size=8),
        "coefficients": Real(0.1, 1.0, size=8),
        "noise": Real(0.01, 2.0, log=True),
    },
    breaks={"fixed ridge 1e-6": {"ridge": 1e-6}},
)
def more_is_better_monotone(
    n, k, eigenvalues, coefficients, noise, steps=(0, 1), ridge=None
) -> Evidence:
    problem = {"eigenvalues": eigenvalues, "coefficients": coefficients, "noise_variance": noise}
    n_grid, k_grid = (size + np.array(steps) for size in (n, k))
    if ridge is None:
        best = [
            [
                rf.optimal_ridge(**problem, n_samples=int(i), n_features=int(j), tol=1e-11)
                for j in k_grid
            ]
            for i in n_grid
        ]
        risk, bound = (
            np.array([[getattr(b, side) for b in row] for row in best])
            for side in ("test_risk", "lower_bound")
        )
    else:
        bound = risk = np.array(
            [
                rf.learning_curve(
                    **problem, n_samples=int(i), n_features=k_grid, ridge=ridge
                ).test_risk
                for i in n_grid
            ]
        )
    # An attained risk at the larger size against a bound over all ridges at the smaller one, so that a decrease must be strict.
    grown = [
        at_most(risk[1:], bound[:-1], rounding=0.0),
        at_most(risk[:, 1:], bound[:, :-1], rounding=0.0),
    ]
    return all_of(*grown, *monotone_at_fixed_gamma()).with_data(n=n_grid, k=k_grid, risk=risk)


@more_is_better_monotone.panel
def _(ax, runs: Runs) -> None:
    best = runs[-1].data
    for row, colour in zip(range(1, len(best["n"]), 2), COLOURS, strict=False):
        ax.plot(best["k"], best["risk"][row], "o-", color=colour)
        ax.text(
            1.1 * best["k"][-1],
            best["risk"][row][-1],
            f"$n={best['n'][row]}$",
            color=colour,
            va="center",
        )
    k = np.unique(np.geomspace(10, best["k"][-1], 200).astype(int))
    fixed = rf.learning_curve(
        **POWER_LAW, n_samples=60, n_features=k, ridge=1e-6, noise_variance=NOISE
    ).test_risk
    ax.plot(k, fixed, color=BROKEN)
    ax.text(75, 4, r"$n=60$, fixed $\delta=10^{-6}$", color=BROKEN)
    feature_axis(ax)
    risk_axis(ax, (0.1, 0.3, 1, 3, 10))
    ax.set(xlim=(9, 2.6 * best["k"][-1]), ylim=(0.05, 20), ylabel="predicted test risk (log)")
    ax.set_title("With the best ridge, more features and samples help")


@cache
def stationarity() -> Evidence:
    """The limit risk [u^(1-beta) + alpha s] / (1 - u (alpha-1)/alpha), u = z/n, is stationary where the stated equation holds."""
    alpha, beta, s, u = sp.symbols("alpha beta s u", positive=True)
    risk = (u ** (1 - beta) + alpha * s) / (1 - u * (alpha - 1) / alpha)
    equation = alpha - beta - (alpha - 1) * beta * (1 - u) + alpha * (alpha - 1) * s * u**beta
    return exact(
        sp.simplify(
            sp.diff(risk, u) - alpha * equation / (u**beta * (alpha - u * (alpha - 1)) ** 2)
        ),
        "==",
        0,
    )


PAIRS = ((2.0, 3.0), (1.5, 2.0), (2.5, 2.0))


@claim(
    r"Kernel regression with $\lambda_i=i^{-\alpha}$, $v_i^2=i^{-\beta}$, $\alpha>1$, $1<\beta<2\alpha+1$ and noise variance "
    r"$\sigma_{rel}^2$ times the noiseless ridgeless risk: as $n\to\infty$ the ratio of training to test risk at the best ridge "
    r"tends to the root $r$ of $\alpha-\beta-(\alpha-1)\beta\sqrt r+\alpha(\alpha-1)\sigma_{rel}^2(1-\sqrt r)^\beta=0$ in "
    r"$[0,1)$, or to 0 if the left side is not positive at 0. Interpolation is optimal iff "
    r"$\sigma_{rel}^2\le(\beta-\alpha)/(\alpha(\alpha-1))$.",
    sources=["simon2024-more, Section 5 (the theorem's text was not consulted)"],
    origin="derived",
    kind="threshold",
    cases={
        "quick": [{"alpha": 2.0, "beta": 3.0, "noise": np.array([0.2, 1.0]), "sizes": (100, 1000)}],
        "full": [
            {"alpha": a, "beta": b, "noise": np.array([0.1, 0.4, 1.0, 2.0, 3.0])} for a, b in PAIRS
        ],
    },
    space={
        "alpha": Real(1.3, 4.0),
        "beta": Real(1.1, lambda p: 2 * p["alpha"] - 0.2),
        "noise": Real(0.0, 3.0, size=1),
    },
    breaks={"target smoother than 2 alpha + 1": {"alpha": 2.0, "beta": 6.0}},
)
def overfitting_obligatory_fitting_ratio(alpha, beta, noise, sizes=(100, 1000, 10_000)) -> Evidence:
    n = np.array(sizes, dtype=float)

    def beyond(z):
        # z is gamma^(-1/alpha) up to a factor, less 1/2: the problem at n is that of the limit at n + 1/2. Beyond this 1/n term
        # the sums over modes add gamma ~ z^-alpha, and z^-(2 alpha + 1 - beta) in the bias (a broken hypothesis gets 1/z).
        return z**-alpha + z ** -max(2 * alpha + 1 - beta, 1.0)

    ratios = np.array(
        [
            [rf.power_law_fitting_ratio(alpha, beta, relative_noise=s, n_samples=m) for m in sizes]
            for s in noise
        ]
    )
    parts = [stationarity()]
    for s, ratio in zip(noise, ratios, strict=True):
        target = rf.optimal_fitting_ratio(alpha, beta, relative_noise=s)
        shifted = np.array(
            [rf.optimal_fitting_ratio(alpha, beta, relative_noise=s * m / (m + 0.5)) for m in sizes]
        )
        remainder = 2 * np.abs(shifted * (1 + 1 / (2 * n)) ** 2 - target) + beyond(
            n * (1 - math.sqrt(target))
        )
        if target:
            name = "twice the 1/n term of the sums over modes, and their next terms"
            parts.append(limit(ratio, target, remainder=remainder, source=name))
        else:
            parts.append(
                equal(
                    ratio[-1],
                    0.0,
                    error=1e-15,
                    scale=1.0,
                    source="rounding: ridge 0 is found exactly",
                )
            )
    threshold = rf.interpolation_threshold(alpha, beta)
    if threshold:
        found = [rf.power_law_threshold(alpha, beta, n_samples=m) for m in sizes]
        parts.append(
            limit(
                found,
                threshold,
                remainder=abs(threshold) / n + beyond(n),
                source="twice the 1/n term, and the next ones",
            )
        )
    return all_of(*parts).with_data(ratios=ratios)


@overfitting_obligatory_fitting_ratio.panel
def _(ax, runs: Runs) -> None:
    noise = np.linspace(0, 3.2, 200)
    for run, colour in zip(runs, COLOURS, strict=False):
        alpha, beta = run.instance["alpha"], run.instance["beta"]
        ax.plot(
            noise,
            [rf.optimal_fitting_ratio(alpha, beta, relative_noise=s) for s in noise],
            color=colour,
        )
        ax.plot(run.instance["noise"], run.data["ratios"][:, 1], "o", color=colour)
        ax.axvline(rf.interpolation_threshold(alpha, beta), 0, 0.06, color=colour, lw=3)
        end = rf.optimal_fitting_ratio(alpha, beta, relative_noise=3.2)
        ax.text(3.25, end, rf"$\alpha={alpha:g},\ \beta={beta:g}$", color=colour, va="center")
    ax.set(
        xlim=(0, 4.4),
        ylim=(0, 0.5),
        xlabel=r"relative noise $\sigma_{rel}^2$",
        ylabel="best training / test risk",
    )
    ax.set_title("Up to a threshold of noise (ticks) interpolation is best")


def circle(atoms: int = 0):
    """A ReLU bump on the circle, shifted at random (to one of a few ``atoms`` of the circle if positive)."""
    size = 1024
    angle = 2 * np.pi * np.arange(size) / size
    bump = np.maximum(np.cos(angle) - 0.3, 0)
    bump /= math.sqrt(np.mean(bump**2))
    target = np.abs(np.sin(angle - 0.4)) + 0.5 * np.sign(np.cos(angle))

    def features(rng, k):
        shifts = (
            rng.integers(size, size=k)
            if not atoms
            else rng.integers(size, size=atoms)[rng.integers(atoms, size=k)]
        )
        return bump[(np.arange(size)[:, None] - shifts) % size]

    target = (target - target.mean()) / target.std()
    return rf.circulant_spectrum(bump, target), features, target


@cache
def digits():
    """Random ReLU features of scikit-learn's 1797 digits, centred; odd against even."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = data.data - data.data.mean(axis=0)
    x /= math.sqrt(np.mean((x**2).sum(axis=1)))
    norm, target = np.linalg.norm(x, axis=1), np.where(data.target % 2, 1.0, -1.0)
    cosine = np.clip(x @ x.T / np.outer(norm, norm), -1, 1)
    kernel = (
        np.outer(norm, norm)
        * (np.sqrt(1 - cosine**2) + (np.pi - np.arccos(cosine)) * cosine)
        / np.pi
    )

    def features(rng, k):
        return np.maximum(x @ rng.standard_normal((64, k)) * math.sqrt(2), 0)

    return rf.population_spectrum(kernel, target), features, target


@claim(
    r"Features that are far from Gaussian: a ReLU bump shifted by a random angle, $x$ uniform on the circle; or random ReLU "
    r"features of centred handwritten digits. With eigenvalues and coefficients of their kernel on the population, "
    r"$\delta=\sum_i\lambda_i$, $n=100$ and $25\le k\le400$, the predicted test risk is within 5 % of the mean.",
    sources=[
        "simon2024-more, Section 4 (the ansatz that modes act as if Gaussian; the paper's text was not consulted)"
    ],
    origin="derived",
    kind="limit",
    cases={
        "quick": [{"data": "circle", "n": 100, "k": (50, 100), "draws": 200}],
        "full": [
            {"data": data, "n": 100, "k": (25, 50, 100, 200, 400), "draws": 400}
            for data in ("digits", "circle")
        ],
    },
    breaks={"features at three angles": {"atoms": 3}, "hardly any ridge": {"ridge": 1e-5}},
)
def rf_eigenframework_real_features(data, n, k, draws, seed, ridge=1.0, atoms=0) -> Evidence:
    try:
        spectrum, features, target = digits() if data == "digits" else circle(atoms)
    except ImportError:
        return inconclusive(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn"
        )
    rng, modes = np.random.default_rng(seed), (spectrum.eigenvalues, spectrum.coefficients)
    options = {"n_samples": n, "ridge": ridge}
    runs = [
        rf.resample_risk(
            lambda r, m=m: features(r, m), target, **options, n_draws=draws, rng=rng
        ).test_risk
        for m in k
    ]
    runs = np.stack(runs, axis=1)
    theory = rf.learning_curve(*modes, **options, n_features=np.array(k)).test_risk
    return sample_mean(
        runs, theory, bias=0.05 * theory, source="the 5 % of the statement"
    ).with_data(runs=runs, modes=modes)


@rf_eigenframework_real_features.panel
def _(ax, runs: Runs) -> None:
    k = np.unique(np.geomspace(22, 450, 60).astype(int))
    for run, colour in zip(runs, COLOURS, strict=False):
        curve = rf.learning_curve(
            *run.data["modes"], n_samples=run.instance["n"], n_features=k, ridge=1.0
        ).test_risk
        ax.plot(k, curve, color=colour)
        points(ax, run.instance["k"], run.data["runs"], color=colour)
        ax.text(470, curve[-1], run.instance["data"], color=colour, va="center")
    points(
        ax,
        runs[-1].instance["k"],
        runs.controls["features at three angles"].data["runs"],
        color=BROKEN,
    )
    ax.text(85, 0.6, "circle, features at three angles", color=BROKEN)
    feature_axis(ax, runs[-1].instance["k"])
    ax.set(xlim=(20, 750), ylim=(0, 0.67), ylabel="test risk")
    ax.set_title("Digits and a circle follow the Gaussian prediction")


if __name__ == "__main__":
    run_script(__file__)
