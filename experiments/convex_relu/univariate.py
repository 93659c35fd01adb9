"""Networks of one input: splines, their knots, and what temperature does to them."""

import itertools

import numpy as np
from scipy.optimize import linprog, minimize

from theorylab import convex_relu as cr
from theorylab.verify import (
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
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

# One interior knot and knots at both ends of a gap; two interior knots in a gap; a data set whose
# certificate is attained off the data only.
THREE = {
    "start": -1.26872822,
    "steps": (2.60732449, 0.45115962),
    "y": (-1.35524349, 0.84494977, 0.11141181),
}
TWO = {
    "start": -1.91925,
    "steps": (0.36668, 2.6293, 0.69103),
    "y": (-1.24181, 1.55341, 1.0899, -0.85993),
}

cold = paper(
    "shevchenko2021-mean",
    r"Data $x_1<\dots<x_n$, networks $f(t)=\sum_ja_j(w_jt+b_j)_+$ of any width, squared loss "
    r"$\frac12\|f(x)-y\|^2$ with penalty $\frac\beta2\sum_j(a_j^2+w_j^2+b_j^2)$ (the limit of zero "
    r"temperature):",
)
warm = paper(
    "shevchenko2021-mean",
    r"Units $(a,w,b)$ with law $\rho$, $f(t)=\mathbb E_\rho a(wt+b)_+$, and the minimizer of "
    r"$\frac12\|f(x)-y\|^2+\frac\beta2\mathbb E_\rho(a^2+w^2+b^2)+\tau\int\rho\log\rho$:",
)
free = paper("parhi2023-deep")


def inputs(start, steps):
    return start + np.concatenate([[0.0], np.cumsum(steps)])


# ---------------------------------------------------------------------------------- knots
@simulation
def knot_counts(x, y, beta, temperature):
    """Knots inside every gap, and in its closure; at a temperature, places where the slope
    changes."""
    if not temperature:
        fit = cr.fit_penalized_biases(x, y, beta)
        return cr.certificate_knots(x, fit.residual, beta).per_gap(x)
    fit = cr.mean_field_fit(x, y, beta, temperature=temperature)
    grid = np.linspace(x[:-1], x[1:], 50, axis=1)[:, 1:-1]
    bent = (np.abs(fit.curvature(grid.ravel())).reshape(grid.shape) > 1e-6).sum(axis=1)
    return bent, bent


@cold.ours("sharpens the abstract's three knots between neighbours", serves="a")
@cases(**THREE, beta=0.0172609)
@cases(**TWO, beta=0.228473)
@full(**THREE, beta=np.geomspace(2e-3, 0.5, 30).tolist())
@full(**TWO, beta=[*np.geomspace(2e-2, 1.0, 30).tolist(), 0.228473])
@full(**THREE, beta=0.0172609)
@space(
    n=Int(2, 7),
    start=Real(-2, 0),
    steps=Real(0.05, 1.5, size="n - 1", capacity=6),
    y=Real(-1.5, 1.5, size="n", capacity=7),
    beta=Real(0.01, 0.5, log=True),
)
@breaks("positive temperature", temperature=1e-3)
def at_most_three_knots(start, steps, y, beta, n=None, temperature=0.0):
    r"""Over all global minimizers together, a gap $[x_i,x_{i+1}]$ holds at most three knots, at
    most two of them inside, and none at its ends if there are two inside (the knots inside and
    those in the closed gap add up to at most four)."""
    opened, closed = knot_counts(inputs(start, steps), np.array(y), beta, temperature)
    source = "places where the certificate comes within 1e-9 of its bound"
    inside, all_, sums = (within(k.max(), 0.0, source) for k in (opened, closed, opened + closed))
    return {
        "closed gap": compare(all_, "<=", theory("knots", 3)),
        "inside": compare(inside, "<=", theory("inside", 2)),
        "both": compare(sums, "<=", theory("together", 4)),
    }


@panel(
    at_most_three_knots,
    "At most three knots between neighbouring inputs",
    x=r"penalty $\beta$",
    y="most knots in a closed gap",
    log="x",
)
def _(pen, runs):
    pen.theory([2e-3, 1], [3, 3], "bound", k=2)
    for k, (data, label) in enumerate(((THREE, "three inputs"), (TWO, "four inputs"))):
        pen.points(*runs.measured("beta", where={"y": data["y"]}), label, k=k)


@cold.ours("the abstract's knots off the data, in closed form", serves="e")
@cases(right=2.0, beyond=0.5, beta=[0.1, 1.0], level=1.0)
@full(right=2.0, beyond=0.5, beta=[0.1, 0.3, 1.0, 2.0], level=1.0)
@full(right=[0.5, 1.0, 3.0, 5.0], beyond=0.5, beta=0.3, level=1.0)
@space(
    right=Real(0.2, 5.0),
    beyond=Real(0.02, 3.0),
    beta=Real(0.01, 5.0, log=True),
    level=Real("1.02 * beta / sqrt(1 + right**2)", 6.0),
)
@breaks("the unit reaches the left input", beyond=-0.3)
@breaks("left output large, of the same sign", left=1.0)
def a_knot_off_the_data(right, beyond, beta, level, left=0.0):
    r"""For $x_1<-1/x_2<0<x_2$, $y=(0,y_2)$, $y_2>\beta/\sqrt{1+x_2^2}$, the only minimizer has one
    knot, $-1/x_2$, strictly between the inputs, and $f(x_2)=y_2-\beta/\sqrt{1+x_2^2}$."""
    x, y = np.array([-1 / right - beyond, right]), np.array([left, level])
    # The residual, a difference from y, is known to eps |y|, which leaves a gap of some eps |y|^2,
    # and that is up to 1.4e-12 of the objective, at least beta y_2 / (2 (1 + x_2^2)^(1/2)).
    fit = cr.fit_penalized_biases(x, y, beta, tol=1e-11)
    knots = cr.certificate_knots(x, fit.residual, beta, tol=1e-7)
    # The loss is strongly convex in the predictions: half the squared distance is below the gap.
    error = np.sqrt(2 * max(fit.objective - fit.dual_objective, 0) + 2e-15 * y @ y)
    turn = error / np.linalg.norm(fit.residual)
    place = within(knots.position, 4 * turn * (1 + knots.position**2), "duality gap")
    length = np.sqrt(1 + right**2)
    return {
        "knot": compare(place, "==", theory("knot", -1 / right)),
        "output": compare(
            within(y - fit.residual, error, "duality gap"),
            "==",
            (0.0, level - theory("shrinkage", beta / length)),
        ),
    }


@panel(
    a_knot_off_the_data,
    "Two inputs, and the knot lies between them",
    x="right input $x_2$",
    y="knot",
)
def _(pen, runs):
    x = np.linspace(0.45, 5, 200)
    pen.theory(x, -1 / x, "$-1/x_2$")
    pen.points(*runs.measured("right", index=0, where={"beta": 0.3}), "knot")
    pen.theory(x, -1 / x - 0.5, "left input", k=1)


# ---------------------------------------------------------------------------------- temperature
X4, Y4 = np.array([-1.5, -0.3, 0.4, 1.3]), (0.5, -1.0, 0.2, -1.2)


@simulation
def equilibria(x, y, beta, temperature, n_units, n_sweeps, seed):
    """Mean predictions of thirty runs of noisy descent."""
    seeds = np.random.default_rng(seed).integers(2**31, size=30)
    options = {"n_particles": n_units, "n_sweeps": n_sweeps, "burn_in": n_sweeps // 2}
    runs = [
        cr.sample_particles(x, y, beta, temperature=temperature, **options, seed=int(s))
        for s in seeds
    ]
    return np.array(runs)


@warm.ours("derived from the Gibbs form of the abstract", serves="c")
@cases(y=Y4, beta=0.4, temperature=0.1, n_units=120, n_sweeps=500)
@full(y=Y4, beta=0.4, temperature=[0.05, 0.1, 0.2], n_units=200, n_sweeps=2000)
@space(
    start=Real(-1.5, -1.0),
    steps=Real(0.6, 1.2, size=3),
    y=Real(-1.2, 1.2, size=4),
    beta=Real(0.4, 1.0),
    temperature=Real(0.1, 0.5),
)
@breaks("noise of twice the variance", noise=2.0)
def finite_temperature_dual(
    y,
    beta,
    temperature,
    seed,
    start=-1.5,
    steps=(1.2, 0.7, 0.9),
    n_units=20,
    n_sweeps=800,
    noise=1.0,
):
    r"""It predicts $f(x_i)=y_i-z_i$ with $z$ the maximizer over $|h|<\beta$ of
    $z^\top y-\frac12\|z\|^2-\tau\log\int_0^{2\pi}\frac{d\varphi}{\beta-h^2/\beta}$,
    $h(\varphi)=\sum_iz_i(x_i\cos\varphi+\sin\varphi)_+$; noisy gradient descent on $N$ units has at
    equilibrium this mean prediction up to $O(1/N)$ (twice the leading term is allowed)."""
    x = inputs(start, steps)
    fit = cr.mean_field_fit(x, y, beta, temperature=temperature)
    runs = equilibria(x, np.array(y), beta, noise * temperature, n_units, n_sweeps, seed)
    prediction = theory("prediction", np.array(y) - fit.residual)
    size = np.linalg.norm(y) + 1e-300
    allowed = 2 * np.abs(fit.finite_size_shift()) / n_units
    return {
        "descent": compare(mean(runs, bias=allowed, source="1/N term"), "==", prediction),
        "Gibbs law": compare(within(fit(x), 1e-8 * size, "quadrature"), "==", prediction),
    }


@panel(
    finite_temperature_dual,
    "The dual on a circle predicts noisy descent",
    x=r"temperature $\tau$",
    y=r"mean prediction at $x_i$",
    log="x",
)
def _(pen, runs):
    tau = np.geomspace(0.045, 0.22, 25)
    y = np.array(Y4) - [cr.mean_field_fit(X4, Y4, 0.4, temperature=float(t)).residual for t in tau]
    for i in range(4):
        pen.theory(tau, y[:, i], f"$x={X4[i]:g}$", k=i)
        pen.points(*runs.measured("temperature", "descent", i), k=i)
        pen.broken(*runs.measured("temperature", control="noise of twice the variance", index=i))


FIVE = {
    "x": (-1.85, -1.41, 0.65, 1.04, 1.47),
    "y": (-0.86, 0.39, 0.73, 0.9, 0.04),
    "beta": 0.1,
}
FOUR = {"x": (-1.91925, -1.55257, 1.07673, 1.76776), "y": TWO["y"], "beta": 0.1}


@simulation
def cooled(x, y, beta, radius, knots, inverse):
    """Curvature away from the knots of zero temperature, at inverse temperatures."""
    frozen = cr.fit_penalized_biases(x, y, beta)
    excluded = cr.certificate_knots(x, frozen.residual, beta).position
    fits = [cr.mean_field_fit(x, y, beta, temperature=1 / t) for t in inverse]
    mass = [f.curvature_mass(excluded if knots else x, radius) for f in fits]
    return np.array(mass)


@warm.abstract("d", instance=True)
@cases(**FIVE)
@full(**FIVE)
@full(**FOUR)
@full(left=-1.0, right=2.0, level=1.0, beta=[0.6, 1.0])
@space(
    left=Real(-2.0, -1.0),
    right=Real(1.4, 4.0),
    level=Real(1.0, 3.0),
    beta=Real(0.3, 1.0),
    radius=Real(0.05, 0.2),
)
@breaks("away from the data only", knots=False)
def second_derivative_concentrates(
    beta, left=-1.0, right=2.0, level=1.0, x=None, y=None, radius=0.1, knots=True
):
    r"""If the zero-temperature certificate $|h|\le\beta$ is attained only between the angles of
    data
    points (as for the inputs left, right and outputs 0, level), the integral of $|f_\tau''|$ over
    the data range outside of a fixed neighbourhood of its knots vanishes like $\tau^{3/2}$ as
    $\tau\to0$."""
    x, y = (np.array(v) for v in (x or (left, right), y or (0.0, level)))
    inverse = np.append(1e2, np.geomspace(1e4, 1e6, 6))
    mass = cooled(x, y, beta, radius, knots, inverse)
    return compare(slope(inverse, mass), "==", -theory("exponent", 1.5), rival=-1.0)


# ---------------------------------------------------------------------------------- width
@simulation
def variances(y, widths, batches, size, n_steps, exponent, seed):
    """Variance over initializations of the predictions, summed; one row a batch of networks."""
    x, rows = np.linspace(-1.0, 1.0, len(y)), []
    for k, width in enumerate(widths):
        found = cr.descend_particles(
            *(x, y, int(width)),
            **{
                "n_networks": batches * size,
                "n_steps": n_steps,
                "exponent": exponent,
                "step": 0.15,
            },
            seed=1000 * seed + k,
        )
        rows.append(found.reshape(batches, size, -1).var(axis=1, ddof=1).sum(axis=-1))
    return np.stack(rows, axis=1)


WIDTHS = (1, 23, 30, 45, 70, 108, 512)


@warm.ours("the limit of the abstract, its fluctuations by simulation", serves="b")
@cases(y=(0.5, -1.0), n_steps=4, batches=80, size=250)
@full(y=(0.5, -1.0), n_steps=[0, 2, 6, 4], batches=120, size=250)
@space(y=Real(-1.5, 1.5, size=2), n_steps=Int(0, 6))
@breaks("output divided by the root of the width", exponent=0.5, batches=20)
def particles_fluctuate_like_one_over_width(y, n_steps, seed, batches=20, size=60, exponent=1.0):
    r"""Gradient descent without regularization from independent Gaussian weights on
    $\frac1N\sum_ja_j(w_jt+b_j)_+$, up to a fixed number of steps: the variance of the predictions
    over initializations falls like $1/N$, so that the dynamics have a deterministic limit."""
    rows = variances(np.array(y), WIDTHS, batches, size, n_steps, exponent, seed)
    found = slope(np.array(WIDTHS, float), rows)
    return compare(found, "==", -theory("exponent", 1.0))


@panel(
    particles_fluctuate_like_one_over_width,
    "Fluctuations over initializations fall like $1/N$",
    x="steps of descent",
    y="power of $N$",
)
def _(pen, runs):
    pen.theory([0, 6], [-1, -1], "$-1$")
    pen.points(*runs.measured("n_steps", where={"y": (0.5, -1.0)}), "mean field")
    name = "output divided by the root of the width"
    pen.broken(*runs.measured("n_steps", control=name), r"$1/\sqrt{N}$")


# ---------------------------------------------------------------------------------- weight decay
@simulation
def least_decay(hidden, output):
    """Least weight decay over rescalings of the units, a lower bound, and the logarithms of the
    scales where it was found."""
    inner, outer = np.sum(hidden**2, axis=1), output**2

    def parts(s):
        return inner * np.exp(2 * s), outer * np.exp(-2 * s)

    def decay(s):
        a, b = parts(s)
        return (a.sum() + b.sum()) / 2, a - b

    found = minimize(decay, np.zeros(len(outer)), jac=True, method="BFGS", options={"gtol": 1e-10})
    # A sum of convex functions of one scale each: the minimum is within 1 of what was found if all
    # slopes have changed their signs there, and above the tangent at what was found.
    inside = all((k * np.subtract(*parts(found.x + k)) > 0).all() for k in (-1, 1))
    return found.fun, found.fun - np.abs(found.jac).sum() if inside else -np.inf, found.x


@free.abstract("b", instance=True)
@cases(hidden=np.random.default_rng(3).normal(size=(12, 3)), output=np.linspace(-2, 2, 12))
@space(
    m=Int(1, 6),
    d=Int(1, 4),
    hidden=Real(0.2, 2, size=("m", "d"), capacity=24),
    output=Real(-2, -0.1, size="m", capacity=6),
    leak=Real(-1, 1),
)
@breaks("tanh", activation=np.tanh)
def weight_decay_is_path_norm(hidden, output, seed, m=None, d=None, leak=0.0, activation=None):
    r"""For a positively homogeneous activation ($t_+-leak\cdot(-t)_+$) the least
    $\frac12\sum_k(v_k^2+\|w_k\|^2)$ over rescalings of the units that keep the function is
    $\sum_k|v_k|\,\|w_k\|_2$, attained exactly when $|v_k|=\|w_k\|_2$ for all $k$."""
    hidden = hidden * np.random.default_rng(seed).choice([-1, 1], size=hidden.shape)
    upper, lower, scales = least_decay(hidden, output)
    inner, outer = hidden * np.exp(scales)[:, None], output * np.exp(-scales)
    points = np.random.default_rng(seed).normal(size=(20, hidden.shape[1]))
    activation = activation or (lambda t: np.where(t > 0, t, leak * t))
    before, after = (activation(points @ w.T) @ v for w, v in ((hidden, output), (inner, outer)))
    ratio = np.abs(outer) / np.linalg.norm(inner, axis=1)
    return {
        "least": compare(
            between(upper, lower), "==", theory("path norm", cr.path_norm(hidden, output))
        ),
        "balance": compare(within(ratio, 1e-5, "gradient 1e-10"), "==", theory("balance", 1.0)),
        "function": compare(
            within(after, 1e-12 * np.abs(before).max(), "rounding"),
            "==",
            theory("function", before),
        ),
    }


# ---------------------------------------------------------------------------------- splines
def hats(x, outside=41):
    """Outputs at the data of units of both orientations, at the data and at further knots."""
    knots = np.concatenate([x, np.linspace(x[0] - 2, x[-1] + 2, outside)])
    return np.maximum(np.hstack([x[:, None] - knots, knots - x[:, None]]), 0)


@simulation
def spline_programs(x, y, output_bias):
    """Least sums of |v_k w_k| with and without skip, and bounds from multipliers.

    Outputs within r of y cost as much up to 4 r sum 1/(x_{i+1} - x_i): r is the residual of the
    program, with the rounding of its terms (that of y among them)."""
    values, bounds = [], []
    steps, span = np.diff(x), x[-1] - x[0] + 4
    terms = np.abs(y).max() + x.size * np.abs(np.diff(y) / steps).max() * span
    rounding, price = 8 * np.finfo(float).eps * terms, 4 * np.sum(1 / steps)
    for skip in (True, False):
        free = [x] * skip + [np.ones_like(x)] * output_bias
        columns = np.column_stack(free) if free else np.zeros((x.size, 0))
        units = hats(x)
        system = np.hstack([units, -units, columns])
        program = linprog(
            np.repeat([1.0, 0.0], [2 * units.shape[1], columns.shape[1]]),
            A_eq=system,
            b_eq=y,
            bounds=[(0, None)] * (2 * units.shape[1]) + [(None, None)] * columns.shape[1],
        )
        missed = np.abs(system @ program.x - y).max() + rounding
        values.append(program.fun + price * missed)
        # Between two data points what a multiplier pays for a unit is linear in the knot.
        multiplier = program.eqlin.marginals
        multiplier -= columns @ np.linalg.lstsq(columns, multiplier)[0]
        paid = np.abs(multiplier @ units).max()
        bounds.append(multiplier @ y / max(paid, 1.0) - price * rounding)
    return np.array(values), np.array(bounds)


@free.abstract("a", "c", "e", instance=True)
@cases(steps=(0.5, 1.0, 0.4, 1.2, 0.7), y=[(0.0, 1.0, 0.4, 0.9, -0.5, 0.2)])
@cases(steps=(0.5, 1.0, 0.4, 1.2, 0.7), y=[(1.0, 2.2, 4.0, 5.0, 7.8, 9.0)])
@full(steps=(0.5, 1.0, 0.4, 1.2, 0.7), y=[(0.0, 1.0, 0.4, 0.9, -0.5, 0.2)], tilt=[0, 0.3, 3.0])
@full(steps=(0.5, 1.0, 0.4, 1.2, 0.7), y=[(1.0, 2.2, 4.0, 5.0, 7.8, 9.0)], tilt=[-2.0, -1.0, 0.0])
@space(
    n=Int(2, 7),
    steps=Real(0.2, 2, size="n - 1", capacity=6),
    y=Real(-2, 2, size="n", capacity=7),
    tilt=Real(-2, 2),
)
@breaks("no output bias", output_bias=False)
def univariate_tv2_representer(steps, y, tilt=0.0, n=None, output_bias=True):
    r"""$f(t)=\sum_kv_k(w_kt+b_k)_++st+c$ through $(x_i,y_i)$, $x_1<\dots<x_n$, biases and $c$ free,
    $s_i$ the slopes of the linear interpolant, $T=\sum_i|s_{i+1}-s_i|$, $S=|s_1+s_{n-1}|$. With $s$
    free the least $\frac12\sum_k(v_k^2+w_k^2)$ is $T$, attained by connecting the dots with at most
    $n-2$ knots. With $s=0$ it is $T$ if $S\le T$, else $(T+S)/2$."""
    x = inputs(0.0, steps)
    y = np.array(y) + tilt * x
    slopes = np.diff(y) / np.diff(x)
    bends, ends = np.abs(np.diff(slopes)).sum(), abs(slopes[0] + slopes[-1])
    total = theory("T", bends)
    target = (total, (total + theory("S", ends)) / 2 if ends > bends else total)
    networks = [cr.minimal_path_norm_network(x, y, skip=skip) for skip in (True, False)]
    size = np.abs(y).max() + 1e-300
    misses = np.array([np.abs(f(x) - y).max() for f in networks]) > 1e-11 * size
    costs = np.where(misses, np.inf, [f.weight_decay for f in networks])
    return {
        "least": compare(between(*spline_programs(x, y, output_bias)), "==", target),
        "network": compare(within(costs, 1e-12 * (bends + ends), "rounding"), "==", target),
        "knots": compare(networks[0].knots.size, "<=", theory("knots", len(y) - 2)),
    }


@simulation
def group_program(x, Y, norm, skip):
    """Least sum of the norms of the bends at the data and at further knots, and a bound."""
    import cvxpy as cp

    knots = np.unique(np.concatenate([x, np.linspace(x[0] - 1, x[-1] + 1, 12)]))
    units = np.hstack([np.maximum(x[:, None] - knots, 0), np.maximum(knots - x[:, None], 0)])
    free = np.column_stack([np.ones_like(x), x] if skip else [np.ones_like(x)])
    bends = cp.Variable((units.shape[1], Y.shape[1]))
    affine = cp.Variable((free.shape[1], Y.shape[1]))
    fits = units @ bends + free @ affine == Y
    program = cp.Problem(cp.Minimize(cp.sum(cp.norm(bends, norm, axis=1))), [fits])
    program.solve(solver="CLARABEL")
    # Between two data points what a multiplier pays for a unit is convex in the knot.
    multiplier = -fits.dual_value
    multiplier -= free @ np.linalg.lstsq(free, multiplier)[0]
    multiplier *= np.sign(np.sum(multiplier * Y))
    paid = np.linalg.norm(units.T @ multiplier, 2 if norm == 2 else np.inf, axis=1).max()
    return program.value * (1 + 1e-6), np.sum(multiplier * Y) / max(paid, 1.0)


@free.ours("derived; the survey's text not consulted", serves="ce")
@cases(steps=[(0.5, 1.0, 0.4, 1.2, 0.7)], D=[1, 3])
@full(steps=[(0.5, 1.0, 0.4, 1.2, 0.7, 0.3, 0.9)], D=[1, 2, 4, 8, 3])
@space(n=Int(3, 6), steps=Real(0.2, 2, size="n - 1", capacity=5), D=Int(1, 4), tilt=Real(-5, 5))
@breaks("decay on every output apart", norm=1)
@breaks("no skip connection", skip=False, tilt=20.0)
def vector_valued_connect_the_dots(steps, D, seed, tilt=0.0, n=None, norm=2, skip=True):
    r"""For $D$ outputs, $f(t)=\sum_kv_k(w_kt+b_k)_++st+c$ through $(x_i,y_i)$, $v_k,s,c,y_i\in
    \mathbb R^D$, the least $\sum_k\|v_k\|_2|w_k|$ is $\sum_i\|s_{i+1}-s_i\|_2$ with $s_i$ the
    slopes
    of the linear interpolant, attained by connecting the dots: at most $n-2$ units shared by all
    outputs, whatever $D$."""
    x = inputs(0.0, steps)
    Y = np.random.default_rng(seed).normal(size=(x.size, D)) + tilt * x[:, None]
    s = np.diff(Y, axis=0) / np.diff(x)[:, None]
    bends = np.diff(s, axis=0)
    dots = Y[0] + np.outer(x - x[0], s[0]) + np.maximum(x[:, None] - x[1:-1], 0) @ bends
    fits = np.abs(dots - Y).max() < 1e-11 * np.abs(Y).max()
    cost = np.linalg.norm(bends, axis=1).sum() if fits else np.inf
    least = theory("variation", np.sqrt(((s[1:] - s[:-1]) ** 2).sum(axis=1)).sum())
    return {
        "least": compare(between(*group_program(x, Y, norm, skip)), "==", least),
        "network": compare(within(cost, 1e-12 * cost, "rounding"), "==", least),
    }


@simulation
def bottleneck(B, beta, relu, seed):
    """Value of the best factors with weight decay, a dual bound, their product, their decay."""
    eye = np.eye(len(B))
    fit = cr.fit_factored(eye, B, beta, depth=2, relu=relu, n_random=3, seed=seed)
    dual = (B - fit.outputs) * min(1, beta / np.linalg.norm(B - fit.outputs, 2))
    squares = sum(np.sum(W**2) for W in fit.layers) / 2
    return fit.objective, np.sum(dual * B) - np.sum(dual**2) / 2, fit.outputs, squares


@free.ours("derived; the survey's text not consulted", serves="d")
@cases(p=5, q=3, beta=[0.5, 1.5])
@full(p=[4, 8], q=5, beta=[0.1, 0.5, 1.0, 2.0])
@space(p=Int(2, 6), q=Int(1, 4), beta=Real(0.05, 3.0, log=True))
@breaks("ReLU between the factors", relu=True)
def linear_bottleneck_is_nuclear_norm(p, q, beta, seed, relu=False):
    r"""For $B\in\mathbb R^{p\times q}$ with singular values $\sigma_i$ (judged on Gaussian $B$) and
    factors of width $\min(p,q)$, weight decay on two layers without an activation between
    them is the nuclear norm of their product: at the minimum of $\frac12\|WV-B\|_F^2
    +\frac\beta2(\|W\|_F^2+\|V\|_F^2)$ the decay is $\frac12(\|W\|_F^2+\|V\|_F^2)=\|WV\|_*$, and
    $WV$
    has the singular values $(\sigma_i-\beta)_+$, so that its rank is low."""
    B = np.random.default_rng(seed).normal(size=(p, q))
    upper, lower, product, squares = bottleneck(B, beta, relu, seed)
    sigma = np.linalg.svd(B, compute_uv=False)
    fitted = np.maximum(sigma - beta, 0)
    # The loss is strongly convex in the product: half the squared distance is below the gap.
    error, size = np.sqrt(2 * max(upper - lower, 0) + 1e-14 * sigma @ sigma), sigma[0]
    found = np.linalg.svd(product, compute_uv=False)
    least = np.sum((fitted - sigma) ** 2) / 2 + beta * fitted.sum()
    descent = "gradient 1e-11 of descent"
    spread = within(squares / size, 1e-6 * len(sigma), descent)
    gap = within((upper - lower) / upper, 1e-6, descent)
    return {
        "fitted": compare(
            within(found / size, error / size, "duality gap"),
            "==",
            theory("fitted", fitted / size),
        ),
        "value": compare(between(upper, lower), "==", theory("value", least)),
        "gap": compare(gap, "==", theory("gap", 0.0)),
        "decay": compare(spread, "==", theory("nuclear norm", found.sum() / size)),
    }


# ---------------------------------------------------------------------------------- dimension
@simulation
def thinned(dimension, n_units, sizes, n_draws, uniform, seed):
    """Squared errors of thinned random networks on 40 points; B sum |c| ||phi||^2 and ||f||^2."""
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(40, dimension)) @ rng.normal(size=(dimension, n_units))
    atoms = np.maximum(atoms / np.sqrt(dimension) + 0.5, 0)
    c = np.geomspace(1, 0.05, n_units)
    law = np.full(n_units, 1 / n_units) if uniform else None
    errors = [
        cr.maurey_errors(atoms, c, n, n_draws=n_draws, probabilities=law, seed=seed + i)
        for i, n in enumerate(sizes)
    ]
    spread = np.abs(c).sum() * np.abs(c) @ (atoms**2).sum(axis=0)
    size = np.sum((atoms @ c) ** 2)
    return np.stack(errors, axis=1) / size, spread / size


SIZES = (4, 16, 64, 256)


@free.ours("the argument of Maurey, Jones and Barron with its constant", serves="f")
@cases(dimension=[2, 100], n_draws=20000)
@full(dimension=[2, 10, 100], n_draws=40000)
@space(dimension=Int(1, 50), n_units=Int(3, 20))
@breaks("units drawn uniformly", uniform=True)
def maurey_dimension_free_rate(dimension, seed, n_units=12, n_draws=400, uniform=False):
    r"""If $f=\sum_kc_k\phi_k$, $B=\sum_k|c_k|$ and $N$ units are drawn independently with
    probabilities $|c_k|/B$, each with coefficient $\pm B/N$, then
    $\mathbb E\|f-f_N\|^2=\frac1N(B\sum_k|c_k|\,\|\phi_k\|^2-\|f\|^2)$: a rate $N^{-1/2}$ free of
    the
    input dimension (judged for random ReLU units on 40 random points, relative to $\|f\|^2$)."""
    errors, spread = thinned(dimension, n_units, SIZES, n_draws, uniform, seed)
    terms = theory("units", spread) - theory("function", 1.0)
    return compare(mean(errors), "==", terms / np.array(SIZES))


@panel(
    maurey_dimension_free_rate,
    "Random thinning errs as $1/N$ in every dimension",
    x="units kept $N$",
    y="relative squared error",
    log="xy",
)
def _(pen, runs):
    for k, run in enumerate(runs.judgement.runs):
        part = run.parts[""]
        label = f"dimension {run.instance['dimension']}"
        pen.theory(SIZES, part.predicted, k=k)
        pen.points(SIZES, part.shown, part.error, label, k=k)
    (control,) = runs.judgement.controls
    pen.broken(SIZES, control.run.parts[""].shown, label=control.name)


@simulation
def left_over(d, R, n, features, adapted, seed):
    """Mean squared distance of the cosines from a space of functions, their number, their rank."""
    rng, points = np.random.default_rng(seed), 2 * R + 2
    grid = np.array(list(itertools.product(np.arange(points) * 2 / points - 1, repeat=d)))
    waves = np.array([k for k in itertools.product(range(-R, R + 1), repeat=d) if k > (0,) * d])
    cosines = np.sqrt(2 / len(grid)) * np.cos(np.pi * grid @ waves.T)
    if features == "ReLU":
        basis = np.maximum(grid @ rng.normal(size=(d, n)) + rng.normal(size=n), 0)
    else:
        basis = cosines @ rng.normal(size=(len(waves), n))
    Q = np.linalg.qr(basis)[0]
    targets = cosines[:, :1] if adapted else cosines
    if adapted:
        Q[:, :1] = targets
    rest = 1 - np.sum((Q.T @ targets) ** 2, axis=0)
    return rest.mean(), np.linalg.matrix_rank(cosines)


@free.ours("derived: a projection of rank N has trace N", serves="f")
@cases(d=[1, 2, 3], R=2, share=0.5)
@full(d=[1, 2, 3], R=2, share=[0.1, 0.3, 0.5, 0.7, 0.9])
@full(d=4, R=1, share=0.5)
@space(d=Int(1, 3), R=Int(1, 2), share=Real(0.05, 0.95))
@breaks("the space may follow the target", adapted=True)
def linear_methods_need_exponentially_many_features(d, R, share, seed, adapted=False):
    r"""The $K=((2R+1)^d-1)/2$ functions $\sqrt2\cos(\pi k\cdot x)$, $0\ne k\in\mathbb Z^d$ modulo
    sign, $|k|_\infty\le R$, are orthonormal on $[-1,1]^d$ (judged on a grid of $2R+2$ points a
    side). The mean of their squared distances from a space of $N$ functions is at least $1-N/K$,
    with equality for subspaces of their span: for error $R^{-2}/\sqrt2$ on all
    $R^{-2}\sqrt2\cos(\pi
    k\cdot x)$ a linear method needs $K/2$ features, exponentially many in $d$."""
    n = max(1, round(share * ((2 * R + 1) ** d - 1) / 2))
    (relu, count), (own, _) = (
        left_over(d, R, n, features, adapted, seed) for features in ("ReLU", "own")
    )
    number = theory("K", ((2 * R + 1) ** d - 1) // 2)
    rest = 1 - theory("N", n) / number
    return {
        "random features": compare(within(relu, 1e-10, "rounding"), ">=", rest),
        "subspaces of the span": compare(within(own, 1e-10, "rounding"), "==", rest),
        "independent": compare(within(count, 0.0, "rank"), "==", number),
    }


@panel(
    linear_methods_need_exponentially_many_features,
    "No space of $N$ functions is close to all $K$ cosines ($N/K=1/2$)",
    x="dimension $d$",
    y="mean squared distance",
)
def _(pen, runs):
    for k, part in enumerate(("subspaces of the span", "random features")):
        pen.points(*runs.measured("d", part, where={"share": 0.5}), part, k=k)
    pen.theory([1, 4], [0.5, 0.5], "bound")


if __name__ == "__main__":
    run_script(__file__)
