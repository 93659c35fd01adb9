"""Sparse plans: enumeration of supports, quadratic and conic programs, exact optimality."""

import itertools

import cvxpy as cp
import numpy as np
import ot
import pytest
from numpy.testing import assert_allclose

from theorylab.optimal_transport import (
    TransportStatus,
    conjugate_jump_bound,
    exact_plan,
    quadratic_plan,
    sparse_plan,
    support_norm,
    top_k_plan,
)


def clouds(n, m, seed):
    rng = np.random.default_rng(seed)
    C = ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2)) - 0.5) ** 2).sum(2)
    return rng.dirichlet(np.full(n, 5.0)), rng.dirichlet(np.full(m, 5.0)), C


@pytest.mark.parametrize("gamma", [100.0, 1.0, 0.01])
def test_quadratic_plan_is_optimal(gamma):
    a, b, C = clouds(30, 20, 0)
    result = quadratic_plan(a, b, C, gamma)
    f, g = result.potentials
    P = result.plan.toarray()
    assert_allclose(P, np.maximum(f[:, None] + g - C, 0) / gamma, atol=1e-9)
    assert_allclose(P.sum(1), a, atol=1e-12)
    assert_allclose(P.sum(0), b, atol=1e-12)
    assert_allclose(result.value, (P * C).sum() + gamma / 2 * (P**2).sum(), rtol=1e-13)
    dual = a @ f + b @ g - (np.maximum(f[:, None] + g - C, 0) ** 2).sum() / (2 * gamma)
    assert_allclose(result.dual_value, dual, rtol=1e-9)
    assert result.gap <= 1e-9


@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")
def test_quadratic_plan_against_pot():
    a, b, C = clouds(20, 25, 1)
    theirs = ot.smooth.smooth_ot_dual(a, b, C, 1.0, reg_type="l2", stopThr=1e-14, numItermax=20000)
    assert_allclose(quadratic_plan(a, b, C, 1.0).plan.toarray(), theirs, atol=2e-6)


def test_the_support_is_that_of_the_conic_solution():
    a, b, C = clouds(12, 10, 2)
    P = cp.Variable((12, 10), nonneg=True)
    problem = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(C, P)) + 5 * cp.sum_squares(P)),
        [P.sum(axis=1) == a, P.sum(axis=0) == b],
    )
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
    result = quadratic_plan(a, b, C, 10.0)
    assert_allclose(result.value, problem.value, rtol=1e-10)
    np.testing.assert_array_equal(result.plan.toarray() > 0, P.value > 1e-7)


def test_large_gamma_spreads_and_small_gamma_is_exact():
    a, b, C = clouds(8, 9, 3)
    w, v = np.full(8, 1 / 8), np.full(9, 1 / 9)
    assert_allclose(quadratic_plan(w, v, C, 1e6).plan.toarray(), 1 / 72, rtol=1e-2)
    least = exact_plan(a, b, C).value
    small = quadratic_plan(a, b, C, 1e-6).value
    assert least <= small <= least + 5e-7 * max(a.max(), b.max())


def envelope(p, k):
    """Least sum of squares of a mixture of k-sparse vectors of equal sum, by its supports."""
    n, total = p.size, p.sum()
    sets = list(itertools.combinations(range(n), k))
    T = cp.Variable((len(sets), n), nonneg=True)
    z = cp.Variable(len(sets), nonneg=True)
    rules = [T.sum(axis=0) == p, cp.sum(z) == 1, T.sum(axis=1) == total * z]
    cost = 0
    for s, keep in enumerate(sets):
        rules += [T[s, [i for i in range(n) if i not in keep]] == 0] if k < n else []
        cost = cost + cp.quad_over_lin(T[s], z[s])
    problem = cp.Problem(cp.Minimize(cost), rules)
    problem.solve(solver=cp.CLARABEL)
    return problem.value


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_support_norm_is_the_convex_envelope(k):
    rng = np.random.default_rng(k)
    for p in (rng.dirichlet(np.ones(4)), np.array([0.7, 0.1, 0.1, 0.1]), np.full(4, 0.25)):
        assert_allclose(support_norm(p, k=k), envelope(p, k), rtol=1e-5)
    sparse = np.zeros(9)
    sparse[:k] = rng.uniform(size=k)
    assert_allclose(support_norm(sparse, k=k), sparse @ sparse, rtol=1e-14)


def test_support_norm_between_squared_one_and_two_norms():
    p = np.random.default_rng(0).uniform(size=12)
    norms = [support_norm(p, k=k) for k in range(1, 14)]
    assert_allclose(norms[0], p.sum() ** 2)
    assert_allclose(norms[11:], [p @ p] * 2)
    assert (np.diff(norms) <= 1e-12).all()
    assert_allclose(support_norm(1e-9 * p, k=3), 1e-18 * norms[2])


def relaxed(a, b, C, gamma, k):
    """D_k by a conic program of the relaxation."""
    n, m = C.shape
    P, Z = cp.Variable((n, m), nonneg=True), cp.Variable((n, m))
    cost = cp.sum(cp.multiply(C, P))
    for i in range(n):
        for j in range(m):
            cost = cost + gamma / 2 * cp.quad_over_lin(P[i, j], Z[i, j])
    rules = [P.sum(axis=1) == a, P.sum(axis=0) == b, Z <= 1, Z.sum(axis=0) <= k]
    problem = cp.Problem(cp.Minimize(cost), rules)
    problem.solve(solver=cp.CLARABEL)
    return problem.value


@pytest.mark.parametrize("k", [1, 2, 3])
def test_value_against_the_conic_program(k):
    a, b, C = clouds(6, 4, 4)
    result = sparse_plan(a, b, C, 5.0, k=k)
    assert result.gap <= 1e-9
    assert_allclose(result.value, relaxed(a, b, C, 5.0, k), rtol=1e-6)
    P = result.plan.toarray()
    norms = sum(support_norm(column, k=k) for column in P.T)
    assert_allclose(result.value, (P * C).sum() + 2.5 * norms, rtol=1e-12)


def test_the_ends_of_k():
    a, b, C = clouds(15, 12, 5)
    gamma = 2.0
    whole = sparse_plan(a, b, C, gamma, k=15)
    assert_allclose(whole.value, quadratic_plan(a, b, C, gamma).value, rtol=1e-12)
    one = sparse_plan(a, b, C, gamma, k=1)
    assert_allclose(one.value, exact_plan(a, b, C).value + gamma / 2 * b @ b, rtol=1e-9)
    values = [sparse_plan(a, b, C, gamma, k=k).value for k in range(1, 16)]
    assert (np.diff(values) <= 1e-9).all()
    assert values[0] > values[-1] * 1.0001


def best_with_at_most(a, b, C, gamma, k):
    """The constrained minimum P_k by all supports."""
    n, m = C.shape
    sets = list(itertools.combinations(range(n), k))
    best = np.inf
    for choice in itertools.product(sets, repeat=m):
        mask = np.zeros((n, m))
        for j, keep in enumerate(choice):
            mask[list(keep), j] = 1
        if not mask.any(axis=1).all():
            continue
        P = cp.Variable((n, m), nonneg=True)
        problem = cp.Problem(
            cp.Minimize(cp.sum(cp.multiply(C, P)) + gamma / 2 * cp.sum_squares(P)),
            [P.sum(axis=1) == a, P.sum(axis=0) == b, cp.multiply(1 - mask, P) == 0],
        )
        problem.solve(solver=cp.CLARABEL)
        if problem.status == "optimal":
            best = min(best, problem.value)
    return best


def test_a_sparse_plan_certifies_the_constrained_optimum():
    rng = np.random.default_rng(11)
    met = 0
    for _ in range(4):
        C = rng.uniform(size=(4, 2))
        a, b = np.full(4, 0.25), np.full(2, 0.5)
        result = sparse_plan(a, b, C, 1.0, k=2)
        least = best_with_at_most(a, b, C, 1.0, 2)
        assert result.value <= least + 1e-7
        if result.plan.count_nonzero(axis=0).max() <= 2:
            met += 1
            assert_allclose(result.value, least, rtol=1e-6)
    assert met


def test_top_k_plan_against_all_supports():
    rng = np.random.default_rng(6)
    f, C, b = rng.normal(size=5), rng.uniform(size=(5, 3)), np.array([0.2, 1.0, 3.0])
    for k in (1, 2, 4, 5):
        plan, values = top_k_plan(f, b, C, 0.7, k=k)
        assert (np.count_nonzero(plan, axis=0) <= k).all()
        assert_allclose(plan.sum(0), b)
        for j in range(3):
            s = f - C[:, j]
            best = -np.inf
            for keep in itertools.combinations(range(5), k):
                for size in range(1, k + 1):
                    for used in itertools.combinations(keep, size):
                        u = list(used)
                        t = s[u] / 0.7 + (b[j] - s[u].sum() / 0.7) / size
                        if (t >= -1e-12).all():
                            best = max(best, s[u] @ t - 0.35 * t @ t)
            assert_allclose(values[j], best, rtol=1e-10)
            t = plan[:, j]
            assert_allclose(s @ t - 0.35 * t @ t, values[j], rtol=1e-12)


def test_largest_jump_of_the_gradient():
    k, b, gamma = 2, 1.0, 1.0
    C = np.zeros((4, 1))
    below = top_k_plan([0.0, 0.0, -1e-9, -5.0], [b], C, gamma, k=k)[0]
    above = top_k_plan([0.0, -1e-9, 0.0, -5.0], [b], C, gamma, k=k)[0]
    jump = np.linalg.norm(below - above)
    bound = conjugate_jump_bound(b, k=k)
    assert bound * 0.999 <= jump <= bound * (1 + 1e-8)  # attained when all k entries are equal
    below = top_k_plan([0.5, 0.0, -1e-9, -5.0], [b], C, gamma, k=k)[0]
    above = top_k_plan([0.5, -1e-9, 0.0, -5.0], [b], C, gamma, k=k)[0]
    assert_allclose(np.linalg.norm(below - above), np.sqrt(2) * 0.25, rtol=1e-6)


def test_jump_where_many_scores_tie():
    """All n scores tie: the limits are the flat plans on any k rows, min(k, n - k) apart."""
    n, C = 5, np.zeros((5, 1))
    for k in (1, 2, 3, 4):
        near = [
            top_k_plan(1e-9 * np.isin(range(n), first), [2.0], C, 0.5, k=k)[0]
            for first in itertools.combinations(range(n), k)
        ]
        largest = max(np.linalg.norm(p - q) for p in near for q in near)
        bound = conjugate_jump_bound(2.0, k=k, swaps=min(k, n - k))
        assert_allclose(largest, bound, rtol=1e-8)
    with pytest.raises(ValueError, match=r"^swaps:.*at most"):
        conjugate_jump_bound(1.0, k=2, swaps=3)


def test_near_linear_and_larger_problems():
    rng = np.random.default_rng(9)
    X, Y = rng.normal(size=(2, 150, 10))
    C = ((X[:, None] - Y) ** 2).sum(2)
    w = np.full(150, 1 / 150)
    for gamma in (1e-4, 1e-1, 1e2):
        for k in (2, 7):
            result = sparse_plan(w, w, C, gamma, k=k)
            assert result.status is TransportStatus.CONVERGED
            assert result.gap <= 1e-9
            assert result.marginal_error <= 1e-10


def test_flat_pieces_of_the_semidual():
    """Row masses that are column masses make it linear between kinks; no step may circle there."""
    rng = np.random.default_rng(24)
    f, C, b = rng.uniform(size=4), rng.uniform(size=(4, 2)), rng.dirichlet(np.full(2, 5.0))
    a = top_k_plan(f, b, C, 1.0, k=1)[0].sum(axis=1)
    for costs in (C, rng.uniform(size=(4, 2))):
        result = sparse_plan(a, b, costs, 1.0, k=1)
        assert result.status is TransportStatus.CONVERGED
        assert_allclose(result.value, exact_plan(a, b, costs).value + b @ b / 2, rtol=1e-8)


def test_a_singular_curvature_is_damped():
    rng = np.random.default_rng(16)
    a, b = rng.dirichlet(np.full(5, 5.0)), rng.dirichlet(np.full(4, 5.0))
    C = rng.uniform(size=(5, 4))
    result = sparse_plan(a, b, C, 3.0, k=1)
    assert_allclose(result.value, exact_plan(a, b, C).value + 1.5 * b @ b, rtol=1e-8)


def test_tied_integer_costs_converge():
    """Errors within the stage's tolerance once left the potential as it was, to the end."""
    C = np.array(
        [[0, 2, 0, 1, 2], [0, 0, 1, 0, 1], [0, 0, 2, 1, 1], [0, 2, 0, 2, 0], [0, 2, 2, 0, 0]]
    )
    w = np.full(5, 0.2)
    for gamma in (1e-3, 1e-2, 1e-1):
        result = sparse_plan(w, w, C, gamma, k=2)
        assert result.status is TransportStatus.CONVERGED
        assert_allclose(result.value, relaxed(w, w, C, gamma, 2), atol=1e-8)


def test_a_large_square_ends_by_the_gap():
    a, b = np.full(4, 0.25), np.full(3, 1 / 3)
    C = np.random.default_rng(11).uniform(size=(4, 3))
    for gamma in (1e2, 1e3):
        result = sparse_plan(a, b, C, gamma, k=1)
        assert result.status is TransportStatus.CONVERGED
        assert result.n_iterations <= 200
        assert_allclose(result.value, exact_plan(a, b, C).value + gamma / 6, rtol=1e-9)


@pytest.mark.parametrize("gamma", [1e-3, 0.1])
def test_weights_without_symmetry_and_a_small_square(gamma):
    """A weight of the proximal term that fell by 4 a stage once left hundreds of steps to one."""
    rng = np.random.default_rng(1)
    a, b = rng.dirichlet(np.full(200, 5.0)), rng.dirichlet(np.full(200, 5.0))
    C = ((rng.normal(size=(200, 1, 3)) - rng.normal(size=(1, 200, 3))) ** 2).sum(2)
    for result in (sparse_plan(a, b, C, gamma, k=2), quadratic_plan(a, b, C, gamma)):
        assert result.status is TransportStatus.CONVERGED
        assert result.n_iterations <= 200


def test_balanced_routing_with_a_large_square():
    """A proximal weight far below that of the square once circled around the kinks."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        C = ((rng.normal(size=(36, 1, 2)) - rng.normal(size=(1, 6, 2))) ** 2).sum(2)
        result = sparse_plan(np.full(36, 1 / 36), np.full(6, 1 / 6), C, 100.0, k=6)
        assert result.status is TransportStatus.CONVERGED
        assert result.n_iterations <= 100
        assert (result.plan.count_nonzero(axis=0) == 6).all()


def test_a_loose_gap_does_not_fill_in_entries():
    """Rows and columns are met before rounding, whatever the gap asked for."""
    rng = np.random.default_rng(9)
    X, Y = rng.normal(size=(2, 60, 5))
    C, w = ((X[:, None] - Y) ** 2).sum(2), np.full(60, 1 / 60)
    for gamma in (0.1, 10.0):
        for tol in (0.1, 1e-2, 1e-3):
            assert sparse_plan(w, w, C, gamma, k=2, tol=tol).plan.nnz <= 120


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_bounds_hold_wherever_the_steps_end(steps):
    a, b, C = clouds(40, 30, 8)
    for k in (1, 2, 5, 40):
        best = sparse_plan(a, b, C, 1.0, k=k).value
        with pytest.warns(RuntimeWarning, match="iterations"):
            result = sparse_plan(a, b, C, 1.0, k=k, max_iter=steps)
        assert result.status is TransportStatus.NOT_CONVERGED
        assert_allclose(result.plan.sum(axis=1), a, rtol=1e-10)
        assert_allclose(result.plan.sum(axis=0), b, rtol=1e-10)
        assert result.marginal_error <= 1e-12
        assert result.dual_value <= best + 1e-9 <= result.value + 1e-8
        assert_allclose(result.gap, (result.value - result.dual_value) / result.value, rtol=1e-6)
        f, g = result.potentials
        plan, values = top_k_plan(f, b, C, 1.0, k=k)
        assert_allclose(result.dual_value, f @ a - values.sum(), rtol=1e-12)
        # The largest scores of a column, less those of its mass, are what its potential takes off.
        used = plan > 1e-12
        spread = np.where(used, f[:, None] + g - C - plan, 0.0)
        assert abs(spread).max() <= 1e-10
