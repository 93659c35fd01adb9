"""Regret of adaptive methods: compiled runs, certificates and stationary periods against
independent recursions."""

import itertools
import math
from fractions import Fraction

import flint
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theorylab import optimization
from theorylab.optimization import (
    PERIOD_THREE_PRODUCTS,
    RegretCertificate,
    adagrad,
    adam,
    adam_steps,
    adaptive_regret,
    amsgrad,
    certified_regret,
    cycle_drift,
    cyclic_losses,
    failing_period,
    linear_regret,
    random_losses,
)

METHODS = {"adam": adam, "amsgrad": amsgrad}


@pytest.mark.parametrize(
    ("method", "corrected"),
    [("adam", False), ("adam", True), ("amsgrad", False), ("amsgrad", True), ("adagrad", False)],
)
def test_compiled_recursion_agrees_with_the_optimisers(method, corrected):
    slopes = np.random.default_rng(0).normal(size=(7, 2))
    steps = 50
    run = cyclic_losses(
        slopes,
        steps=steps,
        method=method,
        step_size=0.7,
        beta1=0.0 if method == "adagrad" else 0.6,
        beta2=0.8,
        bias_correction=corrected,
        x0=0.2,
        times=np.arange(1, steps + 1),
    )
    box = {"step_size": 0.7, "steps": steps, "lower": -1.0, "upper": 1.0}
    if method == "adagrad":
        other = adagrad(lambda x, t: slopes[(t - 1) % 7], [0.2, 0.2], **box)
        roots = other.denominators / np.sqrt(np.arange(1.0, steps + 1))[:, None]
    else:
        other = METHODS[method](
            lambda x, t: slopes[(t - 1) % 7],
            [0.2, 0.2],
            beta1=0.6,
            beta2=0.8,
            eps=0.0,
            decay="sqrt",
            bias_correction=corrected,
            **box,
        )
        roots = other.denominators
    assert run.iterates == pytest.approx(other.iterates[:-1], abs=1e-12)
    assert run.denominators == pytest.approx(roots, rel=1e-12)
    for t in (1, 13, 50):
        expected = linear_regret(other.gradients[:t], other.iterates[:t], lower=-1.0, upper=1.0)
        assert run.regret[t - 1] == pytest.approx(expected, abs=1e-11)


def test_linear_regret_is_the_minimum_over_vertices():
    rng = np.random.default_rng(3)
    g, x = rng.normal(size=(2, 9, 3))
    vertices = [np.array(v) for v in itertools.product((-0.5, 2.0), repeat=3)]
    assert linear_regret(g, x, lower=-0.5, upper=2.0) == pytest.approx(
        np.vdot(g, x) - min((g @ v).sum() for v in vertices)
    )


@settings(max_examples=60)
@given(
    st.integers(1, 40).flatmap(
        lambda t: st.lists(st.floats(-10, 10), min_size=2 * t, max_size=2 * t)
    ),
    st.floats(0.01, 5),
    st.floats(0, 0.99),
    st.sampled_from(["amsgrad", "adagrad"]),
    st.floats(-1, 1),
)
def test_monotone_second_moments_bound_the_regret(slopes, step_size, beta2, method, x0):
    g = np.reshape(slopes, (-1, 2))
    run = cyclic_losses(
        g,
        steps=len(g),
        method=method,
        step_size=step_size,
        beta2=beta2,
        x0=x0,
        times=np.arange(1, len(g) + 1),
    )
    assert (run.regret <= run.monotone_bound * (1 + 1e-12) + 1e-12).all()


@pytest.mark.parametrize("method", ["amsgrad", "adagrad"])
def test_terms_of_the_monotone_bound_are_the_stated_sums(method):
    steps, alpha, radius = 30, 0.7, 1.5
    g = np.random.default_rng(2).normal(size=(steps, 2))
    times = [1, 4, 30]
    run = cyclic_losses(
        g,
        steps=steps,
        method=method,
        step_size=alpha,
        beta2=0.8,
        radius=radius,
        x0=0.2,
        times=times,
    )
    t = np.arange(1, steps + 1)
    if method == "adagrad":
        roots = np.sqrt(np.cumsum(g**2, axis=0) / t[:, None])
    else:
        v = np.array([0.2 * 0.8 ** np.arange(s)[::-1] @ g[:s] ** 2 for s in t])
        roots = np.sqrt(np.maximum.accumulate(v))
    each = (g**2 / (np.sqrt(t)[:, None] * roots)).sum(axis=1)
    for i, T in enumerate(times):
        diameter = (2 * radius) ** 2 * math.sqrt(T) / (2 * alpha) * roots[T - 1].sum()
        assert run.diameter_term[i] == pytest.approx(diameter, rel=1e-12)
        assert run.gradient_term[i] == pytest.approx(alpha / 2 * each[:T].sum(), rel=1e-12)
    assert run.monotone_bound == pytest.approx(run.diameter_term + run.gradient_term, rel=1e-14)


def test_one_step_from_the_worst_end_attains_the_monotone_bound():
    # Both terms are 1: 2 sqrt(v) / alpha and alpha / (2 sqrt(v)), alpha = 2 sqrt(v) = 1.
    run = cyclic_losses([-1.0], steps=1, method="amsgrad", step_size=1.0, beta2=0.75, x0=-1.0)
    assert run.regret[0] == run.monotone_bound[0] == 2


def test_monotone_bound_fails_for_adam():
    run = cyclic_losses([10.0, -1.0, -1.0], steps=30_000, step_size=0.5, beta2=1 / 101)
    assert run.regret[-1] > 50 * run.monotone_bound[-1]


@pytest.mark.parametrize("c", [2.5, 3.0, 10.0, 50.0])
def test_period_three_returns_to_one_and_pays_every_period(c):
    periods = 2000
    run = cyclic_losses(
        [c, -1.0, -1.0],
        steps=3 * periods,
        step_size=0.5,
        beta2=1 / (1 + c * c),
        times=3 * np.arange(periods) + 1,
    )
    assert (run.iterates == 1).all()
    end = cyclic_losses(
        [c, -1.0, -1.0],
        steps=3 * periods,
        step_size=0.5,
        beta2=1 / (1 + c * c),
        times=[3 * periods],
    )
    assert 0 < end.regret[0] - (2 * c - 4) * periods < 4 * math.sqrt(3 * periods)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("c", [2.0, 3.0, 30.0, 300.0])
def test_period_three_products_bound_the_true_ones(c, corrected):
    b2 = 1 / (1 + c * c)
    name = "unprojected" if corrected else "projected"
    # Steps of one period of the free iterate, from the definition of the moments.
    t = np.arange(1.0, 301)
    steps = np.abs(
        adam_steps(np.tile([c, -1.0, -1.0], 100), beta1=0.0, beta2=b2, bias_correction=corrected)
    ) / np.sqrt(t)
    d, u, w = steps.reshape(-1, 3).T
    products = (d / u) ** 2 * (d / w) ** 2
    first, later = (_at(f"{name}, {part}", b2) for part in ("first period", "later periods"))
    assert products[0] == pytest.approx(first)
    assert products[1:].max() <= later * (1 + 1e-12)
    assert products[1:].max() >= later * (1 - 20 / c)  # attained as c grows
    assert max(first, later) <= 16


def _at(name, b2):
    expression = PERIOD_THREE_PRODUCTS[name]
    (symbol,) = expression.free_symbols
    return float(expression.subs(symbol, b2))


def test_certificate_encloses_the_floating_run_and_evaluates_the_stated_bound():
    steps, b2 = 900, Fraction(1, 101)
    certificate = certified_regret(
        [10, -1, -1],
        steps=steps,
        step_size=Fraction(1, 2),
        beta1=Fraction(0),
        beta2=b2,
        x0=Fraction(9, 10),
    )
    times = np.arange(1, steps + 1)
    run = cyclic_losses(
        [10.0, -1.0, -1.0],
        steps=steps,
        step_size=0.5,
        beta2=float(b2),
        x0=0.9,
        domain="flat",
        bias_correction=True,
        times=times,
    )
    assert float(certificate.regret.mid()) == pytest.approx(run.regret[-1], rel=1e-10)
    assert float(certificate.regret.rad()) < 1e-10
    x = run.iterates[:, 0]
    width = max(x.max(), -1) - min(x.min(), -1)
    slopes = np.tile([10.0, -1.0, -1.0], steps // 3)
    paid = np.where(slopes > 0, x > -1, x < 1) * slopes
    rest = math.sqrt(1 - 1 / 101)
    bound = (
        width**2 * math.sqrt(steps) * run.denominators[-1, 0]
        + 0.5 * 10 * np.linalg.norm(paid) / rest
        + width**2 * 10 * rest / 0.25
    )
    assert float(certificate.stated_bound.mid()) == pytest.approx(bound, rel=1e-10)
    assert certificate.violated
    assert not certified_regret(
        [10, -1, -1],
        steps=steps,
        step_size=Fraction(1, 2),
        beta1=Fraction(0),
        beta2=Fraction(99, 100),
        x0=Fraction(9, 10),
    ).violated


def test_certificate_with_fading_momentum_agrees_with_the_optimiser():
    def gradient(x, t):
        slope = 3.0 if t % 3 == 1 else -1.0
        return slope * (x > -1 if slope > 0 else x < 1)

    steps = 300
    certificate = certified_regret(
        [3, -1, -1],
        steps=steps,
        step_size=Fraction(1, 4),
        beta1=Fraction(1, 2),
        beta2=Fraction(1, 10),
        x0=Fraction(9, 10),
    )
    run = adam(
        gradient,
        [0.9],
        step_size=0.25,
        steps=steps,
        beta1=0.5,
        beta2=0.1,
        eps=0.0,
        decay="sqrt",
        momentum_decay=0.5,
    )
    x = run.iterates[:-1, 0]
    slopes = np.tile([3.0, -1.0, -1.0], steps // 3)
    paid = np.where(slopes > 0, slopes * np.maximum(x, -1), slopes * np.minimum(x, 1)).sum()
    assert float(certificate.regret.mid()) == pytest.approx(paid + slopes.sum(), rel=1e-10)


def test_a_certificate_is_violated_only_beyond_its_enclosures():
    def violated(regret, radius):
        ball, one = flint.arb(regret, radius), flint.arb(1)
        return RegretCertificate(steps=1, regret=ball, stated_bound=one, diameter=one).violated

    assert violated(1.1, 0.05)
    assert not violated(1.1, 0.2)
    assert not violated(0.95, 0.01)


def test_a_certificate_stopped_after_some_periods_is_that_of_its_steps():
    rates = {"step_size": Fraction(1, 2), "beta1": Fraction(0), "beta2": Fraction(1, 101)}
    rates["x0"] = Fraction(9, 10)
    told = []

    def three(progress):
        told.append(progress.objective)
        return progress.iteration == 9

    stopped = certified_regret([10, -1, -1], steps=30, callback=three, **rates)
    alone = certified_regret([10, -1, -1], steps=9, **rates)
    assert stopped.steps == 9
    assert str(stopped) == str(alone)
    assert stopped.regret.overlaps(alone.regret)
    assert stopped.stated_bound.overlaps(alone.stated_bound)
    assert told[-1] == pytest.approx(float(alone.regret), rel=1e-12)


def test_certificate_refuses_an_undecided_kink():
    with pytest.raises(ValueError, match="precision"):
        certified_regret(
            [-1, 3],
            steps=2,
            step_size=Fraction(1, 2),
            beta1=Fraction(0),
            beta2=Fraction(1, 10),
            x0=Fraction(1),
        )


@pytest.mark.parametrize(
    ("beta1", "beta2", "period"), [(0.0, 0.1, 3), (0.9, 0.99, 40), (0.5, 0.999, 7)]
)
def test_stationary_ratios_are_the_long_run_of_the_moments(beta1, beta2, period):
    slopes = np.random.default_rng(1).normal(size=period)
    repeats = math.ceil(40 / (1 - beta2) / period)
    steps = adam_steps(np.tile(slopes, repeats), beta1=beta1, beta2=beta2, bias_correction=False)
    assert cycle_drift(slopes, beta1=beta1, beta2=beta2).ratios == pytest.approx(
        steps[-period:], abs=1e-12
    )


@pytest.mark.parametrize(
    ("slopes", "beta1", "beta2"),
    [
        ((3, -1, -1), 0.0, 0.1),
        ((-4, 1, 1, 1), 0.0, 0.4),
        ((3, -1, -1), 0.0, 0.9),
        ((30, *[-1] * 28), 0.9, 0.95),
        ((1, -3), 0.5, 0.9),
    ],
)
def test_drift_decides_where_adam_ends_and_what_it_pays(slopes, beta1, beta2):
    drift = cycle_drift(slopes, beta1=beta1, beta2=beta2)
    period = len(slopes)
    start, stop = period * 20_000, period * 60_000
    times = np.concatenate([np.arange(start + 1 - period, start + 1), [stop]])
    run = cyclic_losses(
        slopes, steps=stop, step_size=0.5, beta1=beta1, beta2=beta2, x0=0.0, times=times
    )
    distance = 1 - drift.limit * run.iterates[:period, 0]
    assert distance == pytest.approx(0.5 / math.sqrt(start) * drift.excursion, rel=1e-3, abs=1e-12)
    low, high = drift.regret_between(start, stop, 0.5)
    paid = run.regret[-1] - run.regret[-2]
    rounding = 1e-13 * stop * np.abs(slopes).max()
    assert low - rounding <= paid <= high + rounding
    assert high - low < 0.05 * max(abs(high), 1)


@pytest.mark.parametrize(
    ("slopes", "beta2", "start", "stop"),
    [  # two or three periods in, the step size still falls fast
        ((-1.9, 1.6, -2.2, -2.8, 0.8), 0.1, 10, 35),
        ((1.0, -1.2, 1.9), 0.5, 6, 21),
        ((1.6, -0.3, 2.3, 1.5, -2.3), 0.9, 10, 35),
        ((-0.7, -2.6, 1.4), 0.1, 6, 12),
    ],
)
def test_the_regret_of_early_periods_is_enclosed(slopes, beta2, start, stop):
    drift = cycle_drift(slopes, beta1=0.0, beta2=beta2)
    low, high = drift.regret_between(start, stop, 0.05)
    x, paid = drift.limit, 0.0
    for t in range(1, stop + 1):  # the walk itself, by the stationary ratios
        phase = (t - 1) % len(slopes)
        paid += slopes[phase] * x if t > start else 0.0
        x = min(max(x - 0.05 / math.sqrt(t) * drift.ratios[phase], -1.0), 1.0)
    regret = paid + abs(sum(slopes)) * (stop - start) / len(slopes)
    assert low <= regret <= high


def test_a_drift_that_early_steps_may_turn_is_not_enclosed():
    least = cycle_drift([74.0, *[-1.0] * 73], beta1=0.9, beta2=0.999)  # the first period that fails
    with pytest.raises(ValueError, match="start: expected a later time"):
        least.regret_between(148, 222, 0.5)


def test_failing_period_is_where_the_drift_changes_sign():
    for beta1, beta2 in [(0.0, 0.5), (0.5, 0.9), (0.9, 0.95), (0.9, 0.999), (0.3, 0.2)]:
        signs = [
            cycle_drift([p, *[-1] * (p - 1)], beta1=beta1, beta2=beta2).drift < 0
            for p in range(2, 400)
        ]
        assert failing_period(beta1=beta1, beta2=beta2) == 2 + signs.index(True)
        assert all(signs[signs.index(True) :])


def test_without_drift_there_is_no_limit():
    level = cycle_drift([1.0, -1.0], beta1=0.0, beta2=0.0)
    assert level.drift == 0
    assert np.isnan(level.limit)
    assert np.isnan(level.average_regret)


def test_random_losses_reduce_to_repeating_ones():
    options = {"steps": 40, "step_size": 0.5, "beta1": 0.9, "beta2": 0.99}
    rng = np.random.default_rng(0)
    for probability, slope in ((1.0, 3.0), (0.0, -2.0)):
        last = random_losses(
            rare=3.0, common=-2.0, probability=probability, chains=2, rng=rng, **options
        )
        run = cyclic_losses([slope], x0=0.0, times=[41], **{**options, "steps": 41})
        assert last == pytest.approx(np.full(2, run.iterates[0, 0]))
    first = random_losses(
        rare=3.0, common=-2.0, probability=0.45, chains=5, rng=np.random.default_rng(7), **options
    )
    second = random_losses(
        rare=3.0, common=-2.0, probability=0.45, chains=5, rng=np.random.default_rng(7), **options
    )
    assert np.array_equal(first, second)
    assert len(set(first)) > 1


# --- the interface
# ------------------------------------------------------------------------------------------------


def test_everything_public_is_exported():
    assert set(adaptive_regret.__all__) <= set(optimization.__all__)


CERTIFIED = {
    "step_size": Fraction(1),
    "beta1": Fraction(0),
    "beta2": Fraction(1, 2),
    "x0": Fraction(0),
}


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: cyclic_losses([1.0], steps=3, step_size=0.1, beta2=0.5, times=[2, 4]), "times"),
        (lambda: cyclic_losses([1.0], steps=3, step_size=0.1, beta2=0.5, x0=2.0), "x0"),
        (
            lambda: cyclic_losses(
                [1.0], steps=3, step_size=0.1, beta2=0.5, method="adagrad", bias_correction=True
            ),
            "bias_corr",
        ),
        (lambda: cycle_drift([1.0, 0.0], beta1=0.0, beta2=0.0), "beta2"),
        (lambda: certified_regret([1, 2], steps=2, **CERTIFIED), "slopes"),
        (lambda: certified_regret([1, -2], steps=3, **CERTIFIED), "steps"),
        (
            lambda: certified_regret([1, -2], steps=2, **{**CERTIFIED, "beta1": Fraction(9, 10)}),
            "beta1",
        ),
        (lambda: failing_period(beta1=0.9, beta2=0.999, maximum=20), "maximum"),
        (lambda: failing_period(beta1=0.9, beta2=0.5), "beta1"),
        (
            lambda: cycle_drift([3.0, -1.0, -1.0], beta1=0.0, beta2=0.1).regret_between(7, 12, 0.5),
            "start",
        ),
    ],
)
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()


@pytest.mark.parametrize("exponent", [-900, 30, 900])
def test_losses_in_other_units_give_the_same_iterates(exponent):
    slopes = np.array([3.0, -1.0, -1.0])
    for method, b1 in (("adam", 0.0), ("amsgrad", 0.5), ("adagrad", 0.0)):
        call = {"steps": 30, "method": method, "step_size": 0.5, "beta1": b1, "beta2": 0.1}
        run, scaled = (cyclic_losses(g, **call) for g in (slopes, np.ldexp(slopes, exponent)))
        assert np.array_equal(run.iterates, scaled.iterates)
        assert np.array_equal(np.ldexp(run.regret, exponent), scaled.regret)
        assert np.array_equal(np.ldexp(run.monotone_bound, exponent), scaled.monotone_bound)
    drift, other = (
        cycle_drift(g, beta1=0.5, beta2=0.9) for g in (slopes, np.ldexp(slopes, exponent))
    )
    assert np.array_equal(drift.ratios, other.ratios)
    draws = [
        random_losses(
            rare=3 * unit, common=-unit, probability=0.3, steps=20, chains=5, step_size=0.5,
            beta2=0.9, rng=np.random.default_rng(0),
        )
        for unit in (1.0, np.ldexp(1.0, exponent))
    ]  # fmt: skip
    assert np.array_equal(*draws)


def test_regret_of_extreme_losses():
    g, x = np.array([[1e200], [-2e200]]), np.array([[1e100], [0.0]])
    assert linear_regret(g, x, lower=-1e100, upper=1e100) == pytest.approx(2e300)
    with pytest.raises(ValueError, match="gradients: "):
        linear_regret(1e10 * g, x, lower=-1e100, upper=1e100)


def test_the_stated_bound_where_no_factor_is_one():
    # Momentum: (1 + beta_1), (1 - beta_1), gamma and the smaller denominator all count.
    steps, b1, b2, alpha, decay = 300, 0.25, 0.1, 0.5, 0.75

    def gradient(x, t):
        slope = 3.0 if t % 3 == 1 else -1.0
        return slope * (x > -1 if slope > 0 else x < 1)

    certificate = certified_regret(
        [3, -1, -1], steps=steps, step_size=Fraction(1, 2), beta1=Fraction(1, 4),
        beta2=Fraction(1, 10), momentum_decay=Fraction(3, 4), x0=Fraction(9, 10),
    )  # fmt: skip
    run = adam(
        gradient, [0.9], step_size=alpha, steps=steps, beta1=b1, beta2=b2, eps=0.0,
        decay="sqrt", momentum_decay=decay,
    )  # fmt: skip
    x = run.iterates[:-1, 0]
    width = max(x.max(), -1) - min(x.min(), -1)
    gamma = b1**2 / math.sqrt(b2)
    bound = (
        width**2 * math.sqrt(steps) * run.denominators[-1, 0] / (2 * alpha * (1 - b1))
        + alpha * (1 + b1) * 3 * np.linalg.norm(run.gradients)
        / ((1 - b1) * math.sqrt(1 - b2) * (1 - gamma) ** 2)
        + width**2 * 3 * math.sqrt(1 - b2) / (2 * alpha * b1 * (1 - decay) ** 2)
    )  # fmt: skip
    assert float(certificate.stated_bound.mid()) == pytest.approx(bound, rel=1e-9)


@pytest.mark.parametrize("method", ["adam", "amsgrad", "adagrad"])
def test_portions_between_which_an_interrupt_gets_in_change_nothing(monkeypatch, method):
    slopes, name = [[3.0, 1.0], [-1.0, 2.0], [-1.0, -4.0]], "theorylab.optimization.adaptive_regret"
    call = {"steps": 100, "method": method, "step_size": 0.3, "beta1": 0.5, "beta2": 0.9}
    call |= {"bias_correction": method != "adagrad", "times": [1, 40, 100]}
    options = {"rare": 3.0, "common": -1.0, "probability": 0.3, "step_size": 0.3, "beta2": 0.5}
    options |= {"steps": 10, "chains": 7, "method": "amsgrad", "beta1": 0.4}
    runs, lasts = [], []
    for portion in (10**7, 14, 1):
        monkeypatch.setattr(f"{name}._PORTION", portion)
        runs.append(cyclic_losses(slopes, **call))
        lasts.append(random_losses(**options, rng=np.random.default_rng(3)))
    for run, last in zip(runs[1:], lasts[1:], strict=True):
        for field in ("iterates", "regret", "denominators", "monotone_bound"):
            assert np.array_equal(getattr(run, field), getattr(runs[0], field))
        assert np.array_equal(last, lasts[0])


def test_a_callback_is_told_the_regret_and_ends_the_run():
    told = []

    def watch(progress):
        told.append(progress.objective)
        return progress.iteration == 40

    call = {"steps": 100, "step_size": 0.3, "beta2": 0.9}
    run = cyclic_losses([6.0, -2.0, -2.0], **call, times=[1, 40, 100], callback=watch)
    alone = cyclic_losses([6.0, -2.0, -2.0], **call, times=[1, 40, 100])
    assert run.times.tolist() == [1, 40]
    assert told == alone.regret[:2].tolist() == run.regret.tolist()
    assert np.array_equal(run.iterates, alone.iterates[:2])
    assert np.array_equal(run.monotone_bound, alone.monotone_bound[:2])
