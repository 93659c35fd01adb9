"""Data selection: biased rules beat unbiased ones, and a part of the data can beat the whole."""

from fractions import Fraction
from functools import cache

import numpy as np

from theorylab import random_features as rf
from theorylab.verify import (
    Choice,
    Int,
    Real,
    between,
    breaks,
    cases,
    compare,
    family,
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

KEY = "kolossov2024-towards"
selected = paper(
    KEY,
    r"$y=\langle\theta,x\rangle+\varepsilon$ of noise variance $\sigma^2$, $x\ne0$ of a finite "
    r"law, each of $N$ samples kept with probability $\pi(x)$, $\operatorname E\pi=\gamma$:",
)
noisy = paper(
    KEY,
    r"$y=\theta x+\varepsilon$, $x\in\mathbb R$ of a finite law, noise variance $\sigma^2(x)>0$ "
    r"that the squared loss does not know, each of $N$ samples kept with probability $\pi(x)$:",
)


@cache
def diabetes(d):
    """Standardised columns of scikit-learn's 442 patients: the body mass index first."""
    from sklearn.datasets import load_diabetes

    columns = load_diabetes().data[:, 2 : 2 + d]
    return columns / columns.std(axis=0)


def law(data, d, seed):
    """Values and probabilities of x."""
    X = diabetes(d) if data == "diabetes" else np.random.default_rng(seed).standard_t(5, (60, d))
    return X, np.full(len(X), 1 / len(X))


@simulation
def best_rules(x, w, gamma):
    """Optimal values of both variances per noise variance: by linear programming and its dual, and
    by the dual of the convex program; rows are (attained, bound)."""
    from scipy.optimize import linprog, minimize_scalar

    square, top = x**2, float(np.max(np.abs(x)))
    found = linprog(-w * square, A_eq=w[None], b_eq=[gamma], bounds=(0, 1))
    how = {"method": "bounded", "options": {"xatol": 1e-12 * top**2, "maxiter": 500}}
    price = minimize_scalar(
        lambda u: u * gamma + w @ np.maximum(square - u, 0), bounds=(0, top**2), **how
    )
    hard = (-1 / found.fun, 1 / price.fun)

    def rule(root):
        return np.minimum(np.abs(x) / root, 1.0)

    def dual(root):
        pi = rule(root)
        return -(w @ (square / pi + root**2 * pi) - root**2 * gamma)

    how["options"] = {"xatol": 1e-12 * top, "maxiter": 500}
    root = minimize_scalar(dual, bounds=(1e-6 * top, 100 * top), **how)
    # A rule that keeps a little too much is scaled down, which is feasible.
    pi = rule(root.x)
    pi *= min(1.0, gamma / (w @ pi))
    scale = (w @ square) ** 2
    return hard, (w @ (square / pi) / scale, -root.fun / scale)


@simulation
def variances(X, w, rules, noise, n, draws, seed):
    """Simulated N tr Cov of each (selection, weighted) at two sizes, shape (2, draws, rules)."""
    rng, runs = np.random.default_rng(seed), []
    for size in (n, 2 * n):
        how = {"noise_variances": noise, "n_samples": size, "n_draws": draws, "rng": rng}
        rows = [rf.simulate_selection(X, w, pi, weighted=by, **how) for pi, by in rules]
        runs.append(np.stack(rows, axis=1))
    return np.array(runs)


def limit(runs):
    """Limit in N of simulated means whose error is of order 1/N."""
    drift = np.abs((runs[1] - runs[0]).mean(axis=0))
    return mean(2 * runs[1] - runs[0], bias=drift / 2, source="half the change from half the size")


@simulation
def two_atoms(M):
    """Quotient of the optimal variances for x in {1, M}, P(M) = 1/M^2 = gamma, in rationals."""
    p = Fraction(1, M**2)
    w, x = (1 - p, p), (1, M)
    c = p / sum(a * b for a, b in zip(w, x, strict=True))
    power = sum(a * b**2 for a, b in zip(w, x, strict=True))
    weighted = sum(a * b**2 / min(c * b, 1) for a, b in zip(w, x, strict=True)) / power**2
    return weighted / (1 / (p * M**2))


@selected.ours("a precise instance; the quotient of two atoms is derived", serves="b")
@cases(data=["heavy tails", "diabetes"], d=1, gamma=0.5, draws=1500)
@full(data="heavy tails", d=[1, 3], gamma=[0.4, 0.7], n=1000, M=30, draws=1500)
@full(data="diabetes", d=1, gamma=[0.1, 0.2, 0.35, 0.5, 0.7], n=1000, M=100, draws=1500)
@space(
    data=Choice(("heavy tails", "diabetes")),
    d=Int(1, 3),
    gamma=Real(0.25, 0.8),
    M=Int(2, 40),
)
@breaks("noise that grows with |x|", growth=1.0)
def biased_selection_beats_unbiased(data, d, gamma, seed, n=600, M=10, draws=400, growth=0.0):
    r"""as $N\to\infty$, $N\operatorname{tr}\operatorname{Cov}$ of least squares on the kept samples
    tends to $\sigma^2\operatorname{tr}\operatorname E[\pi xx^\top]^{-1}$, and with weights $1/\pi$
    to $\sigma^2\operatorname{tr}H^{-1}\operatorname E[xx^\top/\pi]H^{-1}$,
    $H=\operatorname E[xx^\top]$. In one dimension, $\gamma$ fixed, the first is least for the
    largest $|x|$ (with a tie kept in part), the second for $\pi=\min(c|x|,1)$, in proportion to the
    influence $\operatorname E[x^2]^{-1}x\varepsilon$ of a sample on $\hat\theta$, and is then 1 to
    $1/\gamma$ times as large. For $x\in\{1,M\}$, $P(x=M)=\gamma=M^{-2}$ their quotient is
    $M^2\big(\frac{1+M^{-1}-M^{-2}}{2-M^{-2}}\big)^2$, unbounded as $\gamma\to0$."""
    X, w = law(data, d, seed)
    x = X[:, 0]
    hard = rf.hard_selection(np.abs(x), w, gamma)
    soft = rf.proportional_selection(np.abs(x), w, gamma)
    sizes = np.linalg.norm(X, axis=1)
    large = rf.hard_selection(sizes, w, gamma)
    spread = rf.proportional_selection(sizes, w, gamma)
    kinds = ((large, False), (spread, False), (spread, True))
    runs = variances(X, w, kinds, 1 + growth * x**2, n, draws, seed)
    noise = np.ones(len(x))
    limits = [
        np.trace(rf.selection_covariance(X, w, pi, noise_variances=noise, weighted=by))
        for pi, by in kinds
    ]
    best_hard, best_soft = (between(*pair) for pair in best_rules(x, w, gamma))
    biased = 1 / np.sum(w * hard * x**2)
    unbiased = np.sum(w * x**2 / soft) / np.sum(w * x**2) ** 2
    quotient = theory("quotient", Fraction(M * (M * M + M - 1), 2 * M * M - 1) ** 2)
    return {
        "variance": compare(limit(runs), "==", theory("variance", np.array(limits))),
        "biased": compare(best_hard, "==", theory("biased", biased)),
        "unbiased": compare(best_soft, "==", theory("unbiased", unbiased)),
        "order": compare(best_hard, "<=", theory("unbiased", unbiased)),
        "cap": compare(best_soft, "<=", theory("biased", biased) / gamma),
        "two atoms": compare(two_atoms(M), "==", quotient),
    }


@panel(
    biased_selection_beats_unbiased,
    "Keeping the largest inputs beats every reweighted rule (442 patients)",
    x=r"kept fraction $\gamma$",
    y=r"$N$ variance / $\sigma^2$",
    log="y",
)
def _(pen, runs):
    x, w = law("diabetes", 1, 0)
    gamma = np.linspace(0.08, 0.8, 40)
    one = {"noise_variances": np.ones(len(w))}
    rules = {
        "largest, unweighted": (rf.hard_selection, False, 0),
        r"$\propto|x|$, weighted": (rf.proportional_selection, True, 2),
    }
    for k, (name, (rule, by, index)) in enumerate(rules.items()):
        curve = [
            rf.selection_covariance(x, w, rule(np.abs(x[:, 0]), w, g), weighted=by, **one)[0, 0]
            for g in gamma
        ]
        pen.theory(gamma, curve, name, k=k)
        pen.points(*runs.measured("gamma", "variance", index, where={"data": "diabetes"}), k=k)


def quiet_law(m, loud, share, seed):
    """Quiet values and a rare loud one, last."""
    rng = np.random.default_rng(seed)
    x = np.append(rng.uniform(0.6, 1.4, m - 1) * rng.choice([-1, 1], m - 1), 1.0)
    w = np.append((1 - share) * rng.dirichlet(np.full(m - 1, 5.0)), share)
    return x, w / w.sum(), np.append(rng.uniform(1.0, 2.0, m - 1), loud)


@simulation
def every_subset(x, w, noise):
    """Limiting variance of least squares on each non-empty set of values; the least is that of all
    rules, since numerator less a multiple of the squared denominator is concave in the rule."""
    kept = (np.arange(1, 2**x.size)[:, None] >> np.arange(x.size)) & 1
    return (kept @ (w * noise * x**2)) / (kept @ (w * x**2)) ** 2


def quietest(x, w, noise):
    return rf.quietest_subset(x, w, noise_variances=noise).selection


def quieter_half(x, w, noise):
    return (noise <= np.median(noise)).astype(float)


@noisy.ours("sharpened: the best rule of all, and when it is not the full sample", serves="a")
@cases(m=8, loud=40.0, share=0.1)
@full(m=10, loud=[10.0, 20.0, 50.0, 100.0, 200.0], share=0.05, n=2000)
@space(m=Int(3, 10), loud=Real(20.0, 100.0, log=True), share=Real(0.03, 0.1))
@breaks("equal noise, half of the values dropped", loud=1.5, rule=quieter_half)
def selection_beats_full_sample(m, loud, share, seed, n=800, draws=600, rule=quietest):
    r"""$N\operatorname{Var}$ of least squares on the kept samples tends to $J(\pi)=
    \frac{\operatorname E[\pi\sigma^2x^2]}{\operatorname E[\pi x^2]^2}$. Its least value is that of
    a rule $\pi=1\{\sigma^2(x)\le2\bar v\}$ with the weighted mean noise $\bar v=\frac{\operatorname
    E[\pi\sigma^2x^2]}{\operatorname E[\pi x^2]}$ of what it keeps: all samples are best only if
    $\sigma^2(x)\le2\bar v$ everywhere, else a part of them is strictly better."""
    x, w, noise = quiet_law(m, loud, share, seed)
    kept = rule(x, w, noise)
    kinds = ((kept, False), (np.ones(m), False))
    subset, whole = (
        float(rf.selection_covariance(x[:, None], w, pi, noise_variances=noise, weighted=by)[0, 0])
        for pi, by in kinds
    )
    found = rf.quietest_subset(x, w, noise_variances=noise)
    least = float(every_subset(x, w, noise).min())
    runs = variances(x[:, None], w, kinds, noise, n, draws, seed)
    agrees = (noise <= found.cutoff) == (found.selection > 0)
    return {
        "better": compare(limit(runs[:, :, 0]), "<", theory("full", whole)),
        "variance": compare(limit(runs), "==", theory("variance", np.array([subset, whole]))),
        "best of all subsets": compare(
            within(least, 1e-12 * least, "rounding"), "==", theory("best", found.variance)
        ),
        "cutoff": compare(family(dict(enumerate(agrees.tolist()))), "==", theory("values", m)),
    }


@panel(
    selection_beats_full_sample,
    "Without its loud twentieth the sample is worth more",
    x=r"noise variance of the loud value",
    y="$N$ variance",
    log="xy",
)
def _(pen, runs):
    for k, name in enumerate(("quietest part", "all samples")):
        pen.theory(*runs.predicted("loud", "variance", k), name, k=k)
        pen.points(*runs.measured("loud", "variance", k), k=k)


@simulation
def every_vertex(x, w, noise, gamma):
    """Least limiting variance over the vertices of the rules that keep a fraction, which is the
    least of all by concavity: a set of values kept, one more in part."""
    kept = ((np.arange(2**x.size)[:, None] >> np.arange(x.size)) & 1).astype(float)
    left, least = gamma - kept @ w, np.inf
    for j in range(x.size):
        rules = kept[(kept[:, j] == 0) & (left >= 0) & (left <= w[j])]
        rules[:, j] = np.minimum((gamma - rules @ w) / w[j], 1.0)
        power = rules @ (w * x**2)
        least = min(least, ((rules @ (w * noise * x**2)) / power**2).min(initial=np.inf))
    return least


def reweighted(x, noise, known):
    """Values and noise of the loss that divides by the noise, which is then 1."""
    return (x / np.sqrt(noise), np.ones(x.size)) if known else (x, noise)


@simulation
def falls(x, w, noise):
    """How fast the limiting variance falls if more of each value is kept, per probability, by
    differences from the full sample, and what halving the step changed, with their rounding."""

    def variance(shares):
        return (shares @ (w * noise * x**2)) / (shares @ (w * x**2)) ** 2

    whole, half = (
        (variance(1 - h * np.eye(x.size)) - variance(1 + h * np.eye(x.size))) / (2 * h * w)
        for h in (2e-3, 1e-3)
    )
    rounding = 1e-14 * variance(np.ones(x.size)) / (1e-3 * w)
    return (4 * half - whole) / 3, np.abs(half - whole) + rounding


@simulation
def three_values(s, known):
    """Quotient of the variances of the single value of {1, 2, -1} with the largest influence and
    of the best one, noise variances 1, s, s, in rationals."""
    x, noise = (1, 2, -1), (Fraction(1), Fraction(s), Fraction(s))
    weights = [1 / v for v in noise] if known else [Fraction(1)] * 3

    def variance(shares):
        power = sum(a * u * b**2 for a, u, b in zip(shares, weights, x, strict=True))
        loud = sum(
            a * u**2 * v * b**2 for a, u, v, b in zip(shares, weights, noise, x, strict=True)
        )
        return loud / power**2

    h, unit = Fraction(1, 10**9), range(3)
    gains = [variance([1 - h * (i == j) for i in unit]) for j in unit]
    singles = [variance([int(i == j) for i in unit]) for j in unit]
    return singles[gains.index(max(gains))] / min(singles)


@noisy.ours("derived; the influence is that on the limiting variance", serves="b")
@cases(m=8, loud=30.0, gamma=0.4, s=6)
@full(m=10, loud=[3.0, 10.0, 30.0, 100.0], gamma=0.4, s=[5, 40], n=2000, draws=1500)
@space(m=Int(3, 9), loud=Real(1.5, 100.0, log=True), gamma=Real(0.2, 0.8), s=Int(4, 400))
@breaks("a model that knows the noise", known=True)
def influence_selection_suboptimal(m, loud, gamma, s, seed, n=800, draws=600, known=False):
    r"""the influence at the full sample, minus the derivative of $J(\pi)=\frac{\operatorname
    E[\pi\sigma^2x^2]}{\operatorname E[\pi x^2]^2}$ in $\pi(x)$ per probability at $\pi=1$, is
    $\frac{x^2(2\bar v-\sigma^2(x))}{\operatorname E[x^2]^2}$, $\bar v=\frac{\operatorname
    E[\sigma^2x^2]}{\operatorname E[x^2]}$. Of all rules with $\operatorname E\pi=\gamma$ the least
    $J$ is that of one that keeps the largest $x^2(2\bar v_\pi-\sigma^2(x))$ (the last in part) with
    $\bar v_\pi=\frac{\operatorname E[\pi\sigma^2x^2]}{\operatorname E[\pi x^2]}$ of what it
    keeps. The rule that keeps the largest influence can be worse by any factor: by $s/4$, $s\ge4$,
    for $x$ uniform on $\{1,2,-1\}$, noise variances $1,s,s$ and $\gamma=\frac13$."""
    rng = np.random.default_rng([seed, m])
    x, w = rng.uniform(0.4, 1.6, m) * rng.choice([-1, 1], m), rng.dirichlet(np.full(m, 5.0))
    noise = np.geomspace(1.0, loud, m)[rng.permutation(m)]
    seen = reweighted(x, noise, known)
    influence = rf.selection_influence(x[:, None], w, np.ones(m), noise_variances=noise)
    found = rf.quietest_fraction(x, w, gamma, noise_variances=noise)
    kept = rf.hard_selection(influence, w, gamma)
    again = rf.hard_selection(x**2 * (found.cutoff - noise), w, gamma)
    rules = [kept, found.selection]
    runs = variances(seen[0][:, None], w, [(pi, False) for pi in rules], seen[1], n, draws, seed)
    values = [(pi @ (w * noise * x**2)) / (pi @ (w * x**2)) ** 2 for pi in rules]
    fall, error = falls(seen[0], w, seen[1])
    least = every_vertex(seen[0], w, seen[1], gamma)
    agrees = np.abs(again - found.selection) < 1e-9
    return {
        "factor": compare(three_values(s, known), "==", theory("factor", Fraction(s, 4))),
        "influence": compare(
            within(fall, error, "halved step"), "==", theory("influence", influence)
        ),
        "variance": compare(limit(runs), "==", theory("variance", np.array(values))),
        "best": compare(
            within(least, 1e-12 * least, "rounding"), "==", theory("best", found.variance)
        ),
        "ranked": compare(family(dict(enumerate(agrees.tolist()))), "==", theory("values", m)),
    }


@panel(
    influence_selection_suboptimal,
    r"Influence at the full sample does not find the best part ($\gamma=0.4$)",
    x="noise variance of the loudest value",
    y="$N$ variance",
    log="xy",
)
def _(pen, runs):
    for k, name in enumerate(("largest influence", "best rule")):
        pen.theory(*runs.predicted("loud", "variance", k, where={"s": 5}), name, k=k)
        pen.points(*runs.measured("loud", "variance", k, where={"s": 5}), k=k)


if __name__ == "__main__":
    run_script(__file__)
