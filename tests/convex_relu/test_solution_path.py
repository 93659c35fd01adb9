"""The path against closed forms, cvxpy, independent certificates and its own derivative."""

from dataclasses import replace
from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theorylab.convex_relu import (
    Weighted,
    breakpoints,
    dual_norm,
    enumerate_arrangements,
    is_minimal,
    sensitivity,
    solution_path,
    train,
    zero_threshold,
)
from theorylab.convex_relu._neurons import Neurons
from theorylab.convex_relu.optimal_set import find_optimal_set, vertices
from theorylab.convex_relu.solution_path import (
    PathStatus,
    optimal_set_distance,
    trace_solution_path,
)
from theorylab.convex_relu.training import Session, TrainingStatus, _between


def gaussian(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=n)


def objective(X, y, beta, network):
    return 0.5 * np.sum((network(X) - y) ** 2) + beta * network.penalty


Y = np.array([3.0, 4.0, -1.0, -2.0])


def shrink(y, beta):
    """Outputs for X = I: both signs shrink as a group."""
    up, down = np.maximum(y, 0), np.maximum(-y, 0)
    return up * max(1 - beta / np.linalg.norm(up), 0) - down * max(
        1 - beta / np.linalg.norm(down), 0
    )


def test_orthogonal_design_in_closed_form():
    path = trace_solution_path(np.eye(4), Y, min_ratio=0.05)
    assert path.beta_max == pytest.approx(5)
    for point in path.points:
        assert np.allclose(point.fit, shrink(Y, point.beta), atol=1e-8)
    for beta in (4.9, 3.1, 2.0, 0.7, 0.26):
        assert np.allclose(path.network(beta)(np.eye(4)), shrink(Y, beta), atol=0.15)
    # No neuron rotates: away from the breakpoint |y_-| = sqrt 5 the interpolation is exact.
    holds = (path.betas[1:] < np.sqrt(5)) & (path.betas[:-1] > np.sqrt(5))
    assert path.interval_gaps[~holds].max() < 1e-9
    assert np.sum(holds) == 1


def test_breakpoints_of_the_orthogonal_design():
    path = trace_solution_path(np.eye(4), Y, min_ratio=0.05, tol=1e-2)
    brackets = breakpoints(path, tol=1e-5)
    assert brackets.shape == (2, 2)
    for (low, high), expected in zip(brackets, (5.0, np.sqrt(5)), strict=True):
        assert low - 1e-9 <= expected <= high + 1e-9
        assert high - low <= 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_every_interpolated_network_is_within_its_certified_gap(seed):
    X, y = gaussian(8, 2 + seed % 2, seed)
    path = trace_solution_path(X, y, min_ratio=0.03, tol=1e-3)
    assert path.status is PathStatus.CERTIFIED
    assert path.gap <= 1e-3
    for beta in np.random.default_rng(seed).uniform(path.points[-1].beta, path.beta_max, size=12):
        network = path.network(beta)
        gap = path.interval_gaps[int(np.searchsorted(-path.betas, -beta)) - 1]
        assert is_minimal(X, network)
        best = train(X, y, beta, tol=1e-9)
        assert objective(X, y, beta, network) >= best.dual_objective
        assert objective(X, y, beta, network) <= best.objective * (1 + gap + 1e-9)


def test_interpolated_networks_against_the_full_convex_program():
    X, y = gaussian(6, 2, 7)
    path = trace_solution_path(X, y, min_ratio=0.03, tol=1e-3)
    blocks = [(cp.Variable(2), p, s) for p in enumerate_arrangements(X) for s in (1, -1)]
    prediction = sum(s * cp.multiply(p.astype(float), X @ v) for v, p, s in blocks)
    cones = [cp.multiply(2.0 * p - 1, X @ v) >= 0 for v, p, _ in blocks]
    for ratio in (0.8, 0.31, 0.07):
        beta = ratio * path.beta_max
        goal = 0.5 * cp.sum_squares(prediction - y) + beta * sum(cp.norm(v) for v, _, _ in blocks)
        value = cp.Problem(cp.Minimize(goal), cones).solve(solver=cp.CLARABEL)
        assert (
            value * (1 - 1e-7)
            <= objective(X, y, beta, path.network(beta))
            <= value * (1 + path.gap + 1e-7)
        )


@settings(max_examples=15)
@given(
    st.integers(0, 1000),
    st.integers(1, 8),
    st.integers(1, 3),
    st.sampled_from(["squared", "logistic"]),
)
def test_path_is_monotone_and_outputs_are_lipschitz(seed, n, d, loss):
    X, y = gaussian(n, d, seed)
    y = np.sign(y) if loss == "logistic" else y
    path = trace_solution_path(X, y, loss=loss, tol=1e-2, min_ratio=0.1)
    assert path.status is PathStatus.CERTIFIED
    assert np.all(np.diff(path.losses) <= 1e-8)
    assert np.all(np.diff(path.penalties) >= -1e-8)
    assert path.n_neurons[0] == 0
    assert path.network(2 * path.beta_max).n_neurons == 0
    for point in path.points:
        assert point.certificate.gap < 1e-8
        assert is_minimal(X, point.network)
        assert point.network.n_neurons <= n


def test_the_interval_gap_is_the_rotation_of_the_neurons():
    # To leading order the certified gap of a short interval is h^2 beta sum_j |p_j| |d dir_j / d
    # beta|^2 / 4.
    X, y = gaussian(8, 3, 3)
    full = trace_solution_path(X, y, min_ratio=0.3, tol=1e-5)
    inside = 0.35 * full.beta_max
    k = int(np.searchsorted(-full.betas, -inside))
    first, second = full.points[k - 1], full.points[k]
    middle = 0.5 * (first.beta + second.beta)
    s = sensitivity(X, y, middle, d_beta=1.0)
    lengths = np.linalg.norm(s.points, axis=1)
    units = s.points / lengths[:, None]
    turn = (s.d_points - units * np.sum(units * s.d_points, axis=1)[:, None]) / lengths[:, None]
    bend = (first.beta - second.beta) ** 2 * middle * np.sum(lengths * np.sum(turn**2, axis=1))
    assert full.interval_gaps[k - 1] * second.dual_objective == pytest.approx(bend / 4, rel=0.05)


def test_scaling_of_the_targets_scales_the_path():
    X, y = gaussian(6, 2, 5)
    one, two = trace_solution_path(X, y), trace_solution_path(X, 4 * y)
    assert two.beta_max == pytest.approx(4 * one.beta_max)
    assert np.allclose(two.betas, 4 * one.betas)
    assert np.allclose(two.losses, 16 * one.losses, atol=1e-9)


def test_bias_enters_as_a_column_of_ones():
    X, y = gaussian(6, 1, 2)
    one = trace_solution_path(X, y, bias=True, min_ratio=0.2)
    two = trace_solution_path(np.column_stack([X, np.ones(6)]), y, min_ratio=0.2)
    assert np.allclose(one.losses, two.losses, atol=1e-9)
    beta = 0.5 * one.beta_max
    assert np.allclose(
        one.network(beta)(X), two.network(beta)(np.column_stack([X, np.ones(6)])), atol=1e-7
    )


def test_stopping_early_warns_and_says_why():
    X, y = gaussian(8, 3, 0)
    with pytest.warns(RuntimeWarning, match="max_points"):
        path = trace_solution_path(X, y, tol=1e-6, max_points=5)
    assert path.status is PathStatus.POINTS
    assert len(path.points) == 5
    for points in (None, 2):  # which more points would not mend
        with pytest.warns(RuntimeWarning, match="tol is too small"):
            path = trace_solution_path(X, y, tol=1e-16, min_ratio=0.3, max_points=points)
        assert path.status is PathStatus.ENDPOINTS


def test_more_points_are_not_sought_where_the_ends_leave_no_room(monkeypatch):
    monkeypatch.setattr(solution_path, "_TRAIN_TOL", 1e-2)
    X, y = gaussian(20, 3, 0)
    ends = trace_solution_path(X, y, tol=0.5, min_ratio=0.3)
    own = max(point.certificate.gap for point in ends.points)
    assert 1e-4 < own < 0.1 * ends.gap
    with pytest.warns(RuntimeWarning, match="tol is too small"):
        path = trace_solution_path(X, y, tol=1.8 * own, min_ratio=0.3)
    assert path.status is PathStatus.ENDPOINTS
    assert len(path.points) == 2


def test_a_path_ends_with_its_work_where_no_number_of_points_is_given(monkeypatch):
    X, y = gaussian(20, 6, 0)
    full = trace_solution_path(X, y, tol=1e-2)
    monkeypatch.setattr(solution_path, "MINUTE", 1e6)
    with pytest.warns(RuntimeWarning, match="about a minute"):
        short = trace_solution_path(X, y, tol=1e-2)
    assert short.status is PathStatus.WORK
    assert 2 <= len(short.points) < len(full.points)
    assert short.gap > 1e-2 >= full.gap
    # The gap holds between the points, too.
    beta = 0.5 * (short.betas[-1] + short.betas[-2])
    assert short.certificate(beta).gap <= short.gap
    assert trace_solution_path(X, y, tol=1e-2, max_points=50).status is full.status


@pytest.mark.filterwarnings("ignore:relative gap")
def test_a_training_beyond_its_budget_is_not_repeated(monkeypatch):
    X, y = gaussian(40, 6, 0)
    trained, train = [], Session.train

    def counted(self, beta):
        trained.append(train(self, beta))
        return trained[-1]

    monkeypatch.setattr(Session, "train", counted)
    monkeypatch.setattr("theorylab.convex_relu._rounds.node_budget", lambda *given: 100)
    path = trace_solution_path(X, y)
    assert path.status is PathStatus.ENDPOINTS
    assert [result.status.name for result in trained] == ["CERTIFIED", "BUDGET"]
    assert all(point.certificate.verify() for point in path.points)


def test_a_callback_sees_the_penalties_and_ends_the_path_with_valid_gaps():
    X, y = gaussian(20, 2, 0)
    seen = []

    def watch(point):
        seen.append(point.beta)
        return len(seen) == 3

    with pytest.warns(RuntimeWarning, match="callback"):
        path = trace_solution_path(X, y, callback=watch)
    assert path.status is PathStatus.STOPPED
    assert len(path.points) == 5
    assert set(seen) == set(path.betas[1:-1])
    whole = trace_solution_path(X, y, callback=lambda point: None)
    assert whole.status is PathStatus.CERTIFIED
    for beta in whole.betas[::3]:
        k = int(np.searchsorted(-path.betas, -beta))
        gap = path.interval_gaps[max(k - 1, 0)]
        assert objective(X, y, beta, path.network(beta)) <= train(X, y, beta).objective * (
            1 + gap + 1e-9
        )


def test_refusals():
    X, y = gaussian(3, 2, 0)
    with pytest.raises(ValueError, match="y: expected targets"):
        trace_solution_path(np.zeros((3, 2)), y)
    path = trace_solution_path(X, y, min_ratio=0.5)
    with pytest.raises(ValueError, match="beta"):
        path.network(0.1 * path.beta_max)


@pytest.mark.parametrize(
    ("n", "d", "loss", "bias"),
    [(40, 2, "squared", True), (30, 3, "squared", False), (20, 2, "logistic", False)],
)
def test_every_point_is_the_cold_optimum_and_verified(n, d, loss, bias):
    X, y = gaussian(n, d, n)
    y = np.sign(y) if loss == "logistic" else y
    path = trace_solution_path(X, y, loss=loss, bias=bias, tol=3e-3)
    assert path.status is PathStatus.CERTIFIED
    for point in path.points:
        cold = train(X, y, point.beta, loss=loss, bias=bias, tol=1e-9)
        assert point.objective == pytest.approx(cold.objective, rel=2e-9)
        assert point.certificate.gap <= 1e-9
        assert point.certificate.verify()


@pytest.mark.parametrize(("loss", "bias"), [("squared", False), ("squared", True), ("logistic", 0)])
@pytest.mark.parametrize("least", [0.05, 1e-4])
def test_certificates_between_solved_points_are_verified(loss, bias, least):
    X, y = gaussian(12, 2, 4)
    y = np.sign(y) if loss == "logistic" else y
    path = trace_solution_path(X, y, loss=loss, bias=bool(bias), tol=1e-2, min_ratio=least)
    for k, (first, second) in enumerate(zip(path.points, path.points[1:], strict=False)):
        for theta in (1e-9, 0.3, 0.5, 1 - 1e-9):
            beta = (1 - theta) * first.beta + theta * second.beta
            certificate = path.certificate(beta)
            assert certificate.beta == beta
            assert certificate.verify()
            assert certificate.gap <= path.interval_gaps[k] * (1 + 1e-9)
            value = path.loss.value(path.network(beta)(X), path.y)
            assert certificate.objective == pytest.approx(
                value + beta * path.network(beta).penalty, rel=1e-12
            )
    # The mixture of the residuals is that of the fits, not only some feasible point.
    middle = path.points[1].beta * 0.5 + path.points[2].beta * 0.5
    expected = 0.5 * (path.points[1].certificate.dual + path.points[2].certificate.dual)
    assert np.allclose(path.certificate(middle).dual, expected, rtol=1e-9, atol=0)
    above = path.certificate(1.5 * path.beta_max)
    assert above.network.n_neurons == 0
    assert above.gap <= 1e-9
    assert above.verify()


@pytest.mark.parametrize("kind", ["hinge", "weighted hinge", "weighted squared", "logistic"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_interval_gap_bounds_that_of_every_mixture(kind, bias):
    X, y = gaussian(12, 2, 2)
    y = y if "squared" in kind else np.sign(y)
    loss = kind.split()[-1]
    loss = Weighted(loss, np.geomspace(0.3, 3, 12)) if "weighted" in kind else loss
    path = trace_solution_path(X, y, loss=loss, bias=bias, tol=1e-2, min_ratio=0.1)
    assert path.status is PathStatus.CERTIFIED
    shares = []
    for k, (first, second) in enumerate(pairwise(path.points)):
        for theta in (0.1, 0.25, 0.5, 0.75):
            gap = path.certificate((1 - theta) * first.beta + theta * second.beta).gap
            assert gap <= path.interval_gaps[k] * (1 + 1e-9) + 1e-12
            shares.append(gap / max(path.interval_gaps[k], 1e-8))
    # Of the logistic loss only the dual's curvature is counted.
    assert max(shares) > (0.3 if kind == "logistic" else 0.7)


def test_an_interpolating_network_has_no_path():
    X, y = gaussian(4, 2, 0)
    for refused in (trace_solution_path, zero_threshold):
        with pytest.raises(ValueError, match="loss: expected one that is finite at zero"):
            refused(X, y, loss="interpolation")


@pytest.mark.parametrize("beta", [None, "a", True, np.nan, 0.1])
def test_a_penalty_that_is_none_of_the_path_is_named(beta):
    X, y = gaussian(4, 2, 0)
    path = trace_solution_path(X, y, min_ratio=0.5)
    for method in (path.network, path.certificate):
        with pytest.raises(ValueError, match="beta: expected"):
            method(beta)


def test_points_are_pruned_where_training_leaves_dependent_neurons():
    rng = np.random.default_rng(12)
    X, W, a = rng.standard_normal((200, 2)), rng.standard_normal((5, 2)), rng.standard_normal(5)
    y = np.maximum(X @ W.T, 0) @ a + 0.1 * rng.standard_normal(200)
    path = trace_solution_path(X, y, tol=5e-5)
    # The certificates hold what training found.
    assert not all(is_minimal(X, point.certificate.network) for point in path.points)
    assert all(is_minimal(X, point.network) for point in path.points)


@pytest.mark.parametrize("between", [False, True])
def test_a_dual_point_that_just_violates_is_refused(between):
    X, y = gaussian(30, 3, 1)
    path = trace_solution_path(X, y, tol=1e-2)
    beta = path.betas[3] if not between else 0.5 * (path.betas[3] + path.betas[4])
    certificate = path.certificate(beta)
    norm = dual_norm(X, certificate.dual).attained
    for factor, accepted in ((1 - 1e-7, True), (1 + 1e-7, False)):
        dual = certificate.dual * (factor * beta / norm)
        value = path.loss.dual(dual, y)
        moved = replace(certificate, dual=dual, dual_objective=value)
        assert bool(moved.verify()) is accepted


@pytest.mark.parametrize(
    "settings", [{"loss": "hinge"}, {"skip": True}, {"outputs": 2}, {"loss": "logistic"}]
)
def test_a_session_finds_the_cold_optimum_between_its_neighbours(settings):
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((14, 2)), rng.standard_normal(14)
    options = dict(settings)
    if options.pop("outputs", 1) == 2:
        y = np.column_stack([y, rng.standard_normal(14)])
    y = np.sign(y) if "loss" in options else y
    session = Session(X, y, tol=1e-8, **options)
    # The last one has been solved before.
    for beta in (1.0, 0.1, 0.4, 0.2, 0.15, 0.4):
        warm, cold = session.train(beta), train(X, y, beta, tol=1e-8, **options)
        assert warm.status is TrainingStatus.CERTIFIED
        assert warm.objective == pytest.approx(cold.objective, rel=3e-8)
        assert warm.certificate.verify()


def test_a_penalty_between_two_solved_ones_starts_from_their_mixture():
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((40, 2)), rng.standard_normal(40)
    top = zero_threshold(X, y)
    session = Session(X, y, tol=1e-9)
    for ratio in np.geomspace(0.5, 0.05, 9):
        session.train(ratio * top)
    between = top * np.geomspace(0.45, 0.055, 8)
    rounds = [len(session.train(b).history) for b in between]
    cold = [len(train(X, y, b, tol=1e-9).history) for b in between]
    # Rounds, not seconds: two are a neuron to add, and the proof.
    assert sum(rounds) <= 2 * len(between)
    assert sum(rounds) <= 0.45 * sum(cold)


def test_a_penalty_starts_from_the_nearest_one_solved():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 2)), rng.standard_normal(40)
    betas = zero_threshold(X, y) * np.geomspace(0.5, 0.02, 8)
    session = Session(X, y, tol=1e-9)
    warm, cold = [session.train(b) for b in betas], [train(X, y, b, tol=1e-9) for b in betas]
    for first, second in zip(warm, cold, strict=True):
        assert first.objective == pytest.approx(second.objective, rel=2e-9)
        assert first.certificate.verify()
    # Rounds, not seconds: every penalty needs one to be certified.
    assert sum(len(r.history) for r in warm) <= 0.6 * sum(len(r.history) for r in cold)


def test_distance_of_optimal_sets_in_closed_form():
    # Orthogonal rows, opposite signs: block k has length (|y_k| |x_k| - beta) / |x_k|^2.
    X, y = np.diag([1.0, 2.0]), np.array([1.0, -2.0])
    one, two = (find_optimal_set(X, y, beta) for beta in (0.3, 0.5))
    expected = 0.2 * np.hypot(1.0, 0.25)
    assert optimal_set_distance(X, one, two) == pytest.approx(expected, rel=1e-9)
    assert optimal_set_distance(X, one, one) == pytest.approx(0.0, abs=1e-9)
    # Beyond beta = 1 the first block is gone: its whole length is what is missing.
    far = find_optimal_set(X, y, 1.5)
    assert optimal_set_distance(X, one, far) == pytest.approx(np.hypot(0.7, 1.2 / 4), rel=1e-9)


@pytest.mark.parametrize("sides", [6, 8])
def test_distance_of_polytopes_against_a_quadratic_program(sides):
    angles = 2 * np.pi * np.arange(sides) / sides + 0.1
    X, y = np.column_stack([np.cos(angles), np.sin(angles)]), np.ones(sides)
    one, two = (find_optimal_set(X, y, beta) for beta in (0.3, 0.4))
    order = np.argmax(one.directions @ two.directions.T, axis=1)
    farthest = 0.0
    for corner in vertices(one):
        weights = np.zeros(two.n_directions)
        weights[order] = corner
        c = cp.Variable(two.n_directions, nonneg=True)
        goal = cp.Minimize(cp.sum_squares(c - weights))
        cp.Problem(goal, [two.atoms @ c == two.fit]).solve(solver=cp.CLARABEL)
        farthest = max(farthest, float(np.linalg.norm(c.value - weights)))
    assert optimal_set_distance(X, one, two) == pytest.approx(farthest, rel=1e-6)


def test_distances_of_single_neurons_that_turn_or_change_sign():
    # All rows in one open half-plane, and a linear map there: a ridge-like neuron turns.
    X = np.random.default_rng(0).random((6, 2))
    y = X @ [1.0, 2.0]
    one, two = (find_optimal_set(X, y, beta) for beta in (0.5, 0.3))
    assert one.n_directions == two.n_directions == 1
    blocks = [s.weights[0] * s.directions[0] for s in (one, two)]
    cosine = one.directions[0] @ two.directions[0]
    assert 0.9 < cosine < 1 - 1e-6
    expected = np.linalg.norm(blocks[0] - blocks[1])
    assert optimal_set_distance(X, one, two) == pytest.approx(expected, rel=1e-9)
    # The same neuron with the other sign is none of it: both count in full.
    other = find_optimal_set(X, -y, 0.5)
    np.testing.assert_allclose(other.directions, one.directions, atol=1e-7)
    expected = np.sqrt(2) * one.weights[0]
    assert optimal_set_distance(X, one, other) == pytest.approx(expected, rel=1e-6)


def test_a_coarse_path_keeps_its_gaps_down_to_the_least_penalty():
    for seed in range(3):
        X, y = gaussian(8, 2, seed)
        path = trace_solution_path(X, y, min_ratio=0.002, tol=0.5)
        # Intervals are halved.
        middles = 0.5 * (path.betas[0] + path.betas[-1])
        assert np.abs(path.betas - middles).min() <= 1e-12 * path.beta_max
        for k, gap in enumerate(path.interval_gaps):
            for theta in (0.3, 0.6, 0.9, 0.97):
                beta = (1 - theta) * path.betas[k] + theta * path.betas[k + 1]
                best = train(X, y, beta)
                value = objective(X, y, beta, path.network(beta))
                assert value <= best.objective * (1 + gap + 1e-9)


def test_brackets_that_touch_hold_one_breakpoint(monkeypatch):
    path = trace_solution_path(np.eye(4), Y, min_ratio=0.5, tol=0.1)

    def faces(path, beta):
        # A third set of faces on an interval narrower than the brackets.
        return frozenset({(int(beta < 3.7) + int(beta < 3.7 - 0.4e-3), b"", b"")})

    monkeypatch.setattr("theorylab.convex_relu._breakpoints._active_faces", faces)
    first, *rest = breakpoints(path, tol=2e-4)
    assert first[1] == pytest.approx(path.beta_max)
    assert len(rest) == 1
    assert rest[0][0] <= 3.7 - 0.4e-3 <= 3.7 <= rest[0][1]
    assert rest[0][1] - rest[0][0] <= 2.001e-3


def test_the_start_between_two_penalties_is_their_mixture():
    X, y = gaussian(12, 2, 3)
    session = Session(X, y, tol=1e-9)
    for beta in (0.5, 0.1):
        session.train(beta)
    (upper, first, v), (lower, second, w) = session.memory[0]
    beta, state, dual = _between(session.memory[0], 0.8 * upper + 0.2 * lower)
    assert beta == 0.8 * upper + 0.2 * lower
    assert np.allclose(state.output(X), 0.8 * first.output(X) + 0.2 * second.output(X))
    assert np.allclose(dual, 0.8 * v + 0.2 * w)
    assert _between(session.memory[0], 2 * upper)[0] == upper
    # Where one has been solved it is the start, and no neurons are none.
    for known, state, dual in session.memory[0]:
        again = _between(session.memory[0], known)
        assert np.allclose(again[1].output(X), state.output(X))
        assert np.allclose(again[2], dual)
    assert _between([(upper, Neurons.none(12, 2, 0), v)], lower) is None


def test_a_start_from_which_no_digits_are_found_is_left():
    # Neurons descended to without digits, of which two all but agree, once ended in a gap of 4e-9.
    rng = np.random.default_rng(19)
    rng.integers(3, 30), rng.integers(1, 5)
    X, y = rng.standard_normal((18, 2)), np.sign(rng.standard_normal(18))
    path = trace_solution_path(X, y, tol=1e-3, loss="logistic", min_ratio=0.01)
    assert max(point.certificate.gap for point in path.points) <= 1e-9


def test_a_start_without_digits_is_left_where_neurons_gain_nothing():
    # Once 71 rounds added 350 neurons that all but agree.
    rng = np.random.default_rng(744)
    rng.integers(3, 25), rng.integers(1, 4)
    X, _ = rng.standard_normal((23, 2)), (rng.integers(3), rng.integers(1, 5))
    y = np.where(rng.standard_normal(23) > 0.0, 1.0, -1.0)
    top = zero_threshold(X, y, loss="logistic")
    session = Session(X, y, loss="logistic", tol=1e-9)
    for share in (1.0, *10.0 ** rng.uniform(-3.0, 0.0, 9)):
        result = session.train(float(share * top))
        assert result.status is TrainingStatus.CERTIFIED
        assert len(result.history) <= 20


def test_path_starts_anew_where_the_neighbours_neurons_are_a_dead_end():
    # From the penalties around it the fourth training stalled with a relative gap of 0.29.
    X = [
        [1.9, 0.3, -0.1, 0.0],
        [-1.4, -0.6, 0.6, -1.1],
        [0.9, 0.7, 0.6, 2.6],
        [2.8, -0.6, 1.0, -0.5],
        [-0.8, 2.0, -1.1, 0.5],
        [2.0, 1.0, 0.2, -0.2],
    ]
    y = [-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]
    path = trace_solution_path(X, y, loss="hinge", tol=0.05)
    assert path.status is PathStatus.CERTIFIED
    assert all(point.certificate.verify() for point in path.points)
