"""Adversarial matching: enumeration, other solvers, attacks."""

import itertools

import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import linprog

from theorylab.optimal_transport import conflict_cost, robust_classifier


def cloud(n, m, seed, side=6):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, side, (n + m, 2)).astype(float)
    y = rng.permutation(np.repeat([0, 1], [n, m]))
    w = rng.random(n + m)
    return X, y, w / w.sum()


def enumerated(X, y, w, eps):
    """Least weight of a set that meets every conflicting pair, over all sets."""
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(len(y)), 2)
        if y[i] != y[j] and np.linalg.norm(X[i] - X[j]) <= 2 * eps
    ]
    return min(
        sum(w[i] for i in chosen)
        for size in range(len(y) + 1)
        for chosen in itertools.combinations(range(len(y)), size)
        if all(i in chosen or j in chosen for i, j in pairs)
    )


@pytest.mark.parametrize("seed", range(6))
def test_risk_against_enumeration_and_other_solvers(seed):
    n, m = 3 + seed % 4, 7 - seed
    X, y, w = cloud(n, m, seed)
    eps = (0, 0.5, 1.0, 1.5, 2.5, 4.0)[seed]
    rule = robust_classifier(X, y, eps, weights=w)
    assert_allclose(rule.risk, enumerated(X, y, w, eps), atol=1e-12)
    assert rule.gap <= 1e-12
    cost = conflict_cost(X, y, eps)
    assert_allclose((1 - ot.emd2(w, w, cost)) / 2, rule.risk, atol=1e-12)
    edges = np.argwhere((cost == 0) & (y[:, None] == 0))
    assert np.array_equal(cost, cost.T)
    assert (y[edges[:, 0]] == 0).all()
    assert (y[edges[:, 1]] == 1).all()
    if len(edges):
        A = np.zeros((y.size, len(edges)))
        for k, (i, j) in enumerate(edges):
            A[i, k] = A[j, k] = 1
        assert_allclose(-linprog(-np.ones(len(edges)), A_ub=A, b_ub=w).fun, rule.risk, atol=1e-9)


@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 12), st.integers(0, 10))
def test_matching_and_missed_points_prove_each_other(seed, n, m, diameter):
    if n + m == 0:
        return
    X, y, w = cloud(n, m, seed)
    rule = robust_classifier(X, y, diameter / 2, weights=w)
    plan = rule.matching.toarray()
    assert (plan >= 0).all()
    assert (plan.sum(axis=1) <= w + 1e-12).all()
    assert (plan.sum(axis=0) <= w + 1e-12).all()
    i, j = np.nonzero(plan)
    assert (y[i] == 0).all()
    assert (y[j] == 1).all()
    assert (np.linalg.norm(X[i] - X[j], axis=1) <= diameter).all()
    assert_allclose(plan.sum(), rule.risk, atol=1e-12)
    assert_allclose(rule.risk, w[rule.missed].sum(), atol=1e-12)
    # No attack turns a kept point into an error: on its circle and within.
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(~rule.missed)
    angle = rng.uniform(0, 2 * np.pi, (40, 1, 1))
    reach = diameter / 2 * (1 - 1e-9) * np.sqrt(rng.random((40, kept.size, 1)))
    moved = X[kept] + reach * np.concatenate([np.cos(angle), np.sin(angle)], axis=2)
    assert (rule.predict(moved.reshape(-1, 2)).reshape(40, -1) == y[kept]).all()


def test_closed_balls_units_and_order():
    X, y, w = cloud(30, 40, 3, side=30)
    touching = robust_classifier([[0.0, 0.0], [3.0, 4.0]], [0, 1], 2.5)
    assert touching.risk == 0.5
    assert robust_classifier([[0.0, 0.0], [3.0, 4.0]], [0, 1], 2.499).risk == 0
    rule = robust_classifier(X, y, 1.55, weights=w)
    assert 0.1 < rule.risk < min(w[y == 0].sum(), w[y == 1].sum())
    for unit in (1e-200, 1e-8, 1e8, 1e200):
        other = robust_classifier(X * unit, y, 1.55 * unit, weights=w)
        assert_allclose(other.risk, rule.risk, rtol=1e-12)
    order = np.random.default_rng(0).permutation(70)
    other = robust_classifier(X[order], y[order], 1.55, weights=w[order])
    assert_allclose(other.risk, rule.risk, rtol=1e-12)
    assert_allclose(robust_classifier(X, 1 - y, 1.55, weights=w).risk, rule.risk, rtol=1e-12)
    # A point split in two, and one without weight, change nothing.
    more = robust_classifier(
        np.vstack([X, X[:1], [[3.0, 3.0]]]),
        np.append(y, [y[0], 1]),
        1.55,
        weights=np.concatenate([[w[0] / 2], w[1:], [w[0] / 2, 0.0]]),
    )
    assert_allclose(more.risk, rule.risk, rtol=1e-12)
    assert robust_classifier(X, np.ones(70), 1.55).risk == 0
    assert_allclose(robust_classifier(X, y, 100.0).risk, 30 / 70)


def test_labels_are_zeros_and_ones():
    with pytest.raises(ValueError, match=r"labels: expected zeros and ones, got 2\.0"):
        robust_classifier([[0.0], [1.0]], [0, 2], 0.1)
