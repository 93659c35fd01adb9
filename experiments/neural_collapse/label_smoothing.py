"""Label smoothing and max suppression: equal minimizers, unequal errors, gradient noise.

Of zhou2025-maxsup, xu2020-towards and yang2024-dual only the abstracts were consulted: the statements are derived in the module.
What the papers report about training is empirical and not judged here.
"""

from fractions import Fraction
from functools import cache

import numpy as np
import sympy as sp

from theorylab.neural_collapse import (
    certify_smoothed_ufm,
    collapsed_head_cosines,
    correction_time,
    distillation_gradients,
    gradient_noise,
    label_gradients,
    logit_radius,
    search_smoothed_ufm,
    simplex_etf,
    smoothed_gap,
    smoothed_linear_fit,
    smoothed_loss,
    smoothed_sgd,
    smoothed_ufm_minimizer,
)
from theorylab.verify import (
    Evidence,
    Grade,
    Int,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    equal,
    exact,
    gap,
    sample_mean,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

NAMES = {"ls": "label smoothing", "maxsup": "max suppression"}
EPS = np.finfo(float).eps


def noisy_classes(n, d, n_classes, noise, separation, rng) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes, a share of whose labels is replaced by another one."""
    y = rng.integers(n_classes, size=n)
    X = separation * rng.standard_normal((d, n_classes))[:, y] + rng.standard_normal((d, n))
    return X, np.where(
        rng.random(n) < noise, (y + rng.integers(1, n_classes, size=n)) % n_classes, y
    )


@claim(
    r"For logits $z\in\mathbb R^K$, label g and uniform smoothing $\alpha$, $\ell_{LS}=\ell_{CE}+\alpha(R+E)$, "
    r"$R=\frac1K\sum_{z_m<z_g}(z_g-z_m)\ge0$, $E=\frac1K\sum_{z_m>z_g}(z_g-z_m)\le0$; $E=0$ iff the label is a maximum; "
    r"$\partial E/\partial z_g=|\{m:z_m>z_g\}|/K$, so that descent on E lowers the label further.",
    sources=["zhou2025-maxsup, decomposition of the smoothing loss"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"n_classes": 4, "above": k} for k in (0, 3)],
        "full": [{"n_classes": K, "above": k} for K in (2, 4, 6) for k in range(K)],
    },
    space={"n_classes": Int(2, 6), "above": Int(0, lambda p: p["n_classes"] - 1)},
    breaks={"smoothing towards unequal class frequencies": {"uniform": False}},
)
def ls_decomposition_identity(n_classes, above, uniform=True) -> Evidence:
    K, alpha, z = (
        n_classes,
        sp.Symbol("alpha", positive=True),
        sp.symbols(f"z0:{n_classes}", real=True),
    )
    prior = [
        sp.Rational(1, K) if uniform else sp.Rational(2 * (k + 1), K * (K + 1)) for k in range(K)
    ]
    log_sum = sp.log(sum(sp.exp(v) for v in z))
    smoothed = log_sum - sum(
        ((1 - alpha) * int(k == 0) + alpha * prior[k]) * z[k] for k in range(K)
    )
    errors, rest = z[1 : above + 1], z[above + 1 :]
    E, R = (
        sum(z[0] - v for v in errors) / sp.Integer(K),
        sum(z[0] - v for v in rest) / sp.Integer(K),
    )
    steps = dict(zip(errors, [z[0] + s for s in sp.symbols("s1:20", positive=True)], strict=False))
    return all_of(
        exact(sp.expand(smoothed - (log_sum - z[0]) - alpha * (R + E)), "==", 0),
        exact(sp.diff(E, z[0]), "==", sp.Rational(above, K)),
        exact(sp.sign(sp.expand(E.subs(steps))) if above else sp.Integer(0), "==", -int(above > 0)),
    )


@claim(
    r"For one sample and $0<\alpha<1$, $\ell_{MS}=\ell_{CE}+\alpha(\max_kz_k-\bar z)$ is convex and has the minimizer of label "
    r"smoothing, unique up to shifts: gap $\log\frac{1-\alpha+\alpha/K}{\alpha/K}$ between the label and each other class.",
    sources=["zhou2025-maxsup, max suppression"],
    origin="derived",
    kind="identity",
    cases=[{"n_classes": 3, "alpha": 0.1}, {"n_classes": 10, "alpha": 0.3}],
    space={"n_classes": Int(2, 100), "alpha": Real(0.001, 0.999)},
    breaks={
        "alpha > 1: the label is no maximum at the minimizer of label smoothing": {"alpha": 1.05}
    },
)
def maxsup_convex_same_single_sample_optimum(n_classes, alpha) -> Evidence:
    K, a = n_classes, Fraction(alpha)
    ratio = (1 - a + a / K) / (a / K)  # exp(gap)
    own, other = ratio / (ratio + K - 1), 1 / (ratio + K - 1)
    # By symmetry zero is a subgradient iff it is one that is equal on the other classes; u is the label's share of the maximum.
    u = Fraction(int(ratio > 1)) if ratio != 1 else Fraction(1, K)
    profile = np.linspace(-3, 7, 200)
    Z = np.vstack([profile, np.zeros((K - 1, profile.size))])
    label = np.zeros(profile.size)
    curves = {name: smoothed_loss(Z, label, min(alpha, 0.99), loss=name).values for name in NAMES}
    return all_of(
        exact(own, "==", 1 - a + a / K),
        exact(own - 1 + a * (u - Fraction(1, K)), "==", 0),
        exact(other + a * ((1 - u) / (K - 1) - Fraction(1, K)), "==", 0),
        data={"profile": profile, "alpha": alpha, "gap": float(np.log(float(ratio))), **curves},
    )


@maxsup_convex_same_single_sample_optimum.panel
def _(ax, runs: Runs) -> None:
    data = runs[-1].data
    ax.plot(data["profile"], data["ls"], color=COLOURS[0])
    ax.plot(data["profile"], data["maxsup"], color=COLOURS[1])
    ax.axvline(data["gap"], color=BROKEN, linewidth=0.8)
    ax.annotate(
        "common minimizer",
        (data["gap"], 2.6),
        (-4, 0),
        textcoords="offset points",
        color=BROKEN,
        fontsize=8,
        ha="right",
    )
    ax.annotate(NAMES["ls"], (-2.9, 2.3), color=COLOURS[0], fontsize=8)
    ax.annotate(NAMES["maxsup"], (-1.7, 4.9), color=COLOURS[1], fontsize=8)
    ax.set(
        xlabel=r"label's logit minus the others, K = 10, $\alpha=0.3$", ylabel="loss of one sample"
    )
    ax.set_title("Both losses differ on errors only, and share the minimizer")


@claim(
    r"Balanced unconstrained features, K classes of n, $d\ge K-1$, no bias, loss mean $+\frac\lambda2(\|W\|^2+\|H\|^2)$, "
    r"$0<\alpha<1$, $Kt<1$ for $t=\alpha/K+\sqrt n\lambda$: label smoothing and max suppression have the same global minimizers, "
    r"collapsed simplex frames of gap $\log(1/t-K+1)$. In general minimizers coincide if those of label smoothing fit all data.",
    sources=["zhou2025-maxsup, comparison of minimizers"],
    origin="derived",
    kind="equivalence",
    cases={
        "quick": [
            {"n_classes": 3, "n": 4, "d": 4, "lam": 0.01, "alpha": 0.3},
            {"n_classes": 4, "n": 5, "d": 6, "lam": 2e-3, "alpha": 0.1},
        ],
        "full": [
            {"n_classes": 4, "n": 5, "d": 6, "lam": 2e-3, "alpha": a}
            for a in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
        ],
    },
    space={
        "n_classes": Int(2, 5),
        "n": Int(1, 6),
        "d": Int(lambda p: p["n_classes"] - 1, 6),
        "alpha": Real(0.02, 0.6),
        "lam": Real(
            1e-3, lambda p: 0.8 * (1 - p["alpha"]) / (p["n_classes"] * p["n"] ** 0.5), log=True
        ),
    },
    breaks={
        "unequal classes and a free bias: label smoothing misfits the small ones": {
            "largest": 30,
            "lam": 0.1,
            "n": 2,
        }
    },
)
def ufm_minimisers_coincide(n_classes, n, d, lam, alpha, seed: int, largest=None) -> Evidence:
    free, counts = largest is not None, [largest or n] + [n] * (n_classes - 1)
    options = {"bias": free, "n_starts": 3, "seed": seed}
    smoothed = search_smoothed_ufm(counts, d, lam, lam, alpha, **options)
    optimal = smoothed if free else smoothed_ufm_minimizer(n_classes, n, d, lam, lam, alpha)
    found = search_smoothed_ufm(counts, d, lam, lam, alpha, loss="maxsup", **options)
    lower = certify_smoothed_ufm(
        optimal.features, optimal.classifier, counts, lam, lam, alpha, bias=optimal.bias
    ).lower
    args = (counts, lam, lam, alpha)
    upper = certify_smoothed_ufm(
        found.features, found.classifier, *args, loss="maxsup", bias=found.bias
    ).upper
    radius = logit_radius(found.logits, optimal.logits, max(upper - lower, 0.0))
    size = smoothed_gap(n_classes, n, lam, lam, alpha)
    centred = [point.logits - point.logits.mean(axis=0) for point in (found, optimal)]
    gaps = [float(point.logits[0, 0] - point.logits[1, 0]) for point in (smoothed, found)]
    return all_of(
        gap(upper, lower, tol=1e-9),
        equal(
            *centred,
            error=radius,
            scale=size or 1.0,
            source="radius of the sublevel set, from the certified excess",
        ),
        data={"alpha": alpha, "gaps": gaps, "K": n_classes, "n": n, "lam": lam},
    )


@ufm_minimisers_coincide.panel
def _(ax, runs: Runs) -> None:
    case = runs[-1].data
    alphas = np.linspace(0, 1, 300)[:-1]
    ax.plot(
        alphas,
        [smoothed_gap(case["K"], case["n"], case["lam"], case["lam"], a) for a in alphas],
        color=COLOURS[0],
    )
    for j, (name, marker, size) in enumerate((("ls", "o", 7), ("maxsup", "o", 3.5))):
        ax.plot(
            [r.data["alpha"] for r in runs],
            [r.data["gaps"][j] for r in runs],
            marker,
            color=COLOURS[j + 1],
            markersize=size,
        )
        ax.annotate(
            f"searched, {NAMES[name]}", (0.42, 4.4 - 0.45 * j), color=COLOURS[j + 1], fontsize=8
        )
    ax.annotate(r"$\log(1/t-K+1)$", (0.42, 3.5), color=COLOURS[0], fontsize=8)
    ax.set(xlabel=r"smoothing $\alpha$", ylabel="logit gap of the label")
    ax.set_title("Unconstrained features: one minimizer for both losses")


@cache
def confidence_on_errors(n, d, n_classes, noise, separation, alpha, seed) -> tuple[float, ...]:
    X, y = noisy_classes(n, d, n_classes, noise, separation, np.random.default_rng(seed))
    confidence = []
    for a, loss in ((0.0, "ls"), (alpha, "ls"), (alpha, "maxsup")):
        logits = smoothed_linear_fit(X, y, n_classes, a, loss=loss).classifier @ X
        top = logits.max(axis=0)
        wrong = logits.argmax(axis=0) != y
        confidence.append(float(np.mean(1 / np.exp(logits - top).sum(axis=0)[wrong])))
    return tuple(confidence)


@claim(
    r"Gradient flow on the logits of one sample, K classes, a wrong class ahead by $m>0$ and the others level with the label: it "
    r"takes the lead after $T_{MS}<T_{CE}<T_{LS}$, each $T\in(\frac m{2+c},\frac m{1+c}]$, $c=\alpha,0,-\alpha$. Linear "
    r"softmax models fitted to Gaussian classes with 30 % wrong labels have mean confidence on their errors MS < LS < CE.",
    sources=["zhou2025-maxsup, error term on misclassified samples"],
    origin="derived",
    kind="monotonicity",
    cases={
        "quick": [{"n_classes": 10, "margin": 6.0, "alpha": 0.1, "n": 200}],
        "full": [
            {"n_classes": 10, "margin": m, "alpha": 0.3, "n": 600}
            for m in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
        ],
    },
    breaks={"the start is no error (time to a lead of 1 instead)": {"margin": -0.5, "lead": 1.0}},
)
def misclassified_dynamics_and_confidence(
    n_classes, margin, alpha, n, seed: int, lead=0.0
) -> Evidence:
    kinds = ((alpha, "maxsup", alpha), (0.0, "ls", 0.0), (alpha, "ls", -alpha))
    times = np.array(
        [correction_time(n_classes, margin, a, loss=loss, lead=lead) for a, loss, _ in kinds]
    )
    confidence = np.array(confidence_on_errors(n, 5, 3, 0.3, 1.0, alpha, seed))
    parts = [at_most(times[:-1], times[1:]), at_most(confidence[::-1][:-1], confidence[::-1][1:])]
    if margin > 0:
        c = np.array([c for _, _, c in kinds])
        parts.append(
            at_most(
                np.append(margin / (2 + c), times),
                np.append(times, margin / (1 + c)),
                rounding=1e-9,
            )
        )
    return all_of(
        *parts, data={"margin": margin, "times": times, "alpha": alpha, "confidence": confidence}
    )


@misclassified_dynamics_and_confidence.panel
def _(ax, runs: Runs) -> None:
    margins = np.array([run.data["margin"] for run in runs])
    alpha = runs[-1].data["alpha"]
    for j, (name, c, colour) in enumerate(
        (
            ("max suppression", alpha, COLOURS[1]),
            ("cross-entropy", 0.0, COLOURS[2]),
            ("label smoothing", -alpha, COLOURS[0]),
        )
    ):
        ax.fill_between(
            margins, margins / (2 + c), margins / (1 + c), color=colour, alpha=0.12, linewidth=0
        )
        ax.plot(margins, [run.data["times"][j] for run in runs], "o-", color=colour, markersize=3)
        ax.annotate(name, (1.1, 9.3 - 1.1 * (2 - j)), color=colour, fontsize=8)
    ax.set(
        xlabel=r"lead of the wrong class at the start, $\alpha=0.3$",
        ylabel="time until the label leads",
    )
    ax.set_title("Errors are corrected soonest under max suppression")


def mixture_gradients(X, V, T) -> np.ndarray:
    """Gradients of -log(t'p), which is cross-entropy at hard labels but not linear in the label."""
    p = np.exp(V @ X - np.max(V @ X, axis=0))
    p /= p.sum(axis=0)
    return (p - T * p / np.sum(T * p, axis=0)).T[:, :, None] * X.T[:, None, :]


@claim(
    r"Cross-entropy of a linear softmax model, labels $(1-\theta)y+\frac\theta K\mathbf 1$: gradients deviate from $\nabla F$ "
    r"(no smoothing) in mean square by "
    r"$(1-\theta)^2\sigma^2+\theta^2\delta\sigma^2+2\theta(1-\theta)c\le(1-\theta)\sigma^2+\theta\delta\sigma^2$, "
    r"$\sigma^2,\delta\sigma^2,c$ the moments at hard and uniform labels; the bound is "
    r"$\frac{2\delta\sigma^2}{1+\delta}$ at $\theta=\frac1{1+\delta}$.",
    sources=["xu2020-towards, variance of smoothed gradients"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"n": 200, "d": 10, "n_classes": 3, "noise": 0.4}],
        "full": [{"n": 200, "d": 10, "n_classes": 3, "noise": s} for s in (0.0, 0.4)],
    },
    space={"n": Int(20, 200), "d": Int(1, 10), "n_classes": Int(2, 6), "noise": Real(0.0, 0.5)},
    breaks={"a loss that is not linear in the label": {"gradients": mixture_gradients}},
)
def gradient_linear_in_label_variance_identity(
    n, d, n_classes, noise, seed: int, gradients=label_gradients
) -> Evidence:
    rng = np.random.default_rng(seed)
    X, y = noisy_classes(n, d, n_classes, noise, 1.0, rng)
    V, Y = 0.3 * rng.standard_normal((n_classes, d)), np.eye(n_classes)[:, y]
    moments = gradient_noise(X, y, V)
    mean = gradients(X, V, Y).mean(axis=0)
    thetas = np.append(np.linspace(0, 1, 11), 1 / (1 + moments.delta))
    smoothed = [gradients(X, V, (1 - t) * Y + t / n_classes) for t in thetas]
    measured = np.array([np.sum((g - mean) ** 2) / n for g in smoothed])
    bound = np.append(
        [moments.bound(t) for t in thetas[:-1]], 2 * moments.uniform / (1 + moments.delta)
    )
    return all_of(
        equal(
            measured,
            [moments.smoothed(t) for t in thetas],
            error=8 * n * d * EPS * (moments.label + moments.uniform),
            source="rounding of sums of n d terms",
        ),
        at_most(measured, bound),
        data={
            "theta": thetas,
            "measured": measured,
            "bound": bound,
            "moments": moments,
            "noise": noise,
        },
    )


@gradient_linear_in_label_variance_identity.panel
def _(ax, runs: Runs) -> None:
    data, t = runs[-1].data, np.linspace(0, 1, 100)
    ax.plot(t, [data["moments"].smoothed(x) for x in t], color=COLOURS[0])
    ax.plot(t, [data["moments"].bound(x) for x in t], "--", color=COLOURS[0])
    ax.plot(data["theta"], data["measured"], "o", color=COLOURS[1])
    broken = runs.controls["a loss that is not linear in the label"].data
    ax.plot(broken["theta"], broken["measured"], "x", color=BROKEN)
    ax.annotate(
        "identity",
        (0.3, data["moments"].smoothed(0.3)),
        (-4, -12),
        textcoords="offset points",
        color=COLOURS[0],
        fontsize=8,
        ha="right",
    )
    ax.annotate(
        "bound (dashed)",
        (0.4, data["moments"].bound(0.4)),
        (4, 4),
        textcoords="offset points",
        color=COLOURS[0],
        fontsize=8,
    )
    ax.annotate(
        r"$-\log t^\top p$ instead",
        (broken["theta"][8], broken["measured"][8]),
        (0, 6),
        textcoords="offset points",
        color=BROKEN,
        fontsize=8,
    )
    ax.set(xlabel=r"smoothing $\theta$", ylabel="mean squared deviation of gradients")
    ax.set_title("Smoothed labels: the exact noise of gradients")


def label_model(d, n_classes, rng) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features, labels of a softmax teacher; for d = 0 a constant feature, class frequencies 2 : 3 : ... : K + 1."""
    if d == 0:
        y = np.repeat(np.arange(n_classes), np.arange(2, n_classes + 2))
        return np.ones((1, y.size)), y
    X, V = rng.standard_normal((d, 100)), rng.standard_normal((n_classes, d))
    return X, np.argmax(V @ X + rng.gumbel(size=(n_classes, 100)), axis=0)


def descents(d, n_classes, step, steps, repetitions, seed, every=1):
    """Pairs of a plain and a smoothed run at ``step`` over the smoothness; the step; constants that hold at every point."""
    X, y = label_model(d, n_classes, np.random.default_rng(seed))
    step /= np.linalg.norm(X, 2) ** 2 / (2 * y.size)
    sigma2, delta = 2 * np.sum(X**2) / y.size, (n_classes - 1) / (2 * n_classes)
    options = {"theta": 1 / (1 + delta), "step_size": step, "every": every}
    start, runs = np.zeros((n_classes, len(X))), []
    for r in range(repetitions):
        order = np.random.default_rng((seed, r)).integers(y.size, size=steps)
        runs.append([smoothed_sgd(X, y, start, order, switch=s, **options) for s in (0, steps)])
    return runs, step, sigma2, delta


@claim(
    r"Linear softmax model, loss F of smoothness L, single-sample descent, step $\eta\le1/L$, $\theta=1/(1+\delta)$: "
    r"$\frac1T\sum E\|\nabla F(w_t)\|^2\le\frac{2F(w_0)}{\eta T}+2\delta\sigma^2$ (even with $F(w_0)-EF(w_T)$ and the exact "
    r"noise), where $\sigma^2=2E\|x\|^2$ and $\delta=\frac{K-1}{2K}$ are valid everywhere; plain descent has $\sigma^2$ for "
    r"$2\delta\sigma^2$. The bounds do not order the floors: for a constant feature and class frequencies 2 : 3 : 4 smoothing "
    r"has the lower floor at $\eta=1/L$, plain descent at $\eta=1/(100L)$.",
    sources=["xu2020-towards, convergence of SGD with label smoothing"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"d": 5, "n_classes": 3, "repetitions": 12, "steps": 500}],
        "full": [{"d": d, "n_classes": 3, "repetitions": 24, "steps": 4000} for d in (0, 2, 5)],
    },
    breaks={"the step exceeds 1/L": {"step": 30.0, "d": 0}},
)
def lsr_bound_vs_truth(d, n_classes, repetitions, steps, seed: int, step=1.0) -> Evidence:
    runs, eta, sigma2, delta = descents(d, n_classes, step, steps, repetitions, seed)
    means = np.array([[r.squared_gradients.mean() for r in pair] for pair in runs])
    sharp = [
        [2 * (r.first_value - r.last_value) / (eta * steps) + r.noise.mean() for r in pair]
        for pair in runs
    ]
    bounds = 2 * runs[0][0].first_value / (eta * steps) + np.array([sigma2, 2 * delta * sigma2])
    parts = [
        sample_mean(means, bounds, relation="upper"),
        sample_mean(means - sharp, np.zeros(2), relation="upper"),
    ]
    for scale, loser in ((1.0, 0), (0.01, 1)):
        late = descents(0, n_classes, scale, 8000, repetitions, seed, 10)[0]
        floors = np.array([[r.squared_gradients[400:].mean() for r in pair] for pair in late])
        ahead = floors[:, 1 - loser] - floors[:, loser]
        # Ten standard errors are more than Student's quantile at level 1e-6 for twelve repetitions.
        parts.append(
            at_most(
                ahead.mean() + 10 * ahead.std(ddof=1) / np.sqrt(repetitions),
                0.0,
                grade=Grade.STATISTICAL,
            )
        )
    return all_of(*parts)


@claim(
    r"Linear softmax model, equal samples in equal order: two-stage descent (labels smoothed up to step $T/2$, plain after) ends "
    r"on the path of plain descent; at step $\eta=1/(50L)$ both have the same mean $\|\nabla F\|^2$ over the last quarter.",
    sources=["xu2020-towards, two-stage label smoothing"],
    origin="derived",
    kind="limit",
    cases={
        "quick": [{"d": 0, "n_classes": 3, "steps": 8000}],
        "full": [{"d": d, "n_classes": 3, "steps": 40000} for d in (2, 5, 0)],
    },
    breaks={"smoothing is never switched off": {"switched": False}},
)
def two_stage_removes_bias(d, n_classes, steps, seed: int, switched=True) -> Evidence:
    rng = np.random.default_rng(seed)
    X, y = label_model(d, n_classes, rng)
    L = np.linalg.norm(X, 2) ** 2 / (2 * y.size)
    # The loss of sample x is convex of smoothness |x|^2/2: steps up to 4/|x|^2 never move coupled runs apart.
    step, start = min(0.02 / L, 4 / np.sum(X**2, axis=0).max()), np.zeros((n_classes, len(X)))
    order = rng.integers(y.size, size=steps)
    options = {"theta": 2 * n_classes / (3 * n_classes - 1), "step_size": step}
    switches = {"plain labels": 0, "two stages": steps // 2, "always smoothed": steps}
    paths = {
        name: smoothed_sgd(X, y, start, order, switch=s, every=4, **options)
        for name, s in switches.items()
    }
    gradients = {name: run.squared_gradients for name, run in paths.items()}
    part = order[: 3 * steps // 4]
    ends = [
        smoothed_sgd(X, y, start, part, switch=s, every=steps, **options).classifier
        for s in (0, steps // 2)
    ]
    distance = L * np.linalg.norm(ends[1] - ends[0])
    last = gradients["plain labels"][-steps // 16 :]
    measured = gradients["two stages" if switched else "always smoothed"][-steps // 16 :].mean()
    error = np.mean(distance * (2 * np.sqrt(last) + distance)) + 1000 * EPS
    source = "distance of the coupled runs after three quarters, which cannot grow; rounding"
    bias = options["theta"] ** 2 * np.sum((np.bincount(y) / y.size - 1 / n_classes) ** 2)
    return equal(
        measured, last.mean(), error=error, source=source, data={"paths": gradients, "bias": bias}
    )


@two_stage_removes_bias.panel
def _(ax, runs: Runs) -> None:
    data = runs[-1].data
    places = {
        "plain labels": (25, 0.0016),
        "two stages": (57, 0.0105),
        "always smoothed": (60, 0.019),
    }
    for (name, path), colour in zip(
        data["paths"].items(), (COLOURS[2], COLOURS[1], BROKEN), strict=True
    ):
        t = (np.arange(100) + 0.5) * path.size / 25
        ax.semilogy(
            t,
            path.reshape(100, -1).mean(axis=1),
            "." if name == "two stages" else "-",
            color=colour,
            linewidth=1,
        )
        ax.annotate(name, (t[places[name][0]], places[name][1]), color=colour, fontsize=8)
    ax.axhline(data["bias"], color=COLOURS[0])
    ax.annotate(
        r"bias $\theta^2\|\pi-\frac{1}{K}\|^2$",
        (0.3, 1.5 * data["bias"]),
        color=COLOURS[0],
        fontsize=8,
    )
    ax.set(
        xlabel="steps; the two stages change in the middle",
        ylabel=r"$\|\nabla F\|^2$, means of blocks (log)",
        ylim=(1.4e-3, 0.03),
    )
    ax.set_title("Dropping smoothing removes its bias")


@claim(
    r"Simplex-frame classifier $(W^\top\mathbf 1=0)$, features $m_k+h_G$, $m_k\parallel w_k$, $h_G\perp w_k$, teacher logits "
    r"affine in the student's. With sigmoid differences student minus teacher u (label), v (others), $c=\frac{u+(K-1)v}K$, the "
    r"gradients of cross-entropy and binary divergence have cosine $\mathrm{sign}(v-u)$ in the features and "
    r"$(v-u)\|m\|/\sqrt{(v-u)^2\|m\|^2+c^2K^2\|h_G\|^2}$ in the classifier.",
    sources=["yang2024-dual, conflict in the classifier"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [
            {"n_classes": 5, "n": 2, "d": 8, "own": 4.0, "slope": 1.3, "shift": s, "offset": 2.0}
            for s in (-4.0, 0.0)
        ],
        "full": [
            {"n_classes": 5, "n": 2, "d": 8, "own": 4.0, "slope": 1.3, "shift": s, "offset": o}
            for o in (2.0, 0.5, 0.0)
            for s in np.linspace(-6, 4, 21).tolist()
        ],
    },
    space={
        "n_classes": Int(2, 7),
        "n": Int(1, 3),
        "d": Int(lambda p: p["n_classes"], 10),
        "own": Real(0.5, 6.0),
        "slope": Real(1.0, 2.0),
        "shift": Real(-4.0, 4.0),
        "offset": Real(0.0, 3.0),
    },
    breaks={"classifier rows with a common part": {"common": 0.5, "offset": 2.0}},
)
def dhkd_conflict_direction(
    n_classes, n, d, own, slope, shift, offset, seed: int, common=0.0
) -> Evidence:
    K, rng = n_classes, np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    frame = (
        np.sqrt(own) * simplex_etf(K, d) @ rotation
    )  # means of length sqrt(own), logits own and -own/(K-1)
    W, y = frame + common * rotation[-1], np.repeat(np.arange(K), n)
    H = np.repeat(frame.T, n, axis=1) + offset * rotation[-1][:, None]
    teacher = slope * np.where(np.eye(K)[:, y] == 1, own, -own / (K - 1)) + shift
    gradients = distillation_gradients(H, W, y, teacher)
    ends = slope * own + shift, -slope * own / (K - 1) + shift
    predicted = collapsed_head_cosines(own, *ends, K, np.sqrt(own), offset)
    measured = np.array([gradients.feature_cosine, gradients.classifier_cosine])
    lengths = [np.linalg.norm(g) for g in (gradients.binary_features, gradients.entropy_features)]
    error = 100 * K * EPS * (1 + offset) * (1 + np.sqrt(own)) * (1 / lengths[0] + 1 / lengths[1])
    source = "rounding of the gradients, relative to their length"
    data = {"shift": shift, "offset": offset, "measured": measured, "predicted": predicted}
    return equal(measured, predicted, error=error, scale=1.0, source=source, data=data)


@dhkd_conflict_direction.panel
def _(ax, runs: Runs) -> None:
    shifts, places = (
        np.linspace(-6, 4, 2001),
        {2.0: (-3.2, -0.02), 0.5: (-2.5, 0.4), 0.0: (-3.9, -0.95)},
    )
    case = runs[-1].instance
    K, own, slope = case["n_classes"], case["own"], case["slope"]
    for offset, colour in zip(
        dict.fromkeys(run.data["offset"] for run in runs), COLOURS[1:], strict=False
    ):
        rows = [run.data for run in runs if run.data["offset"] == offset]
        ends = [(slope * own + s, -slope * own / (K - 1) + s) for s in shifts]
        ax.plot(
            shifts,
            [collapsed_head_cosines(own, *e, K, np.sqrt(own), offset)[1] for e in ends],
            color=colour,
        )
        ax.plot(
            [row["shift"] for row in rows],
            [row["measured"][1] for row in rows],
            "o",
            color=colour,
            markersize=3,
        )
        text = "features, and\nclassifier" if offset == 0 else "classifier"
        ax.annotate(
            rf"{text}, $\|h_G\|={offset:g}$",
            places.get(offset, (-3.2, 0)),
            color=colour,
            fontsize=8,
        )
    ax.set(
        xlabel="shift of the teacher's logits",
        ylabel="cosine of the two gradients",
        ylim=(-1.1, 1.1),
    )
    ax.set_title("A mean of the features turns the heads' gradients apart")


if __name__ == "__main__":
    run_script(__file__)
