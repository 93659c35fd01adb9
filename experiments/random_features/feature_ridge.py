"""Ridge in a feature map: gradients through its solution, and how to choose its prior."""

from functools import cache

import numpy as np

from theorylab import random_features as rf
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    panel,
    paper,
    simulation,
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

distilled = paper(
    "loo2023-dataset",
    r"Support points $\psi=(X_s,y_s)$, $\varphi$ the tangent features of $a^\top\tanh(Wx)/\sqrt m$ "
    r"at frozen $(a,W)$, $\mathcal L_i(\theta,\psi)=\frac12\|\varphi(X_s)\theta-y_s\|^2+\frac"
    r"\lambda2\|\theta\|^2$ with minimiser $\theta^\star$, $\mathcal L_o$ half the mean squared "
    r"error of $\varphi(x)^\top\theta$ on data (judged: patients with diabetes):",
)
headed = paper(
    "loo2023-dataset",
    r"Features of a body $\omega$, a linear head $v$, inner loss $\frac12\|\varphi_\omega(X)v-y\|^2"
    r"+\frac\lambda2\|v\|^2$, $\lambda>0$, with best head $v^\star(\omega)$:",
)
bayesian = paper(
    "harvey2025-learning",
    r"Linear regression on $D$ features of $N$ points, kernel matrix $K$, noise variance $s^2$, "
    r"prior $N(0,vI)$ of the weights; the evidence lower bound with the likelihood counted "
    r"$\kappa$ times, maximised over posteriors $N(\mu,\tau^2I)$:",
)


@cache
def patients():
    """Standardised columns and response of scikit-learn's diabetes data."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    X, y = data.data / data.data.std(axis=0), data.target
    return X / np.sqrt(X.shape[1]), (y - y.mean()) / y.std()


def problem(k, m, seed):
    """Support set, outer data and network."""
    rng = np.random.default_rng(seed)
    X, y = patients()
    at = rng.permutation(len(X))
    support = X[at[:k]] + 0.1 * rng.standard_normal((k, X.shape[1]))
    network = {"W": rng.standard_normal((m, X.shape[1])), "a": rng.standard_normal(m)}
    return (support, y[at[:k]] + 0.0, X[at[k : k + 60]], y[at[k : k + 60]]), network


def derivative(value, h):
    """Derivative at 0 from two step sizes, and what halving the step changed."""
    whole, half = ((value(s) - value(-s)) / (2 * s) for s in (h, h / 2))
    return (4 * half - whole) / 3, abs(half - whole) + 1e-11 / h * abs(value(0.0))


@simulation
def differences(k, m, ridge, count, seed):
    """Derivatives of the outer loss along random directions, with their errors."""
    (support, labels, X, y), network = problem(k, m, seed)
    found = []
    for dx, dy in zip(*directions(k, support.shape[1], count, seed), strict=True):
        found.append(
            derivative(
                lambda t, dx=dx, dy=dy: rf.distillation_loss(
                    support + t * dx, labels + t * dy, X, y, ridge=ridge, **network
                ),
                2e-3,
            )
        )
    return np.array(found).T


def directions(k, d, count, seed):
    rng = np.random.default_rng([seed, count])
    return rng.standard_normal((count, k, d)), rng.standard_normal((count, k))


STEPS = (1, 2, 4, 8)


@simulation
def truncations(k, m, ridge, seed):
    """Relative errors of q after numbers of gradient steps, and the norm of the Hessian."""
    data, network = problem(k, m, seed)
    norm = ridge + np.linalg.norm(rf.tangent_features(data[0], **network), 2) ** 2
    runs = [rf.distillation_gradient(*data, ridge=ridge, **network, steps=t) for t in STEPS]
    q = rf.distillation_gradient(*data, ridge=ridge, **network).adjoint
    return np.array([np.linalg.norm(run.adjoint - q) for run in runs]) / np.linalg.norm(q), norm


@distilled.abstract("a", "b", instance=True)
@cases(k=3, m=6, ridge=0.3)
@full(k=[2, 4, 8], m=16, ridge=[0.1, 0.5])
@space(k=Int(1, 6), m=Int(2, 8), ridge=Real(0.1, 1.0, log=True))
@breaks("q from two gradient steps", steps=2)
@breaks("a network trained less than to the end", moved=0.2)
def implicit_gradient_frozen_ntk(k, m, ridge, seed, steps=None, moved=0.0):
    r"""$\mathcal L_i$ is strongly convex, with least curvature $\lambda$ for fewer points than
    features; $\theta^\star$ predicts like ridge regression with the frozen tangent kernel; and
    $\nabla_\psi\mathcal L_o(\theta^\star)=-\partial_\psi\langle q,\nabla_\theta\mathcal L_i(\theta
    ^\star,\psi)\rangle$ with $q=(\nabla^2_\theta\mathcal L_i)^{-1}\nabla_\theta\mathcal L_o$ held
    fixed. $T$ gradient steps for $q$ from 0 leave at most $(1-\lambda/\|\nabla^2\mathcal
    L_i\|)^T\|q\|$ of error."""
    (support, labels, X, y), network = problem(k, m, seed)
    shift = moved * np.ones(m + m * support.shape[1])
    found = rf.distillation_gradient(
        support, labels, X, y, ridge=ridge, **network, shift=shift, steps=steps
    )
    dx, dy = directions(k, support.shape[1], 5, seed)
    implicit = np.einsum("ckd,kd->c", dx, found.inputs) + dy @ found.labels
    plain, error = differences(k, m, ridge, 5, seed)
    size = np.abs(plain).max()
    kernel = rf.distillation_loss(support, labels, X, y, ridge=ridge, **network)
    errors, norm = truncations(k, m, ridge, seed)
    rate = theory("rate", 1 - ridge / norm)
    return {
        "gradient": compare(
            within(plain / size, error / size, "halved step"),
            "==",
            theory("implicit", implicit) / size,
        ),
        "kernel": compare(
            within(found.loss, 1e-11 * found.loss, "rounding"), "==", theory("kernel ridge", kernel)
        ),
        "convex": compare(
            within(found.curvature, 1e-12 * norm, "rounding"), "==", theory("ridge", ridge)
        ),
        "truncated": compare(within(errors, 1e-12, "rounding"), "<=", rate ** np.array(STEPS)),
    }


@panel(
    implicit_gradient_frozen_ntk,
    "The implicit gradient is the derivative of the outer loss",
    x="implicit gradient along random directions / largest",
    y="difference quotient / largest",
)
def _(pen, runs):
    pen.theory([-1, 1], [-1, 1], "equal")
    for i, k in enumerate((2, 4, 8), start=1):
        parts = [r.parts["gradient"] for r in runs.judgement.runs if r.instance["k"] == k]
        x, y = (np.concatenate([getattr(p, s) for p in parts]) for s in ("predicted", "shown"))
        pen.points(x, y, label=f"{k} support points", k=i)
    control = next(c for c in runs.judgement.controls if c.name == "q from two gradient steps")
    part = control.run.parts["gradient"]
    pen.broken(part.predicted, part.shown, label="two steps for $q$")


@simulation
def body_derivatives(k, m, ridge, count, seed):
    """Derivatives, in the body along random directions, of the loss minimised over heads."""
    (support, labels, _, _), network = problem(k, m, seed)
    found = [
        derivative(
            lambda t, dW=dW: (
                rf.head_gradient(support, labels, network["W"] + t * dW, ridge=ridge).loss
            ),
            2e-3,
        )
        for dW in np.random.default_rng([seed, 1]).standard_normal((count, *network["W"].shape))
    ]
    return np.array(found).T


@simulation
def inexact_heads(k, m, ridge, distances, seed):
    """Error of the gradient in the support set with heads at some distances from the best one."""
    data, network = problem(k, m, seed)
    exact = rf.distillation_gradient(*data, ridge=ridge, **network)
    away = np.random.default_rng([seed, 2]).standard_normal(exact.weights.size)
    away /= np.linalg.norm(away)
    runs = [
        rf.distillation_gradient(*data, ridge=ridge, **network, shift=h * away) for h in distances
    ]
    parts = [(run.inputs - exact.inputs, run.labels - exact.labels) for run in runs]
    return np.array([np.sqrt(np.sum(a**2) + np.sum(b**2)) for a, b in parts])


DISTANCES = tuple(np.geomspace(1e-5, 1e-3, 14).tolist())


@headed.ours("the two identities behind the assertion (derived)", serves="c")
@cases(k=12, m=5, ridge=[0.2, 1.0])
@full(k=40, m=[5, 20], ridge=[0.1, 1.0])
@space(k=Int(2, 20), m=Int(2, 8), ridge=Real(0.1, 1.0, log=True))
@breaks("a head that is not the best", away=0.3)
def analytic_head_removes_head_error(k, m, ridge, seed, distances=DISTANCES, away=0.0):
    r"""the gradient in $\omega$ of the loss at $v^\star(\omega)$ is its partial gradient at the
    head held fixed (judged: $\varphi_\omega(x)=\tanh(\omega x)$). For a frozen body (judged:
    tangent features) the implicit gradient of an outer loss with a head at distance $\delta$ from
    $v^\star$ is off the one with $v^\star$, which is the derivative, by exact order $\delta$ in
    generic directions."""
    (support, labels, _, _), network = problem(k, m, seed)
    shift = np.full(m, away)
    found = rf.head_gradient(support, labels, network["W"], ridge=ridge, shift=shift)
    turns = np.random.default_rng([seed, 1]).standard_normal((4, *network["W"].shape))
    partial = np.einsum("cmd,md->c", turns, found.body)
    plain, error = body_derivatives(k, m, ridge, 4, seed)
    size = np.abs(plain).max()
    return {
        "envelope": compare(
            within(plain / size, error / size, "halved step"),
            "==",
            theory("partial", partial) / size,
        ),
        "order": compare(
            slope(distances, inexact_heads(k, m, ridge, distances, seed)),
            "==",
            theory("order", 1.0),
        ),
    }


@panel(
    analytic_head_removes_head_error,
    "An inexact head costs its distance",
    x=r"distance $\delta$ of the head from the best",
    y="error of the gradient in the support set",
    log="xy",
)
def _(pen, runs):
    for k, run in enumerate(runs.judgement.runs[:2]):
        i = run.instance
        errors = inexact_heads(i["k"], i["m"], i["ridge"], DISTANCES, 0)
        pen.points(DISTANCES, errors, label=rf"$\lambda={i['ridge']:g}$", k=k)
        pen.theory(DISTANCES, errors[-1] * np.array(DISTANCES) / DISTANCES[-1], k=k)


@simulation
def chosen(n, ratio, noise, powers, plain, matched, seed):
    """Prior variance of most evidence; kappa v at the best v for plain and powers of a matched
    kappa; relative widths of the grids. Random cosine features of patients."""
    rng = np.random.default_rng(seed)
    X, y = patients()
    at, D = rng.permutation(len(X))[:n], n * ratio
    X, y = X[at], y[at] - y[at].mean()
    angles = X @ (2 * rng.standard_normal((X.shape[1], D))) + rng.uniform(0, 2 * np.pi, D)
    features = np.sqrt(2 / D) * np.cos(angles)
    K = features @ features.T

    def best(objective):
        grid = np.geomspace(1e-6, 1e6, 1200)
        for _ in range(2):
            i = int(np.argmin(objective(grid)))
            ends = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
            grid = np.geomspace(*ends, 400)
        return float(grid[np.argmin(objective(grid))]), ends[1] / ends[0] - 1

    how = {"noise_variance": noise, "n_features": D}
    evidence = best(lambda v: rf.evidence_objective(K, y, v, noise_variance=noise))
    emphasis = float(ratio) if matched == "D / N" else rf.matching_emphasis(K, evidence[0], **how)
    found = [
        best(lambda w, e=e: rf.emphasized_objective(K, y, w / e, emphasis=e, **how))
        for e in (plain, *(emphasis ** np.array(powers)))
    ]
    return evidence, *np.array(found).T


@bayesian.ours("corrected: which emphasis matches the evidence", serves="a")
@cases(n=40, ratio=[5, 25], powers=(0.3, 0.7, 1.0))
@full(n=40, ratio=[5, 25, 100], powers=(0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0))
@space(n=Int(30, 60), ratio=Int(2, 40), noise=Real(0.3, 0.8))
@breaks("the likelihood counted a million times in place of once", plain=1e6)
@breaks("emphasis D / N", matched="D / N")
def de_elbo_selects_evidence_optimum(
    n, ratio, seed, noise=0.5, powers=(0.5, 1.0), plain=1.0, matched="stationary"
):
    r"""let $w=\kappa v$ at the best $v$, which alone decides the fitted mean, and $v_e$ the prior
    variance of most evidence. $w$ does not fall as $\kappa$ grows, at $\kappa=1$ it is at most
    $v_e$ (the plain bound shrinks too much), and $v_e$ is a stationary $w$ at
    $\kappa=\frac{v_e\operatorname{tr}K}{s^2+v_e\operatorname{tr}K/D}/\operatorname{tr}(v_eK(s^2I
    +v_eK)^{-1})$: judged on random cosine features of patients with diabetes, where it is the
    best."""
    (evidence, width), values, widths = chosen(n, ratio, noise, powers, plain, matched, seed)
    found = within(values, values * (widths + width), "grids")
    at = 1 + powers.index(1.0)
    rising = within(values[1:], values[1:] * (widths[1:] + widths[:-1]), "grids")
    return {
        "matched": compare(
            within(found.centre[at], found.error[at], "grids"), "==", theory("evidence", evidence)
        ),
        "plain": compare(
            within(found.centre[0], found.error[0], "grids"), "<=", theory("evidence", evidence)
        ),
        "monotone": compare(rising, ">=", theory("less emphasis", values[:-1])),
    }


@panel(
    de_elbo_selects_evidence_optimum,
    r"One emphasis $\kappa^\star$ matches the evidence ($N=40$ patients)",
    x=r"power $e$ of $\kappa=(\kappa^\star)^e$",
    y=r"$\kappa v$ at the best $v$",
    log="y",
)
def _(pen, runs):
    for k, ratio in enumerate((5, 25, 100)):
        where = {"ratio": ratio}
        level = runs.predicted("ratio", "plain", where=where)[1][0]
        pen.theory([0.2, 2], [level, level], f"evidence, $D/N={ratio}$", k=k)
        pen.points(*runs.measured("powers", "monotone", where=where), k=k)


if __name__ == "__main__":
    run_script(__file__)
