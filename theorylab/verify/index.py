"""``paper_index.md``: every paper by theme, with its claims, their verdicts, and links to module,
experiment and figure."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from theorylab.corpus import Paper, papers
from theorylab.verify.claims import Origin
from theorylab.verify.runner import Experiment, outputs

__all__ = ["committed", "paper_index"]

HEADER = """# Paper index

Made by `theorylab report`; edit the experiments, not this file. A verdict in bold is one on a
statement that the paper publishes; *sharpened*, *corrected* and *derived* statements are ours.
Claims without a check yet are listed as *not yet checked*.
"""

CLASSES = {
    "exact": "a small computation can decide its statements",
    "mechanism": "a small computation can show its mechanism in a model",
    "empirical": "its claims are measurements on large systems",
    "outside": "nothing to compute",
}


def committed(root: Path, experiment: Experiment) -> dict[str, Mapping[str, Any]]:
    """Return the committed records of an experiment by slug; one of another statement than its
    claim now makes is left out."""
    evidence, _ = outputs(root, experiment.name, "full", 0)
    if not evidence.is_file():
        return {}
    records = {
        r["claim"].split(":")[1]: r
        for r in json.loads(evidence.read_text(encoding="utf-8"))["claims"]
    }
    statements = {claim.slug: claim.statement for claim in experiment.claims}
    return {
        slug: record
        for slug, record in records.items()
        if record["statement"] == statements.get(slug)
    }


def paper_index(root: Path, experiments: Sequence[Experiment]) -> str:
    """Return the text of the index for the experiments of a checkout. It holds no measured
    number."""
    lines_of: dict[str, list[str]] = {}
    covered: dict[str, set[str]] = {}
    for experiment in experiments:
        records = committed(root, experiment)
        for claim in experiment.claims:
            record = records.get(claim.slug)
            verdict = record["verdict"] if record else "not run"
            if claim.origin is Origin.PUBLISHED:
                verdict = f"**{verdict}**"
            note = (
                f", corrected by `{claim.corrected_by}`"
                if claim.corrected_by
                else f": {claim.undecided}"
                if claim.undecided
                else ""
            )
            grade = f", {record['grade']}" if record and record["grade"] else ""
            name = experiment.name
            places = (
                f"[module](theorylab/{name}.py) · [experiment](experiments/{name}.py) · "
                f"[figure](figures/{name}.png)"
            )
            for key in claim.papers:
                covered.setdefault(key, set()).add(claim.slug)
                lines_of.setdefault(key, []).append(
                    f"- `{claim.slug}`: {verdict}{note} ({claim.origin}{grade}) — {places}"
                )
    lines = [HEADER]
    theme = ""
    for paper in papers():
        if paper.theme != theme:
            theme = paper.theme
            lines.append(f"## {theme.replace('_', ' ').capitalize()}\n")
        lines.append(f"### {paper.title}\n")
        identifier = (
            f" · [arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
        )
        lines.append(f"{paper.authors}, {paper.year}{identifier} · `{paper.key}`  ")
        lines.append(f"*{paper.kind}* ({CLASSES[paper.kind]}): {paper.why.rstrip('.')}.\n")
        rows = lines_of.get(paper.key, []) + _missing(paper, covered.get(paper.key, set()))
        lines += [*rows, ""] if rows else []
    return "\n".join(lines).rstrip() + "\n"


def _missing(paper: Paper, covered: set[str]) -> list[str]:
    return [f"- `{slug}`: not yet checked" for slug in paper.claims if slug not in covered]
