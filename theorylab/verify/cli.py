"""The command ``theorylab``: list, show, run, falsify, report, new."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from theorylab.verify.claims import Claim, Preset
from theorylab.verify.runner import (
    Experiment,
    Outcome,
    discover,
    find_root,
    load,
    name_of,
    outputs,
    run,
    versions,
)
from theorylab.verify.spaces import hypotheses

__all__ = ["app", "main", "run_script"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "A numerical laboratory for machine-learning theory: judge claims, draw them, attack them."
    ),
)
out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

COLOUR = {"verified": "green", "refuted": "magenta", "open": "yellow", "failed": "bold red"}

RECORDED = (
    "relation",
    "verdict",
    "grade",
    "margin",
    "resolution",
    "measured",
    "predicted",
    "controls",
    "seed",
)

Json = Annotated[bool, typer.Option("--json", help="Print plain data.")]


@app.command("list")
def list_claims(
    theme: Annotated[str, typer.Option(help="Only this theme.")] = "",
    paper: Annotated[str, typer.Option(help="Only claims on the paper with this key.")] = "",
    as_json: Json = False,
) -> None:
    """List the claims with origin, grade and committed verdict."""
    from theorylab.corpus import THEMES, papers
    from theorylab.verify.index import committed

    root = _checkout()
    if theme and theme not in THEMES:
        _fail(f"no such theme: {theme}")
    if paper and paper not in {p.key for p in papers()}:
        _fail(f"no such paper: {paper}")
    rows = []
    for experiment in map(load, discover(root)):
        records = committed(root, experiment)
        for claim in experiment.claims:
            if (theme and experiment.name.split("/")[0] != theme) or (
                paper and paper not in claim.papers
            ):
                continue
            record = records.get(claim.slug, {})
            rows.append(
                {
                    "claim": experiment.claim_name(claim),
                    "sources": list(claim.sources),
                    "origin": str(claim.origin),
                    "kind": claim.kind,
                }
                | {field: record.get(field) for field in RECORDED}
            )
    if as_json:
        return _print_json({"claims": rows, "versions": versions()})
    table = Table("claim", "origin", "kind", "grade", "verdict", box=None, header_style="bold")
    for row in rows:
        verdict = str(row["verdict"] or "not run")
        table.add_row(
            str(row["claim"]),
            str(row["origin"]),
            str(row["kind"]),
            str(row["grade"] or ""),
            _coloured(verdict),
        )
    out.print(table)
    return None


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="theme/module:slug, or theme/module.")
    ],
) -> None:
    """Show the statement, hypotheses, sources, evidence, controls and figure of a claim."""
    from theorylab.corpus import paper, papers
    from theorylab.verify.index import committed

    root = _checkout()
    keys = {p.key for p in papers()}
    for experiment, claims in _select(root, [name]):
        records = committed(root, experiment)
        for claim in claims:
            out.rule(experiment.claim_name(claim), align="left")
            out.print(claim.statement, markup=False)
            for key, where in hypotheses(claim.space or {}).items():
                out.print(f"  {key}: {where}", markup=False)
            out.print(
                f"origin: {claim.origin}; kind: {claim.kind}; sources: {'; '.join(claim.sources)}",
                markup=False,
            )
            for key in claim.papers:
                out.print(
                    paper(key).bibtex if key in keys else f"{key}: not in the corpus", markup=False
                )
            record = records.get(claim.slug)
            if record is None:
                out.print("not run yet: theorylab run --full " + experiment.name)
            else:
                _show_record(record)
            out.print(
                f"figure: {outputs(root, experiment.name, 'full', 0)[1].relative_to(root)}",
                markup=False,
            )


@app.command("run")
def run_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|FILE.py]...", help="All experiments by default."),
    ] = None,
    full: Annotated[bool, typer.Option("--full/--quick", help="Which cases.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Judge on this seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=0, help="Judge on seeds 0 to N-1 instead.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Judge claims, run their controls, draw their figures; exit 1 if any claim or control
    fails."""
    preset: Preset = "full" if full else "quick"
    if seed and seeds:
        _fail("expected --seed or --seeds, got both")
    wanted = names or []
    files = [Path(n) for n in wanted if n.endswith(".py")]
    missing = next((f for f in files if not f.is_file()), None)
    if missing is not None:
        _fail(f"no such script: {missing}")
    chosen_seeds = list(range(seeds)) if seeds else [seed]
    whole: list[Path] = list(files)
    single: list[tuple[Path, str]] = []
    if len(files) < len(wanted) or not wanted:
        for path, slug in _resolve_names(_checkout(), [n for n in wanted if not n.endswith(".py")]):
            if slug:
                single.append((path, slug))
            else:
                whole.append(path)
    outcomes = _run(whole, (), preset, chosen_seeds, jobs, quiet=as_json)
    for path, slug in single:
        outcomes += _run([path], (slug,), preset, chosen_seeds, jobs, quiet=as_json)
    if as_json:
        _print_json({"claims": _joined(outcomes, len(chosen_seeds)), "versions": versions()})
    else:
        _summary(outcomes, len(chosen_seeds))
    for outcome in outcomes:
        if outcome.error:
            err.print(f"{outcome.name} stopped:\n{outcome.error}", markup=False)
    if any(outcome.failed for outcome in outcomes):
        raise typer.Exit(1)


@app.command("falsify")
def falsify_command(
    name: Annotated[str, typer.Argument(metavar="CLAIM", help="theme/module:slug.")],
    budget: Annotated[float, typer.Option(help="Seconds of search.")] = 10.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Search a claim's space for a counterexample; print the tightest instance; exit 1 on a
    counterexample."""
    from theorylab.verify.search import falsify

    if not 0 < budget < math.inf:
        _fail(f"expected a positive --budget, got {budget}")
    selected = [(e, c) for e, claims in _select(_checkout(), [name]) for c in claims]
    if len(selected) != 1:
        _fail(f"expected one claim, theme/module:slug, got {name} ({len(selected)} claims)")
    claim = selected[0][1]
    if not claim.space:
        _fail(f"{name} declares no space: only its cases are judged")
    result = falsify(claim, budget=budget, seed=seed)
    out.print(
        f"{result.status} ({result.evaluations} instances, {result.inconclusive} inconclusive)",
        markup=False,
    )
    for key, value in (result.instance or {}).items():
        out.print(f"  {key} = {value!r}", markup=False)
    if result.evidence:
        e = result.evidence
        out.print(
            f"  margin {e.margin:.4g}: measured {e.measured:.8g}, predicted "
            f"{e.predicted:.8g}. {e.detail}",
            markup=False,
        )
    if result.found:
        raise typer.Exit(1)


@app.command()
def report() -> None:
    """Write paper_index.md from the corpus, the experiments and the committed evidence."""
    from theorylab.verify.index import paper_index

    root = _checkout()
    text = paper_index(root, [load(path) for path in discover(root)])
    temporary = root / "paper_index.md.tmp"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(root / "paper_index.md")
    out.print("wrote paper_index.md")


@app.command()
def new(name: Annotated[str, typer.Argument(metavar="THEME/MODULE")]) -> None:
    """Write the four files of a new module (mathematics, experiment, test, valid calls for the fuzz
    test), ready to fill."""
    from keyword import iskeyword
    from string import Template

    from theorylab.corpus import THEMES

    theme, _, module = name.partition("/")
    if theme not in THEMES or not module.isidentifier() or iskeyword(module):
        _fail(f"expected THEME/MODULE with a theme of {', '.join(THEMES)}, got {name}")
    root = _checkout()
    targets = {
        "module": root / "theorylab" / theme / f"{module}.py",
        "experiment": root / "experiments" / theme / f"{module}.py",
        "test": root / "tests" / theme / f"test_{module}.py",
        "calls": root / "tests" / theme / f"calls_{module}.py",
    }
    existing = next((p for p in targets.values() if p.exists()), None)
    if existing is not None:
        _fail(f"{existing.relative_to(root)} exists already")
    if not (root / "theorylab" / theme / "__init__.py").exists():
        targets |= {
            "package": root / "theorylab" / theme / "__init__.py",
            "stub": root / "theorylab" / theme / "__init__.pyi",
        }
    templates = Path(__file__).with_name("templates")
    for kind, path in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / f"{kind}.txt").read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(theme=theme, module=module), encoding="utf-8")
        out.print(f"wrote {path.relative_to(root)}", markup=False)


def run_script(path: str) -> None:
    """Run one experiment as a program, with the options of ``theorylab run``."""
    app(["run", path, *sys.argv[1:]])


def main() -> None:
    """Entry point of the command."""
    app()


def _checkout() -> Path:
    root = find_root()
    if not (root / "experiments").is_dir():
        _fail(
            "no experiments here: the installed package carries none; run in a "
            "checkout of theorylab, or give a path to a script"
        )
    return root


def _resolve_names(root: Path, names: Sequence[str]) -> list[tuple[Path, str]]:
    """Return (script, slug or "") for theme, theme/module and theme/module:slug."""
    scripts = discover(root)
    if not names:
        return [(path, "") for path in scripts]
    found = []
    for name in names:
        module, _, slug = name.partition(":")
        matching = [
            path
            for path in scripts
            if module == name_of(path) or (module == path.parent.name and ":" not in name)
        ]
        if not matching or (":" in name and slug not in {c.slug for c in load(matching[0]).claims}):
            _fail(f"no such theme, module or claim: {name}")
        found += [(path, slug) for path in matching]
    return list(dict.fromkeys(found))


def _select(root: Path, names: Sequence[str]) -> list[tuple[Experiment, list[Claim]]]:
    selected = []
    for path, slug in _resolve_names(root, names):
        experiment = load(path)
        selected.append((experiment, [c for c in experiment.claims if slug in ("", c.slug)]))
    return selected


def _run(
    scripts: list[Path],
    slugs: tuple[str, ...],
    preset: Preset,
    seeds: list[int],
    jobs: int,
    *,
    quiet: bool,
) -> list[Outcome]:
    from rich.progress import Progress

    if not scripts:
        return []
    with Progress(console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        task = bar.add_task("judging", total=len(scripts) * len(seeds))

        def advance(outcome: Outcome) -> None:
            bar.advance(task)
            if not quiet and len(seeds) == 1:
                _print_outcome(outcome)

        return run(scripts, preset=preset, seeds=seeds, jobs=jobs, slugs=slugs, progress=advance)


def _print_outcome(outcome: Outcome) -> None:
    state = "unchanged" if outcome.skipped else f"{outcome.seconds:.1f} s"
    out.print(f"[bold]{outcome.name}[/bold] ({state})")
    for record in outcome.records:
        resolution = (
            "" if record["resolution"] is None else f"resolution {record['resolution']:.2g}"
        )
        controls = (
            f"{sum(c['decides'] for c in record['controls'])}/{len(record['controls'])} controls"
        )
        slug = record["claim"].split(":")[1]
        notes = ", ".join(filter(None, (record["origin"], record["grade"], resolution, controls)))
        out.print(f"  {_coloured(record['verdict'])}  {slug}  [dim]{notes}[/dim]")
        for problem in record["problems"]:
            out.print(f"      {problem}", markup=False)


def _joined(outcomes: Sequence[Outcome], n_seeds: int) -> list[dict[str, Any]]:
    """Return the records; over several seeds, one record a claim (the first seed that failed, else
    the first) with a count."""
    if n_seeds == 1:
        return [record for outcome in outcomes for record in outcome.records]
    by_claim: dict[str, list[dict[str, Any]]] = {}
    for outcome in outcomes:
        for record in outcome.records:
            by_claim.setdefault(record["claim"], []).append(record)
    joined = []
    for records in by_claim.values():
        failed = [r for r in records if r["verdict"] == "failed"]
        joined.append(
            {
                **(failed or records)[0],
                "seeds": {"of": n_seeds, "passed": len(records) - len(failed)},
            }
        )
    return joined


def _summary(outcomes: Sequence[Outcome], n_seeds: int) -> None:
    records = _joined(outcomes, n_seeds)
    if n_seeds > 1:
        for record in records:
            count = record["seeds"]
            out.print(
                f"{_coloured(record['verdict'])}  {record['claim']}  "
                f"{count['passed']}/{count['of']} seeds"
            )
            for problem in record["problems"]:
                out.print(f"    seed {record['seed']}: {problem}", markup=False)
    counts = {verdict: sum(r["verdict"] == verdict for r in records) for verdict in COLOUR}
    out.print(
        ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "no claims"
    )


def _show_record(record: Mapping[str, Any]) -> None:
    out.print(f"verdict: {_coloured(record['verdict'])} ({record['grade']}, {record['scope']})")
    out.print(
        f"  measured {record['measured']}, predicted {record['predicted']} "
        f"({record['relation']}), margin {record['margin']}, "
        f"resolution {record['resolution']}",
        markup=False,
    )
    out.print(f"  {record['detail']}", markup=False)
    for control in record["controls"]:
        state = "decides" if control["decides"] else "does not decide"
        out.print(
            f"  control ({control['changes']}) {control['name']}: margin "
            f"{control['margin']}, {state}",
            markup=False,
        )
    for reason in ("no_break", "coarse", "undecided"):
        if record[reason]:
            out.print(f"  {reason}: {record[reason]}", markup=False)


def _coloured(verdict: str) -> str:
    return f"[{COLOUR[verdict]}]{verdict}[/]" if verdict in COLOUR else escape(verdict)


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, indent=1, ensure_ascii=False))


def _fail(message: str) -> NoReturn:
    err.print(message, markup=False, style="red")
    raise typer.Exit(2)
