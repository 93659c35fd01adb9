"""Losses with weights: repeated rows, a convex program, exact domains, and false certificates."""

import dataclasses
import warnings

import cvxpy as cp
import numpy as np
import pytest
from flint import arb, ctx, fmpq, fmpq_mat
from scipy.optimize import approx_fprime, minimize_scalar

from theorylab.convex_relu import (
    Hinge,
    Interpolation,
    Logistic,
    Rejection,
    Squared,
    TrainingStatus,
    Weighted,
    certify,
    enumerate_arrangements,
    find_optimal_set,
    train,
    train_gated,
    zero_threshold,
)
from theorylab.convex_relu._dual_norm import norm_over_sphere
from theorylab.convex_relu._dual_point import exact_dual
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu.losses import as_loss
from theorylab.numerics.balls import rational_matrix

LOSSES = ("squared", "logistic", "hinge")


def problem(seed, loss, n=12, d=2):
    """Return data, targets, whole weights, and the rows repeated as often."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    w = rng.integers(1, 5, n)
    assert len(set(w)) > 2
    return X, y if loss == "squared" else np.sign(y), w, np.repeat(np.arange(n), w)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("options", "d"),
    [({}, 2), ({"bias": True}, 2), ({"skip": True}, 3), ({"bias": True, "skip": True}, 1)],
)
@pytest.mark.parametrize("share", [0.3, 1e-2])
def test_whole_weights_are_repeated_rows(loss, options, d, share):
    X, y, w, rows = problem(d, loss, d=d)
    bias = options.get("bias", False)
    threshold = zero_threshold(X, y, loss=Weighted(loss, w), bias=bias)
    assert threshold == pytest.approx(zero_threshold(X[rows], y[rows], loss=loss, bias=bias), 1e-9)
    weighted = train(X, y, share * threshold, loss=Weighted(loss, w), **options)
    repeated = train(X[rows], y[rows], share * threshold, loss=loss, **options)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-10)
    assert weighted.status is TrainingStatus.CERTIFIED
    verification = weighted.certificate.verify()
    assert verification.accepted
    assert verification.gap <= 1e-8
    # The certificate of the repeated problem, from the weighted network and dual point.
    same = certify(
        X[rows],
        y[rows],
        share * threshold,
        weighted.network,
        loss=loss,
        dual=(weighted.certificate.dual / w)[rows],
        **options,
    )
    assert same.objective == pytest.approx(weighted.objective, rel=1e-12)
    assert same.gap <= 1e-8
    unweighted = train(X, y, share * threshold, loss=loss, **options)
    # Weights of a hinge that is met say nothing.
    differ = abs(unweighted.objective - weighted.objective) > 1e-4 * weighted.objective
    assert differ or loss == "hinge"


@pytest.mark.parametrize("loss", LOSSES)
def test_fractional_weights_solve_the_finite_convex_program(loss):
    rng = np.random.default_rng(7)
    X, y, *_ = problem(7, loss, n=6)
    w = 10.0 ** rng.uniform(-1.0, 1.0, 6)
    beta = 0.2 * zero_threshold(X, y, loss=Weighted(loss, w))
    D = np.vstack([enumerate_arrangements(X)] * 2)
    gates = np.where(np.arange(len(D)) < len(D) // 2, 1.0, -1.0)[:, None] * D
    V = cp.Variable((len(D), 2))
    fit = cp.sum(cp.multiply(gates, V @ X.T), axis=0)
    terms = {
        "squared": 0.5 * cp.square(fit - y),
        "logistic": cp.logistic(-cp.multiply(y, fit)),
        "hinge": cp.pos(1.0 - cp.multiply(y, fit)),
    }[loss]
    value = cp.Problem(
        cp.Minimize(w @ terms + beta * cp.sum(cp.norm(V, 2, axis=1))),
        [cp.multiply(2 * D - 1, V @ X.T) >= 0],
    ).solve(solver=cp.CLARABEL)
    assert train(X, y, beta, loss=Weighted(loss, w)).objective == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_scaling_weights_and_penalty_together_scales_the_problem(loss, spread):
    X, y, *_ = problem(11, loss)
    w = 10.0 ** np.random.default_rng(1).uniform(-spread, spread, len(X))
    beta = 0.05 * zero_threshold(X, y, loss=Weighted(loss, w))
    base = train(X, y, beta, loss=Weighted(loss, w))
    assert base.certificate.verify().accepted
    for scale in (1e-100, 3.0, 1e100):
        scaled = train(X, y, scale * beta, loss=Weighted(loss, scale * w))
        assert scaled.objective == pytest.approx(scale * base.objective, rel=1e-8)
        assert scaled.certificate.verify().accepted


@pytest.mark.parametrize("loss", LOSSES)
def test_several_outputs_share_the_weights(loss):
    X, y, w, rows = problem(3, loss, n=9)
    Y = np.column_stack([y, np.roll(y, 1)])
    beta = 0.1 * zero_threshold(X, Y, loss=Weighted(loss, w))
    weighted = train(X, Y, beta, loss=Weighted(loss, w))
    assert weighted.objective == pytest.approx(
        train(X[rows], Y[rows], beta, loss=loss).objective, rel=1e-10
    )
    assert weighted.certificate.verify().accepted


def test_what_remains_of_an_infimum_has_its_own_weights():
    X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    y, w = np.array([1.0, 1.0, -1.0, 1.0]), np.array([1, 2, 3, 4])
    rows = np.repeat(np.arange(4), w)
    found = []
    for data, targets, loss in ((X, y, Weighted("logistic", w)), (X[rows], y[rows], "logistic")):
        with pytest.warns(RuntimeWarning, match="infimum is not attained"):
            found.append(train(data, targets, 0.1, loss=loss, skip=True))
    assert found[0].objective == pytest.approx(found[1].objective, rel=1e-9)
    assert found[0].certificate.verify().accepted


def test_weights_where_all_labels_are_separated():
    X, y, w = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, 1.0, -1.0]), [1.0, 2.0, 3.0]
    with pytest.warns(RuntimeWarning, match="infimum is not attained"):
        found = train(X, y, 0.1, loss=Weighted("logistic", w), skip=True)
    assert found.objective < 1e-15
    assert found.certificate.verify().accepted
    with pytest.warns(RuntimeWarning, match="infimum is not attained"):
        plain = train(X, y, 0.1, loss="logistic", skip=True)
    np.testing.assert_allclose(found.network(X), plain.network(X))


@pytest.mark.parametrize(
    ("X", "y", "w", "beta"),
    [
        # Neurons as short as rounding errors beside a map that moves with them.
        (
            [-0.80162239, 1.3025041, -0.15345932, -0.80162239],
            [1.0, -1.0, -1.0, -1.0],
            [6.66079166, 0.87563546, 0.92447281, 1.54243656],
            0.08087531373029787,
        ),
        (
            [0.0, -1.0, 2.0, -1.0, -1.0, 0.0],
            [-1.0, -1.0, -1.0, 1.0, -1.0, -1.0],
            [0.35235315, 0.86791826, 0.94050944, 1.70543115, 0.57420951, 0.70768647],
            0.018810188814719245,
        ),
        # Labels that contradict each other, one of them seven decades lighter.
        ([-1.8875993871702208] * 2, [1.0, -1.0], [6.29408923e03, 5.65243666e-04], 1344.7834675),
    ],
)
def test_a_skip_connection_is_brought_to_its_optimum(X, y, w, beta):
    X, y = np.array(X)[:, None], np.array(y)
    solution = train(X, y, beta, loss=Weighted("hinge", w), skip=True)
    assert solution.status is TrainingStatus.CERTIFIED
    assert solution.certificate.verify().accepted


def test_margins_of_large_maps_are_met():
    # Outputs are differences of numbers of 1e4, so that scaling by a few units does not do.
    rng = np.random.default_rng(144)
    n = rng.integers(6, 16)
    X, y = rng.standard_normal((n, 3)), np.sign(rng.standard_normal(n))
    loss = Weighted("hinge", rng.integers(1, 5, n))
    beta = 0.05 * zero_threshold(X, y, loss=loss, bias=True)
    solution = train(X, y, beta, loss=loss, skip=True, bias=True)
    assert solution.objective == 0.0
    assert solution.status is TrainingStatus.CERTIFIED


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("heaviest", [1.0, 1e12])
def test_a_stated_dual_value_is_checked_to_its_own_size(loss, heaviest):
    X, y, w, _ = problem(1, loss)
    w = w * np.where(np.arange(len(w)) == 0, heaviest, 1.0)
    c = certify(X, y, 1e-8, (np.zeros((0, 2)), np.zeros(0)), loss=Weighted(loss, w))
    assert c.verify().accepted
    # The value is small beside the weights, of which its rounding knows nothing.
    assert 0.0 < c.dual_objective < 1e-4
    false = dataclasses.replace(c, dual_objective=c.dual_objective * (1.0 + 1e-10))
    assert false.verify().reason is Rejection.DUAL_OBJECTIVE


def test_other_solvers_take_weights():
    X, y, w, rows = problem(5, "squared", n=8)
    for loss in ("squared", "logistic"):
        t = y if loss == "squared" else np.sign(y)
        beta = 0.1 * zero_threshold(X, t, loss=Weighted(loss, w))
        gates = enumerate_arrangements(X)
        gated = train_gated(X, t, beta, gates, loss=Weighted(loss, w))
        repeated = train_gated(X[rows], t[rows], beta, gates[:, rows], loss=loss)
        assert gated.objective == pytest.approx(repeated.objective, rel=1e-7)
        optima = find_optimal_set(X, t, beta, loss=Weighted(loss, w))
        assert optima.status is find_optimal_set(X[rows], t[rows], beta, loss=loss).status
    least = train(X, y, 0.0, loss=Weighted("squared", w))
    # Positive weights do not change which networks interpolate.
    assert least.objective == pytest.approx(train(X, y, 0.0).objective, rel=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_relaxation_knows_the_weights(loss):
    X, y, w, _ = problem(5, loss, n=14, d=5)
    w = 8 ** (w // 2)
    rows = np.repeat(np.arange(len(w)), w)
    beta = 0.05 * zero_threshold(X, y, loss=Weighted(loss, w), exhaustive=False)
    weighted, root = (
        train(X, y, beta, loss=Weighted(loss, w), bound=bound) for bound in ("sdp", "root")
    )
    repeated = train(X[rows], y[rows], beta, loss=loss, bound="sdp")
    assert weighted.dual_objective == pytest.approx(repeated.dual_objective, rel=1e-4)
    assert weighted.dual_objective > root.dual_objective * (1.0 + 1e-3)


@pytest.mark.parametrize("base", [Squared(), Logistic(), Hinge()], ids=lambda loss: loss.name)
def test_every_part_of_a_weighted_loss(base):
    rng = np.random.default_rng(2)
    n = 7
    w, f = 10.0 ** rng.uniform(-1, 1, n), rng.standard_normal(n)
    y = rng.standard_normal(n) if base.name == "squared" else np.sign(rng.standard_normal(n))
    loss = Weighted(base, w)
    assert loss.base is base
    assert loss.curvature_bound == w.max() * base.curvature_bound
    assert loss.value(f, y) == pytest.approx(
        sum(w[i] * base.value(f[i : i + 1], y[i : i + 1]) for i in range(n)), rel=1e-14
    )
    np.testing.assert_allclose(
        loss.gradient(f, y), approx_fprime(f, loss.value, 1e-7, y), rtol=1e-4, atol=1e-5
    )
    if base.smooth:
        bend = [approx_fprime(f, lambda g, i=i: loss.gradient(g, y)[i], 1e-7)[i] for i in range(n)]
        np.testing.assert_allclose(loss.curvature(f, y), bend, rtol=1e-4)
    # The dual terms are the minima over f of w l(f, y) + v f.
    v = w * rng.uniform(0.05, 0.95, n) * (np.sign(y) if base.bounded_dual else rng.normal(size=n))
    for i, found in enumerate(loss.dual_terms(v, y)):
        least = minimize_scalar(
            lambda g, i=i: w[i] * base.value(np.array([g]), y[i : i + 1]) + v[i] * g,
            bounds=(-50.0, 50.0),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert found == pytest.approx(least.fun, rel=1e-7)
    balls = [[arb(float(a)) for a in values] for values in (f, v, y)]
    value, dual = loss.value_ball(balls[0], balls[2]), loss.dual_ball(balls[1], balls[2])
    assert float(value) == pytest.approx(loss.value(f, y), rel=1e-14)
    assert float(dual) == pytest.approx(loss.dual(v, y), rel=1e-13)
    rounding = 8.0 * (n + 4) * np.finfo(float).eps * loss.dual_sizes(v, y).sum()
    assert abs(float(dual) - loss.dual(v, y)) <= rounding <= 1e-11 * w.sum()
    # Optimality: residuals vanish at v = -L'(f), derivatives are those of the residuals.
    assert np.abs(loss.optimality(f, -loss.gradient(f, y), y)[0]).max() <= 1e-13 * w.max()
    residual, in_f, in_v = loss.optimality(f, v, y)
    if base.smooth:
        np.testing.assert_allclose(residual, loss.gradient(f, y) + v, rtol=1e-12)
    for at, slopes in enumerate((in_f, in_v)):
        for i in range(n):
            change = np.zeros((2, n))
            change[at, i] = 1e-7
            moved = loss.optimality(f + change[0], v + change[1], y)[0][i] - residual[i]
            assert moved / 1e-7 == pytest.approx(slopes[i], rel=1e-4, abs=1e-6)


def test_the_proximal_map_has_a_step_for_every_weight():
    w, y = np.array([0.1, 1.0, 5.0, 2.0]), np.array([1.0, -1.0, 1.0, 1.0])
    f = np.array([-3.0, 0.5, 0.7, 2.0])
    point, slope = Weighted("hinge", w).prox(f, y, 0.4)
    for i in range(4):
        least = minimize_scalar(
            lambda s, i=i: w[i] * max(1.0 - y[i] * s, 0.0) + (s - f[i]) ** 2 / 0.8,
            bounds=(-9.0, 9.0),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert point[i] == pytest.approx(least.x, abs=1e-6)
    np.testing.assert_array_equal(slope, [1.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_the_domain_ends_at_the_weight_exactly(loss):
    # A third is no float64: the end is the float64 itself.
    w, y = np.array([1.0 / 3.0, 7.0]), np.array([1.0, -1.0])
    weighted = Weighted(loss, w)
    exact = [fmpq(*float(a).as_integer_ratio()) for a in w]
    tiny = fmpq(1, 10**40)
    assert weighted.in_domain([exact[0], -exact[1]], y)
    assert not weighted.in_domain([exact[0] + tiny, -exact[1]], y)
    assert not weighted.in_domain([exact[0], -exact[1] - tiny], y)
    assert not weighted.in_domain([-tiny, fmpq(0)], y)
    ends = np.array([w[0], -w[1]])
    assert weighted.dual(ends, y) == pytest.approx(0.0 if loss == "logistic" else w.sum())
    outside = np.array([w[0] * (1.0 + 1e-15), -w[1]])
    assert weighted.dual(outside, y) == -np.inf
    np.testing.assert_array_equal(weighted.at_ends(ends * (1.0 - 1e-12), y), ends)
    np.testing.assert_array_equal(weighted.interior(ends * [0.5, 1.0 - 1e-12], y), [True, False])
    moved = weighted.into_domain(2.0 * ends, 0.5 * ends, y)
    assert weighted.in_domain([fmpq(*float(a).as_integer_ratio()) for a in moved], y)
    assert np.all(np.abs(moved) > 0.9 * np.abs(ends))
    # Inside it stays where it is.
    np.testing.assert_allclose(weighted.into_domain(0.3 * ends, 0.5 * ends, y), 0.3 * ends)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("skip", [False, True])
def test_false_certificates_are_refused(loss, skip):
    X, y, w, _ = problem(1, loss, d=2)
    beta = 0.05 * zero_threshold(X, y, loss=Weighted(loss, w))
    c = train(X, y, beta, loss=Weighted(loss, w), skip=skip).certificate
    assert c.verify().accepted
    worst = np.argmax(c.loss.terms(c.network(X), y))
    other = Weighted(loss, w * (1.0 + 1e-9 * (np.arange(len(w)) == worst)))
    # The objective as it would be with these weights, so that only the dual is at stake.
    objective = other.value(c.network(X), y) + beta * c.network.penalty
    lighter = Weighted(loss, 0.5 * w)
    lighter_objective = lighter.value(c.network(X), y) + beta * c.network.penalty
    false = [
        (Rejection.OBJECTIVE, {"objective": c.objective * (1.0 - 1e-9)}),
        (Rejection.DUAL_OBJECTIVE, {"dual_objective": c.dual_objective + 1e-9 * c.objective}),
        (Rejection.OBJECTIVE, {"loss": as_loss(loss)}),
        (Rejection.OBJECTIVE, {"loss": other}),
        (
            Rejection.DUAL_OBJECTIVE if loss == "squared" else Rejection.DOMAIN,
            {"loss": lighter, "objective": lighter_objective},
        ),
    ]
    if loss != "hinge":  # whose dual value knows no weights
        false.append((Rejection.DUAL_OBJECTIVE, {"loss": other, "objective": objective}))
    if not skip:
        false.append((Rejection.CONSTRAINT, {"beta": 0.999 * beta}))
    for reason, change in false:
        if "beta" in change:
            value = c.loss.value(c.network(X), y) + change["beta"] * c.network.penalty
            change = change | {"objective": value}
        verification = dataclasses.replace(c, **change).verify()
        assert not verification.accepted
        assert verification.reason is reason


@pytest.mark.parametrize(("seed", "loss"), [(3, "squared"), (4, "squared"), (2, "hinge")])
def test_small_penalties_are_reached_with_weights(seed, loss):
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((14, 2)), rng.standard_normal(14)
    X[1] = X[0]
    if loss == "hinge":
        y = np.sign(y)
        y[1] = y[0]
    weighted = Weighted(loss, 10.0 ** rng.uniform(-1, 1, 14))
    share = 1e-6 if loss == "squared" else 1e-9
    solution = train(X, y, share * zero_threshold(X, y, loss=weighted), loss=weighted)
    assert solution.status is TrainingStatus.CERTIFIED
    if loss == "squared":
        # Targets that contradict each other: the limit depends on the weights, and following it
        # leaves nothing to add.
        assert len(solution.history) == 1


def test_weights_that_say_nothing_are_refused():
    for weights in ([1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [[1.0, 2.0]], [], "w", None):
        with pytest.raises(ValueError, match="weights: expected"):
            Weighted("squared", weights)
    for scale in (1e-141, 1e141):
        with pytest.raises(ValueError, match="weights: expected a largest entry between"):
            Weighted("squared", [0.5 * scale, scale])
    assert Weighted("squared", [1e-300, 1e140]).weights[0] == 1e-300
    for loss in ("interpolation", Interpolation(), "huber"):
        with pytest.raises(ValueError, match="loss: expected"):
            Weighted(loss, [1.0, 2.0])
    X = np.eye(3)
    for solve in (train, lambda *args, **options: train_gated(*args, X, **options)):
        with pytest.raises(ValueError, match=r"loss.weights: expected shape \(3\)"):
            solve(X, np.ones(3), 0.1, loss=Weighted("squared", [1.0, 2.0]))
    with pytest.raises(ValueError, match="y: expected labels -1 and 1 for the hinge loss"):
        train(X, 2.0 * np.ones(3), 0.1, loss=Weighted("hinge", np.ones(3)))
    with pytest.raises(ValueError, match="beta: expected > 0 for the weighted hinge loss"):
        train(X, np.ones(3), 0.0, loss=Weighted("hinge", np.ones(3)))


def test_weights_are_kept_as_they_came():
    given = np.array([1.0, 2.0])
    loss = Weighted(Weighted("squared", [1.0, 3.0]), given)
    given[:] = 5.0
    np.testing.assert_array_equal(loss.weights, [1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        loss.weights[0] = 2.0
    # Weights multiply.
    f, y = np.array([0.5, 2.0]), np.zeros(2)
    assert loss.value(f, y) == Weighted("squared", [1.0, 6.0]).value(f, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loss.dual(np.zeros(2), y) == 0.0


def test_the_dual_norm_is_as_sharp_where_the_first_ascents_find_little():
    # Beside a skip connection the dual point is orthogonal to the data.
    data = np.array([[0.0, 0.5], [-0.11708822, 0.5], [-0.05967842, 0.5], [0.28998513, 0.5]])
    v = np.array([-0.06285142, -0.06533507, 0.12818649, 0.0])
    norm = norm_over_sphere(reduce_rows(data), v, 1e-10, None)
    assert norm.exact
    assert norm.attained <= norm.value <= norm.attained * (1.0 + 1e-9)


def test_an_affine_map_that_separates_all_labels_leaves_no_weights():
    X, y = [[1.0, 2.0], [2.0, -1.0]], [1.0, -1.0]
    with pytest.warns(RuntimeWarning, match="not attained"):
        solution = train(X, y, 0.1, loss=Weighted("logistic", [1.0, 3.0]), skip=True)
    assert solution.status is TrainingStatus.UNATTAINED
    assert solution.network.n_neurons == 0
    assert solution.objective < 1e-20
    assert solution.certificate.verify()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("lightest", [1e-30, 1e-310, 5e-324])
def test_the_lightest_samples_are_none(loss, lightest):
    # The products of such weights with the data are no float64 numbers.
    for seed in (1, 2):
        X, y, w, _ = problem(seed, loss, n=14)
        w = np.where(np.arange(14) < 3, lightest, w)
        beta = 0.05 * zero_threshold(X[3:], y[3:], loss=Weighted(loss, w[3:]), bias=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            light = train(X, y, beta, loss=Weighted(loss, w), bias=True)
        dropped = train(X[3:], y[3:], beta, loss=Weighted(loss, w[3:]), bias=True)
        assert light.status is TrainingStatus.CERTIFIED
        assert light.certificate.verify().accepted
        assert light.objective == pytest.approx(dropped.objective, rel=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_certified_is_verified_at_any_weights(loss):
    certified = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((int(rng.integers(2, 13)), int(rng.integers(1, 4))))
        y = rng.standard_normal(len(X))
        y = y if loss == "squared" else np.where(y > 0.0, 1.0, -1.0)
        decades = rng.choice([1, 5, 15])
        weighted = Weighted(loss, 10.0 ** rng.uniform(-decades, decades, len(X)))
        skip, bias = bool(rng.random() < 0.7), bool(rng.random() < 0.3)
        beta = 10.0 ** rng.uniform(-6, 0) * zero_threshold(X, y, loss=weighted, bias=bias)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of data that do not suffice
            solution = train(X, y, beta, loss=weighted, skip=skip, bias=bias)
        outcome = solution.certificate.verify()
        # Whatever the status, what is stated is what is proved.
        assert outcome.accepted, (seed, outcome.reason)
        floor = np.finfo(float).tiny + outcome.floor
        allowed = 1.01 * solution.gap * solution.objective + 1e-10 * solution.objective + floor
        assert outcome.objective - outcome.dual_objective <= allowed, seed
        certified += solution.status is TrainingStatus.CERTIFIED
    assert certified >= 20


def test_a_skip_connection_does_not_move_the_lightest_samples_most():
    # What rounding leaves of X^T v = 0 is a multiple of the value of the lightest entries.
    X, y, _, _ = problem(3, "squared", d=1)
    w = 10.0 ** np.linspace(-15, 15, 12)
    loss = Weighted("squared", w)
    beta = 0.1 * zero_threshold(X, y, loss=loss)
    solution = train(X, y, beta, loss=loss, skip=True)
    assert solution.status is TrainingStatus.CERTIFIED
    outcome = solution.certificate.verify()
    assert outcome.accepted
    assert outcome.gap == pytest.approx(solution.gap, abs=1e-15)
    point, moved = exact_dual(X, solution.certificate.dual, y, loss)
    assert all(q == 0 for q in (rational_matrix(X.T) * fmpq_mat(12, 1, point)).entries())
    assert np.all(moved <= 1e-12 * np.abs(solution.certificate.dual).max() * w / w.max())


def test_the_last_digits_of_tiny_logistic_losses():
    loss, one = Weighted("logistic", [1e15]), [arb(1)]
    with ctx.workprec(160):
        value = loss.value_ball([arb(120)], one)
        dual = loss.dual_ball([arb(1e-45)], one)
    assert value.rel_accuracy_bits() > 100
    assert dual.rel_accuracy_bits() > 100
