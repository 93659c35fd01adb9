"""Maps of the room of a bound, on checks whose room is known."""

import numpy as np
import pytest
from typer.testing import CliRunner

from theorylab.verify import (
    Int,
    Real,
    cases,
    compare,
    draw_map,
    note,
    paper,
    space,
    theory,
    tightness_map,
    within,
)
from theorylab.verify.cli import app

example = paper("kingma2014-adam")


def claim(check):
    domains = {"x": Real(1.0, 4.0), "k": Int(1, 3), "z": Real(0.0, 1.0, size=2)}
    declared = note(no_break="an example")(space(**domains)(cases(x=1.0, k=1, z=(0, 0))(check)))
    return example.ours("an example", serves="a")(declared)


def bounded(x, k, z):
    """A bound that could be cut by x k."""
    if k == 3 and x > 3.5:
        raise ValueError("outside")
    return compare(within(1.0, 0.0, "exact"), "<=", theory("bound", x * k + 0 * sum(z)))


def equal(x, k, z):
    """An equality."""
    return compare(within(1.0, 0.0, "exact"), "==", theory("value", 1.0))


def test_the_map_is_the_room_of_the_bound():
    found = tightness_map(claim(bounded), "x", "k", size=7)
    assert found.factors.shape == (3, 7)
    expected = np.multiply.outer([1.0, 2.0, 3.0], np.linspace(1.0, 4.0, 7))
    expected[2, -1] = np.nan
    np.testing.assert_allclose(found.factors, expected)
    assert found.share(1.01) == pytest.approx(1 / 20)
    assert found.share(3.0) == pytest.approx(np.nanmean(expected <= 3.0) * 21 / 20)
    assert list(found.rest) == ["z"]


def test_a_violated_bound_lies_below_one():
    def violated(x, k, z):
        """A bound that fails."""
        return compare(within(x, 0.0, "exact"), "<=", theory("bound", 2.0))

    found = tightness_map(claim(violated), "x", "k", size=4)
    assert (found.factors[0] < 1).tolist() == [False, False, True, True]


def test_what_has_no_map_is_refused():
    for names in (("x", "x"), ("x", "z"), ("x", "w")):
        with pytest.raises(ValueError, match="expected one of the scalar parameters"):
            tightness_map(claim(bounded), *names)
    with pytest.raises(TypeError, match="inequality"):
        tightness_map(claim(equal), "x", "k")


def test_the_figure_names_both_parameters():
    ax, bar = draw_map(tightness_map(claim(bounded), "x", "k", size=3), "an example").axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "k")
    assert "10 %" in [t.get_text() for t in bar.get_yticklabels()]


def test_an_axis_of_one_value_is_drawn():
    declared = note(no_break="an example")(
        space(x=Real(1.0, 4.0), k=Int(2, 2))(cases(x=1.0, k=2)(lambda x, k: bounded(x, k, (0, 0))))
    )
    declared.__name__, declared.__doc__ = "bounded", "A bound."
    found = tightness_map(example.ours("an example", serves="a")(declared), "x", "k", size=3)
    np.testing.assert_allclose(found.factors, [[2.0, 5.0, 8.0]])
    assert draw_map(found, "an example").axes[0].get_ylabel() == "k"


def test_the_command_draws_a_committed_claim(tmp_path, monkeypatch):
    name = "random_features/curve_boundaries:distance-to-boundary-on-curve"
    refused = CliRunner().invoke(app, ["falsify", name, "--map", "N,no_such"])
    assert refused.exit_code == 2
    assert "scalar parameters" in refused.output
    refused = CliRunner().invoke(app, ["falsify", name, "--map", "N"])
    assert refused.exit_code == 2
    assert "two parameters with --map" in refused.output
