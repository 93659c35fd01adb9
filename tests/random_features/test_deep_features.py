import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf
from sklearn.linear_model import Ridge

from theorylab import random_features as rf


def moments(activation, r):
    """kappa_1 and kappa_*^2 by adaptive quadrature."""

    def mean(f):
        density = 1 / math.sqrt(2 * math.pi)
        return quad(lambda z: f(z) * density * math.exp(-z * z / 2), -14, 14, epsabs=1e-13)[0]

    linear = mean(lambda z: z * activation(math.sqrt(r) * z)) / math.sqrt(r)
    return linear, mean(lambda z: activation(math.sqrt(r) * z) ** 2) - r * linear**2


def sine_covariance(C):
    """Covariance of sin(u) for u ~ N(0, C), in closed form."""
    r = np.diag(C)
    return np.exp(-np.add.outer(r, r) / 2) * np.sinh(C)


@pytest.mark.parametrize("r", [0.04, 1.0, 3.0])
@pytest.mark.parametrize("activation", [np.tanh, np.sin, erf, lambda u: u**3 - u])
def test_coefficients_agree_with_adaptive_quadrature(activation, r):
    net = rf.deep_feature_covariances(r * np.eye(1), [np.ones((1, 1))], activation)
    linear, residual = moments(activation, r)
    assert net.variances[0] == r
    assert net.linear[0] == pytest.approx(linear, rel=1e-10, abs=1e-12)
    assert net.residual[0] == pytest.approx(residual, rel=1e-9, abs=1e-12)


def test_layers_are_composed_and_the_variance_is_taken_layer_by_layer():
    rng = np.random.default_rng(0)
    omega0 = np.diag(rng.random(6) + 0.5)
    weights = rf.deep_weights(6, [5, 7, 4], rng=rng)
    net = rf.deep_feature_covariances(omega0, weights, np.tanh)
    omega, product = omega0, np.eye(6)
    for layer, W in enumerate(weights):
        r = np.trace(omega) / len(omega)
        linear, residual = moments(math.tanh, r)
        omega = linear**2 * W @ omega @ W.T / W.shape[1] + residual * np.eye(len(W))
        product = linear * W @ product / math.sqrt(W.shape[1])
        np.testing.assert_allclose(net.covariances[layer], omega, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(net.linear_map, product, rtol=1e-9, atol=1e-12)
    # The rest of a network, given the covariance of a hidden layer.
    rest = rf.deep_feature_covariances(net.covariances[0], weights[1:], np.tanh)
    np.testing.assert_allclose(rest.covariances[-1], omega, rtol=1e-9, atol=1e-12)


def test_a_linear_network_has_exact_covariances_and_no_error():
    rng = np.random.default_rng(1)
    weights = rf.deep_weights(5, [4, 6], rng=rng)
    net = rf.deep_feature_covariances(np.eye(5), weights, lambda u: 2 * u)
    one = 4 * weights[0] @ weights[0].T / 5
    np.testing.assert_allclose(net.covariances[0], one, atol=1e-12)
    np.testing.assert_allclose(
        net.covariances[1], weights[1] @ one @ weights[1].T, rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(net.frobenius_errors, 0, atol=1e-6)
    assert max(np.abs(c).max() for c in net.corrections) < 1e-10


def test_the_correction_is_the_derivative_of_the_closed_form_kernel():
    # One layer of sines: entries of the exact covariance to first order in what fluctuates.
    rng, r, shift = np.random.default_rng(2), 0.7, 1e-4
    common = np.diag([r, r]) + shift * np.array([[1.0, 0.6], [0.6, -0.3]])
    root = np.linalg.cholesky(common)
    weights = [math.sqrt(2) * root / math.sqrt(r)]
    net = rf.deep_feature_covariances(r * np.eye(2), weights, np.sin)
    left = sine_covariance(common) - net.covariances[0]
    # Diagonal: first order; off it the product of two small terms.
    assert np.diag(net.corrections[0]) == pytest.approx(np.diag(left), rel=1e-3)
    assert net.corrections[0][0, 1] == pytest.approx(left[0, 1], rel=2e-3)
    del rng


@pytest.mark.parametrize("growth", [0.5, 1.5])
def test_error_of_one_layer_of_sines_is_the_correction_and_has_its_norm(growth):
    rng, d = np.random.default_rng(3), 400
    lam = 2 * np.arange(1, d + 1) / (d + 1)
    norms = []
    for _ in range(12):
        weights = rf.deep_weights(d, [round(growth * d)], rng=rng)
        net = rf.deep_feature_covariances(np.diag(lam), weights, np.sin)
        left = sine_covariance((weights[0] * lam / d) @ weights[0].T) - net.covariances[0]
        first = net.corrections[0]
        assert ((left - first) ** 2).sum() < 0.05 * (first**2).sum()
        norms.append((left**2).sum())
    assert np.mean(norms) == pytest.approx(net.frobenius_errors[0] ** 2, rel=0.06)


def test_second_layer_carries_the_error_of_the_first():
    rng, d = np.random.default_rng(4), 500
    norms = []
    for _ in range(6):
        weights = rf.deep_weights(d, [d, round(1.4 * d)], rng=rng)
        net = rf.deep_feature_covariances(np.eye(d), weights, np.sin)
        norms.append((net.corrections[1] ** 2).sum())
    assert np.mean(norms) == pytest.approx(net.frobenius_errors[1] ** 2, rel=0.12)


def test_errors_of_both_layers_follow_from_finite_differences_of_the_moments():
    rng, error = np.random.default_rng(9), 0.0
    omega = np.diag(rng.random(6) + 0.5)
    weights = rf.deep_weights(6, [9, 4], rng=rng)
    net = rf.deep_feature_covariances(omega, weights, np.tanh)
    for layer, W in enumerate(weights):
        r, g = net.variances[layer], len(W) / len(omega)
        tau, h = (omega**2).sum() / len(omega), 1e-3 * r
        (low, low_rest), (high, high_rest) = (moments(math.tanh, v) for v in (r - h, r + h))
        linear, _ = moments(math.tanh, r)
        square = (high_rest + (r + h) * high**2 - low_rest - (r - h) * low**2) / (2 * h)
        bent = linear * (high - low) / (2 * h)
        error = linear**4 * g**2 * error + 2 * g * tau * (square - linear**2) ** 2
        error += 4 * g**2 * tau**2 * bent**2
        assert net.frobenius_errors[layer] ** 2 == pytest.approx(error, rel=1e-4)
        omega = net.covariances[layer]
    # The second layer transports the correction of the first and adds its own.
    own = rf.deep_feature_covariances(net.covariances[0], weights[1:], np.tanh).corrections[0]
    carried = net.linear[1] ** 2 * weights[1] @ net.corrections[0] @ weights[1].T / 9
    np.testing.assert_allclose(net.corrections[1], carried + own, rtol=1e-9, atol=1e-13)


def test_features_apply_layer_after_layer():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((3, 4))
    W, V = rf.deep_weights(4, [5, 2], rng=rng)
    expected = np.tanh(np.tanh(x @ W.T / 2) @ V.T / math.sqrt(5))
    np.testing.assert_allclose(rf.network_features(x, [W, V], np.tanh), expected, rtol=1e-14)


def test_cross_covariance_of_linear_networks_is_exact():
    rng = np.random.default_rng(6)
    omega = np.diag(rng.random(4) + 0.1)
    W, V = (rf.deep_weights(4, w, rng=rng) for w in ([3, 5], [6]))
    nets = [rf.deep_feature_covariances(omega, w, lambda u: 3 * u) for w in (W, V)]
    expected = 27 * W[1] @ W[0] @ omega @ V[0].T / (math.sqrt(3) * 4)
    np.testing.assert_allclose(rf.deep_cross_covariance(omega, *nets), expected, rtol=1e-10)


def gaussian_world():
    """Jointly Gaussian features and target features, with their covariances."""
    rng = np.random.default_rng(7)
    k, m = 40, 15
    root = rng.standard_normal((k + m, 60)) / 8
    full = root @ root.T
    return rng, root, full[:k, :k], full[:k, k:], full[k:, k:]


def test_ridge_risk_is_that_of_gaussian_features_with_its_first_correction():
    rng, root, omega, cross, psi = gaussian_world()
    n, ridge, noise, m = 55, 0.3, 0.2, len(psi)
    predicted = rf.feature_ridge_risk(
        omega, cross, psi, n_samples=n, ridge=ridge, noise_variance=noise
    )
    risks = []
    for _ in range(3000):
        z = rng.standard_normal((n, root.shape[1])) @ root.T
        F, Y = z[:, :40], z[:, 40:]
        A = np.linalg.solve(F.T @ F + ridge * np.eye(40), F.T)
        B = A @ Y
        signal = np.trace(psi - 2 * B.T @ cross + B.T @ omega @ B) / m
        risks.append(signal + noise * np.trace(A.T @ omega @ A))
    error = 5 * np.std(risks) / math.sqrt(len(risks))
    assert predicted.finite_size_term > 0
    assert np.mean(risks) == pytest.approx(
        predicted.excess_risk + predicted.finite_size_term,
        abs=error + 0.5 * predicted.finite_size_term**2 / predicted.excess_risk,
    )
    assert abs(predicted.finite_size_term) > 2 * error


def test_ridge_risk_of_many_samples_is_what_no_linear_function_explains():
    _, _, omega, cross, psi = gaussian_world()
    risk = rf.feature_ridge_risk(omega, cross, psi, n_samples=10**8, ridge=1e-3)
    left = np.trace(psi - cross.T @ np.linalg.solve(omega, cross)) / len(psi)
    assert risk.unexplained == pytest.approx(left, rel=1e-8)
    assert risk.excess_risk == pytest.approx(left, rel=1e-5)
    # And a huge ridge predicts zero.
    zero = rf.feature_ridge_risk(omega, cross, psi, n_samples=5, ridge=1e12)
    assert zero.excess_risk == pytest.approx(np.trace(psi) / len(psi), rel=1e-6)


def test_shared_target_has_the_stated_formula():
    _, _, omega, _, _ = gaussian_world()
    n, ridge, noise = 25, 0.7, 0.3
    risk = rf.feature_ridge_risk(
        omega, omega, omega, n_samples=n, ridge=ridge, noise_variance=noise
    )
    lam, kappa = np.linalg.eigvalsh(omega), risk.kappa
    assert ridge / n == pytest.approx(kappa * (1 - (lam / (lam + kappa)).sum() / n), rel=1e-10)
    df2 = ((lam / (lam + kappa)) ** 2).sum()
    bias = kappa**2 * (lam / (lam + kappa) ** 2).mean()
    assert risk.excess_risk == pytest.approx((bias + noise) / (1 - df2 / n) - noise, rel=1e-9)


def test_features_that_are_not_seen_cannot_help():
    omega = np.diag([1.0, 0.5, 0.0])
    full = rf.feature_ridge_risk(omega, omega, omega, n_samples=4, ridge=0.1)
    seen = omega[:2, :2]
    part = rf.feature_ridge_risk(seen, omega[:2], omega, n_samples=4, ridge=0.1)
    assert full.excess_risk == pytest.approx(part.excess_risk, rel=1e-12)


def test_library_ridge_regression_is_what_is_predicted():
    rng = np.random.default_rng(8)
    d, n = 60, 50
    weights = rf.deep_weights(d, [70, 60], rng=rng)
    net = rf.deep_feature_covariances(np.eye(d), weights, np.tanh)
    omega, errors = net.covariances[-1], []
    for _ in range(60):
        x, t = rng.standard_normal((n, d)), rng.standard_normal((500, d))
        F, T = (rf.network_features(v, weights, np.tanh) for v in (x, t))
        theta = rng.standard_normal(60) / math.sqrt(60)
        y = F @ theta + math.sqrt(0.1) * rng.standard_normal(n)
        fit = Ridge(alpha=0.05 * n, fit_intercept=False).fit(F, y)
        errors.append(np.mean((T @ theta - fit.predict(T)) ** 2))
    risk = rf.feature_ridge_risk(
        omega, omega, omega, n_samples=n, ridge=0.05 * n, noise_variance=0.1
    )
    assert np.mean(errors) == pytest.approx(risk.excess_risk, rel=0.12)


def test_resolvent_trace_of_an_isotropic_covariance_is_marchenko_and_pastur():
    n, k = 30, 45
    lam = np.array([0.01, 0.5, 3.0])
    # m solves lam c m^2 + (1 - c + lam) m - 1 = 0 with c = k / n.
    c = k / n
    b = 1 - c + lam
    m = (-b + np.sqrt(b * b + 4 * lam * c)) / (2 * lam * c)
    np.testing.assert_allclose(rf.resolvent_trace(np.eye(k), n_samples=n, ridge=lam), m, rtol=1e-11)


def test_units_do_not_matter():
    _, _, omega, cross, psi = gaussian_world()
    base = rf.feature_ridge_risk(omega, cross, psi, n_samples=20, ridge=0.5, noise_variance=0.1)
    for s, t in ((1e-8, 1e6), (1e8, 1e-5)):
        scaled = rf.feature_ridge_risk(
            s * s * omega,
            s * t * cross,
            t * t * psi,
            n_samples=20,
            ridge=s * s * 0.5,
            noise_variance=t * t * 0.1,
        )
        assert scaled.excess_risk == pytest.approx(t * t * base.excess_risk, rel=1e-8)
        assert scaled.finite_size_term == pytest.approx(t * t * base.finite_size_term, rel=1e-7)
        trace = rf.resolvent_trace(s * omega, n_samples=20, ridge=s)
        plain = rf.resolvent_trace(omega, n_samples=20, ridge=1.0)
        assert s * trace == pytest.approx(plain, rel=1e-10)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"activation": lambda u: np.maximum(u, 0)}, "activation: expected an odd function"),
        ({"activation": lambda u: u + 1e-6}, "activation: expected an odd function"),
        ({"input_covariance": np.zeros((2, 2))}, "input_covariance"),
        ({"weights": [np.ones((3, 2)), np.ones((2, 2))]}, "weights"),
        ({"weights": []}, "weights"),
    ],
)
def test_networks_that_the_theory_does_not_cover_are_refused(change, named):
    call = {"input_covariance": np.eye(2), "weights": [np.ones((3, 2))], "activation": np.tanh}
    with pytest.raises(ValueError, match=named):
        rf.deep_feature_covariances(**{**call, **change})


def test_matrices_that_are_no_covariances_are_refused():
    with pytest.raises(ValueError, match="target_covariance: expected at least"):
        rf.feature_ridge_risk([[1.0]], [[1.0]], [[0.99999]], n_samples=3, ridge=0.1)
    with pytest.raises(ValueError, match="covariance: expected no negative"):
        rf.feature_ridge_risk(-np.eye(2), np.eye(2), np.eye(2), n_samples=3, ridge=0.1)
    with pytest.raises(ValueError, match="covariance: expected no negative"):
        rf.resolvent_trace(np.diag([1.0, -0.1]), n_samples=3, ridge=0.1)
    nets = [rf.deep_feature_covariances(np.eye(d), [np.ones((2, d))], np.tanh) for d in (2, 3)]
    with pytest.raises(ValueError, match="teacher"):
        rf.deep_cross_covariance(np.eye(2), *nets)
