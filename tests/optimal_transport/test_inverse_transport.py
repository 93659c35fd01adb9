"""Inverse transport: convex programs of other solvers, differences, closed forms, invariances."""

import cvxpy as cp
import mpmath
import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from sklearn.covariance import graphical_lasso
from sklearn.linear_model import Lasso

from theorylab.optimal_transport import (
    InverseStatus,
    gain_hessian,
    gaussian_coupling,
    gaussian_gain,
    gaussian_hessian,
    gaussian_inverse_cost,
    inverse_cost,
    irrepresentability,
    sinkhorn_plan,
)
from theorylab.optimal_transport._inverse import Clouds


def covariance(d, rng):
    G = rng.normal(size=(d, d))
    return G @ G.T / d + 0.3 * np.eye(d)


def gaussian(p, q, seed, sparse=0.5):
    rng = np.random.default_rng(seed)
    A = np.where(rng.random((p, q)) < sparse, rng.normal(size=(p, q)), 0.0)
    return A, covariance(p, rng), covariance(q, rng)


def cloud(n, m, p, q, seed, eps=0.7):
    """Weighted points, and their entropic coupling for a sparse gain."""
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(n, p)) + 1, rng.exponential(size=(m, q))
    a, b = rng.dirichlet(np.full(n, 3.0)), rng.dirichlet(np.full(m, 3.0))
    A = rng.normal(size=(p, q))
    A[0] = 0
    return A, X, Y, sinkhorn_plan(a, b, -X @ A @ Y.T, eps, tol=1e-13).plan


def transposition(p, q):
    return np.eye(p * q).reshape(p, q, p * q).transpose(1, 0, 2).reshape(p * q, p * q)


# ---------------------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("eps", [5.0, 0.4])
def test_scalar_coupling_against_a_search(eps):
    a, s, t = 1.3, 0.8, 2.1

    def loss(c):
        return -(a * c + eps / 2 * np.log(1 - c**2 / (s * t)))

    found = minimize_scalar(
        loss, bounds=(0, np.sqrt(s * t)), method="bounded", options={"xatol": 1e-10}
    )
    assert_allclose(gaussian_coupling([[a]], [[s]], [[t]], eps), found.x, rtol=1e-6)
    assert_allclose(gaussian_gain([[a]], [[s]], [[t]], eps), -found.fun, rtol=1e-12)


@pytest.mark.parametrize(("p", "q"), [(3, 3), (2, 4), (4, 1)])
def test_precision_gradient_and_hessian(p, q):
    A, x, y = gaussian(p, q, 0, sparse=1.0)
    eps, h = 0.6, 1e-5
    S, H = gaussian_coupling(A, x, y, eps), gaussian_hessian(A, x, y, eps)
    joint = np.block([[x, S], [S.T, y]])
    assert_allclose(-eps * np.linalg.inv(joint)[:p, p:], A, atol=1e-12)
    steps = h * np.eye(p * q).reshape(-1, p, q)
    slopes = [
        (gaussian_gain(A + E, x, y, eps) - gaussian_gain(A - E, x, y, eps)) / (2 * h) for E in steps
    ]
    assert_allclose(slopes, S.ravel(), atol=1e-9)
    rows = [
        (gaussian_coupling(A + E, x, y, eps) - gaussian_coupling(A - E, x, y, eps)).ravel()
        for E in steps
    ]
    assert_allclose(np.array(rows) / (2 * h), H, atol=1e-9)
    left, right = x - S @ np.linalg.solve(y, S.T), y - S.T @ np.linalg.solve(x, S)
    inverse = eps * np.kron(np.linalg.inv(left), np.linalg.inv(right))
    inverse += np.kron(A, A.T) @ transposition(p, q) / eps
    assert_allclose(H @ inverse, np.eye(p * q), atol=1e-10)
    # The column-major reading of the same formula is another matrix.
    wrong = inverse + (np.kron(A, A.T) @ (np.eye(p * q) - transposition(p, q))) / eps
    if min(p, q) > 1:
        assert abs(H @ wrong - np.eye(p * q)).max() > 1e-2


def test_hessian_keeps_its_digits_near_a_map():
    A, x, y = np.array([[1.0, 0.3], [0.3, 0.7]]), np.eye(2), np.eye(2)
    for eps in (1e-5, 1e5):
        with mpmath.workdps(60):
            values, Q = mpmath.eigsy(mpmath.matrix(A.tolist()) / mpmath.mpf(eps))
            r = [2 * s / (1 + mpmath.sqrt(1 + 4 * s * s)) for s in values]
            K = Q * mpmath.diag([1 / (1 - v * v) for v in r]) * Q.T
            exact = mpmath.matrix(4, 4)
            for i, j, k, m in np.ndindex(2, 2, 2, 2):
                swap = mpmath.mpf(A[i, m]) * mpmath.mpf(A[k, j]) / mpmath.mpf(eps)
                exact[2 * i + j, 2 * k + m] = mpmath.mpf(eps) * K[i, k] * K[j, m] + swap
            H = np.array((exact**-1).tolist(), dtype=float)
        found, swap = gaussian_hessian(A, x, y, eps), transposition(2, 2)
        for sign in (1, -1):  # symmetric directions, of order eps, and the others
            parts = [M + sign * swap @ M for M in (found, H)]
            assert_allclose(*parts, rtol=1e-9, atol=1e-9 * abs(parts[1]).max())
        gain = gaussian_gain(A, x, y, eps)
        if eps > 1:  # half the squared norm of A over eps, to first order
            assert_allclose(gain, np.sum(A**2) / (2 * eps), rtol=1e-9)


def test_a_grid_under_a_normal_density_is_gaussian():
    t = np.linspace(-6, 6, 49)
    w = np.exp(-(t**2) / 2)
    w /= w.sum()
    x, y, a, eps = 1.2 * t, 0.7 * t, 0.9, 0.5
    plan = sinkhorn_plan(w, w, -a * np.outer(x, y), eps, tol=1e-12).plan
    stated = gaussian_coupling([[a]], [[1.44]], [[0.49]], eps)[0, 0]
    assert_allclose(x @ plan @ y, stated, rtol=1e-6)
    H = gain_hessian(plan, x[:, None], y[:, None], eps)
    assert_allclose(H, gaussian_hessian([[a]], [[1.44]], [[0.49]], eps), rtol=1e-4)
    clouds = inverse_cost(plan, x[:, None], y[:, None], 0.05, eps=eps)
    gaussians = gaussian_inverse_cost([[stated]], [[1.44]], [[0.49]], 0.05, eps=eps)
    assert_allclose(clouds.matrix, gaussians.matrix, rtol=1e-5)
    assert_allclose(clouds.value, gaussians.value, rtol=1e-4)


def test_hessian_of_clouds_by_differences():
    A, X, Y, plan = cloud(6, 5, 2, 3, 1)
    eps, h = 0.7, 1e-5
    a, b = plan.sum(axis=1), plan.sum(axis=0)

    def moments(A):
        return (X.T @ ot.sinkhorn(a, b, -X @ A @ Y.T, eps, stopThr=1e-14) @ Y).ravel()

    rows = [(moments(A + E) - moments(A - E)) / (2 * h) for E in h * np.eye(6).reshape(-1, 2, 3)]
    H = gain_hessian(plan, X, Y, eps)
    assert_allclose(H, rows, atol=1e-7 * abs(H).max())
    assert_allclose(gain_hessian(plan, X + 5, Y - 3, eps), H, rtol=1e-8, atol=1e-9)
    padded = np.pad(plan, ((0, 1), (1, 0)))
    X, Y = np.vstack([X, [9, 9]]), np.vstack([[7, 7, 7], Y])
    assert_allclose(gain_hessian(padded, X, Y, eps), H, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------------------- the solvers
@pytest.mark.parametrize("lam", [0.1, 0.02])
@pytest.mark.parametrize("exact", [True, False])
def test_clouds_against_the_dual_of_another_solver(lam, exact):
    _, X, Y, plan = cloud(6, 5, 2, 3, 3)
    if not exact:  # an observation that no gain explains
        plan = plan * np.random.default_rng(0).uniform(0.5, 1.5, plan.shape)
        plan /= plan.sum()
    eps = 0.7
    a, b = plan.sum(axis=1), plan.sum(axis=0)
    P = cp.Variable(plan.shape, nonneg=True)
    apart = X.T @ (P - plan) @ Y
    box = [apart <= lam, -apart <= lam]
    entropy = eps * cp.sum(cp.rel_entr(P, np.outer(a, b)))
    program = cp.Problem(
        cp.Minimize(entropy), [cp.sum(P, axis=1) == a, cp.sum(P, axis=0) == b, *box]
    )
    program.solve(solver="CLARABEL")
    ours = inverse_cost(plan, X, Y, lam, eps=eps)
    assert ours.status is InverseStatus.CONVERGED
    assert_allclose([ours.value, ours.lower], -program.value, rtol=1e-6)
    theirs = box[1].dual_value - box[0].dual_value
    assert_allclose(ours.matrix, theirs, atol=2e-4 * abs(theirs).max())
    means = np.outer(a @ X, b @ Y)
    assert_allclose(ours.moments, X.T @ P.value @ Y - means, atol=1e-4)
    assert ours.kkt_residual < 1e-4
    assert 0 < np.count_nonzero(ours.matrix) < 6 or lam < 0.1 or not exact


@pytest.mark.parametrize("lam", [0.2, 0.01])
def test_gaussians_against_the_dual_of_another_solver(lam):
    A, x, y = gaussian(3, 2, 4, sparse=0.7)
    eps = 0.4
    T = gaussian_coupling(A, x, y, eps) + 0.01
    S = cp.Variable((3, 2))
    box = [lam >= S - T, lam >= T - S]
    joint = cp.bmat([[x, S], [S.T, y]])
    objective = eps / 2 * (cp.log_det(joint) - np.linalg.slogdet(x)[1] - np.linalg.slogdet(y)[1])
    program = cp.Problem(cp.Maximize(objective), box)
    program.solve(solver="CLARABEL")
    ours = gaussian_inverse_cost(T, x, y, lam, eps=eps)
    assert_allclose([ours.value, ours.lower], program.value, rtol=1e-6)
    theirs = box[1].dual_value - box[0].dual_value
    assert_allclose(ours.matrix, theirs, atol=1e-4 * abs(theirs).max())
    assert_allclose(ours.moments, S.value, atol=1e-4)
    assert ours.gap <= 1e-9
    assert ours.kkt_residual < 1e-4


@pytest.mark.parametrize("eps", [3e4, 3e-4])
def test_lasso_and_graphical_lasso_are_the_limits(eps):
    rng = np.random.default_rng(5)
    A = np.diag([1.0, 1.2, 0.9]) + 0.3 * (np.diag([1, -1], 1) + np.diag([1, -1], -1))
    x, y, level = covariance(3, rng), covariance(3, rng), 0.1
    if eps > 1:
        design = np.kron(np.linalg.cholesky(x).T, np.linalg.cholesky(y).T)
        model = Lasso(alpha=level / 9, fit_intercept=False, tol=1e-12)
        limit, lam = model.fit(design, design @ A.ravel()).coef_.reshape(3, 3), level / eps
    else:
        y, lam = x, level * eps
        S = np.linalg.inv(A) + 2 * level * np.eye(3)
        limit = graphical_lasso(S, 2 * level, tol=1e-10, enet_tol=1e-10)[1]
    fit = gaussian_inverse_cost(gaussian_coupling(A, x, y, eps), x, y, lam, eps=eps)
    assert_allclose(fit.matrix, limit, atol=2e-3)
    assert ((fit.matrix == 0) == (abs(limit) < 1e-9)).all()
    assert (fit.matrix == 0).any()
    assert abs(fit.matrix - A).max() > 0.05


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1.0), st.floats(0.1, 10.0))
def test_bounds_hold_at_every_budget(seed, lam, eps):
    A, x, y = gaussian(3, 3, seed)
    T = gaussian_coupling(A, x, y, eps)
    done = gaussian_inverse_cost(T, x, y, lam, eps=eps)
    room = 1e-8 * (abs(done.value) + lam * abs(done.matrix).sum())
    assert done.lower <= done.value + room
    for budget in (1, 2):
        with pytest.warns(RuntimeWarning) if done.n_iterations > budget else _quiet():
            early = gaussian_inverse_cost(T, x, y, lam, eps=eps, max_iter=budget)
        assert early.lower <= done.value + room
        assert early.value >= done.lower - room
        if done.n_iterations > budget:
            assert early.status is InverseStatus.NOT_CONVERGED
            assert early.gap > 1e-9
    # No matrix has a smaller objective; the coupling's own A does not attain it.
    B = done.matrix + 0.1 * np.random.default_rng(seed).normal(size=(3, 3))
    for other in (B, A):
        value = gaussian_gain(other, x, y, eps) - np.sum(other * T) + lam * abs(other).sum()
        assert value >= done.lower - room


class _quiet:
    def __enter__(self):
        return self

    def __exit__(self, *args):
        return False


def test_residual_of_an_early_end_by_hand():
    zero_is_worst = []
    for seed in range(12):
        A, x, y = gaussian(3, 3, seed)
        T = gaussian_coupling(A, x, y, 0.3)
        with pytest.warns(RuntimeWarning, match="raise max_iter"):
            fit = gaussian_inverse_cost(T, x, y, 0.05, eps=0.3, max_iter=1)
        off = (fit.moments - T) / 0.05
        entries = np.where(fit.matrix == 0, abs(off) - 1, abs(off + np.sign(fit.matrix)))
        assert_allclose(fit.kkt_residual, entries.max(), rtol=1e-9)
        zero_is_worst.append(fit.matrix.ravel()[entries.argmax()] == 0)
    assert any(zero_is_worst)


def test_an_early_end_of_clouds_is_bounded_too():
    _, X, Y, plan = cloud(8, 9, 2, 2, 6)
    done = inverse_cost(plan, X, Y, 0.01, eps=0.7)
    with pytest.warns(RuntimeWarning, match="raise max_iter"):
        early = inverse_cost(plan, X, Y, 0.01, eps=0.7, max_iter=1)
    assert early.lower <= done.value < early.value
    assert early.gap > 1e-4
    assert "2x2" in repr(early)


def test_a_plan_off_its_marginals_is_completed_before_it_bounds():
    _, X, Y, plan = cloud(6, 5, 2, 2, 14)
    a, b = plan.sum(axis=1), plan.sum(axis=0)
    clouds = Clouds(plan, a, b, X - a @ X, Y - b @ Y)
    point = clouds.at(np.array([[0.5, 0.2], [0.0, -0.3]]))
    short = point._replace(plan=0.8 * point.plan)
    filled = 0.8 * point.plan + 0.2 * np.outer(a, b)
    divergence = np.sum(filled * np.log(filled / np.outer(a, b)))
    assert_allclose(clouds.bound(short, 1e3), -divergence, rtol=1e-9)


def test_assignments_and_large_penalties():
    rng = np.random.default_rng(7)
    X = rng.normal(size=(15, 2))
    plan = np.eye(15) / 15  # deterministic: only the penalty keeps the gain finite
    fit = inverse_cost(plan, X, X, 0.01, eps=1.0)
    assert fit.status is InverseStatus.CONVERGED
    assert fit.gap <= 1e-9
    centred = X - X.mean(axis=0)
    largest = abs(centred.T @ centred / 15).max()
    above, below = (inverse_cost(plan, X, X, largest * f, eps=1.0) for f in (1.0001, 0.999))
    assert not above.matrix.any()
    assert (above.value, above.gap) == (0, 0)
    assert np.count_nonzero(below.matrix) == 1
    independent = inverse_cost(np.full((15, 15), 1 / 225), X, X, 0.01, eps=1.0)
    assert not independent.matrix.any()
    constant = inverse_cost(plan, X, np.ones((15, 1)), 0.01, eps=1.0)
    assert not constant.matrix.any()


def test_a_singular_joint_covariance_is_fitted():
    x = np.array([[1.0, 0.2], [0.2, 0.5]])
    fit = gaussian_inverse_cost(x, x, x, 0.01, eps=1.0)  # Y = X
    assert fit.status is InverseStatus.CONVERGED
    assert np.isfinite(fit.lower)


# ---------------------------------------------------------------------------------- invariances
@pytest.mark.parametrize("unit", [1e-8, 3.0, 1e8])
def test_units(unit):
    _, X, Y, plan = cloud(7, 6, 2, 2, 8)
    one = inverse_cost(plan, X, Y, 0.05, eps=0.7)
    gains = inverse_cost(plan, X, Y, 0.05, eps=0.7 * unit)
    assert_allclose(gains.matrix, one.matrix * unit, rtol=1e-9)
    assert_allclose(gains.value, one.value * unit, rtol=1e-9)
    points = inverse_cost(plan, X * unit, Y, 0.05 * unit, eps=0.7)
    assert_allclose(points.matrix, one.matrix / unit, rtol=1e-6, atol=1e-9 / unit)
    assert_allclose(points.moments, one.moments * unit, rtol=1e-6, atol=1e-9 * unit)
    assert_allclose(points.value, one.value, rtol=1e-9)
    both = inverse_cost(plan, X * unit, Y, 0.05 * unit, eps=0.7 * unit)
    assert_allclose(both.matrix, one.matrix, rtol=1e-6, atol=1e-9)
    A, x, y = gaussian(2, 3, 9)
    T = gaussian_coupling(A, x, y, 0.5)
    assert_allclose(gaussian_coupling(A, x * unit, y * unit, 0.5 * unit), T * unit, rtol=1e-9)
    assert_allclose(
        gaussian_hessian(A, x * unit, y * unit, 0.5 * unit),
        gaussian_hessian(A, x, y, 0.5) * unit,
        rtol=1e-8,
        atol=1e-12 * unit,
    )
    first = gaussian_inverse_cost(T, x, y, 0.02, eps=0.5).matrix
    other = gaussian_inverse_cost(T * unit, x * unit, y * unit, 0.02 * unit, eps=0.5).matrix
    assert_allclose(other, first / unit, rtol=1e-6, atol=1e-9 / unit)


def test_order_places_and_points_without_mass():
    _, X, Y, plan = cloud(7, 6, 3, 2, 10)
    one = inverse_cost(plan, X, Y, 0.05, eps=0.7)
    rng = np.random.default_rng(0)
    i, j, k, m = (rng.permutation(n) for n in (7, 6, 3, 2))
    other = inverse_cost(plan[np.ix_(i, j)], X[i][:, k], Y[j][:, m], 0.05, eps=0.7)
    assert_allclose(other.matrix, one.matrix[np.ix_(k, m)], atol=1e-6)
    turned = inverse_cost(plan.T, Y, X, 0.05, eps=0.7)
    assert_allclose(turned.matrix, one.matrix.T, atol=1e-6)
    moved = inverse_cost(plan, X + 10, Y - 20, 0.05, eps=0.7)
    assert_allclose(moved.matrix, one.matrix, atol=1e-6)
    assert_allclose(moved.moments, one.moments, atol=1e-8)
    padded = np.pad(plan, ((1, 0), (0, 2)))
    X0, Y0 = np.vstack([np.full((1, 3), 1e6), X]), np.vstack([Y, np.full((2, 2), -1e6)])
    with_zeros = inverse_cost(padded, X0, Y0, 0.05, eps=0.7)
    assert_allclose(with_zeros.matrix, one.matrix, rtol=1e-9)
    halves = np.repeat(plan, 2, axis=0) / 2
    repeated = inverse_cost(halves, np.repeat(X, 2, axis=0), Y, 0.05, eps=0.7)
    assert_allclose(repeated.matrix, one.matrix, atol=1e-6)
    assert_allclose(repeated.value, one.value, rtol=1e-8)


# ---------------------------------------------------------------------------------- certificates
def test_certificate_is_the_first_order_dual_variable():
    A, x, y = gaussian(3, 3, 12)
    eps, lam = 0.8, 1e-6
    z = irrepresentability(gaussian_hessian(A, x, y, eps), A)
    assert (z[A != 0] == np.sign(A[A != 0])).all()
    assert 0.05 < abs(z[A == 0]).max() < 1
    T = gaussian_coupling(A, x, y, eps)
    fit = gaussian_inverse_cost(T, x, y, lam, eps=eps, tol=1e-13)
    assert_allclose((T - fit.moments) / lam, z, atol=1e-4)
    assert (np.sign(fit.matrix) == np.sign(A)).all()


def test_signs_are_lost_beyond_one():
    x = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.6], [0.6, 0.6, 1.0]])
    A = np.array([[0.7, 0.0], [0.7, 0.0], [0.0, 0.0]])
    H = gaussian_hessian(A, x, np.eye(2), 1.0)
    assert_allclose(irrepresentability(H, A)[2, 0], 1.2, rtol=1e-9)
    T = gaussian_coupling(A, x, np.eye(2), 1.0)
    assert gaussian_inverse_cost(T, x, np.eye(2), 1e-4, eps=1.0).matrix[2, 0] > 0
    lasso = irrepresentability(np.kron(x, np.eye(2)), A)
    assert_allclose(lasso[2, 0], 1.2)
    assert not irrepresentability(H, np.zeros((3, 2))).any()


def test_bad_input():
    _, X, Y, plan = cloud(5, 4, 2, 2, 13)
    with pytest.raises(ValueError, match="plan: expected weights that sum to one"):
        inverse_cost(plan * 1.1, X, Y, 0.1, eps=1.0)
    with pytest.raises(ValueError, match="plan: expected non-negative"):
        inverse_cost(plan - 0.02, X, Y, 0.1, eps=1.0)
    with pytest.raises(ValueError, match=r"Y: expected shape \(4, any\)"):
        inverse_cost(plan, X, Y[:3], 0.1, eps=1.0)
    with pytest.raises(ValueError, match="X: expected finite numbers"):
        inverse_cost(plan, X * np.nan, Y, 0.1, eps=1.0)
    for lam, eps, name in ((0.0, 1.0, "lam"), (-1.0, 1.0, "lam"), (0.1, 0.0, "eps")):
        with pytest.raises(ValueError, match=f"{name}: expected a finite real number and > 0"):
            inverse_cost(plan, X, Y, lam, eps=eps)
    with pytest.raises(ValueError, match="cov_x: expected a positive definite covariance"):
        gaussian_coupling([[1.0], [1.0]], np.ones((2, 2)) - 2 * np.eye(2), [[1.0]], 1.0)
    with pytest.raises(ValueError, match="cross: expected a cross-covariance that makes"):
        gaussian_inverse_cost([[1.1]], [[1.0]], [[1.0]], 0.1, eps=1.0)
    with pytest.raises(ValueError, match="hessian: expected a matrix that is invertible"):
        irrepresentability(np.ones((2, 2)), [1.0, 1.0])
    with pytest.raises(ValueError, match="expected magnitudes whose products stay"):
        gaussian_gain([[1e300]], [[1e300]], [[1.0]], 1e-300)
