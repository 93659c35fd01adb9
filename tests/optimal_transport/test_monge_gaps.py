"""The Monge gap: enumeration, POT, every simple cycle, closed forms, entropy, fitted maps."""

import itertools
from fractions import Fraction

import numpy as np
import ot
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.linalg import sqrtm

from theorylab.optimal_transport import (
    L1,
    KOverlap,
    SmoothedL0,
    cost_matrix,
    cycle_excess,
    fit_monge_map,
    gaussian_monge_gap,
    monge_gap,
)

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
COSTS = ["sqeuclidean", "euclidean", L1(0.7), KOverlap(1.0, 1), SmoothedL0(1.0, 0.4)]
COSTS += [lambda X, Y: (np.abs(X[:, None] - Y) ** 1.5).sum(2), lambda X, Y: X @ Y.T]


def mapped(n, d, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, X + 0.8 * rng.standard_normal((n, d))


def saved(C):
    """What the best permutation saves, n times."""
    n = len(C)
    best = min(sum(C[i, p[i]] for i in range(n)) for p in itertools.permutations(range(n)))
    return C.trace() - best


def worst_mean(C):
    """The largest mean saving of a simple cycle, all of them tried."""
    n, best = len(C), 0.0
    for size in range(2, n + 1):
        for nodes in itertools.permutations(range(n), size):
            if nodes[0] == min(nodes):
                after = nodes[1:] + nodes[:1]
                pairs = zip(nodes, after, strict=True)
                best = max(best, sum(C[i, i] - C[i, j] for i, j in pairs) / size)
    return best


@pytest.mark.parametrize("cost", COSTS, ids=lambda c: str(c)[:12])
@pytest.mark.parametrize("seed", range(3))
def test_gap_and_cycles_against_enumeration(cost, seed):
    X, TX = mapped(5, 2, seed)
    C = cost_matrix(X, TX, cost)
    found, cycle = monge_gap(X, TX, cost=cost), cycle_excess(X, TX, cost=cost)
    assert_allclose(5 * found.value, saved(C), atol=1e-12)
    assert_allclose(cycle, worst_mean(C), atol=1e-12)
    assert (found.value == 0) == (cycle == 0)
    assert 2 / 5 * cycle - 1e-12 <= found.value <= cycle + 1e-12
    assert_allclose(found.map_cost, C.trace() / 5)
    assert_allclose(found.bound, found.value, atol=1e-12)


def test_against_pot():
    X, TX = mapped(60, 3, 5)
    w = np.full(60, 1 / 60)
    expected = np.mean(((X - TX) ** 2).sum(1)) - ot.emd2(w, w, ot.dist(X, TX))
    assert_allclose(monge_gap(X, TX).value, expected, rtol=1e-10)
    assert expected > 0.01
    C = ot.dist(X, TX)
    eps = 0.3
    P = ot.sinkhorn(w, w, C, eps, stopThr=1e-12, numItermax=20_000)
    soft = np.mean(C.diagonal()) - np.vdot(P, C) - eps * np.sum(P * np.log(P))
    assert_allclose(monge_gap(X, TX, eps=eps).value, soft, rtol=1e-7)


def test_the_cycle_bounds_are_attained():
    angle = 2 * np.pi * np.arange(7) / 7
    X = np.column_stack([np.cos(angle), np.sin(angle)])
    around = np.roll(X, -1, axis=0)  # one cycle of all points
    assert_allclose(monge_gap(X, around).value, cycle_excess(X, around))
    swapped = 100 * X
    swapped[[0, 1]] = swapped[[1, 0]]  # one cycle of two points
    assert_allclose(monge_gap(100 * X, swapped).value, 2 / 7 * cycle_excess(100 * X, swapped))
    # No pair is worth swapping in a turn by a seventh: cycles of two points do not suffice.
    C = cost_matrix(X, around, "sqeuclidean")
    assert (C + C.T - np.add.outer(C.diagonal(), C.diagonal())).min() >= -1e-12
    assert monge_gap(X, around).value > 0.1


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4))
def test_integer_points_exactly(seed, n, d, p):
    rng = np.random.default_rng(seed)
    X, TX = rng.integers(-4, 5, (2, n, d)).astype(float)

    def cost(A, B):
        return (np.abs(A[:, None] - B) ** p).sum(2)

    whole = saved(cost(X, TX))
    found = monge_gap(X, TX, cost=cost)
    assert_allclose(n * found.value, float(Fraction(int(whole))), atol=1e-10 * (1 + whole))
    assert (found.value == 0) == (whole == 0) == (cycle_excess(X, TX, cost=cost) == 0)
    some = rng.permutation(n)[: rng.integers(1, n + 1)]
    part = len(some) * monge_gap(X[some], TX[some], cost=cost).value
    assert part <= n * found.value + 1e-10 * (1 + whole)


# ---------------------------------------------------------------------------------- Gaussian maps
def test_gaussian_gap_is_bures():
    rng = np.random.default_rng(0)
    for d in (1, 2, 4):
        A, root = rng.standard_normal((d, d)), rng.standard_normal((d, d))
        S = root @ root.T
        middle = sqrtm(S)
        image = A @ S @ A.T
        bures = np.trace(S + image - 2 * sqrtm(middle @ image @ middle).real)
        moved = np.trace((A - np.eye(d)) @ S @ (A - np.eye(d)).T)
        assert_allclose(gaussian_monge_gap(A, S), moved - bures, atol=1e-7)


def test_gaussian_zeros_and_signs():
    S = np.array([[2.0, 0.5], [0.5, 1.0]])
    assert gaussian_monge_gap([[2.0, 0.3], [0.3, 1.0]], S) == 0
    assert gaussian_monge_gap([[1.0, 2.0], [2.0, 1.0]], S) > 0.1  # symmetric, indefinite
    assert gaussian_monge_gap([[1.0, 0.5], [0.0, 1.0]], S) > 0.01  # not symmetric
    assert_allclose(gaussian_monge_gap(-np.eye(2), S), 4 * 3.0)
    assert_allclose(gaussian_monge_gap(TURN, S), 2 * 2 * np.sqrt(np.linalg.det(S)))
    # Where the covariance vanishes the map does not matter: the hypothesis that it is definite.
    assert gaussian_monge_gap([[1.0, 5.0], [0.0, 1.0]], np.diag([1.0, 0.0])) == 0


def test_a_singular_map_of_a_gaussian():
    # Its image lies on a line, where transport pairs quantiles: 2 (sd sd' - covariance).
    S, v = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([0.6, -0.8])
    A = np.outer([0.6, 0.8], v)
    kept, along = 2 * np.trace(A @ S), np.array([0.6, 0.8])
    best = 2 * np.sqrt((along @ S @ along) * (v @ S @ v))
    assert_allclose(gaussian_monge_gap(A, S), best - kept)
    assert best - kept > 0.1


def test_samples_approach_the_gaussian_from_below():
    rng = np.random.default_rng(1)
    turn = np.array([[np.cos(0.8), -np.sin(0.8)], [np.sin(0.8), np.cos(0.8)]])
    stated = gaussian_monge_gap(turn, np.eye(2))
    means = []
    for n in (30, 120, 480):
        clouds = rng.standard_normal((12, n, 2))
        means.append(np.mean([monge_gap(X, X @ turn.T).value for X in clouds]))
    assert means[0] < means[1] < means[2] < stated
    assert means[2] > 0.85 * stated
    X = rng.standard_normal((50, 2))
    assert monge_gap(X, X @ np.array([[2.0, 0.3], [0.3, 1.0]])).value == 0


# ---------------------------------------------------------------------------------- entropy
@pytest.mark.parametrize("eps", [0.02, 0.3, 30.0])
def test_the_entropic_sandwich(eps):
    for X, TX in (mapped(20, 2, 3), (mapped(20, 2, 3)[0],) * 2):
        exact, soft = monge_gap(X, TX).value, monge_gap(X, TX, eps=eps)
        level = eps * np.log(20)
        assert exact + level * (1 - 1e-9) <= soft.value <= soft.bound + 1e-12
        assert soft.bound <= exact + 2 * level * (1 + 1e-9)
        assert_allclose(soft.bound, soft.value, rtol=1e-6)


def test_the_entropic_bounds_are_attained():
    same = np.ones((5, 2))
    assert_allclose(monge_gap(same, same, eps=0.3).value, 0.3 * 2 * np.log(5))
    far = 100 * np.arange(5.0)[:, None]
    assert_allclose(monge_gap(far, far, eps=0.3).value, 0.3 * np.log(5))
    assert monge_gap(same[:1], same[:1], eps=0.3).value == 0


def test_where_all_couplings_cost_the_same_the_cost_alone_adds_nothing():
    X, _ = mapped(20, 2, 3)
    flat, bent = (monge_gap(X, TX, eps=0.5) for TX in (np.ones((20, 2)), X))
    assert_allclose(flat.plan.transport_cost, 0, atol=1e-7)
    assert bent.plan.transport_cost > 0.1


# ---------------------------------------------------------------------------------- invariances
@pytest.mark.parametrize("u", [1e-8, 1e8])
def test_units(u):
    X, TX = mapped(12, 2, 7)
    for eps in (0.0, 0.4):
        one, other = monge_gap(X, TX, eps=eps), monge_gap(u * X, u * TX, eps=eps * u * u)
        assert_allclose(other.value, one.value * u * u, rtol=1e-7)
        assert_allclose(other.map_cost, one.map_cost * u * u)
    assert_allclose(cycle_excess(u * X, u * TX), u * u * cycle_excess(X, TX))
    A, S = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[2.0, 0.5], [0.5, 1.0]])
    assert_allclose(gaussian_monge_gap(A, u * S), u * gaussian_monge_gap(A, S))
    assert_allclose(gaussian_monge_gap(u * A, S), u * gaussian_monge_gap(A, S))


def test_order_translation_and_repeated_points():
    X, TX = mapped(12, 2, 8)
    p = np.random.default_rng(0).permutation(12)
    value = monge_gap(X, TX).value
    assert_allclose(monge_gap(X[p] + 1e6, TX[p] - 1e6).value, value, rtol=1e-8)
    assert_allclose(cycle_excess(X[p], TX[p]), cycle_excess(X, TX))
    assert_allclose(monge_gap(np.repeat(X, 3, 0), np.repeat(TX, 3, 0)).value, value)
    assert monge_gap(X, X + 1e7).value == 0
    assert monge_gap(X[:1], TX[:1]).value == cycle_excess(X[:1], TX[:1]) == 0
    assert "MongeGap" in repr(monge_gap(X, TX))


# ---------------------------------------------------------------------------------- fitted maps
def test_the_objective_and_its_gradient(monkeypatch):
    seen = []

    def check(fun, x0, jac, **options):
        for x in (x0, x0 + 0.1 * np.random.default_rng(1).standard_normal(x0.size)):
            value, slope = fun(x)
            step = 1e-5 * np.eye(x.size)
            numeric = [(fun(x + h)[0] - fun(x - h)[0]) / 2e-5 for h in step]
            seen.append((value, slope, numeric))
        raise InterruptedError

    monkeypatch.setattr("theorylab.optimal_transport.monge_gaps.minimize", check)
    X, _ = mapped(15, 2, 9)
    for weight in (0.0, 2.0):
        with pytest.raises(InterruptedError):
            fit_monge_map(X, 2 * X[:11] + 1, weight, eps=0.7)
    for value, slope, numeric in seen:
        assert value > 0
        assert_allclose(slope, numeric, atol=1e-6, rtol=1e-5)


def test_the_gap_leads_every_start_to_one_map():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2))
    Y = rng.standard_normal((60, 2)) @ np.array([[2.0, 0.5], [0.5, 1.0]]) + 1
    turned = np.vstack([np.zeros((1, 2)), TURN])
    free = [fit_monge_map(X, Y, 0.0, eps=0.3, start=s) for s in (None, turned)]
    bound = [fit_monge_map(X, Y, 1.0, eps=0.3, start=s) for s in (None, turned)]
    assert np.abs(free[0].coefficients - free[1].coefficients).max() > 0.5
    assert_allclose(bound[0].coefficients, bound[1].coefficients, atol=1e-2)
    assert monge_gap(X, free[1].images).value > 1.0
    assert monge_gap(X, bound[1].images).value < 1e-2
    assert bound[0].divergence > min(f.divergence for f in free)
    assert (np.diff(bound[0].objectives) <= 1e-9).all()
    assert_allclose(bound[0].at(X), bound[0].images)
    fit = bound[0]
    assert_allclose(fit.gap, monge_gap(X, fit.images, eps=0.3).value, rtol=1e-4)
    assert_allclose(fit.objectives[-1], fit.divergence + fit.gap, rtol=1e-6)
    assert "FittedMap" in repr(fit)


def test_the_divergence_is_debiased():
    X, _ = mapped(30, 2, 11)
    same = fit_monge_map(X, X, 0.0, eps=0.5)
    assert abs(same.divergence) < 1e-7
    assert_allclose(same.images, X, atol=1e-3)
    w = np.full(30, 1 / 30)
    moved = fit_monge_map(
        X, X + np.array([3.0, 0.0]), 0.0, eps=0.5, max_iter=1, start=np.eye(3)[:, 1:]
    )

    def soft(A, B):
        C = ot.dist(A, B)
        P = ot.sinkhorn(w, w, C, 0.5, stopThr=1e-12, numItermax=20_000)
        return np.vdot(P, C) + 0.5 * np.sum(P * np.log(P))

    T, Y = moved.images, X + np.array([3.0, 0.0])
    assert_allclose(moved.divergence, soft(T, Y) - (soft(T, T) + soft(Y, Y)) / 2, rtol=1e-5)


def test_other_features_and_units():
    X, _ = mapped(25, 1, 12)

    def cubic(P):
        return np.column_stack([np.ones(len(P)), P, P**3])

    fit = fit_monge_map(X, X + 0.3 * X**3, 0.01, eps=0.05, basis=cubic)
    assert fit.coefficients.shape == (3, 1)
    assert np.abs(fit.images - X - 0.3 * X**3).max() < 0.2
    Y = 2 * X + 1
    one = fit_monge_map(X, Y, 0.5, eps=0.2)
    for u in (1e-6, 1e6):
        other = fit_monge_map(u * X, u * Y, 0.5, eps=0.2 * u * u)
        assert_allclose(other.images, u * one.images, rtol=1e-3, atol=1e-3 * u)


def test_bad_input():
    X, TX = mapped(6, 2, 1)
    for call, message in (
        (lambda: monge_gap(X, TX[:4]), r"TX: expected shape \(6, 2\)"),
        (lambda: monge_gap(X, TX, eps=-1.0), "eps: expected a finite real number"),
        (lambda: monge_gap(X, TX, cost="l2"), "cost: expected sqeuclidean"),
        (lambda: monge_gap(X, TX, eps=1e-18), "eps: expected a weight that float64 resolves"),
        (lambda: gaussian_monge_gap(np.eye(3), np.eye(2)), r"A: expected shape \(2, 2\)"),
        (lambda: gaussian_monge_gap(np.eye(2), -np.eye(2)), "covariance: expected a positive semi"),
        (lambda: fit_monge_map(X, TX, -1.0, eps=0.1), "weight"),
        (lambda: fit_monge_map(X, TX, 1.0, eps=0.0), "eps: expected a finite real number and > 0"),
        (lambda: fit_monge_map(X, TX, 1.0, eps=0.1, basis=lambda P: P[:2]), "basis: expected sh"),
        (lambda: fit_monge_map(X, TX, 1.0, eps=0.1, start=X), r"start: expected shape \(3, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
