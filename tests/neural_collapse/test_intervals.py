"""The provers of this theme, each fed a statement that is just false."""

import numpy as np
import pytest
from flint import arb, fmpq, fmpq_mat

from theorylab.neural_collapse._intervals import (
    eigenvalues_from_below,
    feasible_scale,
    is_positive_definite,
    log_sum_exp,
    precision,
    proves_bound,
)
from theorylab.numerics.balls import rational_matrix


@pytest.fixture(autouse=True)
def bits():
    with precision():
        yield


def test_definiteness_is_proved_or_not():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    for least, definite in ((1e-9, True), (-1e-9, False), (-0.5, False)):
        matrix = (Q * [3.0, 2.0, 1.0, least]) @ Q.T
        assert is_positive_definite(rational_matrix((matrix + matrix.T) / 2)) is definite
    singular = fmpq_mat(2, 2, [1, 2, 2, 4])
    assert not is_positive_definite(singular)
    assert not is_positive_definite(fmpq_mat(2, 2, [0, 1, 1, 0]))


def test_a_bound_above_the_minimum_is_not_proved():
    # (x - 5/4)^2 + sqrt(x) has its minimum 17/16 at x = 1.
    least = arb(17) / 16

    def convex(x):
        return (x - 1.25) ** 2, 2 * (x - 1.25)

    def concave(x):
        return x.sqrt()

    assert proves_bound(convex, concave, 3.0, least - arb(1e-9))
    for excess in (1e-9, 1e-3, 1.0):
        assert not proves_bound(convex, concave, 3.0, least + arb(excess))
    # A budget that is spent proves nothing, not even what is true.
    assert not proves_bound(convex, concave, 3.0, least - arb(1e-9), most=5)


def test_the_feasible_scale_is_the_largest_up_to_rounding():
    rng = np.random.default_rng(1)
    matrix, weights = rng.standard_normal((3, 4)), [1, 2, 3, 5]
    norm = np.linalg.norm(matrix * np.sqrt(weights), 2)
    for share in (0.3, 0.999):
        t = feasible_scale(
            rational_matrix(matrix), weights, fmpq(*(share * norm).as_integer_ratio()) ** 2
        )
        assert float(t.p) / float(t.q) == pytest.approx(share, rel=1e-12)
        assert float(t.p) / float(t.q) < share * (1 + 1e-15)
    assert feasible_scale(rational_matrix(matrix), weights, fmpq(10) ** 6) == 1


def test_lower_bounds_of_eigenvalues_are_close():
    matrix = np.array([[5.0, 2.0, 0.0], [2.0, 5.0, 0.0], [0.0, 0.0, 3.0]])
    bounds = [float(b.p) / float(b.q) for b in eigenvalues_from_below(rational_matrix(matrix))]
    assert bounds == pytest.approx([7.0, 3.0, 3.0], rel=1e-12)
    assert all(bound <= exact for bound, exact in zip(bounds, [7.0, 3.0, 3.0], strict=True))


def test_wrong_estimates_of_eigenvalues_prove_nothing_wrong(monkeypatch):
    rng = np.random.default_rng(2)
    matrix, eigvalsh = rational_matrix(rng.standard_normal((3, 3))), np.linalg.eigvalsh
    gram, identity = (
        matrix * matrix.transpose(),
        fmpq_mat(3, 3, [int(i % 4 == 0) for i in range(9)]),
    )
    exact = [float(b.p) / float(b.q) for b in eigenvalues_from_below(gram)]
    for error in (0.99, 1.01):
        monkeypatch.setattr(np.linalg, "eigvalsh", lambda X, e=error: e * eigvalsh(X))
        t = feasible_scale(matrix, [1, 1, 1], fmpq(1, 10))
        assert is_positive_definite(identity * fmpq(1, 10) - gram * t * t)
        bounds = [float(b.p) / float(b.q) for b in eigenvalues_from_below(gram)]
        assert all(0.9 * b < a <= b * (1 + 1e-12) for a, b in zip(bounds, exact, strict=True))


def test_log_sum_exp_of_large_numbers():
    value = log_sum_exp([arb(1000), arb(1000), arb(-1000)])
    assert float(value.mid()) == pytest.approx(1000 + np.log(2), rel=1e-15)
