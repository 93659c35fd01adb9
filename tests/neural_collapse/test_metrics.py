import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from theorylab import neural_collapse as nc


def random_problem(rng, K=4, d=6, counts=(5, 9, 3, 7)):
    labels = np.repeat(np.arange(K), counts)
    means = 2 * rng.normal(size=(d, K))
    features = means[:, labels] + 0.7 * rng.normal(size=(d, labels.size))
    return features, labels, rng.normal(size=(K, d)), rng.normal(size=K)


@pytest.mark.parametrize(("K", "d"), [(2, 1), (3, 2), (5, 4), (5, 9), (40, 39)])
def test_simplex_etf_has_the_gram_matrix_of_a_simplex(K, d):
    W = nc.simplex_etf(K, d)
    assert np.abs(W @ W.T - (K * np.eye(K) - 1) / (K - 1)).max() < 1e-14
    assert np.abs(W.sum(axis=0)).max() < 1e-13


def test_simplex_etf_needs_k_minus_one_dimensions():
    with pytest.raises(ValueError, match="dimension"):
        nc.simplex_etf(5, 3)


def test_general_orthogonal_frame():
    lengths = np.array([0.5, 0.0, 2.0, 1.0])
    W = nc.general_orthogonal_frame(lengths, 3)
    assert np.array_equal(W @ W.T, np.diag(lengths**2))
    with pytest.raises(ValueError, match="dimension"):
        nc.general_orthogonal_frame(lengths, 2)


def test_every_metric_vanishes_at_a_rotated_collapsed_simplex():
    rng = np.random.default_rng(0)
    frame = nc.simplex_etf(4, 6) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    labels = np.repeat(np.arange(4), [2, 1, 5, 3])
    m = nc.collapse_metrics(3 * frame.T[:, labels], labels, 0.2 * frame)
    assert m.agreement == 1.0
    # The orthogonality errors are 1/3, since simplex vectors are not orthogonal.
    assert m.mean_orthogonality_error == pytest.approx(1 / 3, rel=1e-12)
    for name, value in vars(m).items():
        if "orthogonality" not in name and name != "agreement":
            assert abs(value) < 1e-14, name


def test_orthogonal_frame_of_unequal_lengths():
    frame = nc.general_orthogonal_frame([3.0, 2.0, 1.0], 4)
    m = nc.collapse_metrics(frame.T, np.arange(3), 2 * frame**0.5)
    assert m.mean_orthogonality_error == m.classifier_orthogonality_error == 0.0
    assert m.alignment_error == pytest.approx(0.0, abs=1e-15)
    assert m.uncentred_duality_distance > 0.1
    assert m.mean_etf_distance > 0.1


def test_definitions_by_loops_over_samples():
    rng = np.random.default_rng(1)
    H, y, W, b = random_problem(rng)
    K, N = 4, y.size
    means = [H[:, y == k].mean(axis=1) for k in range(K)]
    centre = sum(means) / K
    within = sum(np.outer(H[:, i] - means[y[i]], H[:, i] - means[y[i]]) for i in range(N)) / N
    between = sum(np.outer(v - centre, v - centre) for v in means) / K
    m = nc.collapse_metrics(H, y, W, bias=b)
    assert m.variability == pytest.approx(
        np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / K, rel=1e-10
    )
    assert m.variability_ratio == pytest.approx(np.trace(within) / np.trace(between), rel=1e-12)
    vectors = [v - centre for v in means]
    norms = [np.sqrt(v @ v) for v in vectors]
    assert m.mean_norm_spread == pytest.approx(np.std(norms) / np.mean(norms), rel=1e-12)
    pairs = [(i, j) for i in range(K) for j in range(i)]
    cosines = [vectors[i] @ vectors[j] / norms[i] / norms[j] for i, j in pairs]
    assert m.mean_angle_error == pytest.approx(
        np.mean([abs(c + 1 / 3) for c in cosines]), rel=1e-12
    )
    aligned = [W[k] @ means[k] / np.linalg.norm(W[k]) / np.linalg.norm(means[k]) for k in range(K)]
    assert m.alignment_error == pytest.approx(np.mean([1 - c for c in aligned]), rel=1e-12)
    nearest = NearestCentroid().fit(H.T, y).predict(H.T)
    assert m.agreement == np.mean(nearest == np.argmax(W @ H + b[:, None], axis=0))


def test_the_nearest_mean_is_decided_half_way_between_means():
    # Means 1 and 2: the sample at 1.55 belongs to the second, as the classifier says.
    H, y, W = np.array([[0.45, 1.55, 2.0, 2.0]]), [0, 0, 1, 1], np.array([[0.0], [1.0]])
    assert nc.collapse_metrics(H, y, W, bias=[0.0, -1.5]).agreement == 1.0
    assert nc.collapse_metrics(H, y, W, bias=[0.0, -1.6]).agreement == 0.75


def test_invariance_under_rotation_scale_and_order():
    rng = np.random.default_rng(2)
    H, y, W, b = random_problem(rng)
    Q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    order = rng.permutation(y.size)
    names = rng.permutation(4)
    before = nc.collapse_metrics(H, y, W, bias=b)
    inverse = np.argsort(names)
    after = nc.collapse_metrics(
        5 * Q @ H[:, order], names[y[order]], 5 * W[inverse] @ Q.T, bias=25 * b[inverse]
    )
    for name, value in vars(before).items():
        assert vars(after)[name] == pytest.approx(value, rel=1e-10), name


def test_vanishing_classes_are_not_a_division_by_zero():
    H = np.zeros((3, 4))
    m = nc.collapse_metrics(H, [0, 0, 1, 1], np.zeros((2, 3)))
    assert np.isnan(m.variability)
    assert np.isnan(m.mean_etf_distance)
    alive = nc.collapse_metrics(
        np.diag([1.0, 1.0, 0.0]), [0, 1, 2], np.diag([1.0, 1.0, 0.0]), layout="columns"
    )
    assert alive.alignment_error == 0.0
    assert alive.mean_orthogonality_error == 0.0


def test_labels_must_name_the_rows_of_the_classifier():
    for labels in ([0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 2, 1.5]):
        with pytest.raises(ValueError, match="labels"):
            nc.collapse_metrics(np.eye(4), labels, np.eye(3, 4))


def noisy_blobs(seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), [8, 6, 4])
    return rng.normal(size=(5, 3))[:, labels] + 0.5 * rng.normal(size=(5, 18)), labels


@pytest.mark.parametrize("loss", ["mse", "ce"])
@pytest.mark.parametrize("bias", [False, True])
def test_training_descends_to_the_minimum_of_free_features_and_no_further(loss, bias):
    X, y = noisy_blobs()
    run = nc.train_features(
        X,
        y,
        hidden=40,
        dimension=3,
        lam_w=0.01,
        lam_h=0.02,
        loss=loss,
        bias=bias,
        iterations=250,
        n_records=30,
    )
    minimum = nc.ufm_minimizer(
        nc.UnconstrainedFeatures(np.bincount(y), lam_w=0.01, lam_h=0.02, loss=loss, bias=bias),
        dimension=3,
    ).objective
    assert (np.diff(run.objectives) <= 0).all()
    assert (run.objectives >= minimum * (1 - 1e-13)).all()
    assert run.objectives[-1] == pytest.approx(minimum, rel=1e-2)
    value = nc.ufm_objective(
        nc.UnconstrainedFeatures(
            np.bincount(y), lam_w=0.01, lam_h=0.02, loss=loss, bias=run.bias is not None
        ),
        run.features,
        run.classifier,
        bias=run.bias,
    )
    assert run.objectives[-1] == pytest.approx(value, rel=1e-13)
    assert run.errors[-1] == 0.0
    last = nc.collapse_metrics(run.features, y, run.classifier, bias=run.bias)
    assert vars(run.metrics[-1]) == vars(last)
    assert run.metrics[-1].variability < 1e-2 < run.metrics[0].variability
    assert run.iterations[0] == 0


def test_two_hidden_units_cannot_collapse():
    X, y = noisy_blobs()
    run = nc.train_features(X, y, hidden=2, dimension=3, lam_w=0.01, lam_h=0.02, iterations=200)
    assert (
        run.objectives[-1]
        > 1.02
        * nc.ufm_minimizer(
            nc.UnconstrainedFeatures(np.bincount(y), lam_w=0.01, lam_h=0.02, loss="ce"), dimension=3
        ).objective
    )


def test_training_stops_at_its_target():
    X, y = noisy_blobs()
    run = nc.train_features(
        X, y, hidden=40, dimension=3, lam_w=0.01, lam_h=0.02, iterations=400, target=0.5
    )
    assert run.objectives[-1] <= 0.5 < run.objectives[-2]
    assert run.iterations[-1] < 100


def test_units_change_no_metric():
    rng = np.random.default_rng(5)
    H, y, W, b = random_problem(rng)
    reference = nc.collapse_metrics(H, y, W, bias=b)
    for s, t in ((1e160, 1.0), (1e-160, 1.0), (1e300, 1e-300), (1e-290, 1e-10), (1e8, 1e-8)):
        with np.errstate(over="ignore"):
            scaled = nc.collapse_metrics(s * H, y, t * W, bias=s * t * b)
        for name, value in vars(reference).items():
            assert getattr(scaled, name) == pytest.approx(value, rel=1e-10), (name, s, t)


def test_the_bias_decides_where_logits_are_tiny():
    frame = nc.simplex_etf(3, 3)
    H, labels = 1e-200 * np.repeat(frame.T, 2, axis=1), np.repeat(np.arange(3), 2)
    metrics = nc.collapse_metrics(H, labels, 1e-200 * frame, bias=[1.0, 0.0, 0.0])
    assert metrics.agreement == pytest.approx(1 / 3)
    assert nc.collapse_metrics(H, labels, 1e-200 * frame).agreement == 1.0


def test_nearest_class_mean_of_means_of_unequal_length():
    # Without the factor 2 of |m - h|^2 = |m|^2 - 2 m.h + |h|^2 the first class takes every sample.
    H = np.array([[0.9, 1.1, 1.9, 2.1], [0.0, 0.0, 0.0, 0.0]])
    metrics = nc.collapse_metrics(H, [0, 0, 1, 1], np.eye(2), bias=[1.5, 0.0])
    assert metrics.agreement == 0.5
    assert nc.collapse_metrics(H, [0, 0, 1, 1], [[1, 0], [2, 0]], bias=[1.5, 0]).agreement == 1.0


def test_features_with_a_row_a_sample_are_named_and_never_transposed_silently():
    rng = np.random.default_rng(6)
    H, y, W, b = random_problem(rng)
    reference = vars(nc.collapse_metrics(H, y, W, bias=b))
    assert vars(nc.collapse_metrics(H.T, y, W, bias=b, layout="rows")) == reference
    assert vars(nc.collapse_metrics(H, y, W, bias=b, layout="columns")) == reference
    with pytest.raises(ValueError, match=r"features: expected shape \(d, N\) .* layout='rows'"):
        nc.collapse_metrics(H.T, y, W)
    square, labels, square_W = rng.normal(size=(4, 4)), [0, 0, 1, 1], rng.normal(size=(2, 4))
    with pytest.raises(ValueError, match="layout: expected 'columns' or 'rows'"):
        nc.collapse_metrics(square, labels, square_W)
    rows = nc.collapse_metrics(square, labels, square_W, layout="rows")
    columns = nc.collapse_metrics(square.T, labels, square_W, layout="columns")
    assert vars(rows) == vars(columns)
    assert rows != nc.collapse_metrics(square, labels, square_W, layout="columns")
    with pytest.raises(ValueError, match="features: "):
        nc.collapse_metrics(H, y, W, layout="rows")


def test_measures_of_the_classifier_and_distances_by_their_definitions():
    rng = np.random.default_rng(8)
    H, y, W, _ = random_problem(rng)
    K, m = 4, nc.collapse_metrics(H, y, W)
    means = np.stack([H[:, y == k].mean(axis=1) for k in range(K)])
    simplex = nc.simplex_etf(K, K) @ nc.simplex_etf(K, K).T

    def unit(X):
        return X / np.linalg.norm(X)

    for name, rows in (("mean", means), ("classifier", W)):
        centred = rows - rows.mean(axis=0)
        norms = np.linalg.norm(centred, axis=1)
        assert vars(m)[f"{name}_norm_spread"] == pytest.approx(norms.std() / norms.mean())
        pairs = np.triu_indices(K, 1)
        cosines = (centred @ centred.T / np.outer(norms, norms))[pairs]
        assert vars(m)[f"{name}_angle_error"] == pytest.approx(np.abs(cosines + 1 / 3).mean())
        lengths = np.linalg.norm(rows, axis=1)
        cosines = (rows @ rows.T / np.outer(lengths, lengths))[pairs]
        assert vars(m)[f"{name}_orthogonality_error"] == pytest.approx(np.abs(cosines).mean())
        distance = np.linalg.norm(unit(centred @ centred.T) - unit(simplex))
        assert vars(m)[f"{name}_etf_distance"] == pytest.approx(distance)
    W_c, M_c = W - W.mean(axis=0), means - means.mean(axis=0)
    assert m.duality_distance == pytest.approx(np.linalg.norm(unit(W_c) - unit(M_c)))
    assert m.uncentred_duality_distance == pytest.approx(np.linalg.norm(unit(W) - unit(means)))


def test_frames_are_ordered_and_labels_have_no_gap():
    frame = nc.general_orthogonal_frame([0.5, 2.0, 0.0, 1.0], 3)
    assert np.array_equal(frame, [[0, 0, 0.5], [2, 0, 0], [0, 0, 0], [0, 1, 0]])
    with pytest.raises(ValueError, match="labels"):
        nc.collapse_metrics(np.eye(3, 4), [0, 1, 1, 3], np.eye(3))


def test_a_short_direction_of_the_means_counts_in_full():
    # Means (1, 0), (-1, 0), (0, s) and deviations +-(0, s) in every class: Sigma_B has the
    # eigenvalue 2 s^2 / 9 along the second axis, Sigma_W there s^2, whatever s.
    for s in (1.0, 1e-3, 1e-7):
        means = np.array([[1.0, -1.0, 0.0], [0.0, 0.0, s]])
        H = np.repeat(means, 2, axis=1) + np.outer([0.0, s], [1, -1] * 3)
        found = nc.collapse_metrics(H, np.repeat(np.arange(3), 2), np.eye(3, 2))
        assert found.variability == pytest.approx(9 / 2 / 3, rel=1e-8)


def test_the_metrics_of_a_run_know_its_bias():
    X, y = noisy_blobs()
    given = {"hidden": 4, "dimension": 3, "lam_w": 0.01, "lam_h": 0.02, "iterations": 1}
    run = nc.train_features(X, y, **given, bias=True)
    with_bias, without = (
        nc.collapse_metrics(run.features, y, run.classifier, bias=b) for b in (run.bias, None)
    )
    assert with_bias.agreement != without.agreement
    assert vars(run.metrics[-1]) == vars(with_bias)
