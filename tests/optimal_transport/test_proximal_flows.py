"""Proximal steps: general-purpose minimisers, closed forms, quantiles, contraction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.stats import norm

from theorylab.optimal_transport import (
    Potential,
    equilibrium,
    flat_potential,
    free_energy,
    free_energy_gradient,
    gaussian_jko_step,
    jko_step,
    quartic_potential,
)


def rms(x):
    return np.sqrt(np.mean(np.square(x)))


@pytest.mark.parametrize("potential", [quartic_potential(1.7, quartic=0.4), flat_potential(2.5)])
def test_potentials_and_gradient_against_differences(potential):
    x, h = np.array([-1.3, -0.2, 0.9, 2.0]), 1e-6
    assert_allclose(
        potential.slope(x), (potential.value(x + h) - potential.value(x - h)) / (2 * h), rtol=1e-7
    )
    assert_allclose(
        potential.curvature(x),
        (potential.slope(x + h) - potential.slope(x - h)) / (2 * h),
        rtol=1e-7,
    )
    differences = [
        (free_energy(x + h * e, potential) - free_energy(x - h * e, potential)) / (2 * h)
        for e in np.eye(4)
    ]
    assert_allclose(free_energy_gradient(x, potential), 4 * np.array(differences), rtol=1e-6)
    energy = np.mean(potential.value(x)) - np.log(4 * np.diff(x)).sum() / 4
    assert_allclose(free_energy(x[::-1], potential), energy, rtol=1e-14)


@pytest.mark.parametrize("tau", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("potential", [quartic_potential(1.0, quartic=0.2), flat_potential(1.0)])
def test_a_step_against_a_general_minimiser(potential, tau):
    x = np.sort(3 + 2 * np.random.default_rng(0).standard_normal(4))

    def objective(z):  # gaps in logarithm: no constraint
        y = z[0] + np.append(0, np.cumsum(np.exp(z[1:])))
        return free_energy(y, potential) + np.mean((y - x) ** 2) / (2 * tau)

    start = np.append(x[0], np.log(np.diff(x)))
    found = minimize(objective, start, method="BFGS", options={"gtol": 1e-9})
    step = jko_step(x[::-1], potential, step_size=tau)
    value = free_energy(step, potential) + np.mean((step - x) ** 2) / (2 * tau)
    assert_allclose(value, found.fun, rtol=1e-9)
    assert rms(free_energy_gradient(step, potential) + (step - x) / tau) < 1e-11


def test_equilibrium_is_stationary_and_near_the_quantiles():
    for potential in (quartic_potential(0.3, quartic=0.5), flat_potential(2.0)):
        Q = equilibrium(potential, 30)
        assert rms(free_energy_gradient(Q, potential)) < 1e-11
        assert_allclose(Q, -Q[::-1], atol=1e-10)
        assert_allclose(jko_step(Q, potential, step_size=0.7), Q, atol=1e-11)
        assert_allclose(jko_step(Q + 1, potential, step_size=1e12), Q, atol=1e-8)
    Q = equilibrium(quartic_potential(4.0), 2000)
    levels = (np.arange(2000) + 0.5) / 2000
    assert rms(Q - norm.ppf(levels) / 2) < 0.01


@pytest.mark.parametrize(("m", "s", "mu", "tau"), [(3, 0.5, 1, 0.3), (-2, 4, 0.2, 5), (1, 0, 2, 1)])
def test_gaussian_step_against_a_general_minimiser_and_particles(m, s, mu, tau):
    def objective(z):
        a, b = z[0], np.exp(z[1])
        free = mu * (a**2 + b**2) / 2 - z[1]
        return free + ((a - m) ** 2 + (b - s) ** 2) / (2 * tau)

    found = minimize(objective, [m, 0.0], options={"gtol": 1e-9}).x
    mean, deviation = gaussian_jko_step(m, s, curvature=mu, step_size=tau)
    assert_allclose([mean, deviation], [found[0], np.exp(found[1])], rtol=1e-6)
    if s:
        x = m + s * norm.ppf((np.arange(1000) + 0.5) / 1000)
        step = jko_step(x, quartic_potential(mu), step_size=tau)
        assert_allclose([step.mean(), step.std()], [mean, deviation], rtol=0.01)


@given(
    st.integers(0, 10**6),
    st.integers(2, 12),
    st.floats(0.1, 5),
    st.floats(0.02, 5),
    st.floats(0, 2),
)
def test_contraction(seed, n, mu, tau, quartic):
    rng = np.random.default_rng(seed)
    x, y = (np.sort(rng.uniform(-4, 6, n)) + 1e-3 * np.arange(n) for _ in range(2))
    potential = quartic_potential(mu, quartic=quartic)
    moved, other = (jko_step(z, potential, step_size=tau) for z in (x, y))
    assert rms(moved - other) <= rms(x - y) / (1 + tau * mu) + 1e-10
    assert free_energy(moved, potential) <= free_energy(x, potential) + 1e-12
    shifted = jko_step(x + 2, quartic_potential(mu), step_size=tau)
    plain = jko_step(x, quartic_potential(mu), step_size=tau)
    assert_allclose(shifted - plain, 2 / (1 + tau * mu), rtol=1e-8)


def test_the_value_bound_is_met_and_less_is_false():
    tau, rounds, distance = 0.5, 8, 2000.0
    potential = flat_potential(distance / (2 * rounds * tau))
    Q = equilibrium(potential, 5)
    x, least = Q + distance, free_energy(Q, potential)
    for k in range(1, rounds + 1):
        x = jko_step(x, potential, step_size=tau)
        assert free_energy(x, potential) - least <= distance**2 / (4 * k * tau)
    excess = free_energy(x, potential) - least
    assert 0.99 < excess / (distance**2 / (4 * rounds * tau)) <= 1


def test_what_is_refused():
    with pytest.raises(ValueError, match="x: expected two or more distinct particles"):
        jko_step([0.0, 0.0, 1.0], quartic_potential(1.0), step_size=1.0)
    with pytest.raises(ValueError, match="x: expected two"):
        free_energy([0.0], quartic_potential(1.0))
    hill = Potential(lambda x: -50 * x**2, lambda x: -100 * x, lambda x: -100 + 0 * x)
    with pytest.raises(ValueError, match="potential: expected a convex"):
        jko_step([0.0, 1.0], hill, step_size=1.0)
    scalar = Potential(lambda x: x**2, lambda x: 2 * x, lambda x: 2.0)
    with pytest.raises(ValueError, match="potential: expected shape"):
        equilibrium(scalar, 3)
    nothing = Potential(lambda x: 0 * x, lambda x: 0 * x, lambda x: 0 * x)
    with pytest.raises(ValueError, match="potential"):
        equilibrium(nothing, 3)
