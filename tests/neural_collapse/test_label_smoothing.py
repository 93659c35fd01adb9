import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax

from theorylab import neural_collapse as nc


def soft_labels(labels, n_classes, alpha):
    return (1 - alpha) * np.eye(n_classes)[:, labels] + alpha / n_classes


LOSSES = {"ls": nc.CrossEntropy, "maxsup": nc.MaxSuppression}


def draw(seed, K=4, N=7, scale=2.0):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((K, N)), rng.integers(K, size=N)


@pytest.mark.parametrize("seed", range(3))
def test_losses_are_soft_label_cross_entropy_and_its_max_variant(seed):
    Z, y = draw(seed)
    direct = -np.sum(soft_labels(y, 4, 0.2) * log_softmax(Z, axis=0), axis=0)
    assert nc.smoothed_loss(Z, y, nc.CrossEntropy(0.2)).values == pytest.approx(direct, rel=1e-13)
    terms = nc.smoothing_terms(Z, y)
    plain = nc.smoothed_loss(Z, y, "ce").values
    assert plain + 0.2 * (terms.regularization + terms.error) == pytest.approx(direct, rel=1e-13)
    assert np.array_equal(terms.error == 0, Z.argmax(axis=0) == y)
    suppressed = nc.smoothed_loss(Z, y, nc.MaxSuppression(0.2)).values
    assert suppressed - direct == pytest.approx(0.2 * (Z.max(axis=0) - Z[y, range(7)]), abs=1e-13)


@pytest.mark.parametrize("loss", [nc.CrossEntropy(0.3), nc.MaxSuppression(0.3)])
def test_gradient_is_that_of_finite_differences(loss):
    Z, y = draw(5)
    total = lambda z: nc.smoothed_loss(z.reshape(Z.shape), y, loss).values.sum()  # noqa: E731
    difference = approx_fprime(Z.ravel(), total, 1e-7).reshape(Z.shape)
    assert nc.smoothed_loss(Z, y, loss).gradient == pytest.approx(difference, abs=2e-6)


def test_a_tied_label_counts_as_the_largest():
    gradient = [
        nc.smoothed_loss(np.zeros((3, 3)), [0, 1, 2], loss).gradient
        for loss in (nc.CrossEntropy(0.3), nc.MaxSuppression(0.3))
    ]
    assert np.array_equal(*gradient)


@pytest.mark.parametrize(("K", "alpha"), [(3, 0.4), (10, 0.1)])
def test_single_sample_minimizers_agree_with_a_convex_program(K, alpha):
    for penalised in ("label", "max"):
        z = cp.Variable(K)
        top = z[0] if penalised == "label" else cp.max(z)
        problem = cp.Problem(
            cp.Minimize(cp.log_sum_exp(z) - z[0] + alpha * (top - cp.sum(z) / K)), [cp.sum(z) == 0]
        )
        value = problem.solve(solver="CLARABEL")
        s = soft_labels(np.zeros(1, int), K, alpha)
        assert value == pytest.approx(-np.sum(s * np.log(s)), abs=1e-7)
        assert z.value[0] - z.value[1:] == pytest.approx(np.log1p(K * (1 / alpha - 1)), abs=1e-3)


def smoothed(counts, lam_w, lam_h, loss, bias=False):
    return nc.UnconstrainedFeatures(counts, lam_w=lam_w, lam_h=lam_h, loss=loss, bias=bias)


def test_gap_ends_where_smoothing_and_decay_fill_the_classes():
    lam = 0.7 / (4 * np.sqrt(5))  # alpha + K sqrt(n) lam = 1 at alpha = 0.3
    for kind in LOSSES.values():
        below, above = (smoothed([5] * 4, lam, lam, kind(a)) for a in (0.299, 0.301))
        assert nc.cross_entropy_gap(below) > 0 == nc.cross_entropy_gap(above)


CASES = [
    (3, 4, 4, 0.02, 0.01, 0.3),
    (4, 2, 3, 0.003, 0.006, 0.1),
    (2, 3, 5, 0.05, 0.05, 0.05),
    (3, 2, 3, 0.3, 0.2, 0.6),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["ls", "maxsup"])
def test_closed_form_is_the_certified_minimum_and_what_searches_find(case, name):
    K, n, d, lam_w, lam_h, alpha = case
    model = smoothed([n] * K, lam_w, lam_h, LOSSES[name](alpha))
    best = nc.ufm_minimizer(model, dimension=d)
    assert -1e-14 < best.certificate.gap < 1e-12
    certificate = nc.certify_ufm(model, best.features, best.classifier)
    assert certificate.lower <= best.objective * (1 + 1e-14)
    assert 0 <= certificate.gap < 1e-12
    assert certificate.verify().accepted
    reached = nc.ufm_objective(model, best.features, best.classifier)
    assert reached == pytest.approx(best.objective, rel=1e-13)
    found = nc.search_deep_linear(
        [n] * K, [lam_w, lam_h], dimension=d, loss=model.loss, n_starts=3, seed=1
    )
    assert found.objective == pytest.approx(best.objective, rel=1e-10)
    logits = best.classifier @ best.features
    assert found.logits == pytest.approx(found.layers[0] @ found.features)
    radius = nc.logit_radius(
        found.logits, logits, max(found.objective - certificate.lower, 0) + 1e-15
    )
    assert np.linalg.norm(found.logits - found.logits.mean(axis=0) - logits) <= radius
    assert radius < 1e-4
    if nc.cross_entropy_gap(model) > 0:
        metrics = nc.collapse_metrics(
            best.features, model.labels, best.classifier, layout="columns"
        )
        assert metrics.variability_ratio < 1e-25
        assert metrics.mean_etf_distance < 1e-12
        assert metrics.duality_distance < 1e-12


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["ls", "maxsup"])
def test_lower_bound_is_the_convex_minimum_for_unequal_classes(bias, name):
    counts, lam_w, lam_h, alpha = np.array([4, 2, 1]), 0.05, 0.03, 0.2
    P, b, y = cp.Variable((3, 7)), cp.Variable((3, 1)), np.repeat(np.arange(3), counts)
    Z = P + b @ np.ones((1, 7)) if bias else P
    targets = soft_labels(y, 3, alpha)
    fit = sum(cp.log_sum_exp(Z[:, i]) for i in range(7)) - cp.sum(cp.multiply(targets, Z))
    value = cp.Problem(cp.Minimize(fit / 7 + np.sqrt(lam_w * lam_h) * cp.normNuc(P))).solve(
        solver="CLARABEL"
    )
    found = nc.search_deep_linear(
        counts, [lam_w, lam_h], dimension=4, loss=nc.CrossEntropy(alpha), bias=bias, n_starts=4
    )
    assert found.objective == pytest.approx(value, abs=1e-6)
    assert found.logits == pytest.approx(
        found.layers[0] @ found.features + (found.bias[:, None] if bias else 0)
    )
    model = smoothed(counts, lam_w, lam_h, LOSSES[name](alpha), bias)
    certificate = nc.certify_ufm(model, found.features, found.layers[0], bias=found.bias)
    assert certificate.verify().accepted
    assert value - 1e-5 < certificate.lower <= value + 1e-6
    reached = nc.ufm_objective(model, found.features, found.layers[0], bias=found.bias)
    assert reached <= certificate.upper < reached + 1e-12
    # Label smoothing leads everywhere here but on the smallest class.
    assert (certificate.gap < 1e-6) == (name == "ls" or (found.logits.argmax(axis=0) == y).all())


def test_lower_bound_holds_from_any_point():
    rng = np.random.default_rng(0)
    model = smoothed([2, 2, 2], 0.1, 0.05, nc.MaxSuppression(0.2))
    minimum = nc.ufm_minimizer(model, dimension=3).objective
    for _ in range(20):
        H, W = rng.standard_normal((3, 6)), rng.standard_normal((3, 3))
        certificate = nc.certify_ufm(model, H, W)
        assert certificate.lower <= minimum <= certificate.upper


def test_minimizers_differ_where_label_smoothing_misfits():
    counts = [30, 2, 2, 2]
    plain, suppressed = (
        nc.search_deep_linear(counts, [0.1, 0.1], dimension=4, loss=loss, bias=True, n_starts=4)
        for loss in ("ls", "maxsup")
    )
    assert (plain.logits.argmax(axis=0) != np.repeat(np.arange(4), counts)).any()
    assert suppressed.objective > plain.objective + 0.01


def test_smoothing_has_a_closed_form_for_equal_classes_only():
    with pytest.raises(ValueError, match=r"model: .*CrossEntropy\(smoothing=0.1\)"):
        nc.ufm_minimizer(smoothed([3, 2], 0.1, 0.1, "ls"), dimension=2)


@pytest.mark.parametrize("loss", ["ce", nc.CrossEntropy(0.2), nc.MaxSuppression(0.2)])
def test_correction_time_agrees_with_small_euler_steps_on_all_logits(loss):
    z, step, time = np.array([0.0, 2.0, 0.0, 0.0, 0.0])[:, None], 5e-4, 0.0
    while z[0, 0] < np.delete(z, 0).max():
        z, time = z - step * nc.smoothed_loss(z, [0], loss).gradient, time + step
    assert nc.correction_time(5, margin=2.0, loss=loss) == pytest.approx(time, abs=3 * step)


def test_correction_time_ends_at_the_gap_of_the_minimizer():
    half = nc.CrossEntropy(0.5)
    assert nc.correction_time(5, margin=-0.5, loss="ls", lead=0.5) == 0
    gap = np.log(6)  # (1 - alpha + alpha / K) / (alpha / K)
    assert nc.correction_time(5, margin=1.0, loss=half, lead=gap + 1e-12) == np.inf
    assert np.isfinite(nc.correction_time(5, margin=1.0, loss=half, lead=0.99 * gap))
    assert np.isfinite(
        nc.correction_time(5, margin=1.0, loss=nc.MaxSuppression(0.5), lead=0.99 * gap)
    )


def overlapping(seed, n=60, d=3, K=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(K, size=n)
    return rng.standard_normal((d, K))[:, y] + rng.standard_normal((d, n)), y


@pytest.mark.parametrize("name", ["ls", "maxsup"])
def test_linear_fit_agrees_with_a_convex_program(name):
    X, y = overlapping(3)
    alpha, ridge, V = 0.2, 0.05, cp.Variable((3, 3))
    Z = V @ X
    logs = sum(cp.log_sum_exp(Z[:, i]) for i in range(60)) - cp.sum(cp.multiply(np.eye(3)[:, y], Z))
    top = cp.sum(cp.max(Z, axis=0)) if name == "maxsup" else cp.sum(cp.multiply(np.eye(3)[:, y], Z))
    value = cp.Problem(
        cp.Minimize((logs + alpha * (top - cp.sum(Z) / 3)) / 60 + ridge / 2 * cp.sum_squares(V))
    ).solve(solver="CLARABEL")
    fit = nc.smoothed_linear_fit(X, y, n_classes=3, loss=LOSSES[name](alpha), ridge=ridge)
    assert fit.objective == pytest.approx(value, abs=fit.suboptimality + 1e-8)
    assert fit.classifier == pytest.approx(
        V.value, abs=np.sqrt(2 * fit.suboptimality / ridge) + 1e-3
    )


def test_separable_data_have_one_minimizer():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 10)
    X = 3 * nc.simplex_etf(3, 3).T[:, y] + 0.1 * rng.standard_normal((3, 30))
    fits = [
        nc.smoothed_linear_fit(X, y, n_classes=3, loss=loss, ridge=1e-2)
        for loss in ("ls", "maxsup")
    ]
    assert ((fits[0].classifier @ X).argmax(axis=0) == y).all()
    assert fits[0].classifier == pytest.approx(
        fits[1].classifier, abs=np.sqrt(2 * fits[1].suboptimality / 1e-2)
    )


def test_maxsup_fit_beats_a_derivative_free_search():
    X, y = overlapping(9, n=30, d=1)
    loss = nc.MaxSuppression(0.3)
    objective = lambda v: (  # noqa: E731
        nc.smoothed_loss(v.reshape(3, 1) @ X, y, loss).values.mean() + 0.05 * np.sum(v**2)
    )
    found = minimize(
        objective,
        np.zeros(3),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000},
    )
    fit = nc.smoothed_linear_fit(X, y, n_classes=3, loss=loss, ridge=0.1)
    assert fit.objective <= found.fun + fit.suboptimality


def test_logit_radius_is_attained_by_two_classes_and_by_no_more():
    # Two even classes, three samples: the curvature 2 p (1 - p) is the least probability, 1/2.
    steps = 1e-3 * np.array([1.0, -0.5, 0.3])
    Z = np.array([steps, -steps])
    excess = float(np.mean(np.log(np.cosh(steps))))  # of mean cross-entropy with even targets
    radius = nc.logit_radius(Z, np.zeros((2, 3)), excess)
    assert 0.99 * radius < np.linalg.norm(Z) <= radius * (1 + 1e-9)
    rng = np.random.default_rng(0)
    for _ in range(20):
        optimal = rng.standard_normal((4, 3))
        targets = np.exp(optimal) / np.exp(optimal).sum(axis=0)
        move = rng.standard_normal((4, 3)) * 10 ** rng.uniform(-2, 0.5)
        Z = optimal + move
        log_p, log_q = (logits - np.log(np.exp(logits).sum(axis=0)) for logits in (optimal, Z))
        excess = float(np.sum(targets * (log_p - log_q)) / 3)
        distance = np.linalg.norm(move - move.mean(axis=0))
        assert distance <= nc.logit_radius(Z, optimal, excess)


def test_a_wide_margin_is_corrected_in_the_time_that_the_rates_allow():
    for margin in (1e3, 3e9):
        for alpha in (0.0, 0.5, 0.9):
            time = nc.correction_time(3, margin=margin, loss=nc.CrossEntropy(alpha))
            assert margin / (2 - alpha) < time <= margin / (1 - alpha) * (1 + 1e-6)
    with pytest.raises(ValueError, match="margin: "):
        nc.correction_time(3, margin=1e30, loss="ls")
