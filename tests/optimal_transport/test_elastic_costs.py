"""Penalties against their definitions as convex programs, and proximal operators against all
nearby points."""

import cvxpy as cp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist

from theorylab.optimal_transport import L1, KOverlap, SmoothedL0, cost_matrix

RNG = np.random.default_rng(0)
PENALTIES = [L1(0.7), KOverlap(0.7, 2), SmoothedL0(0.7, 0.3), SmoothedL0(0.7, 0.0)]


@pytest.mark.parametrize(("d", "k"), [(1, 1), (5, 2), (4, 3), (6, 1), (3, 3), (5, 7)])
def test_overlap_norm_is_the_dual_of_the_largest_squares(d, k):
    for _ in range(4):
        z = RNG.standard_normal(d) * RNG.integers(0, 2, d)
        q = cp.Variable(d)
        largest = cp.sum_largest(cp.square(q), min(k, d))
        problem = cp.Problem(cp.Maximize(q @ z - largest / 2))
        problem.solve(solver="CLARABEL")
        assert_allclose(KOverlap(1.0, k).value(z), problem.value, atol=1e-6)


def test_overlap_norm_in_closed_cases():
    Z = RNG.standard_normal((20, 4))
    assert_allclose(KOverlap(1.0, 4).value(Z), (Z**2).sum(1) / 2)
    assert_allclose(KOverlap(1.0, 1).value(Z), np.abs(Z).sum(1) ** 2 / 2)
    Z[:, 2:] = 0  # at most k nonzeros cost no more than the square
    assert_allclose(KOverlap(1.0, 2).value(Z), (Z**2).sum(1) / 2)
    assert (KOverlap(1.0, 1).value(Z) > 1.01 * (Z**2).sum(1) / 2).any()


@pytest.mark.parametrize("penalty", [L1(0.7), KOverlap(0.7, 1), KOverlap(0.7, 2), KOverlap(3.0, 3)])
@pytest.mark.parametrize("step", [1.0, 0.2])
def test_shrink_minimises(penalty, step):
    V = 2 * RNG.standard_normal((30, 4)) * RNG.integers(0, 2, (30, 4))
    Z = penalty.shrink(V, step)

    def objective(W):
        return ((W - V) ** 2).sum(-1) / 2 + step * penalty.weight * penalty.value(W)

    for size in (1e-3, 0.1, 1.0):
        other = Z + size * RNG.standard_normal((300, 30, 4))
        assert (objective(other) >= objective(Z) - 1e-14).all()
    assert (objective(V) >= objective(Z)).all()
    # Strongly convex: the objective grows at least like half the squared distance.
    assert (objective(other) >= objective(Z) + ((other - Z) ** 2).sum(-1) / 2 - 1e-12).all()
    # Moreau: the rest is a subgradient, <v - z, z> = t s(z) (times 2 for a squared norm).
    degree = 1 if isinstance(penalty, L1) else 2
    products = ((V - Z) * Z).sum(1)
    assert_allclose(products, degree * step * penalty.weight * penalty.value(Z), atol=1e-12)


def test_thresholds_leave_exact_zeros():
    assert L1(1.0).shrink(np.array([0.5, -1.0, 3.0])).tolist() == [0.0, 0.0, 2.0]
    overlap = KOverlap(5.0, 1).shrink(np.array([3.0, 0.1, 0.0]))
    assert np.count_nonzero(overlap) == 1
    assert_allclose(overlap[0], 0.5)  # alone, it is divided by 1 + t


def test_the_smoothed_count():
    Z = np.array([[0.0, 3.0, -4.0], [0.0, 0.0, 0.0], [1e-3, 0.0, 0.0]])
    assert SmoothedL0(1.0, 0.0).value(Z).tolist() == [2.0, 0.0, 1.0]
    assert_allclose(SmoothedL0(1.0, 1e-200).value(Z), [2, 0, 1])
    assert_allclose(SmoothedL0(1.0, 0.1).value(Z[:2]), [2, 0], atol=1e-12)
    narrow = SmoothedL0(1.0, 0.5)
    assert_allclose(narrow.value(np.array([0.5])), 1 - np.exp(-0.5))
    assert_allclose(narrow.cost(np.array([0.5])), 0.125 + 1 - np.exp(-0.5))
    # Not convex: half a large step costs nearly as much as the whole.
    assert narrow.value(np.array([2.0])) > 0.99 * narrow.value(np.array([4.0]))
    best = minimize_scalar(lambda z: float(narrow.cost(np.array([z - 1.0]))), bounds=(0, 1))
    assert best.fun <= 0.5 + narrow.value(np.array([1.0]))


def test_costs_of_pairs():
    X, Y = RNG.standard_normal((5, 3)), RNG.standard_normal((4, 3))
    for penalty in PENALTIES:
        C = cost_matrix(X, Y, penalty)
        expected = [[((x - y) @ (x - y)) / 2 + 0.7 * penalty.value(x - y) for y in Y] for x in X]
        assert_allclose(C, expected, rtol=1e-14)
    assert_allclose(cost_matrix(X, Y, L1(0.0)), cdist(X, Y, "sqeuclidean") / 2)
    assert_allclose(cost_matrix(X, Y, "euclidean"), cdist(X, Y))
    assert_allclose(cost_matrix(X, Y, lambda A, B: A @ B.T), X @ Y.T)


def test_blocks_of_rows_join(monkeypatch):
    X, Y = RNG.standard_normal((50, 3)), RNG.standard_normal((40, 3))
    whole = cost_matrix(X, Y, KOverlap(1.0, 2))
    monkeypatch.setattr("theorylab.optimal_transport.elastic_costs._BLOCK", 500)
    assert np.array_equal(cost_matrix(X, Y, KOverlap(1.0, 2)), whole)


def test_units():
    X, Y = RNG.standard_normal((5, 3)), RNG.standard_normal((4, 3))
    for u in (1e-8, 1e8):
        for one, other in (
            (L1(0.5), L1(0.5 * u)),
            (KOverlap(0.5, 2), KOverlap(0.5, 2)),
            (SmoothedL0(0.5, 0.2), SmoothedL0(0.5 * u * u, 0.2 * u)),
        ):
            assert_allclose(cost_matrix(X * u, Y * u, other), cost_matrix(X, Y, one) * u * u)


def test_bad_input():
    X = np.zeros((2, 2))
    for make, name in (
        (lambda: L1(-1.0), "weight: expected a finite real number"),
        (lambda: L1("one"), "weight"),
        (lambda: KOverlap(1.0, 0), "k: expected an integer >= 1"),
        (lambda: KOverlap(1.0, 1.5), "k"),
        (lambda: SmoothedL0(1.0, -0.1), "width"),
        (lambda: cost_matrix(X, X, "manhattan"), "cost: expected sqeuclidean, euclidean"),
        (lambda: cost_matrix(X, X, lambda A, B: A[:1]), "cost"),
        (lambda: cost_matrix(X, np.zeros((2, 3)), L1(1.0)), r"Y: expected shape \(any, 2\)"),
        (lambda: cost_matrix(X + 1e200, X, L1(1.0)), "X, Y: expected points whose costs stay"),
        (lambda: cost_matrix(X, X, lambda A, B: np.full((2, 2), np.nan)), "cost"),
    ):
        with pytest.raises(ValueError, match=name):
            make()
