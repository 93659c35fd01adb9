"""Branching on positive rows against brute force over their subsets, the covering with cones, and
its own failures."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from theorylab.convex_relu._branching import leaf_holds, search_branches
from theorylab.convex_relu._covering import cover
from theorylab.convex_relu.certificates import reduce_rows

BUDGET = 100_000


def brute_force(X, v, linear):
    """The maximum over the unit ball: of all subsets D of the positive rows, the largest distance
    of linear + sum_D a_i from the zonotope of the negative rows."""
    A, B = v[v > 0, None] * X[v > 0], -v[v < 0, None] * X[v < 0]
    best = 0.0
    for D in itertools.product([0.0, 1.0], repeat=len(A)):
        point = linear + np.array(D) @ A
        if len(B):
            t = lsq_linear(B.T, point, bounds=(0, 1), method="bvls", tol=1e-15).x
            point = point - B.T @ t
        best = max(best, np.linalg.norm(point))
    return best


def value(X, v, linear, u):
    return v @ np.maximum(X @ u, 0) + linear @ u


def instance(kind, seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(4, 11)), int(rng.integers(1, 8))
    X, v, linear = rng.standard_normal((n, d)), rng.standard_normal(n), np.zeros(d)
    if kind == "integers":
        X, v = rng.integers(-2, 3, (n, d)).astype(float), rng.integers(-2, 3, n).astype(float)
    elif kind == "repeated rows":
        X[1], X[2], X[3] = X[0], -X[0], 2 * X[0]
    elif kind == "zero rows and columns":
        X[: n // 3] = 0.0
        X[:, 0] = 0.0
    elif kind == "rank two":
        X = rng.standard_normal((n, 2)) @ rng.standard_normal((2, d))
    elif kind == "one sign":
        v = np.abs(v)
    elif kind == "linear term":
        linear = rng.standard_normal(d)
    elif kind == "near ties":
        X = rng.integers(-2, 3, (n, d)) + 1e-9 * rng.standard_normal((n, d))
    elif kind == "scales":
        X *= 10.0 ** rng.uniform(-3, 3, (n, 1))
    return X, v, linear


KINDS = [
    "general",
    "integers",
    "repeated rows",
    "zero rows and columns",
    "rank two",
    "one sign",
    "linear term",
    "near ties",
    "scales",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_thresholds_next_to_the_maximum_of_brute_force(kind, seed):
    X, v, linear = instance(kind, seed)
    best = brute_force(X, v, linear)
    if best < 1e-6:
        return
    # The bound on rounding is relative to the sum of the rows' lengths, not to the maximum.
    size = np.abs(v) @ np.linalg.norm(X, axis=1) + np.linalg.norm(linear)
    above, below = best + 1e-10 * size, best * (1 - 1e-7)
    proof = search_branches(X, v, linear, above, 1, BUDGET, leaf_holds)
    assert proof.proved
    assert len(proof.directions) == 0
    refuted = search_branches(X, v, linear, below, 1, BUDGET)
    assert not refuted.proved
    for u in refuted.directions:
        assert np.linalg.norm(u) == pytest.approx(1.0, rel=1e-14)
        assert below < value(X, v, linear, u) <= best * (1 + 1e-12)


@pytest.mark.parametrize(("n", "d"), [(12, 3), (20, 4)])
def test_the_covering_with_cones_decides_alike(n, d):
    rng = np.random.default_rng(n)
    X, v, linear = rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal(d)
    best = 1e-3
    while len(found := search_branches(X, v, linear, best * (1 + 1e-10), 1, BUDGET).directions):
        best = value(X, v, linear, found[0])
    nothing = np.empty((0, d, d)), np.empty((0, d)), np.empty((0, n))
    for threshold, expected in ((best * (1 + 1e-6), 0), (best * (1 - 1e-6), 1)):
        directions, values = np.empty((1, d)), np.empty(1)
        found, _, _, complete = cover(
            X, v, linear, threshold, 1, 10**6, directions, values, *nothing
        )
        assert found == expected
        assert complete == 1 - expected


def test_a_spent_budget_proves_nothing():
    rng = np.random.default_rng(0)
    X, v = rng.standard_normal((30, 8)), rng.standard_normal(30)
    far = np.abs(v) @ np.linalg.norm(X, axis=1)
    assert search_branches(X, v, np.zeros(8), far, 1, 1).proved
    whole = search_branches(X, v, np.zeros(8), 0.15 * far, 1, BUDGET)
    assert whole.proved
    assert whole.nodes > 10
    for budget in (1, whole.nodes // 2, whole.nodes - 1):
        part = search_branches(X, v, np.zeros(8), 0.15 * far, 1, budget)
        assert part.nodes == budget
        assert not part.proved
        assert not part.ended
    assert search_branches(X, v, np.zeros(8), 0.15 * far, 1, whole.nodes).proved


def test_violations_are_collected_without_a_proof():
    # h(u) = h(-u), so that there are at least two maximisers.
    rng = np.random.default_rng(1)
    half, v = rng.standard_normal((6, 4)), np.tile(rng.standard_normal(6), 2)
    X, linear = np.vstack([half, -half]), np.zeros(4)
    below = brute_force(X, v, linear) * (1 - 1e-7)
    one = search_branches(X, v, linear, below, 1, BUDGET)
    assert len(one.directions) == 1
    assert not one.ended
    both = search_branches(X, v, linear, below, 5, BUDGET)
    assert both.ended
    assert not both.proved
    assert len(both.directions) == 2
    assert both.directions[0] @ both.directions[1] < 0


def test_every_sign_vector_of_independent_rows():
    # Orthogonal rows: the maximum is the norm of the positive part of v.
    rng = np.random.default_rng(2)
    v = rng.standard_normal(40)
    rotation, _ = np.linalg.qr(rng.standard_normal((50, 50)))
    X = rotation[:40]
    best = np.linalg.norm(np.maximum(v, 0))
    assert search_branches(X, v, np.zeros(50), best * (1 + 1e-9), 1, BUDGET).proved
    assert not search_branches(X, v, np.zeros(50), best * (1 - 1e-9), 1, BUDGET).proved


def test_leaves_are_checked_in_rational_arithmetic():
    rng = np.random.default_rng(3)
    X, v, linear = rng.standard_normal((12, 4)), rng.standard_normal(12), np.zeros(4)
    best = brute_force(X, v, linear)
    kept = []

    def keep(*leaf):
        kept.append(leaf)
        return leaf_holds(*leaf)

    proof = search_branches(X, v, linear, best * (1 + 1e-9), 1, BUDGET, keep)
    assert proof.proved
    assert proof.leaves == len(kept) > 0
    for A, B, slope, threshold, leaf in kept:
        assert not leaf_holds(A, B, slope, threshold * (1 - 1e-5), leaf)
        assert not leaf_holds(A * (1 + 1e-5), B * (1 + 1e-5), slope, threshold, leaf)
        for wrong in (
            {"slopes": leaf.slopes - 2.0},
            {"multipliers": leaf.multipliers - 1.0},
            {"side": -leaf.side},
        ):
            assert not leaf_holds(A, B, slope, threshold, dataclasses.replace(leaf, **wrong))
    refused = search_branches(X, v, linear, best * (1 + 1e-9), 1, BUDGET, lambda *leaf: False)
    assert not refused.proved
    assert not refused.ended


@pytest.mark.parametrize("scale", [1e-150, 1e-8, 1e8, 1e150])
def test_units_do_not_matter(scale):
    rng = np.random.default_rng(4)
    X, v = rng.standard_normal((20, 6)), rng.standard_normal(20)
    reduction = reduce_rows(X)
    for factor in (0.05, 0.1, 0.3):
        threshold = factor * float(np.abs(v) @ np.linalg.norm(X, axis=1))
        plain = search_branches(reduction.lines, v, np.zeros(6), threshold, 1, BUDGET)
        scaled = search_branches(
            reduction.lines * scale, v, np.zeros(6), threshold * scale, 1, BUDGET
        )
        assert scaled.proved == plain.proved
