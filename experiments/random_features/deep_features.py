"""Deep random features: covariances layer by layer, and the ridge errors that follow."""

import math

import numpy as np
from scipy.special import erf

from theorylab import random_features as rf
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
    space,
    theory,
)
from theorylab.verify.cli import run_script

NOISE = 0.1
NETWORKS = 15  # over whose weights a prediction is averaged
RIDGES = [0.03, 0.3]
KEY = "schroder2023-deterministic"
layers = paper(
    KEY,
    r"Layers $\varphi_\ell(x)=\sigma(W_\ell\varphi_{\ell-1}(x)/\sqrt{k_{\ell-1}})$, $W_\ell$ "
    r"frozen with entries $N(0,1)$, $x\sim N(0,\Omega_0)$, $\sigma$ smooth and odd, all widths "
    r"proportional, $\Omega_\ell^{lin}=\kappa_1^2W_\ell\Omega_{\ell-1}^{lin}W_\ell^\top/k_{\ell-1}"
    r"+\kappa_*^2I$, $r=\mathrm{tr}\,\Omega_{\ell-1}^{lin}/k_{\ell-1}$, $\kappa_1=\mathrm "
    r"Ez\sigma(z)/r$, $\kappa_*^2=\mathrm E\sigma(z)^2-r\kappa_1^2$, $z\sim N(0,r)$; $F$ has the "
    r"features of $n$ samples as rows, $\lambda=\kappa(1-\frac1n\mathrm{tr}\,\Omega(\Omega+"
    r"\kappa)^{-1})$, $\mathrm{df}_2=\mathrm{tr}\,\Omega^2(\Omega+\kappa)^{-2}$, "
    r"$\Omega=\Omega_L^{lin}$:",
)
real = paper(
    KEY,
    r"Two frozen random tanh layers on the 1797 handwritten digits of scikit-learn, centred and "
    r"scaled to one norm, samples drawn with replacement; $\Omega$, $\Phi=\mathrm E\varphi y$ of "
    r"the population; ridge $n\lambda$:",
)


def steep(u):
    return np.tanh(2 * u)


def shifted(u):
    return np.sin(u) + 0.3


def even(u):
    return u**2 - 1


def inputs(d):
    """Eigenvalues of the inputs: evenly spread, of mean 1."""
    return 2 * np.arange(1, d + 1) / (d + 1)


# ---------------------------------------------------------------------------------- covariances
def draws_of(n_draws, d, seed):
    """Random generators of independent draws, which depend on nothing but these numbers."""
    return [np.random.default_rng([seed, d, i]) for i in range(n_draws)]


def layer_weights(d, growth, depth, rng):
    return rf.deep_weights(d, [round(growth * d)] * depth, rng=rng)


@simulation
def covariance_gaps(d, growth, depth, law, actual, n_draws, seed, formula):
    """Per draw and layer, an unbiased squared norm of the gap between covariances of the features
    and a formula with its correction, over that of the correction."""
    found = []
    for rng in draws_of(n_draws, d, seed):
        weights = layer_weights(d, growth, depth, rng)
        claimed = formula(np.diag(inputs(d)), weights, law)
        halves = rng.standard_normal((2, 10 * d, d)) * np.sqrt(inputs(d))
        row = []
        for matrix, target, first in zip(weights, *claimed, strict=True):
            halves = [rf.network_features(x, [matrix], actual) for x in halves]
            one, two = (x.T @ x / len(x) - target - first for x in halves)
            row.append((one * two).sum() / (first**2).sum())
        found.append(row)
    return np.array(found)


def sine_kernel(C, r):
    return np.exp(-np.add.outer(r, r) / 2) * np.sinh(C)


def erf_kernel(C, r):
    return 2 / np.pi * np.arcsin(2 * C / np.sqrt(np.multiply.outer(1 + 2 * r, 1 + 2 * r)))


KERNELS = {np.sin: sine_kernel, erf: erf_kernel}


@simulation
def first_layer_gaps(d, growth, law, n_draws, seed, formula):
    """Per draw, squared distance of the covariance of one layer, in closed form, to a formula."""
    found = []
    for rng in draws_of(n_draws, d, seed):
        weights = layer_weights(d, growth, 1, rng)
        C = (weights[0] * inputs(d) / d) @ weights[0].T
        target = formula(np.diag(inputs(d)), weights, law)[0][0]
        found.append(((KERNELS[law](C, np.diag(C)) - target) ** 2).sum())
    return np.array(found)


def linearised(covariance, weights, law):
    net = rf.deep_feature_covariances(covariance, weights, law)
    return net.covariances, net.corrections


def unit_variance(covariance, weights, law):
    """The recursion with both coefficients taken at variance 1 in every layer."""
    net = rf.deep_feature_covariances(covariance, weights, law)
    one = rf.deep_feature_covariances(np.eye(len(covariance)), weights[:1], law)
    found = []
    for W in weights:
        covariance = one.linear[0] ** 2 * W @ covariance @ W.T / W.shape[1]
        covariance = covariance + one.residual[0] * np.eye(len(W))
        found.append(covariance)
    return found, net.corrections


def norm_of(d, growth, law):
    """The predicted squared norm of the error of the first layer."""
    weights = layer_weights(d, growth, 1, np.random.default_rng(0))
    return rf.deep_feature_covariances(np.diag(inputs(d)), weights, law).frobenius_errors[0] ** 2


@layers.ours("the paper's closed form, with the leading part of its error, derived", serves="d")
@cases(d=35, law=np.sin, n_draws=30, exact=1300)
@full(d=36, law=np.sin, growth=0.8, n_draws=60, exact=1800)
@full(d=36, law=erf, growth=1.2, n_draws=60, exact=1800)
@space(d=Int(35, 45), growth=Real(0.6, 1.6), depth=Int(1, 2), law=Choice([np.sin, erf]))
@breaks("sigma not centred", actual=shifted)
@breaks("coefficients at variance 1", formula=unit_variance, exact=100)
def deep_rf_layerwise_covariance(
    d,
    law,
    seed,
    growth=1.0,
    depth=2,
    n_draws=12,
    exact=80,
    actual=None,
    formula=linearised,
):
    r"""$\|\Omega_\ell-\Omega_\ell^{lin}\|_F/\|\Omega_\ell^{lin}\|_F\to0$ like $d^{-1/2}$: in the
    first layer the mean of $\|\Omega_1-\Omega_1^{lin}\|_F^2$ is
    $e_1^2=2g\tau(\partial_r\mathrm E\sigma^2-\kappa_1^2)^2
    +4g^2\tau^2\kappa_1^2(\partial_r\kappa_1)^2$, $g=k_1/d$, $\tau=\|\Omega_0\|_F^2/d$, up to a
    relative $O(1/d)$ (eliminated by two sizes), and in the first two layers
    $\Omega_\ell-\Omega_\ell^{lin}$ is
    $E_\ell=\kappa_1^2W_\ell E_{\ell-1}W_\ell^\top/k_{\ell-1}+M$, $E_0=0$,
    $M_{ii}=(\partial_r\mathrm E\sigma^2-\kappa_1^2)\delta_i$,
    $M_{ij}=\kappa_1\partial_r\kappa_1(\delta_i+\delta_j)C_{ij}$,
    $C=W_\ell\Omega_{\ell-1}^{lin}W_\ell^\top/k_{\ell-1}$, $\delta_i=C_{ii}-r$, up to $20/d$ of its
    squared norm, on average."""
    sizes, size = (d, 2 * d), (growth, depth, law, actual or law)
    left = [covariance_gaps(m, *size, n_draws, seed, formula) for m in sizes]
    bound = 20 / np.repeat([sizes], depth, axis=0).T
    small, large = (first_layer_gaps(m, growth, law, exact, seed, formula) for m in (2 * d, 4 * d))
    gap = 2 * large - small
    rest = (5 / (2 * d)) ** 2 * gap.mean()
    return {
        "first layer": compare(
            mean(gap, bias=rest, source="square of a 1/d term of 5 / d"),
            "==",
            theory("first layer", 2 * norm_of(4 * d, growth, law) - norm_of(2 * d, growth, law)),
        ),
        "left": compare(mean(np.stack(left, axis=1)), "<=", theory("left", bound)),
    }


@panel(
    deep_rf_layerwise_covariance,
    r"The linearised covariance is off by a norm of order 1 (first layer)",
    x="width per input",
    y=r"$\|\Omega_1-\Omega_1^{lin}\|_F^2$",
)
def _(pen, runs):
    growth = np.linspace(0.5, 1.7, 30)
    names = {np.sin: "sine", erf: "erf"}
    for k, law in enumerate(names):
        errors = [2 * norm_of(200, g, law) - norm_of(100, g, law) for g in growth]
        pen.theory(growth, errors, names[law], k=k)
        pen.points(*runs.measured("growth", where={"law": law}), k=k)


# ---------------------------------------------------------------------------------- ridge errors
def learner(n, aspect, rng):
    """Covariance of n inputs and weights of two layers, the last one aspect * n wide."""
    return np.diag(inputs(n)), rf.deep_weights(n, [n, round(aspect * n)], rng=rng)


def errors_of(F, tests, labels, truths, total):
    """Squared error of ridge regression, on average over test points, targets and label noise."""
    n = len(F)
    weights = tests @ F.T @ np.linalg.inv(F @ F.T + total * np.eye(n))
    off = ((truths - weights @ labels) ** 2).sum() / truths.shape[1]
    return (off + NOISE * (weights**2).sum()) / len(tests)


def gaussian_inputs(n, copies, rng):
    """Rows of n samples, each drawn ``copies`` times, and of 400 test points."""
    rows = rng.standard_normal((-(-n // copies) + 400, n)) * np.sqrt(inputs(n))
    return np.repeat(rows[400:], copies, axis=0)[:n], rows[:400]


def own_layers(n, weights, rng):
    return rf.deep_weights(n, [round(0.8 * n)], rng=rng), steep


def same_first_layer(n, weights, rng):
    return weights[:1], np.tanh


def even_teacher(n, weights, rng):
    return rf.deep_weights(n, [round(0.8 * n)], rng=rng), even


def frozen(n, weights, rng):
    return weights, np.tanh


@simulation
def simulated(n, aspect, lam, n_draws, seed, target, copies=1):
    """Excess errors of ridge regression on two tanh layers, one per draw."""
    found = []
    for rng in draws_of(n_draws, n, seed):
        _, weights = learner(n, aspect, rng)
        teacher, law = target(n, weights, rng)
        samples, points = gaussian_inputs(n, copies, rng)
        pairs = [
            rf.network_features(x, w, s)
            for w, s in ((weights, np.tanh), (teacher, law))
            for x in (samples, points)
        ]
        found.append(errors_of(*pairs, n * lam))
    return np.array(found)


def last(net):
    return net.covariances[-1]


def isotropic(net):
    omega = last(net)
    return np.trace(omega) / len(omega) * np.eye(len(omega))


def without_residual(net):
    return last(net) - net.residual[-1] * np.eye(len(last(net)))


@simulation
def shared_risk(n, aspect, lam, n_draws, seed, formula):
    """Predicted error on average over the weights, the target being linear in the features."""
    found = []
    for rng in draws_of(n_draws, n, seed):
        omega = formula(rf.deep_feature_covariances(*learner(n, aspect, rng), np.tanh))
        size = {"n_samples": n, "ridge": n * lam, "noise_variance": NOISE}
        found.append(rf.feature_ridge_risk(omega, omega, omega, **size).excess_risk)
    return np.mean(found)


@simulation
def mismatched_risk(n, aspect, lam, n_draws, seed):
    """Predicted error on average over the weights of learner and teacher."""
    found = []
    for rng in draws_of(n_draws, n, seed):
        omega0, weights = learner(n, aspect, rng)
        own = rf.deep_feature_covariances(omega0, weights, np.tanh)
        teacher = rf.deep_feature_covariances(omega0, *own_layers(n, weights, rng))
        cross = rf.deep_cross_covariance(omega0, own, teacher)
        size = {"n_samples": n, "ridge": n * lam, "noise_variance": NOISE}
        found.append(rf.feature_ridge_risk(last(own), cross, last(teacher), **size).excess_risk)
    return np.mean(found)


def two_sizes(n, run, predict):
    """Parts that judge an O(1/n) remainder: at 2n as it is, and after n and 2n eliminate it."""
    small, large = run(n), run(2 * n)
    first, second = predict(n), predict(2 * n)
    straight = mean(
        large, bias=4 / (2 * n) * np.abs(large.mean(axis=0)), source="the 4 / n of the statement"
    )
    limit = 2 * large - small
    rest = (4 / n) ** 2 * np.abs(limit.mean(axis=0))
    return {
        "limit": compare(
            mean(limit, bias=rest, source="square of a 1/n term of 4 / n"),
            "==",
            theory("limit", 2 * second - first),
        ),
        "at 2n": compare(straight, "==", theory("at 2n", second)),
    }


@layers.ours("the paper's formula in terms of kappa, on average over the target", serves="a")
@cases(n=50, aspect=1.25, lam=0.1, n_draws=80)
@full(n=50, aspect=[0.4, 1.0, 1.6], lam=RIDGES, n_draws=60)
@space(n=Int(50, 60), aspect=Real(0.4, 1.6), lam=Real(0.03, 1.0, log=True))
@breaks("the target has layers of its own", target=own_layers, n_draws=30)
@breaks("each sample drawn twice", copies=2, n_draws=60)
@breaks("an isotropic covariance of the same trace", formula=isotropic)
@breaks("without the residual variance", formula=without_residual)
def deep_rf_ridge_error_shared(
    n, aspect, lam, seed, n_draws=12, target=frozen, copies=1, formula=last
):
    r"""for $y=\theta^\top\varphi_L(x)/\sqrt{k_L}+\xi$, $\theta\sim N(0,I)$, $\xi$ of variance
    $\Delta=0.1$, on average over samples and weights the excess error of ridge regression with
    ridge $n\lambda$ is
    $\frac{\kappa^2\frac1{k_L}\mathrm{tr}\,\Omega(\Omega+\kappa)^{-2}+\Delta}{1-\mathrm{df}_2/n}
    -\Delta$ up to a relative $4/n$, which vanishes like $1/n$ (sizes $n$ and $2n$ eliminate
    it)."""
    return two_sizes(
        n,
        lambda m: simulated(m, aspect, lam, n_draws, seed, target, copies),
        lambda m: shared_risk(m, aspect, lam, NETWORKS, seed, formula),
    )


@layers.ours("ridge regression as an instance of the conjecture", serves="c")
@cases(n=50, aspect=1.25, lam=0.1, n_draws=80)
@full(n=50, aspect=[0.4, 1.0, 1.6], lam=RIDGES, n_draws=60)
@space(n=Int(50, 60), aspect=Real(0.4, 1.6), lam=Real(0.03, 1.0, log=True))
@breaks("an even teacher", target=even_teacher, n_draws=30)
@breaks("the learner's first layer as teacher", target=same_first_layer, n_draws=30)
def deep_rf_ridge_error_mismatch(n, aspect, lam, seed, n_draws=12, target=own_layers):
    r"""for $y=\theta^\top\psi(x)/\sqrt{k_t}+\xi$ with an independent layer $\psi(x)=\tanh(2Vx/
    \sqrt d)$ the same holds with $\mathrm{tr}\,\Omega(\Omega+\kappa)^{-2}/k_L$ replaced by
    $\mathrm{tr}\,\Phi\Phi^\top\Omega^{-1}(\Omega+\kappa)^{-2}/k_t$ and $\Delta$, but not in the
    last term, by $\Delta+\frac1{k_t}\mathrm{tr}(\Psi-\Phi^\top\Omega^{-1}\Phi)$, where
    $\Phi=\big(\prod_\ell\kappa_1W_\ell/\sqrt{k_{\ell-1}}\big)\Omega_0(\tilde\kappa_1V/\sqrt
    d)^\top$ and $\Psi$ is the linearised covariance of $\psi$."""
    return two_sizes(
        n,
        lambda m: simulated(m, aspect, lam, n_draws, seed, target),
        lambda m: mismatched_risk(m, aspect, lam, NETWORKS, seed),
    )


def draw_errors(pen, runs, predict):
    aspects = np.linspace(0.4, 1.6, 7)
    for k, lam in enumerate(RIDGES):
        curve = [2 * predict(100, a, lam) - predict(50, a, lam) for a in aspects]
        pen.theory(aspects, curve, rf"$\lambda={lam:g}$", k=k)
        pen.points(*runs.measured("aspect", where={"lam": lam}), k=k)


@panel(
    deep_rf_ridge_error_shared,
    "Target in the span of the features: the error follows from $\\Omega^{lin}$",
    x="features per sample $k_L/n$",
    y="excess error",
    log="y",
)
def _(pen, runs):
    draw_errors(pen, runs, lambda n, a, lam: shared_risk(n, a, lam, 5, 0, last))


@panel(
    deep_rf_ridge_error_mismatch,
    "An independent teacher: the unlearnable part acts as noise",
    x="features per sample $k_L/n$",
    y="excess error",
    log="y",
)
def _(pen, runs):
    draw_errors(pen, runs, lambda n, a, lam: mismatched_risk(n, a, lam, 5, 0))


# ---------------------------------------------------------------------------------- spectra
@simulation
def traces(n, aspect, lam, n_draws, seed, copies):
    """Normalised traces of the resolvent of the kernel of two tanh layers, one row per draw."""
    rows = []
    for rng in draws_of(n_draws, n, seed):
        _, weights = learner(n, aspect, rng)
        F = rf.network_features(gaussian_inputs(n, copies, rng)[0], weights, np.tanh)
        eigenvalues = np.linalg.eigvalsh(F.T @ F / n)
        rows.append([np.mean(1 / (eigenvalues + value)) for value in lam])
    return np.array(rows)


@simulation
def predicted_traces(n, aspect, lam, n_draws, seed, formula):
    rows = []
    for rng in draws_of(n_draws, n, seed):
        omega = formula(rf.deep_feature_covariances(*learner(n, aspect, rng), np.tanh))
        rows.append(rf.resolvent_trace(omega, n_samples=n, ridge=np.array(lam)))
    return np.mean(rows, axis=0)


@layers.ours("the paper's equivalent in terms of kappa", serves="b")
@cases(n=50, aspect=1.25, lam=(0.01, 0.1, 1.0), n_draws=50)
@full(n=50, aspect=[0.5, 1.0, 1.6], lam=(0.01, 0.03, 0.1, 0.3, 1.0), n_draws=60)
@space(n=Int(50, 60), aspect=Real(0.4, 1.6), lam=Real(0.01, 1.0, log=True, size=1))
@breaks("each sample drawn twice", copies=2)
@breaks("an isotropic covariance of the same trace", formula=isotropic)
def deep_ck_stieltjes(n, aspect, lam, seed, n_draws=20, copies=1, formula=last):
    r"""$\mathrm E\frac1{k_L}\mathrm{tr}(\frac1nF^\top F+\lambda)^{-1}=
    \frac{\kappa}{\lambda k_L}\mathrm{tr}(\Omega+\kappa)^{-1}$ up to a relative $4/n$, which
    vanishes like $1/n$ (sizes $n$ and $2n$ eliminate it)."""
    lam = tuple(lam)
    return two_sizes(
        n,
        lambda m: traces(m, aspect, lam, n_draws, seed, copies),
        lambda m: predicted_traces(m, aspect, lam, NETWORKS, seed, formula),
    )


@panel(
    deep_ck_stieltjes,
    "The spectrum of the deep conjugate kernel is that of a sample covariance",
    x=r"$\lambda$",
    y=r"$\lambda$ times the mean resolvent trace",
    log="x",
)
def _(pen, runs):
    lam = tuple(np.geomspace(0.01, 1.0, 20))
    for k, run in enumerate(runs.judgement.runs):
        aspect, at = run.instance["aspect"], np.array(run.instance["lam"])
        curve = predicted_traces(100, aspect, lam, 5, 0, last)
        pen.theory(lam, lam * curve, rf"$k_L/n={aspect:g}$", k=k)
        part = run.parts["limit"]
        pen.points(at, at * part.shown, at * part.error, k=k)


# ---------------------------------------------------------------------------------- real data
@simulation
def digit_errors(n, width, lam, n_draws, seed, target, copies):
    """Errors of ridge fits to resampled digits, and covariances of features and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = data.data - data.data.mean(axis=0)
    x *= math.sqrt(x.shape[1]) / np.linalg.norm(x, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    features = rf.network_features(x, rf.deep_weights(64, [width, width], rng=rng), np.tanh)
    labels = np.where(data.target % 2, 1.0, -1.0)[:, None]
    if target == "theta":
        labels = features @ rng.standard_normal((width, 1)) / math.sqrt(width)
    errors = []
    for _ in range(n_draws):
        i = np.repeat(rng.integers(len(x), size=-(-n // copies)), copies)[:n]
        F, y = features[i], labels[i]
        w = np.linalg.solve(F.T @ F + n * lam * np.eye(width), F.T @ y)
        errors.append(np.mean((labels - features @ w) ** 2))
    pairs = ((features, features), (features, labels), (labels, labels))
    return np.array(errors), [a.T @ b / len(x) for a, b in pairs]


@real.ours("universality on data that are not Gaussian", serves="ac")
@cases(n=200, width=100, target="parity", n_draws=200)
@full(n=200, width=80, target="theta", n_draws=300)
@full(n=[100, 200, 300], width=[60, 100], target="parity", n_draws=150)
@space(
    n=Int(100, 200),
    width=Int(60, 120),
    lam=Real(0.03, 1.0, log=True),
    target=Choice(["parity", "theta"]),
)
@breaks("each image drawn twice", copies=2)
def deep_rf_digits(n, width, seed, target, n_draws=20, lam=0.1, copies=1):
    r"""whether $y$ is the parity of the digit or $\theta^\top\varphi_L/\sqrt{k_L}$, the mean
    squared error is within 4 % of $\frac{\kappa^2\Phi^\top\Omega^{-1}(\Omega+\kappa)^{-2}\Phi+
    \mathrm Ey^2-\Phi^\top\Omega^{-1}\Phi}{1-\mathrm{df}_2/n}$."""
    runs, covariances = digit_errors(n, width, lam, n_draws, seed, target, copies)
    risk = rf.feature_ridge_risk(*covariances, n_samples=n, ridge=n * lam).excess_risk
    measured = mean(runs, bias=0.04 * runs.mean(), source="the 4 % of the statement")
    return compare(measured, "==", theory("risk", risk))


@panel(
    deep_rf_digits,
    "Odd or even digit: the error follows from estimated covariances",
    x="images $n$",
    y="test error",
    log="xy",
)
def _(pen, runs):
    n = np.unique(np.geomspace(90, 330, 10).astype(int))
    for k, width in enumerate((60, 100)):
        _, covariances = digit_errors(100, width, 0.1, 150, 0, "parity", 1)
        curve = [
            rf.feature_ridge_risk(*covariances, n_samples=int(m), ridge=0.1 * m).excess_risk
            for m in n
        ]
        pen.theory(n, curve, f"{width} features", k=k)
        pen.points(*runs.measured("n", where={"width": width, "target": "parity"}), k=k)


if __name__ == "__main__":
    run_script(__file__)
