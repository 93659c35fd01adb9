"""Real features: a network on handwritten digits ends where the free features do."""

import numpy as np
from sklearn.datasets import load_digits

from theorylab import neural_collapse as nc
from theorylab.verify import (
    Choice,
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

digits = paper(
    "dang2023-neural",
    r"$N$ images of handwritten digits, a ReLU layer with more than $N$ units, features "
    r"$h_i\in\mathbb R^K$, linear classifier $W$, penalties "
    r"$\frac{\lambda_W}2\|W\|_F^2+\frac{\lambda_H}2\sum_i\|h_i\|^2$:",
)


@simulation
def trained(n_classes, n_samples, hidden, level, loss, bias, tolerance, seed, penalty):
    """Counts, weight decay, certified lower bound of the unconstrained model, its class logits; the
    record of the objective, features and class logits of a network trained to the tolerance."""
    images, labels = load_digits(return_X_y=True)
    rng, chosen = np.random.default_rng(seed), np.zeros(0, int)
    while np.unique(labels[chosen]).size < n_classes:  # a class without a sample is none
        chosen = rng.permutation(np.flatnonzero(labels < n_classes))[:n_samples]
    chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    X, y = images[chosen].T / 16, labels[chosen]
    X = X - X.mean(axis=1, keepdims=True)
    counts = np.bincount(y)
    lam = float(np.sqrt(level * counts.min()) / n_samples)
    model = nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss=loss, bias=bias)
    best = nc.ufm_minimizer(model, dimension=n_classes)
    lower = nc.certify_ufm(model, best.features, best.classifier, bias=best.bias).lower
    options = {"iterations": 6000, "target": lower * (1 + tolerance / 2), "seed": seed}
    run = nc.train_features(
        X,
        y,
        hidden=hidden,
        dimension=n_classes,
        lam_w=lam,
        lam_h=lam * penalty,
        loss=loss,
        bias=bias,
        **options,
    )
    upper = nc.ufm_objective(model, run.features, run.classifier, bias=run.bias)
    offset = np.zeros(n_classes) if run.bias is None else run.bias
    logits = run.classifier @ run.features + offset[:, None]
    return counts, lam, lower, best.class_logits, upper, run.features, logits


@digits.ours("derived: real features against the unconstrained model", serves="d")
@cases(loss="mse", bias=True)
@cases(loss="ce", bias=False)
@full(
    n_classes=10, n_samples=100, hidden=120, tolerance=1e-7, loss=["mse", "ce"], bias=[True, False]
)
@space(
    loss=Choice(("mse", "ce")),
    bias=Choice((False, True)),
    n_classes=Int(2, 4),
    level=Real(0.05, 0.3),
)
@breaks("one hidden unit", hidden=1)
@breaks("features hardly penalised", penalty=1e-6)
def digits_features_reach_the_closed_form(
    loss,
    bias,
    seed,
    n_classes=3,
    n_samples=24,
    hidden=40,
    level=0.1,
    tolerance=1e-6,
    penalty=1.0,
):
    r"""the least objective is that of the unconstrained-features model with the same class sizes,
    and training reaches it; the features of a class then coincide, and their logits are those of
    the model."""
    run = trained(n_classes, n_samples, hidden, level, loss, bias, tolerance, seed, penalty)
    counts, lam, lower, stated, upper, H, logits = run
    excess = max(upper - lower, 0.0) + 1e-13 * upper
    labels, size = np.repeat(np.arange(n_classes), counts), np.linalg.norm(H)
    means, centre = (
        np.stack([v[:, labels == k].mean(axis=1) for k in range(n_classes)], 1) for v in (H, logits)
    )
    # The loss is curved by 1 (squared loss) or the least probability, over N, less a tenth on the
    # way.
    p = np.exp(logits - logits.max(axis=0))
    least = 1.0 if loss == "mse" else (p / p.sum(axis=0)).min() / 1.1
    error = np.sqrt(2 * n_samples * excess / least / counts.min())
    spread = np.linalg.norm(H - means[:, labels]) / size
    shifted = [v - v.mean(axis=0) for v in (centre, stated)]
    return {
        "logits": compare(
            within(shifted[0], error, "excess through strong convexity"),
            "==",
            theory("logits", shifted[1]),
        ),
        "minimum": compare(
            within(upper / lower - 1, tolerance, "stopping rule"), "==", theory("gap", 0.0)
        ),
        "collapse": compare(
            within(spread, np.sqrt(2 * excess / lam) / size, "averages cost less"),
            "==",
            theory("scatter", 0.0),
        ),
    }


@panel(
    digits_features_reach_the_closed_form,
    "Logits of a network on digits are those of free features",
    x="centred class logit of the unconstrained model",
    y="class logit of the network",
)
def _(pen, runs):
    pen.theory([-1, 4], [-1, 4])
    for k, run in enumerate(runs.judgement.runs):
        part = run.parts["logits"]
        names = (run.instance["loss"], "with a bias" if run.instance["bias"] else "no bias")
        pen.points(part.predicted, part.shown, part.error, ", ".join(names), k=k)
    part = runs.judgement.controls[0].run.parts["logits"]
    pen.broken(part.predicted, part.shown, label="one hidden unit")


if __name__ == "__main__":
    run_script(__file__)
