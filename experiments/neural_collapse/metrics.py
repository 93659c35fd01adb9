"""Real features: a network on handwritten digits ends where the free features do."""

from functools import cache

import numpy as np
from sklearn.datasets import load_digits

from theorylab import neural_collapse as nc
from theorylab.verify import Evidence, Runs, all_of, at_least, at_most, claim, equal, exact, gap
from theorylab.verify.cli import run_script
from theorylab.verify.plotting import BROKEN, COLOURS


def digits(n_classes, n_samples, seed):
    """Centred pixels in [-1, 1], a column a sample, ordered by class, and their labels."""
    images, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(labels < n_classes))[:n_samples]
    chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    pixels = images[chosen].T / 16
    return pixels - pixels.mean(axis=1, keepdims=True), labels[chosen]


@cache
def trained(n_classes, n_samples, hidden, level, loss, bias, tolerance, seed, penalised=True):
    """Train until the objective is within half the tolerance of the model's certified lower bound, or 4000 iterations."""
    X, labels = digits(n_classes, n_samples, seed)
    counts = np.bincount(labels)
    lam = float(np.sqrt(level * counts.min()) / n_samples)
    model = nc.ufm_minimizer(counts, n_classes, lam, lam, loss=loss, bias=bias)
    lower = nc.certify_ufm(
        model.features, model.classifier, counts, lam, lam, loss=loss, bias=model.bias
    ).lower
    options = {
        "loss": loss,
        "bias": bias,
        "iterations": 4000,
        "target": lower * (1 + tolerance / 2),
        "seed": seed,
    }
    return (
        labels,
        lam,
        model,
        lower,
        nc.train_features(X, labels, hidden, n_classes, lam, lam if penalised else 1e-9, **options),
    )


@claim(
    r"A ReLU network with one hidden layer of at least $N$ units maps $N$ images of handwritten digits to features "
    r"$h_i\in\mathbb R^K$, with a linear classifier and penalties "
    r"$\frac{\lambda_W}2\|W\|_F^2+\frac{\lambda_H}2\sum_i\|h_i\|^2$. Its objective never falls below the minimum of the "
    r"unconstrained-features model with the same class sizes and decays; trained past zero error it reaches that minimum, and "
    r"then its features collapse: $\sum_i\|h_i-\bar h_{y_i}\|^2\le2\varepsilon/\lambda_H$ at distance $\varepsilon$ from the "
    r"minimum, and its class-mean logits are those of the closed form.",
    sources=[
        "dang2023-neural, experiments with real features (statement derived, text not consulted)"
    ],
    origin="derived",
    kind="limit",
    cases={
        "quick": [{"loss": "ce"}, {"loss": "mse"}],
        "full": [
            {
                "loss": loss,
                "bias": bias,
                "n_classes": 10,
                "n_samples": 120,
                "hidden": 140,
                "tolerance": 1e-8,
            }
            for loss, bias in (("mse", True), ("ce", False), ("ce", True), ("mse", False))
        ],
    },
    breaks={"few hidden units": {"hidden": 2}, "features not penalised": {"penalised": False}},
)
def digits_features_reach_the_closed_form(
    loss,
    seed,
    bias=False,
    n_classes=4,
    n_samples=40,
    hidden=60,
    level=0.1,
    tolerance=1e-4,
    penalised=True,
) -> Evidence:
    labels, lam, model, lower, training = trained(
        n_classes, n_samples, hidden, level, loss, bias, tolerance, seed, penalised
    )
    H, W = training.features, training.classifier
    upper = nc.certify_ufm(H, W, model.counts, lam, lam, loss=loss, bias=training.bias).upper
    means = np.stack([H[:, labels == k].mean(axis=1) for k in range(n_classes)], axis=1)
    logits = W @ means + (
        0 if training.bias is None else (training.bias - training.bias.mean())[:, None]
    )
    parts = [
        at_least(training.objectives if penalised else upper, lower),
        gap(upper, lower, tol=tolerance),
        at_most(np.sum((H - means[:, labels]) ** 2), 2 * (upper - lower) / lam),
        exact(int(round(training.errors[-1] * n_samples)), "==", 0),
    ]
    if loss == "mse":
        # The squared loss is 1/N-strongly convex in the logits, of which class k has n_k columns.
        error = np.sqrt(2 * n_samples * tolerance * model.objective / model.counts.min())
        closed = model.class_logits - (0 if model.bias is None else model.bias.mean())
        parts.append(
            equal(
                logits,
                closed,
                error=error,
                scale=1.0,
                source="gap through strong convexity in the logits",
            )
        )
    return all_of(*parts).with_data(
        training=training, model=model, logits=logits, loss=loss, bias=bias
    )


def chosen(runs):
    """The runs without bias, one for each loss."""
    return [run.data for run in runs if not run.data["bias"]]


@digits_features_reach_the_closed_form.panel
def _(ax, runs: Runs) -> None:
    names = {"ce": "cross-entropy", "mse": "squared loss"}
    for data, colour in zip(chosen(runs), COLOURS, strict=False):
        steps = data["training"].iterations
        above = data["training"].objectives / data["model"].objective - 1
        ax.loglog(steps[1:], above[1:], "o-", color=colour, lw=0.8, label=names[data["loss"]])
        fitted = np.argmax(data["training"].errors == 0)
        ax.axvline(max(steps[fitted], 1), color=colour, ls=":")
    ax.legend(loc="lower left")
    ax.annotate(
        "zero training error",
        (max(steps[fitted], 1), 1e-4),
        rotation=90,
        ha="right",
        va="center",
        fontsize=8,
    )
    ax.set(
        title="Digits: the objective falls to that of free features",
        xlabel="iteration (log)",
        ylabel="relative excess (log)",
    )


@digits_features_reach_the_closed_form.panel
def _(ax, runs: Runs) -> None:
    for data, colour in zip(chosen(runs), COLOURS, strict=False):
        model = data["model"].class_logits
        ax.plot(
            model.ravel(),
            data["logits"].ravel(),
            "o" if data["loss"] == "ce" else "s",
            color=colour,
            mfc="none",
            label=data["loss"],
        )
        ends = [model.min(), model.max()]
        ax.plot(ends, ends, color=colour, lw=0.8)
    broken = runs.controls["few hidden units"].data
    ax.plot(
        broken["model"].class_logits.ravel(),
        broken["logits"].ravel(),
        "x",
        color=BROKEN,
        label="two hidden units",
    )
    ax.legend()
    ax.set(
        title="Class-mean logits are those of the closed form",
        xlabel="closed form",
        ylabel="network",
    )


@digits_features_reach_the_closed_form.panel
def _(ax, runs: Runs) -> None:
    labels = {
        "variability": "NC1: variability",
        "mean_etf_distance": "NC2: distance to ETF",
        "alignment_error": "NC3: misalignment",
    }
    data = next(d for d in chosen(runs) if d["loss"] == "ce")
    model = nc.collapse_metrics(
        data["model"].features, data["model"].labels, data["model"].classifier
    )
    for (name, label), colour in zip(labels.items(), COLOURS, strict=False):
        values = [getattr(m, name) for m in data["training"].metrics]
        ax.loglog(
            data["training"].iterations[1:], values[1:], "o-", lw=0.8, color=colour, label=label
        )
        if getattr(model, name) > 1e-12:
            ax.axhline(getattr(model, name), color=colour, ls="--")
    ax.legend()
    ax.set(
        title="Cross-entropy: collapse (dashed: closed form)",
        xlabel="iteration (log)",
        ylabel="distance from the ideal (log)",
    )


@digits_features_reach_the_closed_form.panel
def _(ax, runs: Runs) -> None:
    data = next(d for d in chosen(runs) if d["loss"] == "mse")
    for name, label, colour in (
        ("mean_orthogonality_error", "means, from an orthogonal frame", COLOURS[0]),
        ("mean_angle_error", "centred means, from a simplex ETF", COLOURS[1]),
    ):
        values = [getattr(m, name) for m in data["training"].metrics]
        ax.loglog(
            data["training"].iterations[1:], values[1:], "o-", lw=0.8, color=colour, label=label
        )
    ax.legend()
    ax.set(
        title="Squared loss, no bias: an orthogonal frame",
        xlabel="iteration (log)",
        ylabel="mean error of cosines (log)",
    )


if __name__ == "__main__":
    run_script(__file__)
