"""Draw the picture of the README from four claims, judged anew: ``make figures``."""

from __future__ import annotations

from pathlib import Path

from theorylab.verify.checkout import load
from theorylab.verify.kernel import judge_all
from theorylab.verify.panels import compose, save

ROOT = Path(__file__).parents[1]
SHOWN = {
    "optimization/adam": "adam-step-supremum",
    "random_features/temporal_difference": "lstd-true-msbe-double-descent",
    "neural_collapse/unconstrained_features": "mse-imbalanced-general-orthogonal-frame",
    "matrix_sensing/factored_descent": "symmetric-overparam-sharp-limit",
}


WORDS = "Lines: theory. Points: what was judged. Grey: a hypothesis broken."


def main() -> None:
    claims = []
    for name, slug in SHOWN.items():
        experiment = load(ROOT / "experiments" / f"{name}.py")
        claims.append(next(claim for claim in experiment.claims if claim.slug == slug))
    figure = compose(judge_all(claims, preset="full"), WORDS)
    assert figure is not None
    save(figure, ROOT / "docs" / "picture.png")


if __name__ == "__main__":
    main()
