"""Every experiment of the checkout: quick verdicts, property tests on the hypothesis space,
coverage of the corpus, the index."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from theorylab.corpus import papers
from theorylab.verify import Grade, Verdict, judge_all, strategy
from theorylab.verify.claims import evaluate
from theorylab.verify.index import committed, paper_index
from theorylab.verify.runner import discover, load
from theorylab.verify.spaces import draw

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [load(path) for path in discover(ROOT)]
CLAIMS = {
    experiment.claim_name(claim): claim for experiment in EXPERIMENTS for claim in experiment.claims
}
WITH_SPACE = [name for name, claim in CLAIMS.items() if claim.space]

# (Hypothesis examples, uniform draws): counted, so that every machine judges the same instances.
QUICK = (4, 4)
LONG = (100, 40)

FINISHED_THEMES: tuple[str, ...] = ("convex_relu", "matrix_sensing", "neural_collapse")
# Slug of the corpus -> why no check carries it.
REPLACED: dict[str, str] = {}


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_quick_cases_and_controls(experiment):
    judgements = judge_all(experiment.claims)
    failed = {j.claim.slug: j.problems for j in judgements if j.verdict is Verdict.FAILED}
    assert not failed


def judge_draws(claim, examples, uniform):
    """Judge what Hypothesis draws from the space, then uniform draws; none may be false, at most
    one in ten inconclusive."""
    decided = []

    def judge(instance, seed):
        evidence = evaluate(claim.check, instance, seed)
        decided.append(evidence.decides)
        assert evidence.holds is not False or not evidence.decides, (
            f"{instance}, seed {seed}: {evidence}"
        )

    @settings(max_examples=examples)
    @given(strategy(claim.space))
    def hypothesis_draws(instance):
        judge(instance, 0)

    hypothesis_draws()
    rng, first = np.random.default_rng(0), len(decided)
    for seed in range(uniform):
        judge(draw(claim.space, rng), seed)
    # The corners that Hypothesis likes are no fair sample of the space: the uniform draws are
    # counted.
    counted = decided[first:]
    assert counted.count(False) <= max(1, 0.1 * len(counted)), (
        f"{counted.count(False)} of {len(counted)} draws are inconclusive"
    )


@pytest.mark.parametrize("name", WITH_SPACE)
def test_claims_hold_throughout_their_space(name):
    judge_draws(CLAIMS[name], *QUICK)


@pytest.mark.long
@pytest.mark.parametrize("name", WITH_SPACE)
def test_claims_hold_throughout_their_space_long(name):
    judge_draws(CLAIMS[name], *LONG)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_a_search_can_raise_the_draws_of_statistical_claims(experiment):
    records = committed(ROOT, experiment)
    for claim in experiment.claims:
        if claim.space and records[claim.slug]["grade"] == Grade.STATISTICAL:
            assert "n_draws" in inspect.signature(claim.check).parameters, claim.slug


def test_started_papers_are_covered_claim_by_claim():
    covered = {claim.slug for claim in CLAIMS.values()} | set(REPLACED)
    started = {key for claim in CLAIMS.values() for key in claim.papers}
    missing = {
        paper.key: [slug for slug in paper.claims if slug not in covered]
        for paper in papers()
        if paper.key in started or paper.theme in FINISHED_THEMES
    }
    assert not {key: slugs for key, slugs in missing.items() if slugs}


def test_sources_are_papers_of_the_corpus():
    known = {paper.key for paper in papers()}
    assert not {
        name: key for name, claim in CLAIMS.items() for key in claim.papers if key not in known
    }


def test_slugs_are_unique():
    slugs = [name.split(":")[1] for name in CLAIMS]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_module_experiment_figure_and_test_carry_the_same_path(experiment):
    theme, module = experiment.name.split("/")
    for path in (
        f"theorylab/{theme}/{module}.py",
        f"tests/{theme}/test_{module}.py",
        f"figures/{theme}/{module}.png",
    ):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_committed_evidence_is_that_of_the_declared_claims(experiment):
    records = committed(ROOT, experiment)
    assert set(records) == {claim.slug for claim in experiment.claims}
    for claim in experiment.claims:
        record = records[claim.slug]
        assert record["verdict"] != "failed"
        assert record["statement"] == claim.statement
        assert record["origin"] == claim.origin
        assert {c["name"] for c in record["controls"]} == {
            *claim.breaks,
            *claim.shifts,
            *claim.rescues,
        }
        assert len(record["cases"]) == len(claim.cases["full"])


def test_the_paper_index_is_fresh():
    text = paper_index(ROOT, EXPERIMENTS)
    assert (ROOT / "paper_index.md").read_text(encoding="utf-8") == text, "run: theorylab report"
    assert text.count("\n### ") == len(papers()) == 445


def test_evidence_holds_no_time_host_or_path():
    for path in (ROOT / "figures").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(ROOT) not in text
        assert set(json.loads(text)) == {"claims", "versions"}
