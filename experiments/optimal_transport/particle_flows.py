"""Particles in place of a measure: how many suffice, what is convex, how fast they move."""

from fractions import Fraction

import numpy as np
from scipy.optimize import linear_sum_assignment

from theorylab.optimal_transport import (
    cramer_distance,
    energy_distance,
    particle_descent,
    step_network_loss,
    uniform_energy,
    uniform_gradient,
)
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
    theory,
    within,
)
from theorylab.verify.cli import run_script

KEY = "daneshmand2023-efficient"
line = paper(
    KEY,
    r"$F(\mu)=\mathbb E|X-Y|-\frac12\mathbb E|X-X'|-\frac12\mathbb E|Y-Y'|=\int(F_\mu-F_\nu)^2$ on "
    r"the line, $\nu=U[0,1]$, $\mu$ of $n$ equal particles, $w^\star_i=\frac{i-1/2}n$:",
)
convex = paper(
    KEY,
    r"$F_\nu(\mu)=\mathbb E|X-Y|-\frac12\mathbb E|X-X'|-\frac12\mathbb E|Y-Y'|$ on the line, "
    r"$a,b\in\mathbb R^n$ the particles of two measures:",
)
circle = paper(
    KEY,
    r"Inputs uniform on the unit circle, networks $f_\mu(x)=\int\mathbf 1\{\omega_\theta\cdot x>0\}"
    r"\,d\mu(\theta)$ of step neurons with angles $\theta\in[0,\pi)$, $\mu$ a probability:",
)


def independent(rng, shape):
    return rng.random(shape)


def stratified(rng, shape):
    return (np.arange(shape[1]) + rng.random(shape)) / shape[1]


def exact_energy(x):
    """The three expectations of the definition, in rationals."""
    n, half = len(x), Fraction(1, 2)
    away = sum(w * w - w + half if 0 <= w <= 1 else abs(w - half) for w in x)
    apart = sum(abs(v - w) for v in x for w in x)
    return away / n - apart / (2 * n * n) - Fraction(1, 6)


def exact_transport(x):
    """Squared distance of the quantile functions, in rationals."""
    n, ordered = len(x), sorted(x)
    cubes = [
        ((w - Fraction(i, n)) ** 3, (w - Fraction(i + 1, n)) ** 3) for i, w in enumerate(ordered)
    ]
    return sum(early - late for early, late in cubes) / 3


@simulation
def rational_particles(n, reach, seed):
    ticks = np.random.default_rng(seed).integers(0, 10**6 + 1, n)
    return [Fraction(int(t), 10**6) * reach for t in ticks]


@simulation
def sampled_energies(n, n_draws, sampler, seed):
    draws = sampler(np.random.default_rng(seed), (n_draws, n))
    return np.array([uniform_energy(x) for x in draws])


@simulation
def settled(n, seed):
    """Energy where a descent from random particles ends, and the squared norm of its gradient."""
    start = np.random.default_rng(seed).random(n)
    end = particle_descent(start, step_size=0.45, steps=30).positions[-1]
    return uniform_energy(end), np.mean(uniform_gradient(end) ** 2)


@line.abstract("a", instance=True)
@cases(n=[2, 40])
@full(n=[1, 2, 4, 8, 16, 32, 64], n_draws=20_000)
@space(n=Int(1, 50))
@breaks("particles beyond [0, 1]", reach=2)
@breaks("one sample in each n-th of [0, 1]", sampler=stratified)
def n_particle_gap(n, seed, n_draws=5600, reach=1, sampler=independent):
    r"""$F(\mu)=W_2^2(\mu,\nu)$ for $\mu$ on $[0,1]$; the least $F$ of $n$ particles is
    $\frac1{12n^2}$; $n$ independent samples of $\nu$ have the mean $\frac1{6n}$. So $\sqrt F$ of
    root mean square $\epsilon$ takes $\frac1{6\epsilon^2}$ samples, $\sqrt F=\epsilon$ at best
    $\frac1{\sqrt{12}\epsilon}$ particles."""
    x, (attained, steepness) = rational_particles(n, reach, seed), settled(n, seed)
    # On sorted particles in [0, 1] F is strongly convex with modulus 2; sorting and clipping to
    # [0, 1] never raises it.
    least = between(attained, attained - steepness / 4)
    samples = mean(sampled_energies(n, n_draws, sampler, seed))
    return {
        "samples": compare(samples, "==", theory("mean", 1 / (6 * n))),
        "least": compare(least, "==", theory("least", 1 / (12 * n**2))),
        "transport": compare(exact_energy(x), "==", theory("transport", exact_transport(x))),
    }


@panel(
    n_particle_gap,
    r"Samples need $1/6\epsilon^2$ particles, the best $1/\sqrt{12}\epsilon$",
    x="particles $n$",
    y="$F$",
    log="xy",
)
def _(pen, runs):
    n = np.geomspace(1, 70, 30)
    pen.theory(n, 1 / (6 * n), r"$\frac{1}{6n}$")
    pen.points(*runs.measured("n", "samples"), "samples")
    pen.theory(n, 1 / (12 * n**2), r"$\frac{1}{12n^2}$", k=1)
    pen.points(*runs.measured("n", "least"), "after descent", k=1)
    pen.broken(
        *runs.measured("n", "samples", control="one sample in each n-th of [0, 1]"), "stratified"
    )


def coupled(a, b, sign):
    """The second cloud in the order that its least (or most) costly pairing with the first has."""
    cost = np.sum((a[:, None] - b) ** 2, axis=-1)
    return b[linear_sum_assignment(sign * cost)[1]]


@simulation
def displaced(n, m, share, sign, dimension, offset, seed):
    """Energy between two clouds and at both, for a random target; for particles in [0, 1] and the
    uniform target the drop below the chord, and s(1 - s) times their mean squared distance."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, n, dimension)) + offset
    target = rng.standard_normal((m, dimension))
    b = coupled(a, b, sign)
    middle, *ends = (energy_distance(z, target) for z in ((1 - share) * a + share * b, a, b))
    u, v = rng.random((2, n))
    v = coupled(u[:, None], v[:, None], sign)[:, 0]
    halfway, *both = (uniform_energy(z) for z in ((1 - share) * u + share * v, u, v))
    drop = (1 - share) * both[0] + share * both[1] - halfway
    return middle, ends, drop, share * (1 - share) * np.mean((u - v) ** 2)


@convex.ours("derived: what the hypothesis of the paper says of particles, and what not")
@cases(n=[3, 40], share=0.5)
@full(n=20, share=[0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 0.5], m=30)
@space(n=Int(1, 20), m=Int(1, 20), share=Real(0.02, 0.98), offset=Real(-4, 4))
@breaks("paired in reverse", sign=-1)
@breaks("clouds in the plane", dimension=2, offset=200.0)
def displacement_convexity_needs_sorting(n, share, seed, m=50, offset=0.0, dimension=1, sign=1):
    r"""if one permutation sorts $a$ and $b$, $F_\nu((1-s)a+sb)\le(1-s)F_\nu(a)+sF_\nu(b)$ for every
    $\nu$ and $0\le s\le1$, and for $\nu=U[0,1]$ and $a,b\in[0,1]^n$ the right side less
    $s(1-s)W_2^2(a,b)$ is attained; along other pairings $F_\nu$ need not be convex."""
    middle, ends, drop, spread = displaced(n, m, share, sign, dimension, offset, seed)
    rounding = 1e-13 * (1 + abs(offset))
    chord = (1 - share) * ends[0] + share * ends[1]
    return {
        "chord": compare(within(middle, rounding, "rounding"), "<=", theory("chord", chord)),
        "modulus": compare(
            within(drop / spread, 1e-14 / spread, "rounding"), "==", theory("modulus", 1.0)
        ),
    }


@panel(
    displacement_convexity_needs_sorting,
    "Convex between sorted particles, not between others",
    x="$s$",
    y="energy on the way",
)
def _(pen, runs):
    pen.theory(*runs.predicted("share", "chord"), "chord")
    pen.points(*runs.measured("share", "chord"), "sorted")
    pen.broken(*runs.measured("share", "chord", control="paired in reverse"), "reversed")


@simulation
def descents(n, step, steps, shift, stretch, merge, seed):
    """Start and energies of a run inside [0, 1], and of one on the whole line."""
    rng = np.random.default_rng(seed)
    starts = rng.random(n), shift + stretch * rng.standard_normal(n)
    starts[0][0] = 0.0  # so that one particle alone does not start at its place
    starts = [(1 - merge) * w + merge * w.mean() for w in starts]
    runs = [particle_descent(w, step_size=step, steps=steps) for w in starts]
    return [(w, run.energies) for w, run in zip(starts, runs, strict=True)]


@simulation
def lone_descents(step, rounds):
    """Distance of a single particle from its place, and its energy after so many steps."""
    away = 2 * step * np.array(rounds) + 0.5
    runs = (
        particle_descent([0.5 + w], step_size=step, steps=k)
        for w, k in zip(away, rounds, strict=True)
    )
    return away, np.array([run.energies[-1] for run in runs])


@line.ours("sharpened: the constants of a smooth displacement-convex instance", serves="c")
@cases(n=1, step=0.1, shift=41.0, stretch=0.0)
@cases(n=[4, 16], step=0.1)
@full(n=1, step=0.1, shift=41.0, stretch=0.0)
@full(n=[4, 64, 16], step=[0.02, 0.5, 0.1])
@space(n=Int(1, 40), step=Real(0.01, 0.5), shift=Real(-20, 20), stretch=Real(0.1, 10))
@breaks("particles that coincide", merge=1.0)
@breaks("step beyond 1/2", step=1.5)
@note(credit="Drori and Teboulle 2014, smooth convex functions (recalled): the constant")
def particle_gd_rate(n, step, seed, steps=200, shift=0.0, stretch=3.0, merge=0.0):
    r"""steps $w_i\leftarrow w_i-\eta n\,\partial_iF$ with $0<\eta\le\frac12$ from distinct
    particles anywhere satisfy $F(w_k)-\frac1{12n^2}\le\frac{W_2^2(w_0,w^\star)}{4\eta k+1}$ for
    all $k$, which for each $k$ a single particle attains; from distinct particles in $[0,1]$,
    $F(w_k)=\frac1{12n^2}+(1-2\eta)^{2k}W_2^2(w_0,w^\star)$."""
    (inside, near), (start, far) = descents(n, step, steps, shift, stretch, merge, seed)
    best, k = (np.arange(n) + 0.5) / n, np.arange(steps + 1)
    squared, wide = (np.mean((np.sort(w) - best) ** 2) for w in (inside, start))
    least, factor = theory("least", 1 / (12 * n**2)), theory("factor", 1 - 2 * step)
    pace, rounds = theory("pace", 4 * step * k + 1), [0, 1, steps // 10, steps]
    away, lone = lone_descents(step, rounds)
    single = n**2 * least + away**2 / pace[rounds]
    return {
        "bound": compare(within(far, 1e-11 * far, "rounding"), "<=", least + wide / pace),
        "attained": compare(within(lone, 1e-11 * lone, "rounding"), "==", single),
        "decay": compare(
            within(near, 1e-11 * near, "rounding"), "==", least + squared * factor ** (2 * k)
        ),
    }


@panel(
    particle_gd_rate,
    r"Descent: $(1-2\eta)^{2k}$ inside $[0,1]$, the bound met from afar",
    x="step $k$",
    y="$F(w_k)$",
    log="y",
)
def _(pen, runs):
    for i, (n, step) in enumerate(((64, 0.02), (16, 0.1), (4, 0.1))):
        run = next(
            r for r in runs.judgement.runs if (r.instance["n"], r.instance["step"]) == (n, step)
        )
        part, k = run.parts["decay"], np.arange(201)
        pen.theory(k, part.predicted, rf"$n={n}$, $\eta={step}$", k=i)
        pen.points(k[::8], part.shown[::8], part.error[::8], k=i)
    part = next(c for c in runs.judgement.controls if "coincide" in c.name).run.parts["decay"]
    pen.broken(np.arange(0, 201, 8), part.shown[::8], label="coinciding")
    part = runs.judgement.runs[0].parts["bound"]
    pen.theory(np.arange(201), part.predicted, "bound from 41, $n=1$", k=4)
    pen.points(np.arange(0, 201, 8), part.shown[::8], k=4)


@simulation
def networks(n, m, share, reach, sign, seed):
    """Angles and weights of the target, angles of two networks of n neurons and of the one between,
    the losses of the three, weights for the neurons of the first, and its loss with them."""
    rng = np.random.default_rng(seed)
    a, b = np.pi * reach * rng.random((2, n))
    b = coupled(a[:, None], b[:, None], sign)[:, 0]
    target, weights = np.pi * reach * rng.random(m), rng.dirichlet(np.ones(m))
    angles = (1 - share) * a + share * b, a, b
    losses = [step_network_loss(w, target, target_weights=weights) for w in angles]
    uneven = rng.dirichlet(np.ones(n))
    return target, weights, angles, losses, uneven, step_network_loss(a, target, uneven, weights)


@circle.ours(
    "derived: networks to which the results apply; those of the paper are not seen", serves="d"
)
@cases(n=[1, 5, 40], m=[3, 60])
@full(n=[1, 2, 4, 8, 16, 32, 64], m=100, share=[0.2, 0.5])
@space(n=Int(1, 30), m=Int(1, 30), share=Real(0.02, 0.98))
@breaks("angles on the whole circle", reach=2)
@breaks("neurons paired in reverse", sign=-1)
def circle_step_network_is_energy_distance(n, m, seed, share=0.5, reach=1, sign=1):
    r"""$\mathbb E_x(f_\mu-f_\nu)^2=\frac1\pi\int_0^\pi(F_\mu-F_\nu)^2d\theta$, with the
    distribution functions of the angles: the squared loss is $1/\pi$ of the energy distance on a
    line, and convex between networks whose $n$ equal neurons are sorted."""
    target, weights, angles, losses, uneven, loss = networks(n, m, share, reach, sign, seed)
    distances = [cramer_distance(w, target, b=weights) / np.pi for w in angles]
    distances.append(cramer_distance(angles[1], target, uneven, weights) / np.pi)
    chord = (1 - share) * losses[1] + share * losses[2]
    return {
        "loss": compare(
            within([*losses, loss], 1e-12, "rounding of arcs"),
            "==",
            theory("distance", np.array(distances)),
        ),
        "chord": compare(within(losses[0], 1e-12, "rounding"), "<=", theory("chord", chord)),
    }


@panel(
    circle_step_network_is_energy_distance,
    "The loss of step networks on the circle is the distance of their angles",
    x=r"distance of the angles / $\pi$",
    y="squared loss",
    log="xy",
)
def _(pen, runs):
    pen.theory([1e-3, 0.5], [1e-3, 0.5])
    parts = [run.parts["loss"] for run in runs.judgement.runs]
    pen.points(*(np.concatenate([getattr(p, s) for p in parts]) for s in ("predicted", "shown")))
    part = runs.judgement.controls[0].run.parts["loss"]
    pen.broken(part.predicted, part.shown, label="whole circle")


if __name__ == "__main__":
    run_script(__file__)
