"""Networks of one input: splines, their knots, and what temperature does to them."""

import numpy as np
from scipy.optimize import linprog, minimize

from theorylab import convex_relu as cr
from theorylab.verify import (
    Evidence,
    Int,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    equal,
    rate,
    sample_mean,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

X4, Y4 = np.array([-1.5, -0.3, 0.4, 1.3]), np.array([0.5, -1.0, 0.2, -1.2])
# One interior knot and knots at both ends of a gap; two interior knots in a gap.
THREE = {
    "x": np.array([-1.26872822, 1.33859627, 1.78975589]),
    "y": np.array([-1.35524349, 0.84494977, 0.11141181]),
    "beta": 0.0172609,
}
TWO = {
    "x": np.array([-1.91925, -1.55257, 1.07673, 1.76776]),
    "y": np.array([-1.24181, 1.55341, 1.0899, -0.85993]),
    "beta": 0.228473,
}


@claim(
    r"Data $x_1<\dots<x_n$, networks $f(t)=\sum_ja_j(w_jt+b_j)_+$ of any width with penalty "
    r"$\frac\beta2\sum_j(a_j^2+w_j^2+b_j^2)$, $\beta>0$, and squared loss (the limit of zero temperature). Over all global "
    r"minimizers together, each closed gap $[x_i,x_{i+1}]$ holds at most three knots, at most two of them inside, and none at "
    r"its ends if there are two inside.",
    sources=["shevchenko2021-mean, Abstract and theorem on the number of knots"],
    origin="sharpened",
    kind="inequality",
    cases={"quick": [{"draws": 40}, THREE, TWO], "full": [{"draws": 1500}, THREE, TWO]},
    space={
        "steps": Real(0.05, 1.5, size=5),
        "y": Real(-1, 1, size=6),
        "beta": Real(0.01, 0.5, log=True),
    },
    breaks={"positive temperature": {"temperature": 1e-3}},
)
def at_most_three_knots(
    seed, x=None, y=None, beta=0.05, steps=None, draws=1, temperature=0.0
) -> Evidence:
    rng = np.random.default_rng(seed)
    x = x if steps is None else np.concatenate([[0.0], np.cumsum(steps)]) - np.sum(steps) / 2
    counts = []
    for _ in range(draws):
        n = rng.integers(3, 8)
        inputs, outputs = (rng.uniform(-2, 2, size=n), rng.normal(size=n)) if x is None else (x, y)
        if temperature:
            # The slope of a network at positive temperature changes everywhere: count pieces of the gap that bend.
            fit = cr.mean_field_fit(inputs, outputs, beta, temperature)
            grid = np.linspace(np.sort(inputs)[:-1], np.sort(inputs)[1:], 50)[1:-1].T
            bent = np.abs(fit.curvature(grid.ravel())).reshape(grid.shape) > 1e-6
            counts += [(k, k) for k in bent.sum(axis=1)]
        else:
            fit = cr.fit_penalized_biases(inputs, outputs, beta)
            counts += list(
                zip(*cr.certificate_knots(inputs, fit.residual, beta).per_gap(inputs), strict=True)
            )
    opened, closed = np.array(counts).T
    return all_of(
        at_most(closed.max(), 3),
        at_most(opened.max(), 2),
        at_most((closed - opened)[opened == 2].max(initial=0), 0),
    ).with_data(x=x, y=y, beta=beta, counts=counts, fit=fit, temperature=temperature)


@at_most_three_knots.panel
def _(ax, runs: Runs) -> None:
    t = np.linspace(-2.3, 2.3, 1000)
    for run, colour, words in zip(
        runs[1:],
        COLOURS,
        ("one inside, two at the ends", "two inside, none at the ends"),
        strict=False,
    ):
        data = run.data
        knots = cr.certificate_knots(data["x"], data["fit"].residual, data["beta"])
        ax.plot(t, data["fit"].network(t), color=colour, label=words)
        ax.plot(data["x"], data["y"], "o", mfc="none", color=colour)
        ax.plot(
            knots.position, data["fit"].network(knots.position), "|", color=colour, ms=13, mew=2
        )
    ax.legend(loc="lower center")
    ax.set(
        title="At most three knots in a gap",
        xlabel="input",
        ylabel="exact fit, knots |",
        xlim=(-2.3, 2.3),
        ylim=(-2.6, 1.9),
    )


@claim(
    r"Units $(a,w,b)$ with law $\rho$, $f(t)=\mathbb E_\rho a(wt+b)_+$. The minimizer of "
    r"$\frac12\|f(x)-y\|^2+\frac\lambda2\mathbb E_\rho(a^2+w^2+b^2)+\tau\int\rho\log\rho$ predicts $f(x_i)=y_i-z_i$, where "
    r"$z$ maximizes $z^\top y-\frac12\|z\|^2-\tau\log\int_0^{2\pi}d\varphi/(\lambda-h^2/\lambda)$, "
    r"$h(\varphi)=\sum_iz_i(x_i\cos\varphi+\sin\varphi)_+$, on $|h|<\lambda$. Noisy gradient descent on $N$ units at "
    r"equilibrium has this mean prediction up to a shift $c/N+O(N^{-2})$ given by Laplace's method.",
    sources=["shevchenko2021-mean, Gibbs form of the minimizer"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"beta": 0.4, "temperature": 0.2}],
        "full": [
            {"beta": 0.4, "temperature": t, "n_units": n, "sweeps": s}
            for t, n, s in ((0.05, 200, 5000), (0.2, 200, 3000))
        ],
    },
    breaks={"noise of twice the variance": {"noise": 2.0}},
)
def finite_temperature_dual(
    beta, temperature, seed, n_units=60, sweeps=2000, noise=1.0
) -> Evidence:
    fit = cr.mean_field_fit(X4, Y4, beta, temperature)
    options = {"n_particles": n_units, "n_sweeps": sweeps, "burn_in": sweeps // 2}
    seeds = np.random.default_rng(seed).integers(2**31, size=16)
    runs = np.array(
        [
            cr.sample_particles(X4, Y4, beta, noise * temperature, **options, seed=int(s))
            for s in seeds
        ]
    )
    predicted = Y4 - fit.residual
    shift = fit.finite_size_shift() / n_units
    return all_of(
        sample_mean(
            runs, predicted + shift, bias=np.abs(shift) / 10, source="terms of second order in 1/N"
        ),
        equal(
            fit(X4),
            predicted,
            error=1e-8,
            source="quadrature and rounding of the stationarity condition",
        ),
    ).with_data(fit=fit, runs=runs, temperature=temperature)


@finite_temperature_dual.panel
def _(ax, runs: Runs) -> None:
    t = np.linspace(-2, 2, 400)
    for run, colour in zip(runs, COLOURS, strict=False):
        ax.plot(t, run.data["fit"](t), color=colour, label=rf"$\tau={run.data['temperature']:g}$")
        error = run.data["runs"].std(axis=0) / np.sqrt(len(run.data["runs"]))
        ax.errorbar(X4, run.data["runs"].mean(axis=0), 5 * error, fmt="o", color=colour)
    hot = runs.controls["noise of twice the variance"].data["runs"]
    ax.plot(X4, hot.mean(axis=0), "x", color=BROKEN, label="twice the noise")
    ax.plot(t, cr.fit_penalized_biases(X4, Y4, 0.4).network(t), "k--", lw=1, label=r"$\tau=0$")
    ax.legend(ncol=2)
    ax.set(
        title="The dual on a circle predicts noisy gradient descent",
        xlabel="input",
        ylabel="mean prediction",
    )


@claim(
    r"As $\tau\to0$, predictions tend to those of zero temperature with $\|f_\tau(x)-f_0(x)\|^2\le2(P-D(z_\tau))$, the "
    r"duality gap, and the mass of $|f_\tau''|$ in the data range outside a fixed neighbourhood of the knots of the "
    r"zero-temperature certificate vanishes; as $\tau^{3/2}$ if the certificate $|h|\le\lambda$ is attained only between the "
    r"angles of data points.",
    sources=["shevchenko2021-mean, theorem on the second derivative"],
    origin="derived",
    kind="limit",
    cases=[
        {
            "x": np.array([-1.85, -1.41, 0.65, 1.04, 1.47]),
            "y": np.array([-0.86, 0.39, 0.73, 0.9, 0.04]),
            "beta": 0.1,
        },
        {**TWO, "beta": 0.1},
    ],
    breaks={"knots at the data only": {"knots": "data"}},
)
def second_derivative_concentrates(x, y, beta, radius=0.1, knots="certificate") -> Evidence:
    cold = cr.fit_penalized_biases(x, y, beta)
    excluded = (
        cr.certificate_knots(x, cold.residual, beta).position if knots == "certificate" else x
    )
    inverse = 10 ** np.arange(2, 6.1, 0.5)
    fits = [cr.mean_field_fit(x, y, beta, 1 / t) for t in inverse]
    mass = np.array([fit.curvature_mass(excluded, radius) for fit in fits])
    distance = np.array([np.sum((fit.residual - cold.residual) ** 2) for fit in fits])
    gaps = np.array(
        [cold.objective - fit.residual @ y + 0.5 * fit.residual @ fit.residual for fit in fits]
    )
    return all_of(
        rate(inverse, mass, -1.5, rival=-1.0), at_most(distance, 2 * gaps + 1e-14 * np.sum(y**2))
    ).with_data(temperature=1 / inverse, mass=mass, fits=fits, excluded=excluded, beta=beta)


@second_derivative_concentrates.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        ax.loglog(run.data["temperature"], run.data["mass"], "o-", color=colour, lw=0.8)
    tau, mass = runs[-1].data["temperature"], runs[-1].data["mass"]
    ax.loglog(tau, mass[-1] * (tau / tau[-1]) ** 1.5, "k--", lw=1)
    ax.annotate(
        r"$\tau^{3/2}$",
        (tau[4], mass[-1] * (tau[4] / tau[-1]) ** 1.5),
        xytext=(8, -8),
        textcoords="offset points",
    )
    broken = runs.controls["knots at the data only"].data
    ax.loglog(broken["temperature"], broken["mass"], "-", color=BROKEN)
    ax.annotate(
        "away from data points only",
        (broken["temperature"][-1], broken["mass"][-1]),
        color=BROKEN,
        va="bottom",
    )
    ax.set(
        title="Curvature concentrates at the certificate's knots",
        xlabel=r"temperature $\tau$",
        ylabel=r"mass of $|f''|$ away from knots",
    )


@claim(
    r"For a positively homogeneous activation the least $\frac12\sum_k(v_k^2+\|w_k\|^2)$ over rescalings of the units that "
    r"keep the function is $\sum_k|v_k|\,\|w_k\|_2$, attained exactly when $|v_k|=\|w_k\|_2$ for all $k$.",
    sources=["parhi2023-deep, neural balance theorem"],
    origin="derived",
    kind="identity",
    cases=[
        {
            "hidden": np.random.default_rng(3).normal(size=(12, 3)),
            "output": np.random.default_rng(4).normal(size=12),
        }
    ],
    space={"hidden": Real(-2, 2, size=(5, 2)), "output": Real(0.1, 2, size=5)},
    breaks={"tanh": {"activation": np.tanh}},
)
def weight_decay_is_path_norm(
    hidden, output, seed, activation=lambda t: np.maximum(t, 0)
) -> Evidence:
    hidden = hidden + 0.1 * (np.linalg.norm(hidden, axis=1, keepdims=True) < 0.1)
    points = np.random.default_rng(seed).normal(size=(40, hidden.shape[1]))

    def decay(log_scale):
        inner, outer = hidden * np.exp(log_scale)[:, None], output * np.exp(-log_scale)
        return 0.5 * np.sum(inner**2) + 0.5 * np.sum(outer**2), np.sum(inner**2, axis=1) - outer**2

    found = minimize(decay, np.zeros(output.size), jac=True, method="BFGS", options={"gtol": 1e-10})
    inner, outer = (
        np.linalg.norm(hidden, axis=1) * np.exp(found.x),
        np.abs(output) * np.exp(-found.x),
    )
    balanced = cr.balance(hidden, output)
    before, after = (
        activation(points @ hidden.T) @ output,
        activation(points @ balanced.weights.T) @ balanced.output_weights,
    )
    norm, size = cr.path_norm(hidden, output), np.abs(before).max() + 1e-300
    return all_of(
        equal(
            found.fun,
            norm,
            error=1e-8 * norm,
            source="gradient tolerance of the search over rescalings",
        ),
        equal(
            inner,
            outer,
            error=1e-5 * outer.max(),
            scale=outer.max(),
            source="gradient tolerance of the search over rescalings",
        ),
        equal(after, before, error=1e-12 * size, scale=size, source="rounding"),
    ).with_data(before=(np.linalg.norm(hidden, axis=1), np.abs(output)), after=(inner, outer))


@weight_decay_is_path_norm.panel
def _(ax, runs: Runs) -> None:
    (w0, v0), (w1, v1) = runs[0].data["before"], runs[0].data["after"]
    top = 1.1 * max(w0.max(), v0.max())
    grid = np.linspace(0.02, top, 400)
    for w, v in zip(w0, v0, strict=True):
        ax.plot(grid, w * v / grid, color=BROKEN, lw=0.5)
    ax.plot(w0, v0, "o", mfc="none", color=BROKEN, label="random weights")
    ax.plot(w1, v1, "o", color=COLOURS[1], label="least weight decay at the same function")
    ax.plot([0, top], [0, top], color=COLOURS[0], label="balance")
    ax.legend()
    ax.set(
        title="Weight decay is least at balance",
        xlabel=r"$\|w_k\|$",
        ylabel="$|v_k|$",
        xlim=(0, top),
        ylim=(0, 1.35 * top),
    )


@claim(
    r"$f(t)=\sum_kv_k(w_kt+b_k)_++st+c$ through $(x_i,y_i)$, $x_1<\dots<x_n$, biases and $c$ free, $s_i$ the slopes of the "
    r"linear interpolant, $T=\sum_i|s_{i+1}-s_i|$, $S=|s_1+s_{n-1}|$. With $s$ free the least $\frac12\sum_k(v_k^2+w_k^2)$ is "
    r"$T$, attained by connecting the dots with at most $n-2$ knots. With $s=0$ it is $T$ if $S\le T$, else $(T+S)/2$.",
    sources=["parhi2023-deep, spline representer theorem"],
    origin="derived",
    kind="identity",
    cases=[
        {
            "steps": np.array([0.5, 1.0, 0.4, 1.2, 0.7]),
            "y": np.array([0.0, 1.0, 0.4, 0.9, -0.5, 0.2]),
        },
        {
            "steps": np.array([0.5, 1.0, 0.4, 1.2, 0.7]),
            "y": np.array([1.0, 2.2, 4.0, 5.0, 7.8, 9.0]),
        },
    ],
    space={"steps": Real(0.2, 2, size=5), "y": Real(-2, 2, size=6)},
    breaks={"no output bias": {"output_bias": False}},
)
def univariate_tv2_representer(steps, y, output_bias=True) -> Evidence:
    x = np.concatenate([[0.0], np.cumsum(steps)])
    knots = np.concatenate([x, np.linspace(x[0] - 2, x[-1] + 2, 41)])
    right, left = np.maximum(x[:, None] - knots, 0), np.maximum(knots - x[:, None], 0)
    values, exact, misses, counts = [], [], [], []
    for skip in (True, False):
        free = (
            np.column_stack([x] * skip + [np.ones_like(x)] * output_bias)
            if skip or output_bias
            else np.zeros((x.size, 0))
        )
        program = linprog(
            np.concatenate([np.ones(4 * knots.size), np.zeros(free.shape[1])]),
            A_eq=np.hstack([right, left, -right, -left, free]),
            b_eq=y,
            bounds=[(0, None)] * (4 * knots.size) + [(None, None)] * free.shape[1],
        )
        network = cr.minimal_path_norm_network(x, y, skip=skip)
        values += [program.fun, network.weight_decay]
        exact += [cr.minimal_path_norm(x, y, skip=skip)] * 2
        misses.append(np.abs(network(x) - y).max())
        counts.append(network.knots.size)
    scale = np.abs(y).max() + np.ptp(y) / steps.min()
    return all_of(
        equal(
            values,
            exact,
            error=1e-7 * scale,
            scale=scale,
            source="feasibility tolerance 1e-7 of the linear program",
        ),
        equal(misses, 0.0, error=1e-11 * scale, scale=scale, source="rounding"),
        at_most(counts[0], x.size - 2),
    ).with_data(x=x, y=y, values=values, exact=exact)


@univariate_tv2_representer.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        x, y = run.data["x"], run.data["y"]
        t = np.linspace(-1.8, x[-1] + 1.8, 600)
        ax.plot(t, cr.minimal_path_norm_network(x, y)(t), color=colour)
        ax.plot(t, cr.minimal_path_norm_network(x, y, skip=False)(t), "--", color=colour)
        ax.plot(x, y, "o", color=colour)
        with_skip, without = run.data["exact"][0], run.data["exact"][2]
        words = f"cost {with_skip:.2f}, without skip {without:.2f}"
        ax.annotate(
            words,
            (t[-1], y[-1]),
            xytext=(0, -38),
            textcoords="offset points",
            ha="right",
            color=colour,
        )
    ax.set(
        title="Least weight decay connects the dots",
        xlabel="input",
        ylabel="interpolants (dashed: no skip)",
    )


@claim(
    r"If $f=\sum_kc_k\phi_k$, $B=\sum_k|c_k|$ and $N$ units are drawn independently with probabilities $|c_k|/B$, each with "
    r"coefficient $\pm B/N$, then $\mathbb E\|f-f_N\|^2=\frac1N(B\sum_k|c_k|\,\|\phi_k\|^2-\|f\|^2)$: a rate $N^{-1/2}$ free "
    r"of the input dimension.",
    sources=["parhi2023-deep, argument of Maurey, Jones and Barron"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"dimension": d} for d in (2, 100)],
        "full": [{"dimension": d, "n_draws": 8000} for d in (2, 10, 100)],
    },
    space={"dimension": Int(1, 50), "n_units": Int(3, 20)},
    breaks={"units drawn uniformly": {"uniform": True}},
)
def maurey_dimension_free_rate(
    dimension, seed, n_units=12, n_draws=4000, uniform=False
) -> Evidence:
    rng = np.random.default_rng(seed)
    inputs, units = rng.normal(size=(40, dimension)), rng.normal(size=(dimension, n_units))
    atoms = np.maximum(inputs @ units / np.sqrt(dimension), 0)
    c = rng.choice([-1, 1], size=n_units) * np.geomspace(1, 0.05, n_units)
    law = np.full(n_units, 1 / n_units) if uniform else None
    sizes = np.array([4, 16, 64, 256])
    errors = np.stack(
        [
            cr.maurey_errors(atoms, c, int(n), n_draws=n_draws, probabilities=law, seed=seed + i)
            for i, n in enumerate(sizes)
        ],
        axis=1,
    )
    exact = np.array([cr.maurey_mean_squared_error(atoms, c, int(n)) for n in sizes])
    size = np.sum((atoms @ c) ** 2)
    return sample_mean(errors, exact).with_data(
        sizes=sizes, errors=errors / size, exact=exact / size, dimension=dimension
    )


@maurey_dimension_free_rate.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        data = run.data
        ax.loglog(data["sizes"], np.sqrt(data["exact"]), color=colour)
        ax.loglog(
            data["sizes"],
            np.sqrt(data["errors"].mean(axis=0)),
            "o",
            color=colour,
            label=f"input dimension {data['dimension']}",
        )
    broken = runs.controls["units drawn uniformly"].data
    ax.loglog(
        broken["sizes"],
        np.sqrt(broken["errors"].mean(axis=0)),
        "x",
        color=BROKEN,
        label=f"dimension {runs[-1].data['dimension']}, drawn uniformly",
    )
    ax.legend()
    ax.set(
        title="Random thinning errs as $N^{-1/2}$ in every dimension",
        xlabel="units kept $N$",
        ylabel="relative error",
    )


if __name__ == "__main__":
    run_script(__file__)
