"""Descent from an uphill point: finite differences, closed-form orbits, simulated chains."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theorylab import implicit_regularization as ir


def bumpy(rng, d):
    """A function that is no quadratic, with its gradient and Hessian products."""
    A, s = rng.standard_normal((4, d)), rng.standard_normal(4)

    def value(x):
        return float(np.sum(np.log(np.cosh(A @ x - s))))

    def gradient(x):
        return np.tanh(A @ x - s) @ A

    def product(x, v):
        return ((1 - np.tanh(A @ x - s) ** 2) * (A @ v)) @ A

    return value, gradient, product


@pytest.mark.parametrize("normalised", [True, False])
def test_modified_gradient_is_that_of_the_modified_loss(normalised):
    rng = np.random.default_rng(0)
    value, gradient, product = bumpy(rng, 3)
    x, rho, h = rng.standard_normal(3), 0.3, 1e-6

    def modified(at):
        length = np.linalg.norm(gradient(at))
        return value(at) + rho * (length if normalised else length**2 / 2)

    numeric = [(modified(x + h * e) - modified(x - h * e)) / (2 * h) for e in np.eye(3)]
    found = ir.sam_modified_gradient(gradient, product, x, radius=rho, normalised=normalised)
    assert_allclose(found, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("normalised", [True, False])
def test_steps_by_hand(normalised):
    rng = np.random.default_rng(1)
    _, gradient, _ = bumpy(rng, 2)
    x = rng.standard_normal(2)
    given = {"radius": 0.4, "step_size": 0.2, "normalised": normalised}
    path = ir.sharpness_aware_descent(gradient, x, steps=2, **given)
    for before, after in itertools.pairwise(path):
        g = gradient(before)
        up = before + 0.4 * g / (np.linalg.norm(g) if normalised else 1)
        assert_allclose(after, before - 0.2 * gradient(up))
    assert path.shape == (3, 2)
    assert np.array_equal(path[0], x)


def test_sam_stands_still_at_a_critical_point_and_stalls_on_a_two_cycle():
    still = ir.sharpness_aware_descent(lambda x: x, [0.0], radius=1.0, step_size=0.1, steps=3)
    assert not still.any()
    # Near the minimum of x^2 / 2 the orbit is +-q, -q = (1 - eta) q - eta rho.
    path = ir.sharpness_aware_descent(lambda x: x, [1.0], radius=0.5, step_size=0.1, steps=2000)
    q = 0.1 * 0.5 / (2 - 0.1)
    assert_allclose(np.abs(path[-2:, 0]), q, rtol=1e-9)
    assert path[-1, 0] * path[-2, 0] < 0


def test_flow_of_a_quadratic():
    H = np.diag([2.0, -0.5])
    x, t = np.array([1.0, 3.0]), np.array([0.2, 1.0])
    found = ir.sam_flow(lambda x: H @ x, lambda x, v: H @ v, x, t, radius=0.7, normalised=False)
    rates = np.diag(H) * (1 + 0.7 * np.diag(H))
    assert_allclose(found, x * np.exp(-np.outer(t, rates)), rtol=1e-8)
    # One dimension: |x| follows y' = -lam (y + rho), so y + rho decays exponentially.
    one = ir.sam_flow(lambda x: 2 * x, lambda x, v: 2 * v, [3.0], [0.4], radius=0.5)
    assert_allclose(one, [[3.5 * math.exp(-0.8) - 0.5]], rtol=1e-8)


def test_flow_in_other_units():
    t = np.array([0.3])
    for s in (1e-100, 1e100):
        one = ir.sam_flow(lambda x: x, lambda x, v: v, [s], t, radius=0.2 * s)
        assert_allclose(one / s, [[1.2 * math.exp(-0.3) - 0.2]], rtol=1e-7)
        given = {"radius": 0.2, "normalised": False}
        far = ir.sam_flow(lambda x: x, lambda x, v: v, [s], [6.0], **given)
        assert_allclose(far / s, [[math.exp(-7.2)]], rtol=1e-5)


def test_flow_refuses_what_it_cannot_follow():
    with pytest.raises(ValueError, match="times: expected increasing"):
        ir.sam_flow(lambda x: x, lambda x, v: v, [1.0], [0.3, 0.3], radius=0.1)
    with pytest.raises(ValueError, match="times"):
        ir.sam_flow(lambda x: -x, lambda x, v: -v, [1.0], [1e6], radius=0.1)


def test_corrections_are_those_of_one_step():
    rng = np.random.default_rng(2)
    H = rng.standard_normal((2, 3, 3))
    H = H + H.transpose(0, 2, 1)
    G = np.concatenate([H, rng.standard_normal((2, 3, 1))], axis=2)
    V = ir.usam_corrections(G)
    x, rho, eta = rng.standard_normal(3), 0.3, 0.1
    z = np.append(x, 1.0)
    for g, v in zip(G, V, strict=True):
        given = {"radius": rho, "step_size": eta, "steps": 1, "normalised": False}
        path = ir.sharpness_aware_descent(lambda y, g=g: g @ np.append(y, 1.0), x, **given)
        assert_allclose(path[1], x - eta * (g + rho * v) @ z)


def test_sam_corrections_are_those_of_one_step():
    rng = np.random.default_rng(3)
    A, y, x = rng.standard_normal((4, 3)), rng.standard_normal(4), rng.standard_normal(3)
    r = A @ x - y
    V = ir.sam_corrections(A, np.sign(r))
    for a, t, v in zip(A, y, V, strict=True):
        path = ir.sharpness_aware_descent(
            lambda w, a=a, t=t: a * (a @ w - t), x, radius=0.01, step_size=0.1, steps=1
        )
        step = a * (a @ x - t) + 0.01 * v @ np.append(x, 1.0)
        assert_allclose(path[1], x - 0.1 * step)
    with pytest.raises(ValueError, match="signs: expected 1 and -1"):
        ir.sam_corrections(A, np.array([1.0, 0.0, 1.0, 1.0]))


def test_noise_to_first_order():
    rng = np.random.default_rng(4)
    G, w = rng.standard_normal((3, 2, 3)), np.array([0.2, 0.5, 0.3])
    V = rng.standard_normal((3, 2, 3))
    rho = 1e-4
    exact = ir.covariance_operator(G + rho * V, G + rho * V, w)
    found = ir.ascent_covariance(G, V, w, radius=rho)
    assert_allclose(found, exact, atol=20 * rho**2)
    assert np.abs(ir.ascent_covariance(G, V, w, radius=0.0) - exact).max() > rho / 10
    z = np.append(rng.standard_normal(2), 1.0)
    g, v = G @ z, V @ z
    mixed = (w[:, None] * (g - w @ g)).T @ v
    expected = np.cov(g.T, aweights=w, bias=True) + 0.3 * (mixed + mixed.T)
    found = ir.ascent_covariance(G, V, w, radius=0.3) @ np.outer(z, z).ravel()
    assert_allclose(found.reshape(2, 2), expected)


def test_saddle_radius():
    assert ir.saddle_radius(np.diag([3.0, -0.5, -2.0])) == pytest.approx(2.0)
    assert ir.saddle_radius(np.eye(2)) == 0.0
    for s in (1e-200, 1e200):
        assert ir.saddle_radius(s * np.diag([1.0, -4.0])) * s == pytest.approx(0.25)
    with pytest.raises(ValueError, match="hessian: expected one that is not singular"):
        ir.saddle_radius(np.diag([1.0, 0.0]))


def test_saddle_growth_against_random_points():
    rng = np.random.default_rng(5)
    A = rng.standard_normal((3, 3))
    H, rho, r = A + A.T, 0.3, 0.2
    bound, best = ir.saddle_growth(H, radius=rho, norm=r), -math.inf
    for _ in range(4000):
        v = rng.standard_normal(3)
        v *= r / np.linalg.norm(v)
        velocity = -H @ (np.linalg.solve(H, v) + rho * v / r)
        best = max(best, float(v @ H @ velocity) / r**2)
    assert best <= bound + 1e-12
    assert best > bound - 0.05 * (1 + abs(bound))


def test_stationary_variance_against_a_chain():
    rng = np.random.default_rng(6)
    lam, rho, eta, noise = np.array([0.5, 2.0]), 0.4, 0.2, 0.7
    given = {"radius": rho, "step_size": eta, "noise_variance": noise}
    expected = ir.usam_stationary_variance(lam, **given)
    x = np.zeros((4000, 2))
    total, count = np.zeros(2), 0
    for k in range(400):
        xi = math.sqrt(noise) * rng.standard_normal(x.shape)
        x = x - eta * (lam * (x + rho * (lam * x + xi)) + xi)
        if k >= 100 and k % 10 == 0:
            total, count = total + (x**2).mean(axis=0), count + 1
    assert_allclose(total / count, expected.chain, rtol=0.03)
    small = ir.usam_stationary_variance(lam, radius=rho, step_size=1e-7, noise_variance=noise)
    assert_allclose(small.chain, small.diffusion, rtol=1e-6)
    with pytest.raises(ValueError, match="step_size"):
        ir.usam_stationary_variance(lam, radius=rho, step_size=0.6, noise_variance=1.0)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="gradient"):
        ir.sharpness_aware_descent(lambda x: x[:1], [1.0, 2.0], radius=0, step_size=0, steps=1)
    with pytest.raises(ValueError, match="gradients: expected shape"):
        ir.usam_corrections(np.ones((2, 2, 2)))
    with pytest.raises(ValueError, match="gradient, start, radius, step_size"):
        ir.sharpness_aware_descent(lambda x: x, [1.0], radius=0.0, step_size=1e9, steps=99)
