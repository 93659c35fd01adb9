"""The Bures-Wasserstein loss of a linear generator: critical points, curvature, rates."""

from itertools import combinations

import numpy as np
from scipy.optimize import least_squares, minimize

from theorylab.matrix_sensing import (
    balanced_factors,
    bures_gradient,
    bures_gradient_descent,
    bures_hessian,
    bures_loss,
    deep_flow,
    deep_gradient_descent,
    deep_rate,
    factor_rate,
    random_covariance,
    smoothed_rate,
    subspace_tilt,
)
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
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

EPS = np.finfo(float).eps
bures = paper(
    "brechet2023-critical",
    r"$f(W)=B^2(WW^\top,\Sigma_0)$, $W\in\mathbb R^{n\times k}$, $\Sigma_0\succ0$ with eigenvalues "
    r"$\lambda_1\ge\dots\ge\lambda_n$ on $u_i$:",
)
spread = paper(
    "brechet2023-critical",
    r"$f(W)=B^2(WW^\top,\Sigma_0)$, $W\in\mathbb R^{5\times k}$, $\Sigma_0$ with eigenvalues "
    r"$\lambda_1>\dots>\lambda_5>0$ on $u_i$ (judged at $k+1,\dots,2$, then "
    r"$2q\,.7^j$; the ratio is "
    r"$q=\lambda_{k+1}/\lambda_k$, the share $\tau/\lambda_k$):",
)


def spectrum(k, ratio):
    """Five eigenvalues: k + 1, ..., 2, then 2 ratio, 1.4 ratio, ..."""
    return np.append(np.arange(k + 1, 1, -1.0), 2 * ratio * 0.7 ** np.arange(5 - k))


def frobenius_loss(W, S):
    return np.sum((W @ W.T - S) ** 2)


def frobenius_gradient(W, S):
    return 4 * (W @ W.T - S) @ W


@bures.ours("derived: the loss in terms of the weights")
@cases(n=[3, 6], k=[1, 3])
@full(n=[3, 6], k=[1, 3, 8], size=[0.1, 10.0])
@space(n=Int(1, 7), k=Int(1, 9), low=Real(0.01, 1.0, log=True), size=Real(0.01, 100, log=True))
@breaks("the covariance is WW' + 0.1 I", excess=0.1)
def bures_nuclear_norm_form(n, k, seed, low=0.5, size=1.0, excess=0.0):
    r"""$f(W)=\|W\|_F^2+\operatorname{tr}\Sigma_0-2\|\Sigma_0^{1/2}W\|_*$; where $\Sigma_0^{1/2}W$
    has full rank and polar factor $Q$, the gradient is $2W-2\Sigma_0^{1/2}Q$ (eigenvalues evenly
    spaced from low to 3, entries of $W$ Gaussian of the size)."""
    rng = np.random.default_rng(seed)
    S, W = random_covariance(np.linspace(low, 3, n), rng=rng), size * rng.standard_normal((n, k))
    values, vectors = np.linalg.eigh(S)
    root = (vectors * np.sqrt(values)) @ vectors.T
    C = W @ W.T + excess * np.eye(n)
    cross = np.linalg.eigvalsh(root @ C @ root)
    total = np.trace(C) + np.trace(S)
    definition = total - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    # Zero eigenvalues come out at the level of rounding, of which the definition takes the root.
    error = 2 * n * np.sqrt(n * EPS * cross.max()) + 100 * n * EPS * total
    U, sigma, Vt = np.linalg.svd(root @ W, full_matrices=False)
    # f - |W|^2 is concave, so two secants enclose its slope in each entry.
    h = 1e-6 * size
    bumps = h * np.eye(n * k).reshape(-1, n, k)
    up, down = (np.array([bures_loss(W + s * E, S) for E in bumps]) for s in (1, -1))
    ends = (up - bures_loss(W, S)) / h - h, (bures_loss(W, S) - down) / h + h
    slack = (ends[1] - ends[0]) / 2 + 100 * EPS * total / h
    bound = theory("squares", np.sum(W**2) + np.trace(S)) - 2 * theory("nuclear", sigma.sum())
    slopes = within((ends[0] + ends[1]) / 2, slack, "two secants of a concave function")
    return {
        "value": compare(within(definition, error, "root of the rounding"), "==", bound),
        "gradient": compare(slopes, "==", theory("gradient", 2 * (W - root @ (U @ Vt)).ravel())),
    }


@simulation
def critical_ends(eigenvalues, k, starts, seed):
    """Points of rank k at which the gradient vanishes, by least squares from random starts."""
    rng, n, ends = np.random.default_rng(seed), len(eigenvalues), []
    for _ in range(starts):
        start = 2 * rng.standard_normal(n * k)
        run = least_squares(
            lambda w: bures_gradient(w.reshape(n, k), np.diag(eigenvalues)).ravel(),
            start,
            **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15),
        )
        W = run.x.reshape(n, k)
        if np.linalg.norm(run.fun) < 1e-9 and np.linalg.svd(W, compute_uv=False)[-1] > 0.1:
            ends.append(W)
    return ends


@bures.abstract("a", instance=True)
@cases(n=5, gaps=(0.5, 0.5, 1.0, 1.0, 2.0), k=2, starts=15)
@full(n=5, gaps=(0.5, 0.5, 1.0, 1.0, 2.0), k=[1, 3, 4, 2], starts=40)
@space(n=Int(2, 5), gaps=Real(0.2, 2.0, size="n", capacity=5), k=Int(1, "n"))
@breaks("a repeated eigenvalue", gaps=(0.5, 0.5, 1.0, 0.0, 2.0))
def critical_points_are_spectral_selections(n, gaps, k, seed, starts=4):
    r"""for $\lambda_n,\lambda_{n-1}-\lambda_n,\dots$ (the gaps) positive, the critical points of
    rank $k$ are $WW^\top=\sum_{i\in J}\lambda_iu_iu_i^\top$, $|J|=k$, of value $\sum_{i\notin
    J}\lambda_i$ and Hessian eigenvalues $2(1-\lambda_j/\lambda_i)$ ($i\in J\not\ni j$), 2
    ($k(k+1)/2$ times) and 0: the truncation $J=\{1..k\}$ is the minimum, the others are strict
    saddles."""
    lam = np.cumsum(gaps)[::-1]
    chosen = list(combinations(range(n), k))
    points = [np.eye(n)[:, J] * np.sqrt(lam[list(J)]) for J in chosen]
    S, known = np.diag(lam), [W @ W.T for W in points]
    # The gradient moves by at least the least curvature, above 0.03, times the distance.
    near = [
        min(np.linalg.norm(W @ W.T - C) for C in known) < 1e-6
        for W in critical_ends(lam, k, starts, seed)
    ]
    rest = [np.delete(lam, J) for J in chosen]
    mixed = [2 * (1 - np.divide.outer(r, lam[list(J)])) for J, r in zip(chosen, rest, strict=True)]
    ends = [2.0] * (k * (k + 1) // 2) + [0.0] * (k * (k - 1) // 2)
    curvatures = np.sort([np.append(m.ravel(), ends) for m in mixed])
    measured = (
        [np.linalg.norm(bures_gradient(W, S)) / np.sqrt(lam[0]) for W in points],
        [1 - bures_loss(W, S) / lam.sum() for W in points],
        [np.linalg.eigvalsh(bures_hessian(W, S)) for W in points],
    )
    kept = 1 - np.array([r.sum() for r in rest]) / lam.sum()
    flat, value, bent = (within(v, 1e-11, "rounding") for v in measured)
    return {
        "others": compare(family(dict(enumerate(near))), "==", len(near)),
        "critical": compare(flat, "==", theory("gradient", 0.0)),
        "value": compare(value, "==", theory("share kept", kept)),
        "curvature": compare(bent, "==", theory("curvatures", curvatures)),
    }


@bures.abstract("b", instance=True)
@cases(n=3, k=1)
@cases(n=5, k=[4, 2])
@space(n=Int(2, 6), k=Int(1, "n - 1"), low=Real(0.1, 1.0), others=Real(0.5, 3.0))
@breaks("loss smoothed by tau = 0.05", smoothing=0.05)
def hessian_blow_up_rate(
    n, k, seed, low=0.5, others=1.0, small=(1e-3, 1e-4, 1e-5, 1e-6), smoothing=0.0
):
    r"""as the least singular value $\sigma$ of $\Sigma_0^{1/2}W$ tends to 0 with the other ones and
    the singular vectors fixed, $\sigma\lambda_{\min}(\nabla^2f(W))\to-2\lambda_{\max}(P\Sigma_0P)$,
    $P$ the projection off the range of $\Sigma_0^{1/2}W$ (eigenvalues evenly spaced from low to 5,
    the other singular values equal)."""
    rng = np.random.default_rng(seed)
    S = random_covariance(np.linspace(low, 5, n), rng=rng)
    U, V = (np.linalg.qr(rng.standard_normal((m, m)))[0] for m in (n, k))
    values, vectors = np.linalg.eigh(S)
    inverse_root = (vectors / np.sqrt(values)) @ vectors.T
    sigma = np.array(small)
    states = [inverse_root @ (U[:, :k] * np.append([others] * (k - 1), s)) @ V.T for s in sigma]
    hessians = [bures_hessian(W, S, smoothing=smoothing) for W in states]
    lowest = np.array([np.linalg.eigvalsh(H)[0] for H in hessians])
    # The Hessian is 2 I - X - Y, the constant the largest eigenvalue of sigma X, |Y| <= rest.
    rest = sigma * (4 * values[-1] / others if k > 1 else 0.0)
    # An inverse of sigma rounds as much more.
    rounding = 1e-9 + 1e-15 * np.abs(lowest)
    measured = within(
        sigma * (lowest - 2) + rest / 2, rest / 2 + rounding, "the bounded part of the Hessian"
    )
    off = U[:, k:]
    constant = -2 * np.linalg.eigvalsh(off.T @ S @ off)[-1]
    return compare(measured, "==", theory("constant", constant))


@panel(
    hessian_blow_up_rate,
    r"The Hessian is unbounded below near lower rank: $\lambda_{\min}\sim-c/\sigma$",
    x=r"$\sigma$, least singular value of $\Sigma_0^{1/2}W$",
    y=r"$\sigma\lambda_{\min}(\nabla^2f)$",
    log="x",
)
def _(pen, runs):
    for j, (n, k) in enumerate(((3, 1), (5, 4), (5, 2))):
        pen.theory(*runs.predicted("small", where={"n": n, "k": k}), k=j)
        pen.points(*runs.measured("small", where={"n": n, "k": k}), f"$n={n}$, $k={k}$", k=j)
    pen.broken(*runs.measured("small", control="loss smoothed by tau = 0.05"), "smoothed")


@simulation
def least_loss(eigenvalues, k, tau, seed):
    """Value and spectrum of W'W where the best of three searches for the smoothed minimum ends."""
    rng, n = np.random.default_rng(seed), len(eigenvalues)
    S = random_covariance(eigenvalues, rng=rng)

    def loss(w):
        W = w.reshape(n, k)
        return bures_loss(W, S, smoothing=tau), bures_gradient(W, S, smoothing=tau).ravel()

    options = {"gtol": 1e-9, "ftol": 1e-16, "maxiter": 1000}
    starts = rng.standard_normal((3, n * k))
    runs = [minimize(loss, w, jac=True, method="L-BFGS-B", options=options) for w in starts]
    W = min(runs, key=lambda run: run.fun).x.reshape(n, k)
    return np.array([run.fun for run in runs]), np.linalg.eigvalsh(W.T @ W)[::-1]


@spread.ours("derived: the minimum of the loss that the flow theorem is about", serves="c")
@cases(k=2, share=[0.3, 0.1])
@full(k=[1, 3], share=0.15)
@full(k=2, share=[0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.1])
@space(k=Int(1, 4), ratio=Real(0.2, 0.9), share=Real(0.0, 0.95))
@breaks("tau above lambda_k", share=1.25)
def smoothed_loss_minimiser(k, share, seed, ratio=2 / 3):
    r"""for $0\le\tau<\lambda_k$ the minimum of $f_\tau(W)=B^2(WW^\top+\tau I,\Sigma_0)$ has
    $WW^\top=\sum_{i\le k}(\lambda_i-\tau)u_iu_i^\top$ and the value
    $\sum_{i>k}(\sqrt{\lambda_i}-\sqrt\tau)^2$."""
    lam = spectrum(k, ratio)
    tau = share * lam[k - 1]
    values, found = least_loss(lam, k, tau, seed)
    stated = np.eye(5)[:, :k] * np.sqrt(np.maximum(lam[:k] - tau, 0))
    attained = bures_loss(stated, np.diag(lam), smoothing=tau)
    least = theory("minimum", np.sum((np.sqrt(lam[k:]) - np.sqrt(tau)) ** 2))
    # An excess e moves the root of each eigenvalue of the covariance by at most its own root.
    e = 1e-13 * lam.sum()
    error = 2 * np.sqrt(lam[:k] * e) + e
    spectra = within(found, error, "root of the rounding of the loss")
    return {
        "spectrum": compare(spectra, "==", theory("eigenvalues", lam[:k] - tau)),
        "attained": compare(within(attained, e, "rounding"), "==", least),
        "never below": compare(within(values.min(), e, "rounding"), ">=", least),
    }


@panel(
    smoothed_loss_minimiser,
    r"Smoothing by $\tau$ lowers the learnt eigenvalues by $\tau$",
    x=r"$\tau/\lambda_k$",
    y=r"eigenvalues of $WW^\top$, $k=2$",
)
def _(pen, runs):
    s = np.linspace(0, 1, 30)
    for i in range(2):
        pen.theory(s, 3 - i - 2 * s, k=i)
        pen.points(
            *runs.measured("share", index=i, where={"k": 2}), rf"$\lambda_{i + 1}-\tau$", k=i
        )
        name = r"$\tau>\lambda_k$" if i else ""
        pen.broken(*runs.measured("share", index=i, control="tau above lambda_k"), name)


@simulation
def flow_record(eigenvalues, k, depth, tau, seed, horizon, size, lost, imbalance, step):
    """Times, tilts of u_k towards u_(k+1), the loss at 5/6 and at the end, and the last weights of
    the flow (the last factors of descent, where step > 0) from balanced factors."""
    rng, n = np.random.default_rng(seed), len(eigenvalues) - lost
    S = np.diag(
        eigenvalues[lost:]
    )  # lost: a start in the span of the other eigenvectors stays in it
    W = np.linalg.qr(rng.standard_normal((n, k)))[0] * np.linspace(1.5, 0.8, k) * size
    factors = balanced_factors(W, depth, rng=rng)
    factors[0], factors[-1] = factors[0] / imbalance, factors[-1] * imbalance
    if step:
        times = step * np.arange(int(horizon / step))
        path, last = deep_gradient_descent(factors, S, step_size=step, steps=times.size - 1)
        times, path = (v[:: 1 + len(times) // 100] for v in (times, path))
    else:
        times = np.linspace(0, horizon, 60)
        path = deep_flow(factors, S, times, smoothing=tau, tol=1e-11)
        last = path[-1]
    tilts = np.array([abs(subspace_tilt(P, S)[0, k - 1]) for P in path])
    unseen = np.sum((np.sqrt(eigenvalues[:lost]) - np.sqrt(tau)) ** 2)
    ends = [bures_loss(path[i], S, smoothing=tau) + unseen for i in (-1 - len(path) // 6, -1)]
    return times, tilts, np.array(ends), last


@simulation
def leaned(eigenvalues, k, tau, W, horizon):
    """Times and tilts of the flow from the end of another, with u_k leaned towards u_(k+1)."""
    S, times = np.diag(eigenvalues), np.linspace(0, horizon, 60)
    W = W + 1e-3 * np.outer(np.eye(len(W))[k], W[k - 1])
    path = deep_flow([W], S, times, smoothing=tau, tol=1e-11)
    return times, np.array([abs(subspace_tilt(P, S)[0, k - 1]) for P in path])


def decay(record):
    """The rate at which the tilt decays, above the tolerance of the integrator."""
    return slope(record[0], record[1], scale="linear", floor=1e-7)


def last_loss(record, unit):
    before, last = record[2] / unit
    return within(last, abs(before - last) + 1e-10, "last sixth of the run, integrator")


@spread.abstract("c", instance=True)
@cases(k=2, share=[0.6, 0.05])
@full(k=[1, 3], share=0.2)
@full(k=2, share=[0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.05])
@space(k=Int(1, 4), ratio=Real(0.2, 0.85), share=Real(0.02, 0.85), size=Real(0.3, 3.0))
@breaks("start off the leading eigenvector", lost=1)
def smoothed_flow_rate(k, share, seed, ratio=2 / 3, size=1.0, lost=0):
    r"""for $0<\tau<\lambda_k$ gradient flow on $f_\tau(W)=B^2(WW^\top+\tau I,\Sigma_0)$ tends from
    starts in general position to the minimum $\sum_{i>k}(\sqrt{\lambda_i}-\sqrt\tau)^2$, whose
    Hessian eigenvalues are $2(\lambda_i-\lambda_j)/(\lambda_i+\sqrt{\lambda_j\tau})$ ($i\le k<j$;
    the rate of the tilt of $u_i$ towards $u_j$),
    $2(\lambda_i+\lambda_j-2\tau)/(\lambda_i+\lambda_j)$ ($i\le j\le k$), and 0 along rotations; the
    least positive one is the slowest rate."""
    lam = spectrum(k, ratio)
    tau, S, top, rest = share * lam[k - 1], np.diag(lam), lam[:k], lam[k:, None]
    mu = smoothed_rate(S, k, smoothing=tau)
    record = flow_record(lam, k, 1, tau, seed, 14 / mu, size, lost, 1.0, 0.0)
    rates = 2 * (top - rest) / (top + np.sqrt(rest * tau))
    # Sizes may settle after the tilt is lost in rounding: it is given back where they have.
    late = leaned(lam[lost:], k, tau, record[3], 9 / rates[0, k - 1])
    tilts = theory("tilts", rates)
    pairs = np.add.outer(top, top)[np.triu_indices(k)]
    sizes = theory("sizes", 2 * (1 - 2 * tau / pairs))
    stated = np.sort(np.concatenate([tilts.ravel(), sizes, np.zeros(k * (k - 1) // 2)]))
    least = bures_hessian(np.eye(5)[:, :k] * np.sqrt(top - tau), S, smoothing=tau)
    excess = np.sum((np.sqrt(rest) - np.sqrt(tau)) ** 2)
    bent = np.linalg.eigvalsh(least)
    slowest = within(bent[k * (k - 1) // 2], 1e-11, "rounding")  # after the rotations
    return {
        "tilt": compare(decay(late), "==", -tilts[0, k - 1]),
        "curvature": compare(within(bent, 1e-11, "rounding"), "==", stated),
        "slowest": compare(slowest, "==", theory("rate", mu)),
        "limit": compare(last_loss(record, lam.sum()), "==", theory("minimum", excess / lam.sum())),
    }


@panel(
    smoothed_flow_rate,
    "Flow on the smoothed loss converges linearly, at the stated rate",
    x=r"$\tau/\lambda_k$",
    y="slope of the log tilt of $u_k$",
)
def _(pen, runs):
    s = np.linspace(0.01, 0.9, 80)
    pen.theory(s, -(2 / 3) / (1 + np.sqrt(2 * s / 3)), "stated")
    pen.points(*runs.measured("share", where={"k": 2}), "flow, $k=2$")


@spread.ours("derived: local rate of descent with finite steps", serves="d")
@cases(k=2, step=[0.1, 0.4])
@full(k=2, step=[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
@full(k=[1, 3], step=0.3)
@space(k=Int(1, 4), ratio=Real(0.3, 0.85), step=Real(0.05, "1 / (2 - ratio)"))
@breaks("the loss is smoothed", smoothing=0.5)
def gd_local_rate(k, step, seed, ratio=2 / 3, smoothing=0.0):
    r"""near the truncation descent with a step $\eta\le1/(2-q)$ contracts the tilt of $u_k$ towards
    $u_{k+1}$ by $1-2\eta(1-q)$; with $\eta=\frac12$ the tilt of each $u_i$ towards each $u_{k+j}$
    shrinks by $\lambda_{k+j}/\lambda_i$ from any start (tilts: the entries of $(U_\perp^\top
    W)(U_k^\top W)^{-1}$, $U_k=(u_1,\dots,u_k)$)."""
    rng, lam = np.random.default_rng(seed), spectrum(k, ratio)
    S, W = np.diag(lam), rng.standard_normal((5, k))
    steps = int(-22 / np.log1p(-2 * step * (1 - ratio))) + 12
    options = {"step_size": step, "steps": steps, "smoothing": smoothing}
    path = bures_gradient_descent(W, S, **options).weights
    slow = np.abs([subspace_tilt(P, S)[0, k - 1] for P in path])
    found = slope(np.arange(steps + 1.0), slow, scale="linear", floor=1e-9)
    rate = np.log1p(-step * theory("rate", 2 * (1 - ratio)))
    half = bures_gradient_descent(W, S, step_size=0.5, steps=3).weights
    before, after = (np.abs(subspace_tilt(P, S)) for P in (half[0], half[3]))
    rounding = 1e-12 * (1 + before.max()) / before
    ratios = theory("ratios", np.divide.outer(lam[k:], lam[:k]))
    return {
        "rate": compare(found, "==", rate),
        "half": compare(within(after / before, rounding, "rounding"), "==", ratios**3),
    }


@panel(
    gd_local_rate,
    "Near the truncation descent contracts as stated",
    x=r"step $\eta$",
    y=r"slope of the log tilt of $u_k$",
)
def _(pen, runs):
    eta = np.linspace(0.03, 0.62, 60)
    pen.theory(eta, np.log1p(-2 * eta / 3), "stated")
    pen.points(*runs.measured("step", where={"k": 2}), "descent, $k=2$")
    pen.broken(*runs.measured("step", control="the loss is smoothed"), "smoothed, $k=3$")


@spread.abstract("c", "d", instance=True)
@cases(depth=[2, 3])
@full(depth=[1, 4, 2, 3])
@space(
    depth=Int(1, 3),
    k=Int(1, 2),
    ratio=Real(0.3, 0.75),
    size=Real(0.5, 2.0),
    step=Real(0.2, 0.6),
)
@breaks("start off the leading eigenvector", lost=1)
@breaks("factors out of balance", imbalance=0.5)
def deep_balanced_linear_convergence(
    depth, seed, k=2, ratio=2 / 3, size=1.0, step=0.4, lost=0, imbalance=1.0
):
    r"""gradient flow on $f(W_1\cdots W_N)$, hidden widths $k$, from balanced factors of rank $k$ in
    general position tends to the truncation, the tilt of $u_k$ towards $u_{k+1}$ as $e^{-\mu_Nt}$,
    $\mu_N=2\lambda_k^{1-1/N}(1-\lambda_{k+1}/\lambda_k)$. Descent on the factors
    with a small step $\eta$ multiplies the tilt by $1-\eta\mu$, $\mu$ the least eigenvalue of
    $2(I-\lambda_{k+1}H^{-1})K$ at its limit, $H=(W^\top\Sigma_0W)^{1/2}$, $K=(W_2\cdots
    W_N)^\top W_2\cdots W_N$."""
    lam = spectrum(k, ratio)
    mu = deep_rate(np.diag(lam), k, depth=depth)
    eta = step / (2 * depth * lam[0] ** (1 - 1 / depth))
    options = (seed, 13 / mu, size, lost, imbalance)
    flow = flow_record(lam, k, depth, 0.0, *options, 0.0)
    descent = flow_record(lam, k, depth, 0.0, *options, eta)
    limit = theory("limit", factor_rate(descent[3], np.diag(lam[lost:])))
    left_out = theory("left out", lam[k:].sum() / lam.sum())
    return {
        "flow": compare(decay(flow), "==", -theory("rate", mu)),
        "descent": compare(decay(descent), "==", np.log1p(-eta * limit) / eta),
        "truncation": compare(last_loss(flow, lam.sum()), "==", left_out),
    }


@panel(
    deep_balanced_linear_convergence,
    "From balanced factors the flow converges linearly",
    x="depth $N$",
    y="slope of the log tilt of $u_k$",
)
def _(pen, runs):
    N = np.linspace(1, 4, 40)
    pen.theory(N, -4 / 3 * 2 ** -(1 / N), r"$-2\lambda_k^{1-1/N}(1-\lambda_{k+1}/\lambda_k)$")
    pen.points(*runs.measured("depth"), "flow")
    pen.theory(*runs.predicted("depth", "descent"), k=1)
    pen.points(*runs.measured("depth", "descent"), "descent", k=1)
    pen.broken(*runs.measured("depth", control="factors out of balance"), "out of balance")


@simulation
def descent_steps(n, k, step, low, size, seed, loss, gradient):
    """Drop of the loss in a step over the squared gradient, and least singular values around one of
    half its size: at half the selection of the k least eigenvalues, where the bounds are attained,
    then at random generators, near lower rank or not."""
    rng = np.random.default_rng(seed)
    S = random_covariance(np.linspace(low, 3, n), rng=rng)
    values, vectors = np.linalg.eigh(S)
    root, drops, ranks = (vectors * np.sqrt(values)) @ vectors.T, [], []
    columns = [np.append(np.ones(k - 1), s) for s in np.geomspace(1e-6, 1, 50)]
    points = [size * rng.standard_normal((n, k)) * s for s in columns]
    for W in [0.5 * vectors[:, :k] * np.sqrt(values[:k]), *points]:
        g = gradient(W, S)
        f, g2 = [loss(V, S) for V in (W, W - step * g)], np.sum(g**2)
        drops.append(((f[0] - f[1]) / g2, 1e-14 * (max(f) + np.trace(S) + np.sum(W**2)) / g2))
        pair = (W, W - step / 2 * g)
        ranks.append([np.linalg.svd(root @ V, compute_uv=False)[-1] for V in pair])
    return np.array(drops).T, np.array(ranks).T


@bures.abstract("d", instance=True)
@cases(n=5, k=2, step=[0.8, 0.3])
@full(n=6, k=[1, 5, 3], step=[0.02, 0.98, 0.5])
@space(
    n=Int(2, 6),
    k=Int(1, "n - 1"),
    step=Real(0.02, 0.98),
    low=Real(0.05, 1.0),
    size=Real(1e-3, 10, log=True),
)
@breaks("the Frobenius loss", loss=frobenius_loss, gradient=frobenius_gradient)
@breaks("start off the leading eigenvector", lost=1)
def finite_step_descent_on_the_unsmoothed_loss(
    n, k, step, seed, low=0.5, size=1.0, loss=bures_loss, gradient=bures_gradient, lost=0
):
    r"""for $\Sigma_0^{1/2}W$ of full rank and any step $0<\eta<1$, $f(W-\eta\nabla f(W))\le
    f(W)-\eta(1-\eta)\|\nabla f(W)\|_F^2$, though the Hessian is unbounded; a step $\eta/2$ leaves
    the least singular value of $\Sigma_0^{1/2}W$ at $1-\eta$ times it plus $\eta\lambda_n$ or more
    (both attained); descent from starts in general position ends at the truncation ($k<n$;
    eigenvalues evenly spaced from low to 3)."""
    (drop, rounding), (before, after) = descent_steps(n, k, step, low, size, seed, loss, gradient)
    lam = np.linspace(low, 3, n)[::-1]
    W, S = size * np.random.default_rng(seed).standard_normal((n, k)), np.diag(lam[lost:])
    # Near the truncation each mode is multiplied by 1 - 2 step x, x from 1 - ratio to 1.
    slowest = max(1 - 2 * step * (1 - lam[k] / lam[k - 1]), abs(1 - 2 * step))
    steps = int(-35 / np.log(slowest)) + 50
    last = bures_gradient_descent(W[lost:], S, step_size=step, steps=steps).weights[-1]
    end = (bures_loss(last, S) + lam[:lost].sum()) / lam.sum()
    least = theory("drop", step * (1 - step))
    kept = (1 - step) * before + theory("gain of rank", step * lam[-1])
    drops = within(drop[1:], rounding[1:], "rounding")
    ranks = within(after[1:], 1e-13 * lam[0], "rounding")
    ends = within([drop[0], after[0]], [rounding[0], 1e-13 * lam[0]], "rounding")
    limit = within(end, 1e-10, "a factor of e^-35, rounding")
    return {
        "descent": compare(drops, ">=", least),
        "rank": compare(ranks, ">=", kept[1:]),
        "attained": compare(ends, "==", np.array([least, kept[0]])),
        "limit": compare(limit, "==", theory("left out", lam[k:].sum() / lam.sum())),
    }


if __name__ == "__main__":
    run_script(__file__)
