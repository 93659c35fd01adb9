"""Feature ridge: difference quotients, scikit-learn, numerical optimisation of the bound."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.kernel_ridge import KernelRidge

from theorylab import random_features as rf


def network(m=5, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return {"W": rng.standard_normal((m, d)), "a": rng.standard_normal(m)}


def data(k=4, n=9, d=3, seed=1):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((k, d)),
        rng.standard_normal(k),
        rng.standard_normal((n, d)),
        rng.standard_normal(n),
    )


def output(X, W, a):
    return np.tanh(X @ W.T) @ a / np.sqrt(len(a))


def quotient(value, x, direction, h=1e-5):
    return (value(x + h * direction) - value(x - h * direction)) / (2 * h)


def test_tangent_features_are_derivatives_in_the_parameters():
    X, net = data()[2], network()
    rng = np.random.default_rng(2)
    da, dW = rng.standard_normal(5), rng.standard_normal((5, 3))
    plain = quotient(lambda t: output(X, net["W"] + t * dW, net["a"] + t * da), 0.0, 1.0)
    along = rf.tangent_features(X, **net) @ np.concatenate([da, dW.ravel()])
    assert_allclose(along, plain, rtol=1e-7, atol=1e-9)


def test_pullback_is_the_derivative_in_the_inputs():
    X, net = data()[2], network()
    rng = np.random.default_rng(3)
    G, dX = rng.standard_normal((9, 20)), rng.standard_normal((9, 3))
    plain = quotient(lambda t: np.sum(G * rf.tangent_features(X + t * dX, **net)), 0.0, 1.0)
    assert_allclose(np.sum(rf.tangent_pullback(X, **net, G=G) * dX), plain, rtol=1e-7)


@pytest.mark.parametrize("ridge", [0.05, 1.0])
def test_loss_is_kernel_ridge_regression(ridge):
    support, labels, X, y = data()
    net = network()
    kernel = KernelRidge(
        alpha=ridge,
        kernel=lambda u, v: float(
            rf.tangent_features(u[None], **net)[0] @ rf.tangent_features(v[None], **net)[0]
        ),
    ).fit(support, labels)
    expected = np.mean((kernel.predict(X) - y) ** 2) / 2
    assert_allclose(
        rf.distillation_loss(support, labels, X, y, ridge=ridge, **net), expected, rtol=1e-9
    )
    found = rf.distillation_gradient(support, labels, X, y, ridge=ridge, **net)
    assert_allclose(found.loss, expected, rtol=1e-9)
    assert found.curvature == ridge  # of fewer points than features: no eigenvalue is computed
    assert_allclose(rf.tangent_features(X, **net) @ found.weights, kernel.predict(X), rtol=1e-8)


def test_curvature_with_more_points_than_features():
    support, labels, X, y = data(k=60)
    inner = rf.tangent_features(support, **network())
    inverse = np.linalg.inv(inner.T @ inner + 0.3 * np.eye(20))
    found = rf.distillation_gradient(support, labels, X, y, ridge=0.3, **network())
    assert_allclose(found.curvature, 1 / np.linalg.norm(inverse, 2), rtol=1e-9)
    assert found.curvature > 0.3001


@pytest.mark.parametrize("k", [1, 4, 30])
def test_implicit_gradient_in_every_coordinate(k):
    support, labels, X, y = data(k)
    net = network()
    found = rf.distillation_gradient(support, labels, X, y, ridge=0.3, **net)
    for i, j in ((0, 0), (k - 1, 2), (k // 2, 1)):
        step = np.zeros_like(support)
        step[i, j] = 1.0
        plain = quotient(
            lambda s: rf.distillation_loss(s, labels, X, y, ridge=0.3, **net), support, step
        )
        assert_allclose(found.inputs[i, j], plain, rtol=1e-5, atol=1e-9)
        plain = quotient(
            lambda s: rf.distillation_loss(support, s, X, y, ridge=0.3, **net),
            labels,
            np.eye(k)[i],
        )
        assert_allclose(found.labels[i], plain, rtol=1e-5, atol=1e-9)


def test_truncated_adjoint_is_a_neumann_series():
    support, labels, X, y = data()
    net = network()
    exact = rf.distillation_gradient(support, labels, X, y, ridge=0.3, **net).adjoint
    inner = rf.tangent_features(support, **net)
    H = inner.T @ inner + 0.3 * np.eye(20)
    top = np.linalg.eigvalsh(H)[-1]
    for steps in (0, 1, 7):
        found = rf.distillation_gradient(support, labels, X, y, ridge=0.3, **net, steps=steps)
        left = np.linalg.matrix_power(np.eye(20) - H / top, steps) @ exact
        assert_allclose(exact - found.adjoint, left, rtol=1e-7, atol=1e-12)
        assert np.linalg.norm(left) <= (1 - 0.3 / top) ** steps * np.linalg.norm(exact) * (1 + 1e-9)


def test_shift_moves_the_solution_and_the_gradient():
    support, labels, X, y = data()
    net, shift = network(), np.linspace(-1, 1, 20)
    plain = rf.distillation_gradient(support, labels, X, y, ridge=0.3, **net)
    moved = rf.distillation_gradient(support, labels, X, y, ridge=0.3, **net, shift=shift)
    assert_allclose(moved.weights, plain.weights + shift, rtol=1e-12)
    residual = rf.tangent_features(X, **net) @ moved.weights - y
    assert_allclose(moved.loss, np.mean(residual**2) / 2, rtol=1e-12)
    assert np.abs(moved.inputs - plain.inputs).max() > 0.01


def test_head_gradient():
    X, y, W = *data()[2:], network()["W"]
    found = rf.head_gradient(X, y, W, ridge=0.4)
    F = np.tanh(X @ W.T)
    assert_allclose(F.T @ (F @ found.head - y) + 0.4 * found.head, 0.0, atol=1e-12)
    loss = np.sum((F @ found.head - y) ** 2) / 2 + 0.2 * found.head @ found.head
    assert_allclose(found.loss, loss, rtol=1e-12)
    dW = np.random.default_rng(4).standard_normal(W.shape)
    plain = quotient(lambda w: rf.head_gradient(X, y, w, ridge=0.4).loss, W, dW)
    assert_allclose(np.sum(found.body * dW), plain, rtol=1e-7)
    # At another head it is the partial gradient, and no longer the whole one.
    away = rf.head_gradient(X, y, W, ridge=0.4, shift=np.full(5, 0.2))

    def held(w):
        return np.sum((np.tanh(X @ w.T) @ away.head - y) ** 2) / 2

    assert_allclose(np.sum(away.body * dW), quotient(held, W, dW), rtol=1e-7)
    assert abs(np.sum(away.body * dW) - plain) > 0.01 * abs(plain)
    assert away.loss > found.loss


def regression(n=6, D=15, seed=5):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, D)) / np.sqrt(D)
    return features, rng.standard_normal(n) * 1.5


def test_evidence_against_the_normal_density():
    features, y = regression()
    K = features @ features.T
    found = rf.evidence_objective(K, y, [0.3, 2.0], noise_variance=0.5)
    for v, value in zip((0.3, 2.0), found, strict=True):
        density = multivariate_normal(cov=0.5 * np.eye(6) + v * K).logpdf(y)
        assert_allclose(value, -2 * density - 6 * np.log(2 * np.pi * 0.5), rtol=1e-10)


@pytest.mark.parametrize("kappa", [0.5, 1.0, 3.0])
def test_bound_against_numerical_optimisation(kappa):
    features, y = regression()
    noise, v, D = 0.5, 0.7, 15

    def minus_twice(parameters):
        mu, tau = parameters[:-1], np.exp(parameters[-1])
        fit = np.sum((y - features @ mu) ** 2) + tau * np.sum(features**2)
        divergence = D * tau / v + mu @ mu / v - D + D * np.log(v / tau)
        return kappa * fit / noise + divergence

    found = minimize(minus_twice, np.zeros(D + 1), tol=1e-12)
    value = rf.emphasized_objective(
        features @ features.T, y, [v], n_features=D, emphasis=kappa, noise_variance=noise
    )
    assert_allclose(value[0], found.fun, rtol=1e-7)


def test_bound_is_a_bound_and_attained_on_isotropic_features():
    features, y = regression()
    v = np.geomspace(1e-2, 1e2, 30)
    how = {"noise_variance": 0.5}
    evidence = rf.evidence_objective(features @ features.T, y, v, **how)
    bound = rf.emphasized_objective(features @ features.T, y, v, n_features=15, emphasis=1.0, **how)
    assert (bound > evidence).all()
    # Orthonormal features, as many as points: the posterior is isotropic.
    both = [
        rf.evidence_objective(np.eye(6), y, v, **how),
        rf.emphasized_objective(np.eye(6), y, v, n_features=6, emphasis=1.0, **how),
    ]
    assert_allclose(both[1], both[0], rtol=1e-10)


def test_matching_emphasis_makes_slopes_equal():
    features, y = regression()
    K, v, h = features @ features.T, 0.8, 1e-5
    how = {"noise_variance": 0.5, "n_features": 15}
    kappa = rf.matching_emphasis(K, v, **how)
    assert kappa > 1
    ends = v * np.array([1 + h, 1 - h])
    evidence = np.diff(rf.evidence_objective(K, y, ends, noise_variance=0.5))
    bound = np.diff(rf.emphasized_objective(K, y, ends / kappa, emphasis=kappa, **how)) / kappa
    assert_allclose(bound, evidence, rtol=1e-6)
    assert_allclose(
        rf.matching_emphasis(np.eye(6), v, n_features=6, noise_variance=0.5), 1.0, rtol=1e-12
    )
    scaled = rf.matching_emphasis(1e8 * K, v / 1e8, **how)
    assert_allclose(scaled, kappa, rtol=1e-9)


def test_bad_kernels_are_refused():
    with pytest.raises(ValueError, match="K: expected a non-negative matrix"):
        rf.evidence_objective(-np.eye(2), np.ones(2), [1.0], noise_variance=1.0)
    with pytest.raises(ValueError, match="K: expected a non-negative matrix"):
        rf.evidence_objective(np.diag([1.0, -1e-5]), np.ones(2), [1.0], noise_variance=1.0)
    with pytest.raises(ValueError, match="K: expected a matrix that is not zero"):
        rf.matching_emphasis(np.zeros((2, 2)), 1.0, n_features=2, noise_variance=1.0)
    how = {"n_features": 2, "noise_variance": 1.0}
    with pytest.raises(ValueError, match="n_features: expected at least 3"):
        rf.matching_emphasis(np.diag([1.0, 0.01, 0.01]), 1.0, **how)
    with pytest.raises(ValueError, match="n_features: expected at least 3"):
        rf.emphasized_objective(np.eye(3), np.ones(3), [1.0], emphasis=1.0, **how)
    assert rf.matching_emphasis(np.ones((3, 3)), 1.0, **how) > 1
    with pytest.raises(ValueError, match="labels"):
        rf.distillation_loss(
            np.ones((2, 3)), np.ones(3), np.ones((2, 3)), np.ones(2), ridge=1.0, **network()
        )
