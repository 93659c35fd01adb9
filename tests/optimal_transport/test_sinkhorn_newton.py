"""Sparse Newton steps against scaling and finite differences; exponents and gaps against all
permutations and all cycles."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import linear_sum_assignment

from theorylab.optimal_transport import (
    TransportStatus,
    exact_plan,
    lyapunov,
    newton_plan,
    plan_distance_bound,
    sinkhorn_plan,
    sparsity_exponent,
    vertex_gap,
)
from theorylab.optimal_transport.sinkhorn_newton import _Rows


def clouds(n, m, seed):
    rng = np.random.default_rng(seed)
    C = ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, m, 2)) - 0.5) ** 2).sum(2)
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m)), C


@pytest.mark.parametrize(("n", "m"), [(40, 40), (25, 60), (60, 25), (1, 4), (4, 1)])
@pytest.mark.parametrize("weight", [10.0, 0.1, 0.01])
def test_the_same_plan_as_scaling(n, m, weight):
    a, b, C = clouds(n, m, 0)
    eps = weight * C.max()
    result = newton_plan(a, b, C, eps, tol=1e-13)
    assert_allclose(result.plan.toarray(), sinkhorn_plan(a, b, C, eps, tol=1e-13).plan, atol=1e-12)
    assert result.gap <= 1e-11


@pytest.mark.parametrize("weight", [1e-3, 1e-4, 1e-5])
def test_optimality_at_small_weights(weight):
    a, b, C = clouds(80, 70, 1)
    eps = weight * C.max()
    result = newton_plan(a, b, C, eps)
    assert result.status is TransportStatus.CONVERGED
    f, g = result.potentials
    plan = np.exp((f[:, None] + g - C) / eps)
    assert abs(plan.sum(1) - a).sum() + abs(plan.sum(0) - b).sum() <= 2e-9
    assert_allclose(result.plan.toarray(), plan, atol=1e-11)
    assert result.gap <= 1e-8
    optimum = exact_plan(a, b, C).value
    # Entropy lies between 0 and log nm.
    assert optimum - eps * np.log(80 * 70) <= result.dual_value
    assert optimum <= result.transport_cost + 1e-9 * C.max()
    assert result.value <= optimum + 1e-9 * C.max()


def test_tied_assignments():
    w = np.full(20, 1 / 20)
    C = np.random.default_rng(0).integers(0, 3, (20, 20)).astype(float)
    result = newton_plan(w, w, C, 0.01)
    assert result.status is TransportStatus.CONVERGED
    assert result.gap < 1e-8


def test_a_start_saves_steps():
    a, b, C = clouds(50, 50, 2)
    eps = 1e-3 * C.max()
    cold = newton_plan(a, b, C, eps)
    assert newton_plan(a, b, C, eps, start=cold).n_iterations == 0
    near = newton_plan(a, b, C, eps * 1.01, start=cold)
    assert 0 < near.n_iterations < cold.n_iterations


def test_stages_follow_the_potentials_to_small_weights_in_few_steps():
    # 142 steps; from the last stage's potentials 185, back along their line 307.
    steps = 0
    for seed in range(4):
        a, b, C = clouds(60, 50, seed)
        result = newton_plan(a, b, C, 1e-5 * C.max())
        assert result.status is TransportStatus.CONVERGED
        steps += result.n_iterations
    assert steps <= 165


def test_a_plan_that_is_almost_an_assignment_takes_few_steps():
    # Hessians are singular up to rounding; 51 steps of the largest eps.
    w, steps = np.full(12, 1 / 12), []
    for seed in range(6):
        C = np.random.default_rng(seed).uniform(size=(12, 12))
        found = [newton_plan(w, w, C, eps) for eps in (1e-2, 1e-4, 1e-8)]
        assert all(result.status is TransportStatus.CONVERGED for result in found)
        steps.append([result.n_iterations for result in found])
    assert np.all(np.sum(steps, axis=0) <= [57, 20, 16])


@pytest.mark.parametrize("kept", [0.0, 1e-3, 0.2])
def test_the_hessian_is_that_of_the_entries_kept_in_each_row(kept):
    a, b, C = clouds(60, 50, 0)
    rows = _Rows(C, a, b)
    eps, g = 5e-4 * C.max(), 0.1 * np.random.default_rng(1).normal(size=50)
    slope = rows.ascent(g, eps)
    P = rows.plan().toarray()
    exact = np.exp((g - C - (g - C).max(axis=1, keepdims=True)) / eps)
    assert_allclose(P, exact * (a / exact.sum(axis=1))[:, None], rtol=1e-10, atol=1e-17)
    assert_allclose(slope, b - P.sum(axis=0), atol=1e-14)
    assert np.count_nonzero(P) < 0.2 * P.size
    P = np.where(kept * a[:, None] < P, P, 0.0)
    full = np.diag(P.sum(axis=0)) - (P / P.sum(axis=1)[:, None]).T @ P
    assert_allclose(np.tril(rows.curvature(kept)), np.tril(full), atol=1e-15)


def test_wide_problems_keep_their_sides():
    a, b, C = clouds(10, 30, 3)
    tall = newton_plan(b, a, C.T, 0.1, tol=1e-12)
    wide = newton_plan(a, b, C, 0.1, tol=1e-12)
    assert_allclose(wide.plan.toarray(), tall.plan.toarray().T, atol=1e-14)
    f, g = wide.potentials[0], tall.potentials[1]
    assert_allclose(f - f[0], g - g[0], atol=1e-9)
    again = newton_plan(a, b, C, 0.1, tol=1e-11, start=wide)
    assert again.n_iterations == 0


def test_lyapunov_derivatives_against_differences():
    a, b, C = clouds(5, 4, 4)
    rng = np.random.default_rng(0)
    x, y, eps = rng.normal(size=5) / 9, rng.normal(size=4) / 9, 0.3
    point = lyapunov(x, y, a, b, C, eps)
    h = 1e-5
    for i in range(9):
        step = np.zeros(9)
        step[i] = h
        plus = lyapunov(x + step[:5], y + step[5:], a, b, C, eps)
        minus = lyapunov(x - step[:5], y - step[5:], a, b, C, eps)
        assert_allclose((plus.value - minus.value) / (2 * h), point.gradient[i], rtol=1e-6)
        slope = (plus.gradient - minus.gradient) / (2 * h)
        assert_allclose(slope, point.hessian[i], rtol=1e-6, atol=1e-8)
    values, vectors = np.linalg.eigh(point.hessian)
    assert abs(values[-1]) < 1e-13
    assert values[-2] < 0
    kernel = vectors[:, -1] * 3
    assert_allclose(kernel * np.sign(kernel[0]), np.r_[np.ones(5), -np.ones(4)], rtol=1e-6)
    # A half-step of the scaling is exact maximisation over x.
    best = eps * (np.log(a) + 1) - eps * np.log(np.exp((y - C) / eps).sum(1))
    assert_allclose(lyapunov(best, y, a, b, C, eps).gradient[:5], 0, atol=1e-14)


def test_lyapunov_vanishing_gradient_at_the_plan():
    a, b, C = clouds(6, 5, 5)
    eps = 0.2
    result = newton_plan(a, b, C, eps, tol=1e-13)
    f, g = result.potentials
    point = lyapunov(f + eps / 2, g + eps / 2, a, b, C, eps)
    assert_allclose(point.gradient, 0, atol=1e-12)
    assert_allclose(point.value, result.value, rtol=1e-10)
    with pytest.raises(ValueError, match="overflow"):
        lyapunov(f + 1e4, g, a, b, C, eps)


def cycles(n):
    for k in range(2, n + 1):
        for nodes in itertools.permutations(range(n), k):
            if nodes[0] == min(nodes):
                yield nodes


@given(st.integers(2, 5), st.integers(0, 10**6))
def test_exponent_and_gap_against_all_cycles_and_permutations(n, seed):
    C = np.random.default_rng(seed).integers(0, 20, (n, n)).astype(float)
    best = linear_sum_assignment(C)[1]
    D = C[:, best] - C[np.arange(n), best][:, None]
    sums = {c: sum(D[c[i - 1], c[i]] for i in range(len(c))) for c in cycles(n)}
    assert_allclose(sparsity_exponent(C), min(s / len(c) for c, s in sums.items()), atol=1e-12)
    values = sorted(sum(C[i, p[i]] for i in range(n)) for p in itertools.permutations(range(n)))
    assert_allclose(vertex_gap(C), (values[1] - values[0]) / n, atol=1e-12)


def test_of_tied_assignments_no_exponent_or_gap_is_negative_by_rounding():
    rng = np.random.default_rng(0)
    for _ in range(50):
        C = rng.uniform(size=(6, 1)) + rng.uniform(size=6)
        assert 0 <= sparsity_exponent(C) < 1e-14
        assert 0 <= vertex_gap(C) < 1e-14


def test_one_point_has_no_second_plan():
    assert sparsity_exponent([[2.0]]) == np.inf
    assert vertex_gap([[2.0]]) == np.inf
    assert plan_distance_bound(1, gap=np.inf, eps=1.0) == 0


def test_the_exponent_is_the_rate_of_the_plan():
    rng = np.random.default_rng(8)
    w = np.full(6, 1 / 6)
    for _ in range(3):
        C = rng.uniform(size=(6, 6))
        best = exact_plan(w, w, C).plan.toarray()
        rate = sparsity_exponent(C)
        etas = np.array([14.0, 20.0]) / rate
        distances = [
            abs(newton_plan(w, w, C, 1 / eta, tol=1e-14).plan.toarray() - best).sum()
            for eta in etas
        ]
        measured = np.log(distances[0] / distances[1]) / (etas[1] - etas[0])
        assert_allclose(measured, rate, rtol=0.01)
        assert rate > 1.5 * vertex_gap(C)  # the vertex gap is another number


@given(st.integers(2, 4), st.integers(0, 10**6), st.floats(1.0, 3.0))
def test_the_bound_on_the_plan(n, seed, times):
    C = np.random.default_rng(seed).uniform(size=(n, n))
    gap = vertex_gap(C)
    eps = gap / ((1 + np.log(n)) * times)
    w = np.full(n, 1 / n)
    best = exact_plan(w, w, C)
    result = newton_plan(w, w, C, max(eps, 1e-6), tol=1e-13)
    bound = plan_distance_bound(n, gap=gap, eps=max(eps, 1e-6))
    assert abs(result.plan.toarray() - best.plan.toarray()).sum() <= bound + 1e-12
    assert result.transport_cost - best.value <= gap * bound / 2 + 1e-12


def test_below_its_threshold_the_bound_says_nothing_of_the_cost():
    # Two assignments nearly tied, all others dear: the excess is far above the gap, whose
    # exponential hardly exceeds one.
    C = np.array([[0.0, 1e-4, 9.0], [0.0, 0.0, 9.0], [9.0, 9.0, 0.0]])
    gap, w = vertex_gap(C), np.full(3, 1 / 3)
    result = newton_plan(w, w, C, 5.0, tol=1e-12)
    assert plan_distance_bound(3, gap=gap, eps=5.0) == 2
    assert result.transport_cost > gap * np.exp(1 + np.log(3) - gap / 5.0)


def test_the_bound_is_void_above_its_threshold():
    assert plan_distance_bound(5, gap=0.0, eps=1.0) == 2
    threshold = 1 / (1 + np.log(5))
    assert plan_distance_bound(5, gap=1.0, eps=threshold * 1.001) == 2
    assert plan_distance_bound(5, gap=1.0, eps=threshold / 1.1) < 2
    assert_allclose(plan_distance_bound(3, gap=1.0, eps=0.1), 2 * np.exp(-10 + 1 + np.log(3)))


def test_a_hessian_in_portions_is_the_hessian(monkeypatch):
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 60, 2))
    w, C = np.full(60, 1 / 60), ((x[:, None] - y) ** 2).sum(axis=-1)
    whole = newton_plan(w, w, C, 0.02)
    for portion in (1, 50, 1000):
        monkeypatch.setattr("theorylab.optimal_transport.sinkhorn_newton._PORTION", portion)
        parts = newton_plan(w, w, C, 0.02)
        assert (parts.n_iterations, parts.value) == (whole.n_iterations, whole.value)


@pytest.mark.parametrize(("n", "m"), [(30, 20), (20, 30)])
def test_how_it_ends_is_said_and_holds_of_what_is_returned(n, m):
    a, b, C = clouds(n, m, 6)
    eps = 1e-3 * C.max()

    def checked(result):
        f, g = result.potentials
        plan = result.plan.toarray()
        assert_allclose(plan, np.exp((f[:, None] + g - C) / eps), rtol=1e-8, atol=1e-15)
        off = abs(plan.sum(1) - a).sum() + abs(plan.sum(0) - b).sum()
        assert_allclose(result.marginal_error, off, rtol=1e-6, atol=1e-14)
        return result.status

    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        early = newton_plan(a, b, C, eps, max_iter=2)
    assert checked(early) is TransportStatus.NOT_CONVERGED
    assert early.n_iterations == 2
    assert early.marginal_error > 1e-3
    for tol in (1e-2, 1e-5, 1e-9):
        result = newton_plan(a, b, C, eps, tol=tol)
        assert checked(result) is TransportStatus.CONVERGED
        assert result.marginal_error <= tol
    with pytest.warns(RuntimeWarning, match="rounding hides the rest"):
        best = newton_plan(a, b, C, eps, tol=0.0)
    assert checked(best) is TransportStatus.ROUNDING
    assert best.marginal_error < 1e-11
    seen = []
    assert newton_plan(a, b, C, eps, callback=seen.append).dual_value == result.dual_value
    assert_allclose(seen[-1].objective, result.dual_value, rtol=1e-6)
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        part = newton_plan(a, b, C, eps, callback=lambda p: p.iteration == 3)
    assert checked(part) is TransportStatus.STOPPED
    assert part.n_iterations < result.n_iterations


@pytest.mark.filterwarnings("ignore:.*raise max_iter")
def test_it_is_converged_where_the_marginal_error_is_at_most_tol():
    a, b, C = clouds(20, 15, 8)
    eps, between = 0.03 * C.max(), 0
    for budget in range(1, 12):
        error = newton_plan(a, b, C, eps, tol=1e-13, max_iter=budget).marginal_error
        for factor, status in (
            (0.1, TransportStatus.NOT_CONVERGED),
            (2, TransportStatus.CONVERGED),
        ):
            if error > 1e-11:
                result = newton_plan(a, b, C, eps, tol=factor * error, max_iter=budget)
                assert result.status is status
                between += 1
    assert between >= 4
