"""All optimal networks at once: the polytope, its minimal networks, and its derivative."""

from itertools import combinations

import numpy as np
import sympy as sp
from scipy.optimize import nnls
from sympy.polys.matrices import DomainMatrix

from theorylab import convex_relu as cr
from theorylab.verify import (
    Choice,
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
    full,
    note,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "mishkin2023-optimal"
optimum = paper(
    KEY,
    r"For $F=\frac12\|\sum_ja_j(Xu_j)_+-y\|^2+\frac\beta2\sum_j(\|u_j\|^2+a_j^2)$, $\beta>0$, "
    r"minimised "
    r"over all widths, let $\hat y$ be the outputs of an optimum, $v=y-\hat y$, $p_j=|a_j|u_j$, "
    r"$s_j=\mathrm{sign}\,a_j$, and $E$ the unit $u_k$ with signs $s_k$ for which "
    r"$s_kv^\top(Xu_k)_+=\beta$:",
)


def problem(data, size, d, ratio, seed):
    """A polygon in a random position and plane with target one, or Gaussian data."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(size, d)), rng.normal(size=size)
    if data == "polygon":
        angles = 2 * np.pi * np.arange(size) / size + rng.uniform(0, 2 * np.pi)
        plane = np.linalg.qr(rng.normal(size=(d, 2)))[0]
        X, y = np.column_stack([np.cos(angles), np.sin(angles)]) @ plane.T, np.ones(size)
    return X, y, ratio * cr.zero_threshold(X, y), rng


# ---------------------------------------------------------------------------------- the polytope
@simulation
def optima(data, size, d, ratio, width, every, seed):
    """The optimal set, and up to three optima that descent finds, from random wide networks and
    from a disturbed optimum."""
    X, y, beta, rng = problem(data, size, d, ratio, seed)
    optimal, found = cr.find_optimal_set(X, y, beta, tol=1e-9), []
    known = optimal.training.network
    for k in range(100):
        first, output = rng.normal(size=(width, d)), rng.normal(size=width)
        if k % 2 and not every:  # a known optimum, moved less and less, among small neurons
            shake = 0.5 * 0.95**k
            noise = rng.normal(size=known.weights.shape)
            moved = known.weights + shake * np.abs(known.weights) * noise
            first = np.vstack([moved, shake / 4 * first])
            output = np.append(known.output_weights, shake / 4 * output)
        start = first, output
        point = cr.local_minimum(X, y, beta, start)
        optimum_found = point.objective <= optimal.training.objective * (1 + 1e-12)
        if point.network.n_neurons and (every or optimum_found):
            found.append(point.network)
        if len(found) == 3:
            break
    return X, y, beta, optimal, tuple(found)


def outside(X, optimal, network):
    """How far a network is from the polytope: directions off E, and what its weights miss."""
    lengths = np.linalg.norm(network.weights, axis=1) * np.abs(network.output_weights)
    units = network.weights / np.linalg.norm(network.weights, axis=1, keepdims=True)
    apart = np.linalg.norm(units[:, None] - optimal.directions, axis=2)
    apart[np.sign(network.output_weights)[:, None] != optimal.signs] = 2.0
    weights = np.bincount(apart.argmin(axis=1), lengths, optimal.n_directions)
    miss = np.linalg.norm(optimal.atoms @ weights - optimal.fit) / np.linalg.norm(optimal.fit)
    return max(apart.min(axis=1).max(), miss)


@optimum.abstract("a", instance=True)
@cases(data="gaussian", size=10, ratio=[0.3, 0.01])
@cases(data="gaussian", size=8, d=3, ratio=0.1)
@cases(data="polygon", size=[10, 8], ratio=0.19)
@full(data="gaussian", size=[6, 12, 15], ratio=[0.3, 0.01])
@full(data="gaussian", size=10, d=[1, 3], ratio=[0.3, 0.05])
@full(data="polygon", size=8, d=3, ratio=0.3)
@full(data="polygon", size=[5, 7, 10, 8], ratio=[0.05, 0.6])
@space(
    data=Choice(["polygon", "gaussian"]),
    size=Int(3, 10),
    d=Int(2, 3),
    ratio=Real(0.02, 0.9, log=True),
)
@breaks("weights of the same sum, other outputs", hull=True)
@breaks("local minima of two neurons, not global", width=2, every=True)
def optimal_set_polytope(data, size, ratio, seed, d=2, width=100, hull=False, every=False):
    r"""$\hat y$, $v$ are unique, $E$ is finite, and the optima of the convex reformulation, that is
    the optimal networks with parallel neurons of one sign merged (one on a boundary may be split
    between its closed cells), are the polytope of neurons in $E$ with weights $c\ge0$,
    $\sum_kc_ks_k(Xu_k)_+=\hat y$; all have $\sum_kc_k=v^\top\hat y/\beta$."""
    X, y, beta, optimal, found = optima(data, size, d, ratio, width, every, seed)
    corners = np.eye(optimal.n_directions) * optimal.total if hull else cr.vertices(optimal)
    points = np.random.default_rng(seed).dirichlet(np.ones(len(corners)), size=4) @ corners
    dual = optimal.training.certificate.dual
    gaps = [cr.certify(X, y, beta, optimal.network(c), dual=dual).gap for c in points]
    root = "root of 1e-12, to which the value is known"
    apart = [outside(X, optimal, w) for w in found] or [np.nan]
    return {
        "points of the polytope are optimal": compare(
            within(gaps, 1e-8, "gap of the training"), "==", theory("gap", np.zeros(len(gaps)))
        ),
        "optima lie in the polytope": compare(
            within(apart, 1e-5, root), "==", theory("distance", np.zeros(len(apart)))
        ),
        "penalty": compare(
            within([w.penalty for w in found] or [np.nan], 1e-5 * optimal.total, root),
            "==",
            theory("penalty", float(optimal.dual @ optimal.fit) / beta),
        ),
    }


@simulation
def split_networks(data, size, d, ratio, copies, spread, seed):
    """Points of the polytope split into copies: balanced; with moved ratios of the layers; with
    moved directions too; and random networks."""
    X, y, beta, rng = problem(data, size, d, ratio, seed)
    optimal = cr.find_optimal_set(X, y, beta, tol=1e-9)
    corners, found = cr.vertices(optimal), []
    for kind in range(4):
        for _ in range(3):
            c = rng.dirichlet(np.ones(len(corners))) @ corners
            shares = c[:, None] * rng.dirichlet(np.ones(copies), size=len(c))
            root, tilt = (
                np.sqrt(shares.ravel()),
                np.exp((kind > 0) * spread * rng.normal(size=shares.size)),
            )
            units = np.repeat(optimal.directions, copies, axis=0)
            units = units + (kind > 1) * spread * rng.normal(size=units.shape)
            signs = np.repeat(optimal.signs, copies)
            if kind == 3:
                signs = rng.choice([-1.0, 1.0], size=signs.size)
            found.append(cr.Network((root * tilt)[:, None] * units, signs * root / tilt))
    return X, y, beta, optimal, tuple(found)


@optimum.ours("derived: an identity whose zeros are the optimal networks", serves="b")
@cases(data="gaussian", size=10, ratio=[0.3, 0.01])
@cases(data="polygon", size=8, ratio=0.3)
@full(data="gaussian", size=[6, 15], ratio=[0.3, 0.01])
@full(data="gaussian", size=10, d=3, ratio=0.1)
@full(data="polygon", size=[7, 8], ratio=[0.05, 0.3])
@space(
    data=Choice(["polygon", "gaussian"]),
    size=Int(3, 10),
    d=Int(2, 3),
    ratio=Real(0.02, 0.9, log=True),
    copies=Int(1, 4),
    spread=Real(0.01, 1.0, log=True),
)
@breaks("a local minimum of one neuron in place of the optimum", local=True)
def optimal_networks_are_split_polytope_points(
    data, size, ratio, seed, d=2, copies=2, spread=0.3, local=False
):
    r"""every network with outputs $f$ has $F-\min F=\frac12\|f-\hat y\|^2+\sum_j(\beta\|p_j\|
    -s_jv^\top(Xp_j)_+)+\frac\beta2\sum_j(\|u_j\|-|a_j|)^2$, and no term is negative, for
    $|v^\top(Xu)_+|\le\beta\|u\|$. So it is optimal iff it is balanced, all its neurons point in
    directions of $E$, and their weights $\|p_j\|$, summed over each direction, are a point of the
    optimal polytope: the optimal networks are the splittings of its points."""
    X, y, beta, optimal, found = split_networks(data, size, d, ratio, copies, spread, seed)
    v, least = optimal.dual, optimal.training.objective
    if local:
        point = cr.local_minimum(X, y, beta, (X[:1], np.sign(y[:1])))
        v, least = y - point.network(X), point.objective
    terms = np.zeros((3, len(found)))
    for k, network in enumerate(found):
        outputs, lengths = network(X), np.linalg.norm(network.weights, axis=1)
        terms[0, k] = np.sum((outputs - (y - v)) ** 2) / 2
        terms[1, k] = beta * lengths @ np.abs(network.output_weights) - v @ outputs
        terms[2, k] = beta / 2 * np.sum((lengths - np.abs(network.output_weights)) ** 2)
    excess = [cr.network_objective(X, y, beta, w) - least for w in found]
    # The identity is off by at most |v - v*| |X| times the penalties, and by the gap.
    penalties = np.array([w.penalty for w in found]) + optimal.total
    error = optimal.accuracy * beta * penalties + 1e-9 * least
    fit, slack, imbalance = terms / least
    rise = theory("outputs", fit) + theory("slack", slack) + theory("imbalance", imbalance)
    accuracy = "accuracy of v and gap of the training"
    norm = within(cr.dual_norm(X, v).value / beta, 1e-8 + optimal.accuracy, accuracy)
    return {
        "excess": compare(within(np.array(excess) / least, error / least, accuracy), "==", rise),
        "no negative slack": compare(norm, "<=", theory("dual constraint", 1.0)),
    }


@panel(
    optimal_networks_are_split_polytope_points,
    "What a network lacks to the optimum: outputs, inactive directions, imbalance",
    x="sum of the three terms, relative",
    y=r"$F/\min F-1$",
    log="xy",
)
def _(pen, runs):
    part = runs.judgement.runs[-1].parts["excess"]
    x = np.sort(part.predicted[part.predicted > 1e-9])
    pen.theory(x, x, "sum of the terms")
    for k, name in enumerate(("layers unbalanced", "directions moved", "random signs"), start=1):
        pen.points(
            part.predicted[3 * k : 3 * k + 3], part.centre[3 * k : 3 * k + 3], label=name, k=k
        )


# --------------------------------------------------------------------------------- minimal networks
def drop_smallest(X, network):
    """Prune by magnitude, to as many neurons as there are independent outputs."""
    rank = np.linalg.matrix_rank(np.maximum(X @ network.weights.T, 0), tol=1e-9)
    keep = np.argsort(-np.linalg.norm(network.weights, axis=1))[:rank]
    counts = tuple(range(network.n_neurons, rank - 1, -1))
    left = cr.Network(network.weights[keep], network.output_weights[keep])
    return cr.PrunedOptimum(left, counts, (0.0,) * len(counts))


def minimal_supports(atoms, fit):
    """Return the supports of all optima and those that are minimal, by least squares alone."""
    k = atoms.shape[1]
    sets = [frozenset(s) for m in range(1, k + 1) for s in combinations(range(k), m)]
    small = 1e-6 * np.linalg.norm(fit)
    feasible = [s for s in sets if nnls(atoms[:, sorted(s)], fit)[1] < small]
    minimal = {s for s in feasible if not any(t < s for t in feasible)}
    # A set is the support of an optimum iff the minimal feasible sets inside it cover it.
    return [s for s in feasible if frozenset().union(*(t for t in minimal if t <= s)) == s], minimal


@simulation
def prunable(data, size, d, ratio, copies, start, seed):
    """A random optimal network (or any other) some of whose neurons are split in two."""
    X, y, beta, rng = problem(data, size, d, ratio, seed)
    optimal = cr.find_optimal_set(X, y, beta, tol=1e-9)
    corners = cr.vertices(optimal)
    network = optimal.network(rng.dirichlet(np.ones(len(corners))) @ corners)
    weights, output = network.weights, network.output_weights
    if start == "random":
        weights, output = rng.normal(size=(size, d)), rng.normal(size=size)
    half = np.where(np.arange(len(output)) < copies, np.sqrt(0.5), 1.0)
    weights, output = weights * half[:, None], output * half
    split = cr.Network(np.vstack([weights, weights[:copies]]), np.append(output, output[:copies]))
    return X, y, beta, optimal, split


@optimum.abstract("d", instance=True)
@cases(data="gaussian", size=10, ratio=0.01)
@cases(data="polygon", size=[6, 8], ratio=0.19)
@space(
    data=Choice(["polygon", "gaussian"]),
    size=Int(3, 8),
    d=Int(2, 3),
    ratio=Real(0.02, 0.8, log=True),
    copies=Int(0, 4),
)
@breaks("smallest neuron first", prune=drop_smallest)
@breaks("start is not optimal", start="random")
@breaks("independent weights u_j in place of outputs", directions=True)
def optimal_pruning(
    data,
    size,
    ratio,
    seed,
    d=2,
    copies=4,
    prune=cr.optimal_pruning,
    start="optimal",
    directions=False,
):
    r"""an optimal network is minimal (no proper subset of its neurons, with any weights, is
    optimal) iff the $(Xu_j)_+$ of its $m$ neurons are linearly independent, $r$ of them in all.
    Moving the weights of any optimal network along null vectors of $[(Xu_j)_+]$ until one vanishes
    keeps its value and ends at a minimal network of at most $r\le n$ neurons after at most $m-r$
    steps."""
    X, y, beta, optimal, network = prunable(data, size, d, ratio, copies, start, seed)
    m, value = network.n_neurons, cr.network_objective(X, y, beta, network)
    rank = int(np.linalg.matrix_rank(np.maximum(X @ network.weights.T, 0), tol=1e-9))
    pruned = prune(X, network)
    supports, minimal = minimal_supports(optimal.atoms, optimal.fit)
    columns = optimal.directions.T if directions else optimal.atoms
    independent = {
        s: np.linalg.matrix_rank(columns[:, sorted(s)], tol=1e-9) == len(s) for s in supports
    }
    agree = {tuple(sorted(s)): bool(independent[s]) == (s in minimal) for s in supports}
    left = cr.network_objective(X, y, beta, pruned.network)
    return {
        "value": compare(
            within(left, 1e-11 * m * value, "rounding of m steps"), "==", theory("value", value)
        ),
        "neurons": compare(pruned.network.n_neurons, "<=", theory("rank", rank)),
        "steps": compare(pruned.n_steps, "<=", theory("m - rank", m - rank)),
        "minimal iff independent": compare(family(agree), "==", len(agree)),
    }


# ---------------------------------------------------------------------------------- few and many
# Minimal networks of the polygon, few neurons and many: direction k sees the corners from k on.
SUPPORTS = {
    6: ((0, 2, 4), (1, 3, 5)),
    8: ((0, 2, 4, 6), (0, 1, 3, 4, 6)),
    12: ((0, 4, 8), (0, 1, 3, 5, 6, 8, 10)),
    20: ((0, 4, 8, 12, 16), (0, 1, 2, 3, 4, 6, 8, 9, 11, 15, 17)),
}


def heights(sides):
    r"""Outputs at the corners that the neuron in their middle sees, over that at the middle one or
    two, in the field of $2\cos(2\pi/sides)$: Chebyshev polynomials."""
    double = 2 * sp.cos(2 * sp.pi / sides)
    field = sp.QQ if double.is_rational else sp.QQ.algebraic_field(double)
    g, one, odd = field.from_sympy(double), field.one, sides // 2 % 2
    half = [one, g / (one + one) if odd else g - one]
    while len(half) < (sides // 2 + 1) // 2:
        half.append(g * half[-1] - half[-2])
    return half[:0:-1] + half[:1] * (1 if odd else 2) + half[1:], field


def positive_weights(sides, support):
    """Weights with which the neurons fit all-one outputs, exactly: None unless the neurons are
    independent and all weights positive."""
    seen, field = heights(sides)
    seen = [*seen, *[field.zero] * (sides - len(seen))]
    rows = [[*(seen[(i - k) % sides] for k in support), field.one] for i in range(sides)]
    reduced, pivots = DomainMatrix(rows, (sides, len(support) + 1), field).rref()
    weights = [field.to_sympy(reduced[k, len(support)].element) for k in range(len(support))]
    minimal = pivots == tuple(range(len(support))) and all(bool(w > 0) for w in weights)
    return np.array(weights, float) if minimal else None


@optimum.ours("counterexample to the poster's definition; the paper's was not seen", serves="d")
@cases(sides=8, spread=[0.0, 1.0])
@full(sides=[12, 20, 8], spread=[0.0, 1.0])
@space(sides=Choice([8, 12, 20]), spread=Real(0.0, 1.0), ratio=Real(0.1, 10.0, log=True))
@breaks("hexagon", sides=6)
@breaks("five other neurons", supports=((0, 2, 4, 6), (0, 1, 2, 3, 4)))
@note(contradicts="d")
def minimal_is_not_minimum(sides, seed, spread=0.0, ratio=1.0, supports=None):
    r"""a minimal network need not have the fewest neurons. On rows $\lambda_ix_i$, $x_i$ the
    corners of a regular $N$-gon, with $y_i=c\lambda_i+\beta\sin(\frac\pi N)/\lambda_i$
    ($c,\lambda_i>0$; $y=1$ for $\lambda_i=1$, $c=1-\beta\sin\frac\pi N$) one optimal network
    has 4, 3, 5 neurons and another 5, 7, 11 for $N=8,12,20$, both with linearly independent
    $(Xu_j)_+$. So 'minimal' cannot mean that no optimal network has strictly fewer neurons.
    ($c=ratio\cdot\beta\sin\frac\pi N$, $\log\lambda_i$ Gaussian times $spread$.)"""
    rng, gaps, minimal = np.random.default_rng(seed), [], {}
    step, beta, turn = 2 * np.pi / sides, 1 / np.sin(np.pi / sides), rng.uniform(0, 2 * np.pi)
    scale = np.exp(spread * rng.normal(size=sides))

    def units(k):
        return np.column_stack([np.cos(step * k + turn), np.sin(step * k + turn)])

    X, y = scale[:, None] * units(np.arange(sides)), ratio * scale + 1 / scale
    for support in supports or SUPPORTS[sides]:
        exact = positive_weights(sides, support)
        minimal[support] = exact is not None
        # The unit neuron's output at its middle corners, and none of its weights where not minimal.
        middle = np.cos(step / 2) if sides // 2 % 2 == 0 else 1.0
        root = np.sqrt(ratio / middle * (np.ones(len(support)) if exact is None else exact))
        directions = units(np.array(support) + (sides // 2 - 1) / 2)
        network = cr.Network(root[:, None] * directions, root)
        gaps.append(cr.certify(X, y, beta, network, dual=1 / scale).gap)
    sizes = sorted(len(s) for s in minimal)
    return {
        "neurons": compare(sizes[0], "<", theory("neurons of another minimal network", sizes[1])),
        "minimal": compare(family(minimal), "==", len(minimal)),
        "optimal": compare(
            within(gaps, 1e-9, "rounding of the weights"), "==", theory("gap", np.zeros(2))
        ),
    }


# ---------------------------------------------------------------------------------- uniqueness
@simulation
def unpaired(n, d, ratio, lone, seed):
    """Dimension, pairs and directions of the optimal set of Gaussian data (or of targets for which
    there is one pair), and of data near by; NaN if the hypotheses do not hold at ten draws."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        X, y = rng.normal(size=(n, d)), rng.normal(size=n)
        beta = ratio * cr.zero_threshold(X, y)
        if lone:
            v = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
            norm = cr.dual_norm(X, v, tol=1e-12)
            side = X @ norm.direction
            beta, sign = norm.attained, np.sign(v @ np.maximum(side, 0))
            y = v + sign * (0.7 * np.maximum(side, 0) + 0.4 * np.maximum(-side, 0))
        optimal = cr.find_optimal_set(X, y, beta, tol=1e-9)
        orthogonal = np.linalg.norm(X.T @ optimal.dual) <= 1e-6 * beta
        positive = optimal.weight_ranges[:, 1].min() > 1e-6 * optimal.total
        if ratio > 0.1 or lone or (orthogonal and positive):
            break
    else:
        return np.full((3, 2), np.nan)
    moved = X + 1e-6 * rng.normal(size=X.shape), y + 1e-6 * rng.normal(size=n)
    result = []
    for found in (optimal, cr.find_optimal_set(*moved, beta, tol=1e-9)):
        same = found.directions @ found.directions.T * np.outer(found.signs, found.signs)
        free = found.weight_ranges[:, 1] > 1e-7 * found.total
        dimension = free.sum() - np.linalg.matrix_rank(found.atoms[:, free], tol=1e-9)
        result.append([dimension, np.sum(same < -1 + 1e-9) // 2, found.n_directions])
    return np.array(result, dtype=float).T


@optimum.ours("derived: where weights are not determined", serves="ae")
@cases(n=[10, 12, 15], d=2, ratio=0.01)
@full(n=list(range(9, 17)), d=2, ratio=0.01)
@space(n=Int(9, 16), d=Int(1, 2), ratio=Real(0.003, 0.02, log=True))
@breaks("large beta, where X'v is not zero", ratio=0.9)
@breaks("one pair, which does not span the plane", lone=True)
def small_penalty_optima_are_not_unique(n, d, ratio, seed, lone=False):
    r"""if $X^\top v=0$, $E$ contains $(-u,s)$ with every $(u,s)$. With $q$ such pairs, which span
    the row space, the vectors $|Xu_k|$ and the columns of $X$ together independent, and some
    optimal network with all weights positive, the optimal set has dimension $q-\mathrm{rank}X$. If
    also $v_i\ne0$ at all ties $x_i^\top u_k=0$, this holds at all data near by, so on an open set.
    (Judged on Gaussian data, $\beta=$ ratio $\beta_{\max}$, at $(X,y)$ and at a point $10^{-6}$
    away.)"""
    dimension, pairs, directions = unpaired(n, d, ratio, lone, seed)
    rank = "rank at 1e-9"
    return {
        "dimension": compare(
            within(dimension, 0.0, rank),
            "==",
            theory("pairs", pairs) - theory("rank of X", float(d)),
        ),
        "in pairs": compare(within(directions, 0.0, rank), "==", 2 * theory("pairs", pairs)),
    }


@panel(
    small_penalty_optima_are_not_unique,
    r"Gaussian data in the plane, small penalty: a polytope of optima",
    x="samples $n$",
    y="dimension of the optimal set",
)
def _(pen, runs):
    x, pairs = runs.predicted("n", "dimension", 0)
    pen.theory(x, pairs, r"$q-\mathrm{rank}X$")
    pen.points(*runs.measured("n", "dimension", 0))


# ---------------------------------------------------------------------------------- sensitivity
def by_face(X, network):
    """Neurons p_j by their sign and the sides of the rows."""
    points = np.abs(network.output_weights)[:, None] * network.weights
    z = X @ points.T / np.outer(np.linalg.norm(X, axis=1), np.linalg.norm(points, axis=1))
    sides = (np.sign(z) * (np.abs(z) > 1e-9)).astype(int).T
    signs = np.sign(network.output_weights).astype(int).tolist()
    return {(s, *c.tolist()): p for s, c, p in zip(signs, sides, points, strict=True)}


@simulation
def differences(n, d, ratio, along, seed):
    """The formula's derivative, and central differences of neurons, outputs and value at two steps;
    whether the faces stay, of six draws the first where they do."""
    rng = np.random.default_rng(seed)
    for _ in range(6):
        X, y = rng.normal(size=(n, d)), rng.normal(size=n)
        d_X, d_y = rng.normal(size=X.shape) * (along == "X"), rng.normal(size=n) * (along == "y")
        d_beta, top = float(along == "beta"), cr.zero_threshold(X, y)
        beta = ratio * top
        # At beta_max the network vanishes: the formula is that of the branch below.
        at = min(beta, top * (1 - 1e-6))
        formula = cr.sensitivity(X, y, at, d_X=d_X, d_y=d_y, d_beta=d_beta)
        root = np.sqrt(np.linalg.norm(formula.points, axis=1))
        order = by_face(X, cr.Network(formula.points / root[:, None], formula.signs * root))
        h, solved, stay = 1e-4 * beta, [], True
        for t in (2 * h, h, -h, -2 * h):
            data, target = X + t * d_X, y + t * d_y
            result = cr.train(data, target, beta + t * d_beta, tol=1e-9)
            network = cr.optimal_pruning(data, result.network).network
            found = by_face(data, network)
            stay = stay and set(found) == set(order)
            neurons = [found.get(key, np.zeros(d)) for key in order]
            solved.append((np.array(neurons), network(data), np.array(result.objective)))
        near = [(b - c) / (2 * h) for b, c in zip(solved[1], solved[2], strict=True)]
        far = [(a - e) / (4 * h) for a, e in zip(solved[0], solved[3], strict=True)]
        regular = formula.status is cr.SensitivityStatus.REGULAR and stay and len(order) > 0
        if regular:
            break
    return formula, tuple(near), tuple(far), h, float(np.linalg.norm(y)), regular


@optimum.abstract("f", instance=True)
@cases(n=10, d=[2, 3], ratio=0.1, along=["X", "y"])
@cases(n=8, d=3, ratio=0.3, along=["X", "y", "beta"])
@full(n=10, d=[2, 3], ratio=0.1, along=["X", "y"])
@full(n=8, d=3, ratio=[0.2, 0.4, 0.6], along=["X", "y"])
@full(n=8, d=3, ratio=np.linspace(0.03, 0.97, 30).round(3).tolist(), along="beta")
@space(n=Int(3, 10), d=Int(2, 3), ratio=Real(0.1, 0.95), along=Choice(["beta", "y", "X"]))
@breaks("at the breakpoint beta_max", ratio=1.0, regular_only=False)
def sensitivity(n, d, ratio, along, seed, regular_only=True):
    r"""let the neurons of a minimal optimal network lie on the faces $B_jp_j=0$, with independent
    $(Xu_j)_+$, faces that do not change near the data (strict complementarity) and $Z^\top MZ$
    regular, $Z$ spanning the faces, $M=A^\top A+\beta\,\mathrm{blkdiag}\frac{I-\hat p_j\hat
    p_j^\top} {\|p_j\|}$, $A=[s_jD_jX]$, $\hat p_j=p_j/\|p_j\|$. Then
    $\frac{dp}{d\beta}=-Z(Z^\top MZ)^{-1}Z^\top\hat p$, likewise for $y$ and $X$, and $\frac
    d{d\beta}$ of the optimal value is $\sum_j\|p_j\|$."""
    formula, near, far, h, size, regular = differences(n, d, ratio, along, seed)
    source = "step halving of the central difference, and rounding 1e-11 over the step"
    parts = {}
    slopes = (formula.d_points, formula.d_fit, np.array(formula.d_objective))
    for name, slope, one, two in zip(
        ("neurons", "outputs", "value"), slopes, near, far, strict=True
    ):
        # The truncation of the near quotient is a third of its distance from the far one.
        error = np.abs(two - one).max(initial=0) + 1e-11 * max(size, 1.0) / h
        error = error if regular or not regular_only else np.inf
        parts[name] = compare(
            within(one, error, source), "==", theory(f"slope of the {name}", slope)
        )
    return parts


@panel(
    sensitivity,
    "The implicit derivative is the slope of the path",
    x=r"$\beta/\beta_{\max}$",
    y=r"derivative of the third output in $\beta$",
)
def _(pen, runs):
    along = {"along": "beta"}
    pen.theory(*runs.predicted("ratio", "outputs", 2, where=along), "formula")
    pen.points(*runs.measured("ratio", "outputs", 2, where=along), "differences", k=1)
    pen.broken(
        *runs.measured("ratio", "outputs", 2, control="at the breakpoint beta_max"),
        r"at $\beta_{\max}$",
    )


if __name__ == "__main__":
    run_script(__file__)
