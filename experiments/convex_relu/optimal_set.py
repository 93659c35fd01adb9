"""All optimal networks at once: the polytope, its minimal networks, and its derivative."""

import numpy as np
import sympy as sp
from scipy.optimize import nnls

from theorylab import convex_relu as cr
from theorylab.verify import (
    Choice,
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    equal,
    exact,
    exhaustive,
    inconclusive,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

TOL = 1e-9
COUNTS = {4: 2, 6: 2, 8: 10, 10: 12}
SETTING = (
    r"Minimise $\frac12\|\sum_ja_j(Xu_j)_+-y\|^2+\frac\beta2\sum_j(\|u_j\|^2+a_j^2)$, $\beta>0$, over all widths; "
    r"$v=y-\hat y$ at an optimum. "
)


def polygon(sides, seed, noise=0.0):
    """The corners of a regular polygon in a random position, with target one."""
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(sides) / sides + rng.uniform(0, 2 * np.pi)
    return np.column_stack([np.cos(angles), np.sin(angles)]), 1.0 + noise * rng.normal(size=sides)


def objective(X, y, beta, network):
    return 0.5 * np.sum((network(X) - y) ** 2) + beta * network.penalty


def equal_fits(X, y, beta, seed) -> Evidence:
    """Networks between zero and one that fits: those that are optimal for the hinge loss must have the same outputs."""
    best = cr.train(X, y, beta, loss="hinge", tol=1e-8).objective
    network = cr.train(X, y, 0.9 * beta, loss="hinge", tol=1e-8).network
    fits = [t * network(X) for t in (0, 0.5, 1)]
    values = [
        np.sum(np.maximum(1 - y * f, 0)) + t * beta * network.penalty
        for f, t in zip(fits, (0, 0.5, 1), strict=True)
    ]
    optimal = np.array(
        [f for f, value in zip(fits, values, strict=True) if value <= best * (1 + 1e-7)]
    )
    return at_most(np.ptp(optimal, axis=0).max(), 1e-3)


@claim(
    SETTING
    + r"$\hat y$ and $v$ are unique. With $E$ the finite set of unit $u_k$ and signs $s_k$ with $s_kv^\top(Xu_k)_+=\beta$, "
    r"the optimal networks are, up to parallel copies, those with neurons in $E$ and weights $c\ge0$ with "
    r"$\sum_kc_ks_k(Xu_k)_+=\hat y$; all have $\sum_kc_k=v^\top\hat y/\beta$. For a regular $N$-gon, $N=4,6,8,10$, and $y=1$: "
    r"$v=\beta\sin\frac\pi N$, and there are 2, 2, 10, 12 minimal networks.",
    sources=["mishkin2023-optimal, Corollary 4.1 (informal, from the authors' poster)"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"sides": 10}, {"sides": 8}],
        "full": [{"sides": n, "ratio": r} for n in (4, 6, 10, 8) for r in (0.05, 0.6, 0.19)],
    },
    space={"sides": Choice([4, 6, 8, 10]), "ratio": Real(0.02, 0.9)},
    breaks={
        "targets without the symmetry": {"noise": 0.02},
        "hinge loss, not strictly convex": {"ratio": 1.0, "loss": "hinge"},
    },
)
def optimal_set_polytope(sides, seed, ratio=0.19, noise=0.0, loss="squared") -> Evidence:
    X, y = polygon(sides, seed, noise)
    height = 1 / np.sin(np.pi / sides)
    beta = ratio * height
    if loss == "hinge":
        return equal_fits(X, y, beta, seed)
    optimal = cr.find_optimal_set(X, y, beta, tol=TOL)
    networks = cr.minimal_networks(optimal)
    value = sides * (ratio - ratio**2 / 2)
    dual = optimal.training.certificate.dual
    checks = [cr.certify(X, y, beta, network, dual=dual) for network in networks]
    parts = [
        exact(len(networks), "==", COUNTS[sides], grade=Grade.ENUMERATED),
        equal(
            optimal.dual,
            ratio,
            error=np.sqrt(2 * TOL * value),
            source="strong concavity of the dual at the training's gap",
        ),
        equal(
            [c.objective for c in checks],
            value,
            error=2 * TOL * value,
            source="gap of the training",
        ),
        equal(
            [n.penalty for n in networks],
            sides * (1 - ratio) / height,
            error=sides * np.sqrt(2 * TOL * value),
            source="strong concavity of the dual at the training's gap",
        ),
        exhaustive(
            [(k, bool(c.verify()) and c.gap < 10 * TOL) for k, c in enumerate(checks)],
            grade=Grade.CERTIFIED,
        ),
    ]
    # Independent of all this: local descent of wide networks; those that end at the optimal value lie in the polytope.
    rng, strays = np.random.default_rng(seed), []
    for _ in range(30):
        found = cr.local_minimum(X, y, beta, (rng.normal(size=(100, 2)), rng.normal(size=100)))
        if found.objective <= value * (1 + 1e-12) or noise:
            unit = found.network.weights / np.linalg.norm(
                found.network.weights, axis=1, keepdims=True
            )
            strays.append(
                np.linalg.norm(unit[:, None] - optimal.directions, axis=2).min(axis=1).max()
            )
        if len(strays) == 3:
            break
    if not strays:
        return inconclusive("no descent reached the optimal value")
    # A direction at distance t from an active one loses t^2 / 2 of the value, which is known to 1e-12.
    parts.append(at_most(strays, 1e-5, rounding=0.0))
    return all_of(*parts).with_data(networks=networks, X=X, sides=sides)


@optimal_set_polytope.panel
def _(ax, runs: Runs) -> None:
    run = next(run for run in reversed(runs) if run.data["sides"] == 8)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 100))
    turn = np.exp(-1j * np.angle(run.data["X"][0] @ np.array([1, 1j])))
    for k, network in enumerate(run.data["networks"]):
        at = 2.5 * (k % 5) - 2.5j * (k // 5)
        ax.plot((at + circle).real, (at + circle).imag, color=BROKEN, lw=0.8)
        points = at + turn * (run.data["X"] @ np.array([1, 1j]))
        ax.plot(points.real, points.imag, ".", color=BROKEN, ms=4)
        masses = np.linalg.norm(network.weights, axis=1) * np.abs(network.output_weights)
        units = (
            turn * (network.weights @ np.array([1, 1j])) / np.linalg.norm(network.weights, axis=1)
        )
        for unit, mass in zip(units, masses, strict=True):
            tip = at + unit * mass
            ax.plot(
                [at.real, tip.real],
                [at.imag, tip.imag],
                color=COLOURS[0 if len(masses) == 4 else 1],
                lw=2,
            )
        ax.text(
            at.real, at.imag - 1.12, f"{len(masses)} neurons", ha="center", va="top", fontsize=6.5
        )
    ax.text(
        5,
        -4.35,
        "needles: directions and weights of the neurons; dots: data",
        ha="center",
        fontsize=7,
        color="#555555",
    )
    ax.set(
        title="The 10 minimal optimal networks on the octagon", aspect="equal", ylim=(-4.6, 1.15)
    )
    ax.axis("off")


def minimal_iff_independent(atoms, fit):
    """Check every set of directions that is the support of an optimum, found by non-negative least squares alone."""
    k = atoms.shape[1]
    columns = {mask: [j for j in range(k) if mask >> j & 1] for mask in range(1, 2**k)}
    feasible = [
        mask
        for mask, c in columns.items()
        if nnls(atoms[:, c], fit)[1] < 1e-6 * np.linalg.norm(fit)
    ]
    minimal = [s for s in feasible if not any(t != s and t & ~s == 0 for t in feasible)]
    for mask in feasible:
        # A set is the support of an optimum iff the minimal feasible sets inside it cover it.
        if np.bitwise_or.reduce([s for s in minimal if s & ~mask == 0]) == mask:
            rank = np.linalg.matrix_rank(atoms[:, columns[mask]], tol=1e-9)
            yield mask, (mask in minimal) == (rank == len(columns[mask]))


@claim(
    SETTING
    + r"An optimal network is minimal (no proper subset of its neurons, with any weights, is optimal) iff the vectors $(Xu_j)_+$ "
    r"of its $m$ neurons are linearly independent; so it has at most $n$ neurons. From any optimal network, moving the "
    r"weights along "
    r"null vectors of $[(Xu_j)_+]$ until one vanishes keeps loss and penalty and ends at a minimal network after at most "
    r"$m-\mathrm{rank}$ steps.",
    sources=[
        "mishkin2023-optimal, Proposition 3.6 and optimal pruning (informal, from the authors' poster)"
    ],
    origin="derived",
    kind="identity",
    cases=[{"sides": 6}, {"sides": 10}, {"sides": 8}],
    space={"sides": Choice([4, 6, 8]), "ratio": Real(0.05, 0.8), "copies": Int(0, 4)},
    breaks={
        "pruning by magnitude": {"method": "magnitude"},
        "start is not optimal": {"start": "random"},
    },
)
def optimal_pruning(
    sides, seed, ratio=0.19, copies=4, method="null vectors", start="optimal"
) -> Evidence:
    X, y = polygon(sides, seed)
    beta = ratio / np.sin(np.pi / sides)
    rng = np.random.default_rng(seed)
    optimal = cr.find_optimal_set(X, y, beta, tol=TOL)
    corners = cr.vertices(optimal)
    network = optimal.network(rng.dirichlet(np.ones(len(corners))) @ corners)
    weights, output = network.weights, network.output_weights
    if start == "random":
        weights, output = rng.normal(size=(sides, 2)), rng.normal(size=sides)
    # Parallel copies: some neurons are split into halves, u / sqrt 2 and a / sqrt 2 twice.
    half = np.where(np.arange(len(output)) < copies, np.sqrt(0.5), 1.0)
    weights, output = weights * half[:, None], output * half
    network = cr.Network(np.vstack([weights, weights[:copies]]), np.append(output, output[:copies]))
    before, m = objective(X, y, beta, network), network.n_neurons
    rank = np.linalg.matrix_rank(np.maximum(X @ network.weights.T, 0), tol=1e-9)
    if method == "magnitude":
        order = np.argsort(-np.linalg.norm(network.weights, axis=1))
        subsets = [order[:size] for size in range(m, rank - 1, -1)]
        values = [
            objective(X, y, beta, cr.Network(network.weights[k], network.output_weights[k]))
            for k in subsets
        ]
        return equal(values[-1], before, error=1e-9 * before, source="rounding").with_data(
            values=values, m=m, start=before
        )
    pruned = cr.optimal_pruning(X, network)
    outcomes = minimal_iff_independent(optimal.atoms, optimal.fit) if sides <= 8 else ()
    source = "rounding of m steps, 1e-11 each"
    parts = [
        equal(
            objective(X, y, beta, pruned.network), before, error=1e-11 * m * before, source=source
        ),
        equal(pruned.network(X), network(X), error=1e-11 * m, source=source, scale=1.0),
        at_most(pruned.network.n_neurons, rank),
        at_most(pruned.n_steps, m - rank),
        exhaustive([("result is independent", cr.is_minimal(X, pruned.network)), *outcomes]),
    ]
    return all_of(*parts).with_data(counts=pruned.n_neurons, penalties=pruned.penalties)


@optimal_pruning.panel
def _(ax, runs: Runs) -> None:
    data, broken = runs[-1].data, runs.controls["pruning by magnitude"].data
    base = broken["start"]
    ax.plot(
        broken["m"] - np.arange(len(broken["values"])),
        np.array(broken["values"]) / base,
        "o-",
        color=BROKEN,
    )
    excess = 1 + (np.array(data["penalties"]) - data["penalties"][0]) / base
    ax.plot(data["counts"], excess, "o", color=COLOURS[0])
    ax.axhline(1.0, color=COLOURS[0])
    ax.text(
        data["counts"][-1], 1.008, "along null vectors", color=COLOURS[0], fontsize=8, ha="right"
    )
    k = len(broken["values"]) // 2
    ax.text(
        broken["m"] - k + 0.2,
        broken["values"][k] / base,
        "smallest neuron first",
        color="#666666",
        fontsize=8,
        ha="right",
        va="bottom",
    )
    ax.invert_xaxis()
    ax.set(
        title="Null vectors prune for free, magnitudes do not",
        xlabel="neurons left",
        ylabel="objective / optimum",
    )


@claim(
    SETTING
    + r"A minimal network need not have the fewest neurons: on the octagon with $y=1$ and any $\beta<1/\sin\frac\pi8$ one "
    r"optimal "
    r"network has four neurons and another five, both with linearly independent $(Xu_j)_+$. So 'minimal' in Proposition "
    r"3.6 cannot "
    r"mean, as the poster's definition says, that no optimal network has strictly fewer neurons (counterexample to the "
    r"stated form; the paper's definition was not seen).",
    sources=["mishkin2023-optimal, Proposition 3.6 (informal, from the authors' poster)"],
    origin="derived",
    kind="counterexample",
    cases=[{"sides": 8}],
    breaks={"hexagon, where all minimal networks have three": {"sides": 6}},
)
def minimal_is_not_minimum(sides, seed) -> Evidence:
    X, y = polygon(sides, seed)
    sizes = {np.count_nonzero(row) for row in cr.vertices(cr.find_optimal_set(X, y, 0.5))}
    parts = [exact(len(sizes), ">=", 2, grade=Grade.ENUMERATED)]
    if sides == 8:
        # Active directions lie midway between corners; of the four corners they see, the inner two count 1 + sqrt 2 times.
        r = sp.sqrt(2)
        atoms = sp.Matrix(8, 8, lambda i, k: [1, 1 + r, 1 + r, 1, 0, 0, 0, 0][(i - k) % 8])
        networks = {
            (0, 2, 4, 6): [1 - r / 2] * 4,
            (0, 1, 3, 4, 6): [3 - 2 * r, 3 * r - 4, 3 * r - 4, 3 - 2 * r, 6 - 4 * r],
        }
        for support, weights in networks.items():
            columns = atoms[:, list(support)]
            fit = (columns * sp.Matrix(weights) - sp.ones(8, 1)).applyfunc(sp.expand)
            parts.append(exact(sum(abs(f) for f in fit), "==", 0))
            parts += [exact(w, ">", sp.Integer(0)) for w in weights]
            parts.append(
                exact(sp.expand((columns.T * columns).det(method="berkowitz")), ">", sp.Integer(0))
            )
    return all_of(*parts)


@claim(
    SETTING
    + r"If $X^\top v=0$ the active set $E$ contains $(-u,s)$ with every $(u,s)$. With $q$ such pairs, the vectors $|Xu_k|$ and "
    r"the columns of $X$ together independent, and some optimal network with all weights positive, the optimal set has dimension "
    r"$q-\mathrm{rank}X$. It happens on open sets of data $(X,y)$: with Gaussian data and small $\beta$ the optimum is "
    r"not unique.",
    sources=["mishkin2023-optimal, Proposition 4.3 (informal, from the authors' poster)"],
    origin="derived",
    kind="equality",
    cases=[{"n": n, "d": 2} for n in (10, 12, 15)],
    breaks={"large beta, where X'v is not zero": {"ratio": 0.9}},
)
def small_penalty_optima_are_not_unique(n, d, seed, ratio=0.01) -> Evidence:
    rng = np.random.default_rng(seed)
    for _ in range(10):
        X, y = rng.normal(size=(n, d)), rng.normal(size=n)
        beta = ratio * cr.zero_threshold(X, y)
        optimal = cr.find_optimal_set(X, y, beta, tol=TOL)
        orthogonal = np.linalg.norm(X.T @ optimal.dual) <= 1e-6 * beta
        if ratio > 0.1 or (orthogonal and min(optimal.weight_ranges[:, 1]) > 1e-6 * optimal.total):
            break
    else:
        return inconclusive("no instance satisfies the hypotheses")
    # The second instance perturbs the first: the set of such data is open.
    second = cr.find_optimal_set(
        X + 1e-6 * rng.normal(size=X.shape), y + 1e-6 * rng.normal(size=n), beta, tol=TOL
    )
    parts = []
    for found in (optimal, second):
        same = found.directions @ found.directions.T * np.outer(found.signs, found.signs)
        pairs = int(np.sum(same < -1 + 1e-9)) // 2
        free = found.weight_ranges[:, 1] > 1e-7 * found.total
        dimension = int(free.sum() - np.linalg.matrix_rank(found.atoms[:, free], tol=1e-9))
        parts.append(exact(2 * pairs, "==", found.n_directions, grade=Grade.NUMERICAL))
        parts.append(exact(dimension, "==", pairs - d, grade=Grade.NUMERICAL))
    return all_of(*parts).with_data(X=X, y=y, optimal=optimal)


@small_penalty_optima_are_not_unique.panel
def _(ax, runs: Runs) -> None:
    data = runs[-1].data
    optimal = data["optimal"]
    ranges, order = (
        optimal.weight_ranges,
        np.argsort(np.arctan2(*(optimal.directions * 1.0).T[::-1])),
    )
    angle = np.degrees(np.arctan2(optimal.directions[:, 1], optimal.directions[:, 0]))[order]
    for sign, colour, name in ((1, COLOURS[0], "positive"), (-1, COLOURS[1], "negative")):
        at = optimal.signs[order] == sign
        ax.vlines(
            angle[at], sign * ranges[order][at, 0], sign * ranges[order][at, 1], color=colour, lw=4
        )
        ax.plot(angle[at], sign * optimal.weights[order][at], "o", color="white", mec=colour, ms=4)
        ax.text(
            178, sign * ranges.max() * 0.92, f"{name} neurons", color=colour, ha="right", fontsize=8
        )
    ax.axhline(0, color="black", lw=0.5)
    ax.set(
        title="Gaussian data, small penalty: weights are not determined",
        xlabel="direction of the neuron (degrees)",
    )
    ax.set(ylabel="range of the signed weight", xlim=(-185, 185))


@claim(
    SETTING
    + r"Where the faces $B_jp_j=0$ of the neurons $p_j=|a_j|u_j$ of a minimal optimal network do not change, "
    r"$dp/d\beta=-Z(Z^\top MZ)^{-1}Z^\top\hat p$ with "
    r"$M=A^\top A+\beta\,\mathrm{blkdiag}\frac{I-\hat p_j\hat p_j^\top}{\|p_j\|}$, $A=[s_jD_jX]$, $Z$ spanning the faces, "
    r"$\hat p_j=p_j/\|p_j\|$; likewise for $y$ and $X$. $\frac{d}{d\beta}$ of the optimal value is $\sum_j\|p_j\|$.",
    sources=["mishkin2023-optimal, sensitivity"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"n": 8, "d": 3, "ratio": 0.3, "along": along} for along in ("X", "y", "beta")],
        "full": [
            {"n": 8, "d": 3, "ratio": r, "along": a} for a in ("X", "y") for r in (0.2, 0.4, 0.6)
        ]
        + [{"n": 8, "d": 3, "ratio": r, "along": "beta"} for r in np.linspace(0.03, 0.97, 60)],
    },
    space={
        "n": Int(3, 10),
        "d": Int(2, 3),
        "ratio": Real(0.1, 0.95),
        "along": Choice(["beta", "y", "X"]),
    },
    breaks={"at the breakpoint beta_max": {"ratio": 1.0}},
)
def sensitivity(n, d, ratio, along, seed) -> Evidence:
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, d)), rng.normal(size=n)
    top = cr.zero_threshold(X, y)
    beta = ratio * top
    step = {
        "X": rng.normal(size=X.shape) if along == "X" else 0 * X,
        "y": rng.normal(size=n) * (along == "y"),
        "beta": float(along == "beta"),
    }
    # Just below beta_max where the network vanishes: the formula is that of the branch below.
    at = min(beta, top * (1 - 1e-6))
    formula = cr.sensitivity(X, y, at, d_X=step["X"], d_y=step["y"], d_beta=step["beta"])
    h = 1e-4 * beta

    def solve(t):
        data = X + t * step["X"]
        result = cr.train(data, y + t * step["y"], beta + t * step["beta"], tol=TOL)
        return result.network(data), result.objective, faces(data, result.network)

    (f4, p4, s4), (f3, p3, s3), (f1, p1, s1), (f0, p0, s0) = (
        solve(t) for t in (2 * h, h, -h, -2 * h)
    )
    if ratio < 1 and not (s4 == s3 == s1 == s0):
        return inconclusive("a breakpoint lies within the steps of the differences")
    near, far = (f3 - f1) / (2 * h), (f4 - f0) / (4 * h)
    # The truncation of the near quotient is a third of its distance from the far one; training is exact to 1e-12.
    error = np.abs(far - near).max() + 1e-11 * np.linalg.norm(y) / h
    size = np.abs(near).max()
    slope = abs((p4 - p0) / (4 * h) - (p3 - p1) / (2 * h)) + 1e-12 * p3 / h
    source = "step halving of the central difference, and rounding 1e-11 over the step"
    if ratio == 1:
        error = 1e-2 * size
    return all_of(
        equal(formula.d_fit, near, error=error, source=source, scale=size),
        equal(
            formula.d_objective,
            (p3 - p1) / (2 * h),
            error=slope + 1e-9,
            source=source,
            scale=max(1.0, abs(p3 - p1) / (2 * h)),
        ),
    ).with_data(
        ratio=ratio,
        along=along,
        formula=np.linalg.norm(formula.d_fit),
        measured=np.linalg.norm(near),
    )


def faces(X, network):
    """Signs and sides of the neurons."""
    z = (
        X
        @ network.weights.T
        / (np.linalg.norm(X, axis=1)[:, None] * np.linalg.norm(network.weights, axis=1))
    )
    return {
        (bool(a > 0), (np.sign(c) * (np.abs(c) > 1e-9)).astype(int).tobytes())
        for a, c in zip(network.output_weights, z.T, strict=True)
    }


@sensitivity.panel
def _(ax, runs: Runs) -> None:
    data = [run.data for run in runs if run.data and run.data["along"] == "beta"]
    ax.plot([r["ratio"] for r in data], [r["formula"] for r in data], "-", color=COLOURS[0])
    ax.plot(
        [r["ratio"] for r in data], [r["measured"] for r in data], "o", ms=3.5, color=COLOURS[1]
    )
    broken = runs.controls["at the breakpoint beta_max"].data
    ax.plot([1.0], [broken["measured"]], "s", color=BROKEN)
    ax.annotate(
        "half the slope\nat the breakpoint",
        (1.0, broken["measured"]),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=7,
        color="#666666",
    )
    ax.text(
        0.4,
        0.6,
        "line: formula\npoints: finite differences",
        transform=ax.transAxes,
        va="top",
        fontsize=8,
    )
    ax.set(
        title="The implicit derivative is the path's slope",
        xlabel=r"$\beta/\beta_{\max}$",
        ylabel=r"$\|d\hat y/d\beta\|$",
    )


if __name__ == "__main__":
    run_script(__file__)
