"""How training ends: each status by an input that has it, the bound proved by then, and what the
rounds tell."""

import warnings

import numpy as np
import pytest

from theorylab.convex_relu import (
    TrainingStatus,
    _attainment,
    _minimiser,
    _pricing,
    _rounds,
    enumerate_arrangements,
    train,
    zero_threshold,
)
from theorylab.convex_relu._attainment import completed
from theorylab.convex_relu._dual_norm import node_budget
from theorylab.convex_relu._neurons import Neurons
from theorylab.convex_relu._reduction import reduce_rows
from theorylab.convex_relu._rounds import Problem, Settings
from theorylab.convex_relu.losses import as_loss
from theorylab.convex_relu.training import Session


def gaussian(n=20, d=3, seed=0):
    X, y = np.random.default_rng(seed).standard_normal((2, n, d))
    return X, y[:, 0]


def ended(*problem, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = train(*problem, **options)
    silent = result.status in (TrainingStatus.CERTIFIED, TrainingStatus.LOCAL)
    assert [str(w.message).split(": ", 1)[1] for w in said] == (
        [] if silent else [result.status.value]
    )
    return result


X, y = gaussian()
BETA = 0.05 * zero_threshold(X, y)
LOW = 0.4 * float(y @ y)
TWICE, APART = np.vstack([X, X]), np.append(y, y + 1e-3)
ENDS = {
    "CERTIFIED": ((X, y, BETA), {}),
    "ROUNDS": ((X, y, BETA), {"max_rounds": 2}),
    "STALLED": ((X, y, BETA), {"tol": 1e-16}),
    "BUDGET": ((X, y, BETA), {"max_nodes": 4}),
    "STOPPED": ((X, y, BETA), {"callback": lambda record: record.objective < LOW}),
    "LOCAL": ((X, y, BETA), {"bound": "root"}),
    "UNATTAINED": ((X, np.sign(X[:, 0]), BETA), {"loss": "logistic", "skip": True}),
    "IMPOSSIBLE": ((TWICE, APART, 0.0), {"max_rounds": 3}),
}


@pytest.mark.parametrize("name", ENDS)
def test_each_end_has_its_status_and_a_bound_that_holds(name):
    problem, options = ENDS[name]
    result = ended(*problem, **options)
    assert result.status is TrainingStatus[name]
    tol = options.get("tol", 1e-8)
    assert name == "UNATTAINED" or (result.gap <= tol) == (name == "CERTIFIED")
    assert len(result.history) == (2 if name == "ROUNDS" else len(result.history))
    if name == "IMPOSSIBLE":
        assert result.objective == np.inf
        assert result.history == ()
        return
    if name == "UNATTAINED":
        return
    assert result.certificate.verify()
    best = train(X, y, BETA).objective
    assert result.dual_objective <= best * (1.0 + 1e-12)
    assert result.objective >= best * (1.0 - 1e-8)
    # What the search did not decide was proved all the same, by something weaker.
    if name in ("BUDGET", "LOCAL"):
        assert result.dual_objective > 0.5 * best
    last = result.history[-1]
    assert last.exact == (name in ("CERTIFIED", "BUDGET", "STALLED"))
    if name != "ROUNDS":  # there the last neurons were added after it
        assert last.objective == pytest.approx(result.objective, rel=1e-9)
        assert last.n_neurons == result.network.n_neurons
    if name == "STOPPED":
        objectives = [record.objective for record in result.history]
        assert [value < LOW for value in objectives] == [False] * (len(objectives) - 1) + [True]


def watched(monkeypatch, module, name):
    """Return the list to which the third results of this function will be added."""
    function, taken = getattr(module, name), []

    def counted(*args):
        done = function(*args)
        taken.append(done[2])
        return done

    monkeypatch.setattr(module, name, counted)
    return taken


@pytest.mark.parametrize("options", [{}, {"loss": "hinge"}, {"skip": True}, {"bound": "root"}])
@pytest.mark.parametrize("share", [0.05, 1e-6, 0.0])
def test_descents_end_with_their_work(options, share, monkeypatch):
    labels, share = (np.sign(y), max(share, 1e-6)) if "loss" in options else (y, share)
    beta = share * zero_threshold(X, labels, loss=options.get("loss", "squared"))
    best = train(X, labels, beta, **options | {"bound": "search"}).objective
    taken = watched(monkeypatch, _minimiser, "descend")
    for work in (1.0, 1e4):
        monkeypatch.setattr(_minimiser, "WORK", work)
        taken.clear()
        result = ended(X, labels, beta, **options)
        assert result.status is TrainingStatus.WORK
        assert sum(taken[:-1]) < work
        assert result.dual_objective <= best * (1.0 + 1e-9)
        assert result.objective >= best * (1.0 - 1e-8)
        assert not np.isfinite(result.objective) or result.certificate.verify()


@pytest.mark.parametrize("skip", [False, True])
def test_without_work_no_network_is_worse_than_zero(skip, monkeypatch):
    labels = np.sign(y)
    for share in (1e-1, 1e-7):
        beta = share * zero_threshold(X, labels, loss="hinge")
        for work in (1.0, 1e3, 1e5):
            monkeypatch.setattr(_minimiser, "WORK", work)
            result = ended(X, labels, beta, loss="hinge", skip=skip)
            assert result.status is TrainingStatus.WORK
            assert result.objective <= len(y)
            assert result.certificate.verify()


@pytest.mark.parametrize("options", [{}, {"skip": True}, {"bias": True}, {"bound": "root"}])
def test_interpolation_that_ends_early_has_a_network_and_a_bound(options, monkeypatch):
    X, y = gaussian(30, 4)
    exact = {k: v for k, v in options.items() if k != "bound"}
    best = train(X, y, 0.0, **exact).objective
    ends = [(work, {}) for work in (1.0, 1e5, 1e6)]
    ends += [(1e10, {"max_rounds": 1}), (1e10, {"callback": lambda record: True})]
    for work, early in ends:
        monkeypatch.setattr(_minimiser, "WORK", work)
        result = ended(X, y, 0.0, **options | early)
        assert work == 1e10 or result.status is TrainingStatus.WORK
        assert np.abs(result.network(X) - y).max() <= 1e-10 * np.abs(y).max()
        assert best * (1.0 - 1e-8) <= result.objective < 10.0 * best
        assert 0.05 * best < result.dual_objective <= best * (1.0 + 1e-9)
        assert result.certificate.verify()


def test_neurons_of_given_patterns_stay_in_their_cones_where_work_ends(monkeypatch):
    X, y = gaussian(10, 3)
    patterns = enumerate_arrangements(X)[::2]
    assert train(X, y, 0.0, arrangements=patterns).status is TrainingStatus.CERTIFIED
    monkeypatch.setattr(_minimiser, "WORK", 1.0)
    result = ended(X, y, 0.0, arrangements=patterns)
    assert result.status is TrainingStatus.WORK
    sides = (result.network.weights @ X.T)[:, None] * np.where(patterns, 1.0, -1.0)
    assert (sides.min(axis=2).max(axis=1) >= -1e-12).all()


@pytest.mark.parametrize(("n", "d"), [(50, 3), (5000, 3), (3000, 5)])
def test_a_search_has_the_nodes_of_a_quarter_of_a_minute(n, d):
    nodes = node_budget(reduce_rows(np.random.default_rng(0).standard_normal((n, d))), None)
    # A node looks at every row once for each ray and coordinate: about 1.1 ns each.
    assert nodes == 1_500_000 or 0.5e10 < nodes * 1.1 * n * d * d < 1.5e10
    assert (nodes == 1_500_000) == (n == 50)


def test_where_directions_do_not_suffice_or_rows_are_many_nothing_is_added(monkeypatch):
    X, y = gaussian(12, 3)
    linear = Neurons.none(12, 3, 1)
    linear.p[0] = [1.0, 2.0, 3.0]
    more = completed(linear, X, y)
    np.testing.assert_allclose(more.output(X), y, atol=1e-12)
    assert more.linear == 1
    assert np.array_equal(more.p[0], linear.p[0])
    assert completed(more, X, y) is more
    # Every output is one of two functions of the only coordinate.
    assert completed(Neurons.none(12, 1, 0), X[:, :1], y).p.size == 0
    monkeypatch.setattr(_attainment, "_DIRECT", 11)
    assert completed(linear, X, y) is linear


def at_the(count):
    seen = []
    return lambda record: seen.append(record) or len(seen) == count


def test_a_callback_stops_only_by_true_and_only_what_goes_on():
    optimum = train(X, y, BETA)
    for answer in (1, "stop", None):
        assert ended(X, y, BETA, callback=lambda record, a=answer: a).history == optimum.history
    # At the optimum there is nothing to stop.
    known = len(optimum.history)
    for bound, status in (("search", "CERTIFIED"), ("root", "LOCAL")):
        last = ended(X, y, BETA, callback=at_the(known), bound=bound)
        assert last.status is TrainingStatus[status]
        assert last.objective == optimum.objective


def test_a_budget_that_decides_nothing_proves_more_than_the_root():
    X, y = gaussian(40)
    beta = 0.05 * zero_threshold(X, y)
    root, some = ended(X, y, beta, bound="root"), ended(X, y, beta, max_nodes=400)
    assert some.status is TrainingStatus.BUDGET
    assert root.objective >= some.dual_objective > 1.5 * root.dual_objective
    assert some.certificate.verify()


def test_on_given_patterns_every_bound_is_exact():
    patterns = enumerate_arrangements(X)[::7]
    exact = train(X, y, BETA, arrangements=patterns)
    for bound in ("root", "sdp"):
        result = ended(X, y, BETA, arrangements=patterns, bound=bound)
        assert result.status is TrainingStatus.CERTIFIED
        assert result.history == exact.history
        assert result.dual_objective == pytest.approx(exact.dual_objective, rel=1e-8)
        # Rounds that are missing are told, of local searches too.
        for given in ({"arrangements": patterns}, {}):
            early = ended(X, y, BETA, bound=bound, max_rounds=1, **given)
            assert early.status is TrainingStatus.ROUNDS


def test_rounds_without_gain_stall_and_what_is_rounding_gains_nothing(monkeypatch):
    settings = Settings(False, 1e-8, 50, None, 1, "search", lambda record: None)
    patterns = enumerate_arrangements(X)
    for share, rounds in ((0.0, 4), (1e-16, 4), (1e-14, 50)):
        problem = Problem(X, patterns, settings)
        values = iter(1.0 - share * np.arange(100))
        with monkeypatch.context() as patch:
            minimiser = "theorylab.convex_relu._minimiser.Minimiser"
            patch.setattr(f"{minimiser}.minimise", lambda self, s, y, m, rough=False: (s, m, y))
            patch.setattr(f"{minimiser}.add", lambda self, state, found: state)
            patch.setattr(f"{minimiser}.value", lambda *_, values=values: next(values))
            fit = problem.solve(y, BETA, as_loss("squared"), None, 3.0)
        assert len(fit.history) == rounds
        assert fit.status is TrainingStatus["STALLED" if rounds == 4 else "ROUNDS"]
        assert fit.history[0].objective == 3.0
        # The dual point is as long as its constraint lets it be.
        assert zero_threshold(X, fit.dual) == pytest.approx(BETA, rel=1e-8)
        np.testing.assert_allclose(fit.dual * (y @ y), y * (fit.dual @ y), atol=1e-12)


@pytest.mark.parametrize(("loss", "skip"), [("squared", False), ("logistic", True)])
def test_a_start_from_neighbours_ends_where_a_cold_one_does(loss, skip):
    labels = y if loss == "squared" else np.sign(y)
    session = Session(X, labels, loss=loss, skip=skip)
    for share in (1.0, 0.3, 0.6):
        warm, cold = (
            session.train(share * BETA),
            train(X, labels, share * BETA, loss=loss, skip=skip),
        )
        assert warm.status is TrainingStatus.CERTIFIED
        assert warm.objective == pytest.approx(cold.objective, rel=1e-8)
        assert warm.dual_objective == pytest.approx(cold.dual_objective, rel=1e-8)
        assert warm.certificate.verify()
        assert warm.history[-1].n_neurons == warm.network.n_neurons


def test_where_only_the_linear_map_is_left_the_dual_point_is_orthogonal_to_the_data():
    result = ended(X, y, 100.0 * BETA, skip=True)
    rest = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    assert result.network.n_neurons == 0
    assert result.objective == pytest.approx(0.5 * rest @ rest, rel=1e-12)
    np.testing.assert_allclose(result.certificate.dual, rest, atol=1e-12)
    assert result.certificate.verify()
    # To the last digits, where targets are nearly linear.
    near = X @ [1.0, -2.0, 0.5] + 1e-9 * y
    dual = ended(X, near, BETA, skip=True).certificate.dual
    assert np.abs(X.T @ dual).max() <= 1e-14 * np.abs(X).sum() * np.abs(dual).max()


@pytest.mark.parametrize("share", [0.0, 1e-7])
def test_an_optimum_that_was_followed_from_larger_penalties_takes_one_round(share):
    X, y = gaussian(8)
    result = ended(X, y, share * zero_threshold(X, y))
    assert result.status is TrainingStatus.CERTIFIED
    assert len(result.history) == 1
    assert result.history[0].exact


def test_outputs_share_the_budgets(monkeypatch):
    Y = np.column_stack([y, -2.0 * y, y[::-1]])
    taken = watched(monkeypatch, _minimiser, "descend")
    monkeypatch.setattr(_minimiser, "WORK", 3e5)
    result = ended(X, Y, 0.001 * zero_threshold(X, Y))
    assert result.status is TrainingStatus.WORK
    # Each output may overspend its share by a leg.
    assert 3e5 <= sum(taken) < 3e5 + 3 * max(taken) < 9e5
    wide, target = gaussian(60)
    one, three = (Session(wide, t) for t in (target, np.column_stack(3 * [target])))
    assert three.problem.pricing.budget == one.problem.pricing.budget // 3 > 1000


def test_searches_end_together_where_no_number_of_nodes_is_given(monkeypatch):
    X, y = gaussian(40, 6)
    beta = 0.02 * zero_threshold(X, y)
    spent = watched(monkeypatch, _pricing, "search_sphere")
    assert ended(X, y, beta).status is TrainingStatus.CERTIFIED
    most = max(spent) + 1
    assert sum(spent) > 4 * most
    # Each of the searches would do with it, but not all of them together with four times that.
    monkeypatch.setattr(_rounds, "node_budget", lambda *given: most)
    spent.clear()
    short = ended(X, y, beta)
    assert short.status is TrainingStatus.BUDGET
    assert 3 * most < sum(spent) <= 4 * most + len(spent)
    assert short.certificate.verify()
    assert ended(X, y, beta, max_nodes=most).status is TrainingStatus.CERTIFIED


def test_a_session_counts_its_descents(monkeypatch):
    taken = watched(monkeypatch, _minimiser, "descend")
    session = Session(X, y, bound="root")  # which searches no nodes
    for count, share in enumerate((1.0, 0.5), 1):
        session.train(share * BETA)
        assert len(taken) > count
        assert session.problem.spent == pytest.approx(sum(taken), rel=1e-9)


@pytest.mark.parametrize("options", [{}, {"max_nodes": 10**6}])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_session_counts_its_searches(options, outputs, monkeypatch):
    X, y = gaussian(30, 4)
    descents = watched(monkeypatch, _minimiser, "descend")
    nodes = watched(monkeypatch, _pricing, "search_sphere")
    session = Session(X, y if outputs == 1 else np.column_stack([y, y[::-1]]), **options)
    session.train(0.1 * zero_threshold(X, y))
    # All nodes that one output may visit by default take a quarter of a minute.
    quarter = Session(X, y).problem.pricing.budget
    expected = sum(descents) + 1.5e10 * sum(nodes) / quarter
    assert session.problem.spent == pytest.approx(expected, rel=1e-9)
    assert session.problem.spent > 1.01 * sum(descents)


def test_what_was_searched_at_other_penalties_is_not_taken_from_the_next():
    X, y = gaussian(40, 6)
    beta = 0.1 * zero_threshold(X, y)
    session = Session(X, y)
    assert session.train(2.0 * beta).status is TrainingStatus.CERTIFIED
    session.problem.pricing.nodes += 9 * session.problem.pricing.budget
    assert session.train(beta).status is TrainingStatus.CERTIFIED
