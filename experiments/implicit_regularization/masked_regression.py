"""Zeros for missing entries are a ridge penalty, and in high dimension a small one."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.verify import (
    Int,
    Real,
    between,
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

KEY = "ayme2023-naive"
masked = paper(
    KEY,
    r"Entry $j$ of $X$ is seen with probability $\rho_j\in(0,1]$, independently of the others and "
    r"of $(X,Y)$, and is 0 in $\tilde X$ otherwise; $\Sigma=\mathbb EXX^\top$, "
    r"$\lambda_j=\frac{1-\rho_j}{\rho_j}$:",
)
unit = paper(
    KEY,
    r"Entries of $X$ with $\mathbb EX_j^2=1$, each seen with probability $\rho\in(0,1]$, "
    r"independently of all else, and 0 in $\tilde X$ otherwise; $Y=\beta^\top X$, "
    r"$\lambda=\frac{1-\rho}\rho$:",
)
descent = paper(
    KEY,
    r"One pass over $n>1$ samples of $\tilde X$, $|X_j|\le1$, whose entries are seen with "
    r"probability $\rho$, independently of all else, and else 0; mean $\bar\theta_n$ of the "
    r"iterates $0,\dots,n-1$ of least-squares descent from 0 with step $\frac1{d\sqrt n}$:",
)


def rational(p):
    return [Fraction(float(v)).limit_denominator(100) for v in np.atleast_1d(p)]


def data(d, m, signs, seed):
    """Rational inputs and coefficients, of m equally likely points."""
    rng = np.random.default_rng([seed, d, m])
    X = rng.choice([-1, 1], (m, d)) if signs else rng.integers(-6, 9, (m, d))
    theta = rng.integers(1, 6, d) * rng.choice([-1, 1], d)
    rows = [[Fraction(int(v), 1 if signs else 4) for v in x] for x in X]
    return rows, [Fraction(int(v), 2) for v in theta], [int(v) for v in rng.integers(-5, 6, m)]


def independent(X, k, rho):
    """All masks of point k with their probabilities."""
    for mask in product((0, 1), repeat=len(rho)):
        chances = [p if seen else 1 - p for seen, p in zip(mask, rho, strict=True)]
        yield mask, np.prod(chances)


def missing_together(X, k, rho):
    """One uniform number decides: entry j is seen where it is below rho_j."""
    levels = sorted({Fraction(0), *rho, Fraction(1)})
    for low, high in pairwise(levels):
        yield [int(p >= high) for p in rho], high - low


def large_ones_missing(X, k, rho):
    """Every entry is seen with its probability in the mean, large ones less often."""
    sizes = np.abs(np.array(X, float))
    lead = np.sum(np.sign(sizes[k] - sizes), axis=0).astype(int)
    shares = [Fraction(int(v), max(len(X) - 1, 1)) for v in lead]
    moved = [p - min(p, 1 - p) * v for p, v in zip(rho, shares, strict=True)]
    yield from independent(X, k, moved)


@simulation
def masked_points(d, m, rho, masks, signs, noise, spread, seed):
    """All masked inputs with their outputs and probabilities; each point has two outputs, of which
    the means are linear where there is no noise of its own."""
    X, theta, own = data(d, m, signs, seed)
    found = []
    for k, (x, u) in enumerate(zip(X, own, strict=True)):
        for mask, chance in masks(X, k, rational(rho)):
            for error in (-1, 1):
                y = np.dot(theta, x) + noise * u + spread * error
                found.append((np.multiply(mask, x), y, chance / (2 * m)))
    return found


def row_reduced(S, b):
    """A solution of the consistent system S u = b in rationals."""
    rows = [[*r, v] for r, v in zip(S, b, strict=True)]
    n, pivots = len(rows), []
    for column in range(n):
        at = next((i for i in range(len(pivots), n) if rows[i][column] != 0), None)
        if at is None:
            continue
        k = len(pivots)
        rows[k], rows[at] = rows[at], rows[k]
        rows[k] = [v / rows[k][column] for v in rows[k]]
        for i in range(n):
            if i != k and rows[i][column] != 0:
                rows[i] = [v - rows[i][column] * w for v, w in zip(rows[i], rows[k], strict=True)]
        pivots.append(column)
    solution = [Fraction(0)] * n
    for k, column in enumerate(pivots):
        solution[column] = rows[k][n]
    return np.array(solution, object)


def least_risk(points):
    """The exact minimum of the mean squared error of linear predictors: where its gradient, checked
    to be 0, vanishes."""
    x, y, p = (np.array(column, object) for column in zip(*points, strict=True))
    theta = row_reduced((x.T * p) @ x, x.T @ (p * y))
    residuals = y - x @ theta
    if any(x.T @ (p * residuals)):
        raise ValueError("points: expected consistent normal equations")
    return np.dot(p, residuals**2)


def second_moments(X):
    return np.array(X, object).T @ np.array(X, object) / Fraction(len(X))


def raw(X):
    return np.diag(second_moments(X))


def variances(X):
    return raw(X) - np.mean(np.array(X, object), axis=0) ** 2


@masked.abstract("a", instance=True)
@cases(d=[1, 3], m=3, rho=(0.5, 0.9, 0.25, 1.0, 0.1))
@full(d=[1, 2, 3, 5], m=[1, 4], rho=(0.5, 0.9, 0.25, 1.0, 0.1))
@space(d=Int(1, 5), m=Int(1, 5), rho=Real(0.02, 1.0, size=5))
@breaks("entries are missing together", masks=missing_together)
@breaks("large entries are missing more often", masks=large_ones_missing)
@breaks("variances in place of second moments", size=variances)
def zero_imputation_ridge_identity(d, m, rho, seed, masks=independent, size=raw):
    r"""$\mathbb E(Y-\theta^\top\tilde X)^2=\mathbb E(Y-\beta^\top X)^2+\sum_j\lambda_j\Sigma_{jj}
    \beta_j^2$ for every $\theta$, $\beta_j=\rho_j\theta_j$; with $\Sigma_{jj}=1$ and equal
    $\rho_j$ the penalty is $\lambda|\beta|^2$."""
    found = {}
    for name, signs in (("any scales", False), ("unit scales", True)):
        share = np.array([rho[0]] * d if signs else rho[:d])
        points = masked_points(d, m, share, masks, signs, 1, 0, seed)
        X, theta, own = data(d, m, signs, seed)
        theta = np.array(theta[::-1], object)
        risk = sum(p * (y - np.dot(theta, x)) ** 2 for x, y, p in points)
        p = np.array(rational(share), object)
        beta, truth = p * theta, data(d, m, signs, seed)[1]
        fits = [np.dot(truth, x) + u - np.dot(beta, x) for x, u in zip(X, own, strict=True)]
        fit = theory(f"fit, {name}", np.dot(fits, fits) / Fraction(m))
        if signs:
            penalty = theory("lambda", (1 - p[0]) / p[0]) * np.dot(beta, beta)
        else:
            penalty = theory("penalty", np.dot((1 - p) / p * size(X), beta**2))
        found[name] = compare(risk, "==", fit + penalty)
    return found


@masked.ours("derived: the bias itself, and the ridge bias that bounds it", serves="b")
@cases(d=[1, 3], m=3, rho=(0.95, 0.9, 0.8, 1.0))
@full(d=[1, 2, 3, 4], m=[1, 4], rho=(0.5, 0.9, 0.25, 1.0))
@full(d=3, m=3, rho=(0.95, 0.9, 0.8, 1.0))
@space(d=Int(1, 4), m=Int(1, 5), rho=Real(0.02, 1.0, size=4))
@breaks("entries are missing together", masks=missing_together)
@breaks("large entries are missing more often", masks=large_ones_missing)
@breaks("errors that depend on the inputs", noise=1)
def imputation_bias_closed_form(d, m, rho, seed, masks=independent, noise=0):
    r"""with $Y=\beta^\top X+\varepsilon$, $\mathbb E\varepsilon X=0$, the best linear predictor
    from $\tilde X$ has a risk that exceeds $\mathbb E\varepsilon^2$ by $\beta^\top\Sigma(\Sigma+D
    )^{-1}D\beta\le\beta^\top D\beta$, $D=\mathrm{diag}(\lambda_j\Sigma_{jj})$ (a pseudo-inverse of
    singular matrices): by $\lambda\beta^\top\Sigma(\Sigma+\lambda I)^{-1}\beta\le\lambda|\beta|^2$
    if $\Sigma_{jj}=1$ and all $\rho_j$ are equal."""
    points = masked_points(d, m, np.array(rho[:d]), masks, False, noise, 2, seed)
    X, beta, own = data(d, m, False, seed)
    beta, p = np.array(beta, object), np.array(rational(rho[:d]), object)
    S, D = second_moments(X), (1 - p) / p * raw(X)
    ridge = row_reduced(S + np.diag(D), D * beta)
    excess = least_risk(points) - 4 - noise * Fraction(sum(u * u for u in own), m)  # errors of +-2
    return {
        "bias": compare(excess, "==", theory("bias", np.dot(beta, S @ ridge))),
        "ridge": compare(excess, "<=", theory("ridge", np.dot(beta, D * beta))),
    }


def flat(d, r, seed):
    return ir.tight_frame(d, r, seed=seed)


def uneven(d, r, seed):
    """Loadings of norm 1 that prefer some directions."""
    A = np.random.default_rng([seed, d, r]).standard_normal((d, r)) / np.arange(1, r + 1)
    return A / np.linalg.norm(A, axis=1)[:, None]


def uncorrelated(d, r, seed):
    return np.eye(d)


def tripled(d, r, seed):
    return 3 * flat(d, r, seed)


def thirds(d, r, seed):
    return flat(d, r, seed) / 3


@simulation
def least_bias(frame, d, r, rho, seed):
    """Least risk and its lower bound, over the second moment of the noiseless output and apart by
    its rounding, and the extreme non-zero eigenvalues of the inputs."""
    A = frame(d, r, seed)
    k = A.shape[1]
    X = np.sqrt(k) * A.T
    y = X @ (A @ np.random.default_rng([seed, 7]).standard_normal(k))
    law = ir.masked_law(X, y, observed=rho)
    fit = ir.best_linear(ir.imputed_moments(law))
    power = ir.complete_moments(law).output
    ends = fit.risk / power + 1e-13, fit.lower / power - 1e-13
    return ends, np.linalg.eigvalsh(A.T @ A)[[-1, 0]]


@unit.ours("derived: the exact bias of a flat spectrum, and bounds of any", serves="c")
@cases(d=[6, 60], r=3, rho=0.7)
@full(d=100, r=[1, 100], rho=[0.1, 0.9])
@full(d=[5, 10, 20, 40, 80, 160, 320, 640], r=5, rho=0.7)
@space(d=Int(1, 200), r=Int(1, "min(d, 20)"), rho=Real(0.05, 1.0))
@breaks("uncorrelated entries", frame=uncorrelated)
@breaks("unequal eigenvalues", frame=uneven)
@breaks("entries three times as large", other=tripled)
@breaks("entries three times as small", other=thirds)
def low_rank_bias_decays_like_r_over_d(d, r, rho, seed, frame=flat, other=uneven):
    r"""the best linear predictor from $\tilde X$ has the risk $\frac{\lambda r}{d+\lambda r}
    \mathbb EY^2$ if $\Sigma$ is $\frac dr$ times a projection of rank $r$; between
    $\frac\lambda{\mu_1+\lambda}$ and $\frac\lambda{\mu_r+\lambda}$ times $\mathbb EY^2$ if the
    non-zero eigenvalues of $\Sigma$ lie in $[\mu_r,\mu_1]$."""
    weight = (1 - rho) / rho
    risk, _ = least_bias(frame, d, r, rho, seed)
    bias, (largest, smallest) = least_bias(other, d, r, rho, seed)
    exact = between(*risk)
    general = between(*bias)
    return {
        "flat": compare(exact, "==", theory("flat", weight * r / (d + weight * r))),
        "upper": compare(general, "<=", theory("upper", weight / (smallest + weight))),
        "lower": compare(general, ">=", theory("lower", weight / (largest + weight))),
    }


@panel(
    low_rank_bias_decays_like_r_over_d,
    r"Rank 5: the bias vanishes as $r/d$ ($\rho=0.7$)",
    x="dimension $d$",
    y=r"bias / $\mathbb{E}\,Y^2$",
    log="xy",
)
def _(pen, runs):
    d = np.geomspace(5, 640, 60)
    weight = 0.3 / 0.7
    where = {"r": 5}
    pen.theory(d, weight * 5 / (d + weight * 5), r"$\lambda r/(d+\lambda r)$")
    pen.points(*runs.measured("d", "flat", where=where), "flat spectrum")
    pen.points(*runs.measured("d", "upper", where=where), "uneven", k=1)
    x, upper = runs.predicted("d", "upper", where=where)
    pen.theory(x, upper, r"$\lambda/(\mu_r+\lambda)$", k=1)
    pen.theory(*runs.predicted("d", "lower", where=where), k=1)
    pen.broken(*runs.measured("d", control="uncorrelated entries"), "uncorrelated")


@simulation
def descended(X, y, rho, step, n):
    """Expected excess of averaged descent over the best imputed predictor, and of that over the
    best from complete inputs; what the bound needs."""
    law = ir.masked_law(X, y, observed=rho)
    run = ir.averaged_sgd_risk(law, step=step, n_steps=n)
    best, whole = (ir.best_linear(f(law)) for f in (ir.imputed_moments, ir.complete_moments))
    missing = np.array([best.risk - whole.risk, ir.imputation_bias(law)])
    return run.averaged[-1], missing, run.noise, float(np.linalg.norm(run.target))


@simulation
def points(d, m, noise, seed):
    """Points of the cube [-1, 1]^d, and outputs of linear and other parts."""
    rng = np.random.default_rng([seed, d, m, 3])
    X = rng.uniform(-1, 1, (m, d)) * rng.choice([1.0, 0.3], d)
    X[0] = np.sign(X[0])
    return X, X @ rng.standard_normal(d) + noise * rng.standard_normal(m)


def rounded(value):
    return within(value, 1e-9 * np.abs(value), "rounding")


@descent.ours("derived: Bach and Moulines' bound, proved anew for the masked law", serves="d")
@cases(d=[1, 8], m=12, n=[16, 250], rho=0.7, noise=0.3)
@full(d=[1, 8, 40], m=16, n=[16, 200, 800, 3200], rho=0.7, noise=0.3)
@full(d=8, m=12, n=250, rho=0.7, noise=0.3)
@space(
    d=Int(1, 12),
    m=Int(1, 24),
    n=Int(2, 400),
    rho=Real(0.05, 1.0),
    noise=Real(0.0, 3.0),
)
@breaks("inputs beyond the cube", scale=12.0)
@breaks("steps beyond 1 / d", factor=300.0)
def averaged_sgd_imputed_bound(d, m, n, rho, noise, seed, scale=1.0, factor=1.0):
    r"""$\mathbb E\|\bar\theta_n-\tilde\theta\|_{\tilde\Sigma}^2\le\frac1n\Big(\frac{\sigma\sqrt d}
    {1-n^{-1/4}}+\sqrt dn^{1/4}\|\tilde\theta\|\Big)^2$, $\tilde\theta$ the best linear predictor
    from $\tilde X$, $\tilde\Sigma=\mathbb E\tilde X\tilde X^\top$, $\sigma^2$ the least with
    $\mathbb E(Y-\tilde\theta^\top\tilde X)^2\tilde X\tilde X^\top\preceq\sigma^2\tilde\Sigma$; its
    risk exceeds that of the best from $X$, $\beta$, by at most this and
    $\beta^\top\Sigma(\Sigma+D)^{-1}D\beta$, $D=\frac{1-\rho}\rho\mathrm{diag}\Sigma$."""
    X, y = points(d, m, noise, seed)
    step = 1 / (d * np.sqrt(n))
    excess, missing, level, distance = descended(scale * X, y, rho, factor * step, n)
    terms = ir.averaged_sgd_bound(
        n, d=d, radius=np.sqrt(d), step=step, noise=level, distance=distance
    )
    bound = (theory("noise", terms[0]) + theory("start", terms[1])) ** 2
    return {
        "descent": compare(rounded(excess), "<=", bound),
        "total": compare(rounded(excess + missing[0]), "<=", theory("bias", missing[1]) + bound),
    }


@panel(
    averaged_sgd_imputed_bound,
    r"Averaged descent on 16 points of the cube, step $1/d\sqrt{n}$",
    x="samples $n$",
    y="expected excess",
    log="xy",
)
def _(pen, runs):
    for k, d in enumerate((1, 8, 40)):
        pen.points(*runs.measured("n", "descent", where={"d": d, "m": 16}), f"$d={d}$", k=k)
        pen.theory(*runs.predicted("n", "descent", where={"d": d, "m": 16}), "bound", k=k)


@simulation
def blocks(r, size, noise, power, seed):
    """All signs of r latent variables, each copied to ``size`` entries, with an output of mean
    square power + noise^2."""
    latent = np.array(list(product((-1.0, 1.0), repeat=r)))
    direction = np.random.default_rng([seed, r, 4]).standard_normal(r)
    y = np.sqrt(power) * latent @ direction / np.linalg.norm(direction)
    X = np.repeat(latent, size, axis=1)
    return np.vstack([X, X]), np.concatenate([y + noise, y - noise])


@descent.ours("derived: what the dimension costs where the spectrum is flat", serves="d")
@cases(r=2, size=10, n=400, rho=0.5, noise=0.5)
@cases(r=1, size=12, n=900, rho=0.5, noise=0.0, power=3.0)
@full(r=1, size=12, n=1600, rho=0.5, noise=0.5, power=3.0)
@full(r=2, size=[5, 20, 40], n=[100, 400, 1600], rho=0.5, noise=0.5)
@space(
    r=Int(1, 3),
    n=Int(2, 600),
    size=Int("sqrt(n) / (4 * r)", "max(sqrt(n) / (4 * r), 24) + 1"),
    rho=Real(0.05, 1.0),
    noise=Real(0.0, 2.0),
    power=Real(0.01, 4.0, log=True),
)
@breaks("few entries", size=1)
def averaged_sgd_benign_regime(r, size, n, rho, noise, seed, power=1.0):
    r"""let $\mathbb EX_j^2=1$, $\Sigma=\mathbb EXX^\top$ be $\frac dr$ times a projection of rank
    $r$, $Y=\beta^\top X+\varepsilon$, $\varepsilon$ centred and independent of $X$,
    $s=\mathbb E(\beta^\top X)^2$. If $d\ge\frac14\sqrt n$, the risk of the best linear predictor
    from $\tilde X$ exceeds that of the best from $X$ by at most $\frac{rs}{\rho^2\sqrt n}$, and the
    expected risk at $\bar\theta_n$ exceeds it by at most
    $\frac{rs}{\rho^2\sqrt n}+\frac1n\Big(\frac{\sigma\sqrt d}{1-n^{-1/4}}+\frac{n^{1/4}\sqrt{rs}}
    \rho\Big)^2$, $\sigma$ as in the bound of the descent: $d$ enters by $\sigma\sqrt d$ alone.
    Judged where the entries are copies of $r$ independent signs."""
    d, data = r * size, blocks(r, size, noise, power, seed)
    excess, missing, level, _ = descended(*data, rho, 1 / (d * np.sqrt(n)), n)
    slow = theory("slow", r * power / (rho**2 * np.sqrt(n)))
    spread = theory("noise", np.sqrt(level * d) / (1 - n**-0.25))
    return {
        "total": compare(
            rounded(excess + missing[0]), "<=", slow + (spread / np.sqrt(n) + np.sqrt(slow)) ** 2
        ),
        "imputation": compare(rounded(missing[0]), "<=", slow),
    }


@panel(
    averaged_sgd_benign_regime,
    r"Two latent signs, half of the entries missing: $d\geq\sqrt{n}/4$",
    x="samples $n$",
    y="expected excess",
    log="xy",
)
def _(pen, runs):
    for k, size in enumerate((5, 20, 40)):
        where = {"r": 2, "size": size}
        pen.points(*runs.measured("n", "total", where=where), f"$d={2 * size}$", k=k)
        pen.theory(*runs.predicted("n", "total", where=where), "bound", k=k)
    pen.broken(*runs.measured("n", control="few entries"), "$d=2$")


if __name__ == "__main__":
    run_script(__file__)
