import warnings
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.optimize import brentq, nnls
from scipy.stats import binom
from sklearn.linear_model import lars_path

from theorylab.convex_relu import (
    OutputLayerStatus,
    displaced_neurons_bound,
    enumerate_arrangements,
    improvement_probability,
    improvement_tail_bound,
    improving_patterns,
    random_first_layer_bound,
    random_first_layers,
    sufficient_samples,
    train,
    train_output_layer,
)


def data(seed, n=6, d=2):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n)


@pytest.mark.parametrize(("n", "count"), [(5, 3), (8, 40), (20, 300)])
def test_output_layer_is_the_lasso_solution(n, count):
    for seed in range(4):
        X, y = data(seed, n, 3)
        U = np.random.default_rng(seed + 50).normal(size=(count, 3))
        beta = 0.2
        found = train_output_layer(X, y, beta, U)
        features = np.maximum(X @ (U / np.linalg.norm(U, axis=1, keepdims=True)).T, 0)
        _, _, path = lars_path(features, y, method="lasso", alpha_min=beta / n)
        value = 0.5 * np.sum((y - features @ path[:, -1]) ** 2) + beta * np.abs(path[:, -1]).sum()
        assert found.objective == pytest.approx(value, rel=1e-9)
        assert found.gap < 1e-10
        assert found.gap == max(0.0, 1 - found.dual_objective / found.objective)
        assert np.abs(features.T @ found.dual).max() <= beta * (1 + 1e-15)
        np.testing.assert_allclose(found.network(X), features @ found.coefficients, atol=1e-12)
        assert 0.5 * np.sum(
            (found.network(X) - y) ** 2
        ) + beta * found.network.penalty == pytest.approx(found.objective)


def test_a_direction_between_two_takes_their_place():
    # Both axes enter before the direction between them, whose features depend on theirs.
    U, y = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), np.array([1.0, 0.2])
    found = train_output_layer(np.eye(2), y, 0.05, U)
    assert found.gap <= 1e-14
    # The first axis and the direction between: their slopes are 0.05, the second axis has less.
    residual = np.array([0.05, 0.025])
    np.testing.assert_allclose(y - found.network(np.eye(2)), residual, atol=1e-15)
    np.testing.assert_allclose(found.dual, residual, atol=1e-15)
    assert found.coefficients[1] == 0.0
    assert (found.coefficients[[0, 2]] > 0).all()
    # More often, and with dependence up to rounding only.
    rng = np.random.default_rng(3)
    for _ in range(20):
        X, U = rng.random((2, 2)) + np.eye(2), rng.random((30, 2))
        assert train_output_layer(X, rng.random(2), 1e-3, U).gap <= 1e-10


def test_neighbours_in_a_fine_fan_of_directions_share_a_neuron():
    # Columns 3 mrad apart are independent; an optimal neuron lies between two of them.
    angles = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    fan, shared = np.column_stack([np.cos(angles), np.sin(angles)]), 0
    for seed in range(40):
        X, y = data(seed, 5 + seed % 4, 2)
        beta = 10.0 ** -(1 + seed % 4)
        found = train_output_layer(X, y, beta, fan)
        assert found.gap <= 1e-8
        # In small units neither the gap nor the neurons are other ones.
        small = train_output_layer(X, 2.0**-20 * y, 2.0**-20 * beta, fan)
        np.testing.assert_array_equal(small.coefficients, 2.0**-20 * found.coefficients)
        shared += (np.diff(np.flatnonzero(found.coefficients)) == 1).any()
    assert shared > 10


def test_many_exchanges_leave_no_errors_behind():
    rng = np.random.default_rng(5)
    X, y, U = rng.normal(size=(60, 6)), rng.normal(size=60), rng.normal(size=(400, 6))
    steps = []
    found = train_output_layer(X, y, 1e-4, U, callback=steps.append)
    assert len(steps) > 2 * np.count_nonzero(found.coefficients)
    assert found.status is OutputLayerStatus.SOLVED
    assert found.gap <= 1e-9
    features = np.maximum(X @ found.directions.T, 0.0)
    active = np.flatnonzero(found.coefficients)
    # The conditions of optimality on the support, solved afresh.
    signs = np.sign(found.coefficients[active])
    normal, columns = features[:, active].T @ features[:, active], features[:, active]
    afresh = np.linalg.solve(normal, columns.T @ y - 1e-4 * signs)
    np.testing.assert_allclose(found.coefficients[active], afresh, rtol=1e-5)


def test_what_rounding_leaves_unsolved_is_not_called_solved():
    rng, ends = np.random.default_rng(0), []
    for _ in range(40):
        X, y = rng.normal(size=(20, 4)), rng.normal(size=20)
        U = np.repeat(rng.normal(size=(40, 4)), 4, axis=0)
        U += 1e-7 * rng.normal(size=U.shape)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = train_output_layer(X, y, 10.0 ** rng.uniform(-9, -6), U)
        ends.append(found.status)
        assert (found.gap <= 1e-6) == (found.status is OutputLayerStatus.SOLVED)
        assert len(said) == (found.status is OutputLayerStatus.ROUNDING)
        # They point at the call.
        assert all(warning.filename == __file__ for warning in said)
    assert set(ends) == {OutputLayerStatus.SOLVED, OutputLayerStatus.ROUNDING}


def test_a_lasso_without_steps_left_says_so(monkeypatch):
    X, y = data(1, 30, 4)
    U, steps = np.random.default_rng(2).normal(size=(80, 4)), []
    full = train_output_layer(X, y, 0.1, U, callback=steps.append)
    for work, fewest, most in ((1.0, 1, 1), (1.2e4, 2, 7), (1e8, len(steps), len(steps))):
        monkeypatch.setattr(random_first_layers, "MINUTE", work)
        taken = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train_output_layer(X, y, 0.1, U, callback=taken.append)
        assert fewest <= len(taken) <= most
        for one, other in zip(taken, steps, strict=False):
            assert one.objective == other.objective
    monkeypatch.setattr(random_first_layers, "MINUTE", 8e3)
    with pytest.warns(RuntimeWarning, match="largest number of steps"):
        short = train_output_layer(X, y, 0.1, U)
    assert short.status is OutputLayerStatus.STEPS
    assert 0 < np.count_nonzero(short.coefficients) <= 5
    assert short.dual_objective <= full.objective < short.objective
    assert short.gap > 1e-3


def test_one_row_is_shrunk():
    for target, beta in ((2.0, 0.5), (-2.0, 0.5), (0.1, 0.5)):
        found = train_output_layer([[3.0, 4.0]], [target], beta, [[1.0, 0.0], [6.0, 8.0]])
        # The best feature is |x| = 5.
        left = np.copysign(min(abs(target), beta / 5.0), target)
        np.testing.assert_allclose(target - found.network([[3.0, 4.0]]), left, rtol=1e-14)
        assert found.status is OutputLayerStatus.SOLVED
        assert found.objective == pytest.approx(
            0.5 * left**2 + beta * abs(target - left) / 5.0, rel=1e-14
        )


def test_directions_that_are_the_same_do_not_take_turns():
    for seed in range(80):
        rng = np.random.default_rng(seed)
        X, y, U = rng.normal(size=(20, 3)), rng.normal(size=20), rng.normal(size=(8, 3))
        once = train_output_layer(X, y, 1e-4, U)
        thrice = train_output_layer(
            X, y, 1e-4, rng.uniform(1, 2, size=(24, 1)) * np.vstack(3 * [U])
        )
        assert thrice.status is OutputLayerStatus.SOLVED
        assert thrice.gap <= 1e-9
        assert thrice.objective == pytest.approx(once.objective, rel=1e-12)


@pytest.mark.filterwarnings("ignore:relative gap")
def test_penalties_that_rounding_swallows_end_without_an_error():
    ends = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(18, 4)), rng.normal(size=18)
        U = rng.normal(size=(12, 4))[rng.integers(12, size=60)]
        U += 10.0 ** rng.uniform(-14, -2) * rng.normal(size=U.shape)
        found = train_output_layer(X, y, 10.0 ** rng.uniform(-16, -8), U)
        value = 0.5 * np.sum((found.network(X) - y) ** 2) + found.beta * found.network.penalty
        assert value == pytest.approx(found.objective, rel=1e-5)
        assert found.objective <= 0.5 * y @ y
        assert (found.gap <= 1e-6) == (found.status is OutputLayerStatus.SOLVED)
        ends.append(found.status)
    assert OutputLayerStatus.ROUNDING in ends


def test_a_callback_is_told_the_value_and_the_violation_before_each_direction():
    X, y = data(2, 25, 3)
    U = np.random.default_rng(3).normal(size=(60, 3))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    features, beta, told = np.maximum(X @ U.T, 0), 0.3, []
    train_output_layer(X, y, beta, U, callback=told.append)
    assert told[0].objective == pytest.approx(0.5 * y @ y)
    assert told[0].error == pytest.approx(np.abs(features.T @ y).max() / beta - 1)
    assert (np.diff([record.objective for record in told]) < 0).all()
    for k, record in enumerate(told):
        answers = iter([None] * k + [True])
        found = train_output_layer(X, y, beta, U, callback=lambda _, a=answers: next(a))
        assert found.status is OutputLayerStatus.STOPPED
        assert found.objective == pytest.approx(record.objective, rel=1e-12)
        slopes = np.abs(features.T @ (y - features @ found.coefficients))
        assert record.error == pytest.approx(slopes.max() / beta - 1, rel=1e-9)
    # Who stops where the gap is small has stopped, too.
    least = np.abs(features.T @ y).max() * (1 - 1e-9)
    found = train_output_layer(X, y, least, U, callback=lambda _: True)
    assert found.status is OutputLayerStatus.STOPPED
    assert found.gap <= 1e-6


@pytest.mark.filterwarnings("ignore:relative gap")
def test_a_slope_of_rounding_is_not_followed_for_ever():
    # Targets orthogonal to the only feature, but for rounding far above the penalty.
    ends = []
    for a, b in product(range(1, 8), repeat=2):
        steps = []
        found = train_output_layer(
            [[a / 10], [b / 10], [0.7]], [b, -a, 0.0], 1e-25, [[1.0]], callback=steps.append
        )
        assert len(steps) <= 2
        assert found.objective == pytest.approx(0.5 * (a**2 + b**2))
        ends.append(found.status)
    assert set(ends) == {OutputLayerStatus.SOLVED, OutputLayerStatus.ROUNDING}


def test_a_direction_enters_just_below_its_threshold():
    X, y = data(0, 6, 3)
    U = np.random.default_rng(1).normal(size=(20, 3))
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    threshold = np.abs(np.maximum(X @ U.T, 0).T @ y).max()
    for share, active in ((1 - 1e-7, 1), (1 + 1e-7, 0), (3.0, 0)):
        found = train_output_layer(X, y, share * threshold, U)
        assert np.count_nonzero(found.coefficients) == active
        assert found.gap <= 1e-12


def test_certificate_of_the_output_layer_bounds_the_true_suboptimality():
    X, y = data(4, 8, 2)
    best = train(X, y, 0.3)
    rng = np.random.default_rng(0)
    U = rng.normal(size=(400, 2))
    values = []
    for count in (5, 40, 400):
        found = train_output_layer(X, y, 0.3, U[:count])
        assert found.certificate.verify()
        assert (
            0
            <= found.objective - best.objective * (1 - 1e-9)
            <= found.objective - found.certificate.dual_objective
        )
        lacking = found.objective - found.certificate.dual_objective
        assert found.global_gap == pytest.approx(lacking / found.objective, rel=1e-6)
        assert found.global_gap >= 1 - best.objective / found.objective - 1e-9
        values.append(found.objective)
    assert values == sorted(values, reverse=True)
    with_optimum = train_output_layer(X, y, 0.3, np.vstack([U, best.network.weights]))
    assert with_optimum.objective == pytest.approx(best.objective, rel=1e-9)


def test_many_directions_on_few_rows_meet_the_optimality_conditions():
    # As many neurons as rows: each further one enters by an exchange at constant outputs.
    full = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(2 + seed % 3, 3)), rng.normal(size=2 + seed % 3)
        U = rng.normal(size=(40, 3))
        beta = 10.0 ** -(1 + seed % 4)
        told = []
        found = train_output_layer(X, y, beta, U, callback=told.append).network
        assert (np.diff([record.objective for record in told]) < 0).all()
        hidden = np.maximum(X @ (U / np.linalg.norm(U, axis=1, keepdims=True)).T, 0.0)
        residual = y - found(X)
        assert np.abs(residual @ hidden).max() <= beta * (1 + 1e-8)
        outputs = np.maximum(X @ found.weights.T, 0.0) * found.output_weights
        lengths = np.linalg.norm(found.weights, axis=1) * np.abs(found.output_weights)
        np.testing.assert_allclose(residual @ outputs, beta * lengths, rtol=1e-8)
        full += found.n_neurons == len(y)
    assert full >= 10


def test_improvement_probability_is_what_a_fine_grid_of_directions_says():
    angles = (np.arange(40_000) + 0.5) * 2 * np.pi / 40_000
    U = np.column_stack([np.cos(angles), np.sin(angles)])
    for seed, share in product(range(5), (0.4, 0.95)):
        X, v = data(seed, 7, 2)
        hidden = np.maximum(X @ U.T, 0)
        beta = share * np.abs(v @ hidden).max()
        violated = np.abs(v @ hidden) > beta
        # Each of at most 4n + 4 ends of an arc is off by at most one grid point.
        assert improvement_probability(X, v, beta) == pytest.approx(
            violated.mean(), abs=40 / 40_000
        )
        cell = 2.0 ** np.arange(7) @ (X @ U.T > 0)
        by_cell = np.isin(cell, np.unique(cell[violated])).mean()
        assert improvement_probability(X, v, beta, law="patterns") == pytest.approx(
            by_cell, abs=40 / 40_000
        )
    assert improvement_probability(X, np.zeros(7), beta) == 0


def test_an_excess_of_rounding_improves_nothing():
    # At a kink: cos t turns into cos t - cos(t - pi/4) at -pi/4, and that into -cos(t - pi/4) at
    # pi/2; their cells, three of five, cover 225 degrees.
    kink, both = np.array([[1.0, 0.0], [1.0, 1.0] / np.sqrt(2.0)]), np.array([1.0, -1.0])
    for X, v, top, share in ((np.eye(2)[:1], np.ones(1), 1.0, 0.5), (kink, both, 0.5**0.5, 0.625)):
        for excess in (-5e-10, 5e-10):
            beta = top / (1.0 + excess)
            assert improvement_probability(X, v, beta) < 2e-9
            assert improvement_probability(X, v, beta, law="patterns") == 0.0
        found = improvement_probability(X, v, top / (1.0 + 1e-6), law="patterns")
        assert found == pytest.approx(share, rel=1e-12)
    # A row of zeros has no kink.
    X, v = data(0, 7, 2)
    beta = 0.5 * np.abs(v @ np.maximum(X @ X.T, 0.0)).max() / np.linalg.norm(X, axis=1).max()
    for law in ("directions", "patterns"):
        expected = improvement_probability(X, v, beta, law=law)
        again = improvement_probability(
            np.vstack([X, np.zeros(2)]), np.append(v, 7.0), beta, law=law
        )
        assert 0.0 < again == pytest.approx(expected, rel=1e-12)
        assert again < 1.0


@pytest.mark.parametrize("d", [2, 4])
def test_a_pattern_improves_exactly_where_it_should(d):
    X, y = data(9, 7, d)
    patterns = enumerate_arrangements(X)
    rng = np.random.default_rng(0)
    chosen = patterns[rng.permutation(len(patterns))[: 2 * d - 3]]
    base = train(X, y, 0.2, arrangements=chosen, tol=1e-10)
    improving = improving_patterns(X, base.certificate.dual, 0.2, patterns)
    assert not improving_patterns(X, base.certificate.dual, 0.2, chosen).any()
    assert 0 < improving.sum() < len(patterns)
    for pattern, improves in zip(patterns[:20], improving, strict=False):
        better = train(X, y, 0.2, arrangements=np.vstack([chosen, pattern]), tol=1e-10)
        assert (better.objective < base.objective * (1 - 1e-8)) == improves


@pytest.mark.parametrize("d", [2, 5])
def test_a_pattern_improves_from_its_projection_on(d):
    X, v = data(10, 8, d)
    for D in enumerate_arrangements(X)[:10]:
        rows = np.where(D, 1.0, -1.0)[:, None] * X
        # The residual is the distance from the polar cone, the length of the projection.
        sizes = [nnls(rows.T, -sign * X.T @ (D * v))[1] for sign in (1, -1)]
        for size in filter(None, np.round(sizes, 12)):
            for share in (0.999, 1.001):
                expected = max(sizes) > share * size
                assert improving_patterns(X, v, share * size, [D])[0] == expected


def test_one_more_direction_improves_exactly_where_it_should():
    X, y = data(6, 6, 2)
    rng = np.random.default_rng(1)
    U = rng.normal(size=(12, 2))
    base = train_output_layer(X, y, 0.2, U)
    for new in rng.normal(size=(40, 2)):
        excess = abs(base.dual @ np.maximum(X @ new, 0)) / np.linalg.norm(new) - 0.2
        value = train_output_layer(X, y, 0.2, np.vstack([U, new])).objective
        assert (value < base.objective * (1 - 1e-12)) == (excess > 0)


def test_sample_sizes_and_tail():
    for n, psi, xi in ((4, 0.1, 0.1), (30, 0.05, 0.5), (10, 0.3, 0.01)):
        count = sufficient_samples(n, psi=psi, xi=xi)
        assert count <= Fraction(n + 1) / (Fraction(psi) * Fraction(xi))
        assert improvement_tail_bound(n, n_samples=count, psi=psi) <= xi
        assert improvement_tail_bound(n, n_samples=count, psi=psi) == pytest.approx(
            binom.cdf(n - 1, count, psi)
        )
    # The least number that Markov's inequality allows, and the least of Chernoff's bound.
    n, psi, xi = 4, 0.1, 0.9
    count = sufficient_samples(n, psi=psi, xi=xi)
    assert (n + 1) / (count + 1) <= psi * xi < (n + 1) / count
    n, psi, xi = 30, 0.05, 0.01
    count = sufficient_samples(n, psi=psi, xi=xi)
    assert count - 1 < 2 * (n + 1 - np.log(xi)) / psi <= count
    assert improvement_tail_bound(5, n_samples=4, psi=0.2) == 1
    assert improvement_tail_bound(5, n_samples=5, psi=0.2) == pytest.approx(1 - 0.2**5)
    assert sufficient_samples(200, psi=0.1, xi=0.1) / sufficient_samples(
        100, psi=0.1, xi=0.1
    ) == pytest.approx(2, rel=0.05)


def test_value_bound_covers_what_happens():
    X, y = data(7, 8, 2)
    best = train(X, y, 0.5)
    rng = np.random.default_rng(2)
    bounds = [
        random_first_layer_bound(best, n_directions=count, xi=0.5) for count in (50, 500, 5000)
    ]
    assert bounds[0] > bounds[1] > bounds[2]
    # A union bound over the neurons, each missed by a share 1 - t / pi of the directions.
    m = best.network.n_neurons
    assert m > 1
    angle = brentq(lambda t: m * (1 - t / np.pi) ** 500 - 0.5, 0, np.pi)
    assert bounds[1] == pytest.approx(displaced_neurons_bound(best, angle), rel=1e-6)
    for count, bound in zip((50, 500), bounds, strict=False):
        excess = [
            train_output_layer(X, y, 0.5, rng.normal(size=(count, 2))).objective - best.objective
            for _ in range(20)
        ]
        # At risk 1/2, all of 20 failing has probability 1e-6.
        assert min(excess) <= bound
    # The argument of the bound itself: neurons moved by the allowed angle.
    weights = best.network.weights
    t = np.pi * (1 - (0.5 / len(weights)) ** (1 / 500))
    for _ in range(50):
        turn = rng.uniform(-t, t, size=len(weights))
        turned = np.column_stack(
            [
                np.cos(turn) * weights[:, 0] - np.sin(turn) * weights[:, 1],
                np.sin(turn) * weights[:, 0] + np.cos(turn) * weights[:, 1],
            ]
        )
        output = np.maximum(X @ turned.T, 0) @ best.network.output_weights
        assert (
            0.5 * np.sum((output - y) ** 2) + 0.5 * best.network.penalty - best.objective
            <= bounds[1] + 1e-12
        )


# The least values are at ends, at kinks, and between them where a neuron would have its other sign.
@pytest.mark.parametrize(
    ("seed", "angle"),
    [(4, 0.003), (4, 0.05), (4, 0.3), (6, 0.6), (1, 3.0), (43, 2.0), (131, 2.0), (1, np.pi)],
)
def test_the_value_bound_is_its_formula_on_a_fine_grid(seed, angle):
    X, y = data(seed, 8, 2)
    best = train(X, y, 0.5)
    weights, output = best.network.weights, best.network.output_weights
    sizes, residual = np.linalg.norm(weights, axis=1) * np.abs(output), y - best.network(X)
    assert len(set(np.sign(output))) == 2
    first = 0.0
    for w, a, size in zip(weights, output, sizes, strict=True):
        turned = np.arctan2(w[1], w[0]) + np.linspace(-angle, angle, 20_001)
        hidden = np.maximum(X @ np.array([np.cos(turned), np.sin(turned)]), 0)
        first += size * (0.5 - (np.sign(a) * residual @ hidden).min())
    second = np.linalg.svd(X)[1][0] * sizes.sum() * np.abs(np.exp(1j * angle) - 1)
    bound = displaced_neurons_bound(best, angle)
    assert bound == pytest.approx(first + second**2 / 2, rel=1e-5)
    zero = train(X, y, 100.0)
    assert displaced_neurons_bound(zero, angle) == 0
    assert random_first_layer_bound(zero, n_directions=10, xi=0.1) == 0


def test_bad_input_is_named():
    X, y = data(0)
    with pytest.raises(ValueError, match="directions: expected rows that are not zero"):
        train_output_layer(X, y, 0.1, [[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="optimum: expected squared loss"):
        random_first_layer_bound(train(X, np.sign(y), 0.5, loss="hinge"), n_directions=10, xi=0.1)
    three = train(np.column_stack([X, X[:, 0]]), y, 0.5)
    for other in (
        train(X, y, 0.5, bias=True),
        train(X, y, 0.5, skip=True),
        train(X, np.column_stack([y, y]), 0.5),
        train(X, np.sign(y), 0.1, loss="logistic"),
        three,
    ):
        with pytest.raises(ValueError, match="optimum: expected squared loss"):
            displaced_neurons_bound(other, 0.1)
    with pytest.raises(ValueError, match=r"X: expected shape \(any, 2\)"):
        improvement_probability(np.ones((3, 3)), np.ones(3), 0.1)
