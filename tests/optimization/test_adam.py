"""Adam, AdaMax, AMSGrad, AdaGrad: iterates against their definitions, suprema against eigenvalues
and linear programmes."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import eigh
from scipy.optimize import linprog

from theorylab import optimization
from theorylab.optimization import (
    ADAM_STEP_SUPREMUM_SQUARED,
    adagrad,
    adam,
    adam_step_ceiling_squared,
    adam_step_squared,
    adam_step_supremum,
    adam_step_supremum_squared,
    adam_steps,
    adam_worst_gradients,
    adamax,
    adamax_finite_p_norm,
    adamax_step,
    adamax_step_ceiling,
    adamax_step_supremum,
    adamax_steps,
    adamax_worst_gradients,
    amsgrad,
    stated_step_bound_squared,
)

DEFAULTS = Fraction(9, 10), Fraction(999, 1000)
MOMENTUM = [
    DEFAULTS,
    (Fraction(9, 10), Fraction(19, 20)),
    (Fraction(1, 2), Fraction(1, 4)),
    (Fraction(4, 5), Fraction(1, 3)),
]
fractions = st.builds(Fraction, st.integers(1, 99), st.just(100))
histories = st.lists(st.integers(-1000, 1000), min_size=1, max_size=12)


def weights(t, beta):
    """Normalised weights of g_1, ..., g_t in a bias-corrected average, from the definition."""
    w = beta ** np.arange(t - 1.0, -1.0, -1.0)
    return w / w.sum()


# --- steps and their suprema
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta1", "beta2"), MOMENTUM)
@pytest.mark.parametrize("t", [1, 2, 7, 30])
def test_adam_supremum_is_the_largest_generalised_eigenvalue(beta1, beta2, t):
    a, w = weights(t, float(beta1)), weights(t, float(beta2))
    largest = eigh(np.outer(a, a) / np.sqrt(np.outer(w, w)), eigvals_only=True)[-1]
    assert adam_step_supremum(t, beta1=float(beta1), beta2=float(beta2)) ** 2 == pytest.approx(
        largest, rel=1e-12
    )


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-12, -1e-9])
@pytest.mark.parametrize("t", [2, 1000])
def test_suprema_keep_their_digits_where_the_geometric_ratio_is_near_one(gap, t):
    beta1 = 0.9
    for beta2, supremum in (
        (beta1**2 * (1 + gap), adam_step_supremum_squared),
        (beta1 * (1 + gap), adamax_step_supremum),
    ):
        exact = supremum(t, beta1=Fraction(beta1), beta2=Fraction(beta2))
        # The ratio itself is rounded, which moves its t-th power by t times that.
        assert supremum(t, beta1=beta1, beta2=beta2) == pytest.approx(float(exact), rel=1e-14 * t)


@pytest.mark.parametrize(("beta1", "beta2"), [*MOMENTUM, (Fraction(9, 10), Fraction(1))])
@pytest.mark.parametrize("t", [1, 2, 7])
def test_adamax_supremum_is_a_linear_programme(beta1, beta2, t):
    reach = float(beta2) ** -np.arange(t - 1.0, -1.0, -1.0)
    programme = linprog(-weights(t, float(beta1)), bounds=[(-r, r) for r in reach])
    assert adamax_step_supremum(t, beta1=float(beta1), beta2=float(beta2)) == pytest.approx(
        -programme.fun, rel=1e-9
    )


@pytest.mark.parametrize(("beta1", "beta2"), MOMENTUM)
@pytest.mark.parametrize("t", [1, 2, 5, 60])
def test_worst_histories_attain_the_suprema_exactly(beta1, beta2, t):
    worst = adam_worst_gradients(t, beta1=beta1, beta2=beta2)
    assert adam_step_squared(worst, beta1=beta1, beta2=beta2) == adam_step_supremum_squared(
        t, beta1=beta1, beta2=beta2
    )
    worst = adamax_worst_gradients(t, beta2=beta2)
    assert adamax_step(worst, beta1=beta1, beta2=beta2) == adamax_step_supremum(
        t, beta1=beta1, beta2=beta2
    )


@pytest.mark.parametrize(("beta1", "beta2"), [*MOMENTUM, (Fraction(0), Fraction(1, 3))])
@pytest.mark.parametrize("t", [1, 2, 5])
def test_ceilings_are_the_sums_of_the_two_inequalities_and_the_worst_histories_meet_them(
    beta1, beta2, t
):
    # Exact weights of g_t, g_{t-1}, ... in the two averages, from the definition.
    powers = [[b**k for k in range(t)] for b in (beta1, beta2)]
    c, d = ([p / sum(row) for p in row] for row in powers)
    squared = adam_step_ceiling_squared(t, beta1=beta1, beta2=beta2)
    assert squared == sum(x * x / y for x, y in zip(c, d, strict=True))
    largest = adamax_step_ceiling(t, beta1=beta1, beta2=beta2)
    assert largest == sum(x / y for x, y in zip(c, powers[1], strict=True))
    assert adamax_step_ceiling(t, beta1=beta1, beta2=Fraction(1)) == 1
    # Equality in Cauchy and Schwarz, and in every term: nothing smaller is a bound.
    worst = [float(x / y) for x, y in zip(c, d, strict=True)][::-1]
    steps = adam_steps(worst, beta1=float(beta1), beta2=float(beta2))
    assert steps[-1] ** 2 == pytest.approx(float(squared), rel=1e-12)
    worst = [float(1 / y) for y in powers[1]][::-1]
    steps = adamax_steps(worst, beta1=float(beta1), beta2=float(beta2))
    assert steps[-1] == pytest.approx(float(largest), rel=1e-12)


@given(histories, fractions, fractions)
def test_no_history_exceeds_the_suprema(gradients, beta1, beta2):
    t = len(gradients)
    assert adam_step_squared(gradients, beta1=beta1, beta2=beta2) <= adam_step_supremum_squared(
        t, beta1=beta1, beta2=beta2
    )
    assert abs(adamax_step(gradients, beta1=beta1, beta2=beta2)) <= adamax_step_supremum(
        t, beta1=beta1, beta2=beta2
    )


@given(histories, fractions, fractions)
def test_exact_and_floating_steps_agree_with_the_definition(gradients, beta1, beta2):
    t, g = len(gradients), np.array(gradients, float)
    if not g.any():
        assert (
            adam_step_squared(gradients, beta1=beta1, beta2=beta2)
            == adamax_step(gradients, beta1=beta1, beta2=beta2)
            == 0
        )
        return
    mean = weights(t, float(beta1)) @ g
    adam_value = mean**2 / (weights(t, float(beta2)) @ g**2)
    adamax_value = mean / (float(beta2) ** np.arange(t - 1.0, -1.0, -1.0) * np.abs(g)).max()
    size = adam_step_supremum_squared(t, beta1=float(beta1), beta2=float(beta2))
    assert float(adam_step_squared(gradients, beta1=beta1, beta2=beta2)) == pytest.approx(
        adam_value, abs=1e-12 * size
    )
    assert float(adamax_step(gradients, beta1=beta1, beta2=beta2)) == pytest.approx(
        adamax_value, abs=1e-12 * size
    )
    steps = adam_steps(g, beta1=float(beta1), beta2=float(beta2))
    assert steps[-1] ** 2 == pytest.approx(adam_value, abs=1e-11 * size)
    assert adamax_steps(g, beta1=float(beta1), beta2=float(beta2))[-1] == pytest.approx(
        adamax_value, abs=1e-11 * size
    )


def test_published_step_bounds_fail_at_the_known_values():
    b1, b2 = DEFAULTS
    assert adam_step_supremum_squared(None, beta1=b1, beta2=b2) == Fraction(370, 7)
    assert adam_step_supremum_squared(None, beta1=b1, beta2=Fraction(19, 20)) == Fraction(19, 14)
    assert adam_step_supremum_squared(None, beta1=b1, beta2=Fraction(99, 100)) == Fraction(11, 2)
    assert adam_step_squared([18, 19], beta1=b1, beta2=Fraction(19, 20)) == Fraction(6864, 6859)
    assert adamax_step([1000, 999], beta1=b1, beta2=b2) == Fraction(2110, 2109)
    assert adamax_step_supremum(None, beta1=b1, beta2=b2) == Fraction(111, 110)
    assert adamax_step_supremum(None, beta1=b1, beta2=Fraction(19, 20)) == Fraction(19, 10)
    # The first violation at the defaults.
    stated = stated_step_bound_squared(b1, b2)
    assert (
        adam_step_supremum_squared(209, beta1=b1, beta2=b2)
        < stated
        < adam_step_supremum_squared(210, beta1=b1, beta2=b2)
    )


@given(fractions, fractions, st.integers(1, 40))
def test_single_spike_obeys_the_stated_bound_where_it_is_above_one(beta1, beta2, t):
    spike = adam_step_squared([0] * (t - 1) + [1], beta1=beta1, beta2=beta2)
    if (1 - beta1) ** 2 > 1 - beta2:
        assert spike <= stated_step_bound_squared(beta1, beta2)
    assert spike == (1 - beta1) ** 2 / (1 - beta2) * (1 - beta2**t) / (1 - beta1**t) ** 2


@pytest.mark.parametrize(("beta1", "beta2"), MOMENTUM[:2])
def test_suprema_tend_to_their_limits(beta1, beta2):
    b1, b2 = float(beta1), float(beta2)
    assert adam_step_supremum_squared(20_000, beta1=b1, beta2=b2) == pytest.approx(
        float(adam_step_supremum_squared(None, beta1=beta1, beta2=beta2))
    )
    assert adamax_step_supremum(20_000, beta1=b1, beta2=b2) == pytest.approx(
        float(adamax_step_supremum(None, beta1=beta1, beta2=beta2))
    )
    assert adamax_step_supremum(17, beta1=beta1, beta2=Fraction(1)) == 1


def test_printed_formula_is_the_evaluated_one():
    t, b1, b2 = 6, Fraction(3, 5), Fraction(7, 10)
    symbols = dict(
        zip(
            ("t", "beta_1", "beta_2", "rho"),
            (t, *map(sp.Rational, (b1, b2, b1 * b1 / b2))),
            strict=True,
        )
    )
    value = ADAM_STEP_SUPREMUM_SQUARED.subs(
        {s: symbols[s.name] for s in ADAM_STEP_SUPREMUM_SQUARED.free_symbols}
    )
    assert adam_step_supremum_squared(t, beta1=b1, beta2=b2) == Fraction(int(value.p), int(value.q))


@pytest.mark.parametrize("p", [1.0, 2.0, 7.5])
def test_finite_p_norm_is_the_stated_sum(p):
    g, b2 = np.array([3.0, 0.0, -1.0, 0.5]), 0.8
    v = 0.0
    for x in g:
        v = b2**p * v + (1 - b2**p) * abs(x) ** p
    assert adamax_finite_p_norm(g, beta2=b2, p=p) == pytest.approx(v ** (1 / p), rel=1e-13)


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=20),
    st.floats(0.05, 0.99),
    st.floats(1, 1e6),
)
def test_finite_p_norm_tends_to_the_decaying_maximum(g, beta2, p):
    t = len(g)
    u = max(beta2 ** (t - 1 - s) * x for s, x in enumerate(g))
    ratio = math.log(adamax_finite_p_norm(g, beta2=beta2, p=p) / u)
    log_base = math.log(-math.expm1(p * math.log(beta2))) / p
    assert log_base - 1e-12 <= ratio <= log_base + math.log(t) / p + 1e-12


# --- optimisers
# ------------------------------------------------------------------------------------------------


def quadratic(x, t):
    return np.array([1.0, 10.0, 0.1]) * x + 0.3 * math.sin(t)


def test_adam_follows_the_definition_by_weighted_sums():
    run = adam(
        quadratic,
        [1.0, -1.0, 2.0],
        step_size=0.05,
        steps=40,
        beta1=0.8,
        beta2=0.95,
        eps=1e-3,
        decay="sqrt",
    )
    for t in (1, 2, 17, 40):
        g = run.gradients[:t]
        assert np.array_equal(g[-1], quadratic(run.iterates[t - 1], t))
        step = weights(t, 0.8) @ g / (np.sqrt(weights(t, 0.95) @ g**2) + 1e-3)
        assert run.iterates[t] == pytest.approx(
            run.iterates[t - 1] - 0.05 / math.sqrt(t) * step, rel=1e-12
        )


def test_methods_agree_where_they_must():
    start, common = [1.0, -1.0, 2.0], {"step_size": 0.05, "steps": 60}
    plain = adam(quadratic, start, beta1=0.9, beta2=0.99, eps=0.0, **common)
    steps = adam_steps(plain.gradients, beta1=0.9, beta2=0.99)
    assert np.diff(plain.iterates, axis=0) == pytest.approx(-0.05 * steps, abs=1e-14)
    largest = adamax(quadratic, start, beta1=0.9, beta2=0.99, **common)
    assert np.diff(largest.iterates, axis=0) == pytest.approx(
        -0.05 * adamax_steps(largest.gradients, beta1=0.9, beta2=0.99), abs=1e-14
    )
    # With gradients of growing size the running maximum is the latest value.
    growing = {
        "gradient": lambda x, t: np.full(3, 2.0**t),
        "x0": start,
        "bias_correction": False,
        **common,
    }
    assert np.array_equal(adam(**growing, eps=0.0).iterates, amsgrad(**growing).iterates)
    # The mean of all squared gradients with steps alpha / sqrt(t) is AdaGrad.
    total = adagrad(quadratic, start, **common)
    mean = np.sqrt(np.cumsum(total.gradients**2, axis=0))
    assert np.diff(total.iterates, axis=0) == pytest.approx(
        -0.05 * total.gradients / mean, abs=1e-14
    )


@pytest.mark.parametrize("exponents", [(0, 0, 0), (5, -9, 20)])
def test_rescaling_by_powers_of_two_changes_no_bit(exponents):
    scale = 2.0 ** np.array(exponents)
    base = adam(quadratic, [1.0, -1.0, 2.0], step_size=0.01, steps=100, eps=0.0)
    scaled = adam(
        lambda x, t: scale * quadratic(x, t), [1.0, -1.0, 2.0], step_size=0.01, steps=100, eps=0.0
    )
    assert np.array_equal(base.iterates, scaled.iterates)


def test_momentum_decay_and_zero_gradients():
    fading = adam(
        quadratic,
        [1.0, 1.0, 1.0],
        step_size=0.1,
        steps=5,
        beta1=0.5,
        momentum_decay=1e-300,
        eps=0.0,
    )
    m = 0.5 * fading.gradients[0]
    assert fading.iterates[1] == pytest.approx(1.0 - 0.1 * m / 0.5 / np.abs(fading.gradients[0]))
    v = weights(2, 0.999) @ fading.gradients[:2] ** 2
    assert fading.iterates[2] == pytest.approx(
        fading.iterates[1] - 0.1 * fading.gradients[1] / 0.75 / np.sqrt(v)
    )
    still = adam(lambda x, t: np.array([0.0, 1.0]), [0.3, 0.0], step_size=0.1, steps=4, eps=0.0)
    assert (still.iterates[:, 0] == 0.3).all()
    assert still.final[1] == pytest.approx(-0.4)
    assert still.average == pytest.approx([0.3, -0.15])


# --- the interface
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        "import theorylab.optimization.adam",
        "from theorylab.optimization.adam import AdaptiveRun",
        "import theorylab.optimization.adaptive_regret",
        "import theorylab",
    ],
)
def test_the_package_exports_the_function_whatever_was_imported_before(first):
    code = f"{first}\nfrom theorylab.optimization import adam\nassert callable(adam), adam"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_everything_public_is_exported():
    # The attribute ``adam`` of the package is the function.
    module = sys.modules["theorylab.optimization.adam"]
    assert set(module.__all__) <= set(optimization.__all__)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: adam(lambda x, t: x[:1], [1.0, 1.0], step_size=0.1, steps=2), "gradient"),
        (lambda: adam(lambda x, t: x * np.nan, [1.0], step_size=0.1, steps=2), "gradient"),
        (lambda: adam(quadratic, [3.0], step_size=0.1, steps=2, lower=-1.0, upper=1.0), "x0"),
        (lambda: adam_step_squared([0.5], beta1=Fraction(1, 2), beta2=Fraction(1, 2)), "gradients"),
        (lambda: adam_step_squared([1], beta1=0.5, beta2=Fraction(1, 2)), "beta1"),
        (lambda: adam_step_supremum_squared(None, beta1=0.9, beta2=0.5), "beta1"),
        (lambda: adamax_step_supremum(None, beta1=0.9, beta2=0.5), "beta1"),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()


@pytest.mark.parametrize("exponent", [-960, -566, 0, 664, 1020])
def test_steps_do_not_depend_on_units(exponent):
    g = np.array([[1.0, -2.0], [0.25, 1e-9], [-3.0, 0.0], [1e-5, 2.0]])
    scaled = np.ldexp(g, exponent)
    for b1, b2, eps in ((0.9, 0.999, 0.0), (0.5, 0.0, 0.0), (0.9, 0.95, 0.5)):
        steps = adam_steps(g, beta1=b1, beta2=b2, eps=eps)
        again = adam_steps(scaled, beta1=b1, beta2=b2, eps=np.ldexp(eps, exponent))
        assert np.array_equal(steps, again)
    assert np.array_equal(
        adamax_steps(g, beta1=0.9, beta2=0.99), adamax_steps(scaled, beta1=0.9, beta2=0.99)
    )
    run = adam(lambda x, t: scaled[t - 1], [0.0, 0.0], step_size=1.0, steps=4, eps=0.0)
    assert run.final == pytest.approx(-adam_steps(g, beta1=0.9, beta2=0.999).sum(axis=0))


def test_the_first_step_is_one_whatever_comes_later():
    # Both gradients in one history: no common unit keeps their squares.
    steps = adam_steps([1e-170, 1e200], beta1=0.9, beta2=0.999)
    assert steps[0] == pytest.approx(1.0)
    assert steps[1] == pytest.approx(0.1 / 0.19 * np.sqrt(0.001999 / 0.001))
    run = adagrad(lambda x, t: np.array([1e-170]), [0.0], step_size=1.0, steps=2)
    assert run.iterates.ravel() == pytest.approx([0.0, -1.0, -1.0 - np.sqrt(0.5)])


def test_bias_correction_keeps_its_digits_near_one():
    beta = 1 - 2.0**-40
    steps = adam_steps([1.0, 1.0, 1.0], beta1=beta, beta2=beta)
    assert steps == pytest.approx([1.0] * 3, rel=1e-12)


def test_suprema_beyond_float64_are_refused_by_name_and_their_roots_are_not():
    for function in (adam_step_supremum, adam_step_supremum_squared):
        with pytest.raises(ValueError, match="t: expected a history whose supremum"):
            function(10_000, beta1=0.99, beta2=0.5)
    with pytest.raises(ValueError, match="t: "):
        adamax_step_supremum(10_000, beta1=0.99, beta2=0.5)
    # The square of this one is 1e400.
    t = 1369
    exact = adam_step_supremum_squared(t, beta1=Fraction(99, 100), beta2=Fraction(1, 2))
    root = adam_step_supremum(t, beta1=0.99, beta2=0.5)
    assert 1e195 < root < 1e202
    assert Fraction(root) ** 2 / exact == pytest.approx(1, rel=1e-9)
    with pytest.raises(ValueError, match="t: "):
        adam_step_supremum_squared(2 * t, beta1=0.99, beta2=0.5)
    assert adam_step_supremum(5, beta1=1e-300, beta2=0.5) == pytest.approx(
        np.sqrt(sum(0.5**k for k in range(5)))
    )


def test_a_callback_is_told_the_linear_loss_and_ends_the_run():
    told = []

    def watch(progress):
        told.append(progress)
        return progress.iteration == 3

    run = adam(lambda x, t: 2 * x + t, [1.0, -2.0], step_size=0.1, steps=10, callback=watch)
    assert (len(run.iterates), len(run.gradients), len(run.denominators)) == (4, 3, 3)
    alone = adam(lambda x, t: 2 * x + t, [1.0, -2.0], step_size=0.1, steps=3)
    assert np.array_equal(run.iterates, alone.iterates)
    for progress, x, g in zip(told, run.iterates, run.gradients, strict=False):
        assert progress.objective == pytest.approx(x @ g)
        assert progress.error == pytest.approx(np.linalg.norm(g))
