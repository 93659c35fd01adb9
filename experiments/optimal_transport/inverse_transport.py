"""The cost behind a coupling: Gaussian closed forms, certificates, and when the signs come back."""

from functools import cache

import numpy as np
from scipy.stats import norm, wishart
from sklearn.covariance import graphical_lasso
from sklearn.linear_model import Lasso

from theorylab.optimal_transport import (
    gaussian_coupling,
    gaussian_gain,
    gaussian_hessian,
    gaussian_inverse_cost,
    irrepresentability,
)
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
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

EPS = np.finfo(float).eps
KEY = "andrade2023-sparsistency"
gaussians = paper(
    KEY,
    r"Gains $x^\top Ay$, marginals $N(0,\Sigma_\alpha)$, $N(0,\Sigma_\beta)$, "
    r"$W(A)=\max_\pi\langle A,\mathrm E_\pi xy^\top\rangle-\epsilon\mathrm{KL}(\pi|\alpha\otimes"
    r"\beta)$ over their couplings, attained with cross-covariance $S$ "
    r"(judged: $\|A\|=1$, eigenvalues of the covariances in [0.3, 1.2]):",
)


def covariance(d, rng):
    """A random covariance with eigenvalues in [0.3, 1.2]."""
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return (Q * rng.uniform(0.3, 1.2, d)) @ Q.T


def problem(p, q, seed):
    """A gain of norm 1 and two covariances."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((p, q))
    return A / np.linalg.norm(A, 2), covariance(p, rng), covariance(q, rng)


@simulation
def scaled(A, cov_x, cov_y, eps):
    """Sinkhorn's iteration on quadratic potentials: the diagonal blocks of the joint precision
    whose other block is -A / eps, and the last change."""
    inverse_x, inverse_y = np.linalg.inv(cov_x), np.linalg.inv(cov_y)
    G = inverse_y
    for _ in range(20_000):
        F = inverse_x + A @ np.linalg.solve(G, A.T) / eps**2
        new = inverse_y + A.T @ np.linalg.solve(F, A) / eps**2
        change, G = np.linalg.norm(new - G) / np.linalg.norm(G), new
        if change < 1e-15:
            break
    return F, G, change


@gaussians.abstract("c", instance=True)
@cases(p=3, q=[3, 2], eps=0.4)
@full(p=4, q=[2, 4], eps=[2.0, 0.1, 0.5])
@space(p=Int(1, 5), q=Int(1, 5), eps=Real(0.05, 10.0, log=True))
@breaks("another marginal in the inverse", inflate=1.3)
def gaussian_coupling_precision(p, q, eps, seed, inflate=1.0):
    r"""the coupling is Gaussian, the block of its precision between x and y is $-A/\epsilon$, and
    with $\Sigma_\alpha^{1/2}A\Sigma_\beta^{1/2}/\epsilon=U\mathrm{diag}(s)V^\top$ it has $S=
    \Sigma_\alpha^{1/2}U\mathrm{diag}(\frac{2s}{1+\sqrt{1+4s^2}})V^\top\Sigma_\beta^{1/2}$, $W=
    \frac\epsilon2\sum(\sqrt{1+4s^2}-1-\log\frac{1+\sqrt{1+4s^2}}2)$."""
    A, cov_x, cov_y = problem(p, q, seed)
    F, G, change = scaled(A, cov_x, cov_y, eps)
    K = np.block([[F, -A / eps], [-A.T / eps, G]])
    S = np.linalg.inv(K)[:p, p:]
    J = np.block([[inflate * cov_x, S], [S.T, cov_y]])
    inverse = np.linalg.inv(J)
    logdet_x, logdet_y = (np.linalg.slogdet(c)[1] for c in (cov_x, cov_y))
    valid = np.block([[cov_x, S], [S.T, cov_y]])
    attained = np.sum(A * S) / eps + (np.linalg.slogdet(valid)[1] - logdet_x - logdet_y) / 2
    # Weak duality at the potentials of Sinkhorn's iteration bounds every coupling, Gaussian or not.
    traces = np.trace(F @ cov_x) + np.trace(G @ cov_y) - p - q
    bound = (traces - np.linalg.slogdet(K)[1] - logdet_x - logdet_y) / 2
    error = (change + 100 * EPS) * np.linalg.cond(K) * np.linalg.norm(S)
    return {
        "precision": compare(
            within(
                -eps * inverse[:p, p:],
                eps * np.linalg.norm(inverse, 2) ** 2 * error,
                "last change and rounding, through two inversions",
            ),
            "==",
            theory("gain", A),
        ),
        "cross-covariance": compare(
            within(S, error, "last change and rounding"),
            "==",
            theory("cross-covariance", gaussian_coupling(A, cov_x, cov_y, eps)),
        ),
        "value": compare(
            between(attained, bound, "max"),
            "==",
            theory("value", gaussian_gain(A, cov_x, cov_y, eps) / eps),
        ),
    }


@panel(
    gaussian_coupling_precision,
    r"The precision of the coupling shows $-A/\epsilon$",
    x="entry of $A$",
    y=r"$-\epsilon$ times that of the precision",
)
def _(pen, runs):
    pen.theory([-1, 1], [-1, 1])
    for k, run in enumerate(runs.judgement.runs):
        part = run.parts["precision"]
        pen.points(part.predicted, part.shown, part.error, "" if k else "Sinkhorn's iteration")
    part = runs.judgement.controls[0].run.parts["precision"]
    pen.broken(part.predicted, part.shown, label="another marginal")


@simulation
def differentiated(p, q, eps, seed):
    """Derivative of the cross-covariance, central differences at h and h / 2, extrapolated."""
    A, cov_x, cov_y = problem(p, q, seed)
    tables = []
    for h in (2e-4 * eps, 1e-4 * eps):
        steps = h * np.eye(p * q).reshape(-1, p, q)
        rows = [
            gaussian_coupling(A + E, cov_x, cov_y, eps)
            - gaussian_coupling(A - E, cov_x, cov_y, eps)
            for E in steps
        ]
        tables.append(np.reshape(rows, (p * q, p * q)) / (2 * h))
    coarse, fine = tables
    return (4 * fine - coarse) / 3, np.abs(fine - coarse).max()


@gaussians.abstract("c", instance=True)
@cases(p=3, q=[3, 2], eps=0.7)
@full(p=4, q=[2, 4], eps=[3.0, 0.2, 0.7])
@space(p=Int(1, 4), q=Int(1, 4), eps=Real(0.2, 5.0, log=True))
@breaks("second term left out", swap=0.0)
def hessian_formula(p, q, eps, seed, swap=1.0):
    r"""$\nabla^2W(A)^{-1}=\epsilon(\Sigma_\alpha-S\Sigma_\beta^{-1}S^\top)^{-1}\otimes(\Sigma_\beta-
    S^\top\Sigma_\alpha^{-1}S)^{-1}+\frac1\epsilon(A\otimes A^\top)\mathcal T$, matrices flattened
    row by row, $\mathcal T$ the transposition."""
    A, cov_x, cov_y = problem(p, q, seed)
    S = gaussian_coupling(A, cov_x, cov_y, eps)
    left = cov_x - S @ np.linalg.solve(cov_y, S.T)
    right = cov_y - S.T @ np.linalg.solve(cov_x, S)
    first = eps * np.kron(np.linalg.inv(left), np.linalg.inv(right))
    transposed = np.eye(p * q).reshape(p, q, p * q).transpose(1, 0, 2).reshape(p * q, p * q)
    second = swap / eps * np.kron(A, A.T) @ transposed
    derivative, error = differentiated(p, q, eps, seed)
    inverse = np.linalg.inv(derivative)
    amplified = np.linalg.norm(inverse, 2) ** 2 * p * q * error
    return compare(
        within(inverse, amplified, "halved step, through the inverse"),
        "==",
        theory("conditional covariances", first) + theory("transposition", second),
    )


@panel(
    hessian_formula,
    "Both terms of the inverse Hessian are needed",
    x="entry, stated",
    y="entry, by differences of $S$",
)
def _(pen, runs):
    part = runs.judgement.runs[-1].parts[""]
    ends = [part.predicted.min(), part.predicted.max()]
    pen.theory(ends, ends)
    pen.points(part.predicted, part.shown, part.error, "both terms")
    part = runs.judgement.controls[0].run.parts[""]
    pen.broken(part.predicted, part.shown, label="first term")


limits = paper(
    KEY,
    r"Gaussians as in the closed forms, $H=\nabla^2W(A)$, $I$ the support of $A$ "
    r"(judged: symmetric on a random graph, norm 1):",
)


def sparse(d, seed, spread, negative=0.0):
    """A symmetric gain of norm 1 on a random graph, not complete, positive definite unless made
    otherwise, two covariances, and the second at small weights: the first again unless spread."""
    rng = np.random.default_rng(seed)
    present = rng.choice([-1, 0, 0, 1], (d, d)) + np.diag(rng.choice([-2, 2], d - 1), 1)
    edges = np.triu(rng.uniform(0.4, 1.0, (d, d)) * np.sign(present), 1)
    edges[0, -1] = 0.0
    edges += edges.T
    A = np.diag(rng.uniform(1.0, 1.5, d)) + 0.5 * edges / np.linalg.norm(edges, 2)
    A[0, 0] -= 2 * negative * A[0, 0]
    x, y = covariance(d, rng), covariance(d, rng)
    return A / np.linalg.norm(A, 2), x, y, (1 - spread) * x + spread * y


@simulation
def certificates(d, seed, negative, spread, reaches):
    """Entries of the certificate off the support, at eps = reach, and at eps = 1 / reach."""
    A, x, y, other = sparse(d, seed, spread, negative)

    def off(y, eps):
        return irrepresentability(gaussian_hessian(A, x, y, eps), A)[A == 0]

    return np.array([[off(y, r) for r in reaches], [off(other, 1 / r) for r in reaches]])


@limits.ours("derived: rates, and equal marginals in place of the identity", serves="bd")
@cases(d=4, reach=[3000.0, 10000.0])
@full(d=4, reach=[3000.0, 5000.0, 10000.0, 20000.0, 40000.0])
@space(d=Int(3, 5), reach=Real(100.0, 40000.0, log=True))
@breaks("A indefinite", negative=1.0)
@breaks("different marginals", spread=1.0)
def certificate_limits(d, reach, seed, negative=0.0, spread=0.0):
    r"""$z_{I^c}=H_{I^cI}H_{II}^{-1}\mathrm{sign}(A_I)$ tends to the Lasso's, which has
    $H=\Sigma_\alpha\otimes\Sigma_\beta$, as $\epsilon\to\infty$, with a difference of order
    $\epsilon^{-2}$; for $\Sigma_\alpha=\Sigma_\beta$ and $A\succ0$ it tends to the graphical
    Lasso's, $H=A^{-1}\otimes A^{-1}$, as $\epsilon\to0$, with one of order $\epsilon$."""
    grid = np.geomspace(8.0, 800.0, 13)
    reaches = (reach / 2, reach, *grid, *(2 * grid))
    wide, narrow = certificates(d, seed, negative, spread, reaches)
    A, cov_x, cov_y, _ = sparse(d, seed, spread, negative)
    inverse = np.linalg.inv(A)
    parts = {}
    for name, z, H, order in (
        ("Lasso", wide, np.kron(cov_x, cov_y), 2),
        ("graphical Lasso", narrow, np.kron(inverse, inverse), 1),
    ):
        # The rest of a difference of order k falls by 2^k at twice the reach.
        rest = 2 * np.abs(z[1] - z[0]).max() / (2**order - 1) + 1e-9
        parts[name] = compare(
            within(z[1], rest, "twice the change from half the reach, rounding"),
            "==",
            theory(name, irrepresentability(H, A)[A == 0]),
        )
        moves = np.linalg.norm(z[2 : 2 + grid.size] - z[2 + grid.size :], axis=1)
        parts[f"order, {name}"] = compare(
            slope(grid, moves), "==", -theory(f"order, {name}", order)
        )
    return parts


def limit_panel(pen, runs, broken, label):
    """Distances from the limits against the reach, and that of a part of the first control."""

    def off(part):
        return np.linalg.norm(part.centre - part.predicted)

    reach = np.array([run.instance["reach"] for run in runs.judgement.runs])
    for k, (name, order) in enumerate((("Lasso", 2), ("graphical Lasso", 1))):
        found = np.array([off(run.parts[name]) for run in runs.judgement.runs])
        pen.theory(reach, found[-1] * (reach / reach[-1]) ** -order, k=k)
        pen.points(reach, found, label=name, k=k)
    pen.broken(reach[-1], off(runs.judgement.controls[0].run.parts[broken]), label=label)


@panel(
    certificate_limits,
    r"Large $\epsilon$: the Lasso's certificate; small: the graphical Lasso's",
    x=r"$\epsilon$ (Lasso) or $1/\epsilon$, for $\|A\|=1$",
    y="distance from the certificate in the limit",
    log="xy",
)
def _(pen, runs):
    limit_panel(pen, runs, "graphical Lasso", "A indefinite")


@simulation
def minimisers(d, seed, level, spread, reaches, power):
    """Minimisers at eps = reach with lambda = level / eps, and at eps = 1 / reach with lambda =
    level eps."""
    A, x, y, other = sparse(d, seed, spread)

    def minimiser(y, eps, lam):
        S = gaussian_coupling(A, x, y, eps)
        return gaussian_inverse_cost(S, x, y, lam, eps=eps, tol=1e-10).matrix

    lams = [level * reach**-power for reach in reaches]
    wide = [minimiser(y, reach, lam) for reach, lam in zip(reaches, lams, strict=True)]
    narrow = [minimiser(other, 1 / reach, lam) for reach, lam in zip(reaches, lams, strict=True)]
    return wide, narrow


@limits.abstract("d", instance=True)
@cases(d=4, level=0.05, reach=[300.0, 1000.0])
@full(d=4, level=0.05, reach=[200.0, 300.0, 500.0, 1000.0, 2000.0])
@space(d=Int(3, 5), level=Real(0.02, 0.15), reach=Real(100.0, 2000.0, log=True))
@breaks("penalty not rescaled", power=0.0)
@breaks("different marginals", spread=1.0)
def penalised_problem_interpolates(d, level, reach, seed, spread=0.0, power=1.0):
    r"""the minimiser of $\lambda\|B\|_1+W(B)-\langle B,S\rangle$ tends to the Lasso's, $\min
    \lambda_0\|B\|_1+\frac12\langle B-A,\Sigma_\alpha(B-A)\Sigma_\beta\rangle$, as $\epsilon\to
    \infty$ with $\lambda=\lambda_0/\epsilon$, and for $\Sigma_\alpha=\Sigma_\beta$, $A\succ0$ to
    the graphical Lasso's, $\min_{B\succ0}2\lambda_0\|B\|_1+\langle B,A^{-1}\rangle-\log\det B$, as
    $\epsilon\to0$ with $\lambda=\lambda_0\epsilon$."""
    reaches = (reach / 2, reach)
    wide, narrow = minimisers(d, seed, level, spread, reaches, power)
    A, cov_x, cov_y, _ = sparse(d, seed, spread)
    design = np.kron(*(np.linalg.cholesky(c).T for c in (cov_x, cov_y)))
    lasso = Lasso(alpha=level / d**2, fit_intercept=False, tol=1e-13, max_iter=100_000)
    lasso.fit(design, design @ A.ravel())
    S = np.linalg.inv(A) + 2 * level * np.eye(d)
    graphical = graphical_lasso(S, 2 * level, tol=1e-8, enet_tol=1e-10, max_iter=500)[1]
    return {
        name: compare(
            within(
                found[1],
                2 * np.abs(found[1] - found[0]).max() / (2**order - 1) + 1e-6,
                "twice the change from half the reach, solvers",
            ),
            "==",
            theory(name, limit),
        )
        for name, found, limit, order in (
            ("Lasso", wide, lasso.coef_.reshape(d, d), 2),
            ("graphical Lasso", narrow, graphical, 1),
        )
    }


@panel(
    penalised_problem_interpolates,
    r"The same limits for the minimisers, once $\lambda$ is rescaled",
    x=r"$\epsilon$ (Lasso) or $1/\epsilon$, for $\|A\|=1$",
    y="distance from the minimiser in the limit",
    log="xy",
)
def _(pen, runs):
    limit_panel(pen, runs, "Lasso", r"$\lambda=\lambda_0$")


samples = paper(
    KEY,
    r"$n$ samples of the entropic coupling of two Gaussians for a sparse $A$, $\|A\|=1$; the "
    r"minimiser of $\lambda\|B\|_1+W_n(B)-\langle B,S_n\rangle$, $W_n$ that of the Gaussians of "
    r"the empirical covariances, $S_n$ the empirical cross-covariance; $z$ as in the limits "
    r"(judged: the first random gain and $\epsilon$ in [0.1, 3] with $\|z_{I^c}\|_\infty$ within "
    r"0.05 of the size)",
)


@cache
def gain(p, q, size, seed):
    """The first random gain of norm 1, two covariances and entropic weight whose certificate has
    about this size, with the Hessian."""
    rng = np.random.default_rng(seed)
    while True:
        A = rng.uniform(0.5, 1.0, (p, q)) * rng.choice([-1, 0, 0, 1], (p, q))
        if A.any() and not A.all():
            A /= np.linalg.norm(A, 2)
            x, y, eps = covariance(p, rng), covariance(q, rng), 10 ** rng.uniform(-1.0, 0.5)
            H = gaussian_hessian(A, x, y, eps)
            if abs(np.abs(irrepresentability(H, A)[A == 0]).max() - size) < 0.05:
                return A, x, y, eps, H


def fits(p, q, size, seed, n, lam, repeats):
    """Minimisers from n samples, and the noise of their cross-covariances, one after another."""
    A, x, y, eps, _ = gain(p, q, size, seed)
    S = gaussian_coupling(A, x, y, eps)
    J, rng = np.block([[x, S], [S.T, y]]), np.random.default_rng(seed + 1)
    for C in wishart.rvs(n, J / n, size=repeats, random_state=rng):
        x, y, cross = C[:p, :p], C[p:, p:], C[:p, p:]
        fit = gaussian_inverse_cost(cross, x, y, lam, eps=eps, tol=1e-13)
        yield fit.matrix, cross - gaussian_coupling(A, x, y, eps)


@simulation
def recovered(p, q, size, n, repeats, seed):
    """Whether each fit has the signs of A, and a bound of how far noise at this n keeps that from
    its limit: normal tails at A less its shrinkage, and at 1 less the certificate."""
    A, _, _, _, H = gain(p, q, size, seed)
    lam, on, signs = 4 * np.sqrt(np.log(n) / n), A.ravel() != 0, np.sign(A)
    found, noise = zip(*fits(p, q, size, seed, n, lam, repeats), strict=True)
    hits = (np.sign(found) == signs).all(axis=(1, 2))
    noise, part = np.reshape(noise, (repeats, -1)), H[np.ix_(on, on)]
    inner = np.linalg.solve(part, noise[:, on].T).T
    outer = noise[:, ~on] - inner @ H[np.ix_(on, ~on)]
    shrunk = A[A != 0] - lam * np.linalg.solve(part, signs[A != 0])
    excess = np.abs(irrepresentability(H, A)[A == 0]) - 1
    apart = norm.sf(lam * np.abs(excess) / outer.std(axis=0))
    if (excess > 0).any():  # one entry beyond 1 suffices
        return hits, 2 * apart[excess > 0].min()
    return hits, 2 * (apart.sum() + norm.sf(signs[A != 0] * shrunk / inner.std(axis=0)).sum())


@simulation
def first_order(p, q, size, seed):
    """Without noise, the dual variable off the support and the shrinkage on it over lambda, each
    extrapolated from two small values, and their last changes with what the residual explains."""
    A, x, y, eps, H = gain(p, q, size, seed)
    S, on, rows = gaussian_coupling(A, x, y, eps), A != 0, []
    for lam in (2e-4 * min(eps, 1 / eps), 1e-4 * min(eps, 1 / eps)):
        fit = gaussian_inverse_cost(S, x, y, lam, eps=eps, tol=1e-13)
        rows.append([(S - fit.moments)[~on] / lam, (A - fit.matrix)[on] / lam])
    residual, inverse = fit.kkt_residual, np.linalg.inv(H[np.ix_(on.ravel(), on.ravel())])
    amplified = (H[np.ix_(~on.ravel(), on.ravel())] @ inverse, inverse)
    return [
        (2 * b - a, np.abs(b - a).max() + 10 * (residual + 1e-9) * np.linalg.norm(M, np.inf))
        for a, b, M in zip(*rows, amplified, strict=True)
    ]


@samples.abstract("a", instance=True)
@cases(size=0.6, repeats=200)
@full(size=[0.2, 0.35, 0.5, 0.65, 0.8], repeats=400)
@space(p=Int(2, 4), q=Int(2, 4), size=Real(0.3, 0.85), n=Choice((10**10, 10**9, 10**8)))
@breaks("certificate above 1", size=1.3)
def sparsistency(size, seed, p=3, q=3, n=10**9, repeats=25):
    r""", $\lambda=4\sqrt{\log n/n}$: if $\|z_{I^c}\|_\infty<1$, the signs of $A$ are recovered with
    a probability that tends to 1; without noise the dual variable over $\lambda$ tends to $z_{I^c}$
    and $(A-A_\lambda)_I/\lambda$ to $H_{II}^{-1}\mathrm{sign}(A_I)$ as $\lambda\to0$."""
    A, _, _, _, H = gain(p, q, size, seed)
    on = A != 0
    part = H[np.ix_(on.ravel(), on.ravel())]
    hits, tail = recovered(p, q, size, n, repeats, seed)
    dual, shrinkage = first_order(p, q, size, seed)
    halved = "change from twice the penalty, residual of the solver"
    return {
        "recovered": compare(
            mean(hits, bias=tail, source="normal tail of the noise at this n"),
            "==",
            theory("limit", 1.0),
        ),
        "dual": compare(
            within(*dual, halved),
            "==",
            theory("certificate", irrepresentability(H, A)[~on]),
        ),
        "shrinkage": compare(
            within(*shrinkage, halved),
            "==",
            theory("shrinkage", np.linalg.solve(part, np.sign(A[on]))),
        ),
    }


@panel(
    sparsistency,
    "The certificate decides",
    x=r"$\|z_{I^c}\|_\infty$",
    y="part of the fits with the signs of $A$",
)
def _(pen, runs):
    pen.theory([0.1, 1, 1, 1.4], [1, 1, 0, 0], "limit")
    pen.points(*runs.measured("size"), "recovered")
    pen.broken(*runs.measured("size", control="certificate above 1"), "not recovered")


@samples.ours("derived: the converse, with the same certificate", serves="a")
@cases(size=1.3, repeats=200)
@full(size=[1.2, 1.5, 2.0, 1.3], repeats=400)
@space(p=Int(2, 4), q=Int(2, 4), size=Real(1.2, 2.0), n=Choice((10**10, 10**9, 10**8)))
@breaks("certificate below 1", size=0.6)
def signs_fail_beyond_irrepresentability(size, seed, p=3, q=3, n=10**9, repeats=25):
    r""", $\lambda=4\sqrt{\log n/n}$: if $\|z_{I^c}\|_\infty>1$, the signs of $A$ are recovered with
    a probability that tends to 0."""
    hits, tail = recovered(p, q, size, n, repeats, seed)
    return compare(
        mean(hits, bias=tail, source="normal tail of the noise at this n"),
        "==",
        theory("limit", 0.0),
    )


@simulation
def distances(p, q, size, level, power, repeats, seed):
    """Sample sizes, and the distance from A of fits with lambda = level / n^power, a row a
    repetition (of the same random numbers)."""
    A, sizes, columns = gain(p, q, size, seed)[0], np.append(1e4, np.geomspace(1e8, 1e12, 6)), []
    for n in sizes.round():
        found = fits(p, q, size, seed, n, level * n**-power, repeats)
        columns.append([np.linalg.norm(B - A) for B, _ in found])
    return sizes, np.transpose(columns)


@samples.ours("recalled: the published rate; derived: it needs no certificate", serves="a")
@cases(size=[0.6, 1.3], repeats=12)
@full(size=[0.3, 2.0, 0.8, 1.3], level=[4.0, 1.0], repeats=24)
@space(p=Int(2, 4), q=Int(2, 4), size=Real(0.3, 2.0), level=Real(1.0, 20.0, log=True))
@breaks("penalty of order $n^{-1/4}$", power=0.25)
def estimation_rate(size, seed, level=4.0, p=3, q=3, repeats=5, power=0.5):
    r""", $\lambda=cn^{-1/2}$ (the level is $c$): the distance of the minimiser from $A$ falls like
    $n^{-1/2}$, whether $\|z_{I^c}\|_\infty<1$ or not."""
    record = distances(p, q, size, level, power, repeats, seed)
    return compare(slope(*record), "==", -theory("rate", 0.5))


if __name__ == "__main__":
    run_script(__file__)
