"""Tasks learned one after the other are projections onto their separators."""

from fractions import Fraction

import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.verify import (
    Choice,
    Int,
    Real,
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

KEY = "evron2023-continual"
training = paper(
    KEY,
    r"Tasks $Z_t$ with rows $z_i=y_ix_i$ are trained one after the other from $v_0=0$ on "
    r"exponential loss, task $t$ with the penalty $\frac{\lambda^{c_t}}2\|w-w_{t-1}\|_{B_t}^2$; "
    r"as $\ell=\log\frac1\lambda\to\infty$,",
)
projections = paper(
    KEY,
    r"$w_t$ is the projection of $w_{t-1}$ onto $C_t=\{w:Z_tw\ge1\}$, $w_0=0$; the tasks have a "
    r"common separator, the shortest $w^*$; no row is longer than $R$, $q=R^2\|w^*\|^2$, "
    r"$C=\bigcap_tC_t$:",
)
regression = paper(
    KEY,
    r"Projections are cycled from 0, onto the separators $\{w:z_i^\top w\ge1\}$ of tasks of one "
    r"row, or onto the solutions of linear systems that have a common one:",
)

STRENGTHS = np.array([1e2, 1e3, 1e4, 1e6, 2e6, 4e6, 2.5e7, 5e7, 1e8])
ROUNDING = "projections to rounding"

# What is drawn of random tasks, and of tasks among which some nearly oppose each other.
TASKS = {
    "n": Int(1, 4),
    "d": Int(1, 8),
    "margin": Real(0.05, 1.0, log=True),
    "spread": Real(0.1, 2.0),
}
WEDGED = TASKS | {"wedge": Choice((0.0, 0.05, 0.3))}


def rounded(value, unit):
    return within(value, 1e-9 * unit, ROUNDING)


def metric(tilt, T, d, seed):
    """Random positive definite matrices, the identity without tilt."""
    A = np.random.default_rng([seed, d, 5]).standard_normal((T, d, d))
    return [np.eye(d) + tilt * a @ a.T for a in A]


@simulation
def trained(T, n, d, margin, margins, tilt, seed):
    """Iterates over log(1 / lambda) of one round and one more task, for each strength."""
    tasks = ir.random_tasks(T, n, d=d, margin=margin, spread=0.7, seed=seed)
    given = {"margins": margins, "metrics": metric(tilt, T, d, seed)}
    runs = [
        ir.weak_regularisation(tasks, [*range(T), 0], log_strength=ell, **given)
        for ell in STRENGTHS
    ]
    return np.array([run.iterates[1:] for run in runs])


@simulation
def projected(T, n, d, margin, margins, tilt, seed):
    """The projections, and what log l is multiplied by in the weights of the first round: every
    active row misses its margin by log l / l."""
    tasks = ir.random_tasks(T, n, d=d, margin=margin, spread=0.7, seed=seed)
    metrics = metric(tilt, T, d, seed)
    run = ir.sequential_max_margin(tasks, [*range(T), 0], margins=margins, metrics=metrics)
    slopes, a = [], np.zeros(d)
    for t, (Z, B) in enumerate(zip(tasks, metrics, strict=True)):
        scores = Z @ run.iterates[t + 1] - (1.0 if margins is None else margins[t])
        moved = np.linalg.norm(run.iterates[t + 1] - run.iterates[t]) > 0
        active = Z[(scores < 1e-9) & moved]
        whitened = np.linalg.inv(np.linalg.cholesky(B))
        a = a - whitened.T @ np.linalg.pinv(active @ whitened.T) @ (1 + active @ a)
        slopes.append(a)
    return run.iterates[1:], np.array(slopes)


def logarithmic(paths, ell):
    """The a of weights l v + a log l + b, from three strengths that double."""
    one, two, four = paths * ell[:, None, None]
    return (3 * two - 2 * one - four) / np.log(2)


def limit_and_rate(paths, limits, slopes):
    """The last iterates and their slopes in log l, with what penalties that are stronger by l / 25
    change in these: their remainder of order log l / l shrinks twentyfold, a quarter is safe."""
    remainder = np.abs(paths[-1] - paths[-3]).max()
    early, late = (
        logarithmic(paths[k, : len(slopes)], STRENGTHS[k]) for k in (slice(3, 6), slice(6, 9))
    )
    drift = np.abs(late - early).max() / 4 + 3e-6  # rounding of weights of length 1e8
    return {
        "limit": compare(
            within(paths[-1], 2 * remainder, "difference to stronger penalties"),
            "==",
            theory("projections", limits),
        ),
        "rate": compare(
            within(late, drift, "difference to stronger penalties"),
            "==",
            theory("slopes", slopes),
        ),
    }


@training.abstract("a", instance=True)
@cases(T=3, n=4, d=6, margin=0.3)
@full(T=3, n=4, d=[2, 6, 20], margin=[0.1, 0.3])
@space(T=Int(1, 4), n=Int(1, 5), d=Int(1, 8), margin=Real(0.1, 0.9))
@breaks("the penalty of the second task squared", margins=(1.0, 2.0, 1.0))
@breaks("penalties in another norm", tilt=1.0)
def weak_regularisation_equals_sequential_max_margin(T, n, d, margin, seed, margins=None, tilt=0.0):
    r"""$\frac{w_t}\ell$ tends to the $v_t$ of sequential max-margin, the projection of $v_{t-1}$
    onto $\{w:Z_tw\ge1\}$, if $c_t=1$ and $B_t=I$; in the first round
    $w_t=\ell v_t+a_t\log\ell+O(1)$, $a_t=a_{t-1}-A^+(1+Aa_{t-1})$, $a_0=0$, $A$ the active rows of
    task $t$ if all have positive multipliers: the error is of order $\frac{\log\ell}\ell$."""
    paths = trained(T, n, d, margin, margins, tilt, seed)
    return limit_and_rate(paths, *projected(T, n, d, margin, None, 0.0, seed))


@panel(
    weak_regularisation_equals_sequential_max_margin,
    "Weak penalties: the fourth iterate nears its projection",
    x=r"$\ell=\log(1/\lambda)$",
    y=r"$\|w_4/\ell-v_4\|$",
    log="xy",
)
def _(pen, runs):
    for k, d in enumerate((2, 6, 20)):
        where = {"T": 3, "n": 4, "d": d, "margin": 0.3, "margins": None, "tilt": 0.0}
        seed = runs.judgement.seed
        gap = trained(**where, seed=seed)[:, -1] - projected(**where, seed=seed)[0][-1]
        errors = np.linalg.norm(gap, axis=1)
        guide = np.log(STRENGTHS) / STRENGTHS
        pen.points(STRENGTHS, errors, label=f"$d={d}$", k=k)
        pen.theory(STRENGTHS, guide * errors[-1] / guide[-1], k=k)


@training.ours("derived: what the schedule and the weights of the penalty change", serves="d")
@cases(T=3, n=4, d=6, margin=0.3, margins=(0.5, 2.0, 1.0, 3.0), tilt=1.0)
@full(T=3, n=4, d=[2, 6, 20], margin=0.3, margins=(0.5, 2.0, 1.0, 3.0), tilt=[0.0, 0.3, 1.0])
@space(
    T=Int(1, 4),
    n=Int(1, 5),
    d=Int(1, 8),
    margin=Real(0.1, 0.9),
    margins=Real(0.3, 3.0, size=4),
    tilt=Real(0.0, 1.0),
)
@breaks("equal margins", used=(1.0, 1.0, 1.0))
@breaks("penalties in the Euclidean norm", tilted=0.0)
def scheduled_regularisation_scales_margin(
    T, n, d, margin, margins, tilt, seed, used=None, tilted=None
):
    r"""$\frac{w_t}\ell$ tends to the point of $\{w:Z_tw\ge c_t\}$ nearest to the limit before in
    $\|\cdot\|_{B_t}$, $B_t\succ0$, $c_t>0$: exponents of the schedule are margins, weights the
    metric; in the first round $w_t=\ell v_t+a_t\log\ell+O(1)$, $a_t-a_{t-1}$ the shortest step in
    that norm to $\{a:Aa=-1\}$, $A$ the active rows if all have positive multipliers."""
    c = tuple(float(v) for v in margins[:T])
    bent = tilt if tilted is None else tilted
    paths = trained(T, n, d, margin, used or c, bent, seed)
    return limit_and_rate(paths, *projected(T, n, d, margin, c, tilt, seed))


def onto_separators(Z, w):
    found = ir.margin_projection(Z, w)
    undecided = found.status is ir.MarginStatus.UNDECIDED  # then nothing is judged
    return np.full_like(w, np.nan) if undecided else found.weights


def onto_solutions(Z, w):
    return w + np.linalg.lstsq(Z, 1 - Z @ w, rcond=None)[0]


def random_points(d, count, size, seed):
    return size * np.random.default_rng([seed, 11]).standard_normal((count, d))


@simulation
def followed(T, n, d, margin, spread, rounds, conflict, start, seed):
    """Iterates in random order, the shortest separator, and common separators."""
    tasks = ir.random_tasks(T, n, d=d, margin=margin, spread=spread, seed=seed)
    shortest = ir.task_geometry(tasks).separator
    rng = np.random.default_rng([seed, 1])
    order = np.concatenate([np.arange(T), rng.integers(0, T, (rounds - 1) * T)])
    used = with_conflict(tasks) if conflict else tasks
    run = ir.sequential_max_margin(used, order, start=start * shortest)
    size = np.linalg.norm(shortest)
    far = random_points(d, 6, 2 * size / np.sqrt(d), seed)
    rows = np.concatenate(tasks)
    points = [1.05 * shortest, *(onto_separators(rows, w) + shortest / 2 for w in far)]
    return run.iterates, shortest, np.array(points)


@projections.ours("derived: projections onto convex sets, with the sum of steps", serves="a")
@cases(T=[1, 3], n=3, d=5, margin=0.3, spread=1.0)
@full(T=[1, 2, 4, 8], n=3, d=[2, 10], margin=[0.1, 0.5], spread=1.0, rounds=10)
@space(T=Int(1, 5), **TASKS)
@breaks("the last task contradicts the first", conflict=True)
@breaks("another start", start=-5.0)
def fejer_and_step_summability(T, n, d, margin, spread, seed, rounds=4, conflict=False, start=0.0):
    r"""in every order of the tasks $\|w_t-w\|^2+\|w_t-w_{t-1}\|^2\le\|w_{t-1}-w\|^2$ for every
    $w\in C$, and $\sum_t\|w_t-w_{t-1}\|^2\le\|w^*\|^2$."""
    path, shortest, points = followed(T, n, d, margin, spread, rounds, conflict, start, seed)
    gaps = np.sum((path[:, None] - points) ** 2, axis=2)
    steps = np.sum(np.diff(path, axis=0) ** 2, axis=1)
    size = float(shortest @ shortest)
    moved = steps > 1e-6 * size
    return {
        "steps": compare(rounded(steps.sum() / size, 1.0), "<=", theory("sum", 1.0)),
        "fejer": compare(
            rounded((gaps[1:] + steps[:, None])[moved], gaps[:-1][moved]),
            "<=",
            theory("before", gaps[:-1][moved]),
        ),
    }


@panel(
    fejer_and_step_summability,
    r"Squared steps sum to at most $\|w^*\|^2$, in any order",
    x="tasks $T$",
    y=r"$\sum_t\|w_t-w_{t-1}\|^2/\|w^*\|^2$",
)
def _(pen, runs):
    for k, margin in enumerate((0.1, 0.5)):
        for d in (2, 10):
            where = {"margin": margin, "d": d}
            label = f"margin {margin}" if d == 10 else ""
            pen.points(*runs.measured("T", "steps", where=where)[:2], label=label, k=k + 1)
    pen.theory([1, 8], [1, 1], "bound")


def wedged(T, n, d, margin, spread, wedge, seed):
    """Random tasks; with a wedge, the first and the last one nearly oppose each other."""
    tasks = ir.random_tasks(T, n, d=d, margin=margin, spread=spread, seed=seed)
    if wedge and d > 1:
        u = ir.task_geometry(tasks).separator
        u = u / np.linalg.norm(u)
        p = np.random.default_rng([seed, 13]).standard_normal(d)
        p = p - (p @ u) * u
        p = p / np.linalg.norm(p)
        tasks[0][0] = np.sin(wedge) * u + np.cos(wedge) * p
        tasks[-1][0] = np.sin(wedge) * u - np.cos(wedge) * p
    return tasks


def with_conflict(tasks):
    return [*tasks[:-1], -tasks[0]]


def squares(value):
    return within(value, 1e-9 * value + 1e-26, "projections to rounding, squared")


@simulation
def all_orders(T, n, d, margin, spread, wedge, conflict, project, orders, seed):
    """Means over all orders of the squared distance to the common set and of the largest squared
    violation, after 1, 2, ... tasks; and at 0 and random points distances to both."""
    tasks = wedged(T, n, d, margin, spread, wedge, seed)
    rows = np.concatenate(tasks)
    size = np.linalg.norm(project(rows, np.zeros(d)))
    drawn = with_conflict(tasks) if conflict else tasks
    level, distances, missed = [np.zeros(d)], [], []
    for _ in range(int(np.log(orders) / np.log(T))):
        level = [project(Z, w) for w in level for Z in drawn]
        distances.append(np.mean([np.sum((project(rows, w) - w) ** 2) for w in level]))
        missed.append(np.mean([np.max(1 - rows @ w, initial=0) ** 2 for w in level]))
    found = []
    for w in [np.zeros(d), *random_points(d, 8, 2 * size / np.sqrt(d), seed)]:
        single = max(np.linalg.norm(project(Z, w) - w) for Z in tasks)
        if single > 0:
            found.append((np.linalg.norm(project(rows, w) - w), single))
    radius = np.linalg.norm(rows, axis=1).max()
    return np.array(distances) / size**2, np.array(missed), np.array(found).T, radius * size


@projections.ours("derived: the rate of a random order, with its constant", serves="c")
@cases(T=2, n=2, d=5, margin=0.5, spread=1.0, wedge=0.3)
@cases(T=2, n=1, d=5, margin=1.0, spread=0.1)
@full(T=[2, 3], n=2, d=6, margin=[0.1, 0.5], spread=[1.0, 0.1], wedge=[0.0, 0.3], orders=130)
@full(T=2, n=1, d=6, margin=1.0, spread=0.1, orders=130)
@space(T=Int(2, 4), **WEDGED)
@breaks("the last task contradicts the first", conflict=True)
@breaks("solutions of linear systems in place of separators", project=onto_solutions)
def linear_regularity_and_random_order_rate(
    T,
    n,
    d,
    margin,
    spread,
    seed,
    wedge=0.0,
    conflict=False,
    project=onto_separators,
    orders=40,
):
    r"""$\mathrm{dist}(w,C)\le R\|w^*\|\max_t\mathrm{dist}(w,C_t)$ for every $w$; if each task is
    drawn uniformly from $T$, $\mathbb E\,\mathrm{dist}^2(w_k,C)\le\big(1-\frac1{Tq}\big)^k
    \|w^*\|^2$, and the largest violation of any row has a mean square of at most
    $q\big(1-\frac1{Tq}\big)^k$."""
    distances, missed, (joint, single), root = all_orders(
        T, n, d, margin, spread, wedge, conflict, project, orders, seed
    )
    decay = theory("rate", 1 - 1 / (T * root**2)) ** np.arange(1, len(distances) + 1)
    return {
        "distance": compare(squares(distances), "<=", decay),
        "violation": compare(squares(missed), "<=", theory("scale", root**2) * decay),
        "regularity": compare(rounded(joint, joint), "<=", theory("regularity", root) * single),
    }


@panel(
    linear_regularity_and_random_order_rate,
    "Random order: mean over all orders, two tasks",
    x="tasks seen $k$",
    y=r"$\mathbb{E}\,\mathrm{dist}^2/\|w^*\|^2$",
)
def _(pen, runs):
    kinds = {"wide": {"spread": 0.1, "n": 2}, "narrow": {"spread": 1.0, "n": 2}}
    for i, (name, kind) in enumerate(kinds.items()):
        wanted = {"T": 2, "margin": 0.5, "wedge": 0.3 * i, **kind}
        run = next(r for r in runs.judgement.runs if wanted.items() <= r.instance.items())
        part = run.parts["distance"]
        k = np.arange(1, part.centre.size + 1)
        pen.theory(k, part.predicted, f"bound, {name}", k=i)
        pen.points(k, part.shown, label=name, k=i)


@simulation
def cycled(T, n, d, margin, spread, wedge, cycles, conflict, project, seed):
    """Squared distance to the common set over that of the start, and largest squared violation,
    after every task of some cycles; and q."""
    tasks = wedged(T, n, d, margin, spread, wedge, seed)
    rows = np.concatenate(tasks)
    size = np.sum(project(rows, np.zeros(d)) ** 2)
    w, distances, missed = np.zeros(d), [], []
    for Z in (with_conflict(tasks) if conflict else tasks) * cycles:
        w = project(Z, w)
        distances.append(np.sum((project(rows, w) - w) ** 2) / size)
        missed.append(np.max(1 - rows @ w, initial=0) ** 2)
    return np.array(distances), np.array(missed), size * np.max(np.sum(rows**2, axis=1))


@projections.ours("derived: explicit constants, by windows of T - 1 steps", serves="b")
@cases(T=[2, 3], n=2, d=5, margin=0.5, spread=1.0, wedge=0.3)
@cases(T=2, n=1, d=5, margin=1.0, spread=0.1, cycles=30)
@full(T=[2, 3, 5], n=2, d=6, margin=[0.1, 0.5], spread=[1.0, 0.3], wedge=[0.05, 0.3], cycles=12)
@full(T=3, n=1, d=5, margin=1.0, spread=0.1, cycles=30)
@space(T=Int(2, 5), **WEDGED)
@breaks("the last task contradicts the first", conflict=True)
@breaks("solutions of linear systems in place of separators", project=onto_solutions)
def cyclic_order_bounds(
    T, n, d, margin, spread, seed, wedge=0.0, cycles=6, conflict=False, project=onto_separators
):
    r"""after $k\ge1$ of $T\ge2$ tasks in turn, $p=\lfloor T/2\rfloor$, $\mathrm{dist}^2(w_k,C)\le
    \big(\frac{qp}{1+qp}\big)^{\lfloor(k-1)/(T-1)\rfloor}\|w^*\|^2$, and the square of the largest
    violation of any row is at most $q$ times this power, and at most $2qp\sqrt{T/m}$ after $m\ge1$
    cycles."""
    distances, missed, q = cycled(T, n, d, margin, spread, wedge, cycles, conflict, project, seed)
    p, k, m = T // 2, np.arange(1, cycles * T + 1), np.arange(1, cycles + 1)
    decay = theory("rate", q * p / (1 + q * p)) ** ((k - 1) // (T - 1))
    return {
        "distance": compare(squares(distances), "<=", decay),
        "violation": compare(squares(missed), "<=", theory("scale", q) * decay),
        "any margin": compare(
            squares(missed[T - 1 :: T]), "<=", theory("slow", 2 * q * p) * np.sqrt(T / m)
        ),
    }


@projections.ours("derived: two tasks cycle faster than the general bound says", serves="b")
@cases(n=1, d=2, margin=0.5, spread=1.0, wedge=0.3)
@cases(n=1, d=5, margin=1.0, spread=0.2)
@full(n=[1, 3], d=2, margin=0.5, spread=1.0, wedge=[0.1, 0.3], cycles=60)
@full(n=2, d=6, margin=[0.2, 0.5], spread=[0.3, 1.0], wedge=0.3)
@full(n=1, d=5, margin=1.0, spread=0.2)
@space(**WEDGED)
@breaks("the second task contradicts the first", conflict=True)
@breaks("solutions of linear systems in place of separators", project=onto_solutions)
def cyclic_order_of_two_tasks(
    n, d, margin, spread, seed, wedge=0.0, cycles=6, conflict=False, project=onto_separators
):
    r"""two tasks in turn have $\mathrm{dist}^2(w_k,C)\le\big(1-\frac1q\big)^{k-1}\|w^*\|^2$ for
    $k\ge1$, and the square of the largest violation of any row is at most
    $q\big(1-\frac1q\big)^{k-1}$ and at most $\frac qk$."""
    distances, missed, q = cycled(2, n, d, margin, spread, wedge, cycles, conflict, project, seed)
    k = np.arange(1, 2 * cycles + 1)
    decay = theory("rate", 1 - 1 / q) ** (k - 1)
    return {
        "distance": compare(squares(distances), "<=", decay),
        "violation": compare(squares(missed), "<=", theory("scale", q) * decay),
        "any margin": compare(squares(missed), "<=", theory("slow", q) / k),
    }


@panel(
    cyclic_order_of_two_tasks,
    "Two tasks in turn that nearly oppose each other",
    x="tasks seen $k$",
    y="largest squared violation",
    log="xy",
)
def _(pen, runs):
    for i, wedge in enumerate((0.1, 0.3)):
        wanted = {"n": 1, "d": 2, "wedge": wedge}
        run = next(r for r in runs.judgement.runs if wanted.items() <= r.instance.items())
        part, k = run.parts["any margin"], np.arange(1, 121)
        shown = part.shown > 1e-3
        pen.theory(k, part.predicted, "$q/k$", k=i)
        pen.points(k[shown], part.shown[shown], label=f"angle {wedge}", k=i)


def rational_rows(d, sign, seed):
    """Integer rows z_1 and z_2 with |z_1|^2 <= z_1 z_2 < |z_2|^2, or z_1 z_2 < |z_1|^2."""
    rng = np.random.default_rng([seed, d])
    while True:
        z, u = rng.integers(-6, 7, (2, d))
        if (z @ z) * (u @ u) > (z @ u) ** 2:
            break
    u = u * (sign if z @ u >= 0 else -sign) if z @ u else u + sign * z
    one, two = (np.array([Fraction(int(v)) for v in w], object) for w in (z, z + u))
    return one, two


@simulation
def rational_limit(d, sign, order, start, seed):
    """The exact limit of projections onto two half-spaces, where they end within ten cycles."""
    rows = rational_rows(d, sign, seed)
    w = np.array([Fraction(start)] * d, object)
    for _ in range(10):
        for t in order:
            missing = 1 - np.dot(rows[t], w)
            if missing > 0:
                w = w + rows[t] * (missing / np.dot(rows[t], rows[t]))
        if all(np.dot(z, w) >= 1 for z in rows):
            break
    return w


@simulation
def regression_limits(T, n, d, start, seed):
    """Limits of cycles in two orders, and the least-norm common solution."""
    rng = np.random.default_rng([seed, 9])
    X = [rng.standard_normal((n, d)) for _ in range(T)]
    truth = rng.standard_normal(d)
    y = [x @ truth for x in X]
    limits = [
        ir.cyclic_regression_limit(X, y, order, start=np.full(d, float(start)))
        for order in (range(T), range(T)[::-1])
    ]
    return np.array(limits), np.linalg.pinv(np.concatenate(X)) @ np.concatenate(y)


@regression.ours("derived: a family in the plane of two rows, in rationals", serves="e")
@cases(d=[2, 4], T=2, n=1)
@full(d=[3, 6], T=3, n=[1, 2])
@space(d=Int(2, 6), T=Int(2, 4), n=Int(1, 2))
@breaks("another start", start=3)
@breaks("the first separator misses the second task", sign=-1)
def limit_is_not_the_offline_solution(d, T, n, seed, start=0, sign=1):
    r"""if $|z_1|^2\le z_1^\top z_2<|z_2|^2$ the shortest common separator is $w^*=\frac{z_1}
    {|z_1|^2}$, the limit of the order $z_1,z_2$; that of the order $z_2,z_1$ is a separator at the
    squared distance $\frac{|z_1|^2|z_2|^2-(z_1^\top z_2)^2}{|z_1|^2|z_2|^4}$ from $w^*$, which is
    positive unless the rows are parallel. In regression the limit is the least-norm common
    solution in both orders."""
    one, two = rational_rows(d, sign, seed)
    a, b, c = np.dot(one, one), np.dot(two, two), np.dot(one, two)
    found = ir.task_geometry([np.array([z], float) for z in (one, two)]).separator
    first, second = (rational_limit(d, sign, order, start, seed) for order in ((0, 1), (1, 0)))
    limits, least = regression_limits(T, n, d, start, seed)
    shortest = theory("shortest", one / a)
    return {
        "second order": compare(
            np.sum((second - first) ** 2),
            "==",
            theory("distance", (a * b - c**2) / (a * b**2)),
            rival=Fraction(0),
        ),
        "first order": compare(first, "==", shortest),
        "shortest": compare(rounded(found, np.abs(found).max()), "==", shortest.astype(float)),
        "regression": compare(
            rounded(limits, 10 * np.abs(limits).max()), "==", theory("least norm", least)
        ),
    }


if __name__ == "__main__":
    run_script(__file__)
