import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import log_softmax, rel_entr

from theorylab import neural_collapse as nc


def test_distillation_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(8)
    H, W, y, teacher = (
        rng.standard_normal((4, 5)),
        rng.standard_normal((3, 4)),
        rng.integers(3, size=5),
        rng.standard_normal((3, 5)),
    )

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    losses = {
        "entropy": lambda H, W: -np.sum(log_softmax(W @ H, axis=0)[y, range(5)]),
        "binary": lambda H, W: np.sum(
            rel_entr(sigmoid(teacher), sigmoid(W @ H))
            + rel_entr(sigmoid(-teacher), sigmoid(-W @ H))
        ),
    }
    gradients = nc.distillation_gradients(H, W, y, teacher)
    for name, loss in losses.items():
        in_features = approx_fprime(
            H.ravel(), lambda h, f=loss: f(h.reshape(H.shape), W), 1e-7
        ).reshape(H.shape)
        in_classifier = approx_fprime(
            W.ravel(), lambda w, f=loss: f(H, w.reshape(W.shape)), 1e-7
        ).reshape(W.shape)
        assert getattr(gradients, f"{name}_features") == pytest.approx(in_features, abs=1e-5)
        assert getattr(gradients, f"{name}_classifier") == pytest.approx(in_classifier, abs=1e-5)


def test_features_of_a_less_separating_teacher_oppose():
    for teacher_own, expected in ((3.0, 1.0), (-2.0, -1.0)):
        features, classifier = nc.collapsed_head_cosines(
            2.0,
            teacher_own=teacher_own,
            teacher_other=-3.0,
            n_classes=5,
            mean_length=1.0,
            offset_length=1.5,
        )
        assert features == expected
        assert np.sign(classifier) == expected
        assert abs(classifier) < 1
        assert (
            nc.collapsed_head_cosines(
                2.0,
                teacher_own=teacher_own,
                teacher_other=-3.0,
                n_classes=5,
                mean_length=1.0,
                offset_length=0.0,
            )[1]
            == expected
        )


def test_cosines_of_gradients_are_those_of_the_definition():
    rng = np.random.default_rng(3)
    H, W, y = rng.standard_normal((4, 5)), rng.standard_normal((3, 4)), rng.integers(3, size=5)
    g = nc.distillation_gradients(H, W, y, rng.standard_normal((3, 5)))
    for cosine, a, b in (
        (g.feature_cosine, g.entropy_features, g.binary_features),
        (g.classifier_cosine, g.entropy_classifier, g.binary_classifier),
    ):
        assert cosine == pytest.approx(a.ravel() @ b.ravel() / np.sqrt(np.sum(a**2) * np.sum(b**2)))
    mirrored = nc.distillation_gradients(H, W, y, 2 * W @ H - 3 * np.eye(3)[:, y])
    assert mirrored.classifier_cosine < 0 < g.classifier_cosine
    none = nc.distillation_gradients(H, W, y, W @ H)
    assert none.feature_cosine == none.classifier_cosine == 0


@pytest.mark.parametrize(("z", "teacher_own", "teacher_other"), [(1.5, 0.3, -2.0), (1.0, 2.5, 0.1)])
def test_cosines_of_a_collapsed_head_are_those_of_its_gradients(z, teacher_own, teacher_other):
    K, m, offset = 4, 0.7, 1.3
    frame = nc.simplex_etf(K, K)
    H = np.zeros((K, K))
    H[: K - 1] = m * frame.T[: K - 1]
    H[K - 1] = offset  # the frame lies in the other K - 1 directions
    teacher = np.where(np.eye(K, dtype=bool), teacher_own, teacher_other)
    g = nc.distillation_gradients(H, z / m * frame, np.arange(K), teacher)
    expected = nc.collapsed_head_cosines(
        z,
        teacher_own=teacher_own,
        teacher_other=teacher_other,
        n_classes=K,
        mean_length=m,
        offset_length=offset,
    )
    assert g.feature_cosine == pytest.approx(expected[0], rel=1e-12)
    assert g.classifier_cosine == pytest.approx(expected[1], rel=1e-12)
    with pytest.raises(ValueError, match="own"):
        nc.collapsed_head_cosines(
            -z,
            teacher_own=teacher_own,
            teacher_other=teacher_other,
            n_classes=K,
            mean_length=m,
            offset_length=offset,
        )
