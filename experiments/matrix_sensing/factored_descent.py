"""Gradient descent on low-rank factors: what spare columns cost."""

import warnings
from dataclasses import replace

import numpy as np

from theorylab.matrix_sensing import (
    EntryStatus,
    asymmetric_gradient_descent,
    error_bounds,
    error_law,
    gaussian_operator,
    gradient_descent,
    limit_modes,
    rebalance,
    rebalanced_slowest_bounds,
    small_start_slowest,
    spurious_bounds,
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

LONGEST = 600_000  # steps of a leg; an instance that needs more has no verdict
symmetric = paper(
    "xiong2023-over",
    r"$X_{t+1}=X_t-\eta(X_tX_t^\top-M)X_t$, small $\eta$, $M\succeq0$, $n\times n$ of rank $r$, "
    r"$X_0\in\mathbb R^{n\times k}$ Gaussian:",
)
asymmetric = paper(
    "xiong2023-over",
    r"$F\leftarrow F-\eta EG$, $G\leftarrow G-\eta E^\top F$, $E=FG^\top-M$, small $\eta$, "
    r"$M\in\mathbb R^{n\times n}$ of rank $r$, $F_0=\alpha\tilde F$ and $G_0=\alpha\beta\tilde G$ "
    r"with $k$ Gaussian columns:",
)
SPARE = {"n": Int(5, 10), "r": Int(1, 3), "k": Int("r + 1", 12), "low": Real(0.3, 1.0)}
WIDE = {"n": Int(6, 11), "r": Int(1, 2), "k": Int("r + 1", 5), "low": Real(0.4, 1.0)}


def truth(n, r, low):
    """Eigenvalues 1 to ``low``; diagonal, as Gaussian starts are invariant under rotations."""
    return np.diag(np.append(np.linspace(1, low, r), np.zeros(n - r)))


def descend(M, left, right, eta, steps, *, tol=0.0, record=(0,), operator=None, observe=None):
    """Run the symmetric descent if ``right`` is None, else the asymmetric one; silent on misses."""
    common = {"search_rank": left.shape[1], "step_size": eta, "steps": steps, "tol": tol}
    common |= {"record": record, "operator": operator, "observe": observe}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        if right is None:
            run = gradient_descent(M, initial=left, **common)
            return run, run.X, None
        run = asymmetric_gradient_descent(M, left=left, right=right, **common)
        return run, run.F, run.G


def starts(n, k, alpha, beta, seed):
    """Factors F_0, G_0 and a step that is stable from the start on."""
    rng = np.random.default_rng(seed)
    left, right = alpha * rng.standard_normal((n, k)), alpha * beta * rng.standard_normal((n, k))
    return left, right, 0.4 / (1 + np.linalg.norm(left, 2) ** 2 + np.linalg.norm(right, 2) ** 2)


@simulation
def tail(M, left, right, eta, first=1e-3, last=1e-11, longest=LONGEST):
    """Return steps, errors and residuals E between two relative errors, and the last factors."""
    _, left, right = descend(M, left, right, eta, longest, tol=first)
    steps = descend(M, left, right, eta, longest, tol=last)[0].steps
    t = np.unique(np.linspace(0, steps, 41).astype(int))
    product = (lambda X: X @ X.T) if right is None else (lambda F, G: F @ G.T)
    run, F, G = descend(M, left, right, eta, steps, record=t, observe=product)
    return t, run.errors, np.array(run.observed) - M, (F, F if G is None else G)


def late_rates(t, errors, residuals, ends, eta):
    """Enclose logarithms of ratios of sizes a step: of the slowest part of E, and of all of E.

    To first order each product of singular vectors of the factors carries a part of E that decays
    by itself, and E in the end like the slowest that it has. Which parts those are (within 1 %) is
    all that the singular values say here; a part that is lost in rounding half way, below about
    1e-5 of E, does not count, nor one at two zeros, which is of second order.
    """
    (U, f), (V, g) = (np.linalg.svd(side)[:2] for side in ends)
    f, g = (np.append(v**2, np.zeros(len(W) - v.size)) for v, W in ((f, U), (g, V)))
    speed, parts = np.add.outer(f, g), np.abs(U.T @ residuals @ V)
    floor = 1e-14 * speed.max()
    seen = (parts[t.size // 2] > 20 * floor) & (speed > 1e-10 * speed.max())
    slow = seen & (speed <= 1.01 * speed[seen].min(initial=np.inf))
    found = slope(t, np.linalg.norm(parts[:, slow], axis=1), scale="linear", floor=floor)
    # Among parts of nearly one speed any may be the largest.
    spread = speed[slow].max(initial=0.0) / speed[slow].min(initial=np.inf) - 1 if slow.any() else 0
    found = replace(found, error=found.error + spread * np.abs(found.centre))
    return found, slope(t, errors, scale="linear")


@simulation
def sharp(n, r, k, low, alpha, step, seed, used, negative, beta=None):
    r"""Return ``c`` = 2 eta T times the error, and the factor by which its limit may differ from
    it.

    From entry into the region of `error_bounds`, spurious singular values follow
    s <- s(1 - eta s^2) up to their ratio there: c grows to its limit by at most 1 / (2 eta T s_T^2)
    for the smallest. That is proved of this recursion alone; that the error of the matrix follows
    it, with q values of equal weight, is what c tells (of one value the factor says all, so that
    the limit is the upper end of the enclosure).
    """
    left = alpha * np.random.default_rng(seed).standard_normal((n, k))
    M, eta = truth(n, r, low), step / (1 + np.linalg.norm(left, 2) ** 2)
    law = error_law(M, left, step_size=eta, multiples=[1.0], longest=LONGEST)
    if law.status is EntryStatus.NOT_ENTERED:
        return np.nan, np.nan
    entry = int(law.times[0])
    entered = descend(M, left, None, eta, entry)[1]
    onset = error_bounds(M, entered, step_size=eta, steps=0).onset
    T = int(25 * onset)
    if entry + T > LONGEST:
        return np.nan, np.nan
    proved = error_bounds(M, entered, step_size=eta, steps=T)
    least = spurious_bounds([1 / np.sqrt(eta * onset)], step_size=eta, steps=T)[0][0]
    left = np.where(np.arange(k) < used, left, 0.0)
    M = M - np.diag(np.append(np.zeros(n - 1), negative))
    right = None if beta is None else beta * left
    c = 2 * eta * T * descend(M, left, right, eta, entry + T)[0].errors[-1]
    return c, proved.upper / proved.lower / (2 * eta * T * least**2)


def sharp_limit(c, factor):
    """Enclose the limit between c / factor and c * factor."""
    source = "growth of 1/s^2 and drift of s from the state of entry on, 25 onsets later; rounding"
    return within(c * (factor + 1 / factor) / 2, c * (factor - 1 / factor) / 2 + 1e-9, source)


@symmetric.abstract("a", instance=True)
@cases(n=12, r=2, k=4)
@full(n=20, r=2, k=[25, 10, 6, 4, 3], alpha=0.1)
@space(**SPARE, alpha=Real(0.2, 0.6), step=Real(0.2, 0.5))
@breaks("X_0 has r columns that are not zero", lambda case: {"used": case["r"]})
@breaks("M indefinite", negative=0.1)
def symmetric_overparam_sharp_limit(
    n, r, k, seed, low=0.6, alpha=0.3, step=0.3, used=99, negative=0.0
):
    r"""for $r<\min(k,n)$, $2\eta T\|X_TX_T^\top-M\|_F\to\sqrt{\min(k,n)-r}$: error of order $1/T$,
    squared error of order $1/T^2$."""
    c, factor = sharp(n, r, k, low, alpha, step, seed, used, negative)
    return compare(sharp_limit(c, factor), "==", theory("constant", np.sqrt(min(k, n) - r)))


@panel(
    symmetric_overparam_sharp_limit,
    r"Symmetric: error $\sim\sqrt{\min(k,n)-r}\,/\,2\eta T$",
    x="columns $k$",
    y=r"$\lim\,2\eta T\,\|X_TX_T^\top-M\|_F$",
)
def _(pen, runs):
    k = np.arange(3, 26)
    pen.theory(k, np.sqrt(np.minimum(k, 20) - 2), r"$\sqrt{\min(k,n)-r}$")
    pen.points(*runs.measured("k"), "descent", k=1)
    pen.broken(*runs.measured("k", control="X_0 has r columns that are not zero"), "rank-$r$ start")


@asymmetric.abstract("g", instance=True)
@cases(n=12, r=2, k=4)
@full(n=12, r=2, k=[14, 9, 6, 4, 3])
@space(**SPARE, alpha=Real(0.2, 0.6), step=Real(0.2, 0.4))
@breaks("G_0 = F_0 / 3", beta=1 / 3)
@breaks("G_0 = 0.9 F_0", beta=0.9)
def balanced_initialisation_destroys_linear_rate(
    n, r, k, seed, low=0.6, alpha=0.3, step=0.2, beta=1.0
):
    r"""for symmetric $M\succeq0$, $r<\min(k,n)$ and $G_0=F_0$, where $F^\top F-G^\top G=0$
    throughout, the linear rate is lost: $\eta T\|F_TG_T^\top-M\|_F\to\frac12\sqrt{\min(k,n)-r}$."""
    c, factor = sharp(n, r, k, low, alpha, step, seed, k, 0.0, beta)
    constant = theory("constant", np.sqrt(min(k, n) - r) / 2)
    return compare(sharp_limit(c / 2, factor), "==", constant)


@panel(
    balanced_initialisation_destroys_linear_rate,
    r"Balanced factors: $1/T$ again",
    x="columns $k$",
    y=r"$\lim\,\eta T\,\|F_TG_T^\top-M\|_F$",
)
def _(pen, runs):
    k = np.arange(3, 15)
    pen.theory(k, np.sqrt(np.minimum(k, 12) - 2) / 2, r"$\frac{1}{2}\sqrt{\min(k,n)-r}$")
    pen.points(*runs.measured("k"), "$G_0=F_0$", k=1)
    pen.broken(*runs.measured("k", control="G_0 = 0.9 F_0"), "$G_0=0.9F_0$")


def small_start(value, four, two, one):
    """Enclose the limit of a value for small starts, from signed ones at sizes 4a, 2a and a.

    A rest a^2 (b + c log 1/a) may agree at 2a and a: (8 (two - one) - (four - one)) / 9 is its
    part at a for all b and c. Twice that leaves room for the next order.
    """
    rest = (8 * (two - one) - (four - one)) / 9
    error = np.maximum(np.abs(two - one), 2 * np.abs(rest)).max()
    return within(value, error, "starts of two and four times the size")


@symmetric.abstract("b", "c", instance=True)
@cases(n=8, r=3, alpha=0.1)
@full(n=12, r=3, alpha=[1.0, 0.5, 0.01, 0.1])
@space(n=Int(3, 9), r=Int(1, "min(3, n - 1)"), alpha=Real(0.01, 1.0, log=True), low=Real(0.3, 1.0))
@breaks("a spare column", spare=1)
@breaks("a column of the start is zero", used=-1)
def exact_parameterisation_rates(n, r, alpha, seed, low=0.6, spare=0, used=99):
    r"""for $k=r<n$ the error falls in the limit by $1-\eta\lambda_r(M)$ a step; that of the
    asymmetric descent ($F_0$ of size $\alpha$, $G_0$ of size $\alpha/3$) by
    $1-\eta\min(\sigma_r(F)^2,\sigma_r(G)^2)$ at its limit, and $\min(\cdot)\to\lambda_r(M)$
    as $\alpha\to0$."""
    M, (X, G, eta) = truth(n, r, low), starts(n, r + spare, alpha, 1 / 3, seed)
    X, G = X[:, :used], G[:, :used]
    alone, pair = tail(M, X, None, eta, longest=20_000), tail(M, X, G, eta, longest=20_000)
    shrunk = [tail(M, f * X, f * G, eta, longest=20_000) for f in (0.04, 0.02, 0.01)]
    sides = np.array(
        [
            [np.linalg.svd(side, compute_uv=False)[min(r, side.shape[1]) - 1] ** 2 for side in ends]
            for *_, ends in (pair, *shrunk)
        ]
    )
    small = small_start(sides[3].min(), *sides[1:])
    decays = {
        "symmetric": np.log1p(-eta * theory("symmetric", low if r > 1 else 1.0)),
        "asymmetric": np.log1p(-eta * theory("asymmetric", sides[0].min())),
    }
    rates = dict(zip(decays, (late_rates(*run, eta) for run in (alone, pair)), strict=True))
    return {
        **{name: compare(rates[name][0], "==", decay) for name, decay in decays.items()},
        "small start": compare(small, "==", theory("small start", low if r > 1 else 1.0)),
        **{f"{name}, all": compare(rates[name][1], "<=", decay) for name, decay in decays.items()},
    }


@panel(
    exact_parameterisation_rates,
    r"Exact rank, $k=r$: geometric, and at the symmetric rate from small starts",
    x=r"size of the start, $\alpha$",
    y="rate per step, over $-\\log(1-\\eta\\lambda_r)$",
    log="xy",
)
def _(pen, runs):
    x, unit = runs.predicted("alpha", "symmetric")
    for j, name in enumerate(("symmetric", "asymmetric")):
        pen.theory(x, runs.predicted("alpha", name)[1] / unit, k=j)
        _, y, error = runs.measured("alpha", name)
        pen.points(x, y / unit, -error / unit, name, k=j)


@asymmetric.abstract("d", instance=True)
@cases(n=9, r=2, k=4, alpha=0.3, beta=1.0)
@cases(n=9, r=2, k=4, alpha=0.2)
@full(n=12, r=2, k=4, alpha=[0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6], beta=1.0)
@full(n=12, r=2, k=4, alpha=[0.5, 0.4, 0.3, 0.2, 0.15, 0.1])
@space(**WIDE, alpha=Real(0.15, 0.6), beta=Real(0.2, 0.5))
@breaks("the start does not excite the slowest mode", excited=False)
def asymmetric_overparam_linear_rate_constant(
    n, r, k, alpha, seed, low=0.6, beta=1 / 3, excited=True
):
    r"""for $k>r$, with $(F,G)$ the limit of the descent,
    $\|E_{t+1}\|_F/\|E_t\|_F\to1-\eta\min\{\lambda_i(FF^\top)+\lambda_j(GG^\top)>0\}$, the smallest
    non-zero Hessian eigenvalue there (in general not $\sigma_k(F)^2$)."""
    F, G, eta = starts(n, k, alpha, beta, seed)
    if not excited:
        G[r:] = 0  # the rows of G off the signal stay zero
    late = tail(truth(n, r, low), F, G, eta)
    mode = theory("mode", limit_modes(*late[-1], rank=r, step_size=eta).slowest)
    slowest, whole = late_rates(*late, eta)
    return {
        "slowest part": compare(slowest, "==", np.log1p(-eta * mode)),
        "all": compare(whole, "<=", np.log1p(-eta * mode)),
    }


@panel(
    asymmetric_overparam_linear_rate_constant,
    r"Asymmetric, $k>r$: the slowest mode of the limit sets the rate",
    x=r"size of the start, $\alpha$",
    y=r"rate per step",
    log="xy",
)
def _(pen, runs):
    for j, beta in enumerate((1.0, 1 / 3)):
        where = {"beta": beta} if beta == 1.0 else {"beta": None}
        x, y = runs.predicted("alpha", where=where)
        pen.theory(x, -y, "", k=j)
        x, y, error = runs.measured("alpha", where=where)
        pen.points(x, -y, error, r"$\beta=1$" if beta == 1.0 else r"$\beta=1/3$", k=j)


@simulation
def modes_of_limits(n, r, k, low, beta, seed, alphas, columns):
    """Return the constant of the start, and the slowest mode at the limit of each size of it."""
    F, G, _ = starts(n, k, 1.0, beta, seed)
    M, eta, found = truth(n, r, low), 0.5, []
    for alpha in alphas:
        ends = descend(M, alpha * F[:, :columns], alpha * G[:, :columns], eta, LONGEST, tol=1e-7)
        missed = ends[0].errors[-1] > 2e-7 * np.linalg.norm(M)
        found.append(np.nan if missed else limit_modes(*ends[1:], rank=r, step_size=eta).slowest)
    return small_start_slowest(F, G, M), np.array(found)


@asymmetric.abstract("d", instance=True)
@cases(n=9, r=2, k=4)
@full(n=12, r=2, k=[3, 5, 4])
@space(n=Int(8, 12), r=Int(1, 2), k=Int("r + 1", "r + 3"), low=Real(0.4, 1), beta=Real(0.2, 0.5))
@breaks("exact rank, k = r", lambda case: {"columns": case["r"]})
def rate_scales_as_alpha_squared(n, r, k, seed, low=0.6, beta=1 / 3, columns=99):
    r"""for $r<k\le n$ the slowest mode, which is the linear rate over $\eta$, is
    $\alpha^2(c+o(1))$ as $\alpha\to0$ with
    $c=\min|\mathrm{eig}\,Z^\top(\tilde F^\top\tilde F-\beta^2\tilde G^\top\tilde G)Z|$,
    $Z$ an orthonormal basis of $\ker(U^\top\tilde F+\beta V^\top\tilde G)$,
    $M=U\Sigma V^\top$."""
    alphas = np.geomspace(0.12, 0.015, 13)
    constant, found = modes_of_limits(n, r, k, low, beta, seed, alphas, columns)
    scaled = found / alphas**2
    last = small_start(scaled[-1], *scaled[[-9, -5, -1]])
    return {
        "exponent": compare(slope(1 / alphas, found), "==", -theory("exponent", 2)),
        "constant": compare(last, "==", theory("constant", constant)),
    }


@symmetric.abstract("d", "e", instance=True)
@cases(n=8, r=2, k=4)
@full(n=12, r=3, k=5, alpha=[0.1, 0.2, 0.3])
@space(**WIDE, alpha=Real(0.2, 0.5))
@breaks("G_0 = F_0", balanced=True)
def asymmetric_factors_solve_the_symmetric_problem_linearly(
    n, r, k, seed, low=0.6, alpha=0.3, balanced=False
):
    r"""for $r<\min(k,n)$ and a Gaussian $G_0$ a third as large as $F_0=X_0$, the descent on
    $FG^\top$ reaches $M$ at a geometric rate,
    $1-\eta\min\{\lambda_i(FF^\top)+\lambda_j(GG^\top)>0\}$ at the limit of Gaussian factors, where
    the symmetric one keeps $2\eta T\|X_TX_T^\top-M\|_F\to \sqrt{\min(k,n)-r}$."""
    F, G, eta = starts(n, k, alpha, 1 / 3, seed)
    M = truth(n, r, low)
    late = tail(M, F, F if balanced else G, eta)
    mode = theory("mode", limit_modes(*tail(M, F, G, eta)[-1], rank=r, step_size=eta).slowest)
    slowest, whole = late_rates(*late, eta)
    kept = sharp_limit(*sharp(n, r, k, low, alpha, 0.3, seed, k, 0.0))
    return {
        "asymmetric": compare(slowest, "==", np.log1p(-eta * mode)),
        "asymmetric, all": compare(whole, "<=", np.log1p(-eta * mode)),
        "symmetric": compare(kept, "==", theory("constant", np.sqrt(min(k, n) - r))),
    }


@simulation
def after_rebalancing(n, r, k, low, theta, alpha, seed, rebalanced):
    """Return the record after the step, and the proved width of the rate that it allows."""
    F, G, _ = starts(n, k, alpha, 1 / 3, seed)
    M, eta, scale = truth(n, r, low), 0.1, np.sqrt(low if r > 1 else 1.0)
    run, F, G = descend(M, F, G, eta, LONGEST, tol=theta * scale**2 / np.linalg.norm(M))
    proved = {"error": run.errors[-1], "scale": scale, "step_size": eta}
    ends = rebalanced_slowest_bounds(np.diag(M)[:r], **proved)
    if rebalanced:
        F, G = rebalance(F, G, scale=scale)
    late = tail(M, F, G, eta, first=1e-5, last=1e-12, longest=20_000)
    return late, np.ptp(np.log1p(-eta * np.array(ends)))


@asymmetric.abstract("f", instance=True)
@cases(n=9, r=2, k=4, alphas=(0.05, 0.1, 0.2))
@full(n=12, r=2, k=[6, 3, 4], alphas=(0.025, 0.05, 0.1, 0.2, 0.4))
@space(**WIDE, alphas=Real(0.05, 0.4, size=2), theta=Real(1e-4, 5e-3, log=True))
@breaks("no rebalancing", rebalanced=False)
def one_step_rebalancing(n, r, k, alphas, seed, low=0.6, theta=2e-3, rebalanced=True):
    r"""replace $F=\hat U\hat\Sigma\hat V^\top$ by $\sqrt{\sigma_r}\hat U\hat V^\top$ and $G$ by
    $G\hat V\hat\Sigma\hat V^\top/\sqrt{\sigma_r}$ once, when
    $\|E\|_F\le\theta\sigma_r$, $\sigma_r=\sigma_r(M)$, $r<k<n$: from every $\alpha$ the rate is
    then $-\log(1-\eta\sigma_r)(1+O(\theta))$, that of $k=r$."""
    # Parts on other singular vectors of M may be hardly faster: all of E then shows a mean rate.
    rates = []
    for alpha in alphas:
        late, width = after_rebalancing(n, r, k, low, theta, alpha, seed, rebalanced)
        rates.append([(rate.centre, rate.error + width) for rate in late_rates(*late, 0.1)])
    source = "local slopes; proved O(theta)"
    slowest, whole = (within(*np.transpose(rate), source) for rate in zip(*rates, strict=True))
    decay = np.log1p(-0.1 * theory("sigma_r", low if r > 1 else 1.0))
    return {
        "slowest part": compare(slowest, "==", decay),
        "all": compare(whole, "<=", decay),
    }


@panel(
    one_step_rebalancing,
    r"One rebalancing step frees the rate of $\alpha$",
    x=r"size of the start, $\alpha$",
    y="rate per step",
    log="x",
)
def _(pen, runs):
    x, y = runs.predicted("alphas", where={"k": 4})
    pen.theory(x, -y, r"$-\log(1-\eta\sigma_r)$")
    for j, k in enumerate((3, 4, 6)):
        x, y, error = runs.measured("alphas", where={"k": k})
        pen.points(x, -y, error, f"$k={k}$", k=j + 1)
    x, y, error = runs.measured("alphas", control="no rebalancing")
    pen.broken(x, -y, error, "no step")


@simulation
def growth(n, r, k, low, m, seed, repetitions, steps):
    """T d(1 / error)/dT at steps T, for independent operators and starts, while above rounding.

    It grows like T^p where the error decays like (T + T_0)^-p with p = 1, whatever T_0.
    """
    T = np.unique(np.geomspace(128, steps, 60).astype(int))
    rows = []
    for rng in np.random.default_rng(seed).spawn(repetitions):
        operator, X = gaussian_operator(n, m, rng=rng), 0.5 * rng.standard_normal((n, k))
        run = descend(truth(n, r, low), X, None, 0.05, steps, record=T, operator=operator)[0]
        rows.append(1 / np.maximum(run.errors, 1e-15))
    inverse = np.array(rows)[:, np.max(rows, axis=0) < 1e13]
    T = T[: inverse.shape[1]]
    middle = np.sqrt(T[1:] * T[:-1])
    return middle, middle * np.diff(inverse) / np.diff(T)


@symmetric.abstract("a", instance=True)
@cases(n=9, r=1, k=13, m=[43, 120], repetitions=40)
@full(n=12, r=1, k=16, m=[66, 72], repetitions=40, steps=2**15)
@full(n=12, r=[2, 1], k=16, m=[1200, 240], repetitions=12, steps=2**15)
@space(
    n=Int(5, 9),
    r=Int(1, 2),
    k=Int("n + 2", 13),
    m=Int("5 * r * (n - 1)", "20 * n"),
    low=Real(0.4, 1),
)
@breaks("exact rank, k = r", lambda case: {"k": case["r"], "repetitions": 10})
def sensing_error_decays_like_one_over_t(n, r, k, m, seed, low=0.6, repetitions=10, steps=2**13):
    r"""on $m$ Gaussian measurements, $X_{t+1}=X_t-\eta\mathcal A^*\mathcal A(X_tX_t^\top-M)X_t$,
    $r<n<k$, the error decays like $1/T$ as in the population, also with fewer measurements than
    the $n(n+1)/2$ unknowns: $T\,\frac d{dT}\|X_TX_T^\top-M\|_F^{-1}\sim cT$."""
    T, rising = growth(n, r, k, low, m, seed, repetitions, steps)
    return compare(slope(T, rising), "==", theory("exponent", 1))


@panel(
    sensing_error_decays_like_one_over_t,
    "Gaussian measurements, also fewer than unknowns (78): error of order $1/T$",
    x="measurements $m$",
    y="$p$ of $T^{-p}$",
    log="x",
)
def _(pen, runs):
    pen.theory([66, 1200], [1, 1], "$1/T$")
    for j, r in enumerate((1, 2)):
        pen.points(*runs.measured("m", where={"r": r}), f"$r={r}$", k=j + 1)


if __name__ == "__main__":
    from theorylab.verify.cli import run_script

    run_script(__file__)
