"""Label smoothing and max suppression: equal minimizers, unequal errors."""

import numpy as np
import sympy as sp

from theorylab import neural_collapse as nc
from theorylab.verify import (
    Int,
    Real,
    between,
    breaks,
    cases,
    compare,
    full,
    mean,
    note,
    panel,
    paper,
    simulation,
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

EPS = float(np.finfo(float).eps)
maxsup = paper(
    "zhou2025-maxsup",
    r"Logits $z\in\mathbb R^K$, label $g$, $\ell_{LS}=\ell_{CE}+\alpha(z_g-\bar z)$ (label "
    r"smoothing), $\ell_{MS}=\ell_{CE}+\alpha(\max_kz_k-\bar z)$ (max suppression):",
)


@maxsup.abstract("a", instance=True)
@cases(n_classes=4, above=[0, 2, 3])
@full(n_classes=[2, 4, 6], above=[0, 1])
@full(n_classes=6, above=[5, 3])
@space(n_classes=Int(2, 6), above=Int(0, "n_classes - 1"))
@breaks("smoothing towards unequal class frequencies", uniform=False)
def ls_decomposition_identity(n_classes, above, uniform=True):
    r"""cross-entropy against $(1-\alpha)e_g+\frac\alpha K\mathbf1$ is $\ell_{CE}+\alpha(R+E)$,
    $R=\frac1K\sum_{z_m<z_g}(z_g-z_m)$, $E=\frac1K\sum_{z_m>z_g}(z_g-z_m)$: $R\ge0$, positive on
    errors too if the label is ahead of some class; $E\le0$, zero iff the label is a maximum, with
    $\partial E/\partial z_g$ the share of classes above the label, so that descent lowers it."""
    K, alpha = n_classes, sp.Symbol("alpha", positive=True)
    z, s = sp.symbols(f"z0:{K}", real=True), sp.symbols(f"s0:{K}", positive=True)
    prior = [
        sp.Rational(1, K) if uniform else sp.Rational(2 * k + 2, K * (K + 1)) for k in range(K)
    ]
    # The term that log-sum-exp shares with cross-entropy, which has -z_0, is left out.
    smoothed = -sum(((1 - alpha) * int(k == 0) + alpha * prior[k]) * z[k] for k in range(K))
    E = sum((z[0] - v) / sp.Integer(K) for v in z[1 : above + 1]) + sp.Integer(0)
    R = sum((z[0] - v) / sp.Integer(K) for v in z[above + 1 :]) + sp.Integer(0)
    ordered = {z[k]: z[0] + (s[k] if k <= above else -s[k]) for k in range(1, K)}
    signs = [int(sp.sign(sp.expand(v.subs(ordered)))) for v in (R, E)]
    extra = sp.Poly(sp.expand(smoothed + z[0]), *z, alpha).as_dict()
    parts = sp.Poly(sp.expand(alpha * (R + E)), *z, alpha).as_dict()
    keys = sorted({*extra, *parts})
    found, expected = ([d.get(key, sp.Integer(0)) for key in keys] for d in (extra, parts))
    return {
        "coefficients": compare(found, "==", theory("terms", expected)),
        "signs": compare(signs, "==", theory("signs", [int(above < K - 1), -int(above > 0)])),
        "slope": compare(sp.diff(E, z[0]), "==", theory("slope", sp.Rational(above, K))),
    }


@maxsup.abstract("a", "c", instance=True)
@cases(n_classes=4, alpha=0.3, rank=[0, 2])
@full(n_classes=[3, 10], alpha=[0.1, 0.5], rank=[0, 1, 2])
@space(n_classes=Int(2, 20), alpha=Real(0.01, 0.9), rank=Int(0, "n_classes - 1"))
@breaks("a tie at the top", tie=True)
def maxsup_acts_on_the_top_logit(n_classes, alpha, rank, seed, tie=False):
    r"""where $z$ has a unique maximum $m$, the terms that both add to $\ell_{CE}$ have gradients
    $\alpha(e_g-\frac1K\mathbf1)$ and $\alpha(e_m-\frac1K\mathbf1)$: equal iff the label leads,
    while on an error descent changes the lead $z_m-z_g$ of the wrong class at rates $+\alpha$ and
    $-\alpha$; $\ell_{MS}-\ell_{LS}=\alpha(z_m-z_g)$ (rank: classes ahead of the label)."""
    rng = np.random.default_rng(seed)
    z = rng.permutation(np.cumsum(rng.uniform(0.3, 1.0, n_classes)))
    top = int(z.argmax())
    label = int(np.argsort(-z)[rank])
    z[top] -= tie * (z[top] - np.sort(z)[-2])

    def added(points, loss):
        labels = np.full(points.shape[1], label)
        values = (nc.smoothed_loss(points, labels, kind).values for kind in (loss(alpha), "ce"))
        return np.subtract(*values)

    # The terms are linear as far as the maximum stays the same: differences of step 1/10 are exact.
    steps = 0.1 * np.eye(n_classes)
    slopes = [
        (added(z[:, None] + steps, loss) - added(z[:, None] - steps, loss)) / 0.2
        for loss in (nc.CrossEntropy, nc.MaxSuppression)
    ]
    error = 200 * EPS * (np.abs(z).max() + np.log(n_classes))
    kinds, unit = (nc.MaxSuppression, nc.CrossEntropy), np.eye(n_classes)
    ends = [added(z[:, None], loss)[0] for loss in kinds]
    return {
        "max suppression": compare(
            within(slopes[1], error, "rounding"),
            "==",
            alpha * (theory("top", unit[top]) - theory("mean", 1 / n_classes)),
        ),
        "label smoothing": compare(
            within(slopes[0], error, "rounding"),
            "==",
            alpha * (theory("label", unit[label]) - theory("mean", 1 / n_classes)),
        ),
        "difference": compare(
            within(ends[0] - ends[1], error, "rounding"),
            "==",
            theory("lead", alpha * (z[top] - z[label])),
        ),
    }


@maxsup.ours("derived from convexity and symmetry", serves="c")
@cases(n_classes=[3, 10], alpha=[0.1, 0.3])
@full(n_classes=10, alpha=[0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 0.9, 0.3])
@space(n_classes=Int(2, 100), alpha=Real(0.001, 0.99))
@breaks(r"$\alpha>1$: the label trails at the minimizer of label smoothing", alpha=1.05)
def maxsup_convex_same_single_sample_optimum(n_classes, alpha, seed):
    r"""for $0<\alpha<1$ both are convex, with the same minimizer, unique up to shifts: the label is
    ahead of every other class by $\log\frac{1-\alpha+\alpha/K}{\alpha/K}$."""

    def scaled(plain, half):  # the losses are affine in alpha
        return plain + 2 * alpha * (half - plain)

    def loss(points, kind):
        labels = np.zeros(points.shape[1])
        runs = [nc.smoothed_loss(points, labels, kind(a)) for a in (0.0, 0.5)]
        return scaled(*(r.values for r in runs)), scaled(*(r.gradient for r in runs))

    def rises(gap, kind):
        return bool(loss(np.r_[gap, np.zeros(n_classes - 1)][:, None], kind)[1][0, 0] > 0)

    kinds = (nc.MaxSuppression, nc.CrossEntropy)
    gap = theory("gap", np.log((n_classes - n_classes * alpha + alpha) / alpha))
    ends = [
        switch(lambda g, kind=kind: rises(g, kind), bracket=(-20.0, 37.0), tol=1e-9)
        for kind in kinds
    ]
    a, b = np.random.default_rng(seed).normal(scale=3, size=(2, n_classes, 20))
    middle, *sides = ([loss(v, kind)[0] for kind in kinds] for v in ((a + b) / 2, a, b))
    return {
        "max suppression": compare(ends[0], "==", gap),
        "label smoothing": compare(ends[1], "==", gap),
        "convex": compare(
            within(middle, 1e-14 * np.abs(middle), "rounding"),
            "<=",
            theory("chord", np.mean(sides, axis=0)),
        ),
    }


@panel(
    maxsup_convex_same_single_sample_optimum,
    "One sample: both losses have the same minimizer",
    x=r"smoothing $\alpha$",
    y="lead of the label at the minimum",
)
def _(pen, runs):
    alpha = np.linspace(0.02, 0.9, 200)
    pen.theory(alpha, np.log((10 - 9 * alpha) / alpha), "$K=10$")
    at = {"n_classes": 10}
    pen.points(*runs.measured("alpha", where=at), "max suppression", k=1)
    pen.points(*runs.measured("alpha", "label smoothing", where=at), "label smoothing", k=2)


@simulation
def suppressed(counts, dimension, lam, alpha, seed):
    """The centred logits that a search finds under max suppression; their distance to those of the
    minimizer, at most; proved bounds of the minimum."""
    points, ends = [], []
    for loss in (nc.MaxSuppression(alpha), nc.CrossEntropy(alpha)):
        point = nc.search_deep_linear(
            counts, [lam, lam], dimension=dimension, loss=loss, n_starts=3, seed=seed
        )
        model = nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss=loss)
        points.append(point.logits)
        ends.append(nc.certify_ufm(model, point.features, *point.layers))
    excess = max(max(end.upper for end in ends) - ends[1].lower, 0.0)
    # Up to a radius of .3 the probabilities at the minimizer are a fourth of those nearby, at
    # least.
    radius = 2 * nc.logit_radius(*points, excess)
    logits = points[0] - points[0].mean(axis=0)
    return logits, radius if radius < 0.6 else np.inf, ends[0].upper, ends[1].lower


@maxsup.ours("derived by duality")
@cases(n_classes=3, n=4, d=4, lam=0.01, alpha=0.3)
@cases(n_classes=4, n=5, d=6, lam=2e-3, alpha=0.1)
@full(n_classes=4, n=5, d=6, lam=2e-3, alpha=[0.02, 0.05, 0.1, 0.2, 0.5, 0.7, 0.3])
@space(
    n_classes=Int(2, 5),
    n=Int(1, 6),
    d=Int("n_classes - 1", 6),
    alpha=Real(0.02, 0.6),
    lam=Real(1e-3, "0.8 * (1 - alpha) / (n_classes * sqrt(n))", log=True),
)
@breaks("unequal classes", n=2, largest=30)
@note(contradicts="d")
def ufm_minimisers_coincide(n_classes, n, d, lam, alpha, seed, largest=None):
    r"""on balanced unconstrained features ($K$ classes of $n$, dimension $d\ge K-1$, no bias, mean
    loss plus $\frac\lambda2(\|W\|^2+\|H\|^2)$), where $Kt<1$ for $t=\frac\alpha K+\sqrt n\lambda$,
    the global minimizers of max suppression are those of label smoothing, collapsed simplex frames
    of gap $\log(1/t-K+1)$: no difference within classes comes from interpolating minimizers (what
    the paper reports of training is untouched)."""
    counts = (largest or n, *[n] * (n_classes - 1))
    logits, radius, upper, lower = suppressed(counts, d, lam, alpha, seed)
    frame = np.repeat(np.eye(n_classes) - 1 / n_classes, counts, axis=1)
    balanced = nc.UnconstrainedFeatures(
        [n] * n_classes, lam_w=lam, lam_h=lam, loss=nc.MaxSuppression(alpha)
    )
    best = nc.ufm_minimizer(balanced, dimension=max(d, n_classes - 1))
    return {
        "logits": compare(
            within(logits, radius, "sublevel set of the certified excess"),
            "==",
            theory("gap", nc.cross_entropy_gap(balanced)) * frame,
        ),
        "value": compare(between(upper, lower), "==", theory("value", best.objective)),
    }


@panel(
    ufm_minimisers_coincide,
    "Unconstrained features: max suppression ends at the frame of label smoothing",
    x=r"smoothing $\alpha$",
    y="centred logit of the label",
)
def _(pen, runs):
    alpha = np.linspace(0.01, 0.9, 200)
    t = alpha / 4 + np.sqrt(5) * 2e-3
    pen.theory(alpha, 0.75 * np.log(1 / t - 3), r"$\frac{3}{4}\log(1/t-3)$")
    pen.points(*runs.measured("alpha", "logits", (0, 0)), "max suppression, searched", k=1)


@maxsup.abstract("b", instance=True)
@cases(n_classes=10, margin=6.0, alpha=0.1)
@full(n_classes=10, margin=[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 5.0], alpha=0.3)
@space(n_classes=Int(2, 50), margin=Real(0.2, 12), alpha=Real(0.02, 0.9))
@breaks("the start is no error (time to a lead of .1)", margin=-0.05, lead=0.1)
def misclassified_dynamics_and_confidence(n_classes, margin, alpha, lead=0.0):
    r"""gradient flow on the logits of one sample, a wrong class ahead by $m$ (margin) and the
    others level with the label: its lead lasts for $T_{MS}<T_{CE}<T_{LS}$, with
    $\frac m{2+c}<T\le\frac m{1+c}$, $c=\alpha,0,-\alpha$: the term that label smoothing adds does
    hold errors up."""
    kinds = (nc.MaxSuppression(alpha), nc.CrossEntropy(), nc.CrossEntropy(alpha))
    times = np.array(
        [nc.correction_time(n_classes, margin=margin, loss=k, lead=lead) for k in kinds]
    )
    measured = within(times, 1e-8 * times, "Runge-Kutta at relative tolerance 1e-10")
    earlier = within(times[:-1], 1e-8 * times[:-1], "Runge-Kutta at relative tolerance 1e-10")
    rate = 1 + np.array([alpha, 0.0, -alpha])
    return {
        "order": compare(earlier, "<", theory("later", times[1:])),
        "at least": compare(measured, ">", theory("lower", margin / (1 + rate))),
        "at most": compare(measured, "<=", theory("upper", margin / rate)),
    }


@panel(
    misclassified_dynamics_and_confidence,
    "Errors are corrected soonest under max suppression",
    x="lead of the wrong class at the start",
    y="time until the label leads",
)
def _(pen, runs):
    names = ("max suppression", "cross-entropy", "label smoothing")
    for k, (name, c) in enumerate(zip(names, (0.3, 0.0, -0.3), strict=True)):
        m = np.array([1.0, 8.0])
        pen.theory(m, m / (1 + c), f"bound, {name}", k=k)
        pen.points(*runs.measured("margin", "at most", k), name, k=k)


@simulation
def confidence_on_errors(n, alpha, fitted, repetitions, seed):
    """Mean confidence of linear models, with and without smoothing, on the samples they misfit,
    data set by data set: fitted, or after one step of descent from minus the plain fit."""
    rows = []
    for r in range(repetitions):
        rng = np.random.default_rng((seed, r))
        y, shift = rng.integers(3, size=n), rng.integers(1, 3, size=n)
        X = 1.5 * rng.standard_normal((3, 3))[:, y] + rng.standard_normal((3, n))
        y = np.where(rng.random(n) < 0.3, (y + shift) % 3, y)
        smoothed = nc.CrossEntropy(alpha)
        plain = nc.smoothed_linear_fit(X, y, n_classes=3).classifier
        ends = (
            [nc.smoothed_linear_fit(X, y, n_classes=3, loss=smoothed).classifier, plain]
            if fitted
            else []
        )
        for loss in () if fitted else (smoothed, "ce"):
            slope = nc.smoothed_loss(-plain @ X, y, loss).gradient @ X.T / n
            ends.append(-plain - 0.1 * slope)
        rows.append([])
        for logits in (end @ X for end in ends):
            confidence = 1 / np.exp(logits - logits.max(axis=0)).sum(axis=0)
            rows[-1].append(confidence[logits.argmax(axis=0) != y].mean())
    return np.array(rows)


@maxsup.ours("finding in a convex model, the opposite of overconfidence on errors")
@cases(n=120, alpha=0.2)
@full(n=[120, 400], alpha=[0.1, 0.4, 0.2], repetitions=40)
@space(n=Int(100, 200), alpha=Real(0.1, 0.5))
@breaks("not fitted: one step from minus the fit", fitted=False, repetitions=64)
@note(contradicts="b")
def smoothing_lowers_confidence_on_errors(n, alpha, seed, fitted=True, repetitions=16):
    r"""linear softmax models (ridge $10^{-3}$) fitted to $n$ samples of three Gaussian classes in
    $\mathbb R^3$ with 30 % wrong labels are, in the mean over data sets, less confident on the
    samples that they misfit under label smoothing than under cross-entropy."""
    confidence = confidence_on_errors(n, alpha, fitted, repetitions, seed)
    level = confidence[:, 1].mean()
    less = mean(confidence[:, 0] - confidence[:, 1] + level)  # paired, about the level of the plain
    return compare(less, "<", theory("cross-entropy", level))


if __name__ == "__main__":
    run_script(__file__)
