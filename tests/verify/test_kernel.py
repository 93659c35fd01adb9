"""The kernel exposes checks that test less than they print; each body is a defect once found."""

import math
from fractions import Fraction

import flint
import numpy as np
import pytest
import sympy as sp

from theorylab.verify import (
    Int,
    Real,
    Verdict,
    between,
    breaks,
    cases,
    compare,
    draws,
    family,
    full,
    judge,
    judge_all,
    mean,
    note,
    paper,
    rescues,
    space,
    switch,
    theory,
    within,
)
from theorylab.verify.kernel import evaluate
from theorylab.verify.records import ranges, record_of

source = paper("any-key", "Setting.")
FREE = note(no_space="an example", no_break="an example")


def exposed(check):
    """Judge a bare body and return what the kernel says against it."""
    return judge(source.ours("an example")(FREE(check))).problems


# ---------------------------------------------------------------------------------- the defects
def cancelled_rate():
    """The logarithm of the rate enters both sides and cancels."""
    rho, steps = theory("rate", 0.9), 40
    residuals = 0.9 ** np.arange(steps + 1.0)
    linear = residuals * (1 + 0.01 * np.sin(np.arange(steps + 1.0)))
    transient = np.log(linear[-1] / linear[0]) - steps * np.log(rho)
    measured = (np.log(residuals[-1] / residuals[0]) - transient) / steps
    return compare(within(measured, 0.1 / steps, "curvature"), "==", np.log(rho))


def law_as_a_scale(seed):
    """The law only sets the unit in which a difference is judged."""
    law = theory("law", 0.3)
    errors = np.random.default_rng(seed).normal(0, 0.01, 60)
    return compare(mean(1 + errors / law, bias=0.02, source="remainder"), "==", 1.0)


def tolerance_from_the_prediction():
    """The allowed error reaches from the measurement to the target, wherever that is."""
    target, lower, upper = theory("constant", 1.4), 1.35, 1.45
    remainder = max(target - lower, upper - target) + 1e-9
    return compare(within(1.4, remainder, "bounds"), "==", target)


def shift_that_nobody_judges(seed):
    """The stated 1/N shift is far below the noise."""
    runs = np.random.default_rng(seed).normal(1.0 + 0.02 / 60, 0.01, 16)
    predicted, shift = theory("prediction", 1.0), theory("shift", 0.02) / 60
    return compare(mean(runs, bias=abs(shift) / 10, source="second order"), "==", predicted + shift)


def small_term_beside_a_large_one():
    """A negligible term under a part that resolves the other."""
    return compare(
        within(1.0, 0.05, "x"), "==", theory("leading", 1.0) + 1e-6 * theory("shift", 5.0)
    )


def logarithm_that_hides_the_rate():
    """A move of the rate by a tenth is a small move of its logarithm."""
    return compare(within(-5.0, 0.3, "x"), "==", np.log(theory("rate", math.exp(-5))))


def one_sharp_entry_among_fifty():
    """One entry is sharp, 49 have an error of 1000 %."""
    p = np.linspace(1, 2, 50)
    error = 10 * p
    error[0] = 1e-3
    return compare(within(p, error, "x"), "==", theory("values", p))


def zero_that_decides_for_the_rest():
    """The entry that is predicted to be 0 is sharp, the other is not."""
    return compare(
        within([1.0, 0.0], [0.9, 0.001], "x"), "==", theory("values", np.array([1.0, 0.0]))
    )


def everything_on_the_measured_side(seed):
    """An identity against an unmarked zero."""
    a = np.random.default_rng(seed).normal(size=4)
    return compare(within(a - a, 1e-9, "rounding"), "==", 0.0)


def maximum_without_its_upper_half():
    """A witness and a far bound enclose any value between them."""
    return compare(between(1.0, 3.0, "max"), "==", theory("supremum", 1.0))


def prediction_in_a_quotient():
    """A bound in a quotient is never compared."""
    return compare(within(0.5 / theory("bound", 1.0), 0.0, "rounding"), "<=", 1.0)


DEFECTS = [
    cancelled_rate,
    law_as_a_scale,
    tolerance_from_the_prediction,
    shift_that_nobody_judges,
    small_term_beside_a_large_one,
    logarithm_that_hides_the_rate,
    one_sharp_entry_among_fifty,
    zero_that_decides_for_the_rest,
    everything_on_the_measured_side,
    maximum_without_its_upper_half,
    prediction_in_a_quotient,
]


@pytest.mark.parametrize("body", DEFECTS, ids=lambda f: f.__name__)
def test_a_defect_that_was_found_is_exposed(body):
    parts = body(**({"seed": 0} if "seed" in body.__code__.co_varnames[:1] else {}))
    assert parts.holds, "the body itself is true: only the kernel sees the defect"
    assert exposed(body)


# ---------------------------------------------------------------------------------- honest forms
def ordering(seed, gain=0.3):
    """One method is better on average."""
    ratio = np.random.default_rng(seed).normal(1 - gain, 0.1, 60)
    return compare(mean(ratio), "<", 1.0)


def threshold_with_a_bracket_from_theory(curvature=1.0):
    """A switch is looked for around its prediction."""
    critical = theory("critical", 0.25)
    bracket = (0.5 * float(critical), 2 * float(critical))
    found = switch(lambda x: curvature * x > 0.25, bracket=bracket, tol=1e-3)
    return compare(found, "==", critical)


def zero_mean(seed, drift=0.0):
    """A prediction of zero, in units of the spread."""
    samples = np.random.default_rng(seed).normal(drift, 1, 4000)
    return compare(mean(samples), "==", theory("mean", 0.0))


def strict_counterexample(value=Fraction(17, 16)):
    """A value exceeds a bound, exactly."""
    return compare(value, ">", theory("bound", Fraction(1)))


def equivalence(n=6, wrong=False):
    """Two properties agree on every member of a family."""
    outcomes = {k: (k % 2 == 0) == ((k * k) % 2 == 0) for k in range(n)}
    if wrong:
        outcomes[0] = False
    return compare(family(outcomes), "==", n)


def certified_gap(excess=0.0):
    """An attained value and a bound enclose the optimum."""
    return compare(between(2.0 + excess, 2.0 - 1e-9), "==", theory("optimum", 2.0))


HONEST = [
    (ordering, {"gain": -0.3}),
    (threshold_with_a_bracket_from_theory, {"curvature": 0.8}),
    (zero_mean, {"drift": 1.0}),
    (strict_counterexample, {"value": Fraction(1, 2)}),
    (equivalence, {"wrong": True}),
    (certified_gap, None),
]


@pytest.mark.parametrize(("body", "control"), HONEST, ids=lambda v: getattr(v, "__name__", ""))
def test_an_honest_claim_of_an_awkward_kind_is_verified(body, control):
    broken = breaks("the hypothesis", **control) if control else note(no_break="an example")
    claim = source.ours("an example")(note(no_space="an example")(broken(body)))
    for seed in range(5):
        judgement = judge(claim, seed=seed)
        assert judgement.verdict is Verdict.VERIFIED, judgement.problems


def test_the_resolution_is_the_least_move_that_is_rejected():
    @source.ours("an example")
    @FREE
    def known(error=0.01):
        """d."""
        return compare(within(1.0, error, "x"), "==", theory("value", 1.0))

    resolution = judge(known).runs[0].resolution["value"][""]
    assert resolution == pytest.approx(0.011, rel=1e-3)
    # Just beyond it a moved prediction is decisively false, just inside it is not.
    for move, decisive in ((1.02, True), (0.98, False)):
        part = compare(within(1.0, 0.01, "x"), "==", 1 + move * resolution)
        assert part.decisively_false is decisive


def test_a_bound_shows_by_how_much_it_could_be_cut():
    def body(value, bound, sign):
        @source.ours("an example")
        @note(no_space="x")
        @breaks("larger", value=2 * bound if sign == "<=" else bound / 2)
        def bounded(value=value):
            """d."""
            return compare(within(value, 0.0, "x"), sign, theory("bound", bound))

        return judge(bounded)

    assert body(1.0, 1.5, "<=").runs[0].resolution["bound"][""] == pytest.approx(1.5)
    assert body(3.0, 1.5, ">=").runs[0].resolution["bound"][""] == pytest.approx(2.0)
    assert body(1.0, 1500.0, "<=").problems == ("the bound 'bound' could be cut by 1.5e+03",)
    assert body(1.0, 900.0, "<=").verdict is Verdict.VERIFIED


def test_the_least_factor_over_the_cases_decides_whether_a_bound_is_vacuous():
    @source.ours("an example")
    @note(no_space="x", no_break="x")
    @cases(value=[1e-6, 0.9])
    def bounded(value):
        """d."""
        return compare(within(value, 0.0, "x"), "<=", theory("bound", 1.0))

    assert judge(bounded).verdict is Verdict.VERIFIED


def test_an_idle_part_is_named():
    @source.ours("an example")
    @FREE
    def idle():
        """d."""
        return {
            "value": compare(within(1.0, 0.01, "x"), "==", theory("value", 1.0)),
            "bound": compare(within(1.0, 0.0, "x"), "<=", 10.0),
        }

    assert judge(idle).problems == ("part 'bound' is idle: nothing made it fail",)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"x": 1.0}, "is not decisively false"),
        ({"x": np.nan}, "is not decisively false: the measured"),
        ({"x": -1.0}, "raised ValueError"),
        ({"x": 5.0, "name": "other"}, "returns other parts"),
        ({"x": 1.0101}, "is not decisively false"),
    ],
)
def test_a_control_that_does_not_decide_is_named(change, word):
    @source.ours("an example")
    @note(no_space="x")
    @breaks("broken", **change)
    def check(x=1.0, name="part"):
        """d."""
        if x < 0:
            raise ValueError("negative")
        return {name: compare(within(x, 0.01, "x"), "==", theory("value", 1.0))}

    (problem,) = judge(check).problems
    assert word in problem


def test_a_control_is_judged_on_the_last_case_by_a_function_of_it():
    @source.ours("an example")
    @note(no_space="x")
    @cases(n=[1, 2])
    @full(n=[3])
    @breaks("doubled", lambda case: {"factor": 2.0 * case["n"]})
    def check(n, factor=1.0):
        """d."""
        return compare(within(factor * n, 0.01, "x"), "==", theory("value", float(n)))

    assert judge(check).controls[0].run.parts[""].centre == 8.0
    assert judge(check, preset="full").controls[0].run.parts[""].centre == 18.0


def test_exact_equalities_are_probed_too():
    @source.ours("an example")
    @FREE
    def identity():
        """d."""
        x = sp.Symbol("x")
        return compare((x + 1) ** 2, "==", theory("expansion", sp.expand((x + 1) ** 2)))

    judgement = judge(identity)
    assert judgement.verdict is Verdict.VERIFIED
    assert judgement.grade == "symbolic"
    assert judgement.runs[0].resolution == {"expansion": {"": 0.0}}


def test_a_rerun_that_raises_rejects_nothing():
    @source.ours("an example")
    @FREE
    def fragile():
        """d."""
        value = theory("value", 1.0)
        if value != 1.0:
            raise RuntimeError("moved")
        return compare(within(1.0, 0.01, "x"), "==", value)

    assert any("raised" in p or "moved" in p for p in judge(fragile).problems)


def test_coarse_is_an_exception_with_a_reason():
    @source.ours("an example")
    @note(no_space="x", no_break="x", coarse="sampling of an identity")
    def loose():
        """d."""
        return compare(within(1.0, 0.3, "x"), "==", theory("value", 1.0))

    assert judge(loose).verdict is Verdict.VERIFIED


def test_a_loose_statistical_part_is_warned_about():
    @source.ours("an example")
    @FREE
    def noisy(seed):
        """d."""
        return compare(
            mean(np.random.default_rng(7).normal(1, 0.125, 100)), "==", theory("value", 1.0)
        )

    judgement = judge(noisy)
    assert judgement.verdict is Verdict.VERIFIED
    assert "fresh seeds may fail" in record_of("a/b", judgement, "quick").warnings[0]


# ---------------------------------------------------------------------------------- refuted, open
def refutation(grade="certified", correct=True, rescued=Fraction(1)):
    @source.published("Theorem 1", seen="an example")
    @cases(x=[Fraction(2), Fraction(3)])
    @note(refuted_by="corrected")
    @rescues("small x", x=rescued)
    def stated(x):
        """x is at most 1."""
        value = x if grade == "certified" else within(float(x), 1e-9, "rounding")
        return compare(value, "<=", theory("bound", 1))

    @source.ours("corrects Theorem 1")
    @note(no_space="x")
    @breaks("larger", x=Fraction(5))
    def corrected(x=Fraction(3)):
        """x is at most 3."""
        return compare(x, "<=", theory("bound", 3 if correct else 2))

    return [j.verdict for j in judge_all([stated, corrected])]


def test_a_refutation_is_exact_and_stands_beside_its_correction():
    assert refutation() == ["refuted", "verified"]
    assert refutation(grade="numerical")[0] == "failed"
    assert refutation(correct=False) == ["failed", "failed"]
    assert refutation(rescued=Fraction(4))[0] == "failed"


def test_a_claim_that_cannot_be_decided_is_open():
    @source.ours("an example")
    @note(open="needs a larger machine")
    def undecided():
        """d."""
        return compare(within(1.0, 5.0, "x"), "==", theory("value", 3.0))

    assert judge(undecided).verdict is Verdict.OPEN


def test_the_worst_part_gives_the_grade_and_the_least_margin_the_shown_case():
    @source.ours("an example")
    @FREE
    @cases(off=[0.0, 0.005, 0.002])
    def graded(off, seed):
        """d."""
        return {
            "near": compare(within(1 + off, 0.01, "x"), "==", theory("value", 1.0)),
            "exact": compare(3, "==", theory("number", 3)),
        }

    judgement = judge(graded)
    assert judgement.grade == "numerical"
    assert min(judgement.runs, key=lambda run: run.margin).instance == {"off": 0.005}


# ---------------------------------------------------------------------------------- draws
def test_draws_reach_the_edges_and_find_what_is_false_or_blind():
    @source.ours("an example")
    @note(no_break="x")
    @space(n=Int(1, 9), x=Real(0.0, 1.0))
    def drawn(n, x):
        """d."""
        return {
            "false at the end": compare(within(n, 0.0, "x"), "<", 9),
            "blind": compare(within(0.5, 0.0, "x"), "<=", 1.0),
        }

    found = draws(drawn, count=12)
    assert len(found.instances) == 12
    assert {"n": 1, "x": 0.0} in found.instances
    assert {"n": 9, "x": 1.0} in found.instances
    assert any("false at the end" in text for text in found.false + found.inconclusive)
    assert found.blind == ("blind",)


# ---------------------------------------------------------------------------------- declarations
def test_statement_slug_and_ranges_come_from_the_declaration():
    @paper("key", r"For $x>0$,").abstract("a", "b", instance=True)
    @cases(r=[1, 2], k=[3], w=(1, 2))
    @cases(r=5, k=6, w=0)
    @space(r=Int(1, 4), k=Int("r + 1", 12))
    @note(no_break="an example")
    def some_claim(r, k, w=0):
        r"""$k>r$ by
        a margin."""
        return compare(k, ">", theory("r", r))

    assert some_claim.slug == "some-claim"
    assert some_claim.statement == "For $x>0$, $k>r$ by a margin."
    assert ranges(some_claim) == "for r in {1, ..., 4}, k in {r + 1, ..., 12}"
    assert some_claim.sources[0].serves == ("a", "b")
    assert some_claim.cases["quick"] == (
        {"r": 1, "k": 3, "w": (1, 2)},
        {"r": 2, "k": 3, "w": (1, 2)},
        {"r": 5, "k": 6, "w": 0},
    )
    assert judge(some_claim).verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    ("decorators", "word"),
    [
        ([], "space"),
        ([note(no_space="x")], "breaks"),
        ([note(no_space="x", no_break="x"), space(x=Real(0, 1))], "no_space"),
        ([note(refuted_by="y")], "rescues"),
        ([rescues("r", x=1), note(no_space="x", no_break="x")], "refuted_by"),
        ([cases(y=1), note(no_space="x", no_break="x")], "signature"),
    ],
)
def test_an_inconsistent_declaration_is_refused(decorators, word):
    def check(x=0):
        """d."""

    for decorate in decorators:
        check = decorate(check)
    with pytest.raises(ValueError, match=word):
        source.ours("an example")(check)


def test_words_that_are_missing_are_asked_for():
    with pytest.raises(ValueError, match="docstring"):
        source.ours("an example")(FREE(lambda: None))
    with pytest.raises(ValueError, match="seen"):
        source.published("Theorem 1", seen="")
    with pytest.raises(ValueError, match="letters"):
        source.abstract()
    with pytest.raises(ValueError, match="note"):
        note(slow="x")
    with pytest.raises(ValueError, match="no_space"):
        note(no_space="")


def test_exact_numbers_of_any_length_are_probed():
    for huge in (Fraction(3**20000, 2**30000), 10**400):

        @source.ours("an example")
        @FREE
        def claim(value=huge):
            """d."""
            return compare(value, "==", theory("value", value))

        assert judge(claim).verdict is Verdict.VERIFIED


def test_a_symbolic_part_is_fed_by_its_own_marks_only():
    @source.ours("an example")
    @FREE
    def claim():
        """d."""
        x = sp.Symbol("x")
        return {
            "number": compare(3, "==", theory("three", 3)),
            "symbol": compare(x, "==", theory("x", x)),
        }

    resolution = judge(claim).runs[0].resolution
    assert resolution == {"three": {"number": 0.0}, "x": {"symbol": 0.0}}


def test_a_mark_that_is_a_wide_ball_feeds_what_its_old_and_new_values_reach():
    def body():
        """A ball of radius 0.2 about 1/2 is at most 1."""
        return compare(0, "<=", theory("bound", flint.arb("0.5 +/- 0.2")))

    assert not any("feeds no part" in text for text in exposed(body))


def test_a_mark_that_no_float_can_tell_from_its_neighbour_is_seen_to_move():
    def body():
        """A large integer and one."""
        return compare(10**30 + 1, "==", 10**30 + theory("one", 1))

    assert not exposed(body)


def test_a_coarse_equality_is_seen_beside_a_sharp_one_of_the_same_mark():
    def body():
        """One value, measured well and badly."""
        value = theory("value", 1.0)
        return {
            "well": compare(within(1.0, 1e-9, "rounding"), "==", value),
            "badly": compare(within(1.0, 0.3, "rounding"), "==", value),
        }

    assert any("part 'badly' rejects no mark" in text for text in exposed(body))


def test_one_proof_refutes_beside_weaker_evidence():
    @source.ours("an example")
    @cases(x=1)
    @rescues("two", x=2)
    @note(refuted_by="another")
    def two(x):
        """x is 2."""
        sampled = mean(np.random.default_rng(0).normal(x, 0.01, 40))
        return {"exactly": compare(x, "==", 2), "in the mean": compare(sampled, "==", 2.0)}

    assert judge(two).verdict is Verdict.REFUTED


def test_the_seed_of_an_instance_is_the_one_that_a_check_gets():
    def body(seed):
        return compare(seed, "==", 7)

    assert evaluate(body, {"seed": 7}, 3)[""].holds
    assert evaluate(body, {}, 7)[""].holds


def test_every_inconclusive_draw_is_told_once():
    @source.ours("an example")
    @space(x=Real(0.0, 1.0))
    @note(no_break="an example")
    def nothing(x):
        """x is not known."""
        part = compare(within(np.nan, 0.0, "rounding"), "==", x)
        return {"one": part, "two": part}

    assert len(draws(nothing, count=5).inconclusive) == 5


@pytest.mark.parametrize(("value", "idle"), [(0.4, True), (0.6, False)])
def test_a_bound_that_could_be_halved_is_idle_without_a_control(value, idle):
    def body():
        """A value is at most 1."""
        return compare(within(value, 0.0, "rounding"), "<=", theory("bound", 1.0))

    assert any("idle" in text for text in exposed(body)) == idle
