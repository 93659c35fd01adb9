"""Sequential projections: optimality conditions, another solver, long cycles, tasks by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.stats import kstest

from theorylab.implicit_regularization import (
    SequentialStatus,
    cyclic_regression_limit,
    margin_projection,
    random_tasks,
    sequential_max_margin,
    task_geometry,
    weak_regularisation,
)

ROWS = [np.array([[2.0, 1.0]]), np.array([[1.0, 3.0]])]


def bent(d, seed):
    A = np.random.default_rng(seed).standard_normal((d, d))
    return A @ A.T + 0.2 * np.eye(d)


def test_two_rows_in_both_orders():
    first = sequential_max_margin(ROWS, [0, 1, 0, 1])
    assert_allclose(first.weights, [0.4, 0.2])
    assert_allclose(first.steps, [math.sqrt(0.2), 0, 0, 0], atol=1e-12)
    second = sequential_max_margin(ROWS, [1, 0, 1, 0])
    assert_allclose(second.iterates[1:3], [[0.1, 0.3], [0.3, 0.4]])
    assert_allclose(second.violations, [1, 0.5, 0, 0, 0], atol=1e-12)
    assert second.status is SequentialStatus.DONE


def test_task_without_separator_stops_the_sequence():
    run = sequential_max_margin([ROWS[0], np.array([[1.0, 0.0], [-1.0, 0.0]])], [0, 1, 0])
    assert run.status is SequentialStatus.NOT_SEPARABLE
    assert run.iterates.shape == (2, 2)
    assert run.order.tolist() == [0]
    with pytest.raises(ValueError, match="tasks: expected a common separator"):
        task_geometry([ROWS[0], -ROWS[0]])


@pytest.mark.filterwarnings("ignore:not decided")
def test_a_projection_that_is_not_certified_is_said():
    # Two rows whose separators, (0, 1e17) the shortest, no rounded arithmetic finds.
    run = sequential_max_margin([ROWS[0], np.array([[1.0, 1e-17], [-1.0, 1e-17]])], [0, 1])
    assert run.status is SequentialStatus.UNDECIDED
    assert run.iterates.shape == (3, 2)
    assert run.violations[-1] > 0


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))
def test_projections_in_a_norm_satisfy_their_optimality_conditions(seed, T, n, d):
    rng = np.random.default_rng(seed)
    tasks = random_tasks(T, n, d=d, margin=0.2, spread=1.0, seed=seed)
    margins, metrics = rng.uniform(0.3, 3, T), [bent(d, [seed, t]) for t in range(T)]
    order = rng.integers(0, T, 5)
    run = sequential_max_margin(
        tasks, order, start=rng.standard_normal(d), margins=margins, metrics=metrics
    )
    for k, t in enumerate(order):
        move = metrics[t] @ (run.iterates[k + 1] - run.iterates[k])
        slack = tasks[t] @ run.iterates[k + 1] - margins[t]
        assert slack.min() > -1e-8
        # The gradient is a non-negative combination of the active rows.
        active = tasks[t][slack < 1e-7]
        if len(active) == 0:
            assert_allclose(move, 0, atol=1e-9)
            continue
        weights = margin_multipliers(active, move)
        assert_allclose(active.T @ weights, move, atol=1e-6 * (1 + np.abs(move).max()))


def margin_multipliers(rows, target):
    from scipy.optimize import nnls

    return nnls(rows.T, target)[0]


def test_geometry_against_the_stacked_problem():
    tasks = random_tasks(3, 4, d=5, margin=0.3, spread=1.0, seed=2)
    found = task_geometry(tasks)
    rows = np.concatenate(tasks)
    solved = minimize(
        lambda w: w @ w,
        found.separator + 0.1,
        jac=lambda w: 2 * w,
        constraints={"type": "ineq", "fun": lambda w: rows @ w - 1, "jac": lambda w: rows},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    assert_allclose(found.separator, solved.x, atol=1e-5)
    assert_allclose(found.condition, np.max(np.sum(rows**2, axis=1)) * (solved.x @ solved.x), 1e-5)
    assert_allclose(found.contraction, 1 - 1 / (3 * found.condition))
    assert found.condition >= 1
    assert found.n_tasks == 3


@pytest.mark.parametrize("ell", [2.0, 5.0, 12.0])
def test_weak_penalties_against_a_general_minimiser(ell):
    tasks = random_tasks(2, 3, d=3, margin=0.3, spread=1.0, seed=4)
    margins, metrics = np.array([0.8, 1.5]), [bent(3, 1), bent(3, 2)]
    found = weak_regularisation(
        tasks, [0, 1, 0], log_strength=ell, margins=margins, metrics=metrics
    )
    assert found.residual < 1e-13
    w = np.zeros(3)
    for k, t in enumerate([0, 1, 0]):
        Z, B, weight, before = tasks[t], metrics[t], math.exp(-margins[t] * ell), w

        def loss(v, Z=Z, B=B, weight=weight, before=before):
            return np.sum(np.exp(-Z @ v)) / weight + (v - before) @ B @ (v - before) / 2

        def slope(v, Z=Z, B=B, weight=weight, before=before):
            return -Z.T @ np.exp(-Z @ v) / weight + B @ (v - before)

        w = minimize(loss, before, jac=slope, method="BFGS", options={"gtol": 1e-9}).x
        assert_allclose(found.iterates[k + 1] * ell, w, atol=2e-4 * (1 + np.abs(w).max()))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
def test_weak_penalties_are_stationary_and_near_projections(seed, T, n, d):
    tasks = random_tasks(T, n, d=d, margin=0.2, spread=0.7, seed=seed)
    order = [*range(T), 0]
    found = weak_regularisation(tasks, order, log_strength=1e8)
    assert found.residual < 1e-12
    limits = sequential_max_margin(tasks, order).iterates
    size = np.abs(limits).max()
    assert_allclose(found.iterates, limits, atol=1e-4 * size)
    # A stronger penalty is further off.
    strong = weak_regularisation(tasks, order, log_strength=10.0)
    assert np.abs(strong.iterates - limits).max() > 1e-2 * np.abs(limits[1]).max()


@pytest.mark.parametrize(
    ("seed", "T", "n", "d", "margin"),
    [(100, 4, 4, 1, 0.48), (248, 1, 2, 1, 0.38), (183, 3, 5, 4, 0.8), (1020, 4, 3, 1, 0.61)],
)
def test_weak_penalties_where_a_row_is_separated_by_little(seed, T, n, d, margin):
    # Rows whose multiplier is of order one at strong penalties and exp(-0.004 l) at weak ones.
    tasks = random_tasks(T, n, d=d, margin=margin, spread=0.7, seed=seed)
    order = [*range(T), 0]
    limits = sequential_max_margin(tasks, order).iterates
    for ell in (1e4, 1e8):
        found = weak_regularisation(tasks, order, log_strength=ell)
        assert found.residual < 1e-13
        assert_allclose(found.iterates, limits, atol=30 / ell * math.log(ell))


def test_equations_that_are_not_solved_are_reported():
    rows = [np.array([[1.0], [1 + 1e-9]])]
    with pytest.warns(RuntimeWarning, match="weak_regularisation: the equations hold to"):
        assert weak_regularisation(rows, [0], log_strength=1e9).residual > 1e-9


def test_one_row_by_lambert():
    # v = (0, a): v = 1 - (log l + log a) / l with a = v.
    ell = 30.0
    (v,) = weak_regularisation([[[1.0]]], [0], log_strength=ell).iterates[1]
    assert_allclose(ell * v + math.log(v), ell - math.log(ell))


@pytest.mark.parametrize("scale", [1e-40, 1e-3, 1e30])
def test_units(scale):
    tasks = random_tasks(2, 3, d=4, margin=0.3, spread=1.0, seed=1)
    scaled = [scale * Z for Z in tasks]
    one, other = (sequential_max_margin(Z, [0, 1, 0]) for Z in (tasks, scaled))
    assert_allclose(other.iterates * scale, one.iterates, rtol=1e-9, atol=1e-12)
    assert_allclose(task_geometry(scaled).condition, task_geometry(tasks).condition)
    # The penalty keeps its limit, and shifts log l by 2 log scale.
    weak = weak_regularisation(scaled, [0, 1, 0], log_strength=1e9)
    assert_allclose(weak.iterates * scale, one.iterates, atol=1e-5)


def test_margins_and_metrics_scale_as_they_must():
    tasks = random_tasks(2, 3, d=4, margin=0.3, spread=1.0, seed=3)
    one = sequential_max_margin(tasks, [0, 1, 0]).iterates
    wide = sequential_max_margin(tasks, [0, 1, 0], margins=[3.0, 3.0])
    assert_allclose(wide.iterates, 3 * one)
    assert_allclose(wide.violations[0], 3)
    metrics = [5 * np.eye(4), 0.1 * np.eye(4)]
    assert_allclose(sequential_max_margin(tasks, [0, 1, 0], metrics=metrics).iterates, one)
    unequal = sequential_max_margin(tasks, [0, 1, 0], margins=[1.0, 3.0]).iterates
    assert np.abs(unequal - one).max() > 0.1


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 2), st.integers(2, 6))
def test_regression_limit_against_many_cycles(seed, T, n, d):
    rng = np.random.default_rng(seed)
    X = [rng.standard_normal((n, d)) for _ in range(T)]
    truth, start = rng.standard_normal(d), rng.standard_normal(d)
    y = [x @ truth for x in X]
    found = cyclic_regression_limit(X, y, range(T), start=start)
    assert_allclose(np.concatenate(X) @ found, np.concatenate(y), atol=1e-6)
    rows, targets = np.concatenate(X), np.concatenate(y)
    nearest = start + np.linalg.pinv(rows) @ (targets - rows @ start)
    assert_allclose(found, nearest, atol=1e-5)


def test_regression_without_a_common_solution_cycles():
    # Two parallel lines: the limit is what the last projection leaves.
    X, y = [[[1.0, 0.0]], [[1.0, 0.0]]], [[1.0], [3.0]]
    assert_allclose(cyclic_regression_limit(X, y, [0, 1], start=[7.0, 2.0]), [3, 2])
    assert_allclose(cyclic_regression_limit(X, y, [1, 0]), [1, 0])


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_contraction_of_cycles_and_a_false_one(seed, T):
    tasks = random_tasks(T, 2, d=4, margin=0.2, spread=1.0, seed=seed)
    geometry, rows = task_geometry(tasks), np.concatenate(tasks)
    run = sequential_max_margin(tasks, np.tile(np.arange(T), 5))
    gaps = [margin_projection(rows, w).distance ** 2 for w in run.iterates[::T]]
    assert_allclose(gaps[0], geometry.separator @ geometry.separator)
    assert_allclose(geometry.contraction, 1 - 1 / (T * geometry.condition))
    strides = geometry.condition * (T // 2)
    assert_allclose(geometry.cyclic_contraction, 1 - 1 / (1 + strides))
    gaps = [margin_projection(rows, w).distance ** 2 for w in run.iterates[1 :: T - 1]]
    for before, after in itertools.pairwise(gaps):
        assert after <= geometry.cyclic_contraction * before + 1e-20
    assert np.sum(run.steps**2) <= geometry.separator @ geometry.separator * (1 + 1e-9)
    # What the bound at any margin rests on: whole cycles never move further than the one before.
    moves = np.linalg.norm(run.iterates[T:] - run.iterates[:-T], axis=1)
    assert (np.diff(moves) <= 1e-9 * moves[0]).all()


def test_two_tasks_that_nearly_oppose_cycle_four_times_as_fast_as_the_bound():
    # Opposing by an angle 2a, q = 1 / sin^2 a: each step multiplies squared distances by cos^2 2a.
    ratios = []
    for angle in (0.5, 0.1, 0.02):
        tasks = [np.array([[math.sin(angle), s * math.cos(angle)]]) for s in (1, -1)]
        geometry = task_geometry(tasks)
        ratios.append((1 - math.cos(2 * angle) ** 2) / (1 - geometry.cyclic_contraction))
    assert np.all(np.array(ratios) > 1)
    assert_allclose(ratios[-1], 4, rtol=1e-2)


def test_the_rate_of_opposing_tasks_is_nearly_that_of_the_bound():
    angle = 0.2
    tasks = [np.array([[math.sin(angle), s * math.cos(angle)]]) for s in (1, -1)]
    geometry = task_geometry(tasks)
    assert_allclose(geometry.condition, 1 / math.sin(angle) ** 2)
    run = sequential_max_margin(tasks, np.tile([0, 1], 10))
    gaps = [margin_projection(np.concatenate(tasks), w).distance for w in run.iterates[1:]]
    # cos^2 of the angle between the lines for each step, against cos^2 of half of it.
    assert_allclose(np.array(gaps[1:]) / gaps[:-1], math.cos(2 * angle))
    assert math.cos(2 * angle) ** 2 < 1 - 1 / geometry.condition == pytest.approx(0.9605, abs=1e-4)


def test_random_tasks_have_the_margin_that_they_ask():
    tasks = random_tasks(3, 4, d=6, margin=0.4, spread=2.0, seed=0)
    assert 1 / np.linalg.norm(task_geometry(tasks).separator) >= 0.4
    flat = random_tasks(1, 5, d=3, margin=0.4, spread=0.0, seed=0)[0]
    assert np.linalg.matrix_rank(flat) == 1
    # Along their direction they are uniform from the margin to 1.
    along = np.linalg.norm(random_tasks(1, 4000, d=3, margin=0.4, spread=0.0, seed=1)[0], axis=1)
    assert kstest(along, "uniform", args=(0.4, 0.6)).pvalue > 1e-6


def test_bad_tasks_are_refused_by_name():
    with pytest.raises(ValueError, match="order: expected integers from 0 to 1"):
        sequential_max_margin(ROWS, [0, 2])
    with pytest.raises(ValueError, match="order: expected integers from 0 to 1"):
        sequential_max_margin(ROWS, [-1])
    with pytest.raises(ValueError, match="order: expected integers"):
        weak_regularisation(ROWS, [0.5], log_strength=5.0)
    with pytest.raises(ValueError, match="metrics: expected positive definite"):
        sequential_max_margin(ROWS, [0], metrics=[-np.eye(2), np.eye(2)])
    with pytest.raises(ValueError, match="metrics: expected a sequence of 2"):
        sequential_max_margin(ROWS, [0], metrics=[np.eye(2)])
    with pytest.raises(ValueError, match="tasks: expected rows of one length"):
        task_geometry([[[1.0, 2.0]], [[1.0]]])
    with pytest.raises(ValueError, match="targets: expected a sequence of 2"):
        cyclic_regression_limit(ROWS, [[1.0]], [0])


def test_the_residual_is_that_of_the_worst_task():
    tasks = [np.array([[1.0], [1 + 1e-9]]), np.array([[1.0]])]
    with pytest.warns(RuntimeWarning, match="weak_regularisation: the equations hold to"):
        found = weak_regularisation(tasks, [0, 1], log_strength=1e9)
    alone = weak_regularisation(tasks[1:], [0], log_strength=1e9)
    assert alone.residual < 1e-12
    assert found.residual > 1e-9
