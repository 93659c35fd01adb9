"""Shortest vectors by the column-wise active set, which large problems take, against SciPy's."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import linprog, nnls

from theorylab.implicit_regularization import MarginStatus, margin_projection, max_margin
from theorylab.implicit_regularization import _least_distance as module


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(1, 20), st.booleans())
def test_least_squares_are_optimal_from_any_start(seed, m, n, whole):
    rng = np.random.default_rng(seed)
    E, target = rng.standard_normal((m, n)), rng.standard_normal(m)
    if whole:  # columns that repeat, depend on each other or vanish
        E = rng.integers(-1, 2, (m, n)).astype(float)
    best, size = nnls(E, target)
    for support in (None, best > 0, rng.random(n) < 0.3, np.ones(n, bool)):
        u = module._active_set(E, target, 1000, support)
        assert (u >= 0).all()
        slope = E.T @ (target - E @ u)
        assert slope.max(initial=0.0) <= 1e-12
        assert np.abs(slope[u > 0]).max(initial=0.0) <= 1e-12
        assert_allclose(np.linalg.norm(E @ u - target), size, atol=1e-12)


def test_a_start_at_the_solution_takes_no_step():
    rng = np.random.default_rng(0)
    E, target = rng.standard_normal((30, 60)), rng.standard_normal(30)
    u = module._active_set(E, target, 1000)
    assert 1 < np.count_nonzero(u) < 30
    assert_allclose(module._active_set(E, target, 1, u > 0), u, atol=1e-13)
    with pytest.raises(RuntimeError, match="steps"):
        module._active_set(E, target, 1)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (300, 6), (12, 30)])
@pytest.mark.parametrize("free", [False, True])
def test_both_active_sets_give_one_margin(monkeypatch, n, d, free):
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, d))
    y = np.where(X[:, 0] > 0, 1.0, -1.0)
    X[:, 0] += 0.05 * y
    small = max_margin(X, y, intercept=free)
    monkeypatch.setattr(module, "LARGE", 0.0)
    large = max_margin(X, y, intercept=free)
    assert large.verify().accepted
    assert large.support.tolist() == small.support.tolist()
    assert_allclose(large.weights, small.weights, rtol=1e-12, atol=1e-13)
    budget = {"max_iter": 1, "intercept": free}
    with pytest.warns(RuntimeWarning, match="not decided"):
        assert max_margin(X, y, **budget).status.name == "UNDECIDED"


@pytest.fixture
def column_wise(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 0.0)


def judged(X, y, free):
    """Status by a linear program, and the margin by a quadratic one."""
    rows = y[:, None] * (np.column_stack([X, np.ones(len(X))]) if free else X)
    program = linprog(np.zeros(rows.shape[1]), -rows, -np.ones(len(X)), bounds=(None, None))
    if program.status != 0:
        return MarginStatus.NOT_SEPARABLE, 0.0
    w = cp.Variable(rows.shape[1])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w[: X.shape[1]])), [rows @ w >= 1])
    problem.solve(cp.CLARABEL)
    return MarginStatus.CERTIFIED, problem.value**-0.5


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6), st.integers(1, 3))
def test_degenerate_rows_are_decided(column_wise, seed, n, d, copies):
    # Equal and opposite rows, rows that vanish, flat sets; solved on their own and from a start.
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.integers(-2, 3, (n, d)).astype(float), copies, axis=0)
    y = np.repeat(rng.choice([-1.0, 1.0], n), copies)
    for free in (False, True) if abs(y.sum()) < len(y) else (False,):
        status, margin = judged(X, y, free)
        found = max_margin(X, y, intercept=free)
        assert found.status is status
        assert found.verify().accepted
        assert_allclose(found.margin, margin, rtol=1e-6)


@pytest.mark.parametrize("digits", [3, 6, 7])
@pytest.mark.parametrize(("n", "d"), [(200, 3), (40, 20)])
def test_classes_that_nearly_touch(column_wise, digits, n, d):
    rng, gap = np.random.default_rng(digits), 10.0**-digits
    X = rng.standard_normal((n, d))
    y = np.where(X[:, 0] > 0, 1.0, -1.0)
    X[:, 0] += gap * y
    X[:2], y[:2] = 0.0, [1, -1]
    X[:2, 0] = [gap, -gap]  # so that the margin is the gap, along the first axis
    for free in (False, True):
        found = max_margin(X, y, intercept=free)
        assert found.verify().accepted
        assert_allclose(found.margin, gap, rtol=1e-8)
        assert_allclose(found.weights, np.eye(d)[0] / gap, atol=1e-8 / gap)


@pytest.mark.filterwarnings("ignore:not decided")
def test_every_budget_is_kept_and_says_nothing_false(column_wise):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 12))
    y = np.where(X[:, 0] > 0, 1.0, -1.0)
    mixed = rng.choice([-1.0, 1.0], 40)
    margin, ends = max_margin(X, y).margin, []
    for budget in range(1, 45):
        found = max_margin(X, y, max_iter=budget)
        assert found.margin <= margin * (1 + 1e-12)
        assert margin <= found.margin_bound * (1 + 1e-12)
        assert (found.status is MarginStatus.CERTIFIED) == found.verify().accepted
        ends.append(found.status)
        none = max_margin(X, mixed, max_iter=budget)
        assert none.status in (MarginStatus.UNDECIDED, MarginStatus.NOT_SEPARABLE)
    # A budget that once was enough stays enough.
    first = ends.index(MarginStatus.CERTIFIED)
    assert first > 3
    assert set(ends[first:]) == {MarginStatus.CERTIFIED}
    assert set(ends[:first]) == {MarginStatus.UNDECIDED}


@pytest.mark.parametrize("digits", [4, 8, 13])
def test_nearly_dependent_columns_meet_the_optimality_conditions(digits):
    # Copies but for 1e-digits, in every order: what comes in with no length of its own is refused.
    for seed in range(20):
        rng = np.random.default_rng([seed, digits])
        E = np.repeat(rng.standard_normal((6, 5)), 3, axis=1)
        E[:, 1::3] += 10.0**-digits * rng.standard_normal((6, 5))
        E = E[:, rng.permutation(15)]
        target = E @ rng.uniform(0, 1, 15) + rng.standard_normal(6)
        for support in (None, np.ones(15, bool), rng.random(15) < 0.3):
            u = module._active_set(E, target, 1000, support)
            rest = target - E @ u
            slope = E.T @ rest
            assert (u >= 0).all()
            assert slope.max() <= 1e-12
            assert np.abs(slope[u > 0]).max(initial=0.0) <= 1e-12
            assert_allclose(np.linalg.norm(rest), nnls(E, target)[1], rtol=1e-9)


@pytest.mark.filterwarnings("ignore:not decided")
@pytest.mark.parametrize("large", [0.0, np.inf])
def test_a_projection_on_any_budget_has_a_true_bound(monkeypatch, large):
    monkeypatch.setattr(module, "LARGE", large)
    rng = np.random.default_rng(2)
    Z, start = rng.standard_normal((30, 10)), rng.standard_normal(10)
    Z[:, 0] = 0.1 + np.abs(Z[:, 0])
    full, ends = margin_projection(Z, start), []
    for budget in range(1, 40):
        found = margin_projection(Z, start, max_iter=budget)
        assert 0 <= found.distance_bound <= full.distance * (1 + 1e-12)
        missed = max(float((1 - Z @ found.weights).max()), 0.0)
        assert_allclose(found.violation, missed, atol=1e-12)
        assert_allclose(found.distance, np.linalg.norm(found.weights - start), atol=1e-12)
        assert (found.multipliers >= 0).all()
        ends.append(found.status)
    first = ends.index(MarginStatus.CERTIFIED)
    assert first > 3
    assert set(ends[first:]) == {MarginStatus.CERTIFIED}
    assert set(ends[:first]) == {MarginStatus.UNDECIDED}
