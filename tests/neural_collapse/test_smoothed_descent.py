import numpy as np
import pytest
from scipy.optimize import approx_fprime, brentq
from scipy.special import log_softmax, softmax

from theorylab import neural_collapse as nc


def soft_labels(labels, n_classes, alpha):
    return (1 - alpha) * np.eye(n_classes)[:, labels] + alpha / n_classes


def overlapping(seed, n=60, d=3, K=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(K, size=n)
    return rng.standard_normal((d, K))[:, y] + rng.standard_normal((d, n)), y


def test_label_gradients_are_those_of_finite_differences():
    X, y = overlapping(1, n=2)
    V, T = np.random.default_rng(2).standard_normal((3, 3)), soft_labels(y, 3, 0.4)
    for i in range(2):
        loss = lambda v, i=i: -T[:, i] @ log_softmax(v.reshape(3, 3) @ X[:, i])  # noqa: E731
        difference = approx_fprime(V.ravel(), loss, 1e-7).reshape(3, 3)
        assert nc.label_gradients(X, V, T)[i] == pytest.approx(difference, abs=1e-6)


def test_gradient_noise_is_the_average_over_samples_and_below_its_bound():
    X, y = overlapping(4)
    V = np.random.default_rng(5).standard_normal((3, 3))
    noise = nc.gradient_noise(X, y, V)
    plain = (
        sum(np.outer(softmax(V @ x) - np.eye(3)[k], x) for x, k in zip(X.T, y, strict=True)) / 60
    )
    for theta in (0.0, 0.3, 1 / (1 + noise.delta), 1.0):
        targets = soft_labels(y, 3, theta).T
        squares = [
            np.sum((np.outer(softmax(V @ x) - t, x) - plain) ** 2)
            for x, t in zip(X.T, targets, strict=True)
        ]
        assert noise.smoothed(theta) == pytest.approx(np.mean(squares), rel=1e-12)
        assert noise.smoothed(theta) <= noise.bound(theta)
    assert noise.bound(1 / (1 + noise.delta)) == pytest.approx(
        2 * noise.uniform / (1 + noise.delta)
    )


def test_stochastic_descent_agrees_with_plain_numpy():
    X, y = overlapping(6, n=20)
    rng = np.random.default_rng(7)
    order, V = rng.integers(20, size=30), rng.standard_normal((3, 3))
    run = nc.smoothed_sgd(X, y, V, order, 0.6, step_size=0.2, switch=12, every=4)
    hard, uniform = np.eye(3)[:, y], np.full((3, 20), 1 / 3)
    value = lambda V: -np.mean(log_softmax(V @ X, axis=0)[y, range(20)])  # noqa: E731
    assert run.first_value == pytest.approx(value(V), rel=1e-13)
    for t, i in enumerate(order):
        theta = 0.6 if t < 12 else 0.0
        plain, used = (
            nc.label_gradients(X, V, hard),
            nc.label_gradients(X, V, (1 - theta) * hard + theta * uniform),
        )
        if t % 4 == 0:
            assert run.squared_gradients[t // 4] == pytest.approx(
                np.sum(plain.mean(axis=0) ** 2), rel=1e-12
            )
            assert run.noise[t // 4] == pytest.approx(
                nc.gradient_noise(X, y, V).smoothed(theta), rel=1e-11
            )
        V = V - 0.2 * used[i]
    assert run.classifier == pytest.approx(V, rel=1e-12)
    assert run.last_value == pytest.approx(value(V), rel=1e-12)
    assert run.squared_gradients.size == 8


def test_stochastic_descent_does_not_change_its_start():
    X, y = overlapping(6, n=20)
    start = np.zeros((3, 3))
    nc.smoothed_sgd(X, y, start, np.arange(20), 0.5, step_size=0.1, switch=0)
    assert not start.any()


@pytest.mark.parametrize("theta", [0.0, 0.4])
def test_quadratic_floor_is_the_end_of_iterated_moments(theta):
    lam, s2, eta, b = 1.7, 0.6, 0.5, 0.3
    first, second = 4.0, 20.0
    for _ in range(400):
        keep, push = 1 - eta * (1 - theta) * lam, -eta * theta * b
        second = keep**2 * second + 2 * keep * push * first + push**2
        second += (eta * (1 - theta)) ** 2 * s2
        first = keep * first + push
    floor = nc.quadratic_floor(lam, noise=s2, step_size=eta, theta=theta, bias=b)
    assert floor == pytest.approx(second, rel=1e-12)


@pytest.mark.parametrize(("theta", "bias"), [(0.5, 0.2), (0.9, 2.0), (0.1, 1e-3)])
def test_floors_cross_at_the_threshold(theta, bias):
    lam, s2 = 2.5, 0.4

    def ahead(eta):
        smoothed = nc.quadratic_floor(lam, noise=s2, step_size=eta, theta=theta, bias=bias)
        return smoothed - nc.quadratic_floor(lam, noise=s2, step_size=eta)

    root = brentq(ahead, 1e-9, (2 - 1e-9) / lam, xtol=1e-14)
    assert nc.smoothing_threshold(lam, noise=s2, theta=theta, bias=bias) == pytest.approx(
        root, rel=1e-6
    )
    assert ahead(root / 2) > 0 > ahead((root + 2 / lam) / 2)


def test_unstable_steps_have_no_floor():
    with pytest.raises(ValueError, match="step_size"):
        nc.quadratic_floor(1.0, noise=1.0, step_size=2.0)


def test_a_stopped_run_is_the_beginning_of_the_whole(monkeypatch):
    # Legs are long; a leg of 10 steps by the same arithmetic needs 10^6 times the samples.
    from theorylab.neural_collapse import smoothed_descent

    X, y = overlapping(6, n=20)
    order, start = np.random.default_rng(7).integers(20, size=30), np.zeros((3, 3))
    monkeypatch.setattr(smoothed_descent, "_WORK", 10 * 9 * (1 + 20 / 4))
    steps = {"step_size": 0.2, "switch": 12, "every": 4}
    seen = []
    whole = nc.smoothed_sgd(X, y, start, order, 0.6, **steps, callback=seen.append)
    assert [record.iteration for record in seen] == [10, 20, 30]
    assert seen[-1].objective == whole.last_value
    part = nc.smoothed_sgd(
        X, y, start, order, 0.6, **steps, callback=lambda record: record.iteration == 20
    )
    direct = nc.smoothed_sgd(X, y, start, order[:20], 0.6, **steps)
    for name in ("classifier", "squared_gradients", "noise", "last_value"):
        assert np.array_equal(getattr(part, name), getattr(direct, name))
    assert np.array_equal(whole.noise[:5], part.noise)
