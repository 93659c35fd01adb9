"""Duality gaps of deep networks: none in parallel, a gap in depth."""

from functools import cache

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from theorylab import convex_relu as cr
from theorylab.verify import Evidence, Grade, Int, Real, Runs, all_of, claim, equal, gap, threshold
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

ROUNDING = "rounding of singular values and powers, amplified by the condition of X"
SEARCH = "residual 1e-9 of the searched fit times the multiplier of the constraint"
C = np.array([1.0, 2.0, -1.0, 0.5, -0.3])


def linear_data(singular_values, seed, n_inputs=3):
    """Well-conditioned inputs and a target whose X^+ Y has the given singular values."""
    rng = np.random.default_rng(seed)
    rank = len(singular_values)
    U, V = (np.linalg.qr(rng.normal(size=(size, rank)))[0] for size in (n_inputs, max(2, rank)))
    X = np.linalg.qr(rng.normal(size=(4, n_inputs)))[0] * np.linspace(0.7, 1.3, n_inputs)
    return X, X @ U @ np.diag(singular_values) @ V.T


@claim(
    r"$\min\frac12\sum_{l\le L}\|W_l\|_F^2$ subject to $XW_1\cdots W_L=Y$, with widths at least the rank of $X^+Y$ and $Y$ in "
    r"the range of $X$, is $\frac L2\sum_i\sigma_i^{2/L}$, where $\sigma_i$ are the singular values of $X^+Y$. Its dual at "
    r"fixed scale of the layers is $\frac L2(\sum_i\sigma_i)^{2/L}$. So there is no gap for $L=2$, and for $L\ge3$ only if "
    r"$X^+Y$ has rank at most 1.",
    sources=["wang2021-parallel, theorem on standard deep linear networks"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"singular_values": (1.5,), "depth": 3}]
        + [{"singular_values": (2.0, 0.5), "depth": depth} for depth in (2, 4, 3)],
        "full": [
            {"singular_values": (2.0, r), "depth": depth}
            for depth in (2, 3, 4)
            for r in (0.1, 0.3, 1.0, 2.0)
        ]
        + [
            {"singular_values": (1.5,), "depth": 5},
            {"singular_values": (2.0, 1.0, 0.5), "depth": 3},
        ],
    },
    space={"singular_values": Real(0.3, 2, size=2), "depth": Int(2, 4)},
    breaks={"powers of the norms in place of squares": {"penalty": "power"}},
)
def deep_linear_gap(singular_values, depth, seed, penalty="squared") -> Evidence:
    s = np.asarray(singular_values)
    X, Y = linear_data(s, seed)
    solution = cr.linear_minimum_norm(X, Y, depth, penalty=penalty)
    found = cr.search_minimum_norm(
        X, Y, [len(s)] * (depth - 1), penalty=penalty, n_starts=6, seed=seed
    )
    lower = cr.certify_linear(X, solution.branches, solution.dual_point, penalty=penalty).lower
    # Parallel branches attain the dual gauge: no dual point does better.
    parallel = cr.linear_minimum_norm(
        X, Y, depth, architecture="parallel", penalty="power"
    ).branches
    gauge = cr.network_cost(parallel, penalty="power") * 2 / depth
    primal, dual = depth / 2 * np.sum(s ** (2 / depth)), depth / 2 * np.sum(s) ** (2 / depth)
    return all_of(
        equal(min(solution.primal, found.primal), primal, error=1e-7 * primal, source=SEARCH),
        equal(
            [lower, depth / 2 * gauge ** (2 / depth)],
            dual,
            error=1e-11 * dual,
            source=ROUNDING,
            grade=Grade.CERTIFIED,
        ),
    ).with_data(
        ratio=s.min() / s.max(),
        depth=depth,
        primal=found.primal / s[0] ** (2 / depth),
        dual=lower / s[0] ** (2 / depth),
    )


@deep_linear_gap.panel
def _(ax, runs: Runs) -> None:
    r = np.linspace(0, 1, 200)
    for depth, colour in zip((2, 3, 4), COLOURS, strict=False):
        ax.plot(r, depth / 2 * (1 + r ** (2 / depth)), color=colour)
        ax.plot(r, depth / 2 * (1 + r) ** (2 / depth), "--", color=colour)
        at = [
            run.data
            for run in runs
            if run.data["depth"] == depth and len(run.instance["singular_values"]) == 2
        ]
        ax.plot([d["ratio"] for d in at], [d["primal"] for d in at], "o", color=colour)
        ax.plot([d["ratio"] for d in at], [d["dual"] for d in at], "s", mfc="none", color=colour)
        ax.annotate(
            f"L = {depth}",
            (1, depth),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    ax.plot([], [], "k-o", label="primal: formula, local search")
    ax.plot([], [], "k--s", mfc="none", label="dual: formula, certificate")
    ax.legend(loc="upper left")
    ax.set(
        title="Depth three opens a gap unless the target has rank one",
        xlabel=r"$\sigma_2/\sigma_1$",
        ylabel="least weight norm",
        ylim=(0.9, 5.2),
    )


@cache
def searched_forms(singular_values, depth, seed):
    """Least penalties found by local search: of parallel branches, of one branch, and under plain weight decay."""
    X, Y = linear_data(singular_values, seed)
    forms = {
        "parallel": ("power", 1, 2),
        "one branch": ("power", 2, 1),
        "plain decay": ("squared", 2, 2),
    }
    found = {}
    for name, (form, width, branches) in forms.items():
        search = cr.search_minimum_norm(
            X, Y, [width] * (depth - 1), n_branches=branches, penalty=form, n_starts=2, seed=seed
        )
        found[name] = search.primal
    return found


@claim(
    r"$\min\frac12\sum_{j\le m,\,l\le L}\|W_{l,j}\|_F^L$ subject to $\sum_jXW_{1,j}\cdots W_{L,j}=Y$, with $Y$ in the range "
    r"of $X$ and $m\ge\mathrm{rank}(X^+Y)$ parallel branches, is $\frac L2\|X^+Y\|_*$ and equals its dual value for every "
    r"depth $L$.",
    sources=["wang2021-parallel, theorem on parallel linear networks"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"singular_values": (2.0, 0.5), "depth": depth} for depth in (2, 4, 3)],
        "full": [
            {"singular_values": (2.0, r), "depth": depth}
            for depth in (2, 4, 3)
            for r in (0.25, 1.0, 1.7)
        ],
    },
    space={"singular_values": Real(0.1, 3, size=3), "depth": Int(2, 6)},
    breaks={
        "one branch": {"architecture": "standard"},
        "plain weight decay": {"penalty": "squared"},
    },
)
def parallel_linear_zero_gap(
    singular_values, depth, seed, architecture="parallel", penalty="power"
) -> Evidence:
    s = np.asarray(singular_values)
    X, Y = linear_data(s, seed)
    solution = cr.linear_minimum_norm(X, Y, depth, architecture=architecture, penalty=penalty)
    certificate = cr.certify_linear(X, solution.branches, solution.dual_point, penalty=penalty)
    value = depth / 2 * s.sum()
    found = searched_forms(tuple(s), depth, seed) if depth == 3 and len(s) == 2 else {}
    return all_of(
        gap(certificate.upper, certificate.lower, tol=1e-9),
        equal(
            certificate.upper, value, error=1e-11 * value, source=ROUNDING, grade=Grade.CERTIFIED
        ),
    ).with_data(found=found, s=s, depth=depth)


@parallel_linear_zero_gap.panel
def _(ax, runs: Runs) -> None:
    data = next(run.data for run in reversed(runs) if run.data["depth"] == 3)
    s, depth = data["s"], data["depth"]
    schatten = np.sum(s ** (2 / depth))
    bars = {
        "parallel": (s.sum(), s.sum()),
        "one branch": (schatten ** (depth / 2), s.sum()),
        "plain decay": (schatten, s.sum() ** (2 / depth)),
    }
    names = {
        "parallel": "parallel,\n$L$-th powers",
        "one branch": "one branch,\n$L$-th powers",
        "plain decay": "parallel,\nsquares",
    }
    for place, (name, (primal, dual)) in enumerate(bars.items()):
        colour = COLOURS[0] if name == "parallel" else BROKEN
        ax.bar(place - 0.18, depth / 2 * primal, 0.34, color=colour)
        ax.bar(place + 0.18, depth / 2 * dual, 0.34, color=colour, alpha=0.45)
        ax.plot(place - 0.18, data["found"][name], "o", color=COLOURS[1])
        for shift, label in ((-0.18, "primal"), (0.18, "dual")):
            ax.annotate(
                label, (place + shift, 0.08), rotation=90, ha="center", color="white", fontsize=8
            )
    ax.plot([], [], "o", color=COLOURS[1], label="local search")
    ax.legend()
    ax.set_xticks(range(3), names.values())
    ax.set(
        title="Parallel branches with $L$-th powers close the gap ($L=3$)", ylabel="least penalty"
    )


@cache
def searched_rank_one(alpha, gamma, first, second, target, seed):
    """Least penalty found by local search if the half lines of the data have the given directions."""
    X = np.where(C[:, None] > 0, np.outer(C, first), np.outer(C, second))
    y = alpha * np.maximum(C, 0) + gamma * np.maximum(-C, 0)
    return cr.search_minimum_norm(
        X, y[:, None], [3, 3], activation="relu", n_starts=8, target=target, seed=seed
    ).primal


@claim(
    r"Rank-one data $X=ca^\top$ with $c$ of both signs, target $y=\alpha c_++\gamma c_-$, three-layer ReLU networks with one "
    r"output, fitted exactly: the least $\frac12\sum\|W_l\|_F^2$ is $\frac32((|\alpha|+|\gamma|)/\|a\|)^{2/3}$, the dual "
    r"value, if $\alpha\gamma\ge0$, and $\frac32(|\alpha|^{2/3}+|\gamma|^{2/3})\|a\|^{-2/3}$, strictly more than the dual "
    r"value, if $\alpha\gamma<0$: a counterexample to the stated form (strong duality for rank-one data; hypotheses unseen). "
    r"With parallel branches and $\frac12\sum\|W_{l,j}\|_F^3$ primal and dual are $\frac32(|\alpha|+|\gamma|)/\|a\|$ for all "
    r"signs.",
    sources=["wang2021-parallel, Abstract"],
    origin="derived",
    kind="counterexample",
    cases={
        "quick": [{"alpha": 1.0, "gamma": gamma} for gamma in (-1.0, -0.3, 1.0)],
        "full": [
            {"alpha": 1.0, "gamma": float(gamma)}
            for gamma in (-1, -0.6, -0.3, -0.1, 0, 0.1, 0.3, 0.6, 1)
        ],
    },
    space={"alpha": Real(0.2, 2), "gamma": Real(-2, 2)},
    breaks={"two half lines at a right angle": {"angle": np.pi / 2}},
    shifts={"strong duality without a sign condition": {"gamma": -1.0, "sign_condition": False}},
)
def rank1_three_layer_relu(
    alpha, gamma, seed, angle=0.0, sign_condition=True, length=1.2
) -> Evidence:
    a, turned = (
        np.array([length, 0.0]),
        (length * float(np.cos(angle)), length * float(np.sin(angle))),
    )
    standard = cr.rank_one_relu_minimum_norm(C, a, alpha, gamma)
    parallel = cr.rank_one_relu_minimum_norm(
        C, a, alpha, gamma, architecture="parallel", penalty="power"
    )
    lower = cr.certify_rank_one_relu(C, a, standard.branches, standard.dual_point).lower
    closed = cr.certify_rank_one_relu(C, a, parallel.branches, parallel.dual_point, penalty="power")
    total = (abs(alpha) + abs(gamma)) / length
    split = (abs(alpha) ** (2 / 3) + abs(gamma) ** (2 / 3)) / length ** (2 / 3)
    primal = 1.5 * (split if alpha * gamma < 0 and sign_condition else total ** (2 / 3))
    dual = 1.5 * total ** (2 / 3)
    # For opposite signs the layers split into a part for each half line, and each part has a certificate of its own.
    parts = [(alpha, 0.0), (0.0, gamma)] if alpha * gamma < 0 else [(alpha, gamma)]
    pieces = [cr.rank_one_relu_minimum_norm(C, a, *part) for part in parts]
    below = sum(
        cr.certify_rank_one_relu(C, a, piece.branches, piece.dual_point).lower for piece in pieces
    )
    # No network has a penalty below the certified bound: a search that comes within a tenth of the allowed error is over.
    found = searched_rank_one(alpha, gamma, tuple(a), turned, below * (1 + 1e-8), seed)
    return all_of(
        equal(min(standard.primal, found), primal, error=1e-7 * primal, source=SEARCH),
        gap(
            cr.certify_rank_one_relu(C, a, standard.branches, standard.dual_point).upper,
            below,
            tol=1e-9,
        ),
        equal(lower, dual, error=1e-11 * dual, source=ROUNDING, grade=Grade.CERTIFIED),
        gap(closed.upper, closed.lower, tol=1e-9),
        equal(
            closed.upper, 1.5 * total, error=1e-11 * total, source=ROUNDING, grade=Grade.CERTIFIED
        ),
    ).with_data(gamma=gamma, primal=found, dual=lower, length=length)


@rank1_three_layer_relu.panel
def _(ax, runs: Runs) -> None:
    scale = runs[0].data["length"] ** (2 / 3)
    g = np.linspace(-1, 1, 401)
    total = 1.5 * (1 + abs(g)) ** (2 / 3) / scale
    ax.plot(g, np.where(g < 0, 1.5 * (1 + abs(g) ** (2 / 3)) / scale, total), color=COLOURS[0])
    ax.plot(g, total, "--", color=COLOURS[1])
    ax.plot(
        [r.data["gamma"] for r in runs],
        [r.data["primal"] for r in runs],
        "o",
        color=COLOURS[0],
        label="primal, local search",
    )
    ax.plot(
        [r.data["gamma"] for r in runs],
        [r.data["dual"] for r in runs],
        "s",
        mfc="none",
        color=COLOURS[1],
        label="dual, certified",
    )
    ax.legend(loc="lower left")
    ax.set(
        title="Rank-one data, three ReLU layers: a gap for opposite signs",
        xlabel=r"$\gamma$ at $\alpha=1$",
        ylabel="least weight norm",
        ylim=(0.8, None),
    )


def factored_fit(X, Y, beta, depth, seed, n_starts=6):
    """Least value of 1/2 ||X W_1 ... W_L - Y||^2 + beta/2 sum ||W_l||^2 found by L-BFGS, and its end-to-end matrix."""
    size = X.shape[1]

    def product(theta):
        return np.linalg.multi_dot([X, *theta.reshape(depth, size, size)])

    def objective(theta):
        layers = theta.reshape(depth, size, size)
        left = [X]
        for W in layers:
            left.append(left[-1] @ W)
        back, gradient = left[-1] - Y, np.empty_like(layers)
        value = 0.5 * np.sum(back**2) + beta / 2 * theta @ theta
        for index in reversed(range(depth)):
            gradient[index] = left[index].T @ back
            back = back @ layers[index].T
        return value, gradient.ravel() + beta * theta

    rng = np.random.default_rng(seed)
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9}
    starts = rng.normal(size=(n_starts, depth * size * size))
    best = min(
        (minimize(objective, t, jac=True, method="L-BFGS-B", options=options) for t in starts),
        key=lambda r: r.fun,
    )
    return best.fun, np.linalg.svd(product(best.x), compute_uv=False)


@claim(
    r"If $X^\top X=I$, weight decay $\frac\beta2\sum_l\|W_l\|_F^2$ on a linear network of depth $L$ with squared loss fits "
    r"each singular value $\sigma$ of $X^\top Y$ by the minimizer of $\frac12(s-\sigma)^2+\frac{\beta L}2s^{2/L}$ over "
    r"$s\ge0$: soft thresholding at $\beta$ for $L=2$; for $L\ge3$ a jump from 0 to $s_*=(\beta(L-2))^{L/(2L-2)}$ at "
    r"$\sigma_*=s_*\frac{L-1}{L-2}$.",
    sources=["wang2021-parallel, consequence of the theorem on standard deep linear networks"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"sigma": (2.0, 1.1, 0.4), "beta": 0.3, "depth": depth} for depth in (2, 3)],
        "full": [
            {"sigma": s, "beta": 0.3, "depth": d}
            for d in (2, 4, 3)
            for s in ((2.2, 0.7, 0.1), (2.0, 1.1, 0.4), (1.6, 0.9, 0.2))
        ],
    },
    space={"sigma": Real(0.1, 2.5, size=2), "beta": Real(0.05, 1), "depth": Int(2, 4)},
    breaks={"inputs not orthonormal": {"stretch": 1.5}},
)
def weight_decay_low_rank(sigma, beta, depth, seed, stretch=1.0) -> Evidence:
    s = np.asarray(sigma)
    rng = np.random.default_rng(seed)
    X = np.linalg.qr(rng.normal(size=(s.size + 2, s.size)))[0] * np.linspace(1, stretch, s.size)
    U, V = (np.linalg.qr(rng.normal(size=(s.size, s.size)))[0] for _ in range(2))
    Y = np.linalg.pinv(X).T @ U @ np.diag(s) @ V.T
    fitted = cr.shrink_singular_values(s, beta, depth)
    scalar = 0.5 * (fitted - s) ** 2 + beta * depth / 2 * fitted ** (2 / depth)
    predicted = scalar.sum() + 0.5 * (np.sum(Y**2) - np.sum((X.T @ Y) ** 2))
    value, found = factored_fit(X, Y, beta, depth, seed)
    layers = cr.linear_minimum_norm(np.eye(s.size), U @ np.diag(fitted) @ V.T, depth).branches
    attained = 0.5 * np.sum((cr.network_output(X, layers) - Y) ** 2) + beta * cr.network_cost(
        layers
    )

    def survives(target):
        def objective(s):
            return 0.5 * (s - target) ** 2 + beta * depth / 2 * s ** (2 / depth)

        grid = np.linspace(0, target, 200)
        start = grid[1:][objective(grid[1:]).argmin()]
        inner = minimize_scalar(
            objective, bounds=(max(0, start - target / 200), start + target / 200), method="bounded"
        ).fun
        return bool(inner < objective(0.0) * (1 - 1e-9))

    jump = cr.shrinkage_jump(beta, depth)
    return all_of(
        equal(
            min(value, attained),
            predicted,
            error=1e-6 * predicted,
            source="gradient tolerance 1e-9 of L-BFGS, rounding",
        ),
        threshold(
            survives, jump.threshold, bracket=(0.5 * jump.threshold, 2 * jump.threshold), tol=1e-3
        ),
    ).with_data(sigma=np.sort(s), found=np.sort(found), beta=beta, depth=depth)


@weight_decay_low_rank.panel
def _(ax, runs: Runs) -> None:
    sigma, beta = np.linspace(0, 2.4, 1001), runs[0].data["beta"]
    for depth, colour in zip((2, 3, 4), COLOURS, strict=False):
        line = cr.shrink_singular_values(sigma, beta, depth)
        line[1:][(line[1:] > 0) & (line[:-1] == 0) & (depth > 2)] = np.nan
        ax.plot(sigma, line, color=colour, label=f"L = {depth}")
        for run in (r for r in runs if r.data["depth"] == depth):
            ax.plot(run.data["sigma"], run.data["found"], "o", color=colour)
    ax.plot(sigma, sigma, ":", color=BROKEN)
    ax.legend(loc="upper left")
    ax.set(
        title="Weight decay from three layers on shrinks with a jump",
        xlabel=r"singular value of the data, $\beta=0.3$",
        ylabel="fitted singular value",
    )


if __name__ == "__main__":
    run_script(__file__)
