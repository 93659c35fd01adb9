import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theorylab.verify import Choice, Int, Real, strategy
from theorylab.verify.records import written
from theorylab.verify.spaces import (
    as_space,
    dimension,
    edges,
    instance_at,
    simpler,
)

SPACE = {
    "r": Int(1, 4),
    "k": Int("r + 1", 12),
    "scale": Real(1e-6, 1e3, log=True),
    "weights": Real("-scale", "scale", size="k", capacity=12),
    "matrix": Real(0, 1, size=(2, 3)),
    "loss": Choice(["squared", "hinge"]),
}


@given(strategy(SPACE))
def test_every_point_of_the_cube_satisfies_the_dependent_hypotheses(instance):
    assert instance["k"] > instance["r"]
    assert instance["weights"].shape == (instance["k"],)
    assert (np.abs(instance["weights"]) <= instance["scale"]).all()
    assert instance["matrix"].shape == (2, 3)
    assert (instance["matrix"] >= 0).all()
    assert (instance["matrix"] <= 1).all()
    assert 1 <= instance["r"] <= 4
    assert instance["k"] <= 12
    assert 1e-6 <= instance["scale"] <= 1e3
    assert instance["loss"] in ("squared", "hinge")


def test_dimension_counts_every_coordinate():
    assert dimension(SPACE) == 1 + 1 + 1 + 12 + 6 + 1


def test_integers_are_reached_evenly_and_both_ends_belong():
    rng = np.random.default_rng(0)
    values = [instance_at({"n": Int(3, 7)}, rng.random(1))["n"] for _ in range(5000)]
    counts = np.bincount(values, minlength=8)[3:]
    assert len(counts) == 5
    assert abs(counts - 1000).max() < 6 * np.sqrt(1000)
    assert instance_at({"n": Int(3, 7)}, [1.0])["n"] == 7


@given(st.integers(0, 99), st.integers(0, 2))
def test_simpler_points_are_simpler_and_end_at_the_least_value_that_still_refutes(n, side):
    space = {
        "n": Int(0, 99),
        "side": Choice(["a", "b", "c"]),
        "x": Real(0, 1),
        "w": Real(-1, 1, size=2),
    }
    u = np.array([(n + 0.5) / 100, (side + 0.5) / 3, 0.4321987, 0.9, 0.1])
    start = instance_at(space, u)
    for candidate in simpler(space, u):
        assert ((candidate >= 0) & (candidate <= 1)).all()
        found = instance_at(space, candidate)
        assert (found["n"], found["side"]) <= (start["n"], start["side"])
    # A greedy descent ends at the least integer that still refutes, and at zero elsewhere.
    least = n // 2
    while (
        smaller := next((c for c in simpler(space, u) if instance_at(space, c)["n"] >= least), None)
    ) is not None:
        u = smaller
    end = instance_at(space, u)
    assert (end["n"], end["side"], end["x"]) == (least, "a", 0.0)


def test_impossible_domains_are_refused():
    with pytest.raises(ValueError, match="high"):
        instance_at({"n": Int(5, 3)}, [0.5])
    with pytest.raises(ValueError, match="low"):
        instance_at({"x": Real(0.0, 1.0, log=True)}, [0.5])
    with pytest.raises(ValueError, match="capacity"):
        Real(0, 1, size="k")
    with pytest.raises(ValueError, match="u"):
        instance_at({"n": Int(1, 3)}, [1.5])
    with pytest.raises(ValueError, match="options"):
        Choice([])
    with pytest.raises(ValueError, match="names before"):
        instance_at({"n": Int("m + 1", 3)}, [0.5])


@pytest.mark.parametrize(
    "domain",
    [
        Real(-0.1, 0.3),
        Real(1e-6, 1e3, log=True),
        Real(1e-200, 1e200, log=True),
        Real(-1e308, 1e308),
    ],
)
def test_the_ends_of_the_cube_are_the_ends_of_the_interval(domain):
    ends = [instance_at({"x": domain}, [u])["x"] for u in (0.0, 1.0)]
    assert ends == [domain.low, domain.high]
    assert domain.low < instance_at({"x": domain}, [0.5])["x"] < domain.high


def test_what_is_no_space_is_refused():
    for odd in ({"x": 3}, {"x": Real}, [Real(0, 1)]):
        for function in (strategy, as_space):
            with pytest.raises(ValueError, match="space"):
                function(odd)
    for size in (-3, 2.5, (2, -1)):
        with pytest.raises(ValueError, match="size"):
            Real(0, 1, size=size)
    assert instance_at({"w": Real(0, 1, size=0), "x": Real(0, 1)}, [0.5])["w"].shape == (0,)


def test_integers_beyond_64_bits_have_simpler_ones():
    space = {"n": Int(0, 2**80)}
    smaller = [instance_at(space, u)["n"] for u in simpler(space, np.array([0.7]))]
    assert smaller[0] == 0
    assert smaller == sorted(smaller)
    assert 2**78 < smaller[-1] < 0.7 * 2**80


def test_edges_hold_both_ends_of_every_domain():
    found = edges({"n": Int(1, 9), "x": Real(0, 1)}, 12, 0)
    assert len(found) == 12
    assert found[:2] == [{"n": 1, "x": 0.0}, {"n": 9, "x": 1.0}]
    assert edges({"n": Int(1, 9), "x": Real(0, 1)}, 12, 0) == found


def test_hypotheses_are_read_as_they_are_written():
    words = [written(name, domain) for name, domain in SPACE.items()]
    assert words == [
        "r in {1, ..., 4}",
        "k in {r + 1, ..., 12}",
        "scale in [1e-06, 1000.0]",
        "weights in [-scale, scale]^k",
        "matrix in [0, 1]^(2, 3)",
        "loss in {squared, hinge}",
    ]
