"""Diagonal linear networks: what gradient penalties and large steps do to their scales."""

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
    mean,
    panel,
    paper,
    simulation,
    slope,
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

PENALTY, STEPS = "karakida2022-understanding", "andriushchenko2022-with"
flow = paper(
    PENALTY,
    r"Diagonal network $\beta=u\odot u-v\odot v$, $L=\frac1{2n}\|X\beta-y\|^2$, "
    r"$g=\nabla_\beta L$, "
    r"flow of $L+\frac\gamma2\|\nabla L\|^2$ from $u=v=\alpha\mathbf1$, where its loss tends to 0:",
)
ascent_flow = paper(
    PENALTY,
    r"Diagonal network $\beta=u\odot u-v\odot v$, $L=\frac1{2n}\|X\beta-y\|^2$, "
    r"$g=\nabla_\beta L$, "
    r"flow $\dot\theta=-\nabla L-\gamma\frac{\nabla L(\theta+\varepsilon\nabla L)-\nabla L}"
    r"\varepsilon$ from $u=v=\alpha\mathbf1$, where its loss tends to 0, $g'$ the $g$ of "
    r"$\theta+\varepsilon\nabla L$:",
)
smooth = paper(
    PENALTY,
    r"For smooth $L$, such as the squared error of $X(u^{\odot D}-v^{\odot D})$, and "
    r"$\Delta_\varepsilon=\frac1\varepsilon(\nabla L(\theta+\varepsilon\nabla L(\theta))"
    r"-\nabla L(\theta))$, the finite difference of $\nabla\frac12\|\nabla L\|^2$:",
)
well = paper(STEPS, r"Gradient descent on $\frac14(\theta^2-1)^2$ with step $\gamma$:")
descent = paper(
    STEPS,
    r"Diagonal network $\beta=u\odot u-v\odot v$ from $u=v=\alpha\mathbf1$, any stochastic "
    r"gradient steps of sizes $\eta_t$, $g_t$ the stochastic gradient in $\beta$:",
)
sparse = paper(
    STEPS,
    r"Diagonal network $\beta=u\odot u-v\odot v$ from $u=v=\alpha\mathbf1$, one sample a step, "
    r"$y=X\beta^*$, $X\in\mathbb R^{n\times d}$ with entries $N(0,1)$, $n<d$, $\beta^*$ with "
    r"$k\ll n$ entries of one size and $\|\beta^*\|^2=3$:",
)


def data(n, d, size, seed):
    rng = np.random.default_rng([seed, n, d])
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    return X, size * (y + 0.5 * np.sign(y))


def reach(X, y, run):
    """How far beta is, to first order, from the interpolator with the scales of its end."""
    bend = np.sqrt(run.predictor**2 + 4 * (run.u * run.v) ** 2)
    towards = bend[:, None] * X.T @ np.linalg.inv((X * bend) @ X.T)
    return np.abs(towards) @ np.abs(X @ run.predictor - y)


@simulation
def flow_ends(n, d, alpha, gamma, ascent, tilt, size, seed):
    """beta, log(u v / alpha^2) and the integral of g g' at the end of a flow, with the differences
    to one of a hundredth of the accuracy, and for beta twice what is left to go; NaN where the data
    were not fitted, or a product is lost in rounding."""
    X, y = data(n, d, size, seed)
    options = {"scale": alpha, "gradient_penalty": gamma, "ascent": ascent, "tilt": tilt}
    found, left = [], []
    for rtol in (1e-9, 1e-7):
        run = ir.diagonal_network_flow(X, y, rtol=rtol, tol=100 * rtol, **options)
        products = run.u * run.v / alpha**2
        if run.status is not ir.DiagonalStatus.FITTED or not products.min() > 0:
            return np.full((2, 3, d), np.nan)
        found.append([run.predictor, np.log(products), run.dissipation])
        left.append(2 * reach(X, y, run))
    fine, coarse = np.array(found)
    rest = np.array([left[0], np.zeros(d), np.zeros(d)])
    return np.array([fine, np.abs(fine - coarse) + rest + 1e-8])


HALVED = "difference to a flow of a hundredth of the accuracy, and what is left to go"


def scales_and_limit(n, d, alpha, gamma, ascent, tilt, size, seed):
    """Parts: the products u v, and the limit as the minimiser of the potential with their roots."""
    (beta, logs, spread), (off, off_logs, _) = flow_ends(
        n, d, alpha, gamma, ascent, tilt, size, seed
    )
    rate = theory("rate", 8.0)
    scale = theory("scale", alpha * np.exp(-rate / 2 * gamma * spread))
    limit = np.full(d, np.nan)
    if np.isfinite(scale).all():
        limit = ir.mirror_interpolator(*data(n, d, size, seed), scale=scale).predictor
    return {
        "limit": compare(within(beta, off, HALVED), "==", limit),
        "products": compare(within(logs, off_logs, HALVED), "==", -rate * gamma * spread),
    }


@flow.ours("derived: the coordinates of the effective scale", serves="b")
@cases(n=3, d=8, alpha=0.3, gamma=[0.05, 0.3])
@full(n=6, d=20, alpha=[0.1, 0.3, 1.0], gamma=[0.05, 0.2])
@space(
    n=Int(1, 3),
    d=Int("n + 3", 9),
    alpha=Real(0.25, 1.0, log=True),
    gamma=Real(0.05, 0.3),
    size=Real(0.5, 2.0, log=True),
)
@breaks("uneven start, u = 1.5 v", tilt=np.log(1.5))
def gr_flow_effective_initialisation(n, d, alpha, gamma, seed, size=1.0, tilt=0.0):
    r"""$u_jv_j\to\alpha_j^2=\alpha^2\exp(-8\gamma\int_0^\infty g_j^2dt)$, and $\beta$ tends to the
    interpolator $\beta_j=2\alpha_j^2\sinh((X^\top\nu)_j)$, $X\beta=y$, which minimises the
    hyperbolic entropy with these scales."""
    return scales_and_limit(n, d, alpha, gamma, 0.0, tilt, size, seed)


@panel(
    gr_flow_effective_initialisation,
    "Trained predictors minimise a potential with shrunken scales",
    x=r"predicted $\beta_j$",
    y=r"trained $\beta_j$",
)
def _(pen, runs):
    ends = np.array([-1.0, 1.0])
    pen.theory(ends, ends, k=6)
    chosen = {r.instance["gamma"]: r.parts["limit"] for r in runs.judgement.runs}
    for k, (gamma, part) in enumerate(chosen.items()):
        pen.points(part.predicted, part.shown, part.error, rf"$\gamma={gamma:g}$", k=k)
    (tilted,) = [c.run.parts["limit"] for c in runs.judgement.controls]
    pen.broken(tilted.predicted, tilted.shown, label="$u=1.5v$")


@simulation
def mean_shifts(n, d, alpha, gamma, ascent, size, seed):
    """Change of the sum of log sqrt(u v) between descent and ascent, over 2 gamma ascent, for gamma
    and its half, and the rounding of the quotients: late gradients, squared, add nothing."""
    X, y = data(n, d, size, seed)
    found = []
    for weight in (gamma, gamma / 2):
        sums = []
        for e in (-ascent, ascent):
            run = ir.diagonal_network_flow(
                X, y, scale=alpha, gradient_penalty=weight, ascent=e, rtol=1e-9, tol=1e-5
            )
            fitted = run.status is ir.DiagonalStatus.FITTED
            sums.append(np.log(run.u * run.v).sum() / 2 if fitted else np.nan)
        found.append((sums[1] - sums[0]) / (2 * weight * ascent))
    return np.array(found), 2e-8 * d / (gamma * ascent)


@ascent_flow.ours("derived: exact products, and the first order of their mean", serves="c")
@cases(n=3, d=7, alpha=0.3, gamma=0.2, ascent=[0.05, -0.05])
@full(n=4, d=12, alpha=[0.2, 0.5], gamma=0.2, ascent=[0.02, 0.05, -0.05])
@space(
    n=Int(1, 3),
    d=Int("n + 3", 7),
    alpha=Real(0.3, 1.0, log=True),
    gamma=Real(0.05, 0.3),
    ascent=Real(-0.1, 0.1),
    size=Real(0.5, 1.5),
)
@breaks("uneven start, u = 1.5 v", tilt=np.log(1.5))
def ascent_finite_difference_strengthens(
    n, d, alpha, gamma, ascent, seed, size=1.0, tilt=0.0, small=0.01
):
    r"""$u_jv_j\to\alpha_j^2=\alpha^2\exp(-8\gamma\int_0^\infty g_jg_j'dt)$, $\beta$ minimises the
    hyperbolic entropy with scales $\alpha_j$ over $X\beta=y$, and $\sum_j\log\alpha_j$ changes, to
    first order in $\gamma$ and $\varepsilon$, by $-2\gamma\varepsilon\|\frac1nX^\top y\|^2$ against
    exact regularisation: in the mean over coordinates small ascent ($\varepsilon>0$) lowers
    $\log\alpha_j$ further, descent less."""
    parts = scales_and_limit(n, d, alpha, gamma, ascent, tilt, size, seed)
    X, y = data(n, d, size, seed)
    push = np.sum((X.T @ y / n) ** 2)
    unit = small / np.sqrt(push)
    (one, half), rounding = mean_shifts(n, d, alpha, unit, unit, size, seed)
    first = within(2 * half - one, abs(half - one) + rounding, r"extrapolated to no penalty")
    return {**parts, "mean": compare(first, "==", -theory("push", 2 * push))}


@simulation
def two_weights(h, alpha, gamma, uniform):
    """l1 norm, u v / alpha^2 and the quotient of their logarithms at the end of a flow on one
    sample (1, h), and the differences to a less accurate one; ``uniform``: without penalty, from
    the geometric mean of the scales."""
    found = []
    for loose in (1.0, 100.0):
        options = {"rtol": 1e-11 * loose, "tol": 1e-10 * loose}
        run = ir.diagonal_network_flow(
            [[1.0, h]], [1.0], scale=alpha, gradient_penalty=gamma, **options
        )
        if uniform:
            scale = np.prod(run.u * run.v) ** 0.25
            run = ir.diagonal_network_flow([[1.0, h]], [1.0], scale=scale, **options)
        shrunk = run.u * run.v / alpha**2
        logs = np.log(shrunk)
        fitted = run.status is ir.DiagonalStatus.FITTED
        ends = [np.abs(run.predictor).sum(), *shrunk, logs[1] / logs[0]]
        found.append(ends if fitted else np.full(4, np.nan))
    fine, coarse = np.array(found)
    return fine, np.abs(fine - coarse) + 1e-9


@flow.ours("proved: a smaller effective scale need not make the limit sparser", serves="b")
@cases(h=0.5, alpha=0.1, gamma=[0.05, 0.2])
@full(h=[0.2, 0.5, 0.8], alpha=0.1, gamma=[0.05, 0.1, 0.2])
@space(h=Real(0.1, 0.9), alpha=Real(0.05, 0.6, log=True), gamma=Real(0.03, 0.4))
@breaks("all scales shrink equally", uniform=True)
def gr_not_sparser_counterexample(h, alpha, gamma, uniform=False):
    r"""for $n=1$, $x=(1,h)$, $0<h<1$, $y=1$ every such $\gamma>0$ shrinks both scales $u_jv_j$ and
    raises $\|\beta\|_1$ above that of $\gamma=0$: of the logarithms of
    $u_jv_j/\alpha^2$ the second is only $h^2$ times the first."""
    (norm, *shrunk, quotient), (off, *errors, off_quotient) = two_weights(h, alpha, gamma, uniform)
    plain = ir.mirror_interpolator([[1.0, h]], [1.0], scale=alpha).predictor
    return {
        "norm": compare(within(norm, off, HALVED), ">", theory("norm", np.abs(plain).sum())),
        "scales": compare(within(shrunk, errors, HALVED), "<", theory("scale", np.ones(2))),
        "logarithms": compare(within(quotient, off_quotient, HALVED), "==", theory("h", h**2)),
    }


@panel(
    gr_not_sparser_counterexample,
    r"Smaller scales, larger norm: $x=(1,h)$, $\alpha=0.1$",
    x=r"penalty $\gamma$",
    y=r"$\|\beta\|_1$",
)
def _(pen, runs):
    for k, h in enumerate(sorted({r.instance["h"] for r in runs.judgement.runs})):
        x, norms, errors = runs.measured("gamma", "norm", where={"h": h})
        _, plain = runs.predicted("gamma", "norm", where={"h": h})
        pen.theory(np.append(0, x), np.append(plain[0], plain), k=k)
        pen.points(x, norms, errors, f"$h={h:g}$", k=k)
    pen.broken(*runs.measured("gamma", "norm", control="all scales shrink equally"), "equally")


def power_gradient(z, X, y, depth):
    """Gradient of |X (u^depth - v^depth) - y|^2 / (2 n) in z = (u, v), for numbers of any kind."""
    u, v = z
    g = X.T @ (X @ (u**depth - v**depth) - y) / len(y)
    return np.array([depth * u ** (depth - 1) * g, -depth * v ** (depth - 1) * g])


def power_loss(z, X, y, depth):
    r = X @ (z[0] ** depth - z[1] ** depth) - y
    return r @ r / (2 * len(y))


def curvature_product(z, X, y, depth):
    """Hessian of the same loss times its gradient."""
    g = X.T @ (X @ (z[0] ** depth - z[1] ** depth) - y) / len(y)
    G, signs = power_gradient(z, X, y, depth), np.array([[1], [-1]])
    first, second = depth * z ** (depth - 1), depth * (depth - 1) * z ** (depth - 2)
    w = X.T @ (X @ np.sum(signs * first * G, axis=0)) / len(y)
    return signs * (first * w + second * g * G)


def rational(rng, shape, low, high):
    """Random eighths, none of them 0."""
    values = rng.integers(low, high + 1, size=shape)
    return np.vectorize(lambda k: Fraction(int(2 * k + 1), 16), otypes=[object])(values)


def rational_problem(n, d, seed):
    rng = np.random.default_rng([seed, n, d])
    return rational(rng, (2, d), 1, 7), rational(rng, (n, d), -8, 7), rational(rng, n, -8, 7)


@simulation
def flooded(n, d, depth, step, share, seed):
    """Start, the state after two flooding steps, and the finite difference at the start."""
    z, X, y = rational_problem(n, d, seed)
    first = power_loss(z, X, y, depth)
    up = power_loss(z + step * power_gradient(z, X, y, depth), X, y, depth)
    level, state = first + share * (up - first), z
    for _ in range(2):
        side = 1 if power_loss(state, X, y, depth) > level else -1
        state = state - side * step * power_gradient(state, X, y, depth)
    return z, state


def finite_difference(z, X, y, depth, eps):
    G = power_gradient(z, X, y, depth)
    return (power_gradient(z + eps * G, X, y, depth) - G) / eps


@smooth.ours("derived: two flooding steps, and the order of the difference", serves="d")
@cases(n=2, d=3, depth=[2, 3], step=Fraction(1, 50))
@full(n=3, d=4, depth=[2, 3, 4], step=[Fraction(1, 50), Fraction(1, 20)])
@space(
    n=Int(1, 3),
    d=Int(1, 4),
    depth=Int(2, 4),
    step=Choice((Fraction(1, 100), Fraction(1, 30), Fraction(1, 20))),
    share=Choice((Fraction(1, 2), Fraction(1, 100), Fraction(99, 100))),
)
@breaks("both steps below the level", share=Fraction(3, 2))
@breaks("the level below the start: descent first", share=Fraction(-1, 100))
def flooding_and_sam_are_finite_difference_gr(n, d, depth, step, seed, share=Fraction(1, 2)):
    r"""two flooding steps $\theta\mapsto\theta-\eta\,\mathrm{sgn}(L-b)\nabla L$, the first from
    below the level $b$ and the second from above it, subtract exactly $\eta^2\Delta_\eta(\theta)$;
    and what the step $-\eta\nabla L(\theta+\varepsilon\nabla L)$ of unnormalised
    sharpness-aware minimisation adds to $-\eta\nabla L$ is, over $-\eta\varepsilon$, the gradient
    of $\frac12\|\nabla L\|^2$ up to an error of order $\varepsilon$."""
    z, X, y = rational_problem(n, d, seed)
    start, end = flooded(n, d, depth, step, share, seed)
    moved = finite_difference(z, X, y, depth, step)
    exact = (start - theory("weight", step**2) * moved).ravel().tolist()
    scales = [Fraction(1, 1 << k) for k in range(30, 18, -1)]
    limit = curvature_product(z, X, y, depth).ravel()
    sam = [finite_difference(z, X, y, depth, e).ravel() for e in scales]
    off = [np.linalg.norm((s - limit).astype(float)) for s in sam]
    limit, first, second = limit.astype(float), sam[0].astype(float), sam[1].astype(float)
    error = 2 * np.abs(first - second) + 1e-12 * np.abs(limit).max()
    return {
        "flooding": compare(tuple(end.ravel().tolist()), "==", tuple(exact)),
        "SAM": compare(
            within(first, error, "difference to twice the radius"), "==", theory("penalty", limit)
        ),
        "order": compare(slope([float(e) for e in scales], off), "==", theory("order", 1.0)),
    }


@simulation
def well_levels(gamma, start):
    """Squares of the last two iterates, smaller first, and their change over 200 steps; derivative
    of two steps at the last iterate, and its error."""
    bound = np.sqrt((gamma + 2) / gamma)
    path = ir.double_well_descent(start * bound, step_size=gamma, steps=3000) ** 2
    last, before = np.sort(path[-2:]), np.sort(path[-202:-200])
    slopes = []
    for h in (1e-4, 2e-4):
        ends = np.sqrt(path[-1]) + np.array([-h, h])
        after = ir.double_well_descent(ends, step_size=gamma, steps=2)[-1]
        slopes.append((after[1] - after[0]) / (2 * h))
    return last, np.abs(last - before), slopes[0], abs(slopes[0] - slopes[1])


@simulation
def well_states(gamma, start):
    """Whether descent stays, and by how much late iterates differ over one and two steps."""
    bound = np.sqrt((gamma + 2) / gamma)
    try:
        path = ir.double_well_descent(start * bound, step_size=gamma, steps=20_000)
    except ValueError:
        return False, 1.0, 1.0
    late = path[-4:]
    one, two = np.abs(np.diff(late)).max(), np.abs(late[2:] - late[:2]).max()
    return bool(np.abs(path).max() <= bound), one, two


@well.ours("derived: the cycle, its multiplier and its range", serves="a")
@cases(gamma=[1.1, 1.2], start=0.4)
@full(gamma=[1.02, 1.05, 1.1, 1.15, 1.2, 1.22], start=[-0.7, 0.4])
@space(gamma=Real(1.02, 1.22), start=Real(0.02, 0.97), side=Choice((1, -1)))
@breaks("beyond the range", gamma=1.3)
@breaks("an exceptional start: the saddle", start=0.0)
def loss_stabilisation_period_two(gamma, start, side=1):
    r"""from almost every $\theta_0^2<\frac{\gamma+2}\gamma$, for $1<\gamma<\sqrt5-1$, $\theta^2$
    tends to alternate between $\frac{\gamma+1\pm\sqrt{(\gamma-1)(\gamma+3)}}{2\gamma}$, and the
    loss between two positive levels; the multiplier of this cycle is $9-2(1+\gamma)^2$. From
    almost every start descent converges for $\gamma<1$, has lost period two just above
    $\sqrt5-1$, and leaves the interval for $\gamma>2$."""
    levels, change, found, off = well_levels(gamma, side * start)
    points, multiplier = ir.double_well_cycle(step_size=gamma)
    at = side * start
    onset = switch(lambda c: well_states(c, at)[1] > 0.01, bracket=(0.85, 1.12), tol=2e-3)
    loss = switch(lambda c: well_states(c, at)[2] > 0.003, bracket=(1.15, 1.3), tol=2e-3)
    exit = switch(lambda c: not well_states(c, at)[0], bracket=(1.87, 2.1), tol=2e-3)
    return {
        "levels": compare(
            within(levels, change + 1e-10, "change over 200 steps"),
            "==",
            theory("levels", points**2),
        ),
        "multiplier": compare(
            within(found, off + 1e-7, "difference quotients"),
            "==",
            theory("multiplier", multiplier),
        ),
        "onset": compare(onset, "==", theory("onset", 1.0)),
        "loss of period two": compare(loss, "==", theory("loss", np.sqrt(5) - 1)),
        "exit": compare(exit, "==", theory("exit", 2.0)),
    }


@panel(
    loss_stabilisation_period_two,
    "Descent in a double well settles on two levels",
    x=r"step $\gamma$",
    y=r"$\theta^2$",
)
def _(pen, runs):
    gamma = np.linspace(1, 1.25, 100)
    levels = np.array([ir.double_well_cycle(step_size=c)[0] ** 2 for c in gamma])
    for i, name in enumerate(("lower", "upper")):
        pen.theory(gamma, levels[:, i], k=i)
        pen.points(*runs.measured("gamma", "levels", i, where={"start": 0.4}), name, k=i)
    late = runs.measured("gamma", "levels", 0, control="beyond the range")
    pen.broken(*late, r"$\gamma>\sqrt{5}-1$")


@simulation
def rational_descent(n, d, steps, step, momentum, seed):
    """u v after exact steps on random samples, and the squares (eta g)^2 of each step."""
    rng = np.random.default_rng([seed, n, d, steps])
    alpha, X, y = Fraction(1, 4), rational(rng, (n, d), -8, 7) / 2, rational(rng, n, -8, 7)
    u, v = np.full((2, d), alpha, object)
    speed, squares = np.zeros((2, d), object), []
    for _ in range(steps):
        i, eta = rng.integers(n), step * Fraction(int(rng.integers(1, 5)), 4)
        g = X[i] * (X[i] @ (u * u - v * v) - y[i])
        speed = momentum * speed + np.array([2 * u * g, -2 * v * g])
        u, v = u - eta * speed[0], v - eta * speed[1]
        squares.append((eta * g) ** 2)
    return u * v / alpha**2, np.array(squares, object)


@descent.ours("derived: the discrete form of the abstract's effective dynamics", serves="b")
@cases(n=2, d=3, steps=[3, 5], step=Fraction(1, 5))
@full(n=3, d=4, steps=[2, 4, 6], step=[Fraction(1, 20), Fraction(1, 5)])
@space(
    n=Int(1, 4),
    d=Int(1, 4),
    steps=Int(1, 5),
    step=Choice((Fraction(1, 5), Fraction(1, 20), Fraction(1, 1000))),
)
@breaks("momentum", momentum=Fraction(1, 2))
def dln_discrete_invariant(n, d, steps, step, seed, momentum=Fraction(0)):
    r"""$u_jv_j=\alpha^2\prod_t(1-4\eta_t^2g_{t,j}^2)$, exactly; and
    $\log\frac{u_jv_j}{\alpha^2}\le-4\sum_t\eta_t^2g_{t,j}^2$ as long as $2\eta_t|g_{t,j}|<1$:
    larger and noisier steps shrink the scales that the flow of small ones keeps."""
    products, squares = rational_descent(n, d, steps, step, momentum, seed)
    four = theory("four", 4)
    exact = np.prod(1 - four * squares, axis=0)
    logs = np.log(products.astype(float))
    first = -four * np.sum(squares, axis=0).astype(float)
    return {
        "product": compare(tuple(products.tolist()), "==", tuple(exact.tolist())),
        "bound": compare(within(logs, 1e-14, "rounding"), "<=", first.astype(float)),
    }


@simulation
def sparse_runs(n, d, k, alpha, large, reps, seed):
    """Distance to the truth and l1 norm after phases of large steps and a common end of small ones,
    shape (reps, phases, 2); NaN where that end has not fitted the data."""
    small = large / 10
    phases = [(small, 300), (large / 3, 300), (large, 300), (large, 30)]
    found = np.empty((reps, len(phases), 2))
    for r in range(reps):
        at = [seed * 1000 + r, seed * 1000 + r + 500]
        problem = ir.sparse_regression(n, d, sparsity=k, signal_norm=np.sqrt(3), seed=at[0])
        X, y, truth = problem.X, problem.y, problem.signal
        for i, (step, steps) in enumerate(phases):
            run = ir.diagonal_network_sgd(
                X, y, start=alpha, step_size=step, steps=steps, seed=at[0]
            )
            run = ir.diagonal_network_sgd(
                X, y, start=[run.u, run.v], step_size=small, steps=10_000, seed=at[1]
            )
            beta, fitted = run.predictor, run.loss < 3e-3  # of 3 / 2 at the start
            found[r, i] = np.linalg.norm(beta - truth), np.abs(beta).sum()
            found[r, i, :] = found[r, i] if fitted else np.nan
    return found


@sparse.ours("derived: the abstract's message on its simple model, as orderings", serves="bc")
@cases(n=30, d=60, k=3, alpha=0.1, large=0.04, reps=80)
@full(n=40, d=100, k=4, alpha=[0.05, 0.1], large=0.03, reps=40)
@space(
    n=Int(26, 32),
    d=Int("2 * n", "2 * n + 12"),
    k=Int(2, 3),
    alpha=Real(0.06, 0.12),
    large=Real(0.03, 0.04),
)
@breaks("a dense truth, k = d", lambda case: {"k": case["d"], "reps": 80})
def larger_step_sparser_dln(n, d, k, alpha, seed, large=0.04, reps=24):
    r"""observed: after 300 steps of size $\eta/10$, $\eta/3$ or $\eta$, and then $10^4$ of size
    $\eta/10$, the mean over problems of $\|\beta-\beta^*\|$ divided by that of the next smaller
    first steps is below 1; so is that of $\|\beta\|_1$ for $\eta$ divided by that for $\eta/10$,
    and that of $\|\beta-\beta^*\|$ after 300 steps of size $\eta$ divided by that after 30."""
    found = sparse_runs(n, d, k, alpha, large, reps, seed)
    distance, norm = found[..., 0], found[..., 1]
    return {
        "distance": compare(
            mean(distance[:, [1, 2]] / distance[:, [0, 1]]), "<", theory("distance", np.ones(2))
        ),
        "norm": compare(mean(norm[:, 2] / norm[:, 0]), "<", theory("norm", 1.0)),
        "longer": compare(mean(distance[:, 2] / distance[:, 3]), "<", theory("longer", 1.0)),
    }


@panel(
    larger_step_sparser_dln,
    r"Larger and longer steps end closer to a sparse truth",
    x=r"scale of the start $\alpha$",
    y="mean quotient of distances",
)
def _(pen, runs):
    pen.theory([0.04, 0.11], [1.0, 1.0], k=6)
    for i, name in enumerate((r"$\eta/3$ to $\eta/10$", r"$\eta$ to $\eta/3$")):
        pen.points(*runs.measured("alpha", "distance", i), name, k=i)
    pen.points(*runs.measured("alpha", "longer"), "300 to 30 steps", k=2)


if __name__ == "__main__":
    run_script(__file__)
