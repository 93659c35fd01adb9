from fractions import Fraction
from functools import reduce
from itertools import product

import numpy as np
import pytest
import sympy as sp
from scipy.optimize import brentq

from theorylab.matrix_sensing import (
    completion_spectrum,
    completion_threshold,
    escape_ratio,
    first_saddle_order,
    isometry_bounds,
    lifted_gradient,
    lifted_hessian,
    lifted_loss,
    lifting_ratio,
    perturbed_completion,
    saddle_bound,
)

EPS = np.finfo(float).eps


def integers(n, m, seed):
    rng = np.random.default_rng(seed)
    A = rng.integers(-2, 3, (m, n, n))
    return A + A.transpose(0, 2, 1), rng.integers(-2, 3, n), rng


def symbolic_lift(A, z, order):
    """The lifted loss as a polynomial in the entries of w, summed over all index tuples."""
    n = len(z)
    w = sp.Matrix(sp.symbols(f"w0:{n**order}"))
    total = 0
    for chosen in product(range(len(A)), repeat=order):
        big = sp.Matrix(reduce(np.kron, [A[i] for i in chosen]))
        total += ((w.T * big * w)[0] - sp.prod(int(z @ A[i] @ z) for i in chosen)) ** 2
    return w, total


@pytest.mark.parametrize(("n", "m", "order"), [(2, 2, 1), (2, 2, 2), (3, 1, 2), (2, 1, 3)])
def test_loss_gradient_and_hessian_are_those_of_the_polynomial(n, m, order):
    A, z, rng = integers(n, m, 7)
    w, loss = symbolic_lift(A, z, order)
    at = rng.integers(-2, 3, n**order)
    values = dict(zip(w, at.tolist(), strict=True))
    tensor = at.reshape((n,) * order)
    assert lifted_loss(A, z, tensor) == int(loss.subs(values))
    gradient = [sp.diff(loss, s).subs(values) for s in w]
    np.testing.assert_array_equal(
        lifted_gradient(A, z, tensor).ravel(), np.array(gradient, dtype=float)
    )
    x = rng.integers(-2, 3, n)
    values = dict(zip(w, reduce(np.kron, [x] * order).tolist(), strict=True))
    hessian = np.array([[sp.diff(loss, s, t).subs(values) for s in w] for t in w], dtype=float)
    np.testing.assert_array_equal(lifted_hessian(A, z, x, order=order).matrix, hessian)


def test_order_one_is_the_sensing_loss_and_the_truth_has_none():
    A, z, rng = integers(4, 5, 1)
    x = rng.standard_normal(4)
    expected = np.sum((np.einsum("mij,i,j->m", A, x, x) - np.einsum("mij,i,j->m", A, z, z)) ** 2)
    np.testing.assert_allclose(lifted_loss(A, z, x), expected, rtol=1e-12)
    assert lifted_loss(A, z, np.multiply.outer(z, z)) == 0
    assert not lifted_gradient(A, z, np.multiply.outer(z, z)).any()


def test_the_lift_is_invariant_under_permutations_of_modes():
    A, z, rng = integers(3, 4, 2)
    w = rng.standard_normal((3, 3, 3))
    np.testing.assert_allclose(
        lifted_loss(A, z, w), lifted_loss(A, z, w.transpose(2, 0, 1)), rtol=1e-12
    )


def test_apply_operator_and_curvature_agree_with_the_matrix():
    A, z, rng = integers(3, 4, 3)
    H = lifted_hessian(A, z, rng.standard_normal(3), order=3)
    v, u = rng.standard_normal(27), rng.standard_normal(3)
    scale = np.linalg.norm(H.matrix, 2)
    np.testing.assert_allclose(H.apply(v), H.matrix @ v, atol=100 * EPS * scale)
    for form in (H.operator, H.operator.H):
        np.testing.assert_allclose(form @ v, H.matrix @ v, atol=100 * EPS * scale)
        np.testing.assert_allclose(form @ np.eye(27), H.matrix, atol=100 * EPS * scale)
    lifted = reduce(np.kron, [u] * 3)
    np.testing.assert_allclose(
        H.curvature(u), lifted @ H.matrix @ lifted, atol=100 * EPS * scale * (u @ u) ** 3
    )
    with pytest.raises(ValueError, match="w"):
        H.apply(v[:-1])


def test_the_iterative_smallest_eigenvalue_is_that_of_the_exact_spectrum():
    problem = perturbed_completion(0.5)
    H = lifted_hessian(problem.matrices, problem.truth, problem.spurious, order=7)
    assert H.dimension == 2187
    np.testing.assert_allclose(
        H.smallest_eigenvalue, float(completion_spectrum(problem.delta, order=7)[0][0]), rtol=1e-10
    )


@pytest.mark.parametrize(("m", "seed"), [(6, 3), (6, 11), (8, 5), (8, 9)])
def test_the_iterative_smallest_eigenvalue_at_the_truth_is_zero(m, seed):
    # 8 S_z (x) S_z is positive semidefinite of rank m^2: the eigenvalue sought is 0, where a
    # relative test is never met
    rng = np.random.default_rng(seed)
    A, z = rng.standard_normal((m, 30, 30)), rng.standard_normal(30)
    H = lifted_hessian(A + A.transpose(0, 2, 1), z, z, order=2)
    assert abs(H.smallest_eigenvalue) <= 1e-10 * 8 * np.linalg.norm(H.tangent_matrix, 2) ** 2
    assert lifted_hessian(np.zeros((1, 30, 30)), z, z, order=2).smallest_eigenvalue == 0


@pytest.mark.parametrize(("eps", "diagonal"), [(0.1, 1.0), (0.5, 1.0), (0.3, 0.8)])
def test_completion_spectrum_is_that_of_the_matrix(eps, diagonal):
    problem = perturbed_completion(eps, diagonal=diagonal)
    for order in (1, 2, 4):
        matrix = lifted_hessian(
            problem.matrices, problem.truth, problem.spurious, order=order
        ).matrix
        spectrum = completion_spectrum(problem.delta, order=order, diagonal=diagonal)
        exact = np.repeat([float(v) for v, _ in spectrum], [count for _, count in spectrum])
        assert exact.size == 3**order
        np.testing.assert_allclose(
            np.linalg.eigvalsh(matrix), exact, atol=3**order * EPS * np.linalg.norm(matrix, 2)
        )
        tensor = reduce(np.multiply.outer, [problem.spurious] * order)
        gradient = lifted_gradient(problem.matrices, problem.truth, tensor)
        np.testing.assert_allclose(gradient, 0, atol=64 * EPS * 3**order)


def test_the_spectrum_of_the_module_docstring_is_symbolic():
    d, e2 = sp.symbols("delta epsilon2", positive=True)
    e2 = (1 - d) / (1 + d)
    squared = sp.Matrix(
        [[1, 1, e2], [1, 1, 1], [e2, 1, 1]]
    )  # squared weights: K_u = squared * (u u'), entry by entry
    x, y, z = sp.Matrix([1, 0, -1]), sp.Matrix([0, 1, 0]), sp.Matrix([1, 0, 1])
    b = 2 / (1 + d)
    Kx, Kz = squared.multiply_elementwise(d * x * x.T), squared.multiply_elementwise(z * z.T)
    sym = [(d ** sp.Rational(1, 2) * (x * v.T + v * x.T) / 2) for v in (x, y, z)]
    tangent = [
        sum(squared[i] * M[i] ** 2 for i in range(9)) / (v.T * v)[0]
        for M, v in zip(sym, (x, y, z), strict=True)
    ]
    for K, values in ((Kx, (d * b, 0, d**2 * b)), (Kz, (d * b, 0, b))):
        for v, value in zip((x, y, z), values, strict=True):
            assert sp.simplify(K * v - value * v) == sp.zeros(3, 1)
    assert [sp.simplify(t - s) for t, s in zip(tangent, (d * b, d, d), strict=True)] == [0, 0, 0]


def test_thresholds():
    known = [0.5, 0.71202, 0.79856, 0.84521, 0.87435]
    for order in range(1, 9):
        low, high = completion_threshold(order)
        root = brentq(
            lambda d, n=order: 2**n * (1 - d ** (2 * n)) - 2 * (d * (1 + d)) ** n,
            0.1,
            0.9999,
            xtol=1e-15,
        )
        assert low < high
        assert high - low < Fraction(1, 2**60)
        assert abs(float(low) - root) < 1e-12  # brentq on values of size up to 2^8
        assert (
            completion_spectrum(low, order=order)[0][0]
            < 0
            < completion_spectrum(high, order=order)[0][0]
        )
        if order <= 5:
            assert round(float(low), 5) == known[order - 1]
    assert low < completion_threshold(9)[0]


def test_threshold_of_order_one_is_one_half():
    low, high = completion_threshold(1, bits=20)
    assert low < Fraction(1, 2) < high


def test_asymptotic_threshold():
    v = brentq(lambda v: v**4 - 2 * v - 1, 1, 2)
    gaps = [
        order * (1 - float(completion_threshold(order)[0])) - 2 * np.log(v)
        for order in (50, 100, 200)
    ]
    assert abs(gaps[2]) < abs(gaps[1]) < abs(gaps[0]) < 0.01
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.05)  # a correction of order 1/l


@pytest.mark.parametrize("eps", [0.1, 0.3, 0.5, 0.7])
def test_first_saddle_order(eps):
    delta = perturbed_completion(eps).delta
    first = first_saddle_order(delta)
    signs = [completion_spectrum(delta, order=order)[0][0] < 0 for order in range(1, first + 3)]
    assert signs == [False] * (first - 1) + [True] * 3
    assert {0.1: 34, 0.3: 4, 0.7: 1}.get(eps, first) == first


def test_first_saddle_order_near_one():
    for delta in (Fraction(999, 1000), Fraction(4999, 5000)):
        order = first_saddle_order(delta)
        sides = [
            2**n * (1 - delta ** (2 * n)) > 2 * (delta * (1 + delta)) ** n
            for n in (order - 1, order)
        ]
        assert sides == [False, True]
        assert order * (1 - delta) == pytest.approx(
            0.6663, abs=2e-3
        )  # the next integer, and a correction of order 1 - delta


def test_isometry_bounds_by_sampling_and_on_the_family():
    assert isometry_bounds(perturbed_completion(0.3).matrices) == pytest.approx(
        (0.09, 1.0), rel=1e-12
    )
    A, _, rng = integers(3, 8, 5)
    lower, upper = isometry_bounds(A)
    M = rng.standard_normal((2000, 3, 3))
    M = M + M.transpose(0, 2, 1)
    ratios = np.sum(np.einsum("mij,sij->sm", A, M) ** 2, axis=1) / np.sum(M**2, axis=(1, 2))
    assert lower <= ratios.min() * (1 + 1e-12)
    assert ratios.max() <= upper * (1 + 1e-12)
    assert ratios.max() > 0.8 * upper


def test_saddle_bound_on_the_family_and_at_the_origin():
    for eps in (0.2, 0.5, 0.7, 0.9):
        problem = perturbed_completion(eps)
        for x in (problem.spurious, np.zeros(3)):
            lowest = lifted_hessian(problem.matrices, problem.truth, x, order=1).smallest_eigenvalue
            assert lowest <= saddle_bound(problem.truth, x, lower=eps**2, upper=1.0) + 1e-12
    # beta of the closed form, u = eps^2: (1 - u^2) / (2 u (1 + u^2))
    u = 0.49
    problem = perturbed_completion(0.7)
    beta = lifting_ratio(problem.truth, problem.spurious, lower=u, upper=1.0)
    assert beta == pytest.approx((1 - u**2) / (2 * u * (1 + u**2)), rel=1e-12)


def test_saddle_bound_is_attained_by_a_full_isometry_at_the_origin():
    units = np.eye(3)
    pairs = [np.outer(units[i], units[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    A = np.array([np.diag(e) for e in units] + [(B + B.T) / np.sqrt(2) for B in pairs])
    z = np.array([1.0, -2.0, 0.5])
    lower, upper = isometry_bounds(A)
    lowest = lifted_hessian(A, z, np.zeros(3), order=1).smallest_eigenvalue
    assert lowest == pytest.approx(-4 * z @ z, rel=1e-12)
    assert saddle_bound(z, np.zeros(3), lower=lower, upper=upper) == pytest.approx(
        lowest, rel=1e-12
    )


def test_escape_ratio_bounds_the_curvature_and_is_met_by_a_full_isometry():
    A, z, rng = integers(3, 4, 21)
    for _ in range(20):
        x, u = 0.3 * rng.standard_normal((2, 3))
        if sum((z @ B @ z) * (u @ B @ u) for B in A) <= 0:
            continue
        rho = escape_ratio(A, z, x, u)
        q = sum((z @ B @ z) * (u @ B @ u) for B in A)
        for order in (1, 2, 3):
            found = lifted_hessian(A, z, x, order=order).curvature(u)
            assert found <= 4 * (3 * rho**order - 1) * q**order + 1e-9 * q**order
    # u = x: K_x and S_x agree on it, and the bound is attained.
    x = np.array([0.3, 0.0, 0.1])
    rho = escape_ratio(A, x / 0.5, x, x)
    q = sum((x @ B @ x) ** 2 for B in A) / 0.25
    curvature = lifted_hessian(A, x / 0.5, x, order=2).curvature(x)
    assert rho == pytest.approx(0.25)
    assert curvature == pytest.approx(4 * (3 * rho**2 - 1) * q**2)


def test_escape_ratio_counts_curvature_of_either_sign():
    # u'K_xu = -1/4 and u'S_xu = 0 at u'K_zu = 1: an even order turns the sign.
    assert escape_ratio([np.diag([1.0, -1.0])], [1.0, 0.0], [0.0, 0.5], [1.0, 0.0]) == 0.25


def test_escape_ratio_on_the_family_in_closed_form():
    for eps in (0.2, 0.5, 0.9):
        p = perturbed_completion(eps)
        ratio = escape_ratio(p.matrices, p.truth, p.spurious, p.truth)
        assert ratio == pytest.approx(p.delta * (1 + p.delta) / 2)
    with pytest.raises(ValueError, match="direction"):
        escape_ratio(p.matrices, p.truth, p.spurious, [0.0, 1.0, 0.0])


def test_bad_arguments():
    problem = perturbed_completion(0.5)
    with pytest.raises(ValueError, match="matrices"):
        lifted_hessian(np.triu(np.ones((2, 3, 3))), problem.truth, problem.spurious, order=1)
    with pytest.raises(ValueError, match="diagonal"):
        completion_spectrum(0.1, order=2, diagonal=0.5)
    with pytest.raises(ValueError, match="diagonal"):
        completion_spectrum(0.5, order=2, diagonal=0.57)  # eps^2 = 1/3
    assert sum(count for _, count in completion_spectrum(0.5, order=2, diagonal=0.58)) == 9
    with pytest.raises(ValueError, match="point"):
        lifting_ratio(problem.truth, -problem.truth, lower=0.5, upper=1.0)
    with pytest.raises(ValueError, match="upper"):
        lifting_ratio(problem.truth, problem.spurious, lower=0.5, upper=0.1)


def test_first_saddle_order_close_to_one_comes_back():
    for delta in (0.999999, 1 - 2.0**-53, Fraction(10**40 - 1, 10**40)):
        order = first_saddle_order(delta)
        # l (1 - delta_l) -> 2 log v with v^4 = 2 v + 1.
        v = max(np.roots([1, 0, 0, -2, -1]).real)
        assert float(order * (1 - Fraction(delta))) == pytest.approx(2 * np.log(v), rel=1e-5)
    # Exact powers and logarithms agree where both are used, on both sides of the switch.
    for order in (63, 64, 65, 66, 300):
        low, high = completion_threshold(order)
        for delta, saddle in ((low, True), (high, False)):
            left = 2**order * (1 - delta ** (2 * order))
            assert (left > 2 * (delta * (1 + delta)) ** order) is saddle
