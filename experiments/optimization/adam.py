"""Adam: how long a step can be, and how large the regret can grow."""

from fractions import Fraction

import numpy as np

from theorylab import optimization as opt
from theorylab.verify import (
    Int,
    Real,
    also,
    breaks,
    cases,
    compare,
    full,
    mean,
    note,
    panel,
    paper,
    rescues,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

DEFAULTS = {"beta1": 0.9, "beta2": 0.999}
KEY, SEEN = "kingma2014-adam", "arXiv 1412.6980, text"
step = paper(
    KEY,
    r"With $\Delta_t=\alpha\hat m_t/\sqrt{\hat v_t}$, where $\hat m_t,\hat v_t$ are "
    r"the bias-corrected "
    r"averages of the gradients $g$ and of $g^2$ with coefficients $\beta_1,\beta_2\in(0,1)$, and "
    r"$\epsilon=0$:",
)
max_step = paper(
    KEY,
    r"With $u_t=\max(\beta_2u_{t-1},|g_t|)$ and $\Delta_t=\alpha m_t/((1-\beta_1^t)u_t)$:",
)
regret = paper(KEY, r"Without projection, $\epsilon=0$, $\alpha_t=\alpha/\sqrt t$:")
online = paper(
    "reddi2018-convergence",
    r"Linear losses on $[-1,1]$, $\alpha_t=\alpha/\sqrt t$, projected, without bias correction:",
)


def rational(x):
    return Fraction(x).limit_denominator(10_000)


# ---------------------------------------------------------------------------------- steps
@simulation
def rescaled_runs(exponents, eps, seed):
    """Iterates of Adam on a noisy quadratic, with gradients multiplied by 2^0 and by
    2^exponents."""
    rng = np.random.default_rng(seed)
    noise, x0, curvature = rng.normal(size=(201, 5)), rng.normal(size=5), np.geomspace(0.1, 10, 5)
    return tuple(
        opt.adam(
            lambda x, t, s=s: s * (curvature * x + noise[t]), x0, step_size=0.01, steps=200, eps=eps
        ).iterates
        for s in (1.0, 2.0 ** np.round(exponents))
    )


@simulation
def rational_history(length, seed):
    rng = np.random.default_rng(seed)
    factors = [Fraction(int(p), int(q)) for p, q in rng.integers(1, 1000, size=(5, 2))]
    return factors, rng.integers(-99, 100, size=(5, length)).tolist()


@step.abstract("a")
@cases(exponents=[np.array([0.0, 3.0, -3.0, 20.0, -40.0]), np.array([-20.0, -9.0, 0.0, 9.0, 20.0])])
@space(exponents=Real(-60, 60, size=5))
@breaks("eps = 0.01", eps=0.01)
def adam_gradient_rescaling_invariance(exponents, seed, eps=0.0):
    r"""With gradients $Dg_t$, $D$ diagonal and positive, Adam takes the steps and has the iterates
    that it has with $g_t$ (bit for bit where $D$ holds powers of two)."""
    beta = {"beta1": Fraction(9, 10), "beta2": Fraction(99, 100)}
    factors, histories = rational_history(20, seed)
    scaled = [[c * g for g in h] for c, h in zip(factors, histories, strict=True)]
    base, moved = rescaled_runs(exponents, eps, seed)
    own = tuple(opt.adam_step_squared(h, **beta) for h in histories)
    return {
        "iterates": compare(within(moved, 0.0, "powers of two"), "==", theory("iterates", base)),
        "steps": compare(
            tuple(opt.adam_step_squared(h, **beta) for h in scaled), "==", theory("steps", own)
        ),
    }


def gradients(history, length, b1, b2):
    """A history by name, or as given."""
    named = {
        "worst": lambda: opt.adam_worst_gradients(length, beta1=b1, beta2=b2),
        "ten ones after zeros": lambda: (0,) * length + (1,) * 10,
        "spike after zeros": lambda: (0,) * length + (1,),
        "constant": lambda: (1,) * length,
    }
    return named[history]() if isinstance(history, str) else history


@step.published("Section 2.1", seen=SEEN, serves="c")
@cases(beta1=0.9, beta2=0.95, history=(18, 19))
@cases(beta1=0.9, beta2=0.99, history="worst")
@cases(**DEFAULTS, history=["ten ones after zeros", "worst"])
@note(refuted_by="adam-step-supremum", credit="math.stackexchange 3325577 asks about the bound")
@rescues("one spike after zeros", history="spike after zeros", length=10_000)
@rescues("constant gradients", history="constant")
@rescues("one spike after zeros, second case", history="spike after zeros", beta2=0.9)
def adam_step_bound_is_violated(beta1, beta2, history, length=1000):
    r"""$|\Delta_t|\le\alpha(1-\beta_1)/\sqrt{1-\beta_2}$ if $1-\beta_1>\sqrt{1-\beta_2}$, and
    $|\Delta_t|\le\alpha$ otherwise."""
    b1, b2 = rational(beta1), rational(beta2)
    squared = opt.adam_step_squared(gradients(history, length, b1, b2), beta1=b1, beta2=b2)
    return compare(squared, "<=", theory("bound", opt.stated_step_bound_squared(b1, b2)))


@step.ours("corrects Section 2.1", serves="c")
@cases(beta1=0.5, beta2=0.25, length=10)
@cases(**DEFAULTS, length=[1, 10, 100, 1000])
@full(beta1=0.5, beta2=0.25, length=10)
@full(**DEFAULTS, length=[1, 3, 10, 30, 100, 209, 210, 300, 3000, 1000])
@space(
    beta1=Real(0.01, 0.99), beta2=Real(0.01, 0.99), length=Int(1, 12), given=Real(-1, 1, size=12)
)
@breaks("no bias correction", corrected=False)
def adam_step_supremum(beta1, beta2, length, given=None, corrected=True):
    r"""$\max_g\Delta_t^2/\alpha^2=\frac{(1-\beta_1)^2}{1-\beta_2}\frac{1-\beta_2^t}{(1-\beta_1^t)^2}
    \frac{1-\rho^t}{1-\rho}$ with $\rho=\beta_1^2/\beta_2$ ($t$ for the last fraction if $\rho=1$):
    attained at $g_{t-k}\propto(\beta_1/\beta_2)^k$, and never exceeded."""
    b1, b2 = rational(beta1), rational(beta2)
    scale = 1 if corrected else (1 - b1**length) ** 2 / (1 - b2**length)
    worst = opt.adam_worst_gradients(length, beta1=b1, beta2=b2)
    other = [Fraction(x) for x in (worst if given is None else given[:length])]
    attained, found = (scale * opt.adam_step_squared(g, beta1=b1, beta2=b2) for g in (worst, other))
    ceiling = scale * opt.adam_step_ceiling_squared(length, beta1=b1, beta2=b2)
    supremum = theory("supremum", opt.adam_step_supremum_squared(length, beta1=b1, beta2=b2))
    return {
        "attained": compare(attained, "==", supremum),
        "Cauchy-Schwarz": compare(ceiling, "==", supremum),
        "a history": compare(found, "<=", supremum),
    }


@panel(
    adam_step_supremum,
    r"Adam's step exceeds its stated bound: $7.27\alpha$ at the defaults",
    x="step $t$",
    y=r"largest $\Delta_t^2/\alpha^2$",
    log="x",
)
def _(pen, runs):
    t = np.unique(np.geomspace(1, 3e3, 80).round())
    b1, b2 = DEFAULTS.values()
    pen.theory(
        t, [opt.adam_step_supremum(int(n), beta1=b1, beta2=b2) ** 2 for n in t], "exact supremum"
    )
    pen.points(*runs.measured("length", where=DEFAULTS))
    spike = (1 - b1) ** 2 / (1 - b2) * (1 - b2**t) / (1 - b1**t) ** 2
    pen.theory(t, opt.stated_step_bound_squared(b1, b2), "bound as stated", k=1)
    pen.theory(t, spike, "one spike", k=2)


@max_step.published("Section 7.1", seen=SEEN, serves="cd")
@cases(**DEFAULTS, length=[2, 1000])
@cases(beta1=0.9, beta2=0.95, length=1000)
@note(refuted_by="adamax-step-supremum")
@rescues("running maximum without decay, beta_2 = 1", beta2=1.0)
@rescues("constant gradients", constant=True)
def adamax_step_bound_is_violated(beta1, beta2, length, constant=False):
    r"""$|\Delta_t|\le\alpha$."""
    b1, b2 = rational(beta1), rational(beta2)
    history = [1] * length if constant else opt.adamax_worst_gradients(length, beta2=b2)
    return compare(opt.adamax_step(history, beta1=b1, beta2=b2), "<=", theory("bound", 1))


@max_step.ours("corrects Section 7.1", serves="cd")
@cases(beta1=0.9, beta2=0.9, length=100)
@cases(beta1=0.9, beta2=[1.0, 0.95, 0.92], length=1000)
@full(beta1=0.9, beta2=0.9, length=100)
@full(beta1=0.9, beta2=[1.0, 0.999, 0.99, 0.97, 0.95, 0.92], length=1000)
@space(beta1=Real(0.01, 0.99), beta2=Real(0.01, 1.0), length=Int(1, 12), given=Real(-1, 1, size=12))
@breaks("no bias correction", corrected=False, length=2)
def adamax_step_supremum(beta1, beta2, length, given=None, corrected=True):
    r"""$\max_g|\Delta_t|/\alpha=\frac{1-\beta_1}{1-\beta_1^t}\frac{1-\rho^t}{1-\rho}$ with
    $\rho=\beta_1/\beta_2$ ($t$ for the last fraction if $\rho=1$), also at $\beta_2=1$: attained at
    $g_{t-k}=\beta_2^{-k}g_t$, and never exceeded."""
    b1, b2 = rational(beta1), rational(beta2)
    scale = 1 if corrected else 1 - b1**length
    worst = opt.adamax_worst_gradients(length, beta2=b2)
    other = [Fraction(x) for x in (worst if given is None else given[:length])]
    attained, found = (scale * abs(opt.adamax_step(g, beta1=b1, beta2=b2)) for g in (worst, other))
    supremum = theory("supremum", opt.adamax_step_supremum(length, beta1=b1, beta2=b2))
    ceiling = scale * opt.adamax_step_ceiling(length, beta1=b1, beta2=b2)
    return {
        "attained": compare(attained, "==", supremum),
        "term by term": compare(ceiling, "==", supremum),
        "a history": compare(found, "<=", supremum),
    }


@panel(
    adamax_step_supremum,
    r"AdaMax's step exceeds $\alpha$ for every $\beta_2<1$ ($\beta_1=0.9$)",
    x=r"$\beta_2$",
    y=r"largest $|\Delta_t|/\alpha$, $t=1000$",
)
def _(pen, runs):
    grid = np.linspace(0.915, 1, 200)
    supremum = [opt.adamax_step_supremum(1000, beta1=0.9, beta2=float(b)) for b in grid]
    pen.theory(grid, supremum, "exact supremum")
    pen.points(*runs.measured("beta2", where={"length": 1000}))
    pen.theory(grid, 1.0, "bound as stated", k=1)


@max_step.ours("sharpens the limit of Section 7.1 by a two-sided bound", serves="d")
@cases(beta2=[0.999, 0.9], p=[2.0, 65536.0, tuple(2.0 ** np.arange(1, 17))])
@cases(beta2=0.8, p=3.0, gradients=0.8 ** np.arange(20.0))
@cases(beta2=0.8, p=3.0, gradients=np.append(np.full(19, 1e-3), 1.0))
@cases(beta2=0.9, p=8.0)
@space(beta2=Real(0.3, 0.999), p=Real(1, 1e4, log=True), gradients=Real(0.01, 1, size=20))
@breaks("weights beta_2 in place of beta_2^p", decay_power=False)
def adamax_is_the_limit_of_p_norms(beta2, p, gradients=np.linspace(1, 0.3, 20), decay_power=True):
    r"""For $v_t=\beta_2^pv_{t-1}+(1-\beta_2^p)|g_t|^p$,
    $(1-\beta_2^p)^{1/p}\le v_t^{1/p}/u_t\le(t(1-\beta_2^p))^{1/p}$, so that $v_t^{1/p}\to u_t$ as
    $p\to\infty$; both are attained."""
    g, p = np.asarray(gradients), np.atleast_1d(p)
    u = (beta2 ** np.arange(len(g) - 1.0, -1.0, -1.0) * g).max()
    powers = [beta2 if decay_power else beta2 ** (1 / q) for q in p]
    norms = [opt.adamax_finite_p_norm(g, beta2=b, p=q) for b, q in zip(powers, p, strict=True)]
    ratio = within(np.array(norms) / u, 1e-13, "rounding")
    lower = (1 - beta2**p) ** (1 / p)
    return {
        "above": compare(ratio, ">=", theory("lower bound", lower)),
        "below": compare(ratio, "<=", theory("upper bound", len(g) ** (1 / p) * lower)),
    }


# ---------------------------------------------------------------------------------- regret
@regret.published("Theorem 4.1", seen=SEEN, serves="b")
@also("reddi2018-convergence", "b")
@cases(slopes=(10, -1, -1), beta2=1 / 101, beta1=[0.1, 0.0], steps=3000)
@full(slopes=(3, -1, -1), beta2=0.1, beta1=0.5, steps=300_000)
@full(slopes=(10, -1, -1), beta2=1 / 101, beta1=0.0, steps=[300, 3000, 30_000, 300_000])
@note(refuted_by="amsgrad-regret-bound-no-momentum", credit="reddi2018-convergence, Theorem 1")
@rescues("long memory, beta_2 = 0.99", beta2=0.99)
@rescues("no rare large slope", slopes=(3, -2, -2))
@rescues("long memory with momentum", beta2=0.99, beta1=0.5)
def adam_regret_theorem_false(slopes, beta2, beta1, steps):
    r"""For convex $f_t$ with gradients bounded by $G_\infty$, iterates within distance $D$,
    $\gamma=\beta_1^2/\sqrt{\beta_2}<1$, $\beta_{1,t}=\beta_1\lambda^{t-1}$ and every $T$, Adam's
    regret is at most $\frac{D^2}{2\alpha(1-\beta_1)}\sum_i\sqrt{T\hat v_{T,i}}
    +\frac{\alpha(1+\beta_1)G_\infty}{(1-\beta_1)\sqrt{1-\beta_2}(1-\gamma)^2}\sum_i\|g_{1:T,i}\|_2
    +\sum_i\frac{D^2G_\infty\sqrt{1-\beta_2}}{2\alpha(1-\beta_1)(1-\lambda)^2}$. (Judged on
    $C\max(x,-1)$, $\max(-x,-1)$, $\max(-x,-1)$ repeated, $\alpha=\lambda=\frac12$, $x_1=0.9$.)"""
    betas = {"beta1": rational(beta1), "beta2": rational(beta2)}
    start = {"step_size": Fraction(1, 2), "x0": Fraction(9, 10)}
    result = opt.certified_regret(slopes, steps=steps, **betas, **start)
    return compare(result.regret, "<=", theory("bound", result.stated_bound))


@panel(
    adam_regret_theorem_false,
    "Adam's regret bound fails: slopes 10, -1, -1 without projection",
    x="$T$",
    y="regret",
    log="xy",
)
def _(pen, runs):
    ten = {"slopes": (10, -1, -1)}
    pen.theory(*runs.predicted("steps", where=ten), "bound of Theorem 4.1", k=1)
    pen.points(*runs.measured("steps", where=ten), "certified regret")
    pen.broken(*runs.measured("steps", control="long memory, beta_2 = 0.99"), r"$\beta_2=0.99$")


@regret.ours("derived: how far Theorem 4.1 is from true", serves="b")
@also("reddi2018-convergence", "ab")
@cases(c=3, x0=0.9, step_size=0.5, periods=[100, 1000])
@cases(c=50, x0=0.0, step_size=2.0, periods=1000)
@cases(c=10, x0=0.9, step_size=0.5, periods=1000)
@space(c=Int(3, 90), x0=Real(-0.99, 1.5), step_size=Real(0.01, 5.0), periods=Int(10, 300))
@breaks("long memory, beta_2 = 0.99", beta2=0.99)
def adam_unprojected_linear_regret(c, x0, step_size, periods, beta2=None):
    r"""With losses $C\max(x,-1),\max(-x,-1),\max(-x,-1)$ repeated, $\beta_1=0$,
    $\beta_2=1/(1+C^2)$ and $x_1=$ x0, Adam has $R_T\ge\frac T3((1+\min(x_1,1))C-4)$ for every
    multiple $T$ of 3."""
    b2 = Fraction(1, 1 + c * c) if beta2 is None else rational(beta2)
    start = {"step_size": rational(step_size), "x0": rational(x0)}
    slopes = (c, -1, -1)
    run = opt.certified_regret(slopes, steps=3 * periods, beta1=Fraction(0), beta2=b2, **start)
    rate = theory("rate", (1 + min(start["x0"], Fraction(1))) * c - 4)
    return compare(run.regret, ">=", periods * rate)


@simulation
def repeated(slopes, times, method, step_size, beta1, beta2, x0=1.0):
    options = {"method": method, "step_size": step_size, "beta1": beta1, "beta2": beta2, "x0": x0}
    run = opt.cyclic_losses(np.array(slopes), steps=int(times[-1]), times=times, **options)
    return run.iterates[:, 0], run.average_regret


@online.ours("sharpens Theorem 1 by a two-sided bound", serves="ab")
@cases(c=[3.0, 50.0, 10.0], fraction=0.5)
@space(c=Real(2.1, 90.0), fraction=Real(0.02, 0.99))
@breaks("running maximum (AMSGrad)", method="amsgrad")
@breaks("AdaGrad", method="adagrad")
@breaks("beta_2 = 0.9", beta2=0.9)
def adam_period3_linear_regret(c, fraction, beta2=None, method="adam", periods=30_000):
    r"""With slopes $C,-1,-1$ repeated, $C>2$, $\beta_1=0$, $\beta_2=1/(1+C^2)$,
    $0<\alpha<\sqrt{1-\beta_2}$ ($\alpha$ is the fraction of it) and $x_1=1$, Adam has $x_{3k+1}=1$
    for all $k$ though $-1$ is the best point: for every multiple $T$ of 3, $0\le\frac{R_T}T
    -\frac{2C-4}3\le\frac{2\alpha}{T\sqrt{1-\beta_2}}(\frac13+\frac23\sqrt T)$."""
    b2 = 1 / (1 + c * c)
    alpha = fraction * (1 - b2) ** 0.5
    starts = 3 * np.arange(periods) + 1
    times = 3 * np.unique(np.geomspace(1, periods, 25).round()).astype(int)
    run = ((c, -1.0, -1.0), method, alpha, 0.0, beta2 or b2)
    iterates, _ = repeated(run[0], starts, *run[1:])
    _, average = repeated(run[0], times, *run[1:])
    excess = 2 * fraction * (1 / 3 + 2 / 3 * np.sqrt(times)) / times
    limit = theory("limit", (2 * c - 4) / 3)
    ends = np.array([iterates.min(), iterates.max()])
    return {
        "limit": compare(within(average[-1], excess[-1], "the stated bound"), "==", limit),
        "above": compare(within(average, 1e-12 * c, "rounding"), ">=", limit),
        "below": compare(
            within(average, 1e-12 * c, "rounding"), "<=", limit + theory("excess", excess)
        ),
        "returns": compare(within(ends, 0.0, "projection"), "==", theory("iterate", np.ones(2))),
    }


@panel(
    adam_period3_linear_regret,
    r"A rare large slope keeps Adam at the worst point: $R_T/T\to(2C-4)/3$",
    x="slope $C$",
    y="$R_T/T$ at $T=90000$",
    log="xy",
)
def _(pen, runs):
    c = np.geomspace(3, 50, 50)
    pen.theory(c, (2 * c - 4) / 3, "$(2C-4)/3$")
    pen.points(*runs.measured("c"), "Adam")
    for name in ("running maximum (AMSGrad)", "AdaGrad", "beta_2 = 0.9"):
        pen.broken(*runs.measured("c", control=name), name.replace("beta_2", r"$\beta_2$"))


@online.ours("sharpens Theorem 2 by the period and the limit", serves="a")
@cases(beta1=0.5, beta2=0.9)
@cases(beta1=0.9, beta2=0.99, period=101)
@full(beta1=0.0, beta2=0.5)
@full(beta1=0.5, beta2=0.9)
@full(**DEFAULTS)
@full(beta1=0.9, beta2=0.99, period=101, patience=300)
@space(
    beta2=Real(0.1, 0.995),
    beta1=Real(0.0, "0.95 * sqrt(beta2)"),
    alpha=Real(0.5, 3.0),
    x0=Real(-1, 1),
)
@breaks("running maximum (AMSGrad)", method="amsgrad", patience=300)
@breaks("beta_2 = 0.9999", beta2=0.9999, patience=1)
def adam_fails_with_momentum_long_period(
    beta1, beta2, period=None, method="adam", patience=10, alpha=2.0, x0=-1.0
):
    r"""For $0\le\beta_1<\sqrt{\beta_2}<1$ there is a period $P$ such that with slopes
    $P,-1,\dots,-1$ repeated (sum 1, best point $-1$) Adam from $x_1=$ x0 has $R_T/T\to2/P$: one at
    which $m/\sqrt v$ has a negative sum over a stationary period. The mean over $(T,3T]$ exceeds
    $2/P$ by that of the stationary excursions from 1 at step $\alpha_t$. ($P=101$ for
    $\beta=(0.9,0.99)$ is published.)"""
    p = period or 2 * opt.failing_period(beta1=beta1, beta2=beta2)
    slopes = (float(p), *[-1.0] * (p - 1))
    cycle = opt.cycle_drift(np.array(slopes), beta1=beta1, beta2=beta2)
    # Long enough to cross the domain twice at the drift, and for the moments to repeat.
    crossing = int(4 * p / (alpha * cycle.drift) ** 2 + 40 / ((1 - beta2) * p) + 10)
    start = patience * p * crossing
    _, average = repeated(slopes, np.array([start, 3 * start]), method, alpha, beta1, beta2, x0)
    late = (3 * average[1] - average[0]) / 2
    stays = cycle.drift < 0
    ends = np.array(cycle.regret_between(start, 3 * start, alpha) if stays else (0.0, 0.0))
    low, high = ends / (2 * start) - stays * cycle.average_regret
    error = (high - low) / 2 + 6 * start * np.finfo(float).eps
    measured = within(late, error, "change of the step size within a period")
    excursion = theory("excursion", (low + high) / 2)
    return compare(measured, "==", theory("limit", 2 / p) + excursion)


@panel(
    adam_fails_with_momentum_long_period,
    r"For every $\beta$ some period $P$ defeats Adam: $R_T/T\to2/P$",
    x=r"momentum $\beta_1$",
    y="late regret a step",
    log="y",
)
def _(pen, runs):
    pen.points(*runs.predicted("beta1"), label="$2/P$", k=1)
    pen.points(*runs.measured("beta1"), "Adam")
    for name in ("running maximum (AMSGrad)", "beta_2 = 0.9999"):
        pen.broken(*runs.measured("beta1", control=name), name.replace("beta_2", r"$\beta_2$"))


@simulation
def last_iterates(rare, common, probability, chains, x0, seed):
    options = {"steps": 100_000, "step_size": 2.0, "beta1": 0.9, "beta2": 0.99, "x0": x0}
    law = {"rare": rare, "common": common, "probability": probability}
    return opt.random_losses(**law, chains=chains, rng=np.random.default_rng(seed), **options)


@online.ours("an instance of Theorem 3, recalled, with numbers", serves="a")
@cases(chains=32, x0=0.0)
@full(chains=400, x0=[-1.0, 0.0])
@space(x0=Real(-1, 1), chains=Int(24, 32))
@breaks("slopes of equal size and the same mean", rare=10.0, probability=0.51)
def adam_fails_on_random_losses(chains, x0, seed, rare=1010.0, probability=0.01):
    r"""With independent slopes, $1010$ with probability $0.01$ and $-10$ otherwise (mean $0.2$,
    best point $-1$), $(\beta_1,\beta_2)=(0.9,0.99)$ and $\alpha=2$, Adam from $x_1=$ x0 has
    $\mathbb E\,x_T\ge\frac12$ at $T=10^5$."""
    last = last_iterates(rare, -10.0, probability, chains, x0, seed)
    return compare(mean(last), ">=", theory("bound", 0.5))


@simulation
def box_run(slopes, beta2, step_size, x0, method):
    options = {"beta2": beta2, "step_size": step_size, "x0": x0, "method": method}
    run = opt.cyclic_losses(slopes, steps=len(slopes), times=[len(slopes)], **options)
    return run.regret[0], run.diameter_term[0], run.gradient_term[0]


@online.ours("Theorem 4, recalled, without momentum and with smaller constants", serves="c")
@also(KEY, "b")
@cases(slopes=np.array([[-1.0]]), beta2=0.75, step_size=1.0, x0=-1.0)
@cases(length=[100, 10_000], beta2=0.9, step_size=1.4, x0=0.0)
@cases(slopes=np.tile([[10.0], [-1.0], [-1.0]], (10_000, 1)), beta2=1 / 101, step_size=0.5, x0=1.0)
@space(
    slopes=Real(-1, 1, size=(16, 2)),
    beta2=Real(0.0, 0.999),
    step_size=Real(0.01, 5, log=True),
    x0=Real(-1, 1),
)
@breaks("latest second moment (Adam)", method="adam")
def amsgrad_regret_bound_no_momentum(
    beta2, step_size, x0, slopes=None, length=16, method="amsgrad"
):
    r"""AMSGrad with $\beta_1=0$ on a box of side $D$ has for all convex losses with gradients $g_t$
    $R_T\le\frac{D^2\sqrt T}{2\alpha}\sum_i\sqrt{\hat v_{T,i}}
    +\frac\alpha2\sum_{t\le T}\sum_i\frac{g_{t,i}^2}{\sqrt{t\hat v_{t,i}}}$, with equality at
    $T=1$."""
    chirp = np.sign(np.sin(6 * np.sqrt(np.arange(1.0, length + 1))))[:, None]
    given = chirp if slopes is None else slopes
    found, diameter, gradient = box_run(given, beta2, step_size, x0, method)
    error = 1e-13 * len(given)
    bound = theory("diameter term", diameter) + theory("gradient term", gradient)
    return compare(within(found, error, "rounding of the sum"), "<=", bound)


if __name__ == "__main__":
    run_script(__file__)
