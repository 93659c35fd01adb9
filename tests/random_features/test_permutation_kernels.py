"""Permutations: kernel matrices, exact Gaussian laws, simulated ensembles, direct sums."""

from math import comb

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from theorylab.random_features import (
    binary_inputs,
    cost_limits,
    ensemble_outputs,
    ensemble_size,
    linear_activation,
    noise_to_margin,
    output_kernel,
    output_law,
    rectified_power,
    tangent_kernel,
    trained_mean,
)

RELU = rectified_power(1)


def angles(P, Q):
    return np.arccos(np.clip(P @ Q.T, -1, 1))


@pytest.mark.parametrize("k", [2, 5, 8])
def test_closed_forms_against_kernel_matrices(k):
    inputs, order = binary_inputs(k), np.random.default_rng(k).permutation(k)
    U = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    X = np.eye(k)
    a = np.linalg.solve(tangent_kernel(angles(X, X), [RELU]), tangent_kernel(angles(X, U), [RELU]))
    cross, among = (output_kernel(angles(X, P), [RELU]) / 2 for P in (U, X))
    variance = 0.5 - 2 * np.sum(a * cross, axis=0) + np.sum(a * (among @ a), axis=0)
    law = output_law(n_bits=k, ones=inputs.sum(axis=1).astype(int))
    assert_allclose(law.variance, variance, atol=1e-7)
    bits = inputs @ np.eye(k)[order]
    mean = np.where(bits == 1, law.one[:, None], law.zero[:, None])
    assert_allclose(trained_mean(3 * inputs, order, activation=RELU), mean, atol=1e-13)
    assert (bits[:, order] == inputs).all()


def test_signs_for_many_bits():
    for k in (2, 30, 1000):
        law = output_law(n_bits=k, ones=np.arange(1, k + 1))
        assert (law.one > 0).all()
        assert law.zero[0] == 0
        assert (law.zero[1:] < 0).all()
        assert law.variance[0] == 0
        assert (law.variance[1:] > 0).all()


def test_ensembles_have_the_law():
    k, order = 4, [2, 0, 3, 1]
    inputs = binary_inputs(k)
    law = output_law(n_bits=k, ones=inputs.sum(axis=1).astype(int))
    models = {"activation": RELU, "n_models": 3, "n_draws": 20_000, "seed": 1}
    out = ensemble_outputs(inputs, order, **models)
    mean = trained_mean(inputs, order, activation=RELU)
    spread = np.sqrt(law.variance / 3)[:, None]
    assert (np.abs(out.mean(axis=0) - mean) <= 5 * spread / np.sqrt(20_000) + 1e-9).all()
    assert_allclose(out.var(axis=0), spread**2 + 0 * mean, rtol=0.06, atol=1e-12)
    pairs = np.corrcoef(out[:, 6].T)  # outputs are independent
    assert np.abs(pairs - np.eye(k)).max() < 0.04


def test_ensembles_of_other_activations():
    square, inputs = rectified_power(2), np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    U, X = inputs / np.linalg.norm(inputs, axis=1, keepdims=True), np.eye(3)
    tangent = [tangent_kernel(angles(P, X), [square]) for P in (U, X)]
    a = tangent[0] @ np.linalg.inv(tangent[1])
    cross, among = (output_kernel(angles(P, X), [square]) for P in (U, X))
    variance = 1 - 2 * np.sum(a * cross, axis=1) + np.sum((a @ among) * a, axis=1)
    variance /= 1 + 4 / 3  # the tangent kernel at equal inputs
    models = {"activation": square, "n_models": 1, "n_draws": 40_000, "seed": 3}
    out = ensemble_outputs(inputs, [2, 0, 1], **models)
    assert_allclose(out.var(axis=0), variance[:, None] + np.zeros(3), rtol=0.05)


def test_linear_networks_and_other_training_inputs():
    inputs = binary_inputs(3)
    mean = trained_mean(inputs, [1, 2, 0], activation=linear_activation())
    unit = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    assert_allclose(mean, unit @ np.eye(3)[[1, 2, 0]], atol=1e-14)
    training = [[1.0, 1, 0], [0, 1, 1], [1, 0, 2]]
    fitted = trained_mean(training, [1, 2, 0], activation=RELU, training=training)
    assert_allclose(fitted, np.eye(3)[[1, 2, 0]], atol=1e-12)


@pytest.mark.parametrize("inputs", ["one", "all"])
@pytest.mark.parametrize("k", [2, 6, 9])
def test_ensemble_sizes_are_minimal(inputs, k):
    s = np.arange(2, k + 1)

    def failure(count):
        wrong = 1 - norm.cdf(np.sqrt(count / noise_to_margin(n_bits=k, ones=s))) ** k
        many = [comb(k, int(j)) for j in s]
        return wrong.max() if inputs == "one" else many @ wrong

    count = ensemble_size(k, failure=0.05, inputs=inputs)
    assert failure(count) <= 0.05 < failure(count - 1)


def test_ensemble_sizes_far_in_the_tail():
    worst = noise_to_margin(n_bits=9, ones=np.arange(2, 10)).max()
    count = ensemble_size(9, failure=1e-40)
    before, after = (np.log(9) + norm.logsf(np.sqrt(n / worst)) for n in (count - 1, count))
    assert after <= -40 * np.log(10) < before
    sizes = [ensemble_size(k, failure=0.1, inputs="all") / k**2 for k in (1000, 4000, 16_000)]
    # 2 r_s^2 times the entropy, at its maximum over s = x k as k grows.
    c, x = 1 / (2 * np.pi), np.linspace(1e-3, 1 - 1e-3, 999)
    variance = 0.5 - c - (1 - x) / (4 * (1 - c)) * (1 - (0.5 - c) / (1 - c))
    entropy = -x * np.log(x) - (1 - x) * np.log(1 - x)
    limit = np.max(2 * 16 * x * (1 - c) ** 2 * variance * entropy)
    errors = limit - np.array(sizes)
    assert (errors > 0).all()
    assert_allclose(errors[:-1] / errors[1:], 2.0, rtol=0.1)  # like the root of k
    assert_allclose(2 * sizes[2] - sizes[1], limit, rtol=0.01)


def test_costs():
    k = 10**7
    s = np.unique(np.append(np.arange(1, 100), np.geomspace(1, k, 2000).astype(int)))
    midpoint, zero = (
        noise_to_margin(n_bits=k, ones=s),
        noise_to_margin(n_bits=k, ones=s, threshold="zero"),
    )
    assert s[midpoint.argmax()] == k
    assert s[zero.argmax()] == 2
    limits = cost_limits()
    assert_allclose(midpoint.max() / k, limits.midpoint, rtol=1e-3)
    assert_allclose(zero.max() / k**2, limits.zero, rtol=1e-5)
    law = output_law(n_bits=9, ones=4)
    wanted = law.variance / min(law.one, -law.zero) ** 2
    assert_allclose(noise_to_margin(n_bits=9, ones=4, threshold="zero"), wanted)
    law = output_law(n_bits=100, ones=80)  # here the bits 1 are closer to the threshold
    assert law.one < -law.zero
    assert_allclose(
        noise_to_margin(n_bits=100, ones=80, threshold="zero"), law.variance / law.one**2
    )
    full = output_law(n_bits=9, ones=9)
    assert_allclose(
        noise_to_margin(n_bits=9, ones=9, threshold="zero"), full.variance / full.one**2
    )


def test_bad_input():
    with pytest.raises(ValueError, match="ones: expected integers from 1 to n_bits = 4"):
        output_law(n_bits=4, ones=[5])
    with pytest.raises(ValueError, match="permutation: expected the numbers 0 to 1"):
        trained_mean([[1.0, 0.0]], [1, 1], activation=RELU)
    with pytest.raises(ValueError, match="training: expected inputs whose kernel matrix"):
        trained_mean([[1.0, 0.0]], [1, 0], activation=RELU, training=[[1.0, 0.0]] * 2)
    with pytest.raises(ValueError, match="inputs: expected rows of positive length"):
        trained_mean([[0.0, 0.0]], [1, 0], activation=RELU)
