"""Wasserstein gradient flow: proximal steps on the line, and an objective for point clouds."""

from itertools import pairwise

import numpy as np

from theorylab.optimal_transport import (
    best_witness,
    equilibrium,
    flat_potential,
    free_energy,
    free_energy_gradient,
    gaussian_divergence,
    gaussian_jko_step,
    jko_step,
    quartic_potential,
)
from theorylab.verify import (
    Int,
    Real,
    between,
    breaks,
    cases,
    compare,
    full,
    note,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "fan2021-variational"
cloud = paper(
    KEY,
    r"$P$ a cloud of points with mean $m$ and covariance $\Sigma\succ0$, $Q=N(0,I)$:",
)
steps = paper(
    KEY,
    r"$\mathcal F=\mathrm{KL}(\cdot\|e^{-V})$ on the line, for Gaussians and for $n$ sorted "
    r"particles with entropy from their spacings, $Q$ its minimiser, "
    r"$P_{k+1}=\arg\min\mathcal F(P)+\frac{W_2^2(P,P_k)}{2\tau}$:",
)


def two_clouds(n, d, shift, stretch, seed):
    """Skewed points, and signs times lengths, with one mean and one covariance."""
    rng = np.random.default_rng(seed)
    X = shift + stretch * rng.exponential(size=(n, d)) @ (np.eye(d) + 0.5 * rng.normal(size=(d, d)))
    other = rng.choice([-1.0, 1.0], (2 * n, d)) * rng.uniform(1, 3, (2 * n, 1))
    other -= other.mean(axis=0)
    roots = [np.linalg.cholesky(np.atleast_2d(np.cov(Z.T, bias=True))) for Z in (other, X)]
    return X, X.mean(axis=0) + np.linalg.solve(roots[0], other.T).T @ roots[1].T


def flowed(X, time, fineness, quadratic):
    """The cloud after moving along minus the gradient of its best witness (Runge and Kutta), by
    steps of a share of its least variance, the inverse of which is how fast the gradient varies."""

    def velocity(Z):
        h = best_witness(Z, quadratic=quadratic)
        return -(Z @ h.curvature + h.slope)

    left = time
    while left > 0:
        least = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)[-1] ** 2 / len(X)
        dt = min(left, min(least, time, 1.0) / fineness)
        left -= dt
        a = velocity(X)
        b = velocity(X + dt / 2 * a)
        c = velocity(X + dt / 2 * b)
        X = X + dt / 6 * (a + 2 * b + 2 * c + velocity(X + dt * c))
    return X


@simulation
def witnesses(n, d, shift, stretch, quadratic, seed):
    """Values and bounds of two clouds with common mean and covariance, which are returned, and the
    quotient of second moments and least variance, by which it amplifies rounding."""
    clouds = two_clouds(n, d, shift, stretch, seed)
    found = [best_witness(X, quadratic=quadratic) for X in clouds]
    values, bounds = np.array([(h.value, h.bound) for h in found]).T
    m, S = clouds[0].mean(axis=0), np.atleast_2d(np.cov(clouds[0].T, bias=True))
    return values, bounds, m, S, (np.trace(S) + m @ m) / np.linalg.eigvalsh(S)[0]


@simulation
def flow_values(n, d, shift, stretch, quadratic, time, seed):
    """Value of each cloud after the flow, and its change with half the step."""
    clouds = two_clouds(n, d, shift, stretch, seed)
    runs = [
        [best_witness(flowed(X, time, r, quadratic), quadratic=quadratic).value for r in (4, 8)]
        for X in clouds
    ]
    coarse, fine = np.transpose(runs)
    return fine, abs(coarse - fine)


@cloud.abstract("a", instance=True)
@cases(d=2, time=0.5)
@full(d=[1, 3, 2], time=[0.1, 0.2, 0.35, 0.5, 0.75, 1.0])
@space(n=Int(8, 60), d=Int(1, 3), shift=Real(0.3, 3), stretch=Real(0.3, 2), time=Real(0.1, 1))
@breaks("affine functions only", quadratic=False)
def restricted_variational_kl(d, time, seed, n=40, shift=0.5, stretch=1.0, quadratic=True):
    r"""$\sup_h1+\mathbb E_Ph-\mathbb E_Qe^h$, which over all $h$ is $\mathrm{KL}(P\|Q)=\infty$, is
    $\mathrm{KL}(N(m,\Sigma)\|Q)$ over quadratic $h$, whatever else $P$ is; points that move along
    $-\nabla h$ of the best $h$ reach at time $t$ the value of
    $N(e^{-t}m,I+e^{-2t}(\Sigma-I))$, as the flow of Gaussians does."""
    values, bounds, m, S, spread = witnesses(n, d, shift, stretch, quadratic, seed)
    later, change = flow_values(n, d, shift, stretch, quadratic, time, seed)
    identity, decay, rounding = np.eye(d), np.exp(-time), 1e-11 * values + 1e-14 * spread
    end = gaussian_divergence(decay * m, identity + decay**2 * (S - identity))
    return {
        "supremum": compare(
            between(values - rounding, bounds + rounding, "max"),
            "==",
            theory("divergence", gaussian_divergence(m, S)),
        ),
        "flow": compare(
            within(later, change + 1e-10 * later, "half the step"), "==", theory("end", end)
        ),
    }


@panel(
    restricted_variational_kl,
    "Clouds flow as the Gaussians with their moments",
    x="time $t$",
    y="supremum over quadratics",
)
def _(pen, runs):
    for k, d in enumerate((1, 3)):
        pen.theory(*runs.predicted("time", "flow", 0, where={"d": d}), f"$d={d}$", k=k)
        for cloud in (0, 1):
            pen.points(*runs.measured("time", "flow", cloud, where={"d": d}), k=k)


def rms(x):
    return np.sqrt(np.mean(x**2))


def linear_far_away(curvature, quartic):
    return flat_potential(curvature + quartic)


@simulation
def contraction(build, curvature, quartic, tau, n, shift, stretch, seed):
    """Distances from the minimiser along a run of particles, and of Gaussians for the quadratic V;
    the quotient of two for a translate of the minimiser of the quadratic V; a bound of the error of
    the particles, from the residuals (V is convex, and strongly at the minimiser)."""
    potential, x = build(curvature, quartic=quartic), np.random.default_rng(seed).standard_normal(n)
    Q, runs = equilibrium(potential, n), [np.sort(shift + stretch * x)]
    for _ in range(8):
        runs.append(jko_step(runs[-1], potential, step_size=tau))
    W = np.array([rms(x - Q) for x in runs])
    moves = [(y - x) / tau + free_energy_gradient(y, potential) for x, y in pairwise(runs)]
    error = 8 * tau * max(map(rms, moves)) + rms(free_energy_gradient(Q, potential)) / curvature
    plain = build(curvature, quartic=0.0)
    Q = equilibrium(plain, n)
    moved = rms(jko_step(Q + 5, plain, step_size=tau) - Q) / 5
    gauss = [(shift, stretch)]
    for _ in range(8):
        gauss.append(gaussian_jko_step(*gauss[-1], curvature=curvature, step_size=tau))
    G = np.array([np.hypot(mean, sigma - curvature**-0.5) for mean, sigma in gauss])
    return np.stack([W, G]), moved, 2 * error + 1e-14


@simulation
def excesses(build, slope, tau, n, stretch, distance, rounds):
    """Mean squared distance of a start from the minimiser, which is stretched and moved, and excess
    of the free energy after each step."""
    potential = build(slope)
    Q = equilibrium(potential, n)
    x, least, found = stretch * Q + distance, free_energy(Q, potential), []
    squared = np.mean((x - Q) ** 2)
    for _ in range(rounds):
        x = jko_step(x, potential, step_size=tau)
        found.append(free_energy(x, potential) - least)
    return squared, np.array(found)


@steps.ours("sharpened: known theory of the paper's scheme, recalled")
@note(credit="Taylor, Hendrickx and Glineur 2017, proximal point method (recalled): the factor 4")
@cases(curvature=1.0, tau=[1.0, 0.3], distance=60.0)
@full(curvature=[0.3, 3.0, 1.0], tau=[0.1, 0.3, 1.0], n=80, distance=60.0)
@space(
    curvature=Real(0.2, 4, log=True),
    tau=Real(0.05, 2, log=True),
    quartic=Real(0, 1),
    n=Int(2, 40),
    shift=Real(-3, 3),
    stretch=Real(0.2, 3),
    distance=Real(1, 60),
    reach=Real(0.3, 2),
)
@breaks("V linear far away", build=linear_far_away, shift=10.0)
def jko_contraction(
    curvature,
    tau,
    seed,
    distance,
    n=40,
    quartic=0.1,
    shift=1.0,
    stretch=2.0,
    rounds=10,
    reach=1.0,
    build=quartic_potential,
):
    r"""$W_2(P_{k+1},Q)\le\frac{W_2(P_k,Q)}{1+\tau\mu}$ if $V''\ge\mu$, with equality for translates
    of $Q$ if $V=\frac\mu2x^2$; $\mathcal F(P_k)-\mathcal F(Q)\le\frac{W_2^2(P_0,Q)}{4k\tau}$ if $V$
    is convex, approached by $V$ linear far away (judged: $V=\frac\mu2x^2+qx^4$,
    $V=g\sqrt{1+x^2}$)."""
    W, moved, error = contraction(build, curvature, quartic, tau, n, shift, stretch, seed)
    slope = reach * distance / (2 * rounds * tau)  # its V arrives after that many steps at reach 1
    squared, excess = excesses(flat_potential, slope, tau, n, stretch, distance, rounds)
    factor = theory("factor", 1 / (1 + tau * curvature))
    bound = theory("bound", squared / (4 * tau * np.arange(1, rounds + 1)))
    residual = "residual of the steps"
    return {
        "contraction": compare(
            within(W[:, 1:] / W[:, :-1], error / W[:, 1:], residual), "<=", factor
        ),
        "translate": compare(within(moved, 1e-9, residual), "==", factor),
        "value": compare(within(excess, 1e-11 * excess[0], "rounding"), "<=", bound),
    }


@panel(
    jko_contraction,
    r"Each step contracts by $1/(1+\tau\mu)$, or more",
    x=r"step size $\tau$",
    y="$W_2(P_8,Q)/W_2(P_7,Q)$",
    log="x",
)
def _(pen, runs):
    tau = np.geomspace(0.08, 1.2, 50)
    for k, mu in enumerate((0.3, 1.0, 3.0)):
        pen.theory(tau, 1 / (1 + tau * mu), rf"$\mu={mu}$", k=k)
        for row in (0, 1):  # particles, Gaussians
            last = runs.measured("tau", "contraction", (row, -1), where={"curvature": mu})
            pen.points(*last, k=k)
    part = runs.judgement.controls[0].run.parts["contraction"]
    pen.broken(1.0, part.shown[0, -1], label="$V$ linear far away")


@panel(
    jko_contraction,
    r"Free energy: $W_2^2/(4k\tau)$ is approached by $V$ linear far away",
    x="step $k$",
    y="free energy above its least",
    log="y",
)
def _(pen, runs):
    k = np.arange(1, 11)
    for i, tau in enumerate((0.1, 0.3, 1.0)):
        run = next(r for r in runs.judgement.runs if r.instance["tau"] == tau)
        pen.theory(k, run.parts["value"].predicted, rf"$\tau={tau}$", k=i)
        pen.points(k, run.parts["value"].shown, k=i)


if __name__ == "__main__":
    run_script(__file__)
