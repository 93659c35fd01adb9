"""Every experiment of the checkout: quick verdicts, draws of the hypotheses, mutants, coverage."""

import json
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings

from theorylab.corpus import paper, papers
from theorylab.verify import (
    Int,
    Origin,
    Verdict,
    breaks,
    cases,
    compare,
    draws,
    falsify,
    judge_all,
    strategy,
    theory,
    within,
)
from theorylab.verify import paper as setting
from theorylab.verify import space as where
from theorylab.verify.checkout import discover, load, stale
from theorylab.verify.comparison import marks
from theorylab.verify.index import committed
from theorylab.verify.kernel import evaluate
from theorylab.verify.records import ranges
from theorylab.verify.simulations import forget

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [load(path) for path in discover(ROOT)]
MODULES = {k: m for k, m in sys.modules.items() if k.startswith("theorylab_experiment_")}
CLAIMS = {
    f"{experiment.name}:{claim.slug}": claim
    for experiment in EXPERIMENTS
    for claim in experiment.claims
}
WITH_SPACE = [name for name, claim in CLAIMS.items() if claim.space]
EXCEPTIONS = ("no_space", "no_break", "coarse", "vacuous")


@pytest.fixture(autouse=True)
def _modules_of_these_claims():
    """Other tests load the scripts again, and simulations find their functions by name."""
    sys.modules.update(MODULES)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_quick_cases_probe_and_controls(experiment):
    judgements = judge_all(experiment.claims)
    assert not {j.claim.slug: j.problems for j in judgements if j.verdict is Verdict.FAILED}


@pytest.mark.parametrize("name", WITH_SPACE)
def test_claims_hold_throughout_their_space(name):
    drawn = draws(CLAIMS[name], count=12)
    assert not drawn.false
    assert len(drawn.inconclusive) <= 1, drawn.inconclusive


@pytest.mark.long
@pytest.mark.parametrize("name", WITH_SPACE)
def test_claims_hold_throughout_their_space_long(name):
    claim = CLAIMS[name]
    drawn = draws(claim, count=60, seed=1)
    assert not drawn.false
    assert len(drawn.inconclusive) <= 6, drawn.inconclusive

    @settings(max_examples=30)
    @given(strategy(claim.space))
    def hypothesis_draws(instance):
        parts = evaluate(claim, instance, 0)
        assert all(p.holds is not False for p in parts.values()), instance

    hypothesis_draws()
    forget()


def attack(claim):
    """Search by count, so that the instances are the same on every machine."""
    found = falsify(claim, instances=40, seed=1)
    assert not found.found, (found.instance, found.seed, found.part)


@pytest.mark.long
@pytest.mark.parametrize("name", WITH_SPACE)
def test_a_search_of_another_seed_finds_no_counterexample(name):
    attack(CLAIMS[name])


def test_the_search_finds_a_false_statement_that_its_cases_do_not():
    @setting("any-key").ours("false for a start in four, in half of the space")
    @cases(n=3)
    @where(n=Int(1, 10))
    @breaks("n large", n=100)
    def at_most_five(n, seed):
        """n is at most 5."""
        return compare(within(n if seed % 4 == 0 else 1, 0.0, "rounding"), "<=", theory("five", 5))

    assert judge_all([at_most_five])[0].verdict is Verdict.VERIFIED
    with pytest.raises(AssertionError, match="'n': 6"):
        attack(at_most_five)


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n, c in CLAIMS.items() if not c.refuted])
def test_a_mark_that_is_halved_or_doubled_is_noticed(name):
    claim = CLAIMS[name]
    if "vacuous" in claim.notes or "open" in claim.notes:
        pytest.skip("the bound has room, as the claim says")
    survivors = []
    for case in claim.cases["quick"]:
        with marks() as seen:
            base = evaluate(claim, case, 0)
            names = list(seen)
        for mark in names:
            for factor in (Fraction(2), Fraction(1, 2)):
                try:
                    with marks(**{mark: factor}):
                        parts = evaluate(claim, case, 0)
                except Exception:  # a mutant that does not run is noticed
                    continue
                feeds = {k for k, p in parts.items() if str(p.predicted) != str(base[k].predicted)}
                bounds = all(base[k].relation != "==" for k in feeds)
                # A bound is a theorem in one direction: loosened it stays true.
                if not bounds and not any(p.holds is False for p in parts.values()):
                    survivors.append((case, mark, factor))
    forget()
    assert not survivors


# ---------------------------------------------------------------------------------- declarations
def test_slugs_are_unique():
    assert [slug for slug, n in Counter(c.slug for c in CLAIMS.values()).items() if n > 1] == []


def test_sources_are_papers_of_the_corpus_and_serve_their_assertions():
    for name, claim in CLAIMS.items():
        for i, source in enumerate(claim.sources):
            letters = paper(source.key).assertions
            against = claim.notes.get("contradicts", "") if i == 0 else ""
            assert {*source.serves, *against} <= set(letters), (name, source)


def test_statements_of_abstracts_name_what_they_serve():
    for name, claim in CLAIMS.items():
        if claim.origin is Origin.ABSTRACT:
            assert claim.sources[0].serves, name


@pytest.mark.parametrize("theme", sorted({name.split("/")[0] for name in CLAIMS}))
def test_exceptions_stay_rare(theme):
    claims = [c for name, c in CLAIMS.items() if name.startswith(theme + "/")]
    for exception in EXCEPTIONS:
        excepted = [c.slug for c in claims if exception in c.notes]
        assert len(excepted) <= max(1, len(claims) // 10), (exception, excepted)


def test_finished_papers_have_a_claim_or_a_reason_for_every_assertion():
    bearing: dict[str, set[str]] = {}
    for claim in CLAIMS.values():
        for i, source in enumerate(claim.sources):
            against = claim.notes.get("contradicts", "") if i == 0 else ""
            bearing.setdefault(source.key, set()).update(source.serves, against)
    finished = [p for p in papers() if p.finished]
    for entry in finished:
        assert entry.assertions, entry.key
        left = set(entry.assertions) - bearing.get(entry.key, set()) - set(entry.out_of_reach)
        assert not left, (entry.key, left)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_module_experiment_figure_and_test_carry_the_same_path(experiment):
    theme, module = experiment.name.split("/")
    for path in (
        f"theorylab/{theme}/{module}.py",
        f"tests/{theme}/test_{module}.py",
        f"figures/{theme}/{module}.png",
    ):
        assert (ROOT / path).is_file(), path


# -------------------------------------------------------------------------- what is committed
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_committed_records_are_those_of_the_declared_claims(experiment):
    records = committed(ROOT, experiment)
    assert set(records) == {claim.slug for claim in experiment.claims}
    for claim in experiment.claims:
        record = records[claim.slug]
        assert record.verdict != "failed"
        assert record.ranges == ranges(claim)
        assert record.origin == claim.origin
        assert {c.name for c in record.controls} == {*claim.breaks, *claim.rescues}
        assert len(record.cases) == len(claim.cases["full"])


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_committed_figures_were_made_by_this_code(experiment):
    assert not stale(ROOT, experiment.name), "run: make figures"


def test_records_hold_no_host_or_path():
    for path in (ROOT / "figures").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert set(json.loads(text)) == {"claims", "code", "versions"}
