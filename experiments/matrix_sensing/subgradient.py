"""Subgradient descent from a small start sees through outliers and noise."""

import warnings

import numpy as np

from theorylab.matrix_sensing import (
    GeometricSteps,
    SubgradientStatus,
    best_median_error,
    contaminate,
    gaussian_operator,
    l1_loss,
    sign_scaling,
    subgradient_method,
)
from theorylab.matrix_sensing.operators import MeasurementOperator
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
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

signs = paper(
    "ma2022-global",
    r"$A$ has independent $N(0,1)$ entries, $s$ is independent of $A$, 0 with "
    r"probability $1-p$ and "
    r"of any law $P$ with probability $p$:",
)
descent = paper(
    "ma2022-global",
    r"$m$ Gaussian measurements of $M\succeq0$, $n\times n$ of rank $r$ with unit eigenvalues, a "
    r"fraction $p$ hit by outliers independent of them; $U\leftarrow U-\eta_0\rho^tQ_tU/\|Q_t\|$, "
    r"$U\in\mathbb R^{n\times r'}$, from a Gaussian start of size $\alpha$, "
    r"$\eta_0/(1-\rho)$ matched to $\log(1/\alpha)$:",
)


def matched(alpha, total=1.5, first=0.25):
    """Steps of total length ``total`` log(1/alpha): more than the signal needs; long ones let spare
    directions grow."""
    return GeometricSteps(first, 1 - first / (total * np.log(1 / alpha)))


def problem(n, r, m, fraction, spread, rng):
    """Truth, operator and noise."""
    operator, truth = gaussian_operator(n, m, rng=rng), np.diag((np.arange(n) < r).astype(float))
    return truth, operator, contaminate(m, outlier_fraction=fraction, spread=spread, rng=rng)


def start(n, k, alpha, rng):
    """Gaussian factors of size alpha; those of fewer columns are their first ones."""
    return alpha * rng.standard_normal((n, n))[:, :k] / np.sqrt(n)


def follow(operator, y, truth, initial, step, last, tol=0.0):
    """Run until the step has shrunk to ``last`` of the first; silent on a miss."""
    steps = int(np.log(last) / np.log(step.ratio))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        options = {"step": step, "steps": steps, "truth": truth, "tol": tol}
        return subgradient_method(operator, y, initial=initial, **options)


@simulation
def sign_gradients(d, norm, p, centre, spread, seed, n_draws, sparse, adversarial):
    """Samples of sign(<A, X> - s)A along X, and off X in units of their deviation."""
    rng = np.random.default_rng(seed)
    X = np.arange(1.0, d * d + 1)
    X *= norm / np.linalg.norm(X)
    A = rng.standard_normal((n_draws, d * d))
    if sparse:  # variance one, but not invariant under rotations
        A = np.sign(A) * (rng.random(A.shape) < 0.1) / np.sqrt(0.1)
    noise = {"outlier_fraction": p, "mean": centre, "spread": spread, "rng": rng}
    s = contaminate(n_draws, **noise) * np.sqrt(n_draws)
    if adversarial:
        s = np.where(A[:, 0] > 0, s, 0.0)
    signed = np.sign(A @ X - s)[:, None] * A
    return signed @ X / norm, signed @ np.linalg.svd(X[None, :])[2][1:].T


@signs.ours("scaling function of Sign-RIP, recalled; derived", serves="e")
@cases(d=2, norm=1.0, p=0.7, centre=1.5, spread=0.0)
@cases(d=2, norm=1.0, p=1.0, centre=0.0, spread=1.0)
@cases(d=3, norm=2.0, p=0.4, centre=2.0, spread=3.0)
@full(d=4, norm=[0.5, 1.0, 3.0], p=0.7, centre=1.5, spread=0.0, n_draws=600_000)
@full(d=4, norm=[0.5, 1.0, 3.0], p=1.0, centre=0.0, spread=1.0, n_draws=600_000)
@full(d=4, norm=[0.5, 1.0, 3.0], p=0.4, centre=2.0, spread=3.0, n_draws=600_000)
@space(d=Int(2, 4), norm=Real(0.3, 3), p=Real(0, 0.8), centre=Real(-3, 3), spread=Real(0, 5))
@breaks("sparse entries of A", sparse=True)
@breaks("s depends on A", adversarial=True)
def sign_rip_expectation(
    d, norm, p, centre, spread, seed, n_draws=60_000, sparse=False, adversarial=False
):
    r"""$\mathbb E[\mathrm{sign}(\langle A,X\rangle-s)A]=\varphi(X)X/\|X\|_F$,
    $\varphi(X)=\sqrt{2/\pi}\,(1-p+p\,\mathbb E_Pe^{-s^2/2\|X\|_F^2})$: along the error, whatever
    the outliers (judged for $P=N(\mu,\tau^2)$, of which any law is a mixture)."""
    drawn = (d, norm, p, centre, spread, seed, n_draws, sparse, adversarial)
    along, across = sign_gradients(*drawn)
    phi = sign_scaling(norm, outlier_fraction=p, mean=centre, spread=spread)
    return {
        "along": compare(mean(along), "==", theory("scaling", phi)),
        "across": compare(mean(across), "==", theory("across", np.zeros(d * d - 1))),
    }


@panel(
    sign_rip_expectation,
    "Whatever the outliers, the mean sign gradient points along the error",
    x=r"$\|X\|_F$",
    y=r"its length $\varphi$",
    log="x",
)
def _(pen, runs):
    x = np.geomspace(0.4, 4, 60)
    laws = (
        (0.7, 1.5, 0.0, "70 % at 1.5"),
        (1.0, 0.0, 1.0, "all $N(0,1)$"),
        (0.4, 2.0, 3.0, "40 % $N(2,9)$"),
    )
    for j, (p, centre, spread, label) in enumerate(laws):
        law = {"outlier_fraction": p, "mean": centre, "spread": spread}
        pen.theory(x, [sign_scaling(v, **law) for v in x], k=j)
        pen.points(*runs.measured("norm", where={"p": p}), label, k=j)


@simulation
def deviations(n, k, p, seed, repetitions, adversarial, spread=10.0):
    """Numbers m, and for each sample the mean over 10 fixed X of the deviation."""
    M, width = np.rint(20 * 2 ** np.arange(0, 9.1, 0.6)).astype(int), n * (n + 1) // 2
    phi = sign_scaling(1.0, outlier_fraction=p, spread=spread)
    basis = MeasurementOperator(np.eye(width), n, n, True)
    fixed = np.random.default_rng([seed, 1])
    factors = fixed.standard_normal((10, n, 2 * k))
    X = np.array([basis.forward(V @ np.diag(fixed.choice([-1, 1], 2 * k)) @ V.T) for V in factors])
    X /= np.linalg.norm(X, axis=1)[:, None]
    matrices = np.array([basis.adjoint(unit) for unit in np.eye(width)])
    found = np.empty((repetitions, M.size))
    for row, rng in zip(found, np.random.default_rng([seed, 3]).spawn(repetitions), strict=True):
        A = rng.standard_normal((M[-1], width))
        s = contaminate(M[-1], outlier_fraction=p, spread=spread, rng=rng) * np.sqrt(M[-1])
        if adversarial:
            s = np.abs(s) * np.sign(A[:, 0])
        S = np.sign(A @ X.T - s[:, None])
        for j, m in enumerate(M):
            off = np.tensordot(S[:m].T @ A[:m] / m - phi * X, matrices, 1)
            sigma = np.sort(np.abs(np.linalg.eigvalsh(off)))[:, -2 * k :]
            row[j] = np.linalg.norm(sigma, axis=1).mean() / phi
    return M, found


@signs.ours("exponent of the Sign-RIP theorem, recalled; for finitely many X", serves="e")
@cases(n=4, k=1, p=0.3, repetitions=500)
@full(n=8, k=[1, 2], p=[0.6, 0.3], repetitions=150)
@space(n=Int(4, 7), k=Int(1, 2), p=Real(0.0, 0.6))
@breaks("outliers depend on the measurements", adversarial=True, repetitions=40)
def sign_rip_uniform_rate(n, k, p, seed, repetitions=50, adversarial=False):
    r"""for fixed $X$ of unit norm and rank $\le2k$ (mean over 10 drawn ones), the deviation over
    all such $Y$, $\sup_Y\varphi^{-1}|\langle\frac1m\sum_i\mathrm{sign}(\langle
    A_i,X\rangle-s_i)A_i-\varphi X,Y \rangle|$ decays like $m^{-1/2}$."""
    M, found = deviations(n, k, p, seed, repetitions, adversarial)
    return compare(slope(M, found), "==", -theory("exponent", 0.5))


@simulation
def least_measurements(n, r, alpha, repetitions, seed, p=0.3, spread=100.0, grid=1.2):
    """Ratio of the least m of a grid that recovers M to 1 % with r columns to that with n.

    The samples are nested. Not recovered up to 40nr: with r columns 40nr, with n infinity, so that
    the ratio is never above the true one.
    """
    sizes = (n * r * grid ** np.arange(np.log(40) / np.log(grid))).astype(int)
    step, ratios = matched(min(alpha, 1e-2)), []
    for rng in np.random.default_rng(seed).spawn(repetitions):
        truth, whole, noise = problem(n, r, sizes[-1], p, spread, rng)
        initial, least = start(n, n, alpha, rng), []
        for k in (r, n):
            low, high = 0, sizes.size
            while low < high:
                middle = (low + high) // 2
                m, scale = sizes[middle], np.sqrt(sizes[-1] / sizes[middle])
                operator = MeasurementOperator(whole.stacked[:m] * scale, n, n, True)
                y = operator.forward(truth) + noise[:m] * scale
                run = follow(operator, y, truth, initial[:, :k], step, 1e-3, tol=0.01)
                reached = run.status is SubgradientStatus.REACHED
                low, high = (low, middle) if reached else (middle + 1, high)
            least.append(sizes[low] if low < sizes.size else 40 * n * r if k == r else np.inf)
        ratios.append(least[0] / least[1])
    return np.array(ratios)


@descent.abstract("f", instance=True)
@cases(n=6, r=1, alpha=1e-8, repetitions=32)
@full(n=12, r=[2, 1], alpha=1e-12, repetitions=40)
@full(n=8, r=1, alpha=1e-12, repetitions=40)
@space(n=Int(5, 7), r=Int(1, 1), alpha=Real(1e-9, 1e-6, log=True))
@breaks("large start", alpha=1.0, repetitions=80)
def sample_complexity_independent_of_search_rank(n, r, alpha, seed, repetitions=24):
    r"""for the least $m_{r'}$ that recovers $M$ with $r'$ columns,
    $\mathbb E\,m_r/m_n\ge(r/n)^{1/2}$; numbers proportional to $nr'$ would have $m_r/m_n=r/n$
    (outliers on 30 %, nested samples)."""
    ratios = least_measurements(n, r, alpha, repetitions, seed)
    return compare(mean(ratios), ">=", (r / n) ** theory("exponent", 0.5))


@simulation
def least_errors(n, m, k, alphas, repetitions, seed, p, total, spread=100.0):
    """Least error on the path for each instance (rows) and size of the start; rank one."""
    rows = []
    for rng in np.random.default_rng(seed).spawn(repetitions):
        truth, operator, noise = problem(n, 1, m, p, spread, rng)
        y, unit = operator.forward(truth) + noise, start(n, k, 1.0, rng)
        runs = (follow(operator, y, truth, a * unit, matched(a, total), 1e-7) for a in alphas)
        rows.append([run.errors.min() for run in runs])
    return np.array(rows)


@descent.abstract("a", "b", instance=True)
@cases(n=4, m=160, k=4, p=0.3, repetitions=48)
@full(n=8, m=320, k=[2, 8], p=0.3, repetitions=24)
@space(n=Int(3, 5), k=Int(2, "n"), m=Int("40 * n", "60 * n"), p=Real(0, 0.2))
@breaks("r' = r", k=1, total=4.0)
def small_init_error_floor(n, m, k, seed, p=0.2, repetitions=14, total=2.0):
    r"""for $r=1<r'$ the least error on the path falls as $\alpha\to0$ at least like
    $\alpha^{1/2}$, down to the last step (with $r'=r$ it does not)."""
    alphas = np.geomspace(10**-1.25, 10**-3, 12)
    least = least_errors(n, m, k, alphas, repetitions, seed, p, total)
    return compare(slope(1 / alphas, least), "<=", -theory("power", 0.5))


@simulation
def dense_noise(n, r, sizes, few, alpha, repetitions, seed, nu, large):
    """Squared errors (repetitions, sizes); from ``few`` measurements of rank one, loss and distance
    of the end of a run from 0.7 I over those of the path."""
    squares, better = np.empty((repetitions, len(sizes))), []

    def ends(rank, m, rng, *initial):
        truth, operator, noise = problem(n, rank, m, 1.0, nu, rng)
        y = operator.forward(truth) + noise
        step = matched(alpha, first=0.5)
        runs = [follow(operator, y, truth, a * np.eye(n), step, 0.01) for a in initial]
        return [(l1_loss(operator, y, run.U @ run.U.T), run.errors[-1]) for run in runs]

    for i, rng in enumerate(np.random.default_rng(seed).spawn(repetitions)):
        squares[i] = [ends(r, m, rng, 0.7 if large else alpha)[0][1] ** 2 for m in sizes]
        if i < 60:
            path, other = ends(1, few, rng, *((0.7, alpha) if large else (alpha, 0.7)))
            better.append([other[0] / path[0], other[1] / path[1]])
    return squares, np.array(better)


@descent.abstract("c", "d", instance=True)
@cases(n=6, r=3, sizes=(1000,), repetitions=1500)
@full(n=8, r=3, sizes=(1600,), repetitions=800)
@full(n=6, r=3, sizes=(1000, 4000), repetitions=1200)
@space(n=Int(6, 8), r=Int(1, 3), nu=Real(0.2, 0.6), few=Int(150, 200))
@breaks("large start", large=True, repetitions=60)
def truth_not_global_optimum_still_recovered(
    n, r, seed, sizes=(400,), few=150, repetitions=60, alpha=1e-2, nu=0.5, large=False
):
    r"""with noise $N(0,\nu^2)$ on all measurements the path from $\alpha I$ with $r'=n$ ends at
    $\mathbb E\|UU^\top-M\|_F^2=\frac\pi2\nu^2D\,m^{-1}(1+O(D/m))$, $D=rn-\frac{r(r-1)}2$, that
    of least absolute deviations at known rank, although points that are farther from $M$ have a
    lower loss in the mean (shown for $r=1$, $m=$ ``few``)."""
    squares, better = dense_noise(n, r, sizes, few, alpha, repetitions, seed, nu, large)
    m, unknowns = np.array(sizes), r * n - r * (r - 1) / 2
    bias = unknowns / m * squares.mean(axis=0)
    law = nu**2 * np.pi / 2 * theory("D", unknowns) * m ** -theory("exponent", 1.0)
    return {
        "law": compare(mean(squares, bias=bias, source="relative remainder D/m"), "==", law),
        "loss": compare(mean(better[:, 0]), "<", theory("loss", 1.0)),
        "farther": compare(mean(better[:, 1]), ">", theory("farther", 1.0)),
    }


@panel(
    truth_not_global_optimum_still_recovered,
    r"Dense noise: $\frac{\pi}{2}\nu^2D/m$ with $D$ of the true rank",
    x="measurements $m$",
    y="mean squared error",
    log="xy",
)
def _(pen, runs):
    for j, (n, r) in enumerate(((6, 3), (8, 3))):
        m = np.array([1000, 4000])
        law = [best_median_error(0.5, n=n, rank=r, n_measurements=v) ** 2 for v in m]
        pen.theory(m, law, k=j)
        pen.points(*runs.measured("sizes", "law", where={"n": n, "r": r}), f"$n={n}$, $r={r}$", k=j)


@simulation
def error_blocks(n, m, k, alpha, repetitions, seed, last, size, p=0.3, spread=100.0):
    """Ends of blocks of 50 steps, and the geometric mean of the errors in each; rank one."""
    rows, step = [], matched(alpha)
    for rng in np.random.default_rng(seed).spawn(repetitions):
        truth, operator, noise = problem(n, 1, m, p, spread, rng)
        initial = start(n, k, alpha if size is None else size, rng)
        errors = follow(
            operator, operator.forward(truth) + noise, truth, initial, step, last
        ).errors
        whole = errors[: errors.size // 50 * 50]
        rows.append(np.exp(np.log(whole).reshape(-1, 50).mean(axis=1)))
    return 50.0 * np.arange(1, len(rows[0]) + 1), np.array(rows)


@descent.abstract("b", instance=True)
@cases(n=5, m=400, k=[1, 5])
@full(n=12, m=960, k=[1, 6, 12], alpha=1e-14, last=1e-8, repetitions=16)
@space(n=Int(3, 6), k=Int(1, "n"), m=Int("80 * n", "100 * n"), alpha=Real(1e-12, 1e-8, log=True))
@breaks("large start", size=0.5)
def linear_rate_of_geometric_steps(
    n, m, k, seed, alpha=1e-10, last=1e-8, repetitions=16, size=None
):
    r"""for $r=1$ and $\eta_0/(1-\rho)=1.5\log(1/\alpha)$, $\|U_tU_t^\top-M\|_F$ decays like
    $\rho^t$ once the signal is fitted, for every $r'\ge r$."""
    t, errors = error_blocks(n, m, k, alpha, repetitions, seed, last, size)
    rate = theory("rate", np.log(matched(alpha).ratio))
    return compare(slope(t, errors, scale="linear"), "==", rate)


@simulation
def outliers(n, k, m, p, sizes, repetitions, seed, knowing, alpha=1e-6):
    """Whether M was recovered to 1 %, and for each size of the outliers whether the last iterates
    are those at the first size, bit for bit; rank one."""
    recovered, same = [], dict.fromkeys(sizes[1:], True)
    for rng in np.random.default_rng(seed).spawn(repetitions):
        truth, operator, _ = problem(n, 1, m, 0.0, 0.0, rng)
        y, hit = operator.forward(truth), rng.random(m) < p
        signs_ = np.sign(operator.stacked[:, -1] if knowing else rng.standard_normal(m))
        initial, ends = start(n, k, alpha, rng), []
        for S in sizes:
            seen = np.where(hit, y + S * signs_ / np.sqrt(m), y)
            ends.append(follow(operator, seen, truth, initial, matched(alpha), 1e-3))
        same = {
            S: same[S] and (e.U == ends[0].U).all() for S, e in zip(same, ends[1:], strict=True)
        }
        recovered.append(ends[0].errors[-1] < 0.01)
    return np.array(recovered), {S: bool(v) for S, v in same.items()}


@descent.abstract("a", "c", instance=True)
@cases(n=5, k=5, p=[0.3, 0.8])
@full(n=6, k=[2, 6], p=[0.3, 0.6, 0.8, 0.9])
@space(n=Int(2, 5), k=Int(1, "n"), p=Real(0.0, 0.8))
@breaks("outliers of the size of the residuals", sizes=(0.3, 3.0))
@breaks("outliers chosen with knowledge of A", knowing=True)
@breaks("m growing like 1 / (1 - p)", power=1)
def outlier_size_is_irrelevant_and_density_costs_a_square(
    n, k, p, seed, sizes=(1e2, 1e6, 1e12), repetitions=32, knowing=False, power=2
):
    r"""for $r=1$ and outliers $\pm S$ with $S$ above all residuals on the path, the trajectory is
    bit for bit independent of $S$; with $m=10n(1-p)^{-2}$ measurements $M$ is recovered with
    probability at least $0.6$, also when most are hit."""
    m = int(10 * n / (1 - p) ** power)
    recovered, same = outliers(n, k, m, p, sizes, repetitions, seed, knowing)
    return {
        "success": compare(mean(recovered), ">=", theory("success", 0.6)),
        "identical": compare(family(same), "==", len(same)),
    }


@panel(
    outlier_size_is_irrelevant_and_density_costs_a_square,
    r"Outliers of any size: $m=10n(1-p)^{-2}$ measurements suffice",
    x="share of outliers $p$",
    y="share of instances recovered",
)
def _(pen, runs):
    pen.theory([0.3, 0.9], [0.6, 0.6], "at least")
    for j, k in enumerate((2, 6)):
        pen.points(*runs.measured("p", where={"k": k}), f"$r'={k}$", k=j + 1)
    pen.broken(*runs.measured("p", control="m growing like 1 / (1 - p)"), r"$m\propto(1-p)^{-1}$")


@simulation
def population_schedules(low, size, spare, longest, count, last=20):
    """Numbers T, and the largest of the ``last`` errors up to T, at the best of ``count`` ratios
    (and of the sizes if they are several); rank two, where U_0 = alpha I stays diagonal."""
    truth = np.array([1.0, low] + [0.0] * spare)
    ratios = 1 - np.geomspace(2 / longest, 0.3, count)[:, None, None]
    U = np.reshape(size, (1, -1, 1)) * np.ones((count, 1, truth.size))
    length = 0.25 * np.ones_like(ratios)
    T = np.unique(np.geomspace(longest / 16, longest, 13).astype(int))
    worst = np.zeros((T.size, *U.shape[:2]))
    for t in range(1, longest + 1):
        E = U**2 - truth
        U = U - length * E / np.maximum(np.abs(E).max(axis=-1, keepdims=True), 1e-300) * U
        length = length * ratios
        i = int(np.searchsorted(T, t))
        if T[i] - last < t:
            worst[i] = np.maximum(worst[i], np.linalg.norm(U**2 - truth, axis=-1))
    return T, np.maximum(worst.min(axis=(1, 2)), 1e-300)


@descent.ours("population form, derived and computed", serves="b")
@cases(longest=1600)
@full(longest=3200, low=[0.4, 0.9, 0.6])
@space(longest=Int(800, 1600), low=Real(0.4, 1.0), size=Real(0.2, 0.5))
@breaks("r' = r", spare=0)
def large_start_is_sublinear(longest, low=0.6, size=0.3, spare=1):
    r"""on the population loss $\|UU^\top-M\|_F$ with spare columns, eigenvalues 1 and ``low``,
    $U_0=\alpha I$ and $\eta_0=1/4$, the largest of the last 20 errors before $T$,
    ``longest``$/16\le T\le$ ``longest``, is at least $2T^{-3/2}$ from $\alpha=$ ``size`` at the
    best of 400 ratios $\rho$, and below $e^{-0.45\sqrt T}$ at the best of 48 ratios and 29 smaller
    $\alpha$."""
    T, large = population_schedules(low, size, spare, longest, 400)
    small = population_schedules(low, tuple(np.geomspace(1e-1, 1e-13, 29)), spare, longest, 48)[1]
    floor = within(large * T**1.5, 1e-9 * large * T**1.5, "rounding")
    rate = within(-np.log(small) / np.sqrt(T), 1e-9, "rounding")
    return {
        "large start": compare(floor, ">=", theory("large start", 2.0)),
        "small start": compare(rate, ">=", theory("small start", 0.45)),
    }


if __name__ == "__main__":
    from theorylab.verify.cli import run_script

    run_script(__file__)
