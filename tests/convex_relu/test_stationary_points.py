"""Local minima against cvxpy on the sub-sampled program, closed forms, and a plain gradient
step."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theorylab.convex_relu import Network, _network_descent, train
from theorylab.convex_relu._network_descent import (
    DescentStatus,
    gradient_descent,
    network_objective,
)
from theorylab.convex_relu.stationary_points import (
    certify_subsampled,
    least_directional_derivative,
    local_minimum,
    tie_multipliers,
)


def gaussian(n, d, m, seed):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n, d)),
        rng.normal(size=n),
        (rng.normal(size=(m, d)), rng.normal(size=m)),
    )


def objective(X, y, beta, network):
    return 0.5 * np.sum((network(X) - y) ** 2) + beta * network.penalty


def subsampled_optimum(X, y, beta, patterns, signs):
    blocks = [cp.Variable(X.shape[1]) for _ in signs]
    prediction = sum(
        s * cp.multiply(p.astype(float), X @ v)
        for v, p, s in zip(blocks, patterns, signs, strict=True)
    )
    cones = [cp.multiply(2.0 * p - 1, X @ v) >= 0 for v, p in zip(blocks, patterns, strict=True)]
    goal = 0.5 * cp.sum_squares(prediction - y) + beta * sum(cp.norm(v) for v in blocks)
    return cp.Problem(cp.Minimize(goal), cones).solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("seed", range(6))
def test_local_minima_solve_the_program_of_their_own_cells(seed):
    X, y, start = gaussian(8, 3, 4, seed)
    point = local_minimum(X, y, 0.3, gradient_descent(X, y, 0.3, start, max_steps=3000).network)
    own = subsampled_optimum(X, y, 0.3, point.patterns, point.signs)
    every = subsampled_optimum(X, y, 0.3, point.certificate.patterns, point.certificate.signs)
    assert point.objective == pytest.approx(own, rel=1e-6)
    assert point.objective == pytest.approx(every, rel=1e-6)
    assert point.certificate.gap < 1e-11
    assert point.objective == pytest.approx(objective(X, y, 0.3, point.network), rel=1e-13)
    assert point.objective >= train(X, y, 0.3).dual_objective


@pytest.mark.parametrize("seed", range(6))
def test_the_certified_bound_is_below_the_program_of_any_network(seed):
    X, y, start = gaussian(7, 2, 3, seed)
    for cells in ("own", "all"):
        found = certify_subsampled(X, y, 0.2, start, cells=cells)
        optimum = subsampled_optimum(X, y, 0.2, found.patterns, found.signs)
        assert found.dual_objective <= optimum * (1 + 1e-7)
        assert found.objective >= optimum * (1 - 1e-7)


BRUTE = np.linspace(0.0, 1.0, 20001)


@pytest.mark.parametrize("seed", range(8))
def test_the_certified_bound_is_that_of_the_best_multiple_of_the_residual(seed):
    X, y, (first, output) = gaussian(7, 2, 3, seed)
    # Penalties for which the cells or the fit decide.
    output = output * 10.0 ** (-seed % 3)
    for beta in (0.3, 30.0):
        found = certify_subsampled(X, y, beta, (first, output))
        v = y - np.maximum(X @ first.T, 0) @ output
        longest = min(1 / found.dual_norm, np.sqrt((y @ y) / (v @ v)))
        best = max(c * (y @ v) - 0.5 * c**2 * (v @ v) for c in BRUTE * longest)
        assert best * (1 - 1e-12) <= found.dual_objective <= best + 1e-6 * (y @ y)
        assert found.gap == pytest.approx(1 - found.dual_objective / found.objective, rel=1e-9)


def test_the_certified_bound_holds_for_a_network_far_beyond_the_targets():
    # The residual points away from y: its negative multiples are not what the norm bounds.
    root = np.sqrt([[3.0]])
    found = certify_subsampled([[1.0]], [1.0], 0.5, (root, root[0]))
    assert found.objective == pytest.approx(3.5)
    assert found.dual_objective <= 0.375  # (p - 1)^2 / 2 + p / 2 at p = 1 / 2


def test_the_certified_bound_takes_multiples_above_one():
    # Half of the target is fitted; at this penalty zero is optimal, of value 1 / 2 like its bound.
    root = np.sqrt([[0.5]])
    found = certify_subsampled([[1.0]], [1.0], 30.0, (root, root[0]))
    assert found.dual_objective == pytest.approx(0.5, rel=1e-12)


def test_a_clarke_point_that_is_no_local_minimum():
    # One neuron along (0, 1), tied to x_1; each side of the tie offers force beta sqrt(1 + s^2).
    beta, s = 0.3, 0.75
    X, y = np.array([[1.0, 0.0], [-s, 1.0]]), np.array([2 * s * beta, beta + 1.0])
    network = Network(np.array([[0.0, 1.0]]), np.array([1.0]))
    certificate = certify_subsampled(X, y, beta, network)
    assert len(certificate.signs) == 2
    assert certificate.dual_norm == pytest.approx(np.sqrt(1 + s**2))
    assert certificate.gap > 1e-2
    # Half of the force of x_1 closes the Clarke condition: beta p = v_2 x_2 + v_1 x_1 / 2.
    v = y - network(X)
    assert np.allclose(v[1] * X[1] + 0.5 * v[0] * X[0], beta * np.array([0.0, 1.0]))
    assert (
        local_minimum(X, y, beta, (network.weights + 1e-9, network.output_weights)).objective
        < certificate.objective
    )


def test_one_sample_in_closed_form():
    # One row x, target y > 0: the only local minimum has |p| = (y - beta / |x|) / |x|.
    X, y, beta = np.array([[3.0, 4.0]]), np.array([2.0]), 0.5
    point = local_minimum(X, y, beta, (np.array([[1.0, 0.2]]), np.array([0.7])))
    assert point.network(X) == pytest.approx(2 - beta / 5)
    assert np.allclose(point.network.weights[0] / np.linalg.norm(point.network.weights), X[0] / 5)
    assert (
        local_minimum(X, y, beta, (np.array([[-1.0, 0.0]]), np.array([0.7]))).network.n_neurons == 0
    )


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 5),
    st.floats(0.02, 2.0),
)
def test_local_minima_are_local_minima(seed, n, d, m, beta):
    X, y, start = gaussian(n, d, m, seed)
    point = local_minimum(X, y, beta, start)
    assert point.certificate.gap < 1e-9
    assert point.objective <= objective(X, y, beta, Network(*start)) * (1 + 1e-12)
    u, a = point.network.weights, point.network.output_weights
    assert np.allclose(np.linalg.norm(u, axis=1), np.abs(a))
    rng = np.random.default_rng(seed)
    for size in (1e-6, 1e-4):
        for _ in range(20 if len(a) else 0):
            other = Network(
                u + size * rng.normal(size=u.shape), a + size * rng.normal(size=a.shape)
            )
            assert objective(X, y, beta, other) >= point.objective * (1 - 1e-12)


def test_neurons_that_vanish_or_are_dead_are_dropped():
    X, y, (u, a) = gaussian(9, 3, 5, 0)
    dead = -X[0] if np.all(X @ -X[0] <= 0) else np.zeros(3)
    start = (np.vstack([u, 1e-7 * u, dead]), np.concatenate([a, -1e-7 * a, [1.0]]))
    point = local_minimum(X, y, 0.8, start)
    assert point.certificate.gap < 1e-9
    assert np.all(np.abs(point.network.output_weights) > 1e-4)


def test_duplicated_opposite_and_zero_rows():
    X, y, start = gaussian(5, 2, 4, 1)
    X, y = np.vstack([X, X[0], -X[1], np.zeros(2)]), np.append(y, [0.2, -0.3, 1.0])
    point = local_minimum(X, y, 0.1, start)
    assert point.certificate.gap < 1e-9
    assert point.objective == pytest.approx(
        subsampled_optimum(X, y, 0.1, point.certificate.patterns, point.certificate.signs), rel=1e-6
    )


def test_rank_deficient_data():
    X, y, start = gaussian(5, 2, 4, 3)
    lift = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 2)))[0]
    low = local_minimum(X, y, 0.1, start)
    high = local_minimum(
        X @ lift.T,
        y,
        0.1,
        (
            start[0] @ lift.T
            + np.random.default_rng(1).normal(size=(4, 4)) @ (np.eye(4) - lift @ lift.T),
            start[1],
        ),
    )
    assert high.objective == pytest.approx(low.objective, rel=1e-9)
    assert np.allclose(high.network.weights @ (np.eye(4) - lift @ lift.T), 0, atol=1e-12)


def test_gradient_step_agrees_with_the_formula():
    X, y, (u, a) = gaussian(6, 3, 4, 0)
    beta, step = 0.2, 1e-3
    run = gradient_descent(X, y, beta, (u, a), step_size=step, max_steps=1)
    v = y - np.maximum(X @ u.T, 0) @ a
    expected_a = a + step * (np.maximum(X @ u.T, 0).T @ v - beta * a)
    expected_u = u + step * (a[:, None] * ((X @ u.T > 0) * v[:, None]).T @ X - beta * u)
    assert np.allclose(run.network.output_weights, expected_a)
    assert np.allclose(run.network.weights, expected_u)
    assert run.objectives[0] == pytest.approx(objective(X, y, beta, Network(u, a)))


@pytest.mark.parametrize("size", [0.1, 30.0])
def test_the_default_step_is_the_one_stated(size):
    X, y, (u, a) = gaussian(6, 3, 4, 0)
    u, y = size * u, y / size
    largest = np.sqrt(np.linalg.eigvalsh(X.T @ X)[-1])
    s = max(np.sqrt(y @ y) / largest, (u**2).sum(), (a**2).sum(), 1.0)
    step = 1 / (8 * largest**2 * s + 0.2)
    runs = [
        gradient_descent(X, y, 0.2, (u, a), step_size=h, max_steps=3).network for h in (None, step)
    ]
    np.testing.assert_allclose(runs[0].weights, runs[1].weights, rtol=1e-12)
    np.testing.assert_allclose(runs[0].output_weights, runs[1].output_weights, rtol=1e-12)


@pytest.mark.parametrize("large", [100.0, 1e7])
def test_a_short_neuron_that_is_needed_stays(large):
    # X = I and targets of both signs: two problems in one variable.
    start = Network(np.eye(2), np.array([1.0, -1.0]))
    point = local_minimum(np.eye(2), [large, -1.0], 0.5, start)
    assert sorted(point.signs) == [-1, 1]
    assert point.objective == pytest.approx(2 * 0.5**2 / 2 + 0.5 * large, rel=1e-12)


def test_ties_count_as_active():
    seen = 0
    for seed in range(8):
        X, y, start = gaussian(8, 2, 4, seed)
        point = local_minimum(X, y, 0.1, start)
        z = point.network.weights @ X.T
        ties = np.abs(z) <= 1e-9
        assert (point.ties == ties).all()
        assert (point.patterns == ((z > 0) | ties)).all()
        seen += ties.sum()
    assert seen > 0


def test_descent_falls_balances_and_says_how_it_ended():
    X, y, start = gaussian(8, 3, 4, 2)
    beta, step = 0.3, 1e-3
    run = gradient_descent(X, y, beta, start, step_size=step, max_steps=3000, tol=0.0)
    assert run.status is DescentStatus.STEPS
    assert run.n_steps == 3000
    assert np.all(np.diff(run.objectives) < 0)
    before = start[1] ** 2 - np.sum(start[0] ** 2, axis=1)
    # The imbalance shrinks by (1 - step beta)^2 a step, up to second order in the step.
    assert np.allclose(run.imbalance, before * (1 - step * beta) ** 6000, atol=20 * step)
    assert gradient_descent(X, y, beta, start, tol=1e-4).status is DescentStatus.CONVERGED
    assert gradient_descent(X, y, beta, start, step_size=10.0).status is DescentStatus.DIVERGED


@pytest.mark.parametrize("size", [(6, 3, 4), (60, 30, 150)])  # at once, and in portions
def test_a_descent_that_is_taken_up_again_is_the_same(size):
    X, y, start = gaussian(*size, 3)
    options = {"step_size": 1e-6, "tol": 0.0}
    whole = gradient_descent(X, y, 0.1, start, max_steps=1300, **options)
    first = gradient_descent(X, y, 0.1, start, max_steps=1000, **options)
    rest = gradient_descent(X, y, 0.1, first.network, max_steps=300, **options)
    assert whole.objectives.tolist() == [*first.objectives, rest.objectives[-1]]
    np.testing.assert_array_equal(whole.network.weights, rest.network.weights)
    np.testing.assert_array_equal(whole.network.output_weights, rest.network.output_weights)


def test_order_of_samples_and_neurons_does_not_matter():
    X, y, (u, a) = gaussian(8, 2, 4, 5)
    rows, neurons = np.random.default_rng(0).permutation(8), np.random.default_rng(1).permutation(4)
    one = local_minimum(X, y, 0.2, (u, a))
    two = local_minimum(X[rows], y[rows], 0.2, (u[neurons], a[neurons]))
    assert one.objective == pytest.approx(two.objective, rel=1e-9)


def test_networks_with_biases_are_refused():
    X, y, (u, a) = gaussian(4, 2, 3, 0)
    with pytest.raises(ValueError, match="network: expected no biases"):
        local_minimum(X, y, 0.1, Network(u, a, np.ones(3)))


@pytest.mark.parametrize("seed", range(4))
def test_the_least_directional_derivative_bounds_all_and_is_attained_at_ties(seed):
    # One neuron tied to the first row; a grid of directions of (u, a), all of unit length.
    rng = np.random.default_rng(seed)
    X, y, beta, step = rng.normal(size=(4, 2)), 2 * rng.normal(size=4), 0.3, 1e-7
    u, a = np.array([-X[0, 1], X[0, 0]]) / np.linalg.norm(X[0]), 0.8 * (-1) ** seed
    least = least_directional_derivative(X, y, beta, (u[None], [a]))
    t, s = np.meshgrid(np.linspace(0, 2 * np.pi, 181), np.linspace(-np.pi / 2, np.pi / 2, 91))
    moves = step * np.cos(s)[..., None] * np.stack([np.cos(t), np.sin(t)], axis=-1)

    def value(u, a):
        f = a[..., None] * np.maximum(u @ X.T, 0)
        squares = ((f - y) ** 2).sum(axis=-1)
        return 0.5 * squares + beta * ((u**2).sum(axis=-1) + a**2) / 2

    found = (value(u + moves, a + step * np.sin(s)) - value(u, np.array(a))) / step
    assert found.min() >= least - 1e-5
    assert found.min() == pytest.approx(least, rel=2e-3)


def test_without_ties_the_least_directional_derivative_is_that_of_the_gradient():
    X, y, (u, a) = gaussian(6, 2, 3, 1)
    theta = np.column_stack([u, a])

    def value(theta):
        return network_objective(X, y, 0.3, (theta[:, :2], theta[:, 2]))

    moves = 1e-6 * np.eye(9).reshape(9, 3, 3)
    slopes = [(value(theta + m) - value(theta - m)) / 2e-6 for m in moves]
    least = least_directional_derivative(X, y, 0.3, (u, a))
    assert least == pytest.approx(-np.linalg.norm(slopes), rel=1e-7)


def test_multipliers_of_a_tie_in_closed_form():
    # beta u = (0, b); x_1 = (1, 0) is tied with force v_1 = y_1, which its multiplier must undo.
    X, beta = np.array([[1.0, 0.0], [0.0, 1.0]]), 0.5
    network = Network(np.array([[0.0, 1.0]]), np.array([1.0]))
    for first in (-1.0, 1.0):
        y = np.array([first, 1.0 + beta])
        found = tie_multipliers(X, y, beta, network)
        assert np.allclose(found.multipliers, [[-first, 0.0]])
        assert np.allclose(found.limits, [[-first, 0.0]])
        assert np.allclose(found.residual, 0.0)
        stationary = least_directional_derivative(X, y, beta, network) > -1e-12
        assert stationary == (first < 0)
        assert stationary == (certify_subsampled(X, y, beta, network, cells="own").gap < 1e-12)
    off = tie_multipliers(X, np.array([-1.0, 2.0]), beta, network)
    assert off.residual == pytest.approx(0.5)


def test_multipliers_of_local_minima_are_within_their_limits():
    tied = set()
    for seed in range(8):
        X, y, start = gaussian(8, 3, 4, seed)
        point = local_minimum(X, y, 0.1, start)
        network = point.network
        found = tie_multipliers(X, y, 0.1, network)
        v = y - network(X)
        scale = np.abs(v).max()
        for u, s, ties, on, mu, limit in zip(
            network.weights,
            point.signs,
            point.ties,
            point.patterns,
            found.multipliers,
            found.limits,
            strict=True,
        ):
            slope = 0.1 * u / np.linalg.norm(u) - s * (on * v) @ X
            np.testing.assert_allclose(mu @ X, slope, atol=1e-7 * scale)
            assert not mu[~ties].any()
            assert not limit[~ties].any()
            np.testing.assert_allclose(limit[ties], -s * v[ties], rtol=1e-7, atol=1e-9 * scale)
            assert mu.min() >= -1e-7 * scale
            assert (mu <= limit + 1e-7 * scale).all()
            tied |= {s} if ties.any() else set()
        assert found.residual.max(initial=0.0) <= 1e-7 * scale
        # Where one neuron is turned the multipliers leave what they cannot reach.
        turned = network.weights @ np.linalg.qr(X[:3])[0]
        left = tie_multipliers(X, y, 0.1, (turned, network.output_weights))
        sides = turned @ X.T
        v = y - np.maximum(X @ turned.T, 0.0) @ network.output_weights
        expected = [
            np.linalg.norm(0.1 * u / np.linalg.norm(u) - s * ((z > 0) * v) @ X)
            for u, s, z in zip(turned, point.signs, sides, strict=True)
        ]
        np.testing.assert_allclose(left.residual, expected, rtol=1e-10)
    assert tied == {-1.0, 1.0}


def test_multipliers_beyond_their_limit_are_no_stationary_network():
    # A second row pulls along the tie: mu_1 = -v_1 + s v_2 with s > 0 exceeds -v_1.
    X, beta = np.array([[1.0, 0.0], [-0.7, 1.0]]), 0.5
    network = Network(np.array([[0.0, 1.0]]), np.array([1.0]))
    y = np.array([-1.0, 1.0 + beta])
    found = tie_multipliers(X, y, beta, network)
    assert found.multipliers[0, 0] == pytest.approx(1.0 + 0.7 * beta)
    assert certify_subsampled(X, y, beta, network, cells="own").gap < 1e-12
    assert least_directional_derivative(X, y, beta, network) == pytest.approx(-0.7 * beta)


def test_objective_of_an_unbalanced_network():
    X, y, (u, a) = gaussian(5, 2, 3, 0)
    direct = sum(0.5 * (a @ np.maximum(u @ x, 0) - t) ** 2 for x, t in zip(X, y, strict=True))
    direct += 0.15 * (np.sum(u**2) + np.sum(a**2))
    assert network_objective(X, y, 0.3, (u, a)) == pytest.approx(direct, rel=1e-13)


def test_descent_stops_where_the_callback_says_so():
    X, y, start = gaussian(8, 2, 3, 0)
    seen = []
    run = gradient_descent(
        X, y, 0.1, start, tol=0.0, callback=lambda p: seen.append(p) or len(seen) == 2
    )
    assert run.status is DescentStatus.STOPPED
    assert run.n_steps == 2000
    assert [p.iteration for p in seen] == [1000, 2000]
    assert [p.objective for p in seen] == list(run.objectives[1:])
    fall = -np.diff(run.objectives) / run.objectives[1:]
    assert np.allclose([p.error for p in seen], fall)
    assert network_objective(X, y, 0.1, run.network) == pytest.approx(run.objectives[-1])


@pytest.mark.parametrize("seed", range(4))
def test_the_dual_norm_is_the_largest_slope_over_the_cells(seed):
    X, y, (first, output) = gaussian(6, 2, 5, seed)
    found = certify_subsampled(X, y, 0.2, (first, output))
    v = y - np.maximum(X @ first.T, 0) @ output
    slopes = []
    for pattern, s in zip(found.patterns, found.signs, strict=True):
        u = cp.Variable(2)
        cone = [cp.multiply(2.0 * pattern - 1, X @ u) >= 0, cp.norm(u) <= 1]
        goal = cp.Maximize(s * (v * pattern) @ (X @ u))
        slopes.append(cp.Problem(goal, cone).solve(solver=cp.CLARABEL))
    assert found.dual_norm * 0.2 == pytest.approx(max(slopes), rel=1e-6)


def test_a_neuron_without_an_active_row_vanishes():
    # Its slope counts no tie, and the penalty shortens it.
    X, y = np.array([[1.0, 0.0], [-1.0, -1.0]]), np.array([1.0, 0.5])
    start = Network([[0.0, 1.0]], [1.0])
    point = local_minimum(X, y, 0.1, start)
    assert point.network.n_neurons == 0
    assert point.objective == 0.5 * y @ y
    assert np.abs(gradient_descent(X, y, 0.1, start, step_size=0.5).network(X)).max() < 1e-8


def test_one_step_from_the_optimum_stays_there():
    X, y, _ = gaussian(8, 2, 1, 0)
    best = train(X, y, 0.2, tol=1e-10)
    point = local_minimum(X, y, 0.2, best.network, max_steps=1)
    assert point.objective == pytest.approx(best.objective, rel=1e-10)
    assert point.certificate.gap < 1e-8


def test_descent_without_a_number_of_steps_ends_by_its_cost(minute):
    rng = np.random.default_rng(0)
    X, y, start = rng.normal(size=(30, 4)), rng.normal(size=30), rng.normal(size=(6, 4))
    costs = minute(_network_descent, 2500, 200_000)
    run = gradient_descent(X, y, 0.1, (start, rng.normal(size=6)), tol=0.0)
    assert (run.n_steps, run.status) == (2500, DescentStatus.STEPS)
    # Nanoseconds for each weight and sample.
    assert 0.1 <= costs[0] / (30 * 4 * 6) <= 10.0
