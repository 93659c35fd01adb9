"""Rules of the line: quadrature, closed forms, greedy matching of a discretised problem."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad

from theorylab.optimal_transport import (
    LineRule,
    NormalMixture,
    RadialNormal,
    boundary_flow,
    line_risk,
    matching_bound,
    optimal_rule,
    stationarity,
)

LAWS = [
    NormalMixture([0.3, 0.2], [-1.0, 1.5], [0.7, 1.2]),
    RadialNormal(0.4, 1.3, 1),
    RadialNormal(0.4, 1.3, 2),
    RadialNormal(0.5, 0.6, 5),
]


@pytest.mark.parametrize("law", LAWS)
def test_laws_against_quadrature(law):
    lo, hi = law.ends
    x = np.linspace(lo, hi, 50)[1:-1]
    assert_allclose(law.mass(np.inf), quad(law.density, lo, hi, points=x.tolist()[::8])[0])
    assert law.mass(-np.inf) == 0
    h = 1e-5
    assert_allclose((law.mass(x + h) - law.mass(x - h)) / (2 * h), law.density(x), atol=1e-9)
    assert_allclose((law.density(x + h) - law.density(x - h)) / (2 * h), law.slope(x), atol=1e-8)
    assert law.density(lo - 1) < 1e-15
    assert law.mass(np.inf) - law.mass(hi) < 1e-14


def test_radial_law_is_that_of_the_norm():
    draws = np.linalg.norm(0.7 * np.random.default_rng(0).normal(size=(100_000, 3)), axis=1)
    law = RadialNormal(1.0, 0.7, 3)
    for x in (0.5, 1.0, 1.5):
        assert abs(np.mean(draws < x) - law.mass(x)) < 0.008


def classes(seed):
    rng = np.random.default_rng(seed)
    w, s = rng.uniform(0.35, 0.65), rng.uniform(0.2, 0.8)
    f = NormalMixture(
        [w * (1 - s), w * s], [-rng.uniform(1, 2.5), rng.uniform(1.5, 3)], rng.uniform(0.5, 1, 2)
    )
    return f, NormalMixture([1 - w], [rng.uniform(0, 0.5)], [rng.uniform(0.5, 1)])


@pytest.mark.parametrize("rule", [LineRule([], 1), LineRule([0.4], 0), LineRule([-1, -0.8, 2], 1)])
def test_line_risk_by_quadrature(rule):
    f, g = classes(0)
    eps, x = 0.3, np.linspace(-12, 12, 480_001)
    label = (np.searchsorted(rule.boundaries, x) + rule.first) % 2
    # Within eps of a region: label seen at some point of the ball, or at both of its ends.
    inside = [(label == k) for k in (0, 1)]
    steps = round(eps / (x[1] - x[0]))
    spread = []
    for region in inside:
        total = np.concatenate([[0], np.cumsum(region)])
        hi, lo = np.minimum(np.arange(x.size) + steps + 1, x.size), np.arange(x.size) - steps
        spread.append(total[hi] > total[np.maximum(lo, 0)])
    expected = np.trapezoid(f.density(x) * spread[1] + g.density(x) * spread[0], x)
    assert_allclose(line_risk(f, g, rule, eps), expected, atol=1e-4)


def discretised(f, g, eps, h=0.01):
    """Largest matching of masses at multiples of h (2 eps / h is an integer): from left to right,
    each takes the leftmost partner that is still free."""
    x = np.arange(-12, 12, h)
    a, b = (np.diff(law.mass(np.append(x, x[-1] + h) - h / 2)) for law in (f, g))
    reach, j, matched = round(2 * eps / h), 0, 0.0
    for i in range(x.size):
        j = max(j, i - reach)
        while a[i] > 0 and j <= min(i + reach, x.size - 1):
            moved = min(a[i], b[j])
            a[i], b[j], matched = a[i] - moved, b[j] - moved, matched + moved
            j += b[j] == 0
    return matched


@pytest.mark.parametrize("seed", range(3))
def test_optimal_rule_and_bound_against_a_discretised_problem(seed):
    f, g = classes(seed)
    for eps in (0.0, 0.3, 1.2):
        rule = optimal_rule(f, g, eps)
        risk, bound = line_risk(f, g, rule, eps), matching_bound(f, g, rule, eps)
        assert 0 <= risk - bound <= 1e-6
        assert_allclose(risk, discretised(f, g, eps), atol=1e-5)
        # A worse rule has a smaller matching, and no bound passes the least risk.
        for moved in (LineRule(np.array(rule.boundaries) + 0.1, rule.first), LineRule([], 0)):
            weak = matching_bound(f, g, moved, eps)
            assert weak <= bound + 1e-6
            if line_risk(f, g, moved, eps) > risk + 1e-6:
                assert weak < risk
    assert len(optimal_rule(f, g, 0.0).boundaries) >= 2
    assert len(optimal_rule(f, g, 0.0, max_boundaries=1).boundaries) <= 1


def test_matching_bound_of_a_bad_rule_is_the_mass_of_a_real_matching():
    # Everything called 0: class 1 is matched with class 0 in the same place.
    f, g = classes(1)
    x = np.linspace(-10, 10, 200_001)
    common = np.trapezoid(np.minimum(f.density(x), g.density(x)), x)
    assert_allclose(matching_bound(f, g, LineRule([], 0), 0.0), common, atol=1e-6)


def test_what_is_unmatched_lies_in_several_intervals():
    f, g = NormalMixture([0.5], [0.0], [1.0]), NormalMixture([0.3, 0.2], [-2.0, 2.5], [0.6, 0.8])
    for eps in (0.0, 0.25):
        bound = matching_bound(f, g, LineRule([], 0), eps)
        assert_allclose(bound, discretised(f, g, eps), atol=1e-5)
        assert 0.1 < bound < 0.4


def test_two_normals_in_closed_form():
    # b = s^2 log(w0 / w1) / (2 (mu - eps)) for means -mu, mu and deviations s; the end is at mu.
    w, mu, s = 0.6, 1.2, 0.8
    f, g = NormalMixture([w], [-mu], [s]), NormalMixture([1 - w], [mu], [s])
    start = optimal_rule(f, g, 0.0)
    eps = np.array([0.0, 0.2, 0.7, 1.0, 1.3])
    flow = boundary_flow(f, g, start, eps)
    b = s**2 * np.log(w / (1 - w)) / (2 * (mu - eps[:4]))
    assert_allclose(flow.boundaries[:4, 0], b, rtol=1e-8)
    assert np.isnan(flow.boundaries[4]).all()
    assert 1.0 < flow.end <= mu
    for i in range(4):
        assert_allclose(optimal_rule(f, g, eps[i]).boundaries, flow.boundaries[i], rtol=1e-8)
        at = stationarity(f, g, flow.rule(i), eps[i])
        behind, ahead, curvature = at.behind, at.ahead, at.curvature
        assert_allclose(behind, ahead, rtol=1e-8)
        assert curvature[0] > 0
    # Nothing but the lighter class is lost beyond it.
    assert_allclose(line_risk(f, g, optimal_rule(f, g, 1.3), 1.3), 1 - w)
    # Mirrored: class 1 on the left.
    mirrored = boundary_flow(g, f, optimal_rule(g, f, 0.0), eps[:3])
    assert mirrored.first == 1
    assert_allclose(mirrored.boundaries, flow.boundaries[:3], rtol=1e-8)


def test_flow_keeps_the_condition_and_ends():
    f, g = classes(0)
    start = optimal_rule(f, g, 0.0)
    eps = np.linspace(0, 2, 41)
    flow = boundary_flow(f, g, start, eps)
    alive = ~np.isnan(flow.boundaries).any(axis=1)
    assert np.array_equal(alive, eps < flow.end)
    assert 5 < alive.sum() < 41
    for i in np.flatnonzero(alive):
        at = stationarity(f, g, flow.rule(i), eps[i])
        behind, ahead, curvature = at.behind, at.ahead, at.curvature
        assert_allclose(behind, ahead, rtol=1e-8, atol=2e-11)
        assert (curvature > 0).all()
        assert (np.diff(flow.boundaries[i]) > 2 * eps[i]).all()
    first = boundary_flow(f, g, start, [1.9])  # ends before the only budget
    assert np.isnan(first.boundaries).all()
    assert first.end <= 1.9


def test_flow_ends_where_boundaries_meet_and_starts_at_minima():
    f, g = NormalMixture([0.4, 0.2], [-2.0, 2.0], [1.0, 1.0]), NormalMixture([0.4], [0.0], [0.5])
    start, eps = optimal_rule(f, g, 0.0), np.linspace(0, 3, 61)
    flow = boundary_flow(f, g, start, eps)
    alive = eps < flow.end
    assert 5 < alive.sum() < 61
    assert (np.diff(flow.boundaries[alive], axis=1)[:, 0] > 2 * eps[alive]).all()
    with pytest.raises(ValueError, match="rule: expected boundaries that are minima"):
        boundary_flow(f, g, LineRule(start.boundaries, 1 - start.first), [0.1])


def test_flow_ends_where_boundaries_are_twice_the_budget_apart():
    # Three equal normals at -l, 0, l, class 1 between: -b = l / 2 - log(3) / (l - 2 eps) on both
    # sides, the region of class 1 is as wide as 2 eps where (l - 2 eps)^2 = 2 log 3, and empty only
    # where l (l - 2 eps) = 2 log 3.
    side, ratio = 4.0, np.log(3)
    f, g = NormalMixture([0.3, 0.3], [-side, side], [1, 1]), NormalMixture([0.1], [0.0], [1.0])
    start, eps = optimal_rule(f, g, 0.0), np.linspace(0, 1.7, 171)
    meet, empty = (side - np.array([np.sqrt(2 * ratio), 2 * ratio / side])) / 2
    assert meet < 1.3
    assert empty > eps[-1]
    flow = boundary_flow(f, g, start, eps)
    half = side / 2 - ratio / (side - 2 * eps)
    alive = eps < meet
    assert_allclose(flow.boundaries[alive], half[alive, None] * [-1, 1], rtol=1e-6)
    assert np.isnan(flow.boundaries[~alive]).all()
    assert flow.end == eps[~alive][0]


def test_curvature_is_that_of_the_risk():
    f, g = classes(3)
    rule = LineRule([-0.7, 1.4], 0)
    curvature, h = stationarity(f, g, rule, 0.2).curvature, 1e-3
    for k in (0, 1):
        e = np.eye(2)[k] * h
        risk = [
            line_risk(f, g, LineRule(np.array(rule.boundaries) + t * e, 0), 0.2) for t in (-1, 0, 1)
        ]
        assert_allclose((risk[0] - 2 * risk[1] + risk[2]) / h**2, curvature[k], atol=1e-5)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_line_does_not_depend_on_units(unit):
    f, g = classes(4)
    scaled = [NormalMixture(h.weights, h.means * unit, h.deviations * unit) for h in (f, g)]
    rule, other = optimal_rule(f, g, 0.3), optimal_rule(*scaled, 0.3 * unit)
    assert_allclose(np.array(other.boundaries) / unit, rule.boundaries, rtol=1e-9)
    assert_allclose(
        matching_bound(*scaled, other, 0.3 * unit), matching_bound(f, g, rule, 0.3), rtol=1e-9
    )
    flows = [
        boundary_flow(a, b, optimal_rule(a, b, 0.0), [0.1 * u])
        for a, b, u in ((f, g, 1), (*scaled, unit))
    ]
    assert_allclose(flows[1].boundaries / unit, flows[0].boundaries, rtol=1e-8)


def test_bad_input():
    f, g = classes(5)
    with pytest.raises(ValueError, match="boundaries: expected increasing numbers"):
        LineRule([1.0, 1.0])
    with pytest.raises(ValueError, match="rule: expected boundaries at least 2 eps"):
        matching_bound(f, g, LineRule([0.0, 0.5]), 0.3)
    with pytest.raises(ValueError, match="rule: expected boundaries that are minima"):
        boundary_flow(f, g, LineRule([0.0], 1), [0.1])
    with pytest.raises(ValueError, match="budgets: expected increasing"):
        boundary_flow(f, g, optimal_rule(f, g, 0.0), [0.1, 0.1])
    with pytest.raises(ValueError, match="deviations: expected positive"):
        NormalMixture([1.0], [0.0], [0.0])
    with pytest.raises(ValueError, match="first"):
        LineRule([0.0], 2)
