import ctypes
import re
import signal
import warnings
from itertools import product

import cvxpy as cp
import numpy as np
import pytest

from theorylab.convex_relu import (
    Hinge,
    Interpolation,
    Logistic,
    Network,
    Squared,
    Weighted,
    _conic,
    _robust_program,
    collapse_radius,
    corridor_widths,
    improve_adversarially,
    linearized_loss,
    random_stable_network,
    robust_trainer,
    robust_training,
    stability_radii,
    train_robust,
    worst_case,
    zero_threshold,
)
from theorylab.convex_relu.arrangements import enumerate_arrangements
from theorylab.convex_relu.robust_training import RobustStatus
from theorylab.convex_relu.training import train
from theorylab.numerics.bounds import power_of_two

BALLS = ("linf", "l2")


def data(seed, n=6, d=2):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, np.where(rng.random(n) < 0.5, -1.0, 1.0), rng.normal(size=n)


def random_network(seed, m, d, skip=False):
    rng = np.random.default_rng(seed)
    linear, offset = (rng.normal(size=d), float(rng.normal())) if skip else (None, None)
    return Network(rng.normal(size=(m, d)), rng.normal(size=m), rng.normal(size=m), linear, offset)


def stable_network(X, eps, ball, seed, m=5):
    """Neurons drawn until they keep their sign on all balls."""
    rng = np.random.default_rng(seed)
    weights, biases = np.empty((0, X.shape[1])), np.empty(0)
    while len(weights) < m:
        w, b = rng.normal(size=X.shape[1]), 2 * rng.normal()
        radius = np.abs(X @ w + b).min() / np.linalg.norm(w, 1 if ball == "linf" else 2)
        if radius >= eps:
            weights, biases = np.vstack([weights, w]), np.append(biases, b)
    return Network(weights, rng.normal(size=m), biases)


def grid(d, eps, ball, count):
    points = np.array(list(product(np.linspace(-eps, eps, count), repeat=d)))
    if ball == "l2":
        radial = np.linalg.norm(points, axis=1, keepdims=True)
        points = points * np.abs(points).max(axis=1, keepdims=True) / np.maximum(radial, 1e-300)
    return points


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize(("d", "count"), [(1, 2001), (2, 201), (3, 31)])
def test_attack_beats_a_grid_by_no_more_than_the_grid_can_miss(ball, d, count):
    for seed in range(4):
        network = random_network(seed, 6, d, skip=seed % 2 == 1)
        X, labels, y = data(seed, 3, d)
        eps = (0.3, 1.0)[seed % 2]
        points = grid(d, eps, ball, count)
        lipschitz = np.abs(network.output_weights) @ np.linalg.norm(
            network.weights, axis=1
        ) + np.linalg.norm(network.linear)
        # Every point of the ball is within this distance of the grid (the map onto the round ball
        # at most doubles distances).
        miss = lipschitz * 2 * np.sqrt(d) * eps / (count - 1)
        for loss, target in (("hinge", labels), ("squared", y)):
            attack = worst_case(network, X, target, eps, loss=loss, ball=ball)
            sizes = np.linalg.norm(
                attack.perturbations, ord=np.inf if ball == "linf" else 2, axis=1
            )
            assert np.all(sizes <= eps * (1 + 1e-12))
            np.testing.assert_allclose(
                network(X + attack.perturbations), attack.outputs, rtol=1e-12, atol=1e-12
            )
            for k, x in enumerate(X):
                f = network(x + points)
                values = (
                    np.maximum(1 - target[k] * f, 0)
                    if loss == "hinge"
                    else 0.5 * (f - target[k]) ** 2
                )
                slope = 1.0 if loss == "hinge" else np.abs(f - target[k]).max() + miss
                assert values.max() - 1e-12 <= attack.losses[k] <= values.max() + slope * miss


def test_attack_of_an_affine_network_is_the_dual_norm():
    w = np.array([1.0, -2.0, 0.5])
    network = Network(np.zeros((0, 3)), np.zeros(0), linear=w)
    for ball, norm in (("linf", 3.5), ("l2", np.linalg.norm(w))):
        attack = worst_case(network, np.zeros((1, 3)), [1.0], 0.1, ball=ball)
        assert attack.loss == pytest.approx(1 + 0.1 * norm)
        linear = linearized_loss(network, np.zeros((1, 3)), [1.0], 0.1, ball=ball)
        assert linear == pytest.approx(attack.loss, rel=1e-14)
    assert worst_case(network, np.ones((1, 3)), [1.0], 0.0).loss == pytest.approx(1.5)


@pytest.mark.parametrize("ball", BALLS)
def test_stable_networks_are_affine_on_every_ball(ball):
    for seed in range(6):
        X, labels, y = data(seed, 7)
        network = stable_network(X, 0.15, ball, seed)
        assert np.all(stability_radii(network, X, ball=ball) >= 0.15)
        for loss, target in (("hinge", labels), ("squared", y)):
            exact = worst_case(network, X, target, 0.15, loss=loss, ball=ball).loss
            assert linearized_loss(network, X, target, 0.15, loss=loss, ball=ball) == pytest.approx(
                exact, rel=1e-12
            )


def test_a_network_with_a_kink_in_the_ball_is_not():
    network = Network([[1.0]], [1.0])
    X = np.array([[0.1]])
    assert stability_radii(network, X)[0] == pytest.approx(0.1)
    for eps, same in ((0.1, True), (0.3, False)):
        exact = worst_case(network, X, [1.0], eps).loss
        assert (linearized_loss(network, X, [1.0], eps) == pytest.approx(exact)) is same


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("bias", [False, True])
def test_without_perturbations_it_is_exact_training(ball, bias):
    X, labels, y = data(3)
    for loss, target in (("hinge", labels), ("squared", y)):
        found, exact = (
            train_robust(X, target, 0.1, eps=0.0, loss=loss, ball=ball, bias=bias),
            train(X, target, 0.1, loss=loss, bias=bias),
        )
        assert found.objective == pytest.approx(exact.objective, rel=1e-6)
        assert found.dual_objective <= exact.objective <= found.objective * (1 + 1e-8)


@pytest.mark.parametrize(("loss", "bias"), [("hinge", True), ("hinge", False), ("squared", True)])
def test_box_program_is_nominal_training_on_all_corners(loss, bias):
    X, labels, y = data(1, 5)
    target = labels if loss == "hinge" else y
    eps, beta = 0.08, 0.05
    corners = [X + eps * np.array(c) for c in product((-1, 1), repeat=2)]
    lifted = [np.column_stack([C, np.ones(5)]) if bias else C for C in corners]
    patterns = enumerate_arrangements(np.column_stack([X, np.ones(5)]) if bias else X)
    V = cp.Variable((2 * len(patterns), 2 + bias))
    D = np.vstack([patterns, patterns])
    gates = np.where(np.arange(len(D)) < len(patterns), 1.0, -1.0)[:, None] * D
    constraints = [cp.multiply(2 * D - 1, V @ C.T) >= 0 for C in lifted]
    outputs = [cp.sum(cp.multiply(gates, V @ C.T), axis=0) for C in lifted]
    if loss == "hinge":
        fit = cp.sum(cp.maximum(0, *[1 - cp.multiply(target, f) for f in outputs]))
    else:
        fit = 0.5 * cp.sum_squares(cp.maximum(*[cp.abs(f - target) for f in outputs]))
    value = cp.Problem(cp.Minimize(fit + beta * cp.sum(cp.norm(V, 2, axis=1))), constraints).solve(
        solver=cp.CLARABEL
    )
    assert train_robust(X, target, beta, eps=eps, loss=loss, bias=bias).objective == pytest.approx(
        value, rel=1e-5
    )


@pytest.mark.parametrize("ball", BALLS)
def test_optimum_is_a_stable_network_with_its_true_worst_case(ball):
    X, labels, y = data(2)
    for loss, target in (("hinge", labels), ("squared", y)):
        found = train_robust(X, target, 0.05, eps=0.1, loss=loss, ball=ball, bias=True)
        network = found.network
        assert network.n_neurons > 0
        assert np.all(stability_radii(network, X, ball=ball) >= 0.1 * (1 - 1e-12))
        z = np.column_stack([X, np.ones(len(X))]) @ found.blocks.T
        np.testing.assert_array_equal(found.block_patterns, z.T > 0.0)
        np.testing.assert_allclose(np.maximum(z, 0.0) @ found.signs, network(X), rtol=1e-12)
        attacked = (
            worst_case(network, X, target, 0.1, loss=loss, ball=ball).loss + 0.05 * network.penalty
        )
        assert attacked == pytest.approx(found.objective, rel=1e-12)
        assert found.gap < 1e-6
        sizes = np.linalg.norm(found.adversary, ord=np.inf if ball == "linf" else 2, axis=1)
        assert np.all(sizes <= 0.1 * (1 + 1e-9))


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_neurons_in_thin_corridors_are_stable_to_the_last_digit(seed):
    # The solver's neurons are moved into their cones, which are thin.
    X, labels, _ = data(seed)
    widest, beta = corridor_widths(X).max(), zero_threshold(X, labels, loss="hinge")
    for share in (1e-3, 0.1):
        train_at = robust_trainer(X, labels, share * beta, tol=1e-300)
        for eps in (0.99 * widest, (1.0 - 1e-5) * widest):
            with pytest.warns(RuntimeWarning, match="relative gap"):
                found = train_at(eps)
            assert found.network.n_neurons > 0
            assert stability_radii(found.network, X).min() >= eps
            # Nor is the bound that of radii without neurons.
            assert found.status is RobustStatus.INACCURATE
            assert found.dual_objective < found.objective < len(X)
            difference = found.objective - found.dual_objective
            assert found.gap == pytest.approx(difference / found.objective, rel=1e-9)


@pytest.mark.parametrize("loss", ["hinge", "squared"])
@pytest.mark.parametrize("ball", BALLS)
def test_the_adversary_attains_the_worst_case_in_all_units(ball, loss):
    rng = np.random.default_rng(0)
    X, y = 10.0 * rng.normal(size=(5, 2)), 37.0 * rng.normal(size=5)
    y = np.sign(y) if loss == "hinge" else y
    found = train_robust(X, y, 0.3, eps=0.5, loss=loss, ball=ball)
    f = found.network(X + found.adversary)
    losses = np.maximum(1 - y * f, 0) if loss == "hinge" else (f - y) ** 2 / 2
    assert losses.sum() + 0.3 * found.network.penalty == pytest.approx(found.objective, rel=1e-6)
    assert np.abs(found.adversary).max() == pytest.approx(0.5, rel=0.5)
    # The weights are the slopes of the losses; between the slopes of a hinge at its kink.
    if loss == "squared":
        np.testing.assert_allclose(
            found.adversary_weights, np.abs(f - y), atol=1e-3 * np.abs(y).max()
        )
    else:
        assert found.adversary_weights.sum() == pytest.approx(found.objective, rel=1e-6)
    with pytest.warns(RuntimeWarning, match="relative gap"):
        again = train_robust(X, y, 0.3, eps=0.5, loss=loss, ball=ball, tol=found.gap / 2)
    assert again.status is RobustStatus.INACCURATE


@pytest.mark.parametrize("ball", BALLS)
def test_no_stable_network_lies_below_the_dual_bound(ball):
    X, labels, y = data(4)
    for loss, target in (("hinge", labels), ("squared", y)):
        bound = train_robust(
            X, target, 0.05, eps=0.1, loss=loss, ball=ball, bias=True
        ).dual_objective
        for seed in range(100):
            network = stable_network(X, 0.1, ball, seed, m=3)
            scale = np.random.default_rng(seed).uniform(0, 1)
            small = Network(
                scale * network.weights, scale * network.output_weights, scale * network.biases
            )
            assert (
                worst_case(small, X, target, 0.1, loss=loss, ball=ball).loss + 0.05 * small.penalty
                >= bound
            )


@pytest.mark.parametrize("ball", BALLS)
def test_a_prepared_program_forgets_the_radii_before(ball):
    X, labels, y = data(6)
    for loss, target in (("hinge", labels), ("squared", y)):
        train_at = robust_trainer(X, target, 0.05, loss=loss, ball=ball, bias=True)
        for eps in (0.1, 0.0, 0.2, 0.1):
            fresh = train_robust(X, target, 0.05, eps=eps, loss=loss, ball=ball, bias=True)
            assert train_at(eps).objective == fresh.objective
            np.testing.assert_array_equal(train_at(eps).blocks, fresh.blocks)


def test_values_grow_with_the_ball():
    X, labels, _ = data(5)
    values = [
        train_robust(X, labels, 0.05, eps=eps, ball="l2", bias=True).objective
        for eps in (0.0, 0.1, 0.2)
    ]
    assert values == sorted(values)
    assert values[2] <= train_robust(X, labels, 0.05, eps=0.2, ball="linf", bias=True).objective * (
        1 + 1e-6
    )


@pytest.mark.parametrize("ball", BALLS)
def test_corridors_are_the_widest_margins(ball):
    X, _, _ = data(6, 5, 3)
    widths = corridor_widths(X, ball=ball)
    for pattern, width in zip(enumerate_arrangements(X), widths, strict=True):
        v = cp.Variable(3)
        margin = cp.min(cp.multiply(2.0 * pattern - 1, X @ v))
        constraint = cp.norm(v, 1 if ball == "linf" else 2) <= 1
        assert width == pytest.approx(
            cp.Problem(cp.Maximize(margin), [constraint]).solve(solver=cp.CLARABEL), abs=1e-7
        )


@pytest.mark.parametrize("ball", BALLS)
def test_widest_corridor_in_the_plane(ball):
    X, _, _ = data(7, 8)
    angles = np.linspace(0, np.pi, 200_001)
    V = np.column_stack([np.cos(angles), np.sin(angles)])
    V /= np.linalg.norm(V, 1 if ball == "linf" else 2, axis=1, keepdims=True)
    best = np.abs(X @ V.T).min(axis=0).max()
    step = np.pi / 200_000 * 2 * np.linalg.norm(X, axis=1).max()
    assert best - 1e-12 <= corridor_widths(X, ball=ball).max() <= best + step


def test_round_corridors_turn_with_the_data():
    X, _, _ = data(8, 6, 3)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    base = np.sort(corridor_widths(X, ball="l2"))
    np.testing.assert_allclose(
        np.sort(corridor_widths(3 * X @ turn, ball="l2")), 3 * base, rtol=1e-9
    )


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_training_collapses_where_predicted(loss, ball):
    X, labels, y = data(9)
    target = labels if loss == "hinge" else 2.0 * y
    zero = len(y) if loss == "hinge" else 0.5 * target @ target
    options, widest = {"loss": loss, "ball": ball}, corridor_widths(X, ball=ball).max()
    threshold = zero_threshold(X, target, loss=loss)
    for share, unit in ((0.01, 1.0), (0.7, 1.0), (0.9, 5.0)):
        beta = share * threshold * unit
        radius = collapse_radius(unit * X, target, beta, **options)
        assert radius <= unit * widest * (1.0 if share < 0.1 else 0.9)
        train_at = robust_trainer(unit * X, target, beta, **options)
        assert train_at(1.001 * radius).objective == pytest.approx(zero, rel=1e-15)
        assert 0.1 * zero < train_at(0.995 * radius).objective < zero * (1.0 - 1e-9)
    for share, some in ((0.999, True), (1.001, False)):
        assert (collapse_radius(X, target, share * threshold, **options) > 0.0) is some


def test_local_search_ends_once_no_attack_is_new():
    X, labels, y = data(12)
    for loss, target in (("hinge", labels), ("squared", y)):
        start = train_robust(X, target, 0.05, eps=0.1, loss=loss, bias=True).network
        # Without perturbations the only attack is known from the start.
        once, often = (
            improve_adversarially(start, X, target, 0.05, eps=0.0, loss=loss, bias=True, n_rounds=r)
            for r in (1, 9)
        )
        np.testing.assert_array_equal(once.weights, often.weights)
        first, last = (
            worst_case(f, X, target, 0.0, loss=loss).loss + 0.05 * f.penalty for f in (start, once)
        )
        assert last < first


def test_local_search_never_raises_the_value_and_gains_nothing_without_perturbations():
    X, labels, _ = data(10)
    for eps in (0.0, 0.1):
        start = train_robust(X, labels, 0.05, eps=eps, bias=True)
        better = improve_adversarially(
            start.network, X, labels, 0.05, eps=eps, bias=True, n_rounds=3
        )
        value = worst_case(better, X, labels, eps).loss + 0.05 * better.penalty
        assert value <= start.objective * (1 + 1e-12)
        if eps == 0:
            assert value >= train(X, labels, 0.05, loss="hinge", bias=True).dual_objective


@pytest.mark.parametrize("loss", [Hinge(), Squared()], ids=lambda loss: loss.name)
def test_a_loss_is_an_object_or_its_name(loss):
    X, labels, y = data(5)
    target = labels if loss.name == "hinge" else y
    network = random_network(5, 4, 2)
    radii = [collapse_radius(X, target, 0.1, loss=given) for given in (loss, loss.name)]
    assert radii[0] == radii[1] > 0.0
    for solve in (
        lambda given: train_robust(X, target, 0.1, eps=0.1, loss=given).objective,
        lambda given: worst_case(network, X, target, 0.2, loss=given).loss,
        lambda given: linearized_loss(network, X, target, 0.2, loss=given),
        lambda given: (
            improve_adversarially(
                network, X, target, 0.1, eps=0.1, loss=given, bias=True, n_rounds=1
            ).penalty
        ),
    ):
        assert solve(loss) == solve(loss.name)
        for other in ("logistic", Logistic(), Interpolation(), Weighted(loss, np.ones(6))):
            with pytest.raises(ValueError, match="loss: expected one of hinge, squared, got '"):
                solve(other)


def test_bad_input_is_named():
    X, labels, y = data(0)
    with pytest.raises(ValueError, match="y: expected labels -1 and 1"):
        train_robust(X, y, 0.1, eps=0.1)
    with pytest.raises(ValueError, match="network: expected one output"):
        worst_case(Network(np.ones((1, 2)), np.ones((1, 2))), X, labels, 0.1)
    for ball in BALLS:
        with pytest.raises(ValueError, match="candidate points"):
            worst_case(random_network(0, 40, 8), np.zeros((1, 8)), [1.0], 10.0, ball=ball)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train_robust(np.zeros((2, 2)), [1.0, -1.0], 0.1, eps=0.1).network.n_neurons == 0


@pytest.mark.parametrize("ball", ["linf", "l2"])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_random_stable_networks_are_stable_in_all_units(ball, scale):
    rng = np.random.default_rng(0)
    X = scale * rng.normal(size=(9, 2))
    for radius in (0.0, 0.3 * scale, 3.0 * scale):
        network = random_stable_network(X, radius, n_neurons=40, ball=ball, rng=rng)
        assert network.n_neurons == 40
        # Every corner and many directions of every ball: no neuron changes its sign.
        moves = rng.normal(size=(200, 2))
        p = np.inf if ball == "linf" else 2
        moves *= 0.999 * radius / np.linalg.norm(moves, ord=p, axis=1, keepdims=True)
        signs = [(X + m) @ network.weights.T + network.biases > 0 for m in moves]
        assert all((s == signs[0]).all() for s in signs)
    # Some hyperplanes pass between the points.
    near = random_stable_network(X, 0.01 * scale, n_neurons=200, ball=ball, rng=rng)
    active = (X @ near.weights.T + near.biases > 0).sum(axis=0)
    assert ((active > 0) & (active < 9)).mean() > 0.1


def test_an_attack_finds_the_flat_that_no_gradient_points_to():
    # Zero on a slab that misses the centre of the ball, and beyond it never.
    network = Network([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [1.0, 1.0], [0.3, -0.5])
    for ball in BALLS:
        attack = worst_case(network, np.zeros((1, 3)), [1.0], 1.0, ball=ball)
        assert attack.loss == 1.0
        assert 0.3 <= attack.perturbations[0, 0] <= 0.5


@pytest.mark.parametrize("ball", BALLS)
def test_an_attack_reaches_kinks_next_to_the_sphere(ball):
    # A neuron that only the last twentieth of the ball switches on, or off.
    for side, worst in ((1.0, 0.05), (-1.0, 1.95)):
        network = Network([[1.0, 0.0]], [1.0], [-0.95 * side])
        attack = worst_case(network, np.zeros((1, 2)), [-1.0], 1.0, ball=ball)
        assert attack.loss == pytest.approx(1.0 + worst, rel=1e-12)
        least = worst_case(network, np.zeros((1, 2)), [1.0], 1.0, ball=ball)
        assert least.outputs[0] == 0.0


@pytest.mark.parametrize("ball", BALLS)
def test_an_attack_that_does_no_harm_comes_as_near_as_it_can(ball):
    for y in (1.0, -1.0):
        network = Network([[1.0, 0.0]], [y], [10.0])
        attack = worst_case(network, np.zeros((1, 2)), [y], 1.0, ball=ball)
        assert attack.loss == 0.0
        assert attack.outputs[0] == pytest.approx(9.0 * y, rel=1e-12)


@pytest.mark.parametrize("ball", BALLS)
def test_an_attack_does_not_depend_on_units(ball):
    # 1 - |x_1 - 0.2| - |x_2 - 0.3|, greatest where both neurons' hyperplanes meet.
    W = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    a, b = -np.ones(4), np.array([-0.2, 0.2, -0.3, 0.3])
    for unit in (1e-160, 1e-14, 1.0, 1e120):
        s = np.array([1.0, unit, unit, 1.0])
        network = Network(s[:, None] * W, a / s, s * b, offset=1.0)
        attack = worst_case(network, np.zeros((1, 2)), [-1.0], 1.0, ball=ball)
        np.testing.assert_allclose(attack.perturbations, [[0.2, 0.3]], rtol=1e-12)
        assert attack.loss == pytest.approx(2.0, rel=1e-12)
        # The data in other units, and the neurons in the inverse ones.
        network = Network(W / unit, a, b, offset=1.0)
        attack = worst_case(network, np.zeros((1, 2)), [-1.0], unit, ball=ball)
        np.testing.assert_allclose(attack.perturbations / unit, [[0.2, 0.3]], rtol=1e-12)
        np.testing.assert_allclose(
            stability_radii(network, np.zeros((1, 2)), ball=ball) / unit, [0.2, 0.2, 0.3, 0.3]
        )


def extreme_outputs(network, X, eps, ball):
    """The least and the largest outputs on balls. Without the kinks of the neurons of positive
    output weight, a choice D of which is on, the output is concave and nowhere larger: one program
    for all inputs and every D, which are all feasible."""
    ends = []
    for sign in (-1.0, 1.0):
        a, W = sign * network.output_weights, network.weights
        D = np.array(list(product((0.0, 1.0), repeat=int((a > 0).sum()))))
        centres, D = np.repeat(X, len(D), axis=0), np.tile(D, (len(X), 1))
        U = cp.Variable(centres.shape)
        Z = U @ W.T + (centres @ W.T + network.biases)
        f = sign * ((centres + U) @ network.linear + network.offset)
        for j in np.flatnonzero(a < 0):
            f += a[j] * cp.pos(Z[:, j])
        for j, column in zip(np.flatnonzero(a > 0), D.T, strict=True):
            f += cp.multiply(a[j] * column, Z[:, j])
        inside = [cp.norm(U, np.inf if ball == "linf" else 2, axis=1) <= eps]
        cp.Problem(cp.Maximize(cp.sum(f)), inside).solve(solver=cp.CLARABEL)
        ends.append(sign * f.value.reshape(len(X), -1).max(axis=1))
    return np.column_stack(ends)


@pytest.mark.parametrize("ball", BALLS)
def test_an_attack_attains_brute_force_where_hyperplanes_are_dependent(ball):
    for seed in range(9):
        rng = np.random.default_rng(seed)
        d, eps = (1, 2, 2, 3, 3)[seed % 5], (0.5, 1.0, 2.0)[seed % 3]
        # Repeated, opposite and proportional rows, and points in which many hyperplanes meet.
        W, b = rng.integers(-2, 3, (6, d)), rng.integers(-1, 2, 6)
        network = Network(W, rng.normal(size=6), b, rng.normal(size=d), rng.normal())
        network = network if seed % 4 else random_network(seed, 6, d)
        X = rng.integers(-2, 3, (3, d)) / 2.0
        ends = extreme_outputs(network, X, eps, ball)
        labels, y = np.array([1.0, -1.0, 1.0]), rng.normal(size=3)
        for loss, target, worst in (
            ("hinge", labels, np.maximum(1 - labels[:, None] * ends, 0).max(axis=1)),
            ("squared", y, 0.5 * ((ends - y[:, None]) ** 2).max(axis=1)),
        ):
            attack = worst_case(network, X, target, eps, loss=loss, ball=ball)
            np.testing.assert_allclose(attack.losses, worst, rtol=1e-6, atol=1e-6)
            sizes = np.linalg.norm(
                attack.perturbations, ord=np.inf if ball == "linf" else 2, axis=1
            )
            assert sizes.max() <= eps * (1 + 1e-15)
            moved = network(X + attack.perturbations)
            np.testing.assert_allclose(attack.outputs, moved, rtol=1e-13, atol=1e-13)
            if loss == "hinge":  # the least margin, also where it does no harm
                np.testing.assert_allclose(
                    labels * moved, (labels[:, None] * ends).min(axis=1), rtol=1e-6, atol=1e-6
                )


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("seed", [0, 28])
def test_an_attack_searches_every_cell_of_a_kink(ball, seed):
    # The linear term leads to the kink of the first neuron, in whose plane four others bend.
    rng = np.random.default_rng(seed)
    a, W = np.append(-20.0, rng.normal(size=5)[1:]), rng.normal(size=(5, 3))
    network = Network(W, a, rng.uniform(-1, 1, size=5), 8.0 * W[0])
    attack = worst_case(network, np.zeros((1, 3)), [-1.0], 1.0, ball=ball)
    largest = extreme_outputs(network, np.zeros((1, 3)), 1.0, ball)[0, 1]
    assert attack.outputs[0] == pytest.approx(largest, rel=1e-6)
    assert np.abs(W[0] @ attack.perturbations[0] + network.biases[0]) < 1e-12


@pytest.mark.parametrize(("ball", "corner"), [("linf", (0.2, 1.0)), ("l2", (0.6, 0.8))])
def test_an_attack_never_leaves_its_ball(ball, corner):
    # The output is largest where two hyperplanes meet, which rounding may put inside of the ball.
    first, total = corner[0], sum(corner)
    for beyond in (-1e-10, 1e-16, 1e-12, 1e-10, 0.1):
        W = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
        b = np.array([-first, first, -total - beyond, total + beyond])
        network = Network(W, -np.ones(4), b)
        attack = worst_case(network, np.zeros((1, 2)), [-1.0], 1.0, ball=ball)
        size = np.linalg.norm(attack.perturbations[0], ord=np.inf if ball == "linf" else 2)
        assert size <= 1.0 + 1e-15
        assert attack.outputs[0] == pytest.approx(network(attack.perturbations)[0], abs=1e-15)
        assert -1.001 * max(beyond, 0.0) - 1e-15 <= attack.outputs[0] <= 0.0
        if beyond < 0.0:
            assert attack.outputs[0] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("ball", BALLS)
def test_attacks_of_more_points_than_allowed_are_refused(monkeypatch, ball):
    network, x, evaluated = random_network(3, 6, 3), np.zeros((1, 3)), []
    value = Network.__call__

    def counted(self, X):
        evaluated.append(len(X))
        return value(self, X)

    with monkeypatch.context() as patch:
        patch.setattr(Network, "__call__", counted)
        worst_case(network, x, [1.0], 50.0, ball=ball)
    limit = "theorylab.convex_relu._attacks._MAX_CANDIDATES"
    # In the box each candidate is a point, on the sphere at most three are.
    monkeypatch.setattr(limit, evaluated[0] // (1 if ball == "linf" else 3) - 1)
    with pytest.raises(ValueError, match="candidate points per input"):
        worst_case(network, x, [1.0], 50.0, ball=ball)
    monkeypatch.setattr(limit, 3 * evaluated[0])
    worst_case(network, x, [1.0], 50.0, ball=ball)


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("angle", [1e-3, 1e-5])
def test_an_attack_finds_where_nearly_parallel_hyperplanes_meet(ball, angle):
    # -|x_1 - 0.2| - |(x_1 - 0.2) / angle + x_2 - 0.3|
    W = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, angle], [-1.0, -angle]])
    b = -W @ [0.2, 0.3]
    network = Network(W, -1.0 / np.array([1.0, 1.0, angle, angle]), b)
    attack = worst_case(network, np.zeros((1, 2)), [-1.0], 1.0, ball=ball)
    np.testing.assert_allclose(attack.perturbations, [[0.2, 0.3]], atol=1e-15 / angle)
    assert attack.loss == pytest.approx(1.0, abs=1e-15 / angle)


def test_points_at_the_origin_move_nothing_without_perturbations():
    X = np.array([[0.4, -1.1], [0.0, 0.0], [1.3, 0.7], [-0.2, 0.9], [-1.5, 2.4]])
    y = np.array([1.0, -1.0, -1.0, 1.0, -1.0])
    beta = 0.5 * zero_threshold(X, y, loss="hinge")
    for ball in BALLS:
        found = train_robust(X, y, beta, eps=0.0, ball=ball)
        assert found.objective == pytest.approx(train(X, y, beta, loss="hinge").objective, rel=1e-7)
        assert found.status is RobustStatus.SOLVED
    assert train_robust(np.zeros((2, 2)), [1.0, -1.0], 0.1, eps=0.0).objective == 2.0


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_beyond_the_widest_corridor_zero_is_proved(ball, loss):
    X, labels, y = data(3, 4)
    target = labels if loss == "hinge" else y
    zero = 4.0 if loss == "hinge" else 0.5 * y @ y
    origin = np.vstack([X[:3], np.zeros(2)])  # whose balls no hyperplane misses
    radii = ((X, corridor_widths(X, ball=ball).max() * (1.0 + 1e-9)), (origin, 1e-12))
    for points, eps in radii:
        found = train_robust(points, target, 1e-6, eps=eps, loss=loss, ball=ball)
        assert found.network.n_neurons == 0
        assert found.objective == pytest.approx(zero, rel=1e-15)
        assert found.gap <= 1e-15
        np.testing.assert_allclose(found.adversary_weights, np.abs(target))
        assert not found.adversary.any()
    # A bias of its own is stable at every radius.
    ones = np.ones(4) if loss == "hinge" else 1.0 + np.abs(y)
    biased = train_robust(X, ones, 1e-2, eps=30.0, loss=loss, ball=ball, bias=True)
    assert biased.objective < 0.9 * (4.0 if loss == "hinge" else 0.5 * ones @ ones)
    assert biased.gap < 1e-6


def test_the_zero_network_is_the_worst_there_is():
    # The solver's network, at a penalty one part in a billion below that of zero, costs more.
    rng = np.random.default_rng(1182)
    for _ in range(20):
        X, y = rng.normal(size=(3, 2)), rng.normal(size=3)
        beta = (1.0 - 1e-9) * zero_threshold(X, y, bias=True)
        found = train_robust(X, y, beta, eps=1e-9, loss="squared", bias=True)
        assert found.objective <= 0.5 * np.sum(y**2)


def test_a_target_of_zero_has_an_adversary():
    # The output is zero for reasons of symmetry: the adversary may pull either way.
    X, y = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]), np.array([0.0, 3.0, 0.0])
    found = train_robust(X, y, 0.1, eps=0.3, loss="squared")
    f = found.network(X + found.adversary)
    worst = worst_case(found.network, X, y, 0.3, loss="squared")
    np.testing.assert_allclose((f - y) ** 2 / 2, worst.losses, rtol=1e-4, atol=1e-8)


def test_a_solver_that_gives_up_leaves_bounds():
    # Interior-point methods make no further progress on such data.
    rng = np.random.default_rng(820)
    X, y = 1e-4 * rng.normal(size=(4, 3)), rng.normal(size=4)
    for share in (1e-6, 1e-9, 1e-12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = train_robust(X, y, share, eps=1e-13, loss="squared", bias=True)
        assert 0.0 <= found.dual_objective <= found.objective <= 0.5 * y @ y


def test_a_stopped_solver_leaves_a_feasible_network_and_a_true_bound():
    X, labels, y = data(2)
    for loss, target in (("hinge", labels), ("squared", 37.0 * y)):
        best = train_robust(X, target, 0.05, eps=0.1, loss=loss, bias=True)
        for last in (1, 6, 12):
            seen = []

            def stops(progress, seen=seen, last=last):
                seen.append(progress)
                return progress.iteration == last

            with pytest.warns(RuntimeWarning, match="stopped by the callback"):
                found = train_robust(X, target, 0.05, eps=0.1, loss=loss, bias=True, callback=stops)
            assert found.status is RobustStatus.STOPPED
            assert seen[-1].iteration == last
            assert found.dual_objective <= best.objective * (1.0 + 1e-9)
            assert found.objective >= best.dual_objective
            attack = worst_case(found.network, X, target, 0.1, loss=loss)
            assert attack.loss + 0.05 * found.network.penalty == pytest.approx(found.objective)
        # What is told near the end is the value, in the units of the data.
        assert seen[-1].objective == pytest.approx(best.objective, rel=0.1)
        assert seen[-1].error < 0.1


def test_what_a_callback_raises_comes_out_of_the_solver():
    X, labels, _ = data(2)

    def interrupted(progress):
        raise KeyboardInterrupt(f"at {progress.iteration}")

    with pytest.raises(KeyboardInterrupt, match="at 1"):
        train_robust(X, labels, 0.05, eps=0.1, callback=interrupted)


def test_bisection_ends_at_the_accuracy_of_float64():
    X, labels, _ = data(9, 4)
    radius = collapse_radius(X, labels, 0.02, tol=1e-300)
    assert radius == pytest.approx(collapse_radius(X, labels, 0.02, tol=1e-9), rel=1e-6)
    seen = []
    widest = corridor_widths(X).max()
    # An upper bound, as nothing was tried.
    assert collapse_radius(X, labels, 0.02, callback=lambda p: seen.append(p) or True) == widest
    assert [p.iteration for p in seen] == [1]
    assert seen[0].objective == 0.5 * widest
    assert collapse_radius(X, labels, 0.02, tol=0.03, callback=seen.append) > 0.0
    np.testing.assert_allclose([p.error for p in seen[1:]], 0.5 ** np.arange(6))


def test_a_radius_that_the_budget_leaves_open_is_between_the_ends_it_names(minute):
    X, labels, _ = data(12)
    exact = collapse_radius(X, labels, 2.0)
    for halvings in (1, 3, 6):
        with pytest.warns(RuntimeWarning, match="max_halvings leave the radius between") as told:
            radius = collapse_radius(X, labels, 2.0, max_halvings=halvings)
        low, high = map(float, re.findall(r"\d\.\d+(?:e-\d+)?", str(told[0].message)))
        assert low < exact < high
        assert high - low == pytest.approx(corridor_widths(X).max() / 2**halvings, rel=1e-4)
        at_the_end = high == pytest.approx(corridor_widths(X).max(), rel=1e-5)
        assert radius == pytest.approx(high if at_the_end else (low + high) / 2, rel=1e-4)
    assert collapse_radius(X, labels, 2.0, max_halvings=20) == exact
    assert collapse_radius(X, labels, 2.0, tol=0.1, max_halvings=4) > 0.0
    costs = minute(robust_training, 1, 60)
    patterns = enumerate_arrangements(X)
    for ball, doubled in (("l2", X), ("linf", X), ("l2", np.vstack([X, X]))):
        rows = np.hstack([patterns] * (len(doubled) // len(X)))
        with pytest.warns(RuntimeWarning, match="raise max_halvings, or tol"):
            collapse_radius(
                doubled,
                np.tile(labels, len(doubled) // len(X)),
                2.0,
                ball=ball,
                arrangements=rows,
            )
    assert costs[2] == 4 * costs[0] < 4 * costs[1]


def test_large_programs_are_refused_before_they_are_set_up():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="arrangements: expected at most 150000 entries"):
        train_robust(rng.normal(size=(55, 3)), np.ones(55), 0.1, eps=0.1)


@pytest.mark.parametrize(
    "lie", ["weights", "slopes", "opposite", "moves", "multipliers", "corrections", "none"]
)
@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_a_play_against_the_rules_proves_nothing(monkeypatch, lie, ball, loss):
    X, labels, y = data(2)
    target = labels if loss == "hinge" else y
    options = {"eps": 0.1, "loss": loss, "ball": ball}
    best = train_robust(X, target, 0.05, **options)
    patterns = enumerate_arrangements(X)
    both = np.vstack([patterns, -1.0 * patterns])
    sides = np.tile(2.0 * patterns - 1.0, (2, 1))

    def solve(problem, tol, *stops):
        found = honest(problem, tol, *stops)
        if not stops:
            return found
        by_shape = {}
        for variable in problem.variables():
            by_shape.setdefault((variable.shape, variable.is_nonneg()), variable)
        weights = by_shape[(len(X),), True]
        slopes = by_shape.get(((len(X),), False))
        moves, zeta = by_shape[X.shape, False], by_shape[(len(both), 2), False]
        multipliers = by_shape[both.shape, True]
        # Everything that the rules of the play allow, and more, up to a bound of the zero network.
        # In the units of the program, whose powers of two are those of the data.
        played = target / (power_of_two(y) if loss == "squared" else 1.0)
        full, points = np.abs(played), X / power_of_two(np.linalg.norm(X, axis=1))
        h = both @ (played[:, None] * points)
        changes = {
            "none": {},
            "weights": {weights: 3.0 * weights.value},
            "slopes": {} if slopes is None else {weights: 0.0 * full, slopes: 0.01 * played},
            "opposite": {} if slopes is None else {weights: full, slopes: -played},
            "moves": {weights: full, slopes: played, moves: -played[:, None] * points},
            "multipliers": {
                weights: full,
                slopes: played,
                moves: 0.0 * X,
                zeta: 0.0 * zeta.value,
                multipliers: np.array(
                    [
                        np.linalg.lstsq((s[:, None] * points).T, -g, rcond=None)[0]
                        for s, g in zip(sides, h, strict=True)
                    ]
                ),
            },
            "corrections": {
                weights: full,
                slopes: played,
                moves: 0.0 * X,
                multipliers: 0.0 * multipliers.value,
                zeta: h,
            },
        }[lie]
        for variable, value in changes.items():
            if variable is not None:
                variable.save_value(value)
        return found

    honest = _robust_program.solve
    with monkeypatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patched.setattr(_robust_program, "solve", solve)
        found = train_robust(X, target, 0.05, **options)
    assert 0.0 <= found.dual_objective <= best.objective * (1.0 + 1e-9)
    sizes = np.linalg.norm(found.adversary, ord=np.inf if ball == "linf" else 2, axis=1)
    assert np.all(sizes <= 0.1 * (1.0 + 1e-12))
    # The weights returned are those that attain the bound.
    weights = found.adversary_weights
    if loss == "hinge":
        assert weights.sum() == pytest.approx(found.dual_objective, rel=1e-12)
    else:
        # Of no more than the best multiple, and with slopes of at most the weights.
        assert 0.5 * weights @ weights <= found.dual_objective * (1.0 + 1e-12)
        attained = weights @ np.abs(y) - 0.5 * weights @ weights
        assert attained >= found.dual_objective * (1.0 - 1e-12)
    if lie == "none":
        assert found.dual_objective == best.dual_objective


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_the_adversary_pulls_each_output_away_from_its_label(ball, loss):
    X, labels, y = data(2)
    target = labels if loss == "hinge" else y
    beta = 0.3 * zero_threshold(X, target, loss=loss, bias=True)
    found = train_robust(X, target, beta, eps=0.1, loss=loss, ball=ball, bias=True)
    worst = worst_case(found.network, X, target, 0.1, loss=loss, ball=ball)

    def total(moves):
        f = found.network(X + moves)
        losses = np.maximum(1 - target * f, 0) if loss == "hinge" else (f - target) ** 2 / 2
        return float(losses.sum())

    assert len(set(np.sign(target))) == 2
    assert total(found.adversary) == pytest.approx(worst.loss, rel=1e-5)
    assert total(-found.adversary) < 0.99 * total(np.zeros_like(X)) < 0.98 * worst.loss


def test_local_search_finds_the_optimum_of_one_neuron():
    # Of (v x)_+ with labels 1 at 1 and -1 at -a the worst case is known, within the kink's reach.
    a, eps, beta = 0.3, 0.5, 0.1
    X, y = np.array([[1.0], [-a]]), np.array([1.0, -1.0])
    start = Network([[0.4]], [0.9])
    found = improve_adversarially(start, X, y, beta, eps=eps, n_rounds=20)
    value = worst_case(found, X, y, eps).loss + beta * found.penalty
    assert value == pytest.approx(1.0 + (eps - a + beta) / (1.0 - eps), rel=1e-6)
    # A penalty that is most of what the slope of the hinge gains.
    found = improve_adversarially(start, X[:1], y[:1], 0.7, eps=0.1, n_rounds=20)
    value = worst_case(found, X[:1], y[:1], 0.1).loss + 0.7 * found.penalty
    assert value == pytest.approx(0.7 / 0.9, rel=1e-6)
    # Squared: v below the target, at which the penalty balances the loss.
    eps, beta, target = 0.1, 0.5, np.array([2.0])
    v = (2.0 - beta / (1.0 - eps)) / (1.0 - eps)
    found = improve_adversarially(start, X[:1], target, beta, eps=eps, loss="squared", n_rounds=20)
    assert found(X[:1])[0] == pytest.approx(v, rel=1e-5)
    assert abs(found.weights[0, 0]) == pytest.approx(abs(found.output_weights[0]), rel=1e-4)
    # A negative target needs a negative output weight, and is missed from above.
    found = improve_adversarially(
        Network([[0.4]], [-0.9]), X[:1], -target, beta, eps=eps, loss="squared", n_rounds=20
    )
    assert found(X[:1])[0] == pytest.approx(-v, rel=1e-5)
    # At the origin only the bias counts, whichever way the input moves.
    found = improve_adversarially(
        Network([[0.01]], [0.9], [0.5]),
        np.zeros((1, 1)),
        target,
        beta,
        eps=eps,
        loss="squared",
        bias=True,
        n_rounds=20,
    )
    assert found(np.zeros((1, 1)))[0] == pytest.approx(2.0 - beta, rel=1e-4)
    assert found.biases[0] > 0.0


@pytest.mark.parametrize("seed", [4, 5, 8])
def test_local_search_tells_of_the_best_network_met(seed):
    # Rounds against new attacks begin worse than the network before them.
    X, labels, _ = data(seed)
    rng = np.random.default_rng(seed + 100)
    start = Network(rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=3))
    options = {"eps": 0.4, "bias": True}

    def value(network):
        return worst_case(network, X, labels, 0.4).loss + 0.05 * network.penalty

    seen = []
    found = improve_adversarially(
        start, X, labels, 0.05, **options, n_rounds=5, callback=seen.append
    )
    told = [p.objective for p in seen]
    assert told == sorted(told, reverse=True)
    assert len(told) > 2
    assert told[-1] == pytest.approx(value(found), rel=1e-12)
    assert told[-1] < 0.5 * value(start)
    assert [p.iteration for p in seen] == list(range(1, len(seen) + 1))
    first = improve_adversarially(
        start, X, labels, 0.05, **options, n_rounds=5, callback=lambda p: True
    )
    assert value(first) == pytest.approx(told[0], rel=1e-12)
    assert value(first) <= value(start)


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_above_the_threshold_zero_is_proved(ball, loss):
    X, labels, y = data(2)
    target = labels if loss == "hinge" else y
    beta = 3.0 * zero_threshold(X, target, loss=loss, bias=True)
    found = train_robust(X, target, beta, eps=0.1, loss=loss, ball=ball, bias=True)
    assert found.network.n_neurons == 0
    assert found.objective == pytest.approx(6.0 if loss == "hinge" else 0.5 * y @ y, rel=1e-15)
    assert found.gap < 1e-8
    np.testing.assert_allclose(found.adversary_weights, np.abs(target), rtol=1e-3)


@pytest.mark.parametrize("ball", BALLS)
def test_stability_radii_are_distances_with_biases_in_all_units(ball):
    rng = np.random.default_rng(4)
    for unit in (1e-6, 1.0, 37.0, 1e6):
        X, network = unit * rng.normal(size=(5, 3)), random_network(5, 4, 3)
        network = Network(network.weights, network.output_weights, unit * network.biases)
        slacks = np.abs(X @ network.weights.T + network.biases).min(axis=0)
        lengths = np.linalg.norm(network.weights, 1 if ball == "linf" else 2, axis=1)
        np.testing.assert_allclose(
            stability_radii(network, X, ball=ball), slacks / lengths, rtol=1e-12
        )
    still = Network([[0.0, 0.0, 0.0]], [1.0], [2.0])
    assert stability_radii(still, X, ball=ball).tolist() == [np.inf]
    far = Network([[1e-200, 0.0, 0.0]], [1.0], [1e200])
    with pytest.raises(ValueError, match="network: expected neurons whose hyperplanes"):
        stability_radii(far, X, ball=ball)


@pytest.mark.parametrize("ball", BALLS)
def test_random_stable_networks_change_units_exactly(ball):
    # Also where squares of the data are no float64 numbers.
    X, _, _ = data(3)

    def drawn(scale):
        rng = np.random.default_rng(0)
        return random_stable_network(scale * X, 0.3 * scale, n_neurons=9, ball=ball, rng=rng)

    base = drawn(1.0)
    for scale in (2.0**-700, 2.0**700):
        other = drawn(scale)
        np.testing.assert_array_equal(other.weights, base.weights)
        np.testing.assert_array_equal(other.biases, scale * base.biases)


def test_hyperplanes_that_miss_a_box_in_many_dimensions_are_found():
    # The box reaches sqrt(d) times as far as its radius: biases of the size of the data are short.
    network = random_stable_network(
        np.zeros((1, 400)), 1.0, n_neurons=3, rng=np.random.default_rng(0)
    )
    reach = np.abs(network.weights).sum(axis=1)
    assert np.all(reach > 10.0 * np.linalg.norm(network.weights, axis=1))
    assert np.all(np.abs(network.biases) >= reach)


@pytest.mark.parametrize("ball", BALLS)
def test_radii_of_the_longest_neurons(ball):
    # The power of two above this weight is no float64.
    network = Network([[1.5e308, 0.0]], [1.0])
    np.testing.assert_allclose(stability_radii(network, [[2.0, 1.0]], ball=ball), [2.0], rtol=1e-15)


@pytest.mark.parametrize("ball", BALLS)
def test_corridors_on_a_line_are_the_nearest_points(ball):
    rng = np.random.default_rng(0)
    for _ in range(12):
        X = rng.uniform(0.1, 1.0, size=(5, 1))
        X = np.vstack([X, X * (1.0 - rng.uniform(0.0, 2e-6, size=(5, 1)))])
        np.testing.assert_allclose(corridor_widths(X, ball=ball), 2 * [X.min()], rtol=1e-11)


def test_an_interrupt_while_the_solver_is_busy_is_kept():
    # `map` stands for the solver: machine code that a signal reaches between two of its callbacks.
    raised = []
    listener = _conic._listener(lambda *told: False, raised)
    next(listener)
    busy = ctypes.CDLL(None)["raise"]
    # In the background of a shell interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert list(map(listener.send, map(busy, [signal.SIGINT]))) == [True]
    finally:
        signal.signal(signal.SIGINT, before)
    assert [type(error) for error in raised] == [KeyboardInterrupt]
    listener.close()
