"""Enumeration of activation patterns against linear programs, counts, and invariances."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog

from theorylab.convex_relu import (
    cell_probabilities,
    cover_count,
    enumerate_arrangements,
    sample_arrangements,
    sampled_set_law,
)
from theorylab.convex_relu._generic_cells import _lowest
from theorylab.convex_relu.arrangements import _distinct_lines, _independent_columns


def as_set(patterns):
    return {p.tobytes() for p in np.asarray(patterns, dtype=bool)}


def by_linear_programs(X):
    """All patterns of non-empty open cells: one feasibility problem per sign vector."""
    n, d = X.shape
    zero = ~X.any(axis=1)
    found = set()
    for signs in product((True, False), repeat=int((~zero).sum())):
        pattern = np.ones(n, dtype=bool)
        pattern[~zero] = signs
        rows = np.where(pattern, 1.0, -1.0)[~zero, None] * X[~zero]
        result = linprog(
            np.zeros(d), A_ub=-rows, b_ub=-np.ones(len(rows)), bounds=(None, None), method="highs"
        )
        if result.status == 0:
            found.add(pattern.tobytes())
    return found


def degenerate(rng):
    """Small integer data with zero, repeated, proportional and opposite rows, dependent columns or
    fewer rows than columns."""
    n, d = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    X = rng.integers(-2, 3, size=(n, d)).astype(float)
    if n > 2:
        X[-1] = rng.choice([-1.0, 2.0, 0.0]) * X[0]
    if d > 2 and rng.random() < 0.4:
        X[:, -1] = X[:, 0] - X[:, 1]
    return X


@pytest.mark.parametrize("seed", range(12))
def test_degenerate_data_against_linear_programs(seed):
    X = degenerate(np.random.default_rng(seed))
    patterns = enumerate_arrangements(X)
    assert patterns.dtype == bool
    assert as_set(patterns) == by_linear_programs(X)
    assert len(as_set(patterns)) == len(patterns)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12, 150))
def test_degenerate_data_against_linear_programs_long(seed):
    test_degenerate_data_against_linear_programs(seed)


@pytest.mark.parametrize(
    ("n", "d"), [(1, 1), (7, 1), (9, 2), (11, 3), (9, 4), (8, 5), (3, 6), (40, 3), (14, 6)]
)
def test_general_position(n, d):
    rng = np.random.default_rng(n + 100 * d)
    X = rng.standard_normal((n, d))
    patterns = enumerate_arrangements(X)
    assert patterns.shape == (2 if d == 1 else cover_count(n, min(n, d)), n)
    assert len(as_set(patterns)) == len(patterns)
    # Closed under the antipode, and every pattern met by chance is there.
    assert as_set(~patterns) == as_set(patterns)
    assert as_set(rng.standard_normal((3000, d)) @ X.T >= 0) <= as_set(patterns)
    if n <= 8:
        assert as_set(patterns) == by_linear_programs(X)


def test_last_bit_decides():
    plane = np.array(
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]]
    )
    nearly = plane.copy()
    nearly[2, 2] = 2.0**-80
    # Four concurrent lines and a transversal; lifting one row makes a triangle too thin for any
    # floating-point test.
    assert len(enumerate_arrangements(plane)) == 16
    assert len(enumerate_arrangements(nearly)) == 20
    proportional = np.array([[0.1, 0.3], [0.3, 0.9], [1.0, -1.0]])
    # As doubles 0.1 * 0.9 differs from 0.3 * 0.3, so the first two rows are different lines.
    assert len(enumerate_arrangements(proportional)) == 6
    proportional[1] = 2.0 * proportional[0]
    assert len(enumerate_arrangements(proportional)) == 4


@pytest.mark.parametrize("d", [2, 3, 4])
def test_invariances(d):
    rng = np.random.default_rng(d)
    X = rng.integers(-3, 4, size=(8, d)).astype(float)
    X = X[X.any(axis=1)]
    patterns = enumerate_arrangements(X)
    for power in (5, 600):
        scaled = np.exp2(rng.integers(-power, power + 1, size=len(X)))[:, None] * X
        assert as_set(enumerate_arrangements(scaled)) == as_set(patterns)
    # Other units of rows of which several are one line.
    lines = np.vstack([X, -2.0 * X])
    scaled = np.exp2(rng.integers(-600, 601, size=len(lines)))[:, None] * lines
    assert as_set(enumerate_arrangements(scaled)) == as_set(enumerate_arrangements(lines))
    order = rng.permutation(len(X))
    assert as_set(enumerate_arrangements(X[order])) == as_set(
        np.ascontiguousarray(patterns[:, order])
    )
    shear = np.eye(d) + np.triu(rng.integers(-2, 3, size=(d, d)), 1)
    assert as_set(enumerate_arrangements(X @ shear)) == as_set(patterns)
    flipped = X * np.where(np.arange(len(X)) == 0, -1.0, 1.0)[:, None]
    expected = patterns ^ (np.arange(len(X)) == 0)
    assert as_set(enumerate_arrangements(flipped)) == as_set(expected)
    repeated = np.vstack([X, X[:1], -X[:1], np.zeros((1, d))])
    expected = np.column_stack(
        [patterns, patterns[:, 0], ~patterns[:, 0], np.ones(len(patterns), dtype=bool)]
    )
    assert as_set(enumerate_arrangements(repeated)) == as_set(expected)


def test_zero_data_has_one_pattern():
    assert np.array_equal(enumerate_arrangements(np.zeros((3, 2))), np.ones((1, 3), dtype=bool))


def test_dependent_columns_are_left_out_exactly():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        rank = 1 + seed % 3
        left, right = rng.integers(-3, 4, (8, rank)), rng.integers(-3, 4, (rank, rank + 1))
        X = (left @ right).astype(float)
        X = X[X.any(axis=1)]
        if len(X) == 0:
            continue
        columns = _independent_columns(X)
        assert len(columns) == np.linalg.matrix_rank(X)
        assert np.linalg.matrix_rank(X[:, columns]) == len(columns)


def test_vertices_near_another_row_are_left_to_exact_arithmetic():
    def lowest(rows):
        system, lift = np.zeros((3, 4)), np.zeros(3)
        return _lowest(rows, np.array([0, 1]), 2, system, lift, 1e-10), lift

    rows = np.random.default_rng(0).standard_normal((3, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    determinant, lift = lowest(rows)
    assert determinant == pytest.approx(np.linalg.det(rows[:, :3].T), rel=1e-12)
    np.testing.assert_allclose(rows[:, :3].T @ lift, [0.0, 0.0, 1.0], atol=1e-14)
    # Two rows and eta are dependent: which side eta increases to on that edge is uncertain.
    for k in range(3):
        dependent = rows.copy()
        others = [a for a in range(3) if a != k]
        dependent[others[0], :2] = 2.0 * dependent[others[1], :2]
        assert abs(np.linalg.det(dependent[:, :3])) > 1e-3
        assert lowest(dependent)[0] == 0.0


def test_too_many_patterns_are_refused():
    with pytest.raises(ValueError, match="X: expected data whose patterns fit into memory"):
        enumerate_arrangements(np.random.default_rng(0).standard_normal((300, 12)))


def test_the_limit_counts_the_entries_of_all_patterns(monkeypatch):
    X = np.random.default_rng(0).standard_normal((6, 2))
    monkeypatch.setattr("theorylab.convex_relu.arrangements._MAX_ENTRIES", 12 * 6)
    assert enumerate_arrangements(X).shape == (12, 6)
    monkeypatch.setattr("theorylab.convex_relu.arrangements._MAX_ENTRIES", 12 * 6 - 1)
    with pytest.raises(ValueError, match="got up to 12 patterns"):
        enumerate_arrangements(X)


def test_samples():
    X = np.random.default_rng(0).standard_normal((20, 3))
    patterns = sample_arrangements(X, 400, rng=np.random.default_rng(1))
    assert as_set(patterns) <= as_set(enumerate_arrangements(X))
    assert len(as_set(patterns)) == len(patterns) <= 400
    # The first draws of a longer sample are the shorter sample.
    longer = sample_arrangements(X, 800, rng=np.random.default_rng(1))
    assert np.array_equal(longer[: len(patterns)], patterns)
    # A zero row is active everywhere, as in the enumeration.
    X[4] = 0.0
    assert sample_arrangements(X, 50, rng=np.random.default_rng(1))[:, 4].all()


def test_samples_reach_every_cell_of_positive_angle():
    X = np.random.default_rng(3).standard_normal((5, 2))
    assert as_set(sample_arrangements(X, 20000, rng=np.random.default_rng(0))) == as_set(
        enumerate_arrangements(X)
    )


@pytest.mark.parametrize("sector", [2 * np.pi, 1.3])
def test_cell_probabilities_are_what_a_fine_grid_of_directions_says(sector):
    angles = (np.arange(20_000) + 0.5) * sector / 20_000
    U = np.column_stack([np.cos(angles), np.sin(angles)])
    for X in (
        np.random.default_rng(0).normal(size=(5, 2)),
        np.array([[1.0, 0.3], [-2.0, -0.6], [0.0, 0.0], [0.2, 1.0], [0.0, -3.0], [0.5, 0.15]]),
    ):
        patterns, found = cell_probabilities(X, sector=sector)
        assert as_set(patterns) == as_set(enumerate_arrangements(X))
        seen = U @ X.T >= 0
        shares = [(seen == p).all(axis=1).mean() for p in patterns]
        np.testing.assert_allclose(found, shares, atol=2e-4)
        assert found.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("base", [0.0, 1.0])
@pytest.mark.parametrize("width", [1e-5, -1e-5])
def test_a_narrow_cell_is_not_lost(base, width):
    # The rows are orthogonal to the directions at two angles, for one base on either side of zero.
    angles = np.array([base + width, base])
    X = np.column_stack([-np.sin(angles), np.cos(angles)])
    patterns, found = cell_probabilities(X)
    assert as_set(patterns) == as_set(enumerate_arrangements(X))
    assert sorted(found)[:2] == pytest.approx([1e-5 / (2 * np.pi)] * 2, rel=1e-6)
    # Rows that are one line up to rounding have no cell between them.
    again = np.column_stack([-np.sin(angles[1:]), np.cos(angles[1:])]) * np.array([[1.0], [0.3]])
    patterns, found = cell_probabilities(again)
    assert found.tolist() == pytest.approx([0.5, 0.5], rel=1e-12)
    either_side = [[1e-10 * width, 1.0], [-1e-10 * width, 1.0]]
    assert cell_probabilities(either_side)[1].tolist() == pytest.approx([0.5, 0.5])


def test_data_of_zeros_have_one_cell():
    patterns, found = cell_probabilities(np.zeros((3, 2)))
    assert patterns.tolist() == [[True] * 3]
    assert found.tolist() == [1.0]


@pytest.mark.parametrize("row", [[1.0, 3.0, 7.0], [0.0, 3.0, 7.0]])
def test_exact_multiples_of_a_row_are_one_line(row):
    multiples = np.array([k * s for k in range(1, 40) for s in (1.0, -1.0)])
    X = np.vstack([np.outer(multiples, row), [[1.0, 0.0, 0.0]]])
    lines, index, sign = _distinct_lines(X)
    assert lines == [0, len(X) - 1]
    assert index.tolist() == [0] * len(multiples) + [1]
    assert sign.tolist() == [*np.sign(multiples), 1]


def test_columns_are_independent_to_the_last_digit():
    rows = np.random.default_rng(0).integers(-9, 10, (8, 3)).astype(float)
    for scale in (1.0, 1.0 / 3.0):
        first = scale * rows[:, 0]
        dependent = np.column_stack([first, rows[:, 1], 2.0 * first, rows[:, 2]])
        assert len(_independent_columns(dependent)) == 3
        dependent[0, 2] = np.nextafter(dependent[0, 2], np.inf)
        assert len(_independent_columns(dependent)) == 4


def test_law_of_the_sampled_set_is_that_of_all_sequences():
    q = np.array([0.5, 0.2, 0.3])
    for n in (1, 2, 4):
        expected = np.zeros(8)
        for draws in product(range(3), repeat=n):
            expected[sum(1 << i for i in set(draws))] += np.prod(q[list(draws)])
        np.testing.assert_allclose(sampled_set_law(q, n), expected, atol=1e-15)
    with pytest.raises(ValueError, match="of sum 1"):
        sampled_set_law([0.5, 0.2], 3)
    for wrong in ([0.5, 0.5 + 1e-8], np.full(21, 1.0 / 21.0)):
        with pytest.raises(ValueError, match="expected at most 20 of sum 1"):
            sampled_set_law(wrong, 3)
