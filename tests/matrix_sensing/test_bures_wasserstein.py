from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import minimize

from theorylab.matrix_sensing import (
    balanced_factors,
    bures_gradient,
    bures_gradient_descent,
    bures_hessian,
    bures_loss,
    bures_wasserstein_distance,
    curvature_bounds,
    deep_flow,
    deep_gradient_descent,
    deep_rate,
    factor_rate,
    random_covariance,
    smoothed_minimum,
    smoothed_rate,
    spectral_selections,
    subspace_tilt,
)

EPS = np.finfo(float).eps
SPECTRUM = np.array([5.0, 3.0, 2.0, 1.0, 0.5])


def target(rng, spectrum=SPECTRUM):
    U = np.linalg.qr(rng.standard_normal((len(spectrum),) * 2))[0]
    S = (U * spectrum) @ U.T
    return (S + S.T) / 2


def central(function, W, h=1e-5):
    """Central differences, one row for each entry of W: error h^2 times the third derivative, and
    rounding over h."""
    basis = np.eye(W.size).reshape(W.size, *W.shape)
    return np.array([(function(W + h * E) - function(W - h * E)) / (2 * h) for E in basis])


# ---------------------------------------------------------------- the distance


def test_distance_is_the_optimal_transport_cost():
    rng = np.random.default_rng(0)
    first, second = target(rng, [2.0, 1.0, 0.3]), target(rng, [1.5, 0.7, 0.2])
    cross = cp.Variable((3, 3))
    joint = cp.bmat([[first, cross], [cross.T, second]])
    problem = cp.Problem(cp.Maximize(cp.trace(cross)), [joint >> 0])
    problem.solve(solver=cp.CLARABEL)
    squared = np.trace(first) + np.trace(second) - 2 * problem.value
    assert bures_wasserstein_distance(first, second) ** 2 == pytest.approx(
        squared, abs=1e-6
    )  # the solver's gap


def test_distance_of_commuting_matrices_and_of_multiples():
    rng = np.random.default_rng(1)
    U = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    a, b = np.array([3.0, 2.0, 1.0, 0.5]), np.array([0.2, 4.0, 1.0, 0.0])
    distance = bures_wasserstein_distance((U * a) @ U.T, (U * b) @ U.T)
    np.testing.assert_allclose(
        distance, np.linalg.norm(np.sqrt(a) - np.sqrt(b)), rtol=1e-7
    )  # root of a rounded 0
    S = target(rng)
    np.testing.assert_allclose(
        bures_wasserstein_distance(S, 4 * S), np.sqrt(np.trace(S)), rtol=1e-12
    )
    np.testing.assert_allclose(bures_wasserstein_distance(3 * S, 3 * S + 0), 0, atol=1e-13)


def test_distance_is_a_metric_and_keeps_its_digits_between_close_matrices():
    rng = np.random.default_rng(2)
    A, B, C = (target(rng) for _ in range(3))
    distances = [bures_wasserstein_distance(X, Y) for X, Y in ((A, B), (B, A), (A, C), (C, B))]
    np.testing.assert_allclose(distances[0], distances[1], rtol=1e-12)
    assert distances[0] <= distances[2] + distances[3]
    h = 1e-9
    close = np.diag([1.0, 2.0]) * (1 + h) ** 2
    np.testing.assert_allclose(
        bures_wasserstein_distance(np.diag([1.0, 2.0]), close), h * np.sqrt(3), rtol=1e-6
    )  # EPS / h


@pytest.mark.parametrize(("n", "k"), [(5, 2), (4, 4), (2, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_is_the_squared_distance(n, k, smoothing):
    rng = np.random.default_rng(3)
    S, W = target(rng, np.linspace(2, 0.5, n)), rng.standard_normal((n, k))
    covariance = W @ W.T + smoothing * np.eye(n)
    root = scipy.linalg.sqrtm(S)
    middle = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance @ root), 0)).sum()
    expected = np.trace(covariance) + np.trace(S) - 2 * middle
    # without smoothing the zero eigenvalues of the product come out at the level of rounding, under
    # a root
    np.testing.assert_allclose(
        bures_loss(W, S, smoothing=smoothing), expected, atol=1e-6 if smoothing == 0 else 1e-12
    )
    np.testing.assert_allclose(
        bures_loss(W, S, smoothing=smoothing),
        bures_wasserstein_distance(covariance, S) ** 2,
        atol=1e-6,
    )


# ---------------------------------------------------------------- derivatives


@pytest.mark.parametrize("k", [1, 2, 4, 6])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_gradient_and_hessian_by_differences(k, smoothing):
    rng = np.random.default_rng(4)
    S, W = target(rng, [3.0, 2.0, 1.0, 0.5]), rng.standard_normal((4, k))
    gradient = central(lambda X: bures_loss(X, S, smoothing=smoothing), W).reshape(W.shape)
    np.testing.assert_allclose(bures_gradient(W, S, smoothing=smoothing), gradient, atol=1e-7)
    hessian = central(lambda X: bures_gradient(X, S, smoothing=smoothing).ravel(), W)
    np.testing.assert_allclose(bures_hessian(W, S, smoothing=smoothing), hessian, atol=1e-7)


def test_gradient_is_one_minus_the_transport_map():
    rng = np.random.default_rng(5)
    S, W = target(rng), rng.standard_normal((5, 5))
    covariance = W @ W.T
    root = scipy.linalg.sqrtm(covariance)
    inverse = np.linalg.inv(root)
    transport = (
        inverse @ scipy.linalg.sqrtm(root @ S @ root) @ inverse
    )  # maps N(0, covariance) to N(0, S)
    np.testing.assert_allclose(transport @ covariance @ transport, S, atol=1e-9)
    np.testing.assert_allclose(bures_gradient(W, S), 2 * (np.eye(5) - transport) @ W, atol=1e-9)


def test_rotations_of_the_noise_change_nothing():
    rng = np.random.default_rng(6)
    S, W, O = target(rng), rng.standard_normal((5, 3)), np.linalg.qr(rng.standard_normal((3, 3)))[0]  # noqa: E741
    np.testing.assert_allclose(bures_loss(W @ O, S), bures_loss(W, S), rtol=1e-13)
    np.testing.assert_allclose(bures_gradient(W @ O, S), bures_gradient(W, S) @ O, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_curvature_bounds_hold_and_close_in(k):
    rng = np.random.default_rng(7)
    S = target(rng)
    inverse_root = np.linalg.inv(scipy.linalg.sqrtm(S))
    U = np.linalg.qr(rng.standard_normal((5, 5)))[0][:, :k]
    for small in (0.5, 1e-2, 1e-4):
        W = inverse_root @ (U * np.append(np.full(k - 1, 1.0), small))
        lower, upper = curvature_bounds(W, S)
        lowest = np.linalg.eigvalsh(bures_hessian(W, S))[0]
        assert lower <= lowest + 1e-9 * abs(lowest)  # for k = 1 both bounds are attained
        assert lowest - 1e-9 * abs(lowest) <= upper
        assert upper - lower <= 4 * 5.0 + 1e-6


def test_curvature_bounds_are_attained_by_a_rotation_of_the_columns():
    # Sigma_0 = I, W = diag(1, s): the direction of the skew matrices has the curvature 2 - 4 / (1 +
    # s)
    for small in (1e-3, 1e-6):
        W = np.diag([1.0, small])
        lowest = np.linalg.eigvalsh(bures_hessian(W, np.eye(2)))[0]
        assert lowest == pytest.approx(2 - 4 / (1 + small), rel=1e-9)
        np.testing.assert_allclose(curvature_bounds(W, np.eye(2)), [-2.0, 2.0], rtol=1e-12)


def test_gradient_at_lower_rank_is_that_of_the_least_polar_factor():
    W = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(
        bures_gradient(W, np.diag([4.0, 2.0, 1.0])), W * (2 - 2 * 2), atol=1e-15
    )


def test_smoothing_bounds_the_curvature():
    rng = np.random.default_rng(8)
    S = target(rng)
    for tau in (1e-3, 0.1, 1.0):
        for scale in (1e-6, 1.0):
            lowest = np.linalg.eigvalsh(
                bures_hessian(scale * rng.standard_normal((5, 2)), S, smoothing=tau)
            )[0]
            assert lowest >= 2 - 2 * np.sqrt(SPECTRUM[0] / tau)


# ---------------------------------------------------------------- critical points and minima


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_selections_are_critical_with_the_stated_curvatures(k):
    rng = np.random.default_rng(9)
    S = target(rng)
    selections = spectral_selections(S, k)
    assert len({s.indices for s in selections}) == len(selections)
    assert [s.value for s in selections] == sorted(s.value for s in selections)
    for s in selections:
        np.testing.assert_allclose(bures_gradient(s.weights, S), 0, atol=1e-13)
        np.testing.assert_allclose(bures_loss(s.weights, S), s.value, atol=1e-12)
        np.testing.assert_allclose(s.covariance @ S, S @ s.covariance, atol=1e-12)
        # central differences of the gradient, apart from the closed form
        numeric = np.linalg.eigvalsh(central(lambda X: bures_gradient(X, S).ravel(), s.weights))
        np.testing.assert_allclose(s.curvatures, numeric, atol=1e-6)
    assert [s.index == 0 for s in selections] == [True] + [False] * (len(selections) - 1)
    assert selections[0].indices == tuple(range(k))


@pytest.mark.parametrize(("tau", "k"), [(0.2, 2), (2.4, 2), (3.5, 2), (0.7, 4), (0.0, 3)])
def test_smoothed_minimum_by_search(tau, k):
    rng = np.random.default_rng(10)
    S = target(rng)
    stated = smoothed_minimum(S, k, smoothing=tau)
    runs = [
        minimize(
            lambda w: (
                bures_loss(w.reshape(5, k), S, smoothing=tau),
                bures_gradient(w.reshape(5, k), S, smoothing=tau).ravel(),
            ),
            rng.standard_normal(5 * k),
            jac=True,
            tol=1e-10,
        )
        for _ in range(3)
    ]
    best = min(runs, key=lambda run: run.fun)
    assert best.fun == pytest.approx(stated.value, abs=1e-9)
    W = best.x.reshape(5, k)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(W.T @ W)[::-1], stated.eigenvalues, atol=1e-3
    )  # quartic where tau = lambda


@pytest.mark.parametrize(("tau", "k"), [(0.1, 2), (1.0, 2), (2.7, 2), (0.3, 4), (1.5, 1)])
def test_smoothed_rate_is_the_least_positive_curvature(tau, k):
    S = target(np.random.default_rng(20))
    values, vectors = np.linalg.eigh(S)
    W = vectors[:, ::-1][:, :k] * np.sqrt(values[::-1][:k] - tau)
    curvatures = np.linalg.eigvalsh(bures_hessian(W, S, smoothing=tau))
    least = curvatures[k * (k - 1) // 2]  # after the rotations
    assert smoothed_rate(S, k, smoothing=tau) == pytest.approx(least, rel=1e-9)


def test_smoothed_flow_agrees_with_small_steps_of_descent():
    rng = np.random.default_rng(21)
    S, W = random_covariance([3.0, 2.0, 1.0], rng=rng), rng.standard_normal((3, 2))
    np.testing.assert_allclose(np.linalg.eigvalsh(S), [1, 2, 3], rtol=1e-13)
    ends = [
        bures_gradient_descent(W, S, step_size=h, steps=round(0.5 / h), smoothing=0.4).weights[-1]
        for h in (0.004, 0.002)
    ]
    flow = deep_flow([W], S, np.array([0.0, 0.5]), smoothing=0.4)[-1]
    np.testing.assert_allclose(2 * ends[1] - ends[0], flow, atol=1e-5)  # Euler extrapolated
    loose = deep_flow([W], S, np.array([0.0, 0.5]), smoothing=0.4, tol=1e-6)[-1]
    assert 0 < np.linalg.norm(loose - flow) < 1e-4


def test_without_smoothing_the_minimum_is_the_truncation():
    S = target(np.random.default_rng(11))
    stated = smoothed_minimum(S, 2, smoothing=0.0)
    np.testing.assert_allclose(stated.eigenvalues, SPECTRUM[:2], rtol=1e-13)
    assert stated.value == pytest.approx(spectral_selections(S, 2)[0].value, rel=1e-13)


# ---------------------------------------------------------------- descent and flow


def test_a_step_of_one_half_is_subspace_iteration():
    rng = np.random.default_rng(12)
    S, W = target(rng), rng.standard_normal((5, 2))
    path = bures_gradient_descent(W, S, step_size=0.5, steps=4).weights
    for t, state in enumerate(path):
        power = np.linalg.matrix_power(S, t) @ W
        angles = scipy.linalg.subspace_angles(state, power)
        np.testing.assert_allclose(
            angles, 0, atol=1e-7
        )  # angles near 0 are roots of rounded numbers


def test_descent_follows_the_gradient_and_lowers_the_loss():
    rng = np.random.default_rng(13)
    S, W = target(rng), rng.standard_normal((5, 2))
    run = bures_gradient_descent(W, S, step_size=0.2, steps=50, smoothing=0.1)
    for before, after in list(pairwise(run.weights))[:5]:
        np.testing.assert_allclose(
            after, before - 0.2 * bures_gradient(before, S, smoothing=0.1), atol=1e-13
        )
    losses = bures_gradient_descent(W, S, step_size=0.2, steps=300).losses(S)
    assert (np.diff(losses) <= 1e-13).all()
    assert losses[-1] == pytest.approx(SPECTRUM[2:].sum(), abs=1e-12)


@pytest.mark.parametrize("step", [0.1, 0.5, 0.7])
def test_slowest_contraction_is_that_of_the_hessian(step):
    S = np.diag(SPECTRUM)
    curvatures = spectral_selections(S, 2)[0].curvatures
    nonzero = curvatures[curvatures > 1e-12]
    contraction = np.abs(1 - step * nonzero).max()
    assert contraction == pytest.approx(
        1 - step * deep_rate(S, 2), rel=1e-12
    )  # up to 1 / (2 - 2/3) = 0.75


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_balanced_factors(depth):
    rng = np.random.default_rng(14)
    W = rng.standard_normal((5, 2))
    factors = balanced_factors(W, depth, rng=rng)
    np.testing.assert_allclose(np.linalg.multi_dot([*factors, np.eye(2)]), W, atol=1e-13)
    for P, Q in pairwise(factors):
        np.testing.assert_allclose(P.T @ P, Q @ Q.T, atol=1e-13)
    if depth > 1:  # the hidden rotations are drawn
        assert np.linalg.norm(balanced_factors(W, depth, rng=rng)[0] - factors[0]) > 1e-3


def test_flow_keeps_balance_and_agrees_with_small_steps():
    rng = np.random.default_rng(15)
    S = target(rng)
    factors = balanced_factors(rng.standard_normal((5, 2)), 3, rng=rng)
    flow = deep_flow(factors, S, np.array([0.0, 0.5]))
    np.testing.assert_allclose(flow[0], np.linalg.multi_dot(factors), atol=1e-13)
    errors = [
        np.linalg.norm(
            deep_gradient_descent(factors, S, step_size=h, steps=round(0.5 / h))[0][-1] - flow[-1]
        )
        for h in (0.004, 0.002)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)  # Euler's method is of order one


def test_deep_descent_is_gradient_descent_on_the_factors():
    rng = np.random.default_rng(16)
    S = target(rng)
    factors = [rng.standard_normal(shape) for shape in ((5, 3), (3, 2), (2, 2))]
    _, after = deep_gradient_descent(factors, S, step_size=0.1, steps=1)
    for j, P in enumerate(factors):

        def loss(X, j=j):
            return bures_loss(np.linalg.multi_dot([*factors[:j], X, *factors[j + 1 :]]), S)

        np.testing.assert_allclose(
            (P - after[j]) / 0.1, central(loss, P).reshape(P.shape), atol=1e-6
        )


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_rates_are_eigenvalues_of_the_hessian_in_the_factors(depth):
    rng = np.random.default_rng(17)
    S = target(rng)
    factors = balanced_factors(spectral_selections(S, 2)[0].weights, depth, rng=rng)
    assert factor_rate(factors, S) == pytest.approx(deep_rate(S, 2, depth=depth), rel=1e-10)
    if (
        depth == 2
    ):  # out of balance: compare with all eigenvalues of the Hessian in the entries of both factors
        factors = [factors[0] @ np.diag([1.5, 0.8]), np.diag([1 / 1.5, 1 / 0.8]) @ factors[1]]
    sizes = [P.size for P in factors]

    def gradient(v):
        parts = [
            piece.reshape(P.shape)
            for piece, P in zip(np.split(v, np.cumsum(sizes)[:-1]), factors, strict=True)
        ]
        _, after = deep_gradient_descent(parts, S, step_size=1.0, steps=1)
        return np.concatenate([(P - Q).ravel() for P, Q in zip(parts, after, strict=True)])

    hessian = central(gradient, np.concatenate([P.ravel() for P in factors]))
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    nonzero = values[np.abs(values) > 1e-5]
    assert nonzero.min() == pytest.approx(factor_rate(factors, S), rel=1e-6)


def test_rate_of_unbalanced_factors_with_a_wide_later_layer():
    rng = np.random.default_rng(19)
    S, rest = target(rng), [rng.standard_normal((2, 3)), rng.standard_normal((3, 2))]
    first = spectral_selections(S, 2)[0].weights @ np.linalg.inv(rest[0] @ rest[1])
    off = np.linalg.eigh(S)[1][:, :3]  # only the first factor turns the range

    def gradient(Y):
        _, after = deep_gradient_descent([first + off @ Y, *rest], S, step_size=1.0, steps=1)
        return (off.T @ (first + off @ Y - after[0])).ravel()

    curvatures = np.linalg.eigvalsh(central(gradient, np.zeros((3, 2))))
    assert factor_rate([first, *rest], S) == pytest.approx(curvatures[0], rel=1e-6)


def test_a_hidden_direction_that_the_product_does_not_show_is_refused():
    # W_2 sees the first column only, but is turned by the second: the rate is 2 (1 - 2/3) (1 +
    # 0.8^2), not 2 (1 - 2/3)
    first, S = np.array([[np.sqrt(3.0), 0.0], [0.0, 0.8], [0.0, 0.0]]), np.diag([3.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="factors"):
        factor_rate([first, np.array([[1.0], [0.0]])], S)


def test_runs_that_leave_the_range_of_floats_are_refused():
    S, W = np.diag([3.0, 2.0, 1.0]), np.ones((3, 1))
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="step_size"):
        bures_gradient_descent(W, S, step_size=1e3, steps=200)
    with pytest.warns(RuntimeWarning), pytest.raises(ValueError, match="step_size"):
        deep_gradient_descent([W, np.ones((1, 1))], S, step_size=1e3, steps=200)
    with pytest.raises(ValueError, match="times"):
        deep_flow([1e80 * W, 1e80 * np.ones((1, 1))], S, [0.0, 1.0])


def test_flow_at_time_zero_alone():
    W = np.array([[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(deep_flow([W, np.eye(1)], np.eye(3), [0.0]), W[None])


def test_tilt_of_a_graph():
    rng = np.random.default_rng(18)
    S = np.diag([3.0, 2.0, 1.0])
    W = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, -0.3]]) @ rng.standard_normal((2, 2))
    np.testing.assert_allclose(np.abs(subspace_tilt(W, S)), [[0.2, 0.3]], atol=1e-13)


def test_bad_arguments():
    S = np.diag([3.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="target"):
        bures_loss(np.ones((3, 1)), -S)
    with pytest.raises(ValueError, match="target"):
        bures_loss(np.ones((3, 1)), np.diag([1.0, 1.0, -1e-9]))
    assert (
        bures_loss(np.ones((3, 1)), np.diag([1.0, 1.0, -1e-16])) > 0
    )  # the rounding of a singular matrix
    with pytest.raises(ValueError, match="target"):
        spectral_selections(np.eye(3), 1)
    with pytest.raises(ValueError, match="rank: expected at most 100000 critical points"):
        spectral_selections(np.diag(np.arange(1.0, 31.0)), 15)
    with pytest.raises(ValueError, match="generator"):
        bures_hessian(np.ones((3, 2)), S)
    with pytest.raises(ValueError, match="second"):
        bures_wasserstein_distance(S, np.eye(2))
    with pytest.raises(ValueError, match="factors"):
        deep_flow([np.ones((3, 2)), np.ones((3, 2))], S, np.array([1.0]))
    with pytest.raises(ValueError, match="times"):
        deep_flow([np.ones((3, 2))], S, np.array([1.0, 1.0]))


def test_a_stiff_flow_ends_with_its_cause():
    target = np.diag([1e8, 1.0, 0.5])
    with pytest.raises(ValueError, match=r"times: .*too stiff for 20000 evaluations after"):
        deep_flow([np.eye(3)[:, :2]], target, [1e9])


def test_flow_does_not_depend_on_units():
    rng = np.random.default_rng(4)
    A, W = rng.standard_normal((3, 3)), rng.standard_normal((3, 2))
    target, times = A @ A.T + np.eye(3), np.array([0.0, 0.3, 1.0])
    path = deep_flow([W], target, times)
    for s in (1e-8, 1e8):
        scaled = deep_flow([s * W], s**2 * target, times)
        assert scaled == pytest.approx(s * path, rel=1e-9)


def test_float32_covariances_are_semi_definite_up_to_their_own_rounding():
    A = np.random.default_rng(3).standard_normal((40, 3))
    covariance = (A @ A.T).astype(np.float32)
    assert np.linalg.eigvalsh(covariance.astype(float))[0] < -1e-7
    assert bures_wasserstein_distance(covariance, A @ A.T) < 1e-2
    with pytest.raises(ValueError, match="first: expected a positive semi-definite"):
        bures_wasserstein_distance(covariance.astype(float) - 1e-3 * np.eye(40), A @ A.T)


def test_the_flow_of_commuting_generators_is_followed_to_its_tolerance():
    start, roots, times = np.array([0.3, 1e-3]), np.array([2.0, 1.0]), np.array([0.5, 3.0])
    path = deep_flow([np.diag(start)], np.diag(roots**2), times)
    exact = roots + (start - roots) * np.exp(-2 * times[:, None])
    np.testing.assert_allclose(np.diagonal(path, axis1=1, axis2=2), exact, rtol=1e-11)


def test_callbacks_are_told_the_loss_and_stop_the_descents():
    W, target = np.array([[1.0], [0.3]]), np.diag([4.0, 1.0])
    told = []

    def watch(progress):
        told.append(progress)
        return progress.iteration == 2

    run = bures_gradient_descent(W, target, step_size=0.2, steps=9, smoothing=0.5, callback=watch)
    assert [p.objective for p in told] == pytest.approx(
        [bures_loss(V, target, smoothing=0.5) for V in run.weights]
    )
    told.clear()
    products, factors = deep_gradient_descent(
        [W, [[1.0]]], target, step_size=0.05, steps=9, callback=watch
    )
    assert len(products) == 3
    np.testing.assert_array_equal(factors[0] @ factors[1], products[-1])
    assert [p.objective for p in told] == pytest.approx([bures_loss(V, target) for V in products])
