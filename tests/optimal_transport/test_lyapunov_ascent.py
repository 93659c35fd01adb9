"""Ascent step by step: the potential's own derivatives, plain scaling, Newton on it by SciPy, local
factors of finite differences of the maps."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from theorylab.optimal_transport import (
    ascent_factors,
    lyapunov,
    newton_ascent,
    newton_plan,
    scaling_ascent,
)


def instance(n, m, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.full(n, 4.0)), rng.dirichlet(np.full(m, 4.0))
    return rng.normal(size=n) / 5, rng.normal(size=m) / 5, a, b, rng.uniform(size=(n, m))


@pytest.mark.parametrize(("n", "m", "eps"), [(4, 6, 0.2), (6, 3, 0.05), (1, 3, 0.5)])
def test_scaling_is_the_plain_iteration(n, m, eps):
    x, y, a, b, C = instance(n, m, 0)
    record = scaling_ascent(x, y, a, b, C, eps, steps=7)
    K, v = np.exp(-C / eps), np.exp(y / eps)
    errors = []
    for _ in range(7):
        u = a / (K @ v)
        v = b / (u @ K)
        plan = u[:, None] * K * v
        errors.append(abs(plan.sum(1) - a).sum() + abs(plan.sum(0) - b).sum())
    assert_allclose(record.plan, plan, rtol=1e-10)
    assert_allclose(record.errors[1:], errors, rtol=1e-6, atol=1e-14)
    point = lyapunov(x, y, a, b, C, eps)
    assert_allclose(record.errors[0], abs(point.gradient).sum(), rtol=1e-12)
    ends = np.exp((record.x[:, None] + record.y - C) / eps - 1)
    assert_allclose(ends, record.plan, rtol=1e-12)
    assert record.decrements.size == record.sizes.size == 0
    one = scaling_ascent(x, y, a, b, C, eps, steps=1)
    assert_allclose(lyapunov(one.x, y, a, b, C, eps).gradient[:n], 0, atol=1e-13)


def test_scaling_never_lowers_the_potential():
    x, y, a, b, C = instance(5, 7, 1)
    values = [
        lyapunov(r.x, r.y, a, b, C, 0.05).value
        for r in (scaling_ascent(x, y, a, b, C, 0.05, steps=k) for k in range(8))
    ]
    assert (np.diff(values) >= -1e-15).all()
    assert values[-1] - values[0] > 0.01


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_a_full_step_is_the_pseudo_inverse_step(n, m, seed):
    x, y, a, b, C = instance(n, m, seed)
    eps = 1.0
    point = lyapunov(x, y, a, b, C, eps)
    step = -np.linalg.pinv(point.hessian, rcond=1e-10) @ point.gradient
    record = newton_ascent(x, y, a, b, C, eps, steps=1)
    s = (step[:n, None] + step[n:]) / eps
    assert_allclose(record.decrements[0], point.gradient @ step / eps, rtol=1e-8, atol=1e-14)
    taken = (record.x - x)[:, None] + record.y - y
    share = record.sizes[0] / max(abs(s).max(), 1e-300)
    assert_allclose(taken, share * s * eps, rtol=1e-7, atol=1e-10)
    if share == pytest.approx(1):
        plan = np.exp((x[:, None] + y - C) / eps - 1)
        left = 2 * (plan * (np.expm1(s) - s)).sum()
        assert_allclose(record.errors[1], left, rtol=1e-6, atol=1e-12)
        # Of second order: the decrement and no first-order rest.
        assert_allclose(record.decrements[0], (plan * s**2).sum(), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("kept", [9, 19])
def test_a_cut_step_solves_the_cut_system(kept):
    x, y, a, b, C = instance(5, 4, 3)
    eps = 0.3
    P = np.exp((x[:, None] + y - C) / eps - 1)
    cut = np.where(np.sort(P.ravel())[-kept] <= P, P, 0)
    assert (cut > 0).sum() == kept
    H = np.block([[np.diag(P.sum(1)), cut], [cut.T, np.diag(P.sum(0))]])
    k = np.r_[np.ones(5), -np.ones(4)]
    H += np.outer(k, k) * 2 * P.sum() / 81
    g = lyapunov(x, y, a, b, C, eps).gradient
    d = eps * np.linalg.solve(H, g)
    record = newton_ascent(x, y, a, b, C, eps, steps=1, kept=kept)
    assert_allclose(record.decrements[0], g @ d / eps, rtol=1e-10)
    moved = np.r_[record.x - x, record.y - y]
    assert_allclose(moved, d * (moved @ d) / (d @ d), rtol=1e-8, atol=1e-12)
    other = newton_ascent(x, y, a, b, C, eps, steps=1)
    assert abs(other.decrements[0] / record.decrements[0] - 1) > 1e-6
    whole = newton_ascent(x, y, a, b, C, eps, steps=1, kept=20)
    assert_allclose(whole.x, other.x, rtol=1e-12)


def test_newton_converges_quadratically_to_the_entropic_plan():
    _, _, a, b, C = instance(12, 9, 4)
    eps = 0.02
    start = scaling_ascent(np.zeros(12), np.zeros(9), a, b, C, eps, steps=5)
    record = newton_ascent(start.x, start.y, a, b, C, eps, steps=25)
    assert_allclose(record.plan, newton_plan(a, b, C, eps, tol=1e-13).plan.toarray(), atol=1e-12)
    e = record.errors
    fast = [(p, q) for p, q in pairwise(e) if 1e-7 < p < 1e-2]
    assert fast
    assert all(q < 0.02 * p for p, q in fast)
    assert "Ascent 12x9, 25 steps" in repr(record)
    with pytest.raises(ValueError, match="read-only"):
        record.errors[0] = 1


def test_steps_are_shortened_far_away():
    _, _, a, b, C = instance(8, 8, 5)
    record = newton_ascent(np.full(8, 0.4), np.linspace(0, 1.5, 8), a, b, C, 0.05, steps=60)
    assert record.errors[0] > 1e6
    assert record.errors[-1] < 1e-12


def linear_map(step, optimum, n):
    """Matrix of a step's map at its fixed point, by central differences."""
    h, columns = 1e-5, []
    for i in np.eye(len(optimum)):
        plus, minus = (step(*np.split(optimum + k * h * i, [n])) for k in (1, -1))
        columns.append((np.r_[plus.x, plus.y] - np.r_[minus.x, minus.y]) / (2 * h))
    return np.array(columns).T


@pytest.mark.parametrize(("n", "m", "kept"), [(6, 6, 14), (7, 5, 12), (4, 6, 15)])
def test_factors_are_those_of_the_maps(n, m, kept):
    _, _, a, b, C = instance(n, m, 6)
    problem = a, b, C, 0.1
    best = newton_ascent(np.zeros(n), np.zeros(m), *problem, steps=40)
    factors = ascent_factors(best.plan, kept=kept)
    optimum = np.r_[best.x, best.y]
    # Without (1, -1), along which the maximum is not unique and the maps are the identity.
    scaling = linear_map(lambda x, y: scaling_ascent(x, y, *problem, steps=1), optimum, n)
    newton = linear_map(lambda x, y: newton_ascent(x, y, *problem, steps=1, kept=kept), optimum, n)
    for matrix, factor in ((scaling, factors.scaling), (newton, factors.newton)):
        moduli = np.sort(abs(np.linalg.eigvals(matrix)))
        assert_allclose(moduli[-1], 1, rtol=1e-5)
        assert_allclose(moduli[-2], factor, rtol=1e-4)
        assert 1e-3 < factor < 1
    assert ascent_factors(best.plan).newton < 1e-12
    assert_allclose(ascent_factors(best.plan.T * 1e200, kept=kept), factors, rtol=1e-8)


def test_units_and_order():
    x, y, a, b, C = instance(5, 6, 7)
    one = newton_ascent(x, y, a, b, C, 0.2, steps=4, kept=15)
    for unit in (2.0**-30, 2.0**30):
        other = newton_ascent(x * unit, y * unit, a, b, C * unit, 0.2 * unit, steps=4, kept=15)
        assert_allclose(other.errors, one.errors, rtol=1e-9, atol=1e-15)
    turned = newton_ascent(y[::-1], x, b[::-1], a, C.T[::-1], 0.2, steps=4, kept=15)
    assert_allclose(turned.errors, one.errors, rtol=1e-7, atol=1e-14)
    assert_allclose(turned.sizes, one.sizes, rtol=1e-7)


def test_bad_input():
    x, y, a, b, C = instance(3, 4, 8)
    with pytest.raises(ValueError, match="x: expected potentials whose plan float64 can hold"):
        newton_ascent(x + 1e4, y, a, b, C, 0.1, steps=1)
    with pytest.raises(ValueError, match="got an empty row or column"):
        scaling_ascent(x - 1e4, y, a, b, C, 0.1, steps=1)
    with pytest.raises(ValueError, match="a: expected positive"):
        scaling_ascent(x, y, [0.5, 0.5, 0.0], b, C, 0.1, steps=1)
    with pytest.raises(ValueError, match="kept: expected an integer >= 1 and <= 12"):
        newton_ascent(x, y, a, b, C, 0.1, steps=1, kept=13)
    with pytest.raises(ValueError, match="plan: expected positive"):
        ascent_factors([[0.5, 0.0], [0.0, 0.5]])
    with pytest.raises(ValueError, match="steps"):
        newton_ascent(x, y, a, b, C, 0.1, steps=-1)


def test_a_singular_hessian_is_reported():
    # Two points whose exchange has no weight in float64: nothing ties their potentials.
    C = np.array([[0.0, 2000.0], [2000.0, 0.0]])
    with pytest.warns(RuntimeWarning, match="stopped after 0 steps at error .*singular"):
        record = newton_ascent([0, 0], [0, 0], [0.5, 0.5], [0.5, 0.5], C, 1.0, steps=3)
    assert record.errors.size == 1
    assert np.isfinite(record.plan).all()
