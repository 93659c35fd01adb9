"""Each constructor encloses the truth as often as it says, and says when it knows nothing."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from theorylab.numerics.confidence import bounded_mean, clopper_pearson, student
from theorylab.verify import Grade, between, family, mean, slope, switch, within


def ends(e):
    return float(e.centre - e.error), float(e.centre + e.error)


# ---------------------------------------------------------------------------------- mean
@pytest.mark.parametrize("p", [0.001, 0.02, 0.1, 0.5])
def test_clopper_pearson_has_its_level_exactly(p):
    n, level = 400, 1e-3
    k = np.arange(n + 1)
    lo, hi = clopper_pearson(k.astype(float), n, level)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]
    law = np.exp(np.array(logs) + k * math.log(p) + (n - k) * math.log1p(-p))
    missed = law[(p < lo) | (p > hi)].sum()
    assert missed <= level
    assert missed >= level / 50  # the interval is not needlessly wide


@pytest.mark.parametrize("p", [0.001, 0.02, 0.1, 0.5])
def test_booleans_enclose_their_probability_on_thousands_of_seeds(p):
    draws = np.random.default_rng(1).random((400, 3000)) < p
    lo, hi = clopper_pearson(draws.sum(axis=0).astype(float), 400, 1e-6)
    assert ((lo <= p) & (p <= hi)).all()
    e = mean(draws[:, 0])
    assert ends(e)[0] <= p <= ends(e)[1]
    assert e.shown == draws[:, 0].mean()


SAMPLERS = {
    "uniform": (lambda rng, n: rng.random(n), 0.5),
    "rare": (lambda rng, n: (rng.random(n) < 0.01).astype(float), 0.01),
    "skewed": (lambda rng, n: rng.beta(0.1, 2.0, n), 0.1 / 2.1),
    "two": (lambda rng, n: 0.4 + 0.2 * (rng.random(n) < 0.5), 0.5),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_known_support_needs_no_normality(name):
    draw, truth = SAMPLERS[name]
    rng = np.random.default_rng(2)
    # At a level of 1 % a wrong interval is seen in 3,000 samples of 30.
    samples = np.stack([draw(rng, 30) for _ in range(3000)], axis=1)
    lo, hi = bounded_mean(samples, (0.0, 1.0), 0.01)
    assert ((truth < lo) | (truth > hi)).mean() <= 0.01
    wide = mean(draw(rng, 4000), support=(0.0, 1.0))
    assert ends(wide)[0] <= truth <= ends(wide)[1]
    assert wide.error < 0.06


def test_student_has_its_level_for_normal_samples_and_nearly_for_skewed_ones():
    rng = np.random.default_rng(3)
    lo, hi = student(rng.normal(size=(12, 20000)), 0.01)
    missed = ((lo > 0) | (hi < 0)).mean()
    assert 0.006 < missed < 0.014
    lo, hi = student(rng.exponential(size=(200, 20000)), 1e-3)
    assert ((lo > 1) | (hi < 1)).mean() < 5e-3


def test_the_mean_of_normal_samples_is_enclosed_on_thousands_of_seeds():
    rng = np.random.default_rng(4)
    samples = rng.normal(1.0, 2.0, size=(40, 5000))
    each = [mean(samples[:, i]) for i in range(0, 5000, 5)]
    assert all(ends(e)[0] <= 1.0 <= ends(e)[1] for e in each)
    together = mean(samples)
    assert (np.abs(together.centre - 1.0) <= together.error).all()
    assert (together.error > each[0].error * 0.3).all()


def test_the_mean_is_sharp_at_the_rate_of_its_samples():
    rng = np.random.default_rng(5)
    few, many = (mean(rng.normal(size=n)).error for n in (400, 40000))
    assert 8 < few / many < 12
    assert mean(rng.random(40000) < 0.5).error < 0.02


@pytest.mark.parametrize("support", [None, (0.0, 1.0)])
def test_the_level_is_shared_by_the_entries(support):
    v = np.random.default_rng(6).random(40)
    for samples in (v, v < 0.5):
        alone = mean(samples, support=support)
        together = mean(np.stack([samples] * 50, 1), support=support)
        assert together.error.mean() > 1.05 * alone.error


def test_a_bias_widens_and_names_itself():
    v = np.random.default_rng(0).normal(size=100)
    plain, biased = mean(v), mean(v, bias=0.5, source="1/n term")
    assert biased.error == pytest.approx(float(plain.error) + 0.5)
    assert "1/n term" in biased.source
    with pytest.raises(ValueError, match="source"):
        mean(v, bias=0.5)


def test_samples_that_say_nothing_have_no_verdict():
    assert mean(np.ones(9)).why
    assert mean(np.ones(20)).why  # no noise is seen
    assert mean(np.array([np.nan] + [0.0] * 20)).why
    assert not mean(np.ones(20, bool)).why
    with pytest.raises(ValueError, match="support"):
        mean(np.full(20, 2.0), support=(0.0, 1.0))


def test_zeros_and_ones_as_floats_are_not_taken_for_booleans():
    v = (np.random.default_rng(0).random(100) < 0.02).astype(float)
    assert mean(v).error != mean(v > 0).error


# ---------------------------------------------------------------------------------- slope
@pytest.mark.parametrize("p", [-2.0, -0.5, 1.0])
@pytest.mark.parametrize("remainder", [0.3, -0.5])
def test_a_slope_covers_the_limit_of_a_law_with_a_remainder(p, remainder):
    x = np.geomspace(10, 1e4, 40)
    e = slope(x, x**p * (1 + remainder / np.sqrt(x)))
    assert abs(float(e.centre) - p) <= e.error
    assert e.error < 0.1


def test_a_slope_is_at_least_one_percent_wide_and_tells_rivals_apart():
    x = np.geomspace(1, 100, 30)
    e = slope(x, 5 * x**-1.5)
    assert 2 * float(e.error) >= 0.0149
    assert abs(float(e.centre) + 1.0) > e.error


def test_geometric_decay_is_measured_on_the_linear_scale_above_the_floor():
    k = np.arange(60.0)
    y = np.maximum(0.5**k, 1e-12)
    assert abs(float(slope(k, y, scale="linear", floor=1e-11).centre) - math.log(0.5)) < 1e-6
    assert abs(float(slope(k, y, scale="linear").centre) - math.log(0.5)) > 0.1
    # A value at the floor says nothing, like one below it.
    level = np.maximum(0.5**k, 1e-11)
    assert abs(float(slope(k, level, scale="linear", floor=1e-11).centre) - math.log(0.5)) < 1e-6


def test_repetitions_make_a_confidence_interval():
    x = np.geomspace(10, 1000, 12)
    rng = np.random.default_rng(0)
    e = slope(x, np.exp(rng.normal(0, 0.05, (30, 12))) / x)
    assert e.grade is Grade.STATISTICAL
    assert abs(float(e.centre) + 1) <= e.error < 0.2


@pytest.mark.parametrize(
    "x",
    [np.geomspace(1, 3.9, 40), np.geomspace(1, 100, 9)],
    ids=["less than a factor of 4", "fewer than six points"],
)
def test_a_short_record_has_no_verdict(x):
    assert slope(x, 1 / x).why
    assert slope(np.geomspace(1, 100, 40), np.full(40, np.nan)).why


# ---------------------------------------------------------------------------------- the others
def test_a_switch_is_bracketed_or_there_is_no_verdict():
    e = switch(lambda x: x**2 > 2, bracket=(0.0, 5.0), tol=1e-6)
    assert abs(float(e.centre) - math.sqrt(2)) <= e.error <= 2e-6
    assert switch(lambda x: True, bracket=(0.0, 1.0)).why
    assert switch(lambda x: None if 0.4 < x < 0.6 else x > 0.5, bracket=(0.0, 1.0)).why


@pytest.mark.parametrize("above", [True, False])
def test_a_switch_at_zero_is_found_in_finitely_many_steps(above):
    e = switch(lambda x: x > 0 if above else x >= 0, bracket=(-1.0, 1.0))
    assert float(abs(e.centre) + e.error) < 1e-300


def test_an_enclosure_keeps_its_numbers_when_the_caller_reuses_the_array():
    value, error = np.ones(3), np.full(3, 0.5)
    e = within(value, error, "rounding")
    value += 1.0
    error += 1.0
    assert (e.centre == 1.0).all()
    assert (e.error == 0.5).all()


def test_booleans_in_an_object_array_are_booleans():
    v = np.random.default_rng(0).random(100) < 0.02
    assert mean(v.astype(object)).error == mean(v).error
    with pytest.raises(ValueError, match="samples"):
        mean([[True], [True, False]])


def test_crossing_bounds_are_an_error_of_ours_and_never_a_zero_gap():
    with pytest.raises(ValueError, match="passes"):
        between(1.0, 1.001)
    with pytest.raises(ValueError, match="passes"):
        between(1.0, 0.999, "max")
    assert between(1.0, 1.0 + 1e-12).error < 1e-11
    assert between(1.0, -np.inf).error == np.inf


@pytest.mark.parametrize(("accepted", "grade"), [(True, "certified"), (False, "numerical")])
def test_only_an_accepted_certificate_certifies(accepted, grade):
    certificate = SimpleNamespace(verify=lambda: SimpleNamespace(accepted=accepted))
    assert between(1.0, 0.9, certificate=certificate).grade == grade
    assert between(1.0, 0.9).grade == "numerical"


def test_a_family_is_counted():
    assert family({1: True, 2: False}).centre == 1
    assert family({1: True, 2: None}).why
    assert not family({1: False, 2: None}).why
    assert family({}).why
    with pytest.raises(ValueError, match="outcomes"):
        family({1: 0.0})


def test_within_takes_what_broadcasts_and_refuses_the_rest():
    e = within(np.ones((2, 3)), 0.1, "rounding")
    assert e.error.shape == (2, 3)
    for value, error, text, name in (
        (1.0, -1.0, "x", "error"),
        (np.ones(2), np.ones(3), "x", "error"),
        (1.0, 0.1, "", "source"),
    ):
        with pytest.raises(ValueError, match=name):
            within(value, error, text)


def test_both_halves_of_an_enclosure_are_arrays():
    v = np.random.default_rng(0).normal(size=20)
    assert all(isinstance(part, np.ndarray) for part in (mean(v).centre, mean(v).error))
