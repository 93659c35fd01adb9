import math

import numpy as np
import pytest

from theorylab.verify import (
    Evidence,
    Grade,
    Relation,
    Verdict,
    at_most,
    claim,
    equal,
    exact,
    inconclusive,
    judge,
    judge_all,
    sample_mean,
)

DECLARED = {"sources": ["none-key, Theorem 1"], "origin": "derived", "kind": "equality"}


def mean_square(power=2.0, factor=1.0, error=1e-3):
    """The integral of x^2 over [0, 1] is 1/3."""
    x = (np.arange(1000) + 0.5) / 1000
    return equal(np.mean(x**power), factor / 3, error=error, source="midpoint rule")


def declare(check, **changes):
    fields = {"cases": [{}], "breaks": {"cube": {"power": 3.0}}} | DECLARED | changes
    return claim("statement", **fields)(check)


def test_a_true_claim_with_a_failing_control_is_verified():
    judgement = judge(declare(mean_square, shifts={"factor": {"factor": 1.01}}))
    assert judgement.verdict is Verdict.VERIFIED
    assert [c.decides for c in judgement.controls] == [True, True]
    assert judgement.resolution < 0.1


def test_a_wrong_claim_is_reported_wrong():
    judgement = judge(declare(mean_square, cases=[{"factor": 1.1}]))
    assert judgement.verdict is Verdict.FAILED
    assert "case 1 is false" in judgement.problems[0]


def test_one_wrong_case_among_many_is_enough():
    assert judge(declare(mean_square, cases=[{}, {"factor": 1.1}, {}])).verdict is Verdict.FAILED


def test_a_loose_check_fails_by_its_resolution():
    judgement = judge(
        declare(mean_square, cases=[{"error": 0.08}], breaks={"tenth power": {"power": 10.0}})
    )
    assert judgement.verdict is Verdict.FAILED
    assert "too loose" in judgement.problems[0]
    excused = declare(
        mean_square,
        cases=[{"error": 0.08}],
        breaks={"tenth power": {"power": 10.0}},
        coarse="shown as an example",
    )
    assert judge(excused).verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ({}, "holds"),
        ({"power": math.nan}, "decides nothing"),
        ({"power": "x"}, "raised"),
        ({"no_such_keyword": 1}, "raised"),
    ],
)
def test_a_control_that_does_not_fail_decisively_is_broken(control, words):
    judgement = judge(declare(mean_square, breaks={"control": control}))
    assert judgement.verdict is Verdict.FAILED
    assert any("control" in p and words in p for p in judgement.problems)


@pytest.mark.parametrize(
    ("holds", "margin"),
    [
        (False, math.nan),
        (False, -math.inf),
        (False, 0.5),
        (True, -0.1),
        (None, -0.5),
        (True, math.nan),
    ],
)
def test_evidence_whose_margin_does_not_support_it_decides_nothing(holds, margin):
    def odd(odd=False):
        fields = {
            "resolution": 0.01,
            "measured": 0.0,
            "predicted": 0.0,
            "relation": Relation.TIGHT,
            "grade": Grade.NUMERICAL,
        }
        return Evidence(holds=holds, margin=margin, **fields) if odd else mean_square()

    assert not odd(odd=True).decides
    assert judge(declare(odd, breaks={"odd": {"odd": True}})).verdict is Verdict.FAILED
    assert (
        judge(declare(odd, cases=[{"odd": True}], breaks={}, no_break="none")).verdict
        is Verdict.FAILED
    )


def test_a_control_may_depend_on_the_case_and_is_judged_on_the_last():
    seen = []

    def check(n, power=2.0):
        seen.append((n, power))
        return mean_square(power)

    judge(
        declare(
            check,
            cases=[{"n": 1}, {"n": 2}],
            breaks={"power": lambda case: {"power": case["n"] + 1.0}},
        )
    )
    assert seen == [(1, 2.0), (2, 2.0), (2, 3.0)]


def test_a_control_that_returns_no_changes_is_broken():
    for nothing in (lambda case: None, lambda case: {}):
        judgement = judge(declare(mean_square, breaks={"nothing": nothing}))
        assert judgement.verdict is Verdict.FAILED
        assert "control 'nothing'" in judgement.problems[0]


def test_a_check_that_raises_or_returns_no_evidence_fails():
    def raises():
        raise RuntimeError("no")

    def returns_bool():
        return True

    for check in (raises, returns_bool):
        assert judge(declare(check, breaks={}, no_break="none")).verdict is Verdict.FAILED


def published_bound(x, seed):
    return exact(x, "<=", 2)


def corrected_bound(x, seed, bound=5):
    return exact(x, "<=", bound)


def refutation(**changes):
    fields = (
        {"cases": [{"x": 3}], "rescues": {"small": {"x": 1}}, "corrected_by": "corrected-bound"}
        | DECLARED
        | {"origin": "published"}
    )
    return claim("x <= 2", **(fields | changes))(published_bound)


CORRECTION = claim("x <= 5", cases=[{"x": 3}], breaks={"large": {"x": 7}}, **DECLARED)(
    corrected_bound
)


def test_a_refuted_claim_stands_beside_its_verified_correction():
    verdicts = [j.verdict for j in judge_all([refutation(), CORRECTION])]
    assert verdicts == [Verdict.REFUTED, Verdict.VERIFIED]


def test_a_refuted_claim_without_a_verified_correction_fails():
    wrong = claim("x <= 2.5", cases=[{"x": 3}], breaks={"large": {"x": 7}}, **DECLARED)(
        lambda x, seed: exact(x, "<=", 2)
    )
    assert judge_all([refutation()])[0].verdict is Verdict.FAILED
    assert judge_all([refutation(corrected_by=wrong.slug), wrong])[0].verdict is Verdict.FAILED
    assert judge_all([refutation(corrected_by="published-bound")])[0].verdict is Verdict.FAILED


def test_a_refutation_needs_an_exact_grade_and_true_rescues():
    def numerical(x, seed):
        return at_most(float(x), 2.0)

    fields = DECLARED | {"origin": "published"}
    weak = claim(
        "x <= 2",
        cases=[{"x": 3}],
        rescues={"small": {"x": 1}},
        corrected_by=CORRECTION.slug,
        **fields,
    )(numerical)
    assert judge_all([weak, CORRECTION])[0].verdict is Verdict.FAILED
    assert (
        judge_all([refutation(rescues={"large": {"x": 4}}), CORRECTION])[0].verdict
        is Verdict.FAILED
    )
    assert judge_all([refutation(cases=[{"x": 1}]), CORRECTION])[0].verdict is Verdict.FAILED


def test_an_open_claim_says_why():
    def undecided():
        return inconclusive("needs a week")

    judgement = judge(declare(undecided, breaks={}, undecided="needs a week of computation"))
    assert judgement.verdict is Verdict.OPEN


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("cases", {"cases": []}),
        ("cases", {"cases": {"quick": [{}]}}),
        ("sources", {"sources": ["no locator"]}),
        ("breaks", {"breaks": {}}),
        ("no_break", {"no_break": "none exists"}),
        ("rescues", {"corrected_by": "other"}),
        ("corrected_by", {"rescues": {"a": {}}}),
        ("origin", {"origin": "rumour"}),
        ("sources", {"sources": [3]}),
        ("sources", {"sources": [", Theorem 1"]}),
        ("sources", {"sources": ["none-key, "]}),
        ("breaks", {"breaks": ["cube"]}),
        ("breaks", {"breaks": {"cube": None}}),
        ("shifts", {"shifts": {"cube": {"factor": 1.1}}}),
        ("no_break", {"breaks": {}, "no_break": " "}),
        ("coarse", {"coarse": " "}),
        ("undecided", {"breaks": {}, "undecided": " "}),
        (
            "undecided",
            {
                "breaks": {},
                "rescues": {"a": {}},
                "corrected_by": "other",
                "undecided": "needs a week",
            },
        ),
        ("space", {"space": ["power"]}),
        ("space", {"space": {"power": 3.0}}),
    ],
)
def test_an_inconsistent_declaration_is_refused(argument, changes):
    with pytest.raises(ValueError, match=argument):
        declare(mean_square, **changes)


def test_a_claim_is_still_the_function():
    assert declare(mean_square)(power=2.0).holds
    assert declare(mean_square).slug == "mean-square"
    assert declare(mean_square).papers == ("none-key",)


def test_a_claim_passes_its_seed_only_where_the_check_takes_one():
    def seeded(seed, mean=0.0):
        return sample_mean(1 + np.random.default_rng(seed).normal(mean, 0.1, 100), 1.0)

    declared = declare(seeded, breaks={"mean": {"mean": 1.0}})
    shown = [judge(declared, seed=s).shown for s in (0, 0, 1)]
    assert shown[0].measured == shown[1].measured != shown[2].measured
