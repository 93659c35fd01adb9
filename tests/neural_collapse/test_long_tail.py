"""Spread centres, regularised features, sparse frames, entropy: against loops, other optimizers and
closed forms."""

from functools import partial
from itertools import combinations

import cvxpy as cp
import mpmath
import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from theorylab.neural_collapse import (
    CrossEntropy,
    SparseStatus,
    UnconstrainedFeatures,
    _spread_centres,
    correlation_factor,
    cosine_remainder,
    disjoint_pairs,
    etf_aligned_minimizer,
    mean_max_cosine,
    mean_min_angle,
    random_supports,
    regularised_minimizer,
    simplex_etf,
    sparse_etf,
    spread_centres,
    ufm_minimizer,
    ufm_objective,
    von_neumann_entropy,
)
from theorylab.neural_collapse._spread_centres import _smooth, unit_rows


def cosine(a, b):
    return float(a @ b / np.sqrt(a @ a * (b @ b)))


def test_values_against_loops():
    centres = np.random.default_rng(0).standard_normal((5, 3))
    largest = [max(cosine(centres[i], centres[j]) for j in range(5) if j != i) for i in range(5)]
    assert mean_max_cosine(centres) == pytest.approx(np.mean(largest), rel=1e-13)
    assert mean_min_angle(centres) == pytest.approx(np.mean(np.arccos(largest)), rel=1e-13)
    b = 4.0
    soft = [
        np.log(np.mean([np.exp(b * cosine(centres[i], centres[j])) for j in range(5) if j != i]))
        / b
        for i in range(5)
    ]
    assert mean_max_cosine(centres, sharpness=b) == pytest.approx(np.mean(soft), rel=1e-13)
    assert mean_max_cosine(centres, sharpness=1e6) == pytest.approx(
        mean_max_cosine(centres), abs=1e-5
    )


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_a_simplex_frame_attains_the_bound_at_every_sharpness(n_classes):
    frame = simplex_etf(n_classes, n_classes + 1) * np.arange(1, n_classes + 1)[:, None]
    for sharpness in (None, 0.1, 50.0):
        assert mean_max_cosine(frame, sharpness=sharpness) == pytest.approx(
            -1 / (n_classes - 1), abs=1e-14
        )
    random = np.random.default_rng(0).standard_normal((200, n_classes, n_classes + 1))
    assert min(mean_max_cosine(c, sharpness=1.0) for c in random) >= -1 / (n_classes - 1)


@pytest.mark.parametrize("quantity", ["cosine", "angle"])
def test_too_few_dimensions_against_a_grid(quantity):
    centres = spread_centres(4, 2, rng=np.random.default_rng(0), quantity=quantity, restarts=8)
    grid = np.linspace(0, 2 * np.pi, 73)[:-1]
    circles = (np.array([0.0, *angles]) for angles in combinations(grid[1:], 3))
    value = mean_max_cosine if quantity == "cosine" else lambda c: -mean_min_angle(c)
    best = min(value(np.stack([np.cos(a), np.sin(a)], axis=1)) for a in list(circles)[::7])
    assert value(centres) <= best + 1e-6


def cross_entropy(counts, lam_w, lam_h, loss="ce"):
    return UnconstrainedFeatures(counts, lam_w=lam_w, lam_h=lam_h, loss=loss)


@pytest.mark.parametrize(
    "model",
    [
        cross_entropy((6, 6, 1), 0.05, 0.05),
        cross_entropy((3, 3, 3), 0.02, 0.05, CrossEntropy(smoothing=0.2)),
    ],
)
def test_regularised_minimizer_without_strength_is_the_unregularised_one(model):
    found = regularised_minimizer(model, dimension=4, strength=0.0, rng=np.random.default_rng(0))
    assert found.loss == pytest.approx(ufm_minimizer(model, dimension=4).objective, rel=1e-9)
    features = np.repeat(found.class_features, model.counts, axis=1)
    reached = ufm_objective(model, features, found.classifier)
    assert found.loss == pytest.approx(reached, rel=1e-13)


def test_regularised_minimizer_is_stationary_and_satisfies_the_bound():
    sizes, lam, gamma, b = np.array([8, 2, 1, 1]), 0.1, 0.3, 10.0
    model, rng = cross_entropy(sizes, lam, lam), np.random.default_rng(0)
    found = regularised_minimizer(model, dimension=4, strength=gamma, rng=rng, sharpness=b)

    def full(x):
        W, F = x[:16].reshape(4, 4), x[16:].reshape(4, 4)
        loss = ufm_objective(model, np.repeat(F, sizes, axis=1), W)
        return loss + gamma * mean_max_cosine(F.T, sharpness=b)

    x = np.concatenate([found.classifier.ravel(), found.class_features.ravel()])
    assert np.abs(approx_fprime(x, full, 1e-7)).max() < 1e-6
    aligned = etf_aligned_minimizer(model, dimension=4)
    free = ufm_minimizer(model, dimension=4)
    assert found.spread + 1 / 3 <= (aligned.loss - free.objective) / gamma
    assert np.abs(found.feature_cosines + 1 / 3)[~np.eye(4, dtype=bool)].max() <= cosine_remainder(
        [(aligned.loss - free.objective) / gamma], 4, sharpness=b
    )


def test_aligned_minimizer_of_equal_classes_is_the_unrestricted_one():
    model = cross_entropy((3, 3, 3, 3), 0.02, 0.03)
    aligned = etf_aligned_minimizer(model, dimension=3)
    best = ufm_minimizer(model, dimension=3)
    assert aligned.loss == pytest.approx(best.objective, rel=1e-9)
    assert aligned.classifier @ aligned.class_features == pytest.approx(best.class_logits, abs=1e-3)
    assert aligned.spread == pytest.approx(mean_max_cosine(aligned.class_features.T), abs=1e-12)
    # Balanced: both factors carry the same penalty.
    sizes = 0.02 * np.sum(aligned.classifier**2), 0.09 * np.sum(aligned.class_features**2)
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)


def test_cosine_remainder_bounds_perturbed_frames():
    rng = np.random.default_rng(0)
    for K in (3, 5):
        for size in (1e-3, 0.1, 1.0):
            centres = simplex_etf(K, K) + size * rng.standard_normal((K, K))
            for b in (1.0, 30.0):
                excess = mean_max_cosine(centres, sharpness=b) + 1 / (K - 1)
                worst = max(
                    abs(cosine(centres[i], centres[j]) + 1 / (K - 1))
                    for i, j in combinations(range(K), 2)
                )
                assert worst <= cosine_remainder([excess], K, sharpness=b)[0]
    assert cosine_remainder([0.0], 4, sharpness=3.0)[0] == 0


def test_supports():
    mask = random_supports(6, 20, sparsity=0.7, rng=np.random.default_rng(0))
    assert (mask.sum(axis=1) == 6).all()
    pairs = [(i, j) for i, j in combinations(range(6), 2) if not (mask[i] * mask[j]).any()]
    assert disjoint_pairs(mask).tolist() == [list(p) for p in pairs]


def test_full_supports_give_a_frame_and_supports_are_respected():
    full = sparse_etf(np.ones((4, 3)), rng=np.random.default_rng(0))
    assert full.status is SparseStatus.EXISTS
    np.testing.assert_allclose(
        full.weights @ full.weights.T, simplex_etf(4, 3) @ simplex_etf(4, 3).T, atol=1e-9
    )
    helmert = (simplex_etf(5, 4) != 0).astype(float)
    sparse = sparse_etf(helmert, rng=np.random.default_rng(0), restarts=20)
    assert sparse.error < 1e-9
    assert not sparse.weights[helmert == 0].any()


def test_one_disjoint_pair_costs_exactly_one_over_k_minus_one():
    mask = np.ones((6, 12))
    mask[0, 6:] = mask[1, :6] = 0
    found = sparse_etf(mask, rng=np.random.default_rng(0))
    assert found.status is SparseStatus.DISJOINT
    assert found.pairs.tolist() == [[0, 1]]
    assert found.error == pytest.approx(1 / 5, abs=1e-10)
    other = minimize(
        lambda x: np.sum(
            (
                x.reshape(6, 12) * mask @ (x.reshape(6, 12) * mask).T
                - simplex_etf(6, 6) @ simplex_etf(6, 6).T
            )
            ** 2
        ),
        np.random.default_rng(1).standard_normal(72) / 3,
        method="L-BFGS-B",
        options={"maxfun": 100000, "ftol": 1e-15},
    )
    assert other.fun == pytest.approx(2 / 25, rel=1e-5)


def test_too_few_dimensions_are_undecided_not_wrong():
    found = sparse_etf(np.ones((5, 3)), rng=np.random.default_rng(0), restarts=2)
    assert found.status is SparseStatus.UNDECIDED
    assert found.error > 0.01


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_entropy_limits(rank):
    frame = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0][:, :rank]
    assert von_neumann_entropy(frame) == pytest.approx(np.log(rank), abs=1e-13)
    assert von_neumann_entropy(3 * frame) == pytest.approx(np.log(rank), abs=1e-13)
    weights = np.arange(1, rank + 1) / np.arange(1, rank + 1).sum()
    counts = np.repeat(frame, np.arange(1, rank + 1), axis=1)
    assert von_neumann_entropy(counts) == pytest.approx(
        -np.sum(weights * np.log(weights)), abs=1e-13
    )
    assert von_neumann_entropy(np.sqrt(0.5) * frame, normalise=False) == pytest.approx(
        0.5 * np.log(2 * rank), abs=1e-13
    )


def test_bad_input():
    with pytest.raises(ValueError, match="centres"):
        mean_max_cosine([[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="features"):
        von_neumann_entropy([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="restarts"):
        regularised_minimizer(
            cross_entropy((3, 2, 1), 0.1, 0.1),
            dimension=1,
            strength=1.0,
            rng=np.random.default_rng(0),
            restarts=0,
        )
    with pytest.raises(ValueError, match="dimension"):
        etf_aligned_minimizer(cross_entropy((3, 2, 1), 0.1, 0.1), dimension=1)
    biased = UnconstrainedFeatures((3, 2), lam_w=0.1, lam_h=0.1, loss="ce", bias=True)
    for model in (biased, cross_entropy((3, 2), 0.1, 0.1, "mse")):
        with pytest.raises(ValueError, match="model: expected cross-entropy without bias, got"):
            etf_aligned_minimizer(model, dimension=2)


@pytest.mark.parametrize("s", [1e-150, 1e-8, 1e8, 1e150])
def test_only_the_product_of_the_decays_matters(s):
    counts, lam_w, lam_h = [6, 3, 1], 0.01, 0.03
    for solve in (
        etf_aligned_minimizer,
        partial(regularised_minimizer, strength=0.1, rng=np.random.default_rng(0), restarts=1),
    ):
        one, other = (
            solve(cross_entropy(counts, lam_w * t, lam_h / t), dimension=3) for t in (1.0, s)
        )
        assert other.loss == pytest.approx(one.loss, rel=1e-10)
        assert other.feature_cosines == pytest.approx(one.feature_cosines, rel=1e-8, abs=1e-8)
        assert other.classifier @ other.class_features == pytest.approx(
            one.classifier @ one.class_features, rel=1e-6, abs=1e-6
        )


def test_entropy_of_features_of_any_size():
    H = np.random.default_rng(1).standard_normal((4, 30))
    for s in (1e-170, 1e160):
        assert von_neumann_entropy(s * H) == pytest.approx(von_neumann_entropy(H), rel=1e-12)


@pytest.mark.parametrize("K", [3, 4, 9])
def test_cosine_remainder_of_a_small_excess(K):
    # log-mean-exp less mean is b / 2 times the variance: of K - 1 numbers one deviates by x, the
    # others by -x / (K - 2), and the variance is x^2 / (K - 2).
    v = 1e-10
    for b in (1.0, 30.0):
        expected = np.sqrt(K * v / (K - 1)) + np.sqrt(2 * K * (K - 2) * v / b)
        assert cosine_remainder([v], K, sharpness=b)[0] == pytest.approx(expected, rel=1e-2)


def test_correlation_factor_against_extended_precision_and_two_point_spectra():
    with mpmath.workdps(40):
        for r in (1e-9, 9e-4, 1.1e-3, 0.3, 0.999):
            log = mpmath.log(1 - mpmath.mpf(r))
            assert correlation_factor(r) == pytest.approx(
                float((-log - r) / ((1 - mpmath.mpf(r)) * log + r)), rel=1e-11
            )
    # One eigenvalue at (1 - r) / d, the others equal: close to equality for many of them.
    for r in (0.1, 0.6):
        for d, close in ((2, 1.2), (2000, 1.001)):
            values = np.full(d, (1 + r / (d - 1)) / d)
            values[0] = (1 - r) / d
            deficit = np.log(d) + np.sum(values * np.log(values))
            correlation = -np.log(d * values).sum() / 2
            assert correlation < d / 2 * correlation_factor(r) * deficit < close * correlation


@pytest.mark.parametrize("angle", [False, True])
def test_slopes_of_what_is_smoothed(angle):
    unit = unit_rows(np.random.default_rng(2).standard_normal((4, 3)))

    def value(flat):
        return _smooth(flat.reshape(4, 3), 5.0, angle)[0]

    slope = _smooth(unit, 5.0, angle)[1]
    moves = np.random.default_rng(3).standard_normal((5, 4, 3))
    for move in moves - np.sum(moves * unit, axis=2, keepdims=True) * unit:
        rise = value((unit + 1e-6 * move).ravel()) - value((unit - 1e-6 * move).ravel())
        assert rise / 2e-6 == pytest.approx(np.sum(slope * move), rel=1e-7)


@pytest.mark.parametrize("quantity", ["cosine", "angle"])
def test_spread_centres_cannot_be_polished_and_are_the_best_of_their_starts(quantity):
    angle = quantity == "angle"
    value = (lambda c: -mean_min_angle(c)) if angle else mean_max_cosine
    pairs = list(combinations(range(7), 2))

    def levels(flat):  # of each row a level t_i that none of its pairs exceeds
        unit = flat[:21].reshape(7, 3)
        unit = unit / np.linalg.norm(unit, axis=1)[:, None]
        scores = np.array([unit[i] @ unit[j] for i, j in pairs])
        scores = -np.arccos(np.clip(scores, -1, 1)) if angle else scores
        t = flat[21:]
        return np.concatenate(
            [[t[i] - s, t[j] - s] for (i, j), s in zip(pairs, scores, strict=True)]
        )

    reached = []
    for restarts in (1, 2, 3, 4):
        told = []
        found = spread_centres(
            7, 3, rng=np.random.default_rng(1), quantity=quantity, restarts=restarts,
            callback=told.append,
        )  # fmt: skip
        reached.append(value(found))
        assert [p.objective for p in told] == pytest.approx(reached, abs=1e-14)
        start = np.concatenate([found.ravel(), np.full(7, reached[-1] + 0.3)])
        polished = minimize(
            lambda x: x[21:].mean(), start, constraints={"type": "ineq", "fun": levels},
            method="SLSQP", options={"maxiter": 200, "ftol": 1e-12},
        )  # fmt: skip
        assert reached[-1] <= value(polished.x[:21].reshape(7, 3)) + 2e-5
    assert (np.diff(reached) <= 0).all()


@pytest.mark.parametrize(("K", "b", "v"), [(3, 4.0, 0.02), (4, 3.0, 0.1), (7, 10.0, 0.01)])
def test_cosine_remainder_is_the_largest_deviation_by_a_convex_program(K, b, v):
    # Of K - 1 cosines with their mean taken off, whose log-mean-exp is at most K v.
    x = cp.Variable(K - 1)
    level = cp.log_sum_exp(b * x) <= b * K * v + np.log(K - 1)
    furthest = []
    for sign in (1, -1):
        program = cp.Problem(cp.Maximize(sign * x[0]), [cp.sum(x) == 0, level])
        furthest.append(program.solve(solver=cp.CLARABEL))
    expected = np.sqrt(K * v / (K - 1)) + max(furthest)
    assert cosine_remainder([v], K, sharpness=b)[0] == pytest.approx(expected, rel=1e-6)


def test_the_best_start_of_a_regularised_minimizer_is_kept():
    told, model = [], cross_entropy((4, 3, 2, 1, 1), 0.01, 0.01)
    found = regularised_minimizer(
        model, dimension=2, strength=0.3, rng=np.random.default_rng(0), restarts=4,
        callback=told.append,
    )  # fmt: skip
    totals = [p.objective for p in told]
    assert found.loss + 0.3 * found.spread == pytest.approx(totals[-1], rel=1e-10)
    assert (np.diff(totals) <= 0).all()
    assert totals[-1] < totals[0]
    # An ascent from the last start on its own shows that it was not the best.
    alone = np.random.default_rng(0)
    alone.standard_normal((3, 2 * 5 * 2))
    last = regularised_minimizer(model, dimension=2, strength=0.3, rng=alone, restarts=1)
    assert last.loss + 0.3 * last.spread > totals[-1] + 1e-6


def test_the_search_for_spread_centres_ends_after_bounded_work(monkeypatch):
    budgets = []

    def minimised(function, x, *, options, **rest):
        budgets.append(options["maxfun"])
        return minimize(function, x, options=options | {"maxfun": 1}, **rest)

    monkeypatch.setattr(_spread_centres, "minimize", minimised)
    for K, d in ((100, 20), (10, 3), (2000, 100)):
        spread_centres(K, d, rng=np.random.default_rng(0), restarts=1)
    assert [*map(int, np.unique(budgets))] == [21, 2020, 10_020]
