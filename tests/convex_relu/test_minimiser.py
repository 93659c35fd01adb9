"""The parts of training one by one: the search for neurons, the local minimisation, and what can be
attained, against brute force and the conditions of optimality."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar, nnls

from theorylab.convex_relu import _minimiser, enumerate_arrangements, train, zero_threshold
from theorylab.convex_relu._attainment import interpolable, separating_map
from theorylab.convex_relu._dual_norm import search_sphere
from theorylab.convex_relu._minimiser import Minimiser, _Moreau
from theorylab.convex_relu._neurons import Neurons
from theorylab.convex_relu._pricing import Pricing
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu.losses import as_loss


def norm_by_projections(X, v, sign, patterns):
    """The largest ``sign v @ relu(X u)`` over the cones of the patterns, by non-negative least
    squares."""
    rows = [np.where(D, 1.0, -1.0)[:, None] * X for D in patterns]
    return max(nnls(R.T, -sign * X.T @ (D * v))[1] for R, D in zip(rows, patterns, strict=True))


def problem(seed, n=8, d=3, patterns=None, tol=1e-8, loss="squared"):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    y = y if loss == "squared" else np.sign(y)
    given = None if patterns is None else np.ascontiguousarray(enumerate_arrangements(X)[patterns])
    return X, y, Pricing(reduce_rows(X), given, tol, None)


# -------------------------------------------------------------------------- the search for neurons
@pytest.mark.parametrize("given", [None, slice(0, None, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_neurons_are_found_where_the_constraint_is_violated(seed, given):
    X, v, pricing = problem(seed, patterns=given)
    patterns = enumerate_arrangements(X)[slice(None) if given is None else given]
    norms = {s: norm_by_projections(X, v, s, patterns) for s in (1, -1)}
    norm = max(norms.values())
    for share in (0.3, 0.9, 1.0 - 1e-6):
        beta = share * norm
        found = pricing(v, beta)
        # Ascents may end a little below the top.
        assert 0.0 < found.violation <= 1.0 / share - 1.0 + 1e-9
        assert found.violation + 1.0 >= 0.999 / share
        assert not found.complete or given is not None
        best = {1: 0.0, -1: 0.0}
        for neuron in found.neurons:
            u = neuron.p / np.linalg.norm(neuron.p)
            z = X @ u
            value = neuron.sign * v @ np.where(neuron.active & ~neuron.tight, z, 0.0)
            assert value == pytest.approx(neuron.sign * v @ np.maximum(z, 0.0), abs=1e-9 * norm)
            # The length is the violation, and rows said to be held are.
            assert np.linalg.norm(neuron.p) == pytest.approx(value - beta, abs=1e-9 * norm)
            assert np.abs(z[neuron.tight]).max(initial=0.0) <= 1e-12
            assert np.all((z > -1e-12) == neuron.active, where=~neuron.tight & (abs(z) > 1e-9))
            if given is not None:
                assert np.array_equal(neuron.tight, abs(z) <= 1e-9)
            best[neuron.sign] = max(best[neuron.sign], value)
        # Both signs are sought.
        for sign, value in best.items():
            if norms[sign] > 1.001 * beta:
                assert value == pytest.approx(norms[sign], rel=1e-3)
    # A search is complete where nothing is to be found, and only there.
    assert pricing(v, (1.0 + 1e-8) * norm) == ([], 0.0, True, True)
    assert pricing(v, (1.0 - 1e-8) * norm).neurons
    # Ascents alone see what is well above rounding.
    assert pricing(v, (1.0 - 1e-5) * norm, exhaustive=False).neurons


def test_a_search_that_does_not_end_proves_nothing():
    X, v, pricing = problem(7, n=30)
    norm = zero_threshold(X, v)
    for sign in (1, -1):
        found = pricing(sign * v, (1.0 + 1e-9) * norm, max_nodes=3)
        assert not found.neurons
        assert not found.complete
        assert found.exact
        # Nor does one that was not asked for.
        assert pricing(sign * v, (1.0 + 1e-9) * norm, exhaustive=False) == ([], 0.0, False, False)
    # One sign may be easy, all weights being negative, and the other not.
    hard = np.where(np.arange(30) % 10 == 0, -0.01, 1.0) * np.abs(v)
    beta = (1.0 + 1e-9) * zero_threshold(X, hard)
    easy = [pricing(s * hard, beta, max_nodes=3).complete for s in (1, -1)]
    assert easy == [False, False]
    # Some budgets suffice for one of the signs, whichever comes first.
    ends = set()
    for budget in range(10, 400, 10):
        signs = [search_sphere(pricing.reduction, hard, s, beta, 1, budget)[1] for s in (1, -1)]
        ends.add(tuple(signs))
        for s in (1, -1):
            assert pricing(s * hard, beta, max_nodes=budget).complete == all(signs)
    assert ends == {(False, True), (True, True)}


@pytest.mark.parametrize(
    ("tol", "least", "most"),
    [(1e-2, 4e-3, 5e-3), (1e-5, 4e-6, 5e-6), (1e-8, 5e-11, 1e-10), (1e-11, 5e-13, 5e-12)],
)
def test_the_slack_is_below_half_of_the_tolerance(tol, least, most):
    X, v, pricing = problem(0, tol=tol)
    beta = zero_threshold(X, v)
    assert least <= pricing.slack(v, beta) <= most
    # Penalties next to rounding need more, and no more than rounding asks for.
    size = np.abs(v) @ np.linalg.norm(X, axis=1)
    for share in (1e-8, 1e-10):
        slack = pricing.slack(v, share * size)
        assert 2e-16 / share <= slack <= max(1e4 * 2e-16 / share, most)
    # Where rows repeat and labels cancel, that is the rounding of what is left.
    twins = Pricing(reduce_rows(np.vstack([X, X])), None, tol, None)
    difference = twins.slack(np.append(v, (1e-9 - 1.0) * v), 1e-9 * size)
    assert difference <= max(1e-6, most)


# -------------------------------------------------------------------------- local minimisation
@pytest.mark.parametrize("loss", ["hinge", "interpolation"])
def test_a_smoothed_loss_is_the_least_of_loss_and_distance(loss):
    rng = np.random.default_rng(1)
    y = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    base, step = as_loss(loss), 0.7
    smoothed = _Moreau(base, rng.standard_normal(6), step)
    f = 2.0 * rng.standard_normal(6)
    centre = f + step * smoothed.multiplier
    total = 0.0
    for c, t in zip(centre, y, strict=True):
        if loss == "interpolation":
            total += 0.5 / step * (t - c) ** 2
            continue
        total += minimize_scalar(
            lambda s, c=c, t=t: max(1 - t * s, 0) + 0.5 / step * (s - c) ** 2,
            bounds=(c - 2, c + 2),
            method="bounded",
            options={"xatol": 1e-10},
        ).fun
    assert smoothed.value(f, y) == pytest.approx(total, rel=1e-8)
    assert smoothed.curvature_bound == pytest.approx(1.0 / step)
    for k, h in enumerate(1e-5 * np.eye(6)):
        slope = (smoothed.value(f + h, y) - smoothed.value(f - h, y)) / 2e-5
        assert smoothed.gradient(f, y)[k] == pytest.approx(slope, abs=1e-8)
        bend = (smoothed.gradient(f + h, y) - smoothed.gradient(f - h, y))[k] / 2e-5
        assert smoothed.curvature(f, y)[k] == pytest.approx(bend, abs=1e-6)


def test_neurons_are_mixed_and_pruned_but_for_the_skip_connection():
    rng = np.random.default_rng(4)
    X = rng.standard_normal((7, 3))

    def drawn(m):
        p = rng.standard_normal((m + 1, 3))
        active = p @ X.T > 0.0
        active[0] = True
        sigma = np.append(1.0, rng.choice([-1.0, 1.0], m))
        return Neurons(p, sigma, active, np.zeros_like(active), 1)

    first, second = drawn(3), drawn(2)
    mixed = first.blend(second, 0.3)
    assert mixed.linear == 1
    assert len(mixed.sigma) == 6
    output = 0.7 * first.output(X) + 0.3 * second.output(X)
    np.testing.assert_allclose(mixed.output(X), output, atol=1e-14)
    norms = [np.linalg.norm(state.p[1:], axis=1).sum() for state in (first, second)]
    assert first.norm == pytest.approx(norms[0], rel=1e-14)
    assert mixed.norm == pytest.approx(0.7 * norms[0] + 0.3 * norms[1], rel=1e-14)
    first.p[:3] = 0.0
    assert first.pruned().p.tolist() == [[0.0, 0.0, 0.0], first.p[3].tolist()]


def penalised(X, y, beta, loss, p, sigma):
    """The objective with the neurons' true outputs."""
    value = loss.value(sigma @ np.maximum(p @ X.T, 0.0), y)
    return value + beta * np.linalg.norm(p, axis=1).sum()


@pytest.mark.parametrize("given", [None, slice(0, None, 2)])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("share", [0.3, 1e-2])
def test_added_neurons_descend_and_minimisers_are_stationary(loss, share, given):
    X, y, pricing = problem(3, patterns=given, loss=loss)
    chosen = as_loss(loss)
    v = -chosen.gradient(np.zeros(8), y)
    beta = share * zero_threshold(X, y, loss=loss)
    minimiser = Minimiser(pricing, chosen, beta, chosen.curvature_bound)
    state = Neurons.none(8, 3, 0)
    for _ in range(4):
        found = pricing(v, beta).neurons
        if not found:
            break
        before = minimiser.value(state, y)
        state = minimiser.add(state, found)
        assert minimiser.value(state, y) < before - 1e-12 * before
        added = minimiser.value(state, y)
        state, _, v = minimiser.minimise(state, y, np.zeros(8))
        assert minimiser.value(state, y) < added
        # Flags and outputs agree.
        p, sigma = state.p, state.sigma
        value = penalised(X, y, beta, chosen, p, sigma)
        assert minimiser.value(state, y) == pytest.approx(value, rel=1e-12)
        f = sigma @ np.maximum(p @ X.T, 0.0)
        np.testing.assert_allclose(v, -chosen.gradient(f, y), atol=1e-10 * np.abs(v).max())
        if given is not None:
            inside = (2.0 * state.active - 1.0) * (p @ X.T) >= -1e-10
            assert np.all(inside)
            continue
        # No neuron moved a little, and none made longer or shorter, is better.
        rng = np.random.default_rng(0)
        for _ in range(200):
            move = 1e-5 * rng.standard_normal(p.shape) * (rng.random((len(p), 1)) < 0.5)
            assert penalised(X, y, beta, chosen, p + move, sigma) >= value * (1.0 - 1e-14)
        for change in (0.999, 1.001):
            assert penalised(X, y, beta, chosen, change * p, sigma) >= value


def test_newton_descends_at_every_step_down_to_a_stationary_point():
    X, y, pricing = problem(3, loss="logistic")
    loss = as_loss("logistic")
    beta = 1e-4 * zero_threshold(X, y, loss="logistic")
    seen = []

    class Watched(Minimiser):
        def quadratic(self, state, b, kappa):
            trial = super().quadratic(state, b, kappa)
            seen.append((self.value(state, y), self.value(trial, y)))
            return trial

    # Outputs so large that the loss has hardly any curvature.
    rng = np.random.default_rng(0)
    p = 30.0 * rng.standard_normal((6, 3))
    active = p @ X.T > 0.0
    sigma = np.where(np.arange(6) % 2, 1.0, -1.0)
    state = Neurons(p, sigma, active, np.zeros_like(active), 0)
    minimiser = Watched(pricing, loss, beta, loss.curvature_bound)
    end = minimiser.newton(state, y, loss)
    values = np.array(seen)
    # Some full steps would have gone up; none of those taken do, but for the last, which ends it.
    assert np.any(values[:, 1] > values[:, 0])
    assert np.all(np.diff(values[:, 0]) < 0.0)
    assert minimiser.value(end, y) <= values[-1, 0]
    v = -loss.gradient(end.output(X), y)
    assert minimiser.refine_on_faces(end, y, v, 1.0)[2] <= 1e-6


@pytest.mark.parametrize("share", [1e-1, 1e-5, 1e-9])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_refined_neurons_and_dual_points_satisfy_the_conditions_to_rounding(loss, share):
    X, y, pricing = problem(5, n=6, d=2, loss=loss)
    chosen, beta = as_loss(loss), share * zero_threshold(X, y, loss=loss)
    solution = train(X, y, beta, loss=loss)
    network = solution.network
    p = network.weights * np.abs(network.output_weights)[:, None]
    # Spoiled in the eighth digit.
    spoiled = p * (1.0 + 1e-8 * np.random.default_rng(0).standard_normal(p.shape))
    z = p @ X.T
    tight = np.abs(z) <= 1e-9 * np.linalg.norm(p, axis=1)[:, None] * np.linalg.norm(X, axis=1)
    state = Neurons(spoiled, np.sign(network.output_weights), (z > 0.0) & ~tight, tight, 0)
    minimiser = Minimiser(pricing, chosen, beta, chosen.curvature_bound)
    refined, v, error = minimiser.refine(state, y, solution.certificate.dual, tol=1e-15)
    assert error <= 1e-10
    assert minimiser.refine_on_faces(refined, y, v, 1.0)[2] == pytest.approx(error, abs=1e-13)
    f = refined.output(X)
    np.testing.assert_allclose(chosen.gradient(f, y) + v, 0.0, atol=1e-12 * np.abs(y).max())
    for q, s, on, held in zip(refined.p, refined.sigma, refined.active, refined.tight, strict=True):
        pull = q / np.linalg.norm(q) - s * X.T @ (v / beta * (on & ~held))
        if held.any():
            pull = pull - X[held].T @ np.linalg.lstsq(X[held].T, pull, rcond=None)[0]
        assert np.abs(pull).max() <= 1e-9


@pytest.mark.parametrize(("seed", "share"), [(0, 0.3), (6, 0.1), (22, 0.1), (13, 1e-3)])
def test_multipliers_of_a_loss_with_kinks_are_those_of_the_optimum(seed, share):
    X, y, pricing = problem(seed, n=14, loss="hinge")
    hinge, beta = as_loss("hinge"), share * zero_threshold(X, y, loss="hinge")
    for stiffness in (share, 1e-3 * share):
        minimiser = Minimiser(pricing, hinge, beta, stiffness)
        state, multiplier, v = minimiser.minimise(Neurons.none(14, 3, 0), y, np.zeros(14))
        np.testing.assert_array_equal(multiplier, -v)
        assert np.all((v * y >= -1e-12) & (v * y <= 1.0 + 1e-12))
        assert zero_threshold(X, v) <= beta * (1.0 + 1e-9)
        value = penalised(X, y, beta, hinge, state.p, state.sigma)
        assert value == pytest.approx(v @ y, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_followed_to_tiny_penalties(seed):
    X, y, pricing = problem(seed)
    largest = np.abs(y @ pricing.features).max()
    for loss, target, beta in (("interpolation", 0.0, 1e-3), ("squared", 1e-7, 1e-7)):
        minimiser = Minimiser(pricing, as_loss(loss), beta * largest, 1.0)
        start = Neurons.none(8, 3, 0)
        state, v, followed = minimiser.approach(start, y, largest, target * largest, 50)
        assert followed
        f = state.sigma @ np.maximum(state.p @ X.T, 0.0)
        np.testing.assert_allclose(f, y - (target > 0.0) * v, atol=1e-12)
        # The dual point is feasible, and of the value of the network.
        assert zero_threshold(X, v) <= beta * largest * (1.0 + 1e-9)
        value = v @ y - 0.5 * (target > 0.0) * v @ v
        assert minimiser.value(state, y) - 0.5 * (target == 0.0) * (f - y) @ (f - y) == (
            pytest.approx(value, rel=1e-11)
        )


@pytest.mark.parametrize("seed", [1, 3, 4, 5, 7])
def test_a_row_held_in_vain_is_released_while_refining(seed):
    X, y, pricing = problem(seed)
    beta = 0.1 * zero_threshold(X, y)
    solution = train(X, y, beta)
    network = solution.network
    p = network.weights * np.abs(network.output_weights)[:, None]
    near = np.abs(p @ X.T) / np.linalg.norm(p, axis=1)[:, None] / np.linalg.norm(X, axis=1)
    tight = near <= 1e-9
    active = (p @ X.T > 0.0) & ~tight
    # The row nearest to a neuron is held, too.
    j, i = np.unravel_index(np.argmin(np.where(tight, 9.0, near)), near.shape)
    p[j] -= X[i] * (X[i] @ p[j]) / (X[i] @ X[i])
    held = tight.copy()
    held[j, i] = True
    state = Neurons(p, np.sign(network.output_weights), active, held, 0)
    minimiser = Minimiser(pricing, as_loss("squared"), beta, 1.0)
    v = y - state.output(X)
    on, _, error = minimiser.refine_on_faces(state, y, v, 1e-13)
    assert error <= 1e-12
    assert minimiser.value(on, y) > solution.objective * (1.0 + 1e-7)
    refined, v, error = minimiser.refine(state, y, v, tol=1e-13)
    assert error <= 1e-12
    assert np.array_equal(refined.tight, tight)
    assert minimiser.value(refined, y) == pytest.approx(solution.objective, rel=1e-12)
    np.testing.assert_allclose(v, y - refined.output(X), atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_neurons_stay_in_the_cones_they_are_given(seed):
    X, y, pricing = problem(seed, patterns=slice(0, 2))
    given = pricing.cones.patterns
    beta = 0.1 * max(norm_by_projections(X, y, sign, given) for sign in (1, -1))
    minimiser, v = Minimiser(pricing, as_loss("squared"), beta, 1.0), y
    state = Neurons.none(8, 3, 0)
    for _ in range(5):
        found = pricing(v, beta).neurons
        if not found:
            break
        state, _, v = minimiser.minimise(minimiser.add(state, found), y, y)
        for q, active in zip(state.p, state.active, strict=True):
            assert any(np.array_equal(active, D) for D in given)
            assert np.all((2.0 * active - 1.0) * (X @ q) >= -1e-12)


@pytest.mark.parametrize("rough", [True, False])
def test_the_skip_connection_is_free(rough):
    X, y, pricing = problem(2)
    minimiser = Minimiser(pricing, as_loss("squared"), 0.1 * zero_threshold(X, y), 1.0)
    state, _, v = minimiser.minimise(Neurons.none(8, 3, 1), y, y, rough=rough)
    expected = np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(state.p, [expected], atol=1e-10)
    beta = 0.3 * zero_threshold(X, v)
    minimiser = Minimiser(pricing, as_loss("squared"), beta, 1.0)
    for _ in range(10):
        found = pricing(v, beta).neurons
        if not found:
            break
        state, _, v = minimiser.minimise(minimiser.add(state, found), y, y, rough=rough)
        np.testing.assert_allclose(X.T @ v, 0.0, atol=1e-8 if rough else 1e-12)
    assert len(state.sigma) > 1
    best = train(X, y, beta, skip=True).objective
    assert minimiser.value(state, y) == pytest.approx(best, rel=1e-8)
    if not rough:
        assert minimiser.refine_on_faces(state, y, v, 1.0)[2] <= 1e-11


def test_a_face_is_orthogonal_to_its_rows_however_close_they_are():
    rows = np.array([[1.0, 0.0, 0.0, 0.0], [3.0, 3e-6, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    X = np.vstack([rows, np.eye(4), -7.0 * rows[0]])
    minimiser = Minimiser(Pricing(reduce_rows(X), None, 1e-8, None), as_loss("squared"), 1.0, 1.0)
    basis = minimiser._face_basis(np.arange(8) < 3)
    np.testing.assert_allclose(np.abs(basis), np.eye(4)[:, 2:] @ np.abs(basis[2:]), atol=1e-9)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-14)
    # The same line twice is one row.
    assert minimiser._face_basis(np.isin(np.arange(8), (0, 7))).shape == (4, 3)


# -------------------------------------------------------------------------- what can be attained
def test_targets_are_interpolated_if_they_are_in_the_span_of_neurons():
    rng = np.random.default_rng(2)
    base = rng.standard_normal((4, 3))
    power = np.array([1.0, -1.0, 1.0, 1.0, 3.0, 1.0, -0.3])
    X = power[:, None] * base[[2, 0, 1, 2, 0, 3, 1]]
    reduction = reduce_rows(X)
    neurons = np.maximum(X @ rng.standard_normal((3, 500)), 0.0)
    for _ in range(5):
        y = neurons @ rng.standard_normal(500)
        assert interpolable(reduction, None, False, y)
        for size, same in ((1e-8, False), (1e-14, True)):
            moved = y + size * np.abs(y).max() * (np.arange(7) == 3)
            # Two rows that are one demand one output.
            assert interpolable(reduction, None, False, moved) == same
    # A line of one direction has one output, of both directions two, each row on a line of its own
    # any.
    assert interpolable(reduction, None, False, np.array([0, 1.0, 0, 0, 0, 0, 0]))
    assert not interpolable(reduction, None, False, np.array([1.0, 0, 0, 0, 0, 0, 0]))
    assert interpolable(reduction, None, False, np.array([0, 0, 0, 0, 0, 1.0, 0]))


def test_targets_on_given_patterns_are_interpolated_by_their_rows_and_the_skip_connection():
    X = np.random.default_rng(6).standard_normal((8, 2))
    patterns = enumerate_arrangements(X)
    one = patterns[[int(np.argmax(patterns.sum(axis=1) == 5))]]
    reduction = reduce_rows(X)
    linear, half = X @ [1.0, -2.0], X @ [1.0, 3.0] * one[0]
    for y, skip, expected in (
        (half, False, True),
        (half, True, True),
        (linear, False, False),
        (linear, True, True),
        (linear + half, True, True),
        (linear + half, False, False),
        (np.eye(8)[0], True, False),
    ):
        assert interpolable(reduction, one, skip, y) == expected


def test_a_separating_map_beats_as_many_labels_as_can_be():
    rng = np.random.default_rng(8)
    X = np.vstack([rng.standard_normal((6, 3)), np.zeros((1, 3))])
    X[:3, 0] = 0.0
    y = np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0])
    X[3:6, 0] = 1e-3 * y[3:6] * np.array([1.0, 2.0, 30.0])
    # The first three rows, in a plane, carry labels that no map of the plane separates.
    X[:3, 1:] = np.array([[1.0, 0.0], [1.0, 1.0], [-1.0, 3.0]])
    X[2, 1:] = [1.0, 2.0]
    s = separating_map(X, y)
    margins = y * (X @ s)
    assert np.all(margins[3:6] >= 1.0 - 1e-9)
    assert margins[3:6].min() == pytest.approx(1.0)
    np.testing.assert_allclose(margins[[0, 1, 2, 6]], 0.0, atol=1e-9)
    # Contradicting labels on rows that span all leave none.
    contradicting = np.vstack([X, X])
    assert not separating_map(contradicting, np.append(y, -y)).any()


def test_a_descent_in_legs_ends_at_a_stationary_point(monkeypatch):
    X, y, pricing = problem(3, n=30, d=4)
    minimiser = Minimiser(pricing, as_loss("squared"), 0.05 * zero_threshold(X, y), 1.0)
    n, d = X.shape
    state = minimiser.add(Neurons.none(n, d, 0), pricing(y, minimiser.beta).neurons)
    steps, descend = [], _minimiser.descend

    def recorded(*args):
        steps.append(args[10])
        return descend(*args)

    monkeypatch.setattr(_minimiser, "descend", recorded)
    minimiser.quadratic(state, y, np.ones(n))
    assert steps == [500]
    steps.clear()
    monkeypatch.setattr(_minimiser, "LEG", 0.2 * state.p.size**2 * (n + state.p.size))
    parts = minimiser.quadratic(state, y, np.ones(n))
    assert set(steps) == {3}
    assert len(steps) > 1
    monkeypatch.undo()
    further = minimiser.quadratic(parts, y, np.ones(n))
    values = [minimiser.value(s, y) for s in (state, parts, further)]
    assert values[1] < values[0]
    assert values[2] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_step_of_refinement_solves_its_system_either_way(share):
    rng = np.random.default_rng(int(10 * share))
    n, size = 60, 7
    A, B, bend = (
        rng.normal(size=(n, size)),
        rng.normal(size=(size, n)),
        rng.normal(size=(size,) * 2),
    )
    diagonal = 0.3 * (rng.random(n) < share)
    top, bottom = rng.normal(size=n), rng.normal(size=size)
    if share == 0.0:  # then as many rows as neurons: the outputs alone decide
        A, B, diagonal, top, n = A[:size], B[:, :size], diagonal[:size], top[:size], size
    if share == 0.1:  # rows that give no z need neurons
        diagonal[size - 1 :] = 0.3
    solved = []
    for direct in (True, False):
        step = _minimiser._newton_step(A, diagonal, B, bend, top, bottom, direct=direct)
        p, z = step[:size], step[size:]
        np.testing.assert_allclose(A @ p + diagonal * z, top, atol=1e-10)
        np.testing.assert_allclose(B @ z - bend @ p, bottom, atol=1e-10)
        solved.append(step)
    np.testing.assert_allclose(*solved, rtol=1e-8, atol=1e-10)


def test_many_rows_are_refined_without_a_system_of_their_size(monkeypatch):
    sizes, solve = [], _minimiser._equilibrated_solve

    def recorded(system, right):
        sizes.append(len(right))
        return solve(system, right)

    monkeypatch.setattr(_minimiser, "_equilibrated_solve", recorded)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 3))
    y = np.maximum(X @ [1.0, 0.5, -0.3], 0.0) + 0.01 * rng.normal(size=1500)
    pricing = Pricing(reduce_rows(X), None, 1e-8, None)
    minimiser = Minimiser(pricing, as_loss("squared"), 0.1 * zero_threshold(X, y), 1.0)
    state = minimiser.add(Neurons.none(1500, 3, 0), pricing(y, minimiser.beta).neurons)
    state, _, v = minimiser.minimise(state, y, y)
    exact = minimiser.refine_on_faces(state, y, v, 1e-15)
    sizes.clear()
    v = v * (1.0 + 1e-6 * rng.normal(size=1500))
    found = minimiser.refine_on_faces(state, y, v, 1e-13)
    assert 0 < max(sizes) < 100
    assert found[2] <= 1e-12
    np.testing.assert_allclose(found[1], exact[1], atol=1e-11 * np.abs(y).max())
