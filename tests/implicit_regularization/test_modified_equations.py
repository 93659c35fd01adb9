"""Modified equations: enumerated paths, simulated paths, Lyapunov equations, exact fractions."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import solve_continuous_lyapunov

from theorylab import implicit_regularization as ir


def law(seed, k=3, d=2):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((k, d, d + 1)), rng.dirichlet(np.ones(k)), rng.standard_normal(d)


def test_moments_of_the_recursion_against_all_paths():
    G, w, start = law(0)
    total = np.zeros((3, 3))
    for path in itertools.product(range(3), repeat=4):
        x = start
        for j in path:
            x = x - 0.3 * G[j] @ np.append(x, 1.0)
        z = np.append(x, 1.0)
        total += np.prod(w[list(path)]) * np.outer(z, z)
    found = ir.recursion_moments(G, w, start, step_size=0.3, steps=4)
    assert_allclose(found, total, rtol=1e-12)
    none = ir.recursion_moments(G, w, start, step_size=0.3, steps=0)
    assert_allclose(none, np.outer([*start, 1.0], [*start, 1.0]))


def test_covariance_operator_against_the_definition():
    G, w, start = law(1)
    B = law(2)[0]
    z = np.append(start, 1.0)
    a, b = G @ z, B @ z
    expected = (w[:, None] * (a - w @ a)).T @ (b - w @ b)
    found = (ir.covariance_operator(G, B, w) @ np.outer(z, z).ravel()).reshape(2, 2)
    assert_allclose(found, expected)


def test_moments_of_a_diffusion_with_additive_noise():
    rng = np.random.default_rng(3)
    A = rng.standard_normal((2, 2))
    H, S = A @ A.T + np.eye(2), np.diag([0.5, 2.0])
    drift = np.concatenate([H, -(H @ [[1.0], [-2.0]])], axis=1)
    K = np.zeros((4, 9))
    K[:, 8] = S.ravel()
    M = ir.diffusion_moments(drift, K, [5.0, 5.0], time=60.0)
    assert_allclose(M[:2, 2], [1.0, -2.0], atol=1e-9)
    C = M[:2, :2] - np.outer(M[:2, 2], M[:2, 2])
    assert_allclose(C, solve_continuous_lyapunov(H, S), atol=1e-9)


def test_moments_of_geometric_brownian_motion():
    # dX = -a X dt + s X dW has E X^2 = x^2 exp((s^2 - 2 a) t).
    K = np.array([[0.49, 0.0, 0.0, 0.0]])
    M = ir.diffusion_moments([[0.3, 0.0]], K, [2.0], time=1.5)
    assert_allclose(M[0, 0], 4 * np.exp((0.49 - 0.6) * 1.5))
    assert_allclose(M[0, 1], 2 * np.exp(-0.45))


def test_moments_against_euler_and_maruyama():
    G, w, start = law(4)
    G = G / 2 + np.concatenate([np.eye(2), np.zeros((2, 1))], axis=1)
    drift, K = np.tensordot(w, G, 1), 0.3 * ir.covariance_operator(G, G, w)
    rng, n, steps = np.random.default_rng(5), 20_000, 100
    x = np.tile(start, (n, 1))
    for _ in range(steps):
        g = np.einsum("kij,nj->nki", G, np.column_stack([x, np.ones(n)]))
        centred = g - np.tensordot(g, w, (1, 0))[:, None]
        noise = np.einsum("nki,nk->ni", centred, np.sqrt(w) * rng.standard_normal((n, 3)))
        x = x - g.transpose(0, 2, 1) @ w / steps + np.sqrt(0.3 / steps) * noise
    M = ir.diffusion_moments(drift, K, start, time=1.0)
    assert_allclose(x.mean(axis=0), M[:2, 2], atol=0.05)
    assert_allclose(x.T @ x / n, M[:2, :2], atol=0.1 * np.abs(M).max())


def test_second_order_drift_is_a_gradient():
    H, c = np.array([[2.0, 0.3], [0.3, 1.0]]), np.array([0.5, -1.0])
    D = ir.second_order_drift(np.column_stack([H, -c]), step_size=0.2)

    def loss(x):
        g = H @ x - c
        return x @ H @ x / 2 - c @ x + 0.05 * g @ g

    x, h = np.array([0.7, -0.4]), 1e-5
    numeric = [(loss(x + h * e) - loss(x - h * e)) / (2 * h) for e in np.eye(2)]
    assert_allclose(D @ np.append(x, 1.0), numeric, rtol=1e-8)


def test_dropout_gradients_and_loss_against_the_definition():
    rng = np.random.default_rng(6)
    phi, y, a, p = rng.standard_normal((4, 3)), rng.standard_normal(4), rng.standard_normal(3), 0.7
    gradients, w = ir.dropout_gradients(phi, y, keep=p)
    assert_allclose(w.sum(), 1.0)
    loss = 0.0
    for mask, g, weight in zip(itertools.product([0, 1], repeat=3), gradients, w, strict=True):
        xi = np.array(mask) / p
        r = phi @ (xi * a) - y
        assert_allclose(g @ np.append(a, 1.0), xi * (phi.T @ r) / 4, atol=1e-12)
        assert_allclose(weight, p ** sum(mask) * (1 - p) ** (3 - sum(mask)))
        loss += weight * (r @ r) / 8
    assert_allclose(ir.dropout_averaged_loss(phi, a, y, keep=p), loss)
    assert loss > ir.dropout_averaged_loss(phi, a, y, keep=1.0)
    # The mean gradient is that of the mean loss.
    mean, h = np.tensordot(w, gradients, 1) @ np.append(a, 1.0), 1e-6
    numeric = [
        (
            ir.dropout_averaged_loss(phi, a + h * e, y, keep=p)
            - ir.dropout_averaged_loss(phi, a - h * e, y, keep=p)
        )
        / (2 * h)
        for e in np.eye(3)
    ]
    assert_allclose(mean, numeric, rtol=1e-6, atol=1e-8)


def test_epochs_against_fractions():
    # Batches (x - c)^2 h / 2 in exact arithmetic.
    h, c, step = (Fraction(1), Fraction(3)), (Fraction(2), Fraction(-1)), Fraction(1, 8)
    ends = []
    for order in itertools.permutations(range(2)):
        x = Fraction(1)
        for b in order:
            x -= step * h[b] * (x - c[b])
        ends.append(x)
    batches = [lambda x, b=b: float(h[b]) * (x - float(c[b])) for b in range(2)]
    found = ir.epoch_average(batches, [1.0], step_size=0.125)
    assert found[0] == float(sum(ends) / 2)


def test_epoch_modified_gradient_is_a_gradient():
    H, c = np.array([[1.0, 2.0], [0.5, 3.0]]), np.array([[1.0, -1.0], [0.0, 2.0]])
    slopes = [lambda x, b=b: H[b] * (x - c[b]) for b in range(2)]
    products = [lambda x, v, b=b: H[b] * v for b in range(2)]

    def loss(x):
        parts = [np.sum(H[b] * (x - c[b]) ** 2) / 2 for b in range(2)]
        return np.mean(parts) + 0.3 / 8 * sum(np.sum(slopes[b](x) ** 2) for b in range(2))

    x, h = np.array([0.2, 0.9]), 1e-5
    numeric = [(loss(x + h * e) - loss(x - h * e)) / (2 * h) for e in np.eye(2)]
    found = ir.epoch_modified_gradient(slopes, products, x, step_size=0.3)
    assert_allclose(found, numeric, rtol=1e-8)
    with pytest.raises(ValueError, match="hessian_products: expected 2"):
        ir.epoch_modified_gradient(slopes, products[:1], x, step_size=0.3)


def mean_problem():
    points = np.array([[0.0, 1.0], [2.0, -1.0], [1.0, 0.5]])
    return {
        "loss": lambda x: ((x[:, None] - points) ** 2).sum(axis=2) / 2,
        "gradient": lambda x: x[:, None] - points,
    }, points


def test_gap_change_of_the_mean():
    # Constant curvature: the gap changes by exactly eta tr C / N, at every step.
    given, points = mean_problem()
    trace = points.var(axis=0).sum()
    for n, step in ((1, 0.3), (2, 1.0), (3, 2.0)):
        found = ir.gap_change(**given, start=[3.0, 1.0], n_samples=n, step_size=step)
        assert_allclose(found, step * trace / n)
    # Without replacement a full sample has no gap.
    full = ir.gap_change(**given, start=[3.0, 1.0], n_samples=3, step_size=0.3, replace=False)
    assert_allclose(full, 0.0, atol=1e-12)
    with pytest.raises(ValueError, match="n_samples: expected at most 3"):
        ir.gap_change(**given, start=[3.0, 1.0], n_samples=4, step_size=0.3, replace=False)


def test_two_steps_of_the_mean():
    given, points = mean_problem()
    trace, start, eta = points.var(axis=0).sum(), np.array([3.0, 1.0]), 0.4
    gd, sgd = ir.two_step_losses(**given, start=start, n_samples=4, step_size=eta)
    away = (1 - eta) ** 4 * np.sum((start - points.mean(axis=0)) ** 2)
    base = (trace + away) / 2
    assert_allclose(gd, base + (eta * (2 - eta)) ** 2 * trace / 8)
    assert_allclose(sgd, base + eta**2 * ((1 - eta) ** 2 + 1) * trace / 4)
    with pytest.raises(ValueError, match="n_samples: expected an even number"):
        ir.two_step_losses(**given, start=start, n_samples=3, step_size=eta)
    with pytest.raises(ValueError, match="n_samples: expected at most"):
        ir.two_step_losses(**given, start=start, n_samples=40, step_size=eta)


def test_coefficients_of_known_series():
    for order, expected in enumerate((0.0, 1.0, 0.0, -1 / 6, 0.0)):
        found, error = ir.small_step_coefficient(np.sin, order=order, width=0.5)
        assert abs(found - expected) <= error < 1e-3
    pair, error = ir.small_step_coefficient(
        lambda t: [1 + 3 * t, t**2 - t], order=1, width=0.1, noise=1e-9
    )
    assert_allclose(pair, [3.0, -1.0], atol=1e-10)
    assert (error > 1e-8).all()


def test_expansion_of_known_series():
    h = np.linspace(0.4, 0.05, 9)
    found, error = ir.expansion_coefficients(h, np.exp(h))
    off = np.abs(found - 1 / np.array([1, 1, 2, 6, 24, 120, 720]))
    assert (off <= error).all()
    assert (error[:4] < [1e-8, 1e-6, 1e-4, 1e-2]).all()
    # Other units, and arrays: the coefficient of h^q scales like the inverse of h^q.
    values = np.stack([np.exp(h), np.sin(h)], axis=1)[:, None]
    for unit in (1e-20, 1e20):
        pair, off = ir.expansion_coefficients(unit * h, values)
        assert pair.shape == (7, 1, 2)
        assert_allclose(pair[:3, 0, 0] * unit ** np.arange(3.0), found[:3], rtol=1e-7)
        assert_allclose(pair[1, 0, 1] * unit, 1.0, rtol=1e-6)
        assert ((np.abs(pair[:, 0, 0] - found / unit ** np.arange(7.0))) <= off).all()
    # Noise is amplified as much as it can be, and only where it is.
    noisy = ir.expansion_coefficients(h, np.exp(h) + 1e-6 * (-1) ** np.arange(9), noise=1e-6)
    assert (np.abs(noisy[0] - found) <= noisy[1]).all()
    last = ir.expansion_coefficients(h, np.exp(h), noise=np.eye(9)[8])[1]
    lagrange = np.prod(h[:8] / (h[:8] - h[8]))
    assert_allclose(last[0], abs(lagrange), rtol=1e-6)
    # What is not a power series is seen in the error.
    assert ir.expansion_coefficients(h, h**0.5)[1][0] > 1e-3
    with pytest.raises(ValueError, match="steps: expected at least four"):
        ir.expansion_coefficients(h[::-1], np.exp(h))
    with pytest.raises(ValueError, match="values: expected 9"):
        ir.expansion_coefficients(h, np.exp(h[1:]))
    with pytest.raises(ValueError, match="noise"):
        ir.expansion_coefficients(h, np.exp(h), noise=[1.0, 2.0])
    with pytest.raises(ValueError, match="further apart"):
        ir.expansion_coefficients(1 + 1e-9 * h, h)


def test_error_of_order_one_in_one_dimension():
    # x <- (1 - step) x against exp(-t): (1 - t/n)^n = exp(-t) (1 - t^2 / 2n + ...).
    found = ir.first_order_error([[1.0, 0.0]], [2.0], time=0.7)
    y = 2 * np.exp(-0.7)
    assert_allclose(found, [[-0.7 * y * y, -0.35 * y], [-0.35 * y, 0.0]], rtol=1e-12)
    # An affine drift in two dimensions, against a run with a small step.
    D, start = np.array([[1.0, 0.5, 0.3], [-0.2, 0.4, -1.0]]), [1.0, -2.0]
    n = 100_000
    Z = ir.recursion_moments(D[None], [1.0], start, step_size=0.7 / n, steps=n)
    exact = ir.diffusion_moments(D, np.zeros((4, 9)), start, time=0.7)
    found = ir.first_order_error(D, start, time=0.7)
    assert_allclose((Z - exact) * n / 0.7, found, atol=1e-3)
    assert np.abs(found).max() > 0.1


def test_response_to_a_drift_is_a_difference():
    D, V = np.array([[1.0, 0.5, 0.3], [-0.2, 0.4, -1.0]]), np.array([[0.1, 1, 2], [0, 0.3, 1.0]])
    h, none = 1e-5, np.zeros((4, 9))
    up, down = (ir.diffusion_moments(D + s * V, none, [1.0, -2.0], time=0.7) for s in (h, -h))
    found = ir.drift_response(D, V, [1.0, -2.0], time=0.7)
    assert_allclose(found, (up - down) / (2 * h), atol=1e-8)
    with pytest.raises(ValueError, match="change"):
        ir.drift_response(D, V.T, [1.0, -2.0], time=0.7)
    with pytest.raises(ValueError, match="drift, time"):
        ir.first_order_error(D, [1.0, -2.0], time=1e7)


def test_moments_in_other_units():
    D, V = np.array([[1.0, 0.5, 0.3], [-0.2, 0.4, -1.0]]), np.array([[0.1, 1, 2], [0, 0.3, 1.0]])
    G = np.stack([D, V])
    K, start = ir.covariance_operator(G, G, [0.5, 0.5]), np.array([1.0, -2.0])
    for unit in (1e-60, 1e-3, 1e60):
        scale = np.array([1.0, 1.0, unit])
        z = np.array([unit, unit, 1.0])
        L = ir.covariance_operator(G * scale, G * scale, [0.5, 0.5])
        pairs = [
            (
                ir.diffusion_moments(D * scale, L, unit * start, time=0.7),
                ir.diffusion_moments(D, K, start, time=0.7),
            ),
            (
                ir.first_order_error(D * scale, unit * start, time=0.7),
                ir.first_order_error(D, start, time=0.7),
            ),
            (
                ir.drift_response(D * scale, V * scale, unit * start, time=0.7),
                ir.drift_response(D, V, start, time=0.7),
            ),
        ]
        for found, expected in pairs:
            assert_allclose(found / np.outer(z, z), expected, rtol=1e-9, atol=1e-12)


def test_noise_alone_sets_the_units():
    M = ir.diffusion_moments([[1.0, 0.0]], [[0.0, 0.0, 0.0, 2e80]], [0.0], time=20.0)
    assert_allclose(M, [[1e80, 0.0], [0.0, 1.0]], atol=1e-9)


def test_weak_order_two_needs_the_noise_and_the_drift():
    G, w, start = law(7)
    G = G / 3 + np.concatenate([np.eye(2), np.zeros((2, 1))], axis=1)
    mean = np.tensordot(w, G, 1)
    mean[:, :2] = (mean[:, :2] + mean[:, :2].T) / 2  # a gradient field
    G = G - np.tensordot(w, G, 1) + mean
    counts = np.array([16, 24, 32, 48, 64, 96])
    for drift_order, noisy, none in ((2, 1, True), (1, 1, False), (2, 0, False)):
        errors = []
        for n in counts:
            step = 1 / n
            D = ir.second_order_drift(mean, step_size=step) if drift_order == 2 else mean
            K = noisy * step * ir.covariance_operator(G, G, w)
            Z = ir.recursion_moments(G, w, start, step_size=step, steps=int(n))
            errors.append(Z - ir.diffusion_moments(D, K, start, time=1.0))
        found, error = ir.expansion_coefficients(1 / counts, errors, noise=1e-13)
        assert np.linalg.norm(found[0]) <= error[0]
        assert bool(np.linalg.norm(found[1]) <= error[1]) is none
        if drift_order == 1:
            assert_allclose(found[1], ir.first_order_error(mean, start, time=1.0), atol=1e-4)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="probabilities: expected a sum of 1"):
        ir.recursion_moments(np.ones((2, 1, 2)), [0.5, 0.6], [1.0], step_size=0.1, steps=1)
    with pytest.raises(ValueError, match="drift: expected shape"):
        ir.diffusion_moments(np.ones((2, 2)), np.ones((4, 9)), [1.0, 1.0], time=1.0)
    with pytest.raises(ValueError, match="rates times the time below 1e6"):
        ir.diffusion_moments([[1e7, 0.0]], np.zeros((1, 4)), [1.0], time=1.0)
    with pytest.raises(ValueError, match="features: expected at most 10 columns"):
        ir.dropout_gradients(np.ones((1, 11)), [1.0], keep=0.5)
    with pytest.raises(ValueError, match="gradients: expected functions"):
        ir.epoch_average("ab", [1.0], step_size=0.1)
