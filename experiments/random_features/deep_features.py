"""Deep random features: covariances layer by layer, and the ridge errors that follow."""

import math
from functools import partial

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
    within,
)
from theorylab.verify.cli import run_script

NOISE = 0.1
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


EXTRAPOLATION = "change of the extrapolation over a doubling: thrice the square of 1/size"


def extrapolated(one, two, four):
    """Limits after which an error of order 1/size is eliminated, from two doublings of the size."""
    return 2 * two - one, 2 * four - two


def layer_weights(d, growth, depth, rng):
    return rf.deep_weights(d, [round(growth * d)] * depth, rng=rng)


@simulation
def covariance_gaps(d, growth, depth, law, actual, n_draws, rows, seed, formula):
    """Per draw and layer, an unbiased squared norm of the gap between covariances of the features
    and a formula with its correction, over that of the correction."""
    found = []
    for rng in draws_of(n_draws, d, seed):
        weights = layer_weights(d, growth, depth, rng)
        claimed = formula(np.diag(inputs(d)), weights, law)
        halves = rng.standard_normal((2, rows * d, d)) * np.sqrt(inputs(d))
        row = []
        for matrix, target, first in zip(weights, *claimed, strict=True):
            halves = [rf.network_features(x, [matrix], actual) for x in halves]
            one, two = (x.T @ x / len(x) - target - first for x in halves)
            row.append((one * two).sum() / (first**2).sum())
        found.append(row)
    return np.array(found)


def sine(u, frequency):
    return np.sin(frequency * u)


@simulation
def sine_gap(d, growth, frequency):
    """Mean, over the weights, of the squared distance of the covariance of one layer of sines to
    its linearisation: exact moments of exponentials of quadratic forms in Gaussian rows."""
    k, mu, a = round(growth * d), inputs(d) / d, frequency**2
    law = partial(sine, frequency=frequency)
    net = rf.deep_feature_covariances(np.eye(1), [np.ones((1, 1))], law)
    linear, rest = net.linear[0] ** 2, 0.5 - net.residual[0]

    def pair(t, s):
        """Mean of exp(-t (C_ii + C_jj) + s C_ij)."""
        return math.exp(-np.log((1 + 2 * t * mu) ** 2 - (s * mu) ** 2).sum() / 2)

    def alone(t):
        """Means of exp(-t C_ii) and of C_ii exp(-t C_ii)."""
        value = math.exp(-np.log1p(2 * t * mu).sum() / 2)
        return value, value * (mu / (1 + 2 * t * mu)).sum()

    # Off the diagonal exp(-a (C_ii + C_jj) / 2) sinh(a C_ij) - linear C_ij.
    bent = pair(a / 2, a) * (a * mu**2 / ((1 + a * mu) ** 2 - (a * mu) ** 2)).sum()
    off = (pair(a, 2 * a) - pair(a, 0)) / 2 - 2 * linear * bent + linear**2 * (mu**2).sum()
    # On it rest - exp(-2 a C_ii) / 2 - linear C_ii.
    (once, tilted), (twice, _) = alone(2 * a), alone(4 * a)
    on = rest**2 + twice / 4 + linear**2 * (mu.sum() ** 2 + 2 * (mu**2).sum())
    on += linear * tilted - rest * once - 2 * rest * linear * mu.sum()
    return k * on + k * (k - 1) * off


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


def norm_of(d, growth, frequency):
    """The predicted squared norm of the error of the first layer."""
    weights = layer_weights(d, growth, 1, np.random.default_rng(0))
    law = partial(sine, frequency=frequency)
    return rf.deep_feature_covariances(np.diag(inputs(d)), weights, law).frobenius_errors[0] ** 2


@layers.ours("the paper's closed form, with the leading part of its error, derived", serves="d")
@cases(d=24, law=np.sin, n_draws=24)
@full(d=36, law=np.sin, growth=[0.6, 1.0, 1.6], frequency=[0.7, 1.0, 1.3], n_draws=16)
@full(d=36, law=erf, growth=1.2, n_draws=40)
@space(
    d=Int(20, 28),
    growth=Real(0.6, 1.6),
    depth=Int(1, 2),
    law=Choice([np.sin, erf]),
    frequency=Real(0.5, 1.5),
)
@breaks("sigma not centred", actual=shifted, depth=1, n_draws=40, rows=10)
@breaks("coefficients at variance 1", formula=unit_variance, n_draws=40, rows=10)
def deep_rf_layerwise_covariance(
    d,
    law,
    seed,
    growth=1.0,
    depth=2,
    frequency=1.0,
    n_draws=12,
    rows=40,
    actual=None,
    formula=linearised,
):
    r"""$\|\Omega_\ell-\Omega_\ell^{lin}\|_F/\|\Omega_\ell^{lin}\|_F\to0$ like $d^{-1/2}$: for one
    layer of sines, $\sigma(u)=\sin\omega u$, the mean of $\|\Omega_1-\Omega_1^{lin}\|_F^2$ tends to
    the limit of $e_1^2=2g\tau(\partial_r\mathrm E\sigma^2-\kappa_1^2)^2
    +4g^2\tau^2\kappa_1^2(\partial_r\kappa_1)^2$, $g=k_1/d$, $\tau=\|\Omega_0\|_F^2/d$ (it is
    computed exactly and extrapolated), and in the first and second layer, for
    $\sigma=\sin$ and the error function, $\Omega_\ell-\Omega_\ell^{lin}$ is
    $E_\ell=\kappa_1^2W_\ell E_{\ell-1}W_\ell^\top/k_{\ell-1}+M$, $E_0=0$,
    $M_{ii}=(\partial_r\mathrm E\sigma^2-\kappa_1^2)\delta_i$,
    $M_{ij}=\kappa_1\partial_r\kappa_1(\delta_i+\delta_j)C_{ij}$,
    $C=W_\ell\Omega_{\ell-1}^{lin}W_\ell^\top/k_{\ell-1}$, $\delta_i=C_{ii}-r$, up to less than
    $20/d$ of its squared norm on average (a number that was observed)."""
    growth = round(growth * d) / d  # the same quotient at every size
    left = [
        covariance_gaps(m, growth, depth, law, actual or law, n_draws, rows, seed, formula)[:, -1]
        for m in (d, 2 * d)
    ]
    bound = 20 / np.array([d, 2 * d])
    early, late = extrapolated(*(sine_gap(m, growth, frequency) for m in (d, 2 * d, 4 * d)))
    first, second = (norm_of(m, growth, frequency) for m in (2 * d, 4 * d))
    return {
        "first layer": compare(
            within(late, 2 * abs(late - early), EXTRAPOLATION),  # $e_1^2$ is extrapolated too
            "==",
            theory("first layer", 2 * second - first),
        ),
        "left": compare(mean(np.stack(left, axis=1)), "<=", theory("left", bound)),
    }


@panel(
    deep_rf_layerwise_covariance,
    r"One layer of sines: the linearised covariance is off by a norm of order 1",
    x="width per input",
    y=r"$\|\Omega_1-\Omega_1^{lin}\|_F^2$",
)
def _(pen, runs):
    growth = np.linspace(0.5, 1.7, 7)
    for k, frequency in enumerate((0.7, 1.0, 1.3)):
        errors = [2 * norm_of(200, g, frequency) - norm_of(100, g, frequency) for g in growth]
        pen.theory(growth, errors, rf"$\omega={frequency:g}$", k=k)
        pen.points(*runs.measured("growth", "first layer", where={"frequency": frequency}), k=k)


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


def three_sizes(n, run, predict):
    """Limit of samples at n, 2n and 4n, against that of predictions for the same weights."""
    early, late = extrapolated(*(run(n * c) for c in (1, 2, 4)))
    change = np.abs(late.mean(axis=0) - early.mean(axis=0))
    return compare(
        mean(late, bias=change, source=EXTRAPOLATION),
        "==",
        theory("limit", 2 * predict(4 * n) - predict(2 * n)),
    )


@layers.ours("the paper's formula in terms of kappa, on average over the target", serves="a")
@cases(n=32, aspect=1.25, lam=0.1, n_draws=50)
@full(n=40, aspect=[0.4, 1.0, 1.6], lam=RIDGES, n_draws=30)
@space(n=Int(30, 40), aspect=Real(0.4, 1.6), lam=Real(0.03, 1.0, log=True))
@breaks("the target has layers of its own", target=own_layers, n_draws=12)
@breaks("each sample drawn twice", copies=2, n_draws=16)
@breaks("an isotropic covariance of the same trace", formula=isotropic, n_draws=12)
@breaks("without the residual variance", formula=without_residual, n_draws=40)
def deep_rf_ridge_error_shared(
    n, aspect, lam, seed, n_draws=12, target=frozen, copies=1, formula=last
):
    r"""with two tanh layers, $y=\theta^\top\varphi_L(x)/\sqrt{k_L}+\xi$, $\theta\sim N(0,I)$, $\xi$
    of variance $\Delta=0.1$, on average over samples and weights the excess error of ridge
    regression with ridge $n\lambda$ is
    $\frac{\kappa^2\frac1{k_L}\mathrm{tr}\,\Omega(\Omega+\kappa)^{-2}+\Delta}{1-\mathrm{df}_2/n}
    -\Delta$ up to $O(1/n)$ (limits are extrapolated from sizes $n$, $2n$, $4n$)."""
    return three_sizes(
        n,
        lambda m: simulated(m, aspect, lam, n_draws, seed, target, copies),
        lambda m: shared_risk(m, aspect, lam, n_draws, seed, formula),
    )


@layers.ours("ridge regression as an instance of the conjecture", serves="c")
@cases(n=32, aspect=1.25, lam=0.1, n_draws=50)
@full(n=40, aspect=[0.4, 1.0, 1.6], lam=RIDGES, n_draws=30)
@space(n=Int(30, 40), aspect=Real(0.4, 1.6), lam=Real(0.03, 1.0, log=True))
@breaks("an even teacher", target=even_teacher, n_draws=12)
@breaks("the learner's first layer as teacher", target=same_first_layer, n_draws=12)
def deep_rf_ridge_error_mismatch(n, aspect, lam, seed, n_draws=12, target=own_layers):
    r"""with two tanh layers, $y=\theta^\top\psi(x)/\sqrt{k_t}+\xi$ and an independent layer
    $\psi(x)=\tanh(2Vx/\sqrt d)$ the same holds with
    $\mathrm{tr}\,\Omega(\Omega+\kappa)^{-2}/k_L$ replaced by
    $\mathrm{tr}\,\Phi\Phi^\top\Omega^{-1}(\Omega+\kappa)^{-2}/k_t$ and $\Delta$, but not in the
    last term, by $\Delta+\frac1{k_t}\mathrm{tr}(\Psi-\Phi^\top\Omega^{-1}\Phi)$, where
    $\Phi=\big(\prod_\ell\kappa_1W_\ell/\sqrt{k_{\ell-1}}\big)\Omega_0(\tilde\kappa_1V/\sqrt
    d)^\top$ and $\Psi$ is the linearised covariance of $\psi$."""
    return three_sizes(
        n,
        lambda m: simulated(m, aspect, lam, n_draws, seed, target),
        lambda m: mismatched_risk(m, aspect, lam, n_draws, seed),
    )


def draw_errors(pen, runs, predict):
    aspects = np.linspace(0.4, 1.6, 9)
    for k, lam in enumerate(RIDGES):
        curve = [predict(200, a, lam) for a in aspects]
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
    draw_errors(pen, runs, lambda n, a, lam: shared_risk(n, a, lam, 4, 0, last))


@panel(
    deep_rf_ridge_error_mismatch,
    "An independent teacher: the unlearnable part acts as noise",
    x="features per sample $k_L/n$",
    y="excess error",
    log="y",
)
def _(pen, runs):
    draw_errors(pen, runs, lambda n, a, lam: mismatched_risk(n, a, lam, 4, 0))


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
@cases(n=32, aspect=1.25, lam=(0.01, 0.1, 1.0), n_draws=40)
@full(n=40, aspect=[0.5, 1.0, 1.6], lam=(0.01, 0.03, 0.1, 0.3, 1.0), n_draws=50)
@space(n=Int(30, 40), aspect=Real(0.4, 1.6), lam=Real(0.01, 1.0, log=True, size=1))
@breaks("each sample drawn twice", copies=2)
@breaks("an isotropic covariance of the same trace", formula=isotropic)
def deep_ck_stieltjes(n, aspect, lam, seed, n_draws=20, copies=1, formula=last):
    r"""with two tanh layers $\mathrm E\frac1{k_L}\mathrm{tr}(\frac1nF^\top F+\lambda)^{-1}=
    \frac{\kappa}{\lambda k_L}\mathrm{tr}(\Omega+\kappa)^{-1}$ up to $O(1/n)$ (limits are
    extrapolated from sizes $n$, $2n$, $4n$)."""
    lam = tuple(lam)
    return three_sizes(
        n,
        lambda m: traces(m, aspect, lam, n_draws, seed, copies),
        lambda m: predicted_traces(m, aspect, lam, n_draws, seed, formula),
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
        curve = predicted_traces(200, aspect, lam, 3, 0, last)
        pen.theory(lam, lam * curve, rf"$k_L/n={aspect:g}$", k=k)
        (part,) = run.parts.values()
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
