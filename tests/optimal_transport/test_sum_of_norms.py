"""Class-structured plans: conic programs, explicit subgradients, cycles, invariances."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.optimal_transport import (
    RecoveryCertificate,
    TransportStatus,
    class_penalty,
    class_plan,
    exact_plan,
    marginal_projection,
    pair_prox,
    recovery_certificate,
    recovery_window,
    sum_of_norms,
)


def problem(n, m, seed):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(n, 4.0)), rng.dirichlet(np.full(m, 4.0)), rng.uniform(size=(n, m))


def clusters(K, p, seed, separation=2.0):
    rng, labels = np.random.default_rng(seed), np.repeat(np.arange(K), p)
    centres = separation * rng.permutation(np.eye(3)[:K] if K <= 3 else np.eye(K))
    X, Y = (centres[labels] + 0.1 * rng.normal(size=(K * p, centres.shape[1])) for _ in range(2))
    return np.linalg.norm(X[:, None] - Y, axis=2), labels


def by_hand(X, a, b, labels=None):
    """The sum of norms, pair by pair."""
    n, m = np.count_nonzero(a), np.count_nonzero(b)
    rows = sum(
        n * np.linalg.norm(a[k] * X[i] - a[i] * X[k])
        for i, k in itertools.combinations(range(len(a)), 2)
        if labels is None or labels[i] == labels[k]
    )
    pairs = itertools.combinations(range(len(b)), 2)
    return rows + sum(m * np.linalg.norm(b[k] * X[:, i] - b[i] * X[:, k]) for i, k in pairs)


def conic(a, b, C, lam, labels=None):
    n, m = C.shape
    X = cp.Variable((n, m), nonneg=True)
    cost = cp.sum(cp.multiply(C, X))
    for i, k in itertools.combinations(range(n), 2):
        if labels is None or labels[i] == labels[k]:
            cost = cost + lam * n * cp.norm(a[k] * X[i] - a[i] * X[k])
    for i, k in itertools.combinations(range(m), 2):
        cost = cost + lam * m * cp.norm(b[k] * X[:, i] - b[i] * X[:, k])
    program = cp.Problem(cp.Minimize(cost), [cp.sum(X, axis=1) == a, cp.sum(X, axis=0) == b])
    program.solve(solver=cp.CLARABEL)
    return program.value, X.value


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("lam", [0.01, 0.1, 0.5])
def test_plan_against_the_conic_program(lam, labelled):
    a, b, C = problem(6, 5, 1)
    labels = np.array([0, 0, 1, 1, 1, 2]) if labelled else None
    result = class_plan(a, b, C, lam, labels=labels)
    value, plan = conic(a, b, C, lam, labels)
    assert_allclose(result.value, value, rtol=1e-7)
    assert_allclose(result.plan, plan, atol=1e-4)
    assert result.gap <= 1e-8
    assert result.status is TransportStatus.CONVERGED
    assert result.n_iterations <= 4000
    assert_allclose(result.plan.sum(1), a, atol=1e-14)
    assert_allclose(result.plan.sum(0), b, atol=1e-14)
    penalty = by_hand(result.plan, a, b, labels)
    assert_allclose(class_penalty(result.plan, labels=labels), penalty, rtol=1e-9, atol=1e-14)
    assert_allclose(result.value, (C * result.plan).sum() + lam * penalty, rtol=1e-12)
    assert_allclose(result.transport_cost, (C * result.plan).sum(), rtol=1e-12)
    assert result.dual_value <= value * (1 + 1e-7)
    f, g = result.potentials
    assert_allclose(a @ f + b @ g, result.dual_value, rtol=1e-9)


def test_an_early_end_keeps_its_bounds_and_warns():
    a, b, C = problem(6, 6, 2)
    with pytest.warns(RuntimeWarning, match="max_iter"):
        result = class_plan(a, b, C, 0.01, max_iter=60)
    assert result.status is TransportStatus.NOT_CONVERGED
    assert result.n_iterations == 60
    value = class_plan(a, b, C, 0.01).value
    assert result.dual_value <= value <= result.value
    assert result.gap > 1e-8
    assert (result.plan >= 0).all()


def test_the_default_budget_is_what_takes_a_minute(minute):
    costs = minute(sum_of_norms, 70, 20_000)
    with pytest.warns(RuntimeWarning, match="max_iter"):
        part = class_plan(*problem(20, 30, 2), 0.01)
    assert part.status is TransportStatus.NOT_CONVERGED
    assert part.n_iterations == 70
    assert part.dual_value <= class_plan(*problem(20, 30, 2), 0.01, max_iter=2000).value
    for labels in (None, np.arange(40)):
        with pytest.warns(RuntimeWarning, match="max_iter"):
            class_plan(*problem(40, 60, 2), 0.01, labels=labels)
    # Pairs of points, times the points of the other side; with labels only those of columns.
    small, large, labelled = costs
    assert small > 15 * 20 * 30 * 48 / 2
    assert 4 * small < large < 8 * small
    assert large - labelled == 15 * 60 * (40 * 39 / 2)


def test_the_best_of_all_bounds_is_kept(monkeypatch):
    """Neither bound is monotone in the iterations."""
    plans, duals, rounded = [], [], sum_of_norms.rounded

    def record(*args):
        plans.append(rounded(*args))
        return plans[-1]

    def bounded(*args):
        answer = exact_plan(*args)
        duals.append(answer.dual_value)
        return answer

    monkeypatch.setattr(sum_of_norms, "_CHECK", 1)
    monkeypatch.setattr(sum_of_norms, "rounded", record)
    monkeypatch.setattr(sum_of_norms, "exact_plan", bounded)
    late = []
    for seed, steps in itertools.product((2, 3), range(8, 26, 3)):
        a, b, C = problem(4, 5, seed)
        unit = 2.0 ** np.floor(np.log2(np.ptp(C)))
        plans.clear()
        duals.clear()
        with pytest.warns(RuntimeWarning, match="max_iter"):
            result = class_plan(a, b, C, 0.05, max_iter=steps)
        values = [(C * P).sum() + 0.05 * by_hand(P, a, b) for P in plans]
        assert len(values) == len(duals) == steps
        assert_allclose(result.value, min(values), rtol=1e-12)
        assert_allclose(result.plan, plans[np.argmin(values)])
        assert_allclose(result.dual_value, C.min() + unit * max(duals), rtol=1e-12)
        late.append((np.argmin(values) < steps - 1, np.argmax(duals) < steps - 1))
    assert np.any(late, axis=0).all()


@pytest.mark.parametrize("unit", [1e-8, 1e-3, 1e8])
def test_scale_and_offset_of_the_costs(unit):
    a, b, C = problem(5, 4, 3)
    base = class_plan(a, b, C, 0.05)
    other = class_plan(a, b, unit * C, unit * 0.05)
    assert_allclose(other.plan, base.plan, atol=1e-6)
    assert_allclose(other.value, unit * base.value, rtol=1e-7)
    moved = class_plan(a, b, C + 7, 0.05)
    assert_allclose(moved.value, base.value + 7, rtol=1e-7)


def test_permutations():
    a, b, C = problem(5, 6, 4)
    labels = np.array([0, 1, 0, 1, 1])
    i, j = np.random.default_rng(0).permutation(5), np.random.default_rng(1).permutation(6)
    base = class_plan(a, b, C, 0.05, labels=labels)
    other = class_plan(a[i], b[j], C[np.ix_(i, j)], 0.05, labels=labels[i])
    assert_allclose(other.value, base.value, rtol=1e-7)
    assert_allclose(other.plan, base.plan[np.ix_(i, j)], atol=1e-5)
    turned = class_plan(b, a, C.T, 0.05)
    assert_allclose(turned.value, class_plan(a, b, C, 0.05).value, rtol=1e-7)


def test_points_without_mass_do_not_count():
    a, b, C = problem(4, 5, 5)
    wide = np.random.default_rng(9).uniform(-5, 5, size=(6, 6))
    wide[np.ix_([0, 2, 3, 5], [0, 1, 2, 4, 5])] = C
    full_a, full_b = np.zeros(6), np.zeros(6)
    full_a[[0, 2, 3, 5]], full_b[[0, 1, 2, 4, 5]] = a, b
    base, other = class_plan(a, b, C, 0.1), class_plan(full_a, full_b, wide, 0.1)
    assert_allclose(other.value, base.value, rtol=1e-8)
    assert_allclose(other.plan[np.ix_([0, 2, 3, 5], [0, 1, 2, 4, 5])], base.plan, atol=1e-8)
    assert other.plan[1].sum() == other.plan[:, 3].sum() == 0
    labels = np.array([0, 1, 0, 1, 1, 1])
    base = class_plan(a, b, C, 0.1, labels=labels[[0, 2, 3, 5]])
    other = class_plan(full_a, full_b, wide, 0.1, labels=labels)
    assert_allclose(other.value, base.value, rtol=1e-7)


def test_repeated_points_fuse():
    a, b, C = problem(5, 4, 6)
    C[1] = C[0]
    a[:2] = a[:2].mean()  # of equal mass: the norms of columns are not weighted
    result = class_plan(a, b, C, 0.02)
    assert_allclose(result.plan[0], result.plan[1], atol=1e-7)


def test_ends_of_the_weight():
    a, b, C = problem(5, 5, 7)
    assert_allclose(class_plan(a, b, C, 1e3).plan, np.outer(a, b), atol=1e-9)
    least = exact_plan(a, b, C).value
    small = class_plan(a, b, C, 1e-3, tol=1e-6)
    above = least + 1e-3 * by_hand(exact_plan(a, b, C).plan.toarray(), a, b)
    assert least <= small.value <= above * (1 + 1e-6)


def test_differences_that_would_not_fit_are_refused_before_they_are_made(monkeypatch):
    w, C = np.full(1000, 1e-3), np.zeros((1000, 1000))
    with pytest.raises(ValueError, match=r"got 1\.0e\+09 for 1000 x 1000 points"):
        class_plan(w, w, C, 1.0)
    # The count: pairs of the first two rows and of the last three, and of all columns.
    C = np.arange(20.0).reshape(5, 4)
    problem = np.full(5, 0.2), np.full(4, 0.25), C, 1.0
    labels = [0, 0, 1, 1, 1]
    for limit, fits in ((4 * 4 + 6 * 5, True), (4 * 4 + 6 * 5 - 1, False)):
        monkeypatch.setattr(sum_of_norms, "_LARGEST", limit)
        if fits:
            class_plan(*problem, labels=labels)
        else:
            with pytest.raises(ValueError, match="merge some"):
                class_plan(*problem, labels=labels)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"a": [0.5, 0.6]}, "a"),
        ({"b": [1.5, -0.5]}, "b"),
        ({"C": [[0.0, np.nan], [1.0, 0.0]]}, "C"),
        ({"C": [[0.0, 1.0]]}, "C"),
        ({"lam": 0.0}, "lam"),
        ({"lam": np.inf}, "lam"),
        ({"lam": 1e-20}, "lam"),
        ({"labels": [0, 0.5]}, "labels"),
        ({"labels": [0, 0, 1]}, "labels"),
        ({"tol": 0.0}, "tol"),
        ({"max_iter": 0}, "max_iter"),
    ],
)
def test_bad_input_is_named(changed, name):
    good = {"a": [0.5, 0.5], "b": [0.5, 0.5], "C": [[0.0, 1.0], [1.0, 0.0]], "lam": 0.1}
    with pytest.raises(ValueError, match=f"^{name}:"):
        class_plan(**{**good, **changed})


def subgradients(C, labels, lam):
    """The costs that the subgradients of the docstring's proof move, class by class."""
    K, p = labels.max() + 1, np.bincount(labels)[0]
    moved, norm = C.copy(), 0.0
    same = labels[:, None] == labels
    moved = moved + lam * np.where(same, (K - 1), -1) * np.sqrt(2 * p)
    for c in range(K):
        inside = np.ix_(labels == c, labels == c)
        B = C[inside]
        R = B - B.mean(0) - B.mean(1)[:, None] + B.mean()
        rho = max(np.linalg.norm(x - y) for x in R for y in R)
        kappa = max(np.linalg.norm(x - y) for x in R.T for y in R.T)
        share = kappa / (rho + kappa) if rho > 0 else 0.5
        for S, part in ((R, share), (R.T, 1 - share)):
            s = part * (S[None] - S[:, None]) / (p * lam)
            norm = max(norm, np.linalg.norm(s, axis=2).max())
            G = lam * s.sum(axis=1)
            moved[inside] += G if S is R else G.T
    return moved, norm


@pytest.mark.parametrize(
    ("K", "p", "seed"), [(2, 3, 0), (3, 2, 1), (3, 4, 2), (2, 1, 3), (1, 5, 4)]
)
def test_window_by_explicit_subgradients(K, p, seed):
    C, labels = clusters(K, p, seed)
    window = recovery_window(C, labels=labels)
    n = K * p
    w, block = np.full(n, 1 / n), (labels[:, None] == labels) / (p * n)
    for lam in (1.001 * window.lower, 0.999 * window.upper):
        if not 0 < lam < np.inf:
            continue
        moved, norm = subgradients(C, labels, lam)
        proof = recovery_certificate(C, lam, labels=labels)
        assert_allclose(norm, proof.pair_norm, rtol=1e-9, atol=1e-12)
        assert proof.unique
        assert_allclose((moved * block).sum(), exact_plan(w, w, moved).value, rtol=1e-9)
    if window.upper < np.inf:
        for lam, optimal in ((0.999 * window.upper, True), (1.001 * window.upper, False)):
            moved, _ = subgradients(C, labels, lam)
            excess = (moved * block).sum() - exact_plan(w, w, moved).value
            assert (excess <= 1e-9) == optimal
            assert recovery_certificate(C, lam, labels=labels).optimal == optimal
        assert window.necessary >= window.upper
    below = recovery_certificate(C, 0.9 * window.lower, labels=labels) if window.lower else None
    assert below is None or (not below.optimal and not below.unique and below.slack > 0)


@pytest.mark.parametrize("K", [1, 2, 3])
def test_the_lower_end_is_attained_by_pairs(K):
    """For two points a class the window's lower end is the threshold itself."""
    C, labels = clusters(K, 2, K)
    lower = recovery_window(C, labels=labels).lower
    w, block = np.full(2 * K, 0.5 / K), (labels[:, None] == labels) / (4 * K)
    for factor, recovered in ((0.99, False), (1.01, True)):
        off = abs(class_plan(w, w, C, factor * lower).plan - block).max()
        assert (off < 1e-6) == recovered
    # Two rows with R = +-t: the cost 4 t x of moving x meets the norms 4 sqrt(2) lambda |x|.
    pair = recovery_window([[0.3, -0.3], [-0.3, 0.3]], labels=[0, 0])
    assert_allclose(pair.lower, 0.3 / np.sqrt(2))


def test_complementarity_is_strict_in_both():
    """Equal to an end of the window the block plan is optimal and not shown to be the only one."""
    C, labels = np.array([[0.0, 1.0], [3.0, 0.0]]), [0, 1]
    upper = recovery_window(C, labels=labels).upper
    inside, beyond = (recovery_certificate(C, t * upper, labels=labels) for t in (0.9, 1.1))
    assert inside.unique
    assert not beyond.unique
    assert not beyond.optimal
    C = [[0.3, -0.3], [-0.3, 0.3]]
    lower = recovery_window(C, labels=[0, 0]).lower
    inside, below = (recovery_certificate(C, t * lower, labels=[0, 0]) for t in (1.1, 0.9))
    assert inside.unique
    assert below.slack == np.inf
    assert not below.unique
    assert not below.optimal


def test_least_cycle_by_enumeration():
    rng = np.random.default_rng(3)
    M = rng.uniform(size=(4, 4)) + 2 * (1 - np.eye(4))
    C, labels = np.kron(M, np.ones((2, 2))), np.repeat(np.arange(4), 2)
    means = [
        np.mean([M[s[i - 1], s[i]] - M[s[i], s[i]] for i in range(r)])
        for r in (2, 3, 4)
        for s in itertools.permutations(range(4), r)
    ]
    window = recovery_window(C, labels=labels)
    assert_allclose(window.upper, min(means) / (4 * 2), rtol=1e-12)
    assert_allclose(window.necessary, window.upper, rtol=1e-12)
    assert window.lower <= 1e-12
    order = rng.permutation(8)
    again = recovery_window(C[np.ix_(order, order)], labels=labels[order])
    assert_allclose([again.upper, again.necessary], [window.upper, window.necessary])


def test_recovery_with_labels_unknown():
    C, labels = clusters(3, 3, 8)
    window = recovery_window(C, labels=labels)
    w, block = np.full(9, 1 / 9), (labels[:, None] == labels) / 27
    for lam in (1.05 * window.lower, window.upper):
        assert_allclose(class_plan(w, w, C, lam).plan, block, atol=1e-7)
    assert abs(class_plan(w, w, C, 1.1 * window.necessary).plan - block).max() > 0.01


@given(st.integers(1, 6), st.floats(0.0, 3.0), st.integers(0, 10**6))
def test_pair_prox_by_its_optimality(n, step, seed):
    x, y = np.random.default_rng(seed).normal(size=(2, n))
    u, v = pair_prox(x, y, step)
    assert_allclose(u + v, x + y, atol=1e-12)
    apart = np.linalg.norm(u - v)
    if apart > 1e-9:
        assert_allclose(x - u, step * (u - v) / apart, atol=1e-6)
    else:
        assert np.linalg.norm(x - u) <= step * (1 + 1e-9)


def test_marginal_projection_against_least_squares():
    rng = np.random.default_rng(0)
    n, m = 3, 5
    X, r, c = rng.normal(size=(n, m)), rng.normal(size=n), rng.normal(size=m)
    c += (r.sum() - c.sum()) / m
    A = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    step = np.linalg.lstsq(A, np.append(r, c) - A @ X.ravel(), rcond=None)[0]
    assert_allclose(marginal_projection(X, r, c), X + step.reshape(n, m), atol=1e-12)
    with pytest.raises(ValueError, match=r"^columns:"):
        marginal_projection(X, r, c + 1)


@pytest.mark.parametrize("total", [0.9, 1 + 1e-8, 1.5])
def test_a_penalty_needs_a_plan_of_sum_one(total):
    with pytest.raises(ValueError, match=r"^plan:.*sum to one"):
        class_penalty(total * np.eye(2) / 2)


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4, 1e-5])
def test_the_gap_is_what_was_asked_for(tol):
    x = np.array([0.0, 0.1, 0.3, 3.0, 3.2, 3.7])
    w = np.full(6, 1 / 6)
    result = class_plan(w, w, abs(x[:, None] - x) ** 1.5, 0.05, tol=tol)
    assert result.status is TransportStatus.CONVERGED
    assert result.gap <= tol


def test_what_is_optimal_or_unique_at_the_ends():
    for norm, slack, optimal, unique in (
        (0.5, 0.5, True, True),
        (1.0, 0.5, True, False),
        (0.5, 0.0, True, False),
        (1.1, 0.5, False, False),
        (0.5, -0.1, False, False),
    ):
        certificate = RecoveryCertificate(norm, slack)
        assert certificate.optimal is optimal
        assert certificate.unique is unique


def test_unequal_classes_are_refused():
    with pytest.raises(ValueError, match=r"^labels:.*equal size"):
        recovery_window(np.eye(3), labels=[0, 0, 1])


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(1, 7), st.floats(-2.0, 1.0), st.integers(0, 10**6))
def test_gap_of_random_problems(n, m, level, seed):
    a, b, C = problem(n, m, seed)
    result = class_plan(a, b, C, 10**level, tol=1e-6)
    assert result.gap <= 1e-6
    assert_allclose(result.value, conic(a, b, C, 10**level)[0], rtol=1e-5)


def test_a_plan_that_is_stopped_says_so_and_told_its_value():
    a, b, C = problem(5, 6, 4)
    told = []
    result = class_plan(a, b, C, 0.05, callback=told.append)
    assert [p.iteration for p in told] == [*range(50, result.n_iterations + 1, 50)]
    assert_allclose(told[-1].objective, result.value, rtol=1e-12)
    assert_allclose(told[-1].error, result.gap, rtol=1e-6, atol=1e-12)
    assert (np.diff([p.objective for p in told]) <= 0).all()
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        part = class_plan(a, b, C, 0.05, callback=lambda p: p.iteration >= 100)
    assert part.status is TransportStatus.STOPPED
    assert part.n_iterations == 100
    assert_allclose(part.value, told[1].objective, rtol=1e-12)


@pytest.mark.parametrize("unit", [2.0**-600, 1e-8, 1e9, 2.0**600])
def test_windows_and_certificates_have_the_unit_of_the_costs(unit):
    C, labels = clusters(3, 2, 1)
    one, other = recovery_window(C, labels=labels), recovery_window(unit * C, labels=labels)
    for name in ("lower", "upper", "necessary"):
        assert_allclose(getattr(other, name), unit * getattr(one, name), rtol=1e-9)
    proof = recovery_certificate(unit * C, unit * one.lower, labels=labels)
    assert_allclose(proof.pair_norm, 1, rtol=1e-9)
    assert_allclose(proof.slack / unit, recovery_certificate(C, one.lower, labels=labels).slack)
