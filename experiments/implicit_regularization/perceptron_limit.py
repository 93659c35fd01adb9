"""Logistic regression with large steps is a perceptron, and small losses need large weights."""

from fractions import Fraction

import mpmath as mp
import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.verify import (
    Choice,
    Int,
    Real,
    between,
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

KEY = "tyurin2024-from"
SEEN = "full text, public repository"
DESCENT = (
    r"Rows $z_i=y_ia_i$ that some $w$ separates, $z_i^\top w>0$, $R=\max\|z_i\|$, margin "
    r"$\mu=\max_{\|w\|=1}\min_iz_i^\top w$, and gradient descent $\theta_t$ on $\frac1n\sum_i"
    r"\log(1+e^{-z_i^\top\theta})$ from $\theta_0=0$ with steps $\gamma$:"
)
descent = paper(KEY, DESCENT)
perceptron = paper(
    KEY,
    r"Rows $z_i=y_ia_i$ that some $w$ separates, $R=\max\|z_i\|$, margin $\mu=\max_{\|w\|=1}"
    r"\min_iz_i^\top w$, and the batch perceptron $\hat\theta_1=\frac1{2n}\sum_iz_i$, "
    r"$\hat\theta_{t+1}=\hat\theta_t+\frac1n\sum_{z_i^\top\hat\theta_t\le0}z_i$:",
)
imbalanced = paper(
    KEY,
    r"One row $(-1,\mu)$ and $n-1$ rows $(1,\mu)$, $0<\mu\le1$, whose margin is $\mu$:",
)
two = paper(
    KEY,
    r"Gradient descent with steps $\gamma\to\infty$ on the mean logistic loss $f$ of the rows "
    r"$z_1=(1,-p)$, $z_2=(1,q)$ from $\theta_0=0$:",
)
ball = paper(
    "gupta2021-logit",
    r"Rows $z_i=y_ix_i$, separable or not, $\mu=\max_{\|w\|\le1}\min_iz_i^\top w\ge0$, and the "
    r"mean logistic loss $f$:",
)
free = paper(
    "gupta2021-logit",
    r"Separable rows $z_i=y_ix_i$ of margin $\mu$, $R=\max\|z_i\|$, and gradient descent $w_t$ on "
    r"the mean logistic loss $f$ from zero without a penalty, with steps $\eta\le4/R^2$:",
)
block = paper(
    "gupta2021-logit",
    r"A network of $K$ classes whose last $k$ layers are positively homogeneous with 1-Lipschitz "
    r"activations, spectral norms at most $r_\ell$ (the rows of the last: norms at most $r_k$), "
    r"and features $h$ entering them:",
)


def random_rows(n, d, push, seed):
    return ir.separable_rows(n, d, push=push, seed=seed, offset=1.0)


def lonely_row(n, d, push, seed):
    """All rows but one near (1, push, 0), and one near (-1, push, 0): many steps."""
    noise = np.random.default_rng([seed, 3]).uniform(-0.1, 0.1, (max(n, 2), max(d, 2)))
    noise[:, 1] = 0.0
    noise[:, :2] += ir.imbalanced_pair(max(n, 2), margin=push)
    return noise


def tied_rows(n, d, push, seed):
    """The sum of the rows is orthogonal to the first."""
    Z = np.zeros((n, d + 1))
    Z[:, 1] = 1 / n
    Z[0, :2] = 1.0, 0.0
    Z[1, 0] = -1.0
    return Z


@simulation
def limits(Z, start):
    """Iterates of descent over the step size from the first on, with large steps and with twice as
    large ones, and those of the perceptron."""
    run = ir.batch_perceptron(Z, max_iter=400)
    scores = np.abs(run.scores[1:])
    step = 200 / scores[scores > 0].min()
    found = [
        ir.logistic_descent(Z, step_size=s * step, steps=run.steps, start=start).iterates
        / (s * step)
        for s in (1, 2)
    ]
    return found[0][1:], found[1][1:], run.iterates[1:]


@descent.published(
    "Theorem 3.2, of whose Assumption 3.1 its proof needs this", seen=SEEN, serves="a"
)
@cases(n=8, d=3, push=0.02, rows=[random_rows, lonely_row])
@full(n=[8, 60], d=[2, 5], push=0.02, rows=[random_rows, lonely_row])
@space(
    n=Int(1, 30),
    d=Int(1, 6),
    push=Real(0.001, 0.5, log=True),
    rows=Choice([random_rows, lonely_row]),
)
@breaks("a tie", rows=tied_rows)
@breaks("another start", start=0.7)
def lrgd_to_batch_perceptron(n, d, push, rows, seed, start=0.0):
    r"""where no $z_i^\top\hat\theta_t=0$, $\theta_t/\gamma\to\hat\theta_t$ for every $t$ as $\gamma
    \to\infty$: the batch perceptron, $\hat\theta_1=\frac1{2n}\sum_iz_i$, $\hat\theta_{t+1}=
    \hat\theta_t+\frac1n\sum_{z_i^\top\hat\theta_t\le0}z_i$, until it separates the rows."""
    Z = rows(n, d, push, seed)
    one, other, exact = limits(Z, start * Z[0])
    error = np.abs(one - other) + 1e-12 * np.abs(one).max()
    measured = within(one, error, "difference to twice the step size; rounding")
    return compare(measured, "==", theory("perceptron", exact))


@simulation
def remainders(Z, start):
    """Logarithm of |theta_t / gamma - perceptron| one step after the perceptron has stopped, at
    three step sizes in geometric progression, with as many digits as that needs."""
    run = ir.batch_perceptron(Z, max_iter=60)
    scores = np.sort(np.abs(run.scores[1:]).ravel())
    least = scores[0]
    second = min(scores[scores > least * (1 + 1e-9)], default=2 * least)
    # Beyond both what the second smallest score and what the shift of the scores would add.
    first = max(12 / (second - least), (25 + max(np.log(1 / least), 0.0)) / least)
    gammas = np.array([1.0, 2.0, 3.0]) * first
    if run.status is not ir.SeparationStatus.SEPARATED or gammas[-1] * least > 10_000:
        return gammas, np.full(3, np.nan)  # no isolated smallest score
    n, d = Z.shape
    found = []
    with mp.workdps(int(gammas[-1] * least / 2.3) + 40):
        rows = [[mp.mpf(float(v)) for v in row] for row in Z]
        exact = [mp.mpf(0)] * d
        for t in range(run.steps + 1):
            s = [mp.fdot(z, exact) for z in rows]
            weights = [mp.mpf(1) / 2 if t == 0 else mp.mpf(int(v <= 0)) for v in s]
            exact = [exact[j] + mp.fdot(weights, [z[j] for z in rows]) / n for j in range(d)]
        for gamma in gammas:
            at = [mp.mpf(float(v)) / mp.mpf(float(gamma)) for v in start]
            for _ in range(run.steps + 1):
                weights = [1 / (1 + mp.exp(float(gamma) * mp.fdot(z, at))) for z in rows]
                at = [at[j] + mp.fdot(weights, [z[j] for z in rows]) / n for j in range(d)]
            off = mp.sqrt(mp.fsum((a - b) ** 2 for a, b in zip(at, exact, strict=True)))
            found.append(float(mp.log(off)))
    return gammas, np.array(found)


@descent.ours("derived: the rate of Theorem 3.2, with its constant", serves="a")
@cases(n=6, d=2, push=0.1, rows=[random_rows, lonely_row])
@full(n=[6, 12], d=[2, 4], push=0.1, rows=[random_rows, lonely_row])
@space(
    n=Int(1, 8),
    d=Int(1, 4),
    push=Real(0.1, 0.5, log=True),
    rows=Choice([random_rows, lonely_row]),
)
@breaks("another start", start=0.7)
def perceptron_limit_rate(n, d, push, rows, seed, start=0.0):
    r"""with $\hat\theta_t$ the batch perceptron and $m=\min_{1\le s<t,i}|z_i^\top\hat\theta_s|>0$,
    attained by one $(s,i)$, $\|\theta_t/\gamma-\hat\theta_t\|=\frac{\|z_i\|}ne^{-\gamma m}(1+o(1))$
    as $\gamma\to\infty$. Judged one step after the perceptron has stopped."""
    Z = rows(n, d, push, seed)
    gammas, logs = remainders(Z, start * Z[0])
    rates = -np.diff(logs) / np.diff(gammas)
    constant = np.exp(2 * logs[0] - logs[1])
    other = np.exp(3 * logs[1] - 2 * logs[2])
    run = ir.batch_perceptron(Z, max_iter=60)
    scores = np.abs(run.scores[1:])
    least = scores[scores > 0].min()
    size = np.linalg.norm(Z[np.argwhere(scores == least)[0][1]]) / len(Z)
    source = "difference to larger steps"
    rate = within(rates[0], abs(rates[0] - rates[1]) + 1e-9 * abs(rates[0]), source)
    return {
        "rate": compare(rate, "==", theory("rate", least)),
        "constant": compare(
            within(constant, abs(constant - other) + 1e-6 * constant, source),
            "==",
            theory("constant", size),
        ),
    }


@simulation
def perceptron_run(Z, normalized, start):
    """Steps of the perceptron, radius and certified margin of the rows."""
    margin = ir.max_margin(Z, np.ones(len(Z)))
    first = start * margin.weights / np.linalg.norm(margin.weights)
    run = ir.batch_perceptron(Z, normalized=normalized, start=first, max_iter=20_000)
    radius = float(np.linalg.norm(Z, axis=1).max())
    return run.steps, radius, margin.margin_bound


@perceptron.published("Theorem 3.3", seen=SEEN, serves="c")
@cases(n=[1, 20], d=3, push=0.1, rows=random_rows)
@cases(n=20, d=3, push=0.1, rows=lonely_row)
@full(n=1, d=3, push=0.1, rows=random_rows)
@full(n=[5, 20, 100, 400], d=[2, 10], push=[0.02, 0.5], rows=[random_rows, lonely_row])
@space(
    n=Int(1, 60),
    d=Int(1, 8),
    push=Real(0.01, 1.0, log=True),
    rows=Choice([random_rows, lonely_row]),
)
@breaks("a start on the wrong side", start=-1e4)
def batch_perceptron_complexity(n, d, push, rows, seed, start=0.0):
    r"""it separates the rows after at most $nR^2/\mu^2$ steps."""
    steps, radius, margin = perceptron_run(rows(n, d, push, seed), False, start)
    bound = ir.perceptron_steps_bound(n, radius=radius, margin=margin)
    return compare(steps, "<=", theory("bound", bound))


@panel(
    batch_perceptron_complexity,
    "The batch perceptron and its bound",
    x="number of rows $n$",
    y=r"steps $\times\mu^2/(nR^2)$",
    log="xy",
)
def _(pen, runs):
    pen.theory([1, 400], [1, 1], "bound")
    for k, (rows, name) in enumerate(((random_rows, "random"), (lonely_row, "one apart"))):
        x, y, _ = runs.measured("n", where={"rows": rows})
        pen.points(x, y / runs.predicted("n", where={"rows": rows})[1], label=name, k=k + 1)


def normalized_perceptron(Z):
    return ir.batch_perceptron(Z, normalized=True)


@imbalanced.ours("derived: the exact count behind the lower bound of Theorem 5.1", serves="c")
@cases(n=[10, 100], p=1, q=2)
@cases(n=[60, 150], p=1, q=10)
@full(n=[10, 30, 100, 300, 1000, 4000], p=1, q=2)
@full(n=[60, 100, 300, 1000, 4000], p=1, q=10)
@space(
    q=Int(1, 12),
    p=Int(1, "q"),
    n=Int("max(2, 1 + (1 - (p / q) ** 4) / (2 * (p / q) ** 2))", 150),
)
@breaks("weights of sum one", method=normalized_perceptron)
@breaks("equal classes", others=2)
def batch_perceptron_n_dependence(n, p, q, method=ir.batch_perceptron, others=1):
    r"""where $2\mu^2(n-1)\ge1-\mu^4$, so that no other row is ever misclassified, the batch
    perceptron needs exactly $2+\big\lfloor\frac{n(1-\mu^2)-2}{2(1+\mu^2)}\big\rfloor$ steps,
    though $R^2/\mu^2=1+\mu^{-2}$ does not grow with $n$: its number of steps cannot be bounded
    without $n$."""
    Z = np.tile([float(q), float(p)], (n, 1))
    Z[-1 if others == 1 else slice(None, None, 2), 0] *= -1
    margin = ir.max_margin(Z / q, np.ones(n))
    found = between(margin.margin, margin.margin_bound, "max", certificate=margin)
    return {
        "steps": compare(
            method(Z).steps, "==", theory("steps", ir.imbalanced_steps(n, margin=Fraction(p, q)))
        ),
        "margin": compare(found, "==", theory("margin", p / q)),
    }


@panel(
    batch_perceptron_n_dependence,
    r"One row apart: steps grow with $n$, $R^2/\mu^2$ does not",
    x="number of rows $n$",
    y="steps",
    log="xy",
)
def _(pen, runs):
    for k, (q, first) in enumerate(((2, 10), (10, 60))):
        n = np.unique(np.geomspace(first, 4000, 60).astype(int))
        pen.theory(n, [ir.imbalanced_steps(int(i), margin=Fraction(1, q)) for i in n], k=k)
        pen.points(*runs.measured("n", "steps", where={"q": q}), rf"$\mu=1/{q}$", k=k)
    pen.broken(
        *runs.measured("n", "steps", control="weights of sum one"), label="weights of sum one"
    )


def lonely_pair(n, d, push, seed):
    return ir.imbalanced_pair(max(n, 2), margin=min(push, 1.0))


@simulation
def descent_run(Z, step, normalized):
    margin = ir.max_margin(Z, np.ones(len(Z)))
    run = ir.logistic_descent(
        Z, step_size=step, steps=6000, normalized=normalized, until_separated=True
    )
    radius = float(np.linalg.norm(Z, axis=1).max())
    steps = run.separated_at if run.separated_at > 0 else 6001
    return steps, radius, margin.margin_bound


@descent.published("Theorem 6.1", seen=SEEN, serves="d")
@cases(n=[1, 10], d=3, push=0.1, step=[0.1, 100.0], rows=random_rows)
@cases(n=200, d=2, push=0.3, step=100.0, rows=lonely_pair)
@full(n=1, d=3, push=0.1, step=1.0, rows=random_rows)
@full(n=100, d=4, push=0.1, step=[0.03, 0.3, 3.0, 30.0, 300.0], rows=[random_rows, lonely_row])
@full(n=1000, d=2, push=0.5, step=[0.1, 1.0, 10.0, 100.0], rows=lonely_pair)
@space(
    n=Int(1, 60),
    d=Int(1, 6),
    push=Real(0.05, 1.0, log=True),
    step=Real(0.02, 1e4, log=True),
    rows=Choice([random_rows, lonely_row, lonely_pair]),
)
@breaks("no normalisation", normalized=False)
def normalized_lrgd_finite_step(n, d, push, step, rows, seed, normalized=True):
    r"""with $\gamma/\sum_j\sigma(-z_j^\top\theta_t)$ in place of the steps $\gamma/n$ of the sum of
    gradients, so that the weights of the rows have sum one, all $z_i^\top\theta_t>0$ after at most
    $\frac{R^2}{\mu^2}+\frac{2\log(2n-1)}{\gamma\mu^2}$ steps, for every $\gamma>0$."""
    Z = rows(n, d, push, seed)
    steps, radius, margin = descent_run(Z, step, normalized)
    start = 2 * np.log(2 * len(Z) - 1) / (step * margin**2)
    bound = theory("limit", (radius / margin) ** 2) + theory("start", start)
    return compare(steps, "<=", bound)


@panel(
    normalized_lrgd_finite_step,
    r"Weights of sum one: few steps for many rows ($\mu=1/2$, $n=1000$)",
    x=r"step $\gamma$",
    y="steps to separation",
    log="xy",
)
def _(pen, runs):
    grid = np.geomspace(0.1, 100, 40)
    bounds = [
        ir.normalized_steps_bound(1000, radius=np.sqrt(1.25), margin=0.5, step_size=g) for g in grid
    ]
    pen.theory(grid, bounds, "bound")
    pen.points(*runs.measured("step", where={"rows": lonely_pair}), "normalised")
    pen.broken(*runs.measured("step", control="no normalisation"), label="not normalised")


@perceptron.published("Theorem 5.3", seen=SEEN, serves="d")
@cases(n=[1, 20], d=3, push=0.1, rows=random_rows)
@cases(n=200, d=2, push=0.3, rows=lonely_pair)
@full(n=1, d=3, push=0.1, rows=random_rows)
@full(n=[5, 100, 1000], d=[2, 10], push=[0.02, 0.5], rows=[random_rows, lonely_row, lonely_pair])
@space(
    n=Int(1, 60),
    d=Int(1, 8),
    push=Real(0.01, 1.0, log=True),
    rows=Choice([random_rows, lonely_row, lonely_pair]),
)
@breaks("no normalisation", normalized=False)
@breaks("a start on the wrong side", start=-1e3)
def normalized_lrgd(n, d, push, rows, seed, normalized=True, start=0.0):
    r"""with the mean over the misclassified $z_i$ in place of $\frac1n$ of their sum, from
    $\hat\theta_0=0$ on, it separates the rows after at most $R^2/\mu^2$ steps."""
    Z = rows(n, d, push, seed)
    steps, radius, margin = perceptron_run(Z, normalized, start)
    return compare(
        steps, "<=", theory("bound", ir.normalized_steps_bound(n, radius=radius, margin=margin))
    )


@simulation
def two_steps(n, mu, small, large):
    """Steps to separation, or one more than were taken, and largest loss with small and with large
    steps."""
    Z = ir.imbalanced_pair(n, margin=mu)
    runs = [
        ir.logistic_descent(Z, step_size=g, steps=20_000, until_separated=True)
        for g in (small, large)
    ]
    return [
        (r.separated_at if r.separated_at > 0 else r.steps + 1, float(r.losses.max())) for r in runs
    ]


@imbalanced.abstract("b", instance=True)
@cases(n=25, mu=[0.16, 0.3], small=1.0)
@full(n=20, mu=0.2, small=[0.5, 1.0, 2.0, 4.0], large=[200.0, 500.0, 1000.0])
@full(n=[20, 100], mu=[0.2, 0.4], small=1.0)
@space(
    mu=Real(0.1, 0.9),
    n=Int(
        "max(1 + (1 - mu**4) / (2 * mu**2), (6 + 4 * mu**2) / (1 - mu**2))",
        "30 + max(1 + (1 - mu**4) / (2 * mu**2), (6 + 4 * mu**2) / (1 - mu**2))",
    ),
    small=Real(0.3, "7.9 / (1 + mu**2)", log=True),
)
@breaks("small steps for large ones", large=1.0)
@breaks("large steps for small ones", small=1e4)
def loss_unreliable(n, mu, small, large=0.0):
    r"""gradient descent from zero on the mean logistic loss with steps up to $\frac8{1+\mu^2}$
    keeps the loss at or below its first value $\log2$; with steps $\gamma\to\infty$ it raises it to
    $\frac1n\log(1+e^{\gamma c})+\frac{n-1}n\log(1+e^{-\gamma(c+\mu^2)})$ with $c=\frac{n-2}{2n}-
    \frac{\mu^2}2>0$, and yet, where $2\mu^2(n-1)\ge1-\mu^4$, separates the rows after $T=2+\lfloor
    \frac{n(1-\mu^2)-2}{2(1+\mu^2)}\rfloor$ steps, which are fewer if $T\ge4$."""
    scores = ir.batch_perceptron(ir.imbalanced_pair(n, margin=mu)).scores[1:]
    large = large or 100 / np.abs(scores).min()
    (slow, low), (fast, high) = two_steps(n, mu, small, large)
    c = (n - 2) / (2 * n) - mu**2 / 2
    top = np.logaddexp(0, large * c) / n
    top += (n - 1) / n * np.logaddexp(0, -large * (c + mu**2))
    steps = theory("steps", ir.imbalanced_steps(n, margin=mu))
    return {
        "large steps": compare(fast, "==", steps),
        "highest loss": compare(within(high, 1e-12 * high, "rounding"), "==", theory("loss", top)),
        "small steps": compare(slow, ">", steps),
        "lowest loss": compare(
            within(low, 1e-12, "rounding"), "==", theory("first loss", np.log(2))
        ),
    }


@simulation
def first_two(p, q, doubled):
    """Over the step size or not: loss, gradient norm and iterate after one and after two large
    steps."""
    Z = np.array([[1.0, -p], [1.0, q]])
    scores = np.abs(ir.batch_perceptron(Z, max_iter=2).scores[1:])
    gamma = (1 + doubled) * 200 / scores.min()
    run = ir.logistic_descent(Z, step_size=gamma, steps=2)
    return run.losses, run.gradient_norms, run.iterates / gamma, gamma


def limit_of(one, other):
    return within(other, abs(one - other) + 1e-12, "difference to half of the step size; rounding")


@two.ours("derived: Theorem 4.1 for a family around the pair of its proof, p=1, q=4", serves="b")
@cases(p=1.0, above=0.25)
@cases(p=[0.6, 2.5], above=0.7)
@full(p=[0.5, 1.0, 1.25, 3.0], above=[0.1, 0.25, 0.75])
@space(p=Real(0.2, 4.0), above=Real(0.05, 0.95))
@breaks("the first iterate separates", above=-0.1)
@breaks("the second iterate does not separate", above=1.2)
def high_loss_before_solution(p, above, seed):
    r"""where $p+\frac2p<q<3p+\frac4p$ and $q(3p-q)<4$, the loss diverges, $\frac{f(\theta_1)}\gamma
    \to\frac{p(q-p)-2}8>0$ with $\|\nabla f(\theta_1)\|\to\frac{\sqrt{1+p^2}}2$, just before
    $\frac{\theta_2}\gamma\to(1,\frac{q-3p}4)$, which separates the rows: $f(\theta_2)\to0$,
    $\nabla f(\theta_2)\to0$. With $p=1$, $q=4$ the limits are $\frac18$, $\frac1{\sqrt2}$ and
    $(1,\frac14)$."""
    least = max(p + 2 / p, (3 * p + np.sqrt(max(9 * p**2 - 16, 0.0))) / 2)
    q = least + above * (3 * p + 4 / p - least)
    losses, norms, iterates, gamma = first_two(p, q, False)
    higher, other, further, doubled = first_two(p, q, True)
    steep = theory("slope", (p * (q - p) - 2) / 8)
    return {
        "first loss": compare(limit_of(losses[1] / gamma, higher[1] / doubled), "==", steep),
        "first gradient": compare(
            limit_of(norms[1], other[1]), "==", theory("gradient", np.sqrt(1 + p**2) / 2)
        ),
        "second iterate": compare(
            limit_of(iterates[2], further[2]),
            "==",
            theory("iterate", np.array([1, (q - 3 * p) / 4])),
        ),
        "second loss": compare(limit_of(losses[2], higher[2]), "==", theory("second loss", 0.0)),
        "second gradient": compare(
            limit_of(norms[2], other[2]), "==", theory("second gradient", 0.0)
        ),
    }


@panel(
    loss_unreliable,
    r"Larger steps: higher losses, fewer steps ($n=20$, $\mu=0.2$)",
    x=r"step $\gamma$",
    y="highest loss, and steps",
    log="xy",
)
def _(pen, runs):
    g = np.geomspace(20, 1500, 40)
    c = 0.45 - 0.02
    pen.theory(g, np.logaddexp(0, g * c) / 20, k=0)
    where = {"n": 20, "mu": 0.2}
    x, y, _ = runs.measured("large", "highest loss", where=where)
    pen.points(x[x > 0], y[x > 0], label="highest loss", k=0)
    pen.theory(g, np.full(40, ir.imbalanced_steps(20, margin=0.2)), k=1)
    ends = [runs.measured(k, f"{k} steps", where=where)[:2] for k in ("small", "large")]
    x, y = np.concatenate(ends, axis=1)
    pen.points(x[x > 0], y[x > 0], label="steps", k=1)


def separable(n, d, push, seed):
    return ir.separable_rows(n, d, push=push, seed=seed)


def mixed(n, d, push, seed):
    """Labels at random: separable or not."""
    rng = np.random.default_rng([seed, 8])
    return rng.standard_normal((n, d)) + push


@simulation
def least_loss(Z, radius):
    margin = ir.max_margin(Z, np.ones(len(Z)))
    return *ir.least_logistic_loss(Z, radius=radius)[1:], margin.margin_bound


@ball.ours("derived: the point of least margin alone", serves="a")
@cases(n=[1, 8], d=3, push=0.3, radius=[1.0, 10.0], rows=separable)
@full(n=1, d=2, push=0.3, radius=[1.0, 3.0], rows=separable)
@full(n=8, d=3, push=[0.1, 0.5], radius=[1.0, 3.0, 10.0, 30.0], rows=[mixed, separable])
@space(
    n=Int(1, 30),
    d=Int(1, 8),
    push=Real(0.01, 1.0, log=True),
    radius=Real(0.1, 30.0, log=True),
    rows=Choice([separable, mixed]),
)
@breaks("weights twenty times as long", longer=20.0)
def fixed_norm_loss_floor(n, d, push, radius, rows, seed, longer=1.0):
    r"""every $\|w\|\le r$ has $f(w)\ge\frac1n\log(1+e^{-r\mu})>0$: weights of bounded norm keep the
    loss away from zero."""
    loss, bound, margin = least_loss(rows(n, d, push, seed), longer * radius)
    floor = ir.logistic_loss_floor(n, radius=radius, margin=margin)
    return compare(between(loss, bound), ">=", theory("floor", floor))


@panel(
    fixed_norm_loss_floor,
    r"The least loss in a ball and its floor ($n=8$)",
    x="radius $r$",
    y="mean logistic loss",
    log="xy",
)
def _(pen, runs):
    for k, (push, rows) in enumerate(((0.5, separable), (0.1, separable), (0.1, mixed))):
        where = {"push": push, "rows": rows, "n": 8}
        name = "random labels" if rows is mixed else f"pushed by {push}"
        pen.theory(*runs.predicted("radius", where=where), k=k)
        pen.points(*runs.measured("radius", where=where), name, k=k)


@simulation
def free_descent(Z, steps, share, ridge):
    """Losses, gradient norms and weight norms at powers of two, and the step size."""
    size = share * 4 / np.linalg.norm(Z, axis=1).max() ** 2
    run = ir.logistic_descent(Z, step_size=size, steps=steps, ridge=ridge)
    at = 2 ** np.arange(3, int(np.log2(steps)) + 1)
    return (
        run.losses[at],
        run.gradient_norms[at],
        np.linalg.norm(run.iterates[at], axis=1),
        at,
        size,
    )


@free.ours("derived: convexity, and the point of least margin", serves="a")
@cases(n=[1, 8], d=3, push=0.5, steps=2048, share=1.0)
@full(n=[1, 20], d=3, push=0.5, steps=16384, share=[0.25, 1.0])
@space(
    n=Int(1, 20),
    d=Int(1, 6),
    push=Real(0.3, 1.5, log=True),
    steps=Int(512, 1024),
    share=Real(0.05, 1.0, log=True),
)
@breaks("a penalty on the weights", ridge=0.2)
def vanishing_loss_needs_large_weights(n, d, push, steps, share, seed, ridge=0.0):
    r"""$f(w_t)\le\frac{1+\frac12\log^2\tau}\tau$ where $\tau=\mu^2\eta t\ge1$, $\|\nabla f(w_t)\|
    \le Rf(w_t)$ and $\|w_t\|\ge\frac1\mu\log\frac1{e^{nf(w_t)}-1}$: the loss and its gradient
    vanish, as the weights grow. Judged at $t=8,16,\dots$"""
    Z = separable(n, d, push, seed)
    losses, gradients, norms, at, size = free_descent(Z, steps, share, ridge)
    margin = ir.max_margin(Z, np.ones(n))
    mu = margin.margin_bound
    tau = mu**2 * size * at
    bound = np.where(tau >= 1, (1 + np.log(np.maximum(tau, 1)) ** 2 / 2) / np.maximum(tau, 1), 1.0)
    radius = np.linalg.norm(Z, axis=1).max()
    least = -np.log(np.expm1(n * losses)) / mu
    source = "rounding"
    return {
        "loss": compare(within(losses, 1e-12, source), "<=", theory("loss", bound)),
        "gradient": compare(
            within(gradients, 1e-12, source), "<=", theory("radius", radius) * losses
        ),
        "weights": compare(within(norms, 1e-10, source), ">=", theory("weights", least)),
    }


def relu(x):
    return np.maximum(x, 0.0)


def leaky(x):
    return np.maximum(x, 0.3 * x)


@simulation
def block_logits(widths, K, norms, h, activation, bias, aligned, draws, seed):
    """Logits of random networks with layers of given spectral norms (last: row norms), or of the
    one with aligned layers of rank one and opposite last rows."""
    rng = np.random.default_rng([seed, 9])
    found = []
    for _ in range(1 if aligned else draws):
        x = rng.standard_normal(widths[0])
        x *= h / np.linalg.norm(x)
        for r, m in zip(norms[:-1], widths[1:], strict=True):
            W = rng.standard_normal((m, x.size))
            u = np.abs(rng.standard_normal(m))
            if aligned:
                W = np.outer(u, x)
            x = activation(W @ x * (r / np.linalg.norm(W, 2)) + bias)
        W = rng.standard_normal((K, x.size))
        if aligned:
            W = np.outer(np.where(np.arange(K) == 0, 1.0, -1.0), x)
        found.append(W @ x * (norms[-1] / np.linalg.norm(W, axis=1)) + bias * np.eye(K)[0])
    return np.array(found)


@block.ours("derived: one factor a layer", serves="b")
@cases(depth=[1, 3], K=3, width=4, h=1.5, scale=1.2, activation=relu)
@full(depth=[1, 2, 3, 5], K=[2, 5], width=6, h=[0.5, 1.0, 1.5], scale=1.2, activation=[relu, leaky])
@space(
    depth=Int(1, 5),
    K=Int(2, 6),
    width=Int(1, 6),
    h=Real(0.1, 2.0, log=True),
    scale=Real(0.3, 1.3),
    activation=Choice([relu, leaky, np.abs]),
)
@breaks("biases in the block", bias=10.0)
@breaks("longer features", longer=3.0)
def homogeneous_logit_bound(
    depth, K, width, h, scale, activation, seed, bias=0.0, longer=1.0, draws=60
):
    r"""without biases in these layers every logit has $|f_c|\le\|h\|\prod_\ell r_\ell=B$, and the
    cross-entropy is at least $\log(1+(K-1)e^{-2B})$; aligned layers of rank one with opposite last
    rows attain both. With biases in them, no such bound holds."""
    norms = scale * np.linspace(0.8, 1.2, depth)
    given = (tuple([width] * depth), K, norms, longer * h, activation, bias)
    drawn = block_logits(*given, False, draws, seed)
    best = block_logits(*given, True, 1, seed)[0]
    bound = ir.logit_bound(norms, feature_norm=h)
    floor = theory("floor", ir.cross_entropy_floor(K, logit=bound))
    # The cross-entropy of the class that suits the logits best.
    losses = np.log(np.exp(drawn - drawn.max(axis=1)[:, None]).sum(axis=1))
    attained = np.log(np.exp(best - best[0]).sum())
    top = np.abs(drawn).max()
    source = "rounding"
    return {
        "attained": compare(
            within(np.abs(best), 1e-12 * np.abs(best).max(), source),
            "==",
            np.full(K, theory("bound", bound)),
        ),
        "logits": compare(within(top, 1e-12 * top, source), "<=", theory("bound", bound)),
        "loss attained": compare(within(attained, 1e-12 * attained + 1e-15, source), "==", floor),
        "losses": compare(within(losses.min(), 1e-12 * losses.min(), source), ">=", floor),
    }


@panel(
    homogeneous_logit_bound,
    "Without biases the loss has a floor",
    x=r"$\|h\|$ ($K=5$ classes, 5 layers of ReLU)",
    y="cross-entropy",
    log="y",
)
def _(pen, runs):
    where = {"depth": 5, "K": 5, "activation": relu}
    norms = 1.2 * np.linspace(0.8, 1.2, 5)
    h = np.linspace(0.4, 1.6, 40)
    floors = [
        ir.cross_entropy_floor(5, logit=ir.logit_bound(norms, feature_norm=float(v))) for v in h
    ]
    pen.theory(h, floors, "floor")
    pen.points(*runs.measured("h", "loss attained", where=where), "aligned")
    pen.points(*runs.measured("h", "losses", where=where), "random networks", k=1)


if __name__ == "__main__":
    run_script(__file__)
