"""Deep classifiers: exact recursions, functional equations, stable variables, brute force."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss, hermeval
from numpy.testing import assert_allclose
from scipy.integrate import quad

from theorylab.random_features import (
    deep_prediction,
    hilbert_average,
    koenigs_logarithm,
    log_tangent_kernel,
    optimal_weights,
    singularity_exponent,
    stable_vote_error,
)

WEIGHTS = [[0.0, 0.5, 0.25, 0.25], [0.25, 0.25, 0.0, 0.5], [0.0, 0.0, 0.5, 0.0, 0.5]]


def exact_kernel(xi, p, depth):
    """The recursion in rational numbers."""
    p = [Fraction(v) for v in p]
    state = kernel = xi
    for _ in range(depth):
        slope = sum(k * v * state ** (k - 1) for k, v in enumerate(p) if k)
        state = sum(v * state**k for k, v in enumerate(p))
        kernel = state + kernel * slope
    return float(kernel)


@pytest.mark.parametrize("p", WEIGHTS)
def test_kernels_against_exact_recursions(p):
    for xi in (Fraction(1), Fraction(999_999, 1_000_000), Fraction(9, 10), Fraction(1, 7)):
        t = np.log1p(-float(1 - xi))
        for depth in (0, 1, 2, 5):
            found = np.exp(log_tangent_kernel(t, weights=p, depth=depth))
            assert_allclose(found, exact_kernel(xi, p, depth), rtol=1e-12)


def test_nearly_equal_inputs_keep_their_digits():
    p, gap = [0.0, 0.5, 0.0, 0.5], np.array([1e-12, 3.3e-10, 7e-9])
    found = koenigs_logarithm(np.log1p(-gap), weights=p)
    # One step of the functional equation, in the gap: 1 - g(1 - e) = 2 e - 3/2 e^2 + e^3 / 2.
    after = koenigs_logarithm(np.log1p(-(2 * gap - 1.5 * gap**2)), weights=p)
    assert_allclose(found - after, np.log(2), atol=1e-12)


def test_the_dual_is_that_of_the_activation():
    p = np.array([0.1, 0.3, 0.4, 0.2])
    coefficients = np.sqrt(p / [1, 1, 2, 6])
    nodes, mass = hermegauss(12)
    mass = mass / mass.sum()
    xi = 0.6
    z = xi * nodes[:, None] + np.sqrt(1 - xi**2) * nodes
    derivative = np.arange(1, 4) * coefficients[1:]
    values, slopes = (
        hermeval(nodes, c)[:, None] * hermeval(z, c) for c in (coefficients, derivative)
    )
    dual, slope = (mass @ v @ mass for v in (values, slopes))
    found = np.exp(log_tangent_kernel(np.log(xi), weights=p, depth=1))
    assert_allclose(found, dual + xi * slope, rtol=1e-12)


def test_koenigs_function():
    for p in (WEIGHTS[0], [0.0, 0.9, 0.1], optimal_weights(1)):
        p, t = np.array(p), np.log([0.01, 0.3, 0.9, 0.9999])
        image = np.log(np.polynomial.polynomial.polyval(np.exp(t), p))
        difference = koenigs_logarithm(image, weights=p) - koenigs_logarithm(t, weights=p)
        assert_allclose(difference, np.log(p[1]), atol=1e-11)
    small = koenigs_logarithm([-300.0], weights=[0.0, 0.5, 0.5])
    assert_allclose(small, -300.0)
    # In rational numbers, to the second order of what is left.
    state, p = Fraction(1, 3), [Fraction(0), Fraction(1, 2), Fraction(1, 2)]
    for _ in range(8):
        state = state * p[1] + state**2 * p[2]
    rest = float(state)
    wanted = np.log(rest * 2**8 * (1 + rest / (1 - 0.5)))
    assert_allclose(koenigs_logarithm([np.log(1 / 3)], weights=[0, 0.5, 0.5])[0], wanted, atol=1e-4)


def test_explicit_weights_have_the_exponent():
    for d in range(1, 12):
        p = optimal_weights(d)
        assert_allclose(p.sum(), 1.0)
        assert p[0] == 0
        assert_allclose(singularity_exponent(p), d)
    assert_allclose(singularity_exponent([0, 0.25, 0.75]), 2 * np.log(4) / np.log(1.75))


def test_predictions_against_a_plain_solution():
    rng = np.random.default_rng(2)
    X, Z, y = rng.random((6, 3)), rng.random((9, 3)), rng.standard_normal(6)
    U, V = (P / np.linalg.norm(P, axis=1, keepdims=True) for P in (X, Z))

    def kernel(A, B):
        return np.exp(
            log_tangent_kernel(np.log(np.minimum(A @ B.T, 1.0)), weights=WEIGHTS[0], depth=3)
        )

    wanted = kernel(V, U) @ np.linalg.solve(kernel(U, U), y)
    found = deep_prediction(X, y, 1e150 * Z, weights=WEIGHTS[0], depth=3)
    assert_allclose(found.values * np.exp(found.log_scale), wanted, rtol=1e-8)
    at = deep_prediction(X, y, X, weights=WEIGHTS[0], depth=3)
    assert_allclose(at.values * np.exp(at.log_scale), y, rtol=1e-8)


def test_majority_and_nearest_neighbour():
    rng = np.random.default_rng(3)
    X, Z = rng.random((21, 4)), rng.random((50, 4))
    y = np.where(np.arange(21) < 9, 1.0, -1.0)
    majority = deep_prediction(X, y, Z, weights=WEIGHTS[1], depth=300)
    assert (majority.values < 0).all()
    U, V = (P / np.linalg.norm(P, axis=1, keepdims=True) for P in (X, Z))
    nearest = deep_prediction(X, y, Z, weights=WEIGHTS[2], depth=60)
    assert (np.sign(nearest.values) == y[np.argmax(V @ U.T, axis=1)]).all()
    shallow = deep_prediction(X, y, Z, weights=WEIGHTS[0], depth=1)
    assert len(set(np.sign(shallow.values))) == 2


def test_averages_with_powers_of_distances():
    rng = np.random.default_rng(4)
    r2, y = rng.random((5, 8)), rng.standard_normal(8)
    for alpha in (0.0, 0.7, 3.0):
        w = r2 ** (-alpha / 2)
        wanted = (w * y).sum(axis=1) / w.sum(axis=1)
        for unit in (1e-200, 1.0, 1e200):
            assert_allclose(hilbert_average(r2 * unit, y, exponent=alpha), wanted, rtol=1e-12)
    r2[0, 2] = r2[0, 5] = 0.0
    assert_allclose(hilbert_average(r2[0], y, exponent=2.0), (y[2] + y[5]) / 2)
    assert_allclose(hilbert_average(np.zeros(8), y, exponent=2.0), y.mean())
    nearest = hilbert_average(r2[1], y, exponent=1e6)
    assert_allclose(nearest, y[np.argmin(r2[1])])


def stable(beta, rng, size):
    """Positive stable variables, by Kanter."""
    u, e = np.pi * rng.random(size), rng.standard_exponential(size)
    return (
        np.sin(beta * u)
        * np.sin((1 - beta) * u) ** ((1 - beta) / beta)
        / (np.sin(u) ** (1 / beta) * e ** ((1 - beta) / beta))
    )


def test_stable_votes():
    rng = np.random.default_rng(5)
    for beta, p in ((0.7, 0.3), (0.3, 0.2), (0.5, 0.1)):
        wrong, right = stable(beta, rng, 200_000), stable(beta, rng, 200_000)
        share = np.mean(wrong * p ** (1 / beta) > right * (1 - p) ** (1 / beta))
        assert abs(share - stable_vote_error(beta, p)) < 5 * np.sqrt(share / 200_000)
    # For index 1/2 the ratio of the roots is that of two normal variables.
    assert_allclose(stable_vote_error(0.5, 0.2), 2 / np.pi * np.arctan(0.25))
    assert_allclose(stable_vote_error(1e-6, 0.2), 0.2, rtol=1e-4)
    assert stable_vote_error(1 - 1e-6, 0.2) < 1e-5
    assert_allclose(stable_vote_error(1e-300, 0.3), 0.3, rtol=1e-12)
    assert_allclose(stable_vote_error(1e-9, 1e-300), 1e-300, rtol=1e-8)
    for beta in (0.2, 0.5, 0.9):  # the law of a ratio of two stable variables (Zolotarev)

        def density(x, angle=np.pi * beta):
            return np.sin(angle) / (angle * (x * x + 2 * x * np.cos(angle) + 1))

        assert_allclose(stable_vote_error(beta, 0.3), quad(density, 7 / 3, np.inf)[0], rtol=1e-8)
    assert_allclose(stable_vote_error(0.6, 0.2) + stable_vote_error(0.6, 0.8), 1.0)


def test_bad_input():
    with pytest.raises(ValueError, match="weights: expected a sum of 1"):
        log_tangent_kernel([-1.0], weights=[0.5, 0.4], depth=1)
    with pytest.raises(ValueError, match="weights: expected the first to be 0"):
        koenigs_logarithm([-1.0], weights=[0.1, 0.4, 0.5])
    with pytest.raises(ValueError, match="log_cosine: expected numbers below 0"):
        koenigs_logarithm([0.0], weights=[0.0, 0.5, 0.5])
    with pytest.raises(ValueError, match="Z: expected inner products of at least 0"):
        deep_prediction([[1.0, 0.0]], [1.0], [[-1.0, 0.2]], weights=WEIGHTS[0], depth=2)
    with pytest.raises(ValueError, match="X: expected inputs of different directions"):
        deep_prediction([[1.0, 0.0]] * 2, [1.0, 2.0], [[1.0, 0.2]], weights=WEIGHTS[0], depth=2)
    near = [[1.0, 0.0], [1.0, 1e-9]]
    with pytest.raises(ValueError, match="X: expected inputs that the kernel of depth 2 tells"):
        deep_prediction(near, [1.0, 2.0], [[1.0, 0.2]], weights=WEIGHTS[0], depth=2)
    plane = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    with pytest.raises(ValueError, match="X: expected inputs that the kernel of depth 0 tells"):
        deep_prediction(plane, [1.0, 2.0, 3.0], [[1.0, 0.2]], weights=WEIGHTS[0], depth=0)
    with pytest.raises(ValueError, match="depth: expected magnitudes"):
        deep_prediction([[1.0, 0]], [1.0], [[1.0, 0.2]], weights=[0, 0, 1], depth=10_000)
    with pytest.raises(ValueError, match="weights: expected a sum of 1"):
        log_tangent_kernel([-1.0], weights=[0.5, 0.501], depth=1)
    for slope in (0.989, 0.99):
        assert singularity_exponent([0.0, slope, 1 - slope]) > 2
    with pytest.raises(ValueError, match="weights: expected the first to be 0"):
        singularity_exponent([0.0, 0.991, 0.009])
    with pytest.raises(ValueError, match="Z: expected inner products of at least 0"):
        deep_prediction([[1.0, 0.0]], [1.0], [[-1e-6, 1.0]], weights=WEIGHTS[0], depth=2)
    with pytest.raises(ValueError, match="labels: expected as many"):
        hilbert_average([[1.0, 2.0]], [1.0], exponent=1.0)
