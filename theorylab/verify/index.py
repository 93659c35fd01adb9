"""The paper index: each paper's assertions, and under each the claims that decide it.

``paper_index.md`` is an overview by theme; ``docs/papers/<theme>.md`` has a theme's papers. Neither
holds a measured number.
"""

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theorylab.corpus import THEMES, Paper, papers
from theorylab.verify.checkout import PACKAGE, Experiment, outputs
from theorylab.verify.claims import Claim, Origin
from theorylab.verify.records import Record, read_records

__all__ = ["assertion_lines", "committed", "functions", "paper_index", "serving", "title"]

OVERVIEW = """# Paper index

Made by `theorylab report`; edit the experiments, not this file. Each theme has a page that lists
its papers, for each the theoretical assertions of its abstract in our words, and under each the
claims that serve, contradict or correct it. A verdict in bold is one on the paper's own words.

| theme | papers | assertions | checked | out of reach | claims |
|---|---|---|---|---|---|
"""

PAGE = """# {title}

Made by `theorylab report`; edit the experiments and the corpus, not this file. A verdict in bold is
one on the paper's own words (*published*: text seen; *abstract*: what the abstract asserts, or a
precise instance of it); *ours*: derived, sharpened, corrected or recalled.
"""


def title(theme: str) -> str:
    """Return the name of a theme, as readers see it."""
    return theme.replace("_", " ").capitalize().replace("relu", "ReLU")


@dataclass(frozen=True)
class Served:
    """A claim as it bears on a paper."""

    experiment: Experiment
    claim: Claim
    record: Record | None
    letters: tuple[str, ...]
    contradicts: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The committed verdict with grade and origin."""
        notes = self.claim.notes
        verdict = self.record.verdict if self.record and self.record.verdict else "not run"
        own = self.claim.origin is not Origin.OURS
        words = [f"**{verdict}**" if own else verdict]
        if self.record and self.record.grade:
            words.append(self.record.grade)
        words.append(str(self.claim.origin))
        if "recalled" in self.claim.sources[0].where:
            words.append("recalled")
        if "refuted_by" in notes:
            words.append(f"corrected by `{notes['refuted_by']}`")
        if "open" in notes:
            words.append(notes["open"])
        return ", ".join(words)


def committed(root: Path, experiment: Experiment) -> dict[str, Record]:
    """Return the committed records by slug, without those of another statement than is made now."""
    try:
        records = read_records(outputs(root, experiment.name, "full", 0)[0])
    except ValueError:
        return {}
    statements = {claim.slug: claim.statement for claim in experiment.claims}
    return {r.slug: r for r in records if r.statement == statements.get(r.slug)}


def serving(root: Path, experiments: Sequence[Experiment]) -> dict[str, list[Served]]:
    """Return paper key -> the claims that bear on it."""
    found: dict[str, list[Served]] = {}
    for experiment in experiments:
        records = committed(root, experiment)
        for claim in experiment.claims:
            against = tuple(claim.notes.get("contradicts", ""))
            for i, source in enumerate(claim.sources):
                contradicts = against if i == 0 else ()
                letters = tuple(s for s in source.serves if s not in contradicts)
                row = Served(experiment, claim, records.get(claim.slug), letters, contradicts)
                found.setdefault(source.key, []).append(row)
    return found


def assertion_lines(
    paper: Paper, claims: Sequence[Served], named: Callable[[Served], str]
) -> Iterator[str]:
    """Yield a line for each assertion of a paper, and one for each claim that bears on it.

    ``named`` writes a claim's name: a link, or plain text.
    """
    told: set[str] = set()
    for letter, text in paper.assertions.items():
        served = [s for s in claims if letter in s.letters]
        against = [s for s in claims if letter in s.contradicts]
        reason = paper.out_of_reach.get(letter, "")
        state = f": out of reach: {reason}" if reason else ""
        if not (served or against or reason):
            state = ": not checked yet"
        yield f"- **{letter}** {text.rstrip('.')}{state}"
        for s, word in [*((s, "") for s in served), *((s, "contradicts it: ") for s in against)]:
            detail = "see above" if s.claim.slug in told else s.verdict
            told.add(s.claim.slug)
            yield f"  - {word}{named(s)}: {detail}"
    for s in claims:
        if s.claim.slug not in told:
            yield f"- beside the abstract: {named(s)}: {s.verdict}"


def paper_index(root: Path, experiments: Sequence[Experiment]) -> dict[str, str]:
    """Return file -> text: the overview and a page a theme."""
    by_paper = serving(root, experiments)
    pages: dict[str, str] = {}
    rows = []
    for theme in THEMES:
        chosen = [p for p in papers() if p.theme == theme]
        lines = [PAGE.format(title=title(theme))]
        for paper in chosen:
            lines += [*_entry(root, paper, by_paper.get(paper.key, [])), ""]
        file = f"docs/papers/{theme}.md"
        pages[file] = "\n".join(lines).rstrip() + "\n"
        letters = [(p, a) for p in chosen for a in p.assertions]
        checked = sum(
            any(a in (*s.letters, *s.contradicts) for s in by_paper.get(p.key, ()))
            for p, a in letters
        )
        beyond = sum(a in p.out_of_reach for p, a in letters)
        count = sum(e.name.split("/")[0] == theme for e in experiments for _ in e.claims)
        row = (f"[{title(theme)}]({file})", len(chosen), len(letters), checked, beyond, count)
        rows.append("| " + " | ".join(map(str, row)) + " |")
    return {"paper_index.md": OVERVIEW + "\n".join(rows) + "\n"} | pages


def _entry(root: Path, paper: Paper, claims: Sequence[Served]) -> Iterator[str]:
    """Yield the lines of one paper."""
    yield f"### {paper.title}\n"
    link = f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
    facts = [paper.authors, str(paper.year) if paper.year else "", link, f"`{paper.key}`"]
    yield " · ".join(filter(None, facts)) + ("  \n*finished*" if paper.finished else "")
    yield ""
    if not paper.assertions:
        yield f"No theoretical assertion to check: {paper.why.rstrip('.')}."

    def named(s: Served) -> str:
        calls = ", ".join(f"[{name}](../../{place})" for name, place in functions(s, root).items())
        line = inspect.getsourcelines(s.claim.check)[1]
        link = f"[`{s.claim.slug}`](../../experiments/{s.experiment.name}.py#L{line})"
        return f"{link}" + (f" ({calls})" if calls else "")

    yield from assertion_lines(paper, claims, named)


def functions(served: Served, root: Path) -> Mapping[str, str]:
    """Return the package's functions that a check and its simulations call -> where they are."""
    module = sys.modules[served.claim.check.__module__]
    found: dict[str, str] = {}
    queue: list[Any] = [served.claim.check]
    seen = set()
    while queue:
        function = inspect.unwrap(queue.pop())
        if function in seen:
            continue
        seen.add(function)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        for node in ast.walk(tree):
            target = _resolve(node, vars(module))
            target = getattr(target, "py_func", target)
            if not (inspect.isfunction(target) or inspect.isclass(target)):
                continue
            home = target.__module__ or ""
            if home == module.__name__ and inspect.isfunction(target):
                queue.append(target)
            elif home.startswith("theorylab.") and not home.startswith("theorylab.verify"):
                target = inspect.unwrap(target)
                path = Path(inspect.getsourcefile(target) or "")
                line = inspect.getsourcelines(target)[1]
                place = os.path.relpath(path.resolve(), PACKAGE.resolve().parent)
                found[target.__name__] = f"{place}#L{line}"
    return dict(sorted(found.items()))


def _resolve(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """Return the object that a name, or an attribute of a module's name, means."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = names.get(node.value.id)
        return getattr(owner, node.attr, None) if inspect.ismodule(owner) else None
    return None
