"""What a visitor of the repository sees first: the gallery of figures, and the README's table.

``theorylab report`` writes ``figures/README.md`` and a page a theme, which hosts of repositories
show beside the pictures; the site opens with the same overview.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from theorylab.corpus import THEMES, papers
from theorylab.verify.checkout import Experiment
from theorylab.verify.index import committed, paper_index, title

__all__ = ["gallery", "overview", "reports", "theme_of", "with_themes"]

OPENING = """# Gallery

One figure a module: lines are theory, points with intervals are what was judged, grey is a broken
hypothesis. A figure leads to the claims that it shows.
"""
START, END = "<!-- themes: made by theorylab report -->", "<!-- end of themes -->"
HEAD = "| theme | papers | claims | verified | refuted | figures |\n|---|---|---|---|---|---|"


def reports(root: Path, experiments: Sequence[Experiment]) -> dict[str, str]:
    """Return file -> text of all that ``theorylab report`` writes."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    return {
        **paper_index(root, experiments),
        **gallery(root, experiments),
        "README.md": with_themes(readme, root, experiments),
    }


def theme_of(experiment: Experiment) -> str:
    """Return the theme of an experiment."""
    return experiment.name.split("/")[0]


def overview(
    experiments: Sequence[Experiment], pictures: str, place: Callable[[Experiment], str]
) -> str:
    """Return all figures as small pictures, by theme; each leads to its ``place``."""
    lines = [OPENING]
    for theme in THEMES:
        mine = [e for e in experiments if theme_of(e) == theme]
        if mine:
            lines += [f"## {title(theme)}", ""]
            # Pictures in one paragraph flow in rows wherever they are shown.
            for e in mine:
                small = f'<img src="{pictures}{e.name}.png" width="31%" alt="{_quoted(e.title)}">'
                lines.append(f"[{small}]({place(e)})")
            lines.append("")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def gallery(root: Path, experiments: Sequence[Experiment]) -> dict[str, str]:
    """Return file -> text: the overview, and for each theme its figures with their claims."""

    def place(e: Experiment) -> str:
        return f"{theme_of(e)}/README.md#{e.name.split('/')[1]}"

    pages = {"figures/README.md": overview(experiments, "", place)}
    for theme in dict.fromkeys(map(theme_of, experiments)):
        lines = [f"# {title(theme)}", ""]
        lines += [f"[All themes](../README.md) · [papers](../../docs/papers/{theme}.md)", ""]
        for e in (e for e in experiments if theme_of(e) == theme):
            module = e.name.split("/")[1]
            lines += [f'<a id="{module}"></a>', "", f"## {e.title}", ""]
            lines += [f"![{e.name}]({module}.png)", "", *_claims(root, e), ""]
        pages[f"figures/{theme}/README.md"] = "\n".join(lines)
    return pages


def _claims(root: Path, experiment: Experiment) -> list[str]:
    records = committed(root, experiment)
    lines = []
    for claim in experiment.claims:
        record = records.get(claim.slug)
        words = [record.verdict, record.grade, record.origin] if record else ["not run"]
        line = inspect.getsourcelines(claim.check)[1]
        link = f"[`{claim.slug}`](../../experiments/{experiment.name}.py#L{line})"
        lines.append(f"- {link}: {', '.join(filter(None, words))}")
    return lines


def with_themes(text: str, root: Path, experiments: Sequence[Experiment]) -> str:
    """Return the README with its table of themes, between two marks, as the records have it.

    Raises
    ------
    ValueError
        If the marks are not there, once each and in their order.
    """
    before, _, rest = text.partition(START)
    inside, end, after = rest.partition(END)
    if not end or START in inside + after or END in before + after:
        raise ValueError(f"text: expected one table between {START} and {END}")
    return f"{before}{START}\n{_themes(root, experiments)}\n{END}{after}"


def _themes(root: Path, experiments: Sequence[Experiment]) -> str:
    rows, total = [HEAD], Counter[str]()
    for theme in THEMES:
        mine = [e for e in experiments if theme_of(e) == theme]
        verdicts = Counter(r.verdict for e in mine for r in committed(root, e).values())
        counts = Counter(
            papers=sum(p.theme == theme for p in papers()),
            claims=sum(len(e.claims) for e in mine),
            verified=verdicts["verified"],
            refuted=verdicts["refuted"],
            figures=sum((root / "figures" / f"{e.name}.png").is_file() for e in mine),
        )
        total += counts
        name = title(theme)
        if mine:
            what = (import_module(f"theorylab.{theme}").__doc__ or "").split(".")[0]
            name = f"[{name}](figures/{theme}/README.md): {what[:1].lower()}{what[1:]}"
        rows.append(_row(name, counts))
    return "\n".join([*rows, _row("all", total)])


def _row(name: str, counts: Counter[str]) -> str:
    columns = ("papers", "claims", "verified", "refuted", "figures")
    return f"| {name} | {' | '.join(str(counts[c]) for c in columns)} |"
