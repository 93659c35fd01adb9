"""Exact training: one value, three programs, and a certificate."""

import numpy as np

from theorylab import convex_relu as cr
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
)
from theorylab.verify.cli import run_script

relu = paper(
    "bai2022-efficient",
    r"Let $X\in\mathbb R^{n\times d}$ have rank $r$ with rows in general position in its row "
    r"space, $y\in\mathbb R^n$, $\beta>0$, and $D_1,\dots,D_P$ the distinct "
    r"$\mathrm{diag}(1[Xu\ge0])$ of "
    r"full-dimensional cells, $K_i=\{u:(2D_i-I)Xu\ge0\}$:",
)


def all_cones(X, y, beta, patterns, network):
    return cr.train(X, y, beta, arrangements=patterns)


def no_cones(X, y, beta, patterns, network):
    return cr.train_gated(X, y, beta, patterns)


def cells_removed(X, y, beta, patterns, network):
    """The program without the patterns whose closed cone contains a neuron of the optimum."""
    z = network.weights @ X.T
    small = 1e-6 * np.outer(np.linalg.norm(network.weights, axis=1), np.linalg.norm(X, axis=1))
    away = ((z > small)[:, None] & ~patterns) | ((z < -small)[:, None] & patterns)
    return cr.train(X, y, beta, arrangements=patterns[away.any(axis=2).all(axis=0)])


@simulation
def three_programs(n, d, rank, ratio, program, seed):
    """The trained network, the value of the finite program, both dual norms, the cells."""
    rng = np.random.default_rng(seed)
    if rank < min(n, d):  # exactly of that rank, no two rows parallel: large integers
        rows, basis = (
            rng.choice([-1, 1], size=shape) * rng.integers(1, top, size=shape)
            for shape, top in (((n, rank), 10**6), ((rank, d), 100))
        )
        X = rows @ basis / 2.0**20
    else:
        X = rng.normal(size=(n, d))
    y = rng.normal(size=n)
    beta = ratio * cr.zero_threshold(X, y)
    best, patterns = cr.train(X, y, beta), cr.enumerate_arrangements(X)
    finite = program(X, y, beta, patterns, best.network)
    z = best.certificate.dual
    norm, over_cones = cr.dual_norm(X, z, tol=1e-6), cr.dual_norm(X, z, arrangements=patterns).value
    # The finite value is known up to its own gap, by which the other is enclosed more widely.
    slack = finite.objective - finite.dual_objective
    values = best.objective + slack, best.dual_objective - slack
    return best, values, finite.objective, (norm.attained, norm.value), over_cones, len(patterns)


@relu.abstract("a", "b", instance=True)
@cases(n=1, d=2, ratio=0.3)
@cases(n=8, d=2, ratio=[0.02, 0.3])
@cases(n=12, d=3, rank=[2, 3])
@full(n=[1, 2], d=2)
@full(n=[4, 8, 16, 32], d=[2, 3])
@full(n=[4, 8, 16], d=4)
@full(n=12, d=3, rank=[1, 2])
@full(n=12, d=3, ratio=[0.01, 0.03, 0.3, 0.6, 0.9, 0.1])
@space(n=Int(1, 14), d=Int(1, 3), rank=Int(1, "min(n, d)"), ratio=Real(0.01, 0.99))
@breaks("cells around the neurons removed", program=cells_removed)
@breaks("cones dropped", program=no_cones)
@note(credit="Pilanci and Ergen 2020, Theorem 1 (recalled); the count is Cover's, 1965")
def pilanci_ergen_equivalence_with_certificate(n, d, seed, rank=None, ratio=0.1, program=all_cones):
    r"""$\min\frac12\|\sum_{j\le m}(Xu_j)_+\alpha_j-y\|^2+\frac\beta2\sum_j(\|u_j\|^2+\alpha_j^2)$
    is, as soon as $m\ge m^\star$ for some $m^\star\le n$,
    $\min\frac12\|\sum_iD_iX(v_i-w_i)-y\|^2+\beta\sum_i(\|v_i\|+\|w_i\|)$ over $v_i,w_i\in K_i$, and
    $\max_z\frac12\|y\|^2-\frac12\|z-y\|^2$ over $\max_{\|u\|\le1}|z^\top(Xu)_+|\le\beta$, whose
    left side is $\max_{i,\pm}\|\Pi_{K_i}(\pm X^\top D_iz)\|$; and $P=2\sum_{k<r}\binom{n-1}k$
    (exponential in $r$; $\beta=ratio\cdot\beta_{max}$)."""
    rank = min(n, d) if rank is None else rank
    best, values, finite, norms, over_cones, cells = three_programs(
        n, d, rank, ratio, program, seed
    )
    return {
        "value": compare(
            between(*values, certificate=best.certificate),
            "==",
            theory("finite program", finite),
        ),
        "dual norm": compare(between(*norms, "max"), "==", theory("over the cones", over_cones)),
        "cells": compare(cells, "==", theory("count", cr.cover_count(n, rank))),
        "width": compare(best.network.n_neurons, "<=", theory("width", n)),
    }


@panel(
    pilanci_ergen_equivalence_with_certificate,
    "Networks and the finite convex program have one value",
    x=r"$\beta/\beta_{max}$",
    y="optimal value, $n=12$, $d=3$",
    log="x",
)
def _(pen, runs):
    where = {"n": 12, "d": 3, "rank": None}
    pen.theory(*runs.predicted("ratio", "value", where=where), "finite program")
    pen.points(*runs.measured("ratio", "value", where=where), "trained network")
    for k, name in enumerate(("cells around the neurons removed", "cones dropped")):
        control = next(c for c in runs.judgement.controls if c.name == name)
        value = control.run.parts["value"].predicted
        pen.broken([0.1], [value], label=name if k else "cells removed")


@panel(
    pilanci_ergen_equivalence_with_certificate,
    "The optimum uses a handful of the cells",
    x="data points $n$",
    y="count",
    log="xy",
)
def _(pen, runs):
    n = np.arange(1, 33)
    for k, d in enumerate((2, 3, 4)):
        where = {"d": d, "ratio": None, "rank": None}
        pen.theory(n, [cr.cover_count(int(m), min(int(m), d)) for m in n], rf"cells, $d={d}$", k=k)
        pen.points(*runs.measured("n", "cells", where=where), k=k)
        pen.points(*runs.measured("n", "width", where=where), label=rf"neurons, $d={d}$", k=k)


if __name__ == "__main__":
    run_script(__file__)
