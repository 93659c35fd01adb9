"""One small valid call of every public function of the machinery, for the fuzz test."""

from fractions import Fraction

import numpy as np

from theorylab import corpus, verify

X = np.geomspace(1.0, 1e4, 40)
CLAIM = verify.claim(
    "x <= 1",
    sources=["none-key, Theorem 1"],
    origin="derived",
    kind="inequality",
    cases=[{"x": 0.5}],
    space={"x": verify.Real(0.0, 1.0)},
    no_break="an example",
)(lambda x: verify.at_most(x, 1.0))

CALLS = {
    verify.equal: lambda: {
        "measured": np.ones(2),
        "predicted": np.ones(2),
        "error": np.full(2, 0.1),
        "source": "rounding",
    },
    verify.at_most: lambda: {"measured": np.zeros(2), "bound": np.ones(2), "rounding": 1e-12},
    verify.at_least: lambda: {"measured": np.ones(2), "bound": np.zeros(2), "rounding": 1e-12},
    verify.limit: lambda: {
        "measured": 1 + 1 / X,
        "predicted": 1.0,
        "remainder": 2 / X,
        "source": "series",
    },
    verify.rate: lambda: {
        "x": X,
        "y": 1 / X,
        "exponent": -1.0,
        "rival": -2.0,
        "scale": "log",
        "floor": 1e-20,
    },
    verify.threshold: lambda: {
        "occurs": lambda x: x > 0.3,
        "predicted": 0.3,
        "bracket": (0.0, 1.0),
        "tol": 1e-3,
    },
    verify.gap: lambda: {"primal": 1.0, "dual": 1.0, "tol": 1e-8, "rounding": 1e-12},
    verify.exact: lambda: {"measured": Fraction(1, 2), "relation": "<=", "predicted": Fraction(1)},
    verify.exhaustive: lambda: {"outcomes": {"a": True}, "count": 1},
    verify.sample_mean: lambda: {
        "samples": np.random.default_rng(0).random((50, 2)),
        "predicted": np.full(2, 0.5),
        "bias": 0.01,
        "source": "series",
        "relation": "tight",
    },
    verify.inconclusive: lambda: {"why": "an example"},
    verify.claim: lambda: {
        "statement": "x",
        "sources": ["none-key, Theorem 1"],
        "origin": "derived",
        "kind": "inequality",
        "cases": [{}],
        "no_break": "an example",
    },
    verify.judge: lambda: {"claim": CLAIM, "preset": "quick", "seed": 0},
    verify.judge_all: lambda: {"claims": [CLAIM], "preset": "quick", "seed": 0},
    verify.falsify: lambda: {
        "check": CLAIM,
        "space": {"x": verify.Real(0.0, 1.0)},
        "budget": 0.02,
        "seed": 0,
    },
    verify.strategy: lambda: {"space": {"x": verify.Real(0.0, 1.0)}},
    corpus.papers: lambda: {},
    corpus.paper: lambda: {"key": corpus.papers()[0].key},
}

# A measurement may go wrong (the evidence is then inconclusive); a prediction may not.
ACCEPTS = {
    verify.equal: {"measured": {"nan", "inf"}, "source": {"text"}},
    verify.at_most: {"measured": {"nan", "inf"}},
    verify.at_least: {"measured": {"nan", "inf"}},
    verify.limit: {"measured": {"nan", "inf"}, "source": {"text"}},
    verify.rate: {"y": {"nan", "inf"}},
    verify.gap: {"primal": {"nan", "inf"}},
    verify.exhaustive: {"count": {"none"}},
    verify.sample_mean: {"samples": {"nan", "inf"}, "source": {"text"}},
    verify.inconclusive: {"why": {"text"}}
    | {key: {"nan", "inf"} for key in ("measured", "predicted", "resolution")},
    verify.claim: {
        key: {"text"}
        for key in ("statement", "kind", "no_break", "corrected_by", "undecided", "coarse")
    },
    verify.falsify: {"space": {"none"}},
}
