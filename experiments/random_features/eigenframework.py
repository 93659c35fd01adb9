"""Random-feature regression: risk from the spectrum, and why more is better."""

import math
from functools import cache

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
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

NOISE = 0.05
FEWER = {"n_draws": 150}  # enough for a control that must be decisively false
KEY = "simon2024-more"
gaussian = paper(
    KEY,
    r"Kernel eigenvalues $\lambda_i$, random features "
    r"$\sum_i\sqrt{\lambda_i}\zeta_i(w)\phi_i(x)$ with "
    r"independent Gaussian $\phi_i,\zeta_i$, $k$ features, $n$ samples, target $\sum_iv_i\phi_i$, "
    r"noise variance $\sigma^2$, ridge $\delta$; $n=z+\delta/\kappa$, $k=z+k\kappa/\gamma$, "
    r"$z=\sum_i\frac{\lambda_i}{\lambda_i+\gamma}$, "
    r"$q=\sum_i(\frac{\lambda_i}{\lambda_i+\gamma})^2$, "
    r"$\mathcal E_{te}=\big(1-\frac{q(k-2z)+z^2}{n(k-q)}\big)^{-1}\big[\sum_i(\frac{\gamma}"
    r"{\lambda_i+\gamma}-\frac{\kappa\lambda_i}{(\lambda_i+\gamma)^2}\frac "
    r"k{k-q})v_i^2+\sigma^2\big]$:",
)
power = paper(
    KEY,
    r"The same deterministic equivalent for kernel regression with $\lambda_i=i^{-\alpha}$, "
    r"$v_i^2=i^{-\beta}$ for all $i$, and $\sigma^2=\sigma_{rel}^2$ times the "
    r"noiseless ridgeless risk:",
)
population = paper(
    KEY,
    r"Features that are far from Gaussian, with the eigenvalues and coefficients of their kernel:",
)


def power_law(modes):
    i = np.arange(1, modes + 1)
    return {"eigenvalues": i**-1.5, "coefficients": i**-0.9}


def copied(times):
    """Gaussian modes of which only one point in ``times`` is independent."""

    def law(rng, shape):
        draws, points, modes = shape
        distinct = rng.standard_normal((draws, -(-points // times), modes))
        return np.repeat(distinct, times, axis=1)[:, :points]

    return law


def scaled(rng, shape):
    """Orthonormal modes with one heavy-tailed scale per sample: uncorrelated, not independent."""
    return rng.standard_normal(shape) * np.sqrt(rng.chisquare(1, (*shape[:2], 1)))


SAMPLES = {"independent": None, "four times": copied(4), "one random scale": scaled}


@simulation
def risks(n, k, ridge, n_draws, modes, seed, samples, copies):
    """Simulated test and training risks, shape (2, draws, sizes)."""
    rng = np.random.default_rng([seed, round(1e6 * ridge)])
    laws = {"sample_modes": SAMPLES[samples], "feature_modes": copied(copies)}
    size = {**power_law(modes), "n_samples": n, "ridge": ridge, "noise_variance": NOISE}
    runs = [
        rf.simulate_risk(**size, n_features=int(m), n_draws=n_draws, rng=rng, **laws) for m in k
    ]
    return np.array([[r.test_risk for r in runs], [r.train_risk for r in runs]]).swapaxes(1, 2)


def predicted(n, k, ridge, modes, formula=rf.random_feature_risk):
    """Predicted test and training risks, or their 1/n terms, shape (2, sizes)."""
    size = {**power_law(modes), "n_samples": n, "ridge": ridge, "noise_variance": NOISE}
    found = [formula(**size, n_features=int(m)) for m in k]
    return np.array([[f.test_risk for f in found], [f.train_risk for f in found]])


def kernel_risk(n_features, **size):
    """Formula for infinitely many features, whatever their number."""
    return rf.kernel_ridge_risk(**size)


@gaussian.ours("the formula of the authors' code, under the Gaussian ansatz", serves="a")
@cases(n=60, k=(60, 120), ridge=2.0, n_draws=700)
@full(n=100, k=(40, 70, 150, 250, 400), ridge=[0.1, 0.3, 1.0], n_draws=1200, modes=200)
@space(n=Int(20, 40), k=Int(15, 80), ridge=Real(0.3, 2.0, log=True))
@breaks("each feature drawn ten times", copies=10, **FEWER)
@breaks("each sample drawn four times", samples="four times", **FEWER)
@breaks("one random scale per sample", samples="one random scale", **FEWER)
@breaks("formula for infinite k", formula=kernel_risk)
def rf_eigenframework_test_mse(
    n,
    k,
    ridge,
    seed,
    n_draws=100,
    modes=60,
    samples="independent",
    copies=1,
    formula=rf.random_feature_risk,
):
    r"""the mean test risk, noise included, is $\mathcal E_{te}$ up to a relative $O(1/n)$ (twice
    the computed $1/n$ term is allowed)."""
    sizes = np.atleast_1d(k)
    runs = risks(n, sizes, ridge, n_draws, modes, seed, samples, copies)[0]
    term = np.abs(predicted(n, sizes, ridge, modes, rf.finite_size_term)[0])
    risk = theory("risk", predicted(n, sizes, ridge, modes, formula)[0])
    return compare(mean(runs, bias=2 * term, source="twice the 1/n term"), "==", risk)


@panel(
    rf_eigenframework_test_mse,
    "The test risk is read off the spectrum ($n=100$)",
    x="features $k$",
    y="test risk",
    log="xy",
)
def _(pen, runs):
    k = np.unique(np.geomspace(36, 420, 60).astype(int))
    for i, ridge in enumerate((0.1, 0.3, 1.0)):
        pen.theory(k, predicted(100, k, ridge, 200)[0], rf"$\delta={ridge:g}$", k=i)
        pen.points(*runs.measured("k", where={"ridge": ridge}), k=i)
    for name in ("each feature drawn ten times", "each sample drawn four times"):
        pen.broken(*runs.measured("k", control=name), name)


@gaussian.ours("the formula of the authors' code, under the Gaussian ansatz")
@cases(n=60, k=(60, 120), ridge=2.0, n_draws=700)
@full(n=100, k=(40, 70, 150, 250, 400), ridge=[0.1, 0.3, 1.0], n_draws=1200, modes=200)
@space(n=Int(20, 40), k=Int(15, 80), ridge=Real(0.3, 2.0, log=True))
@breaks("each sample drawn four times", samples="four times", **FEWER)
@breaks("each feature drawn ten times", copies=10, **FEWER)
def rf_train_test_ratio(n, k, ridge, seed, n_draws=100, modes=60, samples="independent", copies=1):
    r"""the mean training risk is $\frac{\delta^2}{n^2\kappa^2}\mathcal E_{te}$ up to a relative
    $O(1/n)$ (twice the computed $1/n$ term is allowed)."""
    sizes = np.atleast_1d(k)
    runs = risks(n, sizes, ridge, n_draws, modes, seed, samples, copies)[1]
    term = np.abs(predicted(n, sizes, ridge, modes, rf.finite_size_term)[1])
    roots = rf.effective_ridge(
        power_law(modes)["eigenvalues"], n_samples=n, n_features=sizes, ridge=ridge
    )
    ratio = theory("ratio", (ridge / (n * roots.kappa)) ** 2)
    test = theory("test risk", predicted(n, sizes, ridge, modes)[0])
    return compare(mean(runs, bias=2 * term, source="twice the 1/n term"), "==", ratio * test)


@panel(
    rf_train_test_ratio,
    r"The training risk is $(\delta/n\kappa)^2$ of the test risk ($n=100$)",
    x="features $k$",
    y="training risk",
    log="xy",
)
def _(pen, runs):
    k = np.unique(np.geomspace(36, 420, 60).astype(int))
    for i, ridge in enumerate((0.1, 0.3, 1.0)):
        pen.theory(k, predicted(100, k, ridge, 200)[1], rf"$\delta={ridge:g}$", k=i)
        pen.points(*runs.measured("k", where={"ridge": ridge}), k=i)
    name = "each sample drawn four times"
    pen.broken(*runs.measured("k", control=name), name)


@simulation
def best_risks(problem, n, k, ridge):
    """Attained risk and lower bound over all ridges, or twice the risk at a fixed one."""
    if ridge is not None:
        fixed = [
            rf.learning_curve(**problem, n_samples=int(i), n_features=k, ridge=ridge) for i in n
        ]
        return np.array([[f.test_risk for f in fixed]] * 2)
    best = [
        [rf.optimal_ridge(**problem, n_samples=int(i), n_features=int(j), tol=1e-11) for j in k]
        for i in n
    ]
    return np.array(
        [[[getattr(b, s) for b in r] for r in best] for s in ("test_risk", "lower_bound")]
    )


@gaussian.abstract("a", "b", instance=True)
@cases(n=20, k=20, steps=(0, 10, 40))
@full(n=10, k=10, noise=[0.5, NOISE], steps=(0, 10, 20, 50, 90, 190, 390, 790))
@space(
    n=Int(1, 30),
    k=Int(1, 30),
    eigenvalues=Real(1e-3, 1.0, log=True, size=8),
    coefficients=Real(0.1, 1.0, size=8),
    noise=Real(0.01, 2.0, log=True),
)
@breaks("fixed ridge 1e-6", ridge=1e-6)
def more_is_better_monotone(
    n, k, eigenvalues=None, coefficients=None, noise=NOISE, steps=(0, 1), ridge=None
):
    r"""if $\sum_i\lambda_iv_i^2>0$ and $\sigma>0$, $\min_{\delta\ge0}\mathcal E_{te}$ (of the
    deterministic equivalent) strictly decreases in $n$ and in $k$."""
    modes = power_law(200)
    if eigenvalues is not None:
        modes = {"eigenvalues": eigenvalues, "coefficients": coefficients}
    grids = (n + np.array(steps), k + np.array(steps))
    risk, bound = best_risks({**modes, "noise_variance": noise}, *grids, ridge)
    # A risk attained at the larger size against a bound over all ridges at the smaller one.
    rows, columns = (within(r, 1e-14 * r, "rounding") for r in (risk[1:], risk[:, 1:]))
    return {
        "in k": compare(columns, "<", theory("fewer features", bound[:, :-1])),
        "in n": compare(rows, "<", theory("fewer samples", bound[:-1])),
    }


@panel(
    more_is_better_monotone,
    "With the best ridge, more features and samples help",
    x="features $k$",
    y="best predicted test risk",
    log="xy",
)
def _(pen, runs):
    k = 10 + np.array(runs.judgement.runs[-1].instance["steps"])[1:]
    for i, row in enumerate((1, 3, 5, 7)):
        n = 10 + (0, 10, 20, 50, 90, 190, 390, 790)[row]
        (found,) = [r.parts["in k"] for r in runs.judgement.runs if r.instance["noise"] == NOISE]
        pen.points(k, found.centre[row], label=f"$n={n}$", k=i)
    (control,) = runs.judgement.controls
    pen.broken(k, control.run.parts["in k"].centre[3], label=r"$n=60$, $\delta=10^{-6}$")


PAIRS = ((2.5, 2.0), (1.5, 2.0), (2.0, 3.0))


@simulation
def fitting_ratios(alpha, beta, noise, n):
    """Ratio of training to test risk at the best ridge, and where interpolation stops to be
    best."""
    return (
        np.array(
            [rf.power_law_fitting_ratio(alpha, beta, relative_noise=s, n_samples=n) for s in noise]
        ),
        rf.power_law_threshold(alpha, beta, n_samples=n) if beta > alpha else 0.0,
    )


@power.abstract("c", instance=True)
@cases(alpha=2.0, beta=3.0, noise=(0.2, 1.0), n=2000)
@full(alpha=2.5, beta=2.0, noise=(0.1, 0.4, 1.0, 2.0, 3.0), n=10_000)
@full(alpha=1.5, beta=2.0, noise=(0.1, 0.4, 1.0, 2.0, 3.0), n=10_000)
@full(alpha=2.0, beta=3.0, noise=(0.1, 0.4, 1.0, 2.0, 3.0), n=10_000)
@space(alpha=Real(1.3, 4.0), beta=Real(1.1, "2 * alpha"), noise=Real(0.05, 3.0, size=1))
@breaks("target smoother than 2 alpha + 1", alpha=2.0, beta=6.0)
def overfitting_obligatory_fitting_ratio(alpha, beta, noise, n=1000):
    r"""for $\alpha>1$ and $1<\beta\le2\alpha$, as $n\to\infty$ the ratio of training to test risk
    at the best ridge tends to the root $r$ of $\alpha-\beta-(\alpha-1)\beta\sqrt r
    +\alpha(\alpha-1)\sigma_{rel}^2(1-\sqrt r)^\beta=0$ in $[0,1)$, or to 0 if the left side is not
    positive at 0: interpolation is best iff
    $\sigma_{rel}^2\le(\beta-\alpha)/(\alpha(\alpha-1))$."""
    rows = [fitting_ratios(alpha, beta, tuple(noise), m) for m in (n // 4, n // 2, n)]
    ratios, thresholds = zip(*rows, strict=True)

    def limit(values):
        # A remainder a / n + b / n^p, p = 2 alpha + 1 - beta, is a sum of (P + 1) / (P - 1) times
        # the last doubling and 1 / (P - 1) times the one before it, P = 2^p >= 2: both may cancel.
        early, late = np.abs(np.diff(values, axis=0))
        error = 3 * late + early
        return within(values[-1], error + 1e-6, "two powers of n, and 1e-6 for higher ones")

    target = [rf.optimal_fitting_ratio(alpha, beta, relative_noise=s) for s in noise]
    parts = {"ratio": compare(limit(ratios), "==", theory("ratio", np.array(target)))}
    if beta > alpha:
        stated = (beta - alpha) / (alpha * (alpha - 1))
        parts["threshold"] = compare(limit(thresholds), "==", theory("threshold", stated))
    return parts


@panel(
    overfitting_obligatory_fitting_ratio,
    "Up to a threshold of noise interpolation is best",
    x=r"relative noise $\sigma_{rel}^2$",
    y="best training / test risk",
)
def _(pen, runs):
    noise = np.linspace(0.1, 3, 100)
    for i, (alpha, beta) in enumerate(PAIRS):
        ratio = [rf.optimal_fitting_ratio(alpha, beta, relative_noise=s) for s in noise]
        pen.theory(noise, ratio, rf"$\alpha={alpha:g},\ \beta={beta:g}$", k=i)
        pen.points(*runs.measured("noise", "ratio", where={"alpha": alpha, "beta": beta}), k=i)


@cache
def circle(atoms):
    """A ReLU bump on the circle, shifted at random (to one of a few ``atoms`` if positive)."""
    size = 256
    angle = 2 * np.pi * np.arange(size) / size
    bump = np.maximum(np.cos(angle) - 0.3, 0)
    bump /= math.sqrt(np.mean(bump**2))
    target = np.abs(np.sin(angle - 0.4)) + 0.5 * np.sign(np.cos(angle))
    target = (target - target.mean()) / target.std()

    def features(rng, k):
        shifts = rng.integers(size, size=k)
        if atoms:
            shifts = rng.integers(size, size=atoms)[rng.integers(atoms, size=k)]
        return bump[(np.arange(size)[:, None] - shifts) % size]

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
    angular = np.sqrt(1 - cosine**2) + (np.pi - np.arccos(cosine)) * cosine

    def features(rng, k):
        return np.maximum(x @ rng.standard_normal((64, k)) * math.sqrt(2), 0)

    kernel = np.outer(norm, norm) * angular / np.pi
    return rf.population_spectrum(kernel, target), features, target


@simulation
def resampled(data, n, k, n_draws, seed, ridge, atoms):
    """Test risks on a finite population, and the modes of its kernel."""
    spectrum, features, target = digits() if data == "digits" else circle(atoms)
    rng, size = np.random.default_rng(seed), {"n_samples": n, "ridge": ridge, "n_draws": n_draws}
    runs = [
        rf.resample_risk(lambda r, m=int(m): features(r, m), target, rng=rng, **size).test_risk
        for m in k
    ]
    return np.stack(runs, axis=1), spectrum.eigenvalues, spectrum.coefficients


@population.ours("the Gaussian ansatz on data that are not Gaussian")
@cases(data="circle", n=100, k=(100,), n_draws=1000)
@full(data=["digits", "circle"], n=100, k=(50, 100, 200, 400), n_draws=2000)
@space(n=Int(60, 140), k=Int(25, 200), ridge=Real(1.0, 4.0))
@breaks("features at three angles", data="circle", atoms=3, n_draws=60)
@breaks("hardly any ridge", data="circle", ridge=1e-5, n_draws=600)
def rf_eigenframework_real_features(n, k, seed, data="circle", n_draws=30, ridge=1.0, atoms=0):
    r"""a ReLU bump shifted by a random angle, $x$ uniform on the circle, or random ReLU features of
    centred handwritten digits, $\sum_i\lambda_i=1$: the predicted test risk is within 5 % of the
    mean."""
    sizes = np.atleast_1d(k)
    runs, *modes = resampled(data, n, sizes, n_draws, seed, ridge, atoms)
    curve = rf.learning_curve(*modes, n_samples=n, ridge=ridge, n_features=sizes).test_risk
    measured = mean(runs, bias=0.05 * runs.mean(axis=0), source="the 5 % of the statement")
    return compare(measured, "==", theory("risk", curve))


@panel(
    rf_eigenframework_real_features,
    "Digits and a circle follow the Gaussian prediction",
    x="features $k$",
    y="test risk",
    log="x",
)
def _(pen, runs):
    k = np.unique(np.geomspace(46, 420, 50).astype(int))
    for i, data in enumerate(("digits", "circle")):
        modes = (digits() if data == "digits" else circle(0))[0]
        spectrum = (modes.eigenvalues, modes.coefficients)
        curve = rf.learning_curve(*spectrum, n_samples=100, ridge=1.0, n_features=k).test_risk
        pen.theory(k, curve, data, k=i)
        pen.points(*runs.measured("k", where={"data": data}), k=i)
    name = "features at three angles"
    pen.broken(*runs.measured("k", control=name), f"circle, {name}")


if __name__ == "__main__":
    run_script(__file__)
