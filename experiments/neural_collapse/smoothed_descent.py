"""Descent on smoothed labels: less noise, a bias, and when the trade pays."""

import numpy as np

from theorylab import neural_collapse as nc
from theorylab.verify import (
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
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

EPS = float(np.finfo(float).eps)
KEY = "xu2020-towards"
linear = paper(
    KEY,
    r"Linear softmax model, cross-entropy $F$, labels $(1-\theta)y+\frac\theta K\mathbf1$, "
    r"single-sample descent of step $\eta$:",
)
parabola = paper(
    KEY,
    r"$F(w)=\frac\lambda2w^2$, stochastic gradients $\lambda w+\xi$, $\mathrm{var}\,\xi=\sigma^2$, "
    r"smoothed ones $(1-\theta)(\lambda w+\xi)+\theta b$, step $\eta$:",
)


def mixture_gradients(X, V, T):
    """Gradients of -log(t'p), which is cross-entropy at hard labels but not affine in the label."""
    p = np.exp(V @ X - np.max(V @ X, axis=0))
    p /= p.sum(axis=0)
    return (p - T * p / np.sum(T * p, axis=0)).T[:, :, None] * X.T[:, None, :]


@linear.abstract("a", instance=True)
@cases(n=200, d=10, n_classes=3, noise=0.4)
@full(n=200, d=10, n_classes=3, noise=[0.0, 0.2, 0.4])
@space(n=Int(20, 200), d=Int(1, 10), n_classes=Int(2, 6), noise=Real(0.0, 0.5))
@breaks("a loss that is not affine in the label", gradients=mixture_gradients)
def gradient_linear_in_label_variance_identity(
    n,
    d,
    n_classes,
    noise,
    seed,
    thetas=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    gradients=nc.label_gradients,
):
    r"""with $\sigma^2,\delta\sigma^2,c$ the moments of the deviations from $\nabla F$ (no
    smoothing) at hard and uniform labels, gradients deviate from it in mean square by
    $(1-\theta)^2\sigma^2+\theta^2\delta\sigma^2+2\theta(1-\theta)c
    \le(1-\theta)\sigma^2+\theta\delta\sigma^2$: less than $\sigma^2$ whenever $\delta<1$, that is,
    where labels are noisier than the smoothing label (noise: share of wrong labels)."""
    rng = np.random.default_rng(seed)
    y, shift = rng.integers(n_classes, size=n), rng.integers(1, n_classes, size=n)
    X = rng.standard_normal((d, n_classes))[:, y] + rng.standard_normal((d, n))
    y = np.where(rng.random(n) < noise, (y + shift) % n_classes, y)
    V, hard, t = (
        0.3 * rng.standard_normal((n_classes, d)),
        np.eye(n_classes)[:, y],
        np.array(thetas),
    )
    plain = gradients(X, V, hard).mean(axis=0)
    found = [gradients(X, V, (1 - a) * hard + a / n_classes) - plain for a in thetas]
    moments = nc.gradient_noise(X, y, V)
    error = 8 * n * d * EPS * (moments.label + moments.uniform)
    measured = within([np.sum(g**2) / n for g in found], error, "rounding of sums of n d terms")
    label, uniform = theory("label", moments.label), theory("uniform", moments.uniform)
    cross = 2 * t * (1 - t) * theory("covariance", moments.covariance)
    return {
        "identity": compare(measured, "==", (1 - t) ** 2 * label + t**2 * uniform + cross),
        "bound": compare(measured, "<=", (1 - t) * label + t * uniform),
    }


@panel(
    gradient_linear_in_label_variance_identity,
    "Smoothed labels: the exact noise of gradients",
    x=r"smoothing $\theta$",
    y="mean squared deviation",
)
def _(pen, runs):
    pen.theory(*runs.predicted("thetas", where={"noise": 0.4}), "identity")
    pen.points(*runs.measured("thetas", where={"noise": 0.4}))
    pen.theory(*runs.predicted("thetas", "bound", where={"noise": 0.4}), "bound", k=2)
    name = "a loss that is not affine in the label"
    pen.broken(*runs.measured("thetas", control=name), label=r"$-\log t^\top p$")


@simulation
def descents(d, n_classes, step, steps, repetitions, seed):
    """Runs without and with smoothing: mean squared gradients, mean noise, and 2 F / (eta T) at the
    ends, (repetitions, 2); that at the start; the largest noise; the features' mean square."""
    rng = np.random.default_rng(seed)
    if d == 0:  # a constant feature, class frequencies 2 : 3 : ... : K + 1
        y = np.repeat(np.arange(n_classes), np.arange(2, n_classes + 2))
        X = np.ones((1, y.size))
    else:
        X, V = rng.standard_normal((d, 100)), rng.standard_normal((n_classes, d))
        y = np.argmax(V @ X + rng.gumbel(size=(n_classes, 100)), axis=0)
    eta = step * 2 * y.size / np.linalg.norm(X, 2) ** 2
    theta, start = 2 * n_classes / (3 * n_classes - 1), np.zeros((n_classes, len(X)))
    rows = []
    for r in range(repetitions):
        order = np.random.default_rng((seed, r)).integers(y.size, size=steps)
        runs = [
            nc.smoothed_sgd(X, y, start, order, theta, step_size=eta, switch=s) for s in (0, steps)
        ]
        rows.append(
            [
                (r.squared_gradients.mean(), r.noise.mean(), r.last_value, r.noise.max())
                for r in runs
            ]
        )
    gradients, noise, last, largest = np.moveaxis(rows, 2, 0)
    scale = 2 / (eta * steps)
    length = np.sum(X**2) / y.size
    return gradients, noise, scale * last, scale * runs[0].first_value, largest.max(axis=0), length


@linear.ours("the standard bound, recalled; constants that hold everywhere are ours", serves="c")
@cases(d=[5, 0], n_classes=3, steps=10, step=1.0)
@full(d=[2, 5, 0], n_classes=3, steps=[500, 10], step=1.0, repetitions=100)
@space(d=Int(0, 5), n_classes=Int(2, 5), steps=Int(5, 100), step=Real(0.2, 1.0))
@breaks("the step exceeds 1/L", step=60.0)
def lsr_bound_vs_truth(d, n_classes, steps, step, seed, repetitions=60):
    r"""for $\eta\le\frac1L$ (step: $\eta L$) and $w_0=0$, without smoothing and with
    $\theta=\frac1{1+\delta}$: $\frac1T\sum_t\mathbb E\|\nabla F(w_t)\|^2\le
    \frac2{\eta T}\mathbb E(F(w_0)-F(w_T))+\nu$, $\nu$ the mean squared deviation of the gradients
    used from $\nabla F$; at every $w$ $\nu\le\sigma^2$ without smoothing and
    $\nu\le2\delta\sigma^2$ with it, where $\sigma^2=2\mathbb E\|x\|^2$, $\delta=\frac{K-1}{2K}$
    (which bound is smaller says nothing about which floor is)."""
    run = descents(d, n_classes, step, steps, repetitions, seed)
    gradients, noise, last, first, largest, length = run
    delta = theory("delta", (n_classes - 1) / (2 * n_classes))
    sigma2, center = theory("sigma", 2 * length), noise.mean(axis=0)
    return {
        "descent": compare(
            mean(gradients + last - (noise - center)),
            "<=",
            theory("start", first) + theory("noise", center),
        ),
        "noise": compare(
            within(largest, 1e-12 * largest, "rounding"), "<=", np.array([1.0, 2 * delta]) * sigma2
        ),
    }


@simulation
def chains(step, theta, bias, switch_off, multiplicative, seed, steps=240, count=1500):
    """Means of w and w^2 over the last half of independent chains (lambda = sigma = 1)."""
    rng = np.random.default_rng(seed)
    w, total = np.zeros(count), np.zeros((2, count))
    length = int(np.ceil(steps / step))
    for t in range(length):
        share = 0.0 if switch_off and t >= length // 4 else theta
        xi = rng.standard_normal(count) * np.sqrt(1 + multiplicative * w**2)
        w = w - step * ((1 - share) * (w + xi) + share * bias)
        total += np.stack([w, w**2]) * (t >= length - length // 2)
    return total / (length // 2)


def moment_floor(step, theta, bias):
    """Mean square of the chain after 2^20 steps (lambda = sigma = 1): a step maps (1, E w, E w^2)
    linearly."""
    keep, push, noise = 1 - step * (1 - theta), -step * theta * bias, (step * (1 - theta)) ** 2
    once = [[1, 0, 0], [push, keep, 0], [push**2 + noise, 2 * keep * push, keep**2]]
    return np.linalg.matrix_power(once, 2**20)[2, 0]


@parabola.ours("an exactly solvable model of both assertions", serves="ab")
@cases(theta=0.5, bias=0.2, step=0.5)
@full(theta=0.5, bias=0.2, step=[0.1, 0.2, 0.8, 1.2, 0.5])
@space(theta=Real(0.2, 0.8), bias=Real(0.05, 1.0), step=Real(0.3, 1.2))
@breaks("noise that grows with w", multiplicative=0.5)
def smoothing_wins_above_a_step_size(theta, bias, step, seed, multiplicative=0.0):
    r"""the stationary mean square is $\frac{\eta\sigma^2}{\lambda(2-\eta\lambda)}$ for plain
    descent, $(\frac{\theta b}{(1-\theta)\lambda})^2+\frac{\eta(1-\theta)\sigma^2}
    {\lambda(2-\eta(1-\theta)\lambda)}$ for smoothed, and the plain one again after smoothing is
    switched off; smoothing has the lower floor iff $\eta\lambda$ exceeds the root $x\in(0,2)$ of
    $\beta(2-x)(2-(1-\theta)x)=2x$, $\beta=\theta b^2/((1-\theta)\sigma)^2$, which vanishes with $b$
    ($\lambda=\sigma=1$)."""

    # What is left of the start, and of smoothing, is below exp(-60 (1 - theta)).
    ends = [
        chains(step, share, bias, off, multiplicative, (seed, off))
        for share, off in ((theta, False), (0.0, False), (theta, True))
    ]

    def wins(eta):
        return bool(moment_floor(eta, theta, bias) < moment_floor(eta, 0.0, bias))

    plain = theory("plain", nc.quadratic_floor(1.0, noise=1.0, step_size=step))
    smoothed = nc.quadratic_floor(1.0, noise=1.0, step_size=step, theta=theta, bias=bias)
    root = nc.smoothing_threshold(1.0, noise=1.0, theta=theta, bias=bias)
    return {
        "threshold": compare(
            switch(wins, bracket=(1e-3, 1.999), tol=1e-4), "==", theory("threshold", root)
        ),
        "smoothed": compare(mean(ends[0][1]), "==", theory("smoothed", smoothed)),
        "centre": compare(mean(ends[0][0]), "==", theory("centre", -theta * bias / (1 - theta))),
        "plain": compare(mean(ends[1][1]), "==", plain),
        "two stages": compare(mean(ends[2][1]), "==", plain),
    }


@panel(
    smoothing_wins_above_a_step_size,
    "Smoothing has the lower floor at large steps only",
    x=r"step $\eta\lambda$",
    y=r"stationary $\mathbb{E}w^2$",
    log="xy",
)
def _(pen, runs):
    eta = np.geomspace(0.08, 1.3, 100)
    pen.theory(eta, [nc.quadratic_floor(1, noise=1, step_size=e) for e in eta], "plain")
    smooth = [nc.quadratic_floor(1, noise=1, step_size=e, theta=0.5, bias=0.2) for e in eta]
    pen.theory(eta, smooth, "smoothed", k=1)
    pen.points(*runs.measured("step", "plain"))
    pen.points(*runs.measured("step", "smoothed"), k=1)
    pen.points(*runs.measured("step", "two stages"), "two stages", k=2)


@simulation
def coupled(d, n_classes, relaxation, separable, seed):
    """Distances to plain descent of two-stage and of always smoothed descent, same samples in the
    same order; a stage lasts ``relaxation`` relaxation times at the minimum of the noisy labels."""
    rng = np.random.default_rng(seed)
    X, V = rng.standard_normal((d, 60)), rng.standard_normal((n_classes, d))
    y = np.argmax(V @ X + rng.gumbel(size=(n_classes, 60)), axis=0)
    fit = nc.smoothed_linear_fit(X, y, n_classes=n_classes, ridge=1e-6).classifier @ X
    p = np.exp(fit - fit.max(axis=0)) / np.exp(fit - fit.max(axis=0)).sum(axis=0)
    curvature = np.eye(n_classes)[:, :, None] * p - p[:, None] * p
    hessian = np.einsum("klN,iN,jN->kilj", curvature, X, X) / y.size
    least = np.linalg.eigvalsh(hessian.reshape(V.size, V.size))[d]  # d shifts of all rows
    y = np.argmax(V @ X, axis=0) if separable else y
    eta = 0.5 / np.sum(X**2, axis=0).max()
    steps = 2 * int(np.ceil(relaxation / (eta * least)))
    order = rng.integers(y.size, size=steps)
    options = {"step_size": eta, "every": steps}
    theta, start = 2 * n_classes / (3 * n_classes - 1), np.zeros_like(V)
    ends = [
        nc.smoothed_sgd(X, y, start, order, theta, switch=s, **options).classifier
        for s in (0, steps // 2, steps)
    ]
    return [np.linalg.norm(end - ends[0]) for end in ends[1:]]


@linear.ours("a coupling of our own; the rate is a finding", serves="b")
@cases(d=2, n_classes=3)
@full(d=[1, 2, 3], n_classes=[2, 3], relaxation=20)
@space(d=Int(1, 3), n_classes=Int(2, 4))
@breaks("smoothing is never switched off", switched=False)
@breaks("separable labels", separable=True)
def two_stage_removes_bias(d, n_classes, seed, relaxation=12, switched=True, separable=False):
    r"""for labels of a softmax teacher (not separable), equal samples in equal order: descent that
    drops smoothing half-way returns to the path of plain descent, at $e^{-cr}$ times the distance
    at which always smoothed descent stays, $c\ge\frac12$, after $r$ relaxation times
    $1/(\eta\lambda_{\min})$ a stage ($\lambda_{\min}$: least curvature at the minimum; along a
    noisy path it is another one)."""
    two_stage, always = coupled(d, n_classes, relaxation, separable, seed)
    share = (two_stage if switched else always) / always
    rate = within(-np.log(share) / relaxation, 1e-11 / share / relaxation, "rounding of the share")
    return compare(rate, ">=", theory("rate", 0.5))


if __name__ == "__main__":
    run_script(__file__)
