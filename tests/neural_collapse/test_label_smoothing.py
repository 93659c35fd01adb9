import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax

from theorylab import neural_collapse as nc


def soft_labels(labels, n_classes, alpha):
    return (1 - alpha) * np.eye(n_classes)[:, labels] + alpha / n_classes


def draw(seed, K=4, N=7, scale=2.0):
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((K, N)), rng.integers(K, size=N)


@pytest.mark.parametrize("seed", range(3))
def test_losses_are_soft_label_cross_entropy_and_its_max_variant(seed):
    Z, y = draw(seed)
    direct = -np.sum(soft_labels(y, 4, 0.2) * log_softmax(Z, axis=0), axis=0)
    assert nc.smoothed_loss(Z, y, 0.2).values == pytest.approx(direct, rel=1e-13)
    terms = nc.smoothing_terms(Z, y)
    plain = nc.smoothed_loss(Z, y, 0.0).values
    assert plain + 0.2 * (terms.regularization + terms.error) == pytest.approx(direct, rel=1e-13)
    assert np.array_equal(terms.error == 0, Z.argmax(axis=0) == y)
    suppressed = nc.smoothed_loss(Z, y, 0.2, loss="maxsup").values
    assert suppressed - direct == pytest.approx(0.2 * (Z.max(axis=0) - Z[y, range(7)]), abs=1e-13)


@pytest.mark.parametrize("loss", ["ls", "maxsup"])
def test_gradient_is_that_of_finite_differences(loss):
    Z, y = draw(5)
    total = lambda z: nc.smoothed_loss(z.reshape(Z.shape), y, 0.3, loss=loss).values.sum()  # noqa: E731
    difference = approx_fprime(Z.ravel(), total, 1e-7).reshape(Z.shape)
    assert nc.smoothed_loss(Z, y, 0.3, loss=loss).gradient == pytest.approx(difference, abs=2e-6)


def test_a_tied_label_counts_as_the_largest():
    gradient = [
        nc.smoothed_loss(np.zeros((3, 3)), [0, 1, 2], 0.3, loss=loss).gradient
        for loss in ("ls", "maxsup")
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
        assert z.value[0] - z.value[1:] == pytest.approx(
            nc.smoothed_gap(K, n_per_class=1, lam_w=0.0, lam_h=0.0, alpha=alpha), abs=1e-3
        )


def test_gap_limits():
    assert nc.smoothed_gap(4, n_per_class=5, lam_w=0.01, lam_h=0.02, alpha=0.0) == pytest.approx(
        nc.cross_entropy_gap(nc.UnconstrainedFeatures([5] * 4, lam_w=0.01, lam_h=0.02, loss="ce")),
        rel=1e-14,
    )
    assert nc.smoothed_gap(4, n_per_class=5, lam_w=0.0, lam_h=0.02, alpha=0.0) == np.inf
    lam = 0.7 / (4 * np.sqrt(5))  # alpha + K sqrt(n) lam = 1 at alpha = 0.3
    assert (
        nc.smoothed_gap(4, n_per_class=5, lam_w=lam, lam_h=lam, alpha=0.299)
        > 0
        == nc.smoothed_gap(4, n_per_class=5, lam_w=lam, lam_h=lam, alpha=0.301)
    )


CASES = [
    (3, 4, 4, 0.02, 0.01, 0.3),
    (4, 2, 3, 0.003, 0.006, 0.1),
    (2, 3, 5, 0.05, 0.05, 0.05),
    (3, 2, 3, 0.3, 0.2, 0.6),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss", ["ls", "maxsup"])
def test_closed_form_is_the_certified_minimum_and_what_searches_find(case, loss):
    K, n, d, lam_w, lam_h, alpha = case
    best = nc.smoothed_ufm_minimizer(
        K, n_per_class=n, dimension=d, lam_w=lam_w, lam_h=lam_h, alpha=alpha
    )
    certificate = nc.certify_smoothed_ufm(
        best.features, best.classifier, [n] * K, lam_w=lam_w, lam_h=lam_h, alpha=alpha, loss=loss
    )
    assert certificate.lower <= best.objective * (1 + 1e-14)
    assert 0 <= certificate.gap < 1e-12
    penalty = (lam_w * np.sum(best.classifier**2) + lam_h * np.sum(best.features**2)) / 2
    labels = np.repeat(np.arange(K), n)
    assert nc.smoothed_loss(
        best.logits, labels, alpha, loss=loss
    ).values.mean() + penalty == pytest.approx(best.objective)
    found = nc.search_smoothed_ufm(
        [n] * K, dimension=d, lam_w=lam_w, lam_h=lam_h, alpha=alpha, loss=loss, n_starts=3, seed=1
    )
    assert found.objective == pytest.approx(best.objective, rel=1e-10)
    radius = nc.logit_radius(
        found.logits, best.logits, max(found.objective - certificate.lower, 0) + 1e-15
    )
    assert np.linalg.norm(found.logits - found.logits.mean(axis=0) - best.logits) <= radius
    assert radius < 1e-4
    if nc.smoothed_gap(K, n_per_class=n, lam_w=lam_w, lam_h=lam_h, alpha=alpha) > 0:
        metrics = nc.collapse_metrics(best.features, labels, best.classifier, layout="columns")
        assert metrics.variability_ratio < 1e-25
        assert metrics.mean_etf_distance < 1e-12
        assert metrics.duality_distance < 1e-12


@pytest.mark.parametrize("bias", [False, True])
def test_lower_bound_is_the_convex_minimum_for_unequal_classes(bias):
    counts, lam_w, lam_h, alpha = np.array([4, 2, 1]), 0.05, 0.03, 0.2
    P, b, y = cp.Variable((3, 7)), cp.Variable((3, 1)), np.repeat(np.arange(3), counts)
    Z = P + b @ np.ones((1, 7)) if bias else P
    fit = sum(cp.log_sum_exp(Z[:, i]) for i in range(7)) - cp.sum(
        cp.multiply(soft_labels(y, 3, alpha), Z)
    )
    value = cp.Problem(cp.Minimize(fit / 7 + np.sqrt(lam_w * lam_h) * cp.normNuc(P))).solve(
        solver="CLARABEL"
    )
    found = nc.search_smoothed_ufm(
        counts, dimension=4, lam_w=lam_w, lam_h=lam_h, alpha=alpha, bias=bias
    )
    assert found.objective == pytest.approx(value, abs=1e-6)
    certificate = nc.certify_smoothed_ufm(
        found.features,
        found.classifier,
        counts,
        lam_w=lam_w,
        lam_h=lam_h,
        alpha=alpha,
        bias=found.bias,
    )
    assert certificate.lower <= found.objective + 1e-14
    assert certificate.gap < 1e-6
    assert certificate.lower <= value + 1e-6


def test_lower_bound_holds_from_any_point():
    rng = np.random.default_rng(0)
    minimum = nc.smoothed_ufm_minimizer(
        3, n_per_class=2, dimension=3, lam_w=0.1, lam_h=0.05, alpha=0.2
    ).objective
    for _ in range(20):
        H, W = rng.standard_normal((3, 6)), rng.standard_normal((3, 3))
        certificate = nc.certify_smoothed_ufm(
            H, W, [2, 2, 2], lam_w=0.1, lam_h=0.05, alpha=0.2, loss="maxsup"
        )
        assert certificate.lower <= minimum <= certificate.upper


def test_minimizers_differ_where_label_smoothing_misfits():
    counts = [30, 2, 2, 2]
    smoothed = nc.search_smoothed_ufm(
        counts, dimension=4, lam_w=0.1, lam_h=0.1, alpha=0.1, bias=True
    )
    assert (smoothed.logits.argmax(axis=0) != np.repeat(np.arange(4), counts)).any()
    suppressed = nc.search_smoothed_ufm(
        counts, dimension=4, lam_w=0.1, lam_h=0.1, alpha=0.1, loss="maxsup", bias=True
    )
    assert suppressed.objective > smoothed.objective + 0.01


@pytest.mark.parametrize(("alpha", "loss"), [(0.0, "ls"), (0.2, "ls"), (0.2, "maxsup")])
def test_correction_time_agrees_with_small_euler_steps_on_all_logits(alpha, loss):
    z, step, time = np.array([0.0, 2.0, 0.0, 0.0, 0.0])[:, None], 5e-4, 0.0
    while z[0, 0] < np.delete(z, 0).max():
        z, time = z - step * nc.smoothed_loss(z, [0], alpha, loss=loss).gradient, time + step
    assert nc.correction_time(5, margin=2.0, alpha=alpha, loss=loss) == pytest.approx(
        time, abs=3 * step
    )


def test_correction_time_ends_at_the_gap_of_the_minimizer():
    assert nc.correction_time(5, margin=-0.5, alpha=0.1, lead=0.5) == 0
    gap = nc.smoothed_gap(5, n_per_class=1, lam_w=0.0, lam_h=0.0, alpha=0.5)
    assert nc.correction_time(5, margin=1.0, alpha=0.5, lead=gap) == np.inf
    assert np.isfinite(nc.correction_time(5, margin=1.0, alpha=0.5, loss="maxsup", lead=0.99 * gap))


def overlapping(seed, n=60, d=3, K=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(K, size=n)
    return rng.standard_normal((d, K))[:, y] + rng.standard_normal((d, n)), y


@pytest.mark.parametrize("loss", ["ls", "maxsup"])
def test_linear_fit_agrees_with_a_convex_program(loss):
    X, y = overlapping(3)
    alpha, ridge, V = 0.2, 0.05, cp.Variable((3, 3))
    Z = V @ X
    logs = sum(cp.log_sum_exp(Z[:, i]) for i in range(60)) - cp.sum(cp.multiply(np.eye(3)[:, y], Z))
    top = cp.sum(cp.max(Z, axis=0)) if loss == "maxsup" else cp.sum(cp.multiply(np.eye(3)[:, y], Z))
    value = cp.Problem(
        cp.Minimize((logs + alpha * (top - cp.sum(Z) / 3)) / 60 + ridge / 2 * cp.sum_squares(V))
    ).solve(solver="CLARABEL")
    fit = nc.smoothed_linear_fit(X, y, n_classes=3, alpha=alpha, loss=loss, ridge=ridge)
    assert fit.objective == pytest.approx(value, abs=fit.suboptimality + 1e-8)
    assert fit.classifier == pytest.approx(
        V.value, abs=np.sqrt(2 * fit.suboptimality / ridge) + 1e-3
    )


def test_separable_data_have_one_minimizer():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 10)
    X = 3 * nc.simplex_etf(3, 3).T[:, y] + 0.1 * rng.standard_normal((3, 30))
    fits = [
        nc.smoothed_linear_fit(X, y, n_classes=3, alpha=0.1, loss=loss, ridge=1e-2)
        for loss in ("ls", "maxsup")
    ]
    assert ((fits[0].classifier @ X).argmax(axis=0) == y).all()
    assert fits[0].classifier == pytest.approx(
        fits[1].classifier, abs=np.sqrt(2 * fits[1].suboptimality / 1e-2)
    )


def test_maxsup_fit_beats_a_derivative_free_search():
    X, y = overlapping(9, n=30, d=1)
    objective = lambda v: (  # noqa: E731
        nc.smoothed_loss(v.reshape(3, 1) @ X, y, 0.3, loss="maxsup").values.mean()
        + 0.05 * np.sum(v**2)
    )
    found = minimize(
        objective,
        np.zeros(3),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000},
    )
    fit = nc.smoothed_linear_fit(X, y, n_classes=3, alpha=0.3, loss="maxsup", ridge=0.1)
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
            time = nc.correction_time(3, margin=margin, alpha=alpha)
            assert margin / (2 - alpha) < time <= margin / (1 - alpha) * (1 + 1e-6)
    with pytest.raises(ValueError, match="margin: "):
        nc.correction_time(3, margin=1e30, alpha=0.1)
