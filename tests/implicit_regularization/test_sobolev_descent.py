"""Descent on Sobolev misfits: matrices, waves, exact moments."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from theorylab.implicit_regularization import (
    convolution_matrix,
    metric_descent,
    metric_step_limit,
    sobolev_iterate,
    sobolev_tikhonov,
    sobolev_weights,
    spectral_filter,
    tikhonov_error,
)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2)])
def test_convolutions_are_products_of_fourier_transforms(shape):
    rng = np.random.default_rng(1)
    kernel, f = rng.standard_normal((2, *shape))
    direct = np.fft.ifftn(np.fft.fftn(kernel) * np.fft.fftn(f)).real
    assert_allclose(convolution_matrix(kernel) @ f.ravel(), direct.ravel(), atol=1e-12)


def test_sobolev_weights_by_waves():
    x, y = np.meshgrid(*(2 * np.pi * np.arange(n) / n for n in (6, 8)), indexing="ij")
    for kx, ky in ((0, 0), (1, 0), (2, 3), (-1, 2)):
        wave = np.cos(kx * x + ky * y)
        smooth = np.fft.ifftn(sobolev_weights((6, 8), order=-0.5) * np.fft.fftn(wave)).real
        assert_allclose(smooth, wave / np.sqrt(1 + kx**2 + ky**2), atol=1e-12)
    with pytest.raises(ValueError, match="shape"):
        sobolev_weights(6, order=1.0)
    with pytest.raises(ValueError, match="shape: expected at most"):
        sobolev_weights((10**5, 10**5), order=1.0)
    with pytest.raises(ValueError, match="kernel: expected at most"):
        convolution_matrix(np.ones((65, 64)))


@pytest.mark.parametrize("order", [-1.0, 0.0, 0.7])
def test_sobolev_descent_is_descent_of_the_matrix(order):
    rng = np.random.default_rng(2)
    kernel, g = rng.standard_normal((2, 3, 4))
    A = convolution_matrix(kernel)
    weight = convolution_matrix(np.fft.ifftn(sobolev_weights((3, 4), order=order)).real)
    step = 0.8 * metric_step_limit(A, weight=weight)
    dense = metric_descent(A, g.ravel(), weight=weight, step_size=step, steps=9, tol=0.0)
    found = sobolev_iterate(kernel, g, order=order, step_size=step, steps=9)
    assert_allclose(found.ravel(), dense.weights, atol=1e-12)
    nothing = sobolev_iterate(kernel, g, order=order, step_size=step, steps=0)
    assert not nothing.any()
    share = spectral_filter(kernel, order=order, step_size=step, steps=9)
    h = step * sobolev_weights((3, 4), order=order) * np.abs(np.fft.fftn(kernel)) ** 2
    assert h.max() > 1
    assert_allclose(share, 1 - (1 - h) ** 9, atol=1e-12)
    far = sobolev_iterate(kernel, g, order=order, step_size=step, steps=10**7)
    assert_allclose(A @ far.ravel(), g.ravel(), atol=1e-6)


def test_small_filters_keep_their_digits():
    share = spectral_filter([1e-10, 0.0], order=0.0, step_size=1.0, steps=3)
    assert_allclose(share, 3e-20, rtol=1e-12)
    assert_allclose(
        sobolev_iterate([1e-90, 0.0], [1.0, 1.0], order=0.0, step_size=1e180, steps=1), 1e90
    )


def test_tikhonov_minimises_and_its_error_is_that_of_samples():
    rng = np.random.default_rng(3)
    kernel, g = rng.standard_normal((2, 6))
    A = convolution_matrix(kernel)
    powers = {
        q: convolution_matrix(np.fft.ifftn(sobolev_weights((6,), order=q)).real)
        for q in (0.5, 1.5, -1.5, -0.5, -0.2)
    }
    parameters = {"order": 0.5, "noise_variance": 0.4, "prior_order": 1.5, "prior_variance": 2.0}
    found = sobolev_tikhonov(kernel, g, **parameters)
    gradient = A.T @ powers[0.5] @ (A @ found - g) / 0.4 + powers[1.5] @ found / 2.0
    assert np.abs(gradient).max() < 1e-11
    # Exact moments of the linear estimate, for noise of another order.
    K = np.array([sobolev_tikhonov(kernel, e, **parameters) for e in np.eye(6)]).T
    missed = K @ A - np.eye(6)
    expected = 2.0 * np.trace(missed @ powers[-1.5] @ missed.T)
    expected += 0.4 * np.trace(K @ powers[-0.2] @ K.T)
    assert_allclose(tikhonov_error(kernel, noise_order=0.2, **parameters), expected)
    least = tikhonov_error(kernel, noise_order=0.5, **parameters)
    for order in (0.3, 0.7):
        other = tikhonov_error(kernel, noise_order=0.5, **{**parameters, "order": order})
        assert other > least
    scaled = {**parameters, "noise_variance": 0.4e40}
    assert_allclose(tikhonov_error(1e20 * kernel, noise_order=0.5, **scaled), least)


def test_frequencies_that_the_kernel_removes_stay_0():
    kernel, g = [1.0, 1.0], [3.0, 1.0]
    options = {"order": 0.0, "step_size": 0.3}
    for steps in (1, 400):
        dense = metric_descent(np.ones((2, 2)), g, step_size=0.3, steps=steps, tol=0.0)
        assert_allclose(sobolev_iterate(kernel, g, **options, steps=steps), dense.weights)
    assert spectral_filter(kernel, **options, steps=400).tolist() == [1.0, 0.0]
