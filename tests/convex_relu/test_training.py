"""Exact training against the full convex program, closed forms, local search, and attacks on its
certificates."""

import dataclasses
import importlib
import warnings
from collections import Counter
from itertools import pairwise, product

import cvxpy as cp
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.optimize import minimize, nnls

from theorylab.convex_relu import (
    Network,
    Rejection,
    Round,
    TrainingStatus,
    certify,
    dual_norm,
    enumerate_arrangements,
    sample_arrangements,
    train,
    zero_threshold,
)
from theorylab.convex_relu._drawing import draw_network
from theorylab.convex_relu._neurons import Neurons

LOSSES = {
    "squared": lambda f, y: 0.5 * cp.sum_squares(f - y),
    "logistic": lambda f, y: cp.sum(cp.logistic(-cp.multiply(y, f))),
    "hinge": lambda f, y: cp.sum(cp.pos(1 - cp.multiply(y, f))),
}


def full_program(X, y, beta, loss="squared", patterns=None, skip=False):
    """Optimal value of the convex program over the cones of all patterns (Clarabel)."""
    D = (enumerate_arrangements(X) if patterns is None else patterns).astype(float)
    n, d = X.shape
    V, W, s = cp.Variable((len(D), d)), cp.Variable((len(D), d)), cp.Variable(d)
    f = cp.sum(cp.multiply(D.T, X @ (V - W).T), axis=1) + (X @ s if skip else np.zeros(n))
    sides = 2 * D.T - 1
    penalty = cp.sum(cp.norm(V, axis=1)) + cp.sum(cp.norm(W, axis=1))
    constraints = [cp.multiply(sides, X @ V.T) >= 0, cp.multiply(sides, X @ W.T) >= 0]
    problem = cp.Problem(cp.Minimize(LOSSES[loss](f, y) + beta * penalty), constraints)
    for tol in (1e-10, 1e-9, 1e-8):
        with warnings.catch_warnings():
            # Asked for more than float64 gives, Clarabel says so and is asked for less.
            warnings.simplefilter("ignore")
            problem.solve(solver=cp.CLARABEL, tol_gap_abs=tol, tol_gap_rel=tol, tol_feas=tol)
        if problem.status == cp.OPTIMAL:
            break
    return problem.value


def instance(seed):
    """Random small data: general, integer, repeated and opposite rows, rank one or two, zero rows,
    fewer rows than columns."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 10)), int(rng.integers(1, 5))
    kind = seed % 6
    X = rng.standard_normal((n, d))
    if kind == 1:
        X = rng.integers(-2, 3, size=(n, d)).astype(float)
    elif kind == 2:
        X[rng.integers(n)] = X[0]
        X[-1] = -X[0]
    elif kind == 3:
        X = X[:, :1] @ rng.standard_normal((1, d)) + (d > 2) * rng.standard_normal(
            (n, 1)
        ) @ rng.standard_normal((1, d))
    elif kind == 4:
        X[rng.integers(n)] = 0.0
    elif kind == 5:
        X = rng.standard_normal((min(n, 5), n + 2))
    y = (
        rng.standard_normal(len(X))
        if rng.random() < 0.8
        else rng.integers(-2, 3, size=len(X)).astype(float)
    )
    factor = rng.choice([0.01, 0.1, 0.3, 0.7, 0.999, 1.0, 1.5])
    return X, y, factor


def planted(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X, W, a = rng.standard_normal((n, d)), rng.standard_normal((5, d)), rng.standard_normal(5)
    return X, np.maximum(X @ W.T, 0) @ a + 0.1 * rng.standard_normal(n)


def check_against_program(seed, loss):
    X, y, factor = instance(seed)
    if loss != "squared":
        y = np.where(y >= 0, 1.0, -1.0)
    threshold = zero_threshold(X, y, loss=loss)
    if threshold < 1e-9:
        return
    beta = factor * threshold
    result = train(X, y, beta, loss=loss)
    assert result.status is TrainingStatus.CERTIFIED
    assert 0.0 <= result.gap <= 1e-8
    assert result.certificate.verify()
    # The interior-point method stops at 1e-8 or so of the value.
    assert result.objective == pytest.approx(full_program(X, y, beta, loss), rel=1e-7, abs=1e-7)
    if factor >= 1.0:
        assert result.network.n_neurons == 0


@pytest.mark.parametrize("seed", range(15))
def test_squared_loss_against_the_full_program(seed):
    check_against_program(seed, "squared")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(15, 260))
def test_squared_loss_against_the_full_program_long(seed):
    check_against_program(seed, "squared")


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("seed", range(4))
def test_labels_against_the_full_program(seed, loss):
    check_against_program(seed, loss)


@pytest.mark.long
@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("seed", range(4, 60))
def test_labels_against_the_full_program_long(seed, loss):
    check_against_program(seed, loss)


@pytest.mark.parametrize(("n", "d"), [(50, 3), (60, 4)])
def test_larger_data_with_every_option(n, d):
    X, y = planted(n, d)
    beta = zero_threshold(X, y) / 20
    plain = train(X, y, beta)
    biased = train(X, y, beta, bias=True)
    skipped = train(X, y, beta, skip=True)
    both = train(X, y, beta, bias=True, skip=True)
    for result in (plain, biased, skipped, both):
        assert result.gap <= 1e-8
        verification = result.certificate.verify()
        assert verification
        assert verification.n_exact > 0
        # The certificate's objective is an upper end of exact arithmetic; the result's is a rounded
        # sum of n + d terms.
        rounding = (n + d) * np.finfo(float).eps * verification.objective
        assert (
            verification.dual_objective - rounding
            <= result.objective
            <= verification.objective + rounding
        )
    # A larger class has a smaller optimum; a bias is a column of ones.
    assert biased.objective < plain.objective
    assert skipped.objective < plain.objective
    assert both.objective < min(biased.objective, skipped.objective)
    augmented = train(np.column_stack([X, np.ones(n)]), y, beta)
    assert augmented.objective == pytest.approx(biased.objective, rel=1e-8)
    assert np.allclose(X.T @ skipped.certificate.dual, 0.0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_skip_connection_against_the_full_program(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((9, 2)), rng.standard_normal(9)
    beta = zero_threshold(X, y) / 10
    result = train(X, y, beta, skip=True)
    assert result.certificate.verify()
    assert result.objective == pytest.approx(full_program(X, y, beta, skip=True), rel=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_sampled_arrangements_against_their_program(seed):
    X, y, factor = instance(seed)
    patterns = sample_arrangements(X, 4, rng=np.random.default_rng(seed))
    beta = factor * zero_threshold(X, y, arrangements=patterns)
    result = train(X, y, beta, arrangements=patterns)
    assert result.gap <= 1e-8
    assert result.certificate.verify()
    assert result.objective == pytest.approx(
        full_program(X, y, beta, patterns=patterns), rel=1e-7, abs=1e-7
    )
    best = train(X, y, beta)
    assert best.objective <= result.objective * (1 + 1e-8)
    # The bound over all patterns is valid, and tight when the sample contains the active ones.
    assert result.global_certificate.dual_objective <= best.objective * (1 + 1e-12)
    assert result.global_certificate.verify()
    whole = train(X, y, beta, arrangements=enumerate_arrangements(X))
    assert whole.objective == pytest.approx(best.objective, rel=1e-8, abs=1e-12)
    assert whole.global_gap <= 1e-7


@pytest.mark.parametrize("rest", [0.0, 1e-12, 1e-9])
def test_where_terms_cancel_the_dual_norm_says_what_is_attained(rest):
    X, v = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 1.0]]), np.array([1.0, -1.0, rest])
    norm = dual_norm(X, v)
    truth = rest * np.sqrt(10.0)
    assert norm.attained == pytest.approx(truth, rel=1e-9)
    assert norm.value >= truth
    assert norm.exact
    size = np.abs(v) @ np.linalg.norm(X, axis=1)
    assert norm.value <= max(truth + 2e-12 * size, 1.01e-10 * size)


@pytest.mark.parametrize("seed", range(8))
def test_dual_norm_against_projections_onto_every_cone(seed):
    X, v, _ = instance(seed)
    patterns = enumerate_arrangements(X)
    projections = []
    for sign in (1.0, -1.0):
        for D in patterns:
            rows = np.where(D, 1.0, -1.0)[:, None] * X
            # The distance of g from the polar cone is the norm of its projection onto the cone.
            projections.append(nnls(rows.T, -sign * X.T @ (D * v))[1])
    norm = dual_norm(X, v)
    assert norm.exact
    assert norm.attained <= norm.value <= norm.attained * (1 + 1e-9)
    assert norm.value == pytest.approx(max(projections), rel=1e-9)
    assert norm.sign * (v @ np.maximum(X @ norm.direction, 0)) == pytest.approx(
        norm.attained, rel=1e-12
    )
    assert np.linalg.norm(norm.direction) == pytest.approx(1.0, rel=1e-12)
    restricted = dual_norm(X, v, arrangements=patterns[:3])
    assert restricted.value == pytest.approx(
        max(projections[:3] + projections[len(patterns) : len(patterns) + 3]), rel=1e-9
    )


@pytest.mark.parametrize("kind", ["signs", "integers", "affine", "scales"])
@pytest.mark.parametrize("factor", [20.0, 1000.0])
def test_data_in_special_position(kind, factor):
    # Many rows on one line, many lines through one vertex, and rows of very different length.
    rng = np.random.default_rng(3)
    X = {
        "signs": rng.choice([-1.0, 1.0], size=(40, 3)),
        "integers": rng.integers(-2, 3, size=(40, 3)).astype(float),
        "affine": np.column_stack([rng.standard_normal(40), np.ones(40)]),
        "scales": rng.standard_normal((25, 3)) * 10.0 ** rng.uniform(-3, 3, size=(25, 1)),
    }[kind]
    y = rng.standard_normal(len(X))
    result = train(X, y, zero_threshold(X, y) / factor)
    assert result.gap <= 1e-8
    assert result.certificate.verify()


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_labels_on_larger_data(loss):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((45, 3)), np.sign(rng.standard_normal(45))
    result = train(X, y, zero_threshold(X, y, loss=loss) / 10, loss=loss)
    assert result.gap <= 1e-8
    assert result.certificate.verify()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("lean", "z", "side"),
    [(1e-6, -1.0, False), (0.5, 2.0, True), (-0.5, -0.25, True), (-0.5, -0.7, None), (0, 0, None)],
)
def test_a_row_is_released_to_the_side_that_descends(sign, lean, z, side):
    """A neuron along (0, 1) held at the row (1, 0); the row (-lean, 1) pulls it by lean.

    With x_1 @ p = t the penalty less what z gains changes by lean t, and by (lean - z) t for t > 0.
    """
    X, held = np.array([[1.0, 0.0], [-lean, 1.0]]), np.array([[True, False]])
    state = Neurons(np.array([[0.0, 3.0]]), np.array([sign]), np.array([[False, True]]), held, 0)
    found = state.released(X, sign * np.array([z, 1.0]))
    assert (found is None) == (side is None)
    if found is not None:
        assert not found.tight.any()
        assert found.active.tolist() == [[side, True]]
    # A row that repeats the one held leaves its multiplier open.
    again = Neurons(state.p, state.sigma, state.active[:, [0, 0, 1]], held[:, [0, 0, 1]], 0)
    assert again.released(X[[0, 0, 1]], sign * np.array([z, z, 1.0])) is None


@pytest.mark.filterwarnings("ignore:relative gap")
@pytest.mark.parametrize("exponent", [-5, -7, -8])
def test_contradicting_labels_at_small_penalties(exponent):
    """Each of two points has one label against it, which costs two; slopes 1 and 1/2 the rest."""
    X, y = np.array([[1.0], [1.0], [1.0], [-2.0], [-2.0]]), np.array([1.0, 1.0, -1.0, -1.0, 1.0])
    beta = 10.0**exponent * zero_threshold(X, y, loss="hinge")
    solution = train(X, y, beta, loss="hinge")
    assert solution.gap < 1e-3
    assert solution.certificate.verify().accepted
    # At -2 all outputs between -1 and 1 cost the same.
    assert solution.objective == pytest.approx(4.0 + beta, rel=1e-12)


def test_labels_that_nearly_cancel_on_repeated_rows_are_certified():
    counts = Counter()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((6, 2)), rng.choice([-1.0, 1.0], 6)
        rows = rng.integers(0, 6, 6)
        X, y = np.vstack([X, X[rows]]), np.append(y, rng.choice([-1.0, 1.0], 6) * y[rows])
        threshold = zero_threshold(X, y, loss="hinge")
        for share in (1e-5, 1e-6):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = train(X, y, share * threshold, loss="hinge")
            counts[result.status.name] += 1
            assert result.gap <= 1e-7
            assert result.certificate.verify()
    assert counts["CERTIFIED"] >= 0.9 * counts.total()


@pytest.mark.parametrize("kind", ["repeated", "multiples", "rounded", "plane"])
def test_labels_that_cancel_have_the_threshold_zero(kind):
    rng = np.random.default_rng(4)
    X, y = rng.standard_normal((4, 3)), rng.choice([-1.0, 1.0], 4)
    X, y = {
        "repeated": (np.vstack([X, X]), np.append(y, -y)),
        # The sums are rounded: 0.1 + 0.2 - 0.3 is not zero in float64.
        "multiples": (np.vstack([X, 3 * X, -X, -3 * X]), np.append(y, [-y / 3, 3 * y, -y])),
        "rounded": (np.array([[0.1], [0.2], [0.3]]), np.array([1.0, 1.0, -1.0])),
        "plane": (np.outer([0.1, 0.2, 0.3], [1.0, 2.0 / 3.0]), np.array([1.0, 1.0, -1.0])),
    }[kind]
    size = np.abs(y) @ np.linalg.norm(X, axis=1)
    losses = ["squared", "hinge", "logistic"] if kind != "multiples" else ["squared"]
    for loss, options in product(losses, ({}, {"arrangements": enumerate_arrangements(X)})):
        assert zero_threshold(X, y, loss=loss, **options) == 0.0
        for share in (1.0, 1e-3, 1e-8, 1e-12):
            result = train(X, y, share * size, loss=loss, **options)
            assert result.status is TrainingStatus.CERTIFIED
            assert result.network.n_neurons == 0
            assert result.gap <= 1e-12
            assert result.certificate.verify()
    assert zero_threshold(X, y, exhaustive=False) == 0.0
    # What is more than rounding is not zero.
    y = y * (1.0 + 1e-11 * rng.standard_normal(len(y)))
    for options in ({}, {"arrangements": enumerate_arrangements(X)}, {"exhaustive": False}):
        assert 1e-13 * size < zero_threshold(X, y, **options) < 1e-10 * size
    both = np.column_stack([y, np.ones(len(y))])
    assert zero_threshold(X, both) == zero_threshold(X, both[:, 1])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_first_round_prices_the_zero_network(sign):
    X, y, _ = instance(0)
    some = enumerate_arrangements(X)[::2]
    for options in ({}, {"arrangements": some}):
        threshold = zero_threshold(X, y, **options)
        for share in (0.9, 0.3):
            first = train(X, sign * y, share * threshold, **options).history[0]
            assert first.objective == pytest.approx(0.5 * y @ y, rel=1e-14)
            assert first.n_neurons == 0
            assert first.violation == pytest.approx(1.0 / share - 1.0, rel=1e-3)
    best = max(
        nnls((np.where(D, 1.0, -1.0)[:, None] * X).T, -s * X.T @ (D * y))[1]
        for D in some
        for s in (1.0, -1.0)
    )
    assert threshold == pytest.approx(best, rel=1e-9)
    X, Y = np.random.default_rng(0).standard_normal((2, 7, 2))
    for options in ({}, {"arrangements": enumerate_arrangements(X)}, {"exhaustive": False}):
        single = [zero_threshold(X, t, **options) for t in Y.T]
        assert zero_threshold(X, Y, **options) == max(single) > 1.01 * min(single)
    exact = dual_norm(X, Y[:, 0])
    assert exact.attained <= zero_threshold(X, Y[:, 0]) <= exact.attained * (1 + 2e-10)


def test_the_better_of_two_dual_points_is_kept():
    better = 0
    for seed in range(2):
        X, y = planted(12, 5, seed)
        beta = zero_threshold(X, y) * (0.5 if seed % 2 else 0.05)
        found = {bound: train(X, y, beta, bound=bound) for bound in ("root", "sdp")}
        assert all(f.status is TrainingStatus.LOCAL for f in found.values())
        root, relaxed = (found[b].dual_objective for b in ("root", "sdp"))
        assert relaxed >= root - 1e-12 * abs(root)
        better += relaxed > root + 1e-3 * abs(root)
    assert better > 0


def test_rounds_that_gain_nothing_end_training(monkeypatch):
    def nothing(self, state, y, multiplier, *, rough=False):
        return Neurons.none(*state.active.shape[1:], 2, 0), multiplier, y

    X, y = planted(12, 2)
    patterns = enumerate_arrangements(X)
    beta = 0.1 * zero_threshold(X, y)
    monkeypatch.setattr("theorylab.convex_relu._minimiser.Minimiser.minimise", nothing)
    with pytest.warns(RuntimeWarning, match="no neuron lowers the objective"):
        result = train(X, y, beta, arrangements=patterns)
    # One round, and three that are no better.
    assert len(result.history) == 4
    assert result.certificate.verify()
    # Local searches may find more when they are asked again.
    with pytest.warns(RuntimeWarning, match="stopped after max_rounds"):
        assert len(train(X, y, beta, max_rounds=6).history) == 6


@pytest.mark.filterwarnings("ignore:relative gap")
@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
@pytest.mark.parametrize("unit", [1.0, 1e3])
def test_rounds_tell_the_objective_in_the_units_of_the_problem(loss, unit):
    X, y = planted(12, 2)
    X, y = unit * X, 7.0 * y if loss == "squared" else np.sign(y)
    beta = 0.03 * zero_threshold(X, y, loss=loss)
    result = train(X, y, beta, loss=loss)
    assert result.history[-1].objective == pytest.approx(result.objective, rel=1e-8)
    assert result.history[-1].n_neurons == result.network.n_neurons
    skipped = train(X, y, beta, loss=loss, skip=True)
    assert skipped.history[-1].objective == pytest.approx(skipped.objective, rel=1e-8)
    assert skipped.history[-1].n_neurons == skipped.network.n_neurons
    if loss == "squared":
        least = train(X, y, 0.0)
        assert least.history[-1].objective == pytest.approx(least.objective, rel=1e-8)


def test_one_sample_has_a_closed_form():
    x, y, beta = np.array([[3.0, -4.0]]), np.array([2.0]), 1.5
    # min_c (5 c - 2)^2 / 2 + beta c: soft thresholding.
    result = train(x, y, beta)
    c = (5 * 2 - beta) / 25
    assert result.objective == pytest.approx(0.5 * (5 * c - 2) ** 2 + beta * c, rel=1e-9)
    assert zero_threshold(x, y) == pytest.approx(10.0, rel=1e-9)


def test_univariate_data_separate_by_sign():
    rng = np.random.default_rng(1)
    x, y, beta = rng.standard_normal(9), rng.standard_normal(9), 0.3
    # One dimension has the two cones u > 0 and u < 0: two scalar lassos.
    expected = 0.0
    for side in (x > 0, x < 0):
        a, t = np.abs(x[side]), y[side]
        c = np.sign(a @ t) * max(abs(a @ t) - beta, 0) / (a @ a)
        expected += 0.5 * np.sum((c * a - t) ** 2) + beta * abs(c)
    assert train(x[:, None], y, beta).objective == pytest.approx(expected, rel=1e-9)


def test_symmetries():
    X, y = planted(25, 3)
    beta = zero_threshold(X, y) / 10
    reference = train(X, y, beta)
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    order = rng.permutation(25)
    same = [
        train(X @ rotation, y, beta),
        train(X[order], y[order], beta),
        train(X, -y, beta),
        train(np.vstack([X, np.zeros((2, 3))]), np.append(y, [0.0, 0.0]), beta),
        train(np.column_stack([X, np.zeros(25)]), y, beta),
        # A repeated sample is one sample with both weights.
        train(np.vstack([X, X]) / np.sqrt(2), np.append(y, y) / np.sqrt(2), beta),
    ]
    for result in same:
        assert result.objective == pytest.approx(reference.objective, rel=1e-8)
    assert train(X, 3 * y, 3 * beta).objective == pytest.approx(9 * reference.objective, rel=1e-8)
    assert train(2 * X, y, 2 * beta).objective == pytest.approx(reference.objective, rel=1e-8)


def test_networks_are_balanced_and_minimal():
    X, y = planted(40, 3)
    network = train(X, y, zero_threshold(X, y) / 20).network
    assert np.allclose(
        np.linalg.norm(network.weights, axis=1), np.abs(network.output_weights), rtol=1e-12
    )
    # At most one neuron per sign and cell.
    keys = {
        (s, p.tobytes())
        for s, p in zip(network.output_weights > 0, X @ network.weights.T > 0, strict=False)
    }
    assert 0 < len(keys) <= network.n_neurons <= 41


def test_several_outputs():
    X, y = planted(20, 2)
    Y = np.column_stack([y, np.roll(y, 3)])
    beta = zero_threshold(X, Y) / 10
    result = train(X, Y, beta)
    assert result.certificate.verify()
    assert result.gap <= 1e-8
    assert result.network(X).shape == (20, 2)
    singles = sum(train(X, Y[:, k], beta).objective for k in range(2))
    assert result.objective == pytest.approx(singles, rel=1e-8)
    assert result.objective == pytest.approx(
        0.5 * np.sum((result.network(X) - Y) ** 2) + beta * result.network.penalty, rel=1e-12
    )


def local_search(X, y, beta, starts, seed):
    """Smallest non-convex objective reached by L-BFGS."""
    rng = np.random.default_rng(seed)
    d, m = X.shape[1], 12

    def objective(theta):
        u, a = theta[: m * d].reshape(m, d), theta[m * d :]
        z = X @ u.T
        hidden = np.maximum(z, 0)
        residual = hidden @ a - y
        du = ((residual[:, None] * a) * (z > 0)).T @ X + beta * u
        return 0.5 * residual @ residual + 0.5 * beta * theta @ theta, np.append(
            du, hidden.T @ residual + beta * a
        )

    return min(
        minimize(objective, 0.5 * rng.standard_normal(m * (d + 1)), jac=True, method="L-BFGS-B").fun
        for _ in range(starts)
    )


def check_local_search(seed, starts):
    X, y = planted(12, 2, seed)
    beta = zero_threshold(X, y) / 10
    result = train(X, y, beta)
    assert local_search(X, y, beta, starts, seed) >= result.dual_objective


def test_local_search_never_beats_a_certificate():
    check_local_search(0, 20)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_local_search_never_beats_a_certificate_long(seed):
    check_local_search(seed, 100)


def test_any_network_can_be_certified():
    X, y = planted(20, 3)
    beta = zero_threshold(X, y) / 10
    best = train(X, y, beta)
    rng = np.random.default_rng(0)
    for _ in range(5):
        weights, output = rng.standard_normal((4, 3)), rng.standard_normal(4)
        certificate = certify(X, y, beta, (weights, output))
        value = 0.5 * np.sum((np.maximum(X @ weights.T, 0) @ output - y) ** 2)
        value += 0.5 * beta * (np.sum(weights**2) + np.sum(output**2))
        assert certificate.objective == pytest.approx(value, rel=1e-12)
        assert certificate.dual_objective <= best.objective
        assert certificate.verify()
        # With the optimal dual point the gap is the exact suboptimality.
        sharp = certify(X, y, beta, (weights, output), dual=best.certificate.dual)
        assert sharp.dual_objective == pytest.approx(best.objective, rel=1e-8)
    assert certify(X, y, beta, best.network).gap <= 1e-8


def tampered(certificate):
    network, dual = certificate.network, certificate.dual
    yield Rejection.OBJECTIVE, {"objective": certificate.objective * (1 - 1e-9)}
    yield Rejection.DUAL_OBJECTIVE, {"dual_objective": certificate.objective}
    yield Rejection.CONSTRAINT, {"dual": dual * (1 + 1e-8)}
    yield (
        Rejection.CONSTRAINT,
        {"dual": certificate.y, "dual_objective": 0.5 * np.sum(certificate.y**2)},
    )
    yield Rejection.DUAL_OBJECTIVE, {"dual": dual * (1 - 1e-8)}
    yield (
        Rejection.OBJECTIVE,
        {"network": Network(network.weights * (1 + 1e-6), network.output_weights)},
    )
    yield Rejection.OBJECTIVE, {"network": Network(network.weights[1:], network.output_weights[1:])}
    yield Rejection.OBJECTIVE, {"beta": certificate.beta * (1 + 1e-8)}
    yield Rejection.OBJECTIVE, {"y": certificate.y + 1e-6}
    yield Rejection.OBJECTIVE, {"X": certificate.X * (1 + 1e-6)}


@pytest.mark.parametrize("restricted", [False, True])
def test_tampered_certificates_are_rejected(restricted):
    X, y = planted(15, 3)
    patterns = sample_arrangements(X, 30, rng=np.random.default_rng(0)) if restricted else "all"
    certificate = train(X, y, zero_threshold(X, y) / 20, arrangements=patterns).certificate
    assert certificate.verify()
    for reason, change in tampered(certificate):
        verification = dataclasses.replace(certificate, **change).verify()
        assert not verification
        assert verification.reason is reason
    if restricted:
        elsewhere = dataclasses.replace(certificate, patterns=certificate.patterns[:1])
        assert elsewhere.verify().reason is Rejection.PATTERNS


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_dual_points_outside_the_domain_are_rejected(loss):
    X, y = planted(15, 2)
    certificate = train(X, np.sign(y), 1.0, loss=loss).certificate
    assert certificate.verify()
    wrong = np.where(
        np.arange(15) == np.argmax(np.abs(certificate.dual)), -certificate.dual, certificate.dual
    )
    assert dataclasses.replace(certificate, dual=wrong).verify().reason is Rejection.DOMAIN


def test_stopping_early_warns_and_still_bounds():
    X, y = planted(30, 3)
    beta = zero_threshold(X, y) / 50
    best = train(X, y, beta)
    with pytest.warns(RuntimeWarning, match="max_rounds"):
        early = train(X, y, beta, max_rounds=1)
    assert early.status is TrainingStatus.ROUNDS
    assert early.dual_objective <= best.objective <= early.objective
    assert early.gap > 1e-8
    with pytest.warns(RuntimeWarning, match="max_nodes"):
        blind = train(X, y, beta, max_nodes=4)
    assert blind.status is TrainingStatus.BUDGET
    assert blind.dual_objective <= best.objective <= blind.objective
    assert blind.certificate.verify()


def test_objectives_decrease_over_rounds():
    X, y = planted(60, 3)
    history = train(X, y, zero_threshold(X, y) / 50).history
    values = [r.objective for r in history]
    assert len(values) > 2
    assert all(b <= a for a, b in pairwise(values))
    assert history[-1].exact
    assert history[-1].violation == 0.0
    # Round 0 prices the zero network, whose dual norm is the threshold.
    assert history[0].violation == pytest.approx(49.0, rel=1e-6)


def test_the_gap_asked_for_leaves_half_of_it_to_rounding():
    for seed, tol in ((0, 1e-2), (1, 1e-4), (2, 1e-6)):
        X, y = planted(30, 3, seed)
        solution = train(X, y, zero_threshold(X, y) / 20, tol=tol)
        assert solution.certificate.gap <= 0.5 * tol


def test_labels_and_options_are_checked():
    X, y = planted(10, 2)
    with pytest.raises(ValueError, match="y: expected labels"):
        train(X, y, 1.0, loss="hinge")
    with pytest.raises(ValueError, match="network: expected no biases"):
        certify(X, y, 1.0, Network(np.ones((1, 2)), np.ones(1), np.ones(1)))
    with pytest.raises(ValueError, match="arrangements: expected entries 0 and 1"):
        train(X, y, 1.0, arrangements=np.full((2, 10), 0.5))


def test_a_callback_sees_the_rounds_and_stops_with_a_valid_bound():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 3)), rng.standard_normal(30)
    seen: list[Round] = []
    whole = train(X, y, 0.1, callback=seen.append)
    assert tuple(seen) == whole.history
    with pytest.warns(RuntimeWarning, match="stopped by the callback"):
        stopped = train(X, y, 0.1, callback=lambda r: True)
    assert stopped.status is TrainingStatus.STOPPED
    assert len(stopped.history) == 1
    assert stopped.dual_objective <= whole.objective <= stopped.objective
    assert stopped.certificate.verify().accepted


def test_the_summary_says_what_was_solved():
    text = train([[1.0], [2.0]], [1.0, 1.0], 0.1, skip=True).summary()
    assert "2 x 1, squared loss, penalty 0.1" in text
    assert "skip connection" in text
    assert text.endswith(TrainingStatus.CERTIFIED.value)


def test_a_curve_shows_the_network_the_data_and_every_bend():
    x, y = np.array([-1.0, 0.0, 2.0]), np.array([1.0, -1.0, 0.5])
    # Bends at -0.5 and 1, one beyond the data, and a neuron that has none.
    weights, biases = np.array([[2.0], [-1.0], [1.0], [0.0]]), np.array([1.0, 1.0, -3.0, 2.0])
    network = Network(weights, np.array([1.0, -1.0, 4.0, 0.5]), biases)
    ax = draw_network(network, x[:, None], y, Figure().add_subplot())
    curve, bends, points = (line.get_data() for line in ax.lines)
    np.testing.assert_allclose(curve[0], [-1.3, -0.5, 1.0, 2.3])
    np.testing.assert_allclose(np.sort(bends[0]), [-0.5, 1.0])
    for at, values in (curve, bends):
        np.testing.assert_allclose(values, network(at[:, None]))
    np.testing.assert_array_equal(points, [x, y])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("input", "output")
    # Data that do not differ have a margin, too.
    line = draw_network(network, np.ones((2, 1)), y[:2], Figure().add_subplot()).lines[0]
    np.testing.assert_allclose(line.get_xdata()[[0, -1]], [0.9, 1.1])


def test_a_map_shows_the_network_the_data_and_every_bend():
    rng = np.random.default_rng(1)
    X, y = rng.uniform(-1.0, 1.0, (9, 2)) * [1.0, 3.0], rng.standard_normal(9)
    weights, biases = np.array([[2.0, 0.5], [-1.0, 1.0], [0.3, 0.1]]), np.array([0.5, -0.2, 9.0])
    network = Network(weights, np.array([1.0, -2.0, 0.1]), biases)
    ax = draw_network(network, X, y, Figure().add_subplot())
    filled, *lines, points = ax.collections
    low, high = X.min(axis=0), X.max(axis=0)
    box = np.array([low - 0.1 * (high - low), high + 0.1 * (high - low)])
    levels = filled.levels
    width = levels[1] - levels[0]
    for level, path in zip(levels, filled.get_paths(), strict=False):
        vertices = path.vertices[path.codes != 79]
        assert np.all((vertices >= box[0] - 1e-9) & (vertices <= box[1] + 1e-9))
        values = network(vertices)
        assert np.all((values >= level - 0.05 * width) & (values <= level + 1.05 * width))
    vertices = np.vstack([path.vertices for path in filled.get_paths()])
    np.testing.assert_allclose([vertices.min(axis=0), vertices.max(axis=0)], box)
    grid = np.stack(np.meshgrid(*np.linspace(*box, 200).T), axis=-1).reshape(-1, 2)
    size = np.abs(network(grid)).max()
    for drawn in (filled, points):
        assert drawn.get_clim() == pytest.approx((-size, size), rel=1e-9)
    np.testing.assert_array_equal(points.get_offsets(), X)
    np.testing.assert_array_equal(points.get_array(), y)
    # The third neuron bends nowhere here.
    assert len(lines) == 2
    for line, w, b in zip(lines, weights, biases, strict=False):
        at = line.get_paths()[0].vertices
        assert len(at) > 100
        np.testing.assert_allclose(at @ w + b, 0.0, atol=1e-9)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("first input", "second input")
    nothing = Network(np.zeros((0, 2)), np.zeros(0))
    assert draw_network(nothing, X, y, Figure().add_subplot()).collections[-1].get_clim() == (-1, 1)


def test_a_plot_is_of_the_solution_and_of_at_most_two_inputs_and_one_output():
    X = np.random.default_rng(1).standard_normal((12, 1))
    solution = train(X, np.abs(X[:, 0]), 0.01, bias=True)
    ax = solution.plot(Figure().add_subplot())
    x, f = ax.lines[0].get_data()
    # The curve is linear between its points: the network everywhere.
    grid = np.linspace(x.min(), x.max(), 500)
    np.testing.assert_allclose(np.interp(grid, x, f), solution.network(grid[:, None]))
    for data, y in ((np.eye(3), np.eye(3)[0]), (np.eye(2), np.eye(2))):
        with pytest.raises(ValueError, match="network: expected at most two inputs"):
            train(data, y, 0.1).plot()


def test_the_state_dict_gives_the_outputs_by_matrix_products():
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((10, 3)), rng.standard_normal((10, 2))
    network = train(X, Y, 0.5, bias=True, skip=True).network
    w = network.state_dict()
    hidden = np.maximum(X @ w["hidden.weight"].T + w["hidden.bias"], 0)
    outputs = hidden @ w["output.weight"].T + X @ w["skip.weight"].T + w["skip.bias"]
    np.testing.assert_allclose(outputs, network(X), atol=1e-12)


def test_dependent_neurons_end_training_without_an_error(monkeypatch):
    def fail(*_):
        raise np.linalg.LinAlgError("Matrix is singular to machine precision.")

    monkeypatch.setattr("theorylab.convex_relu._minimiser.descend", fail)
    X, y = np.random.default_rng(0).standard_normal((2, 6, 2))
    with pytest.warns(RuntimeWarning, match="relative gap"):
        result = train(X, y[:, 0], 0.1, max_rounds=5)
    assert result.status is not TrainingStatus.CERTIFIED
    assert result.certificate.verify()


def test_no_kernel_is_compiled_twice_for_the_read_only_arrays_of_a_certificate():
    X, y = np.random.default_rng(0).standard_normal((2, 6, 2))
    solution = train(X, y[:, 0], 0.1, arrangements=enumerate_arrangements(X))
    assert not solution.certificate.X.flags.writeable
    seen = []
    watched = {
        "theorylab.convex_relu._dual_norm": ("ascend", "cover", "search_branches"),
        "theorylab.convex_relu._constraint": ("cover", "search_branches"),
        "theorylab.convex_relu._cones": ("project",),
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, names in watched.items():
            for name in names:
                original = getattr(importlib.import_module(module), name)

                def watch(*given, original=original, **options):
                    seen.extend(a.flags.writeable for a in given if isinstance(a, np.ndarray))
                    return original(*given, **options)

                patch.setattr(f"{module}.{name}", watch)
        assert solution.certificate.verify()
        assert solution.certificate.unrestricted().verify()
    assert len(seen) > 20
    assert all(seen)
