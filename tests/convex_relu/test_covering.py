"""The covering with cones against projections onto every cell, in each orthant, and next to the
last digit of the maximum."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.optimize import nnls

from theorylab.convex_relu import dual_norm, enumerate_arrangements
from theorylab.convex_relu._cone_proof import _proves
from theorylab.convex_relu._constraint import _leaf_holds
from theorylab.convex_relu._covering import cover
from theorylab.convex_relu._dual_norm import Coverings, search_sphere
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.numerics.balls import rational_matrix

NOTHING = np.empty((0, 4))


def decide(X, v, linear, threshold, *, found=1, nodes=10**6, keep=0, trees=(NOTHING, NOTHING)):
    n, d = X.shape
    directions, values = np.zeros((found, d)), np.zeros(found)
    leaves = np.empty((keep, d, d)), np.empty((keep, d)), np.empty((keep, n))
    counts = cover(X, v, linear, threshold, found, nodes, directions, values, *trees, *leaves)
    return counts, directions, values, leaves


def maximum(X, v, linear):
    """The largest projection of a cell's gradient onto the cell: the residual of a non-negative
    least-squares problem."""
    cells = [np.where(D, 1.0, -1.0)[:, None] * X for D in enumerate_arrangements(X)]
    gradients = [linear + v @ (D[:, None] * X) for D in enumerate_arrangements(X)]
    return max(nnls(R.T, -g)[1] for R, g in zip(cells, gradients, strict=True))


def value(X, v, linear, u):
    return v @ np.maximum(X @ u, 0) + linear @ u


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_maximum_in_any_orthant_is_found(d):
    for side in product((1.0, -1.0), repeat=d):
        X = np.array([side]) * (1.0 + 0.3 * np.arange(d))
        size = np.linalg.norm(X)
        counts, directions, values, _ = decide(X, np.ones(1), np.zeros(d), 0.999 * size)
        assert counts[0] == 1
        assert np.array_equal(np.sign(directions[0]), side)
        assert values[0] == pytest.approx(X[0] @ directions[0], rel=1e-14)
        assert 0.999 * size < values[0] <= size * (1 + 1e-14)
        counts, *_ = decide(X, np.ones(1), np.zeros(d), 1.001 * size)
        assert counts[::3] == (0, 1)


@pytest.mark.parametrize("kind", ["general", "one sign", "negative", "linear", "integers", "lines"])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_next_to_the_largest_projection(kind, seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(4, 9)), 1 + seed
    X, v, linear = rng.standard_normal((n, d)), rng.standard_normal(n), np.zeros(d)
    if kind in ("one sign", "negative"):
        v = np.abs(v) * (1.0 if kind == "one sign" else -1.0)
    if kind in ("linear", "negative"):
        linear = 2.0 * rng.standard_normal(d)
    elif kind == "integers":
        X, v = rng.integers(-2, 3, (n, d)) * 1.0, rng.integers(-2, 3, n) * 1.0
    elif kind == "lines":
        X[1], X[2] = -X[0], 2.0 * X[0]
    best = maximum(X, v, linear)
    if best < 1e-6:
        return
    above, below = best * (1 + 1e-7), best * (1 - 1e-7)
    counts, *_, leaves = decide(X, v, linear, above, keep=512)
    assert counts[::3] == (0, 1)
    tight = counts[2]
    assert 1 <= tight <= 512
    rows = rational_matrix(X)
    for leaf in zip(*(part[:tight] for part in leaves), strict=True):
        assert _leaf_holds(rows, v, linear, above, *leaf)
    # Far above nothing is tight.
    assert decide(X, v, linear, 3.0 * best, keep=512)[0][2] == 0
    counts, directions, values, _ = decide(X, v, linear, below)
    assert counts[0] == 1
    assert counts[3] == 0
    assert np.linalg.norm(directions[0]) == pytest.approx(1.0, rel=1e-14)
    assert values[0] == pytest.approx(value(X, v, linear, directions[0]), rel=1e-12)
    assert below < values[0] <= best * (1 + 1e-12)
    # The nodes of the proof are needed, to the last one.
    nodes = decide(X, v, linear, above)[0][1]
    assert decide(X, v, linear, above, nodes=nodes)[0][3] == 1
    if nodes > 1:
        assert decide(X, v, linear, above, nodes=nodes - 1)[0] == (0, nodes, 0, 0)


@pytest.mark.parametrize("d", [2, 3])
def test_the_proof_of_a_cone_checks_every_inequality_and_the_length(d):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = 5
        R = np.eye(d) + 0.3 * rng.random((d, d))
        R /= np.linalg.norm(R, axis=1)[:, None]
        X, v, t, g = rng.standard_normal((n, d)), rng.standard_normal(n), rng.random(n), R[0]
        X *= rng.choice([1e-3, 1.0], (n, 1))
        Z, q = X @ R.T, R.sum(axis=0) / np.linalg.norm(R.sum(axis=0))
        rows = np.where((v > 0.0)[:, None], np.maximum(Z, 0.0), t[:, None] * Z)
        margin, error, w = 1e-3 * (seed % 2), 1e-3 * (seed % 3), 0.3 * rng.standard_normal(d)
        needed = g @ R.T + v @ rows + margin
        # The length that w gets by its lift grows with the threshold, by the error.
        low, high = 0.0, 100.0
        for _ in range(100):
            middle = 0.5 * (low + high)
            lift = max(np.max((needed + error * middle - R @ w) / (R @ q)), 0.0)
            above = np.linalg.norm(w + lift * q) <= middle
            low, high = (low, middle) if above else (middle, high)
        for share, expected in ((1.0 - 1e-9, False), (1.0 + 1e-9, True)):
            cone = R, Z, g, q, margin, error, np.empty(d)
            assert _proves(v, np.arange(n), n, t, w.copy(), share * high, *cone) == expected


def test_leaves_of_many_rows_hold_in_fractions():
    # Narrow cones, at whose leaves most of the negative rows have left the list.
    rng = np.random.default_rng(2)
    X, v, linear = rng.standard_normal((60, 3)), rng.standard_normal(60), np.zeros(3)
    best = maximum(X, v, linear)
    threshold = best * (1 + 1e-9)
    counts, *_, leaves = decide(X, v, linear, threshold, keep=512)
    assert counts[::3] == (0, 1)
    assert 1 <= counts[2] <= 512
    rows = rational_matrix(X)
    for rays, majorant, multipliers in zip(*(part[: counts[2]] for part in leaves), strict=True):
        assert _leaf_holds(rows, v, linear, threshold, rays, majorant, multipliers)
        # A negative row that is active on the whole leaf counts in full.
        active = (X @ rays.T > 0).all(axis=1) & (v < 0)
        assert (multipliers[active] > 0).any()


def test_nothing_is_proved_below_the_maximum_by_a_last_digit():
    # Orthogonal rows, or rows of one sign on a line whose terms cancel: the square of the maximum
    # is a sum known in fractions.
    rng = np.random.default_rng(0)
    for trial in range(300):
        d = 1 + trial % 3
        if d == 1:
            X, v = rng.uniform(0.5, 2.0, (7, 1)), rng.standard_normal(7)
            v[0] -= (X[:, 0] @ v - 1e-3) / X[0, 0]
        else:
            X, v = np.diag(rng.uniform(0.5, 2.0, d)), rng.uniform(0.1, 3.0, d)
        pairs = [zip(v, column, strict=True) for column in X.T]
        square = sum(sum(Fraction(a) * Fraction(b) for a, b in pair) ** 2 for pair in pairs)
        threshold = np.sqrt(float(square))
        while Fraction(threshold) ** 2 >= square:
            threshold = np.nextafter(threshold, 0.0)
        counts, *_ = decide(X, v, np.zeros(d), threshold, nodes=10_000)
        assert counts[3] == 0
        # Nor is what holds by some last digits refuted.
        if d > 1:
            counts, *_ = decide(X, v, np.zeros(d), threshold * (1 + 3e-15), nodes=10_000)
            assert counts[::3] == (0, 0)
        # A little above it is proved: the margins are no larger than they must be.
        counts, *_ = decide(X, v, np.zeros(d), threshold * (1 + 1e-9))
        assert counts[::3] == (0, 1)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_where_no_row_bends_upwards_each_orthant_is_one_cone(d):
    shorter = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X, v, linear = rng.standard_normal((7, d)), -rng.random(7), 3.0 * rng.standard_normal(d)
        best = maximum(X, v, linear)
        if best > 1e-3:
            counts, *_ = decide(X, v, linear, best * (1.0 + 1e-12))
            assert (counts[0], counts[1], counts[3]) == (0, 2**d, 1)
            shorter += best < 0.9 * np.linalg.norm(linear)
    assert shorter > 5


@pytest.mark.parametrize("size", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_row_that_hardly_enters_an_orthant_counts_there(size, side):
    # Rows of negative weight hold the maximiser between the axis and the kink of the last row.
    X = np.array([[0.0, 1.0], [1.0, 0.5 * side * size], [-1.0, -0.5 * side * size], [1.0, 0.0]])
    X[3, 1] = side * size
    v, linear = np.array([1.0, -3.0, -3.0, 1.0]), np.zeros(2)
    best = maximum(X, v, linear)
    assert best == pytest.approx(1.0 + max(side, 0.0) * 0.5 * size, rel=1e-3 * size)
    assert decide(X, v, linear, best * (1.0 - 0.1 * size))[0][0] == 1
    assert decide(X, v, linear, best * (1.0 + 0.1 * size))[0][::3] == (0, 1)


def test_as_many_violations_as_are_asked_for():
    # Even: every maximum has its antipode.
    rng = np.random.default_rng(1)
    half = rng.standard_normal((5, 3))
    X, v, linear = np.vstack([half, -half]), np.tile(rng.standard_normal(5), 2), np.zeros(3)
    below = maximum(X, v, linear) * (1 - 1e-6)
    for most, expected in ((1, 1), (2, 2), (9, 2)):
        counts, directions, values, _ = decide(X, v, linear, below, found=most)
        assert counts[0] == expected
        for u, w in zip(directions[:expected], values, strict=False):
            assert value(X, v, linear, u) == pytest.approx(w, rel=1e-12)
            assert w > below
    assert directions[0] @ directions[1] < 0


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_a_covering_that_follows_another_decides_alike(d, seed):
    rng = np.random.default_rng([d, seed])
    n = 7 - d % 2
    X, v, zero = rng.standard_normal((n, d)), rng.standard_normal(n), np.zeros(d)
    if seed == 0:
        X, v = np.round(X), np.round(v)
    first = maximum(X, v, zero) * (1 + 1e-9) + 1e-9
    tree = np.full((10**5, 4), np.nan)
    counts, *_ = decide(X, v, zero, first, trees=(NOTHING, tree))
    assert counts[::3] == (0, 1)
    tree = tree[: counts[1]]
    again = np.full((10**5, 4), np.nan)
    # Where nothing has changed, all that was divided into more than two is divided again.
    same, *_ = decide(X, v, zero, first, trees=(tree, again))
    assert same == counts
    np.testing.assert_array_equal(again[: counts[1]], tree)
    for size in (1e-9, 1e-3, 0.1, 2.0):
        near = v + size * rng.standard_normal(n)
        best = maximum(X, near, zero)
        if best < 1e-6:
            continue
        above, below = best * (1 + 1e-9), best * (1 - 1e-7)
        fresh = np.full((10**5, 4), np.nan)
        counts, *_, leaves = decide(X, near, zero, above, keep=512, trees=(tree, fresh))
        assert counts[::3] == (0, 1)
        rows = rational_matrix(X)
        for leaf in zip(*(part[: counts[2]] for part in leaves), strict=True):
            assert _leaf_holds(rows, near, zero, above, *leaf)
        # The same one as if it had been found without the other.
        same, *_ = decide(X, near, zero, above, trees=(fresh[: counts[1]], again))
        assert same[::3] == (0, 1)
        counts, directions, values, _ = decide(X, near, zero, below, trees=(tree, again))
        assert counts[0] == 1
        assert values[0] == pytest.approx(value(X, near, zero, directions[0]), rel=1e-13)
        assert below < values[0] <= best * (1 + 1e-12)


def test_a_tree_has_a_row_for_every_node():
    rng = np.random.default_rng(1)
    X, v = rng.standard_normal((20, 3)), rng.standard_normal(20)
    norm = dual_norm(X, v)
    v, threshold = norm.sign * v, norm.value
    tree = np.full((10**4, 4), -7.0)
    counts, *_ = decide(X, v, np.zeros(3), threshold, trees=(NOTHING, tree))
    tree, rest = tree[: counts[1]], tree[counts[1] :]
    assert np.all(rest == -7.0)

    def end(k):
        """The row after the part of the tree that begins at a row."""
        return end(end(k + 1)) if tree[k, 0] >= 0 else k + 1

    k = 0
    for _ in range(8):  # orthants
        assert tree[k, 3] == end(k)
        k = end(k)
    assert k == len(tree)
    divided = tree[tree[:, 0] >= 0]
    assert len(divided) > 8
    assert np.all((divided[:, 2] > 0) & (divided[:, 2] < 1) & (divided[:, 0] != divided[:, 1]))
    # Without room for all, nothing is written beyond it.
    part = np.full((len(tree), 4), -7.0)
    cut, *_ = decide(X, v, np.zeros(3), threshold, trees=(NOTHING, part[:10]))
    assert cut == counts
    assert np.all(part[10:] == -7.0)


def test_followed_coverings_are_those_next_to_the_threshold():
    coverings = Coverings()
    assert coverings.nearest(1, 0.3).shape == (0, 4)
    for k in range(150):
        coverings.add(1, 1.0 + k, np.full((1, 4), k))
    assert len(coverings.kept[1]) == 100
    assert coverings.nearest(1, 101.4)[0, 0] == 100
    assert coverings.nearest(1, 0.0)[0, 0] == 50
    assert coverings.nearest(-1, 1.0).shape == (0, 4)


def test_a_search_follows_the_nearest_and_keeps_what_it_proved():
    rng = np.random.default_rng(0)
    X, v = rng.standard_normal((40, 3)), rng.standard_normal(40)
    reduction, coverings = reduce_rows(X), Coverings()
    largest = dual_norm(X, v)
    v, norm = largest.sign * v, largest.value
    for factor in (1.0, 1.0 + 1e-3):
        fresh = search_sphere(reduction, factor * v, 1, factor * norm, 4, 10**6)
        follows = search_sphere(reduction, factor * v, 1, factor * norm, 4, 10**6, coverings)
        assert fresh[1:] == (True, follows[2])  # the multiple has the same covering
        assert len(fresh[0]) == len(follows[0]) == 0
    assert sorted(coverings.kept[1]) == [norm, (1.0 + 1e-3) * norm]
    found, *_ = search_sphere(reduction, 1.01 * v, 1, norm, 4, 10**6, coverings)
    assert len(found) > 0
    assert len(coverings.kept[1]) == 2
