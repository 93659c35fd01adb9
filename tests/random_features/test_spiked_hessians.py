"""Batch Hessians: simulations, exact finite-population variances, closed forms, limits."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.random_features import (
    batch_extremes,
    batch_noise,
    edge_correction,
    edge_location,
    learning_rate_slope,
    maximal_learning_rate,
    sample_batch_hessian,
)


def test_noise_is_that_of_sampling_without_replacement():
    # N numbers of variance 1: the variance of batch mean less full mean, by enumeration.
    N, b = 6, 2
    weights = []
    for batch in itertools.combinations(range(N), b):
        w = np.full(N, -1 / N)
        w[list(batch)] += 1 / b
        weights.append(w @ w)
    assert_allclose(
        batch_noise(3.0, n_parameters=5, batch=b, n_samples=N) ** 2, 9 * 5 * np.mean(weights)
    )
    assert_allclose(batch_noise(3.0, n_parameters=5, batch=b) ** 2, 9 * 5 / b)
    assert batch_noise(3.0, n_parameters=5, batch=N, n_samples=N) == 0


@pytest.mark.parametrize("n_samples", [None, 12, 5])
@pytest.mark.parametrize("noise", ["gaussian", "diagonal"])
def test_sampled_entries_have_the_stated_variances(n_samples, noise):
    rng, P = np.random.default_rng(0), 12
    size = {"sigma": 0.7, "n_parameters": P, "batch": 4, "n_samples": n_samples}
    H = np.array(
        [sample_batch_hessian([3.0, -2.0], **size, noise=noise, rng=rng) for _ in range(3000)]
    )
    full = np.diag([3.0, -2.0] + [0.0] * (P - 2))
    assert np.abs(H.mean(axis=0) - full).max() < 0.09
    assert (np.swapaxes(H, 1, 2) == H).all()
    s2 = batch_noise(0.7, n_parameters=P, batch=4, n_samples=n_samples) ** 2
    variance = H.var(axis=0)
    assert_allclose(variance.sum(), s2 * (P + 1), rtol=0.03)
    if noise == "gaussian":
        assert_allclose(np.diag(variance).mean(), 2 * s2 / P, rtol=0.05)
        assert_allclose(variance[np.triu_indices(P, 1)].mean(), s2 / P, rtol=0.03)
    else:
        assert not variance[np.triu_indices(P, 1)].any()


def test_edges_join_and_are_odd_and_homogeneous():
    lam = np.array([0.3, 0.999999, 1.000001, 2.0, 7.0])
    edges = edge_location(lam, 1.0)
    assert_allclose(edges, [2, 2, 2, 2.5, 7 + 1 / 7], rtol=1e-9)
    assert_allclose(edge_location(-lam, 1.0), -edges)
    assert_allclose(edge_location(1e-200 * lam, 1e-200), 1e-200 * edges)
    assert_allclose(
        edge_correction(-lam, 1.0, n_parameters=9), -edge_correction(lam, 1.0, n_parameters=9)
    )
    assert_allclose(maximal_learning_rate(lam, 1.0), 2 / edges)
    assert edge_location(3.0, 0.0) == 3.0
    assert edge_correction(3.0, 0.0, n_parameters=9) == 0.0
    assert edge_location(0.0, 1.0) == 2.0


def test_the_mean_of_tracy_and_widom_by_a_determinant():
    # Ferrari and Spohn: the distribution function at s is det(1 - Ai((x + y)/2)/2) on (s, oo).
    from scipy.special import airy

    nodes, weights = np.polynomial.legendre.leggauss(60)
    grid = np.linspace(-10, 8, 121)
    distribution = []
    for s in grid:
        x, w = s + 14 * (nodes + 1), np.sqrt(14 * weights)
        kernel = airy((x[:, None] + x) / 2)[0] / 2
        distribution.append(np.linalg.det(np.eye(60) - w[:, None] * kernel * w))
    mean = grid[-1] - np.trapezoid(distribution, grid)
    order = edge_correction(0.0, 1.0, n_parameters=1000)
    assert (1000 * order + 0.5) / 10 == pytest.approx(mean, abs=1e-6)


def tridiagonal_extremes(P, spike, draws, rng):
    """Largest eigenvalues of spiked Gaussian matrices by their tridiagonal form (Dumitriu and
    Edelman), equal in law."""
    from scipy.linalg import eigh_tridiagonal

    found = []
    for _ in range(draws):
        diagonal = rng.standard_normal(P) * np.sqrt(2 / P)
        diagonal[0] += spike
        off = np.sqrt(rng.chisquare(np.arange(P - 1, 0, -1)) / P)
        top = eigh_tridiagonal(diagonal, off, True, select="i", select_range=(P - 1, P - 1))
        found.append(top[0])
    return np.array(found)


@pytest.mark.parametrize(("spike", "P", "draws"), [(2.0, 8, 6000), (3.0, 10, 6000)])
def test_first_correction_of_an_outlier(spike, P, draws):
    top = tridiagonal_extremes(P, spike, draws, np.random.default_rng(1))
    gap = top.mean() - edge_location(spike, 1.0)
    noise = top.std() / np.sqrt(draws)
    term = edge_correction(spike, 1.0, n_parameters=P)
    assert abs(gap - term) < 4 * noise + 0.25 * abs(term)
    assert abs(term) > 4 * noise


def test_first_correction_vanishes_at_the_root_of_two():
    assert abs(edge_correction(np.sqrt(2), 1.0, n_parameters=30)) < 1e-15
    top = tridiagonal_extremes(60, np.sqrt(2), 4000, np.random.default_rng(3))
    gap = top.mean() - edge_location(np.sqrt(2), 1.0)
    assert abs(gap) < 4 * top.std() / np.sqrt(4000)


def test_corrections_of_the_bulk():
    top = tridiagonal_extremes(1000, 0.0, 800, np.random.default_rng(2))
    term = edge_correction(0.1, 1.0, n_parameters=1000)
    assert_allclose(top.mean() - 2, term, rtol=0.2)
    # With the order 1/P, which depends on all eigenvalues.
    P = 40
    for spike, others in ((0.6, None), (1e-12, [-3.0])):
        top = tridiagonal_extremes(
            P, others[0] if others else spike, 4000, np.random.default_rng(4)
        )
        gap = P * (top.mean() - 2 - edge_correction(spike, 1.0, n_parameters=P, others=others))
        assert abs(gap) < 4 * P * top.std() / np.sqrt(4000) + 0.1
    only = [edge_correction(s, 1.0, n_parameters=P) for s in (0.6, 1e-12)]
    assert P * (only[0] - only[1]) == pytest.approx(1.5)


def test_other_eigenvalues_shift_an_outlier_through_the_resolvent():
    P, lam, other = 12, 3.0, 2.0
    rng, found = np.random.default_rng(5), []
    for _ in range(6000):
        G = rng.standard_normal((P, P))
        W = (G + G.T) / np.sqrt(2 * P)
        both = W.copy()
        both[0, 0] += lam
        one = np.linalg.eigvalsh(both)[-1]
        both[1, 1] += -other
        found.append(np.linalg.eigvalsh(both)[-1] - one)  # paired: little noise
    term = edge_correction(lam, 1.0, n_parameters=P, others=[-other])
    term = term - edge_correction(lam, 1.0, n_parameters=P)
    assert term == pytest.approx(-(2 / 9) / (1 + 2 / 3) / P)
    noise = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - term) < 4 * noise + 0.3 * abs(term)
    assert_allclose(
        edge_correction(-lam, 2.0, n_parameters=P, others=[other, 0.3]),
        -edge_correction(lam, 2.0, n_parameters=P, others=[-other, -0.3]),
    )
    for equal_or_more in (2.0, 3.0):
        with pytest.raises(ValueError, match="others: expected less extreme"):
            edge_correction(2.0, 1.0, n_parameters=9, others=[equal_or_more])
    with pytest.raises(ValueError, match="eigenvalue"):
        maximal_learning_rate(-2.0, 1.0)
    with pytest.raises(ValueError, match="n_parameters"):
        sample_batch_hessian([1.0, 2.0], sigma=1.0, n_parameters=1, batch=1, rng=rng)
    with pytest.raises(ValueError, match="eigenvalue, noise: expected none at the transition"):
        edge_correction(1.0, 1.0, n_parameters=9)
    assert edge_correction(0.0, 0.0, n_parameters=9) == 0


@given(st.integers(2, 50), st.floats(1.0, 400.0), st.integers(0, 300))
def test_slope_is_the_derivative(b, kappa, more):
    n_samples = None if more == 0 else b + more + 1
    inverse = 0.0 if n_samples is None else 1 / n_samples

    def log_rate(log_b):
        s = np.sqrt(kappa * (np.exp(-log_b) - inverse))
        return float(np.log(maximal_learning_rate(1.0, s)))

    e = kappa * (1 / b - inverse)
    if abs(e - 1) > 1e-3:
        measured = (log_rate(np.log(b) + 1e-5) - log_rate(np.log(b) - 1e-5)) / 2e-5
        slope = learning_rate_slope(kappa, batch=b, n_samples=n_samples)
        assert measured == pytest.approx(slope, rel=1e-4)
        assert n_samples is not None or slope <= 0.5


def test_the_slope_needs_samples_beside_the_batch():
    with pytest.raises(ValueError, match="n_samples"):
        learning_rate_slope(2.0, batch=5, n_samples=5)
    with pytest.raises(ValueError, match="n_samples"):
        batch_noise(1.0, n_parameters=3, batch=5, n_samples=4)


def test_enumerated_batches_against_samples_and_convexity():
    rng = np.random.default_rng(3)
    G = rng.normal(size=(6, 4, 4))
    H = G + np.swapaxes(G, 1, 2)
    means = batch_extremes(H)
    pairs = [np.linalg.eigvalsh((H[i] + H[j]) / 2) for i in range(6) for j in range(i)]
    assert_allclose(means[:, 1], np.mean([(v[-1], v[0]) for v in pairs], axis=0))
    full = np.linalg.eigvalsh(H.mean(axis=0))
    assert_allclose(means[:, -1], [full[-1], full[0]])
    assert (np.diff(means[0]) < 0).all()
    assert (np.diff(means[1]) > 0).all()
    same = batch_extremes(np.stack([H[0]] * 4))
    assert_allclose(same, same[:, :1] * np.ones(4))
    with pytest.raises(ValueError, match="hessians: expected at most 16"):
        batch_extremes(np.stack([np.eye(1)] * 17))
