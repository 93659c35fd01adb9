"""ADMM falls to the optimum from anywhere; a random first layer comes with a certificate."""

import warnings
from dataclasses import replace
from itertools import combinations

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Choice,
    Int,
    Real,
    between,
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

KEY = "bai2022-efficient"
admm = paper(
    KEY,
    r"ADMM with penalty $\rho>0$ on $\min\frac12\|Au-y\|^2+\beta\sum_b\|v_b\|$, $u=v$, $Gu=s\ge0$ "
    r"(the convex ReLU program over $P$ activation patterns of $X\in\mathbb R^{n\times d}$):",
)
layer = paper(
    KEY,
    r"Over $N$ independent uniform directions $u_i$ in the plane let $p(N)$ be the least "
    r"$\frac12\|\sum_i(Xu_i)_+\alpha_i-y\|^2+\beta\|\alpha\|_1$:",
)


def gaussian(rng, n, d, ratio):
    """Gaussian data, and beta as a fraction of the least one at which the network is zero."""
    X, y = rng.normal(size=(n, d)), rng.normal(size=n)
    return X, y, ratio * cr.zero_threshold(X, y)


def written_out(X, y, beta, factor, patterns="all"):
    """ADMM's iteration at a multiple of the default penalty, and a result that it starts from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        only = {"arrangements": patterns, "max_iter": 1}
        rho = factor * cr.train_admm(X, y, beta, **only).penalty
        result = cr.train_admm(X, y, beta, penalty=rho, **only)
    return cr.admm_iteration(result), result


# ---------------------------------------------------------------------------------- convergence
@simulation
def descent(n, d, ratio, factor, size, sampled, step, seed):
    """Steps of the Lyapunov function with their errors, and where the iteration ends."""
    rng = np.random.default_rng(seed)
    X, y, beta = gaussian(rng, n, d, ratio)
    patterns = cr.sample_arrangements(X, sampled, rng=rng) if sampled else "all"
    T, _ = written_out(X, y, beta, factor, patterns)
    best = cr.train(T.X, T.y, T.beta, arrangements=T.patterns)
    state = T.fixed_point(best.network)
    off, star = np.linalg.norm(T.apply(state) - state), T.proximal(state)
    optimum = np.stack([star, state - star])
    start = size * rng.normal(size=state.shape)
    now = np.stack([T.proximal(start), start - T.proximal(start)])
    rows, earlier = [], now[0]
    for _ in range(40_000):
        targets, multipliers = T(*now)
        after = np.stack([targets, now[1] + step * (multipliers - now[1])])
        moved, far = now - after, now + after - 2 * optimum
        # One step of the computed optimum moves it by `off`, which the inequality sees linearly.
        error = 8 * (off + 1e-16 * np.linalg.norm(far)) * np.linalg.norm(far)
        fall = np.sum((multipliers - now[1]) ** 2) + np.sum(moved[0] ** 2)
        rows.append((np.sum(moved * far), error, fall))
        now = after
        earlier = now[0] if fall > 1e-18 else earlier
        if fall < 1e-22 or fall > 1e12:
            break
    rows = np.array([row for row in rows if row[1] <= 0.01 * row[2]])

    def certified(v):
        root, sign = np.sqrt(np.linalg.norm(v, axis=1)), np.repeat([1.0, -1.0], len(T.patterns))
        used = root > 0
        network = cr.Network(v[used] / root[used, None], (sign * root)[used])
        return cr.certify(T.X, T.y, T.beta, network, arrangements=T.patterns)

    end, before = certified(now[0][:, :d]), certified(earlier[:, :d])
    # What is left is less than what the last factor of 100 changed; the optimum has its own gap.
    slack = best.objective - best.dual_objective + abs(end.objective - before.objective)
    return rows.T, (end.objective + slack, end.dual_objective - slack), best.objective


@admm.ours("derived; that ADMM converges from anywhere is the abstract's", serves="de")
@cases(n=4, size=[0.0, 100.0])
@cases(n=6, size=1.0, sampled=5)
@full(n=[4, 6], factor=[0.3, 3.0], size=[0.0, 1.0, 100.0])
@full(n=6, d=3, size=1.0, sampled=[0, 8])
@space(
    n=Int(3, 5),
    d=Int(1, 2),
    ratio=Real(0.05, 0.9),
    factor=Real(0.3, 3.0, log=True),
    size=Real(0.0, 100.0),
    sampled=Int(0, 8),
)
@breaks("multiplier step 2.5", step=2.5)
@note(credit="the argument is that of Boyd et al. 2011, appendix A")
def admm_lyapunov_from_every_start(
    n, seed, d=2, ratio=0.3, factor=1.0, size=1.0, sampled=0, step=1.0
):
    r"""with $w=(v,s)$, $\theta=(\lambda,\nu)$, $Bu=(u,Gu)$ and $w^\star,\theta^\star$ an optimum
    and its multipliers, $V_k=\|w^k-w^\star\|^2+\|\theta^k-\theta^\star\|^2$ falls by at least
    $\|Bu^{k+1}-w^{k+1}\|^2+\|w^{k+1}-w^k\|^2$ in each step from every Gaussian start of standard
    deviation $size$, and the objective tends to the optimum of the program (all patterns, or those
    of $sampled>0$ random directions; $\beta=ratio\cdot\beta_{max}$, $\rho=factor\cdot\rho_0$)."""
    (falls, error, bound), ends, optimum = descent(n, d, ratio, factor, size, sampled, step, seed)
    source = "one step from the computed optimum, rounding"
    return {
        "step": compare(within(falls, error, source), ">=", theory("decrease", bound)),
        "optimum": compare(between(*ends), "==", theory("optimum", optimum)),
    }


@simulation
def local_runs(n, d, ratio, factor, size, seed):
    """A run of T near a fixed point off its kinks, the largest change from a fifth to a tenth of
    the distance of the kinks, the start, the derivative at the point, and its rate."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        X, y, beta = gaussian(rng, n, d, ratio)
        T, result = written_out(X, y, beta, factor)
        q = T.fixed_point(cr.train(T.X, T.y, T.beta).network)
        lengths = np.linalg.norm(q[:, :d], axis=1)
        margin = min(np.abs(lengths - T.threshold).min(), np.abs(q[:, d:]).min())
        if margin > 1e-4:
            break
    for _ in range(300):  # the computed optimum, to rounding
        q = T.apply(q)
    unit = rng.normal(size=q.shape)
    unit /= np.linalg.norm(unit)

    def residuals(start, fall, least=0):
        """Norms of the residuals until they have shrunk by a factor."""
        q, norms = start, []
        while len(norms) < max(least, 2) or (norms[-1] > fall * norms[0] and len(norms) < 1500):
            before, q = q, T.apply(q)
            norms.append(np.linalg.norm(q - before))
        return np.array(norms)

    run = residuals(q + size * margin * unit, np.exp(-5))
    near = [residuals(q + s * margin * unit, 1.0, len(run))[: len(run)] / s for s in (0.2, 0.1)]
    limit = replace(result, state=q)
    change = np.abs(np.diff(np.log(near), axis=0)).max()
    return (
        np.log(run / (size * margin)),
        change,
        unit.ravel(),
        limit.jacobian,
        limit.asymptotic_rate,
    )


@admm.abstract("d", "e", instance=True)
@cases(n=4, factor=[0.5, 2.0])
@full(n=6, factor=[0.3, 0.7, 1.5, 3.0])
@full(n=4, d=3, factor=1.0)
@space(n=Int(3, 5), d=Int(1, 2), ratio=Real(0.1, 0.9), factor=Real(0.5, 2.0))
@breaks("a start beyond the kinks", size=1e4)
def admm_linear_convergence(n, seed, d=2, ratio=0.3, factor=1.0, size=0.2):
    r"""let $T$ be the iteration in $q=(u+\lambda,Gu+\nu)$ and $q^\star$ a fixed point off its kinks
    $\|q_b\|=\beta/\rho$, $q_{bk}=0$. From starts closer to it than a fifth of the distance of the
    nearest kink $\|q^{k+1}-q^k\|$ follows $\|T'(q^\star)^k(T'(q^\star)-1)(q^0-q^\star)\|$, and so
    decays at a rate $\max\{|\mu|:\mu\in\mathrm{spec}\,T'(q^\star),\mu\ne1\}<1$
    ($\beta=ratio\cdot\beta_{max}$, $\rho=factor\cdot\rho_0$)."""
    logs, change, start, jacobian, rate = local_runs(n, d, ratio, factor, size, seed)
    jacobian = theory("jacobian", jacobian)
    powers = [jacobian @ start - start]
    for _ in logs[1:]:
        powers.append(jacobian @ powers[-1])
    shown = np.unique(np.geomspace(1, len(logs), 12).astype(int)) - 1
    error = 3 * change + 1e-9
    source = "three times the largest change at half the distance, 1e-9 of rounding"
    predicted = np.log(np.linalg.norm(powers, axis=1))[shown]
    return {
        "follows": compare(within(logs[shown], error, source), "==", predicted),
        "rate": compare(within(rate, 1e-9, "eigenvalues"), "<", theory("one", 1.0)),
    }


# ---------------------------------------------------------------------------------- cost
class Counted(float):
    """A float that counts the multiplications and divisions in which it takes part."""

    total = 0


def _counting(name, counts):
    def operation(self, other):
        if isinstance(other, np.ndarray):
            return NotImplemented
        Counted.total += counts
        return Counted(getattr(float, name)(self, float(other)))

    return operation


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv"):
    _counts = "mul" in _name or "div" in _name
    setattr(Counted, f"__{_name}__", _counting(f"__{_name}__", _counts))
Counted.sqrt = lambda self: Counted(float(self) ** 0.5)
counted = np.vectorize(Counted, otypes=[object])


def stored(inverse):
    return inverse


def refactorised(inverse):
    """Gauss and Jordan's inversion of the system in counted numbers."""
    size = len(inverse)
    work = np.hstack([counted(np.linalg.inv(inverse.astype(float))), counted(np.eye(size))])
    for k in range(size):
        work[k, k:] = work[k, k:] / work[k, k]
        for i in set(range(size)) - {k}:
            work[i, k:] = work[i, k:] - work[i, k] * work[k, k:]
    return work[:, size:]


@simulation
def multiplications(n, d, patterns, solver, seed):
    """Multiplications and divisions of one iteration, run in counted numbers."""
    rng = np.random.default_rng(seed)
    X, y, beta = gaussian(rng, n, d, 0.3)
    some = cr.enumerate_arrangements(X)[:patterns]
    T, result = written_out(X, y, beta, 1.0, some)
    T = replace(
        T,
        inverse=counted(T.inverse),
        offset=counted(T.offset),
        rows=counted(T.rows),
        threshold=counted(T.threshold),
    )
    Counted.total = 0
    T = replace(T, inverse=solver(T.inverse))
    T(counted(result.state), counted(0.5 * result.state))
    return Counted.total, len(some)


@admm.abstract("f", instance=True)
@cases(n=3, d=2, patterns=[1, 2, 4])
@full(n=8, d=2, patterns=[1, 2, 4, 8, 12, 16])
@full(n=8, d=3, patterns=[4, 8])
@space(n=Int(1, 6), d=Int(1, 3), patterns=Int(1, 4))
@breaks("factorised in every iteration", solver=refactorised)
def admm_iteration_is_quadratic(n, d, patterns, seed, solver=stored):
    r"""with $N=2Pd$ variables and a stored inverse of $I+G^\top G+A^\top A/\rho$ an iteration takes
    $N^2+2nN+(2+\frac1d)N$ multiplications and divisions ($P$ is $patterns$, or all there are)."""
    found, P = multiplications(n, d, patterns, solver, seed)
    N = 2 * P * d
    rest = 2 * n * N + 2 * N + 2 * P
    return compare(found, "==", theory("least squares", N**2) + theory("rest", rest))


# ---------------------------------------------------------------------------------- first layers
def directions(rng, count, sector, centre=0.0):
    angle = centre + sector * rng.uniform(-0.5, 0.5, size=count)
    return np.column_stack([np.cos(angle), np.sin(angle)])


@simulation
def first_layers(n, ratio, counts, sector, penalty, seed):
    """Optimum with its bound, values over the first directions (of a sector opposite to an optimal
    neuron), their certified and their a-priori excess, and the angles within which the neurons have
    a direction."""
    rng = np.random.default_rng(seed)
    X, y, beta = gaussian(rng, n, 2, ratio)
    best = cr.train(X, y, beta)
    opposite = np.arctan2(*-best.network.weights[0, ::-1])
    U = directions(rng, counts[-1], sector, opposite)
    found = [cr.train_output_layer(X, y, penalty * beta, U[:count]) for count in counts]
    values = np.array([f.objective for f in found])
    certified = values - [f.certificate.dual_objective for f in found]
    neurons = best.network.weights / np.linalg.norm(best.network.weights, axis=1)[:, None]
    closest = np.arccos(np.clip([(neurons @ U[:k].T).max(axis=1).min() for k in counts], -1, 1))
    bounds = np.array([cr.displaced_neurons_bound(best, t) for t in closest])
    return (best.objective, best.dual_objective), values, certified, bounds, closest, len(neurons)


@layer.ours("the certificate and the bound are derived", serves="dg")
@cases(n=8, counts=(10, 100, 4000))
@full(n=8, counts=(10, 30, 100, 300, 1000, 3000, 10_000))
@space(n=Int(3, 8), ratio=Real(0.05, 0.8), counts=Choice([(10, 4000), (100,), (30, 2000)]))
@breaks("directions from a sector opposite to a neuron", sector=0.2)
@breaks("maximum over the sampled directions only", sphere=False)
@breaks("the sampled program at 1.5 beta", penalty=1.5)
def scp_random_first_layer(n, counts, seed, ratio=0.3, sector=2 * np.pi, sphere=True, penalty=1.0):
    r"""with residual $z$, $d(z)=z^\top y-\frac12\|z\|^2$ and $p^\star,z_\star$ the optimum over all
    networks and its residual, $0\le p(N)-p^\star\le p(N)-d(tz)$ for
    $t=\min\{1,\beta/\max_{\|u\|\le1}|z^\top(Xu)_+|\}$; and $p(N)\to p^\star$:
    $p(N)-p^\star\le\sum_jc_j\max_{|\theta-\theta_j|\le t_N}(\beta-|z_\star^\top(Xu_\theta)_+|)
    +\frac12(2\sin\frac{t_N}2\|X\|\sum_jc_j)^2$, where the $m$ optimal blocks have norms $c_j$,
    angles $\theta_j$ and a direction within $t_N$, and $t_N\le\pi(1-(10^{-6}/m)^{1/N})$ with
    probability $1-10^{-6}$ ($N=counts$, $\beta=ratio\cdot\beta_{max}$)."""
    (upper, lower), values, certified, bounds, closest, neurons = first_layers(
        n, ratio, counts, sector, penalty, seed
    )
    optimum = (upper + lower) / 2
    error = (upper - lower) / 2 + 1e-12 * values
    excess = within((values - optimum) / optimum, error / optimum, "certified gap, rounding")
    likely = np.pi * (1 - (1e-6 / neurons) ** (1 / np.array(counts)))
    return {
        "certified": compare(excess, "<=", theory("certified", sphere * certified / optimum)),
        "limit": compare(excess, "<=", theory("bound", bounds / optimum)),
        "angle": compare(within(closest, 1e-7, "rounding"), "<=", theory("angle", likely)),
        "above": compare(
            within(values, 1e-12 * values, "rounding"), ">=", theory("optimum", lower)
        ),
    }


@simulation
def left_out(n, ratio, population, count, copies, seed):
    """How often one more of some directions helps, and how many are active, over all choices."""
    rng = np.random.default_rng(seed)
    X, y, beta = gaussian(rng, n, 2, ratio)
    U = np.repeat(directions(rng, population // copies, 2 * np.pi), copies, axis=0)
    everyone = set(range(len(U)))
    helps, dual, active = {}, {}, []
    for chosen in combinations(everyone, count):
        dual[chosen] = cr.train_output_layer(X, y, beta, U[list(chosen)]).dual
        for i in everyone - set(chosen):
            excess = abs(dual[chosen] @ np.maximum(X @ U[i], 0)) / beta - 1
            helps[chosen, i] = bool(excess > 1e-9)
    outcomes = {}
    for chosen in combinations(everyone, count + 1):
        used = cr.train_output_layer(X, y, beta, U[list(chosen)]).coefficients != 0
        for i, use in zip(chosen, used, strict=True):
            outcomes[chosen, i] = helps[tuple(sorted(set(chosen) - {i})), i] == bool(use)
        active.append(used.sum())
    return np.mean(list(helps.values())), np.mean(active), outcomes


@layer.ours("derived by exchangeability", serves="cg")
@cases(n=4, population=8, count=[2, 4])
@full(n=8, population=10, count=[1, 2, 3, 4, 5, 6])
@space(n=Int(2, 6), ratio=Real(0.02, 0.8), population=Int(5, 7), count=Int(1, 4))
@breaks("every direction twice", copies=2)
def scp_improvement_identity(n, population, count, seed, ratio=0.1, copies=1):
    r"""draw $N+1=count+1$ directions without replacement from any $M$ ($population$, here uniform;
    so for independent ones of any law without atoms). One of them strictly lowers the value over
    the others iff it is active in the solution over all, and so the probability $V_N$, given $N$,
    that one more strictly lowers $p(N)$ has $\mathbb EV_N=\mathbb E[s_{N+1}]/(N+1)$, $s_{N+1}$ the
    number of active ones among $N+1$."""
    found, active, outcomes = left_out(n, ratio, population, count, copies, seed)
    return {
        "mean": compare(
            within(found, 1e-12, "a count over all choices"),
            "==",
            theory("active", active) / (count + 1),
        ),
        "left out": compare(family(outcomes), "==", len(outcomes)),
    }


@panel(
    admm_lyapunov_from_every_start,
    "From a start of size 100 every step lowers the distance to the optimum",
    x="iteration $k$",
    y="decrease of $V_k$",
    log="xy",
)
def _(pen, runs):
    for k, factor in enumerate((0.3, 3.0)):
        where = {"n": 6, "factor": factor, "size": 100.0}
        (run,) = [r for r in runs.judgement.runs if where.items() <= r.instance.items()]
        part = run.parts["step"]
        shown = np.unique(np.geomspace(1, part.centre.size, 25).astype(int)) - 1
        label = rf"$\rho={factor:g}\rho_0$"
        pen.points(shown + 1, part.centre[shown], label=label, k=k)
        pen.theory(shown + 1, part.predicted[shown], "bound", k=k)


@panel(
    admm_linear_convergence,
    r"Near $q^\star$ the residual follows the powers of the derivative",
    x="judged iteration, twelve of each run",
    y=r"$\log(\|q^{k+1}-q^k\|/\|q^0-q^\star\|)$",
)
def _(pen, runs):
    for k, factor in enumerate((0.3, 0.7, 1.5, 3.0)):
        (run,) = [r for r in runs.judgement.runs if r.instance["factor"] == factor]
        part = run.parts["follows"]
        pen.theory(np.arange(part.centre.size), part.predicted, k=k)
        label = rf"$\rho={factor:g}\rho_0$"
        pen.points(np.arange(part.centre.size), part.centre, part.error, label, k=k)
    part = runs.judgement.controls[0].run.parts["follows"]
    pen.broken(np.arange(part.centre.size), part.centre, label="beyond the kinks")


@panel(
    admm_iteration_is_quadratic,
    "With a stored inverse an iteration is quadratic in the variables",
    x="patterns $P$, $n=8$",
    y="multiplications",
    log="xy",
)
def _(pen, runs):
    P = np.arange(1, 17)
    for k, d in enumerate((2, 3)):
        N = 2 * P * d
        pen.theory(P, N**2 + 16 * N + (2 + 1 / d) * N, rf"$d={d}$", k=k)
        pen.points(*runs.measured("patterns", where={"d": d}), k=k)
    name = "factorised in every iteration"
    pen.broken(*runs.measured("patterns", control=name), name)


@panel(
    scp_random_first_layer,
    "A random first layer is certified after the fact",
    x="random directions $N$",
    y="relative excess over the optimum",
    log="xy",
)
def _(pen, runs):
    for k, (part, label) in enumerate((("certified", "certificate"), ("limit", "bound"))):
        pen.theory(*runs.predicted("counts", part), label, k=k)
    pen.points(*runs.measured("counts"), "true", k=2)
    name = "directions from a sector opposite to a neuron"
    pen.broken(*runs.measured("counts", control=name), "from a sector")


@panel(
    scp_improvement_identity,
    "One more direction helps as often as one is active",
    x="directions $N$ of 10, $n=8$",
    y=r"$\mathbb{E}V_N$",
)
def _(pen, runs):
    pen.theory(*runs.predicted("count"), r"$\mathbb{E}s_{N+1}/(N+1)$")
    pen.points(*runs.measured("count"))
    pen.broken(*runs.measured("count", control="every direction twice"), "every direction twice")


if __name__ == "__main__":
    run_script(__file__)
