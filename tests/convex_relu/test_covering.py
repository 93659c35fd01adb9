"""The covering with cones against projections onto every cell, in each orthant, and next to the
last digit of the maximum."""

from fractions import Fraction
from itertools import product
from math import fsum

import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

from theorylab.convex_relu import dual_norm, enumerate_arrangements
from theorylab.convex_relu._cone_proof import _newton, _proves, _sweep, least_distance
from theorylab.convex_relu._constraint import _leaf_holds
from theorylab.convex_relu._covering import cover
from theorylab.convex_relu._covering_steps import (
    bound_along,
    divide,
    drop,
    edge,
    interpolate,
    keep,
    middle,
)
from theorylab.convex_relu._dual_norm import Coverings, search_sphere
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.numerics.balls import rational_matrix

EPS = np.finfo(float).eps
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
    assert np.linalg.norm(leaves[1][:tight], axis=1).min() >= (1.0 - 1.1e-6) * above
    # However few of them can be kept, they are counted.
    assert decide(X, v, linear, above, keep=1)[0] == counts
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


@pytest.mark.parametrize("width", [1.0, 0.3, 1e-3])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_the_least_distance_is_that_of_bounded_least_squares(d, width):
    compared = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 12))
        R = np.ones((d, d)) / np.sqrt(d) + width * rng.standard_normal((d, d))
        R /= np.linalg.norm(R, axis=1)[:, None]
        X, v, g = rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal(d)
        Z, q, start = X @ R.T, R.sum(axis=0) / np.linalg.norm(R.sum(axis=0)), rng.random(n)
        inverse = np.ascontiguousarray(np.linalg.inv(R))
        if (R @ q).min() <= 0.1 or np.abs(inverse).max() > 10.0 / width:
            continue
        down = v < 0.0
        convex = R @ g + v[~down] @ np.maximum(Z[~down], 0.0)
        # The multipliers of the rows, and of the dual cone unless the cone is narrow.
        wide = (R @ R.T).min() < 0.999
        A = np.column_stack([(v[:, None] * X)[down].T, *([inverse] if wide else [])])
        free = np.zeros(A.shape[1]), np.append(np.ones(down.sum()), np.full(d * wide, np.inf))
        w = inverse @ convex
        if A.shape[1]:
            w = w + A @ lsq_linear(A, -w, bounds=free, method="bvls", tol=1e-15, max_iter=500).x
        least = float(np.linalg.norm(w))
        if least < 1e-2 * np.linalg.norm(inverse @ convex):
            continue
        # Also where only a margin, wider than the room that is left, prevents the proof.
        for share, margin, expected in (
            (1.0 + 1e-8, 0.0, {1} if width == 1.0 else {0, 1}),
            (1.0 + 1e-4, 0.0, {1} if width == 1.0 else {0, 1}),
            (2.0, 0.0, {1}),
            (1.0 + 1e-3, 0.1, {0} if width == 1.0 else {0, 1}),
            (1.0 - 1e-8, 0.0, {0, 2}),
            (1.0 - 1e-4, 0.0, {2} if wide else {0, 2}),
            (0.3, 0.0, {2} if wide else {0, 2}),
        ):
            t, s = np.where(down, start, 0.0), np.zeros(d)
            first = inverse @ (convex + (v * t)[down] @ Z[down])
            cone = R, Z, g, q, margin * least, 0.0, np.empty(d), np.empty((d, d + 1))
            rows = X, v, np.arange(n), n, t, s, inverse, first, share * least
            assert least_distance(*rows, *cone, np.empty(n + d, int)) in expected
            if margin > 0.0 and width == 1.0:
                # The multipliers are the best ones all the same.
                end = inverse @ (convex + (v * t)[down] @ Z[down] + s)
                np.testing.assert_allclose(end, w, atol=1e-10 * least)
        compared += 1
    assert compared >= 15


@pytest.mark.parametrize("sweep", [_sweep, _sweep.meanwhile])
def test_what_rounding_left_nothing_of_moves_nothing(sweep):
    # A row and a generator without length, beside those that have one.
    X, v, inverse = np.array([[0.0, 0.0], [1.0, 0.0]]), -np.ones(2), np.array([[0.0, 0.0], [0, 1]])
    t, s, w, free = np.ones(2), np.zeros(2), np.array([3.0, -4.0]), np.empty(4, int)
    n_free, moved = sweep(X, v, np.arange(2), 2, t, s, inverse, w, True, free)
    assert (n_free, moved, free[0]) == (1, 4.0, -2)
    np.testing.assert_array_equal(s, [0.0, 4.0])
    np.testing.assert_array_equal(t, [0.0, 1.0])
    np.testing.assert_array_equal(w, [3.0, 0.0])


@pytest.mark.parametrize(
    ("X", "v"),
    [
        ([[1.0, 1e-14, 0.0], [2.0, 2.0, 1e-4], [1.0, -1.0, 1.0]], [1.0, 1.0, 2.0]),
        (
            [[1.0, 1e-12, 0.0], [-2e-4, 2.0, 0.0], [1.0, 0.0, 1.0], [-1.0, -2.0, 2.0]],
            [1.0, 2.0, 2.0, 2.0],
        ),
        (
            [[2.0, 1e-14, 0.0], [1e-7, 0.0, 2e-6], [2.0, -1.0, 2.0], [1.0, -2.0, 1.0]],
            [3.0, 3.0, 3.0, 1.0],
        ),
    ],
)
def test_kinks_that_divide_cones_into_flat_ones(X, v):
    # Cones between a kink and the axis beside it have rays that float64 tells from none.
    X, v = np.array(X), np.array(v)
    best = maximum(X, v, np.zeros(3))
    for threshold in (1.0, 2.0, 3.0, 4.0, best * (1.0 - 1e-6), best * (1.0 + 1e-6)):
        counts, directions, values, _ = decide(X, v, np.zeros(3), threshold, found=50)
        assert counts[3] == 1
        assert (counts[0] > 0) == (threshold < best)
        for u, found in zip(directions[: counts[0]], values, strict=False):
            assert found > threshold
            assert value(X, v, np.zeros(3), u) == pytest.approx(found, rel=1e-12)


def test_a_concave_function_is_bounded_by_its_gradient_in_the_flattest_cone():
    # Values at rays that float64 hardly tells apart leave few digits of it.
    X = [
        [-1.6679980508952450, 2.5061311218551570e-11, 0.37693935005105544, 1.2191860775076924],
        [
            -1.4413668857445376,
            1.2264798600438488e-03,
            -0.50347487164653704,
            -3.8345981836832815e-16,
        ],
        [1.0298522036726923, 1.0807723658270455e-07, -1.1670347197676847e-11, 0.52438445820213264],
        [-1.8431268914153860, 8.2788229168329730e-02, -1.0908013490548150, -0.11059223136187449],
        [4.0556612139608204e-07, -0.68061159545527106, 0.39816550234288489, 5.3130206259906554e-02],
        [0.73312682323707323, -0.45180179328624809, 2.1110348916425279e-12, 0.58694290100492164],
    ]
    v = [0.4246710451833869, -1.332278474634119, -0.01707612133066221, 2.3522437799085494]
    X, v = np.array(X), np.array([*v, -0.10707461137372631, 0.7624519290173155])
    best = maximum(X, v, np.zeros(4))
    for share in (1.0 + 1e-7, 1.0 + 1e-6):
        counts, *_ = decide(X, v, np.zeros(4), share * best, nodes=1000)
        assert counts[::3] == (0, 1)


@pytest.mark.parametrize("steps", [_newton, _newton.meanwhile])
@pytest.mark.parametrize("n_free", [1, 3, 8, 20])
def test_newton_steps_end_where_free_coordinates_cannot_shorten(steps, n_free):
    shortened = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        X, v, inverse = rng.standard_normal((25, 3)), -rng.random(25), rng.standard_normal((3, 3))
        index, t, s, start = rng.permutation(25), rng.random(20), rng.random(3), rng.normal(size=3)
        # Coordinates as they are numbered: -1 - k is the k-th of the dual cone.
        columns = np.vstack([inverse.T[::-1], v[index[:20], None] * X[index[:20]]])
        high = np.append(np.full(3, np.inf), np.ones(20))
        places = rng.choice(23, n_free, replace=False)
        before, w = np.append(s[::-1], t), start.copy()
        steps(X, v, index, t, s, inverse, w, places - 3, n_free)
        after = np.append(s[::-1], t)
        np.testing.assert_allclose(w, start + (after - before) @ columns, atol=1e-9)
        np.testing.assert_array_equal(np.delete(after, places), np.delete(before, places))
        assert np.all((after >= 0.0) & (after <= high))
        assert w @ w <= start @ start
        inside = places[(after[places] > 0.0) & (after[places] < high[places])]
        np.testing.assert_allclose(columns[inside] @ w, 0.0, atol=1e-9)
        shortened += w @ w < 0.9 * start @ start
    assert shortened >= 15


def cone_of(rng, d, width, n=9):
    """Rays, rows in part zero, weights, and the rows at the rays."""
    R = np.ones((d, d)) / np.sqrt(d) + width * rng.standard_normal((d, d))
    R /= np.linalg.norm(R, axis=1)[:, None]
    X, v = rng.standard_normal((n, d)), rng.standard_normal(n)
    X[: n // 2] -= np.outer(X[: n // 2] @ R[0], R[0])
    return R, X, v, X @ R.T


@pytest.mark.parametrize("width", [1.0, 0.1])
@pytest.mark.parametrize("d", [1, 2, 4])
def test_a_cone_is_evaluated_at_its_centre_and_bounded_along_it(d, width):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        R, X, v, Z = cone_of(rng, d, width)
        n, g, q, c, t = len(v), rng.standard_normal(d), np.empty(d), np.empty(d), np.empty(len(v))
        centre, n_positive = interpolate(v, R, g, Z, np.arange(n), n, q, c, t)
        np.testing.assert_allclose(q, R.sum(axis=0) / np.linalg.norm(R.sum(axis=0)), rtol=1e-14)
        assert centre == pytest.approx(value(X, v, g, q), abs=1e-12)
        assert n_positive == np.count_nonzero(v > 0.0)
        down = v < 0.0
        np.testing.assert_array_equal(t[down], (X @ q > 0.0)[down])
        expected = R @ g + v[~down] @ np.maximum(Z[~down], 0.0) + (v * t)[down] @ Z[down]
        np.testing.assert_allclose(c, expected, atol=1e-12)
        # The linear function through the values at the rays.
        size = np.abs(np.linalg.inv(R)).max()
        assert middle(R, c) == pytest.approx(np.linalg.solve(R, c) @ q, abs=1e-13 * size)
        if (R @ q).min() > 0.2:
            bound = bound_along(R, q, c, 0.3, 0.01)
            room = bound * (R @ q - 0.01) - c - 0.3
            assert np.abs(room).min() <= 1e-12
            assert room.min() >= -1e-12


@pytest.mark.parametrize("width", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize("d", [1, 2, 4])
def test_rows_that_leave_the_list_are_linear_on_the_cone(d, width):
    left = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        R, X, v, Z = cone_of(rng, d, width)
        n, linear = len(v), rng.standard_normal(d)
        norms, g, mask = np.linalg.norm(X, axis=1), linear.copy(), np.zeros(n, dtype=np.int8)
        index, kept = np.arange(n), Z.copy()
        m = drop(X, v, norms, g, index, kept, n, mask)
        rows = index[:m]
        np.testing.assert_array_equal(kept[:m], Z[rows])
        low, high = Z.min(axis=1), Z.max(axis=1)
        # Rows with negative weight stay where their kink is no further than the cone is wide.
        near = np.where(v > 0.0, 4.0 * EPS * norms, low - high)
        up = low >= -near
        np.testing.assert_array_equal(rows, np.flatnonzero(~up & (high > near)))
        np.testing.assert_array_equal(mask, up)
        for share in rng.random((20, d)):
            u = share @ R
            held = value(X[rows], v[rows], g, u)
            assert held == pytest.approx(value(X, v, linear, u), abs=1e-12)
        left += n - m
    assert left > 20


@pytest.mark.parametrize("width", [1.0, 0.02])
@pytest.mark.parametrize("d", [2, 3, 5])
def test_an_edge_is_split_at_the_widest_kink_or_where_chords_are_highest(d, width):
    kinds = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        R, X, v, Z = cone_of(rng, d, width)
        if seed % 3 == 0:
            v[1:] = -np.abs(v[1:])
        if seed % 10 == 9:
            v = -np.abs(v)
        n, norms = len(v), np.linalg.norm(X, axis=1)
        few, angles = np.count_nonzero(v > 0.0), R @ R.T
        first, second, weight = edge(v, norms, R, Z, np.arange(n), n, few)
        assert first != second
        gaps = v * (np.maximum(Z, 0.0).sum(axis=1) - np.maximum(Z.sum(axis=1), 0.0))
        widest = int(np.argmax(np.where(v > 0.0, gaps, 0.0)))
        wanted = 0 < few <= 2 or d == 2 or angles.min() > 0.98
        # A kink through a ray is no place to split.
        small = 4.0 * EPS * norms[widest]
        pairs = [(a, b) for a in range(d) for b in range(d) if a != b]
        ends = [(a, b) for a, b in pairs if Z[widest, a] > small and Z[widest, b] < -small]
        kink = wanted and gaps[widest] * (v[widest] > 0.0) > 0.0 and len(ends) > 0
        if kink:
            kinds.add("kink")
            assert (first, second) in ends
            at = weight * Z[widest, first] + (1.0 - weight) * Z[widest, second]
            assert abs(at) <= 1e-15 * norms[widest]
            assert angles[first, second] == pytest.approx(min(angles[e] for e in ends), rel=1e-14)
            continue
        # The chord of a convex row is highest above it at its kink: its height there, by the kink.
        heights, places = {}, {}
        for a, b in pairs:
            crossing = (v > 0.0) & (Z[:, a] * Z[:, b] < 0.0)
            at = Z[crossing, b] / (Z[crossing, b] - Z[crossing, a])
            chord = at * np.maximum(Z[crossing, a], 0.0) + (1 - at) * np.maximum(Z[crossing, b], 0)
            heights[a, b] = float(v[crossing] @ chord)
            places[a, b] = float((v[crossing] * chord) @ at) / (heights[a, b] or 1.0)
        highest = max(heights.values())
        assert heights[first, second] == pytest.approx(highest, rel=1e-13)
        if highest > 0.0:
            kinds.add("chord")
            assert weight == pytest.approx(np.clip(places[first, second], 0.2, 0.8), rel=1e-13)
        else:
            kinds.add("longest")
            assert weight == 0.5
            assert angles[first, second] == pytest.approx(min(angles[e] for e in pairs), rel=1e-14)
    assert kinds >= {"kink", "longest"}
    assert "chord" in kinds or d == 2 or width < 1.0


def test_the_longest_edge_of_a_tiny_cone_is_split():
    # Inner products of rays as close as these are one.
    corner = np.array([0.6, 0.0, 0.8])
    R = corner + 1e-10 * np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, -5.0, 0.0]])
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        Z, v = R[order] @ np.eye(3), -np.ones(3)
        first, second, weight = edge(v, np.ones(3), R[order], Z.T.copy(), np.arange(3), 3, 0)
        assert {order[first], order[second]} == {1, 2}
        assert weight == 0.5


@pytest.mark.parametrize("exponent", [-535, -520, 500])
def test_multiples_have_the_same_covering_though_their_squares_leave_float64(exponent):
    # Powers of two round nothing, and weights that shrink as the rows grow leave h as it is.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        d = 3 + seed % 3
        X, v = rng.standard_normal((8, d)), rng.standard_normal(8)
        norm = dual_norm(X, v)
        v, factor, trees = norm.sign * v, 2.0**exponent, []
        for rows, weights in ((X, v), (factor * X, v / factor)):
            trees.append(np.full((10**4, 4), -1.0))
            counts, *_ = decide(rows, weights, np.zeros(d), norm.value, trees=(NOTHING, trees[-1]))
            assert counts[::3] == (0, 1)
        np.testing.assert_array_equal(trees[1], trees[0])


@pytest.mark.parametrize("exponent", [-530, -538, -545, -1000])
def test_rows_whose_lengths_underflow_have_a_bound_that_holds(exponent):
    rng, factor = np.random.default_rng(0), 2.0**exponent
    X, v = rng.standard_normal((8, 2)), rng.standard_normal(8)
    norm, tiny = dual_norm(X, v), dual_norm(factor * X, v / factor)
    assert tiny.value >= norm.attained
    assert tiny.exact == (tiny.attained >= norm.attained * (1.0 - 1e-9) and exponent > -535)


@pytest.mark.parametrize(("n", "d"), [(100, 3), (20, 4)])
def test_where_h_passes_the_threshold_cones_end(n, d):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X, v = rng.standard_normal((n, d)), rng.standard_normal(n)
        norm = dual_norm(X, v)
        v *= norm.sign
        for share in (0.5, 0.8):
            threshold = share * norm.attained
            counts, directions, values, _ = decide(X, v, np.zeros(d), threshold, found=10**4)
            assert counts[0] > 0
            assert counts[3] == 1
            for u, found in zip(directions[: counts[0]], values, strict=False):
                assert found > threshold
                assert np.linalg.norm(u) == pytest.approx(1.0, rel=1e-14)
                assert found == pytest.approx(value(X, v, np.zeros(d), u), rel=1e-12)


def test_a_proof_is_kept_with_slopes_where_rows_have_them():
    v, t, index = np.array([-1.0, 2.0, -3.0, 1.0]), np.array([0.25, 0.5, 0.75]), np.array([2, 1, 3])
    rays, weights, multipliers = np.empty((2, 2)), np.empty(2), np.empty(4)
    w, R, mask = np.array([3.0, 4.0]), np.array([[1.0, 0.0], [0.6, 0.8]]), np.ones(4, np.int8)
    keep(v, index, 2, t, w, R, mask, rays, weights, multipliers)
    np.testing.assert_array_equal(rays, R)
    np.testing.assert_array_equal(weights, w)
    # The first and the last row have left the list, as active ones; the second is convex.
    np.testing.assert_array_equal(multipliers, [1.0, -1.0, 0.25, 1.0])


def test_a_cone_is_divided_into_two_whose_new_ray_adds_its_rounding():
    rng = np.random.default_rng(3)
    d, n, m, first, second, weight = 3, 9, 4, 2, 0, 0.3
    R, X, _, Z = cone_of(rng, d, 1.0, n)
    rays, inverses, errors = np.zeros((4, d, d)), np.zeros((4, d, d)), np.zeros((4, d))
    rows, z = np.zeros((4, n), int), np.zeros((4, n, d))
    rows[1, :m] = rng.permutation(n)[:m]
    rays[1], errors[1], z[1, :m] = R, [1e-3, 2e-3, 4e-3], Z[rows[1, :m]]
    inverses[1] = np.linalg.inv(R)
    divide(X, 1, first, second, weight, m, rays, inverses, errors, rows, z, np.empty(d))
    new = weight * R[first] + (1.0 - weight) * R[second]
    length = np.linalg.norm(new)
    for level, gone in ((1, second), (2, first)):
        expected = R.copy()
        expected[gone] = new / length
        np.testing.assert_allclose(rays[level], expected, rtol=1e-14)
        np.testing.assert_allclose(z[level, :m], X[rows[1, :m]] @ expected.T, atol=1e-14)
        np.testing.assert_array_equal(rows[level, :m], rows[1, :m])
        far = np.array([1e-3, 2e-3, 4e-3])
        far[gone] = (weight * 4e-3 + (1.0 - weight) * 1e-3) / length + 8 * d * EPS
        np.testing.assert_allclose(errors[level], far, rtol=1e-14)


@pytest.mark.parametrize("divided", [divide, divide.meanwhile])
@pytest.mark.parametrize("d", [2, 3, 5])
def test_the_inverse_of_the_rays_follows_a_chain_of_divisions(d, divided):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        depth = 30
        rays, inverses, errors = (np.zeros((depth + 2, *shape)) for shape in ((d, d), (d, d), (d,)))
        rays[0] = inverses[0] = np.diag(rng.choice([-1.0, 1.0], d))
        X, rows, z = np.ones((1, d)), np.zeros((depth + 2, 1), int), np.zeros((depth + 2, 1, d))
        level = 0
        for step in range(depth):
            first, second = (int(k) for k in rng.permutation(d)[:2])
            weight = [0.5, 1e-3, 1.0 - 1e-3, rng.random()][step % 4]
            # Either part is divided next.
            divided(
                X, level, first, second, weight, 1, rays, inverses, errors, rows, z, np.empty(d)
            )
            for part in (level, level + 1):
                size = np.abs(inverses[part]).max()
                np.testing.assert_allclose(
                    rays[part] @ inverses[part], np.eye(d), atol=1e-13 * size
                )
            level += int(rng.integers(2))


@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_what_is_longer_than_the_threshold_by_a_last_digit_proves_nothing(d):
    rng = np.random.default_rng(d)
    R, q = np.eye(d), np.full(d, d**-0.5)
    for _ in range(300):
        w = rng.uniform(0.1, 1.0, d)
        square = sum(Fraction(a) ** 2 for a in w)
        short = np.sqrt(float(square))
        while Fraction(short) ** 2 >= square:
            short = np.nextafter(short, 0.0)
        for threshold, proved in ((short, False), (short * (1.0 + (3 * d + 10) * EPS), True)):
            rows = np.zeros(0), np.zeros(0, int), 0, np.zeros(0)
            # Nothing is asked of w but its length.
            cone = R, np.zeros((0, d)), -np.ones(d), q, 0.0, 0.0, np.empty(d)
            assert _proves(*rows, w.copy(), threshold, *cone) == proved
    # Nor does what its centre cannot lift: a ray on the other side.
    cone = -R, np.zeros((0, d)), -np.ones(d), q, 0.0, 0.0, np.empty(d)
    assert not _proves(*rows, np.zeros(d), 1e9, *cone)


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
        # Rows with positive weight have no slope, or are active everywhere, or nowhere.
        assert np.isin(multipliers[v > 0], [-1.0, 0.0, 1.0]).all()
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
        # The only ray of a line cannot be split.
        assert d > 1 or counts[1] <= 2
        # Nor is what holds by some last digits refuted.
        if d > 1:
            counts, *_ = decide(X, v, np.zeros(d), threshold * (1 + 3e-15), nodes=10_000)
            assert counts[::3] == (0, 0)
        # A little above it is proved: the margins are no larger than they must be.
        counts, *_ = decide(X, v, np.zeros(d), threshold * (1 + 1e-9))
        assert counts[::3] == (0, 1)


@pytest.mark.parametrize("rise", [1.0, -1.0])
def test_nothing_is_proved_that_the_rounding_of_long_sums_hides(rise):
    # Sums that rise far before they fall, on a line: their exact value is above the threshold.
    rng, hidden = np.random.default_rng(0), 0
    for _ in range(20):
        v = rise * np.sort(rng.uniform(-1.0, 1.0, 30_000))
        v[0] += 1e-3 - fsum(v)
        largest = fsum(v)
        threshold = np.nextafter(largest, 0.0)
        hidden += np.cumsum(v)[-1] < threshold - 8.0 * EPS * np.abs(v).sum()
        counts, *_ = decide(np.ones((len(v), 1)), v, np.zeros(1), threshold)
        assert counts[3] == 0
        slack = 4.0 * len(v) * EPS * np.abs(v).sum()
        assert decide(np.ones((len(v), 1)), v, np.zeros(1), largest + slack)[0][3] == 1
    assert hidden > 0


@pytest.mark.parametrize("kind", ["equal", "diagonal", "general", "cancelling"])
def test_the_least_threshold_that_is_proved_holds_in_fractions(kind):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        d = 2 + seed % 3
        X, v, linear = rng.standard_normal((5, d)), rng.standard_normal(5), np.zeros(d)
        if kind in ("equal", "diagonal"):
            X, v = np.eye(d), np.full(d, rng.uniform(0.5, 1.0))
            v *= rng.uniform(0.5, 2.0, d) if kind == "diagonal" else 1.0
        elif kind == "cancelling":
            v, linear = -np.abs(v), rng.uniform(1.0, 1.1) * (np.abs(v) @ X)
        best = maximum(X, v, linear)
        if best < 1e-3:
            continue
        low, high = best * (1.0 - 1e-8), best * (1.0 + 1e-8)
        while low < (middle := 0.5 * (low + high)) < high:
            proved = decide(X, v, linear, middle, nodes=2000)[0][3]
            low, high = (low, middle) if proved else (middle, high)
        counts, *_, leaves = decide(X, v, linear, high, keep=512)
        rows = rational_matrix(X)
        for leaf in zip(*(part[: counts[2]] for part in leaves), strict=True):
            assert _leaf_holds(rows, v, linear, high, *leaf)


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


@pytest.mark.parametrize("kind", ["general", "integers", "scales"])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_one_cone_is_decided_up_to_the_margins_of_rounding(d, kind):
    # Without positive rows the maximum over an orthant is a least distance with bounds.
    decided = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 30))
        X, v, linear = rng.standard_normal((n, d)), -rng.random(n), 3.0 * rng.standard_normal(d)
        if kind == "integers":
            X, v = rng.integers(-2, 3, (n, d)) * 1.0, rng.integers(-2, 1, n) * 1.0
            linear = np.round(2.0 * linear)
        elif kind == "scales":
            X *= 10.0 ** rng.uniform(-6.0, 0.0, (n, 1))
        free = np.zeros(n + d), np.append(np.ones(n), np.full(d, np.inf))
        best = 0.0
        for side in product((1.0, -1.0), repeat=d):
            A = np.column_stack([(v[:, None] * X).T, np.diag(side)])
            t = lsq_linear(A, -linear, bounds=free, method="bvls", tol=1e-15, max_iter=500).x
            best = max(best, float(np.linalg.norm(A @ t + linear)))
        size = np.linalg.norm(linear) + np.abs(v) @ np.linalg.norm(X, axis=1)
        above = best * (1.0 + 1e-12) + 4.0 * (n + 8 * d + 16) * EPS * size
        if above < best * (1.0 + 1e-6):
            assert decide(X, v, linear, above)[0] == (0, 2**d, 0, 1)
            decided += 1
    assert decided >= 5


def test_cones_are_split_as_often_as_it_takes():
    rng = np.random.default_rng(1)
    X, v, linear = rng.standard_normal((9, 4)), rng.standard_normal(9), np.zeros(4)
    best = maximum(X, v, linear)
    assert decide(X, v, linear, best * (1.0 + 1e-9), nodes=5000)[0][::3] == (0, 1)


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


def assert_divided_alike(before, after, d):
    """What both trees divide they divide in the same place."""
    roots = 0, 0
    for _ in range(2**d):
        nodes = [roots]
        while nodes:
            a, b = nodes.pop()
            if before[a, 0] >= 0 and after[b, 0] >= 0:
                np.testing.assert_array_equal(after[b, :3], before[a, :3])
                nodes += [(a + 1, b + 1), (int(before[a + 1, 3]), int(after[b + 1, 3]))]
        roots = int(before[roots[0], 3]), int(after[roots[1], 3])


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
        assert_divided_alike(tree, fresh, d)
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
    # The room is used again.
    coverings.room[:] = 3.0
    coverings.add(-1, 1.0, coverings.room[:2])
    coverings.room[:] = 4.0
    np.testing.assert_array_equal(coverings.nearest(-1, 1.0), np.full((2, 4), 3.0))


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
    # Nor is a tree kept that is not whole: it was stopped, or there was no room for it.
    fresh = search_sphere(reduction, v, 1, 1.1 * norm, 4, 10**6)[2]
    coverings = Coverings()
    coverings.room[:] = np.nan
    assert not search_sphere(reduction, v, 1, 1.1 * norm, 4, fresh - 1, coverings)[1]
    coverings.room = coverings.room[: fresh - 1]
    assert search_sphere(reduction, v, 1, 1.1 * norm, 4, 10**6, coverings)[1]
    assert not coverings.kept[1]
    coverings.room = np.empty((fresh, 4))
    assert search_sphere(reduction, v, 1, 1.1 * norm, 4, fresh, coverings)[1]
    assert len(coverings.nearest(1, norm)) == fresh


def test_a_tree_that_leads_astray_is_left():
    rng = np.random.default_rng(5)
    X, v = rng.standard_normal((9, 3)), rng.standard_normal(9)
    reduction, norm = reduce_rows(X), dual_norm(X, v)
    threshold = norm.attained * (1.0 + 1e-9)
    # A row that leads back to itself: what is left of a cone is divided on one edge for ever.
    tree = np.array([[0.0, 1.0, 0.5, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    v = norm.sign * v
    lost, *_ = decide(X, v, np.zeros(3), threshold, nodes=10**5, trees=(tree, NOTHING))
    assert lost == (0, 10**5 + 1, 0, 0)
    fresh, *_ = decide(X, v, np.zeros(3), threshold)
    coverings = Coverings()
    coverings.add(1, threshold, tree)
    found, ended, nodes = search_sphere(reduction, v, 1, threshold, 8, 10**6, coverings)
    assert len(found) == 0
    assert ended
    # It is followed for 1000 nodes, 20 for each of its own, and one that says that they are over.
    assert nodes == 1041 + fresh[1]
    assert len(coverings.nearest(1, threshold)) == fresh[1]
    # What it took is no longer there.
    for budget in (500, nodes - 1, 1041 + fresh[1] // 2):
        coverings = Coverings()
        coverings.add(1, threshold, tree)
        _, ended, spent = search_sphere(reduction, v, 1, threshold, 8, budget, coverings)
        assert not ended
        assert spent <= budget + 1


def test_where_cones_are_too_thin_branches_decide():
    X, v = np.array([[1.0, 1e-6], [1.0, -1e-6]]), np.array([1.0, 1e-5 - 1.0])
    # The maximum is where both rows are active.
    threshold = np.hypot(1e-5, 2e-6 - 1e-11) * (1.0 + 1e-9)
    counts, *_ = decide(X, v, np.zeros(2), threshold)
    assert counts[::3] == (0, 0)
    found, ended, nodes = search_sphere(reduce_rows(X), v, 1, threshold, 4, 10**4)
    assert len(found) == 0
    assert ended
    assert nodes > counts[1]
