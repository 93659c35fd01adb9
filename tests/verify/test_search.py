import time

import numpy as np
import pytest
import sympy as sp

from theorylab.verify import (
    Choice,
    Int,
    Real,
    SearchStatus,
    compare,
    falsify,
    mean,
    note,
    paper,
    space,
    within,
)
from theorylab.verify.search import _Search


def at_most(lhs, rhs):
    return compare(within(lhs, 0.0, "rounding"), "<=", rhs)


def test_a_true_inequality_survives_and_its_tightest_instance_is_where_equality_holds():
    result = falsify(
        lambda x, y: (np.sqrt(x * y), (x + y) / 2),
        {"x": Real(0.1, 10), "y": Real(0.1, 10)},
        budget=2.0,
    )
    assert result.status is SearchStatus.NONE_FOUND
    assert result.instance["x"] == pytest.approx(result.instance["y"], rel=1e-3)


def test_a_narrow_counterexample_is_found_and_shrunk_inside_the_space():
    def false_near_three_quarters(x, n):
        return at_most(1.0, 1 + (x - 0.75) ** 2 - 1e-4 + 0.0 * n)

    result = falsify(false_near_three_quarters, {"x": Real(0, 1), "n": Int(2, 500)}, budget=20.0)
    assert result.found
    assert result.instance["x"] == pytest.approx(0.75, abs=1e-2)
    assert result.instance["x"] == round(result.instance["x"], 2)
    assert result.instance["n"] == 2
    assert result.part.holds is False


def test_above_eight_dimensions_a_counterexample_is_found():
    result = falsify(
        lambda w: (np.abs(w).sum(), 3.3 * np.linalg.norm(w)),
        {"w": Real(-1, 1, size=12)},
        budget=20.0,
    )
    assert result.found
    assert np.abs(result.instance["w"]).sum() > 3.3 * np.linalg.norm(result.instance["w"])


def test_the_search_varies_the_seed():
    seeds = set()

    def on_some_seeds(x, seed):
        seeds.add(seed)
        return at_most(float(seed % 7 == 3), 0.5)

    result = falsify(on_some_seeds, {"x": Real(0, 1)}, budget=20.0)
    assert result.found
    assert result.seed % 7 == 3
    assert len(seeds) > 2


def test_a_statistical_fluke_is_judged_again_on_fresh_seeds():
    def fluke(x, seed, n_draws=100):
        # One seed in a thousand is off; on the others the claim is true.
        offset = 1.0 if seed % 1000 == 0 else 0.0
        return compare(mean(np.random.default_rng(seed).normal(offset, 1.0, n_draws)), "==", 0.0)

    assert not falsify(fluke, {"x": Real(0, 1)}, budget=1.0).found


def test_a_real_statistical_violation_is_confirmed_with_more_draws():
    draws = set()

    def biased(x, seed, n_draws=100):
        draws.add(n_draws)
        return compare(mean(np.random.default_rng(seed).normal(2.0 * x, 1.0, n_draws)), "==", 0.0)

    assert falsify(biased, {"x": Real(0, 1)}, budget=10.0).found
    assert draws == {100, 400}


def test_inconclusive_everywhere_and_too_few_instances_are_said():
    result = falsify(lambda x: at_most(np.nan, 1.0), {"x": Real(0, 1)}, budget=0.2)
    assert result.status is SearchStatus.UNDECIDED
    assert result.instance is None
    assert result.inconclusive == result.evaluations

    def slow(x):
        time.sleep(0.1)
        return at_most(x, 2.0)

    result = falsify(slow, {"x": Real(0, 1)}, budget=0.3)
    assert result.status is SearchStatus.TOO_FEW


def test_a_choice_of_arrays_is_searched():
    result = falsify(
        lambda w: at_most(w.sum(), 2.5), {"w": Choice([np.zeros(2), np.ones(3)])}, budget=5.0
    )
    assert result.instance["w"].tolist() == [1.0, 1.0, 1.0]


def test_what_the_check_raises_is_raised():
    def check(x):
        if 0 < x < 1:
            raise ValueError("eigenvalues: expected positive numbers")
        return at_most(x, 2.0)

    with pytest.raises(ValueError, match="eigenvalues"):
        falsify(check, {"x": Real(0, 1)}, budget=5.0)


def test_a_search_is_the_same_for_the_same_seed():
    def check(x, y):
        return at_most(np.sin(5 * x) * np.cos(3 * y) + x, 1.9)

    first, again = (
        falsify(check, {"x": Real(0, 2), "y": Real(-2, 2)}, budget=20.0, seed=3) for _ in range(2)
    )
    assert first.found
    assert first.instance == again.instance
    assert first.evaluations == again.evaluations


def test_a_counted_search_asks_no_clock(monkeypatch):
    def clock():
        raise AssertionError

    monkeypatch.setattr(time, "monotonic", clock)
    tried = []

    def check(x):
        tried.append(x)
        return at_most(x, 0.9 if len(tried) > 30 else 2.0)

    assert falsify(check, {"x": Real(0, 1)}, instances=30, seed=1).evaluations == len(tried) == 30
    found = falsify(check, {"x": Real(0, 1)}, instances=30, seed=1)
    assert found.found
    assert found.evaluations == len(tried) - 30 <= 60  # as many again for shrinking


def test_a_claim_brings_its_own_space():
    @paper("any-key").ours("an example")
    @space(x=Real(0.0, 2.0), side=Choice(["a", "b"]))
    @note(no_break="an example")
    def claim(x, side):
        """x is at most 1."""
        return {"true": at_most(0.0, 1.0), "false": at_most(x, 1.0)}

    result = falsify(claim, budget=5.0)
    assert result.found
    assert result.instance == {"x": 2.0, "side": "a"}


def test_without_a_space_there_is_nothing_to_search():
    for nothing in ({}, None):
        with pytest.raises(ValueError, match="space"):
            falsify(lambda x: at_most(x, 1.0), nothing)


def test_a_space_of_the_seed_alone_has_an_instance_without_other_keywords():
    result = falsify(lambda seed: (seed, 2.0), {"seed": Int(0, 9)}, budget=0.5)
    assert result.found
    assert (result.instance, result.seed) == ({}, 3)


def test_an_error_of_the_check_that_names_its_cause_is_raised_itself():
    def check(x):
        raise RuntimeError("no convergence") from KeyError("x")

    with pytest.raises(RuntimeError, match="no convergence"):
        falsify(check, {"x": Real(0, 1)}, budget=0.5)


def test_symbolic_sides_are_read_as_numbers():
    result = falsify(lambda x: (sp.sqrt(2) * x, sp.sqrt(3)), {"x": Real(0, 1)}, budget=0.5)
    assert not result.found
    assert result.instance == {"x": 1.0}


def test_a_false_part_counts_beside_one_without_a_verdict():
    result = falsify(
        lambda x: {"false": at_most(2.0, 1.0), "open": at_most(np.nan, 1.0)},
        {"x": Real(0, 1)},
        budget=0.2,
    )
    assert result.found


def test_a_fluke_is_confirmed_only_if_every_fresh_seed_is_false():
    seeds = []

    def check(seed):
        seeds.append(seed)
        return at_most(1.0 if len(seeds) == 5 else 3.0, 2.0)

    search = _Search(check, {"seed": Int(0, 9)}, 1.0)
    assert not search._confirmed({"seed": 0})
    assert len(set(seeds)) == 5
    assert search._confirmed({"seed": 0})
