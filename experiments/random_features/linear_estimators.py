"""Bounded bias: the least variance for three norms, and which of them beats ridge where."""

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

KEY = "segert2023-flat"
NORMS = ("frobenius", "nuclear", "spectral")
model = paper(
    KEY,
    r"$y=X\beta+\varepsilon$, $X=U\operatorname{diag}(s)V^\top$ of full column rank, noise "
    r"covariance $\sigma^2I$, linear estimators $Ly$:",
)
family = paper(
    KEY,
    r"Estimators $V\operatorname{diag}((1-b_i)/s_i)U^\top y$ of $\beta$ in $y=X\beta+\varepsilon$, "
    r"$X=U\operatorname{diag}(s)V^\top$, noise variance $\sigma^2$, with $b_i=\frac t{s_i^2+t}$ "
    r"(ridge), $b_i=(1-s_i^2/t)_+$ (nuclear) or $b_i=\frac t{1+t}$ (spectral):",
)


def design(n, p, grade, seed):
    """Random design with graded columns."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, p)) * np.geomspace(1.0, grade, p) / np.sqrt(n)


@simulation
def least(X, bound, norm, spread):
    """Least variance, a bound of it and the estimator, if noise deviations rise to ``spread``."""
    deviations = np.geomspace(1.0, spread, len(X))
    found = rf.minimum_variance(X / deviations[:, None], bound, norm=norm)
    return found.variance, found.lower_bound, found.estimator / deviations


@model.abstract("a", "b")
@cases(norm=[*NORMS], n=7, p=4, share=0.25)
@full(norm=[*NORMS], n=12, p=6, share=[0.05, 0.15, 0.25, 0.4, 0.6, 0.8])
@space(
    norm=Choice(NORMS),
    p=Int(1, 5),
    n=Int("p", 9),
    share=Real(0.05, 0.9),
    grade=Real(0.1, 1.0),
)
@breaks("noise of unequal variance", spread=3.0)
def extended_gauss_markov(norm, n, p, share, seed, grade=0.3, spread=1.0):
    r"""$\min\{\|L\|_F^2:\|LX-I\|\le C\}$ over all matrices $L$, $0<C<\|I\|$, is attained only at
    $L=V\operatorname{diag}((1-b_i)/s_i)U^\top$ with $b_i=\frac t{s_i^2+t}$ (ridge) for the
    Frobenius norm, $b_i=(1-s_i^2/t)_+$ for the nuclear norm, $b_i=C$ for the spectral norm, and $t$
    such that the bound is attained."""
    X = design(n, p, grade, seed)
    order = {"frobenius": 2, "nuclear": 1, "spectral": np.inf}[norm]
    bound = share * float(np.linalg.norm(np.ones(p), order))
    variance, lower, estimator = least(X, bound, norm, spread)
    s = np.linalg.svd(X, compute_uv=False)
    factors = rf.least_variance_factors(s, bound, norm=norm)
    # The objective is strongly convex with modulus 2.
    error = np.sqrt(max(variance - lower, 0.0) + 1e-12 * variance)
    measured = within(estimator, error, "gap, its rounding, and strong convexity")
    # The bias of the estimator found is rounded as the inverse of the Gram matrix is.
    rounding = 1e-15 * (s[0] / s[-1]) ** 2 * variance
    optimum = between(variance + rounding, lower - rounding)
    return {
        "variance": compare(optimum, "==", theory("variance", np.sum(((1 - factors) / s) ** 2))),
        "estimator": compare(
            measured, "==", theory("estimator", rf.shrinkage_estimator(X, factors))
        ),
    }


@panel(
    extended_gauss_markov,
    "What a bound on the bias saves, by the norm of the bound",
    x=r"bound $C$ / norm of $I$",
    y=r"least $\|L\|_F^2$",
    log="y",
)
def _(pen, runs):
    p = 6
    s = np.linalg.svd(design(12, p, 0.3, runs.judgement.seed), compute_uv=False)
    shares = np.linspace(0.02, 0.9, 60)
    for k, (norm, size) in enumerate(zip(NORMS, (p**0.5, p, 1), strict=True)):
        factors = [rf.least_variance_factors(s, c * size, norm=norm) for c in shares]
        pen.theory(shares, [np.sum(((1 - b) / s) ** 2) for b in factors], norm, k=k)
        pen.points(*runs.measured("share", "variance", where={"norm": norm}), k=k)
    pen.broken(*runs.measured("share", control="noise of unequal variance"), "unequal noise")


@simulation
def least_squares(n, p, signal, noise, correlation, draws, seed):
    """Least-squares estimates and the truth, in units of its norm."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((draws, n, p)) * np.geomspace(1.0, correlation, p)
    inverse = np.linalg.inv(np.swapaxes(X, -1, -2) @ X)
    beta = np.sqrt(signal / p) * np.ones(p)
    y = X @ beta + np.sqrt(noise) * rng.standard_normal((draws, n))
    return np.einsum("rij,rkj,rk->ri", inverse, X, y) / np.sqrt(signal), beta / np.sqrt(signal)


@model.ours("exact at every size (derived)", serves="c")
@cases(n=30, p=12, signal=1.0, noise=[1.0, 3.0], draws=4000)
@full(n=60, p=30, signal=1.0, noise=[0.5, 1.0, 2.0], bounds=(0.0, 0.2, 0.4, 0.6, 0.8), draws=4000)
@space(p=Int(3, 12), n=Int("p + 10", 30), signal=Real(0.5, 2.0), noise=Real(0.5, 3.0))
@breaks("columns of unequal variance", correlation=0.5)
def spectral_regressor_risk(
    n, p, signal, noise, seed, bounds=(0.0, 0.3, 0.6), draws=6000, correlation=1.0
):
    r"""for a standard Gaussian design, $n>p+1$, $v=\sigma^2\frac p{n-p-1}$, the spectral estimator
    $(1-C)\hat\beta_{OLS}$ has risk $C^2\|\beta\|^2+(1-C)^2v$, least at $C^\star=\frac
    v{v+\|\beta\|^2}$, where it is $C^\star\|\beta\|^2$."""
    found, beta = least_squares(n, p, signal, noise, correlation, draws, seed)
    v = noise * p / (n - p - 1)
    best = v / (v + signal)
    C = np.array([*bounds, best])
    errors = np.sum(((1 - C)[:, None] * found[:, None] - beta) ** 2, axis=2)
    risk = C[:-1] ** 2 + (1 - C[:-1]) ** 2 * v / signal
    return {
        "risk": compare(mean(errors[:, :-1]), "==", theory("risk", risk)),
        "least": compare(mean(errors[:, -1]), "==", theory("optimum", best)),
    }


@panel(
    spectral_regressor_risk,
    "Uniform shrinkage of least squares: a parabola ($n=60$, $p=30$)",
    x="bound $C$ on the bias",
    y=r"risk / $\|\beta\|^2$",
)
def _(pen, runs):
    C = np.linspace(0, 0.85, 60)
    for k, noise in enumerate((0.5, 1.0, 2.0)):
        v = noise * 30 / 29
        pen.theory(C, C**2 + (1 - C) ** 2 * v, rf"$\sigma^2={noise:g}$", k=k)
        pen.points(*runs.measured("bounds", "risk", where={"noise": noise}), k=k)


@simulation
def given_design(n, p, strength, norm, noise, block, grade, draws, seed):
    """Risk at a unit signal given each random design, averaged over noise and directions."""
    rng = np.random.default_rng([seed, n, p])
    if block:
        # The R of these columns makes them uniform among orthonormal ones.
        X = rng.standard_normal((draws, round(n / block), p)) / np.sqrt(n)
        root = np.linalg.cholesky(np.swapaxes(X, -1, -2) @ X)
        X = X[:, :n] @ np.swapaxes(np.linalg.inv(root), -1, -2) / np.sqrt(block)
    else:
        X = rng.standard_normal((draws, n, p)) / np.sqrt(n)
    X *= np.geomspace(1.0, grade, p)
    s = np.sqrt(np.linalg.eigvalsh(np.swapaxes(X, -1, -2) @ X))
    b = np.stack([rf.bias_factors(row, strength, norm=norm) for row in s])
    return np.sum(b**2 / p + noise / n * ((1 - b) / s) ** 2, axis=1)


@family.ours("the limits of two ensembles (derived)", serves="c")
@cases(norm=[*NORMS], block=[0.5, 0.0], n=32, p=16, strength=1.5, draws=600)
@full(
    norm=[*NORMS],
    strength=[0.2, 0.5, 1.0, 1.5, 2.0, 3.0],
    block=[0.5, 0.0],
    n=60,
    p=30,
    noise=2.0,
    draws=600,
)
@space(
    norm=Choice(NORMS),
    n=Int(24, 48),
    p=Int(8, "0.7 * n"),
    strength=Real(0.3, 3.0, log=True),
    noise=Real(0.3, 2.0),
    block=Choice((0.0, 0.2, 0.25, 0.5)),
)
@breaks("columns of unequal variance", grade=0.4)
def nuclear_regressor_limit_risk(
    norm, n, p, strength, seed, noise=0.5, block=0.0, grade=1.0, draws=300
):
    r"""for the design $X/\sqrt n$, $X$ an $n$ by $p$ standard Gaussian matrix or $\sqrt N$ times
    $n$ rows and $p$ columns of a uniform $N$ by $N$ orthogonal one, $\|\beta\|=1$, noise variance
    $\sigma^2/n$, $p\to\infty$, $p/n=q<1$, $n/N=\alpha<\frac1{1+q}$ (Gaussian: $\alpha=0$), the risk
    is $\int_{x_-}^{x_+}\big(b(x)^2+\sigma^2q\frac{(1-b(x))^2}x\big)\frac{\sqrt{(x_+-x)(x-x_-)}}
    {2\pi qx(1-\alpha x)}dx+O(\frac1p)$, $b=b_i$ as a function of $x=s_i^2$,
    $x_\pm=(\sqrt{1-q\alpha}\pm\sqrt{q(1-\alpha)})^2$."""
    sizes = [(n, p), (2 * n, 2 * p)]
    small, large = (
        given_design(*size, strength, norm, noise, block, grade, draws, seed) for size in sizes
    )
    found = rf.shrinkage_limit(strength, norm=norm, aspect=p / n, noise_variance=noise, block=block)
    drift = abs(float((large - small).mean()))
    limit = mean(2 * large - small, bias=drift / 2, source="half the change from half the size")
    return {"limit": compare(limit, "==", theory("limit", found.limit))}


@panel(
    nuclear_regressor_limit_risk,
    "A spectrum known in the limit gives every risk ($p/n=1/2$)",
    x="strength $t$",
    y="risk",
    log="x",
)
def _(pen, runs):
    t = np.geomspace(0.15, 4, 60)
    for k, (norm, block) in enumerate([*((norm, 0.0) for norm in NORMS), ("spectral", 0.5)]):
        how = {"norm": norm, "aspect": 0.5, "noise_variance": 2.0, "block": block}
        curve = [rf.shrinkage_limit(float(v), **how).limit for v in t]
        pen.theory(t, curve, norm + (", orthogonal" if block else ""), k=k)
        pen.points(*runs.measured("strength", where={"norm": norm, "block": block}), k=k)
    name = "columns of unequal variance"
    pen.broken(*runs.measured("strength", control=name), "unequal columns")


SIGNALS = {"everywhere": slice(None), "strongest": 0, "weakest": -1}


@simulation
def best_risks(s, noise, signal):
    """Best risk of each family, attained and bounded, for decreasing singular values."""
    c = np.zeros(s.size)
    c[SIGNALS[signal]] = 1.0
    how = {"noise_variance": noise, "tol": 1e-6}
    c = c / np.linalg.norm(c)
    return [rf.best_shrinkage(s, c, norm=norm, **how) for norm in NORMS]


@simulation
def bayes_risk(s, noise, seed):
    """Mean risk over isotropic signals of the estimator of least mean, and the trace of the
    posterior covariance, below which no estimator is."""
    rng, p = np.random.default_rng(seed), s.size
    U, V = (np.linalg.qr(rng.standard_normal((size, p)))[0] for size in (2 * p, p))
    X = U * s @ V.T
    L = np.linalg.solve(X @ X.T + p * noise * np.eye(2 * p), X).T
    risk = np.sum((L @ X - np.eye(p)) ** 2) / p + noise * np.sum(L**2)
    return risk, np.trace(np.linalg.inv(p * np.eye(p) + X.T @ X / noise))


@family.ours("sharpened: the strict gains hold for every spectrum", serves="c")
@cases(spectrum=[(0.3, 0.5, 0.5), (0.9, 0.1, 0.2, 0.4)], tied=2, noise=0.1)
@full(spectrum=tuple(np.geomspace(0.84, 0.2, 9).tolist()), noise=[0.02, 0.05, 0.1, 0.2, 0.5, 1.0])
@space(
    p=Int(1, 8),
    spectrum=Real(0.05, 0.9, size="p", capacity=8, log=True),
    tied=Int(1, 3),
    noise=Real(0.05, 1.0, log=True),
)
@breaks("isotropic in place of one direction", strong="everywhere", weak="everywhere")
@breaks("one direction in place of isotropic", isotropic="strongest")
def ridge_optimal_only_for_isotropic_signals(
    spectrum,
    noise,
    seed,
    tied=1,
    p=None,
    isotropic="everywhere",
    strong="strongest",
    weak="weakest",
):
    r"""if $\operatorname E\beta\beta^\top=I/p$, ridge with $t=p\sigma^2$ has the least mean risk of
    all linear estimators. If the $s_i$ are not all equal and $\beta\ne0$ lies in the strongest
    direction, the best nuclear estimator has less risk than every ridge, and in the weakest
    direction the best spectral one has: at equal bias of that direction its variance is smaller in
    every direction of another $s_i$."""
    s = np.sort([*[1.0] * tied, *spectrum])[::-1]
    p = s.size
    everywhere, strongest, weakest = (
        best_risks(s, noise, where) for where in (isotropic, strong, weak)
    )
    factors = rf.bias_factors(s, p * noise, norm="frobenius")
    ridge = rf.shrinkage_risk(s, factors, np.full(p, p**-0.5), noise_variance=noise)
    tuned = between(*np.transpose([(best.risk, best.lower_bound) for best in everywhere[1:]]))
    nuclear, spectral = (
        within(best.risk, 1e-12, "rounding, of attained risks")
        for best in (strongest[1], weakest[2])
    )
    return {
        "least": compare(between(*bayes_risk(s, noise, seed)), "==", theory("least", ridge)),
        "no gain": compare(tuned, ">=", theory("least", ridge)),
        "strongest": compare(nuclear, "<", theory("ridge, strongest", strongest[0].lower_bound)),
        "weakest": compare(spectral, "<", theory("ridge, weakest", weakest[0].lower_bound)),
    }


@panel(
    ridge_optimal_only_for_isotropic_signals,
    "Ridge loses where the signal has one direction",
    x=r"noise $\sigma^2$",
    y="best risk",
    log="x",
)
def _(pen, runs):
    for k, (part, norm) in enumerate((("strongest", "nuclear"), ("weakest", "spectral")), start=1):
        pen.theory(*runs.predicted("noise", part), f"ridge, {part}", k=0)
        pen.points(*runs.measured("noise", part), f"{norm}, {part}", k=k)
    pen.theory(*runs.predicted("noise", "least"), "ridge, isotropic", k=6)
    pen.points(*runs.measured("noise", "least"), k=6)


if __name__ == "__main__":
    run_script(__file__)
