"""Normalised weights: gradients by complex steps, updates by hand, laws that are just false."""

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from numpy.testing import assert_allclose

from theorylab import implicit_regularization as ir
from theorylab.verify import compare, within


def instance(seed=0, m=3, d=4, n=7):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s) for s in ((m, d), (n, d), (n,), (m,))]


def direct_loss(W, x, y, head):
    z = x @ W.T
    c = z - z.mean(axis=0)
    h = c / np.sqrt(np.mean(c * c, axis=0))
    return np.mean((np.tanh(h) @ head - y) ** 2) / 2


def test_gradient_against_complex_steps():
    W, x, y, head = instance()
    value, gradient = ir.batch_norm_loss(W, x, y, head=head)
    assert_allclose(value, direct_loss(W, x, y, head), rtol=1e-13)
    for at in np.ndindex(W.shape):
        nudged = W.astype(complex)
        nudged[at] += 1e-30j
        assert_allclose(
            gradient[at], direct_loss(nudged, x, y, head).imag / 1e-30, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("c", [2.0**-300, 2.0**-7, 2.0**40, 2.0**300])
def test_each_neuron_has_its_own_scale(c):
    W, x, y, head = instance(1)
    value, gradient = ir.batch_norm_loss(W, x, y, head=head)
    scale = np.array([c, 1.0, 1 / c])[:, None]
    moved, slopes = ir.batch_norm_loss(scale * W, x, y, head=head)
    assert moved == value
    assert (slopes == gradient / scale).all()
    assert_allclose(np.sum(W * gradient, axis=1), 0, atol=1e-15)
    assert ir.batch_norm_loss(W, c * x, y, head=head)[0] == value
    assert_allclose(ir.batch_norm_loss(W, c * x, y, head=head)[1], gradient, rtol=1e-12)


def test_a_loss_that_is_not_invariant_is_noticed():
    W, x, y, head = instance(2)
    one, two = (np.mean((np.tanh(x @ (c * W).T) @ head - y) ** 2) / 2 for c in (1, 3))
    assert compare(within(two, 1e-9, "rounding"), "==", one).decisively_false


def test_constant_neurons_are_refused():
    with pytest.raises(ValueError, match="neurons: expected"):
        ir.batch_norm_loss([[1.0, 0.0]], [[2.0, 1.0], [2.0, 3.0]], [0.0, 0.0], head=[1.0])


def test_sgd_against_fractions():
    eta, lam = Fraction(1, 8), Fraction(1, 4)
    w = [Fraction(2), Fraction(-1)]
    run = ir.normalised_descent(
        lambda w, t: t * w[::-1], [2.0, -1.0], step_size=0.125, decay=0.25, steps=4
    )
    for t in range(1, 5):
        w = [(1 - eta * lam) * a - eta * t * b for a, b in zip(w, w[::-1], strict=True)]
        assert_allclose(run.weights[t], [float(a) for a in w], rtol=1e-14)
    assert_allclose(run.norms, np.linalg.norm(run.weights, axis=1))
    a, b = run.weights[2:4]
    assert_allclose(run.cosines[2], a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("method", ["adam", "adamw"])
def test_adam_by_hand(method):
    eta, lam, b1, b2, eps = 0.1, 0.3, 0.8, 0.9, 0.05
    gradients = np.random.default_rng(3).standard_normal((5, 2))
    run = ir.normalised_descent(
        lambda w, t: gradients[t - 1],
        [1.0, -2.0],
        step_size=eta,
        decay=lam,
        steps=5,
        method=method,
        beta1=b1,
        beta2=b2,
        eps=eps,
    )
    w, used = np.array([1.0, -2.0]), []
    for t in range(1, 6):
        used.append(gradients[t - 1] + (lam * w if method == "adam" else 0))
        m = sum((1 - b1) * b1 ** (t - s) * g for s, g in enumerate(used, 1)) / (1 - b1**t)
        v = sum((1 - b2) * b2 ** (t - s) * g**2 for s, g in enumerate(used, 1)) / (1 - b2**t)
        w = w - eta * m / (np.sqrt(v) + eps) - (eta * lam * w if method == "adamw" else 0)
        assert_allclose(run.weights[t], w, rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "powers"), [("sgd", (2, -2)), ("adam", (1, -2)), ("adamw", (1, -1))]
)
@pytest.mark.parametrize("a", [0.3, 7.0])
def test_laws_for_factors_that_are_no_powers_of_two(method, powers, a):
    W, x, y, head = instance(4)

    def run(a, p):
        return ir.normalised_descent(
            lambda w, t: ir.batch_norm_loss(w, x, y, head=head)[1],
            a * W,
            step_size=0.01 * a ** p[0],
            decay=0.2 * a ** p[1],
            steps=30,
            method=method,
        )

    base, moved, wrong = run(1.0, powers), run(a, powers), run(a, (powers[0] + 1, powers[1]))
    assert_allclose(moved.weights / a, base.weights, rtol=1e-6, atol=1e-8)
    assert_allclose(moved.norms, a * base.norms, rtol=1e-7)
    assert np.abs(wrong.weights / a - base.weights).max() > 1e-3


def test_a_gradient_that_overwrites_its_argument():
    def careless(w, t):
        w *= 0
        return w

    run = ir.normalised_descent(careless, [1.0, 2.0], step_size=0.5, decay=0.2, steps=2)
    assert_allclose(run.weights, [[1.0, 2.0], [0.9, 1.8], [0.81, 1.62]])


def test_a_run_has_a_budget():
    for size, steps in ((1, 10**6 + 1), (1000, 20001)):
        with pytest.raises(ValueError, match="steps: expected"):
            ir.normalised_descent(
                lambda w, t: 0 * w, np.ones(size), step_size=0.1, decay=0.1, steps=steps
            )


def test_vanishing_gradients_do_not_move_adam():
    run = ir.normalised_descent(
        lambda w, t: 0 * w, [1.0, 2.0], step_size=0.5, decay=0.0, steps=3, method="adamw"
    )
    assert (run.weights == [1.0, 2.0]).all()
    assert (run.cosines > 1 - 1e-15).all()
    with pytest.raises(ValueError, match="initial: expected weights that do not vanish"):
        ir.normalised_descent(lambda w, t: w, [1.0], step_size=1.0, decay=0.0, steps=1)
    with pytest.raises(ValueError, match="gradient: expected shape"):
        ir.normalised_descent(lambda w, t: w[:1], [1.0, 1.0], step_size=1.0, decay=0.0, steps=1)


def test_tangential_gradients():
    rng = np.random.default_rng(5)
    for s in (1e-200, 1.0, 1e200):
        w = s * rng.standard_normal((3, 2))
        g = [ir.tangential_gradient(w, size=2.0, rng=rng) for _ in range(200)]
        assert_allclose([np.linalg.norm(s * a) * np.linalg.norm(w / s) for a in g], 2, rtol=1e-12)
        assert np.max(np.abs([np.sum(s * a * (w / s)) for a in g])) < 1e-14
    # No direction is preferred: means of 1000 draws are small beside their length.
    draws = [ir.tangential_gradient([1.0, 1.0, 1.0], size=1.0, rng=rng) for _ in range(1000)]
    assert np.abs(np.mean(draws, axis=0)).max() < 0.1
    with pytest.raises(ValueError, match="point: expected at least two"):
        ir.tangential_gradient([1.0], size=1.0, rng=rng)


def test_equilibrium_is_the_fixed_point_and_attracts():
    p, b = sp.symbols("p b", positive=True)
    square = b / sp.sqrt(2 * p - p**2)
    assert sp.simplify((1 - p) ** 2 * square + b**2 / square - square) == 0
    for eta, lam, size in ((0.1, 0.2, 2.0), (3.0, 0.25, 0.7)):
        found = ir.scale_equilibrium(step_size=eta, decay=lam, gradient_size=size)
        assert_allclose(found.norm**2, eta * size / math.sqrt(2 * eta * lam - (eta * lam) ** 2))
        assert_allclose(found.effective_step, eta / found.norm**2)
        rng = np.random.default_rng(6)
        run = ir.normalised_descent(
            lambda w, t, size=size, rng=rng: ir.tangential_gradient(w, size=size, rng=rng),
            [5.0, 0.0, 1.0],
            step_size=eta,
            decay=lam,
            steps=800 if eta < 1 else 200,
        )
        assert_allclose(run.norms[-1], found.norm, rtol=1e-9)
        assert_allclose(run.cosines[-1], found.cosine, rtol=1e-9)
    with pytest.raises(ValueError, match="decay: expected a product"):
        ir.scale_equilibrium(step_size=2.0, decay=0.5, gradient_size=1.0)
    small = ir.scale_equilibrium(step_size=1e-6, decay=1e-6, gradient_size=2.0)
    assert_allclose(small.norm, (1e-6 * 4 / 2e-6) ** 0.25, rtol=1e-6)


def test_equilibrium_in_any_units():
    one = ir.scale_equilibrium(step_size=0.2, decay=0.3, gradient_size=1.5)
    for s in (1e-100, 1e100):
        two = ir.scale_equilibrium(step_size=0.2 * s, decay=0.3 / s, gradient_size=1.5 * s)
        assert_allclose(two.norm / s, one.norm)
        assert_allclose(two.effective_step * s, one.effective_step)
