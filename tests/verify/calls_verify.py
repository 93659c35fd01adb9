"""One small valid call of every public function of the machinery, for the fuzz test."""

import numpy as np

from theorylab import corpus, verify

X = np.geomspace(1.0, 1e4, 40)
NOTES = verify.note(no_space="an example", no_break="an example")


def check(x=0.5):
    """x is at most 1."""
    return verify.compare(verify.within(x, 0.0, "rounding"), "<=", verify.theory("bound", 1.0))


CLAIM = verify.paper("any-key").ours("an example")(
    verify.space(x=verify.Real(0.0, 1.0))(verify.note(no_break="an example")(check))
)


def plane(x=0.5, y=0.5):
    """x y is at most 1."""
    return verify.compare(verify.within(x * y, 0.0, "rounding"), "<=", verify.theory("bound", 1.0))


PLANE = verify.paper("any-key").ours("an example")(
    verify.space(x=verify.Real(0.1, 1.0), y=verify.Real(0.1, 1.0))(
        verify.note(no_break="an example")(plane)
    )
)
MAP = verify.tightness_map(PLANE, "x", "y", size=2)

CALLS = {
    verify.within: lambda: {"value": np.ones(2), "error": np.full(2, 0.1), "source": "rounding"},
    verify.mean: lambda: {
        "samples": np.random.default_rng(0).random((50, 2)),
        "bias": 0.01,
        "source": "series",
        "support": None,
    },
    verify.slope: lambda: {"x": X, "y": 1 / X, "scale": "log", "floor": 1e-20},
    verify.switch: lambda: {"occurs": lambda x: x > 0.3, "bracket": (0.0, 1.0), "tol": 1e-3},
    verify.between: lambda: {"attained": 1.0, "bound": 1.0, "sense": "min", "certificate": None},
    verify.family: lambda: {"outcomes": {"a": True}},
    verify.compare: lambda: {
        "measured": verify.within(1.0, 0.1, "rounding"),
        "relation": "==",
        "predicted": 1.0,
        "rival": None,
    },
    verify.theory: lambda: {"name": "value", "value": 1.0},
    verify.judge: lambda: {"claim": CLAIM, "preset": "quick", "seed": 0, "keep_memory": False},
    verify.judge_all: lambda: {"claims": [CLAIM], "preset": "quick", "seed": 0},
    verify.draws: lambda: {"claim": CLAIM, "count": 4, "seed": 0},
    verify.falsify: lambda: {
        "check": CLAIM,
        "space": {"x": verify.Real(0.0, 1.0)},
        "budget": 0.02,
        "seed": 0,
    },
    verify.tightness_map: lambda: {"claim": PLANE, "x": "x", "y": "y", "size": 2, "seed": 0},
    verify.draw_map: lambda: {"found": MAP, "title": "an example"},
    verify.sweep: lambda: {"function": pow, "grid": {"base": [2], "exp": [1, 2]}, "seed": None},
    verify.strategy: lambda: {"space": {"x": verify.Real(0.0, 1.0)}},
    verify.applies: lambda: {
        "theorem": "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights",
        "Z": np.array([[0.6, 0.8], [0.6, -0.8]]),
        "step_size": 0.1,
        "steps": 50,
    },
    verify.checkable_theorems: lambda: {},
    corpus.papers: lambda: {},
    corpus.paper: lambda: {"key": corpus.papers()[0].key},
}

# A measurement may go wrong (there is then no verdict), and marks take what they are given.
ACCEPTS = {
    verify.within: {"value": {"nan", "inf"}, "error": {"nan", "inf"}, "source": {"text"}},
    verify.mean: {"samples": {"nan", "inf"}, "source": {"text"}, "support": {"none"}},
    verify.slope: {"y": {"nan", "inf"}},
    verify.between: {key: {"nan", "inf"} for key in ("attained", "bound")},
    verify.compare: {"predicted": {"nan", "inf"}},
    verify.theory: {"name": {"text"}, "value": {"nan", "inf"}},
    verify.falsify: {"space": {"none"}},
    verify.draw_map: {"title": {"text"}},
}
# Declarations are decorators, with tests of their own.
APART = (
    *(verify.also, verify.breaks, verify.cases, verify.full, verify.note, verify.panel),
    *(verify.rescues, verify.simulation, verify.space),
)
