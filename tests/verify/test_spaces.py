import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theorylab.verify import Choice, Int, Real, strategy
from theorylab.verify.spaces import (
    as_space,
    contains,
    dimension,
    edges,
    instance_at,
    simpler,
    written,
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
    assert contains(SPACE, instance)


def test_dimension_counts_every_coordinate():
    assert dimension(SPACE) == 1 + 1 + 1 + 12 + 6 + 1


def test_integers_are_reached_evenly_and_both_ends_belong():
    rng = np.random.default_rng(0)
    values = [instance_at({"n": Int(3, 7)}, rng.random(1))["n"] for _ in range(5000)]
    counts = np.bincount(values, minlength=8)[3:]
    assert len(counts) == 5
    assert abs(counts - 1000).max() < 6 * np.sqrt(1000)
    assert instance_at({"n": Int(3, 7)}, [1.0])["n"] == 7


@pytest.mark.parametrize(
    "changed",
    [
        {"k": 1},
        {"r": 0},
        {"r": 1.5},
        {"scale": 2e3},
        {"weights": np.zeros(3)},
        {"loss": "other"},
        {"matrix": np.full((2, 3), 2.0)},
    ],
)
def test_contains_rejects_what_breaks_a_hypothesis(changed):
    instance = instance_at(SPACE, np.full(dimension(SPACE), 0.5))
    assert contains(SPACE, instance)
    assert not contains(SPACE, {**instance, **changed})


@given(st.integers(1, 10**6))
def test_simpler_instances_are_simpler_and_stay_inside(n):
    space = {"n": Int(1, 10**6), "m": Int("n", 10**6)}
    for found in simpler(space, {"n": n, "m": 10**6}):
        assert contains(space, found)
        assert (found["n"], found["m"]) < (n, 10**6)


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


def test_a_choice_of_arrays_is_compared_as_arrays():
    space = {"w": Choice([np.zeros(2), np.ones(3)])}
    assert contains(space, {"w": np.ones(3)})
    assert not contains(space, {"w": np.zeros((4, 2))})
    assert not contains(space, {"w": 0.0})
    assert [found["w"].size for found in simpler(space, {"w": np.ones(3)})] == [2]


def test_what_is_no_space_is_refused():
    for odd in ({"x": 3}, {"x": Real}, [Real(0, 1)]):
        for function in (strategy, as_space):
            with pytest.raises(ValueError, match="space"):
                function(odd)
    for size in (-3, 2.5, (2, -1)):
        with pytest.raises(ValueError, match="size"):
            Real(0, 1, size=size)
    assert instance_at({"w": Real(0, 1, size=0), "x": Real(0, 1)}, [0.5])["w"].shape == (0,)


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
