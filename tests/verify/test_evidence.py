import math
from dataclasses import replace
from fractions import Fraction

import flint
import numpy as np
import pytest
import sympy as sp

from theorylab.verify import (
    Grade,
    Relation,
    all_of,
    at_least,
    at_most,
    equal,
    exact,
    exhaustive,
    gap,
    inconclusive,
    limit,
    rate,
    sample_mean,
    threshold,
)


def smallest_rejected_change(check, evidence):
    """Shift the prediction by ever larger factors until the check says no in both directions."""
    changes = np.geomspace(1e-7, 0.9, 700)
    rejected = [c for c in changes if not check(1 + c).holds and not check(1 - c).holds]
    assert rejected, evidence
    return rejected[0]


SIZES = np.geomspace(10, 1e5, 80)
SLOW = np.geomspace(1, 1e4, 41)
SAMPLES = np.random.default_rng(1).normal(2.0, 0.3, size=(4000, 2))
CHECKS = {
    "equal": lambda f: equal(
        [1.0, 2.02], np.array([1.01, 2.0]) * f, error=[0.02, 0.05], source="made up"
    ),
    "limit": lambda f: limit(3 + 0.1 / SIZES, 3.0 * f, remainder=1 / SIZES, source="made up"),
    "rate": lambda f: rate(SIZES, SIZES**-1.0 * (1 + 0.3 * SIZES**-0.5), -1.0 * f, rival=-2.5),
    "geometric rate": lambda f: rate(
        np.arange(1.0, 100),
        np.exp(-0.3 * np.arange(1.0, 100)) * (1 + np.exp(-0.1 * np.arange(1.0, 100))),
        -0.3 * f,
        rival=-1,
        scale="linear",
    ),
    "threshold": lambda f: threshold(lambda x: x > 0.7, 0.7 * f, bracket=(-1, 2), tol=1e-2),
    "sample mean": lambda f: sample_mean(
        SAMPLES, np.array([2.0, 2.0]) * f, bias=0.01, source="made up"
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_resolution_is_the_smallest_change_that_is_rejected(name):
    evidence = CHECKS[name](1.0)
    assert evidence.holds
    assert 0 < evidence.resolution < 0.1
    truth = smallest_rejected_change(CHECKS[name], evidence)
    assert truth == pytest.approx(evidence.resolution, rel=0.05)


@pytest.mark.parametrize(("check", "sign"), [(at_most, -1), (at_least, 1)])
def test_looseness_of_a_bound_is_the_change_that_is_rejected(check, sign):
    measured, bound = np.array([1.0, 3.0]), np.array([1.0, 3.0]) * (1 - 0.2 * sign)
    evidence = check(measured, bound)
    assert evidence.holds
    assert check(measured, bound * (1 + sign * (evidence.resolution + 1e-9))).holds is False
    assert check(measured, bound * (1 + sign * (evidence.resolution - 1e-9))).holds is True


def test_resolution_of_a_gap():
    evidence = gap(1.0 + 1e-9, 1.0, tol=1e-8)
    assert evidence.holds
    assert gap((1 + 1e-9) * (1 + evidence.resolution), 1.0, tol=1e-8).holds is False
    assert gap((1 + 1e-9) * (1 - evidence.resolution), 1.0, tol=1e-8).holds is False


def test_exact_rejects_the_smallest_change():
    third = Fraction(1, 3)
    assert exact(third, "==", third).holds
    assert exact(third, "==", third).resolution == 0
    off = exact(third, "==", third + Fraction(1, 10**30))
    assert off.holds is False
    assert off.margin < 0
    bound = exact(third, "<=", Fraction(1, 2))
    assert bound.resolution == pytest.approx(1 / 3)
    assert exact(third, "<", third).decides
    assert exact(third, "<", third).holds is False


def test_exhaustive_counts_every_member():
    assert exhaustive({k: k >= 0 for k in range(5)}, count=5).holds
    failing = exhaustive({k: k != 3 for k in range(5)})
    assert failing.holds is False
    assert failing.margin == pytest.approx(-0.2)
    assert "3" in failing.detail
    assert exhaustive(dict.fromkeys(range(4), True), count=5).holds is None
    assert exhaustive({}).holds is None
    assert exhaustive({1: True, 2: None}).holds is None
    assert exhaustive({1: False, 2: None}).holds is False
    assert exhaustive([(k, True) for k in range(20)]).resolution == pytest.approx(0.05)


def test_exhaustive_reads_numpy_outcomes_and_refuses_what_is_no_outcome():
    signs = np.array([1.0, -1.0, 2.0])
    assert exhaustive(enumerate(signs > 0)).holds is False
    assert exhaustive(enumerate(signs != 0)).holds is True
    for odd in (0, math.nan, "no", equal(1.0, 2.0, error=0.1, source="made up")):
        with pytest.raises(ValueError, match="outcomes"):
            exhaustive({"a": True, "b": odd})
    with pytest.raises(ValueError, match="outcomes"):
        exhaustive([("a", True)] * 5, count=5)


@pytest.mark.parametrize(
    "evidence",
    [
        equal(1.0, 1.1, error=0.05, source="made up"),
        equal([1.0, 1.0], [1.0, 1.1], error=0.05, source="made up"),
        at_most(1.0 + 1e-9, 1.0),
        at_least([1.0, -1.0], [0.0, 0.0]),
        limit(3 + 1 / SIZES, 3.0, remainder=0.5 / SIZES, source="made up"),
        rate(SIZES, SIZES**-2.0, -1.0, rival=-0.5),
        rate(SIZES, np.exp(-SIZES[0] * np.arange(80.0)), -1.0, rival=-2.0),
        rate(np.arange(1.0, 100), np.arange(1.0, 100) ** -1.0, -0.3, rival=-1, scale="linear"),
        rate(
            SIZES,
            SIZES[None] ** -1.2 * np.exp(np.random.default_rng(0).normal(0, 1e-3, (20, 80))),
            -1.0,
            rival=-2.0,
        ),
        threshold(lambda x: x > 0.8, 0.7, bracket=(-1, 2)),
        threshold(lambda x: True, 0.7, bracket=(-1, 2)),
        gap(1.0 + 1e-6, 1.0),
        gap(1.0 - 1e-6, 1.0),
        exact(Fraction(2, 3), "<=", Fraction(1, 2)),
        exact(sp.sqrt(2), "==", sp.Rational(99, 70)),
        exact(sp.Symbol("x"), "==", sp.Symbol("x") + sp.sin(sp.Symbol("x"))),
        exact(flint.arb(2).sqrt(), ">", 2),
        exact(flint.fmpq(1, 3), "==", flint.fmpq(1, 2)),
        sample_mean(SAMPLES, [2.0, 2.1]),
        sample_mean(SAMPLES, [1.9, 1.9], relation="upper"),
        sample_mean(SAMPLES, [2.1, 2.1], relation="lower"),
        all_of(at_most(1, 2), at_most(2, 1), inconclusive("no")),
    ],
    ids=lambda e: str(e.relation),
)
def test_says_no_decisively(evidence):
    assert evidence.holds is False
    assert evidence.margin < 0
    assert evidence.decides


@pytest.mark.parametrize(
    "evidence",
    [
        equal(np.nan, 1.0, error=0.1, source="made up"),
        equal([1.0, np.inf], 1.0, error=0.1, source="made up"),
        at_most(np.nan, 1.0),
        at_most(np.inf, 1.0),
        at_least(-np.inf, 1.0),
        limit([3.4, 3.3], 3.0, remainder=[0.6, 0.5], source="made up"),
        rate(SIZES, SIZES * np.nan, -1.0, rival=-2.0),
        rate([1.0, 2.0, 3.0], [1.0, 0.5, 0.3], -1.0, rival=-2.0),
        rate(
            SIZES,
            SIZES**-1.0 * np.exp(np.random.default_rng(0).normal(0, 0.5, 80)),
            -1.0,
            rival=-0.9,
        ),
        rate(SIZES, SIZES**-9.0, -9.0, rival=-1.0, floor=1e-11),
        threshold(lambda x: None, 0.7, bracket=(-1, 2)),
        threshold(lambda x: None if 0.6 < x < 0.8 else x > 0.7, 0.7, bracket=(-1, 2)),
        gap(np.nan, 1.0),
        exact(flint.arb(1) / 3, "==", Fraction(1, 3)),
        exact(flint.arb(2).sqrt(), "<=", flint.arb(2).sqrt()),
        exact(sp.Symbol("x"), "<=", sp.Symbol("y")),
        sample_mean(SAMPLES[:5], [2.0, 2.0]),
        sample_mean(np.where(SAMPLES > 2.9, np.nan, SAMPLES), [2.0, 2.0]),
        all_of(at_most(1, 2), inconclusive("no")),
    ],
    ids=lambda e: str(e.relation),
)
def test_says_inconclusive(evidence):
    assert evidence.holds is None
    assert not evidence.decides
    assert evidence.detail


def test_exact_accepts_each_kind_of_number():
    x = sp.Symbol("x", positive=True)
    assert exact((x + 1) ** 2, "==", x**2 + 2 * x + 1).grade is Grade.SYMBOLIC
    assert exact(x, ">", 0).holds
    assert exact(flint.arb(2).sqrt(), "<", Fraction(3, 2)).grade is Grade.CERTIFIED
    assert exact(flint.fmpq(1, 3), "<", 1).holds
    assert exact(np.int64(3), ">=", 3).holds
    with pytest.raises(ValueError, match="measured"):
        exact(0.5, "==", Fraction(1, 2))


@pytest.mark.parametrize(
    "number",
    [
        sp.Float(1 / 3),
        sp.Symbol("x") * sp.Float(0.5),
        sp.nan,
        sp.oo,
        sp.zoo,
        sp.eye(2),
        sp.ImmutableMatrix([[1]]),
        sp.true,
        sp.Symbol("x") > 1,
        flint.arf(1),
        flint.acb(1),
        flint.nmod(3, 7),
        flint.fmpq_poly([1]),
        True,
        np.True_,
        np.float64(1.0),
        np.array(1),
        None,
    ],
    ids=lambda v: f"{type(v).__module__}.{type(v).__name__}",
)
def test_exact_refuses_what_is_not_an_exact_number(number):
    for sides in ((number, "==", 1), (1, "<=", number)):
        with pytest.raises(ValueError, match="exact number"):
            exact(*sides)


def test_exact_compares_numbers_beyond_floats():
    huge, tiny = 10**400, Fraction(1, 10**400)
    bound = exact(huge, "<=", huge + huge // 4)
    assert bound.holds
    assert bound.resolution == pytest.approx(0.2)
    assert exact(huge, "<=", huge).holds
    assert exact(huge + 1, "==", huge).decides
    assert exact(huge + 1, "==", huge).holds is False
    assert exact(1, ">=", tiny).resolution == math.inf
    assert exact(sp.Integer(huge), "<", flint.fmpz(huge) + 1).holds


def test_exact_reads_either_side_of_a_family():
    x, y = sp.Symbol("x", positive=True), sp.Symbol("y")
    for sides in ((1, "<", x + 2), (x + 2, ">", 1)):
        assert exact(*sides).decides
        assert exact(*sides).holds
    for sides in ((1, "==", x + 2), (x + 2, "==", 1), (0, "==", y + sp.sin(y)), (sp.I, "==", 1)):
        assert exact(*sides).decides
        assert exact(*sides).holds is False
    assert exact(sp.I, "<", 1).holds is None
    assert exact(sp.Rational(1, 3), "==", flint.fmpq(1, 3)).holds
    with pytest.raises(ValueError, match="predicted"):
        exact(sp.sqrt(2), "<", flint.arb(2))


@pytest.mark.parametrize(
    "evidence",
    [
        exact(-1, "<=", 1),
        exact(sp.Symbol("x", positive=True), ">", -1),
        gap(1.0, 1.0 + 5e-13),
        gap(1.0, 1.0005, tol=1e-8, rounding=1e-3),
        at_most(-1.0, 1.0),
        at_most(-1e308, 1e308),
        sample_mean(SAMPLES, [9.0, 9.0], relation="upper"),
    ],
    ids=lambda e: str(e.relation),
)
def test_no_margin_exceeds_one(evidence):
    assert evidence.holds
    assert evidence.margin <= 1


def test_a_dual_value_within_rounding_above_the_primal_one_widens_the_resolution():
    assert gap(1.0, 1.0005, tol=1e-8, rounding=1e-3).resolution >= 1e-3


@pytest.mark.parametrize(
    "evidence",
    [
        equal(1e308, -1e308, error=1.0, source="made up"),
        equal(1.0, 2.0, error=1e-320, source="made up"),
        at_most(1e308, -1e308),
        at_least(-1e308, 1e308),
        gap(1e308, -1e308),
    ],
    ids=lambda e: str(e.relation),
)
def test_a_finite_violation_whose_margin_overflows_is_decisive(evidence):
    assert evidence.holds is False
    assert evidence.decides


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("measured", lambda: equal([1.0, 2.0], [1.0, 2.0, 3.0], error=1.0, source="made up")),
        (
            "scale",
            lambda: equal(
                [1.0, 2.0], [1.0, 2.0], error=1.0, source="made up", scale=[1.0, 2.0, 3.0]
            ),
        ),
        ("bound", lambda: at_most([1.0, 2.0], [1.0, 2.0, 3.0])),
        ("bias", lambda: sample_mean(SAMPLES, [2.0, 2.0], bias=[0.1, 0.1, 0.1], source="made up")),
        (
            "measured",
            lambda: limit(np.ones((2, 2)), 1.0, remainder=np.full((2, 2), 0.01), source="made up"),
        ),
        ("measured", lambda: at_most([[1.0], [1.0, 2.0]], 3.0)),
        ("measured", lambda: at_most(np.ma.masked_array([1.0, 9.0], [False, True]), 3.0)),
        ("primal", lambda: gap([1.0, 1.0], 1.0)),
        ("rounding", lambda: at_most(1.4, 1.0, rounding=0.5)),
        ("predicted", lambda: threshold(lambda x: x > 0, 0.0, bracket=(-1.0, 1.5))),
        (
            "occurs",
            lambda: threshold(lambda x: math.nan if x < 0.2 else True, 0.2, bracket=(0.0, 1.0)),
        ),
    ],
)
def test_bad_input_is_refused_by_name(name, call):
    with pytest.raises(ValueError, match=name):
        call()


def test_a_bound_that_is_attained_is_not_rejected_by_rounding():
    values = np.random.default_rng(0).random(1000)
    assert at_most(values * 3 / 3, values).holds
    assert at_most(1 + 1e-11, 1.0).holds is False


def test_a_statistical_check_rejects_a_true_claim_no_more_often_than_its_level_allows():
    rejected = sum(
        sample_mean(np.random.default_rng(seed).exponential(1.0, 400), 1.0).holds is False
        for seed in range(500)
    )
    assert rejected == 0


def test_indicators_that_all_agree_are_judged_by_their_binomial_law():
    # The probability that 100 draws all agree: (1 - p)^100 is far above the level for p = 1e-3, far
    # below it for p = 1/2.
    assert sample_mean(np.zeros(100), 1e-3).holds
    assert sample_mean(np.ones(100), 0.999).holds
    assert sample_mean(np.ones(100), 1.0).resolution > 0.1
    assert sample_mean(np.zeros(100), 0.5).decides
    assert sample_mean(np.zeros(100), 0.5).holds is False
    assert sample_mean(np.ones(10), 0.9, relation="upper").holds
    assert sample_mean(np.ones(100), 0.5, relation="upper").holds is False
    rejected = sum(
        sample_mean(np.random.default_rng(s).random(40) < 0.02, 0.02).holds is False
        for s in range(200)
    )
    assert rejected == 0


def test_samples_without_any_spread_decide_nothing():
    assert sample_mean(np.full(100, 0.3), 0.3).holds is None
    assert sample_mean(np.full(100, 0.3), 0.4).holds is None


def test_all_of_shows_a_part_that_does_not_decide():
    odd = replace(at_most(1.0, 2.0), margin=math.nan)
    assert not all_of(at_most(1.0, 2.0), odd).decides
    assert all_of(odd, at_most(2.0, 1.0)).holds is False


def test_all_of_shows_the_worst_part_and_the_weakest_link():
    tight = equal(1.0, 1.0, error=0.05, source="first")
    loose = equal(2.0, 2.0, error=0.4, source="second")
    statistical = sample_mean(SAMPLES, [2.0, 2.0])
    joined = all_of(at_most(1, 2, data={"a": 1}), tight, loose, statistical, data={"b": 2})
    assert joined.holds
    assert joined.resolution == pytest.approx(0.2)
    assert joined.grade is Grade.STATISTICAL
    assert joined.data["a"] == 1
    assert joined.data["b"] == 2
    assert joined.relation is Relation.TIGHT
    with pytest.raises(ValueError, match="parts"):
        all_of()


def test_an_error_needs_a_source():
    with pytest.raises(ValueError, match="source"):
        equal(1.0, 1.0, error=0.1, source=" ")
    with pytest.raises(ValueError, match="source"):
        sample_mean(SAMPLES, [2.0, 2.0], bias=0.1)


@pytest.mark.parametrize(
    "y",
    [
        np.exp(-(0.5 / 0.149) * SLOW**-0.149)
        / SLOW,  # the slope's remainder x^-0.149 halves over the upper half of the record
        np.log1p(SLOW) / SLOW,
        np.tile(np.exp(-(0.5 / 0.3) * SLOW**-0.3) / SLOW, (3, 1)),  # x^-0.3 falls to a quarter
        np.tile(np.exp(-(0.5 / 0.3) * SLOW**-0.3) / SLOW, (8, 1))
        * np.exp(np.random.default_rng(0).normal(0, 1e-3, (8, 1))),
    ],
)
def test_a_rate_covers_an_exponent_that_it_reaches_slowly(y):
    assert rate(SLOW, y, -1.0, rival=-3.0).holds


def test_a_rate_reads_its_drift_along_the_scale_not_along_the_points():
    x = np.arange(1.0, 1001.0)
    assert rate(x, np.exp(-(0.5 / 0.21) * x**-0.21) / x, -1.0, rival=-3.0).holds


def test_rate_over_repetitions_uses_their_spread():
    rng = np.random.default_rng(3)
    noisy = SIZES**-1.0 * np.exp(rng.normal(0, 0.02, (25, 80)))
    evidence = rate(SIZES, noisy, -1.0, rival=-1.2)
    assert evidence.grade is Grade.STATISTICAL
    assert evidence.holds
    assert evidence.resolution < 0.1
    assert math.isfinite(evidence.measured)
