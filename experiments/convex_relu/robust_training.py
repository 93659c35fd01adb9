"""Robust convex training: exact for stable networks, only an upper bound for all."""

from functools import cache

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Choice,
    Evidence,
    Grade,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    equal,
    exhaustive,
    gap,
    inconclusive,
    threshold,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

OFFSET = {"textcoords": "offset points"}
ROUNDING = "rounding of outputs and gradients of the same network"


def sample(seed, n, loss):
    """Points in the plane, labelled by quadrant or with Gaussian targets."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    return (
        X,
        np.where(X[:, 0] * X[:, 1] > 0, 1.0, -1.0) if loss == "hinge" else rng.normal(size=n),
        rng,
    )


def random_network(rng, X, radius, ball, n_neurons=4):
    """A network of neurons drawn until they are stable at the radius."""
    weights, biases = np.empty((0, 2)), np.empty(0)
    while len(weights) < n_neurons:
        candidate = cr.Network(rng.normal(size=(50, 2)), np.ones(50), 2 * rng.normal(size=50))
        good = cr.stability_radii(candidate, X, ball=ball) >= radius
        weights, biases = (
            np.vstack([weights, candidate.weights[good]]),
            np.append(biases, candidate.biases[good]),
        )
    return cr.Network(weights[:n_neurons], rng.normal(size=n_neurons), biases[:n_neurons])


def robust_identity(seed, n, eps, beta, loss, ball, trained_at):
    """Worst-case loss in the program against the exact attack: at the optimum and on random feasible networks."""
    X, y, rng = sample(seed, n, loss)
    radius = eps if trained_at is None else trained_at
    trained = cr.train_robust(X, y, beta, radius, loss=loss, ball=ball, bias=True, tol=1e-5)
    networks = [trained.network] + [random_network(rng, X, radius, ball) for _ in range(8)]
    program = np.array([cr.linearized_loss(f, X, y, eps, loss=loss, ball=ball) for f in networks])
    attacked = np.array([cr.worst_case(f, X, y, eps, loss=loss, ball=ball).loss for f in networks])
    total = attacked[0] + beta * trained.network.penalty
    parts = [
        equal(attacked, program, error=1e-11 * (1 + program), source=ROUNDING, scale=1 + program)
    ]
    if trained_at is None:
        parts.append(
            equal(total, trained.objective, error=1e-11 * trained.objective, source=ROUNDING)
        )
        # Multipliers, checked apart from the solver, bound the program from below.
        parts.append(
            gap(trained.objective, trained.dual_objective, tol=1e-5, grade=Grade.NUMERICAL)
        )
    standard = cr.train(X, y, beta, loss=loss, bias=True, tol=1e-6).network
    broken = cr.worst_case(standard, X, y, eps, loss=loss, ball=ball).loss + beta * standard.penalty
    values = {"program": trained.objective, "attacked": total, "standard": broken}
    return all_of(*parts).with_data(
        eps=eps, ball=ball, **{name: value / n for name, value in values.items()}
    )


STANDARD = {"neurons not stable (trained without perturbations)": {"trained_at": 0.0}}
FEASIBLE = (
    r"Let every neuron be stable, $|w^\top x_k+b|\ge\epsilon\|w\|_q$ for all $k$, where inputs move by "
    r"$\|\delta\|_p\le\epsilon$, $p\in\{2,\infty\}$, $1/p+1/q=1$ (the feasible set of the robust convex program). Then "
)


@claim(
    FEASIBLE
    + r"the program's hinge loss $\sum_k(1-y_kf(x_k)+\epsilon\|\nabla f(x_k)\|_q)_+$ is the worst-case loss "
    r"$\sum_k\max_{\|\delta\|_p\le\epsilon}(1-y_kf(x_k+\delta))_+$ of the network, and its optimum is that of robust training "
    r"over networks of stable neurons.",
    sources=["bai2021-practical, theorem on convex adversarial training"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"eps": 0.1, "ball": "linf"}, {"eps": 0.2, "ball": "l2"}],
        "full": [
            {"eps": e, "ball": b} for b in ("l2", "linf") for e in (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
        ],
    },
    space={"eps": Real(0.01, 0.5), "ball": Choice(["linf", "l2"]), "beta": Real(0.02, 0.5)},
    breaks=STANDARD,
)
def robust_hinge_identity(seed, eps, ball="linf", n=8, beta=0.05, trained_at=None) -> Evidence:
    return robust_identity(seed, n, eps, beta, "hinge", ball, trained_at)


@claim(
    FEASIBLE
    + r"the program's squared loss $\frac12\sum_k(|f(x_k)-y_k|+\epsilon\|\nabla f(x_k)\|_q)^2$ is the worst-case loss "
    r"$\frac12\sum_k\max_{\|\delta\|_p\le\epsilon}(f(x_k+\delta)-y_k)^2$ of the network, and its optimum is that of robust "
    r"training over networks of stable neurons.",
    sources=["bai2021-practical, section on regression"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"eps": 0.05, "ball": "l2"}, {"eps": 0.1, "ball": "linf"}],
        "full": [
            {"eps": e, "ball": b} for b in ("l2", "linf") for e in (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
        ],
    },
    space={"eps": Real(0.01, 0.5), "ball": Choice(["linf", "l2"]), "beta": Real(0.02, 0.5)},
    breaks=STANDARD,
)
def robust_squared_loss(seed, eps, ball="linf", n=7, beta=0.05, trained_at=None) -> Evidence:
    return robust_identity(seed, n, eps, beta, "squared", ball, trained_at)


def draw_identity(ax, runs, title):
    data = [r.data for r in runs if r.data["ball"] == "linf"]
    eps = [d["eps"] for d in data]
    ax.plot(eps, [d["program"] for d in data], color=COLOURS[0], label="robust program")
    ax.plot(
        eps,
        [d["attacked"] for d in data],
        "o",
        color=COLOURS[1],
        label="exact attack on its network",
    )
    ax.plot(
        eps, [d["standard"] for d in data], "o", color=BROKEN, label="attack on standard training"
    )
    ax.legend(loc="upper left")
    ax.set(
        xlabel=r"radius $\epsilon$ ($\ell_\infty$)",
        ylabel="robust objective per point",
        title=title,
    )


@robust_hinge_identity.panel
def _(ax, runs: Runs) -> None:
    draw_identity(ax, runs, "Hinge: the convex loss is the true worst case")


@robust_squared_loss.panel
def _(ax, runs: Runs) -> None:
    draw_identity(ax, runs, "Squared: the convex loss is the true worst case")


@claim(
    r"Without bias, pattern $D_i$ has a non-zero neuron that keeps it on all balls $\|\delta\|_p\le\epsilon$ iff "
    r"$\epsilon\le\mu_i$, $\mu_i=\max_{\|v\|_q\le1}\min_k(2D_i-I)_{kk}x_k^\top v$. For $\epsilon>\max_i\mu_i$ the robust program "
    r"returns the zero network, with hinge loss 1 per point. If the labels are the pattern attaining the maximum and $\beta$ is "
    r"small, this is the exact threshold.",
    sources=["bai2021-practical, cone constraint of the convex adversarial training problem"],
    origin="derived",
    kind="threshold",
    cases={"quick": [{"n": 6, "tol": 0.02}], "full": [{"ball": "l2"}, {}]},
    space={"beta": Real(0.001, 0.02)},
    breaks={"neurons with a bias": {"bias": True}},
)
def robust_collapse_threshold(seed, n=8, beta=0.01, ball="linf", bias=False, tol=1e-3) -> Evidence:
    X, _, _ = sample(seed, n, "hinge")
    patterns = cr.enumerate_arrangements(X)
    widths = cr.corridor_widths(X, ball=ball)
    y = np.where(patterns[np.argmax(widths)], 1.0, -1.0)
    train = cr.robust_trainer(X, y, beta, ball=ball, bias=bias, tol=0.01)
    tried, used = [], []

    def survives(eps):
        result = train(eps)
        tried.append((eps, result.objective / n))
        for pattern in result.block_patterns:
            width = widths[(patterns == pattern).all(axis=1)]
            used.append(((eps, pattern.tobytes()), width.size == 1 and bool(width[0] >= eps)))
        return result.network.n_neurons > 0

    return all_of(
        threshold(
            survives, float(widths.max()), bracket=(0.5 * widths.max(), 1.6 * widths.max()), tol=tol
        ),
        exhaustive(list(dict(used).items()), grade=Grade.NUMERICAL),
    ).with_data(tried=np.array(sorted(tried)), widths=widths)


@robust_collapse_threshold.panel
def _(ax, runs: Runs) -> None:
    data = runs[-1].data
    broken = runs.controls["neurons with a bias"].data["tried"]
    widest = data["widths"].max()
    ax.axvline(1.0, color=COLOURS[0])
    ax.annotate(r"$\max_i\mu_i$", (1.0, 0.08), xytext=(4, 0), color=COLOURS[0], **OFFSET)
    ax.plot(broken[:, 0] / widest, broken[:, 1], "o", color=BROKEN, label="neurons with a bias")
    ax.plot(
        data["tried"][:, 0] / widest, data["tried"][:, 1], "o", color=COLOURS[1], label="no bias"
    )
    ax.legend(loc="center right")
    title = "Robust training collapses beyond the widest corridor"
    ax.set(
        xlabel=r"$\epsilon/\max_i\mu_i$",
        ylabel="robust objective per point",
        title=title,
        ylim=(0, 1.1),
    )


@cache
def pool(n, d, beta, seed, size=4000):
    """Patterns of a finite pool of directions with their frequencies, the law of sampling, and the law of an adversary."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, d)), rng.normal(size=n)
    U = rng.normal(size=(size, d))
    patterns, index = np.unique(U @ X.T >= 0, axis=0, return_inverse=True)
    weights = np.bincount(index.ravel()) / size
    caps = [
        sign * U[:, axis] > np.cos(0.5) * np.linalg.norm(U, axis=1)
        for axis in range(d)
        for sign in (1, -1)
    ]
    laws = [np.bincount(index.ravel()[cap], minlength=len(patterns)) / cap.sum() for cap in caps]
    # The adversary samples from the cap that leaves most to improve.
    worst = max(laws, key=lambda law: improvement(X, y, beta, patterns, law > 0, weights))
    return X, y, patterns, weights, worst


def improvement(X, y, beta, patterns, chosen, weights):
    """Probability that one more pattern strictly lowers the program over the chosen ones, exactly."""
    dual = cr.train(X, y, beta, arrangements=patterns[chosen], tol=1e-6).certificate.dual
    return weights[cr.improving_patterns(X, dual, beta, patterns)].sum()


def failures(n, d, beta, count, repeats, psi, seed, adversary):
    """Number of programs over independent samples that one more pattern improves with a probability above psi."""
    X, y, patterns, weights, worst = pool(n, d, beta, seed)
    rng = np.random.default_rng(seed + 1)
    samples = (
        np.unique(rng.choice(len(patterns), size=count, p=worst if adversary else weights))
        for _ in range(repeats)
    )
    return sum(improvement(X, y, beta, patterns, chosen, weights) > psi for chosen in samples)


@claim(
    r"Draw $P_s=\lceil\min\{\frac{n+1}{\psi\xi}-1,\frac2\psi(n+1-\log\xi)\}\rceil$ independent patterns of any law and train "
    r"over them. With probability at least $1-\xi$, one more pattern of that law strictly lowers the value with probability "
    r"at most $\psi$. $P_s$ is linear in $n$ while the number of patterns grows like $n^{r-1}$, $r=\mathrm{rank}\,X$.",
    sources=["bai2021-practical, Theorem 1"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"n": 8, "repeats": 60, "psi": 0.2, "xi": 0.3}],
        "full": [
            {"n": n, "repeats": 100, "psi": 0.2, "xi": 0.2, "search": True} for n in (6, 10, 20, 40)
        ],
    },
    breaks={"patterns of directions in a cap that an adversary chose": {"adversary": True}},
)
def linear_sample_count(
    seed, n, repeats, psi, xi, d=3, beta=0.3, adversary=False, search=False
) -> Evidence:
    count = cr.sufficient_samples(n, psi, xi)
    bad = failures(n, d, beta, count, repeats, psi, seed, adversary)
    # Clopper-Pearson at level 1e-6; the lower end where the statement would be rejected.
    upper, lower = (
        beta_quantile(1 - 1e-6, bad + 1, repeats - bad),
        beta_quantile(1e-6, bad, repeats - bad + 1),
    )
    needed = None
    if search and not adversary:
        tried = np.unique(np.geomspace(2, count, 16).astype(int))
        needed = next(
            m
            for m in tried
            if m == count or failures(n, d, beta, m, 40, psi, seed, False) <= 40 * xi
        )
    counts = [(m, cr.cover_count(m, d)) for m in range(4, 60)]
    if lower <= xi < upper:
        return inconclusive(
            f"{bad} of {repeats} programs fail",
            grade=Grade.STATISTICAL,
            measured=bad / repeats,
            predicted=xi,
        )
    evidence = at_most(upper if upper <= xi else lower, xi, grade=Grade.STATISTICAL)
    return evidence.with_data(
        n=n, count=count, needed=needed, psi=psi, xi=xi, cells=np.array(counts)
    )


def beta_quantile(level, a, b):
    from scipy.stats import beta

    return 0.0 if a == 0 else 1.0 if b == 0 else float(beta.ppf(level, a, b))


@linear_sample_count.panel
def _(ax, runs: Runs) -> None:
    first = runs[0].data
    n = np.arange(4, 60)
    ax.plot(
        n, [cr.sufficient_samples(int(m), first["psi"], first["xi"]) for m in n], color=COLOURS[0]
    )
    ax.plot(first["cells"][:, 0], first["cells"][:, 1], color=COLOURS[2])
    at = [(r.data["n"], r.data["needed"]) for r in runs if r.data["needed"] is not None]
    if at:
        ax.plot(*np.array(at).T, "o", color=COLOURS[1])
        ax.annotate("enough in fact", at[-1], xytext=(8, -4), color=COLOURS[1], **OFFSET)
    enough = cr.sufficient_samples(20, first["psi"], first["xi"])
    ax.annotate("sufficient: linear", (20, enough), xytext=(0, -16), color=COLOURS[0], **OFFSET)
    ax.annotate(
        "all patterns: quadratic", (30, 900), xytext=(-8, 8), ha="right", color=COLOURS[2], **OFFSET
    )
    ax.set(
        yscale="log",
        xlabel="data points $n$ (rank 3)",
        ylabel="patterns",
        title="Enough sampled patterns: linear in $n$, and loose",
    )


@claim(
    r"The value $p_c$ of the robust convex program is at least the robust value over all networks, and strictly larger on some "
    r"data: a network with neurons that switch inside the perturbation balls has an exact worst case below the program's dual "
    r"bound, by more than its duality gap.",
    sources=["bai2022-efficient, convex adversarial training in Section 4"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"eps": 0.15}],
        "full": [{"eps": e} for e in (0.05, 0.1, 0.2, 0.3, 0.4)] + [{"eps": 0.15}],
    },
    breaks={"no perturbations": {"eps": 0.0}},
)
def adversarial_convex_upper_bounds_nonconvex(seed, eps, n=8, beta=0.1, tries=3) -> Evidence:
    for attempt in range(tries):
        X, y, _ = sample(1000 * attempt + seed, n, "hinge")
        convex = cr.train_robust(X, y, beta, eps, bias=True, tol=1e-5)
        network = cr.improve_adversarially(convex.network, X, y, beta, eps, bias=True)
        value = cr.worst_case(network, X, y, eps).loss + beta * network.penalty
        evidence = at_most(
            value, convex.dual_objective - (convex.objective - convex.dual_objective)
        )
        if evidence.holds:
            break
    return evidence.with_data(eps=eps, convex=convex.objective, value=value, attempt=attempt)


@adversarial_convex_upper_bounds_nonconvex.panel
def _(ax, runs: Runs) -> None:
    data = sorted((r.data for r in runs if r.data["attempt"] == 0), key=lambda d: d["eps"])
    zero = runs.controls["no perturbations"].data
    eps = [0] + [d["eps"] for d in data]
    ax.plot(eps, [0] + [100 * (1 - d["value"] / d["convex"]) for d in data], "o", color=COLOURS[1])
    ax.plot(0, 100 * (1 - zero["value"] / zero["convex"]), "o", color=BROKEN)
    ax.axhline(0, color=COLOURS[0])
    ax.annotate(
        "convex program", (eps[-1], 0), xytext=(0, 5), ha="right", color=COLOURS[0], **OFFSET
    )
    title = "Networks that switch inside the balls do better"
    ax.set(
        xlabel=r"radius $\epsilon$ ($\ell_\infty$)", ylabel="below the convex value, %", title=title
    )


if __name__ == "__main__":
    run_script(__file__)
