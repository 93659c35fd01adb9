"""Central path and near-collapse response: against finite differences, another optimizer,
definitions and exact rationals."""

from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from scipy.optimize import minimize

from theorylab.neural_collapse import (
    NearStatus,
    UnconstrainedFeatures,
    central_path,
    central_path_velocity,
    collapse_metrics,
    collapsed_response,
    exact_variability_rate,
    near_minimizer,
    ridge_classifier,
    trace_rates,
    ufm_minimizer,
)


def objective(W, H, H0, K, beta, lam_w, lam_h):
    N = H.shape[1]
    Y = np.repeat(np.eye(K), N // K, axis=1)
    value = np.sum((W @ H - Y) ** 2) + lam_h * np.sum(H**2) + beta * np.sum((H - H0) ** 2)
    return value / (2 * N) + lam_w * np.sum(W**2) / (2 * K)


def covariances(H, K):
    n = H.shape[1] // K
    means = H.reshape(len(H), K, n).mean(axis=2)
    deviations = H - np.repeat(means, n, axis=1)
    centred = means - means.mean(axis=1, keepdims=True)
    return deviations @ deviations.T / H.shape[1], centred @ centred.T / K


@pytest.fixture
def features(rng=np.random.default_rng(3)):
    return rng.standard_normal((5, 12))


def test_ridge_classifier_minimizes_the_profiled_objective(features):
    W = ridge_classifier(features, 3, lam_w=0.2)
    found = minimize(
        lambda w: objective(w.reshape(3, 5), features, features, 3, 0.0, 0.2, 0.1),
        np.zeros(15),
        tol=1e-12,
    )
    np.testing.assert_allclose(W.ravel(), found.x, atol=1e-6)


def test_velocity_is_minus_the_gradient_of_the_profiled_objective(features):
    def profiled(h):
        H = h.reshape(5, 12)
        return objective(ridge_classifier(H, 3, lam_w=0.2), H, H, 3, 0.0, 0.2, 0.1)

    step = 1e-5
    slope = [
        (profiled(features.ravel() + step * e) - profiled(features.ravel() - step * e)) / (2 * step)
        for e in np.eye(60)
    ]
    velocity = central_path_velocity(features, 3, lam_w=0.2, lam_h=0.1)
    np.testing.assert_allclose(velocity.ravel(), -12 * np.array(slope), atol=1e-7)


@pytest.mark.parametrize(("n_classes", "dimension"), [(2, 1), (3, 2), (3, 6), (4, 3)])
def test_trace_rates_are_derivatives_along_the_flow(n_classes, dimension):
    H = np.random.default_rng(0).standard_normal((dimension, 4 * n_classes))
    rates, step = trace_rates(H, n_classes, lam_w=0.05), 1e-6
    move = step * central_path_velocity(H, n_classes, lam_w=0.05, lam_h=0.3)
    ends = [[np.log(np.trace(c)) for c in covariances(H + s * move, n_classes)] for s in (1, -1)]
    slopes = (np.array(ends[0]) - np.array(ends[1])) / (2 * step) + 2 * 0.3
    np.testing.assert_allclose(slopes, [rates.within, rates.between], rtol=1e-6)
    assert rates.within <= 0 <= rates.between


def test_path_agrees_with_many_small_euler_steps_and_with_the_metrics(features):
    path = central_path(features, 3, lam_w=0.1, lam_h=0.05, times=[0.0, 0.5])
    ends = []
    for steps in (2000, 4000):
        H = features
        for _ in range(steps):
            H = H + 0.5 / steps * central_path_velocity(H, 3, lam_w=0.1, lam_h=0.05)
        ends.append(H)
    np.testing.assert_allclose(path.features[1], 2 * ends[1] - ends[0], atol=1e-6)
    labels = np.repeat(np.arange(3), 4)
    metrics = collapse_metrics(
        path.features[1], labels, ridge_classifier(path.features[1], 3, lam_w=0.1)
    )
    assert path.trace_ratio[1] == pytest.approx(metrics.variability_ratio, rel=1e-12)
    assert path.variability[1] == pytest.approx(3 * metrics.variability, rel=1e-10)


def test_path_turns_with_the_feature_space(features):
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    first, second = (
        central_path(H, 3, lam_w=0.1, times=[0.0, 1.0]).features[-1]
        for H in (features, Q @ features)
    )
    np.testing.assert_allclose(Q @ first, second, atol=1e-8)


def test_exact_rate_against_finite_differences_and_a_symbolic_pseudo_inverse():
    H = np.array(
        [
            [1.0, 3.0, -1.0, 0.0, 0.5, -2.0],
            [0.0, 1.0, 2.0, -1.0, 1.0, 0.0],
            [0.5, 0.0, 1.0, -1.0, 2.0, 1.0],
        ]
    )
    exact = exact_variability_rate(H, 3, lam_w=0.25)
    assert isinstance(exact, Fraction)
    step, V = 1e-6, central_path_velocity(H, 3, lam_w=0.25, lam_h=0.7)
    ends = [covariances(H + s * step * V, 3) for s in (1, -1)]
    metric = [np.trace(a @ np.linalg.pinv(b, rcond=1e-10)) for a, b in ends]
    assert float(exact) == pytest.approx((metric[0] - metric[1]) / (2 * step), rel=1e-6)
    n, c = 2, sp.Rational(1, 2)
    A = sp.Matrix(3, 6, [sp.Rational(*float(v).as_integer_ratio()) for v in H.ravel()])
    means = sp.Matrix.hstack(*[(A[:, 2 * k] + A[:, 2 * k + 1]) / n for k in range(3)])
    within = A - sp.Matrix.hstack(*[means[:, k // 2] for k in range(6)])
    centred = means - means * sp.ones(3, 3) / 3
    S, B = within * within.T, n * centred * centred.T
    R, inverse = (A * A.T + c * sp.eye(3)).inv(), B.pinv()
    Q = R * (S + c * sp.eye(3)) * R
    symbolic = sp.nsimplify(2 * n * (inverse * (2 * Q * (sp.eye(3) - B * inverse) - R) * S).trace())
    assert sp.simplify(symbolic - sp.Rational(exact.numerator, exact.denominator)) == 0


def test_exact_rate_never_positive_where_the_scatter_lies_in_the_span_of_centred_means():
    rng = np.random.default_rng(0)
    for _ in range(20):
        means = rng.integers(-8, 9, (2, 2)) / 4.0
        means = np.vstack([means, -means.sum(axis=0)]).T
        deviations = rng.integers(-8, 9, (2, 3)) / 4.0
        H = np.stack([means + deviations, means - deviations], axis=2).reshape(2, 6)
        if abs(np.linalg.det(means[:, :2])) > 1e-9:
            assert exact_variability_rate(H, 3, lam_w=0.0625) <= 0


@pytest.mark.parametrize("lam_w", [0.01, 0.3])
def test_near_minimizer_is_a_minimum_of_the_joint_objective(lam_w):
    rng = np.random.default_rng(5)
    K, beta, lam_h = 3, 0.3, 0.02
    H0 = np.repeat(
        np.linalg.qr(rng.standard_normal((5, 5)))[0][:, :K], 4, axis=1
    ) + 0.05 * rng.standard_normal((5, 12))
    found = near_minimizer(H0, K, beta=beta, lam_w=lam_w, lam_h=lam_h)
    assert found.status is NearStatus.MINIMUM
    assert found.curvature > 0
    assert found.objective == pytest.approx(
        objective(found.classifier, found.features, H0, K, beta, lam_w, lam_h), rel=1e-13
    )

    def joint(x):
        return objective(x[:15].reshape(3, 5), x[15:].reshape(5, 12), H0, K, beta, lam_w, lam_h)

    other = minimize(
        joint,
        np.concatenate([found.classifier.ravel() + 0.05, H0.ravel()]),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    np.testing.assert_allclose(other.x[:15], found.classifier.ravel(), atol=1e-4)
    assert found.objective <= other.fun + 1e-13


@pytest.mark.parametrize("length", [None, 0.5, 3.0])
def test_collapsed_response_solves_the_collapsed_model(length):
    options = {"beta": 0.4, "lam_w": 0.07, "lam_h": 0.05}
    answer = collapsed_response(**options, length=length)
    own = answer.length if length is None else length
    found = near_minimizer(own * np.repeat(np.eye(4, 3), 2, axis=1), 3, **options)
    np.testing.assert_allclose(
        found.features, answer.length * np.repeat(np.eye(4, 3), 2, axis=1), atol=1e-12
    )
    np.testing.assert_allclose(found.classifier, answer.gain * np.eye(3, 4), atol=1e-12)
    assert found.status is NearStatus.MINIMUM


def test_response_without_length_is_that_of_the_unattached_minimizer():
    K, n, lam_w, lam_h = 3, 4, 0.07, 0.05
    free = ufm_minimizer(
        UnconstrainedFeatures([n] * K, lam_w=lam_w / K, lam_h=lam_h / (K * n)), dimension=5
    )
    answer = collapsed_response(beta=0.4, lam_w=lam_w, lam_h=lam_h)
    np.testing.assert_allclose(
        np.linalg.norm(free.class_features, axis=0), answer.length, rtol=1e-12
    )
    np.testing.assert_allclose(np.linalg.norm(free.classifier, axis=1), answer.gain, rtol=1e-12)
    assert answer.on_span == pytest.approx(0.4 / (0.4 + np.sqrt(lam_h / lam_w)), rel=1e-14)


def test_the_gain_decreases_with_weight_decay_whatever_the_frame():
    for length in (0.2, 1.0, 5.0):
        gains = [
            collapsed_response(beta=0.3, lam_w=w, lam_h=0.02, length=length).gain
            for w in np.geomspace(1e-4, 10, 40)
        ]
        assert (np.diff(gains) < 0).all()


def test_strong_attachment_leaves_the_features_alone():
    H0 = np.random.default_rng(0).standard_normal((4, 6))
    found = near_minimizer(H0, 3, beta=1e8, lam_w=0.1, lam_h=0.1)
    np.testing.assert_allclose(found.features, H0, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="features"):
        ridge_classifier(np.ones((2, 5)), 3, lam_w=0.1)
    with pytest.raises(ValueError, match="features"):
        trace_rates(np.repeat(np.eye(3), 2, axis=1), 3, lam_w=0.1)
    with pytest.raises(ValueError, match="features"):
        exact_variability_rate(np.ones((3, 6)), 3, lam_w=0.5)
    with pytest.raises(ValueError, match="times"):
        central_path(np.ones((2, 4)), 2, lam_w=0.1, times=[1.0, 0.5])
    with pytest.raises(ValueError, match="lam_h"):
        collapsed_response(beta=0.1, lam_w=2.0, lam_h=2.0)


def test_a_stiff_central_path_ends_with_its_cause():
    H = np.array([[1.0, 1.1, -1.0, -0.9], [0.2, -0.1, 0.1, 0.3]])
    with pytest.raises(ValueError, match=r"times: .*too stiff for 20000 evaluations after"):
        central_path(H, 2, lam_w=1e-12, lam_h=1e6, times=[1e9])


def test_features_that_vanish_stay():
    path = central_path(np.zeros((2, 4)), 2, lam_w=0.1, times=[0.0, 1.0, 5.0])
    assert path.features.shape == (3, 2, 4)
    assert not path.features.any()


def test_a_stopped_path_is_the_beginning_of_the_whole(features):
    options = {"lam_w": 0.1, "lam_h": 0.05, "times": np.linspace(0, 20, 60)}
    seen = []
    whole = central_path(features, 3, **options, callback=seen.append)
    part = central_path(features, 3, **options, callback=lambda record: record.iteration == 8)
    assert 1 < part.times.size < 60
    assert np.array_equal(part.times, whole.times[: part.times.size])
    assert np.array_equal(part.features, whole.features[: part.times.size])
    assert (np.diff([record.objective for record in seen]) < 0).all()
    H = whole.features[-1]
    end = objective(ridge_classifier(H, 3, lam_w=0.1), H, H, 3, 0.0, 0.1, 0.05)
    assert seen[-1].objective == pytest.approx(end, rel=1e-9)


def test_responses_on_and_off_the_span_are_those_of_perturbed_minimizers():
    options, eps, length = {"beta": 0.4, "lam_w": 0.07, "lam_h": 0.05}, 1e-4, 1.3
    answer = collapsed_response(**options, length=length)
    H0 = length * np.repeat(np.eye(5, 3), 2, axis=1)
    start = near_minimizer(H0, 3, **options).features
    for axis, factor in ((0, answer.on_span), (4, answer.off_span)):
        moved = np.zeros_like(H0)
        moved[axis] = eps * np.array([1, -1, 2, -2, -1, 1])
        change = near_minimizer(H0 + moved, 3, **options).features - start
        np.testing.assert_allclose(change, factor * moved, atol=1e-4 * eps)
    assert answer.on_span != pytest.approx(answer.off_span, rel=0.1)


def test_a_minimizer_that_is_none_is_not_called_one():
    options = {"beta": 0.3, "lam_w": 0.01, "lam_h": 0.02}
    saddle = near_minimizer(np.zeros((4, 6)), 3, **options)
    assert saddle.status is NearStatus.FLAT
    assert saddle.curvature < 0 == saddle.gradient
    H0 = 1e-8 * np.random.default_rng(0).standard_normal((3, 6))
    found = near_minimizer(H0, 3, beta=0.3, lam_w=0.1, lam_h=0.02)
    assert (found.status is NearStatus.STOPPED) == (found.gradient > 1e-11)


def test_rate_of_the_ratio_and_times_that_repeat():
    H = np.random.default_rng(0).standard_normal((3, 12))
    rates = trace_rates(H, 3, lam_w=0.05)
    path = central_path(H, 3, lam_w=0.05, times=[0.0, 1e-6])
    slope = np.diff(np.log(path.trace_ratio))[0] / 1e-6
    assert rates.ratio == pytest.approx(slope, rel=1e-4)
    with pytest.raises(ValueError, match="times"):
        central_path(H, 3, lam_w=0.05, times=[0.0, 1.0, 1.0])
