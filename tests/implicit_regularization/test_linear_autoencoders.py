"""Linear autoencoders: L-BFGS from random starts, brute force over scalings, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from theorylab.implicit_regularization import (
    AutoencoderStatus,
    autoencoder_minimiser,
    autoencoder_objective,
    cosine_range,
    cosine_similarities,
    train_autoencoder,
)

PENALTIES = ("product", "factors")
X = np.random.default_rng(0).standard_normal((7, 4)) * np.array([3.0, 2.0, 1.0, 0.5])


def descend(X, ridge, k, penalty, seed):
    """The factors where L-BFGS ends, with the gradient by hand."""
    p = X.shape[1]

    def both(z):
        A, B = z.reshape(2, p, k)
        Y = X @ A
        E = Y @ B.T - X
        gA, gB = 2 * X.T @ E @ B, 2 * E.T @ Y
        if penalty == "product":
            gA, gB = gA + 2 * ridge * A @ B.T @ B, gB + 2 * ridge * B @ A.T @ A
        else:
            gA, gB = gA + 2 * ridge * X.T @ Y, gB + 2 * ridge * B
        return autoencoder_objective(X, A, B, ridge=ridge, penalty=penalty), np.array(
            [gA, gB]
        ).ravel()

    start = np.random.default_rng(seed).standard_normal(2 * p * k)
    options = {"maxiter": 20_000, "maxfun": 40_000, "gtol": 1e-9, "ftol": 1e-16}
    return minimize(both, start, jac=True, method="L-BFGS-B", options=options).x.reshape(2, p, k)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_minimisers_against_lbfgs(penalty, k):
    ridge = 1.3
    found = autoencoder_minimiser(X, ridge=ridge, search_rank=k, penalty=penalty)
    A, B = descend(X, ridge, k, penalty, 3)
    assert_allclose(A @ B.T, found.A @ found.B.T, atol=1e-5)
    assert_allclose(
        autoencoder_objective(X, A, B, ridge=ridge, penalty=penalty), found.value, rtol=1e-9
    )
    if penalty == "factors":
        assert_allclose(A @ A.T, found.A @ found.A.T, atol=1e-4)
        assert_allclose(B @ B.T, found.B @ found.B.T, atol=1e-4)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("k", [1, 3])
def test_training_reaches_the_closed_form(penalty, k):
    for ridge in (0.2, 3.0):
        exact = autoencoder_minimiser(X, ridge=ridge, search_rank=k, penalty=penalty)
        found = train_autoencoder(X, ridge=ridge, search_rank=k, penalty=penalty, seed=5)
        assert found.status is AutoencoderStatus.CONVERGED
        assert exact.status is AutoencoderStatus.CLOSED_FORM
        assert_allclose(found.value, exact.value, rtol=1e-11)
        assert_allclose(found.A @ found.B.T, exact.A @ exact.B.T, atol=1e-9)


def test_a_short_training_says_so():
    with pytest.warns(RuntimeWarning, match="raise sweeps"):
        found = train_autoencoder(X, ridge=0.2, search_rank=2, sweeps=1)
    assert found.status is AutoencoderStatus.NOT_CONVERGED
    assert found.change > 1e-3


@pytest.mark.parametrize("penalty", PENALTIES)
def test_no_other_factors_are_better(penalty):
    best = autoencoder_minimiser(X, ridge=0.7, search_rank=2, penalty=penalty)
    rng = np.random.default_rng(1)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(30):
            dA, dB = size * rng.standard_normal((2, 4, 2))
            value = autoencoder_objective(X, best.A + dA, best.B + dB, ridge=0.7, penalty=penalty)
            assert value >= best.value - 1e-12


def test_scaling_columns_is_seen_by_one_penalty_only():
    D = np.array([3.0, 0.2])
    free = autoencoder_minimiser(X, ridge=0.7, search_rank=2)
    moved = autoencoder_objective(X, free.A * D, free.B / D, ridge=0.7)
    assert_allclose(moved, free.value, rtol=1e-12)
    bound = autoencoder_minimiser(X, ridge=0.7, search_rank=2, penalty="factors")
    moved = autoencoder_objective(X, bound.A * D, bound.B / D, ridge=0.7, penalty="factors")
    assert moved > bound.value + 0.1
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    turned = autoencoder_objective(X, bound.A @ turn, bound.B @ turn, ridge=0.7, penalty="factors")
    assert_allclose(turned, bound.value, rtol=1e-12)


def test_few_rows_and_large_ridges():
    wide = X[:2]
    for penalty in PENALTIES:
        exact = autoencoder_minimiser(wide, ridge=0.4, search_rank=4, penalty=penalty)
        found = train_autoencoder(wide, ridge=0.4, search_rank=4, penalty=penalty)
        assert found.status is AutoencoderStatus.CONVERGED
        assert_allclose(found.A @ found.B.T, exact.A @ exact.B.T, atol=1e-9)
    top = np.linalg.norm(X, 2)
    none = autoencoder_minimiser(X, ridge=1.01 * top, search_rank=3, penalty="factors")
    assert not none.B.any()
    assert_allclose(none.value, np.sum(X**2))
    one = autoencoder_minimiser(X, ridge=0.99 * top, search_rank=3, penalty="factors")
    assert np.linalg.matrix_rank(one.B) == 1


@pytest.mark.parametrize("scale", [1e-80, 1e-5, 1e80])
def test_units(scale):
    for penalty, power in (("product", 2), ("factors", 1)):
        one = autoencoder_minimiser(X, ridge=0.7, search_rank=2, penalty=penalty)
        for solve in (autoencoder_minimiser, train_autoencoder):
            other = solve(scale * X, ridge=0.7 * scale**power, search_rank=2, penalty=penalty)
            assert_allclose(other.value / scale / scale, one.value)
            assert_allclose(other.A @ other.B.T, one.A @ one.B.T, atol=1e-9)
            if penalty == "factors":
                assert_allclose(other.B @ other.B.T / scale, one.B @ one.B.T, atol=1e-9)


entries = st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.5, 1.0, 4.0])


@settings(max_examples=60)
@given(st.lists(st.tuples(entries, entries), min_size=1, max_size=4))
def test_range_against_scalings(pairs):
    x, y = np.array(pairs).T
    if not (x.any() and y.any()):
        return
    low, high = cosine_range(x, y)
    # Each pair of columns on a fine logarithmic grid, and random scalings.
    grid = np.exp(np.linspace(-18, 18, 361))
    scales = [np.exp(np.random.default_rng(0).uniform(-9, 9, (400, len(x))))]
    for i in range(len(x)):
        for j in range(len(x)):
            d = np.full((len(grid), len(x)), 1e-14)
            d[:, i], d[:, j] = 1.0, grid
            scales.append(d)
    d = np.concatenate(scales)
    top = d @ (x * y)
    bottom = np.sqrt(d @ x**2) * np.sqrt(d @ y**2)
    cosines = top / bottom
    assert low - 1e-9 <= cosines.min() <= low + 0.01
    assert high - 0.01 <= cosines.max() <= high + 1e-9
    assert cosine_range(y, x) == pytest.approx((low, high))
    assert cosine_range(x, -y) == pytest.approx((-high, -low))
    assert cosine_range(x * 1e150, y * 1e-150) == pytest.approx((low, high))


def test_ranges_by_hand():
    assert cosine_range([1.0, 2.0], [2.0, 4.0]) == pytest.approx((1, 1))
    assert cosine_range([1.0, 0.0], [0.0, 4.0]) == (0, 0)
    assert cosine_range([1.0, 1.0], [0.0, 4.0]) == (0, 1)
    assert cosine_range([1.0, 1.0, 0.0], [-1.0, -4.0, 0.0]) == pytest.approx((-1, -0.8))
    with pytest.raises(ValueError, match="second: expected an entry other than 0"):
        cosine_range([1.0, 1.0], [0.0, 0.0])


def test_cosines_of_rows():
    B = np.random.default_rng(2).standard_normal((5, 3))
    C = cosine_similarities(B)
    assert_allclose(np.diag(C), 1)
    angle = B[1] @ B[3] / np.linalg.norm(B[1]) / np.linalg.norm(B[3])
    assert_allclose(C[1, 3], angle)
    assert_allclose(cosine_similarities(B * np.array([[1e200], [1], [1], [1e-200], [1]])), C)
    with pytest.raises(ValueError, match="rows: expected none"):
        cosine_similarities([[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_data_of_low_rank_and_ridges_that_hardly_count(penalty):
    rng = np.random.default_rng(4)
    low = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 6))
    project = np.linalg.pinv(low) @ low
    for ridge in (1e-8, 1e-16, 1e-30, 1e-100):
        exact = autoencoder_minimiser(low, ridge=ridge, search_rank=4, penalty=penalty)
        assert_allclose(exact.A @ exact.B.T, project, atol=1e-6)
        assert not exact.B[:, 2:].any()
        if penalty == "product":
            found = train_autoencoder(low, ridge=ridge, search_rank=4)
            assert not found.B[:, 2:].any()
            assert found.status is AutoencoderStatus.CONVERGED
            assert_allclose(found.A @ found.B.T, project, atol=1e-6)


def test_many_rows_need_no_square_of_their_number():
    tall = np.tile(X, (20_000, 1))
    found = autoencoder_minimiser(tall, ridge=1.0, search_rank=2)
    assert_allclose(found.value, autoencoder_objective(tall, found.A, found.B, ridge=1.0))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_data_of_zeros(penalty):
    for solve in (autoencoder_minimiser, train_autoencoder):
        found = solve(np.zeros((3, 2)), ridge=1.0, search_rank=2, penalty=penalty)
        assert (found.value, found.change) == (0, 0)
        assert found.A.shape == (2, 2)
        assert not found.A.any() | found.B.any()
    assert found.status is AutoencoderStatus.CONVERGED


def test_change_is_that_of_the_factors_with_their_penalty():
    one, two = (
        train_autoencoder(X, ridge=0.5, search_rank=2, penalty="factors", sweeps=n, tol=0.0)
        for n in (40, 41)
    )
    change = max(
        np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in ((two.A, one.A), (two.B, one.B))
    )
    assert_allclose(two.change, change, rtol=1e-6)


def test_small_singular_values_are_kept():
    steep = np.diag([1.0, 1e-3, 1e-6])
    found = train_autoencoder(steep, ridge=1e-14, search_rank=3)
    exact = autoencoder_minimiser(steep, ridge=1e-14, search_rank=3)
    assert_allclose(found.A @ found.B.T, exact.A @ exact.B.T, atol=1e-9)
    assert_allclose(np.diag(exact.A @ exact.B.T), [1, 1, 1 / 1.01], atol=1e-6)
