"""Pruning ReLU layers by convex programs: what it costs, and when it finds the truth."""

from functools import cache
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize

from theorylab import convex_relu as cr
from theorylab.verify import (
    Evidence,
    Int,
    Real,
    Runs,
    all_of,
    at_most,
    claim,
    exhaustive,
    sample_mean,
)
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS

TOL = 1e-5


@cache
def trained_on_digits(n_train=800, hidden=(32, 16), steps=300):
    """Layers fitted to one-hot labels of scikit-learn's digits by L-BFGS, the last one before its ReLU."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    X, labels = digits.data / 16, digits.target
    sizes = [X.shape[1], *hidden, 10]
    cuts = np.cumsum([a * b for a, b in pairwise(sizes)])[:-1]
    rng = np.random.default_rng(0)
    start = np.concatenate([rng.normal(size=a * b) * np.sqrt(2 / a) for a, b in pairwise(sizes)])
    inputs, targets = X[:n_train], np.eye(10)[labels[:n_train]]

    def layers(theta):
        return [
            part.reshape(a, -1) for part, a in zip(np.split(theta, cuts), sizes[:-1], strict=True)
        ]

    def loss(theta):
        weights = layers(theta)
        outputs = [inputs, *cr.layer_outputs(inputs, weights[:-1])]
        back = (outputs[-1] @ weights[-1] - targets) / n_train
        value, gradients = 0.5 * n_train * np.sum(back**2) + 1e-4 * theta @ theta, []
        for index in reversed(range(len(weights))):
            gradients.append((outputs[index].T @ back).ravel())
            back = (back @ weights[index].T) * (outputs[index] > 0)
        return value, np.concatenate(gradients[::-1]) + 2e-4 * theta

    theta = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": steps}).x
    return cr.normalize_layers(layers(theta)), inputs, (X[n_train:], labels[n_train:])


def accuracy(weights, test):
    inputs, labels = test
    return float(np.mean(cr.layer_outputs(inputs, weights)[-1].argmax(axis=1) == labels))


@claim(
    r"A ReLU network with layers of entrywise $\ell_1$ norm at most 1 is pruned in parallel: layer $l$ becomes the matrix of "
    r"least $\ell_1$ norm that gives its active outputs within $\epsilon_l$ (Frobenius) and keeps its inactive ones inactive, "
    r"on the trained layer's inputs. Then layer $l$ alone errs by at most $\epsilon_l$, and the output of the pruned network "
    r"by at most $\sum_l\epsilon_l\prod_{k>l}\|\hat W_k\|_2\le\sum_l\epsilon_l$.",
    sources=["aghasi2018-fast, theorem on parallel Net-Trim"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"relative": r} for r in (0.1, 0.3)],
        "full": [{"relative": r, "data": "digits"} for r in (0.02, 0.05, 0.1, 0.2, 0.3)]
        + [{"relative": r} for r in (0.05, 0.3)],
    },
    space={"relative": Real(0.05, 0.5)},
    breaks={r"$\ell_1$ norm 100": {"size": 100.0}},
)
def nettrim_error_propagation(relative, seed, data="random", size=1.0) -> Evidence:
    if data == "digits":
        weights, X, test = trained_on_digits()
    else:
        rng = np.random.default_rng(seed)
        X, shapes = rng.normal(size=(60, 12)), ((12, 14), (14, 10), (10, 8))
        weights, test = cr.normalize_layers([rng.normal(size=shape) for shape in shapes]), None
    weights = [size * W for W in weights]
    scale = np.array([np.linalg.norm(Y) for Y in cr.layer_outputs(X, weights)])
    # The same absolute error for every layer: that of the last one would otherwise dominate the sum.
    eps = np.minimum(relative * scale, relative * scale[0])
    pruned = cr.prune_network(X, weights, list(eps), tol=TOL)
    alone = np.array([layer.output_error for layer in pruned.layers])
    allowed = eps + TOL * scale
    return all_of(
        at_most(alone, allowed),
        at_most(pruned.errors[-1], cr.error_propagation_bound(pruned.weights, allowed)[-1]),
        at_most(pruned.errors[-1], allowed.sum()),
    ).with_data(
        relative=relative,
        data=data,
        errors=pruned.errors / scale,
        bounds=cr.error_propagation_bound(pruned.weights, allowed) / scale,
        sums=np.cumsum(allowed) / scale,
        density=np.mean(np.concatenate([W.ravel() != 0 for W in pruned.weights])),
        accuracy=accuracy(pruned.weights, test) if test else np.nan,
        before=accuracy(weights, test) if test else np.nan,
    )


@nettrim_error_propagation.panel
def _(ax, runs: Runs) -> None:
    at = [run.data for run in runs if run.data["data"] == "digits"] or [run.data for run in runs]
    r = [d["relative"] for d in at]
    for layer, colour in zip(range(3), COLOURS, strict=False):
        ax.loglog(r, [d["bounds"][layer] for d in at], color=colour)
        ax.loglog(
            r, [d["errors"][layer] for d in at], "o", color=colour, label=f"after layer {layer + 1}"
        )
    ax.loglog(r, [d["sums"][-1] for d in at], "--", color=COLOURS[2], label=r"$\sum_l\epsilon_l$")
    ax.legend(title="points: measured, lines: bounds")
    ax.set_xticks(r, [f"{v:g}" for v in r])
    ax.minorticks_off()
    ax.set(
        title="Errors of the layers stay below their bounds",
        xlabel="allowed relative error of a layer",
        ylabel="relative error",
    )


@nettrim_error_propagation.panel
def _(ax, runs: Runs) -> None:
    at = [run.data for run in runs if run.data["data"] == "digits"] or [run.data for run in runs]
    r = [d["relative"] for d in at]
    ax.semilogx(r, [d["accuracy"] for d in at], "o-", color=COLOURS[0])
    ax.semilogx(r, [d["density"] for d in at], "s-", color=COLOURS[1])
    ax.axhline(at[0]["before"], color=COLOURS[0], ls="--")
    ax.annotate(
        "test accuracy (dashed: unpruned)",
        (r[0], at[0]["before"]),
        xytext=(0, -16),
        textcoords="offset points",
        color=COLOURS[0],
    )
    ax.annotate(
        "weights kept",
        (r[0], at[0]["density"]),
        xytext=(0, -22),
        textcoords="offset points",
        color=COLOURS[1],
    )
    ax.set_xticks(r, [f"{v:g}" for v in r])
    ax.minorticks_off()
    ax.set(
        title="Digits: most weights can go",
        xlabel="allowed relative error of a layer",
        ylabel="fraction",
        ylim=(0, 1.02),
    )


def instance(rng, n_inputs, sparsity, n_samples, mean=0.0):
    w = np.zeros(n_inputs)
    w[rng.choice(n_inputs, sparsity, replace=False)] = rng.normal(size=sparsity)
    return rng.normal(size=(n_samples, n_inputs)) + mean, w


def same(u, w):
    return bool(np.abs(u - w).max() <= 1e-6 * np.abs(w).max())


@claim(
    r"Samples $x_p$ in general position, $w^\top x_p\ne0$, $\epsilon=0$: the pruning program recovers a neuron $w$ exactly if "
    r"and only if $\ell_1$ minimization subject to $x_p^\top u=w^\top x_p$ for the active samples ($w^\top x_p>0$) alone does.",
    sources=["aghasi2018-fast, recovery theorem"],
    origin="derived",
    kind="equivalence",
    cases={
        "quick": [{"n_inputs": 30, "sparsity": 3, "n_samples": 20, "trials": 40}],
        "full": [
            {"n_inputs": n, "sparsity": s, "n_samples": p}
            for n, s in ((40, 4), (80, 4))
            for p in (14, 20, 26, 32, 38, 46)
        ],
    },
    space={
        "n_inputs": Int(5, 20),
        "sparsity": Int(1, 4),
        "n_samples": Int(2, 24),
        "trials": Int(3, 3),
    },
    breaks={"inactive samples orthogonal to $w$": {"orthogonal": True}},
)
def nettrim_equals_basis_pursuit(
    n_inputs, sparsity, n_samples, seed, trials=60, orthogonal=False
) -> Evidence:
    rng = np.random.default_rng(seed)
    outcomes, recovered = [], []
    for trial in range(trials):
        X, w = instance(rng, n_inputs, sparsity, n_samples)
        on = X @ w > 0
        if orthogonal:
            X[~on] -= np.outer(X[~on] @ w, w) / (w @ w)
            # Rounding may leave either sign; the program reads off the inactive ones.
            X[~on] -= 1e-13 * w
        by_program = same(cr.recover_neuron(X, w), w)
        by_equations = same(cr.basis_pursuit(X[on], X[on] @ w), w) if on.any() else False
        outcomes.append((trial, by_program == by_equations))
        recovered.append(by_program)
    return exhaustive(outcomes, count=trials).with_data(
        n_inputs=n_inputs, sparsity=sparsity, n_samples=n_samples, recovered=recovered
    )


@cache
def pursuit_curve(n_inputs, sparsity, top, trials=30):
    """Fraction of Gaussian instances that basis pursuit recovers from m = 0, 1, ..., top measurements."""
    rng = np.random.default_rng(1)
    curve = np.zeros(top + 1)
    for m in range(sparsity, top + 1):
        cases = [instance(rng, n_inputs, sparsity, m) for _ in range(trials)]
        curve[m] = np.mean([same(cr.basis_pursuit(A, A @ w), w) for A, w in cases])
        if curve[m - 2 : m + 1].min() == 1:
            curve[m:] = 1
            break
    return curve


@nettrim_equals_basis_pursuit.panel
def _(ax, runs: Runs) -> None:
    for (n, s), colour in zip(
        sorted({(r.data["n_inputs"], r.data["sparsity"]) for r in runs}), COLOURS, strict=False
    ):
        at = [r.data for r in runs if r.data["n_inputs"] == n]
        top = max(d["n_samples"] for d in at) + 6
        curve = pursuit_curve(n, s, top)
        P = np.arange(8, top)
        ax.plot(P, [cr.mixed_recovery_probability(curve[: p + 1]) for p in P], color=colour)
        p = np.array([np.mean(d["recovered"]) for d in at])
        error = np.sqrt(p * (1 - p) / len(at[0]["recovered"]))
        ax.errorbar(
            [d["n_samples"] for d in at],
            p,
            2 * error,
            fmt="o",
            color=colour,
            label=f"N = {n}, s = {s}",
        )
        ax.axvline(2 * cr.statistical_dimension(n, s), color=colour, ls=":")
    ax.legend(loc="upper left")
    ax.set(
        title="Recovery: a binomial mixture, centred at twice $\\delta$",
        xlabel="samples $P$",
        ylabel="recovery probability",
    )


@claim(
    r"With $P$ independent centred Gaussian samples a neuron is recovered with probability $\sum_m\binom Pm2^{-P}p(m)$, "
    r"$p(m)$ the probability that basis pursuit recovers it from $m$ Gaussian measurements. For $N=3$ and one non-zero weight "
    r"$p=(0,\frac13,p_2,1,1,\dots)$ with $p_2=1-\frac4\pi\arctan\frac1{3+2\sqrt2}$.",
    sources=["aghasi2018-fast, recovery theorem"],
    origin="derived",
    kind="identity",
    cases={
        "quick": [{"n_samples": 8, "trials": 350}],
        "full": [{"n_samples": p, "trials": 800} for p in (6, 7, 8)],
    },
    breaks={"inputs of mean -1": {"mean": -1.0}},
)
def nettrim_recovery_law(n_samples, trials, seed, mean=0.0) -> Evidence:
    X = np.random.default_rng(seed).normal(size=(trials, n_samples, 3)) + mean
    w = np.array([1.0, 0.0, 0.0])
    found = [same(u, w) for u in cr.recover_neurons(X, np.tile(w, (trials, 1)))]
    curve = np.ones(n_samples + 1)
    curve[:3] = 0, 1 / 3, 1 - 4 / np.pi * np.arctan(1 / (3 + 2 * np.sqrt(2)))
    return sample_mean(np.array(found, float), cr.mixed_recovery_probability(curve))


@claim(
    r"Centred independent Gaussian inputs, $s$ non-zero weights of $N$, at the sizes judged: $P=4s\log(N/s)+\frac52s$ samples "
    r"recover the neuron with probability above one half and $\delta(N,s)$ samples with probability below, where $\delta$ is "
    r"the statistical dimension of the descent cone of the $\ell_1$ norm and $2\delta\le P$. The samples needed are of order "
    r"$s\log(N/s)$.",
    sources=["aghasi2018-fast, Abstract and theorem on the sample complexity"],
    origin="derived",
    kind="inequality",
    cases={
        "quick": [{"n_inputs": 30, "sparsity": 2, "trials": 25}],
        "full": [
            {"n_inputs": n, "sparsity": s, "curve": True}
            for n, s in ((40, 2), (160, 4), (80, 8), (40, 4))
        ],
    },
    breaks={"inputs of mean -1": {"mean": -1.0}},
)
def sample_complexity_slog(n_inputs, sparsity, seed, trials=40, mean=0.0, curve=False) -> Evidence:
    rng = np.random.default_rng(seed)

    def recovered(n_samples):
        cases = [instance(rng, n_inputs, sparsity, n_samples, mean) for _ in range(trials)]
        return np.array(
            [same(cr.recover_neuron(X, np.sign(w) ** 2), np.sign(w) ** 2) for X, w in cases], float
        )

    unit, delta = (
        sparsity * np.log(n_inputs / sparsity),
        cr.statistical_dimension(n_inputs, sparsity),
    )
    enough, few = int(np.ceil(4 * unit + 2.5 * sparsity)), int(delta)
    many, scarce = recovered(enough), recovered(few)
    ratios = (
        np.array([few, 2 * delta - 6, 2 * delta, 2 * delta + 6, enough]) / unit
        if curve
        else np.array([few, enough]) / unit
    )
    inner = [recovered(int(np.round(r * unit))).mean() for r in ratios[1:-1]]
    return all_of(
        sample_mean(many, 0.5, relation="lower"),
        sample_mean(scarce, 0.5, relation="upper"),
        at_most(2 * delta, enough),
    ).with_data(
        n_inputs=n_inputs,
        sparsity=sparsity,
        ratios=ratios,
        success=[scarce.mean(), *inner, many.mean()],
    )


@sample_complexity_slog.panel
def _(ax, runs: Runs) -> None:
    for run, colour in zip(runs, COLOURS, strict=False):
        data = run.data
        ax.plot(
            data["ratios"],
            data["success"],
            "o-",
            color=colour,
            lw=0.8,
            label=f"N = {data['n_inputs']}, s = {data['sparsity']}",
        )
    broken = runs.controls["inputs of mean -1"].data
    ax.plot(broken["ratios"], broken["success"], "x-", color=BROKEN, label="inputs of mean -1")
    ax.legend(loc="center right")
    ax.set(
        title=r"Order $s\log(N/s)$ samples suffice and are needed",
        xlabel=r"samples / $(s\log(N/s))$",
        ylabel="fraction recovered",
    )


if __name__ == "__main__":
    run_script(__file__)
