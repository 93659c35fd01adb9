"""Adam: how long a step can be, and how large the regret can grow."""

from fractions import Fraction
from functools import cache

import numpy as np
import sympy as sp

from theorylab import optimization as opt
from theorylab.verify import (
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    at_least,
    at_most,
    claim,
    equal,
    exact,
    exhaustive,
    limit,
    sample_mean,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

DEFAULTS = {"beta1": 0.9, "beta2": 0.999}
STEP = (
    r"With $\Delta_t=\alpha\hat m_t/\sqrt{\hat v_t}$, where $\hat m_t,\hat v_t$ are the bias-corrected averages of the gradients "
    r"$g$ and of $g^2$ with coefficients $\beta_1,\beta_2\in(0,1)$, and $\epsilon=0$, "
)
MAX_STEP = r"With $u_t=\max(\beta_2u_{t-1},|g_t|)$ and $\Delta_t=\alpha m_t/((1-\beta_1^t)u_t)$, $\beta_1,\beta_2\in(0,1)$, "
PERIOD3 = r"$C>2$, $\beta_1=0$, $\beta_2=1/(1+C^2)$, $\alpha_t=\alpha/\sqrt t$"


def rational(x: float) -> Fraction:
    return Fraction(x).limit_denominator(10_000)


@claim(
    r"With $\epsilon=0$ and $D$ diagonal and positive, Adam has the same iterates with gradients $Dg_t$ as with gradients $g_t$.",
    sources=["kingma2014-adam, Abstract and Section 2.1"],
    origin="published",
    kind="identity",
    cases=[
        {"exponents": np.array([0.0, 3.0, -3.0, 20.0, -40.0])},
        {"exponents": np.array([-20.0, -10.0, 0.0, 10.0, 20.0])},
    ],
    space={"exponents": Real(-60, 60, size=5)},
    breaks={"eps = 0.01": {"eps": 0.01}},
)
def adam_gradient_rescaling_invariance(exponents, seed: int, eps: float = 0.0) -> Evidence:
    # Powers of two: every operation of the scaled run rounds like that of the other, so the identity holds bit for bit.
    rng = np.random.default_rng(seed)
    noise, x0 = rng.normal(size=(201, 5)), rng.normal(size=5)
    curvature, scale = np.geomspace(0.1, 10, 5), 2 ** np.round(exponents)
    options = {"step_size": 0.01, "steps": 200, "eps": eps}
    base = opt.adam(lambda x, t: curvature * x + noise[t], x0, **options)
    scaled = opt.adam(lambda x, t: scale * (curvature * x + noise[t]), x0, **options)
    same_bits = exact(
        Fraction(float(np.abs(base.iterates - scaled.iterates).max())),
        "==",
        0,
        grade=Grade.NUMERICAL,
    )
    # Any positive factor: the step is the same rational number.
    history, factor = (
        rng.integers(-99, 100, size=20).tolist(),
        Fraction(int(rng.integers(1, 1000)), int(rng.integers(1, 1000))),
    )
    steps = [
        opt.adam_step_squared(
            [c * g for g in history], beta1=Fraction(9, 10), beta2=Fraction(99, 100)
        )
        for c in (factor, 1)
    ]
    return all_of(same_bits, exact(steps[0], "==", steps[1]))


@claim(
    STEP
    + r"$|\Delta_t|\le\alpha(1-\beta_1)/\sqrt{1-\beta_2}$ if $1-\beta_1>\sqrt{1-\beta_2}$, and $|\Delta_t|\le\alpha$ otherwise.",
    sources=["kingma2014-adam, Section 2.1"],
    origin="published",
    kind="counterexample",
    corrected_by="adam-step-supremum",
    cases=[
        {"beta1": 0.9, "beta2": 0.95, "history": (18, 19)},
        {"beta1": 0.9, "beta2": 0.99, "history": "worst"},
        {**DEFAULTS, "history": "ten ones after zeros"},
        {**DEFAULTS, "history": "worst"},
    ],
    rescues={
        "one spike after zeros": {"history": "spike after zeros", "length": 10_000},
        "constant gradients": {"history": "constant"},
        "one spike after zeros, second case": {"history": "spike after zeros", "beta2": 0.9},
    },
)
def adam_step_bound_is_violated(
    beta1: float, beta2: float, history, length: int = 1000
) -> Evidence:
    b1, b2 = rational(beta1), rational(beta2)
    named = {
        "ten ones after zeros": (0,) * length + (1,) * 10,
        "spike after zeros": (0,) * length + (1,),
        "constant": (1,) * length,
    }
    gradients = (
        opt.adam_worst_gradients(length, beta1=b1, beta2=b2)
        if history == "worst"
        else named.get(history, history)
    )
    return exact(
        opt.adam_step_squared(gradients, beta1=b1, beta2=b2),
        "<=",
        opt.stated_step_bound_squared(b1, b2),
    )


def attained(
    step, uncorrected, supremum, worst, gradients, factor: Fraction, remainder: Fraction | None
) -> Evidence:
    """Judge a supremum: the worst history attains it, the limit has the given remainder, and a given history stays below."""
    longest = uncorrected(len(worst)) * step(worst)
    parts = [exact(longest, "==", factor * supremum(len(worst)))]
    if remainder is not None:
        parts.append(exact(longest, "==", factor * supremum(None) * remainder))
    if gradients is not None:
        given = uncorrected(len(gradients)) * step([Fraction(x) for x in gradients])
        parts.append(exact(given, "<=", factor * supremum(len(gradients))))
    return all_of(*parts)


@claim(
    STEP
    + r"$\max_g\Delta_t^2/\alpha^2=\frac{(1-\beta_1)^2}{1-\beta_2}\frac{1-\beta_2^t}{(1-\beta_1^t)^2}\sum_{k<t}\rho^k$ with "
    r"$\rho=\beta_1^2/\beta_2$, attained at $g_{t-k}\propto(\beta_1/\beta_2)^k$; for $\rho<1$ it tends to "
    r"$(1-\beta_1)^2/((1-\beta_2)(1-\rho))$.",
    sources=["kingma2014-adam, Section 2.1"],
    origin="corrected",
    kind="identity",
    cases={
        "quick": [{**DEFAULTS, "length": t} for t in (1, 10, 100, 1000)],
        "full": [{**DEFAULTS, "length": t} for t in (1, 3, 10, 30, 100, 209, 210, 300, 3000, 1000)],
    },
    space={"beta1": Real(0.01, 0.99), "beta2": Real(0.01, 0.99), "gradients": Real(-1, 1, size=12)},
    breaks={"no bias correction": {"corrected": False}},
    shifts={"supremum lowered by 1 %": {"factor": Fraction(99, 100)}},
)
def adam_step_supremum(
    beta1, beta2, length=12, gradients=None, corrected=True, factor=Fraction(1)
) -> Evidence:
    b1, b2 = rational(beta1), rational(beta2)
    rho = b1**2 / b2
    return attained(
        lambda g: opt.adam_step_squared(g, beta1=b1, beta2=b2),
        lambda t: 1 if corrected else (1 - b1**t) ** 2 / (1 - b2**t),
        lambda t: opt.adam_step_supremum_squared(t, b1, b2),
        opt.adam_worst_gradients(length, beta1=b1, beta2=b2),
        gradients,
        factor,
        (1 - b2**length) * (1 - rho**length) / (1 - b1**length) ** 2 if rho < 1 else None,
    )


@adam_step_supremum.panel
def _(ax, runs: Runs) -> None:
    t = np.unique(np.geomspace(1, 1e4, 200).round())
    b1, b2 = DEFAULTS.values()
    ax.plot(t, [opt.adam_step_supremum(int(n), b1, b2) for n in t])
    ax.plot(
        [run.instance["length"] for run in runs],
        [run.evidence.measured**0.5 for run in runs],
        "o",
        color=COLOURS[0],
    )
    ax.plot(t, (1 - b1) / np.sqrt(1 - b2) * np.sqrt(1 - b2**t) / (1 - b1**t), color=COLOURS[2])
    ax.axhline(opt.stated_step_bound_squared(b1, b2) ** 0.5, color=COLOURS[1])
    for x, y, text, colour in (
        (1.1, 3.3, "bound as stated", 1),
        (40, 5.0, "exact supremum", 0),
        (1500, 2.2, "one spike", 2),
    ):
        ax.text(x, y, text, color=COLOURS[colour], fontsize=8)
    ax.set(
        title=r"Adam's step exceeds its stated bound: 7.27 $\alpha$ at the defaults",
        xscale="log",
        xlabel="step t (log)",
    )
    ax.set_ylabel(r"largest $|\Delta_t|/\alpha$")


@claim(
    MAX_STEP + r"$|\Delta_t|\le\alpha$.",
    sources=["kingma2014-adam, Section 7.1"],
    origin="published",
    kind="counterexample",
    corrected_by="adamax-step-supremum",
    cases=[
        {**DEFAULTS, "length": 2},
        {"beta1": 0.9, "beta2": 0.95, "length": 1000},
        {**DEFAULTS, "length": 1000},
    ],
    rescues={
        "running maximum without decay, beta_2 = 1": {"beta2": 1.0},
        "constant gradients": {"constant": True},
    },
)
def adamax_step_bound_is_violated(
    beta1: float, beta2: float, length: int, constant: bool = False
) -> Evidence:
    b1, b2 = rational(beta1), rational(beta2)
    gradients = [1] * length if constant else opt.adamax_worst_gradients(length, beta2=b2)
    return exact(opt.adamax_step(gradients, beta1=b1, beta2=b2), "<=", 1)


@claim(
    MAX_STEP
    + r"$\max_g|\Delta_t|/\alpha=\frac{1-\beta_1}{1-\beta_1^t}\sum_{k<t}\rho^k$ with $\rho=\beta_1/\beta_2$, attained at "
    r"$g_{t-k}=\beta_2^{-k}g_t$; for $\rho<1$ it tends to $(1-\beta_1)/(1-\rho)$. Also at $\beta_2=1$.",
    sources=["kingma2014-adam, Section 7.1"],
    origin="corrected",
    kind="identity",
    cases=[
        {"beta1": 0.9, "beta2": b2, "length": 1000} for b2 in (1.0, 0.999, 0.99, 0.97, 0.95, 0.92)
    ],
    space={"beta1": Real(0.01, 0.99), "beta2": Real(0.01, 1.0), "gradients": Real(-1, 1, size=12)},
    breaks={"no bias correction": {"corrected": False, "length": 2}},
    shifts={"supremum lowered by 1 %": {"factor": Fraction(99, 100)}},
)
def adamax_step_supremum(
    beta1, beta2, length=12, gradients=None, corrected=True, factor=Fraction(1)
) -> Evidence:
    b1, b2 = rational(beta1), rational(beta2)
    rho = b1 / b2
    return attained(
        lambda g: abs(opt.adamax_step(g, beta1=b1, beta2=b2)),
        lambda t: 1 if corrected else 1 - b1**t,
        lambda t: opt.adamax_step_supremum(t, b1, b2),
        opt.adamax_worst_gradients(length, beta2=b2),
        gradients,
        factor,
        (1 - rho**length) / (1 - b1**length) if rho < 1 else None,
    )


@adamax_step_supremum.panel
def _(ax, runs: Runs) -> None:
    grid = np.linspace(0.915, 1, 200)
    ax.plot(1 - grid, [opt.adamax_step_supremum(None, 0.9, b) for b in grid])
    ax.plot(
        [1 - run.instance["beta2"] for run in runs],
        [run.evidence.measured for run in runs],
        "o",
        color=COLOURS[0],
    )
    ax.axhline(1, color=COLOURS[1])
    ax.text(0.084, 1.1, "bound as stated", color=COLOURS[1], fontsize=8, ha="right")
    ax.text(0.06, 2.4, "exact supremum", color=COLOURS[0], fontsize=8, ha="right")
    ax.set(
        title=r"AdaMax's step exceeds $\alpha$ for every $\beta_2<1$ ($\beta_1=0.9$)",
        xlabel=r"$1-\beta_2$",
    )
    ax.set_ylabel(r"largest $|\Delta_t|/\alpha$, t = 1000")


@claim(
    r"For $v_t=\beta_2^pv_{t-1}+(1-\beta_2^p)|g_t|^p$, $v_t^{1/p}\to u_t=\max(\beta_2u_{t-1},|g_t|)$ as $p\to\infty$: "
    r"$(1-\beta_2^p)^{1/p}\le v_t^{1/p}/u_t\le t^{1/p}$.",
    sources=["kingma2014-adam, Section 7.1"],
    origin="sharpened",
    kind="limit",
    cases=[{"beta2": b2, "gradients": np.linspace(1, 0.3, 20)} for b2 in (0.999, 0.9)],
    space={"beta2": Real(0.3, 0.999), "gradients": Real(0.01, 1, size=20)},
    breaks={"weights beta_2 in place of beta_2^p": {"decay_power": False}},
)
def adamax_is_the_limit_of_p_norms(beta2: float, gradients, decay_power: bool = True) -> Evidence:
    g, p = np.asarray(gradients), 2.0 ** np.arange(1, 17)
    u = (beta2 ** np.arange(len(g) - 1.0, -1.0, -1.0) * g).max()
    ratios = [
        opt.adamax_finite_p_norm(g, beta2=beta2 if decay_power else beta2 ** (1 / q), p=q) / u
        for q in p
    ]
    remainder = np.maximum(1 - (1 - beta2**p) ** (1 / p), len(g) ** (1 / p) - 1) + 1e-13
    return limit(
        ratios, 1.0, remainder=remainder, source="the stated two-sided bound, and rounding 1e-13"
    )


@claim(
    r"For convex $f_t$ with gradients bounded by $G_\infty$, iterates within distance $D$, $\gamma=\beta_1^2/\sqrt{\beta_2}<1$, "
    r"$\alpha_t=\alpha/\sqrt t$, $\beta_{1,t}=\beta_1\lambda^{t-1}$ and every $T$, Adam's regret is at most "
    r"$\frac{D^2}{2\alpha(1-\beta_1)}\sum_i\sqrt{T\hat v_{T,i}}"
    r"+\frac{\alpha(1+\beta_1)G_\infty}{(1-\beta_1)\sqrt{1-\beta_2}(1-\gamma)^2}\sum_i\|g_{1:T,i}\|_2"
    r"+\sum_i\frac{D^2G_\infty\sqrt{1-\beta_2}}{2\alpha(1-\beta_1)(1-\lambda)^2}$. False on $C\max(x,-1)$, "
    r"$\max(-x,-1)$, $\max(-x,-1)$ repeated (the example of Reddi, Kale and Kumar without projection) "
    r"with $\alpha=\lambda=\frac12$, $x_1=0.9$.",
    sources=["kingma2014-adam, Theorem 4.1", "reddi2018-convergence, Theorem 1"],
    origin="published",
    kind="counterexample",
    corrected_by="amsgrad-regret-bound-no-momentum",
    cases={
        "quick": [
            {"slopes": (10, -1, -1), "beta2": 1 / 101, "beta1": b1, "steps": 3000}
            for b1 in (0.1, 0.0)
        ],
        "full": [{"slopes": (3, -1, -1), "beta2": 0.1, "beta1": 0.5, "steps": 300_000}]
        + [
            {"slopes": (10, -1, -1), "beta2": 1 / 101, "beta1": 0.0, "steps": t}
            for t in (300, 3000, 30_000, 300_000)
        ],
    },
    rescues={
        "long memory, beta_2 = 0.99": {"beta2": 0.99},
        "no rare large slope": {"slopes": (3, -2, -2)},
        "long memory with momentum": {"beta2": 0.99, "beta1": 0.5},
    },
)
def adam_regret_theorem_false(slopes, beta2: float, beta1: float, steps: int) -> Evidence:
    b1, b2 = rational(beta1), rational(beta2)
    result = opt.certified_regret(
        slopes, steps=steps, step_size=Fraction(1, 2), beta1=b1, beta2=b2, x0=Fraction(9, 10)
    )
    return exact(result.regret, "<=", result.stated_bound)


@adam_regret_theorem_false.panel
def _(ax, runs: Runs) -> None:
    shown = [run for run in runs if run.instance["slopes"][0] == 10]
    t = np.array([run.instance["steps"] for run in shown])
    ax.plot(t, 5 * t, color=COLOURS[0])
    ax.plot(t, [run.evidence.measured for run in shown], "o", color=COLOURS[0])
    ax.plot(t, [run.evidence.predicted for run in shown], "-s", color=COLOURS[1])
    good = runs.controls["long memory, beta_2 = 0.99"]
    ax.plot(t[-1], good.measured, "o", color=BROKEN)
    ax.text(
        t[-1] / 1.3,
        good.measured,
        r"$\beta_2=0.99$",
        color=BROKEN,
        fontsize=8,
        ha="right",
        va="center",
    )
    ax.text(
        t[-1] / 3,
        1e6,
        "certified regret,\nproved bound 5T",
        color=COLOURS[0],
        fontsize=8,
        ha="right",
        va="center",
    )
    ax.text(t[-1], 2.6e3, "bound of Theorem 4.1", color=COLOURS[1], fontsize=8, ha="right")
    ax.set(
        title="Adam's regret bound fails: C = 10, unprojected",
        xscale="log",
        yscale="log",
        xlabel="T (log)",
        ylabel="regret (log)",
    )


@cache
def products_stay_below_16() -> Evidence:
    """Prove by Sturm's theorem that each period brings the iterate back, for 0 <= beta_2 <= 1/5 (see PERIOD_THREE_PRODUCTS)."""

    def positive(part: sp.Expr) -> bool:
        polynomial = sp.Poly(part, sp.Symbol("beta_2", positive=True))
        return bool(polynomial.eval(0) > 0) and polynomial.count_roots(0, sp.Rational(1, 5)) == 0

    slack = {
        name: sp.fraction(sp.together(16 - product))
        for name, product in opt.PERIOD_THREE_PRODUCTS.items()
    }
    return exhaustive(
        {name: all(map(positive, parts)) for name, parts in slack.items()},
        count=4,
        grade=Grade.SYMBOLIC,
    )


@claim(
    r"With losses $C\max(x,-1),\max(-x,-1),\max(-x,-1)$ repeated, "
    + PERIOD3
    + r" for any $\alpha>0$, and $x_1>-1$, Adam with bias "
    r"correction and without projection has $R_T\ge\frac T3((1+\min(x_1,1))C-4)$ for every $T$ divisible by 3.",
    sources=["kingma2014-adam, Theorem 4.1 and Corollary 4.2", "reddi2018-convergence, Theorem 1"],
    origin="derived",
    kind="inequality",
    cases=[
        {"c": 3, "x0": 0.9, "step_size": 0.5},
        {"c": 50, "x0": 0.0, "step_size": 2.0},
        {"c": 10, "x0": 0.9, "step_size": 0.5},
    ],
    space={"c": Int(3, 90), "x0": Real(-0.99, 1.5), "step_size": Real(0.01, 5.0)},
    breaks={"long memory, beta_2 = 0.99": {"beta2": 0.99}},
)
def adam_unprojected_linear_regret(
    c: int, x0: float, step_size: float, beta2: float | None = None
) -> Evidence:
    b2, x, steps = Fraction(1, 1 + c * c) if beta2 is None else rational(beta2), rational(x0), 3000
    result = opt.certified_regret(
        (c, -1, -1), steps=steps, step_size=rational(step_size), beta1=Fraction(0), beta2=b2, x0=x
    )
    return all_of(
        products_stay_below_16(),
        exact(result.regret, ">=", steps // 3 * ((1 + min(x, Fraction(1))) * c - 4)),
    )


@claim(
    r"On $[-1,1]$ with losses $Cx,-x,-x$ repeated, "
    + PERIOD3
    + r" with $0<\alpha<\sqrt{1-\beta_2}$, projection and $x_1=1$, Adam without "
    r"bias correction has $x_{3k+1}=1$ for all $k$, while $-1$ is the best point: for every $T$ divisible by 3, "
    r"$0\le R_T-\frac{2C-4}3T\le\frac{2\alpha}{\sqrt{1-\beta_2}}(\frac13+\frac23\sqrt T)$.",
    sources=["reddi2018-convergence, Theorem 1 and Section 3"],
    origin="sharpened",
    kind="limit",
    cases=[{"c": c, "fraction": 0.5} for c in (3.0, 50.0, 10.0)],
    space={"c": Real(2.1, 90.0), "fraction": Real(0.02, 0.99)},
    breaks={
        "running maximum (AMSGrad)": {"method": "amsgrad"},
        "AdaGrad": {"method": "adagrad"},
        "beta_2 = 0.9": {"beta2": 0.9},
    },
)
def adam_period3_linear_regret(
    c: float, fraction: float, beta2: float | None = None, method: str = "adam"
) -> Evidence:
    b2, periods = 1 / (1 + c * c), 100_000
    options = {
        "method": method,
        "step_size": fraction * (1 - b2) ** 0.5,
        "beta2": beta2 or b2,
        "steps": 3 * periods,
    }
    returns = opt.cyclic_losses([c, -1, -1], times=3 * np.arange(periods) + 1, **options).iterates
    times = 3 * np.unique(np.geomspace(1, periods, 25).round())
    average = opt.cyclic_losses([c, -1, -1], times=times, **options).average_regret
    remainder = 2 * fraction * (1 / 3 + 2 / 3 * np.sqrt(times)) / times
    tends = limit(
        average, (2 * c - 4) / 3, remainder=remainder, source="the stated two-sided bound"
    )
    back = exact(Fraction(float(np.abs(returns - 1).max())), "==", 0, grade=Grade.NUMERICAL)
    return all_of(products_stay_below_16(), back, tends).with_data(
        times=times, average=average, limit=(2 * c - 4) / 3
    )


def draw_average_regret(ax, runs: Runs, styles: tuple[str, ...]) -> None:
    data = runs[-1].data
    ax.axhline(data["limit"], color=COLOURS[0])
    ax.plot(data["times"], data["average"], "o", color=COLOURS[0], label="Adam, and its limit")
    for (name, evidence), style in zip(runs.controls.items(), styles, strict=True):
        ax.plot(
            evidence.data["times"],
            evidence.data["average"],
            style,
            color=BROKEN,
            label=name.replace("beta_2", r"$\beta_2$"),
        )
    ax.set(xscale="log", yscale="log", xlabel="T (log)", ylabel=r"$R_T/T$ (log)")
    ax.legend(loc="lower left", labelcolor="linecolor")


@adam_period3_linear_regret.panel
def _(ax, runs: Runs) -> None:
    draw_average_regret(ax, runs, ("-", "--", ":"))
    ax.set_title(r"Slopes 10, $-1$, $-1$ at $\beta=(0,1/101)$: $R_T/T\to16/3$")


@claim(
    r"For $0\le\beta_1<\sqrt{\beta_2}<1$ there is a period $P$ such that with slopes $P,-1,\dots,-1$ repeated (sum 1, best "
    r"point $-1$ of $[-1,1]$) and $\alpha_t=\alpha/\sqrt t$, projected Adam has $R_T/T\not\to0$: where $m/\sqrt v$ has a "
    r"negative sum over a stationary period, $x_t\to1$ and $R_T/T\to2/P$. (Published: $P=101$, $\beta_1=0.9$, $\beta_2=0.99$.)",
    sources=["reddi2018-convergence, Theorem 2 and Section 5"],
    origin="sharpened",
    kind="counterexample",
    cases={
        "quick": [{"beta1": 0.5, "beta2": 0.9}, {"beta1": 0.9, "beta2": 0.99, "period": 101}],
        "full": [
            {"beta1": 0.0, "beta2": 0.5},
            {"beta1": 0.5, "beta2": 0.9},
            DEFAULTS,
            {"beta1": 0.9, "beta2": 0.99, "period": 101, "patience": 300},
        ],
    },
    space={"beta2": Real(0.1, 0.995), "beta1": Real(0.0, lambda p: 0.95 * p["beta2"] ** 0.5)},
    breaks={
        "running maximum (AMSGrad)": {"method": "amsgrad", "patience": 300},
        "beta_2 = 0.9999": {"beta2": 0.9999, "patience": 1},
    },
)
def adam_fails_with_momentum_long_period(
    beta1, beta2, period=None, method: str = "adam", patience: int = 1
) -> Evidence:
    p = period or 2 * opt.failing_period(beta1=beta1, beta2=beta2)
    slopes, alpha = np.array([p, *[-1.0] * (p - 1)]), 2.0
    cycle = opt.cycle_drift(slopes, beta1=beta1, beta2=beta2)
    # Long enough to cross the domain twice at the predicted drift, and for the moments to repeat to machine precision.
    start = patience * p * int(4 * p / (alpha * cycle.drift) ** 2 + 40 / ((1 - beta2) * p) + 10)
    times = np.unique([*np.geomspace(p, 3 * start, 40).round(), start, 3 * start])
    run = opt.cyclic_losses(
        slopes,
        steps=3 * start,
        method=method,
        step_size=alpha,
        beta1=beta1,
        beta2=beta2,
        times=times,
    )
    measured = float(run.regret[-1] - run.regret[times == start][0]) / (2 * start)
    stays = at_least(measured, 2 / p).with_data(
        times=times, average=run.average_regret, limit=2 / p
    )
    if method != "adam" or cycle.drift >= 0:
        return stays
    low, high = np.array(cycle.regret_between(start, 3 * start, alpha)) / (2 * start)
    error = (high - low) / 2 + 6 * start * np.finfo(float).eps
    source = "enclosure of the regret over the last two thirds of the run; rounding of the sum"
    return all_of(stays, equal(measured, (high + low) / 2, error=error, source=source))


@adam_fails_with_momentum_long_period.panel
def _(ax, runs: Runs) -> None:
    draw_average_regret(ax, runs, ("-", "--"))
    ax.set_title(r"Slopes 101, $-1$, ..., $-1$ at $\beta=(0.9,0.99)$: $R_T/T\to2/101$")


@claim(
    r"With independent slopes, $1010$ with probability $0.01$ and $-10$ otherwise (mean $0.2$, best point $-1$ of $[-1,1]$), "
    r"$(\beta_1,\beta_2)=(0.9,0.99)$, $\alpha_t=2/\sqrt t$ and $x_1=0$, projected Adam has "
    r"$\mathbb E\,x_T\ge\frac12$ at $T=10^5$.",
    sources=["reddi2018-convergence, Theorem 3 and Section 5"],
    origin="derived",
    kind="counterexample",
    cases={"quick": [{"chains": 32}], "full": [{"chains": 400}]},
    breaks={"slopes of equal size and the same mean": {"rare": 10.0, "probability": 0.51}},
)
def adam_fails_on_random_losses(
    chains: int, seed: int, rare: float = 1010.0, probability: float = 0.01
) -> Evidence:
    rng, options = (
        np.random.default_rng(seed),
        {"steps": 100_000, "step_size": 2.0, "beta1": 0.9, "beta2": 0.99},
    )
    last = opt.random_losses(
        rare=rare, common=-10.0, probability=probability, chains=chains, rng=rng, **options
    )
    return sample_mean(last, 0.5, relation="lower")


ATTAINED = {"slopes": np.array([[-1.0]]), "steps": 1, "beta2": 0.75, "step_size": 1.0, "x0": -1.0}


@claim(
    r"AMSGrad with $\beta_1=0$, $\alpha_t=\alpha/\sqrt t$ on a box of side $D$ has for all convex losses with gradients $g_t$ "
    r"$R_T\le\frac{D^2\sqrt T}{2\alpha}\sum_i\sqrt{\hat v_{T,i}}"
    r"+\frac\alpha2\sum_{t\le T}\sum_i\frac{g_{t,i}^2}{\sqrt{t\hat v_{t,i}}}$; equality occurs.",
    sources=["reddi2018-convergence, Theorem 4", "kingma2014-adam, Theorem 4.1"],
    origin="derived",
    kind="inequality",
    cases=[
        ATTAINED,
        {
            "slopes": np.sin(np.arange(300.0) ** 2).reshape(100, 3),
            "steps": 100_000,
            "beta2": 0.9,
            "step_size": 1.0,
            "x0": 0.5,
        },
        {
            "slopes": np.array([[10.0], [-1.0], [-1.0]]),
            "steps": 300_000,
            "beta2": 1 / 101,
            "step_size": 0.5,
            "x0": 1.0,
        },
    ],
    space={
        "slopes": Real(-1, 1, size=(16, 2)),
        "beta2": Real(0.0, 0.999),
        "step_size": Real(0.01, 5, log=True),
        "x0": Real(-1, 1),
    },
    breaks={"latest second moment (Adam)": {"method": "adam"}},
    shifts={"bound lowered by 1 %": {**ATTAINED, "factor": 0.99}},
)
def amsgrad_regret_bound_no_momentum(
    slopes, beta2, step_size, x0, steps: int = 16, method="amsgrad", factor=1.0
) -> Evidence:
    run = opt.cyclic_losses(
        slopes, steps=steps, method=method, step_size=step_size, beta2=beta2, x0=x0
    )
    bound = factor * run.monotone_bound
    return at_most(run.regret, bound).with_data(times=run.times, regret=run.regret, bound=bound)


@amsgrad_regret_bound_no_momentum.panel
def _(ax, runs: Runs) -> None:
    broken = runs.controls["latest second moment (Adam)"].data
    for data, colour, name in (
        (runs[1].data, COLOURS[2], "AMSGrad, 100 irregular slopes"),
        (runs[2].data, COLOURS[0], r"AMSGrad, slopes 10, $-1$, $-1$"),
        (broken, BROKEN, r"Adam, slopes 10, $-1$, $-1$"),
    ):
        whole = data["times"] % 3 == 0
        ax.plot(
            data["times"][whole],
            (data["regret"] / data["bound"])[whole],
            ".",
            color=colour,
            label=name,
        )
    ax.axhline(1, color="black")
    ax.set(
        title="Regret / bound: a running maximum keeps it below 1",
        xscale="log",
        yscale="log",
        xlabel="T (log)",
    )
    ax.set_ylabel("regret / bound (log)")
    ax.legend(loc="upper left", labelcolor="linecolor")


if __name__ == "__main__":
    run_script(__file__)
