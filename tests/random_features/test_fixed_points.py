import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from theorylab.random_features import effective_ridge, learning_curve

POWER_LAW = np.arange(1, 61) ** -1.5


def two_equations(eigenvalues, n, k, ridge, gamma, kappa):
    """Solve the published pair for (log gamma, log kappa) with 40 digits, from a nearby start."""
    with mp.workdps(40):
        lam = [mp.mpf(float(x)) for x in eigenvalues]
        delta = mp.mpf(ridge)

        def residuals(s, t):
            g, q = mp.exp(s), mp.exp(t)
            z = mp.fsum(x / (x + g) for x in lam)
            return [z + delta / q - n, z + k * q / g - k]

        s, t = mp.findroot(residuals, (mp.log(gamma), mp.log(kappa)))
        g, q = mp.exp(s), mp.exp(t)
        return g, q, delta / q, k * q / g, mp.fsum(x * g / (x + g) ** 2 for x in lam)


@pytest.mark.parametrize("ridge", [1e-12, 1e-4, 0.3, 100.0])
@pytest.mark.parametrize(("n", "k"), [(20, 30), (30, 20), (25, 25), (5, 400), (400, 5)])
def test_agrees_with_forty_digits(n, k, ridge):
    root = effective_ridge(POWER_LAW, n_samples=n, n_features=k, ridge=ridge)
    exact = two_equations(POWER_LAW, n, k, ridge, float(root.gamma), float(root.kappa))
    ours = (root.gamma, root.kappa, root.free_samples, root.free_features, root.spread)
    # A few units of rounding.
    for mine, theirs in zip(ours, exact, strict=True):
        assert float(mine) == pytest.approx(float(theirs), rel=1e-14, abs=0)
    assert root.residual < 1e-14
    assert float(root.learned - root.degrees_of_freedom) == pytest.approx(
        float(root.spread), rel=1e-12
    )


@pytest.mark.parametrize("ridge", [1e-9, 0.1, 7.0])
def test_isotropic_kernel_has_a_quadratic(ridge):
    n, modes = 12, 30
    root = effective_ridge(np.ones(modes), n_samples=n, ridge=ridge)
    # n = modes / (1 + g) + ridge / g, that is n g^2 + (n - modes - ridge) g - ridge = 0.
    half = (n - modes - ridge) / 2
    assert float(root.gamma) == pytest.approx(
        (-half + math.sqrt(half**2 + n * ridge)) / n, rel=1e-13
    )
    assert root.kappa == root.gamma
    assert np.isinf(root.free_features)


@pytest.mark.parametrize("k", [None, 15, 40])
def test_without_ridge_all_of_the_smaller_size_is_learned(k):
    n = 25
    root = effective_ridge(POWER_LAW, n_samples=n, n_features=k, ridge=0.0)
    assert float(root.learned) == pytest.approx(min(n, k or n), rel=1e-13)
    assert float((POWER_LAW / (POWER_LAW + root.gamma)).sum()) == pytest.approx(
        min(n, k or n), rel=1e-13
    )
    assert min(float(root.free_samples), float(root.free_features)) == 0.0
    limit = effective_ridge(POWER_LAW, n_samples=n, n_features=k, ridge=1e-13)
    assert float(root.gamma) == pytest.approx(float(limit.gamma), rel=1e-5)


@pytest.mark.parametrize(("n", "k"), [(60, None), (100, None), (100, 60), (60, 60), (70, 90)])
def test_without_ridge_and_with_few_modes_nothing_holds_gamma_up(n, k):
    padded = np.concatenate([POWER_LAW, np.zeros(5)])
    root = effective_ridge(padded, n_samples=n, n_features=k, ridge=0.0)
    assert (root.gamma, root.kappa, root.learned, root.spread) == (0.0, 0.0, 60.0, 0.0)
    assert root.free_samples == n - 60
    assert root.free_features == (math.inf if k is None else k - 60)


def test_kernel_regression_is_the_limit_of_many_features():
    kernel = effective_ridge(POWER_LAW, n_samples=20, ridge=0.1)
    features = effective_ridge(POWER_LAW, n_samples=20, n_features=10**9, ridge=0.1)
    assert float(features.gamma) == pytest.approx(float(kernel.gamma), rel=1e-7)
    assert float(features.kappa) == pytest.approx(float(kernel.kappa), rel=1e-7)


def test_swapping_samples_and_features_rescales_the_ridge():
    one = effective_ridge(POWER_LAW, n_samples=17, n_features=40, ridge=0.4)
    other = effective_ridge(POWER_LAW, n_samples=40, n_features=17, ridge=0.4 * 40 / 17)
    # gamma depends on (n - z)(k - z) and ridge * k only.
    assert float(one.gamma) == pytest.approx(float(other.gamma), rel=1e-13)


def test_scaling_and_repetition():
    base = effective_ridge(POWER_LAW, n_samples=10, n_features=20, ridge=0.2)
    scaled = effective_ridge(7 * POWER_LAW, n_samples=10, n_features=20, ridge=7 * 0.2)
    assert float(scaled.gamma) == pytest.approx(7 * float(base.gamma), rel=1e-13)
    repeated = effective_ridge(np.repeat(POWER_LAW, 3), n_samples=30, n_features=60, ridge=0.6)
    assert float(repeated.gamma) == pytest.approx(float(base.gamma), rel=1e-13)
    assert float(repeated.kappa) == pytest.approx(float(base.kappa), rel=1e-13)


def test_every_size_is_solved_as_if_alone():
    rng = np.random.default_rng(0)
    n = rng.integers(1, 200, 40)
    k = rng.integers(1, 200, 40)
    ridge = 10.0 ** rng.uniform(-10, 2, 40) * rng.integers(0, 2, 40)
    curve = effective_ridge(POWER_LAW, n_samples=n, n_features=k, ridge=ridge)
    for j in range(40):
        one = effective_ridge(
            POWER_LAW, n_samples=int(n[j]), n_features=int(k[j]), ridge=float(ridge[j])
        )
        assert float(one.gamma) == pytest.approx(curve.gamma[j], rel=1e-11)
    assert curve.residual.max() < 1e-12


def test_spectra_with_gaps():
    # Two clusters thirteen decades apart: the logarithmic slope of z is flat in between.
    gap = np.concatenate([np.ones(10), np.full(50, 1e-13)])
    for n, ridge in [(5, 0.0), (10, 1e-7), (11, 0.0), (30, 0.0), (10, 1e-20)]:
        root = effective_ridge(gap, n_samples=n, ridge=ridge)
        z = math.fsum(gap / (gap + float(root.gamma)))
        assert z + (ridge / float(root.gamma)) == pytest.approx(n, rel=1e-13)


def positive_root(a, b, c):
    """Positive root of a x^2 - b x - c with c > 0, without cancellation."""
    root = math.sqrt(b * b + 4 * a * c)
    return (b + root) / (2 * a) if b > 0 else 2 * c / (root - b)


@pytest.mark.parametrize("ridge", [1e-3, 1e-20, 1e-90])
@pytest.mark.parametrize("n", [4, 10])
def test_as_many_samples_as_modes_keep_full_accuracy_at_any_ridge(n, ridge):
    # n g / (1 + g) = ridge / g: all modes are learned up to sqrt(ridge / n), far below the rounding
    # of z = n.
    root = effective_ridge(np.ones(n), n_samples=n, ridge=ridge)
    gamma = positive_root(n, ridge, ridge)
    assert float(root.gamma) == pytest.approx(gamma, rel=4e-15, abs=0)
    assert float(root.free_samples) == pytest.approx(n * gamma / (1 + gamma), rel=4e-15, abs=0)
    assert float(root.spread) == pytest.approx(n * gamma / (1 + gamma) ** 2, rel=4e-15, abs=0)


@pytest.mark.parametrize("small", [1e-6, 1e-13, 1e-100])
@pytest.mark.parametrize("ridge", [0.0, 1e-30])
def test_a_gap_at_the_number_of_samples_keeps_full_accuracy(small, ridge):
    # Ten ones and fifty small modes: 10 g / (1 + g) = 50 e / (e + g) + ridge / g.
    root = effective_ridge(
        np.concatenate([np.ones(10), np.full(50, small)]), n_samples=10, ridge=ridge
    )
    with mp.workdps(250):
        e, delta = mp.mpf(small), mp.mpf(ridge)
        # The cubic 10 g^2 (e + g) - (50 e g + ridge (e + g)) (1 + g) has one positive root.
        roots = mp.polyroots(
            [10, 10 * e - 50 * e - delta, -50 * e - delta * (1 + e), -delta * e],
            maxsteps=500,
            extraprec=2000,
        )
        exact = max(mp.re(r) for r in roots)
    assert float(root.gamma) == pytest.approx(float(exact), rel=4e-15, abs=0)


@pytest.mark.parametrize("k", [None, 1, 7, 10**9])
def test_a_huge_ridge_is_shared_by_the_samples(k):
    root = effective_ridge(POWER_LAW, n_samples=5, n_features=k, ridge=1e300)
    assert float(root.kappa) == pytest.approx(1e300 / 5, rel=1e-14)
    assert float(root.gamma) == pytest.approx(1e300 / 5, rel=1e-14)


def test_a_kernel_without_modes_is_all_ridge():
    root = effective_ridge(np.zeros(3), n_samples=4, ridge=0.5)
    assert float(root.gamma) == pytest.approx(0.5 / 4, rel=1e-13)
    assert root.learned == 0.0
    assert effective_ridge(np.zeros(3), n_samples=4, ridge=0.0).gamma == 0.0


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, st.integers(1, 30), elements=st.floats(1e-12, 1e6)),
    st.integers(1, 60),
    st.one_of(st.none(), st.integers(1, 60)),
    st.one_of(st.just(0.0), st.floats(1e-12, 1e6)),
)
def test_the_root_solves_both_equations(eigenvalues, n, k, ridge):
    root = effective_ridge(eigenvalues, n_samples=n, n_features=k, ridge=ridge)
    gamma, kappa = float(root.gamma), float(root.kappa)
    if ridge == 0.0 and eigenvalues.size <= min(n, k or n):
        assert gamma == 0.0
        return
    z = math.fsum(eigenvalues / (eigenvalues + gamma))
    assert z + float(root.free_samples) == pytest.approx(n, rel=1e-11)
    assert float(root.free_samples) * kappa == pytest.approx(ridge, rel=1e-13, abs=0)
    if k is not None:
        assert float(root.free_features) * gamma == pytest.approx(k * kappa, rel=1e-13, abs=0)
        assert z + float(root.free_features) == pytest.approx(k, rel=1e-11)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"eigenvalues": [-1.0]}, "eigenvalues"),
        ({"eigenvalues": [[1.0]]}, "eigenvalues"),
        ({"n_samples": 0}, "n_samples"),
        ({"n_samples": 3.0}, "n_samples"),
        ({"n_samples": [[3]]}, "n_samples"),
        ({"n_features": -2}, "n_features"),
        ({"ridge": -0.1}, "ridge"),
        ({"n_samples": [1, 2], "ridge": [0.1, 0.2, 0.3]}, "n_samples"),
    ],
)
def test_bad_input_is_named(changed, name):
    good = {"eigenvalues": [1.0, 0.5], "n_samples": 2, "ridge": 0.1}
    with pytest.raises(ValueError, match=name):
        effective_ridge(**{**good, **changed})


@pytest.mark.parametrize("portion", [1, 3])
def test_sizes_in_portions(monkeypatch, portion):
    spectrum = np.arange(1, 200) ** -1.5
    sizes = {"n_samples": np.arange(5, 50, 4), "n_features": 30, "ridge": 1e-3}
    ridge = effective_ridge(spectrum, **sizes)
    curve = learning_curve(spectrum, spectrum, **sizes)
    for module in ("fixed_points", "eigenframework"):
        name = f"theorylab.random_features.{module}.portion_of"
        monkeypatch.setattr(name, lambda _: portion)
    other, parts = effective_ridge(spectrum, **sizes), learning_curve(spectrum, spectrum, **sizes)
    for name in ("gamma", "kappa"):
        assert (getattr(other, name) == getattr(ridge, name)).all()
    for name in ("test_risk", "train_risk", "gamma", "kappa"):
        assert (getattr(parts, name) == getattr(curve, name)).all()
