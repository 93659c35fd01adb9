"""Sparse displacements: the penalised minimax problem, its trade-off, thresholded maps."""

from dataclasses import replace

import numpy as np
from scipy.optimize import linprog

from theorylab.optimal_transport import (
    L1,
    KOverlap,
    SmoothedL0,
    convex_potential,
    elastic_map,
    monge_gap,
    pareto_curve,
    proximal_map,
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
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "chen2025-displacement"
minimax = paper(
    KEY,
    r"For $n$ points $x_i$, $m$ points $y_j$ of equal weights and $s=\|\cdot\|_1$, let $V(f)$, the "
    r"infimum over maps $\nabla g$ of Makkuva's objective with the penalty, be "
    r"$E\frac12\|x\|^2+E\frac12\|y\|^2-Ef(x)-E\sup_z[\langle y,z\rangle-f(z)-\lambda s(z-y)]$:",
)
tradeoff = paper(
    KEY,
    r"Plans $P_\lambda$ that minimise $C(P)+\lambda S(P)$ exactly, $C$ the mean of "
    r"$\frac12\|x-y\|^2$ and $S$ that of a penalty $s(x-y)$ which does not depend on $\lambda$:",
)
threshold = paper(
    KEY, r"$h(z)=\frac12\|z\|^2+\lambda\|z\|_1$, $g(y)=\frac12y^\top By$, $B\succeq0$:"
)
OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def inner_supremum(y, slopes, offsets, lam):
    """The supremum over all z of <y, z> - f(z) - lam |z - y|_1 for a maximum f of affine pieces."""
    d = y.size
    rows = np.block(
        [
            [slopes, -np.ones((len(slopes), 1)), np.zeros((len(slopes), d))],
            [np.eye(d), np.zeros((d, 1)), -np.eye(d)],
            [-np.eye(d), np.zeros((d, 1)), -np.eye(d)],
        ]
    )
    answer = linprog(
        np.concatenate([-y, [1.0], np.full(d, lam)]),
        A_ub=rows,
        b_ub=np.concatenate([-offsets, y, -y]),
        bounds=(None, None),
        options=OPTIONS,
    )
    return -answer.fun


@simulation
def supremum(X, Y, lam, convex):
    """V at the best potential that a linear program finds, among all or the convex ones, and a
    bound of V over them: what a coupling costs, of which each target pays once if f is convex."""
    (n, d), m = X.shape, len(Y)
    moved = X[:, None, :] - Y
    C = (moved**2).sum(2) / 2 + (0.0 if convex else lam) * np.abs(moved).sum(2)
    # phi_i + psi_j <= C_ij + <q_j, x_i - y_j>, |q_j| <= lam, or q = 0 where f is free
    rows = np.zeros((n, m, n + m + m * d))
    i, j = np.ogrid[:n, :m]
    rows[i, j, i] = rows[i, j, n + j] = 1.0
    rows[i[..., None], j[..., None], n + m + j[..., None] * d + np.arange(d)] = -moved
    answer = linprog(
        -np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m), np.zeros(m * d)]),
        A_ub=rows.reshape(n * m, -1),
        b_ub=C.ravel(),
        bounds=[(None, None)] * (n + m) + [(-lam * convex, lam * convex)] * (m * d),
        options=OPTIONS,
    )
    psi, q = answer.x[n : n + m], answer.x[n + m :].reshape(m, d)
    P = -answer.ineqlin.marginals.reshape(n, m)
    if not convex:  # f is |x|^2 / 2 less the transform of psi, finite everywhere
        attained = (C - psi).min(axis=1).mean() + psi.mean()
        return float(attained), float(np.vdot(P, C))
    slopes, offsets = Y - q, np.einsum("jk,jk->j", q - Y / 2, Y) + psi
    f = (X @ slopes.T + offsets).max(axis=1)
    inner = [inner_supremum(y, slopes, offsets, lam) for y in Y]
    attained = np.mean(np.sum(X**2, 1)) / 2 + np.mean(np.sum(Y**2, 1)) / 2 - f.mean()
    mean = np.einsum("ij,ijk->jk", P, moved)
    return float(attained - np.mean(inner)), float(np.vdot(P, C) + lam * np.abs(mean).sum())


def value(X, Y, lam, convex):
    """The largest V, between what is attained and what is proved."""
    attained, bound = supremum(X, Y, lam, convex)
    return between(attained * (1 - 1e-10), bound * (1 + 1e-10), "max")


@minimax.ours("derived: minimax through the c-transform, and over convex f", serves="a")
@cases(lam=[0.0, 0.5, 3.0])
@full(lam=[0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 3.0], n=14, m=14)
@space(lam=Real(0.0, 4.0), n=Int(1, 8), m=Int(1, 8), d=Int(1, 3), shift=Real(0.0, 2.0))
@breaks("convex potentials only", convex=True)
@breaks("another penalty weight in V", scale=2.0)
def penalised_minimax_is_elastic_ot(lam, seed, n=8, m=8, d=2, shift=0.0, convex=False, scale=1.0):
    r"""$\sup_fV(f)$ over all $f$ is the transport cost for
    $c_\lambda(x,y)=\frac12\|x-y\|^2+\lambda s(x-y)$; over convex $f$ it is
    $\min_P\sum P_{ij}\frac12\|x_i-y_j\|^2+\lambda E_y\,s(E_P[x|y]-y)$, where only the mean
    displacement of each target pays: at most as much, and the same at $\lambda=0$."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + shift
    elastic = elastic_map(X, Y, L1(lam)).value
    barycentric = convex_potential(X, Y, L1(lam)).plan.value
    return {
        "all": compare(value(X, Y, scale * lam, convex), "==", theory("elastic", elastic)),
        "convex": compare(value(X, Y, scale * lam, True), "==", theory("mean", barycentric)),
    }


@panel(
    penalised_minimax_is_elastic_ot,
    "The penalised minimax value: elastic transport, or less where potentials are convex",
    x=r"$\lambda$",
    y="value",
)
def _(pen, runs):
    for k, (part, name) in enumerate([("all", "all potentials"), ("convex", "convex ones")]):
        pen.theory(*runs.predicted("lam", part), k=k)
        pen.points(*runs.measured("lam", part), name, k=k)


@minimax.ours("derived: two points a side, the smallest case of a price", serves="a")
@cases(lam=[0.3, 2.0])
@full(lam=[0.0, 0.3, 0.6, 0.9, 1.2, 1.5, 2.0, 2.5])
@space(
    lam=Real(0.0, 3.0),
    near=Real(0.1, 1.0),
    far=Real("near + 0.2", 3.0),
    angle=Real(0.0, 3.1),
    d=Int(1, 4),
)
@breaks("targets farther out than the sources", far=0.4)
def convex_potentials_can_cost(lam, near=0.8, far=2.0, angle=0.3, d=2):
    r"""with $x=\pm Re$, $y=\pm ue$, $R>u>0$, $\|e\|_2=1$, convexity of $f$ costs
    $(\lambda\|e\|_1-u)_+(R-u)$ of $\frac12(R-u)^2+\lambda\|e\|_1(R-u)$: nothing up to
    $\lambda\|e\|_1=u$, and more than nothing beyond."""
    e = np.array([np.cos(angle), *[np.sin(angle)] * (d - 1)])
    e /= np.linalg.norm(e)
    X, Y = np.outer([-far, far], e), np.outer([-near, near], e)
    free, convex = (value(X, Y, lam, shape) for shape in (False, True))
    price = within((free.centre - convex.centre), free.error + convex.error, "both enclosures")
    level, moved = lam * np.abs(e).sum(), far - near
    return {
        "price": compare(price, "==", theory("price", max(level - near, 0.0) * moved)),
        "all": compare(free, "==", theory("all", moved**2 / 2 + level * moved)),
    }


@panel(
    convex_potentials_can_cost,
    r"Convexity is free until $\lambda\|e\|_1=u$",
    x=r"$\lambda$",
    y="price of convexity",
)
def _(pen, runs):
    lam, e = np.linspace(0, 2.6, 80), np.cos(0.3) + np.sin(0.3)
    pen.theory(lam, np.maximum(lam * e - 0.8, 0) * 1.2)
    pen.points(*runs.measured("lam"), "linear programs")


PENALTIES = {
    "l1": L1(0.0),
    "smoothed l0": SmoothedL0(0.0, 0.2),
    "l0": SmoothedL0(0.0, 0.0),
    "k-overlap": KOverlap(0.0, 1),
}


def clouds(n, m, d, spacing, seed):
    """Normal points, rounded to multiples of the spacing if that is not 0."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    return (np.round(X / spacing) * spacing, np.round(Y / spacing) * spacing) if spacing else (X, Y)


@simulation
def curve(name, n, m, d, lowest, ratio, spacing, widening, seed):
    """Weights, cost and sparsity of points with coordinates on a grid (of spacing 0: anywhere)."""
    X, Y = clouds(n, m, d, spacing, seed)
    weights = np.append(0.0, lowest * ratio ** np.arange(7))
    found = []
    for w in weights:
        penalty = PENALTIES[name]
        if widening:
            penalty = replace(penalty, width=penalty.width * (w / lowest) ** widening)
        best = pareto_curve(X, Y, penalty, weights=[w])
        found.append([best.transport_cost[0], best.sparsity[0]])
    return weights, *np.array(found).T


@tradeoff.ours("derived: exchange of two minimisers, both ways", serves="ab")
@cases(name=["k-overlap", "l1", "l0", "smoothed l0"])
@cases(name="smoothed l0", m=20, spacing=0.0)
@full(name=["k-overlap", "l1", "l0"], n=60, m=60, d=4)
@full(name="smoothed l0", n=60, m=[40, 60], d=4)
@space(
    name=Choice(tuple(PENALTIES)),
    n=Int(1, 30),
    m=Int(1, 30),
    d=Int(1, 4),
    lowest=Real(0.01, 0.3, log=True),
    ratio=Real(1.1, 3.0),
    spacing=Real(0.0, 0.6),
)
@breaks("a penalty that widens with its weight", widening=0.5)
def pareto_monotonicity(
    name, seed, n=30, m=30, d=3, lowest=0.1, ratio=1.6, spacing=0.4, widening=0.0
):
    r"""for $0\le\lambda<\lambda'$, $\lambda(S-S')\le C'-C\le\lambda'(S-S')$; hence $C$ never falls
    and $S$ never rises with $\lambda$, for any penalty."""
    weights, C, S = curve(name, n, m, d, lowest, ratio, spacing, widening, seed)
    low, high = np.triu_indices(len(weights), 1)
    dearer, sparser = C[high] - C[low], S[low] - S[high]
    error = 1e-13 * (1 + C.max() + weights[high] * S.max())
    sparser = np.where(np.abs(sparser) > 1e-13 * (1 + S.max()), sparser, 0.0)  # equal: same plan
    dearer = within(dearer, error, "rounding of sums")
    sparser = theory("sparsity", sparser)
    return {
        "at least": compare(dearer, ">=", weights[low] * sparser),
        "at most": compare(dearer, "<=", weights[high] * sparser),
    }


@panel(
    pareto_monotonicity,
    "Optimal plans trade cost for sparsity at a rate between their weights",
    x="places between the two weights on the grid",
    y=r"$(C'-C)\,/\,\lambda(S-S')$",
    log="y",
)
def _(pen, runs):
    for k, run in enumerate(runs.judgement.runs):
        part = run.parts["at least"]
        low, high = np.triu_indices(8, 1)
        drawn = part.predicted > 0  # neither from weight 0 nor between equal plans
        ratio = part.centre[drawn] / part.predicted[drawn]
        name = run.instance["name"] + (", $m<n$" if run.instance["m"] < 60 else "")
        pen.points((high - low)[drawn] + 0.12 * k, ratio, None, name, k=k)
    pen.theory([1, 6.5], [1, 1], "least", k=6)
    pen.theory(np.arange(1, 7), 1.6 ** np.arange(1, 7), "most", k=6)


@simulation
def moved_coordinates(n, d, width, weight, planned, spacing, seed):
    """Transport cost / weight plus the moved coordinates, of optimal plans for the count, for the
    smoothed one (with a weight of its own), and for the best of many weights of l1; what smoothing
    leaves out, and the moved coordinates."""
    X, Y = clouds(n, n, d, spacing, seed)

    def total(penalty):
        found = elastic_map(X, Y, penalty)
        moved = X - found.images
        moved = moved[np.abs(moved) > spacing / 2]
        left_out = np.exp(-((moved / width) ** 2) / 2).sum() / n
        return found.transport_cost / weight + moved.size / n, left_out, moved.size / n

    counted, smoothed = total(SmoothedL0(weight, 0.0))[0], total(SmoothedL0(planned, width))
    return counted, *smoothed, min(total(L1(w))[0] for w in np.geomspace(1e-3, 1e3, 25))


@tradeoff.ours("derived: smoothed and exact count differ by what is near 0", serves="b")
@cases(weight=[1.0, 2.0], width=[0.4, 0.1], n=60)
@full(weight=[0.1, 0.2, 0.5, 1.0, 2.0, 5.0], width=[0.4, 0.2, 0.1], n=60, d=4)
@space(
    weight=Real(0.1, 5.0, log=True),
    width=Real(0.1, 0.4),
    n=Int(1, 40),
    d=Int(1, 4),
    spacing=Real(0.3, 0.6),
)
@breaks("planned for a smaller weight", part=0.01)
def smoothed_l0_near_best_tradeoff(weight, seed, width=0.2, n=30, d=3, spacing=0.4, part=1.0):
    r"""let $N$ be the mean number of moved coordinates. The plan of smoothed $\ell_0$ exceeds the
    least $C+\lambda N$, and so that of $\ell_1$ with any weight, by at most
    $\lambda E\sum_{z_i\ne0}e^{-z_i^2/2\sigma^2}$; for points on a grid of spacing $\delta$ by no
    more than $\lambda Ne^{-\delta^2/2\sigma^2}$."""
    run = moved_coordinates(n, d, width, weight, part * weight, spacing, seed)
    counted, total, left_out, moved, l1 = run
    excess = within([total - counted, total - l1], 1e-13 * (total + l1), "rounding")
    left_out = np.round(left_out, 11)  # less is no more than rounding
    tail = moved * np.exp(-theory("exponent", (spacing / width) ** 2 / 2))
    return {
        "excess": compare(excess, "<=", theory("left out", left_out)),
        "grid": compare(excess, "<=", np.round(tail, 11)),
        "l1": compare(within(l1, 1e-13 * l1, "rounding"), ">=", theory("least", counted)),
    }


@panel(
    smoothed_l0_near_best_tradeoff,
    r"Excess of smoothed $\ell_0$ over the best trade of cost for coordinates",
    x=r"$\lambda$",
    y=r"$C/\lambda+N$, over the least",
    log="x",
)
def _(pen, runs):
    least = runs.predicted("weight", "l1", where={"width": 0.1})[1]
    for k, width in enumerate((0.1, 0.2, 0.4)):
        x, y, error = runs.measured("weight", "excess", 0, where={"width": width})
        pen.points(x, 1 + y / least, error / least, rf"smoothed $\ell_0$, $\sigma={width}$", k=k)
    x, y, error = runs.measured("weight", "l1", where={"width": 0.1})
    pen.points(x, y / least, error / least, r"$\ell_1$, best of 25 weights", k=3)
    pen.theory([0.1, 5], [1, 1], k=6)


@simulation
def thresholded(n, d, rank, lam, coupling, curve, beyond, radius, seed):
    """Sources, images and curvature of a random cloud, and of a ring on which the first coordinate
    moves and the second stays."""
    rng = np.random.default_rng(seed)
    X, root = 3 * lam * rng.standard_normal((n, d)), rng.standard_normal((d, rank))
    B = root @ root.T / d
    # At the centre grad g = B T(x) is lam (1 + beyond, coupling (1 + beyond)).
    angle = 2 * np.pi * np.arange(200) / 200
    corner = np.array([[1.0, coupling], [coupling, curve]])
    centre = np.array([1 + 2 * beyond, 0.0]) * lam
    ring = centre + radius * lam * np.column_stack([np.cos(angle), np.sin(angle)])
    maps = [(X, B), (ring, corner)]
    return [(P, proximal_map(P, M, L1(lam)), M) for P, M in maps]


@threshold.ours("derived: duality of the argmin, the gap by a polar decomposition", serves="a")
@cases(coupling=[0.5, 0.8])
@full(coupling=[0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], n=300)
@space(
    coupling=Real(0.0, 0.8),
    curve=Real(0.7, 2.0),
    lam=Real(0.1, 10.0, log=True),
    d=Int(1, 4),
    rank=Int(1, "d"),
    n=Int(1, 60),
    beyond=Real(0.05, 0.15),
    radius=Real(0.005, 0.025),
)
@breaks("judged for the quadratic cost", own="sqeuclidean")
@breaks("another threshold", actual=1.3)
def soft_threshold_map_optimal(
    coupling,
    seed,
    curve=2.0,
    lam=1.0,
    d=3,
    rank=2,
    n=60,
    beyond=0.1,
    radius=0.02,
    own=None,
    actual=1.0,
):
    r"""$T(x)=\arg\min_yh(x-y)+g(y)$ moves by the soft thresholding of $\nabla g(T(x))$ at
    $\lambda$, and its Monge gap for $h$ is 0. That for the squared cost need not be: on a circle
    of radius $r$ where the first of two coordinates moves all along and the second stays,
    $B=(1,b;b,\cdot)$, it is $r^2(\|J\|_*-\mathrm{tr}J)$ with $J=(\frac12,-\frac b2;0,1)$, not 0
    unless $b=0$."""
    made = thresholded(n, d, rank, lam * actual, coupling, curve, beyond, radius, seed)
    (X, T, B), (ring, image, _) = made
    scale = np.mean(np.sum((X - X.mean(0)) ** 2, 1)) + lam**2
    moved, r2 = X - T, np.mean(np.sum((ring - ring.mean(0)) ** 2, 1))
    error = 1e-13 * np.abs(X).max() * (1 + np.linalg.norm(B, 2))
    square = monge_gap(ring, image).value / r2
    # The best rotation of the circle is within pi / 200 of one that permutes the sample.
    spread = np.mean(np.sum((image - image.mean(0)) ** 2, 1))
    remainder = 2 * np.sqrt(spread / r2) * (1 - np.cos(np.pi / len(ring))) + 1e-10
    J = np.array([[0.5, -coupling / 2], [0.0, 1.0]])
    gap = np.linalg.svd(J, compute_uv=False).sum() - np.trace(J)
    cost = own or L1(lam)
    found = [monge_gap(X, T, cost=cost).value / scale, monge_gap(ring, image, cost=cost).value / r2]
    pull = T @ B
    kept = np.maximum(np.abs(pull) - theory("lambda", lam), 0.0)
    moves = (ring != image).sum(axis=0)
    return {
        "own": compare(within(found, 1e-10, "rounding"), "==", theory("own", 0.0)),
        "moved": compare(within(moved, error, "last step"), "==", np.sign(pull) * kept),
        "stays": compare(moves, "==", theory("moved points", (len(ring), 0))),
        "square": compare(
            within(square, remainder, "angles of the sample"), "==", theory("square", gap)
        ),
    }


@panel(
    soft_threshold_map_optimal,
    "Optimal for the elastic cost, and not for the squared one",
    x="coupling $b$",
    y=r"Monge gap / $r^2$",
)
def _(pen, runs):
    b = np.linspace(0, 0.82, 60)
    pen.theory(b, np.sqrt(2.25 + b**2 / 4) - 1.5)
    pen.points(*runs.measured("coupling", "square"), "squared cost")
    pen.points(*runs.measured("coupling", "own", 1), "its own cost", k=2)


if __name__ == "__main__":
    run_script(__file__)
