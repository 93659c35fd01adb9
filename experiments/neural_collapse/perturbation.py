"""Features near given features: variability along the central path and near collapse."""

from fractions import Fraction
from functools import partial

import numpy as np

import theorylab.neural_collapse as nc
from theorylab.verify import (
    Choice,
    Evidence,
    Int,
    Real,
    Runs,
    all_of,
    at_least,
    at_most,
    claim,
    equal,
    exact,
    inconclusive,
    rate,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

STEP = 1e-4
PATH = (
    r"$K$ balanced classes of $n$ samples, $\dot H=-W^\top(WH-Y)-\lambda_HH$ with the ridge classifier "
    r"$W=YH^\top(HH^\top+n\lambda_WI)^{-1}$, $\lambda_W>0$, $\lambda_H\geq0$, features "
    r"$H\in\mathbb{R}^{d\times Kn}$ not collapsed: "
)
NEAR = (
    r"Minimize $\frac1{2Kn}\|WH-Y\|^2+\frac{\lambda_W}{2K}\|W\|^2+\frac{\lambda_H}{2Kn}\|H\|^2+\frac\beta{2Kn}\|H-H_0\|^2$, $K$ "
    r"balanced classes of $n$ samples, $d\geq K$, $H_0$ collapsed to an orthogonal frame plus $\varepsilon\Delta$, $\Delta$ with "
    r"zero class means: "
)


def frame(n_classes, n, dimension, length, rng):
    """Features collapsed to an orthogonal frame in a random position, and a perturbation with zero class means."""
    Q = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0][:, :n_classes]
    noise = rng.standard_normal((dimension, n_classes, n))
    return (
        Q,
        np.repeat(length * Q, n, axis=1),
        (noise - noise.mean(axis=2, keepdims=True)).reshape(dimension, -1),
    )


def within(features, K):
    means = features.reshape(len(features), K, -1).mean(axis=2)
    return features - np.repeat(means, features.shape[1] // K, axis=1)


def centred(features, K):
    means = features.reshape(len(features), K, -1).mean(axis=2)
    return means - means.mean(axis=1, keepdims=True)


@claim(
    PATH
    + r"$\mathrm{tr}\,\Sigma_W/\mathrm{tr}\,\Sigma_B$ strictly decreases, $e^{2\lambda_Ht}\mathrm{tr}\,\Sigma_W$ decreases, "
    r"$e^{2\lambda_Ht}\mathrm{tr}\,\Sigma_B$ strictly increases; their logarithmic rates are $-2\|WH_w\|^2/\|H_w\|^2$ and "
    r"$2n\langle Q,M_cM_c^\top\rangle/\|M_c\|^2\geq0$, $H_w$ the deviations from the class means, $M_c$ the centred class means, "
    r"$R=(HH^\top+n\lambda_WI)^{-1}$, $Q=R(H_wH_w^\top+n\lambda_WI)R$.",
    sources=["tirer2022-perturbation, Theorem 3.1"],
    origin="sharpened",
    kind="monotonicity",
    cases={
        "quick": [{"lam_w": w, "lam_h": h} for w, h in ((1e-3, 0.05), (0.1, 0.0))],
        "full": [
            {"lam_w": w, "lam_h": h, "separation": s}
            for w in (1e-3, 0.1)
            for h in (0.05, 0.0)
            for s in (0.0, 0.3, 3.0, 1.0)
        ],
    },
    space={
        "lam_w": Real(1e-3, 1.0, log=True),
        "lam_h": Real(0.0, 0.3),
        "separation": Real(0.0, 2.0),
        "n_classes": Int(2, 4),
        "dimension": Int(lambda p: p["n_classes"], 6),
    },
    breaks={
        "classifier frozen at labels shifted by one class": {"frozen": True, "separation": 3.0}
    },
)
def central_path_nc1_monotone(
    lam_w, lam_h, seed, separation=1.0, n_classes=3, dimension=6, n=5, frozen=False
) -> Evidence:
    rng = np.random.default_rng(seed)
    start = separation * frame(n_classes, n, dimension, 1.0, rng)[1] + rng.standard_normal(
        (dimension, n_classes * n)
    )
    fixed = (
        np.roll(nc.ridge_classifier(start, n_classes, lam_w=lam_w), 1, axis=0) if frozen else None
    )
    times = np.linspace(0, 3, 13)
    path = nc.central_path(
        start, n_classes, lam_w=lam_w, lam_h=lam_h, times=times, classifier=fixed, tol=1e-12
    )
    logs = np.log(np.stack([path.within_trace, path.between_trace])) + 2 * lam_h * times
    slopes, predicted = [], []
    for H in path.features:
        V = nc.central_path_velocity(H, n_classes, lam_w=lam_w, classifier=fixed)
        rates = nc.trace_rates(H, n_classes, lam_w=lam_w)
        slopes.append(
            [
                2 * np.sum(p(H) * p(V)) / np.sum(p(H) ** 2)
                for p in (partial(within, K=n_classes), partial(centred, K=n_classes))
            ]
        )
        predicted.append([rates.within, rates.between])
    parts = [
        at_most(np.diff(logs[0] - logs[1]), 0.0, rounding=0.0),
        at_most(np.diff(logs[0]), 1e-11),
        at_least(np.diff(logs[1]), 0.0, rounding=0.0),
    ]
    if not frozen:
        # Rounding is amplified by the condition of the ridge matrix, at most |H|^2 / (n lam_w).
        error = 1e-13 * np.sum(start**2) / (n * lam_w)
        parts.append(
            equal(
                slopes,
                predicted,
                error=error,
                source="rounding times the condition of the ridge matrix",
                scale=1.0,
            )
        )
    return all_of(*parts).with_data(times=times, ratio=np.exp(logs[0] - logs[1]))


@central_path_nc1_monotone.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs[-4:], COLOURS, strict=False):
        ratio = run.data["ratio"] / run.data["ratio"][0]
        ax.semilogy(run.data["times"], ratio, "o-", color=colour, markersize=3)
        label = f"separation {run.instance.get('separation', 1.0):g}"
        ax.annotate(
            label,
            (3, ratio[-1]),
            (4, -5 if run.instance.get("separation") == 0 else 0),
            textcoords="offset points",
            color=colour,
            fontsize=7,
        )
    data = runs.controls["classifier frozen at labels shifted by one class"].data
    ax.semilogy(data["times"], data["ratio"] / data["ratio"][0], color=BROKEN)
    ax.annotate("frozen classifier", (1.2, 1.3), color=BROKEN, fontsize=8, ha="right")
    ax.set(
        title=r"$\mathrm{tr}\,\Sigma_W/\mathrm{tr}\,\Sigma_B$ falls on the central path",
        xlabel="time",
    )
    ax.set_ylabel("relative to the start (log)")


MEANS = np.array([[1.0, 2.0, -3.0], [0.0, 0.25, -0.25], [0.0, 0.0, 0.0]])
DEVIATIONS = np.array([[-15.0, -28.0, -2.0], [-1.25, -1.1875, -0.625], [15.0, 12.0, 3.0]])


@claim(
    PATH
    + r"$\mathrm{tr}(\Sigma_W\Sigma_B^+)$ can increase when $K\geq3$ and $d\geq K$, whatever $\lambda_H$: at the two samples "
    r"$m_k\pm a_k$ of each of three classes given in the script its derivative is positive, in exact rational arithmetic. It "
    r"cannot where $\sum_km_k=0$ and the deviations lie in the span of the class means.",
    sources=["tirer2022-perturbation, Section 3 (the metric set aside there)"],
    origin="derived",
    kind="counterexample",
    cases={
        "quick": [{"lam_w": 0.0078125}],
        "full": [{"lam_w": 0.5}, {"lam_w": 0.125}, {"lam_w": 0.0078125}],
    },
    breaks={"deviations in the span of the means": {"flat": True}, "two classes": {"n_classes": 2}},
)
def pinv_variability_can_increase(lam_w, flat=False, n_classes=3) -> Evidence:
    means, deviations = MEANS.copy(), DEVIATIONS * [[1], [1], [0 if flat else 1]]
    if n_classes == 2:
        means, deviations = np.array([[1.0, -1.0], [0, 0], [0, 0]]), deviations[:, :2]
    start = np.stack([means + deviations, means - deviations], axis=2).reshape(3, -1)
    derivative = nc.exact_variability_rate(start, n_classes, lam_w=lam_w)
    times = np.linspace(0, 3, 200)
    path = nc.central_path(start, n_classes, lam_w=lam_w, times=times)
    return exact(
        derivative,
        ">",
        Fraction(0),
        data={"times": times, "metric": path.variability, "lam_w": lam_w},
    )


@pinv_variability_can_increase.panel
def _(ax, runs: Runs) -> None:
    shown = [(r.data, COLOURS[1], rf"$\lambda_W={r.data['lam_w']:.2g}$", (3, 0)) for r in runs]
    shown += [
        (e.data, BROKEN, name, (-120, dy))
        for (name, e), dy in zip(runs.controls.items(), (-16, 12), strict=True)
    ]
    for data, colour, label, offset in shown:
        metric = data["metric"] / data["metric"][0]
        ax.plot(data["times"], metric, color=colour)
        ax.annotate(
            label,
            (data["times"][-1], metric[-1]),
            offset,
            textcoords="offset points",
            color=colour,
            fontsize=8,
        )
    ax.set(
        title=r"$\mathrm{tr}(\Sigma_W\Sigma_B^+)$ need not fall",
        xlabel="time",
        ylabel="relative to the start",
    )


@claim(
    NEAR
    + r"within-class deviations of the minimizer are $\varepsilon\beta(W^\top W+\beta+\lambda_H)^{-1}\Delta+O(\varepsilon^3)$, "
    r"$W$ the classifier at $\varepsilon=0$: they shrink by $\beta/(w^2+\beta+\lambda_H)$ along its directions, by "
    r"$\beta/(\beta+\lambda_H)$ elsewhere.",
    sources=["tirer2022-perturbation, Theorem 4.1"],
    origin="sharpened",
    kind="identity",
    cases={
        "quick": [{"beta": 0.3, "lam_w": 0.05, "lam_h": 0.02, "length": 1.0}],
        "full": [
            {"beta": b, "lam_w": 0.05, "lam_h": 0.02, "length": r}
            for b in (0.1, 3.0, 0.3)
            for r in (2.0, 1.0)
        ],
    },
    space={
        "beta": Real(0.1, 3.0),
        "lam_w": Real(0.02, 0.3),
        "lam_h": Real(0.0, 0.2),
        "length": Real(0.7, 2.0),
    },
    breaks={"perturbed class means": {"moved": 1.0}},
)
def near_collapse_linear_response(
    beta, lam_w, lam_h, length, seed, n_classes=3, n=10, dimension=6, moved=0.0
) -> Evidence:
    rng = np.random.default_rng(seed)
    Q, base, noise = frame(n_classes, n, dimension, length, rng)
    shift = np.repeat(rng.standard_normal((dimension, n_classes)), n, axis=1)
    answer = nc.collapsed_response(beta=beta, lam_w=lam_w, lam_h=lam_h, length=length)
    predicted = answer.off_span * noise + (answer.on_span - answer.off_span) * Q @ (Q.T @ noise)
    eps = np.geomspace(0.1, 1e-3, 13)
    options = {"beta": beta, "lam_w": lam_w, "lam_h": lam_h}
    found = [
        nc.near_minimizer(base + e * (noise + moved * shift), n_classes, **options) for e in eps
    ]
    parts = [within(f.features, n_classes) for f in found]
    remainder = np.array(
        [np.linalg.norm(w - e * predicted) for w, e in zip(parts, eps, strict=True)]
    )
    if any(f.status is nc.NearStatus.STOPPED for f in found):
        return inconclusive("the minimizer was not found to rounding")
    # The floor: what the rounding of the features leaves in the remainder.
    data = {"eps": eps, "error": remainder / eps, "beta": beta}
    return rate(1 / eps, remainder, -3, rival=-2, floor=1e-13 * np.linalg.norm(base), data=data)


@near_collapse_linear_response.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs[-2:], COLOURS[1:], strict=False):
        eps, error = run.data["eps"], run.data["error"]
        ax.loglog(eps, error, "o", color=colour)
        ax.loglog(eps, error[-1] * (eps / eps[-1]) ** 2, color=colour)
    broken = runs.controls["perturbed class means"].data
    ax.loglog(broken["eps"], broken["error"], ".-", color=BROKEN)
    ax.annotate("perturbed class means", (1.5e-3, broken["error"][0]), color=BROKEN, fontsize=8)
    ax.set(
        title=r"Near collapse the response is linear up to $O(\varepsilon^3)$",
        xlabel=r"$\varepsilon$ (log)",
    )
    ax.set_ylabel(r"remainder$\,/\,\varepsilon$ (log)")


@claim(
    NEAR
    + r"if the frame is the minimizer without attachment ($\lambda_W\lambda_H<1$), deviations shrink to first order by "
    r"$\beta/(\beta+\sqrt{\lambda_H/\lambda_W})$ along the classifier and by $\beta/(\beta+\lambda_H)$ elsewhere: more collapse "
    r"for larger $\lambda_H$ and smaller $\beta$, less along the classifier for larger $\lambda_W$. For a fixed "
    r"frame of any length the signs are the same.",
    sources=["tirer2022-perturbation, Theorem 4.2"],
    origin="sharpened",
    kind="monotonicity",
    cases={
        "quick": [
            {"beta": 1.0, "lam_w": 0.05, "lam_h": 0.1},
            {"beta": 0.3, "lam_w": 0.05, "lam_h": 0.02},
        ],
        "full": [
            {"beta": b, "lam_w": w, "lam_h": h}
            for b in (0.1, 3.0, 0.3)
            for w, h in ((0.05, 0.1), (0.5, 0.02), (0.05, 0.02))
        ],
    },
    space={
        "beta": Real(0.1, 3.0),
        "lam_w": Real(0.02, 0.5),
        "lam_h": Real(0.02, 0.5),
        "fixed": Choice((False, True)),
    },
    breaks={"large perturbation, small weight decay": {"eps": 0.1, "lam_w": 1e-4, "fixed": True}},
)
def hyperparameter_effect_on_collapse(
    beta, lam_w, lam_h, seed, eps=STEP, fixed=False, n_classes=3, n=10, dimension=6
) -> Evidence:
    length = nc.collapsed_response(beta=beta, lam_w=lam_w, lam_h=lam_h).length

    def factors(**change):
        options = {"beta": beta, "lam_w": lam_w, "lam_h": lam_h} | change
        answer = nc.collapsed_response(**options, length=length if fixed else None)
        own = length if fixed else answer.length
        Q, base, noise = frame(n_classes, n, dimension, own, np.random.default_rng(seed))
        found = nc.near_minimizer(base + eps * noise, n_classes, **options)
        parts = within(found.features, n_classes), eps * noise
        on, on0 = (np.linalg.norm(Q.T @ p) for p in parts)
        off, off0 = (np.linalg.norm(p - Q @ (Q.T @ p)) for p in parts)
        return (on / on0, off / off0), (answer.on_span, answer.off_span)

    changes = [{}, {"beta": 1.3 * beta}, {"lam_h": 1.3 * lam_h}, {"lam_w": 1.3 * lam_w}]
    measured, predicted = np.array([factors(**c) for c in changes]).transpose(1, 0, 2)
    ratio = measured[1:] / measured[0]
    parts = [at_least(ratio[0], 1.0), at_most(ratio[1], 1.0), at_least(ratio[2, 0], 1.0)]
    if eps == STEP:
        # Second moments, hence W, move by eps^2 |noise|^2; n lam_w bounds the ridge matrix below. The factor covers the feedback.
        noise = frame(n_classes, n, dimension, length, np.random.default_rng(seed))[2]
        error = 4 * STEP**2 * np.linalg.norm(noise, 2) ** 2 / (n * lam_w)
        parts.append(
            equal(
                measured,
                predicted,
                error=error,
                source="second order in eps = 1e-4, through the ridge classifier",
            )
        )
    return all_of(*parts).with_data(beta=beta, lam_w=lam_w, lam_h=lam_h, factors=measured[0])


@hyperparameter_effect_on_collapse.panel
def _(ax, runs: Runs) -> None:
    beta = np.geomspace(0.05, 5, 100)
    for (lam_w, lam_h), colour in zip(
        sorted({(r.data["lam_w"], r.data["lam_h"]) for r in runs}), COLOURS, strict=False
    ):
        own = [r for r in runs if (r.data["lam_w"], r.data["lam_h"]) == (lam_w, lam_h)]
        pull = np.sqrt(lam_h / lam_w)
        ax.semilogx(beta, beta / (beta + pull), color=colour)
        ax.plot(
            [r.data["beta"] for r in own], [r.data["factors"][0] for r in own], "o", color=colour
        )
        text, at = rf"$\lambda_W={lam_w}$, $\lambda_H={lam_h}$", (5, 5 / (5 + pull))
        ax.annotate(text, at, (4, -2), textcoords="offset points", color=colour, fontsize=7)
    ax.set(
        title=r"Collapse: more with $\lambda_H$, less with $\lambda_W$ and $\beta$",
        xlabel=r"attachment $\beta$ (log)",
    )
    ax.set_ylabel("deviation kept, along the classifier")


if __name__ == "__main__":
    run_script(__file__)
