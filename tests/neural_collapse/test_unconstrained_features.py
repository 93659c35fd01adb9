import warnings
from dataclasses import replace

import cvxpy as cp
import mpmath
import numpy as np
import pytest
from flint import fmpq, fmpq_mat
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from theorylab import neural_collapse as nc


def draw(rng):
    """Return a random model; the weight decay lies on a given side of some class's threshold."""
    K = int(rng.integers(2, 6))
    counts = rng.integers(1, 9, size=K)
    if rng.random() < 0.4:
        counts[:] = np.where(np.arange(K) < max(1, K // 2), counts[0], counts[-1])
    factor = rng.choice([0.05, 0.4, 0.9, 0.97, 1.03, 1.1, 1.8])
    product = factor * rng.choice(counts) / counts.sum() ** 2
    skew = np.exp(rng.normal())
    loss, bias = str(rng.choice(["mse", "ce"])), bool(rng.integers(2))
    lowest = K if loss == "mse" else K - 1
    d = int(rng.integers(max(1, lowest - (loss == "mse")), K + 3))
    return counts, d, np.sqrt(product) * skew, np.sqrt(product) / skew, loss, bias


def agree(counts, d, lam_w, lam_h, loss, bias, seed):
    solution = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam_w, lam_h=lam_h, loss=loss, bias=bias),
        dimension=d,
    )
    point = {
        "model": solution.model,
        "features": solution.features,
        "classifier": solution.classifier,
        "bias": solution.bias,
    }
    attained = nc.ufm_objective(**point)
    assert attained == pytest.approx(solution.objective, rel=1e-13)
    found = nc.search_deep_linear(
        counts, dimension=d, lams=[lam_w, lam_h], loss=loss, bias=bias, n_starts=4, seed=seed
    )
    assert found.objective == pytest.approx(solution.objective, rel=1e-10)
    assert abs(solution.certificate.gap) < 1e-10
    if d >= counts.size:
        certificate = nc.certify_ufm(**point)
        assert certificate.lower <= solution.objective * (1 + 1e-13)
        assert 0 <= certificate.gap < 1e-10
        assert found.objective >= certificate.lower * (1 - 1e-14)  # the search rounds its own value


@pytest.mark.parametrize("seed", range(24))
def test_minimizers_agree_with_multistart_search_and_certificates(seed):
    agree(*draw(np.random.default_rng(seed)), seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 400))
def test_minimizers_agree_with_multistart_search_and_certificates_long(seed):
    agree(*draw(np.random.default_rng(seed)), seed)


@pytest.mark.parametrize(
    ("loss", "bias"), [("mse", False), ("mse", True), ("ce", False), ("ce", True)]
)
def test_minimum_is_that_of_the_convex_program(loss, bias):
    counts, lam_w, lam_h = np.array([5, 3, 3, 1]), 0.03, 0.02
    K, N = 4, 12
    P, b = cp.Variable((K, N)), cp.Variable(K)
    labels = np.repeat(np.arange(K), counts)
    Y = np.eye(K)[:, labels]
    Z = P + cp.reshape(b, (K, 1), order="F") @ np.ones((1, N)) if bias else P
    fit = cp.sum_squares(Z - Y) / (2 * N)
    if loss == "ce":
        fit = sum(cp.log_sum_exp(Z[:, i]) - Z[labels[i], i] for i in range(N)) / N
    problem = cp.Problem(cp.Minimize(fit + np.sqrt(lam_w * lam_h) * cp.normNuc(P)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=cp.SCS, eps=1e-8)
    solution = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam_w, lam_h=lam_h, loss=loss, bias=bias),
        dimension=5,
    )
    assert problem.value == pytest.approx(solution.objective, rel=1e-5)
    assert np.linalg.norm(P.value, "nuc") == pytest.approx(solution.singular_values.sum(), rel=1e-3)


def test_balanced_cross_entropy_is_the_one_dimensional_minimum():
    for K, n, lam_w, lam_h in [
        (4, 3, 0.02, 0.03),
        (2, 1, 0.2, 0.1),
        (7, 5, 0.001, 0.004),
        (3, 4, 0.3, 0.3),
    ]:
        slope = np.sqrt(n * lam_w * lam_h)

        def value(x, K=K, slope=slope):
            return (K - 1) * slope * x + np.log1p((K - 1) * np.exp(-x))

        best = minimize_scalar(value, bounds=(0, 40), method="bounded", options={"xatol": 1e-11})
        solution = nc.ufm_minimizer(
            nc.UnconstrainedFeatures(np.full(K, n), lam_w=lam_w, lam_h=lam_h, loss="ce"),
            dimension=K,
        )
        assert solution.objective == pytest.approx(min(best.fun, value(0.0)), rel=1e-12)
        gap = nc.cross_entropy_gap(solution.model)
        assert gap == pytest.approx(best.x if best.fun < value(0.0) else 0.0, abs=1e-5)
        if gap:
            logits = solution.class_logits
            assert np.allclose(np.diag(logits)[None] - logits, gap * (1 - np.eye(K)), atol=1e-12)
            assert (
                nc.collapse_metrics(
                    solution.features, solution.model.labels, solution.classifier, layout="columns"
                ).mean_etf_distance
                < 1e-14
            )


def test_orthogonal_frame_has_the_stated_lengths():
    counts, lam_w, lam_h = np.array([12, 8, 4, 2, 1]), 0.04, 0.02
    N = counts.sum()
    s = nc.ufm_minimizer(nc.UnconstrainedFeatures(counts, lam_w=lam_w, lam_h=lam_h), dimension=6)
    p = np.maximum(np.sqrt(counts) - N * np.sqrt(lam_w * lam_h), 0)
    assert np.allclose(
        s.classifier @ s.classifier.T, np.diag(p * np.sqrt(lam_h / lam_w)), atol=1e-15
    )
    assert np.allclose(
        s.class_features.T @ s.class_features,
        np.diag(p / counts * np.sqrt(lam_w / lam_h)),
        atol=1e-15,
    )
    assert np.allclose(s.class_logits, np.diag(p / np.sqrt(counts)), atol=1e-15)
    value = np.sum((np.sqrt(counts) - p) ** 2) / (2 * N) + np.sqrt(lam_w * lam_h) * p.sum()
    assert s.objective == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("loss", ["mse", "ce"])
@pytest.mark.parametrize("bias", [False, True])
def test_equal_classes_coincide_up_to_the_threshold(loss, bias):
    counts = np.array([12, 12, 3, 3, 3])
    for factor, coincide in [(0.5, False), (0.99, False), (1.01, True), (2.0, True)]:
        lam = np.sqrt(factor * 3) / counts.sum()
        assert nc.collapse_threshold(
            nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam)
        ) == pytest.approx(factor * 3)
        W = nc.ufm_minimizer(
            nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss=loss, bias=bias),
            dimension=6,
        ).classifier
        spread = np.linalg.norm(W[2:] - W[2:].mean(axis=0))
        assert (spread < 1e-14) == coincide
        assert np.linalg.norm(W[0] - W[1]) > 0.1


def test_a_single_minority_class_outlives_the_threshold():
    counts = np.array([12, 12, 1])
    lam = np.sqrt(1.05) / 25
    W = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=False), dimension=3
    ).classifier
    assert np.linalg.norm(W[2]) > 0.5


def test_certificate_is_a_lower_bound_at_points_that_are_not_optimal():
    rng = np.random.default_rng(3)
    counts, lam_w, lam_h = np.array([4, 2, 2]), 0.02, 0.05
    for loss in ("mse", "ce"):
        for bias in (False, True):
            minimum = nc.ufm_minimizer(
                nc.UnconstrainedFeatures(counts, lam_w=lam_w, lam_h=lam_h, loss=loss, bias=bias),
                dimension=3,
            ).objective
            for _ in range(10):
                H, W, b = rng.normal(size=(3, 8)), rng.normal(size=(3, 3)), rng.normal(size=3)
                c = nc.certify_ufm(
                    nc.UnconstrainedFeatures(
                        counts, lam_w=lam_w, lam_h=lam_h, loss=loss, bias=bias
                    ),
                    H,
                    W,
                    bias=b if bias else None,
                )
                assert c.lower <= minimum <= c.upper
                value = nc.ufm_objective(
                    nc.UnconstrainedFeatures(
                        counts, lam_w=lam_w, lam_h=lam_h, loss=loss, bias=bias
                    ),
                    H,
                    W,
                    bias=b if bias else None,
                )
                assert c.upper == pytest.approx(value, rel=1e-13)
                assert c.upper >= value * (1 - 1e-14)


@pytest.mark.parametrize("loss", ["mse", "ce"])
@pytest.mark.parametrize("bias", [False, True])
def test_verification_refuses_bounds_and_dual_points_that_are_just_wrong(loss, bias):
    counts = [4, 2, 1]
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=0.02, lam_h=0.05, loss=loss, bias=bias), dimension=3
    )
    c = nc.certify_ufm(
        nc.UnconstrainedFeatures(counts, lam_w=0.02, lam_h=0.05, loss=loss, bias=bias),
        s.features,
        s.classifier,
        bias=s.bias,
    )
    assert c.verify() is nc.UfmVerdict.ACCEPTED
    assert c.verify().accepted
    assert s.certificate.verify() is nc.UfmVerdict.NO_PROOF
    assert not s.certificate.verify().accepted
    assert replace(c, upper=c.upper * (1 - 1e-13)).verify() is nc.UfmVerdict.UPPER
    assert replace(c, lower=c.lower * (1 + 1e-13)).verify() is nc.UfmVerdict.LOWER

    def moved(change):
        return replace(c, proof=replace(c.proof, dual=change)).verify()

    # At the minimum the spectral norm is active, so that a longer dual point is infeasible.
    assert moved(c.proof.dual * fmpq(1000001, 1000000)) is nc.UfmVerdict.INFEASIBLE
    assert moved(c.proof.dual * fmpq(1, 2)) is nc.UfmVerdict.LOWER
    for i, k in ((0, 0), (0, 2)):  # the sums that a bias and cross-entropy ask for
        bump = fmpq_mat(3, 3)
        bump[i, k] = fmpq(-1, 10**9)
        wanted = nc.UfmVerdict.INFEASIBLE if bias or loss == "ce" else nc.UfmVerdict.LOWER
        assert moved(c.proof.dual * fmpq(999999, 1000000) + bump) is wanted


def test_a_point_whose_dual_leaves_the_distributions_bounds_by_zero():
    # Two classes are taken for one of them: what the bias asks back makes a probability negative.
    model = nc.UnconstrainedFeatures([1, 1, 1], lam_w=0.02, lam_h=0.02, loss="ce", bias=True)
    features = 5 * np.eye(3)[:, [0, 1, 1]]
    certificate = nc.certify_ufm(model, features, np.eye(3))
    assert not certificate.proof.feasible()
    best = nc.ufm_minimizer(model, dimension=3)
    assert certificate.lower == 0 < best.objective
    assert certificate.verify().accepted
    there = replace(best, classifier=np.eye(3), class_features=features)
    assert there.certificate.lower == 0


def test_too_few_dimensions_open_the_convex_gap_but_not_von_neumanns():
    counts = np.array([12, 8, 4])
    s = nc.ufm_minimizer(nc.UnconstrainedFeatures(counts, lam_w=0.02, lam_h=0.02), dimension=2)
    assert s.certificate.gap == pytest.approx(0.0, abs=1e-14)
    assert (
        nc.certify_ufm(
            nc.UnconstrainedFeatures(counts, lam_w=0.02, lam_h=0.02), s.features, s.classifier
        ).gap
        > 0.1
    )
    with pytest.raises(ValueError, match="dimension"):
        nc.ufm_minimizer(
            nc.UnconstrainedFeatures(counts, lam_w=0.02, lam_h=0.02, loss="ce"), dimension=1
        )


def test_order_of_classes_does_not_matter():
    counts = np.array([7, 2, 4, 2])
    order = np.array([2, 0, 3, 1])
    for loss in ("mse", "ce"):
        for bias in (False, True):
            a = nc.ufm_minimizer(
                nc.UnconstrainedFeatures(counts, lam_w=0.02, lam_h=0.01, loss=loss, bias=bias),
                dimension=5,
            )
            b = nc.ufm_minimizer(
                nc.UnconstrainedFeatures(
                    counts[order], lam_w=0.02, lam_h=0.01, loss=loss, bias=bias
                ),
                dimension=5,
            )
            assert b.objective == pytest.approx(a.objective, rel=1e-13)
            assert np.allclose(b.class_logits, a.class_logits[np.ix_(order, order)], atol=1e-8)


def test_copies_of_every_sample_are_a_rewriting_of_the_same_problem():
    counts = np.array([6, 4, 4])
    once = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=0.02, lam_h=0.03, loss="ce", bias=True), dimension=3
    )
    # Ten copies of every sample with a tenth of the feature penalty are the same objective.
    many = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(10 * counts, lam_w=0.02, lam_h=0.003, loss="ce", bias=True),
        dimension=3,
    )
    assert many.objective == pytest.approx(once.objective, rel=1e-12)
    assert np.allclose(many.class_logits, once.class_logits, atol=1e-7)


def test_a_thousand_classes():
    counts = np.arange(1, 1001)
    lam = np.sqrt(300.0) / counts.sum()
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, bias=True), dimension=1000
    )
    assert abs(s.certificate.gap) < 1e-11
    two_sizes = np.repeat([20, 2], 500)
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(two_sizes, lam_w=1e-4, lam_h=1e-4, loss="ce"), dimension=1000
    )
    assert abs(s.certificate.gap) < 1e-10
    assert s.classifier.shape == (1000, 1000)


def test_five_hundred_classes_of_different_sizes():
    # The merged start leaves few Newton steps; without it, or with the residual scaled down for a
    # dual point, the gap of 1e-9 is out of reach.
    counts = np.arange(100, 600)
    lam = 0.05 * np.sqrt(350) / counts.sum()
    for bias in (False, True):
        s = nc.ufm_minimizer(
            nc.UnconstrainedFeatures(
                counts[:: 1 + 3 * bias], lam_w=lam, lam_h=lam, loss="ce", bias=bias
            ),
            dimension=500,
        )
        assert s.status is nc.UfmStatus.SOLVED
        assert -1e-13 < s.certificate.gap < 1e-9


def test_a_geometric_tail_of_five_hundred_classes_is_certified():
    # One step ends below a residual of 1e-6, at a gap above 1e-9 unless it is solved accurately.
    counts = np.round(np.geomspace(1, 10000, 500)).astype(int)
    counts = np.maximum.accumulate(counts - np.arange(500)) + np.arange(500)
    lam = np.sqrt(np.median(counts)) / counts.sum()
    model = nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=True)
    s = nc.ufm_minimizer(model, dimension=500)
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-9
    logits, q = s.class_logits, counts / counts.sum()
    losses = logsumexp(logits, axis=0) - np.diag(logits)
    penalty = np.sum(s.classifier**2) + np.sum(s.class_features**2 * counts)
    assert q @ losses + lam / 2 * penalty == pytest.approx(s.objective, rel=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("counts", [np.array([20, 8, 8, 5, 3, 1]), np.arange(1, 81)])
def test_steps_go_on_until_the_gap_is_certified(counts, bias, monkeypatch):
    from theorylab.neural_collapse import _reduced_cross_entropy as reduced

    lam = np.sqrt(np.median(counts)) / counts.sum()
    model = nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias)
    best = nc.ufm_minimizer(model, dimension=counts.size)
    # A residual that says nothing about the gap.
    monkeypatch.setattr(reduced, "_RESIDUAL", (0.1, 0.1))
    points = reduced.solve_cross_entropy(counts, lam, bias, lambda *fields: False)
    values = [objective for objective, *_ in points]
    assert values[0] > best.objective * (1 + 1e-8)
    assert len(values) > 3  # a point each time that the residual is a tenth
    assert values[-1] == pytest.approx(best.objective, rel=1e-13)
    s = nc.ufm_minimizer(model, dimension=counts.size)
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-9
    assert s.objective == pytest.approx(best.objective, rel=1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_more_sizes_than_the_merged_start_keeps(bias):
    # Some of them twice.
    counts = np.concatenate([np.arange(1, 61), [7, 30, 60]])
    lam = 0.4 * np.sqrt(30) / counts.sum()
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias), dimension=63
    )
    assert s.status is nc.UfmStatus.SOLVED
    value = nc.ufm_objective(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias),
        s.features,
        s.classifier,
        bias=s.bias,
    )
    assert value == pytest.approx(s.objective, rel=1e-12)
    assert -1e-13 < s.certificate.gap < 1e-9


@pytest.mark.parametrize("bias", [False, True])
def test_products_with_the_curvature_are_differences_of_gradients(bias):
    from theorylab.neural_collapse._group_problem import GroupProblem, shrink
    from theorylab.neural_collapse._newton_step import NewtonStep
    from theorylab.neural_collapse._spectra import groups_of

    counts = np.array([2, 2, 2, 3, 5, 5, 9])
    rng, h = np.random.default_rng(0), 1e-5
    problem = GroupProblem(groups_of(counts), 0.02, bias, float(counts.sum()))
    one = np.sqrt(problem.m / counts.size)
    E, D = rng.standard_normal((2, 4, 4))
    E, D = E - np.outer(one, one @ E), D - np.outer(one, one @ D)
    within, d = (rng.random((2, 4)) + 0.5) * problem.active
    Z = problem.penalised(E)
    U, values, Vt = np.linalg.svd(Z)
    Z = (U * (values + (values > 1e-9))) @ Vt
    point = shrink(problem, Z, E @ problem.v, within + problem.copies, 1.0)
    assert problem.penalised(point.E) == pytest.approx(problem.penalised(E), abs=1e-12)
    step = NewtonStep(problem, point)

    def ends(function):
        plus, minus = (function(point.E + s * h * D, within + s * h * d) for s in (1, -1))
        return [(a - b) / (2 * h) for a, b in zip(plus, minus, strict=True)]

    value, *slopes = ends(lambda E, w: problem.loss(E, w)[:3])
    assert value / problem.mu == pytest.approx(
        np.sum(point.slope * D) + point.slope_within @ d, rel=1e-6
    )
    for image, slope in zip(step.loss_curvature(D, d), slopes, strict=True):
        assert image == pytest.approx(slope, rel=1e-5, abs=1e-6)
    # Of the norm, along directions in which the rank does not change.
    rank = np.count_nonzero(point.sigma)
    assert rank == 3

    def polar(E, w):
        U, _, Vt = np.linalg.svd(problem.penalised(E))
        return (U[:, :rank] @ Vt[:rank],)

    X = step.into(D)
    D = step.out_of(X)
    bent = step.product(X, d)[0] - step.into(step.loss_curvature(D, d)[0])
    assert step.out_of(bent) == pytest.approx(ends(polar)[0], rel=1e-4, abs=1e-6)
    # The preconditioner is symmetric and positive.
    R = [step.into(X - np.outer(one, one @ X)) for X in rng.standard_normal((2, 4, 4))]
    images = [step.preconditioned(X, d)[0] for X in R]
    assert np.sum(R[0] * images[1]) == pytest.approx(np.sum(R[1] * images[0]), rel=1e-9)
    assert np.sum(R[0] * images[0]) > 0


def step_at(sigma, dead, bias):
    """Return a step where these singular values live and the others have these g, of random
    vectors that are orthogonal to the constants and to v."""
    from theorylab.neural_collapse._group_problem import GroupProblem, shrink
    from theorylab.neural_collapse._newton_step import NewtonStep
    from theorylab.neural_collapse._spectra import groups_of

    G, rng = len(sigma) + len(dead) + 1, np.random.default_rng(len(sigma))
    counts = np.arange(1, G + 1)
    problem = GroupProblem(groups_of(counts), 0.02, bias, float(counts.sum()))
    ends = problem.one, problem.v if bias else problem.one
    U, V = (
        np.linalg.qr(np.column_stack([end, rng.standard_normal((G, G - 1))]))[0][:, 1:]
        for end in ends
    )
    Z = (U * np.append(1.0 + np.asarray(sigma), dead)) @ V.T
    offset = rng.standard_normal(G) * bias
    offset -= problem.one * (problem.one @ offset)
    point = shrink(problem, Z, offset, np.zeros(G), 1.0)
    assert np.count_nonzero(point.sigma) == len(sigma)
    return problem, point, NewtonStep(problem, point)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("sigma", "dead"),
    [
        ([], np.linspace(0.1, 0.9, 8)),
        ([0.7], np.linspace(0.1, 0.9, 7)),
        ([0.3, 0.3, 0.3], [0.5, 0.5, 0.9, 0.0, 0.0]),
        ([1.0, 0.5, 0.4, 1e-4], [1.0 - 1e-4, 0.5, 0.2, 0.1]),
        (np.linspace(0.1, 1.0, 8), []),
        ([0.5], []),
        ([], [0.5]),
    ],
)
def test_the_curvature_of_the_norm_is_that_of_pairs_of_singular_values(sigma, dead, bias):
    problem, point, step = step_at(sigma, dead, bias)
    G = problem.G
    B = np.random.default_rng(0).standard_normal((G, G))
    # Pairs of values, each for itself: d Y = U (pairs of U' B V) V'.
    s, g, X = point.sigma, point.g, point.U.T @ B @ point.Vt.T
    if bias:  # what is along v has no penalty
        assert np.abs(point.Vt[0]) == pytest.approx(problem.v, abs=1e-12)
    pairs, kept = np.zeros((G, G)), np.zeros((G, G))
    for i, j in np.ndindex(G, G):
        if s[i] + s[j] > 0 and not (bias and 0 in (i, j)):
            even, odd = X[i, j] + X[j, i], X[i, j] - X[j, i]
            pairs[i, j] = 0.5 * ((2 - g[i] - g[j]) * even + (g[i] + g[j]) * odd) / (s[i] + s[j])
        if s[i] + s[j] > 0 or (bias and j == 0):
            kept[i, j] = X[i, j]
    if bias:  # the row of the constants, which no direction of the method has
        X[0] = pairs[0] = kept[0] = 0.0
        B = point.U @ X @ point.Vt
    bend = step.out_of(step.bend(step.into(B)))
    size = max(1.0, np.abs(pairs).max())
    np.testing.assert_allclose(bend, point.U @ pairs @ point.Vt, atol=1e-12 * size)
    # To the tangent space and back, by thin matrices or by whole ones.
    there = step.out_of(step.into(B))
    np.testing.assert_allclose(there, point.U @ kept @ point.Vt, atol=1e-12 * G)


def conditions(step):
    """Return the condition numbers of the equation of a step, and of it preconditioned."""
    G, nothing, basis = step.problem.G, np.zeros(step.problem.G), []
    for X in np.eye(G * G).reshape(-1, G, G):
        X = step.tangent(X)
        X = X - np.outer(step.one, step.one @ X)
        for other in basis * 2:
            X = X - np.sum(X * other) * other
        if np.linalg.norm(X) > 1e-6:
            basis.append(X / np.linalg.norm(X))
    A, M = (
        np.array([[np.sum(X * function(Z, nothing)[0]) for X in basis] for Z in basis])
        for function in (step.product, step.preconditioned)
    )
    values = np.linalg.eigvals(M @ A)
    assert np.abs(values.imag).max() < 1e-6 * values.real.min()
    return np.linalg.cond(A), values.real.max() / values.real.min()


@pytest.mark.parametrize("bias", [False, True])
def test_conjugate_gradients_do_not_see_a_singular_value_that_vanishes(bias):
    (hessian, first), (worse, second) = (
        conditions(step_at([1.0, 0.5, 0.4, small], [1.0 - small, 0.5, 0.2], bias)[2])
        for small in (1e-2, 1e-6)
    )
    assert worse > 1e3 * hessian
    # Chebyshev's bound: a hundredth after ten steps.
    for ratio in (first, second):
        root = np.sqrt(ratio)
        assert 2 * ((root - 1) / (root + 1)) ** 10 < 0.01


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("level", [1e-4, 1e-2, 0.5])
def test_twenty_steps_of_conjugate_gradients_suffice_at_minimizers(level, bias):
    from theorylab.neural_collapse import _reduced_cross_entropy as reduced
    from theorylab.neural_collapse._group_problem import GroupProblem
    from theorylab.neural_collapse._spectra import groups_of

    counts = np.array([1, 2, 5, 9, 40, 300])
    groups, total = groups_of(counts), float(counts.sum())
    problem = GroupProblem(groups, np.sqrt(level * 9) / total, bias, total)
    point = next(reduced._solve(problem, reduced._start(groups, problem)))
    root = np.sqrt(conditions(reduced.NewtonStep(problem, point))[1])
    assert 2 * ((root - 1) / (root + 1)) ** 20 < 0.01


def test_penalties_may_be_numbers_of_any_type_and_split_in_any_way():
    reference = nc.ufm_minimizer(
        nc.UnconstrainedFeatures([5, 3, 2], lam_w=0.01, lam_h=0.02, loss="ce"), dimension=3
    )
    for s in (1e-150, 1e-8, 1e8, 1e150):
        other = nc.ufm_minimizer(
            nc.UnconstrainedFeatures([5, 3, 2], lam_w=0.01 * s, lam_h=0.02 / s, loss="ce"),
            dimension=3,
        )
        assert other.status is nc.UfmStatus.SOLVED
        assert other.objective == pytest.approx(reference.objective, rel=1e-13)
        assert other.class_logits == pytest.approx(reference.class_logits, rel=1e-8, abs=1e-8)
        assert other.classifier * np.sqrt(s) == pytest.approx(
            reference.classifier, rel=1e-6, abs=1e-7
        )
    low = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(
            [5, 3, 2], lam_w=np.float32(0.01), lam_h=np.array(0.02), loss="ce"
        ),
        dimension=3,
    )
    assert low.status is nc.UfmStatus.SOLVED
    assert type(low.model.lam_w) is type(low.model.lam_h) is float
    assert low.certificate.gap < 1e-9


def test_a_gap_of_nan_is_no_gap_of_zero():
    assert nc.Certificate(np.nan, np.nan).gap == nc.Certificate(1.0, np.nan).gap == np.inf
    assert nc.Certificate(0.0, 0.0).gap == 0.0
    assert nc.Certificate(0.0, -1.0).gap == 1.0
    with pytest.raises(ArithmeticError):  # a bound above the objective is an error of ours
        _ = nc.Certificate(1.0, 1.0 + 1e-9).gap
    assert nc.Certificate(1e-200, 0.5e-200).gap == nc.Certificate(2.0, 1.0).gap == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("counts", [3]),
        ("counts", [3, 0]),
        ("counts", [3, 1.5]),
        ("counts", [2**53, 3]),
        ("counts", "bad"),
        ("lam_w", 0.0),
        ("lam_h", np.nan),
        ("loss", "hinge"),
        ("loss", None),
        ("bias", 1),
    ],
)
def test_a_problem_is_refused_by_the_name_of_what_is_wrong(name, value):
    good = {"counts": [3, 2], "lam_w": 0.1, "lam_h": 0.2, "loss": "ce", "bias": True}
    nc.UnconstrainedFeatures(**good)
    with pytest.raises(ValueError, match=name):
        nc.UnconstrainedFeatures(**{**good, name: value})


def test_a_problem_refuses_points_and_formulas_of_another():
    model = nc.UnconstrainedFeatures([2, 1], lam_w=0.1, lam_h=0.4, loss="ce")
    H, W = np.ones((2, 3)), np.eye(2)
    for function in (nc.ufm_objective, nc.certify_ufm):
        with pytest.raises(ValueError, match="bias"):
            function(model, H, W, bias=[0.0, 0.0])
    for other in ([2, 2], "mse"), ([2, 1], "ce"):
        counts, loss = other
        with pytest.raises(ValueError, match="model"):
            nc.cross_entropy_gap(nc.UnconstrainedFeatures(counts, lam_w=0.1, lam_h=0.4, loss=loss))
    assert model.price == pytest.approx(0.2, rel=1e-15)
    assert nc.collapse_threshold(model) == pytest.approx(9 * 0.04, rel=1e-15)
    assert model.labels.tolist() == [0, 0, 1]
    assert not model.counts.flags.writeable


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("level", [0.0025, 0.1, 1.5])
def test_many_sizes_at_weak_and_strong_penalties(level, bias):
    counts = np.random.default_rng(1).choice(2000, 70, replace=False) + 1
    lam = np.sqrt(level * np.median(counts)) / counts.sum()
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias), dimension=70
    )
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-10


@pytest.mark.parametrize("counts", [[414113, 192], [2, 1, 1, 10000, 1, 1], [7, 5, 5, 3]])
@pytest.mark.parametrize("strength", [1.0001, 30.0, 1e6])
def test_a_free_bias_of_frequencies_where_nothing_else_is_left(counts, strength):
    n = np.array(counts)
    # At the frequencies the gradient is n_k (p - e_k); the norm of it is where all collapses.
    q = n / n.sum()
    gradient = (q[:, None] - np.eye(n.size)) * np.sqrt(n) / n.sum()
    lam = strength * np.linalg.norm(gradient, 2)
    model = nc.UnconstrainedFeatures(n, lam_w=lam, lam_h=lam, loss="ce", bias=True)
    s = nc.ufm_minimizer(model, dimension=1)
    assert s.status is nc.UfmStatus.SOLVED
    assert not s.singular_values.any()
    assert np.ptp(s.bias - np.log(n)) < 1e-6
    assert s.objective == pytest.approx(-q @ np.log(q), rel=1e-10)
    weaker = nc.UnconstrainedFeatures(
        n, lam_w=0.9 * lam / strength, lam_h=lam / strength, loss="ce", bias=True
    )
    assert nc.ufm_minimizer(weaker, dimension=n.size).singular_values[0] > 0


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lam", [1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("counts", [[740, 3, 741, 3], [16] * 27 + [1906] * 13])
def test_weak_decays_leave_a_certificate_with_its_digits(counts, lam, bias):
    # The minimum is of the size of the penalty, far below the rounding of the logits' gaps.
    model = nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias)
    s = nc.ufm_minimizer(model, dimension=len(counts))
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-9


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("counts", [[3, 2], [2, 2, 3]])
def test_decays_of_any_size_end_with_a_status_that_is_true(counts, bias):
    def solve(lam):
        return nc.ufm_minimizer(
            nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias),
            dimension=len(counts),
        )

    weak = solve(1e-13)
    assert weak.status is nc.UfmStatus.SOLVED
    assert weak.certificate.gap < 1e-9
    # From mu = 1e-16 on the least probabilities are far below the rounding of one.
    for lam in (1e-16, 1e-20, 1e-300):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weaker = solve(lam)
        gap = weaker.certificate.gap
        assert gap < 0.1
        assert (gap < 1e-9) == (weaker.status is nc.UfmStatus.SOLVED)
    n = np.array(counts)
    q = n / n.sum() if bias else np.full(n.size, 1 / n.size)
    for lam in (1.0, 1e150, 1e300):
        strong = solve(lam)
        assert strong.status is nc.UfmStatus.SOLVED
        assert not strong.singular_values.any()
        assert strong.objective == pytest.approx(-n @ np.log(q) / n.sum(), rel=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("counts", [[527582, 1, 1], [78317, 1, 1, 1], [444, 445]])
def test_labels_of_very_different_sizes_and_weak_decays_keep_their_digits(counts, bias):
    n = np.array(counts)
    for level in (1.0001, 1e-6, 1e-14):
        lam = np.sqrt(level) / n.sum()
        model = nc.UnconstrainedFeatures(n, lam_w=lam, lam_h=lam, bias=bias)
        best = nc.ufm_minimizer(model, dimension=n.size)
        assert -1e-13 < best.certificate.gap < 1e-12
    if bias:  # singular values: those of the projected labels, in extended precision
        values = np.sort(best.singular_values)[::-1] + n.sum() * model.price
        with mpmath.workdps(40):
            gram = mpmath.matrix(n.size, n.size)
            for i in range(n.size):
                for j in range(n.size):
                    gram[i, j] = (int(n[i]) if i == j else 0) - mpmath.mpf(int(n[i] * n[j])) / int(
                        n.sum()
                    )
            squares = sorted(mpmath.eigsy(gram, eigvals_only=True), reverse=True)
            expected = [float(mpmath.sqrt(v)) for v in squares[:-1]]
        assert values[:-1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("level", [0.9999, 1.0, 1.0001, 100.0])
def test_penalties_next_to_the_threshold_of_many_classes(level, bias):
    counts = np.array([11, 10, 10, 10, *[100000] * 5, 100001])
    lam = np.sqrt(level * 1e5) / counts.sum()
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias), dimension=10
    )
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-9


@pytest.mark.parametrize(
    ("counts", "limit"),
    # The singular vector of the least value that lives leaves the dual constraints by rounding.
    [
        ([10**9] * 2 + [1] * 8, 1.0),
        # The bias of the small classes has to move while the loss is the same to all digits.
        ([1] * 9 + [10**9] * 12, 1981.1),
    ],
)
def test_classes_of_one_and_of_a_milliard_samples(counts, limit):
    mu = limit / sum(counts)
    model = nc.UnconstrainedFeatures(counts, lam_w=mu, lam_h=mu, loss="ce", bias=True)
    s = nc.ufm_minimizer(model, dimension=len(counts))
    assert s.status is nc.UfmStatus.SOLVED
    assert s.certificate.gap < 1e-9


@pytest.fixture
def steps(monkeypatch):
    from theorylab.neural_collapse import _reduced_cross_entropy as reduced

    sizes = []

    class Counted(reduced.NewtonStep):
        def __init__(self, problem, *rest):
            sizes.append(problem.G)
            super().__init__(problem, *rest)

    monkeypatch.setattr(reduced, "NewtonStep", Counted)
    return sizes


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("factor", [30, 10**4, 10**8])
@pytest.mark.parametrize(("large", "level"), [(1, 1e-4), (1, 4.0), (35, 1e-4), (35, 7.0)])
def test_a_gap_between_many_sizes_is_not_bridged(large, level, factor, bias, steps):
    counts = np.arange(1, 71)
    counts[-large:] *= factor
    lam = np.sqrt(1.01 * level) / counts.sum()
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias), dimension=70
    )
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-9
    assert steps.count(70) <= 6


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("level", [0.0025, 0.1, 1.5, 1e3])
def test_a_long_tail_starts_with_the_right_rank(level, bias, steps):
    counts = np.unique(np.geomspace(5, 5000, 150).astype(int))
    lam = np.sqrt(level * np.median(counts)) / counts.sum()
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias),
        dimension=counts.size,
    )
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-10
    assert steps.count(counts.size) <= 3


@pytest.mark.parametrize("bias", [False, True])
def test_a_class_at_its_threshold_takes_no_more_steps_than_another(bias, steps):
    counts = np.sort(np.random.default_rng(0).choice(20000, 150, replace=False) + 1)
    lam = np.sqrt(counts[145]) / counts.sum()
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias),
        dimension=150,
    )
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-9
    assert steps.count(150) <= 4


def test_short_steps_are_damped(steps):
    counts = np.round(1e4 * 0.95 ** np.arange(93)).astype(int)
    lam = np.sqrt(2.1e-6 * np.median(counts)) / counts.sum()
    s = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce"), dimension=93
    )
    assert s.status is nc.UfmStatus.SOLVED
    assert -1e-13 < s.certificate.gap < 1e-9
    assert len(steps) <= 18


@pytest.mark.parametrize("bias", [False, True])
def test_a_stopped_minimizer_is_a_point_with_a_true_gap(bias):
    model = nc.UnconstrainedFeatures([9, 4, 4, 1], lam_w=0.01, lam_h=0.01, loss="ce", bias=bias)
    seen = []
    best = nc.ufm_minimizer(model, dimension=4, callback=seen.append)
    with pytest.warns(RuntimeWarning, match="stopped, by the callback"):
        first = nc.ufm_minimizer(model, dimension=4, callback=lambda record: True)
    assert first.status is nc.UfmStatus.STOPPED
    assert best.status is nc.UfmStatus.SOLVED
    value = nc.ufm_objective(model, first.features, first.classifier, bias=first.bias)
    assert value == pytest.approx(first.objective, rel=1e-13)
    assert first.certificate.lower <= best.objective < first.objective
    # At the last step, where the gap is certified all the same.
    with pytest.warns(RuntimeWarning, match="stopped, by the callback"):
        late = nc.ufm_minimizer(model, dimension=4, callback=lambda r: r.error == seen[-1].error)
    assert late.status is nc.UfmStatus.STOPPED
    assert late.certificate.gap < 1e-9
    assert seen[0].objective == first.objective
    assert seen[-1].error < 1e-3 * seen[0].error


@pytest.mark.parametrize("bias", [False, True])
def test_a_solver_that_is_stopped_before_the_rank_has_fallen_fits_into_the_dimension(bias):
    counts = [61, 57, 17, 7, 36, 40]
    refused = 0
    for level in np.linspace(20, 60, 9):
        lam = np.sqrt(level) / 218
        model = nc.UnconstrainedFeatures(counts, lam_w=lam, lam_h=lam, loss="ce", bias=bias)
        best = nc.ufm_minimizer(model, dimension=6)
        rank = max(1, int(np.count_nonzero(best.singular_values)))
        assert nc.ufm_minimizer(model, dimension=rank).objective == best.objective
        with pytest.warns(RuntimeWarning, match="stopped, by the callback"):
            whole, thin = (
                nc.ufm_minimizer(model, dimension=d, callback=lambda record: True)
                for d in (6, rank)
            )
        refused += bool(np.count_nonzero(whole.singular_values) > rank)
        assert thin.status is nc.UfmStatus.STOPPED
        assert thin.singular_values == pytest.approx(whole.singular_values[:rank], rel=1e-12)
        value = nc.ufm_objective(model, thin.features, thin.classifier, bias=thin.bias)
        assert value == pytest.approx(thin.objective, rel=1e-13)
        assert thin.certificate.lower <= best.objective < thin.objective
    assert refused


@pytest.mark.parametrize("bias", [False, True])
def test_where_newton_steps_fail_gradient_steps_descend(monkeypatch, bias):
    from theorylab.neural_collapse import _reduced_cross_entropy as reduced

    counts, told = np.array([20, 8, 8, 5, 3, 2, 2, 1]), []

    def solve(told):
        return reduced.solve_cross_entropy(
            counts, 0.05 / 7.0, bias, lambda *fields: told.append(fields)
        )

    best = next(solve([]))[0]
    # Steps uphill, too long for any halving: what is left is a proximal gradient step, of the
    # length at which such steps descend for certain.
    monkeypatch.setattr(
        reduced.NewtonStep, "solve", lambda self, *rests: tuple(1e6 * rest for rest in rests[:2])
    )
    *_, end = solve(told)
    values = [objective for _, objective, _ in told]
    assert len(values) == 100
    assert np.all(np.diff(values) < 0.0)
    assert best < end[0] < best * (1.0 + 1e-3)
    assert told[-1][2] < 0.1 * told[0][2]
