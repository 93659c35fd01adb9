"""Bellman errors: simulations, kernels by quadrature, ridge regression as the case without
discount, and the regime that is refused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import erf

import theorylab.random_features as rf
from theorylab.random_features import LimitStatus


def chain(seed=0, n_states=24):
    return rf.random_reward_process(n_states, dimension=12, seed=seed)


@pytest.mark.parametrize(("name", "sigma"), [("erf", erf), ("relu", lambda z: np.maximum(z, 0))])
def test_kernels_by_quadrature(name, sigma):
    points = np.array([[1.0, 0.5], [-0.3, 2.0], [0.0, 0.0], [-2.0, -1.0]])
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    grid = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    values = sigma(grid @ points.T)
    expected = values.T @ (np.outer(weights, weights).ravel()[:, None] * values) / (2 * np.pi)
    kernel = rf.feature_kernel(points, activation=name)
    assert_allclose(kernel, expected, atol=1e-2 if name == "relu" else 1e-9)
    F = rf.random_features(points, 100_000, activation=name, rng=np.random.default_rng(0))
    assert_allclose(F.T @ F / len(F), kernel, atol=0.03)


def test_the_values_solve_the_equation_of_the_weights():
    data = rf.sampled_transitions(chain(), 30, discount=0.8, seed=1)
    F = rf.random_features(data.process.points, 7, rng=np.random.default_rng(0))
    system = F @ data.states @ data.differences.T @ F.T / data.visited + 0.3 * np.eye(7)
    theta = np.linalg.solve(system, F @ data.states @ data.rewards / data.visited)
    values = rf.simulate_values(
        data, lambda _: F, ridge=0.3, n_draws=1, rng=np.random.default_rng(0)
    )[0]
    assert_allclose(values, F.T @ theta, rtol=1e-9)
    residual = 0.3 * rf.lstd_resolvent(data, F, ridge=0.3) @ data.rewards
    assert_allclose(data.rewards - data.differences.T @ values, residual, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "activation"), [("exact", "erf"), ("exact", "relu"), ("sampled", "erf")]
)
def test_limits_against_simulation(kind, activation):
    process = rf.random_reward_process(100, dimension=40, seed=1)
    if kind == "exact":
        data = rf.exact_transitions(process, range(70), discount=0.7)
    else:
        data = rf.sampled_transitions(process, 90, discount=0.7, seed=2)
    kernel = rf.feature_kernel(process.points, activation=activation)
    limit = rf.bellman_error_limits(data, kernel, n_features=60, ridge=2e-3)
    assert limit.status is LimitStatus.FOUND
    assert 0 < limit.amplification < 1
    values = rf.simulate_values(
        data,
        lambda rng: rf.random_features(process.points, 60, activation=activation, rng=rng),
        ridge=2e-3,
        n_draws=250,
        rng=np.random.default_rng(3),
    )
    pairs = [
        (data.rewards - values @ data.differences, "empirical"),
        (data.true_rewards - values @ data.true_map.T, "true"),
    ]
    for errors, name in pairs:
        total = np.sum(errors**2, axis=1).mean()
        assert total == pytest.approx(
            getattr(limit, name), rel=0.1 if activation == "relu" else 0.05
        )
        spread = errors.var(axis=0).sum()
        assert spread == pytest.approx(getattr(limit, f"{name}_correction"), rel=0.12)
        assert getattr(limit, f"{name}_correction") > 0.1 * getattr(limit, name)
    assert_allclose(values.mean(axis=0), limit.values, atol=0.15 * np.abs(limit.values).max())


def test_the_fixed_point_and_its_block():
    data = rf.exact_transitions(chain(2), range(16), discount=0.9)
    kernel = rf.feature_kernel(data.process.points)
    limit = rf.bellman_error_limits(data, kernel, n_features=20, ridge=0.01)
    U, A, m = data.states, data.differences, 16
    c = 20 / m / (1 + limit.delta)
    assert_allclose(
        limit.resolvent @ (c * A.T @ kernel @ U + 0.01 * np.eye(m)), np.eye(m), atol=1e-9
    )
    assert limit.delta == pytest.approx(np.trace(kernel @ U @ limit.resolvent @ A.T) / m)
    residual = 0.01 * limit.resolvent @ data.rewards
    assert_allclose(data.rewards - A.T @ limit.values, residual, atol=1e-10)


def test_without_discount_it_is_ridge_regression_in_random_features():
    process = chain(3)
    data = rf.exact_transitions(process, range(24), discount=0.0)
    kernel = rf.feature_kernel(process.points)
    N, ridge = 40, 0.01
    limit = rf.bellman_error_limits(data, kernel, n_features=N, ridge=ridge)
    # The same deterministic equivalent, of symmetric resolvents, by a damped iteration.
    root = np.sqrt(process.stationary)
    K, delta = root[:, None] * kernel * root, 1.0
    for _ in range(4000):
        Q = np.linalg.inv(N / 24 / (1 + delta) * K + ridge * np.eye(24))
        delta = 0.5 * delta + 0.5 * np.trace(K @ Q) / 24
    assert limit.delta == pytest.approx(delta, rel=1e-9)

    # The empirical error is minus the derivative of r' Q r in the ridge, times its square.
    def form(lam):
        found = rf.bellman_error_limits(data, kernel, n_features=N, ridge=lam)
        return data.rewards @ found.resolvent @ data.rewards

    slope = (form(ridge * 1.0001) - form(ridge / 1.0001)) / (ridge * (1.0001 - 1 / 1.0001))
    assert limit.empirical == pytest.approx(-(ridge**2) * slope, rel=1e-6)
    assert limit.true == pytest.approx(limit.empirical, rel=1e-12)


def test_repeating_changes_no_limit():
    one = chain(4)
    first = None
    for copies in (1, 3):
        process = rf.repeat_process(one, copies)
        seen = (24 * np.arange(copies)[:, None] + np.arange(15)).ravel()
        data = rf.exact_transitions(process, seen, discount=0.9)
        kernel = rf.feature_kernel(process.points)
        limit = rf.bellman_error_limits(data, kernel, n_features=20 * copies, ridge=0.02 / copies)
        found = [
            limit.delta,
            limit.amplification,
            limit.empirical,
            limit.true,
            limit.empirical_correction,
            limit.true_correction,
        ]
        first = first or found
        assert_allclose(found, first, rtol=1e-9)


def test_units_of_rewards_and_features():
    process = chain(5)
    kernel = rf.feature_kernel(process.points)

    def limits(scale, gain):
        other = rf.reward_process(process.points, process.transitions, scale * process.rewards)
        data = rf.exact_transitions(other, range(15), discount=0.9)
        return rf.bellman_error_limits(data, gain * kernel, n_features=20, ridge=0.02 * gain)

    one = limits(1.0, 1.0)
    for scale, gain in ((1e-60, 1e-80), (1e60, 1e80)):
        other = limits(scale, gain)
        assert other.true / scale**2 == pytest.approx(one.true, rel=1e-9)
        assert other.empirical_correction / scale**2 == pytest.approx(one.empirical_correction)
        assert other.delta == pytest.approx(one.delta, rel=1e-9)


def test_where_the_variance_is_unbounded_no_limit_is_returned():
    process = rf.random_reward_process(60, dimension=30, seed=6)
    data = rf.sampled_transitions(process, 60, discount=0.95, seed=7)
    kernel = rf.feature_kernel(process.points)
    refused = rf.bellman_error_limits(data, kernel, n_features=data.visited, ridge=1e-7)
    assert refused.status is LimitStatus.REFUSED
    assert np.isnan([refused.empirical, refused.true, refused.true_correction]).all()
    found = rf.bellman_error_limits(data, kernel, n_features=data.visited, ridge=0.1)
    assert found.status is LimitStatus.FOUND
    assert found.true > found.true_correction > 0
    # Exact rows too, at the threshold and for tiny ridges.
    exact = rf.exact_transitions(chain(0), range(16), discount=0.9)
    kernel = rf.feature_kernel(exact.process.points)
    peak, beyond = (
        rf.bellman_error_limits(exact, kernel, n_features=N, ridge=1e-7) for N in (16, 40)
    )
    assert peak.status is LimitStatus.REFUSED
    assert beyond.status is LimitStatus.FOUND


def test_the_root_is_the_one_that_comes_from_large_ridges():
    data = rf.sampled_transitions(chain(8), 40, discount=0.95, seed=9)
    kernel = rf.feature_kernel(data.process.points)
    K = data.differences.T @ kernel @ data.states
    assert np.linalg.eigvals(K).real.min() < 0
    previous = 0.0
    for ridge in np.geomspace(1e3, 0.03, 25):
        limit = rf.bellman_error_limits(data, kernel, n_features=30, ridge=ridge)
        assert limit.status is LimitStatus.FOUND
        trace = np.trace(kernel @ data.states @ limit.resolvent @ data.differences.T)
        assert limit.delta == pytest.approx(trace / data.visited, rel=1e-9)
        assert previous < limit.delta < 2 * previous + 1e-3
        previous = limit.delta


def test_all_states_visited_leave_a_variance_below_the_threshold_only():
    data = rf.exact_transitions(chain(1), range(24), discount=0.9)
    kernel = rf.feature_kernel(data.process.points)
    below, beyond = (
        rf.bellman_error_limits(data, kernel, n_features=N, ridge=1e-8) for N in (12, 48)
    )
    assert below.true_correction > 0.1 * below.true > 1e-3
    assert beyond.true_correction < beyond.true < 1e-8


def test_what_is_no_kernel_and_what_leaves_float64_is_refused():
    data = rf.exact_transitions(chain(0), range(16), discount=0.9)
    kernel = rf.feature_kernel(data.process.points)
    for odd, word in ((-kernel, "no negative eigenvalue"), (np.triu(kernel), "symmetric")):
        with pytest.raises(ValueError, match=f"kernel: expected .*{word}"):
            rf.bellman_error_limits(data, odd, n_features=8, ridge=0.1)
    single = rf.bellman_error_limits(data, kernel.astype(np.float32), n_features=8, ridge=0.1)
    double = rf.bellman_error_limits(data, kernel, n_features=8, ridge=0.1)
    assert single.true == pytest.approx(double.true, rel=1e-5)
    with pytest.raises(ValueError, match="draw_features, ridge: expected magnitudes"):
        rf.simulate_values(
            data,
            lambda _: np.full((3, 24), 1e200),
            ridge=0.1,
            n_draws=1,
            rng=np.random.default_rng(0),
        )


def test_a_root_that_is_lost_is_no_error():
    # Arbitrary spectra with negative real parts: a root of the equation, or none.
    from theorylab.random_features.temporal_difference import _inflation

    rng, found = np.random.default_rng(0), []
    for _ in range(150):
        half = rng.standard_normal(3) + 1j * rng.standard_normal(3)
        mu, ratio = np.concatenate([half, half.conj()]), float(rng.choice([0.3, 1.0, 2.0]))
        ridge = 10 ** rng.uniform(-6, 0)
        t = _inflation(mu, ratio, 6, ridge)
        found.append(t is not None)
        if t is not None:
            right = 1 + t / 6 * np.sum(1 / (ratio + ridge * t / mu)).real
            assert t == pytest.approx(right, rel=1e-6)
    assert 10 < sum(found) < 140
