"""Losses against their definitions, and their duals against Fenchel's inequality."""

import numpy as np
import pytest
from flint import arb, fmpq, fmpq_mat
from scipy.optimize import approx_fprime
from scipy.special import logsumexp

from theorylab.neural_collapse._losses import CrossEntropy, Loss, MaxSuppression, Squared, as_loss
from theorylab.numerics.balls import rational

K = 4
SOFT = 0.7 * np.eye(K) + 0.3 / K
DEFINED = {
    Squared(): lambda z, k: np.sum((z - np.eye(K)[k]) ** 2) / 2,
    CrossEntropy(): lambda z, k: logsumexp(z) - z[k],
    CrossEntropy(0.3): lambda z, k: logsumexp(z) - SOFT[k] @ z,
    MaxSuppression(0.3): lambda z, k: logsumexp(z) - z[k] + 0.3 * (z.max() - z.mean()),
}
WITH_DUAL = [Squared(), CrossEntropy(), CrossEntropy(0.3)]


def draw(seed=0, N=6):
    rng = np.random.default_rng(seed)
    return 2 * rng.standard_normal((K, N)), rng.integers(K, size=N)


@pytest.mark.parametrize("loss", DEFINED, ids=str)
def test_values_slopes_and_balls_are_those_of_the_definition(loss):
    Z, y = draw()
    values, gradient = loss.terms(Z, y)
    for z, k, value, slope in zip(Z.T, y.tolist(), values, gradient.T, strict=True):
        assert value == pytest.approx(DEFINED[loss](z, k), rel=1e-13)
        assert slope == pytest.approx(approx_fprime(z, DEFINED[loss], 1e-7, k), abs=1e-5)
        ball = loss.ball([arb(v) for v in z.tolist()], k)
        assert float(ball.mid()) == pytest.approx(value, rel=1e-13)
    weights = np.arange(1.0, 7.0)
    mean, slope = loss.mean(Z, y, weights)
    assert mean == pytest.approx(weights @ values / 21)
    assert slope == pytest.approx(gradient * weights / 21)
    low, touched = loss.minorant.terms(Z, y)[0], Z.argmax(axis=0) == y
    assert (low <= values + 1e-14).all()
    assert ((values - low < 1e-14) == (touched | (loss.minorant == loss))).all()


@pytest.mark.parametrize("loss", WITH_DUAL, ids=str)
def test_duals_meet_the_loss_at_the_gradient_and_nowhere_exceed_it(loss):
    Z, _ = draw(1, K)
    values, gradient = loss.terms(Z, np.arange(K))
    other = loss.terms(Z[:, ::-1], np.arange(K))[1]
    assert loss.dual(gradient) + (gradient * Z).sum(axis=0) == pytest.approx(values, abs=1e-13)
    assert (loss.dual(other) + (other * Z).sum(axis=0) < values - 1e-3).all()
    for k, column in enumerate(other.T.tolist()):
        exact = [rational(v) for v in column]
        assert float(loss.dual_ball(exact, k).mid()) == pytest.approx(loss.dual(other)[k])


def test_small_probabilities_of_wrong_classes_keep_their_digits():
    wrong = np.exp(-45.0)
    values, gradient = CrossEntropy().terms(45 * np.eye(K), np.arange(K))
    assert values == pytest.approx(np.log1p((K - 1) * wrong), rel=1e-14, abs=0)
    expected = wrong * (np.ones((K, K)) - K * np.eye(K))
    assert gradient == pytest.approx(expected, rel=1e-12, abs=0)
    # The entropy of (1 - 3 w, w, w, w); terms of the second order in w are below rounding.
    assert CrossEntropy().dual(gradient) == pytest.approx((K - 1) * wrong * 46, rel=1e-12, abs=0)


def test_duals_are_finite_on_distributions_only():
    smooth, third = CrossEntropy(0.5), fmpq(1, 3)
    inside = [-2 * third, third, third]  # q = (0, 1/2, 1/2) with s = (2/3, 1/6, 1/6)
    assert smooth.in_domain(inside, 0)
    assert not CrossEntropy(0.25).in_domain([-4 * third, 2 * third, 2 * third], 0)
    assert not smooth.in_domain([*inside[:2], third + fmpq(1, 10**30)], 0)
    assert not smooth.in_domain(
        [inside[0] - fmpq(1, 10**15), inside[1] + fmpq(1, 10**15), third], 0
    )
    assert Squared().in_domain([third, third, third], 0)
    assert np.isneginf(CrossEntropy().dual(np.array([[-1.1, 0.0], [1.1, 0.0]]))[0])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("loss", WITH_DUAL, ids=str)
def test_points_moved_into_the_domain_stay_close(loss, order):
    # Probabilities that are zero in double precision: of wrong classes, and of labels.
    gradient = loss.terms(800 * np.eye(3)[::order], np.arange(3))[1]
    near = fmpq_mat(3, 3, [rational(v) for v in gradient.ravel().tolist()])
    moved = loss.into_domain(near, [5, 2, 1])
    for k in range(3):
        column = [moved[i, k] for i in range(3)]
        assert loss.in_domain(column, k)
        if loss != Squared():
            assert min(loss._distribution(column, k)) > 0
        assert all(
            abs(float(arb(c).mid()) - g) < 1e-15
            for c, g in zip(column, gradient[:, k], strict=True)
        )


def test_names_stand_for_losses_and_kinds_are_held():
    assert as_loss("mse") == Squared()
    assert as_loss("ce") == CrossEntropy(0.0)
    assert as_loss("ls", CrossEntropy) == CrossEntropy(smoothing=0.1)
    assert as_loss("maxsup") == MaxSuppression(smoothing=0.1)
    own = MaxSuppression(0.2)
    assert as_loss(own, CrossEntropy, MaxSuppression) is own
    for wrong in ("mse", "no such loss", 3, None, Squared()):
        with pytest.raises(ValueError, match=r"loss: expected one of ce, ls, maxsup, got"):
            as_loss(wrong, CrossEntropy, MaxSuppression)
    for share in (-0.1, 1.0, np.nan, "half"):
        for kind in (CrossEntropy, MaxSuppression):
            with pytest.raises(ValueError, match="smoothing"):
                kind(share)
    assert isinstance(own, Loss)
