from fractions import Fraction

import flint
import numpy as np
import pytest
import sympy as sp

from theorylab.verify import Grade, compare, mean, simulation, theory, within
from theorylab.verify.comparison import marks

UP = Fraction(11, 10)


@pytest.mark.parametrize(
    ("value", "error", "relation", "bound", "holds"),
    [
        (1.0, 0.1, "==", 1.09, True),
        (1.0, 0.1, "==", 1.11, False),
        (1.0, 0.0, "==", 1.0 + 1e-13, True),
        (1.0, 0.0, "==", 1.0 + 1e-11, False),
        (1.0, 0.0, "<=", 1.0, True),
        (1.0, 0.0, "<=", 0.999, False),
        (1.0, 0.3, "<=", 1.1, None),  # 1.3 would be overlooked
        (1.0, 0.3, "<=", 1.25, True),
        (1.0, 0.3, "<=", 0.6, False),
        (1.0, 0.3, ">=", 0.77, True),
        (1.0, 0.3, ">=", 1.1, None),
        (1.0, 0.3, ">=", 1.4, False),
        (1.0, 0.1, "<", 1.2, True),
        (1.0, 0.1, "<", 1.05, None),
        (1.0, 0.1, ">", 0.85, True),
        (1.0, 0.1, ">", 1.0, None),
        (-1.0, 0.05, "<=", -0.9, True),
        (-1.0, 0.0, "<=", -1.1, False),
        (0.01, 0.05, "<=", 0.0, True),
        (0.01, 0.2, "<=", 0.0, None),
        (np.nan, 0.1, "==", 1.0, None),
        (1.0, np.inf, "<=", 1.0, None),
        (1.0, 0.1, "==", np.nan, None),
    ],
)
def test_each_sign_is_judged_by_the_whole_enclosure(value, error, relation, bound, holds):
    assert compare(within(value, error, "x"), relation, bound).holds is holds


def test_an_array_is_judged_entry_by_entry():
    part = compare(within([1.0, 2.0], [0.1, 0.1], "x"), "==", np.array([1.0, 2.5]))
    assert part.holds is False
    assert part.rejects.tolist() == [False, True]
    assert part.margin == pytest.approx(-4)


def test_decisively_false_is_beyond_the_error_by_a_tenth_of_it():
    for off, decisive in ((0.105, False), (0.12, True)):
        part = compare(within(1.0, 0.1, "x"), "==", 1.0 + off)
        assert part.holds is False
        assert part.decisively_false is decisive


def test_a_rival_in_the_enclosure_leaves_no_verdict():
    e = within(1.0, 0.3, "x")
    assert compare(e, "==", 1.1, rival=2.0).holds is True
    assert compare(e, "==", 1.1, rival=[2.0, 0.9]).holds is None
    assert compare(e, "==", 2.0, rival=0.9).holds is False


def test_a_bare_float_is_no_measurement():
    with pytest.raises(ValueError, match="measured"):
        compare(1.0, "==", 1.0)
    with pytest.raises(ValueError, match="relation"):
        compare(1, "=", 1)


# ---------------------------------------------------------------------------------- exact numbers
x = sp.Symbol("x", positive=True)


@pytest.mark.parametrize(
    ("a", "relation", "b", "holds", "grade"),
    [
        (Fraction(1, 3), "==", Fraction(2, 6), True, "certified"),
        (Fraction(10**20 + 1, 10**20), ">", 1, True, "certified"),
        (10**400, "<=", 10**400 - 1, False, "certified"),
        ((x + 1) ** 2, "==", x**2 + 2 * x + 1, True, "symbolic"),
        ((x + 1) ** 2, "==", x**2 + 2 * x + 2, False, "symbolic"),
        ((x + 1) ** 2, ">", x**2, True, "symbolic"),
        (x - 1, ">", 0, None, "symbolic"),
        (sp.sqrt(2), "<", Fraction(3, 2), True, "certified"),
        (flint.fmpq(1, 3), "==", Fraction(1, 3), True, "certified"),
        (flint.arb("1 +/- 0.1"), "<", 2, True, "certified"),
        (flint.arb("1 +/- 0.1"), "<", 1, None, "certified"),
        (flint.arb("1 +/- 0.1"), ">=", Fraction(3, 2), False, "certified"),
    ],
)
def test_exact_numbers_are_compared_exactly(a, relation, b, holds, grade):
    part = compare(a, relation, b)
    assert part.holds is holds
    assert part.grade == grade


def test_a_ball_equals_what_it_contains():
    assert compare(flint.arb("1 +/- 0.1"), "==", Fraction(21, 20)).holds is True
    assert compare(flint.arb("1 +/- 0.1"), "==", Fraction(6, 5)).holds is False
    assert compare(flint.arb("1 +/- 0.1"), "==", 1.05).grade is Grade.CERTIFIED


def test_sequences_of_exact_numbers_are_judged_one_by_one():
    part = compare((1, Fraction(1, 2), 3), "==", (1, Fraction(1, 2), 4))
    assert part.rejects.tolist() == [False, False, True]
    assert compare(np.array([1, 2]), "<=", 2).holds is True
    with pytest.raises(ValueError, match="predicted"):
        compare((1, 2, 3), "==", (1, 2))


# ---------------------------------------------------------------------------------- marks
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, Fraction(11, 5)),
        (Fraction(1, 2), Fraction(11, 20)),
        (0, Fraction(1, 10)),
        (2.0, 2.2),
        (0.0, 0.1),
        (np.array([1.0, 0.0]), [1.1, 0.0]),
        (np.zeros(2), [0.1, 0.1]),
        ((1, 0), (Fraction(11, 10), 0)),
        (x, x * sp.Rational(11, 10)),
    ],
)
def test_a_mark_moves_by_a_tenth_when_told(value, expected):
    assert np.array_equal(theory("a", value), value)
    with marks(a=UP):
        assert (
            np.allclose(np.array(theory("a", value) - expected, float), 0)
            if not isinstance(value, tuple | sp.Symbol)
            else theory("a", value) == expected
        )
        assert np.array_equal(theory("b", value), value)


def test_a_zero_moves_both_ways():
    with marks(a=1 / UP):
        assert theory("a", 0.0) == -0.1


def test_marks_are_collected_and_refused_in_simulations():
    @simulation
    def cheat(n):
        return theory("inside", n)

    with marks() as seen:
        theory("one", 1)
        theory("two", 2)
        assert list(seen) == ["one", "two"]
    with pytest.raises(RuntimeError, match="in the check"):
        cheat(1)
    for odd in (True, None, "text", np.ones(2, bool)):
        with pytest.raises(ValueError, match="value"):
            theory("t", odd)


def test_a_simulation_is_run_once_for_each_content_and_its_arrays_are_read_only():
    runs = []

    @simulation
    def run(a, n=2):
        runs.append(n)
        return a * n

    first = run(np.ones(3))
    assert run(np.ones(3), 2) is first
    assert run(np.full(3, 1.5)) is not first
    assert len(runs) == 2
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 5.0


def test_a_false_statistical_bound_is_never_verified():
    # E X <= 0 with mean 1 and standard deviation 100: twelve samples see nothing.
    rng = np.random.default_rng(0)
    verdicts = [compare(mean(rng.normal(1, 100, 12)), "<=", 0.0).holds for _ in range(200)]
    assert True not in verdicts


def test_a_centre_and_an_error_whose_sum_overflows_are_finite():
    part = compare(within(1e308, 1e308, "rounding"), "==", 1.5e308)
    assert part.holds


def test_one_false_number_decides_beside_others_that_cannot_be_told():
    x = sp.Symbol("x", real=True)
    part = compare((2, x), "<=", (1, 1))
    assert part.holds is False
    assert part.decisively_false
    assert compare((0, x), "<=", (1, 1)).holds is None


def test_a_false_part_stays_false_beside_its_rival():
    assert compare(2, "==", 3, rival=2).holds is False
    assert compare(within(2.0, 0.1, "rounding"), "==", 3.0, rival=2.0).holds is False


def test_shapes_that_do_not_broadcast_are_refused_by_name():
    samples = np.random.default_rng(0).random((20, 2))
    with pytest.raises(ValueError, match=r"predicted: .*broadcasts"):
        compare(within([1.0, 2.0], 0.0, "rounding"), "==", [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"bias: .*broadcasts"):
        mean(samples, bias=[0.1, 0.2, 0.3], source="series")
    assert mean(samples[:, 0], bias=[0.1, 0.2], source="series").error.shape == (2,)
