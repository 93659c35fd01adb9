"""The optimal set against exact arithmetic in Q(sqrt 2), Qhull, cvxpy and closed forms."""

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import null_space
from scipy.optimize import brentq
from scipy.spatial import HalfspaceIntersection

from theorylab.convex_relu import (
    Network,
    TrainingStatus,
    Weighted,
    _active_directions,
    _minimiser,
    _rounds,
    certify,
    enumerate_arrangements,
    train,
    zero_threshold,
)
from theorylab.convex_relu._active_directions import (
    assign,
    cell_maximisers,
    distinct,
    newton_distance,
    promising_cells,
)
from theorylab.convex_relu._cones import ConeSearch
from theorylab.convex_relu._faces import (
    cells_containing,
    curvature,
    locate,
    merge,
    multipliers_of,
    neurons_of,
    tangents,
)
from theorylab.convex_relu._minimality import is_minimal, optimal_pruning
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu._sensitivity import SensitivityStatus, sensitivity
from theorylab.convex_relu.losses import Logistic, Squared
from theorylab.convex_relu.optimal_set import (
    OptimalSetStatus,
    find_optimal_set,
    minimal_networks,
    vertices,
)
from theorylab.convex_relu.stationary_points import tie_multipliers


def polygon(sides, angle=0.0):
    t = 2 * np.pi * np.arange(sides) / sides + angle
    return np.column_stack([np.cos(t), np.sin(t)]), np.ones(sides)


def gaussian(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n)


def objective(X, y, beta, network):
    return 0.5 * np.sum((network(X) - y) ** 2) + beta * network.penalty


class Root2:
    """a + b sqrt(2) with rational a and b."""

    def __init__(self, a, b=0):
        self.a, self.b = Fraction(a), Fraction(b)

    def __sub__(self, other):
        return Root2(self.a - other.a, self.b - other.b)

    def __mul__(self, other):
        return Root2(self.a * other.a + 2 * self.b * other.b, self.a * other.b + self.b * other.a)

    def __truediv__(self, other):
        norm = other.a**2 - 2 * other.b**2
        return self * Root2(other.a / norm, -other.b / norm)

    @property
    def sign(self):
        if self.a == 0 or self.b == 0 or (self.a > 0) == (self.b > 0):
            return (self.a + self.b > 0) - (self.a + self.b < 0)
        bigger = self.a**2 > 2 * self.b**2
        return (1 if self.a > 0 else -1) if bigger else (1 if self.b > 0 else -1)


def echelon(rows):
    """Reduce rows in place; return the pivot columns."""
    pivots = []
    for column in range(len(rows[0])):
        at = next((i for i in range(len(pivots), len(rows)) if rows[i][column].sign), None)
        if at is None:
            continue
        k = len(pivots)
        rows[k], rows[at] = rows[at], rows[k]
        lead = rows[k][column]
        rows[k] = [v / lead for v in rows[k]]
        for i in range(len(rows)):
            if i != k and rows[i][column].sign:
                factor = rows[i][column]
                rows[i] = [v - factor * w for v, w in zip(rows[i], rows[k], strict=True)]
        pivots.append(column)
    return pivots


def exact_minimal_supports():
    """Supports of the vertices of {c >= 0: A c = 1} for the octagon, exactly; the rank, 5, bounds
    their size.

    The eight active directions lie midway between the corners; their outputs are proportional to
    (1, 1 + sqrt 2, 1 + sqrt 2, 1)."""
    profile = [Root2(1), Root2(1, 1), Root2(1, 1), Root2(1)] + [Root2(0)] * 4
    atoms = [[profile[(i - k + 1) % 8] for k in range(8)] for i in range(8)]
    supports = set()
    for size in range(1, 6):
        for subset in combinations(range(8), size):
            rows = [[row[k] for k in subset] + [Root2(1)] for row in atoms]
            if echelon(rows) == list(range(size)) and all(
                rows[i][-1].sign > 0 for i in range(size)
            ):
                supports.add(subset)
    rank = len(echelon([list(row) for row in atoms]))
    return supports, rank


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_distance_from_a_stationary_point_is_bounded_for_neurons_of_all_lengths(loss):
    # A planted teacher leaves short neurons beside long ones.
    rng = np.random.default_rng(7)
    X, W, a = rng.standard_normal((60, 3)), rng.standard_normal((5, 3)), rng.standard_normal(5)
    y = np.maximum(X @ W.T, 0) @ a + 0.1 * rng.standard_normal(60)
    y = np.sign(y) if loss == "logistic" else y
    beta = 0.05 * zero_threshold(X, y, loss=loss)
    optimal = find_optimal_set(X, y, beta, loss=loss)
    minimal = neurons_of(X, optimal.training.network, bias=False)
    chosen = optimal.training.certificate.loss
    assert minimal.lengths.min() < 0.2 * minimal.lengths.max()
    finite = 0
    for size in (1e-11, 1e-9, 1e-7, 1e-5, 1e-3, 1e-1):
        shift = [z @ rng.standard_normal(z.shape[1]) for z in tangents(minimal)]
        points = minimal.points + size * minimal.lengths[:, None] * np.array(shift)
        moved = replace(minimal, points=points)
        v = -chosen.gradient(moved.fit, y)
        distance = newton_distance(moved, v, chosen, y, beta)
        apart = float(np.linalg.norm(v - optimal.dual))
        assert distance >= apart * (1 - 1e-6) - 1e-12
        # Not much larger either, and none is claimed far from the point.
        assert distance <= 3e3 * apart or distance == np.inf
        finite += np.isfinite(distance)
    assert 2 <= finite < 6


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 8.0), (8.0, 1.0)])
def test_distance_is_claimed_as_far_as_the_theorem_goes(scales):
    # One neuron p in the open quadrant of each pair of inputs, |c p - y|^2 / 2 + beta |p|: along p
    # the curvature is c^2. All p are moved by the same gradient.
    beta = 0.5
    pairs, lengths = np.array([1.2, 1.6]), 1.5 / np.array(scales)
    points = np.kron(np.diag(lengths), pairs / 2)
    y = np.concatenate(
        [
            c * p + beta / c * pairs / 2
            for c, p in zip(scales, 1.5 / np.array(scales)[:, None] * pairs / 2, strict=True)
        ]
    )
    X = np.diag(np.repeat(scales, 2))

    def moved(e):
        p = points * (1 + e / (np.array(scales)[:, None] ** 2 * lengths[:, None]))
        neurons = locate(X, p, np.ones(len(scales)))
        return newton_distance(neurons, y - neurons.fit, Squared(), y, beta)

    def step(e):
        return 2 * e * np.sqrt(len(scales)) / min(scales)

    def bend(e):
        result = 0.0
        for c in scales:
            length = 1.5 / c + e / c**2
            turned = 2 * step(e) / c**2 / length
            result += (
                12 * beta / length**2 * (1 / c + turned) * (np.sqrt(length / beta) + turned) ** 2
            )
        return result * step(e)

    limit = brentq(lambda e: bend(e) - 1, 0, 1)
    assert moved(0.999 * limit) == pytest.approx(step(0.999 * limit))
    assert moved(1.001 * limit) == np.inf


def test_distance_of_the_logistic_dual_point_is_claimed_as_far_as_the_theorem_goes():
    # One row and one neuron: outputs x p, second derivative of the loss w, third at most 1/4.
    loss, y, x, p = Logistic(), np.ones(1), 1.5, 2.0
    neurons = locate(np.array([[x]]), np.array([[p]]), np.ones(1))
    v = float(-loss.gradient(neurons.fit, y)[0])
    root = x * np.sqrt(v * (1 - v))

    def moved(e):
        return newton_distance(neurons, np.array([v]), loss, y, x * v - e)

    def bend(e):
        beta, step = x * v - e, 2 * e / root
        turned = 2 * step / root**2 / p
        return step * (
            12 * beta / p**2 * (1 / root + turned) * (np.sqrt(p / beta) + turned) ** 2
            + (x / root) ** 3 / 4
        )

    limit = brentq(lambda e: bend(e) - 1, 0, 0.9 * x * v)
    assert moved(0.999 * limit) == pytest.approx(0.5 * 2 * 0.999 * limit / root)
    assert moved(1.001 * limit) == np.inf


def test_distance_counts_the_gradients_of_all_neurons():
    # One neuron a row of X = I: each dual value is beta, here all are as far from it.
    beta, apart = 0.3, 1e-6
    neurons = locate(np.eye(9), np.eye(9), np.ones(9))
    v = np.full(9, beta + apart)
    assert 3 * apart <= newton_distance(neurons, v, Squared(), v + 1.0, beta) <= 6.01 * apart


def test_distance_counts_the_rounding_of_the_gradient():
    # One row: the exact dual value is beta / x.
    rng = np.random.default_rng(0)
    hidden = 0
    for _ in range(200):
        x, beta = rng.uniform(1, 2, 2)
        v = beta / x
        neurons = locate(np.array([[x]]), np.ones((1, 1)), np.ones(1))
        apart = abs(Fraction(v) - Fraction(beta) / Fraction(x))
        y = v + neurons.fit
        v = y - neurons.fit
        hidden += x * v[0] == beta and apart > 0
        distance = newton_distance(neurons, v, Squared(), y, beta)
        assert distance >= abs(Fraction(v[0]) - Fraction(beta) / Fraction(x))
        assert distance <= 1e-15 * (1 + 1e3 * abs(x * v[0] - beta) * 1e15)
    assert hidden > 0


@pytest.mark.parametrize("size", [1e-9, 1e-3])
def test_distance_counts_a_dual_point_that_is_not_the_residual(size):
    # One neuron has two conditions: six directions of v leave them as they were.
    X, y = gaussian(8, 2, 1)
    beta = 0.9 * zero_threshold(X, y)
    minimal = neurons_of(X, train(X, y, beta, tol=1e-9).network, bias=False)
    jacobian, _ = curvature(minimal, tangents(minimal), np.ones(8), beta)
    v = y - minimal.fit
    across = null_space(jacobian.T)[:, 0]
    assert minimal.signs.size == 1
    assert newton_distance(minimal, v, Squared(), y, beta) < 0.1 * size
    moved = newton_distance(minimal, v + size * across, Squared(), y, beta)
    assert size <= moved <= 1.1 * size


def test_octagon_has_exactly_ten_minimal_networks():
    supports, rank = exact_minimal_supports()
    X, y = polygon(8)
    optimal = find_optimal_set(X, y, 0.5)
    angles = np.arctan2(optimal.directions[:, 1], optimal.directions[:, 0])
    # Direction k lies after corner k: its active corners are k - 1, ..., k + 2.
    index = np.round((angles - np.pi / 8) / (np.pi / 4)).astype(int) % 8
    found = {tuple(sorted(index[np.flatnonzero(row)])) for row in vertices(optimal)}
    assert optimal.rank == rank == 5
    assert len(supports) == 10
    assert sorted(map(len, supports)) == [4] * 2 + [5] * 8
    assert found == supports
    sizes = (vertices(optimal) > 0).sum(axis=1)
    assert sizes.tolist() == sorted(sizes)
    assert optimal.status is OptimalSetStatus.POLYTOPE
    # Next to a direction that may be active too nothing is said.
    near, far = (replace(optimal, next_slack=t * optimal.accuracy) for t in (9.0, 11.0))
    assert near.status is OptimalSetStatus.UNDECIDED
    assert far.status is OptimalSetStatus.POLYTOPE


@pytest.mark.parametrize("sides", [6, 8, 10, 12])
def test_vertices_agree_with_qhull(sides):
    X, y = polygon(sides, angle=0.3)
    optimal = find_optimal_set(X, y, 0.4)
    centre = np.full(sides, optimal.total / sides)
    null = null_space(optimal.atoms, rcond=1e-9)
    if null.shape[1] == 1:
        expected = [
            centre + t * null[:, 0]
            for t in (1 / np.max(-null[:, 0] / centre), -1 / np.max(null[:, 0] / centre))
        ]
    else:
        hull = HalfspaceIntersection(np.column_stack([-null, -centre]), np.zeros(null.shape[1]))
        points = np.unique(np.round(centre + hull.intersections @ null.T, 7) + 0.0, axis=0)
        # Where many facets meet Qhull also returns points inside faces, of dependent support.
        expected = [
            c
            for c in points
            if np.linalg.matrix_rank(optimal.atoms[:, c > 1e-6], tol=1e-8) == np.sum(c > 1e-6)
        ]
    rows = vertices(optimal)
    assert len(rows) == len(expected)
    for row in expected:
        assert np.abs(rows - row).max(axis=1).min() < 1e-6


@pytest.mark.parametrize("sides", [4, 6, 8, 10])
def test_every_minimal_network_is_certified(sides):
    X, y = polygon(sides, angle=1.0)
    optimal = find_optimal_set(X, y, 0.4)
    for network, row in zip(minimal_networks(optimal), vertices(optimal), strict=True):
        assert len(network.output_weights) == np.count_nonzero(row)
        certificate = certify(X, y, 0.4, network, dual=optimal.training.certificate.dual)
        assert certificate.verify()
        assert certificate.gap < 1e-9
        assert is_minimal(X, network)
        assert network.penalty == pytest.approx(optimal.total, rel=1e-10)


def full_program(X, y, beta, patterns):
    """Blocks, outputs, norms and constraints of the convex program."""
    prediction, norms, constraints = 0, [], []
    for pattern in patterns:
        for sign in (1, -1):
            v = cp.Variable(X.shape[1])
            prediction = prediction + sign * cp.multiply(pattern, X @ v)
            norms.append(cp.norm(v))
            constraints.append(cp.multiply(2.0 * pattern - 1, X @ v) >= 0)
    return prediction, norms, constraints, 0.5 * cp.sum_squares(prediction - y) + beta * sum(norms)


@pytest.mark.parametrize("seed", range(5))
def test_optimum_agrees_with_the_full_convex_program(seed):
    X, y = gaussian(6, 2, seed)
    beta = 0.3 * zero_threshold(X, y)
    prediction, _, constraints, goal = full_program(
        X, y, beta, enumerate_arrangements(X).astype(float)
    )
    value = cp.Problem(cp.Minimize(goal), constraints).solve(solver=cp.CLARABEL)
    optimal = find_optimal_set(X, y, beta)
    networks = minimal_networks(optimal)
    assert (len(networks) == 1) == (optimal.status is OptimalSetStatus.UNIQUE)
    for network in networks:
        assert objective(X, y, beta, network) == pytest.approx(value, rel=1e-7)
    assert np.allclose(prediction.value, optimal.fit, atol=1e-4)
    assert optimal.weights.sum() == pytest.approx(optimal.total, rel=1e-9)


def test_weight_ranges_agree_with_the_full_convex_program():
    X, y = polygon(6, angle=0.2)
    beta = 0.4
    optimal = find_optimal_set(X, y, beta)
    patterns = enumerate_arrangements(X).astype(float)
    prediction, norms, constraints, _ = full_program(X, y, beta, patterns)
    # Among the optimal solutions, the most and the least that the cells containing a direction can
    # carry.
    direction, sign, span = optimal.directions[0], optimal.signs[0], optimal.weight_ranges[0]
    holds = [np.all((2 * p - 1) * (X @ direction) >= -1e-9) for p in patterns]
    counted = [h and s == sign for h in holds for s in (1, -1)]
    blocks = [norm for norm, c in zip(norms, counted, strict=True) if c]
    rest = sum(norm for norm, c in zip(norms, counted, strict=True) if not c)
    constraints = [
        *constraints,
        prediction == optimal.fit,
        sum(norms) <= optimal.total * (1 + 1e-7),
    ]
    least = cp.Problem(cp.Minimize(sum(blocks)), constraints).solve(solver=cp.CLARABEL)
    most = optimal.total - cp.Problem(cp.Minimize(rest), constraints).solve(solver=cp.CLARABEL)
    assert least == pytest.approx(span[0], abs=2e-3)
    assert most == pytest.approx(span[1], abs=2e-3)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("sides", [6, 8, 10])
def test_weight_ranges_are_those_of_the_vertices(sides, size):
    X, y = polygon(sides, angle=0.2)
    optimal = find_optimal_set(X, size * y, 0.4 * size)
    rows = vertices(optimal) / optimal.total
    ranges = optimal.weight_ranges / optimal.total
    np.testing.assert_allclose(
        ranges, np.column_stack([rows.min(axis=0), rows.max(axis=0)]), atol=1e-7
    )
    assert ranges.min() == 0.0


def in_the_plane(atoms, fit, rank, accuracy):
    """A polytope of weights that sum to one, with the given outputs."""
    X, y = gaussian(5, 2, 1)
    optimal = find_optimal_set(X, y, 1.1 * zero_threshold(X, y))
    return replace(
        optimal,
        atoms=np.array(atoms).T,
        fit=np.array(fit),
        signs=np.ones(len(atoms)),
        total=1.0,
        rank=rank,
        accuracy=accuracy,
    )


@pytest.mark.parametrize("last", [-1e-6, -1e-9, 1e-9, 1e-6])
def test_vertices_are_told_apart_as_far_as_the_columns_are_known(last):
    # Between (1, 0) and (1, 1) lies (1, 1e-4), next to the fit; the accuracy is 1e-8, 1e-4 of how
    # far the first two are apart.
    rows = vertices(in_the_plane([[1, 0], [1, 1e-4], [1, 1]], [1, 1e-4 + last], 2, 1e-8))
    expected = [[0, 1, 0], [1 - 1e-4 - last, 0, 1e-4 + last]]
    if last == 1e-6:
        expected = [expected[1], [0, 1 - last / (1 - 1e-4), last / (1 - 1e-4)]]
    elif last == -1e-6:
        expected[0] = [-last / 1e-4, 1 + last / 1e-4, 0]
    assert np.array_equal(rows > 0, np.array(expected) > 0)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-9)


def test_columns_that_may_be_parallel_are_no_basis():
    for apart, count in ((1e-6, 2), (1e-10, 2)):
        flat = in_the_plane([[1, 0], [1, apart], [1, 1]], [1, 0.5], 2, 1e-8)
        rows = vertices(flat)
        assert len(rows) == count
        assert np.all(np.count_nonzero(rows, axis=1) == 2)
        np.testing.assert_allclose(rows[:, 2], 0.5, rtol=1e-5)
    on = in_the_plane([[1, 0], [1, 1e-10], [1, 1]], [1, 0.0], 2, 1e-8)
    assert np.count_nonzero(vertices(on), axis=1).tolist() == [1, 1]


@pytest.mark.parametrize("exponent", [-200, -60, 40, 200])
def test_units_that_are_powers_of_two_change_nothing(exponent):
    X, y = gaussian(12, 3, 0)
    beta = 0.2 * zero_threshold(X, y)
    size = 2.0**exponent
    one = find_optimal_set(X, y, beta)
    patterns = promising_cells(reduce_rows(X), X, one.dual, beta)
    for a, b in ((size, 1.0), (1.0, size)):
        other = find_optimal_set(a * X, b * y, a * b * beta)
        for name in ("directions", "signs", "slack", "next_slack", "accuracy", "rank"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert other.status is one.status
        assert np.array_equal(other.weights * a, one.weights * b)
        found = promising_cells(reduce_rows(a * X), a * X, b * one.dual, a * b * beta)
        assert np.array_equal(found, patterns)
        assert is_minimal(a * X, other.training.network) == is_minimal(X, one.training.network)


@pytest.mark.parametrize(
    ("loss", "bias"), [("logistic", False), ("logistic", True), ("squared", True)]
)
def test_other_losses_and_biases(loss, bias):
    X, y = gaussian(7, 2, 3)
    y = np.sign(y) if loss == "logistic" else y
    optimal = find_optimal_set(X, y, 0.3, loss=loss, bias=bias)
    network = optimal.network(vertices(optimal)[0])
    assert certify(X, y, 0.3, network, loss=loss, bias=bias).gap < 1e-8
    assert np.allclose(network(X), optimal.fit, atol=1e-8)
    data = np.column_stack([X, np.ones(7)]) if bias else X
    rng = np.random.default_rng(0)
    u = rng.normal(size=(2000, data.shape[1]))
    heights = np.abs(np.maximum(data @ u.T, 0).T @ optimal.dual) / np.linalg.norm(u, axis=1)
    assert heights.max() <= 0.3 * (1 + 1e-9)


def test_restricted_patterns():
    X, y = gaussian(8, 2, 0)
    patterns = enumerate_arrangements(X)[::3]
    optimal = find_optimal_set(X, y, 0.1, arrangements=patterns)
    inside = [
        any(np.all((2 * p - 1) * (X @ u) >= -1e-9) for p in patterns.astype(int))
        for u in optimal.directions
    ]
    assert all(inside)
    assert objective(X, y, 0.1, optimal.network(vertices(optimal)[0])) == pytest.approx(
        optimal.training.objective, rel=1e-9
    )


def test_zero_network_is_the_only_optimum_above_the_threshold():
    X, y = gaussian(6, 2, 1)
    optimal = find_optimal_set(X, y, 1.1 * zero_threshold(X, y))
    assert optimal.n_directions == 0
    assert optimal.status is OptimalSetStatus.UNIQUE
    assert vertices(optimal).shape == (1, 0)
    assert minimal_networks(optimal)[0].n_neurons == 0
    # Nor do rows of zeros leave another.
    empty = find_optimal_set(np.zeros((3, 2)), np.array([1.0, -2.0, 3.0]), 0.1)
    assert empty.n_directions == 0
    assert empty.status is OptimalSetStatus.UNIQUE


def test_slack_is_known_up_to_the_accuracy():
    # Two cells on the line; without a neuron the dual point is y, and only sums are rounded.
    rounded = 0
    for seed in range(40):
        X, y = gaussian(9, 1, seed)
        beta = 1.2 * zero_threshold(X, y)
        found = find_optimal_set(X, y, beta, arrangements=enumerate_arrangements(X))
        terms = [Fraction(a) * Fraction(b) for a, b in zip(X[:, 0], y, strict=True)]
        sides = [sum(t for t, x in zip(terms, X[:, 0], strict=True) if s * x > 0) for s in (1, -1)]
        exact = 1 - max(abs(t) for t in sides) / Fraction(beta)
        assert abs(Fraction(found.next_slack) - exact) <= found.accuracy <= 1e-12
        rounded += exact != found.next_slack
    assert rounded > 20


@pytest.mark.parametrize(
    ("factor", "shift"), [(1.0, 1e-3), (1.0, 1e-9), (1.01, 0.0), (0.99, 0.0), (1.3, 1e-3)]
)
def test_accuracy_bounds_the_error_of_the_dual_point_without_newton(monkeypatch, factor, shift):
    # Above the threshold the dual point is w y; v is moved along the heaviest row, whose part of
    # the dual is v^2 / 2 w, or scaled.
    X, y = gaussian(8, 2, 3)
    loss = Weighted(Squared(), np.append(np.ones(7), 100.0))
    threshold = zero_threshold(X, y, loss=loss)
    beta = (1.0 + 2.0 * (factor == 1.0 and shift > 1e-6)) * threshold
    exact = loss.weights * y
    moved = factor * exact
    moved[-1] += shift
    monkeypatch.setattr("theorylab.convex_relu.optimal_set.newton_distance", lambda *args: np.inf)
    monkeypatch.setattr("theorylab.convex_relu.training.Session.dual", lambda self: moved)
    found = find_optimal_set(X, y, beta, loss=loss)
    assert found.training.network.n_neurons == 0
    distance = found.accuracy * beta / np.linalg.norm(X, 2)
    apart = np.linalg.norm(moved - exact)
    assert distance >= apart
    assert distance <= 3 * apart + 3e-5


def test_accuracy_of_a_dual_point_outside_the_constraint_is_that_of_the_scaled_one(monkeypatch):
    # Outside the constraint the dual is larger than the optimum: no gap is left to tell of.
    X, y = gaussian(8, 2, 3)
    beta = 0.3 * zero_threshold(X, y)
    exact = find_optimal_set(X, y, beta).dual
    monkeypatch.setattr("theorylab.convex_relu.optimal_set.newton_distance", lambda *args: np.inf)
    monkeypatch.setattr("theorylab.convex_relu.training.Session.dual", lambda self: 1.01 * exact)
    distance = find_optimal_set(X, y, beta).accuracy * beta / np.linalg.norm(X, 2)
    assert distance == pytest.approx(0.01 * np.linalg.norm(exact), rel=1e-3)


def test_degenerate_rows_and_rank():
    X, y = gaussian(5, 2, 4)
    X = np.vstack([X, X[0], -X[1], np.zeros(2)]) @ np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    y = np.append(y, [0.3, -0.2, 0.1])
    optimal = find_optimal_set(X, y, 0.2)
    for network in minimal_networks(optimal):
        assert certify(X, y, 0.2, network).gap < 1e-8


def test_hinge_loss_is_refused_and_the_limit_is_named():
    X, y = polygon(8)
    with pytest.raises(ValueError, match="loss"):
        find_optimal_set(X, y, 0.5, loss="hinge")
    with pytest.raises(ValueError, match="max_subsets: expected at least 56"):
        vertices(find_optimal_set(X, y, 0.5), max_subsets=55)
    assert len(vertices(find_optimal_set(X, y, 0.5), max_subsets=56)) == 10


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5))
def test_pruning_keeps_outputs_and_never_raises_the_penalty(seed, m, n):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    network = Network(rng.normal(size=(m, 2)), rng.normal(size=m))
    pruned = optimal_pruning(X, network)
    rank = np.linalg.matrix_rank(np.maximum(X @ network.weights.T, 0), tol=1e-10)
    mass = float(np.abs(network.output_weights) @ np.linalg.norm(network.weights, axis=1))
    assert np.allclose(pruned.network(X), network(X), atol=1e-9)
    assert pruned.network.penalty <= mass * (1 + 1e-12)
    assert pruned.network.n_neurons <= rank <= n
    assert pruned.n_steps <= m - rank
    assert np.all(np.diff(pruned.penalties) <= 1e-12 * mass)


def test_outputs_are_dependent_at_the_level_of_rounding_only():
    for lean, minimal in ((1e-10, True), (1e-14, False)):
        network = (np.array([[1.0, lean], [1.0, 0.0]]), np.ones(2))
        assert is_minimal(np.eye(2), network) == minimal


@pytest.mark.parametrize("size", [2.0**-60, 2.0**60])
def test_outputs_in_other_units_are_as_dependent(size):
    for lean, minimal in ((1e-10, True), (1e-14, False)):
        network = (np.array([[1.0, lean], [1.0, 0.0]]), np.ones(2))
        assert is_minimal(size * np.eye(2), network) == minimal


def test_neurons_that_cancel_are_all_pruned_in_as_many_steps_as_relations():
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = 10.0 ** rng.uniform(-3, 3)
        weights = np.repeat(size * np.abs(rng.normal(size=(1, 2))), 2, axis=0)
        pruned = optimal_pruning(np.eye(2), (weights, size * np.array([1.3, -1.3])))
        assert pruned.network.n_neurons == 0
        assert pruned.n_steps == 1
        assert pruned.penalties[-1] == 0.0


def test_minimality_is_not_asked_of_skip_connections_or_hidden_biases():
    X, weights, output = np.eye(2), np.eye(2), np.ones(2)
    for skip in ({"linear": np.ones(2)}, {"offset": np.ones(())}):
        with pytest.raises(ValueError, match="network: expected no skip connection"):
            is_minimal(X, Network(weights, output, **skip))
    biased = Network(weights, output, np.ones(2))
    with pytest.raises(ValueError, match="network: expected no biases"):
        optimal_pruning(X, biased)
    assert is_minimal(X, biased, bias=True)


def test_pruned_polygon_keeps_its_penalty():
    X, y = polygon(10, angle=0.1)
    optimal = find_optimal_set(X, y, 0.3)
    start = optimal.network(vertices(optimal).mean(axis=0))
    assert not is_minimal(X, start)
    pruned = optimal_pruning(X, start)
    assert objective(X, y, 0.3, pruned.network) == pytest.approx(
        optimal.training.objective, rel=1e-12
    )
    assert is_minimal(X, pruned.network)


def test_sensitivity_of_one_sample_in_closed_form():
    # One row x: v = beta / |x|, outputs y - beta / |x|, one neuron along x.
    x, y, beta = np.array([[3.0, 4.0]]), np.array([2.0]), 0.7
    result = sensitivity(x, y, beta, d_beta=1.0)
    assert result.d_fit == pytest.approx([-1 / 5])
    assert result.d_penalty == pytest.approx(-1 / 25)
    assert result.d_objective == pytest.approx((2 - 0.7 / 5) / 5)
    moved = sensitivity(x, y, beta, d_X=np.array([[1.0, 0.0]]))
    assert moved.d_fit == pytest.approx([0.7 / 25 * 3 / 5])
    assert sensitivity(x, y, beta, d_y=np.array([1.0])).d_fit == pytest.approx([1.0])


def test_sensitivity_on_an_orthogonal_design_in_closed_form():
    # X = I: outputs are y_+ (1 - beta / |y_+|)_+ - y_- (1 - beta / |y_-|)_+.
    y, beta = np.array([3.0, 4.0, -1.0, -2.0]), 1.5
    result = sensitivity(np.eye(4), y, beta, d_beta=1.0)
    assert result.d_fit == pytest.approx([-3 / 5, -4 / 5, 1 / np.sqrt(5), 2 / np.sqrt(5)])
    assert result.status is SensitivityStatus.REGULAR
    moved = sensitivity(np.eye(4), y, beta, d_y=np.array([1.0, 0.0, 0.0, 0.0])).d_fit[:2]
    assert moved == pytest.approx([1 - beta / 5 + beta * 9 / 125, beta * 12 / 125])


@pytest.mark.parametrize(
    ("loss", "bias", "seed"),
    [
        ("squared", True, 0),
        ("logistic", False, 1),
        ("logistic", True, 2),
        ("squared", False, 3),
        (Weighted(Squared(), np.arange(1.0, 9.0)), False, 4),
    ],
)
def test_sensitivity_agrees_with_differences(loss, bias, seed):
    X, y = gaussian(8, 2, seed)
    y = np.sign(y) if loss == "logistic" else y
    beta = 0.4 * zero_threshold(X, y, loss=loss, bias=bias)
    rng = np.random.default_rng(seed)
    d_X, d_beta = rng.normal(size=X.shape), 0.5
    d_y = np.zeros(8) if loss == "logistic" else rng.normal(size=8)
    result = sensitivity(X, y, beta, d_X=d_X, d_y=d_y, d_beta=d_beta, loss=loss, bias=bias)
    h = 1e-5

    def solve(t):
        r = train(X + t * d_X, y + t * d_y, beta + t * d_beta, loss=loss, bias=bias, tol=1e-9)
        return np.append(r.network(X + t * d_X), [r.objective, r.network.penalty])

    quotient = (solve(h) - solve(-h)) / (2 * h)
    expected = np.append(result.d_fit, [result.d_objective, result.d_penalty])
    # Truncation h^2 and training noise 1e-12 / h.
    assert np.allclose(quotient, expected, atol=2e-6 * max(1.0, np.abs(expected).max()))


def test_a_tied_row_met_twice_leaves_the_multipliers_undetermined():
    seen = 0
    for seed in range(6):
        X, y = gaussian(6, 2, seed)
        beta = 0.3 * zero_threshold(X, y)
        network = optimal_pruning(X, train(X, y, beta, tol=1e-9).network).network
        tied = neurons_of(X, network, bias=False).tied.any(axis=0)
        before = sensitivity(X, y, beta, network=network, d_beta=1.0)
        if not tied.any() or before.status is not SensitivityStatus.REGULAR:
            continue
        # Halves of a row and its target: the same objective.
        split = np.sqrt(np.where(tied, 0.5, 1.0))
        twice = np.vstack([split[:, None] * X, np.sqrt(0.5) * X[tied]])
        targets = np.append(split * y, np.sqrt(0.5) * y[tied])
        after = sensitivity(twice, targets, beta, network=network, d_beta=1.0)
        assert after.status is SensitivityStatus.SINGULAR
        assert after.d_objective == pytest.approx(before.d_objective, rel=1e-9)
        moved = Network((1 + 1e-4) * network.weights, network.output_weights)
        with pytest.raises(ValueError, match="network: expected a stationary network"):
            sensitivity(X, y, beta, network=moved)
        seen += 1
    assert seen > 0


def test_a_neuron_counts_for_the_nearest_direction_of_its_sign():
    points = np.array([[3.0, 1e-9], [2.0, 1e-16], [0.0, 5.0], [0.5, 1e-9], [-4.0, 0.0]])
    neurons = locate(np.eye(2), points, np.array([-1.0, 1.0, -1.0, -1.0, 1.0]))
    assert neurons.tied[:3].tolist() == [[False, False], [False, True], [True, False]]
    directions = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    weights = assign(neurons, directions, np.array([1.0, -1.0, -1.0]))
    np.testing.assert_allclose(weights, [6.0, 3.5, 5.0], rtol=1e-12)


def test_the_margin_is_that_of_the_multipliers_with_ties_counted_as_active():
    nearest = set()
    for seed in range(12):
        X, y = gaussian(6, 3, seed)
        beta = 0.3 * zero_threshold(X, y)
        network = optimal_pruning(X, train(X, y, beta, tol=1e-9).network).network
        ties = tie_multipliers(X, y, beta, network)
        rooms = np.stack([ties.multipliers, ties.limits - ties.multipliers])
        rooms = rooms * np.linalg.norm(X, axis=1) / beta
        rooms[:, ties.limits == 0] = np.inf
        margin = sensitivity(X, y, beta, network=network).margin
        assert margin == pytest.approx(rooms.min(), rel=1e-4, abs=1e-8)
        if np.isfinite(margin):
            nearest.add(int(np.argmin(rooms.min(axis=(1, 2)))))
    assert nearest == {0, 1}


def test_sensitivity_refuses_a_network_that_is_not_stationary():
    X, y = gaussian(5, 2, 0)
    with pytest.raises(ValueError, match="network: expected a stationary network"):
        sensitivity(X, y, 0.1, d_beta=1.0, network=(np.ones((1, 2)), np.ones(1)))
    with pytest.raises(ValueError, match="d_y"):
        sensitivity(X, np.sign(y), 0.1, d_y=y, loss="logistic")


def test_minimal_network_of_parallel_copies_is_one_neuron():
    network = Network(np.array([[1.0, 1.0], [2.0, 2.0]]), np.array([1.0, 1.0]))
    X = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert not is_minimal(X, network)
    assert optimal_pruning(X, network).network.n_neurons == 1


# The kernel that the three modules share.


def test_cells_containing_a_point_agree_with_a_scan():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(5, 3)), np.zeros(3)])
    X = np.vstack([X, -2 * X[0]])
    cells = enumerate_arrangements(X)
    for tied in ([0], [0, 1], [2]):
        p = np.linalg.svd(X[tied])[2][-1]
        neuron = locate(X, p[None], np.ones(1))
        assert set(np.flatnonzero(neuron.tied[0])) >= set(tied)
        found = {c.tobytes() for c in cells_containing(X, neuron.active[0], neuron.tied[0])}
        z = X @ p
        assert found == {c.tobytes() for c in cells if np.all(np.where(c, z >= -1e-12, z <= 1e-12))}


def test_merging_keeps_outputs_and_lowers_the_penalty():
    X, _ = gaussian(4, 2, 0)
    rng = np.random.default_rng(1)
    neurons = neurons_of(X, Network(rng.normal(size=(12, 2)), rng.normal(size=12)), False)
    merged = merge(neurons)
    assert np.allclose(merged.fit, neurons.fit)
    assert merged.lengths.sum() < neurons.lengths.sum()
    for s in (1, -1):
        patterns = merged.active[merged.signs == s]
        assert len(np.unique(patterns, axis=0)) == len(patterns)
    # An edge belongs to the cells on both of its sides.
    inner, edge, left = [1.0, 1.0], [0.0, 2.0], [-1.0, 3.0]
    for points, signs, expected in (
        ([inner, edge], [1.0, 1.0], [[1.0, 3.0]]),
        ([edge, inner], [-1.0, -1.0], [[1.0, 3.0]]),
        ([edge, left], [-1.0, -1.0], [[-1.0, 5.0]]),
        ([inner, edge], [1.0, -1.0], [inner, edge]),
        ([inner, left], [1.0, 1.0], [inner, left]),
        # What was added is inside of one cell.
        ([inner, edge, left], [1.0, 1.0, 1.0], [[1.0, 3.0], left]),
    ):
        merged = merge(locate(np.eye(2), np.array(points), np.array(signs)))
        np.testing.assert_array_equal(merged.points, expected)
        assert np.array_equal(merged.active, merged.points > 0.0)


def test_a_network_and_its_neurons_there_and_back():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 2))
    weights, biases = rng.normal(size=(5, 2)), rng.normal(size=5)
    weights[1, 0] = weights[2] = biases[2] = 0.0
    output = np.array([3.0, -2.0, 1.0, 0.0, -0.5])
    for bias in (True, False):
        network = Network(weights, output, biases if bias else np.zeros(5))
        data = np.column_stack([X, np.ones(6)]) if bias else X
        neurons = neurons_of(data, network, bias)
        assert neurons.signs.tolist() == [1.0, -1.0, -1.0]
        np.testing.assert_allclose(neurons.fit, network(X), atol=1e-14)
        np.testing.assert_allclose(neurons.atoms @ neurons.lengths, network(X), atol=1e-14)
        back = neurons.network(bias)
        new = rng.normal(size=(9, 2))
        np.testing.assert_allclose(back(new), network(new), atol=1e-13)
        sizes = np.sqrt(np.sum(back.weights**2, axis=1) + np.square(back.biases))
        np.testing.assert_allclose(np.abs(back.output_weights), sizes, rtol=1e-14)
        assert back.penalty == pytest.approx(neurons.lengths.sum(), rel=1e-14)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_ties_are_told_up_to_rounding(size):
    # Of lines that are almost parallel to the edge of the second row.
    X = np.array([[0.6, 0.8], [0.0, size], [0.0, 0.0]])
    for slope in (0.0, 1e-14, -1e-14, 1e-10, -1e-10):
        found = locate(X, np.array([[1.0, slope], [1.0 / size, slope / size]]), np.ones(2))
        near = abs(slope) < 1e-12
        assert found.tied.tolist() == 2 * [[False, near, True]]
        assert found.active.tolist() == 2 * [[True, slope > 1e-12, False]]


def test_a_basis_is_orthogonal_to_the_ties_and_complete():
    # One line twice, a zero row, and one of length 1e-3.
    rows = np.array([[1.0, 0, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 0], [1e-3, 2e-3, 0, 0]])
    for held, rank in (([0], 1), ([0, 1], 1), ([0, 2], 1), ([2], 0), ([0, 1, 2, 3], 2)):
        X = np.vstack([rows[held], [[0.0, 0.0, 1.0, 1.0]]])
        (basis,) = tangents(locate(X, np.array([[0.0, 0.0, 1.0, 2.0]]), np.ones(1)))
        assert basis.shape == (4, 4 - rank)
        np.testing.assert_allclose(basis.T @ basis, np.eye(4 - rank), atol=1e-14)
        np.testing.assert_allclose(rows[held] @ basis, 0.0, atol=1e-14)


def test_multipliers_of_ties_close_the_condition_at_an_optimum():
    last = ties = 0
    for seed in range(4):
        X, y = gaussian(8, 3, seed)
        beta = 0.1 * zero_threshold(X, y)
        neurons = neurons_of(X, train(X, y, beta).network, False)
        v = y - neurons.fit
        multipliers, worst = multipliers_of(neurons, v, beta)
        assert worst <= 1e-9
        for p, s, on, tied, lam in zip(
            neurons.points, neurons.signs, neurons.active, neurons.tied, multipliers, strict=True
        ):
            pull = beta * p / np.linalg.norm(p)
            np.testing.assert_allclose(s * X[on].T @ v[on] - X[tied].T @ lam, pull, atol=1e-9)
            ties += tied.sum()
        # Elsewhere what is left is the largest gradient on a face.
        w = v + np.random.default_rng(seed).normal(size=8)
        slopes = [
            np.linalg.norm(z.T @ (s * X[on].T @ w[on] - beta * p / np.linalg.norm(p)))
            for z, s, on, p in zip(
                tangents(neurons), neurons.signs, neurons.active, neurons.points, strict=True
            )
        ]
        assert multipliers_of(neurons, w, beta)[1] == pytest.approx(max(slopes), rel=1e-8)
        last += np.argmax(slopes) == len(slopes) - 1
    assert last < 4
    assert ties > 5


def test_curvature_is_the_second_difference_on_the_faces():
    X, y = gaussian(5, 3, 2)
    beta = 0.3
    p = np.linalg.svd(X[:1])[2][1:] @ np.diag([1.0, 2.0, 0.5])
    p[0] -= X[0] * (X[0] @ p[0]) / (X[0] @ X[0])
    neurons = locate(X, p, np.array([1.0, -1.0]))
    assert neurons.tied[0, 0]
    bases = tangents(neurons)
    weights = np.array([0.3, 1.0, 2.0, 0.7, 1.6])
    jacobian, hessian = curvature(neurons, bases, weights, beta)

    outputs = []

    def value(t):
        moved, at = [], 0
        for q, z in zip(neurons.points, bases, strict=True):
            moved.append(q + z @ t[at : at + z.shape[1]])
            at += z.shape[1]
        moved = np.array(moved)
        outputs.append(neurons.signs @ np.maximum(moved @ X.T, 0))
        penalty = np.linalg.norm(moved, axis=1).sum()
        return 0.5 * np.sum(weights * (outputs[-1] - y) ** 2) + beta * penalty

    direction = np.random.default_rng(0).normal(size=hessian.shape[0])
    h = 1e-4
    second = (value(h * direction) - 2 * value(0 * direction) + value(-h * direction)) / h**2
    assert second == pytest.approx(direction @ hessian @ direction, rel=1e-5)
    # The second neuron bends the first row.
    slope = (outputs[0] - outputs[2]) / (2 * h)
    np.testing.assert_allclose(jacobian @ direction, slope, atol=1e-9)


def generic(seed, n, d):
    """The optimal set of Gaussian data; where it is decided, training's neurons are in it."""
    rng = np.random.default_rng([seed, n, d])
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    optimal = find_optimal_set(X, y, 0.1 * zero_threshold(X, y))
    if optimal.status is not OptimalSetStatus.UNDECIDED:
        # Every neuron that training found is one of the directions.
        assert optimal.weights.sum() == pytest.approx(optimal.total, rel=1e-8)
        np.testing.assert_allclose(optimal.atoms @ optimal.weights, optimal.fit, atol=1e-6)
    return optimal


@pytest.mark.parametrize(("n", "d"), [(50, 2), (100, 2), (60, 3)])
def test_generic_data_are_decided(n, d):
    found = generic(0, n, d)
    assert found.status is not OptimalSetStatus.UNDECIDED
    # The cells that may carry a direction, against all cells.
    every = find_optimal_set(
        found.training.certificate.X,
        found.training.certificate.y,
        found.training.certificate.beta,
        arrangements=enumerate_arrangements(found.training.certificate.X),
    )
    assert every.n_directions == found.n_directions
    assert found.next_slack == pytest.approx(min(every.next_slack, 9e-7), abs=1e-10)


def test_a_short_neuron_leaves_the_set_decided():
    rng = np.random.default_rng(7029)
    X, W, a = rng.standard_normal((150, 3)), rng.standard_normal((5, 3)), rng.standard_normal(5)
    y = np.maximum(X @ W.T, 0) @ a + 0.1 * rng.standard_normal(150)
    found = find_optimal_set(X, y, 0.3 * zero_threshold(X, y))
    assert found.weights.min() < 2e-2 * found.weights.max()
    assert found.status is OptimalSetStatus.UNIQUE


@pytest.mark.long
@pytest.mark.parametrize("n", [50, 100, 200])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_generic_data_are_decided_long(n, d):
    found = [generic(seed, n, d).status for seed in range(6)]
    assert OptimalSetStatus.UNDECIDED not in found


def test_of_directions_that_cells_share_the_best_is_kept():
    directions = np.array([[1.0, 0.0], [1.0, 1e-9], [1.0, 0.0], [0.0, 1.0], [1.0, 1e-3]])
    signs = np.array([1.0, 1.0, -1.0, 1.0, 1.0])
    kept = distinct(directions, signs, np.array([1.0, 3.0, 2.0, 4.0, 5.0]), 1e-6)
    assert sorted(zip(kept[1], kept[2], strict=True)) == [(-1, 2), (1, 3), (1, 4), (1, 5)]
    assert np.array_equal(kept[0][kept[2] == 3.0], directions[1:2])


def test_distance_of_the_logistic_dual_point_is_within_twice_the_truth():
    # One row: the exact dual point is beta, and close to zero second derivatives are the largest.
    loss, y = Logistic(), np.ones(1)
    for excess in (1e-9, -1e-9):
        neurons = locate(np.ones((1, 1)), np.array([[1e-4]]), np.ones(1))
        v = -loss.gradient(neurons.fit, y)
        bound = newton_distance(neurons, v, loss, y, float(v[0]) - excess)
        assert 1e-9 <= bound <= 2.001e-9


def test_a_search_that_keeps_no_leaves_enumerates(monkeypatch):
    X, y = gaussian(12, 3, 0)
    beta = 0.2 * zero_threshold(X, y)
    leaves = find_optimal_set(X, y, beta)
    monkeypatch.setattr(
        "theorylab.convex_relu._active_directions.tight_leaves", lambda *args: (None, 0, 0)
    )
    cells = find_optimal_set(X, y, beta)
    assert cells.status is leaves.status
    assert cells.n_directions == leaves.n_directions > 1
    apart = np.linalg.norm(cells.directions[:, None] - leaves.directions, axis=2)
    assert apart.min(axis=1).max() <= 1e-9


def height(search, v):
    """The largest value of both signs on every cell."""
    return np.max([search(v, s, 0.0)[0] for s in (1, -1)], axis=0)


@pytest.mark.parametrize("d", [2, 3])
def test_cells_beside_a_maximiser_are_promising(d):
    # Its direction is 1.2e-3 from the edge of another cell, which reaches cos(1.2e-3) of the value.
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X, v = rng.normal(size=(8, d)), rng.normal(size=8)
        values, directions, _ = cell_maximisers(
            ConeSearch(X, enumerate_arrangements(X)), v, 1e-3 * np.linalg.norm(v)
        )
        u = directions[np.argmax(values)]
        edge = rng.normal(size=d)
        edge -= (edge @ u) * u
        X = np.vstack([X, edge / np.linalg.norm(edge) + 1.2e-3 * u])
        v = np.append(v, 0.0)
        cells = enumerate_arrangements(X)
        reached = height(ConeSearch(X, cells), v) > (1 - 9e-7) * values.max()
        found = {c.tobytes() for c in promising_cells(reduce_rows(X), X, v, float(values.max()))}
        assert 2 <= reached.sum() < len(cells)
        assert {c.tobytes() for c in cells[reached]} <= found


def test_few_cells_are_promising_where_terms_cancel():
    # Rows close to each other with opposite signs: what covers the sphere needs room for rounding.
    rng = np.random.default_rng(0)
    half, w = rng.normal(size=(12, 3)), 1e5 * rng.normal(size=12)
    X = np.vstack([half, half + 1e-5 * rng.normal(size=(12, 3))])
    v = np.append(w, -w)
    cells = enumerate_arrangements(X)
    beta = float(height(ConeSearch(X, cells), v).max())
    assert len(promising_cells(reduce_rows(X), X, v, beta)) < 0.2 * len(cells)


def test_maximisers_are_unit_vectors_of_both_signs_in_their_cells():
    X, v = gaussian(10, 3, 5)
    cells = enumerate_arrangements(X)
    samples = np.random.default_rng(0).normal(size=(50_000, 3))
    samples /= np.linalg.norm(samples, axis=1, keepdims=True)
    heights = np.maximum(samples @ X.T, 0) @ v
    beta = float(np.abs(heights).max())
    values, directions, signs = cell_maximisers(ConeSearch(X, cells), v, beta)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(signs * (np.maximum(directions @ X.T, 0) @ v), values, rtol=1e-9)
    assert values.min() > 0.5 * beta
    for s in (1, -1):
        best = float((s * heights).max())
        if best > 0.5 * beta:
            assert best <= values[signs == s].max() <= 1.02 * best


def test_a_dual_point_that_violates_its_constraint_decides_nothing():
    X, y = gaussian(12, 3, 0)
    optimal = find_optimal_set(X, y, 0.2 * zero_threshold(X, y))
    assert optimal.status is OptimalSetStatus.UNIQUE
    for factor, decided in ((0.5, True), (2.0, False)):
        off = replace(optimal, slack=optimal.slack - factor * optimal.accuracy)
        assert (off.status is OptimalSetStatus.UNIQUE) is decided


def test_cells_that_were_not_searched_leave_the_set_undecided(monkeypatch):
    X, y = gaussian(12, 3, 0)
    beta = 0.2 * zero_threshold(X, y)
    full = find_optimal_set(X, y, beta)
    monkeypatch.setattr(_active_directions, "_MAX_NODES", 10)
    entries = enumerate_arrangements(X).size
    for most in (10**6, entries):
        monkeypatch.setattr(_active_directions, "_MAX_ENTRIES", most)
        assert find_optimal_set(X, y, beta).status is full.status  # by all cells
    monkeypatch.setattr(_active_directions, "_MAX_ENTRIES", entries - 1)
    short = find_optimal_set(X, y, beta)
    assert short.training.status is TrainingStatus.CERTIFIED
    assert short.status is OptimalSetStatus.UNDECIDED
    # Those of the network itself are known.
    np.testing.assert_allclose(short.weights.sum(), full.weights.sum(), rtol=1e-8)
    np.testing.assert_allclose(short.atoms @ short.weights, full.fit, atol=1e-7)


def test_a_covering_of_many_rows_or_dimensions_has_as_many_nodes_as_half_a_minute(minute):
    X, y = gaussian(12, 3, 0)
    beta = 0.2 * zero_threshold(X, y)
    full = find_optimal_set(X, y, beta)
    costs = minute(_active_directions, 10, 2_000_000)  # too few: all cells take its place
    assert find_optimal_set(X, y, beta).status is full.status
    X, y = gaussian(60, 8, 0)
    assert find_optimal_set(X, y, 0.5 * zero_threshold(X, y)).status is OptimalSetStatus.UNDECIDED
    assert costs[1] > 3 * costs[0]


def test_no_covering_is_begun_with_more_orthants_than_nodes(monkeypatch):
    def begun(*args):
        raise AssertionError

    monkeypatch.setattr(_active_directions, "tight_leaves", begun)
    X, y = gaussian(30, 100, 0)
    found = find_optimal_set(X, y, 1.0)
    assert found.training.status is TrainingStatus.CERTIFIED
    assert found.status is OptimalSetStatus.UNDECIDED
    np.testing.assert_allclose(found.atoms @ found.weights, found.fit, atol=1e-7)
    assert "not searched" in found.status.value


def test_a_training_beyond_its_budget_leaves_the_set_undecided(monkeypatch):
    X, y = gaussian(60, 12, 0)  # of which 2 * 10^12 patterns are not enumerated
    monkeypatch.setattr(_rounds, "node_budget", lambda *given: 100)
    with pytest.warns(RuntimeWarning, match="nodes"):
        found = find_optimal_set(X, y, 0.5 * np.linalg.norm(X.T @ y))
    assert found.training.status is TrainingStatus.BUDGET
    assert found.status is OptimalSetStatus.UNDECIDED
    assert found.training.certificate.verify()


def test_no_derivative_of_a_training_that_ended_early(monkeypatch):
    X, y = gaussian(20, 4, 0)
    monkeypatch.setattr(_minimiser, "LEG", 1.0)
    monkeypatch.setattr(_minimiser, "WORK", 1e3)  # in the middle of a descent
    with (
        pytest.warns(RuntimeWarning, match="descents"),
        pytest.raises(ValueError, match=r"network: .* from training, which ended as WORK, one"),
    ):
        sensitivity(X, y, 0.05 * zero_threshold(X, y), d_beta=1.0)


def test_a_stopped_training_says_nothing_of_the_optimal_set():
    X, y = gaussian(12, 3, 0)
    with pytest.warns(RuntimeWarning, match="callback"):
        stopped = find_optimal_set(X, y, 0.2 * zero_threshold(X, y), callback=lambda r: True)
    assert stopped.status is OptimalSetStatus.STOPPED
    assert stopped.training.certificate.verify()
