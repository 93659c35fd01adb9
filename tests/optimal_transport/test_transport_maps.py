"""Elastic maps: all permutations, other programs for the convex potentials, optimality of
thresholded maps by enumeration."""

import itertools

import cvxpy as cp
import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from theorylab.optimal_transport import (
    L1,
    KOverlap,
    SmoothedL0,
    convex_potential,
    cost_matrix,
    elastic_map,
    pareto_curve,
    proximal_map,
    slackness,
)

PENALTIES = [L1(0.7), KOverlap(0.7, 1), SmoothedL0(0.7, 0.3), SmoothedL0(0.7, 0.0)]


def clouds(n, m, d, seed, spacing=0.0):
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 0.3
    return (np.round(X / spacing), np.round(Y / spacing)) if spacing else (X, Y)


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_against_all_permutations(penalty):
    X, Y = clouds(6, 6, 2, 1)
    found = elastic_map(X, Y, penalty)
    costs = {
        p: np.mean([penalty.cost(x - Y[j]) for x, j in zip(X, p, strict=True)])
        for p in itertools.permutations(range(6))
    }
    best = min(costs, key=costs.get)
    assert_allclose(found.value, costs[best], rtol=1e-13)
    assert np.array_equal(found.images, Y[list(best)])
    moved = X - found.images
    assert_allclose(found.transport_cost, np.mean((moved**2).sum(1)) / 2)
    assert_allclose(found.sparsity, penalty.value(moved).mean())
    assert_allclose(found.transport_cost + 0.7 * found.sparsity, found.value)
    assert slackness(found.plan, cost_matrix(X, Y, penalty)).infeasibility <= 1e-14
    assert "6 points" in repr(found)


@pytest.mark.parametrize(("n", "m"), [(7, 4), (3, 5)])
def test_other_numbers_of_points(n, m):
    X, Y = clouds(n, m, 2, 2)
    found = elastic_map(X, Y, L1(0.5))
    C = cost_matrix(X, Y, L1(0.5))
    P = ot.emd(np.full(n, 1 / n), np.full(m, 1 / m), C)
    assert_allclose(found.value, np.vdot(P, C), rtol=1e-12)
    assert_allclose(found.images, n * found.plan.plan.toarray() @ Y)
    moved = X[:, None] - Y
    assert_allclose(found.transport_cost, np.vdot(found.plan.plan.toarray(), (moved**2).sum(2)) / 2)


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_potentials_extend_to_all_points(penalty):
    X, Y = clouds(8, 8, 2, 3)
    found = elastic_map(X, Y, penalty)
    potential, images = found.at(X)
    f, g = found.potentials
    assert_allclose(potential, f, atol=1e-13)
    assert_allclose(f.mean() + g.mean(), found.value)
    assert np.array_equal(images, found.images)
    points = np.random.default_rng(4).standard_normal((50, 2))
    potential, images = found.at(points)
    slack = cost_matrix(points, Y, penalty) - g - potential[:, None]
    assert slack.min() >= -1e-14
    assert_allclose(slack.min(axis=1), 0, atol=1e-14)
    chosen = [int(np.flatnonzero((image == Y).all(1))[0]) for image in images]
    assert_allclose(slack[np.arange(50), chosen], 0, atol=1e-14)


def test_a_source_prefers_its_own_target():
    for seed in range(5):
        X, Y = clouds(30, 30, 3, seed)
        found = elastic_map(X, Y, L1(0.7))
        f, g = found.potentials
        slack = np.sort(cost_matrix(X, Y, L1(0.7)) - f[:, None] - g, axis=1)
        assert_allclose(slack[:, 0], 0, atol=1e-12)
        assert slack[:, 1].min() > 1e-9  # the optimum is unique, and so is the choice
    X, Y = clouds(5, 7, 2, 0)
    split = elastic_map(X, Y, L1(0.7))
    assert split.potentials is split.plan.potentials


@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 3), st.sampled_from(PENALTIES))
def test_the_exchange_inequalities(seed, n, d, penalty):
    X, Y = clouds(n, n, d, seed, spacing=0.5)
    curve = pareto_curve(X, Y, penalty, weights=[0.0, 0.3, 1.0, 3.0, 20.0])
    weights, C, S = curve.weights, curve.transport_cost, curve.sparsity
    for i, j in itertools.combinations(range(5), 2):
        room = 1e-12 * (1 + weights[j])
        assert weights[i] * (S[i] - S[j]) - room <= C[j] - C[i] <= weights[j] * (S[i] - S[j]) + room


def test_the_curve_ends_at_both_optima():
    X, Y = clouds(7, 7, 2, 5, spacing=0.8)
    l0 = SmoothedL0(1.0, 0.0)
    curve = pareto_curve(X, Y, l0, weights=[0.0, 1e6])
    weights, C, S = curve.weights, curve.transport_cost, curve.sparsity
    assert_allclose(C[0], elastic_map(X, Y, L1(0.0)).transport_cost)
    w = np.full(7, 1 / 7)
    counts = (X[:, None] != Y).sum(2).astype(float)
    assert_allclose(S[1], ot.emd2(w, w, counts))
    assert weights.tolist() == [0.0, 1e6]
    assert S[1] < S[0]
    assert C[1] > C[0]


def test_a_wide_smoothing_can_do_worse_than_l1():
    X, Y = (0.4 * cloud for cloud in clouds(60, 60, 3, 0, spacing=0.4))

    def total(penalty):
        found = elastic_map(X, Y, penalty)
        moved = np.abs(X - found.images) > 0.2
        return found.transport_cost + moved.sum() / 60

    least, narrow, wide = (total(SmoothedL0(1.0, width)) for width in (0.0, 0.05, 0.4))
    l1 = min(total(L1(w)) for w in np.geomspace(1e-3, 1e3, 25))
    assert_allclose(narrow, least, rtol=1e-12)
    assert least < l1 - 0.01
    assert wide > l1 + 0.01


# --------------------------------------------------------------------------- convex potentials
@pytest.mark.parametrize(("n", "m", "lam"), [(6, 6, 2.0), (5, 8, 0.7), (6, 3, 0.7), (1, 4, 1.0)])
def test_convex_potentials_against_another_program(n, m, lam):
    X, Y = clouds(n, m, 2, n + m)
    found = convex_potential(X, Y, L1(lam))
    P = cp.Variable((n, m), nonneg=True)
    mean = m * (P.T @ X) - Y
    objective = cp.sum(cp.multiply(P, cost_matrix(X, Y, L1(0.0)))) + lam / m * cp.sum(cp.abs(mean))
    marginals = [cp.sum(P, axis=1) == 1 / n, cp.sum(P, axis=0) == 1 / m]
    problem = cp.Problem(cp.Minimize(objective), marginals)
    problem.solve(solver="CLARABEL")
    assert_allclose(found.plan.value, problem.value, rtol=1e-6)
    assert found.plan.gap == 0
    assert_allclose(found.plan.dual_value, found.plan.value, rtol=1e-9)
    assert found.plan.marginal_error < 1e-12
    # The potentials are feasible, and the plan is complementary to them.
    f, g = found.plan.potentials
    moved = X[:, None] - Y
    slack = (moved**2).sum(2) / 2 + np.einsum("ijk,jk->ij", moved, found.slopes)
    slack -= f[:, None] + g
    assert slack.min() >= -1e-12
    assert np.abs(found.slopes).max() <= lam
    assert np.vdot(slack, found.plan.plan) <= 1e-9
    assert found.plan.value <= elastic_map(X, Y, L1(lam)).value + 1e-12


def test_the_potential_attains_the_minimax_value():
    X, Y = clouds(5, 5, 2, 11)
    lam = 1.5
    found = convex_potential(X, Y, L1(lam))
    inner = []
    for y in Y:
        # A concave maximum over the plane: the best of many local searches, from below.
        def negative(z, y=y):
            return float(found.at(z[None])[0]) + lam * np.abs(z - y).sum() - y @ z

        starts = [*X, *Y]
        runs = [minimize(negative, z, method="Nelder-Mead", tol=1e-10) for z in starts]
        inner.append(-min(r.fun for r in runs))
    V = (X**2).sum(1).mean() / 2 + (Y**2).sum(1).mean() / 2 - found.at(X).mean() - np.mean(inner)
    assert_allclose(V, found.plan.value, rtol=1e-6)
    mid = found.at((X[:1] + X[1:2]) / 2)
    assert mid <= (found.at(X[:1]) + found.at(X[1:2])) / 2 + 1e-13


def test_without_a_penalty_convexity_is_free():
    X, Y = clouds(9, 9, 3, 6)
    assert_allclose(convex_potential(X, Y, L1(0.0)).plan.value, elastic_map(X, Y, L1(0.0)).value)
    assert_allclose(
        convex_potential(X, Y, L1(1e-6)).plan.value, elastic_map(X, Y, L1(1e-6)).value, rtol=1e-9
    )
    strict = convex_potential(X, Y, L1(2.0)).plan.value
    assert strict < 0.95 * elastic_map(X, Y, L1(2.0)).value


# ---------------------------------------------------------------------------------- thresholding
@pytest.mark.parametrize("penalty", [L1(0.8), KOverlap(1.5, 1), KOverlap(0.5, 2)], ids=str)
def test_thresholded_maps_minimise_and_are_optimal(penalty):
    rng = np.random.default_rng(7)
    X, root = 2 * rng.standard_normal((6, 3)), rng.standard_normal((3, 3))
    B = root @ root.T
    T = proximal_map(X, B, penalty)

    def objective(Y):
        return penalty.cost(X - Y) + np.einsum("...i,ij,...j->...", Y, B, Y) / 2

    for size in (1e-3, 0.1, 1.0):
        other = T + size * rng.standard_normal((500, 6, 3))
        assert (objective(other) >= objective(T) - 1e-13).all()
    assert_allclose(X - T, penalty.shrink(T @ B), atol=1e-12)
    assert (np.abs(X - T) == 0).any()
    stay = np.mean(penalty.cost(X - T))
    for p in itertools.permutations(range(6)):
        assert stay <= np.mean(penalty.cost(X - T[list(p)])) + 1e-12


def test_elastic_net_in_one_dimension():
    # y = (x + lam sign) / (1 + b) where it moves: closed form.
    X = np.array([[5.0], [0.3], [-2.0]])
    T = proximal_map(X, [[2.0]], L1(1.0))
    assert_allclose(T.ravel(), [2.0, 0.3, -1.0], rtol=1e-13)
    assert T[1, 0] == 0.3


def test_slow_steps_are_reported():
    with pytest.warns(RuntimeWarning, match="the curvature is large"):
        proximal_map([[1.0, 2.0]], [[1e6, 1e3], [1e3, 1.0]], L1(1e-3))
    still = proximal_map([[1.0, 2.0]], np.zeros((2, 2)), L1(1.0))
    assert still.tolist() == [[1.0, 2.0]]


# ---------------------------------------------------------------------------------- invariances
@pytest.mark.parametrize("u", [1e-8, 1e8])
def test_units(u):
    X, Y = clouds(7, 7, 2, 8)
    for one, other in (
        (L1(0.5), L1(0.5 * u)),
        (KOverlap(0.5, 1), KOverlap(0.5, 1)),
        (SmoothedL0(0.5, 0.2), SmoothedL0(0.5 * u * u, 0.2 * u)),
    ):
        a, b = elastic_map(X, Y, one), elastic_map(X * u, Y * u, other)
        assert_allclose(b.images, a.images * u, rtol=1e-13)
        assert_allclose(b.value, a.value * u * u, rtol=1e-12)
    a, b = convex_potential(X, Y, L1(2.0)), convex_potential(X * u, Y * u, L1(2.0 * u))
    assert_allclose(b.plan.value, a.plan.value * u * u, rtol=1e-9)
    assert np.abs(b.slopes).max() <= 2.0 * u
    assert_allclose(b.at(X * u), a.at(X) * u * u, rtol=1e-6, atol=1e-7 * u * u)
    B = np.array([[1.0, 0.4], [0.4, 0.5]])
    assert_allclose(proximal_map(X * u, B, L1(0.3 * u)), u * proximal_map(X, B, L1(0.3)))


def test_order_and_translation():
    X, Y = clouds(7, 7, 2, 9)
    p, q = (np.random.default_rng(s).permutation(7) for s in (1, 2))
    for penalty in PENALTIES:
        a, b = elastic_map(X, Y, penalty), elastic_map(X[p] + 5, Y[q] + 5, penalty)
        assert_allclose(b.images, a.images[p] + 5)
    a, b = convex_potential(X, Y, L1(1.0)), convex_potential(X[p] + 5, Y[q] + 5, L1(1.0))
    assert_allclose(b.plan.value, a.plan.value, rtol=1e-9)
    B = np.array([[1.0, 0.4], [0.4, 0.5]])
    assert_allclose(proximal_map(X[p], B, L1(0.3)), proximal_map(X, B, L1(0.3))[p], atol=1e-13)


def test_repeated_and_single_points():
    X, Y = np.zeros((4, 2)), np.zeros((4, 2))
    for penalty in PENALTIES:
        found = elastic_map(X, Y, penalty)
        assert found.value == found.sparsity == found.transport_cost == 0
        assert (found.images == 0).all()
    assert convex_potential(X, Y, L1(1.0)).plan.value == 0
    X[:2] = 1
    found = elastic_map(X, Y, L1(0.5))
    assert_allclose(found.value, 0.5 * (1 + 0.5 * 2))
    assert_allclose(convex_potential(X, Y + 3, L1(0.5)).plan.value, (4 + 9) / 2 + 0.5 * 5)
    assert elastic_map([[1.0]], [[3.0]], L1(1.0)).value == 4.0
    assert proximal_map(np.ones((3, 2)), np.eye(2), L1(0.2)).tolist() == [[0.6, 0.6]] * 3


def test_results_are_read_only():
    X, Y = clouds(4, 4, 2, 1)
    found = elastic_map(X, Y, L1(1.0))
    for array in (found.images, found.plan.potentials[0], convex_potential(X, Y, L1(1.0)).slopes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_bad_input():
    X, Y = clouds(4, 4, 2, 1)
    for call, message in (
        (lambda: elastic_map(X, Y, 0.5), "penalty: expected an instance of Penalty"),
        (lambda: convex_potential(X, Y, KOverlap(1.0, 1)), "penalty: expected an instance of L1"),
        (lambda: proximal_map(X, np.eye(2), SmoothedL0(1.0, 0.1)), "penalty"),
        (lambda: proximal_map(X, -np.eye(2), L1(1.0)), "curvature: expected a positive semi"),
        (lambda: proximal_map(X, np.eye(3), L1(1.0)), "curvature: expected square"),
        (lambda: pareto_curve(X, Y, L1(0.0), weights=[-1.0]), "weights: expected non-negative"),
        (lambda: elastic_map(X * 1e200, Y, L1(1.0)), "X, Y: expected points"),
        (lambda: elastic_map(X, Y, L1(1.0)).at(np.ones((2, 3))), r"points: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
