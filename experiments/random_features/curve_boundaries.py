"""Curves through a random ReLU network: how often, and how soon, they meet a boundary."""

import numpy as np

from theorylab import random_features as rf
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
    theory,
)
from theorylab.verify.cli import run_script

KEY = "tiwari2022-effects"
single = paper(
    KEY,
    r"ReLU neurons $w\sim N(0,\sigma_w^2I)$, $b\sim N(0,\sigma_b^2)$ along a closed curve $c(t)$, "
    r"$s=\sigma_w^2|c|^2+\sigma_b^2>0$:",
)
deep = paper(
    KEY,
    r"Layers of $n$ ReLU neurons with $n$ inputs, weights $N(0,\frac2n)$, biases "
    r"$N(0,\sigma_b^2)$, along a polygon of length $\ell$:",
)
points_on = paper(
    KEY,
    r"Random points of a curve, on average at most $\rho$ in a unit of length, and the distance "
    r"$D$ along the curve to the nearest, or to the further end where there is none, from a point "
    r"further than $\frac1{2\rho}$ from both ends (for both, on a closed curve, its opposite):",
)


def curve(shape, size, t):
    """A curve in three dimensions and its velocity: a circle, bent by two further waves."""
    waves = np.stack([np.cos(2 * t), np.sin(3 * t), np.cos(t - 1)], axis=1)
    speeds = np.stack([-2 * np.sin(2 * t), 3 * np.cos(3 * t), -np.sin(t - 1)], axis=1)
    circle = np.stack([np.cos(t), np.sin(t), 0 * t], axis=1)
    turn = np.stack([-np.sin(t), np.cos(t), 0 * t], axis=1)
    return size * (circle + waves * shape), size * (turn + speeds * shape)


def normal(rng, neurons, d):
    return rng.standard_normal((neurons, d)), rng.standard_normal(neurons)


def constant_bias(rng, neurons, d):
    return rng.standard_normal((neurons, d)), np.ones(neurons)


def one_axis(rng, neurons, d):
    w, b = normal(rng, neurons, d)
    return np.sqrt(d) * w * np.eye(d)[0], b


@simulation
def crossings(shape, size, bias, law, neurons, grid, seed):
    """Boundary points of each neuron on the whole curve and on its first third, on a polygon and on
    one with half of its vertices."""
    w, b = law(np.random.default_rng(seed), neurons, 3)
    t = np.linspace(0, 2 * np.pi, 6 * grid + 1)
    found = []
    for points in (curve(shape, size, t)[0], curve(shape, size, t[::2])[0]):
        third = np.sum(np.linalg.norm(np.diff(points[: len(points) // 3 + 1], axis=0), axis=1))
        at = rf.trace_boundaries(points, [w], [bias * b])
        kept = (at.neurons, at.neurons[at.positions < third])
        found.append(np.stack([np.bincount(i, minlength=neurons) for i in kept], axis=1))
    return found


def integrals(density, shape, size, bias):
    """Of a density over the whole curve and over its first third, by trapezoids."""
    t = np.linspace(0, 2 * np.pi, 3001)
    values = density(*curve(shape, size, t), weight_scale=1.0, bias_scale=bias)
    cells = (values[1:] + values[:-1]) / 2 * (t[1] - t[0])
    return np.array([cells.sum(), cells[:1000].sum()])


@single.abstract("a", instance=True)
@cases(size=1.0, bias=[0.5, 2.0])
@full(size=[0.3, 3.0], bias=1.0, shape=(0.2, -0.3, 0.8), neurons=40_000, grid=40)
@full(size=1.0, bias=[0.25, 0.5, 1.0, 2.0], neurons=40_000, grid=40)
@space(
    size=Real(0.5, 3.0, log=True),
    bias=Real(0.3, 2.0, log=True),
    shape=Real(-0.4, 0.4, size=3),
)
@breaks("the same bias", law=constant_bias)
@breaks("weights along one axis", law=one_axis)
def kink_density_on_curve(
    size, bias, seed, shape=(0.0, 0.3, 0.4), law=normal, neurons=36_000, grid=24
):
    r"""a neuron has on average $\int\frac1\pi\sqrt{\frac{\sigma_w^2|c'|^2}s-\frac{\sigma_w^4
    (c^\top c')^2}{s^2}}\,dt\le\int\frac{\sigma_w|c'|}{\pi\sqrt s}dt$ boundary points on the curve,
    and on any part of it."""
    fine, coarse = crossings(np.array(shape), size, bias, law, neurons, grid, seed)
    missed = np.abs(fine.mean(axis=0) - coarse.mean(axis=0))
    measured = mean(fine, bias=missed, source="difference to half of the vertices")
    exact = integrals(rf.crossing_density, np.array(shape), size, bias)
    bound = integrals(rf.crossing_density_bound, np.array(shape), size, bias)
    return {
        "points": compare(measured, "==", theory("points", exact)),
        "bound": compare(measured, "<=", theory("bound", bound)),
    }


@panel(
    kink_density_on_curve,
    "Boundary points of a neuron on a curve (whole, and a third)",
    x=r"bias scale $\sigma_b/\sigma_w$",
    y="boundary points",
    log="x",
)
def _(pen, runs):
    b = np.geomspace(0.2, 2.5, 50)
    shape = np.array((0.0, 0.3, 0.4))
    exact, bound = (
        np.array([integrals(f, shape, 1.0, bias) for bias in b])
        for f in (rf.crossing_density, rf.crossing_density_bound)
    )
    for i, name in enumerate(("whole", "a third")):
        pen.theory(b, exact[:, i], k=i)
        pen.points(*runs.measured("bias", "points", i, where={"size": 1.0}), name, k=i)
    pen.theory(b, bound[:, 0], "bound", k=2)


def he(rng, n, scale):
    return np.sqrt(2 / n) * rng.standard_normal((n, n)), scale * rng.standard_normal(n)


def large(rng, n, scale):
    weights, biases = he(rng, n, scale)
    return 10 * weights, biases


def tents(rng, n, scale):
    """Every pair of neurons folds the interval (0, 1) that all inputs carry: 2^L pieces."""
    folds = np.tile([[2.0, -4.0], [2.0, -4.0]], (n // 2, n // 2)) / (n // 2)
    return rng.uniform(0.97, 1.0) * folds, np.tile([0.0, -1.0], n // 2)


def first_tents(rng, n):
    return rng.uniform(0.3, 1.0) * np.full((n, n), 2 / n), np.where(np.arange(n) % 2, -1.0, 0.0)


@simulation
def deep_crossings(n, depth, bias, draws, law, seed):
    """Boundary points for each layer, per neuron, in ``draws`` networks along a line of length
    2, and the distance from its middle to the nearest."""
    rng = np.random.default_rng([seed, 1])
    ends = np.outer([-1.0, 0.0, 1.0], np.ones(n) / np.sqrt(n)) + 0.3 * np.eye(n)[0]
    if law is tents:
        ends = np.outer([0.01, 0.5, 0.99], np.ones(n))
    counts, distances = [], []
    for _ in range(draws):
        layers = [law(rng, n, bias) for _ in range(depth)]
        if law is tents:
            layers[0] = first_tents(rng, n)
        found = rf.trace_boundaries(ends, *zip(*layers, strict=True))
        counts.append(np.bincount(found.layers, minlength=depth) / n)
        distances.append(rf.nearest_boundary(found, found.length / 2))
    return np.array(counts), np.array(distances), found.length


@deep.ours("derived: the constant of the abstract's bound, at every depth", serves="a")
@cases(n=8, depth=3, bias=1.0)
@full(n=[8, 24], depth=5, bias=[0.5, 1.0], draws=400)
@space(n=Int(2, 12), depth=Int(1, 4), bias=Real(0.3, 1.0))
@breaks("weights ten times as large", law=large)
@breaks("tent maps", law=tents, depth=6, draws=60)
def regions_linear_in_neurons(n, depth, bias, seed, draws=600, law=he):
    r"""a neuron of any layer has on average at most $\sqrt{\frac2n}\frac\ell{\pi\sigma_b}$ boundary
    points: regions grow at most as the number of neurons, at every depth."""
    counts, _, length = deep_crossings(n, depth, bias, draws, law, seed)
    bound = theory("bound", length * rf.deep_crossing_bound(n, bias_scale=bias))
    return compare(mean(counts), "<=", np.full(depth, bound))


@panel(
    regions_linear_in_neurons,
    r"Neurons of deep layers switch no more often ($\sigma_b=1$)",
    x="layer",
    y="boundary points per neuron",
    log="y",
)
def _(pen, runs):
    layers = np.arange(1, 6)
    for i, n in enumerate((8, 24)):
        (run,) = [
            r for r in runs.judgement.runs if r.instance["n"] == n and r.instance["bias"] == 1.0
        ]
        part = run.parts[""]
        pen.theory(layers, part.predicted, f"bound, $n={n}$", k=i)
        pen.points(layers, part.shown, part.error, f"$n={n}$", k=i)
    (tents,) = [c.run.parts[""] for c in runs.judgement.controls if c.name == "tent maps"]
    pen.broken(np.arange(1, 7), tents.shown, label="tent maps, $n=24$")


def anisotropic(rng, neurons, d):
    """Boundaries that are likely to pass near the first axis."""
    w, b = normal(rng, neurons, d)
    return w * np.append(0.2, np.ones(d - 1)), b


@simulation
def circle_distances(N, radius, bias, law, draws, vertices, seed):
    """Distance along a circle from a point to the nearest boundary of N neurons, on a polygon of
    some vertices and of half as many."""
    w, b = law(np.random.default_rng([seed, 2]), N * draws, 2)
    found = []
    for size in (vertices, vertices // 2):
        t = np.linspace(0, 2 * np.pi, size + 1)
        points = radius * np.stack([np.cos(t), np.sin(t)], axis=1)
        at = rf.trace_boundaries(points, [w], [bias * b])
        nearest = np.full(draws, at.length / 2)
        gaps = np.minimum(at.positions, at.length - at.positions)
        np.minimum.at(nearest, at.neurons // N, gaps)
        found.append(nearest)
    return found


@simulation
def line_distances(n, depth, bias, draws, law, seed):
    return deep_crossings(n, depth, bias, draws, law, seed)[1:]


@points_on.ours("derived: the constant of the abstract's bound, by Markov", serves="b")
@cases(N=[3, 8], radius=2.0, bias=1.0)
@full(N=[2, 4, 8, 16], radius=2.0, bias=1.0, draws=9_500, networks=600)
@space(
    N=Int(2, 9),
    radius=Real(0.3, 3.0),
    bias=Real(0.0, "radius / 2"),
    n=Int(4, 12),
    depth=Int(1, 3),
)
@breaks("boundaries likely near the point", law=anisotropic)
@breaks("weights ten times as large", layer=large)
def distance_to_boundary_on_curve(
    N,
    radius,
    bias,
    seed,
    n=8,
    depth=2,
    law=normal,
    layer=he,
    draws=9_500,
    networks=300,
):
    r"""$\mathbb ED\ge\frac1{4\rho}$. Judged for $N$ neurons with weights $N(0,I)$ on a circle of
    radius $R$, where $\mathbb ED=\frac{\pi R}{2(N+1)}$ without biases, and with biases
    $N(0,\sigma_b^2)$, $\rho=\frac N{\pi\sqrt{R^2+\sigma_b^2}}$; and for the middle of a segment
    through $L$ layers of $n$ neurons with weights $N(0,\frac2n)$, biases $N(0,1)$,
    $\rho=\frac{Ln}\pi\sqrt{\frac2n}$."""
    free, coarse = circle_distances(N, radius, 0.0, law, draws, 64, seed)
    moved, rough = circle_distances(N, radius, bias, law, draws, 64, seed)
    deep_found, length = line_distances(n, depth, 1.0, networks, layer, seed)
    density = N / (np.pi * np.hypot(radius, bias))
    many = depth * n * rf.deep_crossing_bound(n, bias_scale=1.0)
    if min(density * np.pi * radius, many * length / 2) < 0.5:
        raise ValueError("the point is too close to the ends")
    source = "difference to half of the vertices"
    return {
        "without biases": compare(
            mean(free, bias=abs(free.mean() - coarse.mean()), source=source),
            "==",
            theory("mean", np.pi * radius / (2 * (N + 1))),
        ),
        "with biases": compare(
            mean(moved, bias=abs(moved.mean() - rough.mean()), source=source),
            ">=",
            theory("neurons", rf.distance_bound(density)),
        ),
        "deep": compare(mean(deep_found), ">=", theory("layers", rf.distance_bound(many))),
    }


@panel(
    distance_to_boundary_on_curve,
    "The nearest boundary on a circle of radius 2",
    x="neurons $N$",
    y="mean distance",
    log="xy",
)
def _(pen, runs):
    N = np.arange(2, 18)
    pen.theory(N, np.pi / (N + 1), r"$\pi R/2(N+1)$")
    pen.points(*runs.measured("N", "without biases"), "no biases")
    pen.theory(N, np.pi * np.sqrt(5) / (4 * N), r"$1/4\rho$", k=1)
    pen.points(*runs.measured("N", "with biases"), r"$\sigma_b=1$", k=1)


if __name__ == "__main__":
    run_script(__file__)
