"""The Bures-Wasserstein loss of a linear generator: critical points, curvature, rates."""

import numpy as np
from scipy.optimize import least_squares, minimize

from theorylab.matrix_sensing import (
    balanced_factors,
    bures_gradient,
    bures_gradient_descent,
    bures_hessian,
    bures_loss,
    curvature_bounds,
    deep_flow,
    deep_gradient_descent,
    deep_rate,
    factor_rate,
    smoothed_minimum,
    spectral_selections,
    subspace_tilt,
)
from theorylab.verify import (
    Evidence,
    Int,
    Real,
    Runs,
    all_of,
    at_least,
    claim,
    equal,
    exhaustive,
    inconclusive,
    limit,
    rate,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

EPS = np.finfo(float).eps
SETTING = (
    r"$f(W)=B^2(WW^\top,\Sigma_0)$, $W\in\mathbb{R}^{n\times k}$, $k<n$, $\Sigma_0\succ0$ with eigenvalues "
    r"$\lambda_1>\dots>\lambda_n$ and eigenvectors $u_i$: "
)
SPECTRUM = (5.0, 3.0, 2.0, 1.0, 0.5)
FLOOR = EPS ** (
    1 / 3
)  # of a tilt x: below it the rounding of its logarithm, EPS / x, exceeds the quadratic terms, x^2


def target(eigenvalues, rng) -> np.ndarray:
    U = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))[0]
    S = (U * np.asarray(eigenvalues)) @ U.T
    return (S + S.T) / 2


@claim(
    r"For $W\in\mathbb{R}^{n\times k}$ of rank $k$ and $\Sigma_0\succ0$: $B^2(WW^\top,\Sigma_0)=\|W\|_F^2"
    r"+\operatorname{tr}\Sigma_0-2\|\Sigma_0^{1/2}W\|_*$, with gradient $2W-2\Sigma_0^{1/2}Q$, "
    r"$Q$ the polar factor of $\Sigma_0^{1/2}W$.",
    sources=["brechet2023-critical, loss in terms of the weights (form derived here)"],
    origin="derived",
    kind="identity",
    cases=[{"n": n, "k": k} for n, k in ((3, 3), (6, 1), (5, 2))],
    space={"n": Int(2, 7), "k": Int(1, lambda p: p["n"])},
    breaks={"W of rank k - 1": {"deficient": True}, "covariance WW' + 0.1 I": {"excess": 0.1}},
)
def bures_nuclear_norm_form(
    n: int, k: int, seed: int, deficient: bool = False, excess: float = 0.0
) -> Evidence:
    rng = np.random.default_rng(seed)
    S, W = target(np.linspace(0.5, 3, n), rng), rng.standard_normal((n, k))
    if deficient:
        W[:, -1] = 0
    values, vectors = np.linalg.eigh(S)
    root = (vectors * np.sqrt(values)) @ vectors.T
    cross = np.linalg.eigvalsh(root @ (W @ W.T + excess * np.eye(n)) @ root)
    definition = np.sum(W**2) + n * excess + np.trace(S) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    # The n - k zero eigenvalues come out at the level of rounding, of which the definition takes the root.
    error = 2 * n * np.sqrt(n * EPS * max(cross)) + 100 * n * EPS
    value = equal(
        definition,
        bures_loss(W, S),
        error=error,
        source="square root of the rounding of zero eigenvalues",
    )
    E, h = rng.standard_normal((n, k)), 1e-6
    E /= np.linalg.norm(E)
    slope = (bures_loss(W + h * E, S) - bures_loss(W, S)) / h
    sigma = np.linalg.svd(root @ W, compute_uv=False)[-1]
    if sigma < 1e-3 and not deficient:
        return inconclusive("the weights are too close to a lower rank for a step of 1e-6")
    # The Hessian lies between 2 - 2 lambda_1 / sigma_k and 2, and sigma_k keeps half its size along the step.
    bend = h * (1 + 2 * values[-1] / max(sigma, 1e-3))
    predicted, size = np.sum(bures_gradient(W, S) * E), np.linalg.norm(bures_gradient(W, S))
    error = bend + 1e-7  # the difference of two values near 10, each to about 1e-14, divided by h
    return all_of(
        value,
        equal(
            slope,
            predicted,
            error=error,
            scale=size,
            source="curvature over a step of 1e-6, rounding over 1e-6",
        ),
    )


@claim(
    SETTING
    + r"its critical points of rank $k$ are $WW^\top=\sum_{i\in J}\lambda_iu_iu_i^\top$, $|J|=k$, "
    r"with value $\sum_{i\notin J}\lambda_i$ and Hessian eigenvalues $2(1-\lambda_j/\lambda_i)$ ($i\in J\not\ni j$), 2 and 0: "
    r"the truncation is the minimum and all others are strict saddles.",
    sources=["brechet2023-critical, critical-point theorem (proof and Hessian derived here)"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"eigenvalues": SPECTRUM, "k": 2, "starts": 30}],
        "full": [{"eigenvalues": SPECTRUM, "k": k, "starts": 100} for k in (1, 3, 4, 2)],
    },
    breaks={
        "a repeated eigenvalue": {
            "eigenvalues": (5.0, 3.0 + 1e-9, 3.0, 1.0, 0.5),
            "actual": (5.0, 3.0, 3.0, 1.0, 0.5),
        }
    },
)
def critical_points_are_spectral_selections(
    eigenvalues, k: int, starts: int, seed: int, actual=None
) -> Evidence:
    rng = np.random.default_rng(seed)
    n = len(eigenvalues)
    stated, S = np.diag(eigenvalues), np.diag(actual or eigenvalues)
    known = spectral_selections(stated, k)

    def is_as_stated(s) -> bool:
        curvatures = np.linalg.eigvalsh(bures_hessian(s.weights, stated))
        flat = (
            np.linalg.norm(bures_gradient(s.weights, stated)) < 1e-12
            and abs(bures_loss(s.weights, stated) - s.value) < 1e-12
        )
        return bool(
            flat
            and np.abs(curvatures - s.curvatures).max() < 1e-10
            and (s.index == 0) == (s is known[0])
        )

    outcomes = {s.indices: is_as_stated(s) for s in known}
    found = []
    for _ in range(starts):
        run = least_squares(
            lambda w: bures_gradient(w.reshape(n, k), S).ravel(),
            2 * rng.standard_normal(n * k),
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
        )
        W = run.x.reshape(n, k)
        if (
            np.linalg.norm(run.fun) < 1e-9 and np.linalg.svd(W, compute_uv=False)[-1] > 0.1
        ):  # rank k
            found.append(bures_loss(W, S))
            # The gradient moves by at least min |curvature| >= 0.5 times the distance to the selection.
            outcomes[f"start {len(found)}"] = bool(
                min(np.linalg.norm(W @ W.T - s.covariance) for s in known) < 1e-6
            )
    return exhaustive(
        outcomes,
        data={
            "found": found,
            "values": [s.value for s in known],
            "index": [s.index for s in known],
        },
    )


@critical_points_are_spectral_selections.panel
def _(ax, runs: Runs) -> None:
    data = runs[-1].data
    ax.hlines(data["values"], 0, 1, color=COLOURS[0], linewidth=1)
    ax.plot(
        np.linspace(0.05, 0.8, len(data["found"])),
        data["found"],
        "o",
        color=COLOURS[0],
        markersize=2.5,
    )
    for value, index in zip(data["values"], data["index"], strict=True):
        ax.text(
            1.02,
            value,
            f"index {index}" if index else "minimum",
            fontsize=8,
            va="center",
            color=COLOURS[0],
        )
    ax.set(
        title="Critical values are sums of left-out eigenvalues",
        xlim=(0, 1.25),
        xticks=[],
        ylabel="loss",
    )
    ax.set_xlabel("points where random searches end (n = 5, k = 2)")


@claim(
    SETTING
    + r"as $\sigma_k(\Sigma_0^{1/2}W)\to0$ with the other singular values and vectors fixed, "
    r"$\sigma_k\lambda_{\min}(\nabla^2f(W))\to-2\lambda_{\max}(P\Sigma_0P)$, $P$ the projection off "
    r"$\operatorname{range}\Sigma_0^{1/2}W$, with remainder $\sigma_k\max(2,4\lambda_1/\sigma_{k-1}-2)$.",
    sources=["brechet2023-critical, remark that the Hessian can blow up (rate derived here)"],
    origin="derived",
    kind="rate",
    cases=[{"n": n, "k": k, "eigenvalues": SPECTRUM[:n]} for n, k in ((3, 1), (5, 4), (5, 2))],
    breaks={"loss smoothed by tau = 0.05": {"smoothing": 0.05}, "k = n": lambda c: {"k": c["n"]}},
)
def hessian_blow_up_rate(n, k, eigenvalues, seed: int, smoothing: float = 0.0) -> Evidence:
    rng = np.random.default_rng(seed)
    S = target(eigenvalues, rng)
    values, vectors = np.linalg.eigh(S)
    U, V = (
        np.linalg.qr(rng.standard_normal((n, n)))[0],
        np.linalg.qr(rng.standard_normal((k, k)))[0],
    )
    inverse_root = (vectors / np.sqrt(values)) @ vectors.T
    small = np.geomspace(1e-1, 1e-6, 11)
    others = np.linspace(1.5, 1, k - 1)
    states = [inverse_root @ (U[:, :k] * np.append(others, s)) @ V.T for s in small]
    lowest = np.array(
        [np.linalg.eigvalsh(bures_hessian(W, S, smoothing=smoothing))[0] for W in states]
    )
    off = U[:, min(k, n - 1) :]  # one vector too many where k = n: there is nothing off the range
    constant = -2 * float(np.linalg.eigvalsh(off.T @ S @ off)[-1])
    remainder = small * max(2, 4 * values[-1] / others[-1] - 2 if k > 1 else 2) + 1e-9
    data = {"small": small, "lowest": lowest, "constant": constant}
    source = "the bounded part of the Hessian, rounding"
    parts = [limit(small * lowest, constant, remainder=remainder, source=source)]
    if k < n and not smoothing:
        bounds = np.array([curvature_bounds(W, S) for W in states])
        parts += [
            at_least(lowest, bounds[:, 0], rounding=1e-9),
            at_least(bounds[:, 1], lowest, rounding=1e-9),
        ]
        smooth = [np.linalg.eigvalsh(bures_hessian(W, S, smoothing=0.05))[0] for W in states]
        parts.append(at_least(smooth, 2 - 2 * np.sqrt(values[-1] / 0.05)))
    return all_of(*parts, data=data)


@hessian_blow_up_rate.panel
def _(ax, runs: Runs) -> None:
    data, smooth = runs[-1].data, runs.controls["loss smoothed by tau = 0.05"].data
    ax.loglog(data["small"], -data["constant"] / data["small"], color=COLOURS[0])
    ax.loglog(data["small"], -data["lowest"], "o", color=COLOURS[0])
    ax.loglog(smooth["small"], -smooth["lowest"], ".-", color=BROKEN)
    ax.axhline(2 * np.sqrt(SPECTRUM[0] / 0.05) - 2, color=COLOURS[1], linewidth=1)
    ax.text(1e-4, 3e5, r"$2\lambda_{\max}(P\Sigma_0P)/\sigma_k$", color=COLOURS[0], fontsize=8)
    ax.text(1e-6, 30, r"bound $2\sqrt{\lambda_1/\tau}-2$", color=COLOURS[1], fontsize=8)
    ax.text(1e-6, 3, r"smoothed, $\tau=0.05$", color=BROKEN, fontsize=8)
    ax.set(
        title="The Hessian is unbounded below near lower rank",
        xlabel=r"$\sigma_k$ (log)",
        ylim=(1, None),
    )
    ax.set_ylabel(r"$-\lambda_{\min}(\nabla^2f)$ (log)")


@claim(
    SETTING
    + r"for $0\le\tau<\lambda_k$ the minimum of $W\mapsto B^2(WW^\top+\tau I,\Sigma_0)$ has "
    r"$WW^\top=\sum_{i\le k}(\lambda_i-\tau)u_iu_i^\top$ and value $\sum_{i>k}(\sqrt{\lambda_i}-\sqrt\tau)^2$.",
    sources=["brechet2023-critical, smooth perturbative loss (minimum derived here)"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"tau": t, "k": 2} for t in (0.6, 0.2)],
        "full": [{"tau": 0.3, "k": k} for k in (1, 3)]
        + [{"tau": t, "k": 2} for t in (0.05, 0.5, 1.0, 1.5, 2.0, 2.5, 0.2)],
    },
    space={"tau": Real(0.05, 1.8), "k": Int(1, 3)},
    breaks={"tau above lambda_k": lambda c: {"tau": SPECTRUM[c["k"] - 1] + 0.5}},
)
def smoothed_loss_minimiser(tau: float, k: int, seed: int) -> Evidence:
    rng = np.random.default_rng(seed)
    S = target(SPECTRUM, rng)
    lam, n = np.array(SPECTRUM), len(SPECTRUM)

    def loss(w):
        W = w.reshape(n, k)
        return bures_loss(W, S, smoothing=tau), bures_gradient(W, S, smoothing=tau).ravel()

    runs = [
        minimize(loss, rng.standard_normal(n * k), jac=True, method="BFGS", options={"gtol": 1e-9})
        for _ in range(3)
    ]
    best = min(runs, key=lambda run: run.fun)
    W = best.x.reshape(n, k)
    found = np.linalg.eigvalsh(W.T @ W)[::-1]
    value = np.sum((np.sqrt(lam[k:]) - np.sqrt(tau)) ** 2)
    # An excess loss of n EPS tr means a distance up to its root over half the curvature, above 0.1 here, times 2 sqrt(lambda).
    parts = equal(
        best.fun,
        value,
        error=1e-9,
        scale=lam.sum(),
        source="rounding of a loss near 10, squared gradient 1e-9",
    )
    error = 20 * np.sqrt(n * EPS * lam.sum())
    eigenvalues = equal(
        found, lam[:k] - tau, error=error, scale=lam[:k], source="root of the rounding of the loss"
    )
    return all_of(parts, eigenvalues, data={"found": found})


@smoothed_loss_minimiser.panel
def _(ax, runs: Runs) -> None:
    shown = [run for run in runs if run.instance["k"] == 2]
    tau = np.linspace(0, 3.6, 60)
    curves = np.array(
        [smoothed_minimum(np.diag(SPECTRUM), 2, smoothing=t).eigenvalues for t in tau]
    )
    for i in range(2):
        ax.plot(tau, curves[:, i], color=COLOURS[i])
        ax.plot(
            [run.instance["tau"] for run in shown],
            [run.data["found"][i] for run in shown],
            "o",
            color=COLOURS[i],
        )
        ax.text(
            0.05, SPECTRUM[i] + 0.12, rf"$(\lambda_{i + 1}-\tau)_+$", color=COLOURS[i], fontsize=8
        )
    ax.plot([3.5, 3.5], runs.controls["tau above lambda_k"].data["found"], "o", color=BROKEN)
    ax.text(3.0, 0.15, r"$\tau>\lambda_2$", color=BROKEN, fontsize=8)
    ax.set(
        title=r"Smoothing by $\tau$ lowers the learnt eigenvalues by $\tau$",
        xlabel=r"$\tau$",
        ylabel=r"eigenvalues of $WW^\top$",
    )


@claim(
    SETTING
    + r"near the truncation a descent step $\eta\le1/(2-\lambda_{k+1}/\lambda_k)$ contracts the slowest mode, the tilt of "
    r"$u_k$ towards $u_{k+1}$, by $1-2\eta(1-\lambda_{k+1}/\lambda_k)$; at $\eta=\frac12$ the run is subspace iteration with "
    r"$\Sigma_0$ and $|X_t|_{ji}=(\lambda_{k+j}/\lambda_i)^t|X_0|_{ji}$ for all $t$, $X=(U_\perp^\top W)(U_k^\top W)^{-1}$, "
    r"$U_k=(u_1,\dots,u_k)$, $U_\perp=(u_{k+1},\dots,u_n)$.",
    sources=["brechet2023-critical, finite step size gradient descent (constant derived here)"],
    origin="derived",
    kind="rate",
    cases=[{"step": s, "k": 2, "ratio": 2 / 3} for s in (0.1, 0.25, 0.6, 0.5)],
    space={"step": Real(0.1, 0.45), "k": Int(1, 3), "ratio": Real(0.4, 0.85)},
    breaks={"no gap, lambda_k = lambda_(k+1)": {"actual": 1.0}},
)
def gd_local_rate(
    step: float, k: int, ratio: float, seed: int, actual: float | None = None
) -> Evidence:
    rng = np.random.default_rng(seed)

    def spectrum(gap) -> np.ndarray:
        return np.append(np.arange(k + 1, 1, -1.0), 2 * gap * 0.7 ** np.arange(5 - k))

    S = target(spectrum(actual or ratio), rng)
    stated = np.diag(spectrum(ratio))
    exponent = np.log1p(-step * deep_rate(stated, k))
    steps = int(np.ceil(-14 / exponent))
    path = bures_gradient_descent(
        rng.standard_normal((5, k)), S, step_size=step, steps=steps
    ).weights
    tilts = np.abs([subspace_tilt(W, S) for W in path])
    slow = tilts[:, 0, k - 1]
    if step == 0.5 and actual is None:
        lam = spectrum(ratio)
        law = np.divide.outer(lam[k:], lam[:k]) ** np.arange(steps + 1)[:, None, None] * tilts[0]
        error = 10 * 5 * steps * EPS * (1 + tilts[0].max()) ** 2
        judged = equal(
            tilts,
            law,
            error=error,
            scale=tilts[0],
            source="rounding of each step, added up, as seen in the chart",
        )
    else:
        judged = rate(
            np.arange(steps + 1), slow, exponent, rival=2 * exponent, scale="linear", floor=FLOOR
        )
    return judged.with_data(slow=slow, exponent=exponent)


@gd_local_rate.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        slow, t = run.data["slow"], np.arange(run.data["slow"].size)
        ax.semilogy(t, slow, "o", color=colour, markersize=2.5)
        late = t >= t.size // 2
        ax.semilogy(
            t[late],
            slow[t.size // 2] * np.exp(run.data["exponent"] * (t[late] - t.size // 2)),
            color=colour,
        )
        side = "right" if run.instance["step"] == 0.6 else "left"
        ax.text(
            t[-1],
            slow[-1],
            rf" $\eta={run.instance['step']}$ ",
            color=colour,
            fontsize=8,
            va="center",
            ha=side,
        )
    broken = runs.controls["no gap, lambda_k = lambda_(k+1)"].data["slow"]
    ax.semilogy(broken, ".", color=BROKEN, markersize=3)
    ax.text(broken.size, broken[-1], " no gap", color=BROKEN, fontsize=8, va="center")
    ax.set(
        title=r"Descent contracts by $1-2\eta(1-\lambda_{k+1}/\lambda_k)$",
        xlabel="step",
        ylabel="tilt of $u_k$ (log)",
    )
    ax.set(xlim=(0, 260))


@claim(
    SETTING
    + r"gradient flow on $f(W_1\cdots W_N)$, hidden widths $k$, from balanced factors of rank $k$ in general position converges "
    r"to the truncation, the tilt of $u_k$ towards $u_{k+1}$ at the rate $\mu_N=2\lambda_k^{1-1/N}(1-\lambda_{k+1}/\lambda_k)$ "
    r"(the excess loss at $2\mu_N$); descent with step $\eta$ contracts it by $1-\eta\mu$, $\mu$ the smallest eigenvalue of "
    r"$2(I-\lambda_{k+1}H^{-1})K$ at its limit, $H=(W^\top\Sigma_0W)^{1/2}$, $K=(W_2\cdots W_N)^\top W_2\cdots W_N$ "
    r"($\mu=\mu_N$ if it is balanced).",
    sources=[
        "brechet2023-critical, gradient-flow and finite-step theorems (constants derived here)"
    ],
    origin="derived",
    kind="rate",
    cases={
        "quick": [{"depth": 2, "step": 0.02}, {"depth": 3, "step": 0.0}],
        "full": [{"depth": n, "step": 0.01} for n in (2, 3)]
        + [{"depth": n, "step": 0.0} for n in (1, 2, 4, 3)],
    },
    breaks={
        "start of rank k - 1": {"deficient": True},
        "factors out of balance": {"imbalance": 0.5},
    },
)
def deep_balanced_linear_convergence(
    depth: int, step: float, seed: int, deficient=False, imbalance=1.0
) -> Evidence:
    rng = np.random.default_rng(seed)
    S, k = target(SPECTRUM, rng), 2
    W = rng.standard_normal((5, k))
    if deficient:
        W[:, 1] = W[:, 0]
    factors = balanced_factors(W, depth, rng=rng)
    factors[0], factors[-1] = factors[0] / imbalance, factors[-1] * imbalance
    mu = deep_rate(S, k, depth=depth)
    best = sum(SPECTRUM[k:])
    if step:
        times = step * np.arange(0, int(14 / mu / step))
        products, last = deep_gradient_descent(factors, S, step_size=step, steps=times.size - 1)
        exponent = np.log1p(-step * factor_rate(last, S)) / step
    else:
        times = np.linspace(0, 14 / mu, 80)
        products = deep_flow(factors, S, times)
        exponent = -mu
    if deficient:  # the tilt of u_k does not exist; the excess loss decays at twice its rate
        record, exponent = np.array([bures_loss(P, S) for P in products]) - best, 2 * exponent
    else:
        record = np.abs([subspace_tilt(P, S)[0, k - 1] for P in products])
    data = {"times": times, "record": record, "mu": mu, "exponent": exponent}
    rival = -deep_rate(S, k) if depth > 1 else -2 * mu
    return rate(times, record, exponent, rival=rival, scale="linear", floor=FLOOR, data=data)


@deep_balanced_linear_convergence.panel
def _(ax, runs: Runs) -> None:
    shown = sorted(
        (run for run in runs if not run.instance["step"]), key=lambda run: run.instance["depth"]
    )
    for run, colour in zip(shown, COLOURS, strict=False):
        t, record = run.data["times"], run.data["record"]
        ax.semilogy(t, record, "o", color=colour, markersize=2.5)
        ax.semilogy(t[40:], record[40] * np.exp(-run.data["mu"] * (t[40:] - t[40])), color=colour)
        side = "right" if run.instance["depth"] == 4 else "left"
        ax.text(
            t[-1],
            record[-1],
            f" N = {run.instance['depth']} ",
            color=colour,
            fontsize=8,
            ha=side,
            va="top",
        )
    for name, label in (
        ("factors out of balance", "unbalanced"),
        ("start of rank k - 1", "rank k - 1 (excess loss)"),
    ):
        broken = runs.controls[name].data
        ax.semilogy(broken["times"], broken["record"], ".", color=BROKEN, markersize=3)
        ax.text(
            broken["times"][-1],
            broken["record"][-1],
            f" {label}",
            color=BROKEN,
            fontsize=8,
            va="center",
        )
    ax.set(
        title=r"Balanced depth $N$: rate $2\lambda_k^{1-1/N}(1-\lambda_{k+1}/\lambda_k)$",
        xlabel="time",
        ylabel="tilt of $u_k$ (log)",
    )


if __name__ == "__main__":
    run_script(__file__)
