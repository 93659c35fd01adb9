"""Where descent ends: stationary networks as optima of sub-sampled convex programs."""

from fractions import Fraction

import numpy as np

from theorylab import convex_relu as cr
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
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

KEY = "mishkin2023-optimal"
descent = paper(
    KEY,
    r"For $F=\frac12\|\sum_{j\le m}a_j(Xu_j)_+-y\|^2+\frac\beta2\sum_j(\|u_j\|^2+a_j^2)$, "
    r"$\beta>0$, "
    r"let $v=y-\sum_ja_j(Xu_j)_+$, $s_j=\mathrm{sign}\,a_j$, $p_j=|a_j|u_j$, and $x_k^\top "
    r"u_j=0$ be "
    r"the ties of neuron $j$:",
)
single = paper(KEY)


def gaussian(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n), rng


# ---------------------------------------------------------------------------------- stationarity
@simulation
def networks(n, d, ratio, unbalance, seed):
    """Data and networks: optima over random patterns, local minima, both with their layers moved
    out of balance."""
    X, y, rng = gaussian(n, d, seed)
    beta = ratio * max(cr.zero_threshold(X, y), 1e-3)
    patterns, found = cr.enumerate_arrangements(X), []
    for k in range(12):
        some = rng.permutation(len(patterns))[: 1 + k % 4]
        found.append(cr.train(X, y, beta, arrangements=patterns[some], tol=1e-9).network)
    for k in range(10):
        start = rng.normal(size=(1 + k % 4, d)), rng.normal(size=1 + k % 4)
        found.append(cr.local_minimum(X, y, beta, start).network)
    moved = [cr.Network(unbalance * w.weights, w.output_weights / unbalance) for w in found]
    return X, y, beta, tuple(w for w in found + moved if w.n_neurons)


@descent.ours("sharpens the abstract by the class of networks and the multipliers", serves="c")
@cases(n=6, d=[3, 2], ratio=0.1)
@full(n=8, d=[3, 2], ratio=[0.3, 0.03])
@space(n=Int(2, 8), d=Int(1, 3), ratio=Real(0.02, 0.6, log=True), unbalance=Real(1.05, 3.0))
@breaks("multipliers of any size", bounded=False)
def directionally_stationary_iff_subsampled_with_small_multipliers(
    n, d, ratio, seed, unbalance=1.5, bounded=True
):
    r"""if no $u_j$, $a_j$ is zero and the ties of each neuron are linearly independent, $F$ has no
    negative one-sided derivative in any direction iff $|a_j|=\|u_j\|$ for all $j$ and $(p_j)$
    solves the convex program over the pairs (pattern, sign) of its own neurons, ties counted as
    active, with cone multipliers $0\le\mu_{jk}\le-s_jv_k$ at every tie. (Judged on optima of
    programs over random patterns, on local minima, and on both with $|a_j|\ne\|u_j\|$.)"""
    X, y, beta, found = networks(n, d, ratio, unbalance, seed)
    outcomes = {}
    for k, network in enumerate(found):
        fall = -cr.least_directional_derivative(X, y, beta, network) / beta
        ties = cr.tie_multipliers(X, y, beta, network)
        own = cr.certify_subsampled(X, y, beta, network, cells="own")
        lengths = np.linalg.norm(network.weights, axis=1)
        criterion = own.gap < 1e-10 and np.allclose(lengths, abs(network.output_weights), 1e-7)
        if bounded:
            criterion &= bool((ties.multipliers <= ties.limits + 1e-7 * beta).all())
        # Between the two a derivative is neither zero up to rounding nor clearly negative.
        outcomes[k] = None if 1e-6 < fall < 1e-3 else bool((fall <= 1e-6) == criterion)
    return compare(family(outcomes), "==", len(found))


@simulation
def ends(n, d, width, beta, n_starts, max_steps, polish, seed):
    """Networks where descent from random starts ends, polished to local minima or not."""
    X, y, rng = gaussian(n, d, seed)
    found = []
    for _ in range(n_starts):
        start = rng.normal(size=(width, d)), rng.normal(size=width)
        network = cr.gradient_descent(X, y, beta, start, max_steps=max_steps).network
        found.append(cr.local_minimum(X, y, beta, network).network if polish else network)
    return X, y, tuple(found)


@simulation
def least_nearby(X, y, beta, network, seed):
    """Least value of F, relative, at random networks around one, at distances up to 1e-3, or half
    way to where a neuron changes sides of a sample that it is not tied to: beyond that F is another
    function, which may be lower."""
    rng = np.random.default_rng(seed)
    u, a = network.weights, network.output_weights
    here, values = cr.network_objective(X, y, beta, network), [2.0]
    walls = np.abs(u @ X.T) / np.linalg.norm(X, axis=1)
    reach = min(1e-3, walls[walls > 1e-9].min(initial=1.0) / 2)
    for size in np.geomspace(1e-3 * reach, reach, 7) if len(a) else ():
        for _ in range(10):
            step = rng.normal(size=(len(a), u.shape[1] + 1))
            step *= size / np.linalg.norm(step)
            moved = u + step[:, :-1], a + step[:, -1]
            values.append(cr.network_objective(X, y, beta, moved) / here)
    return min(values)


@simulation
def retrained(n, d, beta, n_starts, seed):
    """Optima over random patterns, then over all closed cells of their own neurons until nothing
    changes; none of them found by descent."""
    X, y, rng = gaussian(n, d, seed)
    patterns, found = cr.enumerate_arrangements(X), []
    for k in range(n_starts):
        some = patterns[rng.permutation(len(patterns))[: 1 + k % 4]]
        for _ in range(8):
            network = cr.train(X, y, beta, arrangements=some, tol=1e-9).network
            if network.n_neurons == 0:
                break
            found.append(network)
            closed = cr.certify_subsampled(X, y, beta, network)
            if closed.gap < 1e-10:
                break
            some = np.unique(closed.patterns, axis=0)
    return tuple(found)


@descent.abstract("c", instance=True)
@cases(n=8, d=3, width=4, beta=0.3, n_starts=6)
@full(n=12, d=2, width=6, beta=0.3, n_starts=25, max_steps=20_000)
@full(n=8, d=3, width=4, beta=0.3, n_starts=40, max_steps=20_000)
@space(n=Int(2, 9), d=Int(1, 3), width=Int(1, 5), beta=Real(0.05, 1.0))
@breaks("descent stopped early", polish=False, max_steps=100)
@breaks("one cell a neuron in place of all that contain it", closed="own", n_starts=16)
def local_minima_are_subsampled_optima(
    n, d, width, beta, seed, n_starts=4, max_steps=3000, polish=True, closed="all"
):
    r"""at a local minimum the non-zero neurons are globally optimal for the convex program over the
    pairs (pattern, sign) of its own neurons, ties counted as active; without zero neurons a
    balanced network is a local minimum iff it is optimal for the program over all closed cells that
    contain its neurons. (Judged at the ends of descent from random starts; the last also at optima
    over random patterns, retrained over all closed cells that contain their neurons.)"""
    X, y, found = ends(n, d, width, beta, n_starts, max_steps, polish, seed)
    own, every = (
        within(
            [cr.certify_subsampled(X, y, beta, w, cells=c).gap for w in found], 1e-10, "rounding"
        )
        for c in ("own", "all")
    )
    nearby, decided = [least_nearby(X, y, beta, w, seed) for w in found], {}
    for k, w in enumerate(retrained(n, d, beta, n_starts, seed)):
        optimal = cr.certify_subsampled(X, y, beta, w, cells=closed).gap < 1e-10
        if optimal:
            decided[k] = least_nearby(X, y, beta, w, seed) >= 1 - 1e-12
        else:  # a negative derivative between 0 and the error of training decides nothing
            fall = -cr.least_directional_derivative(X, y, beta, w) / beta
            decided[k] = True if fall > 1e-6 else None
    return {
        "own cells": compare(own, "==", theory("gap", np.zeros(len(found)))),
        "all cells": compare(every, "==", theory("gap over all cells", np.zeros(len(found)))),
        "local minimum": compare(within(nearby, 1e-12, "rounding"), ">=", theory("value", 1.0)),
        "iff": compare(family(decided or {0: None}), "==", max(len(decided), 1)),
    }


@descent.ours("derived: the dual certificate of the network's own residual", serves="c")
@cases(n=8, d=3, width=[3, 1], beta=0.2, n_starts=8)
@full(n=12, d=2, width=4, beta=0.2, n_starts=30)
@full(n=8, d=3, width=[4, 1], beta=0.2, n_starts=30)
@space(n=Int(3, 9), d=Int(1, 3), width=Int(1, 5), beta=Real(0.05, 0.5))
@breaks("cells of its own neurons in place of the whole sphere", sphere=False)
@breaks("networks of the same width only", spare=False)
def zero_neuron_minima_are_global(n, d, width, beta, seed, n_starts=4, sphere=True, spare=True):
    r"""at a local minimum with penalty $P=\sum_j\|p_j\|$ let $h=\max_{\|u\|\le1}|v^\top(Xu)_+|$,
    attained at $\hat u$, $c=\min(1,\beta/h)$, and $F^\star$ the minimum over all widths:
    $\frac{(h-\beta)_+^2}{2\|(X\hat u)_+\|^2}\le F-F^\star\le(1-c)\beta P+\frac{(1-c)^2}2\|v\|^2$.
    So it is global iff $h\le\beta$, which holds if it has a zero neuron: grown to $p=r\hat u$ that
    one lowers $F$ by $r(h-\beta)-\frac{r^2}2\|(X\hat u)_+\|^2$."""
    X, y, found = ends(n, d, width, beta, n_starts, 1, True, seed)
    values = np.array([cr.network_objective(X, y, beta, w) for w in found])
    training = cr.train(X, y, beta, tol=1e-9)
    best = training.objective if spare else values.min()
    gain, bound, fall, grown = np.zeros((4, n_starts))
    for k, w in enumerate(found):
        v = y - w(X)
        norm = cr.dual_norm(X, v)
        atom = np.maximum(X @ norm.direction, 0)
        r = max(norm.attained - beta, beta / 9) / (atom @ atom)
        fall[k] = r * (norm.attained - beta) - r**2 / 2 * (atom @ atom)
        more = np.vstack([w.weights, np.sqrt(r) * norm.direction])
        signed = np.append(w.output_weights, np.sign(v @ atom) * np.sqrt(r))
        grown[k] = cr.network_objective(X, y, beta, (more, signed))
        h = norm.value if sphere else beta
        if h > beta * (1 + 1e-8):  # else equal up to rounding
            gain[k] = (norm.attained - beta) ** 2 / (2 * atom @ atom)
            bound[k] = (1 - beta / h) * beta * w.penalty + (1 - beta / h) ** 2 / 2 * (v @ v)
    measured = within(values / best - 1, 4e-9, "gap of the training")
    return {
        "above": compare(measured, "<=", theory("bound", bound / best)),
        "below": compare(measured, ">=", theory("gain", gain / best)),
        "fall": compare(
            within((values - grown) / best, 1e-13 * (values + grown) / best, "rounding"),
            "==",
            theory("fall", fall / best),
        ),
    }


@panel(
    zero_neuron_minima_are_global,
    r"A local minimum is global iff $\max_{\|u\|\leq1}|v^\top(Xu)_+|\leq\beta$",
    x="upper bound of the excess",
    y="excess over the global minimum",
    log="xy",
)
def _(pen, runs):
    run = runs.judgement.runs[-2]
    above, below = run.parts["above"], run.parts["below"]
    order = np.argsort(above.predicted)
    pen.theory(above.predicted[order], above.predicted[order], "upper bound")
    pen.points(above.predicted, above.centre, label="local minima", k=1)
    pen.points(above.predicted, below.predicted, label="lower bound", k=2)


# ---------------------------------------------------------------------------------- Clarke points
def single_neuron_cost(k, s, y, beta):
    """Value of the neuron (t, 1) with t = 2 k / (1 - k^2), of length (1 + k^2) / (1 - k^2)."""
    t, length = 2 * k / (1 - k**2), (1 + k**2) / (1 - k**2)
    outputs = max(t, Fraction(0)), max(1 - s * t, Fraction(0))
    return ((outputs[0] - y[0]) ** 2 + (outputs[1] - y[1]) ** 2) / 2 + beta * length


@single.ours(
    "counterexample to all stationary networks, read as Clarke's; hypotheses unseen", serves="c"
)
@cases(slope=[1 / 4, 3.0, 1.0], beta=3 / 10)
@full(slope=[1 / 8, 1 / 4, 1 / 2, 2.0, 3.0, 1.0], beta=3 / 10)
@space(slope=Real(0.05, 5.0), beta=Real(0.05, 5.0))
@breaks("no force at the tie", slope=0.0)
@note(contradicts="c")
def clarke_point_outside_every_program(slope, beta):
    r"""For $F=\frac12\|a(Xu)_+-y\|^2+\frac\beta2(\|u\|^2+a^2)$ with $x_1=(1,0)$, $x_2=(-s,1)$,
    $y=(2s\beta,1+\beta)$, $s,\beta>0$, the network $u=(0,1)$, $a=1$, tied to $x_1$, is Clarke
    stationary: with $v=y-(Xu)_+$, $\beta u-v_2x_2=\frac12v_1x_1$ and $\beta a=v^\top(Xu)_+$. But
    both closed cells that contain $u$ hold better single neurons, so it is optimal for no convex
    program with a pattern of its own."""
    s, b = (Fraction(x).limit_denominator(1000) for x in (slope, beta))
    y = (2 * s * b, 1 + b)
    here, v = single_neuron_cost(Fraction(0), s, y, b), (y[0], y[1] - 1)
    force = (s * v[1], b - v[1])
    half = theory("half", Fraction(1, 2))
    k = s * b / (2 * (1 + s**2) * (1 + b))
    sides = tuple(single_neuron_cost(side * k, s, y, b) for side in (1, -1))
    return {
        "better on both sides": compare(sides, "<", theory("value", here)),
        "stationary": compare(
            (*force, b), "==", (half * v[0], half * 0, theory("force on a", v[1]))
        ),
    }


@panel(
    clarke_point_outside_every_program,
    r"A Clarke point ($\beta=0.3$): its neuron gains on both sides of the tie",
    x="slope $s$",
    y="$F$",
    log="xy",
)
def _(pen, runs):
    pen.theory(*runs.predicted("slope", "better on both sides", 0), "at the Clarke point")
    for k, side in enumerate(("on the side of $x_1$", "on the other side")):
        pen.points(*runs.measured("slope", "better on both sides", k), side, k=k + 1)


if __name__ == "__main__":
    run_script(__file__)
