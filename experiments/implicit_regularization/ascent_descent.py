"""Descent from an uphill point: the loss it follows, its noise, and the saddles it falls into."""

import numpy as np

from theorylab import implicit_regularization as ir
from theorylab.numerics.flows import integrate
from theorylab.verify import (
    Choice,
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
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "compagnoni2023-modeling"
noisy = paper(
    KEY,
    r"USAM $x_{k+1}=x_k-\eta\nabla f_\gamma(x_k+\rho\nabla f_\gamma(x_k))$, $\rho=c\sqrt\eta$, "
    r"with quadratic losses $f_\gamma$ drawn at random from finitely many, $f=\mathbb Ef_\gamma$, "
    r"$T=k\eta$ fixed, $\eta\to0$, and $dX=-\nabla\tilde f(X)dt+(\eta\Sigma)^{1/2}dW$:",
)
samples = paper(
    KEY,
    r"SAM $x_{k+1}=x_k-\eta\nabla f_\gamma(x_k+\rho\nabla f_\gamma(x_k)/\|\nabla f_\gamma(x_k)\|)$,"
    r" $\rho=c\sqrt\eta$, with the squared loss of a random sample of finitely many, whose "
    r"residuals keep their signs up to time $T=k\eta$, $\eta\to0$, and $dX=-\nabla\tilde f(X)dt+"
    r"(\eta\Sigma)^{1/2}dW$ with the affine coefficients of these signs:",
)
smooth = paper(
    KEY,
    r"SAM and USAM on the full loss $f\in C^4$, $\rho=c\sqrt\eta$, $\eta\to0$, $k\eta=t\le T$, "
    r"$\|\nabla f\|\ge m>0$ up to time $T$ (for SAM), and $\dot X=-\nabla\tilde f(X)$, "
    r"$\tilde f=f+\rho\|\nabla f\|$ for SAM, $f+\frac\rho2\|\nabla f\|^2$ for USAM:",
)
shared_norm = paper(
    KEY,
    r"DNSAM $x_{k+1}=x_k-\eta\nabla f_\gamma(x_k+\rho\nabla f_\gamma(x_k)/\|\nabla f(x_k)\|)$, "
    r"$\rho=c\sqrt\eta$, with quadratic losses $f_\gamma$ drawn at random from finitely many, "
    r"$f=\mathbb Ef_\gamma$, $T=k\eta$ fixed, $\eta\to0$, $\nabla f\ne0$ up to time $T$:",
)
quadratic = paper(KEY, r"For $f(x)=\frac12x^\top Hx$, $\det H\ne0$,")
stationary = paper(
    KEY,
    r"USAM on $f(x)=\frac12x^\top Hx$, $H\succ0$ with eigenvalues $\lambda_i$, with independent "
    r"gradient noise of covariance $\sigma^2I$, the same in ascent and descent of a step:",
)


def numbers_of_steps(least, spread, multiple=1):
    """Numbers of steps whose inverse roots are near Chebyshev nodes: the errors are series in the
    root of the step size."""
    nodes = 1 - (1 - 1 / spread) * np.sin(np.pi * (np.arange(8) + 0.5) / 16) ** 2
    return multiple * np.ceil(max(least, 32.0) / multiple / nodes**2).astype(int)


def root(c, eta):
    return c * np.sqrt(eta)


def proportional(c, eta):
    return c * eta


def constant(c, eta):
    return c * 0.1


def quadratic_losses(rng, d, k, c, size, time):
    """Gradients of k quadratics as matrices, what USAM changes them by, and a start."""
    A = rng.standard_normal((k, d, d))
    H = A @ A.transpose(0, 2, 1) / d + 0.3 * (A + A.transpose(0, 2, 1))
    H *= size / np.linalg.norm(H, 2, axis=(1, 2)).max()
    G = np.concatenate([H, size * rng.standard_normal((k, d, 1))], axis=2)
    return G, ir.usam_corrections(G), rng.standard_normal(d)


def sample_losses(rng, d, k, c, size, time):
    """The same for SAM on the squared losses of single samples, if no residual can vanish."""
    A = rng.standard_normal((k, d))
    A *= np.sqrt(size) * rng.uniform(0.3, 1.0, (k, 1)) / np.linalg.norm(A, axis=1, keepdims=True)
    start, r = rng.standard_normal(d), rng.choice([-1.0, 1.0], k) * rng.uniform(1.0, 1.3, k)
    # A step moves a residual by at most eta size (|r| + |a| rho): a Gronwall bound.
    farthest = c * np.sqrt(time / numbers_of_steps(16 * size * time, 10).min() * size)
    if np.expm1(size * time) * (1.3 + farthest) >= 1.0:
        raise ValueError("time: expected one up to which no residual can change its sign")
    G = np.concatenate([A[:, :, None] * A[:, None], (A * (r - A @ start)[:, None])[:, :, None]], 2)
    return G, ir.sam_corrections(A, np.sign(r)), start


def own(G, V, w, rho):
    return ir.ascent_covariance(G, V, w, radius=rho)


def of_sgd(G, V, w, rho):
    return ir.covariance_operator(G, G, w)


def none(G, V, w, rho):
    return 0 * of_sgd(G, V, w, rho)


def problem(losses, d, k, c, size, time, seed):
    rng = np.random.default_rng([seed, 1])
    return *losses(rng, d, k, c, size, time), rng.dirichlet(np.full(k, 2.0))


@simulation
def moment_errors(losses, d, k, c, size, time, radius, noise, seed):
    """Roots of the step sizes; differences of the moments, of the covariance and of the moments to
    those of plain descent, and the covariance, at each; their errors of rounding."""
    G, V, start, w = problem(losses, d, k, c, size, time, seed)
    hardness = 16 * size * time
    if losses is quadratic_losses:
        hardness = max(hardness, 16 * (c * size) ** 2 * time)
    counts, rows, wrong = numbers_of_steps(hardness, 10), [], []
    for count in counts:
        eta = time / count
        rho = radius(c, eta)
        U, drifts = G + rho * V, [np.tensordot(w, G + r * V, 1) for r in (rho, 0.0)]
        noises = [eta * noise(G, V, w, rho), eta * of_sgd(G, V, w, rho)]
        Z = ir.recursion_moments(U, w, start, step_size=eta, steps=int(count))
        ours, plain = (
            ir.diffusion_moments(D, K, start, time=time)
            for D, K in zip(drifts, noises, strict=True)
        )
        a, b = (M[:d, :d] - np.outer(M[:d, d], M[:d, d]) for M in (Z, ours))
        rows.append([M.ravel() for M in (Z - ours, a - b, Z - plain, a)])
        wrong.append((count + 100) * 2e-16 * np.abs(Z).max())
    stacked = [np.array(column) for column in zip(*rows, strict=True)]
    return np.sqrt(time / counts), stacked, np.array(wrong)


def small(coefficients, errors, scale):
    """Their size over a scale."""
    return within(
        np.linalg.norm(coefficients) / scale,
        np.linalg.norm(errors) / scale,
        "difference of degrees of interpolation",
    )


def judge_moments(losses, d, k, c, size, time, radius, noise, seed):
    """The errors as series in the root of the step size."""
    roots, errors, wrong = moment_errors(losses, d, k, c, size, time, radius, noise, seed)
    moments, spread, plain, own_spread = (
        ir.expansion_coefficients(roots, e, noise=wrong) for e in errors
    )
    G, V, start, w = problem(losses, d, k, c, size, time, seed)
    D = np.tensordot(w, G, 1)
    first = ir.first_order_error(D, start, time=time).ravel()
    moved = c * ir.drift_response(D, np.tensordot(w, V, 1), start, time=time).ravel()
    source = "difference of degrees of interpolation"
    return {
        "moments": compare(
            within(moments[0][:3] / size, moments[1][:3, None] / size, source),
            "==",
            np.array([0 * first, 0 * first, theory("coefficient", first / size)]),
        ),
        "covariance": compare(
            small(spread[0][:4], spread[1][:4], np.linalg.norm(own_spread[0][:4])),
            "==",
            theory("difference of the covariances", 0.0),
        ),
        "plain": compare(within(plain[0][1], plain[1][1], source), "==", theory("penalty", moved)),
    }


@noisy.ours("sharpened: an error linear in the step size, with its coefficient", serves="ab")
@cases(d=2, k=3, c=1.0, size=1.0, time=1.0)
@full(d=[1, 3], k=[2, 5], c=[0.5, 2.0], size=1.0, time=1.0)
@space(
    d=Int(1, 4),
    k=Int(2, 6),
    c=Real(0.05, 3.0, log=True),
    size=Real(0.1, 3.0, log=True),
    time=Real(0.1, 2.0, log=True),
)
@breaks("rho of the order of eta", radius=proportional)
@breaks("the noise of plain descent", noise=of_sgd)
@breaks("no noise", noise=none)
def usam_modified_loss_weak_order(d, k, c, time, seed, size=1.0, radius=root, noise=own):
    r"""with $\tilde f=f+\frac\rho2\mathbb E\|\nabla f_\gamma\|^2$ and $\Sigma=\operatorname{Cov}
    \nabla f_\gamma+\rho(\tilde\Sigma+\tilde\Sigma^\top)$, $\tilde\Sigma=\operatorname{Cov}(\nabla
    f_\gamma,\nabla^2f_\gamma\nabla f_\gamma)$, the first two moments of $x_k$ and $X_T$ differ by
    $\eta E+O(\eta^{3/2})$, where with $\dot y=-\nabla f(y)$, $y_0=x_0$, $E$ is
    $-\frac T2\nabla^2f\nabla f(y_T)$ for the mean and $-\frac T2(\nabla^2f\nabla f\,y_T^\top+
    y_T(\nabla^2f\nabla f)^\top)$ for the second moments. Their covariances, which are of the order
    $\eta$, differ by $O(\eta^2)$. For plain descent, $\tilde f=f$ and $\Sigma=\operatorname{Cov}
    \nabla f_\gamma$, the moments differ by $\sqrt\eta$ times their change to first order by the
    drift $-\frac c2\nabla\mathbb E\|\nabla f_\gamma\|^2$."""
    return judge_moments(quadratic_losses, d, k, c, size, time, radius, noise, seed)


@panel(
    usam_modified_loss_weak_order,
    "Moments of USAM follow the modified loss",
    x=r"steps $T/\eta$",
    y="error",
    log="xy",
)
def _(pen, runs):
    run = runs.judgement.runs[-1].instance
    given = (quadratic_losses, run["d"], run["k"], run["c"], 1.0, 1.0)
    roots, errors, _ = moment_errors(*given, root, own, runs.judgement.seed)
    G, V, start, w = problem(*given, runs.judgement.seed)
    D = np.tensordot(w, G, 1)
    first = np.linalg.norm(ir.first_order_error(D, start, time=1.0))
    moved = run["c"] * np.linalg.norm(ir.drift_response(D, np.tensordot(w, V, 1), start, time=1.0))
    counts, found = roots**-2, [np.linalg.norm(e, axis=1) for e in errors]
    pen.theory(counts, first / counts, k=0)
    pen.points(counts, found[0], label=r"moments: $\eta\|E\|$", k=0)
    pen.theory(counts, found[1][-1] * (counts[-1] / counts) ** 2, k=1)
    pen.points(counts, found[1], label=r"covariance: $\eta^2$", k=1)
    pen.theory(counts, moved / np.sqrt(counts), k=2)
    pen.points(counts, found[2], label=r"moments, plain loss: $\sqrt{\eta}$", k=2)


@samples.ours("sharpened: an error linear in the step size, with its coefficient", serves="ab")
@cases(d=2, k=3, c=2.0, size=1.0, time=0.4)
@full(d=[2, 3], k=[3, 5], c=[1.0, 2.0], size=1.0, time=0.4)
@space(
    d=Int(1, 4),
    k=Int(2, 6),
    c=Real(0.05, 2.0, log=True),
    size=Real(0.1, 3.0, log=True),
    time=Real("0.05 / size", "0.4 / size", log=True),
)
@breaks("rho of the order of eta", radius=proportional)
@breaks("the noise of plain descent", noise=of_sgd)
def sam_modified_loss_weak_order(d, k, c, time, seed, size=1.0, radius=root, noise=own):
    r"""with $\tilde f=f+\rho\mathbb E\|\nabla f_\gamma\|$ and $\Sigma=\operatorname{Cov}\nabla
    f_\gamma+\rho(\hat\Sigma+\hat\Sigma^\top)$, $\hat\Sigma=\operatorname{Cov}(\nabla f_\gamma,
    \nabla^2f_\gamma\nabla f_\gamma/\|\nabla f_\gamma\|)$, the first two moments of $x_k$ and $X_T$
    differ by $\eta E+O(\eta^{3/2})$, where with $\dot y=-\nabla f(y)$, $y_0=x_0$, $E$ is
    $-\frac T2\nabla^2f\nabla f(y_T)$ for the mean and $-\frac T2(\nabla^2f\nabla f\,y_T^\top+
    y_T(\nabla^2f\nabla f)^\top)$ for the second moments. Their covariances, which are of the order
    $\eta$, differ by $O(\eta^2)$. For plain descent, $\tilde f=f$ and $\Sigma=\operatorname{Cov}
    \nabla f_\gamma$, the moments differ by $\sqrt\eta$ times their change to first order by the
    drift $-c\nabla\mathbb E\|\nabla f_\gamma\|$."""
    return judge_moments(sample_losses, d, k, c, size, time, radius, noise, seed)


def bent_loss(d, units, bend, tilt, seed):
    """Slope b of f = b x + sum log cosh(bend A x - s) / bend, its A and s, and a direction."""
    rng = np.random.default_rng([seed, 2])
    A, s, b = rng.standard_normal((units, d)), rng.standard_normal(units), rng.standard_normal(d)
    A /= np.linalg.norm(A, axis=1).sum()
    # Where the tilt is larger than 1 the gradient vanishes nowhere.
    b *= tilt / np.linalg.norm(b)
    return A, s, b, 0.5 * rng.standard_normal(d)


@simulation
def path_errors(normalised, d, units, bend, tilt, c, time, radius, seed):
    """Roots of the step sizes, and the differences of iterates, at four times, to the flows of the
    modified and of the plain loss."""
    A, s, b, start = bent_loss(d, units, bend, tilt, seed)

    def gradient(x):
        return b + np.tanh(bend * A @ x - s) @ A

    def product(x, v):
        return ((1 - np.tanh(bend * A @ x - s) ** 2) * (bend * A @ v)) @ A

    reach = bend * (1 if normalised else 1 + tilt)
    counts = numbers_of_steps(3 * max(bend, (c * reach) ** 2) * time, 4, multiple=4)
    times, errors = time * np.array([0.25, 0.5, 0.75, 1.0]), []
    plain = ir.sam_flow(gradient, product, start, times, radius=0.0, rtol=1e-13)
    for count in counts:
        eta = time / count
        rho = radius(c, eta)
        given = {"radius": rho, "normalised": normalised}
        path = ir.sharpness_aware_descent(gradient, start, step_size=eta, steps=count, **given)
        modified = ir.sam_flow(gradient, product, start, times, rtol=1e-13, **given)
        errors.append([path[count // 4 :: count // 4] - X for X in (modified, plain)])
    return np.sqrt(time / counts), np.array(errors)


def error_flow(normalised, d, units, bend, tilt, c, time, seed):
    """The errors of first order of both flows at the four times, along the gradient flow of f."""
    A, s, b, start = bent_loss(d, units, bend, tilt, seed)

    def velocity(_, state):
        x, first, half = state.reshape(3, d)
        t = np.tanh(bend * A @ x - s)
        g, H = b + t @ A, bend * (A.T * (1 - t**2)) @ A
        u = g / np.linalg.norm(g) if normalised else g
        third = (-2 * bend**2 * t * (1 - t**2) * (A @ u) ** 2) @ A
        step = -H @ first - (H @ g + c**2 * third) / 2
        return np.concatenate([-g, step, -H @ half - c * H @ u])

    times = time * np.array([0.25, 0.5, 0.75, 1.0])
    at = np.concatenate([start, np.zeros(2 * d)])
    return integrate(velocity, at, times, rtol=1e-11, atol=1e-12).reshape(4, 3, d)[:, 1:]


@smooth.ours("sharpened: an error linear in the step size, with its coefficient", serves="ab")
@cases(normalised=[True, False], d=2, c=1.0, time=1.0)
@full(normalised=[True, False], d=[1, 4], c=[0.5, 1.5], time=1.0)
@space(
    normalised=Choice([True, False]),
    d=Int(1, 5),
    units=Int(1, 6),
    bend=Real(0.3, 3.0, log=True),
    tilt=Real(1.05, 3.0, log=True),
    c=Real(0.1, 1.5, log=True),
    time=Real(0.2, 1.5, log=True),
)
@breaks("rho of the order of eta", radius=proportional)
@breaks("rho fixed", radius=constant)
def sam_modified_loss_order_one(
    normalised, d, c, time, seed, units=3, bend=3.0, tilt=1.2, radius=root
):
    r"""$x_k-X_t=\eta E_t+O(\eta^{3/2})$, and from the flow of $f$ itself, $\dot y=-\nabla f(y)$,
    $x_k-y_t=\sqrt\eta F_t+O(\eta)$, where $\dot E=-\nabla^2f(y)E-\frac12(\nabla^2f\nabla f+
    c^2\nabla^3f[u,u])(y)$ and $\dot F=-\nabla^2f(y)F-c\nabla^2f(y)u$ from 0, with
    $u=\nabla f/\|\nabla f\|$ at $y$ for SAM, $\nabla f$ for USAM."""
    shape = (normalised, d, units, bend, tilt, c, time)
    roots, errors = path_errors(*shape, radius, seed)
    (ours, wrong), (plain, off) = (
        ir.expansion_coefficients(roots, e, noise=1e-12) for e in errors.swapaxes(0, 1)
    )
    E, F = error_flow(*shape, seed).transpose(1, 0, 2)
    source = "difference of degrees of interpolation"
    return {
        "modified": compare(
            within(ours[:3], wrong[:3, None, None], source),
            "==",
            np.array([0 * E, 0 * E, theory("coefficient", E)]),
        ),
        "plain": compare(within(plain[1], off[1], source), "==", theory("penalty", F)),
    }


@panel(
    sam_modified_loss_order_one,
    "SAM follows the modified loss to order one",
    x=r"steps $T/\eta$",
    y=r"distance $\|x_k-X_T\|$",
    log="xy",
)
def _(pen, runs):
    run = runs.judgement.runs[0].instance
    shape = (True, run["d"], 3, 3.0, 1.2, run["c"], run["time"])
    roots, errors = path_errors(*shape, root, runs.judgement.seed)
    counts, size = run["time"] / roots**2, np.linalg.norm(errors[:, :, -1], axis=2)
    E, F = np.linalg.norm(error_flow(*shape, runs.judgement.seed)[-1], axis=1)
    pen.theory(counts, E * roots**2, k=0)
    pen.points(counts, size[:, 0], label=r"modified: $\eta\|E_T\|$", k=0)
    pen.theory(counts, F * roots, k=2)
    pen.points(counts, size[:, 1], label=r"plain: $\sqrt{\eta}\|F_T\|$", k=2)


def of_the_mean(g, w):
    return np.linalg.norm(np.tensordot(w, g, 1), axis=1)


def of_the_draw(g, w):
    return np.linalg.norm(g, axis=2)


def steep_losses(d, k, size, tilt, seed):
    """Quadratic losses whose mean has a slope, their weights and a start."""
    rng = np.random.default_rng([seed, 4])
    G, _, start = quadratic_losses(rng, d, k, 1.0, size, 1.0)
    slope = rng.standard_normal(d)
    slope *= tilt * size / np.linalg.norm(slope)
    w = rng.dirichlet(np.full(k, 2.0))
    G[:, :, -1] += slope - w @ (G[:, :, -1] + G[:, :, :-1] @ start)
    return G, ir.usam_corrections(G), w, start


@simulation
def enumerated_errors(d, k, size, tilt, c, time, radius, norm, seed):
    """Roots of the step sizes, and the differences of the first two moments of all draws to those
    of the flows of the modified and of the plain loss."""
    G, V, w, start = steep_losses(d, k, size, tilt, seed)
    D, E = (np.tensordot(w, M, 1) for M in (G, V))
    counts = np.unique(np.geomspace(3, np.log(60_000) // np.log(max(k, 2)), 8).round().astype(int))
    errors = []
    for count in counts:
        eta = time / count
        rho = radius(c, eta)
        x, p = start[None], np.ones(1)
        for _ in range(count):
            z = np.column_stack([x, np.ones(len(x))])
            g, v = np.einsum("kij,nj->kni", G, z), np.einsum("kij,nj->kni", V, z)
            x = (x - eta * (g + rho * v / norm(g, w)[..., None])).reshape(-1, d)
            p = np.outer(w, p).ravel()
        z = np.column_stack([x, np.ones(len(x))])
        now = []
        for r in (rho, 0.0):

            def velocity(_, y, r=r):
                g = D @ np.append(y, 1.0)
                return -g - r * E @ np.append(y, 1.0) / np.linalg.norm(g)

            y = np.append(integrate(velocity, start, np.array([time]), rtol=1e-13, atol=1e-13), 1.0)
            now.append((p[:, None] * z).T @ z - np.outer(y, y))
        errors.append(now)
    return np.sqrt(time / counts), np.array(errors)


@shared_norm.ours("derived: the noise moves the first two moments by the order eta", serves="a")
@cases(d=2, k=2, c=0.5, time=0.1)
@full(d=[1, 3], k=[2, 3], c=[0.3, 0.7], time=0.1)
@space(
    d=Int(1, 4),
    k=Int(1, 3),
    size=Real(0.1, 3.0, log=True),
    tilt=Real(1.5, 4.0),
    c=Real("0.1 / size ** 0.5", "0.7 / size ** 0.5", log=True),
    time=Real("0.05 / size", "0.2 / size", log=True),
)
@breaks("rho of the order of eta", radius=proportional)
@breaks("normalised by the norm of the draw", norm=of_the_draw)
def dnsam_drift(d, k, c, time, seed, size=1.0, tilt=3.0, radius=root, norm=of_the_mean):
    r"""the first two moments of $x_k$ are those of the flow $\dot X=-\nabla f-\rho\,
    \mathbb E[\nabla^2f_\gamma\nabla f_\gamma]/\|\nabla f\|$ up to $O(\eta)$, to which order a
    diffusion of covariance $O(\eta)$ does not change them. From those of the gradient flow
    $\dot y=-\nabla f(y)$ they differ by $\sqrt\eta F+O(\eta)$ for the mean, and $\sqrt\eta
    (Fy^\top+yF^\top)+O(\eta)$, where $\dot F=-\nabla^2fF-c\,\mathbb E[\nabla^2f_\gamma
    \nabla f_\gamma](y)/\|\nabla f(y)\|$, $F_0=0$."""
    roots, errors = enumerated_errors(d, k, size, tilt, c, time, radius, norm, seed)
    (ours, wrong), (plain, off) = (
        ir.expansion_coefficients(roots, e, noise=1e-13) for e in errors.swapaxes(0, 1)
    )
    G, V, w, start = steep_losses(d, k, size, tilt, seed)
    D, E = (np.tensordot(w, M, 1) for M in (G, V))

    def velocity(_, state):
        g, v = (M @ np.append(state[:d], 1.0) for M in (D, E))
        return np.concatenate([-g, -D[:, :d] @ state[d:] - c * v / np.linalg.norm(g)])

    at = np.concatenate([start, np.zeros(d)])
    at = integrate(velocity, at, np.array([time]), rtol=1e-12, atol=1e-12)[0]
    moved = np.outer(np.append(at[d:], 0.0), np.append(at[:d], 1.0))
    source, scale = "difference of degrees of interpolation", np.linalg.norm(plain[1])
    return {
        "modified": compare(
            small(ours[:2], wrong[:2], scale), "==", theory("coefficient of the root", 0.0)
        ),
        "plain": compare(within(plain[1], off[1], source), "==", theory("F", moved + moved.T)),
    }


def symmetric(eigenvalues, seed):
    """A matrix with these eigenvalues and random eigenvectors, and the eigenvectors."""
    rng = np.random.default_rng([seed, 3])
    Q = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))[0]
    H = (Q * eigenvalues) @ Q.T
    return (H + H.T) / 2, Q


def saddle(sizes, negative):
    return np.array(sizes) * np.where(np.arange(len(sizes)) < negative, -1.0, 1.0)


@simulation
def attraction(eigenvalues, unit, ascent, seed):
    """From which rho on the iterates of USAM with small steps shrink, and the flow does."""
    H, _ = symmetric(eigenvalues, seed)
    basis = np.eye(len(H))

    def iterates_shrink(rho):
        given = {"radius": ascent * rho, "step_size": 2**-9 / unit, "steps": 1, "normalised": False}
        moved = [ir.sharpness_aware_descent(lambda x: H @ x, e, **given)[1] for e in basis]
        return bool(np.abs(np.linalg.eigvals(np.array(moved).T)).max() < 1)

    def flow_shrinks(rho):
        given = {"radius": ascent * rho, "normalised": False}
        slopes = [
            ir.sam_modified_gradient(lambda x: H @ x, lambda x, v: H @ v, e, **given) for e in basis
        ]
        return bool(np.linalg.eigvals(np.array(slopes).T).real.min() > 0)

    return [
        switch(f, bracket=(0.05 / unit, 12.0 / unit), tol=1e-4)
        for f in (iterates_shrink, flow_shrinks)
    ]


@quadratic.abstract("c", instance=True)
@cases(sizes=(0.8, 1.5, 1.0), negative=[1, 2])
@full(sizes=[(0.5, 1.0), (1.0, 1.0), (1.5, 1.0), (2.0, 1.0)], negative=1)
@full(sizes=(0.8, 1.5, 1.0), negative=[2, 3])
@space(
    d=Int(1, 5),
    sizes=Real(0.15, 5.0, log=True, size="d", capacity=5),
    negative=Int(1, "d"),
    unit=Real(1e-3, 1e3, log=True),
)
@breaks("the ascent on another loss, twice as steep", ascent=2.0)
def usam_saddle_threshold(sizes, negative, seed, d=None, unit=1.0, ascent=1.0):
    r"""with a negative eigenvalue, the flow $\dot X=-H(I+\rho H)X$ of USAM, and its iterates with
    small steps, are attracted by 0 where $\rho>1/\min_{\lambda_i<0}|\lambda_i|$, and where $\rho$
    is smaller they are not."""
    found = attraction(unit * saddle(sizes, negative), unit, ascent, seed)
    radius = 1 / theory("eigenvalue", unit * np.min(np.array(sizes)[:negative]))
    names = ("iterates", "flow")
    return {k: compare(measured, "==", radius) for k, measured in zip(names, found, strict=True)}


@panel(
    usam_saddle_threshold,
    "A saddle attracts USAM beyond a radius",
    x=r"negative eigenvalue $|\lambda|$",
    y=r"radius $\rho$",
    log="xy",
)
def _(pen, runs):
    lam = np.geomspace(0.45, 2.2, 40)
    pen.theory(lam, 1 / lam, r"$1/|\lambda|$")
    found = [(r.instance["sizes"][0], r.parts["iterates"]) for r in runs.judgement.runs[:4]]
    x, parts = zip(*found, strict=True)
    pen.points(x, [p.shown for p in parts], [p.error for p in parts], "bisection")
    (other,) = [c.run.parts["iterates"] for c in runs.judgement.controls]
    pen.broken([0.8], [other.shown], label="steeper ascent")


@simulation
def sphere_growth(eigenvalues, rho, shares, normalised, seed):
    """Largest d/dt log |HX| of the flow over all X with |HX| = r, for some r."""
    H, _ = symmetric(eigenvalues, seed)
    reach = rho * np.min(-eigenvalues[eigenvalues < 0])
    rates = []
    for r in shares * reach:
        # On this sphere the velocity is linear in V = HX: its values on a basis are its matrix.
        velocity = [
            -ir.sam_modified_gradient(
                lambda x: H @ x, lambda x, v: H @ v, x, radius=rho, normalised=normalised
            )
            for x in np.linalg.solve(H, r * np.eye(len(H))).T
        ]
        M = H @ np.array(velocity).T / r
        rates.append(np.linalg.eigvalsh((M + M.T) / 2)[-1])
    return np.array(rates)


@simulation
def escape(eigenvalues, rho, unit, normalised, seed):
    """From which |HX| on, along the least negative eigenvector, the iterates of SAM grow."""
    H, Q = symmetric(eigenvalues, seed)
    at = int(np.argmin(np.where(eigenvalues < 0, -eigenvalues, np.inf)))
    lam = -eigenvalues[at]

    def grows(r):
        path = ir.sharpness_aware_descent(
            lambda x: H @ x,
            r / lam * Q[:, at],
            radius=rho,
            step_size=1e-3 / unit,
            steps=5,
            normalised=normalised,
        )
        return bool(np.linalg.norm(path[-1]) > np.linalg.norm(path[0]))

    return switch(grows, bracket=(0.05 * rho * unit, 10 * rho * unit), tol=1e-4)


@quadratic.abstract("c", instance=True)
@cases(sizes=(1.5, 0.6, 1.0), negative=[1, 2], rho=0.2)
@full(sizes=(1.5, 0.6, 1.0), negative=[1, 2], rho=[0.02, 0.1, 0.5])
@space(
    d=Int(1, 5),
    sizes=Real(0.15, 5.0, log=True, size="d", capacity=5),
    negative=Int(1, "d"),
    rho=Real(1e-4, 1e4, log=True),
    unit=Real(1e-3, 1e3, log=True),
)
@breaks("without normalisation", normalised=False)
def sam_saddle_basin(sizes, negative, rho, seed, d=None, unit=1.0, normalised=True):
    r"""$\lambda_*$ the negative eigenvalue nearest to 0, $\|HX\|$ never grows along the flow of
    SAM, $\dot X=-H(X+\rho HX/\|HX\|)$, where $0<\|HX\|\le\rho|\lambda_*|$: the saddle attracts this
    region. On $\|HX\|=r$ its largest relative rate is $\max_i-\lambda_i(1+\rho\lambda_i/r)$. The
    region cannot be larger: iterates with small steps from the eigenvector of $\lambda_*$ outside
    of it move away, and inside, down to a step's length, they come nearer."""
    eigenvalues = unit * saddle(sizes, negative)
    shares = np.array([0.1, 0.3, 0.6, 0.9, 1.0])
    rates = sphere_growth(eigenvalues, rho, shares, normalised, seed)
    edge = unit * np.min(np.array(sizes)[:negative])
    error = 1e-12 * (1 + 1 / shares) * unit * np.max(sizes) ** 2 / np.min(sizes)
    H, _ = symmetric(eigenvalues, seed)
    largest = [ir.saddle_growth(H, radius=rho, norm=r) for r in shares * rho * edge]
    never = {share: rate <= e for share, rate, e in zip(shares, rates, error, strict=True)}
    measured = within(rates, error, "rounding")
    return {
        "inside": compare(family(never), "==", len(shares)),
        "rate": compare(measured, "==", theory("rate", np.array(largest))),
        "edge": compare(
            escape(eigenvalues, rho, unit, normalised, seed), "==", rho * theory("eigenvalue", edge)
        ),
    }


@panel(
    sam_saddle_basin,
    r"A saddle attracts SAM where $\|HX\|\leq\rho|\lambda_*|$",
    x=r"$\rho$",
    y=r"$\|HX\|$ from which it escapes",
    log="xy",
)
def _(pen, runs):
    rho = np.geomspace(0.015, 0.7, 30)
    for i, lam in enumerate((1.5, 0.6)):
        pen.theory(rho, rho * lam, k=i)
        found = runs.measured("rho", "edge", where={"negative": i + 1})
        pen.points(*found, rf"$\lambda_*=-{lam}$", k=i)


def isotropic_noise(d):
    return np.sqrt(d) * np.concatenate([np.eye(d), -np.eye(d)])


def simplex_noise(d):
    """As few values as can be: it is not symmetric, but of covariance I."""
    corners = np.eye(d + 1) - 1 / (d + 1)
    return np.sqrt(d + 1) * corners @ np.linalg.svd(corners)[2][:d].T


def tilted_noise(d):
    return isotropic_noise(d) * np.linspace(1.5, 0.5, d)


@simulation
def stationary_moments(eigenvalues, rho, eta, variance, noise, shared, seed):
    """Covariances in the eigenbasis: of the chain, of the diffusion, of that of plain descent."""
    H, Q = symmetric(eigenvalues, seed)
    d = len(H)
    shifts = np.sqrt(variance) * noise(d) @ Q.T
    n = len(shifts)
    G = np.concatenate([np.broadcast_to(H, (n, d, d)), -shifts[:, :, None]], axis=2)
    V = ir.usam_corrections(G)
    if not shared:
        G, V = np.repeat(G, n, axis=0), np.tile(V, (n, 1, 1))
    w = np.full(len(G), 1 / len(G))
    found = [ir.recursion_moments(G + rho * V, w, np.ones(d), step_size=eta, steps=2**17)]
    for U in (G + rho * V, G):
        K = eta * ir.covariance_operator(U, U, w)
        found.append(ir.diffusion_moments(np.tensordot(w, U, 1), K, np.ones(d), time=300.0))
    return [Q.T @ M[:d, :d] @ Q for M in found]


@stationary.ours("derived: the noise that depends on the Hessian, on a quadratic", serves="b")
@cases(sizes=(0.4, 1.0, 3.0), rho=[0.1, 0.5], eta=0.1, variance=1.0)
@full(sizes=(0.4, 1.0, 3.0), rho=[0.05, 0.1, 0.2, 0.4, 0.8], eta=0.1, variance=1.0)
@space(
    d=Int(1, 4),
    sizes=Real(0.2, 4.0, log=True, size="d", capacity=4),
    rho=Real(0.02, 1.0, log=True),
    eta=Real(0.003, "1.9 / (max(sizes) + rho * max(sizes) ** 2)", log=True),
    variance=Real(1e-8, 1e8, log=True),
    noise=Choice([isotropic_noise, simplex_noise]),
)
@breaks("independent noise in ascent and descent", shared=False)
@breaks("noise that is not isotropic", noise=tilted_noise)
def usam_stationary_variance(
    sizes, rho, eta, variance, seed, d=None, noise=isotropic_noise, shared=True
):
    r"""where $\eta\lambda_i(1+\rho\lambda_i)<2$, the stationary variance along eigenvector $i$ is
    $\frac{\eta(1+\rho\lambda_i)\sigma^2}{\lambda_i(2-\eta\lambda_i(1+\rho\lambda_i))}$, that of
    $dX=-H(I+\rho H)Xdt+\sqrt\eta\sigma(I+\rho H)dW$ is
    $\frac{\eta\sigma^2(1+\rho\lambda_i)}{2\lambda_i}$, and the mean loss of the latter exceeds that
    of plain descent by $\frac{\eta\rho\sigma^2}4\operatorname{tr}H$: on a quadratic it is larger,
    the more so the sharper it is."""
    lam = np.array(sizes)
    chain, diffusion, plain = stationary_moments(lam, rho, eta, variance, noise, shared, seed)
    excess = float(np.diag(diffusion - plain) @ lam) / 2
    given = {"radius": rho, "step_size": eta, "noise_variance": variance}
    expected = ir.usam_stationary_variance(lam, **given)
    size = eta * variance * lam.sum()

    def exactly(values, unit):
        return within(values, 1e-9 * unit, "rounding")

    top = np.diag(chain).max()
    return {
        "chain": compare(exactly(np.diag(chain), top), "==", theory("chain", expected.chain)),
        "diffusion": compare(
            exactly(np.diag(diffusion), top), "==", theory("diffusion", expected.diffusion)
        ),
        "excess": compare(
            exactly(excess, size), "==", eta * variance / 4 * theory("trace", lam.sum()) * rho
        ),
    }


@panel(
    usam_stationary_variance,
    r"The ascent raises the stationary loss by $\frac{\eta\rho\sigma^2}{4}$tr$\,H$",
    x=r"$\rho$",
    y="excess of the mean loss",
    log="xy",
)
def _(pen, runs):
    rho = np.geomspace(0.04, 1.0, 30)
    pen.theory(rho, 0.1 * rho * 4.4 / 4, "theory")
    pen.points(*runs.measured("rho", "excess"), "moments of the diffusion")


if __name__ == "__main__":
    run_script(__file__)
