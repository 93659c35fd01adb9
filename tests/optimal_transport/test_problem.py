"""Every solver: the same answer in other units, in another order, with points that carry no mass
or coincide; results that cannot be changed; bad input refused."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from theorylab.optimal_transport import (
    TransportPlan,
    TransportStatus,
    exact_plan,
    newton_plan,
    quadratic_plan,
    sinkhorn_plan,
    sparse_plan,
)

SOLVERS = {
    "exact": lambda a, b, C, weight: exact_plan(a, b, C),
    "sinkhorn": lambda a, b, C, weight: sinkhorn_plan(a, b, C, weight / 4, tol=1e-13),
    "newton": lambda a, b, C, weight: newton_plan(a, b, C, weight / 40, tol=1e-12),
    "quadratic": lambda a, b, C, weight: quadratic_plan(a, b, C, 3 * weight),
    "sparse": lambda a, b, C, weight: sparse_plan(a, b, C, 20 * weight, k=2),
}


def dense(plan):
    return plan.toarray() if sparse.issparse(plan) else plan


def instance(n=9, m=7, seed=3):
    rng = np.random.default_rng(seed)
    C = ((rng.normal(size=(n, 1, 3)) - rng.normal(size=(1, m, 3))) ** 2).sum(2)
    return rng.dirichlet(np.full(n, 3.0)), rng.dirichlet(np.full(m, 3.0)), C


@pytest.fixture(params=SOLVERS)
def solve(request):
    return SOLVERS[request.param]


def test_converges_with_a_gap_and_the_right_marginals(solve):
    a, b, C = instance()
    result = solve(a, b, C, 0.4)
    assert result.status in (TransportStatus.OPTIMAL, TransportStatus.CONVERGED)
    P = dense(result.plan)
    error = abs(P.sum(1) - a).sum() + abs(P.sum(0) - b).sum()
    assert error <= 1e-9
    assert_allclose(result.marginal_error, error, atol=1e-14)
    assert 0 <= result.gap <= 1e-9
    assert_allclose(result.value, result.dual_value, rtol=2e-9)
    assert_allclose(result.transport_cost, (P * C).sum(), rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-8, 3e-3, 1e8])
def test_units_do_not_matter(solve, unit):
    a, b, C = instance()
    one, other = solve(a, b, C, 0.4), solve(a, b, C * unit, 0.4 * unit)
    assert_allclose(dense(other.plan), dense(one.plan), atol=1e-10)
    assert_allclose(other.value, one.value * unit, rtol=1e-8)
    f, _ = one.potentials
    assert_allclose(other.dual_value, unit * one.dual_value, rtol=1e-8)
    assert_allclose(
        other.potentials[0] - other.potentials[0][0], unit * (f - f[0]), atol=1e-6 * unit
    )


def test_powers_of_two_change_no_digit(solve):
    a, b, C = instance()
    one, other = solve(a, b, C, 0.4), solve(a, b, C * 2.0**30, 0.4 * 2.0**30)
    np.testing.assert_array_equal(dense(other.plan), dense(one.plan))
    assert other.value == one.value * 2.0**30


def test_order_does_not_matter(solve):
    a, b, C = instance()
    rng = np.random.default_rng(0)
    i, j = rng.permutation(a.size), rng.permutation(b.size)
    one, other = solve(a, b, C, 0.4), solve(a[i], b[j], C[np.ix_(i, j)], 0.4)
    assert_allclose(dense(other.plan), dense(one.plan)[np.ix_(i, j)], atol=1e-9)


def test_a_constant_of_the_cost_only_shifts_the_value(solve):
    a, b, C = instance()
    one, other = solve(a, b, C, 0.4), solve(a, b, C - 1000.0, 0.4)
    assert_allclose(dense(other.plan), dense(one.plan), atol=1e-9)
    assert_allclose(other.value, one.value - 1000.0, rtol=1e-10)
    assert_allclose(other.dual_value, one.dual_value - 1000.0, rtol=1e-10)
    assert other.gap <= 1e-9


def test_points_without_mass_change_nothing(solve):
    a, b, C = instance()
    wide = np.insert(np.insert(C, 4, 0.01, axis=0), 2, -3.0, axis=1)
    one = solve(a, b, C, 0.4)
    other = solve(np.insert(a, 4, 0.0), np.insert(b, 2, 0.0), wide, 0.4)
    P = dense(other.plan)
    assert P.shape == wide.shape
    assert not P[4].any()
    assert not P[:, 2].any()
    assert_allclose(np.delete(np.delete(P, 4, 0), 2, 1), dense(one.plan), atol=1e-12)
    assert_allclose(other.value, one.value, rtol=1e-12)
    assert other.gap <= 1e-9


def test_entropic_plans_do_not_see_that_a_point_is_two(solve, request):
    a, b, C = instance()
    a2, C2 = np.append(a, a[0] / 4), np.vstack([C, C[0]])
    a2[0] *= 3 / 4
    one, other = solve(a, b, C, 0.4), solve(a2, b, C2, 0.4)
    assert other.status in (TransportStatus.OPTIMAL, TransportStatus.CONVERGED)
    assert other.gap <= 1e-9
    joined = dense(other.plan)[:-1].copy()
    joined[0] += dense(other.plan)[-1]
    if "quadratic" not in request.node.name and "sparse" not in request.node.name:
        assert_allclose(joined, dense(one.plan), atol=1e-9)


def test_one_point_and_equal_costs(solve):
    b = np.array([0.25, 0.75])
    assert_allclose(dense(solve([1.0], b, [[3.0, 4.0]], 0.4).plan), [b], atol=1e-12)
    level = solve(b, b, np.full((2, 2), 5.0), 0.4)
    assert level.gap <= 1e-9
    assert_allclose(level.transport_cost, 5.0)


def test_results_are_read_only_short_and_compared_by_identity(solve):
    a, b, C = instance()
    result, again = solve(a, b, C, 0.4), solve(a, b, C, 0.4)
    assert result != again
    assert len(repr(result)) < 120
    for array in (
        *result.potentials,
        result.plan.data if sparse.issparse(result.plan) else result.plan,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"a": np.full(9, 1 / 8)}, "a: expected weights that sum to one, got the sum 1.125"),
        ({"a": np.full(9, 1.0)}, "a: expected weights that sum to one"),
        ({"b": np.r_[-0.5, 1.5, np.zeros(5)]}, "b: expected non-negative numbers, got -0.5"),
        ({"C": np.full((9, 7), np.nan)}, "C: expected finite numbers, got nan"),
        ({"C": np.zeros((7, 9))}, r"C: expected shape \(9, 7\), got .* \(7, 9\)"),
        ({"C": np.where(np.eye(9, 7) > 0, 1e308, -1e308)}, "C: expected costs whose differences"),
    ],
)
def test_bad_input_is_refused(solve, changed, words):
    a, b, C = instance()
    with pytest.raises(ValueError, match=words):
        solve(**{"a": a, "b": b, "C": C, **changed}, weight=0.4)


def test_weights_in_single_precision_are_taken(solve):
    a, b, C = instance()
    result = solve(a.astype(np.float32), b.astype(np.float32), C, 0.4)
    assert_allclose(dense(result.plan), dense(solve(a, b, C, 0.4).plan), atol=1e-6)


@pytest.mark.parametrize("name", ["sinkhorn", "newton", "quadratic", "sparse"])
def test_a_weight_that_rounding_hides_is_refused(name):
    a, b, C = instance()
    with pytest.raises(ValueError, match="use exact_plan"):
        SOLVERS[name](a, b, C, 1e-20)


def test_a_solver_that_stops_short_says_so():
    a, b, C = instance(60, 50)
    cases = [
        lambda: sinkhorn_plan(a, b, C, 1e-3, max_iter=3),
        lambda: newton_plan(a, b, C, 1e-3, max_iter=2),
        lambda: quadratic_plan(a, b, C, 1e-2, max_iter=3),
    ]
    for case in cases:
        with pytest.warns(RuntimeWarning, match="raise max_iter"):
            result = case()
        assert result.status is TransportStatus.NOT_CONVERGED
        assert np.isfinite(dense(result.plan)).all()
        optimum = exact_plan(a, b, C).value
        # The bounds hold all the same.
        assert result.dual_value <= result.value
        assert max(result.gap, result.marginal_error) > 1e-9
        assert result.transport_cost >= optimum * (1 - result.marginal_error * 20) - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sinkhorn_plan(a, b, C, 1.0)


def test_a_start_must_be_a_plan_of_the_shape():
    a, b, C = instance()
    other = exact_plan(a[:2] / a[:2].sum(), b, C[:2])
    for solver in (sinkhorn_plan, newton_plan):
        with pytest.raises(ValueError, match="start: expected a plan of shape"):
            solver(a, b, C, 0.1, start=other)
        with pytest.raises(ValueError, match="start: expected a TransportPlan, got float"):
            solver(a, b, C, 0.1, start=1.0)


def test_gap_of_a_wrong_plan_is_not_zero():
    a, b, C = instance()
    right = exact_plan(a, b, C)
    wrong = exact_plan(a, b, C[::-1])
    P = dense(wrong.plan)
    assert (P * C).sum() > right.value * 1.01
    assert isinstance(right, TransportPlan)
