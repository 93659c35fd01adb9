"""The pages of the documentation site, as Markdown: themes, claims, papers, corrections, reference.

Everything is taken from the corpus, the experiments and the committed records; ``make docs`` gives
the pages to MkDocs.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from theorylab.corpus import THEMES, Paper, paper, papers
from theorylab.verify.applicability import theorems_of
from theorylab.verify.checkout import Experiment
from theorylab.verify.claims import Claim
from theorylab.verify.gallery import overview, theme_of
from theorylab.verify.index import Served, assertion_lines, committed, functions, serving, title
from theorylab.verify.records import PartRecord, Record, declared

__all__ = ["site_pages"]

CORRECTIONS = """Published statements that are refuted, each with its counterexample and what holds
in its place, and true claims that contradict what an abstract asserts.
"""


@dataclass(frozen=True)
class _Entry:
    """A claim on the site."""

    experiment: Experiment
    claim: Claim
    record: Record

    @property
    def page(self) -> str:
        return f"claims/{self.experiment.name}/{self.claim.slug}.md"


def site_pages(root: Path, experiments: Sequence[Experiment]) -> dict[str, str]:
    """Return file -> Markdown of all generated pages, with paths relative to the site's source."""
    entries: list[_Entry] = []
    for experiment in experiments:
        records = committed(root, experiment)
        for claim in experiment.claims:
            record = records.get(claim.slug, declared(experiment.name, claim))
            entries.append(_Entry(experiment, claim, record))
    by_paper = serving(root, experiments)
    pages = {"claims/index.md": _all_claims(entries), "corrections.md": _corrections(entries)}
    pages["gallery.md"] = overview(
        experiments, "figures/", lambda e: f"themes/{theme_of(e)}.md#{e.name.split('/')[1]}"
    )
    for theme in THEMES:
        pages[f"themes/{theme}.md"] = _theme(theme, entries)
    for entry in entries:
        pages[entry.page] = _claim(root, entry)
    for item in papers():
        pages[f"papers/{item.key}.md"] = _paper(item, by_paper.get(item.key, []))
    for theme in THEMES:
        if (root / "theorylab" / theme / "__init__.pyi").is_file():
            pages[f"reference/{theme}.md"] = _reference(theme)
    pages["reference/verify.md"] = _reference("verify")
    return pages


def _up(page: str) -> str:
    return "../" * page.count("/")


def _badge(record: Record) -> str:
    verdict = record.verdict or "not run"
    return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'


def _row(entry: _Entry, base: str) -> str:
    r = entry.record
    link = f"[{entry.claim.slug}]({base}{entry.page})"
    # A bar would end the cell.
    statement = r.statement.replace("\\|", "\\Vert{}").replace("|", "\\vert{}")
    return f"| {link} | {statement} | {_badge(r)} | {r.grade or ''} | {r.origin} |"


HEAD = "| claim | statement | verdict | grade | origin |\n|---|---|---|---|---|"


def _table(entries: Sequence[_Entry], base: str) -> str:
    rows = "\n".join(_row(e, base) for e in entries)
    return f'<div class="claims" markdown>\n\n{HEAD}\n{rows}\n\n</div>\n'


FILTER = """<p class="filter" id="filter">Show
<button data-verdict="">all</button> <button data-verdict="verified">verified</button>
<button data-verdict="refuted">refuted</button> <button data-verdict="open">open</button></p>
"""


def _all_claims(entries: Sequence[_Entry]) -> str:
    return f"---\nhide: [toc]\n---\n# All claims\n\n{FILTER}\n{_table(entries, '../')}"


def _theme(theme: str, entries: Sequence[_Entry]) -> str:
    mine = [e for e in entries if theme_of(e.experiment) == theme]
    lines = [f"# {title(theme)}", ""]
    chosen = [p for p in papers() if p.theme == theme]
    finished = sum(p.finished for p in chosen)
    lines += [f"{len(chosen)} papers, {finished} of them finished; {len(mine)} claims.", ""]
    if mine:
        lines += [f"Functions: [reference](../reference/{theme}.md).", ""]
    for name in dict.fromkeys(e.experiment.name for e in mine):
        group = [e for e in mine if e.experiment.name == name]
        anchor = name.split("/")[1]
        lines += [f"## {group[0].experiment.title} {{ #{anchor} }}", ""]
        lines += [f"![{name}](../figures/{name}.png)", ""]
        lines += [_table(group, "../")]
    lines += ["## Papers", ""]
    for p in chosen:
        state = " (finished)" if p.finished else ""
        lines.append(f"- [{p.title}](../papers/{p.key}.md){state}")
    return "\n".join(lines) + "\n"


def _claim(root: Path, entry: _Entry) -> str:
    r, claim, name = entry.record, entry.claim, entry.experiment.name
    up = _up(entry.page)
    facts = [_badge(r), r.grade or "", f"origin: {r.origin}"]
    head = " · ".join(filter(None, facts))
    lines = [f"# {claim.slug}", "", head, "", r.statement, ""]
    lines += [f"Instances: {_rounded(r.ranges)}", ""] if r.ranges else []
    lines += ["## Source", ""]
    for source, (key, letters) in zip(r.sources, r.serves.items(), strict=True):
        item = paper(key)
        lines.append(f"- [{item.title}]({up}papers/{key}.md): {source}")
        lines += [f"    - serves **{x}**: {item.assertions[x]}" for x in letters]
    lines += ["", *_evidence(r), *_remarks(r, entry, up)]
    if stated := theorems_of(r.claim.split("/")[0]).get(r.claim):
        call = f'applies("{r.claim}", {", ".join(f"{word}=..." for word in stated.data)})'
        lines += ["## Does it apply to your data?", "", f"`{call}` tests:", ""]
        lines += [*(f"- `{assumption}`" for assumption in stated.assumptions), ""]
    lines += ["## Figure", "", f"![{name}]({up}figures/{name}.png)", "", "## Run it", ""]
    lines += ["```console", f"$ theorylab run {r.claim} --full", "```", ""]
    served = Served(entry.experiment, claim, r, (), ())
    called = [_reference_to(f, place, up) for f, place in functions(served, root).items()]
    if called:
        lines += ["It calls " + ", ".join(called) + ".", ""]
    lines += ["```python", inspect.getsource(claim.check).rstrip(), "```", "", "## Cite", ""]
    for key in r.serves:
        lines += ["```bibtex", paper(key).bibtex, "```", ""]
    return "\n".join(lines)


def _reference_to(function: str, place: str, up: str) -> str:
    """Link a function to its place in the reference; a private one is only named."""
    theme = place.split("/")[1]
    if theme in THEMES and function in import_module(f"theorylab.{theme}").__all__:
        return f"[`{function}`]({up}reference/{theme}.md#theorylab.{theme}.{function})"
    return f"`{function}`"


def _evidence(r: Record) -> Iterator[str]:
    if not r.parts:
        return
    yield "## What was judged, and what a check would have rejected"
    yield ""
    yield "| part | relation | measured | predicted | margin | rejects | error from |"
    yield "|---|---|---|---|---|---|---|"
    for part in r.parts:
        if part.case == r.parts[0].case:
            cells = (part.name, _relation(part), _pair(part), _shown(part.predicted))
            margin = "" if part.margin is None else f"{round(part.margin, 12):.2g}"
            row = [*cells, margin, _rejects(part), part.source]
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""
    if r.controls:
        yield "## Controls"
        yield ""
    for control in r.controls:
        word = "turns it false" if control.kind == "break" else "rescues it"
        yield f"- *{control.name}* {word if control.decides else 'does not decide'}"
    yield ""


def _remarks(r: Record, entry: _Entry, up: str) -> Iterator[str]:
    if r.notes:
        yield "## Remarks"
        yield ""
    for reason, text in r.notes.items():
        shown = text
        if reason == "refuted_by":
            shown = f"[{text}]({up}claims/{entry.experiment.name}/{text}.md)"
        yield f"- {reason.replace('_', ' ')}: {shown}"
    yield ""


def _rounded(text: str) -> str:
    return re.sub(r"\d+\.\d{6,}", lambda m: f"{float(m[0]):.4g}", text)


def _relation(part: PartRecord) -> str:
    return {"<=": "≤", ">=": "≥", "==": "="}.get(part.relation, part.relation)


def _shown(value: object) -> str:
    if isinstance(value, list):
        text = ", ".join(_shown(v) for v in value[:3])
        return f"[{text}{', …' if len(value) > 3 else ''}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _pair(part: PartRecord) -> str:
    error = f" ± {_shown(part.error)}" if isinstance(part.error, float) and part.error else ""
    return _shown(part.measured) + error


def _rejects(part: PartRecord) -> str:
    def words(name: str, value: float | None) -> str:
        if value is None:
            return ""
        if part.relation == "==":
            return f"{name} moved by {100 * value:.2g} %" if value else f"{name} moved at all"
        return f"{name} cut by more than {value:.3g}"

    return "; ".join(filter(None, (words(k, v) for k, v in part.marks.items())))


def _paper(item: Paper, served: Sequence[Served]) -> str:
    lines = [f"# {item.title}", ""]
    year = str(item.year) if item.year else ""
    arxiv = f"[arXiv:{item.arxiv}](https://arxiv.org/abs/{item.arxiv})" if item.arxiv else ""
    theme = f"[{title(item.theme)}](../themes/{item.theme}.md)"
    lines += [" · ".join(filter(None, (item.authors, year, arxiv, f"`{item.key}`", theme))), ""]
    if not item.assertions:
        lines += [f"No theoretical assertion to check: {item.why.rstrip('.')}.", ""]

    def named(s: Served) -> str:
        return f"[{s.claim.slug}](../claims/{s.experiment.name}/{s.claim.slug}.md)"

    for line in assertion_lines(item, served, named):
        # Nested lists need four spaces.
        lines.append(line.replace("  - ", "    - ", 1) if line.startswith("  - ") else line)
    return "\n".join([*lines, "", "```bibtex", item.bibtex, "```", ""])


def _corrections(entries: Sequence[_Entry]) -> str:
    lines = ["# Corrections", "", CORRECTIONS]
    by_slug = {(e.experiment.name, e.claim.slug): e for e in entries}
    for e in entries:
        if correction := e.claim.notes.get("refuted_by"):
            other = by_slug[e.experiment.name, correction]
            lines += [f"## [{e.claim.slug}]({e.page})", "", _badge(e.record), ""]
            lines += [e.record.statement, "", f"What holds, by [{correction}]({other.page}):", ""]
            lines += [other.record.statement, ""]
    lines += ["## Contradictions", ""]
    for e in entries:
        if letters := e.claim.notes.get("contradicts"):
            item = paper(e.claim.sources[0].key)
            lines += [f"- [{e.claim.slug}]({e.page}): {e.record.statement}"]
            lines += [
                f"    - against **{x}** of [{item.title}](papers/{item.key}.md): "
                f"{item.assertions[x]}"
                for x in letters
            ]
    return "\n".join(lines) + "\n"


def _reference(theme: str) -> str:
    module = import_module(f"theorylab.{theme}")
    lines = [f"# theorylab.{theme}", "", (module.__doc__ or "").strip().splitlines()[0], ""]
    homes: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(module.__all__, key=str.lower):
        value = getattr(module, name)
        home = getattr(inspect.unwrap(value), "__module__", "") or ""
        if home.startswith("theorylab."):
            homes.setdefault(home, []).append((name, home))
    for home, names in sorted(homes.items()):
        paragraph = (import_module(home).__doc__ or home).strip().split("\n\n")[0]
        first = " ".join(paragraph.split()).split(". ")[0].rstrip(".")
        lines += [f"## {first}", "", f"`{home}`", ""]
        for name, _ in names:
            # The name by which a user imports it is the anchor; where it lives is read.
            lines += [f'<a id="theorylab.{theme}.{name}"></a>', "", f"::: {home}.{name}", ""]
    return "\n".join(lines)
