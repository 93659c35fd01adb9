"""Branching on positive rows against brute force over their subsets, the covering with cones, and
its own failures; budgets, and the semidefinite bounds where they end."""

import dataclasses
import itertools
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

from theorylab.convex_relu import (
    Rejection,
    TrainingStatus,
    Weighted,
    dual_norm,
    enumerate_arrangements,
    train,
    zero_threshold,
)
from theorylab.convex_relu._branching import Leaf, leaf_holds, search_branches
from theorylab.convex_relu._branching_steps import range_over_cap, range_over_cone
from theorylab.convex_relu._covering import cover
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu._relaxation import _quadratic_bound, relaxed_dual, root_bound
from theorylab.convex_relu.losses import as_loss

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
    held = []

    def check(*leaf):
        held.append(leaf_holds(*leaf))
        return held[-1]

    proof = search_branches(X, v, linear, above, 1, BUDGET, check)
    assert proof.proved
    assert proof.leaves == len(held)
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
    nothing = *2 * [np.empty((0, 4))], np.empty((0, d, d)), np.empty((0, d)), np.empty((0, n))
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


def test_every_tight_leaf_of_a_long_search_is_checked():
    # h(u) = h(-u): tight leaves at two places, which are many nodes apart.
    rng = np.random.default_rng(0)
    half, v = rng.standard_normal((14, 8)), np.tile(rng.standard_normal(14), 2)
    X, linear, best = np.vstack([half, -half]), np.zeros(8), 1e-3
    while len(found := search_branches(X, v, linear, best * (1 + 1e-10), 1, BUDGET).directions):
        best = value(X, v, linear, found[0])
    held = []

    def check(*leaf):
        held.append(leaf_holds(*leaf))
        return held[-1]

    proof = search_branches(X, v, linear, best * (1 + 1e-9), 1, BUDGET, check)
    assert proof.proved
    assert proof.nodes > 20
    assert proof.leaves == len(held) >= 2
    answers = iter([True, False])
    refused = search_branches(
        X, v, linear, best * (1 + 1e-9), 1, BUDGET, lambda *leaf: next(answers)
    )
    assert not refused.proved


@pytest.mark.parametrize(
    ("linear", "side", "low", "high", "multiplier", "least"),
    [
        # (u_1)_+ + linear u_1: the least |w| + C.
        (0.0, 0, -1.0, 1.0, 0.0, 1.0),  # free: u / 2 + 1 / 2
        (0.0, 0, -0.5, 1.0, 0.0, 1.0),  # 2 u / 3 + 1 / 3
        (0.0, 0, -1.0, 0.25, 0.0, 0.4),  # u / 5 + 1 / 5
        (0.5, 2, -0.25, 1.0, 0.0, 1.75),  # on where u >= -0.25: 1.5 u + 0.25
        (0.5, -2, -1.0, 0.25, 0.0, 0.75),  # off where u <= 0.25: 0.5 u + 0.25
        (0.5, 1, -1.0, 1.0, 0.0, 1.5),
        (-1.5, 1, -1.0, 1.0, 0.25, 0.25),  # on where u >= 0: (1 + 0.25 - 1.5) u
        (0.75, -1, -1.0, 1.0, 0.25, 0.5),  # off where u <= 0: (0.75 - 0.25) u
        (2.5, -1, -1.0, 1.0, 0.0, 2.5),
    ],
)
def test_a_leaf_holds_from_its_bound_on(linear, side, low, high, multiplier, least):
    A, B, slope = np.array([[1.0, 0.0]]), np.empty((0, 2)), np.array([linear, 0.0])
    one = [np.array([low]), np.array([high]), np.empty(0), np.array([multiplier])]
    leaf = Leaf(np.array([side], dtype=np.int8), *one)
    assert leaf_holds(A, B, slope, least + 1e-15, leaf)
    assert not leaf_holds(A, B, slope, least - 1e-15, leaf)
    assert not leaf_holds(A, B, slope, -2.0 * least, leaf)


def test_slopes_and_multipliers_out_of_range_prove_nothing():
    row, none = np.array([[1.0, 0.0]]), np.empty((0, 2))
    # 2 u_1 - (u_1)_+ has the maximum 1, and -u_1 - (u_1)_+ as well.
    for linear, slope, holds in ((2.0, 1.0, True), (2.0, 2.0, False), (-1.0, -1.0, False)):
        leaf = Leaf(np.empty(0, dtype=np.int8), *np.empty((2, 0)), np.array([slope]), np.empty(0))
        assert leaf_holds(none, row, np.array([linear, 0.0]), 1.0, leaf) is holds
        assert leaf_holds(none, row, np.array([linear, 0.0]), 0.5, leaf) is False
    # (u_1)_+ where u_1 >= 0: no negative multiple of the wall helps.
    leaf = Leaf(np.ones(1, dtype=np.int8), -np.ones(1), np.ones(1), np.empty(0), -np.ones(1))
    assert not leaf_holds(row, none, np.zeros(2), 0.5, leaf)


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


def regression(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X, W, a = rng.standard_normal((n, d)), rng.standard_normal((5, d)), rng.standard_normal(5)
    return X, np.maximum(X @ W.T, 0) @ a + 0.5 * rng.standard_normal(n)


@pytest.mark.parametrize(("n", "d"), [(10, 6), (9, 12), (30, 8), (10, 50)])
def test_training_in_high_dimension(n, d):
    X, y = regression(n, d)
    beta = zero_threshold(X, y) / 20
    result = train(X, y, beta)
    assert result.status is TrainingStatus.CERTIFIED
    assert result.gap <= 1e-8
    verification = result.certificate.verify()
    assert verification
    assert verification.n_exact > 0
    if n == 10 and d == 6:
        cells = train(X, y, beta, arrangements=enumerate_arrangements(X))
        assert cells.gap <= 1e-8
        assert cells.objective == pytest.approx(result.objective, rel=1e-8)
    too_large = dataclasses.replace(result.certificate, dual=result.certificate.dual * (1 + 1e-8))
    assert too_large.verify().reason is Rejection.CONSTRAINT


@pytest.mark.parametrize(("n", "d"), [(20, 8), (30, 3)])
def test_a_verification_that_cannot_finish_is_a_rejection(n, d):
    X, y = regression(n, d)
    certificate = train(X, y, zero_threshold(X, y) / 20).certificate
    verification = certificate.verify(max_nodes=5)
    assert not verification
    assert verification.reason is Rejection.CONSTRAINT
    assert certificate.verify()


@pytest.mark.parametrize(("n", "d"), [(25, 8), (30, 3)])
def test_a_spent_budget_leaves_a_valid_bound(n, d):
    X, y = regression(n, d)
    exact = dual_norm(X, y)
    assert exact.exact
    values = []
    for budget in (1, 4, 100_000):
        norm = dual_norm(X, y, max_nodes=budget)
        assert norm.attained <= exact.value <= norm.value * (1 + 1e-9)
        values.append(norm.value)
        assert norm.exact == (budget == 100_000)
    assert values == sorted(values, reverse=True)
    beta = exact.value / 20
    best = train(X, y, beta)
    with pytest.warns(RuntimeWarning, match="max_nodes"):
        blind = train(X, y, beta, max_nodes=5)
    assert blind.status is TrainingStatus.BUDGET
    assert 1e-8 < blind.gap < 1
    assert blind.dual_objective <= best.objective <= blind.objective * (1 + 1e-12)
    assert blind.certificate.verify()


def test_more_nodes_prove_a_better_bound_before_they_prove_the_norm():
    X, y = regression(40, 8)
    certificate = train(X, y, zero_threshold(X, y) / 20).certificate
    v, nodes = certificate.dual, certificate.verify().n_cones
    exact, root = dual_norm(X, v), dual_norm(X, v, max_nodes=1)
    between = dual_norm(X, v, max_nodes=int(0.7 * nodes))
    assert not between.exact
    assert exact.value < between.value <= exact.value * 1.301 < root.value


@pytest.mark.parametrize("seed", range(6))
def test_nearly_parallel_rows_are_decided_without_their_cones(seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, (10, 3)) + 1e-9 * rng.standard_normal((10, 3))
    y = rng.standard_normal(10)
    result = train(X, y, zero_threshold(X, y) / 10)
    assert result.status is TrainingStatus.CERTIFIED
    assert result.certificate.verify()


def test_a_looser_tolerance_takes_fewer_rounds():
    X, y = regression(30, 8, seed=3)
    beta = zero_threshold(X, y) / 20
    tight = train(X, y, beta)
    for tol in (1e-2, 1e-1):
        loose = train(X, y, beta, tol=tol)
        assert loose.status is TrainingStatus.CERTIFIED
        assert tight.gap < loose.gap <= tol
        assert len(loose.history) < len(tight.history)


def relaxation(X, v):
    """The maximum over W >= u u', tr W = 1 that the root bound is the dual of (Clarabel)."""
    n, d = X.shape
    block = cp.Variable((d + 1, d + 1), PSD=True)
    W, u, r = block[:d, :d], block[:d, d], cp.Variable(n)
    constraints = [block[d, d] == 1, cp.trace(W) == 1]
    for i in range(n):
        square = X[i] @ W @ X[i]
        if v[i] > 0:
            constraints.append(r[i] <= cp.sqrt(square))
        else:
            constraints += [
                r[i] >= cp.abs(X[i] @ u),
                r[i] >= square / np.linalg.norm(X[i]),
            ]
    problem = cp.Problem(cp.Maximize(0.5 * v @ X @ u + 0.5 * v @ r), constraints)
    return problem.solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("seed", range(5))
def test_the_root_bound_is_the_value_of_the_relaxation(seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(3, 15)), int(rng.integers(1, 6))
    X, v = rng.standard_normal((n, d)), rng.standard_normal(n)
    if seed == 4:
        v = np.abs(v)
    bound = root_bound(X, v)
    expected = max(relaxation(X, v), relaxation(X, -v))
    assert expected * (1 - 1e-6) <= bound <= expected * (1 + 1e-4)
    assert dual_norm(X, v).attained <= bound
    assert root_bound(1e-9 * X, 1e6 * v) == pytest.approx(1e-3 * bound, rel=1e-5)
    # The multipliers that need no program: weaker, and a bound as well.
    wide = np.hstack([X, np.zeros((n, 50))])
    assert bound <= root_bound(wide, v) * (1 + 1e-6) < 10 * bound


def test_without_a_program_the_root_bound_is_that_of_cauchy_and_schwarz():
    # v'|Xu| <= sqrt(sum(v) u'X'VXu), and more columns than a program is solved for.
    rng = np.random.default_rng(5)
    X, v = np.hstack([rng.standard_normal((9, 4)), np.zeros((9, 50))]), rng.random(9)
    top = np.linalg.eigvalsh(X.T @ (v[:, None] * X))[-1]
    expected = 0.5 * np.sqrt(v.sum() * top) + 0.5 * np.linalg.norm(X.T @ v)
    assert dual_norm(X[:, :4], v).attained <= root_bound(X, v) <= expected * (1 + 1e-9)


@pytest.mark.parametrize(("row", "norm"), [(1.0, 0.7), (-1.0, 1.0)])
def test_multipliers_that_do_not_fit_bound_as_well(row, norm):
    # relu(row u) - relu(0.3 u) on u = -1 and 1.
    X, v, norms = np.array([[row], [0.3]]), np.array([1.0, -1.0]), np.array([1.0, 0.3])
    best = np.inf
    for sigma, tau, theta in itertools.product((-1.0, 1.0), np.arange(-4.0, 4.1, 0.5), (0, 0.5, 3)):
        multipliers = np.array([sigma, 1.0]), np.array([0.0, tau]), np.array([0.0, theta])
        best = min(best, _quadratic_bound(X, v, norms, *multipliers))
    assert norm <= best <= norm * (1.0 + 1e-6)


def test_the_root_bound_is_sharp_for_one_row():
    x = np.array([[3.0, -4.0]])
    assert root_bound(x, np.array([2.0])) == pytest.approx(10.0, rel=1e-5)
    assert root_bound(np.vstack([x, -x]), np.array([1.0, 1.0])) == pytest.approx(5.0, rel=1e-5)
    assert root_bound(np.zeros((2, 3)), np.ones(2)) == 0.0


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
def test_relaxations_bound_the_optimum(loss):
    X, y = regression(25, 6)
    y = y if loss == "squared" else np.sign(y)
    beta = zero_threshold(X, y, loss=loss) / 10
    best = train(X, y, beta, loss=loss)
    gaps = []
    for bound in ("root", "sdp"):
        result = train(X, y, beta, loss=loss, bound=bound)
        assert result.status is TrainingStatus.LOCAL
        assert not any(r.exact for r in result.history)
        assert result.dual_objective <= best.objective <= result.objective * (1 + 1e-8)
        assert result.certificate.verify()
        gaps.append(result.gap)
    assert gaps[1] < gaps[0] < 0.6
    # The dual point of the relaxation satisfies its constraint and no smaller one.
    v = relaxed_dual(X, y, beta, as_loss(loss), None)
    assert root_bound(X, v) == pytest.approx(beta, rel=1e-3)


def test_dual_points_of_the_relaxation_know_weights_and_the_skip_connection():
    X, y = regression(12, 3)
    weights = np.linspace(0.5, 3.0, 12)
    beta = 0.1 * zero_threshold(X, y)
    plain = relaxed_dual(X, y, beta, as_loss("squared"), None)
    free = relaxed_dual(X, y, beta, as_loss("squared"), X)
    assert np.abs(X.T @ plain).max() > 1e-2 * np.abs(plain).max()
    np.testing.assert_allclose(X.T @ free, 0.0, atol=1e-5 * np.abs(free).max())
    # Weighted squares are those of scaled rows and targets, their dual point divided by the scale.
    root = np.sqrt(weights)
    weighted = relaxed_dual(X, y, beta, Weighted("squared", weights), None)
    scaled = relaxed_dual(root[:, None] * X, root * y, beta, as_loss("squared"), None)
    np.testing.assert_allclose(weighted, root * scaled, atol=1e-4 * np.abs(weighted).max())


@pytest.mark.parametrize("name", ["squared", "logistic", "hinge"])
def test_above_its_threshold_the_relaxation_keeps_the_slopes_at_zero(name):
    X, y = regression(12, 3)
    y = y if name == "squared" else np.sign(y)
    for weights in (np.ones(12), np.linspace(0.5, 3.0, 12)):
        loss = Weighted(name, weights)
        slopes = weights * y * (0.5 if name == "logistic" else 1.0)
        found = relaxed_dual(X, y, 1.2 * root_bound(X, slopes), loss, None)
        np.testing.assert_allclose(found, slopes, rtol=1e-3)


def test_local_searches_bound_the_threshold_from_below():
    X, y = regression(25, 6)
    exact = zero_threshold(X, y)
    assert 0.99 * exact <= zero_threshold(X, y, exhaustive=False) <= exact


def ranges_over_a_cone(A, sides, start=1.0):
    """Ranges of the leading rows where the signs of the others are fixed one after the other, and
    the multipliers that prove them."""
    n, d = A.shape
    free, count = n - len(sides), len(sides)
    lengths = np.linalg.norm(A, axis=1) * (1 + 1e-15)
    units, side = A / lengths[:, None], np.zeros(n, dtype=np.int8)
    low, high, mu = -start * lengths, start * lengths, np.zeros((2 * n, count))
    work = np.empty((count, count)), np.empty(count), np.empty(d)
    for k in range(count):
        side[free + k] = sides[k]
        chain = np.arange(free, free + k + 1)
        range_over_cone(units, units @ units.T, lengths, chain, side, low, high, mu, *work)
    return lengths, low[:free], high[:free], mu[: 2 * free]


def test_ranges_over_cones_against_projections():
    rng = np.random.default_rng(0)
    slack = []
    for _ in range(20):
        d = int(rng.integers(2, 6))
        A, sides = rng.standard_normal((4 + d, d)), rng.choice([-1, 1], d)
        A[:, 0] += 1.0
        _, low, high, _ = ranges_over_a_cone(A, sides)
        cone = A[4:] * sides[:, None]
        # The norm of the projection onto the cone, by non-negative least squares.
        top = np.array([nnls(cone.T, -a)[1] for a in A[:4]])
        bottom = np.array([nnls(cone.T, a)[1] for a in A[:4]])
        assert np.all(high >= top - 1e-12)
        assert np.all(-low >= bottom - 1e-12)
        slack += list((high - top) / np.linalg.norm(A[:4], axis=1))
        slack += list((-low - bottom) / np.linalg.norm(A[:4], axis=1))
        # Nothing that was known is given up.
        _, low, high, _ = ranges_over_a_cone(A, sides, 1e-3)
        assert np.all(np.maximum(-low, high) <= 1e-3 * np.linalg.norm(A[:4], axis=1) * (1 + 1e-14))
    # The iterations are few, and small gains wait.
    assert np.median(slack) < 0.01
    assert np.quantile(slack, 0.9) < 0.2


def test_ranges_over_cones_hold_in_rational_arithmetic():
    rng = np.random.default_rng(1)
    for scale in (1e-3, 1e-6, 1.0):
        # Rows that are almost parallel need large multipliers.
        A = rng.standard_normal((12, 3))
        A[6:] = A[5] + scale * A[6:]
        sides = rng.choice([-1, 1], 6)
        lengths, low, high, mu = ranges_over_a_cone(A, sides)
        rows = [[Fraction(x) for x in row] for row in A.tolist()]
        size = [Fraction(x) for x in lengths.tolist()]
        for m, multipliers in enumerate(mu.tolist()):
            i, sign = m // 2, 1 - 2 * (m % 2)
            assert min(multipliers) >= 0.0
            w = [sign * x for x in rows[i]]
            for k, factor in enumerate(multipliers):
                factor = Fraction(factor) * size[i] / size[6 + k] * int(sides[k])
                w = [s + factor * x for s, x in zip(w, rows[6 + k], strict=True)]
            bound = Fraction(float(high[i] if sign > 0 else -low[i]))
            assert sum(x * x for x in w) <= bound**2


def test_ranges_over_caps():
    rng = np.random.default_rng(0)
    for _ in range(20):
        d = int(rng.integers(2, 6))
        A = rng.standard_normal((4, d))
        lengths, side = np.linalg.norm(A, axis=1), np.zeros(4, dtype=np.int8)
        w, least = rng.standard_normal(d), rng.uniform(-0.5, 0.9)
        low, high = -lengths, lengths.copy()
        norm = float(np.linalg.norm(w))
        assert not range_over_cap(A, lengths, w, norm, least * norm, side, low, high)
        angle, radius = np.arccos(A @ w / (lengths * norm)), np.arccos(least)
        expected = lengths * np.cos(np.maximum(angle - radius, 0.0))
        assert np.all((high >= expected) & (high <= expected + 1e-6))
        expected = lengths * np.cos(np.minimum(angle + radius, np.pi))
        assert np.all((low <= expected) & (low >= expected - 1e-6))
