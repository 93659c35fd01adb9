"""Exact transport: vertices enumerated, linear programs of other solvers, closed forms."""

import itertools
import warnings
from fractions import Fraction

import numpy as np
import ot
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import sqrtm

from theorylab.optimal_transport import (
    TransportPlan,
    TransportStatus,
    exact_plan,
    gaussian_transport,
    line_plan,
    slackness,
)
from theorylab.optimal_transport._problem import make_plan


def clouds(n, m, seed):
    rng = np.random.default_rng(seed)
    C = ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2)) - 0.5) ** 2).sum(2)
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m)), C


def test_assignment_against_all_permutations():
    rng = np.random.default_rng(0)
    C = rng.integers(0, 50, (6, 6)).astype(float)
    w = np.full(6, 1 / 6)
    best = min(
        sum(Fraction(int(C[i, p[i]])) for i in range(6)) for p in itertools.permutations(range(6))
    )
    result = exact_plan(w, w, C)
    assert_allclose(result.value, float(best / 6), rtol=1e-15)
    assert result.plan.nnz == 6
    assert_allclose(result.dual_value, result.value, rtol=1e-14)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (60, 25), (1, 5), (30, 31)])
def test_linear_program_against_network_simplex(n, m):
    a, b, C = clouds(n, m, n)
    result = exact_plan(a, b, C)
    assert_allclose(result.value, ot.emd2(a, b, C), rtol=1e-12)
    assert result.gap == 0
    assert result.status is TransportStatus.OPTIMAL
    assert result.plan.nnz <= n + m - 1
    size = C.max()
    assert slackness(result, C).infeasibility <= 1e-14 * size
    assert slackness(result, C).complementarity <= 1e-14 * size


def test_potentials_are_feasible_where_there_is_no_mass():
    a, b, C = clouds(8, 6, 1)
    a[3] = b[2] = 0
    a, b = a / a.sum(), b / b.sum()
    result = exact_plan(a, b, C)
    f, g = result.potentials
    assert (f[:, None] + g <= C + 1e-14).all()
    assert_allclose(a @ f + b @ g, result.value, rtol=1e-13)
    assert_allclose(f[3], (C[3] - g)[b > 0].min())  # the largest that is feasible


def test_costs_over_many_orders_of_magnitude():
    a, b, C = clouds(20, 30, 5)
    C = C**12
    result = exact_plan(a, b, C)
    assert result.gap <= 1e-6
    assert result.value < C.max() * 1e-6
    # The potentials certify it: the network simplex is 6e-5 above.
    assert slackness(result, C).infeasibility <= 1e-15 * C.max()
    assert result.dual_value <= result.value <= ot.emd2(a, b, C)


@pytest.mark.parametrize("exponent", [9, 10, 11, 12, 13, 15, 20, 30, 200])
def test_weights_that_rounding_hides(exponent):
    rng = np.random.default_rng(exponent)
    for _ in range(12):
        a, b, C = clouds(*rng.integers(2, 12, 2), rng)
        for w in (a, b):
            hidden = rng.permutation(w.size)[: rng.integers(0, w.size)]
            w[hidden] = 10.0 ** -rng.uniform(exponent, exponent + 4, hidden.size)
            w /= w.sum()
        result = exact_plan(a, b, C)
        assert_allclose(result.value, ot.emd2(a, b, C), rtol=1e-8)
        assert result.gap <= 1e-8
        assert result.marginal_error <= 1e-8


def test_tied_costs():
    w = np.full(30, 1 / 30)
    C = np.random.default_rng(0).integers(0, 3, (30, 30)).astype(float)
    result = exact_plan(w, w, C)
    assert result.gap == 0
    assert_allclose(result.value, ot.emd2(w, w, C), atol=1e-14)


def test_slackness_refuses_a_plan_that_is_just_not_optimal():
    C = np.array([[0.0, 1.0], [1.0, 0.01]])
    right = exact_plan([0.5, 0.5], [0.5, 0.5], C)
    assert slackness(right, C).complementarity <= 1e-16
    swapped = make_plan(
        np.array([[0.5 - 1e-6, 1e-6], [1e-6, 0.5 - 1e-6]]),
        *right.potentials, right.value, right.dual_value, right.value, 1.0, 1, right.status, 0.0,
    )  # fmt: skip
    assert_allclose(slackness(swapped, C).complementarity, 1.99e-6, rtol=1e-9)
    raised = make_plan(
        right.plan.toarray(), right.potentials[0] + 1e-6, right.potentials[1],
        right.value, right.dual_value, right.value, 1.0, 1, right.status, 0.0,
    )  # fmt: skip
    assert_allclose(slackness(raised, C).infeasibility, 1e-6, rtol=1e-9)
    with pytest.raises(ValueError, match="finite potentials"):
        slackness(
            make_plan(
                np.eye(2) / 2, np.array([-np.inf, 0.0]), np.zeros(2), 0, 0, 0, 1, 1, right.status, 0
            ),
            C,
        )


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_line_against_the_linear_program(p):
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=12).round(1), rng.normal(size=9).round(1)  # some coincide
    a, b = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(9))
    C = abs(x[:, None] - y) ** p
    result = line_plan(x, y, a, b, p=p)
    assert_allclose(result.value, exact_plan(a, b, C).value, rtol=1e-12)
    assert_allclose(result.dual_value, result.value, rtol=1e-12)
    assert_allclose(result.value, (result.plan.toarray() * C).sum(), rtol=1e-14)
    check = slackness(result, C)
    assert max(check) <= 1e-14
    assert result.marginal_error <= 1e-14
    assert result.plan.nnz <= 20


def test_line_with_equal_sizes_sorts():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 50))
    assert_allclose(line_plan(x, y).value, np.mean((np.sort(x) - np.sort(y)) ** 2), rtol=1e-13)
    assert line_plan(x, y).plan.nnz == 50
    assert line_plan(x, x[::-1]).value == 0


def test_line_refuses_concave_and_infinite_costs():
    with pytest.raises(ValueError, match="p: expected"):
        line_plan([0.0], [1.0], p=0.5)
    with pytest.raises(ValueError, match="x: expected costs"):
        line_plan([0.0], [1e200])


def test_gaussians_against_matrix_square_roots_and_the_map():
    rng = np.random.default_rng(2)
    S, T = (A @ A.T for A in rng.normal(size=(2, 4, 4)))
    distance, A = gaussian_transport(S, T)
    root = sqrtm(S).real
    assert_allclose(distance, np.trace(S + T - 2 * sqrtm(root @ T @ root).real), rtol=1e-10)
    assert_allclose(A @ S @ A.T, T, rtol=1e-9, atol=1e-9)
    assert_allclose(A, A.T, atol=1e-12)
    assert np.linalg.eigvalsh(A)[0] > 0
    assert_allclose(gaussian_transport(S * 1e-16, T * 1e-16)[0], distance * 1e-16, rtol=1e-9)
    # near covariances: no cancellation
    near = (1 + 1e-9) ** 2 * S
    assert_allclose(gaussian_transport(S, near)[0], 1e-18 * np.trace(S), rtol=1e-4)
    with pytest.raises(ValueError, match="other_covariance: expected a positive semi"):
        gaussian_transport(np.eye(2), np.diag([1.0, -0.01]))
    with pytest.raises(ValueError, match="covariance: expected a positive definite"):
        gaussian_transport(np.diag([1.0, 0.0]), np.eye(2))


def test_result_is_a_transport_plan():
    assert isinstance(line_plan([0.0], [1.0]), TransportPlan)


@pytest.mark.parametrize("tiny", [1e-9, 1e-11, 1e-13, 1e-15, 1e-20, 1e-300])
def test_weights_below_the_tolerances_of_the_linear_program(tiny):
    """Dropped once, with a gap of 1e14: the value is that of the small weight alone."""
    for a, b, C, value in (
        ([1 - tiny, tiny], [1.0, 0.0], [[0.0, 1.0], [1.0, 0.0]], 1.0),
        ([1 - tiny, tiny], [0.5, 0.5], [[0.0, 0.0], [2.0, 3.0]], 2.0),
        ([0.5 - tiny, tiny, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], 1.0),
    ):
        result = exact_plan(a, b, C)
        assert_allclose(result.value / tiny, value, rtol=1e-6)
        assert result.gap <= 1e-9
        assert_allclose(result.plan.sum(axis=1), a, rtol=1e-8)
        assert_allclose(result.plan.sum(axis=0), b, rtol=1e-8)
    # A small weight where its column is full pushes another to the next column.
    C = [[0.0, 0.5, 9.0], [9.0, 0.0, 9.0], [0.0, 9.0, 9.0], [9.0, 9.0, 0.0]]
    result = exact_plan([0.25, 0.25, tiny, 0.5 - tiny], [0.25, 0.25 + tiny, 0.5 - tiny], C)
    assert_allclose(result.value / tiny, 0.5 if tiny >= 1e-15 else 0.0, rtol=1e-2)


def test_weights_of_many_sizes():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        a, b = (w / w.sum() for w in 10.0 ** -rng.uniform(0, 14, size=(2, 12)))
        X, Y = rng.normal(size=(2, 12, 2))
        C = ((X[:, None] - Y) ** 2).sum(2)
        result = exact_plan(a, b, C)
        assert result.gap <= 1e-12
        assert_allclose(result.plan.sum(axis=1), a, rtol=1e-6, atol=1e-15)
        assert_allclose(result.plan.sum(axis=0), b, rtol=1e-6, atol=1e-15)
        f, g = result.potentials
        assert (C - f[:, None] - g).min() >= -1e-12


def test_a_value_that_rounding_hides_is_not_called_optimal():
    """Two weights below the rounding of the whole on each side, and no cost for the rest."""
    seen = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = (np.append(1.0, 10.0 ** -rng.uniform(15, 18, 2)) for _ in range(2))
        C = rng.uniform(size=(3, 3))
        C[0, 0] = 0.0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = exact_plan(a, b, C)
        f, g = result.potentials
        missed = abs((result.plan * C).sum() - a @ f - b @ g)
        seen.append(missed > 1e-3 * result.value + 1e-14 * (a @ abs(f) + b @ abs(g)))
        assert (result.status is TransportStatus.OPTIMAL) == (result.gap <= 1e-6)
        assert seen[-1] <= (result.status is TransportStatus.ROUNDING)
        assert bool(caught) == (result.status is not TransportStatus.OPTIMAL)
    assert 0 < sum(seen) < 40
    # On the line a mass below the rounding of the whole is not moved.
    far = line_plan([0.0, 1.0, 2.0], [0.0, 3.0, 5.0], [1, 1e-16, 2e-16], [1, 2e-16, 1e-16])
    assert far.status is TransportStatus.ROUNDING
    assert far.dual_value > 0
