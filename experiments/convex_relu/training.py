"""Exact training: one value, three programs, and a certificate."""

import numpy as np
from scipy.optimize import minimize

from theorylab import convex_relu as cr
from theorylab.verify import Evidence, Grade, Int, Real, Runs, all_of, claim, equal, exact, gap
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import COLOURS

LOOSE = "the covering stops at a relative difference of 1e-10, or of what its rounding margins need"


def gaussian(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n)


def value_of(program, X, y, beta, patterns, network):
    """Optimal value of the convex program over the cones of the patterns, over a part of them, or without the cones."""
    if program == "no cones":
        return cr.train_gated(X, y, beta, patterns).objective
    if program == "one direction removed":
        u = network.weights[np.argmax(np.linalg.norm(network.weights, axis=1))]
        z = X @ u
        small = 1e-9 * np.linalg.norm(X, axis=1) * np.linalg.norm(u)
        patterns = patterns[np.any(((z > small) & ~patterns) | ((z < -small) & patterns), axis=1)]
    return cr.train(X, y, beta, arrangements=patterns).objective


@claim(
    r"Let $X\in\mathbb R^{n\times d}$ have rank $r$, $y\in\mathbb R^n$, $\beta>0$, and $D_1,\dots,D_P$ the distinct "
    r"$\mathrm{diag}(1[Xu\ge0])$ of full-dimensional cells. $\min\frac12\|\sum_{j\le m}(Xu_j)_+\alpha_j-y\|^2+"
    r"\frac\beta2\sum_j(\|u_j\|^2+\alpha_j^2)$ equals $\min\frac12\|\sum_iD_iX(v_i-w_i)-y\|^2+\beta\sum_i(\|v_i\|+\|w_i\|)$ over "
    r"$(2D_i-I)Xv_i\ge0$, $(2D_i-I)Xw_i\ge0$, as soon as $m\ge m^\star$, some $m^\star\le n+1$, and equals "
    r"$\max_z\frac12\|y\|^2-\frac12\|z-y\|^2$ over $\max_{\|u\|\le1}|z^\top(Xu)_+|\le\beta$, whose left side is "
    r"$\max_{i,\pm}\|\Pi_{K_i}(\pm X^\top D_iz)\|$, $K_i=\{u:(2D_i-I)Xu\ge0\}$. In general position "
    r"$P=2\sum_{k<r}\binom{n-1}k$.",
    sources=[
        "bai2022-efficient, Section 2, restating Theorem 1 of Pilanci and Ergen 2020 (text not consulted)"
    ],
    origin="derived",
    kind="equivalence",
    cases={
        "quick": [
            {"n": 8, "d": 2},
            {"n": 12, "d": 3},
            {"n": 10, "d": 3, "ratio": 0.02},
            {"n": 14, "d": 3},
        ],
        "full": [
            {"n": n, "d": d, "ratio": r}
            for n, d in ((20, 2), (50, 3), (20, 4))
            for r in (0.01, 0.05, 0.3)
        ],
    },
    space={"n": Int(3, 14), "d": Int(2, 3), "ratio": Real(0.01, 0.9)},
    breaks={
        "cells around one active direction removed": {"program": "one direction removed"},
        "cone constraints dropped": {"program": "no cones"},
    },
)
def pilanci_ergen_equivalence_with_certificate(
    n, d, seed, ratio=0.1, program="all cones"
) -> Evidence:
    X, y = gaussian(n, d, seed)
    beta = ratio * cr.zero_threshold(X, y)
    best = cr.train(X, y, beta)
    proof = best.certificate.verify()
    patterns = cr.enumerate_arrangements(X)
    over_cones = value_of(program, X, y, beta, patterns, best.network)
    norm = cr.dual_norm(X, best.certificate.dual).value
    projected = cr.dual_norm(X, best.certificate.dual, arrangements=patterns).value
    return all_of(
        # The network's value and the dual bound in ball arithmetic; the finite program against the same bound.
        gap(proof.objective, proof.dual_objective, tol=1e-8),
        gap(over_cones, proof.dual_objective, tol=1e-8),
        equal(norm, projected, error=1e-9 * projected, source=LOOSE, grade=Grade.CERTIFIED),
        exact(len(patterns), "==", cr.cover_count(n, min(n, d)), grade=Grade.ENUMERATED),
        exact(best.network.n_neurons, "<=", n + 1, grade=Grade.CERTIFIED),
    )


def local_search(X, y, beta, width, seed):
    """Objectives along one L-BFGS run on the non-convex problem."""
    d = X.shape[1]

    def objective(theta):
        u, a = theta[: width * d].reshape(width, d), theta[width * d :]
        z = X @ u.T
        hidden, residual = np.maximum(z, 0), np.maximum(z, 0) @ a - y
        slope = ((residual[:, None] * a) * (z > 0)).T @ X + beta * u
        return 0.5 * residual @ residual + beta / 2 * theta @ theta, np.append(
            slope, hidden.T @ residual + beta * a
        )

    start = np.random.default_rng(seed).normal(size=width * (d + 1)) / 2
    values = [objective(start)[0]]
    minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=lambda t: values.append(objective(t)[0]),
    )
    return np.array(values)


@pilanci_ergen_equivalence_with_certificate.panel
def _(ax, runs: Runs) -> None:
    X, y = gaussian(30, 3, 0)
    beta = 0.1 * cr.zero_threshold(X, y)
    best = cr.train(X, y, beta)
    runs_of = [local_search(X, y, beta, 8, seed) for seed in range(40)]
    for values in runs_of:
        ax.plot(np.arange(len(values)) + 1, values, color=COLOURS[1], alpha=0.3, lw=0.8)
    ax.axhline(best.dual_objective, color=COLOURS[0])
    ax.annotate(
        "certified lower bound",
        (1, best.dual_objective),
        xytext=(0, -12),
        textcoords="offset points",
        color=COLOURS[0],
    )
    ax.text(0.97, 0.7, "40 runs of L-BFGS", transform=ax.transAxes, ha="right", color=COLOURS[1])
    low, high = best.objective, max(values[-1] for values in runs_of)
    ax.set(
        xscale="log",
        xlabel="iteration",
        ylabel="objective",
        ylim=(low - 0.35 * (high - low), low + 3 * (high - low)),
        title="Local search ends at many values,\nnone below the certificate",
    )


@pilanci_ergen_equivalence_with_certificate.panel
def _(ax, runs: Runs) -> None:
    sizes = np.array([8, 16, 32, 64, 128])
    for d, colour in zip((2, 3, 4), COLOURS, strict=False):
        counts = [len(cr.enumerate_arrangements(gaussian(int(n), d, 0)[0])) for n in sizes]
        ax.plot(sizes, [cr.cover_count(int(n), d) for n in sizes], color=colour)
        ax.plot(sizes, counts, "o", color=colour)
        used = [
            cr.train(
                *gaussian(int(n), d, 0), 0.1 * cr.zero_threshold(*gaussian(int(n), d, 0))
            ).network.n_neurons
            for n in sizes
        ]
        ax.plot(sizes, used, "x--", color=colour, lw=0.8)
        ax.annotate(
            f"d = {d}",
            (sizes[-1], counts[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    ax.plot([], [], "k-o", label="cells: formula, enumeration")
    ax.plot([], [], "k--x", label="neurons of the optimum")
    ax.legend(loc="upper left")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="data points n",
        ylabel="count",
        title="The optimum uses a handful of the cells",
    )


if __name__ == "__main__":
    run_script(__file__)
