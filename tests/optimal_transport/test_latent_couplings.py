"""Latent couplings: linear and quadratic programs, loops over pairs, quadrature, entropies."""

import cvxpy as cp
import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import dblquad
from scipy.spatial.distance import cdist, jensenshannon
from scipy.stats import entropy

from theorylab.optimal_transport import (
    aggregate_law,
    code_penalties,
    discriminator_value,
    encoder_of_plan,
    exact_plan,
    gaussian_mmd,
    jensen_shannon,
    penalised_plan,
    penalised_value,
    push_forward,
    unbiased_mmd,
)


def problem(n, m, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    return a, b, rng.random((n, m)) + rng.random(m)


def penalised_program(a, b, C, lam, *, square):
    joint = cp.Variable(C.shape, nonneg=True)
    variation = cp.norm1(cp.sum(joint, axis=0) - b) / 2
    penalty = lam * (cp.square(variation) if square else variation)
    program = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(C, joint)) + penalty), [cp.sum(joint, axis=1) == a]
    )
    return program.solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("lam", [0.01, 0.2, 0.5, 1.5])
@pytest.mark.parametrize(("n", "m"), [(5, 4), (3, 8), (1, 3), (4, 1)])
def test_penalised_values_against_a_program(n, m, lam):
    a, b, C = problem(n, m, n)
    upper, lower = penalised_value(a, b, C, lam)
    assert_allclose(upper, lower, rtol=1e-10)
    assert_allclose(upper, penalised_program(a, b, C, lam, square=False), rtol=1e-6)
    upper, lower = penalised_value(a, b, C, lam, penalty="squared")
    assert lower <= upper + 1e-12
    assert_allclose(upper, lower, rtol=1e-7)
    assert_allclose(upper, penalised_program(a, b, C, lam, square=True), rtol=1e-6)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7))
def test_penalised_value_rises_concavely_to_transport(seed, n, m):
    a, b, C = problem(n, m, seed)
    spread = np.ptp(C, axis=1).max()
    whole = exact_plan(a, b, C).value
    values = np.array([penalised_plan(a, b, C, t * spread).value for t in np.linspace(0, 1.5, 7)])
    assert_allclose(values[0], a @ C.min(axis=1), rtol=1e-9)
    assert_allclose(values[4:], whole, rtol=1e-9)
    assert (np.diff(values) >= -1e-10).all()
    assert (np.diff(values, 2) <= 1e-10).all()


def test_a_squared_penalty_is_never_exact():
    a, b, C = problem(5, 4, 1)
    whole, spread = exact_plan(a, b, C).value, np.ptp(C, axis=1).max()
    short = []
    for lam in (spread, 1e3 * spread, 1e4 * spread):
        upper, lower = penalised_value(a, b, C, lam, penalty="squared")
        assert upper < whole
        short.append(whole - lower)
    # Once little is exchanged, at the price s it falls short by s^2 / 4 lambda.
    assert_allclose(short[1] / short[2], 10, rtol=1e-3)


def test_the_threshold_is_sharp_somewhere():
    # One datum and two codes: everything but b is exchanged at less than the spread.
    C = [[0.0, 2.0]]
    assert penalised_plan([1.0], [0.5, 0.5], C, 2.0).value == 1.0
    assert_allclose(penalised_plan([1.0], [0.5, 0.5], C, 1.98).value, 0.99)


def test_penalised_units_and_order():
    a, b, C = problem(5, 6, 0)
    for penalty in ("tv", "squared"):
        value = penalised_value(a, b, C, 0.3, penalty=penalty)[0]
        for unit in (1e-8, 1e8):
            other = penalised_value(a, b, C * unit, 0.3 * unit, penalty=penalty)[0]
            assert_allclose(other, value * unit, rtol=1e-7)
        other = penalised_value(a[::-1], b[::-1], C[::-1, ::-1], 0.3, penalty=penalty)[0]
        assert_allclose(other, value, rtol=1e-7)
        other = penalised_value(a, b, C + 5, 0.3, penalty=penalty)[0]
        assert_allclose(other, value + 5, rtol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_push_forward_and_the_encoder_of_a_plan(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(9))
    Y = rng.integers(0, 2, (9, 2)).astype(float)
    points, weights = push_forward(b, Y)
    assert len(np.unique(points, axis=0)) == len(points) < 9
    for point, weight in zip(points, weights, strict=True):
        assert_allclose(b[(point == Y).all(axis=1)].sum(), weight)
    X = rng.normal(size=(6, 2))
    plan = exact_plan(a, weights, cdist(X, points))
    Q = encoder_of_plan(plan.plan.toarray(), b, Y)
    assert (Q >= 0).all()
    assert_allclose(Q.sum(axis=1), 1)
    assert_allclose(aggregate_law(a, Q), b, atol=1e-12)
    assert_allclose(a @ (Q * cdist(X, Y)).sum(axis=1), plan.value)
    assert_allclose(ot.emd2(a, b, cdist(X, Y)), plan.value)
    # With outputs that cost the same but differ, the codes are not joined.
    assert len(push_forward(b, np.hstack([Y, np.arange(9.0)[:, None]]))[0]) == 9


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_penalties_of_the_codes(seed, n, m, sparse):
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    Q = np.eye(m)[rng.integers(m, size=n)] if sparse else rng.dirichlet(np.ones(m), size=n)
    found = code_penalties(a, Q, b)
    q = aggregate_law(a, Q)
    assert_allclose(found.variational, a @ [entropy(row, b) for row in Q], atol=1e-12)
    assert_allclose(found.aggregate, entropy(q, b), atol=1e-12)
    assert_allclose(found.information, entropy(q) - a @ [entropy(r) for r in Q], atol=1e-12)
    assert_allclose(found.variational, found.aggregate + found.information, atol=1e-12)
    assert_allclose(jensen_shannon(b, q), jensenshannon(b, q) ** 2, atol=1e-12)
    best = discriminator_value(b, q, b / (b + q))
    assert_allclose(best, 2 * jensen_shannon(b, q) - 2 * np.log(2), atol=1e-12)
    assert discriminator_value(b, q, rng.random(m)) <= best + 1e-12


def test_discriminator_at_the_ends():
    assert discriminator_value([1.0, 0.0], [0.0, 1.0], [1.0, 0.0]) == 0
    assert discriminator_value([1.0, 0.0], [0.0, 1.0], [0.0, 1.0]) == -np.inf
    assert jensen_shannon([0.2, 0.8], [0.2, 0.8]) == 0


def test_mmd_against_loops():
    rng = np.random.default_rng(0)
    X, Y, s = rng.normal(size=(4, 3)), rng.normal(size=(6, 3)), 0.7

    def k(x, y):
        return np.exp(-np.sum((x - y) ** 2) / (2 * s**2))

    expected = (
        sum(k(X[i], X[j]) for i in range(4) for j in range(4) if i != j) / 12
        + sum(k(Y[i], Y[j]) for i in range(6) for j in range(6) if i != j) / 30
        - 2 * sum(k(x, y) for x in X for y in Y) / 24
    )
    assert_allclose(unbiased_mmd(X, Y, s), expected, rtol=1e-12)
    for unit in (1e-6, 1e6):
        assert_allclose(unbiased_mmd(X * unit, Y * unit, s * unit), expected, rtol=1e-9)
    assert_allclose(unbiased_mmd(Y, X, s), expected, rtol=1e-12)
    assert unbiased_mmd(X, X, s) < 0  # of the same sample, always


def test_gaussian_mmd_by_quadrature_and_sampling():
    v, s = 2.5, 0.8

    def mean_kernel(p, q):
        def f(x, y):
            density = np.exp(-x * x / (2 * p) - y * y / (2 * q)) / (2 * np.pi * np.sqrt(p * q))
            return density * np.exp(-((x - y) ** 2) / (2 * s**2))

        return dblquad(f, -14, 14, -14, 14, epsabs=1e-9)[0]

    g = [mean_kernel(1, 1), mean_kernel(v, v), mean_kernel(1, v)]
    for d in (1, 2, 5):
        expected = g[0] ** d + g[1] ** d - 2 * g[2] ** d
        assert_allclose(gaussian_mmd(v, s, dimension=d), expected, rtol=1e-6)
    rng = np.random.default_rng(1)
    draws = [
        unbiased_mmd(rng.normal(size=(5, 2)), np.sqrt(v) * rng.normal(size=(9, 2)), s)
        for _ in range(4000)
    ]
    error = np.std(draws) / np.sqrt(4000)
    assert abs(np.mean(draws) - gaussian_mmd(v, s, dimension=2)) < 5 * error
    assert error < 0.1 * gaussian_mmd(v, s, dimension=2)
    assert np.mean(np.array(draws) < 0) > 0.1
    assert gaussian_mmd(1.0, 0.3, dimension=4) == pytest.approx(0, abs=1e-15)
    for unit in (1e-200, 1e200):
        assert np.isfinite(gaussian_mmd(v, unit, dimension=2))


def test_bad_input():
    with pytest.raises(ValueError, match="encoder: expected rows that sum to one"):
        aggregate_law([1.0], [[0.5, 0.4]])
    with pytest.raises(ValueError, match="plan: expected column sums"):
        encoder_of_plan([[0.5, 0.5]], [0.3, 0.7], [[0.0], [1.0]])
    with pytest.raises(ValueError, match="b: expected positive weights"):
        code_penalties([1.0], [[1.0, 0.0]], [1.0, 0.0])
    with pytest.raises(ValueError, match="D: expected probabilities"):
        discriminator_value([1.0], [1.0], [1.5])
    with pytest.raises(ValueError, match="X: expected at least two points"):
        unbiased_mmd([[0.0]], [[0.0], [1.0]], 1.0)
    with pytest.raises(ValueError, match="penalty: expected one of tv, squared"):
        penalised_value([1.0], [1.0], [[0.0]], 1.0, penalty="kl")
