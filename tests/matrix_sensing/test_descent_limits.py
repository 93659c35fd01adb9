import warnings
from fractions import Fraction

import numpy as np
import pytest

from theorylab.matrix_sensing import (
    DescentStatus,
    EntryStatus,
    MeasurementOperator,
    asymmetric_gradient_descent,
    error_bounds,
    error_law,
    gaussian_operator,
    gradient_descent,
    late_rate,
    limit_modes,
    rebalance,
    rebalanced_slowest_bounds,
    sensing_limit,
    small_start_slowest,
    spurious_bounds,
)

EPS = np.finfo(float).eps


def symmetric_truth(n, values, rng):
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0][:, : len(values)]
    M = (Q * values) @ Q.T
    return (M + M.T) / 2


def general_truth(n, p, values, rng):
    U = np.linalg.qr(rng.standard_normal((n, n)))[0][:, : len(values)]
    V = np.linalg.qr(rng.standard_normal((p, p)))[0][:, : len(values)]
    return (U * values) @ V.T


def converge(M, F, G, step_size, tol=1e-13):
    run = asymmetric_gradient_descent(
        M,
        search_rank=F.shape[1],
        step_size=step_size,
        steps=3_000_000,
        left=F,
        right=G,
        tol=tol,
        record=[0],
    )
    assert run.status is DescentStatus.CONVERGED
    return run


def test_spurious_bounds_enclose_exact_rational_orbits():
    cases = [
        (Fraction(1, 2), Fraction(1, 4), 6),
        (Fraction(1), Fraction(1, 3), 5),
        (Fraction(1, 10), Fraction(1), 6),
    ]
    for s, eta, T in (*cases, (Fraction(1, 10**6), Fraction(1), 5)):
        orbit = s
        for _ in range(T):
            orbit = orbit * (1 - eta * orbit**2)
        lower, upper = spurious_bounds([float(s)], step_size=float(eta), steps=T)
        assert (
            Fraction(lower[0]) * (1 - 8 * Fraction(EPS))
            <= orbit
            <= Fraction(upper[0]) * (1 + 8 * Fraction(EPS))
        )


def test_spurious_bounds_enclose_long_orbits_and_are_sharp():
    rng = np.random.default_rng(5)
    eta = 0.2
    s = np.sqrt(10 ** rng.uniform(-5, np.log10(1 / 3), 40) / eta)
    orbit = s.copy()
    for t in range(1, 20_001):
        orbit *= 1 - eta * orbit**2
        if t in (1, 2, 10, 300, 20_000):
            lower, upper = spurious_bounds(s, step_size=eta, steps=t)
            slack = t * EPS  # the float orbit rounds at every step
            assert (lower * (1 - slack) <= orbit).all()
            assert (orbit <= upper * (1 + slack)).all()
    assert (upper / lower - 1 <= 1e-4).all()
    T = 10**12
    lower, upper = spurious_bounds(s, step_size=eta, steps=T)
    np.testing.assert_allclose(
        [2 * eta * T * lower**2, 2 * eta * T * upper**2], 1.0, atol=1e-6
    )  # w_0 / (2T) <= 1e5 / 2e12
    for steps in (0, 100):
        np.testing.assert_array_equal(
            spurious_bounds([0.0, 1e-170], step_size=1.0, steps=steps), [[0.0, 1e-170]] * 2
        )
    with pytest.raises(ValueError, match="start"):
        spurious_bounds([2.0], step_size=0.1, steps=1)


def test_width_of_spurious_bounds_is_the_sum_of_the_next_term():
    # the sum of 5/2 w^-2 over w = w_0 + 2t is 5/4 / w_0: no smaller constant would do
    w0, T = 1e3, 10**5
    lower, upper = spurious_bounds([1 / np.sqrt(w0)], step_size=1.0, steps=T)
    assert lower[0] ** -2 - upper[0] ** -2 == pytest.approx(1.25 / w0, rel=0.02)


def test_block_recursions_of_error_bounds():
    rng = np.random.default_rng(6)
    eta, lam = 0.13, np.array([1.0, 0.7])
    L, X = np.diag(lam), rng.standard_normal((5, 4)) / 2
    M = np.zeros((5, 5))
    M[:2, :2] = L
    Y = gradient_descent(M, search_rank=4, step_size=eta, steps=1, initial=X).X
    (A, B), (A1, B1) = (X[:2], X[2:]), (Y[:2], Y[2:])
    C, D, P = B @ A.T, A @ A.T - L, B @ B.T
    K = np.eye(3) - eta * P
    cross = C @ (np.eye(2) - eta * L) + (K @ K - np.eye(3)) @ C - 2 * eta * C @ D
    cross += eta**2 * (C @ L @ D + C @ D @ D + C @ C.T @ C + P @ C @ D)
    block = D - eta * (D @ L + L @ D) - 2 * eta * D @ D - 2 * eta * C.T @ C
    block += eta**2 * (D @ L @ D + D @ D @ D + D @ C.T @ C + C.T @ C @ D + C.T @ P @ C)
    np.testing.assert_allclose(B1 @ A1.T, cross, atol=1e-14)
    np.testing.assert_allclose(A1 @ A1.T - L, block, atol=1e-14)
    np.testing.assert_allclose(B1, B @ (np.eye(4) - eta * B.T @ B) - eta * C @ A, atol=1e-14)


@pytest.mark.parametrize(
    ("n", "k", "values"),
    [(7, 3, [1.0, 0.4]), (6, 9, [1.0, 1.0, 0.6]), (5, 5, [2.0]), (6, 2, [1.0, 0.5])],
)
def test_error_bounds_enclose_the_descent(n, k, values):
    entered = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        M = symmetric_truth(n, values, rng)
        options = {"search_rank": k, "step_size": 0.15}
        state = gradient_descent(M, steps=60, init_scale=0.2, rng=rng, **options).X
        for _ in range(6):
            for T in (0, 1, 30, 3000):
                bounds = error_bounds(M, state, step_size=0.15, steps=T)
                if bounds.status is EntryStatus.NOT_ENTERED:
                    assert (bounds.lower, bounds.upper) == (0.0, np.inf)
                    continue
                entered += 1
                error = gradient_descent(M, initial=state, steps=T, **options).errors[-1]
                rounding = 1e-14 * (T + 10)
                assert bounds.lower - rounding <= error <= bounds.upper + rounding
                assert bounds.spurious == min(k, n) - len(values)
            state = gradient_descent(M, initial=state, steps=60, **options).X
    assert entered >= 60


@pytest.mark.parametrize("k", [3, 6, 9])
def test_error_law_starts_where_the_bounds_apply(k):
    rng = np.random.default_rng(k)
    M, X = symmetric_truth(6, [1.0, 0.5], rng), 0.3 * rng.standard_normal((6, k))
    law = error_law(M, X, step_size=0.2, multiples=[1, 3, 10], longest=1_000_000)
    assert law.status is EntryStatus.ENTERED
    assert law.spurious == min(k, 6) - 2
    run = gradient_descent(
        M, search_rank=k, step_size=0.2, steps=int(law.times[-1]), initial=X, record=law.times
    )
    assert (law.lower - law.rounding <= run.errors).all()
    assert (run.errors <= law.upper + law.rounding).all()
    assert (law.rounding <= 1e-3 * law.lower).all()
    assert law.upper[-1] <= 1.01 * law.lower[-1]
    # w = 1/(eta s^2) of the last direction is the onset at entry and grows by 2 a step: 3 onsets
    # after one onset
    state = gradient_descent(M, search_rank=k, step_size=0.2, steps=int(law.times[0]), initial=X).X
    onset = error_bounds(M, state, step_size=0.2, steps=0).onset / 3
    np.testing.assert_allclose(np.diff(law.times), [2 * onset, 7 * onset], rtol=0.1)


@pytest.mark.parametrize("seed", [11, 29])  # the bounds apply after some 50 steps, 6 % apart
def test_error_law_waits_until_the_bounds_are_close(seed):
    rng = np.random.default_rng(seed)
    M, X = symmetric_truth(6, [1.0, 0.5], rng), 0.3 * rng.standard_normal((6, 3))
    law = error_law(M, X, step_size=0.2, multiples=[1, 3, 10], longest=1_000_000)
    assert law.upper[-1] <= 1.01 * law.lower[-1]


def test_error_law_bounds_the_rounding_of_the_descent():
    rng = np.random.default_rng(2)
    M, X = symmetric_truth(5, [1.0, 0.5], rng), 0.5 * rng.standard_normal((5, 7))
    law = error_law(M, X, step_size=0.2, multiples=[1, 3], longest=20_000)
    run = gradient_descent(
        M, search_rank=7, step_size=0.2, steps=int(law.times[-1]), initial=X, record=law.times
    )
    Y, wide, precise = X.astype(np.longdouble), M.astype(np.longdouble), []
    for t in range(law.times[-1] + 1):
        E = Y @ Y.T - wide
        if t in law.times:
            precise.append(np.sqrt((E**2).sum()))
        Y = Y - np.longdouble(0.2) * (E @ Y)
    deviations = np.abs(run.errors - np.array(precise, dtype=float))
    assert (deviations > 0).any()
    assert (deviations <= law.rounding).all()
    assert (law.rounding <= 1e5 * deviations).all()  # those of a step mostly cancel


def test_error_law_gives_up_and_refuses():
    X = 0.3 * np.random.default_rng(0).standard_normal((4, 3))
    M = np.diag([1.0, 0.5, 0.0, 0.0])
    assert (
        error_law(M, X, step_size=0.1, multiples=[100], longest=500).status
        is EntryStatus.NOT_ENTERED
    )
    blocked = X * [[1.0], [1.0], [0.0], [0.0]]  # no component off the signal, so no onset
    assert error_law(M, blocked, step_size=0.1, multiples=[1], longest=10_000).times.size == 0
    with pytest.raises(ValueError, match="X"):
        error_law(M, X[:, :2], step_size=0.1, multiples=[1], longest=500)


def test_error_bounds_tend_to_the_sharp_constant():
    rng = np.random.default_rng(7)
    M = symmetric_truth(8, [1.0, 0.5], rng)
    state = gradient_descent(M, search_rank=5, step_size=0.2, steps=600, init_scale=0.2, rng=rng).X
    for T in (10**7, 10**9):
        bounds = error_bounds(M, state, step_size=0.2, steps=T)
        remainder = (bounds.onset + 1.5 * np.log(T)) / T
        np.testing.assert_allclose(
            [2 * 0.2 * T * b for b in (bounds.lower, bounds.upper)], np.sqrt(3), rtol=2 * remainder
        )


def test_error_bounds_are_exact_for_a_commuting_state():
    # X = diag(sqrt(lambda), s): the signal has converged and the spurious part is the scalar
    # recursion itself
    s = 0.3
    bounds = error_bounds(np.diag([1.0, 0.0]), np.diag([1.0, s]), step_size=0.1, steps=50)
    for _ in range(50):
        s *= 1 - 0.1 * s**2
    assert bounds.lower <= s**2 <= bounds.upper <= bounds.lower * (1 + 1e-3)


def test_error_bounds_attain_the_error_of_a_short_signal():
    # k = r = 1 and A = sqrt(1 - d): the block of B is C over A exactly, and a step that is short
    # changes C and D by the linear terms of their bounds
    for b, eta, T, tol in [(0.05, 0.1, 0, 1e-7), (0.01, 1e-3, 1, 3e-7)]:
        X = np.array([[0.95**0.5], [b]])
        M = np.diag([1.0, 0.0])
        bounds = error_bounds(M, X, step_size=eta, steps=T)
        assert bounds.status is EntryStatus.ENTERED
        for _ in range(T):
            X = X - eta * (X @ X.T - M) @ X
        error = np.linalg.norm(X @ X.T - M)
        assert error <= bounds.upper * (1 + 1e-12)
        assert bounds.upper == pytest.approx(error, rel=tol)


def test_error_bounds_need_a_positive_semidefinite_truth():
    for truth in (np.diag([1.0, -0.1]), np.zeros((2, 2)), -np.eye(2)):
        with pytest.raises(ValueError, match="truth"):
            error_bounds(truth, np.eye(2), step_size=0.1, steps=1)
    few = error_bounds(
        np.eye(3), np.eye(3)[:, :2], step_size=0.1, steps=1
    )  # fewer columns than the rank
    assert few.status is EntryStatus.NOT_ENTERED


def test_sensing_limit_that_no_positive_matrix_follows_is_refused():
    # on the coordinates (2, 2) and (3, 3) the inverse of the normal matrix maps (1, 1) to a vector
    # of both signs
    inverse = np.eye(6)
    inverse[np.ix_([2, 5], [2, 5])] = [[1.0, -1.5], [-1.5, 4.0]]
    operator = MeasurementOperator(np.linalg.cholesky(np.linalg.inv(inverse)).T, 3, 3, True)
    with pytest.raises(ValueError, match="operator: expected measurements whose limit"):
        sensing_limit(np.diag([1.0, 0.0, 0.0]), operator)


def test_sensing_limit_is_approached_by_the_descent():
    rng = np.random.default_rng(11)
    M = symmetric_truth(5, [1.0, 0.6], rng)
    operator = gaussian_operator(5, 120, rng=rng)
    E = sensing_limit(M, operator)
    image = operator.adjoint(operator.forward(E))
    np.testing.assert_allclose(image @ image, image, atol=1e-12)  # a projection
    np.testing.assert_allclose(image @ M, 0.0, atol=1e-12)
    assert round(np.trace(image)) == 3
    options = {"search_rank": 7, "step_size": 0.2, "operator": operator}
    deviations = []
    state, T = gradient_descent(M, steps=1000, init_scale=0.4, rng=rng, **options).X, 1000
    for _ in range(3):
        state, T = gradient_descent(M, steps=9 * T, initial=state, **options).X, 10 * T
        deviations.append(np.linalg.norm(0.4 * T * (state @ state.T - M) - E) / np.linalg.norm(E))
    assert deviations[2] <= deviations[1] / 2 <= deviations[0] / 4
    assert deviations[2] <= 1e-2
    with pytest.raises(ValueError, match="operator"):
        sensing_limit(M, gaussian_operator(5, 14, rng=rng))
    with pytest.raises(ValueError, match="operator"):  # enough measurements, but all the same
        sensing_limit(np.eye(2), MeasurementOperator(np.ones((5, 3)), 2, 2, True))
    with pytest.raises(ValueError, match="truth"):
        sensing_limit(-M, operator)


def limits(seed):
    """Pairs (F, G, r) with F G^T of rank r: G = (F^+ M)^T, and one whose surplus directions split
    between F and G."""
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((6, 4))
    yield F, (np.linalg.pinv(F) @ general_truth(6, 5, [1.0, 0.5], rng)).T, 2
    yield F[:4, :], (np.linalg.pinv(F[:4]) @ general_truth(4, 5, [1.0, 0.5], rng)).T, 2
    Q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    left, right = rng.standard_normal((6, 3)), rng.standard_normal((5, 3))
    zero = np.zeros((6, 1)), np.zeros((5, 1))
    yield np.hstack([left, zero[0]]) @ Q, np.hstack([right[:, :2], zero[1], right[:, 2:]]) @ Q, 2


@pytest.mark.parametrize("seed", range(3))
def test_modes_are_the_non_zero_hessian_eigenvalues(seed):
    for F, G, r in limits(seed):
        (n, k), p = F.shape, len(G)
        assert np.linalg.matrix_rank(F @ G.T) == r
        columns = [np.outer(np.eye(n)[i], G[:, c]).ravel() for i in range(n) for c in range(k)]
        columns += [np.outer(F[:, c], np.eye(p)[j]).ravel() for j in range(p) for c in range(k)]
        J = np.array(columns)
        hessian = np.linalg.eigvalsh(J @ J.T)
        hessian = hessian[hessian > 1e-10 * hessian[-1]]
        modes = limit_modes(F, G, rank=r, step_size=0.01)
        np.testing.assert_allclose(np.sort(modes.values[modes.values > 0]), hessian, rtol=1e-9)
        assert abs(modes.slowest - hessian[0]) <= 1e-9 * hessian[0]
        assert (
            abs(modes.rate + np.log(max(abs(1 - 0.01 * hessian[0]), abs(1 - 0.01 * hessian[-1]))))
            <= 1e-12
        )


def test_window_rate_iterates_the_linear_map():
    F, G, r = next(limits(4))
    eta, steps = 0.3 / (np.linalg.norm(F, 2) ** 2 + np.linalg.norm(G, 2) ** 2), 37
    modes = limit_modes(F, G, rank=r, step_size=eta)
    rng = np.random.default_rng(8)
    E = start = rng.standard_normal(F.shape) @ G.T + F @ rng.standard_normal(G.shape).T
    for _ in range(steps):
        E = E - eta * (E @ G @ G.T + F @ F.T @ E)
    measured = np.log(np.linalg.norm(start) / np.linalg.norm(E)) / steps
    assert abs(modes.window_rate(start, steps=steps) - measured) <= 1e-10
    later = [modes.window_rate(start, steps=t) for t in (1, 10, 100, 10**6)]
    assert (np.diff(later) < 0).all()
    assert modes.rate < later[-1] <= modes.rate * 1.01


@pytest.mark.parametrize(
    ("alpha", "ratio", "seed"), [(0.5, 1 / 3, 0), (0.2, 1 / 3, 1), (0.2, 1.0, 2), (0.1, 1 / 3, 3)]
)
def test_late_rate_measures_the_slope_of_plain_numpy(alpha, ratio, seed):
    rng = np.random.default_rng(seed)
    M = general_truth(7, 6, [1.0, 0.6], rng)
    F0, G0 = alpha * rng.standard_normal((7, 4)), alpha * ratio * rng.standard_normal((6, 4))
    late = late_rate(M, F0, G0, step_size=0.1, longest=100_000)
    F, G, errors = F0, G0, []
    while not errors or errors[-1] > 1e-11 * np.linalg.norm(M):
        E = F @ G.T - M
        errors.append(np.linalg.norm(E))
        F, G = F - 0.1 * E @ G, G - 0.1 * E.T @ F
    errors = np.array(errors)
    start = np.argmax(errors <= 1e-7 * np.linalg.norm(M))
    slope = np.log(errors[start] / errors[-1]) / (errors.size - 1 - start)
    assert (
        abs(late.measured - slope) <= 1e-6 * slope
    )  # rounding of the last error, 1e-16 / 1e-11, over the window's logarithm
    assert abs(slope - late.modes.rate) <= late.error + 1e-6 * slope
    assert late.error <= 0.02 * slope


@pytest.mark.parametrize("eta", [0.003, 0.03])
@pytest.mark.parametrize("start", [1e-2, 1e-3])
def test_the_window_error_is_that_of_the_quadratic_terms(eta, start):
    # one mode, and a balanced start: the terms that the linearisation leaves out add up
    f, tau, errors = 1.0 + start / 2, int(1 / eta), []
    for _ in range(int(40 / eta)):
        errors.append(f * f - 1.0)
        f -= eta * errors[-1] * f
    modes = limit_modes([[f]], [[f]], rank=1, step_size=eta)
    measured = np.log(errors[0] / errors[tau]) / tau
    deviation = abs(measured - modes.window_rate([[errors[0]]], steps=tau))
    assert deviation <= modes.window_error([[errors[0]]], steps=tau) <= 4 * deviation


def test_the_error_of_a_late_rate_counts_the_rounding_of_its_last_error():
    late = late_rate(
        [[1.0]], [[0.9]], [[1.2]], step_size=0.3, longest=1000, window=(1e-3, 1e-13), tol=1e-13
    )
    assert abs(late.measured - late.modes.rate) <= late.error <= 1e-3 * late.modes.rate


def test_window_rate_of_a_residual_without_the_slowest_mode():
    F, G = np.eye(4, 3) * [1.0, 0.5, 0.2], np.eye(4, 3) * [1.0, 1.0, 0.0]
    modes = limit_modes(F, G, rank=2, step_size=0.1)
    residual = np.zeros((4, 4))
    residual[0, 0] = 1e-6  # decays by 0.8 a step; the slowest mode by 0.996
    assert modes.window_rate(residual, steps=10**6) == pytest.approx(-np.log(0.8), rel=1e-12)
    assert modes.window_error(residual, steps=10**6) == np.inf
    with pytest.raises(ValueError, match="residual"):
        modes.window_rate(np.diag([0.0, 0.0, 0.0, 1.0]), steps=1)


@pytest.mark.parametrize("step_size", [0.3, 0.6, 0.9])  # eta times the one mode is 0.63, 1.26, 1.88
def test_late_rate_of_steps_that_overshoot(step_size):
    late = late_rate(
        [[1.0]], [[0.9]], [[1.2]], step_size=step_size, longest=1000, window=(1e-3, 1e-9), tol=1e-12
    )
    assert late.modes.rate == pytest.approx(
        -np.log(abs(1 - step_size * late.modes.slowest)), rel=1e-12
    )
    assert abs(late.measured - late.modes.rate) <= late.error <= 0.01 * late.modes.rate


@pytest.mark.parametrize("step_size", [0.8, 0.9])
def test_late_rate_where_the_fastest_mode_overshoots_most(step_size):
    late = late_rate(
        [[1.0, 0.0]],
        [[1.0]],
        [[1.1], [0.1]],
        step_size=step_size,
        longest=1000,
        window=(1e-3, 1e-9),
        tol=1e-12,
    )
    ends = step_size * late.modes.slowest, step_size * late.modes.values.max()
    assert ends[0] < 1 < ends[1] > 2 - ends[0]
    assert late.modes.rate == pytest.approx(-np.log(ends[1] - 1), rel=1e-12)
    assert abs(late.measured - late.modes.rate) <= late.error <= 0.01 * late.modes.rate


def test_late_rate_of_a_window_without_steps():
    exact = late_rate(np.eye(2), np.eye(2), np.eye(2), step_size=0.1, longest=10)
    assert np.isnan(exact.measured)
    assert exact.modes is None
    jump = late_rate(
        np.eye(2), (1 + 1e-10) * np.eye(2), np.eye(2), step_size=0.5, longest=10
    )  # reaches the limit in one step
    assert np.isnan(jump.measured)


@pytest.mark.parametrize("seed", [0, 4])
def test_the_error_of_a_late_rate_counts_the_faster_modes(seed):
    rng = np.random.default_rng(seed)
    M = general_truth(6, 5, [1.0, 0.6], rng)
    F, G = 0.5 * rng.standard_normal((6, 3)), 0.3 * rng.standard_normal((5, 3))
    late = late_rate(M, F, G, step_size=0.1, longest=100_000, window=(1e-4, 1e-6), tol=1e-9)
    assert (
        0.01 * late.modes.rate
        < late.measured - late.modes.rate
        <= late.error
        <= 0.03 * late.modes.rate
    )


def test_late_rate_without_convergence():
    late = late_rate(np.diag([1.0, 0.5]), np.eye(2), np.eye(2), step_size=0.1, longest=3)
    assert late.status is DescentStatus.NOT_CONVERGED
    assert late.modes is None
    assert np.isnan(late.measured)


def test_a_balanced_limit_has_no_linear_rate():
    G = F = np.diag([1.0, 0.8, 0.0, 0.0])[:, :3]
    assert limit_modes(F, G, rank=2, step_size=0.1).rate == 0.0


@pytest.mark.parametrize(
    "ratio", [1 / 3, 1.0]
)  # the surplus directions go to F alone, or to F and G
def test_small_starts_approach_the_leading_order(ratio):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        M = general_truth(6, 6, [1.0, 0.6], rng)
        F, G = rng.standard_normal((6, 4)), ratio * rng.standard_normal((6, 4))
        leading = small_start_slowest(F, G, M)
        deviations = []
        for alpha in (0.04, 0.01):
            run = converge(M, alpha * F, alpha * G, 0.3, tol=1e-8)
            deviations.append(
                abs(
                    limit_modes(run.F, run.G, rank=2, step_size=0.3).slowest / alpha**2 / leading
                    - 1
                )
            )
        assert abs(small_start_slowest(0.1 * F, 0.1 * G, M) - 0.01 * leading) <= 1e-12
        assert deviations[1] <= max(deviations[0] / 4, 1e-3)  # alpha^2 log(1/alpha) falls by 11
        assert deviations[1] <= 0.05


@pytest.mark.parametrize(
    ("shape", "r", "k"),
    [((4, 4), 1, 5), ((3, 3), 1, 6), ((2, 5), 1, 4), ((5, 2), 1, 4), ((3, 3), 2, 5)],
)
def test_small_starts_with_more_columns_than_rows(shape, r, k):
    checked = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        M, ratio = general_truth(*shape, [1.0, 0.7][:r], rng), (1 / 3, 1.0)[seed % 2]
        F, G = rng.standard_normal((shape[0], k)), ratio * rng.standard_normal((shape[1], k))
        leading = small_start_slowest(F, G, M)
        if leading < 0.2:  # too many steps for a test
            continue
        run, checked = converge(M, 0.01 * F, 0.01 * G, 0.3, tol=1e-6), checked + 1
        slowest = limit_modes(run.F, run.G, rank=r, step_size=0.3).slowest
        assert slowest == pytest.approx(1e-4 * leading, rel=0.02)
    assert checked >= 2


def test_small_starts_balanced_or_without_room():
    F = np.random.default_rng(0).standard_normal((3, 3))
    assert small_start_slowest(F, F, np.diag([1.0, 0.0, 0.0])) == 0
    for M in (np.eye(3), np.eye(2, 3), np.zeros((3, 3))):
        with pytest.raises(ValueError, match="truth"):
            small_start_slowest(F[: len(M)], F, M)


def test_rebalanced_bounds_hold_and_shrink_to_the_limit():
    sigma = np.array([1.0, 0.6])
    for beta in (0.5, np.sqrt(0.6), 1.0):
        exact = min(beta**2, 0.36 / beta**2)
        np.testing.assert_allclose(
            rebalanced_slowest_bounds(sigma, error=0.0, scale=beta, step_size=0.1), exact, rtol=1e-8
        )
        widths = [
            np.ptp(rebalanced_slowest_bounds(sigma, error=e, scale=beta, step_size=0.1))
            for e in (1e-4, 1e-3, 1e-2)
        ]
        assert 0 < widths[0] < widths[1] < widths[2]
        for seed in range(3):
            rng = np.random.default_rng(seed)
            M = general_truth(7, 6, sigma, rng)
            alpha = (0.3, 0.1, 0.03)[seed]
            F, G = alpha * rng.standard_normal((7, 4)), alpha / 3 * rng.standard_normal((6, 4))
            run = converge(M, F, G, 0.1, tol=0.01)
            lower, upper = rebalanced_slowest_bounds(
                sigma, error=run.errors[-1], scale=beta, step_size=0.1
            )
            end = converge(M, *rebalance(run.F, run.G, scale=beta), 0.1)
            assert (
                0
                < lower
                <= limit_modes(end.F, end.G, rank=2, step_size=0.1).slowest
                <= upper
                < np.inf
            )
    # To first order the distance is e over sqrt(mu) (1 - eta l / 2): the width that no other
    # constant gives
    for beta, size, derivative in ((0.5, 0.5, 2 * 0.5), (1.2, 0.6 / 1.2, 2 * 0.36 / 1.2**3)):
        rho = 1e-6 / ((1 - 0.05 * (beta**2 + 1 / beta**2)) * size)
        width = np.ptp(rebalanced_slowest_bounds(sigma, error=1e-6, scale=beta, step_size=0.1))
        assert width == pytest.approx(2 * derivative * rho, rel=1e-3)
    assert rebalanced_slowest_bounds(sigma, error=0.5, scale=1.0, step_size=0.1) == (0.0, np.inf)
    assert rebalanced_slowest_bounds(sigma, error=1e-3, scale=1.0, step_size=3.0) == (0.0, np.inf)


@pytest.mark.long
def test_error_bounds_on_many_starts():
    rng = np.random.default_rng(10)
    for _ in range(200):
        n, r = rng.integers(3, 9), rng.integers(1, 3)
        k = rng.integers(r, n + 3)
        M = symmetric_truth(n, rng.uniform(0.2, 1.0, r), rng)
        eta = rng.uniform(0.05, 0.4)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            state = gradient_descent(
                M,
                search_rank=k,
                step_size=eta,
                steps=int(rng.integers(20, 1000)),
                init_scale=0.3,
                rng=rng,
            ).X
        for T in (5, 500, 20_000):
            bounds = error_bounds(M, state, step_size=eta, steps=T)
            error = gradient_descent(
                M, search_rank=k, step_size=eta, steps=T, initial=state
            ).errors[-1]
            assert bounds.lower - 1e-14 * (T + 10) <= error <= bounds.upper + 1e-14 * (T + 10)


def test_the_width_after_rebalancing_solves_the_stated_inequality():
    top, low, e, eta = 1.0, 0.6, 0.02, 0.1
    beta = np.sqrt(low)
    lower, upper = rebalanced_slowest_bounds([top, low], error=e, scale=beta, step_size=eta)
    rho = beta - np.sqrt(lower)
    f, g = beta + rho, (top + e) / beta + rho
    kappa = (f * (e / beta + rho) + e) / low
    mu = min(beta - rho, (low - e) / beta - rho) ** 2 * (1 - kappa**2)
    speed = (1 - eta / 2 * (f**2 + g**2)) * np.sqrt(mu) - eta * f * g * e / np.sqrt(mu)
    assert rho == pytest.approx(e / speed, rel=1e-8)
    assert upper == pytest.approx(min((beta + rho) ** 2, (low / (beta - rho)) ** 2), rel=1e-8)


def test_a_path_after_rebalancing_that_no_radius_bounds_is_refused():
    def radius(e):
        lower, _ = rebalanced_slowest_bounds([1.0], error=e, scale=1.0, step_size=0.1)
        return 1.0 - np.sqrt(lower) if lower else np.inf

    low, high = 0.0, 0.5  # errors that are small enough and too large
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if radius(middle) < np.inf else (low, middle)
    e, rho = low, radius(low)
    f, kappa = 1.0 + rho, (1.0 + rho) * (e + rho) + e
    root = min(1.0 - rho, 1.0 - e - rho) * np.sqrt(1.0 - kappa**2)
    g = f + e
    speed = (1 - 0.05 * (f**2 + g**2)) * root - 0.1 * f * g * e / root
    assert e / speed <= rho * (1 + 1e-8)
    assert radius(high) == np.inf
