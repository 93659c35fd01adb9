import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theorylab.verify import Choice, Int, Real, strategy
from theorylab.verify.spaces import contains, dimension, draw, hypotheses, instance_at

SPACE = {
    "r": Int(1, 4),
    "k": Int(lambda p: p["r"] + 1, 12),
    "scale": Real(1e-6, 1e3, log=True),
    "weights": Real(
        lambda p: -p["scale"], lambda p: p["scale"], size=lambda p: p["k"], capacity=12
    ),
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
    values = [draw({"n": Int(3, 7)}, rng)["n"] for _ in range(5000)]
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


@given(st.integers(0, 10**6))
def test_simpler_values_are_simpler_in_their_own_sense(n):
    for value in Int(0, 10**6).simpler(n, {}):
        assert 0 <= value < n


def test_impossible_domains_are_refused():
    with pytest.raises(ValueError, match="high"):
        instance_at({"n": Int(5, 3)}, [0.5])
    with pytest.raises(ValueError, match="low"):
        instance_at({"x": Real(0.0, 1.0, log=True)}, [0.5])
    with pytest.raises(ValueError, match="capacity"):
        Real(0, 1, size=lambda p: 3)
    with pytest.raises(ValueError, match="u"):
        instance_at({"n": Int(1, 3)}, [1.5])
    with pytest.raises(ValueError, match="options"):
        Choice([])


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
    options = Choice([np.zeros(2), np.ones(3)])
    assert contains({"w": options}, {"w": np.ones(3)})
    assert not contains({"w": options}, {"w": np.zeros((4, 2))})
    assert not contains({"w": options}, {"w": 0.0})
    assert [w.size for w in options.simpler(np.ones(3), {})] == [2]


def test_what_is_no_space_is_refused():
    for odd in ({"x": 3}, {"x": Real}, [Real(0, 1)]):
        for function in (strategy, hypotheses):
            with pytest.raises(ValueError, match="space"):
                function(odd)
    for size in (-3, 2.5, [2, 3], (2, -1)):
        with pytest.raises(ValueError, match="size"):
            Real(0, 1, size=size)
    assert instance_at({"w": Real(0, 1, size=0), "x": Real(0, 1)}, [0.5])["w"].shape == (0,)


def test_bounds_that_no_symbol_can_stand_for_are_said_to_depend():
    space = {
        "w": Real(0, 1, size=3),
        "s": Choice(["a"]),
        "k": Int(1, lambda p: p["w"].size),
        "x": Real(0, lambda p: {"a": 1}[p["s"]]),
    }
    assert hypotheses(space)["k"].endswith("depends on the names before")
    assert hypotheses(space)["x"].endswith("depends on the names before")


def test_hypotheses_are_written_out():
    space = {
        "r": Int(1, 3),
        "k": Int(lambda p: p["r"] + 1, 12),
        "x": Real(0.5, lambda p: 2 * p["k"], size=lambda p: p["k"], capacity=12),
        "y": Real(0.0, lambda p: max(p["r"], 2)),
        "side": Choice(["left", "right"]),
    }
    assert hypotheses(space) == {
        "r": "an integer from 1 to 3",
        "k": "an integer from r + 1 to 12",
        "x": "reals of shape (k) from 0.5 to 2*k",
        "y": "a real number from 0.0 to a bound that depends on the names before",
        "side": "one of left, right",
    }
