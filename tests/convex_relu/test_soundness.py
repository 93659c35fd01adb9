"""What is called certified is certified: random problems, degenerate, rescaled and separable ones
among them, through every solver that has a status and a gap."""

import dataclasses
import warnings
from collections import Counter

import numpy as np
import pytest

from theorylab.convex_relu import (
    GatedStatus,
    Interpolation,
    Rejection,
    RobustStatus,
    TrainingStatus,
    certify,
    enumerate_arrangements,
    fit_penalized_biases,
    prune_layer,
    trace_solution_path,
    train,
    train_admm,
    train_gated,
    train_output_layer,
    train_robust,
    worst_case,
    zero_threshold,
)
from theorylab.convex_relu._pricing import Pricing
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.numerics.bounds import Bounds, power_of_two, relative_gap

LOSSES = ["squared", "logistic", "hinge"]
SHARES = [0.0, 1e-9, 1e-7, 1e-5, 1e-3, 0.03, 0.3, 0.9, 1.0, 1.5]


def draw(seed):
    """Return a random problem: data, targets, loss, options, and the penalty's share of the
    threshold."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 11)), int(rng.integers(1, 4))
    X = rng.standard_normal((n, d))
    kind = rng.integers(7)
    if kind == 1:
        X = rng.integers(-2, 3, size=(n, d)).astype(float)
    elif kind == 2:
        X[-1], X[n // 2] = -2.0 * X[0], X[0]
    elif kind == 3:
        X = X[:, :1] @ rng.standard_normal((1, d))
    elif kind == 4:
        X[rng.integers(n)] = 0.0
    elif kind == 5:
        X = rng.standard_normal((min(n, 4), n + 1))
    loss = LOSSES[rng.integers(3)]
    y = rng.standard_normal(len(X)) if rng.random() < 0.7 else rng.integers(-2, 3, len(X)) * 1.0
    X = X * 10.0 ** rng.choice([-8.0, -3.0, 0.0, 0.0, 3.0, 8.0])
    if loss != "squared":
        # Half of the labels are separable.
        y = np.where(y > 0.0, 1.0, -1.0)
        if rng.random() < 0.5:
            y = np.where(X @ rng.standard_normal(X.shape[1]) > 0.0, 1.0, -1.0)
    else:
        y = y * 10.0 ** rng.choice([-8.0, 0.0, 0.0, 8.0])
    options = {"skip": bool(rng.random() < 0.3), "bias": bool(rng.random() < 0.3)}
    share = float(rng.choice(SHARES if loss == "squared" else SHARES[1:]))
    return X, y, loss, options, share


def quietly(solver, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return solver(*args, **options)


def check_training(seed):
    X, y, loss, options, share = draw(seed)
    threshold = zero_threshold(X, y, loss=loss, bias=options["bias"])
    if threshold == 0.0 or (y == 0.0).all():
        return "zero"
    given = np.random.default_rng(seed).random() < 0.25
    if given:
        data = np.column_stack([X, np.ones(len(X))]) if options["bias"] else X
        options["arrangements"] = enumerate_arrangements(data)[::2]
    beta = share * threshold
    # Data next to dependent ones need more cones than a test can wait for; that has a status.
    result = quietly(train, X, y, beta, loss=loss, max_nodes=50_000, **options)
    status, c = result.status, result.certificate
    if status is TrainingStatus.IMPOSSIBLE:
        assert share == 0.0
        return status.name
    # Never clipped: the property itself raises where the bounds cross.
    assert c.gap >= 0.0
    outcome = c.verify()
    assert outcome.dual_objective <= outcome.objective or not outcome.accepted
    if status is TrainingStatus.CERTIFIED:
        assert np.isfinite(result.objective)
        assert result.gap <= 1e-8
        assert outcome.accepted, outcome.reason
        # Values below the rounding errors of the loss at zero are zero.
        zero = np.finfo(float).eps * c.loss.value(np.zeros_like(y), y)
        floor = np.finfo(float).tiny + (zero if np.isfinite(zero) else 0.0)
        difference = outcome.objective - outcome.dual_objective
        assert difference <= max(1.1e-8 * outcome.objective, floor)
    if status is TrainingStatus.UNATTAINED:
        assert loss == "logistic"
        assert options["skip"]
        assert outcome.accepted, outcome.reason
    if loss == "logistic" and options["skip"]:
        # Some labels can be beaten without limit exactly if no weighting of all rows balances.
        data = np.column_stack([X, np.ones(len(X))]) if options["bias"] else X
        assert (status is TrainingStatus.UNATTAINED) == separable(data, y)
    return status.name


def separable(data, y):
    """Whether some s has y_i x_i @ s >= 0 for all rows, > 0 for one (Stiemke), by enumeration of
    the candidates' signs in cvxpy."""
    import cvxpy as cp

    rows = y[:, None] * data
    # Neither units of rows nor of columns matter, but they would to the solver.
    rows = rows / np.maximum(np.abs(rows).max(axis=0), 1e-300)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    a = cp.Variable(len(y))
    problem = cp.Problem(cp.Minimize(0), [a >= 1.0, rows.T @ a == 0.0])
    problem.solve(solver=cp.HIGHS)
    balanced = problem.status == cp.OPTIMAL
    return not balanced


def test_certified_means_verified():
    counts = Counter(check_training(seed) for seed in range(80))
    # The draws reach what they are meant to reach.
    assert counts["CERTIFIED"] >= 50
    assert counts["UNATTAINED"] >= 1
    assert counts["IMPOSSIBLE"] >= 1


@pytest.mark.long
@pytest.mark.parametrize("block", range(20))
def test_certified_means_verified_long(block):
    counts = Counter(check_training(1000 + 50 * block + k) for k in range(50))
    assert counts["CERTIFIED"] >= 30


def check_others(seed):
    """The solvers whose certificate is a feasible dual point that can be checked in a line."""
    X, y, loss, _, share = draw(seed)
    threshold = zero_threshold(X, y, loss=loss)
    # 1e-9 of the threshold is beyond these.
    beta = max(share, 1e-3) * threshold
    if threshold == 0.0:
        return "zero"
    D = enumerate_arrangements(X)
    unit, scale = power_of_two(X), power_of_two(y)
    if loss != "hinge":
        result = quietly(train_gated, X, y, beta, D, loss=loss)
        assert result.gap >= 0.0
        norm = np.linalg.norm((D * result.dual) @ X, axis=1).max()
        assert norm <= beta * (1 + 1e-12)
        if result.status is GatedStatus.CERTIFIED:
            assert result.objective - result.dual_objective <= 1e-8 * result.objective + 1e-15
    if loss == "squared":
        layer = train_output_layer(X, y, beta, np.random.default_rng(seed).normal(size=X.shape))
        assert layer.gap >= 0.0
        assert layer.global_gap >= 0.0
        found = quietly(train_admm, X, y, beta, max_iter=2000)
        assert found.gap >= 0.0
        # The bound is one for the best network, too.
        best = quietly(train, X, y, beta)
        assert found.dual_objective <= best.objective * (1 + 1e-8) + 1e-16 * scale**2
    if loss != "logistic" and len(X) <= 6:
        robust = quietly(train_robust, X, y, beta, eps=1e-3 * unit, loss=loss)
        assert robust.gap >= 0.0
        attack = worst_case(robust.network, X, y, 1e-3 * unit, loss=loss)
        value = attack.loss + beta * robust.network.penalty
        assert value <= robust.objective * (1 + 1e-9) + 1e-12 * scale**2
        return robust.status is RobustStatus.SOLVED
    return "done"


def test_bounds_of_the_other_solvers_are_bounds():
    outcomes = [check_others(seed) for seed in range(12)]
    assert outcomes.count(True) >= 1


@pytest.mark.long
@pytest.mark.parametrize("block", range(10))
def test_bounds_of_the_other_solvers_are_bounds_long(block):
    for k in range(25):
        check_others(500 + 25 * block + k)


def test_univariate_and_layer_gaps_are_gaps():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.standard_normal(7), rng.standard_normal(7) * 10.0 ** rng.choice([-8, 0, 8])
        fit = quietly(fit_penalized_biases, x, y, np.abs(y).max() * 10.0 ** rng.uniform(-4, 0))
        assert 0.0 <= fit.gap <= 1e-9
    layer = prune_layer(rng.standard_normal((20, 4)), rng.standard_normal((4, 2)), 0.5)
    assert 0.0 <= layer.gap <= 1e-4


# The six points of a penalty so small that the residual loses its digits.
SIX = np.array([[0.0], [4.0], [5.0], [7.0], [10.0], [11.0]]), np.array([0.0, 0, 0, 2, 3, 3])


@pytest.mark.parametrize("beta", [1e-7, 1e-8])
def test_small_penalties_are_certified_in_their_own_units(beta):
    result = train(*SIX, beta, bias=True)
    assert result.status is TrainingStatus.CERTIFIED
    assert result.gap <= 1e-8
    assert result.certificate.verify()
    # The value is concave in beta with the slope P: between beta P(0) and beta P(beta).
    least = train(*SIX, 0.0, bias=True)
    assert least.objective * (1 - 2e-6) <= result.objective / beta <= least.objective
    assert result.objective / beta == pytest.approx(13.161277, abs=2e-5)


@pytest.mark.parametrize(("n", "d"), [(40, 2), pytest.param(30, 5, marks=pytest.mark.long)])
@pytest.mark.parametrize("seed", [1, 2])
def test_gaussian_data_at_a_tiny_penalty(n, d, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    beta = 1e-8 * zero_threshold(X, y)
    result = train(X, y, beta)
    assert result.status is TrainingStatus.CERTIFIED
    outcome = result.certificate.verify()
    assert outcome.accepted
    assert outcome.gap <= 1e-8


def test_the_interpolator_of_least_norm():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((8, 2)), rng.standard_normal(8)
    result = train(X, y, 0.0)
    assert result.status is TrainingStatus.CERTIFIED
    np.testing.assert_allclose(result.network(X), y, atol=1e-10)
    assert result.certificate.loss.name == "interpolation"
    assert result.certificate.verify()
    # The convex program over all patterns, in cvxpy.
    import cvxpy as cp

    D = enumerate_arrangements(X).astype(float)
    V, W = cp.Variable((len(D), 2)), cp.Variable((len(D), 2))
    f = cp.sum(cp.multiply(D.T, X @ (V - W).T), axis=1)
    sides = 2 * D.T - 1
    program = cp.Problem(
        cp.Minimize(cp.sum(cp.norm(V, axis=1)) + cp.sum(cp.norm(W, axis=1))),
        [f == y, cp.multiply(sides, X @ V.T) >= 0, cp.multiply(sides, X @ W.T) >= 0],
    )
    program.solve(solver=cp.CLARABEL)
    assert result.objective == pytest.approx(program.value, rel=1e-6)
    # The limit of small penalties.
    small = train(X, y, 1e-7)
    assert small.objective / 1e-7 == pytest.approx(result.objective, rel=1e-5)
    # A network that misses a target by more than its tolerance interpolates nothing.
    worse = certify(X, y + 1e-6, 1.0, result.network, loss=Interpolation())
    assert worse.gap == np.inf
    assert not worse.verify()


def test_impossible_interpolation_is_named():
    X = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    with pytest.warns(RuntimeWarning, match="no network interpolates"):
        result = train(X, [1.0, 3.0, 1.0], 0.0)
    assert result.status is TrainingStatus.IMPOSSIBLE
    # On a line through the origin 2 x must have twice the output of x.
    assert train(X, [1.0, 2.0, 1.0], 0.0).status is TrainingStatus.CERTIFIED
    with pytest.raises(ValueError, match="beta: expected > 0 for the logistic loss"):
        train(X, [1.0, -1.0, 1.0], 0.0, loss="logistic")


def test_an_infimum_that_is_not_attained_is_named():
    X, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([-1.0, -1.0, 1.0, 1.0])
    with pytest.warns(RuntimeWarning, match="the infimum is not attained"):
        result = train(X, y, 0.1, loss="logistic", skip=True)
    assert result.status is TrainingStatus.UNATTAINED
    assert 0.0 <= result.objective <= 1e-15
    assert result.dual_objective == 0.0
    assert result.certificate.verify()
    # The hinge loss attains its zero.
    attained = train(X, y, 0.1, loss="hinge", skip=True)
    assert attained.status is TrainingStatus.CERTIFIED
    assert attained.objective == 0.0
    assert attained.certificate.verify()


def test_the_part_of_the_infimum_that_remains():
    # Rows with x_1 = 0 carry both labels and see no separating map; the others are separated by it.
    X = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 1.0], [-2.0, 0.0], [1.0, 2.0]])
    y = np.array([1.0, 1.0, -1.0, -1.0, 1.0])
    with pytest.warns(RuntimeWarning, match="the infimum is not attained"):
        result = train(X, y, 0.1, loss="logistic", skip=True)
    rest = train(X[:3], y[:3], 0.1, loss="logistic", skip=True)
    assert rest.status is TrainingStatus.CERTIFIED
    assert result.objective == pytest.approx(rest.objective, rel=1e-9)
    assert result.certificate.verify()


def test_a_dual_point_of_zeros_is_a_bound():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 2))
    y = np.where(X[:, 0] > 0.0, 1.0, -1.0)
    network = quietly(train, X, y, 0.1, loss="logistic").network
    # No dual point but zero balances separable labels: the gap is one, not nan.
    c = certify(X, y, 0.1, network, loss="logistic", skip=True)
    assert c.dual_objective == 0.0
    assert c.gap == 1.0
    assert c.verify()
    assert not dataclasses.replace(c, dual=c.dual + 1e-3 * y).verify()


def test_bounds_that_cross_raise_and_nan_is_no_gap():
    X, y = np.random.default_rng(0).standard_normal((6, 2)), np.arange(6.0)
    c = train(X, y, 0.5).certificate
    wrong = dataclasses.replace(c, dual_objective=c.objective * (1 + 1e-9))
    with pytest.raises(ArithmeticError, match="exceeds the upper bound"):
        _ = wrong.gap
    assert wrong.verify().reason is Rejection.DUAL_OBJECTIVE
    for upper, lower in ((np.nan, np.nan), (1.0, np.nan), (np.inf, np.inf), (1.0, -np.inf)):
        assert relative_gap(upper, lower) == np.inf
    assert relative_gap(0.0, 0.0) == 0.0
    assert relative_gap(1.0, 1.0 + 1e-15) == 0.0
    assert relative_gap(-1.0, -2.0) == 0.5
    assert Bounds(4.0, 3.0).gap == 0.25
    assert [power_of_two(x) for x in (0.0, 1.0, 3.0, 1e-8)] == [1.0, 2.0, 4.0, 2.0**-26]


@pytest.mark.parametrize("name", ["X", "y"])
def test_sizes_whose_squares_overflow_are_refused_by_name(name):
    X, y = np.eye(3), np.ones(3)
    size = {"X": (X * 1e155, y), "y": (X, y * 1e155)}[name]
    with pytest.raises(ValueError, match=f"^{name}: expected a largest entry between"):
        train_gated(*size, 0.1, np.ones((1, 3)))


def test_every_tight_leaf_is_checked_exactly():
    # A regular polygon with equal targets: by symmetry each of 2 n cells attains the maximum.
    n = 301
    angles = 2.0 * np.pi * np.arange(n) / n
    X, y = np.column_stack([np.cos(angles), np.sin(angles)]), np.ones(n)
    result = train(X, y, 1.00000001 * zero_threshold(X, y))
    assert result.network.n_neurons == 0
    outcome = result.certificate.verify()
    assert outcome.accepted
    assert outcome.n_exact >= 2 * n


def test_what_was_certified_stays_what_it_was():
    X, y = np.random.default_rng(0).standard_normal((2, 8, 2))
    y = y[:, 0]
    weights, output = np.ones((1, 2)), np.ones(1)
    results = [
        train(X, y, 0.5).certificate,
        certify(X, y, 0.5, (weights, output)),
        trace_solution_path(X, y, min_ratio=0.5, tol=0.1).points[-1].certificate,
    ]
    gaps = [c.gap for c in results]
    for array in (X, y, weights, output):
        array *= 3.0
    assert [c.gap for c in results] == gaps
    assert all(c.verify() for c in results)


def test_rounding_of_projections_makes_no_neurons():
    # Rows almost parallel beside a column of ones: what is left of a projection may be rounding.
    for seed in range(1, 20):
        rng = np.random.default_rng(seed)
        data = np.column_stack([1e-8 * rng.standard_normal(6), np.ones(6)])
        v = rng.standard_normal(6)
        v -= v.mean()
        patterns = enumerate_arrangements(data)[::2]
        priced = Pricing(reduce_rows(data), patterns, 1e-8, None)(v, 2e-9)
        for sign, p, active, tight in priced.neurons:
            outputs = np.where(active & ~tight, data @ p, 0.0)
            assert sign * v @ outputs > 2e-9 * np.linalg.norm(p)
            assert tight.sum() < 2  # two independent rows leave nothing


@pytest.mark.parametrize("seed", [2810, 3164, 3429])
def test_columns_of_very_different_sizes_are_trained(seed):
    # Beside the column of ones data of 1e-8 or 1e8: a ridge for the largest directions hides the
    # others, and every descent used up its steps.
    X, y, loss, options, share = draw(seed)
    beta = share * zero_threshold(X, y, loss=loss, bias=True)
    result = quietly(train, X, y, beta, loss=loss, max_rounds=20, **options)
    assert options["bias"]
    assert result.status is TrainingStatus.CERTIFIED
    assert result.certificate.verify()


@pytest.mark.parametrize("seed", [2494, 2861, 3732])
def test_neurons_are_not_added_to_rounding_errors_without_end(seed):
    # Columns of 1e-8 beside that of ones, over given patterns: hundreds of rounds each added ten
    # neurons, which took minutes.
    X, y, loss, options, share = draw(seed)
    data = np.column_stack([X, np.ones(len(X))])
    if seed != 3732:
        options["arrangements"] = enumerate_arrangements(data)[::2]
    beta = share * zero_threshold(X, y, loss=loss, bias=options["bias"])
    result = quietly(train, X, y, beta, loss=loss, max_nodes=50_000, **options)
    assert result.status is TrainingStatus.STALLED
    assert max(step.n_neurons for step in result.history) <= 150
    outcome = result.certificate.verify()
    assert outcome.dual_objective <= outcome.objective or not outcome.accepted
