"""Aggregate responses: least squares by another route, exact limits, enumeration and simulation."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theorylab import random_features as rf

SIZE = {"n_features": 3, "noise_variance": 0.7, "privacy_variance": 0.4}


def bags(m, k, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, k, d)), rng.standard_normal(m)


def test_instance_loss_is_bag_loss_plus_spread():
    f, y = np.random.default_rng(1).standard_normal((7, 4)), np.arange(7.0)
    losses = rf.aggregate_losses(f, y)
    assert_allclose(losses.instance, losses.bag + losses.spread, rtol=1e-12)
    assert_allclose(losses.instance, np.mean((np.repeat(y, 4) - f.ravel()) ** 2), rtol=1e-12)
    assert_allclose(losses.bag, np.mean((y - f.mean(axis=1)) ** 2), rtol=1e-12)
    # Of another response than the mean the identity is as true; of another centre it is not.
    off = f + np.linspace(0, 1, 4)
    assert abs(losses.instance - losses.bag - rf.aggregate_losses(off, y).spread) > 0.01


@pytest.mark.parametrize("weight", [0.0, 0.05, 0.4, 1.0, 5.0])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e9])
def test_operator_minimises_the_weighted_loss(weight, scale):
    X, y = bags(9, 3, 4)
    theta = rf.aggregate_operator(scale * X, weight=weight) @ y * scale

    def loss(t):
        found = rf.aggregate_losses(X @ t, y)
        return found.bag + weight * found.spread

    for step in np.random.default_rng(2).standard_normal((20, 4)) * 1e-3:
        assert loss(theta) < loss(theta + step)
        # The derivative vanishes: changes are of second order, and even.
        assert_allclose(loss(theta + step), loss(theta - step), rtol=1e-9)


def test_ends_are_ordinary_least_squares():
    X, y = bags(9, 3, 4)
    plain = np.linalg.lstsq(X.reshape(27, 4), np.repeat(y, 3), rcond=None)[0]
    assert_allclose(rf.aggregate_operator(X, weight=1.0) @ y, plain, rtol=1e-9)
    means = np.linalg.lstsq(X.mean(axis=1), y, rcond=None)[0]
    assert_allclose(rf.aggregate_operator(X, weight=0.0) @ y, means, rtol=1e-9)


def test_ill_conditioned_designs_go_by_orthogonal_rows():
    X, y = bags(9, 3, 4)
    graded = X * np.array([1.0, 1e-3, 1e-6, 1e-8])
    plain = rf.aggregate_operator(X, weight=0.3) @ y
    found = rf.aggregate_operator(graded, weight=0.3) @ y
    assert_allclose(found * np.array([1.0, 1e-3, 1e-6, 1e-8]), plain, rtol=1e-6)
    stacked = rf.aggregate_operator(np.stack([X, graded]), weight=0.3)
    assert_allclose(stacked[0] @ y, plain, rtol=1e-9)


def test_undetermined_designs_are_refused():
    X, _ = bags(3, 4, 5)
    assert rf.aggregate_operator(X, weight=0.1).shape == (5, 3)
    with pytest.raises(ValueError, match="X: expected bags that determine 5 coefficients"):
        rf.aggregate_operator(X, weight=0.0)
    with pytest.raises(ValueError, match="X: expected bags that determine 2"):
        rf.aggregate_operator(np.ones((3, 2, 2)), weight=0.5)
    with pytest.raises(ValueError, match="X: expected bags of inputs"):
        rf.aggregate_operator(np.ones((3, 2)), weight=0.5)


def test_exact_risks_against_simulation_in_two_dimensions():
    m, k, draws = 7, 3, 40_000
    rng = np.random.default_rng(3)
    X = rng.standard_normal((draws, m, k, 2))
    for weight, risk in ((1.0, rf.instance_risk), (0.0, rf.bag_risk)):
        T = rf.aggregate_operator(X, weight=weight)
        H = T @ X.mean(axis=2)
        exact = risk(n_bags=m, bag_size=k, n_features=2, noise_variance=1.0)
        signal = np.sum((H - np.eye(2)) ** 2, axis=(1, 2)) / 2
        noise = np.sum(T**2, axis=(1, 2)) / k
        gain = np.trace(H, axis1=1, axis2=2) / 2
        for sample, value in zip((gain, signal, noise), exact, strict=True):
            assert abs(sample.mean() - value) <= 5 * sample.std() / np.sqrt(draws) + 1e-10
        spread = H - exact.gain * np.eye(2)
        about = np.sum(spread**2, axis=(1, 2)) / 2
        assert abs(about.mean() - exact.variance() + exact.noise) <= 5 * about.std() / 200 + 1e-9


def test_one_dimension_against_the_beta_law():
    # d = 1: the estimate is theta times |Px|^2 / |x|^2, a beta variable, plus noise.
    m, k = 5, 4
    n = m * k
    found = rf.instance_risk(n_bags=m, bag_size=k, n_features=1, noise_variance=0.0)
    second = m * (m + 2) / (n * (n + 2))
    assert_allclose(found.signal, 1 - 2 / k + second, rtol=1e-12)


def test_second_moments_of_the_projector():
    # E (U'PU)^2 = (alpha + d beta) I; as many columns as rows make it U'PU, of mean m / n.
    m, k = 2, 3
    n, p = m * k, 1 / k
    one, two = (
        rf.instance_risk(n_bags=m, bag_size=k, n_features=d, noise_variance=0.0).signal - 1 + 2 * p
        for d in (1, 2)
    )
    # alpha + beta, and alpha + beta (2 n - 2) / (n - 3).
    beta = (two - one) / ((2 * n - 2) / (n - 3) - 1)
    assert_allclose(one - beta + n * beta, p, rtol=1e-12)


def test_nearly_dependent_inputs():
    X, y = bags(30, 3, 3)
    direction = np.array([1.0, 0.0, -1.0])
    for apart, rtol in ((1e-5, 3e-8), (1e-11, 1e-2)):
        near = X.copy()
        near[..., 2] = X[..., 0] + apart * X[..., 2]
        # The same span: only the coordinates differ.
        back = np.array([[1.0, 0.0, -1 / apart], [0.0, 1.0, 0.0], [0.0, 0.0, 1 / apart]])
        plain = back @ (rf.aggregate_operator(X, weight=0.3) @ y)
        found = rf.aggregate_operator(near, weight=0.3) @ y
        assert_allclose(direction @ found, direction @ plain, rtol=rtol)
    near[..., 2] = X[..., 0] * (1 + 1e-15)
    with pytest.raises(ValueError, match="X: expected bags that determine 3"):
        rf.aggregate_operator(near, weight=0.3)


def test_bags_of_one_are_least_squares():
    size = {**SIZE, "bag_size": 1}
    a, b = rf.instance_risk(n_bags=30, **size), rf.bag_risk(n_bags=30, **size)
    assert_allclose(a, b, atol=1e-15)
    assert_allclose(b.noise, (0.7 + 0.4) * 3 / (30 - 3 - 1), rtol=1e-12)


@pytest.mark.parametrize("k", [2, 5])
def test_limits_agree_with_exact_risks_up_to_one_over_n(k):
    for weight, risk in ((1.0, rf.instance_risk), (0.0, rf.bag_risk)):
        errors = []
        for m in (2000, 4000):
            size = {"bag_size": k, "noise_variance": 0.7, "privacy_variance": 0.4}
            exact = risk(n_bags=m, n_features=m // 10, **size)
            limit = rf.aggregate_risk(aspect=0.1 / k, weight=weight, **size)
            assert_allclose(limit.gain, exact.gain, rtol=1e-12)
            errors.append([exact.signal - limit.signal, exact.noise - limit.noise])
        small, large = np.array(errors)
        assert np.abs(small).max() < 1e-3
        at = np.abs(small) > 1e-9
        assert_allclose(small[at] / large[at], 2, rtol=0.01)


@pytest.mark.parametrize("k", [1.0, 2.0, 3.7])
@pytest.mark.parametrize("weight", [0.01, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("aspect", [0.05, 0.4, 0.9])
def test_the_limit_is_a_root_of_its_fixed_point(k, weight, aspect):
    found = rf.aggregate_risk(aspect=aspect, bag_size=k, weight=weight, noise_variance=1.0)
    p, a = 1 / k, aspect
    # The gain is p u / (1 + a u).
    u = found.gain / (p - a * found.gain)
    assert u > 0
    left = p * u / (1 + a * u) + (1 - p) * weight * u / (1 + weight * a * u)
    assert_allclose(left, 1, rtol=1e-9)

    # The noise is the derivative of u in the weight of the bag part, by differences.
    def trace(s):
        from scipy.optimize import brentq

        return brentq(
            lambda v: p * s * v / (1 + s * a * v) + (1 - p) * weight * v / (1 + weight * a * v) - 1,
            1e-9,
            1e9,
            xtol=1e-14,
            rtol=1e-14,
        )

    slope = (trace(1 + 1e-4) - trace(1 - 1e-4)) / 2e-4
    assert_allclose(found.noise, -a * slope, rtol=1e-5)


def test_limit_of_the_signal_against_one_large_design():
    X = np.random.default_rng(4).standard_normal((150, 4, 90))
    for weight in (0.1, 0.5, 3.0):
        H = rf.aggregate_operator(X, weight=weight) @ X.mean(axis=1)
        limit = rf.aggregate_risk(aspect=90 / 600, bag_size=4, weight=weight, noise_variance=0.0)
        assert_allclose(np.sum((H - np.eye(90)) ** 2) / 90, limit.signal, rtol=0.04)
        assert_allclose(np.trace(H) / 90, limit.gain, rtol=0.02)


def test_an_interior_weight_can_be_best():
    size = {"aspect": 100 / 300, "bag_size": 2, "noise_variance": 0.3}
    risk = {w: rf.aggregate_risk(weight=w, **size).risk() for w in (0.02, 0.3, 1.0)}
    assert risk[0.3] < min(risk[0.02], risk[1.0]) * 0.95


def test_risk_and_variance():
    found = rf.AggregateRisk(gain=0.5, signal=0.5, noise=2.0)
    assert found.risk(4.0) == 4.0
    assert found.variance(4.0) == 3.0
    with pytest.raises(ValueError, match="signal"):
        found.risk(-1.0)


@pytest.mark.parametrize("aspect", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("noise", [0.0, 0.5, 6.0])
@pytest.mark.parametrize("privacy", [0.0, 0.3, 5.0])
def test_private_share_against_a_grid(aspect, noise, privacy):
    how = {"aspect": aspect, "noise_variance": noise, "privacy_variance": privacy}
    u = np.linspace(1e-3, 1, 4000)
    risks = np.array([rf.aggregate_risk(bag_size=1 / v, weight=1.0, **how).risk() for v in u])
    share = rf.optimal_private_share(**how)
    at = 1.0 if share == 0 else rf.aggregate_risk(bag_size=1 / share, weight=1.0, **how).risk()
    assert 0 <= share <= 1
    assert at <= risks.min() + 1e-9
    assert min(abs(share - u[np.argmin(risks)]), abs(at - risks.min())) < 2e-3


def test_sizes_without_a_risk_are_refused():
    with pytest.raises(ValueError, match="n_bags"):
        rf.bag_risk(n_bags=4, bag_size=3, **SIZE)
    with pytest.raises(ValueError, match="n_bags"):
        rf.instance_risk(n_bags=2, bag_size=2, **SIZE)
    with pytest.raises(ValueError, match="aspect"):
        rf.aggregate_risk(aspect=0.5, bag_size=2, weight=0.0, noise_variance=1.0)
