"""Particles on the line: definitions in rationals, SciPy, quadrature, finite differences."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import energy_distance as scipy_energy

from theorylab.optimal_transport import (
    cramer_distance,
    energy_distance,
    line_plan,
    particle_descent,
    step_network,
    step_network_loss,
    uniform_energy,
    uniform_gradient,
)

seeds = st.integers(0, 10**6)


def defined(x):
    """The expectations of the definition in rationals."""
    n, half = len(x), Fraction(1, 2)
    away = sum(w * w - w + half if 0 <= w <= 1 else abs(w - half) for w in x)
    return away / n - sum(abs(v - w) for v in x for w in x) / (2 * n * n) - Fraction(1, 6)


@given(seeds, st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_cramer_distance_against_scipy_and_pairs(seed, n, m, ties):
    rng = np.random.default_rng(seed)
    x, y = 10 * rng.standard_normal(n), 10 * rng.standard_normal(m)
    if ties:
        x, y = np.round(x / 10), np.round(y / 10)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    theirs = scipy_energy(x, y, a, b) ** 2 / 2
    assert_allclose(cramer_distance(x, y, a, b), theirs, rtol=1e-9, atol=1e-12)
    pairs = energy_distance(x[:, None], y[:, None])
    assert_allclose(cramer_distance(x, y), pairs, rtol=1e-9, atol=1e-12)
    assert_allclose(cramer_distance(3 * x - 7, 3 * y - 7), 3 * pairs, rtol=1e-9, atol=1e-11)


def test_energy_distance_in_the_plane():
    X, Y = [[0.0, 0.0], [3.0, 4.0]], [[0.0, 1.0]]
    value = (1 + np.hypot(3, 3)) / 2 - 5 / 4
    assert_allclose(energy_distance(X, Y), value)
    assert_allclose(energy_distance(Y, X), value)
    assert energy_distance(X, X) == 0


@given(st.lists(st.integers(-30, 40), min_size=1, max_size=7))
def test_uniform_energy_is_its_definition(ticks):
    exact = defined([Fraction(t, 10) for t in ticks])
    assert_allclose(uniform_energy(np.array(ticks) / 10), float(exact), rtol=1e-11, atol=1e-16)


def test_uniform_energy_by_quadrature_and_as_a_transport_distance():
    x = np.array([-0.5, 0.2, 0.9, 1.7])
    ends = [-1.0, -0.5, 0.0, 0.2, 0.9, 1.0, 1.7, 2.0]
    pieces = (
        quad(lambda t: (np.mean(x <= t) - np.clip(t, 0, 1)) ** 2, lo, hi)[0]
        for lo, hi in pairwise(ends)
    )
    assert_allclose(uniform_energy(x), sum(pieces), rtol=1e-10)
    inside = np.random.default_rng(0).random(6)
    grid = (np.arange(6000) + 0.5) / 6000
    transport = line_plan(inside, grid).value + 1 / (12 * 6000**2)
    assert_allclose(uniform_energy(inside), transport, rtol=1e-9)
    # Beyond [0, 1] the two differ.
    assert uniform_energy(inside + 2) < 0.6 * line_plan(inside + 2, grid).value


def test_the_least_energy_of_n_particles():
    rng = np.random.default_rng(1)
    for n in (1, 2, 5):
        best = (np.arange(n) + 0.5) / n
        assert_allclose(uniform_energy(best), 1 / (12 * n**2), rtol=1e-13)
        found = min(
            minimize(
                uniform_energy, 3 * rng.standard_normal(n), method="Nelder-Mead", tol=1e-10
            ).fun
            for _ in range(4)
        )
        assert_allclose(found, 1 / (12 * n**2), rtol=1e-5)
        assert found >= 1 / (12 * n**2) * (1 - 1e-12)


@given(seeds, st.integers(1, 9))
def test_gradient_against_differences(seed, n):
    x = np.random.default_rng(seed).uniform(-0.7, 1.7, n)
    h = 1e-7
    near = np.abs(np.subtract.outer(x, np.append(x, [0, 1])))[~np.eye(n, n + 2, dtype=bool)]
    if near.min() < 10 * h:
        return
    differences = [
        (uniform_energy(x + h * e) - uniform_energy(x - h * e)) / (2 * h) for e in np.eye(n)
    ]
    assert_allclose(uniform_gradient(x), n * np.array(differences), atol=1e-6)


def test_coincident_particles_share_a_subgradient():
    g = uniform_gradient([0.5, 0.9, 0.5, 0.5])
    assert g[0] == g[2] == g[3]
    assert_allclose(g, 2 * (np.array([0.5, 0.9, 0.5, 0.5]) - [1.5 / 4, 3.5 / 4, 1.5 / 4, 1.5 / 4]))
    run = particle_descent(np.full(8, 0.3), step_size=0.1, steps=400)
    assert np.ptp(run.positions[-1]) == 0
    assert_allclose(run.energies[-1], 1 / 12, rtol=1e-12)


@given(seeds, st.integers(1, 12), st.floats(0.01, 0.5))
def test_descent_keeps_the_order_and_its_bounds(seed, n, eta):
    rng = np.random.default_rng(seed)
    start = rng.uniform(-4, 5, n)
    run = particle_descent(start, step_size=eta, steps=40)
    assert run.positions.shape == (41, n)
    assert (np.diff(run.positions[:, np.argsort(start)], axis=1) > -1e-12).all()
    best, k = (np.arange(n) + 0.5) / n, np.arange(41)
    squared = np.mean((np.sort(start) - best) ** 2)
    excess = run.energies - 1 / (12 * n**2)
    assert (excess <= squared / (4 * eta * k + 1) * (1 + 1e-9)).all()
    assert (np.diff(run.energies) <= 1e-12).all()


def test_the_bound_is_attained_and_a_smaller_one_is_false():
    run = particle_descent([41.0], step_size=0.1, steps=200)
    excess = run.energies[-1] - 1 / 12
    assert_allclose(excess, 40.5**2 / (4 * 0.1 * 200 + 1), rtol=1e-12)
    assert excess > 40.5**2 / (4.1 * 0.1 * 200 + 1)


def test_the_linear_phase_and_what_breaks_it():
    rng = np.random.default_rng(3)
    start, n = rng.random(7), 7
    best = (np.arange(n) + 0.5) / n
    for eta in (0.05, 0.5):
        run = particle_descent(start, step_size=eta, steps=30)
        squared = np.mean((np.sort(start) - best) ** 2)
        decay = 1 / (12 * n**2) + (1 - 2 * eta) ** (2 * np.arange(31)) * squared
        assert_allclose(run.energies, decay, rtol=1e-12)
    flipped = particle_descent([0.0, 1.0], step_size=1.5, steps=1).positions[-1]
    assert flipped[0] > flipped[1]
    assert_allclose(particle_descent(start, step_size=0.3, steps=0).positions, start[None])


@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_loss_of_step_networks_is_the_distance_of_their_angles(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y = np.pi * rng.random(n), np.pi * rng.random(m)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    loss = step_network_loss(x, y, a, b)
    assert_allclose(loss, cramer_distance(x, y, a, b) / np.pi, rtol=1e-9, atol=1e-13)
    turned = step_network_loss(x + 2.7, y + 2.7, a, b)
    assert_allclose(turned, loss, rtol=1e-9, atol=1e-13)
    assert_allclose(step_network_loss(y, x, b, a), loss, rtol=1e-9, atol=1e-13)


def test_step_networks_on_a_grid_and_on_the_whole_circle():
    rng = np.random.default_rng(5)
    x, y = 2 * np.pi * rng.random(5), 2 * np.pi * rng.random(4)
    inputs = 2 * np.pi * (np.arange(20_000) + 0.5) / 20_000
    values = np.mean((step_network(x, inputs) - step_network(y, inputs)) ** 2)
    assert_allclose(step_network_loss(x, y), values, rtol=2e-3)
    # Kernel 1/2 - (arc between them) / 2 pi: on the whole circle arcs are geodesic.
    assert_allclose(step_network_loss([0.1], [0.1 + np.pi]), 1.0)
    assert_allclose(step_network_loss([0.1], [0.1 + 1.5 * np.pi]), 0.5)
    assert_allclose(cramer_distance([0.1], [0.1 + 1.5 * np.pi]) / np.pi, 1.5)
    assert step_network([0.0], [0.0, np.pi, 1.5, 1.6]).tolist() == [1, 0, 1, 0]


def test_weights_and_shapes_are_refused():
    with pytest.raises(ValueError, match="a: expected"):
        cramer_distance([0.0, 1.0], [1.0], [0.5, 0.6])
    with pytest.raises(ValueError, match="target_weights"):
        step_network_loss([0.0], [1.0, 2.0], target_weights=[1.0])
    with pytest.raises(ValueError, match="step_size"):
        particle_descent([0.0], step_size=-0.1, steps=1)
    assert "3 particles, 2 steps" in repr(particle_descent([0.0, 0.1, 2], step_size=0.1, steps=2))
