import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, make_moons
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from theorylab.convex_relu import TrainingStatus, train
from theorylab.estimators import ConvexReLUClassifier, ConvexReLURegressor


@pytest.mark.filterwarnings("default")
@parametrize_with_checks([ConvexReLURegressor(tol=1e-4), ConvexReLUClassifier(tol=1e-4)])
def test_scikit_learn_accepts_the_estimators(estimator, check):
    check(estimator)


def test_the_gap_is_certified_on_real_data():
    X, y = load_diabetes(return_X_y=True)
    model = ConvexReLURegressor(relative_beta=0.1).fit(X[:, [2, 8]], y)
    assert model.gap_ <= 1e-6
    assert model.result_.certificate.verify().accepted
    assert model.score(X[:, [2, 8]], y) > 0.4


def test_beyond_exhaustive_search_a_relaxation_bounds_the_gap():
    X, y = load_diabetes(return_X_y=True)
    model = ConvexReLURegressor().fit(X, y)
    assert model.gap_ <= 0.55
    assert model.result_.certificate.verify().accepted
    with pytest.warns(RuntimeWarning, match="among all networks"):
        sampled = ConvexReLURegressor(n_arrangements=200, random_state=0).fit(X, y)
    scaled = model.scaler_.transform(X)
    beta, network = model.beta_, sampled.result_.network
    sampled_objective = 0.5 * np.sum((network(scaled) - y + y.mean()) ** 2) + beta * network.penalty
    assert model.result_.objective < 0.95 * sampled_objective
    assert model.result_.status is TrainingStatus.ROUNDS  # of which the estimator says nothing
    with pytest.warns(RuntimeWarning, match="stopped after max_rounds"):
        best = train(scaled, y - y.mean(), beta, bias=True, bound="sdp", max_rounds=10)
    assert best.gap <= 0.45


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ConvexReLURegressor, {}),
        (ConvexReLURegressor, {"n_arrangements": 10, "random_state": 0}),
        (ConvexReLUClassifier, {"relative_beta": 0.2}),
    ],
)
@pytest.mark.filterwarnings("ignore:on the activation patterns used")
def test_verbose_prints_each_round(kind, options, capsys):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), np.arange(20) % 3
    silent = kind(**options).fit(X, y)
    assert capsys.readouterr().out == ""
    model = clone(kind(verbose=1, **options)).fit(X, y)
    assert model.get_params()["verbose"] == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(model.result_.history) >= 2
    for line, found in zip(lines, model.result_.history, strict=True):
        assert line.startswith(f"[{kind.__name__}] objective {found.objective:.6g}, neurons ")
        assert line.endswith(f"{found.n_neurons}, violation {found.violation:.1e}")
    # Looking on changes nothing.
    assert model.result_.objective == silent.result_.objective
    kind(verbose=True, **options).fit(X, y)
    assert capsys.readouterr().out.splitlines() == lines
    for wrong in (-1, "loud", 0.5):
        with pytest.raises(ValueError, match="verbose: expected an integer"):
            kind(verbose=wrong, **options).fit(X, y)


def test_small_samples_with_many_features_are_fitted_exactly():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(25, 8))
    model = ConvexReLURegressor(relative_beta=0.2).fit(X, X[:, 0] + rng.normal(size=25))
    assert model.gap_ <= 1e-6


def test_a_network_separates_what_a_linear_model_cannot():
    X, y = make_moons(200, noise=0.1, random_state=0)
    assert cross_val_score(ConvexReLUClassifier(relative_beta=0.01), X, y).mean() > 0.97
    assert cross_val_score(LogisticRegression(), X, y).mean() < 0.92


@pytest.mark.filterwarnings("ignore:on the activation patterns used")
def test_several_classes_and_sampled_arrangements():
    X, y = load_iris(return_X_y=True)
    model = ConvexReLUClassifier(n_arrangements=20, random_state=0).fit(X, y)
    assert model.decision_function(X).shape == (150, 3)
    assert model.score(X, y) > 0.93
    assert model.gap_ <= 1e-6


def test_linear_data_are_fitted_as_ridge_does_in_the_limit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = X @ [1.0, -2.0] + 3.0
    model = ConvexReLURegressor(relative_beta=1e-6, skip=True).fit(X, y)
    np.testing.assert_allclose(model.predict(X), Ridge(alpha=1e-9).fit(X, y).predict(X), atol=1e-4)


@pytest.mark.parametrize(
    "parameters", [{"relative_beta": -1.0}, {"tol": 0.0}, {"n_arrangements": 0}, {"skip": "yes"}]
)
def test_bad_parameters_are_refused_by_name(parameters):
    X = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ValueError, match=next(iter(parameters))):
        ConvexReLURegressor(**parameters).fit(X, X[:, 0])


def test_a_large_global_gap_is_reported_and_warned_about():
    X, y = load_diabetes(return_X_y=True)
    with pytest.warns(RuntimeWarning, match="among all networks only one of 0"):
        model = ConvexReLURegressor(n_arrangements=50, random_state=0).fit(X, y)
    assert model.gap_ <= 1e-6
    assert model.result_.certificate.unrestricted(max_nodes=1).gap == model.global_gap_ > 0.1
    # All patterns: one gap.
    exact = ConvexReLURegressor().fit(X[:, [2, 8]], y)
    assert exact.global_gap_ == exact.gap_ <= 1e-6


def test_probabilities_are_those_of_the_logistic_model():
    X, y = make_moons(60, noise=0.2, random_state=1)
    model = ConvexReLUClassifier(relative_beta=0.05).fit(X, y)
    chances = model.predict_proba(X)
    # Value of the loss at the outputs, from the probabilities of the true classes.
    loss = -np.log(chances[np.arange(60), y]).sum()
    certificate = model.result_.certificate
    penalty = certificate.beta * certificate.network.penalty
    assert loss + penalty == pytest.approx(certificate.objective, rel=1e-12)
    np.testing.assert_array_equal(model.predict(X), chances.argmax(axis=1))
    X, y = load_iris(return_X_y=True)
    several = ConvexReLUClassifier(relative_beta=0.2).fit(X[:, :2], y).predict_proba(X[:, :2])
    np.testing.assert_allclose(several.sum(axis=1), 1.0, rtol=1e-14)


def test_probabilities_where_every_class_is_unlikely():
    X, y = load_iris(return_X_y=True)
    model = ConvexReLUClassifier(relative_beta=0.2).fit(X[:, :2], y)
    scores = np.array([[-800.0, -800.0 - np.log(2.0), -900.0], [1.0, 0.0, -1.0]])
    model._output = lambda _: scores
    chances = model.predict_proba(X[:2, :2])
    np.testing.assert_allclose(chances[0], [2.0 / 3.0, 1.0 / 3.0, np.exp(-100.0) / 1.5], rtol=1e-12)
    alone = 1.0 / (1.0 + np.exp(-scores[1]))
    np.testing.assert_allclose(chances[1], alone / alone.sum(), rtol=1e-14)


def test_several_outputs_are_fitted_like_one_after_the_other():
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(20, 2)), rng.normal(size=(20, 2))
    model = ConvexReLURegressor(relative_beta=0.3, tol=1e-9).fit(X, Y)
    for k in range(2):
        # The penalty is relative to the larger threshold of the two.
        single = ConvexReLURegressor(relative_beta=0.3, tol=1e-9).fit(X, Y[:, k])
        single.set_params(relative_beta=0.3 * model.beta_ / single.beta_).fit(X, Y[:, k])
        np.testing.assert_allclose(model.predict(X)[:, k], single.predict(X), atol=1e-4)


def test_a_missing_scikit_learn_is_named_with_its_remedy():
    code = "import sys; sys.modules['sklearn'] = None; import theorylab.estimators"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'theorylab[sklearn]'" in done.stderr


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("kind", "outputs"),
    [(ConvexReLURegressor, 2), (ConvexReLUClassifier, 2), (ConvexReLUClassifier, 3)],
)
def test_weights_of_samples_are_repetitions(kind, outputs, skip):
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((16, 2)), rng.standard_normal((16, 2))
    weights = rng.integers(0, 4, 16)
    assert (weights == 0).any()
    if kind is ConvexReLUClassifier:
        y = np.arange(16) % outputs
    weighted = kind(tol=1e-9, skip=skip).fit(X, y, sample_weight=weights)
    rows = np.repeat(np.arange(16), weights)
    repeated = kind(tol=1e-9, skip=skip).fit(X[rows], y[rows])
    assert weighted.beta_ == pytest.approx(repeated.beta_, rel=1e-8)
    assert weighted.result_.objective == pytest.approx(repeated.result_.objective, rel=1e-8)
    np.testing.assert_allclose(weighted._output(X), repeated._output(X), atol=1e-5)
    certificate = weighted.result_.certificate
    assert certificate.gap <= 1e-9
    assert certificate.verify().accepted
    # No row for a sample without weight.
    assert len(certificate.X) == np.count_nonzero(weights)
    plain = kind(tol=1e-9, skip=skip).fit(X, y)
    assert np.abs(plain._output(X) - weighted._output(X)).max() > 1e-3
    # In other units.
    for unit in (1e-100, 1e-6, 1e20):
        scaled = kind(tol=1e-9, skip=skip).fit(X, y, sample_weight=unit * weights)
        np.testing.assert_allclose(scaled._output(X), weighted._output(X), atol=1e-5)
    with pytest.raises(ValueError, match="weights"):
        plain.fit(X, y, sample_weight=np.zeros(16))


def test_a_class_without_weight_is_none():
    X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array(["a", "b", "b", "c"])
    model = ConvexReLUClassifier().fit(X, y, sample_weight=[0.0, 1.0, 2.0, 1.0])
    assert list(model.classes_) == ["b", "c"]
    with pytest.raises(ValueError, match="at least two classes"):
        model.fit(X, y, sample_weight=[0.0, 1.0, 2.0, 0.0])
