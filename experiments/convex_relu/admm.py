"""ADMM falls to the optimum from anywhere, at a linear rate and a quadratic cost a step."""

import warnings
from dataclasses import replace

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Int,
    Real,
    between,
    breaks,
    cases,
    compare,
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

admm = paper(
    "bai2022-efficient",
    r"ADMM with penalty $\rho>0$ on $\min\frac12\|Au-y\|^2+\beta\sum_b\|v_b\|$, $u=v$, $Gu=s\ge0$ "
    r"(the convex ReLU program over $P$ activation patterns of $X\in\mathbb R^{n\times d}$):",
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


if __name__ == "__main__":
    run_script(__file__)
