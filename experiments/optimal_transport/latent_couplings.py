"""Auto-encoders as transport: a constraint on the codes, its penalties and what they are worth."""

import numpy as np
from scipy.optimize import linprog, minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import entr, rel_entr

from theorylab.optimal_transport import (
    aggregate_law,
    code_penalties,
    discriminator_value,
    encoder_of_plan,
    exact_plan,
    gaussian_mmd,
    jensen_shannon,
    line_plan,
    penalised_plan,
    penalised_value,
    push_forward,
    unbiased_mmd,
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
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "tolstikhin2017-wasserstein"
codes = paper(
    KEY,
    r"$n$ data of law $P_X$, $m$ codes of prior $P_Z$, encoder $Q(Z|X)$ of aggregate law $Q_Z$:",
)


def law(rng, n):
    return rng.dirichlet(np.full(n, 2.0))


@simulation
def coupled(n, m, distinct, dimension, power, noise, seed):
    """Least cost of an encoder with the prior as aggregate law; distance of the laws of data and
    outputs; cost and aggregate law of the encoder of its plan."""
    rng = np.random.default_rng(seed)
    a, b = law(rng, n), law(rng, m)
    X, choices = rng.normal(size=(n, dimension)), rng.normal(size=(distinct, dimension))
    Y = choices[rng.integers(distinct, size=m)]
    shift = noise * rng.normal(size=dimension)
    C = (cdist(X, Y + shift) ** power + cdist(X, Y - shift) ** power) / 2
    best = exact_plan(a, b, C)
    points, weights = push_forward(np.tile(b / 2, 2), np.vstack([Y + shift, Y - shift]))
    distance = exact_plan(a, weights, cdist(X, points) ** power)
    points, weights = push_forward(b, Y)
    Q = encoder_of_plan(exact_plan(a, weights, cdist(X, points) ** power).plan.toarray(), b, Y)
    return (best.value, best.dual_value), distance.value, a @ (Q * C).sum(axis=1), a @ Q - b


@codes.abstract("a", instance=True)
@cases(n=7, m=9, distinct=[4, 9])
@full(n=[7, 20], m=[9, 30], distinct=[1, 4, 9], dimension=2)
@space(n=Int(1, 10), m=Int(1, 12), distinct=Int(1, "m"), dimension=Int(1, 4), power=Real(1.0, 3.0))
@breaks("random decoder", noise=0.5)
def wae_reformulation(n, m, distinct, seed, dimension=2, power=1.5, noise=0.0):
    r"""for a deterministic decoder $G$, of at most as many distinct outputs as stated,
    $W_c(P_X,G_\sharp P_Z)=\min_{Q_Z=P_Z}\mathbb E\,c(X,G(Z))$, here $c=|x-y|^p$ (power $p$); the
    plan between data and outputs, spread over the codes of each output, attains it."""
    best, distance, cost, miss = coupled(n, m, distinct, dimension, power, noise, seed)
    distance = theory("distance", distance)
    return {
        "least": compare(between(*best), "==", distance),
        "attained": compare(within(cost, 1e-10 * cost, "rounding"), "==", distance),
        "aggregate": compare(
            within(np.abs(miss).sum(), 1e-11, "rounding"), "==", theory("variation", 0.0)
        ),
    }


@panel(
    wae_reformulation,
    "Encoders with the right aggregate law cost what transport costs",
    x=r"$W_c(P_X,G_\sharp P_Z)$",
    y="least reconstruction cost",
)
def _(pen, runs):
    parts = [run.parts["least"] for run in runs.judgement.runs]
    top = 1.1 * max(float(p.predicted) for p in parts)
    pen.theory([0, top], [0, top])
    pen.points([p.predicted for p in parts], [p.shown for p in parts], label="deterministic")
    part = runs.judgement.controls[0].run.parts["least"]
    pen.broken(part.predicted, part.shown, label="random decoder")


# ---------------------------------------------------------------------------------- random decoder
ATOMS, CHANCES = np.array([-2.0, 0.0, 1.0]), np.array([1 / 6, 1 / 2, 1 / 3])


@simulation
def noisy(n, m, noise, equal, seed, centred):
    """Least cost with the noise averaged; distances without and with it; whether it can reverse
    what the plan holds in order."""
    rng = np.random.default_rng(seed)
    m = n if equal else m
    a, b = (np.full(k, 1 / k) if equal else law(rng, k) for k in (n, m))
    x, y = 2 * rng.normal(size=n), 2 * rng.normal(size=m)
    steps = noise * (ATOMS if centred else ATOMS + 0.5)
    C = ((x[:, None, None] - y[:, None] - steps) ** 2) @ CHANCES
    best = exact_plan(a, b, C)
    plan = line_plan(x, y, a, b)
    spread = line_plan(x, (y[:, None] + steps).ravel(), a, np.outer(b, CHANCES).ravel())
    cells = plan.plan.tocoo()
    first, second = x[cells.row], y[cells.col]
    ordered = first[:, None] < first
    reverses = (ordered & (second - second[:, None] < np.ptp(steps) * (1 - 1e-12))).any()
    return (best.value, best.dual_value), plan.value, spread.value, bool(reverses)


@codes.ours("derived: the condition for a strict excess, which the abstract leaves out", serves="a")
@cases(n=4, m=4, noise=0.05, equal=True)
@cases(n=6, m=5, noise=0.5)
@full(n=[1, 4, 8], m=1, noise=[0.02, 0.1, 1.0], equal=True)
@full(n=6, m=5, noise=[0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
@space(n=Int(1, 10), m=Int(1, 10), noise=Real(0.01, 3.0), equal=Choice((False, True)))
@breaks("noise with a mean", centred=False)
def random_decoder_gap(n, m, noise, seed, equal=False, centred=True):
    r"""on the line, $X|Z\sim G(Z)+N$ with centred noise $N$ (three atoms, deviation as stated),
    squared cost: the same least cost is $W_2^2(P_X,G_\sharp P_Z)+\mathrm{Var}\,N$, no less than
    $W_2^2(P_X,P_G)$, and more iff the noise can reverse two outputs: iff some $x<x'$ are coupled
    with $y,y'$, $y'-y<\max N-\min N$ (equal: $m=n$, all weights $1/n$)."""
    best, plain, spread, reverses = noisy(n, m, noise, equal, seed, centred)
    cost = theory("distance", plain) + theory("variance", noise**2)
    return {
        "cost": compare(between(*best), "==", cost),
        "excess": compare(between(*best), ">=", theory("noisy distance", spread)),
        "strict": compare(
            int(best[0] > spread * (1 + 1e-9)), "==", theory("reversal", int(reverses))
        ),
    }


@panel(
    random_decoder_gap,
    "A random decoder pays for its noise, whatever the distance",
    x="deviation of the noise",
    y="least reconstruction cost",
)
def _(pen, runs):
    shown = {"where": {"n": 6}}
    pen.theory(*runs.predicted("noise", "cost", **shown), r"$W_2^2+\mathrm{Var}\,N$")
    noise, cost, _ = runs.measured("noise", "cost", **shown)
    pen.points(noise, cost, None, "least cost")
    pen.theory(*runs.predicted("noise", "excess", **shown), "$W_2^2(P_X,P_G)$", 1)
    pen.broken(*runs.measured("noise", "cost", control="noise with a mean"), "not centred")


# ---------------------------------------------------------------------------------- penalties
@simulation
def priced(n, m, shares, power, square, seed):
    """Distance, largest spread of the costs; penalised values at parts of it by the program itself,
    and by exchange with the mass exchanged; bounds from that spread on, with a square at it."""
    rng = np.random.default_rng(seed)
    a, b, C = law(rng, n), law(rng, m), rng.random((n, m)) + rng.random((1, m))
    spread = float(np.ptp(C, axis=1).max())
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    above = np.block([[columns, -np.eye(m)], [-columns, -np.eye(m)]])
    prices = spread * np.power(shares, power)
    values = []
    for price in prices:
        run = linprog(
            np.concatenate([C.ravel(), np.full(m, price / 2)]),
            A_ub=above,
            b_ub=np.concatenate([b, -b]),
            A_eq=np.hstack([rows, np.zeros((n, m))]),
            b_eq=a,
        )
        values.append(run.fun)
    plans, least = [penalised_plan(a, b, C, price) for price in prices], C.min(axis=1)[:, None]
    paid = [
        plan.plan.toarray()[least + price < C].sum()
        for plan, price in zip(plans, prices, strict=True)
    ]
    exchanged = np.array([plan.dual_value for plan in plans]), np.array(paid)
    kind = "squared" if square else "tv"
    beyond = [penalised_value(a, b, C, k * spread, penalty=kind) for k in (1, 1.5, 10)]
    squares = penalised_value(a, b, C, spread, penalty="squared")
    return exact_plan(a, b, C).value, spread, np.array(values), exchanged, beyond, squares


@codes.abstract("a", "b", instance=True)
@cases(n=8, m=6)
@full(n=[4, 8, 16], m=[6, 12])
@space(n=Int(1, 10), m=Int(2, 8))
@breaks("squared total variation", square=True)
@breaks("price as a square", power=2)
def exact_penalty(n, m, seed, square=False, power=1, shares=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)):
    r"""$\min_Q\mathbb E\,c+\lambda\,\mathrm{TV}(Q_Z,P_Z)$, TV half the $\ell_1$ distance, is the
    transport cost for $\min\{c,\lambda+\min_zc\}$: concave in $\lambda$, its slope the TV that is
    left (between two prices: at most that of the first, at least that of the second), and $W_c$
    from $\lambda=\max_x(\max_zc-\min_zc)$ on; at this $\lambda$ the squared penalty
    $\lambda\,\mathrm{TV}^2$ is still below, unless $W_c=\mathbb E\min_zc$."""
    distance, spread, values, exchanged, beyond, squares = priced(n, m, shares, power, square, seed)
    error, source = 1e-7 * values, "tolerance of the program"
    steps = spread * np.diff(shares)
    slopes = within(np.diff(values) / steps, (error[1:] + error[:-1]) / steps, source)
    distance, variation = theory("distance", distance), theory("variation", exchanged[1])
    return {
        "exact": compare(between(*np.transpose(beyond)), "==", distance),
        "exchange": compare(within(values, error, source), "==", theory("exchange", exchanged[0])),
        "above": compare(slopes, "<=", variation[:-1]),
        "below": compare(slopes, ">=", variation[1:]),
        "square": compare(between(*squares), "<", distance),
    }


@panel(
    exact_penalty,
    "A finite price of total variation is exact",
    x=r"$\lambda/\max_x(\max_zc-\min_zc)$",
    y="penalised cost",
)
def _(pen, runs):
    pen.theory(*runs.predicted("shares", "exchange", where={"n": 16, "m": 12}), "exchange of codes")
    pen.points(*runs.measured("shares", "exchange", where={"n": 16, "m": 12}), "linear program")
    squared = runs.judgement.controls[0].run.parts["exact"]
    pen.broken([1.0], [squared.shown[0]], label="squared penalty")


@codes.abstract("b", instance=True)
@cases(n=4, m=5)
@full(n=[2, 4, 8, 16], m=[3, 5, 20])
@space(n=Int(2, 12), m=Int(2, 12), sharpness=Real(0.05, 5.0))
@breaks("reverse divergences", reverse=True)
def vae_penalty_exceeds_aggregate_penalty(n, m, seed, sharpness=1.0, reverse=False):
    r"""$\sum_xP_X(x)\mathrm{KL}(Q(\cdot|x)\|P_Z)=\mathrm{KL}(Q_Z\|P_Z)+I(X;Z)$, $P_Z>0$: for a
    bijective code, prior the image of $P_X$, the aggregate penalty is 0 and the variational one the
    entropy of $P_X$; the latter is 0 for a code independent of the data, $Q(\cdot|x)=P_Z$."""
    rng = np.random.default_rng(seed)
    a, b = law(rng, n), law(rng, m)
    Q = rng.dirichlet(np.full(m, sharpness), size=n)
    variational, aggregate, _ = code_penalties(a, Q, b)
    if reverse:
        variational, aggregate = a @ rel_entr(b, Q).sum(axis=1), rel_entr(b, a @ Q).sum()
    information = entr(aggregate_law(a, Q)).sum() - a @ entr(Q).sum(axis=1)
    order = rng.permutation(n)
    bijective = code_penalties(a, np.eye(n)[:, order], a[order])
    blind = code_penalties(a, np.tile(b, (n, 1)), b)
    rounding = 1e-13 * (1 + abs(variational))
    return {
        "split": compare(
            within(variational - aggregate, rounding, "rounding"),
            "==",
            theory("information", information),
        ),
        "bijective": compare(
            within(bijective.variational, 1e-13, "rounding"),
            "==",
            theory("entropy", entr(a).sum()),
        ),
        "free": compare(
            within([bijective.aggregate, blind.variational], 1e-13, "rounding"),
            "==",
            theory("nothing", np.zeros(2)),
        ),
    }


@simulation
def trained_discriminator(n, m, groups, seed):
    """Prior, aggregate law and reconstruction cost of a random encoder; the best discriminator of
    those constant on groups of codes, found code by code, with a bound of its error, its value and
    a bound of all others by the tangent plane there."""
    rng = np.random.default_rng(seed)
    a, b, Q = law(rng, n), law(rng, m), rng.dirichlet(np.ones(m), size=n)
    cost = float(a @ (Q * cdist(rng.normal(size=(n, 2)), rng.normal(size=(m, 2))) ** 2).sum(axis=1))
    q, group = aggregate_law(a, Q), np.arange(m) % (groups or m)
    masses = [np.bincount(group, weights=v) for v in (b, q)]
    options = {"bounds": (0.0, 1.0), "method": "bounded", "options": {"xatol": 1e-12}}
    D = np.array(
        [
            minimize_scalar(lambda t, u=u, v=v: -u * np.log(t) - v * np.log1p(-t), **options).x
            for u, v in zip(*masses, strict=True)
        ]
    )
    slope = np.abs(masses[0] / D - masses[1] / (1 - D))
    attained = discriminator_value(b, q, D[group])
    bound = attained + float((slope * np.maximum(D, 1 - D)).sum())
    # The curvature is at least the mass.
    return b, q, cost, D[group], (slope / sum(masses))[group], attained, bound


@codes.abstract("c", instance=True)
@cases(m=[2, 6])
@full(m=[2, 4, 8, 16, 32], weight=[0.3, 3.0])
@space(n=Int(1, 8), m=Int(2, 12), weight=Real(0.1, 10.0))
@breaks("discriminators of one bit", groups=2)
def adversarial_penalty_is_jensen_shannon(m, seed, n=5, weight=1.0, groups=None):
    r"""the objective $\mathbb E|x-G(z)|^2+\lambda\max_D\{\mathbb E_{P_Z}\log D+\mathbb
    E_{Q_Z}\log(1-D)\}$ of an adversarial auto-encoder (weight $\lambda$) is the penalised one with
    $\mathcal D=2\,\mathrm{JS}(P_Z,Q_Z)$, less $2\lambda\log2$; the maximum over all discriminators
    is at $D=P_Z/(P_Z+Q_Z)$."""
    b, q, cost, D, error, attained, bound = trained_discriminator(n, m, groups, seed)
    best = theory("divergence", 2 * jensen_shannon(b, q)) - theory("constant", 2 * np.log(2))
    objective = between(cost + weight * attained, cost + weight * bound, "max")
    return {
        "objective": compare(objective, "==", cost + weight * best),
        "maximum": compare(between(attained, bound, "max"), "==", best),
        "discriminator": compare(
            within(D, error, "slope over the curvature"), "==", theory("ratio", b / (b + q))
        ),
    }


@panel(
    adversarial_penalty_is_jensen_shannon,
    "The best discriminator's value is a divergence",
    x=r"$2\,\mathrm{JS}(P_Z,Q_Z)-2\log2$",
    y="best discriminator's log likelihood",
)
def _(pen, runs):
    parts = [run.parts["maximum"] for run in runs.judgement.runs]
    ends = np.array(
        [min(float(p.predicted) for p in parts), max(float(p.predicted) for p in parts)]
    )
    pen.theory(ends, ends)
    pen.points([p.predicted for p in parts], [p.shown for p in parts], label="trained")
    part = runs.judgement.controls[0].run.parts["maximum"]
    pen.broken(part.predicted, part.shown, label="of one bit")


# ---------------------------------------------------------------------------------- the kernel
kernel = paper(
    KEY,
    r"Kernel $k(x,y)=\exp(-|x-y|^2/2s^2)$, samples of $N(0,I)$ and $N(0,\sigma^2I)$ in "
    r"$\mathbb R^d$ (variance $\sigma^2$, bandwidth $s$):",
)


@simulation
def estimates(n, dimension, variance, bandwidth, repetitions, biased, seed):
    """Independent estimates from n points of each law."""
    rng, found = np.random.default_rng(seed), np.empty(repetitions)
    for i in range(repetitions):
        X, Y = rng.normal(size=(2, n, dimension))
        found[i] = unbiased_mmd(X, np.sqrt(variance) * Y, bandwidth)
        if biased:  # all pairs, those of a point with itself among them
            for Z in (X, np.sqrt(variance) * Y):
                k = np.exp(-(cdist(Z, Z) ** 2) / (2 * bandwidth**2))
                found[i] += k.mean() - (k.sum() - n) / (n * (n - 1))
    return found


@kernel.ours("derived: the closed form of the penalty's mean", serves="b")
@cases(variance=[4.0, 1.0])
@full(variance=[0.25, 1.0, 2.0, 3.0, 4.0, 6.0], repetitions=20000)
@space(n=Int(2, 30), dimension=Int(1, 4), variance=Real(0.25, 9.0), bandwidth=Real(0.5, 3.0))
@breaks("pairs of a point with itself", biased=True)
def mmd_unbiased(variance, seed, n=20, dimension=2, bandwidth=1.0, repetitions=4000, biased=False):
    r"""the mean over pairs of distinct points (times two between the samples, subtracted) has
    expectation $g(1,1)+g(\sigma^2,\sigma^2)-2g(1,\sigma^2)$, $g(u,v)=(s^2/(s^2+u+v))^{d/2}$, for
    any number $n$ of points."""
    found = estimates(n, dimension, variance, bandwidth, repetitions, biased, seed)
    value = gaussian_mmd(variance, bandwidth, dimension=dimension)
    return compare(mean(found), "==", theory("mmd", value))


@panel(
    mmd_unbiased,
    "The estimate of the penalty has the mean of the closed form",
    x=r"variance $\sigma^2$",
    y=r"$\mathrm{MMD}^2$",
)
def _(pen, runs):
    v = np.linspace(0.2, 6.2, 80)
    pen.theory(v, [gaussian_mmd(x, 1.0, dimension=2) for x in v], "closed form")
    pen.points(*runs.measured("variance"), "mean estimate, 20 points")
    pen.broken(*runs.measured("variance", control="pairs of a point with itself"), "all pairs")


if __name__ == "__main__":
    run_script(__file__)
