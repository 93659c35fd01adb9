"""Sinkhorn as ascent: the sparse Hessian of its potential, and what Newton makes of it."""

import warnings
from itertools import permutations

import numpy as np

from theorylab.optimal_transport import (
    ascent_factors,
    lyapunov,
    newton_ascent,
    newton_plan,
    plan_distance_bound,
    scaling_ascent,
    sparsity_exponent,
    vertex_gap,
)
from theorylab.verify import (
    Choice,
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    note,
    panel,
    paper,
    simulation,
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

potential = paper(
    "tang2024-accelerating",
    r"$f(x,y)=a^\top x+b^\top y-\frac1\eta\sum_{ij}P_{ij}$, $P_{ij}=e^{\eta(x_i+y_j-C_{ij})-1}$, "
    r"$a,b>0$ of sum 1, $C\in\mathbb R^{n\times m}$:",
)
assignment = paper(
    "tang2024-accelerating",
    r"Costs $C\in\mathbb R^{n\times n}$, uniform weights, one optimal assignment $\pi$, $P^\star$ "
    r"its plan, $P_\eta$ the entropic plan at $\epsilon=1/\eta$:",
)


@simulation
def ascent(n, m, eta, spread, relax, seed):
    """Weights and costs; differences of the potential and its gradient, of the second and fourth
    order; the points of a few half-steps, and the potential there."""
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.full(n, 5.0)), rng.dirichlet(np.full(m, 5.0))
    C = spread * rng.uniform(size=(n, m)) / eta
    z = spread * rng.uniform(size=n + m) / eta
    h = 1e-3 / eta

    def at(w):
        return lyapunov(w[:n], w[n:], a, b, C, 1 / eta)

    orders = []
    for i in np.eye(n + m):
        near, far = ((at(z + k * h * i), at(z - k * h * i)) for k in (1, 2))
        pairs = [(p.value, p.gradient) for p in (*near, *far)]
        rows = [np.append(value, gradient) for value, gradient in pairs]
        second, wide = (rows[0] - rows[1]) / (2 * h), (rows[2] - rows[3]) / (4 * h)
        orders.append([second, (4 * second - wide) / 3])
    # Scaling itself: P = diag(u) exp(-eta C) diag(v), u and v in turn.
    K, u, v = np.exp(-eta * C), np.exp(eta * z[:n] - 0.5), np.exp(eta * z[n:] - 0.5)
    points = [z]
    for half in range(4):
        if half % 2:
            v = v * (b / (u @ K) / v) ** relax
        else:
            u = u * (a / (K @ v) / u) ** relax
        points.append((np.log(np.append(u, v)) + 0.5) / eta)
    attained = np.array([at(w).value for w in points])
    return a, b, C, np.array(orders), np.array(points), attained


@potential.abstract("a")
@cases(n=6, m=4, spread=[0.0, 2.0])
@full(n=12, m=9, spread=[0.0, 1.0, 2.0, 4.0], eta=50.0)
@space(n=Int(2, 7), m=Int(2, 7), eta=Real(0.1, 200.0, log=True), spread=Real(0.0, 4.0))
@breaks("half-steps taken half as far", relax=0.5)
def lyapunov_hessian(n, m, seed, spread=2.0, eta=3.0, relax=1.0):
    r"""the gradient is $(a-P1,b-P^\top1)$ and the Hessian
    $-\eta\begin{pmatrix}\mathrm{diag}(P1)&P\\P^\top&\mathrm{diag}(P^\top1)\end{pmatrix}\preceq0$:
    of its eigenvalues only that of $(1,-1)$ is 0, the others are at most
    $-\eta\min(n,m)\min_{ij}P_{ij}$. Scaling the rows of $P$ to $a$ maximises $f$ over $x$, a gain
    of $\frac1\eta\sum_i(a_i\log\frac{a_i}{r_i}-a_i+r_i)$, $r=P1$; the columns likewise."""
    a, b, C, orders, points, attained = ascent(n, m, eta, spread, relax, seed)
    second, fourth = orders[:, 0], orders[:, 1]
    error = np.abs(fourth - second) + 1e-9 * np.abs(fourth).max(axis=0)
    found, off = fourth[:, 1:], error[:, 1:]
    values = np.linalg.eigvalsh(-(found + found.T) / 2)
    plans = np.exp(eta * (points[:, :n, None] + points[:, None, n:] - C) - 1)
    r, c = plans.sum(axis=2), plans.sum(axis=1)
    P, rows, columns = plans[0], np.diag(r[0]), np.diag(c[0])
    # In turn the rows and the columns: what they were, and are after the half-step.
    turns = [(a, r[0], r[1]), (b, c[1], c[2]), (a, r[2], r[3]), (b, c[3], c[4])]
    gains = np.array([np.sum(w * np.log(w / s) - w + s) for w, s, _ in turns]) / eta
    left = [np.abs(w - s).sum() for w, _, s in turns]
    differences, rounding = "differences of two orders", "rounding"
    return {
        "hessian": compare(
            within(found, off, differences),
            "==",
            theory("hessian", -eta * np.block([[rows, P], [P.T, columns]])),
        ),
        "gradient": compare(
            within(fourth[:, 0], error[:, 0], differences),
            "==",
            theory("gradient", np.append(a - r[0], b - c[0])),
        ),
        "curvature": compare(
            within(values[1], np.linalg.norm(off), differences),
            ">=",
            theory("curvature", eta * min(n, m) * P.min()),
        ),
        "gain": compare(
            within(np.diff(attained), 1e-13 * np.abs(attained).max(), rounding),
            "==",
            theory("divergence", gains),
        ),
        "block": compare(within(left, 1e-12, rounding), "==", theory("gradient left", 0.0)),
    }


@panel(
    lyapunov_hessian,
    "A half-step of the scaling gains a relative entropy",
    x=r"relative entropy of the marginals, over $\eta$",
    y="gain of the potential, over that",
    log="x",
)
def _(pen, runs):
    for run in runs.judgement.runs:
        part = run.parts["gain"]
        large = part.predicted > 1e-8
        pen.points(part.predicted[large], (part.shown / part.predicted)[large], k=1)
    pen.theory([1e-7, 100], [1, 1], "equal")
    part = runs.judgement.controls[0].run.parts["gain"]
    pen.broken(part.predicted, part.shown / part.predicted, label="half as far")


def entropic(C, eta, tol):
    """Plan of uniform weights. What the solver leaves shows in its marginal error, passed on."""
    weights = np.full(len(C), 1 / len(C))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return newton_plan(weights, weights, C, 1 / eta, tol=tol, max_iter=1000)


@simulation
def planted(n, k, apart, least, tie, etas, seed):
    """Costs with a known critical cycle, in the normal form of Karp's duality; the distances of the
    entropic plans from the planted assignment, with their errors."""
    rng = np.random.default_rng(seed)
    excess = 1 + apart + rng.exponential(size=(n, n))
    np.fill_diagonal(excess, 0.0)
    cycle, order = rng.permutation(n)[:k], rng.permutation(n)
    excess[cycle, np.roll(cycle, -1)] = 0.0 if tie else 1.0
    shift = rng.standard_normal((2, n))
    C = (excess + shift[0][:, None] - shift[0] + shift[1][:, None])[:, order] * least
    found = []
    away = order[None, :] != np.arange(n)[:, None]
    for eta in etas:
        result = entropic(C, eta, 1e-14)
        # Rows and columns sum to 1/n: what is off the assignment is missing on it. An error of a
        # marginal passes through at most n rows.
        found.append((2 * result.plan.toarray()[away].sum(), 2 * n * result.marginal_error))
    return C, np.array(found).T


@assignment.ours("derived: the exponent is the cycle mean, not the vertex gap", serves="ab")
@cases(n=6, k=3)
@cases(n=5, k=2, least=3.0)
@full(n=8, k=[2, 3, 5, 8], least=0.5)
@full(n=12, k=4, least=[1.0, 2.0, 4.0], apart=1.0)
@space(n=Int(2, 8), k=Int(2, "n"), apart=Real(0.3, 1.5), least=Real(0.01, 100.0, log=True))
@breaks("two optimal assignments", tie=True)
@breaks("the vertex gap for the cycle mean", exponent=vertex_gap)
def sparsity_exponent_cycle_mean(
    n, k, seed, apart=0.8, least=1.0, tie=False, exponent=sparsity_exponent
):
    r"""$\|P_\eta-P^\star\|_1=c\,e^{-\eta\mu^\star}(1+o(1))$ with $\mu^\star$ the minimum cycle mean
    of $C_{i\pi(j)}-C_{i\pi(i)}$ (Karp), and $c=2k/n$ if one cycle, of $k$ arcs, attains it (others
    apart by at least the stated share of $\mu^\star$ an arc): so close to $n$ entries is $P_\eta$,
    the off-diagonal block of the Hessian over $-\eta$."""
    times = np.arange(6.0, 23.0)
    C, (distance, error) = planted(n, k, apart, least, tie, times / least, seed)
    logs = dict(zip(times, np.log(distance), strict=True))
    early, late = (np.exp(2 * logs[t] - logs[2 * t]) for t in (8.0, 11.0))
    rest = abs(late - early) + late * (1e-6 + error[-1] / distance[-1])
    return {
        "exponent": compare(
            slope(times / least, distance, scale="linear"),
            "==",
            -theory("cycle mean", exponent(C)),
        ),
        "prefactor": compare(
            within(late, rest, "line through two points, and through the half before"),
            "==",
            theory("prefactor", 2 * k / n),
        ),
    }


@panel(
    sparsity_exponent_cycle_mean,
    "The plan nears the assignment at the rate of the minimum cycle mean",
    x=r"$\mu^\star$",
    y=r"decay of $\|P_\eta-P^\star\|_1$ in $\eta$",
)
def _(pen, runs):
    pen.theory([0.4, 4.2], [-0.4, -4.2], r"$-\mu^\star$")
    pen.points(*runs.measured("least", "exponent"), "Newton", k=1)


@panel(
    sparsity_exponent_cycle_mean,
    "One critical cycle of $k$ arcs gives the prefactor $2k/n$",
    x="arcs of the critical cycle $k$",
    y=r"$\|P_\eta-P^\star\|_1\,e^{\eta\mu^\star}$, $n=8$",
)
def _(pen, runs):
    k = np.linspace(2, 8, 9)
    pen.theory(k, k / 4, "$2k/n$")
    pen.points(*runs.measured("k", "prefactor", where={"n": 8}), "Newton", k=1)


@simulation
def vertices(n, kind, repeated, times, seed):
    """Values of 1 / eps, from the gap of two different vertex values by enumeration; the gap;
    distance and excess cost of entropic plans, with what rounding leaves."""
    rng = np.random.default_rng(seed)
    C = rng.uniform(size=(n, n))
    if kind == "points":
        X, Y = rng.standard_normal((2, n, 2))
        C = ((X[:, None] - Y) ** 2).sum(axis=2)
    if repeated:
        C[:, 1] = C[:, 0] + (repeated == "nearly") * 1e-4 * np.arange(n)
    orders = list(permutations(range(n)))
    values = np.array([C[np.arange(n), p].mean() for p in orders])
    best = orders[int(values.argmin())]
    gap = np.min(values[values > values.min() + 1e-9]) - values.min()
    threshold, rows = (1 + np.log(n)) / gap, []
    for factor in times:
        result = entropic(C, threshold * factor, 1e-12)
        plan = result.plan.toarray()
        away = plan.sum() - plan[np.arange(n), best].sum()
        passed = 2 * n * result.marginal_error  # through at most n rows
        rows.append((2 * away, result.transport_cost - values.min(), passed, passed * C.max()))
    return threshold * np.array(times), gap, np.array(rows).T


@assignment.ours("recalled: Weed 2018, for assignments; the paper's own bound unseen", serves="b")
@note(credit="J. Weed, An explicit analysis of the entropic penalty in linear programming, 2018")
@cases(n=[2, 4])
@full(n=[2, 3, 5, 4], times=(1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5))
@space(n=Int(2, 5), kind=Choice(("uniform", "points")))
@breaks("two optimal assignments", repeated="exactly")
@breaks("far below the threshold, nearly tied", repeated="nearly", times=(1e-4, 2e-4, 3e-4))
def vertex_gap_bound_on_plan(n, seed, kind="uniform", times=(1.0, 1.6, 2.5), repeated=""):
    r"""with $\Delta$ the gap between the two least values of $\langle C,P\rangle$ at vertices, for
    $\eta\ge(1+\log n)/\Delta$ (judged up to 2.5 times that)
    $\|P_\eta-P^\star\|_1\le2e^{-\eta\Delta+1+\log n}$ and $\langle C,P_\eta-P^\star\rangle
    \le\Delta e^{-\eta\Delta+1+\log n}$: so close to $n$ entries is $P_\eta$, the off-diagonal block
    of the Hessian over $-\eta$."""
    etas, gap, (distance, excess, *errors) = vertices(n, kind, repeated, times, seed)
    bound = np.array([plan_distance_bound(n, gap=gap, eps=1 / eta) for eta in etas])
    share, source = np.exp(1 + np.log(n) - etas * gap), "marginal error"
    return {
        "plan": compare(within(distance, errors[0], source), "<=", theory("distance", bound)),
        "cost": compare(
            within(excess / gap, errors[1] / gap, source), "<=", theory("excess", share)
        ),
    }


@panel(
    vertex_gap_bound_on_plan,
    "The bound by the vertex gap holds, and is loose in the exponent",
    x=r"$\eta\Delta/(1+\log n)$",
    y=r"$\|P_\eta-P^\star\|_1$",
    log="y",
)
def _(pen, runs):
    for k, n in enumerate((2, 5)):
        pen.theory(*runs.predicted("times", where={"n": n}), f"bound, $n={n}$", k=k + 1)
        pen.points(*runs.measured("times", where={"n": n}), f"$n={n}$", k=k + 1)
    pen.broken(*runs.measured("times", control="two optimal assignments"), "two optimal")


def contraction(step, each, best, scale, rng):
    """Factor a step by which a small deviation from the optimum shrinks, and its error; it is
    brought back to its size after ``each`` steps."""
    n, size, factors = len(best.x), 1e-5 * scale, []
    optimum = np.append(best.x, best.y)
    flat = np.where(np.arange(len(optimum)) < n, 1, -1) / np.sqrt(len(optimum))
    off = rng.standard_normal(len(optimum))
    for _ in range(200):
        off -= (flat @ off) * flat
        start = optimum + size * off / np.linalg.norm(off)
        end = step(start[:n], start[n:], steps=each)
        off = np.append(end.x, end.y) - optimum
        off -= (flat @ off) * flat
        factors.append((np.linalg.norm(off) / size) ** (1 / each))
    # A power iteration with a share of at least e^-10 in the leading direction, whatever its gap.
    return factors[-1], abs(factors[-1] - factors[99]) + 10 / (200 * each)


@simulation
def phases(n, m, eta, uniform, kept, cut, seed):
    """Factors at the optimum, as computed and as met by scaling and by cut Newton steps; error and
    decrement of a full step near it; from 30 scalings on, the errors of cut Newton steps."""
    rng = np.random.default_rng(seed)
    a, b = ((rng.dirichlet(np.full(k, 5.0)), np.full(k, 1 / k))[uniform] for k in (n, m))
    problem = a, b, rng.uniform(size=(n, m)), 1 / eta
    eps, longer = 1 / eta, max(n, m)
    warm = scaling_ascent(np.zeros(n), np.zeros(m), *problem, steps=30)
    best = newton_ascent(warm.x, warm.y, *problem, steps=60)

    def scale(x, y, steps):
        return scaling_ascent(x, y, *problem, steps=steps)

    def ascend(x, y, steps):
        return newton_ascent(x, y, *problem, steps=steps, kept=kept * longer)

    scaled, newton = (contraction(*f, best, eps, rng) for f in ((scale, 10), (ascend, 4)))
    x, y = (z + 0.02 * eps * rng.standard_normal(z.size) for z in (best.x, best.y))
    full = newton_ascent(x, y, *problem, steps=1, kept=None if cut is None else cut * longer)
    one = full.errors[1], full.decrements[0], full.sizes[0]
    phase = newton_ascent(warm.x, warm.y, *problem, steps=60, kept=5 * longer)
    return ascent_factors(best.plan, kept=kept * longer), scaled, newton, one, phase.errors


@potential.ours("derived: the local factors behind what the abstract observes", serves="d")
@cases(n=20, m=24, eta=40.0, uniform=False)
@cases(n=20, m=20, eta=60.0)
@full(n=24, m=30, eta=[30.0, 90.0], uniform=False)
@full(n=30, m=30, eta=[30.0, 60.0, 90.0, 120.0])
@space(
    n=Int(18, 26),
    m=Int(18, 26),
    eta=Real(30.0, 60.0),
    uniform=Choice((True, False)),
    kept=Int(2, 3),
)
@breaks("small eta: a dense plan", eta=2.0)
@breaks("the Hessian cut in the full step", cut=2)
def newton_phase_iterations(n, m, eta, seed, uniform=True, kept=2, cut=None):
    r"""near the maximum of $f$ an iteration of scaling shrinks the deviation by $\sigma_2^2$, the
    second singular value of $\operatorname{diag}(a)^{-1/2}P\operatorname{diag}(b)^{-1/2}$ squared;
    a Newton step with $H$ cut to the $k\max(n,m)$ largest entries of $P$, to $\hat H$, by the
    spectral radius of $I-\hat H^{-1}H$ off $(1,-1)$; a full step $d$ leaves the marginal error
    $\lambda^2(1+O(\eta\|d\|_\infty))$, $\lambda^2=\eta\langle\nabla f,d\rangle$. For random costs
    in $[0,1]$ and uniform or random weights: from 30 iterations of scaling on Newton with
    $5\max(n,m)$ entries takes at most a fifth of the steps to $10^{-10}$ that $\sigma_2^2$ an
    iteration would."""
    found = phases(n, m, eta, uniform, kept, cut, seed)
    factors, scaled, newton, (left, decrement, size), errors = found
    scaling = theory("sigma_2^2", factors.scaling)
    needed = np.log(errors[0] / 1e-10) / -np.log(factors.scaling)
    steps = int(np.argmax(errors < 1e-10)) if errors.min() < 1e-10 else len(errors)
    # 2 (e^s - 1 - s) / s^2 differs from 1 by at most |s| e^|s| / 3.
    remainder = size * np.exp(size) / 3
    return {
        "steps": compare(steps, "<=", theory("iterations of scaling", needed) / 5),
        "scaling": compare(within(*scaled, "power iteration"), "==", scaling),
        "cut": compare(within(*newton, "power iteration"), "==", theory("radius", factors.newton)),
        "full": compare(
            within(left, left * remainder / (1 - remainder), "exponential series"),
            "==",
            theory("decrement", decrement),
        ),
    }


@panel(
    newton_phase_iterations,
    "A cut Newton step shrinks the error where scaling hardly does",
    x=r"$\eta$",
    y="factor a step, near the optimum",
)
def _(pen, runs):
    for k, (part, label) in enumerate((("scaling", "scaling"), ("cut", "Newton, $2n$ entries")), 1):
        pen.theory(*runs.predicted("eta", part, where={"n": 30}), k=k)
        pen.points(*runs.measured("eta", part, where={"n": 30}), label, k=k)


@panel(
    newton_phase_iterations,
    r"Newton takes a few steps to $10^{-10}$, scaling a hundred to a million",
    x=r"$\eta$",
    y="steps or iterations",
    log="y",
)
def _(pen, runs):
    eta, fifth = runs.predicted("eta", "steps", where={"n": 30})
    pen.theory(eta, 5 * fifth, "scaling", k=1)
    pen.points(*runs.measured("eta", "steps", where={"n": 30}), "Newton, $5n$ entries", k=2)


if __name__ == "__main__":
    run_script(__file__)
