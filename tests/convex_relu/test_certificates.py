"""The parts of a certificate one by one, against exact fractions: the network's values, the row
space, the dual norm, the dual point, and the proof of its constraint, each also told what is just
false."""

import dataclasses
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from flint import arb, ctx, fmpq
from scipy.optimize import minimize_scalar, nnls

from theorylab.convex_relu import (
    Interpolation,
    Network,
    Rejection,
    certify,
    dual_norm,
    enumerate_arrangements,
)
from theorylab.convex_relu._cones import ConeSearch
from theorylab.convex_relu._constraint import _leaf_holds, prove_cones, prove_sphere, tight_leaves
from theorylab.convex_relu._dual_norm import climb, norm_over_sphere, search_sphere
from theorylab.convex_relu._dual_point import (
    dual_error,
    exact_dual,
    project_skip,
    scale_dual,
)
from theorylab.convex_relu._network import (
    Output,
    as_network,
    balanced_network,
    output_balls,
    penalty_ball,
    value_error,
)
from theorylab.convex_relu._problem import as_patterns, as_problem, augment
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu._verification import with_digits
from theorylab.convex_relu.certificates import Certificate
from theorylab.convex_relu.losses import as_loss
from theorylab.numerics.balls import above, below, rational_matrix

EPS = np.finfo(float).eps


def fractions(values):
    """Any array as fractions in an object array, on which NumPy's operators are exact."""
    return np.vectorize(Fraction, otypes=[object])(np.asarray(values, dtype=float))


def random_network(rng, m=3, d=2, outputs=(2,)):
    return Network(
        rng.standard_normal((m, d)),
        rng.standard_normal((m, *outputs)),
        rng.standard_normal(m),
        rng.standard_normal((d, *outputs)),
        rng.standard_normal(outputs),
    )


def exact_outputs(network, X):
    hidden = fractions(X) @ fractions(network.weights).T + fractions(network.biases)
    hidden = np.where(hidden > 0, hidden, Fraction(0))
    linear = fractions(X) @ fractions(network.linear)
    return hidden @ fractions(network.output_weights) + linear + fractions(network.offset)


def exact_penalty(network):
    output = network.output_weights.reshape(network.n_neurons, -1)
    squares = (fractions(network.weights) ** 2).sum() + (fractions(network.biases) ** 2).sum()
    return (squares + (abs(fractions(output)).sum(axis=1) ** 2).sum()) / 2


# -------------------------------------------------------------------------- network and problem
@pytest.mark.parametrize("outputs", [(), (2,)])
def test_values_of_a_network_are_those_in_fractions(outputs):
    rng = np.random.default_rng(0)
    network, X = random_network(rng, outputs=outputs), rng.standard_normal((5, 2))
    y = rng.standard_normal((5, *outputs))
    exact, penalty = exact_outputs(network, X), exact_penalty(network)
    np.testing.assert_allclose(network(X), exact.astype(float), rtol=1e-13, atol=1e-14)
    assert network.penalty == pytest.approx(float(penalty), rel=1e-14)
    with ctx.workprec(160):
        balls, ball = output_balls(network, X), penalty_ball(network)
        columns = exact.reshape(5, -1)
        for i, k in product(range(5), range(columns.shape[1])):
            assert Fraction(below(balls[i, k])) < columns[i, k] < Fraction(above(balls[i, k]))
            assert above(balls[i, k]) - below(balls[i, k]) <= 1e-14
        assert Fraction(below(ball)) < penalty < Fraction(above(ball))
        assert above(ball) - below(ball) <= 1e-13
    loss = as_loss("squared")
    value = ((exact - fractions(y)) ** 2).sum() / 2 + Fraction(0.3) * penalty
    computed = loss.value(network(X), y) + 0.3 * network.penalty
    error = value_error(network, X, y, 0.3, loss)
    assert abs(Fraction(computed) - value) <= error <= 1e-11 * value


def test_the_error_of_a_value_counts_cancellation():
    # Two neurons that nearly cancel: the outputs have errors of their terms.
    big = 1e8
    network = Network([[1.0], [1.0 + 1e-8]], [big, -big])
    X, y = np.array([[1.0], [3.0]]), np.array([2.0, -1.0])
    value = ((exact_outputs(network, X) - fractions(y)) ** 2).sum() / 2
    computed = as_loss("squared").value(network(X), y)
    error = value_error(network, X, y, 1e-30, as_loss("squared"))
    assert abs(Fraction(computed) - value) <= error
    assert error >= EPS * big
    # Two biases that cancel.
    network = Network(np.zeros((2, 1)), [1.0, -1.0], [big, big])
    assert value_error(network, X, np.ones(2), 1e-30, as_loss("squared")) >= EPS * big
    # Without neurons the skip connection and the targets have errors, too.
    for linear, offset, target in (([big], 0.0, 1.0), ([0.0], big, 1.0), ([0.0], 0.0, big)):
        skip = Network(np.zeros((0, 1)), np.zeros(0), linear=linear, offset=offset)
        assert value_error(skip, X, np.full(2, target), 1.0, as_loss("squared")) >= EPS * big

    # So has the penalty, of a network without outputs.
    nothing = Network([[3.0]], [3.0])
    error = value_error(nothing, 0.0 * X, np.zeros(2), big, as_loss("squared"))
    assert EPS * 9.0 * big <= error <= 1e3 * EPS * 9.0 * big


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_balanced_networks_of_several_outputs_are_the_sums_of_their_parts(ndim, bias):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((6, 2))
    data = augment(X, bias)
    parts = [
        Output(rng.standard_normal((m, data.shape[1])), s, rng.standard_normal(data.shape[1]))
        for m, s in ((3, np.array([1.0, -1.0, 1.0])), (2, np.array([-1.0, 1.0])))
    ][:ndim]
    network = balanced_network(parts, bias, ndim)
    f = [np.maximum(data @ p.points.T, 0.0) @ p.sigma + data @ p.linear for p in parts]
    np.testing.assert_allclose(network(X).reshape(6, -1).T, f, atol=1e-13)
    lengths = np.concatenate([np.linalg.norm(p.points, axis=1) for p in parts])
    assert network.penalty == pytest.approx(lengths.sum(), rel=1e-14)
    first = np.hypot(np.linalg.norm(network.weights, axis=1), network.biases)
    second = np.abs(network.output_weights).reshape(len(first), -1).sum(axis=1)
    np.testing.assert_allclose(first, np.sqrt(lengths), rtol=1e-14)
    np.testing.assert_allclose(second, np.sqrt(lengths), rtol=1e-14)


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
def test_the_error_of_a_value_does_not_depend_on_the_sign(loss):
    # Outputs at the kink of the hinge: one side of it is flat.
    X, y = np.array([[1.0], [2.0], [1.0]]), np.array([1.0, -1.0, -1.0])
    for output in (1.0, -1.0):
        network = Network([[1.0]], [output])
        mirrored = dataclasses.replace(network, output_weights=-network.output_weights)
        error = value_error(network, X, y, 1e-9, as_loss(loss))
        assert error == value_error(mirrored, X, -y, 1e-9, as_loss(loss)) > EPS


def test_networks_and_problems_of_the_wrong_shape_are_refused():
    X, y = np.ones((3, 2)), np.array([1.0, -1.0, 2.0])
    network = Network(np.ones((1, 2)), np.ones(1))
    assert as_network((np.ones((1, 2)), np.ones(1)), X, y).n_neurons == 1
    for wrong in (
        Network(np.ones((1, 3)), np.ones(1)),
        Network(np.ones((1, 2)), np.ones((1, 2))),
        np.ones((1, 2)),
    ):
        with pytest.raises(ValueError, match="network: expected"):
            as_network(wrong, X, y)
    with pytest.raises(ValueError, match="network: expected"):
        as_network(network, X, y[:, None])
    with pytest.raises(ValueError, match="network: expected"):
        as_network(Network(np.ones((1, 2)), np.ones((1, 2))), X, np.ones((3, 3)))
    with pytest.raises(ValueError, match="output_weights: expected shape"):
        Network(np.ones((2, 2)), np.ones(1))
    with pytest.raises(ValueError, match=r"linear: expected shape \(2, 3\)"):
        Network(np.ones((1, 2)), np.ones((1, 3)), linear=np.ones(2))
    for bad in (y[:2], np.ones((3, 1, 1))):
        with pytest.raises(ValueError, match="y: expected shape"):
            as_problem(X, bad, 1.0, "squared")
    for size in (1e-141, 1e141):
        with pytest.raises(ValueError, match="X: expected a largest entry"):
            as_problem(size * X, y, 1.0, "squared")
        with pytest.raises(ValueError, match="y: expected a largest entry"):
            as_problem(X, size * y, 1.0, "squared")
    as_problem(0.0 * X, y * 1e139, 1.0, "squared")
    with pytest.raises(ValueError, match="beta"):
        as_problem(X, y, 0.0, "squared")
    with pytest.raises(ValueError, match="y: expected labels"):
        as_problem(X, y, 1.0, "hinge")


def test_patterns_and_the_column_of_ones():
    given = np.array([[1, 0, 1], [0, 0, 1]])
    found = as_patterns(given, 3)
    assert found.dtype == bool
    assert np.array_equal(found, [[True, False, True], [False, False, True]])
    assert as_patterns("all", 3) is None
    for wrong in ("some", 0.5 * given, given[:, :2]):
        with pytest.raises(ValueError, match="gates: expected"):
            as_patterns(wrong, 3, "gates")
    X = np.array([[2.0, 3.0], [4.0, 5.0]])
    assert np.array_equal(augment(X, True), [[2, 3, 1], [4, 5, 1]])
    assert augment(X, False) is X


# -------------------------------------------------------------------------- row space
def squared_length(vector):
    return (vector * vector).sum()


def check_reduction(X, rank, n_lines):
    """Every row is within its remainder of what stands for it, in fractions."""
    reduction = reduce_rows(X)
    assert reduction.data.shape == (len(X), rank)
    assert len(reduction.lines) == n_lines
    basis, lines = fractions(reduction.basis), fractions(reduction.lines)
    scale = np.linalg.norm(X, axis=1)
    for i in range(len(X)):
        for stands in (
            fractions(reduction.data[i]),
            Fraction(reduction.ratio[i]) * lines[reduction.index[i]],
        ):
            missing = squared_length(fractions(X[i]) - stands @ basis)
            assert missing <= Fraction(reduction.remainder[i]) ** 2
        assert reduction.remainder[i] <= 1e-12 * max(scale.max(), 1e-300)
    gram = (basis @ basis.T).astype(float)
    assert np.linalg.norm(gram, 2) <= (1.0 + reduction.excess) ** 2 + EPS
    return reduction


def check_norm_bounds(X, reduction, seed=0):
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(len(X))
    weights, linear = reduction.condense(v)
    for _ in range(20):
        s = rng.standard_normal(reduction.data.shape[1])
        s /= np.linalg.norm(s)
        full = v @ np.maximum(X @ (reduction.basis.T @ s), 0)
        reduced = weights @ np.maximum(reduction.lines @ s, 0) + linear @ s
        # What is checked here in float64 errs itself.
        rounding = 1e-14 * (np.abs(v) @ np.linalg.norm(X, axis=1))
        assert abs(full - reduced) <= reduction.loss(v) + rounding
    loss = reduction.loss(v)
    assert np.abs(v) @ reduction.remainder <= loss * (1 + 1e-15)
    assert reduction.enlarge(v, 1.0) >= 1.0 + reduction.excess + loss
    assert reduction.enlarge(v, 1.0) <= 1.0 + reduction.excess + loss + 4 * EPS
    assert reduction.enlarge(v, reduction.threshold(v, 2.0)) <= 2.0
    assert reduction.threshold(v, 2.0) >= 2.0 - 2 * (loss + 2 * reduction.excess) - 8 * EPS


def test_rows_of_full_rank_stay_as_they_are():
    X = np.random.default_rng(0).standard_normal((7, 3))
    reduction = check_reduction(X, 3, 7)
    assert reduction.data is X
    assert reduction.excess == 0.0
    assert reduction.loss(np.ones(7)) == 0.0
    check_norm_bounds(X, reduction)
    # Nearly dependent columns are independent, as long as rounding does not decide.
    check_reduction(X * [1.0, 1.0, 1e-9], 3, 7)
    mixed = np.column_stack([X[:, 0], X[:, 0] + 1e-9 * X[:, 1]])
    check_reduction(mixed, 2, 7)


def test_multiples_of_a_row_are_one_line():
    rng = np.random.default_rng(1)
    base = rng.standard_normal((3, 4))
    factors = rng.choice([-1.0, 1.0], 40) * 10.0 ** rng.uniform(-4, 4, 40)
    X = factors[:, None] * base[np.arange(40) % 3]
    X[5] = 0.0
    reduction = check_reduction(X, 3, 3)
    same = np.arange(40) % 3
    for i, j in product(range(40), repeat=2):
        if 5 not in (i, j):
            assert (reduction.index[i] == reduction.index[j]) == (same[i] == same[j])
    assert reduction.ratio[5] == 0.0
    check_norm_bounds(X, reduction)
    assert reduce_rows(np.zeros((3, 2))).data.shape == (3, 0)


@pytest.mark.parametrize(("n", "d", "rank"), [(12, 5, 2), (6, 9, 6), (9, 4, 1)])
def test_dependent_rows_are_decided_in_their_span(n, d, rank):
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d))
    reduction = check_reduction(X, rank, 1 if rank == 1 else n)
    assert reduction.remainder.min() > 0.0
    check_norm_bounds(X, reduction)


def test_what_the_rank_leaves_out_is_in_the_remainder():
    # A second singular value of 100 units of rounding, all of it in one short row.
    a = np.ones(40)
    a[7] = 1e-3
    X = np.column_stack([a, np.zeros(40)])
    X[7, 1] = 100 * EPS * np.linalg.norm(a)
    reduction = check_reduction(X, 1, 1)
    assert reduction.remainder[7] >= 0.99 * X[7, 1]
    # A row 100 units of rounding off the line of another; and two rows whose keys are equal.
    Y = np.array([[1.0, 0.0], [2.0, 200 * EPS], [0.3, 1.0]])
    reduction = check_reduction(Y, 2, 2)
    assert reduction.index[0] == reduction.index[1]
    assert reduction.remainder[:2].max() >= 99 * EPS
    key = np.random.default_rng(0).standard_normal(2)
    key /= np.linalg.norm(key)
    for angle in (1e-4, 0.3):
        across = angle * np.array([-key[1], key[0]])
        check_reduction(np.array([key + across, key - across]), 2, 2)


@pytest.mark.parametrize("rank", [3, 2])
def test_rows_that_repeat_add_up_without_rounding(rank):
    rng = np.random.default_rng(21)
    base = rng.standard_normal((3, rank)) @ rng.standard_normal((rank, 3))
    base[0] *= 1e3
    power = np.array([1.0, 1.0, 1.0, -4.0, 0.5, -1.0, 1.0, 1.0])
    kind = np.array([1, 0, 2, 1, 0, 1, 2, 0])
    X = power[:, None] * base[kind]
    X[:, 1] += 0.0 * (X[:, 1] == 0.0)
    reduction = reduce_rows(X)
    assert list(reduction.first) == [0, 1, 2]
    assert np.array_equal(reduction.twin, [0, 1, 2, 0, 1, 0, 2, 1])
    assert np.array_equal(reduction.power, power)
    exact = reduction.power[:, None] * reduction.data[reduction.first][reduction.twin]
    assert np.array_equal(reduction.data, exact)
    assert np.array_equal(
        reduction.data, reduction.ratio[:, None] * reduction.lines[reduction.index]
    )
    # On each line all cancels but 1e-9: what is left is known to as many digits as it has.
    v = np.array([0.3, 0.7, 0.11, -0.1, -1.4, 0.1, -0.11, 1e-9])
    point, linear = reduction.condense(v)
    weights, basis = fractions(v), fractions(reduction.basis)
    for s in fractions(rng.standard_normal((20, rank))):
        z = fractions(X) @ (s @ basis)
        full = (weights * np.where(z > 0, z, Fraction(0))).sum()
        z = fractions(reduction.lines) @ s
        reduced = (fractions(point) * np.where(z > 0, z, Fraction(0))).sum() + fractions(linear) @ s
        assert abs(full - reduced) <= Fraction(reduction.loss(v)) * Fraction(np.sqrt(float(s @ s)))
    # The rows of the other two kinds point one way: their remainders are of what is left.
    one_way = np.where(kind == 1, 0.0, v)
    size = np.abs(one_way) @ np.linalg.norm(X, axis=1)
    assert reduction.loss(one_way) <= 1e-6 * EPS * size
    assert abs(reduction.crude(one_way) / (1e-9 * np.linalg.norm(base[0])) - 1.0) <= 1e-6
    assert reduction.loss(np.where(kind == 1, v, 0.0)) <= 1e3 * EPS * np.abs(v) @ abs(X).sum(axis=1)
    # Zero, told from what is not.
    gone = np.where(np.arange(8) == 7, 0.0, v)
    assert reduction.cancels(np.where(kind == 1, 0.0, gone))
    assert not reduction.cancels(one_way)
    assert not reduction.cancels(np.where(kind == 1, v, 0.0))
    assert reduction.crude(v) >= dual_norm(X, v).attained


@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_sum_of_the_terms_bounds_the_norm(d):
    rng = np.random.default_rng(d)
    X = rng.integers(-2, 3, size=(9, d)) * 1.0
    for _ in range(5):
        v = rng.standard_normal(9)
        assert dual_norm(X, v).attained <= reduce_rows(X).crude(v)
    # Attained where all rows but one vanish.
    X = np.zeros((3, d))
    X[1] = 1.0
    v = np.array([2.0, -3.0, 1.0])
    assert reduce_rows(X).crude(v) == pytest.approx(dual_norm(X, v).attained, rel=1e-12)
    X, v = np.vstack([X, -X]), np.append(v, v)
    assert reduce_rows(X).crude(v) >= dual_norm(X, v).attained


# -------------------------------------------------------------------------- dual norm
def norm_by_projections(X, v, patterns, sign):
    """The largest projection onto the cones of the patterns; the residual of a non-negative
    least-squares problem is its length."""
    rows = [np.where(D, 1.0, -1.0)[:, None] * X for D in patterns]
    return max(nnls(R.T, -sign * X.T @ (D * v))[1] for R, D in zip(rows, patterns, strict=True))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("n", "d"), [(6, 2), (7, 3), (6, 6)])
def test_the_dual_norm_and_where_it_is_attained(n, d, sign):
    rng = np.random.default_rng(n + d)
    X = rng.standard_normal((n, d))
    v = sign * np.abs(rng.standard_normal(n)) * np.where(np.arange(n) < n - 2, 1.0, -0.3)
    patterns = enumerate_arrangements(X)
    both = {s: norm_by_projections(X, v, patterns, s) for s in (1, -1)}
    assert both[sign] > 1.01 * both[-sign]
    for found in (dual_norm(X, v), dual_norm(X, v, arrangements=patterns)):
        assert found.exact
        assert found.sign == sign
        assert found.attained <= found.value <= found.attained * (1 + 1e-9)
        assert found.value == pytest.approx(both[sign], rel=1e-9)
        assert np.linalg.norm(found.direction) == pytest.approx(1.0, rel=1e-12)
        value = v @ np.maximum(X @ found.direction, 0)
        assert value == pytest.approx(sign * found.attained, rel=1e-9)
    best, direction, side = climb(X, v)
    assert side == sign
    assert best <= both[sign] * (1 + 1e-12)
    assert sign * v @ np.maximum(X @ direction, 0) == pytest.approx(best, rel=1e-12)
    # Ascents from the best of the rows and axes end no lower than those are.
    starts = np.vstack([X / np.linalg.norm(X, axis=1)[:, None], np.eye(d)])
    assert best >= np.abs(v @ np.maximum(X @ np.vstack([starts, -starts]).T, 0)).max()
    # The ascents reach a stationary point: the gradient is along the direction.
    gradient = sign * v @ ((X @ direction > 0)[:, None] * X)
    assert np.linalg.norm(gradient) == pytest.approx(best, rel=1e-3)
    # A search finds what lies above, and proves what does not.
    reduction = reduce_rows(X)
    for side, share, some in ((sign, 0.999, True), (sign, 1.001, False), (-sign, 1.0, False)):
        threshold = share * both[sign]
        found, ended, nodes = search_sphere(reduction, v, side, threshold, 8, 10**6)
        assert (len(found) > 0) == some
        assert ended or some
        assert nodes > 0
        for u in found:
            assert side * v @ np.maximum(X @ u, 0) > threshold * (1 - 1e-12)


def test_the_direction_of_dependent_rows_is_one_of_the_data():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((8, 2)) @ rng.standard_normal((2, 5))
    v = rng.standard_normal(8)
    found = dual_norm(X, v)
    assert found.exact
    assert found.direction.shape == (5,)
    value = v @ np.maximum(X @ found.direction, 0)
    assert value == pytest.approx(found.sign * found.value, rel=1e-9)
    zero = dual_norm(X, np.zeros(8))
    assert zero.exact
    assert zero.attained == 0.0
    assert not zero.direction.any()


def test_a_norm_that_rounding_hides_is_decided_or_bounded():
    # Terms that cancel: the norm is 1e-7 of their sum, and errs by what they are rounded by.
    turned = np.array([[1.0, 0.0, 0.2], [1.0, 1e-7, 0.2], [0.3, 1.0, 0.0], [0.3, 1.0, 1e-7]])
    found = dual_norm(turned, [1.0, -1.0, 2.0, -2.0])
    assert found.exact
    assert 0.0 < found.value - found.attained <= 1e-3 * found.value
    # A row that the row space leaves out: its length is in the remainder.
    X = np.zeros((40, 2))
    X[:, 0] = 1.0
    X[7] = 0.0, 100 * EPS * np.sqrt(39)
    assert reduce_rows(X).data.shape == (40, 1)
    assert dual_norm(X, np.where(np.arange(40) == 7, 1.0, 1e-20)).value >= X[7, 1]


def test_a_loose_tolerance_is_part_of_the_bound():
    rng = np.random.default_rng(16)
    X, v = rng.standard_normal((10, 3)), rng.standard_normal(10)
    for tol in (1e-2, 1e-5):
        found = dual_norm(X, v, tol=tol)
        assert found.exact
        # What was proved is that nothing exceeds the largest value found by more than tol.
        assert found.value == pytest.approx(found.attained * (1 + tol), rel=1e-9)


@pytest.mark.parametrize("n", [8, 30])
def test_a_search_stays_within_its_nodes(n):
    # Rows that are nearly parallel: the cones give up, and branches take over.
    rng = np.random.default_rng(n)
    half = rng.integers(-2, 3, (n // 2, 3)) + 1.0 * (rng.random((n // 2, 3)) < 0.1)
    X = np.vstack([half, half]) + 1e-9 * rng.standard_normal((n, 3))
    v = rng.standard_normal(n)
    norm = dual_norm(X, v).attained
    for most in (1, 10, 100, 300, 1000, 3000):
        _, ended, nodes = search_sphere(reduce_rows(X), v, 1, norm * (1 + 1e-9), 1, most)
        assert nodes <= most + 1
        assert ended or nodes >= most


@pytest.mark.parametrize("bound", ["search", "looser", "root"])
def test_bounds_of_every_kind_hold(bound):
    # The relaxation is 1.45 times the norm here.
    rng = np.random.default_rng(2)
    X, v = rng.standard_normal((60, 3)), rng.standard_normal(60)
    norm = dual_norm(X, v).value
    found = norm_over_sphere(reduce_rows(X), v, 1e-10, None, bound=bound)
    assert found.exact == (bound == "search")
    assert found.value >= norm * (1 - 1e-9)
    # Bounded by the last looser step, and by the relaxation of the root.
    largest = {"search": 1 + 1e-9, "looser": 1.031, "root": 1.5}[bound]
    assert found.value <= largest * norm
    assert bound != "root" or found.value >= 1.4 * norm
    # No nodes: what is left is the relaxation.
    spent = norm_over_sphere(reduce_rows(X), v, 1e-10, 1, bound=bound)
    root = norm_over_sphere(reduce_rows(X), v, 1e-10, None, bound="root")
    assert not spent.exact
    assert spent.value == pytest.approx(root.value, rel=1e-4)
    assert spent.attained <= norm


def test_the_default_budget_decides_what_few_nodes_do_not():
    rng = np.random.default_rng(0)
    X, v = rng.standard_normal((60, 7)), rng.standard_normal(60)
    assert dual_norm(X, v).exact
    assert not dual_norm(X, v, max_nodes=3000).exact


def test_upper_bounds_of_projections_count_their_rounding():
    rng = np.random.default_rng(6)
    X, v = rng.standard_normal((9, 3)), 1e6 * rng.standard_normal(9)
    patterns = enumerate_arrangements(X)[:4]
    found = dual_norm(X, v, arrangements=patterns)
    size = np.abs(v) @ np.linalg.norm(X, axis=1)
    assert EPS * size <= found.value - found.attained <= 1e3 * EPS * size


# -------------------------------------------------------------------------- dual point
def test_the_best_multiple_of_a_dual_point():
    rng = np.random.default_rng(7)
    for loss, y in (("squared", rng.standard_normal(6)), ("logistic", np.ones(6))):
        loss_, v = as_loss(loss), np.abs(rng.standard_normal(6)) * np.sign(y) * 0.9 / 3
        for norm, beta in ((2.0, 0.5), (2.0, 4.0), (0.0, 1.0), (2.0, 1.999)):
            largest = beta / norm if norm else 1.0
            found = scale_dual(loss_, v, y, beta, norm)
            scale = float(found @ v / (v @ v))
            np.testing.assert_allclose(found, scale * v, atol=1e-14)
            assert 0.0 <= scale <= largest
            grid = [loss_.dual(s * v, y) for s in np.linspace(0, largest * (1 - 1e-12), 2001)]
            assert loss_.dual(found, y) >= max(grid) - 1e-9
    # Where the best is the point itself, it is that to the last digit.
    assert np.array_equal(scale_dual(as_loss("squared"), y, y, 4.0, 2.0), y)
    # Against the targets no multiple is better than zero.
    assert not scale_dual(as_loss("squared"), -np.ones(3), np.ones(3), 1.0, 2.0).any()


@pytest.mark.parametrize("name", ["squared", "logistic", "hinge", "interpolation"])
def test_the_best_multiple_does_not_depend_on_the_length_of_the_dual_point(name):
    rng, loss = np.random.default_rng(8), as_loss(name)
    for share in (1e-6, 0.1, 0.5, 0.9, 1.1, 1e3, 1e9):
        y = np.sign(rng.standard_normal(5)) if loss.bounded_dual else rng.standard_normal(5)
        v = y * rng.random(5) if loss.bounded_dual else y + 0.5 * rng.standard_normal(5)
        # Where the dual is largest on the whole ray, in closed form or by the domain's end.
        best = {"squared": v @ y / (v @ v), "interpolation": np.inf}.get(name, 1.0 / max(v * y))
        if name == "logistic":
            best = minimize_scalar(
                lambda s, v=v, y=y: -loss.dual(s * v, y), bounds=(0.0, best), method="bounded"
            ).x
        beta = share * (best if np.isfinite(best) else 1.0)
        expected = min(best, beta * (1.0 - 1e-12))
        for power in (-60, -20, 0, 20, 60):
            unit = 2.0**power
            found = scale_dual(loss, unit * v, y, beta, unit)
            np.testing.assert_allclose(found, expected * v, rtol=1e-5)
            value = loss.dual(expected * v, y)
            assert loss.dual(found, y) >= value - (1e-8 * abs(value) if share > 1.0 else 0.0)
    # Not even where the largest multiple is no float.
    tiny = np.array([5e-324, 0.0])
    assert loss.dual(scale_dual(loss, tiny, np.ones(2), 1.0, 5e-324), np.ones(2)) > 0.0


def test_multiples_of_dual_points_whose_terms_cancel_are_feasible_as_rounded():
    # Twins, of which only a small difference is left: rounding the multiple changes it.
    rng = np.random.default_rng(0)
    zero = Network(np.zeros((0, 1)), np.zeros(0))
    for _ in range(40):
        x, half, power = *rng.uniform(0.5, 1.0, 2), 2.0 ** rng.integers(0, 3)
        dual = np.array([half, (10.0 ** rng.uniform(-9, -6) - half) / power])
        beta = float(10.0 ** rng.uniform(-14, -10))
        found = certify([[x], [power * x]], dual, beta, zero, dual=dual)
        first, second = map(Fraction, found.dual)
        assert 0.9 * beta <= abs(first + Fraction(power) * second) * Fraction(x) <= beta
        assert found.verify().accepted
    # What cancels without rest needs no multiple.
    dual = np.array([half, -half])
    found = certify([[x], [x]], dual, 1e-20, zero, dual=dual)
    assert np.array_equal(found.dual, dual)
    assert found.verify().accepted


@pytest.mark.parametrize(
    ("X", "v", "norm"),
    [
        ([[1e140, 1e-200], [1e140, 5e-200]], [1.0, -1.0], 4e-200),
        ([[2.0**465], [2.0**-700]], [0.0, 1.0], 2.0**-700),
        ([[2.0**-700, 0.0], [2.0**465, 0.0]], [1.0, 0.0], 2.0**-700),
    ],
)
def test_rows_whose_quotients_are_no_floats_are_not_taken_for_multiples(X, v, norm):
    X, v, still = np.array(X), np.array(v), np.zeros(2)
    assert not prove_sphere(X, v, 1e-6 * norm, still, None)[0]
    assert reduce_rows(X).crude(v) >= norm * (1.0 - 1e-12)


def test_the_verified_gap_of_zero_targets_is_zero():
    X = np.random.default_rng(0).standard_normal((4, 2))
    zero = Network(np.zeros((0, 2)), np.zeros(0))
    found = certify(X, np.zeros(4), 0.1, zero).verify()
    assert found.accepted
    assert found.gap <= 1e-15


def exactly_orthogonal(point, data):
    values = [Fraction(int(q.p), int(q.q)) for q in point]
    return not any(np.array(values, dtype=object) @ fractions(data))


def test_a_dual_point_orthogonal_to_the_columns():
    rng = np.random.default_rng(8)
    # Quarters, so that the differences of the columns are exact.
    data, v = rng.integers(-9, 10, (9, 3)) / 4, rng.standard_normal(9)
    data = np.column_stack([data, data[:, 0] - data[:, 1], np.zeros(9)])
    squared = as_loss("squared")
    nearest = v - data @ np.linalg.lstsq(data, v, rcond=None)[0]
    point = project_skip(data, v, v, squared)
    np.testing.assert_allclose(point, nearest, atol=1e-12)
    exact, moved = exact_dual(data[:, :3], v, v, squared)
    assert exactly_orthogonal(exact, data[:, :3])
    shift = np.array(
        [
            abs(float(Fraction(int(q.p), int(q.q)) - Fraction(x)))
            for q, x in zip(exact, v, strict=True)
        ]
    )
    np.testing.assert_allclose(shift, np.abs(nearest - v), atol=1e-12)
    assert np.all(shift <= moved)
    assert np.all(moved <= shift * (1 + 1e-12) + 1e-300)
    # Columns that differ in the ninth digit: no larger than the rounding of the point.
    close = np.column_stack([data[:, 0], data[:, 0] + 1e-9 * rng.standard_normal(9)])
    point = project_skip(close, v, v, squared)
    assert np.all(np.abs(close.T @ point) <= 9 * EPS * np.abs(close.T) @ np.abs(point))
    span = np.column_stack([close[:, 0], (close[:, 1] - close[:, 0]) * 1e9])
    nearest = v - span @ np.linalg.lstsq(span, v, rcond=None)[0]
    np.testing.assert_allclose(point, nearest, atol=1e-6)
    # Dependent columns with dependent right-hand sides, and a point that is there already.
    twice = np.column_stack([data[:, 0], 2.0 * data[:, 0]])
    exact, _ = exact_dual(twice, v, v, squared)
    assert exactly_orthogonal(exact, twice)
    still, moved = exact_dual(twice, np.zeros(9), v, squared)
    assert not any(still)
    assert not moved.any()


def test_entries_at_the_ends_of_the_domain_stay_there():
    hinge = as_loss("hinge")
    y = np.array([1.0, 1.0, -1.0, 1.0, -1.0])
    v = np.array([1.0, 0.6, -0.3, 0.0, -1.0])
    assert list(hinge.interior(v, y)) == [False, True, True, False, False]
    data = np.array([[0.2], [0.7], [1.9], [5.0], [-1.0]])
    point = project_skip(data, v, y, hinge)
    assert list(point[[0, 3, 4]]) == [1.0, 0.0, -1.0]
    assert abs(data[:, 0] @ point) <= 1e-15
    # So do entries that miss an end by rounding.
    missed = v + 1e-12 * np.array([-1.0, 0.0, 0.0, 1.0, 1.0])
    assert list(project_skip(data, missed, y, hinge)[[0, 3, 4]]) == [1.0, 0.0, -1.0]
    # The free entries move as little as they can: along their part of the column.
    free = slice(1, 3)
    expected = v[free] - data[free, 0] * (data[:, 0] @ v) / (data[free, 0] @ data[free, 0])
    np.testing.assert_allclose(point[free], expected, atol=1e-14)
    _, moved = exact_dual(data, v, y, hinge)
    assert not moved[[0, 3, 4]].any()
    np.testing.assert_allclose(moved[free], np.abs(expected - v[free]), atol=1e-14)
    # All entries at an end: nothing can move, and zero is what is left.
    ends = np.array([1.0, 1.0, -1.0, 0.0, 0.0])
    assert exact_dual(data, ends, y, hinge)[0] is None
    assert not project_skip(data, ends, y, hinge).any()
    # Entries that can move, but not to where the second column is orthogonal, too.
    apart = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert exact_dual(apart, v, y, hinge)[0] is None
    # An entry that would have to leave the domain, to -1.
    ones = np.ones(2)
    assert not project_skip(ones[:, None], np.array([1.0, 0.5]), ones, hinge).any()
    rational = [fmpq(1), fmpq(1, 2), fmpq(-1), fmpq(0), fmpq(-1)]
    assert hinge.in_domain(rational, y)
    for k, value in ((0, fmpq(101, 100)), (2, fmpq(1, 100)), (3, fmpq(-1, 100))):
        wrong = [value if i == k else q for i, q in enumerate(rational)]
        assert not hinge.in_domain(wrong, y)
        assert as_loss("squared").in_domain(wrong, y)


def test_the_error_of_a_dual_value():
    rng = np.random.default_rng(9)
    for size in (1.0, 1e6):
        v, y = size * rng.standard_normal(50), rng.standard_normal(50)
        exact = (fractions(v) * (fractions(y) - fractions(v) / 2)).sum()
        error = dual_error(v, y, as_loss("squared"))
        terms = np.abs(v * y).sum() + (v**2).sum()
        assert abs(Fraction(as_loss("squared").dual(v, y)) - exact) <= error
        assert 4 * 50 * EPS * terms <= error <= 1e3 * 50 * EPS * terms
    labels = np.sign(y)
    for size in (1.0, 1e-3, 1e-9):
        v = size * labels * rng.random(50)
        for loss in map(as_loss, ("logistic", "hinge")):
            with ctx.workprec(200):
                exact = loss.dual_ball([arb(a) for a in v], [arb(b) for b in labels])
            error = dual_error(v, labels, loss)
            assert abs(float(exact - arb(loss.dual(v, labels)))) <= error
            # No wider than a multiple of what the terms add up to.
            assert 50 * EPS * float(exact) <= error <= 1e4 * EPS * float(exact)


# -------------------------------------------------------------------------- digits
@pytest.mark.parametrize("tol", [1e-8, 0.9])
@pytest.mark.parametrize("far", [1e4, 0.1])
@pytest.mark.parametrize("big", [1e6, 0.1])
def test_values_that_rounding_may_move_by_the_gap_are_replaced_by_exact_ones(big, far, tol):
    rng = np.random.default_rng(0)
    X, y, v = rng.standard_normal((4, 1)), rng.standard_normal((4, 2)), np.ones((4, 2))
    v *= far * rng.random((4, 2))
    # Two neurons that nearly cancel.
    network = Network([[1.0], [1.0 + 1e-8]], [[big, 1.0], [-big, 2.0]])
    value = ((exact_outputs(network, X) - fractions(y)) ** 2).sum() / 2
    value += Fraction(1e-20) * exact_penalty(network)
    bound = (fractions(v) * (fractions(y) - fractions(v) / 2)).sum()
    stated = 1.001 * float(value), 0.999 * float(bound)
    loss = as_loss("squared")
    given = Certificate(X, y, 1e-20, loss, False, False, None, network, v, *stated)
    result = with_digits(given, tol)
    # What float64 knows well enough stays as it is stated.
    moved = big > 1.0 and tol < 0.5, far > 1.0 and tol < 0.5
    expected = float(value) if moved[0] else stated[0], float(bound) if moved[1] else stated[1]
    assert (result.objective, result.dual_objective) == pytest.approx(expected, rel=1e-15)
    assert np.array_equal(result.dual, v)
    assert result.network is network


def test_zeros_take_the_place_of_the_output_whose_dual_point_has_no_value():
    y = np.array([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]])
    v = y * [[0.5, 0.25], [1.5, 0.75], [0.0, 1.0]]
    network, loss = Network([[1.0]], [[1.0, 0.5]]), as_loss("hinge")
    X, kept = np.array([[1.0], [2.0], [-1.0]]), v.copy()
    objective = loss.value(network(X), y) + 0.5 * network.penalty
    parts = X, y, 0.5, loss, False, False, None, network, v, objective, -np.inf
    result = with_digits(Certificate(*parts), 0.9)
    np.testing.assert_array_equal(result.dual, v * [0.0, 1.0])
    assert result.dual_objective == 2.0
    assert result.objective == objective
    assert np.array_equal(v, kept)


def test_beside_a_skip_connection_the_dual_value_is_that_of_the_orthogonal_point():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    v = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    network, loss = Network(np.zeros((0, 2)), np.zeros(0)), as_loss("squared")
    # A point beside it, whose own value differs by far more than rounding.
    parts = X, y, 1.0, loss, False, True, None, network, v + 1e-6 * X[:, 0], 0.5 * (y @ y)
    near = parts[8]
    result = with_digits(Certificate(*parts, loss.dual(near, y) - 1e-3), 0.9)
    assert result.dual_objective == pytest.approx(0.5 * (v @ v), rel=1e-9)


# -------------------------------------------------------------------------- proofs
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("n", "d"), [(8, 2), (8, 3), (9, 6)])
def test_the_constraint_is_proved_just_above_the_norm_and_not_below(n, d, sign):
    rng = np.random.default_rng(10 * n + d)
    X, v, still = rng.standard_normal((n, d)), sign * rng.standard_normal(n), np.zeros(n)
    patterns = enumerate_arrangements(X)
    norm = max(norm_by_projections(X, v, patterns, s) for s in (1, -1))
    proofs = (
        lambda beta, moved: prove_sphere(X, v, beta, moved, None),
        lambda beta, moved: prove_cones(X, v, beta, moved, patterns),
    )
    for prove in proofs:
        proved, _, exact = prove(norm * (1 + 1e-8), still)
        assert proved
        # The maximum is a nearly tight place.
        assert exact >= 1
        assert not prove(norm * (1 - 1e-8), still)[0]
        # An entry that moved takes its share of the threshold.
        moved = np.zeros(n)
        moved[1] = 1e-5 * norm / np.linalg.norm(X[1])
        assert prove(norm * (1 + 1.1e-5), moved)[0]
        assert not prove(norm * (1 + 0.9e-5), moved)[0]
        # Far above nothing is tight.
        assert prove(1.5 * norm, still)[0]
        assert prove(1.5 * norm, still)[2] == 0
        # Entries that moved by more than the threshold leave nothing to prove.
        for far in (1e-2, 1e6):
            assert not prove(1e-3 * norm, far * norm / np.linalg.norm(X, axis=1))[0]
    assert not prove_sphere(X, v, 1e-3 * norm, np.ones(n), None)[0]
    assert prove_sphere(X, np.zeros(n), 1e-3, still, None)[0]
    assert not prove_sphere(X, v, norm * (1 + 1e-8), still, 1)[0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_sum_of_the_terms_proves_what_the_move_leaves_of_it(sign):
    # On one line with one sign the sum of the terms is the norm.
    X, v, moved = np.array([[1.0], [2.0]]), sign * np.ones(2), np.array([0.0, 0.05])
    for change, least in ((0.0 * moved, 3.0), (moved, 3.1)):
        assert prove_sphere(X, v, least * (1 + 1e-12), change, None)[0]
        assert not prove_sphere(X, v, least * (1 - 1e-12), change, None)[0]


def test_a_projection_with_a_negative_multiplier_proves_nothing(monkeypatch):
    rng = np.random.default_rng(11)
    X, v = rng.standard_normal((6, 2)), rng.standard_normal(6)
    patterns = enumerate_arrangements(X)
    norm = max(norm_by_projections(X, v, patterns, s) for s in (1, -1))
    project = ConeSearch.__call__

    def negative(self, point, sign, threshold):
        values, nearest = project(self, point, sign, threshold)
        self.support[sign][:, 0] = 0
        self.multipliers[sign][:, 0] = -1e-300
        return values, nearest

    assert prove_cones(X, v, norm * (1 + 1e-8), np.zeros(6), patterns)[0]
    monkeypatch.setattr(ConeSearch, "__call__", negative)
    assert not prove_cones(X, v, norm * (1 + 1e-8), np.zeros(6), patterns)[0]


def test_a_dual_point_that_moves_far_proves_nothing():
    # On the one pattern v is orthogonal to the active rows; what it stands for, orthogonal to all
    # columns, is not, and claims more than the optimum.
    rng = np.random.default_rng(15)
    X, y = rng.standard_normal((8, 2)), rng.standard_normal(8)
    pattern = enumerate_arrangements(X)[[3]]
    honest = certify(X, y, 1e-3, (np.zeros((0, 2)), np.zeros(0)), skip=True, arrangements=pattern)
    assert honest.verify().accepted
    claimed = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    active = X * pattern[0][:, None]
    v = claimed - X @ np.linalg.solve(active.T @ X, active.T @ claimed)
    value = 0.5 * claimed @ claimed
    best = Network(np.zeros((0, 2)), np.zeros(0), linear=np.linalg.lstsq(X, y, rcond=None)[0])
    wrong = certify(X, y, 1e-3, best, skip=True, arrangements=pattern)
    wrong = dataclasses.replace(wrong, dual=v, dual_objective=value)
    assert np.abs(X.T @ v).max() > 0.1
    assert wrong.verify().reason is Rejection.CONSTRAINT


def test_leaves_of_a_covering_are_checked_in_fractions():
    rng = np.random.default_rng(12)
    X, v, linear = rng.standard_normal((9, 3)), rng.standard_normal(9), np.zeros(3)
    norm = norm_by_projections(X, v, enumerate_arrangements(X), 1)
    threshold = norm * (1 + 1e-9)
    leaves, nodes, refuted = tight_leaves(X, v, linear, threshold, 10**6)
    assert not refuted
    assert len(leaves[0]) >= 1
    assert nodes >= 8
    rows = rational_matrix(X)
    for rays, majorant, multipliers in zip(*leaves, strict=True):
        leaf = rays, majorant, multipliers
        assert _leaf_holds(rows, v, linear, threshold, *leaf)
        # The inequalities again, in fractions.
        slopes = fractions(np.where(v > 0, 0.0, np.clip(multipliers, 0.0, 1.0)))
        for ray in fractions(rays):
            z = fractions(X) @ ray
            hidden = np.where(v > 0, np.where(z > 0, z, Fraction(0)), slopes * z)
            assert fractions(v) @ hidden <= fractions(majorant) @ ray
        assert squared_length(fractions(majorant)) <= Fraction(threshold) ** 2
        # Just false: a lower threshold, a shorter majorant, another slope, another term.
        size = np.linalg.norm(majorant)
        assert not _leaf_holds(rows, v, linear, size * (1 - 1e-12), *leaf)
        assert not _leaf_holds(rows, v, linear, threshold, rays, majorant * (1 - 1e-6), multipliers)
        assert not _leaf_holds(rows, v, linear, threshold, rays, majorant, multipliers + 1.5)
        assert not _leaf_holds(rows, v * (1 + 1e-6 * (v > 0)), linear, threshold, *leaf)
        push = 1e-5 * rays.sum(axis=0)
        assert not _leaf_holds(rows, v, push, threshold, *leaf)
    assert tight_leaves(X, v, linear, norm * (1 - 1e-6), 10**6)[::2] == (None, True)
    assert tight_leaves(X, v, linear, threshold, 3)[::2] == (None, False)
    # A slope above one takes more from the linear term than the row does.
    row, cone, three = rational_matrix(np.ones((1, 2))), np.eye(2), np.array([3.0, 3.0])
    true, false = (np.array([2.0, 2.0]), np.ones(1)), (np.zeros(2), np.array([5.0]))
    assert _leaf_holds(row, -np.ones(1), three, 2.83, cone, *true)
    assert not _leaf_holds(row, -np.ones(1), three, 2.83, cone, *false)
    assert not _leaf_holds(row, -np.ones(1), three, 2.2, cone, np.full(2, 1.5), np.full(1, 1.5))


def test_every_tight_leaf_is_there_however_many_they_are():
    # An odd number of rows all around, of one weight: 302 cells, and the same maximum on each.
    angles = 2 * np.pi * np.arange(151) / 151
    X, v = np.column_stack([np.cos(angles), np.sin(angles)]), np.ones(151)
    norm = max(v @ np.maximum(X @ x, 0.0) for x in X)
    leaves, _, refuted = tight_leaves(X, v, np.zeros(2), norm * (1 + 1e-9), 10**6)
    assert not refuted
    assert len(leaves[0]) >= 302
    # They go all around.
    units = leaves[0] / np.linalg.norm(leaves[0], axis=2, keepdims=True)
    wide = np.arccos(np.clip(np.sum(units[:, 0] * units[:, 1], axis=1), -1.0, 1.0))
    assert wide.sum() == pytest.approx(2 * np.pi, rel=1e-6)


def test_a_leaf_that_does_not_hold_is_a_rejection(monkeypatch):
    rng = np.random.default_rng(17)
    X, v, still = rng.standard_normal((9, 3)), rng.standard_normal(9), np.zeros(9)
    beta = dual_norm(X, v).value * (1 + 1e-8)
    assert prove_sphere(X, v, beta, still, None)[0]

    def spoiled(*problem):
        (rays, majorants, multipliers), nodes, refuted = tight_leaves(*problem)
        return (rays, 1.1 * majorants, multipliers), nodes, refuted

    with monkeypatch.context() as patch:
        patch.setattr("theorylab.convex_relu._constraint.tight_leaves", spoiled)
        assert not prove_sphere(X, v, beta, still, None)[0]
    # The same for what the other search proves.
    wide, point = rng.standard_normal((9, 6)), rng.standard_normal(9)
    above_norm = dual_norm(wide, point).value * (1 + 1e-8)
    assert prove_sphere(wide, point, above_norm, still, None)[0]
    with monkeypatch.context() as patch:
        patch.setattr("theorylab.convex_relu._constraint.leaf_holds", lambda *leaf: False)
        assert not prove_sphere(wide, point, above_norm, still, None)[0]
    # Ascents that find nothing are no proof that there is nothing.
    monkeypatch.setattr("theorylab.convex_relu._constraint.climb", lambda *problem: (0.0,))
    assert not prove_sphere(X, v, 0.999 * dual_norm(X, v).value, still, None)[0]
    assert prove_sphere(X, v, beta, still, None)[0]


# -------------------------------------------------------------------------- verification
def test_several_outputs_with_every_option_are_verified_and_bounded():
    rng = np.random.default_rng(13)
    X, y = rng.standard_normal((8, 2)), rng.standard_normal((8, 2))
    network = Network(
        0.1 * rng.standard_normal((2, 2)),
        0.1 * rng.standard_normal((2, 2)),
        0.1 * rng.standard_normal(2),
        0.1 * rng.standard_normal((2, 2)),
        0.1 * rng.standard_normal(2),
    )
    c = certify(X, y, 0.3, network, bias=True, skip=True)
    value = 0.5 * np.sum((network(X) - y) ** 2) + 0.3 * network.penalty
    assert c.objective == pytest.approx(value, rel=1e-13)
    data = np.column_stack([X, np.ones(8)])
    np.testing.assert_allclose(data.T @ c.dual, 0.0, atol=1e-14)
    for v in c.dual.T:
        assert dual_norm(data, v).value <= 0.3 * (1 + 1e-10)
    bound = np.sum(c.dual * y) - 0.5 * np.sum(c.dual**2)
    assert c.dual_objective == pytest.approx(bound, rel=1e-12)
    outcome = c.verify()
    assert outcome.accepted
    assert outcome.reason is Rejection.NONE
    assert c.objective <= outcome.objective <= c.objective * (1 + 1e-12)
    assert c.dual_objective * (1 - 1e-12) <= outcome.dual_objective <= c.dual_objective
    assert outcome.gap == pytest.approx((value - bound) / value, rel=1e-9)
    assert outcome.gap == pytest.approx(c.gap, rel=1e-9)
    # Each column counts: of the dual point, and of what is claimed without its option.
    second = c.dual * np.array([1.0, 1.01])
    lifted = np.sum(second * y) - 0.5 * np.sum(second**2)
    moved = dataclasses.replace(c, dual=second, dual_objective=lifted)
    outside = any(dual_norm(data, v).value > 0.3 for v in second.T)
    assert (moved.verify().reason is Rejection.CONSTRAINT) == outside
    for option in ("bias", "skip"):
        wrong = dataclasses.replace(c, **{option: False})
        assert wrong.verify().reason is Rejection.OBJECTIVE
    for change in ({"objective": np.nan}, {"objective": c.objective * (1 + 1e-12)}):
        assert dataclasses.replace(c, **change).verify().reason is Rejection.OBJECTIVE
    for change in ({"dual_objective": np.nan}, {"dual_objective": c.dual_objective - 1e-11}):
        assert dataclasses.replace(c, **change).verify().reason is Rejection.DUAL_OBJECTIVE


def test_every_output_has_a_dual_point_of_its_own():
    rng = np.random.default_rng(18)
    X, y, start = rng.standard_normal((8, 2)), *rng.standard_normal((2, 8, 2))
    networks = [Network(np.zeros((0, 2)), np.zeros((0, *outputs))) for outputs in ((2,), ())]
    start = y + 0.3 * start
    for skip in (False, True):
        both = certify(X, y, 0.3, networks[0], skip=skip, dual=start)
        for k in range(2):
            one = certify(X, y[:, k], 0.3, networks[1], skip=skip, dual=start[:, k])
            np.testing.assert_allclose(both.dual[:, k], one.dual, rtol=1e-9, atol=1e-12)


def test_a_gap_is_relative_to_what_is_left_and_forgives_its_rounding():
    rng = np.random.default_rng(19)
    X = rng.standard_normal((8, 2))
    network = random_network(rng, outputs=())
    c = certify(X, network(X), 1e-9, network, bias=True, skip=True)
    assert c.objective <= 1e-8
    assert c.gap == pytest.approx((c.objective - c.dual_objective) / c.objective, rel=1e-9)
    # Two neurons that cancel: values beyond 1e-12 of the objective are rounding.
    big = 1e4
    cancelling = Network([[1.0, 0.0], [1.0 + 1e-9, 0.0]], [big, -big])
    c = certify(X, rng.standard_normal(8), 1e-12, cancelling)
    error = value_error(c.network, c.X, c.y, c.beta, c.loss) + dual_error(c.dual, c.y, c.loss)
    assert error > 1e-10 * c.objective
    assert dataclasses.replace(c, dual_objective=c.objective + 0.9 * error).gap == 0.0
    with pytest.raises(ArithmeticError, match="exceeds the upper bound"):
        _ = dataclasses.replace(c, dual_objective=c.objective + 1.1 * error).gap


def test_values_that_are_rounding_of_zero_have_no_gap():
    # The targets of a network, found again: both values are rounding of zero.
    X = np.random.default_rng(20).standard_normal((8, 2))
    network = Network([[1.0, 0.5]], [2.0])
    y = network(X)
    c = certify(X, y, 1e-30, network, dual=np.zeros(8))
    outcome = c.verify()
    assert outcome.accepted
    assert 0.0 < outcome.objective <= 1e-15 * y @ y
    assert outcome.dual_objective <= 0.0
    assert outcome.gap == pytest.approx(outcome.objective / (0.5 * EPS * y @ y), rel=1e-9)
    assert outcome.gap == pytest.approx(c.gap, rel=1e-6)
    assert outcome.gap < 1e-6
    # Of what is more than rounding the gap is as before, and so where zero has no value.
    for loss, beta in (("squared", 1e-9), (Interpolation(), 1e-30)):
        c = certify(X, y, beta, network, dual=np.zeros(8), loss=loss)
        assert c.verify().accepted
        assert c.verify().gap == c.gap == 1.0


def test_neurons_on_a_face_lie_in_the_cones_of_both_sides():
    X, y = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([1.0, 2.0, 1.0])
    cases = [
        ([2.0, 0.0], [1, 1, 1], True),
        ([2.0, 0.0], [1, 0, 1], True),
        ([2.0, 1e-9], [1, 0, 1], False),
        ([2.0, -1e-9], [1, 1, 1], False),
        ([2.0, -1e-9], [1, 0, 1], True),
        ([-1.0, 2.0], [1, 1, 1], False),
    ]
    for neuron, pattern, inside in cases:
        c = certify(X, y, 0.1, ([neuron], [0.3]), arrangements=[pattern])
        assert c.verify().accepted == inside
        assert (c.verify().reason is Rejection.PATTERNS) != inside
    # The bias is one of the weights.
    network = Network([[1.0, 0.0]], [0.3], biases=[-0.5])
    active = [[1, 0, 1]]
    assert certify(X, y, 0.1, network, bias=True, arrangements=active).verify().accepted
    inactive = dataclasses.replace(network, biases=[-1.5])
    assert not certify(X, y, 0.1, inactive, bias=True, arrangements=active).verify().accepted


def test_a_certificate_of_some_patterns_becomes_one_of_all():
    rng = np.random.default_rng(14)
    X, y = rng.standard_normal((9, 2)), rng.standard_normal(9)
    patterns = enumerate_arrangements(X)[:2]
    network = Network(np.zeros((0, 2)), np.zeros(0))
    c = certify(X, y, 0.2, network, arrangements=patterns)
    everywhere = c.unrestricted()
    assert everywhere.patterns is None
    assert everywhere.objective == c.objective == pytest.approx(0.5 * y @ y)
    assert everywhere.dual_objective < c.dual_objective
    assert dual_norm(X, everywhere.dual).value <= 0.2 * (1 + 1e-10)
    assert everywhere.verify().accepted
    # With one node the constraint is decided by the relaxation, whose bound is lower.
    assert c.unrestricted(max_nodes=1).dual_objective < everywhere.dual_objective
    with pytest.raises(ValueError, match="max_nodes"):
        c.unrestricted(max_nodes=0)


def test_a_network_with_what_its_problem_lacks_is_refused():
    X, y = np.eye(2), np.ones(2)
    biased = Network(np.ones((1, 2)), np.ones(1), biases=[1.0])
    skipping = Network(np.ones((1, 2)), np.ones(1), linear=[1.0, 0.0])
    shifted = Network(np.ones((1, 2)), np.ones(1), offset=1.0)
    with pytest.raises(ValueError, match="network: expected no biases"):
        certify(X, y, 0.1, biased, skip=True)
    for network in (skipping, shifted):
        with pytest.raises(ValueError, match="network: expected no skip connection"):
            certify(X, y, 0.1, network, bias=True)
        certify(X, y, 0.1, network, skip=True)
    certify(X, y, 0.1, biased, bias=True)
